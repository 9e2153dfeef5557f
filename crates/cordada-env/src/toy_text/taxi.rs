//! `Taxi-v4`: fetch a passenger and bring him where he wants to go.

use serde::Deserialize;

use super::neighbor;
use super::table::{Transition, TransitionTable};
use super::table_env::TableEnv;
use crate::draws::Draws;
use crate::env::{Env, Step};
use crate::error::Error;
use crate::registry::{EnvSpec, parse};
use crate::state::{StateError, StateReader, StateWriter};
use crate::stream::Stream;
use crate::wrapper::pass_on;

/// Entry in the list of environments.
pub const SPEC: EnvSpec = EnvSpec {
    name: NAME,
    aliases: &["Taxi"],
    source: "Gymnasium 1.4.0, Taxi-v4; Dietterich 2000, doi:10.1613/jair.639",
    summary: "fetch a passenger and bring him to his destination; −1 per step, +20 at the end",
    max_episode_steps: Some(200),
    reward_threshold: Some(8.0),
    make: || Box::new(Taxi::new()),
    make_with: Some(|options| Ok(Box::new(Taxi::with_options(&parse(NAME, options)?)?))),
};

const NAME: &str = "Taxi-v4";
const SIZE: usize = 5;
const NUM_STATES: usize = 500;
const NUM_ACTIONS: usize = 6;

/// The streets: `:` between two cells is open, `|` a wall.
const STREETS: [&str; SIZE] =
    ["|R: | : :G|", "| : | : : |", "| : : : : |", "| | : | : |", "|Y| : |B: |"];

/// The four places, as (row, column): red, green, yellow, blue.
const PLACES: [(usize, usize); 4] = [(0, 0), (0, 4), (4, 0), (4, 3)];

/// The passenger's place when he is in the taxi.
const IN_TAXI: usize = 4;

/// What the day is like.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TaxiOptions {
    /// Whether the taxi may drift to either side of where it drives. Default: false.
    pub is_rainy: bool,
    /// Probability of going where one drives, in rain; the rest is shared by the two sides. In
    /// [0, 1]; default: 0.8.
    pub rainy_probability: f64,
    /// Whether the passenger may change his mind once, with the first move of the taxi that
    /// carries him. Default: false.
    pub fickle_passenger: bool,
    /// Probability that he does. In [0, 1]; default: 0.3.
    pub fickle_probability: f64,
    /// Whether [`Env::action_mask`] allows only actions that change something, which makes the
    /// task easier. Gymnasium offers this mask in `info`, and plays without. Default: false.
    pub mask: bool,
}

impl Default for TaxiOptions {
    fn default() -> Self {
        Self {
            is_rainy: false,
            rainy_probability: 0.8,
            fickle_passenger: false,
            fickle_probability: 0.3,
            mask: false,
        }
    }
}

/// What a state of [`Taxi`] stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaxiState {
    /// Row of the taxi, 0 to 4 from the top.
    pub row: usize,
    /// Column of the taxi, 0 to 4 from the left.
    pub column: usize,
    /// Place of the passenger: 0 red, 1 green, 2 yellow, 3 blue, 4 in the taxi.
    pub passenger: usize,
    /// Where he wants to go, 0 to 3.
    pub destination: usize,
}

impl TaxiState {
    /// The state's index: ((row · 5 + column) · 5 + passenger) · 4 + destination.
    pub fn encode(self) -> usize {
        ((self.row * SIZE + self.column) * 5 + self.passenger) * 4 + self.destination
    }

    /// The state of an index below 500.
    pub fn decode(index: usize) -> Self {
        Self {
            row: index / 100,
            column: index / 20 % SIZE,
            passenger: index / 4 % 5,
            destination: index % 4,
        }
    }

    /// The place that the taxi is at, if it is at one.
    fn place(self) -> Option<usize> {
        PLACES.iter().position(|&place| place == (self.row, self.column))
    }

    /// The state after driving south, north, east or west (0 to 3), or none where a wall or the
    /// border is in the way.
    fn driven(self, direction: usize) -> Option<Self> {
        let street = STREETS[self.row].as_bytes();
        let open = match direction {
            2 => street[2 * self.column + 2] == b':',
            3 => street[2 * self.column] == b':',
            _ => true,
        };
        let (row, column) = neighbor((self.row, self.column), DIRECTIONS[direction], (SIZE, SIZE));
        let moved = (row, column) != (self.row, self.column);
        (open && moved).then_some(Self { row, column, ..self })
    }

