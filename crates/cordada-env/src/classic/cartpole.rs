//! `CartPole-v1`: balance a pole on a cart by pushing the cart left or right.

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
    aliases: &["CartPole"],
    source: "Gymnasium 1.4.0, CartPole-v1; Barto, Sutton and Anderson 1983, doi:10.1109/TSMC.1983.6313077",
    summary: "balance a pole on a cart; +1 per step until the pole falls",
    max_episode_steps: Some(500),
    reward_threshold: Some(475.0),
    make: || Box::new(CartPole::new()),
    make_with: None,
};

const NAME: &str = "CartPole-v1";
const GRAVITY: f64 = 9.8; // m/s²
const MASS_POLE: f64 = 0.1; // kg
const TOTAL_MASS: f64 = MASS_POLE + 1.0;
const LENGTH: f64 = 0.5; // m, half the pole
const POLE_MASS_LENGTH: f64 = MASS_POLE * LENGTH;
const FORCE: f64 = 10.0; // N
const TAU: f64 = 0.02; // s per step
const MAX_ANGLE: f64 = 12.0 * 2.0 * std::f64::consts::PI / 360.0;
const MAX_POSITION: f64 = 2.4; // m

/// A pole hinged on a cart, integrated by explicit Euler steps.
///
/// ```text
/// m = (F + m_p l θ'² sin θ) / M
/// θ'' = (g sin θ − m cos θ) / (l (4/3 − m_p cos² θ / M)),   x'' = m − m_p l θ'' cos θ / M
/// ```
///
/// Observation: x, x', θ, θ'. Actions: 0 pushes left, 1 right, with 10 N. Reward: 1 per step, the
/// last one included, and 0 for steps after the end. Terminated when |x| > 2.4 m or |θ| > 12°.
///
/// # Source
///
/// Florian 2007, "Correct equations for the dynamics of the cart-pole system", without friction,
/// in the operation order of Gymnasium 1.4.0.
#[derive(Clone, Debug)]
pub struct CartPole {
    obs_space: Space,
    action_space: Space,
    state: [f64; 4],
    fallen: bool,
}

impl CartPole {
    /// A cart at rest.
    pub fn new() -> Self {
        let high =
            [(MAX_POSITION * 2.0) as f32, f32::INFINITY, (MAX_ANGLE * 2.0) as f32, f32::INFINITY];
        Self {
            obs_space: Space::vector(&high.map(|x| -x), &high),
            action_space: Space::Discrete { n: 2 },
            state: [0.0; 4],
            fallen: false,
        }
    }

    fn observe(&self, obs: &mut [f32]) {
        obs.copy_from_slice(&self.state.map(|x| x as f32));
    }
}

impl Default for CartPole {
    fn default() -> Self {
        Self::new()
    }
}

impl Env for CartPole {
    fn obs_space(&self) -> &Space {
        &self.obs_space
    }

    fn action_space(&self) -> &Space {
        &self.action_space
    }

    fn reset(&mut self, stream: &mut Stream, obs: &mut [f32]) {
        self.state = std::array::from_fn(|_| stream.uniform_in(-0.05, 0.05));
        self.fallen = false;
        self.observe(obs);
    }

    fn step(&mut self, action: &[f32], _stream: &mut Stream, obs: &mut [f32]) -> Step {
        let [x, x_dot, theta, theta_dot] = self.state;
        let force = (2.0 * index(action[0], 2) - 1.0) * FORCE;
        let (sin, cos) = (theta.sin(), theta.cos());

        let temp = (force + POLE_MASS_LENGTH * (theta_dot * theta_dot) * sin) / TOTAL_MASS;
        let theta_acc = (GRAVITY * sin - cos * temp)
            / (LENGTH * (4.0 / 3.0 - MASS_POLE * (cos * cos) / TOTAL_MASS));
        let x_acc = temp - POLE_MASS_LENGTH * theta_acc * cos / TOTAL_MASS;

        let x = x + TAU * x_dot;
        let theta = theta + TAU * theta_dot;
        self.state = [x, x_dot + TAU * x_acc, theta, theta_dot + TAU * theta_acc];
        self.observe(obs);

        let terminated = x.abs() > MAX_POSITION || theta.abs() > MAX_ANGLE;
        let reward = if terminated && self.fallen { 0.0 } else { 1.0 };
        self.fallen |= terminated;
        Step { reward, outcome: if terminated { Outcome::Terminated } else { Outcome::Continue } }
    }

