//! Deterministic actors that go up the gradient of a critic: DDPG, and TD3 against what goes wrong
//! with it.
//!
//! # Source
//!
//! Lillicrap et al. 2016, "Continuous control with deep reinforcement learning", arXiv:1509.02971;
//! Fujimoto et al. 2018, "Addressing Function Approximation Error in Actor-Critic Methods",
//! arXiv:1802.09477 (TD3); Silver et al. 2014, "Deterministic Policy Gradient Algorithms", for the
//! gradient.
//!
//! # Algorithm
//!
//! ```text
//! 1  for each round do
//! 2      act a = clip(μ_θ(s) + noise, −1, 1), store the transitions
//! 3      draw a batch of transitions (s, a, r, s')
//! 4      a' = clip(μ⁻(s') + clip(ε, −c, c), −1, 1),  ε ~ N(0, σ²)      DDPG: a' = μ⁻(s')
//! 5      y = r + γ min_k Q⁻_k(s', a')                                  DDPG: one critic
//! 6      step each Q_k down the mean of ½ (Q_k(s, a) − y)²
//! 7      every d updates                                               DDPG: d = 1
//! 8          step θ up the mean of Q_1(s, μ_θ(s)):  ∇θ = ∂Q/∂a · ∂μ/∂θ
//! 9          Q⁻_k ← (1 − τ) Q⁻_k + τ Q_k,  θ⁻ ← (1 − τ) θ⁻ + τ θ
//! ```
//!
//! | formula | here |
//! |---|---|
//! | a' | [`smoothed_action`] |
//! | min Q⁻, y | [`td_target`](crate::estimate::td_target) |
//! | noise | [`explore`](crate::explore) |
//! | ← (1 − τ) … + τ … | [`blend`] |
//!
//! # Differences from the papers
//!
//! - DDPG's actor and critic have one learning rate, the critic no weight decay, and the action
//!   enters the critic with the state rather than behind its first layer.
//! - Actions at random until `learning_starts`, in DDPG too.
//! - A truncated episode bootstraps from its true last observation.
//!
//! # Defaults
//!
//! Those of stable-baselines3's `DDPG` and `TD3`, but for noise when acting (there it has to be
//! asked for), layers of 256 units as in the TD3 authors' program (400 and 300 there), and
//! orthogonal initial weights.

use cordada_env::{Persist, StateError, StateReader, StateWriter, Stream};
use cordada_nn::kernel::{Isa, Task};
use cordada_nn::{Optimizer, Real, clip_global_norm};
use serde::{Deserialize, Serialize};

use super::off_policy::{
    Acting, ActionScale, ActorCriticsConfig, Critics, Learner, OffPolicy, ReplayConfig,
    RunningMeans, Sampled, SoftActor, Spaces, adam, first_flops,
};
use super::on_policy::{load_optimizer, save_optimizer};
use super::{ANY_OBS, AlgoSpec, Resume};
use crate::config::{Checks, Config, Field};
use crate::error::Error;
use crate::estimate::td_target::{smoothed_action, td_target};
use crate::explore::{OrnsteinUhlenbeck, add_gaussian_noise};
use crate::objective::TdLoss;
use crate::policy::{ActorCritic, ActorCriticSpec, LogStd, PolicyTape, PolicyWeights};
use crate::policy_file::PolicySpec;
use crate::settings::{StepConfig, init_named};
use crate::target::blend;

/// DDPG in the list of algorithms.
pub const DDPG: AlgoSpec = AlgoSpec {
    name: "ddpg",
    title: "Deep deterministic policy gradient",
    paper: "Lillicrap et al. 2016, arXiv:1509.02971",
    on_policy: false,
    accepts: "bounded Box action spaces",
    takes: SoftActor::takes,
    observes: ANY_OBS,
    sees: |_| true,
    recurrent: false,
    masks: false,
    resume: Resume::Exact,
    fields: DdpgConfig::FIELDS,
    complete: |table| Ok(DdpgConfig::default().with_table("ddpg", table)?.to_table()),
    make: |setup| Ok(Box::new(make(&DDPG, &DdpgConfig::default(), setup)?)),
};

/// TD3 in the list of algorithms.
pub const TD3: AlgoSpec = AlgoSpec {
    name: "td3",
    title: "Twin delayed deep deterministic policy gradient",
    paper: "Fujimoto et al. 2018, arXiv:1802.09477",
    complete: |table| Ok(DdpgConfig::twin_delayed().with_table("td3", table)?.to_table()),
    make: |setup| Ok(Box::new(make(&TD3, &DdpgConfig::twin_delayed(), setup)?)),
    ..DDPG
};

