//! The settings of alignment, and the published methods as values of them.
//!
//! All methods are one loop: sample, score, make advantages, ascend a surrogate. What sets them
//! apart is a handful of switches, so a method is a row of [`METHODS`].

use cordada_nn::Schedule;
use cordada_rl::config::{Checks, Config, Field, optional, schedule};
use cordada_rl::estimate::kl::KlEstimator;
use toml::Table;

cordada_rl::config! {
    /// How a language model is aligned with a reward.
    pub struct AlignSettings {
        /// What a response's score is compared with: `group` (mean and standard deviation of the
        /// responses to the same prompt), `center` (their mean), `batch` (their mean, and the
        /// standard deviation of all), `leave_one_out` (mean of the others), `baseline` (moving
        /// average of earlier scores), `whitened` (sum of later token rewards, whitened over the
        /// batch), `centered_whitened` (score minus the mean of its group, whitened), `gae`
        /// (a value head).
        advantage: String = "group".into();
        /// What is ascended: `clip` (PPO's objective token by token), `sequence` (GSPO: one ratio
        /// for a response), `product` (one ratio, the product of the tokens'), `cispo`.
        objective: String = "clip".into(), alias ["loss_type"];
        /// How tokens are averaged: `token` (all alike), `sequence` (mean of each response first),
        /// `sum` (sum of each response), `constant` (sum over the longest length allowed).
        aggregation: String = "sequence".into();
        /// Lower end of the clip range is 1 − this.
        clip_low: f64 = 0.2, alias ["epsilon", "clip_range", "clip_eps"];
        /// Upper end of the clip range is 1 + this; for `cispo`, the largest ratio.
        clip_high: f64 = 0.2, alias ["epsilon_high"];
        /// Coefficient β of the KL divergence to the model that training began from; 0 for none.
        kl_coef: f64 = 0.0, alias ["beta"];
        /// Where the KL divergence is subtracted: `reward` (token by token, by k1) or `loss`.
        kl_in: String = "loss".into();
        /// Estimator of the KL in the loss: `k2` (its gradient is the right one), `k3` (GRPO's), or
        /// `exact` (the sum over all tokens, for vocabularies of up to 4096).
        kl_estimator: String = "k3".into();
        /// KL of a response, in nats, that β is adapted to hold.
        #[serde(with = "optional")]
        kl_target: Option<f64> = None;
        /// Responses in which a lasting error of 20 % changes β by 20 %.
        kl_horizon: f64 = 10_000.0;
        /// Mean KL of a response, in nats, at which training stops.
        #[serde(with = "optional")]
        kl_limit: Option<f64> = None;
        /// Prompts of one step.
        prompts_per_step: usize = 8;
        /// Responses to each prompt, G.
        group_size: usize = 8, alias ["num_generations", "samples"];
        /// Passes over the responses of a step.
        epochs: usize = 1, alias ["num_iterations", "n_epochs"];
        /// Gradient steps of a pass.
        minibatches: usize = 1, alias ["num_minibatches"];
        /// Learning rate over the run.
        #[serde(with = "schedule")]
        learning_rate: Schedule = Schedule::Constant(1e-4), alias ["lr"];
        /// Weight decay of AdamW.
        weight_decay: f64 = 0.0;
        /// Largest norm of a gradient; larger ones are scaled down.
        max_grad_norm: f64 = 1.0;
        /// Logits are divided by it, in sampling and in training.
        temperature: f64 = 1.0;
        /// Longest response, in tokens.
        max_new_tokens: usize = 64, alias ["max_completion_length"];
        /// Coefficient of the entropy bonus.
        entropy_coef: f64 = 0.0, alias ["ent_coef"];
        /// Discount γ from token to token, for `whitened` and `gae`.
        gamma: f64 = 1.0;
        /// λ of generalized advantage estimation.
        gae_lambda: f64 = 0.95, alias ["lam"];
        /// Coefficient of the value loss.
        value_coef: f64 = 0.1, alias ["vf_coef"];
        /// Values may move by this from those at sampling.
        value_clip: f64 = 0.2, alias ["cliprange_value"];
        /// Learning rate of the value head over that of the model.
        value_learning_rate_factor: f64 = 10.0;
        /// Steps at the beginning in which only the value head learns.
        value_warmup: u64 = 0;
        /// Whether the value's gradient stops at the head.
        detach_value: bool = false;
        /// How many times prompts whose responses all scored the same are replaced by others.
        resample: usize = 0;
        /// Leaves responses out that were cut at the longest length.
        mask_truncated: bool = false;
        /// Added to the score of a response that was cut.
        truncation_penalty: f64 = 0.0;
        /// Tokens before the longest length over which a penalty falls from 0 to −1; 0 for none.
        overlong_buffer: usize = 0;
    }
}

