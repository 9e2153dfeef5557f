//! The policy gradient theorem on processes small enough to be solved exactly: what the crate's
//! estimators, objectives and scores make of sampled episodes is compared with the gradient
//! itself, and defects that are common in practice must be seen.
//!
//! ```text
//! ∂J/∂θ[s][a] = d(s) π(a | s) A(s, a),   d(s) = Σ_t γ^t Pr(s_t = s)
//! ∇J = E[ Σ_t γ^t ψ_t ∇ log π(a_t | s_t) ]
//! ```
//!
//! The factor γ^t belongs to the gradient of the discounted return, so it stands here. Deployed
//! algorithms leave it out and follow the gradient in the undiscounted state distribution instead;
//! among the controls below that counts as a defect, because it is another vector.

#[path = "theorem/exact.rs"]
mod exact;
#[path = "theorem/mdp.rs"]
mod mdp;
#[path = "theorem/sample.rs"]
mod sample;

use cordada_env::{Outcome, Stream, role};
use cordada_rl::distribution::{Categorical, Distribution};
use cordada_rl::estimate::{
    Segment, VtraceConfig, discounted_returns, gae, n_step_returns, reward_to_go,
    td_lambda_returns, vtrace,
};
use cordada_rl::objective::{clipped_surrogate, policy_gradient};
use cordada_testkit::gradient::assert_gradient;

use exact::{Exact, solve, split_at_limit};
use mdp::{Mdp, STAY_REWARD, chain, frozen_lake, time_limited};
use sample::{Critic, Episodes, norm};

/// An estimate agrees when no component is further from the exact gradient than so many standard
/// errors. Fixed beforehand: a normal number is, with probability 7 · 10⁻⁶; there are fewer than
/// 1000 components in this file, so all tests together would be wrong once in 150 choices of seeds.
const AGREES: f64 = 4.5;

/// A defect counts as seen when a component is at least so many standard errors off: no seed
/// produces that by chance.
const BIASED: f64 = 10.0;

/// Agreement means nothing where error bars are wide: at most so much of the gradient's norm.
const PRECISION: f64 = 0.1;

/// A process, a policy in it and the exact solution.
struct Case {
    mdp: Mdp,
    theta: Vec<f64>,
    exact: Exact,
    /// What estimates converge to: ∇J, or its part before the time limit.
    want: Vec<f64>,
}

impl Case {
    fn new(mdp: Mdp, theta: Vec<f64>) -> Self {
        let exact = solve(&mdp, &theta);
        let want = match mdp.time_limit {
            None => exact.gradient.clone(),
            Some(limit) => split_at_limit(&mdp, &exact, limit).0,
        };
        Self { mdp, theta, exact, want }
    }

    fn chain() -> Self {
        Self::new(chain(), vec![0.2, 0.5, -0.1, 0.3])
    }

    /// A policy that prefers the best moves, with some noise: it reaches the goal often enough.
    fn frozen_lake() -> Self {
        const BEST: [usize; 16] = [0, 3, 3, 3, 0, 0, 0, 0, 3, 1, 0, 0, 0, 2, 1, 0];
        let mut stream = Stream::new(4, role::INIT, 0);
        let logit = |i: usize| if i % 4 == BEST[i / 4] { 3.0 } else { 0.0 };
        let theta = (0..64).map(|i| logit(i) + 0.3 * stream.normal()).collect();
        Self::new(frozen_lake(), theta)
    }

    fn time_limited() -> Self {
        Self::new(time_limited(), vec![0.3, -0.2, 0.1, 0.6, -0.4, 0.0])
    }

    /// A critic that is wrong in every state, by a different amount in each.
    fn wrong_critic(&self) -> Vec<f64> {
        let scale = self.exact.value.iter().fold(0.0, |max: f64, v| max.max(v.abs()));
        let wrong = |(s, v): (usize, &f64)| 0.5 * v + scale * (0.2 + 0.1 * (s * 7 % 5) as f64);
        self.exact.value.iter().enumerate().map(wrong).collect()
    }

