//! Ranges of axes, and round numbers along them.

/// An axis: its range and its labels.
#[derive(Clone, Debug)]
pub(super) struct Axis {
    low: f64,
    high: f64,
    ticks: Vec<(f64, String)>,
}

impl Axis {
    /// An abscissa: it ends where the data do, and begins at 0 if they begin close to it.
    pub(super) fn steps(low: f64, high: f64, most_ticks: usize) -> Self {
        let low = if low > 0.0 && low < 0.15 * high { 0.0 } else { low };
        Self::new(low, high, most_ticks)
    }

    /// An ordinate: it ends a little outside the data.
    pub(super) fn values(low: f64, high: f64, most_ticks: usize) -> Self {
        let margin = 0.04 * (high - low);
        Self::new(low - margin, high + margin, most_ticks)
    }

    fn new(low: f64, high: f64, most_ticks: usize) -> Self {
        let size = low.abs().max(high.abs());
        let (mut low, mut high) = (low, high);
        if high - low <= size * 1e-9 {
            // Constant but for rounding: it stands in the middle.
            let margin = if size > 0.0 { 0.1 * size } else { 1.0 };
            (low, high) = (low - margin, high + margin);
        }
        let ticks = ticks(low, high, most_ticks);
        Self { low, high, ticks }
    }

    /// Where a value lies: 0 at the low end, 1 at the high one.
    pub(super) fn place(&self, value: f64) -> f64 {
        (value - self.low) / (self.high - self.low)
    }

    /// The labels, each with its place.
    pub(super) fn ticks(&self) -> impl Iterator<Item = (f64, &str)> {
        self.ticks.iter().map(|(value, label)| (self.place(*value), label.as_str()))
    }
}

/// Multiples of 1, 2 or 5 times a power of ten, at most so many of them, within the range.
fn ticks(low: f64, high: f64, most: usize) -> Vec<(f64, String)> {
    let span = high - low;
    let mut step = 10_f64.powf((span / most.max(2) as f64).log10().floor());
    // What is a billionth of a step outside is outside by rounding only.
    let count = |step: f64| {
        let (first, last) = ((low / step - 1e-9).ceil(), (high / step + 1e-9).floor());
        (first, (last - first) as usize + 1)
    };
    for factor in [2.0, 2.5, 2.0].into_iter().cycle() {
        if count(step).1 <= most.max(2) {
            break;
        }
        step *= factor;
    }
    let (first, count) = count(step);
    let largest = low.abs().max(high.abs());
    // Multiples, not sums, so that rounding does not add up.
    (0..count).map(|k| (first + k as f64) * step).map(|x| (x, label(x, step, largest))).collect()
}

/// A label in the unit that suits the whole axis: with the largest value 1,500,000, half a million
/// is `0.5M`.
fn label(value: f64, step: f64, largest: f64) -> String {
    if value.abs() < step * 1e-6 {
        return "0".to_owned();
    }
    let (scale, suffix) = match largest * (1.0 + 1e-9) {
        x if !(1e-4..1e12).contains(&x) => {
            return format!("{value:.1e}").replace('-', "\u{2212}");
        }
        x if x >= 1e9 => (1e9, "G"),
        x if x >= 1e6 => (1e6, "M"),
        x if x >= 1e4 => (1e3, "k"),
        _ => (1.0, ""),
    };
    // The first decimal that the step changes.
    let decimals = (-(step / scale * (1.0 + 1e-9)).log10().floor()).clamp(0.0, 9.0) as usize;
    // The minus sign is as wide as a digit, the hyphen is not.
    format!("{:.decimals$}{suffix}", value / scale).replace('-', "\u{2212}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|(_, label)| label.as_str()).collect()
    }

    #[test]
    fn ticks_are_round_and_few() {
        assert_eq!(labels(&Axis::steps(0.0, 1e6, 5)), ["0", "0.5M", "1.0M"]);
        assert_eq!(
            labels(&Axis::steps(0.0, 1e6, 6)),
            ["0", "0.2M", "0.4M", "0.6M", "0.8M", "1.0M"]
        );
        assert_eq!(labels(&Axis::steps(2048.0, 1e5, 3)), ["0", "50k", "100k"]);
        assert_eq!(labels(&Axis::steps(0.0, 500.0, 3)), ["0", "200", "400"]);
        assert_eq!(labels(&Axis::values(-1600.0, -150.0, 4)), ["−1500", "−1000", "−500"]);
        assert_eq!(labels(&Axis::values(0.0, 1.0, 6)), ["0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(labels(&Axis::values(2e-6, 6e-6, 3)), ["2.0e−6", "4.0e−6", "6.0e−6"]);
    }

    #[test]
    fn places_are_shares_of_the_range() {
        // 0 to 500 with 4 % around: −20 to 520.
        let axis = Axis::values(0.0, 500.0, 6);
        assert!((axis.place(250.0) - 0.5).abs() < 1e-12);
        assert!((axis.place(0.0) - 20.0 / 540.0).abs() < 1e-12);
        assert_eq!(Axis::steps(100.0, 1000.0, 5).place(500.0), 0.5);
        assert_eq!(Axis::steps(200.0, 1000.0, 5).place(600.0), 0.5);
    }

    #[test]
    fn a_constant_stands_in_the_middle() {
        for value in [0.0, 500.0, -3.0] {
            let axis = Axis::values(value, value, 5);
            assert!((axis.place(value) - 0.5).abs() < 1e-12);
            assert!(!axis.ticks.is_empty());
        }
    }
}
