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
use crate::policy::{ActorCritic, BLOCK_ROWS, PolicyTape, PolicyWeights, Sequences};

/// One environment with its sampler: what a segment starts from.
#[derive(Debug)]
pub struct Track {
    slot: Slot,
    sampler: Stream,
    /// Observation that the next step acts on: `[D]`.
    obs: Vec<f32>,
    /// What the policy remembers of the episode: `[S]`.
    memory: Vec<f32>,
}

/// What one environment gave in a segment of T steps, and what was made of it.
#[derive(Clone, Debug)]
pub struct Trajectory {
    sizes: TrackSizes,
    /// What the policy remembered before the first step: `[S]`.
    pub memory: Vec<f32>,
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
    /// Network inputs of the true last observations of truncated episodes, what is remembered
    /// there, and their steps.
    finals: Vec<f32>,
    final_memory: Vec<f32>,
    final_steps: Vec<usize>,
    /// Network input of the observation after the segment, and what is remembered there.
    last_input: Vec<f32>,
    last_memory: Vec<f32>,
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
#[derive(Clone, Copy, Debug, Default)]
pub struct TrackSizes {
    /// T; 0 for whole episodes, which are as long as they are.
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
    /// S, numbers that the policy remembers.
    pub state_len: usize,
}

impl Track {
    /// Track `index` of a run; its environment is reset. The policy remembers `state_len` numbers.
    pub fn new(env: Box<dyn Env>, seed: u64, index: u32, state_len: usize) -> Self {
        let mut obs = vec![0.0; env.obs_space().len()];
        let mut slot = Slot::new(env, Stream::new(seed, role::ENV, index));
        slot.reset(&mut obs);
        let sampler = Stream::new(seed, role::POLICY, index);
        Self { slot, sampler, obs, memory: vec![0.0; state_len] }
    }
}

impl Trajectory {
    /// Room for a segment.
    pub fn new(sizes: TrackSizes) -> Self {
        let mut new = Self {
            sizes,
            memory: vec![0.0; sizes.state_len],
            raw_obs: Vec::new(),
            inputs: Vec::new(),
            actions: Vec::new(),
            masks: Vec::new(),
            params: Vec::new(),
            log_prob: Vec::new(),
            raw_rewards: Vec::new(),
            rewards: Vec::new(),
            outcomes: Vec::new(),
            values: Vec::new(),
            final_values: Vec::new(),
            last_value: 0.0,
            finals: Vec::new(),
            final_memory: Vec::new(),
            final_steps: Vec::new(),
            last_input: vec![0.0; sizes.inputs],
            last_memory: vec![0.0; sizes.state_len],
            advantages: Vec::new(),
            returns: Vec::new(),
            targets: Vec::new(),
            episodes: Vec::new(),
        };
        new.resize(sizes.num_steps);
        new
    }

    /// T, steps that it holds.
    pub fn num_steps(&self) -> usize {
        self.rewards.len()
    }

    /// Makes room for `t` steps, or drops those behind.
    fn resize(&mut self, t: usize) {
        let TrackSizes { inputs, action_len, num_params, mask_len, kept_obs, .. } = self.sizes;
        self.raw_obs.resize(t * kept_obs, 0.0);
        self.inputs.resize(t * inputs, 0.0);
        self.actions.resize(t * action_len, 0.0);
        self.masks.resize(t * mask_len, true);
        self.params.resize(t * num_params, 0.0);
        let numbers = [
            &mut self.log_prob,
            &mut self.raw_rewards,
            &mut self.rewards,
            &mut self.values,
            &mut self.final_values,
            &mut self.advantages,
            &mut self.returns,
        ];
        for numbers in numbers {
            numbers.resize(t, 0.0);
        }
        self.outcomes.resize(t, Outcome::Continue);
        self.targets.resize(t, Target::default());
    }

    /// Whether an episode began with step t of this segment.
    pub fn starts(&self, t: usize) -> bool {
        t > 0 && self.outcomes[t - 1].ended()
    }

    /// What an estimator reads.
    pub fn segment(&self) -> Segment<'_, f32> {
        Segment {
            num_envs: 1,
            rewards: &self.rewards,
            values: &self.values,
            outcomes: &self.outcomes,
            final_values: &self.final_values,
            last_values: std::slice::from_ref(&self.last_value),
        }
    }

    /// Advantages and value targets by GAE.
    pub fn estimate(&mut self, gamma: f32, lambda: f32) {
        self.estimate_by(|segment, advantages, returns| {
            gae(segment, gamma, lambda, advantages, returns);
        });
    }

