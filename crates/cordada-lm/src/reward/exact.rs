//! The response is the answer, character by character.

use super::spec::{Arguments, Text};
use super::{FIELD, Response, Reward, Term, answers};
use crate::Error;

pub(super) const EXACT: Term = Term {
    name: "exact",
    about: "1 if the response is the example's answer, else 0",
    text: Text::None,
    options: &[
        FIELD,
        ("trim", "whether white space at both ends does not count (true)"),
        ("ignore_case", "whether case does not count (false)"),
    ],
    example: "exact,trim=false",
    build: |a| Ok(Box::new(Exact::from_arguments(a)?)),
};

/// 1 if the response is one of the accepted answers, else 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exact {
    /// Field of the example that holds the answer.
    pub field: String,
    /// Whether white space at both ends does not count.
    pub trim: bool,
    /// Whether case does not count.
    pub ignore_case: bool,
}

impl Exact {
    fn from_arguments(a: &Arguments) -> Result<Self, Error> {
        let trim = a.get("trim", "true or false")?.unwrap_or(true);
        let ignore_case = a.get("ignore_case", "true or false")?.unwrap_or(false);
        Ok(Self { field: a.field(), trim, ignore_case })
    }

    fn same(&self, text: &str, answer: &str) -> bool {
        let (a, b) = if self.trim { (text.trim(), answer.trim()) } else { (text, answer) };
        if self.ignore_case { a.to_lowercase() == b.to_lowercase() } else { a == b }
    }
}

impl Reward for Exact {
    fn name(&self) -> &'static str {
        EXACT.name
    }

    fn score(&mut self, responses: &[Response<'_>]) -> Result<Vec<f64>, Error> {
        let score = |r: &Response<'_>| {
            let right = answers(r.example, &self.field)?;
            Ok(f64::from(right.iter().any(|answer| self.same(r.text, answer))))
        };
        responses.iter().map(score).collect()
    }
}
