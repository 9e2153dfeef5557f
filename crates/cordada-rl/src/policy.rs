//! Actor and critic over one flat θ: which network gives the distribution's parameters, which the
//! value, and how their gradients come back. What a loss is, is not its business.

mod q_network;
mod torso;

#[cfg(test)]
mod tests;

use std::ops::Range;

use cordada_env::{Space, Stream};
use cordada_nn::{
    Activation, Cell, Init, Mlp, MlpSpec, ParamInfo, Real, Rnn, RnnTape, RnnWeights, Tape, Weights,
};
use serde::{Deserialize, Serialize};

use crate::distribution::{
    Bernoulli, Categorical, DiagGaussian, Distribution, MultiCategorical, SquashedGaussian,
};
use torso::{drawn, init_params, named};

pub use q_network::{QNetwork, QSpec, QTape, QWeights, SupportSpec};
pub(crate) use torso::init_network;
pub use torso::{Encoder, Torso, TorsoTape, TorsoWeights};

/// Rows that go through the networks at once: their activations stay in the cache, and tiles of 6
/// and 12 rows leave no rest. It changes the speed, never a result.
pub const BLOCK_ROWS: usize = 96;

/// Where the log standard deviations of a Gaussian policy come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogStd {
    /// One learned number per component, the same in all states.
    #[default]
    Shared,
    /// A second half of the network's output.
    PerState,
    /// There are none: the policy is deterministic, as in DDPG and TD3.
    None,
}

/// Units that remember the episode so far.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemorySpec {
    /// Name of the [`Cell`].
    pub cell: String,
    /// Units.
    pub size: usize,
}

/// The shape of an [`ActorCritic`], as stored with a policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ActorCriticSpec {
    /// Width of the networks' input.
    pub inputs: usize,
    /// What the actor acts in.
    pub action_space: Space,
    /// What comes before the trunk.
    pub encoder: Encoder,
    /// Hidden layers of a trunk that actor and critic share; empty for none.
    pub trunk: Vec<usize>,
    /// Memory after the trunk, which actor and critic share.
    pub memory: Option<MemorySpec>,
    /// Hidden layers of the actor (after the trunk).
    pub actor: Vec<usize>,
    /// Hidden layers of the critic (after the trunk); none if it is not part of the policy.
    pub critic: Option<Vec<usize>>,
    /// Name of the activation.
    pub activation: String,
    /// Whether hidden layers are normalized.
    pub layer_norm: bool,
    /// For real-valued actions.
    pub log_std: LogStd,
    /// For real-valued actions: whether they are squashed into the box by tanh.
    pub squash: bool,
}

/// Actor and critic: shapes and offsets into θ, no numbers.
///
/// θ = encoder · trunk · memory · actor · shared log standard deviations · critic, as far as there
/// are such parts.
#[derive(Clone, Debug)]
pub struct ActorCritic {
    distribution: Distribution,
    torso: Torso,
    memory: Option<(Rnn, Range<usize>)>,
    actor: (Mlp, Range<usize>),
    critic: Option<(Mlp, Range<usize>)>,
    log_std: Option<Range<usize>>,
    /// Whether the actor gives means alone.
    deterministic: bool,
    num_params: usize,
}

/// θ packed for computing, once per optimizer step.
#[derive(Clone, Debug)]
pub struct PolicyWeights<T> {
    torso: TorsoWeights<T>,
    memory: Option<RnnWeights<T>>,
    actor: Weights<T>,
    critic: Option<Weights<T>>,
    log_std: Vec<T>,
}

/// Working memory of forward and backward passes; grows to the largest batch.
#[derive(Clone, Debug, Default)]
pub struct PolicyTape<T> {
    torso: TorsoTape<T>,
    memory: RnnTape<T>,
    actor: Tape<T>,
    critic: Tape<T>,
    /// Output of the torso, and of the memory.
    features: Vec<T>,
    recalled: Vec<T>,
    starts: Vec<bool>,
    params: Vec<T>,
    values: Vec<T>,
    d_mean: Vec<T>,
    d_input: [Vec<T>; 2],
    d_features: Vec<T>,
}

