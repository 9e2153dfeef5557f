//! Groups of settings that several algorithms share: segments, networks, scaling, optimizer. Each
//! has its own checks; what depends on two groups, or on the algorithm, is the algorithm's.

use cordada_env::Space;
use cordada_env::wrapper::normalize::{NormalizeOptions, RewardNormalizer};
use cordada_nn::{Activation, Cell, EpsPlacement, Init, OptimizerConfig, Schedule};
use serde::{Deserialize, Serialize};

use crate::config::Checks;
use crate::error::Error;
use crate::policy::{ActorCriticSpec, Encoder, LogStd, MemorySpec};

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

crate::config! {
    /// Segments of N environments, and how their rewards are credited.
    pub struct SegmentConfig {
        /// N, environments stepped side by side; at least 1.
        num_envs: usize = 8, alias ["n_envs"];
        /// T, steps of each environment per iteration; at least 1.
        num_steps: usize = 256, alias ["n_steps", "rollout_length"];
        /// γ, discount, from 0 to 1.
        gamma: f64 = 0.99;
        /// λ of generalized advantage estimation, from 0 to 1: 0 is one-step TD, 1 the n-step return.
        gae_lambda: f64 = 0.95;
    }
}

impl SegmentConfig {
    /// N·T, samples of an iteration.
    pub fn batch_size(&self) -> usize {
        self.num_envs * self.num_steps
    }

    /// Checks ranges.
    ///
    /// # Errors
    ///
    /// [`Error::BadValue`] for the first setting that cannot be used.
    pub fn check(&self, check: Checks<'_>) -> Result<(), Error> {
        check.counts(&[("num_envs", self.num_envs), ("num_steps", self.num_steps)])?;
        check.at_most("num_envs", self.num_envs, MAX_ENVS)?;
        let samples = self.num_envs.checked_mul(self.num_steps);
        if samples.is_none_or(|samples| samples > u32::MAX as usize) {
            let expected = "num_envs · num_steps below 2³²";
            return Err(check.refuse("num_steps", self.num_steps, expected));
        }
        check.unit(&[("gamma", self.gamma), ("gae_lambda", self.gae_lambda)])
    }
}

/// How observations become features, as a setting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EncoderSetting {
    /// Convolutions for images of at least 36×36, else none.
    #[default]
    Auto,
    /// None: an observation is a row of numbers.
    Flat,
    /// The convolutions of Mnih et al. 2015.
    NatureCnn,
}

/// What a policy remembers of the episode so far, as a setting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Memory {
    /// Nothing: it sees the observation alone.
    #[default]
    None,
    /// Gated recurrent units.
    Gru,
    /// Long short-term memory.
    Lstm,
}

crate::config! {
    /// Actor and critic.
    pub struct NetworkConfig {
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
        /// "auto" (convolutions for images of at least 36×36), "flat" or "nature_cnn".
        encoder: EncoderSetting = EncoderSetting::Auto;
        /// "none", "gru" or "lstm": what the policy remembers of the episode, after the trunk.
        memory: Memory = Memory::None;
        /// Units of the memory; at least 1.
        memory_size: usize = 64, alias ["lstm_hidden_size"];
    }
}

/// Checks lists of hidden layers.
///
/// # Errors
///
/// [`Error::BadValue`] for a layer of no units or of absurdly many.
pub fn check_layers(check: Checks<'_>, layers: &[(&str, &[usize])]) -> Result<(), Error> {
    let unfit = |layers: &[usize]| layers.iter().any(|n| !(1..=MAX_UNITS).contains(n));
    let Some((key, layers)) = layers.iter().find(|(_, layers)| unfit(layers)) else {
        return Ok(());
    };
    let expected = format!("layers of 1 to {MAX_UNITS} units");
    Err(check.refuse(key, format!("{layers:?}"), &expected))
}

