//! Starting weights. Random numbers come from the caller, one at a time in a fixed order, so that
//! a seed gives the same weights everywhere. Biases start at 0 and need no function.

use crate::Real;
use crate::kernel::{Isa, dot, kernel};

/// What kind of random number a rule asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Draw {
    /// Uniform in [0, 1).
    Uniform,
    /// Normal with mean 0 and variance 1.
    Normal,
}

/// A rule for the starting weights of a matrix `[out, in]`; each is a function of this module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Init {
    /// [`orthogonal`].
    Orthogonal,
    /// [`kaiming_uniform`].
    KaimingUniform,
    /// [`kaiming_normal`].
    KaimingNormal,
    /// [`xavier_uniform`].
    XavierUniform,
    /// [`xavier_normal`].
    XavierNormal,
}

impl Init {
    /// Fills a weight matrix, asking `draw` for `rows · cols` numbers of one kind.
    ///
    /// # Shapes
    ///
    /// `weights`: `[rows, cols]` = `[out, in]`, row-major.
    ///
    /// # Panics
    ///
    /// If `weights` has another length; for [`Init::Orthogonal`], see [`orthogonal`].
    pub fn fill<T: Real>(
        self,
        weights: &mut [T],
        rows: usize,
        cols: usize,
        gain: f64,
        draw: &mut impl FnMut(Draw) -> f64,
    ) {
        match self {
            Self::Orthogonal => {
                orthogonal(weights, rows, cols, gain, &mut || draw(Draw::Normal));
            }
            Self::KaimingUniform => {
                kaiming_uniform(weights, rows, cols, gain, &mut || draw(Draw::Uniform));
            }
            Self::KaimingNormal => {
                kaiming_normal(weights, rows, cols, gain, &mut || draw(Draw::Normal));
            }
            Self::XavierUniform => {
                xavier_uniform(weights, rows, cols, gain, &mut || draw(Draw::Uniform));
            }
            Self::XavierNormal => {
                xavier_normal(weights, rows, cols, gain, &mut || draw(Draw::Normal));
            }
        }
    }
}

kernel! {
    /// `y += a x`.
    fn axpy<T: Real>(a: T, x: &[T], y: &mut [T]) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y = a.mul_add(x, *y);
        }
    }
}

/// A random matrix with orthogonal columns (rows if there are fewer of them), all of length
/// `gain`.
///
/// ```text
/// A[i][j] ~ N(0, 1), row by row;   A = Q R (Aᵀ = Q R if rows < cols);   W = gain · Q sign(diag R)
/// ```
///
/// The sign makes Q unique, hence uniformly distributed. Q comes from the modified Gram-Schmidt
/// process in `f64`, applied twice, which is as orthogonal as Householder's reflections ("twice is
/// enough") and has diag R > 0 by itself.
///
/// # Shapes
///
/// `weights`: `[rows, cols]` = `[out, in]`, row-major.
///
/// # Panics
///
/// If `weights` has another length, or if the numbers from `normal` are linearly dependent (a
/// source that repeats itself).
///
/// # Source
///
/// Saxe et al. 2014, arXiv:1312.6120; uniformity: Mezzadri 2007,
/// arXiv:math-ph/0609050; Gram-Schmidt twice: Giraud et al. 2005, Numerische Mathematik 101.
pub fn orthogonal<T: Real>(
    weights: &mut [T],
    rows: usize,
    cols: usize,
    gain: f64,
    normal: &mut impl FnMut() -> f64,
) {
    check_len(weights.len(), rows, cols);
    let isa = Isa::detect();
    let wide = rows < cols;
    // Vectors to make orthogonal, one after the other in memory.
    let (count, len) = if wide { (rows, cols) } else { (cols, rows) };
    if count == 0 {
        return;
    }
    let place = |i: usize, j: usize| if wide { i * len + j } else { j * len + i };
    let mut vectors = vec![0.0_f64; count * len];
    for i in 0..rows {
        for j in 0..cols {
            vectors[place(i, j)] = normal();
        }
    }
    for k in 0..count {
        let (before, from_k) = vectors.split_at_mut(k * len);
        let vector = &mut from_k[..len];
        let start = norm(isa, vector);
        for _ in 0..2 {
            for unit in before.chunks_exact(len) {
                let along = dot(isa, unit, vector);
                axpy(isa, -along, unit, vector);
            }
            let left = norm(isa, vector);
            assert!(
                left > 1e-12 * start,
                "the normal numbers for a {rows} x {cols} orthogonal matrix are dependent"
            );
            for x in vector.iter_mut() {
                *x /= left;
            }
        }
    }
    for i in 0..rows {
        for j in 0..cols {
            weights[i * cols + j] = T::of(gain * vectors[place(i, j)]);
        }
    }
}

