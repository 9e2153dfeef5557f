//! `cordada bench`: measurements of speed and of learning. Each is a file here and a line in
//! [`BENCHES`].

mod cnn;
mod env_step;
mod family;
mod learn;
mod lm;
mod lstm;
mod mlp;
mod peak;
mod replay;
mod speed;
mod start;
mod timing;

use cordada::rl::algo::{self, AlgoSpec};

use crate::args::BenchArgs;
use crate::output::Output;
use crate::report::Failure;
use crate::seeds::cores;

/// A measurement.
struct Bench {
    name: &'static str,
    summary: &'static str,
    /// What it takes beyond threads, seeds and the first seed.
    takes: &'static [&'static str],
    run: fn(&BenchArgs, Output) -> Result<(), Failure>,
}

const BENCHES: &[Bench] = &[
    Bench {
        name: "env-step",
        summary: "Steps per second of each environment alone, with random actions.",
        takes: &[],
        run: env_step::run,
    },
    Bench {
        name: "ppo-cartpole-zoo",
        summary: "PPO, 8 × 32 samples, 1 minibatch, 20 epochs, 100k steps: the preset.",
        takes: &[],
        run: |args, output| speed::run(&speed::ZOO, args, output),
    },
    Bench {
        name: "ppo-cartpole-classic",
        summary: "PPO, 4 × 128 samples, 4 minibatches, 4 epochs, 500k steps.",
        takes: &[],
        run: |args, output| speed::run(&speed::CLASSIC, args, output),
    },
    Bench {
        name: "ppo-cartpole-wide",
        summary: "PPO, 2048 × 64 samples, 4 minibatches, 4 epochs, 4M steps.",
        takes: &[],
        run: |args, output| speed::run(&speed::WIDE, args, output),
    },
    Bench {
        name: "ppo-pendulum",
        summary: "PPO, 4 × 1024 samples, minibatches of 64, 10 epochs, 100k steps: the preset.",
        takes: &[],
        run: |args, output| speed::run(&speed::PENDULUM, args, output),
    },
    Bench {
        name: "a2c-cartpole",
        summary: "A2C, 500k steps.",
        takes: &[],
        run: |args, output| speed::run(&speed::A2C, args, output),
    },
    Bench {
        name: "a3c-cartpole",
        summary: "A3C without locks, 500k steps; --threads 1,2 compares.",
        takes: &[],
        run: |args, output| speed::run(&speed::A3C, args, output),
    },
    Bench {
        name: "trpo-cartpole",
        summary: "TRPO, 100k steps.",
        takes: &[],
        run: |args, output| speed::run(&speed::TRPO, args, output),
    },
    Bench {
        name: "dqn-cartpole",
        summary: "DQN, 50k steps: the preset, from the first update on.",
        takes: &[],
        run: |args, output| speed::run(&speed::DQN, args, output),
    },
    Bench {
        name: "sac-pendulum",
        summary: "SAC, 256 × 256, an update with a batch of 256 every step, 2k steps from the \
                  first update on.",
        takes: &[],
        run: |args, output| speed::run(&speed::SAC, args, output),
    },
    Bench {
        name: "mlp",
        summary: "Actor and critic: a forward pass, and a whole PPO minibatch.",
        takes: &[],
        run: mlp::run,
    },
    Bench {
        name: "nature-cnn",
        summary: "Convolutions for 32 images of 4 × 84 × 84: forward, and all of a training step.",
        takes: &[],
        run: cnn::run,
    },
    Bench {
        name: "lstm",
        summary: "LSTM of 128 units, 32 sequences of 32 steps: forward, and back.",
        takes: &[],
        run: lstm::run,
    },
    Bench {
        name: "replay",
        summary: "A batch of 256 from a million transitions.",
        takes: &[],
        run: replay::run,
    },
    Bench {
        name: "lm",
        summary: "Language models: training, sampling, steps of GRPO and PPO, and the memory of a \
                  large vocabulary; --threads 1,2 compares.",
        takes: &[],
        run: lm::run,
    },
    Bench {
        name: "start",
        summary: "Time from process start to the end of the first iteration, and peak memory.",
        takes: &[],
        run: start::run,
    },
    Bench {
        name: "learn",
        summary: "Trains with 10 seeds and holds the returns against bars that were fixed \
                  beforehand; `bench learn ENV`, --algos and --envs choose some of them.",
        takes: &["ENV", "--algos", "--envs"],
        run: learn::run,
    },
    Bench {
        name: "family",
        summary: "Trains every algorithm with 5 seeds in several environments, with equal steps \
                  and with equal time; writes a table, plots and the raw numbers to a folder.",
        takes: &["--algos", "--envs", "--steps-scale", "--seconds", "--out"],
        run: family::run,
    },
];

