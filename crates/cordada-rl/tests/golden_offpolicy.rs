//! Off-policy targets, losses and whole updates: the family `offpolicy` of the golden data, from
//! stable-baselines3, sb3-contrib and the papers' formulas.

use cordada_nn::kernel::Isa;
use cordada_nn::softmax::softmax;
use cordada_nn::{Activation, Mlp, MlpSpec, Tape, Weights};
use cordada_rl::distribution::SquashedGaussian;
use cordada_rl::dueling::{dueling, dueling_vjp};
use cordada_rl::estimate::Support;
use cordada_rl::estimate::td_target::{
    clipped_double_q, double_q_value, greedy_action, max_value, smoothed_action, soft_value,
    td_target,
};
use cordada_rl::objective::{
    QuantileReduction, TdLoss, categorical_cross_entropy, quantile_huber, temperature_loss,
};
use cordada_rl::replay::Priorities;
use cordada_rl::target::blend;
use cordada_testkit::golden::{self, Case};

#[test]
fn golden_offpolicy() {
    for case in golden::family("offpolicy") {
        match case.name.as_str() {
            "sac_auto_alpha" | "sac_fixed_alpha" => sac(&case),
            "td3" | "ddpg" => deterministic(&case),
            "dqn" | "double_dqn" => dqn(&case),
            "dueling" => dueling_case(&case),
            "per_weights" => per_weights(&case),
            "c51_random" | "c51_edge" => c51(&case),
            "quantile_huber" => quantiles(&case),
            "polyak" => polyak(&case),
            other => panic!("no test for the case {other}"),
        }
    }
}

/// γ of every sample, 0 where the episode ended.
fn discounts(case: &Case) -> Vec<f64> {
    let dones = &case.tensor("input/dones").data;
    let gammas = if case.has("input/discounts") {
        case.tensor("input/discounts").data.clone()
    } else {
        vec![case.param("gamma"); dones.len()]
    };
    gammas.iter().zip(dones).map(|(&gamma, &done)| if done == 0.0 { gamma } else { 0.0 }).collect()
}

fn dqn(case: &Case) {
    let (q, target_q) = (case.tensor("input/q"), &case.tensor("input/next_q_target").data);
    let num_actions = q.shape[1];
    let rewards = &case.tensor("input/rewards").data;
    let actions = case.tensor("input/actions").indices();
    let row = |xs: &'_ [f64], i: usize| xs[i * num_actions..][..num_actions].to_vec();
    let discounts = discounts(case);
    let next_value = |i: usize| {
        let judging = row(target_q, i);
        if case.has("input/next_q_online") {
            double_q_value(&row(&case.tensor("input/next_q_online").data, i), &judging, None)
        } else {
            max_value(&judging, None)
        }
    };
    let targets: Vec<f64> =
        (0..rewards.len()).map(|i| td_target(rewards[i], discounts[i], next_value(i))).collect();
    case.check("output/target", &targets);
    // The data's squared error has no factor ½.
    for (name, loss, factor) in
        [("huber_loss", TdLoss::Huber(1.0), 1.0), ("mse_loss", TdLoss::Squared, 2.0)]
    {
        if !case.has(&format!("output/{name}")) {
            continue;
        }
        let coef = factor / rewards.len() as f64;
        let (mut sum, mut d_q) = (0.0, vec![0.0; q.data.len()]);
        for (i, &target) in targets.iter().enumerate() {
            let at = i * num_actions + actions[i];
            let term = loss.of(q.data[at], target);
            sum += coef * term.loss;
            d_q[at] = coef * term.d_value;
        }
        case.check(&format!("output/{name}"), &[sum]);
        case.check(&format!("grad/{name}/q"), &d_q);
    }
}

fn dueling_case(case: &Case) {
    let advantage = case.tensor("input/advantage");
    let num_actions = advantage.shape[1];
    let (values, weight) = (&case.tensor("input/value").data, &case.tensor("input/weight").data);
    let mut q = vec![0.0; advantage.data.len()];
    let (mut d_value, mut d_advantage) = (Vec::new(), q.clone());
    for (i, &value) in values.iter().enumerate() {
        let row = i * num_actions..(i + 1) * num_actions;
        dueling(value, &advantage.data[row.clone()], &mut q[row.clone()]);
        d_value.push(dueling_vjp(&weight[row.clone()], &mut d_advantage[row]));
    }
    case.check("output/q", &q);
    case.check("grad/value", &d_value);
    case.check("grad/advantage", &d_advantage);
}

