//! `cordada bench family`: every algorithm in several environments, once with equal steps and once
//! with equal time. Each run is in `run`, what is trained in `plan`, the table in `table`, the
//! plots in `plots`.

mod files;
mod plan;
mod plots;
mod progress;
mod run;
mod table;

use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use cordada_stats::Error as StatsError;

use self::files::Family;
use self::plan::{Pair, pairs};
use self::progress::Progress;
use self::run::{Budget, Trained, train};
use super::{Chosen, seeds, workers};
use crate::args::BenchArgs;
use crate::interrupt::{STOP, watch};
use crate::output::Output;
use crate::report::Failure;
use crate::seeds::spread;

/// Seeds if no flag says otherwise.
const SEEDS: u16 = 5;
/// Seconds of a run where all have the same time, if no flag says otherwise.
const SECONDS: f64 = 10.0;

/// A run that is done.
struct Done {
    /// Index of its pair.
    pair: usize,
    /// Whether it had so many seconds, and not so many steps.
    timed: bool,
    seed: u64,
    trained: Trained,
}

pub(super) fn run(args: &BenchArgs, output: Output) -> Result<(), Failure> {
    let pairs = pairs(&Chosen::new(args)?, args.steps_scale.unwrap_or(1.0))?;
    if pairs.is_empty() {
        let help = "`cordada bench family --help` says what --algos and --envs take";
        return Err(Failure::usage("no algorithm that is chosen fits an environment", help));
    }
    let (seeds, seconds) = (seeds(args, SEEDS), args.seconds.unwrap_or(SECONDS));
    let out = args.out.as_deref().unwrap_or(Path::new("family"));
    // Before hours of work are done for nothing.
    std::fs::create_dir_all(out).map_err(|e| files::refused_file("make the folder", out, &e))?;
    watch(output)?;
    let workers = workers(args);
    let timed = if seconds > 0.0 { pairs.len() } else { 0 };
    let jobs = seeds.len() * (pairs.len() + timed);
    let progress = Progress::new(output, &pairs, jobs, (timed * seeds.len(), seconds), workers);
    let mut runs = Vec::new();
    for phase in [false, true].into_iter().take(if timed > 0 { 2 } else { 1 }) {
        let budgets: Vec<Budget> = pairs
            .iter()
            .enumerate()
            .map(|(i, pair)| budget(pair, i, phase, seconds, &runs))
            .collect();
        runs.extend(all(&pairs, &budgets, &seeds, workers, &progress)?);
        if runs.is_empty() {
            break;
        }
        let family = Family { pairs: &pairs, seeds: &seeds, seconds, workers, runs: &runs };
        family.write(out)?;
        if STOP.load(Ordering::Relaxed) {
            break;
        }
    }
    if !runs.is_empty() {
        tell(&Family { pairs: &pairs, seeds: &seeds, seconds, workers, runs: &runs }, out, output)?;
    }
    if STOP.load(Ordering::Relaxed) {
        output.note(format!("stopped after {} of {jobs} runs", runs.len()));
        return Err(Failure::interrupted());
    }
    Ok(())
}

/// What a run of a pair is given. Schedules need to know how long a run is: where seconds are
/// given, as many steps are expected as the runs with equal steps say.
fn budget(pair: &Pair, index: usize, timed: bool, seconds: f64, runs: &[Done]) -> Budget {
    if !timed {
        return Budget::Steps(pair.steps);
    }
    let same = || runs.iter().filter(|run| run.pair == index && !run.timed);
    let steps: f64 = same().map(|run| run.trained.steps as f64).sum();
    let took: f64 = same().map(|run| run.trained.seconds).sum();
    let expected = if took > 0.0 { steps / took * seconds } else { pair.steps as f64 };
    Budget::Seconds { seconds, expected_steps: expected.max(1.0) as u64 }
}

/// Runs of all pairs, seed by seed, so that whenever it is stopped all have as many seeds. Those
/// that were stopped are left out.
fn all(
    pairs: &[Pair],
    budgets: &[Budget],
    seeds: &[u64],
    workers: usize,
    progress: &Progress,
) -> Result<Vec<Done>, Failure> {
    let failed = Mutex::new(None);
    let done = spread(pairs.len() * seeds.len(), workers, |job| {
        let (pair, seed) = (job % pairs.len(), seeds[job / pairs.len()]);
        let mut config = pairs[pair].config.clone();
        config.run.seed = seed;
        let timed = matches!(budgets[pair], Budget::Seconds { .. });
        let began = Instant::now();
        match train(&config, budgets[pair], &STOP) {
            Ok(None) => None,
            Ok(Some(trained)) => {
                progress.done(pair, timed, (seed, &trained), began.elapsed());
                Some(Done { pair, timed, seed, trained })
            }
            Err(error) => {
                // The others need not go on for nothing.
                STOP.store(true, Ordering::Relaxed);
                failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                None
            }
        }
    });
    match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error.into()),
        None => Ok(done.into_iter().flatten().collect()),
    }
}

/// The result on stdout.
fn tell(family: &Family<'_>, out: &Path, output: Output) -> Result<(), Failure> {
    let rows = table::rows(family)?;
    if output.json {
        for row in &rows {
            output.object(row);
        }
        return Ok(());
    }
    output.line(table::markdown(&rows)?.trim_end());
    output.note(format!("table, plots and raw numbers: {}", out.display()));
    Ok(())
}

/// What the statistics refuse.
fn refused(error: &StatsError) -> Failure {
    Failure::failed(format!("cannot sum up the runs: {error}"), "family.json has the raw numbers")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timed_run_expects_the_steps_of_the_others() {
        let pairs = pairs(&Chosen { algos: vec!["ppo"], envs: vec!["CartPole-v1"] }, 0.01).unwrap();
        let of = |steps, seconds| {
            let trained =
                Trained { steps, seconds, points: Vec::new(), final_return: 0.0, error: None };
            Done { pair: 0, timed: false, seed: 1, trained }
        };
        // 3000 steps in 4 s: 7500 in 10 s.
        let runs = [of(1000, 1.0), of(2000, 3.0)];
        let Budget::Seconds { expected_steps, .. } = budget(&pairs[0], 0, true, 10.0, &runs) else {
            panic!("a run of so many seconds");
        };
        assert_eq!(expected_steps, 7500);
        assert!(matches!(budget(&pairs[0], 0, false, 10.0, &runs), Budget::Steps(1000)));
    }
}
