//! The one outer loop: a run directory, an algorithm in it, and what happens between iterations:
//! events, checkpoints, evaluation, and stopping when asked to.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cordada_env::{Env, EnvSpec, StateReader, StateWriter};
use cordada_log::{Event, Fanout, JsonlSink, RunDir, Sink, TensorBoardSink};
use toml::{Table, Value};

use crate::algo::{self, AlgoSpec, Algorithm, Setup};
use crate::checkpoint;
use crate::config::{Config, Field};
use crate::error::Error;
use crate::evaluate::{EvalOptions, Evaluation, evaluate};
use crate::presets::preset;

crate::config! {
    /// What a run is, beside the algorithm's settings.
    pub struct RunSettings {
        /// Algorithm.
        algo: String = "ppo".to_string();
        /// Environment.
        env: String = "CartPole-v1".to_string();
        /// Seed of every random stream.
        seed: u64 = 1;
        /// Environment steps to train for; rounded up to whole iterations.
        total_steps: u64 = 100_000, alias ["total_timesteps", "steps"];
        /// Seconds between checkpoints; 0 writes one after every iteration.
        checkpoint_seconds: f64 = 30.0;
        /// Checkpoints to keep.
        keep_checkpoints: usize = 3;
        /// Episodes of the evaluation at the end; 0 for none.
        eval_episodes: usize = 100;
        /// Environment steps between evaluations on the way; 0 for none.
        eval_interval: u64 = 0;
    }
}

/// Checkpoints are at least so many times as far apart as one of them takes to write.
const SAVE_SHARE: u32 = 20;

/// Episodes of an evaluation at most; they are played side by side, in memory.
const MAX_EPISODES: usize = 1_000_000;

impl Config for RunSettings {
    const FIELDS: &'static [Field] = RunSettings::FIELDS;

    fn check(&self, section: &str) -> Result<(), Error> {
        let refuse = |key: &str, value: String, expected: &str| Error::BadValue {
            section: section.to_string(),
            key: key.to_string(),
            value,
            expected: expected.to_string(),
        };
        if self.total_steps == 0 {
            return Err(refuse("total_steps", "0".into(), "at least 1"));
        }
        let seconds = self.checkpoint_seconds;
        if !(0.0..=1e9).contains(&seconds) {
            return Err(refuse(
                "checkpoint_seconds",
                seconds.to_string(),
                "a number from 0 to 10⁹",
            ));
        }
        if self.eval_episodes > MAX_EPISODES {
            let expected = format!("at most {MAX_EPISODES}");
            return Err(refuse("eval_episodes", self.eval_episodes.to_string(), &expected));
        }
        if i64::try_from(self.seed).is_err() {
            return Err(refuse(
                "seed",
                self.seed.to_string(),
                "below 2⁶³, which config files hold",
            ));
        }
        Ok(())
    }
}

/// A whole config: the run and its algorithm's settings, complete.
#[derive(Clone, Debug, PartialEq)]
pub struct RunConfig {
    /// The run.
    pub run: RunSettings,
    /// The algorithm's settings.
    pub settings: Table,
}

impl RunConfig {
    /// The preset of an algorithm and environment, with changes: keys of the algorithm's settings
    /// or, with `run.` before them or where the algorithm has no such setting, of the run's.
    ///
    /// # Errors
    ///
    /// For unknown names and values that cannot be used.
    pub fn new(algo: &str, env: &str, changes: &[(String, Value)]) -> Result<Self, Error> {
        let algo = algo::find(algo)?;
        let env = cordada_env::find(env)?;
        let preset = preset(algo.name, env.name)?;
        let mut run = Table::new();
        if let Some(steps) = preset.total_steps {
            run.insert("total_steps".into(), Value::Integer(steps as i64));
        }
        run.insert("algo".into(), Value::String(algo.name.into()));
        run.insert("env".into(), Value::String(env.name.into()));
        Self::changed(algo, run, preset.settings, changes)
    }

    /// The same config with changes, named as in [`RunConfig::new`]. Algorithm and environment
    /// stay.
    ///
    /// # Errors
    ///
    /// For unknown names and values that cannot be used.
    pub fn with(&self, changes: &[(String, Value)]) -> Result<Self, Error> {
        Self::changed(self.algo()?, self.run.to_table(), self.settings.clone(), changes)
    }

