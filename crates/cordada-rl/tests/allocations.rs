//! What training allocates once it is warm: what an iteration's report needs, and nothing for a
//! step, a minibatch or a sample.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod common;

use allocation_counter::measure;
use common::make;
use cordada_nn::kernel::Isa;
use cordada_nn::{Activation, Mlp, MlpSpec, Optimizer, OptimizerConfig, Tape, clip_global_norm};

/// Allocations of an iteration after the first two. A list may still grow when a segment holds
/// more episodes than any before it, once in each environment.
fn per_iteration(env: &str, settings: &str, num_envs: u64) -> u64 {
    let mut learner = make(env, settings, 1, 1);
    for _ in 0..2 {
        learner.iterate().unwrap();
    }
    let mut count = || {
        let mut result = None;
        let info = measure(|| result = Some(learner.iterate()));
        result.unwrap().unwrap();
        assert!(info.bytes_current < 65_536, "{env}: an iteration keeps {info:?}");
        info.count_total
    };
    let counts = [count(), count(), count(), count()];
    let [least, .., most] = {
        let mut sorted = counts;
        sorted.sort_unstable();
        sorted
    };
    assert!(most <= least + num_envs, "{env} {settings}: {counts:?}");
    least
}

#[test]
fn the_counter_counts() {
    // The negative control.
    assert_eq!(measure(|| drop(std::hint::black_box(vec![1_u8; 3]))).count_total, 1);
}

#[test]
fn an_iteration_allocates_what_its_report_needs() {
    let normalized = "normalize_obs = true\nnormalize_rewards = true\n";
    let cases = [
        ("CartPole-v1", ""),
        ("CartPole-v1", "objective = \"kl_penalty\"\n"),
        ("CartPole-v1", "trunk = [16]\nlayer_norm = true\n"),
        ("Pendulum-v1", normalized),
        ("Pendulum-v1", "squash = true\nlog_std = \"per_state\"\n"),
    ];
    for (env, settings) in cases {
        let count = |[num_envs, num_steps, num_minibatches, num_epochs]: [usize; 4]| {
            let sizes = format!(
                "num_envs = {num_envs}\nnum_steps = {num_steps}\n\
                 num_minibatches = {num_minibatches}\nnum_epochs = {num_epochs}\n\
                 actor = [8]\ncritic = [8]"
            );
            per_iteration(env, &format!("{settings}{sizes}"), num_envs as u64)
        };
        let base = count([2, 256, 4, 2]);
        // The list of metrics as it grows, tracks beside their trajectories, and copies of values
        // and returns; with a normalizer of rewards two rows of a step; with a shared deviation
        // the list of deviations.
        assert!((1..=9).contains(&base), "{env} {settings}: {base} allocations");
        for sizes in [[2, 256, 64, 2], [2, 32, 4, 2], [2, 256, 4, 1], [8, 256, 1, 2]] {
            assert_eq!(count(sizes), base, "{env} {settings}{sizes:?}");
        }
    }
}

#[test]
fn a_network_and_its_optimizer_allocate_nothing() {
    for layer_norm in [false, true] {
        let mlp = Mlp::new(&MlpSpec {
            sizes: vec![5, 33, 17, 3],
            activation: Activation::Tanh,
            output_activation: Activation::Identity,
            layer_norm,
            output_norm: false,
        });
        let mut theta: Vec<f32> = (0..mlp.num_params()).map(|i| (i as f32).sin() * 0.3).collect();
        let (mut weights, mut tape) = (mlp.weights(), Tape::new());
        let config = OptimizerConfig::Adam {
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 0.0,
            amsgrad: false,
        };
        let mut optimizer = Optimizer::new(config, theta.len()).unwrap();
        let (x, dy) = (vec![0.5_f32; 5 * 70], vec![0.1_f32; 3 * 70]);
        let (mut grad, mut dx) = (vec![0.0; theta.len()], vec![0.0; x.len()]);
        // The largest batch first, then a smaller one and one row, as at the end of a pass.
        for (pass, rows) in [70, 70, 6, 1].into_iter().enumerate() {
            let (x, dy, dx) = (&x[..5 * rows], &dy[..3 * rows], &mut dx[..5 * rows]);
            let info = measure(|| {
                grad.fill(0.0);
                mlp.pack(&theta, &mut weights);
                mlp.forward(&weights, x, &mut tape);
                mlp.vjp(&weights, x, &mut tape, dy, &mut grad, Some(dx));
                clip_global_norm(Isa::detect(), &mut grad, 0.5);
                optimizer.ascend(&mut theta, &grad, 1e-3);
            });
            assert!(pass == 0 || info.count_total == 0, "{rows} rows, norm {layer_norm}: {info:?}");
        }
    }
}
