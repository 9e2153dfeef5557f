//! `cordada train --seeds`: runs that differ only in their seed, side by side, reported together.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use cordada::log::{Error as LogError, Event, Fanout, RunDir, Sink, TerminalSink};
use cordada::rl;
use cordada::rl::train::{Finished, Run, RunConfig};
use serde::Serialize;

use crate::args::TrainArgs;
use crate::interrupt::{STOP, watch};
use crate::output::{JsonSink, Output, short};
use crate::report::Failure;
use crate::stats::Aggregate;

pub(crate) fn run(
    args: &TrainArgs,
    config: &RunConfig,
    count: u64,
    output: Output,
) -> Result<(), Failure> {
    let jobs = jobs(args, config, count)?;
    watch(output)?;
    let workers = args.threads.map_or_else(cores, usize::from).min(jobs.len());
    let text = format!(
        "{} on {}: {} runs of {} steps, seeds {} to {}, {workers} at a time",
        config.run.algo,
        config.run.env,
        jobs.len(),
        short(config.run.total_steps as f64),
        config.run.seed,
        config.run.seed + count - 1
    );
    let progress = (!output.json && !output.quiet)
        .then(|| Progress::new(output, &text, config.run.total_steps, jobs.len()));
    let began = Instant::now();
    let results = spread(jobs.len(), workers, |i| {
        let mut sinks = Fanout::default();
        if output.json {
            sinks.push(JsonSink::new(output, &STOP).with_seed(jobs[i].config.run.seed));
        }
        if let Some(progress) = &progress {
            sinks.push(SeedSink { run: i, progress: progress.clone() });
        }
        one(&jobs[i], sinks)
    });
    if let Some(progress) = progress {
        progress.close(&results, began.elapsed().as_secs_f64());
    }
    report(&jobs, results, output)
}

/// A run to do.
struct Job {
    config: RunConfig,
    dir: PathBuf,
}

/// The runs, in directories that do not exist yet.
fn jobs(args: &TrainArgs, config: &RunConfig, count: u64) -> Result<Vec<Job>, Failure> {
    let (algo, env) = (&config.run.algo, config.run.env.replace(['/', '\\'], "-"));
    let last = config.run.seed.checked_add(count - 1).filter(|&last| i64::try_from(last).is_ok());
    if last.is_none() {
        return Err(Failure::usage("the seeds go beyond 2⁶³", "begin with a smaller --seed"));
    }
    let stem = match &args.out {
        Some(out) => out.join(format!("{algo}-{env}")),
        None => free_group(Path::new("runs"), &format!("{algo}-{env}")),
    };
    let job = |i: u64| -> Result<Job, Failure> {
        let mut config = config.clone();
        config.run.seed += i;
        let dir = PathBuf::from(format!("{}-seed{}", stem.display(), config.run.seed));
        if dir.join("config.toml").exists() {
            return Err(Failure::from(LogError::RunExists { path: dir }));
        }
        Ok(Job { config, dir })
    };
    (0..count).map(job).collect()
}

/// `base/stem-N` for the first N that begins no name in `base`.
fn free_group(base: &Path, stem: &str) -> PathBuf {
    let names: Vec<String> = std::fs::read_dir(base)
        .map(|entries| entries.flatten().map(|e| e.file_name().to_string_lossy().into()).collect())
        .unwrap_or_default();
    let mut number = 1_u64;
    loop {
        let group = format!("{stem}-{number}");
        let taken = |name: &String| {
            name.strip_prefix(&group).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
        };
        if !names.iter().any(taken) {
            return base.join(group);
        }
        number += 1;
    }
}

/// How one run ended; none if it was not begun.
type Outcome = Option<Result<Finished, rl::Error>>;

fn one(job: &Job, sink: Fanout) -> Outcome {
    if STOP.load(Ordering::Relaxed) {
        return None;
    }
    let train = || {
        let dir = RunDir::create(&job.dir)?;
        Run::create(job.config.clone(), dir, 1)?.train(sink, &STOP)
    };
    Some(train())
}

