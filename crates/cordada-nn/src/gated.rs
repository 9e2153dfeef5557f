//! The gated layer of a transformer's perceptron.

use crate::kernel::{Isa, LANES, Task};
use crate::{Activation, Real};

/// `y = act(g) ⊙ u` for rows `[g | u]`.
///
/// # Shapes
///
/// `x`: `[rows, 2 I]`; `y`: `[rows, I]`.
///
/// # Panics
///
/// If the lengths do not agree.
///
/// # Source
///
/// Shazeer 2020, arXiv:2002.05202, eq. (5): SwiGLU, where act is SiLU.
pub fn gated<T: Real>(isa: Isa, act: Activation, inner: usize, x: &[T], y: &mut [T]) {
    assert_eq!(x.len(), 2 * y.len(), "rows of two halves");
    isa.run(Gated { act, inner, x, y });
}

/// Gradient of [`gated`]: writes `dx`.
///
/// ```text
/// dg = dy ⊙ u ⊙ act'(g),   du = dy ⊙ act(g)
/// ```
///
/// # Shapes
///
/// `x`, `dx`: `[rows, 2 I]`; `dy`: `[rows, I]`.
///
/// # Panics
///
/// If the lengths do not agree.
pub fn gated_vjp<T: Real>(
    isa: Isa,
    act: Activation,
    inner: usize,
    x: &[T],
    dy: &[T],
    dx: &mut [T],
) {
    assert!(x.len() == 2 * dy.len() && dx.len() == x.len(), "rows of two halves");
    isa.run(GatedVjp { act, inner, x, dy, dx });
}

struct Gated<'a, T> {
    act: Activation,
    inner: usize,
    x: &'a [T],
    y: &'a mut [T],
}

impl<T: Real> Task for Gated<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { act, inner, x, y } = self;
        // SiLU by name, so that the loop has no branch inside.
        if act == Activation::Silu {
            each(inner, x, y, |g, u| Activation::Silu.value(g) * u);
        } else {
            each(inner, x, y, |g, u| act.value(g) * u);
        }
    }
}

#[inline(always)]
fn each<T: Real>(inner: usize, x: &[T], y: &mut [T], f: impl Fn(T, T) -> T) {
    for (x, y) in x.chunks_exact(2 * inner).zip(y.chunks_exact_mut(inner)) {
        let (gate, up) = x.split_at(inner);
        for ((y, &g), &u) in y.iter_mut().zip(gate).zip(up) {
            *y = f(g, u);
        }
    }
}

struct GatedVjp<'a, T> {
    act: Activation,
    inner: usize,
    x: &'a [T],
    dy: &'a [T],
    dx: &'a mut [T],
}

impl<T: Real> Task for GatedVjp<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { act, inner, x, dy, dx } = self;
        if act == Activation::Silu {
            each_vjp(Activation::Silu, inner, x, dy, dx);
        } else {
            each_vjp(act, inner, x, dy, dx);
        }
    }
}

#[inline(always)]
fn each_vjp<T: Real>(act: Activation, inner: usize, x: &[T], dy: &[T], dx: &mut [T]) {
    let rows = x.chunks_exact(2 * inner).zip(dx.chunks_exact_mut(2 * inner));
    for ((x, dx), dy) in rows.zip(dy.chunks_exact(inner)) {
        let (gate, up) = x.split_at(inner);
        let (d_gate, d_up) = dx.split_at_mut(inner);
        // Five streams side by side are more than the compiler vectorizes by itself (measured: a
        // tenth of the speed).
        let whole = inner - inner % LANES;
        for i in (0..whole).step_by(LANES) {
            lane_vjp::<T, LANES>(act, [gate, up, dy], d_gate, d_up, i);
        }
        for i in whole..inner {
            lane_vjp::<T, 1>(act, [gate, up, dy], d_gate, d_up, i);
        }
    }
}

/// `N` numbers of a row from the i-th on.
#[inline(always)]
fn lane_vjp<T: Real, const N: usize>(
    act: Activation,
    inputs: [&[T]; 3],
    d_gate: &mut [T],
    d_up: &mut [T],
    i: usize,
) {
    let part = |x: &[T]| -> [T; N] { *x[i..].first_chunk().expect("N numbers are left") };
    let [g, u, dy] = inputs.map(part);
    let (mut dg, mut du) = ([T::ZERO; N], [T::ZERO; N]);
    for l in 0..N {
        let y = act.value(g[l]);
        dg[l] = dy[l] * u[l] * act.derivative(g[l], y);
        du[l] = dy[l] * y;
    }
    d_gate[i..i + N].copy_from_slice(&dg);
    d_up[i..i + N].copy_from_slice(&du);
}

#[cfg(test)]
mod tests {
    use cordada_testkit::gradient::assert_gradient;

    use super::*;

    #[test]
    fn gating_by_hand() {
        // ReLU keeps the second of two gates: y = (0, 3 · 5).
        let mut y = [9.0; 2];
        gated(Isa::detect(), Activation::Relu, 2, &[-1.0, 3.0, 4.0, 5.0], &mut y);
        assert_eq!(y, [0.0, 15.0]);
    }

    #[test]
    fn gated_vjp_is_the_gradient() {
        // Rows of a whole vector and a rest.
        let x: Vec<f64> = (0..76).map(|i| libm::sin(1.7 * f64::from(i))).collect();
        let dy: Vec<f64> = (0..38).map(|i| libm::cos(0.9 * f64::from(i))).collect();
        for act in [Activation::Silu, Activation::GeluTanh, Activation::Gelu] {
            for isa in Isa::available() {
                let mut dx = vec![f64::NAN; 76];
                gated_vjp(isa, act, 19, &x, &dy, &mut dx);
                assert_gradient(act.name(), &x, &dx, 1e-8, |x| {
                    let mut y = vec![0.0; 38];
                    gated(isa, act, 19, x, &mut y);
                    y.iter().zip(&dy).map(|(y, g)| y * g).sum()
                });
            }
        }
    }
}