/// What is added to actions to explore.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Noise {
    /// Independent from step to step.
    #[default]
    Gaussian,
    /// That remembers where it was.
    OrnsteinUhlenbeck,
}

crate::config! {
    /// Settings of DDPG and TD3.
    pub struct DdpgConfig {
        /// "gaussian" or "ornstein_uhlenbeck": what is added to actions to explore.
        noise: Noise = Noise::Gaussian, alias ["noise_type"];
        /// Standard deviation of that noise (of its steps, for Ornstein-Uhlenbeck), for actions in [−1, 1].
        noise_std: f64 = 0.1;
        /// K, critics, of which the lowest value counts; 2 in TD3.
        num_critics: usize = 1, alias ["n_critics"];
        /// d, updates of the critics for each of actor and targets; 2 in TD3.
        policy_delay: usize = 1;
        /// σ of the noise on target actions, for actions in [−1, 1]; 0.2 in TD3.
        target_noise: f64 = 0.0, alias ["target_policy_noise"];
        /// c, limit of that noise.
        target_noise_clip: f64 = 0.5;
    }
    groups {
        /// Replay.
        replay: ReplayConfig = ReplayConfig { learning_starts: 100, ..ReplayConfig::default() };
        /// Steps along the gradients, of actor and critics alike.
        step: StepConfig = adam(1e-3);
        /// Networks.
        networks: ActorCriticsConfig = ActorCriticsConfig::default();
    }
}

impl DdpgConfig {
    /// TD3's.
    pub fn twin_delayed() -> Self {
        Self { num_critics: 2, policy_delay: 2, target_noise: 0.2, ..Self::default() }
    }
}

impl Config for DdpgConfig {
    const FIELDS: &'static [Field] = DdpgConfig::FIELDS;

    fn check(&self, section: &str) -> Result<(), Error> {
        let check = Checks { section };
        self.replay.check(check)?;
        self.step.check(check)?;
        self.networks.check(check)?;
        check.counts(&[("num_critics", self.num_critics), ("policy_delay", self.policy_delay)])?;
        check.at_most("num_critics", self.num_critics, 1_000)?;
        check.weights(&[
            ("noise_std", self.noise_std),
            ("target_noise", self.target_noise),
            ("target_noise_clip", self.target_noise_clip),
        ])
    }
}

/// The actor μ_θ(s) = tanh(network), in [−1, 1], with its target.
#[derive(Debug)]
pub struct DeterministicActor {
    network: ActorCritic,
    spec: ActorCriticSpec,
    /// θ.
    pub theta: Vec<f32>,
    target: Vec<f32>,
    weights: PolicyWeights<f32>,
    target_weights: PolicyWeights<f32>,
    optimizer: Optimizer<f32>,
    max_grad_norm: f64,
    grad: Vec<f32>,
    tape: PolicyTape<f32>,
    target_tape: PolicyTape<f32>,
    d_params: Vec<f32>,
    first_flops: usize,
    flops: u64,
}

impl DeterministicActor {
    /// An actor at its start, with actions about 0, and a target that is a copy.
    ///
    /// # Errors
    ///
    /// If the optimizer's numbers are out of range.
    pub fn new(
        config: &DdpgConfig,
        spaces: &Spaces<'_>,
        stream: &mut Stream,
    ) -> Result<Self, Error> {
        let spec = config.networks.policy_spec(spaces, LogStd::None);
        let network = ActorCritic::new(&spec);
        let theta: Vec<f32> = network.init(init_named(&config.networks.init), 0.0, stream);
        let mut weights = network.weights();
        network.pack(&theta, &mut weights);
        Ok(Self {
            optimizer: Optimizer::new(config.step.optimizer(), theta.len())?,
            max_grad_norm: config.step.max_grad_norm,
            target: theta.clone(),
            target_weights: weights.clone(),
            grad: vec![0.0; theta.len()],
            tape: PolicyTape::default(),
            target_tape: PolicyTape::default(),
            d_params: Vec::new(),
            first_flops: first_flops(spec.inputs, &spec.actor, spaces.actions.len()),
            flops: 0,
            network,
            spec,
            theta,
            weights,
        })
    }

    /// μ(s), or μ⁻(s), of every row.
    ///
    /// # Shapes
    ///
    /// `x`: `[B, inputs]`; `actions`: `[B, A]`.
    pub fn actions(&mut self, x: &[f32], of_target: bool, actions: &mut Vec<f32>) {
        let Self { network, weights, target_weights, tape, target_tape, .. } = self;
        let (params, _) = if of_target {
            network.forward(target_weights, x, None, target_tape)
        } else {
            network.forward(weights, x, None, tape)
        };
        let a = network.distribution().action_len();
        actions.clear();
        // Of a row's parameters the first half are the means.
        params.chunks_exact(2 * a).for_each(|row| actions.extend_from_slice(&row[..a]));
        Isa::detect().run(Squash(actions));
        self.flops += (actions.len() / a * network.forward_flops()) as u64;
    }

