//! Losses of whole batches, and their gradients with respect to logits, means, log standard
//! deviations, log-probabilities and values, against those of the training code of
//! stable-baselines3: the family `policy_losses` of the golden data.
//!
//! The data has losses, which are minus our objectives; `vf_coef` there multiplies the full
//! squared error, of which ours is half.

use cordada_rl::distribution::{Categorical, DiagGaussian, Distribution};
use cordada_rl::estimate::kl::{KlEstimator, estimate_kl};
use cordada_rl::estimate::{explained_variance, normalize_advantages};
use cordada_rl::objective::{
    AdaptiveKl, Surrogate, ValueClip, clipped_surrogate, clipped_value_loss,
    dual_clipped_surrogate, policy_gradient, surrogate,
};
use cordada_testkit::golden::{self, Case};

#[test]
fn golden_policy_losses() {
    for case in golden::family("policy_losses") {
        match case.name.as_str() {
            "reinforce"
            | "reinforce_mean_baseline"
            | "reinforce_value_baseline"
            | "reinforce_episode_sum" => reinforce(&case),
            "a2c_discrete"
            | "a2c_discrete_normadv"
            | "a2c_gaussian"
            | "a2c_gaussian_normadv"
            | "ppo_discrete"
            | "ppo_discrete_vfclip"
            | "ppo_gaussian"
            | "ppo_gaussian_vfclip"
            | "ppo_discrete_first_epoch"
            | "ppo_discrete_far" => actor_critic(&case),
            "ppo_value_clip_max" => value_clip_max(&case),
            "ppo_dual_clip" => dual_clip(&case),
            "ppo_kl_penalty_discrete" | "ppo_kl_penalty_gaussian" => kl_penalty(&case),
            "advantage_normalization" => advantage_normalization(&case),
            "explained_variance" => variance_explained(&case),
            other => panic!("no test for the case {other}"),
        }
    }
}

/// The arrays of a case: a policy with the rows of its parameters, or log-probabilities alone.
struct Policy {
    pi: Distribution,
    params: Vec<f64>,
    actions: Vec<f64>,
}

impl Policy {
    fn of(case: &Case, prefix: &str) -> Self {
        let actions = case.tensor("input/actions").data.clone();
        if case.has("input/logits") {
            let logits = case.tensor(&format!("input/{prefix}logits"));
            let pi = Distribution::Categorical(Categorical::new(logits.shape[1]));
            return Self { pi, params: logits.data.clone(), actions };
        }
        let mean = case.tensor(&format!("input/{prefix}mean"));
        let log_std = case.tensor(&format!("input/{prefix}log_std"));
        let pi = Distribution::DiagGaussian(DiagGaussian::new(mean.shape[1]));
        let rows = mean.data.chunks_exact(mean.shape[1]);
        let params = rows.flat_map(|mean| [mean, &log_std.data].concat()).collect();
        Self { pi, params, actions }
    }

    fn log_prob_entropy(&self) -> (Vec<f64>, Vec<f64>) {
        let rows = self.params.len() / self.pi.num_params();
        let (mut log_prob, mut entropy) = (vec![0.0; rows], vec![0.0; rows]);
        let (log_prob_out, entropy_out) = (&mut log_prob, &mut entropy);
        self.pi.log_prob_entropy_batch(
            &self.params,
            None,
            &self.actions,
            log_prob_out,
            entropy_out,
        );
        (log_prob, entropy)
    }

    /// Checks minus the gradient of an objective against the gradient of the loss.
    fn check(&self, case: &Case, d_params: &[f64]) {
        let d: Vec<f64> = d_params.iter().map(|d| -d).collect();
        if case.has("grad/logits") {
            case.check("grad/logits", &d);
            return;
        }
        let len = self.pi.action_len();
        let (mut d_mean, mut d_log_std) = (Vec::new(), vec![0.0; len]);
        for row in d.chunks_exact(2 * len) {
            d_mean.extend_from_slice(&row[..len]);
            for (sum, d) in d_log_std.iter_mut().zip(&row[len..]) {
                *sum += d;
            }
        }
        case.check("grad/mean", &d_mean);
        case.check("grad/log_std", &d_log_std);
    }
}

fn mean(xs: &[f64]) -> f64 {
    xs.iter().sum::<f64>() / xs.len() as f64
}

fn scaled(xs: &[f64], factor: f64) -> Vec<f64> {
    xs.iter().map(|x| factor * x).collect()
}