/// How the rows of a batch follow each other: B sequences side by side, `[T, B]`, time first.
#[derive(Clone, Copy, Debug)]
pub struct Sequences<'a, T> {
    /// Whether an episode begins with the row, so that nothing is remembered: `[T, B]`.
    pub starts: &'a [bool],
    /// What is remembered before the first row: `[B, S]`.
    pub state: &'a [T],
}

/// Log standard deviation of a policy that has none: far below what an `f32` action can show.
const NO_SPREAD: f64 = -20.0;

impl ActorCritic {
    /// Lays out θ for `spec`. The action space must be one that a distribution exists for.
    ///
    /// # Panics
    ///
    /// If the action space is a `Dict`, or the activation or cell has no such name; all are checked
    /// where a spec comes from outside.
    pub fn new(spec: &ActorCriticSpec) -> Self {
        let activation = Activation::from_name(&spec.activation).expect("a known activation");
        let distribution = distribution_for(&spec.action_space, spec.squash).expect("not a Dict");
        let gaussian = matches!(spec.action_space, Space::Box(_));
        let shared_std = gaussian && spec.log_std == LogStd::Shared;
        let deterministic = gaussian && spec.log_std == LogStd::None;
        let width = distribution.num_params();
        let outputs = if shared_std || deterministic { width / 2 } else { width };
        let torso = Torso::new(spec.encoder, spec.inputs, &spec.trunk, activation, spec.layer_norm);
        let mut offset = torso.num_params();
        let mut place = |len: usize| {
            offset += len;
            offset - len..offset
        };
        let mut features = torso.outputs();
        let memory = spec.memory.as_ref().map(|memory| {
            let cell = Cell::from_name(&memory.cell).expect("a known cell");
            let rnn = Rnn::new(cell, features, memory.size);
            features = memory.size;
            let range = place(rnn.num_params());
            (rnn, range)
        });
        let head = |hidden: &[usize], outputs: usize| {
            let sizes = [features].into_iter().chain(hidden.iter().copied()).chain([outputs]);
            Mlp::new(&MlpSpec {
                sizes: sizes.collect(),
                activation,
                output_activation: Activation::Identity,
                layer_norm: spec.layer_norm,
                output_norm: false,
            })
        };
        let actor = head(&spec.actor, outputs);
        let actor_range = place(actor.num_params());
        let log_std = shared_std.then(|| place(width / 2));
        let critic = spec.critic.as_ref().map(|hidden| {
            let critic = head(hidden, 1);
            let range = place(critic.num_params());
            (critic, range)
        });
        Self {
            distribution,
            torso,
            memory,
            actor: (actor, actor_range),
            critic,
            log_std,
            deterministic,
            num_params: offset,
        }
    }

    /// Length of θ.
    pub fn num_params(&self) -> usize {
        self.num_params
    }

    /// The distribution of actions.
    pub fn distribution(&self) -> &Distribution {
        &self.distribution
    }

    /// Whether the actor's action is always the distribution's mode.
    pub fn is_deterministic(&self) -> bool {
        self.deterministic
    }

    /// S, numbers that are remembered from one step to the next; 0 without memory.
    pub fn state_len(&self) -> usize {
        self.memory.as_ref().map_or(0, |(rnn, _)| rnn.state_len())
    }

    /// Whether actor and critic have no parameter in common, so that one can move without the
    /// other.
    pub fn is_separate(&self) -> bool {
        self.torso.is_identity() && self.memory.is_none()
    }

    /// Where the shared log standard deviations lie in θ, if there are any.
    pub fn log_std_range(&self) -> Option<Range<usize>> {
        self.log_std.clone()
    }

    /// Where the actor's own parameters lie in θ, shared log standard deviations included.
    pub fn actor_range(&self) -> Range<usize> {
        let end = self.log_std.as_ref().map_or(self.actor.1.end, |range| range.end);
        self.actor.1.start..end
    }

