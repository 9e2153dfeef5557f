//! The processor's limit, which shares of peak refer to.

use std::hint::black_box;
use std::time::Instant;

use cordada::nn::kernel::{CHAINS, Isa, LANES, multiply_add_chains};

/// Length of one measurement. Unit: seconds.
const LENGTH: f64 = 0.02;
/// The best of this many counts: a disturbed one is too low, none is too high.
const REPEATS: usize = 10;

/// Multiply-adds that one thread can do, counted as two operations each. Unit: 10⁹ per second.
pub(super) fn peak_gflops() -> f64 {
    let isa = Isa::detect();
    let time = |steps: usize| {
        let began = Instant::now();
        black_box(multiply_add_chains::<f32>(isa, black_box(steps)));
        began.elapsed().as_secs_f64()
    };
    let mut steps = 10_000;
    while time(steps) < LENGTH / 2.0 {
        steps *= 2;
    }
    let best = (0..REPEATS).map(|_| time(steps)).fold(f64::INFINITY, f64::min);
    (2 * CHAINS * LANES * steps) as f64 / best / 1e9
}
