//! Collection through the ends of episodes: what a trajectory says of a segment in which every
//! few steps an episode is cut off. Its independence of neighbors is in `determinism.rs`.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod common;

use common::{Play, Scripted, make_in, ppo, table, values};
use cordada_env::{Outcome, Space, Stream};
use cordada_rl::policy::ActorCritic;
use cordada_rl::policy_file::PolicySpec;
use cordada_rl::rollout::{Actor, Collector, Track, TrackSizes, Trajectory};

/// Observations count the steps of an episode: 0, 1, 2, …
fn count(t: u32, _: &mut Stream) -> f32 {
    t as f32
}

fn segment(play: Play, num_steps: usize) -> (Trajectory, cordada_rl::policy_file::Policy) {
    let probe = Scripted::new(Space::Discrete { n: 2 }, count, play);
    let make_env = probe.maker();
    let policy = make_in(ppo(), &make_env, &table("num_steps = 32"), (3, 1)).unwrap().policy();
    let PolicySpec::ActorCritic(shape) = &policy.spec else { panic!("no actor-critic") };
    let network = ActorCritic::new(shape);
    let mut weights = network.weights();
    network.pack(&policy.theta, &mut weights);
    let sizes = TrackSizes {
        num_steps,
        inputs: 1,
        action_len: 1,
        num_params: 2,
        kept_obs: 1,
        ..TrackSizes::default()
    };
    let (mut tracks, mut trajectories) =
        ([Track::new(make_env(), 3, 0, 0)], [Trajectory::new(sizes)]);
    let action_space = &shape.action_space;
    let actor = Actor { policy: &network, weights: &weights, input: &policy.input, action_space };
    let mut collector = Collector::default();
    collector.collect(actor, &mut tracks, &mut trajectories, 0).unwrap();
    let [trajectory] = trajectories;
    (trajectory, policy)
}

#[test]
fn the_true_last_observation_is_valued_where_an_episode_was_cut_off() {
    // Episodes of three steps: seen are 0, 1, 2, then 3, which no step is taken from.
    let play: Play = |t, _, _| (1.0, if t == 2 { Outcome::Truncated } else { Outcome::Continue });
    let (trajectory, policy) = segment(play, 10);
    assert_eq!(trajectory.raw_obs, [0.0, 1.0, 2.0, 0.0, 1.0, 2.0, 0.0, 1.0, 2.0, 0.0]);
    let value = values(&policy, &[0.0, 1.0, 2.0, 3.0]);
    for (t, outcome) in trajectory.outcomes.iter().enumerate() {
        assert_eq!(trajectory.values[t], value[t % 3]);
        let cut = t % 3 == 2;
        assert_eq!(*outcome, if cut { Outcome::Truncated } else { Outcome::Continue });
        assert!(!cut || trajectory.final_values[t] == value[3], "step {t}");
    }
    // The segment ends within an episode, in the state after 0.
    assert_eq!(trajectory.last_value, value[1]);
    let episodes: Vec<_> = trajectory.episodes.iter().map(|(t, e)| (*t, e.length)).collect();
    assert_eq!(episodes, [(2, 3), (5, 3), (8, 3)]);
}

#[test]
fn there_may_be_more_ends_than_rows_in_a_block() {
    let play: Play = |_, _, _| (1.0, Outcome::Truncated);
    let (trajectory, policy) = segment(play, 1000);
    let value = values(&policy, &[0.0, 1.0]);
    assert!(trajectory.values.iter().all(|v| *v == value[0]));
    assert!(trajectory.final_values.iter().all(|v| *v == value[1]));
}

#[test]
fn advantages_follow_from_what_was_collected() {
    // Every episode has one step with reward 1 and is cut off in state 1:
    // Â = 1 + γ V(1) − V(0), whatever λ is; the value's target is Â + V(0).
    let play: Play = |_, _, _| (1.0, Outcome::Truncated);
    let (mut trajectory, policy) = segment(play, 20);
    trajectory.estimate(0.5, 0.9);
    let value = values(&policy, &[0.0, 1.0]);
    let advantage = 1.0 + 0.5 * value[1] - value[0];
    assert!(value[1].abs() > 1e-3, "the bootstrap is not 0: {value:?}");
    for (a, r) in trajectory.advantages.iter().zip(&trajectory.returns) {
        assert!((a - advantage).abs() < 1e-6, "{a}, not {advantage}");
        assert!((r - advantage - value[0]).abs() < 1e-6, "{r}");
    }
}

#[test]
fn what_was_forbidden_in_collection_is_forbidden_in_the_update() {
    // On the first pass over a batch the ratio is exactly 1, so that k3 is 0: the same choices are
    // left out of both log-probabilities.
    let allow = |obs: f32, mask: &mut [bool]| {
        mask.copy_from_slice(&[true, obs < 2.0, obs > 0.0, obs > 1.0 || obs == 0.0]);
    };
    let play: Play = |t, _, _| (1.0, if t == 4 { Outcome::Terminated } else { Outcome::Continue });
    let settings = "num_envs = 2\nnum_steps = 60\nnum_minibatches = 1\nnum_epochs = 1";
    for space in [Space::Discrete { n: 4 }, Space::MultiDiscrete { nvec: vec![2, 2] }] {
        let mut probe = Scripted::new(space, count, play);
        probe.allow = Some(allow);
        let mut learner = make_in(ppo(), &probe.maker(), &table(settings), (3, 1)).unwrap();
        for _ in 0..2 {
            let report = learner.iterate().unwrap();
            let approx_kl = report.metrics.iter().find(|(name, _)| *name == "train/approx_kl");
            assert_eq!(approx_kl, Some(&("train/approx_kl", 0.0)));
        }
    }
}
