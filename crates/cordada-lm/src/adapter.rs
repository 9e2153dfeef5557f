//! Low-rank adapters (LoRA): which matrices they change, where their numbers lie, how they start
//! and how they are merged. Files are in PEFT's format, see [`read`] and [`write()`]; applying an
//! adapter beside a frozen matrix is the matter of the transformer.

mod files;

use cordada_env::Stream;
use cordada_nn::init::kaiming_uniform;
use rayon::prelude::*;

use crate::transformer::{Adapter, Place, Site};
use crate::{Error, Layout};
pub use files::{read, write};

/// Settings of an adapter.
///
/// ```text
/// W x + s B A x,   s = α / r,   or α / √r if rank-stabilized
/// ```
///
/// # Source
///
/// Hu et al. 2021, arXiv:2106.09685, section 4.1; rank-stabilized: Kalajdzievski 2023,
/// arXiv:2312.03732.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraConfig {
    /// r, rank of each change; from 1 on.
    pub rank: usize,
    /// α.
    pub alpha: f64,
    /// Last parts of the names of the layers that are changed: `q_proj`, `v_proj`, `down_proj`;
    /// `c_attn`, `c_proj`, `c_fc` for GPT-2.
    pub target_modules: Vec<String>,
    /// Whether s is α / √r.
    pub use_rslora: bool,
}

impl LoraConfig {
    /// s.
    pub fn scaling(&self) -> f64 {
        let r = self.rank as f64;
        self.alpha / if self.use_rslora { r.sqrt() } else { r }
    }
}

/// One adapter: the change of one layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdapterInfo {
    /// Name in Hugging Face's files: `model.layers.0.self_attn.q_proj`.
    pub module: String,
    /// Block, layer, which of its outputs, and where A and B lie.
    pub place: Place,
    /// Where the matrix `[outputs, inputs]` lies that B A is added to.
    pub weight: std::ops::Range<usize>,
}

/// Where each number of a model's adapters lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdapterLayout {
    /// In the order of the parameters: the model's order, for each A, then B.
    pub adapters: Vec<AdapterInfo>,
    /// Number of parameters.
    pub num_params: usize,
    /// Whether the model's files store matrices as `[in, out]` (GPT-2), which PEFT notes down.
    fan_in_fan_out: bool,
}

/// The layers of a model that can have an adapter, without places of A and B.
fn candidates(layout: &Layout) -> Vec<AdapterInfo> {
    let mut found = Vec::new();
    for (l, block) in layout.blocks.iter().enumerate() {
        let sites = [
            (Site::Qkv, &block.qkv),
            (Site::Output, &block.output),
            (Site::Up, &block.up),
            (Site::Down, &block.down),
        ];
        for (site, linear) in sites {
            let inside = |t: &&crate::TensorInfo| {
                linear.weight.start <= t.range.start && t.range.end <= linear.weight.end
            };
            for tensor in layout.tensors.iter().filter(inside) {
                let first = (tensor.range.start - linear.weight.start) / linear.inputs;
                let place = Place {
                    block: l,
                    site,
                    outputs: first..first + tensor.shape[0],
                    a: 0..0,
                    b: 0..0,
                    inputs: linear.inputs,
                    rank: 0,
                };
                let module = tensor.name.trim_end_matches(".weight").to_string();
                found.push(AdapterInfo { module, place, weight: tensor.range.clone() });
            }
        }
    }
    found
}

/// The last part of a module's name.
fn suffix(module: &str) -> &str {
    module.rsplit('.').next().unwrap_or(module)
}

