//! The adaptive coefficient of PPO's KL penalty.

use cordada_nn::Real;

/// Coefficient β of the penalized objective, and the rule that adapts it.
///
/// ```text
/// L = mean( r A ) − β mean( KL(π_old(· | s) ‖ π(· | s)) )
/// ```
///
/// The first part is [`surrogate`](super::surrogate); the second goes to the distribution's
/// parameters directly, by `Distribution::add_kl_gradient_q` with coefficient −β/B.
///
/// # Source
///
/// Schulman et al. 2017, arXiv:1707.06347, eq. (8) and section 4.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdaptiveKl<F> {
    /// β > 0. Its first value matters little: it adapts within a few updates (paper: 1).
    pub beta: F,
    /// KL per update to aim at, in nats. Paper: 0.003, 0.01 and 0.03.
    pub target: F,
}

impl<F: Real> AdaptiveKl<F> {
    /// Halves β if an update moved the policy less than target / 1.5, doubles it if more than
    /// 1.5 · target.
    pub fn update(&mut self, mean_kl: F) {
        let tolerance = F::of(1.5);
        if mean_kl < self.target / tolerance {
            self.beta /= F::of(2.0);
        } else if mean_kl > self.target * tolerance {
            self.beta *= F::of(2.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beta_follows_the_kl() {
        let mut kl = AdaptiveKl { beta: 1.0, target: 0.3 };
        for (mean_kl, beta) in [(0.25, 1.0), (0.19, 0.5), (0.44, 0.5), (0.46, 1.0), (9.0, 2.0)] {
            kl.update(mean_kl);
            assert_eq!(kl.beta, beta, "after a KL of {mean_kl}");
        }
    }
}
