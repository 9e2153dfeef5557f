//! A policy as a thing of its own: parameters, normalizer, spaces and action transform in one
//! `.safetensors` file, which is enough to act.

use std::path::Path;

use cordada_env::wrapper::normalize::{NormalizeOptions, ObsNormalizer};
use cordada_env::{RunningMoments, Space, Stream};
use cordada_nn::Activation;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::input::InputMap;
use crate::policy::{ActorCritic, PolicySpec, PolicyTape, PolicyWeights, distribution_for};
use crate::rollout::clipped;

/// Version of the file's layout.
const FORMAT: u32 = 1;

/// A policy ready to act, with where it came from.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Algorithm that trained it.
    pub algo: String,
    /// Environment that it was trained in.
    pub env: String,
    /// Shape of its networks.
    pub spec: PolicySpec,
    /// Observations that it takes.
    pub obs_space: Space,
    /// Options of the normalizer, if observations are normalized.
    pub normalize: Option<NormalizeOptions>,
    /// From observations to input, with the normalizer's moments.
    pub input: InputMap,
    /// Parameters.
    pub theta: Vec<f32>,
}

/// What the file's metadata holds under the key `cordada`, as JSON.
#[derive(Serialize, Deserialize)]
struct Metadata {
    format: u32,
    algo: String,
    env: String,
    policy: PolicySpec,
    obs_space: Space,
    normalizer: Option<Normalizer>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
struct Normalizer {
    clip: f64,
    epsilon: f64,
    count: f64,
}

impl Policy {
    /// The file's bytes: one tensor per layer, named as in [`ActorCritic::params`].
    ///
    /// # Errors
    ///
    /// [`Error::Checkpoint`] if the encoder refuses, which it does not for tensors of ours.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        let network = ActorCritic::new(&self.spec);
        let bytes: Vec<u8> = self.theta.iter().flat_map(|x| x.to_le_bytes()).collect();
        let wide = |x: &[f64]| -> Vec<u8> { x.iter().flat_map(|x| x.to_le_bytes()).collect() };
        let moments = self.input.normalizer().map(ObsNormalizer::moments);
        let stats = moments.map(|m| (wide(m.mean()), wide(m.var())));
        let refuse = |reason: String| Error::Checkpoint { path: "policy".into(), reason };
        let mut tensors = Vec::new();
        for param in network.params() {
            let data = &bytes[4 * param.range.start..4 * param.range.end];
            let view = TensorView::new(Dtype::F32, param.shape, data);
            tensors.push((param.name, view.map_err(|e| refuse(e.to_string()))?));
        }
        if let Some((mean, var)) = &stats {
            for (name, data) in [("obs_normalizer.mean", mean), ("obs_normalizer.var", var)] {
                let view = TensorView::new(Dtype::F64, vec![data.len() / 8], data);
                tensors.push((name.to_string(), view.map_err(|e| refuse(e.to_string()))?));
            }
        }
        let metadata = Metadata {
            format: FORMAT,
            algo: self.algo.clone(),
            env: self.env.clone(),
            policy: self.spec.clone(),
            obs_space: self.obs_space.clone(),
            normalizer: self.normalize.zip(moments).map(|(o, m)| Normalizer {
                clip: o.clip,
                epsilon: o.epsilon,
                count: m.count(),
            }),
        };
        let json = serde_json::to_string(&metadata).map_err(|e| refuse(e.to_string()))?;
        #[allow(clippy::disallowed_types, reason = "the type that safetensors takes; one entry")]
        let header = std::collections::HashMap::from([("cordada".to_string(), json)]);
        safetensors::serialize(tensors, Some(header)).map_err(|e| refuse(e.to_string()))
    }

