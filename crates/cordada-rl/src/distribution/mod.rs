//! Distributions of actions: from a network's output to log-probabilities, entropies, samples,
//! and from ψ = ∂ objective / ∂ log π back to the gradient of that output. They know no network.
//!
//! [`Distribution`] works on rows. A row of parameters is what a policy's network gives for one
//! observation; a row of an action is what the environment takes:
//!
//! | family | params | action |
//! |---|---|---|
//! | [`Categorical`] | n logits | one index |
//! | [`MultiCategorical`] | n₁ + n₂ + … logits, block after block | one index a block |
//! | [`Bernoulli`] | n logits | n times 0 or 1 |
//! | [`DiagGaussian`] | A means, A log standard deviations | A numbers |
//! | [`SquashedGaussian`] | as the normal distribution before squashing | A numbers inside bounds |
//! | [`Beta`] | A numbers for α, A for β | A numbers inside bounds |
//!
//! A mask (of as many flags as there are logits, `true` = allowed) restricts a choice to the
//! allowed actions: probabilities are a softmax over these alone, and a masked logit has no
//! influence and a gradient of exactly 0. The other families take no mask.
//!
//! [`LogitFilter`] changes the logits of a choice before it is made: temperature, and the filters
//! that language models are sampled with.
//!
//! Functions that make a gradient add to it, so that parts of an objective can be put together.
//! The equations stand in the families' files.

mod bernoulli;
mod beta;
mod categorical;
mod categorical_lanes;
mod family;
mod gaussian;
#[cfg(test)]
mod gradient_tests;
mod logit_filter;
mod multi_categorical;
mod special;
mod squashed;

use cordada_env::Stream;
use cordada_nn::Real;
use cordada_nn::kernel::Isa;

pub use bernoulli::Bernoulli;
pub use beta::Beta;
pub(crate) use categorical::expected;
pub use categorical::{Categorical, gumbel};
pub use gaussian::DiagGaussian;
pub use logit_filter::{FilterScratch, LogitFilter};
pub use multi_categorical::MultiCategorical;
pub use squashed::SquashedGaussian;

use family::{AddScoreEntropy, Draw, Family, FisherProduct, KlSum, LogProbEntropy};

/// The distribution of actions of a policy: which family, and its sizes.
///
/// # Examples
///
/// The policy gradient of one action with advantage 2, with an entropy bonus:
///
/// ```
/// use cordada_rl::distribution::{Categorical, Distribution};
///
/// let pi = Distribution::Categorical(Categorical::new(2));
/// let mut d_logits = [0.0_f32; 2];
/// pi.add_score_entropy(&[0.0, 0.0], None, &[1.0], 2.0, 0.01, &mut d_logits);
/// // 2 ([i = a] − ½); the entropy is at its maximum and adds nothing.
/// assert_eq!(d_logits, [-1.0, 1.0]);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub enum Distribution {
    /// A choice among n actions.
    Categorical(Categorical),
    /// Several independent choices.
    MultiCategorical(MultiCategorical),
    /// Independent bits.
    Bernoulli(Bernoulli),
    /// Independent normal components.
    DiagGaussian(DiagGaussian),
    /// Independent normal components, squashed into a box.
    SquashedGaussian(SquashedGaussian),
    /// Independent Beta components, on a box.
    Beta(Beta),
}

/// Runs `$body` with `$family` the family's own struct: one branch a call, the rest is compiled
/// for the family.
macro_rules! each {
    ($distribution:expr, $family:ident => $body:expr) => {
        match $distribution {
            Distribution::Categorical($family) => $body,
            Distribution::MultiCategorical($family) => $body,
            Distribution::Bernoulli($family) => $body,
            Distribution::DiagGaussian($family) => $body,
            Distribution::SquashedGaussian($family) => $body,
            Distribution::Beta($family) => $body,
        }
    };
}

/// Sizes, and checks of them.
impl Distribution {
    /// Length P of a row of parameters.
    #[inline]
    pub fn num_params(&self) -> usize {
        each!(self, family => family.num_params())
    }

    /// Length A of a row of an action.
    #[inline]
    pub fn action_len(&self) -> usize {
        each!(self, family => family.action_len())
    }

    /// Length M of a row of a mask; 0 for a family that takes none.
    #[inline]
    pub fn mask_len(&self) -> usize {
        each!(self, family => family.mask_len())
    }

    /// Asserts the lengths of `rows` rows.
    #[inline(always)]
    fn check<F>(&self, rows: usize, params: &[F], mask: Option<&[bool]>, action: Option<&[F]>) {
        assert_eq!(params.len(), rows * self.num_params(), "params are not [rows, P]");
        if let Some(mask) = mask {
            assert!(self.mask_len() > 0, "a {} takes no mask", self.name());
            assert_eq!(mask.len(), rows * self.mask_len(), "the mask is not [rows, M]");
        }
        if let Some(action) = action {
            assert_eq!(action.len(), rows * self.action_len(), "actions are not [rows, A]");
        }
    }

