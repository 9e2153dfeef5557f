//! Matrix products by register tiles: `C += A B` with `B` packed in panels, and `C += Aᵀ B`.
//!
//! A tile holds up to 6 × 64 outputs in registers and walks over k once. Each output element has
//! one accumulator that starts from its old value (or the bias) and ascends over k with fused
//! multiply-add, so tile shapes, blocking and the number of rows never change a bit of a row.
//!
//! A product with very few columns (the head of a policy or a critic) would leave most lanes
//! empty; there each output is a dot product in 16 lanes with a fixed tree, like every reduction.

#![allow(clippy::needless_range_loop, reason = "indexed loops of fixed length vectorize")]

use std::array;

use super::reduce::fold;
use super::{Isa, LANES, kernel, transpose};
use crate::Real;

/// Columns of a wide panel, for processors with 32 vector registers of 16 lanes: a tile of 6 rows
/// keeps 24 of them busy. Others use panels of [`LANES`] columns only.
const WIDE_PANEL: usize = 4 * LANES;
/// Rows of a tile over a wide panel: 24 vectors of accumulators.
const WIDE_ROWS: usize = 6;
/// Rows of a tile over a narrow panel on such a processor: 12 sums, enough to hide the latency.
const NARROW_ROWS: usize = 12;
/// Rows of a tile on other processors, whose vectors are half as long and registers half as many.
const SMALL_ROWS: usize = 6;
/// Columns up to which a product runs as dot products.
const DOT_COLUMNS: usize = 4;
/// Rows of k that are walked before the next rows of A: a panel of this depth (32 KiB) stays in
/// the first-level cache.
const K_BLOCK: usize = 128;

/// The right-hand side of a product, copied into panels of 64 or 16 columns (the last one padded
/// with zeros), so that the inner loop reads memory in order. With up to 4 columns it is kept
/// column by column.
///
/// Packing costs one pass over the weights and happens once per optimizer step.
#[derive(Clone, Debug)]
pub struct Panels<T> {
    isa: Isa,
    data: Vec<T>,
    /// Depth of the product.
    k: usize,
    /// Columns of the product.
    n: usize,
}

impl<T: Real> Panels<T> {
    /// Room for a `[k, n]` matrix of zeros.
    ///
    /// # Panics
    ///
    /// If k or n is 0.
    pub fn new(isa: Isa, k: usize, n: usize) -> Self {
        assert!(k > 0 && n > 0, "a [{k}, {n}] matrix is empty");
        Self { isa, data: vec![T::ZERO; k * n.next_multiple_of(LANES)], k, n }
    }

    /// Copies `b`: `[k, n]`.
    ///
    /// # Panics
    ///
    /// If `b` has another length.
    pub fn pack(&mut self, b: &[T]) {
        assert_eq!(b.len(), self.k * self.n, "a [{}, {}] matrix", self.k, self.n);
        if self.n <= DOT_COLUMNS {
            return transpose(self.isa, b, self.n, &mut self.data, self.k);
        }
        for panel in panels(self.isa.is_wide(), self.n) {
            let columns = panel.width.min(self.n - panel.first);
            let lines = &mut self.data[panel.first * self.k..][..panel.width * self.k];
            let rows = b.chunks_exact(self.n);
            for (line, row) in lines.chunks_exact_mut(panel.width).zip(rows) {
                line[..columns].copy_from_slice(&row[panel.first..][..columns]);
            }
        }
    }

    /// Copies the transpose of `b`: `[n, k]`.
    ///
    /// # Panics
    ///
    /// If `b` has another length.
    pub fn pack_transposed(&mut self, b: &[T]) {
        assert_eq!(b.len(), self.k * self.n, "a [{}, {}] matrix", self.n, self.k);
        if self.n <= DOT_COLUMNS {
            return self.data[..b.len()].copy_from_slice(b);
        }
        for panel in panels(self.isa.is_wide(), self.n) {
            let columns = panel.width.min(self.n - panel.first);
            let lines = &mut self.data[panel.first * self.k..][..panel.width * self.k];
            let from = &b[panel.first * self.k..][..columns * self.k];
            transpose(self.isa, from, self.k, lines, panel.width);
        }
    }
}

/// Columns that one panel covers; `width` counts the padding.
#[derive(Clone, Copy)]
struct Panel {
    first: usize,
    width: usize,
}

/// The panels of `n` columns: as many wide ones as fit, then narrow ones.
#[inline(always)]
fn panels(wide: bool, n: usize) -> impl Iterator<Item = Panel> {
    let mut first = 0;
    std::iter::from_fn(move || {
        let width = if wide && first + WIDE_PANEL <= n { WIDE_PANEL } else { LANES };
        let panel = Panel { first, width };
        first += width;
        (panel.first < n).then_some(panel)
    })
}