#[derive(Serialize)]
struct SeedResult {
    seed: u64,
    run: String,
    steps: u64,
    seconds: f64,
    steps_per_s: f64,
    eval_return: Option<f64>,
}

/// Table and aggregate on stdout, then what went wrong.
fn report(jobs: &[Job], outcomes: Vec<Outcome>, output: Output) -> Result<(), Failure> {
    let (mut done, mut stopped, mut failure) = (Vec::new(), Vec::new(), None);
    for (job, outcome) in jobs.iter().zip(outcomes) {
        let (seed, run) = (job.config.run.seed, job.dir.display().to_string());
        match outcome {
            None => stopped.push(format!("  (seed {seed} was not begun)")),
            Some(Ok(f)) if f.stopped => stopped.push(format!("  cordada resume {run}")),
            Some(Ok(f)) => done.push(SeedResult {
                seed,
                run,
                steps: f.steps,
                seconds: f.seconds,
                steps_per_s: f.steps_per_s,
                eval_return: f.evaluation.map(|e| e.mean_return),
            }),
            Some(Err(error)) => {
                failure.get_or_insert(Failure::from(error).of(&format!("seed {seed}")));
            }
        }
    }
    if output.json {
        write_json(&done, output);
    } else {
        print_table(&done, output);
    }
    if !stopped.is_empty() {
        output.note("stopped; go on with:");
        for line in &stopped {
            output.note(line);
        }
    }
    match failure {
        Some(failure) => Err(failure),
        None if !stopped.is_empty() => Err(Failure::interrupted()),
        None => Ok(()),
    }
}

fn returns(done: &[SeedResult]) -> Vec<f64> {
    done.iter().filter_map(|result| result.eval_return).collect()
}

fn write_json(done: &[SeedResult], output: Output) {
    #[derive(Serialize)]
    struct SeedsDone<'a> {
        event: &'a str,
        seeds: &'a [SeedResult],
        mean: Option<f64>,
        iqm: Option<f64>,
        iqm_low: Option<f64>,
        iqm_high: Option<f64>,
    }
    let a = Aggregate::of(&returns(done));
    // Without an evaluation there is no number, which JSON says by null.
    let [mean, iqm, iqm_low, iqm_high] =
        [a.mean, a.iqm, a.low, a.high].map(|x| Some(x).filter(|x| x.is_finite()));
    output.object(&SeedsDone { event: "seeds_done", seeds: done, mean, iqm, iqm_low, iqm_high });
}

fn print_table(done: &[SeedResult], output: Output) {
    let row = |r: &SeedResult| {
        vec![
            r.seed.to_string(),
            r.eval_return.map_or("-".into(), |x| format!("{x:.1}")),
            short(r.steps_per_s),
            format!("{:.1}", r.seconds),
            r.run.clone(),
        ]
    };
    if done.is_empty() {
        return;
    }
    let rows: Vec<_> = done.iter().map(row).collect();
    output.table(&["seed", "return", "steps/s", "seconds", "run"], &rows);
    let returns = returns(done);
    if !returns.is_empty() {
        output.line(summary(&Aggregate::of(&returns), returns.len()));
    }
}

/// The aggregate in words.
pub(crate) fn summary(a: &Aggregate, runs: usize) -> String {
    format!(
        "mean {:.1}, interquartile mean {:.1} (95 % interval {:.1} to {:.1}) over {runs} seeds",
        a.mean, a.iqm, a.low, a.high
    )
}

