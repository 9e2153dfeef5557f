//! Sampling and training see the same policy: ratios of exactly 1, frequencies of the softmax, and
//! the same text for any number of threads.

mod common;

use std::collections::BTreeMap;

use cordada_lm::{
    Completion, Finish, Group, Model, Request, Sampling, StepSettings, Threads, Transformer,
};
use cordada_nn::OptimizerConfig;

use common::{ARCHITECTURES, adapter, config, theta};

fn model(architecture: cordada_lm::Architecture, lora: bool, threads: usize) -> Model<f32> {
    let t = Transformer::<f32>::new(&config(architecture, true));
    let adapter = lora.then(|| adapter(&t));
    let threads = Threads::new(threads).expect("threads");
    let numbers = theta(&t);
    Model::trainable(t, numbers, adapter, None, OptimizerConfig::adamw(), threads).expect("model")
}

fn requests(prompts: usize, samples: usize) -> Vec<Request> {
    (0..prompts)
        .map(|i| Request {
            prompt: (0..=i % 5).map(|j| ((3 * i + j) % 11) as u32).collect(),
            samples,
            stream: (i * samples) as u32,
        })
        .collect()
}

fn sampling(temperature: f64) -> Sampling {
    Sampling { temperature, max_new_tokens: 9, stop_tokens: vec![0], ..Sampling::default() }
}

fn groups(requests: &[Request], completions: &[Vec<Completion<f32>>]) -> Vec<Group> {
    let pairs = requests.iter().zip(completions);
    pairs
        .map(|(r, c)| Group::new(r.prompt.clone(), c.iter().map(|c| c.tokens.clone()).collect()))
        .collect()
}

#[test]
fn ratios_of_a_fresh_rollout_are_exactly_one() {
    for architecture in ARCHITECTURES {
        for lora in [false, true] {
            for (prompts, samples, temperature) in [(1, 1, 1.0), (4, 8, 0.7), (64, 4, 1.3)] {
                let mut m = model(architecture, lora, 2);
                let requests = requests(prompts, samples);
                // Away from the start, where adapters and moments are not what they began as.
                let group = Group::new(vec![3], vec![vec![4, 5, 6]]);
                m.score(&[group], 1.0, &mut |_, _, d| d.log_prob.fill(1.0));
                m.step(StepSettings {
                    learning_rate: 1e-2,
                    value_learning_rate: 0.0,
                    max_grad_norm: 1.0,
                });
                let completions =
                    m.generate(&requests, &sampling(temperature), 5, None).expect("completions");
                let groups = groups(&requests, &completions);
                let sampled: Vec<u32> = completions
                    .iter()
                    .flatten()
                    .flat_map(|c| c.log_prob.iter().map(|l| l.to_bits()))
                    .collect();
                let mut trained = Vec::new();
                m.score(&groups, temperature, &mut |_, scores, _| {
                    trained.extend(scores.log_prob.iter().map(|l| l.to_bits()));
                });
                assert_eq!(
                    sampled, trained,
                    "{architecture:?}, adapter: {lora}, {prompts} prompts"
                );
            }
        }
    }
}

#[test]
fn text_does_not_depend_on_threads_or_grouping() {
    for architecture in ARCHITECTURES {
        let all = requests(13, 5);
        let run = |threads: usize, requests: &[Request]| {
            let mut m = model(architecture, false, threads);
            m.generate(requests, &sampling(1.0), 7, None).expect("completions")
        };
        let one = run(1, &all);
        for threads in [2, 5] {
            assert_eq!(run(threads, &all), one, "{architecture:?}, {threads} threads");
        }
        // One prompt at a time, and one sample at a time.
        for (i, request) in all.iter().enumerate() {
            assert_eq!(run(1, &all[i..=i])[0], one[i], "{architecture:?}, prompt {i} alone");
            let third = Request { samples: 1, stream: request.stream + 2, ..request.clone() };
            assert_eq!(run(1, &[third])[0][0], one[i][2], "{architecture:?}, prompt {i}, sample 2");
        }
        assert_ne!(one[0][0], one[0][1], "samples of one prompt differ");
    }
}

