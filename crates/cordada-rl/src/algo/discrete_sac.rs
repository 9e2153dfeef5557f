//! Soft actor-critic for a choice among actions: expectations over them are exact sums.
//!
//! # Source
//!
//! Christodoulou 2019, "Soft Actor-Critic for Discrete Action Settings", arXiv:1910.07207.
//!
//! # Algorithm
//!
//! ```text
//! 1  for each round do
//! 2      act a ~ π_θ(· | s), store the transitions
//! 3      draw a batch of transitions (s, a, r, s')
//! 4      step log α down the mean of −log α (Σ_a π log π + H̄)
//! 5      y = r + γ Σ_a' π(a' | s') (min_k Q⁻_k(s', a') − α log π(a' | s'))
//! 6      step each Q_k down the mean of ½ (Q_k(s, a) − y)²
//! 7      step θ up the mean of Σ_a π(a | s) (min_k Q_k(s, a) − α log π(a | s))
//! 8      Q⁻_k ← (1 − τ) Q⁻_k + τ Q_k
//! ```
//!
//! | formula | here |
//! |---|---|
//! | Σ π (min Q − α log π) | [`expected_soft_value`] |
//! | its gradient in the logits | [`fisher_product`](crate::distribution::Distribution::fisher_product) of min Q, α ∇H |
//! | −log α (…) | [`temperature_loss`](crate::objective::temperature_loss) |
//!
//! # Differences from the paper
//!
//! - log α for α in the temperature's loss, the order of steps, and truncation: as in
//!   [`sac`](super::sac).
//! - Forbidden actions have no probability; H̄ is a fraction of log n for the n that are allowed.
//!
//! # Defaults
//!
//! Networks, replay and steps as in [`sac`](super::sac); the paper's H̄ = 0.98 log n.

use cordada_env::{Persist, Space, StateError, StateReader, StateWriter, Stream};
use cordada_nn::kernel::Isa;
use cordada_nn::softmax::log_softmax;
use cordada_nn::{Optimizer, clip_global_norm};

use super::off_policy::{
    Acting, ActorCriticsConfig, Critics, Learner, OffPolicy, ReplayConfig, RunningMeans, Sampled,
    Spaces, Temperature, TemperatureConfig, adam, first_flops,
};
use super::on_policy::{load_optimizer, save_optimizer};
use super::{ANY_OBS, AlgoSpec, Resume};
use crate::config::{Checks, Config, Field};
use crate::error::Error;
use crate::estimate::td_target::{clipped_double_q, expected_soft_value, td_target};
use crate::objective::TdLoss;
use crate::policy::{ActorCritic, ActorCriticSpec, LogStd, PolicyTape, PolicyWeights};
use crate::policy_file::PolicySpec;
use crate::settings::{StepConfig, init_named};

/// Discrete SAC in the list of algorithms.
pub const SPEC: AlgoSpec = AlgoSpec {
    name: "discrete_sac",
    title: "Soft actor-critic for discrete actions",
    paper: "Christodoulou 2019, arXiv:1910.07207",
    on_policy: false,
    accepts: "Discrete action spaces",
    takes: |space| matches!(space, Space::Discrete { .. }),
    observes: ANY_OBS,
    sees: |_| true,
    recurrent: false,
    masks: true,
    resume: Resume::Exact,
    fields: DiscreteSacConfig::FIELDS,
    complete: |table| Ok(DiscreteSacConfig::from_table("discrete_sac", table)?.to_table()),
    make: |setup| Ok(Box::new(make(setup)?)),
};

crate::config! {
    /// Settings of discrete SAC.
    pub struct DiscreteSacConfig {
        /// H̄ as a fraction of log n, the entropy of n allowed actions taken alike; from 0 to 1.
        target_entropy_fraction: f64 = 0.98, alias ["target_entropy_scale"];
    }
    groups {
        /// Temperature.
        temperature: TemperatureConfig = TemperatureConfig::default();
        /// Replay.
        replay: ReplayConfig = ReplayConfig { learning_starts: 100, ..ReplayConfig::default() };
        /// Steps along the gradients, of actor, critics and temperature alike.
        step: StepConfig = adam(3e-4);
        /// Networks.
        networks: ActorCriticsConfig = ActorCriticsConfig::default();
    }
}

impl Config for DiscreteSacConfig {
    const FIELDS: &'static [Field] = DiscreteSacConfig::FIELDS;

    fn check(&self, section: &str) -> Result<(), Error> {
        let check = Checks { section };
        check.unit(&[("target_entropy_fraction", self.target_entropy_fraction)])?;
        self.temperature.check(check)?;
        self.replay.check(check)?;
        self.step.check(check)?;
        self.networks.check(check)
    }
}

