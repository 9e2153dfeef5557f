//! The environment that plays a transition table. The tables themselves are made by the
//! environments beside it.

use super::choice;
use super::table::TransitionTable;
use crate::draws::Draws;
use crate::env::{Env, Outcome, Step};
use crate::error::Error;
use crate::space::Space;
use crate::state::{StateError, StateReader, StateWriter, expect_name};
use crate::stream::Stream;

/// Plays a [`TransitionTable`]: one uniform number per reset and one per step decide the outcome.
///
/// Observation: the state's index. After an action that is no index, observation, reward and
/// state are NaN until the next reset.
///
/// # Examples
///
/// ```
/// use cordada_env::toy_text::table_env::TableEnv;
/// use cordada_env::{Env, Stream, Transition, TransitionTable, role};
///
/// // A coin: heads pays 1, tails ends the episode.
/// let side = |reward, terminated| Transition {
///     probability: 0.5,
///     next_state: 0,
///     reward,
///     terminated,
/// };
/// let table = TransitionTable::new(1, vec![1.0], |_, _| vec![side(1.0, false), side(0.0, true)])?;
/// let mut env = TableEnv::new("Coin", table);
/// let mut stream = Stream::new(0, role::ENV, 0);
/// let mut obs = [9.0];
/// env.reset(&mut stream, &mut obs);
/// let step = env.step(&[0.0], &mut stream, &mut obs);
/// assert_eq!(step.outcome.ended(), step.reward == 0.0);
/// # Ok::<(), cordada_env::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct TableEnv {
    name: &'static str,
    table: TransitionTable,
    obs_space: Space,
    action_space: Space,
    /// None after an action that is no index.
    state: Option<usize>,
}

impl TableEnv {
    /// An environment of `table`. Saved states carry `name`, and are refused by an environment of
    /// another name or with another number of states.
    pub fn new(name: &'static str, table: TransitionTable) -> Self {
        let obs_space = Space::Discrete { n: table.num_states() };
        let action_space = Space::Discrete { n: table.num_actions() };
        let state = Some(table.sample_initial(0.0));
        Self { name, table, obs_space, action_space, state }
    }

    /// The table that is played.
    pub fn table(&self) -> &TransitionTable {
        &self.table
    }

    /// The state that it is in, unless a wrong action has lost it.
    pub fn index(&self) -> Option<usize> {
        self.state
    }

    /// Moves to another state.
    pub(super) fn go_to(&mut self, state: usize, obs: &mut [f32]) {
        self.state = Some(state);
        self.observe(obs);
    }

    fn observe(&self, obs: &mut [f32]) {
        obs[0] = self.state.map_or(f32::NAN, |state| state as f32);
    }

    /// Starts in the state that the uniform number `u` decides.
    pub(super) fn begin(&mut self, u: f64, obs: &mut [f32]) {
        self.go_to(self.table.sample_initial(u), obs);
    }

    /// Acts, with the outcome that the uniform number `u` decides.
    pub(super) fn act(&mut self, action: &[f32], u: f64, obs: &mut [f32]) -> Step {
        let action = choice(action[0], self.table.num_actions());
        let Some((state, action)) = self.state.zip(action) else {
            self.state = None;
            self.observe(obs);
            return Step { reward: f64::NAN, outcome: Outcome::Continue };
        };
        let outcome = *self.table.sample(state, action, u);
        self.go_to(outcome.next_state, obs);
        let ended = if outcome.terminated { Outcome::Terminated } else { Outcome::Continue };
        Step { reward: outcome.reward, outcome: ended }
    }
}

/// In saved bytes, the state of an environment that a wrong action has lost.
const LOST: u64 = u64::MAX;

impl Env for TableEnv {
    fn obs_space(&self) -> &Space {
        &self.obs_space
    }

    fn action_space(&self) -> &Space {
        &self.action_space
    }

    fn reset(&mut self, stream: &mut Stream, obs: &mut [f32]) {
        self.begin(stream.uniform(), obs);
    }

    fn step(&mut self, action: &[f32], stream: &mut Stream, obs: &mut [f32]) -> Step {
        self.act(action, stream.uniform(), obs)
    }

    fn reset_recorded(&mut self, draws: &[f64], obs: &mut [f32]) -> Result<(), Error> {
        let mut draws = Draws::new(draws);
        let u = draws.uniform()?;
        draws.finish()?;
        self.begin(u, obs);
        Ok(())
    }

    fn step_recorded(
        &mut self,
        action: &[f32],
        draws: &[f64],
        obs: &mut [f32],
    ) -> Result<Step, Error> {
        let mut draws = Draws::new(draws);
        let u = draws.uniform()?;
        draws.finish()?;
        Ok(self.act(action, u, obs))
    }

    fn table(&self) -> Option<&TransitionTable> {
        Some(&self.table)
    }

    fn save(&self, w: &mut StateWriter) {
        w.str(self.name);
        w.u64(self.table.num_states() as u64);
        w.u64(self.state.map_or(LOST, |state| state as u64));
    }