    /// Name of the family, for messages and metadata.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Categorical(_) => "categorical distribution",
            Self::MultiCategorical(_) => "multi-categorical distribution",
            Self::Bernoulli(_) => "Bernoulli distribution",
            Self::DiagGaussian(_) => "diagonal Gaussian",
            Self::SquashedGaussian(_) => "squashed Gaussian",
            Self::Beta(_) => "Beta distribution",
        }
    }
}

/// One row. All functions panic if a length is wrong, a mask allows nothing, or an index that an
/// action holds is out of range.
///
/// # Shapes
///
/// `params`, `p`, `q`, `v`, `out` and gradients: `[P]`; `mask`: `[M]`; `action`: `[A]`.
///
/// # Units
///
/// Nats.
impl Distribution {
    /// log π(action); of a density where actions are continuous. −∞ for a masked action.
    #[inline]
    pub fn log_prob<F: Real>(&self, params: &[F], mask: Option<&[bool]>, action: &[F]) -> F {
        self.check(1, params, mask, Some(action));
        each!(self, family => family.log_prob(params, mask, action))
    }

    /// Entropy, in closed form; of a [`SquashedGaussian`] by numeric integration.
    #[inline]
    pub fn entropy<F: Real>(&self, params: &[F], mask: Option<&[bool]>) -> F {
        self.check(1, params, mask, None);
        each!(self, family => family.entropy(params, mask))
    }

    /// log π(action) and the entropy, for less than both apart, with the same bits.
    #[inline]
    pub fn log_prob_entropy<F: Real>(
        &self,
        params: &[F],
        mask: Option<&[bool]>,
        action: &[F],
    ) -> (F, F) {
        self.check(1, params, mask, Some(action));
        each!(self, family => family.log_prob_entropy(params, mask, action))
    }

    /// `d_params` += ψ · ∂ log π(action) / ∂ params.
    #[inline]
    pub fn add_score<F: Real>(
        &self,
        params: &[F],
        mask: Option<&[bool]>,
        action: &[F],
        psi: F,
        d_params: &mut [F],
    ) {
        let scored = (action, psi);
        self.check(1, params, mask, Some(action));
        self.check(1, d_params, None, None);
        each!(self, family => family.add_score_entropy(params, mask, scored, F::ZERO, d_params));
    }

    /// `d_params` += coef · ∂H / ∂ params.
    #[inline]
    pub fn add_entropy_gradient<F: Real>(
        &self,
        params: &[F],
        mask: Option<&[bool]>,
        coef: F,
        d_params: &mut [F],
    ) {
        self.check(1, params, mask, None);
        self.check(1, d_params, None, None);
        each!(self, family => family.add_entropy_gradient(params, mask, coef, d_params));
    }

    /// `d_params` += ψ · ∂ log π(action) / ∂ params + `entropy_coef` · ∂H / ∂ params, for less than
    /// both apart.
    #[inline]
    #[expect(clippy::too_many_arguments, reason = "one more than add_score, in the same order")]
    pub fn add_score_entropy<F: Real>(
        &self,
        params: &[F],
        mask: Option<&[bool]>,
        action: &[F],
        psi: F,
        entropy_coef: F,
        d_params: &mut [F],
    ) {
        let scored = (action, psi);
        self.check(1, params, mask, Some(action));
        self.check(1, d_params, None, None);
        each!(self, family => {
            family.add_score_entropy(params, mask, scored, entropy_coef, d_params);
        });
    }

    /// KL(p ‖ q) of two distributions that share the mask.
    pub fn kl<F: Real>(&self, p: &[F], q: &[F], mask: Option<&[bool]>) -> F {
        self.check(1, p, mask, None);
        self.check(1, q, None, None);
        each!(self, family => family.kl(p, q, mask))
    }

    /// `d_p` += coef · ∂ KL(p ‖ q) / ∂p.
    pub fn add_kl_gradient_p<F: Real>(
        &self,
        p: &[F],
        q: &[F],
        mask: Option<&[bool]>,
        coef: F,
        d_p: &mut [F],
    ) {
        self.check(1, p, mask, None);
        self.check(1, q, None, None);
        self.check(1, d_p, None, None);
        each!(self, family => family.add_kl_gradient_p(p, q, mask, coef, d_p));
    }

    /// `d_q` += coef · ∂ KL(p ‖ q) / ∂q. PPO's penalty has the old policy as p, the new one as q.
    pub fn add_kl_gradient_q<F: Real>(
        &self,
        p: &[F],
        q: &[F],
        mask: Option<&[bool]>,
        coef: F,
        d_q: &mut [F],
    ) {
        self.check(1, p, mask, None);
        self.check(1, q, None, None);
        self.check(1, d_q, None, None);
        each!(self, family => family.add_kl_gradient_q(p, q, mask, coef, d_q));
    }

