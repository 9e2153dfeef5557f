//! The processor's limit: how many multiply-adds a second fit through its vector units.

#![allow(clippy::needless_range_loop, reason = "indexed loops of fixed length unroll")]

use super::{LANES, kernel};
use crate::Real;

/// Independent chains of vector multiply-adds: enough to hide the latency of two units.
pub const CHAINS: usize = 24;

kernel! {
    /// Runs `steps` rounds of `CHAINS · LANES` multiply-adds (2 operations each) that touch no
    /// memory, and returns a number that depends on all of them. Timing it gives the peak that
    /// benchmarks quote their share of.
    #[inline(never)]
    pub fn multiply_add_chains<T: Real>(steps: usize) -> T {
        // Three short loops, because the compiler unrolls those whole and keeps them in registers.
        let mut acc = [[[T::ONE; LANES]; 4]; CHAINS / 4];
        let (x, y) = (T::of(0.999), T::of(0.001));
        for _ in 0..steps {
            for i in 0..CHAINS / 4 {
                for j in 0..4 {
                    for l in 0..LANES {
                        acc[i][j][l] = acc[i][j][l].mul_add(x, y);
                    }
                }
            }
        }
        acc.into_iter().flatten().flatten().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Isa;

    #[test]
    fn every_chain_counts() {
        // 1 · 0.999 + 0.001 = 1, up to rounding, on each of 24 · 16 = 384 accumulators.
        for isa in Isa::available() {
            let sum: f64 = multiply_add_chains(isa, 10);
            assert!((sum - 384.0).abs() < 1e-9, "{sum}");
        }
    }
}
