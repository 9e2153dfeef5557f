//! Losses of a reward model's scores against what people judged: pairs, whole rankings with ties,
//! and right or wrong. To be descended.

use cordada_nn::Real;

/// What one pair adds to a loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PairTerm<F> {
    /// Its value, to be descended.
    pub loss: F,
    /// ∂ loss / ∂ score of the chosen one; of a preference loss, ∂ loss / ∂ log π(chosen).
    pub d_chosen: F,
    /// The same of the rejected one.
    pub d_rejected: F,
}

/// What one score adds to a loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScoreTerm<F> {
    /// Its value, to be descended.
    pub loss: F,
    /// ∂ loss / ∂ score.
    pub d_score: F,
}

/// Loss of a pair under the model of Bradley and Terry.
///
/// ```text
/// L = −log σ(s₊ − s₋ − margin) + c (s₊ + s₋)²
/// ```
///
/// `margin` asks for a greater distance where the judgement was clear; 0 without. The second term
/// holds the scores near 0, which the first leaves free to drift; c is 0 without, 0.01 usually.
///
/// # Source
///
/// Bradley & Terry 1952, doi:10.2307/2334029; Ouyang et al. 2022, arXiv:2203.02155, eq. (1);
/// margin: Touvron et al. 2023, arXiv:2307.09288, eq. (2); centering: Eisenstein et al. 2023,
/// arXiv:2312.09244.
#[inline(always)]
pub fn bradley_terry<F: Real>(chosen: F, rejected: F, margin: F, center_coef: F) -> PairTerm<F> {
    let x = chosen - rejected - margin;
    let sum = chosen + rejected;
    let d_x = -(-x).sigmoid();
    let d_sum = F::of(2.0) * center_coef * sum;
    PairTerm {
        loss: (-x).softplus() + center_coef * sum * sum,
        d_chosen: d_x + d_sum,
        d_rejected: d_sum - d_x,
    }
}

/// Binary cross-entropy of a score: of an outcome or a step that is right or wrong.
///
/// ```text
/// L = −y log σ(s) − (1 − y) log(1 − σ(s)),   ∂L/∂s = σ(s) − y,   y ∈ [0, 1]
/// ```
#[inline(always)]
pub fn binary_cross_entropy<F: Real>(score: F, label: F) -> ScoreTerm<F> {
    ScoreTerm { loss: score.softplus() - label * score, d_score: score.sigmoid() - label }
}

fn check_ranking<F>(scores: &[F], places: &[usize], d_scores: &[F]) {
    assert_eq!(places.len(), scores.len(), "as many places as scores are needed");
    assert_eq!(d_scores.len(), scores.len(), "as many gradients as scores are needed");
}

/// Negative log-likelihood of a ranking with ties under the model of Plackett and Luce.
///
/// Without ties, the best item is chosen among all by a softmax of the scores, then the best among
/// the rest, and so on:
///
/// ```text
/// L = −Σ_k ( s_k − log Σ_{j at place k or worse} e^{s_j} )
/// ```
///
/// A tie of m items D is any of its m! orders. Efron's approximation takes off, at the l-th choice
/// within the tie, the expected share of those that were chosen before:
///
/// ```text
/// L_D = −Σ_{i ∈ D} s_i + Σ_{l=0}^{m−1} log( Σ_{j worse than D} e^{s_j} + (1 − l/m) Σ_{j ∈ D} e^{s_j} )
/// ```
///
/// It draws tied scores together, the stronger the more of them there are, and is what the sum
/// above is for m = 1. Two items make it [`bradley_terry`]. Returns L and writes `coef` · ∂L/∂s
/// into `d_scores`.
///
/// # Shapes
///
/// `scores`, `places`, `d_scores`: `[K]`. A smaller place is better, equal places are ties; gaps
/// between places do not matter.
///
/// # Panics
///
/// If the lengths differ.
///
/// # Source
///
/// Plackett 1975, doi:10.2307/2346567; Luce 1959. Ties: Efron 1977,
/// doi:10.1080/01621459.1977.10480613, for the partial likelihood of Cox, which has the same form.
pub fn plackett_luce<F: Real>(scores: &[F], places: &[usize], coef: F, d_scores: &mut [F]) -> F {
    check_ranking(scores, places, d_scores);
    d_scores.fill(F::ZERO);
    let mut loss = F::ZERO;
    for (first, &place) in places.iter().enumerate() {
        // Once for each place, at its first item. Quadratic in K, without memory of its own.
        if places[..first].contains(&place) {
            continue;
        }
        let remaining = || scores.iter().zip(places).filter(|&(_, &p)| p >= place);
        let max = remaining().fold(F::NEG_INFINITY, |max, (&s, _)| max.max(s));
        let (mut tied, mut worse, mut m) = (F::ZERO, F::ZERO, 0_usize);
        for (&score, &p) in remaining() {
            let weight = (score - max).exp();
            if p == place {
                tied += weight;
                loss -= score;
                m += 1;
            } else {
                worse += weight;
            }
        }
        // Σ_l 1/denominator for those worse, Σ_l (1 − l/m)/denominator for the tied.
        let (mut d_worse, mut d_tied) = (F::ZERO, F::ZERO);
        for l in 0..m {
            let left = F::of((m - l) as f64 / m as f64);
            let denominator = worse + left * tied;
            loss += max + denominator.ln();
            d_worse += F::ONE / denominator;
            d_tied += left / denominator;
        }
        for ((d, &score), &p) in d_scores.iter_mut().zip(scores).zip(places) {
            if p == place {
                *d += coef * ((score - max).exp() * d_tied - F::ONE);
            } else if p > place {
                *d += coef * ((score - max).exp() * d_worse);
            }
        }
    }
    loss
}

