//! A stage from its config: reads the model, prepares the data, the reward, the adapter, the
//! reference and the critic, and puts them together.

use std::path::{Path, PathBuf};

use cordada_env::{Stream, role};
use cordada_log::RunDir;
use cordada_nn::OptimizerConfig;

use super::align::{Align, AlignSetup, Prompt};
use super::config::{LoraSettings, StageConfig, StageKind};
use super::method::AlignSettings;
use super::sft::{Sft, SftSettings};
use super::stage::{Stage, StageRun};
use crate::adapter::{AdapterLayout, LoraConfig};
use crate::data::{
    self, DataReport, Example, Overlong, TokenizeOptions, read_examples, tokenize_answers,
    tokenize_prompts,
};
use crate::folder::{self, WriteOptions};
use crate::load::{self, Loaded};
use crate::reward::{self, Reward};
use crate::tokenizer::{Special, Tokenizer};
use crate::{Adapter, Error, LanguageModel, Model, Threads, Transformer, ValueHead, tasks};

/// Folder of the base model in a run whose adapter belongs to a merged one.
const BASE: &str = "base";

/// The adapter of a run: its settings, its places and the name of its base.
type Lora = (LoraConfig, AdapterLayout, String);

/// A stage, and what became of its examples.
type Made = (Box<dyn Stage>, DataReport);

/// What a stage's model is made of.
struct Parts {
    transformer: Transformer<f32>,
    theta: Vec<f32>,
    tokenizer: Tokenizer,
    adapter: Option<Adapter<f32>>,
    activation_gib: f64,
    threads: usize,
}

impl Parts {
    fn trainable(
        self,
        value_head: Option<ValueHead<f32>>,
        optimizer: OptimizerConfig,
    ) -> Result<Model<f32>, Error> {
        let threads = Threads::new(self.threads)?;
        let Self { transformer, theta, adapter, .. } = self;
        let mut model =
            Model::trainable(transformer, theta, adapter, value_head, optimizer, threads)?;
        model.set_activation_limit((self.activation_gib * f64::from(1 << 30)) as usize);
        Ok(model)
    }
}

/// Prompts, ready to be sampled from, and what became of the examples.
///
/// # Errors
///
/// As [`tokenize_prompts`].
pub fn prepare_prompts(
    tokenizer: &Tokenizer,
    examples: &[Example],
    options: &TokenizeOptions,
) -> Result<(Vec<Prompt>, DataReport), Error> {
    let tokenized = tokenize_prompts(tokenizer, examples, options)?;
    let pairs = tokenized.items.into_iter().zip(tokenized.indices);
    let prompts: Result<_, Error> = pairs
        .map(|(tokens, i)| {
            let example = examples[i].clone();
            let text = match &example.prompt {
                data::Prompt::Text(text) => text.clone(),
                data::Prompt::Messages(_) => tokenizer.decode(&tokens, Special::Keep)?,
            };
            Ok(Prompt { example, text, tokens })
        })
        .collect();
    Ok((prompts?, tokenized.report))
}

/// What the user should know of the data: how much there is, and what was lost.
pub fn data_notes(report: &DataReport) -> Vec<String> {
    let r = report;
    let mut notes =
        vec![format!("{} examples, {} tokens; the longest has {}", r.kept, r.tokens, r.longest)];
    if r.dropped > 0 || r.truncated > 0 {
        notes.push(format!(
            "{} examples are too long and left out, {} are cut",
            r.dropped, r.truncated
        ));
    }
    if r.without_end > 0 {
        notes.push(format!(
            "{} answers do not end with an end token: the model does not learn there to stop",
            r.without_end
        ));
    }
    notes
}

impl StageConfig {
    /// Makes the stage, at its beginning, and writes the config into its directory.
    ///
    /// # Errors
    ///
    /// As [`StageConfig::make`], and what the file system says.
    pub fn create(&self, dir: RunDir, threads: usize) -> Result<StageRun, Error> {
        let run = self.make(dir, threads)?;
        run.dir.write_config(&self.to_toml())?;
        Ok(run)
    }

