//! The policy file: what is written is what is read, other programs can read it too, what is no
//! such file is refused with the reason, and acting from it is acting from the policy.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod common;

use std::path::Path;

use common::through_file;
use cordada_env::wrapper::normalize::NormalizeOptions;
use cordada_env::{BoxSpace, Space, Stream, role};
use cordada_rl::input::InputMap;
use cordada_rl::policy::{ActorCritic, ActorCriticSpec, Encoder, LogStd};
use cordada_rl::policy_file::{Policy, PolicyRunner, PolicySpec};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};

/// A policy with parameters of ordinary size in a space.
fn policy(action_space: Space, change: impl FnOnce(&mut ActorCriticSpec)) -> Policy {
    let obs_space = Space::Dict(vec![
        ("kind".into(), Space::Discrete { n: 3 }),
        ("place".into(), Space::vector(&[-1.0, f32::NEG_INFINITY], &[1.0, f32::INFINITY])),
    ]);
    let mut spec = ActorCriticSpec {
        inputs: 5,
        action_space,
        trunk: vec![],
        actor: vec![7, 6],
        critic: Some(vec![4]),
        encoder: Encoder::Flat,
        memory: None,
        activation: "tanh".into(),
        layer_norm: false,
        log_std: LogStd::Shared,
        squash: false,
    };
    change(&mut spec);
    let mut stream = Stream::new(1, role::INIT, 0);
    let n = ActorCritic::new(&spec).num_params();
    let theta = (0..n).map(|_| stream.normal() as f32).collect();
    let input = InputMap::new(&obs_space, None).unwrap();
    let (algo, env) = ("ppo".into(), "Test-v0".into());
    let spec = PolicySpec::ActorCritic(spec);
    Policy { algo, env, spec, obs_space, normalize: None, input, theta }
}

fn normalized(mut policy: Policy) -> Policy {
    let options = NormalizeOptions { clip: 3.0, ..NormalizeOptions::default() };
    policy.normalize = Some(options);
    policy.input = InputMap::new(&policy.obs_space, Some(options)).unwrap();
    let normalizer = policy.input.normalizer_mut().unwrap();
    normalizer.update(&[0.0_f32, 0.3, 70.0, 1.0, 0.1, -20.0, 2.0, 0.7, 1.0 / 3.0]);
    policy
}

fn bounded() -> Space {
    Space::vector(&[-2.0, 0.0], &[1.0, 0.5])
}

/// Every action space, with what a real-valued one can be.
fn policies() -> Vec<Policy> {
    let half_open = BoxSpace::new(vec![0.0, -1.0], vec![f32::INFINITY, 1.0], vec![1, 2]).unwrap();
    let mut all = vec![
        policy(Space::Discrete { n: 4 }, |_| {}),
        policy(Space::MultiDiscrete { nvec: vec![3, 2] }, |_| {}),
        policy(Space::MultiBinary { n: 3 }, |s| s.activation = "gelu_tanh".into()),
        policy(Space::Box(half_open), |_| {}),
        policy(bounded(), |s| s.log_std = LogStd::PerState),
        policy(bounded(), |s| s.squash = true),
        policy(bounded(), |s| {
            s.trunk = vec![8];
            s.layer_norm = true;
        }),
    ];
    let more: Vec<_> = all.iter().cloned().map(normalized).collect();
    all.extend(more);
    all
}

#[test]
fn what_is_written_is_what_is_read() {
    let folder = tempfile::tempdir().unwrap();
    for policy in policies() {
        assert_eq!(through_file(&policy, folder.path()), policy);
    }
    // Numbers that text would not keep.
    let mut odd = normalized(policy(bounded(), |_| {}));
    odd.theta[0] = -0.0;
    odd.theta[1] = f32::MIN_POSITIVE / 2.0;
    let read = through_file(&odd, folder.path());
    assert_eq!(common::bits(&read.theta), common::bits(&odd.theta));
    // The same policy gives the same bytes.
    assert_eq!(read.to_bytes().unwrap(), odd.to_bytes().unwrap());
}

