//! The network for Atari frames: derivatives against finite differences, the same bits for every
//! batch, and no memory once it is warm.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use allocation_counter::measure;
use cordada_nn::kernel::Isa;
use cordada_nn::{
    Conv2d, Conv2dSpec, Conv2dTape, NatureCnn, NatureCnnTape, NatureCnnWeights, Real,
};
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

/// θ of uniform weights of variance 2 / fan-in, so that no layer dies out.
fn theta<T: Real>(net: &NatureCnn) -> Vec<T> {
    let mut theta = vec![T::ZERO; net.num_params()];
    for (i, param) in net.params().into_iter().enumerate() {
        let fan_in: usize = param.shape[1..].iter().product();
        let scale = (24.0 / fan_in as f64).sqrt();
        let from = numbers(param.range.len(), 10 + i as u64);
        for (to, from) in theta[param.range].iter_mut().zip(from) {
            *to = T::of(from * if param.shape.len() > 1 { scale } else { 0.2 });
        }
    }
    theta
}

fn packed<T: Real>(net: &NatureCnn, theta: &[T]) -> NatureCnnWeights<T> {
    let mut weights = net.weights();
    net.pack(theta, &mut weights);
    weights
}

fn images(n: usize) -> Vec<f32> {
    numbers(n, 2).iter().map(|&x| x as f32 + 0.5).collect()
}

#[test]
fn shapes_are_those_of_the_paper() {
    // 84 → (84 − 8) / 4 + 1 = 20 → (20 − 4) / 2 + 1 = 9 → 9 − 3 + 1 = 7; 7 · 7 · 64 = 3136.
    let net = NatureCnn::new([4, 84, 84], 512).unwrap();
    let got: Vec<_> = net.params().into_iter().map(|p| (p.name, p.shape)).collect();
    let want: [(&str, &[usize]); 8] = [
        ("cnn.0.weight", &[32, 4, 8, 8]),
        ("cnn.0.bias", &[32]),
        ("cnn.2.weight", &[64, 32, 4, 4]),
        ("cnn.2.bias", &[64]),
        ("cnn.4.weight", &[64, 64, 3, 3]),
        ("cnn.4.bias", &[64]),
        ("linear.0.weight", &[512, 3136]),
        ("linear.0.bias", &[512]),
    ];
    assert_eq!(got, want.map(|(name, shape)| (name.to_string(), shape.to_vec())));
    // The tensors fill θ without gaps.
    let mut end = 0;
    for param in net.params() {
        assert_eq!(param.range.start, end, "{}", param.name);
        end += param.shape.iter().product::<usize>();
        assert_eq!(param.range.end, end, "{}", param.name);
    }
    assert_eq!(net.num_params(), end);
    assert_eq!((net.inputs(), net.outputs()), (4 * 84 * 84, 512));
    let flops = 2 * (400 * 256 * 32 + 81 * 512 * 64 + 49 * 576 * 64 + 3136 * 512);
    assert_eq!(net.forward_flops(), flops);
}

#[test]
fn an_image_that_is_too_small_is_refused() {
    assert!(NatureCnn::new([1, 36, 36], 1).is_ok());
    for [height, width] in [[35, 36], [36, 35], [0, 84]] {
        assert_eq!(
            NatureCnn::new([1, height, width], 1).unwrap_err().to_string(),
            format!(
                "nature_cnn: the image is {height}x{width}, too small for the convolutions; use \
                 one of at least 36x36"
            )
        );
    }
    assert_eq!(
        NatureCnn::new([1, 84, 84], 0).unwrap_err().to_string(),
        "nature_cnn option `features` is 0; it must be at least 1"
    );
}

#[test]
fn equals_its_layers_one_after_the_other() {
    // 44 × 40 leaves 2 × 1 positions: the flattening has an order to get wrong.
    let net = NatureCnn::new([2, 44, 40], 24).unwrap();
    let theta: Vec<f64> = theta(&net);
    let x = numbers(3 * net.inputs(), 4);
    let params = net.params();
    let mut images = x.clone();
    let mut shape = [2, 44, 40];
    for (l, stride) in [4, 2, 1].into_iter().enumerate() {
        let [in_channels, height, width] = shape;
        let (out_channels, kernel) = (params[2 * l].shape[0], [params[2 * l].shape[2]; 2]);
        let spec =
            Conv2dSpec { in_channels, out_channels, kernel, stride, padding: 0, height, width };
        let conv = Conv2d::new(&spec).unwrap();
        let mut weights = conv.weights();
        conv.pack(&theta[params[2 * l].range.start..params[2 * l + 1].range.end], &mut weights);
        let mut tape = Conv2dTape::new();
        images = conv.forward(&weights, &images, &mut tape).iter().map(|y| y.max(0.0)).collect();
        shape = conv.output_shape();
    }
    assert_eq!(shape, [64, 2, 1]);
    let (weight, bias) = (&theta[params[6].range.clone()], &theta[params[7].range.clone()]);
    let want = images.chunks(128).flat_map(|image| {
        weight.chunks(128).zip(bias).map(move |(row, bias)| {
            let z: f64 = row.iter().zip(image).map(|(w, x)| w * x).sum();
            (z + bias).max(0.0)
        })
    });
    let mut tape = NatureCnnTape::new();
    let got = net.forward(&packed(&net, &theta), &x, &mut tape);
    assert!(got.iter().filter(|&&y| y > 0.0).count() > 9, "not enough features are awake");
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        assert!((got - want).abs() < 1e-12, "feature {i} is {got}, not {want}");
    }
}

