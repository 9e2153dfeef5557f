//! Actor and critic over one flat θ: which network gives the distribution's parameters, which the
//! value, and how their gradients come back. What a loss is, is not its business.

use std::ops::Range;

use cordada_env::{Space, Stream};
use cordada_nn::{Activation, Draw, Init, Mlp, MlpSpec, ParamInfo, Real, Tape, Weights};
use serde::{Deserialize, Serialize};

use crate::distribution::{
    Bernoulli, Categorical, DiagGaussian, Distribution, MultiCategorical, SquashedGaussian,
};

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
}

/// The shape of an [`ActorCritic`], as stored with a policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PolicySpec {
    /// Width of the networks' input.
    pub inputs: usize,
    /// What the actor acts in.
    pub action_space: Space,
    /// Hidden layers of a trunk that actor and critic share; empty for none.
    pub trunk: Vec<usize>,
    /// Hidden layers of the actor (after the trunk).
    pub actor: Vec<usize>,
    /// Hidden layers of the critic (after the trunk).
    pub critic: Vec<usize>,
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
/// θ = trunk · actor · shared log standard deviations · critic, as far as there are such parts.
#[derive(Clone, Debug)]
pub struct ActorCritic {
    distribution: Distribution,
    trunk: Option<(Mlp, Range<usize>)>,
    actor: (Mlp, Range<usize>),
    critic: (Mlp, Range<usize>),
    log_std: Option<Range<usize>>,
    num_params: usize,
}

/// θ packed for computing, once per optimizer step.
#[derive(Clone, Debug)]
pub struct PolicyWeights<T> {
    trunk: Option<Weights<T>>,
    actor: Weights<T>,
    critic: Weights<T>,
    log_std: Vec<T>,
}

/// Working memory of forward and backward passes; grows to the largest batch.
#[derive(Clone, Debug, Default)]
pub struct PolicyTape<T> {
    trunk: Tape<T>,
    actor: Tape<T>,
    critic: Tape<T>,
    features: Vec<T>,
    params: Vec<T>,
    values: Vec<T>,
    d_mean: Vec<T>,
    d_features: [Vec<T>; 2],
}

