//! PPO's settings: names, defaults, ranges.

use cordada_env::Space;
use cordada_env::wrapper::normalize::{NormalizeOptions, RewardNormalizer};
use cordada_nn::{Activation, Init, OptimizerConfig, Schedule};
use serde::{Deserialize, Serialize};

use super::SPEC;
use crate::config::{Config, Field};
use crate::error::Error;
use crate::policy::{LogStd, PolicySpec};

/// Which objective holds the step back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Objective {
    /// The clipped surrogate, eq. (7).
    #[default]
    Clip,
    /// The surrogate with a KL penalty, eq. (8).
    KlPenalty,
}

/// How the value loss is clipped; see [`crate::objective::ValueClip`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ValueClipping {
    /// Not at all.
    #[default]
    Off,
    /// As stable-baselines3 does.
    Hold,
    /// As the original program does.
    Max,
}

crate::config! {
    /// Settings of PPO.
    pub struct PpoConfig {
        /// N, environments stepped side by side; at least 1.
        num_envs: usize = 8, alias ["n_envs"];
        /// T, steps of each environment per iteration; at least 1.
        num_steps: usize = 256, alias ["n_steps", "rollout_length"];
        /// K, passes over the N·T samples of an iteration; at least 1.
        num_epochs: usize = 10, alias ["n_epochs", "update_epochs"];
        /// Minibatches per pass, a divisor of N·T; for a batch size of B it is N·T / B.
        num_minibatches: usize = 32, alias ["n_minibatches"];
        /// γ, discount, from 0 to 1.
        gamma: f64 = 0.99;
        /// λ of generalized advantage estimation, from 0 to 1.
        gae_lambda: f64 = 0.95;
        /// Step size, a schedule over the run: 3e-4, "linear(1e-3, 0)", "cosine(1e-3)".
        #[serde(with = "crate::config::schedule")]
        learning_rate: Schedule = Schedule::Constant(3e-4), alias ["lr"];
        /// ε of the clip, a schedule over the run (paper: 0.2).
        #[serde(with = "crate::config::schedule")]
        clip_eps: Schedule = Schedule::Constant(0.2), alias ["clip_range", "clip_coef"];
        /// Second bound for large ratios of bad actions, above 1 (Ye et al. 2020: 3); off if not set.
        #[serde(skip_serializing_if = "Option::is_none")]
        dual_clip: Option<f64> = None;
        /// "clip" (eq. 7) or "kl_penalty" (eq. 8).
        objective: Objective = Objective::Clip;
        /// β of the KL penalty at the start (paper: 1).
        kl_coef: f64 = 1.0;
        /// KL per iteration, in nats, that the adaptive β aims at (paper: 0.003 to 0.03).
        kl_target: f64 = 0.01;
        /// Whether β adapts to reach kl_target.
        kl_adaptive: bool = true;
        /// Stop an iteration's updates when the KL estimate passes 1.5 times this, in nats; off if not set.
        #[serde(skip_serializing_if = "Option::is_none")]
        target_kl: Option<f64> = None;
        /// "off", "hold" (stable-baselines3) or "max" (the original program).
        value_clip: ValueClipping = ValueClipping::Off;
        /// How far a value may move from the old one before it is clipped.
        value_clip_eps: f64 = 0.2;
        /// c₁, weight of the value loss ½ (V − R)²; twice stable-baselines3's vf_coef.
        value_coef: f64 = 1.0;
        /// c₂, weight of the entropy bonus.
        entropy_coef: f64 = 0.0, alias ["ent_coef"];
        /// Limit of the gradient's global norm; above 0.
        max_grad_norm: f64 = 0.5;
        /// Whether advantages are normalized in each minibatch.
        normalize_advantages: bool = true, alias ["normalize_advantage", "norm_adv"];
        /// Whether observations are normalized by running moments.
        normalize_obs: bool = false, alias ["norm_obs"];
        /// Bound of normalized observations.
        clip_obs: f64 = 10.0;
        /// Whether rewards are divided by the running standard deviation of discounted returns.
        normalize_rewards: bool = false, alias ["norm_reward", "normalize_reward"];
        /// Bound of normalized rewards.
        clip_rewards: f64 = 10.0, alias ["clip_reward"];
        /// Hidden layers that actor and critic share; [] keeps them apart.
        trunk: Vec<usize> = vec![];
        /// Hidden layers of the actor.
        actor: Vec<usize> = vec![64, 64];
        /// Hidden layers of the critic.
        critic: Vec<usize> = vec![64, 64];
        /// "tanh", "relu", "leaky_relu", "elu", "silu", "gelu" or "gelu_tanh".
        activation: String = "tanh".to_string(), alias ["activation_fn"];
        /// Whether hidden layers are normalized (LayerNorm) before their activation.
        layer_norm: bool = false;
        /// "orthogonal", "kaiming_uniform", "kaiming_normal", "xavier_uniform" or "xavier_normal".
        init: String = "orthogonal".to_string();
        /// log σ at the start, for Box actions.
        log_std_init: f64 = 0.0;
        /// "shared" (one learned number per component) or "per_state" (from the network), for Box actions.
        log_std: LogStd = LogStd::Shared;
        /// Whether Box actions are squashed into their bounds by tanh rather than clipped.
        squash: bool = false;
        /// ε of Adam (detail 3 of the 37).
        adam_eps: f64 = 1e-5;
    }
}

