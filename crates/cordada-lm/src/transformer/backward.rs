//! The backward pass of the blocks, in two phases for every block: first the derivatives of all
//! activations, part by part of the batch; then the gradient of every matrix, line by line of the
//! matrix over all rows in their order. So each element of a gradient is one sum over ascending
//! rows, whatever the number of threads and however the batch was cut.

use std::ops::Range;

use cordada_nn::Real;
use cordada_nn::gated_vjp;
use cordada_nn::kernel::{Start, View, add_assign, column_sums, matmul, matmul_tn_view};
use cordada_nn::norm::{
    layer_norm_input_vjp, layer_norm_weight_vjp, rms_norm_input_vjp, rms_norm_weight_vjp,
};

use super::lora::Site;
use super::tape::{BackTape, Keep, sized};
use super::{Adapter, Chunk, PackedLinear, Transformer, Weights};
use crate::layout::{Linear, Norm};
use crate::parallel::Threads;

/// Lines of a matrix whose gradient one task computes.
const LINES: usize = 96;

/// What is trained, and the sums of its gradients.
#[derive(Debug)]
pub(crate) enum Trained<'a, T> {
    /// All parameters, the gradient as θ.
    Model(&'a mut [T]),
    /// An adapter alone.
    Adapter(&'a Adapter<T>, &'a mut [T]),
}

/// A part of a block's gradient.
struct Part<'a, T> {
    kind: Kind<'a>,
    grad: &'a mut [T],
}

enum Kind<'a> {
    Weight(Site, Range<usize>),
    Bias(Site),
    Norm(usize, &'a Norm),
    Heads,
}

/// dy Wᵀ: the way back through a matrix.
fn back<T: Real>(packed: &PackedLinear<T>, dy: &[T], dx: &mut [T]) {
    let backward = packed.backward.as_ref().expect("weights packed for training");
    matmul(dy, backward, Start::Zero, dx);
}

impl<T: Real> Transformer<T> {
    /// Backward from the derivative of what the head read (`chunk.d_hidden`), through all blocks.
    /// Adds to the gradients; leaves the derivative of x₀ in `chunk.dx`.
    pub(crate) fn backward(
        &self,
        w: &Weights<T>,
        adapter: Option<&Adapter<T>>,
        chunks: &mut [Chunk<T>],
        trained: &mut Trained<'_, T>,
        threads: &Threads,
    ) {
        threads.for_each(chunks, |chunk| self.predict_vjp(w, chunk));
        if let Trained::Model(grad) = trained {
            let norm = &self.layout.final_norm;
            let (dw, db) = norm_parts(grad, norm);
            for c in chunks.iter() {
                self.norm_gradient(&c.predicting, (&c.mean, &c.rstd), &c.d_hidden, dw, db);
            }
        }
        for l in (0..self.config.num_layers).rev() {
            threads.for_each(chunks, |chunk| {
                if chunk.kept == Keep::Inputs && l + 1 < self.config.num_layers {
                    chunk.hand_over(l + 1, l);
                    self.block_of(w, adapter, l, chunk);
                }
                self.block_vjp(w, adapter, l, chunk);
            });
            match trained {
                Trained::Model(grad) => self.block_gradient(l, chunks, grad, threads),
                Trained::Adapter(adapter, grad) => adapter_gradient(adapter, l, chunks, grad),
            }
        }
    }

    /// Through the last norm, back to the residual stream.
    fn predict_vjp(&self, w: &Weights<T>, chunk: &mut Chunk<T>) {
        let d = self.config.hidden_size;
        let Chunk { rows, predicting, mean, rstd, d_hidden, dx, back, .. } = chunk;
        let through = sized(&mut back.through, d_hidden.len());
        let norm = &self.layout.final_norm;
        self.norm_input_vjp(w, norm, predicting, (mean, rstd), d_hidden, through);
        let dx = sized(dx, rows.len() * d);
        dx.fill(T::ZERO);
        for (from, &row) in through.chunks_exact(d).zip(&rows.target_rows) {
            add_assign(self.isa, &mut dx[row as usize * d..][..d], from);
        }
    }

