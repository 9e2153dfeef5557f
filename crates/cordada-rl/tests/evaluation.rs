//! Evaluation: what it computes, by hand, and what it may not depend on or change.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod common;

use std::cell::RefCell;

use common::{Play, Scripted, make, make_in, ppo, table};
use cordada_env::{Env, Outcome, Slot, Space, Stream, role};
use cordada_rl::evaluate::{EvalOptions, Evaluation, evaluate};
use cordada_rl::policy_file::{Policy, PolicyRunner};

/// Settings of a policy that is not yet one for any state: far from deterministic.
const SETTINGS: &str =
    "num_envs = 2\nnum_steps = 50\nnum_minibatches = 2\nactor = [8]\ncritic = [8]\n";

fn evaluated(env: &str, policy: &Policy, episodes: usize, deterministic: bool) -> Evaluation {
    let spec = cordada_env::find(env).unwrap();
    evaluate(policy, &|| spec.build(), EvalOptions { episodes, seed: 9, deterministic })
}

/// The return of episode i, played by itself.
fn played_alone(env: &str, policy: &Policy, i: u32, deterministic: bool) -> f64 {
    let env = cordada_env::find(env).unwrap().build();
    let mut obs = vec![0.0; env.obs_space().len()];
    let mut last = obs.clone();
    let mut slot = Slot::new(env, Stream::new(9, role::EVAL_ENV, i));
    slot.reset(&mut obs);
    let mut streams = [Stream::new(9, role::EVAL_POLICY, i)];
    let mut runner = PolicyRunner::new(policy);
    let mut action = vec![f32::NAN; runner.action_len()];
    loop {
        let sampled = (!deterministic).then_some(&mut streams[..]);
        runner.act(&obs, None, &mut [], sampled, &mut action);
        if let Some(episode) = slot.step(&action, &mut obs, &mut last).episode {
            return episode.episode_return;
        }
    }
}

#[test]
fn an_episode_does_not_depend_on_the_others() {
    for env in ["CartPole-v1", "Pendulum-v1", "Acrobot-v1"] {
        let mut learner = make(env, &format!("{SETTINGS}normalize_obs = true"), 1, 1);
        learner.iterate().unwrap();
        let policy = learner.policy();
        for deterministic in [true, false] {
            let all = evaluated(env, &policy, 20, deterministic).returns;
            for episodes in [1, 5] {
                let few = evaluated(env, &policy, episodes, deterministic).returns;
                assert_eq!(few, all[..episodes], "{env}, deterministic: {deterministic}");
            }
            for (i, episode_return) in all.iter().enumerate() {
                let alone = played_alone(env, &policy, i as u32, deterministic);
                assert_eq!(alone, *episode_return, "{env}, deterministic: {deterministic}, {i}");
            }
            // They are different episodes.
            assert!(all.iter().any(|r| *r != all[0]) || env == "Acrobot-v1", "{env}: {all:?}");
        }
        assert_eq!(evaluated(env, &policy, 5, true), evaluated(env, &policy, 5, true));
    }
}

#[test]
fn sampled_actions_differ_from_the_most_probable() {
    for env in ["CartPole-v1", "Pendulum-v1"] {
        let policy = make(env, SETTINGS, 1, 1).policy();
        let (best, sampled) = (evaluated(env, &policy, 5, true), evaluated(env, &policy, 5, false));
        assert_ne!(best.returns, sampled.returns, "{env}");
        assert_eq!((best.deterministic, sampled.deterministic), (true, false));
    }
}

#[test]
fn seeds_and_training_have_streams_of_their_own() {
    let policy = make("CartPole-v1", SETTINGS, 1, 1).policy();
    let spec = cordada_env::find("CartPole-v1").unwrap();
    let of = |seed| {
        let options = EvalOptions { episodes: 5, seed, deterministic: true };
        evaluate(&policy, &|| spec.build(), options).returns
    };
    assert_ne!(of(1), of(2));
}

