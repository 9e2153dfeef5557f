//! `cordada rlhf sft`, `align` and `resume`: runs of a stage of training.

use std::path::{Path, PathBuf};

use cordada::lm;
use cordada::lm::load;
use cordada::lm::train::{StageConfig, StageFinished, StageRun};
use cordada::log::{Event, RunDir};
use cordada::rl;
use toml::Value;

use super::args::{AlignArgs, SftArgs, StageArgs};
use super::usage;
use crate::args::ResumeArgs;
use crate::interrupt::{STOP, watch};
use crate::output::Output;
use crate::report::Failure;
use crate::resume::last_event;
use crate::train::{integer, sink, stopped};

pub(crate) fn sft(args: &SftArgs, output: Output) -> Result<(), Failure> {
    let changes = args.stage.changes.clone();
    start("sft", &args.stage, changes, output)
}

pub(crate) fn align(args: &AlignArgs, output: Output) -> Result<(), Failure> {
    let mut changes = args.stage.changes.clone();
    let text = |text: &String| Value::String(text.clone());
    if let Some(algo) = &args.algo {
        changes.push(("run.method".into(), text(algo)));
    }
    if !args.reward.is_empty() {
        let terms = Value::Array(args.reward.iter().map(text).collect());
        changes.push(("run.reward".into(), terms));
    }
    if let Some(path) = &args.reference {
        changes.push(("run.reference".into(), model_at(path)?));
    }
    start("align", &args.stage, changes, output)
}

fn start(
    stage: &str,
    args: &StageArgs,
    changes: Vec<(String, Value)>,
    output: Output,
) -> Result<(), Failure> {
    let config = config(stage, args, changes)?;
    let mut run = create(&config, args.out.as_deref(), usize::from(args.threads))?;
    train(&mut run, false, output)
}

/// The config that flags and file give together.
fn config(
    stage: &str,
    args: &StageArgs,
    mut changes: Vec<(String, Value)>,
) -> Result<StageConfig, Failure> {
    if let Some(path) = &args.model {
        changes.push(("run.model".into(), model_at(path)?));
    }
    if let Some(path) = &args.data {
        changes.push(("run.data".into(), absolute(path)?));
        changes.push(("run.task".into(), Value::String(String::new())));
    }
    if let Some(task) = &args.task {
        changes.push(("run.task".into(), Value::String(task.clone())));
        changes.push(("run.data".into(), Value::String(String::new())));
    }
    if let Some(lora) = &args.lora {
        changes.extend(lora.0.clone());
    }
    if let Some(steps) = args.steps {
        changes.push(("run.total_steps".into(), integer("--steps", steps)?));
    }
    if let Some(seed) = args.seed {
        changes.push(("run.seed".into(), integer("--seed", seed)?));
    }
    let Some(path) = &args.config else {
        if args.data.is_none() && args.task.is_none() {
            return Err(Failure::usage(
                "there is nothing to learn from",
                "name a JSONL file with --data or a generated task with --task; `cordada list tasks` shows all",
            ));
        }
        return StageConfig::new(stage, &changes).map_err(usage);
    };
    let text = std::fs::read_to_string(path).map_err(|e| {
        let help = "--config takes a file such as the config.toml of a run";
        Failure::usage(format!("cannot read {}: {e}", path.display()), help)
    })?;
    let config = StageConfig::from_toml(&text).map_err(|e| in_config(e, path, &text))?;
    if config.run.stage != stage {
        let (path, other) = (path.display(), &config.run.stage);
        return Err(Failure::usage(
            format!("{path} is a config of {other}, not of {stage}"),
            format!("use `cordada rlhf {other} --config {path}`"),
        ));
    }
    config.with(&changes).map_err(usage)
}

/// The folder of the model at a path, such that a config names it from anywhere and it stays the
/// same when a run goes on.
fn model_at(path: &Path) -> Result<Value, Failure> {
    absolute(&load::locate(path)?)
}

fn absolute(path: &Path) -> Result<Value, Failure> {
    let path = std::path::absolute(path).map_err(|e| {
        let help = "give the path of a file or folder";
        Failure::usage(format!("{}: {e}", path.display()), help)
    })?;
    Ok(Value::String(path.to_string_lossy().into_owned()))
}

/// An error in the text of a config file.
fn in_config(error: lm::Error, path: &Path, text: &str) -> Failure {
    match error {
        lm::Error::Rl(error) => Failure::in_config(error, path, text),
        other => usage(other).of(&path.display().to_string()),
    }
}

