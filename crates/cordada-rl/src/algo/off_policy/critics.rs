//! The critics of one learner: every one sees the same rows and learns by the same loss, so they
//! work side by side where there are threads for it. No result depends on that.

use std::sync::Arc;

use cordada_env::{Persist, StateError, StateReader, StateWriter, Stream};
use cordada_nn::{Activation, Schedule};
use rayon::prelude::*;

use super::Spaces;
use super::critic::{Critic, CriticSpec};
use crate::algo::on_policy::pool;
use crate::config::Checks;
use crate::error::Error;
use crate::estimate::td_target::clipped_double_q;
use crate::policy::{ActorCriticSpec, Encoder, LogStd};
use crate::settings::{StepConfig, check_layers, check_names, init_named};

crate::config! {
    /// An actor, and critics with target networks.
    pub struct ActorCriticsConfig {
        /// Hidden layers of the actor.
        actor: Vec<usize> = vec![256, 256];
        /// Hidden layers of each critic.
        critic: Vec<usize> = vec![256, 256];
        /// "tanh", "relu", "leaky_relu", "elu", "silu", "gelu" or "gelu_tanh".
        activation: String = "relu".to_string(), alias ["activation_fn"];
        /// Whether the critics' hidden layers are normalized (LayerNorm) before their activation.
        layer_norm: bool = false;
        /// "orthogonal", "kaiming_uniform", "kaiming_normal", "xavier_uniform" or "xavier_normal".
        init: String = "orthogonal".to_string();
        /// τ, how far a target network moves with each update: 1 is a copy.
        tau: f64 = 0.005;
    }
}

impl ActorCriticsConfig {
    /// Checks ranges.
    ///
    /// # Errors
    ///
    /// [`Error::BadValue`] for the first setting that cannot be used.
    pub fn check(&self, check: Checks<'_>) -> Result<(), Error> {
        check_layers(check, &[("actor", &self.actor), ("critic", &self.critic)])?;
        check_names(check, &self.activation, &self.init)?;
        check.unit(&[("tau", self.tau)])
    }

    /// The policy's shape: an actor alone, which sees a row of numbers.
    pub fn policy_spec(&self, spaces: &Spaces<'_>, log_std: LogStd) -> ActorCriticSpec {
        ActorCriticSpec {
            inputs: spaces.inputs,
            action_space: spaces.actions.clone(),
            encoder: Encoder::Flat,
            trunk: Vec::new(),
            memory: None,
            actor: self.actor.clone(),
            critic: None,
            activation: self.activation.clone(),
            layer_norm: false,
            log_std,
            squash: matches!(spaces.actions, cordada_env::Space::Box(_)),
        }
    }
}

/// How critics take steps down a gradient: Adam without a limit that matters.
pub fn adam(learning_rate: f64) -> StepConfig {
    StepConfig {
        learning_rate: Schedule::Constant(learning_rate),
        optimizer_eps: 1e-8,
        max_grad_norm: 1e9,
        ..StepConfig::default()
    }
}

/// One critic with its last outputs.
#[derive(Debug)]
struct Seat {
    critic: Critic,
    /// Of the critic itself, of its target: `[B, outputs]`.
    outputs: Vec<f32>,
    next_outputs: Vec<f32>,
    /// Gradients in outputs and inputs.
    dy: Vec<f32>,
    dx: Vec<f32>,
    told: Told,
}

/// What a step of the critics tells.
#[derive(Clone, Copy, Debug, Default)]
pub struct Told {
    /// Mean loss of a critic.
    pub loss: f64,
    /// Mean output.
    pub value: f64,
    /// Mean length of a critic's gradient.
    pub grad_norm: f64,
}

/// K critics.
#[derive(Debug)]
pub struct Critics {
    seats: Vec<Seat>,
    pool: Option<Arc<rayon::ThreadPool>>,
    tau: f32,
    /// Rows that the critics see: `[B, inputs]`.
    x: Vec<f32>,
    d_actions: Vec<f32>,
    /// Products of the first layer, which needs no gradient in its input: of one row.
    first_flops: usize,
    /// Floating-point operations of the critics' products so far.
    pub flops: u64,
}

