//! Losses of a value against a bootstrapped target: squared, or linear in large errors.

use cordada_nn::Real;

use super::value::{ValueTerm, value_loss};

/// Huber's loss of a value against its target.
///
/// ```text
/// L = ½ δ²              |δ| ≤ κ,   δ = Q − y
///     κ (|δ| − ½ κ)     else;      ∂L/∂Q = clip(δ, −κ, κ)
/// ```
///
/// Within κ it is [`value_loss`], bit for bit. κ = ∞ makes it that everywhere.
///
/// # Source
///
/// Huber 1964, doi:10.1214/aoms/1177703732. With κ = 1 it is the error clipping of Mnih et al.
/// 2015, doi:10.1038/nature14236, "Training details".
#[inline(always)]
pub fn huber<F: Real>(value: F, target: F, kappa: F) -> ValueTerm<F> {
    let squared = value_loss(value, target);
    let error = squared.d_value;
    if error.abs() > kappa {
        let loss = kappa * (error.abs() - F::of(0.5) * kappa);
        ValueTerm { loss, d_value: error.clamp(-kappa, kappa) }
    } else {
        squared
    }
}

/// Which loss a TD error is put through.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum TdLoss<F> {
    /// [`value_loss`]: ½ δ².
    Squared,
    /// [`huber`] with this κ.
    Huber(F),
}

impl<F: Real> TdLoss<F> {
    /// Loss and derivative of a value against its target.
    #[inline(always)]
    pub fn of(self, value: F, target: F) -> ValueTerm<F> {
        match self {
            Self::Squared => value_loss(value, target),
            Self::Huber(kappa) => huber(value, target, kappa),
        }
    }
}

#[cfg(test)]
mod tests {
    use cordada_testkit::gradient::assert_gradient;

    use super::*;

    #[test]
    fn one_value_by_hand() {
        let term = |loss, d_value| ValueTerm { loss, d_value };
        // δ = 3, κ = 2: 2 (3 − 1). δ = −3 alike. δ = 1½: ½ · 2¼.
        assert_eq!(huber(5.0, 2.0, 2.0), term(4.0, 2.0));
        assert_eq!(huber(2.0, 5.0, 2.0), term(4.0, -2.0));
        assert_eq!(huber(2.5, 1.0, 2.0), term(1.125, 1.5));
        assert_eq!(TdLoss::Huber(2.0).of(5.0, 2.0), term(4.0, 2.0));
        assert_eq!(TdLoss::Squared.of(5.0, 2.0), term(4.5, 3.0));
        assert!(huber(f32::NAN, 0.0, 1.0).loss.is_nan(), "a NaN must not be clipped away");
    }

    #[test]
    fn d_value_is_the_derivative() {
        for (value, target) in [(0.3, -0.2), (1.4, 0.2), (-3.0, 1.0), (2.0, -7.5)] {
            for loss in [TdLoss::Squared, TdLoss::Huber(0.8)] {
                let what = format!("{loss:?}, Q = {value}, y = {target}");
                let d = loss.of(value, target).d_value;
                assert_gradient(&what, &[value], &[d], 1e-8, |x| loss.of(x[0], target).loss);
            }
        }
    }
}
