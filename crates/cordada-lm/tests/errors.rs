//! Damaged folders: each message names the file, what is wrong in it and what to do. And folders
//! that look odd but are whole.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use cordada_lm::adapter::{self, AdapterLayout, LoraConfig};
use cordada_lm::folder::{self, StoredAs, WriteOptions};
use cordada_lm::tokenizer::Tokenizer;
use cordada_lm::{Architecture, Layout, ModelConfig, Positions, RopeScaling};
use cordada_nn::Activation;
use half::{bf16, f16};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use tempfile::TempDir;

fn config(architecture: Architecture) -> ModelConfig {
    let gpt2 = architecture == Architecture::Gpt2;
    ModelConfig {
        architecture,
        vocab_size: 5,
        hidden_size: 4,
        num_layers: 1,
        num_heads: 2,
        num_kv_heads: 2,
        head_dim: 2,
        intermediate_size: 6,
        max_positions: 8,
        norm_eps: 1e-5,
        activation: if gpt2 { Activation::GeluTanh } else { Activation::Silu },
        positions: if gpt2 {
            Positions::Learned
        } else {
            Positions::Rotary { base: 1e4, scaling: RopeScaling::Default }
        },
        qkv_bias: gpt2,
        output_bias: gpt2,
        mlp_bias: gpt2,
        tied: gpt2,
        eos_token_ids: vec![1],
        bos_token_id: None,
        pad_token_id: None,
    }
}

/// A folder with a small model whose numbers are 0, 1, 2, …: exact in every type.
fn model(architecture: Architecture) -> (TempDir, ModelConfig, Vec<f32>) {
    let config = config(architecture);
    let theta: Vec<f32> = (0..Layout::new(&config).num_params).map(|i| (i % 200) as f32).collect();
    let there = tempfile::tempdir().unwrap();
    folder::write(there.path(), &config, &theta, WriteOptions::default()).unwrap();
    (there, config, theta)
}

fn weights(there: &TempDir) -> PathBuf {
    there.path().join("model.safetensors")
}

/// A stored tensor: type, shape, bytes.
type Stored = (Dtype, Vec<usize>, Vec<u8>);

