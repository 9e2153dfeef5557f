//! Networks of action values Q(s, a): plain, dueling, or with a distribution of returns per action.
//! A table of values is the one without hidden layers on a one-hot state.

use std::ops::Range;

use cordada_env::Stream;
use cordada_nn::kernel::Isa;
use cordada_nn::softmax::softmax;
use cordada_nn::{Activation, Init, Mlp, MlpSpec, ParamInfo, Real, Tape, Weights};
use serde::{Deserialize, Serialize};

use super::torso::{Encoder, Torso, TorsoTape, TorsoWeights, init_params, named};
use crate::dueling::{dueling, dueling_vjp};
use crate::estimate::Support;

/// The fixed returns that a categorical value distribution puts its probabilities on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SupportSpec {
    /// Number of atoms, at least 2.
    pub atoms: usize,
    /// The lowest return.
    pub v_min: f64,
    /// The highest return.
    pub v_max: f64,
}

impl SupportSpec {
    /// The atoms.
    ///
    /// # Panics
    ///
    /// If there are fewer than two or the bounds are not in order, which is checked where a spec
    /// comes from outside.
    pub fn support<T: Real>(&self) -> Support<T> {
        Support::new(T::of(self.v_min), T::of(self.v_max), self.atoms)
    }
}

/// The shape of a [`QNetwork`], as stored with a policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QSpec {
    /// Width of the network's input.
    pub inputs: usize,
    /// Actions to choose from.
    pub num_actions: usize,
    /// What comes before the hidden layers.
    pub encoder: Encoder,
    /// Hidden layers.
    pub hidden: Vec<usize>,
    /// Whether values and advantages have heads of their own.
    pub dueling: bool,
    /// For distributions of returns.
    pub support: Option<SupportSpec>,
    /// Name of the activation.
    pub activation: String,
    /// Whether hidden layers are normalized.
    pub layer_norm: bool,
    /// Share of random actions when the policy explores.
    pub epsilon: f64,
}

/// Action values: shapes and offsets into θ = encoder · trunk · advantages · value, no numbers.
#[derive(Clone, Debug)]
pub struct QNetwork {
    torso: Torso,
    /// Q itself, or the advantages of a dueling network.
    head: (Mlp, Range<usize>),
    value: Option<(Mlp, Range<usize>)>,
    num_actions: usize,
    atoms: usize,
    support: Option<SupportSpec>,
    num_params: usize,
}

/// θ packed for computing.
#[derive(Clone, Debug)]
pub struct QWeights<T> {
    torso: TorsoWeights<T>,
    head: Weights<T>,
    value: Option<Weights<T>>,
}

/// Working memory.
#[derive(Clone, Debug, Default)]
pub struct QTape<T> {
    torso: TorsoTape<T>,
    head: Tape<T>,
    value: Tape<T>,
    features: Vec<T>,
    out: Vec<T>,
    advantages: [Vec<T>; 2],
    d_heads: [Vec<T>; 2],
    d_features: [Vec<T>; 2],
}

impl QNetwork {
    /// Lays out θ for `spec`.
    ///
    /// # Panics
    ///
    /// If the activation has no such name, which is checked where a spec comes from outside.
    pub fn new(spec: &QSpec) -> Self {
        let activation = Activation::from_name(&spec.activation).expect("a known activation");
        let torso =
            Torso::new(spec.encoder, spec.inputs, &spec.hidden, activation, spec.layer_norm);
        let atoms = spec.support.map_or(1, |support| support.atoms);
        let mut offset = torso.num_params();
        let mut linear = |outputs: usize| {
            let mlp = Mlp::new(&MlpSpec {
                sizes: vec![torso.outputs(), outputs],
                activation,
                output_activation: Activation::Identity,
                layer_norm: false,
                output_norm: false,
            });
            offset += mlp.num_params();
            let range = offset - mlp.num_params()..offset;
            (mlp, range)
        };
        let head = linear(spec.num_actions * atoms);
        let value = spec.dueling.then(|| linear(atoms));
        let (num_actions, support) = (spec.num_actions, spec.support);
        Self { torso, head, value, num_actions, atoms, support, num_params: offset }
    }

    /// Length of θ.
    pub fn num_params(&self) -> usize {
        self.num_params
    }

    /// A, actions to choose from.
    pub fn num_actions(&self) -> usize {
        self.num_actions
    }

    /// Width of the output: A, or A times the atoms.
    pub fn outputs(&self) -> usize {
        self.num_actions * self.atoms
    }

    /// Floating-point operations of the products of one row's forward pass.
    pub fn forward_flops(&self) -> usize {
        let value = self.value.as_ref().map_or(0, |(mlp, _)| mlp.forward_flops());
        self.torso.forward_flops() + self.head.0.forward_flops() + value
    }

    /// Name, shape and place of every parameter tensor, in θ's order.
    pub fn params(&self) -> Vec<ParamInfo> {
        let (head, at) = &self.head;
        let name = if self.value.is_some() { "advantage" } else { "q" };
        let head = named(name, head.params(), at.start);
        let value = self.value.iter().flat_map(|(mlp, at)| named("value", mlp.params(), at.start));
        self.torso.params().into_iter().chain(head).chain(value).collect()
    }

    /// Initial parameters: `init` with gain √2 for hidden layers and 1 for the heads, biases 0.
    pub fn init<T: Real>(&self, init: Init, stream: &mut Stream) -> Vec<T> {
        let mut theta = vec![T::ZERO; self.num_params];
        self.torso.init(init, stream, &mut theta);
        for (mlp, at) in [Some(&self.head), self.value.as_ref()].into_iter().flatten() {
            let params: Vec<ParamInfo> = named("", mlp.params(), at.start).collect();
            init_params(&params, init, Some(1.0), stream, &mut theta);
        }
        theta
    }

