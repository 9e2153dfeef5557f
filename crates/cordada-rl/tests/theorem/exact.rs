//! Value, advantage, occupancy and the gradient of a softmax policy by linear equations in `f64`.
//! Uses nothing of the crate under test, not even its softmax.

use crate::mdp::Mdp;

/// What is known of a policy without any sampling.
#[derive(Clone, Debug)]
pub(crate) struct Exact {
    /// π(a | s): `[S, A]`.
    pub(crate) policy: Vec<f64>,
    /// V(s): `[S]`.
    pub(crate) value: Vec<f64>,
    /// A(s, a) = Q(s, a) − V(s): `[S, A]`.
    pub(crate) advantage: Vec<f64>,
    /// J = Σ ρ(s) V(s), ρ being where episodes start.
    pub(crate) objective: f64,
    /// ∇J by the policy gradient theorem: `[S, A]`.
    pub(crate) gradient: Vec<f64>,
}

/// Solves A x = b by Gaussian elimination with row exchanges.
fn solve_linear(mut a: Vec<Vec<f64>>, mut b: Vec<f64>) -> Vec<f64> {
    let n = b.len();
    for column in 0..n {
        let larger = |&i: &usize, &j: &usize| a[i][column].abs().total_cmp(&a[j][column].abs());
        let pivot = (column..n).max_by(larger).expect("a row is left");
        a.swap(column, pivot);
        b.swap(column, pivot);
        let (above, below) = a.split_at_mut(column + 1);
        let top = &above[column];
        for (i, row) in below.iter_mut().enumerate() {
            let factor = row[column] / top[column];
            for (x, &t) in row.iter_mut().zip(top).skip(column) {
                *x -= factor * t;
            }
            b[column + 1 + i] -= factor * b[column];
        }
    }
    for i in (0..n).rev() {
        let known: f64 = (i + 1..n).map(|j| a[i][j] * b[j]).sum();
        b[i] = (b[i] - known) / a[i][i];
    }
    b
}

/// π(a | s) ∝ exp θ[s][a].
fn softmax(mdp: &Mdp, theta: &[f64]) -> Vec<f64> {
    let row = |row: &[f64]| {
        let sum: f64 = row.iter().map(|x| x.exp()).sum();
        row.iter().map(|x| x.exp() / sum).collect::<Vec<_>>()
    };
    theta.chunks_exact(mdp.num_actions).flat_map(row).collect()
}

/// P^π(s' | s), without the transitions that end an episode: `[S][S]`.
fn transition_matrix(mdp: &Mdp, policy: &[f64]) -> Vec<Vec<f64>> {
    let mut matrix = vec![vec![0.0; mdp.num_states]; mdp.num_states];
    for (i, &pi) in policy.iter().enumerate() {
        for t in mdp.transitions[i].iter().filter(|t| !t.terminated) {
            matrix[i / mdp.num_actions][t.next] += pi * t.probability;
        }
    }
    matrix
}

/// I − γ M.
fn resolvent(matrix: &[Vec<f64>], gamma: f64) -> Vec<Vec<f64>> {
    let entry = |i: usize, j: usize| f64::from(u8::from(i == j)) - gamma * matrix[i][j];
    (0..matrix.len()).map(|i| (0..matrix.len()).map(|j| entry(i, j)).collect()).collect()
}

/// Q(s, a) = Σ p (r + γ V(s')): `[S, A]`.
fn q_value(mdp: &Mdp, value: &[f64]) -> Vec<f64> {
    let next = |terminated: bool, state: usize| if terminated { 0.0 } else { value[state] };
    mdp.transitions
        .iter()
        .map(|outcomes| {
            outcomes
                .iter()
                .map(|t| t.probability * (t.reward + mdp.gamma * next(t.terminated, t.next)))
                .sum()
        })
        .collect()
}

/// The theorem for a table: ∂J/∂θ[s][a] = d(s) π(a | s) A(s, a).
fn theorem(policy: &[f64], advantage: &[f64], occupancy: &[f64]) -> Vec<f64> {
    let num_actions = policy.len() / occupancy.len();
    (0..policy.len()).map(|i| occupancy[i / num_actions] * policy[i] * advantage[i]).collect()
}

/// Solves the Bellman equations of the softmax policy with table `theta`.
///
/// ```text
/// (I − γ P^π) V = r^π        (I − γ P^π)ᵀ d = ρ        d(s) = Σ_t γ^t Pr(s_t = s)
/// ```
pub(crate) fn solve(mdp: &Mdp, theta: &[f64]) -> Exact {
    let policy = softmax(mdp, theta);
    let matrix = transition_matrix(mdp, &policy);
    let rewards: Vec<f64> = policy
        .chunks_exact(mdp.num_actions)
        .zip(q_value(mdp, &vec![0.0; mdp.num_states]).chunks_exact(mdp.num_actions))
        .map(|(pi, r)| pi.iter().zip(r).map(|(pi, r)| pi * r).sum())
        .collect();
    let value = solve_linear(resolvent(&matrix, mdp.gamma), rewards);
    let transposed: Vec<Vec<f64>> =
        (0..mdp.num_states).map(|j| matrix.iter().map(|row| row[j]).collect()).collect();
    let occupancy = solve_linear(resolvent(&transposed, mdp.gamma), mdp.initial.clone());
    let mut advantage = q_value(mdp, &value);
    for (i, a) in advantage.iter_mut().enumerate() {
        *a -= value[i / mdp.num_actions];
    }
    let objective = mdp.initial.iter().zip(&value).map(|(p, v)| p * v).sum();
    let gradient = theorem(&policy, &advantage, &occupancy);
    Exact { policy, value, advantage, objective, gradient }
}

/// What the steps t < `limit` contribute to ∇J, and the discounted distribution γ^L Pr(s_L = s)
/// of the states that a limit cuts at: `([S, A], [S])`.
pub(crate) fn split_at_limit(mdp: &Mdp, exact: &Exact, limit: usize) -> (Vec<f64>, Vec<f64>) {
    let matrix = transition_matrix(mdp, &exact.policy);
    let mut now = mdp.initial.clone();
    let mut occupancy = vec![0.0; mdp.num_states];
    for _ in 0..limit {
        let mut next = vec![0.0; mdp.num_states];
        for (s, &p) in now.iter().enumerate() {
            occupancy[s] += p;
            for (to, m) in next.iter_mut().zip(&matrix[s]) {
                *to += mdp.gamma * p * m;
            }
        }
        now = next;
    }
    (theorem(&exact.policy, &exact.advantage, &occupancy), now)
}
