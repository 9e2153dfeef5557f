//! Checkpoints: a folder with the policy, all other state, and a manifest of both with their
//! sums. It is written under another name, synced and renamed, so a torn one is never taken for
//! whole; a damaged one is refused by name and the next older one is used.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::policy_file::Policy;

/// Version of the folder's layout.
const FORMAT: u32 = 1;
/// The policy: weights, normalizer, action transform and spaces.
pub const POLICY_FILE: &str = "policy.safetensors";
/// All other state.
pub const STATE_FILE: &str = "state.bin";
/// Sizes and sums of the others.
pub const MANIFEST_FILE: &str = "manifest.json";
/// Names of folders that are being written start with this.
const UNFINISHED: &str = ".writing-";

#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    format: u32,
    version: String,
    steps: u64,
    files: BTreeMap<String, Entry>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Entry {
    bytes: u64,
    blake3: String,
}

impl Entry {
    fn of(bytes: &[u8]) -> Self {
        Self { bytes: bytes.len() as u64, blake3: blake3::hash(bytes).to_hex().to_string() }
    }
}

/// A checkpoint as read back.
#[derive(Debug)]
pub struct Checkpoint {
    /// Its folder.
    pub path: PathBuf,
    /// Environment steps at which it was taken.
    pub steps: u64,
    /// The policy.
    pub policy: Policy,
    /// All other state.
    pub state: Vec<u8>,
    /// Newer checkpoints that were refused, with the reason.
    pub refused: Vec<String>,
}

/// A checkpoint of any kind of model, whose files are read by whoever wrote them.
#[derive(Debug)]
pub struct Files {
    /// Its folder.
    pub path: PathBuf,
    /// Steps at which it was taken.
    pub steps: u64,
    /// All state besides the files.
    pub state: Vec<u8>,
    /// Newer checkpoints that were refused, with the reason.
    pub refused: Vec<String>,
}

/// Writes a checkpoint into the folder `checkpoints` and returns its path. One of the same step is
/// replaced.
///
/// # Errors
///
/// [`Error::Log`] with what the file system says, a full disk among it; older checkpoints stay.
pub fn save(
    checkpoints: &Path,
    steps: u64,
    policy: &Policy,
    state: &[u8],
) -> Result<PathBuf, Error> {
    save_files(checkpoints, steps, state, |folder| {
        write_synced(&folder.join(POLICY_FILE), &policy.to_bytes()?)
    })
}

