//! The convolution beside the loops of its formula, its derivatives against finite differences, and
//! its promises about bits.

use cordada_nn::kernel::Isa;
use cordada_nn::{Conv2d, Conv2dSpec, Conv2dTape, Error};
use cordada_testkit::gradient::assert_gradient;

fn numbers(n: usize, seed: u64) -> Vec<f64> {
    let mut x = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..n)
        .map(|_| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            (x >> 11) as f64 / (1_u64 << 53) as f64 - 0.5
        })
        .collect()
}

/// A shape from `[in, out]`, `[kernel height, width]`, stride, padding, `[height, width]`.
fn spec(
    channels: [usize; 2],
    kernel: [usize; 2],
    stride: usize,
    padding: usize,
    [height, width]: [usize; 2],
) -> Conv2dSpec {
    let [in_channels, out_channels] = channels;
    Conv2dSpec { in_channels, out_channels, kernel, stride, padding, height, width }
}

/// Shapes that together reach few and many output channels, short and long lines of the kernel,
/// positions that no kernel ends on, padding on every side and a kernel as large as the image.
fn specs() -> Vec<Conv2dSpec> {
    vec![
        spec([1, 1], [1, 1], 1, 0, [1, 1]),
        spec([1, 2], [2, 2], 1, 0, [3, 4]),
        spec([3, 4], [3, 2], 2, 1, [7, 6]),
        spec([2, 5], [3, 3], 1, 2, [4, 5]),
        spec([2, 16], [5, 5], 3, 4, [8, 6]),
        spec([4, 32], [8, 8], 4, 0, [22, 25]),
        spec([3, 70], [4, 4], 2, 1, [9, 8]),
        spec([2, 3], [6, 7], 1, 0, [6, 7]),
        spec([1, 3], [3, 3], 4, 2, [2, 1]),
    ]
}

/// The convolution as its formula is written.
fn naive(s: &Conv2dSpec, theta: &[f64], x: &[f64]) -> Vec<f64> {
    let [kh, kw] = s.kernel;
    let (h, w) = (s.height, s.width);
    let out = |n: usize, k: usize| (n + 2 * s.padding - k) / s.stride + 1;
    let bias = &theta[s.out_channels * s.in_channels * kh * kw..];
    let mut y = Vec::new();
    for x in x.chunks(s.in_channels * h * w) {
        for (o, &bias) in bias.iter().enumerate() {
            for (i, j) in (0..out(h, kh)).flat_map(|i| (0..out(w, kw)).map(move |j| (i, j))) {
                let mut sum = bias;
                for c in 0..s.in_channels {
                    for (u, v) in (0..kh).flat_map(|u| (0..kw).map(move |v| (u, v))) {
                        let row = (i * s.stride + u).checked_sub(s.padding).filter(|&r| r < h);
                        let column = (j * s.stride + v).checked_sub(s.padding).filter(|&c| c < w);
                        if let (Some(row), Some(column)) = (row, column) {
                            let weight = theta[((o * s.in_channels + c) * kh + u) * kw + v];
                            sum += weight * x[(c * h + row) * w + column];
                        }
                    }
                }
                y.push(sum);
            }
        }
    }
    y
}

#[test]
fn one_channel_by_hand() {
    // x = 1 2 3    weight = 1  2    bias 10, stride 1:
    //     4 5 6             0 −1    y = 1 + 4 − 5, 2 + 6 − 6; 4 + 10 − 8, 5 + 12 − 9; plus 10
    //     7 8 9
    let conv = Conv2d::new(&spec([1, 1], [2, 2], 1, 0, [3, 3])).unwrap();
    let x: Vec<f32> = (1..=9_u8).map(f32::from).collect();
    let (mut weights, mut tape) = (conv.weights(), Conv2dTape::new());
    conv.pack(&[1., 2., 0., -1., 10.], &mut weights);
    assert_eq!(conv.forward(&weights, &x, &mut tape), [10., 12., 16., 18.]);
    // dy = 1 at the top left, 10 at the bottom right: the weight's gradient is the patch 1 2 4 5
    // plus ten times 5 6 8 9; the image's is the weight at its corner plus ten times that at (1, 1).
    let (mut grad, mut dx) = ([0.5; 5], [f32::NAN; 9]);
    conv.vjp(&weights, &x, &mut tape, &[1., 0., 0., 10.], &mut grad, Some(&mut dx));
    assert_eq!(grad, [51.5, 62.5, 84.5, 95.5, 11.5]);
    assert_eq!(dx, [1., 2., 0., 0., 9., 20., 0., 0., -10.]);
    assert_eq!(conv.forward_flops(), 2 * 4 * 4);
}

#[test]
fn equals_the_loops_of_the_formula() {
    for s in specs() {
        for isa in Isa::available() {
            let conv = Conv2d::with_isa(&s, isa).unwrap();
            let theta = numbers(conv.num_params(), 1);
            let x = numbers(3 * conv.inputs(), 2);
            let (mut weights, mut tape) = (conv.weights(), Conv2dTape::new());
            conv.pack(&theta, &mut weights);
            let want = naive(&s, &theta, &x);
            let got = conv.forward(&weights, &x, &mut tape);
            assert_eq!(got.len(), want.len(), "{s:?}");
            assert_eq!(got.len(), 3 * conv.outputs(), "{s:?}");
            for (i, (got, want)) in got.iter().zip(&want).enumerate() {
                assert!((got - want).abs() < 1e-12, "{s:?}: y[{i}] is {got}, not {want}");
            }
        }
    }
}

