//! `Pendulum-v1`: swing up a pendulum with too weak a motor, and hold it there.

use std::f64::consts::PI;

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
    aliases: &["Pendulum"],
    source: "Gymnasium 1.4.0, Pendulum-v1",
    summary: "swing up a pendulum and hold it; angle, speed and torque cost",
    max_episode_steps: Some(200),
    reward_threshold: None,
    make: || Box::new(Pendulum::new()),
    make_with: None,
};

const NAME: &str = "Pendulum-v1";
const MAX_SPEED: f64 = 8.0; // rad/s
const MAX_TORQUE: f32 = 2.0; // N m
const DT: f64 = 0.05; // s per step
const G: f64 = 10.0; // m/s²
const M: f64 = 1.0; // kg
const L: f64 = 1.0; // m

/// A pendulum with a torque at its joint; θ = 0 points up.
///
/// ```text
/// r = −(θ² + 0.1 θ'² + 0.001 u²),   u = clip(a, ±2), θ wrapped to [−π, π)
/// θ' ← clip(θ' + (3g/(2l) sin θ + 3/(m l²) u) 0.05, ±8),   θ ← θ + 0.05 θ'
/// ```
///
/// Observation: cos θ, sin θ, θ'. Never terminated.
///
/// The torque is an `f32`, and so are the terms `3 u` and `0.001 u²`, as `NumPy` 2 computes them.
///
/// # Source
///
/// Gymnasium 1.4.0, in its operation order.
#[derive(Clone, Debug)]
pub struct Pendulum {
    obs_space: Space,
    action_space: Space,
    state: [f64; 2],
}

impl Pendulum {
    /// A pendulum standing still at the top.
    pub fn new() -> Self {
        let high = [1.0, 1.0, MAX_SPEED as f32];
        Self {
            obs_space: Space::vector(&high.map(|x| -x), &high),
            action_space: Space::vector(&[-MAX_TORQUE], &[MAX_TORQUE]),
            state: [0.0; 2],
        }
    }

    fn observe(&self, obs: &mut [f32]) {
        let [theta, theta_dot] = self.state;
        obs.copy_from_slice(&[theta.cos(), theta.sin(), theta_dot].map(|x| x as f32));
    }
}

impl Default for Pendulum {
    fn default() -> Self {
        Self::new()
    }
}

/// The angle's equivalent in [−π, π), by Python's remainder (the sign of the divisor).
fn wrap(angle: f64) -> f64 {
    const TURN: f64 = 2.0 * PI;
    let rest = (angle + PI) % TURN;
    (if rest < 0.0 { rest + TURN } else { rest }) - PI
}

impl Env for Pendulum {
    fn obs_space(&self) -> &Space {
        &self.obs_space
    }

    fn action_space(&self) -> &Space {
        &self.action_space
    }

    fn reset(&mut self, stream: &mut Stream, obs: &mut [f32]) {
        self.state = [stream.uniform_in(-PI, PI), stream.uniform_in(-1.0, 1.0)];
        self.observe(obs);
    }

    fn step(&mut self, action: &[f32], _stream: &mut Stream, obs: &mut [f32]) -> Step {
        let [theta, theta_dot] = self.state;
        let u = action[0].clamp(-MAX_TORQUE, MAX_TORQUE);
        let angle = wrap(theta);
        let cost = angle * angle + 0.1 * (theta_dot * theta_dot) + f64::from(0.001f32 * (u * u));

        let push = f64::from((3.0 / (M * (L * L))) as f32 * u);
        let theta_dot = theta_dot + (3.0 * G / (2.0 * L) * theta.sin() + push) * DT;
        let theta_dot = theta_dot.clamp(-MAX_SPEED, MAX_SPEED);
        self.state = [theta + theta_dot * DT, theta_dot];
        self.observe(obs);
        Step { reward: -cost, outcome: Outcome::Continue }
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

    fn step_from(state: [f64; 2], action: f32) -> ([f64; 2], Step) {
        let mut env = Pendulum::new();
        env.set_state(&state).unwrap();
        let step = env.step(&[action], &mut Stream::new(0, role::ENV, 0), &mut [0.0; 3]);
        (env.state, step)
    }

    #[test]
    fn one_step_by_hand() {
        // θ = π/2, θ' = 1, u = 1: cost = 2.4674011 + 0.1 + 0.001; θ' = 1 + (15 + 3) · 0.05 = 1.9,
        // θ = π/2 + 1.9 · 0.05 (the new speed moves the angle).
        let (state, step) = step_from([PI / 2.0, 1.0], 1.0);
        assert!((step.reward + 2.568_401_1).abs() < 1e-7, "{step:?}");
        assert_eq!(step.outcome, Outcome::Continue);
        assert!((state[1] - 1.9).abs() < 1e-12 && (state[0] - PI / 2.0 - 0.095).abs() < 1e-12);
    }

    #[test]
    fn torque_and_speed_are_clipped() {
        assert_eq!(step_from([0.1, 0.0], 9.0), step_from([0.1, 0.0], 2.0));
        assert_eq!(step_from([PI / 2.0, 7.9], 2.0).0[1], 8.0);
    }

    #[test]
    fn angles_wrap_as_in_python() {
        // Python: (-4 + π) % 2π − π = 2.2831853; 4 → −2.2831853; π → −π.
        assert!((wrap(-4.0) - (2.0 * PI - 4.0)).abs() < 1e-15);
        assert!((wrap(4.0) - (4.0 - 2.0 * PI)).abs() < 1e-15);
        assert_eq!(wrap(PI), -PI);
        assert!((wrap(7.0) - (7.0 - 2.0 * PI)).abs() < 1e-15);
    }
}