    /// Reads a policy file.
    ///
    /// # Errors
    ///
    /// [`Error::Checkpoint`], saying what is wrong with the file.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let refuse = |reason: String| Error::Checkpoint { path: path.to_path_buf(), reason };
        let bytes =
            std::fs::read(path).map_err(|e| Error::Log(cordada_log::Error::io("read", path, e)))?;
        Self::from_bytes(&bytes).map_err(refuse)
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        let (_, header) = SafeTensors::read_metadata(bytes)
            .map_err(|e| format!("not a whole policy file ({e})"))?;
        let json = header.metadata().as_ref().and_then(|m| m.get("cordada"));
        let json = json.ok_or("a safetensors file, but not a policy of Cordada")?;
        let meta: Metadata =
            serde_json::from_str(json).map_err(|e| format!("damaged metadata: {e}"))?;
        if meta.format != FORMAT {
            return Err(format!("policy format {}; this version reads {FORMAT}", meta.format));
        }
        check_sizes(&meta, bytes.len() / 4)?;
        let spec = meta.policy;
        let file = SafeTensors::deserialize(bytes).map_err(|e| format!("damaged: {e}"))?;
        let tensor = |name: &str, dtype: Dtype, shape: &[usize]| -> Result<&[u8], String> {
            let view = file.tensor(name).map_err(|_| format!("no tensor {name}"))?;
            if view.dtype() != dtype || view.shape() != shape {
                let found = (view.dtype(), view.shape());
                return Err(format!(
                    "{name} is {:?} {:?}, not {dtype:?} {shape:?}",
                    found.0, found.1
                ));
            }
            Ok(view.data())
        };
        let network = ActorCritic::new(&spec);
        let mut theta = vec![0.0; network.num_params()];
        for param in network.params() {
            let data = tensor(&param.name, Dtype::F32, &param.shape)?;
            for (to, from) in theta[param.range].iter_mut().zip(data.as_chunks().0) {
                *to = f32::from_le_bytes(*from);
            }
        }
        let normalize = meta.normalizer.map(|n| NormalizeOptions {
            clip: n.clip,
            epsilon: n.epsilon,
            ..NormalizeOptions::default()
        });
        let mut input = InputMap::new(&meta.obs_space, normalize).map_err(|e| e.to_string())?;
        let d = input.obs_len();
        if let (Some(n), Some(normalizer)) = (meta.normalizer, input.normalizer_mut()) {
            let read = |name| -> Result<Vec<f64>, String> {
                let data = tensor(name, Dtype::F64, &[d])?.as_chunks().0;
                Ok(data.iter().map(|b| f64::from_le_bytes(*b)).collect())
            };
            let (mean, var) = (read("obs_normalizer.mean")?, read("obs_normalizer.var")?);
            *normalizer.moments_mut() = RunningMoments::from_parts(mean, var, n.count);
        }
        let (algo, env, obs_space) = (meta.algo, meta.env, meta.obs_space);
        Ok(Self { algo, env, spec, obs_space, normalize, input, theta })
    }
}

/// Checks what networks and distributions are made from, before any memory is asked for: a file of
/// `numbers` numbers holds no larger network.
fn check_sizes(meta: &Metadata, numbers: usize) -> Result<(), String> {
    let spec = &meta.policy;
    if Activation::from_name(&spec.activation).is_none() {
        return Err(format!("unknown activation {:?}", spec.activation));
    }
    let outputs = width(&spec.action_space).filter(|n| (1..=numbers).contains(n));
    let distribution = outputs.and_then(|_| distribution_for(&spec.action_space, spec.squash));
    let Some(outputs) = outputs.filter(|_| distribution.is_some()) else {
        return Err(format!("no policy acts in {}", spec.action_space));
    };
    let features = spec.trunk.last().copied().unwrap_or(spec.inputs);
    let nets = [
        (spec.inputs, &spec.trunk, None),
        (features, &spec.actor, Some(outputs)),
        (features, &spec.critic, Some(1)),
    ];
    let mut weights = Some(0_usize);
    for (inputs, hidden, output) in nets {
        let mut from = inputs;
        for to in hidden.iter().copied().chain(output) {
            let layer = from.checked_mul(to).filter(|n| *n > 0);
            weights = weights.zip(layer).and_then(|(sum, n)| sum.checked_add(n));
            from = to;
        }
    }
    if weights.is_none_or(|weights| weights > numbers) {
        let PolicySpec { inputs, trunk, actor, critic, .. } = spec;
        return Err(format!(
            "a network of {inputs} inputs, trunk {trunk:?}, actor {actor:?} and critic {critic:?} \
             is not in this file"
        ));
    }
    if width(&meta.obs_space) != Some(spec.inputs) {
        return Err(format!("{} network inputs for {}", spec.inputs, meta.obs_space));
    }
    Ok(())
}

