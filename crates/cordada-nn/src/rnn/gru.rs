//! The GRU's elementwise work at one step, forward and backward, each in one loop.

#![allow(clippy::needless_range_loop, reason = "indexed loops of fixed length vectorize")]

use super::block::{Block, get, get_gates, put, put_gates, walk};
use crate::Real;
use crate::kernel::kernel;

/// From the products with x and h, biases included, to the new state.
///
/// ```text
/// r, z = σ(x's + h's)   n = tanh(x's + r h's)   h' = n + z (h − n)
/// ```
///
/// # Shapes
///
/// `gates`, `product`: `[B, 3H]`; the others: `[B, H]`.
pub(super) struct Forward<'a, T> {
    pub(super) hidden: usize,
    /// The products with x, and then the gates.
    pub(super) gates: &'a mut [T],
    /// The products with h.
    pub(super) product: &'a [T],
    pub(super) h_in: &'a [T],
    /// The product with h that belongs to n, kept for the way back.
    pub(super) n_h: &'a mut [T],
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
        let first = 3 * row * self.hidden + column;
        let [mut r, mut z, mut n]: [[T; W]; 3] = get_gates(self.gates, first, self.hidden);
        let [r_h, z_h, n_h]: [[T; W]; 3] = get_gates(self.product, first, self.hidden);
        let mut h: [T; W] = get(self.h_in, at);
        for l in 0..W {
            r[l] = (r[l] + r_h[l]).sigmoid();
            z[l] = (z[l] + z_h[l]).sigmoid();
            n[l] = r[l].mul_add(n_h[l], n[l]).tanh();
            h[l] = z[l].mul_add(h[l] - n[l], n[l]);
        }
        put_gates(self.gates, first, self.hidden, &[r, z, n]);
        put(self.n_h, at, n_h);
        put(self.h, at, h);
        put(self.y, at, h);
    }
}

/// From the derivatives by the new state to those by the products and, in part, by the old h.
///
/// ```text
/// ∂h' = dy + dh   dh = ∂h' z (the rest comes through the products)
/// ∂n = ∂h' (1 − z) (1 − n²)   ∂z = ∂h' (h − n) z (1 − z)   ∂r = ∂n h's r (1 − r)
/// ```
///
/// The derivatives by h's products are the same but for that of n, which is ∂n r.
///
/// # Shapes
///
/// `gates`, `d_gates`, `d_gates_h`: `[B, 3H]`; the others: `[B, H]`.
pub(super) struct Backward<'a, T> {
    pub(super) hidden: usize,
    pub(super) gates: &'a [T],
    pub(super) n_h: &'a [T],
    pub(super) h_in: &'a [T],
    pub(super) dy: &'a [T],
    /// What flows into h' from the next step, and then what flows into the old h past the products.
    pub(super) dh: &'a mut [T],
    pub(super) d_gates: &'a mut [T],
    pub(super) d_gates_h: &'a mut [T],
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
        let first = 3 * row * self.hidden + column;
        let [r, z, n]: [[T; W]; 3] = get_gates(self.gates, first, self.hidden);
        let (n_h, h): ([T; W], [T; W]) = (get(self.n_h, at), get(self.h_in, at));
        let dy: [T; W] = get(self.dy, at);
        let mut dh: [T; W] = get(self.dh, at);
        let mut d = [[T::ZERO; W]; 3];
        let mut d_n_h = [T::ZERO; W];
        for l in 0..W {
            let d_new = dy[l] + dh[l];
            let d_n = d_new * (T::ONE - z[l]) * (-n[l]).mul_add(n[l], T::ONE);
            d[0][l] = d_n * n_h[l] * r[l] * (T::ONE - r[l]);
            d[1][l] = d_new * (h[l] - n[l]) * z[l] * (T::ONE - z[l]);
            d[2][l] = d_n;
            d_n_h[l] = d_n * r[l];
            dh[l] = d_new * z[l];
        }
        let [d_r, d_z, d_n] = d;
        put_gates(self.d_gates, first, self.hidden, &[d_r, d_z, d_n]);
        put_gates(self.d_gates_h, first, self.hidden, &[d_r, d_z, d_n_h]);
        put(self.dh, at, dh);
    }
}
