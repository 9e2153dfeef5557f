//! The last few observations as one.

use super::pass_on;
use crate::env::{Env, Step};
use crate::error::Error;
use crate::space::{BoxSpace, Space};
use crate::state::{StateError, StateReader, StateWriter};
use crate::stream::Stream;

/// Shows the last `k` observations, oldest first; after a reset, the first one `k` times.
///
/// # Shapes
///
/// Observation: `[k, …]`, k rows of the inner observation.
///
/// # Source
///
/// Mnih et al. 2015, doi:10.1038/nature14236; the order is that of Gymnasium 1.4.0,
/// `FrameStackObservation`.
#[derive(Clone, Debug)]
pub struct FrameStack<E> {
    inner: E,
    obs_space: Space,
    frames: Vec<f32>,
    dim: usize,
}

impl<E: Env> FrameStack<E> {
    /// Stacks `k` observations of `inner`.
    ///
    /// # Errors
    ///
    /// [`Error::Option`] if `k` is 0; [`Error::Wrapper`] if observations are not a box.
    pub fn new(inner: E, k: usize) -> Result<Self, Error> {
        if k == 0 {
            return Err(Error::Option { option: "k", value: 0.0, range: "at least 1" });
        }
        let space = match inner.obs_space() {
            Space::Box(space) => space,
            other => {
                return Err(Error::Wrapper {
                    wrapper: "FrameStack",
                    needs: "a box of observations",
                    space: Box::new(other.clone()),
                });
            }
        };
        let shape = std::iter::once(k).chain(space.shape.iter().copied()).collect();
        let dim = space.low.len();
        let stacked = BoxSpace::new(space.low.repeat(k), space.high.repeat(k), shape)?;
        Ok(Self { inner, obs_space: Space::Box(stacked), frames: vec![0.0; k * dim], dim })
    }
}

impl<E: Env> Env for FrameStack<E> {
    pass_on!(action_space, action_mask, state);

    fn obs_space(&self) -> &Space {
        &self.obs_space
    }

    fn reset(&mut self, stream: &mut Stream, obs: &mut [f32]) {
        let dim = self.dim;
        self.inner.reset(stream, &mut self.frames[..dim]);
        for start in (dim..self.frames.len()).step_by(dim.max(1)) {
            self.frames.copy_within(..dim, start);
        }
        obs.copy_from_slice(&self.frames);
    }

    fn step(&mut self, action: &[f32], stream: &mut Stream, obs: &mut [f32]) -> Step {
        let newest = self.frames.len() - self.dim;
        self.frames.copy_within(self.dim.., 0);
        let step = self.inner.step(action, stream, &mut self.frames[newest..]);
        obs.copy_from_slice(&self.frames);
        step
    }

    fn save(&self, w: &mut StateWriter) {
        self.inner.save(w);
        w.f32s(&self.frames);
    }

    fn load(&mut self, r: &mut StateReader<'_>) -> Result<(), StateError> {
        self.inner.load(r)?;
        r.f32s_into(&mut self.frames)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::probe::Counter;
    use crate::stream::role;

    #[test]
    fn frames_are_oldest_first_and_start_with_copies() {
        // The counter observes (steps so far, a constant 0.5).
        let mut env = FrameStack::new(Counter::new(), 3).unwrap();
        assert_eq!(
            env.obs_space().to_string(),
            "Box(0.0, [1000.0 1.0 1000.0 1.0 1000.0 1.0], (3, 2))"
        );
        let mut stream = Stream::new(0, role::ENV, 0);
        let mut obs = [9.0; 6];
        for _ in 0..2 {
            env.reset(&mut stream, &mut obs);
            assert_eq!(obs, [0.0, 0.5, 0.0, 0.5, 0.0, 0.5]);
            env.step(&[0.0], &mut stream, &mut obs);
            env.step(&[0.0], &mut stream, &mut obs);
            assert_eq!(obs, [0.0, 0.5, 1.0, 0.5, 2.0, 0.5]);
            env.step(&[0.0], &mut stream, &mut obs);
            assert_eq!(obs, [1.0, 0.5, 2.0, 0.5, 3.0, 0.5]);
        }
    }

    #[test]
    fn no_frames_are_refused() {
        let error = FrameStack::new(Counter::new(), 0).unwrap_err().to_string();
        assert_eq!(error, "k is 0, it has to be at least 1");
    }
}