    /// Derivatives of all activations of a block. `chunk.dx` goes from its output to its input.
    fn block_vjp(
        &self,
        w: &Weights<T>,
        adapter: Option<&Adapter<T>>,
        l: usize,
        chunk: &mut Chunk<T>,
    ) {
        let c = &self.config;
        let (layout, packed) = (&self.layout.blocks[l], &w.blocks[l]);
        let lora = adapter.map(|a| &a.blocks[l]);
        let Chunk { rows, layers, dx, back: b, scratch, .. } = chunk;
        let (tape, n) = (&layers[l], rows.len());
        let BackTape { out, mid, mlp_in, attention_in, up, qkv, .. } = b;
        let [lora_qkv, lora_output, lora_up, lora_down] = &mut b.lora;
        let through = sized(&mut b.through, dx.len());

        out.clone_from(dx);
        let activated = sized(&mut b.activated, n * c.intermediate_size);
        back(&packed.down, out, activated);
        Adapter::apply_back(lora, Site::Down, out, activated, lora_down);
        let up = sized(up, n * layout.up.outputs);
        if c.gated() {
            gated_vjp(self.isa, c.activation, c.intermediate_size, &tape.up, activated, up);
        } else {
            up.copy_from_slice(activated);
            c.activation.chain(self.isa, &tape.up, &tape.activated, up);
        }
        let mlp_in = sized(mlp_in, dx.len());
        back(&packed.up, up, mlp_in);
        Adapter::apply_back(lora, Site::Up, up, mlp_in, lora_up);
        let stats = (&tape.mean[1][..], &tape.rstd[1][..]);
        self.norm_input_vjp(w, &layout.mlp_norm, &tape.mid, stats, mlp_in, through);
        add_assign(self.isa, dx, through);

        mid.clone_from(dx);
        let attended = sized(&mut b.attended, n * c.query_width());
        back(&packed.output, mid, attended);
        Adapter::apply_back(lora, Site::Output, mid, attended, lora_output);
        let qkv = sized(qkv, n * layout.qkv.outputs);
        qkv.fill(T::ZERO);
        let forward = (&tape.attended[..], &tape.lse[..]);
        self.attention.vjp(&tape.qkv, &rows.spans, forward, attended, qkv, scratch);
        if let Some(rotary) = &self.rotary {
            rotary.transpose(qkv, c.num_heads + c.num_kv_heads, &rows.positions);
        }
        if let Some((q, k)) = &layout.qk_norm {
            let weights = [&w.theta[q.clone()], &w.theta[k.clone()]];
            self.normalize_heads_vjp(qkv, weights, &tape.raw_qk, &tape.qk_rstd, &mut b.normed_qk);
        }
        let attention_in = sized(attention_in, dx.len());
        back(&packed.qkv, qkv, attention_in);
        Adapter::apply_back(lora, Site::Qkv, qkv, attention_in, lora_qkv);
        let stats = (&tape.mean[0][..], &tape.rstd[0][..]);
        self.norm_input_vjp(w, &layout.attention_norm, &tape.x, stats, attention_in, through);
        add_assign(self.isa, dx, through);
    }

    #[allow(clippy::too_many_arguments, reason = "what forward got and left, and the gradient")]
    fn norm_input_vjp(
        &self,
        w: &Weights<T>,
        norm: &Norm,
        x: &[T],
        (mean, rstd): (&[T], &[T]),
        dy: &[T],
        dx: &mut [T],
    ) {
        let weight = &w.theta[norm.weight.clone()];
        if norm.bias.is_some() {
            layer_norm_input_vjp(self.isa, x, weight, mean, rstd, dy, dx);
        } else {
            rms_norm_input_vjp(self.isa, x, weight, rstd, dy, dx);
        }
    }