    /// Line 8: one step up an objective whose gradient in the last μ(s), which `actions` are, is
    /// `d_actions`.
    ///
    /// # Shapes
    ///
    /// As in [`DeterministicActor::actions`].
    pub fn ascend(&mut self, x: &[f32], actions: &[f32], d_actions: &[f32], learning_rate: f64) {
        let a = self.network.distribution().action_len();
        let rows = actions.len() / a;
        self.d_params.clear();
        self.d_params.resize(2 * actions.len(), 0.0);
        let pairs = actions.chunks_exact(a).zip(d_actions.chunks_exact(a));
        for ((action, d_action), d) in pairs.zip(self.d_params.chunks_exact_mut(2 * a)) {
            for ((d, &d_action), &action) in d.iter_mut().zip(d_action).zip(action) {
                *d = d_action * (1.0 - action * action);
            }
        }
        self.grad.fill(0.0);
        let d_params = Some(&self.d_params[..]);
        self.network.backward(&self.weights, x, &mut self.tape, (d_params, None), &mut self.grad);
        self.flops += (rows * (2 * self.network.forward_flops() - self.first_flops)) as u64;
        clip_global_norm(Isa::detect(), &mut self.grad, self.max_grad_norm);
        self.optimizer.ascend(&mut self.theta, &self.grad, learning_rate);
        self.network.pack(&self.theta, &mut self.weights);
    }

    /// Line 9, for the actor.
    fn follow(&mut self, tau: f32) {
        blend(Isa::detect(), tau, &self.theta, &mut self.target);
        self.network.pack(&self.target, &mut self.target_weights);
    }

    fn save(&self, w: &mut StateWriter) {
        w.f32s(&self.target);
        save_optimizer(&self.optimizer, w);
    }

    fn load(&mut self, theta: &[f32], r: &mut StateReader<'_>) -> Result<(), StateError> {
        self.theta.copy_from_slice(theta);
        self.network.pack(&self.theta, &mut self.weights);
        r.f32s_into(&mut self.target)?;
        self.network.pack(&self.target, &mut self.target_weights);
        load_optimizer(&mut self.optimizer, r)
    }
}

/// tanh of every number.
struct Squash<'a>(&'a mut [f32]);

impl Task for Squash<'_> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        self.0.iter_mut().for_each(|x| *x = Real::tanh(*x));
    }
}

/// The learner.
#[derive(Debug)]
pub struct Ddpg {
    config: DdpgConfig,
    actor: DeterministicActor,
    critics: Critics,
    scale: ActionScale,
    /// Ornstein-Uhlenbeck noise, one for each environment; none if it is Gaussian.
    noises: Vec<OrnsteinUhlenbeck>,
    updates: u64,
    actions: Vec<f32>,
    next_actions: Vec<f32>,
    targets: Vec<f32>,
    means: RunningMeans<3>,
    actor_means: RunningMeans<1>,
}

fn make(
    algo: &AlgoSpec,
    defaults: &DdpgConfig,
    setup: &super::Setup<'_>,
) -> Result<OffPolicy<Ddpg>, Error> {
    let config = defaults.with_table(algo.name, setup.settings)?;
    OffPolicy::new(algo, setup, &config.replay, None, |spaces, stream| {
        let a = spaces.actions.len();
        let actor = DeterministicActor::new(&config, &spaces, stream)?;
        let parts = (&config.networks, &config.step);
        let critics = (config.num_critics, 1);
        let noise = OrnsteinUhlenbeck::new(a, 0.15, config.noise_std, 0.01);
        let remembers = config.noise == Noise::OrnsteinUhlenbeck;
        Ok(Ddpg {
            actor,
            critics: Critics::new(parts, critics, (spaces.inputs, a), setup.threads, stream)?,
            scale: ActionScale::new(spaces.actions),
            noises: vec![noise; if remembers { config.replay.num_envs } else { 0 }],
            updates: 0,
            actions: Vec::new(),
            next_actions: Vec::new(),
            targets: Vec::new(),
            means: RunningMeans::new(["train/value_loss", "train/value_mean", "train/grad_norm"]),
            actor_means: RunningMeans::new(["train/actor_loss"]),
            config: config.clone(),
        })
    })
}

