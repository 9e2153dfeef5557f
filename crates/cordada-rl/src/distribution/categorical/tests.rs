//! The categorical distribution against numbers computed by hand.

use super::*;

/// Logits of the probabilities ¼, ½, ¼.
const LOGITS: [f64; 3] = [0.0, std::f64::consts::LN_2, 0.0];

fn assert_close(got: &[f64], want: &[f64]) {
    assert_eq!(got.len(), want.len());
    for (g, w) in got.iter().zip(want) {
        assert!((g - w).abs() < 1e-14, "{got:?}, expected {want:?}");
    }
}

#[test]
fn probabilities_by_hand() {
    // H = ½ ln 2 + ½ ln 4 = 1½ ln 2.
    let ln2 = std::f64::consts::LN_2;
    let (log_prob, entropy) = log_prob_entropy(&LOGITS, None, 2.0);
    assert_close(&[log_prob, entropy], &[-2.0 * ln2, 1.5 * ln2]);
    // ψ = 2, c = 4: 2 ([i = a] − π) − 4 π (log π + H), log π + H = −½ ln 2, ½ ln 2, −½ ln 2.
    let mut d = [1.0; 3];
    add_score_entropy(&LOGITS, None, (1.0, 2.0), 4.0, &mut d);
    assert_close(&d, &[0.5 + 0.5 * ln2, 2.0 - ln2, 0.5 + 0.5 * ln2]);
}

#[test]
fn a_mask_leaves_the_rest() {
    // Without the middle one: ½, ½. A NaN behind the mask is not read.
    let logits = [0.0, f64::NAN, 0.0];
    let mask = [true, false, true];
    let (log_prob, entropy) = log_prob_entropy(&logits, Some(&mask), 0.0);
    assert_close(&[log_prob, entropy], &[-(2.0_f64.ln()), 2.0_f64.ln()]);
    let mut d = [0.0; 3];
    add_score_entropy(&logits, Some(&mask), (0.0, 1.0), 0.3, &mut d);
    assert_close(&d, &[0.5, 0.0, -0.5]);
    assert_eq!(log_prob_entropy(&logits, Some(&mask), 1.0).0, f64::NEG_INFINITY);
}

#[test]
#[should_panic(expected = "a mask allows no action")]
fn a_mask_must_allow_something() {
    mode(&LOGITS, Some(&[false; 3]));
}

#[test]
fn the_mode_is_the_first_of_the_best_allowed() {
    let logits = [1.0, 2.0, 2.0, 3.0];
    assert_eq!(mode(&logits, None), 3);
    assert_eq!(mode(&logits, Some(&[true, true, true, false])), 1);
}

#[test]
fn impossible_actions_stay_finite() {
    let logits = [f32::NEG_INFINITY, 0.0, -1000.0];
    let (log_prob, entropy) = log_prob_entropy(&logits, None, 1.0);
    assert_eq!((log_prob, entropy), (0.0, 0.0));
    let mut d = [0.0; 3];
    add_score_entropy(&logits, None, (1.0, 1.0), 0.5, &mut d);
    assert_eq!(d, [0.0; 3]);
    assert_eq!(kl(&logits, &[0.0_f32; 3], None), 3.0_f32.ln());
}

#[test]
fn a_common_offset_costs_no_accuracy() {
    // Near 10⁶ neighbors of `f32` are 1/16 apart: −ln 2 survives only as a difference.
    let (log_prob, entropy) = log_prob_entropy(&[1e6_f32, 1e6], None, 0.0);
    assert!((log_prob + std::f32::consts::LN_2).abs() < 1e-6, "{log_prob}");
    assert!((entropy - std::f32::consts::LN_2).abs() < 1e-6, "{entropy}");
}

#[test]
fn not_a_number_is_passed_on() {
    let (log_prob, entropy) = log_prob_entropy(&[0.0_f32, f32::NAN], None, 0.0);
    assert!(log_prob.is_nan() && entropy.is_nan());
}

#[test]
fn inverse_cdf_by_hand() {
    for (u, want) in [(0.0, 0), (0.24, 0), (0.26, 1), (0.74, 1), (0.76, 2), (0.999, 2)] {
        assert_eq!(Categorical::inverse_cdf(&LOGITS, None, u), want, "u = {u}");
    }
    let mask = [false, true, false];
    assert_eq!(Categorical::inverse_cdf(&LOGITS, Some(&mask), 0.0), 1);
    // The last action has probability 0 even if rounding puts u beyond all sums.
    assert_eq!(Categorical::inverse_cdf(&[0.0_f32, -200.0], None, 1.0), 0);
    assert_eq!(Categorical::inverse_cdf(&[-200.0_f32, 0.0], None, 0.0), 1);
}
