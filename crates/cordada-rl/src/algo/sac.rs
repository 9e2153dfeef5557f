//! Soft actor-critic: the actor goes up the gradient of the critics' value, and of its own entropy.
//!
//! # Source
//!
//! Haarnoja et al. 2018, "Soft Actor-Critic Algorithms and Applications", arXiv:1812.05905.
//!
//! # Algorithm
//!
//! ```text
//! 1  for each round do
//! 2      act a ~ π_θ(· | s), store the transitions
//! 3      draw a batch of transitions (s, a, r, s')
//! 4      ã ~ π_θ(· | s);  step log α down the mean of −log α (log π(ã | s) + H̄)
//! 5      a' ~ π_θ(· | s');  y = r + γ (min_k Q⁻_k(s', a') − α log π(a' | s'))
//! 6      step each Q_k down the mean of ½ (Q_k(s, a) − y)²
//! 7      step θ up the mean of min_k Q_k(s, ã) − α log π(ã | s), through ã
//! 8      Q⁻_k ← (1 − τ) Q⁻_k + τ Q_k
//! ```
//!
//! | formula | here |
//! |---|---|
//! | −log α (log π + H̄) | [`temperature_loss`](crate::objective::temperature_loss) |
//! | min Q⁻ − α log π, y | [`td_target`](crate::estimate::td_target) |
//! | ã = tanh(μ + σ ε), log π(ã), ∂ã/∂θ | [`SquashedGaussian`](crate::distribution::SquashedGaussian) |
//! | Q⁻ ← (1 − τ) Q⁻ + τ Q | [`blend`](crate::target::blend) |
//!
//! # Differences from the paper
//!
//! - The temperature's loss has log α for α, as the authors' program and stable-baselines3 have it.
//! - The order of steps is that of stable-baselines3; α in lines 5 and 7 is the one before line 4.
//! - log π is exact: no 10⁻⁶ is added to 1 − tanh².
//! - A truncated episode bootstraps from its true last observation.
//!
//! # Defaults
//!
//! Those of stable-baselines3's `SAC`, but for orthogonal initial weights.

use cordada_env::{Persist, StateError, StateReader, StateWriter};

use super::off_policy::{
    Acting, ActorCriticsConfig, Critics, Drawn, Learner, NoiseConfig, OffPolicy, ReplayConfig,
    RunningMeans, Sampled, SoftActor, Temperature, TemperatureConfig, adam,
};
use super::{ANY_OBS, AlgoSpec, Resume};
use crate::config::{Checks, Config, Field};
use crate::error::Error;
use crate::estimate::td_target::{soft_value, td_target};
use crate::objective::TdLoss;
use crate::policy_file::PolicySpec;
use crate::settings::StepConfig;

/// SAC in the list of algorithms.
pub const SPEC: AlgoSpec = AlgoSpec {
    name: "sac",
    title: "Soft actor-critic",
    paper: "Haarnoja et al. 2018, arXiv:1812.05905",
    on_policy: false,
    accepts: "bounded Box action spaces",
    takes: SoftActor::takes,
    observes: ANY_OBS,
    sees: |_| true,
    recurrent: false,
    masks: false,
    resume: Resume::Exact,
    fields: SacConfig::FIELDS,
    complete: |table| Ok(SacConfig::from_table("sac", table)?.to_table()),
    make: |setup| Ok(Box::new(make(setup)?)),
};

crate::config! {
    /// Settings of SAC.
    pub struct SacConfig {
        /// H̄, entropy that α aims at, in nats, for actions in [−1, 1]; "auto" is −A for A numbers.
        #[serde(with = "crate::config::auto")]
        target_entropy: Option<f64> = None;
    }
    groups {
        /// Temperature.
        temperature: TemperatureConfig = TemperatureConfig::default();
        /// Exploration.
        noise: NoiseConfig = NoiseConfig::default();
        /// Replay.
        replay: ReplayConfig = ReplayConfig { learning_starts: 100, ..ReplayConfig::default() };
        /// Steps along the gradients, of actor, critics and temperature alike.
        step: StepConfig = adam(3e-4);
        /// Networks.
        networks: ActorCriticsConfig = ActorCriticsConfig::default();
    }
}

impl Config for SacConfig {
    const FIELDS: &'static [Field] = SacConfig::FIELDS;

    fn check(&self, section: &str) -> Result<(), Error> {
        let check = Checks { section };
        let finite = self.target_entropy.unwrap_or(0.0);
        check.number("target_entropy", finite, f64::is_finite, "\"auto\" or a finite number")?;
        self.temperature.check(check)?;
        self.noise.check(check)?;
        self.replay.check(check)?;
        self.step.check(check)?;
        self.networks.check(check)
    }
}

/// The learner.
#[derive(Debug)]
pub struct Sac {
    step: StepConfig,
    target_entropy: f32,
    actor: SoftActor,
    temperature: Temperature,
    critics: Critics,
    /// ã for the batch's states, a' for what followed.
    now: Drawn,
    next: Drawn,
    targets: Vec<f32>,
    /// Which critic's value is the lowest: `[B]`.
    lowest: Vec<usize>,
    means: RunningMeans<6>,
}

