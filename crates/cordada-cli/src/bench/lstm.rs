//! A recurrent network over whole sequences: forward, and back through time.

use cordada::env::{Stream, role};
use cordada::nn::{Cell, Rnn, RnnTape, RnnWeights};

use super::peak::peak_gflops;
use super::timing::{Pass, print, time};
use crate::args::BenchArgs;
use crate::output::Output;
use crate::report::Failure;

const UNITS: usize = 128;
const STEPS: usize = 32;
const BATCH: usize = 32;

#[allow(clippy::unnecessary_wraps, reason = "every benchmark has this type")]
pub(super) fn run(args: &BenchArgs, output: Output) -> Result<(), Failure> {
    let peak = peak_gflops();
    let mut sequences = Sequences::new(args.seed);
    let flops = STEPS * BATCH * sequences.rnn.forward_flops();
    let passes = [
        Pass::new("lstm", "forward", time(|| sequences.forward()), flops, peak),
        // Each product is followed by one for the weights and one for its input.
        Pass::new("lstm", "forward and back", time(|| sequences.train()), 3 * flops, peak),
    ];
    print(&passes, output);
    Ok(())
}

/// Random sequences, and what comes back from the layers above.
struct Sequences {
    rnn: Rnn,
    theta: Vec<f32>,
    weights: RnnWeights<f32>,
    tape: RnnTape<f32>,
    /// `[T, B, I]`
    x: Vec<f32>,
    /// `[B, S]`
    state: Vec<f32>,
    /// `[T, B, H]`
    dy: Vec<f32>,
    /// `[T, B, I]`
    dx: Vec<f32>,
    grad: Vec<f32>,
}

impl Sequences {
    fn new(seed: u64) -> Self {
        let rnn = Rnn::new(Cell::Lstm, UNITS, UNITS);
        let mut stream = Stream::new(seed, role::INIT, 0);
        // As PyTorch: uniform up to 1 / √H.
        let bound = 1.0 / (UNITS as f64).sqrt();
        let theta: Vec<f32> =
            (0..rnn.num_params()).map(|_| stream.uniform_in(-bound, bound) as f32).collect();
        let mut normal =
            |count: usize| -> Vec<f32> { (0..count).map(|_| stream.normal() as f32).collect() };
        let mut weights = rnn.weights();
        rnn.pack(&theta, &mut weights);
        Self {
            weights,
            tape: RnnTape::new(),
            x: normal(STEPS * BATCH * UNITS),
            state: vec![0.0; BATCH * rnn.state_len()],
            dy: normal(STEPS * BATCH * UNITS),
            dx: vec![0.0; STEPS * BATCH * UNITS],
            grad: vec![0.0; theta.len()],
            theta,
            rnn,
        }
    }

    fn forward(&mut self) {
        self.rnn.forward(&self.weights, &self.x, None, &self.state, &mut self.tape);
    }

    /// Packing, forward, and back to weights and inputs.
    fn train(&mut self) {
        self.rnn.pack(&self.theta, &mut self.weights);
        self.forward();
        self.grad.fill(0.0);
        let (grad, dx) = (&mut self.grad, Some(&mut self.dx[..]));
        self.rnn.vjp(&self.weights, &self.x, None, &mut self.tape, &self.dy, grad, dx);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gradient_that_is_timed_points_uphill() {
        let mut sequences = Sequences::new(1);
        let objective = |s: &mut Sequences| -> f64 {
            s.rnn.pack(&s.theta, &mut s.weights);
            let y = s.rnn.forward(&s.weights, &s.x, None, &s.state, &mut s.tape);
            y.iter().zip(&s.dy).map(|(y, dy)| f64::from(y * dy)).sum()
        };
        let before = objective(&mut sequences);
        sequences.train();
        // A step of 10⁻⁵ along the gradient g raises the objective by about 10⁻⁵ |g|².
        let expected: f64 = sequences.grad.iter().map(|g| 1e-5 * f64::from(*g).powi(2)).sum();
        sequences.theta.iter_mut().zip(&sequences.grad).for_each(|(x, g)| *x += 1e-5 * g);
        let rise = objective(&mut sequences) - before;
        assert!((0.95 * expected..1.05 * expected).contains(&rise), "{rise} for {expected}");
    }
}
