//! The convolutional network for Atari frames, with a head of action values: a forward pass, and
//! all of a training step.

use cordada::env::{Stream, role};
use cordada::nn::kernel::Isa;
use cordada::nn::{
    Activation, Mlp, MlpSpec, NatureCnn, NatureCnnTape, NatureCnnWeights, Optimizer,
    OptimizerConfig, Tape, Weights, clip_global_norm,
};

use super::peak::peak_gflops;
use super::timing::{Pass, print, time};
use crate::args::BenchArgs;
use crate::output::Output;
use crate::report::Failure;

/// Four frames of 84 × 84, as Mnih et al. 2015.
const SHAPE: [usize; 3] = [4, 84, 84];
const FEATURES: usize = 512;
const ACTIONS: usize = 6;
const BATCH: usize = 32;

pub(super) fn run(args: &BenchArgs, output: Output) -> Result<(), Failure> {
    let peak = peak_gflops();
    let mut minibatch = Minibatch::new(BATCH, args.seed)?;
    let forward = minibatch.forward_flops();
    // Each product is followed by one for the weights and one for its input; images need none.
    let train = 3 * forward - minibatch.first_layer_flops();
    let passes = [
        Pass::new("nature-cnn", "forward", time(|| minibatch.forward()), forward, peak),
        Pass::new("nature-cnn", "train", time(|| minibatch.train()), train, peak),
    ];
    print(&passes, output);
    Ok(())
}

/// Random images with random targets of their action values, and all that learning from them
/// needs.
struct Minibatch {
    batch: usize,
    cnn: NatureCnn,
    head: Mlp,
    /// θ of the convolutional network, then that of the head.
    theta: Vec<f32>,
    grad: Vec<f32>,
    weights: NatureCnnWeights<f32>,
    head_weights: Weights<f32>,
    tape: NatureCnnTape<f32>,
    head_tape: Tape<f32>,
    optimizer: Optimizer<f32>,
    /// `[B, 4, 84, 84]`
    x: Vec<f32>,
    /// `[B, A]`
    targets: Vec<f32>,
    /// `[B, F]`
    features: Vec<f32>,
    /// `[B, A]` and `[B, F]`, in the direction in which the error falls.
    d_values: Vec<f32>,
    d_features: Vec<f32>,
}

impl Minibatch {
    fn new(batch: usize, seed: u64) -> Result<Self, Failure> {
        let refuse = |e| Failure::from(cordada::rl::Error::from(e));
        let cnn = NatureCnn::new(SHAPE, FEATURES).map_err(refuse)?;
        let head = Mlp::new(&MlpSpec {
            sizes: vec![FEATURES, ACTIONS],
            activation: Activation::Relu,
            output_activation: Activation::Identity,
            layer_norm: false,
            output_norm: false,
        });
        let mut stream = Stream::new(seed, role::INIT, 0);
        let mut theta = vec![0.0; cnn.num_params() + head.num_params()];
        let (of_cnn, of_head) = theta.split_at_mut(cnn.num_params());
        for (params, theta) in [(cnn.params(), of_cnn), (head.params(), of_head)] {
            for param in params.iter().filter(|param| param.shape.len() > 1) {
                // He et al. 2015: variance 2 / inputs.
                let inputs: usize = param.shape[1..].iter().product();
                let scale = (2.0 / inputs as f64).sqrt();
                for x in &mut theta[param.range.clone()] {
                    *x = (scale * stream.normal()) as f32;
                }
            }
        }
        let x = (0..batch * cnn.inputs()).map(|_| stream.uniform() as f32).collect();
        let targets = (0..batch * ACTIONS).map(|_| stream.normal() as f32).collect();
        let mut minibatch = Self {
            batch,
            weights: cnn.weights(),
            head_weights: head.weights(),
            tape: NatureCnnTape::new(),
            head_tape: Tape::new(),
            optimizer: Optimizer::new(OptimizerConfig::adam(), theta.len()).map_err(refuse)?,
            grad: vec![0.0; theta.len()],
            x,
            targets,
            features: vec![0.0; batch * FEATURES],
            d_values: vec![0.0; batch * ACTIONS],
            d_features: vec![0.0; batch * FEATURES],
            cnn,
            head,
            theta,
        };
        minibatch.pack();
        Ok(minibatch)
    }

    fn forward_flops(&self) -> usize {
        self.batch * (self.cnn.forward_flops() + self.head.forward_flops())
    }

    /// 32 filters of 8 × 8 at 20 × 20 places.
    fn first_layer_flops(&self) -> usize {
        2 * self.batch * (20 * 20) * 32 * (8 * 8 * SHAPE[0])
    }

    fn pack(&mut self) {
        let (cnn, head) = self.theta.split_at(self.cnn.num_params());
        self.cnn.pack(cnn, &mut self.weights);
        self.head.pack(head, &mut self.head_weights);
    }

    fn forward(&mut self) {
        let features = self.cnn.forward(&self.weights, &self.x, &mut self.tape);
        self.features.copy_from_slice(features);
        let values = self.head.forward(&self.head_weights, features, &mut self.head_tape);
        for ((d, value), target) in self.d_values.iter_mut().zip(values).zip(&self.targets) {
            *d = (target - value) / self.batch as f32;
        }
    }

    /// Forward, the squared error, and back; then the norm's limit, Adam, and packing.
    fn train(&mut self) {
        self.forward();
        self.grad.fill(0.0);
        let (grad, head_grad) = self.grad.split_at_mut(self.cnn.num_params());
        let (features, d_values, d_features) =
            (&self.features, &self.d_values, &mut self.d_features);
        let (weights, tape) = (&self.head_weights, &mut self.head_tape);
        self.head.vjp(weights, features, tape, d_values, head_grad, Some(d_features));
        self.cnn.vjp(&self.weights, &self.x, &mut self.tape, d_features, grad, None);
        clip_global_norm(Isa::detect(), &mut self.grad, 10.0);
        self.optimizer.ascend(&mut self.theta, &self.grad, 1e-4);
        self.pack();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_minibatch_that_is_timed_learns() {
        let mut minibatch = Minibatch::new(2, 1).unwrap();
        let error = |m: &mut Minibatch| -> f32 {
            m.forward();
            m.d_values.iter().map(|d| d.powi(2)).sum()
        };
        let before = error(&mut minibatch);
        (0..30).for_each(|_| minibatch.train());
        let after = error(&mut minibatch);
        assert!(after < 0.8 * before, "{before} to {after}");
    }

    #[test]
    fn operations_are_those_of_the_layers() {
        let minibatch = Minibatch::new(BATCH, 1).unwrap();
        // Multiply-adds of an image: 20² · 32 · 256 + 9² · 64 · 512 + 7² · 64 · 576
        // + 3136 · 512 + 512 · 6 = 3,276,800 + 2,654,208 + 1,806,336 + 1,605,632 + 3,072.
        assert_eq!(minibatch.forward_flops(), 32 * 2 * 9_346_048);
        assert_eq!(minibatch.first_layer_flops(), 32 * 2 * 3_276_800);
    }
}
