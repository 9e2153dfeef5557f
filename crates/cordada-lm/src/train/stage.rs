//! The loop around every stage of training: a run directory, events, checkpoints, and stopping
//! when asked to.

use std::fmt::Debug;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cordada_env::{StateReader, StateWriter};
use cordada_log::{Event, Fanout, JsonlSink, RunDir, Sink, TensorBoardSink};
use cordada_rl::checkpoint;
use serde::Serialize;

use super::state::write_files;
use crate::adapter::{AdapterLayout, LoraConfig};
use crate::tokenizer::Tokenizer;
use crate::{Error, LanguageModel};

/// Checkpoints are at least so many times as far apart as one of them takes to write.
const SAVE_SHARE: u32 = 20;

/// The numbers of one step.
#[derive(Clone, Debug, Default)]
pub struct StageReport {
    /// Metrics by name.
    pub metrics: Vec<(&'static str, f64)>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// A response of a batch that stopped a run.
#[derive(Clone, Debug, Serialize)]
pub struct Broken {
    /// What it answers.
    pub prompt: String,
    /// The response.
    pub response: String,
    /// Its score, if it is a number.
    pub score: Option<f64>,
}

/// A stage of training: supervised fine-tuning, alignment, a reward model.
pub trait Stage: Debug + Send {
    /// One step.
    ///
    /// # Errors
    ///
    /// If training broke down or a reward could not be had. The run then ends at its last checkpoint.
    fn iterate(&mut self) -> Result<StageReport, Error>;
    /// Steps done.
    fn step(&self) -> u64;
    /// Steps to do.
    fn total_steps(&self) -> u64;
    /// The model that is trained.
    fn model(&self) -> &dyn LanguageModel;
    /// Its tokenizer.
    fn tokenizer(&self) -> &Tokenizer;
    /// The batch of the last step, for looking at what went wrong.
    fn last_batch(&self) -> Vec<Broken>;
    /// Appends all state.
    fn save(&self, w: &mut StateWriter);
    /// Restores the state.
    ///
    /// # Errors
    ///
    /// If it is of another kind of run.
    fn load(&mut self, r: &mut StateReader<'_>) -> Result<(), Error>;
}

/// How a run is named and kept.
#[derive(Debug)]
pub struct StageRun {
    /// The stage.
    pub stage: Box<dyn Stage>,
    /// Its directory; its config is written.
    pub dir: RunDir,
    /// Name of the stage's method: `sft`, `grpo`, ….
    pub method: String,
    /// What it works on, for the log.
    pub task: String,
    /// Seed of every random stream.
    pub seed: u64,
    /// Seconds between checkpoints; 0 writes one after every step.
    pub checkpoint_seconds: f64,
    /// Checkpoints to keep.
    pub keep_checkpoints: usize,
    /// The adapter's settings, places and base model, if one is trained.
    pub lora: Option<(LoraConfig, AdapterLayout, String)>,
    /// What the user may want to know at the beginning.
    pub notes: Vec<String>,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub struct StageFinished {
    /// Steps of the whole run.
    pub steps: u64,
    /// Seconds that this process trained.
    pub seconds: f64,
    /// The newest checkpoint, which is the trained model.
    pub model: PathBuf,
    /// The last step's metrics.
    pub metrics: Vec<(&'static str, f64)>,
    /// Whether it was asked to stop before its end.
    pub stopped: bool,
}

/// What a resumed run goes on from.
struct Resumed {
    path: Option<PathBuf>,
    metrics_bytes: u64,
    warnings: Vec<String>,
}

impl StageRun {
    /// Trains to the end, or until `stop` is set. `resume`: from the newest whole checkpoint.
    ///
    /// # Errors
    ///
    /// What a step says, after its batch is written beside the metrics; and what the file system
    /// says.
    pub fn train(
        &mut self,
        resume: bool,
        sink: impl Sink + Send + 'static,
        stop: &AtomicBool,
    ) -> Result<StageFinished, Error> {
        let resumed = if resume { Some(self.restore()?) } else { None };
        let (metrics, tensorboard) = (self.dir.metrics_path(), self.dir.tensorboard_dir());
        let step = self.stage.step();
        let (jsonl, tensorboard) = match &resumed {
            None => (JsonlSink::create(&metrics)?, TensorBoardSink::create(&tensorboard)?),
            Some(from) => (
                JsonlSink::resume(&metrics, from.metrics_bytes)?,
                TensorBoardSink::resume(&tensorboard, step)?,
            ),
        };
        let position = jsonl.position();
        let mut sinks = Fanout::new(vec![Box::new(jsonl), Box::new(tensorboard), Box::new(sink)]);
        sinks.record(&Event::Start {
            run: self.dir.root().display().to_string(),
            algo: self.method.clone(),
            env: self.task.clone(),
            seed: self.seed,
            total_steps: self.stage.total_steps(),
            threads: self.stage.model().num_threads(),
            version: env!("CARGO_PKG_VERSION").into(),
        })?;
        for message in self.notes.drain(..) {
            sinks.record(&Event::Note { step, message })?;
        }
        if let Some(from) = resumed {
            for message in from.warnings {
                sinks.record(&Event::Warning { step, message })?;
            }
            if let Some(path) = from.path {
                sinks.record(&Event::Resume { step, path: path.display().to_string() })?;
            }
        }
        let outcome = self.steps(&mut sinks, &|| position.bytes(), stop);
        if let Err(error) = &outcome {
            let (step, message) = (self.stage.step(), error.to_string());
            // The first error is the one to tell.
            let _ = sinks.record(&Event::Failed { step, message }).and_then(|()| sinks.flush());
        }
        outcome
    }

    fn restore(&mut self) -> Result<Resumed, Error> {
        match checkpoint::newest_with(&self.dir.checkpoints_dir(), |_| Ok(())) {
            Ok((found, ())) => {
                let state = |e: cordada_env::StateError| Error::File {
                    path: found.path.clone(),
                    problem: e.to_string(),
                };
                let mut r = StateReader::new(&found.state);
                let metrics_bytes = r.u64().map_err(state)?;
                self.stage.load(&mut r)?;
                r.finish().map_err(state)?;
                Ok(Resumed { path: Some(found.path), metrics_bytes, warnings: found.refused })
            }
            Err(cordada_rl::Error::NoCheckpoint { .. }) => {
                let warning = "there is no checkpoint yet: the run starts from its beginning";
                Ok(Resumed { path: None, metrics_bytes: 0, warnings: vec![warning.into()] })
            }
            Err(error) => Err(error.into()),
        }
    }

    fn steps(
        &mut self,
        sinks: &mut Fanout,
        metrics_bytes: &dyn Fn() -> u64,
        stop: &AtomicBool,
    ) -> Result<StageFinished, Error> {
        let total = self.stage.total_steps();
        let every = Duration::from_secs_f64(self.checkpoint_seconds);
        let first = self.stage.step();
        let (mut trained, mut saved, mut wait) = (Duration::ZERO, Instant::now(), every);
        let mut path = None;
        let mut metrics = Vec::new();
        while self.stage.step() < total && !stop.load(Ordering::Relaxed) {
            let began = Instant::now();
            let report = self.stage.iterate().inspect_err(|_| self.keep_batch())?;
            trained += began.elapsed();
            let (step, seconds) = (self.stage.step(), trained.as_secs_f64());
            for message in report.warnings {
                sinks.record(&Event::Warning { step, message })?;
            }
            let mut values = report.metrics;
            metrics.clone_from(&values);
            values.push(("time/seconds", seconds));
            values.push(("time/steps_per_s", (step - first) as f64 / seconds));
            sinks.record(&Event::Metrics { step, iteration: step, values })?;
            path = None;
            if saved.elapsed() >= wait && step < total {
                let began = Instant::now();
                path = Some(self.checkpoint(sinks, metrics_bytes)?);
                saved = Instant::now();
                if !every.is_zero() {
                    wait = every.max(SAVE_SHARE * (saved - began));
                }
            }
        }
        let model = match path {
            Some(path) => path,
            None => self.checkpoint(sinks, metrics_bytes)?,
        };
        let (steps, seconds) = (self.stage.step(), trained.as_secs_f64());
        let stopped = steps < total;
        if !stopped {
            let run = self.dir.root().display().to_string();
            let steps_per_s = (steps - first) as f64 / seconds.max(f64::MIN_POSITIVE);
            sinks.record(&Event::Done { run, steps, seconds, steps_per_s, eval_return: None })?;
        }
        sinks.flush()?;
        Ok(StageFinished { steps, seconds, model, metrics, stopped })
    }

    fn checkpoint(
        &self,
        sinks: &mut Fanout,
        metrics_bytes: &dyn Fn() -> u64,
    ) -> Result<PathBuf, Error> {
        // What the checkpoint refers to must be on the disk before it.
        sinks.flush()?;
        let mut w = StateWriter::new();
        w.u64(metrics_bytes());
        self.stage.save(&mut w);
        let (step, folder) = (self.stage.step(), self.dir.checkpoints_dir());
        let path = checkpoint::save_files(&folder, step, w.as_bytes(), |folder| {
            write_files(folder, self.stage.model(), self.lora.as_ref())?;
            self.stage.tokenizer().write(folder)
        })?;
        checkpoint::prune(&folder, step, self.keep_checkpoints)?;
        sinks.record(&Event::Checkpoint { step, path: path.display().to_string() })?;
        Ok(path)
    }

    /// Writes the batch of a step that failed, for looking at it.
    fn keep_batch(&self) {
        let path = self.batch_path();
        let lines: Vec<String> = self
            .stage
            .last_batch()
            .iter()
            .filter_map(|response| serde_json::to_string(response).ok())
            .collect();
        // The step's own error is the one to tell.
        let _ = fs::write(path, lines.join("\n") + "\n");
    }

    fn batch_path(&self) -> PathBuf {
        self.dir.root().join(format!("failed-batch-{}.jsonl", self.stage.step()))
    }
}

/// The newest whole checkpoint of a run, which is a model's folder.
///
/// # Errors
///
/// If there is none or all are damaged.
pub fn newest_model(run: &Path) -> Result<PathBuf, Error> {
    let (found, ()) = checkpoint::newest_with(&run.join("checkpoints"), |_| Ok(()))?;
    Ok(found.path)
}
