//! Asynchronous advantage actor-critic: workers that learn side by side from parameters that they
//! share, without locks and without waiting for each other.
//!
//! # Source
//!
//! Mnih et al. 2016, "Asynchronous methods for deep reinforcement learning", arXiv:1602.01783;
//! lock-free updates: Recht et al. 2011, "Hogwild!", arXiv:1106.5730.
//!
//! # Algorithm
//!
//! ```text
//! 1  every worker repeats, on the shared θ and shared statistics v:
//! 2      θ' ← θ
//! 3      run π_θ' for t_max steps
//! 4      R_t = n-step return, Â_t = R_t − V(s_t)
//! 5      d = mean( Â ∇ log π_θ'(a | s) − c₁ ∇ ½ (V(s) − R)² + c₂ ∇ S )
//! 6      v ← α v + (1 − α) d²,  θ ← θ + η d / √(v + ε)
//! ```
//!
//! | formula | here |
//! |---|---|
//! | Algorithm S3 of the paper | `Learner::segment` |
//! | R, Â | [`gae`](crate::estimate::gae) with λ = 1 |
//! | Â log π | [`policy_gradient`](crate::objective::policy_gradient) |
//! | eqs. (S2), (S3): shared RMSprop | `Shared::ascend`, one part of θ after the other |
//!
//! # Modes
//!
//! A worker is not a thread: threads share out the workers, and each goes through its own in turn,
//! a segment each. So a run looks the same, and can be resumed, on any number of threads.
//!
//! - `async`: with more than one thread, what a worker reads of θ depends on how far the others
//!   are, which no two runs agree on. Two updates of a number at the same moment may lose one.
//! - `round_robin`: one thread goes through all workers. Deterministic, and resumed bit for bit.
//!   `async` on one thread is the same.
//!
//! Workers meet after `updates_per_iteration` segments of each, so that what lies between
//! iterations (checkpoint, evaluation, metrics) sees one θ.
//!
//! # Differences from the paper
//!
//! - A worker may have several environments, which its networks see as a batch.
//! - The mean over a segment, not the sum, so that η does not depend on its length.
//! - Actor and critic have no layer in common unless `trunk` has layers.
//! - The gradient's norm is limited.
//!
//! # Defaults
//!
//! t_max, 16 workers, α, c₂ and the falling η of the paper's section 8; the rest as in `a2c`.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use cordada_env::{Episode, Space, StateError, StateReader, StateWriter};
use cordada_nn::kernel::Isa;
use cordada_nn::{Optimizer, OptimizerConfig, Schedule, clip_global_norm};
use serde::{Deserialize, Serialize};

use super::a2c::Weighted;
use super::on_policy::{
    self, Batch, Loss, OnPolicy, OnPolicyMethod, Order, Shape, Shard, Stats, each,
};
use super::{ANY_OBS, AlgoSpec, Report, Resume, Setup};
use crate::config::{Checks, Config, Field};
use crate::error::Error;
use crate::input::InputMap;
use crate::objective::ValueClip;
use crate::policy::{ActorCritic, PolicyWeights};
use crate::rollout::{Actor, Collector, Track, Trajectory};
use crate::settings::{NetworkConfig, ScalingConfig, SegmentConfig, StepConfig, UpdateRule};

/// A3C in the list of algorithms.
pub const SPEC: AlgoSpec = AlgoSpec {
    name: "a3c",
    title: "Asynchronous advantage actor-critic",
    paper: "Mnih et al. 2016, arXiv:1602.01783",
    on_policy: true,
    accepts: on_policy::ACCEPTS,
    takes: on_policy::takes,
    observes: ANY_OBS,
    sees: |_| true,
    recurrent: true,
    masks: true,
    resume: Resume::ExactIf("mode = \"round_robin\""),
    fields: A3cConfig::FIELDS,
    complete: |table| Ok(A3cConfig::from_table("a3c", table)?.to_table()),
    make: |setup| Ok(Box::new(A3c::new(setup)?)),
};

