//! Layers, activations, norms and starting weights against `PyTorch`.

#[path = "golden_nn/conv.rs"]
mod conv;
#[path = "golden_nn/rnn.rs"]
mod rnn;

use cordada_nn::init::orthogonal;
use cordada_nn::kernel::Isa;
use cordada_nn::norm::{layer_norm, layer_norm_vjp, rms_norm, rms_norm_vjp};
use cordada_nn::softmax::{
    entropy, log_softmax, log_softmax_vjp, log_sum_exp, log_sum_exp_vjp, softmax, softmax_vjp,
};
use cordada_nn::{Activation, Mlp, MlpSpec, Real, Tape};
use cordada_testkit::golden::{self, Case};

#[test]
fn golden_nn() {
    for case in golden::family("nn") {
        match case.name.as_str() {
            "activations" => activations(&case),
            "softmax_family" => softmax_family(&case),
            "layer_norm" | "layer_norm_constant_row" => layer_norm_case(&case),
            "rms_norm" => rms_norm_case(&case),
            "conv2d_stride2_pad1" | "conv2d_stride1_pad0" => conv::conv2d(&case),
            "nature_cnn" => conv::nature_cnn(&case),
            "lstm_cell" | "lstm_sequence_with_resets" | "gru_cell" | "gru_sequence_with_resets" => {
                rnn::recurrent(&case);
            }
            name if name.starts_with("orthogonal_") => orthogonal_case(&case),
            name if name.starts_with("mlp_") => mlp(&case, activation(&name["mlp_".len()..])),
            other => panic!("no handler for the case {other} of the family nn"),
        }
    }
}

/// The values that `f` writes into a slice of `len` numbers.
fn written(len: usize, f: impl FnOnce(&mut [f64])) -> Vec<f64> {
    let mut out = vec![f64::NAN; len];
    f(&mut out);
    out
}

/// The activation that the data calls `name`.
fn activation(name: &str) -> Activation {
    let ours = if name == "gelu_erf" { "gelu" } else { name };
    Activation::from_name(ours).unwrap_or_else(|| panic!("no activation {name}"))
}

fn activations(case: &Case) {
    let x = &case.tensor("input/x").data;
    let names: Vec<&str> = case.keys().filter_map(|key| key.strip_prefix("output/")).collect();
    assert!(!names.is_empty(), "{}: no outputs", case.name);
    for name in names {
        // Value and derivative.
        let pair = |x: f64| match name {
            "sigmoid" => (x.sigmoid(), x.sigmoid() * (1.0 - x.sigmoid())),
            "softplus" => (x.softplus(), x.sigmoid()),
            // ln σ(x) = −softplus(−x)
            "log_sigmoid" => (-(-x).softplus(), (-x).sigmoid()),
            name => {
                let f = activation(name);
                (f.value(x), f.derivative(x, f.value(x)))
            }
        };
        let (values, derivatives): (Vec<f64>, Vec<f64>) = x.iter().map(|&x| pair(x)).unzip();
        case.check(&format!("output/{name}"), &values);
        case.check(&format!("grad/{name}/x"), &derivatives);
    }
}

fn mlp(case: &Case, activation: Activation) {
    let [x, dy] = ["input/x", "input/upstream"].map(|key| &case.tensor(key).data);
    let spec = MlpSpec {
        sizes: vec![5, 8, 8, 4],
        activation,
        output_activation: Activation::Identity,
        layer_norm: false,
        output_norm: false,
    };
    let net = Mlp::new(&spec);
    let mut theta = vec![f64::NAN; net.num_params()];
    for param in net.params() {
        let tensor = case.tensor(&format!("input/param/{}", param.name));
        assert_eq!(tensor.shape, param.shape, "{}: {}", case.name, param.name);
        theta[param.range].copy_from_slice(&tensor.data);
    }
    for isa in Isa::available() {
        let net = Mlp::with_isa(&spec, isa);
        let mut weights = net.weights();
        net.pack(&theta, &mut weights);
        let mut tape = Tape::new();
        case.check("output/y", net.forward(&weights, x, &mut tape));
        let mut grad = vec![0.0; theta.len()];
        let dx = written(x.len(), |dx| {
            net.vjp(&weights, x, &mut tape, dy, &mut grad, Some(dx));
        });
        case.check("grad/x", &dx);
        for param in net.params() {
            case.check(&format!("grad/param/{}", param.name), &grad[param.range]);
        }
    }
}

