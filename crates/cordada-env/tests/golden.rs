//! Recorded numbers of other implementations: Gymnasium's trajectories, stable-baselines3's
//! running statistics.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::path::PathBuf;

use cordada_env::toy_text::frozen_lake::{FrozenLake, FrozenLakeOptions};
use cordada_env::toy_text::taxi::TaxiState;
use cordada_env::wrapper::{NormalizeOptions, ObsNormalizer, RewardNormalizer};
use cordada_env::{ENVIRONMENTS, Outcome, RunningMoments, find, replay};
use cordada_testkit::golden::{self, Case};

/// Recordings of environments that come with a later issue, by `env_id`, with the reason. Those
/// without an `env_id` go by their file's name.
const LATER: &[(&[&str], &str)] = &[
    (
        &["LunarLander-v3", "BipedalWalker-v3", "BipedalWalkerHardcore-v3"],
        "need Box2D, behind a feature",
    ),
    (
        &[
            "Ant-v5",
            "HalfCheetah-v5",
            "Hopper-v5",
            "Humanoid-v5",
            "HumanoidStandup-v5",
            "InvertedDoublePendulum-v5",
            "InvertedPendulum-v5",
            "Pusher-v5",
            "Reacher-v5",
            "Swimmer-v5",
            "Walker2d-v5",
        ],
        "need MuJoCo, opened at run time",
    ),
    (&["chess_v6"], "games come later, with a format of their own"),
    (&["numpy_rng"], "NumPy's generator, needed only to repeat Gymnasium's own resets"),
];

/// Environments that no other implementation has in the same form.
const UNRECORDED: [&str; 2] = ["CartPoleNoVel-v1", "PendulumNoVel-v1"];

fn recordings() -> Vec<PathBuf> {
    let folder = golden::root().join("data");
    let entries =
        std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "safetensors"))
        .collect();
    paths.sort();
    paths
}

