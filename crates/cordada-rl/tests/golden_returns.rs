//! The estimators against reference numbers, among them those of stable-baselines3: the family
//! `returns` of the golden data.

use cordada_env::Outcome;
use cordada_rl::estimate::{
    Segment, VtraceConfig, discounted_returns, episode_stats, gae, n_step_returns, reward_to_go,
    td_lambda_returns, vtrace,
};
use cordada_testkit::golden::{self, Case};

/// The arrays of a case, owned.
struct Inputs {
    num_envs: usize,
    rewards: Vec<f64>,
    values: Vec<f64>,
    outcomes: Vec<Outcome>,
    final_values: Vec<f64>,
    last_values: Vec<f64>,
}

impl Inputs {
    fn of(case: &Case) -> Self {
        let rewards = case.tensor("input/rewards");
        let outcomes = outcomes(case);
        // Cases without truncations have no final values; NaN shows if one is read.
        let final_values = if case.has("input/final_values") {
            case.tensor("input/final_values").data.clone()
        } else {
            vec![f64::NAN; outcomes.len()]
        };
        Self {
            num_envs: rewards.shape[1],
            rewards: rewards.data.clone(),
            values: case.tensor("input/values").data.clone(),
            outcomes,
            final_values,
            last_values: case.tensor("input/last_values").data.clone(),
        }
    }

    fn segment(&self) -> Segment<'_, f64> {
        Segment {
            num_envs: self.num_envs,
            rewards: &self.rewards,
            values: &self.values,
            outcomes: &self.outcomes,
            final_values: &self.final_values,
            last_values: &self.last_values,
        }
    }
}

/// A step with both flags counts as terminated. A case with neither flag has no ends; one with
/// `dones` has terminations only.
fn outcomes(case: &Case) -> Vec<Outcome> {
    let len = case.tensor("input/rewards").data.len();
    let flags = |key: &str| {
        if case.has(key) { case.tensor(key).flags() } else { vec![false; len] }
    };
    let terminated =
        flags(if case.has("input/dones") { "input/dones" } else { "input/terminated" });
    let truncated = flags("input/truncated");
    let outcome = |(&terminated, &truncated): (&bool, &bool)| match (terminated, truncated) {
        (true, _) => Outcome::Terminated,
        (false, true) => Outcome::Truncated,
        (false, false) => Outcome::Continue,
    };
    terminated.iter().zip(&truncated).map(outcome).collect()
}

#[test]
fn golden_returns() {
    for case in golden::family("returns") {
        match case.name.as_str() {
            "episode_discounted" => episode_discounted(&case),
            "reward_to_go_batch" => reward_to_go_batch(&case),
            "n_step_1" | "n_step_3" | "n_step_16" => n_step(&case),
            "gae" | "gae_lambda0" | "gae_lambda1" | "gae_gamma1" | "gae_gamma0" => {
                advantages(&case);
            }
            "gae_sb3_float32" => advantages_single(&case),
            "td_lambda_no_ends" => td_lambda(&case),
            "vtrace" | "vtrace_bars" => off_policy(&case),
            "episode_stats" => episodes(&case),
            other => panic!("no test for the case {other}"),
        }
    }
}

fn episode_discounted(case: &Case) {
    let rewards = &case.tensor("input/rewards").data;
    let mut returns = vec![0.0; rewards.len()];
    let undiscounted = discounted_returns(rewards, 1.0, &mut returns);
    case.check("output/undiscounted_return", &[undiscounted]);
    let total = discounted_returns(rewards, case.param("gamma"), &mut returns);
    case.check("output/total_return", &[total]);
    case.check("output/reward_to_go", &returns);
}

fn reward_to_go_batch(case: &Case) {
    let inputs = Inputs::of(case);
    let mut returns = vec![0.0; inputs.rewards.len()];
    reward_to_go(&inputs.segment(), case.param("gamma"), &mut returns);
    case.check("output/returns", &returns);
}

