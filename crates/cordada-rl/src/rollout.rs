//! On-policy collection: each environment has a [`Track`], and fills a [`Trajectory`] between two
//! updates. Threads own slices of both and meet only when a segment is done.
//!
//! Storage is per environment, `[T]` each, rather than `[T, N]`: so threads write to memory of
//! their own, and an environment's whole state is in one place.

use cordada_env::{
    Env, Episode, Outcome, Persist, Slot, Space, StateError, StateReader, StateWriter, Stream, role,
};

use crate::error::Error;
use crate::estimate::{Segment, gae};
use crate::input::InputMap;
use crate::policy::{ActorCritic, BLOCK_ROWS, PolicyTape, PolicyWeights};

/// One environment with its sampler: what a segment starts from.
#[derive(Debug)]
pub struct Track {
    slot: Slot,
    sampler: Stream,
    /// Observation that the next step acts on: `[D]`.
    obs: Vec<f32>,
    /// Network inputs of the true last observations of truncated episodes, and their steps.
    finals: Vec<f32>,
    final_steps: Vec<usize>,
}

/// What one environment gave in a segment of T steps, and what was made of it.
#[derive(Clone, Debug)]
pub struct Trajectory {
    /// Raw observations `[T, D]`, kept only for the normalizer.
    pub raw_obs: Vec<f32>,
    /// What the networks saw: `[T, inputs]`.
    pub inputs: Vec<f32>,
    /// What the policy drew, before any clipping to the action space: `[T, A]`.
    pub actions: Vec<f32>,
    /// Allowed choices `[T, M]`; empty if the environment has no mask.
    pub masks: Vec<bool>,
    /// Parameters of the distribution that acted: `[T, P]`.
    pub params: Vec<f32>,
    /// log π_old of the actions: `[T]`.
    pub log_prob: Vec<f32>,
    /// Rewards as the environment gave them: `[T]`.
    pub raw_rewards: Vec<f32>,
    /// Rewards that the estimator sees: `[T]`.
    pub rewards: Vec<f32>,
    /// How each step ended: `[T]`.
    pub outcomes: Vec<Outcome>,
    /// V(s_t): `[T]`.
    pub values: Vec<f32>,
    /// V of the true last observation, where an episode was truncated: `[T]`.
    pub final_values: Vec<f32>,
    /// V of the observation after the segment.
    pub last_value: f32,
    /// Â_t: `[T]`.
    pub advantages: Vec<f32>,
    /// Value targets: `[T]`.
    pub returns: Vec<f32>,
    /// What an update reads of each step, side by side: `[T]`.
    pub targets: Vec<Target>,
    /// Episodes that ended in this segment, with their last step.
    pub episodes: Vec<(usize, Episode)>,
}

/// The numbers of one step that an update needs, in one place: minibatches are gathered in random
/// order, and each place costs a cache miss.
#[derive(Clone, Copy, Debug, Default)]
pub struct Target {
    /// log π_old of the action.
    pub log_prob: f32,
    /// Â.
    pub advantage: f32,
    /// V_old.
    pub value: f32,
    /// The value's target.
    pub returns: f32,
}

/// Sizes that all tracks share.
#[derive(Clone, Copy, Debug)]
pub struct TrackSizes {
    /// T.
    pub num_steps: usize,
    /// Width of the networks' input.
    pub inputs: usize,
    /// A.
    pub action_len: usize,
    /// P.
    pub num_params: usize,
    /// M; 0 if the environment has no mask.
    pub mask_len: usize,
    /// D if raw observations are kept, else 0.
    pub kept_obs: usize,
}

impl Track {
    /// Track `index` of a run; its environment is reset.
    pub fn new(env: Box<dyn Env>, seed: u64, index: u32) -> Self {
        let mut obs = vec![0.0; env.obs_space().len()];
        let mut slot = Slot::new(env, Stream::new(seed, role::ENV, index));
        slot.reset(&mut obs);
        let sampler = Stream::new(seed, role::POLICY, index);
        Self { slot, sampler, obs, finals: Vec::new(), final_steps: Vec::new() }
    }
}

