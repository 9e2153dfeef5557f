//! Estimates of a KL divergence from log-ratios of sampled actions, for where the distributions
//! themselves are not at hand. With them, use `Distribution::kl`, which is exact.
//!
//! With `r = π_new(a | s) / π_old(a | s)` and `a ~ π_old`, each function below has expectation
//! `KL(π_old ‖ π_new)`, but [`k2`], which is biased by a term of third order.
//!
//! Source: J. Schulman, "Approximating KL Divergence", 2020, <http://joschu.net/blog/kl-approx.html>.

use cordada_nn::Real;

/// k1 = −log r: unbiased, but of either sign and of high variance.
#[inline(always)]
pub fn k1<F: Real>(log_ratio: F) -> F {
    -log_ratio
}

/// k2 = ½ (log r)²: biased, never negative, of low variance.
#[inline(always)]
pub fn k2<F: Real>(log_ratio: F) -> F {
    F::of(0.5) * log_ratio * log_ratio
}

/// k3 = (r − 1) − log r: unbiased, never negative, of low variance.
///
/// Near r = 1 the terms cancel to ½ (log r)², of which nothing is left in `f32` at |log r| = 10⁻⁴;
/// there the power series of eˣ − 1 − x is summed instead.
#[inline(always)]
pub fn k3<F: Real>(log_ratio: F) -> F {
    let x = log_ratio;
    if x.abs() < F::of(0.1) {
        // x²/2! + x³/3! + … + x⁸/8!; what is left out is below 10⁻¹³ of it.
        let mut sum = F::ZERO;
        for k in (3..=8).rev() {
            sum = (F::ONE + sum) * (x * F::of(1.0 / f64::from(k)));
        }
        F::of(0.5) * x * x * (F::ONE + sum)
    } else {
        x.exp() - F::ONE - x
    }
}

/// Which of the three estimators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KlEstimator {
    /// [`k1`]
    K1,
    /// [`k2`]
    K2,
    /// [`k3`]
    K3,
}

/// Mean of an estimator over a batch, added in `f64`; NaN for an empty one.
///
/// # Shapes
///
/// `log_prob` (of the new policy), `old_log_prob`: `[B]`.
///
/// # Units
///
/// Nats.
///
/// # Panics
///
/// If the lengths differ.
pub fn estimate_kl<F: Real>(estimator: KlEstimator, log_prob: &[F], old_log_prob: &[F]) -> f64 {
    assert_eq!(log_prob.len(), old_log_prob.len(), "log-probabilities of different lengths");
    let mut sum = 0.0;
    for (&new, &old) in log_prob.iter().zip(old_log_prob) {
        let log_ratio = new - old;
        let estimate = match estimator {
            KlEstimator::K1 => k1(log_ratio),
            KlEstimator::K2 => k2(log_ratio),
            KlEstimator::K3 => k3(log_ratio),
        };
        sum += estimate.f64();
    }
    sum / log_prob.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn estimators_by_hand() {
        // r = 2: −ln 2, ½ (ln 2)², 1 − ln 2.
        let ln2 = std::f64::consts::LN_2;
        assert!((k1(ln2) + ln2).abs() < 1e-15);
        assert!((k2(ln2) - 0.5 * ln2 * ln2).abs() < 1e-15);
        assert!((k3(ln2) - (1.0 - ln2)).abs() < 1e-15);
        let mean = estimate_kl(KlEstimator::K3, &[ln2, 1.0], &[0.0, 1.0]);
        assert!((mean - 0.5 * (1.0 - ln2)).abs() < 1e-15);
    }

    #[test]
    fn k3_is_accurate_where_its_terms_cancel() {
        for exponent in 0..80 {
            let x = 10.0_f64.powf(-0.1 * f64::from(exponent));
            for x in [x, -x] {
                let want = libm::expm1(x) - x;
                // `expm1` still cancels against x; beyond 10⁻³ the series' start is the truth.
                let want =
                    if x.abs() < 1e-3 { x * x * (0.5 + x / 6.0 + x * x / 24.0) } else { want };
                assert!((k3(x) - want).abs() <= 1e-11 * want, "{x:e}: {:e}, {want:e}", k3(x));
                let single = f64::from(k3(x as f32));
                assert!((single - want).abs() <= 3e-5 * want, "{x:e}: {single:e}, {want:e}");
            }
        }
        assert_eq!(k3(0.0_f32), 0.0);
    }
}
