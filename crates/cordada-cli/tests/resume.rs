//! A run that is killed again and again ends as one that never was.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use cordada::env::Stream;
use cordada::log::read_deterministic;

use common::{checkpoints, command, cordada};

/// How often a run is killed.
const KILLS: usize = 10;

const CARTPOLE: &[&str] = &[
    "train",
    "ppo",
    "CartPole-v1",
    "--steps",
    "16384",
    "--set",
    "num_envs=4",
    "--set",
    "num_steps=32",
    "--set",
    "num_epochs=4",
    "--set",
    "num_minibatches=2",
    "--set",
    "actor=[16, 16]",
    "--set",
    "critic=[16, 16]",
];

/// With both normalizers, whose state has to be restored as well.
const PENDULUM: &[&str] = &[
    "train",
    "ppo",
    "Pendulum-v1",
    "--steps",
    "16384",
    "--set",
    "num_envs=4",
    "--set",
    "num_steps=32",
    "--set",
    "num_epochs=4",
    "--set",
    "num_minibatches=2",
    "--set",
    "actor=[16, 16]",
    "--set",
    "critic=[16, 16]",
    "--set",
    "normalize_obs=true",
    "--set",
    "normalize_rewards=true",
];

/// With a replay memory, priorities and a target network.
const REPLAY: &[&str] = &[
    "train",
    "double_dqn",
    "CartPole-v1",
    "--steps",
    "12800",
    "--set",
    "steps_per_iteration=100",
    "--set",
    "learning_starts=200",
    "--set",
    "buffer_size=2000",
    "--set",
    "hidden=[16]",
    "--set",
    "prioritized=true",
    "--set",
    "n_step=2",
];

/// With a memory in the policy, and a segment under way that is not learned from yet.
const AHEAD: &[&str] = &[
    "train",
    "appo",
    "CartPoleNoVel-v1",
    "--steps",
    "16384",
    "--set",
    "num_envs=4",
    "--set",
    "num_steps=32",
    "--set",
    "num_epochs=2",
    "--set",
    "num_minibatches=2",
    "--set",
    "memory=gru",
    "--set",
    "memory_size=16",
];

/// A checkpoint after every iteration, so that something goes on from every kill.
const COMMON: &[&str] = &["--set", "checkpoint_seconds=0", "--set", "eval_episodes=10", "--quiet"];

#[test]
fn cartpole_with_one_thread() {
    killed_and_resumed(CARTPOLE, "1", 1);
}

#[test]
fn cartpole_with_two_threads() {
    killed_and_resumed(CARTPOLE, "2", 2);
}

#[test]
fn a_replay_memory() {
    killed_and_resumed(REPLAY, "1", 5);
}

#[test]
fn a_policy_with_memory_that_collects_ahead() {
    killed_and_resumed(AHEAD, "2", 6);
}

#[test]
fn pendulum_with_one_thread() {
    killed_and_resumed(PENDULUM, "1", 3);
}

#[test]
fn pendulum_with_two_threads() {
    killed_and_resumed(PENDULUM, "2", 4);
}

/// The whole run has one thread; the killed one has `threads`, which must not matter.
fn killed_and_resumed(train: &[&str], threads: &str, seed: u64) {
    let folder = tempfile::tempdir().unwrap();
    cordada(folder.path(), &[train, COMMON, &["--out", "whole"]].concat()).ok();

    let killed = folder.path().join("killed");
    let newest = || checkpoints_or_none(&killed).into_iter().next();
    let mut moments = Stream::new(seed, 200, 0);
    let mut resumed_at = Vec::new();
    for kill in 0..KILLS {
        let before = newest();
        let args = if killed.join("config.toml").exists() {
            vec!["resume", "killed", "--quiet", "--threads", threads]
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
        // After a number of iterations and then a time, so that a slow machine and a fast one are
        // both killed all over the run, while it starts and while it writes among others.
        for _ in 0..moments.below(8) {
            let last = newest();
            let changed = || newest() != last || child_ended(&mut child);
            wait_until(changed);
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
    compare(folder.path());
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

fn checkpoints_or_none(run: &Path) -> Vec<PathBuf> {
    if run.join("checkpoints").exists() { checkpoints(run) } else { Vec::new() }
}

fn compare(folder: &Path) {
    let (whole, killed) = (folder.join("whole"), folder.join("killed"));
    let [one, two] = [&whole, &killed].map(|run| checkpoints(run)[0].clone());
    assert_eq!(one.file_name(), two.file_name());
    let read = |file: &str| [&one, &two].map(|path| fs::read(path.join(file)).unwrap());
    let [a, b] = read("policy.safetensors");
    assert!(a == b, "the policies differ");
    // The first eight bytes are the length of the metrics file, which holds the clock.
    let [a, b] = read("state.bin");
    assert!(a[8..] == b[8..], "the states differ");
    let [a, b] =
        [&whole, &killed].map(|run| read_deterministic(&run.join("metrics.jsonl")).unwrap());
    assert_eq!(a.len(), 128 + 1, "metrics of every iteration and the evaluation");
    assert_eq!(a, b);
    let eval = |run: &str| cordada(folder, &["eval", run, "--json"]).ok().stdout;
    assert_eq!(eval("whole"), eval("killed"));
}
