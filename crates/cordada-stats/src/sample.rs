//! Statistics of one sample of numbers: center, quantiles, ranges. No resampling here.

use crate::bootstrap::Interval;
use crate::error::{Error, all_finite};

/// How the middle of several runs is measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Center {
    /// The arithmetic mean: one failed run moves it a lot.
    Mean,
    /// The median: it ignores all but one or two runs.
    Median,
    /// The interquartile mean: the mean of the middle half; rliable's choice.
    #[default]
    Iqm,
}

impl Center {
    /// The center of numbers that there is at least one of. Their order is lost.
    pub(crate) fn of(self, values: &mut [f64]) -> f64 {
        match self {
            Self::Mean => mean(values),
            Self::Median => median(values),
            Self::Iqm => interquartile_mean(values),
        }
    }

    /// The name, for captions.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mean => "mean",
            Self::Median => "median",
            Self::Iqm => "IQM",
        }
    }
}

pub(crate) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

pub(crate) fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    sorted_quantile(values, 0.5)
}

/// The mean of what is left of n numbers when ⌊n/4⌋ are cut off at each end: with n = 6 one at
/// each end, not one and a half (scipy's `trim_mean`, which rliable uses).
pub(crate) fn interquartile_mean(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let cut = values.len() / 4;
    mean(&values[cut..values.len() - cut])
}

/// The quantile of numbers in ascending order, between neighbors by linear interpolation.
pub(crate) fn sorted_quantile(sorted: &[f64], q: f64) -> f64 {
    let place = q * (sorted.len() - 1) as f64;
    let below = place.floor() as usize;
    let above = (below + 1).min(sorted.len() - 1);
    // The form a + t (b − a) is exact at both ends and where a = b.
    sorted[below] + (place - below as f64) * (sorted[above] - sorted[below])
}

/// The share `q` of the numbers lies at or below the result; between two numbers it interpolates
/// linearly.
///
/// ```text
/// h = q (n − 1),   Q(q) = x₍⌊h⌋₎ + (h − ⌊h⌋) (x₍⌊h⌋₊₁₎ − x₍⌊h⌋₎)      x sorted, from index 0
/// ```
///
/// # Errors
///
/// [`Error::Empty`], [`Error::NonFinite`], or [`Error::OutOfRange`] if `q` is not within 0 to 1.
///
/// # Source
///
/// Hyndman and Fan 1996, Sample Quantiles in Statistical Packages, definition 7 (numpy's default).
pub fn quantile(values: &[f64], q: f64) -> Result<f64, Error> {
    if !(0.0..=1.0).contains(&q) {
        return Err(Error::OutOfRange { what: "quantile", value: q, range: "0 to 1" });
    }
    Ok(sorted_quantile(&sorted(values)?, q))
}

/// The range that the middle `share` of the runs lies in, around their median: how much runs
/// differ, which an interval of the mean hides and more runs do not make smaller.
///
/// `share` = 0.9 gives the 5th to the 95th percentile, as [`quantile`] defines them; 1 gives the
/// worst and the best run.
///
/// # Errors
///
/// [`Error::Empty`], [`Error::NonFinite`], or [`Error::OutOfRange`] if `share` is not within 0 to
/// 1.
///
/// # Examples
///
/// ```
/// let range = cordada_stats::percentile_range(&[4.0, 0.0, 1.0, 3.0, 2.0], 0.5)?;
/// assert_eq!((range.low, range.point, range.high), (1.0, 2.0, 3.0));
/// # Ok::<(), cordada_stats::Error>(())
/// ```
pub fn percentile_range(values: &[f64], share: f64) -> Result<Interval, Error> {
    check_share(share)?;
    let sorted = sorted(values)?;
    let (low, high) = central(&sorted, share);
    Ok(Interval { point: sorted_quantile(&sorted, 0.5), low, high })
}

pub(crate) fn check_share(share: f64) -> Result<(), Error> {
    if (0.0..=1.0).contains(&share) {
        Ok(())
    } else {
        Err(Error::OutOfRange { what: "share of runs", value: share, range: "0 to 1" })
    }
}

/// The ends of the middle `share` of sorted numbers.
pub(crate) fn central(sorted: &[f64], share: f64) -> (f64, f64) {
    let tail = (1.0 - share) / 2.0;
    (sorted_quantile(sorted, tail), sorted_quantile(sorted, 1.0 - tail))
}

fn sorted(values: &[f64]) -> Result<Vec<f64>, Error> {
    if values.is_empty() {
        return Err(Error::Empty { what: "values" });
    }
    all_finite("value", values)?;
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    Ok(sorted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interquartile_mean_cuts_whole_numbers() {
        // 1..8: two are cut at each end, (3 + 4 + 5 + 6) / 4 = 4.5; the order does not matter.
        assert_eq!(Center::Iqm.of(&mut [8.0, 1.0, 7.0, 2.0, 6.0, 3.0, 5.0, 4.0]), 4.5);
        // Six numbers: ⌊6/4⌋ = 1 is cut, (1 + 2 + 3 + 10) / 4 = 4.
        assert_eq!(Center::Iqm.of(&mut [0.0, 1.0, 2.0, 3.0, 10.0, 99.0]), 4.0);
        // Three: none is cut.
        assert_eq!(Center::Iqm.of(&mut [0.0, 1.0, 5.0]), 2.0);
    }

    #[test]
    fn the_other_centers() {
        assert_eq!(Center::Mean.of(&mut [1.0, 2.0, 6.0]), 3.0);
        assert_eq!(Center::Median.of(&mut [6.0, 1.0, 2.0]), 2.0);
        assert_eq!(Center::Median.of(&mut [6.0, 1.0, 2.0, 4.0]), 3.0);
    }

    #[test]
    fn quantiles_interpolate() {
        let values = [40.0, 10.0, 20.0, 30.0];
        // h = 0.25 · 3 = 0.75: three quarters of the way from 10 to 20.
        assert_eq!(quantile(&values, 0.25).unwrap(), 17.5);
        assert_eq!(quantile(&values, 0.0).unwrap(), 10.0);
        assert_eq!(quantile(&values, 1.0).unwrap(), 40.0);
        assert_eq!(quantile(&[3.0], 0.7).unwrap(), 3.0);
    }

    #[test]
    fn a_range_covers_its_share_of_the_runs() {
        let values: Vec<f64> = (0..=100).map(f64::from).collect();
        let range = percentile_range(&values, 0.9).unwrap();
        assert!((range.low - 5.0).abs() < 1e-9 && (range.high - 95.0).abs() < 1e-9, "{range:?}");
        assert_eq!(range.point, 50.0);
        let all = percentile_range(&values, 1.0).unwrap();
        assert_eq!((all.low, all.high), (0.0, 100.0));
    }

    #[test]
    fn unusable_input_is_refused() {
        assert_eq!(quantile(&[], 0.5), Err(Error::Empty { what: "values" }));
        assert!(matches!(
            quantile(&[1.0, f64::NAN], 0.5),
            Err(Error::NonFinite { what: "value", index: 1, .. })
        ));
        assert!(matches!(quantile(&[1.0], 1.1), Err(Error::OutOfRange { .. })));
        assert!(matches!(percentile_range(&[1.0], f64::NAN), Err(Error::OutOfRange { .. })));
    }
}
