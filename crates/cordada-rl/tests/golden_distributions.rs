//! Distributions and their gradients against PyTorch and stable-baselines3: the family
//! `distributions` of the golden data.

use cordada_rl::distribution::{
    Bernoulli, Beta, Categorical, DiagGaussian, Distribution, MultiCategorical, SquashedGaussian,
    gumbel,
};
use cordada_testkit::golden::{self, Case};

#[test]
fn golden_distributions() {
    for case in golden::family("distributions") {
        match case.name.as_str() {
            "categorical" | "categorical_extreme" | "categorical_masked" => {
                let num_actions = case.tensor("input/logits").shape[1];
                of_logits(&case, &Distribution::Categorical(Categorical::new(num_actions)));
            }
            "multicategorical" | "multicategorical_masked" => {
                let dims = case.params["action_dims"].as_array().expect("a list of sizes");
                let dims: Vec<usize> =
                    dims.iter().map(|n| n.as_u64().expect("a size") as usize).collect();
                of_logits(&case, &Distribution::MultiCategorical(MultiCategorical::new(&dims)));
            }
            "bernoulli" => {
                let num_bits = case.tensor("input/logits").shape[1];
                of_logits(&case, &Distribution::Bernoulli(Bernoulli::new(num_bits)));
            }
            "diag_gaussian" | "diag_gaussian_state_std" | "diag_gaussian_narrow" => {
                diag_gaussian(&case);
            }
            "tanh_gaussian_reparam" => squashed_reparametrized(&case),
            "tanh_gaussian_given_action" => squashed_given_action(&case),
            "tanh_gaussian_bounds" => squashed_bounds(&case),
            "gumbel_max" => gumbel_max(&case),
            "inverse_cdf" => inverse_cdf(&case),
            "beta" => beta(&case),
            other => panic!("no test for the case {other}"),
        }
    }
}

/// Rows of parameters, and the mask and the actions of a case.
struct Batch<'a> {
    pi: &'a Distribution,
    rows: usize,
    params: Vec<f64>,
    q: Vec<f64>,
    masks: Option<Vec<bool>>,
    actions: Vec<f64>,
}

impl Batch<'_> {
    fn params(&self, row: usize) -> &[f64] {
        &self.params[row * self.pi.num_params()..][..self.pi.num_params()]
    }
    fn q(&self, row: usize) -> &[f64] {
        &self.q[row * self.pi.num_params()..][..self.pi.num_params()]
    }
    fn mask(&self, row: usize) -> Option<&[bool]> {
        let len = self.pi.mask_len();
        self.masks.as_ref().map(|masks| &masks[row * len..][..len])
    }
    fn action(&self, row: usize) -> &[f64] {
        &self.actions[row * self.pi.action_len()..][..self.pi.action_len()]
    }
    /// One number a row.
    fn each(&self, f: impl FnMut(usize) -> f64) -> Vec<f64> {
        (0..self.rows).map(f).collect()
    }
    /// One gradient a row, in one array of the parameters' shape.
    fn gradient(&self, mut f: impl FnMut(usize, &mut [f64])) -> Vec<f64> {
        let mut d = vec![0.0; self.params.len()];
        for (row, d) in d.chunks_exact_mut(self.pi.num_params()).enumerate() {
            f(row, d);
        }
        d
    }
}

/// Values and gradients that every family has; `split` turns a gradient of the parameters into
/// the arrays of the case, by name.
fn check_batch(case: &Case, batch: &Batch<'_>, split: impl Fn(&[f64]) -> Vec<(String, Vec<f64>)>) {
    check_values(case, batch);
    check_gradients(batch, |what, prefix, d| {
        for (name, d) in split(d) {
            case.check(&format!("grad/{what}/{prefix}{name}"), &d);
        }
    });
    check_batch_functions(case, batch);
}

