//! `cordada train`: one run in a directory of its own, and what every command that trains shares.

use std::path::Path;
use std::sync::atomic::Ordering;

use cordada::log::{Fanout, RunDir, TerminalSink};
use cordada::rl;
use cordada::rl::train::{Finished, Run, RunConfig};
use toml::Value;

use crate::args::TrainArgs;
use crate::interrupt::{STOP, watch};
use crate::output::{JsonSink, Output, stdout_is_closed};
use crate::report::Failure;
use crate::seeds;

pub(crate) fn run(args: &TrainArgs, output: Output) -> Result<(), Failure> {
    let config = config(args)?;
    if let Some(count) = args.seeds {
        return seeds::run(args, &config, count, output);
    }
    let threads = args.threads.map_or(1, usize::from);
    let mut run = create(config, args.out.as_deref(), threads)?;
    let finished = train(&mut run, output)?;
    print_result(&run, &finished, output);
    Ok(())
}

/// The config that flags, file and preset give together.
fn config(args: &TrainArgs) -> Result<RunConfig, Failure> {
    let mut changes = args.changes.clone();
    if let Some(steps) = args.steps {
        changes.push(("run.total_steps".into(), integer("--steps", steps)?));
    }
    if let Some(seed) = args.seed {
        changes.push(("run.seed".into(), integer("--seed", seed)?));
    }
    let Some(path) = &args.config else {
        let (Some(algo), Some(env)) = (&args.algo, &args.env) else {
            unreachable!("the parser requires both");
        };
        return Ok(RunConfig::new(algo, env, &changes)?);
    };
    let text = std::fs::read_to_string(path).map_err(|e| {
        let help = "--config takes a file such as the config.toml of a run";
        Failure::usage(format!("cannot read {}: {e}", path.display()), help)
    })?;
    let config = RunConfig::from_toml(&text).map_err(|e| Failure::in_config(e, path, &text))?;
    if let Some(algo) = &args.algo {
        agree("the algorithm", rl::algo::find(algo)?.name, &config.run.algo, path)?;
    }
    if let Some(env) = &args.env {
        agree("the environment", cordada::env::find(env)?.name, &config.run.env, path)?;
    }
    Ok(config.with(&changes)?)
}

pub(crate) fn integer(flag: &str, value: u64) -> Result<Value, Failure> {
    let signed = i64::try_from(value).map_err(|_| {
        Failure::usage(
            format!("{flag} {value} is too large"),
            "config files hold numbers below 2⁶³",
        )
    })?;
    Ok(Value::Integer(signed))
}

fn agree(what: &str, given: &str, in_file: &str, path: &Path) -> Result<(), Failure> {
    if given == in_file {
        return Ok(());
    }
    let path = path.display();
    Err(Failure::usage(
        format!("{what} is {given} on the command line, but {in_file} in {path}"),
        format!("leave out ALGO and ENV to use those of {path}, or leave out --config"),
    ))
}

/// A new run: in `out`, else in the next free directory of `runs`.
pub(crate) fn create(
    config: RunConfig,
    out: Option<&Path>,
    threads: usize,
) -> Result<Run, Failure> {
    let dir = if let Some(path) = out {
        RunDir::create(path)?
    } else {
        let stem = format!("{}-{}", config.run.algo, config.run.env);
        RunDir::create_next(Path::new("runs"), &stem)?
    };
    let root = dir.root().to_path_buf();
    Run::create(config, dir, threads).map_err(|error| {
        // A refused run leaves nothing, but for a folder that the user named.
        let _ = std::fs::remove_dir(root.join("checkpoints"));
        let _ = std::fs::remove_file(root.join(".lock"));
        if out.is_none() {
            let _ = std::fs::remove_dir(&root);
        }
        Failure::from(error)
    })
}

/// Trains with progress on stderr, or with events as JSON on stdout, until the end or Ctrl-C.
pub(crate) fn train(run: &mut Run, output: Output) -> Result<Finished, Failure> {
    watch(output)?;
    let finished = run.train(sink(output), &STOP)?;
    if finished.stopped {
        stopped(run.dir(), finished.steps, output)?;
    }
    Ok(finished)
}

pub(crate) fn sink(output: Output) -> Fanout {
    let mut sinks = Fanout::default();
    if output.json {
        sinks.push(JsonSink::new(output, &STOP));
    }
    if !output.quiet && !output.json {
        sinks.push(TerminalSink::new(&output.terminal()));
    }
    sinks
}

/// Tells how to go on with a run that was stopped.
pub(crate) fn stopped(dir: &Path, steps: u64, output: Output) -> Result<(), Failure> {
    let dir = dir.display();
    debug_assert!(STOP.load(Ordering::Relaxed), "only a request stops a run");
    if stdout_is_closed() {
        let message = format!("nobody reads the output any more: stopped at step {steps}");
        return Err(Failure::failed(message, format!("go on with `cordada resume {dir}`")));
    }
    output.note(format!("stopped at step {steps}; a checkpoint is written. Go on with:"));
    output.note(format!("  cordada resume {dir}"));
    Err(Failure::interrupted())
}

/// The result of a run on stdout; as JSON the last event says it.
pub(crate) fn print_result(run: &Run, finished: &Finished, output: Output) {
    if output.json {
        return;
    }
    if let Some(e) = &finished.evaluation {
        let (mean, std, n) = (e.mean_return, e.std_return, e.episodes);
        output.line(format!("return  {mean:.1} ± {std:.1} over {n} episodes"));
    }
    output.line(format!("run     {}", run.dir().display()));
}