#[test]
fn the_file_is_one_that_other_programs_read() {
    let policy = normalized(policy(bounded(), |s| {
        s.trunk = vec![9, 8];
        s.layer_norm = true;
    }));
    let bytes = policy.to_bytes().unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut found: Vec<_> = file
        .tensors()
        .into_iter()
        .map(|(name, view)| (name, view.dtype(), view.shape().to_vec()))
        .collect();
    found.sort();
    let f32 = |name: &str, shape: &[usize]| (name.to_string(), Dtype::F32, shape.to_vec());
    let f64 = |name: &str, shape: &[usize]| (name.to_string(), Dtype::F64, shape.to_vec());
    // As of torch.nn.Linear: [out, in].
    let expected = [
        f32("actor.layers.0.bias", &[7]),
        f32("actor.layers.0.norm.bias", &[7]),
        f32("actor.layers.0.norm.weight", &[7]),
        f32("actor.layers.0.weight", &[7, 8]),
        f32("actor.layers.1.bias", &[6]),
        f32("actor.layers.1.norm.bias", &[6]),
        f32("actor.layers.1.norm.weight", &[6]),
        f32("actor.layers.1.weight", &[6, 7]),
        f32("actor.layers.2.bias", &[2]),
        f32("actor.layers.2.weight", &[2, 6]),
        f32("critic.layers.0.bias", &[4]),
        f32("critic.layers.0.norm.bias", &[4]),
        f32("critic.layers.0.norm.weight", &[4]),
        f32("critic.layers.0.weight", &[4, 8]),
        f32("critic.layers.1.bias", &[1]),
        f32("critic.layers.1.weight", &[1, 4]),
        f32("log_std", &[2]),
        f64("obs_normalizer.mean", &[3]),
        f64("obs_normalizer.var", &[3]),
        f32("trunk.layers.0.bias", &[9]),
        f32("trunk.layers.0.norm.bias", &[9]),
        f32("trunk.layers.0.norm.weight", &[9]),
        f32("trunk.layers.0.weight", &[9, 5]),
        f32("trunk.layers.1.bias", &[8]),
        f32("trunk.layers.1.norm.bias", &[8]),
        f32("trunk.layers.1.norm.weight", &[8]),
        f32("trunk.layers.1.weight", &[8, 9]),
    ];
    assert_eq!(found, expected);
    let numbers = |name: &str| -> Vec<f32> {
        let data = file.tensor(name).unwrap().data();
        data.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    };
    // θ begins with the trunk's weight.
    assert_eq!(numbers("trunk.layers.0.weight"), policy.theta[..45]);
}

/// Why a file with these bytes is not read.
fn refusal(bytes: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("policy.safetensors");
    std::fs::write(&path, bytes).unwrap();
    let message = Policy::read(&path).unwrap_err().to_string();
    let start = format!("{}: ", path.display());
    message.strip_prefix(&start).unwrap_or_else(|| panic!("{message:?} names the file")).to_string()
}

/// A small policy's file with changed metadata and tensors.
fn changed(
    metadata: impl FnOnce(&mut Value),
    tensors: impl Fn(&str, &mut Vec<usize>, &mut Dtype) -> bool,
) -> Vec<u8> {
    let bytes = normalized(policy(bounded(), |_| {})).to_bytes().unwrap();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let mut json = serde_json::from_str(&header.metadata().as_ref().unwrap()["cordada"]).unwrap();
    metadata(&mut json);
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut kept = Vec::new();
    for (name, view) in file.tensors() {
        let (mut shape, mut dtype) = (view.shape().to_vec(), view.dtype());
        if tensors(&name, &mut shape, &mut dtype) {
            kept.push((name, TensorView::new(dtype, shape, view.data()).unwrap()));
        }
    }
    #[allow(clippy::disallowed_types, reason = "the type that safetensors takes")]
    let header = std::collections::HashMap::from([("cordada".to_string(), json.to_string())]);
    safetensors::serialize(kept, Some(header)).unwrap()
}

