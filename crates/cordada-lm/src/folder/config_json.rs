//! `config.json`: a model's shape in Hugging Face's words, in and out.
//!
//! Read are the names of transformers 5 (`rope_parameters`, `dtype`) and the older ones
//! (`rope_theta`, `rope_scaling`, `torch_dtype`); written are those of transformers 5. What this
//! program does not compute is refused by name, never ignored.

mod rope;
mod write;

use std::path::Path;

use cordada_nn::Activation;
use serde_json::json;

use super::fields::Fields;
use super::file_error;
use crate::{Architecture, Error, ModelConfig, Positions};
pub use write::to_text;

/// Activations under the names of transformers; the first name of each is the one written.
const ACTIVATIONS: [(&str, Activation); 11] = [
    ("silu", Activation::Silu),
    ("swish", Activation::Silu),
    ("gelu", Activation::Gelu),
    ("gelu_new", Activation::GeluTanh),
    ("gelu_pytorch_tanh", Activation::GeluTanh),
    ("gelu_fast", Activation::GeluTanh),
    ("relu", Activation::Relu),
    ("tanh", Activation::Tanh),
    ("linear", Activation::Identity),
    ("leaky_relu", Activation::LeakyRelu),
    ("elu", Activation::Elu),
];

/// Types of numbers that files of weights may have.
const DTYPES: [&str; 3] = ["float32", "bfloat16", "float16"];

/// Reads the text of a `config.json`.
///
/// # Errors
///
/// [`Error::File`] naming the field, its value and what is supported.
pub fn parse(text: &str, path: &Path) -> Result<ModelConfig, Error> {
    let f = Fields::parse(text, path)?;
    let model_type = f.opt_text("model_type")?.ok_or_else(|| f.missing("model_type"))?;
    let architecture = match model_type.as_str() {
        "gpt2" => Architecture::Gpt2,
        "llama" => Architecture::Llama,
        "qwen2" => Architecture::Qwen2,
        "qwen3" => Architecture::Qwen3,
        _ => {
            return Err(f.wrong("model_type", "supported are gpt2, llama, qwen2 and qwen3"));
        }
    };
    for name in ["dtype", "torch_dtype"] {
        if f.opt_text(name)?.is_some_and(|d| !DTYPES.contains(&d.as_str())) {
            return Err(f.wrong(name, &format!("supported are {}", DTYPES.join(", "))));
        }
    }
    let why = "weights must be plain numbers; use the model that is not quantized";
    f.refuse("quantization_config", &[], why)?;
    let config = match architecture {
        Architecture::Gpt2 => gpt2(&f)?,
        _ => llama_like(&f, architecture)?,
    };
    check_tokens(&config, path)?;
    Ok(config)
}

/// Checks that the special tokens exist; `path` is the file that names them.
pub(super) fn check_tokens(config: &ModelConfig, path: &Path) -> Result<(), Error> {
    let named = config.eos_token_ids.iter().map(|id| ("eos_token_id", id));
    let others = [("bos_token_id", &config.bos_token_id), ("pad_token_id", &config.pad_token_id)];
    let others = others.iter().filter_map(|(name, id)| Some((*name, id.as_ref()?)));
    match named.chain(others).find(|(_, id)| **id as usize >= config.vocab_size) {
        None => Ok(()),
        Some((name, id)) => Err(file_error(
            path,
            format!("{name} is {id}; the model has the tokens 0 to {}", config.vocab_size - 1),
        )),
    }
}

fn activation(f: &Fields, name: &str, default: &str) -> Result<Activation, Error> {
    let text = f.opt_text(name)?.unwrap_or_else(|| default.to_string());
    let found = ACTIVATIONS.iter().find(|(n, _)| *n == text);
    found.map(|(_, a)| *a).ok_or_else(|| {
        let names: Vec<&str> = ACTIVATIONS.iter().map(|(n, _)| *n).collect();
        f.wrong(name, &format!("supported are {}", names.join(", ")))
    })
}

/// The width of a head if it is the residual stream's, divided among them.
fn equal_share(f: &Fields, hidden: &str, heads: &str) -> Result<usize, Error> {
    let (d, h) = (f.count(hidden)?, f.count(heads)?);
    if d % h == 0 {
        return Ok(d / h);
    }
    Err(f.wrong(heads, &format!("{hidden} = {d} must be a multiple of it")))
}