fn per_weights(case: &Case) {
    let errors = &case.tensor("input/priorities").data;
    let mut priorities = Priorities::new(errors.len(), case.param("alpha"), 0.0);
    let indices: Vec<u32> = (0..errors.len() as u32).collect();
    for &index in &indices {
        priorities.set_new(index);
    }
    priorities.update(&indices, errors);
    let each = |f: &dyn Fn(u32) -> f64| indices.iter().map(|&index| f(index)).collect::<Vec<_>>();
    case.check("output/probabilities", &each(&|index| priorities.probability(index)));
    case.check("output/weights", &each(&|index| priorities.weight(index, case.param("beta"))));
}

fn c51(case: &Case) {
    let support =
        Support::new(case.param("vmin"), case.param("vmax"), case.param("atoms") as usize);
    let n = support.len();
    let num_actions = case.tensor("input/logits").shape[1];
    let atoms: Vec<f64> = (0..n).map(|i| support.atom(i)).collect();
    case.check("output/support", &atoms);
    let next_logits = &case.tensor("input/next_logits").data;
    let mut probs = vec![0.0; next_logits.len()];
    softmax(Isa::detect(), next_logits, n, &mut probs);
    let (logits, actions) = (&case.tensor("input/logits").data, case.tensor("input/actions"));
    let (rewards, discounts) = (&case.tensor("input/rewards").data, discounts(case));
    let (mut next_actions, mut losses) = (Vec::new(), Vec::new());
    let (mut projected, mut d_logits) = (vec![0.0; rewards.len() * n], vec![0.0; logits.len()]);
    for (i, m) in projected.chunks_exact_mut(n).enumerate() {
        let probs = &probs[i * num_actions * n..][..num_actions * n];
        let q: Vec<f64> = probs.chunks_exact(n).map(|p| support.mean(p)).collect();
        let next_action = greedy_action(&q, None);
        next_actions.push(next_action as f64);
        support.project(&probs[next_action * n..][..n], rewards[i], discounts[i], m);
        let at = (i * num_actions + actions.indices()[i]) * n;
        let coef = 1.0 / rewards.len() as f64;
        let (logits, d) = (&logits[at..at + n], &mut d_logits[at..at + n]);
        losses.push(categorical_cross_entropy(logits, m, coef, d));
    }
    case.check("output/next_actions", &next_actions);
    case.check("output/projected", &projected);
    case.check("output/per_sample_loss", &losses);
    case.check("output/loss", &[losses.iter().sum::<f64>() / losses.len() as f64]);
    case.check("grad/logits", &d_logits);
}

fn quantiles(case: &Case) {
    let (current, target) = (case.tensor("input/current"), case.tensor("input/target"));
    let (n, m) = (current.shape[1], target.shape[1]);
    for (name, reduction) in
        [("loss_sum", QuantileReduction::Sum), ("loss_mean", QuantileReduction::Mean)]
    {
        let coef = 1.0 / current.shape[0] as f64;
        let (mut loss, mut d) = (0.0, vec![0.0; current.data.len()]);
        for (i, d) in d.chunks_exact_mut(n).enumerate() {
            let (theta, y) = (&current.data[i * n..][..n], &target.data[i * m..][..m]);
            loss += coef * quantile_huber(theta, y, 1.0, reduction, coef, d);
        }
        case.check(&format!("output/{name}"), &[loss]);
        case.check(&format!("grad/{name}/current"), &d);
    }
}

fn polyak(case: &Case) {
    for isa in Isa::available() {
        let mut target = case.tensor("input/target").data.clone();
        blend(isa, case.param("tau"), &case.tensor("input/online").data, &mut target);
        case.check("output/updated", &target);
    }
}

/// A network of the data: θ, its packed weights and where the case keeps its tensors.
struct Net {
    mlp: Mlp,
    theta: Vec<f64>,
    weights: Weights<f64>,
    tape: Tape<f64>,
    /// Name in the case of each tensor, and its part of θ.
    parts: Vec<(String, std::ops::Range<usize>)>,
}

impl Net {
    /// A network whose tensors, in θ's order, are `names` under `input/<prefix>/`.
    fn new(case: &Case, prefix: &str, names: &[&str], output: Activation) -> Self {
        let (mut theta, mut parts, mut sizes) = (Vec::new(), Vec::new(), Vec::new());
        for name in names {
            let tensor = case.tensor(&format!("input/{prefix}/{name}"));
            if let [outputs, inputs] = tensor.shape[..] {
                // Two heads take the same input: side by side, they are one layer.
                if name.starts_with("ls.") {
                    sizes[1] += outputs;
                } else if sizes.is_empty() {
                    sizes = vec![inputs, outputs];
                } else {
                    sizes.push(outputs);
                }
            }
            parts.push((name.to_string(), theta.len()..theta.len() + tensor.data.len()));
            theta.extend_from_slice(&tensor.data);
        }
        let mlp = Mlp::new(&MlpSpec {
            sizes,
            activation: Activation::Relu,
            output_activation: output,
            layer_norm: false,
            output_norm: false,
        });
        let mut weights = mlp.weights();
        mlp.pack(&theta, &mut weights);
        Self { mlp, theta, weights, tape: Tape::new(), parts }
    }

