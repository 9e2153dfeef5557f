//! A corridor in which most actions are invalid: whoever follows the action mask collects every
//! reward, whoever does not is out at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::env::{Env, Outcome, Step};
use crate::error::Error;
use crate::space::Space;
use crate::state::{StateError, StateReader, StateWriter, expect_name};
use crate::stream::Stream;

const NAME: &str = "MaskedCorridor";
const KINDS: usize = 3;
const LENGTH: u32 = 16; // steps

/// Sixteen rooms in a row; each is of one of three kinds, at random, and has one valid action, the
/// kind's number.
///
/// The valid action is worth +1 and leads on; an invalid one is worth −1, ends the episode and is
/// counted. The return is 16 for whoever follows the mask.
///
/// Observation: the kind as three numbers, one of them 1, and the share of the corridor that lies
/// behind. Actions: 0, 1, 2.
///
/// # Examples
///
/// ```
/// use cordada_env::probe::MaskedCorridor;
/// use cordada_env::{Env, Stream, role};
///
/// let mut env = MaskedCorridor::new();
/// let mut stream = Stream::new(0, role::ENV, 0);
/// let (mut obs, mut mask, mut action) = ([0.0; 4], [false; 3], [0.0]);
/// env.reset(&mut stream, &mut obs);
/// let mut episode_return = 0.0;
/// loop {
///     env.action_mask(&mut mask);
///     env.action_space().sample_masked(&mut stream, &mask, &mut action);
///     let step = env.step(&action, &mut stream, &mut obs);
///     episode_return += step.reward;
///     if step.outcome.ended() {
///         break;
///     }
/// }
/// assert_eq!((episode_return, env.invalid_actions()), (16.0, 0));
/// ```
#[derive(Debug)]
pub struct MaskedCorridor {
    obs_space: Space,
    action_space: Space,
    kind: usize,
    steps: u32,
    invalid: Arc<AtomicU64>,
}

impl MaskedCorridor {
    /// A corridor with a count of its own.
    pub fn new() -> Self {
        Self::counting(Arc::default())
    }

    /// A corridor that adds its invalid actions to `invalid`, which can be read after the
    /// environment has been given away. It is no part of the saved state.
    pub fn counting(invalid: Arc<AtomicU64>) -> Self {
        Self {
            obs_space: Space::vector(&[0.0; KINDS + 1], &[1.0; KINDS + 1]),
            action_space: Space::Discrete { n: KINDS },
            kind: 0,
            steps: 0,
            invalid,
        }
    }

    /// How many invalid actions have been counted.
    pub fn invalid_actions(&self) -> u64 {
        self.invalid.load(Ordering::Relaxed)
    }

    fn observe(&self, obs: &mut [f32]) {
        obs.fill(0.0);
        obs[self.kind] = 1.0;
        obs[KINDS] = self.steps.min(LENGTH) as f32 / LENGTH as f32;
    }
}

impl Default for MaskedCorridor {
    fn default() -> Self {
        Self::new()
    }
}

impl Env for MaskedCorridor {
    fn obs_space(&self) -> &Space {
        &self.obs_space
    }

    fn action_space(&self) -> &Space {
        &self.action_space
    }

    fn reset(&mut self, stream: &mut Stream, obs: &mut [f32]) {
        self.kind = stream.below(KINDS);
        self.steps = 0;
        self.observe(obs);
    }

    fn step(&mut self, action: &[f32], stream: &mut Stream, obs: &mut [f32]) -> Step {
        let valid = action[0] == self.kind as f32;
        self.kind = stream.below(KINDS);
        self.steps = self.steps.saturating_add(1);
        self.observe(obs);
        if !valid {
            self.invalid.fetch_add(1, Ordering::Relaxed);
            return Step { reward: -1.0, outcome: Outcome::Terminated };
        }
        let at_end = self.steps >= LENGTH;
        let outcome = if at_end { Outcome::Terminated } else { Outcome::Continue };
        Step { reward: 1.0, outcome }
    }

    fn action_mask(&self, mask: &mut [bool]) -> bool {
        for (action, allowed) in mask.iter_mut().enumerate() {
            *allowed = action == self.kind;
        }
        true
    }

