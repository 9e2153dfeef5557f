//! Language models: training, sampling, a step of alignment, and the memory that a large
//! vocabulary takes. Shapes and batches are those that other libraries are measured with.

use cordada::lm::config::{Architecture, ModelConfig};
use cordada::lm::data::Example;
use cordada::lm::init::init;
use cordada::lm::reward::{Response, Reward};
use cordada::lm::shape::Shape;
use cordada::lm::tasks;
use cordada::lm::tokenizer::Special;
use cordada::lm::train::{Align, AlignSetup, Method, Prompt, Stage};
use cordada::lm::{
    Error, Group, LanguageModel, Model, Request, Sampling, StepSettings, Threads, Transformer,
    ValueHead,
};
use cordada::nn::OptimizerConfig;
use serde::Serialize;

use super::peak::peak_gflops;
use super::start::resident_mib;
use super::timing::time_at_least;
use crate::args::BenchArgs;
use crate::output::Output;
use crate::report::Failure;

/// Tokens of the prompts that completions are sampled for.
const PROMPT: usize = 16;
/// Tokens that are sampled after each.
const NEW: usize = 64;
const STEP: StepSettings =
    StepSettings { learning_rate: 1e-4, value_learning_rate: 0.0, max_grad_norm: 1.0 };

#[derive(Serialize)]
struct Measured {
    bench: &'static str,
    work: String,
    threads: usize,
    best_ms: f64,
    median_ms: f64,
    /// Tokens that are learned from, new tokens, or completions, at the median time.
    per_second: f64,
    unit: &'static str,
    /// Of the products of training, at the best time.
    gflops: Option<f64>,
    share_of_peak: Option<f64>,
}

/// A shape from its width, blocks, hidden width and positions, and its query and key heads.
fn shape(widths: [usize; 4], heads: [usize; 2], vocab_size: usize) -> Shape {
    let [hidden_size, num_layers, intermediate_size, max_positions] = widths;
    let [num_heads, num_kv_heads] = heads;
    Shape {
        hidden_size,
        num_layers,
        num_heads,
        num_kv_heads,
        intermediate_size,
        vocab_size,
        max_positions,
        tied: true,
    }
}

/// 993,408 parameters with a vocabulary of 64.
fn one_million(vocab_size: usize) -> Result<ModelConfig, Error> {
    shape([128, 4, 512, 512], [4, 2], vocab_size).config(Architecture::Qwen2)
}

/// 29,377,024 parameters.
fn thirty_million() -> Result<ModelConfig, Error> {
    shape([512, 8, 1536, 512], [8, 4], 8192).config(Architecture::Qwen2)
}

/// Two blocks of width 128, four heads.
fn gpt() -> Result<ModelConfig, Error> {
    shape([128, 2, 512, 128], [4, 4], 512).config(Architecture::Gpt2)
}

pub(super) fn run(args: &BenchArgs, output: Output) -> Result<(), Failure> {
    // First, while no memory has been given back that could be used again.
    let memory = extra_memory(args.seed)?;
    let peak = peak_gflops();
    let threads: Vec<usize> = args.threads.iter().map(|&t| usize::from(t)).collect();
    let threads = if threads.is_empty() { vec![1] } else { threads };
    let mut rows = Vec::new();
    let mut tell = |m: Measured| {
        if output.json {
            output.object(&m);
        } else {
            rows.push(row(&m));
        }
    };
    for &threads in &threads {
        let b = Bench { threads, seed: args.seed, peak: peak * threads as f64 };
        tell(b.training("training, GPT, 8 × 128", &gpt()?, [8, 128], 20)?);
        tell(b.training("training, 1 M, 32 × 64", &one_million(64)?, [32, 64], 20)?);
        for batch in [32, 8, 1] {
            let work = format!("sampling, 1 M, {batch} × {NEW}");
            tell(b.sampling(work, &one_million(64)?, batch, 20)?);
        }
        tell(b.alignment("GRPO, 4 × 8 × 16", "grpo", "kl_coef = 0.04")?);
        tell(b.alignment("PPO, 4 epochs, 32 × 16", "ppo", "kl_coef = 0.05\nepochs = 4")?);
        tell(b.training("training, 30 M, 4 × 256", &thirty_million()?, [4, 256], 3)?);
        for batch in [32, 1] {
            let work = format!("sampling, 30 M, {batch} × {NEW}");
            tell(b.sampling(work, &thirty_million()?, batch, 3)?);
        }
    }
    if output.json {
        let what = "a step with 32,768 tokens of vocabulary, 16 × 128";
        output.object(
            &serde_json::json!({ "bench": "lm", "work": what, "extra_memory_mib": memory }),
        );
        return Ok(());
    }
    let head = ["work", "threads", "best ms", "median ms", "a second", "GFLOP/s", "of peak"];
    output.table(&head, &rows);
    if let Some(memory) = memory {
        output.line(format!(
            "a step with a vocabulary of 32,768, 16 × 128 tokens: {memory:.0} MiB beside the model"
        ));
    }
    output.note(format!("peak: {peak:.1} GFLOP/s on one thread"));
    Ok(())
}

