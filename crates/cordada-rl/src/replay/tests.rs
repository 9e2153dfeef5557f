//! The memory against a plain list of transitions, its samples' distribution, and saving.

use std::collections::{BTreeMap, BTreeSet};

use cordada_env::role;

use super::*;

const SIZES: ReplaySizes =
    ReplaySizes { num_envs: 3, capacity: 40, obs_len: 3, action_len: 2, mask_len: 37 };

/// Half of what is right in the tests that follow: powers of it are exact.
const GAMMA: f32 = 0.5;

fn stream(index: u32) -> Stream {
    Stream::new(11, role::REPLAY, index)
}

#[derive(Clone, Debug, PartialEq)]
struct View {
    obs: Vec<f32>,
    mask: Vec<bool>,
}

#[derive(Clone, Debug)]
struct Transition {
    episode: usize,
    /// How many frames the environment had before.
    frame: usize,
    from: View,
    action: Vec<f32>,
    reward: f32,
    outcome: Outcome,
    to: View,
}

/// Every transition that ever was, in plain lists.
struct Model {
    sizes: ReplaySizes,
    transitions: Vec<Vec<Transition>>,
    frames: Vec<usize>,
    episodes: usize,
    /// The episode under way in each environment.
    now: Vec<Option<(usize, View)>>,
    stream: Stream,
}

impl Model {
    fn new(sizes: ReplaySizes) -> Self {
        Self {
            sizes,
            transitions: vec![Vec::new(); sizes.num_envs],
            frames: vec![0; sizes.num_envs],
            episodes: 0,
            now: vec![None; sizes.num_envs],
            stream: stream(100),
        }
    }

    /// The frames of a ring that can be seen: 40 transitions of three environments, rounded up, and
    /// the newest observation.
    fn ring(&self) -> usize {
        self.sizes.capacity.div_ceil(self.sizes.num_envs) + 1
    }

    fn numbers(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| self.stream.below(1000) as f32).collect()
    }

    fn view(&mut self) -> View {
        // Whole words of flags are patterns that a number might not keep.
        let share = [0, 50, 100][self.stream.below(3)];
        View {
            obs: self.numbers(self.sizes.obs_len),
            mask: (0..self.sizes.mask_len).map(|_| self.stream.below(100) < share).collect(),
        }
    }

    /// One step of `env`, here and in the memory: a beginning, now and then an abandoned episode,
    /// else a transition.
    fn step(&mut self, replay: &mut Replay, env: usize) {
        let abandoned = self.stream.below(20) == 0;
        let to = self.view();
        let frame = self.frames[env];
        self.frames[env] += 1;
        let newest = match self.now[env].take() {
            Some((episode, from)) if !abandoned => {
                let outcome = match self.stream.below(8) {
                    0 => Outcome::Terminated,
                    1 => Outcome::Truncated,
                    _ => Outcome::Continue,
                };
                let (action, reward) = (self.numbers(self.sizes.action_len), self.numbers(1)[0]);
                let pushed = replay.push(env, &action, reward, outcome, &to.obs, &to.mask);
                assert_eq!(pushed.transition, self.index(env, frame - 1));
                if outcome == Outcome::Continue {
                    self.now[env] = Some((episode, to.clone()));
                }
                let frame = frame - 1;
                let new = Transition { episode, frame, from, action, reward, outcome, to };
                self.transitions[env].push(new);
                pushed.newest
            }
            _ => {
                self.episodes += 1;
                self.now[env] = Some((self.episodes, to.clone()));
                replay.start(env, &to.obs, &to.mask)
            }
        };
        assert_eq!(newest, self.index(env, frame));
        assert!(!replay.is_transition(newest));
    }

    fn index(&self, env: usize, frame: usize) -> u32 {
        (env * self.ring() + frame % self.ring()) as u32
    }

    /// Index and place in the lists of every transition that the memory must have.
    fn live(&self) -> BTreeMap<u32, (usize, usize)> {
        let mut live = BTreeMap::new();
        for (env, transitions) in self.transitions.iter().enumerate() {
            for (i, transition) in transitions.iter().enumerate() {
                if transition.frame + self.ring() >= self.frames[env] {
                    live.insert(self.index(env, transition.frame), (env, i));
                }
            }
        }
        live
    }

    /// Reward, discount and successor of up to `n_step` steps, by the list.
    fn n_steps(&self, (env, first): (usize, usize), n_step: usize) -> (f32, f32, &View) {
        let list = &self.transitions[env][first..];
        let same = list.iter().take_while(|t| t.episode == list[0].episode).take(n_step);
        let steps: Vec<&Transition> = same.collect();
        let sum = steps.iter().enumerate().map(|(i, t)| GAMMA.powi(i as i32) * t.reward).sum();
        let last = steps[steps.len() - 1];
        let terminated = last.outcome == Outcome::Terminated;
        let discount = if terminated { 0.0 } else { GAMMA.powi(steps.len() as i32) };
        (sum, discount, &last.to)
    }

    /// Compares everything that can be gathered.
    fn check(&self, replay: &Replay, batch: &mut Batch) {
        let live = self.live();
        assert_eq!(replay.len(), live.len());
        for index in 0..self.sizes.num_frames() as u32 {
            assert_eq!(replay.is_transition(index), live.contains_key(&index), "frame {index}");
        }
        let indices: Vec<u32> = live.keys().copied().collect();
        for n_step in 1..=4 {
            replay.gather(&indices, n_step, GAMMA, batch);
            assert_eq!(batch.len(), indices.len());
            for (row, &place) in live.values().enumerate() {
                let of = |xs: &[f32], len: usize| xs[row * len..][..len].to_vec();
                let view = |obs: &[f32], masks: &[bool]| View {
                    obs: of(obs, self.sizes.obs_len),
                    mask: masks[row * self.sizes.mask_len..][..self.sizes.mask_len].to_vec(),
                };
                let (reward, discount, next) = self.n_steps(place, n_step);
                let want = &self.transitions[place.0][place.1];
                assert_eq!(view(&batch.obs, &batch.masks), want.from);
                assert_eq!(of(&batch.actions, self.sizes.action_len), want.action);
                assert_eq!((batch.rewards[row], batch.discounts[row]), (reward, discount));
                assert_eq!(view(&batch.next_obs, &batch.next_masks), *next);
            }
        }
    }
}

