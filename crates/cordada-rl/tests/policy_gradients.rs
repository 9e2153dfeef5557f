//! The gradient of a whole policy: PPO's objective through distribution, networks and the layout
//! of θ, against central differences in `f64`; what the gradient is at `θ_old`; and that the
//! parameters cover θ. How the gradient is estimated from episodes is shown in `theorem.rs`.

use cordada_env::{Space, Stream, role};
use cordada_nn::Real;
use cordada_rl::objective::{ValueClip, clipped_surrogate, clipped_value_loss, policy_gradient};
use cordada_rl::policy::{
    ActorCritic, ActorCriticSpec, Encoder, LogStd, PolicyTape, PolicyWeights,
};
use cordada_testkit::gradient::assert_gradient;

const INPUTS: usize = 4;
/// Rows of a batch.
const ROWS: usize = 8;
const CLIP_EPS: f64 = 0.2;
const VALUE_COEF: f64 = 0.5;
const ENTROPY_COEF: f64 = 0.03;

fn spec(action_space: Space, (log_std, squash): (LogStd, bool)) -> ActorCriticSpec {
    ActorCriticSpec {
        inputs: INPUTS,
        action_space,
        encoder: Encoder::Flat,
        trunk: Vec::new(),
        memory: None,
        actor: vec![5, 3],
        critic: Some(vec![4]),
        activation: "tanh".into(),
        layer_norm: false,
        log_std,
        squash,
    }
}

/// Every action space, with every kind of log standard deviation.
fn spaces() -> Vec<ActorCriticSpec> {
    let unbounded = Space::vector(&[f32::NEG_INFINITY; 2], &[f32::INFINITY; 2]);
    let bounded = Space::vector(&[-2.0, 0.0], &[1.0, 0.5]);
    let shared = (LogStd::Shared, false);
    vec![
        spec(Space::Discrete { n: 3 }, shared),
        spec(Space::MultiDiscrete { nvec: vec![3, 2] }, shared),
        spec(Space::MultiBinary { n: 3 }, shared),
        spec(unbounded.clone(), shared),
        spec(unbounded, (LogStd::PerState, false)),
        spec(bounded.clone(), (LogStd::Shared, true)),
        spec(bounded, (LogStd::PerState, true)),
    ]
}

/// Every action space with and without a shared trunk and layer norm.
fn specs() -> Vec<ActorCriticSpec> {
    let mut all = Vec::new();
    for spec in spaces() {
        for (trunk, layer_norm) in [(false, false), (false, true), (true, false), (true, true)] {
            let trunk = if trunk { vec![6] } else { Vec::new() };
            all.push(ActorCriticSpec { trunk, layer_norm, ..spec.clone() });
        }
    }
    // A head right on the trunk, and an activation whose derivative needs its input.
    let (actor, critic, activation) = (Vec::new(), Some(Vec::new()), "gelu".into());
    all.push(ActorCriticSpec {
        trunk: vec![6, 5],
        actor,
        critic,
        activation,
        ..spaces().remove(0)
    });
    all
}

/// A policy with parameters of ordinary size: neither the zeros nor the small head of a fresh one,
/// which would leave parts of the gradient at 0.
struct Policy<T> {
    network: ActorCritic,
    theta: Vec<T>,
}

impl<T: Real> Policy<T> {
    fn new(spec: &ActorCriticSpec, stream: &mut Stream) -> Self {
        let network = ActorCritic::new(spec);
        let mut theta: Vec<T> =
            (0..network.num_params()).map(|_| T::of(0.6 * stream.normal())).collect();
        for param in network.params().iter().filter(|p| p.name.ends_with("norm.weight")) {
            theta[param.range.clone()].iter_mut().for_each(|w| *w += T::ONE);
        }
        Self { network, theta }
    }

    fn weights(&self, theta: &[T]) -> PolicyWeights<T> {
        let mut weights = self.network.weights();
        self.network.pack(theta, &mut weights);
        weights
    }
}

/// What a rollout leaves: inputs, masks, actions and what was computed at `θ_old`.
struct Batch<T> {
    x: Vec<T>,
    masks: Option<Vec<bool>>,
    actions: Vec<T>,
    old_log_prob: Vec<T>,
    advantages: Vec<T>,
    old_values: Vec<T>,
    targets: Vec<T>,
}

