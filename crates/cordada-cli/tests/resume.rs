//! A run that is killed again and again ends as one that never was.

mod common;

use std::fs;
use std::path::Path;
use std::process::Stdio;
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
    let began = Instant::now();
    cordada(folder.path(), &[train, COMMON, &["--out", "whole"]].concat()).ok();
    let whole = began.elapsed();

    // The kills come while the first half of a run's time passes, whatever the machine's speed.
    let mut delays = Stream::new(seed, 200, 0);
    let mut resumed_at = Vec::new();
    for kill in 0..KILLS {
        let started = folder.path().join("killed/config.toml").exists();
        let args = match started {
            false => [train, COMMON, &["--out", "killed", "--threads", threads]].concat(),
            true => vec!["resume", "killed", "--quiet", "--threads", threads],
        };
        let mut child = command(folder.path(), &args)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        sleep(whole.mul_f64(delays.uniform_in(0.01, 0.09)).max(Duration::from_millis(5)));
        assert!(child.try_wait().unwrap().is_none(), "the run ended before kill {kill}");
        child.kill().unwrap();
        child.wait().unwrap();
        if !started && !folder.path().join("killed/config.toml").exists() {
            // Killed before it had begun: what is there is no run.
            let _ = fs::remove_dir_all(folder.path().join("killed"));
            continue;
        }
        resumed_at.push(checkpoints(&folder.path().join("killed")).first().cloned());
    }
    resumed_at.dedup();
    assert!(resumed_at.len() > KILLS / 2, "kills at too few places: {resumed_at:?}");
    cordada(folder.path(), &["resume", "killed", "--quiet", "--threads", threads]).ok();
    compare(folder.path());
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
    assert_eq!(a.len(), 16384 / 128 + 1, "metrics of every iteration and the evaluation");
    assert_eq!(a, b);
    let eval = |run: &str| cordada(folder, &["eval", run, "--json"]).ok().stdout;
    assert_eq!(eval("whole"), eval("killed"));
}