    fn changed(
        algo: &AlgoSpec,
        mut run: Table,
        mut settings: Table,
        changes: &[(String, Value)],
    ) -> Result<Self, Error> {
        let fixed = ["algo", "env"].map(|key| (key.to_string(), run[key].clone()));
        for (key, value) in changes {
            if let Some(name) =
                ["algo", "env"].into_iter().find(|n| key.trim_start_matches("run.") == *n)
            {
                return Err(Error::BadValue {
                    section: "run".into(),
                    key: name.into(),
                    value: value.to_string(),
                    expected: "named as an argument, not as a setting".into(),
                });
            }
            let (section, key) = match key.split_once('.') {
                Some((section, key)) if section == "run" || section == algo.name => (section, key),
                _ => ("", key.as_str()),
            };
            // An alias replaces the value of the setting it names.
            let known = |fields: &[Field]| {
                let field = fields.iter().find(|f| f.name == key || f.aliases.contains(&key));
                field.map(|f| f.name)
            };
            let (own, of_run) = (known(algo.fields), known(RunSettings::FIELDS));
            let (table, name) = match (section, own) {
                ("run", _) => (&mut run, of_run),
                ("", None) if of_run.is_some() => (&mut run, of_run),
                _ => (&mut settings, own),
            };
            table.insert(name.unwrap_or(key).to_string(), value.clone());
        }
        run.extend(fixed);
        let run = RunSettings::from_table("run", &run)?;
        Ok(Self { run, settings: (algo.complete)(&settings)? })
    }

    /// Reads the text of a config file: `[run]` with at least `algo` and `env`, and a table with
    /// the algorithm's name. Missing settings are at their defaults; presets are not used.
    ///
    /// # Errors
    ///
    /// For invalid TOML, unknown names and values that cannot be used.
    pub fn from_toml(text: &str) -> Result<Self, Error> {
        let mut table: Table =
            toml::from_str(text).map_err(|e| Error::Config { reason: e.to_string() })?;
        table.remove("version");
        let section = |value: Option<Value>, name: &str| match value {
            None => Ok(Table::new()),
            Some(Value::Table(table)) => Ok(table),
            Some(_) => Err(Error::Config { reason: format!("{name} is not a table [{name}]") }),
        };
        let run = RunSettings::from_table("run", &section(table.remove("run"), "run")?)?;
        let algo = algo::find(&run.algo)?;
        let settings = section(table.remove(algo.name), algo.name)?;
        if let Some(key) = table.keys().next() {
            return Err(Error::UnknownKey {
                key: key.clone(),
                section: "the config".into(),
                nearest: crate::error::nearest(key, ["run", algo.name]),
            });
        }
        let env = cordada_env::find(&run.env)?.name.to_string();
        let run = RunSettings { algo: algo.name.into(), env, ..run };
        Ok(Self { run, settings: (algo.complete)(&settings)? })
    }

    /// The text of a config file with every setting.
    pub fn to_toml(&self) -> String {
        let version = Value::String(env!("CARGO_PKG_VERSION").into());
        let table = Table::from_iter([
            ("version".to_string(), version),
            ("run".to_string(), Value::Table(self.run.to_table())),
            (self.run.algo.clone(), Value::Table(self.settings.clone())),
        ]);
        toml::to_string(&table).unwrap_or_else(|e| unreachable!("a table of plain values: {e}"))
    }

    fn algo(&self) -> Result<&'static AlgoSpec, Error> {
        algo::find(&self.run.algo)
    }

    fn env(&self) -> Result<&'static EnvSpec, Error> {
        Ok(cordada_env::find(&self.run.env)?)
    }

    /// Makes the algorithm, at its start.
    ///
    /// # Errors
    ///
    /// If the environment or its spaces do not fit.
    pub fn make(&self, threads: usize) -> Result<Box<dyn Algorithm>, Error> {
        let env = self.env()?;
        let make_env = || -> Box<dyn Env> { env.build() };
        (self.algo()?.make)(&Setup {
            env: env.name,
            make_env: &make_env,
            settings: &self.settings,
            seed: self.run.seed,
            total_steps: self.run.total_steps,
            threads,
        })
    }

    /// Evaluates a policy in this run's environment, with streams apart from training's.
    ///
    /// # Errors
    ///
    /// If the environment does not exist.
    pub fn evaluate(&self, algorithm: &dyn Algorithm) -> Result<Evaluation, Error> {
        let env = self.env()?;
        let options = EvalOptions {
            episodes: self.run.eval_episodes,
            seed: self.run.seed,
            deterministic: true,
        };
        Ok(evaluate(&algorithm.policy(), &|| env.build(), options))
    }
}

