//! Layer norm and RMS norm over rows: forward, vjp and (layer norm) jvp on slices.
//!
//! Each row's sums run in the fixed order of 16 lanes, so a row's bits do not depend on how many
//! rows are computed with it.

use crate::kernel::{Isa, kernel};
use crate::{Real, lanes};

kernel! {
    /// Layer norm of every row.
    ///
    /// ```text
    /// y = x̂ ⊙ w + b,   x̂ = (x − mean) · rstd,   rstd = 1 / √(var + ε),   var with denominator D
    /// ```
    ///
    /// `mean` and `rstd` are kept for [`layer_norm_vjp`] and [`layer_norm_jvp`].
    ///
    /// # Shapes
    ///
    /// `x`, `y`: `[R, D]`; `weight`, `bias`: `[D]`; `mean`, `rstd`: `[R]`.
    ///
    /// # Panics
    ///
    /// If the lengths do not agree or D is 0.
    ///
    /// # Source
    ///
    /// Ba, Kiros and Hinton 2016, arXiv:1607.06450, eq. (4).
    pub fn layer_norm<T: Real>(
        x: &[T],
        weight: &[T],
        bias: &[T],
        eps: T,
        y: &mut [T],
        mean: &mut [T],
        rstd: &mut [T],
    ) {
        let d = weight.len();
        assert_eq!(bias.len(), d, "layer norm: bias and weight have different lengths");
        check_rows(x.len(), mean.len(), d);
        check_rows(y.len(), rstd.len(), d);
        let scale = T::ONE / T::of(d as f64);
        let rows = x.chunks_exact(d).zip(y.chunks_exact_mut(d));
        for ((x, y), (mean, rstd)) in rows.zip(mean.iter_mut().zip(rstd)) {
            let m = lanes::sum(x, |acc, x| acc + x) * scale;
            let var = lanes::sum(x, |acc, x| (x - m).mul_add(x - m, acc)) * scale;
            let r = T::ONE / (var + eps).sqrt();
            for (((y, &x), &w), &b) in y.iter_mut().zip(x).zip(weight).zip(bias) {
                *y = ((x - m) * r).mul_add(w, b);
            }
            *mean = m;
            *rstd = r;
        }
    }
}

/// Gradients of [`layer_norm`]: writes `dx`, adds to `d_weight` and `d_bias` in the order of the
/// rows. [`layer_norm_input_vjp`] and [`layer_norm_weight_vjp`] are its halves.
///
/// # Shapes
///
/// `x`, `dy`, `dx`: `[R, D]`; `weight`, `d_weight`, `d_bias`: `[D]`; `mean`, `rstd`: `[R]`.
///
/// # Panics
///
/// If the lengths do not agree or D is 0.
#[allow(clippy::too_many_arguments, reason = "what forward got and left, and three gradients")]
pub fn layer_norm_vjp<T: Real>(
    isa: Isa,
    x: &[T],
    weight: &[T],
    mean: &[T],
    rstd: &[T],
    dy: &[T],
    dx: &mut [T],
    d_weight: &mut [T],
    d_bias: &mut [T],
) {
    layer_norm_input_vjp(isa, x, weight, mean, rstd, dy, dx);
    layer_norm_weight_vjp(isa, x, mean, rstd, dy, d_weight, d_bias);
}

kernel! {
    /// Gradient of [`layer_norm`] for its input: writes `dx`.
    ///
    /// ```text
    /// g = dy ⊙ w,   dx = rstd · (g − mean(g) − x̂ mean(g ⊙ x̂))
    /// ```
    ///
    /// # Shapes
    ///
    /// As [`layer_norm_vjp`].
    ///
    /// # Panics
    ///
    /// If the lengths do not agree or D is 0.
    pub fn layer_norm_input_vjp<T: Real>(
        x: &[T],
        weight: &[T],
        mean: &[T],
        rstd: &[T],
        dy: &[T],
        dx: &mut [T],
    ) {
        let d = weight.len();
        check_rows(x.len(), mean.len(), d);
        check_rows(dy.len(), rstd.len(), d);
        check_rows(dx.len(), rstd.len(), d);
        let scale = T::ONE / T::of(d as f64);
        let rows = x.chunks_exact(d).zip(dy.chunks_exact(d)).zip(dx.chunks_exact_mut(d));
        for (((x, dy), dx), (&m, &r)) in rows.zip(mean.iter().zip(rstd)) {
            // dx holds g until it is complete.
            for ((g, &dy), &w) in dx.iter_mut().zip(dy).zip(weight) {
                *g = dy * w;
            }
            let mean_g = lanes::sum(dx, |acc, g| acc + g) * scale;
            let mean_gx = lanes::sum2(dx, x, |acc, g, x| g.mul_add((x - m) * r, acc)) * scale;
            for (dx, &x) in dx.iter_mut().zip(x) {
                *dx = (*dx - mean_g - (x - m) * r * mean_gx) * r;
            }
        }
    }
}

