//! A choice among n actions with probabilities softmax(logits), over the allowed actions only.
//!
//! ```text
//! log π(i) = l_i − log Σ_j exp l_j                 ∂ log π(a) / ∂l_i = [i = a] − π(i)
//! H = −Σ_i π(i) log π(i)                           ∂H / ∂l_i = −π(i) (log π(i) + H)
//! KL(p ‖ q) = Σ_i p(i) (log p(i) − log q(i))       ∂KL / ∂l^p_i = p(i) (log p(i) − log q(i) − KL)
//!                                                  ∂KL / ∂l^q_i = q(i) − p(i)
//! F v = p ∘ v − p (pᵀ v)                           the Fisher matrix in l
//! ```
//!
//! Sums run over the allowed actions; a masked logit is never read and its gradient is exactly 0.
//! The largest allowed logit is subtracted first, so no finite logit overflows. A logit may be −∞,
//! unless all are.

use cordada_env::Stream;
use cordada_nn::Real;
use cordada_nn::kernel::LANES;

use super::categorical_lanes::{self as lanes, for_each_size};
use super::family::{Family, Mask, add_scores_by_row, log_probs_by_row};

/// Runs `$body` with `$allowed` a function from an index to whether the mask allows it: compiled
/// once without a mask, in which case the test vanishes, and once with one.
macro_rules! with_mask {
    ($mask:expr, $allowed:ident => $body:expr) => {
        match $mask {
            None => {
                let $allowed = |_: usize| true;
                $body
            }
            Some(mask) => {
                assert!(
                    mask.contains(&true),
                    "a mask allows no action: {} entries, all false",
                    mask.len()
                );
                let $allowed = |i: usize| mask[i];
                $body
            }
        }
    };
}

/// p · x with 0 · ∞ = 0: an impossible action adds nothing to an expectation. NaN stays NaN.
#[inline(always)]
pub(crate) fn expected<F: Real>(p: F, x: F) -> F {
    if p == F::ZERO { F::ZERO } else { p * x }
}

/// What turns logits into log-probabilities, and the entropy that falls out on the way.
#[derive(Clone, Copy)]
struct Softmax<F> {
    max: F,
    /// 1 / Σ exp(l − max).
    inv_sum: F,
    /// log Σ exp(l − max).
    log_sum: F,
    entropy: F,
}

impl<F: Real> Softmax<F> {
    #[inline(always)]
    fn of(logits: &[F], allowed: impl Fn(usize) -> bool) -> Self {
        let mut max = F::NEG_INFINITY;
        for (i, &logit) in logits.iter().enumerate() {
            if allowed(i) {
                max = max.max(logit);
            }
        }
        let (mut sum, mut weighted) = (F::ZERO, F::ZERO);
        for (i, &logit) in logits.iter().enumerate() {
            if allowed(i) {
                let z = logit - max;
                let e = z.exp();
                sum += e;
                weighted += expected(e, z);
            }
        }
        let log_sum = sum.ln();
        let inv_sum = F::ONE / sum;
        Self { max, inv_sum, log_sum, entropy: log_sum - weighted * inv_sum }
    }

    /// Two steps, because max and `log_sum` may be of very different sizes.
    #[inline(always)]
    fn log_prob(&self, logit: F) -> F {
        (logit - self.max) - self.log_sum
    }

    /// Not the exponential of `log_prob`: that would have to wait for the logarithm.
    #[inline(always)]
    fn prob(&self, logit: F) -> F {
        (logit - self.max).exp() * self.inv_sum
    }
}

/// The index that an action holds.
#[inline(always)]
fn index<F: Real>(action: F, len: usize) -> usize {
    let index = action.f64() as usize;
    assert!(index < len, "action {action} is not one of {len}");
    index
}

/// Asserts that actions are indices below `len`, all at once.
#[inline(always)]
fn check_indices<F: Real>(actions: &[F; LANES], len: usize) {
    let mut inside = true;
    for &action in actions {
        inside &= action >= F::ZERO && action < F::of(len as f64);
    }
    assert!(inside, "an action of {actions:?} is not one of {len}");
}

