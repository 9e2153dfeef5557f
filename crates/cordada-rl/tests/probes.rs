//! Environments so small that the best action and every value are known, for every algorithm of
//! the list, with negative controls that must fail. They separate what a learning curve mixes:
//! the value loss, the discount, the end of an episode, the advantage, and what the policy sees.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod common;

use common::{Play, Scripted, make_in, settings_for, table};
use cordada_env::{Outcome, Space, Stream};
use cordada_rl::algo::{ALGORITHMS, AlgoSpec, Algorithm};
use cordada_rl::policy_file::PolicyRunner;

/// Settings under which a few thousand steps are enough; an algorithm takes those that it knows.
const FAST: &str = "num_envs = 4\nnum_steps = 40\nnum_minibatches = 4\nnum_epochs = 8\n\
                    learning_rate = 0.01\nactor = [16]\ncritic = [16]\nhidden = [16]\n\
                    max_grad_norm = 10.0\nlearning_starts = 200\nbuffer_size = 10000\n\
                    batch_size = 64\ntrain_freq = 1\ngradient_steps = 2\nepsilon = 0.3\n\
                    target_interval = 1\ntau = 0.05\nv_min = -2.0\nv_max = 12.0\natoms = 57\n\
                    alpha = 0.01\nmode = \"round_robin\"\noptimizer = \"adam\"\n\
                    noise_std = 0.3\nhuber = \"off\"\nworkers = 2\nenvs_per_worker = 2\n";

/// For those that take one step per segment: short segments, and so many times the steps.
const PATIENT: (&str, u64) = ("num_steps = 5\ngae_lambda = 0.9\n", 8);

/// Trains in a probe; returns the learner.
fn train(algo: &AlgoSpec, probe: Scripted, settings: &str, steps: u64) -> Box<dyn Algorithm> {
    let mut wishes = table(FAST);
    let has = |name: &str| algo.fields.iter().any(|field| field.name == name);
    let repeats = ["num_epochs", "critic_epochs", "gradient_steps"].into_iter().any(has);
    if !repeats {
        wishes.extend(table(PATIENT.0));
    }
    let steps = if repeats { steps } else { steps * PATIENT.1 };
    wishes.extend(table(settings));
    let settings = settings_for(algo, wishes);
    let mut learner = make_in(algo, &probe.maker(), &settings, (1, 1)).unwrap();
    while learner.steps() < steps {
        learner.iterate().unwrap();
    }
    learner
}

/// Values of observations; every algorithm of the list keeps some by default.
fn values(learner: &mut dyn Algorithm, obs: &[f32]) -> Vec<f32> {
    learner.values(obs).unwrap_or_else(|| panic!("{} has no values", learner.policy().algo))
}

fn assert_near(what: &str, found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len());
    for (x, y) in found.iter().zip(expected) {
        assert!((x - y).abs() < tolerance, "{what}: {found:?}, not {expected:?}");
    }
}

/// The most probable action for an observation.
fn act(learner: &dyn Algorithm, obs: f32, mask: Option<&[bool]>) -> Vec<f32> {
    let mut runner = PolicyRunner::new(&learner.policy());
    let mut action = vec![f32::NAN; runner.action_len()];
    runner.act(&[obs], mask, &mut [], None, &mut action);
    action
}

fn algorithms(space: &Space) -> impl Iterator<Item = &'static AlgoSpec> + use<> {
    let probe = Scripted::new(space.clone(), |_, _| 0.5, |_, _, _| (0.0, Outcome::Terminated));
    assert!(ALGORITHMS.iter().any(|algo| algo.fits(&probe)), "{space} is probed");
    ALGORITHMS.iter().copied().filter(move |algo| algo.fits(&probe))
}

fn one_action() -> Space {
    Space::Discrete { n: 1 }
}

fn two_actions() -> Space {
    Space::Discrete { n: 2 }
}

/// Plus or minus one, each half of the time.
fn coin(_t: u32, stream: &mut Stream) -> f32 {
    if stream.below(2) == 0 { -1.0 } else { 1.0 }
}

