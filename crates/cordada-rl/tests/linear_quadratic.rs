//! A linear system with quadratic costs: its Q is known, so the gradient through an action is
//! known, and the gain that learners must find.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod common;

use common::{make_in, settings_for, table};
use cordada_env::probe::{LinearQuadratic, LinearQuadraticOptions};
use cordada_env::{Env, StateReader, StateWriter, Stream, role};
use cordada_rl::algo;
use cordada_rl::algo::ddpg::{DdpgConfig, DeterministicActor};
use cordada_rl::algo::off_policy::{
    ActorCriticsConfig, Critics, Drawn, NoiseConfig, SoftActor, Spaces, adam,
};
use cordada_rl::distribution::SquashedGaussian;
use cordada_rl::policy::{ActorCritic, PolicyTape};
use cordada_rl::policy_file::{Policy, PolicyRunner};
use cordada_rl::settings::{StepConfig, UpdateRule};
use cordada_testkit::gradient::numeric_gradient;

const GAMMA: f64 = 0.9;

/// s' = s + ½ a + noise, cost s² + ⅕ a², actions in [−2, 2].
fn system() -> LinearQuadratic {
    LinearQuadratic::new(LinearQuadraticOptions {
        dynamics: vec![1.0],
        control: vec![0.5],
        state_cost: vec![1.0],
        action_cost: vec![0.2],
        noise: 0.05,
        action_limit: 2.0,
        start: 1.0,
        horizon: 10,
    })
    .unwrap()
}

/// Q(s, a) of the optimal policy, but for a constant, for an action in [−1, 1]; and ∂Q/∂a.
fn q(p: f64, s: f64, action: f64) -> (f64, f64) {
    let a = 2.0 * action;
    let next = s + 0.5 * a;
    let value = -(s * s + 0.2 * a * a + GAMMA * p * next * next);
    (value, -2.0 * (0.4 * a + GAMMA * p * next))
}

const STATES: [f32; 5] = [-1.0, -0.4, 0.1, 0.7, 1.3];
const NOISE: [f32; 5] = [0.3, -1.2, 0.8, 1.9, -0.1];
const ALPHA: f64 = 0.3;

fn networks() -> ActorCriticsConfig {
    let activation = "tanh".to_string();
    ActorCriticsConfig { actor: vec![6], critic: vec![7, 5], activation, ..Default::default() }
}

/// Plain steps: with a rate of 1, θ moves by the gradient itself.
fn plain() -> StepConfig {
    StepConfig { optimizer: UpdateRule::Sgd, ..adam(1.0) }
}

fn assert_moved(what: &str, before: &[f32], after: &[f32], expected: &[f64]) {
    assert_eq!(before.len(), expected.len());
    let size = expected.iter().map(|x| x.abs()).fold(0.0, f64::max);
    assert!(size > 0.1, "{what}: a gradient that shows something: {expected:?}");
    for (i, (&b, &a)) in before.iter().zip(after).enumerate() {
        let (moved, want) = (f64::from(a) - f64::from(b), expected[i]);
        assert!((moved - want).abs() < 2e-5 * size.max(1.0), "{what}, {i}: {moved}, {want}");
    }
}

/// A step of `theta` away from its start, where all actions are nearly 0.
fn away(theta: &[f32]) -> Vec<f32> {
    theta.iter().enumerate().map(|(i, x)| x + 0.4 * ((i * 7 % 5) as f32 - 2.0) / 2.0).collect()
}

#[test]
fn the_soft_actor_goes_up_the_gradient_through_its_actions() {
    let (env, mut stream) = (system(), Stream::new(3, role::INIT, 0));
    let p = env.riccati(GAMMA).unwrap()[0];
    let spaces = Spaces { actions: env.action_space(), obs: env.obs_space(), inputs: 1 };
    let mut actor =
        SoftActor::new((&networks(), &plain()), (&NoiseConfig::default(), 1), &spaces, &mut stream)
            .unwrap();
    // Through a checkpoint, which is how θ gets in from outside.
    let (theta, mut state) = (away(&actor.theta), StateWriter::new());
    actor.save(&mut state);
    actor.load(&theta, &mut StateReader::new(state.as_bytes())).unwrap();

    let mut drawn = Drawn::default();
    actor.draw(&STATES, &mut drawn, |row| f64::from(NOISE[row]));
    let pairs = STATES.iter().zip(&drawn.actions);
    let d_actions: Vec<f32> =
        pairs.map(|(&s, &a)| q(p, s.into(), a.into()).1 as f32 / 5.0).collect();
    actor.ascend(&STATES, &mut drawn, &d_actions, ALPHA as f32, 1.0);

    // The objective itself, in f64.
    let (network, pi) = (ActorCritic::new(actor.spec()), SquashedGaussian::new(1));
    let x: Vec<f64> = STATES.iter().map(|&s| s.into()).collect();
    let wide: Vec<f64> = theta.iter().map(|&t| t.into()).collect();
    let expected = numeric_gradient(&wide, |theta| {
        let (mut weights, mut tape) = (network.weights(), PolicyTape::default());
        network.pack(theta, &mut weights);
        let (params, _) = network.forward(&weights, &x, None, &mut tape);
        let rows = params.chunks_exact(2).zip(&x).zip(NOISE);
        let terms = rows.map(|((params, &s), noise)| {
            let mut action = [0.0];
            let log_prob = pi.reparametrize(params, &[noise.into()], &mut action);
            q(p, s, action[0]).0 - ALPHA * log_prob
        });
        terms.sum::<f64>() / 5.0
    });
    assert_moved("SAC", &theta, &actor.theta, &expected);
}

