//! Limits on the size of a whole gradient.

use crate::kernel::{Isa, kernel, sum_squares};
use crate::{Real, lanes};

/// Scales the gradient down so that its Euclidean norm is at most `max_norm`, and returns the
/// norm that it had.
///
/// ```text
/// g ← g · min(1, max_norm / (‖g‖₂ + 1e-6))
/// ```
///
/// If the norm is NaN or infinite (an element is, or squares overflow), the gradient is left as
/// it is: the caller must look at the result.
///
/// # Source
///
/// Pascanu, Mikolov and Bengio 2013, arXiv:1211.5063, alg. 1; the 1e-6 is that of
/// `torch.nn.utils.clip_grad_norm_`.
pub fn clip_global_norm<T: Real>(isa: Isa, grad: &mut [T], max_norm: f64) -> f64 {
    let norm = sum_squares(isa, grad).f64().sqrt();
    limit(isa, grad, norm, max_norm);
    norm
}

/// As [`clip_global_norm`] with the largest absolute value for the norm.
pub fn clip_infinity_norm<T: Real>(isa: Isa, grad: &mut [T], max_norm: f64) -> f64 {
    // The sum of squares is NaN exactly if an element is; the maximum is not.
    let any_nan = sum_squares(isa, grad).f64().is_nan();
    let norm = if any_nan { f64::NAN } else { largest(isa, grad).f64() };
    limit(isa, grad, norm, max_norm);
    norm
}

fn limit<T: Real>(isa: Isa, grad: &mut [T], norm: f64, max_norm: f64) {
    let factor = max_norm / (norm + 1e-6);
    if norm.is_finite() && factor < 1.0 {
        scale(isa, T::of(factor), grad);
    }
}

kernel! {
    /// max |xᵢ|, 0 for none, NaN left out.
    fn largest<T: Real>(x: &[T]) -> T {
        lanes::max(x, T::ZERO, T::abs)
    }
}

kernel! {
    /// `x *= factor`.
    fn scale<T: Real>(factor: T, x: &mut [T]) {
        for x in x.iter_mut() {
            *x *= factor;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_gradient_is_shortened_and_a_short_one_left() {
        for isa in Isa::available() {
            // ‖(3, 4)‖ = 5; the 1e-6 takes 2e-7 of it off.
            let mut grad = [3.0_f64, 4.0];
            assert_eq!(clip_global_norm(isa, &mut grad, 1.0), 5.0);
            assert!((grad[0] - 3.0 / 5.000_001).abs() < 1e-15);
            assert!((grad[1] - 4.0 / 5.000_001).abs() < 1e-15);
            let mut grad = [3.0_f64, 4.0];
            assert_eq!(clip_global_norm(isa, &mut grad, 5.1), 5.0);
            assert_eq!(grad, [3.0, 4.0]);
            assert_eq!(clip_infinity_norm(isa, &mut grad, 2.0), 4.0);
            assert!((grad[0] - 6.0 / 4.000_001).abs() < 1e-15);
        }
    }

    #[test]
    fn a_gradient_that_is_not_finite_is_reported_and_left() {
        let isa = Isa::detect();
        for bad in [f32::NAN, f32::INFINITY] {
            let mut grad = [1.0_f32; 40];
            grad[7] = bad;
            let before = grad.map(f32::to_bits);
            assert!(!clip_global_norm(isa, &mut grad, 0.5).is_finite());
            assert_eq!(grad.map(f32::to_bits), before);
            assert!(!clip_infinity_norm(isa, &mut grad, 0.5).is_finite());
            assert_eq!(grad.map(f32::to_bits), before);
        }
    }
}
