//! The surrogate that alignment ascends: from the scores of a response's tokens, their derivatives.

use std::ops::Range;

use cordada_rl::objective::{
    Aggregation, BatchCounts, ClipRange, SequenceRatio, ValueClip, cispo, clipped_surrogate,
    clipped_value_loss, kl_loss, sequence_surrogate,
};

use super::advantage::{Advantages, Responses};
use super::method::AlignSettings;
use super::metrics::{Mean, Spread};
use crate::{CompletionScores, Derivatives};

/// What a pass over the responses tells.
#[derive(Debug, Default)]
pub(crate) struct Pass {
    pub(crate) objective: Mean,
    pub(crate) entropy: Mean,
    /// Terms that were clipped, and those of them at the lower end.
    pub(crate) clipped: Mean,
    pub(crate) clipped_low: Mean,
    pub(crate) ratio: Spread,
    /// k3 of the policy before and after the steps so far.
    pub(crate) old_kl: Mean,
    pub(crate) value_loss: Mean,
    pub(crate) grad_norm: Mean,
    /// Largest |ln π − ln π_old| of the first minibatch, in which nothing has moved yet.
    pub(crate) mismatch: f64,
}

/// The objective of one minibatch.
pub(crate) struct Surrogate<'a> {
    pub(crate) settings: &'a AlignSettings,
    pub(crate) beta: f64,
    pub(crate) responses: &'a Responses,
    pub(crate) targets: &'a Advantages,
    /// First token of each response.
    pub(crate) starts: &'a [usize],
    pub(crate) counts: BatchCounts,
    /// Whether the policy learns, and not only the critic.
    pub(crate) policy: bool,
}

impl Surrogate<'_> {
    /// Derivatives of response i's tokens.
    #[allow(clippy::needless_pass_by_value, reason = "borrowed parts, handed on")]
    pub(crate) fn derive(
        &self,
        i: usize,
        scores: CompletionScores<'_, f32>,
        d: Derivatives<'_, f32>,
        pass: &mut Pass,
        first: bool,
    ) {
        let s = self.settings;
        let tokens = self.starts[i]..self.starts[i + 1];
        let old = &self.responses.old_log_prob[tokens.clone()];
        let advantages = &self.targets.advantages[tokens.clone()];
        for (&new, &old) in scores.log_prob.iter().zip(old) {
            let log_ratio = f64::from(new) - f64::from(old);
            if first {
                pass.mismatch = pass.mismatch.max(log_ratio.abs());
            }
            pass.ratio.add(log_ratio.exp());
            pass.old_kl.add(log_ratio.exp_m1() - log_ratio);
        }
        scores.entropy.iter().for_each(|&h| pass.entropy.add(f64::from(h)));
        let weight: f32 = self.aggregation().token_weight(self.counts, tokens.len());
        if self.policy {
            self.surrogate(scores.log_prob, old, advantages, weight, d.log_prob, pass);
            self.penalty(scores.log_prob, &tokens, weight, d.log_prob, d.kl);
            d.entropy.fill(s.entropy_coef as f32 * weight);
        }
        // Values are averaged over tokens whatever the policy's aggregation.
        let weight: f32 = Aggregation::TokenMean.token_weight(self.counts, tokens.len());
        for (t, d_value) in d.value.iter_mut().enumerate() {
            let (old, target) =
                (self.responses.values[tokens.start + t], self.targets.returns[tokens.start + t]);
            let clip = ValueClip::Max(s.value_clip as f32);
            let term = clipped_value_loss(scores.value[t], old, target, clip);
            pass.value_loss.add(f64::from(term.loss));
            *d_value = -(s.value_coef as f32) * term.d_value * weight;
        }
    }

    fn aggregation(&self) -> Aggregation {
        match self.settings.aggregation.as_str() {
            "token" => Aggregation::TokenMean,
            "sum" => Aggregation::SequenceSum,
            "constant" => Aggregation::Constant { max_length: self.settings.max_new_tokens },
            _ => Aggregation::SequenceMean,
        }
    }

    /// ψ of the policy's part.
    #[allow(clippy::too_many_arguments, reason = "one response's tokens, and where results go")]
    fn surrogate(
        &self,
        log_prob: &[f32],
        old: &[f32],
        advantages: &[f32],
        weight: f32,
        psi: &mut [f32],
        pass: &mut Pass,
    ) {
        let s = self.settings;
        let clip = ClipRange::asymmetric(s.clip_low as f32, s.clip_high as f32);
        let mut tell = |objective: f32, clipped: bool, advantage: f32| {
            pass.objective.add(f64::from(objective));
            pass.clipped.add(f64::from(u8::from(clipped)));
            // The lower end holds what is to become less likely.
            pass.clipped_low.add(f64::from(u8::from(clipped && advantage < 0.0)));
        };
        match s.objective.as_str() {
            "sequence" | "product" => {
                let (kind, scale) = if s.objective == "sequence" {
                    // The ratio's derivative has 1 / T of its own, which the weight has too.
                    (SequenceRatio::GeometricMean, weight * log_prob.len() as f32)
                } else {
                    (SequenceRatio::Product, weight)
                };
                let advantage = advantages.first().copied().unwrap_or(0.0);
                let term = sequence_surrogate(kind, log_prob, old, advantage, clip, psi);
                tell(term.objective, term.clipped, advantage);
                for psi in psi {
                    *psi *= scale;
                }
            }
            name => {
                let tokens = log_prob.iter().zip(old).zip(advantages).zip(psi);
                for (((&new, &old), &advantage), psi) in tokens {
                    let term = if name == "cispo" {
                        cispo(new, old, advantage, s.clip_high as f32)
                    } else {
                        clipped_surrogate(new, old, advantage, clip)
                    };
                    tell(term.objective, term.clipped, advantage);
                    *psi = term.psi * weight;
                }
            }
        }
    }

    /// The KL in the loss.
    fn penalty(
        &self,
        log_prob: &[f32],
        tokens: &Range<usize>,
        weight: f32,
        psi: &mut [f32],
        d_kl: &mut [f32],
    ) {
        let Some(reference) = self.responses.ref_log_prob.get(tokens.clone()) else { return };
        if self.settings.kl_in != "loss" {
            return;
        }
        let Some(estimator) = self.settings.kl_estimator() else {
            return d_kl.fill(-(self.beta as f32) * weight);
        };
        for ((&new, &reference), psi) in log_prob.iter().zip(reference).zip(psi) {
            let term = kl_loss(estimator, new, reference);
            *psi -= self.beta as f32 * term.d_log_prob * weight;
        }
    }
}
