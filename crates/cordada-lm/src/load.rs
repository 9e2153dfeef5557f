//! A model from a path, whatever it holds: a whole model, an adapter, whose base is found and
//! changed by it, or a run, of which the newest checkpoint is taken.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::adapter;
use crate::folder::{self, file_error, read_text};
use crate::tokenizer::Tokenizer;
use crate::train::newest_model;
use crate::{Error, Model, ModelConfig, Threads, Transformer};

const ADAPTER: &str = "adapter_config.json";
const RUN: &str = "config.toml";

/// A model that was read.
#[derive(Debug)]
pub struct Loaded {
    /// Its folder, which is not what was asked for if that was a run.
    pub folder: PathBuf,
    /// Its shape, with at least one end token if its tokenizer has one.
    pub config: ModelConfig,
    /// Its parameters, an adapter's change included.
    pub theta: Vec<f32>,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// Whether an adapter was merged, so that the folder alone is no whole model.
    pub merged: bool,
}

impl Loaded {
    /// The model, for reading and sampling.
    pub fn into_model(self, threads: Threads) -> (Model<f32>, Tokenizer) {
        let transformer = Transformer::new(&self.config);
        (Model::new(transformer, self.theta, threads), self.tokenizer)
    }
}

/// The folder of the model at a path: of a run, its newest whole checkpoint.
///
/// # Errors
///
/// If a run has no checkpoint yet or all are damaged.
pub fn locate(path: &Path) -> Result<PathBuf, Error> {
    let is_run = path.join(RUN).is_file() && !path.join(folder::CONFIG).exists();
    if is_run { newest_model(path) } else { Ok(path.to_path_buf()) }
}

/// Reads the model at a path.
///
/// # Errors
///
/// [`Error::Io`] or [`Error::File`] naming the file, what is wrong and the remedy.
pub fn read(path: &Path) -> Result<Loaded, Error> {
    let folder = locate(path)?;
    let is_adapter = folder.join(ADAPTER).is_file() && !folder.join(folder::CONFIG).exists();
    let (mut config, theta, tokenizer) = if is_adapter {
        let base = base(&folder)?;
        let (config, mut theta) = folder::read(&base)?;
        let (lora, layout, change) = adapter::read(&folder, &crate::Layout::new(&config))?;
        layout.merge(&mut theta, &change, lora.scaling());
        let own = folder.join("tokenizer.json").is_file();
        (config, theta, Tokenizer::read(if own { &folder } else { &base })?)
    } else {
        let (config, theta) = folder::read(&folder)?;
        (config, theta, Tokenizer::read(&folder)?)
    };
    let (tokens, rows) = (tokenizer.vocab_size(), config.vocab_size);
    if tokens > rows {
        let problem = format!(
            "the tokenizer has {tokens} tokens, the model {rows}; they do not belong together"
        );
        return Err(file_error(&folder, problem));
    }
    if config.eos_token_ids.is_empty() {
        config.eos_token_ids.extend(tokenizer.special_id("eos_token"));
    }
    Ok(Loaded { folder, config, theta, tokenizer, merged: is_adapter })
}

/// The folder of an adapter's base model: as it is named, or from the adapter's folder.
fn base(folder: &Path) -> Result<PathBuf, Error> {
    let path = folder.join(ADAPTER);
    let config: Value = serde_json::from_str(&read_text(&path)?)
        .map_err(|e| file_error(&path, format!("this is not JSON: {e}")))?;
    let name = config.get("base_model_name_or_path").and_then(Value::as_str).ok_or_else(|| {
        file_error(&path, "base_model_name_or_path is missing; it must name the base's folder")
    })?;
    let candidates = [PathBuf::from(name), folder.join(name)];
    candidates.into_iter().find(|c| c.is_dir()).ok_or_else(|| {
        let problem = format!(
            "base_model_name_or_path is {name:?}, but there is no such folder; models are read \
             from local files only: download the base and write its folder there"
        );
        file_error(&path, problem)
    })
}

