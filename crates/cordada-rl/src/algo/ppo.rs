//! Proximal policy optimization.
//!
//! # Source
//!
//! Schulman, Wolski, Dhariwal, Radford and Klimov 2017, "Proximal Policy Optimization
//! Algorithms", arXiv:1707.06347. Implementation details: Huang et al. 2022, "The 37
//! Implementation Details of Proximal Policy Optimization".
//!
//! # Algorithm
//!
//! ```text
//! 1  for iteration = 1, 2, … do
//! 2      for actor = 1, 2, …, N do
//! 3          run π_old in its environment for T steps
//! 4          compute advantage estimates Â_1 … Â_T
//! 5      for K epochs, for minibatches of size M ≤ N T do
//! 6          ascend L = L^CLIP − c₁ L^VF + c₂ S  (or the KL-penalized objective)
//! 7      π_old ← π
//! ```
//!
//! | equation | here |
//! |---|---|
//! | (7) L^CLIP | [`clipped_surrogate`] |
//! | (8) L^KLPEN | [`surrogate`], less β KL in `on_policy`'s `Shard` |
//! | (9) L^CLIP+VF+S | [`OnPolicy::gradient`], sample by sample |
//! | (11), (12) Â | [`gae`](crate::estimate::gae) |
//!
//! # Differences from the paper
//!
//! - Separate networks for actor and critic unless `trunk` has layers (detail 13).
//! - Advantages are normalized per minibatch (detail 7), the learning rate may fall (detail 4),
//!   the gradient's norm is limited (detail 11), updates may stop early on KL.
//! - A truncated episode bootstraps from its true last observation (Pardo et al. 2018).
//! - The normalizer of observations moves between iterations, not between steps, so that all of a
//!   segment is seen alike when collected and when learned from.
//!
//! # Defaults
//!
//! Those of stable-baselines3's `PPO`, but for 8 environments and the details named above. Where
//! stable-baselines3 writes `vf_coef · mean((R − V)²)`, `value_coef` here is twice its `vf_coef`.

mod config;

use cordada_env::{Persist, StateError, StateReader, StateWriter, Stream, role};
use cordada_nn::Optimizer;

use super::on_policy::{
    self, Loss, OnPolicy, OnPolicyMethod, Order, PolicyObjective, Shape, Stats, load_optimizer,
    save_optimizer,
};
use super::{ANY_OBS, AlgoSpec, Report, Resume, Setup};
use crate::config::Config;
use crate::error::Error;
use crate::objective::{
    AdaptiveKl, Surrogate, ValueClip, clipped_surrogate, dual_clipped_surrogate, surrogate,
};

pub use config::{Objective, PpoConfig, ValueClipping};

/// PPO in the list of algorithms.
pub const SPEC: AlgoSpec = AlgoSpec {
    name: "ppo",
    title: "Proximal policy optimization",
    paper: "Schulman et al. 2017, arXiv:1707.06347",
    on_policy: true,
    accepts: on_policy::ACCEPTS,
    takes: on_policy::takes,
    observes: ANY_OBS,
    sees: |_| true,
    recurrent: true,
    masks: true,
    resume: Resume::Exact,
    fields: PpoConfig::FIELDS,
    complete: |table| Ok(PpoConfig::from_table("ppo", table)?.to_table()),
    make: |setup| Ok(Box::new(Ppo::new(setup)?)),
};

/// The learner.
#[derive(Debug)]
pub struct Ppo {
    config: PpoConfig,
    common: OnPolicy,
    epochs: Epochs,
}

/// Lines 5 to 7 and what they keep from one iteration to the next.
#[derive(Debug)]
pub struct Epochs {
    optimizer: Optimizer<f32>,
    kl: AdaptiveKl<f32>,
    order: Order,
    shuffle: Stream,
    learned: Learned,
}

