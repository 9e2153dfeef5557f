//! Runs the program in a folder of its own and reads what it says.
#![allow(dead_code, reason = "every test file uses some of these")]
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// What the program said and how it ended.
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Said {
    /// The lines of stdout as JSON; anything else on stdout is an error.
    pub(crate) fn json(&self) -> Vec<serde_json::Value> {
        let parse = |line: &str| -> serde_json::Value {
            serde_json::from_str(line).unwrap_or_else(|e| panic!("{e} in {line:?}"))
        };
        self.stdout.lines().map(parse).collect()
    }

    /// Asserts that it ended well, and returns itself.
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "stderr: {}", self.stderr);
        self
    }
}

/// The program in a folder, with a terminal that neither has colors nor a width.
pub(crate) fn command(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cordada"));
    command.args(args).current_dir(folder).stdin(Stdio::null());
    command.env("LC_ALL", "C.UTF-8").env_remove("COLUMNS").env_remove("NO_COLOR");
    command
}

pub(crate) fn cordada(folder: &Path, args: &[&str]) -> Said {
    let output = command(folder, args).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Said { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// A folder with a finished short run `run` that has several checkpoints.
pub(crate) fn folder_with_run() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let changes = ["--set", "checkpoint_seconds=0", "--set", "eval_episodes=3"];
    let args = ["train", "ppo", "CartPole-v1", "--steps", "1024", "--quiet", "--out", "run"];
    cordada(folder.path(), &[&args[..], &changes].concat()).ok();
    folder
}

/// Checkpoints of a run, newest first.
pub(crate) fn checkpoints(run: &Path) -> Vec<PathBuf> {
    cordada::rl::checkpoint::list(&run.join("checkpoints")).unwrap()
}

/// Makes a run look as if it was killed before it said that it was done.
pub(crate) fn forget_the_end(run: &Path) {
    let path = run.join("metrics.jsonl");
    let text = std::fs::read_to_string(&path).unwrap();
    let kept: String = text
        .split_inclusive('\n')
        .filter(|line| !line.starts_with("{\"event\":\"done\""))
        .collect();
    std::fs::write(&path, kept).unwrap();
}
