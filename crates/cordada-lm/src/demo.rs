//! A whole course on a generated task: a new model, fine-tuning on imperfect answers, alignment by
//! a reward that can be checked, and figures of merit before and after.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use cordada_env::{Stream, role};
use cordada_nn::{Activation, OptimizerConfig, Schedule};
use toml::Table;

use crate::data::{TokenizeOptions, tokenize_answers, tokenize_prompts};
use crate::init::init;
use crate::tasks::{Metric, Task};
use crate::tokenizer::{Special, Tokenizer};
use crate::train::{Align, AlignSetup, Method, Prompt, Sft, SftSettings, Stage};
use crate::{
    Architecture, Error, Finish, LanguageModel, Model, ModelConfig, Positions, Request,
    RopeScaling, Sampling, Threads, Transformer, ValueHead,
};

/// Longest prompt with its answer.
const MAX_POSITIONS: usize = 128;
/// Prompts that are generated at most; longer courses use them again.
const MAX_PROMPTS: usize = 20_000;

/// How long and with what a course trains.
#[derive(Clone, Debug)]
pub struct DemoOptions {
    /// Method of the alignment.
    pub method: &'static Method,
    /// Changes of the method's settings.
    pub changes: Table,
    /// Steps of fine-tuning, and examples of one.
    pub sft_steps: u64,
    /// Examples of a step.
    pub sft_batch: usize,
    /// Largest learning rate of fine-tuning; it rises over the first twentieth, then falls to 0.
    pub sft_learning_rate: f64,
    /// Steps of alignment.
    pub align_steps: u64,
    /// Steps between two evaluations during alignment; 0 for none.
    pub eval_every: u64,
    /// Of every random stream.
    pub seed: u64,
    /// Threads.
    pub threads: usize,
}

/// The figures of merit at a point of the course.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// `sft` or the method's name.
    pub stage: &'static str,
    /// Steps of that stage.
    pub step: u64,
    /// Time that they took, without evaluations. Unit: seconds.
    pub seconds: f64,
    /// Of sampled answers to the test prompts.
    pub sampled: Vec<Metric>,
    /// Of the likeliest answers.
    pub greedy: Vec<Metric>,
}

/// The shape of the demonstrations' model: one million parameters.
pub fn model_config(tokenizer: &Tokenizer, max_positions: usize) -> ModelConfig {
    let eos = tokenizer.special_id("eos_token");
    ModelConfig {
        architecture: Architecture::Qwen2,
        vocab_size: tokenizer.vocab_size(),
        hidden_size: 128,
        num_layers: 4,
        num_heads: 4,
        num_kv_heads: 2,
        head_dim: 32,
        intermediate_size: 512,
        max_positions,
        norm_eps: 1e-6,
        activation: Activation::Silu,
        positions: Positions::Rotary { base: 10_000.0, scaling: RopeScaling::Default },
        qkv_bias: true,
        output_bias: false,
        mlp_bias: false,
        tied: true,
        eos_token_ids: eos.into_iter().collect(),
        bos_token_id: None,
        pad_token_id: None,
    }
}

/// What a demonstration of a task is run with, unless told otherwise.
#[derive(Clone, Copy, Debug)]
pub struct Recommended {
    /// Method of the alignment.
    pub method: &'static str,
    /// Steps of fine-tuning, and examples of one.
    pub sft_steps: u64,
    /// Examples of a step.
    pub sft_batch: usize,
    /// Largest learning rate of fine-tuning.
    pub sft_learning_rate: f64,
    /// Steps of alignment.
    pub align_steps: u64,
    settings: &'static str,
}

impl Recommended {
    /// Changes of the method's settings.
    pub fn changes(&self) -> Table {
        toml::from_str(self.settings).unwrap_or_else(|e| unreachable!("a table of settings: {e}"))
    }
}

