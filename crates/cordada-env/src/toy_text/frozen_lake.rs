//! `FrozenLake-v1`: cross a frozen lake without falling into a hole; the ice is slippery.

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
    aliases: &["FrozenLake"],
    source: "Gymnasium 1.4.0, FrozenLake-v1",
    summary: "cross a slippery frozen lake of 4 times 4 cells; +1 at the goal",
    max_episode_steps: Some(100),
    reward_threshold: Some(0.70),
    make: || Box::new(FrozenLake::new()),
    make_with: Some(|options| make_with(NAME, MapName::Small, options)),
};

const NAME: &str = "FrozenLake-v1";

/// The map of 4 times 4 cells.
pub const MAP_4X4: [&str; 4] = ["SFFF", "FHFH", "FFFH", "HFFG"];

/// The map of 8 times 8 cells.
pub const MAP_8X8: [&str; 8] = [
    "SFFFFFFF", //
    "FFFFFFFF", //
    "FFFHFFFF", //
    "FFFFFHFF", //
    "FFFHFFFF", //
    "FHHFFFHF", //
    "FHFFHFHF", //
    "FFFHFFFG", //
];

/// What a frozen lake is like.
#[derive(Clone, Debug, PartialEq)]
pub struct FrozenLakeOptions {
    /// Rows of cells: `S` a start, `F` ice, `H` a hole, `G` a goal. Default: [`MAP_4X4`].
    pub map: Vec<String>,
    /// Whether one may slip to either side. Default: true.
    pub is_slippery: bool,
    /// Probability of going where one means to, on slippery ice; the rest is shared by the two
    /// sides. In [0, 1]; default: 1/3.
    pub success_rate: f64,
    /// Reward for entering a goal, a hole, and any other cell. Default: 1, 0, 0.
    pub reward_schedule: [f64; 3],
}

impl Default for FrozenLakeOptions {
    fn default() -> Self {
        Self {
            map: MAP_4X4.map(String::from).to_vec(),
            is_slippery: true,
            success_rate: 1.0 / 3.0,
            reward_schedule: [1.0, 0.0, 0.0],
        }
    }
}

/// A walk over ice from a start to a goal. Holes and goals end the episode.
///
/// Observation: row · columns + column. Actions: 0 left, 1 down, 2 right, 3 up; on slippery ice
/// one goes there or, with equal probabilities, to either side of it. The border stops. Once the
/// episode has ended, nothing moves any more, and further steps are worth 0.
///
/// # Source
///
/// Gymnasium 1.4.0, `FrozenLakeEnv`, with the outcomes in its order.
#[derive(Clone, Debug)]
pub struct FrozenLake {
    inner: TableEnv,
}

impl FrozenLake {
    /// The lake of 4 times 4 cells, slippery.
    #[allow(clippy::missing_panics_doc, reason = "constant options never fail")]
    pub fn new() -> Self {
        Self::with_options(&FrozenLakeOptions::default()).expect("the default options are valid")
    }

    /// A lake of one's own.
    ///
    /// # Errors
    ///
    /// [`Error::Map`] if the map's rows differ in length, hold other letters than S, F, H and G, or
    /// no S; [`Error::Option`] if `success_rate` is not in [0, 1].
    pub fn with_options(options: &FrozenLakeOptions) -> Result<Self, Error> {
        Self::named(NAME, options)
    }

    /// The same under another name.
    pub(super) fn named(name: &'static str, options: &FrozenLakeOptions) -> Result<Self, Error> {
        Ok(Self { inner: TableEnv::new(name, table(options)?) })
    }

    /// The transition table.
    pub fn table(&self) -> &TransitionTable {
        self.inner.table()
    }
}

impl Default for FrozenLake {
    fn default() -> Self {
        Self::new()
    }
}

impl Env for FrozenLake {
    pass_on!(obs_space, action_space, reset, step, recorded, table, persist, state);
}

/// Directions (rows, columns) of left, down, right, up.
const MOVES: [(isize, isize); 4] = [(0, -1), (1, 0), (0, 1), (-1, 0)];

fn table(options: &FrozenLakeOptions) -> Result<TransitionTable, Error> {
    let cells = cells(&options.map)?;
    let columns = options.map[0].len();
    let size = (cells.len() / columns, columns);
    let success = options.success_rate;
    if !(0.0..=1.0).contains(&success) {
        let option = "success_rate";
        return Err(Error::Option { option, value: success, range: "from 0 to 1" });
    }
    let side = (1.0 - success) / 2.0;
    let [goal, hole, ice] = options.reward_schedule;
    let starts: Vec<f64> = cells.iter().map(|&c| if c == b'S' { 1.0 } else { 0.0 }).collect();
    let num_starts: f64 = starts.iter().sum();
    let initial = starts.iter().map(|start| start / num_starts).collect();

    let enter = |state: usize, direction: usize, probability: f64| {
        let (row, column) = neighbor((state / columns, state % columns), MOVES[direction], size);
        let next_state = row * columns + column;
        let (reward, terminated) = match cells[next_state] {
            b'G' => (goal, true),
            b'H' => (hole, true),
            _ => (ice, false),
        };
        Transition { probability, next_state, reward, terminated }
    };
    TransitionTable::new(MOVES.len(), initial, |state, action| {
        if matches!(cells[state], b'G' | b'H') {
            let stay =
                Transition { probability: 1.0, next_state: state, reward: 0.0, terminated: true };
            return vec![stay];
        }
        if !options.is_slippery {
            return vec![enter(state, action, 1.0)];
        }
        vec![
            enter(state, (action + 3) % 4, side),
            enter(state, action, success),
            enter(state, (action + 1) % 4, side),
        ]
    })
}