    /// `out` = F v, where F = E[∇ log π ∇ log πᵀ] is the Fisher matrix in the parameters, which is
    /// also the Hessian of KL(params ‖ q) at q = params. The middle factor of the natural
    /// gradient's Jᵀ F J.
    pub fn fisher_product<F: Real>(
        &self,
        params: &[F],
        mask: Option<&[bool]>,
        v: &[F],
        out: &mut [F],
    ) {
        self.check(1, params, mask, None);
        self.check(1, v, None, None);
        self.check(1, out, None, None);
        each!(self, family => family.fisher_product(params, mask, v, out));
    }

    /// Draws an action.
    ///
    /// A choice takes one uniform number and goes up the cumulative probabilities
    /// ([`Categorical::inverse_cdf`]), a bit takes one, a component of a normal distribution takes
    /// one normal number: how far the stream moves does not depend on the values. Only a [`Beta`]
    /// component tries until a number is accepted.
    pub fn sample<F: Real>(
        &self,
        params: &[F],
        mask: Option<&[bool]>,
        stream: &mut Stream,
        action: &mut [F],
    ) {
        self.check(1, params, mask, Some(action));
        each!(self, family => family.sample(params, mask, stream, action));
    }

    /// Draws an action as [`sample`](Self::sample) does and returns its log-probability, the same
    /// bits as [`log_prob`](Self::log_prob).
    pub fn draw<F: Real>(
        &self,
        params: &[F],
        mask: Option<&[bool]>,
        stream: &mut Stream,
        action: &mut [F],
    ) -> F {
        self.check(1, params, mask, Some(action));
        each!(self, family => Isa::detect().run(Draw(family, params, mask, stream, action)))
    }

    /// The most probable action, the first of equals; the squashed mean of a
    /// [`SquashedGaussian`], whose density may be higher elsewhere, and the middle for a [`Beta`]
    /// component that is uniform.
    pub fn mode<F: Real>(&self, params: &[F], mask: Option<&[bool]>, action: &mut [F]) {
        self.check(1, params, mask, Some(action));
        each!(self, family => family.mode(params, mask, action));
    }
}

/// A batch of B rows: what the row functions do, with the family looked up once.
///
/// # Shapes
///
/// `params`, `d_params`: `[B, P]`; `masks`: `[B, M]`; `actions`: `[B, A]`; all else: `[B]`.
impl Distribution {
    /// [`log_prob_entropy`](Self::log_prob_entropy) of each row.
    ///
    /// # Panics
    ///
    /// If the lengths do not agree, or a row is one that the row function refuses.
    pub fn log_prob_entropy_batch<F: Real>(
        &self,
        params: &[F],
        masks: Option<&[bool]>,
        actions: &[F],
        log_prob: &mut [F],
        entropy: &mut [F],
    ) {
        self.check(log_prob.len(), params, masks, Some(actions));
        assert_eq!(log_prob.len(), entropy.len(), "entropy is not [B]");
        each!(self, family => {
            Isa::detect().run(LogProbEntropy(family, params, masks, actions, (log_prob, entropy)));
        });
    }

    /// [`add_score_entropy`](Self::add_score_entropy) of each row, with a ψ for each and one
    /// coefficient for all. The mean over the batch is had with ψ/B and `entropy_coef`/B.
    #[expect(clippy::too_many_arguments, reason = "as add_score_entropy, in the same order")]
    pub fn add_score_entropy_batch<F: Real>(
        &self,
        params: &[F],
        masks: Option<&[bool]>,
        actions: &[F],
        psi: &[F],
        entropy_coef: F,
        d_params: &mut [F],
    ) {
        self.check(psi.len(), params, masks, Some(actions));
        self.check(psi.len(), d_params, None, None);
        let scored = (actions, psi);
        each!(self, family => {
            Isa::detect().run(AddScoreEntropy(family, params, masks, scored, entropy_coef, d_params));
        });
    }

    /// [`fisher_product`](Self::fisher_product) of each row, in place; `row` is room for one.
    ///
    /// # Shapes
    ///
    /// `v`: `[B, P]`; `row`: `[P]`.
    pub fn fisher_product_batch<F: Real>(
        &self,
        params: &[F],
        masks: Option<&[bool]>,
        v: &mut [F],
        row: &mut [F],
    ) {
        let rows = params.len() / self.num_params();
        self.check(rows, params, masks, None);
        self.check(rows, v, None, None);
        self.check(1, row, None, None);
        each!(self, family => Isa::detect().run(FisherProduct(family, params, masks, v, row)));
    }

    /// Σ KL(p ‖ q) over the rows, added up in their order.
    ///
    /// # Shapes
    ///
    /// `p`, `q`: `[B, P]`.
    pub fn kl_sum<F: Real>(&self, p: &[F], q: &[F], masks: Option<&[bool]>) -> f64 {
        let rows = p.len() / self.num_params();
        self.check(rows, p, masks, None);
        self.check(rows, q, None, None);
        each!(self, family => Isa::detect().run(KlSum(family, p, q, masks)))
    }
}