impl<T: Real> Batch<T> {
    /// Acts row by row, as a rollout with one environment does: `θ_old` = θ.
    fn collect(policy: &Policy<T>, stream: &mut Stream) -> Self {
        let pi = policy.network.distribution();
        let (weights, mut tape) = (policy.weights(&policy.theta), PolicyTape::default());
        let mut normals = |n: usize| -> Vec<T> { (0..n).map(|_| T::of(stream.normal())).collect() };
        let (x, advantages, targets) = (normals(ROWS * INPUTS), normals(ROWS), normals(ROWS));
        // One forbidden choice in every other row; each block keeps its first choice.
        let masks = (pi.mask_len() > 0).then(|| {
            (0..ROWS * pi.mask_len()).map(|i| i % (2 * pi.mask_len()) != 1).collect::<Vec<_>>()
        });
        let mut actions = vec![T::ZERO; ROWS * pi.action_len()];
        let (mut old_log_prob, mut old_values) = (Vec::new(), Vec::new());
        for (i, action) in actions.chunks_exact_mut(pi.action_len()).enumerate() {
            let x = &x[i * INPUTS..(i + 1) * INPUTS];
            let mask = masks.as_ref().map(|m| &m[i * pi.mask_len()..(i + 1) * pi.mask_len()]);
            let (params, value) = policy.network.forward(&weights, x, None, &mut tape);
            pi.sample(params, mask, stream, action);
            old_log_prob.push(pi.log_prob(params, mask, action));
            old_values.push(value[0]);
        }
        Self { x, masks, actions, old_log_prob, advantages, old_values, targets }
    }

    /// Moves `θ_old` away, so that ratios and values lie on both sides of the clips and not near
    /// their edges.
    fn make_old(&mut self) {
        const RATIOS: [f64; 4] = [0.6, 0.9, 1.1, 1.5];
        const MOVES: [f64; 4] = [-0.7, 0.1, 0.7, -0.1];
        for i in 0..ROWS {
            self.old_log_prob[i] -= T::of(RATIOS[i % 4]).ln();
            self.old_values[i] -= T::of(MOVES[i % 4]);
            // Both signs with every ratio; values on both sides of the targets.
            let size = self.advantages[i].abs() + T::of(0.3);
            self.advantages[i] = if i < 4 { size } else { -size };
            let gap = T::of(if i < 4 { 1.6 } else { -1.7 });
            self.targets[i] = self.old_values[i] + gap;
        }
    }

    fn masks(&self) -> Option<&[bool]> {
        self.masks.as_deref()
    }
}

/// Objective of one sample and its ψ.
type Objective<'a, T> = &'a dyn Fn(usize, T) -> (T, T);

/// Eq. (9) of Schulman et al. 2017, arXiv:1707.06347, and its gradient in θ.
///
/// ```text
/// L(θ) = mean_t( L^CLIP_t − c₁ L^VF_t + c₂ S[π_θ](s_t) )
/// ```
///
/// With another objective in the place of `L^CLIP`, the same of that.
fn objective<T: Real>(
    policy: &Policy<T>,
    theta: &[T],
    batch: &Batch<T>,
    value_clip: ValueClip<T>,
    term: Objective<'_, T>,
) -> (T, Vec<T>) {
    let pi = policy.network.distribution();
    let (value_coef, entropy_coef) = (T::of(VALUE_COEF), T::of(ENTROPY_COEF));
    let weight = T::ONE / T::of(ROWS as f64);
    let (weights, mut tape) = (policy.weights(theta), PolicyTape::default());
    let (params, values) = policy.network.forward(&weights, &batch.x, None, &mut tape);
    let (mut log_prob, mut entropy) = (vec![T::ZERO; ROWS], vec![T::ZERO; ROWS]);
    let (masks, actions) = (batch.masks(), &batch.actions);
    pi.log_prob_entropy_batch(params, masks, actions, &mut log_prob, &mut entropy);
    let (mut sum, mut psi, mut d_values) = (T::ZERO, Vec::new(), Vec::new());
    for i in 0..ROWS {
        let (value, old) = (values[i], batch.old_values[i]);
        let regression = clipped_value_loss(value, old, batch.targets[i], value_clip);
        let (surrogate, slope) = term(i, log_prob[i]);
        sum += surrogate - value_coef * regression.loss + entropy_coef * entropy[i];
        psi.push(weight * slope);
        d_values.push(-value_coef * weight * regression.d_value);
    }
    let mut d_params = vec![T::ZERO; params.len()];
    let coef = entropy_coef * weight;
    pi.add_score_entropy_batch(params, masks, actions, &psi, coef, &mut d_params);
    let mut grad = vec![T::ZERO; theta.len()];
    policy.network.backward(
        &weights,
        &batch.x,
        &mut tape,
        (Some(&d_params), Some(&d_values)),
        &mut grad,
    );
    (weight * sum, grad)
}

