//! What a forward pass leaves for the backward pass, and the working memory of both.

use cordada_nn::Real;
use cordada_nn::attention::AttentionScratch;

use crate::batch::Rows;
use crate::config::ModelConfig;

/// Activations of one block, `[rows, …]` each.
#[derive(Clone, Debug, Default)]
pub(crate) struct LayerTape<T> {
    /// Residual stream before the block, and between its halves: d.
    pub(crate) x: Vec<T>,
    pub(crate) mid: Vec<T>,
    /// Normalized inputs of the two halves: d.
    pub(crate) attention_in: Vec<T>,
    pub(crate) mlp_in: Vec<T>,
    /// Row statistics of the two norms; `mean` for LayerNorm only.
    pub(crate) mean: [Vec<T>; 2],
    pub(crate) rstd: [Vec<T>; 2],
    /// Queries, keys, values, after normalization and rotation.
    pub(crate) qkv: Vec<T>,
    /// Queries and keys before their normalization, and 1 / RMS of each head.
    pub(crate) raw_qk: Vec<T>,
    pub(crate) qk_rstd: Vec<T>,
    /// The attention's output, and the log-sum-exp of each head's scores.
    pub(crate) attended: Vec<T>,
    pub(crate) lse: Vec<T>,
    /// Before and after the activation.
    pub(crate) up: Vec<T>,
    pub(crate) activated: Vec<T>,
    /// What each linear layer's adapter made of its input, scaled: `[rows, rank]` one behind the
    /// other, in the order qkv, output, up, down.
    pub(crate) lora: [Vec<T>; 4],
}

impl<T: Real> LayerTape<T> {
    /// Numbers of one row, with the ranks of a block's adapters in all.
    pub(crate) fn row_len(c: &ModelConfig, ranks: usize) -> usize {
        let (d, kv) = (c.hidden_size, c.kv_width());
        let up = if c.gated() { 2 } else { 1 } * c.intermediate_size;
        let raw = if c.qk_norm() { c.query_width() + kv + c.num_heads + c.num_kv_heads } else { 0 };
        let statistics = if c.layer_norm() { 4 } else { 2 } + c.num_heads;
        let qkv = c.query_width() + 2 * kv;
        4 * d + qkv + c.query_width() + up + c.intermediate_size + statistics + raw + ranks
    }
}

/// How much of a forward pass is kept. What a backward pass lacks it computes again, to the same
/// bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Keep {
    /// Everything.
    #[default]
    Tapes,
    /// The input of every block: what checkpointing by block keeps.
    Inputs,
    /// Nothing but the result: for reading without a way back.
    Nothing,
}

/// Derivatives of one block on the way back, kept until the weights' gradients are computed.
#[derive(Clone, Debug, Default)]
pub(crate) struct BackTape<T> {
    /// Of the block's output, and between its halves: d.
    pub(crate) out: Vec<T>,
    pub(crate) mid: Vec<T>,
    /// Of the normalized inputs: d.
    pub(crate) mlp_in: Vec<T>,
    pub(crate) attention_in: Vec<T>,
    pub(crate) up: Vec<T>,
    pub(crate) qkv: Vec<T>,
    /// Of queries and keys after their normalization.
    pub(crate) normed_qk: Vec<T>,
    /// Of what the adapters made, see [`LayerTape::lora`].
    pub(crate) lora: [Vec<T>; 4],
    /// Of activations and of the attention's output; scratch.
    pub(crate) activated: Vec<T>,
    pub(crate) attended: Vec<T>,
    /// Through a norm; scratch.
    pub(crate) through: Vec<T>,
}

/// One thread's part of a batch on its way through the model.
#[derive(Debug)]
pub(crate) struct Chunk<T> {
    pub(crate) rows: Rows,
    pub(crate) layers: Vec<LayerTape<T>>,
    /// What the last forward pass kept in them.
    pub(crate) kept: Keep,
    /// Residual stream after the last block.
    pub(crate) x: Vec<T>,
    /// The rows of `x` that predict, before and after the last norm.
    pub(crate) predicting: Vec<T>,
    pub(crate) hidden: Vec<T>,
    pub(crate) mean: Vec<T>,
    pub(crate) rstd: Vec<T>,
    /// Derivative of `hidden`.
    pub(crate) d_hidden: Vec<T>,
    /// Derivative of the residual stream.
    pub(crate) dx: Vec<T>,
    pub(crate) back: BackTape<T>,
    pub(crate) scratch: AttentionScratch<T>,
}

impl<T: Real> Chunk<T> {
    pub(crate) fn new(layers: usize, scratch: AttentionScratch<T>) -> Self {
        Self {
            rows: Rows::default(),
            layers: vec![LayerTape::default(); layers],
            kept: Keep::Tapes,
            x: Vec::new(),
            predicting: Vec::new(),
            hidden: Vec::new(),
            mean: Vec::new(),
            rstd: Vec::new(),
            d_hidden: Vec::new(),
            dx: Vec::new(),
            back: BackTape::default(),
            scratch,
        }
    }
}

impl<T: Real> Chunk<T> {
    /// Gives the buffers of one block's tape to another block. Unless nothing is kept, both blocks
    /// keep their inputs.
    pub(crate) fn hand_over(&mut self, from: usize, to: usize) {
        if from == to {
            return;
        }
        let mut buffers = std::mem::take(&mut self.layers[from]);
        if self.kept != Keep::Nothing {
            self.layers[from].x = std::mem::take(&mut buffers.x);
            buffers.x = std::mem::take(&mut self.layers[to].x);
        }
        self.layers[to] = buffers;
    }
}

/// A buffer of exactly `len` numbers, whose old values do not matter; memory is kept.
pub(crate) fn sized<T: Real>(buffer: &mut Vec<T>, len: usize) -> &mut [T] {
    buffer.resize(len, T::ZERO);
    buffer
}
