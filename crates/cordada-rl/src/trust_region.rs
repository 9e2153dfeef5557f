//! The step of natural policy gradients and of TRPO as plain vector code: conjugate gradient, the
//! length of the step, and a line search. Networks and distributions come in as functions.
//!
//! To first order in the surrogate and second order in the divergence, the best step within a
//! trust region δ goes along F⁻¹ g, where g is the surrogate's gradient and F the Fisher matrix,
//! the Hessian of KL(π_θ ‖ π_θ') at θ' = θ. F is never formed: only its products with vectors are
//! asked for, as Jᵀ (F_rows (J v)), a forward derivative, the distribution's
//! [`fisher_product`](crate::distribution::Distribution::fisher_product) and a backward pass.
//!
//! ```text
//! 1  x ≈ (F + c I)⁻¹ g by conjugate gradient                  ConjugateGradient::solve
//! 2  β = √(2 δ / xᵀ (F + c I) x): ½ (β x)ᵀ (F + c I) β x = δ    step_size
//! 3  for i = 0, 1, …: θ' = θ + sⁱ β x                         Backtracking::line_search
//!      the first θ' with KL < δ and a better surrogate is taken; with none, θ stays
//! ```
//!
//! The natural policy gradient is lines 1 and 2 (or line 1 with a fixed step). c, the damping, makes
//! F + c I invertible where F is not, and shortens x along directions in which a batch says little.
//!
//! Sums run in the kernels' fixed order, so the result depends on nothing but the numbers.
//!
//! # Source
//!
//! Kakade 2001, "A natural policy gradient", NIPS 14; Schulman et al. 2015, arXiv:1502.05477,
//! section 6 and appendix C; Hestenes and Stiefel 1952, doi:10.6028/jres.049.044.

use cordada_nn::Real;
use cordada_nn::kernel::{Isa, dot};

/// Solves (F + c I) x = g, given a function that computes F v; with its working memory.
///
/// # Examples
///
/// ```
/// use cordada_rl::trust_region::{Backtracking, ConjugateGradient, LineSearch, step_size};
///
/// // F = diag(1, 4), g = (1, 1): x = F⁻¹ g = (1, ¼), and xᵀ F x = 5/4.
/// let fisher = |v: &[f64], out: &mut [f64]| out.copy_from_slice(&[v[0], 4.0 * v[1]]);
/// let mut solver = ConjugateGradient::new(10, 1e-20, 0.0);
/// let mut x = [0.0; 2];
/// let solved = solver.solve(&[1.0, 1.0], &mut x, fisher);
/// assert_eq!(solved.steps, 2);
/// assert!((x[0] - 1.0).abs() < 1e-14 && (x[1] - 0.25).abs() < 1e-14);
///
/// let step = step_size(0.1, &x, solver.product()).unwrap();
/// assert!((step - 0.4).abs() < 1e-14);
///
/// // The whole step has a divergence of ½ · 0.4² · 5/4 = 0.1: not below it, so it is halved.
/// let mut theta = [0.0; 2];
/// let evaluate = |theta: &[f64]| {
///     let kl = 0.5 * (theta[0] * theta[0] + 4.0 * theta[1] * theta[1]);
///     (theta[0] + theta[1], kl + 1e-12)
/// };
/// let mut search = Backtracking::new(0.1, 0.5, 10);
/// let found = search.line_search(&mut theta, (&x, step), 0.0, evaluate);
/// assert!(matches!(found, LineSearch::Accepted { index: 1, .. }));
/// assert!((theta[0] - 0.2).abs() < 1e-14 && (theta[1] - 0.05).abs() < 1e-14);
/// ```
#[derive(Clone, Debug)]
pub struct ConjugateGradient<F> {
    isa: Isa,
    max_steps: usize,
    residual_tol: F,
    damping: F,
    residual: Vec<F>,
    direction: Vec<F>,
    product: Vec<F>,
}

