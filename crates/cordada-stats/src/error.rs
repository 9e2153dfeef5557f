//! Everything that makes input unusable, and what to do about it.

/// An error of this crate.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is nothing to compute with.
    #[error("no {what}: pass at least one")]
    Empty {
        /// What is missing: `runs`, `panels`.
        what: &'static str,
    },

    /// Rows of a matrix or of a table differ in length.
    #[error(
        "row {row} has {got} entries, expected {expected}: every row needs one entry per column"
    )]
    Ragged {
        /// Index of the first row that differs.
        row: usize,
        /// Entries that it should have.
        expected: usize,
        /// Entries that it has.
        got: usize,
    },

    /// Two inputs that belong together differ in size.
    #[error("{what} has {got} entries, expected {expected}")]
    Length {
        /// Which input.
        what: &'static str,
        /// Entries that it should have.
        expected: usize,
        /// Entries that it has.
        got: usize,
    },

    /// A number is NaN or infinite.
    #[error(
        "{what} {index} is {value}, not a finite number: leave diverged runs out, or give them \
         the score of a failure"
    )]
    NonFinite {
        /// What kind of number: `score`, `return`.
        what: &'static str,
        /// Its index.
        index: usize,
        /// Its value.
        value: f64,
    },

    /// A number is outside the range that makes sense.
    #[error("{what} is {value}, expected {range}")]
    OutOfRange {
        /// Which number: `confidence`.
        what: &'static str,
        /// Its value.
        value: f64,
        /// What is accepted, in words.
        range: &'static str,
    },

    /// The abscissas of a curve go backward.
    #[error("point {index} is at {x}, before its predecessor at {previous}: sort the points")]
    NotAscending {
        /// Index of the point.
        index: usize,
        /// The predecessor's abscissa.
        previous: f64,
        /// The point's abscissa.
        x: f64,
    },

    /// A curve has no value yet where one is asked for.
    #[error(
        "run {run} has its first point at {start}, after {x}: begin where every run has a value, \
         as `common_grid` does"
    )]
    BeforeStart {
        /// Index of the run.
        run: usize,
        /// Where it begins.
        start: f64,
        /// Where its value was asked for.
        x: f64,
    },

    /// More names than the plot has styles that can be told apart.
    #[error("{count} names in one plot, at most {most} can be told apart: draw several plots")]
    TooManyNames {
        /// How many there are.
        count: usize,
        /// How many there may be.
        most: usize,
    },

    /// The plot has no room for its curves.
    #[error(
        "only {plot_width:.0} of {width:.0} px are left for the curves of a panel, at least \
         {least:.0} are needed: use a greater width, fewer columns or no end labels"
    )]
    TooNarrow {
        /// Pixels left for the curves of one panel.
        plot_width: f64,
        /// Width of the whole picture.
        width: f64,
        /// Pixels needed.
        least: f64,
    },
}

/// Fails at the first number that is not finite.
pub(crate) fn all_finite(what: &'static str, values: &[f64]) -> Result<(), Error> {
    match values.iter().position(|value| !value.is_finite()) {
        Some(index) => Err(Error::NonFinite { what, index, value: values[index] }),
        None => Ok(()),
    }
}
