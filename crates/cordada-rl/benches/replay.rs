//! Times of drawing and gathering a batch from a large memory: `cargo bench -p cordada-rl`.
//! Each bench asserts its result first.

use std::hint::black_box;

use cordada_env::{Outcome, Stream, role};
use cordada_rl::replay::{Batch, Priorities, Replay, ReplaySizes};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

/// Transitions in memory.
const CAPACITY: usize = 1_000_000;
/// Transitions of a batch.
const BATCH: usize = 256;
/// Length of an episode.
const EPISODE: usize = 200;

/// A memory whose rings have come around: observation and action of step t are filled with t.
fn full(num_envs: usize, obs_len: usize, action_len: usize) -> Replay {
    let sizes = ReplaySizes { num_envs, capacity: CAPACITY, obs_len, action_len, mask_len: 0 };
    let mut replay = Replay::new(sizes);
    let row = |t: usize, len: usize| vec![t as f32; len];
    for t in 0..CAPACITY / num_envs + 1000 {
        for env in 0..num_envs {
            if t % EPISODE == 0 {
                replay.start(env, &row(t, obs_len), &[]);
            }
            let ended = (t + 1) % EPISODE == 0;
            let outcome = if ended { Outcome::Truncated } else { Outcome::Continue };
            let next = row(t + 1, obs_len);
            replay.push(env, &row(t, action_len), 1.0, outcome, &next, &[]);
        }
    }
    assert!(replay.len() > CAPACITY / 100 * 99 && replay.len() <= CAPACITY);
    replay
}

fn check(batch: &Batch, n_step: usize) {
    for (i, (obs, next)) in batch.obs.iter().zip(&batch.next_obs).enumerate() {
        let steps = next - obs;
        assert!((1.0..=n_step as f32).contains(&steps), "number {i} is {obs}, then {next}");
    }
}

fn uniform(c: &mut Criterion) {
    let mut group = c.benchmark_group(format!("replay/{BATCH} of {CAPACITY}"));
    group.throughput(Throughput::Elements(BATCH as u64));
    for (num_envs, obs_len, action_len, n_step) in
        [(1, 4, 1, 1), (8, 4, 1, 1), (1, 4, 1, 3), (1, 17, 6, 1)]
    {
        let replay = full(num_envs, obs_len, action_len);
        let mut stream = Stream::new(1, role::REPLAY, 0);
        let (mut indices, mut batch) = ([0; BATCH], Batch::default());
        replay.sample(&mut stream, &mut indices);
        replay.gather(&indices, n_step, 0.99, &mut batch);
        check(&batch, n_step);
        let id = format!("envs {num_envs}, obs {obs_len}, action {action_len}, {n_step}-step");
        group.bench_function(BenchmarkId::new("sample and gather", &id), |bench| {
            bench.iter(|| {
                replay.sample(&mut stream, &mut indices);
                replay.gather(&indices, n_step, 0.99, black_box(&mut batch));
            });
        });
        group.bench_function(BenchmarkId::new("sample", &id), |bench| {
            bench.iter(|| replay.sample(&mut stream, black_box(&mut indices)));
        });
    }
    group.finish();
}

fn prioritized(c: &mut Criterion) {
    let mut group = c.benchmark_group(format!("priorities/{BATCH} of {CAPACITY}"));
    group.throughput(Throughput::Elements(BATCH as u64));
    let mut priorities = Priorities::new(CAPACITY, 0.6, 1e-6);
    for index in 0..CAPACITY as u32 {
        priorities.set_new(index);
    }
    let mut stream = Stream::new(1, role::REPLAY, 0);
    let (mut indices, mut weights) = ([0; BATCH], [0.0_f32; BATCH]);
    priorities.sample(&mut stream, &mut indices, &mut weights, 0.4);
    assert!(weights.iter().all(|&w| w == 1.0), "all priorities are alike");
    group.bench_function("sample", |bench| {
        bench.iter(|| priorities.sample(&mut stream, &mut indices, black_box(&mut weights), 0.4));
    });
    let errors: Vec<f32> = (0..BATCH).map(|i| i as f32 / 100.0).collect();
    group.bench_function("sample and update", |bench| {
        bench.iter(|| {
            priorities.sample(&mut stream, &mut indices, black_box(&mut weights), 0.4);
            priorities.update(&indices, &errors);
        });
    });
    group.finish();
}

criterion_group!(benches, uniform, prioritized);
criterion_main!(benches);