/// More environments than that are taken for a slip of the pen.
const MAX_ENVS: usize = 1_000_000;
/// More units in a layer than that as well.
const MAX_UNITS: usize = 65_536;

/// The initializations by name.
const INITS: [(&str, Init); 5] = [
    ("orthogonal", Init::Orthogonal),
    ("kaiming_uniform", Init::KaimingUniform),
    ("kaiming_normal", Init::KaimingNormal),
    ("xavier_uniform", Init::XavierUniform),
    ("xavier_normal", Init::XavierNormal),
];

impl PpoConfig {
    /// N·T, samples of an iteration.
    pub fn batch_size(&self) -> usize {
        self.num_envs * self.num_steps
    }

    /// M, samples of a minibatch.
    pub fn minibatch_size(&self) -> usize {
        self.batch_size() / self.num_minibatches
    }

    pub(super) fn init(&self) -> Init {
        let named = INITS.iter().find(|(name, _)| *name == self.init);
        named.map_or(Init::Orthogonal, |(_, init)| *init)
    }

    pub(super) fn optimizer(&self) -> OptimizerConfig {
        OptimizerConfig::Adam {
            beta1: 0.9,
            beta2: 0.999,
            eps: self.adam_eps,
            weight_decay: 0.0,
            amsgrad: false,
        }
    }

    pub(super) fn obs_normalizer(&self) -> Option<NormalizeOptions> {
        self.normalize_obs
            .then(|| NormalizeOptions { clip: self.clip_obs, ..NormalizeOptions::default() })
    }

    pub(super) fn reward_normalizer(&self) -> Result<Option<RewardNormalizer>, Error> {
        let options = NormalizeOptions { clip: self.clip_rewards, ..NormalizeOptions::default() };
        let make = || RewardNormalizer::new(self.num_envs, self.gamma, options);
        Ok(self.normalize_rewards.then(make).transpose()?)
    }

    pub(super) fn policy_spec(&self, inputs: usize, action_space: Space) -> PolicySpec {
        PolicySpec {
            inputs,
            action_space,
            trunk: self.trunk.clone(),
            actor: self.actor.clone(),
            critic: self.critic.clone(),
            activation: self.activation.clone(),
            layer_norm: self.layer_norm,
            log_std: self.log_std,
            squash: self.squash,
        }
    }

    /// Checks what depends on the environment.
    pub(super) fn check_space(&self, actions: &Space) -> Result<(), Error> {
        let bounded = matches!(actions, Space::Box(bounds) if bounds.is_bounded());
        if self.squash && !bounded {
            let expected = format!("false, for {actions} has no bounds to squash into");
            return Err(Self::refuse("squash", true, &expected));
        }
        Ok(())
    }

    fn refuse(key: &str, value: impl std::fmt::Display, expected: &str) -> Error {
        Error::BadValue {
            section: SPEC.name.to_string(),
            key: key.to_string(),
            value: value.to_string(),
            expected: expected.to_string(),
        }
    }

