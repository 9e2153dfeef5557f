//! The forward pass of a block, for whole sequences and for decoding from a cache.

use cordada_nn::kernel::{Start, matmul};
use cordada_nn::norm::{layer_norm, rms_norm};
use cordada_nn::{Real, gated};

use super::lora::{AdapterBlock, Site};
use super::tape::{Keep, sized};
use super::{Adapter, Chunk, LayerTape, PackedLinear, Transformer, Weights};
use crate::layout::{Linear, Norm};

/// A norm's input, parameters and results.
struct Normed<'a, T> {
    x: &'a [T],
    y: &'a mut Vec<T>,
    mean: &'a mut Vec<T>,
    rstd: &'a mut Vec<T>,
}

impl<T: Real> Transformer<T> {
    /// All blocks over all rows of a chunk; leaves the residual stream in `chunk.x`.
    pub(crate) fn forward(
        &self,
        w: &Weights<T>,
        adapter: Option<&Adapter<T>>,
        chunk: &mut Chunk<T>,
        keep: Keep,
    ) {
        chunk.kept = keep;
        let last = self.config.num_layers - 1;
        if keep != Keep::Tapes && chunk.layers[0].qkv.capacity() == 0 {
            // Where the last pass left the buffers, if there was one.
            chunk.hand_over(last, 0);
        }
        self.embed(w, &chunk.rows, sized(&mut chunk.x, chunk.rows.len() * self.config.hidden_size));
        for l in 0..=last {
            if keep != Keep::Tapes && l > 0 {
                chunk.hand_over(l - 1, l);
            }
            std::mem::swap(&mut chunk.layers[l].x, &mut chunk.x);
            self.block_of(w, adapter, l, chunk);
        }
    }

    /// Block l of whole sequences, from its input on its tape to `chunk.x`.
    pub(crate) fn block_of(
        &self,
        w: &Weights<T>,
        adapter: Option<&Adapter<T>>,
        l: usize,
        chunk: &mut Chunk<T>,
    ) {
        let Chunk { rows, layers, x, scratch, .. } = chunk;
        let scores = rows.len() * self.config.num_heads;
        let lora = adapter.map(|a| &a.blocks[l]);
        self.block(w, lora, l, &rows.positions, &mut layers[l], x, |qkv, out, lse| {
            self.attention.forward(qkv, &rows.spans, out, sized(lse, scores), scratch);
        });
    }

    /// One block: reads `tape.x`, writes `next`. `attend` makes the attention's output from queries,
    /// keys and values.
    #[allow(clippy::too_many_arguments, reason = "a block's parameters, input and output")]
    pub(crate) fn block(
        &self,
        w: &Weights<T>,
        lora: Option<&AdapterBlock<T>>,
        l: usize,
        positions: &[u32],
        tape: &mut LayerTape<T>,
        next: &mut Vec<T>,
        attend: impl FnOnce(&[T], &mut [T], &mut Vec<T>),
    ) {
        let c = &self.config;
        let (layout, packed) = (&self.layout.blocks[l], &w.blocks[l]);
        let rows = positions.len();
        let LayerTape { x, mid, attention_in, mlp_in, mean, rstd, qkv, .. } = tape;
        let [mean_a, mean_m] = mean;
        let [rstd_a, rstd_m] = rstd;
        let [lora_qkv, lora_output, lora_up, lora_down] = &mut tape.lora;

        let normed = Normed { x, y: attention_in, mean: mean_a, rstd: rstd_a };
        self.norm(w, &layout.attention_norm, normed);
        Self::linear(w, &layout.qkv, &packed.qkv, attention_in, None, qkv);
        Adapter::apply(lora, Site::Qkv, attention_in, qkv, lora_qkv);
        if let Some((q, k)) = &layout.qk_norm {
            let (q, k) = (&w.theta[q.clone()], &w.theta[k.clone()]);
            self.normalize_heads(qkv, [q, k], &mut tape.raw_qk, &mut tape.qk_rstd);
        }
        if let Some(rotary) = &self.rotary {
            rotary.apply(qkv, c.num_heads + c.num_kv_heads, positions);
        }
        let attended = sized(&mut tape.attended, rows * c.query_width());
        attend(qkv, attended, &mut tape.lse);
        Self::linear(w, &layout.output, &packed.output, attended, Some(x), mid);
        Adapter::apply(lora, Site::Output, attended, mid, lora_output);

        let normed = Normed { x: mid, y: mlp_in, mean: mean_m, rstd: rstd_m };
        self.norm(w, &layout.mlp_norm, normed);
        Self::linear(w, &layout.up, &packed.up, mlp_in, None, &mut tape.up);
        Adapter::apply(lora, Site::Up, mlp_in, &mut tape.up, lora_up);
        let activated = sized(&mut tape.activated, rows * c.intermediate_size);
        if c.gated() {
            gated(self.isa, c.activation, c.intermediate_size, &tape.up, activated);
        } else {
            activated.copy_from_slice(&tape.up);
            c.activation.apply(self.isa, activated);
        }
        Self::linear(w, &layout.down, &packed.down, activated, Some(mid), next);
        Adapter::apply(lora, Site::Down, activated, next, lora_down);
    }