/// The objective of one sample.
#[derive(Clone, Copy, Debug)]
pub enum PpoObjective {
    /// L^CLIP, eq. (7).
    Clip {
        /// ε.
        eps: f32,
        /// The second bound of Ye et al. 2020, if it is on.
        dual: Option<f32>,
    },
    /// The surrogate of L^KLPEN, eq. (8).
    KlPenalty,
}

impl PolicyObjective for PpoObjective {
    #[inline(always)]
    fn term(self, log_prob: f32, old: f32, advantage: f32) -> Surrogate<f32> {
        match self {
            Self::Clip { eps, dual: None } => clipped_surrogate(log_prob, old, advantage, eps),
            Self::Clip { eps, dual: Some(dual) } => {
                dual_clipped_surrogate(log_prob, old, advantage, eps, dual)
            }
            Self::KlPenalty => surrogate(log_prob, old, advantage),
        }
    }
}

impl PpoConfig {
    /// L^CLIP+VF+S of eq. (9), or with L^KLPEN of eq. (8), at this progress of the run.
    pub fn loss(&self, progress: f64, kl_coef: f32) -> Loss<PpoObjective> {
        let (policy, kl_coef) = match self.objective {
            Objective::Clip => {
                let eps = self.clip_eps.at(progress) as f32;
                (PpoObjective::Clip { eps, dual: self.dual_clip.map(|c| c as f32) }, 0.0)
            }
            Objective::KlPenalty => (PpoObjective::KlPenalty, kl_coef),
        };
        let eps = self.value_clip_eps as f32;
        Loss {
            policy: Some(policy),
            value_coef: Some(self.value_coef as f32),
            value_clip: match self.value_clip {
                ValueClipping::Off => ValueClip::Off,
                ValueClipping::Hold => ValueClip::Hold(eps),
                ValueClipping::Max => ValueClip::Max(eps),
            },
            entropy_coef: self.entropy_coef as f32,
            kl_coef,
        }
    }
}

impl PpoConfig {
    /// What the shared part of a learner is made from.
    pub fn shape(&self) -> Shape<'_> {
        Shape {
            network: &self.network,
            critic: true,
            scaling: &self.scaling,
            num_envs: self.segment.num_envs,
            num_steps: self.segment.num_steps,
            gamma: self.segment.gamma,
            batch_rows: self.minibatch_size(),
        }
    }
}

impl Epochs {
    /// Before the first iteration.
    ///
    /// # Errors
    ///
    /// If the optimizer's numbers are out of range.
    pub fn new(config: &PpoConfig, common: &OnPolicy, seed: u64) -> Result<Self, Error> {
        let memory = common.network.state_len() > 0;
        Ok(Self {
            optimizer: Optimizer::new(config.step.optimizer(), common.theta.len())?,
            kl: AdaptiveKl { beta: config.kl_coef as f32, target: config.kl_target as f32 },
            order: Order::new(config.segment.num_envs, config.segment.num_steps, memory),
            shuffle: Stream::new(seed, role::SHUFFLE, 0),
            learned: Learned::default(),
        })
    }

    /// Forgets what the last iteration told.
    pub fn begin(&mut self) {
        self.learned = Learned::default();
    }

