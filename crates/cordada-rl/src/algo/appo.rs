//! Asynchronous PPO: environments go on while the learner learns, and V-trace corrects for the
//! policy that is one iteration old.
//!
//! # Source
//!
//! Espeholt et al. 2018, "IMPALA", arXiv:1802.01561 (V-trace); Petrenko et al. 2020, "Sample
//! Factory", arXiv:2006.11751 (asynchronous PPO with V-trace); Hilton, Cobbe and Schulman 2022,
//! arXiv:2110.00641 (the clip around a policy other than the one that acted).
//!
//! # Algorithm
//!
//! ```text
//! 1  for iteration = 1, 2, … do, at the same time,
//! 2      collect T steps in N environments by μ = π_θ as it is now
//! 3      and, from the segment that was collected one iteration before,
//! 4          ρ = π_θ(a | s) / μ'(a | s), μ' the policy that acted there
//! 5          v, Â = V-trace(ρ)
//! 6          K epochs of minibatches of L^CLIP around π_θ of line 4, toward v
//! ```
//!
//! | formula | here |
//! |---|---|
//! | v, Â | [`vtrace`] |
//! | L^CLIP | [`clipped_surrogate`](crate::objective::clipped_surrogate), as in PPO |
//!
//! # Differences from the papers
//!
//! - The lag is exactly one iteration, not whatever the queues give: collecting and learning run
//!   side by side, and meet at the end of each iteration. So results depend on the seed alone, not
//!   on threads or their speed, and a run resumes exactly.
//! - The clip is around the policy at the beginning of the learning, whose ratio to the one that
//!   acted is in V-trace's weights (Hilton et al. 2022).
//!
//! # Defaults
//!
//! PPO's, with ρ̄ = c̄ = 1.

use cordada_env::{Persist, StateError, StateReader, StateWriter};

use super::on_policy::{self, Extent, OnPolicy, OnPolicyMethod, collect_all};
use super::ppo::{Epochs, PpoConfig};
use super::{ANY_OBS, AlgoSpec, Report, Resume, Setup};
use crate::config::{Checks, Config, Field};
use crate::error::Error;
use crate::estimate::{VtraceConfig, vtrace};
use crate::rollout::{Actor, Collector, Trajectory};

/// APPO in the list of algorithms.
pub const SPEC: AlgoSpec = AlgoSpec {
    name: "appo",
    title: "Asynchronous proximal policy optimization",
    paper: "Petrenko et al. 2020, arXiv:2006.11751; V-trace: Espeholt et al. 2018, arXiv:1802.01561",
    on_policy: true,
    accepts: on_policy::ACCEPTS,
    takes: on_policy::takes,
    observes: ANY_OBS,
    sees: |_| true,
    recurrent: true,
    masks: true,
    resume: Resume::Exact,
    fields: AppoConfig::FIELDS,
    complete: |table| Ok(AppoConfig::from_table("appo", table)?.to_table()),
    make: |setup| Ok(Box::new(Appo::new(setup)?)),
};

crate::config! {
    /// Settings of asynchronous PPO.
    pub struct AppoConfig {
        /// ρ̄, largest weight of a TD error and of the policy's gradient (paper: 1).
        rho_bar: f64 = 1.0;
        /// c̄, largest weight with which a TD error reaches back (paper: 1).
        c_bar: f64 = 1.0;
    }
    groups {
        /// What it shares with PPO.
        ppo: PpoConfig = PpoConfig::default();
    }
}

impl Config for AppoConfig {
    const FIELDS: &'static [Field] = AppoConfig::FIELDS;
    const RENAMED: &'static [(&'static str, &'static str)] = PpoConfig::RENAMED;

    fn check(&self, section: &str) -> Result<(), Error> {
        self.ppo.check(section)?;
        Checks { section }.positive(&[("rho_bar", self.rho_bar), ("c_bar", self.c_bar)])
    }
}

/// The learner.
#[derive(Debug)]
pub struct Appo {
    config: AppoConfig,
    common: OnPolicy,
    epochs: Epochs,
    /// What is being collected, while `common.trajectories` is what is learned from.
    ahead: Vec<Trajectory>,
    reviewer: Collector,
    /// log π_θ of the actions of the segment that is learned from: `[T]` for each environment.
    log_prob: Vec<Vec<f32>>,
}

