//! A language model so small (4 tokens, 3 steps) that all its responses can be written down: the
//! exact policy gradient, and what KL estimators do as losses.

mod common;

use common::{theta, wave};
use cordada_lm::{Architecture, Group, Model, ModelConfig, Threads, Transformer};
use cordada_nn::OptimizerConfig;
use cordada_testkit::gradient::assert_gradient;

const PROMPT: u32 = 2;

fn config() -> ModelConfig {
    ModelConfig {
        vocab_size: 4,
        hidden_size: 6,
        num_layers: 1,
        num_heads: 2,
        num_kv_heads: 1,
        head_dim: 4,
        intermediate_size: 5,
        max_positions: 8,
        eos_token_ids: Vec::new(),
        ..common::config(Architecture::Qwen3, true)
    }
}

fn model(theta: Vec<f64>) -> Model<f64> {
    let threads = Threads::new(1).expect("a thread");
    let t = Transformer::new(&config());
    Model::trainable(t, theta, None, None, OptimizerConfig::adamw(), threads).expect("a model")
}

/// All 64 responses to the prompt.
fn all() -> Group {
    let responses = (0..64).map(|i| vec![i % 4, i / 4 % 4, i / 16]).collect();
    Group::new(vec![PROMPT], responses)
}

/// An arbitrary reward of a response.
fn reward(i: usize) -> f64 {
    (1.7 * i as f64).sin() + 0.1 * (i % 5) as f64
}

/// ln π of every token of every response, and π of the responses.
fn policy(theta: &[f64]) -> (Vec<[f64; 3]>, Vec<f64>) {
    let scores = model(theta.to_vec()).log_prob(&[all()], 1.0);
    let tokens: Vec<[f64; 3]> = scores.log_prob.as_chunks().0.to_vec();
    let responses = tokens.iter().map(|t| t.iter().sum::<f64>().exp()).collect();
    (tokens, responses)
}

/// Σ ψ ∇ ln π over all responses' tokens.
fn gradient(theta: &[f64], psi: impl Fn(usize, usize) -> f64) -> Vec<f64> {
    let mut m = model(theta.to_vec());
    m.score(&[all()], 1.0, &mut |i, _, d| {
        (0..3).for_each(|t| d.log_prob[t] = psi(i, t));
    });
    m.gradient().0.to_vec()
}

fn start() -> Vec<f64> {
    theta(&Transformer::new(&config()))
}

#[test]
fn the_theorem_holds_for_tokens() {
    let start = start();
    let (_, p) = policy(&start);
    assert!((p.iter().sum::<f64>() - 1.0).abs() < 1e-12, "all responses there are");
    // ∇J = Σ π(y) R(y) ∇ ln π(y), the sum of its tokens' terms.
    let exact = gradient(&start, |i, _| p[i] * reward(i));
    assert_gradient("J", &start, &exact, 1e-6, |theta| {
        policy(theta).1.iter().enumerate().map(|(i, p)| p * reward(i)).sum()
    });
    // A baseline changes nothing.
    let with_baseline = gradient(&start, |i, _| p[i] * (reward(i) - 3.0));
    for (a, b) in exact.iter().zip(&with_baseline) {
        assert!((a - b).abs() < 1e-10, "{a} and {b}");
    }
}

#[test]
fn k1_as_a_loss_does_nothing_and_k2_is_the_gradient_of_the_kl() {
    let start = start();
    let other: Vec<f64> =
        start.iter().zip(wave::<f64>(start.len(), 4.0, 0.3)).map(|(a, b)| a + b).collect();
    let ((tokens, p), (reference, _)) = (policy(&start), policy(&other));
    // k1: derivative 1 at every token.
    let k1 = gradient(&start, |i, _| p[i]);
    assert!(k1.iter().all(|g| g.abs() < 1e-12), "{k1:?}");
    // k2: derivative ln π − ln π_ref; the gradient of KL(π ‖ π_ref) in every state, weighted by how
    // often the state occurs.
    let k2 = gradient(&start, |i, t| p[i] * (tokens[i][t] - reference[i][t]));
    assert!(k2.iter().any(|g| g.abs() > 1e-2));
    assert_gradient("KL", &start, &k2, 1e-6, |theta| {
        let (new, _) = policy(theta);
        // π_old(state) Σ_a π(a | state) (ln π − ln π_ref): responses that share a state share its
        // weight, so each is counted with the policy of its later tokens at the start.
        (0..64)
            .map(|i| {
                (0..3)
                    .map(|t| {
                        let before: f64 = tokens[i][..t].iter().sum();
                        let after: f64 = tokens[i][t + 1..].iter().sum();
                        let weight = (before + after).exp();
                        weight * new[i][t].exp() * (new[i][t] - reference[i][t])
                    })
                    .sum::<f64>()
            })
            .sum()
    });
}

#[test]
fn the_exact_kl_has_the_gradient_of_the_kl() {
    let start = start();
    let other: Vec<f64> =
        start.iter().zip(wave::<f64>(start.len(), 4.0, 0.3)).map(|(a, b)| a + b).collect();
    let ((tokens, p), (reference, q)) = (policy(&start), policy(&other));
    let distributions = model(other).distributions(&[all()], 1.0, false);
    assert_eq!(distributions.len(), 64 * 3 * 4);
    for row in distributions.chunks_exact(4) {
        assert!((row.iter().map(|r| r.exp()).sum::<f64>() - 1.0).abs() < 1e-12);
    }
    let exact = |rows: usize| {
        let mut m = model(start.clone());
        m.set_micro_batch_rows(rows);
        let scores = m.score_near(&[all()], 1.0, &distributions, &mut |i, _, d| d.kl.fill(p[i]));
        (scores.kl, m.gradient().0.to_vec())
    };
    let (kl, gradient_of_kl) = exact(256);
    // The KL of whole responses is the mean of what its states add up to.
    let sum: f64 = kl.chunks_exact(3).zip(&p).map(|(kl, p)| p * kl.iter().sum::<f64>()).sum();
    let want: f64 = p.iter().zip(&q).map(|(p, q)| p * (p / q).ln()).sum();
    assert!((sum - want).abs() < 1e-12 && want > 1e-3, "{sum} is not {want}");
    let k2 = gradient(&start, |i, t| p[i] * (tokens[i][t] - reference[i][t]));
    for (a, b) in gradient_of_kl.iter().zip(&k2) {
        assert!((a - b).abs() < 1e-10, "{a} is not {b}");
    }
    // However the batch is cut.
    assert_eq!(exact(1), (kl, gradient_of_kl));
}
