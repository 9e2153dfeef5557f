//! The LSTM's elementwise work at one step, forward and backward, each in one loop.

#![allow(clippy::needless_range_loop, reason = "indexed loops of fixed length vectorize")]

use super::block::{Block, get, get_gates, put, put_gates, walk};
use crate::Real;
use crate::kernel::kernel;

/// From the sums of the gates to the new state.
///
/// ```text
/// i, f, o = σ(sums)   g = tanh(sums)   c' = f c + i g   h' = o tanh c'
/// ```
///
/// # Shapes
///
/// `gates`: `[B, 4H]`; the others: `[B, H]`.
pub(super) struct Forward<'a, T> {
    pub(super) hidden: usize,
    /// The sums, and then the gates.
    pub(super) gates: &'a mut [T],
    pub(super) c_in: &'a [T],
    pub(super) c: &'a mut [T],
    pub(super) tanh_c: &'a mut [T],
    pub(super) h: &'a mut [T],
    /// h once more: the next step's start may reset the other.
    pub(super) y: &'a mut [T],
}

kernel! {
    /// Runs [`Forward`].
    pub(super) fn forward<T: Real>(step: Forward<'_, T>) {
        let mut step = step;
        walk(step.y.len() / step.hidden, step.hidden, &mut step);
    }
}

impl<T: Real> Block for Forward<'_, T> {
    #[inline(always)]
    fn block<const W: usize>(&mut self, row: usize, column: usize) {
        let at = row * self.hidden + column;
        let first = 4 * row * self.hidden + column;
        let [mut i, mut f, mut g, mut o]: [[T; W]; 4] = get_gates(self.gates, first, self.hidden);
        let mut c: [T; W] = get(self.c_in, at);
        let (mut tanh_c, mut h) = ([T::ZERO; W], [T::ZERO; W]);
        for l in 0..W {
            i[l] = i[l].sigmoid();
            f[l] = f[l].sigmoid();
            g[l] = g[l].tanh();
            o[l] = o[l].sigmoid();
            c[l] = f[l].mul_add(c[l], i[l] * g[l]);
            tanh_c[l] = c[l].tanh();
            h[l] = o[l] * tanh_c[l];
        }
        put_gates(self.gates, first, self.hidden, &[i, f, g, o]);
        put(self.c, at, c);
        put(self.tanh_c, at, tanh_c);
        put(self.h, at, h);
        put(self.y, at, h);
    }
}

/// From the derivatives by the new state to those by the sums of the gates and by the old c.
///
/// ```text
/// ∂h' = dy + dh   ∂c' = dc + ∂h' o (1 − tanh² c')   dc = ∂c' f
/// ∂i = ∂c' g i (1 − i)   ∂f = ∂c' c f (1 − f)   ∂g = ∂c' i (1 − g²)   ∂o = ∂h' tanh(c') o (1 − o)
/// ```
///
/// # Shapes
///
/// `gates`, `d_gates`: `[B, 4H]`; the others: `[B, H]`.
pub(super) struct Backward<'a, T> {
    pub(super) hidden: usize,
    pub(super) gates: &'a [T],
    pub(super) c_in: &'a [T],
    pub(super) tanh_c: &'a [T],
    /// What flows into h' as an output, and what flows into it from the next step.
    pub(super) dy: &'a [T],
    pub(super) dh: &'a [T],
    /// What flows into c' from the next step, and then what flows into the old c.
    pub(super) dc: &'a mut [T],
    pub(super) d_gates: &'a mut [T],
}

kernel! {
    /// Runs [`Backward`].
    pub(super) fn backward<T: Real>(step: Backward<'_, T>) {
        let mut step = step;
        walk(step.dy.len() / step.hidden, step.hidden, &mut step);
    }
}

impl<T: Real> Block for Backward<'_, T> {
    #[inline(always)]
    fn block<const W: usize>(&mut self, row: usize, column: usize) {
        let at = row * self.hidden + column;
        let first = 4 * row * self.hidden + column;
        let [i, f, g, o]: [[T; W]; 4] = get_gates(self.gates, first, self.hidden);
        let c: [T; W] = get(self.c_in, at);
        let tanh_c: [T; W] = get(self.tanh_c, at);
        let (dy, from_next): ([T; W], [T; W]) = (get(self.dy, at), get(self.dh, at));
        let mut dc: [T; W] = get(self.dc, at);
        let mut d = [[T::ZERO; W]; 4];
        for l in 0..W {
            let dh = dy[l] + from_next[l];
            let d_new = (dh * o[l]).mul_add((-tanh_c[l]).mul_add(tanh_c[l], T::ONE), dc[l]);
            d[0][l] = d_new * g[l] * i[l] * (T::ONE - i[l]);
            d[1][l] = d_new * c[l] * f[l] * (T::ONE - f[l]);
            d[2][l] = d_new * i[l] * (-g[l]).mul_add(g[l], T::ONE);
            d[3][l] = dh * tanh_c[l] * o[l] * (T::ONE - o[l]);
            dc[l] = d_new * f[l];
        }
        put_gates(self.d_gates, first, self.hidden, &d);
        put(self.dc, at, dc);
    }
}