    /// Makes the stage, at its beginning.
    ///
    /// # Errors
    ///
    /// For a missing or damaged file and for settings that do not fit the model or the data.
    pub fn make(&self, dir: RunDir, threads: usize) -> Result<StageRun, Error> {
        // What is quick to refuse comes before what takes its time to read.
        let reward = self.reward()?;
        let examples = self.examples()?;
        let Loaded { folder, config, theta, tokenizer, merged } =
            load::read(Path::new(&self.run.model))?;
        let transformer = Transformer::new(&config);
        let (lora, adapter) = match &self.lora {
            Some(settings) => {
                let (lora, layout, adapter) = self.adapter(settings, &transformer)?;
                (Some((lora, layout)), Some(adapter))
            }
            None => (None, None),
        };
        // The base of an adapter has to be a model's folder. It is written at the very end, so
        // that a refused run leaves nothing.
        let base = if merged { dir.root().join(BASE) } else { folder };
        let unwritten = merged && lora.is_some() && !base.join(folder::CONFIG).is_file();
        let keep = unwritten.then(|| (theta.clone(), tokenizer.clone()));
        let activation_gib = self.run.activation_gib;
        let parts = Parts { transformer, theta, tokenizer, adapter, activation_gib, threads };
        let options = self.tokenize_options(&config);
        let (stage, report) = match &self.kind {
            StageKind::Sft(settings) => self.sft(settings, parts, &examples, &options)?,
            StageKind::Align(settings) => {
                self.align(settings, parts, &examples, &options, reward)?
            }
        };
        if let Some((theta, tokenizer)) = keep {
            tokenizer.write(&base)?;
            folder::write(&base, &config, &theta, WriteOptions::default())?;
        }
        let base = absolute(&base)?;
        let lora = lora.map(|(lora, layout)| (lora, layout, base));
        Ok(self.run_of(stage, dir, lora, data_notes(&report)))
    }

    fn sft(
        &self,
        settings: &SftSettings,
        parts: Parts,
        examples: &[Example],
        options: &TokenizeOptions,
    ) -> Result<Made, Error> {
        let data = tokenize_answers(&parts.tokenizer, examples, options)?;
        let tokenizer = parts.tokenizer.clone();
        let model = parts.trainable(None, sft_optimizer(settings))?;
        let (steps, seed) = (self.run.total_steps, self.run.seed);
        let sft = Sft::new(settings.clone(), Box::new(model), tokenizer, data.items, steps, seed)?;
        Ok((Box::new(sft), data.report))
    }

    fn align(
        &self,
        settings: &AlignSettings,
        parts: Parts,
        examples: &[Example],
        options: &TokenizeOptions,
        reward: Option<Box<dyn Reward>>,
    ) -> Result<Made, Error> {
        let reward = reward.ok_or_else(|| {
            let problem = "alignment on a file needs a reward, such as --reward exact; `cordada \
                           list rewards` shows all";
            Error::Setting(problem.into())
        })?;
        let (prompts, report) = prepare_prompts(&parts.tokenizer, examples, options)?;
        let reference = self.reference(settings, &parts)?;
        let width = parts.transformer.config().hidden_size;
        let value_head =
            settings.has_critic().then(|| ValueHead::zeros(width, settings.detach_value));
        let tokenizer = parts.tokenizer.clone();
        let align = Align::new(AlignSetup {
            settings: settings.clone(),
            model: Box::new(parts.trainable(value_head, Align::optimizer(settings))?),
            reference: reference.map(|r| Box::new(r) as Box<dyn LanguageModel>),
            tokenizer,
            prompts,
            reward,
            total_steps: self.run.total_steps,
            seed: self.run.seed,
        })?;
        Ok((Box::new(align), report))
    }