/// A run in its directory.
#[derive(Debug)]
pub struct Run {
    config: RunConfig,
    dir: RunDir,
    algorithm: Box<dyn Algorithm>,
    threads: usize,
    resumed: Option<Resumed>,
}

/// What a resumed run goes on from.
#[derive(Debug)]
struct Resumed {
    /// The checkpoint; none if there was none yet.
    path: Option<PathBuf>,
    metrics_bytes: u64,
    warnings: Vec<String>,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Finished {
    /// Environment steps of the whole run.
    pub steps: u64,
    /// Seconds that this process trained, without evaluation.
    pub seconds: f64,
    /// Steps that this process did per second of them.
    pub steps_per_s: f64,
    /// The evaluation at the end.
    pub evaluation: Option<Evaluation>,
    /// Whether it was asked to stop before its end.
    pub stopped: bool,
}

impl Run {
    /// A new run; the directory must be empty.
    ///
    /// # Errors
    ///
    /// For what [`RunConfig::make`] refuses, and what the file system says.
    pub fn create(config: RunConfig, dir: RunDir, threads: usize) -> Result<Self, Error> {
        let algorithm = config.make(threads)?;
        dir.write_config(&config.to_toml())?;
        Ok(Self { config, dir, algorithm, threads, resumed: None })
    }

    /// A run as it was at its newest whole checkpoint, or at its beginning if it ended before the
    /// first one.
    ///
    /// # Errors
    ///
    /// If the directory is not a run's, its config or all its checkpoints are damaged.
    pub fn resume(dir: RunDir, threads: usize) -> Result<Self, Error> {
        let config = RunConfig::from_toml(&dir.read_config()?)?;
        let mut algorithm = config.make(threads)?;
        let resumed = match checkpoint::newest(&dir.checkpoints_dir()) {
            Ok(found) => {
                let mut r = StateReader::new(&found.state);
                let metrics_bytes = r.u64()?;
                algorithm.load(&found.policy, &mut r)?;
                r.finish()?;
                Resumed { path: Some(found.path), metrics_bytes, warnings: found.refused }
            }
            // It ended before its first checkpoint, so its beginning is where it goes on.
            Err(Error::NoCheckpoint { .. }) => {
                let warning = "there is no checkpoint yet: the run starts from its beginning";
                Resumed { path: None, metrics_bytes: 0, warnings: vec![warning.into()] }
            }
            Err(error) => return Err(error),
        };
        Ok(Self { config, dir, algorithm, threads, resumed: Some(resumed) })
    }

    /// Its config.
    pub fn config(&self) -> &RunConfig {
        &self.config
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        self.dir.root()
    }

    /// Its algorithm.
    pub fn algorithm(&self) -> &dyn Algorithm {
        &*self.algorithm
    }

    /// Trains to the end, or until `stop` is set: then a checkpoint is written after the iteration
    /// under way. Events go to the run directory and to `sink`.
    ///
    /// # Errors
    ///
    /// [`Error::NonFinite`] if training broke down (the last checkpoint is kept), and what the
    /// file system says.
    pub fn train(
        &mut self,
        sink: impl Sink + Send + 'static,
        stop: &AtomicBool,
    ) -> Result<Finished, Error> {
        let metrics_path = self.dir.metrics_path();
        let tensorboard = self.dir.tensorboard_dir();
        let (jsonl, tensorboard) = match &self.resumed {
            None => (JsonlSink::create(&metrics_path)?, TensorBoardSink::create(&tensorboard)?),
            Some(from) => (
                JsonlSink::resume(&metrics_path, from.metrics_bytes)?,
                TensorBoardSink::resume(&tensorboard, self.algorithm.steps())?,
            ),
        };
        let position = jsonl.position();
        let mut sinks = Fanout::new(vec![Box::new(jsonl), Box::new(tensorboard), Box::new(sink)]);
        self.announce(&mut sinks)?;
        let outcome = self.train_loop(&mut sinks, &|| position.bytes(), stop);
        if let Err(error) = &outcome {
            let (step, message) = (self.algorithm.steps(), error.to_string());
            // The first error is the one to tell.
            let _ = sinks.record(&Event::Failed { step, message }).and_then(|()| sinks.flush());
        }
        self.report(&mut sinks);
        outcome
    }