    /// Advantages and value targets by an estimator that writes them, `[T]` each.
    pub fn estimate_by(
        &mut self,
        estimator: impl FnOnce(&Segment<'_, f32>, &mut [f32], &mut [f32]),
    ) {
        let mut advantages = std::mem::take(&mut self.advantages);
        let mut returns = std::mem::take(&mut self.returns);
        estimator(&self.segment(), &mut advantages, &mut returns);
        (self.advantages, self.returns) = (advantages, returns);
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
        w.f32s(&self.memory);
    }

    fn load(&mut self, r: &mut StateReader<'_>) -> Result<(), StateError> {
        self.slot.load(r)?;
        self.sampler.load(r)?;
        r.f32s_into(&mut self.obs)?;
        r.f32s_into(&mut self.memory)
    }
}

/// What was collected and not yet learned from.
impl Persist for Trajectory {
    fn save(&self, w: &mut StateWriter) {
        let Self { memory, raw_obs, inputs, actions, params, log_prob, raw_rewards, .. } = self;
        let numbers = [memory, raw_obs, inputs, actions, params, log_prob, raw_rewards];
        let ends = [&self.finals, &self.final_memory, &self.last_input, &self.last_memory];
        numbers.into_iter().chain(ends).for_each(|numbers| w.f32s(numbers));
        w.bytes(&self.masks.iter().map(|allowed| u8::from(*allowed)).collect::<Vec<u8>>());
        w.bytes(&self.outcomes.iter().map(|outcome| *outcome as u8).collect::<Vec<u8>>());
        w.u64s(&self.final_steps.iter().map(|t| *t as u64).collect::<Vec<u64>>());
    }

    fn load(&mut self, r: &mut StateReader<'_>) -> Result<(), StateError> {
        let Self { memory, raw_obs, inputs, actions, params, log_prob, raw_rewards, .. } = self;
        for numbers in [memory, raw_obs, inputs, actions, params, log_prob, &mut *raw_rewards] {
            r.f32s_into(numbers)?;
        }
        self.rewards.copy_from_slice(raw_rewards);
        (self.finals, self.final_memory) = (r.f32s()?, r.f32s()?);
        r.f32s_into(&mut self.last_input)?;
        r.f32s_into(&mut self.last_memory)?;
        let (masks, outcomes) = (r.bytes()?, r.bytes()?);
        self.masks.iter_mut().zip(masks).for_each(|(to, from)| *to = *from != 0);
        for (to, from) in self.outcomes.iter_mut().zip(outcomes) {
            *to = match from {
                0 => Outcome::Continue,
                1 => Outcome::Terminated,
                _ => Outcome::Truncated,
            };
        }
        self.final_steps = r.u64s()?.into_iter().map(|t| t as usize).collect();
        Ok(())
    }
}

/// A track with what it fills.
type Pair<'a> = (&'a mut Track, &'a mut Trajectory);

/// A thread's working memory for collection.
#[derive(Debug, Default)]
pub struct Collector {
    tape: PolicyTape<f32>,
    x: Vec<f32>,
    memory: Vec<f32>,
    entropy: Vec<f32>,
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
        let named = non_finite(iteration);
        let mut pairs = paired(tracks, &mut *trajectories).map_err(&named)?;
        let num_steps = pairs.first().map_or(0, |(_, trajectory)| trajectory.num_steps());
        for t in 0..num_steps {
            for pairs in pairs.chunks_mut(BLOCK_ROWS) {
                self.step(actor, pairs, t).map_err(&named)?;
            }
        }
        for (track, trajectory) in &mut pairs {
            actor.input.apply(&track.obs, &mut trajectory.last_input);
            trajectory.last_memory.copy_from_slice(&track.memory);
        }
        self.values(actor, trajectories);
        Ok(())
    }

