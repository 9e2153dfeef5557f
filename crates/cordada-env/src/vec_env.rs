//! Many copies of an environment, stepped together, each reset as soon as its episode ends.
//! Threads are the caller's: a slot is self-contained, so slots can be divided among threads
//! without changing a number.

use std::fmt;

use crate::env::{Env, Outcome, Step};
use crate::space::Space;
use crate::state::{Persist, StateError, StateReader, StateWriter};
use crate::stream::Stream;

/// A finished episode.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Episode {
    /// Sum of the rewards, undiscounted.
    pub episode_return: f64,
    /// Number of steps.
    pub length: u64,
}

/// What [`Slot::step`] returns besides the observations.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SlotStep {
    /// Reward of the step.
    pub reward: f64,
    /// Whether the episode ended with the step.
    pub outcome: Outcome,
    /// The episode that ended, if one did.
    pub episode: Option<Episode>,
}

/// One environment with its own random stream and the tally of its episode.
pub struct Slot {
    env: Box<dyn Env>,
    stream: Stream,
    episode_return: f64,
    episode_length: u64,
}

impl Slot {
    /// A slot; call [`Slot::reset`] before the first step.
    pub fn new(env: Box<dyn Env>, stream: Stream) -> Self {
        Self { env, stream, episode_return: 0.0, episode_length: 0 }
    }

    /// The environment.
    pub fn env(&self) -> &dyn Env {
        &*self.env
    }

    /// The episode as far as it has come.
    pub fn so_far(&self) -> Episode {
        Episode { episode_return: self.episode_return, length: self.episode_length }
    }

    /// Starts a new episode and writes its first observation into `obs`.
    pub fn reset(&mut self, obs: &mut [f32]) {
        self.episode_return = 0.0;
        self.episode_length = 0;
        self.env.reset(&mut self.stream, obs);
    }

    /// Acts. If the step ends the episode, the next one begins at once: `final_obs` receives the
    /// true last observation of the old episode and `obs` the first one of the new. Otherwise
    /// `final_obs` is left alone.
    ///
    /// # Shapes
    ///
    /// `action`: `[A]`; `obs`, `final_obs`: `[D]`.
    #[inline]
    pub fn step(&mut self, action: &[f32], obs: &mut [f32], final_obs: &mut [f32]) -> SlotStep {
        let Step { reward, outcome } = self.env.step(action, &mut self.stream, obs);
        self.episode_return += reward;
        self.episode_length += 1;
        let episode = outcome.ended().then(|| {
            let (episode_return, length) = (self.episode_return, self.episode_length);
            final_obs.copy_from_slice(obs);
            self.reset(obs);
            Episode { episode_return, length }
        });
        SlotStep { reward, outcome, episode }
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot")
            .field("stream", &self.stream)
            .field("episode_return", &self.episode_return)
            .field("episode_length", &self.episode_length)
            .finish_non_exhaustive()
    }
}

impl Persist for Slot {
    fn save(&self, w: &mut StateWriter) {
        self.stream.save(w);
        w.f64(self.episode_return);
        w.u64(self.episode_length);
        self.env.save(w);
    }

    fn load(&mut self, r: &mut StateReader<'_>) -> Result<(), StateError> {
        self.stream.load(r)?;
        self.episode_return = r.f64()?;
        self.episode_length = r.u64()?;
        self.env.load(r)
    }
}

/// Where [`VecEnv::step`] writes.
///
/// # Shapes
///
/// `obs`, `final_obs`: `[N, D]`; `rewards`, `outcomes`: `[N]`.
#[derive(Debug)]
pub struct StepBuffers<'a> {
    /// The observations to act on next: of the next episode where one ended.
    pub obs: &'a mut [f32],
    /// Rewards of the step.
    pub rewards: &'a mut [f32],
    /// Whether each episode ended.
    pub outcomes: &'a mut [Outcome],
    /// True last observations of the episodes that ended; other rows are left alone.
    pub final_obs: &'a mut [f32],
}

/// `N` environments stepped one after another, with automatic resets.
///
/// Environment `i` draws from the stream (seed, role, i), so its numbers do not depend on `N`.
/// Neither `reset` nor `step` allocates.
///
/// # Examples
///
/// ```
/// use cordada_env::{Outcome, StepBuffers, VecEnv, find, role};
///
/// let spec = find("CartPole-v1")?;
/// let mut envs = VecEnv::new(|| spec.build(), 2, 7, role::ENV);
/// let (mut obs, mut final_obs) = ([0.0; 8], [0.0; 8]);
/// let (mut rewards, mut outcomes) = ([0.0; 2], [Outcome::Continue; 2]);
/// envs.reset(&mut obs);
/// while envs.episodes().is_empty() {
///     envs.step(&[1.0, 0.0], StepBuffers {
///         obs: &mut obs,
///         rewards: &mut rewards,
///         outcomes: &mut outcomes,
///         final_obs: &mut final_obs,
///     });
/// }
/// assert!(envs.episodes()[0].length < 15);
/// # Ok::<(), cordada_env::Error>(())
/// ```
#[derive(Debug)]
pub struct VecEnv {
    slots: Vec<Slot>,
    episodes: Vec<Episode>,
    obs_space: Space,
    action_space: Space,
}

