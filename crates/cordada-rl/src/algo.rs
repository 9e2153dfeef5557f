//! The list of algorithms. Each entry is the constant `SPEC` in the algorithm's own file; command
//! line, help, configs and conformance tests derive from this list.

use std::fmt;

use cordada_env::{Env, Space, StateError, StateReader, StateWriter};
use toml::Table;

use crate::config::Field;
use crate::error::{Error, nearest};
use crate::policy_file::Policy;

/// Declares the modules of algorithms and the list of their entries: one line per file.
macro_rules! algorithms {
    ($($module:ident: $($spec:ident),+;)+) => {
        $(pub mod $module;)+

        /// Every algorithm.
        pub const ALGORITHMS: &[&AlgoSpec] = &[$($(&$module::$spec),+),+];
    };
}

algorithms! {
    reinforce: SPEC;
    a2c: ACTOR_CRITIC, A2C;
    a3c: SPEC;
    trpo: NPG, TRPO;
    ppo: SPEC;
    appo: SPEC;
    dqn: DQN, DOUBLE_DQN;
    tabular: Q_LEARNING, SARSA, EXPECTED_SARSA;
    c51: SPEC;
    ddpg: DDPG, TD3;
    sac: SPEC;
    tqc: SPEC;
    discrete_sac: SPEC;
}

pub mod off_policy;
pub mod on_policy;

/// What is known about an algorithm without making it.
pub struct AlgoSpec {
    /// Its name on the command line.
    pub name: &'static str,
    /// Its name in words.
    pub title: &'static str,
    /// Where it comes from: authors, year, identifier.
    pub paper: &'static str,
    /// Whether it learns only from what its current policy did.
    pub on_policy: bool,
    /// Action spaces that it takes, in words.
    pub accepts: &'static str,
    /// Whether it takes the action space.
    pub takes: fn(&Space) -> bool,
    /// Observation spaces that it takes, in words.
    pub observes: &'static str,
    /// Whether it takes the observation space.
    pub sees: fn(&Space) -> bool,
    /// Whether its policy may have memory.
    pub recurrent: bool,
    /// Whether it never takes an action that the environment forbids.
    pub masks: bool,
    /// How far a resumed run equals an uninterrupted one.
    pub resume: Resume,
    /// Its settings.
    pub fields: &'static [Field],
    /// Checks a table of settings and completes it by defaults.
    pub complete: fn(&Table) -> Result<Table, Error>,
    /// Makes it, ready to train.
    pub make: fn(&Setup<'_>) -> Result<Box<dyn Algorithm>, Error>,
}

/// How far a resumed run equals an uninterrupted one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    /// Bit for bit.
    Exact,
    /// Bit for bit under the setting named here; else it goes on from where it was.
    ExactIf(&'static str),
}

impl AlgoSpec {
    /// Whether it can learn in the environment.
    pub fn fits(&self, env: &dyn Env) -> bool {
        (self.takes)(env.action_space()) && (self.sees)(env.obs_space())
    }

    /// Checks that it can learn in the environment called `name`.
    ///
    /// # Errors
    ///
    /// [`Error::Space`] if it cannot.
    pub fn check(&self, name: &str, env: &dyn Env) -> Result<(), Error> {
        let refuse = |what, space: &Space, accepts| Error::Space {
            algo: self.name,
            what,
            space: space.to_string(),
            env: name.to_string(),
            accepts,
        };
        if !(self.takes)(env.action_space()) {
            return Err(refuse("action space", env.action_space(), self.accepts));
        }
        if !(self.sees)(env.obs_space()) {
            return Err(refuse("observation space", env.obs_space(), self.observes));
        }
        Ok(())
    }
}

/// Any observations: what [`AlgoSpec::observes`] says of most algorithms.
pub const ANY_OBS: &str = "any observation space";

impl fmt::Debug for AlgoSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AlgoSpec").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Resume {
    /// In a few words.
    pub fn words(self) -> String {
        match self {
            Self::Exact => "exact".to_string(),
            Self::ExactIf(setting) => format!("exact with {setting}"),
        }
    }
}

