//! House rules: documents name paths that exist, and every source file says what it is for.

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Words in backticks that look like a path of this repository.
fn paths_in(text: &str) -> Vec<&str> {
    text.split('`')
        .skip(1)
        .step_by(2)
        .filter(|word| {
            let in_tree = ["crates/", "golden/", ".ci/", "presets/"];
            in_tree.iter().any(|top| word.starts_with(top)) && !word.contains(['<', ' ', '*'])
        })
        .collect()
}

#[test]
fn documents_name_paths_that_exist() {
    let mut checked = 0;
    for document in ["ARCHITECTURE.md", "CONTRIBUTING.md", "README.md", "BENCHMARKS.md"] {
        let text = fs::read_to_string(root().join(document)).unwrap();
        for path in paths_in(&text) {
            assert!(root().join(path).exists(), "{document} names {path}, which does not exist");
            checked += 1;
        }
    }
    assert!(checked > 30, "only {checked} paths were found: is the search broken?");
}

#[test]
fn the_search_for_paths_finds_them() {
    let text = "see `crates/x/src/lib.rs` and `cargo test`, not `crates/<name>` nor golden/y";
    assert_eq!(paths_in(text), ["crates/x/src/lib.rs"]);
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn every_source_file_says_what_it_is_for() {
    let mut found = Vec::new();
    sources(&root().join("crates"), &mut found);
    assert!(found.len() > 80, "only {} files were found", found.len());
    for path in found {
        let text = fs::read_to_string(&path).unwrap();
        let says = text.lines().any(|line| line.starts_with("//! "));
        assert!(says, "{} has no //! line", path.display());
    }
}

#[test]
fn only_kernels_and_listed_tests_use_unsafe() {
    let mut found = Vec::new();
    sources(&root().join("crates"), &mut found);
    for path in found {
        let inside = path.to_string_lossy().contains("cordada-nn/src/kernel")
            || path.to_string_lossy().contains("/tests/");
        let text = fs::read_to_string(&path).unwrap();
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        let uses = code.into_iter().any(|line| line.contains(concat!("unsafe", " {")));
        assert!(inside || !uses, "{} uses unsafe", path.display());
    }
}