    /// Which actions change anything. Picking up and dropping off do so only where allowed.
    pub fn useful_actions(self) -> [bool; NUM_ACTIONS] {
        let drive = |direction| self.driven(direction).is_some();
        let waits_here = self.passenger != IN_TAXI && self.place() == Some(self.passenger);
        let can_leave = self.passenger == IN_TAXI && self.place().is_some();
        [drive(0), drive(1), drive(2), drive(3), waits_here, can_leave]
    }
}

/// Directions (rows, columns) of south, north, east, west.
const DIRECTIONS: [(isize, isize); 4] = [(1, 0), (-1, 0), (0, 1), (0, -1)];

/// Left and right of each direction.
const SIDES: [[usize; 2]; 4] = [[2, 3], [3, 2], [1, 0], [0, 1]];

/// A taxi in a city of 5 times 5 cells with walls and four places.
///
/// Observation: see [`TaxiState`]. Actions: 0 south, 1 north, 2 east, 3 west, 4 pick up, 5 drop
/// off. Every step is worth −1; picking up or dropping off where that is impossible −10; dropping
/// off at the destination +20, and the episode ends.
///
/// A fickle passenger's change of mind is not in the table, as it is not in Gymnasium's.
///
/// # Source
///
/// Gymnasium 1.4.0, `TaxiEnv`, with the outcomes in its order.
#[derive(Clone, Debug)]
pub struct Taxi {
    inner: TableEnv,
    options: TaxiOptions,
    /// Whether the passenger will change his mind with the first move.
    about_to_change: bool,
}

impl Taxi {
    /// A dry day, a passenger who knows what he wants.
    #[allow(clippy::missing_panics_doc, reason = "constant options never fail")]
    pub fn new() -> Self {
        Self::with_options(&TaxiOptions::default()).expect("the default options are valid")
    }

    /// A taxi with options.
    ///
    /// # Errors
    ///
    /// [`Error::Option`] for a probability that is not in [0, 1].
    pub fn with_options(options: &TaxiOptions) -> Result<Self, Error> {
        for (option, value) in [
            ("rainy_probability", options.rainy_probability),
            ("fickle_probability", options.fickle_probability),
        ] {
            if !(0.0..=1.0).contains(&value) {
                return Err(Error::Option { option, value, range: "from 0 to 1" });
            }
        }
        let inner = TableEnv::new(NAME, table(options)?);
        Ok(Self { inner, options: options.clone(), about_to_change: false })
    }

    /// The transition table.
    pub fn table(&self) -> &TransitionTable {
        self.inner.table()
    }

    /// The destinations that a fickle passenger may now turn to, if the move from the state
    /// `before` makes him change his mind.
    fn other_destinations(&self, before: Option<usize>) -> Option<[usize; 3]> {
        let (from, to) = (before?, self.inner.index()?);
        let (from, to) = (TaxiState::decode(from), TaxiState::decode(to));
        let moved = (from.row, from.column) != (to.row, to.column);
        if !(self.about_to_change && from.passenger == IN_TAXI && moved) {
            return None;
        }
        // The three that are not his, in ascending order.
        Some([0, 1, 2].map(|i| i + usize::from(i >= from.destination)))
    }

    fn change_destination(&mut self, destination: usize, obs: &mut [f32]) {
        self.about_to_change = false;
        if let Some(index) = self.inner.index() {
            self.inner.go_to(TaxiState { destination, ..TaxiState::decode(index) }.encode(), obs);
        }
    }
}

impl Default for Taxi {
    fn default() -> Self {
        Self::new()
    }
}

impl Env for Taxi {
    pass_on!(obs_space, action_space, table);

    fn reset(&mut self, stream: &mut Stream, obs: &mut [f32]) {
        self.inner.reset(stream, obs);
        self.about_to_change =
            self.options.fickle_passenger && stream.uniform() < self.options.fickle_probability;
    }

    fn step(&mut self, action: &[f32], stream: &mut Stream, obs: &mut [f32]) -> Step {
        let before = self.inner.index();
        let step = self.inner.step(action, stream, obs);
        if let Some(others) = self.other_destinations(before) {
            self.change_destination(others[stream.below(others.len())], obs);
        }
        step
    }

