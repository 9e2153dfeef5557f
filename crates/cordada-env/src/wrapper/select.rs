//! Some numbers of an observation, and not the others.

use super::pass_on;
use crate::env::{Env, Step};
use crate::error::Error;
use crate::space::{BoxSpace, Space};
use crate::stream::Stream;

/// Shows only chosen numbers of the observation, in the order chosen. What is left out has to be
/// remembered or inferred: velocities, for instance, from two positions.
///
/// # Shapes
///
/// Observation: `[k]` for k indices, whatever the shape of the inner one.
#[derive(Clone, Debug)]
pub struct SelectObs<E> {
    inner: E,
    indices: Vec<usize>,
    obs_space: Space,
    full: Vec<f32>,
}

impl<E: Env> SelectObs<E> {
    /// Keeps the numbers at `indices`, counted in row-major order.
    ///
    /// # Errors
    ///
    /// [`Error::Wrapper`] if observations are not a box; [`Error::Option`] if an index is not one
    /// of an observation.
    pub fn new(inner: E, indices: &[usize]) -> Result<Self, Error> {
        let space = match inner.obs_space() {
            Space::Box(space) => space,
            other => {
                return Err(Error::Wrapper {
                    wrapper: "SelectObs",
                    needs: "a box of observations",
                    space: Box::new(other.clone()),
                });
            }
        };
        let len = space.low.len();
        if let Some(&wrong) = indices.iter().find(|&&i| i >= len) {
            let range = "below the length of an observation";
            return Err(Error::Option { option: "an index to keep", value: wrong as f64, range });
        }
        let keep = |bounds: &[f32]| indices.iter().map(|&i| bounds[i]).collect();
        let kept = BoxSpace::new(keep(&space.low), keep(&space.high), vec![indices.len()])?;
        Ok(Self {
            inner,
            indices: indices.to_vec(),
            obs_space: Space::Box(kept),
            full: vec![0.0; len],
        })
    }

    fn select(&self, obs: &mut [f32]) {
        for (out, &i) in obs.iter_mut().zip(&self.indices) {
            *out = self.full[i];
        }
    }
}

impl<E: Env> Env for SelectObs<E> {
    pass_on!(action_space, action_mask, persist, state);

    fn obs_space(&self) -> &Space {
        &self.obs_space
    }

    fn reset(&mut self, stream: &mut Stream, obs: &mut [f32]) {
        self.inner.reset(stream, &mut self.full);
        self.select(obs);
    }

    #[inline]
    fn step(&mut self, action: &[f32], stream: &mut Stream, obs: &mut [f32]) -> Step {
        let step = self.inner.step(action, stream, &mut self.full);
        self.select(obs);
        step
    }

    fn reset_recorded(&mut self, draws: &[f64], obs: &mut [f32]) -> Result<(), Error> {
        self.inner.reset_recorded(draws, &mut self.full)?;
        self.select(obs);
        Ok(())
    }

    fn step_recorded(
        &mut self,
        action: &[f32],
        draws: &[f64],
        obs: &mut [f32],
    ) -> Result<Step, Error> {
        let step = self.inner.step_recorded(action, draws, &mut self.full)?;
        self.select(obs);
        Ok(step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::probe::Echo;
    use crate::classic::cartpole::CartPole;
    use crate::stream::role;
    use crate::toy_text::taxi::Taxi;

    #[test]
    fn chosen_numbers_come_in_the_order_chosen() {
        let bounds = ([-1.0, -2.0, -3.0], [1.0, 2.0, 3.0]);
        let echo = Echo::new(Space::vector(&bounds.0, &bounds.1));
        let mut env = SelectObs::new(echo, &[2, 0]).unwrap();
        let mut obs = [9.0; 2];
        let mut stream = Stream::new(0, role::ENV, 0);
        env.reset(&mut stream, &mut obs);
        assert_eq!(obs, [0.0, 0.0]);
        env.step(&[0.5, 0.25, 0.125], &mut stream, &mut obs);
        assert_eq!(obs, [0.125, 0.5]);
        let env = SelectObs::new(CartPole::new(), &[2]).unwrap();
        assert_eq!(env.obs_space().to_string(), "Box(-0.41887903, 0.41887903, (1,))");
    }

    #[test]
    fn indices_beyond_the_observation_and_other_spaces_are_refused() {
        let error = SelectObs::new(CartPole::new(), &[0, 4]).unwrap_err().to_string();
        assert_eq!(error, "an index to keep is 4, it has to be below the length of an observation");
        let error = SelectObs::new(Taxi::new(), &[0]).unwrap_err();
        assert!(matches!(error, Error::Wrapper { wrapper: "SelectObs", .. }), "{error}");
    }
}
