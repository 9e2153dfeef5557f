//! Answers of a model as texts, and how good they are: samples with their log-probability,
//! perplexity of given answers, and the mean score of sampled ones with its interval.

use serde::{Serialize, Serializer};

use crate::data::Example;
use crate::reward::{Response, Reward};
use crate::tokenizer::{Special, Tokenizer};
use crate::train::Prompt;
use crate::{Error, Finish, Group, LanguageModel, Request, Sampling};

/// Half-width of a 95 % interval in standard errors of a normal distribution.
const NORMAL_95: f64 = 1.959_963_984_540_054;

/// A sampled answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Answer {
    /// Its text, up to the token or string that ended it.
    pub text: String,
    /// Its tokens, a final stop token included.
    pub tokens: usize,
    /// Why it ended.
    pub finish: Finish,
    /// ln π of all its tokens together.
    pub log_prob: f64,
}

impl Serialize for Finish {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.name())
    }
}

impl Finish {
    /// Its name: `stop_token`, `stop_string`, `length` or `context`.
    pub fn name(self) -> &'static str {
        match self {
            Self::StopToken => "stop_token",
            Self::StopString => "stop_string",
            Self::Length => "length",
            Self::Context => "context",
        }
    }

    /// Whether the answer was cut before the model ended it.
    pub fn is_cut(self) -> bool {
        matches!(self, Self::Length | Self::Context)
    }
}

/// How a model is asked.
#[derive(Clone, Copy, Debug)]
pub struct Asking<'a> {
    /// The model's.
    pub tokenizer: &'a Tokenizer,
    /// How tokens are drawn.
    pub sampling: &'a Sampling,
    /// Texts that end an answer and are not part of it.
    pub stop: &'a [String],
    /// Answers to each prompt.
    pub samples: usize,
    /// Of the random streams.
    pub seed: u64,
}

impl Asking<'_> {
    /// Samples the answers to some prompts; `first` is the number of the first of them, so that
    /// answers do not depend on how many are asked at once.
    ///
    /// # Errors
    ///
    /// As [`LanguageModel::generate`].
    pub fn ask(
        &self,
        model: &mut dyn LanguageModel,
        prompts: &[Prompt],
        first: usize,
    ) -> Result<Vec<Vec<Answer>>, Error> {
        let request = |(i, p): (usize, &Prompt)| Request {
            prompt: p.tokens.clone(),
            samples: self.samples,
            stream: ((first + i) * self.samples) as u32,
        };
        let requests: Vec<Request> = prompts.iter().enumerate().map(request).collect();
        let ends = |tokens: &[u32]| {
            let text = self.tokenizer.decode(tokens, Special::Skip).unwrap_or_default();
            self.stop.iter().any(|s| text.contains(s))
        };
        let stop: Option<&crate::StopCheck<'_>> =
            if self.stop.is_empty() { None } else { Some(&ends) };
        let completions = model.generate(&requests, self.sampling, self.seed, stop)?;
        let answer = |c: crate::Completion<f32>| {
            let end = c.tokens.len() - usize::from(c.finish == Finish::StopToken);
            let mut text = self.tokenizer.decode(&c.tokens[..end], Special::Skip)?;
            if let Some(at) = self.stop.iter().filter_map(|s| text.find(s)).min() {
                text.truncate(at);
            }
            let log_prob = c.log_prob.iter().map(|&l| f64::from(l)).sum();
            Ok(Answer { text, tokens: c.tokens.len(), finish: c.finish, log_prob })
        };
        completions.into_iter().map(|all| all.into_iter().map(answer).collect()).collect()
    }
}

/// How well a model predicts given answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Perplexity {
    /// Tokens that were scored.
    pub tokens: usize,
    /// Sum of −ln π over them, in nats.
    pub nats: f64,
}

impl Perplexity {
    /// Adds some answers.
    pub fn add(&mut self, model: &mut dyn LanguageModel, groups: &[Group]) {
        let scores = model.log_prob(groups, 1.0);
        self.tokens += scores.log_prob.len();
        self.nats -= scores.log_prob.iter().map(|&l| f64::from(l)).sum::<f64>();
    }

    /// exp of the mean of −ln π; NaN of nothing.
    pub fn value(self) -> f64 {
        (self.nats / self.tokens as f64).exp()
    }
}

/// A mean with the half-width of its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// The mean.
    pub mean: f64,
    /// Half of the interval's width; 0 for fewer than two numbers.
    pub half_width: f64,
}

impl Estimate {
    /// Of independent numbers, by the normal approximation; NaN of none.
    pub fn of(numbers: &[f64]) -> Self {
        let n = numbers.len() as f64;
        let mean = numbers.iter().sum::<f64>() / n;
        let squares: f64 = numbers.iter().map(|x| (x - mean).powi(2)).sum();
        let half_width =
            if numbers.len() < 2 { 0.0 } else { NORMAL_95 * (squares / (n - 1.0) / n).sqrt() };
        Self { mean, half_width }
    }
}

