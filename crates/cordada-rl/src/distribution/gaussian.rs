//! A normal distribution with independent components, from their means and log standard
//! deviations: `params = [μ₁ … μ_A, log σ₁ … log σ_A]`.
//!
//! ```text
//! log π(a) = −Σ ½ z² + log σ + ½ log 2π,  z = (a − μ) / σ
//! ∂ log π / ∂μ = z / σ,   ∂ log π / ∂ log σ = z² − 1
//! H = Σ log σ + ½ log 2πe,   ∂H / ∂ log σ = 1
//! KL(p ‖ q) = Σ log σ_q − log σ_p + ½ e^{2 (log σ_p − log σ_q)} + ½ ((μ_p − μ_q) / σ_q)² − ½
//! F v = (v_μ / σ², 2 v_{log σ})            the Fisher matrix in (μ, log σ)
//! ```
//!
//! Whether log σ comes from the network or is one vector shared by all states is the caller's
//! business; in the second case the rows of its gradient are to be added up.

use cordada_env::Stream;
use cordada_nn::Real;

use super::family::{Family, Mask};

/// ½ log 2π.
const HALF_LN_2PI: f64 = 0.918_938_533_204_672_7;

/// A normal distribution with `A` independent components.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiagGaussian {
    action_len: usize,
}

/// Means and log standard deviations.
#[inline(always)]
pub(super) fn halves<F>(params: &[F]) -> (&[F], &[F]) {
    params.split_at(params.len() / 2)
}

#[inline(always)]
pub(super) fn halves_mut<F>(params: &mut [F]) -> (&mut [F], &mut [F]) {
    params.split_at_mut(params.len() / 2)
}

/// Log density of one component at z standard deviations from its mean.
#[inline(always)]
pub(super) fn log_density<F: Real>(z: F, log_std: F) -> F {
    -(F::of(0.5) * z * z) - log_std - F::of(HALF_LN_2PI)
}

/// Entropy of one component.
#[inline(always)]
pub(super) fn component_entropy<F: Real>(log_std: F) -> F {
    log_std + F::of(0.5 + HALF_LN_2PI)
}

/// (1/σ, z) of one component.
#[inline(always)]
pub(super) fn standardize<F: Real>(x: F, mean: F, log_std: F) -> (F, F) {
    let inv_std = (-log_std).exp();
    (inv_std, (x - mean) * inv_std)
}

#[inline(always)]
pub(super) fn kl<F: Real>(p: &[F], q: &[F]) -> F {
    let half = F::of(0.5);
    let ((p_mean, p_log_std), (q_mean, q_log_std)) = (halves(p), halves(q));
    let mut sum = F::ZERO;
    for i in 0..p_mean.len() {
        let log_ratio = p_log_std[i] - q_log_std[i];
        let (_, z) = standardize(p_mean[i], q_mean[i], q_log_std[i]);
        sum += half * ((log_ratio + log_ratio).exp() + z * z - F::ONE) - log_ratio;
    }
    sum
}

pub(super) fn add_kl_gradient_p<F: Real>(p: &[F], q: &[F], coef: F, d_p: &mut [F]) {
    let ((p_mean, p_log_std), (q_mean, q_log_std)) = (halves(p), halves(q));
    let (d_mean, d_log_std) = halves_mut(d_p);
    for i in 0..p_mean.len() {
        let log_ratio = p_log_std[i] - q_log_std[i];
        let (inv_std, z) = standardize(p_mean[i], q_mean[i], q_log_std[i]);
        d_mean[i] += coef * z * inv_std;
        d_log_std[i] += coef * ((log_ratio + log_ratio).exp() - F::ONE);
    }
}

pub(super) fn add_kl_gradient_q<F: Real>(p: &[F], q: &[F], coef: F, d_q: &mut [F]) {
    let ((p_mean, p_log_std), (q_mean, q_log_std)) = (halves(p), halves(q));
    let (d_mean, d_log_std) = halves_mut(d_q);
    for i in 0..p_mean.len() {
        let log_ratio = p_log_std[i] - q_log_std[i];
        let (inv_std, z) = standardize(p_mean[i], q_mean[i], q_log_std[i]);
        d_mean[i] += -coef * z * inv_std;
        d_log_std[i] += coef * (F::ONE - (log_ratio + log_ratio).exp() - z * z);
    }
}

