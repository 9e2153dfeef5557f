//! Advantages and policy losses without a critic, and their gradients, against TRL's own functions
//! and transcriptions of the papers: the family `grpo` of the golden data.
//!
//! Losses there are minus our objectives.

mod rows;

use cordada_rl::distribution::{Categorical, Distribution};
use cordada_rl::estimate::kl::KlEstimator;
use cordada_rl::estimate::{
    AdvantageNorm, GroupScale, RewardAggregation, Whitening, discounted_returns, group_advantages,
    leave_one_out_advantages, multi_reward_advantages, soft_overlong_penalty,
};
use cordada_rl::objective::{
    Aggregation, ClipRange, SapoTemperature, SequenceRatio, Surrogate, cispo, clipped_surrogate,
    dual_clipped_surrogate, kl_loss, policy_gradient, sapo, sequence_surrogate,
    sequence_token_surrogate,
};
use cordada_testkit::golden::{self, Case};

use rows::{Rows, estimates, mean};

#[test]
fn golden_grpo() {
    for case in golden::llm_family("grpo") {
        match case.name.as_str() {
            "group_advantages" | "group_advantages_unscorable" => advantages_of_groups(&case),
            "rloo_advantages" | "rloo_advantages_unscorable" => leave_one_out(&case),
            "multi_reward_advantages" => multi_reward(&case),
            "grpo"
            | "grpo_kl"
            | "grpo_empty_completion"
            | "grpo_on_policy"
            | "grpo_token_mean"
            | "dr_grpo"
            | "dapo"
            | "dapo_far"
            | "grpo_two_sided"
            | "cispo"
            | "sapo" => token_level(&case),
            "gspo" | "gspo_wide" => sequence_level(&case),
            "gspo_token" => gspo_token(&case),
            "rloo_loss" => rloo_loss(&case),
            "rloo_kl_in_reward" => rloo_kl_in_reward(&case),
            "reinforce_pp" => reinforce_plus_plus(&case),
            "reinforce_pp_baseline" => reinforce_plus_plus_baseline(&case),
            "sequence_reinforce_logits" => sequence_reinforce(&case),
            "soft_overlong" => soft_overlong(&case),
            other => panic!("no test for the case {other}"),
        }
    }
}

fn advantages_of_groups(case: &Case) {
    let rewards = &case.tensor("input/rewards").data;
    let scales =
        [("group", GroupScale::Group), ("none", GroupScale::None), ("batch", GroupScale::Batch)];
    for (name, scale) in scales {
        let mut advantages = vec![9.0; rewards.len()];
        group_advantages(rewards, case.param("G") as usize, scale, &mut advantages);
        case.check(&format!("output/{name}"), &advantages);
    }
}

fn leave_one_out(case: &Case) {
    let rewards = &case.tensor("input/rewards").data;
    for (name, norm) in [("advantages", AdvantageNorm::None), ("normalized", AdvantageNorm::Batch)]
    {
        let mut advantages = vec![9.0; rewards.len()];
        leave_one_out_advantages(rewards, case.param("G") as usize, norm, &mut advantages);
        case.check(&format!("output/{name}"), &advantages);
    }
}

fn multi_reward(case: &Case) {
    let rewards = case.tensor("input/rewards");
    let weights: Vec<f64> = case.params["weights"]
        .as_array()
        .expect("weights")
        .iter()
        .map(|w| w.as_f64().expect("a weight"))
        .collect();
    let aggregations = [
        ("sum_then_normalize", RewardAggregation::SumThenNormalize),
        ("normalize_then_sum", RewardAggregation::NormalizeThenSum),
    ];
    for (name, aggregation) in aggregations {
        let mut advantages = vec![9.0; rewards.shape[0]];
        let group_size = case.param("G") as usize;
        multi_reward_advantages(&rewards.data, &weights, group_size, aggregation, &mut advantages);
        case.check(&format!("output/{name}"), &advantages);
    }
}

fn clip_range(case: &Case) -> ClipRange<f64> {
    ClipRange::asymmetric(case.param("epsilon_low"), case.param("epsilon_high"))
}

/// The part of β KL to the reference, where the case has one: its loss, and its gradient added.
fn add_kl(case: &Case, rows: &Rows, weights: &[f64], d: &mut [f64]) -> f64 {
    let beta = case.param("beta");
    if beta == 0.0 {
        return 0.0;
    }
    let (new, reference) = (rows.pack(case, "log_probs"), rows.pack(case, "ref_log_probs"));
    let terms: Vec<_> =
        new.iter().zip(&reference).map(|(&p, &r)| kl_loss(KlEstimator::K3, p, r)).collect();
    case.check("output/kl", &[mean(terms.iter().map(|t| t.kl))]);
    for (d, (term, w)) in d.iter_mut().zip(terms.iter().zip(weights)) {
        *d += beta * w * term.d_log_prob;
    }
    beta * terms.iter().zip(weights).map(|(t, w)| w * t.kl).sum::<f64>()
}