/// Mean of [`bradley_terry`] over all pairs of a ranking.
///
/// ```text
/// L = 2 / (K (K − 1)) Σ_{i better than j} −log σ(s_i − s_j)
/// ```
///
/// A tied pair counts half in each direction, which draws its scores together. Averaging inside the
/// ranking keeps one with many items from counting more than others. Returns L, which is 0 for
/// K < 2, and writes `coef` · ∂L/∂s into `d_scores`.
///
/// # Shapes
///
/// `scores`, `places`, `d_scores`: `[K]`, as for [`plackett_luce`].
///
/// # Panics
///
/// If the lengths differ.
///
/// # Source
///
/// Ouyang et al. 2022, arXiv:2203.02155, eq. (1).
pub fn all_pairs<F: Real>(scores: &[F], places: &[usize], coef: F, d_scores: &mut [F]) -> F {
    check_ranking(scores, places, d_scores);
    d_scores.fill(F::ZERO);
    let k = scores.len();
    if k < 2 {
        return F::ZERO;
    }
    let weight = F::of(2.0 / (k * (k - 1)) as f64);
    let half = F::of(0.5);
    let mut loss = F::ZERO;
    for i in 0..k {
        for j in i + 1..k {
            // The part of the pair's weight that says that i is better.
            let share = match places[i].cmp(&places[j]) {
                std::cmp::Ordering::Less => F::ONE,
                std::cmp::Ordering::Equal => half,
                std::cmp::Ordering::Greater => F::ZERO,
            };
            let term = binary_cross_entropy(scores[i] - scores[j], share);
            loss += weight * term.loss;
            d_scores[i] += coef * weight * term.d_score;
            d_scores[j] -= coef * weight * term.d_score;
        }
    }
    loss
}

#[cfg(test)]
mod tests {
    use cordada_testkit::gradient::assert_gradient;

    use super::*;

    fn luce(scores: &[f64], places: &[usize]) -> (f64, Vec<f64>) {
        let mut d = vec![9.0; scores.len()];
        let loss = plackett_luce(scores, places, 1.0, &mut d);
        (loss, d)
    }

    #[test]
    fn a_pair_by_hand() {
        // s₊ − s₋ − margin = 3 − 1 − 2 = 0: ln 2 + ½ (3 + 1)², ∓½ + 4.
        let got = bradley_terry(3.0, 1.0, 2.0, 0.5);
        assert!((got.loss - (std::f64::consts::LN_2 + 8.0)).abs() < 1e-14);
        assert_eq!((got.d_chosen, got.d_rejected), (3.5, 4.5));
        // σ(ln 3) = ¾.
        let got = bradley_terry(3.0_f64.ln(), 0.0, 0.0, 0.0);
        assert!((got.loss - (4.0_f64 / 3.0).ln()).abs() < 1e-14);
        assert!((got.d_chosen + 0.25).abs() < 1e-15 && (got.d_rejected - 0.25).abs() < 1e-15);
        // Wrong by far: linear, without overflow.
        assert_eq!(bradley_terry(-500.0, 500.0, 0.0, 0.0_f32).loss, 1000.0);
    }

    #[test]
    fn right_or_wrong_by_hand() {
        let s = 3.0_f64.ln();
        let (right, wrong) = (binary_cross_entropy(s, 1.0), binary_cross_entropy(s, 0.0));
        assert!((right.loss - (4.0_f64 / 3.0).ln()).abs() < 1e-14);
        assert!((wrong.loss - 4.0_f64.ln()).abs() < 1e-14);
        assert!((right.d_score + 0.25).abs() < 1e-15 && (wrong.d_score - 0.75).abs() < 1e-15);
    }

