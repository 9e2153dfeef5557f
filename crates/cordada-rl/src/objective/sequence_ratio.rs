//! Surrogate objectives in the ratio of a whole response: GSPO, GSPO-token and RLOO.
//!
//! The clip is [`clipped_surrogate`], as for one token; only the ratio is another one.

use cordada_nn::Real;

use super::clip::{ClipRange, Surrogate, clipped_surrogate};

/// Which ratio a response has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SequenceRatio {
    /// `π(y | x) / π_old(y | x)`, the product of the tokens' ratios: RLOO. The true importance
    /// weight, of a variance that grows with the length.
    Product,
    /// The geometric mean of the tokens' ratios: GSPO. Its clip range is small: 3·10⁻⁴ and 4·10⁻⁴
    /// in the paper.
    GeometricMean,
}

impl SequenceRatio {
    /// log of the ratio: the sum or the mean of `log π − log π_old` over the tokens; 0 without any.
    ///
    /// # Shapes
    ///
    /// `log_prob`, `old_log_prob`: `[T]`.
    ///
    /// # Panics
    ///
    /// If the lengths differ.
    pub fn log_ratio<F: Real>(self, log_prob: &[F], old_log_prob: &[F]) -> F {
        assert_eq!(log_prob.len(), old_log_prob.len(), "log-probabilities of different lengths");
        let sum: F = log_prob.iter().zip(old_log_prob).map(|(&new, &old)| new - old).sum();
        self.d_token::<F>(log_prob.len()) * sum
    }

    /// ∂ log ratio / ∂ log π(token).
    fn d_token<F: Real>(self, length: usize) -> F {
        match self {
            Self::Product => F::ONE,
            Self::GeometricMean => F::of(1.0 / length.max(1) as f64),
        }
    }
}

/// Clipped surrogate objective of one response: one ratio, one clip, one advantage for all tokens.
///
/// ```text
/// L = min( s A, clip(s, 1 − ε, 1 + ε) A ),   s = ∏ r_t  or  (∏ r_t)^(1/T)
/// ψ_t = s A  or  s A / T     where s A is the smaller one, else 0
/// ```
///
/// Writes ψ_t of each token; the result's `psi` is ∂L/∂ log s. To be averaged over responses, those
/// without tokens among them; they have L = 0.
///
/// # Shapes
///
/// `log_prob`, `old_log_prob`, `psi`: `[T]`, the tokens of one response.
///
/// # Panics
///
/// If the lengths differ.
///
/// # Source
///
/// Zheng et al. 2025, arXiv:2507.18071, eq. (5) to (7) (GSPO); Ahmadian et al. 2024,
/// arXiv:2402.14740, with the clip of TRL (RLOO).
pub fn sequence_surrogate<F: Real>(
    kind: SequenceRatio,
    log_prob: &[F],
    old_log_prob: &[F],
    advantage: F,
    clip: impl Into<ClipRange<F>>,
    psi: &mut [F],
) -> Surrogate<F> {
    assert_eq!(psi.len(), log_prob.len(), "psi has another length than the log-probabilities");
    let log_ratio = kind.log_ratio(log_prob, old_log_prob);
    let advantage = if psi.is_empty() { F::ZERO } else { advantage };
    let term = clipped_surrogate(log_ratio, F::ZERO, advantage, clip);
    psi.fill(term.psi * kind.d_token(log_prob.len()));
    term
}

/// GSPO-token: the response's ratio as the value of every token's ratio, while the gradient goes
/// through that token alone, so that each may have an advantage of its own.
///
/// ```text
/// L = Σ_t min( s_t A_t, clip(s_t, 1 − ε, 1 + ε) A_t )
/// s_t = sg(s) π_t / sg(π_t),   s = (∏ r_t)^(1/T),   ψ_t = s A_t  or 0        sg: no gradient
/// ```
///
/// Writes ψ_t and returns the sum of the terms, to be averaged over tokens and responses:
/// [`Aggregation::SequenceMean`](super::Aggregation). With equal advantages it has the gradient of
/// [`sequence_surrogate`].
///
/// # Shapes
///
/// `log_prob`, `old_log_prob`, `advantages`, `psi`: `[T]`, the tokens of one response.
///
/// # Panics
///
/// If the lengths differ.
///
/// # Source
///
/// Zheng et al. 2025, arXiv:2507.18071, eq. (13) and (14).
pub fn sequence_token_surrogate<F: Real>(
    log_prob: &[F],
    old_log_prob: &[F],
    advantages: &[F],
    clip: impl Into<ClipRange<F>>,
    psi: &mut [F],
) -> F {
    assert_eq!(psi.len(), log_prob.len(), "psi has another length than the log-probabilities");
    assert_eq!(advantages.len(), psi.len(), "as many advantages as tokens are needed");
    let clip = clip.into();
    let log_ratio = SequenceRatio::GeometricMean.log_ratio(log_prob, old_log_prob);
    let mut objective = F::ZERO;
    for (psi, &advantage) in psi.iter_mut().zip(advantages) {
        let term = clipped_surrogate(log_ratio, F::ZERO, advantage, clip);
        objective += term.objective;
        *psi = term.psi;
    }
    objective
}