/// The list as a table in Markdown, for documentation.
pub fn markdown() -> String {
    let yes = |is: bool| if is { "yes" } else { "no" };
    let mut text = String::from(
        "| name | algorithm | paper | policy | actions | observations | memory | masks | resume |\n\
         |---|---|---|---|---|---|---|---|---|\n",
    );
    for a in ALGORITHMS {
        let from = if a.on_policy { "on" } else { "off" };
        let cells = [
            &format!("`{}`", a.name),
            a.title,
            a.paper,
            from,
            a.accepts.trim_end_matches(" action spaces"),
            a.observes
                .trim_end_matches(" observation spaces")
                .trim_end_matches(" observation space"),
            yes(a.recurrent),
            yes(a.masks),
            &a.resume.words(),
        ];
        text.extend(["| ", &cells.join(" | "), " |\n"]);
    }
    text
}

/// What every algorithm is made from.
#[derive(Clone, Copy)]
pub struct Setup<'a> {
    /// Name of the environment.
    pub env: &'a str,
    /// Makes an environment, with all its wrappers.
    pub make_env: &'a dyn Fn() -> Box<dyn Env>,
    /// Settings; what is missing is at its default.
    pub settings: &'a Table,
    /// Seed of all random streams.
    pub seed: u64,
    /// Steps of the whole run, which schedules run over.
    pub total_steps: u64,
    /// Threads to use; they never change a result.
    pub threads: usize,
}

impl fmt::Debug for Setup<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Setup").field("env", &self.env).finish_non_exhaustive()
    }
}

/// A learner between two iterations.
pub trait Algorithm: Send + fmt::Debug {
    /// Collects and learns once.
    ///
    /// # Errors
    ///
    /// [`Error::NonFinite`] if a number that must be finite is not; the learner must not be used
    /// any more then.
    fn iterate(&mut self) -> Result<Report, Error>;

    /// Environment steps so far.
    fn steps(&self) -> u64;

    /// Iterations so far.
    fn iterations(&self) -> u64;

    /// Floating-point operations of the networks' products since it was made.
    fn flops(&self) -> u64;

    /// What it thinks the states are worth under its policy, V(s) or the value of the best action:
    /// none if it keeps no values.
    ///
    /// # Shapes
    ///
    /// `obs`: `[B, D]`; result: `[B]`.
    fn values(&mut self, obs: &[f32]) -> Option<Vec<f32>>;

    /// What its user should know before it starts, such as the memory that it will take.
    fn notes(&self) -> Vec<String> {
        Vec::new()
    }

    /// The policy as it is now, ready to act by itself.
    fn policy(&self) -> Policy;

    /// Writes everything that the next iteration depends on, but for θ and what else the
    /// [`Policy`] holds.
    fn save(&self, w: &mut StateWriter);

    /// Restores what `save` wrote, and θ and the normalizer from `policy`.
    ///
    /// # Errors
    ///
    /// If the state is another algorithm's or has other sizes.
    fn load(&mut self, policy: &Policy, r: &mut StateReader<'_>) -> Result<(), StateError>;
}

/// What one iteration tells.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// Metrics by name, in a fixed order.
    pub metrics: Vec<(&'static str, f64)>,
}

/// The entry of the algorithm called `name`, in any case of letters, with hyphens or underscores.
///
/// # Errors
///
/// [`Error::UnknownAlgo`], with the nearest name there is.
pub fn find(name: &str) -> Result<&'static AlgoSpec, Error> {
    let plain = name.to_lowercase().replace('-', "_");
    let found = ALGORITHMS.iter().find(|spec| spec.name == plain);
    found.copied().ok_or_else(|| Error::UnknownAlgo {
        name: name.to_string(),
        nearest: nearest(&plain, ALGORITHMS.iter().map(|spec| spec.name)),
    })
}
