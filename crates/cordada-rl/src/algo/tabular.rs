//! One-step control with a table of values: Q-learning, SARSA and Expected SARSA.
//!
//! # Source
//!
//! Watkins 1989, "Learning from delayed rewards", thesis, and Watkins and Dayan 1992,
//! doi:10.1007/BF00992698; Rummery and Niranjan 1994, "On-line Q-learning using connectionist
//! systems", CUED/F-INFENG/TR 166; van Seijen et al. 2009, doi:10.1109/ADPRL.2009.4927542; all
//! three in Sutton and Barto 2018, sections 6.4 to 6.6.
//!
//! # Algorithm
//!
//! ```text
//! 1  repeat in each of N environments
//! 2      a = ε-greedy choice in s by Q
//! 3      act, see r and s'
//! 4      v = max_a' Q(s', a')                                        Q-learning
//!        v = Q(s', a'), a' the action that is taken next             SARSA
//!        v = (1 − ε) max_a' Q(s', a') + ε mean_a' Q(s', a')          Expected SARSA
//! 5      Q(s, a) ← Q(s, a) + α (r + γ v − Q(s, a))
//! ```
//!
//! | formula | here |
//! |---|---|
//! | ε-greedy choice | [`epsilon_greedy`] |
//! | max | [`max_value`] |
//! | the mean over ε-greedy choices | [`epsilon_greedy_value`] |
//! | r + γ v | [`td_target`] |
//!
//! # Differences from the papers
//!
//! - SARSA updates Q(s, a) when a' has been chosen, which is one step later. Where an episode is
//!   truncated, no a' is taken in s': v is then Expected SARSA's. After a termination v = 0.
//! - Of equal values the first action is taken, so exploring is ε's alone; an `initial_value`
//!   above every return makes untried actions attractive.
//! - Forbidden actions are neither taken nor bootstrapped from.
//!
//! # Defaults
//!
//! α = 0.1 and Q = 0 are usual; ε falls from 1 to 0.05 over the first half of the run.

use cordada_env::{Outcome, Persist, Space, StateError, StateReader, StateWriter};
use cordada_nn::Schedule;

use super::off_policy::{Acting, Seen, Worlds};
use super::on_policy::check_saved;
use super::{AlgoSpec, Algorithm, Report, Resume, Setup};
use crate::config::{Checks, Config, Field};
use crate::error::Error;
use crate::estimate::td_target::{epsilon_greedy_value, max_value, td_target};
use crate::explore::epsilon_greedy;
use crate::policy::{Encoder, QSpec};
use crate::policy_file::{Policy, PolicySpec};

/// Q-learning in the list of algorithms.
pub const Q_LEARNING: AlgoSpec = AlgoSpec {
    name: "q_learning",
    title: "Q-learning with a table",
    paper: "Watkins & Dayan 1992, doi:10.1007/BF00992698",
    on_policy: false,
    accepts: "Discrete action spaces",
    takes: |space| matches!(space, Space::Discrete { .. }),
    observes: "Discrete observation spaces",
    sees: |space| matches!(space, Space::Discrete { .. }),
    recurrent: false,
    masks: true,
    resume: Resume::Exact,
    fields: TabularConfig::FIELDS,
    complete: |table| Ok(TabularConfig::from_table("q_learning", table)?.to_table()),
    make: |setup| Ok(Box::new(Tabular::new(&Q_LEARNING, Method::QLearning, setup)?)),
};

/// SARSA in the list of algorithms.
pub const SARSA: AlgoSpec = AlgoSpec {
    name: "sarsa",
    title: "SARSA with a table",
    paper: "Rummery & Niranjan 1994; Singh et al. 2000, doi:10.1023/A:1007678930559",
    on_policy: true,
    complete: |table| Ok(TabularConfig::from_table("sarsa", table)?.to_table()),
    make: |setup| Ok(Box::new(Tabular::new(&SARSA, Method::Sarsa, setup)?)),
    ..Q_LEARNING
};

/// Expected SARSA in the list of algorithms.
pub const EXPECTED_SARSA: AlgoSpec = AlgoSpec {
    name: "expected_sarsa",
    title: "Expected SARSA with a table",
    paper: "van Seijen et al. 2009, doi:10.1109/ADPRL.2009.4927542",
    on_policy: true,
    complete: |table| Ok(TabularConfig::from_table("expected_sarsa", table)?.to_table()),
    make: |setup| Ok(Box::new(Tabular::new(&EXPECTED_SARSA, Method::ExpectedSarsa, setup)?)),
    ..Q_LEARNING
};

/// What is bootstrapped from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// The best next action.
    QLearning,
    /// The next action that is taken.
    Sarsa,
    /// All next actions, as likely as they are taken.
    ExpectedSarsa,
}

