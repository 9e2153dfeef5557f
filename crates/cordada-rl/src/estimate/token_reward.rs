//! Rewards of single tokens: a penalty for leaving the reference model at every token, the score
//! of the whole response at its last one, and a penalty for great length.

use cordada_nn::Real;

/// Rewards of one response's tokens.
///
/// ```text
/// r_t = −β k_t + [t = last] score
/// ```
///
/// k_t is an estimate of KL(π ‖ π_ref) at token t, usually
/// [`k1`](super::kl::k1)(log π_ref − log π) = log π − log π_ref, of which the expected sum over a
/// response is its KL divergence; as a part of the reward, k1 is the right one.
///
/// A response without tokens has no rewards, and its score is lost.
///
/// # Shapes
///
/// `kl`, `rewards`: `[T]`, the tokens of one response.
///
/// # Panics
///
/// If the lengths differ.
///
/// # Source
///
/// Ziegler et al. 2019, arXiv:1909.08593, eq. (2); Ouyang et al. 2022, arXiv:2203.02155, eq. (2).
pub fn token_rewards<F: Real>(kl: &[F], beta: F, score: F, rewards: &mut [F]) {
    assert_eq!(rewards.len(), kl.len(), "rewards have another length than the KL estimates");
    for (reward, &kl) in rewards.iter_mut().zip(kl) {
        *reward = -(beta * kl);
    }
    if let Some(last) = rewards.last_mut() {
        *last += score;
    }
}

/// Penalty for a response that comes near the longest length allowed, to be added to its score.
///
/// ```text
///  0                             L ≤ L_max − L_buffer
/// (L_max − L_buffer − L) / L_buffer   up to L_max
/// −1                             beyond
/// ```
///
/// # Units
///
/// All lengths in tokens.
///
/// # Panics
///
/// If `buffer` is larger than `max_length`.
///
/// # Source
///
/// Yu et al. 2025 (DAPO), arXiv:2503.14476, eq. (13).
pub fn soft_overlong_penalty(length: usize, max_length: usize, buffer: usize) -> f64 {
    assert!(
        buffer <= max_length,
        "a buffer of {buffer} tokens is longer than the {max_length} tokens allowed"
    );
    let free = max_length - buffer;
    if length <= free {
        0.0
    } else if length <= max_length {
        -((length - free) as f64) / buffer as f64
    } else {
        -1.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_score_comes_at_the_last_token() {
        let mut rewards = [9.0; 3];
        token_rewards(&[1.0, -2.0, 4.0], 0.5, 10.0, &mut rewards);
        assert_eq!(rewards, [-0.5, 1.0, 8.0]);
        token_rewards::<f64>(&[], 0.5, 10.0, &mut []);
    }

    #[test]
    fn great_length_costs_up_to_one() {
        // 20 tokens, the last 8 of them the buffer.
        let of = |length| soft_overlong_penalty(length, 20, 8);
        assert_eq!((of(0), of(12), of(13), of(16)), (0.0, 0.0, -0.125, -0.5));
        assert_eq!((of(20), of(21), of(99)), (-1.0, -1.0, -1.0));
        assert_eq!((soft_overlong_penalty(5, 5, 0), soft_overlong_penalty(6, 5, 0)), (0.0, -1.0));
    }
}
