//! What all on-policy learners share: environments and their trajectories, the policy with its
//! parameters, rewards' scale, and the gradient of an objective over a batch. An algorithm adds
//! what is its own: the estimator, the objective, and the steps that it takes along the gradient.

mod shard;

use std::fmt;
use std::sync::Arc;

use cordada_env::wrapper::normalize::{NormalizeOptions, RewardNormalizer};
use cordada_env::{Env, Persist, Space, StateError, StateReader, StateWriter, Stream, role};
use cordada_nn::kernel::{Isa, add_assign};
use cordada_nn::{Optimizer, clip_global_norm};
use rayon::ThreadPool;

use super::{AlgoSpec, Algorithm, Report, Setup};
use crate::config::Checks;
use crate::error::Error;
use crate::estimate::explained_variance;
use crate::input::InputMap;
use crate::policy::{
    ActorCritic, ActorCriticSpec, BLOCK_ROWS, PolicyTape, PolicyWeights, distribution_for,
};
use crate::policy_file::{Policy, PolicySpec};
use crate::rollout::{Actor, Collector, Track, TrackSizes, Trajectory};
use crate::settings::{NetworkConfig, ScalingConfig, init_named};

pub use shard::{Batch, Loss, Means, Order, PolicyObjective, Sample, Shard, Stats, Work};
pub(super) use shard::{append, row};

/// Rows that one shard of a batch has at least: below that, sharing costs more than it gains.
pub(super) const SHARD_ROWS: usize = 512;
/// Shards that a batch is split into at most.
pub(super) const MAX_SHARDS: usize = 16;

/// Whether a distribution exists for the action space.
pub fn takes(space: &Space) -> bool {
    distribution_for(space, false).is_some()
}

/// Action spaces that [`takes`] accepts, in words.
pub const ACCEPTS: &str = "Discrete, MultiDiscrete, MultiBinary and Box action spaces";

/// What a learner is made from, beside its [`Setup`].
#[derive(Clone, Copy, Debug)]
pub struct Shape<'a> {
    /// Networks.
    pub network: &'a NetworkConfig,
    /// Whether there is a critic.
    pub critic: bool,
    /// Scaling of observations and rewards.
    pub scaling: &'a ScalingConfig,
    /// N.
    pub num_envs: usize,
    /// T; 0 for whole episodes.
    pub num_steps: usize,
    /// γ, for the scale of rewards.
    pub gamma: f64,
    /// Samples of a batch, which decide into how many shards it is split.
    pub batch_rows: usize,
}

/// How far a collection goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// As many steps as the trajectories have room for.
    Segment,
    /// To the end of an episode in each environment.
    Episode {
        /// Steps after which an episode is cut.
        max_steps: usize,
    },
}

/// The shared part of a learner.
#[derive(Debug)]
pub struct OnPolicy {
    algo: &'static str,
    env: String,
    pub(super) action_space: Space,
    obs_space: Space,
    normalize: Option<NormalizeOptions>,
    /// Networks and distribution.
    pub network: ActorCritic,
    spec: ActorCriticSpec,
    /// θ.
    pub theta: Vec<f32>,
    /// θ, packed.
    pub weights: PolicyWeights<f32>,
    /// From observations to the networks' input.
    pub input: InputMap,
    rewards: Option<RewardNormalizer>,
    pub(super) tracks: Vec<Track>,
    /// What the environments gave in this iteration.
    pub trajectories: Vec<Trajectory>,
    pub(super) collectors: Vec<Collector>,
    shards: Vec<Shard>,
    /// The gradient of the last batch, to be ascended: as θ.
    pub grad: Vec<f32>,
    tape: PolicyTape<f32>,
    pub(super) pool: Option<Arc<ThreadPool>>,
    /// Steps of the whole run.
    pub total_steps: u64,
    /// Steps so far.
    pub steps: u64,
    /// Iterations so far.
    pub iterations: u64,
    /// Floating-point operations of the networks' products so far.
    pub flops: u64,
}