    fn forward(&mut self, x: &[f64]) -> Vec<f64> {
        self.mlp.forward(&self.weights, x, &mut self.tape).to_vec()
    }

    /// Gradients of θ and x, after `forward` of the same x.
    fn backward(&mut self, x: &[f64], dy: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let (mut grad, mut dx) = (vec![0.0; self.theta.len()], vec![0.0; x.len()]);
        self.mlp.vjp(&self.weights, x, &mut self.tape, dy, &mut grad, Some(&mut dx));
        (grad, dx)
    }

    /// Checks an array of θ's length against the tensors under `prefix`.
    fn check(&self, case: &Case, prefix: &str, got: &[f64]) {
        for (name, range) in &self.parts {
            case.check(&format!("{prefix}/{name}"), &got[range.clone()]);
        }
    }
}

/// Layers of a perceptron with one hidden layer.
fn layers(net: &str) -> Vec<String> {
    let layer = |l, what| format!("{net}.layers.{l}.{what}");
    vec![layer(0, "weight"), layer(0, "bias"), layer(1, "weight"), layer(1, "bias")]
}

/// A network of one hidden layer, named as the data names it.
fn perceptron(case: &Case, prefix: &str, net: &str, output: Activation) -> Net {
    let names = layers(net);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    Net::new(case, prefix, &names, output)
}

/// One or two critics, with the critics' names.
fn critics(case: &Case, prefix: &str) -> Vec<Net> {
    let twin = case.has(&format!("input/{prefix}/q2.layers.0.weight"));
    let names: &[&str] = if twin { &["q1", "q2"] } else { &["q1"] };
    names.iter().map(|q| perceptron(case, prefix, q, Activation::Identity)).collect()
}

/// Rows of two arrays side by side: what a critic takes.
fn concat(obs: &[f64], actions: &[f64], rows: usize) -> Vec<f64> {
    let rows = obs.chunks_exact(obs.len() / rows).zip(actions.chunks_exact(actions.len() / rows));
    rows.flat_map(|(obs, action)| [obs, action].concat()).collect()
}

/// The lower one of the critics' values, sample by sample, and which one it is.
fn lowest(values: &[Vec<f64>]) -> (Vec<f64>, Vec<usize>) {
    let pick = |i: usize| match values {
        [q1] => (q1[i], 0),
        [q1, q2] => (clipped_double_q(q1[i], q2[i]), usize::from(q2[i] < q1[i])),
        _ => panic!("{} critics", values.len()),
    };
    (0..values[0].len()).map(pick).unzip()
}

/// Critics' loss `factor` · Σ mse(Q, y) and its gradients; returns the values.
fn check_critics(case: &Case, critics: &mut [Net], targets: &[f64], factor: f64) -> Vec<Vec<f64>> {
    let rows = targets.len();
    let x = concat(&case.tensor("input/obs").data, &case.tensor("input/actions").data, rows);
    // Our squared error has a ½.
    let coef = 2.0 * factor / rows as f64;
    let (mut loss, mut values) = (0.0, Vec::new());
    for critic in critics {
        let q = critic.forward(&x);
        let terms = q.iter().zip(targets).map(|(&q, &y)| TdLoss::Squared.of(q, y));
        loss += coef * terms.clone().map(|term| term.loss).sum::<f64>();
        let dy: Vec<f64> = terms.map(|term| coef * term.d_value).collect();
        let (grad, _) = critic.backward(&x, &dy);
        critic.check(case, "grad/critic_loss/critic", &grad);
        values.push(q);
    }
    case.check("output/critic_loss", &[loss]);
    values
}

/// Blends targets with their online networks and compares.
fn check_blend(case: &Case, online: &[Net], target: &[Net], prefix: &str) {
    for (online, target) in online.iter().zip(target) {
        let mut theta = target.theta.clone();
        blend(Isa::detect(), case.param("tau"), &online.theta, &mut theta);
        target.check(case, prefix, &theta);
    }
}