#[test]
fn a_log_deviation_out_of_range_does_not_move() {
    let (env, mut stream) = (system(), Stream::new(3, role::INIT, 0));
    let spaces = Spaces { actions: env.action_space(), obs: env.obs_space(), inputs: 1 };
    let linear = ActorCriticsConfig { actor: Vec::new(), ..networks() };
    let mut actor =
        SoftActor::new((&linear, &plain()), (&NoiseConfig::default(), 1), &spaces, &mut stream)
            .unwrap();
    // θ: weights of mean and log σ, then their biases; log σ = 5 counts as 2.
    for (bias, moves) in [(1.9, true), (5.0, false), (-30.0, false)] {
        let theta = [0.1, 0.0, 0.2, bias];
        let mut state = StateWriter::new();
        actor.save(&mut state);
        actor.load(&theta, &mut StateReader::new(state.as_bytes())).unwrap();
        let mut drawn = Drawn::default();
        actor.draw(&[1.0], &mut drawn, |_| 0.5);
        let u = 0.3 + bias.clamp(-20.0, 2.0).exp() * 0.5;
        assert!((drawn.actions[0] - u.tanh()).abs() < 1e-5, "log σ = {bias}: {drawn:?}");
        actor.ascend(&[1.0], &mut drawn, &[0.0], 1.0, 1.0);
        assert_ne!(actor.theta[2], theta[2], "the mean moves");
        assert_eq!(actor.theta[3] != theta[3], moves, "log σ = {bias}: {:?}", actor.theta);
    }
}

#[test]
fn the_deterministic_actor_goes_up_the_gradient_through_its_actions() {
    let (env, mut stream) = (system(), Stream::new(3, role::INIT, 0));
    let p = env.riccati(GAMMA).unwrap()[0];
    let spaces = Spaces { actions: env.action_space(), obs: env.obs_space(), inputs: 1 };
    // Without hidden layers: a = tanh(w s + b).
    let networks = ActorCriticsConfig { actor: Vec::new(), ..networks() };
    let config = DdpgConfig { networks, step: plain(), ..DdpgConfig::default() };
    let mut actor = DeterministicActor::new(&config, &spaces, &mut stream).unwrap();
    let mut actions = Vec::new();
    for _ in 0..3 {
        let before = actor.theta.clone();
        actor.actions(&STATES, false, &mut actions);
        let d: Vec<f64> =
            STATES.iter().zip(&actions).map(|(&s, &a)| q(p, s.into(), a.into()).1 / 5.0).collect();
        let d_actions: Vec<f32> = d.iter().map(|&d| d as f32).collect();
        actor.ascend(&STATES, &actions, &d_actions, 1.0);
        // ∂J/∂w = mean ∂Q/∂a (1 − a²) s, ∂J/∂b without s.
        let mut expected = [0.0; 2];
        for ((&s, &a), d) in STATES.iter().zip(&actions).zip(&d) {
            let (s, a) = (f64::from(s), f64::from(a));
            assert!((a - f64::tanh(f64::from(before[0]) * s + f64::from(before[1]))).abs() < 1e-6);
            expected[0] += d * (1.0 - a * a) * s;
            expected[1] += d * (1.0 - a * a);
        }
        assert_moved("DDPG", &before, &actor.theta, &expected);
    }
}

