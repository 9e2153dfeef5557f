//! The config of a stage of training: everything that is needed to repeat it, as TOML. The stage
//! is made of it in `make.rs`.

use cordada_rl::config::{Checks, Config, Field};
use toml::{Table, Value};

use super::method::{AlignSettings, Method};
use super::sft::SftSettings;
use crate::adapter::{LoraConfig, linear_modules};
use crate::reward::did_you_mean;
use crate::{Error, Layout, tasks};

/// The names of the stages.
const STAGES: [&str; 2] = ["sft", "align"];
/// Settings of the run that alignment alone has.
const ALIGN_ONLY: [&str; 3] = ["reward", "method", "reference"];

cordada_rl::config! {
    /// What a run of a stage is, beside the stage's own settings.
    pub struct StageSettings {
        /// Stage: `sft` (fine-tuning on given answers) or `align` (policy gradients on a reward).
        stage: String = "sft".into();
        /// Model to begin from: a folder in Hugging Face's form, an adapter's, or a run's.
        model: String = String::new();
        /// JSONL file with examples; empty for a generated task.
        data: String = String::new();
        /// Generated task that gives the examples; empty for a file.
        task: String = String::new();
        /// Examples that a task generates.
        examples: usize = 4096, alias ["num_examples"];
        /// Longest example in tokens, in alignment the longest prompt; 0 for what the model can
        /// read.
        max_tokens: usize = 0, alias ["max_length", "max_prompt_length"];
        /// What happens to a longer example: `drop` leaves it out, `cut` cuts its answer.
        overlong: String = "drop".into();
        /// Largest share of examples that may be left out or cut.
        max_lost_share: f64 = 0.05;
        /// Terms of the reward, which are added; empty for the task's own.
        reward: Vec<String> = Vec::new();
        /// Method of alignment.
        method: String = "grpo".into(), alias ["algo"];
        /// Model that the KL divergence is taken to; empty for the one that training begins from.
        reference: String = String::new();
        /// GiB of activations that are kept for the way back; above it blocks are computed again,
        /// for a third more time. Results do not depend on it.
        activation_gib: f64 = 2.0;
        /// Seed of every random stream.
        seed: u64 = 1;
        /// Gradient steps of fine-tuning; in alignment, batches of responses.
        total_steps: u64 = 100, alias ["steps", "max_steps"];
        /// Seconds between checkpoints; 0 writes one after every step.
        checkpoint_seconds: f64 = 30.0;
        /// Checkpoints to keep.
        keep_checkpoints: usize = 3;
    }
}

impl Config for StageSettings {
    const FIELDS: &'static [Field] = StageSettings::FIELDS;

    fn check(&self, section: &str) -> Result<(), cordada_rl::Error> {
        let c = Checks { section };
        c.name("stage", &self.stage, &STAGES)?;
        c.name("overlong", &self.overlong, &["drop", "cut"])?;
        if self.model.is_empty() {
            return Err(c.refuse("model", "\"\"", "the folder of a model"));
        }
        match (self.data.is_empty(), self.task.is_empty()) {
            (true, true) => {
                return Err(c.refuse("data", "\"\"", "a JSONL file, or a task instead"));
            }
            (false, false) => return Err(c.refuse("task", &self.task, "none, as data is set")),
            _ => {}
        }
        if self.stage == "sft" {
            let none = "nothing, as fine-tuning has none";
            if let Some(term) = self.reward.first() {
                return Err(c.refuse("reward", term, none));
            }
            if !self.reference.is_empty() {
                return Err(c.refuse("reference", &self.reference, none));
            }
        }
        c.counts(&[("examples", self.examples), ("keep_checkpoints", self.keep_checkpoints)])?;
        c.counts(&[("total_steps", self.total_steps as usize)])?;
        c.unit(&[("max_lost_share", self.max_lost_share)])?;
        c.weights(&[("activation_gib", self.activation_gib)])?;
        let seconds = |x: f64| (0.0..=1e9).contains(&x);
        let range = "a number from 0 to 10⁹";
        c.number("checkpoint_seconds", self.checkpoint_seconds, seconds, range)?;
        if i64::try_from(self.seed).is_err() {
            return Err(c.refuse("seed", self.seed, "below 2⁶³, which config files hold"));
        }
        Ok(())
    }
}

cordada_rl::config! {
    /// A low-rank adapter that is trained instead of the model.
    pub struct LoraSettings {
        /// Rank r of each change.
        rank: usize = 8, alias ["r"];
        /// α: changes are multiplied by α / r.
        alpha: f64 = 16.0, alias ["lora_alpha"];
        /// Last parts of the names of the layers that are changed; empty for all linear ones.
        targets: Vec<String> = Vec::new(), alias ["target_modules"];
        /// Whether changes are multiplied by α / √r.
        rslora: bool = false, alias ["use_rslora"];
    }
}

