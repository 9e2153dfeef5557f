//! Regular expressions and words in a response. Expressions are those of the crate `regex`, whose
//! time is linear in the text: no response can make one run away.

use regex::Regex;

use super::spec::{Arguments, Text};
use super::{FIELD, Response, Reward, Term, answers};
use crate::Error;

pub(super) const MATCH: Term = Term {
    name: "match",
    about: "1 if the regular expression is found in the response, else 0",
    text: Text::Required("a regular expression"),
    options: &[],
    example: "match:^[0-9]+$",
    build: |a| Ok(Box::new(Match(regex(a, &a.text)?))),
};

pub(super) const EXTRACT: Term = Term {
    name: "extract",
    about: "1 if what the last match's first group (or all of it) finds is the answer, else 0",
    text: Text::Required("a regular expression"),
    options: &[FIELD],
    example: r"extract:answer is (\S+)",
    build: |a| Ok(Box::new(Extract { regex: regex(a, &a.text)?, field: a.field() })),
};

pub(super) const CONTAINS: Term = Term {
    name: "contains",
    about: "share of the words, separated by |, that the response contains",
    text: Text::Required("words"),
    options: &[],
    example: "contains:because|therefore",
    build: |a| Ok(Box::new(Contains(words(a)?))),
};

pub(super) const EXCLUDES: Term = Term {
    name: "excludes",
    about: "-1 if the response contains one of the words, separated by |, else 0",
    text: Text::Required("words"),
    options: &[],
    example: "excludes:as an ai|sorry",
    build: |a| Ok(Box::new(Excludes(words(a)?))),
};

/// 1 if the expression is found in the response, else 0.
#[derive(Clone, Debug)]
pub struct Match(pub Regex);

impl Reward for Match {
    fn name(&self) -> &'static str {
        MATCH.name
    }

    fn score(&mut self, responses: &[Response<'_>]) -> Result<Vec<f64>, Error> {
        Ok(responses.iter().map(|r| f64::from(self.0.is_match(r.text))).collect())
    }
}

/// 1 if what the expression finds is an accepted answer, else 0. The last match counts, and of it
/// the first group, if the expression has one; white space at both ends does not count.
#[derive(Clone, Debug)]
pub struct Extract {
    /// The expression.
    pub regex: Regex,
    /// Field of the example that holds the answer.
    pub field: String,
}

impl Reward for Extract {
    fn name(&self) -> &'static str {
        EXTRACT.name
    }

    fn score(&mut self, responses: &[Response<'_>]) -> Result<Vec<f64>, Error> {
        let score = |r: &Response<'_>| {
            let right = answers(r.example, &self.field)?;
            let found = self.regex.captures_iter(r.text).last();
            let found = found.and_then(|c| if c.len() > 1 { c.get(1) } else { c.get(0) });
            let same = |found: &str| right.iter().any(|a| a.trim() == found.trim());
            Ok(f64::from(found.is_some_and(|m| same(m.as_str()))))
        };
        responses.iter().map(score).collect()
    }
}

/// Share of the words that the response contains; case does not count, and a word must not be
/// part of a longer one.
#[derive(Clone, Debug)]
pub struct Contains(Vec<Regex>);

impl Reward for Contains {
    fn name(&self) -> &'static str {
        CONTAINS.name
    }

    fn score(&mut self, responses: &[Response<'_>]) -> Result<Vec<f64>, Error> {
        let share = |r: &Response<'_>| {
            self.0.iter().filter(|w| w.is_match(r.text)).count() as f64 / self.0.len() as f64
        };
        Ok(responses.iter().map(share).collect())
    }
}

/// −1 if the response contains one of the words, else 0; words as for [`Contains`].
#[derive(Clone, Debug)]
pub struct Excludes(Vec<Regex>);

impl Reward for Excludes {
    fn name(&self) -> &'static str {
        EXCLUDES.name
    }

    fn score(&mut self, responses: &[Response<'_>]) -> Result<Vec<f64>, Error> {
        let bad = |r: &Response<'_>| self.0.iter().any(|w| w.is_match(r.text));
        Ok(responses.iter().map(|r| if bad(r) { -1.0 } else { 0.0 }).collect())
    }
}

pub(super) fn regex(a: &Arguments, text: &str) -> Result<Regex, Error> {
    Regex::new(text).map_err(|e| {
        // The last line says what is wrong; those before draw a picture of where.
        let problem = e.to_string();
        let problem = problem.lines().last().unwrap_or_default().trim().to_string();
        a.wrong(&format!("{:?} is no regular expression: {problem}", a.text))
    })
}

/// The words of a list, each as an expression.
fn words(a: &Arguments) -> Result<Vec<Regex>, Error> {
    let word = |word: &str| {
        let word = word.trim();
        // A border only where the word has a letter: "?" has none.
        let letter = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        let border = |there: bool| if there { r"\b" } else { "" };
        let (first, last) =
            (border(letter(word.chars().next())), border(letter(word.chars().last())));
        regex(a, &format!("(?i){first}{}{last}", regex::escape(word)))
    };
    if a.text.split('|').any(|w| w.trim().is_empty()) {
        return Err(a.wrong("has an empty word; separate words by single |"));
    }
    a.text.split('|').map(word).collect()
}
