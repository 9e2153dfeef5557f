//! Learning: algorithms with their presets against bars that were fixed beforehand.

use std::sync::atomic::Ordering;
use std::time::Instant;

use cordada::rl;
use cordada::rl::algo;
use cordada::rl::train::RunConfig;
use serde::Serialize;

use super::{Chosen, has_preset, seeds, workers};
use crate::args::BenchArgs;
use crate::interrupt::{STOP, watch};
use crate::output::{Output, pad, short};
use crate::report::Failure;
use crate::seeds::spread;
use crate::stats::{Aggregate, mean};

/// Seeds if no flag says otherwise.
const SEEDS: u16 = 10;
/// Episodes of each evaluation.
const EPISODES: usize = 100;

/// What the returns are held against.
#[derive(Clone, Copy)]
enum Rule {
    /// Every seed reaches it.
    Every(f64),
    /// The mean over seeds reaches it.
    Mean(f64),
}

impl Rule {
    fn threshold(self) -> f64 {
        match self {
            Self::Every(threshold) | Self::Mean(threshold) => threshold,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Every(_) => "every",
            Self::Mean(_) => "mean",
        }
    }

    /// A run that diverged has the return NaN, which reaches nothing.
    fn passes(self, returns: &[f64]) -> bool {
        match self {
            Self::Every(threshold) => returns.iter().all(|&x| x >= threshold),
            Self::Mean(threshold) => mean(returns) >= threshold,
        }
    }
}

/// A bar: what an algorithm reaches in an environment, in so many steps.
struct Bar {
    algo: &'static str,
    env: &'static str,
    steps: u64,
    rule: Rule,
}

const fn bar(algo: &'static str, env: &'static str, steps: u64, rule: Rule) -> Bar {
    Bar { algo, env, steps, rule }
}

/// Steps and thresholds are fixed: they do not follow what the presets reach.
const BARS: &[Bar] = &[
    bar("ppo", "CartPole-v1", 100_000, Rule::Every(475.0)),
    bar("ppo", "Acrobot-v1", 1_000_000, Rule::Mean(-85.0)),
    bar("ppo", "Pendulum-v1", 100_000, Rule::Mean(-200.0)),
    bar("ppo", "MountainCar-v0", 1_000_000, Rule::Mean(-115.0)),
    bar("ppo", "MountainCarContinuous-v0", 50_000, Rule::Mean(90.0)),
    bar("ppo", "CartPoleNoVel-v1", 200_000, Rule::Mean(475.0)),
    bar("reinforce", "CartPole-v1", 200_000, Rule::Mean(450.0)),
    bar("a2c", "CartPole-v1", 500_000, Rule::Mean(490.0)),
    bar("a3c", "CartPole-v1", 500_000, Rule::Mean(475.0)),
    bar("trpo", "CartPole-v1", 100_000, Rule::Mean(475.0)),
    bar("dqn", "CartPole-v1", 100_000, Rule::Mean(450.0)),
    bar("double_dqn", "CartPole-v1", 200_000, Rule::Mean(460.0)),
    bar("c51", "CartPole-v1", 200_000, Rule::Mean(460.0)),
    bar("trpo", "Acrobot-v1", 100_000, Rule::Mean(-90.0)),
    bar("dqn", "Acrobot-v1", 100_000, Rule::Mean(-90.0)),
    bar("sac", "Pendulum-v1", 20_000, Rule::Mean(-160.0)),
    bar("td3", "Pendulum-v1", 20_000, Rule::Mean(-170.0)),
    bar("ddpg", "Pendulum-v1", 20_000, Rule::Mean(-170.0)),
    bar("trpo", "Pendulum-v1", 100_000, Rule::Mean(-200.0)),
    bar("sac", "MountainCarContinuous-v0", 50_000, Rule::Mean(90.0)),
];

