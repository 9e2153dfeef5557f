//! Rotary positions: queries and keys are turned by angles that grow with the position, so that
//! their product depends on the distance alone.

use crate::Real;
use crate::kernel::{Isa, kernel};

/// Cosines and sines of all positions.
///
/// ```text
/// (x_i, x_{i + D/2}) → f (x_i cos φ − x_{i + D/2} sin φ,  x_{i + D/2} cos φ + x_i sin φ)
/// φ = position · ω_i
/// ```
///
/// # Source
///
/// Su et al. 2021, arXiv:2104.09864, section 3.2.2, with the halves of a head paired as in Llama's
/// checkpoints.
#[derive(Clone, Debug)]
pub struct Rotary<T> {
    isa: Isa,
    /// D / 2.
    half: usize,
    /// `[positions, D / 2]` each.
    cos: Vec<T>,
    sin: Vec<T>,
}

impl<T: Real> Rotary<T> {
    /// Tables for positions below `max_positions`, from each pair's angular frequency ω and the
    /// factor f (1, but for YaRN).
    ///
    /// # Panics
    ///
    /// If there is no frequency.
    pub fn new(frequencies: &[f64], factor: f64, max_positions: usize) -> Self {
        assert!(!frequencies.is_empty(), "a head has pairs");
        let angles = (0..max_positions).flat_map(|p| frequencies.iter().map(move |w| p as f64 * w));
        let (cos, sin) =
            angles.map(|a| (T::of(factor * libm::cos(a)), T::of(factor * libm::sin(a)))).unzip();
        Self { isa: Isa::detect(), half: frequencies.len(), cos, sin }
    }

    /// Turns the first `heads` heads of every row.
    ///
    /// # Shapes
    ///
    /// `x`: `[rows, width]` with `width ≥ heads · D`; `positions`: `[rows]`.
    ///
    /// # Panics
    ///
    /// If a position is too large or the lengths do not agree.
    pub fn apply(&self, x: &mut [T], heads: usize, positions: &[u32]) {
        self.turn(x, heads, positions, T::ONE);
    }

    /// Its transpose: turns back (and multiplies by f), as gradients need it.
    ///
    /// # Shapes
    ///
    /// As [`Rotary::apply`].
    ///
    /// # Panics
    ///
    /// As [`Rotary::apply`].
    pub fn transpose(&self, x: &mut [T], heads: usize, positions: &[u32]) {
        self.turn(x, heads, positions, -T::ONE);
    }

    fn turn(&self, x: &mut [T], heads: usize, positions: &[u32], sign: T) {
        if positions.is_empty() {
            return;
        }
        let width = x.len() / positions.len();
        assert!(x.len() == width * positions.len() && heads * 2 * self.half <= width, "whole rows");
        for (row, &position) in x.chunks_exact_mut(width).zip(positions) {
            let at = position as usize * self.half;
            let (cos, sin) = (&self.cos[at..at + self.half], &self.sin[at..at + self.half]);
            turn_heads(self.isa, &mut row[..heads * 2 * self.half], cos, sin, sign);
        }
    }
}

kernel! {
    fn turn_heads<T: Real>(x: &mut [T], cos: &[T], sin: &[T], sign: T) {
        for head in x.chunks_exact_mut(2 * cos.len()) {
            let (low, high) = head.split_at_mut(cos.len());
            for (((a, b), &c), &s) in low.iter_mut().zip(high).zip(cos).zip(sin) {
                let s = sign * s;
                let (x, y) = (*a, *b);
                *a = x.mul_add(c, -(y * s));
                *b = y.mul_add(c, x * s);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turning_by_hand() {
        // Two pairs: a quarter turn each position, and none. Two heads are turned, the third not.
        let rotary: Rotary<f64> = Rotary::new(&[std::f64::consts::FRAC_PI_2, 0.0], 1.0, 4);
        let mut x = vec![0.0; 24];
        x[12..].copy_from_slice(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0]);
        let before = x.clone();
        rotary.apply(&mut x, 2, &[0, 1]);
        let want = [-3.0, 2.0, 1.0, 4.0, -7.0, 6.0, 5.0, 8.0, 9.0, 10.0, 11.0, 12.0];
        for (got, want) in x[12..].iter().zip(want) {
            assert!((got - want).abs() < 1e-14, "{x:?}");
        }
        rotary.transpose(&mut x, 2, &[0, 1]);
        for (got, want) in x.iter().zip(before) {
            assert!((got - want).abs() < 1e-14, "{x:?}");
        }
    }

    #[test]
    fn the_transpose_keeps_products() {
        // ⟨R x, y⟩ = ⟨x, Rᵀ y⟩, also with a factor.
        let rotary: Rotary<f64> = Rotary::new(&[0.3, 0.07, 0.9], 1.3, 9);
        let x: Vec<f64> = (0..12).map(|i| libm::sin(f64::from(i))).collect();
        let y: Vec<f64> = (0..12).map(|i| libm::cos(1.3 * f64::from(i))).collect();
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let (mut rx, mut ry) = (x.clone(), y.clone());
        rotary.apply(&mut rx, 1, &[8, 3]);
        rotary.transpose(&mut ry, 1, &[8, 3]);
        assert!((dot(&rx, &y) - dot(&x, &ry)).abs() < 1e-14);
        assert!((dot(&rx, &rx) - 1.69 * dot(&x, &x)).abs() < 1e-13, "a rotation times 1.3");
    }
}
