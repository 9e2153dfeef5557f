//! Recorded numbers of other implementations: Gymnasium's trajectories, stable-baselines3's
//! running statistics.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::path::PathBuf;

use cordada_env::wrapper::{NormalizeOptions, ObsNormalizer, RewardNormalizer};
use cordada_env::{Outcome, RunningMoments, find, replay};
use cordada_testkit::golden::{self, Case};

/// Recordings of environments that come with a later issue, by `env_id`, with the reason. Those
/// without an `env_id` go by their file's name.
const LATER: &[(&[&str], &str)] = &[
    (
        &["Blackjack-v1", "CliffWalking-v1", "FrozenLake-v1", "FrozenLake8x8-v1", "Taxi-v4"],
        "toy text: random tables, replayed with the recorded draws",
    ),
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
    for name in
        ["CartPole-v1", "MountainCar-v0", "MountainCarContinuous-v0", "Acrobot-v1", "Pendulum-v1"]
    {
        assert!(replayed.iter().any(|env| env == name), "no recording of {name}");
    }
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