fn reinforce(case: &Case) {
    let (log_prob, returns) = (case.tensor("input/log_prob"), case.tensor("input/returns"));
    // Minus one over the number of samples, or of episodes where the loss adds up their steps.
    let count = case.params["bounds"].as_array().map_or(returns.data.len(), |b| b.len() - 1);
    let scale = -1.0 / count as f64;
    let weights: Vec<f64> = match case.name.as_str() {
        "reinforce_mean_baseline" => {
            let baseline = mean(&returns.data);
            returns.data.iter().map(|g| g - baseline).collect()
        }
        "reinforce_value_baseline" => {
            let values = &case.tensor("input/values").data;
            returns.data.iter().zip(values).map(|(g, v)| g - v).collect()
        }
        _ => returns.data.clone(),
    };
    let terms: Vec<_> =
        log_prob.data.iter().zip(&weights).map(|(&l, &w)| policy_gradient(l, w)).collect();
    let loss: f64 = terms.iter().map(|t| scale * t.objective).sum();
    case.check("grad/log_prob", &terms.iter().map(|t| scale * t.psi).collect::<Vec<_>>());
    if case.has("output/advantages") {
        case.check("output/advantages", &weights);
    }
    if case.name == "reinforce_value_baseline" {
        case.check("output/policy_loss", &[loss]);
        let critic = Critic::of(case, ValueClip::Off);
        case.check("output/value_loss", &[2.0 * critic.loss]);
        case.check("output/loss", &[loss + critic.loss]);
    } else {
        case.check("output/loss", &[loss]);
    }
}

/// The mean value loss (of half squares), whose gradient it has checked.
struct Critic {
    loss: f64,
}

impl Critic {
    fn of(case: &Case, clip: ValueClip<f64>) -> Self {
        let (values, returns) = (case.tensor("input/values"), case.tensor("input/returns"));
        let old_values = case.tensor(if case.has("input/old_values") {
            "input/old_values"
        } else {
            "input/values"
        });
        // Half squares times `coef` are the data's full squares times `vf_coef`.
        let coef = 2.0 * case.opt_param("vf_coef").unwrap_or(0.5);
        let terms: Vec<_> = (0..values.data.len())
            .map(|i| clipped_value_loss(values.data[i], old_values.data[i], returns.data[i], clip))
            .collect();
        let count = terms.len() as f64;
        case.check(
            "grad/values",
            &terms.iter().map(|t| coef * t.d_value / count).collect::<Vec<_>>(),
        );
        Self { loss: terms.iter().map(|t| t.loss).sum::<f64>() / count }
    }
}

/// A2C, and PPO where there is a clip range.
fn actor_critic(case: &Case) {
    let policy = Policy::of(case, "");
    let (log_prob, entropy) = policy.log_prob_entropy();
    case.check("output/log_prob", &log_prob);
    case.check("output/entropy", &entropy);
    let mut advantages = case.tensor("input/advantages").data.clone();
    if case.params["normalize_advantage"] == true {
        normalize_advantages(&mut advantages);
    }
    let (objectives, psi): (Vec<f64>, Vec<f64>) = match case.opt_param("clip_range") {
        None => {
            let terms = log_prob.iter().zip(&advantages).map(|(&l, &a)| policy_gradient(l, a));
            terms.map(|t| (t.objective, t.psi)).unzip()
        }
        Some(clip_eps) => {
            case.check("output/normalized_advantages", &advantages);
            let old_log_prob = &case.tensor("input/old_log_prob").data;
            let terms: Vec<_> = (0..log_prob.len())
                .map(|i| clipped_surrogate(log_prob[i], old_log_prob[i], advantages[i], clip_eps))
                .collect();
            diagnostics(case, &terms, &log_prob, old_log_prob);
            terms.iter().map(|t| (t.objective, t.psi)).unzip()
        }
    };
    let count = psi.len() as f64;
    let entropy_coef = case.param("ent_coef");
    let mut d = vec![0.0; policy.params.len()];
    let psi = scaled(&psi, 1.0 / count);
    let coef = entropy_coef / count;
    policy.pi.add_score_entropy_batch(&policy.params, None, &policy.actions, &psi, coef, &mut d);
    policy.check(case, &d);
    let clip = case.opt_param("clip_range_vf").map_or(ValueClip::Off, ValueClip::Hold);
    let critic = Critic::of(case, clip);
    let policy_loss = -mean(&objectives);
    case.check("output/policy_loss", &[policy_loss]);
    case.check("output/entropy_loss", &[-mean(&entropy)]);
    case.check("output/value_loss", &[2.0 * critic.loss]);
    let value_part = case.param("vf_coef") * 2.0 * critic.loss;
    case.check("output/loss", &[policy_loss - entropy_coef * mean(&entropy) + value_part]);
}

