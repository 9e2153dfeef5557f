//! Bootstrapped targets of value functions. A target is [`td_target`] of a reward, a discount and
//! the value of what follows; methods differ in that value alone:
//!
//! | method | value of what follows |
//! |---|---|
//! | TD(0) | V(s') |
//! | SARSA, DDPG | Q(s', a'), a' the action taken, or the policy's |
//! | Q-learning, DQN | [`max_value`] |
//! | double Q-learning, Double DQN | [`double_q_value`] |
//! | Expected SARSA | [`epsilon_greedy_value`] |
//! | TD3 | [`clipped_double_q`] at [`smoothed_action`] |
//! | SAC | [`soft_value`] of [`clipped_double_q`] |
//! | SAC with a choice of actions | [`expected_soft_value`] |
//! | TQC | [`soft_value`] of each of the [`truncated_atoms`] |
//!
//! How an episode ended is in the discount (see [`Batch`](crate::replay::Batch)): γᵏ after k steps, also where
//! the episode was truncated, and 0 after a termination. For C51 see
//! [`Support::project`](super::Support::project).
//!
//! Values of actions are one row `[A]`, with a mask of the allowed ones where not all are. Of equal
//! values the one with the lowest index counts.

use cordada_nn::Real;

/// Bootstrapped target.
///
/// ```text
/// y = r + γ v        r alone where the discount γ is 0: then v may be anything, even NaN
/// ```
///
/// With n steps, r is the sum of n discounted rewards and γ their γⁿ.
///
/// # Source
///
/// Sutton & Barto 2018, eqs. (6.2), (6.7), (7.1).
#[inline(always)]
pub fn td_target<F: Real>(reward: F, discount: F, next_value: F) -> F {
    if discount == F::ZERO { reward } else { reward + discount * next_value }
}

/// The allowed action with the largest value, the first one of equals.
///
/// # Panics
///
/// If no action is allowed.
#[inline(always)]
pub fn greedy_action<F: Real>(q_values: &[F], mask: Option<&[bool]>) -> usize {
    let mut best: Option<usize> = None;
    for action in allowed(q_values.len(), mask) {
        if best.is_none_or(|best| q_values[action] > q_values[best]) {
            best = Some(action);
        }
    }
    best.expect("a choice needs an allowed action")
}

/// The allowed actions, in order.
#[inline(always)]
pub(crate) fn allowed(len: usize, mask: Option<&[bool]>) -> impl Iterator<Item = usize> + Clone {
    assert!(mask.is_none_or(|mask| mask.len() == len), "the mask is not [A]");
    (0..len).filter(move |&action| mask.is_none_or(|mask| mask[action]))
}

/// max_a Q(s', a): what Q-learning and DQN bootstrap from.
///
/// # Panics
///
/// If no action is allowed.
///
/// # Source
///
/// Watkins & Dayan 1992, doi:10.1007/BF00992698; Mnih et al. 2015, doi:10.1038/nature14236.
#[inline(always)]
pub fn max_value<F: Real>(q_values: &[F], mask: Option<&[bool]>) -> F {
    double_q_value(q_values, q_values, mask)
}

/// Q'(s', argmax_a Q(s', a)): one function chooses, the other one judges.
///
/// In Double DQN, `choosing` is the online network and `judging` the target network.
///
/// # Panics
///
/// If the lengths differ or no action is allowed.
///
/// # Source
///
/// van Hasselt 2010, "Double Q-learning"; van Hasselt et al. 2016, arXiv:1509.06461, eq. (4).
#[inline(always)]
pub fn double_q_value<F: Real>(choosing: &[F], judging: &[F], mask: Option<&[bool]>) -> F {
    assert_eq!(choosing.len(), judging.len(), "action values of different lengths");
    judging[greedy_action(choosing, mask)]
}

/// Expectation of Q(s', ·) under the ε-greedy policy of the same values.
///
/// ```text
/// v = (1 − ε) max_a Q(s', a) + ε mean_a Q(s', a)        over the allowed actions
/// ```
///
/// # Panics
///
/// If no action is allowed.
///
/// # Source
///
/// van Seijen et al. 2009, doi:10.1109/ADPRL.2009.4927542; Sutton & Barto 2018, eq. (6.9).
#[inline(always)]
pub fn epsilon_greedy_value<F: Real>(q_values: &[F], mask: Option<&[bool]>, epsilon: F) -> F {
    let actions = allowed(q_values.len(), mask);
    let count = F::of(actions.clone().count() as f64);
    let mean = actions.map(|action| q_values[action]).sum::<F>() / count;
    (F::ONE - epsilon) * max_value(q_values, mask) + epsilon * mean
}