    fn run_of(
        &self,
        stage: Box<dyn Stage>,
        dir: RunDir,
        lora: Option<Lora>,
        notes: Vec<String>,
    ) -> StageRun {
        StageRun {
            stage,
            dir,
            method: self.name().to_string(),
            task: self.source(),
            seed: self.run.seed,
            checkpoint_seconds: self.run.checkpoint_seconds,
            keep_checkpoints: self.run.keep_checkpoints,
            lora,
            notes,
        }
    }

    /// The terms that are named, or the task's own reward.
    fn reward(&self) -> Result<Option<Box<dyn Reward>>, Error> {
        if !self.run.reward.is_empty() {
            return Ok(Some(Box::new(reward::parse_all(&self.run.reward)?)));
        }
        if self.run.task.is_empty() {
            return Ok(None);
        }
        Ok(Some(tasks::find(&self.run.task)?.reward()))
    }

    fn examples(&self) -> Result<Vec<Example>, Error> {
        if self.run.task.is_empty() {
            return read_examples(Path::new(&self.run.data));
        }
        let task = tasks::find(&self.run.task)?;
        let stream = |index| Stream::new(self.run.seed, role::ENV, index);
        Ok(match self.kind {
            StageKind::Sft(_) => task.sft(self.run.examples, &mut stream(0)),
            StageKind::Align(_) => task.prompts(self.run.examples, &mut stream(1)),
        })
    }

    fn tokenize_options(&self, config: &crate::ModelConfig) -> TokenizeOptions {
        let room = match &self.kind {
            StageKind::Sft(_) => config.max_positions,
            // The response has to find room behind the prompt.
            StageKind::Align(s) => config.max_positions.saturating_sub(s.max_new_tokens),
        };
        let most = if self.run.max_tokens == 0 { room } else { self.run.max_tokens.min(room) };
        TokenizeOptions {
            overlong: if self.run.overlong == "cut" { Overlong::Cut } else { Overlong::Drop },
            max_lost_share: self.run.max_lost_share,
            ..TokenizeOptions::new(most, &config.eos_token_ids)
        }
    }

    /// The frozen model that the KL divergence is taken to; none without a KL, and none where it
    /// is the model without its adapter.
    fn reference(
        &self,
        settings: &AlignSettings,
        parts: &Parts,
    ) -> Result<Option<Model<f32>>, Error> {
        if settings.kl_coef <= 0.0 && settings.kl_limit.is_none() {
            return Ok(None);
        }
        let threads = Threads::new(parts.threads)?;
        if self.run.reference.is_empty() {
            let frozen = || Model::new(parts.transformer.clone(), parts.theta.clone(), threads);
            return Ok(parts.adapter.is_none().then(frozen));
        }
        let reference = load::read(Path::new(&self.run.reference))?;
        let ours = parts.transformer.config().vocab_size;
        let theirs = reference.config.vocab_size;
        if ours != theirs {
            return Err(Error::Setting(format!(
                "the reference {} has {theirs} tokens, the model {ours}; they need the same \
                 tokenizer",
                self.run.reference
            )));
        }
        Ok(Some(reference.into_model(threads).0))
    }

    fn adapter(
        &self,
        settings: &LoraSettings,
        transformer: &Transformer<f32>,
    ) -> Result<(LoraConfig, AdapterLayout, Adapter<f32>), Error> {
        let layout = transformer.layout();
        let lora = settings.of(layout);
        let places = AdapterLayout::new(layout, &lora)?;
        let theta = places.init(&mut Stream::new(self.run.seed, role::INIT, 0));
        let adapter = places.adapter(layout, theta, lora.scaling());
        Ok((lora, places, adapter))
    }
}

fn sft_optimizer(settings: &SftSettings) -> OptimizerConfig {
    Align::optimizer(&AlignSettings {
        weight_decay: settings.weight_decay,
        ..AlignSettings::default()
    })
}

/// A path that is right from anywhere, as text.
fn absolute(path: &Path) -> Result<String, Error> {
    let path: PathBuf = std::path::absolute(path).map_err(|e| folder::io_error(path, e))?;
    Ok(path.to_string_lossy().into_owned())
}