impl OnPolicy {
    /// A learner at its start.
    ///
    /// # Errors
    ///
    /// [`Error::BadValue`] for a setting that does not fit the environment, [`Error::Space`] if it
    /// cannot act in it.
    pub fn new(algo: &AlgoSpec, setup: &Setup<'_>, shape: Shape<'_>) -> Result<Self, Error> {
        let envs: Vec<Box<dyn Env>> = (0..shape.num_envs).map(|_| (setup.make_env)()).collect();
        let action_space = envs[0].action_space().clone();
        let obs_space = envs[0].obs_space().clone();
        algo.check(setup.env, &*envs[0])?;
        let normalize = shape.scaling.obs_normalizer();
        let input = InputMap::new(&obs_space, normalize)?;
        let check = Checks { section: algo.name };
        let spaces = ((&obs_space, input.inputs()), &action_space);
        let mut spec = shape.network.policy_spec(check, spaces.0, spaces.1)?;
        spec.critic = spec.critic.filter(|_| shape.critic);
        let network = ActorCritic::new(&spec);
        let mut init_stream = Stream::new(setup.seed, role::INIT, 0);
        let init = init_named(&shape.network.init);
        let theta = network.init(init, shape.network.log_std_init, &mut init_stream);
        let mut weights = network.weights();
        network.pack(&theta, &mut weights);
        let sizes = track_sizes(&shape, &network, &input, &*envs[0]);
        let state_len = network.state_len();
        let track = |(i, env)| Track::new(env, setup.seed, i as u32, state_len);
        let tracks: Vec<Track> = envs.into_iter().enumerate().map(track).collect();
        let num_shards = (shape.batch_rows / SHARD_ROWS).clamp(1, MAX_SHARDS);
        let threads = setup.threads.clamp(1, shape.num_envs);
        let reward_rows = if shape.num_steps == 0 { 1 } else { shape.num_envs };
        Ok(Self {
            algo: algo.name,
            env: setup.env.to_string(),
            rewards: shape.scaling.reward_normalizer(reward_rows, shape.gamma)?,
            trajectories: vec![Trajectory::new(sizes); tracks.len()],
            collectors: (0..threads).map(|_| Collector::default()).collect(),
            shards: (0..num_shards).map(|_| Shard::new(&network)).collect(),
            grad: vec![0.0; theta.len()],
            tape: PolicyTape::default(),
            pool: pool(setup.threads),
            total_steps: setup.total_steps,
            steps: 0,
            iterations: 0,
            flops: 0,
            normalize,
            action_space,
            obs_space,
            network,
            spec,
            theta,
            weights,
            input,
            tracks,
        })
    }

    /// Share of the run that is done.
    pub fn progress(&self) -> f64 {
        self.steps as f64 / self.total_steps.max(1) as f64
    }

    /// T steps in each environment, by the policy as it is.
    ///
    /// # Errors
    ///
    /// [`Error::NonFinite`] if an observation or reward is not finite.
    pub fn collect(&mut self) -> Result<(), Error> {
        self.collect_to(Extent::Segment)
    }

    /// One whole episode in each environment, of at most `max_steps`.
    ///
    /// # Errors
    ///
    /// [`Error::NonFinite`] if an observation or reward is not finite.
    pub fn collect_episodes(&mut self, max_steps: usize) -> Result<(), Error> {
        self.collect_to(Extent::Episode { max_steps })
    }

    fn collect_to(&mut self, extent: Extent) -> Result<(), Error> {
        let actor = Actor {
            policy: &self.network,
            weights: &self.weights,
            input: &self.input,
            action_space: &self.action_space,
        };
        let worlds = (&mut self.collectors[..], &mut self.tracks[..], &mut self.trajectories[..]);
        collect_all(self.pool.as_deref(), actor, worlds, (self.iterations, extent))?;
        self.count_flops(self.num_samples(), 1);
        Ok(())
    }

