//! From scores of responses to an advantage for every token.

use cordada_env::Outcome;
use cordada_rl::estimate::{
    AdvantageNorm, GroupScale, Segment, Whitening, gae, group_advantages, has_signal,
    leave_one_out_advantages, response_outcomes, reward_to_go, token_rewards,
};

use super::method::AlignSettings;

/// Weight of the newest batch in the moving average that `baseline` compares with.
const BASELINE_STEP: f64 = 0.1;

/// The responses of one step, ragged: token arrays hold all responses one after another.
#[derive(Clone, Debug, Default)]
pub(crate) struct Responses {
    /// Number of tokens of each.
    pub(crate) lengths: Vec<usize>,
    /// Score of each; NaN where it could not be scored.
    pub(crate) scores: Vec<f32>,
    /// ln π at sampling.
    pub(crate) old_log_prob: Vec<f32>,
    /// ln π of the reference; empty without a KL.
    pub(crate) ref_log_prob: Vec<f32>,
    /// ln π of the reference over all tokens, `[tokens, V]`; empty without the exact KL.
    pub(crate) ref_distributions: Vec<f32>,
    /// Values at sampling; empty without a critic.
    pub(crate) values: Vec<f32>,
}

/// What a step learns from, `[tokens]` each.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Advantages {
    pub(crate) advantages: Vec<f32>,
    /// Targets of the value; empty without a critic.
    pub(crate) returns: Vec<f32>,
}

/// Mean of the scores seen so far, which REINFORCE compares with.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Baseline {
    mean: f64,
    batches: u64,
}

impl Baseline {
    pub(crate) fn state(self) -> (f64, u64) {
        (self.mean, self.batches)
    }

    pub(crate) fn restore(mean: f64, batches: u64) -> Self {
        Self { mean, batches }
    }

    /// The average before this batch (its own mean, if it is the first), and the one after it.
    fn next(self, scores: &[f32]) -> (f64, Self) {
        let scored: Vec<f64> =
            scores.iter().filter(|s| !s.is_nan()).map(|&s| f64::from(s)).collect();
        if scored.is_empty() {
            return (self.mean, self);
        }
        let mean = scored.iter().sum::<f64>() / scored.len() as f64;
        let before = if self.batches == 0 { mean } else { self.mean };
        let after = before + BASELINE_STEP * (mean - before);
        (before, Self { mean: after, batches: self.batches + 1 })
    }
}

impl Responses {
    /// First token of each response, and the number of all.
    pub(crate) fn starts(&self) -> Vec<usize> {
        let mut starts = vec![0];
        for &length in &self.lengths {
            starts.push(starts[starts.len() - 1] + length);
        }
        starts
    }

    /// The reference's distributions of some responses' tokens.
    pub(crate) fn distributions_of(&self, responses: &[usize], starts: &[usize]) -> Vec<f32> {
        let vocabulary = self.ref_distributions.len() / self.old_log_prob.len().max(1);
        let of = |&i: &usize| {
            &self.ref_distributions[starts[i] * vocabulary..starts[i + 1] * vocabulary]
        };
        responses.iter().flat_map(of).copied().collect()
    }

    /// k1 of every token: ln π_old − ln π_ref.
    pub(crate) fn kl(&self) -> Vec<f32> {
        self.old_log_prob.iter().zip(&self.ref_log_prob).map(|(o, r)| o - r).collect()
    }

    /// Estimate of each response's KL to the reference: the sum of its tokens' k1.
    pub(crate) fn kl_per_response(&self) -> Vec<f64> {
        let kl = self.kl();
        let mut rest = &kl[..];
        let mut sum = |&length: &usize| {
            let (response, after) = rest.split_at(length);
            rest = after;
            response.iter().map(|&k| f64::from(k)).sum()
        };
        if kl.is_empty() { Vec::new() } else { self.lengths.iter().map(&mut sum).collect() }
    }

    /// Share of groups whose scores are all the same: they teach nothing.
    pub(crate) fn share_without_signal(&self, group_size: usize) -> f64 {
        let groups = self.scores.chunks(group_size);
        let total = groups.len();
        groups.filter(|g| !has_signal(g)).count() as f64 / total as f64
    }

