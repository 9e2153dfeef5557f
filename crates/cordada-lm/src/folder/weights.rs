//! Weights in `.safetensors` files: one file, or several with an index.
//!
//! Reading goes tensor by tensor straight into θ, writing straight from it; no file is held in
//! memory as a whole.

mod file;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::fields::Fields;
use super::{StoredAs, WriteOptions, file_error, io_error, pretty, read_text, write_atomically};
use crate::{Architecture, Error, Layout, ModelConfig, TensorInfo};
pub(crate) use file::{Source, f32_bytes, write_tensors};

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
const HEAD: &str = "lm_head.weight";

/// The files that hold the weights, in order.
fn files(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let single = folder.join(SINGLE);
    if single.exists() {
        return Ok(vec![single]);
    }
    let index = folder.join(INDEX);
    if !index.exists() {
        return Err(no_weights(folder));
    }
    let fields = Fields::parse(&read_text(&index)?, &index)?;
    let map = fields.opt_object("weight_map")?.ok_or_else(|| fields.missing("weight_map"))?;
    let mut files: BTreeSet<PathBuf> = BTreeSet::new();
    for tensor in map.names() {
        let name = map.opt_text(tensor)?.ok_or_else(|| map.missing(tensor))?;
        let inside = Path::new(&name).file_name().is_some_and(|n| *n == *name);
        if !inside {
            return Err(map.wrong(tensor, "it must be the name of a file in the same folder"));
        }
        let path = folder.join(&name);
        if !path.exists() {
            let problem = format!(
                "this file is missing; {INDEX} says that it holds {tensor}; download it again"
            );
            return Err(file_error(&path, problem));
        }
        files.insert(path);
    }
    Ok(files.into_iter().collect())
}

fn no_weights(folder: &Path) -> Error {
    let old = ["pytorch_model.bin", "pytorch_model.bin.index.json"];
    if let Some(name) = old.iter().find(|n| folder.join(n).exists()) {
        return file_error(
            &folder.join(name),
            "weights in PyTorch's pickle format are not read, because such a file can run any \
             program; save the model again with save_pretrained(folder, safe_serialization=True)",
        );
    }
    let problem = format!("this folder has no weights; {SINGLE} or {INDEX} must be there");
    file_error(folder, problem)
}

/// Whether a tensor is a constant that old versions stored and that nothing needs.
fn is_buffer(name: &str) -> bool {
    name.ends_with(".attn.bias")
        || name.ends_with(".attn.masked_bias")
        || name.ends_with("rotary_emb.inv_freq")
}

/// Reads θ.
pub(super) fn read(
    folder: &Path,
    config: &ModelConfig,
    layout: &Layout,
) -> Result<Vec<f32>, Error> {
    let index: BTreeMap<&str, usize> =
        layout.tensors.iter().enumerate().map(|(i, t)| (t.name.as_str(), i)).collect();
    // A base model that was saved without its head lacks the first part of each name.
    let prefix = match config.architecture {
        Architecture::Gpt2 => "transformer.",
        _ => "model.",
    };
    let files = files(folder)?;
    let mut theta = vec![0.0_f32; layout.num_params];
    let mut seen: Vec<Option<PathBuf>> = vec![None; layout.tensors.len()];
    let mut heads = Vec::new();
    for path in &files {
        let mut source = Source::open(path)?;
        for name in source.names() {
            if name == HEAD && config.tied {
                heads.push(path);
                continue;
            }
            let found = index.get(name.as_str()).or_else(|| index.get(&*format!("{prefix}{name}")));
            let Some(&i) = found else {
                if is_buffer(&name) {
                    continue;
                }
                return Err(unexpected(path, &name, config));
            };
            if let Some(first) = &seen[i] {
                let problem = format!("tensor {name} is in {} already", first.display());
                return Err(file_error(path, problem));
            }
            let tensor = &layout.tensors[i];
            read_tensor(&mut source, &name, tensor, &mut theta[tensor.range.clone()])?;
            seen[i] = Some(path.clone());
        }
    }
    check_complete(folder, &files, layout, &seen)?;
    for path in heads {
        check_head(path, layout, &theta)?;
    }
    Ok(theta)
}

fn read_tensor(
    source: &mut Source,
    name: &str,
    tensor: &TensorInfo,
    out: &mut [f32],
) -> Result<(), Error> {
    if !tensor.transposed {
        return source.read(name, &tensor.shape, out);
    }
    // The file has [in, out], θ has [out, in].
    let (outputs, inputs) = (tensor.shape[0], tensor.shape[1]);
    let mut stored = vec![0.0; out.len()];
    source.read(name, &[inputs, outputs], &mut stored)?;
    for (o, row) in out.chunks_exact_mut(inputs).enumerate() {
        for (i, x) in row.iter_mut().enumerate() {
            *x = stored[i * outputs + o];
        }
    }
    Ok(())
}

fn unexpected(path: &Path, name: &str, config: &ModelConfig) -> Error {
    let problem = format!(
        "tensor {name} does not belong to the model of config.json ({:?}, {} layers); the files \
         are of different models, or the model has parts that are not supported",
        config.architecture, config.num_layers
    );
    file_error(path, problem)
}