fn softmax_family(case: &Case) {
    let isa = Isa::detect();
    let [x, dy] = ["input/x", "input/upstream"].map(|key| &case.tensor(key).data);
    let [rows, columns] = case.tensor("input/x").shape[..] else { panic!("x is not a matrix") };
    let n = x.len();
    let p = written(n, |y| softmax(isa, x, columns, y));
    let log_p = written(n, |y| log_softmax(isa, x, columns, y));
    let lse = written(rows, |y| log_sum_exp(isa, x, y));
    case.check("output/softmax", &p);
    case.check("output/log_softmax", &log_p);
    case.check("output/logsumexp", &lse);
    case.check("output/entropy", &written(rows, |h| entropy(isa, &log_p, h)));
    let dx = written(n, |dx| softmax_vjp(isa, &p, dy, columns, dx));
    case.check("grad/softmax/x", &dx);
    let dx = written(n, |dx| log_softmax_vjp(isa, &log_p, dy, columns, dx));
    case.check("grad/log_softmax/x", &dx);
    let dx = written(n, |dx| log_sum_exp_vjp(isa, x, &lse, &vec![1.0; rows], dx));
    case.check("grad/logsumexp/x", &dx);
}

fn layer_norm_case(case: &Case) {
    let isa = Isa::detect();
    let [x, dy] = ["input/x", "input/upstream"].map(|key| &case.tensor(key).data);
    let [weight, bias] = ["input/weight", "input/bias"].map(|key| &case.tensor(key).data);
    let (n, d) = (x.len(), weight.len());
    let (mut mean, mut rstd) = (vec![0.0; n / d], vec![0.0; n / d]);
    let y = written(n, |y| {
        layer_norm(isa, x, weight, bias, case.param("eps"), y, &mut mean, &mut rstd);
    });
    case.check("output/y", &y);
    let (mut d_weight, mut d_bias) = (vec![0.0; d], vec![0.0; d]);
    let dx = written(n, |dx| {
        layer_norm_vjp(isa, x, weight, &mean, &rstd, dy, dx, &mut d_weight, &mut d_bias);
    });
    case.check("grad/x", &dx);
    case.check("grad/weight", &d_weight);
    case.check("grad/bias", &d_bias);
}

fn rms_norm_case(case: &Case) {
    let isa = Isa::detect();
    let [x, dy] = ["input/x", "input/upstream"].map(|key| &case.tensor(key).data);
    let weight = &case.tensor("input/weight").data;
    let (n, d) = (x.len(), weight.len());
    let mut rstd = vec![0.0; n / d];
    let y = written(n, |y| rms_norm(isa, x, weight, case.param("eps"), y, &mut rstd));
    case.check("output/y", &y);
    let mut d_weight = vec![0.0; d];
    let dx = written(n, |dx| rms_norm_vjp(isa, x, weight, &rstd, dy, dx, &mut d_weight));
    case.check("grad/x", &dx);
    case.check("grad/weight", &d_weight);
}

/// The smaller Gram matrix of a matrix `[rows, cols]`.
fn gram(w: &[f64], rows: usize, cols: usize) -> Vec<f64> {
    let wide = rows < cols;
    let at = |i: usize, k: usize| {
        if wide { w[i * cols + k] } else { w[k * cols + i] }
    };
    let (count, len) = (rows.min(cols), rows.max(cols));
    let pairs = (0..count).flat_map(|i| (0..count).map(move |j| (i, j)));
    pairs.map(|(i, j)| (0..len).map(|k| at(i, k) * at(j, k)).sum()).collect()
}

fn orthogonal_case(case: &Case) {
    let [rows, cols] = case.tensor("input/normal").shape[..] else { panic!("not a matrix") };
    let mut normals = case.tensor("input/normal").data.iter();
    let w = written(rows * cols, |w| {
        orthogonal(w, rows, cols, case.param("gain"), &mut || {
            *normals.next().expect("one normal number a weight")
        });
    });
    assert!(normals.next().is_none(), "{}: every normal number is used", case.name);
    case.check("output/weight", &w);
    case.check("output/gram", &gram(&w, rows, cols));
}
