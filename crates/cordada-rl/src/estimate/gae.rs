//! Generalized advantage estimation.

use cordada_nn::Real;

use super::Segment;

/// Generalized advantage estimates and the value targets that belong to them.
///
/// ```text
/// δ_t = r_t + γ V(s'_t) − V(s_t)
/// A_t = δ_t + γ λ A_{t+1}        A_{t+1} = 0 where the episode or the segment ends at t
/// R_t = A_t + V(s_t)
/// ```
///
/// V(s'_t) is 0 after a termination and the value of the true last observation after a
/// truncation. λ = 0 gives the TD error, λ = 1 the return minus the value.
///
/// # Shapes
///
/// `advantages`, `returns`: `[T, N]`.
///
/// # Panics
///
/// If the lengths do not agree.
///
/// # Source
///
/// Schulman et al. 2016, arXiv:1506.02438, eq. (16); time limits as in Pardo et al. 2018,
/// arXiv:1712.00378.
pub fn gae<F: Real>(
    segment: &Segment<'_, F>,
    gamma: F,
    lambda: F,
    advantages: &mut [F],
    returns: &mut [F],
) {
    let n = segment.num_envs;
    let len = segment.num_steps() * n;
    assert_eq!(advantages.len(), len, "advantages have another shape than rewards");
    assert_eq!(returns.len(), len, "returns have another shape than rewards");
    for i in (0..len).rev() {
        let value = segment.values[i];
        let delta = segment.rewards[i] + gamma * segment.next_value(i) - value;
        let next = if segment.continues(i) { advantages[i + n] } else { F::ZERO };
        advantages[i] = delta + gamma * lambda * next;
        returns[i] = advantages[i] + value;
    }
}

#[cfg(test)]
mod tests {
    use cordada_env::Outcome;

    use super::super::check_value::{outcomes, segment};
    use super::*;

    /// γ = λ = ½.
    fn advantages_and_returns(end: Outcome) -> ([f64; 3], [f64; 3]) {
        let (mut advantages, mut returns) = ([0.0; 3], [0.0; 3]);
        gae(&segment(&outcomes(end)), 0.5, 0.5, &mut advantages, &mut returns);
        (advantages, returns)
    }

    #[test]
    fn truncation_bootstraps_from_the_final_value() {
        // δ = 1 + ½·1 − 2, 2 + ½·4 − 1, 3 + ½·1 − 0 = −½, 3, 3½;  A_0 = −½ + ¼·3 = ¼.
        let (advantages, returns) = advantages_and_returns(Outcome::Truncated);
        assert_eq!(advantages, [0.25, 3.0, 3.5]);
        assert_eq!(returns, [2.25, 4.0, 3.5]);
    }

    #[test]
    fn termination_does_not_bootstrap() {
        // δ_1 = 2 − 1 = 1;  A_0 = −½ + ¼·1 = −¼.
        let (advantages, returns) = advantages_and_returns(Outcome::Terminated);
        assert_eq!(advantages, [-0.25, 1.0, 3.5]);
        assert_eq!(returns, [1.75, 2.0, 3.5]);
    }

    #[test]
    fn without_an_end_the_recursion_goes_through() {
        // δ_1 = 2 + ½·0 − 1 = 1;  A_1 = 1 + ¼·3½ = 1.875;  A_0 = −½ + ¼·1.875 = −0.03125.
        let (advantages, _) = advantages_and_returns(Outcome::Continue);
        assert_eq!(advantages, [-0.03125, 1.875, 3.5]);
    }

    #[test]
    #[should_panic(expected = "last_values are not [N]")]
    fn refuses_arrays_that_do_not_agree() {
        let outcomes = outcomes(Outcome::Continue);
        let wrong = Segment { last_values: &[], ..segment(&outcomes) };
        gae(&wrong, 0.5, 0.5, &mut [0.0; 3], &mut [0.0; 3]);
    }
}
