//! Generated tasks: nothing is downloaded, everything follows from a random stream. Each gives a
//! tokenizer, examples to learn from, prompts, a reward and figures of merit; training is done by
//! whoever uses them.

mod grounded;
mod sort;

use std::collections::BTreeSet;
use std::fmt;

use cordada_env::{Stream, role};

pub use grounded::{Grounded, GroundedReward, Verdict};
pub use sort::Sort;

use crate::Error;
use crate::data::{Example, Prompt};
use crate::reward::{Reward, did_you_mean};
use crate::tokenizer::Tokenizer;

/// Seed of the test prompts, the same for all runs.
const TEST_SEED: u64 = 20_261_120;
/// Number of test prompts.
const TEST_PROMPTS: usize = 256;

/// A figure of merit: its name and its value.
pub type Metric = (&'static str, f64);

/// A generated task.
pub trait Task: fmt::Debug + Send + Sync {
    /// Its name.
    fn name(&self) -> &'static str;

    /// What it is, in a sentence.
    fn about(&self) -> &'static str;

    /// Its tokenizer; `<eos>` ends an answer.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] if it cannot be made.
    fn tokenizer(&self) -> Result<Tokenizer, Error>;

    /// Longest answer to one of [`prompts`](Self::prompts) in tokens, the end token included, with
    /// some room.
    fn max_new_tokens(&self) -> usize;

    /// Examples to learn from, of which a part is wrong on purpose: what follows has something to
    /// mend. None of them is a test prompt.
    fn sft(&self, n: usize, stream: &mut Stream) -> Vec<Example>;

    /// Prompts without answers to learn; none of them is a test prompt.
    fn prompts(&self, n: usize, stream: &mut Stream) -> Vec<Example>;

    /// The 256 test prompts, the same always.
    fn test(&self) -> Vec<Example>;

    /// What an answer is worth.
    fn reward(&self) -> Box<dyn Reward>;

    /// Figures of merit of answers to examples.
    fn evaluate(&self, answers: &[(&Example, &str)]) -> Vec<Metric>;
}

/// All tasks.
pub const TASKS: &[&dyn Task] = &[&Sort, &Grounded];

/// The task of a name.
///
/// # Errors
///
/// [`Error::Setting`] with the nearest name there is.
pub fn find(name: &str) -> Result<&'static dyn Task, Error> {
    TASKS.iter().copied().find(|task| task.name() == name).ok_or_else(|| {
        let names: Vec<&str> = TASKS.iter().map(|task| task.name()).collect();
        let meant = did_you_mean(name, names.iter().copied());
        let names = names.join(", ");
        Error::Setting(format!("there is no task {name:?}{meant}; known: {names}"))
    })
}

/// The stream of the test prompts.
fn test_stream() -> Stream {
    Stream::new(TEST_SEED, role::EVAL_ENV, 0)
}

/// Distinct examples.
fn distinct(n: usize, mut draw: impl FnMut() -> Example) -> Vec<Example> {
    let mut seen = BTreeSet::new();
    let mut examples = Vec::new();
    while examples.len() < n {
        let example = draw();
        if seen.insert(prompt_text(&example).to_string()) {
            examples.push(example);
        }
    }
    examples
}

/// Examples, none of which is one of the test's.
fn apart_from(test: &[Example], n: usize, mut draw: impl FnMut() -> Example) -> Vec<Example> {
    let held: BTreeSet<&str> = test.iter().map(prompt_text).collect();
    let mut examples = Vec::with_capacity(n);
    while examples.len() < n {
        let example = draw();
        if !held.contains(prompt_text(&example)) {
            examples.push(example);
        }
    }
    examples
}

/// The text of a generated prompt.
fn prompt_text(example: &Example) -> &str {
    match &example.prompt {
        Prompt::Text(text) => text,
        Prompt::Messages(_) => "",
    }
}

/// A share; of nothing, NaN.
fn share(part: usize, all: usize) -> f64 {
    part as f64 / all as f64
}

#[cfg(test)]
mod tests;
