//! Answer from the facts in the prompt, or say that one does not know.
//!
//! ```text
//! the cup is in the shed . eve owns the cup . the cup is red . Q : where is the cup ? A :
//! ```
//!
//! wants `the cup is in the shed .`; asked what the cup is made of, the right answer is
//! `i do not know .`. What is told of a thing is drawn anew for each prompt, so nothing can be known
//! by heart: an answer that the facts do not support is made up.
//!
//! Half of the questions cannot be answered. In the examples to learn from, 80 % of those get a
//! made-up answer, as texts written by people who knew more than the prompt says would teach it; a
//! model that imitates them makes up about 40 % of all its answers. The reward mends that.
//!
//! Looking a fact up is what a small model is slow to learn: an answer has one word that tells it
//! whether it looked at the right place. Half of the examples therefore ask for everything
//! (`what do i know of the cup ?`) and are answered by all facts in another order, which has several
//! such words; with as many steps and none of those, a model of a million parameters was right on
//! 80 % of the questions that can be answered instead of 99 %.

use std::collections::BTreeSet;

use cordada_env::Stream;
use serde_json::Value;

use super::{Metric, TEST_PROMPTS, Task, apart_from, distinct, share, test_stream};
use crate::Error;
use crate::data::Example;
use crate::reward::{Response, Reward};
use crate::tokenizer::{Tokenizer, Unit};

/// Things that are told and asked of.
const THINGS: [&str; 6] = ["cup", "bowl", "ring", "lamp", "mask", "key"];

/// Something that can be known of a thing.
#[derive(Debug)]
struct Attribute {
    /// A sentence that says it; `T` is the thing, `V` the value.
    fact: &'static str,
    question: &'static str,
    values: [&'static str; 5],
}

const ATTRIBUTES: [Attribute; 6] = [
    Attribute {
        fact: "the T is V .",
        question: "what color is the T ?",
        values: ["red", "blue", "green", "black", "white"],
    },
    Attribute {
        fact: "the T is in the V .",
        question: "where is the T ?",
        values: ["box", "shed", "car", "cave", "boat"],
    },
    Attribute {
        fact: "the T is made of V .",
        question: "what is the T made of ?",
        values: ["wood", "iron", "glass", "clay", "bone"],
    },
    Attribute {
        fact: "V owns the T .",
        question: "who owns the T ?",
        values: ["ann", "bob", "eve", "tom", "kim"],
    },
    Attribute {
        fact: "the T is from V .",
        question: "where is the T from ?",
        values: ["rome", "york", "cairo", "lima", "oslo"],
    },
    Attribute {
        fact: "the T costs V coins .",
        question: "how much is the T ?",
        values: ["two", "three", "five", "six", "nine"],
    },
];

/// Tokens of the vocabulary.
const VOCABULARY: usize = 64;
/// Least and most facts in a prompt.
const FACTS: (usize, usize) = (2, 4);
/// Share of the questions that the facts do not answer.
const UNANSWERABLE: f64 = 0.5;
/// Share of those that get a made-up answer in the examples to learn from.
const MADE_UP: f64 = 0.8;
/// Share of the examples to learn from that ask for everything.
const RECITED: f64 = 0.5;
const RECITAL: &str = "what do i know of the T ?";
/// What is said if the facts do not answer.
const IGNORANCE: &str = "i do not know .";

/// The task.
#[derive(Clone, Copy, Debug)]
pub struct Grounded;

/// A prompt before it is words.
#[derive(Debug)]
struct Scene {
    thing: &'static str,
    /// Attributes with their values.
    facts: Vec<(&'static Attribute, &'static str)>,
    asked: &'static Attribute,
    /// What the facts say of that.
    known: Option<&'static str>,
}

impl Scene {
    fn draw(stream: &mut Stream) -> Self {
        let thing = THINGS[stream.below(THINGS.len())];
        let mut order: Vec<usize> = (0..ATTRIBUTES.len()).collect();
        stream.shuffle(&mut order);
        let n = FACTS.0 + stream.below(FACTS.1 - FACTS.0 + 1);
        let (told, untold) = order.split_at(n);
        let mut value = |i: &usize| {
            let attribute = &ATTRIBUTES[*i];
            (attribute, attribute.values[stream.below(attribute.values.len())])
        };
        let facts: Vec<_> = told.iter().map(&mut value).collect();
        let (asked, known) = if stream.uniform() < UNANSWERABLE {
            (&ATTRIBUTES[untold[stream.below(untold.len())]], None)
        } else {
            let (attribute, value) = facts[stream.below(n)];
            (attribute, Some(value))
        };
        Self { thing, facts, asked, known }
    }

    fn say(&self, pattern: &str, value: &str) -> String {
        let word = |word| match word {
            "T" => self.thing,
            "V" => value,
            word => word,
        };
        pattern.split(' ').map(word).collect::<Vec<_>>().join(" ")
    }

    fn facts(&self) -> Vec<String> {
        self.facts.iter().map(|(attribute, value)| self.say(attribute.fact, value)).collect()
    }

    fn answer(&self) -> Option<String> {
        self.known.map(|value| self.say(self.asked.fact, value))
    }

    /// A question for everything, answered by all facts in another order.
    fn recital(&self, stream: &mut Stream) -> Example {
        let mut facts = self.facts();
        let prompt = format!("{} Q : {} A :", facts.join(" "), self.say(RECITAL, ""));
        stream.shuffle(&mut facts);
        let facts = facts.join(" ");
        Example::new(prompt).with_field("answer", &*facts).with_completion(format!(" {facts}"))
    }

    /// An answer without support.
    fn made_up(&self, stream: &mut Stream) -> String {
        let values = self.asked.values;
        self.say(self.asked.fact, values[stream.below(values.len())])
    }

    /// The prompt, with the right answer as a field: `null` if the facts do not answer.
    fn example(&self) -> Example {
        let (facts, question) = (self.facts().join(" "), self.say(self.asked.question, ""));
        Example::new(format!("{facts} Q : {question} A :")).with_field("answer", self.answer())
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
        let texts = ATTRIBUTES.iter().flat_map(|a| [a.fact, a.question]);
        let mut words: Vec<&str> =
            texts.chain([RECITAL, IGNORANCE, "Q : A :"]).flat_map(|t| t.split(' ')).collect();
        words.retain(|word| !["T", "V"].contains(word));
        words.extend(ATTRIBUTES.iter().flat_map(|a| a.values).chain(THINGS));
        // Each word once, in the order of its first use.
        let mut seen = BTreeSet::new();
        words.retain(|word| seen.insert(*word));
        Tokenizer::from_vocabulary(&words, Unit::Word, VOCABULARY)
    }

    fn max_new_tokens(&self) -> usize {
        10
    }

    fn sft(&self, n: usize, stream: &mut Stream) -> Vec<Example> {
        apart_from(&self.test(), n, || {
            let scene = Scene::draw(stream);
            if stream.uniform() < RECITED {
                return scene.recital(stream);
            }
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
