//! The environments of a learner that looks at every step: where each stands, what it allows, and
//! what it told. How an action is chosen, and what becomes of a step, is the learner's.

use cordada_env::{
    Env, Episode, Outcome, Persist, Slot, Space, StateError, StateReader, StateWriter, Stream, role,
};

use crate::algo::{AlgoSpec, Setup};
use crate::error::Error;
use crate::input::InputMap;

/// N environments side by side.
#[derive(Debug)]
pub struct Worlds {
    /// What actions are.
    pub action_space: Space,
    /// What observations are.
    pub obs_space: Space,
    /// From observations to network inputs.
    pub input: InputMap,
    /// Steps of all environments together.
    pub steps: u64,
    slots: Vec<Slot>,
    samplers: Vec<Stream>,
    /// `[N, D]`
    obs: Vec<f32>,
    /// Allowed choices `[N, M]`; empty if the environment forbids none.
    masks: Vec<bool>,
    /// Whether an episode has just begun: `[N]`.
    begun: Vec<bool>,
    /// Chosen actions, as the environments take them: `[N, A]`.
    actions: Vec<f32>,
    x: Vec<f32>,
    before: Vec<f32>,
    final_obs: Vec<f32>,
    next_mask: Vec<bool>,
    all_allowed: Vec<bool>,
    episodes: Vec<Episode>,
    reward_sum: f64,
    steps_before: u64,
}

/// The choice of one action for every environment.
#[derive(Debug)]
pub struct Acting<'a> {
    /// Network inputs: `[N, inputs]`.
    pub x: &'a [f32],
    /// Observations as they are: `[N, D]`.
    pub obs: &'a [f32],
    /// Allowed choices `[N, M]`; none if all are.
    pub masks: Option<&'a [bool]>,
    /// Whether the environment's episode has just begun: `[N]`.
    pub begun: &'a [bool],
    /// Each environment's own randomness: `[N]`.
    pub streams: &'a mut [Stream],
    /// Where the actions go, as the environment takes them: `[N, A]`.
    pub actions: &'a mut [f32],
    /// Share of the run that is done.
    pub progress: f64,
}

impl Acting<'_> {
    /// What environment `env` allows, if it forbids anything.
    pub fn mask(&self, env: usize) -> Option<&[bool]> {
        let m = self.masks?.len() / self.streams.len();
        self.masks.map(|masks| &masks[env * m..(env + 1) * m])
    }
}

/// One step that an environment took.
#[derive(Debug)]
pub struct Seen<'a> {
    /// Which environment.
    pub env: usize,
    /// The observation that was acted on: `[D]`.
    pub obs: &'a [f32],
    /// The action, as the environment took it: `[A]`.
    pub action: &'a [f32],
    /// Reward.
    pub reward: f32,
    /// Whether and how the episode ended.
    pub outcome: Outcome,
    /// What followed; the true final observation if the episode ended: `[D]`.
    pub next_obs: &'a [f32],
    /// What is allowed there: `[M]`.
    pub next_mask: &'a [bool],
    /// The first observation and mask of the next episode, if one began.
    pub begun: Option<(&'a [f32], &'a [bool])>,
}

