//! What learners of action values share: the network with its target, how it acts, and the step
//! down a loss. What the loss is, is the algorithm's.

use std::fmt;

use cordada_env::{Space, StateError, StateReader, StateWriter, Stream};
use cordada_nn::kernel::Isa;
use cordada_nn::{Optimizer, Schedule, clip_global_norm};

use super::{Acting, Learner, RunningMeans, Sampled, Spaces};
use crate::algo::on_policy::{load_optimizer, save_optimizer};
use crate::config::Checks;
use crate::error::Error;
use crate::estimate::td_target::max_value;
use crate::explore::epsilon_greedy;
use crate::policy::{QNetwork, QSpec, QTape, QWeights, SupportSpec};
use crate::policy_file::PolicySpec;
use crate::settings::{EncoderSetting, StepConfig, check_layers, check_names, init_named};
use crate::target::blend;

crate::config! {
    /// The network of action values, how it explores, and its target.
    pub struct QNetworkConfig {
        /// Hidden layers.
        hidden: Vec<usize> = vec![64, 64];
        /// Whether values and advantages have heads of their own (Wang et al. 2016).
        dueling: bool = false;
        /// "tanh", "relu", "leaky_relu", "elu", "silu", "gelu" or "gelu_tanh".
        activation: String = "relu".to_string(), alias ["activation_fn"];
        /// Whether hidden layers are normalized (LayerNorm) before their activation.
        layer_norm: bool = false;
        /// "orthogonal", "kaiming_uniform", "kaiming_normal", "xavier_uniform" or "xavier_normal".
        init: String = "orthogonal".to_string();
        /// "auto" (convolutions for images of at least 36×36), "flat" or "nature_cnn".
        encoder: EncoderSetting = EncoderSetting::Auto;
        /// ε, share of random actions: a schedule over the run.
        #[serde(with = "crate::config::schedule")]
        epsilon: Schedule = Schedule::Piecewise(vec![(0.0, 1.0), (0.1, 0.05)]);
        /// Steps between two renewals of the target network; at least 1.
        target_interval: usize = 1_000, alias ["target_update_interval", "target_network_frequency"];
        /// τ, how far a renewal moves the target: 1 is a copy.
        tau: f64 = 1.0;
    }
}

impl QNetworkConfig {
    /// Checks ranges.
    ///
    /// # Errors
    ///
    /// [`Error::BadValue`] for the first setting that cannot be used.
    pub fn check(&self, check: Checks<'_>) -> Result<(), Error> {
        check_layers(check, &[("hidden", &self.hidden)])?;
        check_names(check, &self.activation, &self.init)?;
        check.schedules(&[("epsilon", &self.epsilon)])?;
        check.counts(&[("target_interval", self.target_interval)])?;
        check.unit(&[("tau", self.tau)])
    }
}

/// A network of action values that learns.
#[derive(Debug)]
pub struct QLearner {
    config: QNetworkConfig,
    step: StepConfig,
    /// The network.
    pub network: QNetwork,
    spec: QSpec,
    /// θ.
    theta: Vec<f32>,
    weights: QWeights<f32>,
    target: Vec<f32>,
    target_weights: QWeights<f32>,
    optimizer: Optimizer<f32>,
    grad: Vec<f32>,
    tape: QTape<f32>,
    target_tape: QTape<f32>,
    next_tape: QTape<f32>,
    values: Vec<f32>,
    /// Steps at the target's last renewal.
    renewed: u64,
    /// Floating-point operations of the network's products so far.
    flops: u64,
    means: RunningMeans<3>,
}

impl QLearner {
    /// A learner at its start.
    ///
    /// # Errors
    ///
    /// [`Error::BadValue`] if a setting does not fit the observations.
    pub fn new(
        check: Checks<'_>,
        (config, step): (&QNetworkConfig, &StepConfig),
        support: Option<SupportSpec>,
        spaces: &Spaces<'_>,
        stream: &mut Stream,
    ) -> Result<Self, Error> {
        let Space::Discrete { n } = *spaces.actions else {
            unreachable!("the list says that it takes Discrete actions alone")
        };
        let spec = QSpec {
            inputs: spaces.inputs,
            num_actions: n,
            encoder: config.encoder.encoder(check, spaces.obs)?,
            hidden: config.hidden.clone(),
            dueling: config.dueling,
            support,
            activation: config.activation.clone(),
            layer_norm: config.layer_norm,
            epsilon: config.epsilon.at(1.0),
        };
        let network = QNetwork::new(&spec);
        let theta: Vec<f32> = network.init(init_named(&config.init), stream);
        let mut weights = network.weights();
        network.pack(&theta, &mut weights);
        Ok(Self {
            config: config.clone(),
            step: step.clone(),
            optimizer: Optimizer::new(step.optimizer(), theta.len())?,
            target: theta.clone(),
            target_weights: weights.clone(),
            grad: vec![0.0; theta.len()],
            tape: QTape::default(),
            target_tape: QTape::default(),
            next_tape: QTape::default(),
            values: Vec::new(),
            renewed: 0,
            flops: 0,
            means: RunningMeans::new(["train/value_loss", "train/value_mean", "train/grad_norm"]),
            network,
            spec,
            theta,
            weights,
        })
    }

    /// Keeps what an update tells: mean loss, mean value, the gradient's length.
    pub fn tell(&mut self, told: [f64; 3]) {
        self.means.add(told);
    }
}

/// What a learner of action values adds: its loss.
pub trait QMethod: Send + fmt::Debug {
    /// The shared part.
    fn q(&self) -> &QLearner;

    /// The same, to change it.
    fn q_mut(&mut self) -> &mut QLearner;