kernel! {
    /// Gradients of [`layer_norm`] for its parameters: `dw += Σ_r dy ⊙ x̂`, `db += Σ_r dy`, in the
    /// order of the rows.
    ///
    /// # Shapes
    ///
    /// As [`layer_norm_vjp`].
    ///
    /// # Panics
    ///
    /// If the lengths do not agree or D is 0.
    pub fn layer_norm_weight_vjp<T: Real>(
        x: &[T],
        mean: &[T],
        rstd: &[T],
        dy: &[T],
        d_weight: &mut [T],
        d_bias: &mut [T],
    ) {
        let d = d_weight.len();
        assert_eq!(d_bias.len(), d, "layer norm: a bias of another length");
        check_rows(x.len(), mean.len(), d);
        check_rows(dy.len(), rstd.len(), d);
        let rows = x.chunks_exact(d).zip(dy.chunks_exact(d));
        for ((x, dy), (&m, &r)) in rows.zip(mean.iter().zip(rstd)) {
            for ((dw, &dy), &x) in d_weight.iter_mut().zip(dy).zip(x) {
                *dw = dy.mul_add((x - m) * r, *dw);
            }
            for (db, &dy) in d_bias.iter_mut().zip(dy) {
                *db += dy;
            }
        }
    }
}

kernel! {
    /// Directional derivative of [`layer_norm`] along `(x_dot, weight_dot, bias_dot)`.
    ///
    /// ```text
    /// ẏ = x̂' ⊙ w + x̂ ⊙ ẇ + ḃ,   x̂' = rstd · (ẋ − mean(ẋ) − x̂ mean(x̂ ⊙ ẋ))
    /// ```
    ///
    /// # Shapes
    ///
    /// `x`, `x_dot`, `y_dot`: `[R, D]`; `weight`, `weight_dot`, `bias_dot`: `[D]`; `mean`, `rstd`:
    /// `[R]`.
    ///
    /// # Panics
    ///
    /// If the lengths do not agree or D is 0.
    pub fn layer_norm_jvp<T: Real>(
        x: &[T],
        weight: &[T],
        mean: &[T],
        rstd: &[T],
        x_dot: &[T],
        weight_dot: &[T],
        bias_dot: &[T],
        y_dot: &mut [T],
    ) {
        let d = weight.len();
        assert!(
            weight_dot.len() == d && bias_dot.len() == d,
            "layer norm: tangents of a wrong length"
        );
        check_rows(x.len(), mean.len(), d);
        check_rows(x_dot.len(), rstd.len(), d);
        check_rows(y_dot.len(), rstd.len(), d);
        let scale = T::ONE / T::of(d as f64);
        let rows = x.chunks_exact(d).zip(x_dot.chunks_exact(d)).zip(y_dot.chunks_exact_mut(d));
        for (((x, x_dot), y_dot), (&m, &r)) in rows.zip(mean.iter().zip(rstd)) {
            let mean_dot = lanes::sum(x_dot, |acc, v| acc + v) * scale;
            let mean_xx = lanes::sum2(x_dot, x, |acc, v, x| v.mul_add((x - m) * r, acc)) * scale;
            let tangents = weight.iter().zip(weight_dot).zip(bias_dot);
            for (((y, &x), &v), ((&w, &w_dot), &b_dot)) in
                y_dot.iter_mut().zip(x).zip(x_dot).zip(tangents)
            {
                let unit = (x - m) * r;
                let unit_dot = (v - mean_dot - unit * mean_xx) * r;
                *y = unit_dot.mul_add(w, unit.mul_add(w_dot, b_dot));
            }
        }
    }
}