#[test]
fn vjp_agrees_with_finite_differences() {
    let net = NatureCnn::new([2, 44, 40], 24).unwrap();
    let theta: Vec<f64> = theta(&net);
    let (rows, dy) = (2, numbers(2 * 24, 3));
    let x: Vec<f64> = numbers(rows * net.inputs(), 4).iter().map(|x| x + 0.5).collect();
    let mut tape = NatureCnnTape::new();
    let mut weights = packed(&net, &theta);
    let y = net.forward(&weights, &x, &mut tape);
    assert!(y.iter().filter(|&&y| y > 0.0).count() > 6, "not enough features are awake: {y:?}");
    let (mut grad, mut dx) = (vec![0.0; theta.len()], vec![f64::NAN; x.len()]);
    net.vjp(&weights, &x, &mut tape, &dy, &mut grad, Some(&mut dx));
    let mut weighted = |theta: &[f64], x: &[f64]| -> f64 {
        net.pack(theta, &mut weights);
        net.forward(&weights, x, &mut tape).iter().zip(&dy).map(|(y, d)| y * d).sum()
    };
    // A dozen numbers of every tensor, spread by a step that is coprime to its axes.
    for param in net.params() {
        let places: Vec<usize> =
            (0..12).map(|i| param.range.start + i * 7919 % param.range.len()).collect();
        let analytic: Vec<f64> = places.iter().map(|&i| grad[i]).collect();
        assert!(analytic.iter().any(|g| g.abs() > 1e-4), "{}: {analytic:?}", param.name);
        let point: Vec<f64> = places.iter().map(|&i| theta[i]).collect();
        let mut moved = theta.clone();
        assert_gradient(&param.name, &point, &analytic, 1e-7, |point| {
            places.iter().zip(point).for_each(|(&i, &value)| moved[i] = value);
            weighted(&moved, &x)
        });
    }
    let places: Vec<usize> = (0..40).map(|i| i * 1013 % x.len()).collect();
    let analytic: Vec<f64> = places.iter().map(|&i| dx[i]).collect();
    assert!(analytic.iter().any(|g| g.abs() > 1e-4), "x: {analytic:?}");
    let point: Vec<f64> = places.iter().map(|&i| x[i]).collect();
    let mut moved = x.clone();
    assert_gradient("x", &point, &analytic, 1e-7, |point| {
        places.iter().zip(point).for_each(|(&i, &value)| moved[i] = value);
        weighted(&theta, &moved)
    });
}

#[test]
fn an_image_has_the_same_bits_whatever_the_batch() {
    for isa in Isa::available() {
        let net = NatureCnn::with_isa([1, 52, 44], 48, isa).unwrap();
        let n = net.inputs();
        let (x, theta) = (images(21 * n), theta::<f32>(&net));
        let (weights, mut tape) = (packed(&net, &theta), NatureCnnTape::new());
        let all = net.forward(&weights, &x, &mut tape).to_vec();
        assert!(all.iter().any(|&y| y > 0.0), "all features are asleep");
        for (first, rows) in [(0, 1), (20, 1), (3, 2), (5, 13)] {
            let y = net.forward(&weights, &x[first * n..(first + rows) * n], &mut tape);
            assert_eq!(y, &all[first * 48..(first + rows) * 48], "{isa:?}, {rows} images");
        }
    }
}

#[test]
fn a_gradient_has_the_same_bits_wherever_the_batch_is_cut_and_on_every_instruction_set() {
    let mut results = Vec::new();
    for isa in Isa::available() {
        let net = NatureCnn::with_isa([2, 44, 40], 32, isa).unwrap();
        let n = net.inputs();
        let (x, theta) = (images(9 * n), theta::<f32>(&net));
        let (weights, mut tape) = (packed(&net, &theta), NatureCnnTape::new());
        let dy: Vec<f32> = numbers(9 * 32, 3).iter().map(|&x| x as f32).collect();
        let mut gradient = |sizes: &[usize]| {
            let (mut grad, mut dx) = (vec![0.0; theta.len()], vec![f32::NAN; x.len()]);
            let mut first = 0;
            for rows in sizes {
                let (x, to) = (&x[first * n..][..rows * n], &mut dx[first * n..][..rows * n]);
                net.forward(&weights, x, &mut tape);
                let dy = &dy[first * 32..][..rows * 32];
                net.vjp(&weights, x, &mut tape, dy, &mut grad, Some(to));
                first += rows;
            }
            (grad, dx)
        };
        let whole = gradient(&[9]);
        for sizes in [&[1; 9][..], &[4, 5], &[7, 2]] {
            assert!(gradient(sizes) == whole, "{isa:?}, cut into {sizes:?}");
        }
        results.push(whole);
    }
    assert!(results.windows(2).all(|pair| pair[0] == pair[1]), "instruction sets differ");
}

#[test]
fn a_warm_network_allocates_nothing() {
    let net = NatureCnn::new([1, 44, 44], 16).unwrap();
    let (x, theta) = (images(8 * net.inputs()), theta::<f32>(&net));
    let (mut weights, mut tape) = (packed(&net, &theta), NatureCnnTape::new());
    let (mut grad, dy) = (vec![0.0; theta.len()], vec![1.0; 8 * 16]);
    let mut step = |images: usize| {
        let (x, dy) = (&x[..images * net.inputs()], &dy[..images * 16]);
        net.pack(&theta, &mut weights);
        net.forward(&weights, x, &mut tape);
        net.vjp(&weights, x, &mut tape, dy, &mut grad, None);
    };
    assert!(measure(|| step(8)).count_total > 0, "the first call makes room");
    assert_eq!(measure(|| [8, 3, 1].into_iter().for_each(&mut step)).count_total, 0);
}
