//! `exp`, `ln` and `tanh` of `f32` in branch-free arithmetic, so that loops over them vectorize and
//! every machine gives the same bits.

/// eˣ within 2 units in the last place; 0 below −87.33 (no subnormal results), ∞ above 88.37, NaN
/// for NaN.
///
/// ```text
/// eˣ = 2ⁿ eʳ,   n = round(x / ln 2),   r = x − n ln 2 ∈ [−½ ln 2, ½ ln 2]
/// ```
///
/// # Source
///
/// The polynomial for eʳ is that of the Cephes library's `expf` (Moshier 1989).
#[inline(always)]
pub fn exp_f32(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 · 2²³: adding it leaves round(x) in the low bits
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    const LOW: f32 = -87.33;
    const HIGH: f32 = 88.37;
    // Comparisons that keep NaN.
    let limited = if x < LOW { LOW } else { x };
    let limited = if limited > HIGH { HIGH } else { limited };
    let shifted = limited.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-LN2_LOW, n.mul_add(-LN2_HIGH, limited));
    let p = 1.987_569_1e-4_f32;
    let p = p.mul_add(r, 1.398_199_9e-3);
    let p = p.mul_add(r, 8.333_452e-3);
    let p = p.mul_add(r, 4.166_579_6e-2);
    let p = p.mul_add(r, 1.666_666_5e-1);
    let p = p.mul_add(r, 0.5);
    let e = p.mul_add(r * r, r) + 1.0;
    let scale = f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3f80_0000));
    let y = e * scale;
    let y = if x < LOW { 0.0 } else { y };
    if x > HIGH { f32::INFINITY } else { y }
}

/// ln x within 3 units in the last place; −∞ for 0 and subnormal numbers, NaN below 0.
///
/// ```text
/// ln x = e ln 2 + ln m,   x = 2ᵉ m,   m ∈ [√½, √2)
/// ```
///
/// # Source
///
/// The polynomial for ln m is that of the Cephes library's `logf` (Moshier 1989).
#[inline(always)]
pub fn ln_f32(x: f32) -> f32 {
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    const SQRT_HALF: u32 = 0x3f35_04f3;
    // Shifting by √½ makes the exponent's carry choose m's range.
    let shifted = x.to_bits().wrapping_sub(SQRT_HALF);
    let e = ((shifted as i32) >> 23) as f32;
    let m = f32::from_bits((shifted & 0x007f_ffff).wrapping_add(SQRT_HALF)) - 1.0;
    let p = 7.037_683_6e-2_f32;
    let p = p.mul_add(m, -1.151_461e-1);
    let p = p.mul_add(m, 1.167_699_87e-1);
    let p = p.mul_add(m, -1.242_014_1e-1);
    let p = p.mul_add(m, 1.424_932_3e-1);
    let p = p.mul_add(m, -1.666_805_8e-1);
    let p = p.mul_add(m, 2.000_071_5e-1);
    let p = p.mul_add(m, -2.499_999_4e-1);
    let p = p.mul_add(m, 3.333_333e-1);
    let m2 = m * m;
    let y = (p * m2).mul_add(m, e * LN2_LOW);
    let y = m2.mul_add(-0.5, y) + m;
    let y = e.mul_add(LN2_HIGH, y);
    let y = if x < f32::MIN_POSITIVE { f32::NEG_INFINITY } else { y };
    let y = if x == f32::INFINITY { x } else { y };
    if x < 0.0 || x.is_nan() { f32::NAN } else { y }
}

/// tanh x within 3.5e-7, never beyond ±1, NaN for NaN.
///
/// ```text
/// tanh x ≈ x P(x²) / Q(x²),   |x| limited to 7.905
/// ```
///
/// # Source
///
/// The 13/6 rational approximation of the Eigen library.
#[inline(always)]
pub fn tanh_f32(x: f32) -> f32 {
    const LIMIT: f32 = 7.905_311;
    let x = if x > LIMIT { LIMIT } else { x };
    let x = if x < -LIMIT { -LIMIT } else { x };
    let x2 = x * x;
    let p = -2.760_768_5e-16_f32;
    let p = p.mul_add(x2, 2.000_188e-13);
    let p = p.mul_add(x2, -8.604_672e-11);
    let p = p.mul_add(x2, 5.122_297e-8);
    let p = p.mul_add(x2, 1.485_722_3e-5);
    let p = p.mul_add(x2, 6.372_619_5e-4);
    let p = p.mul_add(x2, 4.893_524_6e-3);
    let q = 1.198_258_4e-6_f32;
    let q = q.mul_add(x2, 1.185_347_1e-4);
    let q = q.mul_add(x2, 2.268_434_6e-3);
    let q = q.mul_add(x2, 4.893_525e-3);
    x * p * reciprocal_f32(q)
}

