//! The head: log-probabilities and entropies of chosen tokens, values, and the way back from ψ.
//!
//! Logits exist for a limited number of rows at a time, never for a whole batch times the whole
//! vocabulary. Rows are split among threads, a row's sum over the vocabulary never is, so that the
//! limit does not change a bit.

use std::ops::Range;

use cordada_nn::kernel::{Isa, Start, View, add_assign, dot, matmul, matmul_tn_view};
use cordada_nn::{Real, token_entropy, token_kl, token_kl_vjp, token_log_sum_exp, token_vjp};

use crate::parallel::Threads;
use crate::transformer::PackedLinear;

/// Numbers of logits that are kept from the forward pass to the backward pass; for more targets
/// they are computed again.
const KEPT: usize = 1 << 22;
/// Numbers of logits of one thread where they are not kept: 8 MiB of `f32`.
const BLOCK: usize = 1 << 21;
/// Rows of a block at least, for products of a fair size.
const MIN_ROWS: usize = 32;
/// Lines of the head's gradient that one task computes.
const LINES: usize = 192;

/// A linear function of the hidden state: the critic's value of a state, or a reward model's score.
#[derive(Clone, Debug, PartialEq)]
pub struct ValueHead<T> {
    /// Weight, then bias: `[d + 1]`.
    pub theta: Vec<T>,
    /// Whether its gradient stops here instead of going on into the model.
    pub detached: bool,
}

/// What the head is asked about: one row of hidden state for every target.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Targets<'a, T> {
    /// `[targets, d]`.
    pub(crate) hidden: &'a [T],
    /// `[targets]`.
    pub(crate) tokens: &'a [u32],
    /// 1 / temperature.
    pub(crate) scale: T,
    /// ln π of a reference over all tokens, which the exact KL is taken to: `[targets, V]`, or
    /// empty.
    pub(crate) reference: &'a [T],
}

/// What it answers, `[targets]` each, and what the way back needs.
#[derive(Clone, Debug, Default)]
pub(crate) struct HeadTape<T> {
    pub(crate) log_prob: Vec<T>,
    pub(crate) entropy: Vec<T>,
    /// Empty without a value head.
    pub(crate) value: Vec<T>,
    /// Empty without a reference.
    pub(crate) kl: Vec<T>,
    lse: Vec<T>,
    logits: Vec<T>,
}

/// Derivatives of an objective, `[targets]` each.
#[derive(Clone, Debug, Default)]
pub(crate) struct HeadBack<T> {
    /// ψ: with respect to log π.
    pub(crate) log_prob: Vec<T>,
    pub(crate) entropy: Vec<T>,
    pub(crate) value: Vec<T>,
    pub(crate) kl: Vec<T>,
}

impl<T: Real> HeadBack<T> {
    /// Zeros, as many as the forward pass has answers.
    pub(crate) fn clear(&mut self, tape: &HeadTape<T>) {
        for (buffer, len) in [
            (&mut self.log_prob, tape.log_prob.len()),
            (&mut self.entropy, tape.entropy.len()),
            (&mut self.value, tape.value.len()),
            (&mut self.kl, tape.kl.len()),
        ] {
            buffer.clear();
            buffer.resize(len, T::ZERO);
        }
    }
}

/// The output matrix.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head<'a, T> {
    pub(crate) isa: Isa,
    pub(crate) packed: &'a PackedLinear<T>,
    pub(crate) hidden_size: usize,
    pub(crate) vocab_size: usize,
}

/// One thread's rows of a block.
struct Piece<'a, T> {
    hidden: &'a [T],
    tokens: &'a [u32],
    logits: &'a mut [T],
    lse: &'a mut [T],
    log_prob: &'a mut [T],
    entropy: &'a mut [T],
    psi: &'a [T],
    d_entropy: &'a [T],
    d_hidden: &'a mut [T],
    /// The last three are empty without a reference.
    reference: &'a [T],
    kl: &'a mut [T],
    d_kl: &'a [T],
}