fn keep(_: &str, _: &mut Vec<usize>, _: &mut Dtype) -> bool {
    true
}

#[test]
fn what_is_no_policy_file_is_refused_with_the_reason() {
    let missing = Policy::read(Path::new("no/such/file")).unwrap_err().to_string();
    assert!(missing.starts_with("cannot read no/such/file: "), "{missing}");
    let bytes = changed(|_| {}, keep);
    for garbage in [&b""[..], b"garbage", &bytes[..50], &bytes[..bytes.len() - 1], &[0xff; 100]] {
        let message = refusal(garbage);
        assert!(message.starts_with("not a whole policy file ("), "{message}");
    }
    let view = TensorView::new(Dtype::U8, vec![1], &[0]).unwrap();
    let other = safetensors::serialize([("x", view)], None).unwrap();
    assert_eq!(refusal(&other), "a safetensors file, but not a policy of Cordada");
}

#[test]
fn metadata_that_does_not_fit_is_refused_with_the_reason() {
    let refuse = |change: fn(&mut Value)| refusal(&changed(change, keep));
    assert_eq!(refuse(|m| m["format"] = json!(3)), "policy format 3; this version reads 2");
    assert_eq!(
        refuse(|m| m["policy"]["actor_critic"]["activation"] = json!("tan")),
        "unknown activation \"tan\""
    );
    assert_eq!(
        refuse(|m| m["policy"]["actor_critic"]["action_space"] = json!({"dict": []})),
        "no policy acts in Dict()"
    );
    assert_eq!(
        refuse(|m| m["obs_space"] = json!({"discrete": {"n": 4}})),
        "5 network inputs for Discrete(4)"
    );
    let message = refuse(|m| m["policy"]["actor_critic"]["squash"] = json!(1));
    let start = "damaged metadata: invalid type: integer `1`, expected a boolean at line 1";
    assert!(message.starts_with(start), "{message}");
    assert_eq!(
        refuse(|m| m["normalizer"]["clip"] = json!(-1.0)),
        "clip is -1, it has to be above 0"
    );
}

#[test]
fn sizes_that_no_file_holds_are_refused_before_memory_is_asked_for() {
    for (part, sizes) in [
        ("actor", json!([0])),
        ("critic", json!([u64::MAX])),
        ("trunk", json!([1_u64 << 40, 1_u64 << 40])),
        ("actor", json!([40, 3000])),
    ] {
        let message =
            refusal(&changed(|m| m["policy"]["actor_critic"][part] = sizes.clone(), keep));
        let refused = message.starts_with("a network of ") && message.ends_with(" in this file");
        assert!(refused, "{part}: {message}");
    }
    for space in [
        json!({"discrete": {"n": 0}}),
        json!({"discrete": {"n": u64::MAX}}),
        json!({"multi_discrete": {"nvec": [2, 0]}}),
        json!({"multi_binary": {"n": 0}}),
        json!({"multi_binary": {"n": 1_u64 << 40}}),
    ] {
        let message = refusal(&changed(
            |m| m["policy"]["actor_critic"]["action_space"] = space.clone(),
            keep,
        ));
        assert!(message.starts_with("no policy acts in "), "{space}: {message}");
    }
    let wide =
        refusal(&changed(|m| m["policy"]["actor_critic"]["inputs"] = json!(1_u64 << 60), keep));
    assert!(wide.starts_with("1152921504606846976 network inputs for Dict("), "{wide}");
    let memory = json!({"cell": "lstm", "size": 1_u64 << 40});
    let message = refusal(&changed(|m| m["policy"]["actor_critic"]["memory"] = memory, keep));
    assert!(message.starts_with("a network of "), "{message}");
    let huge = json!({"discrete": {"n": 1_u64 << 60}});
    let message = refusal(&changed(|m| m["obs_space"] = huge, keep));
    assert_eq!(message, "5 network inputs for Discrete(1152921504606846976)");
    let many = json!({"multi_binary": {"n": 1_u64 << 60}});
    let message = refusal(&changed(|m| m["obs_space"] = many, keep));
    assert_eq!(message, "5 network inputs for MultiBinary(1152921504606846976)");
}

