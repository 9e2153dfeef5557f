//! A model's folder as Hugging Face lays it out: `config.json`, `generation_config.json` and the
//! weights in `.safetensors` files, in and out. The tokenizer's files are the matter of
//! [`tokenizer`](crate::tokenizer).

pub mod config_json;
pub(crate) mod fields;
pub mod generation_config;
mod weights;

use std::path::{Path, PathBuf};

use crate::{Error, Layout, ModelConfig};
pub use generation_config::GenerationConfig;
pub(crate) use weights::{Source, f32_bytes, write_tensors};

/// Name of the file with a model's shape.
pub const CONFIG: &str = "config.json";
/// Name of the file with a model's settings of sampling.
pub const GENERATION_CONFIG: &str = "generation_config.json";

/// How numbers are stored in a file of weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StoredAs {
    /// As they are: 4 bytes each.
    #[default]
    F32,
    /// Rounded to the nearest number with 8 significant bits, ties to even: 2 bytes each.
    Bf16,
}

impl StoredAs {
    /// Name in `config.json`.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::Bf16 => "bfloat16",
        }
    }
}

/// How [`write()`] writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteOptions {
    /// Type of the numbers.
    pub stored_as: StoredAs,
    /// Largest size of one file's tensors in bytes; what is larger becomes several files with an
    /// index. A tensor is never divided.
    pub max_shard_bytes: u64,
}

impl Default for WriteOptions {
    /// `f32`, in files of up to 5 GB as `save_pretrained` writes them.
    fn default() -> Self {
        Self { stored_as: StoredAs::F32, max_shard_bytes: 5_000_000_000 }
    }
}

/// Reads a model's shape: `config.json`, with the end, begin and padding tokens of
/// `generation_config.json` where that file has them.
///
/// # Errors
///
/// [`Error::Io`] or [`Error::File`] naming the file, the field, its value and what is supported.
pub fn read_config(folder: &Path) -> Result<ModelConfig, Error> {
    check_folder(folder)?;
    let path = folder.join(CONFIG);
    if !path.exists() {
        return Err(file_error(
            folder,
            "this folder has no config.json; give the folder that save_pretrained wrote, or the \
             snapshot folder of a download",
        ));
    }
    let mut config = config_json::parse(&read_text(&path)?, &path)?;
    if let Some(generation) = read_generation_config(folder)? {
        if !generation.eos_token_ids.is_empty() {
            config.eos_token_ids = generation.eos_token_ids;
        }
        config.bos_token_id = generation.bos_token_id.or(config.bos_token_id);
        config.pad_token_id = generation.pad_token_id.or(config.pad_token_id);
        config_json::check_tokens(&config, &folder.join(GENERATION_CONFIG))?;
    }
    Ok(config)
}

/// Reads `generation_config.json`; `None` if the folder has none.
///
/// # Errors
///
/// [`Error::Io`] or [`Error::File`] naming the field and its value.
pub fn read_generation_config(folder: &Path) -> Result<Option<GenerationConfig>, Error> {
    let path = folder.join(GENERATION_CONFIG);
    if !path.exists() {
        return Ok(None);
    }
    GenerationConfig::parse(&read_text(&path)?, &path).map(Some)
}

/// Reads a model: its shape and θ in the order of [`Layout`].
///
/// Numbers stored as `f16` or `bf16` are widened, which changes none. One tensor at a time passes
/// through memory besides θ.
///
/// # Errors
///
/// [`Error::Io`] or [`Error::File`] naming the file, the field or tensor, and the remedy.
///
/// # Examples
///
/// ```no_run
/// use std::path::Path;
///
/// let (config, theta) = cordada_lm::folder::read(Path::new("Qwen3-0.6B"))?;
/// assert_eq!(theta.len(), cordada_lm::Layout::new(&config).num_params);
/// # Ok::<(), cordada_lm::Error>(())
/// ```
pub fn read(folder: &Path) -> Result<(ModelConfig, Vec<f32>), Error> {
    let config = read_config(folder)?;
    let theta = weights::read(folder, &config, &Layout::new(&config))?;
    Ok((config, theta))
}

/// Writes a model so that `transformers` loads it: `config.json`, `generation_config.json` and the
/// weights. The folder is made if need be; each file appears whole or not at all.
///
/// A `generation_config.json` that is there already keeps its settings of sampling.
///
/// # Shapes
///
/// `theta`: `[Layout::new(config).num_params]`.
///
/// # Errors
///
/// [`Error::Io`] naming the file; [`Error::Setting`] if the architecture's `config.json` has no
/// words for the shape.
///
/// # Panics
///
/// If `theta` has another length.
pub fn write(
    folder: &Path,
    config: &ModelConfig,
    theta: &[f32],
    options: WriteOptions,
) -> Result<(), Error> {
    let layout = Layout::new(config);
    assert_eq!(theta.len(), layout.num_params, "θ does not fit the config");
    let text = config_json::to_text(config, options.stored_as)?;
    std::fs::create_dir_all(folder).map_err(|e| io_error(folder, e))?;
    let mut generation = read_generation_config(folder)?.unwrap_or_default();
    generation.eos_token_ids.clone_from(&config.eos_token_ids);
    generation.bos_token_id = config.bos_token_id;
    generation.pad_token_id = config.pad_token_id;
    weights::write(folder, config, &layout, theta, options)?;
    write_atomically(&folder.join(GENERATION_CONFIG), generation.to_text().as_bytes())?;
    write_atomically(&folder.join(CONFIG), text.as_bytes())
}

/// Says in words why a path is not a folder that could hold something.
pub(crate) fn check_folder(folder: &Path) -> Result<(), Error> {
    match std::fs::read_dir(folder).map(|mut entries| entries.next().is_some()) {
        Ok(true) => Ok(()),
        Ok(false) => Err(file_error(
            folder,
            "this folder is empty; a model needs config.json, \
            model.safetensors and tokenizer.json",
        )),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Err(file_error(
            folder,
            "there is no such folder; models are read from local files only, so download it \
             first and give its folder",
        )),
        Err(e) if e.kind() == std::io::ErrorKind::NotADirectory => {
            Err(file_error(folder, "this is a file; give the folder that holds it"))
        }
        Err(e) => Err(io_error(folder, e)),
    }
}

pub(crate) fn io_error(path: &Path, source: std::io::Error) -> Error {
    Error::Io { path: path.to_path_buf(), source }
}

pub(crate) fn file_error(path: &Path, problem: impl Into<String>) -> Error {
    Error::File { path: path.to_path_buf(), problem: problem.into() }
}

pub(crate) fn read_text(path: &Path) -> Result<String, Error> {
    let bytes = std::fs::read(path).map_err(|e| io_error(path, e))?;
    String::from_utf8(bytes).map_err(|_| file_error(path, "this file is not UTF-8 text"))
}

/// The temporary name under which a file is written before it takes its own.
pub(crate) fn temporary(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".writing");
    path.with_file_name(name)
}

/// Writes a file under a temporary name and renames it, so that no half file is ever seen.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let unfinished = temporary(path);
    std::fs::write(&unfinished, bytes)
        .and_then(|()| std::fs::File::open(&unfinished)?.sync_all())
        .and_then(|()| std::fs::rename(&unfinished, path))
        .map_err(|e| io_error(path, e))
}

/// JSON with two spaces of indentation and a line break at the end.
pub(crate) fn pretty(value: &serde_json::Value) -> String {
    format!("{value:#}\n")
}
