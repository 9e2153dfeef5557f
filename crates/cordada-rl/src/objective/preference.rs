//! Losses that learn a policy from preferences directly, without a reward model: DPO and its
//! relatives. To be descended.
//!
//! All take a response as a [`ScoredResponse`] and differentiate with respect to the *sum* of its
//! tokens' log-probabilities, those that average over tokens too. So the derivative is minus ψ of
//! every token of that response, whatever the loss.

use cordada_nn::Real;

use super::ranking::PairTerm;

/// A response and how probable it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScoredResponse<F> {
    /// log π(y | x), the sum over its tokens.
    pub log_prob: F,
    /// The same under the reference model. Not read by losses that need none.
    pub ref_log_prob: F,
    /// Number of its tokens. Read only by losses that average over tokens.
    pub length: usize,
}

impl<F: Real> ScoredResponse<F> {
    /// d = log π(y | x) − log π_ref(y | x); β d is the reward that DPO implies.
    #[inline(always)]
    pub fn log_ratio(&self) -> F {
        self.log_prob - self.ref_log_prob
    }

    /// 1 / length.
    fn per_token(&self) -> F {
        F::of(1.0 / self.length.max(1) as f64)
    }
}

/// A loss of a pair of responses to one prompt, of which one was preferred.
///
/// With d = log π − log π_ref of a response, h = d₊ − d₋, z = β h, and a = log π / length:
///
/// | loss | equation | source |
/// |---|---|---|
/// | `Dpo` | −log σ(z) | Rafailov et al. 2023, arXiv:2305.18290, eq. (7) |
/// | `ConservativeDpo` | −(1−ε) log σ(z) − ε log σ(−z) | Mitchell 2023, "A note on DPO with noisy preferences" |
/// | `RobustDpo` | (−(1−ε) log σ(z) + ε log σ(−z)) / (1−2ε) | Chowdhury et al. 2024, arXiv:2403.00409 |
/// | `Ipo` | (h − 1/(2β))² | Azar et al. 2023, arXiv:2310.12036, eq. (17) |
/// | `IpoPerToken` | the same with d / length in h | TRL |
/// | `Hinge` | max(0, 1 − z) | Liu et al. 2023, arXiv:2309.06657 |
/// | `Slic` | max(0, δ − (log π₊ − log π₋)) | Zhao et al. 2023, arXiv:2305.10425 |
/// | `BcoPair` | −log σ(β d₊) − log σ(−β d₋) | Jung et al. 2024, arXiv:2404.04656, without the shift |
/// | `ApoZero` | 1 − σ(β d₊) + σ(β d₋) | D'Oosterlinck et al. 2024, arXiv:2408.06266, eq. (7) |
/// | `SppoHard` | (d₊ − 1/(2β))² + (d₋ + 1/(2β))² | Wu et al. 2024, arXiv:2405.00675 |
/// | `SimPo` | −log σ(β (a₊ − a₋) − margin) | Meng et al. 2024, arXiv:2405.14734, eq. (6) |
/// | `Orpo` | −a₊ − λ log σ(log odds₊ − log odds₋), log odds = a − log(1 − eᵃ) | Hong et al. 2024, arXiv:2403.07691, eq. (6) and (7) |
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum PreferenceLoss<F> {
    /// Direct preference optimization.
    Dpo {
        /// β: how dear the KL divergence to the reference is; 0.1.
        beta: F,
    },
    /// DPO whose labels are wrong with probability ε.
    ConservativeDpo {
        /// β, as for DPO.
        beta: F,
        /// ε ∈ [0, ½).
        label_smoothing: F,
    },
    /// DPO without the bias that wrong labels bring.
    RobustDpo {
        /// β, as for DPO.
        beta: F,
        /// ε ∈ [0, ½), the share of wrong labels.
        label_smoothing: F,
    },
    /// Identity preference optimization, on sums over tokens.
    Ipo {
        /// β; the paper's τ.
        beta: F,
    },
    /// IPO on means over tokens.
    IpoPerToken {
        /// β; the paper's τ.
        beta: F,
    },
    /// The hinge loss of RSO.
    Hinge {
        /// β, as for DPO.
        beta: F,
    },
    /// The calibration loss of SLiC-HF: no reference.
    Slic {
        /// δ: the distance of log-probabilities to aim at; 1.
        delta: F,
    },
    /// Binary classifier optimization on pairs.
    BcoPair {
        /// β, as for DPO.
        beta: F,
    },
    /// Anchored preference optimization: raises the chosen one, lowers the rejected one.
    ApoZero {
        /// β, as for DPO.
        beta: F,
    },
    /// Self-play preference optimization with certain labels.
    SppoHard {
        /// β; 1/η of the paper.
        beta: F,
    },
    /// Simple preference optimization: per token, no reference.
    SimPo {
        /// β; 2 to 10.
        beta: F,
        /// The paper's γ, a distance of rewards to aim at.
        margin: F,
    },
    /// Odds-ratio preference optimization: fine-tunes on the chosen one at the same time, per
    /// token, no reference.
    Orpo {
        /// λ, the weight of the odds ratio; 0.1.
        lambda: F,
    },
}

