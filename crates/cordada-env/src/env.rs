//! The contract of an environment. Vectorised stepping with automatic resets is in `vec_env`,
//! the contract's test in `check`.

use crate::error::Error;
use crate::space::Space;
use crate::state::{StateError, StateReader, StateWriter};
use crate::stream::Stream;
use crate::toy_text::table::TransitionTable;

/// Whether and why an episode ended with a step.
///
/// Never merged into one flag: after `Terminated` there is no future, so its value is 0; after
/// `Truncated` the task goes on and only the recording stops, so a value target has to bootstrap
/// from the true last observation. Whoever merges the two teaches the agent that running out of
/// time is death.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Outcome {
    /// The episode goes on.
    #[default]
    Continue,
    /// The task itself ended: a goal, a fall, a final state. A step that also reached a time
    /// limit counts as terminated, since there is no future to bootstrap from.
    Terminated,
    /// The episode was cut off from outside, by a time limit.
    Truncated,
}

impl Outcome {
    /// Whether the episode ended, either way.
    pub fn ended(self) -> bool {
        self != Self::Continue
    }
}

/// What a step returns besides the observation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// Reward of the step.
    pub reward: f64,
    /// Whether the episode ended.
    pub outcome: Outcome,
}

/// An environment: one task that one agent acts in.
///
/// Rows of observations and actions are laid out as [`Space`] says. All randomness comes from the
/// stream passed in, so that the same stream and the same actions give the same bits. An
/// environment does not reset itself, and knows no time limit: both are added around it.
///
/// - `reset` comes before the first `step`; it may come at any time after.
/// - Stepping after the end of an episode is allowed and continues the dynamics.
/// - An action outside the action space is the caller's mistake. A NaN flows into state and
///   reward, where the trainer notices it; an environment neither panics nor hides it.
///
/// # Examples
///
/// ```
/// use cordada_env::{Env, Stream, make, role};
///
/// let mut env = make("CartPole-v1")?;
/// let mut stream = Stream::new(0, role::ENV, 0);
/// let mut obs = vec![0.0; env.obs_space().len()];
/// env.reset(&mut stream, &mut obs);
/// let mut steps = 0;
/// while !env.step(&[1.0], &mut stream, &mut obs).outcome.ended() {
///     steps += 1;
/// }
/// assert!(steps < 15); // always pushing to the right topples the pole
/// # Ok::<(), cordada_env::Error>(())
/// ```
pub trait Env: Send {
    /// The space of observations; never changes.
    fn obs_space(&self) -> &Space;

    /// The space of actions; never changes.
    fn action_space(&self) -> &Space;

    /// Starts an episode and writes its first observation.
    fn reset(&mut self, stream: &mut Stream, obs: &mut [f32]);

    /// Acts, and writes the observation that follows, also when the episode ends with it.
    fn step(&mut self, action: &[f32], stream: &mut Stream, obs: &mut [f32]) -> Step;

    /// Writes which discrete choices are allowed now and returns true; or returns false and
    /// leaves `mask` alone if all always are.
    ///
    /// # Shapes
    ///
    /// `mask`: [`Space::num_choices`] of the action space.
    fn action_mask(&self, _mask: &mut [bool]) -> bool {
        false
    }

    /// Appends the whole state: after [`Env::load`] into an environment made the same way, both
    /// continue identically.
    fn save(&self, w: &mut StateWriter);

    /// Restores what [`Env::save`] wrote.
    ///
    /// # Errors
    ///
    /// [`StateError`] if the bytes are not a state of this environment.
    fn load(&mut self, r: &mut StateReader<'_>) -> Result<(), StateError>;

    /// Starts an episode like [`Env::reset`], but with recorded draws of another implementation's
    /// generator in place of a stream.
    ///
    /// # Errors
    ///
    /// [`Error::NoDraws`] if the environment cannot be driven so; [`Error::DrawCount`] or
    /// [`Error::Draw`] if the draws are not those of a start of this environment.
    fn reset_recorded(&mut self, _draws: &[f64], _obs: &mut [f32]) -> Result<(), Error> {
        Err(Error::NoDraws)
    }

    /// Acts like [`Env::step`], but with recorded draws in place of a stream.
    ///
    /// # Errors
    ///
    /// As for [`Env::reset_recorded`].
    fn step_recorded(
        &mut self,
        _action: &[f32],
        _draws: &[f64],
        _obs: &mut [f32],
    ) -> Result<Step, Error> {
        Err(Error::NoDraws)
    }

    /// The exact model of the environment, without its time limit, if it is a table.
    fn table(&self) -> Option<&TransitionTable> {
        None
    }

    /// The physical state in the form that recorded trajectories hold, if the environment has one.
    fn state(&self) -> Option<Vec<f64>> {
        None
    }

    /// Overwrites the physical state, as if an episode had started in it.
    ///
    /// # Errors
    ///
    /// [`Error::NoState`] if the environment does not offer it; [`Error::StateLength`].
    fn set_state(&mut self, _state: &[f64]) -> Result<(), Error> {
        Err(Error::NoState)
    }
}

impl<E: Env + ?Sized> Env for Box<E> {
    fn obs_space(&self) -> &Space {
        (**self).obs_space()
    }

    fn action_space(&self) -> &Space {
        (**self).action_space()
    }

    fn reset(&mut self, stream: &mut Stream, obs: &mut [f32]) {
        (**self).reset(stream, obs);
    }

    fn step(&mut self, action: &[f32], stream: &mut Stream, obs: &mut [f32]) -> Step {
        (**self).step(action, stream, obs)
    }

    fn action_mask(&self, mask: &mut [bool]) -> bool {
        (**self).action_mask(mask)
    }

    fn save(&self, w: &mut StateWriter) {
        (**self).save(w);
    }

    fn load(&mut self, r: &mut StateReader<'_>) -> Result<(), StateError> {
        (**self).load(r)
    }

    fn reset_recorded(&mut self, draws: &[f64], obs: &mut [f32]) -> Result<(), Error> {
        (**self).reset_recorded(draws, obs)
    }

    fn step_recorded(
        &mut self,
        action: &[f32],
        draws: &[f64],
        obs: &mut [f32],
    ) -> Result<Step, Error> {
        (**self).step_recorded(action, draws, obs)
    }

    fn table(&self) -> Option<&TransitionTable> {
        (**self).table()
    }

    fn state(&self) -> Option<Vec<f64>> {
        (**self).state()
    }

    fn set_state(&mut self, state: &[f64]) -> Result<(), Error> {
        (**self).set_state(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_end_has_ended() {
        assert!(!Outcome::Continue.ended());
        assert!(Outcome::Terminated.ended());
        assert!(Outcome::Truncated.ended());
        assert_eq!(Outcome::default(), Outcome::Continue);
    }
}
