//! Answer from the facts in the prompt, or say that one does not know.
//!
//! ```text
//! the key is in the box . the hat is red . the map is in the car . Q : where is the key ? A :
//! ```
//!
//! wants `the key is in the box .`; asked where the hat is, or anything about a cup, the right answer is
//! `i do not know .`. Objects, places and colors are paired anew in each prompt, so nothing can be
//! known by heart: an answer that the facts do not support is made up.
//!
//! Half of the questions cannot be answered. In the examples to learn from, 70 % of those get a
//! made-up answer, as texts written by people who knew more than the prompt says would teach it; a
//! model that imitates them makes up about a third of all its answers. The reward mends that.

use std::collections::BTreeSet;

use cordada_env::Stream;
use serde_json::Value;

use super::{Metric, TEST_PROMPTS, Task, apart_from, distinct, share, test_stream};
use crate::Error;
use crate::data::Example;
use crate::reward::{Response, Reward};
use crate::tokenizer::{Tokenizer, Unit};

const OBJECTS: [&str; 16] = [
    "key", "hat", "cup", "ball", "coin", "ring", "book", "lamp", "shoe", "rope", "map", "bell",
    "drum", "kite", "vase", "fork",
];
const PLACES: [&str; 12] =
    ["box", "bag", "desk", "shed", "car", "sink", "tent", "barn", "hall", "cave", "park", "boat"];
const COLORS: [&str; 8] = ["red", "blue", "green", "black", "white", "pink", "brown", "gray"];
/// All other words.
const WORDS: [&str; 15] = [
    "the", "is", "in", ".", "Q", "A", ":", "?", "where", "what", "color", "i", "do", "not", "know",
];
/// Tokens of the vocabulary.
const VOCABULARY: usize = 64;
/// Least and most facts in a prompt.
const FACTS: (usize, usize) = (3, 5);
/// Share of the questions that the facts do not answer.
const UNANSWERABLE: f64 = 0.5;
/// Share of those that get a made-up answer in the examples to learn from.
const MADE_UP: f64 = 0.7;
/// What is said if the facts do not answer.
const IGNORANCE: &str = "i do not know .";

/// The task.
#[derive(Clone, Copy, Debug)]
pub struct Grounded;

/// What is known of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Attribute {
    Place,
    Color,
}

impl Attribute {
    fn draw(stream: &mut Stream) -> Self {
        if stream.below(2) == 0 { Self::Place } else { Self::Color }
    }

    fn other(self) -> Self {
        if self == Self::Place { Self::Color } else { Self::Place }
    }

    fn values(self) -> &'static [&'static str] {
        if self == Self::Place { &PLACES } else { &COLORS }
    }

    fn fact(self, object: &str, value: &str) -> String {
        match self {
            Self::Place => format!("the {object} is in the {value} ."),
            Self::Color => format!("the {object} is {value} ."),
        }
    }

    fn question(self, object: &str) -> String {
        match self {
            Self::Place => format!("Q : where is the {object} ? A :"),
            Self::Color => format!("Q : what color is the {object} ? A :"),
        }
    }
}

