//! Schedules: a number, such as a learning rate, as a function of training progress in [0, 1],
//! with a short text form for config files. What progress means is the caller's business.

use std::fmt;
use std::str::FromStr;

use crate::Error;

/// A number as a function of progress p in [0, 1].
///
/// | text | value at p |
/// |---|---|
/// | `3e-4` | 3e-4 |
/// | `linear(a, b)` | a + (b − a) p |
/// | `cosine(a, b)` | b + (a − b) (1 + cos πp) / 2 |
/// | `warmup(f, s)` | s(0) · p / f while p < f, then s((p − f) / (1 − f)) |
/// | `piecewise(p₁: v₁, p₂: v₂, …)` | straight lines from point to point, level outside |
///
/// The second argument of `linear` and `cosine` may be left out; it is 0 then.
///
/// # Source
///
/// `cosine`: Loshchilov and Hutter 2017, arXiv:1608.03983, eq. (5), without restarts. `warmup`:
/// Goyal et al. 2017, arXiv:1706.02677, section 2.2, from 0; what follows runs over the progress
/// that is left.
///
/// # Examples
///
/// ```
/// use cordada_nn::Schedule;
///
/// let schedule: Schedule = "linear(1e-3, 2e-4)".parse()?;
/// assert!((schedule.at(0.5) - 6e-4).abs() < 1e-12);
/// assert_eq!(schedule.to_string(), "linear(0.001, 2e-4)");
/// # Ok::<(), cordada_nn::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub enum Schedule {
    /// The same value at all times.
    Constant(f64),
    /// A straight line.
    Linear {
        /// Value at progress 0.
        from: f64,
        /// Value at progress 1.
        to: f64,
    },
    /// Half a period of a cosine: level at both ends.
    Cosine {
        /// Value at progress 0.
        from: f64,
        /// Value at progress 1.
        to: f64,
    },
    /// A straight line from 0, then another schedule over the rest.
    Warmup {
        /// Share of the progress that the rise takes, in (0, 1).
        fraction: f64,
        /// What follows; not itself a warm-up.
        then: Box<Schedule>,
    },
    /// Straight lines between points `(progress, value)` in ascending order of progress; two
    /// points at one progress make a jump, whose second value holds there.
    Piecewise(Vec<(f64, f64)>),
}

impl Schedule {
    /// The value at `progress`, which is limited to [0, 1].
    pub fn at(&self, progress: f64) -> f64 {
        let p = progress.clamp(0.0, 1.0);
        match self {
            Self::Constant(value) => *value,
            // Weighted so that both ends are exact.
            Self::Linear { from, to } => from * (1.0 - p) + to * p,
            Self::Cosine { from, to } => {
                let weight = 0.5 * (1.0 + libm::cos(std::f64::consts::PI * p));
                from * weight + to * (1.0 - weight)
            }
            Self::Warmup { fraction, then } => {
                if p < *fraction {
                    then.at(0.0) * (p / fraction)
                } else {
                    then.at((p - fraction) / (1.0 - fraction))
                }
            }
            Self::Piecewise(points) => piecewise(points, p),
        }
    }
}

/// The polyline through `points` at `p`; 0 without points.
fn piecewise(points: &[(f64, f64)], p: f64) -> f64 {
    // The first point strictly after p: at a jump the later value holds.
    let next = points.partition_point(|&(at, _)| at <= p);
    match (next.checked_sub(1).map(|i| points[i]), points.get(next)) {
        (Some((p0, v0)), Some(&(p1, v1))) => {
            let share = (p - p0) / (p1 - p0);
            v0 * (1.0 - share) + v1 * share
        }
        (Some((_, value)), None) | (None, Some(&(_, value))) => value,
        (None, None) => 0.0,
    }
}

/// A number as short as it can be read back exactly: `0.01`, `3e-4`.
struct Short(f64);

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = self.0 == 0.0 || (1e-3..1e6).contains(&self.0.abs());
        if plain { write!(f, "{}", self.0) } else { write!(f, "{:e}", self.0) }
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Constant(value) => write!(f, "{}", Short(*value)),
            Self::Linear { from, to } => write!(f, "linear({}, {})", Short(*from), Short(*to)),
            Self::Cosine { from, to } => write!(f, "cosine({}, {})", Short(*from), Short(*to)),
            Self::Warmup { fraction, then } => write!(f, "warmup({}, {then})", Short(*fraction)),
            Self::Piecewise(points) => {
                f.write_str("piecewise(")?;
                for (i, &(p, value)) in points.iter().enumerate() {
                    let comma = if i == 0 { "" } else { ", " };
                    write!(f, "{comma}{}: {}", Short(p), Short(value))?;
                }
                f.write_str(")")
            }
        }
    }
}