/// Who learns when.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// All threads at once.
    #[default]
    Async,
    /// One worker after the other.
    RoundRobin,
}

crate::config! {
    /// Settings of A3C.
    pub struct A3cConfig {
        /// "async" (all threads at once) or "round_robin" (one thread, deterministic).
        mode: Mode = Mode::Async;
        /// Workers, shared out among the threads; at least 1, and of use up to so many threads (paper: 16).
        workers: usize = 16;
        /// Environments of each worker; at least 1.
        envs_per_worker: usize = 4;
        /// Segments of each worker before all meet; at least 1.
        updates_per_iteration: usize = 10;
        /// t_max, steps of each environment per segment; at least 1.
        num_steps: usize = 5, alias ["n_steps", "t_max"];
        /// γ, discount, from 0 to 1.
        gamma: f64 = 0.99;
        /// λ of generalized advantage estimation, from 0 to 1: 1 is the paper's n-step return.
        gae_lambda: f64 = 1.0;
        /// c₁, weight of the value loss ½ (V − R)².
        value_coef: f64 = 1.0;
        /// c₂, weight of the entropy bonus (paper: 0.01).
        entropy_coef: f64 = 0.01, alias ["ent_coef"];
    }
    groups {
        /// Steps along the gradient.
        step: StepConfig = StepConfig {
            learning_rate: Schedule::Linear { from: 7e-4, to: 0.0 },
            optimizer: UpdateRule::RmsPropTf,
            optimizer_eps: 1e-5,
            max_grad_norm: 0.5,
        };
        /// Networks.
        network: NetworkConfig = NetworkConfig::default();
    }
}

impl A3cConfig {
    fn segment(&self) -> SegmentConfig {
        let num_envs = self.workers.saturating_mul(self.envs_per_worker);
        let Self { num_steps, gamma, gae_lambda, .. } = *self;
        SegmentConfig { num_envs, num_steps, gamma, gae_lambda }
    }

    fn loss(&self) -> Loss<Weighted> {
        Loss {
            policy: Some(Weighted),
            value_coef: Some(self.value_coef as f32),
            value_clip: ValueClip::Off,
            entropy_coef: self.entropy_coef as f32,
            kl_coef: 0.0,
        }
    }
}

impl Config for A3cConfig {
    const FIELDS: &'static [Field] = A3cConfig::FIELDS;
    const RENAMED: &'static [(&'static str, &'static str)] = &[
        ("num_envs", "workers and envs_per_worker, whose product it is"),
        ("n_envs", "workers and envs_per_worker, whose product it is"),
        ("vf_coef", "value_coef, which is twice stable-baselines3's vf_coef"),
    ];

    fn check(&self, section: &str) -> Result<(), Error> {
        let check = Checks { section };
        check.counts(&[
            ("workers", self.workers),
            ("envs_per_worker", self.envs_per_worker),
            ("updates_per_iteration", self.updates_per_iteration),
        ])?;
        self.segment().check(check)?;
        self.step.check(check)?;
        self.network.check(check)?;
        check.weights(&[("value_coef", self.value_coef), ("entropy_coef", self.entropy_coef)])
    }
}

/// Numbers that all threads read and write without locks, each whole.
#[derive(Debug)]
struct Numbers(Vec<AtomicU32>);

impl Numbers {
    fn new(values: &[f32]) -> Self {
        Self(values.iter().map(|x| AtomicU32::new(x.to_bits())).collect())
    }

    fn load(&self, at: usize, to: &mut [f32]) {
        for (to, from) in to.iter_mut().zip(&self.0[at..]) {
            *to = f32::from_bits(from.load(Ordering::Relaxed));
        }
    }

    fn store(&self, at: usize, from: &[f32]) {
        for (to, from) in self.0[at..].iter().zip(from) {
            to.store(from.to_bits(), Ordering::Relaxed);
        }
    }