impl Trajectory {
    /// Room for a segment.
    pub fn new(sizes: TrackSizes) -> Self {
        let TrackSizes { num_steps: t, inputs, action_len, num_params, mask_len, kept_obs } = sizes;
        Self {
            raw_obs: vec![0.0; t * kept_obs],
            inputs: vec![0.0; t * inputs],
            actions: vec![0.0; t * action_len],
            masks: vec![true; t * mask_len],
            params: vec![0.0; t * num_params],
            log_prob: vec![0.0; t],
            raw_rewards: vec![0.0; t],
            rewards: vec![0.0; t],
            outcomes: vec![Outcome::Continue; t],
            values: vec![0.0; t],
            final_values: vec![0.0; t],
            last_value: 0.0,
            advantages: vec![0.0; t],
            returns: vec![0.0; t],
            targets: vec![Target::default(); t],
            episodes: Vec::new(),
        }
    }

    /// Advantages and value targets by GAE.
    pub fn estimate(&mut self, gamma: f32, lambda: f32) {
        let segment = Segment {
            num_envs: 1,
            rewards: &self.rewards,
            values: &self.values,
            outcomes: &self.outcomes,
            final_values: &self.final_values,
            last_values: std::slice::from_ref(&self.last_value),
        };
        gae(&segment, gamma, lambda, &mut self.advantages, &mut self.returns);
        for (t, target) in self.targets.iter_mut().enumerate() {
            *target = Target {
                log_prob: self.log_prob[t],
                advantage: self.advantages[t],
                value: self.values[t],
                returns: self.returns[t],
            };
        }
    }
}

/// Only what lies between segments: a checkpoint is taken when no segment is under way.
impl Persist for Track {
    fn save(&self, w: &mut StateWriter) {
        self.slot.save(w);
        self.sampler.save(w);
        w.f32s(&self.obs);
    }

    fn load(&mut self, r: &mut StateReader<'_>) -> Result<(), StateError> {
        self.slot.load(r)?;
        self.sampler.load(r)?;
        r.f32s_into(&mut self.obs)
    }
}

/// A thread's working memory for collection.
#[derive(Debug, Default)]
pub struct Collector {
    tape: PolicyTape<f32>,
    x: Vec<f32>,
    env_action: Vec<f32>,
    final_obs: Vec<f32>,
}

/// What collection needs to know of a policy.
#[derive(Clone, Copy, Debug)]
pub struct Actor<'a> {
    /// Networks and distribution.
    pub policy: &'a ActorCritic,
    /// Their parameters.
    pub weights: &'a PolicyWeights<f32>,
    /// From observations to the networks' input.
    pub input: &'a InputMap,
    /// Where actions go.
    pub action_space: &'a Space,
}

impl Collector {
    /// Gathers one segment from each of `tracks`: T steps of all of them side by side, then the
    /// values of all states.
    ///
    /// A track's numbers do not depend on which tracks it is collected with.
    ///
    /// # Errors
    ///
    /// [`Error::NonFinite`] if an observation or reward is not finite as `f32`.
    pub fn collect(
        &mut self,
        actor: Actor<'_>,
        tracks: &mut [Track],
        trajectories: &mut [Trajectory],
        iteration: u64,
    ) -> Result<(), Error> {
        let num_steps = trajectories.first().map_or(0, |trajectory| trajectory.rewards.len());
        for (track, trajectory) in tracks.iter_mut().zip(&mut *trajectories) {
            track.final_steps.clear();
            track.finals.clear();
            trajectory.episodes.clear();
        }
        let named = |(what, value): (&str, f64)| Error::NonFinite {
            what: what.to_string(),
            value,
            iteration,
        };
        tracks.iter().try_for_each(|track| finite("observation", &track.obs)).map_err(named)?;
        for t in 0..num_steps {
            let blocks = tracks.chunks_mut(BLOCK_ROWS).zip(trajectories.chunks_mut(BLOCK_ROWS));
            for (tracks, trajectories) in blocks {
                self.step(actor, tracks, trajectories, t).map_err(named)?;
            }
        }
        let blocks = tracks.chunks(BLOCK_ROWS).zip(trajectories.chunks_mut(BLOCK_ROWS));
        for (tracks, trajectories) in blocks {
            self.values(actor, tracks, trajectories);
        }
        Ok(())
    }

