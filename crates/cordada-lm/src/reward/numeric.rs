//! The last number of the response is the answer.

use std::sync::LazyLock;

use regex::Regex;

use super::spec::{Arguments, Text};
use super::{FIELD, Response, Reward, Term, answers};
use crate::Error;

pub(super) const NUMERIC: Term = Term {
    name: "numeric",
    about: "1 if the last number in the response is the example's answer, else 0",
    text: Text::None,
    options: &[FIELD, ("tol", "largest error, as a share of the answer and at least of 1 (1e-9)")],
    example: "numeric,tol=1e-6",
    build: |a| Ok(Box::new(Numeric::from_arguments(a)?)),
};

/// 1 if the last number x of the response is an accepted answer y, else 0:
///
/// ```text
/// |x − y| ≤ tol · max(1, |y|)
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Numeric {
    /// Field of the example that holds the answer: a number, or a text of which the last number
    /// counts.
    pub field: String,
    /// Tolerance.
    pub tol: f64,
}

impl Numeric {
    fn from_arguments(a: &Arguments) -> Result<Self, Error> {
        Ok(Self { field: a.field(), tol: a.number("tol", 0.0)?.unwrap_or(1e-9) })
    }

    fn right(&self, response: &Response<'_>) -> Result<bool, Error> {
        let found = last_number(response.text);
        let mut right = false;
        for answer in answers(response.example, &self.field)? {
            let want = last_number(&answer).ok_or_else(|| {
                let (label, field) = (response.example.label(), &self.field);
                Error::Setting(format!(
                    "example {label}: field {field:?} is {answer:?}, which holds no number; the \
                     reward numeric needs one"
                ))
            })?;
            right |= found.is_some_and(|x| (x - want).abs() <= self.tol * want.abs().max(1.0));
        }
        Ok(right)
    }
}

impl Reward for Numeric {
    fn name(&self) -> &'static str {
        NUMERIC.name
    }

    fn score(&mut self, responses: &[Response<'_>]) -> Result<Vec<f64>, Error> {
        responses.iter().map(|r| self.right(r).map(f64::from)).collect()
    }
}

/// A number as people write it.
static NUMBER: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(concat!(
        r"[-+−]?(?:(?:[0-9]{1,3}(?:,[0-9]{3})+\b|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)",
        r"(?:[eE][-+]?[0-9]+)?"
    ))
    .expect("the expression is fixed and valid")
});

/// The last number in a text: `-3`, `1,000.5`, `.5`, `2e-3`. A minus sign behind a digit, a
/// letter or a closing bracket is an operation. A number too large for `f64` is none.
pub fn last_number(text: &str) -> Option<f64> {
    let found = NUMBER.find_iter(text).last()?;
    let operation = text[..found.start()]
        .chars()
        .next_back()
        .is_some_and(|c| c.is_alphanumeric() || c == ')' || c == ']');
    let number = found.as_str().replace('−', "-").replace(',', "");
    let number = if operation { number.trim_start_matches(['-', '+']) } else { &number };
    number.parse().ok().filter(|x: &f64| x.is_finite())
}