    fn save(&self, w: &mut StateWriter) {
        w.str(NAME);
        w.u64(self.kind as u64);
        w.u32(self.steps);
    }

    fn load(&mut self, r: &mut StateReader<'_>) -> Result<(), StateError> {
        expect_name(r, NAME)?;
        let offset = r.offset();
        let kind = r.u64()? as usize;
        if kind >= KINDS {
            return Err(StateError::Value { what: "kind of room", offset });
        }
        self.kind = kind;
        self.steps = r.u32()?;
        Ok(())
    }

    fn state(&self) -> Option<Vec<f64>> {
        Some(vec![self.kind as f64, f64::from(self.steps)])
    }

    /// `state`: the kind of the room, and the number of steps so far.
    fn set_state(&mut self, state: &[f64]) -> Result<(), Error> {
        let &[kind, steps] = state else {
            return Err(Error::StateLength { expected: 2, found: state.len() });
        };
        let limits = [("the kind of the room", kind, 3.0), ("the number of steps", steps, 16.0)];
        for (option, value, end) in limits {
            if value.fract() != 0.0 || !(0.0..end).contains(&value) {
                let range = "a whole number, of kinds below 3 and of steps below 16";
                return Err(Error::Option { option, value, range });
            }
        }
        (self.kind, self.steps) = (kind as usize, steps as u32);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{CheckOptions, check};
    use crate::stream::role;

    #[test]
    fn it_keeps_the_contract() {
        let max_episode_steps = Some(LENGTH);
        let options = CheckOptions { max_episode_steps, ..CheckOptions::default() };
        let report = check(|| Box::new(MaskedCorridor::new()), &options);
        assert!(report.passed(), "{report}");
    }

    #[test]
    fn one_action_is_valid_in_each_room_and_the_observation_tells_which() {
        let (mut env, mut stream) = (MaskedCorridor::new(), Stream::new(0, role::ENV, 0));
        let (mut obs, mut mask, mut seen) = ([9.0; 4], [false; 3], [0; 3]);
        env.reset(&mut stream, &mut obs);
        for t in 1..=16u8 {
            assert!(env.action_mask(&mut mask));
            let kind = mask.iter().position(|&m| m).unwrap();
            assert_eq!(mask.map(|m| f32::from(u8::from(m))), obs[..3]);
            assert_eq!(obs[3], f32::from(t - 1) / 16.0);
            seen[kind] += 1;
            let step = env.step(&[kind as f32], &mut stream, &mut obs);
            assert_eq!((step.reward, step.outcome.ended()), (1.0, t == 16));
        }
        assert!(seen.iter().all(|&n| n > 0), "{seen:?}");
    }

    #[test]
    fn invalid_actions_end_the_episode_and_are_counted() {
        let count = Arc::default();
        let mut env = MaskedCorridor::counting(Arc::clone(&count));
        let (mut stream, mut obs) = (Stream::new(0, role::ENV, 0), [9.0; 4]);
        for (i, action) in [0.0, 2.0, f32::NAN].into_iter().enumerate() {
            env.set_state(&[1.0, 3.0]).unwrap();
            let step = env.step(&[action], &mut stream, &mut obs);
            assert_eq!(step, Step { reward: -1.0, outcome: Outcome::Terminated });
            assert_eq!(count.load(Ordering::Relaxed), i as u64 + 1);
        }
        assert_eq!(env.invalid_actions(), 3);
    }

    #[test]
    fn only_rooms_can_be_set() {
        let mut env = MaskedCorridor::new();
        for wrong in [[3.0, 0.0], [0.5, 0.0], [0.0, 16.0], [f64::NAN, 0.0]] {
            assert!(env.set_state(&wrong).is_err(), "{wrong:?}");
        }
        env.set_state(&[2.0, 15.0]).unwrap();
        assert_eq!(env.state(), Some(vec![2.0, 15.0]));
        let mut w = StateWriter::new();
        w.str(NAME);
        w.u64(3);
        assert!(env.load(&mut StateReader::new(w.as_bytes())).is_err());
    }
}
