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
//! | (7) L^CLIP | [`clipped_surrogate`](crate::objective::clipped_surrogate) |
//! | (8) L^KLPEN | [`surrogate`](crate::objective::surrogate), less β KL in `Shard::penalize` |
//! | (9) L^CLIP+VF+S | `Ppo::minibatch`, sample by sample in `Shard::run` |
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
mod shard;

use cordada_env::{Env, Persist, Space, StateError, StateReader, StateWriter, Stream, role};
use cordada_nn::kernel::{Isa, add_assign};
use cordada_nn::{Optimizer, clip_global_norm};

use super::{AlgoSpec, Algorithm, Report, Setup};
use crate::config::Config;
use crate::error::Error;
use crate::estimate::explained_variance;
use crate::input::InputMap;
use crate::objective::AdaptiveKl;
use crate::policy::{
    ActorCritic, BLOCK_ROWS, PolicySpec, PolicyTape, PolicyWeights, distribution_for,
};
use crate::policy_file::Policy;
use crate::rollout::{Actor, Collector, Track, TrackSizes, Trajectory};

use cordada_env::wrapper::normalize::RewardNormalizer;

pub use config::{Objective, PpoConfig, ValueClipping};
use shard::{Batch, Coefficients, Shard, Stats};

/// PPO in the list of algorithms.
pub const SPEC: AlgoSpec = AlgoSpec {
    name: "ppo",
    title: "Proximal policy optimization",
    paper: "Schulman et al. 2017, arXiv:1707.06347",
    on_policy: true,
    accepts: "Discrete, MultiDiscrete, MultiBinary and Box action spaces",
    takes: |space| distribution_for(space, false).is_some(),
    fields: PpoConfig::FIELDS,
    complete: |table| Ok(PpoConfig::from_table("ppo", table)?.to_table()),
    make: |setup| Ok(Box::new(Ppo::new(setup)?)),
};

/// Rows that one shard of a minibatch has at least: below that, sharing costs more than it gains.
const SHARD_ROWS: usize = 512;
/// Shards that a minibatch is split into at most.
const MAX_SHARDS: usize = 16;