/// Checks names of activations and initializations.
///
/// # Errors
///
/// [`Error::BadValue`] for one that does not exist.
pub fn check_names(check: Checks<'_>, activation: &str, init: &str) -> Result<(), Error> {
    check.name("activation", activation, &Activation::ALL.map(Activation::name))?;
    check.name("init", init, &INITS.map(|(name, _)| name))
}

/// The initialization of this name, once checked.
pub fn init_named(name: &str) -> Init {
    let named = INITS.iter().find(|(known, _)| *known == name);
    named.map_or(Init::Orthogonal, |(_, init)| *init)
}

impl EncoderSetting {
    /// What comes before the dense layers for observations of `space`.
    ///
    /// # Errors
    ///
    /// [`Error::BadValue`] if convolutions are asked for and the observation is no image that is
    /// large enough.
    pub fn encoder(self, check: Checks<'_>, space: &Space) -> Result<Encoder, Error> {
        let image = Encoder::for_images(space);
        match (self, image) {
            (Self::Flat, _) | (Self::Auto, None) => Ok(Encoder::Flat),
            (Self::Auto | Self::NatureCnn, Some(encoder)) => Ok(encoder),
            (Self::NatureCnn, None) => {
                let expected = format!("\"flat\", for {space} is no image of at least 36×36");
                Err(check.refuse("encoder", "\"nature_cnn\"", &expected))
            }
        }
    }
}

impl NetworkConfig {
    /// Checks ranges.
    ///
    /// # Errors
    ///
    /// [`Error::BadValue`] for the first setting that cannot be used.
    pub fn check(&self, check: Checks<'_>) -> Result<(), Error> {
        let layers = [("trunk", &self.trunk[..]), ("actor", &self.actor), ("critic", &self.critic)];
        check_layers(check, &layers)?;
        check_names(check, &self.activation, &self.init)?;
        check.counts(&[("memory_size", self.memory_size)])?;
        check.at_most("memory_size", self.memory_size, MAX_UNITS)?;
        check.number("log_std_init", self.log_std_init, f64::is_finite, "a finite number")
    }

    /// The policy's shape for these spaces.
    ///
    /// # Errors
    ///
    /// [`Error::BadValue`] if a setting does not fit them.
    pub fn policy_spec(
        &self,
        check: Checks<'_>,
        (obs_space, inputs): (&Space, usize),
        action_space: &Space,
    ) -> Result<ActorCriticSpec, Error> {
        let bounded = matches!(action_space, Space::Box(bounds) if bounds.is_bounded());
        if self.squash && !bounded {
            let expected = format!("false, for {action_space} has no bounds to squash into");
            return Err(check.refuse("squash", true, &expected));
        }
        let cell = match self.memory {
            Memory::None => None,
            Memory::Gru => Some(Cell::Gru),
            Memory::Lstm => Some(Cell::Lstm),
        };
        Ok(ActorCriticSpec {
            inputs,
            action_space: action_space.clone(),
            encoder: self.encoder.encoder(check, obs_space)?,
            trunk: self.trunk.clone(),
            memory: cell
                .map(|cell| MemorySpec { cell: cell.name().to_string(), size: self.memory_size }),
            actor: self.actor.clone(),
            critic: Some(self.critic.clone()),
            activation: self.activation.clone(),
            layer_norm: self.layer_norm,
            log_std: self.log_std,
            squash: self.squash,
        })
    }
}

crate::config! {
    /// Running normalization of observations and rewards.
    pub struct ScalingConfig {
        /// Whether observations are normalized by running moments.
        normalize_obs: bool = false, alias ["norm_obs"];
        /// Bound of normalized observations.
        clip_obs: f64 = 10.0;
        /// Whether rewards are divided by the running standard deviation of discounted returns.
        normalize_rewards: bool = false, alias ["norm_reward", "normalize_reward"];
        /// Bound of normalized rewards.
        clip_rewards: f64 = 10.0, alias ["clip_reward"];
    }
}

