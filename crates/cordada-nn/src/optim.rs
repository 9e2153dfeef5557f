//! Optimizers: one fused pass over θ per update, no allocation after construction.
//!
//! Gradients come ready (summed, clipped with [`clip_global_norm`]) and learning rates as numbers
//! (a [`crate::Schedule`] makes them). Parameter groups are the caller's: one optimizer for each
//! part of θ. Same arithmetic as `torch.optim`.

mod clip;
mod config;
mod rule;

pub use clip::{clip_global_norm, clip_infinity_norm};
pub use config::{EpsPlacement, OptimizerConfig};

use crate::kernel::Isa;
use crate::{Error, Real};

/// One buffer of state, as long as θ.
#[derive(Clone, Debug)]
struct Buffer<T> {
    name: &'static str,
    values: Vec<T>,
}

/// An optimizer with its state for one parameter vector.
///
/// # Examples
///
/// ```
/// use cordada_nn::{Optimizer, OptimizerConfig};
///
/// let mut theta = [1.0_f32, 2.0];
/// let mut optimizer = Optimizer::new(OptimizerConfig::sgd(), theta.len())?;
/// optimizer.descend(&mut theta, &[1.0, -1.0], 0.5);
/// assert_eq!(theta, [0.5, 2.5]);
/// # Ok::<(), cordada_nn::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Optimizer<T> {
    config: OptimizerConfig,
    isa: Isa,
    num_params: usize,
    steps: u64,
    buffers: Vec<Buffer<T>>,
}

impl<T: Real> Optimizer<T> {
    /// An optimizer at its start, for `num_params` parameters.
    ///
    /// # Errors
    ///
    /// [`Error::Option`] if an option is outside its range.
    pub fn new(config: OptimizerConfig, num_params: usize) -> Result<Self, Error> {
        config.check()?;
        let buffer = |(name, start)| Buffer { name, values: vec![T::of(start); num_params] };
        let buffers = config.buffers().into_iter().map(buffer).collect();
        Ok(Self { config, isa: Isa::detect(), num_params, steps: 0, buffers })
    }

    /// The options that it was made with.
    pub fn config(&self) -> &OptimizerConfig {
        &self.config
    }

    /// Moves θ against the gradient: the loss goes down.
    ///
    /// A gradient that is not finite makes θ so: check before.
    ///
    /// # Shapes
    ///
    /// `theta`, `grad`: `[num_params]`.
    ///
    /// # Panics
    ///
    /// If a length differs from the number of parameters.
    pub fn descend(&mut self, theta: &mut [T], grad: &[T], learning_rate: f64) {
        self.update(theta, grad, learning_rate, T::ONE);
    }

    /// Moves θ along the gradient: the objective goes up. Bit for bit [`Optimizer::descend`] with
    /// the negated gradient; weight decay shrinks θ all the same.
    ///
    /// # Shapes
    ///
    /// `theta`, `grad`: `[num_params]`.
    ///
    /// # Panics
    ///
    /// If a length differs from the number of parameters.
    pub fn ascend(&mut self, theta: &mut [T], grad: &[T], learning_rate: f64) {
        self.update(theta, grad, learning_rate, -T::ONE);
    }

    /// The state besides [`Optimizer::steps`], by name, for a checkpoint: none, or one to three
    /// buffers of `num_params` numbers.
    pub fn state(&self) -> impl Iterator<Item = (&'static str, &[T])> {
        self.buffers.iter().map(|b| (b.name, &b.values[..]))
    }

    /// The same for restoring, in the same order.
    pub fn state_mut(&mut self) -> impl Iterator<Item = (&'static str, &mut [T])> {
        self.buffers.iter_mut().map(|b| (b.name, &mut b.values[..]))
    }

    /// Number of updates done, on which Adam's bias corrections depend.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Sets the number of updates done, when a checkpoint is restored.
    pub fn set_steps(&mut self, steps: u64) {
        self.steps = steps;
    }

    fn update(&mut self, theta: &mut [T], grad: &[T], learning_rate: f64, sign: T) {
        let n = self.num_params;
        assert!(
            theta.len() == n && grad.len() == n,
            "an optimizer of {n} parameters got {} and a gradient of {}",
            theta.len(),
            grad.len()
        );
        self.steps += 1;
        let isa = self.isa;
        let mut state: [&mut [T]; 3] = [&mut [], &mut [], &mut []];
        for (place, buffer) in state.iter_mut().zip(&mut self.buffers) {
            *place = &mut buffer.values;
        }
        match self.config {
            OptimizerConfig::Sgd { momentum, nesterov, weight_decay } => {
                let c = rule::Sgd::new(momentum, weight_decay, learning_rate, sign);
                rule::sgd_any(isa, c, theta, grad, state, nesterov);
            }
            OptimizerConfig::Adam { beta1, beta2, eps, weight_decay, amsgrad } => {
                let mut c = rule::Adam::new([beta1, beta2], eps, learning_rate, self.steps, sign);
                c.l2 = T::of(weight_decay);
                rule::adam_any(isa, c, theta, grad, state, amsgrad);
            }
            OptimizerConfig::AdamW { beta1, beta2, eps, weight_decay, amsgrad } => {
                let mut c = rule::Adam::new([beta1, beta2], eps, learning_rate, self.steps, sign);
                c.keep = T::of(1.0 - learning_rate * weight_decay);
                rule::adam_any(isa, c, theta, grad, state, amsgrad);
            }
            OptimizerConfig::RmsProp { alpha, eps, eps_placement, momentum, centered } => {
                let eps = match eps_placement {
                    EpsPlacement::Inside => (eps, 0.0),
                    EpsPlacement::Outside => (0.0, eps),
                };
                let c = rule::RmsProp::new(alpha, eps, momentum, learning_rate, sign);
                rule::rms_prop_any(isa, c, theta, grad, state, centered);
            }
        }
    }
}

#[cfg(test)]
mod tests;