/// The learner.
#[derive(Debug)]
pub struct Ppo {
    config: PpoConfig,
    env: String,
    action_space: Space,
    obs_space: Space,
    network: ActorCritic,
    spec: PolicySpec,
    theta: Vec<f32>,
    weights: PolicyWeights<f32>,
    optimizer: Optimizer<f32>,
    input: InputMap,
    rewards: Option<RewardNormalizer>,
    kl: AdaptiveKl<f32>,
    tracks: Vec<Track>,
    trajectories: Vec<Trajectory>,
    collectors: Vec<Collector>,
    shards: Vec<Shard>,
    /// Order in which an epoch goes through the N T samples.
    order: Vec<u32>,
    grad: Vec<f32>,
    /// For the KL of a whole segment.
    tape: PolicyTape<f32>,
    shuffle: Stream,
    pool: Option<rayon::ThreadPool>,
    total_steps: u64,
    steps: u64,
    iterations: u64,
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
        let envs: Vec<Box<dyn Env>> = (0..config.num_envs).map(|_| (setup.make_env)()).collect();
        let action_space = envs[0].action_space().clone();
        let obs_space = envs[0].obs_space().clone();
        if !(SPEC.takes)(&action_space) {
            return Err(Error::Space {
                algo: SPEC.name,
                what: "action space",
                space: action_space.to_string(),
                env: setup.env.to_string(),
                accepts: SPEC.accepts,
            });
        }
        config.check_space(&action_space)?;
        let input = InputMap::new(&obs_space, config.obs_normalizer())?;
        let spec = config.policy_spec(input.inputs(), action_space.clone());
        let network = ActorCritic::new(&spec);
        let mut init_stream = Stream::new(setup.seed, role::INIT, 0);
        let theta = network.init(config.init(), config.log_std_init, &mut init_stream);
        let mut weights = network.weights();
        network.pack(&theta, &mut weights);
        let sizes = track_sizes(&config, &network, &input, &*envs[0]);
        let track = |(i, env)| Track::new(env, setup.seed, i as u32);
        let tracks: Vec<Track> = envs.into_iter().enumerate().map(track).collect();
        let num_shards = (config.minibatch_size() / SHARD_ROWS).clamp(1, MAX_SHARDS);
        let threads = setup.threads.clamp(1, config.num_envs);
        Ok(Self {
            env: setup.env.to_string(),
            optimizer: Optimizer::new(config.optimizer(), theta.len())?,
            rewards: config.reward_normalizer()?,
            kl: AdaptiveKl { beta: config.kl_coef as f32, target: config.kl_target as f32 },
            trajectories: vec![Trajectory::new(sizes); tracks.len()],
            collectors: (0..threads).map(|_| Collector::default()).collect(),
            shards: (0..num_shards).map(|_| Shard::new(&network)).collect(),
            order: (0..config.batch_size() as u32).collect(),
            grad: vec![0.0; theta.len()],
            tape: PolicyTape::default(),
            shuffle: Stream::new(setup.seed, role::SHUFFLE, 0),
            pool: pool(setup.threads),
            total_steps: setup.total_steps,
            steps: 0,
            iterations: 0,
            config,
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
    fn progress(&self) -> f64 {
        self.steps as f64 / self.total_steps.max(1) as f64
    }

    /// Lines 2 and 3: T steps in each environment.
    fn collect(&mut self) -> Result<(), Error> {
        let actor = Actor {
            policy: &self.network,
            weights: &self.weights,
            input: &self.input,
            action_space: &self.action_space,
        };
        let iteration = self.iterations;
        let per_thread = self.tracks.len().div_ceil(self.collectors.len());
        let tracks = self.tracks.chunks_mut(per_thread);
        let trajectories = self.trajectories.chunks_mut(per_thread);
        let parts = self.collectors.iter_mut().zip(tracks.zip(trajectories));
        each(self.pool.as_ref(), parts, |(collector, (tracks, trajectories))| {
            collector.collect(actor, tracks, trajectories, iteration)
        })
    }

    /// Line 4: advantages and value targets, from rewards scaled by the spread of returns if the
    /// config asks for it.
    fn estimate(&mut self) {
        if let Some(normalizer) = &mut self.rewards {
            let n = self.trajectories.len();
            let (mut rewards, mut outcomes) = (Vec::with_capacity(n), Vec::with_capacity(n));
            for t in 0..self.config.num_steps {
                rewards.clear();
                outcomes.clear();
                rewards.extend(self.trajectories.iter().map(|from| from.raw_rewards[t]));
                outcomes.extend(self.trajectories.iter().map(|from| from.outcomes[t]));
                normalizer.update(&rewards, &outcomes);
            }
            for Trajectory { raw_rewards, rewards, .. } in &mut self.trajectories {
                normalizer.normalize(raw_rewards, rewards);
            }
        }
        let (gamma, lambda) = (self.config.gamma as f32, self.config.gae_lambda as f32);
        for trajectory in &mut self.trajectories {
            trajectory.estimate(gamma, lambda);
        }
    }

    /// Line 6 for one minibatch: the gradient of
    ///
    /// ```text
    /// L(θ) = mean( L^CLIP − c₁ L^VF + c₂ S )                                           eq. (9)
    /// ```
    ///
    /// summed over shards in a fixed order, so that threads do not change it.
    fn minibatch(&mut self, rows: std::ops::Range<usize>, c: Coefficients) -> Stats {
        let indices = &self.order[rows];
        let batch = Batch::new(&self.trajectories, indices, self.config.normalize_advantages);
        let per_shard = indices.len().div_ceil(self.shards.len());
        let (network, weights) = (&self.network, &self.weights);
        let parts = self.shards.iter_mut().zip(indices.chunks(per_shard));
        let done = each(self.pool.as_ref(), parts, |(shard, indices)| {
            shard.run(network, weights, &batch, indices, c);
            Ok(())
        });
        debug_assert!(done.is_ok(), "shards do not fail");
        let mut stats = Stats::default();
        let used = indices.len().div_ceil(per_shard);
        for (i, shard) in self.shards[..used].iter().enumerate() {
            if i == 0 {
                self.grad.copy_from_slice(&shard.grad);
            } else {
                add_assign(Isa::detect(), &mut self.grad, &shard.grad);
            }
            stats.add(&shard.stats);
        }
        stats
    }

    /// Lines 5 to 7: K epochs of minibatches.
    fn learn(&mut self) -> Result<Learned, Error> {
        let progress = self.progress();
        let learning_rate = self.config.learning_rate.at(progress);
        let coefficients = Coefficients::new(&self.config, progress, self.kl.beta);
        let size = self.config.minibatch_size();
        let mut learned =
            Learned { learning_rate, clip_eps: coefficients.clip_eps, ..Learned::default() };
        'epochs: for _ in 0..self.config.num_epochs {
            self.shuffle.shuffle(&mut self.order);
            for first in (0..self.order.len()).step_by(size) {
                let rows = first..(first + size).min(self.order.len());
                let stats = self.minibatch(rows, coefficients);
                let means = stats.means();
                finite("objective", means.policy_objective - means.value_loss, self.iterations)?;
                learned.stats.add(&stats);
                if self.config.target_kl.is_some_and(|target| means.approx_kl > 1.5 * target) {
                    break 'epochs;
                }
                let norm =
                    clip_global_norm(Isa::detect(), &mut self.grad, self.config.max_grad_norm);
                finite("gradient norm", norm, self.iterations)?;
                self.optimizer.ascend(&mut self.theta, &self.grad, learning_rate);
                self.network.pack(&self.theta, &mut self.weights);
                learned.grad_norm += norm;
                learned.updates += 1;
            }
            learned.epochs += 1;
        }
        // Nothing has looked at what the last step made of θ, and a checkpoint may follow.
        if let Some(&x) = self.theta.iter().find(|x| !x.is_finite()) {
            finite("parameter", f64::from(x), self.iterations)?;
        }
        if self.config.objective == Objective::KlPenalty && self.config.kl_adaptive {
            let kl = self.mean_kl() as f32;
            self.kl.update(kl);
        }
        Ok(learned)
    }

    /// Mean KL(π_old ‖ π_θ) over the iteration's samples, of the policy as it is now: what the
    /// adaptive β of section 4 of the paper looks at.
    fn mean_kl(&mut self) -> f64 {
        let (network, weights, tape) = (&self.network, &self.weights, &mut self.tape);
        let inputs = self.input.inputs();
        let pi = network.distribution();
        let (p, m) = (pi.num_params(), pi.mask_len());
        let mut sum = 0.0;
        for from in &self.trajectories {
            let blocks = from.inputs.chunks(BLOCK_ROWS * inputs);
            let mut masks = from.masks.chunks_exact(m.max(1));
            for (x, old) in blocks.zip(from.params.chunks(BLOCK_ROWS * p)) {
                let new = network.act(weights, x, tape);
                for (old, new) in old.chunks_exact(p).zip(new.chunks_exact(p)) {
                    sum += f64::from(pi.kl(old, new, masks.next()));
                }
            }
        }
        sum / self.config.batch_size() as f64
    }

    /// What the iteration tells, in a fixed order.
    fn report(&self, learned: &Learned) -> Report {
        let mut metrics = Vec::with_capacity(20);
        let episodes = || self.trajectories.iter().flat_map(|from| &from.episodes);
        let n = episodes().count() as f64;
        if n > 0.0 {
            let returns = episodes().map(|(_, e)| e.episode_return).sum::<f64>() / n;
            let lengths = episodes().map(|(_, e)| e.length as f64).sum::<f64>() / n;
            metrics
                .extend([("rollout/episode_return", returns), ("rollout/episode_length", lengths)]);
        }
        let all = |of: fn(&Trajectory) -> &Vec<f32>| -> Vec<f32> {
            let mut all = Vec::with_capacity(self.config.batch_size());
            self.trajectories.iter().for_each(|from| all.extend_from_slice(of(from)));
            all
        };
        let (values, returns, rewards) =
            (all(|t| &t.values), all(|t| &t.returns), all(|t| &t.raw_rewards));
        let mean = |x: &[f32]| x.iter().map(|&x| f64::from(x)).sum::<f64>() / x.len() as f64;
        let means = learned.stats.means();
        metrics.extend([
            ("rollout/episodes", n),
            ("rollout/reward_mean", mean(&rewards)),
            ("ppo/policy_loss", -means.policy_objective),
            ("ppo/value_loss", means.value_loss),
            ("ppo/entropy", means.entropy),
            ("ppo/approx_kl", means.approx_kl),
            ("ppo/clip_fraction", means.clip_fraction),
            ("ppo/explained_variance", explained_variance(&values, &returns)),
            ("ppo/value_mean", mean(&values)),
            ("ppo/grad_norm", learned.grad_norm / learned.updates.max(1) as f64),
            ("ppo/epochs", learned.epochs as f64),
            ("ppo/learning_rate", learned.learning_rate),
            ("ppo/clip_eps", f64::from(learned.clip_eps)),
        ]);
        if self.config.objective == Objective::KlPenalty {
            metrics.push(("ppo/kl_coef", f64::from(self.kl.beta)));
        }
        if let Some(range) = self.network.log_std_range() {
            let stds = self.theta[range].iter().map(|&x| f64::from(x).exp()).collect::<Vec<_>>();
            metrics.push(("ppo/std", stds.iter().sum::<f64>() / stds.len() as f64));
        }
        Report { metrics }
    }
}

impl Algorithm for Ppo {
    fn iterate(&mut self) -> Result<Report, Error> {
        self.collect()?; // Alg. 1, lines 2 and 3
        self.estimate(); // line 4, eqs. (11), (12)
        let learned = self.learn()?; // lines 5 to 7, eq. (9)
        if let Some(normalizer) = self.input.normalizer_mut() {
            for trajectory in &self.trajectories {
                normalizer.update(&trajectory.raw_obs);
            }
        }
        self.steps += self.config.batch_size() as u64;
        let report = self.report(&learned);
        self.iterations += 1;
        Ok(report)
    }

