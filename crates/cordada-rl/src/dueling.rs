//! The dueling combination: action values from a state's value and the actions' advantages.

use cordada_nn::Real;

/// Action values of a dueling network.
///
/// ```text
/// Q(s, a) = V(s) + A(s, a) − mean_b A(s, b)
/// ```
///
/// # Shapes
///
/// `advantages`, `q_values`: `[A]`.
///
/// # Panics
///
/// If the lengths differ.
///
/// # Source
///
/// Wang et al. 2016, arXiv:1511.06581, eq. (9).
#[inline(always)]
pub fn dueling<F: Real>(value: F, advantages: &[F], q_values: &mut [F]) {
    assert_eq!(advantages.len(), q_values.len(), "as many action values as advantages are needed");
    let offset = value - mean(advantages);
    for (q_value, &advantage) in q_values.iter_mut().zip(advantages) {
        *q_value = advantage + offset;
    }
}

/// Gradient of [`dueling`]: writes that of the advantages and returns that of the value.
///
/// ```text
/// ∂L/∂V = Σ_a ∂L/∂Q(a),   ∂L/∂A(a) = ∂L/∂Q(a) − mean_b ∂L/∂Q(b)
/// ```
///
/// # Shapes
///
/// `d_q_values`, `d_advantages`: `[A]`.
///
/// # Panics
///
/// If the lengths differ.
#[inline(always)]
pub fn dueling_vjp<F: Real>(d_q_values: &[F], d_advantages: &mut [F]) -> F {
    // The matrix that takes the mean away is its own transpose.
    dueling(F::ZERO, d_q_values, d_advantages);
    d_q_values.iter().copied().sum()
}

#[inline(always)]
fn mean<F: Real>(xs: &[F]) -> F {
    xs.iter().copied().sum::<F>() / F::of(xs.len() as f64)
}

#[cfg(test)]
mod tests {
    use cordada_testkit::gradient::assert_gradient;

    use super::*;

    #[test]
    fn one_row_by_hand() {
        let mut q = [9.0; 3];
        dueling(10.0, &[1.0, 2.0, 6.0], &mut q);
        assert_eq!(q, [8.0, 9.0, 13.0]);
    }

    #[test]
    fn it_has_its_gradient() {
        let weight = [0.5, -1.25, 2.0];
        let mut d = [0.0; 4];
        d[0] = dueling_vjp(&weight, &mut d[1..]);
        assert_gradient("V, A", &[0.3, 1.0, -0.4, 0.6], &d, 1e-8, |x| {
            let mut q = [0.0; 3];
            dueling(x[0], &x[1..], &mut q);
            q.iter().zip(weight).map(|(q, w)| q * w).sum()
        });
    }
}
