//! Losses of a distribution of returns against a target distribution: cross-entropy on fixed atoms
//! (C51), and quantile regression (QR-DQN, TQC).

use cordada_nn::Real;
use cordada_nn::kernel::{Isa, LANES};
use cordada_nn::softmax::log_softmax;

use super::td::huber;

/// Cross-entropy of the distribution softmax(logits) against a target distribution m.
///
/// ```text
/// L = −Σ_i m_i log p_i,   ∂L/∂l_i = p_i Σ_j m_j − m_i,   p = softmax(l)
/// ```
///
/// Returns L and writes `coef` · ∂L/∂l into `d_logits`. It differs from KL(m ‖ p) by a constant.
///
/// # Shapes
///
/// `logits`, `target`, `d_logits`: `[atoms]`, those of one action.
///
/// # Panics
///
/// If the lengths differ.
///
/// # Source
///
/// Bellemare et al. 2017, arXiv:1707.06887, algorithm 1.
pub fn categorical_cross_entropy<F: Real>(
    logits: &[F],
    target: &[F],
    coef: F,
    d_logits: &mut [F],
) -> F {
    assert_eq!(logits.len(), target.len(), "as many logits as target probabilities are needed");
    log_softmax(Isa::detect(), logits, logits.len(), d_logits);
    let (mut loss, mut mass) = (F::ZERO, F::ZERO);
    for (&m, d) in target.iter().zip(&*d_logits) {
        // An atom that is not aimed at adds nothing, even with p = 0.
        if m != F::ZERO {
            loss += -(m * *d);
            mass += m;
        }
    }
    for (&m, d) in target.iter().zip(d_logits) {
        *d = coef * (d.exp() * mass - m);
    }
    loss
}

/// How the terms of a quantile loss become one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuantileReduction {
    /// Sum over the quantiles that are learned, mean over the target's atoms: QR-DQN.
    Sum,
    /// Mean over both: TQC.
    Mean,
}

/// Quantile regression by Huber's loss.
///
/// ```text
/// L = Σ_i (1/M) Σ_j |τ_i − [y_j < θ_i]| L_κ(θ_i, y_j),   τ_i = (i + ½) / N
/// ```
///
/// L_κ is [`huber`]; [`QuantileReduction::Mean`] divides L by N. Returns L and writes
/// `coef` · ∂L/∂θ into `d_quantiles`. The weight's jump at y_j = θ_i does no harm: L_κ and its
/// derivative are 0 there.
///
/// Some programs divide L_κ by κ, which is the same at the usual κ = 1.
///
/// # Shapes
///
/// `quantiles` (θ), `d_quantiles`: `[N]`; `target` (y): `[M]`.
///
/// # Panics
///
/// If `quantiles` and `d_quantiles` differ in length.
///
/// # Source
///
/// Dabney et al. 2018, arXiv:1710.10044, eq. (10) and algorithm 1; Kuznetsov et al. 2020,
/// arXiv:2005.04269, section 4.
#[inline(always)]
pub fn quantile_huber<F: Real>(
    quantiles: &[F],
    target: &[F],
    kappa: F,
    reduction: QuantileReduction,
    coef: F,
    d_quantiles: &mut [F],
) -> F {
    assert_eq!(quantiles.len(), d_quantiles.len(), "as many gradients as quantiles are needed");
    let len = quantiles.len() as f64;
    let terms = target.len() as f64
        * match reduction {
            QuantileReduction::Sum => 1.0,
            QuantileReduction::Mean => len,
        };
    let scale = F::of(1.0 / terms);
    let mut loss = F::ZERO;
    // Quantiles in lanes, each with its own sum in the order of the target.
    let blocks = quantiles.chunks(LANES).zip(d_quantiles.chunks_mut(LANES));
    for (block, (quantiles, d_quantiles)) in blocks.enumerate() {
        let (mut theta, mut tau) = ([F::ZERO; LANES], [F::ZERO; LANES]);
        for (l, (theta, tau)) in theta.iter_mut().zip(&mut tau).enumerate() {
            *theta = quantiles.get(l).copied().unwrap_or(F::ZERO);
            *tau = F::of(((block * LANES + l) as f64 + 0.5) / len);
        }
        let (mut sum, mut d_sum) = ([F::ZERO; LANES], [F::ZERO; LANES]);
        for &y in target {
            for l in 0..LANES {
                let weight = if y < theta[l] { F::ONE - tau[l] } else { tau[l] };
                let term = huber(theta[l], y, kappa);
                sum[l] += weight * term.loss;
                d_sum[l] += weight * term.d_value;
            }
        }
        for (d_quantile, (&sum, &d_sum)) in d_quantiles.iter_mut().zip(sum.iter().zip(&d_sum)) {
            loss += sum;
            *d_quantile = coef * (scale * d_sum);
        }
    }
    scale * loss
}

