//! Return and length of the episodes that end inside a segment.

use cordada_env::Outcome;
use cordada_nn::Real;

/// One finished episode.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EpisodeStats {
    /// Index of its environment.
    pub env: usize,
    /// The step of the segment at which it ended.
    pub end_step: usize,
    /// Sum of its rewards, not discounted.
    pub episode_return: f64,
    /// Number of its steps.
    pub length: usize,
}

/// The episodes that end inside a segment, ordered by environment, then by end.
///
/// Only steps of the segment count: an episode that began earlier appears with its later part,
/// and one that goes on does not appear. Rewards are added in `f64`, in order of time.
///
/// # Shapes
///
/// `rewards`, `outcomes`: `[T, N]` with N = `num_envs`.
///
/// # Panics
///
/// If the lengths differ or are no multiple of `num_envs`.
pub fn episode_stats<F: Real>(
    num_envs: usize,
    rewards: &[F],
    outcomes: &[Outcome],
) -> Vec<EpisodeStats> {
    assert_eq!(outcomes.len(), rewards.len(), "outcomes have another shape than rewards");
    assert!(num_envs > 0 && rewards.len().is_multiple_of(num_envs), "rewards are not [T, N]");
    let mut episodes = Vec::new();
    for env in 0..num_envs {
        let (mut episode_return, mut length) = (0.0, 0);
        for (end_step, i) in (env..rewards.len()).step_by(num_envs).enumerate() {
            episode_return += rewards[i].f64();
            length += 1;
            if outcomes[i].ended() {
                episodes.push(EpisodeStats { env, end_step, episode_return, length });
                (episode_return, length) = (0.0, 0);
            }
        }
    }
    episodes
}

#[cfg(test)]
mod tests {
    use cordada_env::Outcome::{Continue, Terminated, Truncated};

    use super::*;

    #[test]
    fn unfinished_parts_are_left_out() {
        // Environment 0: 1 + 3 ends at step 1, 5 goes on. Environment 1: ends at every step.
        let rewards = [1.0_f32, 2.0, 3.0, 4.0, 5.0, 6.0];
        let outcomes = [Continue, Terminated, Truncated, Truncated, Continue, Terminated];
        let episode = |env, end_step, episode_return, length| EpisodeStats {
            env,
            end_step,
            episode_return,
            length,
        };
        assert_eq!(
            episode_stats(2, &rewards, &outcomes),
            [
                episode(0, 1, 4.0, 2),
                episode(1, 0, 2.0, 1),
                episode(1, 1, 4.0, 1),
                episode(1, 2, 6.0, 1)
            ]
        );
    }
}