    /// Gathers one whole episode from each of `tracks`, which stand at an episode's beginning
    /// before and after. An episode of `max_steps` is cut, as if by a time limit.
    ///
    /// # Errors
    ///
    /// [`Error::NonFinite`] if an observation or reward is not finite as `f32`.
    pub fn collect_episodes(
        &mut self,
        actor: Actor<'_>,
        tracks: &mut [Track],
        trajectories: &mut [Trajectory],
        (iteration, max_steps): (u64, usize),
    ) -> Result<(), Error> {
        let named = non_finite(iteration);
        let mut pairs = paired(tracks, &mut *trajectories).map_err(&named)?;
        let mut running: Vec<Pair<'_>> =
            pairs.iter_mut().map(|(track, trajectory)| (&mut **track, &mut **trajectory)).collect();
        let mut t = 0;
        while !running.is_empty() {
            for (_, trajectory) in &mut running {
                trajectory.resize(t + 1);
            }
            for pairs in running.chunks_mut(BLOCK_ROWS) {
                self.step(actor, pairs, t).map_err(&named)?;
            }
            t += 1;
            if t == max_steps {
                for (track, trajectory) in &mut running {
                    self.cut(actor, track, trajectory);
                }
            }
            running.retain(|(_, trajectory)| !trajectory.outcomes[t - 1].ended());
        }
        for (track, trajectory) in &mut pairs {
            actor.input.apply(&track.obs, &mut trajectory.last_input);
            trajectory.last_memory.copy_from_slice(&track.memory);
        }
        self.values(actor, trajectories);
        Ok(())
    }

    /// Cuts an episode that goes on.
    fn cut(&mut self, actor: Actor<'_>, track: &mut Track, trajectory: &mut Trajectory) {
        let t = trajectory.num_steps() - 1;
        if trajectory.outcomes[t].ended() {
            return;
        }
        trajectory.outcomes[t] = Outcome::Truncated;
        let episode_return = trajectory.raw_rewards.iter().map(|&r| f64::from(r)).sum();
        trajectory.episodes.push((t, Episode { episode_return, length: t as u64 + 1 }));
        self.final_obs.copy_from_slice(&track.obs);
        trajectory.keep_final(actor, &self.final_obs, &track.memory, t);
        track.slot.reset(&mut track.obs);
        track.memory.fill(0.0);
    }

    /// One step of a block of tracks.
    fn step(
        &mut self,
        actor: Actor<'_>,
        pairs: &mut [Pair<'_>],
        t: usize,
    ) -> Result<(), (&'static str, f64)> {
        let e = actor.input.inputs();
        let p = actor.policy.distribution().num_params();
        let s = actor.policy.state_len();
        self.final_obs.resize(actor.input.obs_len(), 0.0);
        self.x.resize(pairs.len() * e, 0.0);
        for ((track, _), x) in pairs.iter().zip(self.x.chunks_exact_mut(e)) {
            actor.input.apply(&track.obs, x);
        }
        if s > 0 {
            self.gather_memory(pairs);
        }
        let params = if s == 0 {
            actor.policy.act(actor.weights, &self.x, &mut [], &mut self.tape)
        } else {
            // What is remembered makes the value, so it is computed while it is at hand.
            let (weights, memory) = (actor.weights, &mut self.memory);
            let (params, values) =
                actor.policy.act_and_value(weights, &self.x, memory, &mut self.tape);
            for ((track, trajectory), (memory, &value)) in
                pairs.iter_mut().zip(self.memory.chunks_exact(s).zip(values))
            {
                track.memory.copy_from_slice(memory);
                trajectory.values[t] = value;
            }
            params
        };
        let rows = self.x.chunks_exact(e).zip(params.chunks_exact(p));
        for ((track, trajectory), (x, params)) in pairs.iter_mut().zip(rows) {
            let d = trajectory.sizes.kept_obs;
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
                trajectory.keep_final(actor, &self.final_obs, &track.memory, t);
            }
            if step.outcome.ended() {
                track.memory.fill(0.0);
            }
        }
        Ok(())
    }

