//! The time limit of an episode.

use super::pass_on;
use crate::env::{Env, Outcome, Step};
use crate::error::Error;
use crate::state::{StateError, StateReader, StateWriter};
use crate::stream::Stream;

/// Truncates an episode after a number of steps. A step that also terminates stays terminated.
#[derive(Clone, Debug)]
pub struct TimeLimit<E> {
    inner: E,
    max_steps: u32,
    elapsed: u32,
}

impl<E: Env> TimeLimit<E> {
    /// Ends episodes of `inner` after `max_steps` steps.
    pub fn new(inner: E, max_steps: u32) -> Self {
        Self { inner, max_steps, elapsed: 0 }
    }

    /// Counts a step, and truncates if it is the last one allowed.
    #[inline]
    fn count(&mut self, mut step: Step) -> Step {
        self.elapsed = self.elapsed.saturating_add(1);
        if step.outcome == Outcome::Continue && self.elapsed >= self.max_steps {
            step.outcome = Outcome::Truncated;
        }
        step
    }
}

impl<E: Env> Env for TimeLimit<E> {
    pass_on!(obs_space, action_space, action_mask, table);

    fn reset(&mut self, stream: &mut Stream, obs: &mut [f32]) {
        self.elapsed = 0;
        self.inner.reset(stream, obs);
    }

    #[inline]
    fn step(&mut self, action: &[f32], stream: &mut Stream, obs: &mut [f32]) -> Step {
        let step = self.inner.step(action, stream, obs);
        self.count(step)
    }

    fn reset_recorded(&mut self, draws: &[f64], obs: &mut [f32]) -> Result<(), Error> {
        self.elapsed = 0;
        self.inner.reset_recorded(draws, obs)
    }

    fn step_recorded(
        &mut self,
        action: &[f32],
        draws: &[f64],
        obs: &mut [f32],
    ) -> Result<Step, Error> {
        let step = self.inner.step_recorded(action, draws, obs)?;
        Ok(self.count(step))
    }

    fn save(&self, w: &mut StateWriter) {
        self.inner.save(w);
        w.u32(self.elapsed);
    }

    fn load(&mut self, r: &mut StateReader<'_>) -> Result<(), StateError> {
        self.inner.load(r)?;
        self.elapsed = r.u32()?;
        Ok(())
    }

    fn state(&self) -> Option<Vec<f64>> {
        self.inner.state()
    }

    fn set_state(&mut self, state: &[f64]) -> Result<(), Error> {
        self.inner.set_state(state)?;
        self.elapsed = 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::classic::cartpole::CartPole;
    use crate::stream::role;

    #[test]
    fn truncates_at_the_limit_and_after_a_reset_again() {
        let mut env = TimeLimit::new(CartPole::new(), 3);
        let mut stream = Stream::new(0, role::ENV, 0);
        let mut obs = [0.0; 4];
        for _ in 0..2 {
            env.reset(&mut stream, &mut obs);
            let outcomes = [0.0, 1.0, 0.0].map(|a| env.step(&[a], &mut stream, &mut obs).outcome);
            assert_eq!(outcomes, [Outcome::Continue, Outcome::Continue, Outcome::Truncated]);
        }
    }

    #[test]
    fn termination_at_the_limit_stays_termination() {
        let mut env = TimeLimit::new(CartPole::new(), 1);
        let mut stream = Stream::new(0, role::ENV, 0);
        env.set_state(&[2.39, 3.0, 0.0, 0.0]).unwrap();
        let step = env.step(&[1.0], &mut stream, &mut [0.0; 4]);
        assert_eq!(step.outcome, Outcome::Terminated);
    }
}
