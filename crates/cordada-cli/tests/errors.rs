//! Every error that a user can cause: what it says, that it names the remedy, and its exit code.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

use common::{checkpoints, command, cordada, folder_with_run, forget_the_end};

/// Runs the program, asserts the exit code and that stdout is empty, and returns stderr.
fn refused(folder: &std::path::Path, args: &[&str], code: i32) -> String {
    let said = cordada(folder, args);
    assert_eq!(said.code, Some(code), "{}", said.stderr);
    assert_eq!(said.stdout, "");
    assert!(!said.stderr.contains("panicked"), "{}", said.stderr);
    said.stderr
}

#[test]
fn unknown_names_are_wrong_usage_and_get_the_nearest() {
    let folder = tempfile::tempdir().unwrap();
    let train = |args: &[&str]| refused(folder.path(), &[&["train"], args].concat(), 2);
    assert_eq!(
        train(&["ppoo", "CartPole-v1"]),
        "error: unknown algorithm \"ppoo\"\n\
         help: did you mean \"ppo\"? `cordada list algos` shows all\n"
    );
    assert_eq!(
        train(&["ppo", "CartPole-v9"]),
        "error: unknown environment \"CartPole-v9\"\n\
         help: did you mean \"CartPole-v1\"? `cordada list envs` shows all\n"
    );
    assert_eq!(
        train(&["ppo", "CartPole-v1", "--set", "gama=0.9"]),
        "error: unknown setting \"gama\" of ppo\n\
         help: did you mean \"gamma\"? `cordada list settings ppo` shows all\n"
    );
    assert_eq!(
        train(&["ppo", "CartPole-v1", "--set", "run.sede=3"]),
        "error: unknown setting \"sede\" of run\n\
         help: did you mean \"seed\"? `cordada list settings run` shows all\n"
    );
    assert_eq!(
        train(&["ppo", "CartPole-v1", "--set", "gamma=1.5"]),
        "error: ppo.gamma = 1.5: a number from 0 to 1\n\
         help: `cordada list settings ppo` says what each setting takes\n"
    );
    let leftovers: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
    assert!(leftovers.is_empty(), "a refused run leaves {leftovers:?}");
}

#[test]
fn wrong_usage_ends_with_two() {
    let folder = tempfile::tempdir().unwrap();
    for args in [
        &["--colour"][..],
        &["trian"],
        &["train"],
        &["train", "ppo", "CartPole-v1", "--steps", "many"],
        &["train", "ppo", "CartPole-v1", "--set", "gamma"],
        &["train", "ppo", "CartPole-v1", "--seed", "18446744073709551615"],
        &["train", "--config", "nowhere.toml"],
        &["eval", "run", "--episodes", "0"],
        &["bench", "nothing"],
        &["list", "settings", "pppo"],
        &["env", "check", "Nowhere-v0"],
    ] {
        refused(folder.path(), args, 2);
    }
}

#[test]
fn aliases_and_sections_of_settings_are_taken() {
    let folder = tempfile::tempdir().unwrap();
    let changes = ["--set", "ppo.lr=1e-4", "--set", "run.steps=256", "--set", "n_epochs=1"];
    let args = ["train", "ppo", "cartpole", "--quiet", "--out", "run", "--set", "eval_episodes=1"];
    cordada(folder.path(), &[&args[..], &changes].concat()).ok();
    let config = fs::read_to_string(folder.path().join("run/config.toml")).unwrap();
    for line in
        ["learning_rate = 0.0001", "total_steps = 256", "num_epochs = 1", "env = \"CartPole-v1\""]
    {
        assert!(config.lines().any(|have| have == line), "{line} in {config}");
    }
}

#[test]
fn a_config_file_is_marked_where_it_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let report = |text: &str| {
        fs::write(folder.path().join("c.toml"), text).unwrap();
        refused(folder.path(), &["train", "--config", "c.toml"], 2)
    };
    let start = "[run]\nalgo = \"ppo\"\nenv = \"CartPole-v1\"\n\n";
    insta::assert_snapshot!("unknown_key", report(&format!("{start}[ppo]\ngama = 0.9\n")));
    insta::assert_snapshot!("bad_value", report(&format!("{start}[ppo]\nn_envs = 0\n")));
    insta::assert_snapshot!("bad_syntax", report(&format!("{start}[ppo]\ngamma = = 0.9\n")));
    insta::assert_snapshot!("bad_env", report("[run]\nenv = \"CartPoll-v1\"\n"));
}

#[test]
fn a_config_and_arguments_have_to_agree() {
    let folder = folder_with_run();
    let config = ["train", "ppo", "Pendulum-v1", "--config", "run/config.toml"];
    assert_eq!(
        refused(folder.path(), &config, 2),
        "error: the environment is Pendulum-v1 on the command line, but CartPole-v1 in \
         run/config.toml\n\
         help: leave out ALGO and ENV to use those of run/config.toml, or leave out --config\n"
    );
    // Flags override the file.
    let flags = ["--steps", "256", "--seed", "7", "--set", "num_epochs=2", "--out", "two", "-q"];
    let args = [&["train", "--config", "run/config.toml"][..], &flags].concat();
    cordada(folder.path(), &args).ok();
    let config = fs::read_to_string(folder.path().join("two/config.toml")).unwrap();
    for line in ["total_steps = 256", "seed = 7", "num_epochs = 2", "eval_episodes = 3"] {
        assert!(config.lines().any(|have| have == line), "{line} in {config}");
    }
}

