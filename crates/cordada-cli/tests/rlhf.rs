//! `cordada rlhf` from a new model to an aligned one, with a model so small that all takes seconds.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use common::{command, cordada};
use serde_json::Value;
use tempfile::TempDir;

/// Flags of the smallest model.
const TINY: [&str; 12] = [
    "--hidden",
    "16",
    "--layers",
    "1",
    "--heads",
    "2",
    "--intermediate",
    "16",
    "--positions",
    "64",
    "--kv-heads",
    "1",
];

fn rlhf(folder: &Path, args: &[&str]) -> common::Said {
    cordada(folder, &[&["rlhf"], args].concat())
}

/// A folder with the tiny model `model` for sorting.
fn folder_with_model() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let args = [&["new", "model", "--task", "sort", "--quiet"], &TINY[..]].concat();
    rlhf(folder.path(), &args).ok();
    folder
}

/// Runs the program, asserts the exit code and that stdout is empty, and returns stderr.
fn refused(folder: &Path, args: &[&str], code: i32) -> String {
    let said = rlhf(folder, args);
    assert_eq!(said.code, Some(code), "{}", said.stderr);
    assert_eq!(said.stdout, "");
    assert!(!said.stderr.contains("panicked"), "{}", said.stderr);
    said.stderr
}

/// Fine-tunes the tiny model a little, into the run `sft`.
fn fine_tune(folder: &Path, steps: &str) -> common::Said {
    let args = ["sft", "model", "--task", "sort", "--steps", steps, "--out", "sft"];
    rlhf(folder, &[&args[..], &["--set", "examples=512", "--set", "lr=1e-2"]].concat()).ok()
}

#[test]
fn from_a_new_model_to_an_aligned_one() {
    let folder = folder_with_model();
    let path = folder.path();
    let said = fine_tune(path, "60");
    let lines: Vec<&str> = said.stdout.lines().collect();
    assert!(lines[0].starts_with("loss    ") && lines[0].ends_with(" in the last step"));
    assert_eq!(lines[1..], ["model   sft/checkpoints/step-000000000060", "run     sft"]);
    assert!(said.stderr.contains("sft on sort: 60 steps, seed 1, 1 thread"), "{}", said.stderr);
    assert!(said.stderr.contains("512 examples, "), "{}", said.stderr);
    assert!(said.stderr.contains(" left  loss "), "{}", said.stderr);

    let align = ["align", "sft", "--task", "sort", "--algo", "grpo", "--steps", "3"];
    let more = ["--set", "prompts_per_step=2", "--set", "group_size=4", "--out", "grpo"];
    let terms = ["--reward", "ended", "--reward", "contains,weight=0.5:1"];
    let said = rlhf(path, &[&align[..], &more, &terms].concat()).ok();
    assert!(said.stdout.starts_with("reward  "), "{}", said.stdout);
    assert!(said.stdout.contains("\nkl      "), "{}", said.stdout);
    assert!(said.stderr.contains("grpo on sort: 3 steps"), "{}", said.stderr);
    assert!(said.stderr.contains("done: 3 steps"), "{}", said.stderr);
    let config = fs::read_to_string(path.join("grpo/config.toml")).unwrap();
    for line in ["method = \"grpo\"", "group_size = 4", "max_new_tokens = 16"] {
        assert!(config.lines().any(|have| have == line), "{line} in {config}");
    }
    let reward = "reward = [\"ended\", \"contains,weight=0.5:1\"]";
    assert!(config.contains(reward), "{config}");

    // The run is the model, and so is each of its checkpoints.
    let figures = |model: &str| {
        let args = ["eval", model, "--task", "sort", "--max-new-tokens", "12", "--json"];
        rlhf(path, &args).ok().json().remove(0)
    };
    let figures_of_run = figures("grpo");
    assert_eq!(figures_of_run, figures("grpo/checkpoints/step-000000000003"));
    assert_eq!(figures_of_run["prompts"], 256);
    for name in ["score", "score_half_width", "cut", "length", "accuracy"] {
        assert!(figures_of_run[name].is_f64(), "{name} in {figures_of_run}");
    }
    assert_ne!(figures_of_run, figures("model"));
}

