//! Times of the inner loops at the sizes that training runs them at: `cargo bench -p cordada-nn`.
//! Each bench asserts its result first.

use std::hint::black_box;

use cordada_nn::kernel::{
    CHAINS, Isa, LANES, Panels, Start, matmul, matmul_tn, multiply_add_chains,
};
use cordada_nn::{
    Activation, Cell, NatureCnn, NatureCnnTape, Optimizer, OptimizerConfig, Rnn, RnnTape,
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

/// Rows of a block in training.
const ROWS: usize = 96;

fn products(c: &mut Criterion) {
    let isa = Isa::detect();
    for (k, n) in [(4, 64), (64, 64), (64, 2), (256, 256)] {
        let mut group = c.benchmark_group(format!("{ROWS}x{k}x{n}"));
        // Throughput in "elements" is multiply-adds here; twice that is operations.
        group.throughput(Throughput::Elements((ROWS * k * n) as u64));
        let (a, b) = (vec![0.5_f32; ROWS * k], vec![0.25_f32; k * n]);
        let mut panels = Panels::new(isa, k, n);
        panels.pack(&b);
        let mut y = vec![0.0; ROWS * n];
        matmul(&a, &panels, Start::Zero, &mut y);
        assert!(y.iter().all(|&y| y == 0.125 * k as f32), "½ · ¼ summed over k");
        group.bench_function("forward", |bench| {
            bench.iter(|| matmul(black_box(&a), &panels, Start::Zero, &mut y));
        });
        let mut grad = vec![0.0; n * k];
        matmul_tn(isa, &y, &a, (n, k), &mut grad);
        assert!(grad.iter().all(|&g| g == 0.0625 * (k * ROWS) as f32), "⅛ k · ½ over the rows");
        group.bench_function("gradient", |bench| {
            bench.iter(|| matmul_tn(isa, black_box(&y), &a, (n, k), &mut grad));
        });
        group.finish();
    }
}

fn elementwise(c: &mut Criterion) {
    let isa = Isa::detect();
    let mut group = c.benchmark_group("elementwise");
    let x: Vec<f32> = (0..ROWS * 64).map(|i| i as f32 / 1000.0 - 3.0).collect();
    group.throughput(Throughput::Elements(x.len() as u64));
    let mut y = x.clone();
    Activation::Tanh.apply(isa, &mut y);
    assert!(x.iter().zip(&y).all(|(x, y)| (x.tanh() - y).abs() < 1e-6));
    group.bench_function("tanh", |bench| {
        bench.iter(|| {
            y.copy_from_slice(&x);
            Activation::Tanh.apply(isa, black_box(&mut y));
        });
    });
    let (mut theta, grad) = (vec![1.0_f32; 9_000], vec![1.0_f32; 9_000]);
    group.throughput(Throughput::Elements(theta.len() as u64));
    let mut adam = Optimizer::new(OptimizerConfig::adam(), theta.len()).expect("the defaults");
    adam.descend(&mut theta, &grad, 0.1);
    assert!(theta.iter().all(|t| (t - 0.9).abs() < 1e-5), "Adam's first step is the learning rate");
    group.bench_function("adam", |bench| bench.iter(|| adam.descend(&mut theta, &grad, 1e-6)));
    group.finish();
}

fn recurrent(c: &mut Criterion) {
    const UNITS: usize = 128;
    const BATCH: usize = 32;
    const STEPS: usize = 32;
    for cell in Cell::ALL {
        let mut group = c.benchmark_group(format!("{}_{UNITS}x{STEPS}x{BATCH}", cell.name()));
        let rnn = Rnn::new(cell, UNITS, UNITS);
        let (mut weights, mut tape) = (rnn.weights(), RnnTape::new());
        // With no weights every gate is open by half and every state stays 0.
        rnn.pack(&vec![0.0_f32; rnn.num_params()], &mut weights);
        let x = vec![0.5_f32; STEPS * BATCH * UNITS];
        let dy = vec![0.01_f32; x.len()];
        let state = vec![0.0; BATCH * rnn.state_len()];
        let y = rnn.forward(&weights, &x, None, &state, &mut tape);
        assert!(y.iter().all(|&y| y == 0.0), "tanh 0 is carried along");
        let theta: Vec<f32> =
            (0..rnn.num_params()).map(|i| (i % 97) as f32 / 500.0 - 0.1).collect();
        rnn.pack(&theta, &mut weights);
        let (mut grad, mut dx) = (vec![0.0; theta.len()], vec![0.0; x.len()]);
        // Multiply-adds, as above.
        let forward = (STEPS * BATCH * rnn.forward_flops() / 2) as u64;
        group.throughput(Throughput::Elements(forward));
        group.bench_function("forward", |bench| {
            bench.iter(|| {
                rnn.forward(&weights, black_box(&x), None, &state, &mut tape);
            });
        });
        group.throughput(Throughput::Elements(3 * forward));
        group.bench_function("training", |bench| {
            bench.iter(|| {
                rnn.forward(&weights, black_box(&x), None, &state, &mut tape);
                rnn.vjp(&weights, &x, None, &mut tape, &dy, &mut grad, Some(&mut dx));
            });
        });
        group.finish();
    }
}

/// The processor's limit, of which the other groups' throughputs are a share.
fn peak(c: &mut Criterion) {
    const STEPS: usize = 10_000;
    let isa = Isa::detect();
    let mut group = c.benchmark_group("peak");
    group.throughput(Throughput::Elements((STEPS * CHAINS * LANES) as u64));
    let sum: f32 = multiply_add_chains(isa, STEPS);
    assert!((sum - (CHAINS * LANES) as f32).abs() < 1.0, "every chain stays near 1");
    group.bench_function("multiply_add", |bench| {
        bench.iter(|| multiply_add_chains::<f32>(isa, black_box(STEPS)));
    });
    group.finish();
}

/// The network for Atari frames on a minibatch of 32: forward, and back to the weights.
fn nature_cnn(c: &mut Criterion) {
    const IMAGES: usize = 32;
    let net = NatureCnn::new([4, 84, 84], 512).expect("Atari's frames");
    // Means instead of sums: an image of ones has features of 1.
    let mut theta = vec![0.0_f32; net.num_params()];
    for param in net.params().into_iter().step_by(2) {
        let fan_in: usize = param.shape[1..].iter().product();
        theta[param.range].fill(1.0 / fan_in as f32);
    }
    let (mut weights, mut tape) = (net.weights(), NatureCnnTape::new());
    net.pack(&theta, &mut weights);
    let x = vec![1.0_f32; IMAGES * net.inputs()];
    let dy = vec![1.0_f32; IMAGES * net.outputs()];
    let mut grad = vec![0.0_f32; theta.len()];
    let y = net.forward(&weights, &x, &mut tape);
    assert!(y.iter().all(|y| (y - 1.0).abs() < 1e-4), "means of ones");
    net.vjp(&weights, &x, &mut tape, &dy, &mut grad, None);
    // Σ w ∂L/∂w = L = 32 · 512 for each layer; all of the first one's 32 · 256 weights are 1 / 256.
    let first = net.params()[0].range.clone();
    assert!(grad[first].iter().all(|g| (g - 512.0).abs() < 0.1), "32 · 512 · 256 / (32 · 256)");
    // Each product once forward and twice back, but for the derivative by the images.
    let products = 3 * net.forward_flops() / 2 - 20 * 20 * 256 * 32;
    let mut group = c.benchmark_group("nature_cnn");
    group.throughput(Throughput::Elements((IMAGES * products) as u64));
    group.bench_function("training_pass", |bench| {
        bench.iter(|| {
            net.forward(&weights, black_box(&x), &mut tape);
            net.vjp(&weights, &x, &mut tape, &dy, &mut grad, None);
        });
    });
    group.finish();
}

criterion_group!(benches, peak, nature_cnn, products, elementwise, recurrent);
criterion_main!(benches);
