//! Tests of vectorised stepping: automatic resets, equality with a loop, exact resuming.

use super::*;
use crate::registry::{ENVIRONMENTS, find};
use crate::stream::role;
use proptest::prelude::*;

/// Buffers of a vector environment, owned.
struct Buffers {
    obs: Vec<f32>,
    rewards: Vec<f32>,
    outcomes: Vec<Outcome>,
    final_obs: Vec<f32>,
}

impl Buffers {
    fn new(envs: &VecEnv) -> Self {
        let (n, d) = (envs.num_envs(), envs.obs_space().len());
        Self {
            obs: vec![0.0; n * d],
            rewards: vec![0.0; n],
            outcomes: vec![Outcome::Continue; n],
            final_obs: vec![f32::NAN; n * d],
        }
    }

    fn lend(&mut self) -> StepBuffers<'_> {
        StepBuffers {
            obs: &mut self.obs,
            rewards: &mut self.rewards,
            outcomes: &mut self.outcomes,
            final_obs: &mut self.final_obs,
        }
    }
}

fn random_actions(space: &Space, n: usize, stream: &mut Stream) -> Vec<f32> {
    let mut actions = vec![0.0; n * space.len()];
    actions.chunks_exact_mut(space.len()).for_each(|row| space.sample(stream, row));
    actions
}

#[test]
fn the_end_of_an_episode_gives_both_observations() {
    let mut slot = Slot::new(find("CartPole-v1").unwrap().build(), Stream::new(3, role::ENV, 0));
    // The same episode, without automatic reset.
    let mut env = find("CartPole-v1").unwrap().build();
    let mut stream = Stream::new(3, role::ENV, 0);
    let (mut obs, mut last, mut final_obs) = ([0.0; 4], [0.0; 4], [7.0; 4]);
    slot.reset(&mut obs);
    env.reset(&mut stream, &mut last);
    let mut total = 0.0;
    for length in 1.. {
        let want = env.step(&[1.0], &mut stream, &mut last);
        let step = slot.step(&[1.0], &mut obs, &mut final_obs);
        total += want.reward;
        assert_eq!((step.reward, step.outcome), (want.reward, want.outcome));
        if step.outcome.ended() {
            assert_eq!(step.episode, Some(Episode { episode_return: total, length }));
            assert_eq!(final_obs, last);
            let mut first = [0.0; 4];
            env.reset(&mut stream, &mut first);
            assert_eq!(obs, first);
            break;
        }
        assert_eq!((step.episode, final_obs), (None, [7.0; 4]));
    }
    // The tally starts again.
    let second = (0..).find_map(|_| slot.step(&[1.0], &mut obs, &mut final_obs).episode).unwrap();
    assert_eq!(second.episode_return, second.length as f64);
    assert!(second.length < 15, "{second:?}");
}

#[test]
fn a_truncated_episode_is_reported_as_such() {
    let spec = find("Pendulum-v1").unwrap();
    let mut envs = VecEnv::new(|| spec.build(), 2, 0, role::ENV);
    let mut buffers = Buffers::new(&envs);
    envs.reset(&mut buffers.obs);
    for _ in 0..200 {
        assert!(envs.episodes().is_empty());
        envs.step(&[0.5, -0.5], buffers.lend());
    }
    assert_eq!(buffers.outcomes, [Outcome::Truncated; 2]);
    assert_eq!(envs.episodes().len(), 2);
    assert!(envs.episodes().iter().all(|e| e.length == 200 && e.episode_return < 0.0));
    envs.step(&[0.5, -0.5], buffers.lend());
    assert!(envs.episodes().is_empty());
}

#[test]
fn a_saved_run_of_another_size_is_refused() {
    let spec = find("CartPole-v1").unwrap();
    let mut w = StateWriter::new();
    VecEnv::new(|| spec.build(), 3, 0, role::ENV).save(&mut w);
    let bytes = w.into_bytes();
    let mut other = VecEnv::new(|| spec.build(), 2, 0, role::ENV);
    let error = other.load(&mut StateReader::new(&bytes)).unwrap_err().to_string();
    assert_eq!(error, "saved state was made with num_envs 3, this run has 2");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn vectorised_equals_looped(seed: u64, which in 0..ENVIRONMENTS.len(), n in 1usize..5) {
        let spec = ENVIRONMENTS[which];
        let mut envs = VecEnv::new(|| spec.build(), n, seed, role::ENV);
        let mut buffers = Buffers::new(&envs);
        let (d, a) = (envs.obs_space().len(), envs.action_space().len());
        let mut policy = Stream::new(seed, role::POLICY, 0);
        let actions: Vec<Vec<f32>> =
            (0..300).map(|_| random_actions(envs.action_space(), n, &mut policy)).collect();

        envs.reset(&mut buffers.obs);
        let mut history = vec![];
        for row in &actions {
            envs.step(row, buffers.lend());
            history.push((buffers.obs.clone(), buffers.rewards.clone(), buffers.outcomes.clone()));
        }
        // One environment after the other, by hand.
        for i in 0..n {
            let mut env = spec.build();
            let mut stream = Stream::new(seed, role::ENV, i as u32);
            let mut obs = vec![0.0; d];
            env.reset(&mut stream, &mut obs);
            for (row, (all_obs, rewards, outcomes)) in actions.iter().zip(&history) {
                let step = env.step(&row[i * a..(i + 1) * a], &mut stream, &mut obs);
                if step.outcome.ended() {
                    env.reset(&mut stream, &mut obs);
                }
                prop_assert_eq!(&all_obs[i * d..(i + 1) * d], &obs[..]);
                prop_assert_eq!((rewards[i], outcomes[i]), (step.reward as f32, step.outcome));
            }
        }
    }

    #[test]
    fn a_restored_run_continues_identically(seed: u64, which in 0..ENVIRONMENTS.len(), at in 0..400) {
        let spec = ENVIRONMENTS[which];
        let mut envs = VecEnv::new(|| spec.build(), 2, seed, role::ENV);
        let mut buffers = Buffers::new(&envs);
        let mut policy = Stream::new(seed, role::POLICY, 0);
        envs.reset(&mut buffers.obs);
        for _ in 0..at {
            let actions = random_actions(envs.action_space(), 2, &mut policy);
            envs.step(&actions, buffers.lend());
        }
        let mut w = StateWriter::new();
        envs.save(&mut w);
        let bytes = w.into_bytes();
        let mut restored = VecEnv::new(|| spec.build(), 2, 0, role::EVAL_ENV);
        let mut r = StateReader::new(&bytes);
        restored.load(&mut r)?;
        r.finish()?;
        let mut others = Buffers::new(&restored);
        for _ in 0..250 {
            let actions = random_actions(envs.action_space(), 2, &mut policy);
            envs.step(&actions, buffers.lend());
            restored.step(&actions, others.lend());
            prop_assert_eq!(&buffers.obs, &others.obs);
            prop_assert_eq!(&buffers.rewards, &others.rewards);
            prop_assert_eq!(&buffers.outcomes, &others.outcomes);
            prop_assert_eq!(envs.episodes(), restored.episodes());
        }
    }
}