    #[test]
    fn rankings_by_hand() {
        // Weights e^s = 1, 2, 5. The order 2, 0, 1: 5/8 · 1/3 · 1. Gaps between places do not matter.
        let scores = [0.0, 2.0_f64.ln(), 5.0_f64.ln()];
        for places in [[1, 2, 0], [20, 30, 3]] {
            assert!((luce(&scores, &places).0 - (24.0_f64 / 5.0).ln()).abs() < 1e-14);
        }
        // 0 and 1 tied behind 2: 5/8, then 1 · 2 / (3 · 1½).
        let (loss, _) = luce(&scores, &[4, 4, 1]);
        assert!((loss - (8.0_f64 / 5.0 * 4.5 / 2.0).ln()).abs() < 1e-14, "{loss}");
        // 0 and 1 tied before 2: 1 · 2 / (8 · (5 + 1½)), then 1.
        let (loss, _) = luce(&scores, &[0, 0, 1]);
        assert!((loss - (8.0 * 6.5 / 2.0_f64).ln()).abs() < 1e-14, "{loss}");
        // All tied: 1 · 2 · 5 / (8 · 8·⅔ · 8·⅓).
        let (loss, _) = luce(&scores, &[7; 3]);
        assert!((loss - (512.0 * 2.0 / 9.0 / 10.0_f64).ln()).abs() < 1e-13, "{loss}");
        assert_eq!(luce(&[], &[]).0, 0.0);
        assert_eq!(luce(&[3.0], &[1]), (0.0, vec![0.0]));
    }

    #[test]
    fn two_items_are_a_pair() {
        for (chosen, rejected) in [(0.3, 1.7), (2.0, -1.0), (-60.0, 60.0)] {
            let pair = bradley_terry(chosen, rejected, 0.0, 0.0);
            for (scores, places, c, r) in
                [([chosen, rejected], [0, 1], 0, 1), ([rejected, chosen], [5, 2], 1, 0)]
            {
                let mut d = [9.0; 2];
                let all = all_pairs(&scores, &places, 1.0, &mut d);
                let (luce, d_luce) = luce(&scores, &places);
                for (loss, d) in [(all, &d[..]), (luce, &d_luce)] {
                    assert!((loss - pair.loss).abs() < 1e-13, "{loss}, {pair:?}");
                    assert!((d[c] - pair.d_chosen).abs() < 1e-14, "{d:?}, {pair:?}");
                    assert!((d[r] - pair.d_rejected).abs() < 1e-14, "{d:?}, {pair:?}");
                }
            }
        }
    }

    #[test]
    fn pairs_of_a_ranking_by_hand() {
        // e^s = 1, 3, 3; item 0 is worst, 1 and 2 are tied: (2 · ln(4/3) + ln 2) / 3.
        let scores = [0.0, 3.0_f64.ln(), 3.0_f64.ln()];
        let mut d = [9.0; 3];
        let loss = all_pairs(&scores, &[2, 1, 1], 3.0, &mut d);
        let want = (2.0 * (4.0_f64 / 3.0).ln() + std::f64::consts::LN_2) / 3.0;
        assert!((loss - want).abs() < 1e-14, "{loss}, expected {want}");
        // 3 · (1/3) · ¼ for each of the two pairs; the tied pair is at its minimum.
        for (got, want) in d.iter().zip([0.5, -0.25, -0.25]) {
            assert!((got - want).abs() < 1e-14, "{d:?}");
        }
        assert_eq!(all_pairs(&[3.0], &[0], 1.0, &mut [9.0]), 0.0);
    }

    #[test]
    fn a_tie_draws_scores_together() {
        for (scores, places) in [([1.0, -0.5, 0.2], [1, 1, 1]), ([1.0, -0.5, 9.0], [1, 1, 0])] {
            let mut d = [9.0; 3];
            all_pairs(&scores, &places, 1.0, &mut d);
            for d in [&d[..], &luce(&scores, &places).1] {
                assert!(d[0] > 0.0 && d[1] < 0.0, "{d:?}");
            }
        }
    }

    #[test]
    fn gradients() {
        let scores = [0.4, -1.3, 2.2, 0.0, 0.9];
        for places in [[0, 1, 2, 3, 4], [3, 1, 3, 3, 0], [2, 2, 1, 1, 1], [5; 5]] {
            let (_, d) = luce(&scores, &places);
            let what = format!("{places:?}");
            assert_gradient(&what, &scores, &d, 1e-8, |s| luce(s, &places).0);
            let mut d = [9.0; 5];
            all_pairs(&scores, &places, 1.0, &mut d);
            assert_gradient(&what, &scores, &d, 1e-8, |s| {
                all_pairs(s, &places, 1.0, &mut [0.0; 5])
            });
            // `coef` scales the gradient, not the loss.
            let mut twice = [9.0; 5];
            assert_eq!(plackett_luce(&scores, &places, 2.0, &mut twice), luce(&scores, &places).0);
            for (twice, d) in twice.iter().zip(luce(&scores, &places).1) {
                assert!((twice - 2.0 * d).abs() < 1e-15);
            }
        }
        let of = |x: &[f64]| bradley_terry(x[0], x[1], 0.3, 0.1);
        let x = [0.7, -0.4];
        assert_gradient("pair", &x, &[of(&x).d_chosen, of(&x).d_rejected], 1e-8, |x| of(x).loss);
        let d = binary_cross_entropy(0.7, 0.3).d_score;
        assert_gradient("binary", &[0.7], &[d], 1e-8, |x| binary_cross_entropy(x[0], 0.3).loss);
    }
}