/// What each accumulator of a product starts from.
#[derive(Clone, Copy, Debug)]
pub enum Start<'a, T> {
    /// 0: `C = A B`.
    Zero,
    /// One row, the bias, for all rows: `C = bias + A B`.
    Row(&'a [T]),
    /// What C holds: `C += A B`.
    Old,
}

/// `C = A B`, `C = bias + A B` or `C += A B`, by `start`.
///
/// # Shapes
///
/// `a`: `[rows, k]`; `b`: `[k, n]`; a starting row: `[n]`; `c`: `[rows, n]`, where `rows` follows from
/// `c.len()`.
///
/// # Panics
///
/// If the lengths do not agree.
pub fn matmul<T: Real>(a: &[T], b: &Panels<T>, start: Start<'_, T>, c: &mut [T]) {
    let rows = c.len() / b.n;
    assert!(a.len() == rows * b.k && c.len() == rows * b.n, "A is [rows, k], C is [rows, n]");
    assert!(!matches!(start, Start::Row(row) if row.len() != b.n), "one bias per column");
    if b.n <= DOT_COLUMNS {
        dots(b.isa, a, b, start, c);
    } else {
        product(b.isa, a, b, start, c);
    }
}

kernel! {
    /// A product with few columns: `c[r][j] = start + Σ_k a[r][k] b[k][j]`.
    fn dots<T: Real>(a: &[T], b: &Panels<T>, start: Start<'_, T>, c: &mut [T]) {
        match b.n {
            1 => dot_columns::<T, 1>(a, b, start, c),
            2 => dot_columns::<T, 2>(a, b, start, c),
            3 => dot_columns::<T, 3>(a, b, start, c),
            _ => dot_columns::<T, DOT_COLUMNS>(a, b, start, c),
        }
    }
}

#[inline(always)]
fn dot_columns<T: Real, const N: usize>(a: &[T], b: &Panels<T>, start: Start<'_, T>, c: &mut [T]) {
    for (row, c) in a.chunks_exact(b.k).zip(c.as_chunks_mut::<N>().0) {
        for j in 0..N {
            let first = match start {
                Start::Zero => T::ZERO,
                Start::Row(row) => row[j],
                Start::Old => c[j],
            };
            c[j] = first + dot(row, &b.data[j * b.k..][..b.k]);
        }
    }
}

/// Σ x y in lanes. One sum at a time: with several side by side the compiler keeps them in memory
/// (measured: 6 times slower), while the processor starts the next sum before this one is done.
#[inline(always)]
fn dot<T: Real>(x: &[T], y: &[T]) -> T {
    let ((x, x_rest), (y, y_rest)) = (x.as_chunks::<LANES>(), y.as_chunks::<LANES>());
    let mut lanes = [T::ZERO; LANES];
    for (x, y) in x.iter().zip(y) {
        for l in 0..LANES {
            lanes[l] = x[l].mul_add(y[l], lanes[l]);
        }
    }
    if !x_rest.is_empty() {
        // Padded, so that no sum is reached by an index (it would leave its register).
        let x: [T; LANES] = load::<T, LANES, false>(x_rest);
        let y: [T; LANES] = load::<T, LANES, false>(y_rest);
        for l in 0..LANES {
            lanes[l] = x[l].mul_add(y[l], lanes[l]);
        }
    }
    fold(lanes)
}

kernel! {
    fn product<T: Real>(a: &[T], b: &Panels<T>, start: Start<'_, T>, c: &mut [T]) {
        let (k, n) = (b.k, b.n);
        for Panel { first, width } in panels(WIDE, n) {
            let panel = &b.data[first * k..][..k * width];
            for from in (0..k).step_by(K_BLOCK) {
                let to = (from + K_BLOCK).min(k);
                let block = &panel[from * width..to * width];
                let start = if from == 0 { start } else { Start::Old };
                let p = Product { a, k, from, n, column: first, start };
                if WIDE && width == WIDE_PANEL {
                    p.rows::<WIDE_ROWS, WIDE_PANEL, true>(block.as_chunks().0, c);
                } else if WIDE && first + LANES <= n {
                    p.rows::<NARROW_ROWS, LANES, true>(block.as_chunks().0, c);
                } else if WIDE {
                    p.rows::<NARROW_ROWS, LANES, false>(block.as_chunks().0, c);
                } else if first + LANES <= n {
                    p.rows::<SMALL_ROWS, LANES, true>(block.as_chunks().0, c);
                } else {
                    p.rows::<SMALL_ROWS, LANES, false>(block.as_chunks().0, c);
                }
            }
        }
    }
}

