//! Actor and critic of the usual sizes: a forward pass, and all of a PPO minibatch.

use std::ops::Range;

use cordada::env::{BoxSpace, Space, Stream, role};
use cordada::nn::kernel::{Isa, Task};
use cordada::nn::{Init, Optimizer, OptimizerConfig, clip_global_norm};
use cordada::rl::objective::{ValueClip, clipped_surrogate, clipped_value_loss};
use cordada::rl::policy::{
    ActorCritic, ActorCriticSpec, BLOCK_ROWS, Encoder, LogStd, PolicyTape, PolicyWeights,
};
use serde::Serialize;

use super::peak::peak_gflops;
use super::timing::time;
use crate::args::BenchArgs;
use crate::output::Output;
use crate::report::Failure;

/// A network and the batch sizes it is measured at.
struct Shape {
    name: &'static str,
    inputs: usize,
    hidden: usize,
    activation: &'static str,
    action_space: fn() -> Space,
    batches: &'static [usize],
}

const SHAPES: [Shape; 2] = [
    Shape {
        name: "4-64-64-2/1 tanh",
        inputs: 4,
        hidden: 64,
        activation: "tanh",
        action_space: || Space::Discrete { n: 2 },
        batches: &[64, 256, 2048],
    },
    Shape {
        name: "17-256-256-6/1 relu",
        inputs: 17,
        hidden: 256,
        activation: "relu",
        action_space: || {
            BoxSpace::new(vec![-1.0; 6], vec![1.0; 6], vec![6])
                .map_or_else(|e| unreachable!("the bounds are in order: {e}"), Space::Box)
        },
        batches: &[256, 2048],
    },
];

#[derive(Serialize)]
struct Measured {
    bench: &'static str,
    network: &'static str,
    batch: usize,
    /// `forward` or `train`.
    pass: &'static str,
    best_us: f64,
    median_us: f64,
    /// Of the products alone, at the best time.
    gflops: f64,
    peak_gflops: f64,
    share_of_peak: f64,
}

pub(super) fn run(args: &BenchArgs, output: Output) -> Result<(), Failure> {
    let peak = peak_gflops();
    let mut rows = Vec::new();
    for shape in &SHAPES {
        for &batch in shape.batches {
            let mut minibatch = Minibatch::new(shape, batch, args.seed)?;
            let flops = (minibatch.network.forward_flops() * batch) as f64;
            let forward = time(|| minibatch.forward());
            let train = time(|| minibatch.train());
            for (pass, (best, median), flops) in
                [("forward", forward, flops), ("train", train, 3.0 * flops)]
            {
                let gflops = flops / best / 1e9;
                let m = Measured {
                    bench: "mlp",
                    network: shape.name,
                    batch,
                    pass,
                    best_us: best * 1e6,
                    median_us: median * 1e6,
                    gflops,
                    peak_gflops: peak,
                    share_of_peak: gflops / peak,
                };
                if output.json {
                    output.object(&m);
                } else {
                    rows.push(row(&m));
                }
            }
        }
    }
    if !output.json {
        output.table(
            &["network", "batch", "pass", "best µs", "median µs", "GFLOP/s", "of peak"],
            &rows,
        );
        output.note(format!("peak: {peak:.1} GFLOP/s on one thread, {}", Isa::detect().name()));
    }
    Ok(())
}

fn row(m: &Measured) -> Vec<String> {
    vec![
        m.network.to_string(),
        m.batch.to_string(),
        m.pass.to_string(),
        format!("{:.1}", m.best_us),
        format!("{:.1}", m.median_us),
        format!("{:.1}", m.gflops),
        format!("{:.0} %", 100.0 * m.share_of_peak),
    ]
}

/// A PPO minibatch of random samples, and all that learning from it needs.
struct Minibatch {
    inputs: usize,
    network: ActorCritic,
    theta: Vec<f32>,
    weights: PolicyWeights<f32>,
    tape: PolicyTape<f32>,
    optimizer: Optimizer<f32>,
    grad: Vec<f32>,
    /// `[B, inputs]`
    x: Vec<f32>,
    /// `[B, A]`
    actions: Vec<f32>,
    /// `[B]` each.
    old_log_prob: Vec<f32>,
    advantages: Vec<f32>,
    returns: Vec<f32>,
    log_prob: Vec<f32>,
    entropy: Vec<f32>,
    psi: Vec<f32>,
    d_values: Vec<f32>,
    /// `[B, P]`
    d_params: Vec<f32>,
}

