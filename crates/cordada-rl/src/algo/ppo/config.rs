//! PPO's settings: names, defaults, ranges.

use cordada_nn::Schedule;
use serde::{Deserialize, Serialize};

use crate::config::{Checks, Config, Field};
use crate::error::Error;
use crate::settings::{Memory, NetworkConfig, ScalingConfig, SegmentConfig, StepConfig};

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
        /// K, passes over the N·T samples of an iteration; at least 1.
        num_epochs: usize = 10, alias ["n_epochs", "update_epochs"];
        /// Minibatches per pass, a divisor of N·T (with memory: of N); for a batch size of B it is N·T / B.
        num_minibatches: usize = 32, alias ["n_minibatches"];
        /// ε of the clip, a schedule over the run (paper: 0.2).
        #[serde(with = "crate::config::schedule")]
        clip_eps: Schedule = Schedule::Constant(0.2), alias ["clip_range", "clip_coef"];
        /// Second bound for large ratios of bad actions, above 1 (Ye et al. 2020: 3), or "off".
        #[serde(with = "crate::config::optional")]
        dual_clip: Option<f64> = None;
        /// "clip" (eq. 7) or "kl_penalty" (eq. 8).
        objective: Objective = Objective::Clip;
        /// β of the KL penalty at the start (paper: 1).
        kl_coef: f64 = 1.0;
        /// KL per iteration, in nats, that the adaptive β aims at (paper: 0.003 to 0.03).
        kl_target: f64 = 0.01;
        /// Whether β adapts to reach kl_target.
        kl_adaptive: bool = true;
        /// Stop an iteration's updates when the KL estimate passes 1.5 times this, in nats, or "off".
        #[serde(with = "crate::config::optional")]
        target_kl: Option<f64> = None;
        /// "off", "hold" (stable-baselines3) or "max" (the original program).
        value_clip: ValueClipping = ValueClipping::Off;
        /// How far a value may move from the old one before it is clipped.
        value_clip_eps: f64 = 0.2;
        /// c₁, weight of the value loss ½ (V − R)²; twice stable-baselines3's vf_coef.
        value_coef: f64 = 1.0;
        /// c₂, weight of the entropy bonus.
        entropy_coef: f64 = 0.0, alias ["ent_coef"];
        /// Whether advantages are normalized in each minibatch.
        normalize_advantages: bool = true, alias ["normalize_advantage", "norm_adv"];
    }
    groups {
        /// Segments.
        segment: SegmentConfig = SegmentConfig::default();
        /// Steps along the gradient.
        step: StepConfig = StepConfig::default();
        /// Networks.
        network: NetworkConfig = NetworkConfig::default();
        /// Scaling.
        scaling: ScalingConfig = ScalingConfig::default();
    }
}

impl PpoConfig {
    /// M, samples of a minibatch.
    pub fn minibatch_size(&self) -> usize {
        self.segment.batch_size() / self.num_minibatches
    }

    /// What the minibatches divide among them: trajectories with memory, else samples.
    fn check_minibatches(&self, check: Checks<'_>) -> Result<(), Error> {
        let SegmentConfig { num_envs: n, num_steps: t, .. } = self.segment;
        let (whole, name) = if self.network.memory == Memory::None {
            (n * t, format!("num_envs · num_steps = {n} · {t} = {}", n * t))
        } else {
            (n, format!("num_envs = {n}, for with memory a minibatch holds whole trajectories"))
        };
        if whole.is_multiple_of(self.num_minibatches) {
            return Ok(());
        }
        let expected = format!("a divisor of {name}");
        Err(check.refuse("num_minibatches", self.num_minibatches, &expected))
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

    fn check(&self, section: &str) -> Result<(), Error> {
        let check = Checks { section };
        self.segment.check(check)?;
        self.step.check(check)?;
        self.network.check(check)?;
        self.scaling.check(check)?;
        let counts = [("num_epochs", self.num_epochs), ("num_minibatches", self.num_minibatches)];
        check.counts(&counts)?;
        self.check_minibatches(check)?;
        check.schedules(&[("clip_eps", &self.clip_eps)])?;
        check
            .positive(&[("value_clip_eps", self.value_clip_eps), ("kl_target", self.kl_target)])?;
        check.weights(&[
            ("value_coef", self.value_coef),
            ("entropy_coef", self.entropy_coef),
            ("kl_coef", self.kl_coef),
        ])?;
        if let Some(target) = self.target_kl {
            check.positive(&[("target_kl", target)])?;
        }
        if let Some(dual) = self.dual_clip {
            check.number("dual_clip", dual, |x| x > 1.0, "a number above 1")?;
        }
        Ok(())
    }
}
