//! Scores from a program: it reads samples as JSON lines and answers with scores.
//!
//! The program is started once and gets one line for each sample:
//!
//! ```text
//! {"id":17,"prompt":"…","response":"…","fields":{"answer":"…"}}
//! ```
//!
//! and answers each with a line, in any order (it must flush its output; what it has to say to
//! people belongs to its standard error):
//!
//! ```text
//! {"id":17,"score":0.5}
//! ```
//!
//! No sample takes others with it. If the program ends, is silent past the time limit, or writes a
//! line that is no answer, the sample that has waited longest is left without a score (NaN), the
//! program is started again and gets the others once more. An answer whose score is no finite
//! number, or two different answers, leave their own sample without one.

mod child;

use std::fmt;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use regex::Regex;
use serde_json::{Value, json};

use super::spec::{Arguments, Text};
use super::{Failure, Response, Reward, Term};
use crate::Error;
use crate::data::label;
use child::{Child, Output};

pub(super) const COMMAND: Term = Term {
    name: "command",
    about: "what a program answers, one JSON line in and one out for each response",
    text: Text::Required("a program with its arguments"),
    options: &[
        ("timeout", "seconds for all answers to a batch (60)"),
        ("restarts", "restarts after failures before giving up (3)"),
    ],
    example: "command,timeout=30:python3 score.py",
    build: |a| Ok(Box::new(Command::from_arguments(a)?)),
};

/// Limits of a [`Command`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommandOptions {
    /// Time for all answers to a batch; it begins anew after a restart.
    pub timeout: Duration,
    /// How often the program is started again before it is given up; a batch without any failure
    /// of the program sets the count back.
    pub max_restarts: usize,
}

impl Default for CommandOptions {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(60), max_restarts: 3 }
    }
}

/// Scores from a program, see the module's text. It is ended when this is dropped.
pub struct Command {
    program: Vec<String>,
    options: CommandOptions,
    child: Option<Child>,
    next_id: u64,
    restarts: usize,
    failures: Vec<Failure>,
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { program, options, next_id, restarts, .. } = self;
        let mut f = f.debug_struct("Command");
        f.field("program", program).field("options", options);
        f.field("next_id", next_id).field("restarts", restarts).finish_non_exhaustive()
    }
}

impl Command {
    /// Starts a program: its name and its arguments, no shell.
    ///
    /// # Errors
    ///
    /// [`Error::Reward`] if it cannot be started.
    pub fn new(program: Vec<String>, options: CommandOptions) -> Result<Self, Error> {
        let mut command =
            Self { program, options, child: None, next_id: 0, restarts: 0, failures: Vec::new() };
        command.start()?;
        Ok(command)
    }

    fn from_arguments(a: &Arguments) -> Result<Self, Error> {
        let mut options = CommandOptions::default();
        if let Some(seconds) = a.number("timeout", 0.001)? {
            options.timeout = Duration::try_from_secs_f64(seconds)
                .map_err(|_| a.wrong(&format!("timeout={seconds} is too long")))?;
        }
        options.max_restarts = a.get("restarts", "count")?.unwrap_or(options.max_restarts);
        let problem = "has a quotation mark that is not closed";
        let program = split(&a.text).ok_or_else(|| a.wrong(problem))?;
        if program.is_empty() {
            return Err(a.wrong("names no program"));
        }
        Self::new(program, options)
    }

    fn start(&mut self) -> Result<&mut Child, Error> {
        let child = match self.child.take() {
            Some(child) => child,
            None => Child::start(&self.program).map_err(|e| {
                let program = self.program.first().map_or("", String::as_str);
                self.error(&format!(
                    "{program:?} cannot be started: {e}; check that it is installed and can be \
                     run from this folder"
                ))
            })?,
        };
        Ok(self.child.insert(child))
    }

    fn error(&self, problem: &str) -> Error {
        Error::Reward { name: self.name().to_string(), problem: problem.to_string() }
    }

    /// Sends what waits and reads until nothing does; an error is the program's, not a sample's.
    fn round(&mut self, batch: &mut Batch<'_>) -> Result<Result<(), String>, Error> {
        let timeout = self.options.timeout;
        let child = self.start()?;
        child.send(batch.requests());
        let deadline = Instant::now() + timeout;
        while batch.waiting().is_some() {
            let problem = match child.next(deadline) {
                Output::Line(line) => match batch.answer(&line) {
                    Ok(()) => continue,
                    Err(problem) => problem,
                },
                Output::TooLong => "the program wrote a line of more than a MiB".to_string(),
                Output::TimedOut => {
                    format!("the program gave no answer within {} s", timeout.as_secs_f64())
                }
                Output::End => child.post_mortem(),
            };
            return Ok(Err(problem + &batch.stray()));
        }
        Ok(Ok(()))
    }
}

