//! Learning curves, measured by area, by the time to a threshold and by the share of failed runs.
//! Several runs on a common grid are in [`band`](crate::band).
//!
//! A curve's abscissa is whatever the caller counts: environment steps or seconds. Between two
//! points a run has the value of the earlier one, and after its last point it keeps the last value
//! (last value carried forward), so no run is seen to be good before that was measured, and a run
//! that stopped early still counts. Before its first point a run has no value.

use crate::error::{Error, all_finite};

/// What one run measured: pairs of step (or seconds) and return, in order, at least one.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    points: Vec<(f64, f64)>,
}

impl Curve {
    /// A curve from (step, return). Of several points at the same step the last one counts.
    ///
    /// # Errors
    ///
    /// [`Error::Empty`], [`Error::NonFinite`] with the point's index, [`Error::NotAscending`].
    pub fn new(points: impl Into<Vec<(f64, f64)>>) -> Result<Self, Error> {
        let points = points.into();
        if points.is_empty() {
            return Err(Error::Empty { what: "points of the curve" });
        }
        for (index, &(x, value)) in points.iter().enumerate() {
            if !x.is_finite() {
                return Err(Error::NonFinite { what: "step", index, value: x });
            }
            if !value.is_finite() {
                return Err(Error::NonFinite { what: "return", index, value });
            }
        }
        check_ascending(points.iter().map(|&(x, _)| x))?;
        Ok(Self { points })
    }

    /// The points in order.
    pub fn points(&self) -> &[(f64, f64)] {
        &self.points
    }

    /// Where the first point is.
    pub fn start(&self) -> f64 {
        self.points[0].0
    }

    /// Where the last point is.
    pub fn end(&self) -> f64 {
        self.points[self.points.len() - 1].0
    }

    /// The last value.
    pub fn final_value(&self) -> f64 {
        self.points[self.points.len() - 1].1
    }

    /// The value of the last point at or before `x`; `None` before the first one.
    pub fn value_at(&self, x: f64) -> Option<f64> {
        let count = self.points.partition_point(|&(at, _)| at <= x);
        count.checked_sub(1).map(|index| self.points[index].1)
    }

    /// Where the value is first at or above `threshold`; `None` if it never is. One lucky point is
    /// enough: smooth noisy curves by [`running_mean`](Self::running_mean) first.
    pub fn time_to(&self, threshold: f64) -> Option<f64> {
        self.points.iter().find(|&&(_, value)| value >= threshold).map(|&(x, _)| x)
    }

    /// The mean of each value and its up to `window` − 1 predecessors.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfRange`] if `window` is 0.
    pub fn running_mean(&self, window: usize) -> Result<Self, Error> {
        if window == 0 {
            return Err(Error::OutOfRange { what: "window", value: 0.0, range: "at least 1" });
        }
        // Each sum is taken afresh: a sliding one would carry the rounding of large values along.
        let mean = |(index, &(x, _)): (usize, &(f64, f64))| {
            let recent = &self.points[(index + 1).saturating_sub(window)..=index];
            (x, recent.iter().map(|&(_, value)| value).sum::<f64>() / recent.len() as f64)
        };
        Ok(Self { points: self.points.iter().enumerate().map(mean).collect() })
    }

