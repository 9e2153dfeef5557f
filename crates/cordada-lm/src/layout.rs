//! Where each tensor of a model lies in the flat θ, under the name that Hugging Face gives it.
//!
//! Matrices are `[out, in]`. Tensors that are multiplied with the same input lie behind each other
//! (queries, keys, values; gate and up), so that each such group is one matrix.

use std::ops::Range;

use crate::config::{Architecture, ModelConfig, Positions};

/// One tensor of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Name in Hugging Face's files: `model.layers.0.self_attn.q_proj.weight`.
    pub name: String,
    /// Length of each axis in θ; a matrix is `[out, in]`.
    pub shape: Vec<usize>,
    /// Whether the file stores the transpose (GPT-2's Conv1D: `[in, out]`).
    pub transposed: bool,
    /// Place in θ.
    pub range: Range<usize>,
}

/// A matrix of θ with its bias.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Linear {
    /// Width of the input.
    pub inputs: usize,
    /// Width of the output.
    pub outputs: usize,
    /// `[outputs, inputs]`.
    pub weight: Range<usize>,
    /// `[outputs]`.
    pub bias: Option<Range<usize>>,
}

/// A norm's weight and, for LayerNorm, bias.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Norm {
    /// `[width]`.
    pub weight: Range<usize>,
    /// `[width]`.
    pub bias: Option<Range<usize>>,
}

/// One block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Before the attention.
    pub attention_norm: Norm,
    /// Queries, keys and values in one: `[H·D + 2·K·D, d]`.
    pub qkv: Linear,
    /// RMSNorm of query heads and of key heads: `[D]` each.
    pub qk_norm: Option<(Range<usize>, Range<usize>)>,
    /// Attention's output layer.
    pub output: Linear,
    /// Before the perceptron.
    pub mlp_norm: Norm,
    /// Gate and up in one `[2·I, d]`, or GPT-2's first layer `[I, d]`.
    pub up: Linear,
    /// `[d, I]`.
    pub down: Linear,
}

/// All tensors of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// In θ's order.
    pub tensors: Vec<TensorInfo>,
    /// Token embeddings `[V, d]`.
    pub embedding: Range<usize>,
    /// Learned positions `[max_positions, d]`.
    pub positions: Option<Range<usize>>,
    /// Blocks, first to last.
    pub blocks: Vec<Block>,
    /// After the last block.
    pub final_norm: Norm,
    /// Output matrix `[V, d]`: the embedding's place if tied.
    pub head: Range<usize>,
    /// Length of θ.
    pub num_params: usize,
}

/// Hands out places of θ in order.
struct Builder {
    tensors: Vec<TensorInfo>,
    offset: usize,
    gpt2: bool,
}

impl Builder {
    fn tensor(&mut self, name: String, shape: &[usize], transposed: bool) -> Range<usize> {
        let range = self.offset..self.offset + shape.iter().product::<usize>();
        self.offset = range.end;
        self.tensors.push(TensorInfo {
            name,
            shape: shape.to_vec(),
            transposed,
            range: range.clone(),
        });
        range
    }

    /// Several layers with the same input, as one.
    fn linear(&mut self, names: &[(String, usize)], inputs: usize, bias: bool) -> Linear {
        let start = self.offset;
        for (name, outputs) in names {
            self.tensor(format!("{name}.weight"), &[*outputs, inputs], self.gpt2);
        }
        let weight = start..self.offset;
        for (name, outputs) in names.iter().filter(|_| bias) {
            self.tensor(format!("{name}.bias"), &[*outputs], false);
        }
        let bias = bias.then_some(weight.end..self.offset);
        Linear { inputs, outputs: names.iter().map(|(_, n)| n).sum(), weight, bias }
    }

    fn norm(&mut self, name: &str, width: usize) -> Norm {
        let weight = self.tensor(format!("{name}.weight"), &[width], false);
        let bias = self.gpt2.then(|| self.tensor(format!("{name}.bias"), &[width], false));
        Norm { weight, bias }
    }

    fn block(&mut self, config: &ModelConfig, l: usize) -> Block {
        if self.gpt2 { self.gpt2_block(config, l) } else { self.llama_block(config, l) }
    }

    fn gpt2_block(&mut self, c: &ModelConfig, l: usize) -> Block {
        let name = |part: &str| format!("transformer.h.{l}.{part}");
        let d = c.hidden_size;
        Block {
            attention_norm: self.norm(&name("ln_1"), d),
            qkv: self.linear(&[(name("attn.c_attn"), c.query_width() + 2 * c.kv_width())], d, true),
            qk_norm: None,
            output: self.linear(&[(name("attn.c_proj"), d)], c.query_width(), true),
            mlp_norm: self.norm(&name("ln_2"), d),
            up: self.linear(&[(name("mlp.c_fc"), c.intermediate_size)], d, true),
            down: self.linear(&[(name("mlp.c_proj"), d)], c.intermediate_size, true),
        }
    }

    fn llama_block(&mut self, c: &ModelConfig, l: usize) -> Block {
        let name = |part: &str| format!("model.layers.{l}.{part}");
        let (d, i) = (c.hidden_size, c.intermediate_size);
        let qkv = [
            (name("self_attn.q_proj"), c.query_width()),
            (name("self_attn.k_proj"), c.kv_width()),
            (name("self_attn.v_proj"), c.kv_width()),
        ];
        let attention_norm = self.norm(&name("input_layernorm"), d);
        let qkv = self.linear(&qkv, d, c.qkv_bias);
        let qk_norm = c.qk_norm().then(|| {
            let mut norm = |part: &str| {
                self.tensor(name(&format!("self_attn.{part}.weight")), &[c.head_dim], false)
            };
            (norm("q_norm"), norm("k_norm"))
        });
        Block {
            attention_norm,
            qkv,
            qk_norm,
            output: self.linear(&[(name("self_attn.o_proj"), d)], c.query_width(), c.output_bias),
            mlp_norm: self.norm(&name("post_attention_layernorm"), d),
            up: self.linear(&[(name("mlp.gate_proj"), i), (name("mlp.up_proj"), i)], d, c.mlp_bias),
            down: self.linear(&[(name("mlp.down_proj"), d)], i, c.mlp_bias),
        }
    }
}

impl Layout {
    /// Lays out the tensors of a model.
    pub fn new(config: &ModelConfig) -> Self {
        let gpt2 = config.architecture == Architecture::Gpt2;
        let mut b = Builder { tensors: Vec::new(), offset: 0, gpt2 };
        let (v, d) = (config.vocab_size, config.hidden_size);
        let name = |gpt2_name: &str, name: &str| if gpt2 { gpt2_name.into() } else { name.into() };
        let embedding =
            b.tensor(name("transformer.wte.weight", "model.embed_tokens.weight"), &[v, d], false);
        let positions = (config.positions == Positions::Learned)
            .then(|| b.tensor("transformer.wpe.weight".into(), &[config.max_positions, d], false));
        let blocks = (0..config.num_layers).map(|l| b.block(config, l)).collect();
        let final_norm: String = name("transformer.ln_f", "model.norm");
        let final_norm = b.norm(&final_norm, d);
        let head = if config.tied {
            embedding.clone()
        } else {
            b.tensor("lm_head.weight".into(), &[v, d], false)
        };
        Self {
            embedding,
            positions,
            blocks,
            final_norm,
            head,
            num_params: b.offset,
            tensors: b.tensors,
        }
    }
}
