//! Every registered environment keeps the contract, and every environment is registered.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::collections::BTreeSet;
use std::path::Path;

use cordada_env::{CheckOptions, ENVIRONMENTS, check};

#[test]
fn entries_are_complete_and_names_unique() {
    let mut names = BTreeSet::new();
    for spec in ENVIRONMENTS {
        for name in std::iter::once(&spec.name).chain(spec.aliases) {
            assert!(names.insert(name.to_lowercase()), "{name} is listed twice");
        }
        assert!(spec.source.len() > 5, "{} has no source", spec.name);
        assert!(spec.summary.len() > 10, "{} has no summary", spec.name);
        assert!(spec.max_episode_steps != Some(0), "{} has no time", spec.name);
    }
    assert!(names.len() >= 5);
}

#[test]
fn every_environment_passes_the_checker() {
    for spec in ENVIRONMENTS {
        for seed in 0..3 {
            let max_episode_steps = spec.max_episode_steps;
            let options = CheckOptions { seed, max_episode_steps, ..CheckOptions::default() };
            let report = check(|| spec.build(), &options);
            assert!(report.passed(), "{}, seed {seed}:\n{report}", spec.name);
        }
    }
}

/// The files below `folder` that define a `SPEC`.
fn specs_in(folder: &Path, found: &mut usize) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            specs_in(&path, found);
        } else {
            let text = std::fs::read_to_string(&path).unwrap();
            *found += text.matches("pub const SPEC: EnvSpec").count();
        }
    }
}

#[test]
fn every_spec_is_in_the_list() {
    let mut found = 0;
    specs_in(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    assert_eq!(found, ENVIRONMENTS.len(), "a SPEC is missing from ENVIRONMENTS");
}
