//! Small environments with known behaviour, for the unit tests of this crate.

use crate::env::{Env, Outcome, Step};
use crate::space::Space;
use crate::state::{StateError, StateReader, StateWriter};
use crate::stream::Stream;

/// Observes (steps since the reset, 0.5); rewards 1 per step; never ends.
#[derive(Debug)]
pub(crate) struct Counter {
    obs_space: Space,
    action_space: Space,
    steps: u32,
}

impl Counter {
    pub(crate) fn new() -> Self {
        Self {
            obs_space: Space::vector(&[0.0, 0.0], &[1000.0, 1.0]),
            action_space: Space::Discrete { n: 2 },
            steps: 0,
        }
    }
}

impl Env for Counter {
    fn obs_space(&self) -> &Space {
        &self.obs_space
    }

    fn action_space(&self) -> &Space {
        &self.action_space
    }

    fn reset(&mut self, _stream: &mut Stream, obs: &mut [f32]) {
        self.steps = 0;
        obs.copy_from_slice(&[0.0, 0.5]);
    }

    fn step(&mut self, _action: &[f32], _stream: &mut Stream, obs: &mut [f32]) -> Step {
        self.steps += 1;
        obs.copy_from_slice(&[self.steps as f32, 0.5]);
        Step { reward: 1.0, outcome: Outcome::Continue }
    }

    fn save(&self, w: &mut StateWriter) {
        w.u32(self.steps);
    }

    fn load(&mut self, r: &mut StateReader<'_>) -> Result<(), StateError> {
        self.steps = r.u32()?;
        Ok(())
    }
}

/// Observes its last action, and rewards the action's first number.
#[derive(Debug)]
pub(crate) struct Echo {
    obs_space: Space,
    action_space: Space,
}

impl Echo {
    pub(crate) fn new(action_space: Space) -> Self {
        let n = action_space.len();
        let obs_space = Space::vector(&vec![f32::NEG_INFINITY; n], &vec![f32::INFINITY; n]);
        Self { obs_space, action_space }
    }
}

impl Env for Echo {
    fn obs_space(&self) -> &Space {
        &self.obs_space
    }

    fn action_space(&self) -> &Space {
        &self.action_space
    }

    fn reset(&mut self, _stream: &mut Stream, obs: &mut [f32]) {
        obs.fill(0.0);
    }

    fn step(&mut self, action: &[f32], _stream: &mut Stream, obs: &mut [f32]) -> Step {
        obs.copy_from_slice(action);
        Step { reward: f64::from(action[0]), outcome: Outcome::Continue }
    }

    fn save(&self, _w: &mut StateWriter) {}

    fn load(&mut self, _r: &mut StateReader<'_>) -> Result<(), StateError> {
        Ok(())
    }
}