/// A new run: in `out`, else in the next free directory of `runs`.
fn create(config: &StageConfig, out: Option<&Path>, threads: usize) -> Result<StageRun, Failure> {
    let dir = if let Some(path) = out {
        RunDir::create(path)?
    } else {
        let stem = format!("{}-{}", config.name(), config.source());
        RunDir::create_next(Path::new("runs"), &stem)?
    };
    let root: PathBuf = dir.root().to_path_buf();
    config.create(dir, threads).map_err(|error| {
        // A refused run leaves nothing, but for a folder that the user named.
        let _ = std::fs::remove_dir(root.join("checkpoints"));
        let _ = std::fs::remove_file(root.join(".lock"));
        if out.is_none() {
            let _ = std::fs::remove_dir(&root);
        }
        usage(error)
    })
}

/// Trains to the end or until Ctrl-C, and says what came of it.
fn train(run: &mut StageRun, resume: bool, output: Output) -> Result<(), Failure> {
    watch(output)?;
    let finished = run.train(resume, sink(output), &STOP)?;
    if finished.stopped {
        return stopped(run.dir.root(), finished.steps, output);
    }
    tell(run.dir.root(), &finished, output);
    Ok(())
}

/// The result on stdout; as JSON the last event says it.
fn tell(dir: &Path, finished: &StageFinished, output: Output) {
    if output.json {
        return;
    }
    let last = |name: &str| finished.metrics.iter().find(|(n, _)| *n == name).map(|(_, x)| x);
    if let Some(loss) = last("train/loss") {
        output.line(format!("loss    {loss:.4} in the last step"));
    }
    if let Some(reward) = last("reward/mean") {
        output.line(format!("reward  {reward:.4} in the last step"));
    }
    if let Some(kl) = last("kl/response") {
        output.line(format!("kl      {kl:.4} nats from the reference"));
    }
    output.line(format!("model   {}", finished.model.display()));
    output.line(format!("run     {}", dir.display()));
}

/// Whether a directory holds a run of a stage, and not one of `cordada train`.
pub(crate) fn is_stage(dir: &RunDir) -> bool {
    dir.read_config().is_ok_and(|text| StageConfig::is_stage(&text))
}

pub(crate) fn resume(args: &ResumeArgs, output: Output) -> Result<(), Failure> {
    let dir = RunDir::open_to_write(&args.dir)?;
    let (path, text) = (dir.config_path(), dir.read_config()?);
    let config = StageConfig::from_toml(&text).map_err(|error| {
        let help = format!("put back what {} was; the run cannot go on without it", path.display());
        in_config(error, &path, &text).into_failed(help)
    })?;
    if let Some(done) = last_event(&dir.metrics_path()).filter(|event| event.event == "done") {
        let steps = done.steps.unwrap_or(config.run.total_steps);
        return already_done(&dir, &config, steps, output);
    }
    let mut run = config.make(dir, usize::from(args.threads))?;
    train(&mut run, true, output).map_err(|failure| {
        // Nothing is lost by a damaged checkpoint as long as an older one is whole.
        failure.or_help(format!(
            "`cordada rlhf {} --config {}` trains again from the beginning",
            config.run.stage,
            path.display()
        ))
    })
}

/// A finished run stays as it is: more steps would stretch its schedules, so that is a new run.
fn already_done(
    dir: &RunDir,
    config: &StageConfig,
    steps: u64,
    output: Output,
) -> Result<(), Failure> {
    let (root, total, stage) = (dir.root().display(), config.run.total_steps, &config.run.stage);
    output.note(format!("{root} is done: {steps} of {total} steps."));
    output.note("To train longer, start a new run from its model:");
    output.note(format!("  cordada rlhf {stage} {root} --config {root}/config.toml"));
    let model = load::locate(dir.root())?;
    if output.json {
        let run = root.to_string();
        let (seconds, steps_per_s) = (f64::NAN, f64::NAN);
        output.object(&Event::Done { run, steps, seconds, steps_per_s, eval_return: None });
    } else {
        output.line(format!("model   {}", model.display()));
        output.line(format!("run     {root}"));
    }
    Ok(())
}

impl From<lm::Error> for Failure {
    fn from(error: lm::Error) -> Self {
        match error {
            lm::Error::Rl(rl::Error::NoCheckpoint { path }) => Self::failed(
                format!("{} holds no checkpoint yet", path.display()),
                "continue the run with `cordada resume`; it writes one at the latest at its end",
            ),
            lm::Error::Rl(error) => Self::from(error),
            lm::Error::Log(error) => Self::from(error),
            other => Self::plain(other.to_string()),
        }
    }
}
