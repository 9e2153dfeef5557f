//! The products against their plain definition, bit for bit.

#![allow(clippy::needless_range_loop, reason = "the definition is written by index")]

use super::*;

/// Numbers without a pattern, between −1 and 1.
fn numbers(n: usize, seed: u32) -> Vec<f32> {
    let mut x = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    (0..n)
        .map(|_| {
            x ^= x << 13;
            x ^= x >> 17;
            x ^= x << 5;
            (x >> 8) as f32 / 8_388_608.0 - 1.0
        })
        .collect()
}

/// What a product is: one accumulator per element, k ascending, fused multiply-add; or dot
/// products in lanes if there are few columns.
fn product_reference(a: &[f32], b: &[f32], k: usize, n: usize, c: &mut [f32]) {
    if n > DOT_COLUMNS {
        return reference(a, b, k, n, c);
    }
    for (row, out) in a.chunks_exact(k).zip(c.chunks_exact_mut(n)) {
        for (j, out) in out.iter_mut().enumerate() {
            let mut lanes = [0.0_f32; LANES];
            for (kk, x) in row.iter().enumerate() {
                lanes[kk % LANES] = x.mul_add(b[kk * n + j], lanes[kk % LANES]);
            }
            for width in [8, 4, 2, 1] {
                for l in 0..width {
                    lanes[l] += lanes[l + width];
                }
            }
            *out += lanes[0];
        }
    }
}

/// The definition: one accumulator per element, k ascending, fused multiply-add.
fn reference(a: &[f32], b: &[f32], k: usize, n: usize, c: &mut [f32]) {
    for (row, out) in a.chunks_exact(k).zip(c.chunks_exact_mut(n)) {
        for (j, out) in out.iter_mut().enumerate() {
            for (kk, x) in row.iter().enumerate() {
                *out = x.mul_add(b[kk * n + j], *out);
            }
        }
    }
}

const SHAPES: [(usize, usize, usize); 11] = [
    (1, 1, 1),
    (3, 4, 64),
    (64, 64, 64),
    (7, 64, 2),
    (13, 17, 6),
    (65, 300, 80),
    (9, 129, 33),
    (30, 5, 48),
    (11, 256, 256),
    (300, 6, 128),
    (300, 128, 6),
];

#[test]
fn every_instance_equals_the_definition_bit_for_bit() {
    for (rows, k, n) in SHAPES {
        let (a, b) = (numbers(rows * k, 1), numbers(k * n, 2));
        let start = numbers(rows * n, 3);
        let mut want = start.clone();
        product_reference(&a, &b, k, n, &mut want);
        for isa in Isa::available() {
            let mut panels = Panels::new(isa, k, n);
            panels.pack(&b);
            let mut got = start.clone();
            matmul(&a, &panels, Start::Old, &mut got);
            assert_eq!(got, want, "{isa:?} {rows}x{k}x{n}");
        }
    }
}

#[test]
fn packing_a_transpose_gives_the_same_product() {
    for (rows, k, n) in SHAPES {
        let (a, b) = (numbers(rows * k, 4), numbers(k * n, 5));
        let bias = numbers(n, 6);
        let b_transposed: Vec<f32> = (0..n * k).map(|i| b[(i % k) * n + i / k]).collect();
        for isa in Isa::available() {
            let mut panels = Panels::new(isa, k, n);
            panels.pack(&b);
            let mut want = vec![0.0; rows * n];
            matmul(&a, &panels, Start::Row(&bias), &mut want);
            let mut panels = Panels::new(isa, k, n);
            panels.pack_transposed(&b_transposed);
            let mut got = vec![7.0; rows * n];
            matmul(&a, &panels, Start::Row(&bias), &mut got);
            assert_eq!(got, want, "{isa:?} {rows}x{k}x{n}");
        }
    }
}

#[test]
fn gradient_product_equals_the_definition() {
    for (rows, m, n) in SHAPES {
        let (a, b) = (numbers(rows * m, 7), numbers(rows * n, 8));
        let a_transposed: Vec<f32> = (0..m * rows).map(|i| a[(i % rows) * m + i / rows]).collect();
        let start = numbers(m * n, 9);
        let mut from_zero = vec![0.0; m * n];
        reference(&a_transposed, &b, rows, n, &mut from_zero);
        let mut from_start = start.clone();
        reference(&a_transposed, &b, rows, n, &mut from_start);
        // Vectors along m start at zero and are added at the end.
        let flipped = n % LANES != 0 && m % LANES == 0;
        for isa in Isa::available() {
            let mut got = start.clone();
            matmul_tn(isa, &a, &b, (m, n), &mut got);
            for i in 0..m * n {
                let want = if flipped { start[i] + from_zero[i] } else { from_start[i] };
                assert_eq!(got[i], want, "{isa:?} {rows}x{m}x{n} at {i}");
            }
        }
    }
}

#[test]
fn a_row_has_the_same_bits_whatever_the_number_of_rows() {
    for (k, n) in [(64, 64), (64, 2), (17, 6)] {
        let (a, b) = (numbers(1000 * k, 10), numbers(k * n, 11));
        for isa in Isa::available() {
            let mut panels = Panels::new(isa, k, n);
            panels.pack(&b);
            let mut all = vec![0.0; 1000 * n];
            matmul(&a, &panels, Start::Old, &mut all);
            for rows in [1, 2, 3, 64] {
                let mut few = vec![0.0; rows * n];
                matmul(&a[..rows * k], &panels, Start::Old, &mut few);
                assert_eq!(few, all[..rows * n], "{isa:?}, {rows} rows");
            }
        }
    }
}