/// Changes the tensors of a file.
fn edit(path: &Path, change: impl FnOnce(&mut BTreeMap<String, Stored>)) {
    let bytes = fs::read(path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut tensors: BTreeMap<String, Stored> = file
        .iter()
        .map(|(n, v)| (n.to_string(), (v.dtype(), v.shape().to_vec(), v.data().to_vec())))
        .collect();
    change(&mut tensors);
    let views: BTreeMap<&String, TensorView> = tensors
        .iter()
        .map(|(n, (dtype, shape, data))| (n, TensorView::new(*dtype, shape.clone(), data).unwrap()))
        .collect();
    fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

fn edit_config(there: &TempDir, name: &str, value: serde_json::Value) {
    let path = there.path().join("config.json");
    let mut map: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    map[name] = value;
    fs::write(path, map.to_string()).unwrap();
}

#[track_caller]
fn check(folder: &Path, wanted: &[&str]) {
    let message = folder::read(folder).unwrap_err().to_string();
    for part in wanted {
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
}

#[test]
fn folders_that_hold_no_model_are_told_apart() {
    let there = tempfile::tempdir().unwrap();
    let missing = there.path().join("missing");
    check(&missing, &["missing: there is no such folder", "download it first"]);
    check(there.path(), &["this folder is empty", "config.json, model.safetensors"]);
    let file = there.path().join("notes.txt");
    fs::write(&file, "x").unwrap();
    check(&file, &["notes.txt: this is a file; give the folder that holds it"]);
    check(there.path(), &["this folder has no config.json"]);
    fs::write(there.path().join("config.json"), "{\"model_type\": ").unwrap();
    check(there.path(), &["config.json: this is not JSON", "line 1"]);
}

#[test]
fn folders_without_weights_are_named() {
    let (there, ..) = model(Architecture::Llama);
    fs::rename(weights(&there), there.path().join("pytorch_model.bin")).unwrap();
    check(there.path(), &["pytorch_model.bin: weights in PyTorch's pickle format", "safe_serial"]);
    fs::remove_file(there.path().join("pytorch_model.bin")).unwrap();
    check(there.path(), &["this folder has no weights; model.safetensors or model.safetensors."]);
}

#[test]
fn tensors_that_do_not_fit_are_named() {
    const NORM: &str = "model.norm.weight";
    let change = |wanted: &[&str], edits: &dyn Fn(&mut BTreeMap<String, Stored>)| {
        let (there, ..) = model(Architecture::Llama);
        edit(&weights(&there), edits);
        check(there.path(), wanted);
    };
    change(&["model.safetensors: tensor model.norm.weight is missing; "], &|t| {
        t.remove(NORM);
    });
    change(&["tensor model.norm.weight is missing, and 1 more"], &|t| {
        t.remove(NORM);
        t.remove("lm_head.weight");
    });
    change(&["tensor lm_head.weight is missing", "\"tie_word_embeddings\": true"], &|t| {
        t.remove("lm_head.weight");
    });
    change(&["tensor model.extra does not belong to the model", "Llama, 1 layers"], &|t| {
        t.insert("model.extra".into(), t[NORM].clone());
    });
    change(&["tensor model.norm.weight has the shape [2, 2], the config asks for [4]"], &|t| {
        t.get_mut(NORM).unwrap().1 = vec![2, 2];
    });
    change(&["tensor model.norm.weight is stored as I32; supported are F32, BF16"], &|t| {
        t.get_mut(NORM).unwrap().0 = Dtype::I32;
    });
    change(&["tensor norm.weight is in ", " already"], &|t| {
        t.insert("norm.weight".into(), t[NORM].clone());
    });
}

#[test]
fn files_that_are_not_whole_are_named() {
    let (there, ..) = model(Architecture::Llama);
    let path = weights(&there);
    let whole = fs::read(&path).unwrap();
    let cut = |length: usize, wanted: &[&str]| {
        fs::write(&path, &whole[..length]).unwrap();
        check(there.path(), wanted);
    };
    // Tensors lie in the order of their names; the last is the last norm.
    let size = whole.len();
    let lengths = format!("it has {} of at least {size} bytes", size - 1);
    cut(size - 1, &["model.safetensors: the file is cut off within tensor model.norm", &lengths]);
    cut(100, &["the file is cut off within its header", "download or copy it again"]);
    cut(5, &["the file has 5 bytes and is no .safetensors file"]);
    fs::write(&path, [&whole[..], b"xy"].concat()).unwrap();
    check(there.path(), &[&format!("has {} bytes, its header speaks of {size}", size + 2)]);
    fs::write(&path, "version https://git-lfs.github.com/spec/v1\noid sha256:0\n").unwrap();
    check(there.path(), &["this is a pointer of Git LFS", "git lfs pull"]);
    fs::write(&path, [0xFF; 64]).unwrap();
    check(there.path(), &["this is no .safetensors file: its header is too long"]);
    let mut damaged = whole.clone();
    damaged[8] = b'[';
    fs::write(&path, damaged).unwrap();
    check(there.path(), &["the header of this file is damaged: "]);
}

#[test]
fn shards_that_are_missing_are_named() {
    let (there, config, theta) = model(Architecture::Llama);
    let options = WriteOptions { max_shard_bytes: 200, ..WriteOptions::default() };
    folder::write(there.path(), &config, &theta, options).unwrap();
    let index = there.path().join("model.safetensors.index.json");
    let text = fs::read_to_string(&index).unwrap();
    let shard = text.split('"').find(|w| w.starts_with("model-00002-of-")).unwrap();
    fs::remove_file(there.path().join(shard)).unwrap();
    check(there.path(), &[shard, "this file is missing; model.safetensors.index.json says that"]);
    fs::write(&index, text.replace(shard, "../elsewhere")).unwrap();
    check(there.path(), &["is \"../elsewhere\"; it must be the name of a file in the same folder"]);
    fs::write(&index, "{}").unwrap();
    check(there.path(), &["index.json: the field weight_map is missing"]);
}

#[test]
fn a_head_that_differs_from_the_embedding_is_refused() {
    let (there, _, theta) = model(Architecture::Gpt2);
    let head = |t: &mut BTreeMap<String, Stored>| {
        let embedding = t["transformer.wte.weight"].clone();
        t.insert("lm_head.weight".into(), embedding);
    };
    edit(&weights(&there), head);
    assert_eq!(folder::read(there.path()).unwrap().1, theta);
    edit(&weights(&there), |t| t.get_mut("lm_head.weight").unwrap().2[0] ^= 1);
    check(there.path(), &["tensor lm_head.weight differs from the embedding", "set it to false"]);
}

#[test]
fn old_names_and_buffers_of_gpt2_are_understood() {
    let (there, config, theta) = model(Architecture::Gpt2);
    edit(&weights(&there), |t| {
        let names: Vec<String> = t.keys().cloned().collect();
        for name in names {
            let tensor = t.remove(&name).unwrap();
            t.insert(name.strip_prefix("transformer.").unwrap().to_string(), tensor);
        }
        let mask = (Dtype::F32, vec![1], vec![0; 4]);
        t.insert("h.0.attn.bias".into(), mask.clone());
        t.insert("h.0.attn.masked_bias".into(), mask);
    });
    assert_eq!(folder::read(there.path()).unwrap(), (config, theta));
    let (there, config, theta) = model(Architecture::Llama);
    edit(&weights(&there), |t| {
        let frequencies = (Dtype::F32, vec![1], vec![0; 4]);
        t.insert("model.layers.0.self_attn.rotary_emb.inv_freq".into(), frequencies);
    });
    assert_eq!(folder::read(there.path()).unwrap(), (config, theta));
}

#[test]
fn half_precision_is_widened() {
    let (there, _, theta) = model(Architecture::Gpt2);
    let original = fs::read(weights(&there)).unwrap();
    for dtype in [Dtype::BF16, Dtype::F16] {
        fs::write(weights(&there), &original).unwrap();
        edit(&weights(&there), |t| {
            for (stored, _, data) in t.values_mut() {
                *stored = dtype;
                let numbers = data.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b));
                *data = match dtype {
                    Dtype::BF16 => numbers.flat_map(|x| bf16::from_f32(x).to_le_bytes()).collect(),
                    _ => numbers.flat_map(|x| f16::from_f32(x).to_le_bytes()).collect(),
                };
            }
        });
        assert_eq!(folder::read(there.path()).unwrap().1, theta, "{dtype:?}");
    }
}

#[test]
fn the_generation_config_decides_what_ends_a_text() {
    let (there, mut config, theta) = model(Architecture::Llama);
    let path = there.path().join("generation_config.json");
    let text = r#"{"eos_token_id": [2, 3], "pad_token_id": 4, "temperature": 0.7}"#;
    fs::write(&path, text).unwrap();
    let (read, _) = folder::read(there.path()).unwrap();
    assert_eq!((read.eos_token_ids, read.pad_token_id), (vec![2, 3], Some(4)));
    // Writing keeps the settings of sampling, and ends as the config says.
    config.eos_token_ids = vec![4];
    folder::write(there.path(), &config, &theta, WriteOptions::default()).unwrap();
    let kept = folder::read_generation_config(there.path()).unwrap().unwrap();
    assert_eq!((kept.eos_token_ids, kept.temperature), (vec![4], Some(0.7)));
    fs::write(&path, r#"{"eos_token_id": 5}"#).unwrap();
    check(there.path(), &["generation_config.json: eos_token_id is 5", "the tokens 0 to 4"]);
    fs::remove_file(&path).unwrap();
    assert_eq!(folder::read_generation_config(there.path()).unwrap(), None);
    edit_config(&there, "dtype", "float8".into());
    check(there.path(), &["config.json: dtype is \"float8\"; supported are float32"]);
}

#[test]
fn adapters_that_are_not_supported_are_named() {
    let layout = Layout::new(&config(Architecture::Llama));
    let lora = LoraConfig {
        rank: 2,
        alpha: 4.0,
        target_modules: vec!["q_proj".into(), "down_proj".into()],
        use_rslora: true,
    };
    let adapters = AdapterLayout::new(&layout, &lora).unwrap();
    let theta: Vec<f32> = (0..adapters.num_params).map(|i| i as f32).collect();
    let there = tempfile::tempdir().unwrap();
    let message = adapter::read(there.path(), &layout).unwrap_err().to_string();
    assert!(message.contains("this folder is empty"), "{message}");
    adapter::write(there.path(), &lora, &adapters, &theta, "base", StoredAs::Bf16).unwrap();
    assert_eq!(adapter::read(there.path(), &layout).unwrap(), (lora, adapters, theta));

    let path = there.path().join("adapter_config.json");
    let original = fs::read_to_string(&path).unwrap();
    let cases = [
        ("use_dora", "true", "use_dora is true; this feature of PEFT is not supported"),
        ("bias", "\"all\"", "bias is \"all\"; supported is none"),
        ("modules_to_save", "[\"lm_head\"]", "modules_to_save is [\"lm_head\"]; this feature"),
        ("rank_pattern", "{\"q_proj\": 8}", "rank_pattern is {\"q_proj\":8}; this feature"),
        ("layers_to_transform", "[0]", "layers_to_transform is [0]; this feature"),
        ("init_lora_weights", "\"pissa\"", "init_lora_weights is \"pissa\"; supported are"),
        ("peft_type", "\"IA3\"", "peft_type is \"IA3\"; supported is LORA"),
        ("task_type", "\"SEQ_CLS\"", "task_type is \"SEQ_CLS\"; supported is CAUSAL_LM"),
        ("r", "null", "the field r is missing"),
        ("target_modules", "\".*q_proj\"", "target_modules is \".*q_proj\"; a pattern is not"),
        ("target_modules", "[\"c_attn\"]", "the target module \"c_attn\" of the adapter is no"),
        ("target_modules", "[\"q_proj\"]", "belongs to no target module of adapter_config.json"),
        ("target_modules", "\"all-linear\"", "tensor base_model.model.model.layers.0.self_attn."),
        ("r", "3", "has the shape [2, 4], the config asks for [3, 4]"),
    ];
    for (name, value, want) in cases {
        let mut map: serde_json::Value = serde_json::from_str(&original).unwrap();
        map[name] = serde_json::from_str(value).unwrap();
        fs::write(&path, map.to_string()).unwrap();
        let message = adapter::read(there.path(), &layout).unwrap_err().to_string();
        assert!(message.contains(want) && message.contains("adapter_"), "{name}: {message}");
    }
    fs::write(&path, &original).unwrap();
    let file = there.path().join("adapter_model.safetensors");
    fs::rename(&file, there.path().join("adapter_model.bin")).unwrap();
    let message = adapter::read(there.path(), &layout).unwrap_err().to_string();
    assert!(message.contains("no adapter_model.safetensors"), "{message}");
    fs::remove_file(&path).unwrap();
    let message = adapter::read(there.path(), &layout).unwrap_err().to_string();
    assert!(message.contains("this folder has no adapter_config.json"), "{message}");
}

#[test]
fn tokenizers_that_are_damaged_are_named() {
    use cordada_lm::tokenizer::BpeOptions;
    let options = BpeOptions { vocab_size: 262, special_tokens: Vec::new() };
    let tokenizer = Tokenizer::train_bpe(&["one two two"], &options).unwrap();
    let there = tempfile::tempdir().unwrap();
    tokenizer.write(there.path()).unwrap();
    let (json, config) =
        (there.path().join("tokenizer.json"), there.path().join("tokenizer_config.json"));
    let check = |wanted: &str| {
        let message = Tokenizer::read(there.path()).unwrap_err().to_string();
        assert!(message.contains(wanted), "{wanted:?} is not in: {message}");
    };
    let cases = [
        ("[]", "tokenizer_config.json: this must be a JSON object"),
        (r#"{"eos_token": 3}"#, "eos_token is 3; it must be a text or have a \"content\""),
        (
            r#"{"eos_token": "<end>"}"#,
            "eos_token is \"<end>\", which is no token of tokenizer.json",
        ),
        (r#"{"chat_template": 1}"#, "chat_template must be a text or a list of"),
        (
            r#"{"chat_template": "{% if %}"}"#,
            "tokenizer_config.json: chat template, line 1: syntax",
        ),
    ];
    for (text, wanted) in cases {
        fs::write(&config, text).unwrap();
        check(wanted);
    }
    let named = r#"{"eos_token": {"content": "<|im_end|>"},
        "chat_template": [{"name": "default", "template": "a"}]}"#;
    fs::write(&config, named).unwrap();
    let read = Tokenizer::read(there.path()).unwrap();
    assert_eq!(read.special_id("eos_token"), Some(3));
    assert_eq!(read.chat_template().unwrap().names().collect::<Vec<_>>(), ["default"]);
    fs::write(there.path().join("chat_template.jinja"), "{{ ").unwrap();
    check("chat_template.jinja: chat template, line 1: syntax error");
    fs::write(&json, "{}").unwrap();
    check("tokenizer.json: this is no tokenizer: ");
    fs::remove_file(&json).unwrap();
    check("this folder has no tokenizer.json; a tokenizer of another format must be saved again");
}
