//! Losses of the value function, plain and clipped.

use cordada_nn::Real;

/// What one sample adds to a value loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ValueTerm<F> {
    /// Its value, to be descended.
    pub loss: F,
    /// ∂ loss / ∂ V(s).
    pub d_value: F,
}

/// Squared error of a value against its target.
///
/// ```text
/// L = ½ (V(s) − R)²,   ∂L/∂V = V(s) − R
/// ```
///
/// stable-baselines3 and the paper leave out the ½; their coefficient c₁ is half of ours.
///
/// # Source
///
/// Schulman et al. 2017, arXiv:1707.06347, eq. (9), with the factor ½ of the original program.
#[inline(always)]
pub fn value_loss<F: Real>(value: F, target: F) -> ValueTerm<F> {
    let error = value - target;
    ValueTerm { loss: F::of(0.5) * error * error, d_value: error }
}

/// How the value loss treats a value that has moved away from `V_old` by more than ε.
///
/// `V_clip = V_old + clip(V − V_old, −ε, ε)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ValueClip<F> {
    /// As any other: ½ (V − R)².
    Off,
    /// `½ (V_clip − R)²`: its gradient is 0, on either side of the target. What stable-baselines3
    /// does with `clip_range_vf`.
    Hold(F),
    /// `½ max((V − R)², (V_clip − R)²)`: its gradient is 0 only where V has moved towards the
    /// target. What the original program of PPO does.
    Max(F),
}

/// Squared error of a value against its target, with one of the ways to clip it.
///
/// Within ε of `old_value` every kind is [`value_loss`], bit for bit: `V_clip` is not computed
/// there, for `V_old + (V − V_old)` is not V in floating-point numbers, and comparing the two losses
/// would drop gradients at random.
///
/// # Source
///
/// The 37 Implementation Details of Proximal Policy Optimization, Huang et al. 2022, detail 9.
#[inline(always)]
pub fn clipped_value_loss<F: Real>(
    value: F,
    old_value: F,
    target: F,
    clip: ValueClip<F>,
) -> ValueTerm<F> {
    let free = value_loss(value, target);
    let (ValueClip::Hold(eps) | ValueClip::Max(eps)) = clip else {
        return free;
    };
    let change = value - old_value;
    if change.abs() > eps {
        let bound = value_loss(old_value + change.clamp(-eps, eps), target).loss;
        if matches!(clip, ValueClip::Hold(_)) || bound > free.loss {
            return ValueTerm { loss: bound, d_value: F::ZERO };
        }
    }
    free
}

#[cfg(test)]
mod tests {
    use cordada_testkit::gradient::assert_gradient;

    use super::*;

    #[test]
    fn clipping_by_hand() {
        // V_old = 0, ε = 1. (V, R): Hold, Max.
        let cases = [
            // Inside: ½ (0.5 − 3)².
            (0.5, 3.0, (3.125, -2.5), (3.125, -2.5)),
            // Moved to the target: V_clip = 1, ½ (1 − 3)² against ½ (2 − 3)².
            (2.0, 3.0, (2.0, 0.0), (2.0, 0.0)),
            // Moved away from it: V_clip = −1, ½ (−1 − 3)² against ½ (−2 − 3)².
            (-2.0, 3.0, (8.0, 0.0), (12.5, -5.0)),
        ];
        for (value, target, hold, max) in cases {
            let term = |(loss, d_value)| ValueTerm { loss, d_value };
            let got = clipped_value_loss(value, 0.0, target, ValueClip::Hold(1.0));
            assert_eq!(got, term(hold), "hold, V = {value}");
            let got = clipped_value_loss(value, 0.0, target, ValueClip::Max(1.0));
            assert_eq!(got, term(max), "max, V = {value}");
        }
    }

    #[test]
    fn an_infinite_clip_is_none_bit_for_bit() {
        // Values for which V_old + (V − V_old) differs from V are common in `f32`.
        let mut differs = 0;
        for i in 0..1000_u16 {
            let x = f32::from(i);
            let (value, old_value, target) = ((0.37 * x).sin(), 3.0 * (1.7 * x).cos(), (x).sin());
            differs += u32::from(old_value + (value - old_value) != value);
            let off = clipped_value_loss(value, old_value, target, ValueClip::Off);
            assert_eq!(off, value_loss(value, target));
            for clip in [ValueClip::Hold(f32::INFINITY), ValueClip::Max(f32::INFINITY)] {
                assert_eq!(clipped_value_loss(value, old_value, target, clip), off);
            }
            for clip in [ValueClip::Hold(4.1), ValueClip::Max(4.1)] {
                assert_eq!(clipped_value_loss(value, old_value, target, clip), off);
            }
        }
        assert!(differs > 100, "the inputs do not show the defect this guards against");
    }

    #[test]
    fn d_value_is_the_derivative() {
        for value in [-2.0, -0.5, 0.3, 0.9, 1.7] {
            for target in [-1.2, 0.1, 0.75, 3.0] {
                for clip in [ValueClip::Off, ValueClip::Hold(0.7), ValueClip::Max(0.7)] {
                    let d = clipped_value_loss(value, 0.4, target, clip).d_value;
                    let what = format!("V = {value}, R = {target}, {clip:?}");
                    assert_gradient(&what, &[value], &[d], 1e-8, |x| {
                        clipped_value_loss(x[0], 0.4, target, clip).loss
                    });
                }
            }
        }
    }
}
