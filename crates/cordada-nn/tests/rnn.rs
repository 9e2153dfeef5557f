//! The recurrent cells' derivatives against finite differences, and their promises about bits.

use allocation_counter::measure;
use cordada_nn::kernel::Isa;
use cordada_nn::{Cell, Rnn, RnnTape};
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

fn singles(n: usize, seed: u64) -> Vec<f32> {
    numbers(n, seed).iter().map(|&x| x as f32).collect()
}

/// About a quarter of the steps start an episode, among them the first of row 0.
fn starts(n: usize) -> Vec<bool> {
    numbers(n, 9).iter().enumerate().map(|(i, x)| i == 0 || *x > 0.25).collect()
}

/// A sequence whose loss is Σ dy · y + Σ d_last · (state after the last step).
struct Problem {
    rnn: Rnn,
    starts: Option<Vec<bool>>,
    dy: Vec<f64>,
    d_last: Vec<f64>,
}

impl Problem {
    fn loss(&self, theta: &[f64], x: &[f64], state: &[f64]) -> f64 {
        let (mut weights, mut tape) = (self.rnn.weights(), RnnTape::new());
        self.rnn.pack(theta, &mut weights);
        let y = self.rnn.forward(&weights, x, self.starts.as_deref(), state, &mut tape);
        let outputs: f64 = y.iter().zip(&self.dy).map(|(y, d)| y * d).sum();
        let mut last = vec![0.0; state.len()];
        self.rnn.last_state(&tape, &mut last);
        outputs + last.iter().zip(&self.d_last).map(|(s, d)| s * d).sum::<f64>()
    }
}

const STEPS: usize = 5;
const BATCH: usize = 3;

/// Both cells with and without starts; more units than a vector has lanes.
fn each_problem(mut check: impl FnMut(&str, Problem, &[f64], &[f64], &[f64])) {
    for cell in Cell::ALL {
        for resets in [false, true] {
            let rnn = Rnn::new(cell, 3, 18);
            let theta: Vec<f64> = numbers(rnn.num_params(), 1).iter().map(|w| 1.5 * w).collect();
            let x = numbers(STEPS * BATCH * 3, 2);
            let state = numbers(BATCH * rnn.state_len(), 3);
            let problem = Problem {
                starts: resets.then(|| starts(STEPS * BATCH)),
                dy: numbers(STEPS * BATCH * 18, 4),
                d_last: vec![0.0; state.len()],
                rnn,
            };
            let what = format!("{}, starts {resets}", cell.name());
            check(&what, problem, &theta, &x, &state);
        }
    }
}

#[test]
fn vjp_agrees_with_finite_differences() {
    each_problem(|what, p, theta, x, state| {
        let (mut weights, mut tape) = (p.rnn.weights(), RnnTape::new());
        p.rnn.pack(theta, &mut weights);
        let starts = p.starts.as_deref();
        p.rnn.forward(&weights, x, starts, state, &mut tape);
        // Twice on one tape: it is left as it was, and the gradient is added to.
        let mut grad = vec![0.0; theta.len()];
        p.rnn.vjp(&weights, x, starts, &mut tape, &p.dy, &mut grad, None);
        let mut dx = vec![f64::NAN; x.len()];
        p.rnn.vjp(&weights, x, starts, &mut tape, &p.dy, &mut grad, Some(&mut dx));
        for g in &mut grad {
            *g *= 0.5;
        }
        assert_gradient(what, theta, &grad, 1e-7, |t| p.loss(t, x, state));
        assert_gradient(what, x, &dx, 1e-7, |x| p.loss(theta, x, state));
    });
}

