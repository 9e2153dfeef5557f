//! Surrogate objectives in the ratio of new to old policy. [`clipped_surrogate`] is the one place
//! where a ratio is clipped, for control and for language models alike.

use cordada_nn::Real;

/// What one sample adds to a surrogate objective, and what a diagnosis asks of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Surrogate<F> {
    /// Its value, to be ascended.
    pub objective: F,
    /// ψ = ∂ objective / ∂ log π(a | s).
    pub psi: F,
    /// `r = π(a | s) / π_old(a | s)`
    pub ratio: F,
    /// Whether r lies outside the clip range: the summand of the clip fraction. The gradient is 0
    /// in only those of these cases in which clipping makes the objective smaller.
    pub clipped: bool,
}

/// The range of ratios within which an objective follows the ratio.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClipRange<F> {
    low: F,
    high: F,
}

impl<F: Real> ClipRange<F> {
    /// [1 − ε, 1 + ε]. PPO's ε: 0.2 in the paper. ε = ∞ never clips.
    #[inline(always)]
    pub fn symmetric(clip_eps: F) -> Self {
        Self::asymmetric(clip_eps, clip_eps)
    }

    /// `[1 − ε_low, 1 + ε_high]`: a larger upper ε leaves room to unlikely actions.
    ///
    /// # Source
    ///
    /// "Clip-higher" of DAPO, Yu et al. 2025, arXiv:2503.14476, section 3.1: 0.2 and 0.28.
    #[inline(always)]
    pub fn asymmetric(eps_low: F, eps_high: F) -> Self {
        Self { low: F::ONE - eps_low, high: F::ONE + eps_high }
    }

    /// (−∞, `max_ratio`]: no lower bound. With A = 1 the clipped surrogate then *is*
    /// min(r, `max_ratio`), the truncated importance weight of [`cispo`](super::cispo).
    #[inline(always)]
    pub fn at_most(max_ratio: F) -> Self {
        Self { low: F::NEG_INFINITY, high: max_ratio }
    }
}

impl<F: Real> From<F> for ClipRange<F> {
    #[inline(always)]
    fn from(clip_eps: F) -> Self {
        Self::symmetric(clip_eps)
    }
}

/// Importance-weighted advantage, the surrogate of TRPO and of PPO with a KL penalty.
///
/// ```text
/// L = r A,   r = exp(log π(a | s) − log π_old(a | s)),   ψ = r A
/// ```
///
/// # Source
///
/// Schulman et al. 2017, arXiv:1707.06347, eq. (6).
#[inline(always)]
pub fn surrogate<F: Real>(log_prob: F, old_log_prob: F, advantage: F) -> Surrogate<F> {
    let ratio = (log_prob - old_log_prob).exp();
    let objective = ratio * advantage;
    Surrogate { objective, psi: objective, ratio, clipped: false }
}

/// Clipped surrogate objective.
///
/// ```text
/// L = min( r A, clip(r, 1 − ε, 1 + ε) A ),   r = exp(log π(a | s) − log π_old(a | s))
/// ψ = r A   where r A is the smaller one, else 0
/// ```
///
/// `clip` is a [`ClipRange`] or ε itself. At `π = π_old`, ψ is exactly A: the policy gradient.
///
/// # Source
///
/// Schulman et al. 2017, arXiv:1707.06347, eq. (7).
#[inline(always)]
pub fn clipped_surrogate<F: Real>(
    log_prob: F,
    old_log_prob: F,
    advantage: F,
    clip: impl Into<ClipRange<F>>,
) -> Surrogate<F> {
    let ClipRange { low, high } = clip.into();
    let free = surrogate(log_prob, old_log_prob, advantage);
    let bound = free.ratio.clamp(low, high) * advantage;
    // Only where the clip moved the ratio can the second term be the smaller one.
    let clipped = free.ratio < low || free.ratio > high;
    if clipped && bound < free.objective {
        Surrogate { objective: bound, psi: F::ZERO, clipped, ..free }
    } else {
        Surrogate { clipped, ..free }
    }
}

/// Clipped surrogate objective with a second bound, for large ratios of bad actions.
///
/// ```text
/// L = max( min( r A, clip(r, 1 − ε, 1 + ε) A ), c A )   where A < 0, else the inner min
/// ```
///
/// Where A < 0 the inner min has no lower bound in r; there c A is one. `dual_clip` is c > 1; the
/// paper has 3.
///
/// The two-sided clip of INTELLECT-2, `min( min(r, δ) A, clip(r) A )`, is the same function with
/// c = δ, as long as δ ≥ 1 + ε; it has δ = 4.
///
/// # Source
///
/// Ye et al. 2020, arXiv:1912.09729, eq. (5); Prime Intellect 2025, arXiv:2505.07291.
#[inline(always)]
pub fn dual_clipped_surrogate<F: Real>(
    log_prob: F,
    old_log_prob: F,
    advantage: F,
    clip: impl Into<ClipRange<F>>,
    dual_clip: F,
) -> Surrogate<F> {
    let inner = clipped_surrogate(log_prob, old_log_prob, advantage, clip);
    let bound = dual_clip * advantage;
    if advantage < F::ZERO && inner.objective < bound {
        Surrogate { objective: bound, psi: F::ZERO, ..inner }
    } else {
        inner
    }
}

