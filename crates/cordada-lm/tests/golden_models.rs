//! The transformer against models of the `transformers` library: logits, sampling, gradients.

mod common;

use cordada_lm::adapter::{self, AdapterLayout};
use cordada_lm::{
    Adapter, Error, Finish, Group, Layout, Model, ModelConfig, Request, Sampling, Site, Threads,
    Transformer, folder,
};
use cordada_nn::OptimizerConfig;
use cordada_testkit::golden::{self, Case};

const MODELS: [&str; 4] = ["gpt2", "llama", "qwen2", "qwen3"];

struct Checkpoint {
    config: ModelConfig,
    theta: Vec<f32>,
    adapter: (AdapterLayout, Vec<f32>, f32),
}

fn read(name: &str) -> Checkpoint {
    let path = golden::root().join("llm/models").join(name);
    let (config, theta) = folder::read(&path).expect("a model");
    let layout = Layout::new(&config);
    let (lora, places, numbers) =
        adapter::read(&path.join("lora_adapter"), &layout).expect("an adapter");
    Checkpoint { config, theta, adapter: (places, numbers, lora.scaling() as f32) }
}

impl Checkpoint {
    fn model(&self, with_adapter: bool) -> Model<f32> {
        let t = Transformer::new(&self.config);
        let adapter = with_adapter.then(|| {
            let (layout, numbers, scale) = &self.adapter;
            let places: Vec<_> = layout.adapters.iter().map(|a| a.place.clone()).collect();
            Adapter::new(numbers.clone(), &places, *scale, self.config.num_layers, |b, site| {
                let block = &t.layout().blocks[b];
                match site {
                    Site::Qkv => block.qkv.outputs,
                    Site::Output => block.output.outputs,
                    Site::Up => block.up.outputs,
                    Site::Down => block.down.outputs,
                }
            })
        });
        let threads = Threads::new(1).expect("a thread");
        let optimizer = OptimizerConfig::adamw();
        Model::trainable(t, self.theta.clone(), adapter, None, optimizer, threads).expect("a model")
    }
}

/// The rows of a padded batch without their padding, and where each begins.
fn rows(case: &Case) -> Vec<(Vec<u32>, usize)> {
    let (ids, mask) = (case.tensor("input/input_ids"), case.tensor("input/attention_mask"));
    let width = ids.shape[1];
    ids.indices()
        .chunks(width)
        .zip(mask.flags().chunks(width))
        .map(|(ids, mask)| {
            let first = mask.iter().position(|&m| m).expect("a row has tokens");
            let kept = ids.iter().zip(mask).filter(|(_, m)| **m).map(|(&t, _)| t as u32);
            (kept.collect(), first)
        })
        .collect()
}

/// Puts the numbers of unpadded rows where a padded batch has them; the rest is what is wanted.
fn padded(want: &[f64], values: &[Vec<f32>], starts: &[usize], stride: usize) -> Vec<f64> {
    let mut all = want.to_vec();
    for (row, (values, &start)) in values.iter().zip(starts).enumerate() {
        for (i, &value) in values.iter().enumerate() {
            all[row * stride + start + i] = f64::from(value);
        }
    }
    all
}

/// A sequence of which every token but the first is scored.
fn whole(tokens: &[u32]) -> Group {
    Group::new(tokens[..1].to_vec(), vec![tokens[1..].to_vec()])
}

fn check_logits(case: &Case, model: &mut Model<f32>, vocabulary: usize) {
    let rows = rows(case);
    let width = case.tensor("input/input_ids").shape[1];
    let starts: Vec<usize> = rows.iter().map(|(_, first)| *first).collect();
    let logits: Vec<Vec<f32>> = rows.iter().map(|(t, _)| model.read(t).1).collect();
    let last: Vec<f64> = logits
        .iter()
        .flat_map(|l| l[l.len() - vocabulary..].iter().map(|&x| f64::from(x)))
        .collect();
    case.check("output/logits_last", &last);
    if case.has("output/logits") {
        let want = &case.tensor("output/logits").data;
        let starts: Vec<usize> = starts.iter().map(|s| s * vocabulary).collect();
        case.check("output/logits", &padded(want, &logits, &starts, width * vocabulary));
    }
    if case.has("output/logits_row0") {
        let want = &case.tensor("output/logits_row0").data;
        let starts = [starts[0] * vocabulary];
        case.check("output/logits_row0", &padded(want, &logits[..1], &starts, want.len()));
    }
    let groups: Vec<Group> = rows.iter().map(|(tokens, _)| whole(tokens)).collect();
    let scores = model.log_prob(&groups, 1.0);
    let log_probs: Vec<Vec<f32>> =
        scores.completions.iter().map(|r| scores.log_prob[r.clone()].to_vec()).collect();
    let want = &case.tensor("output/log_probs").data;
    case.check("output/log_probs", &padded(want, &log_probs, &starts, width - 1));
}