    /// Rewards of every token: −β k1, and the score at the last one. An unscored response gets
    /// nothing but the first part.
    fn token_rewards(&self, beta: f32) -> Vec<f32> {
        let kl = self.kl();
        let mut rewards = vec![0.0; self.old_log_prob.len()];
        let mut start = 0;
        for (&length, &score) in self.lengths.iter().zip(&self.scores) {
            let range = start..start + length;
            start += length;
            let zeros = vec![0.0; if kl.is_empty() { length } else { 0 }];
            let kl = kl.get(range.clone()).unwrap_or(&zeros);
            let score = if score.is_nan() { 0.0 } else { score };
            token_rewards(kl, beta, score, &mut rewards[range]);
        }
        rewards
    }

    /// Scores with the KL of the whole response taken off.
    fn penalized(&self, beta: f64) -> Vec<f32> {
        let kl = self.kl_per_response();
        let kl = |i: usize| kl.get(i).copied().unwrap_or(0.0);
        let scores = self.scores.iter().enumerate();
        scores.map(|(i, &s)| (f64::from(s) - beta * kl(i)) as f32).collect()
    }

    /// Advantages of all tokens, by the settings. `beta` is the present coefficient of the KL.
    pub(crate) fn advantages(
        &self,
        settings: &AlignSettings,
        beta: f64,
        baseline: &mut Baseline,
    ) -> Advantages {
        let beta = if settings.kl_in == "reward" { beta } else { 0.0 };
        let g = settings.group_size;
        let scores = || self.penalized(beta);
        let mut of_response = vec![0.0_f32; self.scores.len()];
        match settings.advantage.as_str() {
            "gae" => return self.gae(settings, beta),
            "whitened" => return self.whitened(settings, beta),
            "leave_one_out" => {
                leave_one_out_advantages(&scores(), g, AdvantageNorm::None, &mut of_response);
            }
            "baseline" => {
                let scores = scores();
                let (mean, next) = baseline.next(&scores);
                *baseline = next;
                for (a, s) in of_response.iter_mut().zip(scores) {
                    *a = if s.is_nan() { 0.0 } else { s - mean as f32 };
                }
            }
            name => {
                let scale = match name {
                    "group" => GroupScale::Group,
                    "batch" => GroupScale::Batch,
                    _ => GroupScale::None,
                };
                group_advantages(&scores(), g, scale, &mut of_response);
            }
        }
        let mut advantages = Vec::with_capacity(self.old_log_prob.len());
        for (&a, &length) in of_response.iter().zip(&self.lengths) {
            advantages.extend(std::iter::repeat_n(a, length));
        }
        if settings.advantage == "centered_whitened" {
            Whitening::ADVANTAGES.apply(&mut advantages, None);
        }
        Advantages { advantages, returns: Vec::new() }
    }

    /// REINFORCE++: the discounted sum of later token rewards, whitened over the batch.
    fn whitened(&self, settings: &AlignSettings, beta: f64) -> Advantages {
        let rewards = self.token_rewards(beta as f32);
        let outcomes = self.outcomes();
        let zeros = vec![0.0; rewards.len()];
        let mut advantages = vec![0.0; rewards.len()];
        let segment = segment(&rewards, &zeros, &outcomes);
        reward_to_go(&segment, settings.gamma as f32, &mut advantages);
        Whitening::ADVANTAGES.apply(&mut advantages, None);
        self.drop_unscored(&mut advantages);
        Advantages { advantages, returns: Vec::new() }
    }

    /// PPO: generalized advantage estimates over the tokens, whitened; returns before that.
    fn gae(&self, settings: &AlignSettings, beta: f64) -> Advantages {
        let rewards = self.token_rewards(beta as f32);
        let outcomes = self.outcomes();
        let mut advantages = vec![0.0; rewards.len()];
        let mut returns = vec![0.0; rewards.len()];
        let segment = segment(&rewards, &self.values, &outcomes);
        let (gamma, lambda) = (settings.gamma as f32, settings.gae_lambda as f32);
        gae(&segment, gamma, lambda, &mut advantages, &mut returns);
        Whitening::ADVANTAGES.apply(&mut advantages, None);
        self.drop_unscored(&mut advantages);
        Advantages { advantages, returns }
    }

    fn outcomes(&self) -> Vec<Outcome> {
        let mut outcomes = vec![Outcome::Continue; self.old_log_prob.len()];
        response_outcomes(&self.lengths, &mut outcomes);
        outcomes
    }

    /// A response without a score teaches nothing.
    fn drop_unscored(&self, advantages: &mut [f32]) {
        let mut rest = advantages;
        for (&length, score) in self.lengths.iter().zip(&self.scores) {
            let (response, after) = rest.split_at_mut(length);
            rest = after;
            if score.is_nan() {
                response.fill(0.0);
            }
        }
    }
}

