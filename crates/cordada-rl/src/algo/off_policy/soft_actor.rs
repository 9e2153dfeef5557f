//! What learners of a soft policy for real-valued actions share (SAC, TQC): how the actor acts,
//! actions with the noise that made them, the step through a critic's gradient, the temperature.

use cordada_env::{Space, StateError, StateReader, StateWriter, Stream};
use cordada_nn::kernel::{Isa, Task};
use cordada_nn::{Optimizer, clip_global_norm};

use super::critics::{ActorCriticsConfig, first_flops};
use super::{Acting, ActionScale, Spaces};
use crate::algo::on_policy::{load_optimizer, save_optimizer};
use crate::config::Checks;
use crate::distribution::SquashedGaussian;
use crate::error::Error;
use crate::objective::temperature_loss;
use crate::policy::{ActorCritic, ActorCriticSpec, LogStd, PolicyTape, PolicyWeights};
use crate::settings::{StepConfig, init_named};

/// Range of log σ, beyond which it has no gradient (appendix D of arXiv:1812.05905's program).
const LOG_STD: (f32, f32) = (-20.0, 2.0);

crate::config! {
    /// The temperature α of a soft policy.
    pub struct TemperatureConfig {
        /// α, what a nat of entropy is worth: a number above 0, or "auto" to learn it.
        #[serde(with = "crate::config::auto")]
        alpha: Option<f64> = None, alias ["ent_coef"];
        /// α at the start where it is learned; above 0.
        alpha_init: f64 = 1.0;
    }
}

crate::config! {
    /// How a soft policy explores.
    pub struct NoiseConfig {
        /// ρ, correlation of the noise of one step with that of the next, from 0 (none) to below 1.
        noise_correlation: f64 = 0.0;
    }
}

impl NoiseConfig {
    /// Checks ranges.
    ///
    /// # Errors
    ///
    /// [`Error::BadValue`] if ρ is out of range.
    pub fn check(&self, check: Checks<'_>) -> Result<(), Error> {
        let fits = |x: f64| (0.0..1.0).contains(&x);
        check.number("noise_correlation", self.noise_correlation, fits, "from 0 to below 1")
    }
}

impl TemperatureConfig {
    /// Checks ranges.
    ///
    /// # Errors
    ///
    /// [`Error::BadValue`] for the first setting that cannot be used.
    pub fn check(&self, check: Checks<'_>) -> Result<(), Error> {
        let fits = |x: f64| x > 0.0 && x.is_finite();
        check.number("alpha", self.alpha.unwrap_or(1.0), fits, "\"auto\" or a number above 0")?;
        check.number("alpha_init", self.alpha_init, fits, "a number above 0")
    }
}

/// α, learned so that the policy has the entropy that it should have, or fixed.
#[derive(Debug)]
pub struct Temperature {
    log_alpha: [f32; 1],
    /// None where α is fixed.
    optimizer: Option<Optimizer<f32>>,
}

impl Temperature {
    /// At its start.
    ///
    /// # Errors
    ///
    /// If the optimizer's numbers are out of range.
    pub fn new(config: &TemperatureConfig, step: &StepConfig) -> Result<Self, Error> {
        let start = config.alpha.unwrap_or(config.alpha_init);
        let optimizer = config.alpha.is_none().then(|| Optimizer::new(step.optimizer(), 1));
        Ok(Self { log_alpha: [start.ln() as f32], optimizer: optimizer.transpose()? })
    }

    /// α.
    pub fn alpha(&self) -> f32 {
        self.log_alpha[0].exp()
    }

    /// One step, if α is learned.
    ///
    /// # Units
    ///
    /// `log_prob` is the batch's mean log π, `target_entropy` H̄, both in nats.
    pub fn descend(&mut self, log_prob: f32, target_entropy: f32, learning_rate: f64) {
        let Some(optimizer) = &mut self.optimizer else { return };
        let term = temperature_loss(self.log_alpha[0], log_prob, target_entropy);
        optimizer.descend(&mut self.log_alpha, &[term.d_log_alpha], learning_rate);
    }

    /// Writes its state.
    pub fn save(&self, w: &mut StateWriter) {
        w.f32(self.log_alpha[0]);
        if let Some(optimizer) = &self.optimizer {
            save_optimizer(optimizer, w);
        }
    }

    /// Restores what `save` wrote.
    ///
    /// # Errors
    ///
    /// If sizes differ.
    pub fn load(&mut self, r: &mut StateReader<'_>) -> Result<(), StateError> {
        self.log_alpha[0] = r.f32()?;
        self.optimizer.as_mut().map_or(Ok(()), |optimizer| load_optimizer(optimizer, r))
    }
}