fn check_greedy(case: &Case, model: &mut Model<f32>, config: &ModelConfig) {
    let rows = rows(case);
    let requests: Vec<Request> = rows
        .iter()
        .map(|(tokens, _)| Request { prompt: tokens.clone(), samples: 1, stream: 0 })
        .collect();
    let most = case.param("max_new_tokens") as usize;
    let stop: Option<Vec<u32>> = case.params["eos_token_ids"]
        .as_array()
        .map(|ids| ids.iter().map(|id| id.as_u64().expect("a token") as u32).collect());
    let sampling = Sampling {
        temperature: 0.0,
        max_new_tokens: most,
        // Where the case says that nothing stops, the library excluded the model's end tokens.
        min_new_tokens: if stop.is_none() { most } else { 0 },
        stop_tokens: stop.unwrap_or_else(|| config.eos_token_ids.clone()),
        ..Sampling::default()
    };
    let completions = model.generate(&requests, &sampling, 0, None).expect("completions");
    let pad = case.param("pad_token_id");
    let tokens: Vec<f64> = completions
        .iter()
        .flat_map(|c| {
            let ended = c[0].tokens.len() < most;
            let last = c[0].tokens[c[0].tokens.len() - 1];
            let stopped = ended || sampling.stop_tokens.contains(&last);
            assert_eq!(c[0].finish == Finish::StopToken, stopped, "{c:?}");
            let tokens = c[0].tokens.iter().map(|&t| f64::from(t));
            tokens.chain(std::iter::repeat(pad)).take(most).collect::<Vec<_>>()
        })
        .collect();
    case.check("output/new_tokens", &tokens);
}

/// Scores the labelled tokens with ψ = −1 / labels: the gradient of the loss, descended.
fn cross_entropy(case: &Case, model: &mut Model<f32>) -> Vec<f32> {
    let width = case.tensor("input/input_ids").shape[1];
    let labels = &case.tensor("input/labels").data;
    let count = labels.iter().filter(|&&l| l >= 0.0).count();
    let groups: Vec<Group> = rows(case)
        .iter()
        .enumerate()
        .map(|(row, (tokens, first))| {
            let labels = &labels[row * width + first + 1..];
            let scored = (0..tokens.len() - 1).map(|t| labels[t] >= 0.0).collect();
            Group { scored: vec![scored], ..whole(tokens) }
        })
        .collect();
    assert_eq!(groups.iter().map(Group::num_targets).sum::<usize>(), count);
    let weight = -1.0 / count as f32;
    let scores = model.score(&groups, 1.0, &mut |_, _, d| d.log_prob.fill(weight));
    let loss: f64 = scores.log_prob.iter().map(|&l| f64::from(l * weight)).sum();
    case.check("output/loss", &[loss]);
    model.gradient().0.to_vec()
}

fn check_gradient(case: &Case, checkpoint: &Checkpoint) {
    let grad = cross_entropy(case, &mut checkpoint.model(false));
    let layout = Layout::new(&checkpoint.config);
    let norms = case.params["grad_norms"].as_object().expect("norms");
    assert_eq!(norms.len(), layout.tensors.len(), "a norm for every tensor");
    for tensor in &layout.tensors {
        let values = &grad[tensor.range.clone()];
        let norm = values.iter().map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt();
        let want = norms[&tensor.name].as_f64().expect("a norm");
        assert!((norm - want).abs() <= 2e-3 * want + 2e-5, "{}: {norm}, {want}", tensor.name);
        let stored: Vec<f64> = if tensor.transposed {
            let (o, i) = (tensor.shape[0], tensor.shape[1]);
            (0..o * i).map(|k| f64::from(values[(k % o) * i + k / o])).collect()
        } else {
            values.iter().map(|&g| f64::from(g)).collect()
        };
        for key in [format!("grad/{}", tensor.name), format!("grad/{}[:48]", tensor.name)] {
            if case.has(&key) {
                case.check(&key, &stored[..case.tensor(&key).data.len()]);
            }
        }
    }
}