fn n_step(case: &Case) {
    let inputs = Inputs::of(case);
    let mut returns = vec![0.0; inputs.rewards.len()];
    let mut steps = vec![0; inputs.rewards.len()];
    let n = case.param("n") as usize;
    n_step_returns(&inputs.segment(), case.param("gamma"), n, &mut returns, &mut steps);
    case.check("output/returns", &returns);
    case.check("output/steps_used", &steps.iter().map(|&m| m as f64).collect::<Vec<_>>());
}

fn advantages(case: &Case) {
    let inputs = Inputs::of(case);
    let len = inputs.rewards.len();
    let (gamma, lambda) = (case.param("gamma"), case.param("lambda"));
    let (mut advantages, mut returns) = (vec![0.0; len], vec![0.0; len]);
    gae(&inputs.segment(), gamma, lambda, &mut advantages, &mut returns);
    case.check("output/advantages", &advantages);
    case.check("output/returns", &returns);
    // The λ-returns are the same numbers by another recursion.
    td_lambda_returns(&inputs.segment(), gamma, lambda, &mut returns);
    case.check("output/returns", &returns);
}

fn advantages_single(case: &Case) {
    let inputs = Inputs::of(case);
    let single = |xs: &[f64]| xs.iter().map(|&x| x as f32).collect::<Vec<f32>>();
    let double = |xs: &[f32]| xs.iter().map(|&x| f64::from(x)).collect::<Vec<f64>>();
    let segment = Segment {
        num_envs: inputs.num_envs,
        rewards: &single(&inputs.rewards),
        values: &single(&inputs.values),
        outcomes: &inputs.outcomes,
        final_values: &single(&inputs.final_values),
        last_values: &single(&inputs.last_values),
    };
    let (mut advantages, mut returns) =
        (vec![0.0; segment.rewards.len()], vec![0.0; segment.rewards.len()]);
    let (gamma, lambda) = (case.param("gamma") as f32, case.param("lambda") as f32);
    gae(&segment, gamma, lambda, &mut advantages, &mut returns);
    case.check("output/advantages", &double(&advantages));
    case.check("output/returns", &double(&returns));
}

fn td_lambda(case: &Case) {
    let inputs = Inputs::of(case);
    let mut returns = vec![0.0; inputs.rewards.len()];
    let (gamma, lambda) = (case.param("gamma"), case.param("lambda"));
    td_lambda_returns(&inputs.segment(), gamma, lambda, &mut returns);
    case.check("output/returns", &returns);
}

fn off_policy(case: &Case) {
    let inputs = Inputs::of(case);
    let config = VtraceConfig {
        gamma: case.param("gamma"),
        lambda: case.param("lam"),
        rho_bar: case.param("rho_bar"),
        c_bar: case.param("c_bar"),
        pg_rho_bar: case.param("pg_rho_bar"),
    };
    let len = inputs.rewards.len();
    let (mut targets, mut advantages) = (vec![0.0; len], vec![0.0; len]);
    let log_rhos = &case.tensor("input/log_rhos").data;
    vtrace(&inputs.segment(), log_rhos, config, &mut targets, &mut advantages);
    case.check("output/vs", &targets);
    case.check("output/pg_advantages", &advantages);
}

fn episodes(case: &Case) {
    let rewards = case.tensor("input/rewards");
    let episodes = episode_stats(rewards.shape[1], &rewards.data, &outcomes(case));
    let column = |get: fn(&cordada_rl::estimate::EpisodeStats) -> f64| {
        episodes.iter().map(get).collect::<Vec<f64>>()
    };
    case.check("output/returns", &column(|e| e.episode_return));
    case.check("output/lengths", &column(|e| e.length as f64));
    case.check("output/env", &column(|e| e.env as f64));
    case.check("output/end_step", &column(|e| e.end_step as f64));
}
