//! The layers that come before the heads of a network: convolutions for images, then dense hidden
//! layers. Either part, or both, may be absent; then features are the input itself.

use std::ops::Range;

use cordada_env::{Space, Stream};
use cordada_nn::{
    Activation, Draw, Init, Mlp, MlpSpec, NatureCnn, NatureCnnTape, NatureCnnWeights, ParamInfo,
    Real, Tape, Weights,
};
use serde::{Deserialize, Serialize};

/// Features that the convolutions give (Mnih et al. 2015).
const IMAGE_FEATURES: usize = 512;
/// Least height and width of an image that the convolutions leave something of.
const LEAST_IMAGE: usize = 36;

/// What comes before the dense layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encoder {
    /// Nothing.
    #[default]
    Flat,
    /// The convolutions of Mnih et al. 2015, on images of this shape.
    NatureCnn {
        /// Channels, height, width.
        shape: [usize; 3],
    },
}

impl Encoder {
    /// The convolutions for observations that are images, channels first, and large enough.
    pub fn for_images(space: &Space) -> Option<Self> {
        let Space::Box(bounds) = space else { return None };
        let shape: [usize; 3] = bounds.shape.as_slice().try_into().ok()?;
        (shape[0] > 0 && shape[1..].iter().all(|n| *n >= LEAST_IMAGE))
            .then_some(Self::NatureCnn { shape })
    }
}

/// Encoder and hidden layers: shapes and offsets into θ, no numbers.
#[derive(Clone, Debug)]
pub struct Torso {
    cnn: Option<(NatureCnn, Range<usize>)>,
    mlp: Option<(Mlp, Range<usize>)>,
    outputs: usize,
    num_params: usize,
}

/// θ of a [`Torso`], packed.
#[derive(Clone, Debug)]
pub struct TorsoWeights<T> {
    cnn: Option<NatureCnnWeights<T>>,
    mlp: Option<Weights<T>>,
}

/// Working memory of a [`Torso`].
#[derive(Clone, Debug, Default)]
pub struct TorsoTape<T> {
    cnn: NatureCnnTape<T>,
    mlp: Tape<T>,
    /// Output of the convolutions, and the derivative that comes back to it.
    image: Vec<T>,
    d_image: Vec<T>,
}

impl Torso {
    /// Lays out θ from 0.
    ///
    /// # Panics
    ///
    /// If the image of a [`Encoder::NatureCnn`] is too small, which
    /// [`Encoder::for_images`] rules out.
    pub fn new(
        encoder: Encoder,
        inputs: usize,
        hidden: &[usize],
        activation: Activation,
        layer_norm: bool,
    ) -> Self {
        let mut at = 0;
        let mut outputs = inputs;
        let cnn = match encoder {
            Encoder::Flat => None,
            Encoder::NatureCnn { shape } => {
                let cnn = NatureCnn::new(shape, IMAGE_FEATURES).expect("a large enough image");
                outputs = cnn.outputs();
                at = cnn.num_params();
                Some((cnn, 0..at))
            }
        };
        let mlp = (!hidden.is_empty()).then(|| {
            let mlp = Mlp::new(&MlpSpec {
                sizes: [outputs].into_iter().chain(hidden.iter().copied()).collect(),
                activation,
                // It ends with a hidden layer.
                output_activation: activation,
                layer_norm,
                output_norm: layer_norm,
            });
            outputs = mlp.outputs();
            let range = at..at + mlp.num_params();
            at = range.end;
            (mlp, range)
        });
        Self { cnn, mlp, outputs, num_params: at }
    }

    /// Whether there are no layers at all.
    pub fn is_identity(&self) -> bool {
        self.cnn.is_none() && self.mlp.is_none()
    }

    /// Width of the features.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Length of θ.
    pub fn num_params(&self) -> usize {
        self.num_params
    }

    /// Floating-point operations of the products of one row's forward pass.
    pub fn forward_flops(&self) -> usize {
        let cnn = self.cnn.as_ref().map_or(0, |(cnn, _)| cnn.forward_flops());
        cnn + self.mlp.as_ref().map_or(0, |(mlp, _)| mlp.forward_flops())
    }

    /// Name, shape and place of every parameter tensor, in θ's order.
    pub fn params(&self) -> Vec<ParamInfo> {
        let cnn = self.cnn.iter().flat_map(|(cnn, at)| named("encoder", cnn.params(), at.start));
        let mlp = self.mlp.iter().flat_map(|(mlp, at)| named("trunk", mlp.params(), at.start));
        cnn.chain(mlp).collect()
    }

    /// Initial parameters: `init` with gain √2, biases 0, norms 1.
    pub fn init<T: Real>(&self, init: Init, stream: &mut Stream, theta: &mut [T]) {
        init_params(&self.params(), init, None, stream, theta);
    }

