//! Truncated quantile critics: SAC with distributions of returns, whose highest quantiles are left
//! out of the target, against overestimation.
//!
//! # Source
//!
//! Kuznetsov et al. 2020, "Controlling Overestimation Bias with Truncated Mixture of Continuous
//! Distributional Quantile Critics", arXiv:2005.04269.
//!
//! # Algorithm
//!
//! ```text
//! 1  for each round do
//! 2      act a ~ π_θ(· | s), store the transitions
//! 3      draw a batch of transitions (s, a, r, s')
//! 4      ã ~ π_θ(· | s);  step log α down the mean of −log α (log π(ã | s) + H̄)
//! 5      a' ~ π_θ(· | s');  z = the K · M atoms of all Z⁻_k(s', a') without the d K largest
//!        y_j = r + γ (z_j − α log π(a' | s'))
//! 6      step each Z_k down the quantile regression of its M atoms at (s, a) on y
//! 7      step θ up the mean of all atoms of Z_k(s, ã), minus α log π(ã | s), through ã
//! 8      Z⁻_k ← (1 − τ) Z⁻_k + τ Z_k
//! ```
//!
//! | formula | here |
//! |---|---|
//! | the atoms that are kept | [`truncated_atoms`] |
//! | quantile regression | [`quantile_huber`] |
//! | everything else | as in [`sac`](super::sac) |
//!
//! # Differences from the paper
//!
//! - Those of [`sac`](super::sac).
//! - The paper trains 5 critics, and so does `num_critics = 5`.
//!
//! # Defaults
//!
//! Those of sb3-contrib's `TQC`, but for orthogonal initial weights.

use cordada_env::{Persist, StateError, StateReader, StateWriter};
use cordada_nn::kernel::{Isa, Task};

use super::off_policy::{
    Acting, ActorCriticsConfig, Critics, Drawn, Learner, NoiseConfig, OffPolicy, ReplayConfig,
    RunningMeans, Sampled, SoftActor, Temperature, TemperatureConfig, adam,
};
use super::{ANY_OBS, AlgoSpec, Resume};
use crate::config::{Checks, Config, Field};
use crate::error::Error;
use crate::estimate::td_target::{soft_value, td_target, truncated_atoms};
use crate::objective::{QuantileReduction, quantile_huber};
use crate::policy_file::PolicySpec;
use crate::settings::StepConfig;

/// TQC in the list of algorithms.
pub const SPEC: AlgoSpec = AlgoSpec {
    name: "tqc",
    title: "Truncated quantile critics",
    paper: "Kuznetsov et al. 2020, arXiv:2005.04269",
    on_policy: false,
    accepts: "bounded Box action spaces",
    takes: SoftActor::takes,
    observes: ANY_OBS,
    sees: |_| true,
    recurrent: false,
    masks: false,
    resume: Resume::Exact,
    fields: TqcConfig::FIELDS,
    complete: |table| Ok(TqcConfig::from_table("tqc", table)?.to_table()),
    make: |setup| Ok(Box::new(make(setup)?)),
};