/// min(Q₁, Q₂): the lower of two critics, against overestimation.
///
/// # Source
///
/// Fujimoto et al. 2018, arXiv:1802.09477, eq. (10).
#[inline(always)]
pub fn clipped_double_q<F: Real>(q1: F, q2: F) -> F {
    q1.min(q2)
}

/// TD3's target action, one component: the target policy's, with clipped noise.
///
/// ```text
/// a' = clip(a + clip(noise, −c, c), low, high)
/// ```
///
/// # Units
///
/// `noise` and `noise_clip` (c) are in the action's own units.
///
/// # Source
///
/// Fujimoto et al. 2018, arXiv:1802.09477, section 5.3 and algorithm 1; c = ½ for actions in [−1, 1].
#[inline(always)]
pub fn smoothed_action<F: Real>(action: F, noise: F, noise_clip: F, (low, high): (F, F)) -> F {
    (action + noise.clamp(-noise_clip, noise_clip)).clamp(low, high)
}

/// Q − α log π: the value of an action with the entropy's part.
///
/// # Source
///
/// Haarnoja et al. 2018, arXiv:1812.05905, eq. (3).
#[inline(always)]
pub fn soft_value<F: Real>(q_value: F, alpha: F, log_prob: F) -> F {
    q_value - alpha * log_prob
}

/// The soft value of a state where one of A actions is chosen, exactly.
///
/// ```text
/// v = Σ_a π(a) (min(Q₁(a), Q₂(a)) − α log π(a))
/// ```
///
/// A masked action has log π = −∞ and adds nothing. As a function of logits, v has the gradient
/// `Distribution::fisher_product` of min Q, and α times that of the entropy.
///
/// # Shapes
///
/// `log_probs` (log π), `q1`, `q2`: `[A]`.
///
/// # Panics
///
/// If the lengths differ.
///
/// # Source
///
/// Christodoulou 2019, arXiv:1910.07207, eq. (10).
#[inline(always)]
pub fn expected_soft_value<F: Real>(log_probs: &[F], q1: &[F], q2: &[F], alpha: F) -> F {
    assert_eq!(log_probs.len(), q1.len(), "as many log-probabilities as action values are needed");
    assert_eq!(q1.len(), q2.len(), "action values of different lengths");
    let mut sum = F::ZERO;
    for (&log_prob, (&q1, &q2)) in log_probs.iter().zip(q1.iter().zip(q2)) {
        let prob = log_prob.exp();
        if prob != F::ZERO {
            sum += prob * soft_value(clipped_double_q(q1, q2), alpha, log_prob);
        }
    }
    sum
}

/// The mixture of several critics' atoms without its `num_dropped` largest ones, in ascending order.
///
/// TQC drops 2 for each critic of 25 atoms, and targets each of the rest:
/// `td_target(r, γ, soft_value(z, α, log π))`.
///
/// # Shapes
///
/// `atoms`: those of all critics for one state and action, sorted in place.
///
/// # Panics
///
/// If none would be left.
///
/// # Source
///
/// Kuznetsov et al. 2020, arXiv:2005.04269, section 4.
pub fn truncated_atoms<F: Real>(atoms: &mut [F], num_dropped: usize) -> &mut [F] {
    assert!(num_dropped < atoms.len(), "{num_dropped} of {} atoms dropped", atoms.len());
    atoms.sort_unstable_by(|a, b| a.f64().total_cmp(&b.f64()));
    let kept = atoms.len() - num_dropped;
    &mut atoms[..kept]
}

#[cfg(test)]
mod tests {
    use super::*;

    const Q: [f64; 4] = [1.0, 3.0, 3.0, -2.0];

    #[test]
    fn a_termination_hides_whatever_follows() {
        assert_eq!(td_target(2.0, 0.5, 3.0), 3.5);
        assert_eq!(td_target(2.0, 0.0, f64::NAN), 2.0);
        assert!(td_target(2.0, 0.5, f64::NAN).is_nan());
    }

