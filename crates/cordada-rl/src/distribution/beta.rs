//! A Beta distribution on a box, with independent components: all of its probability lies inside
//! the bounds, so that no action is ever clipped.
//!
//! `params = [x_1 … x_A, z_1 … z_A]`, and a component on [low, high] of width w has
//!
//! ```text
//! α = 1 + softplus(x),  β = 1 + softplus(z),  s = α + β,  a = low + w y
//! log π(a) = Σ (α − 1) log y + (β − 1) log(1 − y) − log B(α, β) − log w,   B(α, β) = Γ(α) Γ(β) / Γ(s)
//! ∂ log π / ∂α = log y − ψ(α) + ψ(s)
//! H = Σ log B + log w − (α − 1) ψ(α) − (β − 1) ψ(β) + (s − 2) ψ(s)
//! ∂H / ∂α = (s − 2) ψ'(s) − (α − 1) ψ'(α)
//! KL(p ‖ q) = Σ log B_q − log B_p + (α_p − α_q) ψ(α_p) + (β_p − β_q) ψ(β_p) − (s_p − s_q) ψ(s_p)
//! ∂KL / ∂α_p = (α_p − α_q) ψ'(α_p) − (s_p − s_q) ψ'(s_p)
//! ∂KL / ∂α_q = ψ(α_q) − ψ(s_q) − ψ(α_p) + ψ(s_p)
//! F = [ψ'(α) − ψ'(s), −ψ'(s); −ψ'(s), ψ'(β) − ψ'(s)]     the Fisher matrix in (α, β)
//! ```
//!
//! and the same with β and 1 − y in the place of α and y. α and β above 1 make the density have one
//! maximum, inside the box; both at 1 it would be uniform. Everything runs in `f64` and only results
//! are rounded to the number type: lnΓ of large arguments cancels.
//!
//! # Source
//!
//! Chou, Maturana and Scherer 2017, "Improving stochastic policy gradients in continuous control
//! with deep reinforcement learning using the Beta distribution", ICML, PMLR 70.

#[cfg(test)]
mod tests;

use cordada_env::Stream;
use cordada_nn::Real;

use super::family::{Family, Mask};
use super::gaussian::{halves, halves_mut};
use super::special::{digamma, ln_gamma, trigamma};

/// A Beta distribution with `A` independent components, on a box.
#[derive(Clone, Debug, PartialEq)]
pub struct Beta {
    low: Vec<f64>,
    high: Vec<f64>,
    /// Σ log w.
    log_scale: f64,
}

/// α and β of one component, as what they are above 1: 1 + softplus(x) would round that away.
#[derive(Clone, Copy, Debug)]
struct Shape {
    above: [f64; 2],
}

/// A place in the unit interval: (log y, log(1 − y)).
type Logs = [f64; 2];

impl Shape {
    /// Component `i` of a row of parameters.
    #[inline(always)]
    fn of<F: Real>(params: &[F], i: usize) -> Self {
        let (for_alpha, for_beta) = halves(params);
        Self { above: [for_alpha[i].f64().softplus(), for_beta[i].f64().softplus()] }
    }

    /// α, β.
    fn both(self) -> [f64; 2] {
        self.above.map(|above| 1.0 + above)
    }

    /// s = α + β.
    fn sum(self) -> f64 {
        2.0 + (self.above[0] + self.above[1])
    }

    fn log_beta(self) -> f64 {
        let [alpha, beta] = self.both().map(ln_gamma);
        alpha + beta - ln_gamma(self.sum())
    }

    /// log π on the unit interval.
    fn log_density(self, logs: Logs, log_beta: f64) -> f64 {
        self.above[0] * logs[0] + self.above[1] * logs[1] - log_beta
    }

    /// E[log y] = ψ(α) − ψ(s), E[log(1 − y)] = ψ(β) − ψ(s).
    fn mean_logs(self) -> Logs {
        let by_sum = digamma(self.sum());
        self.both().map(|one| digamma(one) - by_sum)
    }

    /// ∂ log π / ∂(α, β).
    fn score(self, logs: Logs) -> [f64; 2] {
        let mean = self.mean_logs();
        [logs[0] - mean[0], logs[1] - mean[1]]
    }

    /// On the unit interval: −E[log π].
    fn entropy(self, log_beta: f64) -> f64 {
        -self.log_density(self.mean_logs(), log_beta)
    }

    /// F v, F being the Fisher matrix in (α, β).
    fn fisher_product(self, v: [f64; 2]) -> [f64; 2] {
        let by_sum = trigamma(self.sum()) * (v[0] + v[1]);
        let [alpha, beta] = self.both().map(trigamma);
        [alpha * v[0] - by_sum, beta * v[1] - by_sum]
    }

    /// ∂H / ∂(α, β) = −F (α − 1, β − 1).
    fn entropy_gradient(self) -> [f64; 2] {
        self.fisher_product(self.above).map(|d| -d)
    }

