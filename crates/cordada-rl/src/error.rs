//! What can go wrong in training, with what is needed to act on it.

use std::path::PathBuf;

/// An error of training, evaluation, configuration or checkpoints.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No algorithm has this name.
    #[error("unknown algorithm {name:?}{}; `cordada list algos` shows all", did_you_mean(.nearest.as_deref()))]
    UnknownAlgo {
        /// What was asked for.
        name: String,
        /// The name it is closest to, if any is close.
        nearest: Option<String>,
    },
    /// No setting has this name.
    #[error("unknown setting {key:?} of {section}{}", did_you_mean(.nearest.as_deref()))]
    UnknownKey {
        /// What was given.
        key: String,
        /// Where: the algorithm's name, or `run`.
        section: String,
        /// The name it is closest to, if any is close.
        nearest: Option<String>,
    },
    /// A setting has a value that cannot be used.
    #[error("{section}.{key} = {value}: {expected}")]
    BadValue {
        /// Where: the algorithm's name, or `run`.
        section: String,
        /// The setting.
        key: String,
        /// Its value, as given.
        value: String,
        /// What would be right.
        expected: String,
    },
    /// A config is not valid TOML.
    #[error("the config is not valid: {reason}")]
    Config {
        /// What the parser says, with the place.
        reason: String,
    },
    /// The algorithm cannot act in this space.
    #[error("{algo} cannot use the {what} {space} of {env}; it takes {accepts}")]
    Space {
        /// The algorithm.
        algo: &'static str,
        /// `action space` or `observation space`.
        what: &'static str,
        /// The space, as displayed.
        space: String,
        /// The environment.
        env: String,
        /// What it takes.
        accepts: &'static str,
    },
    /// A number that must be finite is not.
    #[error("{what} is {value} in iteration {iteration}; training stopped")]
    NonFinite {
        /// Which number.
        what: String,
        /// NaN or an infinity.
        value: f64,
        /// Iteration, counted from 0.
        iteration: u64,
    },
    /// A checkpoint or policy file is damaged or of another kind.
    #[error("{}: {reason}", path.display())]
    Checkpoint {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A run has no whole checkpoint.
    #[error("{}: no whole checkpoint to go on from; start the run again with `cordada train`", path.display())]
    NoCheckpoint {
        /// The run's folder of checkpoints.
        path: PathBuf,
    },
    /// From the environments.
    #[error(transparent)]
    Env(#[from] cordada_env::Error),
    /// From events, sinks or the run directory.
    #[error(transparent)]
    Log(#[from] cordada_log::Error),
    /// From the networks or optimizers.
    #[error(transparent)]
    Nn(#[from] cordada_nn::Error),
    /// A saved state does not fit.
    #[error("the saved state does not fit: {0}")]
    State(#[from] cordada_env::StateError),
}

fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map(|name| format!(", did you mean {name:?}?")).unwrap_or_default()
}

/// The candidate that is most like `word`, if one is much like it.
pub(crate) fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<String> {
    candidates
        .into_iter()
        .map(|c| (strsim::normalized_damerau_levenshtein(word, c), c))
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .filter(|(similarity, _)| *similarity >= 0.5)
        .map(|(_, c)| c.to_string())
}
