//! The natural gradient on processes small enough to be solved exactly: conjugate gradient on
//! products from networks and distributions against the Fisher matrix written out, and against what
//! theory says that the natural gradient of a table is.

#[allow(dead_code, reason = "shared with the tests of the policy gradient theorem")]
#[path = "theorem/exact.rs"]
mod exact;
#[allow(dead_code, reason = "as above")]
#[path = "theorem/mdp.rs"]
mod mdp;
#[path = "trust_region/network.rs"]
mod network;

use cordada_nn::{Activation, Mlp, MlpSpec};
use cordada_rl::distribution::{Categorical, Distribution};
use cordada_rl::trust_region::{ConjugateGradient, step_size};

use exact::{Exact, solve};
use mdp::{Mdp, chain, frozen_lake, time_limited};
use network::{Network, Point};

/// A process and a softmax policy in it that is linear in the one-hot state: logit a of state s is
/// W[a][s] + b[a], and θ = W · b.
struct Case {
    mdp: Mdp,
    network: Network,
    theta: Vec<f64>,
    exact: Exact,
    /// d(s) = Σ_t γ^t Pr(s_t = s).
    occupancy: Vec<f64>,
    one_hot: Vec<f64>,
}

fn cases() -> [Case; 3] {
    [Case::new(chain()), Case::new(frozen_lake()), Case::new(time_limited())]
}

impl Case {
    fn new(mdp: Mdp) -> Self {
        let (num_states, num_actions) = (mdp.num_states, mdp.num_actions);
        let mlp = Mlp::new(&MlpSpec {
            sizes: vec![num_states, num_actions],
            activation: Activation::Identity,
            output_activation: Activation::Identity,
            layer_norm: false,
            output_norm: false,
        });
        let distribution = Distribution::Categorical(Categorical::new(num_actions));
        let network = Network { distribution, mlp, num_shared: 0 };
        let theta: Vec<f64> =
            (0..network.mlp.num_params()).map(|i| 0.9 * (1.7 * i as f64).sin()).collect();
        let logit = |i: usize| {
            let (s, a) = (i / num_actions, i % num_actions);
            theta[a * num_states + s] + theta[num_actions * num_states + a]
        };
        let table: Vec<f64> = (0..num_states * num_actions).map(logit).collect();
        let exact = solve(&mdp, &table);
        let occupancy = occupancy(&mdp, &exact.policy);
        let one_hot = (0..num_states * num_states)
            .map(|i| f64::from(u8::from(i / num_states == i % num_states)))
            .collect();
        Self { mdp, network, theta, exact, occupancy, one_hot }
    }