/// −log σ(x) and its derivative.
fn log_loss<F: Real>(x: F) -> (F, F) {
    ((-x).softplus(), -(-x).sigmoid())
}

/// max(0, x) and its derivative.
fn hinge<F: Real>(x: F) -> (F, F) {
    if x > F::ZERO { (x, F::ONE) } else { (F::ZERO, F::ZERO) }
}

/// Log odds of a mean log-probability, and their derivative. A response that is certain would have
/// infinite odds and no gradient; it is held a little below.
fn log_odds<F: Real>(a: F) -> (F, F) {
    let a = a.min(F::of(-1e-6));
    let p = a.exp();
    (a - (-p).ln_1p(), F::ONE / (F::ONE - p))
}

impl<F: Real> PreferenceLoss<F> {
    /// Whether the loss reads [`ScoredResponse::ref_log_prob`].
    pub fn needs_reference(self) -> bool {
        !matches!(self, Self::Slic { .. } | Self::SimPo { .. } | Self::Orpo { .. })
    }

    /// The loss of a pair, and its derivatives with respect to the two `log_prob`.
    pub fn of(self, chosen: ScoredResponse<F>, rejected: ScoredResponse<F>) -> PairTerm<F> {
        match self {
            Self::BcoPair { .. } | Self::ApoZero { .. } | Self::SppoHard { .. } => {
                self.of_each(chosen.log_ratio(), rejected.log_ratio())
            }
            Self::Orpo { lambda } => odds_ratio(chosen, rejected, lambda),
            _ => self.of_difference(chosen, rejected),
        }
    }

    /// The losses of one number: the difference h of the responses, of what this loss compares.
    fn of_difference(self, chosen: ScoredResponse<F>, rejected: ScoredResponse<F>) -> PairTerm<F> {
        let compared = |response: ScoredResponse<F>| {
            let x = if self.needs_reference() { response.log_ratio() } else { response.log_prob };
            let per_token = matches!(self, Self::IpoPerToken { .. } | Self::SimPo { .. });
            let scale = if per_token { response.per_token() } else { F::ONE };
            (scale * x, scale)
        };
        let ((x_chosen, d_chosen), (x_rejected, d_rejected)) =
            (compared(chosen), compared(rejected));
        let (loss, d_h) = self.of_h(x_chosen - x_rejected);
        PairTerm { loss, d_chosen: d_h * d_chosen, d_rejected: -(d_h * d_rejected) }
    }

