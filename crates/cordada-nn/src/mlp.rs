//! The multilayer perceptron: linear layers with an activation (and optional LayerNorm) between
//! them, as a function of a flat θ with `forward`, `vjp` and `jvp`.
//!
//! θ is caller's memory; the order is, layer by layer: weight `[out, in]`, bias `[out]`, and for a
//! normalized hidden layer LayerNorm's weight `[out]` and bias `[out]`. Weights have the layout of
//! PyTorch's `nn.Linear`.

use std::ops::Range;

use crate::kernel::{Isa, Panels, Start, column_sums, matmul, matmul_tn};
use crate::norm::{layer_norm, layer_norm_jvp, layer_norm_vjp};
use crate::{Activation, Real};

/// ε of LayerNorm (PyTorch's default).
const LAYER_NORM_EPS: f64 = 1e-5;

/// The shape of a perceptron.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MlpSpec {
    /// Width of the input, of each hidden layer, and of the output.
    pub sizes: Vec<usize>,
    /// Between the layers.
    pub activation: Activation,
    /// After the last layer.
    pub output_activation: Activation,
    /// Whether hidden layers are normalized before their activation.
    pub layer_norm: bool,
    /// Whether the last layer is normalized too: for a trunk, whose output feeds other networks.
    pub output_norm: bool,
}

/// A parameter tensor's place in θ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParamInfo {
    /// `layers.0.weight`, `layers.0.bias`, `layers.0.norm.weight`, ….
    pub name: String,
    /// Length of each axis.
    pub shape: Vec<usize>,
    /// Where it lies in θ.
    pub range: Range<usize>,
}

#[derive(Clone, Debug)]
struct Layer {
    inputs: usize,
    outputs: usize,
    weight: Range<usize>,
    bias: Range<usize>,
    /// LayerNorm's weight and bias, if this layer is normalized.
    norm: Option<(Range<usize>, Range<usize>)>,
    activation: Activation,
}

/// A perceptron: shapes and offsets only, no numbers.
#[derive(Clone, Debug)]
pub struct Mlp {
    isa: Isa,
    layers: Vec<Layer>,
    num_params: usize,
}

/// θ of one [`Mlp`], packed for the products: made by [`Mlp::pack`] once per optimizer step.
#[derive(Clone, Debug)]
pub struct Weights<T> {
    layers: Vec<PackedLayer<T>>,
}

#[derive(Clone, Debug)]
struct PackedLayer<T> {
    /// Wᵀ `[in, out]`, for the way forward.
    forward: Panels<T>,
    /// W `[out, in]`, for the way back.
    backward: Panels<T>,
    bias: Vec<T>,
    norm: Option<(Vec<T>, Vec<T>)>,
}

/// What the last `forward` leaves for `vjp` and `jvp`, and their working memory. It grows to the
/// largest batch seen and is reused after that.
#[derive(Clone, Debug, Default)]
pub struct Tape<T> {
    layers: Vec<LayerTape<T>>,
    /// Derivatives on their way back or forward, two in turn.
    d: [Vec<T>; 2],
    /// Where gradients of norms go that nobody asked for.
    norm_grad: Vec<T>,
}

#[derive(Clone, Debug, Default)]
struct LayerTape<T> {
    /// Input of the activation, kept where its derivative needs it.
    z: Vec<T>,
    /// Output of the activation.
    y: Vec<T>,
    norm: NormTape<T>,
}

/// What LayerNorm leaves: its input, and each row's mean and 1 / standard deviation.
#[derive(Clone, Debug, Default)]
struct NormTape<T> {
    x: Vec<T>,
    mean: Vec<T>,
    rstd: Vec<T>,
}

impl Mlp {
    /// Lays out the parameters of `spec`, for the fastest instruction set of this processor.
    ///
    /// # Panics
    ///
    /// If there is no layer (fewer than two sizes) or a size is 0.
    pub fn new(spec: &MlpSpec) -> Self {
        Self::with_isa(spec, Isa::detect())
    }

    /// As [`Mlp::new`], for a given instruction set.
    ///
    /// # Panics
    ///
    /// As [`Mlp::new`].
    pub fn with_isa(spec: &MlpSpec, isa: Isa) -> Self {
        assert!(spec.sizes.len() >= 2, "a perceptron has an input and an output");
        assert!(spec.sizes.iter().all(|&n| n > 0), "layers are not empty: {:?}", spec.sizes);
        let mut offset = 0;
        let mut take = |len: usize| {
            offset += len;
            offset - len..offset
        };
        let last = spec.sizes.len() - 2;
        let layers = spec
            .sizes
            .windows(2)
            .enumerate()
            .map(|(l, size)| Layer {
                inputs: size[0],
                outputs: size[1],
                weight: take(size[0] * size[1]),
                bias: take(size[1]),
                norm: (if l < last { spec.layer_norm } else { spec.output_norm })
                    .then(|| (take(size[1]), take(size[1]))),
                activation: if l < last { spec.activation } else { spec.output_activation },
            })
            .collect();
        Self { isa, layers, num_params: offset }
    }

