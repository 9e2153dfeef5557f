//! Start-up: how long until a first iteration is trained, and how much memory that takes.

use std::process::{Command, Stdio};
use std::time::Instant;

use serde::Serialize;

use crate::args::BenchArgs;
use crate::output::Output;
use crate::report::Failure;

/// The best and the middle of this many starts.
const REPEATS: usize = 20;
/// Steps of one iteration of the preset for CartPole.
const STEPS: &str = "256";

#[derive(Serialize)]
struct Measured {
    bench: &'static str,
    /// From starting the process to the end of `--version`: loading the program. Unit: ms.
    load_ms: f64,
    /// From starting the process to its end, with one iteration, a checkpoint and its files. Unit:
    /// ms.
    best_ms: f64,
    median_ms: f64,
    /// Peak resident memory of this process, which has trained the same. Unit: MiB.
    peak_mib: Option<f64>,
}

pub(super) fn run(_args: &BenchArgs, output: Output) -> Result<(), Failure> {
    let folder = std::env::temp_dir().join(format!("cordada-start-{}", std::process::id()));
    let measured = measure(&folder);
    let _ = std::fs::remove_dir_all(&folder);
    let m = measured.map_err(|e| {
        Failure::failed(format!("cannot start this program: {e}"), "is it still where it was?")
    })?;
    if output.json {
        output.object(&m);
        return Ok(());
    }
    output.line(format!("load    {:.1} ms: the program alone, best of {REPEATS}", m.load_ms));
    output.line(format!(
        "train   {:.1} ms: one iteration with its run directory and checkpoint (median {:.1})",
        m.best_ms, m.median_ms
    ));
    if let Some(peak) = m.peak_mib {
        output.line(format!("memory  {peak:.1} MiB at most"));
    }
    Ok(())
}

fn measure(folder: &std::path::Path) -> std::io::Result<Measured> {
    let program = std::env::current_exe()?;
    let time = |args: &[&str]| -> std::io::Result<f64> {
        let began = Instant::now();
        let status = Command::new(&program)
            .args(args)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()?;
        let elapsed = began.elapsed().as_secs_f64() * 1e3;
        if status.success() { Ok(elapsed) } else { Err(std::io::Error::other("it failed")) }
    };
    let (mut load, mut train) = (f64::INFINITY, Vec::new());
    for i in 0..REPEATS {
        load = load.min(time(&["--version"])?);
        let out = folder.join(i.to_string()).display().to_string();
        let args = ["train", "ppo", "CartPole-v1", "--steps", STEPS, "--quiet", "--out", &out];
        let args = [&args[..], &["--set", "eval_episodes=0"]].concat();
        train.push(time(&args)?);
    }
    train.sort_by(f64::total_cmp);
    let (best_ms, median_ms) = (train[0], train[REPEATS / 2]);
    Ok(Measured { bench: "start", load_ms: load, best_ms, median_ms, peak_mib: peak_mib() })
}

/// Peak resident memory after training one iteration in this process.
fn peak_mib() -> Option<f64> {
    let config = cordada::rl::train::RunConfig::new("ppo", "CartPole-v1", &[]).ok()?;
    config.make(1).ok()?.iterate().ok()?;
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024.0)
}