impl Reward for Command {
    fn name(&self) -> &'static str {
        COMMAND.name
    }

    fn score(&mut self, responses: &[Response<'_>]) -> Result<Vec<f64>, Error> {
        let mut batch = Batch::new(self.next_id, responses);
        self.next_id += responses.len() as u64;
        let mut faultless = true;
        while let Some(first) = batch.waiting() {
            let Err(problem) = self.round(&mut batch)? else { break };
            faultless = false;
            self.child = None;
            let first = batch.waiting().unwrap_or(first);
            batch.fail(first, problem);
            self.restarts += 1;
            if self.restarts > self.options.max_restarts {
                let last = batch.failures.last().map(Failure::to_string).unwrap_or_default();
                return Err(self.error(&format!(
                    "given up after {} restarts; {last}; try the program by hand with one such \
                     line: {}",
                    self.options.max_restarts,
                    batch.request(first)
                )));
            }
        }
        if faultless {
            self.restarts = 0;
        }
        self.failures.append(&mut batch.failures);
        Ok(batch.scores.into_iter().map(|s| s.unwrap_or(f64::NAN)).collect())
    }

    fn take_failures(&mut self) -> Vec<Failure> {
        std::mem::take(&mut self.failures)
    }
}

/// Samples that are being scored.
struct Batch<'a> {
    responses: &'a [Response<'a>],
    /// Number of the first sample.
    first_id: u64,
    /// What was answered: NaN for a failure.
    scores: Vec<Option<f64>>,
    failures: Vec<Failure>,
    /// Answers that belong to no sample that waits.
    stray: Vec<u64>,
}

impl<'a> Batch<'a> {
    fn new(first_id: u64, responses: &'a [Response<'a>]) -> Self {
        let scores = vec![None; responses.len()];
        Self { responses, first_id, scores, failures: Vec::new(), stray: Vec::new() }
    }

    /// The first sample without an answer.
    fn waiting(&self) -> Option<usize> {
        self.scores.iter().position(Option::is_none)
    }

    /// The line for a sample.
    fn request(&self, i: usize) -> String {
        let r = &self.responses[i];
        // `json!` sorts its keys; this is the order that the text above shows.
        format!(
            r#"{{"id":{},"prompt":{},"response":{},"fields":{}}}"#,
            self.first_id + i as u64,
            json!(r.prompt),
            json!(r.text),
            json!(r.example.fields)
        )
    }

    /// The lines for all samples that wait.
    fn requests(&self) -> Vec<u8> {
        let waiting = (0..self.scores.len()).filter(|&i| self.scores[i].is_none());
        waiting.flat_map(|i| (self.request(i) + "\n").into_bytes()).collect()
    }

    fn fail(&mut self, i: usize, problem: String) {
        self.scores[i] = Some(f64::NAN);
        let id = self.first_id + i as u64;
        self.failures.push(Failure { id, prompt: label(self.responses[i].prompt), problem });
    }

    /// Takes a line; an error if it cannot be said whose answer it is.
    fn answer(&mut self, line: &[u8]) -> Result<(), String> {
        static ID: LazyLock<Regex> = LazyLock::new(|| {
            Regex::new(r#""id"\s*:\s*([0-9]+)\b"#).expect("the expression is fixed and valid")
        });
        let text = String::from_utf8_lossy(line);
        if text.trim().is_empty() {
            return Ok(());
        }
        let object: Option<Value> = serde_json::from_str(&text).ok();
        let object = object.as_ref();
        // A score such as Python's NaN makes a line that is no JSON, yet tells whose it is.
        let id = match object {
            Some(object) => object.get("id").and_then(Value::as_u64),
            None => ID.captures(&text).and_then(|c| c[1].parse().ok()),
        };
        let Some(id) = id else {
            return Err(format!(
                "the program wrote {} instead of {{\"id\": …, \"score\": …}}; messages belong to \
                 standard error",
                label(text.trim())
            ));
        };
        let i = id.checked_sub(self.first_id).map(|i| i as usize);
        let Some(i) = i.filter(|&i| i < self.scores.len()) else {
            self.stray.push(id);
            return Ok(());
        };
        let score = object.and_then(|o| o.get("score")?.as_f64()).filter(|x| x.is_finite());
        match (self.scores[i], score) {
            (None, Some(score)) => self.scores[i] = Some(score),
            (None, None) => {
                let problem = format!("the answer {} has no finite score", label(text.trim()));
                self.fail(i, problem);
            }
            (Some(before), Some(score)) if !before.is_nan() && before != score => {
                self.fail(i, format!("the program answered twice: {before} and {score}"));
            }
            _ => self.stray.push(id),
        }
        Ok(())
    }

    /// What else was odd, for a message.
    fn stray(&self) -> String {
        match &self.stray[..] {
            [] => String::new(),
            [first, ..] => format!(
                " (and it gave {} answers that nobody waited for, the first for id {first})",
                self.stray.len()
            ),
        }
    }
}

/// Splits at white space, except inside quotation marks; `None` if one is not closed. A backslash
/// stands for itself, as in paths.
fn split(text: &str) -> Option<Vec<String>> {
    let mut words: Vec<String> = Vec::new();
    let (mut inside, mut quote) = (false, None);
    for c in text.chars() {
        match quote {
            Some(q) if c == q => quote = None,
            None if c == '"' || c == '\'' => {
                quote = Some(c);
                if !inside {
                    words.push(String::new());
                    inside = true;
                }
            }
            None if c.is_whitespace() => inside = false,
            _ => {
                if !inside {
                    words.push(String::new());
                    inside = true;
                }
                words.last_mut()?.push(c);
            }
        }
    }
    quote.is_none().then_some(words)
}

#[cfg(test)]
mod tests;
