//! A curve of bounded size: however long the run, at most [`MAX_POINTS`] points are kept, and no
//! spike is lost. Drawing is the matter of `chart`.

/// Points that a curve may have; a chart is hardly wider in pixels.
pub(super) const MAX_POINTS: usize = 600;

/// Larger values would overflow sums and spans; they count as not finite.
const LARGEST: f64 = 1e250;

/// A value at a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Point {
    pub(super) step: f64,
    pub(super) value: f64,
}

/// Neighboring values as one: their extremes and their mean.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    low: Point,
    high: Point,
    step_sum: f64,
    value_sum: f64,
    count: u64,
}

impl Bucket {
    fn new(point: Point) -> Self {
        Self { low: point, high: point, step_sum: point.step, value_sum: point.value, count: 1 }
    }

    fn merge(&mut self, other: &Self) {
        if other.low.value < self.low.value {
            self.low = other.low;
        }
        if other.high.value > self.high.value {
            self.high = other.high;
        }
        self.step_sum += other.step_sum;
        self.value_sum += other.value_sum;
        self.count += other.count;
    }
}

/// The values of one metric over the steps of a run.
///
/// Values are kept one by one until there are [`MAX_POINTS`]; then neighbors share a bucket, and
/// whenever the buckets are full, each two become one. A bucket shows its lowest and its highest
/// value, so extremes survive any number of mergers.
#[derive(Clone, Debug)]
pub(super) struct Series {
    buckets: Vec<Bucket>,
    /// Values that a bucket takes.
    width: u64,
    /// The first value that can be drawn.
    pub(super) first: Option<Point>,
    /// The last value, even if it cannot be drawn.
    pub(super) last: f64,
    /// Values that cannot be drawn.
    pub(super) left_out: u64,
}

impl Default for Series {
    fn default() -> Self {
        Self { buckets: Vec::new(), width: 1, first: None, last: f64::NAN, left_out: 0 }
    }
}

impl Series {
    /// Adds the next value.
    pub(super) fn push(&mut self, step: f64, value: f64) {
        self.last = value;
        // False for nan, too.
        let drawable = value.abs() <= LARGEST;
        if !drawable {
            self.left_out += 1;
            return;
        }
        let point = Point { step, value };
        self.first.get_or_insert(point);
        match self.buckets.last_mut() {
            Some(bucket) if bucket.count < self.width => bucket.merge(&Bucket::new(point)),
            _ => {
                self.make_room();
                self.buckets.push(Bucket::new(point));
            }
        }
    }

    /// Merges pairs of buckets, all of them full, until one more has room.
    fn make_room(&mut self) {
        loop {
            let points_each = if self.width == 1 { 1 } else { 2 };
            if self.buckets.len() * points_each < MAX_POINTS {
                return;
            }
            let pairs = self.buckets.chunks(2).map(|pair| {
                let mut merged = pair[0];
                pair[1..].iter().for_each(|other| merged.merge(other));
                merged
            });
            self.buckets = pairs.collect();
            self.width *= 2;
        }
    }

    /// The curve: every value, or the extremes of every bucket in their order.
    pub(super) fn points(&self) -> Vec<Point> {
        let mut points = Vec::with_capacity(MAX_POINTS);
        for bucket in &self.buckets {
            let (low, high) = (bucket.low, bucket.high);
            if low == high {
                points.push(low);
            } else if low.step < high.step {
                points.extend([low, high]);
            } else {
                points.extend([high, low]);
            }
        }
        points
    }

    /// Whether values share buckets, so that [`Series::points`] are extremes only.
    pub(super) fn is_thinned(&self) -> bool {
        self.width > 1
    }

    /// The outline of the area from the highest value of every bucket, forward, to the lowest,
    /// backward.
    pub(super) fn outline(&self) -> Vec<Point> {
        let highs = self.buckets.iter().map(|bucket| bucket.high);
        let lows = self.buckets.iter().rev().map(|bucket| bucket.low);
        highs.chain(lows).collect()
    }

    /// The running mean: each point is averaged with its neighbors, a 25th of the curve on either
    /// side. Near the ends the window shrinks on both sides, so a straight line stays itself.
    /// Nothing if the curve is too short to be averaged.
    pub(super) fn running_mean(&self) -> Vec<Point> {
        let len = self.buckets.len();
        let half = len / 25;
        if half == 0 && self.width == 1 {
            return Vec::new();
        }
        let mean = |index: usize| {
            let reach = half.min(index).min(len - 1 - index);
            let window = &self.buckets[index - reach..=index + reach];
            let count = window.iter().map(|b| b.count).sum::<u64>() as f64;
            Point {
                step: window.iter().map(|b| b.step_sum).sum::<f64>() / count,
                value: window.iter().map(|b| b.value_sum).sum::<f64>() / count,
            }
        };
        (0..len).map(mean).collect()
    }

