//! Environments alone: how fast they step with random actions.

use std::time::{Duration, Instant};

use cordada::env::{ENVIRONMENTS, EnvSpec, Slot, Stream, role};
use serde::Serialize;

use crate::args::BenchArgs;
use crate::output::{Output, short};
use crate::report::Failure;

/// Time for each environment.
const LENGTH: Duration = Duration::from_millis(500);
/// Actions are drawn beforehand, so that drawing is not timed.
const ACTIONS: usize = 4096;

#[derive(Serialize)]
struct Measured {
    bench: &'static str,
    env: &'static str,
    steps: u64,
    seconds: f64,
    steps_per_s: f64,
    /// Episodes that ended on the way; their resets are part of the time.
    episodes: u64,
}

#[allow(clippy::unnecessary_wraps, reason = "every benchmark has this type")]
pub(super) fn run(args: &BenchArgs, output: Output) -> Result<(), Failure> {
    let mut rows = Vec::new();
    for spec in ENVIRONMENTS {
        let m = measure(spec, args.seed);
        if output.json {
            output.object(&m);
        } else {
            rows.push(vec![
                m.env.to_string(),
                short(m.steps_per_s),
                format!("{:.1}", 1e9 / m.steps_per_s),
            ]);
        }
    }
    if !output.json {
        output.table(&["environment", "steps/s", "ns per step"], &rows);
    }
    Ok(())
}

fn measure(spec: &'static EnvSpec, seed: u64) -> Measured {
    let mut slot = Slot::new(spec.build(), Stream::new(seed, role::ENV, 0));
    let (d, a) = (slot.env().obs_space().len(), slot.env().action_space().len());
    let (mut obs, mut last, mut actions) = (vec![0.0; d], vec![0.0; d], vec![0.0; ACTIONS * a]);
    let mut policy = Stream::new(seed, role::POLICY, 0);
    for action in actions.chunks_exact_mut(a) {
        slot.env().action_space().sample(&mut policy, action);
    }
    slot.reset(&mut obs);
    let (mut steps, mut episodes) = (0, 0);
    let began = Instant::now();
    while began.elapsed() < LENGTH {
        for action in actions.chunks_exact(a) {
            episodes += u64::from(slot.step(action, &mut obs, &mut last).episode.is_some());
        }
        steps += ACTIONS as u64;
    }
    let seconds = began.elapsed().as_secs_f64();
    let steps_per_s = steps as f64 / seconds;
    Measured { bench: "env-step", env: spec.name, steps, seconds, steps_per_s, episodes }
}
