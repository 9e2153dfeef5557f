//! Wrappers that change actions on their way into the environment.

use super::pass_on;
use crate::env::{Env, Step};
use crate::error::Error;
use crate::space::{BoxSpace, Space};
use crate::stream::Stream;

/// Maps actions in [−1, 1] to the environment's own bounds: `low + (high − low) (a + 1) / 2`.
///
/// Actions beyond ±1 are mapped beyond the bounds; put [`ClipAction`] inside to clip them.
#[derive(Clone, Debug)]
pub struct RescaleAction<E> {
    inner: E,
    action_space: Space,
    bounds: BoxSpace,
    scaled: Vec<f32>,
}

impl<E: Env> RescaleAction<E> {
    /// Rescales the actions of `inner`.
    ///
    /// # Errors
    ///
    /// [`Error::Wrapper`] if its actions are not a box with finite bounds.
    pub fn new(inner: E) -> Result<Self, Error> {
        let bounds = bounds_of(&inner, "RescaleAction", "a box of actions with finite bounds")?;
        if !bounds.is_bounded() {
            return Err(Error::Wrapper {
                wrapper: "RescaleAction",
                needs: "a box of actions with finite bounds",
                space: Box::new(Space::Box(bounds)),
            });
        }
        let n = bounds.low.len();
        let unit = BoxSpace::new(vec![-1.0; n], vec![1.0; n], bounds.shape.clone())?;
        Ok(Self { inner, action_space: Space::Box(unit), bounds, scaled: vec![0.0; n] })
    }
}

impl<E: Env> Env for RescaleAction<E> {
    pass_on!(obs_space, reset, action_mask, persist, state);

    fn action_space(&self) -> &Space {
        &self.action_space
    }

    fn step(&mut self, action: &[f32], stream: &mut Stream, obs: &mut [f32]) -> Step {
        let bounds = self.bounds.low.iter().zip(&self.bounds.high);
        for ((scaled, &a), (&low, &high)) in self.scaled.iter_mut().zip(action).zip(bounds) {
            *scaled = low + (high - low) * (0.5 * (a + 1.0));
        }
        self.inner.step(&self.scaled, stream, obs)
    }
}

/// Clips actions to the environment's bounds, and so accepts any real numbers.
#[derive(Clone, Debug)]
pub struct ClipAction<E> {
    inner: E,
    action_space: Space,
    bounds: BoxSpace,
    clipped: Vec<f32>,
}

impl<E: Env> ClipAction<E> {
    /// Clips the actions of `inner`.
    ///
    /// # Errors
    ///
    /// [`Error::Wrapper`] if its actions are not a box.
    pub fn new(inner: E) -> Result<Self, Error> {
        let bounds = bounds_of(&inner, "ClipAction", "a box of actions")?;
        let n = bounds.low.len();
        let (low, high) = (vec![f32::NEG_INFINITY; n], vec![f32::INFINITY; n]);
        let any = BoxSpace::new(low, high, bounds.shape.clone())?;
        Ok(Self { inner, action_space: Space::Box(any), bounds, clipped: vec![0.0; n] })
    }
}

impl<E: Env> Env for ClipAction<E> {
    pass_on!(obs_space, reset, action_mask, persist, state);

    fn action_space(&self) -> &Space {
        &self.action_space
    }

    fn step(&mut self, action: &[f32], stream: &mut Stream, obs: &mut [f32]) -> Step {
        let bounds = self.bounds.low.iter().zip(&self.bounds.high);
        for ((clipped, &a), (&low, &high)) in self.clipped.iter_mut().zip(action).zip(bounds) {
            // NaN stays NaN, for the trainer to notice.
            *clipped = a.clamp(low, high);
        }
        self.inner.step(&self.clipped, stream, obs)
    }
}

fn bounds_of(
    env: &impl Env,
    wrapper: &'static str,
    needs: &'static str,
) -> Result<BoxSpace, Error> {
    match env.action_space() {
        Space::Box(space) => Ok(space.clone()),
        other => Err(Error::Wrapper { wrapper, needs, space: Box::new(other.clone()) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::probe::Echo;
    use crate::classic::cartpole::CartPole;
    use crate::stream::role;

    /// Observation after `action`; the probe observes its action.
    fn echo(mut env: impl Env, action: [f32; 2]) -> [f32; 2] {
        let mut obs = [0.0; 2];
        env.step(&action, &mut Stream::new(0, role::ENV, 0), &mut obs);
        obs
    }

    fn probe() -> Echo {
        Echo::new(Space::vector(&[-2.0, 0.0], &[2.0, 6.0]))
    }

    #[test]
    fn rescaling_maps_the_ends_and_the_middle() {
        let env = || RescaleAction::new(probe()).unwrap();
        assert_eq!(echo(env(), [-1.0, -1.0]), [-2.0, 0.0]);
        assert_eq!(echo(env(), [1.0, 1.0]), [2.0, 6.0]);
        assert_eq!(echo(env(), [0.0, 0.5]), [0.0, 4.5]);
        assert_eq!(env().action_space().to_string(), "Box(-1.0, 1.0, (2,))");
    }

    #[test]
    fn clipping_stops_at_the_bounds_and_keeps_nan() {
        let env = || ClipAction::new(probe()).unwrap();
        assert_eq!(echo(env(), [-3.0, 7.0]), [-2.0, 6.0]);
        assert_eq!(echo(env(), [1.5, -0.5]), [1.5, 0.0]);
        assert!(echo(env(), [f32::NAN, 0.0])[0].is_nan());
        assert_eq!(env().action_space().to_string(), "Box(-inf, inf, (2,))");
    }

    #[test]
    fn other_spaces_are_refused() {
        let error = ClipAction::new(CartPole::new()).unwrap_err().to_string();
        assert_eq!(error, "ClipAction needs a box of actions, the environment has Discrete(2)");
        let half = Echo::new(Space::vector(&[0.0, 0.0], &[f32::INFINITY, 1.0]));
        assert!(matches!(RescaleAction::new(half), Err(Error::Wrapper { .. })));
    }
}
