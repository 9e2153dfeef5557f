//! Recurrent networks, LSTM and GRU, as functions of a flat θ over whole sequences, with
//! back-propagation through time.
//!
//! One layer in one direction; layers are stacked and heads attached by the caller. θ is caller's
//! memory in the order and layout of `PyTorch`'s `nn.LSTM` and `nn.GRU`: `weight_ih` `[G·H, I]`,
//! `weight_hh` `[G·H, H]`, `bias_ih` `[G·H]`, `bias_hh` `[G·H]`, where G is the number of gates.
//!
//! The products with the inputs of a whole sequence are one matrix product, as are the gradients
//! of the weights; only the products with the state go step by step. As every row of a product
//! has the same bits whatever it is computed with, a sequence has the bits of its single steps.

use crate::kernel::{Isa, Panels, Start, add_assign, matmul};
use crate::mlp::grown;
use crate::{ParamInfo, Real};

mod backward;
mod block;
mod cell;
mod gru;
mod lstm;

#[cfg(test)]
mod tests;

pub use cell::Cell;

/// A recurrent network: shapes only, no numbers.
#[derive(Clone, Debug)]
pub struct Rnn {
    isa: Isa,
    cell: Cell,
    inputs: usize,
    hidden: usize,
}

/// θ of one [`Rnn`], packed for the products: made by [`Rnn::pack`] once per optimizer step.
#[derive(Clone, Debug)]
pub struct RnnWeights<T> {
    /// `W_ihᵀ`: `[I, G·H]`, and `W_ih` for the way back.
    x: Panels<T>,
    x_back: Panels<T>,
    /// `W_hhᵀ`: `[H, G·H]`, and `W_hh` for the way back.
    h: Panels<T>,
    h_back: Panels<T>,
    /// What the products with x start from: LSTM: `bias_ih + bias_hh`; GRU: `bias_ih`.
    bias_x: Vec<T>,
    /// What the GRU's products with h start from, `bias_hh`; empty for an LSTM.
    bias_h: Vec<T>,
}

/// What the last `forward` or `step` leaves for `vjp`, and working memory. It grows to the longest
/// sequence seen and is reused after that.
#[derive(Clone, Debug, Default)]
pub struct RnnTape<T> {
    steps: usize,
    batch: usize,
    /// Gates, after their functions: `[T, B, G·H]`.
    gates: Vec<T>,
    /// h before each step (0 at a start) and, at T, after the last: `[T + 1, B, H]`.
    h: Vec<T>,
    /// c, as h; empty for a GRU.
    c: Vec<T>,
    /// LSTM: tanh c′; GRU: W_h h + b_h of n: `[T, B, H]`.
    kept: Vec<T>,
    /// h after each step: `[T, B, H]`.
    y: Vec<T>,
    /// The GRU's products with h at one step: `[B, G·H]`.
    product: Vec<T>,
    /// Derivatives by the sums that the gates are functions of, and, where they differ (n of the
    /// GRU), by the part of them that comes from h: `[T, B, G·H]`.
    d_gates: Vec<T>,
    d_gates_h: Vec<T>,
    /// Derivatives by the state, on their way back: `[B, H]`.
    dh: Vec<T>,
    dc: Vec<T>,
}

impl Rnn {
    /// Lays out the parameters, for the fastest instruction set of this processor.
    ///
    /// # Panics
    ///
    /// If a width is 0.
    pub fn new(cell: Cell, inputs: usize, hidden: usize) -> Self {
        Self::with_isa(cell, inputs, hidden, Isa::detect())
    }

    /// As [`Rnn::new`], for a given instruction set.
    ///
    /// # Panics
    ///
    /// As [`Rnn::new`].
    pub fn with_isa(cell: Cell, inputs: usize, hidden: usize, isa: Isa) -> Self {
        assert!(inputs > 0 && hidden > 0, "a cell is not empty: {inputs} inputs, {hidden} units");
        Self { isa, cell, inputs, hidden }
    }

    /// Length of θ.
    pub fn num_params(&self) -> usize {
        self.width() * (self.inputs + self.hidden + 2)
    }

    /// Which cell it is.
    pub fn cell(&self) -> Cell {
        self.cell
    }

    /// Width I of the input.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Number H of units: width of the output.
    pub fn hidden(&self) -> usize {
        self.hidden
    }

    /// Width S of a row of the state: h for a GRU, h and then c for an LSTM.
    pub fn state_len(&self) -> usize {
        self.hidden + self.memory()
    }

