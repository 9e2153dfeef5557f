//! The command line's shape: commands, flags, their help and how values are read. What the commands
//! do is in the file of each.

use std::path::PathBuf;

use clap::builder::{PossibleValue, TypedValueParser};
use clap::{Args, ColorChoice, Parser, Subcommand};
use clap_complete::Shell;
use cordada::rl::config::parse_assignment;
use toml::Value;

use crate::rlhf::RlhfCommand;

/// Shown below the list of commands.
const EXAMPLES: &str = "\
Examples:
  cordada                               a first run, from start to result
  cordada train ppo Pendulum-v1         train with settings tuned for the task
  cordada train ppo CartPole-v1 --steps 50k --set gamma=0.99
  cordada resume runs/ppo-CartPole-v1-1
  cordada eval runs/ppo-CartPole-v1-1
  cordada list settings ppo             every setting with its default";

/// Policy gradients: fast, exact, resumable.
///
/// Without a command it trains PPO on CartPole-v1 as a demonstration.
#[derive(Debug, Parser)]
#[command(name = "cordada", version, after_help = EXAMPLES, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) global: Global,
}

/// Flags of every command.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Global {
    /// Write results as JSON, one object a line, and nothing else to stdout
    #[arg(long, global = true, help_heading = "Global options")]
    pub(crate) json: bool,
    /// Show no progress; results and errors are still printed
    #[arg(long, short, global = true, help_heading = "Global options")]
    pub(crate) quiet: bool,
    /// Colors: always, never, or auto, which heeds NO_COLOR, pipes and dumb terminals
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    #[arg(hide_default_value = true, hide_possible_values = true, help_heading = "Global options")]
    pub(crate) color: ColorChoice,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Train a policy: a new run in a new directory
    Train(TrainArgs),
    /// Continue an interrupted run from its newest whole checkpoint
    ///
    /// The result is the same, bit for bit, as if the run had never been interrupted.
    Resume(ResumeArgs),
    /// Play episodes with a trained policy and report their return
    Eval(EvalArgs),
    /// Language models: make, fine-tune, align, sample and measure them
    Rlhf {
        #[command(subcommand)]
        what: RlhfCommand,
    },
    /// List what there is: algorithms, environments, metrics, presets, settings
    List {
        #[command(subcommand)]
        what: ListCommand,
    },
    /// Check environments, or replay recordings in them
    Env {
        #[command(subcommand)]
        what: EnvCommand,
    },
    /// Measure speed and learning on this machine
    Bench(BenchArgs),
    /// Write a completion script for a shell
    ///
    /// For bash: cordada completions bash > ~/.local/share/bash-completion/completions/cordada
    Completions {
        /// The shell
        shell: Shell,
    },
}

