//! First steps by hand, ascent against descent, and restoring of state.

use super::*;

/// One value after each update with the gradients given, from θ = `start`.
fn path(config: OptimizerConfig, start: f64, grads: &[f64], learning_rate: f64) -> Vec<f64> {
    let mut optimizer = Optimizer::new(config, 1).unwrap();
    let mut theta = [start];
    let mut step = |&g: &f64| {
        optimizer.descend(&mut theta, &[g], learning_rate);
        theta[0]
    };
    grads.iter().map(&mut step).collect()
}

fn assert_path(config: OptimizerConfig, start: f64, grads: &[f64], want: &[f64]) {
    for (got, want) in path(config, start, grads, 0.1).iter().zip(want) {
        assert!((got - want).abs() < 1e-14, "{config:?}: {got} for {want}");
    }
}

#[test]
fn sgd_by_hand() {
    // g + wd θ = 2 + 0.5 · 4 = 4: θ = 4 − 0.4.
    let plain = OptimizerConfig::Sgd { momentum: 0.0, nesterov: false, weight_decay: 0.5 };
    assert_path(plain, 4.0, &[2.0], &[3.6]);
    // b = 2, then 0.5 · 2 + 1 = 2.
    let heavy = OptimizerConfig::Sgd { momentum: 0.5, nesterov: false, weight_decay: 0.0 };
    assert_path(heavy, 0.0, &[2.0, 1.0], &[-0.2, -0.4]);
    // 2 + 0.5 · 2 = 3, then 1 + 0.5 · 2 = 2.
    let ahead = OptimizerConfig::Sgd { momentum: 0.5, nesterov: true, weight_decay: 0.0 };
    assert_path(ahead, 0.0, &[2.0, 1.0], &[-0.3, -0.5]);
}

#[test]
fn adam_by_hand() {
    let adam = |weight_decay, amsgrad| OptimizerConfig::Adam {
        beta1: 0.5,
        beta2: 0.75,
        eps: 1.0,
        weight_decay,
        amsgrad,
    };
    // m = g / 2 and v = g² / 4, corrected to g and g²: the step is lr g / (|g| + 1) = 0.1 · 3/4.
    assert_path(adam(0.0, false), 1.0, &[3.0], &[1.0 - 0.075]);
    // Decay in the gradient: 3 + 0.5 · 2 = 4, 4/5.
    assert_path(adam(0.5, false), 2.0, &[3.0], &[2.0 - 0.08]);
    // Second gradient 0: m = 0.75 / (1 − 1/4) = 1; v = 27/16, of 1 − 9/16: 27/7; AMSGrad keeps 9/4,
    // corrected by the same 7/16: 36/7.
    let second = |square: f64| 0.925 - 0.1 / (square.sqrt() + 1.0);
    assert_path(adam(0.0, false), 1.0, &[3.0, 0.0], &[0.925, second(27.0 / 7.0)]);
    assert_path(adam(0.0, true), 1.0, &[3.0, 0.0], &[0.925, second(36.0 / 7.0)]);
    // Decay apart from the gradient: 2 (1 − 0.1 · 0.5) − 0.075.
    let apart = OptimizerConfig::AdamW {
        beta1: 0.5,
        beta2: 0.75,
        eps: 1.0,
        weight_decay: 0.5,
        amsgrad: false,
    };
    assert_path(apart, 2.0, &[3.0], &[1.9 - 0.075]);
}

#[test]
fn rms_prop_by_hand() {
    let rms_prop = |eps_placement, momentum, centered| OptimizerConfig::RmsProp {
        alpha: 0.75,
        eps: 0.25,
        eps_placement,
        momentum,
        centered,
    };
    // s = 4 / 4 = 1: 2 / 1.25 = 1.6.
    assert_path(rms_prop(EpsPlacement::Outside, 0.0, false), 0.0, &[2.0], &[-0.16]);
    // s = 0.75 + 8/4 = 2.75, of which with ε 3 (g² = 8): √8 / √3.
    let g = 8.0_f64.sqrt();
    let want = -0.1 * (8.0_f64 / 3.0).sqrt();
    assert_path(rms_prop(EpsPlacement::Inside, 0.0, false), 0.0, &[g], &[want]);
    // a = 2/4 = ½, s − a² = ¾.
    let want = -0.1 * 2.0 / (0.75_f64.sqrt() + 0.25);
    assert_path(rms_prop(EpsPlacement::Outside, 0.0, true), 0.0, &[2.0], &[want]);
    // Second gradient 0: only half of the first step is left.
    let heavy = rms_prop(EpsPlacement::Outside, 0.5, false);
    assert_path(heavy, 0.0, &[2.0, 0.0], &[-0.16, -0.24]);
}