kernel! {
    /// RMS norm of every row.
    ///
    /// ```text
    /// y = x · rstd ⊙ w,   rstd = 1 / √(mean(x²) + ε)
    /// ```
    ///
    /// `rstd` is kept for [`rms_norm_vjp`].
    ///
    /// # Shapes
    ///
    /// `x`, `y`: `[R, D]`; `weight`: `[D]`; `rstd`: `[R]`.
    ///
    /// # Panics
    ///
    /// If the lengths do not agree or D is 0.
    ///
    /// # Source
    ///
    /// Zhang and Sennrich 2019, arXiv:1910.07467, eq. (4); ε inside the root as in Llama and
    /// PyTorch.
    pub fn rms_norm<T: Real>(x: &[T], weight: &[T], eps: T, y: &mut [T], rstd: &mut [T]) {
        let d = weight.len();
        check_rows(x.len(), rstd.len(), d);
        check_rows(y.len(), rstd.len(), d);
        let scale = T::ONE / T::of(d as f64);
        for ((x, y), rstd) in x.chunks_exact(d).zip(y.chunks_exact_mut(d)).zip(rstd) {
            let square = lanes::sum(x, |acc, x| x.mul_add(x, acc)) * scale;
            let r = T::ONE / (square + eps).sqrt();
            for ((y, &x), &w) in y.iter_mut().zip(x).zip(weight) {
                *y = x * r * w;
            }
            *rstd = r;
        }
    }
}

/// Gradients of [`rms_norm`]: writes `dx`, adds to `d_weight` in the order of the rows.
/// [`rms_norm_input_vjp`] and [`rms_norm_weight_vjp`] are its halves.
///
/// # Shapes
///
/// `x`, `dy`, `dx`: `[R, D]`; `weight`, `d_weight`: `[D]`; `rstd`: `[R]`.
///
/// # Panics
///
/// If the lengths do not agree or D is 0.
#[allow(clippy::too_many_arguments, reason = "what forward got and left, and two gradients")]
pub fn rms_norm_vjp<T: Real>(
    isa: Isa,
    x: &[T],
    weight: &[T],
    rstd: &[T],
    dy: &[T],
    dx: &mut [T],
    d_weight: &mut [T],
) {
    rms_norm_input_vjp(isa, x, weight, rstd, dy, dx);
    rms_norm_weight_vjp(isa, x, rstd, dy, d_weight);
}

kernel! {
    /// Gradient of [`rms_norm`] for its input: writes `dx`.
    ///
    /// ```text
    /// g = dy ⊙ w,   dx = rstd · (g − x̂ mean(g ⊙ x̂)),   x̂ = x · rstd
    /// ```
    ///
    /// # Shapes
    ///
    /// As [`rms_norm_vjp`].
    ///
    /// # Panics
    ///
    /// If the lengths do not agree or D is 0.
    pub fn rms_norm_input_vjp<T: Real>(x: &[T], weight: &[T], rstd: &[T], dy: &[T], dx: &mut [T]) {
        let d = weight.len();
        check_rows(x.len(), rstd.len(), d);
        check_rows(dy.len(), rstd.len(), d);
        check_rows(dx.len(), rstd.len(), d);
        let scale = T::ONE / T::of(d as f64);
        let rows = x.chunks_exact(d).zip(dy.chunks_exact(d)).zip(dx.chunks_exact_mut(d));
        for (((x, dy), dx), &r) in rows.zip(rstd) {
            for ((g, &dy), &w) in dx.iter_mut().zip(dy).zip(weight) {
                *g = dy * w;
            }
            let mean_gx = lanes::sum2(dx, x, |acc, g, x| g.mul_add(x * r, acc)) * scale;
            for (dx, &x) in dx.iter_mut().zip(x) {
                *dx = (*dx - x * r * mean_gx) * r;
            }
        }
    }
}

kernel! {
    /// Gradient of [`rms_norm`] for its weight: `dw += Σ_r dy ⊙ x̂`, in the order of the rows.
    ///
    /// # Shapes
    ///
    /// As [`rms_norm_vjp`].
    ///
    /// # Panics
    ///
    /// If the lengths do not agree or D is 0.
    pub fn rms_norm_weight_vjp<T: Real>(x: &[T], rstd: &[T], dy: &[T], d_weight: &mut [T]) {
        let d = d_weight.len();
        check_rows(x.len(), rstd.len(), d);
        check_rows(dy.len(), rstd.len(), d);
        for ((x, dy), &r) in x.chunks_exact(d).zip(dy.chunks_exact(d)).zip(rstd) {
            for ((dw, &dy), &x) in d_weight.iter_mut().zip(dy).zip(x) {
                *dw = dy.mul_add(x * r, *dw);
            }
        }
    }
}

