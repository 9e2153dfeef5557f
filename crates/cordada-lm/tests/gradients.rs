//! The whole model against finite differences, and against itself in other parts and threads.

mod common;

use common::{ARCHITECTURES, adapter, config, groups, theta, wave};
use cordada_lm::{
    Adapter, CompletionScores, Derivatives, Group, Model, StepSettings, Threads, TokenScores,
    Transformer, ValueHead,
};
use cordada_nn::{OptimizerConfig, Real};
use cordada_testkit::gradient::assert_gradient;

const TEMPERATURE: f64 = 0.8;

fn model<T: Real>(
    transformer: &Transformer<T>,
    theta: Vec<T>,
    adapter: Option<Adapter<T>>,
    value: Option<ValueHead<T>>,
    threads: usize,
) -> Model<T> {
    let threads = Threads::new(threads).expect("threads");
    let optimizer = OptimizerConfig::adamw();
    Model::trainable(transformer.clone(), theta, adapter, value, optimizer, threads).expect("model")
}

/// ψ, entropy and value weights of target i of the batch.
fn weights(i: usize) -> [f64; 3] {
    let i = i as f64;
    [(1.3 * i).sin(), 0.3 * (2.1 * i).cos(), (0.7 * i).cos()]
}

/// The objective Σ ψ ln π + c H + v V with fixed weights.
fn total(scores: &TokenScores<f64>) -> f64 {
    let n = scores.log_prob.len();
    assert_eq!(n, scores.completions.last().expect("completions").end);
    (0..n)
        .map(|i| {
            let [psi, c, v] = weights(i);
            let value = scores.value.get(i).copied().unwrap_or(0.0);
            psi * scores.log_prob[i] + c * scores.entropy[i] + v * value
        })
        .sum()
}

fn objective<T: Real>(
    starts: Vec<usize>,
) -> impl FnMut(usize, CompletionScores<'_, T>, Derivatives<'_, T>) {
    move |completion, scores, d| {
        for t in 0..scores.log_prob.len() {
            let [psi, c, v] = weights(starts[completion] + t);
            (d.log_prob[t], d.entropy[t]) = (T::of(psi), T::of(c));
            if let Some(value) = d.value.get_mut(t) {
                *value = T::of(v);
            }
        }
    }
}

/// First target of each completion.
fn starts(groups: &[Group]) -> Vec<usize> {
    let mut at = 0;
    let mut starts = Vec::new();
    for group in groups {
        for i in 0..group.completions.len() {
            starts.push(at);
            let mask = group.scored.get(i);
            at += mask.map_or(group.completions[i].len(), |m| m.iter().filter(|&&x| x).count());
        }
    }
    starts
}

fn value_head<T: Real>(d: usize) -> ValueHead<T> {
    ValueHead { theta: wave(d + 1, 5.0, 0.5), detached: false }
}

#[test]
fn gradients_of_all_parameters_are_right() {
    for architecture in ARCHITECTURES {
        for tied in [true, false] {
            let config = config(architecture, tied);
            let t = Transformer::<f64>::new(&config);
            let (theta, head) = (theta(&t), value_head(12));
            let mut m = model(&t, theta.clone(), None, Some(head.clone()), 1);
            m.score(&groups(), TEMPERATURE, &mut objective(starts(&groups())));
            let (grad, d_value) = m.gradient();
            let (grad, d_value) = (grad.to_vec(), d_value.to_vec());
            let name = format!("{architecture:?}, tied: {tied}");
            assert_gradient(&name, &theta, &grad, 2e-6, |theta| {
                let mut m = model(&t, theta.to_vec(), None, Some(head.clone()), 1);
                total(&m.log_prob(&groups(), TEMPERATURE))
            });
            assert_gradient(&name, &head.theta, &d_value, 1e-6, |value| {
                let head = ValueHead { theta: value.to_vec(), detached: false };
                let mut m = model(&t, theta.clone(), None, Some(head), 1);
                total(&m.log_prob(&groups(), TEMPERATURE))
            });
        }
    }
}

#[test]
fn gradients_of_adapters_are_right() {
    for architecture in ARCHITECTURES {
        let t = Transformer::<f64>::new(&config(architecture, true));
        let (theta, lora) = (theta(&t), adapter(&t));
        let mut m = model(&t, theta.clone(), Some(lora.clone()), None, 1);
        m.score(&groups(), TEMPERATURE, &mut objective(starts(&groups())));
        let grad = m.gradient().0.to_vec();
        assert_gradient(&format!("{architecture:?}"), &lora.theta, &grad, 1e-6, |changed| {
            let mut lora = lora.clone();
            lora.theta.copy_from_slice(changed);
            lora.pack();
            total(&model(&t, theta.clone(), Some(lora), None, 1).log_prob(&groups(), TEMPERATURE))
        });
        // Without the adapter the model is the base.
        let base = model(&t, theta.clone(), None, None, 1).log_prob(&groups(), TEMPERATURE);
        assert_eq!(m.base_log_prob(&groups(), TEMPERATURE), base);
        assert_ne!(m.log_prob(&groups(), TEMPERATURE), base);
    }
}

#[test]
fn parts_and_threads_do_not_change_a_bit() {
    for architecture in ARCHITECTURES {
        for (tied, with_adapter) in [(true, false), (false, false), (true, true)] {
            let t = Transformer::<f32>::new(&config(architecture, tied));
            let run = |threads, rows, limit| {
                let lora = with_adapter.then(|| adapter(&t));
                let mut m = model(&t, theta(&t), lora, Some(value_head(12)), threads);
                m.set_micro_batch_rows(rows);
                m.set_activation_limit(limit);
                let many: Vec<Group> = (0..4).flat_map(|_| groups()).collect();
                // Reading leaves buffers elsewhere than training.
                let read = m.log_prob(&many, TEMPERATURE);
                let scores = m.score(&many, TEMPERATURE, &mut objective(starts(&many)));
                assert!(read == scores);
                let (grad, value) = m.gradient();
                let grads = (grad.to_vec(), value.to_vec());
                let settings = StepSettings {
                    learning_rate: 1e-2,
                    value_learning_rate: 1e-2,
                    max_grad_norm: 1.0,
                };
                let norm = m.step(settings);
                (scores, grads, norm, m.log_prob(&many, TEMPERATURE))
            };
            let whole = run(1, 1000, usize::MAX);
            for (threads, rows) in [(1, 1), (1, 20), (2, 12), (5, 9)] {
                // All activations kept, those of small parts, and none.
                for limit in [usize::MAX, 1 << 15, 0] {
                    let name = format!("{architecture:?}: {threads} threads, {rows}, {limit}");
                    assert!(run(threads, rows, limit) == whole, "{name}");
                }
            }
        }
    }
}

#[test]
fn a_shared_prompt_changes_no_score() {
    for architecture in ARCHITECTURES {
        let t = Transformer::<f32>::new(&config(architecture, true));
        let mut m = model(&t, theta(&t), None, None, 1);
        let shared = m.log_prob(&groups()[..1], 1.0);
        let alone: Vec<f32> = groups()[0]
            .completions
            .iter()
            .flat_map(|c| {
                let group = Group::new(groups()[0].prompt.clone(), vec![c.clone()]);
                m.log_prob(&[group], 1.0).log_prob
            })
            .collect();
        assert_eq!(shared.log_prob, alone, "{architecture:?}");
    }
}