/// 1 / x within 1 unit in the last place for x from 2⁻¹²⁶ to 2¹²⁵.
///
/// A guess from the exponent's bits (error 12 %), then two steps r ← r (1 + e + e²) with
/// e = 1 − x r, whose error falls as e³. Unlike a processor's reciprocal instruction it gives the
/// same bits everywhere, and unlike a division it does not block the divider.
#[inline(always)]
pub fn reciprocal_f32(x: f32) -> f32 {
    let r = f32::from_bits(0x7ef3_11c3_u32.wrapping_sub(x.to_bits()));
    let e = (-x).mul_add(r, 1.0);
    let r = e.mul_add(e, e).mul_add(r, r);
    let e = (-x).mul_add(r, 1.0);
    e.mul_add(e, e).mul_add(r, r)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_within_two_units() {
        let mut worst = 0.0_f64;
        for i in -870_000..883_000 {
            let x = i as f32 * 1e-4;
            let want = f64::from(x).exp();
            let error = (f64::from(exp_f32(x)) - want).abs() / want;
            worst = worst.max(error);
        }
        assert!(worst < 2.0 * f64::from(f32::EPSILON), "relative error {worst:e}");
    }

    #[test]
    fn exp_keeps_its_special_values() {
        assert_eq!(exp_f32(0.0), 1.0);
        assert_eq!(exp_f32(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp_f32(-1e8), 0.0);
        assert_eq!(exp_f32(f32::INFINITY), f32::INFINITY);
        assert!(exp_f32(f32::NAN).is_nan());
    }

    #[test]
    fn ln_is_within_three_units() {
        let mut worst = 0.0_f64;
        for i in 1..2_000_000_u32 {
            // All exponents, and closely around 1.
            for x in [f32::from_bits(i * 1000 + 0x0080_0000), 0.5 + i as f32 * 1e-6] {
                let want = f64::from(x).ln();
                let unit = f64::from(f32::EPSILON) * want.abs().max(f64::from(f32::MIN_POSITIVE));
                worst = worst.max((f64::from(ln_f32(x)) - want).abs() / unit);
            }
        }
        assert!(worst < 3.0, "{worst} units");
    }

    #[test]
    fn ln_keeps_its_special_values() {
        assert_eq!(ln_f32(1.0), 0.0);
        assert_eq!(ln_f32(0.0), f32::NEG_INFINITY);
        assert_eq!(ln_f32(f32::INFINITY), f32::INFINITY);
        assert!(ln_f32(-1.0).is_nan() && ln_f32(f32::NAN).is_nan());
    }

    #[test]
    fn reciprocal_is_within_one_unit() {
        let mut worst = 0.0_f64;
        for exponent in -126..125 {
            for i in 0..2000 {
                let x = (1.0 + i as f32 / 2000.0) * 2.0_f32.powi(exponent);
                let want = 1.0 / f64::from(x);
                worst = worst.max((f64::from(reciprocal_f32(x)) - want).abs() / want);
            }
        }
        assert!(worst < f64::from(f32::EPSILON), "relative error {worst:e}");
    }

    #[test]
    fn tanh_is_close_and_bounded() {
        let mut worst = 0.0_f64;
        for i in -1_200_000..=1_200_000 {
            let x = i as f32 * 1e-5;
            let y = tanh_f32(x);
            assert!(y.abs() <= 1.0, "tanh({x}) = {y}");
            worst = worst.max((f64::from(y) - f64::from(x).tanh()).abs());
        }
        assert!(worst < 3.5e-7, "error {worst:e}");
        assert_eq!(tanh_f32(0.0), 0.0);
        assert!(tanh_f32(f32::NAN).is_nan());
        assert!((tanh_f32(f32::INFINITY) - 1.0).abs() < 3e-7);
    }
}
