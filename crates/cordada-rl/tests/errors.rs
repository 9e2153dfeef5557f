//! What goes wrong is said by name: numbers that are not finite, spaces and names that do not
//! exist, values that cannot be used. Damaged files are the matter of `checkpoints.rs` and
//! `policy_file.rs`.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod common;

use std::sync::atomic::AtomicBool;

use common::{Play, Scripted, changes, make_in, ppo, table};
use cordada_env::{Outcome, Space, Stream};
use cordada_log::{NullSink, RunDir};
use cordada_rl::algo;
use cordada_rl::checkpoint;
use cordada_rl::config::Config;
use cordada_rl::train::{Run, RunConfig, RunSettings};

const SMALL: &str = "num_envs = 2\nnum_steps = 20\nnum_minibatches = 4\nnum_epochs = 2\n\
                     actor = [8]\ncritic = [8]\n";

/// The error of the first iteration that fails, of `iterations`.
fn failure(probe: Scripted, settings: &str, iterations: usize) -> Option<String> {
    let settings = table(&format!("{SMALL}{settings}"));
    let mut learner = make_in(ppo(), &probe.maker(), &settings, (1, 1)).unwrap();
    (0..iterations).find_map(|_| learner.iterate().err()).map(|error| error.to_string())
}

fn is_not_finite(what: &str, iteration: u32) -> String {
    format!("{what} in iteration {iteration}; training stopped")
}

#[test]
fn rewards_that_are_not_finite_stop_training() {
    // From the 51st step of an episode on, which is in the third iteration.
    let cases: [(Play, &str); 4] = [
        (|t, _, _| (if t < 50 { 1.0 } else { f64::NAN }, Outcome::Continue), "reward is NaN"),
        (|t, _, _| (if t < 50 { 1.0 } else { f64::INFINITY }, Outcome::Continue), "reward is inf"),
        (
            |t, _, _| (if t < 50 { 1.0 } else { -f64::INFINITY }, Outcome::Continue),
            "reward is -inf",
        ),
        // Finite, but not as the f32 that is learned from.
        (|t, _, _| (if t < 50 { 1.0 } else { 1e39 }, Outcome::Continue), "reward is inf"),
    ];
    for (play, message) in cases {
        let probe = Scripted::new(Space::Discrete { n: 2 }, |_, _| 0.5, play);
        assert_eq!(failure(probe, "", 5), Some(is_not_finite(message, 2)));
    }
    // The negative control: the same environment with finite rewards.
    let fine =
        Scripted::new(Space::Discrete { n: 2 }, |_, _| 0.5, |_, _, _| (1.0, Outcome::Continue));
    assert_eq!(failure(fine, "", 5), None);
}

#[test]
fn observations_that_are_not_finite_stop_training() {
    let play: Play = |_, _, _| (1.0, Outcome::Continue);
    let spaces = [
        Space::Discrete { n: 2 },
        Space::MultiDiscrete { nvec: vec![2, 3] },
        Space::MultiBinary { n: 2 },
        Space::vector(&[-1.0], &[1.0]),
    ];
    for space in spaces {
        for settings in ["", "normalize_obs = true"] {
            let probe =
                Scripted::new(space.clone(), |t, _| if t == 30 { f32::NAN } else { 0.5 }, play);
            let expected = is_not_finite("observation is NaN", 1);
            assert_eq!(failure(probe, settings, 5), Some(expected), "{space} {settings}");
            // The very first one, which no step gives.
            let observe = |t, _: &mut Stream| if t == 0 { f32::NEG_INFINITY } else { 0.5 };
            let probe = Scripted::new(space.clone(), observe, play);
            let expected = is_not_finite("observation is -inf", 0);
            assert_eq!(failure(probe, settings, 5), Some(expected), "{space} {settings}");
        }
    }
}

#[test]
fn a_last_observation_that_is_not_finite_stops_training() {
    // Only what is seen last in an episode is NaN: nothing but its value depends on it.
    let observe = |t, _: &mut Stream| if t == 7 { f32::NAN } else { 0.5 };
    let truncated: Play =
        |t, _, _| (1.0, if t == 6 { Outcome::Truncated } else { Outcome::Continue });
    let terminated: Play =
        |t, _, _| (1.0, if t == 6 { Outcome::Terminated } else { Outcome::Continue });
    let fails = |play| failure(Scripted::new(Space::Discrete { n: 2 }, observe, play), "", 2);
    assert_eq!(fails(truncated), Some(is_not_finite("final observation is NaN", 0)));
    // A final state has no value, so what it looks like does not matter.
    assert_eq!(fails(terminated), None);
}