#[test]
fn a_the_value_of_a_constant_reward() {
    for algo in algorithms(&one_action()) {
        let probe = Scripted::new(one_action(), |_, _| 0.5, |_, _, _| (1.0, Outcome::Terminated));
        let mut learner = train(algo, probe, "", 3200);
        assert_near(algo.name, &values(&mut *learner, &[0.5]), &[1.0], 0.05);
    }
}

#[test]
fn b_the_value_depends_on_the_observation() {
    for algo in algorithms(&one_action()) {
        let play = |_, obs, _: &[f32]| (f64::from(obs), Outcome::Terminated);
        let mut learner = train(algo, Scripted::new(one_action(), coin, play), "", 3200);
        assert_near(algo.name, &values(&mut *learner, &[-1.0, 1.0]), &[-1.0, 1.0], 0.1);
    }
}

#[test]
fn c_a_later_reward_is_discounted() {
    for algo in algorithms(&one_action()) {
        let play = |t, _, _: &[f32]| match t {
            0 => (0.0, Outcome::Continue),
            _ => (1.0, Outcome::Terminated),
        };
        let probe = Scripted::new(one_action(), |t, _| t as f32, play);
        let mut learner = train(algo, probe, "gamma = 0.5", 4800);
        assert_near(algo.name, &values(&mut *learner, &[0.0, 1.0]), &[0.5, 1.0], 0.05);
    }
}

#[test]
fn d_the_better_action_is_found() {
    let picked = |algo: &AlgoSpec, play: Play| {
        let mut learner = train(algo, Scripted::new(two_actions(), |_, _| 0.5, play), "", 3200);
        (act(&*learner, 0.5, None)[0], values(&mut *learner, &[0.5])[0])
    };
    let right: Play = |_, _, a| (2.0 * f64::from(a[0]) - 1.0, Outcome::Terminated);
    let scrambled: Play = |_, _, a| (1.0 - 2.0 * f64::from(a[0]), Outcome::Terminated);
    for algo in algorithms(&two_actions()) {
        let (action, value) = picked(algo, right);
        assert_eq!(action, 1.0, "{}", algo.name);
        // Nearly all actions are the better one by now, and its reward is 1.
        assert!((0.8..1.1).contains(&value), "{}: {value}", algo.name);
        // The negative control: with the sign of the reward flipped, the same check fails.
        assert_ne!(picked(algo, scrambled).0, 1.0, "{}", algo.name);
    }
}

#[test]
fn e_the_better_action_depends_on_the_observation() {
    for algo in algorithms(&two_actions()) {
        let play: Play = |_, obs, a| {
            let right = (a[0] == 1.0) == (obs > 0.0);
            (if right { 1.0 } else { -1.0 }, Outcome::Terminated)
        };
        let learner = train(algo, Scripted::new(two_actions(), coin, play), "", 4800);
        let actions = [act(&*learner, -1.0, None)[0], act(&*learner, 1.0, None)[0]];
        assert_eq!(actions, [0.0, 1.0], "{}", algo.name);
    }
}

#[test]
fn f_truncation_is_not_the_end_of_the_world() {
    // Reward 1 for ever: V = 1 / (1 − γ) = 10, though no episode is longer than 10 steps.
    let endless: Play =
        |t, _, _| (1.0, if t == 9 { Outcome::Truncated } else { Outcome::Continue });
    // The negative control: the same ends as terminations. What is seen does not tell how many
    // steps are left, 1 to 10, so that V is the mean of the sums:
    // Σ_k (1 − γᵏ) / (1 − γ) / 10 = 10 − 0.9 (1 − 0.9¹⁰) · 10 = 4.138.
    // One-step targets, which believe V where an episode goes on, settle at
    // V = 1 + γ · 9/10 · V = 5.263 instead.
    let deadly: Play =
        |t, _, _| (1.0, if t == 9 { Outcome::Terminated } else { Outcome::Continue });
    for algo in algorithms(&one_action()) {
        let value = |play| {
            let probe = Scripted::new(one_action(), |_, _| 0.5, play);
            let mut learner = train(algo, probe, "gamma = 0.9\ngae_lambda = 1.0", 8000);
            values(&mut *learner, &[0.5])[0]
        };
        let (endless, deadly) = (value(endless), value(deadly));
        assert!((endless - 10.0).abs() < 0.5, "{}: {endless}, not 10", algo.name);
        let expected = if algo.on_policy { 4.138 } else { 5.263 };
        assert!((deadly - expected).abs() < 0.5, "{}: {deadly}, not {expected}", algo.name);
    }
}