/// One panel of a product, and which part of k is being walked.
struct Product<'a, T> {
    a: &'a [T],
    k: usize,
    /// First of the rows of B that are being walked.
    from: usize,
    n: usize,
    /// First column of the panel.
    column: usize,
    start: Start<'a, T>,
}

impl<T: Real> Product<'_, T> {
    /// All rows, a full tile at a time and the rest by smaller tiles. `WHOLE`: the panel does not
    /// reach beyond C's last column.
    #[inline(always)]
    fn rows<const MR: usize, const W: usize, const WHOLE: bool>(&self, b: &[[T; W]], c: &mut [T]) {
        let rows = c.len() / self.n;
        let mut r = 0;
        while r + MR <= rows {
            self.tile::<MR, W, WHOLE>(b, r, c);
            r += MR;
        }
        while r + 4 <= rows {
            self.tile::<4, W, WHOLE>(b, r, c);
            r += 4;
        }
        if r + 2 <= rows {
            self.tile::<2, W, WHOLE>(b, r, c);
            r += 2;
        }
        if r < rows {
            self.tile::<1, W, WHOLE>(b, r, c);
        }
    }

    #[inline(always)]
    fn tile<const MR: usize, const W: usize, const WHOLE: bool>(
        &self,
        b: &[[T; W]],
        r: usize,
        c: &mut [T],
    ) {
        // All slices are cut to one length, which is the loop's bound.
        let depth = b.len();
        let a: [&[T]; MR] = array::from_fn(|m| &self.a[(r + m) * self.k + self.from..][..depth]);
        let mut acc = [[T::ZERO; W]; MR];
        for m in 0..MR {
            match self.start {
                Start::Zero => {}
                Start::Row(row) => acc[m] = load::<T, W, WHOLE>(&row[self.column..]),
                Start::Old => acc[m] = load::<T, W, WHOLE>(self.rest(r + m, c)),
            }
        }
        for kk in 0..depth {
            let b = &b[kk];
            for m in 0..MR {
                // SAFETY: kk < depth = a[m].len(). The compiler does not see it through the array
                // of slices, and a bounds check here makes it store every accumulator at every
                // step (measured: 62 instead of 130 GFLOP/s).
                #[allow(unsafe_code, reason = "a bounds check halves the speed")]
                let x = unsafe { *a[m].get_unchecked(kk) };
                for j in 0..W {
                    acc[m][j] = x.mul_add(b[j], acc[m][j]);
                }
            }
        }
        for m in 0..MR {
            store::<T, W, WHOLE>(&acc[m], &mut c[(r + m) * self.n..][..self.n][self.column..]);
        }
    }

    /// A row of C from this panel's first column.
    #[inline(always)]
    fn rest<'c>(&self, row: usize, c: &'c [T]) -> &'c [T] {
        &c[row * self.n..][..self.n][self.column..]
    }
}

/// The first `W` numbers of the rest of a row; zeros past its end, which is reached only if not
/// `WHOLE`. (Two instances, because the partial one makes the compiler keep sums in memory.)
#[inline(always)]
fn load<T: Real, const W: usize, const WHOLE: bool>(row: &[T]) -> [T; W] {
    if WHOLE {
        return *row.first_chunk().expect("the panel is inside the row");
    }
    let mut vector = [T::ZERO; W];
    for (to, from) in vector.iter_mut().zip(row) {
        *to = *from;
    }
    vector
}

/// Writes to the rest of a row, dropping what lies past its end.
#[inline(always)]
fn store<T: Real, const W: usize, const WHOLE: bool>(vector: &[T; W], row: &mut [T]) {
    if WHOLE {
        *row.first_chunk_mut().expect("the panel is inside the row") = *vector;
        return;
    }
    for (to, from) in row.iter_mut().zip(vector) {
        *to = *from;
    }
}

/// `C += Aᵀ B`, summed over ascending rows: the gradient of a weight matrix.
///
/// # Shapes
///
/// `a`: `[rows, m]`; `b`: `[rows, n]`; `c`: `[m, n]`.
///
/// # Panics
///
/// If the lengths do not agree.
pub fn matmul_tn<T: Real>(isa: Isa, a: &[T], b: &[T], (m, n): (usize, usize), c: &mut [T]) {
    assert_eq!(a.len() * n, b.len() * m, "A and B have the same number of rows");
    assert_eq!(c.len(), m * n, "C is [{m}, {n}]");
    // Vectors run along the side that fills them: a narrow input layer or head would waste lanes.
    if !n.is_multiple_of(LANES) && m.is_multiple_of(LANES) {
        outer::<T, true>(isa, b, a, n, m, c);
    } else {
        outer::<T, false>(isa, a, b, m, n, c);
    }
}

