//! The errors of this crate: wrong options, images that are too small, and schedules that cannot
//! be read.

/// What can be wrong with the input of this crate.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An option has a value outside its range.
    #[error("{owner} option `{option}` is {value}; it must be {range}")]
    Option {
        /// What the option belongs to, such as `adam`.
        owner: &'static str,
        /// Name of the option.
        option: &'static str,
        /// Its value.
        value: f64,
        /// The values that it may have, in words.
        range: &'static str,
    },
    /// Convolutions leave nothing of an image.
    #[error(
        "{owner}: the image is {height}x{width}, too small for the convolutions; use one of at \
         least {}x{}", least[0], least[1]
    )]
    ImageSize {
        /// The network.
        owner: &'static str,
        /// Height of the image.
        height: usize,
        /// Width of the image.
        width: usize,
        /// The smallest height and width that leave an output.
        least: [usize; 2],
    },
    /// The text of a schedule has a part that is not one of the known forms.
    #[error(
        "schedule `{text}`: `{part}` is not a schedule; write a number, linear(from, to), \
         cosine(from, to), warmup(fraction, schedule) or piecewise(progress: value, …)"
    )]
    ScheduleForm {
        /// The whole text.
        text: String,
        /// The part at fault.
        part: String,
    },
    /// The text of a schedule has something else where a number belongs.
    #[error("schedule `{text}`: {name} is `{part}`; write a finite number such as 3e-4")]
    ScheduleNumber {
        /// The whole text.
        text: String,
        /// What the number means.
        name: &'static str,
        /// The part at fault.
        part: String,
    },
    /// A form of schedule has too few or too many arguments.
    #[error("schedule `{text}`: {form} has {got} arguments; it takes {want}")]
    ScheduleArguments {
        /// The whole text.
        text: String,
        /// Name of the form.
        form: &'static str,
        /// The arguments that it takes, in words.
        want: &'static str,
        /// The number of arguments found.
        got: usize,
    },
    /// A number of a schedule is outside its range.
    #[error("schedule `{text}`: {name} is {value}; it must be {range}")]
    ScheduleRange {
        /// The whole text.
        text: String,
        /// What the number means.
        name: &'static str,
        /// Its value.
        value: f64,
        /// The values that it may have, in words.
        range: &'static str,
    },
}
