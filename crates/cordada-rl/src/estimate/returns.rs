//! Returns: of one episode, and of every step of a segment, with n steps or with λ.

use cordada_nn::Real;

use super::Segment;

/// Discounted returns of one whole episode; the result is that of its first step.
///
/// ```text
/// G_t = Σ_{k≥t} γ^{k−t} r_k = r_t + γ G_{t+1}
/// ```
///
/// Plain REINFORCE weights every step with the result `G_0`, the reward-to-go form with `G_t`.
/// γ = 1 gives the undiscounted return.
///
/// # Shapes
///
/// `rewards`, `returns`: `[T]`.
///
/// # Panics
///
/// If the lengths differ.
///
/// # Source
///
/// Sutton & Barto 2018, eq. (3.8).
pub fn discounted_returns<F: Real>(rewards: &[F], gamma: F, returns: &mut [F]) -> F {
    assert_eq!(returns.len(), rewards.len(), "returns have another length than rewards");
    let mut next = F::ZERO;
    for (out, &reward) in returns.iter_mut().zip(rewards).rev() {
        next = reward + gamma * next;
        *out = next;
    }
    next
}

/// Reward-to-go of every step of a segment, bootstrapped where an episode was cut.
///
/// ```text
/// R_t = r_t + γ R_{t+1}     inside an episode
///       r_t + γ V(s'_t)     at an end of the episode or of the segment
/// ```
///
/// # Shapes
///
/// `returns`: `[T, N]`.
///
/// # Panics
///
/// If the lengths do not agree.
///
/// # Source
///
/// Sutton & Barto 2018, section 9.1; time limits as in Pardo et al. 2018, arXiv:1712.00378.
pub fn reward_to_go<F: Real>(segment: &Segment<'_, F>, gamma: F, returns: &mut [F]) {
    let n = segment.num_envs;
    let len = segment.num_steps() * n;
    assert_eq!(returns.len(), len, "returns have another shape than rewards");
    for i in (0..len).rev() {
        let next = if segment.continues(i) { returns[i + n] } else { segment.next_value(i) };
        returns[i] = segment.rewards[i] + gamma * next;
    }
}

/// n-step returns, with the number of steps each one used.
///
/// ```text
/// G_t = Σ_{k<m} γ^k r_{t+k} + γ^m V(s'_{t+m−1})
/// ```
///
/// m is n, or less where the episode or the segment ends before. `steps_used` is m: an off-policy
/// target that bootstraps with another value function needs γ^m.
///
/// # Shapes
///
/// `returns`, `steps_used`: `[T, N]`.
///
/// # Panics
///
/// If the lengths do not agree, or `n` is 0.
///
/// # Source
///
/// Sutton & Barto 2018, eq. (7.1).
pub fn n_step_returns<F: Real>(
    segment: &Segment<'_, F>,
    gamma: F,
    n: usize,
    returns: &mut [F],
    steps_used: &mut [usize],
) {
    assert!(n > 0, "an n-step return needs n > 0");
    let len = segment.num_steps() * segment.num_envs;
    assert_eq!(returns.len(), len, "returns have another shape than rewards");
    assert_eq!(steps_used.len(), len, "steps_used has another shape than rewards");
    for first in 0..len {
        let mut last = first;
        let mut steps = 1;
        while steps < n && segment.continues(last) {
            last += segment.num_envs;
            steps += 1;
        }
        // From the last step back, as Horner evaluates a polynomial: no powers of γ.
        let mut value = segment.next_value(last);
        for i in (first..=last).rev().step_by(segment.num_envs) {
            value = segment.rewards[i] + gamma * value;
        }
        returns[first] = value;
        steps_used[first] = steps;
    }
}

/// λ-returns.
///
/// ```text
/// G_t = r_t + γ ((1 − λ) V(s'_t) + λ G_{t+1})     inside an episode
///       r_t + γ V(s'_t)                           at an end of the episode or of the segment
/// ```
///
/// They equal the `returns` of [`gae`](super::gae) up to rounding, without advantages.
///
/// # Shapes
///
/// `returns`: `[T, N]`.
///
/// # Panics
///
/// If the lengths do not agree.
///
/// # Source
///
/// Sutton & Barto 2018, eq. (12.9), in the recursive form of its section 12.8.
pub fn td_lambda_returns<F: Real>(
    segment: &Segment<'_, F>,
    gamma: F,
    lambda: F,
    returns: &mut [F],
) {
    let n = segment.num_envs;
    let len = segment.num_steps() * n;
    assert_eq!(returns.len(), len, "returns have another shape than rewards");
    for i in (0..len).rev() {
        let next_value = segment.next_value(i);
        let next = if segment.continues(i) {
            (F::ONE - lambda) * next_value + lambda * returns[i + n]
        } else {
            next_value
        };
        returns[i] = segment.rewards[i] + gamma * next;
    }
}

#[cfg(test)]
mod tests {
    use cordada_env::Outcome;

    use super::super::check_value::{REWARDS, outcomes, segment};
    use super::*;

    #[test]
    fn an_episode_is_discounted_from_its_end() {
        // 3, 2 + ½·3, 1 + ½·3½.
        let mut returns = [0.0; 3];
        assert_eq!(discounted_returns(&REWARDS, 0.5, &mut returns), 2.75);
        assert_eq!(returns, [2.75, 3.5, 3.0]);
        assert_eq!(discounted_returns(&REWARDS, 1.0, &mut returns), 6.0);
    }

    #[test]
    fn reward_to_go_stops_at_an_end() {
        // Last step: 3 + ½·1. Truncated: 2 + ½·4, 1 + ½·4. Terminated: 2, 1 + ½·2.
        let mut returns = [0.0; 3];
        reward_to_go(&segment(&outcomes(Outcome::Truncated)), 0.5, &mut returns);
        assert_eq!(returns, [3.0, 4.0, 3.5]);
        reward_to_go(&segment(&outcomes(Outcome::Terminated)), 0.5, &mut returns);
        assert_eq!(returns, [2.0, 2.0, 3.5]);
    }

    #[test]
    fn n_steps_are_fewer_at_an_end() {
        let (mut returns, mut steps) = ([0.0; 3], [0; 3]);
        let outcomes = outcomes(Outcome::Truncated);
        n_step_returns(&segment(&outcomes), 0.5, 1, &mut returns, &mut steps);
        assert_eq!((returns, steps), ([1.5, 4.0, 3.5], [1, 1, 1]));
        n_step_returns(&segment(&outcomes), 0.5, 2, &mut returns, &mut steps);
        assert_eq!((returns, steps), ([3.0, 4.0, 3.5], [2, 1, 1]));
    }

    #[test]
    fn lambda_mixes_value_and_return() {
        // λ = ¼. Last: 3½. Truncated: 2 + ½·4 = 4. First: 1 + ½ (¾·1 + ¼·4) = 1.875.
        let mut returns = [0.0; 3];
        td_lambda_returns(&segment(&outcomes(Outcome::Truncated)), 0.5, 0.25, &mut returns);
        assert_eq!(returns, [1.875, 4.0, 3.5]);
    }
}
