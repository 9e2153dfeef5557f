//! Training speed: whole runs without a run directory.

use std::time::Instant;

use cordada::rl::config::parse_assignment;
use cordada::rl::train::RunConfig;
use serde::Serialize;
use toml::Value;

use super::peak::peak_gflops;
use crate::args::BenchArgs;
use crate::output::{Output, grouped, short};
use crate::report::Failure;
use crate::seeds::spread;
use crate::stats::mean;

/// A training run to time: a preset with changes.
pub(super) struct Speed {
    name: &'static str,
    env: &'static str,
    changes: &'static [&'static str],
}

pub(super) const ZOO: Speed = Speed { name: "ppo-cartpole-zoo", env: "CartPole-v1", changes: &[] };

/// The settings of `CleanRL`'s `ppo.py`, whose value loss has the weight ½ and another ½ inside.
pub(super) const CLASSIC: Speed = Speed {
    name: "ppo-cartpole-classic",
    env: "CartPole-v1",
    changes: &[
        "num_envs=4",
        "num_steps=128",
        "num_minibatches=4",
        "num_epochs=4",
        "gamma=0.99",
        "gae_lambda=0.95",
        "learning_rate=linear(2.5e-4)",
        "clip_eps=0.2",
        "value_clip=max",
        "value_clip_eps=0.2",
        "value_coef=0.5",
        "entropy_coef=0.01",
        "run.total_steps=500000",
    ],
};

pub(super) const WIDE: Speed = Speed {
    name: "ppo-cartpole-wide",
    env: "CartPole-v1",
    changes: &[
        "num_envs=2048",
        "num_steps=64",
        "num_minibatches=4",
        "num_epochs=4",
        "gamma=0.99",
        "gae_lambda=0.95",
        "learning_rate=3e-3",
        "clip_eps=0.2",
        "value_clip=max",
        "value_clip_eps=0.2",
        "value_coef=0.5",
        "entropy_coef=0.01",
        "run.total_steps=4000000",
    ],
};

pub(super) const PENDULUM: Speed = Speed { name: "ppo-pendulum", env: "Pendulum-v1", changes: &[] };

#[derive(Serialize)]
struct Measured {
    bench: &'static str,
    /// Environment steps of all seeds.
    steps: u64,
    /// From the start of the first seed to the end of the last.
    seconds: f64,
    steps_per_s: f64,
    /// Mean over seeds of the mean return of 20 episodes.
    final_return: f64,
    threads: usize,
    /// Of the networks' products alone.
    gflops: f64,
    /// Of all threads together.
    peak_gflops: f64,
    share_of_peak: f64,
}

/// One run, trained.
struct Trained {
    steps: u64,
    flops: f64,
    began: Instant,
    ended: Instant,
    final_return: f64,
}

pub(super) fn run(speed: &Speed, args: &BenchArgs, output: Output) -> Result<(), Failure> {
    let changes: Vec<(String, Value)> =
        speed.changes.iter().map(|text| parse_assignment(text)).collect::<Result<_, _>>()?;
    let mut config = RunConfig::new("ppo", speed.env, &changes)?;
    config.run.eval_episodes = 20;
    config.run.seed = args.seed;
    let (seeds, threads) = (args.seeds.map_or(1, usize::from), usize::from(args.threads));
    let peak = peak_gflops() * (seeds * threads) as f64;
    let runs = spread(seeds, seeds, |i| {
        let mut config = config.clone();
        config.run.seed += i as u64;
        train(&config, threads)
    });
    let runs: Vec<Trained> = runs.into_iter().collect::<Result<_, _>>()?;
    let measured = summarize(speed.name, &runs, seeds * threads, peak);
    if output.json {
        output.object(&measured);
    } else {
        print(&measured, output);
    }
    Ok(())
}

fn train(config: &RunConfig, threads: usize) -> Result<Trained, Failure> {
    let mut algorithm = config.make(threads)?;
    let began = Instant::now();
    while algorithm.steps() < config.run.total_steps {
        algorithm.iterate()?;
    }
    let ended = Instant::now();
    let steps = algorithm.steps();
    let flops = algorithm.flops() as f64;
    let final_return = config.evaluate(&*algorithm)?.mean_return;
    Ok(Trained { steps, flops, began, ended, final_return })
}

fn summarize(bench: &'static str, runs: &[Trained], threads: usize, peak: f64) -> Measured {
    let began = runs.iter().map(|run| run.began).min();
    let ended = runs.iter().map(|run| run.ended).max();
    let seconds = began.zip(ended).map_or(0.0, |(began, ended)| (ended - began).as_secs_f64());
    let steps = runs.iter().map(|run| run.steps).sum();
    let gflops = runs.iter().map(|run| run.flops).sum::<f64>() / seconds / 1e9;
    Measured {
        bench,
        steps,
        seconds,
        steps_per_s: steps as f64 / seconds,
        final_return: mean(&runs.iter().map(|run| run.final_return).collect::<Vec<_>>()),
        threads,
        gflops,
        peak_gflops: peak,
        share_of_peak: gflops / peak,
    }
}

fn print(m: &Measured, output: Output) {
    let threads = if m.threads == 1 { "1 thread".into() } else { format!("{} threads", m.threads) };
    output.line(format!("{}  {threads}", output.bold(m.bench)));
    output.line(format!(
        "speed   {} steps/s ({} steps in {:.3} s)",
        short(m.steps_per_s),
        grouped(m.steps),
        m.seconds
    ));
    output.line(format!(
        "peak    {:.1} of {:.1} GFLOP/s in the networks' products ({:.0} %)",
        m.gflops,
        m.peak_gflops,
        100.0 * m.share_of_peak
    ));
    output.line(format!("return  {:.1} over 20 episodes", m.final_return));
}