/// How many numbers stand for an element of a space in a network, an index being one-hot; none if
/// there are too many to count, or a choice among nothing.
fn width(space: &Space) -> Option<usize> {
    match space {
        Space::Discrete { n } | Space::MultiBinary { n } => Some(*n),
        Space::MultiDiscrete { nvec } if nvec.contains(&0) => None,
        Space::MultiDiscrete { nvec } => {
            nvec.iter().try_fold(0_usize, |sum, n| sum.checked_add(*n))
        }
        Space::Box(bounds) => Some(bounds.low.len()),
        Space::Dict(parts) => {
            parts.iter().try_fold(0_usize, |sum, (_, part)| sum.checked_add(width(part)?))
        }
    }
}

/// A [`Policy`] unpacked for acting on batches of observations.
#[derive(Debug)]
pub struct PolicyRunner {
    network: ActorCritic,
    weights: PolicyWeights<f32>,
    input: InputMap,
    action_space: Space,
    tape: PolicyTape<f32>,
    x: Vec<f32>,
    drawn: Vec<f32>,
    clip: Vec<f32>,
}

impl PolicyRunner {
    /// Packs the policy's parameters.
    pub fn new(policy: &Policy) -> Self {
        let network = ActorCritic::new(&policy.spec);
        let mut weights = network.weights();
        network.pack(&policy.theta, &mut weights);
        Self {
            drawn: vec![0.0; network.distribution().action_len()],
            network,
            weights,
            input: policy.input.clone(),
            action_space: policy.spec.action_space.clone(),
            tape: PolicyTape::default(),
            x: Vec::new(),
            clip: Vec::new(),
        }
    }

    /// Length of an action.
    pub fn action_len(&self) -> usize {
        self.drawn.len()
    }

    /// Length of a mask; 0 if this policy takes none.
    pub fn mask_len(&self) -> usize {
        self.network.distribution().mask_len()
    }

    /// The actions for a batch of observations, as the environment takes them: sampled, each from
    /// its own stream, or the most probable ones if there are no streams.
    ///
    /// # Shapes
    ///
    /// `obs`: `[B, D]`; `masks`: `[B, M]`; `streams`: `[B]`; `actions`: `[B, A]`.
    pub fn act(
        &mut self,
        obs: &[f32],
        masks: Option<&[bool]>,
        mut streams: Option<&mut [Stream]>,
        actions: &mut [f32],
    ) {
        let (d, e) = (self.input.obs_len(), self.input.inputs());
        let distribution = self.network.distribution();
        let (a, p, m) = (self.drawn.len(), distribution.num_params(), distribution.mask_len());
        self.x.resize(obs.len() / d * e, 0.0);
        for (obs, x) in obs.chunks_exact(d).zip(self.x.chunks_exact_mut(e)) {
            self.input.apply(obs, x);
        }
        let params = self.network.act(&self.weights, &self.x, &mut self.tape);
        for (i, (params, action)) in
            params.chunks_exact(p).zip(actions.chunks_exact_mut(a)).enumerate()
        {
            let mask = masks.map(|masks| &masks[i * m..(i + 1) * m]);
            match &mut streams {
                Some(streams) => {
                    distribution.sample(params, mask, &mut streams[i], &mut self.drawn);
                }
                None => distribution.mode(params, mask, &mut self.drawn),
            }
            action.copy_from_slice(clipped(&self.action_space, &self.drawn, &mut self.clip));
        }
    }
}
