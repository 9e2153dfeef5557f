//! A resumed run equals an uninterrupted one bit for bit: the learner alone, and a whole run in
//! its directory, stopped or killed.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod common;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{bits, changes, exact, make, restore, state, through_file};
use cordada_env::StateReader;
use cordada_log::{Event, NullSink, RunDir, Sink, read_deterministic};
use cordada_rl::checkpoint::{self, POLICY_FILE};
use cordada_rl::train::{Run, RunConfig};

const SMALL: &str = "num_envs = 3\nnum_steps = 70\nnum_minibatches = 5\nnum_epochs = 2\n\
                     actor = [16]\ncritic = [16]\nlearning_rate = \"linear(1e-3)\"\n";

const VARIANTS: [(&str, &str); 6] = [
    ("CartPole-v1", ""),
    ("Pendulum-v1", "normalize_obs = true\nnormalize_rewards = true\nclip_obs = 5.0"),
    ("CartPole-v1", "objective = \"kl_penalty\"\nkl_target = 0.001"),
    ("CartPole-v1", "trunk = [12, 8]\nlayer_norm = true\nvalue_clip = \"max\""),
    ("Pendulum-v1", "log_std = \"per_state\"\ntarget_kl = 0.01"),
    ("Pendulum-v1", "squash = true\nentropy_coef = 0.01\nclip_eps = \"linear(0.3, 0.1)\""),
];

#[test]
fn a_restored_learner_goes_on_as_if_nothing_had_happened() {
    let folder = tempfile::tempdir().unwrap();
    for (env, settings) in VARIANTS {
        let settings = format!("{SMALL}{settings}");
        let mut whole = make(env, &settings, 3, 1);
        whole.iterate().unwrap();
        whole.iterate().unwrap();
        let mut saved = (through_file(&whole.policy(), folder.path()), state(&*whole));
        // Twice in a row, the second time from a learner that was itself restored.
        for threads in [1, 3] {
            let mut resumed = make(env, &settings, 3, threads);
            restore(&mut *resumed, &saved.0, &saved.1);
            assert_eq!(resumed.policy(), whole.policy(), "{env} {settings}");
            assert_eq!(state(&*resumed), state(&*whole), "{env} {settings}");
            assert_eq!(
                (resumed.steps(), resumed.iterations()),
                (whole.steps(), whole.iterations())
            );
            for _ in 0..3 {
                let (a, b) = (whole.iterate().unwrap(), resumed.iterate().unwrap());
                assert_eq!(exact(&a), exact(&b), "{env} {settings}");
                assert_eq!(bits(&whole.policy().theta), bits(&resumed.policy().theta));
                assert_eq!(state(&*whole), state(&*resumed), "{env} {settings}");
            }
            saved = (through_file(&resumed.policy(), folder.path()), state(&*resumed));
        }
    }
}

#[test]
fn the_penalty_of_the_variants_adapts() {
    // Else the variant above would not show that β is saved.
    let mut learner = make("CartPole-v1", &format!("{SMALL}{}", VARIANTS[2].1), 3, 1);
    let mut kl_coef = || {
        let report = learner.iterate().unwrap();
        report.metrics.into_iter().find(|(name, _)| *name == "train/kl_coef").unwrap().1
    };
    let betas = [kl_coef(), kl_coef(), kl_coef()];
    assert!(betas.iter().any(|beta| *beta != 1.0), "{betas:?}");
}

#[test]
fn state_of_another_learner_is_refused() {
    let saved = make("CartPole-v1", SMALL, 3, 1);
    let (policy, bytes) = (saved.policy(), state(&*saved));
    let refusal = |settings: &str, bytes: &[u8]| {
        let mut other = make("CartPole-v1", &format!("{SMALL}{settings}"), 3, 1);
        other.load(&policy, &mut StateReader::new(bytes)).unwrap_err().to_string()
    };
    let message = refusal("trunk = [4]", &bytes);
    assert!(
        message.starts_with("saved state was made with policy ActorCritic(ActorCriticSpec {"),
        "{message}"
    );
    let fewer = "num_envs = 3\nnum_steps = 35\nnum_minibatches = 5\nactor = [16]\ncritic = [16]";
    let mut other = make("CartPole-v1", fewer, 3, 1);
    let error = other.load(&policy, &mut StateReader::new(&bytes)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "saved state was made with order of samples 210, this run has 105"
    );
    assert_eq!(
        refusal("", &bytes[..bytes.len() - 1]),
        format!(
            "saved state ends at byte {} where a list of u64 belongs: it was cut off",
            bytes.len() - 1
        )
    );
    // The string "ppo" stands first: tag, length, bytes.
    let mut renamed = bytes.clone();
    renamed[9..12].copy_from_slice(b"sac");
    assert_eq!(refusal("", &renamed), "saved state was made with algorithm sac, this run has ppo");
}

#[test]
fn a_policy_with_another_normalizer_is_refused() {
    let saved = make("Pendulum-v1", &format!("{SMALL}normalize_obs = true"), 3, 1);
    let (policy, bytes) = (saved.policy(), state(&*saved));
    for settings in ["", "normalize_obs = true\nclip_obs = 3.0"] {
        let mut other = make("Pendulum-v1", &format!("{SMALL}{settings}"), 3, 1);
        let error = other.load(&policy, &mut StateReader::new(&bytes)).unwrap_err();
        let message = error.to_string();
        assert!(message.starts_with("saved state was made with normalizer Some("), "{message}");
    }
}

