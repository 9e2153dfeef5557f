//! Checkpoints that are damaged, half written or cannot be written: none is ever taken for a
//! whole one, and the older ones stay.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use common::{changes, make};
use cordada_log::{Event, NullSink, RunDir, Sink};
use cordada_rl::Error;
use cordada_rl::checkpoint::{self, MANIFEST_FILE, POLICY_FILE, STATE_FILE};
use cordada_rl::policy_file::Policy;
use cordada_rl::train::{Run, RunConfig};

fn policy() -> Policy {
    make("CartPole-v1", "actor = [4]\ncritic = [4]", 1, 1).policy()
}

/// Checkpoints at steps 100, 200 and 300, with the step as their state.
fn three(folder: &Path) -> [PathBuf; 3] {
    let policy = policy();
    [100_u64, 200, 300].map(|steps| {
        checkpoint::save(folder, steps, &policy, steps.to_string().as_bytes()).unwrap()
    })
}

fn damage(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

#[test]
fn the_newest_is_read_as_it_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let paths = three(folder.path());
    assert_eq!(paths[2], folder.path().join("step-000000000300"));
    let found = checkpoint::newest(folder.path()).unwrap();
    assert_eq!((found.steps, &found.state[..], &found.path), (300, &b"300"[..], &paths[2]));
    assert_eq!(found.policy, policy());
    assert_eq!(found.refused, [""; 0]);
    // One of the same step takes the place of the old one.
    checkpoint::save(folder.path(), 300, &policy(), b"again").unwrap();
    assert_eq!(checkpoint::newest(folder.path()).unwrap().state, b"again");
    assert_eq!(checkpoint::list(folder.path()).unwrap().len(), 3);
}

type Damage = Box<dyn Fn(&Path)>;

#[test]
fn a_damaged_one_is_refused_by_name_and_the_next_older_used() {
    let flip = |bytes: &mut Vec<u8>| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    };
    let cases: [(&str, Damage); 8] = [
        (
            "damaged checkpoint: state.bin is not what was written",
            Box::new(move |p| damage(&p.join(STATE_FILE), flip)),
        ),
        (
            "damaged checkpoint: policy.safetensors is not what was written",
            Box::new(move |p| damage(&p.join(POLICY_FILE), flip)),
        ),
        (
            "damaged checkpoint: policy.safetensors is not what was written",
            Box::new(|p| damage(&p.join(POLICY_FILE), |bytes| bytes.truncate(100))),
        ),
        (
            "damaged checkpoint: no state.bin",
            Box::new(|p| fs::remove_file(p.join(STATE_FILE)).unwrap()),
        ),
        (
            "not a whole checkpoint: no manifest.json",
            Box::new(|p| fs::remove_file(p.join(MANIFEST_FILE)).unwrap()),
        ),
        (
            "damaged checkpoint: manifest.json: EOF while parsing a value at line 1 column 0",
            Box::new(|p| fs::write(p.join(MANIFEST_FILE), "").unwrap()),
        ),
        (
            "checkpoint format 9 of version 7.0.0; this version reads 1",
            Box::new(|p| {
                let json = r#"{"format":9,"version":"7.0.0","steps":300,"files":{}}"#;
                fs::write(p.join(MANIFEST_FILE), json).unwrap();
            }),
        ),
        (
            "not a whole checkpoint: no manifest.json",
            Box::new(|p| fs::remove_dir_all(p).and_then(|()| fs::create_dir(p)).unwrap()),
        ),
    ];
    for (reason, damage) in cases {
        let folder = tempfile::tempdir().unwrap();
        let [_, older, newest] = three(folder.path());
        damage(&newest);
        let found = checkpoint::newest(folder.path()).unwrap();
        assert_eq!((found.steps, &found.path), (200, &older), "{reason}");
        assert_eq!(found.refused, [format!("{}: {reason}", newest.display())]);
    }
}

#[test]
fn if_all_are_damaged_the_newest_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let paths = three(folder.path());
    for path in &paths {
        damage(&path.join(STATE_FILE), |bytes| bytes.push(0));
    }
    let error = checkpoint::newest(folder.path()).unwrap_err().to_string();
    let reason = "damaged checkpoint: state.bin is not what was written";
    assert_eq!(error, format!("{}: {reason}", paths[2].display()));
}