/// Processors that this program may use.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Does `count` jobs on `workers` threads; results in the jobs' order.
pub(crate) fn spread<R: Send>(
    count: usize,
    workers: usize,
    work: impl Fn(usize) -> R + Sync,
) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let results: Mutex<Vec<(usize, R)>> = Mutex::new(Vec::with_capacity(count));
    std::thread::scope(|scope| {
        for _ in 0..workers.min(count) {
            scope.spawn(|| {
                loop {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    if i >= count {
                        return;
                    }
                    let result = work(i);
                    results.lock().unwrap_or_else(PoisonError::into_inner).push((i, result));
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_by_key(|(i, _)| *i);
    results.into_iter().map(|(_, result)| result).collect()
}

/// One progress line for all runs: steps added up, returns averaged.
#[derive(Clone, Debug)]
struct Progress(Arc<Mutex<Shown>>);

#[derive(Debug)]
struct Shown {
    terminal: TerminalSink,
    steps: Vec<u64>,
    returns: Vec<Option<f64>>,
}

impl Progress {
    fn new(output: Output, text: &str, total_steps: u64, runs: usize) -> Self {
        let mut terminal = TerminalSink::new(&output.terminal());
        terminal.open(text, total_steps.saturating_mul(runs as u64));
        let shown = Shown { terminal, steps: vec![0; runs], returns: vec![None; runs] };
        Self(Arc::new(Mutex::new(shown)))
    }

    fn close(&self, outcomes: &[Outcome], seconds: f64) {
        let mut shown = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let done = outcomes.iter().flatten().flatten().filter(|f| !f.stopped).count();
        let steps = shown.steps.iter().sum::<u64>() as f64;
        let (all, rate) = (outcomes.len(), short(steps / seconds));
        let runs =
            if done == all { format!("{all} runs") } else { format!("{done} of {all} runs") };
        let text = format!("done: {runs}, {} steps in {seconds:.1}s ({rate}/s)", short(steps));
        shown.terminal.close(&text);
    }
}

/// Feeds the progress line from one of the runs.
#[derive(Debug)]
struct SeedSink {
    run: usize,
    progress: Progress,
}

impl Sink for SeedSink {
    fn record(&mut self, event: &Event) -> Result<(), LogError> {
        let mut shown = self.progress.0.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Metrics { step, iteration, values } => {
                shown.steps[self.run] = *step;
                let episode_return = values.iter().find(|(n, _)| *n == "rollout/episode_return");
                if let Some((_, value)) = episode_return {
                    shown.returns[self.run] = Some(*value);
                }
                let known: Vec<f64> = shown.returns.iter().flatten().copied().collect();
                let (sum, n) = (known.iter().sum::<f64>(), known.len());
                let mean = (n > 0).then(|| ("rollout/episode_return", sum / n as f64));
                let (step, iteration) = (shown.steps.iter().sum(), *iteration);
                let values = mean.into_iter().collect();
                shown.terminal.record(&Event::Metrics { step, iteration, values })
            }
            Event::Warning { .. } => shown.terminal.record(event),
            // The runs differ in their seeds alone, so the first one's notes are those of all.
            Event::Note { .. } if self.run == 0 => shown.terminal.record(event),
            _ => Ok(()),
        }
    }

    fn flush(&mut self) -> Result<(), LogError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_the_order_of_jobs() {
        // The first job is done last.
        let wait = |i: usize| {
            std::thread::sleep(std::time::Duration::from_millis(if i == 0 { 30 } else { 0 }));
            i * i
        };
        assert_eq!(spread(4, 2, wait), [0, 1, 4, 9]);
    }

    #[test]
    fn a_group_takes_the_first_number_that_nothing_has() {
        let base = std::env::temp_dir().join(format!("cordada-group-{}", std::process::id()));
        for name in ["ppo-X-1", "ppo-X-2-seed1", "ppo-X-12"] {
            std::fs::create_dir_all(base.join(name)).unwrap();
        }
        assert_eq!(free_group(&base, "ppo-X"), base.join("ppo-X-3"));
        std::fs::remove_dir_all(&base).unwrap();
        assert_eq!(free_group(&base, "ppo-X"), base.join("ppo-X-1"));
    }
}
