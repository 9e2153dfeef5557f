//! A reward model learns what people prefer: a transformer with a scalar head on the last token's
//! state, trained until its scores order responses as they were ranked.

use cordada_env::{Persist, StateReader, StateWriter, Stream, role};
use cordada_nn::Schedule;
use cordada_rl::config::{Checks, Config, Field, schedule};
use cordada_rl::objective::{bradley_terry, plackett_luce};

use super::metrics::{Mean, Spread};
use super::stage::{Broken, Stage, StageReport};
use crate::data::{Batches, Order, Ranked};
use crate::tokenizer::{Special, Tokenizer};
use crate::{Error, Group, LanguageModel, StepSettings, ValueHead};

cordada_rl::config! {
    /// How a reward model is trained.
    pub struct RewardSettings {
        /// Loss of a ranking: `plackett_luce` (the whole order, ties by Efron) or `pairs`
        /// (Bradley-Terry on all pairs that are not tied, which weigh as one ranking together).
        loss: String = "plackett_luce".into(), alias ["loss_type"];
        /// Coefficient that holds scores near 0, of `pairs`.
        center_coef: f64 = 0.01, alias ["center_rewards_coefficient"];
        /// Rankings of one step.
        batch_size: usize = 32, alias ["per_device_train_batch_size"];
        /// Learning rate over the run.
        #[serde(with = "schedule")]
        learning_rate: Schedule = Schedule::Linear { from: 1e-4, to: 0.0 }, alias ["lr"];
        /// Learning rate of the head over that of the model.
        head_learning_rate_factor: f64 = 1.0;
        /// Weight decay of AdamW.
        weight_decay: f64 = 0.0;
        /// Largest norm of a gradient; larger ones are scaled down.
        max_grad_norm: f64 = 1.0;
    }
}

impl Config for RewardSettings {
    const FIELDS: &'static [Field] = RewardSettings::FIELDS;

    fn check(&self, section: &str) -> Result<(), cordada_rl::Error> {
        let c = Checks { section };
        c.name("loss", &self.loss, &["plackett_luce", "pairs"])?;
        c.counts(&[("batch_size", self.batch_size)])?;
        c.positive(&[("max_grad_norm", self.max_grad_norm)])?;
        c.weights(&[
            ("center_coef", self.center_coef),
            ("head_learning_rate_factor", self.head_learning_rate_factor),
            ("weight_decay", self.weight_decay),
        ])?;
        c.schedules(&[("learning_rate", &self.learning_rate)])
    }
}

/// How well scores order responses.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Agreement {
    /// Pairs that are not tied.
    pub pairs: usize,
    /// Those of them that the scores order as the ranking does; equal scores count half.
    pub right: f64,
}

impl Agreement {
    /// Share of pairs that are ordered right; NaN without any.
    pub fn accuracy(self) -> f64 {
        self.right / self.pairs as f64
    }

    /// Adds a ranking.
    fn add(&mut self, scores: &[f32], places: &[usize]) {
        for (better, worse) in pairs(places) {
            self.pairs += 1;
            self.right += match scores[better].total_cmp(&scores[worse]) {
                std::cmp::Ordering::Greater => 1.0,
                std::cmp::Ordering::Equal => 0.5,
                std::cmp::Ordering::Less => 0.0,
            };
        }
    }
}

/// All pairs of a ranking that are not tied: the better one, the worse one.
fn pairs(places: &[usize]) -> impl Iterator<Item = (usize, usize)> + '_ {
    let all = (0..places.len()).flat_map(|i| (0..places.len()).map(move |j| (i, j)));
    all.filter(|&(i, j)| places[i] < places[j])
}

/// A head to begin from: weights normal with variance 1/(d + 1), bias 0.
///
/// # Source
///
/// Stiennon et al. 2020, arXiv:2009.01325, appendix B.1.
pub fn reward_head(hidden_size: usize, seed: u64) -> ValueHead<f32> {
    let mut head = ValueHead::zeros(hidden_size, false);
    let std = 1.0 / (hidden_size as f64 + 1.0).sqrt();
    let mut stream = Stream::new(seed, role::INIT, u32::MAX);
    for w in &mut head.theta[..hidden_size] {
        *w = (std * stream.normal()) as f32;
    }
    head
}

