//! What all learners from replayed transitions share: environments, the replay memory, and the
//! rhythm of acting and updating. An algorithm adds a [`Learner`]: how it acts, and one update.

mod critic;
mod critics;
mod q_learner;
mod soft_actor;
mod world;

use std::fmt;

use cordada_env::{Persist, Space, StateError, StateReader, StateWriter, Stream, role};
use cordada_nn::Schedule;

use super::on_policy::check_saved;
use super::{AlgoSpec, Algorithm, Report, Setup};
use crate::config::Checks;
use crate::error::Error;
use crate::input::InputMap;
use crate::policy_file::{Policy, PolicySpec};
use crate::replay::{Batch, Priorities, Replay, ReplaySizes};

pub use critic::{Critic, CriticSpec};
pub use critics::{ActorCriticsConfig, Critics, Told, adam, first_flops};
pub use q_learner::{QLearner, QMethod, QNetworkConfig};
pub use soft_actor::{Drawn, NoiseConfig, SoftActor, Temperature, TemperatureConfig};
pub use world::{Acting, ActionScale, Seen, Worlds};

crate::config! {
    /// Replay, and the rhythm of acting and updating.
    pub struct ReplayConfig {
        /// N, environments stepped side by side; at least 1.
        num_envs: usize = 1, alias ["n_envs"];
        /// Transitions that the replay memory holds.
        buffer_size: usize = 1_000_000;
        /// Steps, of all environments together, before the first update; until then actions are random.
        learning_starts: usize = 1_000;
        /// Steps of each environment between updates; at least 1.
        train_freq: usize = 1;
        /// Updates after every train_freq steps.
        gradient_steps: usize = 1;
        /// Transitions of an update; at least 1.
        batch_size: usize = 256;
        /// γ, discount, from 0 to 1.
        gamma: f64 = 0.99;
        /// Rewards that are summed up before a target looks at values; at least 1.
        n_step: usize = 1;
        /// Steps between two lines of metrics, rounded up to whole rounds of acting and updating.
        steps_per_iteration: usize = 250;
    }
}

impl ReplayConfig {
    /// Checks ranges.
    ///
    /// # Errors
    ///
    /// [`Error::BadValue`] for the first setting that cannot be used.
    pub fn check(&self, check: Checks<'_>) -> Result<(), Error> {
        check.counts(&[
            ("num_envs", self.num_envs),
            ("buffer_size", self.buffer_size),
            ("train_freq", self.train_freq),
            ("batch_size", self.batch_size),
            ("n_step", self.n_step),
            ("steps_per_iteration", self.steps_per_iteration),
        ])?;
        check.at_most("num_envs", self.num_envs, 100_000)?;
        check.at_most("buffer_size", self.buffer_size, u32::MAX as usize / 2)?;
        check.at_most("batch_size", self.batch_size, 1_000_000)?;
        check.unit(&[("gamma", self.gamma)])
    }

    /// Rounds of acting and updating in an iteration.
    fn rounds(&self) -> usize {
        self.steps_per_iteration.div_ceil(self.train_freq * self.num_envs)
    }
}

/// Replay by priority (Schaul et al. 2016).
#[derive(Clone, Debug)]
pub struct Prioritized {
    /// α, how much priority matters.
    pub alpha: f64,
    /// β, how far it is made up for by weights: a schedule over the run.
    pub beta: Schedule,
}

/// One update's transitions.
#[derive(Debug)]
pub struct Sampled<'a> {
    /// Network inputs of s: `[B, inputs]`.
    pub x: &'a [f32],
    /// Network inputs of the state that the target looks at: `[B, inputs]`.
    pub next_x: &'a [f32],
    /// Actions, rewards, discounts and masks.
    pub batch: &'a Batch,
    /// Weight of each transition in the loss: `[B]`.
    pub weights: &'a [f32],
    /// The update's own randomness.
    pub stream: &'a mut Stream,
    /// Share of the run that is done.
    pub progress: f64,
    /// Steps of all environments so far.
    pub steps: u64,
}

