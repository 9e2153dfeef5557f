//! `config.json` in the words of transformers 5.

use serde_json::{Map, Value, json};

use super::super::generation_config::tokens;
use super::super::{StoredAs, pretty};
use super::{ACTIVATIONS, rope};
use crate::{Architecture, Error, ModelConfig, Positions};

/// The text of a `config.json` that transformers loads.
///
/// # Errors
///
/// [`Error::Setting`] if the architecture's `config.json` has no words for the shape: a Qwen2
/// without biases, a GPT-2 with shared key heads.
pub fn to_text(config: &ModelConfig, stored_as: StoredAs) -> Result<String, Error> {
    let mut map = Map::new();
    let fields = match config.architecture {
        Architecture::Gpt2 => gpt2(config)?,
        _ => llama_like(config)?,
    };
    let Value::Object(fields) = fields else { unreachable!("both functions make objects") };
    map.extend(fields);
    map.insert("vocab_size".into(), json!(config.vocab_size));
    map.insert("tie_word_embeddings".into(), json!(config.tied));
    map.insert("eos_token_id".into(), tokens(&config.eos_token_ids));
    map.insert("bos_token_id".into(), json!(config.bos_token_id));
    map.insert("pad_token_id".into(), json!(config.pad_token_id));
    map.insert("dtype".into(), json!(stored_as.name()));
    map.insert("use_cache".into(), json!(true));
    Ok(pretty(&Value::Object(map)))
}

fn check(fine: bool, model: &str, need: &str) -> Result<(), Error> {
    if fine {
        return Ok(());
    }
    Err(Error::Setting(format!("config.json of {model} cannot say it: {need}")))
}

fn activation_name(config: &ModelConfig) -> &'static str {
    let names = ACTIVATIONS.iter().find(|(_, a)| *a == config.activation);
    names.map_or("silu", |(name, _)| name)
}

fn gpt2(c: &ModelConfig) -> Result<Value, Error> {
    let equal = c.num_kv_heads == c.num_heads && c.head_dim * c.num_heads == c.hidden_size;
    check(equal, "GPT-2", "heads must divide the width equally and share no keys")?;
    check(c.qkv_bias && c.output_bias && c.mlp_bias, "GPT-2", "all layers must have biases")?;
    check(c.positions == Positions::Learned, "GPT-2", "positions must be learned")?;
    Ok(json!({
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "n_embd": c.hidden_size,
        "n_layer": c.num_layers,
        "n_head": c.num_heads,
        "n_inner": c.intermediate_size,
        "n_positions": c.max_positions,
        "layer_norm_epsilon": c.norm_eps,
        "activation_function": activation_name(c),
        "scale_attn_weights": true,
        "scale_attn_by_inverse_layer_idx": false,
    }))
}

fn llama_like(c: &ModelConfig) -> Result<Value, Error> {
    let (name, class) = match c.architecture {
        Architecture::Qwen2 => ("qwen2", "Qwen2ForCausalLM"),
        Architecture::Qwen3 => ("qwen3", "Qwen3ForCausalLM"),
        _ => ("llama", "LlamaForCausalLM"),
    };
    let Positions::Rotary { base, scaling } = &c.positions else {
        return Err(Error::Setting(format!(
            "config.json of {name} cannot say it: positions must be rotary"
        )));
    };
    let mut value = json!({
        "model_type": name,
        "architectures": [class],
        "hidden_size": c.hidden_size,
        "num_hidden_layers": c.num_layers,
        "num_attention_heads": c.num_heads,
        "num_key_value_heads": c.num_kv_heads,
        "head_dim": c.head_dim,
        "intermediate_size": c.intermediate_size,
        "max_position_embeddings": c.max_positions,
        "rms_norm_eps": c.norm_eps,
        "hidden_act": activation_name(c),
        "rope_parameters": rope::to_json(*base, scaling),
        "attention_dropout": 0.0,
    });
    if c.architecture == Architecture::Qwen2 {
        let need = "queries, keys and values must have biases and the output layer none";
        check(c.qkv_bias && !c.output_bias, name, need)?;
    } else {
        let need = "queries, keys, values and the output layer must all have biases or none";
        check(c.qkv_bias == c.output_bias, name, need)?;
        value["attention_bias"] = json!(c.qkv_bias);
    }
    if c.architecture == Architecture::Llama {
        value["mlp_bias"] = json!(c.mlp_bias);
    } else {
        check(!c.mlp_bias, name, "the perceptron must have no biases")?;
        value["use_sliding_window"] = json!(false);
    }
    Ok(value)
}
