//! The command line of `cordada rlhf`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use cordada::lm::Architecture;
use toml::Value;

use crate::args::{Names, ResumeArgs, parse_change, parse_count};

#[derive(Debug, Subcommand)]
pub(crate) enum RlhfCommand {
    /// Make a new model: its tokenizer, learned from a text, and random weights
    New(NewArgs),
    /// Fine-tune a model on given answers
    Sft(SftArgs),
    /// Align a model with a reward, by policy gradients on its own answers
    Align(AlignArgs),
    /// Continue an interrupted run from its newest whole checkpoint
    ///
    /// The result is the same, bit for bit, as if the run had never been interrupted. `cordada
    /// resume` does the same.
    Resume(ResumeArgs),
    /// Sample answers of a model
    Sample(SampleArgs),
    /// Talk to a model in the terminal
    ///
    /// With the model's chat template, if it has one; else every line is a prompt of its own. /new
    /// begins a new conversation, /exit or Ctrl-D ends; Ctrl-C stops an answer.
    Chat(ChatArgs),
    /// Measure a model: perplexity of given answers, scores of its own
    Eval(EvalArgs),
    /// Tell how much memory training or sampling will take, before anything is loaded
    Plan(PlanArgs),
    /// Show a whole course on a generated task: a new model, fine-tuned, then aligned
    ///
    /// Nothing is downloaded. The answers to learn from are wrong on purpose in part; the reward
    /// mends that. A table at the end shows the figures before and after alignment.
    Demo(DemoArgs),
}

/// A model to read, and with how many threads.
#[derive(Clone, Debug, Args)]
pub(crate) struct ModelArgs {
    /// Model: a folder in Hugging Face's form, an adapter's, or a run's, whose newest whole
    /// checkpoint is taken
    #[arg(value_name = "MODEL")]
    pub(crate) model: PathBuf,
    /// Threads to use; they never change a result
    #[arg(long, value_name = "T", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: u16,
}

/// A family of models.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Arch {
    Qwen3,
    Qwen2,
    Llama,
    Gpt2,
}

impl From<Arch> for Architecture {
    fn from(arch: Arch) -> Self {
        match arch {
            Arch::Qwen3 => Self::Qwen3,
            Arch::Qwen2 => Self::Qwen2,
            Arch::Llama => Self::Llama,
            Arch::Gpt2 => Self::Gpt2,
        }
    }
}

#[derive(Clone, Debug, Args)]
pub(crate) struct NewArgs {
    /// Folder of the model, made if need be
    #[arg(value_name = "DIR")]
    pub(crate) dir: PathBuf,
    #[command(flatten)]
    pub(crate) shape: ShapeArgs,
    /// Text that the tokenizer is learned from (byte-level BPE)
    #[arg(long, value_name = "FILE", required_unless_present = "task", conflicts_with = "task")]
    pub(crate) text: Option<PathBuf>,
    /// Take the tokenizer of a generated task; see `cordada list tasks`
    #[arg(long, value_name = "NAME", value_parser = Names(task_names), hide_possible_values = true)]
    pub(crate) task: Option<String>,
    /// Seed of the weights
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub(crate) seed: u64,
}

/// The shape of a new model.
#[derive(Clone, Debug, Args)]
pub(crate) struct ShapeArgs {
    /// Number of parameters: 1m, 5m, 30m, 100m, 300m, 1b, 3b, 7b, 8b, 14b, 32b, 70b
    #[arg(long, value_name = "SIZE", default_value = "1m")]
    pub(crate) size: String,
    /// Architecture
    #[arg(long, value_name = "ARCH", value_enum, default_value = "qwen3")]
    pub(crate) arch: Arch,
    /// Width of the model [default: the size's]
    #[arg(long, value_name = "N")]
    pub(crate) hidden: Option<usize>,
    /// Blocks [default: the size's]
    #[arg(long, value_name = "N")]
    pub(crate) layers: Option<usize>,
    /// Attention heads [default: the size's]
    #[arg(long, value_name = "N")]
    pub(crate) heads: Option<usize>,
    /// Key and value heads [default: the size's, or as many as heads if those are given]
    #[arg(long, value_name = "N")]
    pub(crate) kv_heads: Option<usize>,
    /// Width of the blocks' hidden layers [default: the size's, or 4 times the width if given]
    #[arg(long, value_name = "N")]
    pub(crate) intermediate: Option<usize>,
    /// Most tokens of the vocabulary [default: the size's]
    #[arg(long, value_name = "N")]
    pub(crate) vocab: Option<usize>,
    /// Longest input in tokens [default: the size's]
    #[arg(long, value_name = "N")]
    pub(crate) positions: Option<usize>,
}

