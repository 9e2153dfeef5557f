//! The angular frequencies of rotary positions, with their stretchings.

use std::f64::consts::TAU;

use crate::config::RopeScaling;

/// ω of every pair of a head, and the factor of rotated queries and keys.
///
/// # Source
///
/// ω_i = base^(−2 i / D): Su et al. 2021, arXiv:2104.09864, section 3.2.2. Linear: Chen et al.
/// 2023, arXiv:2306.15595. Llama 3: Grattafiori et al. 2024, arXiv:2407.21783, with the blend of
/// the published code. YaRN: Peng et al. 2023, arXiv:2309.00071, eqs. (17) to (23).
pub(super) fn frequencies(base: f64, scaling: &RopeScaling, head_dim: usize) -> (Vec<f64>, f64) {
    let half = head_dim / 2;
    let plain = (0..half).map(|i| libm::pow(base, -2.0 * i as f64 / head_dim as f64));
    match *scaling {
        RopeScaling::Default => (plain.collect(), 1.0),
        RopeScaling::Linear { factor } => (plain.map(|w| w / factor).collect(), 1.0),
        RopeScaling::Llama3 {
            factor,
            low_freq_factor,
            high_freq_factor,
            original_max_positions,
        } => {
            let stretched = |w: f64| {
                // Turns within the first training's length.
                let turns = original_max_positions as f64 * w / TAU;
                let keep = (turns - low_freq_factor) / (high_freq_factor - low_freq_factor);
                blend(w / factor, w, keep.clamp(0.0, 1.0))
            };
            (plain.map(stretched).collect(), 1.0)
        }
        RopeScaling::Yarn {
            factor,
            beta_fast,
            beta_slow,
            attention_factor,
            original_max_positions,
        } => {
            // The pair (a real number) that turns `turns` times within that length.
            let pair = |turns: f64| {
                let length = original_max_positions as f64;
                head_dim as f64 * libm::log(length / (turns * TAU)) / (2.0 * libm::log(base))
            };
            let low = pair(beta_fast).floor().max(0.0);
            let high = pair(beta_slow).ceil().min(head_dim as f64 - 1.0);
            // As in the published code: no division by zero where both meet.
            let high = if high == low { high + 0.001 } else { high };
            let stretched = |(i, w): (usize, f64)| {
                let ramp = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
                blend(w / factor, w, 1.0 - ramp)
            };
            (plain.enumerate().map(stretched).collect(), attention_factor)
        }
    }
}

/// `(1 − t) a + t b`
fn blend(a: f64, b: f64, t: f64) -> f64 {
    (1.0 - t) * a + t * b
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frequencies_by_hand() {
        let (w, factor) = frequencies(10_000.0, &RopeScaling::Default, 4);
        assert_eq!((w, factor), (vec![1.0, 0.01], 1.0));
        let (w, _) = frequencies(10_000.0, &RopeScaling::Linear { factor: 4.0 }, 4);
        assert_eq!(w, [0.25, 0.0025]);
    }

    #[test]
    fn llama3_keeps_short_waves_and_stretches_long_ones() {
        // Length 2π · 100: ω = 1 turns 100 times, 0.1 ten times, 0.01 once; kept from 16 turns on,
        // stretched below 4, half way at 10.
        let scaling = RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 4.0,
            high_freq_factor: 16.0,
            original_max_positions: 628,
        };
        let (w, _) = frequencies(1000.0, &scaling, 6);
        assert_eq!(w[0], 1.0);
        assert!((w[1] - 0.5 * (0.1 + 0.1 / 8.0)).abs() < 1e-4, "{w:?}");
        assert!((w[2] - 0.01 / 8.0).abs() < 1e-15, "{w:?}");
    }

    #[test]
    fn yarn_keeps_fast_pairs_and_stretches_slow_ones() {
        let scaling = RopeScaling::Yarn {
            factor: 4.0,
            beta_fast: 32.0,
            beta_slow: 1.0,
            attention_factor: 1.1,
            original_max_positions: 2048,
        };
        let (plain, _) = frequencies(10_000.0, &RopeScaling::Default, 64);
        let (w, factor) = frequencies(10_000.0, &scaling, 64);
        assert_eq!(factor, 1.1);
        assert_eq!(w[0], plain[0]);
        assert_eq!(w[31], plain[31] / 4.0);
        // D ln(L / (2π turns)) / (2 ln base): 32 turns at pair 8.06, one at 20.1.
        assert_eq!(w[8], plain[8]);
        assert!(w[9] < plain[9] && w[20] > plain[20] / 4.0 && w[21] == plain[21] / 4.0);
    }
}
