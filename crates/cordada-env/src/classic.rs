//! Classic control: the five small physical systems of Gymnasium, bit for bit on the same libm, and
//! two of them without velocities, for policies with a memory.
//! The order of every operation is Gymnasium's, and so is the width of every intermediate result
//! (`NumPy` 2 keeps `f32` where a Python number meets an `f32`). Initial states have Gymnasium's
//! distribution, with random numbers of our own.

use crate::error::Error;
use crate::state::{StateError, StateReader, StateWriter, expect_name};

crate::registry::environments! {
    cartpole,
    cartpole_no_vel,
    mountain_car,
    mountain_car_continuous,
    acrobot,
    pendulum,
    pendulum_no_vel,
}

/// The index in a discrete action, or NaN for anything that is not an index below `n`: a wrong
/// action must show, not pass for another one.
#[inline]
fn index(action: f32, n: u8) -> f64 {
    // The cast saturates, and turns NaN into 0, so only an index comes back as itself.
    let index = action as u8;
    if f32::from(index) == action && index < n { f64::from(index) } else { f64::NAN }
}

/// Overwrites a state from a slice of the same length.
fn overwrite<const N: usize>(state: &mut [f64; N], from: &[f64]) -> Result<(), Error> {
    let wrong_length = |_| Error::StateLength { expected: N, found: from.len() };
    *state = from.try_into().map_err(wrong_length)?;
    Ok(())
}

fn save_state(w: &mut StateWriter, name: &'static str, state: &[f64]) {
    w.str(name);
    w.f64s(state);
}

fn load_state(
    r: &mut StateReader<'_>,
    name: &'static str,
    state: &mut [f64],
) -> Result<(), StateError> {
    expect_name(r, name)?;
    r.f64s_into(state)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::find;

    #[test]
    fn only_indices_are_actions() {
        assert_eq!(index(2.0, 3), 2.0);
        for wrong in [-1.0, 3.0, 0.5, f32::NAN, f32::INFINITY] {
            assert!(index(wrong, 3).is_nan(), "{wrong}");
        }
    }

    #[test]
    fn a_state_of_another_environment_is_refused() {
        let mut w = StateWriter::new();
        (find("MountainCar-v0").unwrap().make)().save(&mut w);
        let bytes = w.into_bytes();
        let mut other = (find("MountainCarContinuous-v0").unwrap().make)();
        let error = other.load(&mut StateReader::new(&bytes)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "saved state was made with the environment MountainCar-v0, this run has \
             MountainCarContinuous-v0"
        );
    }

    #[test]
    fn a_state_of_another_length_is_refused() {
        let mut env = (find("CartPole-v1").unwrap().make)();
        let error = env.set_state(&[0.0; 3]).unwrap_err();
        assert!(matches!(error, Error::StateLength { expected: 4, found: 3 }), "{error}");
    }
}