/// Asks to stop after some iterations, or copies the run directory as a killed process leaves it.
struct After {
    left: usize,
    stop: Arc<AtomicBool>,
    copy: Option<[std::path::PathBuf; 2]>,
}

impl Sink for After {
    fn record(&mut self, event: &Event) -> Result<(), cordada_log::Error> {
        if let Event::Metrics { .. } = event {
            self.left = self.left.saturating_sub(1);
            if self.left == 0 {
                self.stop.store(true, Ordering::Relaxed);
                if let Some([from, to]) = self.copy.take() {
                    copy_folder(&from, &to);
                }
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), cordada_log::Error> {
        Ok(())
    }
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// Ten iterations of 210 steps, with evaluations on the way.
fn config(env: &str, checkpoint_seconds: &str) -> RunConfig {
    let normalize = if env == "Pendulum-v1" { "true" } else { "false" };
    let settings = [
        ("total_steps", "2000"),
        ("seed", "7"),
        ("num_envs", "3"),
        ("num_steps", "70"),
        ("num_minibatches", "5"),
        ("actor", "[16]"),
        ("critic", "[16]"),
        ("normalize_obs", normalize),
        ("normalize_rewards", normalize),
        ("eval_episodes", "2"),
        ("eval_interval", "500"),
        ("checkpoint_seconds", checkpoint_seconds),
    ];
    RunConfig::new("ppo", env, &changes(&settings)).unwrap()
}

/// What two runs that are the same agree on: the final policy's file and all events.
fn outcome(root: &Path) -> (Vec<u8>, Vec<serde_json::Value>) {
    let dir = RunDir::open(root).unwrap();
    let newest = checkpoint::newest(&dir.checkpoints_dir()).unwrap();
    assert_eq!(newest.steps, 2100);
    let policy = std::fs::read(newest.path.join(POLICY_FILE)).unwrap();
    (policy, read_deterministic(&dir.metrics_path()).unwrap())
}

fn uninterrupted(env: &str, root: &Path) -> (Vec<u8>, Vec<serde_json::Value>) {
    let mut run = Run::create(config(env, "1000"), RunDir::create(root).unwrap(), 1).unwrap();
    let finished = run.train(NullSink, &AtomicBool::new(false)).unwrap();
    assert_eq!((finished.steps, finished.stopped), (2100, false));
    let done = outcome(root);
    // Ten iterations, evaluations past 500, 1000 and 1500 steps, and the last one.
    assert_eq!(done.1.len(), 14);
    done
}

#[test]
fn a_run_stopped_twice_ends_as_one_that_was_not() {
    let folder = tempfile::tempdir().unwrap();
    for env in ["CartPole-v1", "Pendulum-v1"] {
        let whole = uninterrupted(env, &folder.path().join(format!("whole-{env}")));
        let root = folder.path().join(format!("stopped-{env}"));
        let mut run = Run::create(config(env, "1000"), RunDir::create(&root).unwrap(), 1).unwrap();
        let mut at = 0;
        for left in [3, 4] {
            let stop = Arc::new(AtomicBool::new(false));
            let sink = After { left, stop: Arc::clone(&stop), copy: None };
            let finished = run.train(sink, &stop).unwrap();
            at += 210 * left as u64;
            assert_eq!((finished.steps, finished.stopped), (at, true));
            assert_eq!(finished.evaluation, None);
            drop(run);
            run = Run::resume(RunDir::open_to_write(&root).unwrap(), 2).unwrap();
            assert_eq!(run.algorithm().steps(), at);
        }
        let finished = run.train(NullSink, &AtomicBool::new(false)).unwrap();
        assert!(!finished.stopped && finished.evaluation.is_some());
        drop(run);
        assert!(outcome(&root) == whole, "{env}: policies or events differ");
        // A finished run that is resumed does nothing but evaluate again.
        let mut run = Run::resume(RunDir::open_to_write(&root).unwrap(), 1).unwrap();
        assert_eq!(run.train(NullSink, &AtomicBool::new(false)).unwrap().steps, 2100);
        assert!(outcome(&root) == whole, "{env}: a finished run was changed");
    }
}

#[test]
fn a_killed_run_goes_on_from_its_last_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let whole = uninterrupted("CartPole-v1", &folder.path().join("whole"));
    // With a checkpoint after every iteration, and with none before the end.
    for (checkpoint_seconds, from) in [("0", 630), ("1000", 0)] {
        let root = folder.path().join(format!("running-{from}"));
        let killed = folder.path().join(format!("killed-{from}"));
        let dir = RunDir::create(&root).unwrap();
        let mut run = Run::create(config("CartPole-v1", checkpoint_seconds), dir, 1).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let copy = Some([root, killed.clone()]);
        run.train(After { left: 4, stop: Arc::clone(&stop), copy }, &stop).unwrap();
        let mut resumed = Run::resume(RunDir::open_to_write(&killed).unwrap(), 1).unwrap();
        assert_eq!(resumed.algorithm().steps(), from);
        resumed.train(NullSink, &AtomicBool::new(false)).unwrap();
        assert!(outcome(&killed) == whole, "resumed from step {from}: policies or events differ");
    }
}