    fn steps(&self) -> u64 {
        self.steps
    }

    fn iterations(&self) -> u64 {
        self.iterations
    }

    fn policy(&self) -> Policy {
        Policy {
            algo: SPEC.name.to_string(),
            env: self.env.clone(),
            spec: self.spec.clone(),
            obs_space: self.obs_space.clone(),
            normalize: self.config.obs_normalizer(),
            input: self.input.clone(),
            theta: self.theta.clone(),
        }
    }

    fn save(&self, w: &mut StateWriter) {
        w.str(SPEC.name);
        w.u64(self.steps);
        w.u64(self.iterations);
        w.u64(self.optimizer.steps());
        for (_, values) in self.optimizer.state() {
            w.f32s(values);
        }
        w.f32(self.kl.beta);
        self.shuffle.save(w);
        w.bytes(&self.order.iter().flat_map(|i| i.to_le_bytes()).collect::<Vec<u8>>());
        if let Some(rewards) = &self.rewards {
            rewards.save(w);
        }
        for track in &self.tracks {
            track.save(w);
        }
    }

    fn load(&mut self, policy: &Policy, r: &mut StateReader<'_>) -> Result<(), StateError> {
        let mismatch = |what, expected: String, found: String| {
            Err(StateError::Mismatch { what, expected, found })
        };
        let algo = r.str()?;
        if algo != SPEC.name {
            return mismatch("algorithm", SPEC.name.into(), algo.into());
        }
        if policy.spec != self.spec {
            let (expected, found) = (format!("{:?}", self.spec), format!("{:?}", policy.spec));
            return mismatch("policy", expected, found);
        }
        let normalize = self.config.obs_normalizer();
        if policy.normalize != normalize {
            let (expected, found) = (format!("{normalize:?}"), format!("{:?}", policy.normalize));
            return mismatch("normalizer", expected, found);
        }
        self.steps = r.u64()?;
        self.iterations = r.u64()?;
        self.optimizer.set_steps(r.u64()?);
        for (_, values) in self.optimizer.state_mut() {
            r.f32s_into(values)?;
        }
        self.kl.beta = r.f32()?;
        self.shuffle.load(r)?;
        let order = r.bytes()?;
        if order.len() != 4 * self.order.len() {
            let (expected, found) = (4 * self.order.len(), order.len());
            return mismatch("order of samples", expected.to_string(), found.to_string());
        }
        for (to, from) in self.order.iter_mut().zip(order.as_chunks().0) {
            *to = u32::from_le_bytes(*from);
        }
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

fn track_sizes(
    config: &PpoConfig,
    network: &ActorCritic,
    input: &InputMap,
    env: &dyn Env,
) -> TrackSizes {
    let pi = network.distribution();
    let masked = pi.mask_len() > 0 && env.action_mask(&mut vec![true; pi.mask_len()]);
    TrackSizes {
        num_steps: config.num_steps,
        inputs: input.inputs(),
        action_len: pi.action_len(),
        num_params: pi.num_params(),
        mask_len: if masked { pi.mask_len() } else { 0 },
        kept_obs: if config.normalize_obs { input.obs_len() } else { 0 },
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
    clip_eps: f32,
}

fn finite(what: &str, value: f64, iteration: u64) -> Result<(), Error> {
    if value.is_finite() {
        return Ok(());
    }
    Err(Error::NonFinite { what: what.to_string(), value, iteration })
}

/// Threads beyond the first; none for one thread.
fn pool(threads: usize) -> Option<rayon::ThreadPool> {
    (threads > 1)
        .then(|| rayon::ThreadPoolBuilder::new().num_threads(threads).build().ok())
        .flatten()
}

/// Runs `f` on every part, side by side if there is a pool; the first error in the parts' order.
fn each<P: Send>(
    pool: Option<&rayon::ThreadPool>,
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