/// Fractions of the terms whose gradient the clip took away, below and above.
fn check_clip_fractions(case: &Case, terms: &[(Surrogate<f64>, f64)]) {
    if !case.has("output/clip_ratio_region_mean") {
        return;
    }
    let held = |low: bool| {
        mean(terms.iter().map(|(term, advantage)| {
            f64::from(
                term.clipped && *advantage != 0.0 && term.psi == 0.0 && (*advantage < 0.0) == low,
            )
        }))
    };
    let (low, high) = (held(true), held(false));
    case.check("output/clip_ratio_low_mean", &[low]);
    case.check("output/clip_ratio_high_mean", &[high]);
    case.check("output/clip_ratio_region_mean", &[low + high]);
}

fn token_level(case: &Case) {
    let rows = Rows::of(case);
    let (new, old) = (rows.pack(case, "log_probs"), rows.pack(case, "old_log_probs"));
    let advantages = rows.spread(&case.tensor("input/advantages").data);
    let aggregation = match case.params["loss_type"].as_str() {
        Some("grpo" | "sapo") => Aggregation::SequenceMean,
        Some("bnpo" | "dapo" | "cispo") => Aggregation::TokenMean,
        Some("dr_grpo") => {
            Aggregation::Constant { max_length: case.param("max_completion_length") as usize }
        }
        other => panic!("{}: loss type {other:?}", case.name),
    };
    let term = |i: usize| {
        let (new, old, advantage) = (new[i], old[i], advantages[i]);
        match (case.name.as_str(), case.opt_param("delta")) {
            ("cispo", _) => cispo(new, old, advantage, case.param("epsilon_high")),
            ("sapo", _) => sapo(new, old, advantage, SapoTemperature::default()),
            (_, Some(delta)) => {
                dual_clipped_surrogate(new, old, advantage, clip_range(case), delta)
            }
            (_, None) => clipped_surrogate(new, old, advantage, clip_range(case)),
        }
    };
    let terms: Vec<_> = (0..new.len()).map(|i| (term(i), advantages[i])).collect();
    check_clip_fractions(case, &terms);
    let weights = rows.weights(aggregation);
    let mut d: Vec<f64> = terms.iter().zip(&weights).map(|((t, _), w)| -w * t.psi).collect();
    let objective: f64 = terms.iter().zip(&weights).map(|((t, _), w)| w * t.objective).sum();
    let kl = add_kl(case, &rows, &weights, &mut d);
    case.check("output/loss", &[kl - objective]);
    rows.check(case, "grad/log_probs", &d);
}

/// The mean over responses of [`sequence_surrogate`].
struct SequenceTerms {
    /// Terms with their advantages.
    terms: Vec<(Surrogate<f64>, f64)>,
    loss: f64,
    /// ∂ loss / ∂ log π of each token.
    d: Vec<f64>,
}

fn sequence_terms(
    case: &Case,
    rows: &Rows,
    kind: SequenceRatio,
    clip: ClipRange<f64>,
) -> SequenceTerms {
    let (new, old) = (rows.pack(case, "log_probs"), rows.pack(case, "old_log_probs"));
    let advantages = &case.tensor("input/advantages").data;
    let mut d = vec![0.0; new.len()];
    let terms: Vec<_> = rows
        .ranges()
        .zip(advantages)
        .map(|(range, &advantage)| {
            let psi = &mut d[range.clone()];
            let (new, old) = (&new[range.clone()], &old[range]);
            (sequence_surrogate(kind, new, old, advantage, clip, psi), advantage)
        })
        .collect();
    let count = terms.len() as f64;
    for d in &mut d {
        *d /= -count;
    }
    let loss = -mean(terms.iter().map(|(t, _)| t.objective));
    SequenceTerms { terms, loss, d }
}

fn sequence_level(case: &Case) {
    let rows = Rows::of(case);
    let SequenceTerms { terms, loss, mut d } =
        sequence_terms(case, &rows, SequenceRatio::GeometricMean, clip_range(case));
    check_clip_fractions(case, &terms);
    let kl = add_kl(case, &rows, &rows.weights(Aggregation::SequenceMean), &mut d);
    case.check("output/loss", &[loss + kl]);
    rows.check(case, "grad/log_probs", &d);
}

fn rloo_loss(case: &Case) {
    let rows = Rows::of(case);
    let clip = ClipRange::symmetric(case.param("epsilon"));
    let SequenceTerms { loss, d, .. } = sequence_terms(case, &rows, SequenceRatio::Product, clip);
    case.check("output/loss", &[loss]);
    rows.check(case, "grad/log_probs", &d);
}