    /// The lowest and the highest value.
    pub(super) fn range(&self) -> Option<(f64, f64)> {
        let lows = self.buckets.iter().map(|b| b.low.value);
        let highs = self.buckets.iter().map(|b| b.high.value);
        Some((lows.reduce(f64::min)?, highs.reduce(f64::max)?))
    }

    /// The middle one of the buckets' means.
    pub(super) fn median(&self) -> Option<f64> {
        let mut means: Vec<f64> =
            self.buckets.iter().map(|b| b.value_sum / b.count as f64).collect();
        means.sort_by(f64::total_cmp);
        means.get(means.len() / 2).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(values: impl IntoIterator<Item = f64>) -> Series {
        let mut series = Series::default();
        for (index, value) in values.into_iter().enumerate() {
            series.push(index as f64, value);
        }
        series
    }

    #[test]
    fn a_short_curve_is_kept_as_it_is() {
        let short = series([3.0, 1.0, 2.0]);
        let point = |step, value| Point { step, value };
        assert_eq!(short.points(), [point(0.0, 3.0), point(1.0, 1.0), point(2.0, 2.0)]);
        assert_eq!(short.range(), Some((1.0, 3.0)));
        assert_eq!(short.median(), Some(2.0));
        assert!(!short.is_thinned());
        assert_eq!(short.running_mean(), []);
        assert_eq!(series((0..600).map(f64::from)).points().len(), 600);
    }

    #[test]
    fn what_is_not_finite_is_left_out_and_counted() {
        let series = series([f64::INFINITY, 5.0, f64::NAN, -1e300, 7.0, f64::NAN]);
        assert_eq!(series.left_out, 4);
        assert_eq!(series.first, Some(Point { step: 1.0, value: 5.0 }));
        assert!(series.last.is_nan());
        let steps: Vec<f64> = series.points().iter().map(|p| p.step).collect();
        assert_eq!(steps, [1.0, 4.0]);
    }

    #[test]
    fn spikes_survive_thinning_where_they_were() {
        // A flat curve with one spike up and one down, each a single value in 100 000.
        let value = |index: usize| match index {
            33_333 => 50.0,
            77_778 => -60.0,
            _ => (index % 2) as f64,
        };
        let long = series((0..100_000).map(value));
        let points = long.points();
        assert!(points.len() > MAX_POINTS / 3 && points.len() <= MAX_POINTS, "{}", points.len());
        assert!(long.buckets.capacity() <= 2 * MAX_POINTS);
        assert!(points.contains(&Point { step: 33_333.0, value: 50.0 }));
        assert!(points.contains(&Point { step: 77_778.0, value: -60.0 }));
        assert!(points.is_sorted_by(|a, b| a.step < b.step));
        let outline = long.outline();
        let (highs, lows) = outline.split_at(outline.len() / 2);
        assert!(highs.contains(&Point { step: 33_333.0, value: 50.0 }));
        assert!(lows.contains(&Point { step: 77_778.0, value: -60.0 }));
        assert!(highs.is_sorted_by(|a, b| a.step < b.step));
        assert!(lows.is_sorted_by(|a, b| a.step > b.step));
        assert_eq!(long.range(), Some((-60.0, 50.0)));
        assert_eq!(long.buckets.iter().map(|b| b.count).sum::<u64>(), 100_000);
    }

    #[test]
    fn the_running_mean_averages_neighbors() {
        // 25 values: one neighbor on either side. 0 0 … 0 3 0 … has the means 1 1 1 around the 3.
        let mean = series((0..25).map(|i| if i == 10 { 3.0 } else { 0.0 })).running_mean();
        let values: Vec<f64> = mean.iter().map(|p| p.value).collect();
        assert_eq!(values[8..13], [0.0, 1.0, 1.0, 1.0, 0.0]);
        assert_eq!(series((0..24).map(f64::from)).running_mean(), []);
        // A straight line stays itself up to its ends, thinned or not.
        for len in [50, 5000] {
            let mean = series((0..len).map(|i| 2.0 * f64::from(i) + 1.0)).running_mean();
            assert!(mean.len() > 20);
            for point in mean {
                assert!((point.value - (2.0 * point.step + 1.0)).abs() < 1e-9, "{point:?}");
            }
        }
    }
}