#[test]
fn vjp_with_state_agrees_with_finite_differences() {
    each_problem(|what, mut p, theta, x, state| {
        p.d_last = numbers(state.len(), 5);
        let (mut weights, mut tape) = (p.rnn.weights(), RnnTape::new());
        p.rnn.pack(theta, &mut weights);
        let starts = p.starts.as_deref();
        p.rnn.forward(&weights, x, starts, state, &mut tape);
        let (mut grad, mut dx) = (vec![0.0; theta.len()], vec![f64::NAN; x.len()]);
        let mut d_state = p.d_last.clone();
        let (dy, dx_out) = (&p.dy, Some(&mut dx[..]));
        p.rnn.vjp_with_state(&weights, x, starts, &mut tape, dy, &mut d_state, &mut grad, dx_out);
        assert_gradient(what, theta, &grad, 1e-7, |t| p.loss(t, x, state));
        assert_gradient(what, x, &dx, 1e-7, |x| p.loss(theta, x, state));
        assert_gradient(what, state, &d_state, 1e-7, |s| p.loss(theta, x, s));
        if starts.is_some() {
            let row = &d_state[..p.rnn.state_len()];
            assert!(row.iter().all(|&d| d == 0.0), "{what}: row 0 starts at the first step");
        }
    });
}

#[test]
fn steps_give_the_bits_of_the_sequence() {
    const STEPS: usize = 6;
    for (cell, isa) in Cell::ALL.into_iter().flat_map(|c| Isa::available().map(move |i| (c, i))) {
        let rnn = Rnn::with_isa(cell, 7, 37, isa);
        let (mut weights, mut tape) = (rnn.weights::<f32>(), RnnTape::new());
        rnn.pack(&singles(rnn.num_params(), 6), &mut weights);
        for batch in [1, 3, 17] {
            let x = singles(STEPS * batch * 7, 7);
            let starts = starts(STEPS * batch);
            let mut state = singles(batch * rnn.state_len(), 8);
            let y = rnn.forward(&weights, &x, Some(&starts), &state, &mut tape).to_vec();
            let mut last = vec![0.0; state.len()];
            rnn.last_state(&tape, &mut last);
            for t in 0..STEPS {
                let rows = state.chunks_mut(rnn.state_len());
                for (row, _) in rows.zip(&starts[t * batch..]).filter(|(_, start)| **start) {
                    row.fill(0.0);
                }
                let x = &x[t * batch * 7..][..batch * 7];
                let h = rnn.step(&weights, x, &mut state, &mut tape);
                assert_eq!(h, &y[t * batch * 37..][..batch * 37], "{cell:?} {isa:?} {batch} {t}");
            }
            assert_eq!(state, last, "{cell:?} {isa:?} {batch}: the state after the last step");
        }
    }
}

#[test]
fn a_row_has_the_same_bits_whatever_the_batch() {
    const STEPS: usize = 4;
    for (cell, isa) in Cell::ALL.into_iter().flat_map(|c| Isa::available().map(move |i| (c, i))) {
        let rnn = Rnn::with_isa(cell, 5, 33, isa);
        let (mut weights, mut tape) = (rnn.weights::<f32>(), RnnTape::new());
        rnn.pack(&singles(rnn.num_params(), 1), &mut weights);
        let (x, starts) = (singles(STEPS * 17 * 5, 2), starts(STEPS * 17));
        let (state, dy) = (singles(17 * rnn.state_len(), 3), singles(STEPS * 17 * 33, 4));
        // Of rows `first..first + batch`: y and dx of each, step by step.
        let mut run = |first: usize, batch: usize| {
            fn rows<V: Copy>(all: &[V], width: usize, first: usize, batch: usize) -> Vec<V> {
                let steps = all.chunks(17 * width);
                steps.flat_map(|s| &s[first * width..][..batch * width]).copied().collect()
            }
            let (x, starts) = (rows(&x, 5, first, batch), rows(&starts, 1, first, batch));
            let s = rnn.state_len();
            let state = &state[first * s..][..batch * s];
            let y = rnn.forward(&weights, &x, Some(&starts), state, &mut tape).to_vec();
            let (mut grad, mut dx) = (vec![0.0; rnn.num_params()], vec![f32::NAN; x.len()]);
            let dy = rows(&dy, 33, first, batch);
            rnn.vjp(&weights, &x, Some(&starts), &mut tape, &dy, &mut grad, Some(&mut dx));
            (y, dx)
        };
        let (y, dx) = run(0, 17);
        for (first, batch) in [(0, 1), (16, 1), (2, 3), (5, 8)] {
            let (part_y, part_dx) = run(first, batch);
            for t in 0..STEPS {
                let at = t * 17 + first;
                let what = format!("{cell:?}, {isa:?}, {batch} rows from {first}, step {t}");
                assert_eq!(
                    part_y[t * batch * 33..][..batch * 33],
                    y[at * 33..][..batch * 33],
                    "{what}"
                );
                assert_eq!(
                    part_dx[t * batch * 5..][..batch * 5],
                    dx[at * 5..][..batch * 5],
                    "{what}"
                );
            }
        }
    }
}

