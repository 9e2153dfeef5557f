//! `FrozenLake8x8-v1`: the frozen lake on the larger map, with more time.

use super::frozen_lake::{self, FrozenLake, FrozenLakeOptions, MapName};
use crate::registry::EnvSpec;

/// Entry in the list of environments.
pub const SPEC: EnvSpec = EnvSpec {
    name: NAME,
    aliases: &["FrozenLake8x8"],
    source: "Gymnasium 1.4.0, FrozenLake8x8-v1",
    summary: "cross a slippery frozen lake of 8 times 8 cells; +1 at the goal",
    max_episode_steps: Some(200),
    reward_threshold: Some(0.85),
    make: || Box::new(frozen_lake_8x8()),
    make_with: Some(|options| frozen_lake::make_with(NAME, MapName::Large, options)),
};

const NAME: &str = "FrozenLake8x8-v1";

/// The lake of 8 times 8 cells, slippery.
#[allow(clippy::missing_panics_doc, reason = "constant options never fail")]
pub fn frozen_lake_8x8() -> FrozenLake {
    let options = FrozenLakeOptions { map: MapName::Large.rows(), ..FrozenLakeOptions::default() };
    FrozenLake::named(NAME, &options).expect("the options are valid")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_larger_map() {
        let lake = frozen_lake_8x8();
        assert_eq!(lake.table().num_states(), 64);
        // Row 2, column 3 is a hole, entered from the cell above it.
        assert_eq!(lake.table().outcomes(11, 1)[1].next_state, 19);
        assert!(lake.table().outcomes(11, 1)[1].terminated);
    }
}
