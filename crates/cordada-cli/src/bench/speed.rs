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

/// A training run to time: a preset, or the defaults if there is none, with changes.
pub(super) struct Speed {
    name: &'static str,
    algo: &'static str,
    env: &'static str,
    /// Steps before the time begins, in which a replay memory is filled and nothing is learned.
    warmup: u64,
    changes: &'static [&'static str],
}

pub(super) const ZOO: Speed = Speed {
    name: "ppo-cartpole-zoo",
    algo: "ppo",
    env: "CartPole-v1",
    warmup: 0,
    changes: &["run.total_steps=100000"],
};

/// The settings of `CleanRL`'s `ppo.py`, whose value loss has the weight ½ and another ½ inside.
pub(super) const CLASSIC: Speed = Speed {
    name: "ppo-cartpole-classic",
    algo: "ppo",
    env: "CartPole-v1",
    warmup: 0,
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
    algo: "ppo",
    env: "CartPole-v1",
    warmup: 0,
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

pub(super) const PENDULUM: Speed = Speed {
    name: "ppo-pendulum",
    algo: "ppo",
    env: "Pendulum-v1",
    warmup: 0,
    changes: &["run.total_steps=100000"],
};

/// One update a step.
pub(super) const SAC: Speed = Speed {
    name: "sac-pendulum",
    algo: "sac",
    env: "Pendulum-v1",
    warmup: 1000,
    changes: &[
        "num_envs=1",
        "train_freq=1",
        "gradient_steps=1",
        "batch_size=256",
        "learning_starts=1000",
        "steps_per_iteration=250",
        "actor=[256, 256]",
        "critic=[256, 256]",
        "run.total_steps=3000",
    ],
};

pub(super) const DQN: Speed = Speed {
    name: "dqn-cartpole",
    algo: "dqn",
    env: "CartPole-v1",
    warmup: 1000,
    changes: &["learning_starts=1000", "run.total_steps=50000"],
};

pub(super) const TRPO: Speed = Speed {
    name: "trpo-cartpole",
    algo: "trpo",
    env: "CartPole-v1",
    warmup: 0,
    changes: &["run.total_steps=100000"],
};

pub(super) const A2C: Speed = Speed {
    name: "a2c-cartpole",
    algo: "a2c",
    env: "CartPole-v1",
    warmup: 0,
    changes: &["run.total_steps=500000"],
};

pub(super) const A3C: Speed = Speed {
    name: "a3c-cartpole",
    algo: "a3c",
    env: "CartPole-v1",
    warmup: 0,
    changes: &["mode=async", "run.total_steps=500000"],
};

#[derive(Serialize)]
struct Measured {
    bench: &'static str,
    /// Environment steps of all seeds, those of the warm-up left out.
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
    let config = config(speed, args.seed)?;
    let seeds = args.seeds.map_or(1, usize::from);
    let mut first = None;
    for &threads in if args.threads.is_empty() { &[1][..] } else { &args.threads } {
        let threads = usize::from(threads);
        let peak = peak_gflops() * (seeds * threads) as f64;
        let runs = spread(seeds, seeds, |i| {
            let mut config = config.clone();
            config.run.seed += i as u64;
            train(&config, speed.warmup, threads)
        });
        let runs: Vec<Trained> = runs.into_iter().collect::<Result<_, _>>()?;
        let measured = summarize(speed.name, &runs, seeds * threads, peak);
        if output.json {
            output.object(&measured);
            continue;
        }
        print(&measured, output);
        match first {
            None => first = Some((threads, measured.steps_per_s)),
            Some((of, steps_per_s)) => output.line(format!(
                "ratio   {:.2} times the steps/s of --threads {of}",
                measured.steps_per_s / steps_per_s
            )),
        }
    }
    Ok(())
}

fn config(speed: &Speed, seed: u64) -> Result<RunConfig, Failure> {
    let changes: Vec<(String, Value)> =
        speed.changes.iter().map(|text| parse_assignment(text)).collect::<Result<_, _>>()?;
    let mut config = RunConfig::new(speed.algo, speed.env, &changes)?;
    config.run.eval_episodes = 20;
    config.run.seed = seed;
    Ok(config)
}

fn train(config: &RunConfig, warmup: u64, threads: usize) -> Result<Trained, Failure> {
    let mut algorithm = config.make(threads)?;
    while algorithm.steps() < warmup {
        algorithm.iterate()?;
    }
    let (first, done) = (algorithm.steps(), algorithm.flops());
    let began = Instant::now();
    while algorithm.steps() < config.run.total_steps {
        algorithm.iterate()?;
    }
    let ended = Instant::now();
    let (steps, flops) = (algorithm.steps() - first, (algorithm.flops() - done) as f64);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_begins_with_the_first_update() {
        let all = [&ZOO, &CLASSIC, &WIDE, &PENDULUM, &SAC, &DQN, &TRPO, &A2C, &A3C];
        let mut off_policy = 0;
        for speed in all {
            let config = config(speed, 1).unwrap();
            let starts =
                config.settings.get("learning_starts").map_or(0, |n| n.as_integer().unwrap());
            assert_eq!(starts as u64, speed.warmup, "{}", speed.name);
            assert!(config.run.total_steps > speed.warmup, "{}", speed.name);
            off_policy += usize::from(starts > 0);
        }
        assert_eq!(off_policy, 2);
    }

    #[test]
    fn the_warm_up_is_not_measured() {
        let changes = [
            "train_freq=1",
            "gradient_steps=1",
            "num_envs=1",
            "hidden=[8]",
            "steps_per_iteration=300",
        ];
        let changes: Vec<_> = changes.iter().map(|text| parse_assignment(text).unwrap()).collect();
        let mut config = config(&DQN, 1).unwrap().with(&changes).unwrap();
        config.run.total_steps = 1500;
        let run = train(&config, 1000, 1).unwrap();
        // Of five iterations, the fourth one ends the warm-up.
        assert_eq!(run.steps, 300);
        let all = train(&config, 0, 1).unwrap();
        assert!(0.0 < run.flops && run.flops < all.flops && all.steps == 1500);
    }
}
