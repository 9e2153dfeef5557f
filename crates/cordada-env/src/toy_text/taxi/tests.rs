//! Tests of the taxi: encoding, walls, the passenger's whims.

use super::*;
use crate::env::Outcome;
use crate::stream::role;

fn at(row: usize, column: usize, passenger: usize, destination: usize) -> TaxiState {
    TaxiState { row, column, passenger, destination }
}

#[test]
fn encoding_by_hand() {
    // Gymnasium's example: taxi at (3, 1), passenger at yellow (2), to red (0):
    // ((3 · 5 + 1) · 5 + 2) · 4 + 0 = 328.
    assert_eq!(at(3, 1, 2, 0).encode(), 328);
    for index in 0..NUM_STATES {
        assert_eq!(TaxiState::decode(index).encode(), index);
    }
    assert_eq!(TaxiState::decode(499), at(4, 4, 4, 3));
}

#[test]
fn walls_and_borders_stop() {
    // Row 0 has a wall between columns 1 and 2, row 4 one between 0 and 1.
    assert_eq!(at(0, 1, 0, 1).driven(2), None);
    assert_eq!(at(0, 2, 0, 1).driven(3), None);
    assert_eq!(at(2, 1, 0, 1).driven(2), Some(at(2, 2, 0, 1)));
    assert_eq!(at(4, 0, 0, 1).driven(2), None);
    assert_eq!(at(4, 0, 0, 1).driven(0), None);
    assert_eq!(at(0, 4, 0, 1).driven(2), None);
    assert_eq!(at(4, 0, 0, 1).driven(1), Some(at(3, 0, 0, 1)));
}

#[test]
fn a_fare_by_hand() {
    let (mut taxi, mut obs) = (Taxi::new(), [0.0]);
    let mut stream = Stream::new(0, role::ENV, 0);
    // At (1, 0), the passenger waits at red (0, 0) for yellow (4, 0).
    taxi.set_state(&[at(1, 0, 0, 2).encode() as f64]).unwrap();
    let mut go = |action: f32| {
        let step = taxi.step(&[action], &mut stream, &mut obs);
        (step.reward, step.outcome == Outcome::Terminated, TaxiState::decode(obs[0] as usize))
    };
    assert_eq!(go(4.0), (-10.0, false, at(1, 0, 0, 2))); // not here
    assert_eq!(go(1.0), (-1.0, false, at(0, 0, 0, 2)));
    assert_eq!(go(5.0), (-10.0, false, at(0, 0, 0, 2))); // nobody inside
    assert_eq!(go(4.0), (-1.0, false, at(0, 0, 4, 2)));
    assert_eq!(go(5.0), (-1.0, false, at(0, 0, 0, 2))); // out again, at a place
    assert_eq!(go(4.0), (-1.0, false, at(0, 0, 4, 2)));
    for row in 1..=4 {
        assert_eq!(go(0.0), (-1.0, false, at(row, 0, 4, 2)));
    }
    assert_eq!(go(5.0), (20.0, true, at(4, 0, 2, 2)));
}

#[test]
fn rain_drifts_unless_the_way_is_blocked() {
    let options = TaxiOptions { is_rainy: true, rainy_probability: 0.5, ..TaxiOptions::default() };
    let taxi = Taxi::with_options(&options).unwrap();
    let next = |state: TaxiState, action| -> Vec<(f64, usize, usize)> {
        let list = taxi.table().outcomes(state.encode(), action).iter();
        let shown = list.map(|o| (o.probability, TaxiState::decode(o.next_state)));
        shown.map(|(p, s)| (p, s.row, s.column)).collect()
    };
    // South from the middle; left of it is east.
    assert_eq!(next(at(2, 2, 0, 1), 0), [(0.5, 3, 2), (0.25, 2, 3), (0.25, 2, 1)]);
    // East from the middle; left of it is north.
    assert_eq!(next(at(2, 2, 0, 1), 2), [(0.5, 2, 3), (0.25, 1, 2), (0.25, 3, 2)]);
    // East against the wall of row 0: no drift either.
    assert_eq!(next(at(0, 1, 0, 1), 2), [(0.5, 0, 1), (0.25, 0, 1), (0.25, 0, 1)]);
    // South along that wall: the drift to the east is stopped by it.
    assert_eq!(next(at(0, 1, 0, 1), 0), [(0.5, 1, 1), (0.25, 0, 1), (0.25, 0, 0)]);
}