/// Scores of all responses, one after another.
pub fn response_scores(model: &mut dyn LanguageModel, items: &[Ranked]) -> Vec<f32> {
    let groups: Vec<Group> = items.iter().map(|item| item.group.clone()).collect();
    model.log_prob(&groups, 1.0).value
}

/// How well a model orders responses that it was not trained on.
pub fn agreement(model: &mut dyn LanguageModel, items: &[Ranked]) -> Agreement {
    let scores = response_scores(model, items);
    let mut agreement = Agreement::default();
    let mut rest = &scores[..];
    for item in items {
        let (scores, after) = rest.split_at(item.places.len());
        agreement.add(scores, &item.places);
        rest = after;
    }
    agreement
}

/// Training of a reward model under way.
#[derive(Debug)]
pub struct RewardTraining {
    settings: RewardSettings,
    model: Box<dyn LanguageModel>,
    tokenizer: Tokenizer,
    items: Vec<Ranked>,
    batches: Batches,
    step: u64,
    total_steps: u64,
    last: Vec<usize>,
}

impl RewardTraining {
    /// At the beginning. The model has a value head, see [`reward_head`].
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] if there are no comparisons or one is too long for the model.
    pub fn new(
        settings: RewardSettings,
        model: Box<dyn LanguageModel>,
        tokenizer: Tokenizer,
        items: Vec<Ranked>,
        total_steps: u64,
        seed: u64,
    ) -> Result<Self, Error> {
        if items.is_empty() {
            return Err(Error::Setting("there are no comparisons to learn from".into()));
        }
        let longest = |item: &Ranked| {
            let longest = item.group.completions.iter().map(Vec::len).max().unwrap_or(0);
            // The last token is not read.
            item.group.prompt.len() + longest - 1
        };
        let positions = model.config().max_positions;
        if let Some(i) = items.iter().position(|item| longest(item) > positions) {
            return Err(Error::Setting(format!(
                "a response of comparison {i} has {} tokens with its prompt, the model {positions} \
                 positions; leave it out",
                longest(&items[i])
            )));
        }
        let lengths = items.iter().map(|item| item.group.num_rows()).collect();
        let batches = Batches::new(lengths, settings.batch_size, Order::Shuffled, seed)?;
        let last = Vec::new();
        Ok(Self { settings, model, tokenizer, items, batches, step: 0, total_steps, last })
    }

    /// The model, when training is over.
    pub fn into_model(self) -> (Box<dyn LanguageModel>, Tokenizer) {
        (self.model, self.tokenizer)
    }

    /// Loss of one ranking; writes its derivatives, times `coef`, into `d`.
    fn loss(&self, item: &Ranked, scores: &[f32], coef: f32, d: &mut [f32]) -> f64 {
        let coef = coef * item.weight as f32;
        if self.settings.loss == "plackett_luce" {
            let loss = plackett_luce(scores, &item.places, coef, d);
            return item.weight * f64::from(loss);
        }
        let share = 1.0 / pairs(&item.places).count().max(1) as f32;
        let (margin, center) = (item.margin as f32, self.settings.center_coef as f32);
        let mut loss = 0.0;
        for (better, worse) in pairs(&item.places) {
            let term = bradley_terry(scores[better], scores[worse], margin, center);
            loss += term.loss * share;
            d[better] += coef * share * term.d_chosen;
            d[worse] += coef * share * term.d_rejected;
        }
        item.weight * f64::from(loss)
    }
}

