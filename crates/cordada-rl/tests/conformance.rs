//! What every algorithm of the list promises, whatever it is: its entry is complete, its defaults
//! are valid, it trains in every environment whose actions it takes, and goes on after a restore.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod common;

use std::collections::BTreeSet;

use common::{bits, exact, make_in, restore, settings_for, state, table, through_file};
use cordada_env::ENVIRONMENTS;
use cordada_rl::algo::{ALGORITHMS, AlgoSpec};
use cordada_rl::policy::distribution_for;
use cordada_rl::policy_file::PolicyRunner;
use cordada_rl::presets::{PRESETS, preset};
use cordada_rl::train::{RunConfig, RunSettings};
use toml::Table;

/// Settings that make two iterations quick, of those that an algorithm has.
const QUICK: &str = "num_envs = 2\nnum_steps = 16\nnum_minibatches = 2\nnum_epochs = 2\n\
                     actor = [8]\ncritic = [8]\nhidden = [8]\nlearning_starts = 20\n\
                     batch_size = 16\nbuffer_size = 500\nsteps_per_iteration = 64\n\
                     train_freq = 2\ntarget_interval = 8\nworkers = 2\nenvs_per_worker = 1\n\
                     max_episode_steps = 200\nmode = \"round_robin\"\n\
                     initial_value = 1.0\n";

#[test]
fn entries_are_complete() {
    let mut names = BTreeSet::new();
    for algo in ALGORITHMS {
        let name = algo.name;
        assert!(names.insert(name), "two algorithms are called {name}");
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        assert!(!name.is_empty() && name.chars().all(plain), "{name}");
        assert!(!algo.title.is_empty() && !algo.accepts.is_empty(), "{name}");
        let year = |word: &str| word.len() == 4 && word.chars().all(|c| c.is_ascii_digit());
        let words = || algo.paper.split(|c: char| !c.is_alphanumeric());
        assert!(words().any(year), "{name}: the paper has a year: {}", algo.paper);
        assert!(algo.paper.contains("arXiv:") || algo.paper.contains("doi:"), "{}", algo.paper);
    }
}

#[test]
fn names_are_found_as_people_write_them() {
    for name in ["double_dqn", "Double-DQN", "DOUBLE_DQN"] {
        assert_eq!(cordada_rl::algo::find(name).unwrap().name, "double_dqn");
    }
    let error = cordada_rl::algo::find("dubble-dqn").unwrap_err().to_string();
    assert!(error.contains("did you mean \"double_dqn\"?"), "{error}");
}

#[test]
fn settings_are_documented_and_their_names_unique() {
    let lists = ALGORITHMS.iter().map(|algo| (algo.name, algo.fields));
    for (section, fields) in lists.chain([("run", RunSettings::FIELDS)]) {
        let mut names = BTreeSet::new();
        for field in fields {
            let name = field.name;
            for name in field.aliases.iter().chain([&name]) {
                assert!(names.insert(*name), "two settings of {section} are called {name}");
            }
            let doc = field.doc.trim();
            assert!(doc.len() >= 8 && doc.ends_with('.'), "{section}.{name}: {doc:?}");
            assert!(!field.kind.is_empty(), "{section}.{name}");
        }
    }
}

#[test]
fn defaults_are_valid_and_survive_toml() {
    for algo in ALGORITHMS {
        let defaults = (algo.complete)(&Table::new()).unwrap();
        let known = |key: &String| algo.fields.iter().any(|field| field.name == key);
        assert!(defaults.keys().all(known), "{}", algo.name);
        for field in algo.fields {
            assert!(defaults.contains_key(field.name), "{}.{}", algo.name, field.name);
        }
        let back = table(&toml::to_string(&defaults).unwrap());
        assert_eq!((algo.complete)(&back).unwrap(), defaults, "{}", algo.name);
    }
}

#[test]
fn every_alias_sets_what_it_names() {
    for algo in ALGORITHMS {
        let defaults = (algo.complete)(&Table::new()).unwrap();
        for field in algo.fields {
            let Some(value) = defaults.get(field.name) else { continue };
            for alias in field.aliases {
                let given = Table::from_iter([((*alias).to_string(), value.clone())]);
                assert_eq!((algo.complete)(&given).unwrap(), defaults, "{alias}");
            }
        }
    }
}

