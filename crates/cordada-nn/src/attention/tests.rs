//! Attention against its definition, finite differences, and itself in other groupings.

use cordada_testkit::gradient::assert_gradient;

use super::*;

/// Values without a pattern in about [−1, 1].
fn wave(n: usize, shift: f64) -> Vec<f64> {
    (0..n).map(|i| libm::sin(1.7 * i as f64 + 0.01 * (i * i) as f64 + shift)).collect()
}

/// The definition, row by row and head by head.
fn plain(a: &Attention, qkv: &[f64], spans: &[Span]) -> Vec<f64> {
    let (w, d) = (a.row_width(), a.head_dim);
    let mut out = vec![0.0; qkv.len() / w * a.output_width()];
    for span in spans {
        let positions: Vec<usize> = span.prefix.clone().chain(span.rows.clone()).collect();
        for (i, row) in span.rows.clone().enumerate() {
            let seen = &positions[..=span.prefix.len() + i];
            for h in 0..a.heads {
                let g = h / (a.heads / a.kv_heads);
                let q = &qkv[row * w + h * d..][..d];
                let z: Vec<f64> = seen
                    .iter()
                    .map(|&j| {
                        let k = &qkv[j * w + (a.heads + g) * d..][..d];
                        q.iter().zip(k).map(|(q, k)| q * k).sum::<f64>() / (d as f64).sqrt()
                    })
                    .collect();
                let total: f64 = z.iter().map(|z| z.exp()).sum();
                for (z, &j) in z.iter().zip(seen) {
                    let v = &qkv[j * w + (a.heads + a.kv_heads + g) * d..][..d];
                    for (o, v) in out[row * a.output_width() + h * d..][..d].iter_mut().zip(v) {
                        *o += z.exp() / total * v;
                    }
                }
            }
        }
    }
    out
}

fn forward<T: Real>(a: &Attention, qkv: &[T], spans: &[Span]) -> (Vec<T>, Vec<T>) {
    let rows = qkv.len() / a.row_width();
    let mut out = vec![T::ZERO; rows * a.output_width()];
    let mut lse = vec![T::ZERO; rows * a.heads];
    a.forward(qkv, spans, &mut out, &mut lse, &mut a.scratch());
    (out, lse)
}

/// A sequence, a prompt, and two continuations of the prompt, long enough for several blocks.
fn spans() -> Vec<Span> {
    vec![
        Span { rows: 0..101, prefix: 0..0 },
        Span { rows: 101..120, prefix: 0..0 },
        Span { rows: 120..127, prefix: 101..120 },
        Span { rows: 127..180, prefix: 101..120 },
    ]
}

#[test]
fn forward_equals_the_definition() {
    for (heads, kv_heads, head_dim) in [(4, 2, 16), (2, 2, 6), (3, 1, 64), (8, 2, 80)] {
        let a = Attention::new(heads, kv_heads, head_dim);
        let qkv = wave(180 * a.row_width(), 0.3);
        let (got, _) = forward(&a, &qkv, &spans());
        for (i, (got, want)) in got.iter().zip(plain(&a, &qkv, &spans())).enumerate() {
            assert!((got - want).abs() < 1e-12, "{heads} heads, {i}: {got} instead of {want}");
        }
    }
}

#[test]
fn vjp_is_the_gradient() {
    let spans = [
        Span { rows: 0..5, prefix: 0..0 },
        Span { rows: 5..8, prefix: 0..5 },
        Span { rows: 8..9, prefix: 0..5 },
    ];
    for (heads, kv_heads, head_dim) in [(2, 1, 4), (2, 2, 3)] {
        let a = Attention::new(heads, kv_heads, head_dim);
        let qkv = wave(9 * a.row_width(), 0.3);
        let d_out = wave(9 * a.output_width(), 1.0);
        let (out, lse) = forward(&a, &qkv, &spans);
        let mut d_qkv = vec![7.0; qkv.len()];
        a.vjp(&qkv, &spans, (&out, &lse), &d_out, &mut d_qkv, &mut a.scratch());
        // It is added to what was there.
        let d_qkv: Vec<f64> = d_qkv.iter().map(|g| g - 7.0).collect();
        assert_gradient("attention", &qkv, &d_qkv, 1e-7, |qkv| {
            forward(&a, qkv, &spans).0.iter().zip(&d_out).map(|(o, g)| o * g).sum()
        });
    }
}

#[test]
fn decoding_and_batches_have_the_bits_of_one_sequence() {
    for (heads, kv_heads, head_dim) in [(4, 2, 32), (2, 2, 64), (2, 1, 12)] {
        let a = Attention::new(heads, kv_heads, head_dim);
        let (w, o) = (a.row_width(), a.output_width());
        let qkv: Vec<f32> = wave(150 * w, 0.7).iter().map(|&x| x as f32).collect();
        let alone = forward(&a, &qkv, &[Span { rows: 0..150, prefix: 0..0 }]);
        // Split anywhere into a prefix and a rest.
        for at in [1, 17, 64, 149] {
            let spans = [Span { rows: 0..at, prefix: 0..0 }, Span { rows: at..150, prefix: 0..at }];
            assert!(forward(&a, &qkv, &spans) == alone, "{heads} heads, prefix of {at}");
        }
        let mut cache = a.cache(150);
        let mut scratch = a.scratch();
        let mut out = vec![0.0_f32; o];
        for (i, row) in qkv.chunks_exact(w).enumerate() {
            a.remember(row, &mut cache);
            a.decode(row, &cache, &mut out, &mut scratch);
            assert!(out == alone.0[i * o..(i + 1) * o], "{heads} heads, row {i}");
        }
    }
}