fn norm(isa: Isa, x: &[f64]) -> f64 {
    dot(isa, x, x).sqrt()
}

/// Uniform in ±gain · √(3 / fan-in), where fan-in = `cols`: variance gain² / fan-in, which keeps
/// the size of activations from layer to layer if `gain` is that of the activation function
/// (√2 for `ReLU`).
///
/// # Shapes
///
/// `weights`: `[rows, cols]` = `[out, in]`, row-major.
///
/// # Panics
///
/// If `weights` has another length.
///
/// # Source
///
/// He et al. 2015, arXiv:1502.01852, eq. (10).
pub fn kaiming_uniform<T: Real>(
    weights: &mut [T],
    rows: usize,
    cols: usize,
    gain: f64,
    uniform: &mut impl FnMut() -> f64,
) {
    check_len(weights.len(), rows, cols);
    fill_uniform(weights, gain * (3.0 / cols as f64).sqrt(), uniform);
}

/// Normal with standard deviation gain / √fan-in, where fan-in = `cols`.
///
/// # Shapes
///
/// `weights`: `[rows, cols]` = `[out, in]`, row-major.
///
/// # Panics
///
/// If `weights` has another length.
///
/// # Source
///
/// He et al. 2015, arXiv:1502.01852, eq. (10).
pub fn kaiming_normal<T: Real>(
    weights: &mut [T],
    rows: usize,
    cols: usize,
    gain: f64,
    normal: &mut impl FnMut() -> f64,
) {
    check_len(weights.len(), rows, cols);
    fill_normal(weights, gain / (cols as f64).sqrt(), normal);
}

/// Uniform in ±gain · √(6 / (fan-in + fan-out)): variance 2 gain² / (fan-in + fan-out), a
/// compromise between the sizes of activations and of gradients.
///
/// # Shapes
///
/// `weights`: `[rows, cols]` = `[out, in]`, row-major.
///
/// # Panics
///
/// If `weights` has another length.
///
/// # Source
///
/// Glorot and Bengio 2010, eq. (16).
pub fn xavier_uniform<T: Real>(
    weights: &mut [T],
    rows: usize,
    cols: usize,
    gain: f64,
    uniform: &mut impl FnMut() -> f64,
) {
    check_len(weights.len(), rows, cols);
    fill_uniform(weights, gain * (6.0 / (rows + cols) as f64).sqrt(), uniform);
}

/// Normal with standard deviation gain · √(2 / (fan-in + fan-out)).
///
/// # Shapes
///
/// `weights`: `[rows, cols]` = `[out, in]`, row-major.
///
/// # Panics
///
/// If `weights` has another length.
///
/// # Source
///
/// Glorot and Bengio 2010, eq. (12).
pub fn xavier_normal<T: Real>(
    weights: &mut [T],
    rows: usize,
    cols: usize,
    gain: f64,
    normal: &mut impl FnMut() -> f64,
) {
    check_len(weights.len(), rows, cols);
    fill_normal(weights, gain * (2.0 / (rows + cols) as f64).sqrt(), normal);
}

fn fill_uniform<T: Real>(weights: &mut [T], bound: f64, uniform: &mut impl FnMut() -> f64) {
    weights.fill_with(|| T::of(bound * (2.0 * uniform() - 1.0)));
}

fn fill_normal<T: Real>(weights: &mut [T], std: f64, normal: &mut impl FnMut() -> f64) {
    weights.fill_with(|| T::of(std * normal()));
}

