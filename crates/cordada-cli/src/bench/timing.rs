//! Times of short work, and their table: what the benches of networks and of the replay memory
//! share.

use std::time::Instant;

use cordada::nn::kernel::Isa;
use serde::Serialize;

use crate::output::Output;

/// Time for each measurement. Unit: seconds.
const LENGTH: f64 = 0.5;
/// Repetitions at least.
const REPEATS: usize = 20;

/// Best and median time of some work. Unit: seconds.
pub(super) fn time(work: impl FnMut()) -> (f64, f64) {
    time_at_least(REPEATS, work)
}

/// The same of longer work, with fewer repetitions and one before them that does not count.
pub(super) fn time_at_least(repeats: usize, mut work: impl FnMut()) -> (f64, f64) {
    work();
    let (began, mut times) = (Instant::now(), Vec::new());
    while times.len() < repeats || began.elapsed().as_secs_f64() < LENGTH {
        let began = Instant::now();
        work();
        times.push(began.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    (times[0], times[times.len() / 2])
}

/// A pass through a network.
#[derive(Serialize)]
pub(super) struct Pass {
    bench: &'static str,
    #[serde(rename = "pass")]
    what: &'static str,
    best_ms: f64,
    median_ms: f64,
    /// Of the products alone, at the best time.
    gflops: f64,
    peak_gflops: f64,
    share_of_peak: f64,
}

impl Pass {
    /// From its times and the floating-point operations of its products.
    pub(super) fn new(
        bench: &'static str,
        pass: &'static str,
        (best, median): (f64, f64),
        flops: usize,
        peak: f64,
    ) -> Self {
        let gflops = flops as f64 / best / 1e9;
        Self {
            bench,
            what: pass,
            best_ms: best * 1e3,
            median_ms: median * 1e3,
            gflops,
            peak_gflops: peak,
            share_of_peak: gflops / peak,
        }
    }

    fn row(&self) -> Vec<String> {
        vec![
            self.what.to_string(),
            format!("{:.3}", self.best_ms),
            format!("{:.3}", self.median_ms),
            format!("{:.1}", self.gflops),
            format!("{:.0} %", 100.0 * self.share_of_peak),
        ]
    }
}

/// Prints passes.
pub(super) fn print(passes: &[Pass], output: Output) {
    if output.json {
        for pass in passes {
            output.object(pass);
        }
        return;
    }
    let rows: Vec<_> = passes.iter().map(Pass::row).collect();
    output.table(&["pass", "best ms", "median ms", "GFLOP/s", "of peak"], &rows);
    if let Some(pass) = passes.first() {
        let (peak, isa) = (pass.peak_gflops, Isa::detect().name());
        output.note(format!("peak: {peak:.1} GFLOP/s on one thread, {isa}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_has_its_share_of_the_peak() {
        // 3·10⁹ operations in 20 ms are 150 GFLOP/s, three quarters of 200.
        let pass = Pass::new("x", "train", (0.02, 0.025), 3_000_000_000, 200.0);
        assert_eq!(pass.row(), ["train", "20.000", "25.000", "150.0", "75 %"]);
    }

    #[test]
    fn the_best_time_is_no_longer_than_the_median() {
        let mut count = 0_u32;
        let (best, median) = time(|| count += 1);
        assert!(count as usize > REPEATS && best <= median);
    }
}
