//! Beta distributions by hand, against central differences, and at their ends.

use cordada_env::role;
use cordada_testkit::gradient::assert_gradient;

use super::*;

/// The x of which 1 + softplus is `shape`.
fn parameter(shape: f64) -> f64 {
    (shape - 1.0).exp_m1().ln()
}

#[test]
fn one_component_by_hand() {
    // Beta(2, 3) on (−1, 3): B = 1! 2! / 4! = 1/12. At a = 0, y = ¼: 12 · ¼ · (¾)² / 4 = 27/64.
    let beta = Beta::with_bounds(&[-1.0], &[3.0]);
    let params = [parameter(2.0), parameter(3.0)];
    let (log_prob, entropy) = beta.log_prob_entropy(&params, None, &[0.0]);
    assert!((log_prob - (27.0_f64 / 64.0).ln()).abs() < 1e-14, "{log_prob}");
    // ψ(2), ψ(3), ψ(5) are 1, 3/2, 25/12 less γ: H = ln 4/12 − 1 − 2 · 3/2 + 3 · 25/12.
    let want = (4.0_f64 / 12.0).ln() + 2.25;
    assert!((entropy - want).abs() < 1e-14, "{entropy}, expected {want}");
    // ∂ log π / ∂α = ln ¼ − ψ(2) + ψ(5) = 13/12 − ln 4; dα/dx = 1 − e⁻¹, as softplus(x) = 1.
    let mut d = [0.0; 2];
    beta.add_score_entropy(&params, None, (&[0.0], 1.0), 0.0, &mut d);
    let slope = 1.0 - (-1.0_f64).exp();
    let want = (13.0 / 12.0 - 4.0_f64.ln()) * slope;
    assert!((d[0] - want).abs() < 1e-14, "{}, expected {want}", d[0]);
    // KL to the uniform distribution: the difference of the entropies, −9/4 − ln 1/12.
    let kl = beta.kl(&params, &[-800.0, -800.0], None);
    assert!((kl - (12.0_f64.ln() - 2.25)).abs() < 1e-14, "{kl}");
    // The mode is at 1/3 of the width; with α and β exchanged, at 2/3.
    let mut mode = [0.0];
    beta.mode(&params, None, &mut mode);
    assert!((mode[0] - 1.0 / 3.0).abs() < 1e-14);
    beta.mode(&[params[1], params[0]], None, &mut mode);
    assert!((mode[0] - 5.0 / 3.0).abs() < 1e-14);
}

const P: [f64; 6] = [0.3, -1.2, 2.0, 0.0, -0.4, 9.0];
const Q: [f64; 6] = [-0.6, 0.4, 0.9, -1.5, 0.2, 0.8];

fn three() -> Beta {
    Beta::with_bounds(&[-2.0, -1.0, 0.0], &[1.0, 0.0, 5.0])
}

#[test]
fn score_and_entropy_gradient_are_derivatives() {
    let (beta, action) = (three(), [0.9, -0.2, 0.01]);
    // They add to what is there: 1 in each component, the derivative of Σ x.
    let mut d = [1.0; 6];
    beta.add_score_entropy(&P, None, (&action, -1.7), 0.6, &mut d);
    assert_gradient("score and entropy", &P, &d, 1e-7, |x| {
        let (log_prob, entropy) = beta.log_prob_entropy(x, None, &action);
        -1.7 * log_prob + 0.6 * entropy + x.iter().sum::<f64>()
    });
    let mut d = [0.0; 6];
    beta.add_score_entropy(&P, None, (&action, 1.3), 0.0, &mut d);
    assert_gradient("score", &P, &d, 1e-7, |x| 1.3 * beta.log_prob(x, None, &action));
}

#[test]
fn kl_gradients_are_derivatives_and_the_fisher_matrix_is_the_hessian() {
    let beta = three();
    let (mut d_p, mut d_q) = ([0.0; 6], [0.0; 6]);
    beta.add_kl_gradient_p(&P, &Q, None, 0.8, &mut d_p);
    beta.add_kl_gradient_q(&P, &Q, None, 0.8, &mut d_q);
    assert_gradient("p", &P, &d_p, 1e-7, |x| 0.8 * beta.kl(x, &Q, None));
    assert_gradient("q", &Q, &d_q, 1e-7, |x| 0.8 * beta.kl(&P, x, None));
    // F v is the derivative at x = p of vᵀ ∇_q KL(p ‖ x), as F is symmetric.
    let mut product = [9.0; 6];
    beta.fisher_product(&P, None, &Q, &mut product);
    assert_gradient("Fisher", &P, &product, 1e-7, |x| {
        let mut d = [0.0; 6];
        beta.add_kl_gradient_q(&P, x, None, 1.0, &mut d);
        d.iter().zip(&Q).map(|(d, v)| d * v).sum()
    });
}