/// The learner.
#[derive(Debug)]
pub struct DiscreteSac {
    fraction: f32,
    step: StepConfig,
    network: ActorCritic,
    spec: ActorCriticSpec,
    theta: Vec<f32>,
    weights: PolicyWeights<f32>,
    optimizer: Optimizer<f32>,
    grad: Vec<f32>,
    temperature: Temperature,
    critics: Critics,
    tape: PolicyTape<f32>,
    next_tape: PolicyTape<f32>,
    /// Logits, −∞ where forbidden; and their log-probabilities: `[B, n]`.
    logits: Vec<f32>,
    log_probs: Vec<f32>,
    d_logits: Vec<f32>,
    lowest: Vec<f32>,
    targets: Vec<f32>,
    first_flops: usize,
    flops: u64,
    means: RunningMeans<6>,
}

fn make(setup: &super::Setup<'_>) -> Result<OffPolicy<DiscreteSac>, Error> {
    let config = DiscreteSacConfig::from_table(SPEC.name, setup.settings)?;
    OffPolicy::new(&SPEC, setup, &config.replay, None, |spaces, stream| {
        DiscreteSac::new(&config, &spaces, setup.threads, stream)
    })
}

impl DiscreteSac {
    fn new(
        config: &DiscreteSacConfig,
        spaces: &Spaces<'_>,
        threads: usize,
        stream: &mut Stream,
    ) -> Result<Self, Error> {
        let parts = (&config.networks, &config.step);
        let spec = config.networks.policy_spec(spaces, LogStd::Shared);
        let network = ActorCritic::new(&spec);
        let n = network.distribution().num_params();
        let theta: Vec<f32> = network.init(init_named(&config.networks.init), 0.0, stream);
        let mut weights = network.weights();
        network.pack(&theta, &mut weights);
        Ok(Self {
            fraction: config.target_entropy_fraction as f32,
            step: config.step.clone(),
            optimizer: Optimizer::new(config.step.optimizer(), theta.len())?,
            grad: vec![0.0; theta.len()],
            temperature: Temperature::new(&config.temperature, &config.step)?,
            critics: Critics::new(parts, (2, n), (spaces.inputs, 0), threads, stream)?,
            first_flops: first_flops(spec.inputs, &spec.actor, n),
            network,
            spec,
            theta,
            weights,
            tape: PolicyTape::default(),
            next_tape: PolicyTape::default(),
            logits: Vec::new(),
            log_probs: Vec::new(),
            d_logits: Vec::new(),
            lowest: Vec::new(),
            targets: Vec::new(),
            flops: 0,
            means: RunningMeans::new([
                "train/value_loss",
                "train/value_mean",
                "train/grad_norm",
                "train/actor_loss",
                "train/entropy",
                "train/alpha",
            ]),
        })
    }

    /// log π(· | s) of every row, −∞ for what the masks forbid.
    fn log_probs(&mut self, x: &[f32], masks: &[bool], of_next: bool) {
        let Self { network, weights, logits, log_probs, flops, .. } = self;
        let tape = if of_next { &mut self.next_tape } else { &mut self.tape };
        let (raw, _) = network.forward(weights, x, None, tape);
        logits.clear();
        logits.extend_from_slice(raw);
        for (logit, allowed) in logits.iter_mut().zip(masks) {
            if !allowed {
                *logit = f32::NEG_INFINITY;
            }
        }
        let n = network.distribution().num_params();
        *flops += (logits.len() / n * network.forward_flops()) as u64;
        log_probs.resize(logits.len(), 0.0);
        log_softmax(Isa::detect(), logits, n, log_probs);
    }

    /// Line 5: y of every transition.
    fn targets(&mut self, sampled: &Sampled<'_>, alpha: f32) {
        let n = self.network.distribution().num_params();
        self.log_probs(sampled.next_x, &sampled.batch.next_masks, true);
        let Self { critics, log_probs, targets, .. } = self;
        critics.look_ahead((sampled.next_x, &[]));
        let (q1, q2) = (critics.next_outputs(0), critics.next_outputs(1));
        targets.clear();
        targets.extend(log_probs.chunks_exact(n).enumerate().map(|(i, log_probs)| {
            let row = i * n..(i + 1) * n;
            let value = expected_soft_value(log_probs, &q1[row.clone()], &q2[row], alpha);
            td_target(sampled.batch.rewards[i], sampled.batch.discounts[i], value)
        }));
    }