    /// Counts forward passes of `rows` rows each.
    pub fn count_flops(&mut self, rows: usize, passes: usize) {
        self.flops += (rows * passes * self.network.forward_flops()) as u64;
    }

    /// Samples of this iteration.
    pub fn num_samples(&self) -> usize {
        self.trajectories.iter().map(Trajectory::num_steps).sum()
    }

    /// Every sample of this iteration, trajectory by trajectory.
    pub fn samples(&self) -> impl Iterator<Item = Sample> {
        let envs = self.trajectories.iter().enumerate();
        envs.flat_map(|(env, trajectory)| {
            (0..trajectory.num_steps() as u32).map(move |step| Sample { env: env as u32, step })
        })
    }

    /// Divides the rewards by the spread of returns, if the config asks for it.
    pub fn scale_rewards(&mut self) {
        let Some(normalizer) = &mut self.rewards else { return };
        observe(normalizer, &self.trajectories);
        for Trajectory { raw_rewards, rewards, .. } in &mut self.trajectories {
            normalizer.normalize(raw_rewards, rewards);
        }
    }

    /// Advantages and value targets by GAE, eqs. (11) and (12) of the PPO paper.
    pub fn estimate(&mut self, gamma: f64, lambda: f64) {
        self.scale_rewards();
        for trajectory in &mut self.trajectories {
            trajectory.estimate(gamma as f32, lambda as f32);
        }
    }

    /// The gradient of `loss` over the samples of `work`, into `grad`: summed over shards in a
    /// fixed order, so that threads do not change it.
    pub fn gradient<P: PolicyObjective>(
        &mut self,
        work: Work<'_>,
        normalize_advantages: bool,
        loss: Loss<P>,
    ) -> Stats {
        let batch = Batch::new(&self.trajectories, work, normalize_advantages);
        let samples = batch.len();
        let num_shards = self.shards.len();
        let (network, weights) = (&self.network, &self.weights);
        let run = |(shard, work): (&mut Shard, Work<'_>)| {
            shard.run(network, weights, &batch, work, loss);
            Ok(())
        };
        let (len, per_shard) = match work {
            Work::Steps(samples) => (samples.len(), samples.len().div_ceil(num_shards)),
            Work::Sequences(envs) => (envs.len(), envs.len().div_ceil(num_shards)),
        };
        let shards = self.shards.iter_mut();
        let done = match work {
            Work::Steps(samples) => {
                let parts = shards.zip(samples.chunks(per_shard).map(Work::Steps));
                each(self.pool.as_deref(), parts, run)
            }
            Work::Sequences(envs) => {
                let parts = shards.zip(envs.chunks(per_shard).map(Work::Sequences));
                each(self.pool.as_deref(), parts, run)
            }
        };
        debug_assert!(done.is_ok(), "shards do not fail");
        // Forward, back to the inputs, back to the weights.
        self.count_flops(samples, 3);
        let mut stats = Stats::default();
        for (i, shard) in self.shards[..len.div_ceil(per_shard)].iter().enumerate() {
            if i == 0 {
                self.grad.copy_from_slice(&shard.grad);
            } else {
                add_assign(Isa::detect(), &mut self.grad, &shard.grad);
            }
            stats.add(&shard.stats);
        }
        stats
    }

    /// A step along the gradient, limited to `max_norm`; the gradient's length before that.
    ///
    /// # Errors
    ///
    /// [`Error::NonFinite`] if the gradient is not finite.
    pub fn ascend(
        &mut self,
        optimizer: &mut Optimizer<f32>,
        learning_rate: f64,
        max_norm: f64,
    ) -> Result<f64, Error> {
        let norm = clip_global_norm(Isa::detect(), &mut self.grad, max_norm);
        self.finite("gradient norm", norm)?;
        optimizer.ascend(&mut self.theta, &self.grad, learning_rate);
        self.network.pack(&self.theta, &mut self.weights);
        Ok(norm)
    }

