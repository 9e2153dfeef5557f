//! Objectives in closed form: what a sample adds to the objective, and ψ, its derivative with
//! respect to log π(a | s). The policy's gradient is then Σ ψ ∇ log π, whatever the policy is: a
//! table, a network on CartPole, a language model whose samples are tokens.
//!
//! Policy objectives have the papers' sign: they are to be ascended. Value losses, KL penalties and
//! the losses of preferences and rankings are to be descended. Each function takes one sample;
//! averaging (times 1/B, or by [`Aggregation`] where samples are tokens) and adding up is the
//! caller's.
//!
//! What holds for control holds for tokens: PPO, GRPO, Dr. GRPO, DAPO and REINFORCE++ are
//! [`clipped_surrogate`] with other advantages and another [`Aggregation`]; supervised fine-tuning
//! is [`policy_gradient`] with weight 1.
//!
//! The entropy bonus is not here: its gradient does not go through log π of one action, see
//! [`Distribution`](crate::distribution::Distribution).

mod aggregate;
mod cispo;
mod clip;
mod distillation;
mod distributional;
mod kl_loss;
mod kl_penalty;
mod policy_gradient;
mod preference;
mod ranking;
mod sapo;
mod sequence_ratio;
mod td;
mod temperature;
mod value;

pub use aggregate::{Aggregation, BatchCounts};
pub use cispo::cispo;
pub use clip::{ClipRange, Surrogate, clipped_surrogate, dual_clipped_surrogate, surrogate};
pub use distillation::generalized_jsd;
pub use distributional::{QuantileReduction, categorical_cross_entropy, quantile_huber};
pub use kl_loss::{KlTerm, kl_loss};
pub use kl_penalty::{AdaptiveKl, ProportionalKl};
pub use policy_gradient::{Term, policy_gradient};
pub use preference::{Kto, KtoTerm, PreferenceLoss, ScoredResponse};
pub use ranking::{
    PairTerm, ScoreTerm, all_pairs, binary_cross_entropy, bradley_terry, plackett_luce,
};
pub use sapo::{SapoTemperature, sapo};
pub use sequence_ratio::{SequenceRatio, sequence_surrogate, sequence_token_surrogate};
pub use td::{TdLoss, huber};
pub use temperature::{TemperatureTerm, temperature_loss};
pub use value::{ValueClip, ValueTerm, clipped_value_loss, value_loss};

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever the clip, the gate or the ratio: with nothing learned yet they are REINFORCE.
    #[test]
    fn on_policy_every_surrogate_is_the_policy_gradient() {
        let log_prob = [-0.3_f32, -1.7, -0.01, -4.0];
        for advantage in [-1.3, 0.4] {
            let mut of_response = [0.0; 4];
            let advantages = [advantage; 4];
            sequence_token_surrogate(&log_prob, &log_prob, &advantages, 3e-4, &mut of_response);
            for (&l, of_response) in log_prob.iter().zip(of_response) {
                let want = policy_gradient(l, advantage).psi;
                let gate = SapoTemperature::default();
                let got = [
                    clipped_surrogate(l, l, advantage, 0.2),
                    clipped_surrogate(l, l, advantage, ClipRange::asymmetric(0.2, 0.28)),
                    dual_clipped_surrogate(l, l, advantage, 0.2, 4.0),
                    cispo(l, l, advantage, 5.0),
                    sapo(l, l, advantage, gate),
                ];
                // To the bit, in single precision.
                assert_eq!(got.map(|term| term.psi), [want; 5]);
                assert_eq!(of_response, want);
            }
            let mut psi = [0.0; 4];
            let kinds = [(SequenceRatio::Product, 1.0), (SequenceRatio::GeometricMean, 0.25)];
            for (kind, share) in kinds {
                sequence_surrogate(kind, &log_prob, &log_prob, advantage, 3e-4, &mut psi);
                assert_eq!(psi, [share * advantage; 4], "{kind:?}");
            }
        }
    }
}