    /// The area under the curve from `from` to `to`, in returns times steps: the usual measure of
    /// sample efficiency. The last value carried forward makes the curve a staircase, so the area
    /// is exact.
    ///
    /// ```text
    /// area = Σ_i v_i (min(x_{i+1}, to) − max(x_i, from))        over the points before `to`
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::BeforeStart`] if the curve starts after `from`, [`Error::OutOfRange`] unless `to`
    /// is finite and after `from`.
    pub fn area(&self, from: f64, to: f64) -> Result<f64, Error> {
        if !(to > from && to.is_finite()) {
            return Err(Error::OutOfRange { what: "end", value: to, range: "after the start" });
        }
        if self.start() > from {
            return Err(Error::BeforeStart { run: 0, start: self.start(), x: from });
        }
        let ends = self.points[1..].iter().map(|&(x, _)| x).chain([f64::INFINITY]);
        let step =
            |(&(x, value), next): (&(f64, f64), f64)| value * (next.min(to) - x.max(from)).max(0.0);
        Ok(self.points.iter().zip(ends).map(step).sum())
    }

    /// The mean return between `from` and `to`: the area divided by its length.
    ///
    /// # Errors
    ///
    /// As [`area`](Self::area).
    pub fn mean_value(&self, from: f64, to: f64) -> Result<f64, Error> {
        Ok(self.area(from, to)? / (to - from))
    }
}

pub(crate) fn check_ascending(xs: impl Iterator<Item = f64>) -> Result<(), Error> {
    let mut previous = f64::NEG_INFINITY;
    for (index, x) in xs.enumerate() {
        if x < previous {
            return Err(Error::NotAscending { index, previous, x });
        }
        previous = x;
    }
    Ok(())
}

/// When each of several runs reached a threshold.
#[derive(Clone, Debug, PartialEq)]
pub struct TimeToThreshold {
    /// In the order of the runs: the first step (or second) at or above the threshold.
    pub times: Vec<Option<f64>>,
}

impl TimeToThreshold {
    /// The share of runs that reached it.
    pub fn share_reached(&self) -> f64 {
        self.times.iter().flatten().count() as f64 / self.times.len() as f64
    }

    /// The median over all runs. One that never arrives is later than all others, so there is no
    /// median unless more than half arrive. (Leaving failures out would reward failing.)
    pub fn median(&self) -> Option<f64> {
        let mut times: Vec<f64> = self.times.iter().map(|t| t.unwrap_or(f64::INFINITY)).collect();
        times.sort_unstable_by(f64::total_cmp);
        let (low, high) = (times[(times.len() - 1) / 2], times[times.len() / 2]);
        let median = low.midpoint(high);
        median.is_finite().then_some(median)
    }
}

/// When each run first reached `threshold`, in the unit of the curves.
///
/// # Errors
///
/// [`Error::Empty`] without runs, [`Error::NonFinite`] if the threshold is NaN or infinite.
pub fn time_to_threshold(curves: &[Curve], threshold: f64) -> Result<TimeToThreshold, Error> {
    if curves.is_empty() {
        return Err(Error::Empty { what: "runs" });
    }
    all_finite("threshold", &[threshold])?;
    Ok(TimeToThreshold { times: curves.iter().map(|curve| curve.time_to(threshold)).collect() })
}

/// The share of runs whose final return is below `threshold`. A run that diverged counts as failed:
/// NaN is below every threshold.
///
/// # Errors
///
/// [`Error::Empty`] without runs, [`Error::NonFinite`] if the threshold is NaN or infinite.
pub fn failure_share(final_returns: &[f64], threshold: f64) -> Result<f64, Error> {
    if final_returns.is_empty() {
        return Err(Error::Empty { what: "runs" });
    }
    all_finite("threshold", &[threshold])?;
    let failed = final_returns.iter().filter(|&&x| x.is_nan() || x < threshold).count();
    Ok(failed as f64 / final_returns.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(points: &[(f64, f64)]) -> Curve {
        Curve::new(points).unwrap()
    }

    #[test]
    fn the_last_value_is_carried_forward() {
        let run = curve(&[(10.0, 1.0), (20.0, 5.0), (20.0, 6.0), (40.0, 2.0)]);
        let at: Vec<Option<f64>> =
            [9.9, 10.0, 19.9, 20.0, 39.0, 40.0, 1e9].map(|x| run.value_at(x)).to_vec();
        let want = [None, Some(1.0), Some(1.0), Some(6.0), Some(6.0), Some(2.0), Some(2.0)];
        assert_eq!(at, want);
        assert_eq!((run.start(), run.end(), run.final_value()), (10.0, 40.0, 2.0));
    }

    #[test]
    fn the_area_is_that_of_the_staircase() {
        let run = curve(&[(0.0, 1.0), (10.0, 4.0), (20.0, 2.0)]);
        // 10 · 1 + 10 · 4 + 20 · 2
        assert_eq!(run.area(0.0, 40.0).unwrap(), 90.0);
        // From the middle of one stair to that of the next: 5 · 1 + 5 · 4.
        assert_eq!(run.area(5.0, 15.0).unwrap(), 25.0);
        assert_eq!(run.mean_value(5.0, 15.0).unwrap(), 2.5);
        // After the last point the last value holds.
        assert_eq!(run.mean_value(50.0, 60.0).unwrap(), 2.0);
        assert!(matches!(run.area(-1.0, 5.0), Err(Error::BeforeStart { start: 0.0, .. })));
        assert!(matches!(run.area(5.0, 5.0), Err(Error::OutOfRange { what: "end", .. })));
    }

    #[test]
    fn the_running_mean_looks_back() {
        let run = curve(&[(0.0, 2.0), (1.0, 4.0), (2.0, 9.0), (3.0, -1.0)]);
        let smooth = run.running_mean(2).unwrap();
        assert_eq!(smooth.points(), [(0.0, 2.0), (1.0, 3.0), (2.0, 6.5), (3.0, 4.0)]);
        assert!(matches!(run.running_mean(0), Err(Error::OutOfRange { what: "window", .. })));
    }

    #[test]
    fn a_run_that_never_arrives_is_later_than_all_others() {
        let rise = |x: f64| curve(&[(0.0, 0.0), (x, 10.0), (100.0, 3.0)]);
        let flat = curve(&[(0.0, 9.9)]);
        let times =
            time_to_threshold(&[rise(30.0), flat.clone(), rise(10.0), rise(20.0)], 10.0).unwrap();
        assert_eq!(times.times, [Some(30.0), None, Some(10.0), Some(20.0)]);
        assert_eq!(times.share_reached(), 0.75);
        // Of 10, 20, 30, never.
        assert_eq!(times.median(), Some(25.0));
        let half = time_to_threshold(&[rise(10.0), flat], 10.0).unwrap();
        assert_eq!((half.median(), half.share_reached()), (None, 0.5));
    }

    #[test]
    fn failures_are_below_the_threshold() {
        let returns = [475.0, 474.9, 500.0, f64::NAN, -1.0];
        assert_eq!(failure_share(&returns, 475.0).unwrap(), 0.6);
        assert_eq!(failure_share(&[], 1.0), Err(Error::Empty { what: "runs" }));
        assert!(failure_share(&returns, f64::NAN).is_err());
    }

    #[test]
    fn unusable_curves_are_refused() {
        assert!(matches!(Curve::new(vec![]), Err(Error::Empty { .. })));
        assert_eq!(
            Curve::new([(1.0, 0.0), (0.5, 0.0)]),
            Err(Error::NotAscending { index: 1, previous: 1.0, x: 0.5 })
        );
        assert!(matches!(
            Curve::new([(1.0, f64::NAN)]),
            Err(Error::NonFinite { what: "return", index: 0, .. })
        ));
    }
}