    /// The instruction set that its products use.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Floating-point operations of the matrix products of one step of one row.
    pub fn forward_flops(&self) -> usize {
        2 * (self.inputs + self.hidden) * self.width()
    }

    /// Name, shape and place of every parameter tensor, in θ's order.
    pub fn params(&self) -> Vec<ParamInfo> {
        let mut start = 0;
        let mut param = |name: &str, shape: Vec<usize>| {
            let end = start + shape.iter().product::<usize>();
            let range = std::mem::replace(&mut start, end)..end;
            ParamInfo { name: name.to_owned(), shape, range }
        };
        vec![
            param("weight_ih", vec![self.width(), self.inputs]),
            param("weight_hh", vec![self.width(), self.hidden]),
            param("bias_ih", vec![self.width()]),
            param("bias_hh", vec![self.width()]),
        ]
    }

    /// Room for packed weights of this shape.
    pub fn weights<T: Real>(&self) -> RnnWeights<T> {
        let (isa, width) = (self.isa, self.width());
        RnnWeights {
            x: Panels::new(isa, self.inputs, width),
            x_back: Panels::new(isa, width, self.inputs),
            h: Panels::new(isa, self.hidden, width),
            h_back: Panels::new(isa, width, self.hidden),
            bias_x: vec![T::ZERO; width],
            bias_h: match self.cell {
                Cell::Lstm => Vec::new(),
                Cell::Gru => vec![T::ZERO; width],
            },
        }
    }

    /// Packs θ. What the other functions compute with is the packed copy.
    ///
    /// # Panics
    ///
    /// If θ has another length or `weights` another shape.
    pub fn pack<T: Real>(&self, theta: &[T], weights: &mut RnnWeights<T>) {
        assert_eq!(theta.len(), self.num_params(), "length of θ");
        let (weight_ih, rest) = theta.split_at(self.width() * self.inputs);
        let (weight_hh, biases) = rest.split_at(self.width() * self.hidden);
        let (bias_ih, bias_hh) = biases.split_at(self.width());
        weights.x.pack_transposed(weight_ih);
        weights.x_back.pack(weight_ih);
        weights.h.pack_transposed(weight_hh);
        weights.h_back.pack(weight_hh);
        weights.bias_x.copy_from_slice(bias_ih);
        match self.cell {
            Cell::Lstm => add_assign(self.isa, &mut weights.bias_x, bias_hh),
            Cell::Gru => weights.bias_h.copy_from_slice(bias_hh),
        }
    }

