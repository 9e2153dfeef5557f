//! Whitening of rewards and advantages over the tokens of a batch.

use cordada_nn::Real;

use super::moments::mean_and_squares;

/// Added to a variance before taking its root.
const EPS: f64 = 1e-8;

/// Which mean the whitened numbers have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Center {
    /// 0: for advantages.
    Zero,
    /// The one they had: for rewards, whose mean is not arbitrary.
    Keep,
}

/// What a sum of squared deviations is divided by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denominator {
    /// n − 1: TRL, and most others.
    Sample,
    /// n: the program of Ziegler et al. 2019.
    Population,
}

/// A way to shift and scale numbers to variance 1.
///
/// ```text
/// y_i = (x_i − mean(x)) / √(var(x) + 10⁻⁸)        Center::Zero
///       … + mean(x)                               Center::Keep
/// ```
///
/// It differs from [`normalize_advantages`](super::normalize_advantages) by the place of the small
/// constant: inside the root here, outside there.
///
/// # Source
///
/// The program of Ziegler et al. 2019, arXiv:1909.08593 (`whiten`), with [`Denominator::Population`];
/// Huang et al. 2024, arXiv:2403.17031.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whitening {
    /// Which mean the result has.
    pub center: Center,
    /// What its variance is an average over.
    pub denominator: Denominator,
}

impl Whitening {
    /// Of advantages: mean 0, n − 1.
    pub const ADVANTAGES: Self = Self { center: Center::Zero, denominator: Denominator::Sample };
    /// Of rewards: their mean stays, n − 1.
    pub const REWARDS: Self = Self { center: Center::Keep, denominator: Denominator::Sample };

    /// Whitens `xs` in place; what the mask leaves out becomes 0.
    ///
    /// Fewer than two numbers stay as they are: one number has no variance.
    ///
    /// # Shapes
    ///
    /// `xs`, `mask`: `[n]`, tokens of the whole batch, ragged without a mask or padded with one
    /// (`true`: a token of a response).
    ///
    /// # Panics
    ///
    /// If the lengths differ.
    pub fn apply<F: Real>(self, xs: &mut [F], mask: Option<&[bool]>) {
        if let Some(mask) = mask {
            assert_eq!(mask.len(), xs.len(), "the mask has another length than the numbers");
        }
        let kept = |i: usize| mask.is_none_or(|mask| mask[i]);
        let numbers = xs.iter().enumerate().filter(|&(i, _)| kept(i)).map(|(_, x)| x.f64());
        let len = numbers.clone().count();
        let (mut mean, mut scale) = (0.0, 1.0);
        if len > 1 {
            let (of_batch, squares) = mean_and_squares(numbers);
            let degrees = match self.denominator {
                Denominator::Sample => len - 1,
                Denominator::Population => len,
            };
            mean = of_batch;
            scale = 1.0 / (squares / degrees as f64 + EPS).sqrt();
        }
        let shift = match self.center {
            Center::Zero => 0.0,
            Center::Keep => mean,
        };
        for (i, x) in xs.iter_mut().enumerate() {
            *x = if kept(i) { F::of((x.f64() - mean) * scale + shift) } else { F::ZERO };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whitened(whitening: Whitening, xs: &[f64], mask: Option<&[bool]>) -> Vec<f64> {
        let mut xs = xs.to_vec();
        whitening.apply(&mut xs, mask);
        xs
    }

    fn close(got: &[f64], want: &[f64]) {
        for (g, w) in got.iter().zip(want) {
            assert!((g - w).abs() < 1e-7, "{got:?}, expected {want:?}");
        }
    }

    #[test]
    fn whitening_by_hand() {
        // 1, 3, 5: mean 3, squares 8; n − 1: std 2; n: std √(8/3).
        let (xs, mask) = ([1.0, 3.0, 77.0, 5.0], [true, true, false, true]);
        let sample = whitened(Whitening::ADVANTAGES, &xs, Some(&mask));
        close(&sample, &[-1.0, 0.0, 0.0, 1.0]);
        close(&whitened(Whitening::REWARDS, &xs, Some(&mask)), &[2.0, 3.0, 0.0, 4.0]);
        let population = Whitening { denominator: Denominator::Population, ..Whitening::REWARDS };
        let a = 2.0 / (8.0_f64 / 3.0).sqrt();
        close(&whitened(population, &[1.0, 3.0, 5.0], None), &[3.0 - a, 3.0, 3.0 + a]);
    }

    #[test]
    fn few_or_equal_numbers_stay_finite() {
        assert_eq!(whitened(Whitening::ADVANTAGES, &[4.0], None), [4.0]);
        assert_eq!(whitened(Whitening::REWARDS, &[4.0], None), [4.0]);
        assert_eq!(whitened(Whitening::ADVANTAGES, &[4.0, 9.0], Some(&[false, true])), [0.0, 9.0]);
        assert_eq!(whitened(Whitening::ADVANTAGES, &[4.0, 4.0], None), [0.0, 0.0]);
        // 10⁻⁸ stands inside the root: 0.5 · 10⁻⁴ / √(0.5 · 10⁻⁸ + 10⁻⁸).
        let tiny = whitened(Whitening::ADVANTAGES, &[0.0, 1e-4], None);
        close(&tiny, &[-0.5e-4 / 1.5e-8_f64.sqrt(), 0.5e-4 / 1.5e-8_f64.sqrt()]);
    }
}
