//! A3C: one worker is A2C, workers in turn are deterministic and resumed bit for bit, and workers
//! at once learn without a lock and without a number that is not finite.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod common;

use common::{Scripted, bits, exact, make_in, restore, state, table, through_file};
use cordada_env::{Outcome, Space};
use cordada_rl::Error;
use cordada_rl::algo::{Algorithm, find};
use cordada_rl::policy_file::PolicyRunner;

/// A learner called `algo`.
fn learner(algo: &str, env: &str, settings: &str, threads: usize) -> Box<dyn Algorithm> {
    let spec = cordada_env::find(env).unwrap();
    make_in(find(algo).unwrap(), &|| spec.build(), &table(settings), (3, threads)).unwrap()
}

/// Metrics and θ, bit by bit.
type Trace = (Vec<(&'static str, u64)>, Vec<u32>);

/// Numbers of a learner after each of some iterations.
fn trace(learner: &mut dyn Algorithm, iterations: usize) -> Vec<Trace> {
    let one = |_| {
        let report = learner.iterate().unwrap();
        (exact(&report), bits(&learner.policy().theta))
    };
    (0..iterations).map(one).collect()
}

const SMALL: &str = "num_steps = 5\nactor = [16]\ncritic = [16]\n";

#[test]
fn one_worker_is_a2c() {
    let rules = ["rms_prop_tf", "adam", "sgd"];
    let variants = ["", "trunk = [8]", "memory = \"gru\"\nmemory_size = 8"];
    for (rule, variant) in rules.iter().flat_map(|rule| variants.map(|v| (rule, v))) {
        let both = format!(
            "{SMALL}{variant}\noptimizer = \"{rule}\"\noptimizer_eps = 1e-3\nlearning_rate = 0.01\n\
             entropy_coef = 0.02\nvalue_coef = 0.7\ngae_lambda = 0.9\n"
        );
        for env in ["CartPole-v1", "Pendulum-v1"] {
            let of_a2c = format!("{both}num_envs = 3\n");
            let of_a3c =
                format!("{both}workers = 1\nenvs_per_worker = 3\nupdates_per_iteration = 4\n");
            let mut a2c = learner("a2c", env, &of_a2c, 1);
            let mut a3c = learner("a3c", env, &of_a3c, 1);
            for _ in 0..5 {
                for _ in 0..4 {
                    a2c.iterate().unwrap();
                }
                a3c.iterate().unwrap();
                assert_eq!(a3c.steps(), a2c.steps());
                let (got, want) = (a3c.policy().theta, a2c.policy().theta);
                assert_eq!(bits(&got), bits(&want), "{env} {rule} {variant}");
            }
        }
    }
}

#[test]
fn workers_in_turn_do_not_depend_on_threads() {
    let settings = format!("{SMALL}mode = \"round_robin\"\nworkers = 5\nenvs_per_worker = 2\n");
    let one = trace(&mut *learner("a3c", "CartPole-v1", &settings, 1), 6);
    for threads in [2, 7] {
        assert_eq!(trace(&mut *learner("a3c", "CartPole-v1", &settings, threads), 6), one);
    }
    // On one thread nobody is at work at the same time.
    let at_once = settings.replace("round_robin", "async");
    assert_eq!(trace(&mut *learner("a3c", "CartPole-v1", &at_once, 1), 6), one);
    // The workers do share θ: five of them are not one.
    let alone = settings.replace("workers = 5", "workers = 1");
    assert_ne!(trace(&mut *learner("a3c", "CartPole-v1", &alone, 1), 6)[5].1, one[5].1);
}

#[test]
fn workers_in_turn_are_resumed_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    for rule in ["rms_prop_tf", "adam"] {
        let settings = format!(
            "{SMALL}mode = \"round_robin\"\nworkers = 3\nenvs_per_worker = 2\noptimizer = \"{rule}\"\n"
        );
        let mut whole = learner("a3c", "Pendulum-v1", &settings, 1);
        trace(&mut *whole, 3);
        let mut resumed = learner("a3c", "Pendulum-v1", &settings, 2);
        restore(&mut *resumed, &through_file(&whole.policy(), folder.path()), &state(&*whole));
        assert_eq!((resumed.steps(), resumed.iterations()), (whole.steps(), whole.iterations()));
        assert_eq!(trace(&mut *resumed, 4), trace(&mut *whole, 4), "{rule}");
        assert_eq!(state(&*resumed), state(&*whole), "{rule}");
    }
}

#[test]
fn workers_at_once_learn_and_count_every_step() {
    let play = |_: u32, _: f32, a: &[f32]| (f64::from(a[0]), Outcome::Terminated);
    let bandit = Scripted::new(Space::Discrete { n: 2 }, |_, _| 0.5, play).maker();
    let settings =
        table(&format!("{SMALL}workers = 8\nenvs_per_worker = 2\nlearning_rate = 0.005"));
    let mut learner = make_in(find("a3c").unwrap(), &bandit, &settings, (1, 4)).unwrap();
    for iteration in 1..=20 {
        let report = learner.iterate().unwrap();
        assert!(report.metrics.iter().all(|(_, x)| x.is_finite()), "{report:?}");
        // Workers, environments, steps, segments.
        assert_eq!(learner.steps(), iteration * 8 * 2 * 5 * 10);
        assert!(learner.policy().theta.iter().all(|x| x.is_finite()));
    }
    let mut action = [f32::NAN];
    PolicyRunner::new(&learner.policy()).act(&[0.5], None, &mut [], None, &mut action);
    assert_eq!(action, [1.0]);
    let report = learner.iterate().unwrap();
    let mean = report.metrics.iter().find(|(name, _)| *name == "rollout/episode_return").unwrap();
    assert!(mean.1 > 0.95, "{mean:?}");
}

#[test]
fn a_number_that_is_not_finite_stops_all_workers() {
    let play =
        |_: u32, obs: f32, _: &[f32]| (if obs > 3.0 { f64::NAN } else { 1.0 }, Outcome::Continue);
    let count = |t: u32, _: &mut cordada_env::Stream| t as f32 / 10.0;
    let broken = Scripted::new(Space::Discrete { n: 2 }, count, play).maker();
    for threads in [1, 4] {
        let settings = table(&format!("{SMALL}workers = 4\n"));
        let mut learner = make_in(find("a3c").unwrap(), &broken, &settings, (1, threads)).unwrap();
        let error = learner.iterate().unwrap_err();
        assert!(matches!(&error, Error::NonFinite { what, .. } if what == "reward"), "{error}");
        assert!(learner.policy().theta.iter().all(|x| x.is_finite()));
    }
}

#[test]
fn settings_said_in_another_way_tell_how() {
    let spec = cordada_env::find("CartPole-v1").unwrap();
    let refuse = |settings: &str| {
        let made = make_in(find("a3c").unwrap(), &|| spec.build(), &table(settings), (1, 1));
        made.unwrap_err().to_string()
    };
    let message = "a3c.num_envs = 8: set workers and envs_per_worker, whose product it is";
    assert_eq!(refuse("num_envs = 8"), message);
    assert_eq!(refuse("workers = 0"), "a3c.workers = 0: at least 1");
    let message = refuse("workers = 1000000\nenvs_per_worker = 1000000");
    assert_eq!(message, "a3c.num_envs = 1000000000000: at most 1000000");
}
