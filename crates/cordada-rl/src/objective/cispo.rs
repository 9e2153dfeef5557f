//! CISPO: REINFORCE with a truncated importance weight.

use cordada_nn::Real;

use super::clip::{ClipRange, Surrogate, clipped_surrogate};
use super::policy_gradient::policy_gradient;

/// Objective of CISPO: the importance weight is clipped, not the update, so every token keeps a
/// gradient.
///
/// ```text
/// L = w A log π(a | s),   w = min(r, r_max),   ψ = w A       w is a constant to the gradient
/// ```
///
/// r_max is absolute, not 1 + ε: 5 in TRL and ScaleRL. `clipped` says whether w < r.
///
/// # Source
///
/// MiniMax-M1, Chen et al. 2025, arXiv:2506.13585, section 3.1; without a lower bound, which they
/// do not use either.
#[inline(always)]
pub fn cispo<F: Real>(log_prob: F, old_log_prob: F, advantage: F, max_ratio: F) -> Surrogate<F> {
    let weight = clipped_surrogate(log_prob, old_log_prob, F::ONE, ClipRange::at_most(max_ratio));
    let term = policy_gradient(log_prob, weight.objective * advantage);
    Surrogate { objective: term.objective, psi: term.psi, ..weight }
}

#[cfg(test)]
mod tests {
    use cordada_testkit::gradient::assert_gradient;

    use super::*;

    #[test]
    fn the_weight_is_truncated_above() {
        // r = e^½, r_max = 2; log π = −1, A = −3.
        let r = 0.5_f64.exp();
        let got = cispo(-1.0, -1.5, -3.0, 2.0);
        assert!((got.psi + 3.0 * r).abs() < 1e-14 && (got.objective - 3.0 * r).abs() < 1e-14);
        assert!(!got.clipped);
        // r = e: the gradient stays, for either sign of A.
        for advantage in [-3.0, 3.0] {
            let got = cispo(-1.0, -2.0, advantage, 2.0);
            assert_eq!((got.psi, got.objective), (2.0 * advantage, -2.0 * advantage));
            assert!(got.clipped && (got.ratio - 1.0_f64.exp()).abs() < 1e-14);
        }
    }

    #[test]
    fn psi_is_the_derivative_at_a_fixed_weight() {
        for log_prob in [-3.0, -1.0, -0.2] {
            let got = cispo(log_prob, -1.2, 0.7, 1.5);
            let weight = got.ratio.min(1.5) * 0.7;
            assert_gradient("log π", &[log_prob], &[got.psi], 1e-8, |x| weight * x[0]);
        }
    }
}
