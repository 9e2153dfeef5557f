//! Several independent choices, each with its own block of logits; sums of
//! [`Categorical`](super::Categorical) over the blocks.

use cordada_env::Stream;
use cordada_nn::Real;

use super::categorical;
use super::family::{Family, Mask};

/// Independent choices among n₁, n₂, … actions, from consecutive blocks of logits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MultiCategorical {
    num_actions: Vec<usize>,
    num_params: usize,
}

impl MultiCategorical {
    /// One choice for each entry of `num_actions`.
    ///
    /// # Panics
    ///
    /// If there is no choice, or one without an action.
    pub fn new(num_actions: &[usize]) -> Self {
        assert!(!num_actions.is_empty(), "a choice is needed");
        assert!(!num_actions.contains(&0), "each of the choices {num_actions:?} needs an action");
        Self { num_actions: num_actions.to_vec(), num_params: num_actions.iter().sum() }
    }

    /// The number of each choice with the range of its logits.
    #[inline(always)]
    fn blocks(&self) -> impl Iterator<Item = (usize, std::ops::Range<usize>)> {
        let mut end = 0;
        self.num_actions.iter().enumerate().map(move |(block, &len)| {
            end += len;
            (block, end - len..end)
        })
    }
}

/// The part of a mask that belongs to one block.
#[inline(always)]
fn part<'a>(mask: Mask<'a>, range: &std::ops::Range<usize>) -> Mask<'a> {
    mask.map(|mask| &mask[range.clone()])
}

impl Family for MultiCategorical {
    #[inline(always)]
    fn num_params(&self) -> usize {
        self.num_params
    }
    #[inline(always)]
    fn action_len(&self) -> usize {
        self.num_actions.len()
    }
    #[inline(always)]
    fn mask_len(&self) -> usize {
        self.num_params
    }
    #[inline(always)]
    fn log_prob<F: Real>(&self, params: &[F], mask: Mask<'_>, action: &[F]) -> F {
        self.log_prob_entropy(params, mask, action).0
    }
    fn entropy<F: Real>(&self, params: &[F], mask: Mask<'_>) -> F {
        self.blocks().map(|(_, r)| categorical::entropy(&params[r.clone()], part(mask, &r))).sum()
    }
    #[inline(always)]
    fn log_prob_entropy<F: Real>(&self, params: &[F], mask: Mask<'_>, action: &[F]) -> (F, F) {
        let mut sums = (F::ZERO, F::ZERO);
        for (block, r) in self.blocks() {
            let mask = part(mask, &r);
            let (log_prob, entropy) =
                categorical::log_prob_entropy(&params[r], mask, action[block]);
            sums.0 += log_prob;
            sums.1 += entropy;
        }
        sums
    }
    #[inline(always)]
    fn add_score_entropy<F: Real>(
        &self,
        params: &[F],
        mask: Mask<'_>,
        (action, psi): (&[F], F),
        entropy_coef: F,
        d_params: &mut [F],
    ) {
        for (block, r) in self.blocks() {
            let (mask, d) = (part(mask, &r), &mut d_params[r.clone()]);
            categorical::add_score_entropy(&params[r], mask, (action[block], psi), entropy_coef, d);
        }
    }
    fn add_entropy_gradient<F: Real>(
        &self,
        params: &[F],
        mask: Mask<'_>,
        coef: F,
        d_params: &mut [F],
    ) {
        for (_, r) in self.blocks() {
            let (mask, d) = (part(mask, &r), &mut d_params[r.clone()]);
            categorical::add_entropy_gradient(&params[r], mask, coef, d);
        }
    }
    #[inline(always)]
    fn kl<F: Real>(&self, p: &[F], q: &[F], mask: Mask<'_>) -> F {
        self.blocks()
            .map(|(_, r)| categorical::kl(&p[r.clone()], &q[r.clone()], part(mask, &r)))
            .sum()
    }
    fn add_kl_gradient_p<F: Real>(&self, p: &[F], q: &[F], mask: Mask<'_>, coef: F, d_p: &mut [F]) {
        for (_, r) in self.blocks() {
            let (p, q, mask) = (&p[r.clone()], &q[r.clone()], part(mask, &r));
            categorical::add_kl_gradient_p(p, q, mask, coef, &mut d_p[r]);
        }
    }
    fn add_kl_gradient_q<F: Real>(&self, p: &[F], q: &[F], mask: Mask<'_>, coef: F, d_q: &mut [F]) {
        for (_, r) in self.blocks() {
            let (p, q, mask) = (&p[r.clone()], &q[r.clone()], part(mask, &r));
            categorical::add_kl_gradient_q(p, q, mask, coef, &mut d_q[r]);
        }
    }
    #[inline(always)]
    fn fisher_product<F: Real>(&self, params: &[F], mask: Mask<'_>, v: &[F], out: &mut [F]) {
        for (_, r) in self.blocks() {
            let (params, mask) = (&params[r.clone()], part(mask, &r));
            categorical::fisher_product(params, mask, &v[r.clone()], &mut out[r]);
        }
    }
    fn sample<F: Real>(&self, params: &[F], mask: Mask<'_>, stream: &mut Stream, action: &mut [F]) {
        for (block, r) in self.blocks() {
            let (logits, mask) = (&params[r.clone()], part(mask, &r));
            let chosen = super::Categorical::inverse_cdf(logits, mask, stream.uniform());
            action[block] = F::of(chosen as f64);
        }
    }
    fn mode<F: Real>(&self, params: &[F], mask: Mask<'_>, action: &mut [F]) {
        for (block, r) in self.blocks() {
            let mask = part(mask, &r);
            action[block] = F::of(categorical::mode(&params[r], mask) as f64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_follow_each_other() {
        let choices = MultiCategorical::new(&[3, 2, 4]);
        let blocks: Vec<_> = choices.blocks().collect();
        assert_eq!(blocks, [(0, 0..3), (1, 3..5), (2, 5..9)]);
        assert_eq!((choices.num_params(), choices.action_len(), choices.mask_len()), (9, 3, 9));
    }

    #[test]
    fn log_probabilities_add_up_by_hand() {
        // Uniform over 3 and over 2: −ln 6, entropy ln 6. Forbidding one of the 3: −ln 4.
        let choices = MultiCategorical::new(&[3, 2]);
        let (log_prob, entropy) = choices.log_prob_entropy(&[0.0_f64; 5], None, &[2.0, 1.0]);
        assert!((log_prob + 6.0_f64.ln()).abs() < 1e-14 && (entropy + log_prob).abs() < 1e-14);
        let mask = [false, true, true, true, true];
        let log_prob = choices.log_prob(&[0.0_f64; 5], Some(&mask), &[2.0, 1.0]);
        assert!((log_prob + 4.0_f64.ln()).abs() < 1e-14);
    }
}
