//! What each family of distributions implements, and what follows from it for rows and batches.
//! The public face is [`Distribution`](super::Distribution), which has the documentation.

use cordada_env::Stream;
use cordada_nn::Real;
use cordada_nn::kernel::Task;

/// One row's mask: which entries of the parameters may be chosen; `None` allows all.
pub(super) type Mask<'a> = Option<&'a [bool]>;

pub(super) trait Family {
    fn num_params(&self) -> usize;
    fn action_len(&self) -> usize;
    fn mask_len(&self) -> usize;

    fn log_prob<F: Real>(&self, params: &[F], mask: Mask<'_>, action: &[F]) -> F;
    fn entropy<F: Real>(&self, params: &[F], mask: Mask<'_>) -> F;
    /// `(log_prob, entropy)`, each with the bits of the single function.
    fn log_prob_entropy<F: Real>(&self, params: &[F], mask: Mask<'_>, action: &[F]) -> (F, F);

    /// The action with its ψ is `(action, psi)`; a coefficient of exactly 0 leaves entropy out.
    fn add_score_entropy<F: Real>(
        &self,
        params: &[F],
        mask: Mask<'_>,
        scored: (&[F], F),
        entropy_coef: F,
        d_params: &mut [F],
    );
    fn add_entropy_gradient<F: Real>(
        &self,
        params: &[F],
        mask: Mask<'_>,
        coef: F,
        d_params: &mut [F],
    );

    fn kl<F: Real>(&self, p: &[F], q: &[F], mask: Mask<'_>) -> F;
    fn add_kl_gradient_p<F: Real>(&self, p: &[F], q: &[F], mask: Mask<'_>, coef: F, d_p: &mut [F]);
    fn add_kl_gradient_q<F: Real>(&self, p: &[F], q: &[F], mask: Mask<'_>, coef: F, d_q: &mut [F]);
    fn fisher_product<F: Real>(&self, params: &[F], mask: Mask<'_>, v: &[F], out: &mut [F]);

    fn sample<F: Real>(&self, params: &[F], mask: Mask<'_>, stream: &mut Stream, action: &mut [F]);
    fn mode<F: Real>(&self, params: &[F], mask: Mask<'_>, action: &mut [F]);

    /// The mask of row `row` of a batch.
    #[inline(always)]
    fn mask_row<'a>(&self, masks: Mask<'a>, row: usize) -> Mask<'a> {
        let len = self.mask_len();
        masks.map(|masks| &masks[row * len..][..len])
    }

    #[inline(always)]
    fn log_prob_entropy_batch<F: Real>(
        &self,
        params: &[F],
        masks: Mask<'_>,
        actions: &[F],
        log_prob: &mut [F],
        entropy: &mut [F],
    ) {
        log_probs_by_row(self, params, masks, actions, log_prob, entropy);
    }

    #[inline(always)]
    fn add_score_entropy_batch<F: Real>(
        &self,
        params: &[F],
        masks: Mask<'_>,
        scored: (&[F], &[F]),
        entropy_coef: F,
        d_params: &mut [F],
    ) {
        add_scores_by_row(self, params, masks, scored, entropy_coef, d_params);
    }

    /// v ← F v, row by row.
    #[inline(always)]
    fn fisher_product_batch<F: Real>(
        &self,
        params: &[F],
        masks: Mask<'_>,
        v: &mut [F],
        row: &mut [F],
    ) {
        let rows = params.chunks_exact(self.num_params()).zip(v.chunks_exact_mut(row.len()));
        for (i, (params, v)) in rows.enumerate() {
            self.fisher_product(params, self.mask_row(masks, i), v, row);
            v.copy_from_slice(row);
        }
    }

    /// Σ KL(p ‖ q) over rows.
    #[inline(always)]
    fn kl_sum<F: Real>(&self, p: &[F], q: &[F], masks: Mask<'_>) -> f64 {
        let rows = p.chunks_exact(self.num_params()).zip(q.chunks_exact(self.num_params()));
        let kl = |(i, (p, q))| self.kl::<F>(p, q, self.mask_row(masks, i)).f64();
        rows.enumerate().map(kl).sum()
    }
}

#[inline(always)]
pub(super) fn log_probs_by_row<D: Family + ?Sized, F: Real>(
    family: &D,
    params: &[F],
    masks: Mask<'_>,
    actions: &[F],
    log_prob: &mut [F],
    entropy: &mut [F],
) {
    let rows = params.chunks_exact(family.num_params());
    let rows = rows.zip(actions.chunks_exact(family.action_len()));
    for (row, ((params, action), (log_prob, entropy))) in
        rows.zip(log_prob.iter_mut().zip(entropy)).enumerate()
    {
        let mask = family.mask_row(masks, row);
        (*log_prob, *entropy) = family.log_prob_entropy(params, mask, action);
    }
}

#[inline(always)]
pub(super) fn add_scores_by_row<D: Family + ?Sized, F: Real>(
    family: &D,
    params: &[F],
    masks: Mask<'_>,
    (actions, psi): (&[F], &[F]),
    entropy_coef: F,
    d_params: &mut [F],
) {
    let rows = params.chunks_exact(family.num_params());
    let rows = rows.zip(d_params.chunks_exact_mut(family.num_params()));
    let scored = actions.chunks_exact(family.action_len()).zip(psi);
    for (row, ((params, d_params), (action, &psi))) in rows.zip(scored).enumerate() {
        let mask = family.mask_row(masks, row);
        family.add_score_entropy(params, mask, (action, psi), entropy_coef, d_params);
    }
}

/// [`Family::log_prob_entropy_batch`] as a task: family, params, masks, actions, and the outputs.
pub(super) struct LogProbEntropy<'a, D, F>(
    pub(super) &'a D,
    pub(super) &'a [F],
    pub(super) Mask<'a>,
    pub(super) &'a [F],
    pub(super) (&'a mut [F], &'a mut [F]),
);

impl<D: Family, F: Real> Task for LogProbEntropy<'_, D, F> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        let Self(family, params, masks, actions, (log_prob, entropy)) = self;
        family.log_prob_entropy_batch(params, masks, actions, log_prob, entropy);
    }
}

/// [`Family::add_score_entropy_batch`] as a task, arguments in its order.
pub(super) struct AddScoreEntropy<'a, D, F>(
    pub(super) &'a D,
    pub(super) &'a [F],
    pub(super) Mask<'a>,
    pub(super) (&'a [F], &'a [F]),
    pub(super) F,
    pub(super) &'a mut [F],
);

impl<D: Family, F: Real> Task for AddScoreEntropy<'_, D, F> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        let Self(family, params, masks, scored, entropy_coef, d_params) = self;
        family.add_score_entropy_batch(params, masks, scored, entropy_coef, d_params);
    }
}

/// A draw from one row and its log-probability as a task: family, params, mask, stream, action.
pub(super) struct Draw<'a, D, F>(
    pub(super) &'a D,
    pub(super) &'a [F],
    pub(super) Mask<'a>,
    pub(super) &'a mut Stream,
    pub(super) &'a mut [F],
);