fn row(m: &Measured) -> Vec<String> {
    let or_none = |x: Option<String>| x.unwrap_or_else(|| "-".to_string());
    vec![
        m.work.clone(),
        m.threads.to_string(),
        format!("{:.2}", m.best_ms),
        format!("{:.2}", m.median_ms),
        format!("{:.0} {}", m.per_second, m.unit),
        or_none(m.gflops.map(|x| format!("{x:.1}"))),
        or_none(m.share_of_peak.map(|x| format!("{:.0} %", 100.0 * x))),
    ]
}

struct Bench {
    threads: usize,
    seed: u64,
    /// Of all threads. Unit: 10⁹ operations per second.
    peak: f64,
}

impl Bench {
    fn measured(
        &self,
        work: impl Into<String>,
        (best, median): (f64, f64),
        (count, unit): (usize, &'static str),
        flops: Option<f64>,
    ) -> Measured {
        let gflops = flops.map(|flops| flops / best / 1e9);
        Measured {
            bench: "lm",
            work: work.into(),
            threads: self.threads,
            best_ms: best * 1e3,
            median_ms: median * 1e3,
            per_second: count as f64 / median,
            unit,
            gflops,
            share_of_peak: gflops.map(|gflops| gflops / self.peak),
        }
    }

    /// Forward, back, clipping and AdamW on a fixed batch of random tokens.
    fn training(
        &self,
        work: &str,
        config: &ModelConfig,
        [batch, length]: [usize; 2],
        repeats: usize,
    ) -> Result<Measured, Failure> {
        let mut model = trainable(config, self.seed, self.threads, None)?;
        let flops = training_flops(model.transformer(), batch, length);
        let groups = texts(config, batch, length);
        let weight = 1.0 / (batch * length) as f32;
        let times = time_at_least(repeats, || {
            model.score(&groups, 1.0, &mut |_, _, d| d.log_prob.fill(weight));
            model.step(STEP);
        });
        Ok(self.measured(work, times, (batch * length, "tokens"), Some(flops)))
    }

    /// [`NEW`] tokens after each of some prompts.
    fn sampling(
        &self,
        work: String,
        config: &ModelConfig,
        batch: usize,
        repeats: usize,
    ) -> Result<Measured, Failure> {
        let theta = init(config, self.seed);
        let mut model = Model::new(Transformer::new(config), theta, Threads::new(self.threads)?);
        let request = |i: usize| Request {
            prompt: (0..PROMPT).map(|j| token(config, i, j)).collect(),
            samples: 1,
            stream: i as u32,
        };
        let requests: Vec<Request> = (0..batch).map(request).collect();
        let sampling = Sampling { max_new_tokens: NEW, ..Sampling::default() };
        let mut failed = None;
        let times = time_at_least(repeats, || {
            failed = model.generate(&requests, &sampling, 1, None).err();
        });
        failed.map_or(Ok(()), Err)?;
        Ok(self.measured(work, times, (batch * NEW, "new tokens"), None))
    }

    /// A step of alignment: 32 completions of 16 tokens are sampled, scored, and learned from; the
    /// reference is a model of its own.
    fn alignment(&self, work: &str, method: &str, changes: &str) -> Result<Measured, Failure> {
        let mut align = self.align(method, changes)?;
        let mut failed = None;
        let times = time_at_least(20, || {
            failed = align.iterate().err();
        });
        failed.map_or(Ok(()), Err)?;
        Ok(self.measured(work, times, (32, "completions"), None))
    }

    fn align(&self, method: &str, changes: &str) -> Result<Align, Failure> {
        let sizes = if method == "ppo" { [32, 1] } else { [4, 8] };
        let changes = format!(
            "{changes}\nprompts_per_step = {}\ngroup_size = {}\nmax_new_tokens = 16\nlr = 1e-5",
            sizes[0], sizes[1]
        );
        let changes = toml::from_str(&changes).expect("a table of settings");
        let settings = Method::find(method)?.settings(&changes)?;
        let task = tasks::find("sort")?;
        let tokenizer = task.tokenizer()?;
        let config = one_million(tokenizer.vocab_size())?;
        let prompt = |example: Example| -> Result<Prompt, Error> {
            let text = example.label();
            let tokens = tokenizer.encode(&text, Special::Keep)?;
            Ok(Prompt { example, text, tokens })
        };
        let prompts = task.test().into_iter().map(prompt).collect::<Result<_, _>>()?;
        let value_head = settings.has_critic().then(|| ValueHead::zeros(config.hidden_size, false));
        let threads = Threads::new(self.threads)?;
        let reference = Model::new(Transformer::new(&config), init(&config, self.seed), threads);
        let model = trainable(&config, self.seed, self.threads, value_head)?;
        Ok(Align::new(AlignSetup {
            settings,
            model: Box::new(model),
            reference: Some(Box::new(reference) as Box<dyn LanguageModel>),
            tokenizer,
            prompts,
            reward: Box::new(DigitShare),
            total_steps: u64::MAX,
            seed: self.seed,
        })?)
    }
}

/// Share of digits, which differs within a group even for a model that has learned nothing: so no
/// step is empty.
#[derive(Debug)]
struct DigitShare;

impl Reward for DigitShare {
    fn name(&self) -> &'static str {
        "digits"
    }