#[test]
fn fine_tuning_teaches() {
    let folder = folder_with_model();
    let path = folder.path();
    let line = |i| format!("{{\"prompt\": \"{} :\", \"completion\": \" ab\"}}", i % 10);
    let examples = (0..40).map(line).collect::<Vec<_>>().join("\n");
    fs::write(path.join("data.jsonl"), examples).unwrap();
    let perplexity = |model: &str| {
        let said = rlhf(path, &["eval", model, "--data", "data.jsonl", "--json"]).ok().json();
        assert_eq!(said[0]["scored_tokens"], 40 * 4);
        said[0]["perplexity"].as_f64().unwrap()
    };
    // 64 tokens, nearly alike to a new model; of a tied one, the last is a little likelier.
    assert!((48.0..80.0).contains(&perplexity("model")), "{}", perplexity("model"));
    let args = ["sft", "model", "--data", "data.jsonl", "--steps", "80", "--out", "sft", "--quiet"];
    rlhf(path, &[&args[..], &["--set", "lr=1e-2"]].concat()).ok();
    assert!(perplexity("sft") < 1.2, "{}", perplexity("sft"));
    let said = rlhf(path, &["sample", "sft", "--prompt", "3 :", "--temperature", "0"]).ok();
    assert_eq!(said.stdout, " ab\n");
    assert!(said.stderr.contains("(4 tokens, ended by stop token, log-prob"), "{}", said.stderr);
    // Rewards that compare need the answer.
    let args = ["eval", "sft", "--data", "data.jsonl", "--reward", "exact"];
    let stderr = refused(path, &args, 2);
    assert!(stderr.contains("field \"answer\" is missing"), "{stderr}");
}

#[test]
fn an_adapter_is_trained_merged_and_aligned() {
    let folder = folder_with_model();
    let path = folder.path();
    let sft = ["sft", "model", "--task", "sort", "--steps", "4", "--quiet", "--out", "sft"];
    rlhf(path, &[&sft[..], &["--lora", "r=2,alpha=4,targets=q_proj+v_proj"]].concat()).ok();
    let checkpoint = path.join("sft/checkpoints/step-000000000004");
    assert!(checkpoint.join("adapter_model.safetensors").exists());
    assert!(!checkpoint.join("config.json").exists());
    let text = fs::read_to_string(checkpoint.join("adapter_config.json")).unwrap();
    let config: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&config["r"], &config["lora_alpha"]), (&2.into(), &4.0.into()));
    let base = config["base_model_name_or_path"].as_str().unwrap();
    assert_eq!(fs::canonicalize(base).unwrap(), fs::canonicalize(path.join("model")).unwrap());

    // The reference is the base with the adapter off; the base is the merged model.
    let align = ["align", "sft", "--task", "sort", "--steps", "2", "--quiet", "--out", "rloo"];
    let more = ["--algo", "rloo", "--lora", "r=2", "--reward", "contains:1"];
    rlhf(path, &[&align[..], &more].concat()).ok();
    assert!(path.join("rloo/base/model.safetensors").exists());
    let sample = |model: &str| {
        let args = ["sample", model, "--prompt", "sort 1 :", "--samples", "4", "--json"];
        rlhf(path, &args).ok().json()
    };
    // What was merged speaks as the adapter on its base does.
    assert_eq!(sample("rloo/base"), sample("sft"));
    assert_ne!(sample("rloo"), sample("sft"));
    let full = ["align", "sft", "--task", "sort", "--steps", "1", "--quiet", "--out", "full"];
    rlhf(path, &[&full[..], &["--set", "prompts_per_step=1"]].concat()).ok();
    assert!(!path.join("full/base").exists());
    assert!(path.join("full/checkpoints/step-000000000001/model.safetensors").exists());
}

