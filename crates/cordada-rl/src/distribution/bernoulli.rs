//! Independent bits, each 1 with probability σ(logit).
//!
//! ```text
//! log π(a) = Σ −softplus(−l) if a = 1, −softplus(l) if a = 0     ∂ / ∂l = a − p,   p = σ(l)
//! H = Σ p softplus(−l) + (1 − p) softplus(l)                     ∂H / ∂l = −l p (1 − p)
//! KL(p ‖ q) = Σ p (log p − log q) + (1 − p) (log(1 − p) − log(1 − q))
//! ∂KL / ∂l_p = p (1 − p) (l_p − l_q),   ∂KL / ∂l_q = q − p
//! F v = p (1 − p) v                                              the Fisher matrix in l
//! ```
//!
//! Every probability is that of a softplus of the right sign: nothing overflows, and 1 − p does
//! not cancel.

use cordada_env::Stream;
use cordada_nn::Real;

use super::family::{Family, Mask};

/// `n` independent bits, from `n` logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bernoulli {
    num_bits: usize,
}

impl Bernoulli {
    /// `num_bits` bits.
    ///
    /// # Panics
    ///
    /// If there are none.
    pub fn new(num_bits: usize) -> Self {
        assert!(num_bits > 0, "a bit is needed");
        Self { num_bits }
    }
}

/// log σ(l).
#[inline(always)]
fn log_sigmoid<F: Real>(logit: F) -> F {
    -(-logit).softplus()
}

/// l, with a sign that makes σ the probability of the bit that was chosen.
#[inline(always)]
fn signed<F: Real>(logit: F, bit: F) -> F {
    if bit > F::of(0.5) { logit } else { -logit }
}

#[inline(always)]
fn variance<F: Real>(logit: F) -> F {
    logit.sigmoid() * (-logit).sigmoid()
}

impl Family for Bernoulli {
    #[inline(always)]
    fn num_params(&self) -> usize {
        self.num_bits
    }
    #[inline(always)]
    fn action_len(&self) -> usize {
        self.num_bits
    }
    #[inline(always)]
    fn mask_len(&self) -> usize {
        0
    }
    #[inline(always)]
    fn log_prob<F: Real>(&self, params: &[F], _: Mask<'_>, action: &[F]) -> F {
        params.iter().zip(action).map(|(&logit, &bit)| log_sigmoid(signed(logit, bit))).sum()
    }
    #[inline(always)]
    fn entropy<F: Real>(&self, params: &[F], _: Mask<'_>) -> F {
        let entropy = |l: F| l.sigmoid() * (-l).softplus() + (-l).sigmoid() * l.softplus();
        params.iter().map(|&logit| entropy(logit)).sum()
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
        for ((d, &logit), &bit) in d_params.iter_mut().zip(params).zip(action) {
            // a − p: the probability of the other bit, with the sign of this one.
            let other = (-signed(logit, bit)).sigmoid();
            *d += signed(psi, bit) * other - entropy_coef * logit * variance(logit);
        }
    }
    fn add_entropy_gradient<F: Real>(
        &self,
        params: &[F],
        _: Mask<'_>,
        coef: F,
        d_params: &mut [F],
    ) {
        for (d, &logit) in d_params.iter_mut().zip(params) {
            *d += -coef * logit * variance(logit);
        }
    }
    #[inline(always)]
    fn kl<F: Real>(&self, p: &[F], q: &[F], _: Mask<'_>) -> F {
        let part = |p: F, q: F| p.sigmoid() * (log_sigmoid(p) - log_sigmoid(q));
        p.iter().zip(q).map(|(&p, &q)| part(p, q) + part(-p, -q)).sum()
    }
    fn add_kl_gradient_p<F: Real>(&self, p: &[F], q: &[F], _: Mask<'_>, coef: F, d_p: &mut [F]) {
        for ((d, &p), &q) in d_p.iter_mut().zip(p).zip(q) {
            *d += coef * variance(p) * (p - q);
        }
    }
    fn add_kl_gradient_q<F: Real>(&self, p: &[F], q: &[F], _: Mask<'_>, coef: F, d_q: &mut [F]) {
        for ((d, &p), &q) in d_q.iter_mut().zip(p).zip(q) {
            *d += coef * (q.sigmoid() - p.sigmoid());
        }
    }
    #[inline(always)]
    fn fisher_product<F: Real>(&self, params: &[F], _: Mask<'_>, v: &[F], out: &mut [F]) {
        for ((out, &logit), &v) in out.iter_mut().zip(params).zip(v) {
            *out = variance(logit) * v;
        }
    }
    fn sample<F: Real>(&self, params: &[F], _: Mask<'_>, stream: &mut Stream, action: &mut [F]) {
        for (bit, &logit) in action.iter_mut().zip(params) {
            *bit = if stream.uniform() < logit.sigmoid().f64() { F::ONE } else { F::ZERO };
        }
    }
    fn mode<F: Real>(&self, params: &[F], _: Mask<'_>, action: &mut [F]) {
        for (bit, &logit) in action.iter_mut().zip(params) {
            *bit = if logit > F::ZERO { F::ONE } else { F::ZERO };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_by_hand() {
        // p = ¾ and ½; bits 1, 0: ln ¾ + ln ½. H = −¾ ln ¾ − ¼ ln ¼ + ln 2.
        let bits = Bernoulli::new(2);
        let params = [3.0_f64.ln(), 0.0];
        let (log_prob, entropy) = bits.log_prob_entropy(&params, None, &[1.0, 0.0]);
        assert!((log_prob - 0.375_f64.ln()).abs() < 1e-14);
        let want = -0.75 * 0.75_f64.ln() - 0.25 * 0.25_f64.ln() + 2.0_f64.ln();
        assert!((entropy - want).abs() < 1e-14);
        // ψ = 2, c = 1: 2 (1 − ¾) − ln 3 · 3/16 and 2 (0 − ½) − 0.
        let mut d = [0.0; 2];
        bits.add_score_entropy(&params, None, (&[1.0, 0.0], 2.0), 1.0, &mut d);
        assert!((d[0] - (0.5 - 3.0_f64.ln() * 0.1875)).abs() < 1e-14 && (d[1] + 1.0).abs() < 1e-14);
        let mut mode = [9.0; 2];
        bits.mode(&params, None, &mut mode);
        assert_eq!(mode, [1.0, 0.0], "a probability of ½ gives 0");
    }

    #[test]
    fn extreme_logits_stay_finite() {
        let bits = Bernoulli::new(2);
        let params = [800.0_f32, -800.0];
        assert_eq!(bits.log_prob_entropy(&params, None, &[1.0, 0.0]), (0.0, 0.0));
        assert_eq!(bits.log_prob(&params, None, &[0.0, 1.0]), -1600.0);
        assert_eq!(bits.kl(&params, &[0.0; 2], None), 2.0 * std::f32::consts::LN_2);
    }
}
