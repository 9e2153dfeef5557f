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
use std::ops::Range;

use super::reduce::fold;
use super::{Isa, LANES, kernel, transpose};
use crate::Real;

/// Columns of a wide panel, for processors with 32 vector registers of 16 lanes: a tile of 6 rows
/// keeps 24 of them busy. Others use panels of [`LANES`] columns only.
const WIDE_PANEL: usize = 4 * LANES;
/// Rows of a tile over a wide panel: 24 vectors of accumulators.
const WIDE_ROWS: usize = 6;
/// Columns of a panel for what is left beside wide ones: heads of attention are often this wide.
const HALF_PANEL: usize = 2 * LANES;
/// Rows of a tile over a half panel: 24 vectors of accumulators too.
const HALF_ROWS: usize = 12;
/// Rows of a tile over a narrow panel on such a processor: 12 sums, enough to hide the latency.
const NARROW_ROWS: usize = 12;
/// Rows of a tile on other processors, whose vectors are half as long and registers half as many.
const SMALL_ROWS: usize = 6;
/// Columns up to which a product runs as dot products.
const DOT_COLUMNS: usize = 4;
/// Rows of k that are walked before the next rows of A: a panel of this depth (32 KiB) stays in
/// the first-level cache.
const K_BLOCK: usize = 128;

/// The right-hand side of a product, copied into panels of 64, 32 or 16 columns (the last one padded
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
    /// Whether the product runs as dot products, and columns are kept whole.
    dots: bool,
}

impl<T: Real> Panels<T> {
    /// Room for a `[k, n]` matrix of zeros.
    ///
    /// # Panics
    ///
    /// If k or n is 0.
    pub fn new(isa: Isa, k: usize, n: usize) -> Self {
        assert!(k > 0 && n > 0, "a [{k}, {n}] matrix is empty");
        let data = vec![T::ZERO; k * n.next_multiple_of(LANES)];
        Self { isa, data, k, n, dots: n <= DOT_COLUMNS }
    }

    /// As [`Panels::new`] for a matrix of which [`matmul_view`] will use parts: never in dot
    /// products, whose order of addition would depend on the number of columns.
    ///
    /// # Panics
    ///
    /// If k or n is 0.
    pub fn for_views(isa: Isa, k: usize, n: usize) -> Self {
        Self { dots: false, ..Self::new(isa, k, n) }
    }

    /// Makes room for a matrix of another size, whose values are then undefined.
    ///
    /// # Panics
    ///
    /// If k or n is 0.
    pub fn resize(&mut self, k: usize, n: usize) {
        assert!(k > 0 && n > 0, "a [{k}, {n}] matrix is empty");
        let len = k * n.next_multiple_of(LANES);
        if self.data.len() < len {
            self.data.resize(len, T::ZERO);
        }
        (self.k, self.n) = (k, n);
    }

    /// Depth and columns.
    pub fn shape(&self) -> (usize, usize) {
        (self.k, self.n)
    }

    /// Writes one row of the `[k, n]` matrix.
    ///
    /// # Panics
    ///
    /// If there is no such row, or `values` is not as long as one.
    pub fn set_row(&mut self, row: usize, values: &[T]) {
        assert!(row < self.k && values.len() == self.n && !self.dots, "row {row} of {}", self.k);
        for panel in panels(self.isa.is_wide(), self.n) {
            let columns = panel.width.min(self.n - panel.first);
            let line = panel.first * self.k + row * panel.width;
            self.data[line..line + columns].copy_from_slice(&values[panel.first..][..columns]);
        }
    }

    /// Copies the first columns of a matrix with as many rows, and up to 63 more.
    ///
    /// # Panics
    ///
    /// If the matrices' panels differ before that column.
    pub fn copy_columns(&mut self, from: &Self, columns: usize) {
        assert!(self.k == from.k && columns <= from.n && columns <= self.n, "{columns} columns");
        let all = panels(self.isa.is_wide(), self.n).zip(panels(self.isa.is_wide(), from.n));
        for (to, panel) in all.take_while(|(_, p)| p.first < columns) {
            assert_eq!(to.width, panel.width, "panels of one width");
            let range = panel.first * self.k..(panel.first + panel.width) * self.k;
            self.data[range.clone()].copy_from_slice(&from.data[range]);
        }
    }

    /// Copies the first rows of a matrix with as many columns.
    ///
    /// # Panics
    ///
    /// If there are fewer rows or other columns.
    pub fn copy_rows(&mut self, from: &Self, rows: usize) {
        assert!(self.n == from.n && rows <= from.k && rows <= self.k, "{rows} rows");
        for panel in panels(self.isa.is_wide(), self.n) {
            let len = rows * panel.width;
            let from = &from.data[panel.first * from.k..][..len];
            self.data[panel.first * self.k..][..len].copy_from_slice(from);
        }
    }