const ADVANTAGES: &[&str] = &[
    "group",
    "center",
    "batch",
    "leave_one_out",
    "baseline",
    "whitened",
    "centered_whitened",
    "gae",
];
const OBJECTIVES: &[&str] = &["clip", "sequence", "product", "cispo"];
const AGGREGATIONS: &[&str] = &["token", "sequence", "sum", "constant"];

impl Config for AlignSettings {
    const FIELDS: &'static [Field] = AlignSettings::FIELDS;

    fn check(&self, section: &str) -> Result<(), cordada_rl::Error> {
        let c = Checks { section };
        c.name("advantage", &self.advantage, ADVANTAGES)?;
        c.name("objective", &self.objective, OBJECTIVES)?;
        c.name("aggregation", &self.aggregation, AGGREGATIONS)?;
        c.name("kl_in", &self.kl_in, &["reward", "loss"])?;
        c.name("kl_estimator", &self.kl_estimator, &["k2", "k3", "exact"])?;
        c.counts(&[
            ("prompts_per_step", self.prompts_per_step),
            ("group_size", self.group_size),
            ("epochs", self.epochs),
            ("minibatches", self.minibatches),
            ("max_new_tokens", self.max_new_tokens),
        ])?;
        c.positive(&[
            ("temperature", self.temperature),
            ("max_grad_norm", self.max_grad_norm),
            ("kl_horizon", self.kl_horizon),
            ("clip_high", self.clip_high),
        ])?;
        c.weights(&[
            ("clip_low", self.clip_low),
            ("kl_coef", self.kl_coef),
            ("entropy_coef", self.entropy_coef),
            ("value_coef", self.value_coef),
            ("value_clip", self.value_clip),
            ("weight_decay", self.weight_decay),
            ("value_learning_rate_factor", self.value_learning_rate_factor),
        ])?;
        c.unit(&[("gamma", self.gamma), ("gae_lambda", self.gae_lambda)])?;
        c.schedules(&[("learning_rate", &self.learning_rate)])?;
        if self.compares_responses() && self.group_size < 2 {
            return Err(c.refuse(
                "group_size",
                self.group_size,
                &format!("2 or more, because advantage = {} compares responses", self.advantage),
            ));
        }
        if self.minibatches > self.prompts_per_step {
            let most = format!("at most prompts_per_step = {}", self.prompts_per_step);
            return Err(c.refuse("minibatches", self.minibatches, &most));
        }
        if self.overlong_buffer > self.max_new_tokens {
            let most = format!("at most max_new_tokens = {}", self.max_new_tokens);
            return Err(c.refuse("overlong_buffer", self.overlong_buffer, &most));
        }
        if self.kl_target.is_some_and(|t| !(t > 0.0 && t.is_finite())) {
            return Err(c.refuse("kl_target", self.kl_target.unwrap_or(0.0), "a positive number"));
        }
        Ok(())
    }
}

impl AlignSettings {
    /// The estimator of the KL in the loss; `None` for the exact KL.
    pub(crate) fn kl_estimator(&self) -> Option<KlEstimator> {
        match self.kl_estimator.as_str() {
            "exact" => None,
            "k2" => Some(KlEstimator::K2),
            _ => Some(KlEstimator::K3),
        }
    }

    /// Whether a response is compared with the others to its prompt: if they all score the same,
    /// nothing is learned from them.
    pub(crate) fn compares_responses(&self) -> bool {
        let compares = ["group", "center", "leave_one_out", "centered_whitened"];
        compares.contains(&self.advantage.as_str())
    }

    /// Whether the loss holds the exact KL.
    pub(crate) fn has_exact_kl(&self) -> bool {
        self.kl_coef > 0.0 && self.kl_in == "loss" && self.kl_estimator().is_none()
    }

    /// Whether a value head is trained.
    pub fn has_critic(&self) -> bool {
        self.advantage == "gae"
    }
}

/// A published method: its switches.
#[derive(Clone, Copy, Debug)]
pub struct Method {
    /// Name on the command line.
    pub name: &'static str,
    /// What it is.
    pub title: &'static str,
    /// Where it is described.
    pub paper: &'static str,
    /// Settings that differ from the defaults, as TOML.
    settings: &'static str,
}

