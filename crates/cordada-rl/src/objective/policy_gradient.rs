//! The objective of the policy gradient theorem.

use cordada_nn::Real;

/// What one sample adds to an objective.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Term<F> {
    /// Its value, to be ascended.
    pub objective: F,
    /// ψ = ∂ objective / ∂ log π(a | s).
    pub psi: F,
}

/// Objective of REINFORCE, actor-critic, A2C, A3C and V-trace actor-learners.
///
/// ```text
/// L = w log π(a | s),   ψ = w
/// ```
///
/// w is the return, the return minus a baseline, or an advantage; it is a constant to the
/// gradient. The value of L has no meaning beyond that gradient.
///
/// # Source
///
/// Williams 1992, doi:10.1007/BF00992696; Sutton & Barto 2018, eq. (13.8).
#[inline(always)]
pub fn policy_gradient<F: Real>(log_prob: F, weight: F) -> Term<F> {
    Term { objective: weight * log_prob, psi: weight }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_weight_is_the_derivative() {
        assert_eq!(policy_gradient(-0.5, 3.0), Term { objective: -1.5, psi: 3.0 });
    }
}