/// Last parts of the names of all layers that can have an adapter, in alphabetical order: what
/// PEFT calls `all-linear`.
pub fn linear_modules(layout: &Layout) -> Vec<String> {
    let candidates = candidates(layout);
    let mut names: Vec<String> = candidates.iter().map(|c| suffix(&c.module).to_string()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

impl AdapterLayout {
    /// Lays out the adapters of a model.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] if the rank is 0, there is no target, or a target is no layer of the
    /// model; it names the layers that there are.
    pub fn new(layout: &Layout, lora: &LoraConfig) -> Result<Self, Error> {
        if lora.rank == 0 {
            return Err(Error::Setting("the rank of an adapter is 0; it must be 1 or more".into()));
        }
        let candidates = candidates(layout);
        let matches = |module: &str, target: &str| {
            module == target || module.strip_suffix(target).is_some_and(|m| m.ends_with('.'))
        };
        let names = || linear_modules(layout).join(", ");
        if lora.target_modules.is_empty() {
            let text = format!("an adapter needs target modules; the model has: {}", names());
            return Err(Error::Setting(text));
        }
        for target in &lora.target_modules {
            if !candidates.iter().any(|c| matches(&c.module, target)) {
                return Err(Error::Setting(format!(
                    "the target module {target:?} of the adapter is no layer that can have one; \
                     the model has: {}",
                    names()
                )));
            }
        }
        let mut offset = 0;
        let mut next = |length: usize| {
            offset += length;
            offset - length..offset
        };
        let chosen = |c: &AdapterInfo| lora.target_modules.iter().any(|t| matches(&c.module, t));
        let adapters = candidates
            .iter()
            .filter(|c| chosen(c))
            .map(|c| {
                let mut info = c.clone();
                info.place.rank = lora.rank;
                info.place.a = next(lora.rank * info.place.inputs);
                info.place.b = next(info.place.outputs.len() * lora.rank);
                info
            })
            .collect();
        let fan_in_fan_out = layout.tensors.iter().any(|t| t.transposed);
        Ok(Self { adapters, num_params: offset, fan_in_fan_out })
    }

    /// Starting parameters: A uniform in ±1/√inputs, B zero, so that the model is unchanged.
    ///
    /// # Source
    ///
    /// PEFT's default (`init_lora_weights=True`): Kaiming-uniform with a = √5, hence a gain of
    /// √(2 / (1 + 5)) = √⅓.
    pub fn init(&self, stream: &mut Stream) -> Vec<f32> {
        let mut theta = vec![0.0; self.num_params];
        for AdapterInfo { place, .. } in &self.adapters {
            let a = &mut theta[place.a.clone()];
            let gain = (1.0_f64 / 3.0).sqrt();
            kaiming_uniform(a, place.rank, place.inputs, gain, &mut || stream.uniform());
        }
        theta
    }

    /// The adapters in the form that a model computes with.
    ///
    /// # Shapes
    ///
    /// `theta`: `[num_params]`.
    ///
    /// # Panics
    ///
    /// If the length or the model does not fit.
    pub fn adapter(&self, layout: &Layout, theta: Vec<f32>, scaling: f64) -> Adapter<f32> {
        assert_eq!(theta.len(), self.num_params, "the adapter does not fit its layout");
        let places: Vec<Place> = self.adapters.iter().map(|info| info.place.clone()).collect();
        let blocks = &layout.blocks;
        Adapter::new(theta, &places, scaling as f32, blocks.len(), |block, site| {
            let block = &blocks[block];
            match site {
                Site::Qkv => block.qkv.outputs,
                Site::Output => block.output.outputs,
                Site::Up => block.up.outputs,
                Site::Down => block.down.outputs,
            }
        })
    }

    /// Adds `scaling` B A to the matrices of `theta`.
    ///
    /// # Shapes
    ///
    /// `theta`: the model's; `adapter`: `[num_params]`.
    ///
    /// # Panics
    ///
    /// If a length does not fit.
    pub fn merge(&self, theta: &mut [f32], adapter: &[f32], scaling: f64) {
        assert_eq!(adapter.len(), self.num_params, "the adapter does not fit its layout");
        for AdapterInfo { place, weight, .. } in &self.adapters {
            let (a, b) = (&adapter[place.a.clone()], &adapter[place.b.clone()]);
            let rows = theta[weight.clone()].par_chunks_exact_mut(place.inputs);
            rows.zip(b.par_chunks_exact(place.rank)).for_each(|(row, b)| {
                let mut change = vec![0.0_f32; place.inputs];
                for (&b, a) in b.iter().zip(a.chunks_exact(place.inputs)) {
                    for (c, &a) in change.iter_mut().zip(a) {
                        *c += b * a;
                    }
                }
                for (w, c) in row.iter_mut().zip(change) {
                    *w += scaling as f32 * c;
                }
            });
        }
    }
}

#[cfg(test)]
mod tests;
