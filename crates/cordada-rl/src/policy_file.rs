//! A policy as a thing of its own: parameters, normalizer, spaces and action transform in one
//! `.safetensors` file, which is enough to act.

use std::path::Path;

use cordada_env::wrapper::normalize::{NormalizeOptions, ObsNormalizer};
use cordada_env::{RunningMoments, Space, Stream};
use cordada_nn::{Activation, Cell, ParamInfo};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::estimate::td_target::greedy_action;
use crate::explore::epsilon_greedy;
use crate::input::InputMap;
use crate::policy::{
    ActorCritic, ActorCriticSpec, Encoder, PolicyTape, PolicyWeights, QNetwork, QSpec, QTape,
    QWeights, SupportSpec, distribution_for,
};
use crate::rollout::clipped;

/// Version of the file's layout.
const FORMAT: u32 = 2;

/// What kind of network a policy is, and its shape.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PolicySpec {
    /// A distribution over actions, perhaps with a critic.
    ActorCritic(ActorCriticSpec),
    /// Action values: the policy takes the action of the largest.
    ActionValues(QSpec),
}

impl PolicySpec {
    /// Name, shape and place of every parameter tensor.
    fn params(&self) -> Vec<ParamInfo> {
        match self {
            Self::ActorCritic(spec) => ActorCritic::new(spec).params(),
            Self::ActionValues(spec) => QNetwork::new(spec).params(),
        }
    }