#[cfg(test)]
mod tests {
    use cordada_testkit::gradient::assert_gradient;

    use super::*;

    #[test]
    fn cross_entropy_by_hand() {
        // p = ¼, ¾ from logits 0, ln 3; m = ½, ½: L = ½ ln 4 + ½ ln (4/3).
        let logits = [0.0, 3.0_f64.ln()];
        let mut d = [9.0; 2];
        let loss = categorical_cross_entropy(&logits, &[0.5, 0.5], 2.0, &mut d);
        assert!((loss - 0.5 * (16.0_f64 / 3.0).ln()).abs() < 1e-14, "{loss}");
        assert!((d[0] + 0.5).abs() < 1e-14 && (d[1] - 0.5).abs() < 1e-14, "{d:?}");
        // An impossible atom that is not aimed at: p = 0, 1 against m = 0, 1.
        let loss = categorical_cross_entropy(&[f64::NEG_INFINITY, 0.0], &[0.0, 1.0], 1.0, &mut d);
        assert_eq!((loss, d), (0.0, [0.0, 0.0]));
    }

    #[test]
    fn cross_entropy_has_its_gradient() {
        let logits = [0.3, -1.2, 2.0, 0.0, 0.7];
        // A target that does not add up to 1 shows the factor Σ m.
        let target = [0.1, 0.0, 0.5, 0.25, 0.05];
        let mut d = [0.0; 5];
        categorical_cross_entropy(&logits, &target, 1.5, &mut d);
        assert_gradient("logits", &logits, &d, 1e-8, |l| {
            1.5 * categorical_cross_entropy(l, &target, 1.0, &mut [0.0; 5])
        });
    }

    #[test]
    fn quantiles_by_hand() {
        // θ = 0, 4 with τ = ¼, ¾; y = 1, 6; κ = 1.
        // (0, 1): ¼ · ½. (0, 6): ¼ · 5½. (4, 1): ¼ · 2½ (y < θ: 1 − ¾). (4, 6): ¾ · 1½.
        let (theta, y) = ([0.0, 4.0], [1.0, 6.0]);
        let mut d = [9.0; 2];
        let loss = quantile_huber(&theta, &y, 1.0, QuantileReduction::Sum, 1.0, &mut d);
        assert_eq!(loss, 0.5 * (0.125 + 1.375 + 0.625 + 1.125));
        // ½ · ¼ (−1 − 1); ½ (¼ · 1 − ¾ · 1).
        assert_eq!(d, [-0.25, -0.25]);
        let mean = quantile_huber(&theta, &y, 1.0, QuantileReduction::Mean, 4.0, &mut d);
        assert_eq!((mean, d), (0.5 * loss, [-0.5, -0.5]));
    }

    #[test]
    fn quantiles_have_their_gradient() {
        let (theta, y) = ([0.2, -0.7, 1.9, 3.3], [0.5, -2.0, 1.0, 4.4, 0.9]);
        for reduction in [QuantileReduction::Sum, QuantileReduction::Mean] {
            let loss = |t: &[f64]| quantile_huber(t, &y, 0.6, reduction, 1.0, &mut [0.0; 4]);
            let mut d = [0.0; 4];
            quantile_huber(&theta, &y, 0.6, reduction, 1.0, &mut d);
            assert_gradient(&format!("{reduction:?}"), &theta, &d, 1e-8, loss);
        }
    }
}
