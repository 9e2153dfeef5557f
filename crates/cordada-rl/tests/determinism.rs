//! Same seed, same bits: whatever the number of threads, and whatever other environments are
//! collected beside one. What a resumed run gives is tested in `resume.rs`.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod common;

use common::{bits, exact, make, state, table};
use cordada_env::Outcome;
use cordada_rl::algo::Algorithm;
use cordada_rl::algo::ppo::PpoConfig;
use cordada_rl::config::Config;
use cordada_rl::evaluate::{EvalOptions, evaluate};
use cordada_rl::policy::ActorCritic;
use cordada_rl::policy_file::PolicySpec;
use cordada_rl::rollout::{Actor, Collector, Track, TrackSizes, Trajectory};

/// 2048 rows a minibatch, which are four shards.
const FOUR_SHARDS: &str = "num_envs = 16\nnum_steps = 128\nnum_minibatches = 1\nnum_epochs = 2\n\
                           actor = [16]\ncritic = [16]\n";
const ITERATIONS: usize = 2;

/// All that a few iterations leave behind, bit by bit.
#[derive(Debug, PartialEq)]
struct Trace {
    metrics: Vec<Vec<(&'static str, u64)>>,
    theta: Vec<u32>,
    state: Vec<u8>,
    returns: Vec<u64>,
}

fn trace(env: &str, settings: &str, seed: u64, threads: usize) -> Trace {
    let mut learner = make(env, settings, seed, threads);
    let metrics = (0..ITERATIONS).map(|_| exact(&learner.iterate().unwrap())).collect();
    let policy = learner.policy();
    let spec = cordada_env::find(env).unwrap();
    let options = EvalOptions { episodes: 3, seed, deterministic: false };
    let returns = evaluate(&policy, &|| spec.build(), options).returns;
    Trace {
        metrics,
        theta: bits(&policy.theta),
        state: state(&*learner),
        returns: returns.iter().map(|r| r.to_bits()).collect(),
    }
}

#[test]
fn threads_change_no_bit() {
    let normalized = format!("{FOUR_SHARDS}normalize_obs = true\nnormalize_rewards = true");
    // Shards of unequal size: 2048 / 3 does not divide, and 5 environments do not divide by 2.
    let uneven = "num_envs = 5\nnum_steps = 330\nnum_minibatches = 1\nnum_epochs = 2";
    let cases = [
        ("CartPole-v1", FOUR_SHARDS),
        ("Pendulum-v1", &normalized),
        ("MountainCar-v0", FOUR_SHARDS),
        ("CartPole-v1", uneven),
    ];
    for (env, settings) in cases {
        let one = trace(env, settings, 5, 1);
        for threads in [2, 7] {
            assert_eq!(trace(env, settings, 5, threads), one, "{env} with {threads} threads");
        }
    }
}

#[test]
fn the_seed_alone_makes_the_numbers() {
    let settings = "num_envs = 4\nnum_steps = 64\nnum_minibatches = 4";
    for env in ["CartPole-v1", "Pendulum-v1"] {
        let first = trace(env, settings, 5, 1);
        assert_eq!(trace(env, settings, 5, 1), first, "{env}");
        let other = trace(env, settings, 6, 1);
        assert_ne!(other.theta, first.theta, "{env}");
        assert_ne!(other.metrics, first.metrics, "{env}");
        assert_ne!(other.returns, first.returns, "{env}");
    }
}

/// One segment of the first of `num_envs` environments.
fn first_of(env: &str, learner: &dyn Algorithm, num_envs: u32, num_steps: usize) -> Trajectory {
    let policy = learner.policy();
    let PolicySpec::ActorCritic(shape) = &policy.spec else { panic!("no actor-critic") };
    let network = ActorCritic::new(shape);
    let mut weights = network.weights();
    network.pack(&policy.theta, &mut weights);
    let pi = network.distribution();
    let sizes = TrackSizes {
        num_steps,
        inputs: policy.input.inputs(),
        action_len: pi.action_len(),
        num_params: pi.num_params(),
        kept_obs: policy.input.obs_len(),
        ..TrackSizes::default()
    };
    let spec = cordada_env::find(env).unwrap();
    let mut tracks: Vec<Track> = (0..num_envs).map(|i| Track::new(spec.build(), 5, i, 0)).collect();
    let mut trajectories = vec![Trajectory::new(sizes); tracks.len()];
    let actor = Actor {
        policy: &network,
        weights: &weights,
        input: &policy.input,
        action_space: &shape.action_space,
    };
    Collector::default().collect(actor, &mut tracks, &mut trajectories, 0).unwrap();
    trajectories.swap_remove(0)
}

#[test]
fn a_track_does_not_depend_on_those_beside_it() {
    for env in ["CartPole-v1", "Pendulum-v1"] {
        let learner = make(env, "", 5, 1);
        let steps = 300;
        let alone = first_of(env, &*learner, 1, steps);
        for num_envs in [2, 5, 16] {
            let beside = first_of(env, &*learner, num_envs, steps);
            for (what, a, b) in [
                ("observations", &alone.raw_obs, &beside.raw_obs),
                ("actions", &alone.actions, &beside.actions),
                ("log_prob", &alone.log_prob, &beside.log_prob),
                ("params", &alone.params, &beside.params),
                ("rewards", &alone.rewards, &beside.rewards),
                ("values", &alone.values, &beside.values),
                ("final_values", &alone.final_values, &beside.final_values),
            ] {
                assert_eq!(bits(a), bits(b), "{env}: {what} among {num_envs}");
            }
            assert_eq!(alone.outcomes, beside.outcomes);
            assert_eq!(alone.episodes, beside.episodes);
            assert_eq!(alone.last_value.to_bits(), beside.last_value.to_bits());
        }
        assert!(alone.outcomes.iter().any(|o| *o != Outcome::Continue), "episodes end on the way");
    }
}

#[test]
fn the_defaults_use_several_environments_and_minibatches() {
    // Else the tests above would say nothing of what users run.
    let config = PpoConfig::from_table("ppo", &table("")).unwrap();
    assert!(config.segment.num_envs > 1 && config.num_minibatches > 1, "{config:?}");
}
