//! The run directory: its layout, its lock, and files that are replaced as a whole. What the files
//! hold is the matter of those who write them.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::Error;

const CONFIG: &str = "config.toml";
const LOCK: &str = ".lock";

/// A folder that holds everything about one run.
///
/// ```text
/// config.toml      everything needed to repeat the run; its presence makes the folder a run directory
/// metrics.jsonl    one event a line
/// tensorboard/     event files
/// checkpoints/     one folder per checkpoint
/// report.html      curves and settings, to be opened in a browser
/// ```
#[derive(Debug)]
pub struct RunDir {
    root: PathBuf,
    /// Held by the one process that writes here; the lock ends with the handle.
    lock: Option<File>,
}

impl RunDir {
    /// Makes the directory of a new run and locks it for writing. The folder must be empty or not
    /// exist; its parents are created.
    ///
    /// # Errors
    ///
    /// [`Error::RunExists`], [`Error::NotEmpty`] or [`Error::NotAFolder`] if something is there
    /// already, [`Error::Locked`], [`Error::Io`].
    pub fn create(path: &Path) -> Result<Self, Error> {
        if path.is_file() {
            return Err(Error::NotAFolder { path: path.to_path_buf() });
        }
        fs::create_dir_all(path).map_err(|e| Error::io("create the folder", path, e))?;
        expect_empty(path)?;
        let lock = lock(path)?;
        // Another process may have finished a run here between the two calls.
        expect_empty(path)?;
        let run = Self { root: path.to_path_buf(), lock };
        let checkpoints = run.checkpoints_dir();
        fs::create_dir_all(&checkpoints)
            .map_err(|e| Error::io("create the folder", &checkpoints, e))?;
        Ok(run)
    }

    /// Makes the directory `base/stem-N` of a new run for the first free number N, and locks it.
    /// Processes that do this at the same time get different numbers.
    ///
    /// # Errors
    ///
    /// As [`RunDir::create`].
    pub fn create_next(base: &Path, stem: &str) -> Result<Self, Error> {
        fs::create_dir_all(base).map_err(|e| Error::io("create the folder", base, e))?;
        loop {
            let path = next_free(base, stem);
            match fs::create_dir(&path) {
                Ok(()) => return Self::create(&path),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(Error::io("create the folder", &path, e)),
            }
        }
    }

    /// Opens the directory of a run for reading. That needs no lock: a run can be read while it is
    /// being written.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchRun`] or [`Error::NotARun`] if there is none.
    pub fn open(path: &Path) -> Result<Self, Error> {
        if !path.exists() {
            return Err(Error::NoSuchRun { path: path.to_path_buf() });
        }
        if !path.join(CONFIG).is_file() {
            return Err(Error::NotARun { path: path.to_path_buf(), missing: CONFIG });
        }
        Ok(Self { root: path.to_path_buf(), lock: None })
    }

    /// Opens the directory of a run for writing and locks it.
    ///
    /// # Errors
    ///
    /// As [`RunDir::open`], and [`Error::Locked`] if another process writes there.
    pub fn open_to_write(path: &Path) -> Result<Self, Error> {
        let run = Self::open(path)?;
        Ok(Self { lock: lock(path)?, ..run })
    }