#[inline(always)]
fn check_rows(len: usize, rows: usize, d: usize) {
    assert!(d > 0 && len == rows * d, "norm: {len} values are not {rows} rows of {d}");
}

#[cfg(test)]
mod tests {
    use cordada_testkit::gradient::assert_gradient;
    use proptest::prelude::*;

    use super::*;

    /// y, mean and rstd.
    fn forward<T: Real>(isa: Isa, x: &[T], w: &[T], b: &[T], eps: T) -> (Vec<T>, Vec<T>, Vec<T>) {
        let rows = x.len() / w.len();
        let mut y = vec![T::ZERO; x.len()];
        let (mut mean, mut rstd) = (vec![T::ZERO; rows], vec![T::ZERO; rows]);
        layer_norm(isa, x, w, b, eps, &mut y, &mut mean, &mut rstd);
        (y, mean, rstd)
    }

    /// Values without a pattern in about [−1, 1].
    fn wave(n: usize, shift: f64) -> Vec<f64> {
        (0..n).map(|i| libm::sin(1.7 * i as f64 + shift) + 0.1 * shift).collect()
    }

    fn weighted(a: &[f64], b: &[f64]) -> f64 {
        a.iter().zip(b).map(|(a, b)| a * b).sum()
    }

    #[test]
    fn layer_norm_by_hand() {
        // Mean 3, variance (4 + 0 + 0 + 4) / 4 = 2; ε = 2 makes rstd ½.
        let (y, mean, rstd) = forward(
            Isa::detect(),
            &[1.0, 3.0, 3.0, 5.0],
            &[1.0, 1.0, 1.0, 3.0],
            &[0.0, 10.0, 0.0, 1.0],
            2.0_f64,
        );
        assert_eq!((mean[0], rstd[0]), (3.0, 0.5));
        assert_eq!(y, [-1.0, 10.0, 0.0, 4.0]);
    }

    #[test]
    fn rms_norm_by_hand() {
        // Mean of squares (1 + 49) / 2 = 25, no ε: rstd 0.2.
        let (mut y, mut rstd) = ([0.0_f64; 2], [0.0]);
        rms_norm(Isa::detect(), &[1.0, -7.0], &[1.0, 5.0], 0.0, &mut y, &mut rstd);
        assert!((rstd[0] - 0.2).abs() < 1e-16);
        assert!((y[0] - 0.2).abs() < 1e-15 && (y[1] + 7.0).abs() < 1e-14);
    }

    #[test]
    fn layer_norm_vjp_is_the_gradient() {
        let (rows, d, eps) = (3, 19, 1e-3);
        let (x, w, b) = (wave(rows * d, 0.0), wave(d, 1.0), wave(d, 2.0));
        let dy = wave(rows * d, 3.0);
        for isa in Isa::available() {
            let (_, mean, rstd) = forward(isa, &x, &w, &b, eps);
            let mut dx = vec![f64::NAN; rows * d];
            let (mut dw, mut db) = (vec![7.0; d], vec![7.0; d]);
            layer_norm_vjp(isa, &x, &w, &mean, &rstd, &dy, &mut dx, &mut dw, &mut db);
            // The gradients of the parameters are added to what was there.
            for g in dw.iter_mut().chain(&mut db) {
                *g -= 7.0;
            }
            let loss =
                |x: &[f64], w: &[f64], b: &[f64]| weighted(&forward(isa, x, w, b, eps).0, &dy);
            assert_gradient("layer norm x", &x, &dx, 1e-7, |x| loss(x, &w, &b));
            assert_gradient("layer norm weight", &w, &dw, 1e-7, |w| loss(&x, w, &b));
            assert_gradient("layer norm bias", &b, &db, 1e-7, |b| loss(&x, &w, b));
        }
    }