fn check_values(case: &Case, batch: &Batch<'_>) {
    let pi = batch.pi;
    case.check(
        "output/log_prob",
        &batch.each(|i| pi.log_prob(batch.params(i), batch.mask(i), batch.action(i))),
    );
    case.check("output/entropy", &batch.each(|i| pi.entropy(batch.params(i), batch.mask(i))));
    case.check("output/kl_p_q", &batch.each(|i| pi.kl(batch.params(i), batch.q(i), batch.mask(i))));
    if case.has("output/mode") {
        let mut modes = vec![0.0; batch.actions.len()];
        for (i, mode) in modes.chunks_exact_mut(pi.action_len()).enumerate() {
            pi.mode(batch.params(i), batch.mask(i), mode);
        }
        case.check("output/mode", &modes);
    }
}

/// `check(what, prefix, d)` is given the gradient d of `what` with respect to the parameters, or to
/// those of q where the prefix says so.
fn check_gradients(batch: &Batch<'_>, check: impl Fn(&str, &str, &[f64])) {
    let pi = batch.pi;
    let d = batch.gradient(|i, d| {
        pi.add_score(batch.params(i), batch.mask(i), batch.action(i), 1.0, d);
    });
    check("log_prob_sum", "", &d);
    let d = batch.gradient(|i, d| pi.add_entropy_gradient(batch.params(i), batch.mask(i), 1.0, d));
    check("entropy_sum", "", &d);
    let d = batch.gradient(|i, d| {
        pi.add_kl_gradient_p(batch.params(i), batch.q(i), batch.mask(i), 1.0, d);
    });
    check("kl_sum", "", &d);
    let d = batch.gradient(|i, d| {
        pi.add_kl_gradient_q(batch.params(i), batch.q(i), batch.mask(i), 1.0, d);
    });
    check("kl_sum", "q_", &d);
}

/// The batch functions give the same as the row functions, which the case has confirmed.
fn check_batch_functions(case: &Case, batch: &Batch<'_>) {
    let (pi, masks) = (batch.pi, batch.masks.as_deref());
    let (mut log_prob, mut entropy) = (vec![0.0; batch.rows], vec![0.0; batch.rows]);
    pi.log_prob_entropy_batch(&batch.params, masks, &batch.actions, &mut log_prob, &mut entropy);
    case.check("output/log_prob", &log_prob);
    case.check("output/entropy", &entropy);
    let psi: Vec<f64> = (0..batch.rows).map(|i| 0.5 - i as f64).collect();
    let want = batch.gradient(|i, d| {
        pi.add_score(batch.params(i), batch.mask(i), batch.action(i), psi[i], d);
        pi.add_entropy_gradient(batch.params(i), batch.mask(i), 0.3, d);
    });
    let mut d = vec![0.0; batch.params.len()];
    pi.add_score_entropy_batch(&batch.params, masks, &batch.actions, &psi, 0.3, &mut d);
    for (got, want) in d.iter().zip(&want) {
        let tolerance = 1e-12 * want.abs().max(1.0);
        assert!((got - want).abs() <= tolerance, "{}: {got}, {want}", case.name);
    }
}

fn of_logits(case: &Case, pi: &Distribution) {
    let logits = case.tensor("input/logits");
    let batch = Batch {
        pi,
        rows: logits.shape[0],
        params: logits.data.clone(),
        q: case.tensor("input/q_logits").data.clone(),
        masks: case.has("input/mask").then(|| case.tensor("input/mask").flags()),
        actions: case.tensor("input/actions").data.clone(),
    };
    check_batch(case, &batch, |d| vec![("logits".to_string(), d.to_vec())]);
}

/// Rows `[mean, log_std]` from two arrays, of which the second may be shared by all rows.
fn join(case: &Case, mean: &str, log_std: &str) -> Vec<f64> {
    let (mean, log_std) = (case.tensor(mean), case.tensor(log_std));
    let len = mean.shape[1];
    let mut rows = Vec::new();
    for (i, mean) in mean.data.chunks_exact(len).enumerate() {
        rows.extend_from_slice(mean);
        let start = if log_std.shape.len() == 1 { 0 } else { i * len };
        rows.extend_from_slice(&log_std.data[start..start + len]);
    }
    rows
}