impl Appo {
    /// A learner at its start.
    ///
    /// # Errors
    ///
    /// [`Error::BadValue`] or [`Error::UnknownKey`] for the settings, [`Error::Space`] if it
    /// cannot act in the environment.
    pub fn new(setup: &Setup<'_>) -> Result<Self, Error> {
        let config = AppoConfig::from_table(SPEC.name, setup.settings)?;
        let common = OnPolicy::new(&SPEC, setup, config.ppo.shape())?;
        Ok(Self {
            epochs: Epochs::new(&config.ppo, &common, setup.seed)?,
            ahead: common.trajectories.clone(),
            reviewer: Collector::default(),
            log_prob: vec![Vec::new(); config.ppo.segment.num_envs],
            config,
            common,
        })
    }

    /// Lines 2 to 6: collects ahead and learns from behind, side by side if there are threads.
    fn collect_and_learn(&mut self) -> Result<(), Error> {
        let Self { config, common, epochs, ahead, reviewer, log_prob } = self;
        let mut collectors = std::mem::take(&mut common.collectors);
        let mut tracks = std::mem::take(&mut common.tracks);
        let (network, weights) = (common.network.clone(), common.weights.clone());
        let (input, action_space) = (common.input.clone(), common.action_space.clone());
        let (pool, when) = (common.pool.clone(), (common.iterations, Extent::Segment));
        let actor = Actor {
            policy: &network,
            weights: &weights,
            input: &input,
            action_space: &action_space,
        };
        let mut collect = || {
            let worlds = (&mut collectors[..], &mut tracks[..], &mut ahead[..]);
            collect_all(pool.as_deref(), actor, worlds, when)
        };
        let mut learn = || {
            if common.iterations == 0 {
                // Nothing lies behind yet.
                return Ok(());
            }
            credit(config, actor, common, (reviewer, log_prob)); // lines 4 and 5
            epochs.learn(&config.ppo, common) // line 6
        };
        let (collected, learned) = match &pool {
            Some(pool) => pool.install(|| rayon::join(collect, learn)),
            None => (collect(), learn()),
        };
        (common.collectors, common.tracks) = (collectors, tracks);
        collected.and(learned)
    }
}

/// Lines 4 and 5: log π_θ of the actions, ρ, and V-trace's targets and advantages. `actor` is π_θ.
fn credit(
    config: &AppoConfig,
    actor: Actor<'_>,
    common: &mut OnPolicy,
    (reviewer, log_prob): (&mut Collector, &mut [Vec<f32>]),
) {
    common.scale_rewards();
    reviewer.review(actor, &mut common.trajectories, log_prob);
    let vtrace_config = VtraceConfig {
        gamma: config.ppo.segment.gamma as f32,
        lambda: config.ppo.segment.gae_lambda as f32,
        rho_bar: config.rho_bar as f32,
        c_bar: config.c_bar as f32,
        pg_rho_bar: config.rho_bar as f32,
    };
    for (trajectory, log_prob) in common.trajectories.iter_mut().zip(log_prob) {
        let log_rhos: Vec<f32> =
            log_prob.iter().zip(&trajectory.log_prob).map(|(new, old)| new - old).collect();
        trajectory.log_prob.copy_from_slice(log_prob);
        trajectory.estimate_by(|segment, advantages, targets| {
            vtrace(segment, &log_rhos, vtrace_config, targets, advantages);
        });
    }
}

impl OnPolicyMethod for Appo {
    fn common(&self) -> &OnPolicy {
        &self.common
    }

    fn common_mut(&mut self) -> &mut OnPolicy {
        &mut self.common
    }

    fn iteration(&mut self) -> Result<Report, Error> {
        self.epochs.begin();
        self.collect_and_learn()?;
        std::mem::swap(&mut self.common.trajectories, &mut self.ahead);
        let mut report = Report::default();
        self.common.rollout_metrics(&mut report.metrics);
        self.epochs.metrics(&self.config.ppo, &mut report.metrics);
        if self.common.iterations > 0 {
            // What was learned from lies in `ahead` now.
            std::mem::swap(&mut self.common.trajectories, &mut self.ahead);
            self.common.policy_metrics(&mut report.metrics);
            std::mem::swap(&mut self.common.trajectories, &mut self.ahead);
        }
        self.common.finish()?;
        Ok(report)
    }

    fn save_own(&self, w: &mut StateWriter) {
        self.epochs.save(w);
        self.common.trajectories.iter().for_each(|trajectory| trajectory.save(w));
    }

    fn load_own(&mut self, r: &mut StateReader<'_>) -> Result<(), StateError> {
        self.epochs.load(r)?;
        self.common.trajectories.iter_mut().try_for_each(|trajectory| trajectory.load(r))
    }
}
