//! Dynamic programming on a transition table: exact values to test learners against. Learning
//! without the table is not done here.

use super::table::TransitionTable;
use crate::error::Error;

/// More iterations than any discount that is far enough from 1 to matter needs.
const MAX_SWEEPS: usize = 1_000_000;

/// Policy evaluation stops when a sweep changes no value by more than this, relative to the
/// largest value (or to 1).
const REST: f64 = 1e-13;

impl TransitionTable {
    /// Expected reward and discounted value that follows: `Σ p (r + γ V(s'))`, with V = 0 after
    /// termination.
    fn backup(&self, state: usize, action: usize, gamma: f64, value: &[f64]) -> f64 {
        let outcomes = self.outcomes(state, action).iter();
        let terms = outcomes.map(|o| {
            let next = if o.terminated { 0.0 } else { value[o.next_state] };
            o.probability * (o.reward + gamma * next)
        });
        terms.sum()
    }

    /// The optimal values of states and of state-action pairs, by value iteration from 0.
    ///
    /// ```text
    /// Q(s, a) = Σ p(s', r | s, a) (r + γ V(s')),   V(s) ← max_a Q(s, a)
    /// ```
    ///
    /// Stops after the first sweep that changes no V by more than `tolerance`; every V is then
    /// within `tolerance · γ / (1 − γ)` of the optimum.
    ///
    /// # Shapes
    ///
    /// V: `[S]`; Q: `[S, A]`, and V is exactly the maximum of Q.
    ///
    /// # Errors
    ///
    /// [`Error::Option`] if `gamma` is not in [0, 1] or `tolerance` not above 0;
    /// [`Error::NoConvergence`] if a million sweeps are not enough, as for γ = 1 where rewards can
    /// be collected for ever.
    ///
    /// # Source
    ///
    /// Sutton and Barto 2018, eq. (4.10).
    pub fn value_iteration(
        &self,
        gamma: f64,
        tolerance: f64,
    ) -> Result<(Vec<f64>, Vec<f64>), Error> {
        check_gamma(gamma)?;
        if tolerance.is_nan() || tolerance <= 0.0 {
            let (option, value) = ("tolerance", tolerance);
            return Err(Error::Option { option, value, range: "above 0" });
        }
        let (s, a) = (self.num_states(), self.num_actions());
        let (mut value, mut q_value) = (vec![0.0; s], vec![0.0; s * a]);
        let mut change = 0.0;
        for _ in 0..MAX_SWEEPS {
            for (i, q) in q_value.iter_mut().enumerate() {
                *q = self.backup(i / a, i % a, gamma, &value);
            }
            change = 0.0;
            for (v, q) in value.iter_mut().zip(q_value.chunks(a)) {
                let best = q.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                change = f64::max(change, (best - *v).abs());
                *v = best;
            }
            if change <= tolerance {
                return Ok((value, q_value));
            }
        }
        let what = "value iteration";
        Err(Error::NoConvergence { what, iterations: MAX_SWEEPS, change })
    }

    /// The values of states under a policy, by iteration from 0.
    ///
    /// ```text
    /// V(s) ← Σ_a π(a | s) Σ p(s', r | s, a) (r + γ V(s'))
    /// ```
    ///
    /// Stops when a sweep changes no V by more than 10⁻¹³ of the largest, or of 1; values are then
    /// within `γ / (1 − γ)` times that of the truth.
    ///
    /// # Shapes
    ///
    /// `policy`: `[S, A]`, each row a distribution; V: `[S]`.
    ///
    /// # Errors
    ///
    /// [`Error::Option`] if `gamma` is not in [0, 1]; [`Error::Entries`] or [`Error::Table`] if
    /// `policy` is not a policy of this table; [`Error::NoConvergence`] if a million sweeps are
    /// not enough, as for γ = 1 and a policy that never ends.
    ///
    /// # Source
    ///
    /// Sutton and Barto 2018, eq. (4.5).
    pub fn policy_evaluation(&self, policy: &[f64], gamma: f64) -> Result<Vec<f64>, Error> {
        check_gamma(gamma)?;
        let (s, a) = (self.num_states(), self.num_actions());
        if policy.len() != s * a {
            let (expected, found) = (s * a, policy.len());
            return Err(Error::Entries { what: "the policy", expected, found });
        }
        for (state, row) in policy.chunks(a).enumerate() {
            let sum: f64 = row.iter().sum();
            if row.iter().any(|p| !(0.0..=1.0).contains(p)) || (sum - 1.0).abs() > 1e-6 {
                let what = "the policy's probabilities are no distribution, they add up to";
                return Err(Error::Table { what, value: sum, state, action: None });
            }
        }
        let (mut value, mut next) = (vec![0.0; s], vec![0.0; s]);
        let mut change = 0.0;
        for _ in 0..MAX_SWEEPS {
            for (state, (v, row)) in next.iter_mut().zip(policy.chunks(a)).enumerate() {
                let backups = row.iter().enumerate();
                *v = backups.map(|(i, p)| p * self.backup(state, i, gamma, &value)).sum();
            }
            let largest = next.iter().fold(1.0, |m, v| f64::max(m, v.abs()));
            change = value.iter().zip(&next).fold(0.0, |m, (a, b)| f64::max(m, (a - b).abs()));
            std::mem::swap(&mut value, &mut next);
            if change <= REST * largest {
                return Ok(value);
            }
        }
        let what = "policy evaluation";
        Err(Error::NoConvergence { what, iterations: MAX_SWEEPS, change })
    }
}

