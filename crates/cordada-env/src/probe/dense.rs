//! Plain algebra of small dense matrices, row by row in `f64`. For large ones it is too slow.

/// The product of `a` `[rows, inner]` and `b` `[inner, columns]`.
pub(super) fn product(a: &[f64], b: &[f64], inner: usize) -> Vec<f64> {
    let columns = b.len() / inner;
    let mut out = Vec::with_capacity(a.len() / inner * columns);
    for row in a.chunks(inner) {
        for j in 0..columns {
            out.push(row.iter().enumerate().map(|(k, x)| x * b[k * columns + j]).sum());
        }
    }
    out
}

/// The transpose of `a` `[rows, columns]`.
pub(super) fn transpose(a: &[f64], columns: usize) -> Vec<f64> {
    let rows = a.len() / columns;
    (0..columns).flat_map(|j| (0..rows).map(move |i| a[i * columns + j])).collect()
}

/// `xᵀ a x`, for a square `a`.
pub(super) fn quadratic(a: &[f64], x: &[f64]) -> f64 {
    let rows = a.chunks(x.len()).zip(x);
    rows.map(|(row, xi)| xi * row.iter().zip(x).map(|(a, xj)| a * xj).sum::<f64>()).sum()
}

/// The solution X of `a X = b`, for a square `a` of `n` rows, by Gaussian elimination with partial
/// pivoting. Of a singular `a` it holds infinities or NaNs.
pub(super) fn solve(a: &[f64], b: &[f64], n: usize) -> Vec<f64> {
    let (mut a, mut x) = (a.to_vec(), b.to_vec());
    let m = b.len() / n;
    for column in 0..n {
        let larger =
            |&i: &usize, &j: &usize| a[i * n + column].abs().total_cmp(&a[j * n + column].abs());
        let pivot = (column..n).max_by(larger).unwrap_or(column);
        for k in 0..n {
            a.swap(column * n + k, pivot * n + k);
        }
        for k in 0..m {
            x.swap(column * m + k, pivot * m + k);
        }
        for row in (0..n).filter(|&row| row != column) {
            let factor = a[row * n + column] / a[column * n + column];
            for k in 0..n {
                a[row * n + k] -= factor * a[column * n + k];
            }
            for k in 0..m {
                x[row * m + k] -= factor * x[column * m + k];
            }
        }
    }
    for (row, values) in x.chunks_mut(m).enumerate() {
        for value in values {
            *value /= a[row * n + row];
        }
    }
    x
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        let a = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]; // [2, 3]
        assert_eq!(transpose(&a, 3), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
        // Row 1: 1 · 1 + 2 · 0 + 3 · 2 = 7, 1 · 0 + 2 · 1 + 3 · 1 = 5.
        assert_eq!(product(&a, &[1.0, 0.0, 0.0, 1.0, 2.0, 1.0], 3), [7.0, 5.0, 16.0, 11.0]);
        // 2 · 9 + (1 + 0) · 3 · 5 + 4 · 25 = 133.
        assert_eq!(quadratic(&[2.0, 1.0, 0.0, 4.0], &[3.0, 5.0]), 133.0);
    }

    #[test]
    fn a_system_that_needs_a_pivot_is_solved() {
        // 2 y = 4, 3 x + y = 5: y = 2, x = 1; and for the right side (2, 4): y = 1, x = 1.
        let x = solve(&[0.0, 2.0, 3.0, 1.0], &[4.0, 2.0, 5.0, 4.0], 2);
        assert_eq!(x, [1.0, 1.0, 2.0, 1.0]);
        assert!(solve(&[1.0, 1.0, 1.0, 1.0], &[1.0, 2.0], 2).iter().any(|x| !x.is_finite()));
    }
}
