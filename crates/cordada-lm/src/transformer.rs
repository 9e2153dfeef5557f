//! The decoder-only transformer: shapes, packed weights, and the forward pass of its blocks.
//!
//! ```text
//! x₀ = E[token] (+ P[position])
//! x ← x + W_o attention(norm(x))          in every block
//! x ← x + W_down act(W_up norm(x))
//! logits = W_head norm(x_L)
//! ```
//!
//! Linear layers begin from what they are added to, so that residual sums and biases cost nothing.
//! A row's numbers depend on its own sequence alone.

mod backward;
mod block;
mod lora;
mod rope;
mod tape;

use cordada_nn::attention::Attention;
use cordada_nn::kernel::{Isa, Panels};
use cordada_nn::{Real, Rotary};

pub(crate) use self::backward::Trained;
pub use self::lora::{Adapter, Place, Site};
pub(crate) use self::tape::{Chunk, Keep, LayerTape};
use crate::batch::Rows;
use crate::config::{ModelConfig, Positions};
use crate::layout::{Layout, Linear};

/// A transformer's shape and tables: no parameters.
#[derive(Clone, Debug)]
pub struct Transformer<T> {
    pub(crate) config: ModelConfig,
    pub(crate) layout: Layout,
    pub(crate) isa: Isa,
    pub(crate) attention: Attention,
    pub(crate) rotary: Option<Rotary<T>>,
}

/// θ, and its matrices packed for the products: made anew after each optimizer step.
#[derive(Clone, Debug)]
pub struct Weights<T> {
    /// All parameters, in the order of [`Layout`].
    pub theta: Vec<T>,
    pub(crate) blocks: Vec<PackedBlock<T>>,
    pub(crate) head: PackedLinear<T>,
}

/// The matrices of one block.
#[derive(Clone, Debug)]
pub(crate) struct PackedBlock<T> {
    pub(crate) qkv: PackedLinear<T>,
    pub(crate) output: PackedLinear<T>,
    pub(crate) up: PackedLinear<T>,
    pub(crate) down: PackedLinear<T>,
}

/// One matrix, `[out, in]` in θ.
#[derive(Clone, Debug)]
pub(crate) struct PackedLinear<T> {
    /// Wᵀ, for the way forward.
    pub(crate) forward: Panels<T>,
    /// W, for the way back; without it a model can sample only.
    pub(crate) backward: Option<Panels<T>>,
}

impl<T: Real> PackedLinear<T> {
    fn new(isa: Isa, (inputs, outputs): (usize, usize), train: bool) -> Self {
        Self {
            forward: Panels::new(isa, inputs, outputs),
            backward: train.then(|| Panels::new(isa, outputs, inputs)),
        }
    }

    fn pack(&mut self, weight: &[T]) {
        self.forward.pack_transposed(weight);
        if let Some(backward) = &mut self.backward {
            backward.pack(weight);
        }
    }
}

impl<T: Real> Transformer<T> {
    /// Lays out a model of this shape.
    pub fn new(config: &ModelConfig) -> Self {
        let rotary = match &config.positions {
            Positions::Learned => None,
            Positions::Rotary { base, scaling } => {
                let (frequencies, factor) = rope::frequencies(*base, scaling, config.head_dim);
                Some(Rotary::new(&frequencies, factor, config.max_positions))
            }
        };
        Self {
            config: config.clone(),
            layout: Layout::new(config),
            isa: Isa::detect(),
            attention: Attention::new(config.num_heads, config.num_kv_heads, config.head_dim),
            rotary,
        }
    }

    /// The shape.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Where each tensor lies.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Packs θ. `train`: also what the backward pass needs.
    ///
    /// # Panics
    ///
    /// If θ has another length.
    pub fn weights(&self, theta: Vec<T>, train: bool) -> Weights<T> {
        assert_eq!(theta.len(), self.layout.num_params, "length of θ");
        let isa = self.isa;
        let linear = |l: &Linear| PackedLinear::new(isa, (l.inputs, l.outputs), train);
        let blocks = self.layout.blocks.iter().map(|b| PackedBlock {
            qkv: linear(&b.qkv),
            output: linear(&b.output),
            up: linear(&b.up),
            down: linear(&b.down),
        });
        let size = (self.config.hidden_size, self.config.vocab_size);
        let mut weights =
            Weights { blocks: blocks.collect(), head: PackedLinear::new(isa, size, train), theta };
        self.pack(&mut weights);
        weights
    }

    /// Packs θ anew after it has changed.
    pub fn pack(&self, weights: &mut Weights<T>) {
        let Weights { theta, blocks, head } = weights;
        for (block, packed) in self.layout.blocks.iter().zip(blocks) {
            packed.qkv.pack(&theta[block.qkv.weight.clone()]);
            packed.output.pack(&theta[block.output.weight.clone()]);
            packed.up.pack(&theta[block.up.weight.clone()]);
            packed.down.pack(&theta[block.down.weight.clone()]);
        }
        head.pack(&theta[self.layout.head.clone()]);
    }

    /// x₀ of every row.
    pub(crate) fn embed(&self, weights: &Weights<T>, rows: &Rows, x: &mut [T]) {
        let d = self.config.hidden_size;
        let table = &weights.theta[self.layout.embedding.clone()];
        let positions = self.layout.positions.clone().map(|p| &weights.theta[p]);
        let inputs = rows.tokens.iter().zip(&rows.positions);
        for (x, (&token, &position)) in x.chunks_exact_mut(d).zip(inputs) {
            x.copy_from_slice(&table[token as usize * d..][..d]);
            if let Some(positions) = positions {
                for (x, &p) in x.iter_mut().zip(&positions[position as usize * d..][..d]) {
                    *x += p;
                }
            }
        }
    }

    /// Floating-point operations of the matrix products of one row's forward pass through the
    /// blocks, without the scores of the attention.
    pub fn forward_flops(&self) -> usize {
        let linear = |l: &Linear| 2 * l.inputs * l.outputs;
        let block = |b: &crate::layout::Block| {
            linear(&b.qkv) + linear(&b.output) + linear(&b.up) + linear(&b.down)
        };
        self.layout.blocks.iter().map(block).sum()
    }
}