fn check_adapter(case: &Case, checkpoint: &Checkpoint) {
    let mut model = checkpoint.model(true);
    check_logits(case, &mut model, checkpoint.config.vocab_size);
    let grad = cross_entropy(case, &mut model);
    for info in &checkpoint.adapter.0.adapters {
        for (part, range) in [("lora_A", &info.place.a), ("lora_B", &info.place.b)] {
            let key = format!("grad/base_model.model.{}.{part}.weight", info.module);
            let values: Vec<f64> = grad[range.clone()].iter().map(|&g| f64::from(g)).collect();
            case.check(&key, &values);
        }
    }
}

fn check_hidden(case: &Case, model: &mut Model<f32>) {
    let rows = rows(case);
    let [_, width, d] = case.tensor("output/hidden").shape[..] else { panic!("three axes") };
    let head = case.tensor("input/head").f32();
    let hidden: Vec<Vec<f32>> = rows.iter().map(|(t, _)| model.read(t).0).collect();
    let starts: Vec<usize> = rows.iter().map(|(_, first)| *first).collect();
    let at: Vec<usize> = starts.iter().map(|s| s * d).collect();
    let want = &case.tensor("output/hidden").data;
    case.check("output/hidden", &padded(want, &hidden, &at, width * d));
    let values: Vec<Vec<f32>> = hidden
        .iter()
        .map(|h| h.chunks(d).map(|h| h.iter().zip(&head).map(|(h, w)| h * w).sum()).collect())
        .collect();
    let want = &case.tensor("output/values").data;
    case.check("output/values", &padded(want, &values, &starts, width));
    let score: Vec<f64> = values.iter().map(|v| f64::from(v[v.len() - 1])).collect();
    case.check("output/score", &score);
}

#[test]
fn golden_models_compute_what_transformers_does() {
    for name in MODELS {
        let checkpoint = read(name);
        for case in golden::llm_family(&format!("model_{name}")) {
            let mut model = checkpoint.model(false);
            match case.name.as_str() {
                "logits_left_padded" | "logits_right_padded" => {
                    check_logits(&case, &mut model, checkpoint.config.vocab_size);
                }
                "kv_cache" => {
                    let tokens: Vec<u32> = case
                        .tensor("input/input_ids")
                        .indices()
                        .iter()
                        .map(|&t| t as u32)
                        .collect();
                    let logits: Vec<f64> =
                        model.read(&tokens).1.iter().map(|&x| f64::from(x)).collect();
                    case.check("output/logits", &logits);
                }
                "greedy" | "greedy_with_eos" => {
                    check_greedy(&case, &mut model, &checkpoint.config);
                }
                "cross_entropy_grad" => check_gradient(&case, &checkpoint),
                "last_hidden_state" => check_hidden(&case, &mut model),
                "lora" => check_adapter(&case, &checkpoint),
                other => panic!("no handler for the case {other} of {name}"),
            }
        }
    }
}

#[test]
fn a_prompt_that_cannot_be_read_is_named() {
    let checkpoint = read("qwen2");
    let mut model = checkpoint.model(false);
    let mut error = |prompt: Vec<u32>| -> String {
        let good = Request { prompt: vec![1], samples: 1, stream: 0 };
        let bad = Request { prompt, samples: 1, stream: 0 };
        let result: Result<_, Error> = model.generate(&[good, bad], &Sampling::default(), 0, None);
        result.expect_err("a prompt that cannot be read").to_string()
    };
    assert_eq!(error(vec![]), "prompt 1 is empty; begin it with the model's first token");
    assert_eq!(error(vec![5, 320]), "prompt 1 holds token 320; the vocabulary has 320");
    let long = error(vec![5; 128]);
    assert_eq!(long, "prompt 1 has 128 tokens; the model has 128 positions: shorten it");
}