impl<D: Family, F: Real> Task for Draw<'_, D, F> {
    type Output = F;
    #[inline(always)]
    fn run(self) -> F {
        let Self(family, params, mask, stream, action) = self;
        family.sample(params, mask, stream, action);
        family.log_prob(params, mask, action)
    }
}

/// [`Family::fisher_product_batch`] as a task, arguments in its order.
pub(super) struct FisherProduct<'a, D, F>(
    pub(super) &'a D,
    pub(super) &'a [F],
    pub(super) Mask<'a>,
    pub(super) &'a mut [F],
    pub(super) &'a mut [F],
);

impl<D: Family, F: Real> Task for FisherProduct<'_, D, F> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        let Self(family, params, masks, v, row) = self;
        family.fisher_product_batch(params, masks, v, row);
    }
}

/// [`Family::kl_sum`] as a task, arguments in its order.
pub(super) struct KlSum<'a, D, F>(
    pub(super) &'a D,
    pub(super) &'a [F],
    pub(super) &'a [F],
    pub(super) Mask<'a>,
);

impl<D: Family, F: Real> Task for KlSum<'_, D, F> {
    type Output = f64;
    #[inline(always)]
    fn run(self) -> f64 {
        let Self(family, p, q, masks) = self;
        family.kl_sum(p, q, masks)
    }
}
