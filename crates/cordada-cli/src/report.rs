//! Errors as reports: what happened, the place in a config file, the remedy, the exit code.

use std::fmt;
use std::path::Path;

use cordada::{env, log, rl};
use miette::{
    Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, Severity,
    SourceCode, SourceSpan,
};

use crate::locate::locate;
use crate::output::Output;

/// Exit code of a command that failed.
const FAILED: u8 = 1;
/// Exit code of wrong usage.
const USAGE: u8 = 2;
/// Exit code of a command that was interrupted: 128 + SIGINT.
const INTERRUPTED: u8 = 130;
/// Width of reports. Unit: columns.
const WIDTH: usize = 100;

/// Why a command ends without a result.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    /// Empty if all was said already.
    message: String,
    help: Option<String>,
    place: Option<Box<Place>>,
}

/// A place in a config file.
#[derive(Debug)]
struct Place {
    source: NamedSource<String>,
    span: SourceSpan,
}

impl Failure {
    /// The command could not do its work.
    pub(crate) fn failed(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { code: FAILED, message: message.into(), help: Some(help.into()), place: None }
    }

    /// The command was used wrongly.
    pub(crate) fn usage(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { code: USAGE, ..Self::failed(message, help) }
    }

    /// The user stopped it, and was told how to go on.
    pub(crate) fn interrupted() -> Self {
        Self { code: INTERRUPTED, message: String::new(), help: None, place: None }
    }

    /// The result itself says what failed.
    pub(crate) fn told() -> Self {
        Self { code: FAILED, message: String::new(), help: None, place: None }
    }

    /// An error in the text of a config file, with the place if it can be found.
    pub(crate) fn in_config(error: rl::Error, path: &Path, text: &str) -> Self {
        let Some((span, message)) = locate(text, &error) else {
            let failure = Self::from(error);
            let message = format!("{}: {}", path.display(), failure.message);
            return Self { message, ..failure };
        };
        let source = NamedSource::new(path.display().to_string(), text.to_string());
        let failure = Self::from(error);
        let message = message.unwrap_or(failure.message);
        let place = Some(Box::new(Place { source, span: span.into() }));
        Self { message, place, ..failure }
    }

    /// The same, but not by wrong usage of this command, with another remedy.
    pub(crate) fn into_failed(self, help: impl Into<String>) -> Self {
        Self { code: FAILED, help: Some(help.into()), ..self }
    }

    /// An error that says all that there is to say.
    pub(crate) fn plain(message: impl Into<String>) -> Self {
        Self { help: None, ..Self::failed(message, "") }
    }

