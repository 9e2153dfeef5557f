//! The logarithm of the gamma function and its first two derivatives, for positive arguments.
//!
//! lnΓ is that of `libm`. ψ and ψ' have no place there: they go up by their recurrence to an
//! argument where the asymptotic series is exact to the last digits,
//!
//! ```text
//! ψ(x)  = ψ(x + 1) − 1/x          ψ(x)  ~ ln x − 1/2x − Σ_k B_2k / (2k x^2k)
//! ψ'(x) = ψ'(x + 1) + 1/x²        ψ'(x) ~ 1/x + 1/2x² + Σ_k B_2k / x^(2k + 1)
//! ```
//!
//! ψ' is good to 10⁻¹⁵ of its value, and ψ to 2 · 10⁻¹⁵ of its own or, near its zero at 1.46, of 1. The
//! crate that has both would bring eleven others, and logarithms that differ between machines.
//!
//! # Source
//!
//! NIST Digital Library of Mathematical Functions, 5.5.2, 5.11.2, 5.15.5 and 5.15.8.

/// From here on, eight terms of either series are exact to 10⁻¹⁷.
const ASYMPTOTIC: f64 = 10.0;

/// The Bernoulli numbers B₂, B₄, … B₁₆.
const BERNOULLI: [f64; 8] = [
    1.0 / 6.0,
    -1.0 / 30.0,
    1.0 / 42.0,
    -1.0 / 30.0,
    5.0 / 66.0,
    -691.0 / 2730.0,
    7.0 / 6.0,
    -3617.0 / 510.0,
];

/// lnΓ(x), x > 0.
pub(super) fn ln_gamma(x: f64) -> f64 {
    libm::lgamma(x)
}

/// ψ(x) = d lnΓ(x) / dx, x > 0.
pub(super) fn digamma(mut x: f64) -> f64 {
    let mut below = 0.0;
    while x < ASYMPTOTIC {
        below += 1.0 / x;
        x += 1.0;
    }
    let square = 1.0 / (x * x);
    let mut sum = 0.0;
    for (k, b) in BERNOULLI.iter().enumerate().rev() {
        sum = (sum + b / (2 * k + 2) as f64) * square;
    }
    libm::log(x) - 0.5 / x - sum - below
}

/// ψ'(x), x > 0.
pub(super) fn trigamma(mut x: f64) -> f64 {
    let mut below = 0.0;
    while x < ASYMPTOTIC {
        below += 1.0 / (x * x);
        x += 1.0;
    }
    let square = 1.0 / (x * x);
    let mut sum = 0.0;
    for b in BERNOULLI.iter().rev() {
        sum = (sum + b) * square;
    }
    (1.0 + sum) / x + 0.5 * square + below
}

#[cfg(test)]
mod tests {
    use std::f64::consts::{LN_2, PI};

    use cordada_testkit::gradient::assert_gradient;

    use super::*;

    const EULER: f64 = 0.577_215_664_901_532_9;
    const CATALAN: f64 = 0.915_965_594_177_219;

    fn assert_relative(what: &str, got: f64, want: f64) {
        assert!((got - want).abs() <= 1e-13 * want.abs(), "{what}: {got:e}, expected {want:e}");
    }

    #[test]
    fn known_constants() {
        assert_relative("lnΓ(½)", ln_gamma(0.5), 0.5 * PI.ln());
        assert_relative("lnΓ(6)", ln_gamma(6.0), 120.0_f64.ln());
        assert_eq!((ln_gamma(1.0), ln_gamma(2.0)), (0.0, 0.0));
        assert_relative("ψ(1)", digamma(1.0), -EULER);
        assert_relative("ψ(½)", digamma(0.5), -EULER - 2.0 * LN_2);
        assert_relative("ψ(¼)", digamma(0.25), -EULER - 0.5 * PI - 3.0 * LN_2);
        assert_relative("ψ'(1)", trigamma(1.0), PI * PI / 6.0);
        assert_relative("ψ'(½)", trigamma(0.5), 0.5 * PI * PI);
        assert_relative("ψ'(¼)", trigamma(0.25), PI * PI + 8.0 * CATALAN);
        // Harmonic numbers: ψ(n + 1) = H_n − γ, ψ'(n + 1) = π²/6 − Σ 1/k², on both sides of where
        // the series begins.
        let (mut harmonic, mut squares) = (0.0, 0.0);
        for n in 1..40 {
            let n = f64::from(n);
            harmonic += 1.0 / n;
            squares += 1.0 / (n * n);
            assert_relative(&format!("ψ({n} + 1)"), digamma(n + 1.0), harmonic - EULER);
            let got = trigamma(n + 1.0);
            let want = PI * PI / 6.0 - squares;
            // The reference itself cancels.
            assert!((got - want).abs() < 2e-15, "ψ'({n} + 1): {got:e}, {want:e}");
        }
    }

    #[test]
    fn values_from_forty_digits() {
        // x, lnΓ, ψ, ψ': computed with forty digits, rounded.
        let table = [
            (1.5, -0.120_782_237_635_245_22, 0.036_489_973_978_576_52, 0.934_802_200_544_679_3),
            (3.7, 1.428_072_326_665_388, 1.167_153_539_361_511_3, 0.310_037_857_670_038_3),
            (7.25, 7.052_185_450_738_539_5, 1.910_453_526_883_736, 0.147_879_233_158_932_17),
            (9.5, 11.689_333_420_797_269, 2.197_737_876_402_949_4, 0.110_997_288_469_099_04),
            (10.0, 12.801_827_480_081_469, 2.251_752_589_066_721, 0.105_166_335_681_685_75),
            (42.0, 114.034_211_781_461_7, 3.725_717_617_937_282, 0.024_095_219_843_670_565),
            (1000.5, 5_908.674_175_848_678, 6.907_755_320_648_796, 9.999_999_166_666_958e-4),
            (1e6, 12_815_504.569_147_611, 13.815_510_057_964_191, 1.000_000_500_000_166_7e-6),
        ];
        for (x, by_ln_gamma, by_digamma, by_trigamma) in table {
            assert_relative(&format!("lnΓ({x})"), ln_gamma(x), by_ln_gamma);
            assert_relative(&format!("ψ'({x})"), trigamma(x), by_trigamma);
            let error = (digamma(x) - by_digamma).abs();
            assert!(error <= 1e-13 * by_digamma.max(0.1), "ψ({x}) is off by {error:e}");
        }
        // Between the last number below ψ's zero and that zero: 9.2 · 10⁻¹⁷ are left.
        assert!(digamma(1.461_632_144_968_362_3).abs() < 1e-15);
    }

    #[test]
    fn each_is_the_derivative_of_the_one_before() {
        for x in [0.3, 1.0, 1.46, 2.0, 5.5, 9.99, 10.01, 80.0] {
            assert_gradient("ψ", &[x], &[digamma(x)], 1e-8, |x| ln_gamma(x[0]));
            assert_gradient("ψ'", &[x], &[trigamma(x)], 1e-8, |x| digamma(x[0]));
        }
    }
}
