//! What can go wrong with a language model and its files.

use std::path::PathBuf;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read or written.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file's content is not what it must be.
    #[error("{path}: {problem}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The field, its value and the remedy.
        problem: String,
    },
    /// A setting is outside its range or does not fit the model.
    #[error("{0}")]
    Setting(String),
    /// A config or a checkpoint is not what it must be.
    #[error(transparent)]
    Rl(#[from] cordada_rl::Error),
    /// The run directory could not be written.
    #[error(transparent)]
    Log(#[from] cordada_log::Error),
    /// A reward gives no scores any more.
    #[error("reward {name:?}: {problem}")]
    Reward {
        /// The term.
        name: String,
        /// What happened, and the remedy.
        problem: String,
    },
}
