//! The Beta distribution's entropy, KL and Fisher matrix against integrals over its box, and its
//! samples against its moments. What holds for all families stands with the other identities.

use cordada_env::{Stream, role};
use cordada_rl::distribution::{Beta, Distribution};

fn assert_close(what: &str, got: &[f64], want: &[f64], tolerance: f64) {
    assert_eq!(got.len(), want.len(), "{what}: lengths");
    for (g, w) in got.iter().zip(want) {
        assert!((g - w).abs() <= tolerance * w.abs().max(1.0), "{what}: {g:e}, expected {w:e}");
    }
}

/// ∇ log π of an action of one component.
fn score(pi: &Distribution, params: &[f64; 2], action: f64) -> [f64; 2] {
    let mut d = [0.0; 2];
    pi.add_score(params, None, &[action], 1.0, &mut d);
    d
}

/// H = −E[log π], KL = E[log p − log q] and F v = E[∇ log π (∇ log π)ᵀ v], by the midpoint
/// rule in t, y = t² (3 − 2t), as the density has no derivatives at the bounds.
#[test]
fn entropy_kl_and_fisher_matrix_are_integrals() {
    let pi = Distribution::Beta(Beta::with_bounds(&[-0.5], &[2.5]));
    let (q, v) = ([0.9, -1.3], [0.7, -0.4]);
    for p in [[0.0, 0.0], [2.0, -0.7], [-0.8, 5.0]] {
        let steps = 40_000;
        let h = 1.0 / f64::from(steps);
        let (mut entropy, mut kl, mut fisher) = (0.0, 0.0, vec![0.0; 2]);
        for k in 0..steps {
            let t = h * (f64::from(k) + 0.5);
            let action = [-0.5 + 3.0 * t * t * (3.0 - 2.0 * t)];
            let log_prob = pi.log_prob(&p, None, &action);
            let weight = h * 18.0 * t * (1.0 - t) * log_prob.exp();
            entropy -= weight * log_prob;
            kl += weight * (log_prob - pi.log_prob(&q, None, &action));
            let score = score(&pi, &p, action[0]);
            let along = score[0] * v[0] + score[1] * v[1];
            fisher.iter_mut().zip(score).for_each(|(sum, s)| *sum += weight * s * along);
        }
        let mut product = vec![9.0; 2];
        pi.fisher_product(&p, None, &v, &mut product);
        let got = [pi.entropy(&p, None), pi.kl(&p, &q, None)];
        assert_close("H, KL", &got, &[entropy, kl], 1e-8);
        assert_close("F v", &product, &fisher, 1e-8);
        assert!(product.iter().all(|x| x.abs() > 1e-3), "a product of 0 shows nothing");
    }
}

/// Mean and variance of the samples in the unit interval, and the mean of ∇ log π, within 4 standard
/// errors.
#[test]
fn samples_have_their_moments() {
    let samples = 40_000;
    let count = f64::from(samples);
    let pi = Distribution::Beta(Beta::with_bounds(&[1.0], &[5.0]));
    for (index, params) in [[0.3, -0.5], [-6.0, 1.0], [3.0, 20.0]].into_iter().enumerate() {
        let [a, b] = params.map(|x: f64| 1.0 + x.exp().ln_1p());
        let mut stream = Stream::new(7, role::POLICY, index as u32);
        let (mut sum, mut squares, mut scores) = (0.0, 0.0, [0.0; 2]);
        let mean = a / (a + b);
        for _ in 0..samples {
            let mut action = [0.0_f64];
            pi.sample(&params, None, &mut stream, &mut action);
            let y = (action[0] - 1.0) / 4.0;
            sum += y;
            squares += (y - mean) * (y - mean);
            let score = score(&pi, &params, action[0]);
            scores.iter_mut().zip(score).for_each(|(sum, s)| *sum += s);
        }
        let variance = a * b / ((a + b) * (a + b) * (a + b + 1.0));
        let error = (variance / count).sqrt();
        assert!((sum / count - mean).abs() < 4.0 * error, "{params:?}: mean {}", sum / count);
        // No Beta above 1 has a kurtosis beyond that of the exponential distribution, 9.
        let error = variance * (8.0 / count).sqrt();
        let got = squares / count;
        assert!((got - variance).abs() < 4.0 * error, "{params:?}: variance {got}, {variance}");
        for (i, sum) in scores.iter().enumerate() {
            let (mut unit, mut product) = ([0.0; 2], [0.0; 2]);
            unit[i] = 1.0;
            pi.fisher_product(&params, None, &unit, &mut product);
            let error = (product[i] / count).sqrt();
            assert!((sum / count).abs() < 4.0 * error, "{params:?}: E[∇ log π] {scores:?}");
        }
    }
}