    /// `y = x Wᵀ + b`, or `y = residual + x Wᵀ + b`.
    fn linear(
        w: &Weights<T>,
        layout: &Linear,
        packed: &PackedLinear<T>,
        x: &[T],
        residual: Option<&[T]>,
        y: &mut Vec<T>,
    ) {
        let rows = x.len() / layout.inputs;
        let y = sized(y, rows * layout.outputs);
        let bias = layout.bias.clone().map(|b| &w.theta[b]);
        let start = match (residual, bias) {
            (None, None) => Start::Zero,
            (None, Some(bias)) => Start::Row(bias),
            (Some(residual), bias) => {
                y.copy_from_slice(residual);
                if let Some(bias) = bias {
                    for row in y.chunks_exact_mut(bias.len()) {
                        for (y, &b) in row.iter_mut().zip(bias) {
                            *y += b;
                        }
                    }
                }
                Start::Old
            }
        };
        matmul(x, &packed.forward, start, y);
    }

    #[allow(clippy::needless_pass_by_value, reason = "borrowed parts, handed on")]
    fn norm(&self, w: &Weights<T>, layout: &Norm, normed: Normed<'_, T>) {
        let weight = &w.theta[layout.weight.clone()];
        let rows = normed.x.len() / weight.len();
        let eps = T::of(self.config.norm_eps);
        let y = sized(normed.y, normed.x.len());
        let rstd = sized(normed.rstd, rows);
        if let Some(bias) = &layout.bias {
            let (bias, mean) = (&w.theta[bias.clone()], sized(normed.mean, rows));
            layer_norm(self.isa, normed.x, weight, bias, eps, y, mean, rstd);
        } else {
            rms_norm(self.isa, normed.x, weight, eps, y, rstd);
        }
    }

    /// RMSNorm of every query and key head, in place; keeps what was there in `raw`.
    ///
    /// `raw`: `[rows, (H + K) D]`; `rstd`: `[rows, H + K]`.
    fn normalize_heads(
        &self,
        qkv: &mut [T],
        [q, k]: [&[T]; 2],
        raw: &mut Vec<T>,
        rstd: &mut Vec<T>,
    ) {
        let c = &self.config;
        let (width, q_width) = (self.attention.row_width(), c.query_width());
        let (qk_width, heads) = (q_width + c.kv_width(), c.num_heads + c.num_kv_heads);
        let rows = qkv.len() / width;
        let (raw, rstd) = (sized(raw, rows * qk_width), sized(rstd, rows * heads));
        let eps = T::of(c.norm_eps);
        let kept = raw.chunks_exact_mut(qk_width).zip(rstd.chunks_exact_mut(heads));
        for (row, (raw, rstd)) in qkv.chunks_exact_mut(width).zip(kept) {
            raw.copy_from_slice(&row[..qk_width]);
            let (query, key) = row[..qk_width].split_at_mut(q_width);
            let (q_rstd, k_rstd) = rstd.split_at_mut(c.num_heads);
            rms_norm(self.isa, &raw[..q_width], q, eps, query, q_rstd);
            rms_norm(self.isa, &raw[q_width..], k, eps, key, k_rstd);
        }
    }

    /// Gathers the rows that predict and normalizes them: what the head reads.
    pub(crate) fn predict(&self, w: &Weights<T>, chunk: &mut Chunk<T>) {
        let d = self.config.hidden_size;
        let Chunk { rows, x, predicting, hidden, mean, rstd, .. } = chunk;
        let to = sized(predicting, rows.target_rows.len() * d);
        for (to, &row) in to.chunks_exact_mut(d).zip(&rows.target_rows) {
            to.copy_from_slice(&x[row as usize * d..][..d]);
        }
        self.last_norm(w, predicting, hidden, mean, rstd);
    }

    /// The norm before the head.
    pub(crate) fn last_norm(
        &self,
        w: &Weights<T>,
        x: &[T],
        y: &mut Vec<T>,
        mean: &mut Vec<T>,
        rstd: &mut Vec<T>,
    ) {
        self.norm(w, &self.layout.final_norm, Normed { x, y, mean, rstd });
    }
}
