//! Wrappers that change rewards. For rewards scaled by their own spread see `normalize`.

use super::pass_on;
use crate::env::{Env, Step};
use crate::error::Error;
use crate::stream::Stream;

/// Clips rewards to an interval. This changes the task: large rewards become alike.
#[derive(Clone, Debug)]
pub struct ClipReward<E> {
    inner: E,
    low: f64,
    high: f64,
}

impl<E: Env> ClipReward<E> {
    /// Clips the rewards of `inner` to [low, high].
    ///
    /// # Errors
    ///
    /// [`Error::Option`] if `low` is above `high` or either is NaN.
    pub fn new(inner: E, low: f64, high: f64) -> Result<Self, Error> {
        // Written so that NaN fails too.
        if low <= high {
            Ok(Self { inner, low, high })
        } else {
            Err(Error::Option { option: "low", value: low, range: "at most high" })
        }
    }
}

impl<E: Env> Env for ClipReward<E> {
    pass_on!(obs_space, action_space, reset, action_mask, persist, state);

    fn step(&mut self, action: &[f32], stream: &mut Stream, obs: &mut [f32]) -> Step {
        let step = self.inner.step(action, stream, obs);
        Step { reward: step.reward.clamp(self.low, self.high), ..step }
    }
}

/// Multiplies rewards by a constant.
#[derive(Clone, Debug)]
pub struct ScaleReward<E> {
    inner: E,
    factor: f64,
}

impl<E: Env> ScaleReward<E> {
    /// Multiplies the rewards of `inner` by `factor`.
    pub fn new(inner: E, factor: f64) -> Self {
        Self { inner, factor }
    }
}

impl<E: Env> Env for ScaleReward<E> {
    pass_on!(obs_space, action_space, reset, action_mask, persist, state);

    fn step(&mut self, action: &[f32], stream: &mut Stream, obs: &mut [f32]) -> Step {
        let step = self.inner.step(action, stream, obs);
        Step { reward: step.reward * self.factor, ..step }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::probe::Echo;
    use crate::space::Space;
    use crate::stream::role;

    /// Reward after `action`; the probe's reward is its first action.
    fn reward(mut env: impl Env, action: f32) -> f64 {
        env.step(&[action], &mut Stream::new(0, role::ENV, 0), &mut [0.0]).reward
    }

    fn probe() -> Echo {
        Echo::new(Space::vector(&[-9.0], &[9.0]))
    }

    #[test]
    fn clipping_keeps_what_is_within() {
        let clip = |a| reward(ClipReward::new(probe(), -1.0, 2.0).unwrap(), a);
        assert_eq!([clip(-5.0), clip(0.5), clip(5.0)], [-1.0, 0.5, 2.0]);
        let error = ClipReward::new(probe(), 1.0, 0.0).unwrap_err().to_string();
        assert_eq!(error, "low is 1, it has to be at most high");
    }

    #[test]
    fn scaling_multiplies() {
        assert_eq!(reward(ScaleReward::new(probe(), -0.5), 3.0), -1.5);
    }
}