fn gpt2(f: &Fields) -> Result<ModelConfig, Error> {
    let why = "only attention scaled by 1/√(head width) is supported";
    f.refuse("scale_attn_by_inverse_layer_idx", &[], why)?;
    if !f.flag("scale_attn_weights", true)? {
        return Err(f.wrong("scale_attn_weights", why));
    }
    f.refuse("add_cross_attention", &[], "only decoders without cross-attention are supported")?;
    let (hidden_size, num_heads) = (f.count("n_embd")?, f.count("n_head")?);
    Ok(ModelConfig {
        architecture: Architecture::Gpt2,
        vocab_size: f.count("vocab_size")?,
        hidden_size,
        num_layers: f.count("n_layer")?,
        num_heads,
        num_kv_heads: num_heads,
        head_dim: equal_share(f, "n_embd", "n_head")?,
        intermediate_size: f.opt_count("n_inner")?.unwrap_or(4 * hidden_size),
        max_positions: f.count("n_positions")?,
        norm_eps: f.opt_number("layer_norm_epsilon")?.unwrap_or(1e-5),
        activation: activation(f, "activation_function", "gelu_new")?,
        positions: Positions::Learned,
        qkv_bias: true,
        output_bias: true,
        mlp_bias: true,
        tied: f.flag("tie_word_embeddings", true)?,
        eos_token_ids: f.tokens("eos_token_id")?,
        bos_token_id: f.opt_token("bos_token_id")?,
        pad_token_id: f.opt_token("pad_token_id")?,
    })
}

fn llama_like(f: &Fields, architecture: Architecture) -> Result<ModelConfig, Error> {
    let why = "only attention to all earlier tokens is supported";
    f.refuse("use_sliding_window", &[], why)?;
    let types = f.opt_texts("layer_types")?.unwrap_or_default();
    if types.iter().any(|t| t != "full_attention") {
        return Err(f.wrong("layer_types", why));
    }
    let one = [json!(1), json!(1.0)];
    f.refuse("partial_rotary_factor", &one, "only heads that are rotated whole are supported")?;
    let num_heads = f.count("num_attention_heads")?;
    let num_kv_heads = f.opt_count("num_key_value_heads")?.unwrap_or(num_heads);
    if num_heads % num_kv_heads != 0 {
        let wanted = format!("num_attention_heads = {num_heads} must be a multiple of it");
        return Err(f.wrong("num_key_value_heads", &wanted));
    }
    let head_dim = match (f.opt_count("head_dim")?, architecture) {
        (Some(width), _) => width,
        // The default of transformers' Qwen3Config.
        (None, Architecture::Qwen3) => 128,
        (None, _) => equal_share(f, "hidden_size", "num_attention_heads")?,
    };
    if head_dim % 2 != 0 {
        let text = format!("the width of a head is {head_dim}; rotary positions need an even one");
        return Err(f.wrong("head_dim", &text));
    }
    let qwen2 = architecture == Architecture::Qwen2;
    let attention_bias = !qwen2 && f.flag("attention_bias", false)?;
    let max_positions = f.count("max_position_embeddings")?;
    Ok(ModelConfig {
        architecture,
        vocab_size: f.count("vocab_size")?,
        hidden_size: f.count("hidden_size")?,
        num_layers: f.count("num_hidden_layers")?,
        num_heads,
        num_kv_heads,
        head_dim,
        intermediate_size: f.count("intermediate_size")?,
        max_positions,
        norm_eps: f.opt_number("rms_norm_eps")?.ok_or_else(|| f.missing("rms_norm_eps"))?,
        activation: activation(f, "hidden_act", "silu")?,
        positions: rope::read(f, max_positions)?,
        qkv_bias: qwen2 || attention_bias,
        output_bias: attention_bias,
        mlp_bias: architecture == Architecture::Llama && f.flag("mlp_bias", false)?,
        tied: f.flag("tie_word_embeddings", false)?,
        eos_token_ids: f.tokens("eos_token_id")?,
        bos_token_id: f.opt_token("bos_token_id")?,
        pad_token_id: f.opt_token("pad_token_id")?,
    })
}

#[cfg(test)]
mod tests;