    /// Where the critic's own parameters lie in θ; empty if there is no critic.
    pub fn critic_range(&self) -> Range<usize> {
        self.critic.as_ref().map_or(self.num_params..self.num_params, |(_, range)| range.clone())
    }

    /// Floating-point operations of the products of one row's forward pass, actor and critic.
    pub fn forward_flops(&self) -> usize {
        let memory = self.memory.as_ref().map_or(0, |(rnn, _)| rnn.forward_flops());
        let critic = self.critic.as_ref().map_or(0, |(mlp, _)| mlp.forward_flops());
        self.torso.forward_flops() + memory + self.actor.0.forward_flops() + critic
    }

    /// Name, shape and place of every parameter tensor, in θ's order.
    pub fn params(&self) -> Vec<ParamInfo> {
        let memory =
            self.memory.iter().flat_map(|(rnn, at)| named("memory", rnn.params(), at.start));
        let (actor, at) = &self.actor;
        let actor = named("actor", actor.params(), at.start);
        let log_std = self.log_std.iter().map(|range| ParamInfo {
            name: "log_std".into(),
            shape: vec![range.len()],
            range: range.clone(),
        });
        let critic =
            self.critic.iter().flat_map(|(mlp, at)| named("critic", mlp.params(), at.start));
        self.torso
            .params()
            .into_iter()
            .chain(memory)
            .chain(actor)
            .chain(log_std)
            .chain(critic)
            .collect()
    }

    /// Initial parameters: `init` with gain √2 for hidden layers, 1 for the memory, 0.01 for the
    /// policy's head and 1 for the value's head; biases 0, norms 1, log standard deviations
    /// `log_std`.
    ///
    /// # Source
    ///
    /// Details 2 and 24 of The 37 Implementation Details of PPO (Huang et al. 2022); the small
    /// policy head is among the strongest effects found by Andrychowicz et al. 2020.
    pub fn init<T: Real>(&self, init: Init, log_std: f64, stream: &mut Stream) -> Vec<T> {
        let mut theta = vec![T::ZERO; self.num_params];
        self.torso.init(init, stream, &mut theta);
        if let Some((rnn, at)) = &self.memory {
            for param in named("memory", rnn.params(), at.start) {
                if param.shape.len() == 2 {
                    // Matrix by matrix of the cell's gates, so that each is orthogonal by itself.
                    let (rows, columns) = (rnn.hidden(), param.shape[1]);
                    for gate in theta[param.range].chunks_exact_mut(rows * columns) {
                        init.fill(gate, rows, columns, 1.0, &mut |kind| drawn(kind, stream));
                    }
                }
            }
        }
        let heads = [(Some(&self.actor), 0.01), (self.critic.as_ref(), 1.0)];
        for (head, gain) in heads {
            let Some((mlp, at)) = head else { continue };
            let params: Vec<ParamInfo> = named("", mlp.params(), at.start).collect();
            init_params(&params, init, Some(gain), stream, &mut theta);
        }
        if let Some(range) = &self.log_std {
            theta[range.clone()].fill(T::of(log_std));
        }
        theta
    }

    /// Room for packed weights.
    pub fn weights<T: Real>(&self) -> PolicyWeights<T> {
        let log_std = match &self.log_std {
            Some(range) => vec![T::ZERO; range.len()],
            None if self.deterministic => vec![T::of(NO_SPREAD); self.actor.0.outputs()],
            None => Vec::new(),
        };
        PolicyWeights {
            torso: self.torso.weights(),
            memory: self.memory.as_ref().map(|(rnn, _)| rnn.weights()),
            actor: self.actor.0.weights(),
            critic: self.critic.as_ref().map(|(mlp, _)| mlp.weights()),
            log_std,
        }
    }

