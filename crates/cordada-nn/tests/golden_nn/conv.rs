//! Convolutions.

use super::written;
use cordada_nn::kernel::Isa;
use cordada_nn::{Conv2d, Conv2dSpec, Conv2dTape, NatureCnn, NatureCnnTape};
use cordada_testkit::golden::Case;

pub(super) fn conv2d(case: &Case) {
    let [x, dy] = ["input/x", "input/upstream"].map(|key| &case.tensor(key).data);
    let [_, in_channels, height, width] = case.tensor("input/x").shape[..] else {
        panic!("{}: x is not a batch of images", case.name)
    };
    let [out_channels, _, kh, kw] = case.tensor("input/weight").shape[..] else {
        panic!("{}: the weight has not four axes", case.name)
    };
    let spec = Conv2dSpec {
        in_channels,
        out_channels,
        kernel: [kh, kw],
        stride: case.param("stride") as usize,
        padding: case.param("padding") as usize,
        height,
        width,
    };
    for isa in Isa::available() {
        let conv = Conv2d::with_isa(&spec, isa).expect("a shape of PyTorch's");
        assert_eq!(case.tensor("output/y").shape[1..], conv.output_shape());
        let mut theta = vec![f64::NAN; conv.num_params()];
        for param in conv.params() {
            let tensor = case.tensor(&format!("input/{}", param.name));
            assert_eq!(tensor.shape, param.shape, "{}: {}", case.name, param.name);
            theta[param.range].copy_from_slice(&tensor.data);
        }
        let (mut weights, mut tape) = (conv.weights(), Conv2dTape::new());
        conv.pack(&theta, &mut weights);
        case.check("output/y", conv.forward(&weights, x, &mut tape));
        let mut grad = vec![0.0; theta.len()];
        let dx = written(x.len(), |dx| {
            conv.vjp(&weights, x, &mut tape, dy, &mut grad, Some(dx));
        });
        case.check("grad/x", &dx);
        for param in conv.params() {
            case.check(&format!("grad/{}", param.name), &grad[param.range]);
        }
    }
}

pub(super) fn nature_cnn(case: &Case) {
    let image = case.tensor("input/image");
    let shape = [image.shape[1], image.shape[2], image.shape[3]];
    let x: Vec<f64> = image.data.iter().map(|pixel| pixel / 255.0).collect();
    for isa in Isa::available() {
        let net = NatureCnn::with_isa(shape, case.param("feat") as usize, isa).expect("36×36");
        let mut theta = vec![f64::NAN; net.num_params()];
        for param in net.params() {
            let tensor = case.tensor(&format!("input/param/{}", param.name));
            assert_eq!(tensor.shape, param.shape, "{}: {}", case.name, param.name);
            theta[param.range].copy_from_slice(&tensor.data);
        }
        let (mut weights, mut tape) = (net.weights(), NatureCnnTape::new());
        net.pack(&theta, &mut weights);
        case.check("output/y", net.forward(&weights, &x, &mut tape));
        let mut grad = vec![0.0; theta.len()];
        let dy = &case.tensor("input/upstream").data;
        net.vjp(&weights, &x, &mut tape, dy, &mut grad, None);
        for param in net.params() {
            case.check(&format!("grad/param/{}", param.name), &grad[param.range]);
        }
    }
}