/// How [`ConjugateGradient::solve`] ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Solved<F> {
    /// Steps taken, each with one product.
    pub steps: usize,
    /// ‖g − (F + c I) x‖², as the recurrence has it. Not finite if g or a product was not; x is
    /// then of no use.
    pub residual: F,
}

impl<F: Real> ConjugateGradient<F> {
    /// `max_steps`: 10 in the paper, 15 in stable-baselines3's form of TRPO. `residual_tol`:
    /// ‖g − (F + c I) x‖² at or below which x is good enough, 10⁻¹⁰ in usual programs; it is an
    /// absolute number, so a gradient shorter than 10⁻⁵ counts as none. 0 leaves only `max_steps`.
    /// `damping`: c ≥ 0; stable-baselines3 has 0.1.
    ///
    /// # Panics
    ///
    /// If `residual_tol` or `damping` is negative or not a number.
    pub fn new(max_steps: usize, residual_tol: F, damping: F) -> Self {
        assert!(residual_tol >= F::ZERO, "residual_tol = {residual_tol} is not 0 or more");
        assert!(damping >= F::ZERO, "damping = {damping} is not 0 or more");
        let isa = Isa::detect();
        let (residual, direction, product) = (Vec::new(), Vec::new(), Vec::new());
        Self { isa, max_steps, residual_tol, damping, residual, direction, product }
    }

    /// Solves (F + c I) x = g from the x that it is given: usually 0, which saves a product.
    ///
    /// ```text
    /// r = p = g − (F + c I) x
    /// repeat:  z = (F + c I) p,  α = rᵀr / pᵀz,  x += α p,  r' = r − α z,  p = r' + (r'ᵀr' / rᵀr) p
    /// until  r'ᵀr' ≤ residual_tol,  max_steps,  or pᵀz ≤ 0
    /// ```
    ///
    /// The last is the end for a matrix that is singular, or that rounding has made so: p cannot
    /// improve x any more.
    ///
    /// `fisher_product(v, out)` writes F v to `out`, without the damping.
    ///
    /// # Shapes
    ///
    /// `g`, `x`, `v`, `out`: `[P]`.
    ///
    /// # Panics
    ///
    /// If `g` and `x` differ in length.
    pub fn solve(
        &mut self,
        g: &[F],
        x: &mut [F],
        mut fisher_product: impl FnMut(&[F], &mut [F]),
    ) -> Solved<F> {
        assert_eq!(g.len(), x.len(), "g and x are of different lengths");
        let Self { isa, residual: r, direction: p, product: z, damping, .. } = self;
        for buffer in [&mut *r, &mut *p, &mut *z] {
            buffer.resize(g.len(), F::ZERO);
        }
        let mut damped_product = |v: &[F], out: &mut [F]| {
            fisher_product(v, out);
            add_scaled(out, *damping, v);
        };
        r.copy_from_slice(g);
        if x.iter().any(|&x| x != F::ZERO) {
            damped_product(x, z);
            add_scaled(r, -F::ONE, z);
        }
        p.copy_from_slice(r);
        let (mut steps, mut norm) = (0, dot(*isa, r, r));
        while steps < self.max_steps && norm > self.residual_tol {
            damped_product(p, z);
            let curvature = dot(*isa, p, z);
            if !curvature.is_finite() {
                norm = curvature;
                break;
            }
            if curvature <= F::ZERO {
                break;
            }
            let alpha = norm / curvature;
            add_scaled(x, alpha, p);
            add_scaled(r, -alpha, z);
            let before = std::mem::replace(&mut norm, dot(*isa, r, r));
            let beta = norm / before;
            for (p, &r) in p.iter_mut().zip(&*r) {
                *p = r + beta * *p;
            }
            steps += 1;
        }
        for ((z, &g), &r) in z.iter_mut().zip(g).zip(&*r) {
            *z = g - r;
        }
        Solved { steps, residual: norm }
    }

