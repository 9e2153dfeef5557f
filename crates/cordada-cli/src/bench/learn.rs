//! Learning: every preset against a threshold that was fixed beforehand.

use cordada::rl::train::RunConfig;
use serde::Serialize;

use crate::args::BenchArgs;
use crate::output::{Output, short};
use crate::report::Failure;
use crate::seeds::{cores, spread, summary};
use crate::stats::Aggregate;

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

    fn passes(self, returns: &[f64]) -> bool {
        match self {
            Self::Every(threshold) => returns.iter().all(|&x| x >= threshold),
            Self::Mean(threshold) => crate::stats::mean(returns) >= threshold,
        }
    }
}

struct Task {
    env: &'static str,
    steps: u64,
    rule: Rule,
}

/// Steps and thresholds are fixed: they do not follow what the presets reach.
const TASKS: &[Task] = &[
    Task { env: "CartPole-v1", steps: 100_000, rule: Rule::Every(475.0) },
    Task { env: "Acrobot-v1", steps: 1_000_000, rule: Rule::Mean(-85.0) },
    Task { env: "Pendulum-v1", steps: 100_000, rule: Rule::Mean(-200.0) },
    Task { env: "MountainCar-v0", steps: 1_000_000, rule: Rule::Mean(-115.0) },
    Task { env: "MountainCarContinuous-v0", steps: 50_000, rule: Rule::Mean(90.0) },
];

#[derive(Serialize)]
struct Learned {
    bench: &'static str,
    env: &'static str,
    steps: u64,
    seeds: Vec<u64>,
    returns: Vec<f64>,
    mean: f64,
    iqm: f64,
    iqm_low: f64,
    iqm_high: f64,
    rule: &'static str,
    threshold: f64,
    passed: bool,
}

pub(super) fn run(args: &BenchArgs, output: Output) -> Result<(), Failure> {
    let tasks: Vec<&Task> = match args.env.as_deref() {
        None | Some("all") => TASKS.iter().collect(),
        Some(name) => {
            let env = cordada::env::find(name)?.name;
            let task = TASKS.iter().find(|task| task.env == env).ok_or_else(|| {
                let known: Vec<&str> = TASKS.iter().map(|task| task.env).collect();
                let help = format!("there are {}, and all", known.join(", "));
                Failure::usage(format!("{env} has no threshold"), help)
            })?;
            vec![task]
        }
    };
    let mut passed = true;
    for task in tasks {
        let learned = learn(task, args)?;
        passed &= learned.passed;
        if output.json {
            output.object(&learned);
        } else {
            print(&learned, output);
        }
    }
    if passed { Ok(()) } else { Err(Failure::told()) }
}

fn learn(task: &Task, args: &BenchArgs) -> Result<Learned, Failure> {
    let count = args.seeds.unwrap_or(SEEDS);
    let seeds: Vec<u64> = (0..u64::from(count)).map(|i| args.seed + i).collect();
    let returns = spread(seeds.len(), cores(), |i| -> Result<f64, Failure> {
        let mut config = RunConfig::new("ppo", task.env, &[])?;
        config.run.seed = seeds[i];
        config.run.total_steps = task.steps;
        config.run.eval_episodes = EPISODES;
        let mut algorithm = config.make(1)?;
        while algorithm.steps() < task.steps {
            algorithm.iterate()?;
        }
        Ok(config.evaluate(&*algorithm)?.mean_return)
    });
    let returns: Vec<f64> = returns.into_iter().collect::<Result<_, _>>()?;
    let a = Aggregate::of(&returns);
    Ok(Learned {
        bench: "learn",
        env: task.env,
        steps: task.steps,
        seeds,
        passed: task.rule.passes(&returns),
        returns,
        mean: a.mean,
        iqm: a.iqm,
        iqm_low: a.low,
        iqm_high: a.high,
        rule: task.rule.name(),
        threshold: task.rule.threshold(),
    })
}

fn print(learned: &Learned, output: Output) {
    let Learned { env, steps, returns, .. } = learned;
    output.line(format!("{}  {} steps", output.bold(env), short(*steps as f64)));
    let each: Vec<String> = returns.iter().map(|x| format!("{x:.1}")).collect();
    output.line(format!("  returns  {}", each.join(" ")));
    let a = Aggregate {
        mean: learned.mean,
        iqm: learned.iqm,
        low: learned.iqm_low,
        high: learned.iqm_high,
    };
    output.line(format!("  {}", summary(&a, returns.len())));
    let verdict = if learned.passed { "passed" } else { "FAILED" };
    let rule = if learned.rule == "every" { "every seed" } else { "the mean" };
    output.line(format!("  {verdict}: {rule} has to reach {}", learned.threshold));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_about_every_seed_or_the_mean() {
        let returns = [500.0, 470.0];
        assert!(!Rule::Every(475.0).passes(&returns) && Rule::Every(470.0).passes(&returns));
        assert!(Rule::Mean(485.0).passes(&returns) && !Rule::Mean(485.1).passes(&returns));
    }

    #[test]
    fn tasks_have_presets_of_the_same_length() {
        for task in TASKS {
            let preset = cordada::rl::presets::preset("ppo", task.env).unwrap();
            assert_eq!(preset.total_steps, Some(task.steps), "{}", task.env);
        }
    }
}