#[test]
fn without_any_there_is_nothing_to_go_on_from() {
    let folder = tempfile::tempdir().unwrap();
    let error = checkpoint::newest(folder.path()).unwrap_err();
    assert!(matches!(error, Error::NoCheckpoint { .. }));
    let message = format!(
        "{}: no whole checkpoint to go on from; start the run again with `cordada train`",
        folder.path().display()
    );
    assert_eq!(error.to_string(), message);
}

#[test]
fn a_half_written_one_is_not_seen_and_is_cleared_away() {
    let folder = tempfile::tempdir().unwrap();
    let paths = three(folder.path());
    // What a process that was killed while writing leaves.
    let half = folder.path().join(".writing-step-000000000400");
    fs::create_dir(&half).unwrap();
    fs::copy(paths[2].join(POLICY_FILE), half.join(POLICY_FILE)).unwrap();
    // And something of the user's.
    fs::write(folder.path().join("notes.txt"), "mine").unwrap();
    let found = checkpoint::newest(folder.path()).unwrap();
    assert_eq!((found.steps, found.refused.len()), (300, 0));
    // The same step can be written in spite of it.
    checkpoint::save(folder.path(), 400, &policy(), b"400").unwrap();
    fs::create_dir(&half).unwrap();
    checkpoint::prune(folder.path(), 400, 2).unwrap();
    let left = checkpoint::list(folder.path()).unwrap();
    assert_eq!(left, [folder.path().join("step-000000000400"), paths[2].clone()]);
    assert!(!half.exists());
    assert!(folder.path().join("notes.txt").exists());
    // The last one is never removed.
    checkpoint::prune(folder.path(), 400, 0).unwrap();
    assert_eq!(checkpoint::newest(folder.path()).unwrap().steps, 400);
}

#[test]
fn the_one_just_written_outlives_damaged_ones_of_later_steps() {
    let folder = tempfile::tempdir().unwrap();
    let paths = three(folder.path());
    // The newest is damaged, so a run went on from 200 and has just written 250.
    fs::write(paths[2].join(STATE_FILE), "").unwrap();
    let just = checkpoint::save(folder.path(), 250, &policy(), b"250").unwrap();
    checkpoint::prune(folder.path(), 250, 1).unwrap();
    assert_eq!(checkpoint::list(folder.path()).unwrap(), [just]);
    assert_eq!(checkpoint::newest(folder.path()).unwrap().steps, 250);
}

#[test]
fn newer_means_more_steps_not_a_later_name() {
    let folder = tempfile::tempdir().unwrap();
    // More digits than names are filled up to.
    for steps in [1_000_000_000_000, 999_999_999_999, 5] {
        checkpoint::save(folder.path(), steps, &policy(), b"").unwrap();
    }
    checkpoint::prune(folder.path(), 1_000_000_000_000, 2).unwrap();
    assert_eq!(checkpoint::newest(folder.path()).unwrap().steps, 1_000_000_000_000);
    assert_eq!(checkpoint::list(folder.path()).unwrap().len(), 2);
}

#[test]
fn what_cannot_be_written_leaves_the_older_ones() {
    let folder = tempfile::tempdir().unwrap();
    three(folder.path());
    // Something that is not a folder stands where the new one is to be written.
    let obstacle = folder.path().join(".writing-step-000000000400");
    fs::write(&obstacle, "").unwrap();
    let error = checkpoint::save(folder.path(), 400, &policy(), b"400").unwrap_err().to_string();
    assert!(error.starts_with(&format!("cannot remove {}: ", obstacle.display())), "{error}");
    assert_eq!(checkpoint::newest(folder.path()).unwrap().steps, 300);
    assert_eq!(checkpoint::list(folder.path()).unwrap().len(), 3);
}

/// Set in the process that `a_write_that_fails_midway_leaves_the_older_ones` starts.
#[cfg(unix)]
const FOLDER: &str = "CORDADA_TEST_CHECKPOINTS";

/// The process whose files may have no more than 4 KiB: its write fails midway, as on a full disk.
#[cfg(unix)]
#[test]
fn a_write_that_fails_midway_leaves_the_older_ones() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        let error = checkpoint::save(Path::new(&folder), 400, &policy(), &vec![7; 100_000]);
        fs::write(Path::new(&folder).join("said"), error.unwrap_err().to_string()).unwrap();
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    three(folder.path());
    let name = "a_write_that_fails_midway_leaves_the_older_ones";
    let script = "trap '' XFSZ; ulimit -f 8; exec \"$0\" --exact \"$1\"";
    let program = std::env::current_exe().unwrap();
    let run = std::process::Command::new("sh")
        .args(["-c", script])
        .arg(program)
        .arg(name)
        .env(FOLDER, folder.path())
        .output()
        .unwrap();
    assert!(run.status.success(), "{run:?}");
    let said = fs::read_to_string(folder.path().join("said")).unwrap();
    let file = folder.path().join(".writing-step-000000000400").join(STATE_FILE);
    assert!(said.starts_with(&format!("cannot write {}: ", file.display())), "{said}");
    assert!(!file.parent().unwrap().exists(), "what was begun is removed");
    let found = checkpoint::newest(folder.path()).unwrap();
    assert_eq!((found.steps, found.refused.len()), (300, 0));
}