impl Sampled<'_> {
    /// B.
    pub fn len(&self) -> usize {
        self.weights.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.weights.is_empty()
    }

    /// Which actions are allowed in the next state of transition i, if any are forbidden at all.
    pub fn next_mask(&self, i: usize) -> Option<&[bool]> {
        let m = self.batch.next_masks.len() / self.len();
        (m > 0).then(|| &self.batch.next_masks[i * m..(i + 1) * m])
    }

    /// The same for the state itself.
    pub fn mask(&self, i: usize) -> Option<&[bool]> {
        let m = self.batch.masks.len() / self.len();
        (m > 0).then(|| &self.batch.masks[i * m..(i + 1) * m])
    }
}

/// What an algorithm adds: its networks, how they act, and how they learn from a batch.
pub trait Learner: Send + fmt::Debug {
    /// Writes an action for every environment, exploring.
    fn act(&mut self, acting: &mut Acting<'_>);

    /// Learns once from a batch.
    ///
    /// # Errors
    ///
    /// What must be finite and is not, with its value.
    fn update(&mut self, sampled: &mut Sampled<'_>) -> Result<(), (&'static str, f64)>;

    /// |δ| of the last update's transitions, for replay by priority: `[B]`.
    fn td_errors(&self) -> &[f32] {
        &[]
    }

    /// Means of what the updates since the last call told, in a fixed order.
    fn metrics(&mut self, progress: f64, metrics: &mut Vec<(&'static str, f64)>);

    /// Floating-point operations of the networks' products since it was made.
    fn flops(&self) -> u64;

    /// What the states are worth under the policy as it is: `[B]` for inputs `[B, inputs]`.
    fn values(&mut self, x: &[f32]) -> Vec<f32>;

    /// Shape of the policy.
    fn spec(&self) -> PolicySpec;

    /// θ of the policy.
    fn theta(&self) -> &[f32];

    /// Writes everything but the policy's θ.
    fn save(&self, w: &mut StateWriter);

    /// Restores what `save` wrote, and the policy's θ.
    ///
    /// # Errors
    ///
    /// If sizes differ.
    fn load(&mut self, theta: &[f32], r: &mut StateReader<'_>) -> Result<(), StateError>;
}

/// A learner with its environments and its replay memory.
#[derive(Debug)]
pub struct OffPolicy<L> {
    algo: &'static str,
    env: String,
    config: ReplayConfig,
    learner: L,
    worlds: Worlds,
    replay: Replay,
    priorities: Option<(Priorities, Schedule)>,
    indices: Vec<u32>,
    batch: Batch,
    x: Vec<f32>,
    next_x: Vec<f32>,
    weights: Vec<f32>,
    stream: Stream,
    total_steps: u64,
    iterations: u64,
}

/// What a learner is made from: spaces, and how observations become network inputs.
#[derive(Debug)]
pub struct Spaces<'a> {
    /// The action space.
    pub actions: &'a Space,
    /// The observation space.
    pub obs: &'a Space,
    /// Width of the networks' input.
    pub inputs: usize,
}

impl<L: Learner> OffPolicy<L> {
    /// A learner at its start; `make` makes the algorithm's part.
    ///
    /// # Errors
    ///
    /// [`Error::Space`] if it cannot act in the environment, and what `make` says.
    pub fn new(
        algo: &AlgoSpec,
        setup: &Setup<'_>,
        config: &ReplayConfig,
        prioritized: Option<Prioritized>,
        make: impl FnOnce(Spaces<'_>, &mut Stream) -> Result<L, Error>,
    ) -> Result<Self, Error> {
        let worlds = Worlds::new(algo, setup, config.num_envs)?;
        let mut init = Stream::new(setup.seed, role::INIT, 0);
        let inputs = worlds.input.inputs();
        let (actions, obs) = (&worlds.action_space, &worlds.obs_space);
        let learner = make(Spaces { actions, obs, inputs }, &mut init)?;
        let sizes = ReplaySizes {
            num_envs: config.num_envs,
            capacity: config.buffer_size,
            obs_len: worlds.obs_space.len(),
            action_len: worlds.action_space.len(),
            mask_len: worlds.mask_len(),
        };
        let mut replay = Replay::new(sizes);
        worlds.each_start(|env, obs, mask| {
            replay.start(env, obs, mask);
        });
        let priorities =
            prioritized.map(|p| (Priorities::new(sizes.num_frames(), p.alpha, 1e-6), p.beta));
        Ok(Self {
            algo: algo.name,
            env: setup.env.to_string(),
            learner,
            worlds,
            replay,
            priorities,
            indices: vec![0; config.batch_size],
            batch: Batch::default(),
            x: Vec::new(),
            next_x: Vec::new(),
            weights: vec![1.0; config.batch_size],
            stream: Stream::new(setup.seed, role::REPLAY, 0),
            total_steps: setup.total_steps,
            iterations: 0,
            config: config.clone(),
        })
    }

    /// The algorithm's part.
    pub fn learner(&self) -> &L {
        &self.learner
    }

    fn progress(&self) -> f64 {
        self.worlds.steps as f64 / self.total_steps.max(1) as f64
    }

    /// Steps of every environment, into the replay memory.
    fn collect(&mut self) -> Result<(), Error> {
        let iteration = self.iterations;
        let progress = self.progress();
        let Self { config, learner, worlds, replay, priorities, .. } = self;
        for _ in 0..config.train_freq {
            let random = worlds.steps < config.learning_starts as u64;
            worlds.choose(random, progress, |acting| learner.act(acting));
            worlds.step(iteration, |seen| {
                let Seen { env, action, reward, outcome, next_obs, next_mask, .. } = seen;
                let pushed = replay.push(env, action, reward, outcome, next_obs, next_mask);
                if let Some((priorities, _)) = priorities {
                    priorities.set_new(pushed.transition);
                    priorities.clear(pushed.newest);
                }
                if let Some((obs, mask)) = seen.begun {
                    let first = replay.start(env, obs, mask);
                    if let Some((priorities, _)) = priorities {
                        priorities.clear(first);
                    }
                }
            })?;
        }
        Ok(())
    }

    /// One update from a batch of the replay memory.
    fn update(&mut self) -> Result<(), Error> {
        let progress = self.progress();
        let Self { config, learner, worlds, replay, priorities, indices, batch, .. } = self;
        match priorities {
            None => replay.sample(&mut self.stream, indices),
            Some((priorities, beta)) => {
                let (stream, weights) = (&mut self.stream, &mut self.weights);
                priorities.sample(stream, indices, weights, beta.at(progress));
            }
        }
        replay.gather(indices, config.n_step, config.gamma as f32, batch);
        inputs(&worlds.input, &batch.obs, &mut self.x);
        inputs(&worlds.input, &batch.next_obs, &mut self.next_x);
        let mut sampled = Sampled {
            x: &self.x,
            next_x: &self.next_x,
            batch,
            weights: &self.weights,
            stream: &mut self.stream,
            progress,
            steps: worlds.steps,
        };
        learner.update(&mut sampled).map_err(|(what, value)| Error::NonFinite {
            what: what.to_string(),
            value,
            iteration: self.iterations,
        })?;
        if let Some((priorities, _)) = priorities {
            priorities.update(indices, learner.td_errors());
        }
        Ok(())
    }
}

/// Network inputs of rows of observations.
fn inputs(map: &InputMap, obs: &[f32], x: &mut Vec<f32>) {
    let (d, e) = (map.obs_len(), map.inputs());
    x.resize(obs.len() / d * e, 0.0);
    for (obs, x) in obs.chunks_exact(d).zip(x.chunks_exact_mut(e)) {
        map.apply(obs, x);
    }
}

impl<L: Learner> Algorithm for OffPolicy<L> {
    fn iterate(&mut self) -> Result<Report, Error> {
        self.worlds.begin_iteration();
        for _ in 0..self.config.rounds() {
            self.collect()?;
            if self.worlds.steps >= self.config.learning_starts as u64 && !self.replay.is_empty() {
                for _ in 0..self.config.gradient_steps {
                    self.update()?;
                }
            }
        }
        if let Some(&x) = self.learner.theta().iter().find(|x| !x.is_finite()) {
            let (what, value, iteration) = ("parameter".into(), f64::from(x), self.iterations);
            return Err(Error::NonFinite { what, value, iteration });
        }
        self.iterations += 1;
        let mut metrics = Vec::with_capacity(16);
        self.worlds.metrics(&mut metrics);
        let progress = self.progress();
        self.learner.metrics(progress, &mut metrics);
        metrics.push(("replay/size", self.replay.len() as f64));
        Ok(Report { metrics })
    }

    fn steps(&self) -> u64 {
        self.worlds.steps
    }

    fn iterations(&self) -> u64 {
        self.iterations
    }

    fn flops(&self) -> u64 {
        self.learner.flops()
    }

    fn values(&mut self, obs: &[f32]) -> Option<Vec<f32>> {
        let mut x = Vec::new();
        inputs(&self.worlds.input, obs, &mut x);
        Some(self.learner.values(&x))
    }

    fn notes(&self) -> Vec<String> {
        let sizes = self.replay.sizes();
        let mut bytes = sizes.bytes();
        if self.priorities.is_some() {
            bytes += Priorities::bytes(sizes.num_frames());
        }
        let (n, mb) = (self.config.buffer_size, bytes as f64 / 1e6);
        vec![format!("the replay memory of {n} transitions takes {mb:.1} MB when it is full")]
    }

    fn policy(&self) -> Policy {
        Policy {
            algo: self.algo.to_string(),
            env: self.env.clone(),
            spec: self.learner.spec(),
            obs_space: self.worlds.obs_space.clone(),
            normalize: None,
            input: self.worlds.input.clone(),
            theta: self.learner.theta().to_vec(),
        }
    }

    fn save(&self, w: &mut StateWriter) {
        w.str(self.algo);
        w.u64(self.iterations);
        self.stream.save(w);
        self.worlds.save(w);
        self.learner.save(w);
        self.replay.save(w);
        if let Some((priorities, _)) = &self.priorities {
            priorities.save(w);
        }
    }

    fn load(&mut self, policy: &Policy, r: &mut StateReader<'_>) -> Result<(), StateError> {
        check_saved(self.algo, (&self.learner.spec(), None), policy, r)?;
        self.iterations = r.u64()?;
        self.stream.load(r)?;
        self.worlds.load(r)?;
        self.learner.load(&policy.theta, r)?;
        self.replay.load(r)?;
        if let Some((priorities, _)) = &mut self.priorities {
            priorities.load(r)?;
        }
        Ok(())
    }
}

/// Means of quantities that updates tell, since they were last asked for.
#[derive(Clone, Debug)]
pub struct RunningMeans<const N: usize> {
    names: [&'static str; N],
    sums: [f64; N],
    count: u64,
}

impl<const N: usize> RunningMeans<N> {
    /// No updates yet.
    pub fn new(names: [&'static str; N]) -> Self {
        Self { names, sums: [0.0; N], count: 0 }
    }

    /// What one update tells.
    pub fn add(&mut self, values: [f64; N]) {
        self.sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
        self.count += 1;
    }

    /// Appends the means, if there were updates, and begins anew.
    pub fn take(&mut self, metrics: &mut Vec<(&'static str, f64)>) {
        if self.count > 0 {
            let n = self.count as f64;
            metrics.extend(self.names.iter().zip(self.sums).map(|(name, sum)| (*name, sum / n)));
        }
        self.sums = [0.0; N];
        self.count = 0;
    }
}