#[test]
fn samples_are_the_same_for_any_number_of_threads() {
    let folder = folder_with_model();
    let path = folder.path();
    fs::write(path.join("p.jsonl"), "{\"prompt\": \"a\"}\n{\"prompt\": \"b\"}\n").unwrap();
    let sample = |more: &[&str]| {
        let args = ["sample", "model", "--data", "p.jsonl", "--samples", "3", "--json"];
        rlhf(path, &[&args[..], more].concat()).ok().json()
    };
    let all = sample(&[]);
    assert_eq!(all.len(), 6);
    let first = &all[0];
    assert_eq!((&first["prompt"], &first["sample"]), (&"a".into(), &0.into()));
    assert!(first["log_prob"].as_f64().unwrap() < 0.0 && first["tokens"].is_u64(), "{first}");
    assert_eq!(all, sample(&["--threads", "2"]));
    assert_ne!(all, sample(&["--seed", "2"]));
    // Greedy answers are alike, and end where they are told to.
    let greedy = sample(&["--temperature", "0", "--max-new-tokens", "5"]);
    assert_eq!(greedy[0]["text"], greedy[1]["text"]);
    assert!(greedy.iter().all(|s| s["tokens"].as_u64().unwrap() <= 5), "{greedy:?}");
    let text = greedy[0]["text"].as_str().unwrap();
    let stop = text.chars().next().unwrap().to_string();
    let stopped = sample(&["--temperature", "0", "--stop", &stop]);
    assert_eq!((&stopped[0]["text"], &stopped[0]["finish"]), (&"".into(), &"stop_string".into()));
}

#[test]
fn a_new_model_learns_its_tokenizer_from_a_text() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    fs::write(path.join("text"), "the cat sat on the mat, the cat sat still. ".repeat(20)).unwrap();
    for arch in ["qwen3", "qwen2", "llama", "gpt2"] {
        // GPT-2 has a key head for every query head.
        let shape = if arch == "gpt2" { &TINY[..10] } else { &TINY };
        let new = ["new", arch, "--text", "text", "--arch", arch, "--vocab", "270", "--json"];
        let made = rlhf(path, &[&new, shape].concat()).ok().json().remove(0);
        assert_eq!((&made["model"], &made["vocab_size"]), (&arch.into(), &270.into()));
        assert_eq!(made["max_positions"], 64);
        let weights = fs::metadata(path.join(arch).join("model.safetensors")).unwrap().len();
        let numbers = 4 * made["parameters"].as_u64().unwrap();
        assert!((numbers..numbers + 8192).contains(&weights), "{arch}: {weights} bytes, {made}");
        rlhf(path, &["sample", arch, "--prompt", "the cat", "--max-new-tokens", "3"]).ok();
    }
    let stderr = refused(path, &["new", "gpt2", "--text", "text"], 1);
    assert_eq!(stderr, "error: gpt2 exists and is not empty\nhelp: choose another folder\n");
    let stderr = refused(path, &["new", "x", "--text", "nowhere"], 1);
    assert!(stderr.starts_with("error: cannot read nowhere: "), "{stderr}");
    let stderr = refused(path, &["new", "x", "--text", "text", "--heads", "3"], 2);
    assert!(stderr.starts_with("error: heads = 3: hidden = 128 is no multiple of it"), "{stderr}");
    let stderr = refused(path, &["new", "x", "--text", "text", "--size", "6m"], 2);
    assert!(stderr.contains("there is no size \"6m\"") && stderr.contains("5m"), "{stderr}");
    let stderr = refused(path, &["new", "x", "--text", "text", "--vocab", "100"], 2);
    assert!(stderr.contains("a vocabulary of 100 tokens is too small"), "{stderr}");
    assert!(!path.join("x").exists());
}