    /// (α, β) of this one minus those of `q`.
    fn minus(self, q: Self) -> [f64; 2] {
        [self.above[0] - q.above[0], self.above[1] - q.above[1]]
    }

    /// KL(self ‖ q) = E[log π − log q].
    fn kl(self, q: Self) -> f64 {
        let (by, mean) = (self.minus(q), self.mean_logs());
        q.log_beta() - self.log_beta() + (by[0] * mean[0] + by[1] * mean[1])
    }

    /// ∂ KL(self ‖ q) / ∂(α, β) of self, = F (self − q).
    fn kl_gradient_p(self, q: Self) -> [f64; 2] {
        self.fisher_product(self.minus(q))
    }

    /// ∂ KL(self ‖ q) / ∂(α, β) of q.
    fn kl_gradient_q(self, q: Self) -> [f64; 2] {
        q.score(self.mean_logs()).map(|d| -d)
    }

    /// y = g_α / (g_α + g_β).
    fn sample(self, stream: &mut Stream) -> f64 {
        let [alpha, beta] = self.both().map(|shape| gamma(shape, stream));
        alpha / (alpha + beta)
    }

    /// (α − 1) / (s − 2); of the uniform distribution, the middle.
    fn mode(self) -> f64 {
        let [alpha, beta] = self.above;
        if alpha + beta == 0.0 { 0.5 } else { alpha / (alpha + beta) }
    }
}

/// A number with the density of Gamma(`shape`, 1), shape ≥ 1; NaN if the shape is not finite.
///
/// Normal numbers x and uniform ones u until one is accepted, which takes 1.05 tries at most, on
/// average.
///
/// ```text
/// d = shape − ⅓,  v = (1 + x / √(9 d))³,  accept d v if v > 0 and log u < ½ x² + d − d v + d log v
/// ```
///
/// # Source
///
/// Marsaglia and Tsang 2000, doi:10.1145/358407.358414.
fn gamma(shape: f64, stream: &mut Stream) -> f64 {
    if !shape.is_finite() {
        return f64::NAN;
    }
    let d = shape - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    loop {
        let x = stream.normal();
        // In (0, 1].
        let u = 1.0 - stream.uniform();
        let root = 1.0 + c * x;
        let v = root * root * root;
        // Without a logarithm for most; this one is inside the other, and holds where, with a very
        // large d, the other is lost in rounding.
        let inside = u < 1.0 - 0.0331 * (x * x) * (x * x);
        let accept = || libm::log(u) < 0.5 * x * x + d * (1.0 - v + libm::log(v));
        if v > 0.0 && (inside || accept()) {
            return d * v;
        }
    }
}

/// ε of the number type.
#[inline(always)]
fn epsilon<F: Real>() -> f64 {
    if F::of(1.0 - f64::EPSILON) < F::ONE { f64::EPSILON } else { f64::from(f32::EPSILON) }
}

/// dα/dx of a component, dβ/dz, times a gradient in (α, β): added to the parameters' gradient.
#[inline(always)]
fn add_chained<F: Real>(params: &[F], i: usize, coef: F, d: [f64; 2], d_params: &mut [F]) {
    let ((for_alpha, for_beta), (d_alpha, d_beta)) = (halves(params), halves_mut(d_params));
    let coef = coef.f64();
    d_alpha[i] += F::of(coef * d[0] * for_alpha[i].f64().sigmoid());
    d_beta[i] += F::of(coef * d[1] * for_beta[i].f64().sigmoid());
}

impl Beta {
    /// A distribution over `action_len` numbers in (0, 1).
    ///
    /// # Panics
    ///
    /// If `action_len` is 0.
    pub fn new(action_len: usize) -> Self {
        Self::with_bounds(&vec![0.0; action_len], &vec![1.0; action_len])
    }

    /// A distribution over the box from `low` to `high`.
    ///
    /// # Panics
    ///
    /// If there is no component, the lengths differ, or a component has no finite width above 0.
    pub fn with_bounds(low: &[f64], high: &[f64]) -> Self {
        assert!(!low.is_empty(), "an action needs a component");
        assert_eq!(low.len(), high.len(), "bounds of different lengths");
        let log_width = |(&low, &high): (&f64, &f64)| {
            let width = high - low;
            assert!(width > 0.0 && width.is_finite(), "no finite width from {low} to {high}");
            Real::ln(width)
        };
        let log_scale = low.iter().zip(high).map(log_width).sum();
        Self { low: low.to_vec(), high: high.to_vec(), log_scale }
    }

    /// log y and log(1 − y) of component `i` of an action. At or beyond a bound it counts as half
    /// an ε inside, so that both are finite.
    #[inline(always)]
    fn logs<F: Real>(&self, action: &[F], i: usize) -> Logs {
        let (low, high, a) = (self.low[i], self.high[i], action[i].f64());
        // 1 − y from the other bound, near which it would cancel.
        [a - low, high - a].map(|distance| {
            let share = distance / (high - low);
            libm::log(Real::clamp(share, 0.5 * epsilon::<F>(), 1.0))
        })
    }

