//! Soft policies and distributions of returns against what theory says they end at, and what the
//! off-policy actor-critics promise: threads and restarts change nothing.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod common;

use common::{Scripted, bits, exact, make_in, restore, state, table, through_file};
use cordada_env::{Outcome, Space, Stream};
use cordada_nn::kernel::Isa;
use cordada_nn::softmax::softmax;
use cordada_rl::algo::{self, Algorithm, Report};
use cordada_rl::policy::{ActorCritic, PolicyTape, QNetwork, QTape};
use cordada_rl::policy_file::{Policy, PolicySpec};

fn learner(name: &str, probe: Scripted, settings: &str, threads: usize) -> Box<dyn Algorithm> {
    let algo = algo::find(name).unwrap();
    make_in(algo, &probe.maker(), &table(settings), (1, threads)).unwrap()
}

fn train(name: &str, probe: Scripted, settings: &str, steps: u64) -> (Policy, Report) {
    let mut learner = learner(name, probe, settings, 1);
    let mut report = Report::default();
    while learner.steps() < steps {
        report = learner.iterate().unwrap();
    }
    (learner.policy(), report)
}

fn metric(report: &Report, name: &str) -> f64 {
    report.metrics.iter().find(|(n, _)| *n == name).unwrap_or_else(|| panic!("{name}")).1
}

/// The distribution's parameters for one observation.
fn params(policy: &Policy, obs: f32) -> Vec<f32> {
    let PolicySpec::ActorCritic(spec) = &policy.spec else { panic!("{:?}", policy.spec) };
    let network = ActorCritic::new(spec);
    let (mut weights, mut tape) = (network.weights(), PolicyTape::default());
    network.pack(&policy.theta, &mut weights);
    network.forward(&weights, &[obs], None, &mut tape).0.to_vec()
}

/// Three arms that give 1, 0 and ½.
fn arms() -> Scripted {
    let play = |_, _, action: &[f32]| ([1.0, 0.0, 0.5][action[0] as usize], Outcome::Terminated);
    Scripted::new(Space::Discrete { n: 3 }, |_, _| 0.5, play)
}

const SMALL: &str = "actor = [16]\ncritic = [16]\nbatch_size = 32\nlearning_rate = 1e-2\n";

#[test]
fn a_soft_choice_is_the_softmax_of_the_values() {
    // π* ∝ exp(r / α).
    let (policy, report) = train("discrete_sac", arms(), &format!("{SMALL}alpha = 0.5"), 2_000);
    let mut found = [0.0; 3];
    softmax(Isa::detect(), &params(&policy, 0.5), 3, &mut found);
    let weights = [2.0, 0.0, 1.0].map(f64::exp);
    for (p, w) in found.iter().zip(weights) {
        let want = w / weights.iter().sum::<f64>();
        assert!((f64::from(*p) - want).abs() < 0.03, "{found:?}");
    }
    assert_eq!(metric(&report, "train/alpha"), 0.5, "it is fixed");
}

#[test]
fn a_forbidden_arm_is_never_pulled_and_the_rest_is_soft() {
    let mut probe = arms();
    probe.allow = Some(|_, mask| mask[0] = false);
    probe.play = |_, _, action| {
        assert_ne!(action[0], 0.0, "a forbidden arm");
        ([1.0, 0.0, 0.5][action[0] as usize], Outcome::Terminated)
    };
    // Of the entropy log 2 of two arms, 0.9: p log p + (1 − p) log (1 − p) = −0.9 log 2 at 0.684.
    let settings = format!("{SMALL}target_entropy_fraction = 0.9");
    let (policy, report) = train("discrete_sac", probe, &settings, 4_000);
    let entropy = metric(&report, "train/entropy");
    assert!((entropy - 0.9 * 2_f64.ln()).abs() < 0.02, "{entropy}");
    let logits = params(&policy, 0.5);
    let p = 1.0 / (1.0 + (logits[1] - logits[2]).exp());
    assert!((p - 0.684).abs() < 0.05, "{p}, {logits:?}");
}

/// The best action is 0.3 of the way to the upper bound.
fn target_practice() -> Scripted {
    let play = |_, _, action: &[f32]| {
        let miss = f64::from(action[0]) - 0.9;
        (-miss * miss, Outcome::Terminated)
    };
    Scripted::new(Space::vector(&[-3.0], &[3.0]), |_, _| 0.5, play)
}

#[test]
fn the_temperature_finds_the_entropy_that_it_aims_at() {
    for name in ["sac", "tqc"] {
        for target in [-1.0, 0.2] {
            let settings = format!("{SMALL}target_entropy = {target}");
            let (policy, report) = train(name, target_practice(), &settings, 3_000);
            let entropy = metric(&report, "train/entropy");
            assert!((entropy - target).abs() < 0.15, "{name}: {entropy}, not {target}");
            if target < 0.0 {
                let action = 3.0 * params(&policy, 0.5)[0].tanh();
                assert!((action - 0.9).abs() < 0.2, "{name}: {action}");
            }
        }
    }
}