    #[test]
    fn choices_by_hand() {
        assert_eq!((greedy_action(&Q, None), max_value(&Q, None)), (1, 3.0));
        let mask = Some(&[true, false, false, true][..]);
        assert_eq!((greedy_action(&Q, mask), max_value(&Q, mask)), (0, 1.0));
        // The first of the equal ones chooses 20, the only allowed one is judged 40.
        let judging = [10.0, 20.0, 30.0, 40.0];
        assert_eq!(double_q_value(&Q, &judging, None), 20.0);
        assert_eq!(double_q_value(&Q, &judging, Some(&[false, false, false, true])), 40.0);
    }

    #[test]
    #[should_panic(expected = "allowed action")]
    fn a_mask_that_allows_nothing_is_refused() {
        greedy_action(&Q, Some(&[false; 4]));
    }

    #[test]
    fn the_epsilon_greedy_value_by_hand() {
        // ¾ · 3 + ¼ · 5/4; masked: ¾ · 1 + ¼ · (1 − 2)/2.
        assert_eq!(epsilon_greedy_value(&Q, None, 0.25), 2.25 + 0.3125);
        let mask = Some(&[true, false, false, true][..]);
        assert_eq!(epsilon_greedy_value(&Q, mask, 0.25), 0.75 - 0.125);
    }

    #[test]
    fn an_action_is_smoothed_and_kept_inside() {
        let bounds = (-1.0, 2.0);
        assert_eq!(smoothed_action(0.5, 0.25, 0.5, bounds), 0.75);
        assert_eq!(smoothed_action(0.5, -7.0, 0.5, bounds), 0.0);
        assert_eq!(smoothed_action(1.75, 7.0, 0.5, bounds), 2.0);
        assert_eq!(smoothed_action(-0.75, -7.0, 0.5, bounds), -1.0);
    }

    #[test]
    fn soft_values_by_hand() {
        assert_eq!(clipped_double_q(2.0, -1.0), -1.0);
        assert_eq!(clipped_double_q(-3.0, 5.0), -3.0);
        assert_eq!(soft_value(2.0, 0.5, -3.0), 3.5);
        // π = ¼, ¾, masked: ¼ (1 + ½ ln 4) + ¾ (−1 + ½ ln (4/3)).
        let log_probs = [0.25_f64.ln(), 0.75_f64.ln(), f64::NEG_INFINITY];
        let got = expected_soft_value(&log_probs, &[1.0, 2.0, 9.0], &[3.0, -1.0, 9.0], 0.5);
        let want = 0.25 * (1.0 + 0.5 * 4.0_f64.ln()) + 0.75 * (-1.0 + 0.5 * (4.0_f64 / 3.0).ln());
        assert!((got - want).abs() < 1e-15, "{got}, {want}");
    }

    #[test]
    fn the_gradient_of_the_soft_value_is_where_its_documentation_says() {
        use crate::distribution::{Categorical, Distribution};
        use cordada_testkit::gradient::assert_gradient;
        let pi = Distribution::Categorical(Categorical::new(3));
        let (logits, alpha, q2) = ([0.2, -0.4, 1.0], 0.3, [1.5, 0.5, -0.5]);
        let q1 = [2.0, -1.0, 0.0];
        let min_q = [1.5, -1.0, -0.5];
        let mut d = [0.0; 3];
        pi.fisher_product(&logits, None, &min_q, &mut d);
        pi.add_entropy_gradient(&logits, None, alpha, &mut d);
        assert_gradient("logits", &logits, &d, 1e-8, |l| {
            let log_probs = [0.0, 1.0, 2.0].map(|a| pi.log_prob(l, None, &[a]));
            expected_soft_value(&log_probs, &q1, &q2, alpha)
        });
    }

    #[test]
    fn the_largest_atoms_are_dropped() {
        let mut atoms = [4.0, -1.0, 7.0, 2.0, 2.0, 5.0];
        assert_eq!(truncated_atoms(&mut atoms, 2), [-1.0, 2.0, 2.0, 4.0]);
        assert_eq!(truncated_atoms(&mut atoms, 0).len(), 6);
    }
}
