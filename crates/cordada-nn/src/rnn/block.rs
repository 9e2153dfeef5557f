//! How the gates' loops walk over their arrays: a vector at a time, then the rest one by one, with
//! the same arithmetic.

use crate::Real;
use crate::kernel::LANES;

/// Elementwise work on the rows of one step.
pub(super) trait Block {
    /// Does it for `W` units of a row from `column` on. Must be `#[inline(always)]`.
    fn block<const W: usize>(&mut self, row: usize, column: usize);
}

/// Runs a step's work on all units of all rows.
#[inline(always)]
pub(super) fn walk(rows: usize, hidden: usize, step: &mut impl Block) {
    for row in 0..rows {
        let mut column = 0;
        while column + LANES <= hidden {
            step.block::<LANES>(row, column);
            column += LANES;
        }
        while column < hidden {
            step.block::<1>(row, column);
            column += 1;
        }
    }
}

/// `W` numbers from `at` on.
#[inline(always)]
pub(super) fn get<T: Real, const W: usize>(x: &[T], at: usize) -> [T; W] {
    *x[at..].first_chunk().expect("the block is inside the row")
}

/// Writes them.
#[inline(always)]
pub(super) fn put<T: Real, const W: usize>(x: &mut [T], at: usize, block: [T; W]) {
    *x[at..].first_chunk_mut().expect("the block is inside the row") = block;
}

/// As [`get`], once for each gate of a row: `G` vectors that lie `hidden` apart.
#[inline(always)]
pub(super) fn get_gates<T: Real, const G: usize, const W: usize>(
    x: &[T],
    at: usize,
    hidden: usize,
) -> [[T; W]; G] {
    // A loop and not `map`, whose call is not inlined here.
    let mut gates = [[T::ZERO; W]; G];
    for (gate, block) in gates.iter_mut().enumerate() {
        *block = get(x, at + gate * hidden);
    }
    gates
}

/// Writes them.
#[inline(always)]
pub(super) fn put_gates<T: Real, const G: usize, const W: usize>(
    x: &mut [T],
    at: usize,
    hidden: usize,
    gates: &[[T; W]; G],
) {
    for (gate, block) in gates.iter().enumerate() {
        put(x, at + gate * hidden, *block);
    }
}