impl<T: Real> Head<'_, T> {
    /// Log-probabilities, entropies and values of all targets.
    pub(crate) fn forward(
        &self,
        t: Targets<'_, T>,
        value_head: Option<&ValueHead<T>>,
        tape: &mut HeadTape<T>,
        threads: &Threads,
    ) {
        let n = t.tokens.len();
        for buffer in [&mut tape.log_prob, &mut tape.entropy, &mut tape.lse] {
            buffer.resize(n, T::ZERO);
        }
        tape.kl.resize(if t.reference.is_empty() { 0 } else { n }, T::ZERO);
        let rows = block_rows(n, self.vocab_size, threads.count());
        tape.logits.resize(rows * self.vocab_size, T::ZERO);
        for block in blocks(n, rows) {
            let mut pieces = self.pieces(t, tape, None, &block, threads.count());
            threads.for_each(&mut pieces, |piece| self.scores(t.scale, piece));
        }
        tape.value.clear();
        if let Some(head) = value_head {
            let (weight, bias) = head.theta.split_at(self.hidden_size);
            let rows = t.hidden.chunks_exact(self.hidden_size);
            tape.value.extend(rows.map(|x| dot(self.isa, x, weight) + bias[0]));
        }
    }

    fn scores(&self, scale: T, p: &mut Piece<'_, T>) {
        matmul(p.hidden, &self.packed.forward, Start::Zero, p.logits);
        token_log_sum_exp(self.isa, p.logits, scale, p.lse);
        token_entropy(self.isa, p.logits, p.lse, p.entropy);
        let rows = p.logits.chunks_exact(self.vocab_size).zip(&*p.lse).zip(p.tokens);
        for (out, ((z, &lse), &token)) in p.log_prob.iter_mut().zip(rows) {
            *out = z[token as usize] - lse;
        }
        if !p.reference.is_empty() {
            token_kl(self.isa, p.logits, p.lse, p.reference, p.kl);
        }
    }

    /// ln π over all tokens, `[targets, V]`: for small vocabularies.
    pub(crate) fn distributions(&self, t: Targets<'_, T>, threads: &Threads) -> Vec<T> {
        let (n, v, d) = (t.tokens.len(), self.vocab_size, self.hidden_size);
        let mut log_probs = vec![T::ZERO; n * v];
        let rows = n.div_ceil(threads.count()).max(1);
        let parts = t.hidden.chunks(rows * d).zip(log_probs.chunks_mut(rows * v));
        threads.for_each(&mut parts.collect::<Vec<_>>(), |(hidden, out)| {
            matmul(hidden, &self.packed.forward, Start::Zero, out);
            let mut lse = vec![T::ZERO; out.len() / v];
            token_log_sum_exp(self.isa, out, t.scale, &mut lse);
            for (row, lse) in out.chunks_exact_mut(v).zip(lse) {
                for z in row {
                    *z -= lse;
                }
            }
        });
        log_probs
    }

    /// Adds the gradient of the output matrix to `grad` (`[V, d]`) if it is trained, and writes the
    /// derivative of the hidden states.
    #[allow(clippy::too_many_arguments, reason = "what forward got and left, and the gradients")]
    pub(crate) fn backward(
        &self,
        t: Targets<'_, T>,
        tape: &mut HeadTape<T>,
        back: &HeadBack<T>,
        mut grad: Option<&mut [T]>,
        d_hidden: &mut [T],
        threads: &Threads,
    ) {
        let (n, v, d) = (t.tokens.len(), self.vocab_size, self.hidden_size);
        let rows = block_rows(n, self.vocab_size, threads.count());
        let kept = rows == n;
        let backward = self.packed.backward.as_ref().expect("weights packed for training");
        for block in blocks(n, rows) {
            let way_back = Some((back, &mut *d_hidden));
            let mut pieces = self.pieces(t, tape, way_back, &block, threads.count());
            threads.for_each(&mut pieces, |p| {
                if !kept {
                    self.scores(t.scale, p);
                }
                let by_kl = self.by_kl(t.scale, p);
                token_vjp(
                    self.isa,
                    p.logits,
                    t.scale,
                    p.lse,
                    p.entropy,
                    p.tokens,
                    p.psi,
                    p.d_entropy,
                );
                if let Some(by_kl) = by_kl {
                    add_assign(self.isa, p.logits, &by_kl);
                }
                matmul(p.logits, backward, Start::Zero, p.d_hidden);
            });
            if let Some(grad) = &mut grad {
                let logits = View::dense(&tape.logits[..block.len() * v], v);
                let hidden = View::dense(&t.hidden[block.start * d..block.end * d], d);
                let mut parts: Vec<_> = grad.chunks_mut(LINES * d).enumerate().collect();
                threads.for_each(&mut parts, |(i, grad)| {
                    let lines = *i * LINES..*i * LINES + grad.len() / d;
                    matmul_tn_view(self.isa, logits, hidden, lines, grad);
                });
            }
        }
    }

    /// The KL's part of the logits' derivative, before the logits are overwritten.
    fn by_kl(&self, scale: T, p: &Piece<'_, T>) -> Option<Vec<T>> {
        let mut d = (!p.reference.is_empty()).then(|| vec![T::ZERO; p.logits.len()])?;
        token_kl_vjp(self.isa, p.logits, scale, p.lse, p.reference, p.kl, p.d_kl, &mut d);
        Some(d)
    }

    /// Cuts a block into one piece for each thread.
    fn pieces<'a>(
        &self,
        t: Targets<'a, T>,
        tape: &'a mut HeadTape<T>,
        back: Option<(&'a HeadBack<T>, &'a mut [T])>,
        block: &Range<usize>,
        threads: usize,
    ) -> Vec<Piece<'a, T>> {
        let (d, v) = (self.hidden_size, self.vocab_size);
        let rows = block.len().div_ceil(threads).max(1);
        let (back, d_hidden) = back.map_or((None, None), |(b, d)| (Some(b), Some(d)));
        let d_hidden: &mut [T] =
            d_hidden.map_or(&mut [], |x| &mut x[block.start * d..block.end * d]);
        let mut d_hidden = d_hidden.chunks_mut(rows * d);
        let cut = |x: &'a [T]| x[block.clone()].chunks(rows);
        let mut psi = back.map(|b| (cut(&b.log_prob), cut(&b.entropy)));
        // Empty slices give no chunks.
        let with_reference = |x: Range<usize>| if t.reference.is_empty() { 0..0 } else { x };
        let reference = with_reference(block.start * v..block.end * v);
        let mut reference = t.reference[reference].chunks(rows * v);
        let mut kl = tape.kl[with_reference(block.clone())].chunks_mut(rows);
        let mut d_kl = back.map(|b| b.kl[with_reference(block.clone())].chunks(rows));
        let hidden = t.hidden[block.start * d..block.end * d].chunks(rows * d);
        let tokens = t.tokens[block.clone()].chunks(rows);
        let logits = tape.logits[..block.len() * v].chunks_mut(rows * v);
        let outputs = tape.lse[block.clone()]
            .chunks_mut(rows)
            .zip(tape.log_prob[block.clone()].chunks_mut(rows))
            .zip(tape.entropy[block.clone()].chunks_mut(rows));
        let pieces = hidden.zip(tokens).zip(logits).zip(outputs);
        pieces
            .map(|(((hidden, tokens), logits), ((lse, log_prob), entropy))| Piece {
                hidden,
                tokens,
                logits,
                lse,
                log_prob,
                entropy,
                psi: psi.as_mut().and_then(|p| p.0.next()).unwrap_or(&[]),
                d_entropy: psi.as_mut().and_then(|p| p.1.next()).unwrap_or(&[]),
                d_hidden: d_hidden.next().unwrap_or(&mut []),
                reference: reference.next().unwrap_or(&[]),
                kl: kl.next().unwrap_or(&mut []),
                d_kl: d_kl.as_mut().and_then(Iterator::next).unwrap_or(&[]),
            })
            .collect()
    }
}