/// What both stages of training take.
#[derive(Clone, Debug, Args)]
pub(crate) struct StageArgs {
    /// Model to begin from: a folder in Hugging Face's form, an adapter's, or a run's
    #[arg(value_name = "MODEL", required_unless_present = "config")]
    pub(crate) model: Option<PathBuf>,
    /// JSONL file with the examples: "prompt" and "completion", "messages", or "text"
    #[arg(long, value_name = "FILE", conflicts_with = "task")]
    pub(crate) data: Option<PathBuf>,
    /// Generated task that gives the examples; see `cordada list tasks`
    #[arg(long, value_name = "NAME", value_parser = Names(task_names), hide_possible_values = true)]
    pub(crate) task: Option<String>,
    /// Train a low-rank adapter instead of the whole model: --lora r=8,alpha=16,targets=q_proj+v_proj
    ///
    /// Without targets, all linear layers; --lora r=8 is enough.
    #[arg(long, value_name = "KEY=VALUE,…", value_parser = parse_lora)]
    pub(crate) lora: Option<Changes>,
    /// Steps to train for: 500, 2k [default: 100]
    #[arg(long, value_name = "N", value_parser = parse_count)]
    pub(crate) steps: Option<u64>,
    /// Seed of every random stream; the same seed gives the same run [default: 1]
    #[arg(long, value_name = "S")]
    pub(crate) seed: Option<u64>,
    /// Threads to use; they never change a result
    #[arg(long, value_name = "T", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: u16,
    /// Change a setting: --set lr=3e-4 --set "learning_rate=linear(1e-3)"
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = parse_change)]
    pub(crate) changes: Vec<(String, Value)>,
    /// Take the settings from a config file, such as the config.toml of a run
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Directory of the run [default: runs/METHOD-DATA-N]
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
}

#[derive(Clone, Debug, Args)]
#[command(after_help = "\
`cordada list settings sft` shows the settings of fine-tuning, `stage` those of the run and `lora`
those of an adapter; change them with --set key=value, --set run.key=value, --set lora.key=value.")]
pub(crate) struct SftArgs {
    #[command(flatten)]
    pub(crate) stage: StageArgs,
}

#[derive(Clone, Debug, Args)]
#[command(after_help = "\
`cordada list settings align METHOD` shows the settings of a method, `stage` those of the run and
`lora` those of an adapter; change them with --set key=value. Terms of a reward are added:
  --reward exact --reward length,max=64,soft=16,weight=0.1 --reward 'command:python3 score.py'")]
pub(crate) struct AlignArgs {
    #[command(flatten)]
    pub(crate) stage: StageArgs,
    /// Term of the reward, may be repeated; see `cordada list rewards` [default: the task's own]
    #[arg(long, value_name = "TERM")]
    pub(crate) reward: Vec<String>,
    /// Method; see `cordada list methods` [default: grpo]
    #[arg(long, visible_alias = "method", value_name = "METHOD")]
    #[arg(value_parser = Names(method_names), hide_possible_values = true)]
    pub(crate) algo: Option<String>,
    /// Model that the KL divergence is taken to [default: the one that training begins from]
    #[arg(long, value_name = "MODEL")]
    pub(crate) reference: Option<PathBuf>,
}