    /// Length of θ.
    pub fn num_params(&self) -> usize {
        self.num_params
    }

    /// Width of the input.
    pub fn inputs(&self) -> usize {
        self.layers[0].inputs
    }

    /// Width of the output.
    pub fn outputs(&self) -> usize {
        self.layers[self.layers.len() - 1].outputs
    }

    /// The instruction set that its products use.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Floating-point operations of the matrix products of one row's forward pass.
    pub fn forward_flops(&self) -> usize {
        self.layers.iter().map(|l| 2 * l.inputs * l.outputs).sum()
    }

    /// Name, shape and place of every parameter tensor, in θ's order.
    pub fn params(&self) -> Vec<ParamInfo> {
        let mut params = Vec::new();
        for (l, layer) in self.layers.iter().enumerate() {
            let mut add = |name: &str, shape: Vec<usize>, range: &Range<usize>| {
                let name = format!("layers.{l}.{name}");
                params.push(ParamInfo { name, shape, range: range.clone() });
            };
            add("weight", vec![layer.outputs, layer.inputs], &layer.weight);
            add("bias", vec![layer.outputs], &layer.bias);
            if let Some((weight, bias)) = &layer.norm {
                add("norm.weight", vec![layer.outputs], weight);
                add("norm.bias", vec![layer.outputs], bias);
            }
        }
        params
    }

    /// Room for packed weights of this shape.
    pub fn weights<T: Real>(&self) -> Weights<T> {
        let layers = self.layers.iter().map(|l| PackedLayer {
            forward: Panels::new(self.isa, l.inputs, l.outputs),
            backward: Panels::new(self.isa, l.outputs, l.inputs),
            bias: vec![T::ZERO; l.outputs],
            norm: l.norm.as_ref().map(|_| (vec![T::ZERO; l.outputs], vec![T::ZERO; l.outputs])),
        });
        Weights { layers: layers.collect() }
    }

    /// Packs θ. What the other functions compute with is the packed copy.
    ///
    /// # Panics
    ///
    /// If θ has another length or `weights` another shape.
    pub fn pack<T: Real>(&self, theta: &[T], weights: &mut Weights<T>) {
        assert_eq!(theta.len(), self.num_params, "length of θ");
        for (layer, packed) in self.layers.iter().zip(&mut weights.layers) {
            let weight = &theta[layer.weight.clone()];
            packed.forward.pack_transposed(weight);
            packed.backward.pack(weight);
            packed.bias.copy_from_slice(&theta[layer.bias.clone()]);
            if let (Some((w, b)), Some((to_w, to_b))) = (&layer.norm, &mut packed.norm) {
                to_w.copy_from_slice(&theta[w.clone()]);
                to_b.copy_from_slice(&theta[b.clone()]);
            }
        }
    }