/// TD3 and, with one critic and no noise, DDPG.
fn deterministic(case: &Case) {
    let mut actor = perceptron(case, "actor", "net", Activation::Tanh);
    let mut actor_target = perceptron(case, "actor_target", "net", Activation::Tanh);
    let (mut critics, mut target_critics) =
        (critics(case, "critic"), critics(case, "critic_target"));
    let (obs, next_obs) = (&case.tensor("input/obs").data, &case.tensor("input/next_obs").data);
    let (rewards, discounts) = (&case.tensor("input/rewards").data, discounts(case));
    let rows = rewards.len();

    let noise = &case.tensor("input/noise").data;
    let clip = case.param("noise_clip");
    let next_actions: Vec<f64> = actor_target
        .forward(next_obs)
        .iter()
        .zip(noise)
        .map(|(&action, &noise)| smoothed_action(action, noise, clip, (-1.0, 1.0)))
        .collect();
    case.check("output/next_actions", &next_actions);
    let x = concat(next_obs, &next_actions, rows);
    let next: Vec<Vec<f64>> = target_critics.iter_mut().map(|critic| critic.forward(&x)).collect();
    let (next_values, _) = lowest(&next);
    let targets: Vec<f64> =
        (0..rows).map(|i| td_target(rewards[i], discounts[i], next_values[i])).collect();
    case.check("output/target_q", &targets);
    check_critics(case, &mut critics, &targets, 1.0);

    // The actor descends −mean Q₁(s, π(s)).
    let actions = actor.forward(obs);
    case.check("output/actions_pi", &actions);
    let x = concat(obs, &actions, rows);
    let q = critics[0].forward(&x);
    case.check("output/actor_loss", &[-q.iter().sum::<f64>() / rows as f64]);
    let (_, dx) = critics[0].backward(&x, &vec![-1.0 / rows as f64; rows]);
    let (grad, _) = actor.backward(obs, &action_part(&dx, rows, actions.len() / rows));
    actor.check(case, "grad/actor_loss/actor", &grad);

    check_blend(case, &critics, &target_critics, "output/updated_critic_target");
    check_blend(case, &[actor], &[actor_target], "output/updated_actor_target");
}

/// The last `len` columns of every row.
fn action_part(dx: &[f64], rows: usize, len: usize) -> Vec<f64> {
    dx.chunks_exact(dx.len() / rows).flat_map(|row| row[row.len() - len..].to_vec()).collect()
}

/// SAC's actor: a body, and a layer whose output is means and log standard deviations.
struct Actor {
    body: Net,
    head: Net,
    pi: SquashedGaussian,
    epsilon: f64,
}

/// What the actor says about a batch.
struct Sampled {
    hidden: Vec<f64>,
    /// Before log σ is clamped.
    raw: Vec<f64>,
    params: Vec<f64>,
    actions: Vec<f64>,
    log_prob: Vec<f64>,
}

impl Actor {
    fn new(case: &Case) -> Self {
        let body = Net::new(case, "actor", &["body.weight", "body.bias"], Activation::Relu);
        let names = ["mu.weight", "ls.weight", "mu.bias", "ls.bias"];
        let head = Net::new(case, "actor", &names, Activation::Identity);
        let pi = SquashedGaussian::new(head.mlp.outputs() / 2);
        Self { body, head, pi, epsilon: case.param("epsilon") }
    }

    /// The data has log(1 − a² + ε) where ours has the exact log(1 − tanh² u): per component, this
    /// is to be added to our log π, and here is its derivative with respect to a. All else, and
    /// the gradient with it, is the shipped function's, compared to the data's full tolerance.
    fn correction(&self, a: f64) -> (f64, f64) {
        let slope = 1.0 - a * a;
        let shifted = slope + self.epsilon;
        ((slope / shifted).ln(), -2.0 * a * self.epsilon / (slope * shifted))
    }

    fn sample(&mut self, obs: &[f64], noise: &[f64]) -> Sampled {
        let hidden = self.body.forward(obs);
        let raw = self.head.forward(&hidden);
        let mut params = raw.clone();
        let width = self.head.mlp.outputs();
        let len = width / 2;
        for row in params.chunks_exact_mut(width) {
            row[len..].iter_mut().for_each(|log_std| *log_std = log_std.clamp(-20.0, 2.0));
        }
        let (mut actions, mut log_prob) = (vec![0.0; noise.len()], Vec::new());
        for (i, action) in actions.chunks_exact_mut(len).enumerate() {
            let (params, noise) = (&params[i * width..][..width], &noise[i * len..][..len]);
            let exact = self.pi.reparametrize(params, noise, action);
            log_prob.push(exact + action.iter().map(|&a| self.correction(a).0).sum::<f64>());
        }
        Sampled { hidden, raw, params, actions, log_prob }
    }

