//! `Acrobot-v1`: swing up a two-link pendulum that is driven at the middle joint.

use std::f64::consts::PI;

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
    aliases: &["Acrobot"],
    source: "Gymnasium 1.4.0, Acrobot-v1; Sutton 1996, Generalization in reinforcement learning (equations of the book)",
    summary: "swing the tip of a two-link pendulum above a line; -1 per step until then",
    max_episode_steps: Some(500),
    reward_threshold: Some(-100.0),
    make: || Box::new(Acrobot::new()),
    make_with: None,
};

const NAME: &str = "Acrobot-v1";
const DT: f64 = 0.2; // s per step
const G: f64 = 9.8; // m/s²
const L1: f64 = 1.0; // m, length of link 1
const LC1: f64 = 0.5; // m, to the centers of mass
const LC2: f64 = 0.5;
const M1: f64 = 1.0; // kg
const M2: f64 = 1.0;
const I1: f64 = 1.0; // kg m²
const I2: f64 = 1.0;
const MAX_VELOCITY_1: f64 = 4.0 * PI; // rad/s
const MAX_VELOCITY_2: f64 = 9.0 * PI;

/// Two links hanging from a fixed joint, with a torque at the joint between them.
///
/// ```text
/// θ₂'' = (τ + d₂/d₁ φ₁ − m₂ l₁ l_c2 θ₁'² sin θ₂ − φ₂) / (m₂ l_c2² + I₂ − d₂²/d₁)
/// θ₁'' = −(d₂ θ₂'' + φ₁) / d₁
/// ```
///
/// One Runge-Kutta step of fourth order over 0.2 s, then angles wrapped to [−π, π] and velocities
/// clipped to 4π and 9π rad/s. State: θ₁, θ₂, θ₁', θ₂'; θ₁ = 0 hangs down. Observation: cos θ₁,
/// sin θ₁, cos θ₂, sin θ₂, θ₁', θ₂'. Actions: torque −1, 0, 1 N m. Reward: −1 per step, 0 for the
/// last. Terminated when −cos θ₁ − cos(θ₁ + θ₂) > 1: the tip is above one link's length.
///
/// # Source
///
/// Sutton and Barto 2018, "Reinforcement Learning", section 11.3 of the first edition, in the
/// operation order of Gymnasium 1.4.0.
#[derive(Clone, Debug)]
pub struct Acrobot {
    obs_space: Space,
    action_space: Space,
    state: [f64; 4],
}

impl Acrobot {
    /// Both links hanging at rest.
    pub fn new() -> Self {
        let high = [1.0, 1.0, 1.0, 1.0, MAX_VELOCITY_1 as f32, MAX_VELOCITY_2 as f32];
        Self {
            obs_space: Space::vector(&high.map(|x| -x), &high),
            action_space: Space::Discrete { n: 3 },
            state: [0.0; 4],
        }
    }

    fn observe(&self, obs: &mut [f32]) {
        let [theta1, theta2, dtheta1, dtheta2] = self.state;
        let row = [theta1.cos(), theta1.sin(), theta2.cos(), theta2.sin(), dtheta1, dtheta2];
        obs.copy_from_slice(&row.map(|x| x as f32));
    }
}

impl Default for Acrobot {
    fn default() -> Self {
        Self::new()
    }
}

/// Time derivative of the state under a torque.
fn derivative([theta1, theta2, dtheta1, dtheta2]: [f64; 4], torque: f64) -> [f64; 4] {
    let (sin2, cos2) = (theta2.sin(), theta2.cos());
    let d1 = M1 * (LC1 * LC1) + M2 * (L1 * L1 + LC2 * LC2 + 2.0 * L1 * LC2 * cos2) + I1 + I2;
    let d2 = M2 * (LC2 * LC2 + L1 * LC2 * cos2) + I2;
    let phi2 = M2 * LC2 * G * (theta1 + theta2 - PI / 2.0).cos();
    let phi1 = -M2 * L1 * LC2 * (dtheta2 * dtheta2) * sin2
        - 2.0 * M2 * L1 * LC2 * dtheta2 * dtheta1 * sin2
        + (M1 * LC1 + M2 * L1) * G * (theta1 - PI / 2.0).cos()
        + phi2;
    let ddtheta2 = (torque + d2 / d1 * phi1 - M2 * L1 * LC2 * (dtheta1 * dtheta1) * sin2 - phi2)
        / (M2 * (LC2 * LC2) + I2 - d2 * d2 / d1);
    let ddtheta1 = -(d2 * ddtheta2 + phi1) / d1;
    [dtheta1, dtheta2, ddtheta1, ddtheta2]
}

/// One Runge-Kutta step of fourth order, over `dt` seconds.
fn integrate(y: [f64; 4], torque: f64, dt: f64) -> [f64; 4] {
    let along = |k: [f64; 4], h: f64| derivative(std::array::from_fn(|i| y[i] + h * k[i]), torque);
    let k1 = derivative(y, torque);
    let k2 = along(k1, dt / 2.0);
    let k3 = along(k2, dt / 2.0);
    let k4 = along(k3, dt);
    std::array::from_fn(|i| y[i] + dt / 6.0 * (k1[i] + 2.0 * k2[i] + 2.0 * k3[i] + k4[i]))
}