    /// The action at y; rounding does not take it out of the box.
    #[inline(always)]
    fn place<F: Real>(&self, i: usize, y: f64) -> F {
        let (low, high) = (self.low[i], self.high[i]);
        F::of(Real::clamp(low + (high - low) * y, low, high))
    }
}

impl Family for Beta {
    #[inline(always)]
    fn num_params(&self) -> usize {
        2 * self.low.len()
    }
    #[inline(always)]
    fn action_len(&self) -> usize {
        self.low.len()
    }
    #[inline(always)]
    fn mask_len(&self) -> usize {
        0
    }
    fn log_prob<F: Real>(&self, params: &[F], _: Mask<'_>, action: &[F]) -> F {
        let mut sum = 0.0;
        for i in 0..action.len() {
            let shape = Shape::of(params, i);
            sum += shape.log_density(self.logs(action, i), shape.log_beta());
        }
        F::of(sum - self.log_scale)
    }
    fn entropy<F: Real>(&self, params: &[F], _: Mask<'_>) -> F {
        let mut sum = 0.0;
        for i in 0..self.low.len() {
            let shape = Shape::of(params, i);
            sum += shape.entropy(shape.log_beta());
        }
        F::of(sum + self.log_scale)
    }
    fn log_prob_entropy<F: Real>(&self, params: &[F], _: Mask<'_>, action: &[F]) -> (F, F) {
        let (mut log_prob, mut entropy) = (0.0, 0.0);
        for i in 0..action.len() {
            let shape = Shape::of(params, i);
            let log_beta = shape.log_beta();
            log_prob += shape.log_density(self.logs(action, i), log_beta);
            entropy += shape.entropy(log_beta);
        }
        (F::of(log_prob - self.log_scale), F::of(entropy + self.log_scale))
    }
    fn add_score_entropy<F: Real>(
        &self,
        params: &[F],
        mask: Mask<'_>,
        (action, psi): (&[F], F),
        entropy_coef: F,
        d_params: &mut [F],
    ) {
        for i in 0..action.len() {
            let d = Shape::of(params, i).score(self.logs(action, i));
            add_chained(params, i, psi, d, d_params);
        }
        if entropy_coef != F::ZERO {
            self.add_entropy_gradient(params, mask, entropy_coef, d_params);
        }
    }
    fn add_entropy_gradient<F: Real>(
        &self,
        params: &[F],
        _: Mask<'_>,
        coef: F,
        d_params: &mut [F],
    ) {
        for i in 0..self.low.len() {
            let d = Shape::of(params, i).entropy_gradient();
            add_chained(params, i, coef, d, d_params);
        }
    }
    fn kl<F: Real>(&self, p: &[F], q: &[F], _: Mask<'_>) -> F {
        let kl = |i| Shape::of(p, i).kl(Shape::of(q, i));
        F::of((0..self.low.len()).map(kl).sum())
    }
    fn add_kl_gradient_p<F: Real>(&self, p: &[F], q: &[F], _: Mask<'_>, coef: F, d_p: &mut [F]) {
        for i in 0..self.low.len() {
            let d = Shape::of(p, i).kl_gradient_p(Shape::of(q, i));
            add_chained(p, i, coef, d, d_p);
        }
    }
    fn add_kl_gradient_q<F: Real>(&self, p: &[F], q: &[F], _: Mask<'_>, coef: F, d_q: &mut [F]) {
        for i in 0..self.low.len() {
            let d = Shape::of(p, i).kl_gradient_q(Shape::of(q, i));
            add_chained(q, i, coef, d, d_q);
        }
    }
    fn fisher_product<F: Real>(&self, params: &[F], _: Mask<'_>, v: &[F], out: &mut [F]) {
        let ((for_alpha, for_beta), (v_alpha, v_beta)) = (halves(params), halves(v));
        out.fill(F::ZERO);
        for i in 0..self.low.len() {
            let by_alpha = v_alpha[i].f64() * for_alpha[i].f64().sigmoid();
            let by_beta = v_beta[i].f64() * for_beta[i].f64().sigmoid();
            let d = Shape::of(params, i).fisher_product([by_alpha, by_beta]);
            add_chained(params, i, F::ONE, d, out);
        }
    }
    fn sample<F: Real>(&self, params: &[F], _: Mask<'_>, stream: &mut Stream, action: &mut [F]) {
        for (i, a) in action.iter_mut().enumerate() {
            *a = self.place(i, Shape::of(params, i).sample(stream));
        }
    }
    fn mode<F: Real>(&self, params: &[F], _: Mask<'_>, action: &mut [F]) {
        for (i, a) in action.iter_mut().enumerate() {
            *a = self.place(i, Shape::of(params, i).mode());
        }
    }
}
