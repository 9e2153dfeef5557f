//! LSTM and GRU: one step with gradients of both states, and sequences with resets.

use cordada_nn::kernel::Isa;
use cordada_nn::{Cell, Rnn, RnnTape};
use cordada_testkit::golden::Case;

/// A case of one step or of a sequence, by its tensors.
pub(super) fn recurrent(case: &Case) {
    let cell = if case.name.starts_with("lstm") { Cell::Lstm } else { Cell::Gru };
    let (x, h0) = (case.tensor("input/x"), case.tensor("input/h0"));
    let inputs = *x.shape.last().expect("x has axes");
    let hidden = *h0.shape.last().expect("h has axes");
    // PyTorch's names in a stack of layers.
    let suffix = if case.has("input/param/weight_ih_l0") { "_l0" } else { "" };
    let name = |name: &str| format!("param/{name}{suffix}");
    let c0 = case.has("input/c0").then(|| &case.tensor("input/c0").data[..]);
    let state = joined(&h0.data, c0, hidden);
    let starts =
        case.has("input/episode_starts").then(|| case.tensor("input/episode_starts").flags());
    assert_eq!(starts.is_some(), case.name.contains("resets"), "{}", case.name);
    let dy = &case.tensor("input/upstream").data;

    for isa in Isa::available() {
        let rnn = Rnn::with_isa(cell, inputs, hidden, isa);
        let mut theta = vec![f64::NAN; rnn.num_params()];
        for param in rnn.params() {
            let tensor = case.tensor(&format!("input/{}", name(&param.name)));
            assert_eq!(tensor.shape, param.shape, "{}: {}", case.name, param.name);
            theta[param.range].copy_from_slice(&tensor.data);
        }
        let (mut weights, mut tape) = (rnn.weights(), RnnTape::new());
        rnn.pack(&theta, &mut weights);
        let y = rnn.forward(&weights, &x.data, starts.as_deref(), &state, &mut tape);
        case.check(if case.has("output/y") { "output/y" } else { "output/h" }, y);
        let mut last = vec![f64::NAN; state.len()];
        rnn.last_state(&tape, &mut last);
        check_state(case, ["output/h", "output/c"], &last, hidden);

        // The loss of one step is Σ upstream h' + ½ Σ c'², that of a sequence Σ upstream y.
        let mut d_state = vec![0.0; state.len()];
        if case.has("output/c") {
            for (d, last) in d_state.chunks_mut(2 * hidden).zip(last.chunks(2 * hidden)) {
                d[hidden..].copy_from_slice(&last[hidden..]);
            }
        }
        let (mut grad, mut dx) = (vec![0.0; theta.len()], vec![f64::NAN; x.data.len()]);
        rnn.vjp_with_state(
            &weights,
            &x.data,
            starts.as_deref(),
            &mut tape,
            dy,
            &mut d_state,
            &mut grad,
            Some(&mut dx),
        );
        case.check("grad/x", &dx);
        for param in rnn.params() {
            case.check(&format!("grad/{}", name(&param.name)), &grad[param.range]);
        }
        check_state(case, ["grad/h0", "grad/c0"], &d_state, hidden);
    }
}

/// The rows of h and c beside each other.
fn joined(h: &[f64], c: Option<&[f64]>, hidden: usize) -> Vec<f64> {
    let Some(c) = c else { return h.to_vec() };
    let rows = h.chunks(hidden).zip(c.chunks(hidden));
    rows.flat_map(|(h, c)| [h, c].concat()).collect()
}

/// Checks both parts of a state against the tensors of these names, or with `_n` behind.
fn check_state(case: &Case, names: [&str; 2], state: &[f64], hidden: usize) {
    let lstm = case.has("input/c0");
    let width = if lstm { 2 * hidden } else { hidden };
    for (part, name) in names.iter().enumerate().take(width / hidden) {
        let rows = state.chunks(width).map(|row| &row[part * hidden..][..hidden]);
        let last = format!("{name}_n");
        case.check(if case.has(&last) { &last } else { name }, &rows.collect::<Vec<_>>().concat());
    }
}