#[test]
fn vjp_agrees_with_finite_differences() {
    for s in specs() {
        let conv = Conv2d::new(&s).unwrap();
        let theta = numbers(conv.num_params(), 3);
        let x = numbers(2 * conv.inputs(), 4);
        let dy = numbers(2 * conv.outputs(), 5);
        let (mut weights, mut tape) = (conv.weights(), Conv2dTape::new());
        conv.pack(&theta, &mut weights);
        let mut weighted = |theta: &[f64], x: &[f64]| -> f64 {
            conv.pack(theta, &mut weights);
            conv.forward(&weights, x, &mut tape).iter().zip(&dy).map(|(y, d)| y * d).sum()
        };
        let (mut packed, mut vjp_tape) = (conv.weights(), Conv2dTape::new());
        conv.pack(&theta, &mut packed);
        let (mut grad, mut dx) = (vec![0.0; theta.len()], vec![f64::NAN; x.len()]);
        conv.vjp(&packed, &x, &mut vjp_tape, &dy, &mut grad, Some(&mut dx));
        // The function is linear in each alone, so that a few of many parameters tell as much.
        let some = theta.len().min(300);
        let mut moved = theta.clone();
        assert_gradient(&format!("{s:?}, θ"), &theta[..some], &grad[..some], 1e-8, |part| {
            moved[..some].copy_from_slice(part);
            weighted(&moved, &x)
        });
        let bias = theta.len() - s.out_channels;
        moved.copy_from_slice(&theta);
        assert_gradient(&format!("{s:?}, bias"), &theta[bias..], &grad[bias..], 1e-8, |part| {
            moved[bias..].copy_from_slice(part);
            weighted(&moved, &x)
        });
        let some = x.len().min(300);
        let mut moved = x.clone();
        assert_gradient(&format!("{s:?}, x"), &x[..some], &dx[..some], 1e-8, |part| {
            moved[..some].copy_from_slice(part);
            weighted(&theta, &moved)
        });
    }
}

#[test]
fn an_image_has_the_same_bits_whatever_the_batch_and_the_instruction_set() {
    for s in specs() {
        let mut results = Vec::new();
        for isa in Isa::available() {
            let conv = Conv2d::with_isa(&s, isa).unwrap();
            let theta: Vec<f32> = numbers(conv.num_params(), 6).iter().map(|&x| x as f32).collect();
            let (n, m) = (conv.inputs(), conv.outputs());
            let x: Vec<f32> = numbers(40 * n, 7).iter().map(|&x| x as f32).collect();
            let (mut weights, mut tape) = (conv.weights(), Conv2dTape::new());
            conv.pack(&theta, &mut weights);
            let all = conv.forward(&weights, &x, &mut tape).to_vec();
            let (mut grad, mut dx) = (vec![0.5; theta.len()], vec![f32::NAN; x.len()]);
            conv.vjp(&weights, &x, &mut tape, &all, &mut grad, Some(&mut dx));
            for (first, images) in [(0, 1), (7, 1), (39, 1), (3, 2), (10, 17)] {
                let (part, rows) =
                    (first * n..(first + images) * n, first * m..(first + images) * m);
                let y = conv.forward(&weights, &x[part.clone()], &mut tape);
                assert_eq!(y, &all[rows.clone()], "{s:?} {isa:?}: {images} images");
                let (mut some, mut d) = (vec![0.0; theta.len()], vec![f32::NAN; images * n]);
                let (x, dy) = (&x[part.clone()], &all[rows]);
                conv.vjp(&weights, x, &mut tape, dy, &mut some, Some(&mut d));
                assert_eq!(d, dx[part], "{s:?} {isa:?}: dx of {images} images");
            }
            results.push((all, grad, dx));
        }
        assert!(results.windows(2).all(|pair| pair[0] == pair[1]), "{s:?}");
    }
}

#[test]
fn wrong_shapes_are_refused() {
    let message = |s: Conv2dSpec| Conv2d::new(&s).unwrap_err().to_string();
    assert_eq!(
        message(spec([1, 1], [4, 3], 1, 1, [1, 9])),
        "conv2d: the image is 1x9, too small for the convolutions; use one of at least 2x1"
    );
    assert!(Conv2d::new(&spec([1, 1], [4, 3], 1, 1, [2, 1])).is_ok(), "the least is enough");
    assert_eq!(
        message(spec([1, 1], [3, 2], 1, 2, [9, 9])),
        "conv2d option `padding` is 2; it must be less than the kernel's height and width"
    );
    let no_stride = spec([1, 1], [3, 3], 0, 0, [9, 9]);
    let got = Conv2d::new(&no_stride).unwrap_err();
    assert!(matches!(got, Error::Option { option: "stride", value: 0.0, .. }), "{got}");
}