/// As [`save`], of files that `write` puts into the folder it is given.
///
/// # Errors
///
/// As [`save`], and what `write` says.
pub fn save_files<E: From<Error>>(
    checkpoints: &Path,
    steps: u64,
    state: &[u8],
    write: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<PathBuf, E> {
    let name = format!("step-{steps:012}");
    let (temporary, path) =
        (checkpoints.join(format!("{UNFINISHED}{name}")), checkpoints.join(&name));
    let fill = || -> Result<(), E> {
        remove(&temporary)?;
        io("create", &temporary, fs::create_dir_all(&temporary))?;
        write(&temporary)
    };
    let finish = || -> Result<(), Error> {
        write_synced(&temporary.join(STATE_FILE), state)?;
        let mut files = BTreeMap::new();
        for entry in io("read", &temporary, fs::read_dir(&temporary))?.flatten() {
            let file = entry.path();
            io("sync", &file, File::open(&file).and_then(|f| f.sync_all()))?;
            let bytes = io("read", &file, fs::read(&file))?;
            files.insert(entry.file_name().to_string_lossy().into_owned(), Entry::of(&bytes));
        }
        let version = env!("CARGO_PKG_VERSION").to_string();
        let manifest = Manifest { format: FORMAT, version, steps, files };
        let json = serde_json::to_vec_pretty(&manifest)
            .map_err(|e| Error::Checkpoint { path: path.clone(), reason: e.to_string() })?;
        write_synced(&temporary.join(MANIFEST_FILE), &json)?;
        sync_folder(&temporary)?;
        remove(&path)?;
        io("rename", &path, fs::rename(&temporary, &path))?;
        sync_folder(checkpoints)
    };
    let written = fill().and_then(|()| Ok(finish()?));
    if written.is_err() {
        // What cannot be finished must not fill the disk.
        let _ = fs::remove_dir_all(&temporary);
    }
    written.map(|()| path)
}

/// Removes all but the newest `keep` checkpoints, those of later steps than `newest` (the one just
/// written: the run went on from before them because they are damaged), and what an interrupted
/// save left.
///
/// # Errors
///
/// [`Error::Log`] with what the file system says.
pub fn prune(checkpoints: &Path, newest: u64, keep: usize) -> Result<(), Error> {
    let (later, kept): (Vec<_>, Vec<_>) =
        list(checkpoints)?.into_iter().partition(|path| steps_of(path) > Some(newest));
    for path in later.iter().chain(kept.iter().skip(keep.max(1))) {
        remove(path)?;
    }
    for entry in io("read", checkpoints, fs::read_dir(checkpoints))?.flatten() {
        if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

/// Paths of the checkpoints, newest first.
///
/// # Errors
///
/// [`Error::Log`] with what the file system says.
pub fn list(checkpoints: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut paths: Vec<PathBuf> = io("read", checkpoints, fs::read_dir(checkpoints))?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| steps_of(path).is_some() && path.is_dir())
        .collect();
    paths.sort_by_key(|path| std::cmp::Reverse(steps_of(path)));
    Ok(paths)
}

fn steps_of(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_prefix("step-")?.parse().ok()
}

/// The newest whole checkpoint.
///
/// # Errors
///
/// [`Error::NoCheckpoint`] if there is none, [`Error::Checkpoint`] with the newest one's damage if
/// all are damaged.
pub fn newest(checkpoints: &Path) -> Result<Checkpoint, Error> {
    let (files, policy) =
        newest_with(checkpoints, |folder| Policy::read(&folder.join(POLICY_FILE)))?;
    let Files { path, steps, state, refused } = files;
    Ok(Checkpoint { path, steps, policy, state, refused })
}

/// The newest whole checkpoint of any kind of model, and what `read` makes of its folder. One that
/// `read` refuses counts as damaged.
///
/// # Errors
///
/// As [`newest`].
pub fn newest_with<P>(
    checkpoints: &Path,
    read: impl Fn(&Path) -> Result<P, Error>,
) -> Result<(Files, P), Error> {
    let mut refused: Vec<String> = Vec::new();
    let mut first = None;
    for path in list(checkpoints)? {
        match verify(&path).and_then(|found| Ok((found, read(&path)?))) {
            Ok(((steps, state), policy)) => {
                return Ok((Files { path, steps, state, refused }, policy));
            }
            Err(error) => {
                refused.push(error.to_string());
                first.get_or_insert(error);
            }
        }
    }
    Err(first.unwrap_or_else(|| Error::NoCheckpoint { path: checkpoints.to_path_buf() }))
}

/// Checks that a checkpoint is as it was written; its step and state.
fn verify(path: &Path) -> Result<(u64, Vec<u8>), Error> {
    let refuse = |reason: String| Error::Checkpoint { path: path.to_path_buf(), reason };
    let json = fs::read(path.join(MANIFEST_FILE))
        .map_err(|_| refuse(format!("not a whole checkpoint: no {MANIFEST_FILE}")))?;
    let manifest: Manifest = serde_json::from_slice(&json)
        .map_err(|e| refuse(format!("damaged checkpoint: {MANIFEST_FILE}: {e}")))?;
    if manifest.format != FORMAT {
        let (found, version) = (manifest.format, manifest.version);
        return Err(refuse(format!(
            "checkpoint format {found} of version {version}; this version reads {FORMAT}"
        )));
    }
    let mut state = None;
    for (file, entry) in &manifest.files {
        let bytes = fs::read(path.join(file))
            .map_err(|_| refuse(format!("damaged checkpoint: no {file}")))?;
        if *entry != Entry::of(&bytes) {
            return Err(refuse(format!("damaged checkpoint: {file} is not what was written")));
        }
        if file == STATE_FILE {
            state = Some(bytes);
        }
    }
    let state = state.ok_or_else(|| refuse(format!("damaged checkpoint: no {STATE_FILE}")))?;
    Ok((manifest.steps, state))
}

fn io<T>(action: &'static str, path: &Path, result: std::io::Result<T>) -> Result<T, Error> {
    result.map_err(|e| Error::Log(cordada_log::Error::io(action, path, e)))
}

fn write_synced(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let write = || -> std::io::Result<()> {
        let mut file = File::create(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    io("write", path, write())
}

/// Makes the entries of a folder durable, where the system can.
fn sync_folder(path: &Path) -> Result<(), Error> {
    #[cfg(unix)]
    io("sync", path, File::open(path).and_then(|folder| folder.sync_all()))?;
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}

fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => io("remove", path, other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_names_of_checkpoints_count() {
        let steps = |name: &str| steps_of(&Path::new("checkpoints").join(name));
        assert_eq!(steps("step-000000000120"), Some(120));
        assert_eq!(steps("step-1234567890123"), Some(1_234_567_890_123));
        for other in [".writing-step-000000000120", "step-", "step-12.old", "step-x", "120"] {
            assert_eq!(steps(other), None, "{other}");
        }
    }
}
