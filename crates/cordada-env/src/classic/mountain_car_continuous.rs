//! `MountainCarContinuous-v0`: drive a weak car out of a valley with little energy.

use super::{load_state, overwrite, save_state};
use crate::env::{Env, Outcome, Step};
use crate::error::Error;
use crate::registry::EnvSpec;
use crate::space::Space;
use crate::state::{StateError, StateReader, StateWriter};
use crate::stream::Stream;

/// Entry in the list of environments.
pub const SPEC: EnvSpec = EnvSpec {
    name: NAME,
    aliases: &["MountainCarContinuous"],
    source: "Gymnasium 1.4.0, MountainCarContinuous-v0; Moore 1990, Efficient memory-based learning for robot control",
    summary: "swing a weak car out of a valley by a continuous force; +100 at the flag, energy costs",
    max_episode_steps: Some(999),
    reward_threshold: Some(90.0),
    make: || Box::new(MountainCarContinuous::new()),
    make_with: None,
};

const NAME: &str = "MountainCarContinuous-v0";
const MIN_POSITION: f64 = -1.2;
const MAX_POSITION: f64 = 0.6;
const MAX_SPEED: f64 = 0.07;
const GOAL_POSITION: f64 = 0.45;
const POWER: f64 = 0.0015;
const GRAVITY: f64 = 0.0025;

/// A car on the hill `sin 3x`, pushed by a real number.
///
/// ```text
/// v ← clip(v + 0.0015 clip(a, ±1) − 0.0025 cos 3x, ±0.07),   x ← clip(x + v, −1.2, 0.6)
/// r = 100 [goal] − 0.1 a²
/// ```
///
/// The left wall stops the car (v = 0). Observation: x, v. Terminated when x ≥ 0.45 with v ≥ 0.
/// The cost is that of the action as given, not as clipped.
///
/// Gymnasium stores the state in `f32` after each step, and `NumPy` then computes the next one in
/// `f32` too; only the first step of an episode, from the `f64` of the reset, is computed in
/// `f64`. Both widths are reproduced here.
///
/// # Source
///
/// Gymnasium 1.4.0, in its operation order.
#[derive(Clone, Debug)]
pub struct MountainCarContinuous {
    obs_space: Space,
    action_space: Space,
    state: [f64; 2],
    /// Whether `state` still has the full width of the reset.
    wide: bool,
}

impl MountainCarContinuous {
    /// A car at rest at 0.
    pub fn new() -> Self {
        let low = [MIN_POSITION as f32, -MAX_SPEED as f32];
        let high = [MAX_POSITION as f32, MAX_SPEED as f32];
        Self {
            obs_space: Space::vector(&low, &high),
            action_space: Space::vector(&[-1.0], &[1.0]),
            state: [0.0; 2],
            wide: true,
        }
    }
}

impl Default for MountainCarContinuous {
    fn default() -> Self {
        Self::new()
    }
}

/// The acceleration, in the widths of the original: a force within the limits is an `f32` and
/// makes the whole term one; a clipped force is a Python number and leaves it an `f64`.
fn acceleration(action: f32, position_times_3: f64) -> f64 {
    let slope = GRAVITY * position_times_3.cos();
    if action > 1.0 {
        POWER - slope
    } else if action < -1.0 {
        -POWER - slope
    } else {
        f64::from(action * POWER as f32 - slope as f32)
    }
}

/// A step of the dynamics in one width: new position and velocity, and whether the goal is reached.
macro_rules! advance {
    ($float:ty, $position:expr, $velocity:expr, $acceleration:expr) => {{
        let max_speed = MAX_SPEED as $float;
        let velocity: $float = $velocity + $acceleration as $float;
        let mut velocity = velocity.clamp(-max_speed, max_speed);
        let position: $float =
            ($position + velocity).clamp(MIN_POSITION as $float, MAX_POSITION as $float);
        if position == MIN_POSITION as $float && velocity < 0.0 {
            velocity = 0.0;
        }
        let goal = position >= GOAL_POSITION as $float && velocity >= 0.0;
        ([position as f32, velocity as f32], goal)
    }};
}

impl Env for MountainCarContinuous {
    fn obs_space(&self) -> &Space {
        &self.obs_space
    }

