//! Benchmarks: what they write and print, and that their flags are heeded. What they measure is
//! not looked at here.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use common::cordada;
use serde_json::Value;

#[test]
fn the_family_is_written_to_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let args = [
        "bench",
        "family",
        "--algos",
        "ppo,reinforce",
        "--envs",
        "CartPole-v1",
        "--seeds",
        "2",
        "--seed",
        "7",
        "--steps-scale",
        "0.008",
        "--seconds",
        "0.2",
        "--out",
        "small",
    ];
    let said = cordada(folder.path(), &args).ok();
    assert!(said.stdout.starts_with("| environment"), "{}", said.stdout);
    // Two pairs, two seeds, once with equal steps and once with equal time.
    let progress: Vec<&str> = said.stderr.lines().filter(|l| l.contains(" of 8  ")).collect();
    assert_eq!(progress.len(), 8, "{}", said.stderr);
    assert!(progress[0].starts_with("1 of 8  ") && progress[0].ends_with(" left"), "{progress:?}");

    let read =
        |name: &str| std::fs::read_to_string(folder.path().join("small").join(name)).unwrap();
    let text = read("family.md");
    assert!(text.contains(said.stdout.trim()), "the table is the one on stdout:\n{text}");
    let row = text.lines().find(|line| line.starts_with("| CartPole-v1 | ppo ")).unwrap();
    assert!(row.contains("| policy gradient |") && row.contains("of 2"), "{row}");
    for plot in ["family-steps.svg", "family-seconds.svg"] {
        let svg = read(plot);
        assert!(text.contains(&format!("({plot})")), "{plot} is shown");
        for name in ["ppo", "reinforce", "CartPole-v1"] {
            assert!(svg.contains(&format!(">{name}</text>")), "{name} in {plot}");
        }
    }
    let raw: Value = serde_json::from_str(&read("family.json")).unwrap();
    assert_eq!(raw["seeds"], serde_json::json!([7, 8]));
    for pair in raw["pairs"].as_array().unwrap() {
        assert_eq!((&pair["steps"], &pair["kind"]), (&800.into(), &"policy_gradient".into()));
        let runs = pair["runs"].as_array().unwrap();
        assert_eq!(runs.len(), 4);
        for run in runs {
            let points = run["points"].as_array().unwrap();
            let last = points.last().unwrap();
            assert_eq!(points[0][0], 0);
            assert_eq!((&last[0], &last[2]), (&run["steps"], &run["final_return"]));
            if run["equal"] == "steps" {
                assert!((800..1600).contains(&run["steps"].as_u64().unwrap()), "{run}");
            } else {
                assert!(run["seconds"].as_f64().unwrap() >= 0.2, "{run}");
            }
        }
    }
}

#[test]
fn without_time_there_is_one_plot() {
    let folder = tempfile::tempdir().unwrap();
    let args = [
        "bench",
        "family",
        "--algos",
        "q_learning",
        "--seeds",
        "1",
        "--steps-scale",
        "0.01",
        "--seconds",
        "0",
        "--json",
    ];
    let said = cordada(folder.path(), &args).ok();
    let rows = said.json();
    assert_eq!((rows.len(), &rows[0]["env"]), (1, &"FrozenLake-v1".into()));
    assert_eq!((&rows[0]["kind"], &rows[0]["time"]), (&"value_based".into(), &Value::Null));
    assert!(rows[0]["steps"]["final_return"].is_f64() && said.stderr.is_empty());
    let out = folder.path().join("family");
    assert!(out.join("family-steps.svg").exists() && !out.join("family-seconds.svg").exists());
}

#[test]
fn bars_are_chosen_by_algorithm_and_environment() {
    let folder = tempfile::tempdir().unwrap();
    // Training takes too long here; a bar that is not there takes none.
    let said = cordada(folder.path(), &["bench", "learn", "--algo", "sac", "--env", "Acrobot-v1"]);
    assert_eq!(said.code, Some(2));
    assert!(said.stderr.contains("no bar is chosen") && said.stderr.contains("td3 on Pendulum-v1"));
}

#[test]
fn flags_of_other_benchmarks_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    for (args, says) in [
        (&["lstm", "--algos", "ppo"][..], "lstm takes no --algos"),
        (&["env-step", "CartPole-v1"], "env-step takes no ENV"),
        (&["learn", "--seconds", "1"], "learn takes no --seconds"),
        (&["family", "--envs", "MountainCar-v0"], "no environment MountainCar-v0"),
        (&["family", "--algos", "sac", "--envs", "CartPole-v1"], "no algorithm that is chosen"),
        (&["family", "--algos", "pppo"], "unknown algorithm \"pppo\""),
        (&["family", "--steps-scale", "0"], "a number above 0"),
    ] {
        let said = cordada(folder.path(), &[&["bench"], args].concat());
        assert_eq!(said.code, Some(2), "{}", said.stderr);
        assert!(said.stderr.contains(says), "{}", said.stderr);
    }
}