    /// Learns once from a batch; see [`Learner::update`].
    ///
    /// # Errors
    ///
    /// What must be finite and is not, with its value.
    fn learn(&mut self, sampled: &Sampled<'_>) -> Result<(), (&'static str, f64)>;

    /// How wrong each transition of the last batch was, for replay by priority: `[B]`.
    fn errors(&self) -> &[f32];
}

impl<Q: QMethod> Learner for Q {
    fn act(&mut self, acting: &mut Acting<'_>) {
        self.q_mut().act(acting);
    }

    fn update(&mut self, sampled: &mut Sampled<'_>) -> Result<(), (&'static str, f64)> {
        self.q_mut().renew_target(sampled.steps);
        self.learn(sampled)
    }

    fn td_errors(&self) -> &[f32] {
        self.errors()
    }

    fn metrics(&mut self, progress: f64, metrics: &mut Vec<(&'static str, f64)>) {
        let QLearner { config, step, means, .. } = self.q_mut();
        means.take(metrics);
        metrics.push(("train/learning_rate", step.learning_rate.at(progress)));
        metrics.push(("train/epsilon", config.epsilon.at(progress)));
    }

    fn flops(&self) -> u64 {
        self.q().flops
    }

    fn values(&mut self, x: &[f32]) -> Vec<f32> {
        self.q_mut().best_values(x)
    }

    fn spec(&self) -> PolicySpec {
        PolicySpec::ActionValues(self.q().spec.clone())
    }

    fn theta(&self) -> &[f32] {
        &self.q().theta
    }

    fn save(&self, w: &mut StateWriter) {
        let QLearner { target, renewed, optimizer, .. } = self.q();
        w.f32s(target);
        w.u64(*renewed);
        save_optimizer(optimizer, w);
    }

    fn load(&mut self, theta: &[f32], r: &mut StateReader<'_>) -> Result<(), StateError> {
        let q = self.q_mut();
        q.theta.copy_from_slice(theta);
        q.network.pack(&q.theta, &mut q.weights);
        r.f32s_into(&mut q.target)?;
        q.network.pack(&q.target, &mut q.target_weights);
        q.renewed = r.u64()?;
        load_optimizer(&mut q.optimizer, r)
    }
}

impl QLearner {
    /// ε-greedy actions.
    fn act(&mut self, acting: &mut Acting<'_>) {
        let epsilon = self.config.epsilon.at(acting.progress);
        self.count_flops(acting.streams.len(), 1);
        let outputs = self.network.forward(&self.weights, acting.x, &mut self.tape);
        self.network.values(outputs, &mut self.values);
        for (env, values) in self.values.chunks_exact(self.network.num_actions()).enumerate() {
            let chosen = {
                let mask = acting.masks.map(|masks| {
                    let m = values.len();
                    &masks[env * m..(env + 1) * m]
                });
                epsilon_greedy(values, mask, epsilon, &mut acting.streams[env])
            };
            acting.actions[env] = chosen as f32;
        }
    }

    /// The largest action value of each row of inputs.
    fn best_values(&mut self, x: &[f32]) -> Vec<f32> {
        let outputs = self.network.forward(&self.weights, x, &mut self.tape);
        self.network.values(outputs, &mut self.values);
        self.values.chunks_exact(self.network.num_actions()).map(|q| max_value(q, None)).collect()
    }

    /// Renews the target network if it is time.
    fn renew_target(&mut self, steps: u64) {
        if steps - self.renewed < self.config.target_interval as u64 {
            return;
        }
        self.renewed = steps;
        blend(Isa::detect(), self.config.tau as f32, &self.theta, &mut self.target);
        self.network.pack(&self.target, &mut self.target_weights);
    }

    fn count_flops(&mut self, rows: usize, passes: usize) {
        self.flops += (rows * passes * self.network.forward_flops()) as u64;
    }

    /// The target network's outputs in the next states.
    pub fn next_outputs(&mut self, sampled: &Sampled<'_>) -> &[f32] {
        self.count_flops(sampled.len(), 1);
        self.network.forward(&self.target_weights, sampled.next_x, &mut self.target_tape)
    }

    /// The target network's and the network's own outputs in the next states, for Double DQN.
    pub fn next_outputs_of_both(&mut self, sampled: &Sampled<'_>) -> (&[f32], &[f32]) {
        self.count_flops(sampled.len(), 2);
        let Self { network, target_weights, target_tape, weights, next_tape, .. } = self;
        let judging = network.forward(target_weights, sampled.next_x, target_tape);
        (judging, network.forward(weights, sampled.next_x, next_tape))
    }

    /// The network's outputs in the states that were acted in; [`QLearner::descend`] goes back from
    /// here.
    pub fn outputs(&mut self, sampled: &Sampled<'_>) -> &[f32] {
        self.network.forward(&self.weights, sampled.x, &mut self.tape)
    }

    /// One step down a loss whose gradient in the last [`QLearner::outputs`] is `dy`. Returns the
    /// gradient's length.
    pub fn descend(&mut self, sampled: &Sampled<'_>, dy: &[f32]) -> f64 {
        // Forward, back to the hidden layers, back to the weights.
        self.count_flops(sampled.len(), 3);
        let Self { network, weights, tape, grad, .. } = self;
        grad.fill(0.0);
        network.backward(weights, sampled.x, tape, dy, grad);
        let norm = clip_global_norm(Isa::detect(), grad, self.step.max_grad_norm);
        let learning_rate = self.step.learning_rate.at(sampled.progress);
        self.optimizer.descend(&mut self.theta, grad, learning_rate);
        network.pack(&self.theta, weights);
        norm
    }
}