impl Ddpg {
    /// Lines 4 and 5: y of every transition.
    fn targets(&mut self, sampled: &mut Sampled<'_>) {
        let Self { config, actor, critics, next_actions, targets, .. } = self;
        let Sampled { next_x, batch, stream, .. } = sampled;
        actor.actions(next_x, true, next_actions);
        if config.target_noise > 0.0 {
            let clip = config.target_noise_clip as f32;
            for action in &mut *next_actions {
                let noise = (config.target_noise * stream.normal()) as f32;
                *action = smoothed_action(*action, noise, clip, (-1.0, 1.0));
            }
        }
        critics.look_ahead((next_x, next_actions));
        targets.clear();
        let rows = batch.rewards.iter().zip(&batch.discounts).enumerate();
        targets.extend(
            rows.map(|(i, (&r, &discount))| td_target(r, discount, critics.lowest_next(i))),
        );
    }

    /// Lines 8 and 9.
    fn improve(&mut self, sampled: &Sampled<'_>, learning_rate: f64) {
        let Self { actor, critics, actions, .. } = self;
        actor.actions(sampled.x, false, actions);
        critics.look((sampled.x, actions));
        let weight = 1.0 / sampled.len() as f32;
        let value = critics.outputs(0).iter().sum::<f32>() * weight;
        let d_actions = critics.action_gradient(actions.len() / sampled.len(), |k, dy| {
            dy.fill(if k == 0 { weight } else { 0.0 });
        });
        actor.ascend(sampled.x, actions, d_actions, learning_rate);
        actor.follow(self.config.networks.tau as f32);
        critics.follow();
        self.actor_means.add([-f64::from(value)]);
    }
}

impl Learner for Ddpg {
    fn act(&mut self, acting: &mut Acting<'_>) {
        self.actor.actions(acting.x, false, &mut self.actions);
        let a = self.actions.len() / acting.streams.len();
        let rows = self.actions.chunks_exact_mut(a).zip(acting.streams.iter_mut()).enumerate();
        for (env, (action, stream)) in rows {
            if let Some(noise) = self.noises.get_mut(env) {
                if acting.begun[env] {
                    noise.reset();
                }
                noise.add_to(stream, action);
            } else {
                add_gaussian_noise(self.config.noise_std, stream, action);
            }
            for x in action {
                *x = x.clamp(-1.0, 1.0);
            }
        }
        acting.actions.copy_from_slice(&self.actions);
        self.scale.to_box(acting.actions);
    }

    fn update(&mut self, sampled: &mut Sampled<'_>) -> Result<(), (&'static str, f64)> {
        let learning_rate = self.config.step.learning_rate.at(sampled.progress);
        self.targets(sampled); // lines 4 and 5
        let Self { critics, scale, actions, targets, .. } = self;
        actions.clear();
        actions.extend_from_slice(&sampled.batch.actions);
        scale.from_box(actions);
        let weight = 1.0 / sampled.len() as f32;
        let told = critics.descend((sampled.x, actions), learning_rate, |values, d_values| {
            let mut sum = 0.0;
            for ((&value, d_value), &target) in values.iter().zip(d_values).zip(&*targets) {
                let term = TdLoss::Squared.of(value, target);
                *d_value = weight * term.d_value;
                sum += f64::from(weight * term.loss);
            }
            sum
        })?; // line 6
        self.means.add([told.loss, told.value, told.grad_norm]);
        self.updates += 1;
        if self.updates.is_multiple_of(self.config.policy_delay as u64) {
            self.improve(sampled, learning_rate); // lines 7 to 9
        }
        Ok(())
    }

    fn metrics(&mut self, progress: f64, metrics: &mut Vec<(&'static str, f64)>) {
        self.means.take(metrics);
        self.actor_means.take(metrics);
        metrics.push(("train/learning_rate", self.config.step.learning_rate.at(progress)));
    }

    fn flops(&self) -> u64 {
        self.actor.flops + self.critics.flops
    }

    fn values(&mut self, x: &[f32]) -> Vec<f32> {
        let Self { actor, critics, actions, .. } = self;
        actor.actions(x, false, actions);
        critics.look((x, actions));
        critics.outputs(0).to_vec()
    }

    fn spec(&self) -> PolicySpec {
        PolicySpec::ActorCritic(self.actor.spec.clone())
    }

    fn theta(&self) -> &[f32] {
        &self.actor.theta
    }

    fn save(&self, w: &mut StateWriter) {
        w.u64(self.updates);
        self.actor.save(w);
        self.critics.save(w);
        self.noises.iter().for_each(|noise| noise.save(w));
    }

    fn load(&mut self, theta: &[f32], r: &mut StateReader<'_>) -> Result<(), StateError> {
        self.updates = r.u64()?;
        self.actor.load(theta, r)?;
        self.critics.load(r)?;
        self.noises.iter_mut().try_for_each(|noise| noise.load(r))
    }
}