impl Stage for RewardTraining {
    fn iterate(&mut self) -> Result<StageReport, Error> {
        self.last = self.batches.next_batch().to_vec();
        let items: Vec<Ranked> = self.last.iter().map(|&i| self.items[i].clone()).collect();
        // A ranking's loss needs the scores of all its responses, so they are read first.
        let scores = response_scores(&mut *self.model, &items);
        let coef = 1.0 / items.len() as f32;
        let (mut loss, mut agreement, mut at) = (Mean::default(), Agreement::default(), 0);
        let mut derivatives = vec![0.0; scores.len()];
        for item in &items {
            let range = at..at + item.places.len();
            at = range.end;
            agreement.add(&scores[range.clone()], &item.places);
            loss.add(self.loss(item, &scores[range.clone()], coef, &mut derivatives[range]));
        }
        let groups: Vec<Group> = items.into_iter().map(|item| item.group).collect();
        // Losses are descended.
        self.model.score(&groups, 1.0, &mut |i, _, d| d.value.fill(-derivatives[i]));
        let s = &self.settings;
        let learning_rate = s.learning_rate.at(self.step as f64 / self.total_steps as f64);
        let norm = self.model.step(StepSettings {
            learning_rate,
            value_learning_rate: learning_rate * s.head_learning_rate_factor,
            max_grad_norm: s.max_grad_norm,
        });
        if !norm.is_finite() {
            return Err(Error::Setting(format!(
                "the gradient of step {} is not finite; nothing was changed. The batch is saved; \
                 lower the learning rate, or look at its texts",
                self.step
            )));
        }
        self.step += 1;
        let spread: Spread = scores.iter().map(|&s| f64::from(s)).collect();
        let metrics = vec![
            ("train/loss", loss.get()),
            ("train/accuracy", agreement.accuracy()),
            ("train/score_mean", spread.mean()),
            ("train/score_std", spread.std()),
            ("train/grad_norm", norm),
            ("train/learning_rate", learning_rate),
            ("train/epoch", self.batches.position().0 as f64),
        ];
        Ok(StageReport { metrics, warnings: Vec::new() })
    }

    fn step(&self) -> u64 {
        self.step
    }

    fn total_steps(&self) -> u64 {
        self.total_steps
    }

    fn model(&self) -> &dyn LanguageModel {
        &*self.model
    }

    fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    fn last_batch(&self) -> Vec<Broken> {
        let text =
            |tokens: &[u32]| self.tokenizer.decode(tokens, Special::Keep).unwrap_or_default();
        let groups = self.last.iter().map(|&i| &self.items[i].group);
        groups
            .flat_map(|group| {
                group.completions.iter().map(move |c| Broken {
                    prompt: text(&group.prompt),
                    response: text(&c[..c.len() - 1]),
                    score: None,
                })
            })
            .collect()
    }

    fn save(&self, w: &mut StateWriter) {
        w.u64(self.step);
        self.batches.save(w);
        self.model.save(w);
    }

    fn load(&mut self, r: &mut StateReader<'_>) -> Result<(), Error> {
        let state = |e: cordada_env::StateError| Error::Setting(e.to_string());
        self.step = r.u64().map_err(state)?;
        self.batches.load(r).map_err(state)?;
        self.model.load(r).map_err(state)
    }
}

#[cfg(test)]
mod tests {
    use cordada_nn::OptimizerConfig;

    use super::*;
    use crate::data::{Comparison, Prompt, TokenizeOptions, tokenize_comparisons};
    use crate::demo::model_config;
    use crate::init::init;
    use crate::tasks::{Sort, Task};
    use crate::{Model, ModelConfig, Threads, Transformer};

    /// Rankings of numbers of digits: more zeros are better.
    fn rankings(n: usize, seed: u64) -> Vec<Comparison> {
        let mut stream = Stream::new(seed, role::ENV, 0);
        (0..n)
            .map(|_| {
                let responses: Vec<String> = (0..4)
                    .map(|_| (0..6).map(|_| if stream.below(2) == 0 { '0' } else { '1' }).collect())
                    .collect();
                let ones = |r: &String| r.matches('1').count();
                let places = responses.iter().map(ones).collect();
                Comparison {
                    prompt: Prompt::Text("say :".into()),
                    responses,
                    places,
                    margin: 0.0,
                    weight: 1.0,
                    rater: None,
                }
            })
            .collect()
    }

