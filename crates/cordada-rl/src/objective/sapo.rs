//! SAPO: a surrogate objective with a soft gate in the place of the clip.

use cordada_nn::Real;

use super::clip::{Surrogate, surrogate};

/// How steeply the gate closes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SapoTemperature<F> {
    /// τ where A > 0; 1 in the paper.
    pub positive: F,
    /// τ where A ≤ 0; 1.05 in the paper: a bad token's gradient raises all others, which is less
    /// safe.
    pub negative: F,
}

impl<F: Real> Default for SapoTemperature<F> {
    /// 1 and 1.05.
    fn default() -> Self {
        Self { positive: F::ONE, negative: F::of(1.05) }
    }
}

/// Objective of SAPO.
///
/// ```text
/// L = A (4/τ) σ(τ (r − 1)),   ψ = 4 A r σ(τ (r − 1)) (1 − σ(τ (r − 1)))
/// ```
///
/// At `π = π_old`, ψ is exactly A: the policy gradient. `clipped` is never set: nothing is.
///
/// # Source
///
/// Gao et al. 2025, arXiv:2511.20347.
#[inline(always)]
pub fn sapo<F: Real>(
    log_prob: F,
    old_log_prob: F,
    advantage: F,
    temperature: SapoTemperature<F>,
) -> Surrogate<F> {
    let free = surrogate(log_prob, old_log_prob, advantage);
    let tau = if advantage > F::ZERO { temperature.positive } else { temperature.negative };
    let x = tau * (free.ratio - F::ONE);
    let four = F::of(4.0);
    let open = x.sigmoid();
    // 1 − σ(x) without cancellation. A ratio that overflowed has a gate of 0, not ∞ · 0.
    let slope = four * open * (-x).sigmoid();
    let psi = if slope == F::ZERO { F::ZERO } else { slope * free.psi };
    Surrogate { objective: advantage * (four / tau) * open, psi, ..free }
}

#[cfg(test)]
mod tests {
    use cordada_testkit::gradient::assert_gradient;

    use super::*;

    #[test]
    fn the_gate_by_hand() {
        let temperature = SapoTemperature { positive: 1.0, negative: 2.0 };
        // r = 1: σ = ½, L = 4 A ½ / τ, ψ = A.
        let got = sapo(-1.0, -1.0, 3.0, temperature);
        assert_eq!((got.objective, got.psi), (6.0, 3.0));
        let got = sapo(-1.0, -1.0, -3.0, temperature);
        assert_eq!((got.objective, got.psi), (-3.0, -3.0));
        // r = 1 + ln 3: σ = ¾; L = 3 A, ψ = 4 · ¾ · ¼ r A.
        let r = 1.0 + 3.0_f64.ln();
        let got = sapo(r.ln(), 0.0, 2.0, temperature);
        assert!((got.objective - 6.0).abs() < 1e-14 && (got.psi - 1.5 * r).abs() < 1e-14);
        let far = sapo(1000.0_f64, 0.0, 1.0, temperature);
        assert_eq!((far.objective, far.psi), (4.0, 0.0));
    }

    #[test]
    fn psi_is_the_derivative() {
        for log_prob in [-2.0, -1.0, -0.8, 0.5] {
            for advantage in [-1.5, 0.4] {
                let of = |x: &[f64]| sapo(x[0], -1.0, advantage, SapoTemperature::default());
                let what = format!("log π = {log_prob}, A = {advantage}");
                assert_gradient(&what, &[log_prob], &[of(&[log_prob]).psi], 1e-8, |x| {
                    of(x).objective
                });
            }
        }
    }
}