    /// Loss as a function of h, and its derivative.
    fn of_h(self, h: F) -> (F, F) {
        let two = F::of(2.0);
        match self {
            Self::Dpo { beta } => {
                let (loss, d) = log_loss(beta * h);
                (loss, beta * d)
            }
            Self::ConservativeDpo { beta, label_smoothing: eps } => {
                let ((right, d_right), (wrong, d_wrong)) =
                    (log_loss(beta * h), log_loss(-(beta * h)));
                let share = F::ONE - eps;
                (share * right + eps * wrong, beta * (share * d_right - eps * d_wrong))
            }
            Self::RobustDpo { beta, label_smoothing: eps } => {
                let ((right, d_right), (wrong, d_wrong)) =
                    (log_loss(beta * h), log_loss(-(beta * h)));
                let (share, scale) = (F::ONE - eps, F::ONE / (F::ONE - two * eps));
                let d = share * d_right + eps * d_wrong;
                (scale * (share * right - eps * wrong), scale * (beta * d))
            }
            Self::Ipo { beta } | Self::IpoPerToken { beta } => {
                let error = h - F::ONE / (two * beta);
                (error * error, two * error)
            }
            Self::Hinge { beta } => {
                let (loss, d) = hinge(F::ONE - beta * h);
                (loss, -(beta * d))
            }
            Self::Slic { delta } => {
                let (loss, d) = hinge(delta - h);
                (loss, -d)
            }
            Self::SimPo { beta, margin } => {
                let (loss, d) = log_loss(beta * h - margin);
                (loss, beta * d)
            }
            Self::BcoPair { .. }
            | Self::ApoZero { .. }
            | Self::SppoHard { .. }
            | Self::Orpo { .. } => unreachable!("{self:?} is no function of the difference alone"),
        }
    }

    /// The losses in which each response has a term of its own: of d₊ and d₋.
    fn of_each(self, chosen: F, rejected: F) -> PairTerm<F> {
        match self {
            Self::BcoPair { beta } => {
                let ((up, d_up), (down, d_down)) =
                    (log_loss(beta * chosen), log_loss(-(beta * rejected)));
                PairTerm { loss: up + down, d_chosen: beta * d_up, d_rejected: -(beta * d_down) }
            }
            Self::ApoZero { beta } => {
                // 1 − σ(x) = σ(−x), σ' = σ(x) σ(−x).
                let gate = |d: F| ((beta * d).sigmoid(), (-(beta * d)).sigmoid());
                let ((up, not_up), (down, not_down)) = (gate(chosen), gate(rejected));
                PairTerm {
                    loss: not_up + down,
                    d_chosen: -(beta * up * not_up),
                    d_rejected: beta * down * not_down,
                }
            }
            Self::SppoHard { beta } => {
                let two = F::of(2.0);
                let half = F::ONE / (two * beta);
                let (up, down) = (chosen - half, rejected + half);
                PairTerm { loss: up * up + down * down, d_chosen: two * up, d_rejected: two * down }
            }
            other => unreachable!("{other:?} is a function of the difference"),
        }
    }
}

fn odds_ratio<F: Real>(
    chosen: ScoredResponse<F>,
    rejected: ScoredResponse<F>,
    lambda: F,
) -> PairTerm<F> {
    let mean = |response: ScoredResponse<F>| response.per_token() * response.log_prob;
    let ((odds_chosen, d_odds_chosen), (odds_rejected, d_odds_rejected)) =
        (log_odds(mean(chosen)), log_odds(mean(rejected)));
    let (loss, d) = log_loss(odds_chosen - odds_rejected);
    PairTerm {
        loss: lambda * loss - mean(chosen),
        d_chosen: chosen.per_token() * (lambda * d * d_odds_chosen - F::ONE),
        d_rejected: -(rejected.per_token() * (lambda * d * d_odds_rejected)),
    }
}

/// Kahneman-Tversky optimization: single responses, each marked as desirable or not.
///
/// ```text
/// L = w₊ (1 − σ(β (d − z)))   desirable
///     w₋ (1 − σ(β (z − d)))   undesirable
/// z = max(0, mean(log π(y' | x) − log π_ref(y' | x)))
/// ```
///
/// z estimates KL(π ‖ π_ref) from responses y' that belong to other prompts; it is a constant to the
/// gradient.
///
/// # Source
///
/// Ethayarajh et al. 2024, arXiv:2402.01306, eq. (8).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Kto<F> {
    /// β, as for DPO: 0.1.
    pub beta: F,
    /// w₊. The paper wants w₊ n₊ between w₋ n₋ and 4/3 of it, n the numbers of responses.
    pub desirable_weight: F,
    /// w₋.
    pub undesirable_weight: F,
}