impl Config for LoraSettings {
    const FIELDS: &'static [Field] = LoraSettings::FIELDS;

    fn check(&self, section: &str) -> Result<(), cordada_rl::Error> {
        let c = Checks { section };
        c.counts(&[("rank", self.rank)])?;
        let fits = |x: f64| x > 0.0 && x.is_finite();
        c.number("alpha", self.alpha, fits, "a finite number above 0")
    }
}

impl LoraSettings {
    /// The adapter of a model: without targets, of all its linear layers.
    pub fn of(&self, layout: &Layout) -> LoraConfig {
        LoraConfig {
            rank: self.rank,
            alpha: self.alpha,
            target_modules: if self.targets.is_empty() {
                linear_modules(layout)
            } else {
                self.targets.clone()
            },
            use_rslora: self.rslora,
        }
    }
}

/// The settings of a stage of one kind.
#[derive(Clone, Debug, PartialEq)]
pub enum StageKind {
    /// Fine-tuning.
    Sft(SftSettings),
    /// Alignment.
    Align(Box<AlignSettings>),
}

/// A whole config: the run, the adapter if there is one, and the stage's settings, complete.
///
/// # Examples
///
/// ```
/// use cordada_lm::train::StageConfig;
///
/// let text = "[run]\nstage = \"align\"\nmodel = \"my-model\"\ntask = \"sort\"\nmethod = \"rloo\"";
/// let config = StageConfig::from_toml(text)?;
/// assert_eq!(config.name(), "rloo");
/// assert_eq!(StageConfig::from_toml(&config.to_toml())?, config);
/// let error = StageConfig::from_toml(&format!("{text}\n[align]\nbetta = 0.1")).unwrap_err();
/// assert!(error.to_string().contains("did you mean \"beta\"?"));
/// # Ok::<(), cordada_lm::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct StageConfig {
    /// The run.
    pub run: StageSettings,
    /// The adapter that is trained; `None`: all parameters are.
    pub lora: Option<LoraSettings>,
    /// The stage's settings.
    pub kind: StageKind,
}

/// The parts of a config that are under way.
#[derive(Clone, Debug, Default)]
struct Parts {
    run: Table,
    lora: Option<Table>,
    settings: Table,
}

impl StageConfig {
    /// The defaults of a stage, with changes: keys of the stage's settings or, with `run.` before
    /// them or where the stage has no such setting, of the run's; with `lora.` before them, of the
    /// adapter's.
    ///
    /// # Errors
    ///
    /// For unknown names and values that cannot be used.
    pub fn new(stage: &str, changes: &[(String, Value)]) -> Result<Self, Error> {
        let run = Table::from_iter([("stage".to_string(), Value::String(stage.into()))]);
        Parts { run, ..Parts::default() }.changed(changes)?.complete()
    }

    /// The same config with changes, named as in [`StageConfig::new`]. Another method brings its
    /// own settings; the stage stays.
    ///
    /// # Errors
    ///
    /// For unknown names and values that cannot be used.
    pub fn with(&self, changes: &[(String, Value)]) -> Result<Self, Error> {
        let settings = match &self.kind {
            StageKind::Sft(settings) => settings.to_table(),
            StageKind::Align(settings) => settings.to_table(),
        };
        let lora = self.lora.as_ref().map(Config::to_table);
        let before = Parts { run: self.run.to_table(), lora, settings };
        let mut after = before.clone().changed(changes)?;
        if self.run.stage == "align" && after.run.get("method") != before.run.get("method") {
            after = Parts { settings: Table::new(), ..before }.changed(changes)?;
        }
        after.complete()
    }

    /// Reads the text of a config file: `[run]`, perhaps `[lora]`, and a table with the stage's
    /// name. Missing settings are at their defaults, in alignment at the method's.
    ///
    /// # Errors
    ///
    /// For invalid TOML, unknown names and values that cannot be used.
    pub fn from_toml(text: &str) -> Result<Self, Error> {
        let bad = |reason: String| Error::Rl(cordada_rl::Error::Config { reason });
        let mut table: Table = toml::from_str(text).map_err(|e| bad(e.to_string()))?;
        table.remove("version");
        let mut section = |name: &str| match table.remove(name) {
            None => Ok(None),
            Some(Value::Table(table)) => Ok(Some(table)),
            Some(_) => Err(bad(format!("{name} is not a table [{name}]"))),
        };
        let (run, lora) = (section("run")?.unwrap_or_default(), section("lora")?);
        let stage = run.get("stage").and_then(Value::as_str).unwrap_or(STAGES[0]).to_string();
        let settings = section(&stage)?.unwrap_or_default();
        if let Some(key) = table.keys().next() {
            let names = ["run", "lora", stage.as_str()];
            let meant = did_you_mean(key, names.into_iter());
            return Err(bad(format!("unknown table [{key}]{meant}")));
        }
        Parts { run, lora, settings }.complete()
    }