#[test]
fn the_gradient_of_ppo_is_that_of_its_objective() {
    let clips = [ValueClip::Off, ValueClip::Hold(0.4), ValueClip::Max(0.4)];
    for (i, spec) in specs().iter().enumerate() {
        let mut stream = Stream::new(11, role::POLICY, i as u32);
        let policy = Policy::<f64>::new(spec, &mut stream);
        let mut batch = Batch::collect(&policy, &mut stream);
        batch.make_old();
        let clipped = |i: usize, log_prob: f64| {
            let (old, advantage) = (batch.old_log_prob[i], batch.advantages[i]);
            let term = clipped_surrogate(log_prob, old, advantage, CLIP_EPS);
            (term.objective, term.psi)
        };
        // Two of eight samples are held by the clip: r = 1.5 with A > 0, r = 0.6 with A < 0.
        let held = |i: &usize| clipped(*i, policy_log_prob(&policy, &batch, *i)).1 == 0.0;
        assert_eq!((0..ROWS).filter(held).collect::<Vec<_>>(), [3, 4], "{spec:?}");
        for clip in clips {
            let run = |theta: &[f64]| objective(&policy, theta, &batch, clip, &clipped);
            let grad = run(&policy.theta).1;
            let zeros = grad.iter().filter(|&&g| g == 0.0).count();
            assert_eq!(zeros, 0, "{spec:?}: components without a gradient");
            let what = format!("{clip:?}, {spec:?}");
            assert_gradient(&what, &policy.theta, &grad, 1e-7, |theta| run(theta).0);
        }
    }
}

/// log π of row `i` at the policy's θ.
fn policy_log_prob(policy: &Policy<f64>, batch: &Batch<f64>, i: usize) -> f64 {
    let (pi, mut tape) = (policy.network.distribution(), PolicyTape::default());
    let x = &batch.x[i * INPUTS..(i + 1) * INPUTS];
    let params = policy.network.act(&policy.weights(&policy.theta), x, &mut [], &mut tape);
    let mask = batch.masks().map(|m| &m[i * pi.mask_len()..(i + 1) * pi.mask_len()]);
    pi.log_prob(params, mask, &batch.actions[i * pi.action_len()..(i + 1) * pi.action_len()])
}

/// At `θ_old` both objectives have one gradient, bit for bit; in the number type that trains too.
fn assert_policy_gradient_at_old<T: Real>() {
    for (i, spec) in specs().iter().enumerate() {
        let mut stream = Stream::new(12, role::POLICY, i as u32);
        let policy = Policy::<T>::new(spec, &mut stream);
        let batch = Batch::collect(&policy, &mut stream);
        let clipped = |i: usize, log_prob: T| {
            let (old, advantage) = (batch.old_log_prob[i], batch.advantages[i]);
            let term = clipped_surrogate(log_prob, old, advantage, T::of(CLIP_EPS));
            assert_eq!((term.ratio, term.clipped), (T::ONE, false), "row {i}: {spec:?}");
            (term.objective, term.psi)
        };
        let plain = |i: usize, log_prob: T| {
            let term = policy_gradient(log_prob, batch.advantages[i]);
            (term.objective, term.psi)
        };
        let gradient = |term: Objective<'_, T>| {
            objective(&policy, &policy.theta, &batch, ValueClip::Off, term).1
        };
        assert_eq!(gradient(&clipped), gradient(&plain), "{spec:?}");
        let other = |i: usize, log_prob: T| (plain(i, log_prob).0, -batch.advantages[i]);
        assert_ne!(gradient(&clipped), gradient(&other), "{spec:?}: advantages play no part");
    }
}

#[test]
fn ppo_at_the_old_policy_is_the_policy_gradient_bit_for_bit() {
    assert_policy_gradient_at_old::<f32>();
    assert_policy_gradient_at_old::<f64>();
}