    /// Writes the run's report. A run is worth as much without one, so that a report cannot be
    /// written is a warning.
    fn report(&self, sinks: &mut Fanout) {
        if let Err(error) = cordada_log::write_report(&self.dir) {
            let step = self.algorithm.steps();
            let message = format!("there is no report of this run: {error}");
            // Whoever cannot take a warning cannot take a second one about it.
            let _ = sinks.record(&Event::Warning { step, message }).and_then(|()| sinks.flush());
        }
    }

    fn announce(&mut self, sinks: &mut Fanout) -> Result<(), Error> {
        let run = &self.config.run;
        sinks.record(&Event::Start {
            run: self.dir.root().display().to_string(),
            algo: run.algo.clone(),
            env: run.env.clone(),
            seed: run.seed,
            total_steps: run.total_steps,
            threads: self.threads,
            version: env!("CARGO_PKG_VERSION").into(),
        })?;
        let step = self.algorithm.steps();
        for message in self.algorithm.notes() {
            sinks.record(&Event::Note { step, message })?;
        }
        if let Some(from) = self.resumed.take() {
            for message in from.warnings {
                sinks.record(&Event::Warning { step, message })?;
            }
            if let Some(path) = from.path {
                sinks.record(&Event::Resume { step, path: path.display().to_string() })?;
            }
        }
        Ok(())
    }

    fn train_loop(
        &mut self,
        sinks: &mut Fanout,
        metrics_bytes: &dyn Fn() -> u64,
        stop: &AtomicBool,
    ) -> Result<Finished, Error> {
        let total = self.config.run.total_steps;
        let interval = self.config.run.eval_interval;
        let every = Duration::from_secs_f64(self.config.run.checkpoint_seconds);
        let first = self.algorithm.steps();
        let (mut trained, mut saved) = (Duration::ZERO, Instant::now());
        let mut wait = every;
        let mut is_saved = self.algorithm.steps() > 0;
        while self.algorithm.steps() < total && !stop.load(Ordering::Relaxed) {
            let (began, before) = (Instant::now(), self.algorithm.steps());
            let report = self.algorithm.iterate()?;
            trained += began.elapsed();
            let steps = self.algorithm.steps();
            let mut values = report.metrics;
            let seconds = trained.as_secs_f64();
            values.push(("time/seconds", seconds));
            values.push(("time/steps_per_s", (steps - first) as f64 / seconds));
            let iteration = self.algorithm.iterations();
            sinks.record(&Event::Metrics { step: steps, iteration, values })?;
            if interval > 0 && steps / interval > before / interval && steps < total {
                self.evaluate(sinks)?;
            }
            is_saved = saved.elapsed() >= wait;
            if is_saved {
                let began = Instant::now();
                self.save(sinks, metrics_bytes)?;
                saved = Instant::now();
                // A large replay memory takes its time to write: no more than a twentieth of all.
                if !every.is_zero() {
                    wait = every.max(SAVE_SHARE * (saved - began));
                }
            }
        }
        let stopped = self.algorithm.steps() < total;
        if !is_saved {
            self.save(sinks, metrics_bytes)?;
        }
        let evaluation = if stopped { None } else { self.evaluate(sinks)? };
        let (steps, seconds) = (self.algorithm.steps(), trained.as_secs_f64());
        let steps_per_s = (steps - first) as f64 / seconds.max(f64::MIN_POSITIVE);
        let run = self.dir.root().display().to_string();
        let eval_return = evaluation.as_ref().map(|e| e.mean_return);
        if !stopped {
            sinks.record(&Event::Done { run, steps, seconds, steps_per_s, eval_return })?;
        }
        sinks.flush()?;
        Ok(Finished { steps, seconds, steps_per_s, evaluation, stopped })
    }