#[cfg(test)]
mod tests {
    use cordada_testkit::gradient::assert_gradient;

    use super::*;

    const KINDS: [SequenceRatio; 2] = [SequenceRatio::Product, SequenceRatio::GeometricMean];
    const NEW: [f64; 3] = [-1.0, -0.5, -2.0];

    #[test]
    fn ratios_by_hand() {
        // Token ratios 2, 3, ¼: product 1.5.
        let old = [-1.0 - 2.0_f64.ln(), -0.5 - 3.0_f64.ln(), -2.0 + 4.0_f64.ln()];
        let ratios = KINDS.map(|kind| kind.log_ratio(&NEW, &old).exp());
        assert!((ratios[0] - 1.5).abs() < 1e-14);
        assert!((ratios[1] - 1.5_f64.powf(1.0 / 3.0)).abs() < 1e-14);
        // A = 2, ε = 0.2: the product is clipped at 1.2; the mean 1.1447 is not.
        let mut psi = [9.0; 3];
        let got = sequence_surrogate(KINDS[0], &NEW, &old, 2.0, 0.2, &mut psi);
        assert_eq!((got.objective, got.clipped, psi), (2.4, true, [0.0; 3]));
        let got = sequence_surrogate(KINDS[1], &NEW, &old, 2.0, 0.2, &mut psi);
        assert!((got.objective - 2.0 * ratios[1]).abs() < 1e-14);
        assert!(psi.iter().all(|psi| (psi - 2.0 * ratios[1] / 3.0).abs() < 1e-14), "{psi:?}");
    }

    #[test]
    fn a_response_without_tokens_adds_nothing() {
        for kind in KINDS {
            let got = sequence_surrogate::<f64>(kind, &[], &[], 2.0, 0.2, &mut []);
            assert_eq!((got.objective, got.psi, got.ratio), (0.0, 0.0, 1.0));
        }
        assert_eq!(sequence_token_surrogate::<f64>(&[], &[], &[], 0.2, &mut []), 0.0);
    }

    #[test]
    fn psi_is_the_gradient() {
        let old = [-1.1, -0.7, -1.9];
        for kind in KINDS {
            for (advantage, eps) in [(1.5, 0.5), (-0.7, 0.5), (1.5, 0.05), (-0.7, 0.05)] {
                let of = |x: &[f64], psi: &mut [f64]| {
                    sequence_surrogate(kind, x, &old, advantage, eps, psi).objective
                };
                let mut psi = [0.0; 3];
                of(&NEW, &mut psi);
                let what = format!("{kind:?}, A = {advantage}, ε = {eps}");
                assert_gradient(&what, &NEW, &psi, 1e-8, |x| of(x, &mut [0.0; 3]));
            }
        }
    }

    #[test]
    fn the_token_form_goes_through_each_token_alone() {
        let (old, advantages) = ([-1.1, -0.7, -1.9], [1.0, -2.0, 0.5]);
        let mut psi = [0.0; 3];
        let objective = sequence_token_surrogate(&NEW, &old, &advantages, 0.3, &mut psi);
        // Σ log r = 0.2; s = e^{0.2/3} lies inside the range.
        let s = (0.2_f64 / 3.0).exp();
        assert!((objective + 0.5 * s).abs() < 1e-14);
        // Each s_t with sg(s) and sg(π_t) held: s e^{x − log π_t}.
        let frozen =
            |x: &[f64]| -> f64 { (0..3).map(|t| advantages[t] * s * (x[t] - NEW[t]).exp()).sum() };
        assert_gradient("GSPO-token", &NEW, &psi, 1e-8, frozen);
        // One advantage for all: the gradient of the sequence form times T.
        let mut of_sequence = [0.0; 3];
        sequence_surrogate(KINDS[1], &NEW, &old, -2.0, 0.3, &mut of_sequence);
        sequence_token_surrogate(&NEW, &old, &[-2.0; 3], 0.3, &mut psi);
        for (token, sequence) in psi.iter().zip(of_sequence) {
            assert!((token - 3.0 * sequence).abs() < 1e-14);
        }
    }
}