/// What one response adds to the loss of [`Kto`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KtoTerm<F> {
    /// Its value, to be descended.
    pub loss: F,
    /// ∂ loss / ∂ log π(y | x).
    pub d_log_prob: F,
}

impl<F: Real> Kto<F> {
    /// z of a batch, from mismatched prompts and responses; 0 for an empty one.
    ///
    /// # Shapes
    ///
    /// `log_prob`, `ref_log_prob`: `[B]`, sums over tokens.
    ///
    /// # Panics
    ///
    /// If the lengths differ.
    pub fn reference_point(log_prob: &[F], ref_log_prob: &[F]) -> F {
        assert_eq!(log_prob.len(), ref_log_prob.len(), "log-probabilities of different lengths");
        let sum: f64 = log_prob.iter().zip(ref_log_prob).map(|(&p, &r)| (p - r).f64()).sum();
        F::of(sum / log_prob.len().max(1) as f64).max(F::ZERO)
    }

    /// The loss of one response with the reference point z.
    pub fn of(self, response: ScoredResponse<F>, desirable: bool, z: F) -> KtoTerm<F> {
        let (weight, sign) = if desirable {
            (self.desirable_weight, F::ONE)
        } else {
            (self.undesirable_weight, -F::ONE)
        };
        let x = sign * self.beta * (response.log_ratio() - z);
        let missing = (-x).sigmoid();
        KtoTerm {
            loss: weight * missing,
            d_log_prob: -(weight * sign * self.beta * x.sigmoid() * missing),
        }
    }
}

#[cfg(test)]
mod tests {
    use cordada_testkit::gradient::assert_gradient;

    use super::*;

    const LOSSES: [PreferenceLoss<f64>; 12] = [
        PreferenceLoss::Dpo { beta: 0.5 },
        PreferenceLoss::ConservativeDpo { beta: 0.5, label_smoothing: 0.1 },
        PreferenceLoss::RobustDpo { beta: 0.5, label_smoothing: 0.1 },
        PreferenceLoss::Ipo { beta: 0.5 },
        PreferenceLoss::IpoPerToken { beta: 0.5 },
        PreferenceLoss::Hinge { beta: 0.5 },
        PreferenceLoss::Slic { delta: 1.0 },
        PreferenceLoss::BcoPair { beta: 0.5 },
        PreferenceLoss::ApoZero { beta: 0.5 },
        PreferenceLoss::SppoHard { beta: 0.5 },
        PreferenceLoss::SimPo { beta: 2.0, margin: 0.5 },
        PreferenceLoss::Orpo { lambda: 0.1 },
    ];

    fn response(log_prob: f64, ref_log_prob: f64, length: usize) -> ScoredResponse<f64> {
        ScoredResponse { log_prob, ref_log_prob, length }
    }

