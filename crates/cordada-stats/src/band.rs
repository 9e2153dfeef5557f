//! Several runs on a common grid of steps, and the band that summarizes them: a center and an
//! interval at every grid point.

use crate::bootstrap::{Bootstrap, Interval};
use crate::curve::{Curve, check_ascending};
use crate::error::{Error, all_finite};
use crate::sample::{Center, central, check_share};

/// A grid of `num_points` steps at equal distances, from the first at which every run has a value
/// to the end of the longest run. One point if that is the same step.
///
/// # Errors
///
/// [`Error::Empty`] without curves, [`Error::OutOfRange`] if `num_points` is below 2.
pub fn common_grid(curves: &[Curve], num_points: usize) -> Result<Vec<f64>, Error> {
    if curves.is_empty() {
        return Err(Error::Empty { what: "runs" });
    }
    if num_points < 2 {
        let (value, range) = (num_points as f64, "at least 2");
        return Err(Error::OutOfRange { what: "number of grid points", value, range });
    }
    let from = curves.iter().map(Curve::start).fold(f64::NEG_INFINITY, f64::max);
    let to = curves.iter().map(Curve::end).fold(f64::NEG_INFINITY, f64::max);
    if from == to {
        return Ok(vec![to]);
    }
    let last = (num_points - 1) as f64;
    let inner = (0..num_points - 1).map(|k| from + (to - from) * (k as f64 / last));
    // Rounding may not take the end, where the runs' final values are.
    Ok(inner.chain([to]).collect())
}

/// Several runs on a common grid.
#[derive(Clone, Debug, PartialEq)]
pub struct Aligned {
    grid: Vec<f64>,
    /// `[G, runs]`: one row per grid point.
    columns: Vec<Vec<f64>>,
}

impl Aligned {
    /// The value of every run at every grid point, the last one carried forward.
    ///
    /// # Errors
    ///
    /// [`Error::Empty`] without curves or grid, [`Error::NotAscending`], [`Error::NonFinite`], and
    /// [`Error::BeforeStart`] if a run has no value yet at the first grid point.
    pub fn new(curves: &[Curve], grid: &[f64]) -> Result<Self, Error> {
        if curves.is_empty() {
            return Err(Error::Empty { what: "runs" });
        }
        let &first = grid.first().ok_or(Error::Empty { what: "grid points" })?;
        all_finite("grid point", grid)?;
        check_ascending(grid.iter().copied())?;
        if let Some(run) = curves.iter().position(|curve| curve.start() > first) {
            return Err(Error::BeforeStart { run, start: curves[run].start(), x: first });
        }
        // The grid ascends, so no later point is before a start and none is left out.
        let column = |&x: &f64| curves.iter().filter_map(|curve| curve.value_at(x)).collect();
        Ok(Self { grid: grid.to_vec(), columns: grid.iter().map(column).collect() })
    }

    /// The grid.
    pub fn grid(&self) -> &[f64] {
        &self.grid
    }

    /// The number of runs.
    pub fn num_runs(&self) -> usize {
        self.columns[0].len()
    }

    /// The values of all runs at one grid point.
    ///
    /// # Panics
    ///
    /// If there is no such grid point.
    pub fn values_at(&self, index: usize) -> &[f64] {
        &self.columns[index]
    }

    /// The center of the runs at each grid point with its bootstrap interval. Whole runs are
    /// resampled: one draw per run and resample, for all grid points together.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfRange`] if an option makes no sense.
    ///
    /// # Panics
    ///
    /// If `below(n)` returns n or more.
    pub fn bootstrap_band(
        &self,
        center: Center,
        options: &Bootstrap,
        below: &mut impl FnMut(usize) -> usize,
    ) -> Result<Band, Error> {
        let num_runs = self.num_runs();
        let mut sample = vec![0.0; num_runs];
        let mut centers = |runs: &[usize]| -> Vec<f64> {
            let of_column = |column: &Vec<f64>| {
                sample.iter_mut().zip(runs).for_each(|(value, &run)| *value = column[run]);
                center.of(&mut sample)
            };
            self.columns.iter().map(of_column).collect()
        };
        let mut runs: Vec<usize> = (0..num_runs).collect();
        let point = centers(&runs);
        let intervals = options.percentiles(point, || {
            for run in &mut runs {
                *run = below(num_runs);
                assert!(*run < num_runs, "index {run} was drawn from {num_runs} runs");
            }
            centers(&runs)
        })?;
        Ok(Band { x: self.grid.clone(), intervals })
    }

    /// The center of the runs at each grid point with the range of the middle `share` of the runs,
    /// as [`percentile_range`](crate::percentile_range).
    ///
    /// # Errors
    ///
    /// [`Error::OutOfRange`] if `share` is not within 0 to 1.
    pub fn percentile_band(&self, center: Center, share: f64) -> Result<Band, Error> {
        check_share(share)?;
        let interval = |column: &Vec<f64>| {
            let mut sorted = column.clone();
            sorted.sort_unstable_by(f64::total_cmp);
            let (low, high) = central(&sorted, share);
            Interval { point: center.of(&mut sorted), low, high }
        };
        let intervals = self.columns.iter().map(interval).collect();
        Ok(Band { x: self.grid.clone(), intervals })
    }
}

/// A line with an interval around each of its points: what a plot shows of several runs. The
/// intervals hold point by point.
#[derive(Clone, Debug, PartialEq)]
pub struct Band {
    x: Vec<f64>,
    intervals: Vec<Interval>,
}