/// The angle's equivalent in [−π, π], by whole turns.
fn wrap(mut angle: f64) -> f64 {
    const TURN: f64 = 2.0 * PI;
    // Subtracting turns one by one gives Gymnasium's bits, but would never end for an angle so
    // large that a turn is below its precision. The dynamics stay far below this bound.
    if angle.abs() > 1e4 {
        angle %= TURN;
    }
    while angle > PI {
        angle -= TURN;
    }
    while angle < -PI {
        angle += TURN;
    }
    angle
}

impl Env for Acrobot {
    fn obs_space(&self) -> &Space {
        &self.obs_space
    }

    fn action_space(&self) -> &Space {
        &self.action_space
    }

    fn reset(&mut self, stream: &mut Stream, obs: &mut [f32]) {
        // Gymnasium rounds the first state to f32, and keeps f64 from the first step on.
        self.state = std::array::from_fn(|_| f64::from(stream.uniform_in(-0.1, 0.1) as f32));
        self.observe(obs);
    }

    fn step(&mut self, action: &[f32], _stream: &mut Stream, obs: &mut [f32]) -> Step {
        let [theta1, theta2, dtheta1, dtheta2] =
            integrate(self.state, index(action[0], 3) - 1.0, DT);
        let (theta1, theta2) = (wrap(theta1), wrap(theta2));
        self.state = [
            theta1,
            theta2,
            dtheta1.clamp(-MAX_VELOCITY_1, MAX_VELOCITY_1),
            dtheta2.clamp(-MAX_VELOCITY_2, MAX_VELOCITY_2),
        ];
        self.observe(obs);

        if -theta1.cos() - (theta2 + theta1).cos() > 1.0 {
            Step { reward: 0.0, outcome: Outcome::Terminated }
        } else {
            Step { reward: -1.0, outcome: Outcome::Continue }
        }
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

    /// Kinetic plus potential energy, from the links' motion rather than from the equations above.
    fn energy([t1, t2, w1, w2]: [f64; 4]) -> f64 {
        // Centers of mass at (l sin, −l cos) of the absolute angles.
        let w12 = w1 + w2;
        let v1_squared = LC1 * LC1 * w1 * w1;
        let v2_squared =
            L1 * L1 * w1 * w1 + LC2 * LC2 * w12 * w12 + 2.0 * L1 * LC2 * w1 * w12 * t2.cos();
        let kinetic = 0.5 * (M1 * v1_squared + M2 * v2_squared + I1 * w1 * w1 + I2 * w12 * w12);
        let height1 = -LC1 * t1.cos();
        let height2 = -L1 * t1.cos() - LC2 * (t1 + t2).cos();
        kinetic + G * (M1 * height1 + M2 * height2)
    }

    #[test]
    fn without_torque_energy_is_conserved() {
        // The rate of change of the energy along the derivative, by a central difference.
        let y = [0.4, -1.1, 0.7, -0.3];
        let dy = derivative(y, 0.0);
        let at = |h: f64| energy(std::array::from_fn(|i| y[i] + h * dy[i]));
        let rate = (at(1e-5) - at(-1e-5)) / 2e-5;
        assert!(rate.abs() < 1e-8, "{rate}");
        // A torque at the second joint has the power τ θ₂'.
        let dy = derivative(y, 1.0);
        let at = |h: f64| energy(std::array::from_fn(|i| y[i] + h * dy[i]));
        let rate = (at(1e-5) - at(-1e-5)) / 2e-5;
        assert!((rate - y[3]).abs() < 1e-8, "{rate}");
    }

    #[test]
    fn the_integrator_is_of_fourth_order() {
        // The error of one step against two half steps falls with the fifth power of its length.
        let y = [0.4, -1.1, 0.7, -0.3];
        let error = |dt: f64| {
            let halves = integrate(integrate(y, 1.0, dt / 2.0), 1.0, dt / 2.0);
            (integrate(y, 1.0, dt)[3] - halves[3]).abs()
        };
        let order = (error(0.02) / error(0.01)).log2();
        assert!((order - 5.0).abs() < 0.2, "{order}");
    }

    #[test]
    fn angles_wrap_by_whole_turns() {
        assert!((wrap(3.5) - (3.5 - 2.0 * PI)).abs() < 1e-15);
        assert!((wrap(-10.0) - (-10.0 + 4.0 * PI)).abs() < 1e-15);
        assert_eq!(wrap(1.0), 1.0);
        assert!(wrap(1e300).abs() <= PI);
        assert!(wrap(f64::INFINITY).is_nan());
    }

    #[test]
    fn the_tip_above_the_line_ends_the_episode() {
        let mut env = Acrobot::new();
        env.set_state(&[PI - 0.1, 0.05, 0.0, 0.0]).unwrap();
        let mut stream = Stream::new(0, role::ENV, 0);
        let step = env.step(&[1.0], &mut stream, &mut [0.0; 6]);
        assert_eq!(step, Step { reward: 0.0, outcome: Outcome::Terminated });
        env.set_state(&[0.1, 0.05, 0.0, 0.0]).unwrap();
        let step = env.step(&[1.0], &mut stream, &mut [0.0; 6]);
        assert_eq!(step, Step { reward: -1.0, outcome: Outcome::Continue });
    }
}