#[inline(always)]
pub(super) fn fisher_product<F: Real>(params: &[F], v: &[F], out: &mut [F]) {
    let (_, log_std) = halves(params);
    let ((v_mean, v_log_std), (out_mean, out_log_std)) = (halves(v), halves_mut(out));
    for i in 0..log_std.len() {
        let inv_std = (-log_std[i]).exp();
        out_mean[i] = inv_std * inv_std * v_mean[i];
        out_log_std[i] = v_log_std[i] + v_log_std[i];
    }
}

impl DiagGaussian {
    /// A distribution over `action_len` numbers.
    ///
    /// # Panics
    ///
    /// If that is 0.
    pub fn new(action_len: usize) -> Self {
        assert!(action_len > 0, "an action needs a component");
        Self { action_len }
    }

    /// The action a = μ + σ ε that standard normal noise ε stands for; returns log π(a).
    ///
    /// # Shapes
    ///
    /// `params`: `[2 A]`; `noise`, `action`: `[A]`.
    ///
    /// # Panics
    ///
    /// If the lengths do not agree.
    pub fn reparametrize<F: Real>(&self, params: &[F], noise: &[F], action: &mut [F]) -> F {
        assert_eq!(params.len(), 2 * self.action_len, "params are not [2 A]");
        assert_eq!(noise.len(), self.action_len, "noise is not [A]");
        assert_eq!(action.len(), self.action_len, "the action is not [A]");
        let (mean, log_std) = halves(params);
        let mut log_prob = F::ZERO;
        for i in 0..self.action_len {
            action[i] = mean[i] + log_std[i].exp() * noise[i];
            log_prob += log_density(noise[i], log_std[i]);
        }
        log_prob
    }

    /// Adds the gradient of `d_action · a + d_log_prob · log π(a)` with respect to the parameters,
    /// where a moves with them as in [`reparametrize`](Self::reparametrize).
    ///
    /// ```text
    /// ∂a/∂μ = 1,   ∂a/∂ log σ = σ ε,   d log π(a) / d log σ = −1
    /// ```
    ///
    /// # Shapes
    ///
    /// `params`, `d_params`: `[2 A]`; `noise`, `d_action`: `[A]`.
    pub fn add_reparametrized_gradient<F: Real>(
        &self,
        params: &[F],
        noise: &[F],
        d_action: &[F],
        d_log_prob: F,
        d_params: &mut [F],
    ) {
        let (_, log_std) = halves(params);
        let (d_mean, d_log_std) = halves_mut(d_params);
        for i in 0..self.action_len {
            d_mean[i] += d_action[i];
            d_log_std[i] += d_action[i] * log_std[i].exp() * noise[i] - d_log_prob;
        }
    }
}