impl Band {
    /// A band from intervals of any origin, such as a performance profile's.
    ///
    /// # Shapes
    ///
    /// `x`, `intervals`: `[G]`.
    ///
    /// # Errors
    ///
    /// [`Error::Empty`], [`Error::Length`], [`Error::NotAscending`], [`Error::NonFinite`].
    pub fn new(x: Vec<f64>, intervals: Vec<Interval>) -> Result<Self, Error> {
        if x.is_empty() {
            return Err(Error::Empty { what: "points of the band" });
        }
        if intervals.len() != x.len() {
            let (expected, got) = (x.len(), intervals.len());
            return Err(Error::Length { what: "the list of intervals", expected, got });
        }
        all_finite("abscissa", &x)?;
        check_ascending(x.iter().copied())?;
        for (index, interval) in intervals.iter().enumerate() {
            let Interval { point, low, high } = *interval;
            if let Some(value) = [point, low, high].into_iter().find(|value| !value.is_finite()) {
                return Err(Error::NonFinite { what: "interval", index, value });
            }
        }
        Ok(Self { x, intervals })
    }

    /// The abscissas, `[G]`.
    pub fn x(&self) -> &[f64] {
        &self.x
    }

    /// The intervals, `[G]`.
    pub fn intervals(&self) -> &[Interval] {
        &self.intervals
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    fn curve(points: &[(f64, f64)]) -> Curve {
        Curve::new(points).unwrap()
    }

    #[test]
    fn runs_of_different_steps_meet_on_a_grid() {
        let runs = [
            curve(&[(0.0, 1.0), (10.0, 2.0), (30.0, 3.0)]),
            curve(&[(10.0, 7.0), (50.0, 9.0)]),
            curve(&[(5.0, 4.0), (15.0, 5.0)]),
        ];
        // From 10, the latest start, to 50, the latest end.
        let grid = common_grid(&runs, 5).unwrap();
        assert_eq!(grid, [10.0, 20.0, 30.0, 40.0, 50.0]);
        let aligned = Aligned::new(&runs, &grid).unwrap();
        let columns: Vec<&[f64]> = (0..5).map(|k| aligned.values_at(k)).collect();
        let want: [&[f64]; 5] = [
            &[2.0, 7.0, 4.0],
            &[2.0, 7.0, 5.0],
            &[3.0, 7.0, 5.0],
            &[3.0, 7.0, 5.0],
            &[3.0, 9.0, 5.0],
        ];
        assert_eq!(columns, want);
        assert_eq!(aligned.num_runs(), 3);
        assert_eq!(common_grid(&[curve(&[(4.0, 1.0)])], 9).unwrap(), [4.0]);
    }

    #[test]
    fn a_grid_ends_exactly() {
        let run = [curve(&[(0.2, 0.0), (0.9, 1.0)])];
        let grid = common_grid(&run, 7).unwrap();
        assert_eq!((grid[0], grid[6]), (0.2, 0.9));
    }

    #[test]
    fn bands_have_center_and_range() {
        // Runs k = 0..=8 with the value k at 0 and 10 k at 1.
        let runs: Vec<Curve> =
            (0..9).map(f64::from).map(|k| curve(&[(0.0, k), (1.0, 10.0 * k)])).collect();
        let aligned = Aligned::new(&runs, &[0.0, 1.0]).unwrap();
        let band = aligned.percentile_band(Center::Median, 0.5).unwrap();
        let want =
            |scale: f64| Interval { point: 4.0 * scale, low: 2.0 * scale, high: 6.0 * scale };
        assert_eq!(band.intervals(), [want(1.0), want(10.0)]);
        assert_eq!(band.x(), [0.0, 1.0]);

        let mut random = Random(3);
        let band = aligned
            .bootstrap_band(Center::Iqm, &Bootstrap::default(), &mut |n| random.below(n))
            .unwrap();
        let [first, second] = band.intervals() else { panic!("two points") };
        // 0..=8 without two at each end has the mean 4.
        assert_eq!((first.point, second.point), (4.0, 40.0));
        assert!(0.5 < first.low && first.low < 3.0 && 5.0 < first.high && first.high < 7.5);
        // The same runs are drawn at both points, so the second interval is ten times the first.
        assert!((second.low - 10.0 * first.low).abs() < 1e-9);
        assert!((second.high - 10.0 * first.high).abs() < 1e-9);
    }

    #[test]
    fn unusable_grids_and_bands_are_refused() {
        let runs = [curve(&[(0.0, 1.0)]), curve(&[(5.0, 1.0)])];
        assert_eq!(
            Aligned::new(&runs, &[1.0, 6.0]),
            Err(Error::BeforeStart { run: 1, start: 5.0, x: 1.0 })
        );
        assert!(matches!(Aligned::new(&runs, &[]), Err(Error::Empty { what: "grid points" })));
        assert!(matches!(Aligned::new(&runs, &[6.0, 5.0]), Err(Error::NotAscending { .. })));
        assert!(matches!(common_grid(&[], 5), Err(Error::Empty { what: "runs" })));
        assert!(matches!(common_grid(&runs, 1), Err(Error::OutOfRange { .. })));
        let point = Interval { point: 1.0, low: 0.0, high: 2.0 };
        assert!(matches!(Band::new(vec![0.0, 1.0], vec![point]), Err(Error::Length { .. })));
        let open = Interval { high: f64::INFINITY, ..point };
        assert!(matches!(Band::new(vec![0.0], vec![open]), Err(Error::NonFinite { .. })));
    }
}
