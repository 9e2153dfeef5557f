//! Statistics of a batch: normalized advantages and explained variance. Sums run in `f64`, one
//! after the other, so that the result depends on nothing but the numbers and their order.

use cordada_nn::Real;

/// Mean, and sum of squared deviations from it.
pub(super) fn mean_and_squares(xs: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let (sum, len) = xs.clone().fold((0.0, 0_usize), |(sum, len), x| (sum + x, len + 1));
    let mean = sum / len as f64;
    (mean, xs.map(|x| (x - mean) * (x - mean)).sum())
}

/// A shift and a scale that take a batch to mean 0 and standard deviation 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Standardizer {
    mean: f64,
    scale: f64,
}

impl Standardizer {
    /// Leaves numbers as they are.
    pub const NONE: Self = Self { mean: 0.0, scale: 1.0 };

    /// Of the numbers given; leaves them as they are if there are fewer than two.
    pub fn of(xs: impl ExactSizeIterator<Item = f64> + Clone) -> Self {
        let len = xs.len();
        if len < 2 {
            return Self::NONE;
        }
        let (mean, squares) = mean_and_squares(xs);
        Self { mean, scale: 1.0 / ((squares / (len - 1) as f64).sqrt() + 1e-8) }
    }

    /// `(x − mean) · scale`.
    #[inline]
    pub fn apply<F: Real>(self, x: F) -> F {
        F::of((x.f64() - self.mean) * self.scale)
    }
}

/// Shifts and scales advantages to mean 0 and standard deviation 1.
///
/// ```text
/// A_i ← (A_i − mean(A)) / (std(A) + 10⁻⁸)        std with B − 1
/// ```
///
/// A batch of one stays as it is: one number has no standard deviation, and taking its mean away
/// would leave 0 and stop learning without a word.
///
/// # Shapes
///
/// `advantages`: `[B]`.
///
/// # Source
///
/// Not in Schulman et al. 2017; detail 7 of Huang et al. 2022, "The 37 Implementation Details of
/// Proximal Policy Optimization". stable-baselines3 treats a batch of one alike.
pub fn normalize_advantages<F: Real>(advantages: &mut [F]) {
    let standardizer = Standardizer::of(advantages.iter().map(|a| a.f64()));
    for advantage in advantages {
        *advantage = standardizer.apply(*advantage);
    }
}

/// How much of the targets' variance the predictions explain: 1 all, 0 as much as a constant,
/// below 0 less than that. NaN if the targets do not vary.
///
/// ```text
/// 1 − Var(target − predicted) / Var(target)
/// ```
///
/// # Shapes
///
/// `predicted`, `target`: `[B]`.
///
/// # Panics
///
/// If the lengths differ.
pub fn explained_variance<F: Real>(predicted: &[F], target: &[F]) -> f64 {
    assert_eq!(predicted.len(), target.len(), "predictions and targets of different lengths");
    let (_, of_targets) = mean_and_squares(target.iter().map(|t| t.f64()));
    let residuals = target.iter().zip(predicted).map(|(t, p)| t.f64() - p.f64());
    let (_, of_residuals) = mean_and_squares(residuals);
    if of_targets == 0.0 { f64::NAN } else { 1.0 - of_residuals / of_targets }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advantages_by_hand() {
        // Mean 2, deviations −1, 0, 1, variance 2 / 2 = 1.
        let mut advantages = [1.0_f64, 2.0, 3.0];
        normalize_advantages(&mut advantages);
        for (got, want) in advantages.iter().zip([-1.0, 0.0, 1.0]) {
            assert!((got - want).abs() < 2e-8, "{got}, expected {want}");
        }
    }

    #[test]
    fn degenerate_batches_stay_finite() {
        let mut one = [3.0_f32];
        normalize_advantages(&mut one);
        assert_eq!(one, [3.0]);
        let mut equal = [0.1_f32; 7];
        normalize_advantages(&mut equal);
        assert!(equal.iter().all(|a| a.abs() < 1e-6), "{equal:?}");
        normalize_advantages::<f32>(&mut []);
    }

    #[test]
    fn a_large_offset_does_not_spoil_single_precision() {
        // The sum of 4096 values near 10⁶ needs more than the 24 bits of `f32`.
        let mut advantages: Vec<f32> = (0..4096).map(|i| 1e6 + (i % 2) as f32).collect();
        normalize_advantages(&mut advantages);
        assert!((advantages[0] + 1.0).abs() < 1e-3 && (advantages[1] - 1.0).abs() < 1e-3);
    }

    #[test]
    fn variance_explained_by_hand() {
        // Targets 0, 2, 4: squares 8. Residuals 0, 1, −1 − 0: squares 2, so 1 − 2/8.
        assert_eq!(explained_variance(&[0.0, 1.0, 5.0], &[0.0, 2.0, 4.0]), 0.75);
        assert_eq!(explained_variance(&[7.0, 9.0, 11.0], &[0.0, 2.0, 4.0]), 1.0);
        assert!(explained_variance(&[1.0, 2.0], &[5.0, 5.0]).is_nan());
    }
}