    /// Whether this process holds the directory's lock.
    pub fn is_locked(&self) -> bool {
        self.lock.is_some()
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The file of the run's configuration.
    pub fn config_path(&self) -> PathBuf {
        self.root.join(CONFIG)
    }

    /// The file of the run's events.
    pub fn metrics_path(&self) -> PathBuf {
        self.root.join("metrics.jsonl")
    }

    /// The folder of TensorBoard's event files.
    pub fn tensorboard_dir(&self) -> PathBuf {
        self.root.join("tensorboard")
    }

    /// The folder of the checkpoints.
    pub fn checkpoints_dir(&self) -> PathBuf {
        self.root.join("checkpoints")
    }

    /// Writes the run's configuration, atomically.
    ///
    /// # Errors
    ///
    /// As [`write_atomic`].
    pub fn write_config(&self, text: &str) -> Result<(), Error> {
        write_atomic(&self.config_path(), text.as_bytes())
    }

    /// Reads the run's configuration.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if it cannot be read.
    pub fn read_config(&self) -> Result<String, Error> {
        let path = self.config_path();
        fs::read_to_string(&path).map_err(|e| Error::io("read", &path, e))
    }
}

/// The path `base/stem-N` with the smallest N ≥ 1 at which there is nothing yet. Path separators in
/// `stem`, as in environment names like `ALE/Pong-v5`, become hyphens.
pub fn next_free(base: &Path, stem: &str) -> PathBuf {
    let stem = stem.replace(['/', '\\'], "-");
    let mut number = 1_u64;
    loop {
        let path = base.join(format!("{stem}-{number}"));
        // A broken link is something, too, though `exists` denies it.
        if fs::symlink_metadata(&path).is_err() {
            return path;
        }
        number += 1;
    }
}

/// Replaces a file as a whole: after a crash at any moment, it holds either the old content or the
/// new one. The bytes go to a temporary file in the same folder, which is synced and renamed; then
/// the folder is synced.
///
/// # Errors
///
/// [`Error::DiskFull`] or [`Error::Io`]; the old file is then untouched and the temporary one gone.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let temporary = temporary_path(path);
    let written = write_synced(&temporary, bytes).and_then(|()| fs::rename(&temporary, path));
    if let Err(reason) = written {
        // The first failure is the one to report.
        let _ = fs::remove_file(&temporary);
        return Err(Error::io("write", path, reason));
    }
    sync_folder(path).map_err(|e| Error::io("write", path, e))
}

/// A hidden neighbor of `path` that belongs to this process.
fn temporary_path(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{}.tmp", std::process::id()))
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Makes a rename in the folder of `path` durable.
#[cfg(unix)]
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    File::open(folder)?.sync_all()
}

/// Elsewhere a folder cannot be opened as a file, and a rename is as durable as it gets.
#[cfg(not(unix))]
fn sync_folder(_path: &Path) -> io::Result<()> {
    Ok(())
}

fn expect_empty(path: &Path) -> Result<(), Error> {
    if path.join(CONFIG).exists() {
        return Err(Error::RunExists { path: path.to_path_buf() });
    }
    for entry in fs::read_dir(path).map_err(|e| Error::io("read the folder", path, e))? {
        let entry = entry.map_err(|e| Error::io("read the folder", path, e))?;
        // A lock file alone is what is left of a run that ended before it began.
        if entry.file_name() != LOCK {
            return Err(Error::NotEmpty { path: path.to_path_buf() });
        }
    }
    Ok(())
}