/// The letters of a map, row by row.
fn cells(map: &[String]) -> Result<Vec<u8>, Error> {
    let columns = map.first().map_or(0, String::len);
    let wrong = |row: usize, range| {
        let text = map.get(row).cloned().unwrap_or_default();
        Error::Map { row, text, range }
    };
    if columns == 0 {
        return Err(wrong(0, "at least one cell long"));
    }
    for (row, text) in map.iter().enumerate() {
        if text.bytes().any(|cell| !b"SFHG".contains(&cell)) {
            return Err(wrong(row, "of the letters S, F, H and G only"));
        }
        if text.len() != columns {
            return Err(wrong(row, "as long as the first"));
        }
    }
    let cells: Vec<u8> = map.iter().flat_map(|row| row.bytes()).collect();
    if cells.contains(&b'S') {
        return Ok(cells);
    }
    Err(wrong(0, "with an S, or one of the rows below it"))
}

/// The maps that have a name in Gymnasium.
#[derive(Clone, Copy, Deserialize)]
pub(super) enum MapName {
    #[serde(rename = "4x4")]
    Small,
    #[serde(rename = "8x8")]
    Large,
}

impl MapName {
    pub(super) fn rows(self) -> Vec<String> {
        match self {
            Self::Small => MAP_4X4.map(String::from).to_vec(),
            Self::Large => MAP_8X8.map(String::from).to_vec(),
        }
    }
}

/// Gymnasium's arguments. A `null` is as good as nothing; a map of its own wins over a named one.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Arguments {
    map_name: Option<MapName>,
    desc: Option<Vec<String>>,
    is_slippery: Option<bool>,
    success_rate: Option<f64>,
    reward_schedule: Option<[f64; 3]>,
}

pub(super) fn make_with(
    name: &'static str,
    map: MapName,
    options: &str,
) -> Result<Box<dyn Env>, Error> {
    let given: Arguments = parse(name, options)?;
    let usual = FrozenLakeOptions::default();
    let options = FrozenLakeOptions {
        map: given.desc.unwrap_or_else(|| given.map_name.unwrap_or(map).rows()),
        is_slippery: given.is_slippery.unwrap_or(usual.is_slippery),
        success_rate: given.success_rate.unwrap_or(usual.success_rate),
        reward_schedule: given.reward_schedule.unwrap_or(usual.reward_schedule),
    };
    Ok(Box::new(FrozenLake::named(name, &options)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcomes(options: &FrozenLakeOptions, state: usize, action: usize) -> Vec<(f64, usize)> {
        let lake = FrozenLake::with_options(options).unwrap();
        let list = lake.table().outcomes(state, action);
        list.iter().map(|o| (o.probability, o.next_state)).collect()
    }

    #[test]
    fn one_slips_to_either_side_by_hand() {
        // State 9 is row 2, column 1. Right is 10; its sides are down (13) and up (5, a hole).
        let mut options = FrozenLakeOptions { success_rate: 0.5, ..Default::default() };
        assert_eq!(outcomes(&options, 9, 2), [(0.25, 13), (0.5, 10), (0.25, 5)]);
        // Left's sides are up, before it, and down, after it.
        assert_eq!(outcomes(&options, 9, 0), [(0.25, 5), (0.5, 8), (0.25, 13)]);
        options.is_slippery = false;
        assert_eq!(outcomes(&options, 9, 3), [(1.0, 5)]);
        // Borders stop: from state 0 to the left and up.
        assert_eq!(outcomes(&options, 0, 0), [(1.0, 0)]);
        assert_eq!(outcomes(&options, 0, 3), [(1.0, 0)]);
        // The goal keeps.
        assert_eq!(outcomes(&options, 15, 1), [(1.0, 15)]);
    }

    #[test]
    fn rewards_come_with_entering_a_cell() {
        let options = FrozenLakeOptions {
            map: vec!["SF".into(), "GH".into()],
            is_slippery: false,
            reward_schedule: [10.0, -5.0, -0.5],
            ..Default::default()
        };
        let lake = FrozenLake::with_options(&options).unwrap();
        let shown = |state, action| {
            let outcome = lake.table().outcomes(state, action)[0];
            (outcome.reward, outcome.terminated)
        };
        assert_eq!(
            [shown(0, 2), shown(0, 1), shown(1, 1)],
            [(-0.5, false), (10.0, true), (-5.0, true)]
        );
        assert_eq!(shown(2, 0), (0.0, true), "after the end");
    }

    #[test]
    fn every_start_is_equally_likely() {
        let map = vec!["SFS".into(), "FGS".into()];
        let lake = FrozenLake::with_options(&FrozenLakeOptions { map, ..Default::default() });
        let third = 1.0 / 3.0;
        assert_eq!(lake.unwrap().table().initial(), [third, 0.0, third, 0.0, 0.0, third]);
    }

    #[test]
    fn impossible_maps_are_refused() {
        let error = |rows: &[&str]| {
            let map = rows.iter().map(ToString::to_string).collect();
            let options = FrozenLakeOptions { map, ..Default::default() };
            FrozenLake::with_options(&options).unwrap_err().to_string()
        };
        assert_eq!(error(&[]), "row 0 of the map is \"\", it has to be at least one cell long");
        assert_eq!(
            error(&["SF", "FX"]),
            "row 1 of the map is \"FX\", it has to be of the letters S, F, H and G only"
        );
        assert_eq!(
            error(&["SF", "FFG"]),
            "row 1 of the map is \"FFG\", it has to be as long as the first"
        );
        assert!(error(&["FF", "FG"]).ends_with("with an S, or one of the rows below it"));
    }
}