crate::config! {
    /// Settings of the methods with a table.
    pub struct TabularConfig {
        /// N, environments that share the table; at least 1.
        num_envs: usize = 1, alias ["n_envs"];
        /// Steps between two lines of metrics, rounded up to whole rounds of all environments.
        steps_per_iteration: usize = 1_000;
        /// γ, discount, from 0 to 1.
        gamma: f64 = 0.99;
        /// α, step size: a schedule over the run.
        #[serde(with = "crate::config::schedule")]
        learning_rate: Schedule = Schedule::Constant(0.1), alias ["lr", "alpha", "step_size"];
        /// ε, share of random actions: a schedule over the run.
        #[serde(with = "crate::config::schedule")]
        epsilon: Schedule = Schedule::Piecewise(vec![(0.0, 1.0), (0.5, 0.05)]);
        /// Value of every action at the start.
        initial_value: f64 = 0.0;
    }
}

impl Config for TabularConfig {
    const FIELDS: &'static [Field] = TabularConfig::FIELDS;

    fn check(&self, section: &str) -> Result<(), Error> {
        let check = Checks { section };
        let counts =
            [("num_envs", self.num_envs), ("steps_per_iteration", self.steps_per_iteration)];
        check.counts(&counts)?;
        check.at_most("num_envs", self.num_envs, 1_000_000)?;
        check.unit(&[("gamma", self.gamma)])?;
        let schedules = [("learning_rate", &self.learning_rate), ("epsilon", &self.epsilon)];
        check.schedules(&schedules)?;
        check.number("initial_value", self.initial_value, f64::is_finite, "a finite number")
    }
}

/// Q, and what is needed to move it.
#[derive(Debug)]
struct Table {
    method: Method,
    num_actions: usize,
    gamma: f64,
    /// Q(s, a): `[S, A]`.
    q: Vec<f64>,
    /// SARSA's last step of each environment, which waits for its next action: where it is in the
    /// table, and its reward.
    waiting: Vec<Option<(usize, f64)>>,
    /// α and ε of this step.
    alpha: f64,
    epsilon: f64,
    /// Sums over the updates of an iteration: their number, ½ δ², and Q(s, a) before.
    updates: f64,
    loss: f64,
    values: f64,
}

impl Table {
    fn row(&self, state: usize) -> &[f64] {
        &self.q[state * self.num_actions..][..self.num_actions]
    }

    /// Line 5.
    #[inline]
    fn learn(&mut self, at: usize, target: f64) {
        let entry = &mut self.q[at];
        let delta = target - *entry;
        self.updates += 1.0;
        self.loss += 0.5 * delta * delta;
        self.values += *entry;
        *entry += self.alpha * delta;
    }

    /// Line 2; then SARSA knows the a' of the step before.
    fn act(&mut self, acting: &mut Acting<'_>) {
        for env in 0..acting.obs.len() {
            let state = acting.obs[env] as usize;
            let mask = match acting.masks {
                Some(masks) => Some(&masks[env * self.num_actions..][..self.num_actions]),
                None => None,
            };
            let stream = &mut acting.streams[env];
            let action = epsilon_greedy(self.row(state), mask, self.epsilon, stream);
            acting.actions[env] = action as f32;
            if let Some((at, reward)) = self.waiting[env].take() {
                let next_value = self.q[state * self.num_actions + action];
                self.learn(at, td_target(reward, self.gamma, next_value));
            }
        }
    }

    /// Lines 4 and 5.
    fn see(&mut self, seen: &Seen<'_>) {
        let at = seen.obs[0] as usize * self.num_actions + seen.action[0] as usize;
        let reward = f64::from(seen.reward);
        if seen.outcome == Outcome::Terminated {
            return self.learn(at, reward);
        }
        let next = self.row(seen.next_obs[0] as usize);
        let mask = (!seen.next_mask.is_empty()).then_some(seen.next_mask);
        let next_value = match self.method {
            Method::Sarsa if seen.outcome == Outcome::Continue => {
                self.waiting[seen.env] = Some((at, reward));
                return;
            }
            Method::QLearning => max_value(next, mask),
            Method::Sarsa | Method::ExpectedSarsa => {
                epsilon_greedy_value(next, mask, self.epsilon.min(1.0))
            }
        };
        self.learn(at, td_target(reward, self.gamma, next_value));
    }
}

/// The learner.
#[derive(Debug)]
pub struct Tabular {
    algo: &'static str,
    env: String,
    config: TabularConfig,
    worlds: Worlds,
    table: Table,
    spec: QSpec,
    total_steps: u64,
    iterations: u64,
}