/// A prompt before it is words.
#[derive(Debug)]
struct Scene {
    /// Attribute, object, value.
    facts: Vec<(Attribute, usize, &'static str)>,
    /// Attribute and object that are asked for.
    asked: (Attribute, usize),
}

impl Scene {
    fn draw(stream: &mut Stream) -> Self {
        let n = FACTS.0 + stream.below(FACTS.1 - FACTS.0 + 1);
        let mut facts: Vec<(Attribute, usize, &'static str)> = Vec::new();
        while facts.len() < n {
            let (attribute, object) = (Attribute::draw(stream), stream.below(OBJECTS.len()));
            let values = attribute.values();
            let value = values[stream.below(values.len())];
            if !facts.iter().any(|f| (f.0, f.1) == (attribute, object)) {
                facts.push((attribute, object, value));
            }
        }
        let known: BTreeSet<_> = facts.iter().map(|f| (f.0, f.1)).collect();
        let asked = if stream.uniform() >= UNANSWERABLE {
            let (attribute, object, _) = facts[stream.below(n)];
            (attribute, object)
        } else {
            loop {
                // Every second time something else is known of the object.
                let asked = if stream.below(2) == 0 {
                    let (attribute, object, _) = facts[stream.below(n)];
                    (attribute.other(), object)
                } else {
                    (Attribute::draw(stream), stream.below(OBJECTS.len()))
                };
                if !known.contains(&asked) {
                    break asked;
                }
            }
        };
        Self { facts, asked }
    }

    fn answer(&self) -> Option<String> {
        let fact = self.facts.iter().find(|f| (f.0, f.1) == self.asked);
        fact.map(|&(attribute, object, value)| attribute.fact(OBJECTS[object], value))
    }

    /// An answer without support: every second time with a value from another fact, if there is
    /// one of its kind.
    fn made_up(&self, stream: &mut Stream) -> String {
        let (attribute, object) = self.asked;
        let near: Vec<&str> = self.facts.iter().filter(|f| f.0 == attribute).map(|f| f.2).collect();
        let values =
            if near.is_empty() || stream.below(2) == 0 { attribute.values() } else { &near };
        attribute.fact(OBJECTS[object], values[stream.below(values.len())])
    }

    /// The prompt, with the right answer as a field: `null` if the facts do not answer.
    fn example(&self) -> Example {
        let mut prompt = String::new();
        for &(attribute, object, value) in &self.facts {
            prompt += &attribute.fact(OBJECTS[object], value);
            prompt.push(' ');
        }
        let (attribute, object) = self.asked;
        prompt += &attribute.question(OBJECTS[object]);
        Example::new(prompt).with_field("answer", self.answer())
    }
}

/// What an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// What the facts say.
    Right,
    /// That one does not know.
    Refused,
    /// Anything else: the facts do not support it.
    Unsupported,
}

impl Verdict {
    /// Judges an answer to an example of this task; the final full stop and white space do not
    /// count.
    pub fn of(example: &Example, text: &str) -> Self {
        let words = |text: &str| -> Vec<String> {
            let mut words: Vec<String> = text.split_whitespace().map(str::to_string).collect();
            if words.last().is_some_and(|w| w == ".") {
                words.pop();
            }
            words
        };
        let said = words(text);
        let right = example.fields.get("answer").and_then(Value::as_str);
        if said == words(IGNORANCE) {
            Self::Refused
        } else if right.is_some_and(|right| words(right) == said) {
            Self::Right
        } else {
            Self::Unsupported
        }
    }
}

/// Whether the facts answer the question.
fn answerable(example: &Example) -> bool {
    example.fields.get("answer").is_some_and(Value::is_string)
}

/// The reward: 1 for the right answer, 0.5 for admitting ignorance where the facts do not answer,
/// −0.5 for it where they do, −1 for anything that they do not support.
///
/// So a model that is right with probability p gains 2p − 1 by an answer and −0.5 by refusing:
/// refusing pays only where it would be right less than every fourth time.
#[derive(Clone, Copy, Debug)]
pub struct GroundedReward;

impl Reward for GroundedReward {
    fn name(&self) -> &'static str {
        "grounded"
    }

    fn score(&mut self, responses: &[Response<'_>]) -> Result<Vec<f64>, Error> {
        let score = |r: &Response<'_>| match Verdict::of(r.example, r.text) {
            Verdict::Right => 1.0,
            Verdict::Refused if answerable(r.example) => -0.5,
            Verdict::Refused => 0.5,
            Verdict::Unsupported => -1.0,
        };
        Ok(responses.iter().map(score).collect())
    }
}

impl Task for Grounded {
    fn name(&self) -> &'static str {
        "grounded"
    }

    fn about(&self) -> &'static str {
        "answer from the facts in the prompt, or say that one does not know"
    }

    fn tokenizer(&self) -> Result<Tokenizer, Error> {
        let words: Vec<&str> = [&WORDS[..], &OBJECTS, &PLACES, &COLORS].concat();
        Tokenizer::from_vocabulary(&words, Unit::Word, VOCABULARY)
    }

    fn max_new_tokens(&self) -> usize {
        10
    }

    fn sft(&self, n: usize, stream: &mut Stream) -> Vec<Example> {
        apart_from(&self.test(), n, || {
            let scene = Scene::draw(stream);
            let answer = scene.answer().unwrap_or_else(|| {
                let made_up = stream.uniform() < MADE_UP;
                if made_up { scene.made_up(stream) } else { IGNORANCE.to_string() }
            });
            scene.example().with_completion(format!(" {answer}"))
        })
    }

    fn prompts(&self, n: usize, stream: &mut Stream) -> Vec<Example> {
        apart_from(&self.test(), n, || Scene::draw(stream).example())
    }

    fn test(&self) -> Vec<Example> {
        let mut stream = test_stream();
        distinct(TEST_PROMPTS, || Scene::draw(&mut stream).example())
    }

    fn reward(&self) -> Box<dyn Reward> {
        Box::new(GroundedReward)
    }

    /// Shares: `unsupported` of all answers, `unsupported_unanswerable` of those to questions that
    /// the facts do not answer; of the others, `right_answerable` and `refused_answerable`; and
    /// `refused_unanswerable`.
    fn evaluate(&self, answers: &[(&Example, &str)]) -> Vec<Metric> {
        let count = |verdict: Verdict, can: bool| {
            let same = |&&(e, text): &&(&Example, &str)| {
                answerable(e) == can && Verdict::of(e, text) == verdict
            };
            answers.iter().filter(same).count()
        };
        let can = answers.iter().filter(|(e, _)| answerable(e)).count();
        let cannot = answers.len() - can;
        let unsupported = count(Verdict::Unsupported, false);
        let all = unsupported + count(Verdict::Unsupported, true);
        vec![
            ("unsupported", share(all, answers.len())),
            ("unsupported_unanswerable", share(unsupported, cannot)),
            ("right_answerable", share(count(Verdict::Right, true), can)),
            ("refused_answerable", share(count(Verdict::Refused, true), can)),
            ("refused_unanswerable", share(count(Verdict::Refused, false), cannot)),
        ]
    }
}
