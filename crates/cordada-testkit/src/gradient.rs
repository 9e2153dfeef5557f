//! Central differences in `f64`: the third witness beside hand-computed values and golden data.

/// Step of the central difference at `x`: `∛ε · max(1, |x|)`, which balances truncation against
/// rounding.
pub fn step(x: f64) -> f64 {
    f64::EPSILON.cbrt() * x.abs().max(1.0)
}

/// Numerical gradient of `f` at `x`, one central difference per component.
///
/// # Shapes
///
/// `x`: `[n]`; result: `[n]`.
pub fn numeric_gradient(x: &[f64], mut f: impl FnMut(&[f64]) -> f64) -> Vec<f64> {
    let mut point = x.to_vec();
    (0..x.len())
        .map(|i| {
            let h = step(x[i]);
            point[i] = x[i] + h;
            let above = f(&point);
            point[i] = x[i] - h;
            let below = f(&point);
            point[i] = x[i];
            (above - below) / (2.0 * h)
        })
        .collect()
}

/// Asserts that `analytic` is the gradient of `f` at `x`, within `tolerance` relative to
/// `max(1, |expected|)`.
///
/// # Panics
///
/// If a component differs by more, naming the component and both values. Keep kinks (ReLU at 0,
/// a clip's edge) out of `x`.
pub fn assert_gradient(
    what: &str,
    x: &[f64],
    analytic: &[f64],
    tolerance: f64,
    f: impl FnMut(&[f64]) -> f64,
) {
    let numeric = numeric_gradient(x, f);
    assert_eq!(numeric.len(), analytic.len(), "{what}: gradient has the wrong length");
    for (i, (&got, &want)) in analytic.iter().zip(&numeric).enumerate() {
        assert!(
            (got - want).abs() <= tolerance * want.abs().max(1.0),
            "{what}: component {i} is {got:e}, finite differences give {want:e}"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_the_gradient_of_a_cubic() {
        // f(x, y) = x³ y, ∇f = (3x²y, x³) = (36, 8) at (2, 3).
        let f = |x: &[f64]| x[0].powi(3) * x[1];
        assert_gradient("cubic", &[2.0, 3.0], &[36.0, 8.0], 1e-8, f);
    }

    #[test]
    #[should_panic(expected = "component 1")]
    fn rejects_a_wrong_gradient() {
        let f = |x: &[f64]| x[0].powi(3) * x[1];
        assert_gradient("cubic", &[2.0, 3.0], &[36.0, 8.1], 1e-8, f);
    }
}