/// The two arrays of a gradient with respect to rows `[mean, log_std]`.
fn split(case: &Case, log_std: &str, d: &[f64]) -> Vec<(String, Vec<f64>)> {
    let log_std = case.tensor(log_std);
    let len = *log_std.shape.last().expect("log_std has an axis");
    let shared = log_std.shape.len() == 1;
    let (mut d_mean, mut d_log_std) = (Vec::new(), vec![0.0; log_std.data.len()]);
    for (i, row) in d.chunks_exact(2 * len).enumerate() {
        d_mean.extend_from_slice(&row[..len]);
        let start = if shared { 0 } else { i * len };
        for (sum, d) in d_log_std[start..start + len].iter_mut().zip(&row[len..]) {
            *sum += d;
        }
    }
    vec![("mean".to_string(), d_mean), ("log_std".to_string(), d_log_std)]
}

fn diag_gaussian(case: &Case) {
    let mean = case.tensor("input/mean");
    let batch = Batch {
        pi: &Distribution::DiagGaussian(DiagGaussian::new(mean.shape[1])),
        rows: mean.shape[0],
        params: join(case, "input/mean", "input/log_std"),
        q: join(case, "input/q_mean", "input/q_log_std"),
        masks: None,
        actions: case.tensor("input/actions").data.clone(),
    };
    check_batch(case, &batch, |d| split(case, "input/log_std", d));
}

/// Samples made from given noise: actions, log-probabilities, and the gradient of
/// `weight · a + coef · log π(a)`.
fn reparametrize(
    case: &Case,
    pi: &SquashedGaussian,
    (weight, coef): (&[f64], f64),
) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
    let noise = case.tensor("input/eps");
    let len = noise.shape[1];
    let params = join(case, "input/mean", "input/log_std");
    let (mut actions, mut log_prob) = (vec![0.0; noise.data.len()], Vec::new());
    let mut d = vec![0.0; params.len()];
    for i in 0..noise.shape[0] {
        let (params, noise) = (&params[2 * len * i..][..2 * len], &noise.data[len * i..][..len]);
        log_prob.push(pi.reparametrize(params, noise, &mut actions[len * i..][..len]));
        let d = &mut d[2 * len * i..][..2 * len];
        pi.add_reparametrized_gradient(params, noise, &weight[len * i..][..len], coef, d);
    }
    (actions, log_prob, d)
}

// Of the two forms in the data, ours is the exact one; the one with ε inside the logarithm
// (`log_prob_sb3`) differs in the tails.
fn squashed_reparametrized(case: &Case) {
    let weight = &case.tensor("input/action_weight").data;
    let len = case.tensor("input/mean").shape[1];
    let pi = SquashedGaussian::new(len);
    let zeros = vec![0.0; weight.len()];
    let (actions, log_prob, d) = reparametrize(case, &pi, (&zeros, 1.0));
    case.check("output/action", &actions);
    case.check("output/log_prob_exact", &log_prob);
    for (name, d) in split(case, "input/log_std", &d) {
        case.check(&format!("grad/log_prob_exact_sum/{name}"), &d);
    }
    let (_, _, d) = reparametrize(case, &pi, (weight, 0.0));
    for (name, d) in split(case, "input/log_std", &d) {
        case.check(&format!("grad/weighted_action_sum/{name}"), &d);
    }
    let pi = Distribution::SquashedGaussian(pi);
    let mut modes = vec![0.0; weight.len()];
    let params = join(case, "input/mean", "input/log_std");
    for (mode, params) in modes.chunks_exact_mut(len).zip(params.chunks_exact(2 * len)) {
        pi.mode(params, None, mode);
    }
    case.check("output/mode", &modes);
}

fn squashed_given_action(case: &Case) {
    let actions = case.tensor("input/actions");
    let len = actions.shape[1];
    let pi = Distribution::SquashedGaussian(SquashedGaussian::new(len));
    let params = join(case, "input/mean", "input/log_std");
    let mut d = vec![0.0; params.len()];
    let mut log_prob = Vec::new();
    for i in 0..actions.shape[0] {
        let (params, action) = (&params[2 * len * i..][..2 * len], &actions.data[len * i..][..len]);
        log_prob.push(pi.log_prob(params, None, action));
        pi.add_score(params, None, action, 1.0, &mut d[2 * len * i..][..2 * len]);
    }
    case.check("output/log_prob_exact", &log_prob);
    // The gradient is that of both forms: they differ by a term of the action alone.
    for (name, d) in split(case, "input/log_std", &d) {
        case.check(&format!("grad/log_prob_sum/{name}"), &d);
    }
}