    fn point(&self) -> Point<'_> {
        self.network.at(&self.theta, &self.one_hot)
    }

    /// The share of each state in the discounted distribution.
    fn state_weights(&self) -> Vec<f64> {
        let total: f64 = self.occupancy.iter().sum();
        self.occupancy.iter().map(|d| d / total).collect()
    }

    /// ∇ log π(a | s) in θ: `[s = s'] ([a = a'] − π(a' | s))` for W[a'][s'], the bracket for b[a'].
    fn score(&self, s: usize, a: usize) -> Vec<f64> {
        let Mdp { num_states, num_actions, .. } = self.mdp;
        let mut score = vec![0.0; self.theta.len()];
        for b in 0..num_actions {
            let hit = f64::from(u8::from(a == b));
            let d = hit - self.exact.policy[s * num_actions + b];
            score[b * num_states + s] = d;
            score[num_actions * num_states + b] = d;
        }
        score
    }

    /// Σ over states and actions of weight(s) π(a | s) f(s, a, ∇ log π).
    fn expect(&self, weights: &[f64], mut f: impl FnMut(f64, usize, &[f64])) {
        let num_actions = self.mdp.num_actions;
        for (i, pi) in self.exact.policy.iter().enumerate() {
            let (s, a) = (i / num_actions, i % num_actions);
            f(weights[s] * pi, i, &self.score(s, a));
        }
    }

    /// F = E[∇ log π ∇ log πᵀ], written out.
    fn dense_fisher(&self) -> Vec<Vec<f64>> {
        let mut fisher = vec![vec![0.0; self.theta.len()]; self.theta.len()];
        self.expect(&self.state_weights(), |weight, _, score| {
            for (row, x) in fisher.iter_mut().zip(score) {
                row.iter_mut().zip(score).for_each(|(sum, y)| *sum += weight * x * y);
            }
        });
        fisher
    }

    /// ∇J by the theorem, written out: Σ d(s) π(a | s) A(s, a) ∇ log π(a | s).
    fn dense_gradient(&self) -> Vec<f64> {
        let mut gradient = vec![0.0; self.theta.len()];
        self.expect(&self.occupancy, |weight, i, score| {
            let advantage = self.exact.advantage[i];
            gradient.iter_mut().zip(score).for_each(|(sum, s)| *sum += weight * advantage * s);
        });
        gradient
    }

    /// ∇J from the crates' scores and backward pass.
    fn gradient(&self, point: &mut Point<'_>) -> Vec<f64> {
        let num_actions = self.mdp.num_actions;
        let mut d = vec![0.0; point.params.len()];
        for (i, (pi, advantage)) in self.exact.policy.iter().zip(&self.exact.advantage).enumerate()
        {
            let (s, a) = (i / num_actions, i % num_actions);
            let row = s * num_actions..(s + 1) * num_actions;
            let psi = self.occupancy[s] * pi * advantage;
            let action = [a as f64];
            let pi = &self.network.distribution;
            pi.add_score(&point.params[row.clone()], None, &action, psi, &mut d[row]);
        }
        point.backward(&d)
    }

    /// (F + c I)⁻¹ ∇J by conjugate gradient, and (F + c I) of it.
    fn direction(&self, damping: f64) -> (Vec<f64>, Vec<f64>) {
        let mut point = self.point();
        let g = self.gradient(&mut point);
        let weights = self.state_weights();
        let mut x = vec![0.0; g.len()];
        let mut solver = ConjugateGradient::new(2000, 1e-30, damping);
        let solved = solver.solve(&g, &mut x, |v, out| {
            out.copy_from_slice(&point.fisher_product(&weights, v));
        });
        assert!(solved.steps < 2000, "{} states: no solution, {solved:?}", self.mdp.num_states);
        (x, solver.product().to_vec())
    }
}

/// d = ρ + γ (P^π)ᵀ d, by iteration: the sum over t, until γ^t has vanished.
fn occupancy(mdp: &Mdp, policy: &[f64]) -> Vec<f64> {
    let mut now = mdp.initial.clone();
    let mut sum = vec![0.0; mdp.num_states];
    for _ in 0..2000 {
        let mut next = vec![0.0; mdp.num_states];
        for (i, pi) in policy.iter().enumerate() {
            let (s, a) = (i / mdp.num_actions, i % mdp.num_actions);
            for t in mdp.outcomes(s, a).iter().filter(|t| !t.terminated) {
                next[t.next] += mdp.gamma * now[s] * pi * t.probability;
            }
        }
        sum.iter_mut().zip(&now).for_each(|(sum, now)| *sum += now);
        now = next;
    }
    sum
}

/// The solution of A x = b for a symmetric positive definite A, by its Cholesky factor.
fn solve_dense(mut a: Vec<Vec<f64>>, mut b: Vec<f64>) -> Vec<f64> {
    let n = b.len();
    for i in 0..n {
        for j in 0..=i {
            let known: f64 = (0..j).map(|k| a[i][k] * a[j][k]).sum();
            let rest = a[i][j] - known;
            a[i][j] = if i == j { rest.sqrt() } else { rest / a[j][j] };
        }
        let known: f64 = (0..i).map(|k| a[i][k] * b[k]).sum();
        b[i] = (b[i] - known) / a[i][i];
    }
    for i in (0..n).rev() {
        let known: f64 = (i + 1..n).map(|k| a[k][i] * b[k]).sum();
        b[i] = (b[i] - known) / a[i][i];
    }
    b
}

fn norm(x: &[f64]) -> f64 {
    x.iter().map(|x| x * x).sum::<f64>().sqrt()
}