    /// z of the estimate Σ ψ_t ∇ log π, by the objective of the policy gradient.
    fn z(&self, episodes: &Episodes, weights: &[f64]) -> f64 {
        let psi = |i: usize, log_prob| policy_gradient(log_prob, weights[i]).psi;
        episodes.gradient(self.mdp.num_actions, &self.theta, psi).max_z(&self.want)
    }
}

fn gae_weights<'a>(
    episodes: &Episodes,
    critic: impl Into<Critic<'a>>,
    (gamma, lambda): (f64, f64),
) -> Vec<f64> {
    let mut returns = vec![0.0; episodes.steps.len()];
    episodes.weights(critic, |s, out| gae(s, gamma, lambda, out, &mut returns))
}

/// The return of the whole episode, for each of its steps.
fn episode_returns(episodes: &Episodes, gamma: f64) -> Vec<f64> {
    let rewards: Vec<f64> = episodes.steps.iter().map(|step| step.reward).collect();
    let mut weights = Vec::new();
    for range in episodes.ranges() {
        let mut returns = vec![0.0; range.len()];
        let total = discounted_returns(&rewards[range.clone()], gamma, &mut returns);
        weights.resize(range.end, total);
    }
    weights
}

fn minus_value(episodes: &Episodes, value: &[f64], mut returns: Vec<f64>) -> Vec<f64> {
    for (weight, step) in returns.iter_mut().zip(&episodes.steps) {
        *weight -= value[step.state];
    }
    returns
}

type Named = Vec<(&'static str, Vec<f64>)>;

/// Weights whose gradient is ∇J whatever the process is: those that use the exact critic, and those
/// in which a critic cancels as long as the states that episodes are cut at have their true value.
fn unbiased(case: &Case, episodes: &Episodes) -> Named {
    let (gamma, value) = (case.mdp.gamma, &case.exact.value[..]);
    let wrong = case.wrong_critic();
    let wrong = Critic { value: &wrong, final_value: value };
    let to_go = |s: &Segment<'_, f64>, out: &mut [f64]| reward_to_go(s, gamma, out);
    let n_step = |s: &Segment<'_, f64>, out: &mut [f64]| {
        n_step_returns(s, gamma, 3, out, &mut vec![0; s.rewards.len()]);
    };
    let td_lambda = |s: &Segment<'_, f64>, out: &mut [f64]| td_lambda_returns(s, gamma, 0.7, out);
    let on_policy = |s: &Segment<'_, f64>, out: &mut [f64]| {
        let config = VtraceConfig { gamma, lambda: 1.0, rho_bar: 1.0, c_bar: 1.0, pg_rho_bar: 1.0 };
        let log_rhos = vec![0.0; s.rewards.len()];
        vtrace(s, &log_rhos, config, &mut vec![0.0; s.rewards.len()], out);
    };
    let with_value = |returns| minus_value(episodes, value, returns);
    let mut all = vec![
        ("reward-to-go", episodes.weights(value, to_go)),
        ("reward-to-go − V", with_value(episodes.weights(value, to_go))),
        (
            "reward-to-go − wrong V",
            minus_value(episodes, wrong.value, episodes.weights(value, to_go)),
        ),
        ("3-step − V", with_value(episodes.weights(value, n_step))),
        ("TD(0.7) − V", with_value(episodes.weights(value, td_lambda))),
        ("GAE(1)", gae_weights(episodes, value, (gamma, 1.0))),
        ("GAE(1), wrong V", gae_weights(episodes, wrong, (gamma, 1.0))),
        ("GAE(0.5)", gae_weights(episodes, value, (gamma, 0.5))),
        ("GAE(0)", gae_weights(episodes, value, (gamma, 0.0))),
        ("V-trace on-policy, wrong V", episodes.weights(wrong, on_policy)),
    ];
    for (_, weights) in &mut all {
        *weights = episodes.discounted(gamma, std::mem::take(weights));
    }
    if case.mdp.time_limit.is_none() {
        // G₀ = Σ γ^t r_t carries the discount in itself: no γ^t here.
        all.push(("REINFORCE, G₀", episode_returns(episodes, gamma)));
    }
    all
}