#[test]
fn what_is_wrong_is_named_with_its_remedy() {
    let folder = folder_with_model();
    let path = folder.path();
    let sft = |args: &[&str], code| refused(path, &[&["sft"], args].concat(), code);
    let align = |args: &[&str], code| refused(path, &[&["align", "model"], args].concat(), code);
    let task = ["--task", "sort"];
    assert_eq!(
        sft(&["model"], 2),
        "error: there is nothing to learn from\n\
         help: name a JSONL file with --data or a generated task with --task; `cordada list tasks` \
         shows all\n"
    );
    assert_eq!(
        sft(&["model", "--task", "sorr"], 2),
        "error: there is no task \"sorr\", did you mean \"sort\"?; known: sort, grounded\n\
         help: `cordada rlhf --help` shows all commands\n"
    );
    assert_eq!(
        sft(&["model", "--task", "sort", "--set", "batchsize=8"], 2),
        "error: unknown setting \"batchsize\" of sft\n\
         help: did you mean \"batch_size\"? `cordada list settings sft` shows all\n"
    );
    assert_eq!(
        sft(&["model", "--task", "sort", "--set", "run.sede=8"], 2),
        "error: unknown setting \"sede\" of run\n\
         help: did you mean \"seed\"? `cordada list settings stage` shows all\n"
    );
    let stderr = sft(&["model", "--task", "sort", "--lora", "r=2,targets=q_prj"], 2);
    assert!(stderr.contains("\"q_prj\"") && stderr.contains("k_proj, o_proj"), "{stderr}");
    let stderr = sft(&["nowhere", "--task", "sort"], 1);
    assert!(stderr.contains("nowhere: there is no such folder"), "{stderr}");
    let stderr = sft(&["model", "--data", "nowhere.jsonl"], 1);
    assert!(stderr.contains("nowhere.jsonl: No such file"), "{stderr}");
    fs::write(path.join("bad.jsonl"), "{\"prompt\": \"a\", \"completion\": 3}\n").unwrap();
    let stderr = sft(&["model", "--data", "bad.jsonl"], 1);
    assert!(stderr.contains("bad.jsonl: line 1: field \"completion\" is a number"), "{stderr}");

    let stderr = align(&["--task", "sort", "--algo", "gropo"], 2);
    assert!(stderr.starts_with("error: unknown method \"gropo\", did you mean \"grpo\"?"));
    let stderr = align(&["--task", "sort", "--reward", "exakt"], 2);
    assert!(stderr.contains("there is no \"exakt\", did you mean \"exact\"?"), "{stderr}");
    let stderr = align(&[&task[..], &["--set", "group_size=1"]].concat(), 2);
    assert!(stderr.contains("align.group_size = 1: 2 or more"), "{stderr}");
    assert!(stderr.contains("cordada list settings align"), "{stderr}");
    fs::write(path.join("p.jsonl"), "{\"prompt\": \"1\"}\n").unwrap();
    let stderr = align(&["--data", "p.jsonl"], 2);
    assert!(stderr.contains("needs a reward, such as --reward exact"), "{stderr}");
    let stderr = align(&[&task[..], &["--set", "max_new_tokens=60"]].concat(), 2);
    assert!(stderr.contains("with at most 4 tokens"), "{stderr}");

    let stderr = refused(path, &["eval", "model", "--data", "p.jsonl"], 2);
    assert!(stderr.contains("there is nothing to measure"), "{stderr}");
    let stderr = refused(path, &["sample", "model", "--prompt", ""], 2);
    assert!(stderr.contains("the prompt has no token"), "{stderr}");
    let stderr = refused(path, &["sample", "model", "--prompt", "1", "--top-p", "0"], 2);
    assert!(stderr.contains("top_p = 0: must be above 0 and at most 1"), "{stderr}");
    let left: Vec<_> = fs::read_dir(path).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(
        left.iter().all(|n| n != "runs") || fs::read_dir(path.join("runs")).unwrap().count() == 0
    );
}

#[test]
fn json_is_all_that_stdout_holds() {
    let folder = folder_with_model();
    let path = folder.path();
    let common = ["model", "--task", "sort", "--steps", "2", "--json", "--set", "examples=64"];
    let sft = rlhf(path, &[&["sft"], &common[..], &["--out", "sft"]].concat()).ok();
    let critic = ["--algo", "ppo", "--set", "prompts_per_step=2", "--out", "ppo"];
    let align = rlhf(path, &[&["align"], &common[..], &critic].concat()).ok();
    for said in [sft, align] {
        assert_eq!(said.stderr, "");
        let events = said.json();
        let names: Vec<&str> = events.iter().map(|e| e["event"].as_str().unwrap()).collect();
        assert_eq!(names, ["start", "note", "metrics", "metrics", "checkpoint", "done"]);
        // Every number has its entry in the list of metrics.
        for name in events[2].as_object().unwrap().keys() {
            let other = ["event", "step", "iteration"].contains(&name.as_str());
            assert!(other || cordada::log::find_metric(name).is_some(), "{name}");
        }
    }
}

