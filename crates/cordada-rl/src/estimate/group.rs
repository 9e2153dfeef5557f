//! Advantages from a group of responses to one prompt, which are each other's baseline: no critic.
//!
//! Rewards are one number a response, `[B]`; the G responses to one prompt stand next to each
//! other. A reward of NaN means that the response could not be scored: it is left out of every mean
//! and standard deviation, and its advantage is 0. Sums run in `f64`.

use cordada_nn::Real;

use super::moments::mean_and_squares;

/// Added to a standard deviation before dividing by it.
const EPS: f64 = 1e-4;

/// What the difference between a reward and its group's mean is divided by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupScale {
    /// Nothing: Dr. GRPO, and the first step of REINFORCE++ with baseline.
    None,
    /// The standard deviation of the group: GRPO.
    Group,
    /// The standard deviation of all rewards of the batch.
    Batch,
    /// The mean of the group: MaxRL. For rewards that are 0 or 1; a group whose mean is not
    /// positive gets 0.
    Mean,
}

/// The rewards that are numbers.
fn scored<F: Real>(rewards: &[F]) -> impl Iterator<Item = f64> + Clone + '_ {
    rewards.iter().map(|r| r.f64()).filter(|r| !r.is_nan())
}

/// Mean, and standard deviation with n − 1; 0 with fewer than two numbers.
fn mean_and_std(xs: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let len = xs.clone().count();
    if len == 0 {
        return (0.0, 0.0);
    }
    let (mean, squares) = mean_and_squares(xs);
    (mean, if len < 2 { 0.0 } else { (squares / (len - 1) as f64).sqrt() })
}

fn check_groups(rewards: usize, group_size: usize, advantages: usize) {
    assert!(group_size > 0, "a group needs a response");
    assert!(
        rewards.is_multiple_of(group_size),
        "{rewards} rewards are not groups of {group_size} responses"
    );
    assert_eq!(advantages, rewards, "advantages have another length than rewards");
}

/// Whether the group teaches anything: whether two of its scored rewards differ. Without that every
/// advantage of the group is 0, and DAPO samples another prompt in its place.
///
/// # Source
///
/// "Dynamic sampling" of DAPO, Yu et al. 2025, arXiv:2503.14476, section 3.2.
pub fn has_signal<F: Real>(group: &[F]) -> bool {
    let mut rewards = scored(group);
    rewards.next().is_some_and(|first| rewards.any(|reward| reward != first))
}

/// Advantages of responses over the mean of their group.
///
/// ```text
/// A_i = (r_i − mean_g) / scale      scale = 1                GroupScale::None
///                                           std_g + 10⁻⁴     GroupScale::Group
///                                           std_B + 10⁻⁴     GroupScale::Batch
///                                           mean_g           GroupScale::Mean
/// ```
///
/// Standard deviations have n − 1. A group without [signal](has_signal) gets exactly 0.
///
/// # Shapes
///
/// `rewards`, `advantages`: `[B]` with B = prompts · `group_size`.
///
/// # Panics
///
/// If the lengths do not agree.
///
/// # Source
///
/// Shao et al. 2024, arXiv:2402.03300, section 4.1.2; Liu et al. 2025, arXiv:2503.20783 (None);
/// Tajwar et al. 2026, arXiv:2602.02710, algorithm 1 (Mean). 10⁻⁴ and n − 1 as in TRL.
pub fn group_advantages<F: Real>(
    rewards: &[F],
    group_size: usize,
    scale: GroupScale,
    advantages: &mut [F],
) {
    check_groups(rewards.len(), group_size, advantages.len());
    let (_, batch_std) = mean_and_std(scored(rewards));
    let groups = rewards.chunks_exact(group_size).zip(advantages.chunks_exact_mut(group_size));
    for (rewards, advantages) in groups {
        let (mean, std) = mean_and_std(scored(rewards));
        let factor = match scale {
            // Rounding in the mean must not look like a difference between equal rewards.
            _ if !has_signal(rewards) => 0.0,
            GroupScale::None => 1.0,
            GroupScale::Group => 1.0 / (std + EPS),
            GroupScale::Batch => 1.0 / (batch_std + EPS),
            GroupScale::Mean if mean > 0.0 => 1.0 / mean,
            GroupScale::Mean => 0.0,
        };
        for (advantage, &reward) in advantages.iter_mut().zip(rewards) {
            let reward = reward.f64();
            *advantage = F::of(if reward.is_nan() { 0.0 } else { (reward - mean) * factor });
        }
    }
}