    /// Whether the text of a config file is that of a stage, and not of another kind of run.
    pub fn is_stage(text: &str) -> bool {
        let table: Option<Table> = toml::from_str(text).ok();
        table.is_some_and(|t| t.get("run").is_some_and(|run| run.get("stage").is_some()))
    }

    /// The text of a config file with every setting.
    pub fn to_toml(&self) -> String {
        let mut run = self.run.to_table();
        let (name, settings) = match &self.kind {
            StageKind::Sft(settings) => {
                run.retain(|key, _| !ALIGN_ONLY.contains(&key));
                ("sft", settings.to_table())
            }
            StageKind::Align(settings) => ("align", settings.to_table()),
        };
        let mut table = Table::new();
        table.insert("version".into(), Value::String(env!("CARGO_PKG_VERSION").into()));
        table.insert("run".into(), Value::Table(run));
        if let Some(lora) = &self.lora {
            table.insert("lora".into(), Value::Table(lora.to_table()));
        }
        table.insert(name.into(), Value::Table(settings));
        toml::to_string(&table).unwrap_or_else(|e| unreachable!("a table of plain values: {e}"))
    }

    /// Name of the method: `sft`, `grpo`, ….
    pub fn name(&self) -> &str {
        if self.run.stage == "sft" { "sft" } else { &self.run.method }
    }

    /// Name of what it learns from: the task, or the file's name without its ending.
    pub fn source(&self) -> String {
        if self.run.task.is_empty() {
            let stem = std::path::Path::new(&self.run.data).file_stem();
            stem.map_or_else(|| self.run.data.clone(), |s| s.to_string_lossy().into_owned())
        } else {
            self.run.task.clone()
        }
    }
}

/// The setting's name in the list, if it is there, by its name or an alias.
fn known(fields: &[Field], key: &str) -> Option<&'static str> {
    let field = fields.iter().find(|f| f.name == key || f.aliases.contains(&key));
    field.map(|f| f.name)
}

impl Parts {
    fn stage(&self) -> &str {
        self.run.get("stage").and_then(Value::as_str).unwrap_or(STAGES[0])
    }

    /// Puts changes where they belong; an alias replaces the value of the setting that it names.
    fn changed(mut self, changes: &[(String, Value)]) -> Result<Self, Error> {
        let stage = self.stage().to_string();
        let own = if stage == "sft" { SftSettings::FIELDS } else { AlignSettings::FIELDS };
        for (key, value) in changes {
            let (section, key) = match key.split_once('.') {
                Some((section, key)) if ["run", "lora", &stage].contains(&section) => {
                    (section, key)
                }
                _ => ("", key.as_str()),
            };
            if key == "stage" {
                return Err(Error::Setting(
                    "the stage is named as a command, not as a setting".into(),
                ));
            }
            let (table, name) = match section {
                "run" => (&mut self.run, known(StageSettings::FIELDS, key)),
                "lora" => (self.lora.get_or_insert_default(), known(LoraSettings::FIELDS, key)),
                "" if known(own, key).is_none() && known(StageSettings::FIELDS, key).is_some() => {
                    (&mut self.run, known(StageSettings::FIELDS, key))
                }
                _ => (&mut self.settings, known(own, key)),
            };
            table.insert(name.unwrap_or(key).to_string(), value.clone());
        }
        Ok(self)
    }

    /// All settings: the given ones, and the defaults of the stage, the method and the task.
    fn complete(self) -> Result<StageConfig, Error> {
        let Self { run, lora, settings } = self;
        let mut run = StageSettings::from_table("run", &run)?;
        let lora = lora.map(|table| LoraSettings::from_table("lora", &table)).transpose()?;
        let task = if run.task.is_empty() { None } else { Some(tasks::find(&run.task)?) };
        let kind = if run.stage == "sft" {
            run.method = StageSettings::default().method;
            StageKind::Sft(SftSettings::from_table("sft", &settings)?)
        } else {
            let method = Method::find(&run.method)?;
            run.method = method.name.to_string();
            let mut table = Table::new();
            // A task knows how long its answers are.
            let longest = "max_new_tokens";
            if let Some(task) = task
                && !settings.keys().any(|k| known(AlignSettings::FIELDS, k) == Some(longest))
            {
                table.insert(longest.into(), Value::Integer(task.max_new_tokens() as i64));
            }
            table.extend(settings);
            StageKind::Align(Box::new(method.settings(&table)?))
        };
        Ok(StageConfig { run, lora, kind })
    }
}