    fn evaluate(&self, sinks: &mut Fanout) -> Result<Option<Evaluation>, Error> {
        if self.config.run.eval_episodes == 0 {
            return Ok(None);
        }
        let evaluation = self.config.evaluate(&*self.algorithm)?;
        sinks.record(&Event::Evaluation {
            step: self.algorithm.steps(),
            episodes: evaluation.episodes as u64,
            mean_return: evaluation.mean_return,
            std_return: evaluation.std_return,
            mean_length: evaluation.mean_length,
            deterministic: evaluation.deterministic,
        })?;
        Ok(Some(evaluation))
    }

    fn save(&self, sinks: &mut Fanout, metrics_bytes: &dyn Fn() -> u64) -> Result<(), Error> {
        // What the checkpoint refers to must be on the disk before it.
        sinks.flush()?;
        let mut w = StateWriter::new();
        w.u64(metrics_bytes());
        self.algorithm.save(&mut w);
        let (steps, folder) = (self.algorithm.steps(), self.dir.checkpoints_dir());
        let path = checkpoint::save(&folder, steps, &self.algorithm.policy(), w.as_bytes())?;
        checkpoint::prune(&folder, steps, self.config.run.keep_checkpoints)?;
        sinks.record(&Event::Checkpoint { step: steps, path: path.display().to_string() })?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse_assignment;

    fn config(changes: &[&str]) -> Result<RunConfig, Error> {
        let changes: Vec<_> = changes.iter().map(|c| parse_assignment(c).unwrap()).collect();
        RunConfig::new("PPO", "cartpole-v1", &changes)
    }

    #[test]
    fn changes_go_where_their_names_belong() {
        let changes = ["seed=5", "gamma=0.5", "ppo.gae_lambda=0.25", "run.eval_episodes=7"];
        let config = config(&changes).unwrap();
        assert_eq!((config.run.seed, config.run.eval_episodes), (5, 7));
        assert_eq!(config.settings["gamma"].as_float(), Some(0.5));
        assert_eq!(config.settings["gae_lambda"].as_float(), Some(0.25));
        // Names are those of the lists, whatever was typed, and are not to be changed.
        assert_eq!((config.run.algo.as_str(), config.run.env.as_str()), ("ppo", "CartPole-v1"));
        for key in ["env", "run.env"] {
            let change = [(key.to_string(), Value::String("Pendulum-v1".into()))];
            let error = config.with(&change).unwrap_err().to_string();
            let message = "run.env = \"Pendulum-v1\": named as an argument, not as a setting";
            assert_eq!(error, message);
        }
    }

    #[test]
    fn other_names_replace_what_the_preset_says() {
        let preset = config(&[]).unwrap();
        let found = preset.settings["num_steps"].as_integer().unwrap();
        let config = config(&["n_steps=16", "total_timesteps=99", "num_minibatches=1"]).unwrap();
        assert_ne!(found, 16);
        assert_eq!(config.settings["num_steps"].as_integer(), Some(16));
        assert_eq!(config.run.total_steps, 99);
    }

    #[test]
    fn a_file_holds_what_a_run_needs_and_nothing_else() {
        let config = config(&["seed=3", "learning_rate=linear(1e-3)"]).unwrap();
        let text = config.to_toml();
        assert!(text.starts_with(concat!("version = \"", env!("CARGO_PKG_VERSION"), "\"\n")));
        assert_eq!(RunConfig::from_toml(&text).unwrap(), config);
        let error = |text: &str| RunConfig::from_toml(text).unwrap_err().to_string();
        assert_eq!(error("run = 1"), "the config is not valid: run is not a table [run]");
        let extra = format!("{text}[rum]\n");
        let expected = "unknown setting \"rum\" of the config, did you mean \"run\"?";
        assert_eq!(error(&extra), expected);
        assert!(error("run = ").starts_with("the config is not valid: TOML parse error at line 1"));
    }
}