/// Locks a folder for writing. `None` on file systems that know no locks: a run there is better
/// than none.
fn lock(root: &Path) -> Result<Option<File>, Error> {
    let path = root.join(LOCK);
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(|e| Error::io("create", &path, e))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Err(Error::Locked { path: root.to_path_buf() }),
        Err(TryLockError::Error(e)) if e.kind() == io::ErrorKind::Unsupported => Ok(None),
        Err(TryLockError::Error(e)) => Err(Error::io("lock", &path, e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_created_written_and_opened() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("runs/a");
        let run = RunDir::create(&root).unwrap();
        assert_eq!(run.root(), root);
        assert_eq!(run.config_path(), root.join("config.toml"));
        assert_eq!(run.metrics_path(), root.join("metrics.jsonl"));
        assert_eq!(run.tensorboard_dir(), root.join("tensorboard"));
        assert_eq!(run.checkpoints_dir(), root.join("checkpoints"));
        assert!(run.checkpoints_dir().is_dir());
        run.write_config("seed = 1\n").unwrap();
        run.write_config("seed = 2\n").unwrap();
        let read = RunDir::open(&root).unwrap();
        assert_eq!(read.read_config().unwrap(), "seed = 2\n");
        assert!(run.is_locked() && !read.is_locked());
        let mut names: Vec<_> =
            fs::read_dir(&root).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, [".lock", "checkpoints", "config.toml"]);
    }

    #[test]
    fn nothing_is_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("a");
        let shown = root.display();
        fs::create_dir(&root).unwrap();
        drop(RunDir::create(&root).unwrap());
        // What is left has no configuration, but a folder of checkpoints.
        assert_eq!(
            RunDir::create(&root).unwrap_err().to_string(),
            format!("{shown} exists and is not empty: choose another folder with --out")
        );
        fs::write(root.join("config.toml"), "").unwrap();
        assert_eq!(
            RunDir::create(&root).unwrap_err().to_string(),
            format!(
                "{shown} already holds a run: choose another folder with --out, or continue that \
                 run with `cordada resume {shown}`"
            )
        );
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        assert_eq!(
            RunDir::create(&file).unwrap_err().to_string(),
            format!("{} is a file, not a folder: choose another folder with --out", file.display())
        );
    }

    #[test]
    fn what_is_not_a_run_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("missing");
        assert_eq!(
            RunDir::open(&missing).unwrap_err().to_string(),
            format!(
                "there is no run directory {}: `cordada train` makes one, by default in the folder \
                 runs",
                missing.display()
            )
        );
        assert_eq!(
            RunDir::open_to_write(folder.path()).unwrap_err().to_string(),
            format!(
                "{} is not a run directory: it has no config.toml; name a folder that `cordada \
                 train` made",
                folder.path().display()
            )
        );
        assert!(!folder.path().join(LOCK).exists(), "a refused folder must not be changed");
    }

    #[test]
    fn only_one_writes_and_all_read() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("a");
        let run = RunDir::create(&root).unwrap();
        let locked = format!(
            "another process is writing the run directory {}: wait until it ends, stop it, or \
             choose another folder with --out",
            root.display()
        );
        run.write_config("").unwrap();
        assert_eq!(RunDir::open_to_write(&root).unwrap_err().to_string(), locked);
        RunDir::open(&root).unwrap();
        drop(run);
        let again = RunDir::open_to_write(&root).unwrap();
        assert!(again.is_locked());

        // A second process that creates the same run before the first one has written anything.
        let race = folder.path().join("race");
        fs::create_dir(&race).unwrap();
        let held = lock(&race).unwrap().unwrap();
        assert!(matches!(RunDir::create(&race), Err(Error::Locked { .. })));
        drop(held);
        RunDir::create(&race).unwrap();
    }

    #[test]
    fn numbers_count_up_from_one() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().join("runs");
        let path = |n: u32| base.join(format!("ppo-CartPole-v1-{n}"));
        assert_eq!(next_free(&base, "ppo-CartPole-v1"), path(1));
        let first = RunDir::create_next(&base, "ppo-CartPole-v1").unwrap();
        let second = RunDir::create_next(&base, "ppo-CartPole-v1").unwrap();
        assert_eq!((first.root(), second.root()), (&*path(1), &*path(2)));
        fs::write(path(3), "").unwrap();
        assert_eq!(next_free(&base, "ppo-CartPole-v1"), path(4));
        assert_eq!(next_free(&base, "ppo-ALE/Pong-v5"), base.join("ppo-ALE-Pong-v5-1"));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_full_disk_leaves_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        write_atomic(&path, b"old").unwrap();
        // The temporary file's name leads to a device on which every write finds the disk full.
        std::os::unix::fs::symlink("/dev/full", temporary_path(&path)).unwrap();
        assert_eq!(
            write_atomic(&path, b"new").unwrap_err().to_string(),
            format!(
                "the disk is full: cannot write {}: free some space, then continue with `cordada \
                 resume`; the last whole checkpoint is kept",
                path.display()
            )
        );
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        write_atomic(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
    }
}