    /// The same for the critic alone, with an optimizer of its own, which is as long as
    /// [`ActorCritic::critic_range`]: the actor does not move.
    ///
    /// # Errors
    ///
    /// [`Error::NonFinite`] if the gradient is not finite.
    pub fn ascend_critic(
        &mut self,
        optimizer: &mut Optimizer<f32>,
        learning_rate: f64,
        max_norm: f64,
    ) -> Result<f64, Error> {
        let critic = self.network.critic_range();
        let norm = clip_global_norm(Isa::detect(), &mut self.grad[critic.clone()], max_norm);
        self.finite("gradient norm", norm)?;
        optimizer.ascend(&mut self.theta[critic.clone()], &self.grad[critic], learning_rate);
        self.network.pack_critic(&self.theta, &mut self.weights);
        Ok(norm)
    }

    /// The number, if it is finite.
    ///
    /// # Errors
    ///
    /// [`Error::NonFinite`] with its name if it is not.
    pub fn finite(&self, what: &str, value: f64) -> Result<(), Error> {
        if value.is_finite() {
            return Ok(());
        }
        Err(Error::NonFinite { what: what.to_string(), value, iteration: self.iterations })
    }

    /// Mean KL(π_old ‖ π_θ) over the iteration's samples, of the policy as it is now.
    pub fn mean_kl(&mut self) -> f64 {
        let Self { network, weights, tape, trajectories, input, .. } = self;
        let inputs = input.inputs();
        let pi = network.distribution();
        let (p, m, s) = (pi.num_params(), pi.mask_len(), network.state_len());
        let mut sum = 0.0;
        let mut samples = 0;
        let mut memory = Vec::new();
        for from in &*trajectories {
            memory.clone_from(&from.memory);
            // With memory, a sequence is gone through step by step.
            let block = if s == 0 { BLOCK_ROWS } else { 1 };
            let blocks = from.inputs.chunks(block * inputs);
            let mut masks = from.masks.chunks_exact(m.max(1));
            for (t, (x, old)) in blocks.zip(from.params.chunks(block * p)).enumerate() {
                if s > 0 && from.starts(t) {
                    memory.fill(0.0);
                }
                let new = network.act(weights, x, &mut memory, tape);
                for (old, new) in old.chunks_exact(p).zip(new.chunks_exact(p)) {
                    sum += f64::from(pi.kl(old, new, masks.next()));
                }
            }
            samples += from.num_steps();
        }
        sum / samples as f64
    }

    /// Ends an iteration: the observations' normalizer sees what was collected, steps and
    /// iterations are counted.
    ///
    /// # Errors
    ///
    /// [`Error::NonFinite`] if a parameter is not finite: nothing has looked at what the last step
    /// made of θ, and a checkpoint may follow.
    pub fn finish(&mut self) -> Result<(), Error> {
        if let Some(&x) = self.theta.iter().find(|x| !x.is_finite()) {
            self.finite("parameter", f64::from(x))?;
        }
        if let Some(normalizer) = self.input.normalizer_mut() {
            for trajectory in &self.trajectories {
                normalizer.update(&trajectory.raw_obs);
            }
        }
        self.steps += self.num_samples() as u64;
        self.iterations += 1;
        Ok(())
    }