    /// One step: changes the state of each row and returns its h, with the bits that `forward`
    /// gives. To start an episode, set the row of the state to 0 first.
    ///
    /// # Shapes
    ///
    /// `x`: `[B, I]`; `state`: `[B, S]`; result: `[B, H]`, in the tape.
    ///
    /// # Panics
    ///
    /// If the lengths do not agree or B is 0.
    pub fn step<'t, T: Real>(
        &self,
        weights: &RnnWeights<T>,
        x: &[T],
        state: &mut [T],
        tape: &'t mut RnnTape<T>,
    ) -> &'t [T] {
        assert_eq!(
            x.len() * self.state_len(),
            state.len() * self.inputs,
            "x is [B, {}], the state [B, {}]",
            self.inputs,
            self.state_len()
        );
        self.forward(weights, x, None, state, tape);
        self.last_state(tape, state);
        &tape.y[..tape.batch * self.hidden]
    }

    /// A whole sequence: h after each step.
    ///
    /// The rows of the state for which `starts` says so are 0 before that step, whatever `state`
    /// or the step before left.
    ///
    /// # Shapes
    ///
    /// `x`: `[T, B, I]`; `starts`: `[T, B]`; `state`: `[B, S]`, before the first step; result:
    /// `[T, B, H]`, in the tape. B follows from `state`, T from `x`.
    ///
    /// # Panics
    ///
    /// If the lengths do not agree or B is 0.
    pub fn forward<'t, T: Real>(
        &self,
        weights: &RnnWeights<T>,
        x: &[T],
        starts: Option<&[bool]>,
        state: &[T],
        tape: &'t mut RnnTape<T>,
    ) -> &'t [T] {
        let batch = state.len() / self.state_len();
        assert!(batch > 0 && state.len() == batch * self.state_len(), "the state is [B, S], B > 0");
        let steps = x.len() / (batch * self.inputs);
        assert_eq!(x.len(), steps * batch * self.inputs, "x is [T, {batch}, {}]", self.inputs);
        (tape.steps, tape.batch) = (steps, batch);
        let (width, n, m) = (self.width(), batch * self.hidden, batch * self.memory());
        let gates = grown(&mut tape.gates, steps * batch * width);
        let h = grown(&mut tape.h, (steps + 1) * n);
        let c = grown(&mut tape.c, (steps + 1) * m);
        let kept = grown(&mut tape.kept, steps * n);
        let y = grown(&mut tape.y, steps * n);
        self.split(state, &mut h[..n], &mut c[..m]);
        matmul(x, &weights.x, Start::Row(&weights.bias_x), gates);
        for t in 0..steps {
            let (h_in, h) = h[t * n..][..2 * n].split_at_mut(n);
            let (c_in, c) = c[t * m..][..2 * m].split_at_mut(m);
            self.reset(starts_at(starts, t, steps, batch), h_in, c_in);
            let gates = &mut gates[t * batch * width..][..batch * width];
            let (kept, y) = (&mut kept[t * n..][..n], &mut y[t * n..][..n]);
            match self.cell {
                Cell::Lstm => {
                    matmul(h_in, &weights.h, Start::Old, gates);
                    let hidden = self.hidden;
                    let step = lstm::Forward { hidden, gates, c_in, c, tanh_c: kept, h, y };
                    lstm::forward(self.isa, step);
                }
                Cell::Gru => {
                    let product = grown(&mut tape.product, batch * width);
                    matmul(h_in, &weights.h, Start::Row(&weights.bias_h), product);
                    let hidden = self.hidden;
                    let step = gru::Forward { hidden, gates, product, h_in, n_h: kept, h, y };
                    gru::forward(self.isa, step);
                }
            }
        }
        y
    }

    /// The state after the last step of the last `forward` on this tape.
    ///
    /// # Shapes
    ///
    /// `state`: `[B, S]`.
    ///
    /// # Panics
    ///
    /// If it has another length.
    pub fn last_state<T: Real>(&self, tape: &RnnTape<T>, state: &mut [T]) {
        let (n, m) = (tape.batch * self.hidden, tape.batch * self.memory());
        self.join(&tape.h[tape.steps * n..][..n], &tape.c[tape.steps * m..][..m], state);
    }

    /// G·H, the width of all gates.
    fn width(&self) -> usize {
        self.cell.gates() * self.hidden
    }

    /// Width of a row of c: none in a GRU.
    fn memory(&self) -> usize {
        match self.cell {
            Cell::Lstm => self.hidden,
            Cell::Gru => 0,
        }
    }

    /// Copies the state of all rows, `[B, S]`, into h and c.
    fn split<T: Real>(&self, state: &[T], h: &mut [T], c: &mut [T]) {
        assert_eq!(state.len(), h.len() + c.len(), "the state is [B, {}]", self.state_len());
        let (n, m) = (self.hidden, self.memory());
        for (b, row) in state.chunks_exact(n + m).enumerate() {
            h[b * n..][..n].copy_from_slice(&row[..n]);
            c[b * m..][..m].copy_from_slice(&row[n..]);
        }
    }

    /// The reverse of `split`.
    fn join<T: Real>(&self, h: &[T], c: &[T], state: &mut [T]) {
        assert_eq!(state.len(), h.len() + c.len(), "the state is [B, {}]", self.state_len());
        let (n, m) = (self.hidden, self.memory());
        for (b, row) in state.chunks_exact_mut(n + m).enumerate() {
            row[..n].copy_from_slice(&h[b * n..][..n]);
            row[n..].copy_from_slice(&c[b * m..][..m]);
        }
    }

    /// Sets the rows of h and c that start to 0.
    fn reset<T: Real>(&self, starts: Option<&[bool]>, h: &mut [T], c: &mut [T]) {
        let (n, m) = (self.hidden, self.memory());
        for (b, _) in starts.into_iter().flatten().enumerate().filter(|(_, start)| **start) {
            h[b * n..][..n].fill(T::ZERO);
            c[b * m..][..m].fill(T::ZERO);
        }
    }
}

impl<T: Real> RnnTape<T> {
    /// An empty tape.
    pub fn new() -> Self {
        Self::default()
    }
}

/// The rows of `starts`, `[T, B]`, of step t.
fn starts_at(starts: Option<&[bool]>, t: usize, steps: usize, batch: usize) -> Option<&[bool]> {
    let starts = starts?;
    assert_eq!(starts.len(), steps * batch, "starts are [{steps}, {batch}]");
    Some(&starts[t * batch..][..batch])
}