fn check_complete(
    folder: &Path,
    files: &[PathBuf],
    layout: &Layout,
    seen: &[Option<PathBuf>],
) -> Result<(), Error> {
    let missing: Vec<&str> = layout
        .tensors
        .iter()
        .zip(seen)
        .filter(|(_, seen)| seen.is_none())
        .map(|(t, _)| t.name.as_str())
        .collect();
    let Some(first) = missing.first() else { return Ok(()) };
    let more = match missing.len() {
        1 => String::new(),
        n => format!(", and {} more", n - 1),
    };
    let hint = if missing == [HEAD] {
        "; if the model shares its head with the embedding, config.json must say \
         \"tie_word_embeddings\": true"
    } else {
        "; config.json describes another model, or the download is not complete"
    };
    let path = if let [one] = files { one.clone() } else { folder.join(INDEX) };
    Err(file_error(&path, format!("tensor {first} is missing{more}{hint}")))
}

/// A head that is stored although it is the embedding's must be the same.
fn check_head(path: &Path, layout: &Layout, theta: &[f32]) -> Result<(), Error> {
    let embedding = &theta[layout.head.clone()];
    let shape = &layout.tensors[0].shape;
    let mut head = vec![0.0; embedding.len()];
    Source::open(path)?.read(HEAD, shape, &mut head)?;
    if head.iter().zip(embedding).all(|(a, b)| a.to_bits() == b.to_bits()) {
        return Ok(());
    }
    let problem = format!(
        "tensor {HEAD} differs from the embedding, but config.json says \
         \"tie_word_embeddings\": true; set it to false if the head is one of its own"
    );
    Err(file_error(path, problem))
}

/// Writes θ as one file or several, and removes what an earlier model left there.
pub(super) fn write(
    folder: &Path,
    config: &ModelConfig,
    layout: &Layout,
    theta: &[f32],
    options: WriteOptions,
) -> Result<(), Error> {
    debug_assert_eq!(config.tied, layout.head == layout.embedding);
    let shards = divide(layout, options);
    let mut names = Vec::new();
    let mut map = serde_json::Map::new();
    for (i, shard) in shards.iter().enumerate() {
        let name = match shards.len() {
            1 => SINGLE.to_string(),
            n => format!("model-{:05}-of-{n:05}.safetensors", i + 1),
        };
        write_shard(&folder.join(&name), shard, theta, options.stored_as)?;
        map.extend(shard.iter().map(|t| (t.name.clone(), json!(name))));
        names.push(name);
    }
    if shards.len() > 1 {
        let total = theta.len() as u64 * size_of_number(options.stored_as);
        let index =
            json!({ "metadata": { "total_size": total }, "weight_map": Value::Object(map) });
        write_atomically(&folder.join(INDEX), pretty(&index).as_bytes())?;
    }
    remove_others(folder, &names).map_err(|e| io_error(folder, e))
}

fn size_of_number(stored_as: StoredAs) -> u64 {
    match stored_as {
        StoredAs::F32 => 4,
        StoredAs::Bf16 => 2,
    }
}

/// Groups of tensors in the model's order, each as large as a file may be.
fn divide(layout: &Layout, options: WriteOptions) -> Vec<Vec<&TensorInfo>> {
    let mut shards: Vec<Vec<&TensorInfo>> = vec![Vec::new()];
    let mut size = 0;
    for tensor in &layout.tensors {
        let bytes = tensor.range.len() as u64 * size_of_number(options.stored_as);
        if size > 0 && size + bytes > options.max_shard_bytes {
            shards.push(Vec::new());
            size = 0;
        }
        size += bytes;
        if let Some(shard) = shards.last_mut() {
            shard.push(tensor);
        }
    }
    shards
}

fn write_shard(
    path: &Path,
    tensors: &[&TensorInfo],
    theta: &[f32],
    stored_as: StoredAs,
) -> Result<(), Error> {
    let mut tensors = tensors.to_vec();
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    let shapes: Vec<(String, Vec<usize>)> = tensors
        .iter()
        .map(|t| {
            let mut shape = t.shape.clone();
            if t.transposed {
                shape.reverse();
            }
            (t.name.clone(), shape)
        })
        .collect();
    write_tensors(path, &shapes, stored_as, |i, out| {
        let tensor = tensors[i];
        write_tensor(tensor, &theta[tensor.range.clone()], stored_as, out)
    })
}

fn write_tensor(
    tensor: &TensorInfo,
    values: &[f32],
    stored_as: StoredAs,
    out: &mut dyn Write,
) -> std::io::Result<()> {
    if !tensor.transposed {
        return f32_bytes(values, stored_as, out);
    }
    let inputs = tensor.shape[1];
    let mut row = vec![0.0; tensor.shape[0]];
    for i in 0..inputs {
        for (o, x) in row.iter_mut().enumerate() {
            *x = values[o * inputs + i];
        }
        f32_bytes(&row, stored_as, out)?;
    }
    Ok(())
}

/// Removes files of weights that are not among `names`: a reader would take the wrong ones.
fn remove_others(folder: &Path, names: &[String]) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let shard = name.starts_with("model-") && name.ends_with(".safetensors");
        let weights = name == SINGLE || shard || (name == INDEX && names.len() == 1);
        if weights && !names.iter().any(|n| n == name) {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