#[test]
fn a_run_of_every_pair_has_a_config_that_survives_toml() {
    for (algo, env) in pairs() {
        let config = RunConfig::new(algo.name, env, &[]).unwrap();
        assert_eq!(RunConfig::from_toml(&config.to_toml()).unwrap(), config, "{}/{env}", algo.name);
        let loaded = preset(algo.name, env).unwrap();
        let exists = PRESETS.iter().any(|p| p.algo == algo.name && p.env == env);
        assert_eq!(loaded.total_steps.is_some(), exists, "{}/{env}", algo.name);
        assert_eq!((algo.complete)(&loaded.settings).unwrap(), config.settings, "{env}");
        let steps = loaded.total_steps.unwrap_or(RunSettings::default().total_steps);
        assert_eq!(config.run.total_steps, steps, "{}/{env}", algo.name);
    }
}

/// Every algorithm with every environment that it can act in.
fn pairs() -> impl Iterator<Item = (&'static AlgoSpec, &'static str)> {
    let takes = |algo: &'static AlgoSpec| {
        let fits = move |env: &&&cordada_env::EnvSpec| algo.fits(&*env.build());
        ENVIRONMENTS.iter().filter(fits).map(move |env| (algo, env.name))
    };
    ALGORITHMS.iter().copied().flat_map(takes)
}

#[test]
fn every_algorithm_trains_saves_and_restores_everywhere() {
    let folder = tempfile::tempdir().unwrap();
    for (algo, env) in pairs() {
        let what = format!("{} in {env}", algo.name);
        let spec = cordada_env::find(env).unwrap();
        let make = || {
            let settings = settings_for(algo, table(QUICK));
            make_in(algo, &|| spec.build(), &settings, (4, 1)).unwrap()
        };
        let mut learner = make();
        assert_eq!((learner.steps(), learner.iterations()), (0, 0), "{what}");
        let before = learner.policy();
        assert_eq!(before.algo, algo.name);
        for iteration in 1..=2 {
            let report = learner.iterate().unwrap();
            assert_eq!(learner.iterations(), iteration, "{what}");
            assert!(report.metrics.iter().all(|(_, x)| x.is_finite()), "{what}: {report:?}");
            for (name, _) in &report.metrics {
                assert!(cordada_log::find_metric(name).is_some(), "{name} is not in METRICS");
            }
        }
        assert!(learner.steps() > 0, "{what}");
        let policy = learner.policy();
        assert_ne!(policy.theta, before.theta, "{what}: nothing was learned");

        let mut restored = make();
        restore(&mut *restored, &through_file(&policy, folder.path()), &state(&*learner));
        let (a, b) = (learner.iterate().unwrap(), restored.iterate().unwrap());
        assert_eq!(exact(&a), exact(&b), "{what}");
        assert_eq!(bits(&learner.policy().theta), bits(&restored.policy().theta), "{what}");
        assert_eq!(state(&*learner), state(&*restored), "{what}");

        // The policy file alone acts, within the space.
        let mut env = spec.build();
        let mut stream = cordada_env::Stream::new(1, cordada_env::role::EVAL_ENV, 0);
        let mut obs = vec![0.0; env.obs_space().len()];
        env.reset(&mut stream, &mut obs);
        let mut mask = vec![true; env.action_space().num_choices()];
        let masked = env.action_mask(&mut mask);
        let mut action = vec![f32::NAN; env.action_space().len()];
        let mask = masked.then_some(&mask[..]);
        PolicyRunner::new(&policy).act(&obs, mask, &mut [], None, &mut action);
        env.action_space().contains(&action).unwrap();
    }
}

#[test]
fn threads_change_no_bit() {
    for (algo, env) in pairs().filter(|(_, env)| ["CartPole-v1", "Pendulum-v1"].contains(env)) {
        let spec = cordada_env::find(env).unwrap();
        let after = |threads| {
            let settings = settings_for(algo, table(QUICK));
            let mut learner = make_in(algo, &|| spec.build(), &settings, (4, threads)).unwrap();
            let reports: Vec<_> = (0..3).map(|_| exact(&learner.iterate().unwrap())).collect();
            (reports, bits(&learner.policy().theta), state(&*learner))
        };
        let one = after(1);
        for threads in [2, 3] {
            assert!(after(threads) == one, "{} in {env} with {threads} threads", algo.name);
        }
    }
}

#[test]
fn what_takes_no_dict_says_so() {
    let dict = cordada_env::Space::Dict(Vec::new());
    assert!(distribution_for(&dict, false).is_none());
    assert!(ALGORITHMS.iter().all(|algo| !(algo.takes)(&dict)));
}

#[test]
fn the_table_in_the_documentation_is_that_of_the_list() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../ALGORITHMS.md");
    let document = std::fs::read_to_string(path).unwrap();
    let table = cordada_rl::algo::markdown();
    assert!(
        document.contains(&table),
        "ALGORITHMS.md is not up to date: put this in place of its table\n\n{table}"
    );
}