#[test]
fn the_edge_of_the_box_and_beyond_is_finite() {
    let beta = Beta::with_bounds(&[-1.0, -1.0], &[1.0, 1.0]);
    let at_edge = beta.log_prob(&[0.0_f32; 4], None, &[1.0, -1.0]);
    // α = β = 1 + ln 2, at y = 2⁻²⁴: the density is y^ln 2 / B on either side, and half that in a.
    let shape = 1.0 + 2.0_f64.ln();
    let log_beta = 2.0 * ln_gamma(shape) - ln_gamma(2.0 * shape);
    let one = 2.0_f64.ln() * (-24.0 * 2.0_f64.ln()) - log_beta - 2.0_f64.ln();
    assert!((f64::from(at_edge) - 2.0 * one).abs() < 1e-5, "{at_edge}, {}", 2.0 * one);
    assert_eq!(beta.log_prob(&[0.0_f32; 4], None, &[1.5, -7.0]), at_edge);
    let mut d = [0.0_f64; 4];
    beta.add_score_entropy(&[0.0; 4], None, (&[1.0, -1.0], 1.0), 0.1, &mut d);
    assert!(d.iter().all(|d| d.is_finite()), "{d:?}");
    assert!(beta.log_prob(&[0.0_f64; 4], None, &[1.0, -1.0]).is_finite());
}

#[test]
fn extreme_parameters_are_uniform_or_a_point() {
    let beta = Beta::with_bounds(&[-1.0], &[3.0]);
    let mut stream = Stream::new(3, role::POLICY, 0);
    let (uniform, point) = ([-900.0_f32; 2], [1e12_f32; 2]);
    assert_eq!(beta.log_prob(&uniform, None, &[2.9]), -(4.0_f32.ln()));
    assert_eq!(beta.entropy(&uniform, None), 4.0_f32.ln());
    let mut action = [0.0];
    beta.mode(&uniform, None, &mut action);
    assert_eq!(action, [1.0]);
    beta.sample(&point, None, &mut stream, &mut action);
    assert!((action[0] - 1.0).abs() < 1e-4, "{action:?}");
    // A component that is certain of an edge stays inside.
    for params in [[-900.0_f32, 1e12], [1e12, -900.0], [30.0, 1e30]] {
        beta.sample(&params, None, &mut stream, &mut action);
        assert!((-1.0..=3.0).contains(&action[0]), "{params:?}: {action:?}");
        assert!(beta.log_prob(&params, None, &action).is_finite());
    }
    // What is no number gives none, and ends.
    for params in [[f32::NAN, 0.0], [0.0, f32::INFINITY]] {
        beta.sample(&params, None, &mut stream, &mut action);
        assert!(action[0].is_nan());
    }
}

#[test]
fn gamma_numbers_have_their_moments() {
    let samples = 40_000;
    for (index, shape) in [1.0, 1.3, 4.0, 250.0].into_iter().enumerate() {
        let mut stream = Stream::new(5, role::POLICY, index as u32);
        let (mut sum, mut squares) = (0.0, 0.0);
        for _ in 0..samples {
            let x = gamma(shape, &mut stream);
            assert!(x >= 0.0);
            sum += x;
            squares += (x - shape) * (x - shape);
        }
        // Mean and variance are the shape; the kurtosis is 3 + 6 / shape. Four standard errors.
        let count = f64::from(samples);
        let error = 4.0 * (shape / count).sqrt();
        assert!((sum / count - shape).abs() < error, "{shape}: mean {}", sum / count);
        let error = 4.0 * shape * ((2.0 + 6.0 / shape) / count).sqrt();
        assert!((squares / count - shape).abs() < error, "{shape}: {}", squares / count);
    }
}