    fn norm_gradient(
        &self,
        x: &[T],
        (mean, rstd): (&[T], &[T]),
        dy: &[T],
        dw: &mut [T],
        db: &mut [T],
    ) {
        if db.is_empty() {
            rms_norm_weight_vjp(self.isa, x, rstd, dy, dw);
        } else {
            layer_norm_weight_vjp(self.isa, x, mean, rstd, dy, dw, db);
        }
    }

    /// Backward through the norms of query and key heads, in place; keeps what came in.
    fn normalize_heads_vjp(
        &self,
        d_qkv: &mut [T],
        [q, k]: [&[T]; 2],
        raw: &[T],
        rstd: &[T],
        normed: &mut Vec<T>,
    ) {
        let c = &self.config;
        let (width, q_width) = (self.attention.row_width(), c.query_width());
        let (qk_width, heads) = (q_width + c.kv_width(), c.num_heads + c.num_kv_heads);
        let normed = sized(normed, raw.len());
        let kept = raw.chunks_exact(qk_width).zip(rstd.chunks_exact(heads));
        let rows = d_qkv.chunks_exact_mut(width).zip(normed.chunks_exact_mut(qk_width));
        for ((row, dy), (x, rstd)) in rows.zip(kept) {
            dy.copy_from_slice(&row[..qk_width]);
            let (dq, dk) = row[..qk_width].split_at_mut(q_width);
            let (q_rstd, k_rstd) = rstd.split_at(c.num_heads);
            let ((xq, xk), (yq, yk)) = (x.split_at(q_width), dy.split_at(q_width));
            rms_norm_input_vjp(self.isa, xq, q, q_rstd, yq, dq);
            rms_norm_input_vjp(self.isa, xk, k, k_rstd, yk, dk);
        }
    }

    /// Adds the gradients of all parameters of a block.
    fn block_gradient(&self, l: usize, chunks: &[Chunk<T>], grad: &mut [T], threads: &Threads) {
        let layout = &self.layout.blocks[l];
        let mut parts = Vec::new();
        let mut cut = Cut { grad, offset: 0 };
        cut.norm(0, &layout.attention_norm, &mut parts);
        cut.linear(Site::Qkv, &layout.qkv, &mut parts);
        if let Some((q, k)) = &layout.qk_norm {
            parts.push(Part { kind: Kind::Heads, grad: cut.take(q.start..k.end) });
        }
        cut.linear(Site::Output, &layout.output, &mut parts);
        cut.norm(1, &layout.mlp_norm, &mut parts);
        cut.linear(Site::Up, &layout.up, &mut parts);
        cut.linear(Site::Down, &layout.down, &mut parts);
        threads.for_each(&mut parts, |part| {
            for chunk in chunks {
                self.part_gradient(l, chunk, part);
            }
        });
    }

    fn part_gradient(&self, l: usize, chunk: &Chunk<T>, part: &mut Part<'_, T>) {
        let (tape, b) = (&chunk.layers[l], &chunk.back);
        let grad = &mut *part.grad;
        match &part.kind {
            Kind::Weight(site, lines) => {
                let (x, dy) = sides(chunk, l, *site);
                let rows = chunk.rows.len();
                let x = View::dense(x, x.len() / rows);
                let dy = View::dense(dy, dy.len() / rows);
                matmul_tn_view(self.isa, dy, x, lines.clone(), grad);
            }
            Kind::Bias(site) => column_sums(self.isa, sides(chunk, l, *site).1, grad),
            Kind::Norm(half, norm) => {
                let (dw, db) = grad.split_at_mut(norm.weight.len());
                let (x, dy) = match half {
                    0 => (&tape.x, &b.attention_in),
                    _ => (&tape.mid, &b.mlp_in),
                };
                self.norm_gradient(x, (&tape.mean[*half], &tape.rstd[*half]), dy, dw, db);
            }
            Kind::Heads => {
                let c = &self.config;
                let (dq, dk) = grad.split_at_mut(c.head_dim);
                let qk_width = c.query_width() + c.kv_width();
                let heads = c.num_heads + c.num_kv_heads;
                let rows =
                    tape.raw_qk.chunks_exact(qk_width).zip(b.normed_qk.chunks_exact(qk_width));
                for ((x, dy), rstd) in rows.zip(tape.qk_rstd.chunks_exact(heads)) {
                    let (q_rstd, k_rstd) = rstd.split_at(c.num_heads);
                    let at = c.query_width();
                    rms_norm_weight_vjp(self.isa, &x[..at], q_rstd, &dy[..at], dq);
                    rms_norm_weight_vjp(self.isa, &x[at..], k_rstd, &dy[at..], dk);
                }
            }
        }
    }
}