crate::config! {
    /// Settings of TQC.
    pub struct TqcConfig {
        /// K, critics; at least 1.
        num_critics: usize = 2, alias ["n_critics"];
        /// M, atoms of each critic's distribution; at least 1.
        atoms: usize = 25, alias ["n_quantiles"];
        /// d, atoms for each critic that the target leaves out; less than M.
        dropped_atoms: usize = 2, alias ["top_quantiles_to_drop_per_net"];
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

/// More critics or atoms than that are taken for a slip of the pen.
const MANY: usize = 10_000;

impl Config for TqcConfig {
    const FIELDS: &'static [Field] = TqcConfig::FIELDS;

    fn check(&self, section: &str) -> Result<(), Error> {
        let check = Checks { section };
        check.counts(&[("num_critics", self.num_critics), ("atoms", self.atoms)])?;
        check.at_most("num_critics", self.num_critics, MANY)?;
        check.at_most("atoms", self.atoms, MANY)?;
        check.at_most("dropped_atoms", self.dropped_atoms, self.atoms - 1)?;
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
pub struct Tqc {
    step: StepConfig,
    target_entropy: f32,
    /// M, and d K.
    atoms: usize,
    num_dropped: usize,
    actor: SoftActor,
    temperature: Temperature,
    critics: Critics,
    /// ã for the batch's states, a' for what followed.
    now: Drawn,
    next: Drawn,
    /// Atoms of all critics for one row, and y of all rows: `[B, (M − d) K]`.
    mixture: Vec<f32>,
    targets: Vec<f32>,
    means: RunningMeans<6>,
}

fn make(setup: &super::Setup<'_>) -> Result<OffPolicy<Tqc>, Error> {
    let config = TqcConfig::from_table(SPEC.name, setup.settings)?;
    OffPolicy::new(&SPEC, setup, &config.replay, None, |spaces, stream| {
        let parts = (&config.networks, &config.step);
        let noise = (&config.noise, config.replay.num_envs);
        let actor = SoftActor::new(parts, noise, &spaces, stream)?;
        let a = actor.action_len();
        let critics = (config.num_critics, config.atoms);
        Ok(Tqc {
            critics: Critics::new(parts, critics, (spaces.inputs, a), setup.threads, stream)?,
            temperature: Temperature::new(&config.temperature, &config.step)?,
            target_entropy: config.target_entropy.unwrap_or(-(a as f64)) as f32,
            atoms: config.atoms,
            num_dropped: config.dropped_atoms * config.num_critics,
            step: config.step.clone(),
            actor,
            now: Drawn::default(),
            next: Drawn::default(),
            mixture: Vec::new(),
            targets: Vec::new(),
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

impl Tqc {
    /// Line 5: y of every transition.
    fn targets(&mut self, sampled: &mut Sampled<'_>, alpha: f32) {
        let Self { actor, critics, next, mixture, targets, atoms: m, num_dropped, .. } = self;
        let Sampled { next_x, batch, stream, .. } = sampled;
        actor.draw(next_x, next, |_| stream.normal());
        critics.look_ahead((next_x, &next.actions));
        targets.clear();
        for (i, &log_prob) in next.log_probs.iter().enumerate() {
            mixture.clear();
            for k in 0..critics.count() {
                mixture.extend_from_slice(&critics.next_outputs(k)[i * *m..(i + 1) * *m]);
            }
            let kept = truncated_atoms(mixture, *num_dropped);
            targets.extend(kept.iter().map(|&atom| {
                let value = soft_value(atom, alpha, log_prob);
                td_target(batch.rewards[i], batch.discounts[i], value)
            }));
        }
    }

    /// Line 7. Returns the mean of α log π − Q.
    fn improve(&mut self, sampled: &Sampled<'_>, alpha: f32, learning_rate: f64) -> f64 {
        let Self { actor, critics, now, .. } = self;
        critics.look((sampled.x, &now.actions));
        let atoms = self.atoms * critics.count();
        let weight = 1.0 / (sampled.len() * atoms) as f32;
        let sums = (0..critics.count()).map(|k| critics.outputs(k).iter().sum::<f32>());
        let value = weight * sums.sum::<f32>();
        let d_actions = critics.action_gradient(actor.action_len(), |_, dy| dy.fill(weight));
        actor.ascend(sampled.x, now, d_actions, alpha, learning_rate);
        -f64::from(soft_value(value, alpha, now.mean_log_prob()))
    }
}

/// Line 6's loss of one critic: every row's M atoms on its targets. Returns the mean over rows.
struct Regress<'a> {
    atoms: usize,
    outputs: &'a [f32],
    targets: &'a [f32],
    d_outputs: &'a mut [f32],
}

impl Task for Regress<'_> {
    type Output = f64;
    #[inline(always)]
    fn run(self) -> f64 {
        let Self { atoms: m, outputs, targets, d_outputs } = self;
        let rows = outputs.len() / m;
        let weight = 1.0 / rows as f32;
        let mut sum = 0.0;
        let pairs = outputs.chunks_exact(m).zip(targets.chunks_exact(targets.len() / rows));
        for ((theta, y), d) in pairs.zip(d_outputs.chunks_exact_mut(m)) {
            sum += f64::from(quantile_huber(theta, y, 1.0, QuantileReduction::Mean, weight, d));
        }
        sum * f64::from(weight)
    }
}

impl Learner for Tqc {
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
        let Self { actor, critics, targets, atoms, .. } = self;
        let actions = actor.from_box(&sampled.batch.actions);
        let told = critics.descend((sampled.x, actions), learning_rate, |outputs, d_outputs| {
            Isa::detect().run(Regress { atoms: *atoms, outputs, targets, d_outputs })
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
        let Self { actor, critics, now, atoms, .. } = self;
        actor.draw(x, now, |_| 0.0);
        critics.look((x, &now.actions));
        let all = (critics.count() * *atoms) as f32;
        let of = |k: usize, i: usize| critics.outputs(k)[i * *atoms..(i + 1) * *atoms].iter();
        let mean =
            |i: usize| (0..critics.count()).map(|k| of(k, i).sum::<f32>()).sum::<f32>() / all;
        (0..now.log_probs.len()).map(mean).collect()
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
