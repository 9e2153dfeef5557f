//! Advantage actor-critic: one gradient step per short segment, for one-step TD, n-step returns and
//! GAE alike.
//!
//! # Source
//!
//! Mnih et al. 2016, "Asynchronous Methods for Deep Reinforcement Learning", arXiv:1602.01783, in
//! its synchronous form; one-step actor-critic: Sutton & Barto 2018, section 13.5.
//!
//! # Algorithm
//!
//! ```text
//! 1  repeat
//! 2      run π_θ in N environments for T steps
//! 3      Â_t = GAE(γ, λ): λ = 1 is R_t − V(s_t) with the n-step return R_t, λ = 0 the TD error δ_t
//! 4      g = mean( Â ∇ log π_θ(a | s) − c₁ ∇ ½ (V(s) − R)² + c₂ ∇ S )
//! 5      step along g
//! ```
//!
//! | formula | here |
//! |---|---|
//! | Â, R | [`gae`](crate::estimate::gae) |
//! | Â log π | [`policy_gradient`] |
//!
//! # Differences from the paper
//!
//! - Synchronous: all environments act with the same θ, so there is one step per segment and no
//!   stale gradient. `a3c` is the asynchronous one.
//! - Separate networks for actor and critic unless `trunk` has layers.
//!
//! # Defaults
//!
//! `a2c`: those of stable-baselines3's `A2C` for 8 environments. `actor_critic`: segments of one
//! step and λ = 0, so that ψ is the TD error.

use cordada_env::{StateError, StateReader, StateWriter};
use cordada_nn::{Optimizer, Schedule};

use super::on_policy::{
    self, Loss, Means, OnPolicy, OnPolicyMethod, Order, PolicyObjective, Shape, load_optimizer,
    save_optimizer,
};
use super::{ANY_OBS, AlgoSpec, Report, Resume, Setup};
use crate::config::{Checks, Config, Field};
use crate::error::Error;
use crate::objective::{Surrogate, ValueClip, policy_gradient};
use crate::settings::{NetworkConfig, ScalingConfig, SegmentConfig, StepConfig, UpdateRule};

/// A2C in the list of algorithms.
pub const A2C: AlgoSpec = AlgoSpec {
    name: "a2c",
    title: "Advantage actor-critic",
    paper: "Mnih et al. 2016, arXiv:1602.01783",
    on_policy: true,
    accepts: on_policy::ACCEPTS,
    takes: on_policy::takes,
    observes: ANY_OBS,
    sees: |_| true,
    recurrent: true,
    masks: true,
    resume: Resume::Exact,
    fields: A2cConfig::FIELDS,
    complete: |table| Ok(A2cConfig::default().with_table("a2c", table)?.to_table()),
    make: |setup| Ok(Box::new(A2c::new(&A2C, &A2cConfig::default(), setup)?)),
};

/// One-step actor-critic in the list of algorithms.
pub const ACTOR_CRITIC: AlgoSpec = AlgoSpec {
    name: "actor_critic",
    title: "One-step actor-critic",
    paper: "Barto, Sutton and Anderson 1983, doi:10.1109/TSMC.1983.6313077",
    complete: |table| Ok(A2cConfig::one_step().with_table("actor_critic", table)?.to_table()),
    make: |setup| Ok(Box::new(A2c::new(&ACTOR_CRITIC, &A2cConfig::one_step(), setup)?)),
    ..A2C
};

crate::config! {
    /// Settings of A2C and of one-step actor-critic.
    pub struct A2cConfig {
        /// c₁, weight of the value loss ½ (V − R)²; twice stable-baselines3's vf_coef.
        value_coef: f64 = 1.0;
        /// c₂, weight of the entropy bonus.
        entropy_coef: f64 = 0.0, alias ["ent_coef"];
        /// Whether advantages are normalized in each batch.
        normalize_advantages: bool = false, alias ["normalize_advantage", "norm_adv"];
    }
    groups {
        /// Segments.
        segment: SegmentConfig =
            SegmentConfig { num_envs: 8, num_steps: 5, gamma: 0.99, gae_lambda: 1.0 };
        /// Steps along the gradient.
        step: StepConfig = StepConfig {
            learning_rate: Schedule::Constant(7e-4),
            optimizer: UpdateRule::RmsProp,
            optimizer_eps: 1e-5,
            max_grad_norm: 0.5,
        };
        /// Networks.
        network: NetworkConfig = NetworkConfig::default();
        /// Scaling.
        scaling: ScalingConfig = ScalingConfig::default();
    }
}