#[test]
fn a_finished_stage_says_so_and_can_be_repeated() {
    let folder = folder_with_model();
    let path = folder.path();
    fine_tune(path, "2");
    for command in [&["resume", "sft"][..], &["rlhf", "resume", "sft"]] {
        let said = cordada(path, command).ok();
        assert_eq!(
            said.stderr,
            "sft is done: 2 of 2 steps.\n\
             To train longer, start a new run from its model:\n  \
             cordada rlhf sft sft --config sft/config.toml\n"
        );
        assert_eq!(said.stdout, "model   sft/checkpoints/step-000000000002\nrun     sft\n");
    }
    let args = ["sft", "--config", "sft/config.toml", "--out", "again", "--quiet"];
    rlhf(path, &args).ok();
    let read = |run: &str| {
        fs::read(path.join(run).join("checkpoints/step-000000000002/model.safetensors")).unwrap()
    };
    assert!(read("sft") == read("again"));
    let stderr = refused(path, &["align", "--config", "sft/config.toml"], 2);
    assert_eq!(
        stderr,
        "error: sft/config.toml is a config of sft, not of align\n\
         help: use `cordada rlhf sft --config sft/config.toml`\n"
    );
    let text = fs::read_to_string(path.join("sft/config.toml")).unwrap();
    fs::write(path.join("c.toml"), text.replace("batch_size", "batch_sizes")).unwrap();
    let stderr = refused(path, &["sft", "--config", "c.toml"], 2);
    assert!(stderr.contains("[c.toml:") && stderr.contains("\"batch_sizes\""), "{stderr}");
}