impl Worlds {
    /// Environments at the beginning of their first episodes.
    ///
    /// # Errors
    ///
    /// [`Error::Space`] if the algorithm cannot act in them.
    pub fn new(algo: &AlgoSpec, setup: &Setup<'_>, num_envs: usize) -> Result<Self, Error> {
        let envs: Vec<Box<dyn Env>> = (0..num_envs).map(|_| (setup.make_env)()).collect();
        let action_space = envs[0].action_space().clone();
        let obs_space = envs[0].obs_space().clone();
        algo.check(setup.env, &*envs[0])?;
        let input = InputMap::new(&obs_space, None)?;
        let d = obs_space.len();
        let slot = |(i, env)| Slot::new(env, Stream::new(setup.seed, role::ENV, i as u32));
        let mut slots: Vec<Slot> = envs.into_iter().enumerate().map(slot).collect();
        let mut obs = vec![0.0; num_envs * d];
        for (slot, obs) in slots.iter_mut().zip(obs.chunks_exact_mut(d)) {
            slot.reset(obs);
        }
        let m = action_space.num_choices();
        let masked = m > 0 && slots[0].env().action_mask(&mut vec![true; m]);
        let m = if masked { m } else { 0 };
        let mut worlds = Self {
            samplers: (0..num_envs)
                .map(|i| Stream::new(setup.seed, role::POLICY, i as u32))
                .collect(),
            masks: vec![true; num_envs * m],
            begun: vec![true; num_envs],
            actions: vec![0.0; num_envs * action_space.len()],
            x: vec![0.0; num_envs * input.inputs()],
            before: vec![0.0; d],
            final_obs: vec![0.0; d],
            next_mask: vec![true; m],
            all_allowed: vec![true; action_space.num_choices()],
            episodes: Vec::new(),
            reward_sum: 0.0,
            steps: 0,
            steps_before: 0,
            action_space,
            obs_space,
            input,
            slots,
            obs,
        };
        worlds.read_masks();
        Ok(worlds)
    }

    /// M; 0 if the environment forbids no choice.
    pub fn mask_len(&self) -> usize {
        self.next_mask.len()
    }

    fn read_masks(&mut self) {
        let m = self.mask_len();
        for (slot, mask) in self.slots.iter().zip(self.masks.chunks_exact_mut(m.max(1))) {
            slot.env().action_mask(mask);
        }
    }

    /// Calls `f` with each environment's first observation and mask.
    pub fn each_start(&self, mut f: impl FnMut(usize, &[f32], &[bool])) {
        let (d, m) = (self.final_obs.len(), self.mask_len());
        for env in 0..self.slots.len() {
            f(env, &self.obs[env * d..(env + 1) * d], &self.masks[env * m..(env + 1) * m]);
        }
    }

