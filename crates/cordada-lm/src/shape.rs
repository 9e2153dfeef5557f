//! Shapes of new models: sizes by name, and the config that follows from the numbers of a shape.
//! Their parameters are made by [`init`](crate::init::init).

use cordada_nn::Activation;

use crate::reward::did_you_mean;
use crate::{Architecture, Error, ModelConfig, Positions, RopeScaling};

/// The numbers of a shape that an architecture leaves open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Width of the residual stream, d.
    pub hidden_size: usize,
    /// Number of blocks.
    pub num_layers: usize,
    /// Query heads of a block; each is d / `num_heads` wide.
    pub num_heads: usize,
    /// Key and value heads of a block.
    pub num_kv_heads: usize,
    /// Width of the hidden layer of a block.
    pub intermediate_size: usize,
    /// Number of tokens.
    pub vocab_size: usize,
    /// Longest input.
    pub max_positions: usize,
    /// Whether the head multiplies by the embedding matrix.
    pub tied: bool,
}

const fn shape(widths: [usize; 5], vocab_size: usize, max_positions: usize) -> Shape {
    let [hidden_size, num_layers, num_heads, num_kv_heads, intermediate_size] = widths;
    // Large models have a head of their own.
    let tied = hidden_size < 4096;
    Shape {
        hidden_size,
        num_layers,
        num_heads,
        num_kv_heads,
        intermediate_size,
        vocab_size,
        max_positions,
        tied,
    }
}

/// Sizes by name, with about as many parameters as they say (for Llama's blocks). Those from 3 b on
/// have the shapes of published models: Llama 3.2, 2, 3.1 and Qwen 2.5.
pub const SIZES: &[(&str, Shape)] = &[
    ("1m", shape([128, 4, 4, 2, 512], 512, 512)),
    ("5m", shape([256, 6, 8, 4, 768], 2048, 512)),
    ("30m", shape([512, 8, 8, 4, 1536], 8192, 1024)),
    ("100m", shape([768, 12, 12, 4, 2560], 16_384, 2048)),
    ("300m", shape([1024, 24, 16, 8, 2560], 32_768, 2048)),
    ("1b", shape([2048, 16, 32, 8, 8192], 32_768, 4096)),
    ("3b", shape([3072, 28, 24, 8, 8192], 128_256, 4096)),
    ("7b", shape([4096, 32, 32, 32, 11_008], 32_000, 4096)),
    ("8b", shape([4096, 32, 32, 8, 14_336], 128_256, 4096)),
    ("14b", shape([5120, 48, 40, 8, 13_824], 152_064, 4096)),
    ("32b", shape([5120, 64, 40, 8, 27_648], 152_064, 4096)),
    ("70b", shape([8192, 80, 64, 8, 28_672], 128_256, 4096)),
];

impl Shape {
    /// The shape of a size's name.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] with the names that there are.
    pub fn of(size: &str) -> Result<Self, Error> {
        let plain = size.to_lowercase();
        SIZES.iter().find(|(name, _)| *name == plain).map(|(_, shape)| *shape).ok_or_else(|| {
            let names: Vec<&str> = SIZES.iter().map(|(name, _)| *name).collect();
            let meant = did_you_mean(&plain, names.iter().copied());
            let names = names.join(", ");
            Error::Setting(format!("there is no size {size:?}{meant}; known: {names}"))
        })
    }

    /// The same for an architecture: GPT-2 has a key head for every query head and a hidden layer
    /// of four times its width.
    pub fn adapted(self, architecture: Architecture) -> Self {
        match architecture {
            Architecture::Gpt2 => Self {
                num_kv_heads: self.num_heads,
                intermediate_size: 4 * self.hidden_size,
                ..self
            },
            _ => self,
        }
    }

