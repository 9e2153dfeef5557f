//! Start-up: how long until a first iteration is trained, and how much memory that takes.

use std::io::{BufRead, BufReader};
use std::path::Path;
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
    /// From the start of the process to the end of `--version`: loading the program. Unit: ms.
    load_ms: f64,
    /// From the start of the process to the metrics of the first iteration. Unit: ms.
    first_iteration_ms: f64,
    first_iteration_median_ms: f64,
    /// From the start of the process to its end, with a checkpoint synced to the disk. Unit: ms.
    whole_ms: f64,
    whole_median_ms: f64,
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
    let rows = [
        ("load the program", m.load_ms, None),
        ("first iteration", m.first_iteration_ms, Some(m.first_iteration_median_ms)),
        ("with checkpoint", m.whole_ms, Some(m.whole_median_ms)),
    ];
    let rows = rows.map(|(what, best, median)| {
        let median = median.map_or("-".to_string(), |x| format!("{x:.1}"));
        vec![what.to_string(), format!("{best:.1}"), median]
    });
    output.table(&["from start to", "best ms", "median ms"], &rows);
    if let Some(peak) = m.peak_mib {
        output.line(format!("peak memory {peak:.1} MiB"));
    }
    Ok(())
}

fn measure(folder: &Path) -> std::io::Result<Measured> {
    let program = std::env::current_exe()?;
    let (mut load, mut first, mut whole) = (f64::INFINITY, Vec::new(), Vec::new());
    for i in 0..REPEATS {
        let began = Instant::now();
        Command::new(&program).arg("--version").stdout(Stdio::null()).status()?;
        load = load.min(milliseconds(began));
        let out = folder.join(i.to_string());
        let began = Instant::now();
        let mut child = Command::new(&program)
            .args(["train", "ppo", "CartPole-v1", "--steps", STEPS, "--json"])
            .args(["--set", "eval_episodes=0", "--out"])
            .arg(&out)
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.take().ok_or_else(|| std::io::Error::other("no output"))?;
        let mut lines = BufReader::new(stdout).lines();
        while let Some(line) = lines.next().transpose()? {
            if line.starts_with("{\"event\":\"metrics\"") {
                first.push(milliseconds(began));
            }
        }
        if !child.wait()?.success() {
            return Err(std::io::Error::other("training failed"));
        }
        whole.push(milliseconds(began));
    }
    first.sort_by(f64::total_cmp);
    whole.sort_by(f64::total_cmp);
    Ok(Measured {
        bench: "start",
        load_ms: load,
        first_iteration_ms: first[0],
        first_iteration_median_ms: first[first.len() / 2],
        whole_ms: whole[0],
        whole_median_ms: whole[whole.len() / 2],
        peak_mib: peak_mib(),
    })
}

fn milliseconds(began: Instant) -> f64 {
    began.elapsed().as_secs_f64() * 1e3
}

/// Peak resident memory after training one iteration in this process.
fn peak_mib() -> Option<f64> {
    let config = cordada::rl::train::RunConfig::new("ppo", "CartPole-v1", &[]).ok()?;
    config.make(1).ok()?.iterate().ok()?;
    resident_mib("VmHWM")
}

/// Resident memory of this process: `VmRSS`, or the most so far, `VmHWM`. `None` where the system
/// has no such file. Unit: MiB.
pub(super) fn resident_mib(field: &str) -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024.0)
}
