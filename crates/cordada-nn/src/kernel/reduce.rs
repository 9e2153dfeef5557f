//! Sums in a fixed order: [`LANES`] lanes over the elements, then a fixed tree over the lanes.

#![allow(clippy::needless_range_loop, reason = "indexed loops of fixed length vectorize")]

use super::{LANES, kernel};
use crate::Real;

/// Folds lanes by a fixed tree: 16 → 8 → 4 → 2 → 1.
#[inline(always)]
pub(super) fn fold<T: Real>(lanes: [T; LANES]) -> T {
    let mut eight = [T::ZERO; 8];
    for i in 0..8 {
        eight[i] = lanes[i] + lanes[i + 8];
    }
    let mut four = [T::ZERO; 4];
    for i in 0..4 {
        four[i] = eight[i] + eight[i + 4];
    }
    (four[0] + four[2]) + (four[1] + four[3])
}

kernel! {
    /// Σ xᵢ².
    pub fn sum_squares<T: Real>(x: &[T]) -> T {
        let (blocks, rest) = x.as_chunks::<LANES>();
        let mut lanes = [T::ZERO; LANES];
        for block in blocks {
            for (lane, &value) in lanes.iter_mut().zip(block) {
                *lane = value.mul_add(value, *lane);
            }
        }
        for (lane, &value) in lanes.iter_mut().zip(rest) {
            *lane = value.mul_add(value, *lane);
        }
        fold(lanes)
    }
}

kernel! {
    /// Σ xᵢ yᵢ over the shorter length.
    pub fn dot<T: Real>(x: &[T], y: &[T]) -> T {
        let n = x.len().min(y.len());
        let (xs, x_rest) = x[..n].as_chunks::<LANES>();
        let (ys, y_rest) = y[..n].as_chunks::<LANES>();
        let mut lanes = [T::ZERO; LANES];
        for (a, b) in xs.iter().zip(ys) {
            for i in 0..LANES {
                lanes[i] = a[i].mul_add(b[i], lanes[i]);
            }
        }
        for (i, (a, b)) in x_rest.iter().zip(y_rest).enumerate() {
            lanes[i] = a.mul_add(*b, lanes[i]);
        }
        fold(lanes)
    }
}

kernel! {
    /// `y += x`, elementwise over the shorter length.
    pub fn add_assign<T: Real>(y: &mut [T], x: &[T]) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y += x;
        }
    }
}

kernel! {
    /// `sums[j] += Σ_r x[r][j]`, each column with one accumulator over ascending rows.
    ///
    /// # Shapes
    ///
    /// `x`: `[rows, columns]` with `columns = sums.len()`.
    pub fn column_sums<T: Real>(x: &[T], sums: &mut [T]) {
        let columns = sums.len();
        let mut first = 0;
        // Several vectors at a time, so that their additions overlap.
        while first + 4 * LANES <= columns {
            column_block::<T, { 4 * LANES }>(x, columns, first, sums);
            first += 4 * LANES;
        }
        while first + LANES <= columns {
            column_block::<T, LANES>(x, columns, first, sums);
            first += LANES;
        }
        while first < columns {
            column_block::<T, 1>(x, columns, first, sums);
            first += 1;
        }
    }
}

#[inline(always)]
fn column_block<T: Real, const W: usize>(x: &[T], columns: usize, first: usize, sums: &mut [T]) {
    let sums: &mut [T; W] = sums[first..].first_chunk_mut().expect("the block is inside");
    let mut acc = *sums;
    for row in x.chunks_exact(columns) {
        let row: &[T; W] = row[first..].first_chunk().expect("the block is inside the row");
        for i in 0..W {
            acc[i] += row[i];
        }
    }
    *sums = acc;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Isa;

    #[test]
    fn sums_are_the_hand_computed_ones() {
        // 1² + … + 20² = 20 · 21 · 41 / 6 = 2870; every partial sum is exact in f32.
        let x: Vec<f32> = (1..=20).map(|i| i as f32).collect();
        let ones = vec![1.0_f32; 20];
        for isa in Isa::available() {
            assert_eq!(sum_squares(isa, &x), 2870.0);
            assert_eq!(dot(isa, &x, &ones), 210.0);
        }
    }

    #[test]
    fn column_sums_start_from_the_old_value() {
        // Two rows of 82 columns: a wide block, a narrow one and a rest of two.
        let x: Vec<f32> = (0..164).map(|i| i as f32).collect();
        for isa in Isa::available() {
            let mut sums = vec![100.0_f32; 82];
            column_sums(isa, &x, &mut sums);
            for (i, sum) in sums.iter().enumerate() {
                assert_eq!(*sum, 100.0 + i as f32 + (i + 82) as f32, "column {i}");
            }
        }
    }
}