fn check_gamma(gamma: f64) -> Result<(), Error> {
    if (0.0..=1.0).contains(&gamma) {
        return Ok(());
    }
    Err(Error::Option { option: "gamma", value: gamma, range: "from 0 to 1" })
}

#[cfg(test)]
mod tests {
    use super::super::table::Transition;
    use super::*;

    /// State 0: action 0 stays with +1, action 1 ends with +5 or, half the time, stays with 0.
    fn two_ways() -> TransitionTable {
        let go = |probability, reward, terminated| Transition {
            probability,
            next_state: 0,
            reward,
            terminated,
        };
        TransitionTable::new(2, vec![1.0], |_, action| match action {
            0 => vec![go(1.0, 1.0, false)],
            _ => vec![go(0.5, 5.0, true), go(0.5, 0.0, false)],
        })
        .unwrap()
    }

    #[test]
    fn optimal_values_by_hand() {
        // γ = 0.9: staying for ever is worth 1 / (1 − 0.9) = 10; ending is 2.5 + 0.45 · 10 = 7.
        let (v, q) = two_ways().value_iteration(0.9, 1e-12).unwrap();
        assert!((v[0] - 10.0).abs() < 1e-10 && (q[1] - 7.0).abs() < 1e-10, "{v:?} {q:?}");
        assert_eq!(v[0], q[0]);
        // γ = 0.5: staying is 1 + V / 2, ending 2.5 + V / 4; with V = 10/3 ending is the better.
        let (v, q) = two_ways().value_iteration(0.5, 1e-12).unwrap();
        assert!((v[0] - 10.0 / 3.0).abs() < 1e-11, "{v:?}");
        assert!((q[0] - 8.0 / 3.0).abs() < 1e-11 && v[0] == q[1], "{q:?}");
    }

    #[test]
    fn a_policys_value_by_hand() {
        // π = (½, ½), γ = 0.8: V = ½ (1 + 0.8 V) + ½ (2.5 + 0.4 V) = 1.75 + 0.6 V = 4.375.
        let v = two_ways().policy_evaluation(&[0.5, 0.5], 0.8).unwrap();
        assert!((v[0] - 4.375).abs() < 1e-11, "{v:?}");
        // Always ending, undiscounted: V = 2.5 + V / 2 = 5.
        let v = two_ways().policy_evaluation(&[0.0, 1.0], 1.0).unwrap();
        assert!((v[0] - 5.0).abs() < 1e-11, "{v:?}");
    }

    #[test]
    fn what_has_no_value_is_refused() {
        let table = two_ways();
        let error = table.value_iteration(1.0, 1e-9).unwrap_err();
        assert!(matches!(error, Error::NoConvergence { change, .. } if change == 1.0), "{error}");
        let error = table.policy_evaluation(&[1.0, 0.0], 1.0).unwrap_err().to_string();
        assert!(error.starts_with("policy evaluation has not converged after 1000000"), "{error}");
        for (gamma, tolerance) in [(1.1, 0.1), (f64::NAN, 0.1), (0.5, 0.0), (0.5, f64::NAN)] {
            assert!(table.value_iteration(gamma, tolerance).is_err(), "{gamma} {tolerance}");
        }
        let error = |policy: &[f64]| table.policy_evaluation(policy, 0.5).unwrap_err().to_string();
        assert_eq!(error(&[1.0]), "the policy has 1 entries, it has to have 2");
        assert!(error(&[0.5, 0.25]).ends_with("they add up to 0.75 in state 0"));
        assert!(error(&[1.5, -0.5]).contains("no distribution"));
    }
}
