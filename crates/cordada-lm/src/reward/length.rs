//! How long a response is, and whether it came to an end.

use super::spec::{Arguments, Text};
use super::{Response, Reward, Term};
use crate::Error;
use crate::generate::Finish;

pub(super) const LENGTH: Term = Term {
    name: "length",
    about: "0 for a length within the limits, falling to -1 outside of them",
    text: Text::None,
    options: &[
        ("max", "tokens from which on the score is -1"),
        ("soft", "tokens before max over which it falls (0)"),
        ("min", "tokens below which it falls, to -1 at 0 tokens"),
        ("target", "tokens that are best; the score falls on both sides, to -1"),
    ],
    example: "length,max=64,soft=16,weight=0.5",
    build: |a| Ok(Box::new(Length::from_arguments(a)?)),
};

pub(super) const ENDED: Term = Term {
    name: "ended",
    about: "-1 if the response was cut off at the limit of tokens, else 0",
    text: Text::None,
    options: &[],
    example: "ended,weight=0.2",
    build: |_| Ok(Box::new(Ended)),
};

/// A penalty on lengths; the terms that are set add up, and the sum is at least −1. With n tokens:
///
/// ```text
/// max, soft:   0                         n ≤ max − soft
///              (max − soft − n) / soft   max − soft < n ≤ max
///              −1                        n > max
/// min:         min(0, n / min − 1)
/// target:      −|n − target| / target
/// ```
///
/// # Source
///
/// The first: Yu et al. 2025 (DAPO), arXiv:2503.14476, eq. (13), soft overlong punishment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Length {
    /// Largest length.
    pub max: Option<usize>,
    /// Tokens before `max` over which the score falls.
    pub soft: usize,
    /// Smallest length.
    pub min: Option<usize>,
    /// Best length.
    pub target: Option<usize>,
}

impl Length {
    fn from_arguments(a: &Arguments) -> Result<Self, Error> {
        let get = |key| match a.get::<usize>(key, "number of tokens")? {
            Some(0) => Err(a.wrong(&format!("{key}=0 must be at least 1"))),
            other => Ok(other),
        };
        let soft = a.get("soft", "number of tokens")?;
        let (max, min, target) = (get("max")?, get("min")?, get("target")?);
        if max.is_none() && min.is_none() && target.is_none() {
            return Err(a.wrong("needs max, min or target; write for example \"length,max=64\""));
        }
        if soft > max {
            return Err(a.wrong("soft must be at most max, which must be set with it"));
        }
        if min > max && max.is_some() {
            return Err(a.wrong("min must be at most max"));
        }
        Ok(Self { max, soft: soft.unwrap_or(0), min, target })
    }

    /// The score of a length.
    pub fn of(&self, tokens: usize) -> f64 {
        let n = tokens as f64;
        let over = self.max.map_or(0.0, |max| match tokens + self.soft {
            _ if tokens > max => -1.0,
            end if end > max => (max as f64 - end as f64) / self.soft as f64,
            _ => 0.0,
        });
        let under = self.min.map_or(0.0, |min| (n / min as f64 - 1.0).min(0.0));
        let off = self.target.map_or(0.0, |target| -(n / target as f64 - 1.0).abs());
        (over + under + off).max(-1.0)
    }
}

impl Reward for Length {
    fn name(&self) -> &'static str {
        LENGTH.name
    }

    fn score(&mut self, responses: &[Response<'_>]) -> Result<Vec<f64>, Error> {
        Ok(responses.iter().map(|r| self.of(r.tokens)).collect())
    }
}

/// −1 if the response was cut off, else 0.
#[derive(Clone, Copy, Debug)]
pub struct Ended;

impl Reward for Ended {
    fn name(&self) -> &'static str {
        ENDED.name
    }

    fn score(&mut self, responses: &[Response<'_>]) -> Result<Vec<f64>, Error> {
        let cut = |r: &Response<'_>| matches!(r.finish, Finish::Length | Finish::Context);
        Ok(responses.iter().map(|r| if cut(r) { -1.0 } else { 0.0 }).collect())
    }
}