#[test]
fn a_run_goes_on_from_an_older_one_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("run");
    let settings = [
        ("total_steps", "400"),
        ("num_envs", "2"),
        ("num_steps", "50"),
        ("num_minibatches", "5"),
        ("eval_episodes", "0"),
        ("checkpoint_seconds", "0"),
        ("keep_checkpoints", "2"),
    ];
    let config = RunConfig::new("ppo", "CartPole-v1", &changes(&settings)).unwrap();
    let mut run = Run::create(config, RunDir::create(&root).unwrap(), 1).unwrap();
    run.train(NullSink, &AtomicBool::new(false)).unwrap();
    drop(run);
    let checkpoints = root.join("checkpoints");
    let kept = checkpoint::list(&checkpoints).unwrap();
    assert_eq!(kept.len(), 2);
    let whole = checkpoint::newest(&checkpoints).unwrap();
    assert_eq!(whole.steps, 400);
    damage(&kept[0].join(STATE_FILE), |bytes| bytes.truncate(10));

    let mut run = Run::resume(RunDir::open_to_write(&root).unwrap(), 1).unwrap();
    assert_eq!(run.algorithm().steps(), 300);
    let sink = cordada_log::MemorySink::new();
    run.train(sink.clone(), &AtomicBool::new(false)).unwrap();
    let warned = sink.events().into_iter().find_map(|event| match event {
        Event::Warning { step, message } => Some((step, message)),
        _ => None,
    });
    let reason = "damaged checkpoint: state.bin is not what was written";
    assert_eq!(warned, Some((300, format!("{}: {reason}", kept[0].display()))));
    // The damaged one has been written again, with what it held; but its first number, the length
    // of the file of events, counts the warning and the resume as well.
    let again = checkpoint::newest(&checkpoints).unwrap();
    assert_eq!(again.steps, 400);
    assert!(again.policy == whole.policy && again.state[9..] == whole.state[9..], "they differ");
}

/// `/dev/full` is a disk without space.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_stops_a_run_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("run");
    let config = RunConfig::new("ppo", "CartPole-v1", &changes(&[("eval_episodes", "0")])).unwrap();
    drop(Run::create(config, RunDir::create(&root).unwrap(), 1).unwrap());
    let metrics = root.join("metrics.jsonl");
    std::os::unix::fs::symlink("/dev/full", &metrics).unwrap();
    let mut run = Run::resume(RunDir::open_to_write(&root).unwrap(), 1).unwrap();
    let error = run.train(NullSink, &AtomicBool::new(true)).unwrap_err();
    assert!(matches!(error, Error::Log(cordada_log::Error::DiskFull { .. })), "{error:?}");
    let expected = format!(
        "the disk is full: cannot write {}: free some space, then continue with `cordada resume`; \
         the last whole checkpoint is kept",
        metrics.display()
    );
    assert_eq!(error.to_string(), expected);
}

/// Takes events, but cannot make them durable.
struct Volatile;

impl Sink for Volatile {
    fn record(&mut self, _: &Event) -> Result<(), cordada_log::Error> {
        Ok(())
    }

    fn flush(&mut self) -> Result<(), cordada_log::Error> {
        Err(cordada_log::Error::DiskFull { action: "write", path: "events".into() })
    }
}

#[test]
fn no_checkpoint_refers_to_events_that_are_not_on_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("run");
    let config = RunConfig::new("ppo", "CartPole-v1", &[]).unwrap();
    let mut run = Run::create(config, RunDir::create(&root).unwrap(), 1).unwrap();
    let error = run.train(Volatile, &AtomicBool::new(true)).unwrap_err().to_string();
    assert!(error.starts_with("the disk is full: cannot write events: "), "{error}");
    assert!(checkpoint::list(&root.join("checkpoints")).unwrap().is_empty());
}