    fn load(&mut self, r: &mut StateReader<'_>) -> Result<(), StateError> {
        expect_name(r, self.name)?;
        let (ours, saved) = (self.table.num_states() as u64, r.u64()?);
        if ours != saved {
            let (expected, found) = (ours.to_string(), saved.to_string());
            return Err(StateError::Mismatch { what: "a number of states of", expected, found });
        }
        let offset = r.offset();
        self.state = match r.u64()? {
            LOST => None,
            state if state < ours => Some(state as usize),
            _ => return Err(StateError::Value { what: "state of a table", offset }),
        };
        Ok(())
    }

    fn state(&self) -> Option<Vec<f64>> {
        Some(vec![self.state.map_or(f64::NAN, |state| state as f64)])
    }

    fn set_state(&mut self, state: &[f64]) -> Result<(), Error> {
        let &[value] = state else {
            return Err(Error::StateLength { expected: 1, found: state.len() });
        };
        let index = value as usize;
        if index as f64 != value || index >= self.table.num_states() {
            let range = "an index below the number of states";
            return Err(Error::Option { option: "the state", value, range });
        }
        self.state = Some(index);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::frozen_lake::FrozenLake;
    use super::super::table::Transition;
    use super::*;
    use crate::stream::role;

    /// A ring of three states, walked around; entering state 0 ends the episode with +1.
    fn ring() -> TableEnv {
        let table = TransitionTable::new(2, vec![0.0, 1.0, 0.0], |state, action| {
            let next_state = (state + action) % 3;
            let terminated = next_state == 0;
            let reward = if terminated { 1.0 } else { 0.0 };
            vec![Transition { probability: 1.0, next_state, reward, terminated }]
        });
        TableEnv::new("Ring", table.unwrap())
    }

    #[test]
    fn the_table_is_played() {
        let (mut env, mut stream, mut obs) = (ring(), Stream::new(0, role::ENV, 0), [9.0]);
        env.reset(&mut stream, &mut obs);
        assert_eq!((obs, stream.counter()), ([1.0], 1));
        let step = env.step(&[1.0], &mut stream, &mut obs);
        assert_eq!((step, obs), (Step { reward: 0.0, outcome: Outcome::Continue }, [2.0]));
        let step = env.step(&[1.0], &mut stream, &mut obs);
        assert_eq!((step, obs), (Step { reward: 1.0, outcome: Outcome::Terminated }, [0.0]));
        assert_eq!(stream.counter(), 3);
    }

    #[test]
    fn a_lost_state_stays_lost_until_the_reset_also_when_restored() {
        let (mut env, mut stream, mut obs) = (ring(), Stream::new(0, role::ENV, 0), [9.0]);
        let step = env.step(&[2.0], &mut stream, &mut obs);
        assert!(step.reward.is_nan() && obs[0].is_nan());
        let mut w = StateWriter::new();
        env.save(&mut w);
        let mut env = ring();
        env.load(&mut StateReader::new(w.as_bytes())).unwrap();
        assert!(env.step(&[0.0], &mut stream, &mut obs).reward.is_nan());
        env.reset(&mut stream, &mut obs);
        assert_eq!(obs, [1.0]);
    }

    #[test]
    fn states_of_other_tables_are_refused() {
        let saved = |f: &dyn Fn(&mut StateWriter)| {
            let mut w = StateWriter::new();
            f(&mut w);
            ring().load(&mut StateReader::new(w.as_bytes())).unwrap_err().to_string()
        };
        let error = saved(&|w| FrozenLake::new().save(w));
        assert_eq!(
            error,
            "saved state was made with the environment FrozenLake-v1, this run has Ring"
        );
        let error = saved(&|w| {
            w.str("Ring");
            w.u64(4);
        });
        assert_eq!(error, "saved state was made with a number of states of 4, this run has 3");
        let error = saved(&|w| {
            w.str("Ring");
            w.u64(3);
            w.u64(3);
        });
        assert!(error.starts_with("saved state holds an invalid state of a table"), "{error}");
    }

    #[test]
    fn only_states_can_be_set_and_only_uniform_draws_used() {
        let mut env = ring();
        env.set_state(&[2.0]).unwrap();
        assert_eq!(env.index(), Some(2));
        for wrong in [3.0, 0.5, -1.0, f64::NAN] {
            assert!(env.set_state(&[wrong]).is_err(), "{wrong}");
        }
        assert!(matches!(env.set_state(&[]), Err(Error::StateLength { expected: 1, found: 0 })));
        let mut obs = [9.0];
        env.reset_recorded(&[0.5], &mut obs).unwrap();
        assert_eq!(obs, [1.0]);
        assert!(env.reset_recorded(&[0.5, 0.5], &mut obs).is_err());
        assert!(env.step_recorded(&[1.0], &[], &mut obs).is_err());
        assert_eq!(env.index(), Some(1));
    }
}