    /// Writes one column of the `[k, n]` matrix.
    ///
    /// # Panics
    ///
    /// If there is no such column, or `values` is not as long as one.
    pub fn set_column(&mut self, column: usize, values: &[T]) {
        assert!(column < self.n && values.len() == self.k && !self.dots, "column {column}");
        let wide = self.isa.is_wide();
        let first = column - column % WIDE_PANEL;
        let panel = if wide && first + WIDE_PANEL <= self.n {
            Panel { first, width: WIDE_PANEL }
        } else if wide && column < first + HALF_PANEL && first + HALF_PANEL <= self.n {
            Panel { first, width: HALF_PANEL }
        } else {
            Panel { first: column - column % LANES, width: LANES }
        };
        let lines = &mut self.data[panel.first * self.k..][..panel.width * self.k];
        for (line, &value) in lines.chunks_exact_mut(panel.width).zip(values) {
            line[column - panel.first] = value;
        }
    }

    /// Copies `b`: `[k, n]`.
    ///
    /// # Panics
    ///
    /// If `b` has another length.
    pub fn pack(&mut self, b: &[T]) {
        assert_eq!(b.len(), self.k * self.n, "a [{}, {}] matrix", self.k, self.n);
        if self.dots {
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
        if self.dots {
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

/// The panels of `n` columns: as many wide ones as fit, then a half one if it fits, then narrow
/// ones.
#[inline(always)]
fn panels(wide: bool, n: usize) -> impl Iterator<Item = Panel> {
    let mut first = 0;
    std::iter::from_fn(move || {
        let width = match n - first.min(n) {
            WIDE_PANEL.. if wide => WIDE_PANEL,
            HALF_PANEL.. if wide => HALF_PANEL,
            _ => LANES,
        };
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
    if b.dots {
        dots(b.isa, a, b, start, c);
    } else {
        let size = Size { rows, depth: b.k, columns: b.n };
        product(b.isa, a, b.k, b, size, start, c, b.n);
    }
}

/// The part of a product that [`matmul_view`] computes.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Rows of A and C.
    pub rows: usize,
    /// Rows of B that are walked: the first ones.
    pub depth: usize,
    /// Columns of B that are needed: the first ones. Up to 63 more may be computed.
    pub columns: usize,
}

/// As [`matmul`] on parts of larger matrices: `a` and `c` begin at their first element, and their
/// rows are `a_stride` and `c_stride` apart.
///
/// # Shapes
///
/// `a`: `[rows, depth]`; `b`: `[k, n]` of which `[depth, columns]` is used; `c`: `[rows, columns]`,
/// where up to 63 columns more are overwritten, but none from n on.
///
/// # Panics
///
/// If a part reaches beyond its matrix, or `b` was not made by [`Panels::for_views`].
#[allow(clippy::too_many_arguments, reason = "three matrices, of which two have strides")]
pub fn matmul_view<T: Real>(
    a: &[T],
    a_stride: usize,
    b: &Panels<T>,
    size: Size,
    start: Start<'_, T>,
    c: &mut [T],
    c_stride: usize,
) {
    let Size { rows, depth, columns } = size;
    assert!(!b.dots && depth <= b.k && columns <= b.n, "a part of the matrix");
    assert!(!matches!(start, Start::Row(row) if row.len() != b.n), "one bias per column");
    if rows == 0 || columns == 0 {
        return;
    }
    assert!(depth <= a_stride && a.len() >= (rows - 1) * a_stride + depth, "A is [rows, depth]");
    product(b.isa, a, a_stride, b, size, start, c, c_stride);
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
    fn product<T: Real>(
        a: &[T],
        a_stride: usize,
        b: &Panels<T>,
        size: Size,
        start: Start<'_, T>,
        c: &mut [T],
        c_stride: usize,
    ) {
        let (k, n) = (b.k, b.n);
        for Panel { first, width } in panels(WIDE, n).take_while(|p| p.first < size.columns) {
            let panel = &b.data[first * k..][..k * width];
            for from in (0..size.depth).step_by(K_BLOCK) {
                let to = (from + K_BLOCK).min(size.depth);
                let block = &panel[from * width..to * width];
                let start = if from == 0 { start } else { Start::Old };
                let rows = size.rows;
                let p = Product { a, a_stride, rows, from, n, c_stride, column: first, start };
                if WIDE && width == WIDE_PANEL {
                    p.rows::<WIDE_ROWS, WIDE_PANEL, true>(block.as_chunks().0, c);
                } else if WIDE && width == HALF_PANEL {
                    p.rows::<HALF_ROWS, HALF_PANEL, true>(block.as_chunks().0, c);
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
    a_stride: usize,
    rows: usize,
    /// First of the rows of B that are being walked.
    from: usize,
    /// Columns of B, hence of C.
    n: usize,
    c_stride: usize,
    /// First column of the panel.
    column: usize,
    start: Start<'a, T>,
}

impl<T: Real> Product<'_, T> {
    /// All rows, a full tile at a time and the rest by smaller tiles. `WHOLE`: the panel does not
    /// reach beyond C's last column.
    #[inline(always)]
    fn rows<const MR: usize, const W: usize, const WHOLE: bool>(&self, b: &[[T; W]], c: &mut [T]) {
        let rows = self.rows;
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
        let a: [&[T]; MR] =
            array::from_fn(|m| &self.a[(r + m) * self.a_stride + self.from..][..depth]);
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
            let line = &mut c[(r + m) * self.c_stride + self.column..];
            let left = (self.n - self.column).min(line.len());
            store::<T, W, WHOLE>(&acc[m], &mut line[..left]);
        }
    }

    /// A row of C from this panel's first column.
    #[inline(always)]
    fn rest<'c>(&self, row: usize, c: &'c [T]) -> &'c [T] {
        let line = &c[row * self.c_stride + self.column..];
        &line[..(self.n - self.column).min(line.len())]
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
        outer::<T, true>(isa, View::dense(b, n), View::dense(a, m), 0..n, c);
    } else {
        outer::<T, false>(isa, View::dense(a, m), View::dense(b, n), 0..m, c);
    }
}

/// Rows of a larger matrix: those of `data`, `stride` apart, of which the first `width` numbers
/// are meant. The last row may end with its last number.
#[derive(Clone, Copy, Debug)]
pub struct View<'a, T> {
    /// From the first number on.
    pub data: &'a [T],
    /// Distance of two rows.
    pub stride: usize,
    /// Numbers of a row.
    pub width: usize,
}

impl<'a, T> View<'a, T> {
    /// Rows without anything between them.
    pub fn dense(data: &'a [T], width: usize) -> Self {
        Self { data, stride: width, width }
    }

    /// Some columns of these rows.
    pub fn columns(self, columns: Range<usize>) -> Self {
        let data = self.data.get(columns.start..).unwrap_or(&[]);
        Self { data, stride: self.stride, width: columns.len() }
    }

    /// Number of rows.
    pub fn rows(self) -> usize {
        (self.data.len() + self.stride - self.width) / self.stride
    }
}

/// Lines of `C += Aᵀ B`, summed over ascending rows, for rows inside larger matrices. A line's bits
/// do not depend on which lines are computed with it.
///
/// # Shapes
///
/// `a`: `[rows, m]`; `b`: `[rows, n]`; `c`: `[lines.len(), n]`: lines `lines` of the `m`.
///
/// # Panics
///
/// If the lengths do not agree.
pub fn matmul_tn_view<T: Real>(
    isa: Isa,
    a: View<'_, T>,
    b: View<'_, T>,
    lines: Range<usize>,
    c: &mut [T],
) {
    assert_eq!(a.rows(), b.rows(), "A and B have the same number of rows");
    assert!(lines.end <= a.width && c.len() == lines.len() * b.width, "C is [lines, n]");
    outer::<T, false>(isa, a, b, lines, c);
}

kernel! {
    /// Lines of `C += Aᵀ B`, or all of its transpose if `FLIPPED` (C is then `[n, m]`).
    fn outer<T: Real, const FLIPPED: bool>(
        a: View<'_, T>,
        b: View<'_, T>,
        lines: Range<usize>,
        c: &mut [T],
    ) {
        let n = b.width;
        for Panel { first: column, width } in panels(WIDE, n) {
            let o = Outer { a, b, b_column: column, n, column, first: lines.start, m: lines.len() };
            let whole = column + width <= n;
            if WIDE && width == WIDE_PANEL && n > WIDE_PANEL && !FLIPPED {
                packed_outer(&o, c);
            } else if WIDE && width == WIDE_PANEL {
                o.lines::<WIDE_ROWS, WIDE_PANEL, FLIPPED, true>(c);
            } else if WIDE && width == HALF_PANEL {
                o.lines::<HALF_ROWS, HALF_PANEL, FLIPPED, true>(c);
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
    let (a, b) = (o.a.data.chunks(K_BLOCK * o.a.stride), o.b.data.chunks(K_BLOCK * o.b.stride));
    for (a, b) in a.zip(b) {
        let (a, from) = (View { data: a, ..o.a }, View { data: b, ..o.b });
        let rows = a.rows();
        for (to, from) in panel.iter_mut().zip(from.data.chunks(o.b.stride)) {
            *to = load::<T, WIDE_PANEL, true>(&from[o.column..]);
        }
        let b = View::dense(panel[..rows].as_flattened(), WIDE_PANEL);
        let o = Outer { a, b, b_column: 0, ..*o };
        o.lines::<WIDE_ROWS, WIDE_PANEL, false, true>(c);
    }
}

/// One panel of columns of `Aᵀ B`.
struct Outer<'a, T> {
    a: View<'a, T>,
    b: View<'a, T>,
    /// First column of the panel in B's rows.
    b_column: usize,
    /// Columns of C.
    n: usize,
    /// First column in C.
    column: usize,
    /// First of the lines, a column of A.
    first: usize,
    /// Number of lines.
    m: usize,
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
        let rows = self.a.data.chunks(self.a.stride).zip(self.b.data.chunks(self.b.stride));
        for (a, b) in rows {
            let a: &[T; MR] = a[self.first + line..].first_chunk().expect("MR columns are left");
            let b = &b[self.b_column..];
            let b = if WHOLE {
                load::<T, W, true>(b)
            } else {
                load::<T, W, false>(&b[..W.min(self.n - self.column)])
            };
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
