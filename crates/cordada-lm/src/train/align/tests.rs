//! Every method's gradient against the exact policy gradient of a model whose responses can all be
//! written down (4 tokens, 3 steps).

use toml::Table;

use super::*;
use crate::train::METHODS;
use crate::train::method::Method;
use crate::{
    Architecture, Model, ModelConfig, Positions, RopeScaling, Threads, Transformer, ValueHead,
};

const PROMPT: u32 = 2;
/// Responses of a batch, in groups of 8.
const RESPONSES: usize = 64;
const BATCHES: usize = 300;
/// Directions that gradients are compared along.
const DIRECTIONS: usize = 6;

fn config() -> ModelConfig {
    ModelConfig {
        architecture: Architecture::Llama,
        vocab_size: 4,
        hidden_size: 8,
        num_layers: 1,
        num_heads: 2,
        num_kv_heads: 1,
        head_dim: 4,
        intermediate_size: 8,
        max_positions: 8,
        norm_eps: 1e-5,
        activation: cordada_nn::Activation::Silu,
        positions: Positions::Rotary { base: 100.0, scaling: RopeScaling::Default },
        qkv_bias: false,
        output_bias: false,
        mlp_bias: false,
        tied: false,
        eos_token_ids: Vec::new(),
        bos_token_id: None,
        pad_token_id: None,
    }
}

fn wave(n: usize, shift: f64) -> impl Iterator<Item = f64> {
    (0..n).map(move |i| (1.7 * i as f64 + 0.013 * (i * i) as f64 + shift).sin())
}

fn model(critic: bool) -> Model<f32> {
    let t = Transformer::new(&config());
    let theta = wave(t.layout().num_params, 0.3).map(|x| x as f32).collect();
    let head = critic.then(|| ValueHead::zeros(8, false));
    let threads = Threads::new(1).expect("a thread");
    Model::trainable(t, theta, None, head, OptimizerConfig::adamw(), threads).expect("a model")
}

/// An arbitrary reward.
fn reward(tokens: &[u32]) -> f64 {
    let i = tokens[0] + 4 * tokens[1] + 16 * tokens[2];
    (1.7 * f64::from(i)).sin() + 0.1 * f64::from(i % 5)
}

/// The gradient along the directions, and a model whose sum is empty again.
fn along(model: &mut Model<f32>) -> [f64; DIRECTIONS] {
    let gradient = model.gradient().0.to_vec();
    model.step(StepSettings { learning_rate: 0.0, value_learning_rate: 0.0, max_grad_norm: 1.0 });
    std::array::from_fn(|k| {
        gradient.iter().zip(wave(gradient.len(), k as f64)).map(|(&g, w)| f64::from(g) * w).sum()
    })
}

fn exact() -> [f64; DIRECTIONS] {
    let mut model = model(false);
    let responses: Vec<Vec<u32>> = (0..64).map(|i| vec![i % 4, i / 4 % 4, i / 16]).collect();
    let group = Group::new(vec![PROMPT], responses.clone());
    model.score(&[group], 1.0, &mut |i, scores, d| {
        let p: f32 = scores.log_prob.iter().sum::<f32>().exp();
        d.log_prob.fill(p * reward(&responses[i]) as f32);
    });
    along(&mut model)
}

