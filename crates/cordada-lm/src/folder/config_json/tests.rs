//! Shapes by hand: both spellings, all kinds of positions, and every refusal.

use serde_json::Value;

use super::super::StoredAs;
use super::*;
use crate::RopeScaling;

const LLAMA: &str = r#"{"model_type": "llama", "vocab_size": 10, "hidden_size": 8,
    "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 12,
    "max_position_embeddings": 32, "rms_norm_eps": 1e-6}"#;
const GPT2: &str = r#"{"model_type": "gpt2", "vocab_size": 10, "n_embd": 8, "n_layer": 1,
    "n_head": 2, "n_positions": 16}"#;

/// The text with fields replaced (or removed, where `null`).
fn with(text: &str, changes: &str) -> String {
    let mut map: Value = serde_json::from_str(text).unwrap();
    let changes: Value = serde_json::from_str(changes).unwrap();
    for (name, value) in changes.as_object().unwrap() {
        map[name] = value.clone();
    }
    map.to_string()
}

fn read(text: &str) -> ModelConfig {
    parse(text, Path::new("config.json")).unwrap()
}

fn problem(text: &str) -> String {
    parse(text, Path::new("config.json")).unwrap_err().to_string()
}

fn scaling(text: &str) -> RopeScaling {
    match read(text).positions {
        Positions::Rotary { scaling, .. } => scaling,
        Positions::Learned => panic!("no rotary positions"),
    }
}