impl Family for DiagGaussian {
    #[inline(always)]
    fn num_params(&self) -> usize {
        2 * self.action_len
    }
    #[inline(always)]
    fn action_len(&self) -> usize {
        self.action_len
    }
    #[inline(always)]
    fn mask_len(&self) -> usize {
        0
    }
    #[inline(always)]
    fn log_prob<F: Real>(&self, params: &[F], _: Mask<'_>, action: &[F]) -> F {
        let (mean, log_std) = halves(params);
        let mut sum = F::ZERO;
        for ((&a, &mean), &log_std) in action.iter().zip(mean).zip(log_std) {
            sum += log_density(standardize(a, mean, log_std).1, log_std);
        }
        sum
    }
    #[inline(always)]
    fn entropy<F: Real>(&self, params: &[F], _: Mask<'_>) -> F {
        halves(params).1.iter().map(|&log_std| component_entropy(log_std)).sum()
    }
    #[inline(always)]
    fn log_prob_entropy<F: Real>(&self, params: &[F], mask: Mask<'_>, action: &[F]) -> (F, F) {
        (self.log_prob(params, mask, action), self.entropy(params, mask))
    }
    #[inline(always)]
    fn add_score_entropy<F: Real>(
        &self,
        params: &[F],
        _: Mask<'_>,
        (action, psi): (&[F], F),
        entropy_coef: F,
        d_params: &mut [F],
    ) {
        let ((mean, log_std), (d_mean, d_log_std)) = (halves(params), halves_mut(d_params));
        for i in 0..action.len() {
            let (inv_std, z) = standardize(action[i], mean[i], log_std[i]);
            d_mean[i] += psi * z * inv_std;
            d_log_std[i] += psi * (z * z - F::ONE) + entropy_coef;
        }
    }
    fn add_entropy_gradient<F: Real>(&self, _: &[F], _: Mask<'_>, coef: F, d_params: &mut [F]) {
        for d in halves_mut(d_params).1 {
            *d += coef;
        }
    }
    #[inline(always)]
    fn kl<F: Real>(&self, p: &[F], q: &[F], _: Mask<'_>) -> F {
        kl(p, q)
    }
    fn add_kl_gradient_p<F: Real>(&self, p: &[F], q: &[F], _: Mask<'_>, coef: F, d_p: &mut [F]) {
        add_kl_gradient_p(p, q, coef, d_p);
    }
    fn add_kl_gradient_q<F: Real>(&self, p: &[F], q: &[F], _: Mask<'_>, coef: F, d_q: &mut [F]) {
        add_kl_gradient_q(p, q, coef, d_q);
    }
    #[inline(always)]
    fn fisher_product<F: Real>(&self, params: &[F], _: Mask<'_>, v: &[F], out: &mut [F]) {
        fisher_product(params, v, out);
    }
    fn sample<F: Real>(&self, params: &[F], _: Mask<'_>, stream: &mut Stream, action: &mut [F]) {
        let (mean, log_std) = halves(params);
        for ((a, &mean), &log_std) in action.iter_mut().zip(mean).zip(log_std) {
            *a = mean + log_std.exp() * F::of(stream.normal());
        }
    }
    fn mode<F: Real>(&self, params: &[F], _: Mask<'_>, action: &mut [F]) {
        action.copy_from_slice(halves(params).0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_component_by_hand() {
        // μ = 1, σ = 2, a = 5: z = 2, log π = −2 − ln 2 − ½ ln 2π.
        let gaussian = DiagGaussian::new(1);
        let params = [1.0, 2.0_f64.ln()];
        let half_ln_2pi = 0.5 * (2.0 * std::f64::consts::PI).ln();
        let (log_prob, entropy) = gaussian.log_prob_entropy(&params, None, &[5.0]);
        assert!((log_prob - (-2.0 - 2.0_f64.ln() - half_ln_2pi)).abs() < 1e-14);
        assert!((entropy - (2.0_f64.ln() + half_ln_2pi + 0.5)).abs() < 1e-14);
        // ψ = 3, c = 10: 3 · 2/2 and 3 (4 − 1) + 10.
        let mut d = [0.0; 2];
        gaussian.add_score_entropy(&params, None, (&[5.0], 3.0), 10.0, &mut d);
        assert!((d[0] - 3.0).abs() < 1e-14 && (d[1] - 19.0).abs() < 1e-14);
        // KL to N(3, 4²): ln 2 + (4 + 4) / 32 − ½.
        let kl = gaussian.kl(&params, &[3.0, 4.0_f64.ln()], None);
        assert!((kl - (2.0_f64.ln() + 0.25 - 0.5)).abs() < 1e-14);
    }

    #[test]
    fn noise_stands_for_an_action() {
        // a = 1 + 2 · 2, with the log-probability that this action has.
        let gaussian = DiagGaussian::new(1);
        let params = [1.0, 2.0_f64.ln()];
        let mut action = [0.0];
        let log_prob = gaussian.reparametrize(&params, &[2.0], &mut action);
        assert!((action[0] - 5.0).abs() < 1e-14);
        assert!((log_prob - gaussian.log_prob(&params, None, &action)).abs() < 1e-14);
        // 3 a + 7 log π: 3 · 1, and 3 · 2 · 2 − 7.
        let mut d = [0.0; 2];
        gaussian.add_reparametrized_gradient(&params, &[2.0], &[3.0], 7.0, &mut d);
        assert!((d[0] - 3.0).abs() < 1e-14 && (d[1] - 5.0).abs() < 1e-14);
    }
}
