//! The report at the end of a run, however it ends. What the page shows is tested where it is made.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod common;

use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use common::changes;
use cordada_log::{Event, MemorySink, RunDir};
use cordada_rl::train::{Run, RunConfig};

/// Two iterations.
fn run(root: &Path) -> Run {
    let settings = [
        ("total_steps", "64"),
        ("eval_episodes", "1"),
        ("num_envs", "2"),
        ("num_steps", "16"),
        ("num_minibatches", "1"),
    ];
    let config = RunConfig::new("ppo", "CartPole-v1", &changes(&settings)).unwrap();
    Run::create(config, RunDir::create(root).unwrap(), 1).unwrap()
}

#[test]
fn a_run_ends_with_its_report() {
    let folder = tempfile::tempdir().unwrap();
    for (name, stop) in [("whole", false), ("stopped", true)] {
        let root = folder.path().join(name);
        let finished = run(&root).train(MemorySink::new(), &AtomicBool::new(stop)).unwrap();
        assert_eq!(finished.stopped, stop);
        let page = fs::read_to_string(root.join("report.html")).unwrap();
        assert!(page.contains("<h1>ppo on CartPole-v1</h1>"), "{page}");
        assert_eq!(page.contains("The run is not finished"), stop);
        // The last evaluation is in it: the events reached the file before it was read.
        assert_eq!(page.contains("over 1 evaluation"), !stop);
    }
}

#[test]
fn a_report_that_cannot_be_written_is_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("a");
    let mut run = run(&root);
    // No file can be renamed to a folder.
    fs::create_dir(root.join("report.html")).unwrap();
    let sink = MemorySink::new();
    let finished = run.train(sink.clone(), &AtomicBool::new(false)).unwrap();
    assert_eq!(finished.steps, 64);
    let events = sink.events();
    let [.., Event::Done { .. }, Event::Warning { step: 64, message }] = &events[..] else {
        panic!("{events:?}");
    };
    assert!(message.starts_with("there is no report of this run: cannot write "), "{message}");
    let lines = fs::read_to_string(root.join("metrics.jsonl")).unwrap();
    assert!(lines.lines().last().unwrap().starts_with(r#"{"event":"warning","step":64"#));
}