    /// Packs θ.
    ///
    /// # Panics
    ///
    /// If θ has another length.
    pub fn pack<T: Real>(&self, theta: &[T], weights: &mut PolicyWeights<T>) {
        assert_eq!(theta.len(), self.num_params, "length of θ");
        self.torso.pack(&theta[..self.torso.num_params()], &mut weights.torso);
        if let (Some((rnn, at)), Some(packed)) = (&self.memory, &mut weights.memory) {
            rnn.pack(&theta[at.clone()], packed);
        }
        self.pack_actor(theta, weights);
        self.pack_critic(theta, weights);
    }

    /// Packs the actor's own part of θ, [`ActorCritic::actor_range`], and leaves the rest.
    pub fn pack_actor<T: Real>(&self, theta: &[T], weights: &mut PolicyWeights<T>) {
        let (actor, at) = &self.actor;
        actor.pack(&theta[at.clone()], &mut weights.actor);
        if let Some(range) = &self.log_std {
            weights.log_std.copy_from_slice(&theta[range.clone()]);
        }
    }

    /// Packs the critic's own part of θ, [`ActorCritic::critic_range`], and leaves the rest.
    pub fn pack_critic<T: Real>(&self, theta: &[T], weights: &mut PolicyWeights<T>) {
        if let (Some((mlp, at)), Some(packed)) = (&self.critic, &mut weights.critic) {
            mlp.pack(&theta[at.clone()], packed);
        }
    }

