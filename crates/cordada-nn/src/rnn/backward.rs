//! Back-propagation through time: the steps in reverse, then the gradients of all steps at once.

use super::{Cell, Rnn, RnnTape, RnnWeights, grown, gru, lstm, starts_at};
use crate::Real;
use crate::kernel::{Start, column_sums, matmul, matmul_tn};

impl Rnn {
    /// Backward through time: `grad += (∂y/∂θ)ᵀ dy`, and `dx = (∂y/∂x)ᵀ dy` where asked for, at
    /// the point of the last `forward` on this tape.
    ///
    /// Gradients stop at starts: what a row did before one has no part in what it does after it.
    /// None flows into or out of the states at the two ends of the sequence, which count as
    /// constants; [`Rnn::vjp_with_state`] has them.
    ///
    /// # Shapes
    ///
    /// `x` and `starts` as in `forward`, with the same values; `dy`: `[T, B, H]`; `grad`: as θ;
    /// `dx`: as `x`.
    ///
    /// # Panics
    ///
    /// If the lengths do not agree.
    #[allow(clippy::too_many_arguments, reason = "forward's and the gradients, in Mlp's order")]
    pub fn vjp<T: Real>(
        &self,
        weights: &RnnWeights<T>,
        x: &[T],
        starts: Option<&[bool]>,
        tape: &mut RnnTape<T>,
        dy: &[T],
        grad: &mut [T],
        dx: Option<&mut [T]>,
    ) {
        self.through_time(weights, starts, tape, dy, None);
        self.gradients(weights, x, tape, grad, dx);
    }

    /// As [`Rnn::vjp`], with the gradients of the states: `d_state` holds the derivative by the
    /// state after the last step (beyond `dy`'s), and then that by the state before the first
    /// one (0 where the first step is a start).
    ///
    /// # Shapes
    ///
    /// As [`Rnn::vjp`]; `d_state`: `[B, S]`.
    ///
    /// # Panics
    ///
    /// As [`Rnn::vjp`].
    #[allow(clippy::too_many_arguments, reason = "one more than vjp, in the same order")]
    pub fn vjp_with_state<T: Real>(
        &self,
        weights: &RnnWeights<T>,
        x: &[T],
        starts: Option<&[bool]>,
        tape: &mut RnnTape<T>,
        dy: &[T],
        d_state: &mut [T],
        grad: &mut [T],
        dx: Option<&mut [T]>,
    ) {
        self.through_time(weights, starts, tape, dy, Some(d_state));
        self.gradients(weights, x, tape, grad, dx);
    }

    /// The steps in reverse: derivatives by the sums of the gates.
    fn through_time<T: Real>(
        &self,
        weights: &RnnWeights<T>,
        starts: Option<&[bool]>,
        tape: &mut RnnTape<T>,
        dy: &[T],
        d_state: Option<&mut [T]>,
    ) {
        let (isa, hidden) = (self.isa, self.hidden);
        let (steps, batch, width) = (tape.steps, tape.batch, self.width());
        let (n, m, wide) = (batch * hidden, batch * self.memory(), batch * width);
        assert_eq!(dy.len(), steps * n, "dy is [{steps}, {batch}, {hidden}]");
        let d_gates = grown(&mut tape.d_gates, steps * wide);
        let (dh, dc) = (grown(&mut tape.dh, n), grown(&mut tape.dc, m));
        if let Some(d_state) = &d_state {
            self.split(d_state, dh, dc);
        } else {
            dh.fill(T::ZERO);
            dc.fill(T::ZERO);
        }
        for t in (0..steps).rev() {
            let gates = &tape.gates[t * wide..][..wide];
            let (kept, dy) = (&tape.kept[t * n..][..n], &dy[t * n..][..n]);
            let (h_in, c_in) = (&tape.h[t * n..][..n], &tape.c[t * m..][..m]);
            let d_gates = &mut d_gates[t * wide..][..wide];
            match self.cell {
                Cell::Lstm => {
                    let tanh_c = kept;
                    let step = lstm::Backward { hidden, gates, c_in, tanh_c, dy, dh, dc, d_gates };
                    lstm::backward(isa, step);
                    // Nobody asks for the derivative by the first state.
                    if t > 0 || d_state.is_some() {
                        matmul(d_gates, &weights.h_back, Start::Zero, dh);
                    }
                }
                Cell::Gru => {
                    let all = grown(&mut tape.d_gates_h, steps * wide);
                    let d_gates_h = &mut all[t * wide..][..wide];
                    let n_h = kept;
                    let step =
                        gru::Backward { hidden, gates, n_h, h_in, dy, dh, d_gates, d_gates_h };
                    gru::backward(isa, step);
                    if t > 0 || d_state.is_some() {
                        matmul(d_gates_h, &weights.h_back, Start::Old, dh);
                    }
                }
            }
            self.reset(starts_at(starts, t, steps, batch), dh, dc);
        }
        if let Some(d_state) = d_state {
            self.join(dh, dc, d_state);
        }
    }

    /// The products over all steps at once.
    fn gradients<T: Real>(
        &self,
        weights: &RnnWeights<T>,
        x: &[T],
        tape: &mut RnnTape<T>,
        grad: &mut [T],
        dx: Option<&mut [T]>,
    ) {
        let (isa, width, rows) = (self.isa, self.width(), tape.steps * tape.batch);
        assert_eq!(x.len(), rows * self.inputs, "x is the last forward's");
        assert_eq!(grad.len(), self.num_params(), "length of the gradient");
        let h_in = &tape.h[..rows * self.hidden];
        let d_x = &tape.d_gates[..rows * width];
        let d_h = match self.cell {
            Cell::Lstm => d_x,
            Cell::Gru => &tape.d_gates_h[..rows * width],
        };
        let (weight_ih, rest) = grad.split_at_mut(width * self.inputs);
        let (weight_hh, biases) = rest.split_at_mut(width * self.hidden);
        matmul_tn(isa, d_x, x, (width, self.inputs), weight_ih);
        matmul_tn(isa, d_h, h_in, (width, self.hidden), weight_hh);
        for (d, bias) in [d_x, d_h].into_iter().zip(biases.chunks_exact_mut(width)) {
            column_sums(isa, d, bias);
        }
        if let Some(dx) = dx {
            matmul(d_x, &weights.x_back, Start::Zero, dx);
        }
    }
}
