//! Sort five digits: `sort 3 1 4 1 5 :` wants ` 1 1 3 4 5`.
//!
//! In the examples to learn from, every second answer has its digits in a random order, so that a
//! model that imitates them is right, when sampled, at most about half of the time; the exact
//! match with the right answer then teaches it to be right always. The format, the vocabulary of
//! 64 characters and the shares are those of the comparison runs of other libraries.

use cordada_env::Stream;

use super::{Metric, TEST_PROMPTS, Task, apart_from, distinct, share, test_stream};
use crate::Error;
use crate::data::Example;
use crate::reward::{Exact, Reward};
use crate::tokenizer::{Tokenizer, Unit};

const DIGITS: usize = 5;
/// Share of the answers to learn that are in random order.
const CORRUPTED: f64 = 0.5;
/// Tokens of the vocabulary.
const VOCABULARY: usize = 64;
const CHARACTERS: &str = "0123456789abcdefghijklmnopqrstuvwxyz :;.,?!+-=*/()<>[]_#";

/// The task.
#[derive(Clone, Copy, Debug)]
pub struct Sort;

fn digits(stream: &mut Stream) -> [u8; DIGITS] {
    std::array::from_fn(|_| stream.below(10) as u8)
}

fn spaced(digits: &[u8]) -> String {
    digits.iter().flat_map(|d| [' ', char::from(b'0' + d)]).collect()
}

/// A prompt with the right answer as a field.
fn asked(digits: [u8; DIGITS]) -> Example {
    let mut sorted = digits;
    sorted.sort_unstable();
    Example::new(format!("sort{} :", spaced(&digits))).with_field("answer", spaced(&sorted))
}

/// The exact match, white space included.
fn exact() -> Exact {
    Exact { field: "answer".to_string(), trim: false, ignore_case: false }
}

impl Task for Sort {
    fn name(&self) -> &'static str {
        "sort"
    }

    fn about(&self) -> &'static str {
        "sort five digits; half of the answers to learn from are in random order"
    }

    fn tokenizer(&self) -> Result<Tokenizer, Error> {
        let characters: Vec<&str> =
            CHARACTERS.split("").filter(|character| !character.is_empty()).collect();
        Tokenizer::from_vocabulary(&characters, Unit::Character, VOCABULARY)
    }

    fn max_new_tokens(&self) -> usize {
        16
    }

    fn sft(&self, n: usize, stream: &mut Stream) -> Vec<Example> {
        apart_from(&self.test(), n, || {
            let digits = digits(stream);
            let mut learned = digits;
            learned.sort_unstable();
            if stream.uniform() < CORRUPTED {
                stream.shuffle(&mut learned);
            }
            asked(digits).with_completion(spaced(&learned))
        })
    }

    fn prompts(&self, n: usize, stream: &mut Stream) -> Vec<Example> {
        apart_from(&self.test(), n, || asked(digits(stream)))
    }

    fn test(&self) -> Vec<Example> {
        let mut stream = test_stream();
        distinct(TEST_PROMPTS, || asked(digits(&mut stream)))
    }

    fn reward(&self) -> Box<dyn Reward> {
        Box::new(exact())
    }

    /// `accuracy`: share of answers that are exactly right.
    fn evaluate(&self, answers: &[(&Example, &str)]) -> Vec<Metric> {
        let right = |(example, text): &&(&Example, &str)| {
            example.fields.get("answer").and_then(|a| a.as_str()) == Some(text)
        };
        vec![("accuracy", share(answers.iter().filter(right).count(), answers.len()))]
    }
}