/// Every method.
pub const METHODS: &[Method] = &[
    Method {
        name: "grpo",
        title: "group relative policy optimization",
        paper: "arXiv:2402.03300",
        settings: "kl_coef = 0.04",
    },
    Method {
        name: "dr_grpo",
        title: "GRPO without its two biases: no standard deviation, a constant length",
        paper: "arXiv:2503.20783",
        settings: "advantage = 'center'\naggregation = 'constant'",
    },
    Method {
        name: "dapo",
        title: "GRPO with a higher upper clip, token mean, and prompts without signal replaced",
        paper: "arXiv:2503.14476",
        settings: "clip_high = 0.28\naggregation = 'token'\nresample = 3\nmask_truncated = true",
    },
    Method {
        name: "gspo",
        title: "GRPO with one ratio for a whole response",
        paper: "arXiv:2507.18071",
        settings: "objective = 'sequence'\nclip_low = 3e-4\nclip_high = 4e-4\nminibatches = 4",
    },
    Method {
        name: "cispo",
        title: "REINFORCE with a truncated importance weight",
        paper: "arXiv:2506.13585",
        settings: "objective = 'cispo'\nclip_high = 5.0\naggregation = 'token'",
    },
    Method {
        name: "rloo",
        title: "REINFORCE with the other responses as the baseline",
        paper: "arXiv:2402.14740",
        settings: "advantage = 'leave_one_out'\nobjective = 'product'\naggregation = 'sum'\n\
                   kl_in = 'reward'\nkl_coef = 0.05",
    },
    Method {
        name: "reinforce",
        title: "REINFORCE with a moving average as the baseline",
        paper: "Williams 1992",
        settings: "advantage = 'baseline'\naggregation = 'sum'\nclip_low = 1.0\nclip_high = 1e9\n\
                   kl_in = 'reward'\nkl_coef = 0.05",
    },
    Method {
        name: "reinforce_pp",
        title: "REINFORCE++: token returns whitened over the batch, PPO's clip, no critic",
        paper: "arXiv:2501.03262",
        settings: "advantage = 'whitened'\naggregation = 'token'\nkl_in = 'reward'\nkl_coef = 0.01",
    },
    Method {
        name: "reinforce_pp_baseline",
        title: "REINFORCE++ with the group's mean as the baseline, and k2 in the loss",
        paper: "arXiv:2501.03262",
        settings: "advantage = 'centered_whitened'\naggregation = 'token'\nkl_in = 'loss'\n\
                   kl_estimator = 'k2'\nkl_coef = 0.01",
    },
    Method {
        name: "ppo",
        title: "PPO with a value head and the KL in the reward",
        paper: "arXiv:1909.08593",
        settings: "advantage = 'gae'\naggregation = 'token'\nkl_in = 'reward'\nkl_coef = 0.05\n\
                   epochs = 4",
    },
];

impl Method {
    /// The method of that name; hyphens are as good as underscores, and `+` as `p`.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Setting`] with the nearest names.
    pub fn find(name: &str) -> Result<&'static Self, crate::Error> {
        let plain = name.to_lowercase().replace('-', "_").replace("++", "_pp");
        METHODS.iter().find(|m| m.name == plain).ok_or_else(|| {
            let names: Vec<&str> = METHODS.iter().map(|m| m.name).collect();
            let meant = crate::reward::did_you_mean(&plain, names.iter().copied());
            let names = names.join(", ");
            crate::Error::Setting(format!("unknown method {name:?}{meant}; known: {names}"))
        })
    }

    /// The method's settings with changes.
    ///
    /// # Errors
    ///
    /// For unknown names and values that cannot be used.
    pub fn settings(&self, changes: &Table) -> Result<AlignSettings, cordada_rl::Error> {
        AlignSettings::from_table("align", &self.table())?.with_table("align", changes)
    }

    fn table(&self) -> Table {
        toml::from_str(self.settings)
            .unwrap_or_else(|e| unreachable!("the settings of {} are a table: {e}", self.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_has_valid_settings() {
        for method in METHODS {
            let settings = method.settings(&Table::new()).expect(method.name);
            // Each differs from the first in something.
            assert!(
                method.name == "grpo" || settings != METHODS[0].settings(&Table::new()).unwrap()
            );
            assert_eq!(Method::find(method.name).unwrap().name, method.name);
        }
        assert_eq!(Method::find("REINFORCE++").unwrap().name, "reinforce_pp");
        let error = Method::find("gropo").unwrap_err().to_string();
        assert!(error.contains("gropo") && error.contains("grpo, dr_grpo"), "{error}");
    }

    #[test]
    fn what_cannot_be_used_is_refused_by_name() {
        let error = |toml: &str| {
            let table = toml::from_str(toml).unwrap();
            METHODS[0].settings(&table).unwrap_err().to_string()
        };
        assert!(error("group_size = 1").contains("align.group_size = 1"));
        assert!(error("advantage = 'grup'").contains("group"));
        assert!(error("minibatches = 9").contains("prompts_per_step = 8"));
        assert!(error("betta = 0.1").contains("beta"));
    }
}