kernel! {
    /// `C += Aᵀ B`, or its transpose if `FLIPPED` (C is then `[n, m]`).
    fn outer<T: Real, const FLIPPED: bool>(a: &[T], b: &[T], m: usize, n: usize, c: &mut [T]) {
        for Panel { first: column, width } in panels(WIDE, n) {
            let o = Outer { a, b, m, n, column, b_width: n, b_column: column };
            let whole = column + width <= n;
            if WIDE && width == WIDE_PANEL && n > WIDE_PANEL && !FLIPPED {
                packed_outer(&o, c);
            } else if WIDE && width == WIDE_PANEL {
                o.lines::<WIDE_ROWS, WIDE_PANEL, FLIPPED, true>(c);
            } else if WIDE && whole {
                o.lines::<NARROW_ROWS, LANES, FLIPPED, true>(c);
            } else if WIDE {
                o.lines::<NARROW_ROWS, LANES, FLIPPED, false>(c);
            } else if whole {
                o.lines::<SMALL_ROWS, LANES, FLIPPED, true>(c);
            } else {
                o.lines::<SMALL_ROWS, LANES, FLIPPED, false>(c);
            }
        }
    }
}

/// A wide panel of a wide B, copied to lie in order: rows that are a power of two apart share few
/// places of the first-level cache, and every line of C reads the panel again.
#[inline(always)]
fn packed_outer<T: Real>(o: &Outer<'_, T>, c: &mut [T]) {
    let mut panel = [[T::ZERO; WIDE_PANEL]; K_BLOCK];
    for (a, b) in o.a.chunks(K_BLOCK * o.m).zip(o.b.chunks(K_BLOCK * o.n)) {
        let rows = a.len() / o.m;
        for (to, from) in panel.iter_mut().zip(b.chunks_exact(o.n)) {
            *to = load::<T, WIDE_PANEL, true>(&from[o.column..]);
        }
        let b = panel[..rows].as_flattened();
        let o = Outer { a, b, b_width: WIDE_PANEL, b_column: 0, ..*o };
        o.lines::<WIDE_ROWS, WIDE_PANEL, false, true>(c);
    }
}

/// One panel of columns of `Aᵀ B`.
struct Outer<'a, T> {
    a: &'a [T],
    b: &'a [T],
    m: usize,
    n: usize,
    /// First column in C.
    column: usize,
    /// Columns of the array that the panel is read from, and the first one there.
    b_width: usize,
    b_column: usize,
}

impl<T: Real> Outer<'_, T> {
    /// All lines of C, a full tile at a time and the rest by smaller tiles.
    #[inline(always)]
    fn lines<const MR: usize, const W: usize, const FLIPPED: bool, const WHOLE: bool>(
        &self,
        c: &mut [T],
    ) {
        let mut line = 0;
        while line + MR <= self.m {
            self.tile::<MR, W, FLIPPED, WHOLE>(line, c);
            line += MR;
        }
        while line + 4 <= self.m {
            self.tile::<4, W, FLIPPED, WHOLE>(line, c);
            line += 4;
        }
        if line + 2 <= self.m {
            self.tile::<2, W, FLIPPED, WHOLE>(line, c);
            line += 2;
        }
        if line < self.m {
            self.tile::<1, W, FLIPPED, WHOLE>(line, c);
        }
    }

    #[inline(always)]
    fn tile<const MR: usize, const W: usize, const FLIPPED: bool, const WHOLE: bool>(
        &self,
        line: usize,
        c: &mut [T],
    ) {
        let mut acc = [[T::ZERO; W]; MR];
        if !FLIPPED {
            for i in 0..MR {
                acc[i] = load::<T, W, WHOLE>(&c[(line + i) * self.n..][..self.n][self.column..]);
            }
        }
        for (a, b) in self.a.chunks_exact(self.m).zip(self.b.chunks_exact(self.b_width)) {
            let a: &[T; MR] = a[line..].first_chunk().expect("MR columns are left");
            let b = load::<T, W, WHOLE>(&b[self.b_column..]);
            for i in 0..MR {
                for j in 0..W {
                    acc[i][j] = a[i].mul_add(b[j], acc[i][j]);
                }
            }
        }
        if FLIPPED {
            for j in 0..W.min(self.n - self.column) {
                for i in 0..MR {
                    c[(self.column + j) * self.m + line + i] += acc[i][j];
                }
            }
        } else {
            for i in 0..MR {
                store::<T, W, WHOLE>(
                    &acc[i],
                    &mut c[(line + i) * self.n..][..self.n][self.column..],
                );
            }
        }
    }
}

#[cfg(test)]
mod tests;