/// How tokens are drawn; where nothing is given, as the model's generation_config.json says.
#[derive(Clone, Debug, Args)]
pub(crate) struct SamplingArgs {
    /// Logits are divided by it; 0 takes the likeliest token [default: the model's, else 1]
    #[arg(long, value_name = "X")]
    pub(crate) temperature: Option<f64>,
    /// Draw from the K likeliest tokens; 0 for all
    #[arg(long, value_name = "K")]
    pub(crate) top_k: Option<usize>,
    /// Draw from the likeliest tokens that together reach this probability
    #[arg(long, value_name = "P")]
    pub(crate) top_p: Option<f64>,
    /// Draw from tokens at least this many times as likely as the likeliest
    #[arg(long, value_name = "P")]
    pub(crate) min_p: Option<f64>,
    /// Make tokens that have occurred less likely, if above 1
    #[arg(long, value_name = "X")]
    pub(crate) repetition_penalty: Option<f64>,
    /// Longest answer in tokens [default: the task's, else 128; in a chat, 512]
    #[arg(long, value_name = "N")]
    pub(crate) max_new_tokens: Option<usize>,
    /// Text that ends an answer; may be repeated
    #[arg(long, value_name = "TEXT")]
    pub(crate) stop: Vec<String>,
    /// Seed of the answers; the same seed gives the same text
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub(crate) seed: u64,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct SampleArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Text that the answer continues
    #[arg(long, value_name = "TEXT", required_unless_present = "data")]
    #[arg(conflicts_with = "data")]
    pub(crate) prompt: Option<String>,
    /// JSONL file with prompts: "prompt", or "messages" for the model's chat template
    #[arg(long, value_name = "FILE")]
    pub(crate) data: Option<PathBuf>,
    /// Answers to each prompt
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) samples: u32,
    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ChatArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// What the model is told at the beginning, if it has a chat template
    #[arg(long, value_name = "TEXT")]
    pub(crate) system: Option<String>,
    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct EvalArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// JSONL file: answers ("completion") are measured, prompts are asked if there is a reward
    #[arg(long, value_name = "FILE", required_unless_present = "task", conflicts_with = "task")]
    pub(crate) data: Option<PathBuf>,
    /// Generated task, whose test prompts are asked; see `cordada list tasks`
    #[arg(long, value_name = "NAME", value_parser = Names(task_names), hide_possible_values = true)]
    pub(crate) task: Option<String>,
    /// Term of the reward, may be repeated; see `cordada list rewards` [default: the task's own]
    #[arg(long, value_name = "TERM")]
    pub(crate) reward: Vec<String>,
    /// Answers to each prompt
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) samples: u32,
    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct PlanArgs {
    /// Model, whose config.json is read and nothing else [default: one of --size]
    #[arg(value_name = "MODEL")]
    pub(crate) model: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) shape: ShapeArgs,
    /// Train a low-rank adapter: --lora r=8,alpha=16,targets=q_proj+v_proj
    #[arg(long, value_name = "KEY=VALUE,…", value_parser = parse_lora)]
    pub(crate) lora: Option<Changes>,
    /// Method of alignment; see `cordada list methods`
    #[arg(long, visible_alias = "method", value_name = "METHOD", default_value = "grpo")]
    #[arg(value_parser = Names(method_names), hide_possible_values = true)]
    pub(crate) algo: String,
    /// Fine-tuning on given answers instead of alignment
    #[arg(long)]
    pub(crate) given: bool,
    /// Sampling alone, without training
    #[arg(long, conflicts_with_all = ["given", "lora"])]
    pub(crate) sample_only: bool,
    /// Prompts of a step [default: the method's]
    #[arg(long, value_name = "N")]
    pub(crate) prompts: Option<usize>,
    /// Answers to each prompt [default: the method's]
    #[arg(long, value_name = "N")]
    pub(crate) samples: Option<usize>,
    /// Tokens of a prompt
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub(crate) prompt_tokens: usize,
    /// Tokens of an answer
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub(crate) max_new_tokens: usize,
    /// Threads
    #[arg(long, value_name = "T", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: u16,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct DemoArgs {
    /// Generated task; see `cordada list tasks`
    #[arg(value_name = "TASK", default_value = "sort")]
    #[arg(value_parser = Names(task_names), hide_possible_values = true)]
    pub(crate) task: String,
    /// Method of alignment; see `cordada list methods` [default: grpo]
    #[arg(long, visible_alias = "method", value_name = "METHOD")]
    #[arg(value_parser = Names(method_names), hide_possible_values = true)]
    pub(crate) algo: Option<String>,
    /// Seed of every random stream
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Courses with the seeds S, S+1, …, one after the other
    #[arg(long, value_name = "K", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub(crate) seeds: u64,
    /// Threads to use; they never change a result
    #[arg(long, value_name = "T", default_value_t = 2)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: u16,
    /// Steps of fine-tuning [default: the task's]
    #[arg(long, value_name = "N", value_parser = parse_count)]
    pub(crate) sft_steps: Option<u64>,
    /// Steps of alignment [default: the task's]
    #[arg(long, value_name = "N", value_parser = parse_count)]
    pub(crate) steps: Option<u64>,
    /// Steps of alignment between two evaluations on the way [default: none]
    #[arg(long, value_name = "N", value_parser = parse_count)]
    pub(crate) eval_every: Option<u64>,
    /// Change a setting of the alignment: --set lr=3e-4
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = parse_change)]
    pub(crate) changes: Vec<(String, Value)>,
    /// Folder that the aligned models are written to, one folder a seed
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
}

/// Settings to change.
#[derive(Clone, Debug)]
pub(crate) struct Changes(pub(crate) Vec<(String, Value)>);

/// Reads `r=8,alpha=16,targets=q_proj+v_proj`.
fn parse_lora(text: &str) -> Result<Changes, String> {
    let parts = text.split(',').map(|part| {
        let (key, value) = parse_change(part)?;
        let names = matches!(key.as_str(), "targets" | "target_modules");
        let value = match value {
            Value::String(list) if names => {
                Value::Array(list.split('+').map(|name| Value::String(name.into())).collect())
            }
            other => other,
        };
        Ok((format!("lora.{key}"), value))
    });
    parts.collect::<Result<_, String>>().map(Changes)
}

pub(crate) fn task_names() -> Vec<&'static str> {
    cordada::lm::tasks::TASKS.iter().map(|task| task.name()).collect()
}

pub(crate) fn method_names() -> Vec<&'static str> {
    cordada::lm::train::METHODS.iter().map(|method| method.name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_adapter_is_read_from_one_flag() {
        let Changes(changes) = parse_lora("r=4,alpha=8.5,targets=q_proj+v_proj").unwrap();
        let names = ["q_proj", "v_proj"].map(|name| Value::String(name.into()));
        assert_eq!(
            changes,
            [
                ("lora.r".to_string(), Value::Integer(4)),
                ("lora.alpha".to_string(), Value::Float(8.5)),
                ("lora.targets".to_string(), Value::Array(names.to_vec())),
            ]
        );
        assert_eq!(parse_lora("8").unwrap_err(), "not of the form key=value");
    }
}