    #[test]
    fn losses_by_hand() {
        // d₊ = 2 ln 3, d₋ = 0, β = ½: z = ln 3, σ(z) = ¾; lengths 2 and 1; h = 2 ln 3 = 2.1972….
        let ln3 = 3.0_f64.ln();
        let (chosen, rejected) = (response(-1.0, -1.0 - 2.0 * ln3, 2), response(-3.0, -3.0, 1));
        let (right, wrong) = ((4.0_f64 / 3.0).ln(), 4.0_f64.ln());
        let (p, q) = (0.5_f64.exp().recip(), 3.0_f64.exp().recip());
        let odds = (p / (1.0 - p)) / (q / (1.0 - q));
        let want = [
            right,
            0.9 * right + 0.1 * wrong,
            (0.9 * right - 0.1 * wrong) / 0.8,
            (2.0 * ln3 - 1.0).powi(2),
            (ln3 - 1.0).powi(2),
            0.0,
            0.0,
            right + std::f64::consts::LN_2,
            0.25 + 0.5,
            (2.0 * ln3 - 1.0).powi(2) + 1.0,
            // a₊ − a₋ = −½ + 3; 2 · 2½ − ½.
            (1.0 + (-4.5_f64).exp()).ln(),
            0.5 + 0.1 * (1.0 + odds.recip()).ln(),
        ];
        for (loss, want) in LOSSES.into_iter().zip(want) {
            let got = loss.of(chosen, rejected).loss;
            assert!((got - want).abs() < 1e-14, "{loss:?}: {got}, expected {want}");
        }
        // The other way round the hinges are open: 1 + ln 3, and 1 − (−3 + 1).
        let hinges = [LOSSES[5], LOSSES[6]].map(|loss| loss.of(rejected, chosen).loss);
        assert!((hinges[0] - 1.0 - ln3).abs() < 1e-14 && hinges[1] == 3.0, "{hinges:?}");
    }

    #[test]
    fn derivatives_are_those_of_the_sums() {
        for loss in LOSSES {
            for (c, r) in [(-4.0, -7.0), (-7.0, -4.0), (-1.0, -1.2)] {
                let of = |x: &[f64]| loss.of(response(x[0], -4.4, 3), response(x[1], -5.1, 7));
                let term = of(&[c, r]);
                let what = format!("{loss:?} at {c}, {r}");
                assert_gradient(&what, &[c, r], &[term.d_chosen, term.d_rejected], 1e-8, |x| {
                    of(x).loss
                });
            }
        }
    }

    #[test]
    fn only_some_read_the_reference() {
        for loss in LOSSES {
            let with = |reference| loss.of(response(-2.0, reference, 3), response(-2.5, -2.0, 2));
            assert_eq!(loss.needs_reference(), with(-1.0) != with(-2.0), "{loss:?}");
        }
    }

    #[test]
    fn a_certain_response_has_a_gradient() {
        let got = PreferenceLoss::Orpo { lambda: 0.1_f32 }.of(
            ScoredResponse { log_prob: -2.0, ref_log_prob: 0.0, length: 2 },
            ScoredResponse { log_prob: 0.0, ref_log_prob: 0.0, length: 2 },
        );
        assert!(got.loss.is_finite() && got.d_rejected.is_finite() && got.d_rejected > 0.0);
    }

    #[test]
    fn single_responses_by_hand() {
        let kto = Kto { beta: 0.5, desirable_weight: 2.0, undesirable_weight: 4.0 };
        // d = 1 + 2 ln 3, z = 1: x = ln 3, σ = ¾; desirable 2 · ¼, undesirable 4 · ¾.
        let y = response(-1.0, -2.0 - 2.0 * 3.0_f64.ln(), 5);
        let (good, bad) = (kto.of(y, true, 1.0), kto.of(y, false, 1.0));
        assert!((good.loss - 0.5).abs() < 1e-14 && (bad.loss - 3.0).abs() < 1e-14);
        assert!((good.d_log_prob + 2.0 * 0.5 * 0.1875).abs() < 1e-14);
        assert!((bad.d_log_prob - 4.0 * 0.5 * 0.1875).abs() < 1e-14);
        for desirable in [true, false] {
            let of = |x: &[f64]| kto.of(response(x[0], -3.0, 5), desirable, 0.4);
            assert_gradient("KTO", &[-2.0], &[of(&[-2.0]).d_log_prob], 1e-8, |x| of(x).loss);
        }
        assert_eq!(Kto::reference_point(&[-1.0, -2.0], &[-3.0, -1.0]), 0.5);
        assert_eq!(Kto::reference_point(&[-1.0], &[0.0]), 0.0);
        assert_eq!(Kto::<f64>::reference_point(&[], &[]), 0.0);
    }
}
