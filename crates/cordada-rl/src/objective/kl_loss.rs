//! A KL divergence to a reference policy as a loss of its own, estimated from the chosen action.
//!
//! Where all logits are at hand, `Distribution::kl` and `add_kl_gradient_p` are exact, and a small
//! vocabulary makes them cheap. As a part of the *reward* the right estimator is k1; see
//! [`token_rewards`](crate::estimate::token_rewards).

use cordada_nn::Real;

use crate::estimate::kl::{KlEstimator, k1, k2, k3};

/// What one sample adds to a KL penalty.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KlTerm<F> {
    /// The estimate of KL(π ‖ π_ref), to be descended: −β times it belongs to the objective.
    pub kl: F,
    /// ∂ kl / ∂ log π(a | s): −β times it belongs to ψ.
    pub d_log_prob: F,
}

/// An estimate of KL(π ‖ π_ref) at an action a ~ π, and its derivative.
///
/// ```text
/// δ = log π(a | s) − log π_ref(a | s)
/// K1: δ                derivative 1
/// K2: ½ δ²             δ
/// K3: e^−δ − 1 + δ     1 − e^−δ
/// ```
///
/// A good estimate of the value need not be one of the gradient. In expectation over a ~ π, with
/// ∇ log π from the score, the derivative of
///
/// - K1 is 0: as a loss it does nothing at all;
/// - K2 is ∇ KL(π ‖ π_ref): **the right one**, though its value is biased;
/// - K3 is ∇ KL(π_ref ‖ π), the other direction; GRPO has it.
///
/// Far off the policy all three need the importance weight r as a factor.
///
/// # Units
///
/// Nats.
///
/// # Source
///
/// Schulman 2020, <http://joschu.net/blog/kl-approx.html>; K3 as a loss: Shao et al. 2024,
/// arXiv:2402.03300, eq. (4); the gradients: Tang & Munos 2025, arXiv:2506.09477.
#[inline(always)]
pub fn kl_loss<F: Real>(estimator: KlEstimator, log_prob: F, ref_log_prob: F) -> KlTerm<F> {
    // The estimators are written for samples of the denominator of their ratio, here π.
    let log_ratio = ref_log_prob - log_prob;
    match estimator {
        KlEstimator::K1 => KlTerm { kl: k1(log_ratio), d_log_prob: F::ONE },
        KlEstimator::K2 => KlTerm { kl: k2(log_ratio), d_log_prob: -log_ratio },
        KlEstimator::K3 => {
            let kl = k3(log_ratio);
            // 1 − eˣ = −(x + k3(x)), which does not cancel near 0.
            KlTerm { kl, d_log_prob: -(log_ratio + kl) }
        }
    }
}

#[cfg(test)]
mod tests {
    use cordada_testkit::gradient::assert_gradient;

    use super::*;
    use crate::distribution::{Categorical, Distribution};

    const ALL: [KlEstimator; 3] = [KlEstimator::K1, KlEstimator::K2, KlEstimator::K3];

    #[test]
    fn terms_by_hand() {
        // π = ½, π_ref = ¼: δ = ln 2; e^−δ = ½.
        let ln2 = std::f64::consts::LN_2;
        let want = [(ln2, 1.0), (0.5 * ln2 * ln2, ln2), (ln2 - 0.5, 0.5)];
        for (estimator, (kl, d_log_prob)) in ALL.into_iter().zip(want) {
            let got = kl_loss(estimator, -ln2, -2.0 * ln2);
            assert!((got.kl - kl).abs() < 1e-15, "{estimator:?}: {got:?}");
            assert!((got.d_log_prob - d_log_prob).abs() < 1e-15, "{estimator:?}: {got:?}");
        }
    }

    #[test]
    fn d_log_prob_is_the_derivative() {
        for estimator in ALL {
            for log_prob in [-4.0, -1.03, -1.0, -0.2] {
                let of = |x: &[f64]| kl_loss(estimator, x[0], -1.0);
                let what = format!("{estimator:?} at {log_prob}");
                assert_gradient(&what, &[log_prob], &[of(&[log_prob]).d_log_prob], 1e-8, |x| {
                    of(x).kl
                });
            }
        }
    }

    /// Σ_a π(a) ψ(a) ∇ log π(a), exactly: the expectation over a ~ π.
    fn expected_gradient(estimator: KlEstimator, logits: &[f64], ref_logits: &[f64]) -> Vec<f64> {
        let pi = Distribution::Categorical(Categorical::new(logits.len()));
        let mut gradient = vec![0.0; logits.len()];
        for a in 0..logits.len() {
            let action = [a as f64];
            let (log_prob, _) = pi.log_prob_entropy(logits, None, &action);
            let (ref_log_prob, _) = pi.log_prob_entropy(ref_logits, None, &action);
            let psi = kl_loss(estimator, log_prob, ref_log_prob).d_log_prob;
            pi.add_score(logits, None, &action, log_prob.exp() * psi, &mut gradient);
        }
        gradient
    }

    #[test]
    fn what_each_estimator_descends_in_expectation() {
        let (logits, ref_logits) = ([0.3, -1.0, 0.9, 0.1], [1.2, 0.4, -0.5, 0.0]);
        let pi = Distribution::Categorical(Categorical::new(4));
        let (mut reverse, mut forward) = ([0.0; 4], [0.0; 4]);
        pi.add_kl_gradient_p(&logits, &ref_logits, None, 1.0, &mut reverse);
        pi.add_kl_gradient_q(&ref_logits, &logits, None, 1.0, &mut forward);
        assert!(reverse.iter().zip(&forward).any(|(r, f)| (r - f).abs() > 0.05), "no difference");
        for (estimator, want) in ALL.into_iter().zip([[0.0; 4], reverse, forward]) {
            let got = expected_gradient(estimator, &logits, &ref_logits);
            for (g, w) in got.iter().zip(want) {
                assert!((g - w).abs() < 1e-14, "{estimator:?}: {got:?}, expected {want:?}");
            }
        }
    }

    #[test]
    fn values_of_k1_and_k3_are_right_in_expectation() {
        let (logits, ref_logits) = ([0.3, -1.0, 0.9, 0.1], [1.2, 0.4, -0.5, 0.0]);
        let pi = Distribution::Categorical(Categorical::new(4));
        let exact = pi.kl(&logits, &ref_logits, None);
        for estimator in [KlEstimator::K1, KlEstimator::K3] {
            let mut mean = 0.0;
            for a in 0..4 {
                let (log_prob, _) = pi.log_prob_entropy(&logits, None, &[f64::from(a)]);
                let (ref_log_prob, _) = pi.log_prob_entropy(&ref_logits, None, &[f64::from(a)]);
                mean += log_prob.exp() * kl_loss(estimator, log_prob, ref_log_prob).kl;
            }
            assert!((mean - exact).abs() < 1e-14, "{estimator:?}: {mean}, expected {exact}");
        }
    }
}