/// Weights with a defect each, on any process.
fn defective(case: &Case, episodes: &Episodes) -> Named {
    let (gamma, value) = (case.mdp.gamma, &case.exact.value[..]);
    let wrong = case.wrong_critic();
    let to_go = |gamma: f64| episodes.weights(value, |s, out| reward_to_go(s, gamma, out));
    let discounted = |weights| episodes.discounted(gamma, weights);
    let negative = |weights: Vec<f64>| weights.into_iter().map(|w| -w).collect();
    vec![
        ("GAE(0), wrong V", discounted(gae_weights(episodes, &wrong[..], (gamma, 0.0)))),
        ("GAE(0.8), wrong V", discounted(gae_weights(episodes, &wrong[..], (gamma, 0.8)))),
        ("wrong sign", negative(discounted(to_go(gamma)))),
        ("rewards without γ", discounted(to_go(1.0))),
        ("steps without γ^t", gae_weights(episodes, value, (gamma, 1.0))),
    ]
}

/// Weights with a defect at the time limit.
fn defective_at_limit(case: &Case, episodes: &Episodes) -> Named {
    let (gamma, value) = (case.mdp.gamma, &case.exact.value[..]);
    let mut terminated = episodes.clone();
    for step in &mut terminated.steps {
        if step.outcome == Outcome::Truncated {
            step.outcome = Outcome::Terminated;
        }
    }
    // What a vectorized environment shows after the step: the first state of the next episode.
    let mut reset = episodes.clone();
    for i in 1..reset.steps.len() {
        reset.steps[i - 1].next = reset.steps[i].state;
    }
    let weights =
        |wrong: &Episodes| episodes.discounted(gamma, gae_weights(wrong, value, (gamma, 1.0)));
    vec![
        ("truncation as termination", weights(&terminated)),
        ("bootstrap from the reset", weights(&reset)),
    ]
}

#[test]
fn the_chain_has_a_gradient_in_closed_form() {
    // p, q: probability of action 1 in states 0, 1; c = STAY_REWARD.
    //   V₀ = p γ V₁ + (1 − p)(c + γ V₀),   V₁ = q + (1 − q) γ V₀
    // so J = V₀ = N / D with N = γ p q + c (1 − p),  D = 1 − γ (1 − p) − γ² p (1 − q), and
    //   ∂J/∂p = ((γ q − c) D − N (γ − γ² (1 − q))) / D²,   ∂J/∂q = (γ p D − N γ² p) / D².
    // By softmax over two actions ∂p/∂θ[0][1] = p (1 − p) = −∂p/∂θ[0][0]; q likewise.
    let case = Case::chain();
    let (gamma, c) = (case.mdp.gamma, STAY_REWARD);
    let logistic = |x: f64| 1.0 / (1.0 + (-x).exp());
    let p = logistic(case.theta[1] - case.theta[0]);
    let q = logistic(case.theta[3] - case.theta[2]);
    let n = gamma * p * q + c * (1.0 - p);
    let d = 1.0 - gamma * (1.0 - p) - gamma * gamma * p * (1.0 - q);
    let by_p = ((gamma * q - c) * d - n * (gamma - gamma * gamma * (1.0 - q))) / (d * d);
    let by_q = (gamma * p * d - n * gamma * gamma * p) / (d * d);
    let (by_p, by_q) = (by_p * p * (1.0 - p), by_q * q * (1.0 - q));
    assert!((case.exact.objective - n / d).abs() < 1e-14);
    for (got, want) in case.exact.gradient.iter().zip([-by_p, by_p, -by_q, by_q]) {
        assert!((got - want).abs() < 1e-14, "{got}, closed form {want}");
        assert!(want.abs() > 0.01, "a gradient of 0 shows nothing");
    }
}

#[test]
fn the_theorem_gives_the_derivative_of_the_value() {
    for case in [Case::chain(), Case::frozen_lake(), Case::time_limited()] {
        let what = format!("{} states", case.mdp.num_states);
        let value = |theta: &[f64]| solve(&case.mdp, theta).objective;
        assert!(norm(&case.exact.gradient) > 0.01, "{what}: a gradient of 0 shows nothing");
        assert_gradient(&what, &case.theta, &case.exact.gradient, 1e-9, value);
    }
}