    fn to_vec(&self) -> Vec<f32> {
        let mut all = vec![0.0; self.0.len()];
        self.load(0, &mut all);
        all
    }
}

/// Parameters that are read, moved and written at a time: the fewer, the less often two updates
/// meet; the more, the fewer loops.
const PART: usize = 1024;

/// What all workers share.
#[derive(Debug)]
struct Shared {
    theta: Numbers,
    /// The optimizer's statistics, each as θ.
    statistics: Vec<Numbers>,
    /// Updates so far, and steps: the T of the paper.
    updates: AtomicU64,
    steps: AtomicU64,
}

impl Shared {
    fn new(theta: &[f32], rule: OptimizerConfig) -> Result<Self, Error> {
        let optimizer = Optimizer::<f32>::new(rule, theta.len())?;
        let statistics = optimizer.state().map(|(_, values)| Numbers::new(values)).collect();
        let (updates, steps) = (AtomicU64::new(0), AtomicU64::new(0));
        Ok(Self { theta: Numbers::new(theta), statistics, updates, steps })
    }

    /// Line 6: moves the shared θ, of which `theta` becomes a copy.
    fn ascend(
        &self,
        optimizers: &mut [Optimizer<f32>],
        theta: &mut [f32],
        grad: &[f32],
        learning_rate: f64,
    ) {
        let updates = self.updates.fetch_add(1, Ordering::Relaxed);
        let parts = theta.chunks_mut(PART).zip(grad.chunks(PART)).zip(optimizers);
        for (i, ((theta, grad), optimizer)) in parts.enumerate() {
            self.theta.load(i * PART, theta);
            for ((_, own), shared) in optimizer.state_mut().zip(&self.statistics) {
                shared.load(i * PART, own);
            }
            optimizer.set_steps(updates);
            optimizer.ascend(theta, grad, learning_rate);
            self.theta.store(i * PART, theta);
            for ((_, own), shared) in optimizer.state().zip(&self.statistics) {
                shared.store(i * PART, own);
            }
        }
    }
}

/// What a worker found in an iteration.
#[derive(Debug, Default)]
struct Tally {
    stats: Stats,
    grad_norm: f64,
    updates: u64,
    steps: u64,
    reward: f64,
    episodes: Vec<Episode>,
}

impl Tally {
    fn add_segment(&mut self, trajectories: &[Trajectory], stats: &Stats, grad_norm: f64) {
        self.stats.add(stats);
        self.grad_norm += grad_norm;
        self.updates += 1;
        for from in trajectories {
            self.steps += from.num_steps() as u64;
            self.reward += from.raw_rewards.iter().map(|&r| f64::from(r)).sum::<f64>();
            self.episodes.extend(from.episodes.iter().map(|(_, episode)| *episode));
        }
    }

    fn add(&mut self, other: &Self) {
        self.stats.add(&other.stats);
        self.grad_norm += other.grad_norm;
        self.updates += other.updates;
        self.steps += other.steps;
        self.reward += other.reward;
        self.episodes.extend_from_slice(&other.episodes);
    }
}

/// What a thread learns with: its copy of θ, and working memory.
#[derive(Debug)]
struct Learner {
    collector: Collector,
    shard: Shard,
    /// θ'.
    theta: Vec<f32>,
    weights: PolicyWeights<f32>,
    /// Of the parts of θ; their statistics are copies.
    optimizers: Vec<Optimizer<f32>>,
}

/// What all segments of an iteration have in common.
#[derive(Clone, Copy)]
struct Context<'a> {
    network: &'a ActorCritic,
    input: &'a InputMap,
    action_space: &'a Space,
    config: &'a A3cConfig,
    order: &'a Order,
    shared: &'a Shared,
    total_steps: u64,
    iteration: u64,
}

impl Learner {
    fn new(network: &ActorCritic, rule: OptimizerConfig) -> Result<Self, Error> {
        let theta = vec![0.0; network.num_params()];
        let optimizers = theta.chunks(PART).map(|part| Optimizer::new(rule, part.len()));
        Ok(Self {
            collector: Collector::default(),
            shard: Shard::new(network),
            weights: network.weights(),
            optimizers: optimizers.collect::<Result<_, _>>()?,
            theta,
        })
    }

