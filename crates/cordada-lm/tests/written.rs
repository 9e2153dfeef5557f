//! What is written is what `transformers` and `peft` were seen to load: names, shapes and types of
//! tensors, and fields of configs, as `tools/hf_roundtrip.py` recorded them.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::path::Path;

use cordada_lm::adapter::{self, AdapterLayout, LoraConfig};
use cordada_lm::folder::{self, StoredAs, WriteOptions};
use cordada_lm::shape::Shape;
use cordada_lm::{Architecture, Layout};
use cordada_testkit::golden;
use safetensors::SafeTensors;
use serde_json::{Map, Value, json};

const CASES: [(&str, Architecture, &[&str]); 4] = [
    ("gpt2", Architecture::Gpt2, &["c_attn", "c_proj"]),
    ("llama", Architecture::Llama, &["q_proj", "v_proj", "down_proj"]),
    ("qwen2", Architecture::Qwen2, &["q_proj", "k_proj", "up_proj"]),
    ("qwen3", Architecture::Qwen3, &["q_proj", "v_proj", "o_proj"]),
];

fn json_of(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn tensors_of(path: &Path) -> Value {
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensors = file.iter().map(|(name, view)| {
        (name.to_string(), json!([format!("{:?}", view.dtype()), view.shape()]))
    });
    Value::Object(tensors.collect::<Map<_, _>>())
}

#[test]
fn folders_are_those_that_the_other_libraries_loaded() {
    let recorded = json_of(&golden::workspace().join("golden/llm/written.json"));
    assert_eq!(recorded.as_object().unwrap().len(), CASES.len());
    for (name, architecture, targets) in CASES {
        let shape = Shape {
            hidden_size: 64,
            num_layers: 2,
            num_heads: 4,
            num_kv_heads: 4,
            intermediate_size: 96,
            vocab_size: 64,
            ..Shape::of("1m").unwrap().adapted(architecture)
        };
        let mut config = shape.config(architecture).unwrap();
        (config.eos_token_ids, config.pad_token_id) = (vec![1], Some(0));
        let layout = Layout::new(&config);
        let dir = tempfile::tempdir().unwrap();
        let theta = vec![0.5; layout.num_params];
        folder::write(dir.path(), &config, &theta, WriteOptions::default()).unwrap();
        let lora = LoraConfig {
            rank: 4,
            alpha: 8.0,
            target_modules: targets.iter().map(ToString::to_string).collect(),
            use_rslora: false,
        };
        let places = AdapterLayout::new(&layout, &lora).unwrap();
        let numbers = vec![0.5; places.num_params];
        adapter::write(dir.path(), &lora, &places, &numbers, "base", StoredAs::F32).unwrap();

        let want = &recorded[name];
        assert_eq!(json_of(&dir.path().join("config.json")), want["config"], "{name}");
        assert_eq!(tensors_of(&dir.path().join("model.safetensors")), want["model"], "{name}");
        let mut found = json_of(&dir.path().join("adapter_config.json"));
        found.as_object_mut().unwrap().remove("base_model_name_or_path");
        assert_eq!(found, want["adapter_config"], "{name}");
        let found = tensors_of(&dir.path().join("adapter_model.safetensors"));
        assert_eq!(found, want["adapter"], "{name}");
    }
}