/// The settings that demonstrations of a task were tried with.
pub fn recommended(task: &str) -> Recommended {
    let common = Recommended {
        method: "grpo",
        sft_steps: 280,
        sft_batch: 64,
        sft_learning_rate: 1e-3,
        align_steps: 600,
        settings: "kl_coef = 0.0\nmax_new_tokens = 16\n\
                   learning_rate = 'warmup(0.05, linear(3e-4))'",
    };
    match task {
        "grounded" => Recommended {
            sft_steps: 1500,
            align_steps: 100,
            settings: "kl_coef = 0.0\nmax_new_tokens = 10\nlearning_rate = 'linear(1e-4)'",
            ..common
        },
        _ => common,
    }
}

/// Hears of every step: stage, step, steps of the stage, its metrics.
pub type Tell<'a> = dyn FnMut(&'static str, u64, u64, &[(&'static str, f64)]) + 'a;

/// A model on its way through the course.
#[derive(Debug)]
pub struct Course {
    /// The model.
    pub model: Box<dyn LanguageModel>,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// Figures of merit so far.
    pub points: Vec<Checkpoint>,
}

/// A new model, fine-tuned on the task's imperfect answers; sooner at its end if `stop` is set.
///
/// # Errors
///
/// What the stage says.
pub fn fine_tune(
    task: &dyn Task,
    options: &DemoOptions,
    stop: &AtomicBool,
    tell: &mut Tell<'_>,
) -> Result<Course, Error> {
    let o = options;
    let tokenizer = task.tokenizer()?;
    let config = model_config(&tokenizer, MAX_POSITIONS);
    let tokens = TokenizeOptions::new(MAX_POSITIONS, &config.eos_token_ids);
    let examples = task.sft(o.sft_steps as usize * o.sft_batch, &mut data_stream(o.seed, 0));
    let examples = tokenize_answers(&tokenizer, &examples, &tokens)?.items;
    let model = Model::trainable(
        Transformer::new(&config),
        init(&config, o.seed),
        None,
        None,
        OptimizerConfig::adamw(),
        Threads::new(o.threads)?,
    )?;
    let settings = SftSettings {
        batch_size: o.sft_batch,
        learning_rate: Schedule::Warmup {
            fraction: 0.05,
            then: Box::new(Schedule::Linear { from: o.sft_learning_rate, to: 0.0 }),
        },
        ..SftSettings::default()
    };
    let mut sft = Sft::new(settings, Box::new(model), tokenizer, examples, o.sft_steps, o.seed)?;
    let seconds = train(&mut sft, "sft", stop, tell, |_, _, _| Ok(()))?;
    let (mut model, tokenizer) = sft.into_model();
    let points = vec![checkpoint(("sft", o.sft_steps, seconds), task, &mut *model, &tokenizer)?];
    Ok(Course { model, tokenizer, points })
}

/// Alignment of a fine-tuned model; sooner at its end if `stop` is set.
///
/// # Errors
///
/// What the stage says.
pub fn align(
    task: &dyn Task,
    options: &DemoOptions,
    course: Course,
    stop: &AtomicBool,
    tell: &mut Tell<'_>,
) -> Result<Course, Error> {
    let o = options;
    let Course { model, tokenizer, mut points } = course;
    let settings = o.method.settings(&o.changes)?;
    let config = model.config().clone();
    let tokens = TokenizeOptions::new(MAX_POSITIONS, &config.eos_token_ids);
    let count = o.align_steps as usize * settings.prompts_per_step;
    let examples = task.prompts(count.clamp(1, MAX_PROMPTS), &mut data_stream(o.seed, 1));
    let prompts = prepare(&tokenizer, &examples, &tokens)?;
    let theta = model.theta().to_vec();
    let reference = if settings.kl_coef > 0.0 {
        let threads = Threads::new(o.threads)?;
        let model = Model::new(Transformer::new(&config), theta.clone(), threads);
        Some(Box::new(model) as Box<dyn LanguageModel>)
    } else {
        None
    };
    let value_head =
        settings.has_critic().then(|| ValueHead::zeros(config.hidden_size, settings.detach_value));
    let model = Model::trainable(
        Transformer::new(&config),
        theta,
        None,
        value_head,
        Align::optimizer(&settings),
        Threads::new(o.threads)?,
    )?;
    let mut align = Align::new(AlignSetup {
        settings,
        model: Box::new(model),
        reference,
        tokenizer,
        prompts,
        reward: task.reward(),
        total_steps: o.align_steps,
        seed: o.seed,
    })?;
    let name = o.method.name;
    let seconds = train(&mut align, name, stop, tell, |align, step, seconds| {
        if o.eval_every > 0 && step % o.eval_every == 0 && step < o.align_steps {
            let (model, tokenizer) = align.model_and_tokenizer();
            points.push(checkpoint((name, step, seconds), task, model, tokenizer)?);
        }
        Ok(())
    })?;
    let (mut model, tokenizer) = align.into_model();
    points.push(checkpoint((name, o.align_steps, seconds), task, &mut *model, &tokenizer)?);
    Ok(Course { model, tokenizer, points })
}

/// The random stream of a stage's data.
fn data_stream(seed: u64, stage: u32) -> Stream {
    Stream::new(seed, role::ENV, stage)
}

/// Trains to the end; returns the seconds that the steps took. `after` hears of every step's number
/// and of the seconds so far.
fn train<S: Stage>(
    stage: &mut S,
    name: &'static str,
    stop: &AtomicBool,
    tell: &mut Tell<'_>,
    mut after: impl FnMut(&mut S, u64, f64) -> Result<(), Error>,
) -> Result<f64, Error> {
    let mut seconds = 0.0;
    while stage.step() < stage.total_steps() && !stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        let report = stage.iterate()?;
        seconds += began.elapsed().as_secs_f64();
        tell(name, stage.step(), stage.total_steps(), &report.metrics);
        let step = stage.step();
        after(stage, step, seconds)?;
    }
    Ok(seconds)
}

fn prepare(
    tokenizer: &Tokenizer,
    examples: &[crate::data::Example],
    options: &TokenizeOptions,
) -> Result<Vec<Prompt>, Error> {
    let tokenized = tokenize_prompts(tokenizer, examples, options)?;
    let pairs = tokenized.items.into_iter().zip(tokenized.indices);
    pairs
        .map(|(tokens, i)| {
            let text = tokenizer.decode(&tokens, Special::Keep)?;
            Ok(Prompt { example: examples[i].clone(), text, tokens })
        })
        .collect()
}

/// Figures of merit on the task's test prompts, after some steps and seconds of a stage.
fn checkpoint(
    (stage, step, seconds): (&'static str, u64, f64),
    task: &dyn Task,
    model: &mut dyn LanguageModel,
    tokenizer: &Tokenizer,
) -> Result<Checkpoint, Error> {
    let sampled = evaluate(task, model, tokenizer, 1.0)?;
    let greedy = evaluate(task, model, tokenizer, 0.0)?;
    Ok(Checkpoint { stage, step, seconds, sampled, greedy })
}

/// Figures of merit of a model's answers to a task's test prompts, at a temperature.
///
/// # Errors
///
/// If the model cannot read the prompts.
pub fn evaluate(
    task: &dyn Task,
    model: &mut dyn LanguageModel,
    tokenizer: &Tokenizer,
    temperature: f64,
) -> Result<Vec<Metric>, Error> {
    let config = model.config().clone();
    let examples = task.test();
    let options = TokenizeOptions::new(config.max_positions, &config.eos_token_ids);
    let prompts = prepare(tokenizer, &examples, &options)?;
    let sampling = Sampling {
        temperature,
        max_new_tokens: task.max_new_tokens(),
        stop_tokens: config.eos_token_ids,
        ..Sampling::default()
    };
    let requests: Vec<Request> = prompts
        .iter()
        .enumerate()
        .map(|(i, p)| Request { prompt: p.tokens.clone(), samples: 1, stream: i as u32 })
        .collect();
    // A seed of its own: evaluation must not depend on how training went.
    let completions = model.generate(&requests, &sampling, 7, None)?;
    let mut texts = Vec::with_capacity(completions.len());
    for c in completions.iter().flatten() {
        let end = c.tokens.len() - usize::from(c.finish == Finish::StopToken);
        texts.push(tokenizer.decode(&c.tokens[..end], Special::Skip)?);
    }
    let answers: Vec<_> =
        prompts.iter().map(|p| &p.example).zip(texts.iter().map(String::as_str)).collect();
    Ok(task.evaluate(&answers))
}