#[inline(always)]
pub(super) fn log_prob_entropy<F: Real>(logits: &[F], mask: Mask<'_>, action: F) -> (F, F) {
    with_mask!(mask, allowed => {
        let softmax = Softmax::of(logits, allowed);
        let chosen = index(action, logits.len());
        let log_prob =
            if allowed(chosen) { softmax.log_prob(logits[chosen]) } else { F::NEG_INFINITY };
        (log_prob, softmax.entropy)
    })
}

#[inline(always)]
pub(super) fn entropy<F: Real>(logits: &[F], mask: Mask<'_>) -> F {
    with_mask!(mask, allowed => Softmax::of(logits, allowed).entropy)
}

#[inline(always)]
pub(super) fn add_score_entropy<F: Real>(
    logits: &[F],
    mask: Mask<'_>,
    (action, psi): (F, F),
    entropy_coef: F,
    d_logits: &mut [F],
) {
    with_mask!(mask, allowed => {
        let softmax = Softmax::of(logits, allowed);
        let chosen = index(action, logits.len());
        for (i, (d, &logit)) in d_logits.iter_mut().zip(logits).enumerate() {
            if allowed(i) {
                let hit = if i == chosen { psi } else { F::ZERO };
                let above_mean = softmax.log_prob(logit) + softmax.entropy;
                *d += hit - expected(softmax.prob(logit), psi + entropy_coef * above_mean);
            }
        }
    });
}

#[inline(always)]
pub(super) fn add_entropy_gradient<F: Real>(
    logits: &[F],
    mask: Mask<'_>,
    coef: F,
    d_logits: &mut [F],
) {
    with_mask!(mask, allowed => {
        let softmax = Softmax::of(logits, allowed);
        for (i, (d, &logit)) in d_logits.iter_mut().zip(logits).enumerate() {
            if allowed(i) {
                let above_mean = softmax.log_prob(logit) + softmax.entropy;
                *d += -coef * expected(softmax.prob(logit), above_mean);
            }
        }
    });
}

#[inline(always)]
pub(super) fn kl<F: Real>(p_logits: &[F], q_logits: &[F], mask: Mask<'_>) -> F {
    with_mask!(mask, allowed => {
        let (p, q) = (Softmax::of(p_logits, allowed), Softmax::of(q_logits, allowed));
        let mut sum = F::ZERO;
        for (i, (&p_logit, &q_logit)) in p_logits.iter().zip(q_logits).enumerate() {
            if allowed(i) {
                sum += expected(p.prob(p_logit), p.log_prob(p_logit) - q.log_prob(q_logit));
            }
        }
        sum
    })
}

pub(super) fn add_kl_gradient_p<F: Real>(
    p_logits: &[F],
    q_logits: &[F],
    mask: Mask<'_>,
    coef: F,
    d_p: &mut [F],
) {
    let kl = kl(p_logits, q_logits, mask);
    with_mask!(mask, allowed => {
        let (p, q) = (Softmax::of(p_logits, allowed), Softmax::of(q_logits, allowed));
        for (i, d) in d_p.iter_mut().enumerate() {
            if allowed(i) {
                let log_ratio = p.log_prob(p_logits[i]) - q.log_prob(q_logits[i]);
                *d += coef * expected(p.prob(p_logits[i]), log_ratio - kl);
            }
        }
    });
}

pub(super) fn add_kl_gradient_q<F: Real>(
    p_logits: &[F],
    q_logits: &[F],
    mask: Mask<'_>,
    coef: F,
    d_q: &mut [F],
) {
    with_mask!(mask, allowed => {
        let (p, q) = (Softmax::of(p_logits, allowed), Softmax::of(q_logits, allowed));
        for (i, d) in d_q.iter_mut().enumerate() {
            if allowed(i) {
                *d += coef * (q.prob(q_logits[i]) - p.prob(p_logits[i]));
            }
        }
    });
}

#[inline(always)]
pub(super) fn fisher_product<F: Real>(logits: &[F], mask: Mask<'_>, v: &[F], out: &mut [F]) {
    with_mask!(mask, allowed => {
        let softmax = Softmax::of(logits, allowed);
        let mut mean = F::ZERO;
        for (i, (&logit, &v)) in logits.iter().zip(v).enumerate() {
            if allowed(i) {
                mean += softmax.prob(logit) * v;
            }
        }
        for (i, out) in out.iter_mut().enumerate() {
            *out = if allowed(i) {
                softmax.prob(logits[i]) * (v[i] - mean)
            } else {
                F::ZERO
            };
        }
    });
}

