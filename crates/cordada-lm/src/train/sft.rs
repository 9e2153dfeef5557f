//! Supervised fine-tuning: raise the log-probability of given completions.

use cordada_env::{Persist, StateReader, StateWriter};
use cordada_nn::Schedule;
use cordada_rl::config::{Checks, Config, Field, schedule};
use cordada_rl::objective::{Aggregation, BatchCounts};

use super::metrics::Mean;
use super::stage::{Broken, Stage, StageReport};
use crate::data::{Batches, Order};
use crate::tokenizer::{Special, Tokenizer};
use crate::{Error, Group, LanguageModel, StepSettings};

cordada_rl::config! {
    /// How a model is fine-tuned.
    pub struct SftSettings {
        /// Examples of one step.
        batch_size: usize = 32, alias ["per_device_train_batch_size"];
        /// Whether a batch holds examples of like length.
        bucket_by_length: bool = false, alias ["group_by_length"];
        /// Learning rate over the run.
        #[serde(with = "schedule")]
        learning_rate: Schedule = Schedule::Constant(1e-3), alias ["lr"];
        /// Weight decay of AdamW.
        weight_decay: f64 = 0.0;
        /// Largest norm of a gradient; larger ones are scaled down.
        max_grad_norm: f64 = 1.0;
    }
}

impl Config for SftSettings {
    const FIELDS: &'static [Field] = SftSettings::FIELDS;

    fn check(&self, section: &str) -> Result<(), cordada_rl::Error> {
        let c = Checks { section };
        c.counts(&[("batch_size", self.batch_size)])?;
        c.positive(&[("max_grad_norm", self.max_grad_norm)])?;
        c.weights(&[("weight_decay", self.weight_decay)])?;
        c.schedules(&[("learning_rate", &self.learning_rate)])
    }
}

/// Fine-tuning under way.
#[derive(Debug)]
pub struct Sft {
    settings: SftSettings,
    model: Box<dyn LanguageModel>,
    tokenizer: Tokenizer,
    examples: Vec<Group>,
    batches: Batches,
    step: u64,
    total_steps: u64,
    last: Vec<usize>,
}

impl Sft {
    /// At the beginning. `examples`: prompts with the completions whose tokens are learned.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] if there are no examples or one is too long for the model.
    pub fn new(
        settings: SftSettings,
        model: Box<dyn LanguageModel>,
        tokenizer: Tokenizer,
        examples: Vec<Group>,
        total_steps: u64,
        seed: u64,
    ) -> Result<Self, Error> {
        if examples.is_empty() {
            return Err(Error::Setting("there are no examples to learn from".into()));
        }
        let positions = model.config().max_positions;
        if let Some(i) = examples.iter().position(|g| g.num_rows() > positions) {
            return Err(Error::Setting(format!(
                "example {i} has {} tokens, the model {positions} positions; cut it",
                examples[i].num_rows()
            )));
        }
        let lengths = examples.iter().map(Group::num_rows).collect();
        let order = if settings.bucket_by_length { Order::ByLength } else { Order::Shuffled };
        let batches = Batches::new(lengths, settings.batch_size, order, seed)?;
        let last = Vec::new();
        Ok(Self { settings, model, tokenizer, examples, batches, step: 0, total_steps, last })
    }

    /// The model, when training is over.
    pub fn into_model(self) -> (Box<dyn LanguageModel>, Tokenizer) {
        (self.model, self.tokenizer)
    }
}

impl Stage for Sft {
    fn iterate(&mut self) -> Result<StageReport, Error> {
        let s = &self.settings;
        self.last = self.batches.next_batch().to_vec();
        let groups: Vec<Group> = self.last.iter().map(|&i| self.examples[i].clone()).collect();
        // One count for the whole batch, so that its parts add up to its mean.
        let counts = BatchCounts::of(groups.iter().map(Group::num_targets));
        let weight: f32 = Aggregation::TokenMean.token_weight(counts, 1);
        let (mut loss, mut entropy) = (Mean::default(), Mean::default());
        self.model.score(&groups, 1.0, &mut |_, scores, d| {
            scores.log_prob.iter().for_each(|&l| loss.add(-f64::from(l)));
            scores.entropy.iter().for_each(|&h| entropy.add(f64::from(h)));
            d.log_prob.fill(weight);
        });
        let learning_rate = s.learning_rate.at(self.step as f64 / self.total_steps as f64);
        let norm = self.model.step(StepSettings {
            learning_rate,
            value_learning_rate: 0.0,
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
        let metrics = vec![
            ("train/loss", loss.get()),
            ("train/entropy", entropy.get()),
            ("train/grad_norm", norm),
            ("train/learning_rate", learning_rate),
            ("train/tokens", counts.num_tokens as f64),
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
        let groups = self.last.iter().map(|&i| &self.examples[i]);
        groups
            .map(|group| Broken {
                prompt: text(&group.prompt),
                response: group.completions.iter().map(|c| text(c)).collect(),
                score: None,
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
