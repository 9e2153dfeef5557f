//! One unit computed by hand, and the layout of θ.

use super::*;

/// θ of one unit with one input, gate by gate: its weights and biases.
fn theta<const G: usize>(gates: [[f64; 4]; G]) -> Vec<f64> {
    (0..4).flat_map(|param| gates.map(|gate| gate[param])).collect()
}

fn one_step(cell: Cell, theta: &[f64], x: f64, state: &mut [f64]) -> f64 {
    let rnn = Rnn::new(cell, 1, 1);
    let mut weights = rnn.weights();
    rnn.pack(theta, &mut weights);
    rnn.step(&weights, &[x], state, &mut RnnTape::new())[0]
}

#[test]
fn one_lstm_unit_is_the_hand_computed_one() {
    // x = 2, h = −1, c = 4. In every gate 2 w_ih − w_hh + b_hh = 0, so that b_ih is the sum:
    // i = σ(ln 3) = ¾, f = σ(−ln 3) = ¼, g = tanh(ln 2) = (4 − 1) / (4 + 1) = ⅗, o = σ(0) = ½.
    let (ln2, ln3) = (2.0_f64.ln(), 3.0_f64.ln());
    let theta = theta([
        [1.0, 2.5, ln3, 0.5],
        [2.0, 5.0, -ln3, 1.0],
        [-3.0, -4.0, ln2, 2.0],
        [0.5, 0.0, 0.0, -1.0],
    ]);
    let mut state = [-1.0, 4.0];
    let y = one_step(Cell::Lstm, &theta, 2.0, &mut state);
    // c' = ¼ · 4 + ¾ · ⅗ = 1.45, h' = ½ tanh 1.45 = 0.447846…
    assert!((state[1] - 1.45).abs() < 1e-12, "c' = {}", state[1]);
    assert!((y - 0.447_846_437).abs() < 1e-9, "h' = {y}");
    assert_eq!(state[0], y);
}

#[test]
fn one_gru_unit_is_the_hand_computed_one() {
    // x = 2, h = −1: r = σ(ln 3) = ¾, z = σ(−ln 3) = ¼; h's part of n is 2 + 2 = 4, x's is
    // 3 + ln 2 − 6, and n = tanh(ln 2 − 3 + ¾ · 4) = ⅗.
    let (ln2, ln3) = (2.0_f64.ln(), 3.0_f64.ln());
    let theta = theta([[1.0, 2.5, ln3, 0.5], [2.0, 5.0, -ln3, 1.0], [1.5, -2.0, ln2 - 6.0, 2.0]]);
    let mut state = [-1.0];
    let y = one_step(Cell::Gru, &theta, 2.0, &mut state);
    // h' = (1 − ¼) · ⅗ + ¼ · (−1) = 0.2
    assert!((y - 0.2).abs() < 1e-12, "h' = {y}");
    assert_eq!(state, [y]);
}

#[test]
fn parameters_lie_in_order() {
    let rnn = Rnn::new(Cell::Gru, 5, 2);
    let params: Vec<_> = rnn.params().into_iter().map(|p| (p.name, p.shape, p.range)).collect();
    let want = [
        ("weight_ih".to_owned(), vec![6, 5], 0..30),
        ("weight_hh".to_owned(), vec![6, 2], 30..42),
        ("bias_ih".to_owned(), vec![6], 42..48),
        ("bias_hh".to_owned(), vec![6], 48..54),
    ];
    assert_eq!(params, want);
    // Three gates of two units, each with 5 + 2 multiply-adds.
    assert_eq!((rnn.num_params(), rnn.state_len(), rnn.forward_flops()), (54, 2, 84));
    assert_eq!(Rnn::new(Cell::Lstm, 5, 2).state_len(), 4);
}

#[test]
fn names_round_trip() {
    for cell in Cell::ALL {
        assert_eq!(Cell::from_name(cell.name()), Some(cell));
    }
    assert_eq!(Cell::from_name("LSTM"), None);
}

#[test]
#[should_panic(expected = "starts are [2, 1]")]
fn starts_of_another_length_are_refused() {
    let rnn = Rnn::new(Cell::Gru, 1, 1);
    let weights = rnn.weights::<f32>();
    rnn.forward(&weights, &[0.0; 2], Some(&[true]), &[0.0], &mut RnnTape::new());
}