pub(crate) fn run(args: &BenchArgs, output: Output) -> Result<(), Failure> {
    let Some(name) = &args.name else {
        list(output);
        return Ok(());
    };
    let Some(bench) = BENCHES.iter().find(|bench| bench.name == name) else {
        let near = BENCHES
            .iter()
            .map(|bench| (strsim::normalized_damerau_levenshtein(name, bench.name), bench.name))
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .filter(|(similarity, _)| *similarity >= 0.5)
            .map_or(String::new(), |(_, near)| format!("did you mean \"{near}\"? "));
        let help = format!("{near}`cordada bench` lists all");
        return Err(Failure::usage(format!("unknown benchmark \"{name}\""), help));
    };
    if let Some(given) = given(args).into_iter().find(|given| !bench.takes.contains(given)) {
        let takes: Vec<&str> =
            BENCHES.iter().filter(|b| b.takes.contains(&given)).map(|b| b.name).collect();
        let message = format!("the benchmark {name} takes no {given}");
        let help = format!("what takes one: {}", takes.join(", "));
        return Err(Failure::usage(message, help));
    }
    (bench.run)(args, output)
}

/// What is given that not all benchmarks take.
fn given(args: &BenchArgs) -> Vec<&'static str> {
    let all = [
        ("ENV", args.env.is_some()),
        ("--algos", !args.algos.is_empty()),
        ("--envs", !args.envs.is_empty()),
        ("--steps-scale", args.steps_scale.is_some()),
        ("--seconds", args.seconds.is_some()),
        ("--out", args.out.is_some()),
    ];
    all.into_iter().filter(|(_, is_given)| *is_given).map(|(name, _)| name).collect()
}

/// Algorithms and environments that flags choose. None chooses all.
struct Chosen {
    algos: Vec<&'static str>,
    envs: Vec<&'static str>,
}

impl Chosen {
    /// Those of `--algos`, `--envs` and ENV.
    fn new(args: &BenchArgs) -> Result<Self, Failure> {
        let algo = |name: &String| -> Result<&'static str, Failure> { Ok(algo::find(name)?.name) };
        let env =
            |name: &String| -> Result<&'static str, Failure> { Ok(cordada::env::find(name)?.name) };
        let of_env = args.env.iter().filter(|name| *name != "all");
        Ok(Self {
            algos: args.algos.iter().map(algo).collect::<Result<_, _>>()?,
            envs: of_env.chain(&args.envs).map(env).collect::<Result<_, _>>()?,
        })
    }

    fn has_algo(&self, name: &str) -> bool {
        self.algos.is_empty() || self.algos.contains(&name)
    }

    fn has_env(&self, name: &str) -> bool {
        self.envs.is_empty() || self.envs.contains(&name)
    }
}

/// The seeds that flags choose.
fn seeds(args: &BenchArgs, default: u16) -> Vec<u64> {
    (0..u64::from(args.seeds.unwrap_or(default))).map(|i| args.seed + i).collect()
}

/// Runs at a time.
fn workers(args: &BenchArgs) -> usize {
    args.threads.iter().copied().max().map_or_else(cores, usize::from)
}

/// Whether there is a preset for an algorithm in an environment.
fn has_preset(algo: &AlgoSpec, env: &str) -> bool {
    cordada::rl::presets::PRESETS.iter().any(|p| p.algo == algo.name && p.env == env)
}

fn list(output: Output) {
    if output.json {
        let list = BENCHES
            .iter()
            .map(|bench| serde_json::json!({ "name": bench.name, "summary": bench.summary }));
        return output.object(&list.collect::<Vec<_>>());
    }
    let rows = BENCHES.iter().map(|b| vec![b.name.to_string(), b.summary.to_string()]);
    output.table(&["name", "what"], &rows.collect::<Vec<_>>());
}
