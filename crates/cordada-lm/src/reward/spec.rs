//! How terms are written on a command line or in a config file.
//!
//! ```text
//! NAME[,KEY=VALUE]…[:TEXT]
//! ```
//!
//! The text goes to the end, so a regular expression or a program's arguments may hold anything.

use std::collections::BTreeMap;
use std::str::FromStr;

use super::{Reward, TERMS, Term, Weighted};
use crate::Error;

/// Whether a term has a text after a colon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Text {
    /// It has none.
    None,
    /// It must have one; this is what it is called.
    Required(&'static str),
}

/// What a term was given.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Arguments {
    /// How it was written, for messages.
    written: String,
    options: BTreeMap<String, String>,
    /// What stood after the colon.
    pub text: String,
}

impl Arguments {
    /// An option's value; `None` if it was not set.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] if the value is no `wanted`.
    pub fn get<T: FromStr>(&self, key: &str, wanted: &str) -> Result<Option<T>, Error> {
        let Some(value) = self.options.get(key) else { return Ok(None) };
        let parsed = value.parse().ok();
        parsed.map(Some).ok_or_else(|| self.wrong(&format!("{key}={value} is no {wanted}")))
    }

    /// An option that is a finite number of at least `least`.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] if it is not.
    pub fn number(&self, key: &str, least: f64) -> Result<Option<f64>, Error> {
        let value: Option<f64> = self.get(key, "number")?;
        match value {
            Some(x) if !x.is_finite() || x < least => {
                Err(self.wrong(&format!("{key}={x} must be a number of at least {least}")))
            }
            _ => Ok(value),
        }
    }

    /// The field that holds the answer.
    pub(super) fn field(&self) -> String {
        self.options.get("field").cloned().unwrap_or_else(|| "answer".to_string())
    }

    /// An error about this term.
    pub fn wrong(&self, problem: &str) -> Error {
        Error::Setting(format!("reward {:?}: {problem}", self.written))
    }
}

/// Makes a reward as it was written; with its weight, which is 1 unless set.
///
/// # Errors
///
/// [`Error::Setting`] naming what is unknown or wrong, with the nearest name that there is.
///
/// # Examples
///
/// ```
/// use cordada_lm::reward::parse;
///
/// let (weight, reward) = parse("length,max=64,soft=16,weight=0.5")?;
/// assert_eq!((weight, reward.name()), (0.5, "length"));
/// let error = parse("exakt").unwrap_err().to_string();
/// assert!(error.contains("did you mean \"exact\"?"));
/// # Ok::<(), cordada_lm::Error>(())
/// ```
pub fn parse(written: &str) -> Result<(f64, Box<dyn Reward>), Error> {
    let mut arguments = Arguments { written: written.to_string(), ..Arguments::default() };
    let (head, text) = match written.split_once(':') {
        Some((head, text)) => (head, Some(text)),
        None => (written, None),
    };
    let mut parts = head.split(',').map(str::trim);
    let name = parts.next().unwrap_or_default();
    let term = find(name, written)?;
    for part in parts {
        let Some((key, value)) = part.split_once('=') else {
            return Err(arguments.wrong(&format!("{part:?} is not KEY=VALUE; {}", usage(term))));
        };
        let (key, value) = (key.trim(), value.trim());
        let known = || term.options.iter().map(|(key, _)| *key).chain(["weight"]);
        if !known().any(|k| k == key) {
            let keys: Vec<&str> = known().collect();
            let meant = did_you_mean(key, known());
            let keys = keys.join(", ");
            return Err(arguments.wrong(&format!("has no option {key:?}{meant}; it has: {keys}")));
        }
        if arguments.options.insert(key.to_string(), value.to_string()).is_some() {
            return Err(arguments.wrong(&format!("option {key:?} is set twice")));
        }
    }
    match (term.text, text) {
        (Text::None, Some(_)) => {
            let problem = format!("takes nothing after a colon; {}", usage(term));
            return Err(arguments.wrong(&problem));
        }
        (Text::Required(what), None | Some("")) => {
            return Err(arguments.wrong(&format!("needs {what} after a colon; {}", usage(term))));
        }
        (_, text) => arguments.text = text.unwrap_or_default().to_string(),
    }
    let weight = arguments.number("weight", f64::MIN)?.unwrap_or(1.0);
    Ok((weight, (term.build)(&arguments)?))
}

/// The weighted sum of several terms, each as for [`parse`].
///
/// # Errors
///
/// As [`parse`]; and if there is no term.
pub fn parse_all<S: AsRef<str>>(written: &[S]) -> Result<Weighted, Error> {
    Weighted::new(written.iter().map(|w| parse(w.as_ref())).collect::<Result<_, _>>()?)
}

fn find(name: &str, written: &str) -> Result<&'static Term, Error> {
    TERMS.iter().find(|term| term.name == name).ok_or_else(|| {
        let names: Vec<&str> = TERMS.iter().map(|term| term.name).collect();
        let meant = did_you_mean(name, names.iter().copied());
        let names = names.join(", ");
        Error::Setting(format!("reward {written:?}: there is no {name:?}{meant}; known: {names}"))
    })
}

fn usage(term: &Term) -> String {
    format!("write for example {:?}", term.example)
}

/// A hint at the candidate that is most like the word.
pub(crate) fn did_you_mean<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> String {
    candidates
        .map(|c| (strsim::normalized_damerau_levenshtein(word, c), c))
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .filter(|(similarity, _)| *similarity >= 0.5)
        .map(|(_, c)| format!(", did you mean {c:?}?"))
        .unwrap_or_default()
}
