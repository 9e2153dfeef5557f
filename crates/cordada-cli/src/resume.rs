//! `cordada resume`: a run goes on from its newest whole checkpoint.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use cordada::log::RunDir;
use cordada::rl;
use cordada::rl::train::{Run, RunConfig};
use serde::Deserialize;

use crate::args::ResumeArgs;
use crate::output::Output;
use crate::report::Failure;
use crate::rlhf;
use crate::train::{print_result, train};

/// The last line of a finished run is shorter than this. Unit: bytes.
const TAIL: u64 = 16 * 1024;

pub(crate) fn run(args: &ResumeArgs, output: Output) -> Result<(), Failure> {
    if rlhf::is_stage(&RunDir::open(&args.dir)?) {
        return rlhf::resume(args, output);
    }
    let dir = RunDir::open_to_write(&args.dir)?;
    let (path, shown) = (dir.config_path(), args.dir.display());
    let text = dir.read_config()?;
    let config = RunConfig::from_toml(&text).map_err(|error| {
        let help = format!("put back what {} was; the run cannot go on without it", path.display());
        Failure::in_config(error, &path, &text).into_failed(help)
    })?;
    if let Some(done) = last_event(&dir.metrics_path()).filter(|event| event.event == "done") {
        finished(&done, &config, &dir, output);
        return Ok(());
    }
    let mut run = Run::resume(dir, usize::from(args.threads)).map_err(|error| match error {
        rl::Error::Checkpoint { .. } | rl::Error::State(_) => {
            let help = format!(
                "no older checkpoint is whole either; train again with `cordada train --config \
                 {shown}/config.toml`"
            );
            Failure::from(error).into_failed(help)
        }
        other => Failure::from(other),
    })?;
    let finished = train(&mut run, output)?;
    print_result(&run, &finished, output);
    Ok(())
}

/// The part of an event that tells whether a run is done, and how.
#[derive(Deserialize)]
pub(crate) struct LastEvent {
    pub(crate) event: String,
    pub(crate) steps: Option<u64>,
    seconds: Option<f64>,
    steps_per_s: Option<f64>,
    eval_return: Option<f64>,
}

/// A finished run stays as it is: more steps would stretch its schedules, so that is a new run.
fn finished(done: &LastEvent, config: &RunConfig, dir: &RunDir, output: Output) {
    let (steps, root) = (done.steps.unwrap_or(config.run.total_steps), dir.root().display());
    output.note(format!("{root} is done: {steps} of {} steps.", config.run.total_steps));
    output.note("To train longer, start a new run with its settings and more steps:");
    let more = config.run.total_steps.saturating_mul(2);
    output.note(format!("  cordada train --config {root}/config.toml --steps {more}"));
    if output.json {
        output.object(&cordada::log::Event::Done {
            run: root.to_string(),
            steps,
            seconds: done.seconds.unwrap_or(f64::NAN),
            steps_per_s: done.steps_per_s.unwrap_or(f64::NAN),
            eval_return: done.eval_return,
        });
    } else {
        if let Some(value) = done.eval_return {
            output.line(format!("return  {value:.1}"));
        }
        output.line(format!("run     {root}"));
    }
}

/// The last event of a run's metrics, if there is a whole one.
pub(crate) fn last_event(path: &Path) -> Option<LastEvent> {
    let mut file = File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL))).ok()?;
    let mut tail = Vec::new();
    file.read_to_end(&mut tail).ok()?;
    let line = tail.strip_suffix(b"\n")?.rsplit(|&byte| byte == b'\n').next()?;
    serde_json::from_slice(line).ok()
}
