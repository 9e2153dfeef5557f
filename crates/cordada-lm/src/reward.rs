//! Rewards: what a response is worth. Terms that verify (`exact`, `numeric`, …), terms of form
//! (`length`, `format`, …), a program of one's own, and weighted sums of all of these.
//!
//! A term is written `NAME[,KEY=VALUE]…[:TEXT]`, see [`parse`]:
//!
//! ```text
//! exact                                  1 if the response is the example's "answer", else 0
//! numeric,tol=1e-6                       … its last number
//! extract:(?s).*####\s*(\S+)             … what the group finds
//! length,max=64,soft=16,weight=0.5       0, falling to −1 for responses near and past 64 tokens
//! command,timeout=30:python3 score.py    what the program answers, see [`Command`]
//! ```
//!
//! Trained reward models stand elsewhere: they read tokens.

mod command;
mod exact;
mod format;
mod length;
mod numeric;
mod pattern;
pub(crate) mod spec;
mod weighted;

use std::fmt;

use serde_json::Value;

pub use command::{Command, CommandOptions};
pub use exact::Exact;
pub use format::{Format, Json};
pub use length::{Ended, Length};
pub use numeric::{Numeric, last_number};
pub use pattern::{Contains, Excludes, Extract, Match};
pub(crate) use spec::did_you_mean;
pub use spec::{Arguments, Text, parse, parse_all};
pub use weighted::Weighted;

use crate::Error;
use crate::data::{Example, kind};
use crate::generate::Finish;

/// A response and what it answers.
#[derive(Clone, Copy, Debug)]
pub struct Response<'a> {
    /// The example that was asked.
    pub example: &'a Example,
    /// The prompt as a text.
    pub prompt: &'a str,
    /// The response, without special tokens.
    pub text: &'a str,
    /// Its tokens, a final end token included.
    pub tokens: usize,
    /// Why it ended.
    pub finish: Finish,
}

/// Something that scores responses.
pub trait Reward: fmt::Debug + Send {
    /// The name that metrics show.
    fn name(&self) -> &str;

    /// The score of each response; NaN: it could not be scored, and
    /// [`take_failures`](Self::take_failures) says why.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] if an example lacks what is needed to judge it, naming the example and
    /// the field; [`Error::Reward`] if nothing can be scored any more.
    fn score(&mut self, responses: &[Response<'_>]) -> Result<Vec<f64>, Error>;

    /// The parts of the last scores, for metrics; a term without parts has none.
    fn report(&self) -> Vec<TermReport> {
        Vec::new()
    }

    /// The samples that could not be scored since the last call.
    fn take_failures(&mut self) -> Vec<Failure> {
        Vec::new()
    }
}

/// What one term of a sum gave for the last responses.
#[derive(Clone, Debug, PartialEq)]
pub struct TermReport {
    /// Its name, with a number if there are several of that name.
    pub name: String,
    /// Its weight in the sum.
    pub weight: f64,
    /// Mean over the responses that it scored, before weighting; NaN if there is none.
    pub mean: f64,
    /// Responses that it scored.
    pub scored: usize,
    /// Responses that it could not score.
    pub unscored: usize,
}

/// A sample that could not be scored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Number of the sample, counted over the run.
    pub id: u64,
    /// The beginning of its prompt.
    pub prompt: String,
    /// What happened.
    pub problem: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sample {} ({}) has no score: {}", self.id, self.prompt, self.problem)
    }
}

/// A kind of term: its name, how it is written, and how it is made.
#[derive(Clone, Copy, Debug)]
pub struct Term {
    /// The name.
    pub name: &'static str,
    /// What it gives, in a sentence.
    pub about: &'static str,
    /// What stands after a colon.
    pub text: Text,
    /// Keys that may be set, each with its meaning; `weight` may always be.
    pub options: &'static [(&'static str, &'static str)],
    /// An example of its use.
    pub example: &'static str,
    /// Makes it.
    pub build: fn(&Arguments) -> Result<Box<dyn Reward>, Error>,
}

/// All terms.
pub const TERMS: &[Term] = &[
    exact::EXACT,
    numeric::NUMERIC,
    pattern::MATCH,
    pattern::EXTRACT,
    pattern::CONTAINS,
    pattern::EXCLUDES,
    format::FORMAT,
    format::JSON,
    length::LENGTH,
    length::ENDED,
    command::COMMAND,
];

/// The option of terms that compare with the example's answer.
const FIELD: (&str, &str) = ("field", "field of the example that holds the answer (answer)");

/// The answers that an example accepts: a field that holds a text, a number, true or false, or a
/// list of these.
fn answers(example: &Example, field: &str) -> Result<Vec<String>, Error> {
    let problem = |what: String| {
        let label = example.label();
        Error::Setting(format!(
            "example {label}: field {field:?} is {what}; a reward that compares needs the right \
             answer there: a text, a number, or a list of accepted ones"
        ))
    };
    let one = |value: &Value| match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(_) | Value::Bool(_) => Ok(value.to_string()),
        other => Err(problem(kind(other).to_string())),
    };
    match example.fields.get(field) {
        None => Err(problem("missing".to_string())),
        Some(Value::Array(list)) if list.is_empty() => Err(problem("an empty list".to_string())),
        Some(Value::Array(list)) => list.iter().map(one).collect(),
        Some(value) => Ok(vec![one(value)?]),
    }
}

#[cfg(test)]
mod tests;