#[test]
fn an_existing_or_missing_run_is_told() {
    let folder = folder_with_run();
    let train = ["train", "ppo", "CartPole-v1", "--out", "run"];
    assert_eq!(
        refused(folder.path(), &train, 1),
        "error: run already holds a run\n\
         help: choose another folder with --out, or continue that run with `cordada resume run`\n"
    );
    for command in ["resume", "eval"] {
        assert_eq!(
            refused(folder.path(), &[command, "nowhere"], 1),
            "error: there is no run directory nowhere\n\
             help: `cordada train` makes one, by default in the folder runs\n"
        );
    }
    fs::create_dir(folder.path().join("other")).unwrap();
    assert_eq!(
        refused(folder.path(), &["resume", "other"], 1),
        "error: other is not a run directory: it has no config.toml\n\
         help: name a folder that `cordada train` made\n"
    );
}

#[test]
fn a_finished_run_says_so() {
    let folder = folder_with_run();
    let before = fs::read(folder.path().join("run/metrics.jsonl")).unwrap();
    let said = cordada(folder.path(), &["resume", "run"]).ok();
    assert_eq!(
        said.stderr,
        "run is done: 1024 of 1024 steps.\n\
         To train longer, start a new run with its settings and more steps:\n  \
         cordada train --config run/config.toml --steps 2048\n"
    );
    assert_eq!(fs::read(folder.path().join("run/metrics.jsonl")).unwrap(), before);
    let done = cordada(folder.path(), &["resume", "run", "--json"]).ok().json();
    assert_eq!(
        (done.len(), &done[0]["event"], &done[0]["steps"]),
        (1, &"done".into(), &1024.into())
    );
}

#[test]
fn a_corrupted_config_is_refused_with_its_place() {
    let folder = folder_with_run();
    let path = folder.path().join("run/config.toml");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("gamma = 0.98", "gamma = 0.9.8")).unwrap();
    let stderr = refused(folder.path(), &["resume", "run"], 1);
    assert!(stderr.contains("not valid TOML") && stderr.contains("gamma = 0.9.8"), "{stderr}");
    assert!(stderr.contains("[run/config.toml:") && stderr.contains("help: put back"), "{stderr}");
}

#[test]
fn a_damaged_checkpoint_gives_way_to_the_older_one() {
    let folder = folder_with_run();
    let run = folder.path().join("run");
    forget_the_end(&run);
    let newest = checkpoints(&run)[0].join("policy.safetensors");
    let mut bytes = fs::read(&newest).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&newest, bytes).unwrap();
    for args in [&["eval", "run"][..], &["resume", "run"]] {
        let said = cordada(folder.path(), args).ok();
        let warning = said.stderr.lines().find(|line| line.starts_with("warning: ")).unwrap();
        assert!(warning.contains("step-000000001024"), "{warning}");
        assert!(warning.contains("policy.safetensors is not what was written"), "{warning}");
    }
    // The resumed run has made the damaged one anew.
    assert_eq!(cordada(folder.path(), &["eval", "run"]).ok().stderr, "");
}

#[test]
fn without_a_whole_checkpoint_nothing_goes_on() {
    let folder = folder_with_run();
    let run = folder.path().join("run");
    forget_the_end(&run);
    for checkpoint in checkpoints(&run) {
        fs::write(checkpoint.join("state.bin"), "torn").unwrap();
    }
    let stderr = refused(folder.path(), &["resume", "run"], 1);
    assert!(stderr.contains("damaged checkpoint: state.bin is not what was written"), "{stderr}");
    assert!(stderr.contains("cordada train --config run/config.toml"), "{stderr}");
    // A run that was killed before its first checkpoint begins anew.
    fs::remove_dir_all(run.join("checkpoints")).unwrap();
    fs::create_dir(run.join("checkpoints")).unwrap();
    let stderr = refused(folder.path(), &["eval", "run"], 1);
    assert!(stderr.contains("no checkpoint yet") && stderr.contains("help: "), "{stderr}");
    let said = cordada(folder.path(), &["resume", "run"]).ok();
    assert!(said.stderr.contains("warning: there is no checkpoint yet"), "{}", said.stderr);
    assert!(said.stdout.starts_with("return  "), "{}", said.stdout);
}

#[test]
fn a_reader_that_goes_away_is_no_panic() {
    let folder = tempfile::tempdir().unwrap();
    let args = ["train", "ppo", "CartPole-v1", "--steps", "1M", "--json", "--out", "run"];
    let mut child = command(folder.path(), &args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    // Dropping the reader closes the pipe, as `head -1` does.
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("{\"event\":\"start\""), "{line}");
    assert_eq!(child.wait().unwrap().code(), Some(1));
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert!(stderr.contains("help: go on with `cordada resume run`"), "{stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
    assert_eq!(checkpoints(&folder.path().join("run")).len(), 1, "it wrote a checkpoint");
}

#[test]
fn a_recording_that_cannot_be_replayed_fails() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("x.safetensors"), "nothing").unwrap();
    let stderr = refused(folder.path(), &["env", "replay", "x.safetensors"], 1);
    assert!(stderr.starts_with("error: the recording x.safetensors is not a safetensors file"));
    let stderr = refused(folder.path(), &["env", "replay", "nowhere"], 1);
    assert!(stderr.starts_with("error: cannot read the recording nowhere"), "{stderr}");
}

#[cfg(unix)]
#[test]
fn an_interrupt_writes_a_checkpoint_and_says_how_to_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let args = ["train", "ppo", "CartPole-v1", "--steps", "1M", "--json", "--out", "run"];
    let mut child = command(folder.path(), &args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    // With the first metrics the handler is in place.
    lines.find(|line| line.as_ref().unwrap().contains("\"metrics\"")).unwrap().unwrap();
    let pid = child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let last = lines.last().unwrap().unwrap();
    assert!(last.starts_with("{\"event\":\"checkpoint\""), "{last}");
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert!(stderr.contains("\n  cordada resume run\n"), "{stderr}");
}
