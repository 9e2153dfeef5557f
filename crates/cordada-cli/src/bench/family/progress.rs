//! What is done and how long the rest will take, on stderr.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::plan::Pair;
use super::run::Trained;
use crate::output::Output;

/// Time that evaluations add where none is measured yet, as a share.
const EVALUATION: f64 = 0.1;

/// Progress of all runs.
#[derive(Debug)]
pub(super) struct Progress {
    output: Output,
    names: Vec<String>,
    /// Steps of a run where all have the same, pair by pair.
    steps: Vec<u64>,
    total: usize,
    /// Seconds of a timed run.
    seconds: f64,
    workers: usize,
    counts: Mutex<Counts>,
}

/// Runs that are done.
#[derive(Clone, Debug)]
struct Counts {
    done: usize,
    /// Runs of so many steps that are left of each pair, and their times so far.
    left: Vec<usize>,
    times: Vec<Times>,
    timed_left: usize,
    timed: Times,
}

/// Sum and number of some times. Unit: seconds.
#[derive(Clone, Copy, Debug, Default)]
struct Times {
    sum: f64,
    count: usize,
}

impl Times {
    fn add(&mut self, seconds: f64) {
        self.sum += seconds;
        self.count += 1;
    }

    fn mean(self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / self.count as f64)
    }
}

impl Progress {
    /// Of `total` runs, of which `timed` take so many seconds each.
    pub(super) fn new(
        output: Output,
        pairs: &[Pair],
        total: usize,
        (timed, seconds): (usize, f64),
        workers: usize,
    ) -> Self {
        let each = (total - timed) / pairs.len();
        Self {
            output,
            names: pairs.iter().map(|pair| format!("{} on {}", pair.algo, pair.task.env)).collect(),
            steps: pairs.iter().map(|pair| pair.steps).collect(),
            total,
            seconds,
            workers,
            counts: Mutex::new(Counts {
                done: 0,
                left: vec![each; pairs.len()],
                times: vec![Times::default(); pairs.len()],
                timed_left: timed,
                timed: Times::default(),
            }),
        }
    }

    /// A run of a pair is done, and took so long with its evaluations.
    pub(super) fn done(&self, pair: usize, timed: bool, run: (u64, &Trained), took: Duration) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.done += 1;
        if timed {
            counts.timed_left -= 1;
            counts.timed.add(took.as_secs_f64());
        } else {
            counts.left[pair] -= 1;
            counts.times[pair].add(took.as_secs_f64());
        }
        if self.output.json || self.output.quiet {
            return;
        }
        let (seed, trained) = run;
        let (done, total, name) = (counts.done, self.total, &self.names[pair]);
        let how = trained.error.as_deref().map_or(String::new(), |e| format!(", diverged: {e}"));
        let (last, seconds) = (trained.final_return, trained.seconds);
        let left = match self.left(&counts) {
            Some(seconds) if done < total => format!("; {} left", duration(seconds)),
            _ => String::new(),
        };
        let run = format!("{name}, seed {seed}: {last:.1} in {seconds:.1} s{how}");
        self.output.note(format!("{done} of {total}  {run}{left}"));
    }

    /// Seconds that are left; none if nothing is known yet.
    fn left(&self, counts: &Counts) -> Option<f64> {
        // What a pair takes that is not measured yet: as much a step as the others.
        let measured = counts.times.iter().zip(&self.steps);
        let (sum, steps) = measured.fold((0.0, 0.0), |(sum, all), (times, &steps)| {
            (sum + times.sum, all + (times.count as f64) * steps as f64)
        });
        let per_step = (steps > 0.0).then(|| sum / steps);
        let mut left = 0.0;
        for ((&count, times), &steps) in counts.left.iter().zip(&counts.times).zip(&self.steps) {
            if count > 0 {
                left += count as f64 * times.mean().or(per_step.map(|s| s * steps as f64))?;
            }
        }
        let timed = counts.timed.mean().unwrap_or(self.seconds * (1.0 + EVALUATION));
        Some((left + counts.timed_left as f64 * timed) / self.workers as f64)
    }
}

/// A time in words.
fn duration(seconds: f64) -> String {
    let minutes = (seconds / 60.0).round() as u64;
    match minutes {
        0 | 1 if seconds < 90.0 => format!("{:.0} s", seconds.ceil()),
        0..60 => format!("{minutes} min"),
        _ => format!("{} h {:02} min", minutes / 60, minutes % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_is_estimated_from_what_is_done() {
        let progress = Progress {
            output: Output::new(crate::args::Global {
                json: false,
                quiet: true,
                color: clap::ColorChoice::Never,
            }),
            names: vec!["a".into(), "b".into()],
            steps: vec![1000, 500],
            total: 8,
            seconds: 10.0,
            workers: 2,
            counts: Mutex::new(Counts {
                done: 0,
                left: vec![2, 2],
                times: vec![Times::default(); 2],
                timed_left: 4,
                timed: Times::default(),
            }),
        };
        let left = || progress.left(&progress.counts.lock().unwrap());
        assert_eq!(left(), None);
        let trained = Trained {
            steps: 1000,
            seconds: 5.0,
            points: Vec::new(),
            final_return: 0.0,
            error: None,
        };
        progress.done(0, false, (1, &trained), Duration::from_secs(6));
        // One more of 6 s, two of the other, which has half the steps, and four of 11 s:
        // (6 + 2 · 3 + 44) / 2.
        assert_eq!(left(), Some(28.0));
        progress.done(1, false, (1, &trained), Duration::from_secs(5));
        progress.done(0, true, (1, &trained), Duration::from_secs(13));
        // (6 + 5 + 3 · 13) / 2
        assert_eq!(left(), Some(25.0));
    }

    #[test]
    fn times_are_in_words() {
        assert_eq!(duration(12.2), "13 s");
        assert_eq!(duration(89.0), "89 s");
        assert_eq!(duration(90.0), "2 min");
        assert_eq!(duration(3598.0), "1 h 00 min");
        assert_eq!(duration(7380.0), "2 h 03 min");
    }
}
