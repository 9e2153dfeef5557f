//! Softmax, log-softmax, log-sum-exp and entropy of rows of logits, with vjp.
//!
//! Stable for logits of any size, and −∞ marks an impossible outcome: probability 0. A row whose
//! logits are all −∞ has log-sum-exp −∞ and no softmax (NaN). Each row's sums run in the fixed
//! order of 16 lanes, so its bits do not depend on the number of rows.

use crate::kernel::kernel;
use crate::{Real, lanes};

/// max x, or 0 where subtracting it would give NaN (all −∞).
#[inline(always)]
fn shift_of<T: Real>(x: &[T]) -> T {
    let max = lanes::max(x, T::NEG_INFINITY, |x| x);
    if max == T::NEG_INFINITY { T::ZERO } else { max }
}

/// max x + ln Σ e^(x − max).
#[inline(always)]
fn row_log_sum_exp<T: Real>(x: &[T]) -> T {
    let shift = shift_of(x);
    shift + lanes::sum(x, |acc, x| acc + (x - shift).exp()).ln()
}

#[inline(always)]
fn check_rows(len: usize, other: usize, columns: usize) {
    assert!(
        len == other && columns > 0 && len.is_multiple_of(columns),
        "softmax: {len} and {other} values are not rows of {columns}"
    );
}

kernel! {
    /// `out[r] = ln Σ_j e^x[r][j]`.
    ///
    /// # Shapes
    ///
    /// `x`: `[R, V]`; `out`: `[R]`.
    ///
    /// # Panics
    ///
    /// If `x` is not `R` rows of one length.
    pub fn log_sum_exp<T: Real>(x: &[T], out: &mut [T]) {
        if out.is_empty() {
            return;
        }
        let columns = x.len() / out.len();
        check_rows(x.len(), columns * out.len(), columns);
        for (x, out) in x.chunks_exact(columns).zip(out) {
            *out = row_log_sum_exp(x);
        }
    }
}

kernel! {
    /// Gradient of [`log_sum_exp`]: `dx[r][j] = d_out[r] · e^(x[r][j] − out[r])`.
    ///
    /// # Shapes
    ///
    /// `x`, `dx`: `[R, V]`; `out` (from the forward pass), `d_out`: `[R]`.
    ///
    /// # Panics
    ///
    /// If the lengths do not agree.
    pub fn log_sum_exp_vjp<T: Real>(x: &[T], out: &[T], d_out: &[T], dx: &mut [T]) {
        if out.is_empty() {
            return;
        }
        let columns = x.len() / out.len();
        check_rows(x.len(), dx.len(), columns);
        check_rows(columns * out.len(), columns * d_out.len(), columns);
        let rows = x.chunks_exact(columns).zip(dx.chunks_exact_mut(columns));
        for ((x, dx), (&out, &d)) in rows.zip(out.iter().zip(d_out)) {
            for (dx, &x) in dx.iter_mut().zip(x) {
                *dx = d * (x - out).exp();
            }
        }
    }
}

kernel! {
    /// `y[r][j] = e^x[r][j] / Σ_k e^x[r][k]`.
    ///
    /// # Shapes
    ///
    /// `x`, `y`: `[R, columns]`.
    ///
    /// # Panics
    ///
    /// If the lengths do not agree.
    pub fn softmax<T: Real>(x: &[T], columns: usize, y: &mut [T]) {
        check_rows(x.len(), y.len(), columns);
        for (x, y) in x.chunks_exact(columns).zip(y.chunks_exact_mut(columns)) {
            let shift = shift_of(x);
            for (y, &x) in y.iter_mut().zip(x) {
                *y = (x - shift).exp();
            }
            let scale = T::ONE / lanes::sum(y, |acc, y| acc + y);
            for y in y.iter_mut() {
                *y *= scale;
            }
        }
    }
}

kernel! {
    /// Gradient of [`softmax`], from its output: `dx = y ⊙ (dy − Σ dy ⊙ y)` in each row.
    ///
    /// # Shapes
    ///
    /// `y`, `dy`, `dx`: `[R, columns]`.
    ///
    /// # Panics
    ///
    /// If the lengths do not agree.
    pub fn softmax_vjp<T: Real>(y: &[T], dy: &[T], columns: usize, dx: &mut [T]) {
        check_rows(y.len(), dy.len(), columns);
        check_rows(y.len(), dx.len(), columns);
        let rows = y.chunks_exact(columns).zip(dy.chunks_exact(columns));
        for ((y, dy), dx) in rows.zip(dx.chunks_exact_mut(columns)) {
            let inner = lanes::sum2(y, dy, |acc, y, dy| y.mul_add(dy, acc));
            for ((dx, &y), &dy) in dx.iter_mut().zip(y).zip(dy) {
                *dx = y * (dy - inner);
            }
        }
    }
}

