//! Times of the inner loops at the sizes that training runs them at: `cargo bench -p cordada-nn`.
//! Each bench asserts its result first.

use std::hint::black_box;

use cordada_nn::kernel::{Isa, Panels, Start, matmul, matmul_tn};
use cordada_nn::{Activation, Optimizer, OptimizerConfig};
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

criterion_group!(benches, products, elementwise);
criterion_main!(benches);