    /// One step of a block of tracks.
    fn step(
        &mut self,
        actor: Actor<'_>,
        tracks: &mut [Track],
        trajectories: &mut [Trajectory],
        t: usize,
    ) -> Result<(), (&'static str, f64)> {
        let e = actor.input.inputs();
        let p = actor.policy.distribution().num_params();
        self.x.resize(tracks.len() * e, 0.0);
        self.final_obs.resize(actor.input.obs_len(), 0.0);
        for (track, x) in tracks.iter().zip(self.x.chunks_exact_mut(e)) {
            actor.input.apply(&track.obs, x);
        }
        let params = actor.policy.act(actor.weights, &self.x, &mut self.tape);
        let rows = self.x.chunks_exact(e).zip(params.chunks_exact(p));
        for ((track, trajectory), (x, params)) in tracks.iter_mut().zip(trajectories).zip(rows) {
            let d = trajectory.raw_obs.len() / trajectory.rewards.len();
            trajectory.raw_obs[t * d..(t + 1) * d].copy_from_slice(&track.obs[..d]);
            trajectory.inputs[t * e..(t + 1) * e].copy_from_slice(x);
            trajectory.params[t * p..(t + 1) * p].copy_from_slice(params);
            let action = draw(actor, track, trajectory, t);
            let env_action = clipped(actor.action_space, action, &mut self.env_action);
            let step = track.slot.step(env_action, &mut track.obs, &mut self.final_obs);
            // As f32: there, a large f64 is infinite.
            let reward = step.reward as f32;
            finite("reward", &[reward])?;
            finite("observation", &track.obs)?;
            trajectory.raw_rewards[t] = reward;
            trajectory.rewards[t] = reward;
            trajectory.outcomes[t] = step.outcome;
            trajectory.episodes.extend(step.episode.map(|episode| (t, episode)));
            if step.outcome == Outcome::Truncated {
                finite("final observation", &self.final_obs)?;
                let from = track.finals.len();
                track.finals.resize(from + e, 0.0);
                actor.input.apply(&self.final_obs, &mut track.finals[from..]);
                track.final_steps.push(t);
            }
        }
        Ok(())
    }

    /// Values of all states of the segment, of the observation after it, and of the true last
    /// observations of truncated episodes.
    fn values(&mut self, actor: Actor<'_>, tracks: &[Track], trajectories: &mut [Trajectory]) {
        let e = actor.input.inputs();
        for (track, trajectory) in tracks.iter().zip(&mut *trajectories) {
            let rows = trajectory.inputs.chunks(BLOCK_ROWS * e);
            for (x, values) in rows.zip(trajectory.values.chunks_mut(BLOCK_ROWS)) {
                values.copy_from_slice(actor.policy.value(actor.weights, x, &mut self.tape));
            }
            if !track.finals.is_empty() {
                let values = actor.policy.value(actor.weights, &track.finals, &mut self.tape);
                for (&t, &value) in track.final_steps.iter().zip(values) {
                    trajectory.final_values[t] = value;
                }
            }
        }
        self.x.resize(tracks.len() * e, 0.0);
        for (track, x) in tracks.iter().zip(self.x.chunks_exact_mut(e)) {
            actor.input.apply(&track.obs, x);
        }
        let values = actor.policy.value(actor.weights, &self.x, &mut self.tape);
        for (trajectory, &value) in trajectories.iter_mut().zip(values) {
            trajectory.last_value = value;
        }
    }
}

