//! Results: their form as JSON, and as text where that is fixed.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use common::{checkpoints, command, cordada, folder_with_run};
use serde_json::Value;

fn keys(object: &Value) -> Vec<&str> {
    object.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn training_as_json_ends_with_done() {
    let folder = tempfile::tempdir().unwrap();
    let args = ["train", "ppo", "CartPole-v1", "--steps", "1k", "--json"];
    let said = cordada(folder.path(), &args).ok();
    assert_eq!(said.stderr, "");
    let events = said.json();
    assert_eq!(events[0]["event"], "start");
    assert_eq!(events.iter().filter(|e| e["event"] == "metrics").count(), 4);
    let last = said.stdout.lines().last().unwrap();
    let order = ["event", "run", "steps", "seconds", "steps_per_s", "eval_return"];
    let at: Vec<usize> = order.iter().map(|k| last.find(&format!("\"{k}\":")).unwrap()).collect();
    assert!(at.is_sorted() && keys(events.last().unwrap()).len() == order.len(), "{last}");
    let done = events.last().unwrap();
    assert_eq!((&done["event"], &done["steps"]), (&"done".into(), &1024.into()));
    assert_eq!(done["run"], "runs/ppo-CartPole-v1-1");
    let evaluation = &events[events.len() - 2];
    assert_eq!(evaluation["mean_return"], done["eval_return"]);
}

#[test]
fn several_seeds_end_with_an_aggregate() {
    let folder = tempfile::tempdir().unwrap();
    let args = ["train", "ppo", "CartPole-v1", "--steps", "512", "--seed", "3", "--seeds", "3"];
    let events = cordada(folder.path(), &[&args[..], &["--json"]].concat()).ok().json();
    let done: Vec<&Value> = events.iter().filter(|e| e["event"] == "done").collect();
    assert_eq!(done.len(), 3);
    assert!(events.iter().all(|e| e["event"] == "seeds_done" || e["seed"].is_u64()));
    let last = events.last().unwrap();
    assert_eq!(keys(last), ["event", "iqm", "iqm_high", "iqm_low", "mean", "seeds"]);
    let seeds = last["seeds"].as_array().unwrap();
    let returns: Vec<f64> = seeds.iter().map(|s| s["eval_return"].as_f64().unwrap()).collect();
    let mean = returns.iter().sum::<f64>() / 3.0;
    assert!((last["mean"].as_f64().unwrap() - mean).abs() < 1e-9);
    // A run of its own with the same seed gives the same.
    assert_eq!(seeds[1]["seed"], 4);
    let args = ["train", "ppo", "CartPole-v1", "--steps", "512", "--seed", "4", "--json"];
    let alone = cordada(folder.path(), &args).ok().json();
    assert_eq!(alone.last().unwrap()["eval_return"], seeds[1]["eval_return"]);
    // As text: a table, then the aggregate.
    let args = ["train", "ppo", "CartPole-v1", "--steps", "512", "--seeds", "2", "--out", "many"];
    let text = cordada(folder.path(), &args).ok().stdout;
    let lines: Vec<&str> = text.lines().collect();
    assert!(
        lines[0].starts_with("seed  return") && lines[1].ends_with("many/ppo-CartPole-v1-seed1")
    );
    assert!(lines[3].starts_with("mean ") && lines[3].ends_with(" over 2 seeds"), "{text}");
}

#[test]
fn eval_repeats_the_evaluation_of_the_run() {
    let folder = folder_with_run();
    let eval = |args: &[&str]| {
        let said = cordada(folder.path(), &[&["eval", "--episodes", "3", "--json"], args].concat());
        said.ok().json().remove(0)
    };
    let of_run = eval(&["run"]);
    let names = ["deterministic", "episodes", "mean_length", "mean_return", "std_return"];
    assert_eq!(keys(&of_run), names);
    let metrics = std::fs::read_to_string(folder.path().join("run/metrics.jsonl")).unwrap();
    let done: Value = serde_json::from_str(metrics.lines().last().unwrap()).unwrap();
    assert_eq!(of_run["mean_return"], done["eval_return"]);
    // The policy file alone is enough.
    let file = checkpoints(&folder.path().join("run"))[0].join("policy.safetensors");
    assert_eq!(eval(&[file.to_str().unwrap()]), of_run);
    assert_ne!(eval(&["run", "--seed", "2"])["mean_return"], of_run["mean_return"]);
    let sampled = eval(&["run", "--stochastic"]);
    assert_eq!(sampled["deterministic"], false);
    assert_ne!(sampled["mean_return"], of_run["mean_return"]);
    let text = cordada(folder.path(), &["eval", "run"]).ok().stdout;
    let mut lines = text.lines();
    assert!(lines.next().unwrap().starts_with("return  "));
    assert!(lines.next().unwrap().starts_with("length  "));
    assert_eq!(lines.next(), None);
}

#[test]
fn lists_are_json() {
    let folder = tempfile::tempdir().unwrap();
    let list = |args: &[&str]| -> Vec<Value> {
        let said = cordada(folder.path(), &[&["list", "--json"], args].concat()).ok();
        let mut lines = said.json();
        assert_eq!(lines.len(), 1);
        lines.remove(0).as_array().unwrap().clone()
    };
    assert_eq!(list(&["algos"]).len(), cordada::rl::algo::ALGORITHMS.len());
    assert_eq!(list(&["envs"]).len(), cordada::env::ENVIRONMENTS.len());
    assert_eq!(list(&["metrics"]).len(), cordada::log::METRICS.len());
    assert_eq!(list(&["presets"]).len(), cordada::rl::presets::PRESETS.len());
    let settings = list(&["settings", "ppo"]);
    let gamma = settings.iter().find(|s| s["name"] == "gamma").unwrap();
    assert_eq!(gamma["default"], "0.99");
}

#[test]
fn golden_recordings_are_replayed() {
    let golden = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/data");
    let files: Vec<String> = std::fs::read_dir(&golden)
        .unwrap()
        .map(|entry| entry.unwrap().path().display().to_string())
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let mut args = vec!["env", "replay", "--json"];
    args.extend(files.iter().map(String::as_str));
    let reports = cordada(folder.path(), &args).ok().json();
    assert_eq!(reports.len(), files.len());
    for (report, file) in reports.iter().zip(&files) {
        let names = [
            "env",
            "file",
            "flag_mismatches",
            "max_diff_obs",
            "max_diff_reward",
            "max_diff_state",
            "max_ulp_obs",
            "steps",
            "trajectories",
        ];
        assert_eq!(keys(report), names);
        assert_eq!(
            (&report["file"], &report["flag_mismatches"]),
            (&file.as_str().into(), &0.into())
        );
    }
}

#[test]
fn environments_are_checked() {
    let folder = tempfile::tempdir().unwrap();
    for spec in cordada::env::ENVIRONMENTS {
        let said = cordada(folder.path(), &["env", "check", spec.name, "--json"]).ok();
        let report = said.json().remove(0);
        assert_eq!((&report["env"], &report["passed"]), (&spec.name.into(), &true.into()));
        assert!(report["findings"].as_array().unwrap().len() >= 8);
    }
}

#[cfg(unix)]
#[test]
fn without_a_command_a_demonstration_is_trained() {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};
    let folder = tempfile::tempdir().unwrap();
    let mut child = command(folder.path(), &[]).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.next().unwrap().contains("balance a pole, with PPO"));
    // It takes too long for a test that is not optimized.
    lines.find(|line| line.starts_with(" 10%")).unwrap();
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let rest: Vec<String> = lines.collect();
    assert!(rest.iter().all(|line| !line.contains('\x1b')), "{rest:?}");
    assert_eq!(rest.last().unwrap(), "  cordada resume runs/ppo-CartPole-v1-1");
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let config = std::fs::read_to_string(folder.path().join("runs/ppo-CartPole-v1-1/config.toml"));
    let preset = cordada::rl::train::RunConfig::new("ppo", "CartPole-v1", &[]).unwrap();
    assert_eq!(config.unwrap(), preset.to_toml());
}

#[test]
fn colors_only_where_they_are_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let colored = |args: &[&str]| cordada(folder.path(), args).ok().stdout.contains('\x1b');
    assert!(colored(&["list", "envs", "--color", "always"]));
    assert!(!colored(&["list", "envs"]));
    assert!(!colored(&["list", "envs", "--color=never"]));
    assert!(colored(&["--color", "always", "--help"]) && !colored(&["--help"]));
}