#[test]
fn absent_fields_take_the_defaults_of_transformers() {
    let llama = read(LLAMA);
    assert_eq!((llama.num_kv_heads, llama.head_dim), (2, 4));
    assert!(!llama.tied && !llama.qkv_bias && !llama.output_bias && !llama.mlp_bias);
    assert_eq!(
        llama.positions,
        Positions::Rotary { base: 10_000.0, scaling: RopeScaling::Default }
    );
    let gpt2 = read(GPT2);
    assert_eq!((gpt2.intermediate_size, gpt2.norm_eps), (32, 1e-5));
    assert_eq!(gpt2.activation, Activation::GeluTanh);
    assert!(gpt2.tied && gpt2.eos_token_ids.is_empty() && gpt2.bos_token_id.is_none());
    let qwen3 = with(LLAMA, r#"{"model_type": "qwen3"}"#);
    assert_eq!(read(&qwen3).head_dim, 128);
    let qwen2 = read(&with(LLAMA, r#"{"model_type": "qwen2"}"#));
    assert!(qwen2.qkv_bias && !qwen2.output_bias);
    let biased = read(&with(LLAMA, r#"{"attention_bias": true, "mlp_bias": true}"#));
    assert!(biased.qkv_bias && biased.output_bias && biased.mlp_bias);
}

#[test]
fn both_spellings_of_every_kind_of_positions_are_read() {
    let llama3 = RopeScaling::Llama3 {
        factor: 8.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_positions: 8192,
    };
    // 0.1 ln 4 + 1 = 1.13862943611…
    let yarn = RopeScaling::Yarn {
        factor: 4.0,
        beta_fast: 32.0,
        beta_slow: 1.0,
        attention_factor: 0.1 * 4.0_f64.ln() + 1.0,
        original_max_positions: 32,
    };
    let cases = [
        (r#""rope_type": "default""#, RopeScaling::Default),
        (r#""rope_type": "linear", "factor": 2.5"#, RopeScaling::Linear { factor: 2.5 }),
        (
            r#""rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
               "high_freq_factor": 4.0, "original_max_position_embeddings": 8192"#,
            llama3,
        ),
        (r#""rope_type": "yarn", "factor": 4.0"#, yarn),
    ];
    for (rope, want) in cases {
        let new = with(LLAMA, &format!(r#"{{"rope_parameters": {{"rope_theta": 5.0, {rope}}}}}"#));
        let old = with(LLAMA, &format!(r#"{{"rope_theta": 5.0, "rope_scaling": {{{rope}}}}}"#));
        let oldest = old.replace("rope_type", "type");
        for text in [&new, &old, &oldest] {
            assert_eq!(scaling(text), want, "{text}");
            let Positions::Rotary { base, .. } = read(text).positions else { unreachable!() };
            assert_eq!(base, 5.0);
        }
        let written = to_text(&read(&new), StoredAs::F32).unwrap();
        assert_eq!(read(&written), read(&new), "{written}");
    }
}

#[test]
fn end_tokens_are_one_or_many() {
    let ids = |eos: &str| read(&with(GPT2, &format!(r#"{{"eos_token_id": {eos}}}"#))).eos_token_ids;
    assert_eq!(ids("3"), [3]);
    assert_eq!(ids("[3, 1]"), [3, 1]);
    assert!(ids("null").is_empty());
    assert_eq!(read(&with(GPT2, r#"{"pad_token_id": -1}"#)).pad_token_id, None);
}

#[test]
fn what_is_not_supported_is_named() {
    let cases = [
        (LLAMA, r#"{"model_type": "mamba"}"#, r#"model_type is "mamba"; supported are gpt2"#),
        (LLAMA, r#"{"vocab_size": null}"#, "the field vocab_size is missing"),
        (LLAMA, r#"{"rms_norm_eps": null}"#, "the field rms_norm_eps is missing"),
        (LLAMA, r#"{"hidden_size": 0}"#, "hidden_size is 0; it must be a whole number from 1 on"),
        (LLAMA, r#"{"hidden_size": "8"}"#, r#"hidden_size is "8"; it must be a whole number"#),
        (LLAMA, r#"{"num_attention_heads": 3}"#, "hidden_size = 8 must be a multiple of it"),
        (LLAMA, r#"{"num_key_value_heads": 3}"#, "num_attention_heads = 2 must be a multiple"),
        (LLAMA, r#"{"head_dim": 5}"#, "the width of a head is 5; rotary positions need an even"),
        (LLAMA, r#"{"hidden_act": "mish"}"#, r#"hidden_act is "mish"; supported are silu"#),
        (LLAMA, r#"{"use_sliding_window": true}"#, "use_sliding_window is true; only attention"),
        (LLAMA, r#"{"layer_types": ["sliding_attention"]}"#, "layer_types is [\"sliding"),
        (LLAMA, r#"{"partial_rotary_factor": 0.5}"#, "partial_rotary_factor is 0.5; only heads"),
        (LLAMA, r#"{"dtype": "float64"}"#, r#"dtype is "float64"; supported are float32"#),
        (LLAMA, r#"{"torch_dtype": "int8"}"#, r#"torch_dtype is "int8"; supported are float32"#),
        (LLAMA, r#"{"quantization_config": {"bits": 4}}"#, r#"quantization_config is {"bits":4}"#),
        (LLAMA, r#"{"eos_token_id": 10}"#, "eos_token_id is 10; the model has the tokens 0 to 9"),
        (LLAMA, r#"{"eos_token_id": "x"}"#, "eos_token_id is \"x\"; it must be a token or a list"),
        (LLAMA, r#"{"attention_bias": 1}"#, "attention_bias is 1; it must be true or false"),
        (
            LLAMA,
            r#"{"rope_scaling": {"rope_type": "longrope"}}"#,
            r#"rope_scaling.rope_type is "longrope"; supported are default, linear, llama3 and yarn"#,
        ),
        (
            LLAMA,
            r#"{"rope_parameters": {"rope_type": "linear"}}"#,
            "the field rope_parameters.factor is missing",
        ),
        (
            LLAMA,
            r#"{"rope_parameters": {"rope_type": "yarn", "factor": 2, "mscale": 1.0}}"#,
            "rope_parameters.mscale is 1.0; only the temperature",
        ),
        (
            LLAMA,
            r#"{"rope_parameters": {"full_attention": {"rope_type": "default"}}}"#,
            "rope_parameters.full_attention is",
        ),
        (GPT2, r#"{"scale_attn_by_inverse_layer_idx": true}"#, "inverse_layer_idx is true; only"),
        (GPT2, r#"{"scale_attn_weights": false}"#, "scale_attn_weights is false; only attention"),
        (GPT2, r#"{"add_cross_attention": true}"#, "add_cross_attention is true; only decoders"),
        (GPT2, r#"{"activation_function": "x"}"#, "activation_function is \"x\"; supported"),
    ];
    for (text, change, want) in cases {
        let message = problem(&with(text, change));
        assert!(message.starts_with("config.json: ") && message.contains(want), "{message}");
    }
    assert!(problem("{").starts_with("config.json: this is not JSON: "));
    assert_eq!(problem("[]"), "config.json: this must be a JSON object { … }");
}

#[test]
fn shapes_without_words_are_not_written() {
    let mut qwen2 = read(&with(LLAMA, r#"{"model_type": "qwen2"}"#));
    qwen2.qkv_bias = false;
    let message = to_text(&qwen2, StoredAs::F32).unwrap_err().to_string();
    assert!(message.contains("config.json of qwen2 cannot say it: queries"), "{message}");
    let mut gpt2 = read(GPT2);
    gpt2.num_kv_heads = 1;
    let message = to_text(&gpt2, StoredAs::F32).unwrap_err().to_string();
    assert!(message.contains("config.json of GPT-2 cannot say it: heads"), "{message}");
}