/// Mean and standard error of a method's gradient over many batches, after `correct`: what is known
/// about its scale in a batch.
fn estimate(
    settings: &AlignSettings,
    defect: f32,
    correct: impl Fn(&Responses) -> f64,
) -> [Spread; DIRECTIONS] {
    let mut model = model(settings.has_critic());
    let mut spreads = [Spread::default(); DIRECTIONS];
    let sampling = Sampling { max_new_tokens: 3, ..Sampling::default() };
    let g = settings.group_size;
    for batch in 0..BATCHES {
        let requests: Vec<Request> = (0..RESPONSES / g)
            .map(|i| Request { prompt: vec![PROMPT], samples: g, stream: (i * g) as u32 })
            .collect();
        let completions =
            model.generate(&requests, &sampling, batch as u64, None).expect("completions");
        let all = || completions.iter().flatten();
        let groups: Vec<Group> = completions
            .iter()
            .map(|c| Group::new(vec![PROMPT], c.iter().map(|c| c.tokens.clone()).collect()))
            .collect();
        let responses = Responses {
            lengths: vec![3; RESPONSES],
            scores: all().map(|c| reward(&c.tokens) as f32).collect(),
            old_log_prob: all().flat_map(|c| c.log_prob.iter().copied()).collect(),
            ref_log_prob: Vec::new(),
            ref_distributions: Vec::new(),
            values: if settings.has_critic() { vec![0.0; 3 * RESPONSES] } else { Vec::new() },
        };
        let mut baseline = Baseline::restore(0.2, 1);
        let mut targets = responses.advantages(settings, 0.0, &mut baseline);
        for (i, a) in targets.advantages.iter_mut().enumerate() {
            if i % 3 == 0 {
                *a *= defect;
            }
        }
        let starts: Vec<usize> = (0..=RESPONSES).map(|i| 3 * i).collect();
        let objective = Surrogate {
            settings,
            beta: 0.0,
            responses: &responses,
            targets: &targets,
            starts: &starts,
            counts: BatchCounts::of(responses.lengths.iter().copied()),
            policy: true,
        };
        let mut pass = Pass::default();
        model.score(&groups, 1.0, &mut |i, scores, d| {
            objective.derive(i, scores, d, &mut pass, true);
        });
        assert_eq!(pass.mismatch, 0.0);
        let factor = correct(&responses);
        for (spread, x) in spreads.iter_mut().zip(along(&mut model)) {
            spread.add(x * factor);
        }
    }
    spreads
}

/// Largest distance from the exact gradient, in standard errors.
fn distance(spreads: &[Spread; DIRECTIONS]) -> f64 {
    let pairs = spreads.iter().zip(exact());
    pairs.map(|(s, exact)| (s.mean() - exact).abs() / s.standard_error()).fold(0.0, f64::max)
}

fn settings(method: &str, changes: &str) -> AlignSettings {
    let common = "kl_coef = 0.0\nmax_new_tokens = 3\nvalue_coef = 0.0\nminibatches = 1\n";
    let changes: Table = toml::from_str(&format!("{common}{changes}")).expect("settings");
    Method::find(method).expect(method).settings(&changes).expect("settings")
}

/// What a whitened batch was divided by, with the mean's own part in it.
fn whitened(responses: &Responses) -> f64 {
    let tokens: Spread = responses.scores.iter().flat_map(|&s| [f64::from(s); 3]).collect();
    tokens.std() * RESPONSES as f64 / (RESPONSES - 1) as f64
}

/// The factor that a batch's gradient is known to lack.
type Correct<'a> = &'a dyn Fn(&Responses) -> f64;

#[test]
fn methods_estimate_the_exact_policy_gradient() {
    let one = |_: &Responses| 1.0;
    // A mean over a group holds the response's own score: its gradient is (G − 1) / G of the
    // exact one.
    let own = |_: &Responses| 8.0 / 7.0;
    let cases: [(&str, &str, Correct<'_>); 6] = [
        ("reinforce", "", &one),
        ("rloo", "", &one),
        ("dr_grpo", "aggregation = 'sum'", &own),
        ("cispo", "advantage = 'center'\naggregation = 'sum'", &own),
        ("ppo", "aggregation = 'sum'\ngae_lambda = 1.0", &whitened),
        ("reinforce_pp", "aggregation = 'sum'", &whitened),
    ];
    for (method, changes, correct) in cases {
        let got = distance(&estimate(&settings(method, changes), 1.0, correct));
        assert!(got < 4.5, "{method}: {got} standard errors");
        // A wrong weight of one token in three is seen.
        let wrong = distance(&estimate(&settings(method, changes), 0.5, correct));
        assert!(wrong > 6.0, "{method} with a defect: {wrong} standard errors");
    }
    // Dividing by the length and by the standard deviation are known to be biased.
    let biased = distance(&estimate(&settings("grpo", ""), 1.0, one));
    assert!(biased > 8.0, "grpo: {biased} standard errors");
    assert_eq!(METHODS[0].name, "grpo");
}