#[test]
fn golden_trajectories_are_reproduced() {
    let mut replayed = vec![];
    for path in recordings() {
        let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
        let env_id = golden::read(&path).metadata.get("env_id").cloned().unwrap_or(stem);
        if LATER.iter().any(|(ids, _)| ids.contains(&env_id.as_str())) {
            continue;
        }
        let report = replay(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert!(report.steps > 0, "{report:?}");
        assert!(report.max_diff_state <= 1e-12, "{report:?}");
        assert!(report.max_ulp_obs <= 1, "{report:?}");
        assert!(report.max_diff_reward <= 1e-12, "{report:?}");
        assert_eq!(report.flag_mismatches, 0, "{report:?}");
        replayed.push(report.env);
    }
    for spec in ENVIRONMENTS {
        let found = replayed.iter().any(|env| env == spec.name);
        assert!(found || UNRECORDED.contains(&spec.name), "no recording of {}", spec.name);
    }
}

/// The recordings of an environment whose name is `env_id`.
fn recordings_of(env_id: &str) -> Vec<golden::File> {
    let files = recordings().into_iter().map(|path| golden::read(&path));
    files.filter(|file| file.metadata.get("env_id").is_some_and(|id| id == env_id)).collect()
}

#[test]
fn golden_action_masks_of_the_taxi() {
    let files = recordings_of("Taxi-v4");
    assert!(!files.is_empty());
    for file in files {
        let masks = file.tensors["action_mask"].flags();
        assert_eq!(masks.len(), 500 * 6);
        for (index, want) in masks.chunks(6).enumerate() {
            let state = TaxiState::decode(index);
            assert_eq!(state.useful_actions(), want, "{state:?}");
        }
    }
}

/// Cases of the family `tabular` that test learners, which this crate has none of.
const OF_LEARNERS: [&str; 2] = ["frozenlake_slippery_control", "frozenlake_deterministic_control"];

#[test]
fn golden_tabular_dp() {
    for case in golden::family("tabular") {
        match case.name.as_str() {
            "frozenlake_slippery_dp" => tabular_dp(&case, true),
            "frozenlake_deterministic_dp" => tabular_dp(&case, false),
            other if OF_LEARNERS.contains(&other) => {}
            other => panic!("no handler for the case {other}"),
        }
    }
}

fn tabular_dp(case: &Case, is_slippery: bool) {
    let options = FrozenLakeOptions { is_slippery, ..FrozenLakeOptions::default() };
    let lake = FrozenLake::with_options(&options).unwrap();
    let table = lake.table();
    let probability = case.tensor("input/prob");
    let (next, reward) = (case.tensor("input/next_state"), case.tensor("input/reward"));
    let (done, width) = (case.tensor("input/done"), probability.shape[2]);
    for row in 0..16 * 4 {
        let here = table.outcomes(row / 4, row % 4);
        let padded = |k: usize| here.get(k).map_or(0.0, |o| o.probability);
        for k in 0..width {
            assert_eq!(padded(k), probability.data[row * width + k], "{}", case.name);
        }
        for (k, o) in here.iter().enumerate() {
            let at = row * width + k;
            assert_eq!((o.next_state as f64, o.reward), (next.data[at], reward.data[at]));
            assert_eq!(o.terminated, done.data[at] != 0.0, "{} {row} {k}", case.name);
        }
    }
    let gamma = case.param("gamma");
    let (v, q) = table.value_iteration(gamma, 1e-13).unwrap();
    case.check("output/v_star", &v);
    case.check("output/q_star", &q);
    let uniform = vec![0.25; 16 * 4];
    case.check("output/v_uniform", &table.policy_evaluation(&uniform, gamma).unwrap());
}

#[test]
fn golden_list_of_later_environments_is_not_stale() {
    for (ids, reason) in LATER {
        for id in *ids {
            assert!(find(id).is_err(), "{id} is registered now; it was left out as: {reason}");
        }
    }
}

#[test]
fn golden_running_stats() {
    for case in golden::family("running_stats") {
        match case.name.as_str() {
            "running_mean_std" => running_mean_std(&case),
            "running_mean_std_combine" => running_mean_std_combine(&case),
            "vec_normalize" => vec_normalize(&case),
            other => panic!("no handler for the case {other}"),
        }
    }
}

fn running_mean_std(case: &Case) {
    let data = case.tensor("input/data");
    let dim = data.shape[1];
    let mut moments = RunningMoments::with_count(dim, case.param("initial_count"));
    let (mut mean, mut var, mut count, mut start) = (vec![], vec![], vec![], 0);
    for size in case.params["batch_sizes"].as_array().unwrap() {
        let end = start + size.as_u64().unwrap() as usize;
        moments.update(&data.data[start * dim..end * dim]);
        mean.extend(moments.mean());
        var.extend(moments.var());
        count.push(moments.count());
        start = end;
    }
    case.check("output/mean", &mean);
    case.check("output/var", &var);
    case.check("output/count", &count);
}

fn running_mean_std_combine(case: &Case) {
    let (a, b) = (case.tensor("input/a"), case.tensor("input/b"));
    // stable-baselines3's default starting count.
    let mut moments = RunningMoments::with_count(a.shape[1], 1e-4);
    let mut other = moments.clone();
    moments.update(&a.data);
    other.update(&b.data);
    moments.merge(&other);
    case.check("output/mean", moments.mean());
    case.check("output/var", moments.var());
    case.check("output/count", &[moments.count()]);
}

fn vec_normalize(case: &Case) {
    let obs = case.tensor("input/obs");
    let (n, d) = (obs.shape[1], obs.shape[2]);
    let options = |clip| NormalizeOptions {
        clip: case.param(clip),
        epsilon: case.param("epsilon"),
        initial_count: 1e-4,
    };
    let mut by_obs = ObsNormalizer::new(d, options("clip_obs")).unwrap();
    let mut shown = vec![];
    for rows in obs.data.chunks(n * d) {
        let mut out = vec![0.0; n * d];
        by_obs.update(rows);
        by_obs.normalize(rows, &mut out);
        shown.extend(out.into_iter().map(f64::from));
    }
    case.check("output/obs", &shown);
    case.check("output/final_obs_mean", by_obs.moments().mean());
    case.check("output/final_obs_var", by_obs.moments().var());
    case.check("output/final_obs_count", &[by_obs.moments().count()]);

    let gamma = case.param("gamma");
    let mut by_return = RewardNormalizer::new(n, gamma, options("clip_reward")).unwrap();
    let (mut shown, mut returns, mut vars) = (vec![], vec![], vec![]);
    let outcome = |&ended: &bool| {
        if ended { Outcome::Terminated } else { Outcome::Continue }
    };
    let dones: Vec<Outcome> = case.tensor("input/dones").flags().iter().map(outcome).collect();
    for (rewards, outcomes) in case.tensor("input/rewards").f32().chunks(n).zip(dones.chunks(n)) {
        let mut out = vec![0.0; n];
        by_return.update(rewards, outcomes);
        by_return.normalize(rewards, &mut out);
        shown.extend(out.into_iter().map(f64::from));
        returns.extend(by_return.returns());
        vars.extend(by_return.moments().var());
    }
    case.check("output/rewards", &shown);
    case.check("output/returns", &returns);
    case.check("output/return_var", &vars);
}
