//! Axes with round numbers, and numbers as text.

/// The range of an axis and where its labels stand.
#[derive(Clone, Debug)]
pub(super) struct Axis {
    /// Ends, as decimal logarithms on a logarithmic axis.
    low: f64,
    high: f64,
    ticks: Vec<(f64, String)>,
    /// Whether equal distances are equal ratios.
    pub(super) log: bool,
}

impl Axis {
    /// Steps, from 0 to the last one.
    pub(super) fn steps(last: f64, num_ticks: usize) -> Self {
        let high = last.max(1.0);
        let step = nice_step(high, num_ticks);
        Self { low: 0.0, high, ticks: linear_ticks(0.0, high, step), log: false }
    }

    /// Values, from a round number at or below the lowest to one at or above the highest.
    pub(super) fn values(low: f64, high: f64, num_ticks: usize) -> Self {
        let size = low.abs().max(high.abs());
        let (mut low, mut high) = (low, high);
        if high - low <= (size * 1e-9).max(1e-290) {
            // Constant but for rounding: it stands in the middle.
            let margin = if size > 1e-290 { size * 0.05 } else { 1.0 };
            (low, high) = (low - margin, high + margin);
        }
        let step = nice_step(high - low, num_ticks);
        // An end that is a multiple but for rounding needs no further step.
        low = (low / step + 1e-6).floor() * step;
        high = (high / step - 1e-6).ceil() * step;
        Self { low, high, ticks: linear_ticks(low, high, step), log: false }
    }

    /// Positive values, from the power of ten at or below the lowest to that at or above the
    /// highest.
    pub(super) fn log(low: f64, high: f64, num_ticks: usize) -> Self {
        let (low, high) = (low.log10().floor(), high.log10().ceil());
        let high = high.max(low + 1.0);
        let stride = ((high - low) / num_ticks as f64).ceil();
        let count = ((high - low) / stride) as usize;
        let tick = |k: usize| {
            let exponent = low + k as f64 * stride;
            let value = 10_f64.powf(exponent);
            (exponent, tick_label(value, value))
        };
        Self { low, high, ticks: (0..=count).map(tick).collect(), log: true }
    }

    /// Where a value lies: 0 at the low end, 1 at the high one.
    pub(super) fn place(&self, value: f64) -> f64 {
        self.place_own(if self.log { value.log10() } else { value })
    }

    fn place_own(&self, value: f64) -> f64 {
        (value - self.low) / (self.high - self.low)
    }

    /// The labels, each with its place.
    pub(super) fn ticks(&self) -> impl Iterator<Item = (f64, &str)> {
        self.ticks.iter().map(|(value, label)| (self.place_own(*value), label.as_str()))
    }
}

/// The smallest of 1, 2 and 5 times a power of ten that divides the span into at most `num_ticks`
/// parts.
fn nice_step(span: f64, num_ticks: usize) -> f64 {
    let rough = span / num_ticks as f64;
    let power = 10_f64.powf(rough.log10().floor());
    // A part in 10⁹ more is rounding, not a reason for a coarser step.
    let factor = [1.0, 2.0, 5.0].into_iter().find(|f| f * power >= rough * (1.0 - 1e-9));
    factor.unwrap_or(10.0) * power
}

/// The multiples of `step` from `low` to `high`.
fn linear_ticks(low: f64, high: f64, step: f64) -> Vec<(f64, String)> {
    // Multiples, not sums, so that rounding does not add up.
    let first = (low / step - 1e-6).ceil() as i64;
    let last = (high / step + 1e-6).floor() as i64;
    (first..=last)
        .map(|k| {
            let value = k as f64 * step;
            (value, tick_label(value, step))
        })
        .collect()
}

/// A label that tells values apart which lie `step` apart: 0.25, 500, 1.5k, 20M, 5e-7.
fn tick_label(value: f64, step: f64) -> String {
    let size = value.abs();
    if size < step * 1e-6 {
        return "0".to_owned();
    }
    let (scale, suffix) = match size * (1.0 + 1e-9) {
        s if s >= 1e12 || step < 1e-4 => {
            let power = (size * (1.0 + 1e-9)).log10().floor();
            (10_f64.powf(power), format!("e{power}"))
        }
        s if s >= 1e9 => (1e9, "G".to_owned()),
        s if s >= 1e6 => (1e6, "M".to_owned()),
        s if s >= 1e3 => (1e3, "k".to_owned()),
        _ => (1.0, String::new()),
    };
    // The first decimal that the step changes.
    let decimals = (-(step / scale * (1.0 + 1e-9)).log10().floor()).clamp(0.0, 9.0) as usize;
    let digits = format!("{:.decimals$}", value / scale);
    format!("{}{suffix}", without_trailing_zeros(&digits))
}

