//! `MountainCar-v0`: drive a weak car out of a valley by swinging, with three actions.

use super::{index, load_state, overwrite, save_state};
use crate::env::{Env, Outcome, Step};
use crate::error::Error;
use crate::registry::EnvSpec;
use crate::space::Space;
use crate::state::{StateError, StateReader, StateWriter};
use crate::stream::Stream;

/// Entry in the list of environments.
pub const SPEC: EnvSpec = EnvSpec {
    name: NAME,
    aliases: &["MountainCar"],
    source: "Gymnasium 1.4.0, MountainCar-v0; Moore 1990, Efficient memory-based learning for robot control",
    summary: "swing a weak car out of a valley; -1 per step until the flag",
    max_episode_steps: Some(200),
    reward_threshold: Some(-110.0),
    make: || Box::new(MountainCar::new()),
    make_with: None,
};

const NAME: &str = "MountainCar-v0";
const MIN_POSITION: f64 = -1.2;
const MAX_POSITION: f64 = 0.6;
const MAX_SPEED: f64 = 0.07;
const GOAL_POSITION: f64 = 0.5;
const FORCE: f64 = 0.001;
const GRAVITY: f64 = 0.0025;

/// A car on the hill `sin 3x`.
///
/// ```text
/// v ← clip(v + 0.001 (a − 1) − 0.0025 cos 3x, ±0.07),   x ← clip(x + v, −1.2, 0.6)
/// ```
///
/// The left wall stops the car (v = 0). Observation: x, v. Actions: 0 left, 1 nothing, 2 right.
/// Reward: −1 per step. Terminated when x ≥ 0.5 with v ≥ 0.
///
/// # Source
///
/// Gymnasium 1.4.0, in its operation order.
#[derive(Clone, Debug)]
pub struct MountainCar {
    obs_space: Space,
    action_space: Space,
    state: [f64; 2],
}

impl MountainCar {
    /// A car at rest at 0.
    pub fn new() -> Self {
        let low = [MIN_POSITION as f32, -MAX_SPEED as f32];
        let high = [MAX_POSITION as f32, MAX_SPEED as f32];
        Self {
            obs_space: Space::vector(&low, &high),
            action_space: Space::Discrete { n: 3 },
            state: [0.0; 2],
        }
    }
}

impl Default for MountainCar {
    fn default() -> Self {
        Self::new()
    }
}

impl Env for MountainCar {
    fn obs_space(&self) -> &Space {
        &self.obs_space
    }

    fn action_space(&self) -> &Space {
        &self.action_space
    }

    fn reset(&mut self, stream: &mut Stream, obs: &mut [f32]) {
        self.state = [stream.uniform_in(-0.6, -0.4), 0.0];
        obs.copy_from_slice(&self.state.map(|x| x as f32));
    }

    fn step(&mut self, action: &[f32], _stream: &mut Stream, obs: &mut [f32]) -> Step {
        let [position, velocity] = self.state;
        let push = (index(action[0], 3) - 1.0) * FORCE;
        let velocity = velocity + (push + (3.0 * position).cos() * -GRAVITY);
        let mut velocity = velocity.clamp(-MAX_SPEED, MAX_SPEED);
        let position = (position + velocity).clamp(MIN_POSITION, MAX_POSITION);
        if position == MIN_POSITION && velocity < 0.0 {
            velocity = 0.0;
        }
        self.state = [position, velocity];
        obs.copy_from_slice(&self.state.map(|x| x as f32));

        let goal = position >= GOAL_POSITION && velocity >= 0.0;
        Step { reward: -1.0, outcome: if goal { Outcome::Terminated } else { Outcome::Continue } }
    }

    fn save(&self, w: &mut StateWriter) {
        save_state(w, NAME, &self.state);
    }

    fn load(&mut self, r: &mut StateReader<'_>) -> Result<(), StateError> {
        load_state(r, NAME, &mut self.state)
    }

    fn state(&self) -> Option<Vec<f64>> {
        Some(self.state.to_vec())
    }

    fn set_state(&mut self, state: &[f64]) -> Result<(), Error> {
        overwrite(&mut self.state, state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::role;

    fn step_from(state: [f64; 2], action: f32) -> ([f64; 2], Outcome) {
        let mut env = MountainCar::new();
        env.set_state(&state).unwrap();
        let step = env.step(&[action], &mut Stream::new(0, role::ENV, 0), &mut [0.0; 2]);
        assert_eq!(step.reward, -1.0);
        (env.state, step.outcome)
    }

    #[test]
    fn one_step_by_hand() {
        // At 0, cos = 1: v = 0.02 + 0.001 − 0.0025 = 0.0185, then x = 0.0185.
        let (state, outcome) = step_from([0.0, 0.02], 2.0);
        assert!((state[1] - 0.0185).abs() < 1e-15 && state[0] == state[1], "{state:?}");
        assert_eq!(outcome, Outcome::Continue);
        // Idle: 0.02 − 0.0025; left: one thousandth less.
        assert!((step_from([0.0, 0.02], 1.0).0[1] - 0.0175).abs() < 1e-15);
        assert!((step_from([0.0, 0.02], 0.0).0[1] - 0.0165).abs() < 1e-15);
    }

    #[test]
    fn walls_and_goal() {
        let (state, _) = step_from([-1.19, -0.06], 0.0);
        assert_eq!(state, [-1.2, 0.0]);
        assert_eq!(step_from([0.45, 0.07], 2.0).1, Outcome::Terminated);
        // Rolling back over the goal does not count.
        assert_eq!(step_from([0.58, -0.02], 0.0).1, Outcome::Continue);
        assert!((step_from([-0.5, 0.07], 2.0).0[1] - 0.07).abs() < 1e-15);
    }
}
