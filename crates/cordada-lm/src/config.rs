//! The shape of a transformer, the same for all architectures.

use cordada_nn::Activation;

/// Which family of models a checkpoint belongs to: decides tensor names and what follows from
/// them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// LayerNorm, learned positions, one hidden layer with GELU, biases everywhere.
    Gpt2,
    /// RMSNorm, rotary positions, SwiGLU.
    Llama,
    /// As Llama, with biases of queries, keys and values.
    Qwen2,
    /// As Llama, with RMSNorm of every query and key head.
    Qwen3,
}

/// How a model knows where a token stands.
#[derive(Clone, Debug, PartialEq)]
pub enum Positions {
    /// A learned vector for each position is added to the embedding.
    Learned,
    /// Queries and keys are rotated by angles that grow with the position.
    Rotary {
        /// Base of the wavelengths, θ of the paper (10,000 there).
        base: f64,
        /// How wavelengths are stretched for longer inputs.
        scaling: RopeScaling,
    },
}

/// Stretching of rotary wavelengths beyond the length that a model was first trained on.
#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    /// None.
    Default,
    /// All angles divided by `factor`.
    Linear {
        /// How many times longer the inputs are.
        factor: f64,
    },
    /// Llama 3.1: long wavelengths divided by `factor`, short ones kept, between them a blend.
    Llama3 {
        /// How many times longer the inputs are.
        factor: f64,
        /// Wavelengths above `original_max_positions / low_freq_factor` are stretched in full.
        low_freq_factor: f64,
        /// Wavelengths below `original_max_positions / high_freq_factor` are kept.
        high_freq_factor: f64,
        /// Length of the first training.
        original_max_positions: usize,
    },
    /// YaRN: as Llama 3, by dimension, with a temperature of the attention.
    Yarn {
        /// How many times longer the inputs are.
        factor: f64,
        /// Rotations within the original length from which on a dimension is kept (32).
        beta_fast: f64,
        /// Rotations up to which it is stretched in full (1).
        beta_slow: f64,
        /// Factor of rotated queries and keys; 0.1 ln(factor) + 1 if the checkpoint has none.
        attention_factor: f64,
        /// Length of the first training.
        original_max_positions: usize,
    },
}

/// Shape of a decoder-only transformer.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own in config.json")]
pub struct ModelConfig {
    /// Family.
    pub architecture: Architecture,
    /// Number of tokens, V.
    pub vocab_size: usize,
    /// Width of the residual stream, d.
    pub hidden_size: usize,
    /// Number of blocks.
    pub num_layers: usize,
    /// Query heads of a block, H.
    pub num_heads: usize,
    /// Key and value heads of a block; each serves H / `num_kv_heads` query heads.
    pub num_kv_heads: usize,
    /// Width of a head; need not be d / H.
    pub head_dim: usize,
    /// Width of the hidden layer of a block.
    pub intermediate_size: usize,
    /// Longest input.
    pub max_positions: usize,
    /// ε of the norms.
    pub norm_eps: f64,
    /// Between the two layers of a block's perceptron.
    pub activation: Activation,
    /// Positions.
    pub positions: Positions,
    /// Whether queries, keys and values have a bias.
    pub qkv_bias: bool,
    /// Whether the attention's output layer has a bias.
    pub output_bias: bool,
    /// Whether the layers of the perceptron have biases.
    pub mlp_bias: bool,
    /// Whether the head multiplies by the embedding matrix instead of one of its own.
    pub tied: bool,
    /// Tokens that end a response.
    pub eos_token_ids: Vec<u32>,
    /// Token that begins a text, if the model has one.
    pub bos_token_id: Option<u32>,
    /// Token that fills up rows, if the model has one; this program needs none.
    pub pad_token_id: Option<u32>,
}

impl ModelConfig {
    /// Whether norms are LayerNorm (with bias) instead of RMSNorm.
    pub fn layer_norm(&self) -> bool {
        self.architecture == Architecture::Gpt2
    }

    /// Whether a block's perceptron is gated: `down(act(gate x) · up x)`.
    pub fn gated(&self) -> bool {
        self.architecture != Architecture::Gpt2
    }

    /// Whether each head of queries and keys is normalized.
    pub fn qk_norm(&self) -> bool {
        self.architecture == Architecture::Qwen3
    }

    /// Width of all query heads together.
    pub fn query_width(&self) -> usize {
        self.num_heads * self.head_dim
    }

    /// Width of all key heads together, and of all value heads.
    pub fn kv_width(&self) -> usize {
        self.num_kv_heads * self.head_dim
    }
}