/// What is done to advantages over the whole batch at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdvantageNorm {
    /// Nothing.
    None,
    /// `(A − mean_B) / (std_B + 10⁻⁴)`, over the responses that have an advantage.
    Batch,
}

/// Ends a computation in which NaN marks a response without an advantage: it becomes 0.
fn finish<F: Real>(norm: AdvantageNorm, advantages: &mut [F]) {
    let (mean, factor) = match norm {
        AdvantageNorm::None => (0.0, 1.0),
        AdvantageNorm::Batch => {
            let (mean, std) = mean_and_std(scored(advantages));
            (mean, 1.0 / (std + EPS))
        }
    };
    for advantage in advantages {
        let a = advantage.f64();
        *advantage = F::of(if a.is_nan() { 0.0 } else { (a - mean) * factor });
    }
}

/// Advantages over the mean of the *other* responses to the prompt (RLOO).
///
/// ```text
/// A_i = r_i − 1/(n−1) Σ_{j≠i} r_j = n/(n−1) (r_i − mean_g)
/// ```
///
/// n is the number of scored responses of the group. A response that has no other scored one to be
/// compared with gets 0, and does not count in the batch's mean and standard deviation.
///
/// # Shapes
///
/// `rewards`, `advantages`: `[B]` with B = prompts · `group_size`.
///
/// # Panics
///
/// If the lengths do not agree.
///
/// # Source
///
/// Kool et al. 2019, "Buy 4 REINFORCE Samples, Get a Baseline for Free!"; Ahmadian et al. 2024,
/// arXiv:2402.14740; the norm as in TRL.
pub fn leave_one_out_advantages<F: Real>(
    rewards: &[F],
    group_size: usize,
    norm: AdvantageNorm,
    advantages: &mut [F],
) {
    check_groups(rewards.len(), group_size, advantages.len());
    let groups = rewards.chunks_exact(group_size).zip(advantages.chunks_exact_mut(group_size));
    for (rewards, advantages) in groups {
        let (mean, _) = mean_and_std(scored(rewards));
        let n = scored(rewards).count() as f64;
        let factor = match n {
            ..2.0 => f64::NAN,
            _ if !has_signal(rewards) => 0.0,
            _ => n / (n - 1.0),
        };
        for (advantage, &reward) in advantages.iter_mut().zip(rewards) {
            // NaN where the reward is NaN.
            *advantage = F::of((reward.f64() - mean) * factor);
        }
    }
    finish(norm, advantages);
}

/// How several rewards of a response become one advantage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RewardAggregation {
    /// The weighted sum of the rewards, then [`GroupScale::Group`]: a reward that varies more
    /// counts more.
    SumThenNormalize,
    /// Each reward as by [`GroupScale::Group`], then their weighted sum, then
    /// [`AdvantageNorm::Batch`]: GDPO.
    NormalizeThenSum,
}