/// All responses as one environment's segment; every one ends with a termination.
fn segment<'a>(rewards: &'a [f32], values: &'a [f32], outcomes: &'a [Outcome]) -> Segment<'a, f32> {
    Segment { num_envs: 1, rewards, values, outcomes, final_values: values, last_values: &[0.0] }
}

#[cfg(test)]
mod tests {
    use toml::Table;

    use super::*;
    use crate::train::method::Method;

    /// Two prompts with two responses each, of 2, 1, 1 and 2 tokens.
    fn responses() -> Responses {
        Responses {
            lengths: vec![2, 1, 1, 2],
            scores: vec![1.0, 0.0, 2.0, 4.0],
            old_log_prob: vec![-1.0; 6],
            ref_log_prob: vec![-2.0, -1.0, -1.0, -1.0, -1.0, -1.0],
            ref_distributions: (0..12).map(|i| i as f32).collect(),
            values: vec![0.5; 6],
        }
    }

    fn advantages(method: &str, changes: &str, baseline: &mut Baseline) -> Advantages {
        let changes: Table = toml::from_str(changes).unwrap();
        let settings = Method::find(method).unwrap().settings(&changes).unwrap();
        responses().advantages(&settings, settings.kl_coef, baseline)
    }

    #[test]
    fn distributions_follow_their_responses() {
        let r = responses();
        let starts = r.starts();
        assert_eq!(starts, [0, 2, 3, 4, 6]);
        assert_eq!(r.distributions_of(&[3, 1], &starts), [8.0, 9.0, 10.0, 11.0, 4.0, 5.0]);
        assert!(Responses::default().distributions_of(&[], &[0]).is_empty());
    }

    #[test]
    fn scores_become_advantages_of_tokens() {
        let none = &mut Baseline::default();
        // Means ½ and 3.
        let got = advantages("dr_grpo", "group_size = 2", none).advantages;
        assert_eq!(got, [0.5, 0.5, -0.5, -1.0, 1.0, 1.0]);
        // β = ½ takes ½ off the first response's score of 1: the rest is twice the difference.
        let got = advantages("rloo", "group_size = 2\nkl_coef = 0.5", none).advantages;
        assert_eq!(got, [0.5, 0.5, -0.5, -2.0, 2.0, 2.0]);
    }

    #[test]
    fn the_moving_average_starts_at_the_first_mean() {
        let mut baseline = Baseline::default();
        let got = advantages("reinforce", "kl_coef = 0.0", &mut baseline).advantages;
        // Mean 7/4.
        assert_eq!(got, [-0.75, -0.75, -1.75, 0.25, 2.25, 2.25]);
        assert_eq!(baseline.state(), (1.75, 1));
        baseline = Baseline::restore(0.0, 3);
        let got = advantages("reinforce", "kl_coef = 0.0", &mut baseline).advantages;
        assert_eq!(got[0], 1.0);
        let (mean, batches) = baseline.state();
        assert!((mean - 0.175).abs() < 1e-12 && batches == 4, "{mean}, {batches}");
    }

    #[test]
    fn returns_of_ppo_by_hand() {
        // γ = λ = 1: advantages before whitening are the sums of later rewards minus V = ½, so
        // returns are those sums; the first token's KL of 1 costs β = ½.
        let got = advantages("ppo", "gae_lambda = 1.0\nkl_coef = 0.5", &mut Baseline::default());
        assert_eq!(got.returns, [0.5, 1.0, 0.0, 2.0, 4.0, 4.0]);
        let mean: f32 = got.advantages.iter().sum::<f32>() / 6.0;
        let var: f32 = got.advantages.iter().map(|a| (a - mean).powi(2)).sum::<f32>() / 5.0;
        assert!(mean.abs() < 1e-6 && (var - 1.0).abs() < 1e-5, "{got:?}");
    }

    #[test]
    fn an_unscored_response_teaches_nothing() {
        let mut r = responses();
        r.scores[3] = f32::NAN;
        for name in ["ppo", "reinforce_pp", "reinforce", "rloo", "grpo", "reinforce_pp_baseline"] {
            let changes = toml::from_str("group_size = 2").unwrap();
            let settings = Method::find(name).unwrap().settings(&changes).unwrap();
            let got = r.advantages(&settings, 0.1, &mut Baseline::default()).advantages;
            assert!(got.iter().all(|a| a.is_finite()), "{name}: {got:?}");
            if name != "reinforce_pp_baseline" {
                assert_eq!(got[4..], [0.0, 0.0], "{name}");
            }
        }
        assert_eq!(r.share_without_signal(2), 0.5);
    }
}