#[test]
fn what_a_time_limit_leaves_out_is_the_gradient_of_the_value_there() {
    // ∇J = Σ_{t<L} γ^t E[A ∇ log π] + γ^L E[∇V(s_L)]: cutting an episode biases nothing in the
    // steps before the cut, provided that they bootstrap.
    let case = Case::time_limited();
    let limit = case.mdp.time_limit.expect("a limit");
    let (mut sum, at_limit) = split_at_limit(&case.mdp, &case.exact, limit);
    let before = norm(&sum);
    for (s, &weight) in at_limit.iter().enumerate() {
        let mut from_here = case.mdp.clone();
        from_here.initial.fill(0.0);
        from_here.initial[s] = 1.0;
        let tail = solve(&from_here, &case.theta).gradient;
        sum.iter_mut().zip(tail).for_each(|(sum, g)| *sum += weight * g);
    }
    for (sum, want) in sum.iter().zip(&case.exact.gradient) {
        assert!((sum - want).abs() < 1e-14, "{sum}, expected {want}");
    }
    assert!(before < 0.9 * norm(&sum), "the limit comes so late that it leaves out nothing");
}

/// Without any sampling: the sum over all episodes that a limit of six steps allows.
#[test]
fn expectations_over_all_episodes_are_the_gradient() {
    let case = Case::time_limited();
    let episodes = Episodes::all(&case.mdp, &case.exact.policy);
    let total: f64 = episodes.probabilities.iter().sum();
    assert!((total - 1.0).abs() < 1e-13, "probabilities add up to {total}");
    let size = norm(&case.want);
    let error = |weights: &[f64]| {
        let psi = |i: usize, log_prob| policy_gradient(log_prob, weights[i]).psi;
        let got = episodes.gradient(case.mdp.num_actions, &case.theta, psi).mean;
        let difference: Vec<f64> = got.iter().zip(&case.want).map(|(g, w)| g - w).collect();
        norm(&difference) / size
    };
    for (what, weights) in unbiased(&case, &episodes) {
        let error = error(&weights);
        assert!(error < 1e-13, "{what}: relative error {error:e}");
    }
    let controls = [defective(&case, &episodes), defective_at_limit(&case, &episodes)].concat();
    for (what, weights) in controls {
        let error = error(&weights);
        println!("{what}: bias of {error:.3} of the gradient");
        assert!(error > 0.02, "{what}: not biased, relative error {error:e}");
    }
}

/// Every unbiased estimate agrees, within narrow error bars.
fn assert_agreement(case: &Case, episodes: &Episodes) -> Vec<String> {
    let mut report = Vec::new();
    for (what, weights) in unbiased(case, episodes) {
        let psi = |i: usize, log_prob| policy_gradient(log_prob, weights[i]).psi;
        let estimate = episodes.gradient(case.mdp.num_actions, &case.theta, psi);
        let (z, precision) = (estimate.max_z(&case.want), estimate.relative_error(&case.want));
        assert!(z < AGREES, "{what}: {z:.1} standard errors off");
        assert!(precision < PRECISION, "{what}: error bars of {precision:.3}");
        report.push(format!("{what}: max |z| {z:.2}, error bars {precision:.4}"));
    }
    report
}

/// Every defect is seen.
fn assert_detection(case: &Case, episodes: &Episodes, controls: &Named) -> Vec<String> {
    let mut report = Vec::new();
    for (what, weights) in controls {
        let z = case.z(episodes, weights);
        assert!(z > BIASED, "{what}: a bias not seen, {z:.1} standard errors");
        report.push(format!("{what}: max |z| {z:.1}"));
    }
    report
}