#[test]
fn it_is_a_list_of_transitions() {
    let small = ReplaySizes { num_envs: 2, capacity: 3, obs_len: 1, action_len: 1, mask_len: 0 };
    for sizes in [SIZES, small] {
        let (mut replay, mut model) = (Replay::new(sizes), Model::new(sizes));
        let mut batch = Batch::default();
        // Environments at different speeds; rings of 15 frames come around 90 times or more.
        for step in 0..4000 {
            let env = [0, 1, sizes.num_envs - 1, 0][step % 4];
            model.step(&mut replay, env);
            if step < 200 || step % 7 == 0 {
                model.check(&replay, &mut batch);
            }
        }
    }
}

#[test]
fn samples_are_transitions_all_alike() {
    // Rings that are not full yet, and rings that are.
    for steps in [20, 1500] {
        let (mut replay, mut model) = (Replay::new(SIZES), Model::new(SIZES));
        for step in 0..steps {
            // The second environment is far behind the others.
            model.step(&mut replay, if step % 10 == 0 { 1 } else { step % 2 * 2 });
        }
        let live = model.live();
        let mut counts: BTreeMap<u32, f64> = live.keys().map(|&index| (index, 0.0)).collect();
        let mut indices = vec![0; 300 * live.len()];
        let mut stream = stream(0);
        for part in indices.chunks_mut(256) {
            replay.sample(&mut stream, part);
        }
        for index in &indices {
            *counts.get_mut(index).expect("a frame that is no transition was drawn") += 1.0;
        }
        // χ² has mean k and variance 2 k with k = len − 1: 4 deviations.
        let chi2: f64 = counts.values().map(|n| (n - 300.0) * (n - 300.0) / 300.0).sum();
        let k = live.len() as f64 - 1.0;
        assert!((chi2 - k).abs() < 4.0 * (2.0 * k).sqrt(), "χ² = {chi2} of {k}");
    }
}

#[test]
fn both_ends_keep_their_meaning() {
    let sizes = ReplaySizes { num_envs: 1, capacity: 9, obs_len: 1, action_len: 1, mask_len: 0 };
    for (outcome, discount) in [(Outcome::Terminated, 0.0), (Outcome::Truncated, 0.25)] {
        let mut replay = Replay::new(sizes);
        replay.start(0, &[1.0], &[]);
        let first = replay.push(0, &[5.0], 4.0, Outcome::Continue, &[2.0], &[]).transition;
        replay.push(0, &[6.0], 8.0, outcome, &[3.0], &[]);
        // The next episode must not be seen from the one before.
        replay.start(0, &[70.0], &[]);
        replay.push(0, &[7.0], 700.0, Outcome::Continue, &[71.0], &[]);
        let mut batch = Batch::default();
        replay.gather(&[first], 5, 0.5, &mut batch);
        // 4 + ½ · 8, and γ² of what the true final observation is worth.
        assert_eq!((batch.rewards[0], batch.discounts[0]), (8.0, discount));
        assert_eq!((batch.next_obs[0], batch.actions[0]), (3.0, 5.0));
    }
}

#[test]
fn memory_is_told_before_it_is_taken() {
    // 14 + 1 frames of 3 + 2 + 2 + 2 numbers in each of three rings.
    assert_eq!((SIZES.num_frames(), SIZES.bytes()), (45, 3 * 15 * 9 * 4));
    assert_eq!(Replay::new(SIZES).rows.len() * 4, 3 * 15 * 9 * 4);
}

