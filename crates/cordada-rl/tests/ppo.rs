//! What PPO promises of its numbers: the first pass over a batch has ratio 1, limits hold, and
//! every metric is one that the list explains.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use cordada_log::find_metric;
use cordada_rl::algo::Algorithm;
use cordada_rl::config::parse_assignment;
use cordada_rl::train::RunConfig;

fn ppo(env: &str, settings: &[&str]) -> Box<dyn Algorithm> {
    let changes: Vec<_> = settings.iter().map(|s| parse_assignment(s).unwrap()).collect();
    RunConfig::new("ppo", env, &changes).unwrap().make(1).unwrap()
}

fn metric(report: &cordada_rl::algo::Report, name: &str) -> f64 {
    let found = report.metrics.iter().find(|(n, _)| *n == name);
    found.unwrap_or_else(|| panic!("no metric {name}")).1
}

#[test]
fn the_first_pass_over_a_batch_has_ratio_exactly_1() {
    let small = ["num_envs=3", "num_steps=50", "num_minibatches=1", "num_epochs=1"];
    for (env, more) in [
        ("CartPole-v1", &["clip_eps=1e-6"][..]),
        ("Acrobot-v1", &["layer_norm=true", "clip_eps=1e-6"]),
        ("Pendulum-v1", &["normalize_obs=true", "clip_eps=1e-6"]),
        ("Pendulum-v1", &["squash=true", "trunk=[32]", "clip_eps=1e-6"]),
    ] {
        let mut ppo = ppo(env, &[&small, more].concat());
        for _ in 0..3 {
            let report = ppo.iterate().unwrap();
            // k3 is 0 only at ratio 1, and a ratio one unit off would be outside such a clip.
            assert_eq!(metric(&report, "train/approx_kl"), 0.0, "{env} {more:?}");
            assert_eq!(metric(&report, "train/clip_fraction"), 0.0, "{env} {more:?}");
        }
    }
}

#[test]
fn later_passes_move_the_ratio() {
    let mut ppo = ppo("CartPole-v1", &["num_epochs=2"]);
    assert!(metric(&ppo.iterate().unwrap(), "train/approx_kl") > 0.0);
}

#[test]
fn target_kl_stops_the_updates_early() {
    let settings = ["num_envs=4", "num_steps=64", "num_minibatches=4", "num_epochs=10"];
    let mut free = ppo("CartPole-v1", &settings);
    assert_eq!(metric(&free.iterate().unwrap(), "train/epochs"), 10.0);
    let mut held = ppo("CartPole-v1", &[&settings[..], &["target_kl=1e-4"]].concat());
    let report = held.iterate().unwrap();
    assert!(metric(&report, "train/epochs") < 10.0, "{report:?}");
}

#[test]
fn the_kl_penalty_adapts_its_coefficient() {
    let settings =
        ["objective=kl_penalty", "num_envs=4", "num_steps=64", "num_minibatches=4", "num_epochs=4"];
    // Hardly any step: β halves. A large one: β doubles.
    for (rate, target, beta) in [("1e-6", "0.01", 0.5), ("1e-2", "1e-5", 2.0)] {
        let (rate, target) = (format!("learning_rate={rate}"), format!("kl_target={target}"));
        let mut ppo = ppo("CartPole-v1", &[&settings[..], &[&rate, &target]].concat());
        assert_eq!(metric(&ppo.iterate().unwrap(), "train/kl_coef"), beta, "{rate}, {target}");
    }
}

#[test]
fn the_penalty_sees_the_last_step() {
    // One step per iteration: before it the KL is 0, after it much above the target.
    let settings = ["objective=kl_penalty", "num_epochs=1", "num_minibatches=1"];
    let mut ppo = ppo("CartPole-v1", &[&settings[..], &["learning_rate=0.05"]].concat());
    assert_eq!(metric(&ppo.iterate().unwrap(), "train/kl_coef"), 2.0);
}

#[test]
fn schedules_run_over_the_whole_run() {
    let mut config = RunConfig::new("ppo", "CartPole-v1", &[]).unwrap();
    config.run.total_steps = 4 * 256;
    let mut ppo = config.make(1).unwrap();
    // The preset's rate falls from 1e-3 to 0; iterations begin at 0, 1/4, 1/2 and 3/4.
    for share in [1.0, 0.75, 0.5, 0.25] {
        let rate = metric(&ppo.iterate().unwrap(), "train/learning_rate");
        assert!((rate - 1e-3 * share).abs() < 1e-12, "{rate}, {share}");
    }
}

#[test]
fn every_metric_is_explained() {
    for (env, settings) in
        [("CartPole-v1", &["objective=kl_penalty"][..]), ("Pendulum-v1", &["dual_clip=3.0"])]
    {
        for (name, value) in ppo(env, settings).iterate().unwrap().metrics {
            assert!(find_metric(name).is_some(), "{name} is not in the list of metrics");
            assert!(value.is_finite(), "{name} = {value}");
        }
    }
}