#[derive(Serialize)]
struct Learned {
    bench: &'static str,
    algo: &'static str,
    env: &'static str,
    /// Whether the settings are a preset's, and not the defaults.
    preset: bool,
    steps: u64,
    seeds: Vec<u64>,
    /// Null for a run that diverged; then there is no mean either.
    returns: Vec<f64>,
    mean: f64,
    min: f64,
    /// Standard deviation over the seeds (n − 1 in the denominator); 0 for one.
    std: f64,
    iqm: f64,
    iqm_low: f64,
    iqm_high: f64,
    /// Mean over the seeds of the seconds that a run trained, on one thread.
    seconds: f64,
    rule: &'static str,
    threshold: f64,
    passed: bool,
}

pub(super) fn run(args: &BenchArgs, output: Output) -> Result<(), Failure> {
    let chosen = Chosen::new(args)?;
    let bars: Vec<&Bar> =
        BARS.iter().filter(|b| chosen.has_algo(b.algo) && chosen.has_env(b.env)).collect();
    if bars.is_empty() {
        let all: Vec<String> = BARS.iter().map(|b| format!("{} on {}", b.algo, b.env)).collect();
        let help = format!("there are {}", all.join(", "));
        return Err(Failure::usage("no bar is chosen", help));
    }
    watch(output)?;
    if !output.json {
        output.line(output.bold(&line(&HEAD.map(|(name, _)| name.to_string()))));
    }
    let mut passed = true;
    for bar in bars {
        let Some(learned) = learn(bar, args, output)? else {
            return Err(Failure::interrupted());
        };
        passed &= learned.passed;
        if output.json {
            output.object(&learned);
        } else {
            output.line(line(&row(&learned)));
        }
    }
    if !output.json {
        output.note(format!(
            "returns: mean of {EPISODES} episodes, most probable action; std: of the seeds; s: \
             training of one seed; * no preset: default settings"
        ));
    }
    if passed { Ok(()) } else { Err(Failure::told()) }
}

/// Trains all seeds; none if it was asked to stop.
fn learn(bar: &Bar, args: &BenchArgs, output: Output) -> Result<Option<Learned>, Failure> {
    let seeds = seeds(args, SEEDS);
    let mut config = RunConfig::new(bar.algo, bar.env, &[])?;
    config.run.total_steps = bar.steps;
    config.run.eval_episodes = EPISODES;
    let runs = spread(seeds.len(), workers(args), |i| {
        let mut config = config.clone();
        config.run.seed = seeds[i];
        train(&config)
    });
    let (mut returns, mut seconds) = (Vec::new(), 0.0);
    for (run, &seed) in runs.into_iter().zip(&seeds) {
        match run {
            Ok(Some((run_return, run_seconds))) => {
                returns.push(run_return);
                seconds += run_seconds / seeds.len() as f64;
            }
            Ok(None) => return Ok(None),
            Err(error @ rl::Error::NonFinite { .. }) => {
                let (algo, env) = (bar.algo, bar.env);
                output.warning(&format!("{algo} on {env}, seed {seed}, diverged: {error}"));
                returns.push(f64::NAN);
            }
            Err(error) => return Err(error.into()),
        }
    }
    let preset = has_preset(algo::find(bar.algo)?, bar.env);
    Ok(Some(Learned::new(bar, preset, seeds, returns, seconds)))
}

/// Final return and seconds of training; none if it was asked to stop.
fn train(config: &RunConfig) -> Result<Option<(f64, f64)>, rl::Error> {
    let mut algorithm = config.make(1)?;
    let began = Instant::now();
    while algorithm.steps() < config.run.total_steps {
        if STOP.load(Ordering::Relaxed) {
            return Ok(None);
        }
        algorithm.iterate()?;
    }
    let seconds = began.elapsed().as_secs_f64();
    Ok(Some((config.evaluate(&*algorithm)?.mean_return, seconds)))
}