    /// What all tracks remember, side by side.
    fn gather_memory(&mut self, pairs: &[Pair<'_>]) {
        self.memory.clear();
        for (track, _) in pairs {
            self.memory.extend_from_slice(&track.memory);
        }
    }

    /// Values of all states of the segments, of the observations after them, and of the true last
    /// observations of truncated episodes.
    fn values(&mut self, actor: Actor<'_>, trajectories: &mut [Trajectory]) {
        if actor.policy.critic_range().is_empty() {
            return;
        }
        let e = actor.input.inputs();
        let (policy, weights) = (actor.policy, actor.weights);
        if policy.state_len() == 0 {
            for trajectory in &mut *trajectories {
                let rows = trajectory.inputs.chunks(BLOCK_ROWS * e);
                for (x, values) in rows.zip(trajectory.values.chunks_mut(BLOCK_ROWS)) {
                    values.copy_from_slice(policy.value(weights, x, &mut [], &mut self.tape));
                }
            }
        }
        self.end_values(actor, trajectories);
    }

    /// Values of what lies behind the segments' states.
    fn end_values(&mut self, actor: Actor<'_>, trajectories: &mut [Trajectory]) {
        let (policy, weights) = (actor.policy, actor.weights);
        for trajectory in &mut *trajectories {
            if trajectory.finals.is_empty() {
                continue;
            }
            self.memory.clone_from(&trajectory.final_memory);
            let values =
                policy.value(weights, &trajectory.finals, &mut self.memory, &mut self.tape);
            for (&t, &value) in trajectory.final_steps.iter().zip(values) {
                trajectory.final_values[t] = value;
            }
        }
        for trajectories in trajectories.chunks_mut(BLOCK_ROWS) {
            self.x.clear();
            self.memory.clear();
            for trajectory in &*trajectories {
                self.x.extend_from_slice(&trajectory.last_input);
                self.memory.extend_from_slice(&trajectory.last_memory);
            }
            let values = policy.value(weights, &self.x, &mut self.memory, &mut self.tape);
            for (trajectory, &value) in trajectories.iter_mut().zip(values) {
                trajectory.last_value = value;
            }
        }
    }

    /// Looks at segments again that another policy collected: the values are those of `actor` then,
    /// and `log_prob` receives its log-probabilities of the actions that were taken.
    ///
    /// # Shapes
    ///
    /// `log_prob`: `[T]` for each trajectory.
    pub fn review(
        &mut self,
        actor: Actor<'_>,
        trajectories: &mut [Trajectory],
        log_prob: &mut [Vec<f32>],
    ) {
        let e = actor.input.inputs();
        let (policy, weights) = (actor.policy, actor.weights);
        let pi = policy.distribution();
        let (a, m) = (pi.action_len(), pi.mask_len());
        for (trajectory, log_prob) in trajectories.iter_mut().zip(log_prob) {
            let steps = trajectory.num_steps();
            log_prob.resize(steps, 0.0);
            self.entropy.resize(steps, 0.0);
            // With memory the segment is one sequence, else it goes through in blocks.
            let block = if policy.state_len() == 0 { BLOCK_ROWS } else { steps };
            let starts: Vec<bool> = (0..steps).map(|t| trajectory.starts(t)).collect();
            for first in (0..steps).step_by(block) {
                let rows = first..(first + block).min(steps);
                let x = &trajectory.inputs[rows.start * e..rows.end * e];
                let sequences =
                    Some(Sequences { starts: &starts[rows.clone()], state: &trajectory.memory });
                let (params, values) = policy.forward(weights, x, sequences, &mut self.tape);
                let masks = (!trajectory.masks.is_empty())
                    .then(|| &trajectory.masks[rows.start * m..rows.end * m]);
                let actions = &trajectory.actions[rows.start * a..rows.end * a];
                let out = (&mut log_prob[rows.clone()], &mut self.entropy[rows.clone()]);
                pi.log_prob_entropy_batch(params, masks, actions, out.0, out.1);
                trajectory.values[rows].copy_from_slice(values);
            }
        }
        self.end_values(actor, trajectories);
    }
}

impl Trajectory {
    /// Keeps the true last observation of an episode that was truncated at step t.
    fn keep_final(&mut self, actor: Actor<'_>, obs: &[f32], memory: &[f32], t: usize) {
        let from = self.finals.len();
        self.finals.resize(from + actor.input.inputs(), 0.0);
        actor.input.apply(obs, &mut self.finals[from..]);
        self.final_memory.extend_from_slice(memory);
        self.final_steps.push(t);
    }
}

/// Tracks beside their trajectories, both ready for a segment.
fn paired<'a>(
    tracks: &'a mut [Track],
    trajectories: &'a mut [Trajectory],
) -> Result<Vec<Pair<'a>>, (&'static str, f64)> {
    let mut pairs: Vec<Pair<'a>> = tracks.iter_mut().zip(trajectories).collect();
    for (track, trajectory) in &mut pairs {
        finite("observation", &track.obs)?;
        trajectory.final_steps.clear();
        trajectory.finals.clear();
        trajectory.final_memory.clear();
        trajectory.episodes.clear();
        trajectory.memory.copy_from_slice(&track.memory);
    }
    Ok(pairs)
}

/// Names a number that is not finite.
fn non_finite(iteration: u64) -> impl Fn((&str, f64)) -> Error {
    move |(what, value)| Error::NonFinite { what: what.to_string(), value, iteration }
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
            ..TrackSizes::default()
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
