//! Tests of the replay on small recordings made here: what must match, what must be noticed.

use std::path::PathBuf;

use safetensors::Dtype;
use safetensors::tensor::TensorView;

use super::*;

/// A recording of three steps of `MountainCar-v0` by our own environment, to be spoilt.
struct Sample {
    metadata: Vec<(&'static str, String)>,
    tensors: Vec<(&'static str, Dtype, Vec<u8>)>,
}

fn bytes_f64(values: &[f64]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_le_bytes()).collect()
}

fn bytes_f32(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_le_bytes()).collect()
}

impl Sample {
    fn new() -> Self {
        let mut env = find("MountainCar-v0").unwrap().build();
        let mut stream = Stream::new(0, role::ENV, 0);
        let start = [0.41, 0.03];
        env.set_state(&start).unwrap();
        let (mut states, mut shown) = (start.to_vec(), vec![0.41f32, 0.03]);
        let (mut obs, mut terminated) = ([0.0; 2], vec![]);
        for _ in 0..3 {
            let step = env.step(&[2.0], &mut stream, &mut obs);
            states.extend(env.state().unwrap());
            shown.extend(obs);
            terminated.push(u8::from(step.outcome == Outcome::Terminated));
        }
        assert_eq!(terminated, [0, 0, 1], "{states:?}");
        let actions = [2i64; 3].iter().flat_map(|x| x.to_le_bytes()).collect();
        Self {
            metadata: vec![
                ("env_id", "MountainCar-v0".into()),
                ("kwargs", "{}".into()),
                ("trajectories", r#"[{"name": "t00", "steps": 3}]"#.into()),
            ],
            tensors: vec![
                ("t00.state", Dtype::F64, bytes_f64(&states)),
                ("t00.obs", Dtype::F32, bytes_f32(&shown)),
                ("t00.action", Dtype::I64, actions),
                ("t00.reward", Dtype::F64, bytes_f64(&[-1.0; 3])),
                ("t00.terminated", Dtype::U8, terminated),
                ("t00.truncated", Dtype::U8, vec![0, 0, 1]),
            ],
        }
    }

    fn tensor(&mut self, name: &str) -> &mut (&'static str, Dtype, Vec<u8>) {
        self.tensors.iter_mut().find(|tensor| tensor.0 == name).unwrap()
    }

    fn set(mut self, key: &str, value: &str) -> Self {
        let entry = self.metadata.iter_mut().find(|entry| entry.0 == key).unwrap();
        entry.1 = value.into();
        self
    }

    /// Writes the file, replays it and removes it.
    fn replay(&self, name: &str) -> Result<ReplayReport, Error> {
        let views = self.tensors.iter().map(|(name, dtype, data)| {
            let size = match dtype {
                Dtype::F64 | Dtype::I64 => 8,
                Dtype::F32 => 4,
                Dtype::F16 => 2,
                _ => 1,
            };
            (*name, TensorView::new(*dtype, vec![data.len() / size], data).unwrap())
        });
        let header = self.metadata.iter().map(|(k, v)| (k.to_string(), v.clone())).collect();
        let bytes = safetensors::serialize(views, Some(header)).unwrap();
        replay_bytes(name, &bytes)
    }
}

fn scratch(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("cordada-replay-{}-{name}.safetensors", std::process::id()))
}

fn replay_bytes(name: &str, bytes: &[u8]) -> Result<ReplayReport, Error> {
    let path = scratch(name);
    std::fs::write(&path, bytes).unwrap();
    let result = replay(&path);
    std::fs::remove_file(&path).unwrap();
    result
}

#[test]
fn a_faithful_recording_matches_exactly() {
    // Both ends at once: terminated is the right answer.
    let report = Sample::new().replay("faithful").unwrap();
    assert_eq!((report.env.as_str(), report.trajectories, report.steps), ("MountainCar-v0", 1, 3));
    assert_eq!(
        (report.max_diff_state, report.max_diff_obs, report.max_diff_reward),
        (0.0, 0.0, 0.0)
    );
    assert_eq!((report.max_ulp_obs, report.flag_mismatches), (0, 0));
}

#[test]
fn every_kind_of_difference_is_measured() {
    let mut sample = Sample::new();
    let state = &mut sample.tensor("t00.state").2;
    let last = state.len() - 8;
    let value = f64::from_le_bytes(state[last..].try_into().unwrap());
    state.splice(last.., (value + 0.25).to_le_bytes());
    sample.tensor("t00.reward").2 = bytes_f64(&[-1.0, -1.5, -1.0]);
    sample.tensor("t00.terminated").2 = vec![0, 0, 0];
    sample.tensor("t00.truncated").2 = vec![1, 0, 0];
    let obs = &mut sample.tensor("t00.obs").2;
    let last = obs.len() - 4;
    let bits = u32::from_le_bytes(obs[last..].try_into().unwrap());
    obs.splice(last.., (bits + 3).to_le_bytes());

    let report = sample.replay("different").unwrap();
    assert!((report.max_diff_state - 0.25).abs() < 1e-12, "{report:?}");
    assert_eq!((report.max_ulp_obs, report.max_diff_reward), (3, 0.5));
    assert!(report.max_diff_obs > 0.0 && report.max_diff_obs < 1e-7, "{report:?}");
    assert_eq!(report.flag_mismatches, 2); // the first step, and the last
}

