//! Transposition in blocks of 16 × 16, so that both sides stay in the cache.

use std::array;

use super::{LANES, kernel};
use crate::Real;

kernel! {
    /// `to[c · to_stride + r] = from[r · columns + c]` for `rows × columns` numbers.
    ///
    /// # Panics
    ///
    /// If a slice is too short.
    pub fn transpose<T: Real>(from: &[T], columns: usize, to: &mut [T], to_stride: usize) {
        if columns == 0 {
            return;
        }
        let rows = from.len() / columns;
        for r in (0..rows).step_by(LANES) {
            for c in (0..columns).step_by(LANES) {
                if r + LANES <= rows && c + LANES <= columns {
                    let block: [&[T; LANES]; LANES] = array::from_fn(|i| {
                        from[(r + i) * columns + c..].first_chunk().expect("inside")
                    });
                    for i in 0..LANES {
                        let line = &mut to[(c + i) * to_stride + r..][..LANES];
                        for j in 0..LANES {
                            line[j] = block[j][i];
                        }
                    }
                } else {
                    for i in c..(c + LANES).min(columns) {
                        for j in r..(r + LANES).min(rows) {
                            to[i * to_stride + j] = from[j * columns + i];
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Isa;

    #[test]
    fn transposes_whole_blocks_and_edges() {
        for (rows, columns) in [(1, 1), (16, 16), (3, 20), (33, 18), (64, 64)] {
            let from: Vec<f32> = (0..rows * columns).map(|i| i as f32).collect();
            for isa in Isa::available() {
                let stride = rows + 3;
                let mut to = vec![-1.0; columns * stride];
                transpose(isa, &from, columns, &mut to, stride);
                for r in 0..rows {
                    for c in 0..columns {
                        assert_eq!(to[c * stride + r], from[r * columns + c], "{rows}x{columns}");
                    }
                }
                assert!((0..columns).all(|c| to[c * stride + rows] == -1.0), "wrote too much");
            }
        }
    }
}