/// Group advantages from K weighted rewards of each response.
///
/// A reward of NaN has no part in a response's sum; a response without any reward gets 0.
///
/// # Shapes
///
/// `rewards`: `[B, K]`, `weights`: `[K]`, `advantages`: `[B]` with B = prompts · `group_size`.
///
/// # Panics
///
/// If the lengths do not agree.
///
/// # Source
///
/// Liu et al. 2026, arXiv:2601.05242 (GDPO), with TRL's weights.
pub fn multi_reward_advantages<F: Real>(
    rewards: &[F],
    weights: &[F],
    group_size: usize,
    aggregation: RewardAggregation,
    advantages: &mut [F],
) {
    let k = weights.len();
    assert_eq!(rewards.len(), advantages.len() * k, "rewards are not [B, K]");
    check_groups(advantages.len(), group_size, advantages.len());
    advantages.fill(F::of(f64::NAN));
    let add = |sum: &mut F, term: f64| {
        if !term.is_nan() {
            *sum = F::of(term + if sum.f64().is_nan() { 0.0 } else { sum.f64() });
        }
    };
    let groups = rewards.chunks_exact(group_size * k);
    for (rewards, sums) in groups.zip(advantages.chunks_exact_mut(group_size)) {
        for (k, weight) in weights.iter().enumerate() {
            let column = rewards.iter().skip(k).step_by(weights.len()).map(|r| r.f64());
            let (mean, factor) = match aggregation {
                RewardAggregation::SumThenNormalize => (0.0, 1.0),
                RewardAggregation::NormalizeThenSum => {
                    let (mean, std) = mean_and_std(column.clone().filter(|r| !r.is_nan()));
                    (mean, 1.0 / (std + EPS))
                }
            };
            for (sum, reward) in sums.iter_mut().zip(column) {
                add(sum, weight.f64() * (reward - mean) * factor);
            }
        }
    }
    match aggregation {
        RewardAggregation::NormalizeThenSum => finish(AdvantageNorm::Batch, advantages),
        RewardAggregation::SumThenNormalize => {
            for sums in advantages.chunks_exact_mut(group_size) {
                let (mean, std) = mean_and_std(scored(sums));
                let factor = if has_signal(sums) { 1.0 / (std + EPS) } else { 0.0 };
                for sum in sums {
                    *sum = F::of((sum.f64() - mean) * factor);
                }
            }
            finish(AdvantageNorm::None, advantages);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAN: f64 = f64::NAN;

    fn close(got: &[f64], want: &[f64]) {
        assert_eq!(got.len(), want.len());
        for (g, w) in got.iter().zip(want) {
            assert!((g - w).abs() < 1e-12, "{got:?}, expected {want:?}");
        }
    }

    fn of(rewards: &[f64], group_size: usize, scale: GroupScale) -> Vec<f64> {
        let mut advantages = vec![9.0; rewards.len()];
        group_advantages(rewards, group_size, scale, &mut advantages);
        advantages
    }

    #[test]
    fn scales_by_hand() {
        // Groups 1, 2, 3 (mean 2, variance 1) and 0, 0, 3 (mean 1, variance (1 + 1 + 4)/2 = 3).
        let rewards = [1.0, 2.0, 3.0, 0.0, 0.0, 3.0];
        close(&of(&rewards, 3, GroupScale::None), &[-1.0, 0.0, 1.0, -1.0, -1.0, 2.0]);
        let (a, b) = (1.0 / 1.0001, 1.0 / (3.0_f64.sqrt() + 1e-4));
        close(&of(&rewards, 3, GroupScale::Group), &[-a, 0.0, a, -b, -b, 2.0 * b]);
        // All six: mean 1½, squares ¼ + ¼ + 2¼ + 2¼ + 2¼ + 2¼ = 9½, variance 1.9.
        let c = 1.0 / (1.9_f64.sqrt() + 1e-4);
        close(&of(&rewards, 3, GroupScale::Batch), &[-c, 0.0, c, -c, -c, 2.0 * c]);
        close(&of(&rewards, 3, GroupScale::Mean), &[-0.5, 0.0, 0.5, -1.0, -1.0, 2.0]);
        close(&of(&[0.0, 0.0, -1.0], 3, GroupScale::Mean), &[0.0; 3]);
    }

    #[test]
    fn unscored_responses_are_left_out() {
        let rewards = [NAN, 1.0, 3.0, NAN, NAN, 7.0];
        close(&of(&rewards, 3, GroupScale::None), &[0.0, -1.0, 1.0, 0.0, 0.0, 0.0]);
        // 1, 3: variance 2. The lone 7 has nothing to be compared with.
        let a = 1.0 / (2.0_f64.sqrt() + 1e-4);
        close(&of(&rewards, 3, GroupScale::Group), &[0.0, -a, a, 0.0, 0.0, 0.0]);
        close(&of(&[NAN; 2], 2, GroupScale::Batch), &[0.0; 2]);
    }

    #[test]
    fn equal_rewards_give_exactly_zero() {
        // The mean of 0.1 seven times is not 0.1 in floating-point numbers.
        for scale in [GroupScale::None, GroupScale::Group, GroupScale::Batch, GroupScale::Mean] {
            assert_eq!(of(&[0.1; 7], 7, scale), [0.0; 7], "{scale:?}");
        }
        let mut advantages = [9.0; 7];
        leave_one_out_advantages(&[0.1; 7], 7, AdvantageNorm::None, &mut advantages);
        assert_eq!(advantages, [0.0; 7]);
        assert!(!has_signal(&[0.1; 7]) && !has_signal(&[NAN, 1.0]) && !has_signal::<f64>(&[]));
        assert!(has_signal(&[NAN, 1.0, 2.0]));
    }

    #[test]
    fn leaving_one_out_by_hand() {
        // 1 − (2 + 6)/2, 2 − (1 + 6)/2, 6 − (1 + 2)/2.
        let mut advantages = [9.0; 3];
        leave_one_out_advantages(&[1.0, 2.0, 6.0], 3, AdvantageNorm::None, &mut advantages);
        close(&advantages, &[-3.0, -1.5, 4.5]);
        // Group 0, 2: ∓2. The lone 5 has no advantage: mean 0, variance 8 over two, not three.
        let mut advantages = [9.0; 4];
        let rewards = [0.0, 2.0, NAN, 5.0];
        leave_one_out_advantages(&rewards, 2, AdvantageNorm::Batch, &mut advantages);
        let a = 2.0 / (8.0_f64.sqrt() + 1e-4);
        close(&advantages, &[-a, a, 0.0, 0.0]);
    }

    #[test]
    fn several_rewards_by_hand() {
        // Two responses, rewards (0, 10) and (2, 10), weights 1 and ½: sums 5, 7, std √2.
        let (rewards, weights) = ([0.0, 10.0, 2.0, 10.0], [1.0, 0.5]);
        let mut advantages = [9.0; 2];
        let sum_first = RewardAggregation::SumThenNormalize;
        multi_reward_advantages(&rewards, &weights, 2, sum_first, &mut advantages);
        let a = 1.0 / (2.0_f64.sqrt() + 1e-4);
        close(&advantages, &[-a, a]);
        // Normalized: (∓a, 0), sums ∓a of std a √2, then over the batch.
        let sum_last = RewardAggregation::NormalizeThenSum;
        multi_reward_advantages(&rewards, &weights, 2, sum_last, &mut advantages);
        let b = a / (a * 2.0_f64.sqrt() + 1e-4);
        close(&advantages, &[-b, b]);
        // Without its second reward, the first response has 0; without both, no part at all.
        let rewards = [0.0, NAN, 2.0, 10.0, NAN, NAN];
        let mut advantages = [9.0; 3];
        multi_reward_advantages(&rewards, &weights, 3, sum_first, &mut advantages);
        // Sums 0, 7: mean 3½, std 7/√2.
        let c = 3.5 / (7.0 / 2.0_f64.sqrt() + 1e-4);
        close(&advantages, &[-c, c, 0.0]);
    }

    #[test]
    #[should_panic(expected = "5 rewards are not groups of 2")]
    fn refuses_a_part_of_a_group() {
        of(&[0.0; 5], 2, GroupScale::None);
    }
}