#[test]
fn tensors_that_do_not_fit_are_refused_with_their_names() {
    let refuse =
        |change: fn(&str, &mut Vec<usize>, &mut Dtype) -> bool| refusal(&changed(|_| {}, change));
    assert_eq!(
        refuse(|name, _, _| name != "critic.layers.1.bias"),
        "no tensor critic.layers.1.bias"
    );
    assert_eq!(refuse(|name, _, _| name != "obs_normalizer.var"), "no tensor obs_normalizer.var");
    let transposed = |name: &str, shape: &mut Vec<usize>, _: &mut Dtype| {
        if name == "actor.layers.0.weight" {
            shape.reverse();
        }
        true
    };
    assert_eq!(refuse(transposed), "actor.layers.0.weight is F32 [5, 7], not F32 [7, 5]");
    let of_other_type = |name: &str, _: &mut Vec<usize>, dtype: &mut Dtype| {
        if name == "log_std" {
            *dtype = Dtype::I32;
        }
        true
    };
    assert_eq!(refuse(of_other_type), "log_std is I32 [2], not F32 [2]");
    let wide = |m: &mut Value| m["policy"]["actor_critic"]["actor"] = json!([7, 9]);
    assert_eq!(
        refusal(&changed(wide, keep)),
        "actor.layers.1.weight is F32 [6, 7], not F32 [9, 7]"
    );
}

/// Rows of observations, some of them extreme.
fn observations(n: usize) -> Vec<f32> {
    let mut stream = Stream::new(8, role::ENV, 0);
    let row = |i: usize| {
        let scale = if i % 5 == 4 { 1e6 } else { 2.0 };
        [stream.below(3) as f32, (scale * stream.normal()) as f32, (scale * stream.normal()) as f32]
    };
    (0..n).flat_map(row).collect()
}

fn act(policy: &Policy, obs: &[f32], sample: bool, batch: usize) -> Vec<f32> {
    let n = obs.len() / 3;
    let mut runner = PolicyRunner::new(policy);
    let mut streams: Vec<_> = (0..n).map(|i| Stream::new(5, role::EVAL_POLICY, i as u32)).collect();
    let a = runner.action_len();
    let mut actions = vec![f32::NAN; n * a];
    let parts = obs.chunks(3 * batch).zip(streams.chunks_mut(batch));
    for ((obs, streams), actions) in parts.zip(actions.chunks_mut(a * batch)) {
        runner.act(obs, None, &mut [], sample.then_some(streams), actions);
    }
    actions
}

#[test]
fn a_read_policy_acts_as_the_written_one_in_any_batch() {
    let folder = tempfile::tempdir().unwrap();
    let obs = observations(300);
    for policy in policies() {
        let read = through_file(&policy, folder.path());
        for sample in [false, true] {
            let actions = act(&policy, &obs, sample, 300);
            for batch in [1, 7, 300] {
                let again = act(&read, &obs, sample, batch);
                assert_eq!(common::bits(&again), common::bits(&actions), "{:?}", policy.spec);
            }
            let space = &policy.spec.action_space();
            for action in actions.chunks(space.len()) {
                space.contains(action).unwrap_or_else(|e| panic!("{space}: {e}"));
            }
        }
        assert_ne!(act(&policy, &obs, true, 300), act(&policy, &obs, false, 300));
    }
}

#[test]
fn the_normalizer_is_part_of_what_acts() {
    // The negative control: the same parameters without it act differently.
    let plain = policy(bounded(), |_| {});
    let obs = observations(50);
    assert_ne!(act(&normalized(plain.clone()), &obs, false, 50), act(&plain, &obs, false, 50));
}