kernel! {
    /// `y[r][j] = x[r][j] − ln Σ_k e^x[r][k]`.
    ///
    /// # Shapes
    ///
    /// `x`, `y`: `[R, columns]`.
    ///
    /// # Panics
    ///
    /// If the lengths do not agree.
    pub fn log_softmax<T: Real>(x: &[T], columns: usize, y: &mut [T]) {
        check_rows(x.len(), y.len(), columns);
        for (x, y) in x.chunks_exact(columns).zip(y.chunks_exact_mut(columns)) {
            // Shifted first: x − max is exact near the maximum, x − (max + ln Σ) is not.
            let shift = shift_of(x);
            let log_sum = lanes::sum(x, |acc, x| acc + (x - shift).exp()).ln();
            for (y, &x) in y.iter_mut().zip(x) {
                *y = x - shift - log_sum;
            }
        }
    }
}

kernel! {
    /// Gradient of [`log_softmax`], from its output: `dx = dy − e^y Σ dy` in each row.
    ///
    /// # Shapes
    ///
    /// `y`, `dy`, `dx`: `[R, columns]`.
    ///
    /// # Panics
    ///
    /// If the lengths do not agree.
    pub fn log_softmax_vjp<T: Real>(y: &[T], dy: &[T], columns: usize, dx: &mut [T]) {
        check_rows(y.len(), dy.len(), columns);
        check_rows(y.len(), dx.len(), columns);
        let rows = y.chunks_exact(columns).zip(dy.chunks_exact(columns));
        for ((y, dy), dx) in rows.zip(dx.chunks_exact_mut(columns)) {
            let total = lanes::sum(dy, |acc, dy| acc + dy);
            for ((dx, &y), &dy) in dx.iter_mut().zip(y).zip(dy) {
                *dx = (-y.exp()).mul_add(total, dy);
            }
        }
    }
}