    fn items(comparisons: &[Comparison]) -> Vec<Ranked> {
        let tokenizer = Sort.tokenizer().unwrap();
        let end = tokenizer.special_id("eos_token").unwrap();
        let options = TokenizeOptions::new(32, &[end]);
        tokenize_comparisons(&tokenizer, comparisons, &options).unwrap().items
    }

    fn training(loss: &str, steps: u64, threads: usize) -> RewardTraining {
        let tokenizer = Sort.tokenizer().unwrap();
        let config = ModelConfig {
            hidden_size: 32,
            num_layers: 2,
            num_heads: 2,
            num_kv_heads: 1,
            head_dim: 16,
            intermediate_size: 64,
            ..model_config(&tokenizer, 64)
        };
        let model = Model::trainable(
            Transformer::new(&config),
            init(&config, 3),
            None,
            Some(reward_head(32, 3)),
            OptimizerConfig::adamw(),
            Threads::new(threads).unwrap(),
        )
        .unwrap();
        let settings = RewardSettings {
            loss: loss.into(),
            batch_size: 16,
            learning_rate: Schedule::Linear { from: 3e-3, to: 0.0 },
            ..RewardSettings::default()
        };
        let items = items(&rankings(400, 1));
        RewardTraining::new(settings, Box::new(model), tokenizer, items, steps, 1).unwrap()
    }

    fn state(stage: &RewardTraining) -> Vec<u8> {
        let mut w = StateWriter::new();
        stage.save(&mut w);
        w.as_bytes().to_vec()
    }

    #[test]
    fn what_is_preferred_is_learned() {
        let fresh = items(&rankings(100, 2));
        for loss in ["plackett_luce", "pairs"] {
            let mut stage = training(loss, 120, 1);
            let before = agreement(&mut *stage.model, &fresh);
            assert!(before.accuracy() < 0.8 && before.pairs > 400, "{before:?}");
            while stage.step() < stage.total_steps() {
                stage.iterate().unwrap();
            }
            let after = agreement(&mut *stage.model, &fresh).accuracy();
            assert!(after > 0.97, "{loss}: {after}");
        }
    }

    #[test]
    fn a_resumed_training_equals_an_uninterrupted_one() {
        let mut whole = training("plackett_luce", 8, 1);
        let mut interrupted = training("plackett_luce", 8, 2);
        for _ in 0..3 {
            whole.iterate().unwrap();
            interrupted.iterate().unwrap();
        }
        let saved = state(&interrupted);
        let mut resumed = training("plackett_luce", 8, 2);
        resumed.load(&mut StateReader::new(&saved)).unwrap();
        for _ in 3..8 {
            let metrics = whole.iterate().unwrap().metrics;
            assert_eq!(resumed.iterate().unwrap().metrics, metrics);
        }
        assert_eq!(state(&resumed), state(&whole));
    }

    #[test]
    fn two_responses_make_both_losses_the_same() {
        let stage = |loss: &str| {
            let mut stage = training(loss, 8, 1);
            stage.settings.center_coef = 0.0;
            stage
        };
        let item = Ranked { group: Group::default(), places: vec![1, 0], margin: 0.0, weight: 0.5 };
        let of = |loss: &str| {
            let mut d = [0.0; 2];
            let loss = stage(loss).loss(&item, &[0.3, -0.4], 1.0, &mut d);
            (loss, d)
        };
        let ((a, da), (b, db)) = (of("plackett_luce"), of("pairs"));
        // ½ ln(1 + e^0.7).
        assert!((a - 0.5 * 0.7_f64.exp().ln_1p()).abs() < 1e-6, "{a}");
        assert!((a - b).abs() < 1e-6);
        assert!(da.iter().zip(db).all(|(a, b)| (a - b).abs() < 1e-6), "{da:?} {db:?}");
    }

    #[test]
    fn agreement_counts_pairs_that_are_not_tied() {
        let mut agreement = Agreement::default();
        // 0 before 1 and 2 (tied): right, and equal scores.
        agreement.add(&[1.0, 0.5, 1.0], &[0, 1, 1]);
        assert_eq!(agreement, Agreement { pairs: 2, right: 1.5 });
        assert_eq!(agreement.accuracy(), 0.75);
    }
}
