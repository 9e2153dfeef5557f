//! Coefficients of KL penalties that adapt themselves: PPO's, and that of RLHF.

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

/// Coefficient β of the KL divergence in a response's reward, and the rule that adapts it: a
/// proportional controller of log β.
///
/// ```text
/// e = clip(KL / target − 1, −0.2, 0.2)
/// β ← β (1 + e n / horizon)
/// ```
///
/// Where [`AdaptiveKl`] holds the KL of one update, this one holds the KL to the reference model
/// that has built up since training began.
///
/// # Source
///
/// Ziegler et al. 2019, arXiv:1909.08593, section 2.2; target and horizon of their program.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ProportionalKl<F> {
    /// β > 0, in their program 0.15 at first.
    pub beta: F,
    /// KL of a whole response to aim at, in nats; 6 in their program.
    pub target: F,
    /// Responses in which a lasting error of 20 % changes β by 20 %; 10 000 in their program.
    pub horizon: F,
}

impl<F: Real> ProportionalKl<F> {
    /// Adapts β after `num_responses` responses whose KL divergences had the mean `mean_kl`.
    pub fn update(&mut self, mean_kl: F, num_responses: usize) {
        let limit = F::of(0.2);
        let error = (mean_kl / self.target - F::ONE).clamp(-limit, limit);
        self.beta *= F::ONE + error * F::of(num_responses as f64) / self.horizon;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beta_is_changed_in_proportion() {
        // 10 of 100 responses: 10 % above target: + 1 %; far above: + 2 %; far below: − 2 %.
        let start = ProportionalKl { beta: 2.0, target: 5.0, horizon: 100.0 };
        for (mean_kl, beta) in [(5.5, 2.02), (50.0, 2.04), (0.0, 1.96), (5.0, 2.0)] {
            let mut kl = start;
            kl.update(mean_kl, 10);
            assert!((kl.beta - beta).abs() < 1e-14_f64, "after a KL of {mean_kl}: {}", kl.beta);
        }
    }

    #[test]
    fn beta_follows_the_kl() {
        let mut kl = AdaptiveKl { beta: 1.0, target: 0.3 };
        for (mean_kl, beta) in [(0.25, 1.0), (0.19, 0.5), (0.44, 0.5), (0.46, 1.0), (9.0, 2.0)] {
            kl.update(mean_kl);
            assert_eq!(kl.beta, beta, "after a KL of {mean_kl}");
        }
    }
}