    /// What the trajectories tell of the environments.
    pub fn rollout_metrics(&self, metrics: &mut Vec<(&'static str, f64)>) {
        let episodes = || self.trajectories.iter().flat_map(|from| &from.episodes);
        let n = episodes().count() as f64;
        if n > 0.0 {
            let returns = episodes().map(|(_, e)| e.episode_return).sum::<f64>() / n;
            let lengths = episodes().map(|(_, e)| e.length as f64).sum::<f64>() / n;
            metrics
                .extend([("rollout/episode_return", returns), ("rollout/episode_length", lengths)]);
        }
        let rewards = self.trajectories.iter().flat_map(|from| &from.raw_rewards);
        let sum: f64 = rewards.map(|&x| f64::from(x)).sum();
        metrics.push(("rollout/episodes", n));
        metrics.push(("rollout/reward_mean", sum / self.num_samples() as f64));
    }

    /// What the trajectories tell of the critic, and θ of the policy's spread.
    pub fn policy_metrics(&self, metrics: &mut Vec<(&'static str, f64)>) {
        if !self.network.critic_range().is_empty() {
            let all = |of: fn(&Trajectory) -> &Vec<f32>| -> Vec<f32> {
                let mut all = Vec::with_capacity(self.num_samples());
                self.trajectories.iter().for_each(|from| all.extend_from_slice(of(from)));
                all
            };
            let (values, returns) = (all(|t| &t.values), all(|t| &t.returns));
            let mean = values.iter().map(|&x| f64::from(x)).sum::<f64>() / values.len() as f64;
            // Where all returns are alike there is nothing to explain.
            let explained = explained_variance(&values, &returns);
            metrics
                .extend(explained.is_finite().then_some(("train/explained_variance", explained)));
            metrics.push(("train/value_mean", mean));
        }
        if let Some(range) = self.network.log_std_range() {
            let stds = self.theta[range].iter().map(|&x| f64::from(x).exp()).collect::<Vec<_>>();
            metrics.push(("train/std", stds.iter().sum::<f64>() / stds.len() as f64));
        }
    }

    /// V(s) of observations, if there is a critic; nothing is remembered.
    pub fn values(&mut self, obs: &[f32]) -> Option<Vec<f32>> {
        if self.network.critic_range().is_empty() {
            return None;
        }
        let (d, e) = (self.input.obs_len(), self.input.inputs());
        let mut x = vec![0.0; obs.len() / d * e];
        for (obs, x) in obs.chunks_exact(d).zip(x.chunks_exact_mut(e)) {
            self.input.apply(obs, x);
        }
        let mut state = vec![0.0; obs.len() / d * self.network.state_len()];
        Some(self.network.value(&self.weights, &x, &mut state, &mut self.tape).to_vec())
    }

    /// The policy as it is now.
    pub fn policy(&self) -> Policy {
        Policy {
            algo: self.algo.to_string(),
            env: self.env.clone(),
            spec: PolicySpec::ActorCritic(self.spec.clone()),
            obs_space: self.obs_space.clone(),
            normalize: self.normalize,
            input: self.input.clone(),
            theta: self.theta.clone(),
        }
    }

    /// Writes what the next iteration depends on, but for what the policy holds.
    pub fn save(&self, w: &mut StateWriter) {
        w.str(self.algo);
        w.u64(self.steps);
        w.u64(self.iterations);
        if let Some(rewards) = &self.rewards {
            rewards.save(w);
        }
        for track in &self.tracks {
            track.save(w);
        }
    }

    /// Restores what `save` wrote, and θ and the normalizer from `policy`.
    ///
    /// # Errors
    ///
    /// If the state is another algorithm's or has other sizes.
    pub fn load(&mut self, policy: &Policy, r: &mut StateReader<'_>) -> Result<(), StateError> {
        let spec = PolicySpec::ActorCritic(self.spec.clone());
        check_saved(self.algo, (&spec, self.normalize), policy, r)?;
        self.steps = r.u64()?;
        self.iterations = r.u64()?;
        if let Some(rewards) = &mut self.rewards {
            rewards.load(r)?;
        }
        for track in &mut self.tracks {
            track.load(r)?;
        }
        self.input = policy.input.clone();
        self.theta.copy_from_slice(&policy.theta);
        self.network.pack(&self.theta, &mut self.weights);
        Ok(())
    }
}

/// What an algorithm adds to the engine: one iteration, and what it keeps beside the shared part.
/// Whoever has this is an [`Algorithm`].
pub trait OnPolicyMethod: Send + fmt::Debug {
    /// The shared part.
    fn common(&self) -> &OnPolicy;

    /// The same, to change it.
    fn common_mut(&mut self) -> &mut OnPolicy;

    /// Collects and learns once; see [`Algorithm::iterate`].
    ///
    /// # Errors
    ///
    /// [`Error::NonFinite`] if a number that must be finite is not.
    fn iteration(&mut self) -> Result<Report, Error>;

    /// Writes what the shared part does not hold.
    fn save_own(&self, w: &mut StateWriter);

    /// Restores what `save_own` wrote, after the shared part was restored.
    ///
    /// # Errors
    ///
    /// If sizes differ.
    fn load_own(&mut self, r: &mut StateReader<'_>) -> Result<(), StateError>;
}

impl<M: OnPolicyMethod> Algorithm for M {
    fn iterate(&mut self) -> Result<Report, Error> {
        self.iteration()
    }

    fn steps(&self) -> u64 {
        self.common().steps
    }

    fn iterations(&self) -> u64 {
        self.common().iterations
    }

    fn flops(&self) -> u64 {
        self.common().flops
    }

    fn values(&mut self, obs: &[f32]) -> Option<Vec<f32>> {
        self.common_mut().values(obs)
    }

    fn policy(&self) -> Policy {
        self.common().policy()
    }

    fn save(&self, w: &mut StateWriter) {
        self.common().save(w);
        self.save_own(w);
    }

    fn load(&mut self, policy: &Policy, r: &mut StateReader<'_>) -> Result<(), StateError> {
        self.common_mut().load(policy, r)?;
        self.load_own(r)
    }
}

/// Reads the algorithm's name and checks that the saved policy is of the same shape.
///
/// # Errors
///
/// [`StateError::Mismatch`], naming what differs.
pub fn check_saved(
    algo: &str,
    (spec, normalize): (&PolicySpec, Option<NormalizeOptions>),
    policy: &Policy,
    r: &mut StateReader<'_>,
) -> Result<(), StateError> {
    let mismatch =
        |what, expected: String, found: String| Err(StateError::Mismatch { what, expected, found });
    let found = r.str()?;
    if found != algo {
        return mismatch("algorithm", algo.into(), found.into());
    }
    if policy.spec != *spec {
        return mismatch("policy", format!("{spec:?}"), format!("{:?}", policy.spec));
    }
    if policy.normalize != normalize {
        let (expected, found) = (format!("{normalize:?}"), format!("{:?}", policy.normalize));
        return mismatch("normalizer", expected, found);
    }
    Ok(())
}

/// Writes an optimizer's state.
pub fn save_optimizer(optimizer: &Optimizer<f32>, w: &mut StateWriter) {
    w.u64(optimizer.steps());
    for (_, values) in optimizer.state() {
        w.f32s(values);
    }
}

/// Restores what [`save_optimizer`] wrote.
///
/// # Errors
///
/// If the state has other sizes.
pub fn load_optimizer(
    optimizer: &mut Optimizer<f32>,
    r: &mut StateReader<'_>,
) -> Result<(), StateError> {
    optimizer.set_steps(r.u64()?);
    optimizer.state_mut().try_for_each(|(_, values)| r.f32s_into(values))
}

fn track_sizes(
    shape: &Shape<'_>,
    network: &ActorCritic,
    input: &InputMap,
    env: &dyn Env,
) -> TrackSizes {
    let pi = network.distribution();
    let masked = pi.mask_len() > 0 && env.action_mask(&mut vec![true; pi.mask_len()]);
    TrackSizes {
        num_steps: shape.num_steps,
        inputs: input.inputs(),
        action_len: pi.action_len(),
        num_params: pi.num_params(),
        mask_len: if masked { pi.mask_len() } else { 0 },
        kept_obs: if shape.scaling.normalize_obs { input.obs_len() } else { 0 },
        state_len: network.state_len(),
    }
}

/// Shows the rewards to their normalizer: step by step of all environments, as they came; whole
/// episodes, which differ in length, one after the other to a normalizer of one row.
fn observe(normalizer: &mut RewardNormalizer, trajectories: &[Trajectory]) {
    if normalizer.returns().len() == 1 {
        for trajectory in trajectories {
            let steps = trajectory.raw_rewards.iter().zip(&trajectory.outcomes);
            steps.for_each(|(reward, outcome)| normalizer.update(&[*reward], &[*outcome]));
        }
        return;
    }
    let n = trajectories.len();
    let (mut rewards, mut outcomes) = (Vec::with_capacity(n), Vec::with_capacity(n));
    for t in 0..trajectories[0].num_steps() {
        rewards.clear();
        outcomes.clear();
        rewards.extend(trajectories.iter().map(|from| from.raw_rewards[t]));
        outcomes.extend(trajectories.iter().map(|from| from.outcomes[t]));
        normalizer.update(&rewards, &outcomes);
    }
}

/// Threads beyond the first; none for one thread.
pub(super) fn pool(threads: usize) -> Option<Arc<ThreadPool>> {
    (threads > 1)
        .then(|| rayon::ThreadPoolBuilder::new().num_threads(threads).build().ok())
        .flatten()
        .map(Arc::new)
}

/// Fills a trajectory from each environment. What a trajectory holds does not depend on the
/// threads.
///
/// # Errors
///
/// [`Error::NonFinite`] if an observation or reward is not finite; it names the iteration.
pub(super) fn collect_all(
    pool: Option<&ThreadPool>,
    actor: Actor<'_>,
    (collectors, tracks, trajectories): (&mut [Collector], &mut [Track], &mut [Trajectory]),
    (iteration, extent): (u64, Extent),
) -> Result<(), Error> {
    let per_thread = tracks.len().div_ceil(collectors.len());
    let parts = tracks.chunks_mut(per_thread).zip(trajectories.chunks_mut(per_thread));
    each(pool, collectors.iter_mut().zip(parts), |(collector, (tracks, trajectories))| match extent
    {
        Extent::Segment => collector.collect(actor, tracks, trajectories, iteration),
        Extent::Episode { max_steps } => {
            let limits = (iteration, max_steps);
            collector.collect_episodes(actor, tracks, trajectories, limits)
        }
    })
}

/// Runs `f` on every part, side by side if there is a pool; the first error in the parts' order.
pub(super) fn each<P: Send>(
    pool: Option<&ThreadPool>,
    parts: impl ExactSizeIterator<Item = P>,
    f: impl Fn(P) -> Result<(), Error> + Sync,
) -> Result<(), Error> {
    let Some(pool) = pool.filter(|_| parts.len() > 1) else {
        for part in parts {
            f(part)?;
        }
        return Ok(());
    };
    let mut results: Vec<Result<(), Error>> = (0..parts.len()).map(|_| Ok(())).collect();
    pool.in_place_scope(|scope| {
        for (part, result) in parts.zip(&mut results) {
            let f = &f;
            scope.spawn(move |_| *result = f(part));
        }
    });
    results.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use cordada_env::Outcome;

    use super::*;

    #[test]
    fn episodes_of_different_lengths_are_seen_once_and_nothing_else() {
        let episode = |rewards: &[f32]| {
            let sizes = TrackSizes { num_steps: rewards.len(), ..TrackSizes::default() };
            let mut trajectory = Trajectory::new(sizes);
            trajectory.raw_rewards.copy_from_slice(rewards);
            *trajectory.outcomes.last_mut().unwrap() = Outcome::Terminated;
            trajectory
        };
        let options = NormalizeOptions { initial_count: 0.0, ..NormalizeOptions::default() };
        let mut normalizer = RewardNormalizer::new(1, 0.5, options).unwrap();
        observe(&mut normalizer, &[episode(&[2.0, 1.0, 4.0]), episode(&[6.0])]);
        // Discounted sums 2, 2, 5 and, of the second episode, 6: mean 3¾.
        assert_eq!(normalizer.moments().count(), 4.0);
        assert!((normalizer.moments().mean()[0] - 3.75).abs() < 1e-12);
    }
}
