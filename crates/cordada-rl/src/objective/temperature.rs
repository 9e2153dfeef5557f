//! The loss by which SAC finds its temperature.

use cordada_nn::Real;

/// What one sample adds to the temperature's loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TemperatureTerm<F> {
    /// Its value, to be descended.
    pub loss: F,
    /// ∂ loss / ∂ log α.
    pub d_log_alpha: F,
}

/// Loss of the temperature α, which raises α where the policy's entropy is below its target.
///
/// ```text
/// L = −log α (log π(a | s) + H̄),   ∂L/∂ log α = −(log π(a | s) + H̄),   a ~ π(· | s)
/// ```
///
/// The paper has α where this has log α; the sign of the gradient in log α is the same, its size
/// then does not go to 0 with α. This is what the authors' program and stable-baselines3 do.
/// H̄ is −A for actions of A numbers. For a choice among n actions it is a fraction of log n, and
/// `log_prob` can be the exact mean Σ π log π.
///
/// # Source
///
/// Haarnoja et al. 2018, arXiv:1812.05905, eq. (18).
#[inline(always)]
pub fn temperature_loss<F: Real>(
    log_alpha: F,
    log_prob: F,
    target_entropy: F,
) -> TemperatureTerm<F> {
    let d_log_alpha = -(log_prob + target_entropy);
    TemperatureTerm { loss: log_alpha * d_log_alpha, d_log_alpha }
}

#[cfg(test)]
mod tests {
    use cordada_testkit::gradient::assert_gradient;

    use super::*;

    #[test]
    fn one_sample_by_hand() {
        // log α = −2, log π = 3, H̄ = −1: the entropy −3 is below the target, descending raises α.
        let term = temperature_loss(-2.0, 3.0, -1.0);
        assert_eq!(term, TemperatureTerm { loss: 4.0, d_log_alpha: -2.0 });
        assert_gradient("log α", &[-2.0], &[term.d_log_alpha], 1e-8, |x| {
            temperature_loss(x[0], 3.0, -1.0).loss
        });
    }
}
