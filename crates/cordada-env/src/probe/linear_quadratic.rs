//! A linear system with quadratic costs, whose optimal policy and value are known.

use super::dense::{product, quadratic, solve, transpose};
use crate::env::{Env, Outcome, Step};
use crate::error::Error;
use crate::space::Space;
use crate::state::{StateError, StateReader, StateWriter, expect_name};
use crate::stream::Stream;
use crate::wrapper::TimeLimit;

const NAME: &str = "LinearQuadratic";

/// The system, its costs and its limits: n numbers of state, m of action. Matrices are row by row.
#[derive(Clone, Debug, PartialEq)]
pub struct LinearQuadraticOptions {
    /// A: how the state goes on by itself. `[n, n]`
    pub dynamics: Vec<f64>,
    /// B: what the action does. `[n, m]`
    pub control: Vec<f64>,
    /// Q: cost of the state, symmetric. `[n, n]`
    pub state_cost: Vec<f64>,
    /// R: cost of the action, symmetric. `[m, m]`
    pub action_cost: Vec<f64>,
    /// σ: standard deviation of the noise that is added to each number of the state. At least 0.
    pub noise: f64,
    /// Largest absolute value of each number of the action; others are clipped. Above 0.
    pub action_limit: f64,
    /// Episodes start uniformly between ± this in each number of the state. At least 0.
    pub start: f64,
    /// Steps after which [`LinearQuadratic::limited`] truncates. At least 1.
    pub horizon: u32,
}

impl Default for LinearQuadraticOptions {
    /// A cart on a rail: position and velocity, pushed every tenth of a second; no noise.
    fn default() -> Self {
        Self {
            dynamics: vec![1.0, 0.1, 0.0, 1.0],
            control: vec![0.0, 0.1],
            state_cost: vec![1.0, 0.0, 0.0, 0.1],
            action_cost: vec![0.1],
            noise: 0.0,
            action_limit: 10.0,
            start: 1.0,
            horizon: 100,
        }
    }
}

/// A linear system with quadratic costs.
///
/// ```text
/// s' = A s + B a + σ ε,   ε ~ N(0, 1) each,   r = −(sᵀ Q s + aᵀ R a)
/// ```
///
/// Observation: s. The action is clipped to its limit first. Never terminated. All in `f64`; only
/// the rows shown and taken are `f32`.
///
/// While no action is clipped, `a = −K s` with [`LinearQuadratic::optimal_gain`] is optimal for an
/// episode without an end, and without noise the value of a state is `−sᵀ P s`, with
/// [`LinearQuadratic::riccati`].
///
/// # Source
///
/// Bertsekas 2012, "Dynamic Programming and Optimal Control", vol. 2, section 4.2, with a discount.
#[derive(Clone, Debug)]
pub struct LinearQuadratic {
    obs_space: Space,
    action_space: Space,
    options: LinearQuadraticOptions,
    state: Vec<f64>,
}

/// The Riccati iteration stops when no number changes by more than this, relative to the largest.
const REST: f64 = 1e-14;
const MAX_ITERATIONS: usize = 1_000_000;

impl LinearQuadratic {
    /// The system, at rest, without a time limit.
    ///
    /// # Errors
    ///
    /// [`Error::Entries`] for a matrix of the wrong size; [`Error::Option`] for an asymmetric cost
    /// or a number outside its range.
    pub fn new(options: LinearQuadraticOptions) -> Result<Self, Error> {
        let (n, m) = sizes(&options)?;
        check_symmetric("the state's cost", &options.state_cost, n)?;
        check_symmetric("the action's cost", &options.action_cost, m)?;
        let at_least_0 = [("noise", options.noise), ("start", options.start)];
        if let Some((option, value)) = at_least_0.into_iter().find(|(_, x)| x.is_nan() || *x < 0.0)
        {
            return Err(Error::Option { option, value, range: "at least 0" });
        }
        let limit = options.action_limit;
        if limit.is_nan() || limit <= 0.0 {
            return Err(Error::Option { option: "action_limit", value: limit, range: "above 0" });
        }
        if options.horizon == 0 {
            return Err(Error::Option { option: "horizon", value: 0.0, range: "at least 1" });
        }
        Ok(Self {
            obs_space: Space::vector(&vec![f32::NEG_INFINITY; n], &vec![f32::INFINITY; n]),
            action_space: Space::vector(&vec![-limit as f32; m], &vec![limit as f32; m]),
            options,
            state: vec![0.0; n],
        })
    }

    /// The system with its horizon as a time limit.
    pub fn limited(self) -> TimeLimit<Self> {
        let horizon = self.options.horizon;
        TimeLimit::new(self, horizon)
    }