#[test]
fn a_nan_is_an_infinite_difference() {
    let mut sample = Sample::new();
    sample.tensor("t00.reward").2 = bytes_f64(&[-1.0, f64::NAN, -1.0]);
    assert_eq!(sample.replay("nan").unwrap().max_diff_reward, f64::INFINITY);
    assert_eq!((difference(f64::NAN, f64::NAN), ulps(f32::NAN, f32::NAN)), (0.0, 0));
    assert_eq!((ulps(f32::NAN, 1.0), ulps(0.0, -0.0)), (u32::MAX, 0));
    assert_eq!(ulps(-f32::from_bits(1), f32::from_bits(2)), 3);
}

#[test]
fn what_is_not_a_recording_is_refused() {
    let missing = replay(Path::new("no/such.safetensors")).unwrap_err().to_string();
    assert!(missing.starts_with("cannot read the recording no/such.safetensors: "), "{missing}");
    let text = replay_bytes("text", b"not a recording at all").unwrap_err().to_string();
    assert!(text.contains("is not a safetensors file"), "{text}");

    let message = |name: &str, sample: Sample| sample.replay(name).unwrap_err().to_string();
    let unknown = message("unknown", Sample::new().set("env_id", "MountainCar-v9"));
    assert!(unknown.contains("did you mean \"MountainCar-v0\"?"), "{unknown}");
    let options = message("options", Sample::new().set("kwargs", r#"{"goal_velocity": 1}"#));
    assert!(
        options.contains("the options {\"goal_velocity\":1}, which MountainCar-v0"),
        "{options}"
    );
    let list = r#"[{"name": "t00", "kwargs": {"goal_velocity": 1}}]"#;
    let options = message("own", Sample::new().set("trajectories", list));
    assert!(options.contains("goal_velocity"), "{options}");
    let list = message("list", Sample::new().set("trajectories", "[{}]"));
    assert!(list.contains("lacks valid metadata \"trajectories\""), "{list}");

    let mut sample = Sample::new();
    sample.metadata.remove(0);
    assert!(message("id", sample).contains("lacks valid metadata \"env_id\""));
    let mut sample = Sample::new();
    sample.tensors.retain(|tensor| tensor.0 != "t00.obs");
    assert!(message("obs", sample).contains("lacks the tensor \"t00.obs\""));
    let mut sample = Sample::new();
    sample.tensor("t00.action").2.truncate(16);
    let short = message("short", sample);
    assert!(short.contains("\"t00.action\"") && short.ends_with("has 2 numbers, not 3"), "{short}");
    let mut sample = Sample::new();
    *sample.tensor("t00.reward") = ("t00.reward", Dtype::F16, vec![0; 6]);
    assert!(message("type", sample).contains("of the type F16"));
}

/// A recording of two steps in the frozen lake of 2 cells, `S` and `G`, driven by draws.
fn lake() -> Sample {
    let i64s = |values: &[i64]| values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    // From either cell: four actions of three outcomes, each a third; the goal keeps.
    let (third, side) = (1.0 / 3.0, (1.0 - 1.0 / 3.0) / 2.0);
    let prob = [[side, third, side]; 4].concat();
    let goal = [[1.0, 0.0, 0.0]; 4].concat();
    // Left (and from it up, down), down, right, up; only right moves.
    let next = [[0, 0, 0], [0, 0, 1], [0, 1, 0], [1, 0, 0], [1, 1, 1], [1, 1, 1], [1, 1, 1]];
    let next: Vec<i64> = [next.concat(), vec![1, 1, 1]].concat();
    let entered = |i: usize, next: i64| i < 12 && next == 1;
    let reward: Vec<f64> =
        next.iter().enumerate().map(|(i, &n)| f64::from(u8::from(entered(i, n)))).collect();
    let done = next.iter().map(|&n| u8::from(n == 1)).collect();
    Sample {
        metadata: vec![
            ("env_id", "FrozenLake-v1".into()),
            ("kwargs", r#"{"is_slippery": false}"#.into()),
            (
                "trajectories",
                r#"[{"name": "t00", "kwargs": {"is_slippery": true, "desc": ["SG"]}}]"#.into(),
            ),
        ],
        tensors: vec![
            ("P.count", Dtype::I64, i64s(&[3, 3, 3, 3, 1, 1, 1, 1])),
            ("P.next", Dtype::I64, i64s(&next)),
            ("P.prob", Dtype::F64, bytes_f64(&[prob, goal].concat())),
            ("P.reward", Dtype::F64, bytes_f64(&reward)),
            ("P.done", Dtype::U8, done),
            ("initial_distribution", Dtype::F64, bytes_f64(&[1.0, 0.0])),
            ("t00.state", Dtype::I64, i64s(&[0, 0, 1])),
            ("t00.obs", Dtype::I64, i64s(&[0, 0, 1])),
            ("t00.action", Dtype::I64, i64s(&[2, 2])),
            ("t00.reward", Dtype::F64, bytes_f64(&[0.0, 1.0])),
            ("t00.terminated", Dtype::U8, vec![0, 1]),
            ("t00.truncated", Dtype::U8, vec![0, 0]),
            // Reset, slip down, go right.
            ("t00.draws", Dtype::F64, bytes_f64(&[0.9, 0.2, 0.5])),
            ("t00.draws_ptr", Dtype::I64, i64s(&[0, 1, 2, 3])),
        ],
    }
}

#[test]
fn a_random_environment_is_driven_by_its_draws() {
    let report = lake().replay("draws").unwrap();
    assert_eq!((report.steps, report.max_diff_state, report.max_diff_obs), (2, 0.0, 0.0));
    assert_eq!((report.max_diff_reward, report.flag_mismatches), (0.0, 0));
    // With another draw the first step goes to the goal: 1 in the observation and the reward.
    let mut other = lake();
    other.tensor("t00.draws").2 = bytes_f64(&[0.9, 0.4, 0.5]);
    let report = other.replay("other-draws").unwrap();
    assert_eq!(
        (report.max_diff_obs, report.max_diff_state, report.max_diff_reward),
        (1.0, 1.0, 1.0)
    );
    assert_eq!(report.flag_mismatches, 1);
    // The observation of the reset counts too.
    let mut other = lake();
    other.tensor("t00.obs").2[0] = 1;
    assert_eq!(other.replay("first-obs").unwrap().max_diff_obs, 1.0);
    // Unless the state was set after it.
    let list = r#"[{"name": "t00", "initial_state_set": true, "kwargs": {"is_slippery": true,
        "desc": ["GS"]}}]"#;
    let mut other = lake().set("trajectories", list);
    other.tensors.retain(|tensor| !tensor.0.starts_with("P."));
    let report = other.replay("state-set").unwrap();
    assert_eq!((report.max_diff_reward, report.flag_mismatches), (1.0, 1));
}