    /// What the policy acts in.
    pub fn action_space(&self) -> Space {
        match self {
            Self::ActorCritic(spec) => spec.action_space.clone(),
            Self::ActionValues(spec) => Space::Discrete { n: spec.num_actions },
        }
    }
}

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
    /// The file's bytes: one tensor per layer, named as in [`ActorCritic::params`] or [`QNetwork::params`].
    ///
    /// # Errors
    ///
    /// [`Error::Checkpoint`] if the encoder refuses, which it does not for tensors of ours.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        let bytes: Vec<u8> = self.theta.iter().flat_map(|x| x.to_le_bytes()).collect();
        let wide = |x: &[f64]| -> Vec<u8> { x.iter().flat_map(|x| x.to_le_bytes()).collect() };
        let moments = self.input.normalizer().map(ObsNormalizer::moments);
        let stats = moments.map(|m| (wide(m.mean()), wide(m.var())));
        let refuse = |reason: String| Error::Checkpoint { path: "policy".into(), reason };
        let mut tensors = Vec::new();
        for param in self.spec.params() {
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
        let params = spec.params();
        let mut theta = vec![0.0; params.last().map_or(0, |param| param.range.end)];
        for param in params {
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
    let (inputs, activation, encoder) = match &meta.policy {
        PolicySpec::ActorCritic(spec) => (spec.inputs, &spec.activation, spec.encoder),
        PolicySpec::ActionValues(spec) => (spec.inputs, &spec.activation, spec.encoder),
    };
    if Activation::from_name(activation).is_none() {
        return Err(format!("unknown activation {activation:?}"));
    }
    if width(&meta.obs_space) != Some(inputs) {
        return Err(format!("{inputs} network inputs for {}", meta.obs_space));
    }
    let mut count = Count { features: inputs, weights: Some(0), numbers };
    if let Encoder::NatureCnn { shape } = encoder {
        if Encoder::for_images(&meta.obs_space) != Some(encoder) {
            return Err(format!("convolutions on images {shape:?} for {}", meta.obs_space));
        }
        // Their layers do not fit into fewer numbers than the image has.
        count.layers(&[1]);
        count.features = NATURE_FEATURES;
    }
    match &meta.policy {
        PolicySpec::ActorCritic(spec) => check_actor_critic(spec, count),
        PolicySpec::ActionValues(spec) => check_action_values(spec, count),
    }
}

/// Features that an image encoder ends with.
const NATURE_FEATURES: usize = 512;

/// Counts weights without running over.
#[derive(Clone, Copy)]
struct Count {
    features: usize,
    weights: Option<usize>,
    numbers: usize,
}

impl Count {
    /// Dense layers from the features on, which are theirs afterwards.
    fn layers(&mut self, sizes: &[usize]) {
        for &to in sizes {
            let layer = self.features.checked_mul(to).filter(|n| *n > 0);
            self.weights = self.weights.zip(layer).and_then(|(sum, n)| sum.checked_add(n));
            self.features = to;
        }
    }

    /// The same for a head, after which the features are what they were.
    fn head(&mut self, hidden: &[usize], outputs: usize) {
        let features = self.features;
        self.layers(hidden);
        self.layers(&[outputs]);
        self.features = features;
    }

    fn fits(&self) -> bool {
        self.weights.is_some_and(|weights| weights <= self.numbers)
    }
}

fn check_actor_critic(spec: &ActorCriticSpec, mut count: Count) -> Result<(), String> {
    let outputs = width(&spec.action_space).filter(|n| (1..=count.numbers).contains(n));
    let distribution = outputs.and_then(|_| distribution_for(&spec.action_space, spec.squash));
    let Some(outputs) = outputs.filter(|_| distribution.is_some()) else {
        return Err(format!("no policy acts in {}", spec.action_space));
    };
    count.layers(&spec.trunk);
    if let Some(memory) = &spec.memory {
        if Cell::from_name(&memory.cell).is_none() {
            return Err(format!("unknown memory cell {:?}", memory.cell));
        }
        count.layers(&[memory.size, memory.size]);
    }
    count.head(&spec.actor, outputs);
    if let Some(critic) = &spec.critic {
        count.head(critic, 1);
    }
    if count.fits() {
        return Ok(());
    }
    let ActorCriticSpec { inputs, trunk, actor, critic, .. } = spec;
    let critic = critic.as_deref().unwrap_or(&[]);
    Err(format!(
        "a network of {inputs} inputs, trunk {trunk:?}, actor {actor:?} and critic {critic:?} \
         is not in this file"
    ))
}

fn check_action_values(spec: &QSpec, mut count: Count) -> Result<(), String> {
    let atoms = spec.support.map_or(1, |support| support.atoms);
    let outputs = spec.num_actions.checked_mul(atoms).filter(|n| *n > 0);
    if let Some(SupportSpec { atoms, v_min, v_max }) = spec.support
        && !(atoms > 1 && v_min < v_max && v_min.is_finite() && v_max.is_finite())
    {
        return Err(format!("{atoms} atoms from {v_min} to {v_max} for returns"));
    }
    count.layers(&spec.hidden);
    count.head(&[], outputs.unwrap_or(0));
    if count.fits() {
        return Ok(());
    }
    let QSpec { inputs, num_actions, hidden, .. } = spec;
    Err(format!(
        "a network of {inputs} inputs, hidden layers {hidden:?} and {num_actions} actions is not \
         in this file"
    ))
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
    network: Network,
    input: InputMap,
    action_space: Space,
    x: Vec<f32>,
    drawn: Vec<f32>,
    clip: Vec<f32>,
}

/// The network with its parameters and working memory.
#[derive(Debug)]
enum Network {
    ActorCritic(ActorCritic, Box<(PolicyWeights<f32>, PolicyTape<f32>)>),
    ActionValues {
        network: QNetwork,
        own: Box<(QWeights<f32>, QTape<f32>)>,
        epsilon: f64,
        values: Vec<f32>,
    },
}

impl PolicyRunner {
    /// Packs the policy's parameters.
    pub fn new(policy: &Policy) -> Self {
        let network = match &policy.spec {
            PolicySpec::ActorCritic(spec) => {
                let network = ActorCritic::new(spec);
                let mut weights = network.weights();
                network.pack(&policy.theta, &mut weights);
                Network::ActorCritic(network, Box::new((weights, PolicyTape::default())))
            }
            PolicySpec::ActionValues(spec) => {
                let network = QNetwork::new(spec);
                let mut weights = network.weights();
                network.pack(&policy.theta, &mut weights);
                let own = Box::new((weights, QTape::default()));
                let (epsilon, values) = (spec.epsilon, Vec::new());
                Network::ActionValues { network, own, epsilon, values }
            }
        };
        let action_space = policy.spec.action_space();
        Self {
            network,
            input: policy.input.clone(),
            drawn: vec![0.0; action_space.len()],
            action_space,
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
        match &self.network {
            Network::ActorCritic(network, _) => network.distribution().mask_len(),
            Network::ActionValues { network, .. } => network.num_actions(),
        }
    }

    /// S, numbers that the policy remembers from one step of an episode to the next; they are 0
    /// when an episode begins.
    pub fn state_len(&self) -> usize {
        match &self.network {
            Network::ActorCritic(network, _) => network.state_len(),
            Network::ActionValues { .. } => 0,
        }
    }

    /// The actions for a batch of observations, as the environment takes them: sampled, each from
    /// its own stream, or the most probable ones if there are no streams.
    ///
    /// # Shapes
    ///
    /// `obs`: `[B, D]`; `masks`: `[B, M]`; `states`: `[B, S]`, which move on; `streams`: `[B]`;
    /// `actions`: `[B, A]`.
    pub fn act(
        &mut self,
        obs: &[f32],
        masks: Option<&[bool]>,
        states: &mut [f32],
        streams: Option<&mut [Stream]>,
        actions: &mut [f32],
    ) {
        let (d, e, a) = (self.input.obs_len(), self.input.inputs(), self.drawn.len());
        self.x.resize(obs.len() / d * e, 0.0);
        for (obs, x) in obs.chunks_exact(d).zip(self.x.chunks_exact_mut(e)) {
            self.input.apply(obs, x);
        }
        match &mut self.network {
            Network::ActorCritic(network, own) => {
                let (weights, tape) = &mut **own;
                let pi = network.distribution();
                let (p, m) = (pi.num_params(), pi.mask_len());
                let params = network.act(weights, &self.x, states, tape);
                let mut streams = streams.filter(|_| !network.is_deterministic());
                let rows = params.chunks_exact(p).zip(actions.chunks_exact_mut(a));
                for (i, (params, action)) in rows.enumerate() {
                    let mask = masks.map(|masks| &masks[i * m..(i + 1) * m]);
                    match &mut streams {
                        Some(streams) => pi.sample(params, mask, &mut streams[i], &mut self.drawn),
                        None => pi.mode(params, mask, &mut self.drawn),
                    }
                    action.copy_from_slice(clipped(
                        &self.action_space,
                        &self.drawn,
                        &mut self.clip,
                    ));
                }
            }
            Network::ActionValues { network, own, epsilon, values } => {
                let (weights, tape) = &mut **own;
                let m = network.num_actions();
                network.values(network.forward(weights, &self.x, tape), values);
                let mut streams = streams;
                for (i, (values, action)) in values.chunks_exact(m).zip(actions).enumerate() {
                    let mask = masks.map(|masks| &masks[i * m..(i + 1) * m]);
                    let chosen = match &mut streams {
                        Some(streams) => epsilon_greedy(values, mask, *epsilon, &mut streams[i]),
                        None => greedy_action(values, mask),
                    };
                    *action = chosen as f32;
                }
            }
        }
    }
}