impl<T: Real> ValueHead<T> {
    /// A head that gives 0 everywhere.
    pub fn zeros(hidden_size: usize, detached: bool) -> Self {
        Self { theta: vec![T::ZERO; hidden_size + 1], detached }
    }

    /// Adds its gradient to `grad`, and to the hidden states' derivative unless it is detached.
    pub(crate) fn backward(
        &self,
        isa: Isa,
        hidden: &[T],
        d_value: &[T],
        grad: &mut [T],
        d_hidden: &mut [T],
    ) {
        let d = self.theta.len() - 1;
        let mut row = vec![T::ZERO; d];
        let rows = hidden.chunks_exact(d).zip(d_hidden.chunks_exact_mut(d));
        for ((x, dx), &dv) in rows.zip(d_value) {
            for (row, &x) in row.iter_mut().zip(x) {
                *row = dv * x;
            }
            add_assign(isa, &mut grad[..d], &row);
            grad[d] += dv;
            if !self.detached {
                for (dx, &w) in dx.iter_mut().zip(&self.theta) {
                    *dx += dv * w;
                }
            }
        }
    }
}

/// Rows of logits that a block holds.
pub(crate) fn block_rows(targets: usize, vocab_size: usize, threads: usize) -> usize {
    if targets * vocab_size <= KEPT {
        targets
    } else {
        (BLOCK / vocab_size).max(MIN_ROWS) * threads
    }
}

fn blocks(n: usize, rows: usize) -> impl Iterator<Item = Range<usize>> {
    (0..n).step_by(rows.max(1)).map(move |from| from..(from + rows).min(n))
}
