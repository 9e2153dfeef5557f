//! Small models for the tests.

#![allow(dead_code, reason = "each test file uses a part")]

use cordada_lm::config::{Architecture, ModelConfig, Positions, RopeScaling};
use cordada_lm::{Adapter, Group, Place, Site, Transformer};
use cordada_nn::{Activation, Real};

/// A tiny model of an architecture; heads are wider than hidden / heads where that is allowed.
pub(crate) fn config(architecture: Architecture, tied: bool) -> ModelConfig {
    let gpt2 = architecture == Architecture::Gpt2;
    ModelConfig {
        architecture,
        vocab_size: 11,
        hidden_size: 12,
        num_layers: 2,
        num_heads: 4,
        num_kv_heads: if gpt2 { 4 } else { 2 },
        head_dim: if gpt2 { 3 } else { 4 },
        intermediate_size: 10,
        max_positions: 16,
        norm_eps: 1e-5,
        activation: if gpt2 { Activation::GeluTanh } else { Activation::Silu },
        positions: if gpt2 {
            Positions::Learned
        } else {
            Positions::Rotary { base: 100.0, scaling: RopeScaling::Default }
        },
        qkv_bias: gpt2 || architecture == Architecture::Qwen2,
        output_bias: gpt2,
        mlp_bias: gpt2,
        tied,
        eos_token_ids: vec![0],
        bos_token_id: None,
        pad_token_id: None,
    }
}

pub(crate) const ARCHITECTURES: [Architecture; 4] =
    [Architecture::Gpt2, Architecture::Llama, Architecture::Qwen2, Architecture::Qwen3];

/// Values without a pattern in about ±`size`.
pub(crate) fn wave<T: Real>(n: usize, shift: f64, size: f64) -> Vec<T> {
    (0..n).map(|i| T::of(size * (1.7 * i as f64 + 0.013 * (i * i) as f64 + shift).sin())).collect()
}

/// Parameters without a pattern; norms' weights around 1.
pub(crate) fn theta<T: Real>(transformer: &Transformer<T>) -> Vec<T> {
    let mut theta = wave(transformer.layout().num_params, 0.3, 0.4);
    for tensor in &transformer.layout().tensors {
        if tensor.name.contains("norm") || tensor.name.contains("ln_") {
            for x in &mut theta[tensor.range.clone()] {
                *x += T::ONE;
            }
        }
    }
    theta
}

/// Adapters of rank 2 for some layers, as PEFT would place them: queries, values, gate, down.
pub(crate) fn adapter<T: Real>(transformer: &Transformer<T>) -> Adapter<T> {
    let c = transformer.config();
    let (q, kv) = (c.query_width(), c.kv_width());
    let mut sites = vec![
        (Site::Qkv, 0..q, c.hidden_size),
        (Site::Qkv, q + kv..q + 2 * kv, c.hidden_size),
        (Site::Output, 0..c.hidden_size, q),
        (Site::Down, 0..c.hidden_size, c.intermediate_size),
    ];
    sites.insert(3, (Site::Up, 0..c.intermediate_size, c.hidden_size));
    let mut places = Vec::new();
    let mut offset = 0;
    for block in 0..c.num_layers {
        for (site, outputs, inputs) in &sites {
            let rank = 2;
            let (a, b) = (offset..offset + rank * inputs, offset + rank * inputs);
            let b = b..b + rank * outputs.len();
            offset = b.end;
            places.push(Place {
                block,
                site: *site,
                outputs: outputs.clone(),
                a,
                b,
                inputs: *inputs,
                rank,
            });
        }
    }
    let layout = transformer.layout();
    Adapter::new(wave(offset, 2.0, 0.5), &places, T::of(0.7), c.num_layers, |block, site| {
        let b = &layout.blocks[block];
        match site {
            Site::Qkv => b.qkv.outputs,
            Site::Output => b.output.outputs,
            Site::Up => b.up.outputs,
            Site::Down => b.down.outputs,
        }
    })
}

/// A shared prompt, a masked completion, and a plain one.
pub(crate) fn groups() -> Vec<Group> {
    vec![
        Group::new(vec![5, 6, 2], vec![vec![7, 8, 9], vec![1], vec![2, 3]]),
        Group {
            prompt: vec![4],
            completions: vec![vec![6, 7, 8, 9, 10]],
            scored: vec![vec![false, true, true, false, true]],
        },
        Group::new(vec![1, 2, 3, 4, 5, 6], vec![vec![7, 7, 0]]),
    ]
}
