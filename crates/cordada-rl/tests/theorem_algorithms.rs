//! The theorem through whole algorithms: one plain gradient step of each on-policy method, from
//! many episodes of a process that is solved exactly, is the exact policy gradient. What the
//! estimators and objectives do by themselves is shown in `theorem.rs`; here it is that the
//! algorithms put them together rightly, in `f32`, through rollout, batch and optimizer.
//!
//! γ = 1, so that the gradient in the state distribution that algorithms sample, and the gradient
//! of the return, are the same vector.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod common;
#[path = "theorem/exact.rs"]
#[allow(dead_code, reason = "the part about time limits belongs to another test")]
mod exact;
#[path = "theorem/mdp.rs"]
#[allow(dead_code, reason = "only the chain is used here")]
mod mdp;

use common::{make_in, restore, settings_for, state, table};
use cordada_env::toy_text::table_env::TableEnv;
use cordada_env::{Env, Transition, TransitionTable};
use cordada_rl::algo;

use exact::{Exact, solve};
use mdp::{Mdp, chain};

/// Logits of the policy whose gradient is estimated.
const THETA: [f64; 4] = [0.2, 0.5, -0.1, 0.3];
/// Relative error that so many episodes leave, with room for chance.
const AGREES: f64 = 0.06;
/// A defect is seen beyond that.
const BIASED: f64 = 0.15;

fn process() -> (Mdp, Exact) {
    let mdp = Mdp { gamma: 1.0, ..chain() };
    let exact = solve(&mdp, &THETA);
    (mdp, exact)
}

fn environment(mdp: &Mdp) -> Box<dyn Env> {
    let outcomes = |s, a| {
        let one = |t: &mdp::Transition| Transition {
            probability: t.probability,
            next_state: t.next,
            reward: t.reward,
            terminated: t.terminated,
        };
        mdp.outcomes(s, a).iter().map(one).collect()
    };
    let table = TransitionTable::new(mdp.num_actions, mdp.initial.clone(), outcomes).unwrap();
    Box::new(TableEnv::new("Chain-v0", table))
}

/// A step of plain gradient ascent of size 1, without limits or normalization.
const PLAIN: &str = "optimizer = \"sgd\"\nlearning_rate = 1.0\nmax_grad_norm = 1e9\ngamma = 1.0\n\
                     actor = []\ncritic = []\nstandardize = false\nnormalize_advantages = false\n\
                     num_epochs = 1\nnum_minibatches = 1\nentropy_coef = 0.0\n";

/// What one iteration adds to the actor's weights, times the mean length of an episode: the
/// gradient of an episode's return, `[S, A]`. The critic is `value` at the beginning.
fn gradient(name: &str, settings: &str, value: [f64; 2], length: &mut Option<f64>) -> Vec<f64> {
    let (mdp, _) = process();
    let algo = algo::find(name).unwrap();
    let mut wishes = table(PLAIN);
    wishes.extend(table(settings));
    let settings = settings_for(algo, wishes);
    let mut learner = make_in(algo, &|| environment(&mdp), &settings, (11, 1)).unwrap();
    // θ = actor's weight [A, S], its bias, the critic's weight [1, S], its bias.
    let mut policy = learner.policy();
    policy.theta.fill(0.0);
    for (s, row) in THETA.chunks_exact(2).enumerate() {
        for (a, &logit) in row.iter().enumerate() {
            policy.theta[a * 2 + s] = logit as f32;
        }
    }
    let critic = policy.theta.len() > 6;
    if critic {
        policy.theta[6..8].copy_from_slice(&value.map(|v| v as f32));
    }
    let saved = state(&*learner);
    restore(&mut *learner, &policy, &saved);
    let report = learner.iterate().unwrap();
    let episodes = report.metrics.iter().find(|(name, _)| *name == "rollout/episodes").unwrap().1;
    if learner.steps() as f64 / episodes < 1000.0 && length.is_none() {
        *length = Some(learner.steps() as f64 / episodes);
    }
    let after = learner.policy().theta;
    let step = |s: usize, a: usize| f64::from(after[a * 2 + s] - policy.theta[a * 2 + s]);
    let scale = length.unwrap();
    (0..4).map(|i| scale * step(i / 2, i % 2)).collect()
}

fn relative_error(found: &[f64], exact: &[f64]) -> f64 {
    let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
    let size = norm(&mut exact.iter().copied());
    norm(&mut found.iter().zip(exact).map(|(a, b)| a - b)) / size
}

#[test]
fn one_step_of_each_algorithm_is_the_exact_gradient() {
    let (_, exact) = process();
    let value = [exact.value[0], exact.value[1]];
    let wrong = [exact.value[0] + 1.0, exact.value[1] - 0.5];
    let mut length = None;
    let episodes = "num_envs = 20000\n";
    // Without a baseline the error bars are four times as wide.
    let many = "num_envs = 200000\n";
    // Long segments: an episode that one cuts bootstraps from the critic.
    let segments = "num_envs = 1000\nnum_steps = 200\n";
    let cases = [
        ("reinforce", many, "baseline = \"none\"", value),
        ("reinforce", many, "baseline = \"none\"\ncredit = \"return\"", value),
        ("reinforce", episodes, "baseline = \"batch_mean\"", value),
        ("reinforce", episodes, "baseline = \"value\"", value),
        ("reinforce", episodes, "baseline = \"value\"", wrong),
        ("a2c", segments, "gae_lambda = 1.0", value),
        ("a2c", segments, "gae_lambda = 1.0", wrong),
        ("a2c", segments, "gae_lambda = 0.9", value),
        ("actor_critic", segments, "gae_lambda = 0.0", value),
        ("ppo", segments, "gae_lambda = 0.95", value),
        ("ppo", segments, "objective = \"kl_penalty\"\ngae_lambda = 0.95", value),
    ];
    for (name, how_many, settings, value) in cases {
        let found = gradient(name, &format!("{how_many}{settings}"), value, &mut length);
        let error = relative_error(&found, &exact.gradient);
        println!("{name} {settings:?}: relative error {error:.4}");
        assert!(error < AGREES, "{name} {settings}: {found:?}, not {:?}", exact.gradient);
    }
    // The negative controls: a TD error with a wrong critic, and a discount that is not the task's.
    for (name, settings, value) in [
        ("actor_critic", "gae_lambda = 0.0", wrong),
        ("a2c", "gae_lambda = 1.0\ngamma = 0.5", value),
    ] {
        let found = gradient(name, &format!("{segments}{settings}"), value, &mut length);
        let error = relative_error(&found, &exact.gradient);
        println!("{name} {settings:?}, a defect: relative error {error:.4}");
        assert!(error > BIASED, "{name} {settings}: the defect is not seen");
    }
}
