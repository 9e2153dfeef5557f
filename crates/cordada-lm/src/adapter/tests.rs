//! Places, starts and merging by hand.

use cordada_env::role;
use cordada_nn::Activation;

use super::*;
use crate::{Architecture, ModelConfig, Positions};

/// A GPT-2 of one block: width 2, perceptron 3.
fn gpt2() -> Layout {
    Layout::new(&ModelConfig {
        architecture: Architecture::Gpt2,
        vocab_size: 5,
        hidden_size: 2,
        num_layers: 1,
        num_heads: 1,
        num_kv_heads: 1,
        head_dim: 2,
        intermediate_size: 3,
        max_positions: 4,
        norm_eps: 1e-5,
        activation: Activation::GeluTanh,
        positions: Positions::Learned,
        qkv_bias: true,
        output_bias: true,
        mlp_bias: true,
        tied: true,
        eos_token_ids: Vec::new(),
        bos_token_id: None,
        pad_token_id: None,
    })
}

fn lora(targets: &[&str]) -> LoraConfig {
    LoraConfig {
        rank: 2,
        alpha: 6.0,
        target_modules: targets.iter().map(ToString::to_string).collect(),
        use_rslora: false,
    }
}

#[test]
fn scaling_is_alpha_over_rank_or_its_root() {
    let mut config = LoraConfig { rank: 4, alpha: 6.0, ..lora(&[]) };
    assert_eq!(config.scaling(), 1.5);
    config.use_rslora = true;
    assert_eq!(config.scaling(), 3.0);
}

#[test]
fn a_suffix_means_every_layer_of_that_name() {
    let layout = AdapterLayout::new(&gpt2(), &lora(&["c_proj"])).unwrap();
    let modules: Vec<&str> = layout.adapters.iter().map(|a| a.module.as_str()).collect();
    assert_eq!(modules, ["transformer.h.0.attn.c_proj", "transformer.h.0.mlp.c_proj"]);
    // A [2, 2] and B [2, 2] of the first, A [2, 3] and B [2, 2] of the second.
    let places: Vec<_> =
        layout.adapters.iter().map(|a| (a.place.a.clone(), a.place.b.clone())).collect();
    assert_eq!(places, [(0..4, 4..8), (8..14, 14..18)]);
    assert_eq!(layout.num_params, 18);
    // "proj" is no whole part of a name.
    let message = AdapterLayout::new(&gpt2(), &lora(&["proj"])).unwrap_err().to_string();
    assert_eq!(
        message,
        "the target module \"proj\" of the adapter is no layer that can have one; the model has: \
         c_attn, c_fc, c_proj"
    );
    let message = AdapterLayout::new(&gpt2(), &lora(&[])).unwrap_err().to_string();
    assert!(message.starts_with("an adapter needs target modules"), "{message}");
    let zero = LoraConfig { rank: 0, ..lora(&["c_fc"]) };
    let message = AdapterLayout::new(&gpt2(), &zero).unwrap_err().to_string();
    assert!(message.starts_with("the rank of an adapter is 0"), "{message}");
}

#[test]
fn a_start_changes_nothing_and_fills_its_bound() {
    let layout = AdapterLayout::new(&gpt2(), &lora(&["mlp.c_proj"])).unwrap();
    let theta = layout.init(&mut Stream::new(3, role::INIT, 0));
    let place = &layout.adapters[0].place;
    assert!(theta[place.b.clone()].iter().all(|&b| b == 0.0));
    // Inputs: 3, so A lies within 1/√3 = 0.577; the mean square of that is 1/9.
    let bound = 1.0 / 3.0_f32.sqrt();
    let mut squares = Vec::new();
    for seed in 0..500 {
        let theta = layout.init(&mut Stream::new(seed, role::INIT, 0));
        assert!(theta[place.a.clone()].iter().all(|a| a.abs() <= bound));
        squares.extend(theta[place.a.clone()].iter().map(|a| f64::from(a * a)));
    }
    let mean = squares.iter().sum::<f64>() / squares.len() as f64;
    assert!((mean - 1.0 / 9.0).abs() < 0.01, "{mean}");
}

#[test]
fn merging_adds_the_scaled_product() {
    let model = gpt2();
    let layout = AdapterLayout::new(&model, &lora(&["c_fc"])).unwrap();
    let mut theta = vec![0.0; model.num_params];
    // A = [1 2; 3 4], B = [1 0; 0 1; 1 1], so B A = [1 2; 3 4; 4 6]; s = 6 / 2.
    let adapter = [1.0, 2.0, 3.0, 4.0, 1.0, 0.0, 0.0, 1.0, 1.0, 1.0];
    layout.merge(&mut theta, &adapter, 3.0);
    assert_eq!(theta[layout.adapters[0].weight.clone()], [3.0, 6.0, 9.0, 12.0, 12.0, 18.0]);
    assert_eq!(theta.iter().filter(|x| **x != 0.0).count(), 6);
}