#[test]
fn a_learning_rate_out_of_all_proportion_stops_training() {
    let play: Play = |t, _, _| (1.0, if t == 6 { Outcome::Truncated } else { Outcome::Continue });
    let probe = || Scripted::new(Space::Discrete { n: 2 }, |_, _| 0.5, play);
    let message = failure(probe(), "learning_rate = 1e30", 2).unwrap();
    assert_eq!(message, is_not_finite("objective is -inf", 0));
    // One update in an iteration: there is no second minibatch to notice what it did.
    let once = "num_minibatches = 1\nnum_epochs = 1\nlearning_rate = 1e200";
    let settings = SMALL.replace("num_minibatches = 4\nnum_epochs = 2\n", "");
    let settings = table(&format!("{settings}{once}"));
    let mut learner = make_in(ppo(), &probe().maker(), &settings, (1, 1)).unwrap();
    let error = learner.iterate().unwrap_err();
    assert_eq!(error.to_string(), is_not_finite("parameter is inf", 0));
}

#[test]
fn absurd_parameters_never_panic() {
    // Finite parameters whose sums are not: actions are drawn from NaN.
    let spaces = [
        Space::Discrete { n: 3 },
        Space::MultiDiscrete { nvec: vec![2, 3] },
        Space::MultiBinary { n: 2 },
        Space::vector(&[-1.0], &[1.0]),
        Space::vector(&[f32::NEG_INFINITY], &[f32::INFINITY]),
    ];
    for space in spaces {
        for settings in ["", "squash = true\n", "log_std = \"per_state\"\n"] {
            let bounded = matches!(&space, Space::Box(b) if b.is_bounded());
            if settings.starts_with("squash") && !bounded {
                continue;
            }
            let play: Play = |_, _, a| (f64::from(a[0]), Outcome::Continue);
            let probe = Scripted::new(space.clone(), |_, _| 0.5, play);
            let all = "num_envs = 2\nnum_steps = 20\nnum_minibatches = 1\nnum_epochs = 1\n\
                       learning_rate = 3e37";
            let settings = table(&format!("{settings}{all}"));
            let mut learner = make_in(ppo(), &probe.maker(), &settings, (1, 1)).unwrap();
            let error = (0..4).find_map(|_| learner.iterate().err());
            let message = error.map(|e| e.to_string()).unwrap_or_default();
            assert!(message.contains("training stopped"), "{space} {settings}: {message:?}");
        }
    }
}

#[test]
fn a_run_that_breaks_down_says_so_and_keeps_its_last_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("run");
    // Step sizes that grow over the run, so that the first iterations are good.
    let settings = [
        ("total_steps", "4000"),
        ("num_envs", "2"),
        ("num_steps", "50"),
        ("num_minibatches", "5"),
        ("learning_rate", "linear(1e-4, 1e36)"),
        ("eval_episodes", "0"),
        ("checkpoint_seconds", "0"),
    ];
    let config = RunConfig::new("ppo", "CartPole-v1", &changes(&settings)).unwrap();
    let mut run = Run::create(config, RunDir::create(&root).unwrap(), 1).unwrap();
    let error = run.train(NullSink, &AtomicBool::new(false)).unwrap_err().to_string();
    assert!(error.ends_with("in iteration 1; training stopped"), "{error}");
    drop(run);
    let dir = RunDir::open_to_write(&root).unwrap();
    let text = std::fs::read_to_string(dir.metrics_path()).unwrap();
    let last: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(last["event"], "failed");
    assert_eq!(last["step"], 100);
    assert_eq!(last["message"], error.as_str());
    let kept = checkpoint::newest(&dir.checkpoints_dir()).unwrap();
    assert_eq!((kept.steps, &kept.refused[..]), (100, &[][..]));
    assert!(kept.policy.theta.iter().all(|x| x.is_finite() && x.abs() < 10.0));
    assert_eq!(Run::resume(dir, 1).unwrap().algorithm().steps(), 100);
}

#[test]
fn a_space_that_no_policy_acts_in_is_refused() {
    let space = Space::Dict(vec![
        ("move".into(), Space::Discrete { n: 2 }),
        ("turn".into(), Space::vector(&[-1.0], &[1.0])),
    ]);
    let probe = Scripted::new(space, |_, _| 0.0, |_, _, _| (0.0, Outcome::Continue));
    let error = make_in(ppo(), &probe.maker(), &table(""), (1, 1)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "ppo cannot use the action space Dict('move': Discrete(2), 'turn': Box(-1.0, 1.0, (1,))) of \
         Test-v0; it takes Discrete, MultiDiscrete, MultiBinary and Box action spaces"
    );
}