    /// The matrix P of the optimal value −sᵀ P s for the discount `gamma`: `[n, n]`, by iteration
    /// of the discounted Riccati equation from Q.
    ///
    /// ```text
    /// P = Q + γ Aᵀ P (A − B K),   K = γ (R + γ Bᵀ P B)⁻¹ Bᵀ P A
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Option`] if `gamma` is not in [0, 1]; [`Error::NoConvergence`] if the costs are
    /// infinite whatever one does.
    pub fn riccati(&self, gamma: f64) -> Result<Vec<f64>, Error> {
        if !(0.0..=1.0).contains(&gamma) {
            return Err(Error::Option { option: "gamma", value: gamma, range: "from 0 to 1" });
        }
        let mut p = self.options.state_cost.clone();
        let (mut change, mut iterations) = (0.0, 0);
        while iterations < MAX_ITERATIONS {
            let next = self.riccati_step(&p, gamma);
            let largest = next.iter().fold(0.0, |m, x| f64::max(m, x.abs()));
            // Unlike `max`, a sum does not drop a NaN.
            change = p.iter().zip(&next).map(|(a, b)| (a - b).abs()).sum();
            p = next;
            iterations += 1;
            if !f64::is_finite(change) {
                break;
            }
            if change <= REST * largest {
                return Ok(p);
            }
        }
        Err(Error::NoConvergence { what: "the Riccati equation", iterations, change })
    }

    /// The gain K of the optimal policy a = −K s for the discount `gamma`: `[m, n]`.
    ///
    /// # Errors
    ///
    /// As for [`LinearQuadratic::riccati`].
    pub fn optimal_gain(&self, gamma: f64) -> Result<Vec<f64>, Error> {
        Ok(self.gain(&self.riccati(gamma)?, gamma))
    }

    /// K for a given P.
    fn gain(&self, p: &[f64], gamma: f64) -> Vec<f64> {
        let LinearQuadraticOptions { dynamics, control, action_cost, .. } = &self.options;
        let (n, m) = (self.state.len(), self.action_space.len());
        let b_p = product(&transpose(control, m), p, n); // [m, n]
        let quadratic = product(&b_p, control, n).into_iter().zip(action_cost);
        let inverse_of: Vec<f64> = quadratic.map(|(x, r)| r + gamma * x).collect(); // [m, m]
        let right: Vec<f64> = product(&b_p, dynamics, n).iter().map(|x| gamma * x).collect();
        solve(&inverse_of, &right, m) // [m, n]
    }

    fn riccati_step(&self, p: &[f64], gamma: f64) -> Vec<f64> {
        let LinearQuadraticOptions { dynamics, control, state_cost, .. } = &self.options;
        let (n, m) = (self.state.len(), self.action_space.len());
        let pushed = product(control, &self.gain(p, gamma), m);
        let closed: Vec<f64> = dynamics.iter().zip(&pushed).map(|(a, b)| a - b).collect();
        let a_p = product(&transpose(dynamics, n), p, n);
        let future = product(&a_p, &closed, n);
        state_cost.iter().zip(&future).map(|(q, x)| q + gamma * x).collect()
    }

    fn observe(&self, obs: &mut [f32]) {
        for (out, &x) in obs.iter_mut().zip(&self.state) {
            *out = x as f32;
        }
    }
}

/// n and m.
fn sizes(options: &LinearQuadraticOptions) -> Result<(usize, usize), Error> {
    let n = options.dynamics.len().isqrt();
    let m = options.action_cost.len().isqrt();
    for (option, size) in [("the number of states", n), ("the number of actions", m)] {
        if size == 0 {
            return Err(Error::Option { option, value: 0.0, range: "at least 1" });
        }
    }
    for (what, matrix, expected) in [
        ("the dynamics", &options.dynamics, n * n),
        ("the control", &options.control, n * m),
        ("the state's cost", &options.state_cost, n * n),
        ("the action's cost", &options.action_cost, m * m),
    ] {
        if matrix.len() != expected {
            return Err(Error::Entries { what, expected, found: matrix.len() });
        }
    }
    Ok((n, m))
}

fn check_symmetric(option: &'static str, matrix: &[f64], n: usize) -> Result<(), Error> {
    let wrong = transpose(matrix, n).into_iter().zip(matrix).find(|(a, b)| a != *b);
    match wrong {
        Some((value, _)) => Err(Error::Option { option, value, range: "symmetric" }),
        None => Ok(()),
    }
}

impl Env for LinearQuadratic {
    fn obs_space(&self) -> &Space {
        &self.obs_space
    }

    fn action_space(&self) -> &Space {
        &self.action_space
    }

    fn reset(&mut self, stream: &mut Stream, obs: &mut [f32]) {
        let start = self.options.start;
        self.state.fill_with(|| stream.uniform_in(-start, start));
        self.observe(obs);
    }

    fn step(&mut self, action: &[f32], stream: &mut Stream, obs: &mut [f32]) -> Step {
        let options = &self.options;
        let limit = options.action_limit;
        // NaN stays NaN, for the trainer to notice.
        let action: Vec<f64> = action.iter().map(|&a| f64::from(a).clamp(-limit, limit)).collect();
        let cost =
            quadratic(&options.state_cost, &self.state) + quadratic(&options.action_cost, &action);
        let drift = product(&options.dynamics, &self.state, self.state.len());
        let push = product(&options.control, &action, action.len());
        for ((s, drift), push) in self.state.iter_mut().zip(drift).zip(push) {
            let noise = if options.noise > 0.0 { options.noise * stream.normal() } else { 0.0 };
            *s = drift + push + noise;
        }
        self.observe(obs);
        Step { reward: -cost, outcome: Outcome::Continue }
    }

    fn save(&self, w: &mut StateWriter) {
        w.str(NAME);
        w.f64s(&self.state);
    }

    fn load(&mut self, r: &mut StateReader<'_>) -> Result<(), StateError> {
        expect_name(r, NAME)?;
        r.f64s_into(&mut self.state)
    }

    fn state(&self) -> Option<Vec<f64>> {
        Some(self.state.clone())
    }

    fn set_state(&mut self, state: &[f64]) -> Result<(), Error> {
        if state.len() != self.state.len() {
            let (expected, found) = (self.state.len(), state.len());
            return Err(Error::StateLength { expected, found });
        }
        self.state.copy_from_slice(state);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