/// Actions drawn for a batch of states, with what the gradient through them needs.
#[derive(Debug, Default)]
pub struct Drawn {
    tape: PolicyTape<f32>,
    /// Standard normal numbers: `[B, A]`.
    noise: Vec<f32>,
    /// Means, and log σ within its range: `[B, 2 A]`.
    params: Vec<f32>,
    /// In [−1, 1]: `[B, A]`.
    pub actions: Vec<f32>,
    /// `[B]`
    pub log_probs: Vec<f32>,
}

impl Drawn {
    /// Mean log π(a | s).
    pub fn mean_log_prob(&self) -> f32 {
        self.log_probs.iter().sum::<f32>() / self.log_probs.len() as f32
    }
}

/// The actor: a normal distribution squashed into [−1, 1], which is then scaled to the box.
#[derive(Debug)]
pub struct SoftActor {
    network: ActorCritic,
    spec: ActorCriticSpec,
    pi: SquashedGaussian,
    scale: ActionScale,
    action_len: usize,
    /// θ.
    pub theta: Vec<f32>,
    weights: PolicyWeights<f32>,
    optimizer: Optimizer<f32>,
    max_grad_norm: f64,
    grad: Vec<f32>,
    d_params: Vec<f32>,
    /// For acting: ρ, and the last noise of every environment, `[N, A]`.
    correlation: f64,
    noises: Vec<f64>,
    drawn: Drawn,
    boxed: Vec<f32>,
    first_flops: usize,
    /// Floating-point operations of the network's products so far.
    pub flops: u64,
}

impl SoftActor {
    /// Whether a learner with such an actor takes the action space: a bounded box.
    pub fn takes(space: &Space) -> bool {
        matches!(space, Space::Box(bounds) if bounds.is_bounded())
    }

    /// An actor at its start, with mean about 0 and σ about 1 before squashing.
    ///
    /// # Errors
    ///
    /// If the optimizer's numbers are out of range.
    pub fn new(
        (config, step): (&ActorCriticsConfig, &StepConfig),
        (noise, num_envs): (&NoiseConfig, usize),
        spaces: &Spaces<'_>,
        stream: &mut Stream,
    ) -> Result<Self, Error> {
        let spec = config.policy_spec(spaces, LogStd::PerState);
        let network = ActorCritic::new(&spec);
        let theta: Vec<f32> = network.init(init_named(&config.init), 0.0, stream);
        let mut weights = network.weights();
        network.pack(&theta, &mut weights);
        let action_len = spaces.actions.len();
        Ok(Self {
            pi: SquashedGaussian::new(action_len),
            scale: ActionScale::new(spaces.actions),
            action_len,
            optimizer: Optimizer::new(step.optimizer(), theta.len())?,
            max_grad_norm: step.max_grad_norm,
            grad: vec![0.0; theta.len()],
            d_params: Vec::new(),
            correlation: noise.noise_correlation,
            noises: vec![0.0; num_envs * action_len],
            drawn: Drawn::default(),
            boxed: Vec::new(),
            first_flops: first_flops(spec.inputs, &spec.actor, 2 * action_len),
            flops: 0,
            network,
            spec,
            theta,
            weights,
        })
    }

    /// Shape of the policy.
    pub fn spec(&self) -> &ActorCriticSpec {
        &self.spec
    }

    /// A, numbers of an action.
    pub fn action_len(&self) -> usize {
        self.action_len
    }

    /// Draws an action for every environment, from its own stream. Each is distributed as the
    /// policy says; with ρ > 0 the noise ε of an episode's steps is correlated:
    ///
    /// ```text
    /// ε ← ρ ε + √(1 − ρ²) z,   z ~ N(0, 1);   ε = z where an episode begins
    /// ```
    ///
    /// # Source
    ///
    /// Eberhard et al. 2023, "Pink Noise Is All You Need", ICLR: correlated noise, here of the
    /// first order.
    pub fn act(&mut self, acting: &mut Acting<'_>) {
        let (a, rho) = (self.action_len, self.correlation);
        let fresh = (1.0 - rho * rho).sqrt();
        let mut drawn = std::mem::take(&mut self.drawn);
        let mut noises = std::mem::take(&mut self.noises);
        self.draw(acting.x, &mut drawn, |i| {
            let z = acting.streams[i / a].normal();
            noises[i] = if acting.begun[i / a] { z } else { rho * noises[i] + fresh * z };
            noises[i]
        });
        acting.actions.copy_from_slice(&drawn.actions);
        self.scale.to_box(acting.actions);
        (self.drawn, self.noises) = (drawn, noises);
    }

    /// The environment's actions as the critics see them, in [−1, 1].
    pub fn from_box(&mut self, actions: &[f32]) -> &[f32] {
        self.boxed.clear();
        self.boxed.extend_from_slice(actions);
        self.scale.from_box(&mut self.boxed);
        &self.boxed
    }