#[test]
fn c51_learns_the_distribution_and_not_its_mean() {
    // At first nothing is known; then a coin is seen, which is the reward.
    let observe = |t, stream: &mut Stream| match t {
        0 => 0.0,
        _ if stream.below(2) == 0 => -1.0,
        _ => 1.0,
    };
    let play = |t, obs: f32, _: &[f32]| match t {
        0 => (0.0, Outcome::Continue),
        _ => (f64::from(obs), Outcome::Terminated),
    };
    let settings = "gamma = 1.0\nhidden = [16]\nlearning_rate = 3e-3\nbatch_size = 128\n\
                    learning_starts = 100\ntarget_interval = 50\natoms = 5\nv_min = -2.0\nv_max = 2.0\ntrain_freq = 2\n";
    for more in ["", "double = true\ndueling = true\nprioritized = true"] {
        let probe = Scripted::new(Space::Discrete { n: 2 }, observe, play);
        let (policy, _) = train("c51", probe, &format!("{settings}{more}"), 4_000);
        let PolicySpec::ActionValues(spec) = &policy.spec else { panic!("{:?}", policy.spec) };
        let network = QNetwork::new(spec);
        let (mut weights, mut tape) = (network.weights(), QTape::default());
        network.pack(&policy.theta, &mut weights);
        let logits = network.forward(&weights, &[0.0], &mut tape);
        let mut probs = [0.0; 10];
        softmax(Isa::detect(), logits, 5, &mut probs);
        // Atoms −2, −1, 0, 1, 2.
        for p in probs.chunks_exact(5) {
            assert!((p[1] - 0.5).abs() < 0.15 && (p[3] - 0.5).abs() < 0.15, "{more}: {probs:?}");
            assert!(p[1] + p[3] > 0.9, "{more}: {probs:?}");
        }
    }
}

/// What is seen goes on, so that target networks, noise and n-step returns matter.
fn walk(space: Space) -> Scripted {
    let play = |t, obs: f32, action: &[f32]| {
        let reward = f64::from(obs * action[0]);
        (reward, if t == 6 { Outcome::Truncated } else { Outcome::Continue })
    };
    Scripted::new(space, |_, stream| stream.uniform() as f32, play)
}

const VARIANTS: [(&str, &str); 9] = [
    ("sac", ""),
    ("sac", "alpha = 0.1\nlayer_norm = true\nn_step = 3\nnoise_correlation = 0.5"),
    ("tqc", "num_critics = 3\natoms = 5\ndropped_atoms = 1"),
    ("ddpg", "noise = \"ornstein_uhlenbeck\""),
    ("td3", "num_envs = 1\npolicy_delay = 3"),
    ("td3", "noise = \"ornstein_uhlenbeck\"\ntrain_freq = 5\ngradient_steps = 3"),
    ("discrete_sac", ""),
    ("c51", "hidden = [8]\ndueling = true\nprioritized = true"),
    ("c51", "hidden = [8]\ndouble = true\ntarget_interval = 30\nlayer_norm = true"),
];

fn variant(name: &str, settings: &str, threads: usize) -> Box<dyn Algorithm> {
    let discrete = matches!(name, "discrete_sac" | "c51");
    let space =
        if discrete { Space::Discrete { n: 3 } } else { Space::vector(&[-2.0, 0.0], &[1.0, 3.0]) };
    let layers = if name == "c51" { "" } else { "actor = [8, 8]\ncritic = [9]\n" };
    let envs = if settings.contains("num_envs") { "" } else { "num_envs = 2\n" };
    let common = "learning_starts = 40\nbatch_size = 16\nsteps_per_iteration = 100\n";
    learner(name, walk(space), &format!("{common}{layers}{envs}{settings}"), threads)
}

#[test]
fn threads_and_restarts_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    for (name, settings) in VARIANTS {
        let what = format!("{name} {settings}");
        let mut whole = variant(name, settings, 1);
        let before = whole.policy();
        whole.iterate().unwrap();
        assert_ne!(whole.policy().theta, before.theta, "{what}");
        let (policy, saved) = (through_file(&whole.policy(), folder.path()), state(&*whole));
        let mut resumed = variant(name, settings, 2);
        restore(&mut *resumed, &policy, &saved);
        let mut threaded = variant(name, settings, 3);
        threaded.iterate().unwrap();
        for _ in 0..2 {
            let report = exact(&whole.iterate().unwrap());
            assert_eq!(report, exact(&resumed.iterate().unwrap()), "{what}");
            assert_eq!(report, exact(&threaded.iterate().unwrap()), "{what}");
        }
        let theta = bits(&whole.policy().theta);
        assert_eq!(theta, bits(&resumed.policy().theta), "{what}");
        assert_eq!(theta, bits(&threaded.policy().theta), "{what}");
        assert_eq!(state(&*whole), state(&*resumed), "{what}");
        assert_eq!(whole.flops(), threaded.flops(), "{what}");
    }
}

#[test]
fn products_are_counted_as_they_are_done() {
    // One environment, no random start: 100 steps, each with one action and one update of 16 rows.
    let settings = "num_envs = 1\nlearning_starts = 0";
    let settings = format!(
        "actor = [8, 8]\ncritic = [9]\nbatch_size = 16\nsteps_per_iteration = 100\n{settings}"
    );
    let space = Space::vector(&[-2.0, 0.0], &[1.0, 3.0]);
    let mut sac = learner("sac", walk(space.clone()), &settings, 1);
    sac.iterate().unwrap();
    // Multiplications: actor 1·8 + 8·8 + 8·4, critic 3·9 + 9·1; of the way back to the input, the
    // first layer's part is not needed, but for the action's gradient.
    let (actor, critic) = (8 + 64 + 32, 27 + 9);
    let actor_update = 2 * actor + (2 * actor - 8);
    let critic_update = critic + (3 * critic - 27) + 2 * critic;
    let want = 100 * (actor + 16 * (actor_update + 2 * critic_update));
    assert_eq!(sac.flops(), 2 * want);
    let mut ddpg = learner("ddpg", walk(space), &settings, 1);
    ddpg.iterate().unwrap();
    let actor = 8 + 64 + 16;
    let actor_update = 2 * actor + (2 * actor - 8);
    let want = 100 * (actor + 16 * (actor_update + critic_update));
    assert_eq!(ddpg.flops(), 2 * want);
}
