//! What a forward pass leaves for the backward pass, and the working memory of both.

use cordada_nn::Real;
use cordada_nn::attention::AttentionScratch;

use crate::batch::Rows;

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

/// A buffer of exactly `len` numbers, whose old values do not matter; memory is kept.
pub(crate) fn sized<T: Real>(buffer: &mut Vec<T>, len: usize) -> &mut [T] {
    buffer.resize(len, T::ZERO);
    buffer
}
