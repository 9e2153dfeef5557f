//! Which optimizer, its options and their ranges.

use crate::Error;

/// Where `RMSprop` adds ε.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EpsPlacement {
    /// `g / (√s + ε)`, s starting at 0, as in `PyTorch`.
    Outside,
    /// `g / √(s + ε)`, s starting at 1, as in `TensorFlow` 1 and so in the A2C of Mnih et al.
    Inside,
}

/// Which optimizer, with its options.
///
/// Defaults are in [`OptimizerConfig::sgd`] and its siblings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum OptimizerConfig {
    /// Stochastic gradient descent.
    ///
    /// ```text
    /// g ← g + wd θ;   b ← μ b + g;   θ ← θ − lr b   (Nesterov: θ − lr (g + μ b))
    /// ```
    ///
    /// Source: Polyak 1964; Sutskever et al. 2013 (Nesterov); in the form of `torch.optim.SGD`.
    Sgd {
        /// μ in [0, 1).
        momentum: f64,
        /// Whether the step looks ahead along the momentum; needs `momentum > 0`.
        nesterov: bool,
        /// wd ≥ 0, added to the gradient (L2).
        weight_decay: f64,
    },
    /// Adam.
    ///
    /// ```text
    /// g ← g + wd θ;   m ← β₁ m + (1 − β₁) g;   v ← β₂ v + (1 − β₂) g²
    /// θ ← θ − lr · m / (1 − β₁ᵗ) / (√(v / (1 − β₂ᵗ)) + ε)
    /// ```
    ///
    /// Source: Kingma and Ba 2015, arXiv:1412.6980, alg. 1; `amsgrad`: Reddi et al. 2018,
    /// arXiv:1904.09237, alg. 2, in the form of `torch.optim.Adam` (the largest v is kept before
    /// its bias correction).
    Adam {
        /// β₁ in [0, 1).
        beta1: f64,
        /// β₂ in [0, 1).
        beta2: f64,
        /// ε > 0.
        eps: f64,
        /// wd ≥ 0, added to the gradient (L2).
        weight_decay: f64,
        /// Whether the largest v so far takes the place of v.
        amsgrad: bool,
    },
    /// Adam with decoupled weight decay: `θ ← (1 − lr wd) θ`, then Adam's step with the plain
    /// gradient.
    ///
    /// Source: Loshchilov and Hutter 2019, arXiv:1711.05101, alg. 2 (the decay times the learning
    /// rate, as in `torch.optim.AdamW`).
    AdamW {
        /// β₁ in [0, 1).
        beta1: f64,
        /// β₂ in [0, 1).
        beta2: f64,
        /// ε > 0.
        eps: f64,
        /// wd ≥ 0, apart from the gradient.
        weight_decay: f64,
        /// Whether the largest v so far takes the place of v.
        amsgrad: bool,
    },
    /// `RMSprop`.
    ///
    /// ```text
    /// s ← α s + (1 − α) g²;   centered: a ← α a + (1 − α) g, s − a² in place of s below
    /// u = g / (√s + ε);   b ← μ b + u;   θ ← θ − lr b
    /// ```
    ///
    /// Source: Tieleman and Hinton 2012; centered: Graves 2013, arXiv:1308.0850, eq. (38); in the
    /// form of `torch.optim.RMSprop`.
    RmsProp {
        /// α in [0, 1).
        alpha: f64,
        /// ε > 0.
        eps: f64,
        /// Where ε is added and where s starts.
        eps_placement: EpsPlacement,
        /// μ in [0, 1).
        momentum: f64,
        /// Whether the squared mean of the gradient is taken off s.
        centered: bool,
    },
}

impl OptimizerConfig {
    /// SGD without momentum or decay.
    pub fn sgd() -> Self {
        Self::Sgd { momentum: 0.0, nesterov: false, weight_decay: 0.0 }
    }

    /// Adam with the paper's β₁ = 0.9, β₂ = 0.999, ε = 1e-8.
    pub fn adam() -> Self {
        Self::Adam { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0, amsgrad: false }
    }

    /// `AdamW` with `PyTorch`'s defaults: those of Adam and weight decay 0.01.
    pub fn adamw() -> Self {
        Self::AdamW { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01, amsgrad: false }
    }

    /// `RMSprop` with `PyTorch`'s α = 0.99, ε = 1e-8 outside the root.
    pub fn rms_prop() -> Self {
        Self::RmsProp {
            alpha: 0.99,
            eps: 1e-8,
            eps_placement: EpsPlacement::Outside,
            momentum: 0.0,
            centered: false,
        }
    }

    /// Name in reports and configs: `sgd`, `adam`, `adamw` or `rmsprop`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Sgd { .. } => "sgd",
            Self::Adam { .. } => "adam",
            Self::AdamW { .. } => "adamw",
            Self::RmsProp { .. } => "rmsprop",
        }
    }

    /// Whether every option is in its range.
    ///
    /// # Errors
    ///
    /// [`Error::Option`] names the first that is not.
    pub fn check(&self) -> Result<(), Error> {
        let share = |option, x: f64| {
            let range = "at least 0 and less than 1";
            self.require(option, x, (0.0..1.0).contains(&x), range)
        };
        let eps_fits = |x: f64| {
            let range = "positive and finite";
            self.require("eps", x, x > 0.0 && x.is_finite(), range)
        };
        let decay_fits = |x: f64| {
            let range = "at least 0 and finite";
            self.require("weight_decay", x, x >= 0.0 && x.is_finite(), range)
        };
        match *self {
            Self::Sgd { momentum, nesterov, weight_decay } => {
                share("momentum", momentum)?;
                let ahead = !nesterov || momentum > 0.0;
                let range = "positive if `nesterov` is set";
                self.require("momentum", momentum, ahead, range)?;
                decay_fits(weight_decay)
            }
            Self::Adam { beta1, beta2, eps, weight_decay, .. }
            | Self::AdamW { beta1, beta2, eps, weight_decay, .. } => {
                share("beta1", beta1)?;
                share("beta2", beta2)?;
                eps_fits(eps)?;
                decay_fits(weight_decay)
            }
            Self::RmsProp { alpha, eps, momentum, .. } => {
                share("alpha", alpha)?;
                eps_fits(eps)?;
                share("momentum", momentum)
            }
        }
    }

    fn require(
        &self,
        option: &'static str,
        value: f64,
        holds: bool,
        range: &'static str,
    ) -> Result<(), Error> {
        let owner = self.name();
        if holds {
            return Ok(());
        }
        Err(Error::Option { owner, option, value, range })
    }

    /// Names and starting values of the buffers that the options ask for, one number a parameter;
    /// in the order in which the loops of `rule` take them.
    pub(super) fn buffers(&self) -> Vec<(&'static str, f64)> {
        let wanted: &[(bool, &'static str, f64)] = match *self {
            Self::Sgd { momentum, .. } => &[(momentum > 0.0, "momentum", 0.0)],
            Self::Adam { amsgrad, .. } | Self::AdamW { amsgrad, .. } => &[
                (true, "mean", 0.0),
                (true, "mean_square", 0.0),
                (amsgrad, "max_mean_square", 0.0),
            ],
            Self::RmsProp { eps_placement, momentum, centered, .. } => {
                let start = if eps_placement == EpsPlacement::Inside { 1.0 } else { 0.0 };
                &[
                    (true, "mean_square", start),
                    (centered, "mean", 0.0),
                    (momentum > 0.0, "momentum", 0.0),
                ]
            }
        };
        wanted.iter().filter(|w| w.0).map(|&(_, name, start)| (name, start)).collect()
    }
}
