//! The help texts, as a user of an 80-column or wider terminal sees them.

mod common;

use common::cordada;

#[test]
fn help_of_the_program() {
    let folder = tempfile::tempdir().unwrap();
    insta::assert_snapshot!(cordada(folder.path(), &["--help"]).ok().stdout);
}

#[test]
fn help_of_train() {
    let folder = tempfile::tempdir().unwrap();
    insta::assert_snapshot!(cordada(folder.path(), &["train", "--help"]).ok().stdout);
}

#[test]
fn completions_know_commands_and_names() {
    let folder = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = cordada(folder.path(), &["completions", shell]).ok().stdout;
        assert!(script.contains("resume"), "{shell}");
    }
    let bash = cordada(folder.path(), &["completions", "bash"]).ok().stdout;
    assert!(bash.contains("MountainCarContinuous-v0"), "environments are completed");
}
