//! The replay memory: drawing a batch from many transitions, and laying it side by side.

use cordada::env::{Outcome, Stream, role};
use cordada::rl::replay::{Batch, Priorities, Replay, ReplaySizes};
use serde::Serialize;

use super::timing::time;
use crate::args::BenchArgs;
use crate::output::{Output, short};
use crate::report::Failure;

const TRANSITIONS: usize = 1_000_000;
const BATCH: usize = 256;
/// Steps of an episode.
const EPISODE: usize = 200;

/// Observations and actions of the benchmark's environments.
const SHAPES: [(usize, usize); 2] = [(4, 1), (17, 6)];

#[derive(Serialize)]
struct Measured {
    bench: &'static str,
    obs_len: usize,
    action_len: usize,
    transitions: usize,
    batch: usize,
    /// `uniform` or `by priority`, whose time has the new priorities in it.
    draw: &'static str,
    best_us: f64,
    median_us: f64,
}

#[allow(clippy::unnecessary_wraps, reason = "every benchmark has this type")]
pub(super) fn run(args: &BenchArgs, output: Output) -> Result<(), Failure> {
    let mut rows = Vec::new();
    for (obs_len, action_len) in SHAPES {
        for (draw, (best, median)) in measure(obs_len, action_len, TRANSITIONS, args.seed) {
            let (transitions, batch) = (TRANSITIONS, BATCH);
            let (best_us, median_us) = (best * 1e6, median * 1e6);
            let bench = "replay";
            let m = Measured {
                bench,
                obs_len,
                action_len,
                transitions,
                batch,
                draw,
                best_us,
                median_us,
            };
            if output.json {
                output.object(&m);
            } else {
                rows.push(vec![
                    format!("{obs_len} + {action_len}"),
                    draw.to_string(),
                    format!("{best_us:.1}"),
                    format!("{median_us:.1}"),
                ]);
            }
        }
    }
    if !output.json {
        output.table(&["observation + action", "draw", "best µs", "median µs"], &rows);
        output.note(format!("a batch of {BATCH} from {} transitions", short(TRANSITIONS as f64)));
    }
    Ok(())
}

/// Best and median seconds of both ways to draw.
fn measure(
    obs_len: usize,
    action_len: usize,
    transitions: usize,
    seed: u64,
) -> [(&'static str, (f64, f64)); 2] {
    let (replay, mut priorities) = filled(obs_len, action_len, transitions, seed);
    let mut stream = Stream::new(seed, role::REPLAY, 0);
    let (mut indices, mut batch) = (vec![0; BATCH], Batch::default());
    let uniform = time(|| {
        replay.sample(&mut stream, &mut indices);
        replay.gather(&indices, 1, 0.99, &mut batch);
    });
    let mut weights = vec![0.0_f32; BATCH];
    let by_priority = time(|| {
        priorities.sample(&mut stream, &mut indices, &mut weights, 0.4);
        replay.gather(&indices, 1, 0.99, &mut batch);
        priorities.update(&indices, &batch.rewards);
    });
    [("uniform", uniform), ("by priority", by_priority)]
}

/// A full memory of random episodes, and a priority for each transition.
fn filled(obs_len: usize, action_len: usize, capacity: usize, seed: u64) -> (Replay, Priorities) {
    // The end of every episode takes a place.
    let capacity = capacity + capacity / EPISODE + 1;
    let sizes = ReplaySizes { num_envs: 1, capacity, obs_len, action_len, mask_len: 0 };
    let (mut replay, mut stream) = (Replay::new(sizes), Stream::new(seed, role::ENV, 0));
    let mut priorities = Priorities::new(sizes.num_frames(), 0.6, 1e-6);
    let (mut obs, action) = (vec![0.0; obs_len], vec![0.5; action_len]);
    for step in 0..capacity {
        for x in &mut obs {
            *x = stream.uniform() as f32;
        }
        if step % EPISODE == 0 {
            let first = replay.start(0, &obs, &[]);
            priorities.clear(first);
        }
        let end = (step + 1) % EPISODE == 0;
        let outcome = if end { Outcome::Terminated } else { Outcome::Continue };
        let pushed = replay.push(0, &action, stream.normal() as f32, outcome, &obs, &[]);
        priorities.set_new(pushed.transition);
        priorities.clear(pushed.newest);
    }
    (replay, priorities)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_that_is_drawn_from_is_full() {
        let (replay, priorities) = filled(3, 2, 10_000, 1);
        let len = replay.len();
        assert!((9_950..=10_100).contains(&len), "{len} transitions");
        let mut stream = Stream::new(1, role::REPLAY, 0);
        let (mut indices, mut weights) = (vec![0; 2048], vec![0.0_f32; 2048]);
        priorities.sample(&mut stream, &mut indices, &mut weights, 0.4);
        assert!(indices.iter().all(|&index| replay.is_transition(index)));
        // All are new, so all are as likely.
        assert!(weights.iter().all(|&w| w == 1.0));
    }
}
