//! A critic Q(s, a) for real-valued actions, or Q(s, ·), with its target network and optimizer.

use cordada_env::{Persist, StateError, StateReader, StateWriter, Stream};
use cordada_nn::{
    Activation, Init, Mlp, MlpSpec, Optimizer, OptimizerConfig, Tape, Weights, clip_global_norm,
};

use crate::algo::on_policy::{load_optimizer, save_optimizer};
use crate::error::Error;
use crate::policy::init_network;
use crate::target::blend;

/// Shape of a critic.
#[derive(Clone, Debug)]
pub struct CriticSpec<'a> {
    /// Width of the network's input: state and action.
    pub inputs: usize,
    /// Hidden layers.
    pub hidden: &'a [usize],
    /// Width of the output: 1, or the atoms of a distribution of returns.
    pub outputs: usize,
    /// Between the layers.
    pub activation: Activation,
    /// Whether hidden layers are normalized.
    pub layer_norm: bool,
    /// Initialization.
    pub init: Init,
    /// Update rule.
    pub optimizer: OptimizerConfig,
    /// Limit of the gradient's norm.
    pub max_grad_norm: f64,
}

/// The critic.
#[derive(Debug)]
pub struct Critic {
    network: Mlp,
    theta: Vec<f32>,
    target: Vec<f32>,
    weights: Weights<f32>,
    target_weights: Weights<f32>,
    optimizer: Optimizer<f32>,
    max_grad_norm: f64,
    grad: Vec<f32>,
    tape: Tape<f32>,
    target_tape: Tape<f32>,
}

impl Critic {
    /// A critic whose target is a copy.
    ///
    /// # Errors
    ///
    /// If the optimizer's numbers are out of range.
    pub fn new(spec: &CriticSpec<'_>, stream: &mut Stream) -> Result<Self, Error> {
        let sizes = [spec.inputs].into_iter().chain(spec.hidden.iter().copied());
        let network = Mlp::new(&MlpSpec {
            sizes: sizes.chain([spec.outputs]).collect(),
            activation: spec.activation,
            output_activation: Activation::Identity,
            layer_norm: spec.layer_norm,
            output_norm: false,
        });
        let mut theta = vec![0.0; network.num_params()];
        init_network(&network.params(), (spec.init, 1.0), stream, &mut theta);
        let mut weights = network.weights();
        network.pack(&theta, &mut weights);
        Ok(Self {
            optimizer: Optimizer::new(spec.optimizer, theta.len())?,
            target: theta.clone(),
            target_weights: weights.clone(),
            max_grad_norm: spec.max_grad_norm,
            grad: vec![0.0; theta.len()],
            tape: Tape::new(),
            target_tape: Tape::new(),
            network,
            theta,
            weights,
        })
    }

    /// Width of the input.
    pub fn inputs(&self) -> usize {
        self.network.inputs()
    }

    /// Width of the output.
    pub fn outputs(&self) -> usize {
        self.network.outputs()
    }

    /// Floating-point operations of the products of one row's forward pass.
    pub fn forward_flops(&self) -> usize {
        self.network.forward_flops()
    }

    /// The outputs for rows of states and actions; what the derivatives need stays.
    ///
    /// # Shapes
    ///
    /// `x`: `[B, inputs]`; result: `[B, outputs]`.
    pub fn value(&mut self, x: &[f32]) -> &[f32] {
        self.network.forward(&self.weights, x, &mut self.tape)
    }

    /// The same by the target network.
    pub fn target_value(&mut self, x: &[f32]) -> &[f32] {
        self.network.forward(&self.target_weights, x, &mut self.target_tape)
    }

    /// One step down a loss whose gradient in the outputs of the last [`Critic::value`] is `dy`.
    /// Returns the gradient's length.
    ///
    /// # Shapes
    ///
    /// `x` as in `value`; `dy`: `[B, outputs]`.
    pub fn descend(&mut self, x: &[f32], dy: &[f32], learning_rate: f64) -> f64 {
        self.grad.fill(0.0);
        self.network.vjp(&self.weights, x, &mut self.tape, dy, &mut self.grad, None);
        let norm = clip_global_norm(self.network.isa(), &mut self.grad, self.max_grad_norm);
        self.optimizer.descend(&mut self.theta, &self.grad, learning_rate);
        self.network.pack(&self.theta, &mut self.weights);
        norm
    }

    /// The gradient in the input, of an objective whose gradient in the outputs of the last
    /// [`Critic::value`] is `dy`.
    ///
    /// # Shapes
    ///
    /// `x`, `dx`: `[B, inputs]`; `dy`: `[B, outputs]`.
    pub fn input_gradient(&mut self, x: &[f32], dy: &[f32], dx: &mut [f32]) {
        self.network.input_vjp(&self.weights, x, &mut self.tape, dy, dx);
    }

    /// Moves the target by τ towards θ.
    pub fn follow(&mut self, tau: f32) {
        blend(self.network.isa(), tau, &self.theta, &mut self.target);
        self.network.pack(&self.target, &mut self.target_weights);
    }
}

impl Persist for Critic {
    fn save(&self, w: &mut StateWriter) {
        w.f32s(&self.theta);
        w.f32s(&self.target);
        save_optimizer(&self.optimizer, w);
    }

    fn load(&mut self, r: &mut StateReader<'_>) -> Result<(), StateError> {
        r.f32s_into(&mut self.theta)?;
        r.f32s_into(&mut self.target)?;
        load_optimizer(&mut self.optimizer, r)?;
        self.network.pack(&self.theta, &mut self.weights);
        self.network.pack(&self.target, &mut self.target_weights);
        Ok(())
    }
}
