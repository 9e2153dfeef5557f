//! What is trained: every algorithm that fits, in each environment.

use cordada::env::ENVIRONMENTS;
use cordada::rl::algo::{ALGORITHMS, AlgoSpec};
use cordada::rl::policy_file::PolicySpec;
use cordada::rl::train::RunConfig;
use serde::Serialize;

use super::super::{Chosen, has_preset};
use crate::report::Failure;

/// An environment, how long it is trained in, and when a run has failed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Task {
    pub(super) env: &'static str,
    /// Steps of a run where all have the same.
    pub(super) steps: u64,
    /// Mean return of the final evaluation below which a run has failed.
    pub(super) threshold: f64,
}

/// Steps that the better half of the algorithms learns the task in. Thresholds are those from which
/// the environments count as solved; Pendulum has none and gets the one that `bench learn` has for
/// PPO.
const TASKS: &[Task] = &[
    Task { env: "CartPole-v1", steps: 100_000, threshold: 475.0 },
    Task { env: "Acrobot-v1", steps: 100_000, threshold: -100.0 },
    Task { env: "FrozenLake-v1", steps: 100_000, threshold: 0.7 },
    Task { env: "Pendulum-v1", steps: 20_000, threshold: -200.0 },
    Task { env: "LunarLander-v3", steps: 200_000, threshold: 200.0 },
];

/// Steps of an iteration from replayed transitions. It decides when runs may stop and nothing else,
/// and 250 steps may take seconds.
const ITERATION: i64 = 50;

/// How an algorithm learns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    /// From what its current policy did.
    PolicyGradient,
    /// A policy and action values, from replayed transitions.
    OffPolicy,
    /// Action values alone, which the policy follows from.
    ValueBased,
}

impl Kind {
    /// Of an algorithm, by the policy that it makes.
    pub(super) fn of(spec: &AlgoSpec, policy: &PolicySpec) -> Self {
        match policy {
            PolicySpec::ActionValues(_) => Self::ValueBased,
            PolicySpec::ActorCritic(_) if spec.on_policy => Self::PolicyGradient,
            PolicySpec::ActorCritic(_) => Self::OffPolicy,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::PolicyGradient => "policy gradient",
            Self::OffPolicy => "actor-critic off-policy",
            Self::ValueBased => "value-based",
        }
    }
}

/// An algorithm in an environment.
#[derive(Clone, Debug)]
pub(super) struct Pair {
    pub(super) task: Task,
    pub(super) algo: &'static str,
    pub(super) kind: Kind,
    /// Whether the settings are a preset's, and not the defaults.
    pub(super) preset: bool,
    /// Steps of a run where all have the same.
    pub(super) steps: u64,
    pub(super) config: RunConfig,
}

/// All chosen pairs: environment by environment, kind by kind.
pub(super) fn pairs(chosen: &Chosen, steps_scale: f64) -> Result<Vec<Pair>, Failure> {
    if let Some(env) = chosen.envs.iter().find(|env| TASKS.iter().all(|task| task.env != **env)) {
        let help = format!("there are {}", known().collect::<Vec<_>>().join(", "));
        return Err(Failure::usage(format!("bench family has no environment {env}"), help));
    }
    let mut pairs = Vec::new();
    for task in tasks().filter(|task| chosen.has_env(task.env)) {
        let env = cordada::env::find(task.env)?.build();
        let steps = ((task.steps as f64 * steps_scale) as u64).max(1);
        let first = pairs.len();
        for spec in ALGORITHMS.iter().filter(|s| chosen.has_algo(s.name) && s.fits(&*env)) {
            let mut config = RunConfig::new(spec.name, task.env, &[])?;
            if config.settings.contains_key("learning_starts") {
                config = config.with(&[("steps_per_iteration".into(), ITERATION.into())])?;
            }
            config.run.total_steps = steps;
            let kind = Kind::of(spec, &config.make(1)?.policy().spec);
            let preset = has_preset(spec, task.env);
            pairs.push(Pair { task: *task, algo: spec.name, kind, preset, steps, config });
        }
        // In the order of the list of algorithms within a kind.
        pairs[first..].sort_by_key(|pair| pair.kind);
    }
    Ok(pairs)
}

/// The tasks whose environments there are.
fn tasks() -> impl Iterator<Item = &'static Task> {
    TASKS.iter().filter(|task| ENVIRONMENTS.iter().any(|spec| spec.name == task.env))
}

fn known() -> impl Iterator<Item = &'static str> {
    tasks().map(|task| task.env)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_are_those_of_the_environments() {
        assert!(known().count() >= 4);
        for task in tasks() {
            let solved = cordada::env::find(task.env).unwrap().reward_threshold;
            assert_eq!(task.threshold, solved.unwrap_or(-200.0), "{}", task.env);
        }
    }

    #[test]
    fn every_algorithm_has_its_kind() {
        let all = pairs(&Chosen { algos: Vec::new(), envs: Vec::new() }, 1.0).unwrap();
        for (algo, kind) in [
            ("reinforce", Kind::PolicyGradient),
            ("ppo", Kind::PolicyGradient),
            ("trpo", Kind::PolicyGradient),
            ("sac", Kind::OffPolicy),
            ("ddpg", Kind::OffPolicy),
            ("discrete_sac", Kind::OffPolicy),
            ("dqn", Kind::ValueBased),
            ("sarsa", Kind::ValueBased),
        ] {
            let found: Vec<&Pair> = all.iter().filter(|pair| pair.algo == algo).collect();
            assert!(!found.is_empty() && found.iter().all(|pair| pair.kind == kind), "{algo}");
        }
        // Tables need numbered observations, SAC continuous actions.
        let envs = |algo: &str| -> Vec<&str> {
            all.iter().filter(|p| p.algo == algo).map(|p| p.task.env).collect()
        };
        assert_eq!(envs("sarsa"), ["FrozenLake-v1"]);
        assert!(envs("sac").contains(&"Pendulum-v1") && !envs("sac").contains(&"CartPole-v1"));
        assert!(all.is_sorted_by_key(|pair| {
            let task = TASKS.iter().position(|task| task.env == pair.task.env);
            (task, pair.kind)
        }));
    }

    #[test]
    fn steps_are_scaled_and_presets_are_known() {
        let chosen = Chosen { algos: vec!["ppo", "reinforce"], envs: vec!["CartPole-v1"] };
        let pairs = pairs(&chosen, 0.5).unwrap();
        assert!(pairs.iter().all(|p| p.steps == 50_000 && p.config.run.total_steps == 50_000));
        assert!(pairs.iter().any(|p| p.algo == "ppo" && p.preset));
    }
}
