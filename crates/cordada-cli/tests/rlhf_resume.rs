//! A stage of training that is killed again and again ends as one that never was.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use cordada::env::Stream;
use cordada::log::read_deterministic;
use tempfile::TempDir;

use common::{checkpoints, command, cordada};

/// How often a run is killed.
const KILLS: usize = 6;
/// Steps of a run: enough that it does not end before the last kill.
const STEPS: &str = "100";

/// A checkpoint after every step, so that something goes on from every kill.
const COMMON: &[&str] =
    &["--task", "sort", "--steps", STEPS, "--set", "checkpoint_seconds=0", "--quiet"];

const SFT: &[&str] = &["rlhf", "sft", "model", "--set", "batch_size=8", "--set", "examples=100"];

/// With a critic, a reference, an adaptive KL coefficient and several passes.
const PPO: &[&str] = &[
    "rlhf",
    "align",
    "model",
    "--algo",
    "ppo",
    "--set",
    "prompts_per_step=2",
    "--set",
    "group_size=2",
    "--set",
    "minibatches=2",
    "--set",
    "epochs=2",
    "--set",
    "kl_target=0.5",
    "--set",
    "kl_horizon=100",
    "--set",
    "max_new_tokens=6",
    "--reward",
    "contains:1",
    "--set",
    "examples=40",
];

/// With an adapter, whose base is the reference, and a moving baseline.
const LORA: &[&str] = &[
    "rlhf",
    "align",
    "model",
    "--algo",
    "reinforce",
    "--lora",
    "r=2",
    "--set",
    "prompts_per_step=4",
    "--set",
    "group_size=1",
    "--set",
    "max_new_tokens=6",
    "--reward",
    "contains:1",
    "--set",
    "examples=40",
];

#[test]
fn fine_tuning_with_one_thread() {
    killed_and_resumed(SFT, "1", "model.safetensors", 1);
}

#[test]
fn fine_tuning_with_two_threads() {
    killed_and_resumed(SFT, "2", "model.safetensors", 2);
}

#[test]
fn ppo_with_one_thread() {
    killed_and_resumed(PPO, "1", "model.safetensors", 3);
}

#[test]
fn ppo_with_two_threads() {
    killed_and_resumed(PPO, "2", "model.safetensors", 4);
}

#[test]
fn an_adapter_with_two_threads() {
    killed_and_resumed(LORA, "2", "adapter_model.safetensors", 5);
}

fn folder_with_model() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let shape = ["--hidden", "16", "--layers", "1", "--heads", "2", "--positions", "64"];
    let new = ["rlhf", "new", "model", "--task", "sort", "--quiet"];
    cordada(folder.path(), &[&new[..], &shape].concat()).ok();
    folder
}

/// The whole run has one thread; the killed one has `threads`, which must not matter.
fn killed_and_resumed(train: &[&str], threads: &str, weights: &str, seed: u64) {
    let folder = folder_with_model();
    cordada(folder.path(), &[train, COMMON, &["--out", "whole"]].concat()).ok();

    let killed = folder.path().join("killed");
    let newest = || {
        killed
            .join("checkpoints")
            .exists()
            .then(|| checkpoints(&killed).into_iter().next())
            .flatten()
    };
    let mut moments = Stream::new(seed, 200, 0);
    let mut resumed_at = Vec::new();
    for kill in 0..KILLS {
        let before = newest();
        let args = if killed.join("config.toml").exists() {
            // Both commands go on with a stage.
            let resume: &[&str] = if kill % 2 == 0 { &["resume"] } else { &["rlhf", "resume"] };
            [resume, &["killed", "--quiet", "--threads", threads]].concat()
        } else {
            // Killed before it had begun: what is there is no run.
            let _ = fs::remove_dir_all(&killed);
            [train, COMMON, &["--out", "killed", "--threads", threads]].concat()
        };
        let mut child = command(folder.path(), &args)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // After a number of steps and then a time, so that a slow machine and a fast one are both
        // killed all over the run, while it starts and while it writes among others.
        // Every third kill is at the start, where no step may have been done.
        let steps = if kill % 3 == 0 { 0 } else { 1 + moments.below(7) };
        for _ in 0..steps {
            let last = newest();
            wait_until(|| newest() != last || child_ended(&mut child));
        }
        sleep(Duration::from_secs_f64(moments.uniform_in(0.0, 0.03)));
        assert!(!child_ended(&mut child), "the run ended before kill {kill}, from {before:?}");
        child.kill().unwrap();
        child.wait().unwrap();
        resumed_at.push(newest());
    }
    resumed_at.dedup();
    assert!(resumed_at.len() > KILLS / 2, "kills at too few places: {resumed_at:?}");
    cordada(folder.path(), &["resume", "killed", "--quiet", "--threads", threads]).ok();
    compare(folder.path(), weights);
}

fn child_ended(child: &mut Child) -> bool {
    child.try_wait().unwrap().is_some()
}

fn wait_until(mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < Duration::from_secs(60), "nothing happens");
        sleep(Duration::from_millis(1));
    }
}

fn compare(folder: &Path, weights: &str) {
    let (whole, killed) = (folder.join("whole"), folder.join("killed"));
    let [one, two] = [&whole, &killed].map(|run| checkpoints(run)[0].clone());
    assert_eq!(one.file_name(), two.file_name());
    let read = |file: &str| [&one, &two].map(|path| fs::read(path.join(file)).unwrap());
    let [a, b] = read(weights);
    assert!(a == b, "the models differ");
    // The first eight bytes are the length of the metrics file, which holds the clock.
    let [a, b] = read("state.bin");
    assert!(a[8..] == b[8..], "the states differ");
    let [a, b] =
        [&whole, &killed].map(|run| read_deterministic(&run.join("metrics.jsonl")).unwrap());
    assert_eq!(a.len().to_string(), STEPS, "metrics of every step");
    assert_eq!(a, b);
}
