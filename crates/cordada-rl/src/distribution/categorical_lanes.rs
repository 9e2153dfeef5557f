//! Batches of small categorical distributions, sixteen rows side by side: the arithmetic of
//! `categorical` in the same order, hence with the same bits, but one row per vector lane.

#![allow(clippy::needless_range_loop, reason = "lanes run beside each other by index")]

use cordada_nn::Real;
use cordada_nn::kernel::LANES;

use super::categorical::expected;

type Lanes<F> = [F; LANES];

/// Softmax of 16 rows.
struct Softmax<F, const N: usize> {
    /// logit − largest logit.
    z: [Lanes<F>; N],
    /// exp z.
    e: [Lanes<F>; N],
    inv_sum: Lanes<F>,
    log_sum: Lanes<F>,
    entropy: Lanes<F>,
}

impl<F: Real, const N: usize> Softmax<F, N> {
    /// `logits`: `[16, N]`.
    #[inline(always)]
    fn of(logits: &[F]) -> Self {
        let mut z = [[F::ZERO; LANES]; N];
        let mut e = z;
        for (row, logits) in logits.as_chunks::<N>().0.iter().enumerate().take(LANES) {
            for j in 0..N {
                z[j][row] = logits[j];
            }
        }
        let (mut inv_sum, mut log_sum, mut entropy) =
            ([F::ZERO; LANES], [F::ZERO; LANES], [F::ZERO; LANES]);
        for l in 0..LANES {
            let mut max = F::NEG_INFINITY;
            for logit in &z {
                max = max.max(logit[l]);
            }
            let (mut sum, mut weighted) = (F::ZERO, F::ZERO);
            for j in 0..N {
                z[j][l] -= max;
                e[j][l] = z[j][l].exp();
                sum += e[j][l];
                weighted += expected(e[j][l], z[j][l]);
            }
            log_sum[l] = sum.ln();
            inv_sum[l] = F::ONE / sum;
            entropy[l] = log_sum[l] - weighted * inv_sum[l];
        }
        Self { z, e, inv_sum, log_sum, entropy }
    }
}

/// log π(a) and entropy of 16 rows.
#[inline(always)]
pub(super) fn log_prob_entropy<F: Real, const N: usize>(
    logits: &[F],
    actions: &Lanes<F>,
    log_prob: &mut Lanes<F>,
    entropy: &mut Lanes<F>,
) {
    let softmax = Softmax::<F, N>::of(logits);
    *entropy = softmax.entropy;
    for l in 0..LANES {
        let mut chosen = F::ZERO;
        for j in 0..N {
            let hit = actions[l] == F::of(j as f64);
            chosen = if hit { softmax.z[j][l] } else { chosen };
        }
        log_prob[l] = chosen - softmax.log_sum[l];
    }
}

/// Adds ψ ∂ log π(a) + `entropy_coef` ∂H of 16 rows.
#[inline(always)]
pub(super) fn add_score_entropy<F: Real, const N: usize>(
    logits: &[F],
    (actions, psi): (&Lanes<F>, &Lanes<F>),
    entropy_coef: F,
    d_logits: &mut [F],
) {
    let softmax = Softmax::<F, N>::of(logits);
    let mut d = [[F::ZERO; LANES]; N];
    for l in 0..LANES {
        for j in 0..N {
            let hit = if actions[l] == F::of(j as f64) { psi[l] } else { F::ZERO };
            let above_mean = softmax.z[j][l] - softmax.log_sum[l] + softmax.entropy[l];
            let prob = softmax.e[j][l] * softmax.inv_sum[l];
            d[j][l] = hit - expected(prob, psi[l] + entropy_coef * above_mean);
        }
    }
    for (row, to) in d_logits.as_chunks_mut::<N>().0.iter_mut().enumerate().take(LANES) {
        for j in 0..N {
            to[j] += d[j][row];
        }
    }
}

/// Runs `$body` with the constant `$n` the number of actions; nothing beyond 8, which has no
/// instance of its own.
macro_rules! for_each_size {
    ($num_actions:expr, $n:ident => $body:expr) => {
        match $num_actions {
            2 => {
                const $n: usize = 2;
                $body
            }
            3 => {
                const $n: usize = 3;
                $body
            }
            4 => {
                const $n: usize = 4;
                $body
            }
            5 => {
                const $n: usize = 5;
                $body
            }
            6 => {
                const $n: usize = 6;
                $body
            }
            7 => {
                const $n: usize = 7;
                $body
            }
            8 => {
                const $n: usize = 8;
                $body
            }
            _ => {}
        }
    };
}
pub(super) use for_each_size;