/// PPO's clipped surrogate at `θ_old` has the policy gradient's ψ, sample by sample, and so its
/// gradient bit for bit.
fn assert_ppo_is_the_policy_gradient(case: &Case, episodes: &Episodes) {
    let advantages = gae_weights(episodes, &case.exact.value[..], (case.mdp.gamma, 0.9));
    let advantages = episodes.discounted(case.mdp.gamma, advantages);
    // π_old is evaluated in one batch, as a rollout does, the new policy row by row.
    let width = case.mdp.num_actions;
    let rows = episodes.steps.iter().map(|s| &case.theta[s.state * width..(s.state + 1) * width]);
    let actions: Vec<f64> = episodes.steps.iter().map(|step| step.action as f64).collect();
    let (mut old, mut entropy) = (vec![0.0; actions.len()], vec![0.0; actions.len()]);
    let pi = Distribution::Categorical(Categorical::new(width));
    let rows: Vec<f64> = rows.flatten().copied().collect();
    pi.log_prob_entropy_batch(&rows, None, &actions, &mut old, &mut entropy);
    let clipped = |i: usize, log_prob: f64| {
        let term = clipped_surrogate(log_prob, old[i], advantages[i], 0.2);
        assert_eq!((term.psi, term.ratio), (advantages[i], 1.0), "sample {i}");
        term.psi
    };
    let got = episodes.gradient(width, &case.theta, clipped);
    let plain = |i: usize, log_prob| policy_gradient(log_prob, advantages[i]).psi;
    assert_eq!(got.mean, episodes.gradient(width, &case.theta, plain).mean);
    let z = got.max_z(&case.want);
    assert!(z < AGREES, "PPO at θ_old: {z:.1} standard errors off");
}

#[test]
fn estimates_agree_on_the_chain_and_defects_show() {
    let case = Case::chain();
    let episodes = Episodes::sample(&case.mdp, &case.theta, 100_000, 1);
    println!("{:#?}", assert_agreement(&case, &episodes));
    println!("{:#?}", assert_detection(&case, &episodes, &defective(&case, &episodes)));
    assert_ppo_is_the_policy_gradient(&case, &episodes);
}

#[test]
fn estimates_agree_on_the_frozen_lake_and_defects_show() {
    let case = Case::frozen_lake();
    let episodes = Episodes::sample(&case.mdp, &case.theta, 35_000, 2);
    println!("{:#?}", assert_agreement(&case, &episodes));
    println!("{:#?}", assert_detection(&case, &episodes, &defective(&case, &episodes)));
    assert_ppo_is_the_policy_gradient(&case, &episodes);
}

#[test]
fn estimates_agree_before_a_time_limit_and_defects_show() {
    let case = Case::time_limited();
    let episodes = Episodes::sample(&case.mdp, &case.theta, 200_000, 3);
    let cut = episodes.steps.iter().filter(|s| s.outcome == Outcome::Truncated).count();
    assert!((100_000..190_000).contains(&cut), "both kinds of end: {cut} of 200,000 cut");
    println!("{:#?}", assert_agreement(&case, &episodes));
    let controls = [defective(&case, &episodes), defective_at_limit(&case, &episodes)].concat();
    println!("{:#?}", assert_detection(&case, &episodes, &controls));
    assert_ppo_is_the_policy_gradient(&case, &episodes);
}

/// What each refinement is for: the same mean, with less variance.
#[test]
fn each_refinement_reduces_the_variance_on_the_chain() {
    let case = Case::chain();
    let episodes = Episodes::sample(&case.mdp, &case.theta, 20_000, 5);
    let all = unbiased(&case, &episodes);
    let variance = |name: &str| {
        let (_, weights) = all.iter().find(|(what, _)| *what == name).expect("an estimate");
        let psi = |i: usize, log_prob| policy_gradient(log_prob, weights[i]).psi;
        episodes.gradient(2, &case.theta, psi).total_variance()
    };
    let names = ["REINFORCE, G₀", "reward-to-go", "reward-to-go − V", "GAE(0)"];
    let variances = names.map(variance);
    println!("{names:?}: {variances:?}");
    for pair in variances.windows(2) {
        assert!(pair[1] < 0.8 * pair[0], "{names:?}: {variances:?}");
    }
}