#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Settings come from the preset for the algorithm and environment where there is one (`cordada list
presets`), else from the defaults (`cordada list settings ALGO`), then from --set and the flags.
With --config the file takes the place of the preset.")]
pub(crate) struct TrainArgs {
    /// Algorithm; see `cordada list algos`
    #[arg(required_unless_present = "config", value_parser = Names(algo_names))]
    #[arg(hide_possible_values = true)]
    pub(crate) algo: Option<String>,
    /// Environment; see `cordada list envs`
    #[arg(required_unless_present = "config", value_parser = Names(env_names))]
    #[arg(hide_possible_values = true)]
    pub(crate) env: Option<String>,
    /// Environment steps to train for: 500000, 500k, 2M, 1e6
    #[arg(long, value_name = "N", value_parser = parse_count)]
    pub(crate) steps: Option<u64>,
    /// Seed of every random stream; the same seed gives the same run [default: 1]
    #[arg(long, value_name = "S")]
    pub(crate) seed: Option<u64>,
    /// Train K runs with the seeds S, S+1, … side by side, and report them together
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub(crate) seeds: Option<u64>,
    /// Threads of one run [default: 1]; with --seeds, runs at a time [default: all cores]
    ///
    /// Threads never change a result, only the time it takes. One is the default because networks
    /// of the usual size take less time to run than to share; more pay off from several hundred
    /// samples per minibatch or with slow environments. With --seeds every run has one thread.
    #[arg(long, value_name = "T", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Option<u16>,
    /// Change a setting: --set gamma=0.99 --set "learning_rate=linear(1e-3)"
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = parse_change)]
    pub(crate) changes: Vec<(String, Value)>,
    /// Take the settings from a config file, such as the config.toml of a run
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Directory of the run [default: runs/ALGO-ENV-N]; with --seeds, the folder of the runs'
    /// directories [default: runs]
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ResumeArgs {
    /// Directory of the run
    #[arg(value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// Threads to use; they never change a result
    #[arg(long, value_name = "T", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: u16,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct EvalArgs {
    /// Directory of a run, whose newest whole checkpoint is taken; or a policy.safetensors
    #[arg(value_name = "DIR|FILE")]
    pub(crate) path: PathBuf,
    /// Episodes to play
    #[arg(long, value_name = "N", default_value_t = 100)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) episodes: u32,
    /// Seed of the episodes [default: the run's, which repeats the evaluation at its end]
    #[arg(long, value_name = "S")]
    pub(crate) seed: Option<u64>,
    /// Sample actions, as in training, rather than take the most probable ones
    #[arg(long)]
    pub(crate) stochastic: bool,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum ListCommand {
    /// Algorithms: where they come from, what they act in, memory, masks, resume
    Algos {
        /// As a Markdown table, for documentation
        #[arg(long, conflicts_with = "json")]
        markdown: bool,
    },
    /// Environments, their spaces and limits
    Envs,
    /// Metrics: what each number means and what a bad value looks like
    Metrics,
    /// Presets: settings tuned for an environment
    Presets,
    /// Methods of aligning language models
    Methods,
    /// Terms of rewards for language models
    Rewards,
    /// Generated tasks for language models
    Tasks,
    /// Settings of an algorithm, with defaults
    ///
    /// Also of `run`; of language models' stages: `sft`, `align` (with a method behind it), `stage`
    /// (their run) and `lora`.
    Settings {
        /// Algorithm, method, or section of a config
        #[arg(value_parser = Names(setting_names), hide_possible_values = true)]
        algo: String,
        /// Method of `align`
        #[arg(value_parser = Names(crate::rlhf::method_names), hide_possible_values = true)]
        method: Option<String>,
    },
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum EnvCommand {
    /// Check that an environment keeps the contract; exit code 1 if it does not
    Check {
        /// Environment
        #[arg(value_parser = Names(env_names), hide_possible_values = true)]
        name: String,
    },
    /// Replay recorded trajectories and report the largest differences
    Replay {
        /// Recordings (.safetensors)
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
}

#[derive(Clone, Debug, Args)]
pub(crate) struct BenchArgs {
    /// Benchmark; none lists them
    pub(crate) name: Option<String>,
    /// What `learn` trains in: an environment, or all
    #[arg(value_name = "ENV")]
    pub(crate) env: Option<String>,
    /// Threads of one run [default: 1]; 1,2 measures both and their ratio; for `learn` and
    /// `family`, runs at a time [default: all cores]
    #[arg(long, value_name = "T", value_delimiter = ',')]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Vec<u16>,
    /// Runs with seeds S, S+1, … [default: 1; for `learn` 10, for `family` 5]
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) seeds: Option<u16>,
    /// First seed
    #[arg(long, value_name = "S", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u64).range(..1 << 62))]
    pub(crate) seed: u64,
    /// Algorithms that `learn` and `family` train, with commas between them [default: all]
    #[arg(long, visible_alias = "algo", value_name = "ALGO", value_delimiter = ',')]
    pub(crate) algos: Vec<String>,
    /// Environments that `learn` and `family` train in, with commas between them [default: all]
    #[arg(long, visible_alias = "env", value_name = "ENV", value_delimiter = ',', id = "envs")]
    pub(crate) envs: Vec<String>,
    /// Factor of the steps that `family` trains for [default: 1]
    #[arg(long, value_name = "X", value_parser = parse_positive)]
    pub(crate) steps_scale: Option<f64>,
    /// Seconds of a run where `family` gives all the same time; 0 for no such runs [default: 10]
    #[arg(long, value_name = "X", value_parser = parse_seconds)]
    pub(crate) seconds: Option<f64>,
    /// Folder that `family` writes to [default: family]
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
}

/// Reads a factor.
fn parse_positive(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|x| x.is_finite() && *x > 0.0);
    number.ok_or_else(|| "a number above 0 is needed".to_string())
}

/// Reads a time.
fn parse_seconds(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|x| (0.0..=1e6).contains(x));
    number.ok_or_else(|| "a number from 0 to 1e6 is needed".to_string())
}

/// Reads `key=value`.
pub(crate) fn parse_change(text: &str) -> Result<(String, Value), String> {
    parse_assignment(text).map_err(|_| "not of the form key=value".to_string())
}

/// Reads a count of steps: `500000`, `1_000_000`, `500k`, `2M`, `1e6`.
pub(crate) fn parse_count(text: &str) -> Result<u64, String> {
    let refuse = || "a whole number above 0 is needed, such as 500000, 500k, 2M or 1e6".to_string();
    let plain = text.trim().replace('_', "");
    let (digits, factor) = match plain.char_indices().next_back() {
        Some((at, 'k' | 'K')) => (&plain[..at], 1e3),
        Some((at, 'm' | 'M')) => (&plain[..at], 1e6),
        _ => (&plain[..], 1.0),
    };
    if factor == 1.0
        && let Ok(count) = digits.parse::<u64>()
    {
        // Config files hold signed numbers.
        return if count == 0 || i64::try_from(count).is_err() { Err(refuse()) } else { Ok(count) };
    }
    let count = digits.parse::<f64>().map_err(|_| refuse())? * factor;
    // Up to 2⁵³ every whole number is exact.
    if count.fract() != 0.0 || !(1.0..=9_007_199_254_740_992.0).contains(&count) {
        return Err(refuse());
    }
    Ok(count as u64)
}

/// A name of a list: completions know the list, while wrong names are refused later, by the list
/// itself, which knows aliases and the nearest name.
#[derive(Clone, Copy)]
pub(crate) struct Names(pub(crate) fn() -> Vec<&'static str>);

fn algo_names() -> Vec<&'static str> {
    cordada::rl::algo::ALGORITHMS.iter().map(|spec| spec.name).collect()
}

fn setting_names() -> Vec<&'static str> {
    let methods = crate::rlhf::method_names();
    let sections = ["run", "sft", "align", "stage", "lora"];
    algo_names().into_iter().chain(sections).chain(methods).collect()
}

fn env_names() -> Vec<&'static str> {
    cordada::env::ENVIRONMENTS.iter().map(|spec| spec.name).collect()
}

impl TypedValueParser for Names {
    type Value = String;

    fn parse_ref(
        &self,
        command: &clap::Command,
        arg: Option<&clap::Arg>,
        value: &std::ffi::OsStr,
    ) -> Result<String, clap::Error> {
        clap::builder::StringValueParser::new().parse_ref(command, arg, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new((self.0)().into_iter().map(PossibleValue::new)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_in_every_form() {
        for (text, count) in [
            ("500000", 500_000),
            ("1_000_000", 1_000_000),
            ("500k", 500_000),
            ("2M", 2_000_000),
            ("1e6", 1_000_000),
            ("1.5M", 1_500_000),
            ("2.5e3", 2500),
        ] {
            assert_eq!(parse_count(text), Ok(count), "{text}");
        }
        for text in
            ["", "0", "-1", "1.5", "k", "many", "1e-3", "1e300", "nan", "99999999999999999999"]
        {
            assert!(parse_count(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