impl ActorCritic {
    /// Lays out θ for `spec`. The action space must be one that a distribution exists for.
    ///
    /// # Panics
    ///
    /// If the action space is a `Dict` or the activation has no such name; both are checked where
    /// a spec comes from outside.
    pub fn new(spec: &PolicySpec) -> Self {
        let activation = Activation::from_name(&spec.activation).expect("a known activation");
        let distribution = distribution_for(&spec.action_space, spec.squash).expect("not a Dict");
        let gaussian = matches!(spec.action_space, Space::Box(_));
        let shared_std = gaussian && spec.log_std == LogStd::Shared;
        let width = distribution.num_params();
        let outputs = if shared_std { width / 2 } else { width };
        let net = |inputs: usize, hidden: &[usize], outputs: Option<usize>| {
            let sizes = [inputs].into_iter().chain(hidden.iter().copied()).chain(outputs);
            // A trunk ends with a hidden layer.
            let last = if outputs.is_some() { Activation::Identity } else { activation };
            Mlp::new(&MlpSpec {
                sizes: sizes.collect(),
                activation,
                output_activation: last,
                layer_norm: spec.layer_norm,
                output_norm: spec.layer_norm && outputs.is_none(),
            })
        };
        let mut offset = 0;
        let mut place = |len: usize| {
            offset += len;
            offset - len..offset
        };
        let trunk = (!spec.trunk.is_empty()).then(|| {
            let mlp = net(spec.inputs, &spec.trunk, None);
            let range = place(mlp.num_params());
            (mlp, range)
        });
        let features = spec.trunk.last().copied().unwrap_or(spec.inputs);
        let actor = net(features, &spec.actor, Some(outputs));
        let actor_range = place(actor.num_params());
        let log_std = shared_std.then(|| place(width / 2));
        let critic = net(features, &spec.critic, Some(1));
        let critic_range = place(critic.num_params());
        Self {
            distribution,
            trunk,
            actor: (actor, actor_range),
            critic: (critic, critic_range),
            log_std,
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

    /// Where the shared log standard deviations lie in θ, if there are any.
    pub fn log_std_range(&self) -> Option<Range<usize>> {
        self.log_std.clone()
    }

    /// Floating-point operations of the products of one row's forward pass, actor and critic.
    pub fn forward_flops(&self) -> usize {
        let trunk = self.trunk.as_ref().map_or(0, |(mlp, _)| mlp.forward_flops());
        trunk + self.actor.0.forward_flops() + self.critic.0.forward_flops()
    }

    /// Name, shape and place of every parameter tensor, in θ's order.
    pub fn params(&self) -> Vec<ParamInfo> {
        let named = |prefix: &'static str, (mlp, at): &(Mlp, Range<usize>)| {
            let start = at.start;
            mlp.params().into_iter().map(move |p| ParamInfo {
                name: format!("{prefix}.{}", p.name),
                range: p.range.start + start..p.range.end + start,
                ..p
            })
        };
        let log_std = self.log_std.iter().map(|range| ParamInfo {
            name: "log_std".into(),
            shape: vec![range.len()],
            range: range.clone(),
        });
        let trunk = self.trunk.iter().flat_map(|t| named("trunk", t));
        let actor = named("actor", &self.actor);
        trunk.chain(actor).chain(log_std).chain(named("critic", &self.critic)).collect()
    }

    /// Initial parameters: `init` with gain √2 for hidden layers, 0.01 for the policy's head and
    /// 1 for the value's head; biases 0, norms 1, log standard deviations `log_std`.
    ///
    /// # Source
    ///
    /// Details 2 and 24 of The 37 Implementation Details of PPO (Huang et al. 2022); the small
    /// policy head is among the strongest effects found by Andrychowicz et al. 2020.
    pub fn init<T: Real>(&self, init: Init, log_std: f64, stream: &mut Stream) -> Vec<T> {
        let mut theta = vec![T::ZERO; self.num_params];
        let mut draw = |kind: Draw| match kind {
            Draw::Normal => stream.normal(),
            Draw::Uniform => stream.uniform(),
        };
        let nets = [
            (self.trunk.as_ref(), None),
            (Some(&self.actor), Some(0.01)),
            (Some(&self.critic), Some(1.0)),
        ];
        for (net, head_gain) in nets {
            let Some((mlp, at)) = net else { continue };
            let params = mlp.params();
            let last =
                params.iter().rposition(|p| p.name.ends_with(".weight") && p.shape.len() == 2);
            for (i, param) in params.iter().enumerate() {
                let to = &mut theta[at.start + param.range.start..at.start + param.range.end];
                if let [rows, columns] = param.shape[..] {
                    let head = head_gain.filter(|_| Some(i) == last);
                    let gain = head.unwrap_or(std::f64::consts::SQRT_2);
                    init.fill(to, rows, columns, gain, &mut draw);
                } else if param.name.ends_with("norm.weight") {
                    to.fill(T::ONE);
                }
            }
        }
        if let Some(range) = &self.log_std {
            theta[range.clone()].fill(T::of(log_std));
        }
        theta
    }

    /// Room for packed weights.
    pub fn weights<T: Real>(&self) -> PolicyWeights<T> {
        PolicyWeights {
            trunk: self.trunk.as_ref().map(|(mlp, _)| mlp.weights()),
            actor: self.actor.0.weights(),
            critic: self.critic.0.weights(),
            log_std: vec![T::ZERO; self.log_std.as_ref().map_or(0, Range::len)],
        }
    }

    /// Packs θ.
    ///
    /// # Panics
    ///
    /// If θ has another length.
    pub fn pack<T: Real>(&self, theta: &[T], weights: &mut PolicyWeights<T>) {
        assert_eq!(theta.len(), self.num_params, "length of θ");
        let nets = [
            self.trunk.as_ref().zip(weights.trunk.as_mut()),
            Some((&self.actor, &mut weights.actor)),
            Some((&self.critic, &mut weights.critic)),
        ];
        for ((mlp, range), packed) in nets.into_iter().flatten() {
            mlp.pack(&theta[range.clone()], packed);
        }
        if let Some(range) = &self.log_std {
            weights.log_std.copy_from_slice(&theta[range.clone()]);
        }
    }

    /// The distribution's parameters for each row.
    ///
    /// # Shapes
    ///
    /// `x`: `[B, inputs]`; result: `[B, P]`, in the tape.
    pub fn act<'t, T: Real>(
        &self,
        weights: &PolicyWeights<T>,
        x: &[T],
        tape: &'t mut PolicyTape<T>,
    ) -> &'t [T] {
        self.run_trunk(weights, x, tape);
        self.run_actor(weights, x, tape);
        &tape.params
    }

    /// The value of each row: `[B]`, in the tape.
    pub fn value<'t, T: Real>(
        &self,
        weights: &PolicyWeights<T>,
        x: &[T],
        tape: &'t mut PolicyTape<T>,
    ) -> &'t [T] {
        self.run_trunk(weights, x, tape);
        self.run_critic(weights, x, tape);
        &tape.values
    }

    /// The distribution's parameters `[B, P]` and the value `[B]` of each row; what `backward`
    /// needs stays in the tape.
    pub fn forward<'t, T: Real>(
        &self,
        weights: &PolicyWeights<T>,
        x: &[T],
        tape: &'t mut PolicyTape<T>,
    ) -> (&'t [T], &'t [T]) {
        self.run_trunk(weights, x, tape);
        self.run_actor(weights, x, tape);
        self.run_critic(weights, x, tape);
        (&tape.params, &tape.values)
    }

    /// `grad` += the gradient in θ of an objective whose gradient in the distribution's parameters
    /// is `d_params` and in the values `d_values`, at the point of the last `forward`.
    ///
    /// # Shapes
    ///
    /// `x`: as in `forward`; `d_params`: `[B, P]`; `d_values`: `[B]`; `grad`: as θ.
    pub fn backward<T: Real>(
        &self,
        weights: &PolicyWeights<T>,
        x: &[T],
        tape: &mut PolicyTape<T>,
        (d_params, d_values): (&[T], &[T]),
        grad: &mut [T],
    ) {
        let PolicyTape { trunk, actor, critic, features, d_mean, d_features, .. } = tape;
        let d_actor = match &self.log_std {
            None => d_params,
            Some(range) => {
                let a = range.len();
                let d_log_std = &mut grad[range.clone()];
                d_mean.clear();
                for row in d_params.chunks_exact(2 * a) {
                    d_mean.extend_from_slice(&row[..a]);
                    for (sum, &d) in d_log_std.iter_mut().zip(&row[a..]) {
                        *sum += d;
                    }
                }
                d_mean
            }
        };
        let shared = self.trunk.is_some();
        let input = if shared { &features[..] } else { x };
        let heads = [
            (&self.actor, &weights.actor, actor, d_actor),
            (&self.critic, &weights.critic, critic, d_values),
        ];
        for (((mlp, range), weights, tape, dy), dx) in heads.into_iter().zip(&mut *d_features) {
            let dx = shared.then(|| {
                dx.resize(features.len(), T::ZERO);
                &mut dx[..]
            });
            mlp.vjp(weights, input, tape, dy, &mut grad[range.clone()], dx);
        }
        if let (Some((mlp, range)), Some(weights)) = (&self.trunk, &weights.trunk) {
            let [from_actor, from_critic] = d_features;
            for (sum, &d) in from_actor.iter_mut().zip(&*from_critic) {
                *sum += d;
            }
            mlp.vjp(weights, x, trunk, from_actor, &mut grad[range.clone()], None);
        }
    }

    fn run_trunk<T: Real>(&self, weights: &PolicyWeights<T>, x: &[T], tape: &mut PolicyTape<T>) {
        if let (Some((mlp, _)), Some(weights)) = (&self.trunk, &weights.trunk) {
            let y = mlp.forward(weights, x, &mut tape.trunk);
            tape.features.clear();
            tape.features.extend_from_slice(y);
        }
    }

    fn run_actor<T: Real>(&self, weights: &PolicyWeights<T>, x: &[T], tape: &mut PolicyTape<T>) {
        let PolicyTape { actor, features, params, .. } = tape;
        let input = if self.trunk.is_some() { &features[..] } else { x };
        let y = self.actor.0.forward(&weights.actor, input, actor);
        params.clear();
        if self.log_std.is_some() {
            for mean in y.chunks_exact(weights.log_std.len()) {
                params.extend_from_slice(mean);
                params.extend_from_slice(&weights.log_std);
            }
        } else {
            params.extend_from_slice(y);
        }
    }

    fn run_critic<T: Real>(&self, weights: &PolicyWeights<T>, x: &[T], tape: &mut PolicyTape<T>) {
        let PolicyTape { critic, features, values, .. } = tape;
        let input = if self.trunk.is_some() { &features[..] } else { x };
        let y = self.critic.0.forward(&weights.critic, input, critic);
        values.clear();
        values.extend_from_slice(y);
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

#[cfg(test)]
mod tests {
    use cordada_env::role;

    use super::*;

    #[test]
    fn a_fresh_policy_has_orthogonal_layers_of_the_right_gains() {
        let spec = PolicySpec {
            inputs: 9,
            action_space: Space::vector(&[-1.0; 2], &[1.0; 2]),
            trunk: vec![8],
            actor: vec![6],
            critic: vec![4],
            activation: "tanh".into(),
            layer_norm: true,
            log_std: LogStd::Shared,
            squash: false,
        };
        let network = ActorCritic::new(&spec);
        let mut stream = Stream::new(1, role::INIT, 0);
        let theta: Vec<f64> = network.init(Init::Orthogonal, -0.5, &mut stream);
        let mut covered = 0;
        for ParamInfo { name, shape, range } in network.params() {
            assert_eq!(range.start, covered, "{name} follows the one before");
            covered = range.end;
            let values = &theta[range];
            let gain: f64 = match name.as_str() {
                "actor.layers.1.weight" => 0.01,
                "critic.layers.1.weight" => 1.0,
                _ => 2.0_f64.sqrt(),
            };
            let [rows, columns] = shape[..] else {
                let expected = match name.as_str() {
                    "log_std" => -0.5,
                    _ if name.ends_with("norm.weight") => 1.0,
                    _ => 0.0,
                };
                assert!(values.iter().all(|x| *x == expected), "{name}: {values:?}");
                continue;
            };
            // W Wᵀ = gain² I, as there are no more rows than columns.
            for (i, a) in values.chunks_exact(columns).enumerate() {
                for (j, b) in values.chunks_exact(columns).enumerate() {
                    let dot: f64 = a.iter().zip(b).map(|(a, b)| a * b).sum();
                    let expected = if i == j { gain * gain } else { 0.0 };
                    assert!(
                        (dot - expected).abs() < 1e-6,
                        "{name} {rows}×{columns}: {i} {j} {dot}"
                    );
                }
            }
        }
        assert_eq!(covered, network.num_params());
    }
}