impl Learned {
    fn new(bar: &Bar, preset: bool, seeds: Vec<u64>, returns: Vec<f64>, seconds: f64) -> Self {
        let a = Aggregate::of(&returns);
        let squares: f64 = returns.iter().map(|x| (x - a.mean).powi(2)).sum();
        // What a diverged run has is below all numbers.
        let lower =
            |low: f64, &x: &f64| if low.is_nan() || x.is_nan() { f64::NAN } else { low.min(x) };
        Self {
            bench: "learn",
            algo: bar.algo,
            env: bar.env,
            preset,
            steps: bar.steps,
            seeds,
            passed: bar.rule.passes(&returns),
            mean: a.mean,
            min: returns.iter().fold(f64::INFINITY, lower),
            std: (squares / returns.len().saturating_sub(1).max(1) as f64).sqrt(),
            iqm: a.iqm,
            iqm_low: a.low,
            iqm_high: a.high,
            seconds,
            returns,
            rule: bar.rule.name(),
            threshold: bar.rule.threshold(),
        }
    }
}

/// Columns and their widths.
const HEAD: [(&str, usize); 9] = [
    ("algorithm", 11),
    ("environment", 24),
    ("steps", 5),
    ("bar", 11),
    ("mean", 7),
    ("min", 7),
    ("std", 6),
    ("s", 6),
    ("", 6),
];

fn row(l: &Learned) -> [String; 9] {
    let star = if l.preset { "" } else { " *" };
    [
        format!("{}{star}", l.algo),
        l.env.to_string(),
        short(l.steps as f64),
        format!("{} {}", l.rule, l.threshold),
        format!("{:.1}", l.mean),
        format!("{:.1}", l.min),
        format!("{:.1}", l.std),
        format!("{:.1}", l.seconds),
        if l.passed { "passed" } else { "FAILED" }.to_string(),
    ]
}

fn line(cells: &[String; 9]) -> String {
    let padded = cells.iter().zip(HEAD).map(|(cell, (_, width))| pad(cell, width));
    padded.collect::<Vec<_>>().join("  ").trim_end().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_about_every_seed_or_the_mean() {
        let returns = [500.0, 470.0];
        assert!(!Rule::Every(475.0).passes(&returns) && Rule::Every(470.0).passes(&returns));
        assert!(Rule::Mean(485.0).passes(&returns) && !Rule::Mean(485.1).passes(&returns));
        let diverged = [500.0, f64::NAN];
        assert!(!Rule::Every(-1e9).passes(&diverged) && !Rule::Mean(-1e9).passes(&diverged));
    }

    #[test]
    fn bars_are_for_what_there_is() {
        for bar in BARS {
            let spec = algo::find(bar.algo).unwrap();
            let env = cordada::env::find(bar.env).unwrap();
            assert_eq!((spec.name, env.name), (bar.algo, bar.env));
            assert!(spec.fits(&*env.build()), "{} on {}", bar.algo, bar.env);
            let same = BARS.iter().filter(|b| (b.algo, b.env) == (bar.algo, bar.env));
            assert_eq!(same.count(), 1, "{} on {}", bar.algo, bar.env);
        }
    }

    #[test]
    fn a_row_has_mean_minimum_and_deviation() {
        // Of 480, 495, 510: mean 495, deviation √((15² + 15²) / 2) = 15.
        let learned = Learned::new(&BARS[0], true, vec![1, 2, 3], vec![495.0, 480.0, 510.0], 1.25);
        let want = "ppo          CartPole-v1               100k   every 475    495.0    480.0    \
                    15.0    1.2     passed";
        assert_eq!(line(&row(&learned)), want);
        let learned = Learned::new(&BARS[0], false, vec![1, 2], vec![f64::NAN, 480.0], 1.0);
        let cells = row(&learned);
        assert_eq!(
            (&*cells[0], &*cells[4], &*cells[5], &*cells[8]),
            ("ppo *", "NaN", "NaN", "FAILED")
        );
    }
}