#[cfg(test)]
mod tests {
    use cordada_testkit::gradient::assert_gradient;

    use super::*;

    fn at(ratio: f64, advantage: f64) -> Surrogate<f64> {
        clipped_surrogate(ratio.ln(), 0.0, advantage, 0.2)
    }

    #[test]
    fn clipping_by_hand() {
        // (r, A) → (objective, ψ): the clip holds only steps that have gone far enough already.
        let cases = [
            (1.1, 2.0, 2.2, 2.2, false),
            (1.5, 2.0, 2.4, 0.0, true),
            (0.5, 2.0, 1.0, 1.0, true),
            (1.5, -2.0, -3.0, -3.0, true),
            (0.5, -2.0, -1.6, 0.0, true),
            (1.5, 0.0, 0.0, 0.0, true),
        ];
        for (ratio, advantage, objective, psi, clipped) in cases {
            let got = at(ratio, advantage);
            assert!((got.objective - objective).abs() < 1e-14, "{ratio}, {advantage}: {got:?}");
            assert!((got.psi - psi).abs() < 1e-14, "{ratio}, {advantage}: {got:?}");
            assert!((got.ratio - ratio).abs() < 1e-14);
            assert_eq!(got.clipped, clipped, "{ratio}, {advantage}");
        }
    }

    #[test]
    fn ranges_by_hand() {
        // 1.25 lies outside [0.8, 1.2] and inside [0.8, 1.28].
        let range = ClipRange::asymmetric(0.2, 0.28);
        let log_ratio = 1.25_f64.ln();
        assert!(!clipped_surrogate(log_ratio, 0.0, 1.0, range).clipped);
        assert!(clipped_surrogate(log_ratio, 0.0, 1.0, ClipRange::symmetric(0.2)).clipped);
        let got = clipped_surrogate(1.3_f64.ln(), 0.0, 1.0, range);
        assert_eq!((got.objective, got.psi), (1.28, 0.0));
        let got = clipped_surrogate(0.75_f64.ln(), 0.0, -1.0, range);
        assert_eq!((got.objective, got.psi), (-0.8, 0.0));
    }

    #[test]
    fn dual_clip_bounds_bad_actions_only() {
        // A = −2, c = 3: L = max(−2 r, −6).
        let got = dual_clipped_surrogate(5.0_f64.ln(), 0.0, -2.0, 0.2, 3.0);
        assert_eq!((got.objective, got.psi), (-6.0, 0.0));
        let got = dual_clipped_surrogate(2.0_f64.ln(), 0.0, -2.0, 0.2, 3.0);
        assert!((got.objective + 4.0).abs() < 1e-14 && (got.psi + 4.0).abs() < 1e-14);
        let got = dual_clipped_surrogate(0.1_f64.ln(), 0.0, 2.0, 0.2, 3.0);
        assert!((got.objective - 0.2).abs() < 1e-14 && (got.psi - 0.2).abs() < 1e-14);
    }

    #[test]
    fn without_a_lower_bound_a_ratio_is_truncated() {
        for ratio in [0.01, 0.9, 2.9] {
            let got = clipped_surrogate(f64::ln(ratio), 0.0, 1.0, ClipRange::at_most(3.0));
            assert!((got.objective - ratio).abs() < 1e-14 && !got.clipped);
        }
        let got = clipped_surrogate(9.0_f64.ln(), 0.0, 1.0, ClipRange::at_most(3.0));
        assert_eq!((got.objective, got.clipped), (3.0, true));
    }

    #[test]
    fn the_two_sided_clip_is_the_dual_one() {
        for ratio in [0.3, 0.9, 1.1, 1.3, 1.6, 5.0_f64] {
            for advantage in [-2.0, 2.0] {
                let two_sided = (ratio.min(1.5) * advantage).min(ratio.clamp(0.8, 1.2) * advantage);
                let got = dual_clipped_surrogate(ratio.ln(), 0.0, advantage, 0.2, 1.5);
                assert!((got.objective - two_sided).abs() < 1e-14, "r = {ratio}, A = {advantage}");
            }
        }
    }

    #[test]
    fn psi_is_the_derivative() {
        for log_ratio in [-1.5, -0.3, -0.1, 0.0, 0.1, 0.3, 1.5] {
            for advantage in [-2.0, -0.5, 0.7, 3.0] {
                let x = [log_ratio - 1.0];
                let what = format!("ratio e^{log_ratio}, advantage {advantage}");
                let psi = surrogate(x[0], -1.0, advantage).psi;
                assert_gradient(&what, &x, &[psi], 1e-8, |x| {
                    surrogate(x[0], -1.0, advantage).objective
                });
                let psi = clipped_surrogate(x[0], -1.0, advantage, 0.2).psi;
                assert_gradient(&what, &x, &[psi], 1e-8, |x| {
                    clipped_surrogate(x[0], -1.0, advantage, 0.2).objective
                });
                let psi = dual_clipped_surrogate(x[0], -1.0, advantage, 0.2, 3.0).psi;
                assert_gradient(&what, &x, &[psi], 1e-8, |x| {
                    dual_clipped_surrogate(x[0], -1.0, advantage, 0.2, 3.0).objective
                });
            }
        }
    }
}