/// The allowed action with the largest of some scores; the first one of equals.
#[inline(always)]
fn best<F: Real>(scores: impl Iterator<Item = F>, allowed: impl Fn(usize) -> bool) -> usize {
    let mut best: Option<(usize, F)> = None;
    for (i, score) in scores.enumerate() {
        if allowed(i) && best.is_none_or(|(_, highest)| score > highest) {
            best = Some((i, score));
        }
    }
    best.expect("a choice needs an action").0
}

pub(super) fn mode<F: Real>(logits: &[F], mask: Mask<'_>) -> usize {
    with_mask!(mask, allowed => best(logits.iter().copied(), allowed))
}

/// A choice among `n` actions, from `n` logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Categorical {
    num_actions: usize,
}

impl Categorical {
    /// A choice among `num_actions` actions.
    ///
    /// # Panics
    ///
    /// If there are none.
    pub fn new(num_actions: usize) -> Self {
        assert!(num_actions > 0, "a choice needs an action");
        Self { num_actions }
    }

    /// The smallest index i with u < π(0) + … + π(i): turns a uniform number into a sample.
    ///
    /// The sums run in `f64`. An action of probability 0 is never chosen, neither is a masked one.
    ///
    /// # Shapes
    ///
    /// `logits`, `mask`: `[n]`. `u` ∈ [0, 1).
    ///
    /// # Panics
    ///
    /// If the mask allows no action.
    #[inline(always)]
    pub fn inverse_cdf<F: Real>(logits: &[F], mask: Option<&[bool]>, u: f64) -> usize {
        with_mask!(mask, allowed => {
            let softmax = Softmax::of(logits, allowed);
            let weight = |i: usize| (logits[i] - softmax.max).exp().f64();
            let total: f64 = (0..logits.len()).filter(|&i| allowed(i)).map(weight).sum();
            let threshold = u * total;
            let (mut chosen, mut sum) = (0, 0.0);
            for i in 0..logits.len() {
                if allowed(i) {
                    let weight = weight(i);
                    sum += weight;
                    // Where rounding leaves the threshold above all sums: the last possible one.
                    if weight > 0.0 {
                        chosen = i;
                    }
                    if threshold < sum {
                        break;
                    }
                }
            }
            chosen
        })
    }

    /// The index of the largest `l_i + g_i` over the allowed actions: turns Gumbel noise into a sample.
    ///
    /// # Shapes
    ///
    /// `logits`, `mask`, `noise`: `[n]`, the noise from [`gumbel`].
    ///
    /// # Panics
    ///
    /// If the mask allows no action.
    pub fn gumbel_max<F: Real>(logits: &[F], mask: Option<&[bool]>, noise: &[F]) -> usize {
        assert_eq!(logits.len(), noise.len(), "as many noise values as logits are needed");
        with_mask!(mask, allowed => {
            best(logits.iter().zip(noise).map(|(&logit, &noise)| logit + noise), allowed)
        })
    }
}

/// A sample of the standard Gumbel distribution from a uniform one: −log(−log u), u ∈ (0, 1).
pub fn gumbel(u: f64) -> f64 {
    -Real::ln(-Real::ln(u))
}

