//! Adapters in PEFT's format: `adapter_config.json` and `adapter_model.safetensors`. Features
//! that are not supported are refused by name.

use std::path::Path;

use serde_json::{Value, json};

use super::{AdapterLayout, LoraConfig, linear_modules};
use crate::folder::fields::Fields;
use crate::folder::{
    Source, StoredAs, check_folder, f32_bytes, file_error, io_error, pretty, read_text,
    write_atomically, write_tensors,
};
use crate::{Error, Layout};

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";
const PREFIX: &str = "base_model.model.";

/// Fields that change what an adapter computes in a way that is not supported.
const UNSUPPORTED: [&str; 23] = [
    "use_dora",
    "modules_to_save",
    "rank_pattern",
    "alpha_pattern",
    "layers_to_transform",
    "layers_pattern",
    "layer_replication",
    "exclude_modules",
    "target_parameters",
    "trainable_token_indices",
    "lora_bias",
    "alora_invocation_tokens",
    "arrow_config",
    "use_qalora",
    "use_bdlora",
    "kasa_config",
    "velora_config",
    "monteclora_config",
    "lora_ga_config",
    "corda_config",
    "loftq_config",
    "megatron_config",
    "ensure_weight_tying",
];

/// Reads an adapter for a model.
///
/// `lora_dropout` is a matter of training alone and is not taken over.
///
/// # Errors
///
/// [`Error::Io`] or [`Error::File`] naming the file, the field or tensor, and what is supported.
pub fn read(
    folder: &Path,
    layout: &Layout,
) -> Result<(LoraConfig, AdapterLayout, Vec<f32>), Error> {
    check_folder(folder)?;
    let path = folder.join(CONFIG);
    if !path.exists() {
        let text = "this folder has no adapter_config.json, so it is no adapter of PEFT's";
        return Err(file_error(folder, text));
    }
    let lora = parse(&read_text(&path)?, &path, layout)?;
    let adapters =
        AdapterLayout::new(layout, &lora).map_err(|e| file_error(&path, e.to_string()))?;
    let path = folder.join(WEIGHTS);
    if !path.exists() {
        let text = "this folder has no adapter_model.safetensors; an adapter in adapter_model.bin \
                    must be saved again with save_pretrained(folder, safe_serialization=True)";
        return Err(file_error(folder, text));
    }
    let theta = read_weights(&path, &adapters)?;
    Ok((lora, adapters, theta))
}

fn parse(text: &str, path: &Path, layout: &Layout) -> Result<LoraConfig, Error> {
    let f = Fields::parse(text, path)?;
    let kind = f.opt_text("peft_type")?.ok_or_else(|| f.missing("peft_type"))?;
    if kind != "LORA" {
        return Err(f.wrong("peft_type", "supported is LORA"));
    }
    f.refuse("task_type", &[json!("CAUSAL_LM")], "supported is CAUSAL_LM")?;
    f.refuse("bias", &[json!("none")], "supported is none")?;
    for name in UNSUPPORTED {
        f.refuse(name, &[], "this feature of PEFT is not supported")?;
    }
    // Other ways of starting change the frozen matrices too, which the adapter's file lacks.
    let fine = [json!(true), json!("gaussian"), json!("orthogonal"), json!("eva")];
    f.refuse("init_lora_weights", &fine, "supported are true, false, gaussian, orthogonal, eva")?;
    let alpha = match f.get("lora_alpha") {
        Some(_) => f.positive("lora_alpha")?,
        None => return Err(f.missing("lora_alpha")),
    };
    Ok(LoraConfig {
        rank: f.count("r")?,
        alpha,
        target_modules: targets(&f, layout)?,
        use_rslora: f.flag("use_rslora", false)?,
    })
}

fn targets(f: &Fields, layout: &Layout) -> Result<Vec<String>, Error> {
    let name = "target_modules";
    match f.get(name) {
        None => Err(f.missing(name)),
        Some(Value::String(all)) if all == "all-linear" => Ok(linear_modules(layout)),
        Some(Value::String(_)) => {
            Err(f.wrong(name, "a pattern is not supported; list the names of the layers"))
        }
        Some(_) => Ok(f.opt_texts(name)?.unwrap_or_default()),
    }
}

/// Names and shapes of all tensors with their places, in the order of the parameters.
fn tensors(
    adapters: &AdapterLayout,
) -> impl Iterator<Item = (String, Vec<usize>, std::ops::Range<usize>)> {
    adapters.adapters.iter().flat_map(|info| {
        let (p, module) = (&info.place, &info.module);
        let name = |part: &str| format!("{PREFIX}{module}.lora_{part}.weight");
        [
            (name("A"), vec![p.rank, p.inputs], p.a.clone()),
            (name("B"), vec![p.outputs.len(), p.rank], p.b.clone()),
        ]
    })
}

fn read_weights(path: &Path, adapters: &AdapterLayout) -> Result<Vec<f32>, Error> {
    let mut source = Source::open(path)?;
    let mut theta = vec![0.0; adapters.num_params];
    let mut left = source.names();
    for (name, shape, range) in tensors(adapters) {
        source.read(&name, &shape, &mut theta[range])?;
        left.retain(|n| *n != name);
    }
    match left.first() {
        None => Ok(theta),
        Some(name) => Err(file_error(
            path,
            format!("tensor {name} belongs to no target module of {CONFIG} in this model"),
        )),
    }
}

/// Writes an adapter so that PEFT loads it. The folder is made if need be; each file appears whole
/// or not at all.
///
/// `base_model` names the model that the adapter belongs to, a folder or a name.
///
/// # Shapes
///
/// `theta`: `[adapters.num_params]`.
///
/// # Errors
///
/// [`Error::Io`] naming the file.
///
/// # Panics
///
/// If `theta` has another length.
pub fn write(
    folder: &Path,
    lora: &LoraConfig,
    adapters: &AdapterLayout,
    theta: &[f32],
    base_model: &str,
    stored_as: StoredAs,
) -> Result<(), Error> {
    assert_eq!(theta.len(), adapters.num_params, "the adapter does not fit its layout");
    std::fs::create_dir_all(folder).map_err(|e| io_error(folder, e))?;
    let mut all: Vec<_> = tensors(adapters).collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    let shapes: Vec<_> = all.iter().map(|(n, s, _)| (n.clone(), s.clone())).collect();
    write_tensors(&folder.join(WEIGHTS), &shapes, stored_as, |i, out| {
        f32_bytes(&theta[all[i].2.clone()], stored_as, out)
    })?;
    let config = json!({
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_model,
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": 0.0,
        "target_modules": lora.target_modules,
        "use_rslora": lora.use_rslora,
        "fan_in_fan_out": adapters.fan_in_fan_out,
        "bias": "none",
        "inference_mode": true,
        "init_lora_weights": true,
    });
    write_atomically(&folder.join(CONFIG), pretty(&config).as_bytes())
}