#[test]
#[should_panic(expected = "no episode of environment 1 has begun")]
fn a_push_needs_an_episode() {
    let (obs, mask) = ([0.0; 3], [true; 37]);
    let mut replay = Replay::new(SIZES);
    replay.start(1, &obs, &mask);
    replay.push(1, &[0.0; 2], 0.0, Outcome::Terminated, &obs, &mask);
    replay.push(1, &[0.0; 2], 0.0, Outcome::Continue, &obs, &mask);
}

#[test]
#[should_panic(expected = "is not a transition")]
fn the_newest_observation_cannot_be_gathered() {
    let mut replay = Replay::new(SIZES);
    let newest = replay.start(1, &[0.0; 3], &[true; 37]);
    replay.gather(&[newest], 1, 0.9, &mut Batch::default());
}

fn saved(replay: &Replay) -> Vec<u8> {
    let mut w = StateWriter::new();
    replay.save(&mut w);
    w.into_bytes()
}

fn load(replay: &mut Replay, bytes: &[u8]) -> Result<(), StateError> {
    let mut r = StateReader::new(bytes);
    replay.load(&mut r)?;
    r.finish()
}

#[test]
fn a_saved_memory_continues() {
    // Before the rings come around, and after; into a new memory and into a used one.
    for steps in [3, 25, 500] {
        let (mut replay, mut model) = (Replay::new(SIZES), Model::new(SIZES));
        for step in 0..steps {
            model.step(&mut replay, step % 3);
        }
        let bytes = saved(&replay);
        let (mut used, mut other) = (Replay::new(SIZES), Model::new(SIZES));
        for step in 0..100 {
            other.step(&mut used, step % 2);
        }
        for mut loaded in [Replay::new(SIZES), used] {
            load(&mut loaded, &bytes).unwrap();
            assert_eq!(saved(&loaded), bytes);
            model.check(&loaded, &mut Batch::default());
        }
        let mut loaded = Replay::new(SIZES);
        load(&mut loaded, &bytes).unwrap();
        let (mut a, mut b) = ([0; 64], [0; 64]);
        let (mut stream_a, mut stream_b) = (stream(3), stream(3));
        for step in 0..60 {
            // The model takes the same random step twice, once for each memory.
            let env = step % 3;
            let before = model.stream;
            let (now, frames) = (model.now.clone(), model.frames.clone());
            let (list, episodes) = (model.transitions.clone(), model.episodes);
            model.step(&mut loaded, env);
            (model.stream, model.now, model.frames) = (before, now, frames);
            (model.transitions, model.episodes) = (list, episodes);
            model.step(&mut replay, env);
            if !replay.is_empty() {
                replay.sample(&mut stream_a, &mut a);
                loaded.sample(&mut stream_b, &mut b);
                assert_eq!(a, b);
            }
        }
        assert_eq!(stream_a, stream_b);
        assert_eq!(saved(&loaded), saved(&replay));
    }
}

#[test]
fn only_what_is_filled_is_saved() {
    let sizes = ReplaySizes { capacity: 1_000_000, ..SIZES };
    let mut replay = Replay::new(sizes);
    replay.start(0, &[0.0; 3], &[true; 37]);
    assert!(saved(&replay).len() < 300);
}

#[test]
fn a_state_that_does_not_fit_is_refused() {
    let (mut replay, mut model) = (Replay::new(SIZES), Model::new(SIZES));
    for step in 0..30 {
        model.step(&mut replay, step % 3);
    }
    let bytes = saved(&replay);
    for (what, sizes) in [
        ("num_envs", ReplaySizes { num_envs: 2, ..SIZES }),
        ("replay capacity", ReplaySizes { capacity: 41, ..SIZES }),
        ("obs_len", ReplaySizes { obs_len: 4, ..SIZES }),
        ("action_len", ReplaySizes { action_len: 1, ..SIZES }),
        ("mask_len", ReplaySizes { mask_len: 36, ..SIZES }),
    ] {
        let error = load(&mut Replay::new(sizes), &bytes).unwrap_err();
        assert!(matches!(&error, StateError::Mismatch { what: w, .. } if *w == what), "{error}");
    }
    let error = load(&mut replay, &bytes[..bytes.len() - 1]).unwrap_err();
    assert!(matches!(error, StateError::End { .. }), "{error}");
    // Five sizes and the first ring's two numbers, of 9 bytes each; then its frames.
    let mut wrong = BTreeSet::new();
    for (at, byte) in [(5 * 9 + 1, 77), (6 * 9 + 1, 77), (7 * 9 + 9 + 8 * 4, 7)] {
        let mut damaged = bytes.clone();
        damaged[at] = byte;
        match load(&mut replay, &damaged).unwrap_err() {
            StateError::Value { what, .. } => wrong.insert(what),
            other => panic!("{other}"),
        };
    }
    assert_eq!(wrong.len(), 2, "{wrong:?}");
}