    /// The config of a new model, without special tokens.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] if the numbers do not fit each other.
    pub fn config(&self, architecture: Architecture) -> Result<ModelConfig, Error> {
        self.check(architecture)?;
        let gpt2 = architecture == Architecture::Gpt2;
        Ok(ModelConfig {
            architecture,
            vocab_size: self.vocab_size,
            hidden_size: self.hidden_size,
            num_layers: self.num_layers,
            num_heads: self.num_heads,
            num_kv_heads: self.num_kv_heads,
            head_dim: self.hidden_size / self.num_heads,
            intermediate_size: self.intermediate_size,
            max_positions: self.max_positions,
            // The defaults of the architectures' config.json.
            norm_eps: if gpt2 { 1e-5 } else { 1e-6 },
            activation: if gpt2 { Activation::GeluTanh } else { Activation::Silu },
            positions: if gpt2 {
                Positions::Learned
            } else {
                Positions::Rotary { base: 10_000.0, scaling: RopeScaling::Default }
            },
            qkv_bias: gpt2 || architecture == Architecture::Qwen2,
            output_bias: gpt2,
            mlp_bias: gpt2,
            tied: self.tied || gpt2,
            eos_token_ids: Vec::new(),
            bos_token_id: None,
            pad_token_id: None,
        })
    }

    fn check(&self, architecture: Architecture) -> Result<(), Error> {
        let wrong = |problem: String| Err(Error::Setting(problem));
        let counts = [
            ("hidden", self.hidden_size),
            ("layers", self.num_layers),
            ("heads", self.num_heads),
            ("kv-heads", self.num_kv_heads),
            ("intermediate", self.intermediate_size),
            ("vocab", self.vocab_size),
            ("positions", self.max_positions),
        ];
        if let Some((name, _)) = counts.iter().find(|(_, n)| *n == 0) {
            return wrong(format!("{name} = 0: a model needs at least 1"));
        }
        let (d, h, k) = (self.hidden_size, self.num_heads, self.num_kv_heads);
        if !d.is_multiple_of(h) {
            return wrong(format!("heads = {h}: hidden = {d} is no multiple of it"));
        }
        if !h.is_multiple_of(k) {
            return wrong(format!("kv-heads = {k}: heads = {h} is no multiple of it"));
        }
        match architecture {
            Architecture::Gpt2 if k != h => {
                wrong(format!("kv-heads = {k}: GPT-2 has as many as heads, {h}"))
            }
            Architecture::Gpt2 => Ok(()),
            _ if (d / h).is_multiple_of(2) => Ok(()),
            _ => wrong(format!(
                "heads = {h}: hidden / heads = {}, which must be even for rotary positions",
                d / h
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Layout;

    #[test]
    fn sizes_have_the_parameters_that_they_name() {
        for (name, shape) in SIZES {
            let unit = if name.ends_with('b') { 1e9 } else { 1e6 };
            let named: f64 = name.trim_end_matches(['m', 'b']).parse::<f64>().unwrap() * unit;
            let n = Layout::new(&shape.config(Architecture::Llama).unwrap()).num_params as f64;
            assert!((n / named - 1.0).abs() < 0.1, "{name}: {n}");
        }
        // The published counts.
        let count = |name: &str| {
            Layout::new(&Shape::of(name).unwrap().config(Architecture::Llama).unwrap()).num_params
        };
        assert_eq!(count("7b"), 6_738_415_616);
        assert_eq!(count("70B"), 70_553_706_496);
        let error = Shape::of("2m").unwrap_err().to_string();
        assert!(error.contains("did you mean \"1m\"?") || error.contains("known: 1m, 5m"));
    }

    #[test]
    fn numbers_have_to_fit() {
        let one = Shape::of("1m").unwrap();
        let refused = |shape: Shape, a| shape.config(a).unwrap_err().to_string();
        let llama = Architecture::Llama;
        assert_eq!(
            refused(Shape { num_heads: 3, ..one }, llama),
            "heads = 3: hidden = 128 is no multiple of it"
        );
        assert_eq!(
            refused(Shape { num_kv_heads: 3, ..one }, llama),
            "kv-heads = 3: heads = 4 is no multiple of it"
        );
        assert_eq!(
            refused(Shape { num_layers: 0, ..one }, llama),
            "layers = 0: a model needs at least 1"
        );
        assert!(refused(Shape { num_heads: 128, num_kv_heads: 1, ..one }, llama).contains("even"));
        assert!(refused(one, Architecture::Gpt2).contains("GPT-2"));
        assert!(one.adapted(Architecture::Gpt2).config(Architecture::Gpt2).is_ok());
    }
}