impl ScalingConfig {
    /// Checks ranges.
    ///
    /// # Errors
    ///
    /// [`Error::BadValue`] for the first setting that cannot be used.
    pub fn check(&self, check: Checks<'_>) -> Result<(), Error> {
        check.positive(&[("clip_obs", self.clip_obs), ("clip_rewards", self.clip_rewards)])
    }

    /// Options of the observations' normalizer, if there is one.
    pub fn obs_normalizer(&self) -> Option<NormalizeOptions> {
        self.normalize_obs
            .then(|| NormalizeOptions { clip: self.clip_obs, ..NormalizeOptions::default() })
    }

    /// The rewards' normalizer, if there is one.
    ///
    /// # Errors
    ///
    /// If an option is out of range.
    pub fn reward_normalizer(
        &self,
        num_envs: usize,
        gamma: f64,
    ) -> Result<Option<RewardNormalizer>, Error> {
        let options = NormalizeOptions { clip: self.clip_rewards, ..NormalizeOptions::default() };
        let make = || RewardNormalizer::new(num_envs, gamma, options);
        Ok(self.normalize_rewards.then(make).transpose()?)
    }
}

/// An update rule, as a setting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UpdateRule {
    /// Kingma and Ba 2015.
    #[default]
    Adam,
    /// Tieleman and Hinton 2012.
    RmsProp,
    /// The same with ε inside the root, as the A3C and A2C of Mnih et al. 2016 have it.
    RmsPropTf,
    /// Plain gradient steps.
    Sgd,
}

crate::config! {
    /// How θ moves along a gradient.
    pub struct StepConfig {
        /// Step size, a schedule over the run: 3e-4, "linear(1e-3, 0)", "cosine(1e-3)".
        #[serde(with = "crate::config::schedule")]
        learning_rate: Schedule = Schedule::Constant(3e-4), alias ["lr"];
        /// "adam", "rms_prop", "rms_prop_tf" (ε inside the root) or "sgd".
        optimizer: UpdateRule = UpdateRule::Adam;
        /// ε of Adam or RMSprop (detail 3 of the 37).
        optimizer_eps: f64 = 1e-5, alias ["adam_eps", "rms_prop_eps"];
        /// Limit of the gradient's global norm; above 0.
        max_grad_norm: f64 = 0.5;
    }
}

impl StepConfig {
    /// Checks ranges.
    ///
    /// # Errors
    ///
    /// [`Error::BadValue`] for the first setting that cannot be used.
    pub fn check(&self, check: Checks<'_>) -> Result<(), Error> {
        check.schedules(&[("learning_rate", &self.learning_rate)])?;
        let fits = |x: f64| (1e-30..1.0).contains(&x);
        check.number("optimizer_eps", self.optimizer_eps, fits, "from 1e-30 to 1")?;
        check.positive(&[("max_grad_norm", self.max_grad_norm)])
    }

    /// The optimizer.
    pub fn optimizer(&self) -> OptimizerConfig {
        optimizer(self.optimizer, self.optimizer_eps)
    }
}

/// An optimizer with this ε and else its usual numbers (RMSprop's decay 0.99, as in A3C).
pub fn optimizer(rule: UpdateRule, epsilon: f64) -> OptimizerConfig {
    let mut config = match rule {
        UpdateRule::Adam => OptimizerConfig::adam(),
        UpdateRule::RmsProp | UpdateRule::RmsPropTf => OptimizerConfig::rms_prop(),
        UpdateRule::Sgd => OptimizerConfig::sgd(),
    };
    match &mut config {
        OptimizerConfig::Adam { eps, .. } => *eps = epsilon,
        OptimizerConfig::RmsProp { eps, eps_placement, .. } => {
            *eps = epsilon;
            if rule == UpdateRule::RmsPropTf {
                *eps_placement = EpsPlacement::Inside;
            }
        }
        _ => {}
    }
    config
}