    /// Chooses an action for every environment: any that is allowed if `random`, else by `act`.
    pub fn choose(&mut self, random: bool, progress: f64, act: impl FnOnce(&mut Acting<'_>)) {
        let (a, m) = (self.action_space.len(), self.mask_len());
        if random {
            let rows = self.actions.chunks_exact_mut(a).zip(&mut self.samplers).enumerate();
            for (env, (action, stream)) in rows {
                let mask = if m == 0 { &self.all_allowed } else { &self.masks[env * m..][..m] };
                self.action_space.sample_masked(stream, mask, action);
            }
            return;
        }
        let (d, e) = (self.input.obs_len(), self.input.inputs());
        for (obs, x) in self.obs.chunks_exact(d).zip(self.x.chunks_exact_mut(e)) {
            self.input.apply(obs, x);
        }
        act(&mut Acting {
            x: &self.x,
            obs: &self.obs,
            masks: (m > 0).then_some(&self.masks[..]),
            begun: &self.begun,
            streams: &mut self.samplers,
            actions: &mut self.actions,
            progress,
        });
    }

    /// Takes the chosen actions, and calls `seen` with each environment's step.
    ///
    /// # Errors
    ///
    /// [`Error::NonFinite`] if an observation or reward is not finite as `f32`.
    pub fn step(&mut self, iteration: u64, mut seen: impl FnMut(Seen<'_>)) -> Result<(), Error> {
        let (d, a, m) = (self.final_obs.len(), self.action_space.len(), self.mask_len());
        for (env, slot) in self.slots.iter_mut().enumerate() {
            let obs = &mut self.obs[env * d..(env + 1) * d];
            let mask = &mut self.masks[env * m..(env + 1) * m];
            let action = &self.actions[env * a..(env + 1) * a];
            self.before.copy_from_slice(obs);
            let step = slot.step(action, obs, &mut self.final_obs);
            let ended = step.outcome.ended();
            // As f32: there, a large f64 is infinite.
            let reward = step.reward as f32;
            let last = if ended { &self.final_obs[..] } else { &[] };
            let numbers =
                [("reward", &[reward][..]), ("observation", &*obs), ("observation", last)];
            for (what, numbers) in numbers {
                if let Some(&x) = numbers.iter().find(|x| !x.is_finite()) {
                    let (what, value) = (what.to_string(), f64::from(x));
                    return Err(Error::NonFinite { what, value, iteration });
                }
            }
            slot.env().action_mask(mask);
            // Where an episode ended nothing is forbidden: a value there bootstraps from the best.
            self.next_mask.fill(true);
            if !ended {
                self.next_mask.copy_from_slice(mask);
            }
            self.begun[env] = ended;
            self.episodes.extend(step.episode);
            self.reward_sum += step.reward;
            self.steps += 1;
            seen(Seen {
                env,
                obs: &self.before,
                action,
                reward,
                outcome: step.outcome,
                next_obs: if ended { &self.final_obs } else { obs },
                next_mask: &self.next_mask,
                begun: ended.then_some((&*obs, &*mask)),
            });
        }
        Ok(())
    }

    /// Begins to count episodes and rewards anew.
    pub fn begin_iteration(&mut self) {
        self.episodes.clear();
        self.reward_sum = 0.0;
        self.steps_before = self.steps;
    }

    /// What the environments told since the iteration began.
    pub fn metrics(&self, metrics: &mut Vec<(&'static str, f64)>) {
        let n = self.episodes.len() as f64;
        if n > 0.0 {
            let returns = self.episodes.iter().map(|e| e.episode_return).sum::<f64>() / n;
            let lengths = self.episodes.iter().map(|e| e.length as f64).sum::<f64>() / n;
            metrics
                .extend([("rollout/episode_return", returns), ("rollout/episode_length", lengths)]);
        }
        let steps = (self.steps - self.steps_before) as f64;
        metrics.push(("rollout/episodes", n));
        metrics.push(("rollout/reward_mean", self.reward_sum / steps));
    }
}

/// Only what lies between iterations.
impl Persist for Worlds {
    fn save(&self, w: &mut StateWriter) {
        w.u64(self.steps);
        for (slot, sampler) in self.slots.iter().zip(&self.samplers) {
            slot.save(w);
            sampler.save(w);
        }
        w.f32s(&self.obs);
        self.begun.iter().for_each(|begun| w.bool(*begun));
    }

    fn load(&mut self, r: &mut StateReader<'_>) -> Result<(), StateError> {
        self.steps = r.u64()?;
        for (slot, sampler) in self.slots.iter_mut().zip(&mut self.samplers) {
            slot.load(r)?;
            sampler.load(r)?;
        }
        r.f32s_into(&mut self.obs)?;
        for begun in &mut self.begun {
            *begun = r.bool()?;
        }
        self.read_masks();
        Ok(())
    }
}

/// Between the actions of a bounded box and [−1, 1], in which networks see and give them.
#[derive(Clone, Debug)]
pub struct ActionScale {
    center: Vec<f32>,
    half_width: Vec<f32>,
}

impl ActionScale {
    /// For a bounded box.
    ///
    /// # Panics
    ///
    /// If the space is none, which an algorithm's `takes` rules out.
    pub fn new(space: &Space) -> Self {
        let Space::Box(bounds) = space else { panic!("a box, not {space}") };
        let pairs = || bounds.low.iter().zip(&bounds.high);
        Self {
            center: pairs().map(|(&low, &high)| f32::midpoint(low, high)).collect(),
            half_width: pairs().map(|(&low, &high)| (high - low) / 2.0).collect(),
        }
    }

    /// Rows of [−1, 1] to rows of the box, in place.
    pub fn to_box(&self, rows: &mut [f32]) {
        for row in rows.chunks_exact_mut(self.center.len()) {
            for ((x, &c), &h) in row.iter_mut().zip(&self.center).zip(&self.half_width) {
                *x = c + h * *x;
            }
        }
    }

    /// Rows of the box to rows of [−1, 1], in place.
    pub fn from_box(&self, rows: &mut [f32]) {
        for row in rows.chunks_exact_mut(self.center.len()) {
            for ((x, &c), &h) in row.iter_mut().zip(&self.center).zip(&self.half_width) {
                *x = (*x - c) / h;
            }
        }
    }
}
