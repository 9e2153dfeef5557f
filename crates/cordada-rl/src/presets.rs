//! Tuned settings per algorithm and environment, with their origin: what `cordada train` uses
//! unless told otherwise. Each is a file `presets/<algo>/<env>.toml`.

use toml::Table;

use crate::error::Error;

/// A preset as stored.
#[derive(Clone, Copy, Debug)]
pub struct Preset {
    /// Algorithm.
    pub algo: &'static str,
    /// Environment.
    pub env: &'static str,
    /// The file's text: `total_steps`, and a table of the algorithm's settings.
    pub text: &'static str,
}

/// One line per file.
macro_rules! presets {
    ($($algo:literal $env:literal),+ $(,)?) => {
        /// Every preset.
        pub const PRESETS: &[Preset] = &[$(Preset {
            algo: $algo,
            env: $env,
            text: include_str!(concat!("../presets/", $algo, "/", $env, ".toml")),
        }),+];
    };
}

presets! {
    "ppo" "CartPole-v1",
    "ppo" "MountainCar-v0",
    "ppo" "MountainCarContinuous-v0",
    "ppo" "Acrobot-v1",
    "ppo" "Pendulum-v1",
    "ppo" "CartPoleNoVel-v1",
    "appo" "Acrobot-v1",
    "appo" "CartPole-v1",
    "dqn" "CartPole-v1",
    "dqn" "Acrobot-v1",
    "double_dqn" "Acrobot-v1",
    "double_dqn" "CartPole-v1",
    "sac" "Pendulum-v1",
    "sac" "MountainCarContinuous-v0",
    "tqc" "Pendulum-v1",
    "td3" "Pendulum-v1",
    "ddpg" "Pendulum-v1",
    "c51" "Acrobot-v1",
    "c51" "CartPole-v1",
    "c51" "FrozenLake-v1",
    "discrete_sac" "Acrobot-v1",
    "discrete_sac" "CartPole-v1",
    "discrete_sac" "FrozenLake-v1",
    "reinforce" "CartPole-v1",
    "reinforce" "FrozenLake-v1",
    "actor_critic" "Acrobot-v1",
    "a2c" "Acrobot-v1",
    "a2c" "CartPole-v1",
    "a3c" "CartPole-v1",
    "a3c" "FrozenLake-v1",
    "npg" "CartPole-v1",
    "trpo" "Acrobot-v1",
    "trpo" "CartPole-v1",
    "trpo" "Pendulum-v1",
    "q_learning" "CliffWalking-v1",
    "q_learning" "FrozenLake-v1",
    "q_learning" "Taxi-v4",
    "sarsa" "CliffWalking-v1",
    "sarsa" "FrozenLake-v1",
    "sarsa" "Taxi-v4",
    "expected_sarsa" "CliffWalking-v1",
    "expected_sarsa" "FrozenLake-v1",
    "expected_sarsa" "Taxi-v4",
}

/// A preset as read: steps of a run, and settings of the algorithm.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Loaded {
    /// Steps that the settings are tuned for.
    pub total_steps: Option<u64>,
    /// Settings of the algorithm.
    pub settings: Table,
}

/// The preset for an algorithm in an environment; empty if there is none.
///
/// # Errors
///
/// [`Error::Config`] if the file is not valid, which a test rules out for all of them.
pub fn preset(algo: &str, env: &str) -> Result<Loaded, Error> {
    let Some(preset) = PRESETS.iter().find(|p| p.algo == algo && p.env == env) else {
        return Ok(Loaded::default());
    };
    let bad = |reason: String| Error::Config { reason: format!("preset {algo}/{env}: {reason}") };
    let mut table: Table = toml::from_str(preset.text).map_err(|e| bad(e.to_string()))?;
    let total_steps = table.remove("total_steps").and_then(|v| v.as_integer());
    let Some(toml::Value::Table(settings)) = table.remove(algo) else {
        return Err(bad(format!("no table [{algo}]")));
    };
    if let Some(key) = table.keys().next() {
        return Err(bad(format!("unknown key {key}")));
    }
    Ok(Loaded { total_steps: total_steps.map(|n| n as u64), settings })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::algo;

    #[test]
    fn every_preset_is_valid_and_its_environment_exists() {
        for p in PRESETS {
            let loaded = preset(p.algo, p.env).unwrap();
            let spec = algo::find(p.algo).unwrap();
            (spec.complete)(&loaded.settings)
                .unwrap_or_else(|e| panic!("{}/{}: {e}", p.algo, p.env));
            assert_eq!(cordada_env::find(p.env).unwrap().name, p.env);
            assert!(loaded.total_steps.is_some(), "{}/{} names its steps", p.algo, p.env);
            assert!(p.text.starts_with("# "), "{}/{} names its origin", p.algo, p.env);
        }
    }

    #[test]
    fn no_preset_means_defaults() {
        assert_eq!(preset("ppo", "Nowhere-v0").unwrap(), Loaded::default());
    }
}