    fn score(&mut self, responses: &[Response<'_>]) -> Result<Vec<f64>, Error> {
        let digits = |text: &str| text.chars().filter(char::is_ascii_digit).count();
        Ok(responses.iter().map(|r| digits(r.text) as f64 / 16.0).collect())
    }
}

fn trainable(
    config: &ModelConfig,
    seed: u64,
    threads: usize,
    value_head: Option<ValueHead<f32>>,
) -> Result<Model<f32>, Error> {
    let (transformer, theta) = (Transformer::new(config), init(config, seed));
    let threads = Threads::new(threads)?;
    Model::trainable(transformer, theta, None, value_head, OptimizerConfig::adamw(), threads)
}

/// Some token that depends on its place.
fn token(config: &ModelConfig, row: usize, column: usize) -> u32 {
    ((row * 7919 + column * 104_729) % config.vocab_size) as u32
}

/// Texts of which every token but the first is learned from, and one more at the end.
fn texts(config: &ModelConfig, batch: usize, length: usize) -> Vec<Group> {
    let text = |i: usize| (1..=length).map(|j| token(config, i, j)).collect();
    (0..batch).map(|i| Group::new(vec![token(config, i, 0)], vec![text(i)])).collect()
}

/// Operations of the products of a training step: forward once, back twice. Of attention, the half
/// that is not masked.
fn training_flops(t: &Transformer<f32>, batch: usize, length: usize) -> f64 {
    let c = t.config();
    let rows = batch * length;
    let products = (t.forward_flops() + 2 * c.hidden_size * c.vocab_size) * rows;
    let attention = c.num_layers * 2 * c.query_width() * length * rows;
    3.0 * (products + attention) as f64
}

/// Peak memory of a clipped policy-gradient step over what the model with its gradients and its
/// optimizer holds: 16 prompts of 16 tokens with 112 tokens of answer. Unit: MiB. `None` where the
/// system does not tell.
fn extra_memory(seed: u64) -> Result<Option<f64>, Failure> {
    let config = one_million(32_768)?;
    let mut model = trainable(&config, seed, 1, None)?;
    let mut step = |batch: usize, answer: usize| {
        let text = |i, from: usize, to: usize| (from..to).map(|j| token(&config, i, j)).collect();
        let group = |i| Group::new(text(i, 0, PROMPT), vec![text(i, PROMPT, PROMPT + answer)]);
        let groups: Vec<Group> = (0..batch).map(group).collect();
        let old = model.log_prob(&groups, 1.0);
        model.score(&groups, 1.0, &mut |i, scores, d| {
            let advantage = if i % 2 == 0 { 1.0 } else { -1.0 };
            let old = &old.log_prob[old.completions[i].clone()];
            for ((new, old), d) in scores.log_prob.iter().zip(old).zip(&mut *d.log_prob) {
                *d = advantage * (new - old).exp() / (batch * answer) as f32;
            }
        });
        model.step(STEP);
    };
    // The gradients' and the optimizer's pages are touched from here on.
    step(1, 2);
    let before = resident_mib("VmRSS");
    // The kernel's high-water mark begins anew.
    if std::fs::write("/proc/self/clear_refs", "5").is_err() {
        return Ok(None);
    }
    for _ in 0..3 {
        step(16, 112);
    }
    Ok(resident_mib("VmHWM").zip(before).map(|(peak, before)| peak - before))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_have_the_parameters_that_others_are_measured_with() {
        let count = |config: &ModelConfig| Transformer::<f32>::new(config).layout().num_params;
        assert_eq!(count(&one_million(64).unwrap()), 993_408);
        assert_eq!(count(&one_million(32_768).unwrap()), 5_179_520);
        assert_eq!(count(&thirty_million().unwrap()), 29_377_024);
    }

    #[test]
    fn a_step_of_alignment_samples_thirty_two_completions() {
        let bench = Bench { threads: 1, seed: 1, peak: 1.0 };
        for method in ["grpo", "ppo"] {
            let mut align = bench.align(method, "kl_coef = 0.04").unwrap();
            let report = align.iterate().unwrap();
            let metric = |name| report.metrics.iter().find(|m| m.0 == name).map(|m| m.1);
            assert!(metric("train/grad_norm").unwrap() > 0.0, "{:?}", report.metrics);
        }
    }
}