#[test]
fn critics_give_the_slope_of_their_value() {
    let mut stream = Stream::new(5, role::INIT, 0);
    let config = ActorCriticsConfig { layer_norm: true, ..networks() };
    for threads in [1, 2] {
        let parts = (&config, &adam(1e-3));
        let mut critics = Critics::new(parts, (2, 1), (1, 2), threads, &mut stream).unwrap();
        let actions: Vec<f32> = (0..10).map(|i| 0.2 * i as f32 - 0.9).collect();
        critics.look((&STATES, &actions));
        let coef = |k: usize| if k == 0 { 1.5 } else { -0.5 };
        let slope = critics.action_gradient(2, |k, dy| dy.fill(coef(k))).to_vec();
        let mut sums = |actions: &[f32]| -> Vec<f32> {
            critics.look((&STATES, actions));
            let (q1, q2) = (critics.outputs(0), critics.outputs(1));
            q1.iter().zip(q2).map(|(q1, q2)| coef(0) * q1 + coef(1) * q2).collect()
        };
        for j in 0..2 {
            let h = 0.002;
            let moved = |by: f32| -> Vec<f32> {
                let at = |(i, a): (usize, &f32)| if i % 2 == j { a + by } else { *a };
                actions.iter().enumerate().map(at).collect()
            };
            let (above, below) = (sums(&moved(h)), sums(&moved(-h)));
            for row in 0..STATES.len() {
                let want = (above[row] - below[row]) / (2.0 * h);
                let got = slope[2 * row + j];
                assert!(
                    (got - want).abs() < 5e-3 * want.abs().max(1.0),
                    "row {row}, action {j}: {got}, {want}"
                );
            }
            assert!(slope.iter().any(|s| s.abs() > 0.05), "{slope:?}");
        }
    }
}

/// −a / s of the policy's surest actions, by least squares.
fn gain(policy: &Policy) -> f64 {
    let states: Vec<f32> = (-8..=8).map(|i| 0.1 * i as f32).collect();
    let mut actions = vec![0.0; states.len()];
    PolicyRunner::new(policy).act(&states, None, &mut [], None, &mut actions);
    let products: f32 = states.iter().zip(&actions).map(|(s, a)| -s * a).sum();
    f64::from(products / states.iter().map(|s| s * s).sum::<f32>())
}

/// Trains until `steps` and returns the gain.
fn learned(name: &str, settings: &str, steps: u64) -> f64 {
    let algo = algo::find(name).unwrap();
    let common = "gamma = 0.9\nactor = [32, 32]\ncritic = [32, 32]\nbatch_size = 64\n";
    let mut wishes = settings_for(algo, table(common));
    wishes.extend(table(settings));
    let make_env = || Box::new(system().limited()) as Box<dyn Env>;
    let mut learner = make_in(algo, &make_env, &wishes, (1, 1)).unwrap();
    while learner.steps() < steps {
        learner.iterate().unwrap();
    }
    gain(&learner.policy())
}

fn assert_finds_the_gain(name: &str, settings: &str, steps: u64) {
    let best = system().optimal_gain(GAMMA).unwrap()[0];
    let found = learned(name, settings, steps);
    assert!((found - best).abs() < 0.15 * best, "{name}: gain {found}, the best is {best}");
}

#[test]
fn the_gain_is_not_there_from_the_start() {
    // The negative control.
    let found = learned("sac", "", 0);
    assert!(found.abs() < 0.1, "{found}");
}

#[test]
fn sac_finds_the_gain() {
    assert_finds_the_gain("sac", "learning_rate = 3e-3\ntau = 0.02", 2_000);
}

#[test]
fn tqc_finds_the_gain() {
    assert_finds_the_gain("tqc", "learning_rate = 3e-3\ntau = 0.02", 2_000);
}

#[test]
fn ddpg_finds_the_gain() {
    let settings = "learning_rate = 1e-3\ntau = 0.02\n";
    assert_finds_the_gain("ddpg", &format!("{settings}noise_std = 0.3"), 4_000);
    let noise = "noise = \"ornstein_uhlenbeck\"\nnoise_std = 1.0";
    assert_finds_the_gain("ddpg", &format!("{settings}{noise}"), 4_000);
}

#[test]
fn td3_finds_the_gain() {
    assert_finds_the_gain("td3", "learning_rate = 3e-3\ntau = 0.02\nnoise_std = 0.3", 2_500);
}

#[test]
fn learners_from_their_own_segments_find_the_gain() {
    let ppo = "num_envs = 8\nnum_steps = 64\nnum_minibatches = 8\nlearning_rate = 3e-3\n\
               log_std_init = -0.5";
    assert_finds_the_gain("ppo", ppo, 40_000);
    let trpo = "num_envs = 8\nnum_steps = 64\nlog_std_init = -0.5";
    assert_finds_the_gain("trpo", trpo, 40_000);
}