/// ‖got − want‖ / ‖want‖.
fn relative_error(got: &[f64], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len());
    let difference: Vec<f64> = got.iter().zip(want).map(|(g, w)| g - w).collect();
    norm(&difference) / norm(want)
}

#[test]
fn occupancies_and_gradients_are_those_of_the_exact_solution() {
    for case in cases() {
        // The solution's own gradient, in the table of logits, contains its occupancy.
        let num_actions = case.mdp.num_actions;
        let entry = |i: usize| {
            case.occupancy[i / num_actions] * case.exact.policy[i] * case.exact.advantage[i]
        };
        let table: Vec<f64> = (0..case.exact.gradient.len()).map(entry).collect();
        assert!(relative_error(&table, &case.exact.gradient) < 1e-12);
        let got = case.gradient(&mut case.point());
        assert!(relative_error(&got, &case.dense_gradient()) < 1e-13);
    }
}

#[test]
fn products_are_those_of_the_dense_fisher_matrix() {
    for case in cases() {
        let (mut point, weights) = (case.point(), case.state_weights());
        let v: Vec<f64> = (0..case.theta.len()).map(|i| (0.7 * i as f64).cos()).collect();
        let dense = case.dense_fisher();
        let want: Vec<f64> =
            dense.iter().map(|row| row.iter().zip(&v).map(|(f, v)| f * v).sum()).collect();
        let error = relative_error(&point.fisher_product(&weights, &v), &want);
        assert!(error < 1e-13, "{} states: {error:e}", case.mdp.num_states);
    }
}

#[test]
fn the_natural_gradient_is_the_inverse_fisher_matrix_times_the_gradient() {
    // F is singular: a number added to all logits of a state changes nothing, nor does the logit of a
    // state that is never entered.
    for case in cases() {
        for damping in [0.1, 1e-3] {
            let (x, product) = case.direction(damping);
            let mut fisher = case.dense_fisher();
            (0..fisher.len()).for_each(|i| fisher[i][i] += damping);
            let gradient = case.dense_gradient();
            let want = solve_dense(fisher, gradient.clone());
            let error = relative_error(&x, &want);
            assert!(error < 1e-11, "{} states, c = {damping}: {error:e}", case.mdp.num_states);
            // It is another direction than the gradient's.
            let scale = norm(&want) / norm(&gradient);
            let steepest: Vec<f64> = gradient.iter().map(|g| scale * g).collect();
            assert!(relative_error(&steepest, &want) > 0.01);
            // ½ β² xᵀ (F + c I) x = δ with the dense solution: xᵀ (F + c I) x = xᵀ ∇J.
            let curvature: f64 = want.iter().zip(&gradient).map(|(x, g)| x * g).sum();
            let step = step_size(0.01, &x, &product).expect("a step");
            assert!((0.5 * step * step * curvature - 0.01).abs() < 1e-13);
        }
    }
}

/// Without damping, the natural gradient of a softmax table moves each state's logits by its
/// advantages, whatever the policy and however seldom the state occurs: Σ d(s') A(s, ·) and a number
/// that is the same for all actions.
///
/// Kakade 2001, theorem 1, for a table; Agarwal et al. 2021, arXiv:1908.00261.
#[test]
fn the_natural_gradient_of_a_table_is_its_advantage() {
    for case in [Case::new(chain()), Case::new(time_limited())] {
        let (x, _) = case.direction(1e-13);
        let logits = case.point().forward_derivative(&x);
        let total: f64 = case.occupancy.iter().sum();
        let num_actions = case.mdp.num_actions;
        let centered = |row: &[f64]| {
            let mean = row.iter().sum::<f64>() / row.len() as f64;
            row.iter().map(|x| x - mean).collect::<Vec<f64>>()
        };
        let got: Vec<f64> = logits.chunks_exact(num_actions).flat_map(centered).collect();
        let want: Vec<f64> =
            case.exact.advantage.chunks_exact(num_actions).flat_map(centered).collect();
        let want: Vec<f64> = want.iter().map(|a| total * a).collect();
        let error = relative_error(&got, &want);
        assert!(error < 1e-10, "{} states: {error:e}", case.mdp.num_states);
    }
}