impl Family for Categorical {
    #[inline(always)]
    fn num_params(&self) -> usize {
        self.num_actions
    }
    #[inline(always)]
    fn action_len(&self) -> usize {
        1
    }
    #[inline(always)]
    fn mask_len(&self) -> usize {
        self.num_actions
    }
    #[inline(always)]
    fn log_prob<F: Real>(&self, params: &[F], mask: Mask<'_>, action: &[F]) -> F {
        log_prob_entropy(params, mask, action[0]).0
    }
    #[inline(always)]
    fn entropy<F: Real>(&self, params: &[F], mask: Mask<'_>) -> F {
        entropy(params, mask)
    }
    #[inline(always)]
    fn log_prob_entropy<F: Real>(&self, params: &[F], mask: Mask<'_>, action: &[F]) -> (F, F) {
        log_prob_entropy(params, mask, action[0])
    }
    #[inline(always)]
    fn add_score_entropy<F: Real>(
        &self,
        params: &[F],
        mask: Mask<'_>,
        (action, psi): (&[F], F),
        entropy_coef: F,
        d_params: &mut [F],
    ) {
        add_score_entropy(params, mask, (action[0], psi), entropy_coef, d_params);
    }
    #[inline(always)]
    fn log_prob_entropy_batch<F: Real>(
        &self,
        params: &[F],
        masks: Mask<'_>,
        actions: &[F],
        log_prob: &mut [F],
        entropy: &mut [F],
    ) {
        let n = self.num_actions;
        let mut done = 0;
        if masks.is_none() {
            for_each_size!(n, N => {
                let outputs = log_prob.as_chunks_mut().0.iter_mut().zip(entropy.as_chunks_mut().0);
                for (actions, (log_prob, entropy)) in actions.as_chunks().0.iter().zip(outputs) {
                    check_indices(actions, n);
                    lanes::log_prob_entropy::<F, N>(&params[done * N..], actions, log_prob, entropy);
                    done += LANES;
                }
            });
        }
        let (log_prob, entropy) = (&mut log_prob[done..], &mut entropy[done..]);
        let masks = masks.map(|masks| &masks[done * n..]);
        log_probs_by_row(self, &params[done * n..], masks, &actions[done..], log_prob, entropy);
    }
    #[inline(always)]
    fn add_score_entropy_batch<F: Real>(
        &self,
        params: &[F],
        masks: Mask<'_>,
        (actions, psi): (&[F], &[F]),
        entropy_coef: F,
        d_params: &mut [F],
    ) {
        let n = self.num_actions;
        let mut done = 0;
        if masks.is_none() {
            for_each_size!(n, N => {
                for scored in actions.as_chunks().0.iter().zip(psi.as_chunks().0) {
                    check_indices(scored.0, n);
                    let (params, d_params) = (&params[done * N..], &mut d_params[done * N..]);
                    lanes::add_score_entropy::<F, N>(params, scored, entropy_coef, d_params);
                    done += LANES;
                }
            });
        }
        let masks = masks.map(|masks| &masks[done * n..]);
        let scored = (&actions[done..], &psi[done..]);
        add_scores_by_row(
            self,
            &params[done * n..],
            masks,
            scored,
            entropy_coef,
            &mut d_params[done * n..],
        );
    }
    fn add_entropy_gradient<F: Real>(
        &self,
        params: &[F],
        mask: Mask<'_>,
        coef: F,
        d_params: &mut [F],
    ) {
        add_entropy_gradient(params, mask, coef, d_params);
    }
    #[inline(always)]
    fn kl<F: Real>(&self, p: &[F], q: &[F], mask: Mask<'_>) -> F {
        kl(p, q, mask)
    }
    fn add_kl_gradient_p<F: Real>(&self, p: &[F], q: &[F], mask: Mask<'_>, coef: F, d_p: &mut [F]) {
        add_kl_gradient_p(p, q, mask, coef, d_p);
    }
    fn add_kl_gradient_q<F: Real>(&self, p: &[F], q: &[F], mask: Mask<'_>, coef: F, d_q: &mut [F]) {
        add_kl_gradient_q(p, q, mask, coef, d_q);
    }
    #[inline(always)]
    fn fisher_product<F: Real>(&self, params: &[F], mask: Mask<'_>, v: &[F], out: &mut [F]) {
        fisher_product(params, mask, v, out);
    }
    #[inline(always)]
    fn sample<F: Real>(&self, params: &[F], mask: Mask<'_>, stream: &mut Stream, action: &mut [F]) {
        action[0] = F::of(Self::inverse_cdf(params, mask, stream.uniform()) as f64);
    }
    fn mode<F: Real>(&self, params: &[F], mask: Mask<'_>, action: &mut [F]) {
        action[0] = F::of(mode(params, mask) as f64);
    }
}

#[cfg(test)]
mod tests;