kernel! {
    /// Entropy of each row of log-probabilities, in nats: `out[r] = −Σ_j p ln p`, where
    /// `0 ln 0 = 0`.
    ///
    /// # Shapes
    ///
    /// `log_prob` (from [`log_softmax`]): `[R, V]`; `out`: `[R]`.
    ///
    /// # Panics
    ///
    /// If `log_prob` is not `R` rows of one length.
    pub fn entropy<T: Real>(log_prob: &[T], out: &mut [T]) {
        if out.is_empty() {
            return;
        }
        let columns = log_prob.len() / out.len();
        check_rows(log_prob.len(), columns * out.len(), columns);
        for (row, out) in log_prob.chunks_exact(columns).zip(out) {
            *out = -lanes::sum(row, |acc, l| {
                let term = l.exp() * l;
                acc + if l == T::NEG_INFINITY { T::ZERO } else { term }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use cordada_testkit::gradient::assert_gradient;
    use proptest::prelude::*;

    use super::*;
    use crate::kernel::Isa;

    fn map<T: Real>(x: &[T], f: impl Fn(&[T], &mut [T])) -> Vec<T> {
        let mut y = vec![T::ZERO; x.len()];
        f(x, &mut y);
        y
    }

    fn wave(n: usize, shift: f64) -> Vec<f64> {
        (0..n).map(|i| 2.0 * libm::sin(1.3 * i as f64 + shift)).collect()
    }

    #[test]
    fn values_are_the_hand_computed_ones() {
        // e^x = 1, 3, 4: probabilities 1/8, 3/8, 1/2.
        let x = [0.0, 3.0_f64.ln(), 4.0_f64.ln()];
        let want = [0.125, 0.375, 0.5_f64];
        for isa in Isa::available() {
            let p = map(&x, |x, y| softmax(isa, x, 3, y));
            let l = map(&x, |x, y| log_softmax(isa, x, 3, y));
            let (mut lse, mut h) = ([0.0], [0.0]);
            log_sum_exp(isa, &x, &mut lse);
            entropy(isa, &l, &mut h);
            for i in 0..3 {
                assert!((p[i] - want[i]).abs() < 1e-15);
                assert!((l[i] - want[i].ln()).abs() < 1e-15);
            }
            assert!((lse[0] - 8.0_f64.ln()).abs() < 1e-15);
            // 1/8 · 3 ln 2 + 3/8 (3 ln 2 − ln 3) + 1/2 ln 2 = 2 ln 2 − 3/8 ln 3
            let want = 2.0 * 2.0_f64.ln() - 0.375 * 3.0_f64.ln();
            assert!((h[0] - want).abs() < 1e-15);
        }
    }

    #[test]
    fn huge_logits_and_impossible_outcomes() {
        let isa = Isa::detect();
        let none = f32::NEG_INFINITY;
        let x = [1e30_f32, 1e30, none, -1e30];
        assert_eq!(map(&x, |x, y| softmax(isa, x, 4, y)), [0.5, 0.5, 0.0, 0.0]);
        let l = map(&x, |x, y| log_softmax(isa, x, 4, y));
        assert_eq!(l[2], none);
        assert!((l[0] + std::f32::consts::LN_2).abs() < 1e-7);
        let mut h = [0.0_f32];
        entropy(isa, &l, &mut h);
        assert!((h[0] - std::f32::consts::LN_2).abs() < 1e-7);
        let mut lse = [0.0_f32];
        log_sum_exp(isa, &[none; 4], &mut lse);
        assert_eq!(lse[0], none);
        log_sum_exp(isa, &[0.0, f32::NAN], &mut lse);
        assert!(lse[0].is_nan());
    }

    #[test]
    fn vjps_are_the_gradients() {
        let (rows, v) = (2, 19);
        let (x, dy, d_out) = (wave(rows * v, 0.0), wave(rows * v, 1.0), [0.7, -1.3]);
        let weighted = |y: &[f64], d: &[f64]| y.iter().zip(d).map(|(y, d)| y * d).sum::<f64>();
        for isa in Isa::available() {
            let forward = |x: &[f64]| map(x, |x, y| softmax(isa, x, v, y));
            let dx = map(&forward(&x), |y, dx| softmax_vjp(isa, y, &dy, v, dx));
            assert_gradient("softmax", &x, &dx, 1e-8, |x| weighted(&forward(x), &dy));

            let forward = |x: &[f64]| map(x, |x, y| log_softmax(isa, x, v, y));
            let dx = map(&forward(&x), |y, dx| log_softmax_vjp(isa, y, &dy, v, dx));
            assert_gradient("log-softmax", &x, &dx, 1e-8, |x| weighted(&forward(x), &dy));

            let forward = |x: &[f64]| {
                let mut out = [0.0; 2];
                log_sum_exp(isa, x, &mut out);
                out
            };
            let dx = map(&x, |x, dx| log_sum_exp_vjp(isa, x, &forward(x), &d_out, dx));
            assert_gradient("log-sum-exp", &x, &dx, 1e-8, |x| weighted(&forward(x), &d_out));
        }
    }

    proptest! {
        #[test]
        fn a_row_alone_has_the_same_bits(rows in 1_usize..6, v in 1_usize..70, shift in 0.0..9.0) {
            let x: Vec<f32> = wave(rows * v, shift).iter().map(|&x| x as f32).collect();
            let pass = |isa: Isa, x: &[f32]| {
                let y = map(x, |x, y| softmax(isa, x, v, y));
                let l = map(x, |x, y| log_softmax(isa, x, v, y));
                let dx = map(x, |x, dx| softmax_vjp(isa, &y, x, v, dx));
                let dl = map(x, |x, dx| log_softmax_vjp(isa, &l, x, v, dx));
                let mut lse = vec![0.0; x.len() / v];
                log_sum_exp(isa, x, &mut lse);
                let bits = |x: &[f32], width: usize| -> Vec<Vec<u32>> {
                    x.chunks(width).map(|row| row.iter().map(|x| x.to_bits()).collect()).collect()
                };
                [bits(&y, v), bits(&l, v), bits(&dx, v), bits(&dl, v), bits(&lse, 1)]
            };
            let whole = pass(Isa::detect(), &x);
            for isa in Isa::available() {
                for r in 0..rows {
                    let alone = pass(isa, &x[r * v..(r + 1) * v]);
                    for (alone, whole) in alone.iter().zip(&whole) {
                        prop_assert_eq!(&alone[0], &whole[r], "row {} on {}", r, isa.name());
                    }
                }
            }
        }
    }
}
