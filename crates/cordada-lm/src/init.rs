//! The parameters of a new model.

use cordada_env::{Stream, role};

use crate::{Layout, ModelConfig};

/// Standard deviation of embeddings, of positions and of a head of its own.
const EMBEDDING_STD: f64 = 0.02;

/// Parameters to begin training from: norms 1, biases 0, matrices normal. Those of the blocks have
/// the standard deviation √(2/5d) for a residual stream of width d (0.02 at d = 1000, which larger
/// models take for all widths); those that add to the stream are divided by √(2 · blocks), so that
/// its variance does not grow with the depth. Embeddings, positions and the head have 0.02: a tied
/// model whose embeddings are larger begins by repeating its input.
///
/// # Source
///
/// Nguyen & Salazar 2019, "Transformers without tears" (√(2/5d)); Radford et al. 2019
/// (GPT-2), section 2.3 (depth, 0.02).
pub fn init(config: &ModelConfig, seed: u64) -> Vec<f32> {
    let layout = Layout::new(config);
    let mut theta = vec![0.0; layout.num_params];
    let block = (2.0 / (5.0 * config.hidden_size as f64)).sqrt();
    let residual = block / (2.0 * config.num_layers as f64).sqrt();
    for (i, tensor) in layout.tensors.iter().enumerate() {
        let values = &mut theta[tensor.range.clone()];
        let name = tensor.name.as_str();
        if tensor.shape.len() == 1 {
            if name.ends_with(".weight") {
                values.fill(1.0);
            }
            continue;
        }
        let outside = ["wte.weight", "wpe.weight", "embed_tokens.weight", "lm_head.weight"];
        let adds = ["c_proj.weight", "o_proj.weight", "down_proj.weight"];
        let is = |ends: &[&str]| ends.iter().any(|end| name.ends_with(end));
        let std = if is(&outside) {
            EMBEDDING_STD
        } else if is(&adds) {
            residual
        } else {
            block
        };
        let mut stream = Stream::new(seed, role::INIT, i as u32);
        for x in values {
            *x = (std * stream.normal()) as f32;
        }
    }
    theta
}

#[cfg(test)]
mod tests {
    use cordada_nn::Activation;

    use super::*;
    use crate::{Architecture, Positions};

    #[test]
    fn tensors_have_the_spread_of_their_kind() {
        let config = ModelConfig {
            architecture: Architecture::Gpt2,
            vocab_size: 500,
            hidden_size: 64,
            num_layers: 8,
            num_heads: 4,
            num_kv_heads: 4,
            head_dim: 16,
            intermediate_size: 256,
            max_positions: 32,
            norm_eps: 1e-5,
            activation: Activation::GeluTanh,
            positions: Positions::Learned,
            qkv_bias: true,
            output_bias: true,
            mlp_bias: true,
            tied: true,
            eos_token_ids: vec![0],
            bos_token_id: None,
            pad_token_id: None,
        };
        let theta = init(&config, 1);
        assert_eq!(theta, init(&config, 1));
        assert_ne!(theta, init(&config, 2));
        for tensor in Layout::new(&config).tensors {
            let x = &theta[tensor.range.clone()];
            let std = (x.iter().map(|x| x * x).sum::<f32>() / x.len() as f32).sqrt();
            let want = match tensor.name.as_str() {
                n if n.ends_with("bias") => 0.0,
                n if n.contains("ln_") => 1.0,
                // √(2/(5 · 64)) = 0.0791, and a quarter of it.
                n if n.contains("c_proj") => 0.0198,
                n if n.contains("h.") => 0.0791,
                _ => 0.02,
            };
            assert!((std - want).abs() <= 0.05 * want, "{}: {std}", tensor.name);
        }
    }
}
