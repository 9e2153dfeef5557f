//! Toy text: Gymnasium's small environments with countable states, exactly. Those that are tables
//! give them away ([`table::TransitionTable`]), for dynamic programming. Random outcomes have
//! Gymnasium's distribution, with random numbers of our own.

pub mod planning;
pub mod table;
pub mod table_env;

crate::registry::environments! {
    frozen_lake,
    frozen_lake_8x8,
    taxi,
    cliff_walking,
    blackjack,
}

/// The index in a discrete action, if it is an index below `n`.
#[inline]
fn choice(action: f32, n: usize) -> Option<usize> {
    // The cast saturates, and turns NaN into 0, so only an index comes back as itself.
    let index = action as usize;
    (index as f32 == action && index < n).then_some(index)
}

/// The four neighbors of a cell in a grid of `rows` times `columns`: one step in a direction
/// (rows, columns), stopped by the border.
fn neighbor(
    (row, column): (usize, usize),
    (down, right): (isize, isize),
    (rows, columns): (usize, usize),
) -> (usize, usize) {
    let moved = |at: usize, by: isize, end: usize| at.saturating_add_signed(by).min(end - 1);
    (moved(row, down, rows), moved(column, right, columns))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{CheckOptions, check};
    use crate::env::Env;
    use crate::registry::find;

    #[test]
    fn only_indices_are_actions() {
        assert_eq!((choice(2.0, 3), choice(-0.0, 3)), (Some(2), Some(0)));
        for wrong in [-1.0, 3.0, 0.5, f32::NAN, f32::INFINITY] {
            assert_eq!(choice(wrong, 3), None, "{wrong}");
        }
    }

    #[test]
    fn borders_stop() {
        assert_eq!(neighbor((0, 2), (-1, 0), (2, 3)), (0, 2));
        assert_eq!(neighbor((0, 2), (0, 1), (2, 3)), (0, 2));
        assert_eq!(neighbor((0, 2), (1, 0), (2, 3)), (1, 2));
        assert_eq!(neighbor((0, 2), (0, -1), (2, 3)), (0, 1));
    }

    #[test]
    fn every_variant_keeps_the_contract() {
        let variants = [
            ("FrozenLake-v1", r#"{"is_slippery": false}"#),
            ("FrozenLake-v1", r#"{"success_rate": 0.8, "reward_schedule": [10, -1, -0.1]}"#),
            ("FrozenLake-v1", r#"{"desc": ["SFS", "HFG"], "map_name": null}"#),
            ("FrozenLake8x8-v1", r#"{"map_name": "4x4"}"#),
            ("Taxi-v4", r#"{"is_rainy": true, "rainy_probability": 0.5}"#),
            ("Taxi-v4", r#"{"fickle_passenger": true, "fickle_probability": 1}"#),
            ("Taxi-v4", r#"{"mask": true}"#),
            ("CliffWalking-v1", r#"{"is_slippery": true}"#),
            ("Blackjack-v1", r#"{"natural": true, "sab": false}"#),
        ];
        for (name, options) in variants {
            let spec = find(name).unwrap();
            let make = || -> Box<dyn Env> { spec.build_with(options).unwrap() };
            let report = check(make, &CheckOptions::default());
            assert!(report.passed(), "{name} {options}: {report}");
        }
    }
}
