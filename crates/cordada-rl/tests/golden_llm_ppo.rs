//! PPO for language models, from log-probabilities and scores to losses and gradients, against
//! transcriptions of the papers: the family `rlhf_ppo` of the golden data.
//!
//! Losses there are minus our objectives.

mod rows;

use cordada_env::Outcome;
use cordada_rl::estimate::kl::KlEstimator;
use cordada_rl::estimate::{Segment, Whitening, gae, response_outcomes, token_rewards};
use cordada_rl::objective::{
    Aggregation, ProportionalKl, ValueClip, clipped_surrogate, clipped_value_loss,
};
use cordada_testkit::golden::{self, Case};

use rows::{Rows, estimates, mean};

#[test]
fn golden_rlhf_ppo() {
    for case in golden::llm_family("rlhf_ppo") {
        match case.name.as_str() {
            "ppo_k1" | "ppo_k3_whitened" => ppo(&case),
            "ppo_gae_trl_one_past_end" => one_past_the_end(&case),
            "adaptive_kl" => adaptive_kl(&case),
            other => panic!("no test for the case {other}"),
        }
    }
}

fn ppo(case: &Case) {
    let rows = Rows::of(case);
    let [old, reference, values] =
        ["old_log_probs", "ref_log_probs", "values"].map(|name| rows.pack(case, name));
    let kl = estimates(estimator(case), &old, &reference);
    rows.check(case, "output/kl", &kl);
    let scores = &case.tensor("input/scores").data;
    let mut rewards = rows.rewards(&kl, case.param("kl_coef"), scores);
    rows.check(case, "output/shaped_rewards", &rewards);
    if case.params["whiten_rewards"] == true {
        Whitening::REWARDS.apply(&mut rewards, None);
    }
    rows.check(case, "output/rewards", &rewards);
    let discounts = (case.param("gamma"), case.param("lambda"));
    let (mut advantages, returns) = token_gae(&rows.lengths, &rewards, &values, discounts);
    rows.check(case, "output/advantages_raw", &advantages);
    rows.check(case, "output/returns", &returns);
    Whitening::ADVANTAGES.apply(&mut advantages, None);
    rows.check(case, "output/advantages", &advantages);
    let policy_loss = ppo_policy(case, &rows, &old, &advantages);
    let value_loss = ppo_value(case, &rows, &values, &returns);
    case.check("output/loss", &[policy_loss + case.param("vf_coef") * value_loss]);
}

fn ppo_policy(case: &Case, rows: &Rows, old: &[f64], advantages: &[f64]) -> f64 {
    let new = rows.pack(case, "log_probs");
    let weights = rows.weights(Aggregation::TokenMean);
    let terms: Vec<_> = (0..new.len())
        .map(|i| clipped_surrogate(new[i], old[i], advantages[i], case.param("clip_range")))
        .collect();
    rows.check(case, "output/ratio", &terms.iter().map(|t| t.ratio).collect::<Vec<_>>());
    let clipped = mean(terms.iter().map(|t| f64::from(t.clipped)));
    case.check("output/clip_fraction", &[clipped]);
    for (name, kind) in [("k1", KlEstimator::K1), ("k3", KlEstimator::K3)] {
        // Of the old policy against the new one, from its own samples.
        let kl = mean(estimates(kind, old, &new).into_iter());
        case.check(&format!("output/approx_kl_{name}"), &[kl]);
    }
    let psi: Vec<f64> = terms.iter().zip(&weights).map(|(t, w)| -w * t.psi).collect();
    rows.check(case, "grad/log_probs", &psi);
    let loss = -terms.iter().zip(&weights).map(|(t, w)| w * t.objective).sum::<f64>();
    case.check("output/policy_loss", &[loss]);
    loss
}

fn ppo_value(case: &Case, rows: &Rows, old: &[f64], returns: &[f64]) -> f64 {
    let new = rows.pack(case, "value_preds");
    let weights = rows.weights(Aggregation::TokenMean);
    let clip = ValueClip::Max(case.param("clip_range_value"));
    let terms: Vec<_> =
        (0..new.len()).map(|i| clipped_value_loss(new[i], old[i], returns[i], clip)).collect();
    let coef = case.param("vf_coef");
    let d: Vec<f64> = terms.iter().zip(&weights).map(|(t, w)| coef * w * t.d_value).collect();
    rows.check(case, "grad/value_preds", &d);
    let held = mean(terms.iter().map(|t| f64::from(t.d_value == 0.0)));
    case.check("output/value_clip_fraction", &[held]);
    let loss = terms.iter().zip(&weights).map(|(t, w)| w * t.loss).sum::<f64>();
    case.check("output/value_loss", &[loss]);
    loss
}

/// The convention of TRL's former trainer. It is not ours, and our functions can follow it: the
/// response is taken one token longer where there is room, and the recursion runs over padding.
fn one_past_the_end(case: &Case) {
    let rows = Rows::of(case);
    let [old, reference, values] = ["old_log_probs", "ref_log_probs", "values"]
        .map(|name| case.tensor(&format!("input/{name}")).data.clone());
    let kl = estimates(estimator(case), &old, &reference);
    let mut rewards = vec![0.0; kl.len()];
    for (row, (&length, &score)) in
        rows.lengths.iter().zip(&case.tensor("input/scores").data).enumerate()
    {
        let range = row * rows.width..row * rows.width + (length + 1).min(rows.width);
        token_rewards(&kl[range.clone()], case.param("kl_coef"), score, &mut rewards[range]);
    }
    case.check("output/rewards", &rewards);
    let lengths = vec![rows.width; rows.lengths.len()];
    let discounts = (case.param("gamma"), case.param("lambda"));
    let (mut advantages, returns) = token_gae(&lengths, &rewards, &values, discounts);
    case.check("output/advantages_raw", &advantages);
    case.check("output/returns", &returns);
    Whitening::ADVANTAGES.apply(&mut advantages, Some(&rows.mask));
    case.check("output/advantages", &advantages);
}

fn adaptive_kl(case: &Case) {
    let mut rule = ProportionalKl {
        beta: case.param("initial"),
        target: case.param("target"),
        horizon: case.param("horizon"),
    };
    let count = case.param("n_steps") as usize;
    let betas = case.tensor("input/kl").data.iter().map(|&kl| {
        rule.update(kl, count);
        rule.beta
    });
    let betas: Vec<f64> = betas.collect();
    case.check("output/coef", &betas);
}

fn estimator(case: &Case) -> KlEstimator {
    match case.params["kl_estimator"].as_str() {
        Some("k1") => KlEstimator::K1,
        Some("k3") => KlEstimator::K3,
        other => panic!("{}: estimator {other:?}", case.name),
    }
}

/// Advantages and returns of ragged responses.
fn token_gae(
    lengths: &[usize],
    rewards: &[f64],
    values: &[f64],
    (gamma, lambda): (f64, f64),
) -> (Vec<f64>, Vec<f64>) {
    let mut outcomes = vec![Outcome::Continue; rewards.len()];
    response_outcomes(lengths, &mut outcomes);
    let segment = Segment {
        num_envs: 1,
        rewards,
        values,
        outcomes: &outcomes,
        final_values: values,
        last_values: &[0.0],
    };
    let (mut advantages, mut returns) = (vec![0.0; rewards.len()], vec![0.0; rewards.len()]);
    gae(&segment, gamma, lambda, &mut advantages, &mut returns);
    (advantages, returns)
}