fn diagnostics(case: &Case, terms: &[Surrogate<f64>], log_prob: &[f64], old_log_prob: &[f64]) {
    let count = terms.len() as f64;
    case.check("output/ratio", &terms.iter().map(|t| t.ratio).collect::<Vec<_>>());
    let clipped = terms.iter().filter(|t| t.clipped).count() as f64;
    case.check("output/clip_fraction", &[clipped / count]);
    let estimators = [("k1", KlEstimator::K1), ("k2", KlEstimator::K2), ("k3", KlEstimator::K3)];
    for (name, estimator) in estimators {
        let kl = estimate_kl(estimator, log_prob, old_log_prob);
        case.check(&format!("output/approx_kl_{name}"), &[kl]);
    }
    let (old_values, returns) = (case.tensor("input/old_values"), case.tensor("input/returns"));
    let explained = explained_variance(&old_values.data, &returns.data);
    case.check("output/explained_variance", &[explained]);
}

fn value_clip_max(case: &Case) {
    let critic = Critic::of(case, ValueClip::Max(case.param("clip_range_vf")));
    case.check("output/value_loss", &[critic.loss]);
}

fn dual_clip(case: &Case) {
    let (log_prob, old) = (case.tensor("input/log_prob"), case.tensor("input/old_log_prob"));
    let advantages = case.tensor("input/advantages");
    let (clip_eps, c) = (case.param("clip_range"), case.param("c"));
    let terms: Vec<_> = (0..log_prob.data.len())
        .map(|i| {
            let (new, old) = (log_prob.data[i], old.data[i]);
            dual_clipped_surrogate(new, old, advantages.data[i], clip_eps, c)
        })
        .collect();
    let count = terms.len() as f64;
    case.check("output/ratio", &terms.iter().map(|t| t.ratio).collect::<Vec<_>>());
    case.check("output/loss", &[-terms.iter().map(|t| t.objective).sum::<f64>() / count]);
    case.check("grad/log_prob", &terms.iter().map(|t| -t.psi / count).collect::<Vec<_>>());
}

fn kl_penalty(case: &Case) {
    let (policy, old) = (Policy::of(case, ""), Policy::of(case, "old_"));
    let (log_prob, old_log_prob) = (policy.log_prob_entropy().0, old.log_prob_entropy().0);
    let advantages = &case.tensor("input/advantages").data;
    let terms: Vec<_> = (0..log_prob.len())
        .map(|i| surrogate(log_prob[i], old_log_prob[i], advantages[i]))
        .collect();
    case.check("output/ratio", &terms.iter().map(|t| t.ratio).collect::<Vec<_>>());
    let (count, len) = (terms.len() as f64, policy.pi.num_params());
    let mut rule =
        AdaptiveKl { beta: case.param("beta"), target: case.opt_param("target_kl").unwrap_or(1.0) };
    let mut d = vec![0.0; policy.params.len()];
    let psi: Vec<f64> = terms.iter().map(|t| t.psi / count).collect();
    policy.pi.add_score_entropy_batch(&policy.params, None, &policy.actions, &psi, 0.0, &mut d);
    let mut kls = Vec::new();
    let rows = old.params.chunks_exact(len).zip(policy.params.chunks_exact(len));
    for ((p, q), d) in rows.zip(d.chunks_exact_mut(len)) {
        kls.push(policy.pi.kl(p, q, None));
        policy.pi.add_kl_gradient_q(p, q, None, -rule.beta / count, d);
    }
    case.check("output/kl", &kls);
    policy.check(case, &d);
    let objective = terms.iter().map(|t| t.objective).sum::<f64>() / count - rule.beta * mean(&kls);
    case.check("output/loss", &[-objective]);
    if case.has("output/next_beta") {
        rule.update(mean(&kls));
        case.check("output/next_beta", &[rule.beta]);
    }
}

fn advantage_normalization(case: &Case) {
    // The form with B − 1; `y_population` is the other convention.
    let mut advantages = case.tensor("input/x").data.clone();
    normalize_advantages(&mut advantages);
    case.check("output/y", &advantages);
}

fn variance_explained(case: &Case) {
    let predicted = &case.tensor("input/y_pred").data;
    let explained = explained_variance(predicted, &case.tensor("input/y_true").data);
    case.check("output/ev", &[explained]);
    let constant = explained_variance(predicted, &case.tensor("input/y_true_const").data);
    case.check("output/ev_const", &[constant]);
}
