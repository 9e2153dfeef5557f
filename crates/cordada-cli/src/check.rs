//! `cordada env`: the contract of an environment, and its behavior against recordings.

use std::path::PathBuf;

use cordada::env::{CheckOptions, ReplayReport};
use serde::Serialize;

use crate::output::{Output, grouped};
use crate::report::Failure;

pub(crate) fn check(name: &str, output: Output) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct Checked<'a> {
        env: &'a str,
        passed: bool,
        findings: &'a [cordada::env::check::Finding],
    }
    let spec = cordada::env::find(name)?;
    let options =
        CheckOptions { max_episode_steps: spec.max_episode_steps, ..CheckOptions::default() };
    let report = cordada::env::check(|| spec.build(), &options);
    let passed = report.passed();
    if output.json {
        output.object(&Checked { env: spec.name, passed, findings: &report.findings });
    } else {
        let rows: Vec<Vec<String>> = report
            .findings
            .iter()
            .map(|f| {
                let verdict = if f.passed { "ok" } else { "FAILED" };
                vec![f.check.to_string(), verdict.to_string(), f.detail.clone()]
            })
            .collect();
        output.table(&["check", "result", "detail"], &rows);
    }
    if passed { Ok(()) } else { Err(Failure::told()) }
}

pub(crate) fn replay(files: &[PathBuf], output: Output) -> Result<(), Failure> {
    let (mut reports, mut failures) = (Vec::new(), Vec::new());
    for file in files {
        match cordada::env::replay(file) {
            Ok(report) if output.json => output.object(&report),
            Ok(report) => reports.push(report),
            Err(error) => failures.push(error),
        }
    }
    if !reports.is_empty() {
        let head =
            ["environment", "steps", "state", "obs", "obs (ulp)", "reward", "ends that differ"];
        output.table(&head, &reports.iter().map(row).collect::<Vec<_>>());
        output.note("state, obs, reward: largest absolute difference from the recording");
    }
    let failed = failures.len();
    let Some(last) = failures.pop() else {
        return Ok(());
    };
    for error in failures {
        Failure::from(error).report(output);
    }
    let replayed = files.len() - failed;
    Err(Failure::from(last).into_failed(format!(
        "{replayed} of {} files were replayed; a recording is a safetensors file with metadata",
        files.len()
    )))
}

fn row(report: &ReplayReport) -> Vec<String> {
    let number = |x: f64| if x == 0.0 { "0".to_string() } else { format!("{x:.1e}") };
    vec![
        report.env.clone(),
        grouped(report.steps as u64),
        number(report.max_diff_state),
        number(report.max_diff_obs),
        report.max_ulp_obs.to_string(),
        number(report.max_diff_reward),
        report.flag_mismatches.to_string(),
    ]
}