    /// Lines 4 and 7, with one look at the batch's states. Returns the mean objective of line 7
    /// with its sign turned, and the mean entropy.
    fn improve(&mut self, sampled: &Sampled<'_>, alpha: f32, learning_rate: f64) -> (f64, f64) {
        let n = self.network.distribution().num_params();
        self.log_probs(sampled.x, &sampled.batch.masks, false);
        let Self { network, critics, logits, log_probs, d_logits, lowest, .. } = self;
        critics.look((sampled.x, &[]));
        let (q1, q2) = (critics.outputs(0), critics.outputs(1));
        let (pi, weight) = (network.distribution(), 1.0 / sampled.len() as f32);
        d_logits.resize(logits.len(), 0.0);
        let (mut value_sum, mut entropy_sum, mut target_sum) = (0.0, 0.0, 0.0);
        for (i, d) in d_logits.chunks_exact_mut(n).enumerate() {
            let row = i * n..(i + 1) * n;
            let (q1, q2) = (&q1[row.clone()], &q2[row.clone()]);
            let (logits, mask) = (&logits[row.clone()], sampled.mask(i));
            value_sum += expected_soft_value(&log_probs[row], q1, q2, alpha);
            entropy_sum += pi.entropy(logits, mask);
            let allowed = mask.map_or(n, |mask| mask.iter().filter(|m| **m).count());
            target_sum += self.fraction * (allowed as f32).ln();
            lowest.clear();
            lowest.extend(q1.iter().zip(q2).map(|(&q1, &q2)| clipped_double_q(q1, q2)));
            pi.fisher_product(logits, mask, lowest, d);
            pi.add_entropy_gradient(logits, mask, alpha, d);
            for d in d {
                *d *= weight;
            }
        }
        let (log_prob, target) = (-weight * entropy_sum, weight * target_sum);
        self.temperature.descend(log_prob, target, learning_rate); // line 4
        self.grad.fill(0.0);
        let parts = (Some(&d_logits[..]), None);
        network.backward(&self.weights, sampled.x, &mut self.tape, parts, &mut self.grad);
        let flops = 2 * network.forward_flops() - self.first_flops;
        self.flops += (sampled.len() * flops) as u64;
        clip_global_norm(Isa::detect(), &mut self.grad, self.step.max_grad_norm);
        self.optimizer.ascend(&mut self.theta, &self.grad, learning_rate); // line 7
        network.pack(&self.theta, &mut self.weights);
        (-f64::from(weight * value_sum), -f64::from(log_prob))
    }
}

impl Learner for DiscreteSac {
    fn act(&mut self, acting: &mut Acting<'_>) {
        self.log_probs(acting.x, acting.masks.unwrap_or(&[]), true);
        let pi = self.network.distribution();
        let rows = self.logits.chunks_exact(pi.num_params()).enumerate();
        for (env, logits) in rows {
            let mask = acting.masks.map(|masks| &masks[env * logits.len()..][..logits.len()]);
            let action = &mut acting.actions[env..=env];
            pi.sample(logits, mask, &mut acting.streams[env], action);
        }
    }

    fn update(&mut self, sampled: &mut Sampled<'_>) -> Result<(), (&'static str, f64)> {
        let learning_rate = self.step.learning_rate.at(sampled.progress);
        let alpha = self.temperature.alpha();
        self.targets(sampled, alpha); // line 5
        let n = self.network.distribution().num_params();
        let Self { critics, targets, .. } = self;
        let (weight, actions) = (1.0 / sampled.len() as f32, &sampled.batch.actions);
        let told = critics.descend((sampled.x, &[]), learning_rate, |values, d_values| {
            let mut sum = 0.0;
            for (i, (&target, &action)) in targets.iter().zip(actions).enumerate() {
                let at = i * n + action as usize;
                let term = TdLoss::Squared.of(values[at], target);
                d_values[at] = weight * term.d_value;
                sum += f64::from(weight * term.loss);
            }
            sum
        })?; // line 6
        let (actor_loss, entropy) = self.improve(sampled, alpha, learning_rate); // lines 4 and 7
        self.critics.follow(); // line 8
        let alpha = f64::from(alpha);
        self.means.add([told.loss, told.value, told.grad_norm, actor_loss, entropy, alpha]);
        Ok(())
    }

    fn metrics(&mut self, progress: f64, metrics: &mut Vec<(&'static str, f64)>) {
        self.means.take(metrics);
        metrics.push(("train/learning_rate", self.step.learning_rate.at(progress)));
    }

    fn flops(&self) -> u64 {
        self.flops + self.critics.flops
    }

    fn values(&mut self, x: &[f32]) -> Vec<f32> {
        let n = self.network.distribution().num_params();
        self.log_probs(x, &[], true);
        let Self { critics, log_probs, .. } = self;
        critics.look((x, &[]));
        let (q1, q2) = (critics.outputs(0), critics.outputs(1));
        let rows = log_probs.chunks_exact(n).zip(q1.chunks_exact(n).zip(q2.chunks_exact(n)));
        rows.map(|(log_probs, (q1, q2))| expected_soft_value(log_probs, q1, q2, 0.0)).collect()
    }

    fn spec(&self) -> PolicySpec {
        PolicySpec::ActorCritic(self.spec.clone())
    }

    fn theta(&self) -> &[f32] {
        &self.theta
    }

    fn save(&self, w: &mut StateWriter) {
        save_optimizer(&self.optimizer, w);
        self.temperature.save(w);
        self.critics.save(w);
    }

    fn load(&mut self, theta: &[f32], r: &mut StateReader<'_>) -> Result<(), StateError> {
        self.theta.copy_from_slice(theta);
        self.network.pack(&self.theta, &mut self.weights);
        load_optimizer(&mut self.optimizer, r)?;
        self.temperature.load(r)?;
        self.critics.load(r)
    }
}
