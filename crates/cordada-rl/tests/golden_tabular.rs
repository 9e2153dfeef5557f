//! Tabular values and control on FrozenLake: the family `tabular` of the golden data. The tables'
//! updates are written here; every target comes from `estimate::td_target`.

use cordada_rl::estimate::td_target::{double_q_value, epsilon_greedy_value, max_value, td_target};
use cordada_testkit::golden::{self, Case};

const STATES: usize = 16;
const ACTIONS: usize = 4;

#[test]
fn golden_tabular() {
    for case in golden::family("tabular") {
        match case.name.as_str() {
            "frozenlake_slippery_dp" | "frozenlake_deterministic_dp" => planning(&case),
            "frozenlake_slippery_control" | "frozenlake_deterministic_control" => control(&case),
            other => panic!("no test for the case {other}"),
        }
    }
}

/// Q(s, a) = Σ_k p_k (r_k + γ v(s'_k)), from the model's tensors and the values of states.
fn backup(case: &Case, values: &[f64]) -> Vec<f64> {
    let (prob, reward) = (&case.tensor("input/prob").data, &case.tensor("input/reward").data);
    let (next, done) = (case.tensor("input/next_state").indices(), case.tensor("input/done"));
    let outcomes = case.tensor("input/prob").shape[2];
    let gamma = case.param("gamma");
    let mut q = vec![0.0; STATES * ACTIONS];
    for (i, (&p, (&r, (&next, &done)))) in
        prob.iter().zip(reward.iter().zip(next.iter().zip(&done.data))).enumerate()
    {
        let discount = if done == 0.0 { gamma } else { 0.0 };
        q[i / outcomes] += p * td_target(r, discount, values[next]);
    }
    q
}

/// Repeats a backup until the values stay: γ < 1, so they do.
fn fixed_point(case: &Case, value: impl Fn(&[f64]) -> f64) -> (Vec<f64>, Vec<f64>) {
    let mut values = vec![0.0; STATES];
    loop {
        let q = backup(case, &values);
        let new: Vec<f64> = q.chunks_exact(ACTIONS).map(&value).collect();
        let change = new.iter().zip(&values).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        values = new;
        if change < 1e-14 {
            return (values, q);
        }
    }
}

fn planning(case: &Case) {
    let (v_star, q_star) = fixed_point(case, |q| max_value(q, None));
    case.check("output/v_star", &v_star);
    case.check("output/q_star", &q_star);
    // The uniform policy is the ε-greedy one with ε = 1.
    let (v_uniform, _) = fixed_point(case, |q| epsilon_greedy_value(q, None, 1.0));
    case.check("output/v_uniform", &v_uniform);
}

/// One recorded step.
struct Step {
    /// Counted from 0.
    t: usize,
    state: usize,
    action: usize,
    reward: f64,
    discount: f64,
    next_state: usize,
    next_action: usize,
}

/// Runs `update` over the recorded steps, and returns what `table` shows at the snapshots.
fn run<T>(
    case: &Case,
    mut tables: T,
    update: impl Fn(&mut T, &Step),
    table: impl Fn(&T) -> &[f64],
) -> (Vec<f64>, T) {
    let index = |key: &str| case.tensor(key).indices();
    let (states, actions) = (index("input/state"), index("input/action"));
    let (next_states, next_actions) = (index("input/next_state"), index("input/next_action"));
    let (rewards, terminated) = (case.tensor("input/reward"), case.tensor("input/terminated"));
    let at = case.params["snapshots_at"].as_array().expect("a list of steps");
    let at: Vec<u64> = at.iter().map(|step| step.as_u64().expect("a step")).collect();
    let mut snapshots = Vec::new();
    for t in 0..states.len() {
        let step = Step {
            t,
            state: states[t],
            action: actions[t],
            reward: rewards.data[t],
            // Truncated or not: only a termination ends the future.
            discount: if terminated.data[t] == 0.0 { case.param("gamma") } else { 0.0 },
            next_state: next_states[t],
            next_action: next_actions[t],
        };
        update(&mut tables, &step);
        if at.contains(&(t as u64 + 1)) {
            snapshots.extend_from_slice(table(&tables));
        }
    }
    assert!(!snapshots.is_empty(), "{}: no snapshots", case.name);
    (snapshots, tables)
}

/// Moves a table's entry towards its target.
fn learn(entry: &mut f64, alpha: f64, target: f64) {
    *entry += alpha * (target - *entry);
}

fn row(table: &[f64], state: usize) -> &[f64] {
    &table[state * ACTIONS..][..ACTIONS]
}

/// The value of the next state, from its row of the table.
type NextValue<'a> = &'a dyn Fn(&[f64], &Step) -> f64;

fn control(case: &Case) {
    let (alpha, epsilon) = (case.param("alpha"), case.param("epsilon"));
    // Values of the next state by method, from the table that is learned.
    let methods: [(&str, NextValue<'_>); 3] = [
        ("q_learning", &|q, _| max_value(q, None)),
        ("sarsa", &|q, step| q[step.next_action]),
        ("expected_sarsa", &|q, _| epsilon_greedy_value(q, None, epsilon)),
    ];
    for (name, next_value) in methods {
        let update = |q: &mut Vec<f64>, step: &Step| {
            let next_value = next_value(row(q, step.next_state), step);
            let target = td_target(step.reward, step.discount, next_value);
            learn(&mut q[step.state * ACTIONS + step.action], alpha, target);
        };
        let (snapshots, _) = run(case, vec![0.0; STATES * ACTIONS], update, |q| q);
        case.check(&format!("output/{name}"), &snapshots);
    }
    let update = |v: &mut Vec<f64>, step: &Step| {
        let target = td_target(step.reward, step.discount, v[step.next_state]);
        learn(&mut v[step.state], alpha, target);
    };
    let (snapshots, _) = run(case, vec![0.0; STATES], update, |v| v);
    case.check("output/td0_value", &snapshots);
    double_q(case, alpha);
}

fn double_q(case: &Case, alpha: f64) {
    let update = |[a, b]: &mut [Vec<f64>; 2], step: &Step| {
        let (learned, other) = if step.t.is_multiple_of(2) { (a, b) } else { (b, a) };
        let (choosing, judging) = (row(learned, step.next_state), row(other, step.next_state));
        let next_value = double_q_value(choosing, judging, None);
        let target = td_target(step.reward, step.discount, next_value);
        learn(&mut learned[step.state * ACTIONS + step.action], alpha, target);
    };
    let zeros = || vec![0.0; STATES * ACTIONS];
    let (snapshots, [_, b]) = run(case, [zeros(), zeros()], update, |[a, _]| a);
    case.check("output/double_q", &snapshots);
    case.check("output/double_q_b_final", &b);
}
