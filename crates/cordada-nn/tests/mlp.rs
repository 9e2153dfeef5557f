//! The perceptron's derivatives against finite differences, and its promises about bits.

use cordada_nn::kernel::Isa;
use cordada_nn::{Activation, Mlp, MlpSpec, Tape};
use cordada_testkit::gradient::{assert_gradient, numeric_gradient};

fn numbers(n: usize, seed: u64) -> Vec<f64> {
    let mut x = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..n)
        .map(|_| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            (x >> 11) as f64 / (1_u64 << 53) as f64 - 0.5
        })
        .collect()
}

fn spec(activation: Activation, layer_norm: bool) -> MlpSpec {
    MlpSpec {
        sizes: vec![3, 18, 5, 2],
        activation,
        output_activation: Activation::Tanh,
        layer_norm,
        output_norm: layer_norm,
    }
}

/// Σ upstream · f_θ(x).
fn weighted(mlp: &Mlp, theta: &[f64], x: &[f64], upstream: &[f64]) -> f64 {
    let mut weights = mlp.weights();
    mlp.pack(theta, &mut weights);
    let mut tape = Tape::new();
    mlp.forward(&weights, x, &mut tape).iter().zip(upstream).map(|(y, u)| y * u).sum()
}

#[test]
fn vjp_and_jvp_agree_with_finite_differences() {
    for activation in Activation::ALL {
        for layer_norm in [false, true] {
            let mlp = Mlp::new(&spec(activation, layer_norm));
            let theta = numbers(mlp.num_params(), 1);
            let (rows, x, upstream) = (4, numbers(4 * 3, 2), numbers(4 * 2, 3));
            let (mut weights, mut tape) = (mlp.weights(), Tape::new());
            mlp.pack(&theta, &mut weights);
            mlp.forward(&weights, &x, &mut tape);
            let mut grad = vec![0.0; theta.len()];
            let mut dx = vec![0.0; x.len()];
            mlp.vjp(&weights, &x, &mut tape, &upstream, &mut grad, Some(&mut dx));
            let what = format!("{activation:?}, norm {layer_norm}");
            assert_gradient(&what, &theta, &grad, 1e-7, |t| weighted(&mlp, t, &x, &upstream));
            assert_gradient(&what, &x, &dx, 1e-7, |x| weighted(&mlp, &theta, x, &upstream));

            // uᵀ (J v) = (Jᵀ u)ᵀ v for every direction v.
            let v = numbers(theta.len(), 4);
            let mut packed_v = mlp.weights();
            mlp.pack(&v, &mut packed_v);
            let mut dy = vec![0.0; rows * 2];
            mlp.jvp(&weights, &packed_v, &x, &mut tape, &mut dy);
            let forward: f64 = dy.iter().zip(&upstream).map(|(a, b)| a * b).sum();
            let backward: f64 = grad.iter().zip(&v).map(|(a, b)| a * b).sum();
            assert!((forward - backward).abs() < 1e-10, "{what}: {forward} {backward}");
        }
    }
}

#[test]
fn the_numeric_gradient_sees_a_wrong_bias() {
    // The negative control: without the output activation's derivative the check must fail.
    let mlp = Mlp::new(&spec(Activation::Tanh, false));
    let theta = numbers(mlp.num_params(), 1);
    let (x, upstream) = (numbers(3, 2), numbers(2, 3));
    let numeric = numeric_gradient(&theta, |t| weighted(&mlp, t, &x, &upstream));
    let last_bias = &numeric[theta.len() - 2..];
    assert!((last_bias[0] - upstream[0]).abs() > 1e-4, "tanh′ is not 1 here");
}

#[test]
fn a_row_has_the_same_bits_whatever_the_batch() {
    for isa in Isa::available() {
        let spec = MlpSpec {
            sizes: vec![5, 64, 48, 3],
            activation: Activation::Tanh,
            output_activation: Activation::Identity,
            layer_norm: true,
            output_norm: false,
        };
        let mlp = Mlp::with_isa(&spec, isa);
        let theta: Vec<f32> = numbers(mlp.num_params(), 5).iter().map(|&x| x as f32).collect();
        let x: Vec<f32> = numbers(1000 * 5, 6).iter().map(|&x| x as f32).collect();
        let (mut weights, mut tape) = (mlp.weights(), Tape::new());
        mlp.pack(&theta, &mut weights);
        let all = mlp.forward(&weights, &x, &mut tape).to_vec();
        for rows in [1, 2, 3, 64] {
            for first in [0, 17, 500] {
                let part = &x[first * 5..(first + rows) * 5];
                let y = mlp.forward(&weights, part, &mut tape);
                assert_eq!(y, &all[first * 3..(first + rows) * 3], "{isa:?}, {rows} rows");
            }
        }
    }
}

#[test]
fn every_instruction_set_gives_the_same_bits() {
    let spec = MlpSpec {
        sizes: vec![4, 64, 64, 2],
        activation: Activation::Tanh,
        output_activation: Activation::Identity,
        layer_norm: false,
        output_norm: false,
    };
    let x: Vec<f32> = numbers(33 * 4, 7).iter().map(|&x| x as f32).collect();
    let results: Vec<(Vec<f32>, Vec<f32>)> = Isa::available()
        .map(|isa| {
            let mlp = Mlp::with_isa(&spec, isa);
            let theta: Vec<f32> = numbers(mlp.num_params(), 8).iter().map(|&x| x as f32).collect();
            let (mut weights, mut tape) = (mlp.weights(), Tape::new());
            mlp.pack(&theta, &mut weights);
            let y = mlp.forward(&weights, &x, &mut tape).to_vec();
            let mut grad = vec![0.0; theta.len()];
            mlp.vjp(&weights, &x, &mut tape, &y, &mut grad, None);
            (y, grad)
        })
        .collect();
    for other in &results[1..] {
        assert_eq!(results[0], *other);
    }
}