/// All actions of a discrete space.
fn all_actions(space: &Space) -> Vec<Vec<f64>> {
    let sizes = match space {
        Space::Discrete { n } => vec![*n],
        Space::MultiDiscrete { nvec } => nvec.clone(),
        Space::MultiBinary { n } => vec![2; *n],
        _ => return Vec::new(),
    };
    let mut all = vec![Vec::new()];
    for size in sizes {
        let longer = |a: &Vec<f64>| (0..size).map(|i| [&a[..], &[i as f64]].concat()).collect();
        all = all.iter().flat_map(|a| -> Vec<Vec<f64>> { longer(a) }).collect();
    }
    all
}

/// Σ_a π(a | s) ∇ log π(a | s) = 0: what lets a baseline cancel.
#[test]
fn the_expected_score_of_a_discrete_policy_is_zero() {
    let mut tested = 0;
    for (i, spec) in specs().iter().enumerate() {
        let actions = all_actions(&spec.action_space);
        if actions.is_empty() {
            continue;
        }
        tested += 1;
        let mut stream = Stream::new(13, role::POLICY, i as u32);
        let policy = Policy::<f64>::new(spec, &mut stream);
        let pi = policy.network.distribution();
        let batch = Batch::collect(&policy, &mut stream);
        let mask = batch.masks().map(|m| &m[..pi.mask_len()]);
        let (weights, mut tape) = (policy.weights(&policy.theta), PolicyTape::default());
        let mut score = |weighted: &[(f64, &Vec<f64>)]| {
            let x = &batch.x[..INPUTS];
            let params = policy.network.forward(&weights, x, None, &mut tape).0;
            let mut d_params = vec![0.0; params.len()];
            for &(factor, action) in weighted {
                let psi = factor * pi.log_prob(params, mask, action).exp();
                pi.add_score(params, mask, action, psi, &mut d_params);
            }
            let mut grad = vec![0.0; policy.theta.len()];
            policy.network.backward(
                &weights,
                x,
                &mut tape,
                (Some(&d_params), Some(&[0.0])),
                &mut grad,
            );
            grad.iter().fold(0.0, |max: f64, g| max.max(g.abs()))
        };
        let all: Vec<_> = actions.iter().map(|action| (1.0, action)).collect();
        let largest = score(&all);
        assert!(largest < 1e-15, "{spec:?}: expected score {largest:e}");
        // The first action is allowed everywhere: without it the sum is far from 0.
        assert!(score(&all[1..]) > 1e-3, "{spec:?}: no action has a score");
    }
    assert_eq!(tested, 13);
}

#[test]
fn parameters_cover_theta_once_and_do_what_their_names_say() {
    for (i, spec) in specs().iter().enumerate() {
        let mut stream = Stream::new(14, role::POLICY, i as u32);
        let policy = Policy::<f64>::new(spec, &mut stream);
        let params = policy.network.params();
        let mut at = 0;
        for param in &params {
            assert_eq!(param.range.start, at, "{}: {spec:?}", param.name);
            let size: usize = param.shape.iter().product();
            assert_eq!(param.range.len(), size, "{}: {:?}", param.name, param.shape);
            at = param.range.end;
        }
        assert_eq!(at, policy.theta.len(), "{spec:?}");
        let mut names: Vec<&str> = params.iter().map(|p| &p.name[..]).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), params.len(), "a name stands twice: {params:?}");
        let shared = matches!(spec.action_space, Space::Box(_)) && spec.log_std == LogStd::Shared;
        let log_std = params.iter().find(|p| p.name == "log_std").map(|p| p.range.clone());
        assert_eq!((log_std.is_some(), &log_std), (shared, &policy.network.log_std_range()));

        let x: Vec<f64> = (0..ROWS * INPUTS).map(|_| stream.normal()).collect();
        let outputs = |theta: &[f64]| {
            let (weights, mut tape) = (policy.weights(theta), PolicyTape::default());
            let (params, values) = policy.network.forward(&weights, &x, None, &mut tape);
            (params.to_vec(), values.to_vec())
        };
        let before = outputs(&policy.theta);
        for param in &params {
            let part = param.name.split('.').next().expect("a part");
            let moves = match part {
                "trunk" => (true, true),
                "actor" | "log_std" => (true, false),
                "critic" => (false, true),
                _ => panic!("unknown part {part}"),
            };
            for i in param.range.clone() {
                let mut theta = policy.theta.clone();
                theta[i] += 0.1;
                let after = outputs(&theta);
                let moved = (after.0 != before.0, after.1 != before.1);
                assert_eq!(moved, moves, "{} at {i}: {spec:?}", param.name);
            }
        }
    }
}