    /// Line 2. Within an iteration θ' need not be read again: the update has just written it.
    fn copy_theta(&mut self, context: Context<'_>) {
        context.shared.theta.load(0, &mut self.theta);
        context.network.pack(&self.theta, &mut self.weights);
    }

    /// Lines 3 to 6 of one worker.
    fn segment(
        &mut self,
        context: Context<'_>,
        (tracks, trajectories): (&mut [Track], &mut [Trajectory]),
        tally: &mut Tally,
    ) -> Result<(), Error> {
        let Context { network, input, action_space, config, shared, iteration, .. } = context;
        let finite = |what: &str, value: f64| {
            let what = what.to_string();
            let error = || Error::NonFinite { what, value, iteration };
            if value.is_finite() { Ok(()) } else { Err(error()) }
        };
        let steps = (trajectories.len() * config.num_steps) as u64;
        let done = shared.steps.fetch_add(steps, Ordering::Relaxed);
        let progress = done as f64 / context.total_steps.max(1) as f64;
        let Self { collector, shard, theta, weights, optimizers } = self;
        let actor = Actor { policy: network, weights, input, action_space };
        collector.collect(actor, tracks, trajectories, iteration)?; // line 3
        for trajectory in &mut *trajectories {
            trajectory.estimate(config.gamma as f32, config.gae_lambda as f32); // line 4
        }
        let work = context.order.all();
        let batch = Batch::new(trajectories, work, false);
        shard.run(network, weights, &batch, work, config.loss()); // line 5
        let means = shard.stats.means();
        finite("objective", means.policy_objective - means.value_loss)?;
        let norm = clip_global_norm(Isa::detect(), &mut shard.grad, config.step.max_grad_norm);
        finite("gradient norm", norm)?;
        let learning_rate = config.step.learning_rate.at(progress);
        shared.ascend(optimizers, theta, &shard.grad, learning_rate); // line 6
        network.pack(theta, weights);
        tally.add_segment(trajectories, &shard.stats, norm);
        Ok(())
    }
}

/// The learner.
#[derive(Debug)]
pub struct A3c {
    config: A3cConfig,
    common: OnPolicy,
    shared: Shared,
    learners: Vec<Learner>,
    order: Order,
}

impl A3c {
    /// A learner at its start.
    ///
    /// # Errors
    ///
    /// [`Error::BadValue`] or [`Error::UnknownKey`] for the settings, [`Error::Space`] if it
    /// cannot act in the environment.
    pub fn new(setup: &Setup<'_>) -> Result<Self, Error> {
        let config = A3cConfig::from_table(SPEC.name, setup.settings)?;
        let segment = config.segment();
        let shape = Shape {
            network: &config.network,
            critic: true,
            scaling: &ScalingConfig::default(),
            num_envs: segment.num_envs,
            num_steps: segment.num_steps,
            gamma: segment.gamma,
            batch_rows: segment.num_steps * config.envs_per_worker,
        };
        let common = OnPolicy::new(&SPEC, setup, shape)?;
        let threads = match config.mode {
            Mode::Async => setup.threads.clamp(1, config.workers),
            Mode::RoundRobin => 1,
        };
        let rule = config.step.optimizer();
        let learners = (0..threads).map(|_| Learner::new(&common.network, rule));
        let memory = common.network.state_len() > 0;
        Ok(Self {
            learners: learners.collect::<Result<_, _>>()?,
            shared: Shared::new(&common.theta, rule)?,
            order: Order::new(config.envs_per_worker, config.num_steps, memory),
            config,
            common,
        })
    }