/// Every configuration that has a loop of its own.
fn all() -> Vec<OptimizerConfig> {
    let rms_prop = |momentum, centered, eps_placement| OptimizerConfig::RmsProp {
        alpha: 0.9,
        eps: 1e-5,
        eps_placement,
        momentum,
        centered,
    };
    let adam = |amsgrad| OptimizerConfig::Adam {
        beta1: 0.9,
        beta2: 0.99,
        eps: 1e-6,
        weight_decay: 0.1,
        amsgrad,
    };
    vec![
        OptimizerConfig::sgd(),
        OptimizerConfig::Sgd { momentum: 0.9, nesterov: false, weight_decay: 0.1 },
        OptimizerConfig::Sgd { momentum: 0.9, nesterov: true, weight_decay: 0.0 },
        adam(false),
        adam(true),
        OptimizerConfig::adamw(),
        OptimizerConfig::rms_prop(),
        rms_prop(0.9, false, EpsPlacement::Inside),
        rms_prop(0.0, true, EpsPlacement::Outside),
        rms_prop(0.9, true, EpsPlacement::Inside),
    ]
}

const NUM_PARAMS: usize = 37;

fn gradient(step: usize) -> Vec<f32> {
    (0..NUM_PARAMS).map(|i| libm::sin((i * 7 + step * 13) as f64) as f32).collect()
}

#[test]
fn ascent_is_descent_of_the_negated_gradient() {
    for config in all() {
        let mut up = Optimizer::new(config, NUM_PARAMS).unwrap();
        let mut down = up.clone();
        let (mut a, mut b) = (gradient(99), gradient(99));
        for step in 0..3 {
            let grad = gradient(step);
            let negated: Vec<f32> = grad.iter().map(|g| -g).collect();
            up.ascend(&mut a, &grad, 0.01);
            down.descend(&mut b, &negated, 0.01);
        }
        assert_ne!(a, gradient(99), "{config:?} moves");
        assert_eq!(a, b, "{config:?}");
    }
}

#[test]
fn a_restored_optimizer_goes_on_bit_for_bit() {
    for config in all() {
        let mut whole = Optimizer::<f32>::new(config, NUM_PARAMS).unwrap();
        let mut theta = gradient(99);
        for step in 0..3 {
            whole.descend(&mut theta, &gradient(step), 0.01);
        }
        let saved: Vec<(&str, Vec<f32>)> =
            whole.state().map(|(name, values)| (name, values.to_vec())).collect();
        let mut restored = Optimizer::<f32>::new(config, NUM_PARAMS).unwrap();
        restored.set_steps(whole.steps());
        assert_eq!(restored.state().count(), saved.len());
        for ((name, to), (saved_name, from)) in restored.state_mut().zip(&saved) {
            assert_eq!(name, *saved_name);
            to.copy_from_slice(from);
        }
        let mut theta_restored = theta.clone();
        for step in 3..6 {
            whole.descend(&mut theta, &gradient(step), 0.01);
            restored.descend(&mut theta_restored, &gradient(step), 0.01);
        }
        assert_eq!(theta, theta_restored, "{config:?}");
        assert_eq!(restored.steps(), 6);
    }
}

#[test]
fn state_without_gradient_decays_to_zero_and_not_to_subnormal_numbers() {
    for config in all() {
        let mut optimizer = Optimizer::<f32>::new(config, NUM_PARAMS).unwrap();
        let mut theta = gradient(99);
        optimizer.descend(&mut theta, &gradient(0), 1e-3);
        for _ in 0..3000 {
            // θ = 0, so that weight decay adds nothing to the gradient.
            theta.fill(0.0);
            optimizer.descend(&mut theta, &[0.0; NUM_PARAMS], 1e-3);
        }
        for (name, values) in optimizer.state() {
            assert!(!values.iter().any(|x| x.is_subnormal()), "{config:?}: {name}");
        }
    }
}

#[test]
fn every_instruction_set_gives_the_same_bits() {
    for config in all() {
        let mut results = Isa::available().map(|isa| {
            let mut optimizer = Optimizer::<f32>::new(config, NUM_PARAMS).unwrap();
            optimizer.isa = isa;
            let mut theta = gradient(99);
            for step in 0..3 {
                optimizer.descend(&mut theta, &gradient(step), 0.01);
            }
            theta
        });
        let first = results.next().unwrap();
        for other in results {
            assert_eq!(first, other, "{config:?}");
        }
    }
}

#[test]
fn options_outside_their_range_are_refused() {
    let message =
        |config: OptimizerConfig| Optimizer::<f32>::new(config, 1).unwrap_err().to_string();
    let adam = |beta1, eps| OptimizerConfig::Adam {
        beta1,
        beta2: 0.999,
        eps,
        weight_decay: 0.0,
        amsgrad: false,
    };
    assert_eq!(
        message(adam(1.0, 1e-8)),
        "adam option `beta1` is 1; it must be at least 0 and less than 1"
    );
    assert!(message(adam(0.9, f64::NAN)).contains("`eps` is NaN"));
    let sgd = OptimizerConfig::Sgd { momentum: 0.0, nesterov: true, weight_decay: 0.0 };
    assert!(message(sgd).contains("positive if `nesterov` is set"));
    let sgd = OptimizerConfig::Sgd { momentum: 0.0, nesterov: false, weight_decay: -1.0 };
    assert!(message(sgd).contains("`weight_decay` is -1"));
}

#[test]
#[should_panic(expected = "an optimizer of 2 parameters got 3")]
fn a_vector_of_another_length_is_refused() {
    let mut optimizer = Optimizer::new(OptimizerConfig::adam(), 2).unwrap();
    optimizer.descend(&mut [0.0_f32; 3], &[0.0; 3], 0.1);
}
