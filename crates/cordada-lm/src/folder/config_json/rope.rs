//! Rotary positions in a `config.json`: `rope_parameters` of transformers 5, or `rope_theta` and
//! `rope_scaling` of the versions before.

use serde_json::{Value, json};

use super::super::fields::Fields;
use crate::{Error, Positions, RopeScaling};

/// θ where a file has none (the paper's).
const DEFAULT_BASE: f64 = 10_000.0;

pub(super) fn read(f: &Fields, max_positions: usize) -> Result<Positions, Error> {
    if let Some(rope) = f.opt_object("rope_parameters")? {
        let why = "one set of parameters for all layers is supported";
        for name in ["full_attention", "sliding_attention"] {
            rope.refuse(name, &[], why)?;
        }
        let base = match rope.get("rope_theta") {
            None => base(f)?,
            Some(_) => rope.positive("rope_theta")?,
        };
        return Ok(Positions::Rotary { base, scaling: scaling(&rope, max_positions)? });
    }
    let scaling = match f.opt_object("rope_scaling")? {
        None => RopeScaling::Default,
        Some(rope) => scaling(&rope, max_positions)?,
    };
    Ok(Positions::Rotary { base: base(f)?, scaling })
}

fn base(f: &Fields) -> Result<f64, Error> {
    if f.get("rope_theta").is_some() { f.positive("rope_theta") } else { Ok(DEFAULT_BASE) }
}

fn scaling(rope: &Fields, max_positions: usize) -> Result<RopeScaling, Error> {
    let one = [json!(1), json!(1.0)];
    rope.refuse("partial_rotary_factor", &one, "only heads that are rotated whole are supported")?;
    // `type` is the oldest name of `rope_type`.
    let field = if rope.get("rope_type").is_some() { "rope_type" } else { "type" };
    let kind = rope.opt_text(field)?.unwrap_or_else(|| "default".to_string());
    match kind.as_str() {
        "default" => Ok(RopeScaling::Default),
        "linear" => Ok(RopeScaling::Linear { factor: rope.positive("factor")? }),
        "llama3" => Ok(RopeScaling::Llama3 {
            factor: rope.positive("factor")?,
            low_freq_factor: rope.positive("low_freq_factor")?,
            high_freq_factor: rope.positive("high_freq_factor")?,
            original_max_positions: rope.count("original_max_position_embeddings")?,
        }),
        "yarn" => yarn(rope, max_positions),
        _ => Err(rope.wrong(field, "supported are default, linear, llama3 and yarn")),
    }
}

fn yarn(rope: &Fields, max_positions: usize) -> Result<RopeScaling, Error> {
    let why = "only the temperature 0.1 ln(factor) + 1, or attention_factor, is supported";
    rope.refuse("mscale", &[], why)?;
    rope.refuse("mscale_all_dim", &[], why)?;
    if !rope.flag("truncate", true)? {
        return Err(rope.wrong("truncate", "only true is supported"));
    }
    let factor = rope.positive("factor")?;
    let or = |name: &str, default: f64| match rope.get(name) {
        None => Ok(default),
        Some(_) => rope.positive(name),
    };
    Ok(RopeScaling::Yarn {
        factor,
        beta_fast: or("beta_fast", 32.0)?,
        beta_slow: or("beta_slow", 1.0)?,
        attention_factor: or("attention_factor", yarn_attention_factor(factor))?,
        original_max_positions: rope
            .opt_count("original_max_position_embeddings")?
            .unwrap_or(max_positions),
    })
}

/// The temperature that YaRN's authors recommend; none if nothing is stretched.
///
/// # Source
///
/// Peng et al. 2023, arXiv:2309.00071, eq. (22), as a factor of the rotated vectors.
fn yarn_attention_factor(factor: f64) -> f64 {
    if factor <= 1.0 { 1.0 } else { 0.1 * factor.ln() + 1.0 }
}

pub(super) fn to_json(base: f64, scaling: &RopeScaling) -> Value {
    match scaling {
        RopeScaling::Default => json!({ "rope_theta": base, "rope_type": "default" }),
        RopeScaling::Linear { factor } => {
            json!({ "rope_theta": base, "rope_type": "linear", "factor": factor })
        }
        RopeScaling::Llama3 {
            factor,
            low_freq_factor,
            high_freq_factor,
            original_max_positions,
        } => json!({
            "rope_theta": base,
            "rope_type": "llama3",
            "factor": factor,
            "low_freq_factor": low_freq_factor,
            "high_freq_factor": high_freq_factor,
            "original_max_position_embeddings": original_max_positions,
        }),
        RopeScaling::Yarn {
            factor,
            beta_fast,
            beta_slow,
            attention_factor,
            original_max_positions,
        } => json!({
            "rope_theta": base,
            "rope_type": "yarn",
            "factor": factor,
            "beta_fast": beta_fast,
            "beta_slow": beta_slow,
            "attention_factor": attention_factor,
            "original_max_position_embeddings": original_max_positions,
        }),
    }
}
