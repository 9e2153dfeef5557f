//! Gradients of all families against central differences.

use cordada_testkit::gradient::assert_gradient;

use super::{
    Bernoulli, Categorical, DiagGaussian, Distribution, MultiCategorical, SquashedGaussian,
};

const MASK: [bool; 6] = [true, false, true, true, true, false];

/// A family with two rows of parameters, a mask, and an action.
struct Example {
    pi: Distribution,
    p: Vec<f64>,
    q: Vec<f64>,
    mask: Option<&'static [bool]>,
    action: Vec<f64>,
}

fn examples() -> Vec<Example> {
    let six = ([0.3, -1.2, 2.0, 0.0, -0.4, 1.1], [-0.6, 0.4, 0.9, -1.5, 0.2, 0.8]);
    let example = |pi, mask, action: &[f64]| {
        let (p, q) = (six.0.to_vec(), six.1.to_vec());
        Example { pi, p, q, mask, action: action.to_vec() }
    };
    let choice = || Distribution::Categorical(Categorical::new(6));
    let choices = || Distribution::MultiCategorical(MultiCategorical::new(&[2, 4]));
    let bounds = SquashedGaussian::with_bounds(&[-2.0, -1.0, 0.0], &[1.0, 0.0, 5.0]);
    vec![
        example(choice(), None, &[1.0]),
        example(choice(), Some(&MASK), &[4.0]),
        example(choices(), None, &[1.0, 2.0]),
        example(choices(), Some(&MASK), &[0.0, 2.0]),
        example(Distribution::Bernoulli(Bernoulli::new(6)), None, &[1.0, 0.0, 0.0, 1.0, 1.0, 0.0]),
        example(Distribution::DiagGaussian(DiagGaussian::new(3)), None, &[0.9, -3.0, 1.0]),
        example(
            Distribution::SquashedGaussian(SquashedGaussian::new(3)),
            None,
            &[0.9, -0.2, 0.999],
        ),
        example(Distribution::SquashedGaussian(bounds), None, &[0.9, -0.2, 0.01]),
    ]
}

#[test]
fn scores_are_derivatives_of_log_prob() {
    for Example { pi, p, mask, action, .. } in examples() {
        let mut d = vec![0.0; p.len()];
        pi.add_score(&p, mask, &action, -1.7, &mut d);
        let f = |x: &[f64]| -1.7 * pi.log_prob(x, mask, &action);
        assert_gradient(&format!("{pi:?}"), &p, &d, 1e-7, f);
    }
}

#[test]
fn entropy_gradients_are_derivatives_of_the_entropy() {
    for Example { pi, p, mask, .. } in examples() {
        let mut d = vec![0.0; p.len()];
        pi.add_entropy_gradient(&p, mask, 0.6, &mut d);
        assert_gradient(&format!("{pi:?}"), &p, &d, 1e-7, |x| 0.6 * pi.entropy(x, mask));
    }
}

#[test]
fn fused_gradients_are_sums() {
    for Example { pi, p, mask, action, .. } in examples() {
        // They add to what is there: 1 in each component, the derivative of Σ x.
        let mut d = vec![1.0; p.len()];
        pi.add_score_entropy(&p, mask, &action, 2.3, 0.4, &mut d);
        assert_gradient(&format!("{pi:?}"), &p, &d, 1e-7, |x| {
            let (log_prob, entropy) = pi.log_prob_entropy(x, mask, &action);
            2.3 * log_prob + 0.4 * entropy + x.iter().sum::<f64>()
        });
    }
}

#[test]
fn kl_gradients_are_derivatives_of_the_kl() {
    for Example { pi, p, q, mask, .. } in examples() {
        let (mut d_p, mut d_q) = (vec![0.0; p.len()], vec![0.0; q.len()]);
        pi.add_kl_gradient_p(&p, &q, mask, 0.8, &mut d_p);
        pi.add_kl_gradient_q(&p, &q, mask, 0.8, &mut d_q);
        assert_gradient(&format!("{pi:?}, p"), &p, &d_p, 1e-7, |x| 0.8 * pi.kl(x, &q, mask));
        assert_gradient(&format!("{pi:?}, q"), &q, &d_q, 1e-7, |x| 0.8 * pi.kl(&p, x, mask));
    }
}

#[test]
fn the_fisher_matrix_is_the_hessian_of_the_kl() {
    // F v is the derivative at x = p of vᵀ ∇_q KL(p ‖ x), as F is symmetric.
    for Example { pi, p, q: v, mask, .. } in examples() {
        let mut product = vec![9.0; p.len()];
        pi.fisher_product(&p, mask, &v, &mut product);
        assert_gradient(&format!("{pi:?}"), &p, &product, 1e-7, |x| {
            let mut d = vec![0.0; x.len()];
            pi.add_kl_gradient_q(&p, x, mask, 1.0, &mut d);
            d.iter().zip(&v).map(|(d, v)| d * v).sum()
        });
    }
}

#[test]
fn reparametrized_gradients_are_derivatives_through_the_sample() {
    let params = [0.3, -1.2, 2.0, 0.0, -0.4, 0.5];
    let (noise, weight) = ([0.7, -1.9, 0.2], [1.3, -0.8, 0.5]);
    let value = |log_prob: f64, action: &[f64]| {
        1.6 * log_prob + action.iter().zip(&weight).map(|(a, w)| a * w).sum::<f64>()
    };
    let mut d = [0.0; 6];
    let gaussian = DiagGaussian::new(3);
    gaussian.add_reparametrized_gradient(&params, &noise, &weight, 1.6, &mut d);
    assert_gradient("Gaussian", &params, &d, 1e-7, |x| {
        let mut action = [0.0; 3];
        let log_prob = gaussian.reparametrize(x, &noise, &mut action);
        value(log_prob, &action)
    });
    let mut d = [0.0; 6];
    let squashed = SquashedGaussian::with_bounds(&[-2.0, -1.0, 0.0], &[1.0, 0.0, 5.0]);
    squashed.add_reparametrized_gradient(&params, &noise, &weight, 1.6, &mut d);
    assert_gradient("squashed", &params, &d, 1e-7, |x| {
        let mut action = [0.0; 3];
        let log_prob = squashed.reparametrize(x, &noise, &mut action);
        value(log_prob, &action)
    });
}
