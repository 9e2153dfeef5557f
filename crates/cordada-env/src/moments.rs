//! Running mean and variance. What is normalized with them is decided in `wrapper::normalize`.

use crate::state::{Persist, StateError, StateReader, StateWriter};

/// Mean and variance of each component of a sequence of rows, updated batch by batch.
///
/// ```text
/// δ = mean_b − mean,   tot = count + n
/// mean ← mean + δ n / tot
/// var ← (var · count + var_b · n + δ² · count · n / tot) / tot
/// ```
///
/// Variances have the denominator n. With a starting count of 0 the result is that of one pass
/// over all rows; a small starting count gives the prior mean 0 and variance 1 that weight, as
/// stable-baselines3 and Gymnasium do with 10⁻⁴.
///
/// # Source
///
/// Chan, Golub and `LeVeque` 1979, "Updating formulae and a pairwise algorithm for computing sample
/// variances", Stanford STAN-CS-79-773.
///
/// # Examples
///
/// ```
/// use cordada_env::RunningMoments;
///
/// let mut moments = RunningMoments::new(1);
/// moments.update(&[1.0, 2.0]);
/// moments.update(&[6.0]);
/// assert_eq!(moments.mean(), [3.0]);
/// assert!((moments.var()[0] - 14.0 / 3.0).abs() < 1e-15);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct RunningMoments {
    mean: Vec<f64>,
    var: Vec<f64>,
    count: f64,
}

impl RunningMoments {
    /// Moments of no rows yet, of `dim` components.
    pub fn new(dim: usize) -> Self {
        Self::with_count(dim, 0.0)
    }

    /// Moments that start at mean 0 and variance 1 with the weight of `count` rows.
    pub fn with_count(dim: usize, count: f64) -> Self {
        Self { mean: vec![0.0; dim], var: vec![1.0; dim], count }
    }

    /// Moments that were saved elsewhere.
    ///
    /// # Panics
    ///
    /// If the lengths differ.
    pub fn from_parts(mean: Vec<f64>, var: Vec<f64>, count: f64) -> Self {
        assert_eq!(mean.len(), var.len(), "mean and var have different lengths");
        Self { mean, var, count }
    }

    /// Mean of each component.
    pub fn mean(&self) -> &[f64] {
        &self.mean
    }

    /// Variance of each component.
    pub fn var(&self) -> &[f64] {
        &self.var
    }

    /// Number of rows so far, with the starting count.
    pub fn count(&self) -> f64 {
        self.count
    }

    /// Takes in a batch of rows.
    ///
    /// # Shapes
    ///
    /// `rows`: `[B, dim]`; B may be 0.
    ///
    /// # Panics
    ///
    /// If `rows` is not a whole number of rows.
    pub fn update<T: Copy + Into<f64>>(&mut self, rows: &[T]) {
        let dim = self.mean.len();
        assert_eq!(rows.len() % dim.max(1), 0, "rows is not [B, {dim}]");
        if rows.is_empty() {
            return;
        }
        let n = (rows.len() / dim) as f64;
        for i in 0..dim {
            let column = || rows[i..].iter().step_by(dim).map(|&x| x.into());
            let mean = column().sum::<f64>() / n;
            let var = column().map(|x| (x - mean) * (x - mean)).sum::<f64>() / n;
            self.merge_component(i, mean, var, n);
        }
        self.count += n;
    }

    /// Takes in the rows that `other` has seen (and its starting count).
    ///
    /// # Panics
    ///
    /// If `other` has another number of components.
    pub fn merge(&mut self, other: &Self) {
        assert_eq!(self.mean.len(), other.mean.len(), "moments of different rows");
        if other.count == 0.0 {
            return;
        }
        for i in 0..self.mean.len() {
            self.merge_component(i, other.mean[i], other.var[i], other.count);
        }
        self.count += other.count;
    }

    fn merge_component(&mut self, i: usize, mean: f64, var: f64, n: f64) {
        let total = self.count + n;
        let delta = mean - self.mean[i];
        self.mean[i] += delta * n / total;
        let sum = self.var[i] * self.count + var * n + delta * delta * self.count * n / total;
        self.var[i] = sum / total;
    }
}

impl Persist for RunningMoments {
    fn save(&self, w: &mut StateWriter) {
        w.f64s(&self.mean);
        w.f64s(&self.var);
        w.f64(self.count);
    }

    fn load(&mut self, r: &mut StateReader<'_>) -> Result<(), StateError> {
        r.f64s_into(&mut self.mean)?;
        r.f64s_into(&mut self.var)?;
        self.count = r.f64()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn two_batches_by_hand() {
        // Rows (1, 10), (3, 10), then (5, 40): means 3 and 20; variances 8/3 and 200.
        let mut moments = RunningMoments::new(2);
        moments.update(&[1.0f32, 10.0, 3.0, 10.0]);
        assert_eq!((moments.mean(), moments.var()), (&[2.0, 10.0][..], &[1.0, 0.0][..]));
        moments.update(&[5.0f32, 40.0]);
        assert_eq!(moments.count(), 3.0);
        for (got, want) in moments.mean().iter().zip([3.0, 20.0]) {
            assert!((got - want).abs() < 1e-14, "{moments:?}");
        }
        for (got, want) in moments.var().iter().zip([8.0 / 3.0, 200.0]) {
            assert!((got - want).abs() < 1e-12, "{moments:?}");
        }
    }

    #[test]
    fn a_starting_count_weighs_the_prior() {
        // Prior mean 0, variance 1 of weight 1, then the row 2: mean 1, variance (1 + 0 + 4/2)/2.
        let mut moments = RunningMoments::with_count(1, 1.0);
        moments.update(&[2.0]);
        assert_eq!((moments.mean()[0], moments.var()[0], moments.count()), (1.0, 1.5, 2.0));
    }

    #[test]
    fn nothing_changes_nothing() {
        let mut moments = RunningMoments::new(1);
        moments.update::<f64>(&[]);
        moments.merge(&RunningMoments::new(1));
        assert_eq!(moments, RunningMoments::new(1));
    }

    #[test]
    fn moments_come_back_and_other_sizes_are_refused() {
        let mut moments = RunningMoments::with_count(2, 1e-4);
        moments.update(&[0.1, -0.2, 0.3, 0.7]);
        let mut w = StateWriter::new();
        moments.save(&mut w);
        let bytes = w.into_bytes();
        let mut other = RunningMoments::new(2);
        other.load(&mut StateReader::new(&bytes)).unwrap();
        assert_eq!(other, moments);
        assert!(RunningMoments::new(3).load(&mut StateReader::new(&bytes)).is_err());
    }

    proptest! {
        #[test]
        fn any_division_into_batches_is_one_pass(
            rows in prop::collection::vec(-100.0f64..100.0, 2..60),
            cut in 0.0f64..1.0,
        ) {
            let cut = (cut * rows.len() as f64) as usize;
            let mut batches = RunningMoments::new(1);
            batches.update(&rows[..cut]);
            batches.update(&rows[cut..]);
            let (mut merged, mut second) = (RunningMoments::new(1), RunningMoments::new(1));
            merged.update(&rows[..cut]);
            second.update(&rows[cut..]);
            merged.merge(&second);

            let n = rows.len() as f64;
            let mean = rows.iter().sum::<f64>() / n;
            let var = rows.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
            for moments in [&batches, &merged] {
                prop_assert!((moments.mean()[0] - mean).abs() < 1e-11);
                prop_assert!((moments.var()[0] - var).abs() < 1e-9);
                prop_assert_eq!(moments.count(), n);
            }
        }
    }
}