    fn save(&self, w: &mut StateWriter) {
        save_state(w, NAME, &self.state);
        w.bool(self.fallen);
    }

    fn load(&mut self, r: &mut StateReader<'_>) -> Result<(), StateError> {
        load_state(r, NAME, &mut self.state)?;
        self.fallen = r.bool()?;
        Ok(())
    }

    fn state(&self) -> Option<Vec<f64>> {
        Some(self.state.to_vec())
    }

    fn set_state(&mut self, state: &[f64]) -> Result<(), Error> {
        overwrite(&mut self.state, state)?;
        self.fallen = false;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::role;

    fn step_from(state: [f64; 4], action: f32) -> (CartPole, Step) {
        let mut env = CartPole::new();
        env.set_state(&state).unwrap();
        let step = env.step(&[action], &mut Stream::new(0, role::ENV, 0), &mut [0.0; 4]);
        (env, step)
    }

    #[test]
    fn one_step_by_hand() {
        // Upright and at rest: sin = 0, cos = 1, temp = 10 / 1.1 = 9.0909091,
        // θ'' = −9.0909091 / (0.5 (1.3333333 − 0.0909091)) = −14.6341463,
        // x'' = 9.0909091 + 0.05 · 14.6341463 / 1.1 = 9.7560976; times 0.02 s.
        let (env, step) = step_from([0.0; 4], 1.0);
        assert_eq!(step, Step { reward: 1.0, outcome: Outcome::Continue });
        for (got, want) in env.state.iter().zip([0.0, 0.195_121_951, 0.0, -0.292_682_927]) {
            assert!((got - want).abs() < 1e-9, "{:?}", env.state);
        }
        // Positions move by the old velocities (explicit Euler).
        let (env, _) = step_from([1.0, 2.0, 0.1, -3.0], 0.0);
        assert!((env.state[0] - 1.04).abs() < 1e-15);
        assert!((env.state[2] - 0.04).abs() < 1e-15);
    }

    #[test]
    fn the_last_step_is_rewarded_and_later_ones_are_not() {
        let (mut env, step) = step_from([2.39, 1.0, 0.0, 0.0], 1.0);
        assert_eq!(step, Step { reward: 1.0, outcome: Outcome::Terminated });
        let after = env.step(&[1.0], &mut Stream::new(0, role::ENV, 0), &mut [0.0; 4]);
        assert_eq!(after, Step { reward: 0.0, outcome: Outcome::Terminated });
    }

    #[test]
    fn both_limits_end_the_episode_on_both_sides() {
        for state in [[2.45, 0.0], [-2.45, 0.0], [0.0, 0.21], [0.0, -0.21]] {
            let (_, step) = step_from([state[0], 0.0, state[1], 0.0], 0.0);
            assert_eq!(step.outcome, Outcome::Terminated, "{state:?}");
        }
        let (_, step) = step_from([2.35, 0.0, 0.2, 0.0], 0.0);
        assert_eq!(step.outcome, Outcome::Continue);
    }

    #[test]
    fn episodes_start_within_a_twentieth() {
        let (mut env, mut obs) = (CartPole::new(), [0.0; 4]);
        let mut stream = Stream::new(1, role::ENV, 0);
        let (mut low, mut high) = (0.0f32, 0.0f32);
        for _ in 0..200 {
            env.reset(&mut stream, &mut obs);
            low = obs.iter().fold(low, |m, &x| m.min(x));
            high = obs.iter().fold(high, |m, &x| m.max(x));
        }
        assert!((-0.05..-0.049).contains(&low), "{low}");
        assert!(high > 0.049 && high <= 0.05, "{high}");
    }

    #[test]
    fn a_fall_is_remembered_when_restored() {
        let (fallen, _) = step_from([2.39, 1.0, 0.0, 0.0], 1.0);
        let mut w = StateWriter::new();
        fallen.save(&mut w);
        let mut restored = CartPole::new();
        restored.load(&mut StateReader::new(w.as_bytes())).unwrap();
        let after = restored.step(&[1.0], &mut Stream::new(0, role::ENV, 0), &mut [0.0; 4]);
        assert_eq!(after.reward, 0.0);
    }
}