/// Scores of all answers, prompt by prompt; NaN where one could not be scored.
///
/// # Errors
///
/// As [`Reward::score`].
pub fn score(
    reward: &mut dyn Reward,
    prompts: &[Prompt],
    answers: &[Vec<Answer>],
) -> Result<Vec<Vec<f64>>, Error> {
    let pairs = prompts.iter().zip(answers);
    let responses: Vec<Response<'_>> = pairs
        .flat_map(|(p, all)| {
            all.iter().map(move |a| Response {
                example: &p.example,
                prompt: &p.text,
                text: &a.text,
                tokens: a.tokens,
                finish: a.finish,
            })
        })
        .collect();
    let mut scores = reward.score(&responses)?.into_iter();
    Ok(answers.iter().map(|all| scores.by_ref().take(all.len()).collect()).collect())
}

/// The mean score with its interval: answers to one prompt are not independent, so the interval
/// is that of the prompts' means.
pub fn mean_score(scores: &[Vec<f64>]) -> Estimate {
    let means: Vec<f64> = scores
        .iter()
        .filter_map(|all| {
            let scored: Vec<f64> = all.iter().copied().filter(|s| !s.is_nan()).collect();
            (!scored.is_empty()).then(|| scored.iter().sum::<f64>() / scored.len() as f64)
        })
        .collect();
    Estimate::of(&means)
}

/// Whether an example has an answer to learn.
pub fn has_answer(example: &Example) -> bool {
    example.completion.is_some()
        || match &example.prompt {
            crate::data::Prompt::Text(_) => false,
            crate::data::Prompt::Messages(messages) => {
                messages.last().is_some_and(|m| m.role() == "assistant")
            }
        }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Model;
    use crate::init::init;
    use crate::shape::Shape;
    use crate::tokenizer::Unit;
    use crate::{Architecture, Threads, Transformer};

    #[test]
    fn intervals_by_hand() {
        // Means 0, ½ and 1: mean ½, variance ¼, error √(¼ / 3).
        let scores = [vec![0.0, 0.0], vec![1.0, 0.0], vec![1.0, f64::NAN], vec![f64::NAN]];
        let e = mean_score(&scores);
        assert_eq!(e.mean, 0.5);
        assert!((e.half_width - 1.96 * (0.25_f64 / 3.0).sqrt()).abs() < 1e-4);
        assert_eq!(Estimate::of(&[3.0]), Estimate { mean: 3.0, half_width: 0.0 });
    }

    fn model() -> (Model<f32>, Tokenizer) {
        let tokenizer = Tokenizer::from_vocabulary(&["a", "b"], Unit::Character, 5).unwrap();
        let shape = Shape {
            hidden_size: 8,
            num_layers: 1,
            num_heads: 2,
            num_kv_heads: 1,
            intermediate_size: 8,
            vocab_size: 5,
            max_positions: 32,
            tied: true,
        };
        let config = shape.config(Architecture::Qwen3).unwrap();
        let theta = init(&config, 1);
        (Model::new(Transformer::new(&config), theta, Threads::new(1).unwrap()), tokenizer)
    }

    #[test]
    fn an_untrained_model_is_as_good_as_chance() {
        let (mut model, _) = model();
        let mut p = Perplexity::default();
        assert!(p.value().is_nan());
        p.add(&mut model, &[Group::new(vec![3], vec![vec![4, 3, 4, 1]])]);
        p.add(&mut model, &[Group::new(vec![4], vec![vec![4, 1]])]);
        assert_eq!(p.tokens, 6);
        // With five tokens of nearly equal probability.
        assert!((p.value() - 5.0).abs() < 0.3, "{}", p.value());
    }

    #[test]
    fn answers_end_before_a_stop_string_and_do_not_depend_on_the_batch() {
        let (mut model, tokenizer) = model();
        let sampling = Sampling { max_new_tokens: 12, ..Sampling::default() };
        let stop = ["ab".to_string()];
        let ask =
            Asking { tokenizer: &tokenizer, sampling: &sampling, stop: &stop, samples: 8, seed: 4 };
        let prompt = |text: &str| Prompt {
            example: Example::new(text),
            text: text.into(),
            tokens: tokenizer.encode(text, Special::Keep).unwrap(),
        };
        let prompts = [prompt("a"), prompt("bb")];
        let all = ask.ask(&mut model, &prompts, 0).unwrap();
        assert_eq!(ask.ask(&mut model, &prompts[1..], 1).unwrap(), all[1..]);
        let flat: Vec<&Answer> = all.iter().flatten().collect();
        let stopped = flat.iter().filter(|a| a.finish == Finish::StopString).count();
        assert!(stopped > 0 && stopped < flat.len(), "{flat:?}");
        assert!(flat.iter().all(|a| !a.text.contains("ab") && a.log_prob < 0.0));
        // Without it they go on as they began.
        let free = Asking { stop: &[], ..ask }.ask(&mut model, &prompts, 0).unwrap();
        for (stopped, free) in flat.iter().zip(free.iter().flatten()) {
            let end = if stopped.finish == Finish::StopString { "ab" } else { "" };
            let began = format!("{}{end}", stopped.text);
            assert!(free.text.starts_with(&began), "{began:?} and {:?}", free.text);
        }
        assert!(flat.iter().all(|a| a.finish.is_cut() == (a.finish.name() == "length")));
    }
}