/// A number with four significant digits, or all those before the point.
pub(super) fn number(value: f64) -> String {
    let size = value.abs();
    if value.is_nan() {
        "nan".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 { "inf" } else { "-inf" }.to_owned()
    } else if size == 0.0 {
        "0".to_owned()
    } else if !(1e-4..1e12).contains(&size) {
        format!("{value:.3e}")
    } else if size >= 999.5 {
        let sign = if value < 0.0 { "-" } else { "" };
        format!("{sign}{}", grouped(size.round() as u64))
    } else {
        let decimals = (3.0 - size.log10().floor()) as usize;
        without_trailing_zeros(&format!("{value:.decimals$}")).to_owned()
    }
}

/// A whole number with its thousands apart.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A time in the two largest units that apply.
pub(super) fn duration(seconds: f64) -> String {
    if !(0.0..1e15).contains(&seconds) {
        return number(seconds) + " s";
    }
    let whole = seconds.round() as u64;
    match whole {
        0..60 => format!("{seconds:.1} s"),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        3600..86_400 => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
        _ => format!("{} d {} h", whole / 86_400, whole % 86_400 / 3600),
    }
}

fn without_trailing_zeros(digits: &str) -> &str {
    if digits.contains('.') { digits.trim_end_matches('0').trim_end_matches('.') } else { digits }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(axis: &Axis) -> Vec<&str> {
        axis.ticks().map(|(_, label)| label).collect()
    }

    #[test]
    fn steps_are_one_two_or_five() {
        assert_eq!(nice_step(100.0, 5), 20.0);
        assert_eq!(nice_step(100.0, 4), 50.0);
        assert_eq!(nice_step(100.0, 10), 10.0);
        assert_eq!(nice_step(102_400.0, 5), 50_000.0);
        assert!((nice_step(0.3, 3) - 0.1).abs() < 1e-15);
    }

    #[test]
    fn labels_are_round_and_short() {
        assert_eq!(labels(&Axis::steps(102_400.0, 6)), ["0", "20k", "40k", "60k", "80k", "100k"]);
        assert_eq!(labels(&Axis::steps(2.5e6, 5)), ["0", "500k", "1M", "1.5M", "2M", "2.5M"]);
        assert_eq!(labels(&Axis::values(-1282.0, -150.0, 4)), ["-1.5k", "-1k", "-500", "0"]);
        assert_eq!(labels(&Axis::values(0.013, 0.29, 4)), ["0", "0.1", "0.2", "0.3"]);
        assert_eq!(
            labels(&Axis::values(1e-7, 9e-6, 5)),
            ["0", "2e-6", "4e-6", "6e-6", "8e-6", "1e-5"]
        );
        assert_eq!(labels(&Axis::values(1.0, 3e13, 3)), ["0", "1e13", "2e13", "3e13"]);
    }

    #[test]
    fn values_lie_between_the_ends() {
        let axis = Axis::values(-30.0, 70.0, 5);
        assert_eq!(labels(&axis), ["-40", "-20", "0", "20", "40", "60", "80"]);
        // (−10 + 40) / 120
        assert!((axis.place(-10.0) - 0.25).abs() < 1e-12);
        let constant = Axis::values(200.0, 200.0, 4);
        assert_eq!(constant.place(200.0), 0.5);
        assert_eq!(labels(&constant), ["190", "195", "200", "205", "210"]);
        let nearly_constant = Axis::values(f64::from(0.2_f32), f64::from(0.2_f32), 4);
        assert_eq!(labels(&nearly_constant), ["0.19", "0.2", "0.21"]);
        assert_eq!(Axis::values(0.0, 0.0, 4).place(0.0), 0.5);
        assert!(Axis::values(1e-320, 3e-320, 4).ticks().count() < 9);
        assert!(Axis::values(-1e250, 1e250, 4).ticks().count() < 9);
    }

    #[test]
    fn a_logarithmic_axis_has_powers_of_ten() {
        let axis = Axis::log(2.9, 303.0, 4);
        assert_eq!(labels(&axis), ["1", "10", "100", "1k"]);
        assert!((axis.place(10.0) - 1.0 / 3.0).abs() < 1e-12);
        assert_eq!(labels(&Axis::log(1e-6, 90.0, 4)), ["1e-6", "0.0001", "0.01", "1", "100"]);
    }

    #[test]
    fn numbers_have_four_digits() {
        let texts = [
            (0.0, "0"),
            (-166.367_97, "-166.4"),
            (0.993_474_1, "0.9935"),
            (0.000_123_456, "0.0001235"),
            (1.5e-7, "1.500e-7"),
            (41_095.317, "41,095"),
            (-1_234_567.0, "-1,234,567"),
            (999.9, "1,000"),
            (10.0, "10"),
            (f64::NAN, "nan"),
            (f64::NEG_INFINITY, "-inf"),
        ];
        for (value, text) in texts {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn times_have_two_units() {
        let texts =
            [(2.49, "2.5 s"), (150.4, "2 min 30 s"), (7500.0, "2 h 5 min"), (2e5, "2 d 7 h")];
        for (seconds, text) in texts {
            assert_eq!(duration(seconds), text);
        }
    }
}
