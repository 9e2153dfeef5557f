//! `cordada rlhf demo`: a course on a generated task, from a new model to an aligned one, with
//! figures before and after.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Instant;

use cordada::lm::demo::{self, Checkpoint, Course, DemoOptions};
use cordada::lm::folder::{self, WriteOptions};
use cordada::lm::tasks::{self, Metric, Task};
use cordada::lm::train::Method;
use serde::Serialize;
use toml::Table;

use super::args::DemoArgs;
use super::usage;
use crate::interrupt::{STOP, watch};
use crate::output::Output;
use crate::report::Failure;
use crate::stats;

pub(crate) fn run(args: &DemoArgs, output: Output) -> Result<(), Failure> {
    watch(output)?;
    let task = tasks::find(&args.task).map_err(usage)?;
    let recommended = demo::recommended(task.name());
    let method = Method::find(args.algo.as_deref().unwrap_or(recommended.method)).map_err(usage)?;
    let mut all = Vec::new();
    for seed in args.seed..args.seed + args.seeds {
        let mut changes: Table = recommended.changes();
        changes.extend(args.changes.iter().cloned());
        let options = DemoOptions {
            method,
            changes,
            sft_steps: args.sft_steps.unwrap_or(recommended.sft_steps),
            sft_batch: recommended.sft_batch,
            sft_learning_rate: recommended.sft_learning_rate,
            align_steps: args.steps.unwrap_or(recommended.align_steps),
            eval_every: args.eval_every.unwrap_or(0),
            seed,
            threads: usize::from(args.threads),
        };
        let began = Instant::now();
        let Some(course) = course(task, &options, output)? else {
            output.note("stopped");
            return Err(Failure::interrupted());
        };
        if let Some(out) = &args.out {
            keep(&out.join(format!("{}-seed{seed}", task.name())), &course)?;
        }
        let seconds = began.elapsed().as_secs_f64();
        tell(task, seed, seconds, &course.points, output);
        all.push(course.points);
    }
    if all.len() > 1 {
        summarize(&all, output);
    }
    Ok(())
}

/// Runs a course with a line of progress; none if it was asked to stop.
fn course(
    task: &dyn Task,
    options: &DemoOptions,
    output: Output,
) -> Result<Option<Course>, Failure> {
    let show = !output.json && output.stderr_is_terminal();
    let began = Instant::now();
    let mut tell = |stage: &'static str, step: u64, total: u64, metrics: &[(&'static str, f64)]| {
        let every = if show { 5 } else { 100 };
        if output.is_quiet() || (!step.is_multiple_of(every) && step != total) {
            return;
        }
        let shown = ["train/loss", "reward/mean", "train/entropy", "response/length"];
        let numbers: Vec<String> = metrics
            .iter()
            .filter(|(name, _)| shown.contains(name))
            .map(|(name, x)| format!("{} {x:.3}", name.rsplit('/').next().unwrap_or(name)))
            .collect();
        let line = format!(
            "{stage} {step}/{total}  {}  {:.0} s",
            numbers.join("  "),
            began.elapsed().as_secs_f64()
        );
        output.progress(&line, show && step < total);
    };
    let tuned = demo::fine_tune(task, options, &STOP, &mut tell)?;
    if STOP.load(Ordering::Relaxed) {
        return Ok(None);
    }
    let aligned = demo::align(task, options, tuned, &STOP, &mut tell)?;
    Ok((!STOP.load(Ordering::Relaxed)).then_some(aligned))
}

/// Writes the aligned model as a Hugging Face folder.
fn keep(folder: &Path, course: &Course) -> Result<(), Failure> {
    let model = &course.model;
    folder::write(folder, model.config(), model.theta(), WriteOptions::default())?;
    Ok(course.tokenizer.write(folder)?)
}

/// The first and the last point: figures of sampled and of the likeliest answers.
fn tell(task: &dyn Task, seed: u64, seconds: f64, points: &[Checkpoint], output: Output) {
    #[derive(Serialize)]
    struct Told<'a> {
        task: &'a str,
        seed: u64,
        stage: &'a str,
        step: u64,
        /// Of the stage so far, without evaluations.
        stage_seconds: f64,
        sampled: Table,
        greedy: Table,
        /// Of the whole course.
        seconds: f64,
    }
    let table = |metrics: &[Metric]| -> Table {
        metrics.iter().map(|(name, x)| ((*name).to_string(), (*x).into())).collect()
    };
    if output.json {
        for p in points {
            output.object(&Told {
                task: task.name(),
                seed,
                stage: p.stage,
                step: p.step,
                stage_seconds: p.seconds,
                sampled: table(&p.sampled),
                greedy: table(&p.greedy),
                seconds,
            });
        }
        return;
    }
    output.line(format!("task {}, seed {seed}, {seconds:.0} s", task.name()));
    let (first, last) = (&points[0], &points[points.len() - 1]);
    let mut rows = Vec::new();
    for (kind, of) in [
        ("sampled", (|p: &Checkpoint| p.sampled.clone()) as fn(&Checkpoint) -> Vec<Metric>),
        ("likeliest", |p| p.greedy.clone()),
    ] {
        for (before, after) in of(first).iter().zip(of(last)) {
            let cells = [before.1, after.1].map(|x| format!("{x:.3}"));
            rows.push(vec![format!("{}, {kind}", before.0), cells[0].clone(), cells[1].clone()]);
        }
    }
    output.table(&["test prompts", "before", "after"], &rows);
    output.line("");
    if points.len() > 2 {
        curve(points, output);
    }
}

/// The first figure of merit at all points.
fn curve(points: &[Checkpoint], output: Output) {
    let row = |p: &Checkpoint| {
        vec![
            p.stage.to_string(),
            p.step.to_string(),
            format!("{:.1}", p.seconds),
            format!("{:.3}", p.sampled[0].1),
            format!("{:.3}", p.greedy[0].1),
        ]
    };
    let name = points[0].sampled[0].0;
    let (sampled, likeliest) = (format!("{name}, sampled"), "likeliest");
    let head = ["stage", "step", "seconds", sampled.as_str(), likeliest];
    output.table(&head, &points.iter().map(row).collect::<Vec<_>>());
    output.line("");
}

/// Means over the seeds.
fn summarize(all: &[Vec<Checkpoint>], output: Output) {
    if output.json {
        return;
    }
    let names: Vec<&str> = all[0][0].sampled.iter().map(|(name, _)| *name).collect();
    let mut rows = Vec::new();
    for (i, name) in names.iter().enumerate() {
        let of = |last: bool| -> Vec<f64> {
            let point = |points: &'_ Vec<Checkpoint>| {
                points[if last { points.len() - 1 } else { 0 }].sampled[i].1
            };
            all.iter().map(point).collect()
        };
        let (before, after) = (of(false), of(true));
        let range = |x: &[f64]| {
            let (low, high) =
                x.iter().fold((f64::MAX, f64::MIN), |(l, h), &x| (l.min(x), h.max(x)));
            format!("{:.3} [{low:.3}, {high:.3}]", stats::mean(x))
        };
        rows.push(vec![format!("{name}, sampled"), range(&before), range(&after)]);
    }
    let seeds = format!("{} seeds: mean [least, most]", all.len());
    output.table(&[seeds.as_str(), "before", "after"], &rows);
}