impl A2cConfig {
    /// Segments of one step, credited by the TD error.
    pub fn one_step() -> Self {
        let config = Self::default();
        let segment = SegmentConfig { num_steps: 1, gae_lambda: 0.0, ..config.segment };
        Self { segment, ..config }
    }
}

impl Config for A2cConfig {
    const FIELDS: &'static [Field] = A2cConfig::FIELDS;
    const RENAMED: &'static [(&'static str, &'static str)] =
        &[("vf_coef", "value_coef, which is twice stable-baselines3's vf_coef")];

    fn check(&self, section: &str) -> Result<(), Error> {
        let check = Checks { section };
        self.segment.check(check)?;
        self.step.check(check)?;
        self.network.check(check)?;
        self.scaling.check(check)?;
        check.weights(&[("value_coef", self.value_coef), ("entropy_coef", self.entropy_coef)])
    }
}

/// The objective of the policy gradient theorem, ψ = Â.
#[derive(Clone, Copy, Debug)]
pub struct Weighted;

impl PolicyObjective for Weighted {
    #[inline(always)]
    fn term(self, log_prob: f32, _old: f32, advantage: f32) -> Surrogate<f32> {
        let term = policy_gradient(log_prob, advantage);
        Surrogate { objective: term.objective, psi: term.psi, ratio: 1.0, clipped: false }
    }
}

/// The learner.
#[derive(Debug)]
pub struct A2c {
    config: A2cConfig,
    common: OnPolicy,
    optimizer: Optimizer<f32>,
    order: Order,
}

impl A2c {
    /// A learner at its start, with `defaults` for what is not set.
    ///
    /// # Errors
    ///
    /// [`Error::BadValue`] or [`Error::UnknownKey`] for the settings, [`Error::Space`] if it
    /// cannot act in the environment.
    pub fn new(algo: &AlgoSpec, defaults: &A2cConfig, setup: &Setup<'_>) -> Result<Self, Error> {
        let config = defaults.with_table(algo.name, setup.settings)?;
        let shape = Shape {
            network: &config.network,
            critic: true,
            scaling: &config.scaling,
            num_envs: config.segment.num_envs,
            num_steps: config.segment.num_steps,
            gamma: config.segment.gamma,
            batch_rows: config.segment.batch_size(),
        };
        let common = OnPolicy::new(algo, setup, shape)?;
        let memory = common.network.state_len() > 0;
        Ok(Self {
            optimizer: Optimizer::new(config.step.optimizer(), common.theta.len())?,
            order: Order::new(config.segment.num_envs, config.segment.num_steps, memory),
            config,
            common,
        })
    }

    fn report(&self, means: &Means, learning_rate: f64, grad_norm: f64) -> Report {
        let mut metrics = Vec::with_capacity(16);
        self.common.rollout_metrics(&mut metrics);
        metrics.extend([
            ("train/policy_loss", -means.policy_objective),
            ("train/value_loss", means.value_loss),
            ("train/entropy", means.entropy),
            ("train/grad_norm", grad_norm),
            ("train/learning_rate", learning_rate),
        ]);
        self.common.policy_metrics(&mut metrics);
        Report { metrics }
    }
}

impl OnPolicyMethod for A2c {
    fn common(&self) -> &OnPolicy {
        &self.common
    }

    fn common_mut(&mut self) -> &mut OnPolicy {
        &mut self.common
    }

    fn iteration(&mut self) -> Result<Report, Error> {
        let Self { config, common, optimizer, order } = self;
        let learning_rate = config.step.learning_rate.at(common.progress());
        let loss = Loss {
            policy: Some(Weighted),
            value_coef: Some(config.value_coef as f32),
            value_clip: ValueClip::Off,
            entropy_coef: config.entropy_coef as f32,
            kl_coef: 0.0,
        };
        common.collect()?; // line 2
        common.estimate(config.segment.gamma, config.segment.gae_lambda); // line 3
        let stats = common.gradient(order.all(), config.normalize_advantages, loss); // line 4
        let means = stats.means();
        common.finite("objective", means.policy_objective - means.value_loss)?;
        let norm = common.ascend(optimizer, learning_rate, config.step.max_grad_norm)?; // line 5
        let report = self.report(&means, learning_rate, norm);
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
