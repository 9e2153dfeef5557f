//! Estimators: from rewards, values and episode ends to what an objective weights its gradient
//! with. Pure functions on slices; they know no network, no configuration and no rollout.
//!
//! All arrays of a segment are time-major, `[T, N]`: step t of environment n is element
//! `t · N + n`. Time is indexed as by Schulman et al.: `r_t` follows `a_t`, taken in `s_t`.
//!
//! The end of an episode is never a boolean here. The value of the successor s'_t is
//!
//! ```text
//! V(s'_t) = 0                  Terminated: nothing follows
//!           final_values_t     Truncated: the episode was cut, its true last observation counts
//!           values_{t+1}       Continue, inside the segment
//!           last_values        Continue, at the segment's last step
//! ```
//!
//! and both kinds of end stop a recursion, for the next row belongs to another episode.
//!
//! Responses of a language model are episodes whose steps are tokens. Their arrays are ragged: the
//! tokens of all responses one after another, with a list of lengths and no padding. Such an array
//! is a [`Segment`] of one environment, so [`gae`] and the returns serve tokens as they are, with
//! outcomes from [`response_outcomes`].

mod categorical_projection;
mod episode;
mod gae;
mod group;
pub mod kl;
mod moments;
mod returns;
pub mod td_target;
mod token;
mod token_reward;
mod vtrace;
mod whiten;

use cordada_env::Outcome;
use cordada_nn::Real;

pub use categorical_projection::Support;
pub use episode::{EpisodeStats, episode_stats};
pub use gae::gae;
pub use group::{
    AdvantageNorm, GroupScale, RewardAggregation, group_advantages, has_signal,
    leave_one_out_advantages, multi_reward_advantages,
};
pub use moments::{Standardizer, explained_variance, normalize_advantages};
pub use returns::{discounted_returns, n_step_returns, reward_to_go, td_lambda_returns};
pub use token::{Completion, completion, completion_mask, per_token, response_outcomes};
pub use token_reward::{soft_overlong_penalty, token_rewards};
pub use vtrace::{VtraceConfig, vtrace};
pub use whiten::{Center, Denominator, Whitening};

/// A stretch of T steps in N environments, which episodes may begin, end or cross.
///
/// # Shapes
///
/// `rewards`, `values`, `outcomes`, `final_values`: `[T, N]`; `last_values`: `[N]`.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a, F> {
    /// Number of environments N.
    pub num_envs: usize,
    /// `r_t`
    pub rewards: &'a [F],
    /// `V(s_t)`
    pub values: &'a [F],
    /// Whether and how the episode ended at step t.
    pub outcomes: &'a [Outcome],
    /// V of the episode's true last observation. Read only where the outcome is `Truncated`;
    /// anything, even NaN, may stand elsewhere.
    pub final_values: &'a [F],
    /// V of the observation after the segment.
    pub last_values: &'a [F],
}

impl<F: Real> Segment<'_, F> {
    /// Number of steps T.
    ///
    /// # Panics
    ///
    /// If the lengths of the arrays do not agree.
    pub fn num_steps(&self) -> usize {
        let len = self.rewards.len();
        assert!(self.num_envs > 0, "a segment needs an environment");
        assert_eq!(len % self.num_envs, 0, "rewards are not [T, N]");
        assert_eq!(self.values.len(), len, "values have another shape than rewards");
        assert_eq!(self.outcomes.len(), len, "outcomes have another shape than rewards");
        assert_eq!(self.final_values.len(), len, "final_values have another shape than rewards");
        assert_eq!(self.last_values.len(), self.num_envs, "last_values are not [N]");
        len / self.num_envs
    }

    /// V(s'_i) of step `i = t · N + n`, as the module's table has it.
    ///
    /// A branch, not a product with a flag: where the outcome says nothing of it, `final_values`
    /// may be NaN.
    #[inline(always)]
    fn next_value(&self, i: usize) -> F {
        match self.outcomes[i] {
            Outcome::Terminated => F::ZERO,
            Outcome::Truncated => self.final_values[i],
            Outcome::Continue => match self.values.get(i + self.num_envs) {
                Some(&value) => value,
                None => self.last_values[i + self.num_envs - self.values.len()],
            },
        }
    }

    /// Whether step i + N continues the episode of step i inside the segment.
    #[inline(always)]
    fn continues(&self, i: usize) -> bool {
        !self.outcomes[i].ended() && i + self.num_envs < self.outcomes.len()
    }
}

#[cfg(test)]
pub(crate) mod check_value {
    //! The check value that every estimator's hand test uses.

    use cordada_env::Outcome::{self, Continue};

    use super::Segment;

    pub(crate) const REWARDS: [f64; 3] = [1.0, 2.0, 3.0];
    pub(crate) const VALUES: [f64; 3] = [2.0, 1.0, 0.0];
    /// V' = 1, 4, 1: the first equals the second value, the last is the bootstrap.
    pub(crate) const FINAL_VALUES: [f64; 3] = [f64::NAN, 4.0, f64::NAN];

    /// Three steps of one environment; the second ends as `end` says.
    pub(crate) fn outcomes(end: Outcome) -> [Outcome; 3] {
        [Continue, end, Continue]
    }

    pub(crate) fn segment(outcomes: &[Outcome]) -> Segment<'_, f64> {
        Segment {
            num_envs: 1,
            rewards: &REWARDS,
            values: &VALUES,
            outcomes,
            final_values: &FINAL_VALUES,
            last_values: &[1.0],
        }
    }
}