fn gspo_token(case: &Case) {
    let rows = Rows::of(case);
    let [new, old, advantages] =
        ["log_probs", "old_log_probs", "advantages"].map(|name| rows.pack(case, name));
    let mut psi = vec![0.0; new.len()];
    let (mut loss, mut ratios) = (0.0, Vec::new());
    let weights = rows.weights(Aggregation::SequenceMean);
    for range in rows.ranges() {
        let (new, old) = (&new[range.clone()], &old[range.clone()]);
        let (advantages, psi) = (&advantages[range.clone()], &mut psi[range.clone()]);
        ratios.push(SequenceRatio::GeometricMean.log_ratio(new, old).exp());
        let sum = sequence_token_surrogate(new, old, advantages, clip_range(case), psi);
        loss -= weights[range.start] * sum;
    }
    case.check("output/ratio", &ratios);
    case.check("output/loss", &[loss]);
    let d: Vec<f64> = psi.iter().zip(&weights).map(|(psi, w)| -w * psi).collect();
    rows.check(case, "grad/log_probs", &d);
}

fn rloo_kl_in_reward(case: &Case) {
    let rows = Rows::of(case);
    let (old, reference) = (rows.pack(case, "old_log_probs"), rows.pack(case, "ref_log_probs"));
    let kl = estimates(KlEstimator::K1, &old, &reference);
    // The sum of a response's token rewards is its score less β times its KL.
    let rewards = rows.rewards(&kl, case.param("beta"), &case.tensor("input/rewards").data);
    let shaped: Vec<f64> = rows.ranges().map(|range| rewards[range].iter().sum()).collect();
    case.check("output/shaped", &shaped);
    let mut advantages = vec![9.0; shaped.len()];
    let group_size = case.param("G") as usize;
    leave_one_out_advantages(&shaped, group_size, AdvantageNorm::None, &mut advantages);
    case.check("output/advantages", &advantages);
}

fn reinforce_plus_plus(case: &Case) {
    let rows = Rows::of(case);
    let [new, old, reference] =
        ["log_probs", "old_log_probs", "ref_log_probs"].map(|name| rows.pack(case, name));
    let kl = estimates(KlEstimator::K1, &old, &reference);
    let rewards = rows.rewards(&kl, case.param("beta"), &case.tensor("input/scores").data);
    rows.check(case, "output/token_rewards", &rewards);
    let mut advantages = vec![0.0; rewards.len()];
    for range in rows.ranges() {
        let returns = &mut advantages[range.clone()];
        discounted_returns(&rewards[range], case.param("gamma"), returns);
    }
    rows.check(case, "output/returns", &advantages);
    Whitening::ADVANTAGES.apply(&mut advantages, None);
    rows.check(case, "output/advantages", &advantages);
    let weights = rows.weights(Aggregation::TokenMean);
    let terms: Vec<_> = (0..new.len())
        .map(|i| clipped_surrogate(new[i], old[i], advantages[i], case.param("epsilon")))
        .collect();
    let loss = -terms.iter().zip(&weights).map(|(t, w)| w * t.objective).sum::<f64>();
    case.check("output/loss", &[loss]);
    let d: Vec<f64> = terms.iter().zip(&weights).map(|(t, w)| -w * t.psi).collect();
    rows.check(case, "grad/log_probs", &d);
}

fn reinforce_plus_plus_baseline(case: &Case) {
    let rows = Rows::of(case);
    let scores = &case.tensor("input/scores").data;
    let mut centered = vec![9.0; scores.len()];
    group_advantages(scores, case.param("G") as usize, GroupScale::None, &mut centered);
    let mut advantages = rows.spread(&centered);
    Whitening::ADVANTAGES.apply(&mut advantages, None);
    rows.check(case, "output/advantages", &advantages);
    // The same in a padded array with a mask.
    let mut padded = rows.pad(&rows.spread(&centered));
    Whitening::ADVANTAGES.apply(&mut padded, Some(&rows.mask));
    case.check("output/advantages", &padded);
}

fn sequence_reinforce(case: &Case) {
    let rows = Rows::of(case);
    let logits = case.tensor("input/logits");
    let num_tokens = logits.shape[2];
    let pi = Distribution::Categorical(Categorical::new(num_tokens));
    let weights = rows.pad(&rows.weights(Aggregation::SequenceSum));
    let advantages = rows.pad(&rows.spread(&case.tensor("input/advantages").data));
    let (mut loss, mut d) = (0.0, vec![0.0; logits.data.len()]);
    for (i, &token) in case.tensor("input/tokens").data.iter().enumerate() {
        let row = i * num_tokens..(i + 1) * num_tokens;
        let (log_prob, _) = pi.log_prob_entropy(&logits.data[row.clone()], None, &[token]);
        let term = policy_gradient(log_prob, advantages[i]);
        loss -= weights[i] * term.objective;
        let psi = -weights[i] * term.psi;
        pi.add_score(&logits.data[row.clone()], None, &[token], psi, &mut d[row]);
    }
    case.check("output/loss", &[loss]);
    case.check("grad/logits", &d);
}

fn soft_overlong(case: &Case) {
    let (max_length, buffer) = (case.param("max_length") as usize, case.param("cache") as usize);
    let lengths = case.tensor("input/length").indices();
    let penalties: Vec<f64> = lengths
        .into_iter()
        .map(|length| soft_overlong_penalty(length, max_length, buffer))
        .collect();
    case.check("output/penalty", &penalties);
}
