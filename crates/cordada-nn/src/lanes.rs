//! Reductions over one row for use inside a kernel: [`LANES`] fixed lanes, then a fixed tree.
//!
//! The public sums over whole slices are in [`crate::kernel`]; these take the step as a closure,
//! so that norms and softmax need no pass more than their formula has.

use crate::Real;
use crate::kernel::LANES;

/// Adds lanes by a fixed tree: 16 → 8 → 4 → 2 → 1, from the level that the first `used` lanes
/// reach. Lanes beyond them hold 0, so skipping the levels above changes nothing but the time that
/// a short row takes.
#[inline(always)]
fn fold<T: Real>(mut lanes: [T; LANES], used: usize) -> T {
    let mut width = used.next_power_of_two() / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// [`fold`] after whole blocks and a rest.
#[inline(always)]
fn finish<T: Real>(lanes: [T; LANES], any_block: bool, rest: usize) -> T {
    // Two calls, so that the first one unrolls.
    if any_block { fold(lanes, LANES) } else { fold(lanes, rest) }
}

/// `step` run over a row from 0, the lanes added at the end.
#[inline(always)]
pub(crate) fn sum<T: Real>(x: &[T], step: impl Fn(T, T) -> T) -> T {
    let (blocks, rest) = x.as_chunks::<LANES>();
    let mut lanes = [T::ZERO; LANES];
    for block in blocks {
        for i in 0..LANES {
            lanes[i] = step(lanes[i], block[i]);
        }
    }
    for (lane, &value) in lanes.iter_mut().zip(rest) {
        *lane = step(*lane, value);
    }
    finish(lanes, !blocks.is_empty(), rest.len())
}

/// As [`sum`] over two rows of the same length.
#[inline(always)]
pub(crate) fn sum2<T: Real>(x: &[T], y: &[T], step: impl Fn(T, T, T) -> T) -> T {
    let (xs, x_rest) = x.as_chunks::<LANES>();
    let (ys, y_rest) = y.as_chunks::<LANES>();
    let mut lanes = [T::ZERO; LANES];
    for (a, b) in xs.iter().zip(ys) {
        for i in 0..LANES {
            lanes[i] = step(lanes[i], a[i], b[i]);
        }
    }
    for ((lane, &a), &b) in lanes.iter_mut().zip(x_rest).zip(y_rest) {
        *lane = step(*lane, a, b);
    }
    finish(lanes, !xs.is_empty(), x_rest.len())
}

/// The larger value; NaN if one is NaN (which `Real::max` would drop).
#[inline(always)]
pub(crate) fn larger<T: Real>(a: T, b: T) -> T {
    let a_is_nan = a.partial_cmp(&a).is_none();
    if a >= b || a_is_nan { a } else { b }
}

/// As `larger` for numbers, in one instruction; may drop NaN.
#[inline(always)]
fn larger_number<T: Real>(a: T, b: T) -> T {
    if a > b { a } else { b }
}

/// The largest value of `f` over a row, at least `start`. NaN is dropped: where it matters, the
/// caller's sum has it. No order is needed for the same bits here.
#[inline(always)]
pub(crate) fn max<T: Real>(x: &[T], start: T, f: impl Fn(T) -> T) -> T {
    let (blocks, rest) = x.as_chunks::<LANES>();
    let mut best = start;
    if !blocks.is_empty() {
        let mut lanes = [start; LANES];
        for block in blocks {
            for i in 0..LANES {
                lanes[i] = larger_number(f(block[i]), lanes[i]);
            }
        }
        let mut width = LANES / 2;
        while width > 0 {
            for i in 0..width {
                lanes[i] = larger_number(lanes[i], lanes[i + width]);
            }
            width /= 2;
        }
        best = lanes[0];
    }
    rest.iter().fold(best, |best, &value| larger_number(f(value), best))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_with_a_rest_is_summed_whole() {
        // 1 + … + 20 = 210 and 1·1 + … + 20·20 = 2870.
        let x: Vec<f64> = (1..=20).map(f64::from).collect();
        assert_eq!(sum(&x, |acc, v| acc + v), 210.0);
        assert_eq!(sum2(&x, &x, |acc, a, b| a.mul_add(b, acc)), 2870.0);
    }

    #[test]
    fn a_short_row_is_summed_by_the_same_tree() {
        // A row that ends in zeros up to a whole block takes every level of the tree.
        for len in 0..=LANES {
            let row: Vec<f32> = (0..len).map(|i| libm::sinf(i as f32 + 0.3)).collect();
            let mut padded = [0.0_f32; LANES];
            padded[..len].copy_from_slice(&row);
            assert_eq!(sum(&row, |acc, v| acc + v), sum(&padded, |acc, v| acc + v), "{len}");
        }
    }

    #[test]
    fn the_largest_is_found_in_every_place() {
        for place in 0..35 {
            let mut x = vec![-3.0_f32; 35];
            x[place] = 2.0;
            assert_eq!(max(&x, f32::NEG_INFINITY, |v| v), 2.0, "at {place}");
            x[(place + 20) % 35] = f32::NAN;
            assert_eq!(max(&x, f32::NEG_INFINITY, |v| v), 2.0, "at {place} beside NaN");
        }
        assert_eq!(max(&[1.0_f32, -5.0], 0.0, f32::abs), 5.0);
    }

    #[test]
    fn the_larger_of_two_keeps_nan() {
        assert_eq!(larger(1.0, 2.0), 2.0);
        assert_eq!(larger(2.0, 1.0), 2.0);
        assert!(larger(f64::NAN, 1.0).is_nan() && larger(1.0, f64::NAN).is_nan());
    }
}