#[cfg(test)]
mod tests {
    use cordada_rl::config::parse_assignment;

    use super::*;

    fn config(stage: &str, changes: &[&str]) -> Result<StageConfig, Error> {
        let all = ["model=m", "task=sort"].iter().chain(changes);
        let changes: Vec<_> = all.map(|c| parse_assignment(c).unwrap()).collect();
        StageConfig::new(stage, &changes)
    }

    fn align(config: &StageConfig) -> &AlignSettings {
        match &config.kind {
            StageKind::Align(settings) => settings,
            StageKind::Sft(_) => panic!("fine-tuning"),
        }
    }

    #[test]
    fn changes_go_where_their_names_belong() {
        let c = config(
            "align",
            &["method=dr-grpo", "steps=7", "beta=0.5", "lora.r=4", "run.seed=9", "align.epochs=2"],
        )
        .unwrap();
        assert_eq!((c.run.method.as_str(), c.run.total_steps, c.run.seed), ("dr_grpo", 7, 9));
        assert_eq!((align(&c).kl_coef, align(&c).epochs), (0.5, 2));
        assert_eq!(align(&c).advantage, "center");
        assert_eq!(c.lora.as_ref().map(|l| (l.rank, l.alpha)), Some((4, 16.0)));
        // The task's, unless it is set.
        assert_eq!(align(&c).max_new_tokens, 16);
        let longer = config("align", &["max_completion_length=20"]).unwrap();
        assert_eq!(align(&longer).max_new_tokens, 20);
    }

    #[test]
    fn another_method_brings_its_own_settings() {
        let change = |text: &str| [parse_assignment(text).unwrap()];
        let c = config("align", &["epochs=3"]).unwrap();
        assert_eq!((align(&c).kl_coef, align(&c).epochs), (0.04, 3));
        let same = c.with(&change("seed=2")).unwrap();
        assert_eq!((align(&same).epochs, same.run.seed), (3, 2));
        // Other names replace what is set.
        let longer = c.with(&change("steps=8")).unwrap().with(&change("beta=0.5")).unwrap();
        assert_eq!((align(&longer).kl_coef, longer.run.total_steps), (0.5, 8));
        let other = c.with(&change("method=rloo")).unwrap();
        assert_eq!((align(&other).kl_coef, align(&other).epochs), (0.05, 1));
    }

    #[test]
    fn a_file_holds_what_a_run_needs_and_nothing_else() {
        for c in [
            config("align", &["reward=[\"exact\"]", "lora.targets=[\"q_proj\"]"]).unwrap(),
            config("sft", &["learning_rate=linear(1e-3)"]).unwrap(),
        ] {
            let text = c.to_toml();
            assert!(StageConfig::is_stage(&text));
            assert_eq!(StageConfig::from_toml(&text).unwrap(), c, "{text}");
            assert_eq!(text.contains("reward"), c.run.stage == "align", "{text}");
            let error = StageConfig::from_toml(&format!("{text}[lorra]\n")).unwrap_err();
            assert!(error.to_string().contains("[lorra], did you mean \"lora\"?"), "{error}");
        }
        assert!(!StageConfig::is_stage("[run]\nalgo = \"ppo\""));
    }

    #[test]
    fn what_cannot_be_used_is_refused_by_name() {
        let refused =
            |stage: &str, changes: &[&str]| config(stage, changes).unwrap_err().to_string();
        assert_eq!(
            refused("sft", &["batchsize=3"]),
            "unknown setting \"batchsize\" of sft, did you mean \"batch_size\"?"
        );
        assert!(refused("sft", &["run.sede=3"]).contains("did you mean \"seed\"?"));
        assert!(refused("sft", &["lora.rnk=3"]).contains("did you mean \"rank\"?"));
        assert_eq!(refused("sft", &["data=x.jsonl"]), "run.task = sort: none, as data is set");
        assert!(refused("sft", &["reward=[\"exact\"]"]).contains("fine-tuning has none"));
        assert!(refused("align", &["method=gropo"]).contains("did you mean \"grpo\"?"));
        assert!(refused("align", &["task=sorr"]).contains("did you mean \"sort\"?"));
        assert!(refused("align", &["total_steps=0"]).contains("at least 1"));
        assert!(refused("reward", &[]).contains("one of sft, align"));
    }
}
