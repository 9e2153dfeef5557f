//! The form of a response, whatever it says.

use regex::Regex;
use serde::de::IgnoredAny;

use super::spec::Text;
use super::{Response, Reward, Term, pattern};
use crate::Error;

pub(super) const FORMAT: Term = Term {
    name: "format",
    about: "1 if the regular expression matches the whole response, else 0",
    text: Text::Required("a regular expression"),
    options: &[],
    example: "format:(?s)<think>.*</think>.+",
    build: |a| {
        // Checked alone first, so that an unbalanced bracket does not escape the frame.
        pattern::regex(a, &a.text)?;
        Ok(Box::new(Format(pattern::regex(a, &format!(r"\A(?:{})\z", a.text))?)))
    },
};

pub(super) const JSON: Term = Term {
    name: "json",
    about: "1 if the response is one JSON value, else 0",
    text: Text::None,
    options: &[],
    example: "json",
    build: |_| Ok(Box::new(Json)),
};

/// 1 if the expression matches the whole response, else 0.
#[derive(Clone, Debug)]
pub struct Format(Regex);

impl Reward for Format {
    fn name(&self) -> &'static str {
        FORMAT.name
    }

    fn score(&mut self, responses: &[Response<'_>]) -> Result<Vec<f64>, Error> {
        Ok(responses.iter().map(|r| f64::from(self.0.is_match(r.text))).collect())
    }
}

/// 1 if the response is one JSON value and nothing else, else 0.
#[derive(Clone, Copy, Debug)]
pub struct Json;

impl Reward for Json {
    fn name(&self) -> &'static str {
        JSON.name
    }

    fn score(&mut self, responses: &[Response<'_>]) -> Result<Vec<f64>, Error> {
        let valid = |r: &Response<'_>| serde_json::from_str::<IgnoredAny>(r.text).is_ok();
        Ok(responses.iter().map(|r| f64::from(valid(r))).collect())
    }
}