    /// (F + c I) x of the last [`solve`](Self::solve), which is g − r: known without another
    /// product.
    ///
    /// # Shapes
    ///
    /// `[P]`; empty before the first `solve`.
    pub fn product(&self) -> &[F] {
        &self.product
    }
}

/// y += a x.
fn add_scaled<F: Real>(y: &mut [F], a: F, x: &[F]) {
    for (y, &x) in y.iter_mut().zip(x) {
        *y += a * x;
    }
}

/// The step β along x at which the divergence, to second order, is δ.
///
/// ```text
/// β = √(2 δ / xᵀ (F + c I) x)
/// ```
///
/// None where xᵀ (F + c I) x is not a positive finite number: x is 0, or the solver failed.
///
/// # Shapes
///
/// `x`, `product` = (F + c I) x, as [`ConjugateGradient::product`] has it: `[P]`.
///
/// # Units
///
/// `target_kl`: nats.
///
/// # Panics
///
/// If the lengths differ.
///
/// # Source
///
/// Schulman et al. 2015, arXiv:1502.05477, appendix C.
pub fn step_size<F: Real>(target_kl: F, x: &[F], product: &[F]) -> Option<F> {
    assert_eq!(x.len(), product.len(), "x and its product are of different lengths");
    let curvature = dot(Isa::detect(), x, product);
    let step = ((target_kl + target_kl) / curvature).sqrt();
    (curvature > F::ZERO && curvature.is_finite() && step.is_finite()).then_some(step)
}

/// A line search that shrinks a step until it is good, with its working memory.
#[derive(Clone, Debug)]
pub struct Backtracking<F> {
    target_kl: F,
    shrink: F,
    max_tries: usize,
    start: Vec<F>,
}

/// What [`Backtracking::line_search`] found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LineSearch<F> {
    /// θ has moved.
    Accepted {
        /// How often the step was shrunk: i of sⁱ β x.
        index: usize,
        /// The surrogate there.
        surrogate: F,
        /// The divergence there.
        kl: F,
    },
    /// No step was good: θ is what it was, bit for bit.
    Rejected,
}

impl<F: Real> Backtracking<F> {
    /// `target_kl`: δ, in nats; 0.01 in the paper. `shrink`: s, between 0 and 1; ½ in the original
    /// program, 0.8 in stable-baselines3. `max_tries`: how many steps are tried, 10 in both.
    ///
    /// # Panics
    ///
    /// If `shrink` is not between 0 and 1 or `target_kl` not above 0.
    pub fn new(target_kl: F, shrink: F, max_tries: usize) -> Self {
        assert!(target_kl > F::ZERO, "target_kl = {target_kl} is not above 0");
        let inside = shrink > F::ZERO && shrink < F::ONE;
        assert!(inside, "shrink = {shrink} is not between 0 and 1");
        Self { target_kl, shrink, max_tries, start: Vec::new() }
    }