    /// Room for packed weights.
    pub fn weights<T: Real>(&self) -> TorsoWeights<T> {
        TorsoWeights {
            cnn: self.cnn.as_ref().map(|(cnn, _)| cnn.weights()),
            mlp: self.mlp.as_ref().map(|(mlp, _)| mlp.weights()),
        }
    }

    /// Packs θ.
    pub fn pack<T: Real>(&self, theta: &[T], weights: &mut TorsoWeights<T>) {
        if let (Some((cnn, at)), Some(packed)) = (&self.cnn, &mut weights.cnn) {
            cnn.pack(&theta[at.clone()], packed);
        }
        if let (Some((mlp, at)), Some(packed)) = (&self.mlp, &mut weights.mlp) {
            mlp.pack(&theta[at.clone()], packed);
        }
    }

    /// The features of each row, appended to the emptied `features`; left empty if there are no
    /// layers.
    ///
    /// # Shapes
    ///
    /// `x`: `[B, inputs]`; `features`: `[B, outputs]`.
    pub fn forward<T: Real>(
        &self,
        weights: &TorsoWeights<T>,
        x: &[T],
        tape: &mut TorsoTape<T>,
        features: &mut Vec<T>,
    ) {
        features.clear();
        let mut x = x;
        if let (Some((cnn, _)), Some(weights)) = (&self.cnn, &weights.cnn) {
            let y = cnn.forward(weights, x, &mut tape.cnn);
            if self.mlp.is_none() {
                features.extend_from_slice(y);
                return;
            }
            tape.image.clear();
            tape.image.extend_from_slice(y);
            x = &tape.image;
        }
        if let (Some((mlp, _)), Some(weights)) = (&self.mlp, &weights.mlp) {
            features.extend_from_slice(mlp.forward(weights, x, &mut tape.mlp));
        }
    }

    /// `grad` += (∂ features / ∂θ)ᵀ `dy`, at the point of the last `forward`.
    pub fn vjp<T: Real>(
        &self,
        weights: &TorsoWeights<T>,
        x: &[T],
        tape: &mut TorsoTape<T>,
        dy: &[T],
        grad: &mut [T],
    ) {
        let TorsoTape { cnn: cnn_tape, mlp: mlp_tape, image, d_image } = tape;
        let mut dy = dy;
        if let (Some((mlp, at)), Some(weights)) = (&self.mlp, &weights.mlp) {
            let input = if self.cnn.is_some() { &image[..] } else { x };
            let dx = self.cnn.is_some().then(|| {
                d_image.resize(image.len(), T::ZERO);
                &mut d_image[..]
            });
            mlp.vjp(weights, input, mlp_tape, dy, &mut grad[at.clone()], dx);
            dy = d_image;
        }
        if let (Some((cnn, at)), Some(weights)) = (&self.cnn, &weights.cnn) {
            cnn.vjp(weights, x, cnn_tape, dy, &mut grad[at.clone()], None);
        }
    }
}

/// Parameter tensors with a prefix to their names, moved by `start`.
pub(super) fn named(
    prefix: &'static str,
    params: Vec<ParamInfo>,
    start: usize,
) -> impl Iterator<Item = ParamInfo> {
    params.into_iter().map(move |p| ParamInfo {
        name: format!("{prefix}.{}", p.name),
        range: p.range.start + start..p.range.end + start,
        ..p
    })
}

/// A random number of this kind.
pub(super) fn drawn(kind: Draw, stream: &mut Stream) -> f64 {
    match kind {
        Draw::Normal => stream.normal(),
        Draw::Uniform => stream.uniform(),
    }
}

/// Initial parameters of a network by itself, whose head has its own gain.
pub(crate) fn init_network<T: Real>(
    params: &[ParamInfo],
    (init, head_gain): (Init, f64),
    stream: &mut Stream,
    theta: &mut [T],
) {
    init_params(params, init, Some(head_gain), stream, theta);
}

/// Initial parameters of one network: `init` with gain √2 for every weight matrix (`head_gain` for
/// the last one, if it is given), biases 0, norms 1.
pub(super) fn init_params<T: Real>(
    params: &[ParamInfo],
    init: Init,
    head_gain: Option<f64>,
    stream: &mut Stream,
    theta: &mut [T],
) {
    let mut draw = |kind: Draw| drawn(kind, stream);
    let is_matrix = |p: &ParamInfo| p.shape.len() >= 2;
    let last = params.iter().rposition(is_matrix);
    for (i, param) in params.iter().enumerate() {
        let to = &mut theta[param.range.clone()];
        if is_matrix(param) {
            let head = head_gain.filter(|_| Some(i) == last);
            let gain = head.unwrap_or(std::f64::consts::SQRT_2);
            // A convolution's weight [out, in, k, k] is a matrix of its unfolded products.
            let rows = param.shape[0];
            init.fill(to, rows, param.range.len() / rows, gain, &mut draw);
        } else if param.name.ends_with("norm.weight") {
            to.fill(T::ONE);
        } else {
            to.fill(T::ZERO);
        }
    }
}