    #[test]
    fn layer_norm_jvp_is_the_directional_derivative() {
        let (rows, d, eps) = (2, 21, 1e-3);
        let (x, w, b) = (wave(rows * d, 0.0), wave(d, 1.0), wave(d, 2.0));
        let (x_dot, w_dot, b_dot) = (wave(rows * d, 4.0), wave(d, 5.0), wave(d, 6.0));
        let isa = Isa::detect();
        let (_, mean, rstd) = forward(isa, &x, &w, &b, eps);
        let mut y_dot = vec![f64::NAN; rows * d];
        layer_norm_jvp(isa, &x, &w, &mean, &rstd, &x_dot, &w_dot, &b_dot, &mut y_dot);
        let moved = |h: f64| {
            let along = |x: &[f64], v: &[f64]| -> Vec<f64> {
                x.iter().zip(v).map(|(x, v)| x + h * v).collect()
            };
            forward(isa, &along(&x, &x_dot), &along(&w, &w_dot), &along(&b, &b_dot), eps).0
        };
        let h = 1e-5;
        for ((&got, up), down) in y_dot.iter().zip(moved(h)).zip(moved(-h)) {
            let want = (up - down) / (2.0 * h);
            assert!((got - want).abs() < 1e-7 * want.abs().max(1.0), "{got} for {want}");
        }
    }

    #[test]
    fn rms_norm_vjp_is_the_gradient() {
        let (rows, d, eps) = (3, 18, 1e-3);
        let (x, w, dy) = (wave(rows * d, 0.0), wave(d, 1.0), wave(rows * d, 3.0));
        for isa in Isa::available() {
            let forward = |x: &[f64], w: &[f64]| {
                let (mut y, mut rstd) = (vec![0.0; rows * d], vec![0.0; rows]);
                rms_norm(isa, x, w, eps, &mut y, &mut rstd);
                (y, rstd)
            };
            let (_, rstd) = forward(&x, &w);
            let (mut dx, mut dw) = (vec![f64::NAN; rows * d], vec![7.0; d]);
            rms_norm_vjp(isa, &x, &w, &rstd, &dy, &mut dx, &mut dw);
            for g in &mut dw {
                *g -= 7.0;
            }
            let loss = |x: &[f64], w: &[f64]| weighted(&forward(x, w).0, &dy);
            assert_gradient("RMS norm x", &x, &dx, 1e-7, |x| loss(x, &w));
            assert_gradient("RMS norm weight", &w, &dw, 1e-7, |w| loss(&x, w));
        }
    }

    proptest! {
        #[test]
        fn a_row_alone_has_the_same_bits(rows in 1_usize..6, d in 1_usize..70, shift in 0.0..9.0) {
            let single = |n, s| wave(n, s).iter().map(|&v| v as f32).collect::<Vec<f32>>();
            let (x, w, b) = (single(rows * d, shift), single(d, 1.0), single(d, 2.0));
            let dy = single(rows * d, shift + 1.0);
            let pass = |isa: Isa, x: &[f32], dy: &[f32]| {
                let (mut y, mean, rstd) = forward(isa, x, &w, &b, 1e-5_f32);
                let mut dx = vec![0.0; x.len()];
                let (mut dw, mut db) = (vec![0.0; d], vec![0.0; d]);
                layer_norm_vjp(isa, x, &w, &mean, &rstd, dy, &mut dx, &mut dw, &mut db);
                let (mut ry, mut rms) = (vec![0.0; x.len()], vec![0.0; x.len() / d]);
                rms_norm(isa, x, &w, 1e-5, &mut ry, &mut rms);
                let mut rdx = vec![0.0; x.len()];
                rms_norm_vjp(isa, x, &w, &rms, dy, &mut rdx, &mut dw);
                // One row's values of all four outputs beside each other.
                let outputs = [&mut y, &mut dx, &mut ry, &mut rdx];
                outputs.map(|v| v.chunks(d).map(|r| r.iter().map(|x| x.to_bits()).collect::<Vec<_>>()).collect::<Vec<_>>())
            };
            let whole = pass(Isa::detect(), &x, &dy);
            for isa in Isa::available() {
                for r in 0..rows {
                    let range = r * d..(r + 1) * d;
                    let alone = pass(isa, &x[range.clone()], &dy[range]);
                    for (alone, whole) in alone.iter().zip(&whole) {
                        prop_assert_eq!(&alone[0], &whole[r], "row {} on {}", r, isa.name());
                    }
                }
            }
        }
    }
}