impl Critics {
    /// `count` critics of `action_len` numbers beside the state's, at their start.
    ///
    /// # Errors
    ///
    /// If the optimizer's numbers are out of range.
    ///
    /// # Panics
    ///
    /// If the activation has no such name, which [`ActorCriticsConfig::check`] rules out.
    pub fn new(
        (config, step): (&ActorCriticsConfig, &StepConfig),
        (count, outputs): (usize, usize),
        (state_len, action_len): (usize, usize),
        threads: usize,
        stream: &mut Stream,
    ) -> Result<Self, Error> {
        let spec = CriticSpec {
            inputs: state_len + action_len,
            hidden: &config.critic,
            outputs,
            activation: Activation::from_name(&config.activation).expect("a checked name"),
            layer_norm: config.layer_norm,
            init: init_named(&config.init),
            optimizer: step.optimizer(),
            max_grad_norm: step.max_grad_norm,
        };
        let seat = |_| {
            Ok(Seat {
                critic: Critic::new(&spec, stream)?,
                outputs: Vec::new(),
                next_outputs: Vec::new(),
                dy: Vec::new(),
                dx: Vec::new(),
                told: Told::default(),
            })
        };
        Ok(Self {
            seats: (0..count).map(seat).collect::<Result<_, Error>>()?,
            pool: pool(threads.min(count)),
            tau: config.tau as f32,
            x: Vec::new(),
            d_actions: Vec::new(),
            first_flops: first_flops(spec.inputs, &config.critic, outputs),
            flops: 0,
        })
    }

    /// K.
    pub fn count(&self) -> usize {
        self.seats.len()
    }

    fn count_flops(&mut self, passes: usize) {
        let critic = &self.seats[0].critic;
        let rows = self.x.len() / critic.inputs();
        self.flops += (self.seats.len() * rows * passes * critic.forward_flops()) as u64;
    }

    /// What critics see of states and actions: rows side by side.
    fn see(&mut self, (states, actions): (&[f32], &[f32])) {
        self.x.clear();
        if actions.is_empty() {
            self.x.extend_from_slice(states);
            return;
        }
        let inputs = self.seats[0].critic.inputs();
        let rows = (states.len() + actions.len()) / inputs;
        let (d, a) = (states.len() / rows, actions.len() / rows);
        for (state, action) in states.chunks_exact(d).zip(actions.chunks_exact(a)) {
            self.x.extend_from_slice(state);
            self.x.extend_from_slice(action);
        }
    }

    /// Lets every critic do its part.
    fn each(&mut self, f: impl Fn(usize, &[f32], &mut Seat) + Sync) {
        let Self { seats, pool, x, .. } = self;
        match pool {
            Some(pool) => pool.install(|| {
                seats.par_iter_mut().enumerate().for_each(|(k, seat)| f(k, x, seat));
            }),
            None => seats.iter_mut().enumerate().for_each(|(k, seat)| f(k, x, seat)),
        }
    }

    /// Looks at rows of states and actions with the target networks; see
    /// [`Critics::next_outputs`].
    ///
    /// # Shapes
    ///
    /// States `[B, D]`, actions `[B, A]`, empty for critics of all actions at once.
    pub fn look_ahead(&mut self, rows: (&[f32], &[f32])) {
        self.see(rows);
        self.count_flops(1);
        self.each(|_, x, seat| {
            let y = seat.critic.target_value(x);
            seat.next_outputs.clear();
            seat.next_outputs.extend_from_slice(y);
        });
    }

    /// What the target of critic k gave last: `[B, outputs]`.
    pub fn next_outputs(&self, k: usize) -> &[f32] {
        &self.seats[k].next_outputs
    }

    /// The lowest of the targets' values of row i.
    pub fn lowest_next(&self, i: usize) -> f32 {
        let values = self.seats.iter().map(|seat| seat.next_outputs[i]);
        values.reduce(clipped_double_q).unwrap_or(f32::NAN)
    }