    fn action_space(&self) -> &Space {
        &self.action_space
    }

    fn reset(&mut self, stream: &mut Stream, obs: &mut [f32]) {
        self.state = [stream.uniform_in(-0.6, -0.4), 0.0];
        self.wide = true;
        obs.copy_from_slice(&self.state.map(|x| x as f32));
    }

    fn step(&mut self, action: &[f32], _stream: &mut Stream, obs: &mut [f32]) -> Step {
        let action = action[0];
        let (state, goal) = if self.wide {
            let [position, velocity] = self.state;
            advance!(f64, position, velocity, acceleration(action, 3.0 * position))
        } else {
            let [position, velocity] = self.state.map(|x| x as f32);
            advance!(f32, position, velocity, acceleration(action, f64::from(3.0 * position)))
        };
        self.state = state.map(f64::from);
        self.wide = false;
        obs.copy_from_slice(&state);

        let cost = f64::from(action) * f64::from(action) * 0.1;
        let reward = if goal { 100.0 } else { 0.0 } - cost;
        Step { reward, outcome: if goal { Outcome::Terminated } else { Outcome::Continue } }
    }

    fn save(&self, w: &mut StateWriter) {
        save_state(w, NAME, &self.state);
        w.bool(self.wide);
    }

    fn load(&mut self, r: &mut StateReader<'_>) -> Result<(), StateError> {
        load_state(r, NAME, &mut self.state)?;
        self.wide = r.bool()?;
        Ok(())
    }

    fn state(&self) -> Option<Vec<f64>> {
        Some(self.state.to_vec())
    }

    fn set_state(&mut self, state: &[f64]) -> Result<(), Error> {
        overwrite(&mut self.state, state)?;
        self.wide = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::role;

    fn step_from(state: [f64; 2], action: f32) -> ([f64; 2], Step) {
        let mut env = MountainCarContinuous::new();
        env.set_state(&state).unwrap();
        let step = env.step(&[action], &mut Stream::new(0, role::ENV, 0), &mut [0.0; 2]);
        (env.state, step)
    }

    #[test]
    fn one_step_by_hand() {
        // At 0, cos = 1: v = 0.01 + 0.5 · 0.0015 − 0.0025 = 0.00825, then x = 0.00825; cost 0.025.
        let (state, step) = step_from([0.0, 0.01], 0.5);
        assert!((state[1] - 0.00825).abs() < 1e-9 && state[0] == state[1], "{state:?}");
        assert!((step.reward + 0.025).abs() < 1e-15, "{step:?}");
        assert_eq!(step.outcome, Outcome::Continue);
    }

    #[test]
    fn the_force_is_clipped_and_the_cost_is_not() {
        let (full, _) = step_from([0.0, 0.01], 1.0);
        let (over, step) = step_from([0.0, 0.01], 3.0);
        assert!((full[1] - over[1]).abs() < 1e-8);
        assert!((step.reward + 0.9).abs() < 1e-15, "{step:?}");
        let (under, _) = step_from([0.0, 0.01], -3.0);
        assert!((under[1] - (0.01 - 0.0015 - 0.0025)).abs() < 1e-9, "{under:?}");
    }

    #[test]
    fn the_goal_pays_a_hundred() {
        let (_, step) = step_from([0.44, 0.06], 1.0);
        assert_eq!(step.outcome, Outcome::Terminated);
        assert!((step.reward - 99.9).abs() < 1e-13, "{step:?}");
    }

    #[test]
    fn the_second_step_is_computed_in_f32() {
        // Not every start tells the widths apart, but one in a few does.
        let mut stream = Stream::new(0, role::ENV, 0);
        let mut env = MountainCarContinuous::new();
        for _ in 0..50 {
            env.reset(&mut stream, &mut [0.0; 2]);
            env.step(&[0.7], &mut stream, &mut [0.0; 2]);
            let [x, v] = env.state.map(|x| x as f32);
            env.step(&[0.7], &mut stream, &mut [0.0; 2]);
            let slope = 0.0025 * f64::from(3.0f32 * x).cos();
            let v = v + (0.7f32 * 0.0015 - slope as f32);
            assert_eq!(env.state, [f64::from(x + v), f64::from(v)]);
        }
    }
}