    /// Room for packed weights.
    pub fn weights<T: Real>(&self) -> QWeights<T> {
        QWeights {
            torso: self.torso.weights(),
            head: self.head.0.weights(),
            value: self.value.as_ref().map(|(mlp, _)| mlp.weights()),
        }
    }

    /// Packs θ.
    ///
    /// # Panics
    ///
    /// If θ has another length.
    pub fn pack<T: Real>(&self, theta: &[T], weights: &mut QWeights<T>) {
        assert_eq!(theta.len(), self.num_params, "length of θ");
        self.torso.pack(&theta[..self.torso.num_params()], &mut weights.torso);
        self.head.0.pack(&theta[self.head.1.clone()], &mut weights.head);
        if let (Some((mlp, at)), Some(packed)) = (&self.value, &mut weights.value) {
            mlp.pack(&theta[at.clone()], packed);
        }
    }

    /// Q(s, ·) of each row, or the logits of the distributions of returns; what `backward` needs
    /// stays in the tape.
    ///
    /// # Shapes
    ///
    /// `x`: `[B, inputs]`; result: `[B, A]` or `[B, A, atoms]`, in the tape.
    pub fn forward<'t, T: Real>(
        &self,
        weights: &QWeights<T>,
        x: &[T],
        tape: &'t mut QTape<T>,
    ) -> &'t [T] {
        let QTape { torso, head, value, features, out, advantages, .. } = tape;
        self.torso.forward(&weights.torso, x, torso, features);
        let input = if self.torso.is_identity() { x } else { &features[..] };
        let y = self.head.0.forward(&weights.head, input, head);
        out.clear();
        out.extend_from_slice(y);
        if let (Some((mlp, _)), Some(weights)) = (&self.value, &weights.value) {
            let values = mlp.forward(weights, input, value);
            let rows = out.chunks_exact_mut(self.outputs()).zip(values.chunks_exact(self.atoms));
            for (row, values) in rows {
                for (i, &value) in values.iter().enumerate() {
                    self.each_action(row, i, advantages, |from, to| dueling(value, from, to));
                }
            }
        }
        out
    }

    /// Replaces the numbers of atom i, one for each action, by what `f` makes of them.
    fn each_action<T: Real>(
        &self,
        row: &mut [T],
        i: usize,
        [from, to]: &mut [Vec<T>; 2],
        f: impl FnOnce(&[T], &mut [T]),
    ) {
        from.clear();
        from.extend(row.iter().skip(i).step_by(self.atoms));
        to.resize(from.len(), T::ZERO);
        f(from, to);
        for (x, &y) in row.iter_mut().skip(i).step_by(self.atoms).zip(&*to) {
            *x = y;
        }
    }

    /// Q(s, a) of outputs: they themselves, or the means of the distributions that they are the
    /// logits of.
    ///
    /// # Shapes
    ///
    /// `outputs`: `[B, A]` or `[B, A, atoms]`; `values`: `[B, A]`.
    pub fn values<T: Real>(&self, outputs: &[T], values: &mut Vec<T>) {
        values.clear();
        let Some(spec) = self.support else {
            values.extend_from_slice(outputs);
            return;
        };
        let support = spec.support();
        let mut probs = vec![T::ZERO; self.atoms];
        values.extend(outputs.chunks_exact(self.atoms).map(|logits| {
            softmax(Isa::detect(), logits, self.atoms, &mut probs);
            support.mean(&probs)
        }));
    }

    /// `grad` += the gradient in θ of an objective whose gradient in the output is `dy`, at the
    /// point of the last `forward`.
    ///
    /// # Shapes
    ///
    /// `x`: as in `forward`; `dy`: as its result; `grad`: as θ.
    pub fn backward<T: Real>(
        &self,
        weights: &QWeights<T>,
        x: &[T],
        tape: &mut QTape<T>,
        dy: &[T],
        grad: &mut [T],
    ) {
        let QTape { torso, head, value, features, advantages, d_heads, d_features, .. } = tape;
        let identity = self.torso.is_identity();
        let input = if identity { x } else { &features[..] };
        let [d_head, d_value] = d_heads;
        d_head.clear();
        d_head.extend_from_slice(dy);
        let [d_first, d_second] = d_features;
        for d in [&mut *d_first, d_second] {
            d.resize(features.len(), T::ZERO);
        }
        if let (Some((mlp, at)), Some(weights)) = (&self.value, &weights.value) {
            d_value.clear();
            for row in d_head.chunks_exact_mut(self.outputs()) {
                for i in 0..self.atoms {
                    self.each_action(row, i, advantages, |from, to| {
                        d_value.push(dueling_vjp(from, to));
                    });
                }
            }
            let dx = (!identity).then_some(&mut d_second[..]);
            mlp.vjp(weights, input, value, d_value, &mut grad[at.clone()], dx);
        }
        let (mlp, at) = &self.head;
        let dx = (!identity).then_some(&mut d_first[..]);
        mlp.vjp(&weights.head, input, head, d_head, &mut grad[at.clone()], dx);
        if identity {
            return;
        }
        if self.value.is_some() {
            for (sum, &d) in d_first.iter_mut().zip(&*d_second) {
                *sum += d;
            }
        }
        self.torso.vjp(&weights.torso, x, torso, d_first, grad);
    }
}
