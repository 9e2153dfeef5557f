//! Statistics over a few runs: the interquartile mean and its bootstrap interval.

use cordada::env::Stream;

/// Role of the stream that draws resamples; apart from the roles of training.
const BOOTSTRAP: u32 = 100;
/// Resamples of an interval.
const RESAMPLES: usize = 2000;

/// Interquartile mean: the mean without the lowest and the highest quarter.
///
/// ```text
/// IQM = mean( x_(c+1) … x_(n−c) ),   c = ⌊n / 4⌋
/// ```
///
/// NaN for no numbers.
///
/// # Source
///
/// Agarwal et al. 2021, arXiv:2108.13264; as `scipy.stats.trim_mean(x, 0.25)`, which rliable uses.
pub(crate) fn iqm(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let cut = sorted.len() / 4;
    mean(&sorted[cut..sorted.len() - cut])
}

/// The mean; NaN for no numbers.
pub(crate) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// 95 % percentile interval of the interquartile mean over all numbers, by the stratified
/// bootstrap: each stratum (the runs of one task) is resampled with replacement by itself.
///
/// # Source
///
/// Agarwal et al. 2021, arXiv:2108.13264, section 4.1; 2000 resamples.
pub(crate) fn iqm_interval(strata: &[&[f64]], seed: u64) -> (f64, f64) {
    if strata.iter().all(|runs| runs.is_empty()) {
        return (f64::NAN, f64::NAN);
    }
    let mut stream = Stream::new(seed, BOOTSTRAP, 0);
    let mut resample = Vec::new();
    let mut found: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            resample.clear();
            for runs in strata {
                resample.extend(runs.iter().map(|_| runs[stream.below(runs.len())]));
            }
            iqm(&resample)
        })
        .collect();
    found.sort_by(f64::total_cmp);
    (percentile(&found, 0.025), percentile(&found, 0.975))
}

/// The value at a share of the way through sorted numbers, linear between neighbors.
fn percentile(sorted: &[f64], share: f64) -> f64 {
    let at = share * (sorted.len() - 1) as f64;
    let (low, part) = (at.floor() as usize, at.fract());
    let high = (low + 1).min(sorted.len() - 1);
    sorted[low] + part * (sorted[high] - sorted[low])
}

/// Aggregate of the final returns of several seeds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Aggregate {
    pub(crate) mean: f64,
    pub(crate) iqm: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

impl Aggregate {
    /// Of runs of one task.
    pub(crate) fn of(returns: &[f64]) -> Self {
        let (low, high) = iqm_interval(&[returns], 0);
        Self { mean: mean(returns), iqm: iqm(returns), low, high }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_iqm_leaves_out_the_outer_quarters() {
        // n = 8: c = 2; (3 + 4 + 5 + 6) / 4 = 4.5, whatever the ends are.
        assert_eq!(iqm(&[8000.0, 3.0, 1.0, 6.0, 2.0, 5.0, 4.0, 7.0]), 4.5);
        // n = 5: c = 1; (2 + 3 + 7) / 3 = 4.
        assert_eq!(iqm(&[1.0, 2.0, 3.0, 7.0, 100.0]), 4.0);
        // n = 3: c = 0: the plain mean.
        assert_eq!(iqm(&[1.0, 2.0, 6.0]), 3.0);
        assert!(iqm(&[]).is_nan());
    }

    #[test]
    fn percentiles_lie_between_neighbors() {
        // 0.25 · 4 = 1: the second; 0.3 · 4 = 1.2: a fifth of the way from 20 to 40.
        let sorted = [10.0, 20.0, 40.0, 50.0, 60.0];
        assert_eq!(percentile(&sorted, 0.25), 20.0);
        assert!((percentile(&sorted, 0.3) - 24.0).abs() < 1e-12);
        assert_eq!(percentile(&sorted, 1.0), 60.0);
    }

    #[test]
    fn the_interval_covers_what_chance_gives() {
        // Two runs: a resample is 00, 01, 10 or 11, so the IQM is 0, ½ or 1 with ¼, ½, ¼, and
        // both 2.5 % ends are outermost values.
        assert_eq!(iqm_interval(&[&[0.0, 1.0]], 0), (0.0, 1.0));
        // Strata are resampled apart: with one run each there is nothing to draw.
        assert_eq!(iqm_interval(&[&[0.0], &[1.0]], 0), (0.5, 0.5));
        // For 100 numbers 0 … 99 the IQM's standard error is near that of the mean of the middle
        // half's influence: σ = √(E[ψ²] / n), ψ(x) = 2 · clamp(x − 49.5, ±24.75), so
        // E[ψ²] = 4 · (½ · 24.75² + 2 ∫₀^24.75 u² du / 99) = 4 · (306.3 + 102.1) = 1633.6 and
        // σ = √16.34 = 4.04; the interval is 49.5 ± 1.96 σ = 49.5 ± 7.9.
        let values: Vec<f64> = (0..100).map(f64::from).collect();
        let (low, high) = iqm_interval(&[&values], 3);
        assert!((low - 41.6).abs() < 0.8 && (high - 57.4).abs() < 0.8, "{low} {high}");
        assert_eq!((low, high), iqm_interval(&[&values], 3), "the same seed, the same interval");
    }
}