    /// Draws an action for every row; `normal` gives the standard normal number for each place of
    /// `[B, A]`, in order.
    ///
    /// # Shapes
    ///
    /// `x`: `[B, inputs]`.
    pub fn draw(&mut self, x: &[f32], drawn: &mut Drawn, mut normal: impl FnMut(usize) -> f64) {
        let a = self.action_len;
        let Drawn { tape, noise, params, actions, log_probs } = drawn;
        let (raw, _) = self.network.forward(&self.weights, x, None, tape);
        params.clear();
        params.extend_from_slice(raw);
        let rows = params.len() / (2 * a);
        self.flops += (rows * self.network.forward_flops()) as u64;
        noise.clear();
        noise.extend((0..rows * a).map(|i| normal(i) as f32));
        actions.resize(rows * a, 0.0);
        log_probs.resize(rows, 0.0);
        Isa::detect().run(Reparametrize { pi: &self.pi, a, params, noise, actions, log_probs });
    }

    /// One step up the mean of Q(s, a) − α log π(a | s), through the actions of the last
    /// [`SoftActor::draw`] into `drawn`.
    ///
    /// # Shapes
    ///
    /// `x`: `[B, inputs]`; `d_actions`: the gradient of the mean Q in the actions, `[B, A]`.
    pub fn ascend(
        &mut self,
        x: &[f32],
        drawn: &mut Drawn,
        d_actions: &[f32],
        alpha: f32,
        learning_rate: f64,
    ) {
        let rows = drawn.log_probs.len();
        self.d_params.clear();
        self.d_params.resize(drawn.params.len(), 0.0);
        Isa::detect().run(Pathwise {
            pi: &self.pi,
            a: self.action_len,
            drawn: (&drawn.params, &drawn.noise),
            d_actions,
            d_log_prob: -alpha / rows as f32,
            d_params: &mut self.d_params,
        });
        self.flops += (rows * (2 * self.network.forward_flops() - self.first_flops)) as u64;
        self.grad.fill(0.0);
        let (tape, d_params) = (&mut drawn.tape, Some(&self.d_params[..]));
        self.network.backward(&self.weights, x, tape, (d_params, None), &mut self.grad);
        clip_global_norm(Isa::detect(), &mut self.grad, self.max_grad_norm);
        self.optimizer.ascend(&mut self.theta, &self.grad, learning_rate);
        self.network.pack(&self.theta, &mut self.weights);
    }

    /// Writes everything but θ.
    pub fn save(&self, w: &mut StateWriter) {
        save_optimizer(&self.optimizer, w);
        w.f64s(&self.noises);
    }

    /// Restores what was saved, and θ.
    ///
    /// # Errors
    ///
    /// If sizes differ.
    pub fn load(&mut self, theta: &[f32], r: &mut StateReader<'_>) -> Result<(), StateError> {
        self.theta.copy_from_slice(theta);
        self.network.pack(&self.theta, &mut self.weights);
        load_optimizer(&mut self.optimizer, r)?;
        r.f64s_into(&mut self.noises)
    }
}

/// Limits log σ, and makes actions and their log-probabilities of the noise.
struct Reparametrize<'a> {
    pi: &'a SquashedGaussian,
    a: usize,
    params: &'a mut [f32],
    noise: &'a [f32],
    actions: &'a mut [f32],
    log_probs: &'a mut [f32],
}

impl Task for Reparametrize<'_> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        let Self { pi, a, params, noise, actions, log_probs } = self;
        let rows = params.chunks_exact_mut(2 * a).zip(noise.chunks_exact(a));
        for ((params, noise), (action, log_prob)) in
            rows.zip(actions.chunks_exact_mut(a).zip(log_probs))
        {
            for log_std in &mut params[a..] {
                *log_std = log_std.clamp(LOG_STD.0, LOG_STD.1);
            }
            *log_prob = pi.reparametrize(params, noise, action);
        }
    }
}

/// The gradient of Σ `d_action` · a + `d_log_prob` · log π(a) in the parameters, row by row.
struct Pathwise<'a> {
    pi: &'a SquashedGaussian,
    a: usize,
    drawn: (&'a [f32], &'a [f32]),
    d_actions: &'a [f32],
    d_log_prob: f32,
    d_params: &'a mut [f32],
}

impl Task for Pathwise<'_> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        let Self { pi, a, drawn: (params, noise), d_actions, d_log_prob, d_params } = self;
        let rows = params.chunks_exact(2 * a).zip(noise.chunks_exact(a));
        for ((params, noise), (d_action, d)) in
            rows.zip(d_actions.chunks_exact(a).zip(d_params.chunks_exact_mut(2 * a)))
        {
            pi.add_reparametrized_gradient(params, noise, d_action, d_log_prob, d);
            for (d, log_std) in d[a..].iter_mut().zip(&params[a..]) {
                // Where it was limited, the network cannot move it.
                if *log_std <= LOG_STD.0 || *log_std >= LOG_STD.1 {
                    *d = 0.0;
                }
            }
        }
    }
}