fn make(setup: &super::Setup<'_>) -> Result<OffPolicy<Sac>, Error> {
    let config = SacConfig::from_table(SPEC.name, setup.settings)?;
    OffPolicy::new(&SPEC, setup, &config.replay, None, |spaces, stream| {
        let parts = (&config.networks, &config.step);
        let noise = (&config.noise, config.replay.num_envs);
        let actor = SoftActor::new(parts, noise, &spaces, stream)?;
        let a = actor.action_len();
        Ok(Sac {
            critics: Critics::new(parts, (2, 1), (spaces.inputs, a), setup.threads, stream)?,
            temperature: Temperature::new(&config.temperature, &config.step)?,
            target_entropy: config.target_entropy.unwrap_or(-(a as f64)) as f32,
            step: config.step.clone(),
            actor,
            now: Drawn::default(),
            next: Drawn::default(),
            targets: Vec::new(),
            lowest: Vec::new(),
            means: RunningMeans::new([
                "train/value_loss",
                "train/value_mean",
                "train/grad_norm",
                "train/actor_loss",
                "train/entropy",
                "train/alpha",
            ]),
        })
    })
}

impl Sac {
    /// Line 5: y of every transition.
    fn targets(&mut self, sampled: &mut Sampled<'_>, alpha: f32) {
        let Self { actor, critics, next, targets, .. } = self;
        let Sampled { next_x, batch, stream, .. } = sampled;
        actor.draw(next_x, next, |_| stream.normal());
        critics.look_ahead((next_x, &next.actions));
        targets.clear();
        targets.extend(next.log_probs.iter().enumerate().map(|(i, &log_prob)| {
            let value = soft_value(critics.lowest_next(i), alpha, log_prob);
            td_target(batch.rewards[i], batch.discounts[i], value)
        }));
    }

    /// Line 7. Returns the mean of α log π − min Q.
    fn improve(&mut self, sampled: &Sampled<'_>, alpha: f32, learning_rate: f64) -> f64 {
        let Self { actor, critics, now, lowest, .. } = self;
        critics.look((sampled.x, &now.actions));
        let weight = 1.0 / sampled.len() as f32;
        let mut loss = 0.0;
        lowest.clear();
        for (i, &log_prob) in now.log_probs.iter().enumerate() {
            let (k, value) = critics.lowest(i);
            lowest.push(k);
            loss -= f64::from(weight * soft_value(value, alpha, log_prob));
        }
        let d_actions = critics.action_gradient(actor.action_len(), |k, dy| {
            for (dy, &lowest) in dy.iter_mut().zip(&*lowest) {
                *dy = if lowest == k { weight } else { 0.0 };
            }
        });
        actor.ascend(sampled.x, now, d_actions, alpha, learning_rate);
        loss
    }
}

impl Learner for Sac {
    fn act(&mut self, acting: &mut Acting<'_>) {
        self.actor.act(acting);
    }

    fn update(&mut self, sampled: &mut Sampled<'_>) -> Result<(), (&'static str, f64)> {
        let learning_rate = self.step.learning_rate.at(sampled.progress);
        let alpha = self.temperature.alpha();
        self.actor.draw(sampled.x, &mut self.now, |_| sampled.stream.normal());
        let log_prob = self.now.mean_log_prob();
        self.temperature.descend(log_prob, self.target_entropy, learning_rate); // line 4
        self.targets(sampled, alpha); // line 5
        let Self { actor, critics, targets, .. } = self;
        let weight = 1.0 / sampled.len() as f32;
        let actions = actor.from_box(&sampled.batch.actions);
        let told = critics.descend((sampled.x, actions), learning_rate, |values, d_values| {
            let mut sum = 0.0;
            for ((&value, d_value), &target) in values.iter().zip(d_values).zip(&*targets) {
                let term = TdLoss::Squared.of(value, target);
                *d_value = weight * term.d_value;
                sum += f64::from(weight * term.loss);
            }
            sum
        })?; // line 6
        let actor_loss = self.improve(sampled, alpha, learning_rate); // line 7
        self.critics.follow(); // line 8
        let entropy = -f64::from(log_prob);
        let alpha = f64::from(alpha);
        self.means.add([told.loss, told.value, told.grad_norm, actor_loss, entropy, alpha]);
        Ok(())
    }

    fn metrics(&mut self, progress: f64, metrics: &mut Vec<(&'static str, f64)>) {
        self.means.take(metrics);
        metrics.push(("train/learning_rate", self.step.learning_rate.at(progress)));
    }

    fn flops(&self) -> u64 {
        self.actor.flops + self.critics.flops
    }

    fn values(&mut self, x: &[f32]) -> Vec<f32> {
        let Self { actor, critics, now, .. } = self;
        actor.draw(x, now, |_| 0.0);
        critics.look((x, &now.actions));
        (0..now.log_probs.len()).map(|i| critics.lowest(i).1).collect()
    }

    fn spec(&self) -> PolicySpec {
        PolicySpec::ActorCritic(self.actor.spec().clone())
    }

    fn theta(&self) -> &[f32] {
        &self.actor.theta
    }

    fn save(&self, w: &mut StateWriter) {
        self.actor.save(w);
        self.temperature.save(w);
        self.critics.save(w);
    }

    fn load(&mut self, theta: &[f32], r: &mut StateReader<'_>) -> Result<(), StateError> {
        self.actor.load(theta, r)?;
        self.temperature.load(r)?;
        self.critics.load(r)
    }
}