#[test]
fn a_learner_is_not_changed_by_being_evaluated() {
    let settings = format!("{SETTINGS}normalize_obs = true\nnormalize_rewards = true");
    let (mut left, mut right) =
        (make("Pendulum-v1", &settings, 1, 1), make("Pendulum-v1", &settings, 1, 1));
    for _ in 0..2 {
        left.iterate().unwrap();
        right.iterate().unwrap();
        let policy = left.policy();
        let before = policy.clone();
        evaluated("Pendulum-v1", &policy, 3, false);
        assert_eq!(policy, before, "the normalizer is frozen");
    }
    assert_eq!(left.iterate().unwrap(), right.iterate().unwrap());
    assert_eq!(left.policy(), right.policy());
}

#[test]
fn returns_lengths_and_their_mean_are_those_of_the_episodes() {
    fn ends(t: u32, last: u32, outcome: Outcome) -> (f64, Outcome) {
        if t == last { (10.0, outcome) } else { (1.0, Outcome::Continue) }
    }
    // Episode i of an evaluation plays copy i of the environment. Copy i has i + 1 steps and gives
    // 1 a step, and 10 for the last one.
    let plays: [Play; 4] = [
        |t, _, _| ends(t, 0, Outcome::Terminated),
        |t, _, _| ends(t, 1, Outcome::Truncated),
        |t, _, _| ends(t, 2, Outcome::Terminated),
        |t, _, _| ends(t, 3, Outcome::Terminated),
    ];
    let space = Space::Discrete { n: 2 };
    let probe = |play| Scripted::new(space.clone(), |_, _| 0.5, play);
    let policy =
        make_in(ppo(), &probe(plays[0]).maker(), &table(SETTINGS), (1, 1)).unwrap().policy();
    let made = RefCell::new(0);
    let make_env = || -> Box<dyn Env> {
        let i = *made.borrow();
        *made.borrow_mut() += 1;
        Box::new(probe(plays[i]))
    };
    let options = EvalOptions { episodes: 4, seed: 1, deterministic: false };
    let found = evaluate(&policy, &make_env, options);
    assert_eq!(found.returns, [10.0, 11.0, 12.0, 13.0]);
    // Mean (10 + 11 + 12 + 13) / 4, lengths (1 + 2 + 3 + 4) / 4, variance (2.25 + 0.25) · 2 / 4.
    assert_eq!((found.mean_return, found.mean_length), (11.5, 2.5));
    assert!((found.std_return - 1.25_f64.sqrt()).abs() < 1e-15, "{}", found.std_return);
    assert_eq!(found.episodes, 4);
}

#[test]
fn forbidden_actions_are_not_taken() {
    let space = Space::Discrete { n: 3 };
    let allow = |obs: f32, mask: &mut [bool]| {
        mask.copy_from_slice(&if obs > 0.0 { [true, false, false] } else { [false, true, true] });
    };
    // The reward counts allowed actions; an episode has 5 to 9 steps.
    let play: Play = |t, obs, a| {
        let allowed = (a[0] == 0.0) == (obs > 0.0);
        let end =
            if t >= 4 && obs > 0.5 || t == 8 { Outcome::Terminated } else { Outcome::Continue };
        (if allowed { 1.0 } else { -100.0 }, end)
    };
    let mut probe = Scripted::new(space, |_, stream| stream.uniform_in(-1.0, 1.0) as f32, play);
    probe.allow = Some(allow);
    let make_env = probe.maker();
    let policy = make_in(ppo(), &make_env, &table(SETTINGS), (1, 1)).unwrap().policy();
    for deterministic in [true, false] {
        let options = EvalOptions { episodes: 30, seed: 1, deterministic };
        let found = evaluate(&policy, &make_env, options);
        assert!(found.returns.iter().all(|r| (5.0..=9.0).contains(r)), "{:?}", found.returns);
        assert_eq!(found.mean_return, found.mean_length);
    }
}
