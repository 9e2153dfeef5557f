//! Everything that can go wrong in this crate, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

/// An error of a sink or of a run directory.
///
/// The reasons given by the operating system are part of the messages, so no variant has a
/// [`source`](std::error::Error::source): a report that walks the chain would print them twice.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused.
    #[error("cannot {action} {}: {reason}", path.display())]
    Io {
        /// What was tried, as a verb: `write`, `create the folder`.
        action: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// The operating system's answer.
        reason: io::Error,
    },

    /// No space is left, or the user's quota is used up.
    #[error(
        "the disk is full: cannot {action} {}: free some space, then continue with \
         `cordada resume`; the last whole checkpoint is kept",
        path.display()
    )]
    DiskFull {
        /// What was tried, as a verb.
        action: &'static str,
        /// On which file.
        path: PathBuf,
    },

    /// A new run was to be written over an existing one.
    #[error(
        "{} already holds a run: choose another folder with --out, or continue that run with \
         `cordada resume {}`",
        path.display(), path.display()
    )]
    RunExists {
        /// The run directory.
        path: PathBuf,
    },

    /// A new run was to be written into a folder that holds something else.
    #[error("{} exists and is not empty: choose another folder with --out", path.display())]
    NotEmpty {
        /// The folder.
        path: PathBuf,
    },

    /// A new run was to be written to the path of a file.
    #[error("{} is a file, not a folder: choose another folder with --out", path.display())]
    NotAFolder {
        /// The file.
        path: PathBuf,
    },

    /// There is nothing at the path of a run directory.
    #[error(
        "there is no run directory {}: `cordada train` makes one, by default in the folder runs",
        path.display()
    )]
    NoSuchRun {
        /// The path.
        path: PathBuf,
    },

    /// A folder lacks what makes it a run directory.
    #[error(
        "{} is not a run directory: it has no {missing}; name a folder that `cordada train` made",
        path.display()
    )]
    NotARun {
        /// The folder.
        path: PathBuf,
        /// The file that is missing from it.
        missing: &'static str,
    },

    /// Another process writes this run directory.
    #[error(
        "another process is writing the run directory {}: wait until it ends, stop it, or choose \
         another folder with --out",
        path.display()
    )]
    Locked {
        /// The run directory.
        path: PathBuf,
    },

    /// The metrics file lacks events from before the checkpoint.
    #[error(
        "{} has {size} bytes, but the checkpoint was made when it had {position}: put the whole \
         file back, or resume from an older checkpoint",
        path.display()
    )]
    MetricsTooShort {
        /// The metrics file.
        path: PathBuf,
        /// Its length. Unit: bytes.
        size: u64,
        /// Its length when the checkpoint was made. Unit: bytes.
        position: u64,
    },

    /// The checkpoint's position in the metrics file is not the end of a line.
    #[error(
        "{} was changed after the checkpoint: byte {position} is not the end of a line; put the \
         original file back, or resume from an older checkpoint",
        path.display()
    )]
    MetricsChanged {
        /// The metrics file.
        path: PathBuf,
        /// Its length when the checkpoint was made. Unit: bytes.
        position: u64,
    },

    /// A line of the metrics file, other than a torn last one, is not an event.
    #[error(
        "{} is damaged: line {line} is not an event ({reason}); delete that line to read the rest",
        path.display()
    )]
    MalformedLine {
        /// The metrics file.
        path: PathBuf,
        /// The line's number, from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },

    /// An event could not be written as JSON.
    #[error("cannot write an event as JSON: {reason}")]
    Json {
        /// What the serializer says.
        reason: serde_json::Error,
    },
}

impl Error {
    /// The error for a failed operation on a file: [`Error::DiskFull`] if that was the reason.
    pub fn io(action: &'static str, path: &Path, reason: io::Error) -> Self {
        let path = path.to_path_buf();
        match reason.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::DiskFull { action, path }
            }
            _ => Self::Io { action, path, reason },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_apart() {
        let full = Error::io("write", Path::new("runs/a/x"), io::ErrorKind::StorageFull.into());
        assert_eq!(
            full.to_string(),
            "the disk is full: cannot write runs/a/x: free some space, then continue with \
             `cordada resume`; the last whole checkpoint is kept"
        );
        let quota = Error::io("write", Path::new("x"), io::ErrorKind::QuotaExceeded.into());
        assert!(matches!(quota, Error::DiskFull { .. }));
        let other = Error::io("write", Path::new("x"), io::ErrorKind::PermissionDenied.into());
        assert_eq!(other.to_string(), "cannot write x: permission denied");
    }
}