    /// Line 1, until all workers meet.
    fn learn(&mut self) -> Result<Tally, Error> {
        let Self { config, common, shared, learners, order } = self;
        let (envs, rounds) = (config.envs_per_worker, config.updates_per_iteration);
        let OnPolicy { network, input, action_space, tracks, trajectories, pool, .. } = common;
        let context = Context {
            network,
            input,
            action_space,
            config,
            order,
            shared,
            total_steps: common.total_steps,
            iteration: common.iterations,
        };
        let mut tallies: Vec<Tally> = (0..config.workers).map(|_| Tally::default()).collect();
        let per_thread = config.workers.div_ceil(learners.len());
        let tracks = tracks.chunks_mut(per_thread * envs);
        let trajectories = trajectories.chunks_mut(per_thread * envs);
        let worlds = tracks.zip(trajectories).zip(tallies.chunks_mut(per_thread));
        let parts = learners.iter_mut().zip(worlds);
        each(pool.as_deref(), parts, |(learner, ((tracks, trajectories), tallies))| {
            learner.copy_theta(context); // line 2
            for _ in 0..rounds {
                let worlds = tracks.chunks_mut(envs).zip(trajectories.chunks_mut(envs));
                for (world, tally) in worlds.zip(&mut *tallies) {
                    learner.segment(context, world, tally)?;
                }
            }
            Ok(())
        })?;
        let mut all = Tally::default();
        for tally in &tallies {
            all.add(tally);
        }
        Ok(all)
    }

    fn report(&self, tally: &Tally, learning_rate: f64) -> Report {
        let mut metrics = Vec::with_capacity(16);
        let (n, means) = (tally.episodes.len() as f64, tally.stats.means());
        if n > 0.0 {
            let returns = tally.episodes.iter().map(|e| e.episode_return).sum::<f64>() / n;
            let lengths = tally.episodes.iter().map(|e| e.length as f64).sum::<f64>() / n;
            metrics
                .extend([("rollout/episode_return", returns), ("rollout/episode_length", lengths)]);
        }
        metrics.extend([
            ("rollout/episodes", n),
            ("rollout/reward_mean", tally.reward / tally.steps as f64),
            ("train/policy_loss", -means.policy_objective),
            ("train/value_loss", means.value_loss),
            ("train/entropy", means.entropy),
            ("train/grad_norm", tally.grad_norm / tally.updates as f64),
            ("train/learning_rate", learning_rate),
        ]);
        self.common.policy_metrics(&mut metrics);
        Report { metrics }
    }
}

impl OnPolicyMethod for A3c {
    fn common(&self) -> &OnPolicy {
        &self.common
    }

    fn common_mut(&mut self) -> &mut OnPolicy {
        &mut self.common
    }

    fn iteration(&mut self) -> Result<Report, Error> {
        let learning_rate = self.config.step.learning_rate.at(self.common.progress());
        let tally = self.learn()?;
        let common = &mut self.common;
        self.shared.theta.load(0, &mut common.theta);
        common.network.pack(&common.theta, &mut common.weights);
        if let Some(&x) = common.theta.iter().find(|x| !x.is_finite()) {
            common.finite("parameter", f64::from(x))?;
        }
        // Forward to act and for the values, forward again, back to inputs and weights.
        common.count_flops(tally.steps as usize, 4);
        common.steps += tally.steps;
        common.iterations += 1;
        Ok(self.report(&tally, learning_rate))
    }

    fn save_own(&self, w: &mut StateWriter) {
        w.u64(self.shared.updates.load(Ordering::Relaxed));
        self.shared.statistics.iter().for_each(|numbers| w.f32s(&numbers.to_vec()));
    }

    fn load_own(&mut self, r: &mut StateReader<'_>) -> Result<(), StateError> {
        let Self { common, shared, .. } = self;
        shared.theta.store(0, &common.theta);
        *shared.steps.get_mut() = common.steps;
        *shared.updates.get_mut() = r.u64()?;
        let mut values = vec![0.0; common.theta.len()];
        for numbers in &shared.statistics {
            r.f32s_into(&mut values)?;
            numbers.store(0, &values);
        }
        Ok(())
    }
}