impl Minibatch {
    fn new(shape: &Shape, batch: usize, seed: u64) -> Result<Self, Failure> {
        let hidden = vec![shape.hidden; 2];
        let network = ActorCritic::new(&ActorCriticSpec {
            inputs: shape.inputs,
            action_space: (shape.action_space)(),
            encoder: Encoder::Flat,
            trunk: Vec::new(),
            memory: None,
            actor: hidden.clone(),
            critic: Some(hidden),
            activation: shape.activation.to_string(),
            layer_norm: false,
            log_std: LogStd::Shared,
            squash: false,
        });
        let mut stream = Stream::new(seed, role::INIT, 0);
        let theta: Vec<f32> = network.init(Init::Orthogonal, 0.0, &mut stream);
        let mut weights = network.weights();
        network.pack(&theta, &mut weights);
        let optimizer = Optimizer::new(OptimizerConfig::adam(), theta.len())
            .map_err(|e| Failure::from(cordada::rl::Error::from(e)))?;
        let mut normal =
            |count: usize| -> Vec<f32> { (0..count).map(|_| stream.normal() as f32).collect() };
        let x = normal(batch * shape.inputs);
        let distribution = network.distribution();
        let mut actions = normal(batch * distribution.action_len());
        if network.log_std_range().is_none() {
            for action in &mut actions {
                *action = f32::from(u8::from(*action > 0.0));
            }
        }
        let mut tape = PolicyTape::default();
        let (mut old_log_prob, mut entropy) = (vec![0.0; batch], vec![0.0; batch]);
        let params = network.act(&weights, &x, &mut [], &mut tape);
        distribution.log_prob_entropy_batch(
            params,
            None,
            &actions,
            &mut old_log_prob,
            &mut entropy,
        );
        Ok(Self {
            inputs: shape.inputs,
            grad: vec![0.0; theta.len()],
            x,
            advantages: normal(batch),
            returns: normal(batch),
            actions,
            old_log_prob,
            log_prob: vec![0.0; batch],
            entropy,
            psi: vec![0.0; batch],
            d_values: vec![0.0; batch],
            d_params: vec![0.0; batch * distribution.num_params()],
            tape,
            network,
            theta,
            weights,
            optimizer,
        })
    }

    fn forward(&mut self) {
        for x in self.x.chunks(BLOCK_ROWS * self.inputs) {
            self.network.forward(&self.weights, x, None, &mut self.tape);
        }
    }

    /// Both networks forward, the loss, and both back, block by block as training does; then the
    /// norm's limit, Adam, and packing.
    fn train(&mut self) {
        self.grad.fill(0.0);
        for first in (0..self.returns.len()).step_by(BLOCK_ROWS) {
            self.block(first..(first + BLOCK_ROWS).min(self.returns.len()));
        }
        clip_global_norm(Isa::detect(), &mut self.grad, 0.5);
        self.optimizer.ascend(&mut self.theta, &self.grad, 1e-4);
        self.network.pack(&self.theta, &mut self.weights);
    }

    /// Adds the gradient of some rows.
    fn block(&mut self, rows: Range<usize>) {
        let weight = 1.0 / self.returns.len() as f32;
        let pi = self.network.distribution();
        let (p, a) = (pi.num_params(), pi.action_len());
        let x = &self.x[rows.start * self.inputs..rows.end * self.inputs];
        let actions = &self.actions[rows.start * a..rows.end * a];
        let (params, values) = self.network.forward(&self.weights, x, None, &mut self.tape);
        let log_prob = &mut self.log_prob[rows.clone()];
        let entropy = &mut self.entropy[rows.clone()];
        pi.log_prob_entropy_batch(params, None, actions, log_prob, entropy);
        let (old, advantages) = (&self.old_log_prob[rows.clone()], &self.advantages[rows.clone()]);
        let psi = &mut self.psi[rows.clone()];
        Isa::detect().run(Surrogates { weight, log_prob, old, advantages, psi });
        let d_params = &mut self.d_params[..rows.len() * p];
        d_params.fill(0.0);
        pi.add_score_entropy_batch(params, None, actions, psi, 0.01 * weight, d_params);
        let d_values = &mut self.d_values[..rows.len()];
        for ((&value, &target), d) in values.iter().zip(&self.returns[rows]).zip(&mut *d_values) {
            *d = -0.5 * weight * clipped_value_loss(value, value, target, ValueClip::Off).d_value;
        }
        let d = (Some(&*d_params), Some(&*d_values));
        self.network.backward(&self.weights, x, &mut self.tape, d, &mut self.grad);
    }
}

/// ψ of each row, as a task of the processor's own instruction set.
struct Surrogates<'a> {
    weight: f32,
    log_prob: &'a [f32],
    old: &'a [f32],
    advantages: &'a [f32],
    psi: &'a mut [f32],
}

impl Task for Surrogates<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let samples = self.log_prob.iter().zip(self.old).zip(self.advantages);
        for (((&new, &old), &advantage), psi) in samples.zip(self.psi) {
            *psi = clipped_surrogate(new, old, advantage, 0.2).psi * self.weight;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_minibatch_that_is_timed_learns() {
        let mut minibatch = Minibatch::new(&SHAPES[0], 64, 1).unwrap();
        let error = |m: &mut Minibatch| -> f32 {
            let (_, values) = m.network.forward(&m.weights, &m.x, None, &mut m.tape);
            values.iter().zip(&m.returns).map(|(v, r)| (v - r).powi(2)).sum()
        };
        let before = error(&mut minibatch);
        (0..500).for_each(|_| minibatch.train());
        let after = error(&mut minibatch);
        assert!(after < 0.8 * before, "{before} to {after}");
    }
}