/// Input of a linear layer, and the derivative of its output.
fn sides<T: Real>(chunk: &Chunk<T>, l: usize, site: Site) -> (&[T], &[T]) {
    let (tape, back) = (&chunk.layers[l], &chunk.back);
    match site {
        Site::Qkv => (&tape.attention_in, &back.qkv),
        Site::Output => (&tape.attended, &back.mid),
        Site::Up => (&tape.mlp_in, &back.up),
        Site::Down => (&tape.activated, &back.out),
    }
}

fn adapter_gradient<T: Real>(adapter: &Adapter<T>, l: usize, chunks: &[Chunk<T>], grad: &mut [T]) {
    for chunk in chunks {
        for (i, site) in [Site::Qkv, Site::Output, Site::Up, Site::Down].into_iter().enumerate() {
            let (x, dy) = sides(chunk, l, site);
            let (kept, kept_back) = (&chunk.layers[l].lora[i], &chunk.back.lora[i]);
            adapter.gradient(l, site, x, dy, kept, kept_back, grad);
        }
    }
}

/// Weight's and bias's gradients of a norm; the second is empty without a bias.
fn norm_parts<'g, T>(grad: &'g mut [T], norm: &Norm) -> (&'g mut [T], &'g mut [T]) {
    let end = norm.bias.as_ref().map_or(norm.weight.end, |b| b.end);
    grad[norm.weight.start..end].split_at_mut(norm.weight.len())
}

/// Cuts a gradient into parts, in ascending order.
struct Cut<'g, T> {
    grad: &'g mut [T],
    offset: usize,
}

impl<'g, T> Cut<'g, T> {
    fn take(&mut self, range: Range<usize>) -> &'g mut [T] {
        let grad = std::mem::take(&mut self.grad);
        let (_, grad) = grad.split_at_mut(range.start - self.offset);
        let (part, rest) = grad.split_at_mut(range.len());
        self.grad = rest;
        self.offset = range.end;
        part
    }

    fn norm<'a>(&mut self, half: usize, norm: &'a Norm, parts: &mut Vec<Part<'a, T>>)
    where
        'g: 'a,
    {
        let end = norm.bias.as_ref().map_or(norm.weight.end, |b| b.end);
        let grad = self.take(norm.weight.start..end);
        parts.push(Part { kind: Kind::Norm(half, norm), grad });
    }

    fn linear<'a>(&mut self, site: Site, linear: &Linear, parts: &mut Vec<Part<'a, T>>)
    where
        'g: 'a,
    {
        for from in (0..linear.outputs).step_by(LINES) {
            let lines = from..(from + LINES).min(linear.outputs);
            let start = linear.weight.start;
            let range = start + lines.start * linear.inputs..start + lines.end * linear.inputs;
            parts.push(Part { kind: Kind::Weight(site, lines), grad: self.take(range) });
        }
        if let Some(bias) = &linear.bias {
            parts.push(Part { kind: Kind::Bias(site), grad: self.take(bias.clone()) });
        }
    }
}