    /// Gradient of Σ `d_action` · a + `d_log_prob` · log π(a), checked against the case.
    fn check_gradient(
        &mut self,
        case: &Case,
        sampled: &Sampled,
        d_action: &[f64],
        d_log_prob: f64,
    ) {
        let noise = &case.tensor("input/eps").data;
        let width = self.head.mlp.outputs();
        let len = width / 2;
        let mut d_params = vec![0.0; sampled.params.len()];
        for (i, d) in d_params.chunks_exact_mut(width).enumerate() {
            let row = i * len..(i + 1) * len;
            let corrected = sampled.actions[row.clone()].iter().zip(&d_action[row.clone()]);
            let d_action: Vec<f64> =
                corrected.map(|(&a, d)| d + d_log_prob * self.correction(a).1).collect();
            let params = &sampled.params[i * width..][..width];
            self.pi.add_reparametrized_gradient(params, &noise[row], &d_action, d_log_prob, d);
            for (d, raw) in d[len..].iter_mut().zip(&sampled.raw[i * width + len..]) {
                *d = if (-20.0..=2.0).contains(raw) { *d } else { 0.0 };
            }
        }
        let (grad, d_hidden) = self.head.backward(&sampled.hidden, &d_params);
        self.head.check(case, "grad/actor_loss/actor", &grad);
        let (grad, _) = self.body.backward(&case.tensor("input/obs").data, &d_hidden);
        self.body.check(case, "grad/actor_loss/actor", &grad);
    }
}

fn sac(case: &Case) {
    let mut actor = Actor::new(case);
    let (mut critics, mut target_critics) = (critics(case, "critic"), critics(case, "target"));
    let (obs, next_obs) = (&case.tensor("input/obs").data, &case.tensor("input/next_obs").data);
    let (rewards, discounts) = (&case.tensor("input/rewards").data, discounts(case));
    let log_alpha = case.tensor("input/log_alpha").scalar();
    let (rows, alpha) = (rewards.len(), log_alpha.exp());

    let next = actor.sample(next_obs, &case.tensor("input/next_eps").data);
    case.check("output/next_actions", &next.actions);
    case.check("output/next_log_prob", &next.log_prob);
    let x = concat(next_obs, &next.actions, rows);
    let q: Vec<Vec<f64>> = target_critics.iter_mut().map(|critic| critic.forward(&x)).collect();
    let (next_q, _) = lowest(&q);
    let target = |i: usize| {
        td_target(rewards[i], discounts[i], soft_value(next_q[i], alpha, next.log_prob[i]))
    };
    let targets: Vec<f64> = (0..rows).map(target).collect();
    case.check("output/target_q", &targets);
    let values = check_critics(case, &mut critics, &targets, 0.5);
    case.check("output/q1", &values[0]);
    case.check("output/q2", &values[1]);

    // The actor descends mean(α log π − min Q).
    let sampled = actor.sample(obs, &case.tensor("input/eps").data);
    case.check("output/actions_pi", &sampled.actions);
    case.check("output/log_prob", &sampled.log_prob);
    let x = concat(obs, &sampled.actions, rows);
    let q: Vec<Vec<f64>> = critics.iter_mut().map(|critic| critic.forward(&x)).collect();
    let (min_q, which) = lowest(&q);
    let soft = |i: usize| -soft_value(min_q[i], alpha, sampled.log_prob[i]);
    let weight = 1.0 / rows as f64;
    case.check("output/actor_loss", &[weight * (0..rows).map(soft).sum::<f64>()]);
    let mut d_action = vec![0.0; sampled.actions.len()];
    for (k, critic) in critics.iter_mut().enumerate() {
        let dy: Vec<f64> = which.iter().map(|&w| if w == k { -weight } else { 0.0 }).collect();
        let (_, dx) = critic.backward(&x, &dy);
        let part = action_part(&dx, rows, sampled.actions.len() / rows);
        d_action.iter_mut().zip(part).for_each(|(sum, d)| *sum += d);
    }
    actor.check_gradient(case, &sampled, &d_action, weight * alpha);
    check_blend(case, &critics, &target_critics, "output/updated_target");

    if case.has("output/ent_coef_loss") {
        let terms = sampled.log_prob.iter();
        let terms = terms.map(|&p| temperature_loss(log_alpha, p, case.param("target_entropy")));
        let loss = weight * terms.clone().map(|term| term.loss).sum::<f64>();
        case.check("output/ent_coef_loss", &[loss]);
        let d_log_alpha = weight * terms.map(|term| term.d_log_alpha).sum::<f64>();
        case.check("grad/ent_coef_loss/log_alpha", &[d_log_alpha]);
    }
}
