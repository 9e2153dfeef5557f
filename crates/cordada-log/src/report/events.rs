//! Reads a metrics file into what the report shows, line by line, in memory that does not grow
//! with the length of the run.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind};
use std::path::Path;

use serde_json::{Map, Value};

use super::series::Series;
use crate::Error;

/// Warnings that are shown; more are counted.
const MAX_WARNINGS: usize = 50;

/// A run as its events tell it.
#[derive(Debug, Default)]
pub(super) struct Summary {
    /// The last start, field by field as it is shown.
    pub(super) start: Option<Start>,
    /// Processes that trained.
    pub(super) processes: u64,
    /// Metrics and evaluations by name.
    pub(super) metrics: BTreeMap<String, Series>,
    /// The last evaluation: episodes, mean and standard deviation of the return.
    pub(super) evaluation: Option<(u64, f64, f64)>,
    /// Step and message.
    pub(super) warnings: Vec<(u64, String)>,
    /// Warnings beyond those kept.
    pub(super) more_warnings: u64,
    /// Step and message of the error that ended the run.
    pub(super) failed: Option<(u64, String)>,
    /// Whether the run reached its end.
    pub(super) is_done: bool,
    /// The last step and iteration seen.
    pub(super) steps: u64,
    pub(super) iterations: u64,
    pub(super) steps_per_s: Option<f64>,
    /// Seconds of the processes before the last one, and of that one.
    earlier_seconds: f64,
    seconds: f64,
}

/// How a run began.
#[derive(Debug)]
pub(super) struct Start {
    pub(super) run: String,
    pub(super) algo: String,
    pub(super) env: String,
    pub(super) seed: u64,
    pub(super) total_steps: u64,
    pub(super) threads: u64,
    pub(super) version: String,
}

impl Summary {
    /// Reads the file; a missing one is an empty run, and a torn last line is skipped.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the file cannot be read, [`Error::MalformedLine`] if a line other than the
    /// last is not an event.
    pub(super) fn read(path: &Path) -> Result<Self, Error> {
        let mut summary = Self::default();
        let mut reader = match File::open(path) {
            Ok(file) => BufReader::new(file),
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(summary),
            Err(e) => return Err(Error::io("read", path, e)),
        };
        let (mut line, mut number) = (Vec::new(), 0);
        loop {
            line.clear();
            let read = reader.read_until(b'\n', &mut line);
            if read.map_err(|e| Error::io("read", path, e))? == 0 {
                return Ok(summary);
            }
            number += 1;
            let reason = match serde_json::from_slice::<Map<String, Value>>(&line) {
                Ok(event) if event.get("event").is_some_and(Value::is_string) => {
                    summary.take(&event);
                    continue;
                }
                Ok(_) => "it has no key `event`".to_owned(),
                Err(_) if !line.ends_with(b"\n") => continue,
                Err(reason) => reason.to_string(),
            };
            return Err(Error::MalformedLine { path: path.to_path_buf(), line: number, reason });
        }
    }

    /// Time of all processes together. Unit: seconds.
    pub(super) fn total_seconds(&self) -> f64 {
        self.earlier_seconds + self.seconds
    }

    fn take(&mut self, event: &Map<String, Value>) {
        let step = count(event, "step");
        self.steps = self.steps.max(step);
        match event["event"].as_str().unwrap_or_default() {
            "start" => self.begin(event),
            "metrics" => {
                self.iterations = count(event, "iteration");
                let clock = event.get("time").and_then(Value::as_object);
                for (name, value) in event.iter().chain(clock.into_iter().flatten()) {
                    if let (true, Some(value)) = (name.contains('/'), number(value)) {
                        self.push(name, step, value);
                    }
                }
            }
            "evaluation" => self.evaluate(step, event),
            "warning" if self.warnings.len() < MAX_WARNINGS => {
                self.warnings.push((step, text(event, "message")));
            }
            "warning" => self.more_warnings += 1,
            "failed" => self.failed = Some((step, text(event, "message"))),
            "done" => {
                self.is_done = true;
                self.steps = self.steps.max(count(event, "steps"));
                self.seconds = float(event, "seconds").unwrap_or(self.seconds);
                self.steps_per_s = float(event, "steps_per_s").or(self.steps_per_s);
            }
            // Checkpoints and resumptions are not shown.
            _ => {}
        }
    }

    fn begin(&mut self, event: &Map<String, Value>) {
        self.processes += 1;
        self.earlier_seconds += self.seconds;
        self.seconds = 0.0;
        // What ended an earlier process did not end the run.
        (self.failed, self.is_done) = (None, false);
        self.start = Some(Start {
            run: text(event, "run"),
            algo: text(event, "algo"),
            env: text(event, "env"),
            seed: count(event, "seed"),
            total_steps: count(event, "total_steps"),
            threads: count(event, "threads"),
            version: text(event, "version"),
        });
    }

    fn evaluate(&mut self, step: u64, event: &Map<String, Value>) {
        let fields = ["mean_return", "std_return", "mean_length"];
        let [mean, std, length] = fields.map(|key| float(event, key).unwrap_or(f64::NAN));
        self.evaluation = Some((count(event, "episodes"), mean, std));
        for (name, value) in
            [("eval/mean_return", mean), ("eval/std_return", std), ("eval/mean_length", length)]
        {
            self.push(name, step, value);
        }
    }

    fn push(&mut self, name: &str, step: u64, value: f64) {
        match name {
            "time/seconds" => self.seconds = value,
            "time/steps_per_s" => self.steps_per_s = Some(value),
            _ => {}
        }
        // `entry` would copy the name for every value.
        if let Some(series) = self.metrics.get_mut(name) {
            series.push(step as f64, value);
        } else {
            self.metrics.entry(name.to_owned()).or_default().push(step as f64, value);
        }
    }
}

fn text(event: &Map<String, Value>, key: &str) -> String {
    event.get(key).and_then(Value::as_str).unwrap_or("?").to_owned()
}

fn count(event: &Map<String, Value>, key: &str) -> u64 {
    event.get(key).and_then(Value::as_u64).unwrap_or(0)
}

fn float(event: &Map<String, Value>, key: &str) -> Option<f64> {
    event.get(key).and_then(number)
}

/// A number, or one of the strings that stand for what JSON cannot hold.
fn number(value: &Value) -> Option<f64> {
    match value.as_str() {
        Some("nan") => Some(f64::NAN),
        Some("inf") => Some(f64::INFINITY),
        Some("-inf") => Some(f64::NEG_INFINITY),
        Some(_) => None,
        None => value.as_f64(),
    }
}