#[test]
fn unknown_names_come_with_the_nearest() {
    let error =
        |algo, env, pairs| RunConfig::new(algo, env, &changes(pairs)).unwrap_err().to_string();
    let cartpole = "CartPole-v1";
    assert_eq!(
        error("poo", cartpole, &[]),
        "unknown algorithm \"poo\", did you mean \"ppo\"?; `cordada list algos` shows all"
    );
    assert_eq!(
        error("q", cartpole, &[]),
        "unknown algorithm \"q\"; `cordada list algos` shows all"
    );
    assert_eq!(
        error("ppo", "CartPol-v1", &[]),
        "unknown environment \"CartPol-v1\" (did you mean \"CartPole-v1\"?); run `cordada list envs` \
         for all names"
    );
    assert_eq!(
        error("ppo", cartpole, &[("nun_envs", "2")]),
        "unknown setting \"nun_envs\" of ppo, did you mean \"num_envs\"?"
    );
    assert_eq!(
        error("ppo", cartpole, &[("run.sed", "2")]),
        "unknown setting \"sed\" of run, did you mean \"seed\"?"
    );
    let error = RunConfig::from_toml("[run]\nalgo = \"ppo\"\nenv = \"CartPole-v1\"\n[pqo]\n");
    assert_eq!(
        error.unwrap_err().to_string(),
        "unknown setting \"pqo\" of the config, did you mean \"ppo\"?"
    );
}

/// Setting, a value it refuses, and what the message says of it.
const REFUSED: &[(&str, &str, &str)] = &[
    ("num_envs", "0", "at least 1"),
    ("num_steps", "0", "at least 1"),
    ("num_epochs", "0", "at least 1"),
    ("num_minibatches", "0", "at least 1"),
    ("num_steps", "1000000000", "num_envs · num_steps below 2³²"),
    ("num_minibatches", "7", "a divisor of num_envs · num_steps = 8 · 256 = 2048"),
    ("trunk", "[4, 0]", "layers of 1 to 65536 units"),
    ("actor", "[0]", "layers of 1 to 65536 units"),
    ("critic", "[64, 0]", "layers of 1 to 65536 units"),
    ("gamma", "1.01", "a number from 0 to 1"),
    ("gamma", "NaN", "a number from 0 to 1"),
    ("gae_lambda", "-0.1", "a number from 0 to 1"),
    ("max_grad_norm", "0", "a number above 0"),
    ("value_clip_eps", "0", "a number above 0"),
    ("clip_obs", "-1", "a number above 0"),
    ("clip_rewards", "0", "a number above 0"),
    ("optimizer_eps", "0", "from 1e-30 to 1"),
    ("optimizer_eps", "inf", "from 1e-30 to 1"),
    ("num_envs", "1000001", "at most 1000000"),
    ("actor", "[65537]", "layers of 1 to 65536 units"),
    ("vf_coef", "0.5", "set value_coef"),
    ("kl_target", "0", "a number above 0"),
    ("target_kl", "0", "a number above 0"),
    ("value_coef", "-1", "a finite number of at least 0"),
    ("entropy_coef", "inf", "a finite number of at least 0"),
    ("kl_coef", "-0.5", "a finite number of at least 0"),
    ("log_std_init", "inf", "a finite number"),
    ("dual_clip", "1", "a number above 1"),
    ("learning_rate", "-0.001", "finite numbers of at least 0"),
    ("clip_eps", "linear(0.2, -0.1)", "finite numbers of at least 0"),
    ("activation", "tan", "one of "),
    (
        "init",
        "zeros",
        "one of orthogonal, kaiming_uniform, kaiming_normal, xavier_uniform, xavier_normal",
    ),
];

#[test]
fn every_rule_for_a_value_is_kept() {
    for &(key, value, expected) in REFUSED {
        let text =
            if value.starts_with(|c: char| c.is_alphabetic()) && !["inf", "NaN"].contains(&value) {
                format!("{key} = \"{value}\"")
            } else {
                format!("{key} = {}", value.to_lowercase())
            };
        let error = (ppo().complete)(&table(&text)).unwrap_err().to_string();
        let start = format!("ppo.{key} = {value}: {expected}");
        assert!(error.starts_with(&start), "{text}: {error:?}, not {start:?}");
    }
    let of_run = [
        ("total_steps", "0", "run.total_steps = 0: at least 1"),
        ("checkpoint_seconds", "-1", "run.checkpoint_seconds = -1: a number from 0 to 10⁹"),
        ("eval_episodes", "1000001", "run.eval_episodes = 1000001: at most 1000000"),
        ("checkpoint_seconds", "inf", "run.checkpoint_seconds = inf: a number from 0 to 10⁹"),
    ];
    for (key, value, expected) in of_run {
        let error = RunConfig::new("ppo", "CartPole-v1", &changes(&[(key, value)])).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
    let error = RunSettings { seed: 1 << 63, ..RunSettings::default() }.check("run").unwrap_err();
    let expected = "run.seed = 9223372036854775808: below 2⁶³, which config files hold";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn what_the_rules_allow_at_their_edges_is_taken() {
    for text in ["gamma = 1", "gae_lambda = 0", "entropy_coef = 0", "dual_clip = 1.5", "trunk = []"]
    {
        assert!((ppo().complete)(&table(text)).is_ok(), "{text}");
    }
}

#[test]
fn there_is_an_algorithm_by_any_case_of_letters() {
    assert_eq!(algo::find("PPO").unwrap().name, "ppo");
}
