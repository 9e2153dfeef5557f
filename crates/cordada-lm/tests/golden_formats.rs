//! Files and formats against golden data: configs, weights, adapters, tokenizers, chat templates.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::path::{Path, PathBuf};

use cordada_lm::adapter;
use cordada_lm::chat::{ChatOptions, ChatTemplate, Message, Value, value_from_json};
use cordada_lm::folder::{self, StoredAs, WriteOptions, config_json};
use cordada_lm::tokenizer::{Special, Tokenizer};
use cordada_lm::{Architecture, Layout, ModelConfig, Positions, RopeScaling};
use cordada_nn::Activation;
use cordada_testkit::golden;

const MODELS: [&str; 4] = ["gpt2", "llama", "qwen2", "qwen3"];

/// Cases of the families `model_*` that the tests of the transformer check.
const OF_THE_TRANSFORMER: [&str; 7] = [
    "logits_left_padded",
    "logits_right_padded",
    "kv_cache",
    "greedy",
    "greedy_with_eos",
    "cross_entropy_grad",
    "last_hidden_state",
];

fn model_folder(model: &str) -> PathBuf {
    golden::root().join("llm/models").join(model)
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

/// A tensor of θ in the file's order of axes.
fn as_stored(tensor: &cordada_lm::TensorInfo, theta: &[f32]) -> (Vec<usize>, Vec<f32>) {
    let values = &theta[tensor.range.clone()];
    if !tensor.transposed {
        return (tensor.shape.clone(), values.to_vec());
    }
    let (o, i) = (tensor.shape[0], tensor.shape[1]);
    let stored = (0..i * o).map(|k| values[(k % o) * i + k / o]).collect();
    (vec![i, o], stored)
}

fn want_config(model: &str) -> ModelConfig {
    let (architecture, eos, bos) = match model {
        "gpt2" => (Architecture::Gpt2, 1, Some(1)),
        "llama" => (Architecture::Llama, 7, Some(4)),
        "qwen2" => (Architecture::Qwen2, 3, None),
        _ => (Architecture::Qwen3, 3, None),
    };
    let gpt2 = model == "gpt2";
    let base = if model == "llama" { 1e4 } else { 1e6 };
    ModelConfig {
        architecture,
        vocab_size: 320,
        hidden_size: 64,
        num_layers: 2,
        num_heads: 4,
        num_kv_heads: if gpt2 { 4 } else { 2 },
        head_dim: if model == "qwen3" { 32 } else { 16 },
        intermediate_size: if gpt2 { 256 } else { 128 },
        max_positions: 128,
        norm_eps: if gpt2 || model == "llama" { 1e-5 } else { 1e-6 },
        activation: if gpt2 { Activation::GeluTanh } else { Activation::Silu },
        positions: if gpt2 {
            Positions::Learned
        } else {
            Positions::Rotary { base, scaling: RopeScaling::Default }
        },
        qkv_bias: gpt2 || model == "qwen2",
        output_bias: gpt2,
        mlp_bias: gpt2,
        tied: model != "llama",
        eos_token_ids: vec![eos],
        bos_token_id: bos,
        pad_token_id: Some(0),
    }
}

#[test]
fn golden_configs_of_both_spellings_are_the_same() {
    for model in MODELS {
        for name in ["config.json", "config.legacy.json"] {
            let path = model_folder(model).join(name);
            let text = std::fs::read_to_string(&path).unwrap();
            assert_eq!(config_json::parse(&text, &path).unwrap(), want_config(model), "{model}");
        }
        assert_eq!(folder::read_config(&model_folder(model)).unwrap(), want_config(model));
        let written = config_json::to_text(&want_config(model), StoredAs::Bf16).unwrap();
        assert!(written.contains("\"dtype\": \"bfloat16\""));
        let again = config_json::parse(&written, Path::new("config.json")).unwrap();
        assert_eq!(again, want_config(model), "{model}");
    }
}

#[test]
fn golden_weights_are_read() {
    for model in MODELS {
        let (config, theta) = folder::read(&model_folder(model)).unwrap();
        let layout = Layout::new(&config);
        let file = golden::read(&model_folder(model).join("model.safetensors"));
        assert_eq!(file.tensors.len(), layout.tensors.len(), "{model}");
        for tensor in &layout.tensors {
            let want = &file.tensors[&tensor.name];
            let (shape, got) = as_stored(tensor, &theta);
            assert_eq!(shape, want.shape, "{model} {}", tensor.name);
            assert_eq!(bits(&got), bits(&want.f32()), "{model} {}", tensor.name);
        }
    }
}

/// The nearest number with 8 significant bits, ties to even, by arithmetic on the bits.
fn bf16(x: f32) -> f32 {
    let bits = x.to_bits();
    f32::from_bits((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF_0000)
}

#[test]
fn golden_weights_survive_writing() {
    for model in MODELS {
        let (config, theta) = folder::read(&model_folder(model)).unwrap();
        let rounded: Vec<f32> = theta.iter().map(|&x| bf16(x)).collect();
        let there = tempfile::tempdir().unwrap();
        // One after the other into the same folder: what an earlier one left must not be read.
        for max_shard_bytes in [u64::MAX, 100_000, 150_000, u64::MAX] {
            for (stored_as, want) in [(StoredAs::F32, &theta), (StoredAs::Bf16, &rounded)] {
                let options = WriteOptions { stored_as, max_shard_bytes };
                folder::write(there.path(), &config, &theta, options).unwrap();
                let (again, got) = folder::read(there.path()).unwrap();
                assert_eq!(again, config);
                assert_eq!(bits(&got), bits(want), "{model} {options:?}");
            }
        }
        let one = there.path().join("model.safetensors");
        assert_eq!(golden_metadata(&one), [("format".to_string(), "pt".to_string())]);
        let files = std::fs::read_dir(there.path()).unwrap().count();
        assert_eq!(files, 3, "config, generation config and one file of weights");
    }
}

fn golden_metadata(path: &Path) -> Vec<(String, String)> {
    let bytes = std::fs::read(path).unwrap();
    let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    metadata.metadata().clone().unwrap().into_iter().collect()
}

#[test]
fn golden_weights_in_several_files_have_an_index() {
    let (config, theta) = folder::read(&model_folder("llama")).unwrap();
    let there = tempfile::tempdir().unwrap();
    let options = WriteOptions { stored_as: StoredAs::F32, max_shard_bytes: 100_000 };
    folder::write(there.path(), &config, &theta, options).unwrap();
    let text = std::fs::read_to_string(there.path().join("model.safetensors.index.json")).unwrap();
    let index: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(index["metadata"]["total_size"], 4 * theta.len());
    let map = index["weight_map"].as_object().unwrap();
    assert_eq!(map.len(), Layout::new(&config).tensors.len());
    // 115,000 numbers of 4 bytes need at least 5 files of 100,000 bytes.
    let last = map["lm_head.weight"].as_str().unwrap();
    let count: usize = last["model-00001-of-".len()..].split('.').next().unwrap().parse().unwrap();
    assert!(count >= 5, "{last}");
    for n in 1..=count {
        let path = there.path().join(format!("model-{n:05}-of-{count:05}.safetensors"));
        let size: usize = golden::read(&path).tensors.values().map(|t| 4 * t.data.len()).sum();
        assert!(size <= 100_000, "{size}");
    }
}

#[test]
fn golden_adapters_are_read_written_and_merged() {
    for model in MODELS {
        for case in golden::llm_family(&format!("model_{model}")) {
            match case.name.as_str() {
                "lora" => adapter_case(model, &case),
                name if OF_THE_TRANSFORMER.contains(&name) => {}
                name => panic!("no handler for {name} of model_{model}"),
            }
        }
    }
}

fn adapter_case(model: &str, case: &golden::Case) {
    let (config, mut theta) = folder::read(&model_folder(model)).unwrap();
    let layout = Layout::new(&config);
    let path = model_folder(model).join("lora_adapter");
    let (lora, adapters, numbers) = adapter::read(&path, &layout).unwrap();
    assert_eq!(lora.rank as f64, case.param("r"));
    assert_eq!(lora.scaling(), case.param("lora_alpha") / case.param("r"));
    assert_eq!(adapters.num_params as f64, case.param("trainable"));
    let stored = golden::read(&path.join("adapter_model.safetensors"));
    assert_eq!(stored.tensors.len(), 2 * adapters.adapters.len());
    for info in &adapters.adapters {
        for (part, range) in [("A", &info.place.a), ("B", &info.place.b)] {
            let name = format!("base_model.model.{}.lora_{part}.weight", info.module);
            assert_eq!(bits(&numbers[range.clone()]), bits(&stored.tensors[&name].f32()), "{name}");
        }
    }

    let there = tempfile::tempdir().unwrap();
    adapter::write(there.path(), &lora, &adapters, &numbers, model, StoredAs::F32).unwrap();
    let (lora_again, adapters_again, numbers_again) = adapter::read(there.path(), &layout).unwrap();
    assert_eq!((&lora_again, &adapters_again), (&lora, &adapters));
    assert_eq!(bits(&numbers_again), bits(&numbers));

    adapters.merge(&mut theta, &numbers, lora.scaling());
    let mut checked = 0;
    for key in case.keys().filter(|k| k.starts_with("output/merged/")) {
        let name = key["output/merged/".len()..].split('[').next().unwrap();
        let tensor = layout.tensors.iter().find(|t| t.name == name).unwrap();
        let got: Vec<f64> = as_stored(tensor, &theta).1.iter().map(|&x| f64::from(x)).collect();
        case.check(key, &got[..case.tensor(key).data.len()]);
        checked += 1;
    }
    assert_eq!(checked, 2, "{model}");
    for (name, norm) in case.params["merged_norms"].as_object().unwrap() {
        let tensor = layout.tensors.iter().find(|t| t.name == *name).unwrap();
        let squares = theta[tensor.range.clone()].iter().map(|&x| f64::from(x).powi(2));
        let (got, want) = (squares.sum::<f64>().sqrt(), norm.as_f64().unwrap());
        assert!((got - want).abs() < 1e-5 * want, "{model} {name}: {got}, expected {want}");
    }
}

fn json(name: &str) -> Value {
    let text = std::fs::read_to_string(golden::root().join("llm").join(name)).unwrap();
    value_from_json(&text).unwrap()
}

fn get(value: &Value, name: &str) -> Value {
    value.get_attr(name).unwrap()
}

fn text(value: &Value, name: &str) -> String {
    get(value, name).as_str().unwrap().to_string()
}

fn ids(value: &Value, name: &str) -> Vec<u32> {
    get(value, name).try_iter().unwrap().map(|id| u32::try_from(id).unwrap()).collect()
}

#[test]
fn golden_texts_are_split_and_joined() {
    let models = get(&json("tokenizers.json"), "models");
    let mut count = 0;
    for model in MODELS {
        let t = Tokenizer::read(&model_folder(model)).unwrap();
        assert_eq!(t.vocab_size(), 320);
        let entry = get(&models, model);
        for (role, key) in [("bos_token", "bos"), ("eos_token", "eos"), ("pad_token", "pad")] {
            let want = get(&entry, key);
            let got = t.special_tokens().get(role).map(String::as_str);
            assert_eq!(got, want.as_str(), "{model} {role}");
        }
        for (token, id) in pairs(&get(&entry, "special_ids")) {
            assert_eq!(t.token_id(&token), Some(id), "{model} {token}");
        }
        for case in get(&entry, "cases").try_iter().unwrap() {
            let source = text(&case, "text");
            let bare = t.encode(&source, Special::Skip).unwrap();
            assert_eq!(bare, ids(&case, "ids"), "{model} {source:?}");
            let full = t.encode(&source, Special::Keep).unwrap();
            assert_eq!(full, ids(&case, "ids_with_special"), "{model} {source:?}");
            let tokens: Vec<String> =
                get(&case, "tokens").try_iter().unwrap().map(|v| v.to_string()).collect();
            let got: Vec<String> = bare.iter().map(|&id| t.token(id).unwrap()).collect();
            assert_eq!(got, tokens, "{model} {source:?}");
            for (special, key) in
                [(Special::Keep, "decoded"), (Special::Skip, "decoded_skip_special")]
            {
                let want = text(&case, key);
                assert_eq!(t.decode(&bare, special).unwrap(), want, "{model} {source:?}");
                let mut stream = t.stream(special);
                let parts: Vec<String> = bare.iter().map(|&i| stream.push(i).unwrap()).collect();
                assert_eq!(parts.concat() + &stream.finish().unwrap(), want, "{model} {source:?}");
            }
            count += 1;
        }
    }
    assert!(count >= 40, "only {count} texts");
}

fn pairs(map: &Value) -> Vec<(String, u32)> {
    let keys = map.try_iter().unwrap();
    keys.map(|k| (k.to_string(), u32::try_from(map.get_item(&k).unwrap()).unwrap())).collect()
}

#[test]
fn golden_tokenizers_survive_writing() {
    for model in MODELS {
        let t = Tokenizer::read(&model_folder(model)).unwrap();
        let there = tempfile::tempdir().unwrap();
        t.write(there.path()).unwrap();
        let again = Tokenizer::read(there.path()).unwrap();
        assert_eq!(again.special_tokens(), t.special_tokens());
        let messages = [Message::new("user", "Where do the children fish? 🐟 12")];
        let options = ChatOptions { add_generation_prompt: true, ..ChatOptions::default() };
        let want = t.encode_chat(&messages, &options).unwrap();
        assert_eq!(again.encode_chat(&messages, &options).unwrap(), want, "{model}");
        let read = |folder: &Path| -> serde_json::Value {
            let text = std::fs::read_to_string(folder.join("tokenizer.json")).unwrap();
            serde_json::from_str(&text).unwrap()
        };
        assert_eq!(read(there.path()), read(&model_folder(model)), "{model}");
    }
}

/// The tokenizer of a case with the case's template.
fn chat_tokenizer(chat: &Value, case: &Value) -> Tokenizer {
    let model = text(case, "model");
    let t = Tokenizer::read(&model_folder(&model)).unwrap();
    match text(case, "template").as_str() {
        "own" => t,
        name => {
            let source = text(&get(&get(chat, "templates"), &model), name);
            t.with_chat_template(ChatTemplate::new(&source, Path::new("chat.json")).unwrap())
        }
    }
}

fn chat_input(chat: &Value, case: &Value) -> (Vec<Message>, ChatOptions) {
    let number = get(case, "conversation").as_usize().unwrap();
    let conversation = get(chat, "conversations").get_item_by_index(number).unwrap();
    let mut options = ChatOptions {
        add_generation_prompt: get(case, "add_generation_prompt").is_true(),
        ..ChatOptions::default()
    };
    let extra = get(case, "kwargs");
    for key in extra.try_iter().unwrap() {
        let value = extra.get_item(&key).unwrap();
        match key.as_str().unwrap() {
            "tools" => options.tools = Some(value),
            name => drop(options.variables.insert(name.to_string(), value)),
        }
    }
    (Message::list_from_value(&conversation).unwrap(), options)
}

#[test]
fn golden_conversations_are_rendered() {
    let chat = json("chat.json");
    let (mut count, mut masks) = (0, 0);
    for case in get(&chat, "cases").try_iter().unwrap() {
        let (messages, options) = chat_input(&chat, &case);
        let got = chat_tokenizer(&chat, &case).encode_chat(&messages, &options).unwrap();
        assert_eq!(got.text, text(&case, "text"), "{case}");
        assert_eq!(got.ids, ids(&case, "ids"), "{case}");
        let mask = get(&case, "assistant_mask");
        if !mask.is_undefined() {
            let want: Vec<bool> =
                mask.try_iter().unwrap().map(|m| m.as_usize() == Some(1)).collect();
            assert_eq!(got.assistant_mask, Some(want), "{case}");
            masks += 1;
        }
        count += 1;
    }
    assert_eq!(count, 82);
    assert!(masks > 0);
}

#[test]
fn golden_conversations_are_rejected() {
    let chat = json("chat.json");
    let mut count = 0;
    for case in get(&chat, "errors").try_iter().unwrap() {
        let (messages, options) = chat_input(&chat, &case);
        let error = chat_tokenizer(&chat, &case).encode_chat(&messages, &options).unwrap_err();
        let reason = text(&case, "error");
        let message = error.to_string();
        assert!(message.ends_with(&format!("rejects the conversation: {reason}")), "{message}");
        count += 1;
    }
    assert_eq!(count, 2);
}