impl Tabular {
    /// A learner at its start.
    ///
    /// # Errors
    ///
    /// [`Error::BadValue`] or [`Error::UnknownKey`] for the settings, [`Error::Space`] if it
    /// cannot act in the environment.
    pub fn new(algo: &AlgoSpec, method: Method, setup: &Setup<'_>) -> Result<Self, Error> {
        let config = TabularConfig::from_table(algo.name, setup.settings)?;
        let worlds = Worlds::new(algo, setup, config.num_envs)?;
        let num_states = worlds.input.inputs();
        let num_actions = worlds.action_space.num_choices();
        let table = Table {
            method,
            num_actions,
            gamma: config.gamma,
            q: vec![config.initial_value; num_states * num_actions],
            waiting: vec![None; config.num_envs],
            alpha: 0.0,
            epsilon: 0.0,
            updates: 0.0,
            loss: 0.0,
            values: 0.0,
        };
        // Q(s, ·) = W s of a one-hot s.
        let spec = QSpec {
            inputs: num_states,
            num_actions,
            encoder: Encoder::Flat,
            hidden: Vec::new(),
            dueling: false,
            support: None,
            activation: "relu".into(),
            layer_norm: false,
            epsilon: config.epsilon.at(1.0).min(1.0),
        };
        let (algo, env, total_steps) = (algo.name, setup.env.to_string(), setup.total_steps);
        Ok(Self { algo, env, config, worlds, table, spec, total_steps, iterations: 0 })
    }

    /// Q(s, a): `[S, A]`.
    pub fn q_values(&self) -> &[f64] {
        &self.table.q
    }

    fn report(&self) -> Report {
        let table = &self.table;
        let mut metrics = Vec::with_capacity(10);
        self.worlds.metrics(&mut metrics);
        // SARSA's first steps are still waiting.
        if table.updates > 0.0 {
            metrics.push(("train/value_loss", table.loss / table.updates));
            metrics.push(("train/value_mean", table.values / table.updates));
        }
        metrics.push(("train/learning_rate", table.alpha));
        metrics.push(("train/epsilon", table.epsilon));
        Report { metrics }
    }
}

impl Algorithm for Tabular {
    fn iterate(&mut self) -> Result<Report, Error> {
        let Self { config, worlds, table, .. } = self;
        worlds.begin_iteration();
        (table.updates, table.loss, table.values) = (0.0, 0.0, 0.0);
        for _ in 0..config.steps_per_iteration.div_ceil(config.num_envs) {
            let progress = worlds.steps as f64 / self.total_steps.max(1) as f64;
            table.alpha = config.learning_rate.at(progress);
            table.epsilon = config.epsilon.at(progress);
            worlds.choose(false, progress, |acting| table.act(acting)); // line 2
            worlds.step(self.iterations, |seen| table.see(&seen))?; // lines 3 to 5
        }
        if !table.loss.is_finite() {
            let (what, value, iteration) = ("value loss".into(), table.loss, self.iterations);
            return Err(Error::NonFinite { what, value, iteration });
        }
        self.iterations += 1;
        Ok(self.report())
    }

    fn steps(&self) -> u64 {
        self.worlds.steps
    }

    fn iterations(&self) -> u64 {
        self.iterations
    }

    fn flops(&self) -> u64 {
        0
    }

    fn values(&mut self, obs: &[f32]) -> Option<Vec<f32>> {
        let best = |state: &f32| max_value(self.table.row(*state as usize), None) as f32;
        Some(obs.iter().map(best).collect())
    }

    fn policy(&self) -> Policy {
        let Table { q, num_actions, .. } = &self.table;
        let column = |action| q.iter().skip(action).step_by(*num_actions).map(|&q| q as f32);
        // Weights `[A, S]`, then biases.
        let theta = (0..*num_actions).flat_map(column).chain(vec![0.0; *num_actions]);
        Policy {
            algo: self.algo.to_string(),
            env: self.env.clone(),
            spec: PolicySpec::ActionValues(self.spec.clone()),
            obs_space: self.worlds.obs_space.clone(),
            normalize: None,
            input: self.worlds.input.clone(),
            theta: theta.collect(),
        }
    }

    /// With the table itself, for a policy holds it rounded.
    fn save(&self, w: &mut StateWriter) {
        w.str(self.algo);
        w.u64(self.iterations);
        self.worlds.save(w);
        w.f64s(&self.table.q);
        for waiting in &self.table.waiting {
            w.bool(waiting.is_some());
            let (at, reward) = waiting.unwrap_or_default();
            w.u64(at as u64);
            w.f64(reward);
        }
    }

    fn load(&mut self, policy: &Policy, r: &mut StateReader<'_>) -> Result<(), StateError> {
        let spec = PolicySpec::ActionValues(self.spec.clone());
        check_saved(self.algo, (&spec, None), policy, r)?;
        self.iterations = r.u64()?;
        self.worlds.load(r)?;
        r.f64s_into(&mut self.table.q)?;
        let entries = self.table.q.len() as u64;
        for waiting in &mut self.table.waiting {
            let (waits, at, reward) = (r.bool()?, r.u64()?, r.f64()?);
            if at >= entries {
                let (what, expected) = ("entry of the table", format!("below {entries}"));
                return Err(StateError::Mismatch { what, expected, found: at.to_string() });
            }
            *waiting = waits.then_some((at as usize, reward));
        }
        Ok(())
    }
}