#[test]
fn g_the_best_real_number_is_found() {
    let space = Space::vector(&[-2.0], &[2.0]);
    for algo in algorithms(&space) {
        for settings in ["", "squash = true", "log_std = \"per_state\""] {
            if settings_for(algo, table(settings)).len() != table(settings).len() {
                continue;
            }
            let play: Play = |_, _, a| (-(f64::from(a[0]) - 0.5).powi(2), Outcome::Terminated);
            let probe = Scripted::new(space.clone(), |_, _| 0.5, play);
            // Small steps, stopped early: where nothing is random but the action, σ goes to 0, and
            // steps of the mean that are long against σ would carry it off.
            // A critic has to learn the whole curve, of which the top is flat: 0.15 from it costs
            // 0.02 of the reward.
            let (own, tolerance) = if algo.on_policy {
                ("learning_rate = 1e-3\ntarget_kl = 0.02", 0.05)
            } else {
                ("learning_rate = 3e-3\nactivation = \"tanh\"\ncritic = [32]", 0.15)
            };
            let settings = format!("{own}\n{settings}");
            let learner = train(algo, probe, &settings, 9600);
            assert_near(
                &format!("{} {settings}", algo.name),
                &act(&*learner, 0.5, None),
                &[0.5],
                tolerance,
            );
        }
    }
}

#[test]
fn h_every_component_of_an_action_gets_its_due() {
    // One point for each component that is right.
    fn hits(a: &[f32], best: [f32; 3]) -> (f64, Outcome) {
        (a.iter().zip(best).filter(|(a, b)| **a == *b).count() as f64, Outcome::Terminated)
    }
    let multi_discrete: Play = |_, _, a| hits(a, [2.0, 0.0, 1.0]);
    let multi_binary: Play = |_, _, a| hits(a, [1.0, 0.0, 1.0]);
    let cases = [
        (Space::MultiDiscrete { nvec: vec![3, 2, 4] }, multi_discrete, [2.0, 0.0, 1.0]),
        (Space::MultiBinary { n: 3 }, multi_binary, [1.0, 0.0, 1.0]),
    ];
    for (space, play, best) in cases {
        for algo in algorithms(&space) {
            let learner = train(algo, Scripted::new(space.clone(), |_, _| 0.5, play), "", 4800);
            assert_eq!(act(&*learner, 0.5, None), best, "{} in {space}", algo.name);
        }
    }
}

#[test]
fn i_a_forbidden_action_is_never_taken() {
    // The best action of all is forbidden; of the others the one that is allowed beside it.
    let space = Space::Discrete { n: 3 };
    let allow = |obs: f32, mask: &mut [bool]| {
        mask.copy_from_slice(&if obs > 0.0 { [true, true, false] } else { [false, true, true] });
    };
    let play: Play = |_, obs, a| {
        let forbidden = if obs > 0.0 { 2.0 } else { 0.0 };
        assert!(a[0] != forbidden, "action {} in state {obs}", a[0]);
        (if a[0] == 1.0 { -1.0 } else { 1.0 }, Outcome::Terminated)
    };
    for algo in algorithms(&space) {
        let mut probe = Scripted::new(space.clone(), coin, play);
        probe.allow = Some(allow);
        let learner = train(algo, probe, "", 4800);
        assert_eq!(act(&*learner, 1.0, Some(&[true, true, false])), [0.0], "{}", algo.name);
        assert_eq!(act(&*learner, -1.0, Some(&[false, true, true])), [2.0], "{}", algo.name);
    }
}