#[test]
fn every_instruction_set_gives_the_same_bits() {
    for cell in Cell::ALL {
        let (x, starts) = (singles(4 * 5 * 6, 2), starts(4 * 5));
        let results: Vec<_> = Isa::available()
            .map(|isa| {
                let rnn = Rnn::with_isa(cell, 6, 40, isa);
                let (mut weights, mut tape) = (rnn.weights(), RnnTape::new());
                rnn.pack(&singles(rnn.num_params(), 1), &mut weights);
                let state = singles(5 * rnn.state_len(), 3);
                let y = rnn.forward(&weights, &x, Some(&starts), &state, &mut tape).to_vec();
                let (mut grad, mut dx) = (vec![0.0; rnn.num_params()], vec![0.0; x.len()]);
                rnn.vjp(&weights, &x, Some(&starts), &mut tape, &y, &mut grad, Some(&mut dx));
                (y, grad, dx)
            })
            .collect();
        for other in &results[1..] {
            assert_eq!(results[0], *other, "{cell:?}");
        }
    }
}

#[test]
fn a_start_forgets_even_what_is_not_a_number() {
    // The reset is a choice, not a product with 0.
    for cell in Cell::ALL {
        let rnn = Rnn::new(cell, 2, 20);
        let (mut weights, mut tape) = (rnn.weights::<f32>(), RnnTape::new());
        rnn.pack(&singles(rnn.num_params(), 1), &mut weights);
        let x = singles(2, 2);
        let zero = vec![0.0; rnn.state_len()];
        let y = rnn.forward(&weights, &x, None, &zero, &mut tape).to_vec();
        let state = vec![f32::NAN; rnn.state_len()];
        assert_eq!(rnn.forward(&weights, &x, Some(&[true]), &state, &mut tape), y, "{cell:?}");
        let kept = rnn.forward(&weights, &x, Some(&[false]), &state, &mut tape);
        assert!(kept.iter().all(|y| y.is_nan()), "{cell:?}: without a start it stays");
    }
}

#[test]
fn a_warm_network_allocates_nothing() {
    for cell in Cell::ALL {
        let rnn = Rnn::new(cell, 3, 20);
        let (mut weights, mut tape) = (rnn.weights::<f32>(), RnnTape::new());
        let theta = singles(rnn.num_params(), 1);
        let (x, dy, starts) = (singles(5 * 4 * 3, 2), singles(5 * 4 * 20, 3), starts(5 * 4));
        let (mut state, mut grad) = (singles(4 * rnn.state_len(), 4), vec![0.0; theta.len()]);
        let mut dx = x.clone();
        let mut train = |steps: usize, batch: usize| {
            let rows = steps * batch;
            let (x, dy, dx) = (&x[..rows * 3], &dy[..rows * 20], &mut dx[..rows * 3]);
            let (starts, state) = (Some(&starts[..rows]), &mut state[..batch * rnn.state_len()]);
            rnn.pack(&theta, &mut weights);
            rnn.step(&weights, &x[..batch * 3], state, &mut tape);
            rnn.forward(&weights, x, starts, state, &mut tape);
            rnn.vjp(&weights, x, starts, &mut tape, dy, &mut grad, Some(dx));
        };
        assert!(measure(|| train(5, 4)).count_total > 0, "the first call makes room");
        let warm = measure(|| {
            for (steps, batch) in [(5, 4), (3, 2), (5, 1)] {
                train(steps, batch);
            }
        });
        assert_eq!(warm.count_total, 0, "{cell:?}");
    }
}
