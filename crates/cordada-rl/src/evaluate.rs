//! Evaluation: episodes in environments of their own, with the normalizer frozen.

use cordada_env::{Env, Slot, Stream, role};
use serde::Serialize;

use crate::policy_file::{Policy, PolicyRunner};

/// Steps after which an episode is cut, whatever the environment says: those of Atari's games.
pub const MAX_STEPS: u64 = 27_000;

/// How to evaluate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EvalOptions {
    /// Episodes to play.
    pub episodes: usize,
    /// Seed of the environments (and of the policy, if it samples).
    pub seed: u64,
    /// Whether the most probable action is taken instead of a sampled one.
    pub deterministic: bool,
}

/// What an evaluation found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Evaluation {
    /// Episodes played.
    pub episodes: usize,
    /// Mean of their returns.
    pub mean_return: f64,
    /// Standard deviation of the returns over the episodes (n in the denominator).
    pub std_return: f64,
    /// Mean length, in steps.
    pub mean_length: f64,
    /// Whether the most probable action was taken.
    pub deterministic: bool,
    /// Return of each episode.
    #[serde(skip)]
    pub returns: Vec<f64>,
}

/// Plays episodes side by side. Episode i has streams of its own, so its return depends neither on
/// the number of episodes nor on threads.
///
/// An episode is cut after [`MAX_STEPS`], for an environment without a time limit may go on for ever.
pub fn evaluate(
    policy: &Policy,
    make_env: &dyn Fn() -> Box<dyn Env>,
    options: EvalOptions,
) -> Evaluation {
    let EvalOptions { episodes, seed, deterministic } = options;
    let mut runner = PolicyRunner::new(policy);
    let (d, a, m) = (policy.input.obs_len(), runner.action_len(), runner.mask_len());
    let mut slots: Vec<Slot> = (0..episodes)
        .map(|i| Slot::new(make_env(), Stream::new(seed, role::EVAL_ENV, i as u32)))
        .collect();
    let mut streams: Vec<Stream> =
        (0..episodes).map(|i| Stream::new(seed, role::EVAL_POLICY, i as u32)).collect();
    let mut obs = vec![0.0; episodes * d];
    for (slot, obs) in slots.iter_mut().zip(obs.chunks_exact_mut(d)) {
        slot.reset(obs);
    }
    let mut running: Vec<usize> = (0..episodes).collect();
    let s = runner.state_len();
    let mut states = vec![0.0; episodes * s];
    let mut actions = vec![0.0; episodes * a];
    let mut masks = vec![true; episodes * m];
    let (mut next, mut last) = (vec![0.0; d], vec![0.0; d]);
    let (mut returns, mut lengths) = (vec![0.0; episodes], vec![0_u64; episodes]);
    let mut steps = 0;
    while !running.is_empty() {
        steps += 1;
        // Rows of episodes that are over have been closed up, so the batch shrinks.
        let n = running.len();
        let mut masked = false;
        for (slot, mask) in slots.iter().zip(masks.chunks_exact_mut(m.max(1))) {
            masked |= m > 0 && slot.env().action_mask(mask);
        }
        let mask = masked.then_some(&masks[..n * m]);
        let sample = (!deterministic).then_some(&mut streams[..n]);
        runner.act(&obs[..n * d], mask, &mut states[..n * s], sample, &mut actions[..n * a]);
        let mut kept = 0;
        for i in 0..n {
            next.copy_from_slice(&obs[i * d..(i + 1) * d]);
            let step = slots[i].step(&actions[i * a..(i + 1) * a], &mut next, &mut last);
            let so_far = slots[i].so_far();
            if let Some(episode) = step.episode.or((steps == MAX_STEPS).then_some(so_far)) {
                returns[running[i]] = episode.episode_return;
                lengths[running[i]] = episode.length;
            } else {
                obs[kept * d..(kept + 1) * d].copy_from_slice(&next);
                states.copy_within(i * s..(i + 1) * s, kept * s);
                slots.swap(kept, i);
                streams.swap(kept, i);
                running.swap(kept, i);
                kept += 1;
            }
        }
        running.truncate(kept);
        slots.truncate(kept);
    }
    summarize(returns, &lengths, deterministic)
}

fn summarize(returns: Vec<f64>, lengths: &[u64], deterministic: bool) -> Evaluation {
    let n = returns.len() as f64;
    let mean = returns.iter().sum::<f64>() / n;
    let var = returns.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / n;
    Evaluation {
        episodes: returns.len(),
        mean_return: mean,
        std_return: var.sqrt(),
        mean_length: lengths.iter().sum::<u64>() as f64 / n,
        deterministic,
        returns,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_is_that_of_all_episodes() {
        // Mean (2 + 4 + 9) / 3 = 5; variance (9 + 1 + 16) / 3; length (1 + 2 + 6) / 3.
        let found = summarize(vec![2.0, 4.0, 9.0], &[1, 2, 6], true);
        assert_eq!((found.episodes, found.mean_return, found.mean_length), (3, 5.0, 3.0));
        assert!((found.std_return - (26.0_f64 / 3.0).sqrt()).abs() < 1e-15);
    }
}