fn squashed_bounds(case: &Case) {
    let (low, high) = (case.tensor("input/low"), case.tensor("input/high"));
    let pi = SquashedGaussian::with_bounds(&low.data, &high.data);
    let zeros = vec![0.0; case.tensor("input/mean").data.len()];
    let (actions, log_prob, d) = reparametrize(case, &pi, (&zeros, 1.0));
    case.check("output/action", &actions);
    case.check("output/log_prob", &log_prob);
    for (name, d) in split(case, "input/log_std", &d) {
        case.check(&format!("grad/log_prob_sum/{name}"), &d);
    }
}

/// PyTorch's trigamma function, hence all gradients in the data that come from it, is good to
/// 10⁻⁹ only: with forty digits, the entries differ from the data by up to 1.8 · 10⁻⁹ and from
/// ours by rounding. These are compared with that in mind; the crate's own tests hold the function
/// to 10⁻¹³.
const TRIGAMMA_ERROR: f64 = 4e-9;

/// The data is in α and β, the parameters are those that α = 1 + softplus(x) makes them from: rows
/// of the latter, and gradients with respect to the former.
fn beta(case: &Case) {
    let len = case.tensor("input/alpha").shape[1];
    let rows = |alpha: &str, beta: &str| -> Vec<f64> {
        let alphas = case.tensor(alpha).data.chunks_exact(len);
        let rows = alphas.zip(case.tensor(beta).data.chunks_exact(len));
        let shapes = rows.flat_map(|(alpha, beta)| [alpha, beta].concat());
        shapes.map(|shape| (shape - 1.0).exp_m1().ln()).collect()
    };
    let batch = Batch {
        pi: &Distribution::Beta(Beta::new(len)),
        rows: case.tensor("input/alpha").shape[0],
        params: rows("input/alpha", "input/beta"),
        q: rows("input/q_alpha", "input/q_beta"),
        masks: None,
        actions: case.tensor("input/actions").data.clone(),
    };
    check_values(case, &batch);
    check_gradients(&batch, |what, prefix, d| {
        let at = if prefix.is_empty() { &batch.params } else { &batch.q };
        // dα/dx is the logistic function of x.
        let by_shape: Vec<f64> = at.iter().zip(d).map(|(x, d)| d * (1.0 + (-x).exp())).collect();
        for (first, name) in ["alpha", "beta"].into_iter().enumerate() {
            let halves = by_shape.chunks_exact(len).skip(first).step_by(2);
            let got: Vec<f64> = halves.flatten().copied().collect();
            let key = format!("grad/{what}/{prefix}{name}");
            if what == "entropy_sum" || (what, prefix) == ("kl_sum", "") {
                for (got, want) in got.iter().zip(&case.tensor(&key).data) {
                    assert!((got - want).abs() < TRIGAMMA_ERROR, "{key}: {got:e}, {want:e}");
                }
            } else {
                case.check(&key, &got);
            }
        }
    });
    check_batch_functions(case, &batch);
}

fn gumbel_max(case: &Case) {
    let logits = case.tensor("input/logits");
    let noise: Vec<f64> = case.tensor("input/uniform").data.iter().map(|&u| gumbel(u)).collect();
    case.check("output/gumbel", &noise);
    let rows = logits.data.chunks_exact(logits.shape[1]).zip(noise.chunks_exact(logits.shape[1]));
    let samples: Vec<f64> =
        rows.map(|(logits, noise)| Categorical::gumbel_max(logits, None, noise) as f64).collect();
    case.check("output/sample", &samples);
}

fn inverse_cdf(case: &Case) {
    let logits = case.tensor("input/logits");
    let rows = logits.data.chunks_exact(logits.shape[1]).zip(&case.tensor("input/uniform").data);
    let samples: Vec<f64> =
        rows.map(|(logits, &u)| Categorical::inverse_cdf(logits, None, u) as f64).collect();
    case.check("output/sample", &samples);
}