    /// The same, with another remedy.
    pub(crate) fn with_help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }

    /// The same, with a remedy if it has none and says something.
    pub(crate) fn or_help(self, help: impl Into<String>) -> Self {
        if self.message.is_empty() || self.help.is_some() { self } else { self.with_help(help) }
    }

    /// The same, with words before the message.
    pub(crate) fn of(self, what: &str) -> Self {
        Self { message: format!("{what}: {}", self.message), ..self }
    }

    /// Prints the report and returns the exit code.
    pub(crate) fn report(&self, output: Output) -> u8 {
        if self.place.is_some() {
            output.note(self.graphical(output).trim_end());
        } else if !self.message.is_empty() {
            output.note(format!("{} {}", output.paint_stderr("1;31", "error:"), self.message));
            if let Some(help) = &self.help {
                output.note(format!("{} {help}", output.paint_stderr("1;36", "help:")));
            }
        }
        self.code
    }

    fn graphical(&self, output: Output) -> String {
        let options = output.terminal();
        let mut theme = match (options.unicode, options.color) {
            (true, true) => GraphicalTheme::unicode(),
            (true, false) => GraphicalTheme::unicode_nocolor(),
            (false, color) => {
                let styled = if color { GraphicalTheme::unicode() } else { GraphicalTheme::none() };
                GraphicalTheme { styles: styled.styles, ..GraphicalTheme::ascii() }
            }
        };
        theme.characters.error = "error:".to_string();
        let mut text = String::new();
        let handler = GraphicalReportHandler::new_themed(theme).with_width(WIDTH).with_links(false);
        match handler.render_report(&mut text, self) {
            Ok(()) => text,
            Err(fmt::Error) => format!("error: {}", self.message),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl Diagnostic for Failure {
    fn severity(&self) -> Option<Severity> {
        Some(Severity::Error)
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.place.as_ref().map(|place| &place.source as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let place = self.place.as_ref()?;
        let label = LabeledSpan::new_primary_with_span(None, place.span);
        Some(Box::new(std::iter::once(label)))
    }
}

/// `did you mean "x"?` before where the whole list is.
fn nearest_or_list(nearest: Option<&str>, list: &str) -> String {
    match nearest {
        Some(name) => format!("did you mean \"{name}\"? `{list}` shows all"),
        None => format!("`{list}` shows all"),
    }
}

impl From<rl::Error> for Failure {
    fn from(error: rl::Error) -> Self {
        use rl::Error as E;
        match error {
            E::UnknownAlgo { name, nearest } => Self::usage(
                format!("unknown algorithm \"{name}\""),
                nearest_or_list(nearest.as_deref(), "cordada list algos"),
            ),
            E::UnknownKey { key, section, nearest } if section == "the config" => Self::usage(
                format!("unknown key \"{key}\" of the config"),
                match nearest {
                    Some(name) => format!("did you mean \"{name}\"?"),
                    None => "a config has a table [run] and one named after its algorithm".into(),
                },
            ),
            E::UnknownKey { key, section, nearest } => Self::usage(
                format!("unknown setting \"{key}\" of {section}"),
                nearest_or_list(nearest.as_deref(), &format!("cordada list settings {section}")),
            ),
            E::BadValue { ref section, .. } => Self::usage(
                error.to_string(),
                format!("`cordada list settings {section}` says what each setting takes"),
            ),
            E::Config { .. } => {
                Self::usage(error.to_string(), "the config.toml of any run is a valid example")
            }
            E::Space { .. } => {
                Self::usage(error.to_string(), "`cordada list algos` shows what each takes")
            }
            E::NonFinite { what, value, iteration } => Self::failed(
                format!("{what} is {value} in iteration {iteration}; training stopped"),
                "a lower learning_rate or max_grad_norm often helps; checkpoints written before are kept",
            ),
            E::Checkpoint { .. } => {
                Self::failed(error.to_string(), "take another checkpoint or file, or train again")
            }
            E::NoCheckpoint { path } => Self::failed(
                format!("{} holds no checkpoint yet", path.display()),
                "continue the run with `cordada resume`; it writes one at the latest at its end",
            ),
            E::Env(error) => Self::from(error),
            E::Log(error) => Self::from(error),
            other => Self::plain(other.to_string()),
        }
    }
}

impl From<env::Error> for Failure {
    fn from(error: env::Error) -> Self {
        match error {
            env::Error::UnknownEnv { name, nearest } => Self::usage(
                format!("unknown environment \"{name}\""),
                nearest_or_list(nearest, "cordada list envs"),
            ),
            other => Self::plain(other.to_string()),
        }
    }
}

impl From<log::Error> for Failure {
    fn from(error: log::Error) -> Self {
        use log::Error as E;
        let (message, help) = match error {
            E::RunExists { path } => {
                let path = path.display();
                let help = format!(
                    "choose another folder with --out, or continue that run with `cordada resume {path}`"
                );
                (format!("{path} already holds a run"), help)
            }
            E::NotEmpty { path } => (
                format!("{} exists and is not empty", path.display()),
                "choose another folder with --out".into(),
            ),
            E::NotAFolder { path } => (
                format!("{} is a file, not a folder", path.display()),
                "choose another folder with --out".into(),
            ),
            E::NoSuchRun { path } => (
                format!("there is no run directory {}", path.display()),
                "`cordada train` makes one, by default in the folder runs".into(),
            ),
            E::NotARun { path, missing } => (
                format!("{} is not a run directory: it has no {missing}", path.display()),
                "name a folder that `cordada train` made".into(),
            ),
            E::Locked { path } => (
                format!("another process is writing the run directory {}", path.display()),
                "wait until it ends, stop it, or choose another folder with --out".into(),
            ),
            E::DiskFull { action, path } => (
                format!("the disk is full: cannot {action} {}", path.display()),
                "free some space, then continue with `cordada resume`; the last whole checkpoint \
                 is kept"
                    .into(),
            ),
            other => return Self::plain(other.to_string()),
        };
        Self::failed(message, help)
    }
}