impl VecEnv {
    /// `num_envs` environments from `make`, on the streams (seed, role, index), one each.
    ///
    /// # Panics
    ///
    /// If `num_envs` is 0, or `make` gives environments of different spaces.
    pub fn new(make: impl Fn() -> Box<dyn Env>, num_envs: usize, seed: u64, role: u32) -> Self {
        assert!(num_envs > 0, "a vector environment needs at least one environment");
        let slots: Vec<Slot> =
            (0..num_envs).map(|i| Slot::new(make(), Stream::new(seed, role, i as u32))).collect();
        let obs_space = slots[0].env.obs_space().clone();
        let action_space = slots[0].env.action_space().clone();
        for slot in &slots {
            assert_eq!(*slot.env.obs_space(), obs_space, "environments differ");
            assert_eq!(*slot.env.action_space(), action_space, "environments differ");
        }
        Self { slots, episodes: Vec::with_capacity(num_envs), obs_space, action_space }
    }

    /// The space of one environment's observations.
    pub fn obs_space(&self) -> &Space {
        &self.obs_space
    }

    /// The space of one environment's actions.
    pub fn action_space(&self) -> &Space {
        &self.action_space
    }

    /// How many environments there are.
    pub fn num_envs(&self) -> usize {
        self.slots.len()
    }

    /// The environments with their streams.
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// The environments with their streams, to be stepped by the caller (say, by a thread each
    /// part).
    pub fn slots_mut(&mut self) -> &mut [Slot] {
        &mut self.slots
    }

    /// The episodes that ended in the last step, in the order of the environments.
    pub fn episodes(&self) -> &[Episode] {
        &self.episodes
    }

    /// Starts a new episode in every environment.
    ///
    /// # Shapes
    ///
    /// `obs`: `[N, D]`.
    ///
    /// # Panics
    ///
    /// If `obs` has another length.
    pub fn reset(&mut self, obs: &mut [f32]) {
        let d = self.obs_space.len();
        assert_eq!(obs.len(), self.slots.len() * d, "obs is not [N, D]");
        self.episodes.clear();
        for (slot, obs) in self.slots.iter_mut().zip(obs.chunks_exact_mut(d)) {
            slot.reset(obs);
        }
    }

    /// Acts in every environment; see [`Slot::step`] for what happens at the end of an episode.
    ///
    /// # Shapes
    ///
    /// `actions`: `[N, A]`; for `out` see [`StepBuffers`].
    ///
    /// # Panics
    ///
    /// If a buffer has another length.
    #[allow(clippy::needless_pass_by_value, reason = "lent buffers, as in `envs.step(a, buffers)`")]
    pub fn step(&mut self, actions: &[f32], out: StepBuffers<'_>) {
        let (n, d, a) = (self.slots.len(), self.obs_space.len(), self.action_space.len());
        assert_eq!(actions.len(), n * a, "actions is not [N, A]");
        assert_eq!(out.obs.len(), n * d, "obs is not [N, D]");
        assert_eq!(out.final_obs.len(), n * d, "final_obs is not [N, D]");
        assert_eq!(out.rewards.len(), n, "rewards is not [N]");
        assert_eq!(out.outcomes.len(), n, "outcomes is not [N]");
        self.episodes.clear();
        for (i, slot) in self.slots.iter_mut().enumerate() {
            let row = i * d..(i + 1) * d;
            let action = &actions[i * a..(i + 1) * a];
            let step = slot.step(action, &mut out.obs[row.clone()], &mut out.final_obs[row]);
            out.rewards[i] = step.reward as f32;
            out.outcomes[i] = step.outcome;
            self.episodes.extend(step.episode);
        }
    }
}

impl Persist for VecEnv {
    fn save(&self, w: &mut StateWriter) {
        w.u64(self.slots.len() as u64);
        for slot in &self.slots {
            slot.save(w);
        }
    }

    fn load(&mut self, r: &mut StateReader<'_>) -> Result<(), StateError> {
        let found = r.u64()?;
        if found != self.slots.len() as u64 {
            let (expected, found) = (self.slots.len().to_string(), found.to_string());
            return Err(StateError::Mismatch { what: "num_envs", expected, found });
        }
        self.episodes.clear();
        self.slots.iter_mut().try_for_each(|slot| slot.load(r))
    }
}

#[cfg(test)]
mod tests;
