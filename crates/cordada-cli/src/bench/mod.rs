//! `cordada bench`: measurements of speed and of learning. Each is a file here and a line in
//! [`BENCHES`].

mod env_step;
mod learn;
mod mlp;
mod peak;
mod speed;
mod start;

use crate::args::BenchArgs;
use crate::output::Output;
use crate::report::Failure;

/// A measurement.
struct Bench {
    name: &'static str,
    summary: &'static str,
    run: fn(&BenchArgs, Output) -> Result<(), Failure>,
}

const BENCHES: &[Bench] = &[
    Bench {
        name: "env-step",
        summary: "Steps per second of each environment alone, with random actions.",
        run: env_step::run,
    },
    Bench {
        name: "ppo-cartpole-zoo",
        summary: "PPO, 8 × 32 samples, 1 minibatch, 20 epochs, 100k steps: the preset.",
        run: |args, output| speed::run(&speed::ZOO, args, output),
    },
    Bench {
        name: "ppo-cartpole-classic",
        summary: "PPO, 4 × 128 samples, 4 minibatches, 4 epochs, 500k steps.",
        run: |args, output| speed::run(&speed::CLASSIC, args, output),
    },
    Bench {
        name: "ppo-cartpole-wide",
        summary: "PPO, 2048 × 64 samples, 4 minibatches, 4 epochs, 4M steps.",
        run: |args, output| speed::run(&speed::WIDE, args, output),
    },
    Bench {
        name: "ppo-pendulum",
        summary: "PPO, 4 × 1024 samples, minibatches of 64, 10 epochs, 100k steps: the preset.",
        run: |args, output| speed::run(&speed::PENDULUM, args, output),
    },
    Bench {
        name: "mlp",
        summary: "Actor and critic: a forward pass, and a whole PPO minibatch.",
        run: mlp::run,
    },
    Bench {
        name: "start",
        summary: "Time from process start to the end of the first iteration, and peak memory.",
        run: start::run,
    },
    Bench {
        name: "learn",
        summary: "Trains a preset with 10 seeds and holds the returns against fixed thresholds; \
                  `bench learn ENV`, or all.",
        run: learn::run,
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
    if let Some(env) = args.env.as_ref().filter(|_| bench.name != "learn") {
        let message = format!("the benchmark {name} takes no environment, but \"{env}\" is given");
        return Err(Failure::usage(message, "only `cordada bench learn` takes one"));
    }
    (bench.run)(args, output)
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