    /// Moves θ to the first of θ + sⁱ β x, i = 0, 1, …, whose KL is below the target and whose
    /// surrogate is better than `surrogate`, that of θ itself. Leaves θ alone if there is none.
    ///
    /// `evaluate(θ')` returns (surrogate, KL). Where either is not finite the step has failed like
    /// any other that is too long. The last θ' that was evaluated is the one taken, unless all were
    /// rejected: weights that were packed from it are then to be packed from θ again.
    ///
    /// # Shapes
    ///
    /// `theta`, `x`: `[P]`; `step`: β.
    ///
    /// # Panics
    ///
    /// If θ and x differ in length.
    pub fn line_search(
        &mut self,
        theta: &mut [F],
        (x, step): (&[F], F),
        surrogate: F,
        mut evaluate: impl FnMut(&[F]) -> (F, F),
    ) -> LineSearch<F> {
        assert_eq!(theta.len(), x.len(), "θ and the direction are of different lengths");
        self.start.clear();
        self.start.extend_from_slice(theta);
        let mut step = step;
        for index in 0..self.max_tries {
            for ((theta, &start), &x) in theta.iter_mut().zip(&self.start).zip(x) {
                *theta = start + step * x;
            }
            let (found, kl) = evaluate(theta);
            let finite = found.is_finite() && kl.is_finite();
            if finite && kl < self.target_kl && found > surrogate {
                return LineSearch::Accepted { index, surrogate: found, kl };
            }
            step *= self.shrink;
        }
        theta.copy_from_slice(&self.start);
        LineSearch::Rejected
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dense<F: Real>(matrix: &[[F; 2]; 2]) -> impl Fn(&[F], &mut [F]) {
        let matrix = *matrix;
        move |v, out| {
            for (out, row) in out.iter_mut().zip(matrix) {
                *out = row[0] * v[0] + row[1] * v[1];
            }
        }
    }

    fn assert_close(got: &[f64], want: &[f64]) {
        assert_eq!(got.len(), want.len());
        for (got, want) in got.iter().zip(want) {
            assert!((got - want).abs() < 1e-14, "{got}, expected {want}");
        }
    }

    #[test]
    fn two_equations_by_hand() {
        // [4 1; 1 3] x = (1, 2): x = (1, 7)/11. One step from 0: α = 5 / 20, x = (¼, ½),
        // r = (1, 2) − ¼ (6, 7) = (−½, ¼), r² = 5/16.
        let fisher = [[4.0, 1.0], [1.0, 3.0]];
        let mut x = [0.0; 2];
        let solved = ConjugateGradient::new(1, 0.0, 0.0).solve(&[1.0, 2.0], &mut x, dense(&fisher));
        assert_eq!(solved, Solved { steps: 1, residual: 0.3125 });
        assert_close(&x, &[0.25, 0.5]);
        let mut solver = ConjugateGradient::new(10, 1e-25, 0.0);
        let mut x = [0.0; 2];
        let solved = solver.solve(&[1.0, 2.0], &mut x, dense(&fisher));
        assert_eq!(solved.steps, 2);
        assert_close(&x, &[1.0 / 11.0, 7.0 / 11.0]);
        assert_close(solver.product(), &[1.0, 2.0]);
        // xᵀ F x = xᵀ g = 15/11.
        let step = step_size(0.01, &x, solver.product()).unwrap();
        assert_close(&[step], &[(0.02_f64 * 11.0 / 15.0).sqrt()]);
    }

    #[test]
    fn damping_is_added_to_the_diagonal() {
        // [3 1; 1 2] + 1: the matrix of the test above. From another x, with the same buffers.
        let fisher = [[3.0, 1.0], [1.0, 2.0]];
        let mut solver = ConjugateGradient::new(10, 1e-25, 1.0);
        solver.solve(&[1.0, 1.0, 1.0], &mut [0.0; 3], |v, out| out.copy_from_slice(v));
        let mut x = [5.0, -3.0];
        solver.solve(&[1.0, 2.0], &mut x, dense(&fisher));
        assert_close(&x, &[1.0 / 11.0, 7.0 / 11.0]);
        assert_close(solver.product(), &[1.0, 2.0]);
    }

    #[test]
    fn the_tolerance_is_that_of_the_squared_residual() {
        // The first step leaves 5/16.
        for (tolerance, steps) in [(0.32_f32, 1), (0.3, 2), (5.0, 0)] {
            let mut x = [0.0; 2];
            let mut solver = ConjugateGradient::new(10, tolerance, 0.0);
            let solved = solver.solve(&[1.0, 2.0], &mut x, dense(&[[4.0, 1.0], [1.0, 3.0]]));
            assert_eq!(solved.steps, steps, "{tolerance}");
            assert_eq!(steps == 0, x == [0.0; 2]);
        }
    }

    #[test]
    fn a_singular_matrix_ends_the_search_with_finite_numbers() {
        // F = diag(1, 0), g = (1, 1): after the first step, α = 2, the residual is (−1, 1) and the
        // direction (0, 2), along which F is 0.
        let mut x = [0.0_f64; 2];
        let mut solver = ConjugateGradient::new(10, 0.0, 0.0);
        let solved = solver.solve(&[1.0, 1.0], &mut x, dense(&[[1.0, 0.0], [0.0, 0.0]]));
        assert_eq!(solved, Solved { steps: 1, residual: 2.0 });
        assert_eq!(x, [2.0, 2.0]);
        let solved = solver.solve(&[0.0, 0.0], &mut [0.0; 2], dense(&[[1.0, 0.0], [0.0, 0.0]]));
        assert_eq!(solved, Solved { steps: 0, residual: 0.0 });
    }

    #[test]
    fn what_is_not_finite_shows() {
        let mut solver = ConjugateGradient::new(10, 1e-10, 0.1);
        let identity = dense(&[[1.0, 0.0], [0.0, 1.0]]);
        let mut x = [0.0; 2];
        assert!(solver.solve(&[f64::NAN, 1.0], &mut x, &identity).residual.is_nan());
        assert_eq!(step_size(0.01, &x, solver.product()), None);
        let solved = solver.solve(&[1.0, 1.0], &mut [0.0; 2], |_, out| out.fill(f64::NAN));
        assert!(solved.residual.is_nan());
        assert_eq!(step_size(0.01, &[0.0; 2], &[0.0; 2]), None);
        assert_eq!(step_size(0.01, &[1.0], &[-1.0]), None);
        assert_eq!(step_size(0.01, &[f64::INFINITY], &[1.0]), None);
    }

    /// On the line θ = t (1, −2): surrogate `t − t²`, KL t².
    fn along(theta: &[f64]) -> (f64, f64) {
        (theta[0] - theta[0] * theta[0], theta[0] * theta[0])
    }

    #[test]
    fn the_first_good_step_is_taken() {
        let mut search = Backtracking::new(0.3, 0.5, 10);
        let (start, x) = ([0.0; 2], [1.0, -2.0]);
        // 2, 1: too far, and not better either. ½: KL ¼, surrogate ¼.
        let mut theta = start;
        let found = search.line_search(&mut theta, (&x, 2.0), 0.0, along);
        assert_eq!(found, LineSearch::Accepted { index: 2, surrogate: 0.25, kl: 0.25 });
        assert_eq!(theta, [0.5, -1.0]);
        // The KL must be below the target, and the surrogate above the old one.
        let found =
            Backtracking::new(0.25, 0.5, 10).line_search(&mut [0.0; 2], (&x, 2.0), 0.0, along);
        assert_eq!(found, LineSearch::Accepted { index: 3, surrogate: 0.1875, kl: 0.0625 });
        let found = search.line_search(&mut [0.0; 2], (&x, 2.0), 0.25, along);
        assert_eq!(found, LineSearch::Rejected);
    }

    #[test]
    fn a_failed_search_leaves_theta_alone() {
        let start = [0.1 + 0.2, -1e-300];
        let bad = [
            (1.0, 0.3),
            (-1.0, 0.0),
            (f64::NAN, 0.0),
            (f64::INFINITY, 0.0),
            (1.0, f64::NAN),
            (1.0, f64::NEG_INFINITY),
        ];
        for values in bad {
            let (mut theta, mut tries) = (start, 0);
            let mut search = Backtracking::new(0.3, 0.8, 4);
            let found = search.line_search(&mut theta, (&[1.0, 1.0], 0.7), 0.0, |_| {
                tries += 1;
                values
            });
            assert_eq!((found, tries), (LineSearch::Rejected, 4));
            assert_eq!(theta, start);
        }
        // Values that overflow at first do not end the search.
        let found = Backtracking::new(0.3, 0.5, 4).line_search(
            &mut start.clone(),
            (&[1.0, 1.0], 1.0),
            0.0,
            |theta| if theta[0] > 1.0 { (f64::NAN, f64::NAN) } else { (1.0, 0.1) },
        );
        assert_eq!(found, LineSearch::Accepted { index: 1, surrogate: 1.0, kl: 0.1 });
    }
}