    /// K epochs of minibatches of the trajectories, whose advantages and targets are there.
    ///
    /// # Errors
    ///
    /// [`Error::NonFinite`] if the objective or its gradient is not finite.
    pub fn learn(&mut self, config: &PpoConfig, common: &mut OnPolicy) -> Result<(), Error> {
        let Self { optimizer, kl, order, shuffle, learned } = self;
        let progress = common.progress();
        let loss = config.loss(progress, kl.beta);
        learned.learning_rate = config.step.learning_rate.at(progress);
        learned.clip_eps = config.clip_eps.at(progress);
        'epochs: for _ in 0..config.num_epochs {
            order.shuffle(shuffle);
            for i in 0..config.num_minibatches {
                let work = order.part(i, config.num_minibatches);
                let stats = common.gradient(work, config.normalize_advantages, loss); // eq. (9)
                let means = stats.means();
                common.finite("objective", means.policy_objective - means.value_loss)?;
                learned.stats.add(&stats);
                if config.target_kl.is_some_and(|target| means.approx_kl > 1.5 * target) {
                    break 'epochs;
                }
                let max_norm = config.step.max_grad_norm;
                learned.grad_norm += common.ascend(optimizer, learned.learning_rate, max_norm)?;
                learned.updates += 1;
            }
            learned.epochs += 1;
        }
        if config.objective == Objective::KlPenalty && config.kl_adaptive {
            kl.update(common.mean_kl() as f32);
        }
        Ok(())
    }

    /// What the last iteration tells, in a fixed order.
    pub fn metrics(&self, config: &PpoConfig, metrics: &mut Vec<(&'static str, f64)>) {
        let learned = &self.learned;
        if learned.updates == 0 {
            return;
        }
        let means = learned.stats.means();
        metrics.extend([
            ("train/policy_loss", -means.policy_objective),
            ("train/value_loss", means.value_loss),
            ("train/entropy", means.entropy),
            ("train/approx_kl", means.approx_kl),
            ("train/clip_fraction", means.clip_fraction),
            ("train/grad_norm", learned.grad_norm / learned.updates as f64),
            ("train/epochs", learned.epochs as f64),
            ("train/learning_rate", learned.learning_rate),
            ("train/clip_eps", learned.clip_eps),
        ]);
        if config.objective == Objective::KlPenalty {
            metrics.push(("train/kl_coef", f64::from(self.kl.beta)));
        }
    }
}

impl Persist for Epochs {
    fn save(&self, w: &mut StateWriter) {
        save_optimizer(&self.optimizer, w);
        w.f32(self.kl.beta);
        self.shuffle.save(w);
        self.order.save(w);
    }

    fn load(&mut self, r: &mut StateReader<'_>) -> Result<(), StateError> {
        load_optimizer(&mut self.optimizer, r)?;
        self.kl.beta = r.f32()?;
        self.shuffle.load(r)?;
        self.order.load(r)
    }
}

impl Ppo {
    /// A learner at its start.
    ///
    /// # Errors
    ///
    /// [`Error::BadValue`] or [`Error::UnknownKey`] for the settings, [`Error::Space`] if it
    /// cannot act in the environment.
    pub fn new(setup: &Setup<'_>) -> Result<Self, Error> {
        let config = PpoConfig::from_table(SPEC.name, setup.settings)?;
        let common = OnPolicy::new(&SPEC, setup, config.shape())?;
        Ok(Self { epochs: Epochs::new(&config, &common, setup.seed)?, config, common })
    }
}

impl OnPolicyMethod for Ppo {
    fn common(&self) -> &OnPolicy {
        &self.common
    }

    fn common_mut(&mut self) -> &mut OnPolicy {
        &mut self.common
    }

    fn iteration(&mut self) -> Result<Report, Error> {
        let Self { config, common, epochs } = self;
        epochs.begin();
        common.collect()?; // Alg. 1, lines 2 and 3
        common.estimate(config.segment.gamma, config.segment.gae_lambda); // line 4, eqs. (11), (12)
        epochs.learn(config, common)?; // lines 5 to 7, eq. (9)
        let mut report = Report::default();
        common.rollout_metrics(&mut report.metrics);
        epochs.metrics(config, &mut report.metrics);
        common.policy_metrics(&mut report.metrics);
        common.finish()?;
        Ok(report)
    }

    fn save_own(&self, w: &mut StateWriter) {
        self.epochs.save(w);
    }

    fn load_own(&mut self, r: &mut StateReader<'_>) -> Result<(), StateError> {
        self.epochs.load(r)
    }
}

/// What the epochs of one iteration add up to.
#[derive(Clone, Debug, Default)]
struct Learned {
    stats: Stats,
    grad_norm: f64,
    updates: u64,
    epochs: u64,
    learning_rate: f64,
    clip_eps: f64,
}