fn fickle(probability: f64) -> Taxi {
    let fickle_probability = probability;
    let options =
        TaxiOptions { fickle_passenger: true, fickle_probability, ..TaxiOptions::default() };
    Taxi::with_options(&options).unwrap()
}

#[test]
fn a_fickle_passenger_changes_his_mind_once_with_the_first_move() {
    let (mut taxi, mut obs) = (fickle(0.3), [0.0]);
    taxi.reset_recorded(&[0.0, 0.29], &mut obs).unwrap();
    taxi.inner.go_to(at(0, 0, 0, 1).encode(), &mut obs);
    let mut go = |action: f32, draws: &[f64]| {
        let result = taxi.step_recorded(&[action], draws, &mut obs);
        result.map(|_| TaxiState::decode(obs[0] as usize)).map_err(|e| e.to_string())
    };
    assert_eq!(go(4.0, &[0.5]), Ok(at(0, 0, 4, 1))); // picked up: not yet
    assert_eq!(go(1.0, &[0.5]), Ok(at(0, 0, 4, 1))); // against the border: not yet
    // The others are 0, 2 and 3; index 1 is place 2.
    assert_eq!(go(0.0, &[0.5, 1.0, 2.0]), Ok(at(1, 0, 4, 2)));
    assert_eq!(go(0.0, &[0.5]), Ok(at(2, 0, 4, 2))); // only once
    assert!(go(0.0, &[0.5, 1.0, 2.0]).is_err());
    // A draw at or above the probability means that he knows what he wants.
    taxi.reset_recorded(&[0.0, 0.3], &mut obs).unwrap();
    assert!(!taxi.about_to_change);
    assert!(taxi.reset_recorded(&[0.0], &mut obs).is_err());
}

#[test]
fn the_new_destination_is_any_of_the_others_and_a_whim_survives_saving() {
    let mut counts = [0; 4];
    let (mut taxi, mut obs) = (fickle(1.0), [0.0]);
    let mut stream = Stream::new(2, role::ENV, 0);
    for _ in 0..600 {
        taxi.reset(&mut stream, &mut obs);
        taxi.inner.go_to(at(2, 2, 4, 3).encode(), &mut obs);
        let mut w = StateWriter::new();
        taxi.save(&mut w);
        let mut restored = fickle(1.0);
        restored.load(&mut StateReader::new(w.as_bytes())).unwrap();
        restored.step(&[0.0], &mut stream, &mut obs);
        counts[TaxiState::decode(obs[0] as usize).destination] += 1;
    }
    // Binomial with mean 200 and deviation 11.5.
    assert!(counts[3] == 0 && counts[..3].iter().all(|n| i32::abs(n - 200) < 58), "{counts:?}");
}

#[test]
fn the_mask_is_offered_only_on_demand() {
    let mut mask = [true; 6];
    assert!(!Taxi::new().action_mask(&mut mask));
    let mut taxi = Taxi::with_options(&TaxiOptions { mask: true, ..Default::default() }).unwrap();
    // At yellow with the passenger inside: north, or drop off.
    taxi.set_state(&[at(4, 0, 4, 1).encode() as f64]).unwrap();
    assert!(taxi.action_mask(&mut mask));
    assert_eq!(mask, [false, true, false, false, false, true]);
}

#[test]
fn probabilities_beyond_one_are_refused() {
    let options = TaxiOptions { fickle_probability: -0.1, ..Default::default() };
    let error = Taxi::with_options(&options).unwrap_err().to_string();
    assert_eq!(error, "fickle_probability is -0.1, it has to be from 0 to 1");
}
