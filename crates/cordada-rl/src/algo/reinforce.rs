//! REINFORCE: the policy gradient from whole episodes, with the baselines that tame its variance.
//!
//! # Source
//!
//! Williams 1992, "Simple statistical gradient-following algorithms for connectionist reinforcement
//! learning", doi:10.1007/BF00992696; Sutton & Barto 2018, sections 13.3 and 13.4.
//!
//! # Algorithm
//!
//! ```text
//! 1  repeat
//! 2      play one whole episode in each of N environments by π_θ
//! 3      G_t = the episode's return, or the reward-to-go Σ_{k≥t} γ^{k−t} r_k
//! 4      ψ_t = G_t − b: b = 0, the mean of all G, or V(s_t); perhaps divided by its spread
//! 5      step along the mean of ψ ∇ log π_θ(a | s) over all steps (and V toward G)
//! ```
//!
//! | formula | here |
//! |---|---|
//! | G_t | [`reward_to_go`] |
//! | ψ log π | [`policy_gradient`](crate::objective::policy_gradient) |
//!
//! # Differences from the paper
//!
//! - The weight γ^t of later steps is left out, as everybody does: the gradient is that of the
//!   undiscounted visits (Nota and Thomas 2020, arXiv:1906.07073).
//! - An episode that a time limit cuts bootstraps from V if there is a learned baseline; without
//!   one, the limit is an end like any other.
//! - The mean is over steps, not over episodes, so that a step's weight does not depend on how
//!   long its episode was.

use cordada_env::{StateError, StateReader, StateWriter};
use cordada_nn::{Optimizer, Schedule};
use serde::{Deserialize, Serialize};

use super::a2c::Weighted;
use super::on_policy::{
    self, Loss, Means, OnPolicy, OnPolicyMethod, Sample, Shape, Stats, Work, load_optimizer,
    save_optimizer,
};
use super::{ANY_OBS, AlgoSpec, Report, Resume, Setup};
use crate::config::{Checks, Config, Field};
use crate::error::Error;
use crate::estimate::{Segment, reward_to_go};
use crate::objective::ValueClip;
use crate::settings::{NetworkConfig, ScalingConfig, StepConfig};

/// REINFORCE in the list of algorithms.
pub const SPEC: AlgoSpec = AlgoSpec {
    name: "reinforce",
    title: "REINFORCE",
    paper: "Williams 1992, doi:10.1007/BF00992696",
    on_policy: true,
    accepts: on_policy::ACCEPTS,
    takes: on_policy::takes,
    observes: ANY_OBS,
    sees: |_| true,
    recurrent: true,
    masks: true,
    resume: Resume::Exact,
    fields: ReinforceConfig::FIELDS,
    complete: |table| Ok(ReinforceConfig::from_table("reinforce", table)?.to_table()),
    make: |setup| Ok(Box::new(Reinforce::new(setup)?)),
};

/// What is taken off the return.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Baseline {
    /// Nothing.
    None,
    /// The mean over all steps of the iteration.
    BatchMean,
    /// A learned V(s).
    #[default]
    Value,
}

/// What a step is credited with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Credit {
    /// The whole episode's return.
    Return,
    /// Only what came after it: the same gradient, with less variance.
    #[default]
    RewardToGo,
}

crate::config! {
    /// Settings of REINFORCE.
    pub struct ReinforceConfig {
        /// N, whole episodes per iteration; at least 1.
        num_envs: usize = 8, alias ["n_envs", "episodes"];
        /// Steps after which an episode is cut even if the environment goes on.
        max_episode_steps: usize = 10_000;
        /// γ, discount, from 0 to 1.
        gamma: f64 = 0.99;
        /// "none", "batch_mean" or "value" (a learned V).
        baseline: Baseline = Baseline::Value;
        /// "return" (of the whole episode) or "reward_to_go".
        credit: Credit = Credit::RewardToGo;
        /// Whether ψ is divided by its standard deviation over the iteration (and its mean taken off).
        standardize: bool = true, alias ["standardize_returns"];
        /// Weight of the value loss ½ (V − G)², for baseline "value".
        value_coef: f64 = 1.0;
        /// Weight of the entropy bonus.
        entropy_coef: f64 = 0.0, alias ["ent_coef"];
    }
    groups {
        /// Steps along the gradient.
        step: StepConfig =
            StepConfig { learning_rate: Schedule::Constant(3e-3), ..StepConfig::default() };
        /// Networks.
        network: NetworkConfig = NetworkConfig::default();
        /// Scaling.
        scaling: ScalingConfig = ScalingConfig::default();
    }
}

impl Config for ReinforceConfig {
    const FIELDS: &'static [Field] = ReinforceConfig::FIELDS;
    const RENAMED: &'static [(&'static str, &'static str)] =
        &[("num_steps", "num_envs, for an iteration is made of whole episodes")];

    fn check(&self, section: &str) -> Result<(), Error> {
        let check = Checks { section };
        self.step.check(check)?;
        self.network.check(check)?;
        self.scaling.check(check)?;
        let counts = [("num_envs", self.num_envs), ("max_episode_steps", self.max_episode_steps)];
        check.counts(&counts)?;
        check.unit(&[("gamma", self.gamma)])?;
        check.weights(&[("value_coef", self.value_coef), ("entropy_coef", self.entropy_coef)])
    }
}

