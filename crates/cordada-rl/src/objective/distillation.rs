//! Distillation: a student's whole distribution of the next token against a teacher's.

use cordada_nn::Real;
use cordada_nn::kernel::Isa;
use cordada_nn::softmax::log_softmax;

use crate::distribution::expected;

/// log(eˣ + eʸ).
#[inline(always)]
fn log_add_exp<F: Real>(x: F, y: F) -> F {
    let (high, low) = if x < y { (y, x) } else { (x, y) };
    if high == F::NEG_INFINITY { high } else { high + (low - high).exp().ln_1p() }
}

/// Generalized Jensen-Shannon divergence of a teacher p and a student q at one position.
///
/// ```text
/// D = KL(p ‖ q)                               β = 0
///     KL(q ‖ p)                               β = 1
///     β KL(p ‖ m) + (1 − β) KL(q ‖ m)         else, m = β p + (1 − β) q
///
/// ∂D/∂l_i = q_i − p_i                         β = 0
///           q_i (g_i − Σ_j q_j g_j)           else, g = (1 − β) log(q/m), for β = 1 log(q/p)
/// ```
///
/// β = 0 covers all that the teacher says, β = 1 keeps to its main mode; the two ends are those of
/// D / (β (1 − β)), so D is not continuous there. Returns D in nats and writes `coef` · ∂D/∂l into
/// `d_student`, l the student's logits.
///
/// At a temperature τ, give logits divided by τ, and divide the gradient by τ.
///
/// # Shapes
///
/// `student`, `teacher` (logits), `d_student`: `[V]`.
///
/// # Panics
///
/// If the lengths differ or β lies outside [0, 1].
///
/// # Source
///
/// Agarwal et al. 2023, arXiv:2306.13649, eq. (1); the ends as in TRL.
pub fn generalized_jsd<F: Real>(
    student: &[F],
    teacher: &[F],
    beta: F,
    coef: F,
    d_student: &mut [F],
) -> F {
    assert_eq!(student.len(), teacher.len(), "student and teacher have different vocabularies");
    assert_eq!(student.len(), d_student.len(), "as many gradients as logits are needed");
    assert!(beta >= F::ZERO && beta <= F::ONE, "beta = {beta} is not in [0, 1]");
    let isa = Isa::detect();
    // The gradient's memory holds log q meanwhile; log p needs two numbers.
    log_softmax(isa, student, student.len(), d_student);
    let max = teacher.iter().fold(F::NEG_INFINITY, |max, &l| max.max(l));
    let log_sum = teacher.iter().map(|&l| (l - max).exp()).sum::<F>().ln();
    let log_p = |i: usize| (teacher[i] - max) - log_sum;
    if beta == F::ZERO {
        let mut divergence = F::ZERO;
        for (i, d) in d_student.iter_mut().enumerate() {
            let (p, q) = (log_p(i).exp(), d.exp());
            divergence += expected(p, log_p(i) - *d);
            *d = coef * (q - p);
        }
        return divergence;
    }
    let rest = F::ONE - beta;
    let (log_beta, log_rest) = (beta.ln(), rest.ln());
    // log m; p itself at β = 1.
    let log_mixture = |log_p: F, log_q: F| {
        if rest == F::ZERO { log_p } else { log_add_exp(log_p + log_beta, log_q + log_rest) }
    };
    let scale = if rest == F::ZERO { F::ONE } else { rest };
    let (mut of_teacher, mut of_student) = (F::ZERO, F::ZERO);
    for (i, &log_q) in d_student.iter().enumerate() {
        let log_m = log_mixture(log_p(i), log_q);
        of_teacher += expected(log_p(i).exp(), log_p(i) - log_m);
        of_student += expected(log_q.exp(), log_q - log_m);
    }
    for (i, d) in d_student.iter_mut().enumerate() {
        let log_m = log_mixture(log_p(i), *d);
        *d = coef * scale * expected(d.exp(), (*d - log_m) - of_student);
    }
    beta * of_teacher + scale * of_student
}

#[cfg(test)]
mod tests {
    use cordada_testkit::gradient::assert_gradient;

    use super::*;

    fn of(student: &[f64], teacher: &[f64], beta: f64) -> (f64, Vec<f64>) {
        let mut d = vec![9.0; student.len()];
        let divergence = generalized_jsd(student, teacher, beta, 1.0, &mut d);
        (divergence, d)
    }

    #[test]
    fn divergences_by_hand() {
        // Student ½, ½; teacher ¾, ¼; at β = ½ the mixture is 5/8, 3/8.
        let (student, teacher) = ([7.0, 7.0], [3.0_f64.ln(), 0.0]);
        let (a, b) = (0.75 * 1.5_f64.ln() + 0.25 * 0.5_f64.ln(), 0.5 * (4.0_f64 / 3.0).ln());
        assert!((of(&student, &teacher, 0.0).0 - a).abs() < 1e-15);
        assert!((of(&student, &teacher, 1.0).0 - b).abs() < 1e-15);
        let teacher_part = 0.75 * 1.2_f64.ln() + 0.25 * (2.0_f64 / 3.0).ln();
        let student_part = 0.5 * 0.8_f64.ln() + 0.5 * (4.0_f64 / 3.0).ln();
        let want = 0.5 * (teacher_part + student_part);
        assert!((of(&student, &teacher, 0.5).0 - want).abs() < 1e-15);
        // q − p.
        let d = of(&student, &teacher, 0.0).1;
        assert!((d[0] + 0.25).abs() < 1e-15 && (d[1] - 0.25).abs() < 1e-15, "{d:?}");
    }

    #[test]
    fn an_impossible_token_does_no_harm() {
        let none = f64::NEG_INFINITY;
        for beta in [0.0, 0.3, 1.0] {
            let (whole, d_whole) = of(&[0.5, -1.0], &[0.0, 1.0], beta);
            let (got, d) = of(&[0.5, none, -1.0], &[0.0, none, 1.0], beta);
            assert!((got - whole).abs() < 1e-15, "β = {beta}");
            assert_eq!(d, [d_whole[0], 0.0, d_whole[1]], "β = {beta}");
        }
        // One that only the teacher thinks possible costs ln 2 at most in the mixture.
        assert!(of(&[0.0, none], &[0.0, 0.0], 0.5).0 < std::f64::consts::LN_2);
        assert_eq!(of(&[0.0, none], &[0.0, 0.0], 0.0).0, f64::INFINITY);
    }

    #[test]
    fn gradients() {
        let (student, teacher) = ([0.3, -1.2, 2.0, 0.0, 0.7], [1.0, 0.1, -0.4, 2.2, 0.0]);
        for beta in [0.0, 0.1, 0.5, 0.9, 1.0] {
            let (_, d) = of(&student, &teacher, beta);
            assert_gradient(&format!("β = {beta}"), &student, &d, 1e-8, |s| {
                of(s, &teacher, beta).0
            });
            let mut scaled = [9.0; 5];
            generalized_jsd(&student, &teacher, beta, -2.0, &mut scaled);
            assert!(scaled.iter().zip(&d).all(|(s, d)| (s + 2.0 * d).abs() < 1e-15));
        }
    }

    #[test]
    #[should_panic(expected = "beta = 1.5 is not in [0, 1]")]
    fn refuses_a_weight_that_is_none() {
        of(&[0.0], &[0.0], 1.5);
    }
}