/// Names the first number that is not finite.
fn finite(what: &'static str, numbers: &[f32]) -> Result<(), (&'static str, f64)> {
    match numbers.iter().find(|x| !x.is_finite()) {
        Some(&x) => Err((what, f64::from(x))),
        None => Ok(()),
    }
}

/// Draws the action of step t from the parameters stored for it, and stores it with its
/// log-probability.
fn draw<'a>(
    actor: Actor<'_>,
    track: &mut Track,
    trajectory: &'a mut Trajectory,
    t: usize,
) -> &'a [f32] {
    let pi = actor.policy.distribution();
    let (a, p, m) = (pi.action_len(), pi.num_params(), pi.mask_len());
    let params = &trajectory.params[t * p..(t + 1) * p];
    let mask = if trajectory.masks.is_empty() {
        None
    } else {
        let mask = &mut trajectory.masks[t * m..(t + 1) * m];
        track.slot.env().action_mask(mask);
        Some(&*mask)
    };
    let action = &mut trajectory.actions[t * a..(t + 1) * a];
    trajectory.log_prob[t] = pi.draw(params, mask, &mut track.sampler, action);
    action
}

/// The action as the environment takes it: limited to the bounds of a box, else as drawn. The
/// log-probability is that of the drawn one (detail 26 of The 37 Implementation Details of PPO).
pub(crate) fn clipped<'a>(space: &Space, action: &'a [f32], buffer: &'a mut Vec<f32>) -> &'a [f32] {
    let Space::Box(bounds) = space else { return action };
    buffer.clear();
    buffer.extend(action.iter().zip(&bounds.low).zip(&bounds.high).map(|((&x, &low), &high)| {
        // Not f32::clamp, which panics on NaN bounds; NaN itself passes and is found later.
        if x < low {
            low
        } else if x > high {
            high
        } else {
            x
        }
    }));
    buffer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_are_limited_to_a_box_and_else_left_alone() {
        let space = Space::vector(&[-1.0, f32::NEG_INFINITY, 0.0], &[1.0, 2.0, f32::INFINITY]);
        let mut buffer = Vec::new();
        assert_eq!(clipped(&space, &[-3.0, -3.0, -3.0], &mut buffer), [-1.0, -3.0, 0.0]);
        assert_eq!(clipped(&space, &[3.0, 3.0, 3.0], &mut buffer), [1.0, 2.0, 3.0]);
        assert_eq!(clipped(&space, &[0.5, 0.5, 0.5], &mut buffer), [0.5; 3]);
        // NaN is the environment's to see, and then the collector's.
        assert!(clipped(&space, &[f32::NAN; 3], &mut buffer)[0].is_nan());
        assert_eq!(clipped(&Space::Discrete { n: 9 }, &[7.0], &mut buffer), [7.0]);
    }

    #[test]
    fn the_check_value_of_ends_comes_out() {
        let sizes = TrackSizes {
            num_steps: 3,
            inputs: 1,
            action_len: 1,
            num_params: 1,
            mask_len: 0,
            kept_obs: 0,
        };
        let mut trajectory = Trajectory::new(sizes);
        trajectory.rewards.copy_from_slice(&[1.0, 2.0, 3.0]);
        trajectory.values.copy_from_slice(&[2.0, 1.0, 0.0]);
        trajectory.final_values.copy_from_slice(&[f32::NAN, 4.0, f32::NAN]);
        trajectory.last_value = 1.0;
        // γ = λ = ½; the second step ends an episode.
        for (end, expected) in
            [(Outcome::Truncated, [0.25, 3.0, 3.5]), (Outcome::Terminated, [-0.25, 1.0, 3.5])]
        {
            trajectory.outcomes[1] = end;
            trajectory.estimate(0.5, 0.5);
            assert_eq!(trajectory.advantages, expected, "{end:?}");
            // Targets are Â + V.
            let returns: Vec<f32> =
                expected.iter().zip(&trajectory.values).map(|(a, v)| a + v).collect();
            assert_eq!(trajectory.returns, returns, "{end:?}");
        }
    }
}