#[test]
fn a_chat_goes_line_by_line() {
    let folder = folder_with_model();
    let talk = |model: &str, flags: &[&str], said: &str| {
        let args = [&["rlhf", "chat", model, "--max-new-tokens", "4"], flags].concat();
        let mut child = command(folder.path(), &args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(said.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (text(output.stdout), text(output.stderr))
    };
    // Without a template each line is a prompt of its own.
    let greedy = ["--temperature", "0"];
    let (stdout, stderr) = talk("model", &greedy, "sort 1 :\n\nsort 1 :\n/exit\nsort 2 :\n");
    let answers: Vec<&str> = stdout.lines().collect();
    assert_eq!(answers.len(), 2, "{stdout}");
    assert_eq!(answers[0], answers[1]);
    assert!(stderr.contains("each line stands alone"), "{stderr}");
    let sample = ["sample", "model", "--prompt", "sort 1 :", "--max-new-tokens", "4"];
    let sampled = rlhf(folder.path(), &[&sample[..], &greedy].concat()).ok();
    assert_eq!(sampled.stdout.lines().next(), Some(answers[0]));

    // With one, the conversation goes on.
    fs::write(folder.path().join("text"), "hello there. ".repeat(50)).unwrap();
    let new = [&["new", "chatty", "--text", "text", "--vocab", "262", "--quiet"], &TINY[..]];
    rlhf(folder.path(), &new.concat()).ok();
    let (stdout, _) = talk("chatty", &["--json", "--seed", "3"], "a\nb\n/new\na\n");
    let lines: Vec<Value> = stdout.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(lines.len(), 3);
    assert!(lines.iter().all(|l| l["text"].is_string() && l["finish"].is_string()));
    let (_, stderr) = talk("chatty", &[], &"a\n".repeat(4));
    assert!(stderr.contains("earlier messages are forgotten"), "{stderr}");
}

#[test]
fn lists_know_methods_rewards_tasks_and_settings() {
    let folder = tempfile::tempdir().unwrap();
    let list = |args: &[&str]| {
        let said = cordada(folder.path(), &[&["list"], args, &["--json"]].concat()).ok();
        said.json().remove(0).as_array().unwrap().clone()
    };
    assert_eq!(list(&["methods"]).len(), cordada::lm::train::METHODS.len());
    assert_eq!(list(&["rewards"]).len(), cordada::lm::reward::TERMS.len());
    assert_eq!(list(&["tasks"]).len(), cordada::lm::tasks::TASKS.len());
    let default = |args: &[&str], name: &str| {
        let all = list(&[&["settings"], args].concat());
        let found = all.iter().find(|s| s["name"] == name).unwrap_or_else(|| panic!("{name}"));
        found["default"].as_str().unwrap().to_string()
    };
    assert_eq!(default(&["grpo"], "kl_coef"), "0.04");
    assert_eq!(default(&["align", "ppo"], "advantage"), "gae");
    // PPO for control is another list.
    assert_eq!(default(&["ppo"], "num_envs"), "8");
    assert_eq!(default(&["sft"], "batch_size"), "32");
    assert_eq!(default(&["stage"], "checkpoint_seconds"), "30.0");
    assert_eq!(default(&["lora"], "alpha"), "16.0");
    for what in ["methods", "rewards", "tasks"] {
        let said = cordada(folder.path(), &["list", what]).ok();
        assert!(said.stdout.lines().count() > 2, "{}", said.stdout);
    }
    let said = cordada(folder.path(), &["list", "settings", "sft", "grpo"]);
    assert_eq!(said.code, Some(2), "{}", said.stderr);
}

/// Aligns the fine-tuned tiny model for 20 steps, into the run `out`.
fn align(folder: &Path, out: &str, reward: &str, changes: &[&str]) -> common::Said {
    let args = ["align", "sft", "--task", "sort", "--steps", "20", "--reward", reward];
    let changes = changes.iter().flat_map(|change| ["--set", change]);
    let all: Vec<&str> = args.into_iter().chain(["--out", out]).chain(changes).collect();
    rlhf(folder, &all)
}

#[test]
fn a_run_that_goes_wrong_stops_and_keeps_the_batch() {
    let folder = folder_with_model();
    fine_tune(folder.path(), "50");
    for (out, changes, says) in [
        ("far", &["lr=0.3", "kl_limit=0.01"][..], "above kl_limit; the batch is saved"),
        ("broken", &["lr=1e30"], "a gradient of step 1 is not finite"),
    ] {
        let said = align(folder.path(), out, "contains:0|1|2", changes);
        assert_eq!(said.code, Some(1), "{}", said.stderr);
        assert!(said.stderr.contains(says), "{}", said.stderr);
        let run = folder.path().join(out);
        let batch = fs::read_to_string(run.join("failed-batch-1.jsonl")).unwrap();
        let batch: Vec<Value> = batch.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!(batch.len(), 64);
        assert!(batch[0]["prompt"].as_str().unwrap().starts_with("sort "), "{}", batch[0]);
        assert!(batch[0]["response"].is_string(), "{}", batch[0]);
        let events = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
        let last: Value = serde_json::from_str(events.lines().last().unwrap()).unwrap();
        assert_eq!((last["event"].as_str(), last["step"].as_u64()), (Some("failed"), Some(1)));
    }
}

#[test]
fn a_reward_that_tells_nothing_is_noticed() {
    let folder = folder_with_model();
    fine_tune(folder.path(), "50");
    let said = align(folder.path(), "dull", "contains:z", &["lr=1e-4"]).ok();
    let warned = said.stderr.matches("all responses to a prompt have scored the same").count();
    assert_eq!(warned, 1, "{}", said.stderr);
    let said = align(folder.path(), "bright", "contains:0|1|2", &["kl_estimator=exact"]).ok();
    assert!(!said.stderr.contains("scored the same"), "{}", said.stderr);
}

#[test]
fn a_demonstration_tells_before_and_after() {
    let folder = tempfile::tempdir().unwrap();
    for task in ["sort", "grounded"] {
        let short = ["demo", task, "--sft-steps", "2", "--steps", "2", "--threads", "1"];
        let said = rlhf(folder.path(), &short).ok();
        let head = said.stdout.lines().nth(1).unwrap_or_default().to_string();
        assert!(said.stdout.starts_with(&format!("task {task}, seed 1, ")), "{}", said.stdout);
        assert!(head.contains("before") && head.contains("after"), "{}", said.stdout);
        assert!(!said.stdout.contains("stage"), "{}", said.stdout);
        let curve = rlhf(folder.path(), &[&short[..], &["--eval-every", "1"]].concat()).ok();
        assert!(curve.stdout.contains("stage  step  seconds"), "{}", curve.stdout);
    }
    let said = refused(folder.path(), &["demo", "groundd"], 2);
    assert!(said.contains("grounded"), "{said}");
}