impl FromStr for Schedule {
    type Err = Error;

    /// Reads the text forms of the table at [`Schedule`].
    ///
    /// # Errors
    ///
    /// [`Error::ScheduleForm`], [`Error::ScheduleNumber`], [`Error::ScheduleArguments`] or
    /// [`Error::ScheduleRange`], each with the whole text and the part at fault.
    fn from_str(text: &str) -> Result<Self, Error> {
        Reader { text }.schedule(text.trim())
    }
}

/// Reads parts of one text, which errors quote whole.
struct Reader<'a> {
    text: &'a str,
}

impl Reader<'_> {
    fn schedule(&self, part: &str) -> Result<Schedule, Error> {
        let not_a_form = || Error::ScheduleForm { text: self.text.into(), part: part.into() };
        let Some((form, rest)) = part.split_once('(') else {
            // Whatever starts like a number is meant as one.
            return if part.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c)) {
                Ok(Schedule::Constant(self.number("the value", part)?))
            } else {
                Err(not_a_form())
            };
        };
        let arguments = rest.trim_end().strip_suffix(')').ok_or_else(not_a_form)?;
        match form.trim_end() {
            "linear" => {
                let (from, to) = self.ends("linear", arguments)?;
                Ok(Schedule::Linear { from, to })
            }
            "cosine" => {
                let (from, to) = self.ends("cosine", arguments)?;
                Ok(Schedule::Cosine { from, to })
            }
            "warmup" => self.warmup(arguments),
            "piecewise" => self.piecewise(arguments),
            _ => Err(not_a_form()),
        }
    }

    /// `from` or `from, to`.
    fn ends(&self, form: &'static str, arguments: &str) -> Result<(f64, f64), Error> {
        let parts: Vec<&str> = arguments.split(',').collect();
        match parts[..] {
            [from] => Ok((self.number("the first value", from)?, 0.0)),
            [from, to] => {
                Ok((self.number("the first value", from)?, self.number("the last value", to)?))
            }
            _ => Err(self.arguments(form, "one or two", parts.len())),
        }
    }

    fn warmup(&self, arguments: &str) -> Result<Schedule, Error> {
        let Some((fraction, then)) = arguments.split_once(',') else {
            return Err(self.arguments("warmup", "a fraction and a schedule", 1));
        };
        let fraction = self.number("the fraction", fraction)?;
        if !(fraction > 0.0 && fraction < 1.0) {
            return Err(self.range("the fraction", fraction, "greater than 0 and less than 1"));
        }
        let then = then.trim();
        // One level only: a rise inside a rise means nothing, and depth stays bounded.
        if then.starts_with("warmup") {
            return Err(Error::ScheduleForm { text: self.text.into(), part: then.into() });
        }
        Ok(Schedule::Warmup { fraction, then: Box::new(self.schedule(then)?) })
    }

    fn piecewise(&self, arguments: &str) -> Result<Schedule, Error> {
        let mut points: Vec<(f64, f64)> = Vec::new();
        for part in arguments.split(',') {
            let (p, value) = part.split_once(':').ok_or_else(|| Error::ScheduleForm {
                text: self.text.into(),
                part: part.trim().into(),
            })?;
            let p = self.number("a progress", p)?;
            let value = self.number("a value", value)?;
            let before = points.last().map_or(0.0, |&(before, _)| before);
            if !(before..=1.0).contains(&p) {
                return Err(self.range("a progress", p, "ascending from 0 to 1"));
            }
            points.push((p, value));
        }
        Ok(Schedule::Piecewise(points))
    }

    fn number(&self, name: &'static str, part: &str) -> Result<f64, Error> {
        let part = part.trim();
        part.parse().ok().filter(|x: &f64| x.is_finite()).ok_or_else(|| Error::ScheduleNumber {
            text: self.text.into(),
            name,
            part: part.into(),
        })
    }

    fn arguments(&self, form: &'static str, want: &'static str, got: usize) -> Error {
        Error::ScheduleArguments { text: self.text.into(), form, want, got }
    }

    fn range(&self, name: &'static str, value: f64, range: &'static str) -> Error {
        Error::ScheduleRange { text: self.text.into(), name, value, range }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn value(text: &str, progress: f64) -> f64 {
        text.parse::<Schedule>().unwrap().at(progress)
    }

    #[test]
    fn values_are_the_hand_computed_ones() {
        assert_eq!(value("3e-4", 0.7), 3e-4);
        assert_eq!(value("linear(4, 2)", 0.25), 3.5);
        assert_eq!(value("linear(4)", 0.25), 3.0);
        // cos(π/3) = ½: 1 + (5 − 1) (1 + ½) / 2 = 4.
        assert!((value("cosine(5, 1)", 1.0 / 3.0) - 4.0).abs() < 1e-14);
        assert!((value("cosine(5)", 0.5) - 2.5).abs() < 1e-14);
        // Half of the rise to 8; 0.4 is a quarter of the way from 0.2 to 1.
        assert_eq!(value("warmup(0.2, linear(8, 2))", 0.1), 4.0);
        assert_eq!(value("warmup(0.2, linear(8, 2))", 0.2), 8.0);
        assert!((value("warmup(0.2, linear(8, 2))", 0.4) - 6.5).abs() < 1e-14);
    }

    #[test]
    fn ends_are_exact_and_progress_is_limited() {
        for text in ["linear(0.1, 0.3)", "cosine(0.1, 0.3)", "piecewise(0: 0.1, 1: 0.3)"] {
            assert_eq!(value(text, 0.0), 0.1, "{text}");
            assert_eq!(value(text, -3.0), 0.1, "{text}");
            assert_eq!(value(text, 1.0), 0.3, "{text}");
            assert_eq!(value(text, 1.5), 0.3, "{text}");
        }
    }

    #[test]
    fn a_polyline_is_level_outside_and_jumps_where_told() {
        let text = "piecewise(0.2: 1, 0.5: 4, 0.5: 10, 0.75: 0)";
        assert_eq!(value(text, 0.0), 1.0);
        assert!((value(text, 0.4) - 3.0).abs() < 1e-14);
        assert_eq!(value(text, 0.5), 10.0);
        assert_eq!(value(text, 0.625), 5.0);
        assert_eq!(value(text, 0.9), 0.0);
    }

    #[test]
    fn faults_are_named() {
        let message = |text: &str| text.parse::<Schedule>().unwrap_err().to_string();
        assert_eq!(
            message("linear(1e-3, x)"),
            "schedule `linear(1e-3, x)`: the last value is `x`; write a finite number such as 3e-4"
        );
        assert!(message("exponential(1)").contains("`exponential(1)` is not a schedule"));
        assert!(message("fast").contains("write a number, linear(from, to)"));
        assert!(message("linear(1").contains("is not a schedule"));
        assert!(message("linear(1, 2, 3)").contains("linear has 3 arguments"));
        assert!(message("linear()").contains("the first value is ``"));
        assert!(message("1e999").contains("the value is `1e999`"));
        assert!(message("warmup(1.5, 1)").contains("the fraction is 1.5"));
        assert!(message("warmup(0.1)").contains("a fraction and a schedule"));
        assert!(message("warmup(0.1, warmup(0.1, 1))").contains("is not a schedule"));
        assert!(message("piecewise(0.5: 1, 0.2: 1)").contains("a progress is 0.2"));
        assert!(message("piecewise(0.5)").contains("`0.5` is not a schedule"));
    }

    fn flat() -> impl Strategy<Value = Schedule> {
        let number = || prop_oneof![-1e3..1e3, -1e-3..1e-3, Just(0.0), Just(1e300)];
        prop_oneof![
            number().prop_map(Schedule::Constant),
            (number(), number()).prop_map(|(from, to)| Schedule::Linear { from, to }),
            (number(), number()).prop_map(|(from, to)| Schedule::Cosine { from, to }),
            prop::collection::vec((0.0..=1.0, number()), 1..5).prop_map(|mut points| {
                points.sort_by(|a: &(f64, f64), b| a.0.total_cmp(&b.0));
                Schedule::Piecewise(points)
            }),
        ]
    }

    proptest! {
        #[test]
        fn text_reads_back_the_same(schedule in flat(), fraction in 1e-6..0.999, warm: bool) {
            let schedule = if warm {
                Schedule::Warmup { fraction, then: Box::new(schedule) }
            } else {
                schedule
            };
            let text = schedule.to_string();
            prop_assert_eq!(text.parse::<Schedule>(), Ok(schedule), "{}", text);
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[a-z0-9(),:.+ -]{0,40}") {
            if let Ok(schedule) = text.parse::<Schedule>() {
                prop_assert!(schedule.at(0.5).is_finite());
            }
        }
    }
}
