//! Optimizers, schedules and clipping against `torch.optim` and `stable-baselines3`.

use cordada_nn::kernel::Isa;
use cordada_nn::{
    EpsPlacement, Optimizer, OptimizerConfig, Schedule, clip_global_norm, clip_infinity_norm,
};
use cordada_testkit::golden::{self, Case};

#[test]
fn golden_optim() {
    for case in golden::family("optim") {
        match case.name.as_str() {
            "adam_linear_lr" => linear_learning_rate(&case),
            name if name.starts_with("grad_norm_clip_") => clip(&case),
            _ => updates(&case),
        }
    }
}

fn config(case: &Case) -> OptimizerConfig {
    let get = |name, default| case.opt_param(name).unwrap_or(default);
    let flag = |name: &str| case.params[name].as_bool().unwrap_or(false);
    let beta = |i: usize, default| case.params["betas"][i].as_f64().unwrap_or(default);
    let (beta1, beta2, eps) = (beta(0, 0.9), beta(1, 0.999), get("eps", 1e-8));
    let weight_decay = get("weight_decay", 0.0);
    let momentum = get("momentum", 0.0);
    let amsgrad = flag("amsgrad");
    let rms_prop = |eps_placement| OptimizerConfig::RmsProp {
        alpha: case.param("alpha"),
        eps,
        eps_placement,
        momentum,
        centered: flag("centered"),
    };
    match case.name.as_str() {
        "sgd" | "sgd_momentum" | "sgd_nesterov_wd" => {
            OptimizerConfig::Sgd { momentum, nesterov: flag("nesterov"), weight_decay }
        }
        "adam" | "adam_eps1e5" | "adam_l2" | "adam_amsgrad" | "adam_linear_lr" => {
            OptimizerConfig::Adam { beta1, beta2, eps, weight_decay, amsgrad }
        }
        "adamw" => OptimizerConfig::AdamW { beta1, beta2, eps, weight_decay, amsgrad },
        "rmsprop" | "rmsprop_centered_momentum" => rms_prop(EpsPlacement::Outside),
        "rmsprop_tf_like" | "rmsprop_tf_like_momentum" => rms_prop(EpsPlacement::Inside),
        other => panic!("no handler for the case {other} of the family optim"),
    }
}

/// Five updates of θ = (w, b).
fn updates(case: &Case) {
    let [w, b] = ["input/w", "input/b"].map(|key| &case.tensor(key).data);
    let [grad_w, grad_b] = ["input/grad_w", "input/grad_b"].map(|key| &case.tensor(key).data);
    let mut theta = [&w[..], b].concat();
    let mut optimizer = Optimizer::new(config(case), theta.len()).expect("options are in range");
    let (mut path_w, mut path_b) = (Vec::new(), Vec::new());
    for (grad_w, grad_b) in grad_w.chunks(w.len()).zip(grad_b.chunks(b.len())) {
        optimizer.descend(&mut theta, &[grad_w, grad_b].concat(), case.param("lr"));
        path_w.extend_from_slice(&theta[..w.len()]);
        path_b.extend_from_slice(&theta[w.len()..]);
    }
    case.check("output/w", &path_w);
    case.check("output/b", &path_b);
}

fn linear_learning_rate(case: &Case) {
    let schedule = Schedule::Linear { from: case.param("lr"), to: 0.0 };
    let mut theta = case.tensor("input/w").data.clone();
    let grads = &case.tensor("input/grad_w").data;
    let num_updates = grads.len() / theta.len();
    let mut optimizer = Optimizer::new(config(case), theta.len()).expect("options are in range");
    let (mut rates, mut path) = (Vec::new(), Vec::new());
    for (i, grad) in grads.chunks(theta.len()).enumerate() {
        let rate = schedule.at(i as f64 / num_updates as f64);
        optimizer.descend(&mut theta, grad, rate);
        rates.push(rate);
        path.extend_from_slice(&theta);
    }
    case.check("output/lr", &rates);
    case.check("output/w", &path);
}

fn clip(case: &Case) {
    let parts = ["g0", "g1", "g2"];
    let lens = parts.map(|part| case.tensor(&format!("input/{part}")).data.len());
    let mut grad: Vec<f64> =
        parts.iter().flat_map(|part| case.tensor(&format!("input/{part}")).data.clone()).collect();
    let norm = if case.param("norm_type") == 2.0 {
        clip_global_norm(Isa::detect(), &mut grad, case.param("max_norm"))
    } else {
        assert_eq!(case.param("norm_type"), f64::INFINITY, "{}", case.name);
        clip_infinity_norm(Isa::detect(), &mut grad, case.param("max_norm"))
    };
    case.check("output/total_norm", &[norm]);
    let mut rest = &grad[..];
    for (part, len) in parts.iter().zip(lens) {
        let (clipped, after) = rest.split_at(len);
        case.check(&format!("output/{part}"), clipped);
        rest = after;
    }
}