#[cfg(test)]
mod tests {
    use cordada_env::{Stream, role};

    use super::*;
    use crate::adapter::{AdapterLayout, LoraConfig};
    use crate::folder::{StoredAs, WriteOptions};
    use crate::init::init;
    use crate::shape::Shape;
    use crate::tokenizer::Unit;
    use crate::{Architecture, Layout};

    fn model(folder: &Path) -> (ModelConfig, Vec<f32>) {
        let tokenizer = Tokenizer::from_vocabulary(&["a", "b"], Unit::Character, 8).unwrap();
        let shape = Shape {
            hidden_size: 8,
            num_layers: 1,
            num_heads: 2,
            num_kv_heads: 1,
            intermediate_size: 8,
            vocab_size: 8,
            max_positions: 16,
            tied: true,
        };
        let config = shape.config(Architecture::Llama).unwrap();
        let theta = init(&config, 3);
        folder::write(folder, &config, &theta, WriteOptions::default()).unwrap();
        tokenizer.write(folder).unwrap();
        (config, theta)
    }

    #[test]
    fn an_adapter_finds_its_base_and_changes_it() {
        let temporary = tempfile::tempdir().unwrap();
        let (base, adapter) = (temporary.path().join("base"), temporary.path().join("adapter"));
        let (config, theta) = model(&base);
        let loaded = read(&base).unwrap();
        assert_eq!((&loaded.theta, loaded.merged), (&theta, false));
        // The end token that config.json lacks is the tokenizer's.
        assert_eq!(loaded.config.eos_token_ids, [1]);

        let lora = LoraConfig {
            rank: 1,
            alpha: 2.0,
            target_modules: vec!["o_proj".into()],
            use_rslora: false,
        };
        let layout = AdapterLayout::new(&Layout::new(&config), &lora).unwrap();
        let mut change = layout.init(&mut Stream::new(1, role::INIT, 0));
        let (a, b) = (layout.adapters[0].place.a.clone(), layout.adapters[0].place.b.clone());
        change[b.start] = 0.5;
        adapter::write(&adapter, &lora, &layout, &change, "../base", StoredAs::F32).unwrap();
        let loaded = read(&adapter).unwrap();
        assert!(loaded.merged);
        // s B A = 2 · ½ · A in the first row of the matrix, 0 elsewhere.
        let first = layout.adapters[0].weight.start;
        for (i, (&new, &old)) in loaded.theta.iter().zip(&theta).enumerate() {
            let inside = (first..first + 8).contains(&i);
            let want = if inside { old + change[a.start + i - first] } else { old };
            assert_eq!(new, want, "parameter {i}");
        }

        adapter::write(&adapter, &lora, &layout, &change, "gone", StoredAs::F32).unwrap();
        let error = read(&adapter).unwrap_err().to_string();
        assert!(error.contains("base_model_name_or_path is \"gone\""), "{error}");
    }

    #[test]
    fn what_is_no_model_is_told() {
        let temporary = tempfile::tempdir().unwrap();
        let error = read(&temporary.path().join("nowhere")).unwrap_err().to_string();
        assert!(error.contains("there is no such folder"), "{error}");
        let run = temporary.path().join("run");
        std::fs::create_dir_all(run.join("checkpoints")).unwrap();
        std::fs::write(run.join(RUN), "").unwrap();
        assert!(matches!(read(&run), Err(Error::Rl(cordada_rl::Error::NoCheckpoint { .. }))));
        let folder = temporary.path().join("model");
        model(&folder);
        let more = Tokenizer::from_vocabulary(&["a", "b"], Unit::Character, 9).unwrap();
        more.write(&folder).unwrap();
        let error = read(&folder).unwrap_err().to_string();
        assert!(error.contains("the tokenizer has 9 tokens, the model 8"), "{error}");
    }
}
