//! Objectives in closed form: what a sample adds to the objective, and ψ, its derivative with
//! respect to log π(a | s). The policy's gradient is then Σ ψ ∇ log π, whatever the policy is: a
//! table, a network on CartPole, a language model whose samples are tokens.
//!
//! Policy objectives have the papers' sign: they are to be ascended. Value losses are to be
//! descended. Each function takes one sample; averaging (times 1/B) and adding up is the caller's.
//! The entropy bonus is not here: its gradient does not go through log π of one action, see
//! [`Distribution`](crate::distribution::Distribution).

mod clip;
mod distributional;
mod kl_penalty;
mod policy_gradient;
mod td;
mod temperature;
mod value;

pub use clip::{ClipRange, Surrogate, clipped_surrogate, dual_clipped_surrogate, surrogate};
pub use distributional::{QuantileReduction, categorical_cross_entropy, quantile_huber};
pub use kl_penalty::AdaptiveKl;
pub use policy_gradient::{Term, policy_gradient};
pub use td::{TdLoss, huber};
pub use temperature::{TemperatureTerm, temperature_loss};
pub use value::{ValueClip, ValueTerm, clipped_value_loss, value_loss};
