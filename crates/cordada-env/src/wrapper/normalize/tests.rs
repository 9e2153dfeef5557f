//! Tests of normalization, by hand; those against recorded numbers are in `tests/golden.rs`.

use super::*;
use crate::check::probe::{Counter, Echo};
use crate::stream::role;

/// No prior and next to no ε, for numbers that can be worked out by hand.
const PLAIN: NormalizeOptions = NormalizeOptions { clip: 2.0, epsilon: 1e-300, initial_count: 0.0 };

#[test]
fn observations_by_hand() {
    // Column 0: 1, 3: mean 2, deviation 1. Column 1: 0, 10: mean 5, deviation 5.
    let mut normalizer = ObsNormalizer::new(2, PLAIN).unwrap();
    normalizer.update(&[1.0, 0.0, 3.0, 10.0]);
    let mut out = [0.0; 4];
    normalizer.normalize(&[1.0, 10.0, 2.5, 100.0], &mut out);
    assert_eq!(out, [-1.0, 1.0, 0.5, 2.0]); // the last one clipped from 19
    normalizer.freeze();
    let before = normalizer.clone();
    normalizer.update(&[9.0, 9.0]);
    assert_eq!(normalizer, before);
    normalizer.unfreeze();
    normalizer.update(&[9.0, 9.0]);
    assert_eq!(normalizer.moments().count(), 3.0);
}

#[test]
fn rewards_by_hand() {
    // Returns 2 and 4: variance 1, so nothing changes but the clip.
    let mut normalizer = RewardNormalizer::new(2, 0.5, PLAIN).unwrap();
    normalizer.update(&[2.0, 4.0], &[Outcome::Continue, Outcome::Truncated]);
    assert_eq!(normalizer.returns(), [2.0, 0.0]); // ended: back to 0
    let mut out = [0.0; 2];
    normalizer.normalize(&[1.5, -4.0], &mut out);
    assert_eq!(out, [1.5, -2.0]);
    // Then 0.5 · 2 + 1 = 2 and 0 + 8 = 8: returns 2, 4, 2, 8: mean 4, variance 6.
    normalizer.update(&[1.0, 8.0], &[Outcome::Continue; 2]);
    assert_eq!(normalizer.returns(), [2.0, 8.0]);
    assert!((normalizer.normalize_one(1.0) - 1.0 / 6.0f64.sqrt()).abs() < 1e-15);
    normalizer.freeze();
    normalizer.update(&[100.0, 100.0], &[Outcome::Continue; 2]);
    assert_eq!(normalizer.returns(), [2.0, 8.0]);
    normalizer.reset();
    assert_eq!(normalizer.returns(), [0.0; 2]);
}

#[test]
fn the_wrapper_takes_in_what_it_shows() {
    // The counter observes 0, 1, 2, …: after two steps the mean is 1 and the variance 2/3.
    let mut env = NormalizeObs::new(Counter::new(), PLAIN).unwrap();
    let mut stream = Stream::new(0, role::ENV, 0);
    let mut obs = [9.0; 2];
    env.reset(&mut stream, &mut obs);
    assert_eq!(obs, [0.0, 0.0]);
    env.step(&[0.0], &mut stream, &mut obs);
    env.step(&[0.0], &mut stream, &mut obs);
    assert_eq!(obs[0], (1.0 / (2.0f64 / 3.0).sqrt()) as f32);
    assert_eq!(env.obs_space().to_string(), "Box(-2.0, 2.0, (2,))");
    // Frozen, it shows 3 by the old statistics.
    env.normalizer_mut().freeze();
    env.step(&[0.0], &mut stream, &mut obs);
    assert_eq!(obs[0], 2.0); // clipped from 2 / 0.816
}

#[test]
fn the_reward_wrapper_forgets_the_return_at_a_reset() {
    let mut env = NormalizeReward::new(Echo::new(Space::vector(&[-9.0], &[9.0])), 0.9, PLAIN);
    let env = env.as_mut().unwrap();
    let mut stream = Stream::new(0, role::ENV, 0);
    env.reset(&mut stream, &mut [0.0]);
    env.step(&[3.0], &mut stream, &mut [0.0]);
    assert_eq!(env.normalizer_mut().returns(), [3.0]);
    env.reset(&mut stream, &mut [0.0]);
    // Returns 3 and 1: variance 1.
    let step = env.step(&[1.0], &mut stream, &mut [0.0]);
    assert_eq!((env.normalizer_mut().returns(), step.reward), (&[1.0][..], 1.0));
}

#[test]
fn wrong_options_are_refused() {
    let error = NormalizeReward::new(Counter::new(), 1.5, PLAIN).unwrap_err().to_string();
    assert_eq!(error, "gamma is 1.5, it has to be within [0, 1]");
    let options = |clip, epsilon, initial_count| NormalizeOptions { clip, epsilon, initial_count };
    for (options, want) in [
        (options(0.0, 1.0, 0.0), "clip is 0, it has to be above 0"),
        (options(1.0, f64::NAN, 0.0), "epsilon is NaN, it has to be above 0"),
        (options(1.0, 1.0, -1.0), "initial_count is -1, it has to be at least 0"),
    ] {
        assert_eq!(ObsNormalizer::new(1, options).unwrap_err().to_string(), want);
    }
}

#[test]
fn frozen_normalizers_come_back_frozen() {
    let mut by_obs = ObsNormalizer::new(1, PLAIN).unwrap();
    let mut by_return = RewardNormalizer::new(1, 0.9, PLAIN).unwrap();
    by_obs.update(&[1.0, 4.0]);
    by_return.update(&[2.0], &[Outcome::Continue]);
    by_obs.freeze();
    by_return.freeze();
    let mut w = StateWriter::new();
    by_obs.save(&mut w);
    by_return.save(&mut w);
    let mut r = StateReader::new(w.as_bytes());
    let mut obs_again = ObsNormalizer::new(1, PLAIN).unwrap();
    let mut return_again = RewardNormalizer::new(1, 0.9, PLAIN).unwrap();
    obs_again.load(&mut r).unwrap();
    return_again.load(&mut r).unwrap();
    r.finish().unwrap();
    assert_eq!((obs_again, return_again), (by_obs, by_return));
}