    /// y = f_θ(x), row by row.
    ///
    /// # Shapes
    ///
    /// `x`: `[rows, inputs]`; result: `[rows, outputs]`, in the tape.
    pub fn forward<'t, T: Real>(
        &self,
        weights: &Weights<T>,
        x: &[T],
        tape: &'t mut Tape<T>,
    ) -> &'t [T] {
        let rows = x.len() / self.inputs();
        tape.layers.resize_with(self.layers.len(), LayerTape::default);
        for (l, (layer, packed)) in self.layers.iter().zip(&weights.layers).enumerate() {
            let (before, rest) = tape.layers.split_at_mut(l);
            let input = before.last().map_or(x, |t| &t.y[..rows * layer.inputs]);
            let LayerTape { z, y, norm } = &mut rest[0];
            let y = grown(y, rows * layer.outputs);
            if let Some((weight, bias)) = &packed.norm {
                let x = grown(&mut norm.x, y.len());
                matmul(input, &packed.forward, Start::Row(&packed.bias), x);
                let (mean, rstd) = (grown(&mut norm.mean, rows), grown(&mut norm.rstd, rows));
                layer_norm(self.isa, x, weight, bias, T::of(LAYER_NORM_EPS), y, mean, rstd);
            } else {
                matmul(input, &packed.forward, Start::Row(&packed.bias), y);
            }
            if layer.activation.needs_input() {
                grown(z, y.len()).copy_from_slice(y);
            }
            layer.activation.apply(self.isa, y);
        }
        &tape.layers[self.layers.len() - 1].y[..rows * self.outputs()]
    }

    /// Backward: `grad += (∂y/∂θ)ᵀ dy`, and `dx = (∂y/∂x)ᵀ dy` where asked for, at the point of
    /// the last `forward` on this tape.
    ///
    /// # Shapes
    ///
    /// `x` as in `forward`; `dy`: `[rows, outputs]`; `grad`: as θ; `dx`: as `x`.
    #[allow(clippy::too_many_arguments, reason = "one more than jvp, in the same order")]
    pub fn vjp<T: Real>(
        &self,
        weights: &Weights<T>,
        x: &[T],
        tape: &mut Tape<T>,
        dy: &[T],
        grad: &mut [T],
        dx: Option<&mut [T]>,
    ) {
        self.backward(weights, x, tape, dy, (Some(grad), dx));
    }

    /// Backward to the input alone: `dx = (∂y/∂x)ᵀ dy` at the point of the last `forward` on this
    /// tape, at half the cost of [`Mlp::vjp`]. This is how an actor learns from a critic.
    ///
    /// # Shapes
    ///
    /// As [`Mlp::vjp`].
    pub fn input_vjp<T: Real>(
        &self,
        weights: &Weights<T>,
        x: &[T],
        tape: &mut Tape<T>,
        dy: &[T],
        dx: &mut [T],
    ) {
        self.backward(weights, x, tape, dy, (None, Some(dx)));
    }

    fn backward<T: Real>(
        &self,
        weights: &Weights<T>,
        x: &[T],
        tape: &mut Tape<T>,
        dy: &[T],
        (mut grad, mut dx): (Option<&mut [T]>, Option<&mut [T]>),
    ) {
        let rows = x.len() / self.inputs();
        let Tape { layers: tapes, d: [d, d_next], norm_grad } = tape;
        grown(d, dy.len()).copy_from_slice(dy);
        for (l, layer) in self.layers.iter().enumerate().rev() {
            let (before, rest) = tapes.split_at_mut(l);
            let input = before.last().map_or(x, |t| &t.y[..rows * layer.inputs]);
            let LayerTape { z, y, norm } = &mut rest[0];
            let n = rows * layer.outputs;
            layer.activation.chain(self.isa, z, &y[..n], &mut d[..n]);
            if let (Some((w, b)), Some((weight, _))) = (&layer.norm, &weights.layers[l].norm) {
                let into = match &mut grad {
                    Some(grad) => &mut grad[w.start..b.end],
                    None => grown(norm_grad, 2 * w.len()),
                };
                let (dw, db) = into.split_at_mut(w.len());
                let (mean, rstd) = (&norm.mean[..rows], &norm.rstd[..rows]);
                let dx = grown(d_next, n);
                layer_norm_vjp(self.isa, &norm.x[..n], weight, mean, rstd, &d[..n], dx, dw, db);
                std::mem::swap(d, d_next);
            }
            let dz = &d[..n];
            if let Some(grad) = &mut grad {
                let sizes = (layer.outputs, layer.inputs);
                matmul_tn(self.isa, dz, input, sizes, &mut grad[layer.weight.clone()]);
                column_sums(self.isa, dz, &mut grad[layer.bias.clone()]);
            }
            if l > 0 {
                let back = grown(d_next, rows * layer.inputs);
                matmul(dz, &weights.layers[l].backward, Start::Zero, back);
                std::mem::swap(d, d_next);
            } else if let Some(dx) = dx.take() {
                matmul(dz, &weights.layers[l].backward, Start::Zero, dx);
            }
        }
    }

    /// Forward derivative: `dy = (∂y/∂θ) v` at the point of the last `forward` on this tape.
    ///
    /// # Shapes
    ///
    /// `x` as in `forward`; `v`: the direction, packed like θ; `dy`: `[rows, outputs]`.
    pub fn jvp<T: Real>(
        &self,
        weights: &Weights<T>,
        v: &Weights<T>,
        x: &[T],
        tape: &mut Tape<T>,
        dy: &mut [T],
    ) {
        let rows = x.len() / self.inputs();
        let Tape { layers: tapes, d: [d, d_next], .. } = tape;
        for (l, layer) in self.layers.iter().enumerate() {
            let (before, rest) = tapes.split_at_mut(l);
            let input = before.last().map_or(x, |t| &t.y[..rows * layer.inputs]);
            let LayerTape { z, y, norm } = &mut rest[0];
            let n = rows * layer.outputs;
            let dz = grown(d_next, n);
            // d(W x + b) = V x + v_b + W dx
            matmul(input, &v.layers[l].forward, Start::Row(&v.layers[l].bias), dz);
            if l > 0 {
                matmul(&d[..rows * layer.inputs], &weights.layers[l].forward, Start::Old, dz);
            }
            std::mem::swap(d, d_next);
            if let (Some((w, _)), Some((vw, vb))) = (&weights.layers[l].norm, &v.layers[l].norm) {
                let (mean, rstd) = (&norm.mean[..rows], &norm.rstd[..rows]);
                let dy = grown(d_next, n);
                layer_norm_jvp(self.isa, &norm.x[..n], w, mean, rstd, &d[..n], vw, vb, dy);
                std::mem::swap(d, d_next);
            }
            layer.activation.chain(self.isa, z, &y[..n], &mut d[..n]);
        }
        dy.copy_from_slice(&d[..dy.len()]);
    }
}

impl<T: Real> Tape<T> {
    /// An empty tape.
    pub fn new() -> Self {
        Self::default()
    }
}

/// The first `len` numbers of a buffer that grows when it must.
pub(crate) fn grown<T: Real>(buffer: &mut Vec<T>, len: usize) -> &mut [T] {
    if buffer.len() < len {
        buffer.resize(len, T::ZERO);
    }
    &mut buffer[..len]
}