fn check_len(len: usize, rows: usize, cols: usize) {
    assert_eq!(len, rows * cols, "weights for a {rows} x {cols} matrix have the wrong length");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A small generator (`SplitMix64`), enough for tests.
    fn uniform_source(mut state: u64) -> impl FnMut() -> f64 {
        move || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((z ^ (z >> 31)) >> 11) as f64 * 2.0_f64.powi(-53)
        }
    }

    #[test]
    fn orthogonal_of_a_small_matrix_by_hand() {
        // Columns (3, 4) and (1, 0): q₁ = (0.6, 0.8); (1, 0) − 0.6 q₁ = (0.64, −0.48) = 0.8 q₂.
        let mut normals = [3.0, 1.0, 4.0, 0.0].into_iter();
        let mut w = [0.0_f64; 4];
        orthogonal(&mut w, 2, 2, 2.0, &mut || normals.next().unwrap());
        for (got, want) in w.iter().zip([1.2, 1.6, 1.6, -1.2]) {
            assert!((got - want).abs() < 1e-15, "{w:?}");
        }
    }

    #[test]
    fn nearly_dependent_columns_come_out_orthogonal() {
        // Läuchli's matrix: one pass of Gram-Schmidt leaves inner products near 1e-16 / 1e-7.
        let small = 1e-7;
        let rows = [[1.0, 1.0, 1.0], [small, 0.0, 0.0], [0.0, small, 0.0], [0.0, 0.0, small]];
        let mut normals = rows.into_iter().flatten();
        let mut w = [0.0_f64; 12];
        orthogonal(&mut w, 4, 3, 1.0, &mut || normals.next().unwrap());
        for (i, j) in [(0, 1), (0, 2), (1, 2)] {
            let inner: f64 = (0..4).map(|k| w[k * 3 + i] * w[k * 3 + j]).sum();
            assert!(inner.abs() < 1e-14, "columns {i} and {j}: {inner:e}");
        }
    }

    #[test]
    #[should_panic(expected = "dependent")]
    fn a_source_that_repeats_itself_is_refused() {
        orthogonal(&mut [0.0_f32; 6], 3, 2, 1.0, &mut || 0.5);
    }

    #[test]
    fn uniform_bounds_are_the_papers() {
        // The ends 0 and ½ of the source map to −bound and 0.
        let draw = |init: Init, gain: f64| {
            let mut w = [0.0_f64; 12];
            let mut values = [0.0, 0.5].into_iter().cycle();
            init.fill(&mut w, 2, 6, gain, &mut |kind| {
                assert_eq!(kind, Draw::Uniform);
                values.next().unwrap()
            });
            assert_eq!(w[1], 0.0);
            w[0]
        };
        // Fan-in 6: 2 √(3/6) = √2. Fan-in + fan-out = 8: 2 √(6/8) = √3.
        assert!((draw(Init::KaimingUniform, 2.0) + 2.0_f64.sqrt()).abs() < 1e-15);
        assert!((draw(Init::XavierUniform, 2.0) + 3.0_f64.sqrt()).abs() < 1e-15);
    }

    #[test]
    fn normal_deviations_are_the_papers() {
        let draw = |init: Init| {
            let mut w = [0.0_f64; 12];
            init.fill(&mut w, 2, 6, 3.0, &mut |kind| {
                assert_eq!(kind, Draw::Normal);
                1.0
            });
            w[0]
        };
        // 3 / √6 and 3 √(2/8) = 1.5.
        assert!((draw(Init::KaimingNormal) - 3.0 / 6.0_f64.sqrt()).abs() < 1e-15);
        assert_eq!(draw(Init::XavierNormal), 1.5);
    }

    proptest! {
        #[test]
        fn orthogonal_vectors_have_the_gain_as_length(
            rows in 1_usize..40,
            cols in 1_usize..40,
            gain in 0.01..3.0,
            seed: u64,
        ) {
            let mut w = vec![0.0_f64; rows * cols];
            // Independent is enough here; the distribution does not matter for the property.
            let mut source = uniform_source(seed);
            Init::Orthogonal.fill(&mut w, rows, cols, gain, &mut |_| source() - 0.5);
            let at = |i: usize, k: usize| {
                if rows < cols { w[i * cols + k] } else { w[k * cols + i] }
            };
            let (count, len) = (rows.min(cols), rows.max(cols));
            for i in 0..count {
                for j in 0..count {
                    let gram: f64 = (0..len).map(|k| at(i, k) * at(j, k)).sum();
                    let want = if i == j { gain * gain } else { 0.0 };
                    prop_assert!((gram - want).abs() < 1e-13 * gain.max(1.0).powi(2) * 10.0);
                }
            }
        }
    }
}