    /// The distribution's parameters for each row, of which each is a step of its own sequence.
    ///
    /// # Shapes
    ///
    /// `x`: `[B, inputs]`; `state`: `[B, S]`, what is remembered, which moves on; result: `[B, P]`,
    /// in the tape.
    pub fn act<'t, T: Real>(
        &self,
        weights: &PolicyWeights<T>,
        x: &[T],
        state: &mut [T],
        tape: &'t mut PolicyTape<T>,
    ) -> &'t [T] {
        self.recall(weights, x, state, tape);
        self.run_actor(weights, x, tape);
        &tape.params
    }

    /// The value of each row: `[B]`, in the tape. Shapes are those of [`ActorCritic::act`].
    pub fn value<'t, T: Real>(
        &self,
        weights: &PolicyWeights<T>,
        x: &[T],
        state: &mut [T],
        tape: &'t mut PolicyTape<T>,
    ) -> &'t [T] {
        self.recall(weights, x, state, tape);
        self.run_critic(weights, x, tape);
        &tape.values
    }

    /// Both, in one step: the distribution's parameters `[B, P]` and the values `[B]`.
    pub fn act_and_value<'t, T: Real>(
        &self,
        weights: &PolicyWeights<T>,
        x: &[T],
        state: &mut [T],
        tape: &'t mut PolicyTape<T>,
    ) -> (&'t [T], &'t [T]) {
        self.recall(weights, x, state, tape);
        self.run_actor(weights, x, tape);
        self.run_critic(weights, x, tape);
        (&tape.params, &tape.values)
    }

    /// The distribution's parameters `[B, P]` and the value `[B]` of each row; what `backward`
    /// needs stays in the tape. Without memory, `sequences` is not looked at.
    ///
    /// # Panics
    ///
    /// If there is memory and no `sequences`.
    pub fn forward<'t, T: Real>(
        &self,
        weights: &PolicyWeights<T>,
        x: &[T],
        sequences: Option<Sequences<'_, T>>,
        tape: &'t mut PolicyTape<T>,
    ) -> (&'t [T], &'t [T]) {
        self.torso.forward(&weights.torso, x, &mut tape.torso, &mut tape.features);
        if let (Some((rnn, _)), Some(packed)) = (&self.memory, &weights.memory) {
            let Sequences { starts, state } =
                sequences.expect("sequences for a policy with memory");
            let PolicyTape { memory, features, recalled, .. } = tape;
            let input = if self.torso.is_identity() { x } else { &features[..] };
            tape.starts.clear();
            tape.starts.extend_from_slice(starts);
            recalled.clear();
            recalled.extend_from_slice(rnn.forward(packed, input, Some(starts), state, memory));
        }
        self.run_actor(weights, x, tape);
        self.run_critic(weights, x, tape);
        (&tape.params, &tape.values)
    }

    /// `grad` += the gradient in θ of an objective whose gradient in the distribution's parameters
    /// is `d_params` and in the values `d_values`, at the point of the last `forward`. A part that
    /// is not given does not move.
    ///
    /// # Shapes
    ///
    /// `x`: as in `forward`; `d_params`: `[B, P]`; `d_values`: `[B]`; `grad`: as θ.
    pub fn backward<T: Real>(
        &self,
        weights: &PolicyWeights<T>,
        x: &[T],
        tape: &mut PolicyTape<T>,
        (d_params, d_values): (Option<&[T]>, Option<&[T]>),
        grad: &mut [T],
    ) {
        let PolicyTape { actor, critic, features, recalled, d_mean, d_input, d_features, .. } =
            tape;
        let separate = self.is_separate();
        let input = self.head_input(x, features, recalled);
        let mut arrived = 0;
        let mut heads = d_input.iter_mut().map(|dx| {
            dx.resize(if separate { 0 } else { input.len() }, T::ZERO);
            &mut dx[..]
        });
        let mut back = || {
            arrived += 1;
            heads.next().filter(|_| !separate)
        };
        if let Some(d_params) = d_params {
            let (mlp, range) = &self.actor;
            let d_actor = self.actor_outputs(d_params, d_mean, grad);
            mlp.vjp(&weights.actor, input, actor, d_actor, &mut grad[range.clone()], back());
        }
        if let (Some(d_values), Some((mlp, range)), Some(weights)) =
            (d_values, &self.critic, &weights.critic)
        {
            mlp.vjp(weights, input, critic, d_values, &mut grad[range.clone()], back());
        }
        drop(heads);
        if separate || arrived == 0 {
            return;
        }
        let [first, second] = d_input;
        if arrived == 2 {
            for (sum, &d) in first.iter_mut().zip(&*second) {
                *sum += d;
            }
        }
        let mut dy = &first[..];
        if let (Some((rnn, at)), Some(packed)) = (&self.memory, &weights.memory) {
            let input = if self.torso.is_identity() { x } else { &features[..] };
            let dx = (!self.torso.is_identity()).then(|| {
                d_features.resize(features.len(), T::ZERO);
                &mut d_features[..]
            });
            let starts = Some(&tape.starts[..]);
            rnn.vjp(packed, input, starts, &mut tape.memory, dy, &mut grad[at.clone()], dx);
            dy = d_features;
        }
        self.torso.vjp(&weights.torso, x, &mut tape.torso, dy, grad);
    }

    /// Forward derivative of the actor: `d_params = (∂ params / ∂θ) v` at the point of the last
    /// `act`, for networks of which the actor is apart ([`ActorCritic::is_separate`]). The Fisher
    /// product of TRPO begins with it.
    ///
    /// # Shapes
    ///
    /// `x`: as in `act`; `v`: the direction, packed like θ; `d_params`: `[B, P]`.
    pub fn actor_jvp<T: Real>(
        &self,
        weights: &PolicyWeights<T>,
        v: &PolicyWeights<T>,
        x: &[T],
        tape: &mut PolicyTape<T>,
        d_params: &mut [T],
    ) {
        debug_assert!(self.is_separate(), "an actor of its own");
        let PolicyTape { actor, d_mean, .. } = tape;
        let mlp = &self.actor.0;
        if self.log_std.is_none() {
            mlp.jvp(&weights.actor, &v.actor, x, actor, d_params);
            return;
        }
        let a = v.log_std.len();
        d_mean.resize(d_params.len() / 2, T::ZERO);
        mlp.jvp(&weights.actor, &v.actor, x, actor, d_mean);
        for (row, mean) in d_params.chunks_exact_mut(2 * a).zip(d_mean.chunks_exact(a)) {
            row[..a].copy_from_slice(mean);
            row[a..].copy_from_slice(&v.log_std);
        }
    }

    /// From derivatives in the distribution's parameters to those in the actor's outputs; what
    /// belongs to shared log standard deviations goes to `grad` at once.
    fn actor_outputs<'d, T: Real>(
        &self,
        d_params: &'d [T],
        d_mean: &'d mut Vec<T>,
        grad: &mut [T],
    ) -> &'d [T] {
        if self.log_std.is_none() && !self.deterministic {
            return d_params;
        }
        let a = self.actor.0.outputs();
        d_mean.clear();
        for row in d_params.chunks_exact(2 * a) {
            d_mean.extend_from_slice(&row[..a]);
        }
        if let Some(range) = &self.log_std {
            let sums = &mut grad[range.clone()];
            for row in d_params.chunks_exact(2 * a) {
                for (sum, &d) in sums.iter_mut().zip(&row[a..]) {
                    *sum += d;
                }
            }
        }
        d_mean
    }

    /// Torso, and one step of the memory.
    fn recall<T: Real>(
        &self,
        weights: &PolicyWeights<T>,
        x: &[T],
        state: &mut [T],
        tape: &mut PolicyTape<T>,
    ) {
        self.torso.forward(&weights.torso, x, &mut tape.torso, &mut tape.features);
        if let (Some((rnn, _)), Some(packed)) = (&self.memory, &weights.memory) {
            let PolicyTape { memory, features, recalled, .. } = tape;
            let input = if self.torso.is_identity() { x } else { &features[..] };
            recalled.clear();
            recalled.extend_from_slice(rnn.step(packed, input, state, memory));
        }
    }

    fn run_actor<T: Real>(&self, weights: &PolicyWeights<T>, x: &[T], tape: &mut PolicyTape<T>) {
        let input = self.head_input(x, &tape.features, &tape.recalled);
        let y = self.actor.0.forward(&weights.actor, input, &mut tape.actor);
        tape.params.clear();
        if weights.log_std.is_empty() {
            tape.params.extend_from_slice(y);
        } else {
            for mean in y.chunks_exact(weights.log_std.len()) {
                tape.params.extend_from_slice(mean);
                tape.params.extend_from_slice(&weights.log_std);
            }
        }
    }

    fn run_critic<T: Real>(&self, weights: &PolicyWeights<T>, x: &[T], tape: &mut PolicyTape<T>) {
        tape.values.clear();
        if let (Some((mlp, _)), Some(weights)) = (&self.critic, &weights.critic) {
            let input = self.head_input(x, &tape.features, &tape.recalled);
            tape.values.extend_from_slice(mlp.forward(weights, input, &mut tape.critic));
        }
    }

    /// What the heads see.
    fn head_input<'a, T>(&self, x: &'a [T], features: &'a [T], recalled: &'a [T]) -> &'a [T] {
        match (&self.memory, self.torso.is_identity()) {
            (Some(_), _) => recalled,
            (None, true) => x,
            (None, false) => features,
        }
    }
}

/// The distribution over an action space; none for a `Dict`, nor for a box without bounds to squash
/// into.
pub fn distribution_for(space: &Space, squash: bool) -> Option<Distribution> {
    let wide = |bounds: &[f32]| -> Vec<f64> { bounds.iter().map(|&x| f64::from(x)).collect() };
    Some(match space {
        Space::Discrete { n } => Distribution::Categorical(Categorical::new(*n)),
        Space::MultiDiscrete { nvec } => {
            Distribution::MultiCategorical(MultiCategorical::new(nvec))
        }
        Space::MultiBinary { n } => Distribution::Bernoulli(Bernoulli::new(*n)),
        Space::Box(b) if squash => {
            if !b.is_bounded() {
                return None;
            }
            let (low, high) = (wide(&b.low), wide(&b.high));
            Distribution::SquashedGaussian(SquashedGaussian::with_bounds(&low, &high))
        }
        Space::Box(b) => Distribution::DiagGaussian(DiagGaussian::new(b.low.len())),
        Space::Dict(_) => return None,
    })
}