    fn reset_recorded(&mut self, draws: &[f64], obs: &mut [f32]) -> Result<(), Error> {
        let mut draws = Draws::new(draws);
        self.inner.begin(draws.uniform()?, obs);
        self.about_to_change =
            self.options.fickle_passenger && draws.uniform()? < self.options.fickle_probability;
        draws.finish()
    }

    fn step_recorded(
        &mut self,
        action: &[f32],
        draws: &[f64],
        obs: &mut [f32],
    ) -> Result<Step, Error> {
        let mut draws = Draws::new(draws);
        let before = self.inner.index();
        let step = self.inner.act(action, draws.uniform()?, obs);
        if let Some(others) = self.other_destinations(before) {
            let chosen = draws.choice(&others.map(|place| place as f64))?;
            self.change_destination(others[chosen], obs);
        }
        draws.finish()?;
        Ok(step)
    }

    fn action_mask(&self, mask: &mut [bool]) -> bool {
        let index = self.inner.index().filter(|_| self.options.mask);
        if let Some(index) = index {
            mask.copy_from_slice(&TaxiState::decode(index).useful_actions());
        }
        index.is_some()
    }

    fn save(&self, w: &mut StateWriter) {
        self.inner.save(w);
        w.bool(self.about_to_change);
    }

    fn load(&mut self, r: &mut StateReader<'_>) -> Result<(), StateError> {
        self.inner.load(r)?;
        self.about_to_change = r.bool()?;
        Ok(())
    }

    fn state(&self) -> Option<Vec<f64>> {
        self.inner.state()
    }

    fn set_state(&mut self, state: &[f64]) -> Result<(), Error> {
        self.inner.set_state(state)?;
        self.about_to_change = false;
        Ok(())
    }
}

fn table(options: &TaxiOptions) -> Result<TransitionTable, Error> {
    let waiting = |index: usize| {
        let state = TaxiState::decode(index);
        state.passenger != IN_TAXI && state.passenger != state.destination
    };
    let starts = (0..NUM_STATES).filter(|&index| waiting(index)).count() as f64;
    let initial = (0..NUM_STATES).map(|index| if waiting(index) { 1.0 / starts } else { 0.0 });
    TransitionTable::new(NUM_ACTIONS, initial.collect(), |index, action| {
        let state = TaxiState::decode(index);
        match action {
            4 => vec![pick_up(state)],
            5 => vec![drop_off(state)],
            direction => drive(state, direction, options),
        }
    })
}

fn outcome(probability: f64, state: TaxiState, reward: f64) -> Transition {
    Transition { probability, next_state: state.encode(), reward, terminated: false }
}

fn drive(state: TaxiState, direction: usize, options: &TaxiOptions) -> Vec<Transition> {
    let ahead = state.driven(direction);
    if !options.is_rainy {
        return vec![outcome(1.0, ahead.unwrap_or(state), -1.0)];
    }
    let side = (1.0 - options.rainy_probability) / 2.0;
    // A taxi that cannot go ahead does not drift either.
    let drift = |side: usize| ahead.and_then(|_| state.driven(side)).unwrap_or(state);
    let [left, right] = SIDES[direction];
    vec![
        outcome(options.rainy_probability, ahead.unwrap_or(state), -1.0),
        outcome(side, drift(left), -1.0),
        outcome(side, drift(right), -1.0),
    ]
}

fn pick_up(state: TaxiState) -> Transition {
    if state.passenger != IN_TAXI && state.place() == Some(state.passenger) {
        return outcome(1.0, TaxiState { passenger: IN_TAXI, ..state }, -1.0);
    }
    outcome(1.0, state, -10.0)
}

fn drop_off(state: TaxiState) -> Transition {
    match state.place() {
        Some(place) if state.passenger == IN_TAXI => {
            let left = TaxiState { passenger: place, ..state };
            let arrived = place == state.destination;
            let reward = if arrived { 20.0 } else { -1.0 };
            Transition { terminated: arrived, ..outcome(1.0, left, reward) }
        }
        _ => outcome(1.0, state, -10.0),
    }
}

#[cfg(test)]
mod tests;