    /// One step of every critic down its loss. `loss` gets a critic's outputs, writes the gradient
    /// in them and returns the loss.
    ///
    /// # Shapes
    ///
    /// States and actions as in [`Critics::look_ahead`]; outputs and gradient `[B, outputs]`.
    ///
    /// # Errors
    ///
    /// The loss if it is not finite.
    pub fn descend(
        &mut self,
        rows: (&[f32], &[f32]),
        learning_rate: f64,
        loss: impl Fn(&[f32], &mut [f32]) -> f64 + Sync,
    ) -> Result<Told, (&'static str, f64)> {
        self.see(rows);
        self.count_flops(3);
        let rows = self.x.len() / self.seats[0].critic.inputs();
        self.flops -= (self.seats.len() * rows * self.first_flops) as u64;
        self.each(|_, x, Seat { critic, dy, told, .. }| {
            let y = critic.value(x);
            dy.clear();
            dy.resize(y.len(), 0.0);
            told.loss = loss(y, dy);
            told.value = y.iter().map(|y| f64::from(*y)).sum::<f64>() / y.len() as f64;
            told.grad_norm = critic.descend(x, dy, learning_rate);
        });
        let mean = |f: fn(&Told) -> f64| {
            self.seats.iter().map(|seat| f(&seat.told)).sum::<f64>() / self.seats.len() as f64
        };
        let loss = mean(|told| told.loss);
        if !loss.is_finite() {
            return Err(("value loss", loss));
        }
        Ok(Told { loss, value: mean(|told| told.value), grad_norm: mean(|told| told.grad_norm) })
    }

    /// Looks at rows of states and actions; see [`Critics::outputs`].
    ///
    /// # Shapes
    ///
    /// As in [`Critics::look_ahead`].
    pub fn look(&mut self, rows: (&[f32], &[f32])) {
        self.see(rows);
        self.count_flops(1);
        self.each(|_, x, Seat { critic, outputs, .. }| {
            outputs.clear();
            outputs.extend_from_slice(critic.value(x));
        });
    }

    /// What critic k gave last: `[B, outputs]`.
    pub fn outputs(&self, k: usize) -> &[f32] {
        &self.seats[k].outputs
    }

    /// The lowest of the values of row i, and whose it is: the first one's of equals.
    pub fn lowest(&self, i: usize) -> (usize, f32) {
        let mut lowest = (0, self.seats[0].outputs[i]);
        for (k, seat) in self.seats.iter().enumerate().skip(1) {
            if seat.outputs[i] < lowest.1 {
                lowest = (k, seat.outputs[i]);
            }
        }
        lowest
    }

    /// The gradient in the actions of an objective whose gradient in the outputs of critic k at
    /// the last [`Critics::look`] is written by `dy`.
    ///
    /// # Shapes
    ///
    /// `dy` writes `[B, outputs]`; result: `[B, A]`.
    pub fn action_gradient(
        &mut self,
        action_len: usize,
        dy: impl Fn(usize, &mut [f32]) + Sync,
    ) -> &[f32] {
        self.count_flops(1);
        self.each(|k, x, seat| {
            seat.dy.clear();
            seat.dy.resize(seat.outputs.len(), 0.0);
            dy(k, &mut seat.dy);
            seat.dx.resize(x.len(), 0.0);
            seat.critic.input_gradient(x, &seat.dy, &mut seat.dx);
        });
        let inputs = self.seats[0].critic.inputs();
        let Self { seats, d_actions, .. } = self;
        d_actions.clear();
        d_actions.resize(seats[0].dx.len() / inputs * action_len, 0.0);
        for seat in seats {
            let rows = seat.dx.chunks_exact(inputs).zip(d_actions.chunks_exact_mut(action_len));
            for (dx, sum) in rows {
                for (sum, &d) in sum.iter_mut().zip(&dx[inputs - action_len..]) {
                    *sum += d;
                }
            }
        }
        d_actions
    }

    /// Moves every target by τ.
    pub fn follow(&mut self) {
        let tau = self.tau;
        self.each(|_, _, seat| seat.critic.follow(tau));
    }
}

impl Persist for Critics {
    fn save(&self, w: &mut StateWriter) {
        self.seats.iter().for_each(|seat| seat.critic.save(w));
    }

    fn load(&mut self, r: &mut StateReader<'_>) -> Result<(), StateError> {
        self.seats.iter_mut().try_for_each(|seat| seat.critic.load(r))
    }
}

/// Products of a network's first layer for one row: a backward pass that needs no gradient in the
/// input leaves them out.
pub fn first_flops(inputs: usize, hidden: &[usize], outputs: usize) -> usize {
    2 * inputs * hidden.first().unwrap_or(&outputs)
}