/// The learner.
#[derive(Debug)]
pub struct Reinforce {
    config: ReinforceConfig,
    common: OnPolicy,
    optimizer: Optimizer<f32>,
    samples: Vec<Sample>,
}

impl Reinforce {
    /// A learner at its start.
    ///
    /// # Errors
    ///
    /// [`Error::BadValue`] or [`Error::UnknownKey`] for the settings, [`Error::Space`] if it
    /// cannot act in the environment.
    pub fn new(setup: &Setup<'_>) -> Result<Self, Error> {
        let config = ReinforceConfig::from_table(SPEC.name, setup.settings)?;
        let shape = Shape {
            network: &config.network,
            critic: config.baseline == Baseline::Value,
            scaling: &config.scaling,
            num_envs: config.num_envs,
            num_steps: 0,
            gamma: config.gamma,
            // Episodes of a few hundred steps are usual; how many there will be is not known.
            batch_rows: 256 * config.num_envs,
        };
        let common = OnPolicy::new(&SPEC, setup, shape)?;
        let optimizer = Optimizer::new(config.step.optimizer(), common.theta.len())?;
        Ok(Self { config, common, optimizer, samples: Vec::new() })
    }

    /// Lines 3 and 4: returns, and ψ before it is divided by its spread.
    fn estimate(&mut self) {
        let Self { config, common, .. } = self;
        common.scale_rewards();
        let gamma = config.gamma as f32;
        for trajectory in &mut common.trajectories {
            trajectory.estimate_by(|episode, psi, returns| {
                credit(config.credit, episode, gamma, returns);
                for ((psi, &g), &v) in psi.iter_mut().zip(&*returns).zip(episode.values) {
                    *psi = if config.baseline == Baseline::Value { g - v } else { g };
                }
            });
        }
        if config.baseline == Baseline::BatchMean {
            let all = common.trajectories.iter().flat_map(|t| &t.returns);
            let mean = all.map(|&g| f64::from(g)).sum::<f64>() / common.num_samples() as f64;
            let targets = common.trajectories.iter_mut().flat_map(|t| &mut t.targets);
            targets.for_each(|target| target.advantage -= mean as f32);
        }
    }

    /// Line 5.
    fn learn(&mut self, learning_rate: f64) -> Result<(Stats, f64), Error> {
        let Self { config, common, optimizer, samples } = self;
        let critic = config.baseline == Baseline::Value;
        let loss = Loss {
            policy: Some(Weighted),
            value_coef: critic.then_some(config.value_coef as f32),
            value_clip: ValueClip::Off,
            entropy_coef: config.entropy_coef as f32,
            kl_coef: 0.0,
        };
        samples.clear();
        samples.extend(common.samples());
        let envs: Vec<u32> = (0..common.trajectories.len() as u32).collect();
        let memory = common.network.state_len() > 0;
        let work = if memory { Work::Sequences(&envs) } else { Work::Steps(samples) };
        let stats = common.gradient(work, config.standardize, loss);
        let means = stats.means();
        common.finite("objective", means.policy_objective - means.value_loss)?;
        Ok((stats, common.ascend(optimizer, learning_rate, config.step.max_grad_norm)?))
    }

    fn report(&self, means: &Means, learning_rate: f64, grad_norm: f64) -> Report {
        let mut metrics = Vec::with_capacity(16);
        self.common.rollout_metrics(&mut metrics);
        metrics.push(("train/policy_loss", -means.policy_objective));
        if self.config.baseline == Baseline::Value {
            metrics.push(("train/value_loss", means.value_loss));
        }
        metrics.extend([
            ("train/entropy", means.entropy),
            ("train/grad_norm", grad_norm),
            ("train/learning_rate", learning_rate),
        ]);
        self.common.policy_metrics(&mut metrics);
        Report { metrics }
    }
}

/// G_t of every step of an episode.
fn credit(credit: Credit, episode: &Segment<'_, f32>, gamma: f32, returns: &mut [f32]) {
    match credit {
        Credit::RewardToGo => reward_to_go(episode, gamma, returns),
        Credit::Return => {
            // G_0 is what the whole episode was worth.
            reward_to_go(episode, gamma, returns);
            returns.fill(returns.first().copied().unwrap_or_default());
        }
    }
}

impl OnPolicyMethod for Reinforce {
    fn common(&self) -> &OnPolicy {
        &self.common
    }

    fn common_mut(&mut self) -> &mut OnPolicy {
        &mut self.common
    }

    fn iteration(&mut self) -> Result<Report, Error> {
        let learning_rate = self.config.step.learning_rate.at(self.common.progress());
        self.common.collect_episodes(self.config.max_episode_steps)?; // line 2
        self.estimate(); // lines 3 and 4
        let (stats, norm) = self.learn(learning_rate)?; // line 5
        let report = self.report(&stats.means(), learning_rate, norm);
        self.common.finish()?;
        Ok(report)
    }

    fn save_own(&self, w: &mut StateWriter) {
        save_optimizer(&self.optimizer, w);
    }

    fn load_own(&mut self, r: &mut StateReader<'_>) -> Result<(), StateError> {
        load_optimizer(&mut self.optimizer, r)
    }
}