#[test]
fn endings_are_told_apart() {
    let mut m = model(ARCHITECTURES[1], false, 1);
    let requests = requests(40, 4);
    let stop = |tokens: &[u32]| tokens.ends_with(&[5]);
    let sampling = Sampling { max_new_tokens: 6, ..sampling(1.0) };
    let completions = m.generate(&requests, &sampling, 1, Some(&stop)).expect("completions");
    let mut seen = BTreeMap::new();
    for (request, completions) in requests.iter().zip(&completions) {
        for c in completions {
            *seen.entry(format!("{:?}", c.finish)).or_insert(0) += 1;
            let last = c.tokens[c.tokens.len() - 1];
            let earlier = &c.tokens[..c.tokens.len() - 1];
            assert!(!earlier.contains(&0) && !earlier.contains(&5), "{c:?}");
            match c.finish {
                Finish::StopToken => assert_eq!(last, 0),
                Finish::StopString => assert_eq!(last, 5),
                Finish::Length => assert_eq!(c.tokens.len(), 6),
                Finish::Context => assert_eq!(request.prompt.len() + c.tokens.len(), 16),
            }
            assert_eq!(c.tokens.len(), c.log_prob.len());
        }
    }
    assert!(seen.len() == 3 && !seen.contains_key("Context"), "{seen:?}");
    // With more tokens allowed than positions, the model's end is the end.
    let sampling = Sampling { max_new_tokens: 99, stop_tokens: Vec::new(), ..sampling };
    let completions = m.generate(&requests[..5], &sampling, 1, None).expect("completions");
    assert!(completions.iter().flatten().all(|c| c.finish == Finish::Context));
}

#[test]
fn frequencies_are_those_of_the_softmax() {
    let mut m = model(ARCHITECTURES[2], false, 1);
    let prompt = vec![4, 9, 2];
    for temperature in [1.0, 0.6] {
        let (_, logits) = m.read(&prompt);
        let last: Vec<f64> = logits[22..].iter().map(|&z| f64::from(z) / temperature).collect();
        let total: f64 = last.iter().map(|z| z.exp()).sum();
        let n = 40_000;
        let request = Request { prompt: prompt.clone(), samples: n, stream: 0 };
        let sampling = Sampling { max_new_tokens: 1, ..sampling(temperature) };
        let completions = m.generate(&[request], &sampling, 3, None).expect("completions");
        let mut counts = [0_u32; 11];
        completions[0].iter().for_each(|c| counts[c.tokens[0] as usize] += 1);
        let chi2: f64 = last
            .iter()
            .zip(counts)
            .map(|(z, count)| {
                let expected = n as f64 * z.exp() / total;
                (f64::from(count) - expected).powi(2) / expected
            })
            .sum();
        // Ten degrees of freedom: 29.6 is exceeded once in a thousand.
        assert!(chi2 < 29.6, "χ² = {chi2} at temperature {temperature}: {counts:?}");
        // The recorded log-probability is that of the distribution drawn from.
        let c = &completions[0][0];
        let want = last[c.tokens[0] as usize] - total.ln();
        assert!((f64::from(c.log_prob[0]) - want).abs() < 1e-5);
    }
}

#[test]
fn filters_exclude_and_renormalize() {
    let mut m = model(ARCHITECTURES[2], false, 1);
    let prompt = vec![4, 9, 2];
    let (_, logits) = m.read(&prompt);
    let mut order: Vec<usize> = (0..11).collect();
    order.sort_by(|&a, &b| logits[22 + b].total_cmp(&logits[22 + a]));
    let request = Request { prompt, samples: 500, stream: 0 };
    let sampling = Sampling { max_new_tokens: 1, top_k: 2, ..sampling(1.0) };
    assert!(!sampling.is_plain());
    let completions =
        m.generate(std::slice::from_ref(&request), &sampling, 3, None).expect("completions");
    let [a, b] = [logits[22 + order[0]], logits[22 + order[1]]].map(|z| f64::from(z).exp());
    for c in &completions[0] {
        let place = order.iter().position(|&t| t == c.tokens[0] as usize).expect("a token");
        let want = ([a, b].get(place).expect("one of the two likeliest") / (a + b)).ln();
        assert!((f64::from(c.log_prob[0]) - want).abs() < 1e-5);
    }
    let greedy = Sampling { temperature: 0.0, ..sampling };
    let completions = m.generate(&[request], &greedy, 3, None).expect("completions");
    assert!(completions[0].iter().all(|c| c.tokens[0] as usize == order[0]));
}