    fn check_counts(&self) -> Result<(), Error> {
        let counts = [
            ("num_envs", self.num_envs),
            ("num_steps", self.num_steps),
            ("num_epochs", self.num_epochs),
            ("num_minibatches", self.num_minibatches),
        ];
        if let Some((key, _)) = counts.iter().find(|(_, count)| *count == 0) {
            return Err(Self::refuse(key, 0, "at least 1"));
        }
        if self.num_envs > MAX_ENVS {
            return Err(Self::refuse("num_envs", self.num_envs, &format!("at most {MAX_ENVS}")));
        }
        let samples = self.num_envs.checked_mul(self.num_steps);
        if samples.is_none_or(|samples| samples > u32::MAX as usize) {
            return Err(Self::refuse(
                "num_steps",
                self.num_steps,
                "num_envs · num_steps below 2³²",
            ));
        }
        if !self.batch_size().is_multiple_of(self.num_minibatches) {
            let (n, t, b) = (self.num_envs, self.num_steps, self.batch_size());
            let expected = format!("a divisor of num_envs · num_steps = {n} · {t} = {b}");
            return Err(Self::refuse("num_minibatches", self.num_minibatches, &expected));
        }
        let layers = [("trunk", &self.trunk), ("actor", &self.actor), ("critic", &self.critic)];
        let unfit = |layers: &&&Vec<usize>| layers.iter().any(|n| !(1..=MAX_UNITS).contains(n));
        if let Some((key, layers)) = layers.iter().find(|(_, layers)| unfit(&layers)) {
            let expected = format!("layers of 1 to {MAX_UNITS} units");
            return Err(Self::refuse(key, format!("{layers:?}"), &expected));
        }
        Ok(())
    }

    fn check_numbers(&self) -> Result<(), Error> {
        type Rule = (fn(f64) -> bool, &'static str);
        let in_unit = |x: f64| (0.0..=1.0).contains(&x);
        let positive = |x: f64| x > 0.0;
        let weight = |x: f64| x >= 0.0 && x.is_finite();
        let above_1 = |x: f64| x > 1.0;
        let unit: Rule = (in_unit, "a number from 0 to 1");
        let above_0: Rule = (positive, "a number above 0");
        let at_least_0: Rule = (weight, "a finite number of at least 0");
        let numbers = [
            ("gamma", Some(self.gamma), unit),
            ("gae_lambda", Some(self.gae_lambda), unit),
            ("max_grad_norm", Some(self.max_grad_norm), above_0),
            ("value_clip_eps", Some(self.value_clip_eps), above_0),
            ("clip_obs", Some(self.clip_obs), above_0),
            ("clip_rewards", Some(self.clip_rewards), above_0),
            ("adam_eps", Some(self.adam_eps), (|x| (1e-30..1.0).contains(&x), "from 1e-30 to 1")),
            ("kl_target", Some(self.kl_target), above_0),
            ("target_kl", self.target_kl, above_0),
            ("value_coef", Some(self.value_coef), at_least_0),
            ("entropy_coef", Some(self.entropy_coef), at_least_0),
            ("kl_coef", Some(self.kl_coef), at_least_0),
            ("log_std_init", Some(self.log_std_init), (f64::is_finite, "a finite number")),
            ("dual_clip", self.dual_clip, (above_1, "a number above 1")),
        ];
        for (key, value, (fits, expected)) in numbers {
            if let Some(x) = value.filter(|x| !fits(*x)) {
                return Err(Self::refuse(key, x, expected));
            }
        }
        for (key, schedule) in
            [("learning_rate", &self.learning_rate), ("clip_eps", &self.clip_eps)]
        {
            if !knots(schedule).into_iter().all(weight) {
                return Err(Self::refuse(key, schedule, "finite numbers of at least 0"));
            }
        }
        Ok(())
    }
}

/// The values between which a schedule runs.
fn knots(schedule: &Schedule) -> Vec<f64> {
    match schedule {
        Schedule::Constant(value) => vec![*value],
        Schedule::Linear { from, to } | Schedule::Cosine { from, to } => vec![*from, *to],
        Schedule::Warmup { then, .. } => knots(then),
        Schedule::Piecewise(points) => points.iter().map(|(_, value)| *value).collect(),
    }
}

impl Config for PpoConfig {
    const FIELDS: &'static [Field] = PpoConfig::FIELDS;
    const RENAMED: &'static [(&'static str, &'static str)] = &[
        (
            "vf_coef",
            "value_coef, which is twice stable-baselines3's vf_coef and equal to CleanRL's",
        ),
        ("batch_size", "num_minibatches = num_envs · num_steps / batch_size"),
        ("minibatch_size", "num_minibatches = num_envs · num_steps / minibatch_size"),
        (
            "clip_range_vf",
            "value_clip_eps, with value_clip = \"hold\" (stable-baselines3) or \"max\"",
        ),
    ];

    fn check(&self) -> Result<(), Error> {
        self.check_counts()?;
        self.check_numbers()?;
        let activations = Activation::ALL.map(Activation::name);
        let inits = INITS.map(|(name, _)| name);
        for (key, value, names) in
            [("activation", &self.activation, &activations[..]), ("init", &self.init, &inits[..])]
        {
            if !names.contains(&value.as_str()) {
                return Err(Self::refuse(key, value, &format!("one of {}", names.join(", "))));
            }
        }
        Ok(())
    }
}