#[test]
fn draws_that_do_not_fit_are_refused() {
    let message = |change: &dyn Fn(&mut Sample)| {
        let mut sample = lake();
        change(&mut sample);
        sample.replay("bad-draws").unwrap_err().to_string()
    };
    let error = message(&|s| s.tensor("t00.draws").2 = bytes_f64(&[0.9, 1.5, 0.5]));
    assert!(error.contains("trajectory t00, step 1: recorded draw 0 is 1.5"), "{error}");
    let error = message(&|s| s.tensor("t00.draws_ptr").2[8] = 2);
    assert!(error.contains("step 0: the environment uses 1 draws here, 2 are"), "{error}");
    let error = message(&|s| s.tensor("t00.draws_ptr").2[24] = 9);
    assert!(error.contains("\"t00.draws\"") && error.ends_with("3 numbers, not 9"), "{error}");
    let error = message(&|s| s.tensors.retain(|tensor| tensor.0 != "t00.draws_ptr"));
    assert!(error.contains("lacks the tensor \"t00.draws_ptr\""), "{error}");
    // Blackjack has no state to start from, so without draws it cannot be replayed.
    let mut sample = Sample::new().set("env_id", "Blackjack-v1");
    sample.tensor("t00.obs").2 = bytes_f32(&[0.0; 12]);
    let error = sample.replay("no-draws").unwrap_err().to_string();
    assert!(error.ends_with("step 0: this environment's state cannot be set"), "{error}");
}

#[test]
fn another_table_is_refused() {
    let message = |change: &dyn Fn(&mut Sample)| {
        let mut sample = lake();
        change(&mut sample);
        sample.replay("table").unwrap_err().to_string()
    };
    // A probability off by 5e-14 (a byte in the middle of the mantissa), a state, an end.
    let error = message(&|s| s.tensor("P.prob").2[1] ^= 4);
    assert!(error.starts_with("tensor \"P.prob\"") && error.contains("[0, 0, 0]"), "{error}");
    let error = message(&|s| s.tensor("P.next").2[5 * 8] = 0);
    assert!(error.contains("is 0 at [0, 1, 2], the environment has 1"), "{error}");
    let error = message(&|s| s.tensor("P.done").2[12] = 0);
    assert!(error.starts_with("tensor \"P.done\"") && error.contains("[1, 0, 0]"), "{error}");
    let error = message(&|s| s.tensor("P.reward").2 = bytes_f64(&[0.5; 24]));
    assert!(error.starts_with("tensor \"P.reward\""), "{error}");
    let error = message(&|s| s.tensor("P.count").2[0] = 1);
    assert!(error.contains("is 1 at [0, 0], the environment has 3"), "{error}");
    let error = message(&|s| s.tensor("initial_distribution").2 = bytes_f64(&[1.0 - 1e-14, 1e-14]));
    assert!(error.starts_with("tensor \"initial_distribution\""), "{error}");
    let mut sample = Sample::new();
    sample.tensors.push(("P.count", Dtype::I64, vec![0; 8]));
    let error = sample.replay("no-table").unwrap_err().to_string();
    assert!(error.ends_with("holds a transition table, MountainCar-v0 has none here"), "{error}");
}
