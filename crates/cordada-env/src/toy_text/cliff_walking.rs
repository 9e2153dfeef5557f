//! `CliffWalking-v1`: walk along a cliff, fast or far from its edge.

use serde::Deserialize;

use super::neighbor;
use super::table::{Transition, TransitionTable};
use super::table_env::TableEnv;
use crate::env::Env;
use crate::error::Error;
use crate::registry::{EnvSpec, parse};
use crate::wrapper::pass_on;

/// Entry in the list of environments.
pub const SPEC: EnvSpec = EnvSpec {
    name: NAME,
    aliases: &["CliffWalking"],
    source: "Gymnasium 1.4.0, CliffWalking-v1; Sutton and Barto 2018, example 6.6",
    summary: "walk along a cliff; −1 per step, −100 and back to the start for a fall",
    max_episode_steps: None,
    reward_threshold: None,
    make: || Box::new(CliffWalking::new()),
    make_with: Some(|options| Ok(Box::new(CliffWalking::with_options(parse(NAME, options)?)))),
};

const NAME: &str = "CliffWalking-v1";
const ROWS: usize = 4;
const COLUMNS: usize = 12;
const START: usize = 36; // row 3, column 0
const GOAL: usize = 47; // row 3, column 11

/// What the cliff is like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CliffWalkingOptions {
    /// Whether one slips to either side, with a probability of 1/3 each. Default: false.
    pub is_slippery: bool,
}

/// A walk in a grid of 4 rows and 12 columns from the lower left corner to the lower right one;
/// between the two is the cliff, and a fall leads back to the start.
///
/// Observation: row · 12 + column. Actions: 0 up, 1 right, 2 down, 3 left. Every step is worth −1,
/// a fall −100. Terminated at the goal; there is no time limit.
///
/// # Source
///
/// Gymnasium 1.4.0, `CliffWalkingEnv`, with the outcomes in its order.
#[derive(Clone, Debug)]
pub struct CliffWalking {
    inner: TableEnv,
}

impl CliffWalking {
    /// The cliff on a dry day.
    pub fn new() -> Self {
        Self::with_options(CliffWalkingOptions::default())
    }

    /// The cliff with options.
    #[allow(clippy::missing_panics_doc, reason = "either table is valid")]
    pub fn with_options(options: CliffWalkingOptions) -> Self {
        let table = table(options.is_slippery).expect("the table is valid");
        Self { inner: TableEnv::new(NAME, table) }
    }

    /// The transition table.
    pub fn table(&self) -> &TransitionTable {
        self.inner.table()
    }
}

impl Default for CliffWalking {
    fn default() -> Self {
        Self::new()
    }
}

impl Env for CliffWalking {
    pass_on!(obs_space, action_space, reset, step, recorded, table, persist, state);
}

/// Directions (rows, columns) of up, right, down, left.
const MOVES: [(isize, isize); 4] = [(-1, 0), (0, 1), (1, 0), (0, -1)];

fn table(is_slippery: bool) -> Result<TransitionTable, Error> {
    let mut initial = vec![0.0; ROWS * COLUMNS];
    initial[START] = 1.0;
    TransitionTable::new(MOVES.len(), initial, |state, action| {
        let at = (state / COLUMNS, state % COLUMNS);
        let sides = [(action + 3) % 4, action, (action + 1) % 4];
        let directions = if is_slippery { &sides[..] } else { &sides[1..2] };
        let probability = 1.0 / directions.len() as f64;
        let enter = |&direction: &usize| {
            let (row, column) = neighbor(at, MOVES[direction], (ROWS, COLUMNS));
            let next_state = row * COLUMNS + column;
            if (START + 1..GOAL).contains(&next_state) {
                return Transition {
                    probability,
                    next_state: START,
                    reward: -100.0,
                    terminated: false,
                };
            }
            Transition { probability, next_state, reward: -1.0, terminated: next_state == GOAL }
        };
        directions.iter().map(enter).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(o: &Transition) -> (usize, f64, bool) {
        (o.next_state, o.reward, o.terminated)
    }

    #[test]
    fn a_fall_leads_back_and_the_goal_ends() {
        let cliff = CliffWalking::new();
        let shown = |state, action| shown(&cliff.table().outcomes(state, action)[0]);
        assert_eq!(shown(36, 1), (36, -100.0, false)); // off the start
        assert_eq!(shown(34, 2), (36, -100.0, false)); // down from above column 10
        assert_eq!(shown(35, 2), (47, -1.0, true));
        assert_eq!(shown(36, 0), (24, -1.0, false));
        assert_eq!(shown(0, 3), (0, -1.0, false));
    }

    #[test]
    fn the_best_way_takes_thirteen_steps_along_the_edge() {
        let (value, _) = CliffWalking::new().table().value_iteration(1.0, 1e-12).unwrap();
        assert_eq!(value[36], -13.0);
    }

    #[test]
    fn one_slips_to_either_side() {
        let cliff = CliffWalking::with_options(CliffWalkingOptions { is_slippery: true });
        let list = cliff.table().outcomes(25, 1);
        // Row 2, column 1: right is 26, up 13, down the cliff.
        let want = [(13, -1.0, false), (26, -1.0, false), (36, -100.0, false)];
        assert!(list.iter().map(shown).eq(want), "{list:?}");
        assert!(list.iter().all(|o| o.probability == 1.0 / 3.0));
    }
}
