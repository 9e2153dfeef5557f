//! The convolutional network for Atari frames of Mnih et al. 2015, from pixels to features, as a
//! function of a flat θ with `forward` and `vjp`. Scaling pixels and the heads on top belong to the
//! caller.

use std::ops::Range;

use crate::conv::{Conv2d, Conv2dSpec, Conv2dWeights, Scratch, images};
use crate::kernel::Isa;
use crate::mlp::grown;
use crate::{Activation, Error, Mlp, MlpSpec, ParamInfo, Real, Tape, Weights};

/// Output channels, kernel and stride of each convolution.
const LAYERS: [(usize, usize, usize); 3] = [(32, 8, 4), (64, 4, 2), (64, 3, 1)];

/// Three convolutions (32 of 8×8 with stride 4, 64 of 4×4 with stride 2, 64 of 3×3), flattened in
/// the order channel, height, width, and a linear layer; a ReLU after each of the four.
///
/// θ: each layer's weight and bias in PyTorch's layout, named as in Stable-Baselines3: `cnn.0`,
/// `cnn.2`, `cnn.4`, `linear.0`.
///
/// # Source
///
/// Mnih et al. 2015, “Human-level control through deep reinforcement learning”, Nature 518,
/// Methods, “Model architecture”.
#[derive(Clone, Debug)]
pub struct NatureCnn {
    convs: [Conv2d; 3],
    linear: Mlp,
}

/// θ of one [`NatureCnn`], packed for the products: made by [`NatureCnn::pack`] once per optimizer
/// step.
#[derive(Clone, Debug)]
pub struct NatureCnnWeights<T> {
    convs: [Conv2dWeights<T>; 3],
    linear: Weights<T>,
}

/// What the last `forward` leaves for `vjp`, and their working memory. It grows to the largest
/// batch seen and is reused after that.
#[derive(Clone, Debug, Default)]
pub struct NatureCnnTape<T> {
    /// Outputs of the convolutions `[B, height, width, channels]`, after their ReLU.
    y: [Vec<T>; 3],
    /// The last of them `[B, channels, height, width]`.
    flat: Vec<T>,
    linear: Tape<T>,
    scratch: Scratch<T>,
    /// Derivatives on their way back, two in turn.
    d: [Vec<T>; 2],
}

impl NatureCnn {
    /// The network for images of the shape `[channels, height, width]`, for the fastest
    /// instruction set of this processor.
    ///
    /// # Errors
    ///
    /// [`Error::ImageSize`] if the convolutions leave nothing of the image, which is so below
    /// 36×36; [`Error::Option`] if there are no channels or no features.
    pub fn new(shape: [usize; 3], features: usize) -> Result<Self, Error> {
        Self::with_isa(shape, features, Isa::detect())
    }

    /// As [`NatureCnn::new`], for a given instruction set.
    ///
    /// # Errors
    ///
    /// As [`NatureCnn::new`].
    pub fn with_isa(shape: [usize; 3], features: usize, isa: Isa) -> Result<Self, Error> {
        let [channels, height, width] = shape;
        for (option, value) in [("channels", channels), ("features", features)] {
            if value == 0 {
                let (owner, range) = ("nature_cnn", "at least 1");
                return Err(Error::Option { owner, option, value: 0.0, range });
            }
        }
        // n outputs of a layer need (n − 1) · stride + kernel inputs.
        let least = LAYERS.iter().rev().fold(1, |n, (_, kernel, stride)| (n - 1) * stride + kernel);
        if height.min(width) < least {
            let (owner, least) = ("nature_cnn", [least; 2]);
            return Err(Error::ImageSize { owner, height, width, least });
        }
        let conv = |layer: usize, [in_channels, height, width]: [usize; 3]| {
            let (out_channels, kernel, stride) = LAYERS[layer];
            let kernel = [kernel; 2];
            let spec =
                Conv2dSpec { in_channels, out_channels, kernel, stride, padding: 0, height, width };
            Ok(Conv2d::with_isa(&spec, isa)?.then(Activation::Relu))
        };
        let first = conv(0, shape)?;
        let second = conv(1, first.output_shape())?.after_pixels(Activation::Relu);
        let third = conv(2, second.output_shape())?.after_pixels(Activation::Relu);
        let linear = MlpSpec {
            sizes: vec![third.outputs(), features],
            activation: Activation::Relu,
            output_activation: Activation::Relu,
            layer_norm: false,
            output_norm: false,
        };
        Ok(Self { linear: Mlp::with_isa(&linear, isa), convs: [first, second, third] })
    }

    /// Length of θ.
    pub fn num_params(&self) -> usize {
        self.linear_range().end
    }

    /// Numbers of an image.
    pub fn inputs(&self) -> usize {
        self.convs[0].inputs()
    }

    /// Number of features.
    pub fn outputs(&self) -> usize {
        self.linear.outputs()
    }

    /// The instruction set that its products use.
    pub fn isa(&self) -> Isa {
        self.linear.isa()
    }

    /// Floating-point operations of the matrix products of one image's forward pass.
    pub fn forward_flops(&self) -> usize {
        self.convs.iter().map(Conv2d::forward_flops).sum::<usize>() + self.linear.forward_flops()
    }

    /// Name, shape and place of every parameter tensor, in θ's order.
    pub fn params(&self) -> Vec<ParamInfo> {
        let convs = self.convs.iter().zip(self.conv_ranges()).enumerate();
        let mut params: Vec<ParamInfo> = convs
            .flat_map(|(l, (conv, place))| {
                conv.params().into_iter().map(move |p| ParamInfo {
                    name: format!("cnn.{}.{}", 2 * l, p.name),
                    range: place.start + p.range.start..place.start + p.range.end,
                    ..p
                })
            })
            .collect();
        let start = self.linear_range().start;
        params.extend(self.linear.params().into_iter().map(|p| ParamInfo {
            name: p.name.replace("layers", "linear"),
            range: start + p.range.start..start + p.range.end,
            ..p
        }));
        params
    }

    /// Each convolution's place in θ.
    fn conv_ranges(&self) -> [Range<usize>; 3] {
        let mut end = 0;
        self.convs.each_ref().map(|conv| {
            end += conv.num_params();
            end - conv.num_params()..end
        })
    }

    /// The linear layer's place in θ.
    fn linear_range(&self) -> Range<usize> {
        let start = self.conv_ranges()[2].end;
        start..start + self.linear.num_params()
    }

    /// Room for packed weights of this shape.
    pub fn weights<T: Real>(&self) -> NatureCnnWeights<T> {
        NatureCnnWeights {
            convs: self.convs.each_ref().map(Conv2d::weights),
            linear: self.linear.weights(),
        }
    }

    /// Packs θ. What the other functions compute with is the packed copy.
    ///
    /// # Panics
    ///
    /// If θ has another length or `weights` another shape.
    pub fn pack<T: Real>(&self, theta: &[T], weights: &mut NatureCnnWeights<T>) {
        assert_eq!(theta.len(), self.num_params(), "length of θ");
        let convs = self.convs.iter().zip(self.conv_ranges());
        for ((conv, range), weights) in convs.zip(&mut weights.convs) {
            conv.pack(&theta[range], weights);
        }
        self.linear.pack(&theta[self.linear_range()], &mut weights.linear);
    }

    /// Features of every image.
    ///
    /// # Shapes
    ///
    /// `x`: `[B, channels, height, width]`, pixels scaled to [0, 1]; result: `[B, features]`, in
    /// the tape.
    ///
    /// # Panics
    ///
    /// If `x` is not a whole number of images.
    pub fn forward<'t, T: Real>(
        &self,
        weights: &NatureCnnWeights<T>,
        x: &[T],
        tape: &'t mut NatureCnnTape<T>,
    ) -> &'t [T] {
        let images = images(x, self.inputs());
        let NatureCnnTape { y, flat, linear, scratch, .. } = tape;
        for (l, (conv, weights)) in self.convs.iter().zip(&weights.convs).enumerate() {
            let (before, rest) = y.split_at_mut(l);
            let input = before.last().map_or(x, |y| &y[..images * conv.inputs()]);
            let y = grown(&mut rest[0], images * conv.outputs());
            conv.forward_pixels(weights, input, scratch, y);
        }
        let last = &self.convs[2];
        let n = images * last.outputs();
        let flat = grown(flat, n);
        last.pixels_to_planes(&y[2][..n], flat);
        self.linear.forward(&weights.linear, flat, linear)
    }

    /// Backward: `grad += (∂y/∂θ)ᵀ dy`, and `dx = (∂y/∂x)ᵀ dy` where asked for, at the point of
    /// the last `forward` on this tape.
    ///
    /// # Shapes
    ///
    /// `x` as in `forward`; `dy`: `[B, features]`; `grad`: as θ; `dx`: as `x`.
    ///
    /// # Panics
    ///
    /// If the lengths do not agree.
    #[allow(clippy::too_many_arguments, reason = "the same as those of the perceptron")]
    pub fn vjp<T: Real>(
        &self,
        weights: &NatureCnnWeights<T>,
        x: &[T],
        tape: &mut NatureCnnTape<T>,
        dy: &[T],
        grad: &mut [T],
        mut dx: Option<&mut [T]>,
    ) {
        let images = images(x, self.inputs());
        assert_eq!(dy.len(), images * self.outputs(), "length of dy");
        assert_eq!(grad.len(), self.num_params(), "length of the gradient");
        let NatureCnnTape { y, flat, linear, scratch, d: [d, d_next] } = tape;
        let last = &self.convs[2];
        let n = images * last.outputs();
        let d_flat = grown(d_next, n);
        let d_linear = &mut grad[self.linear_range()];
        self.linear.vjp(&weights.linear, &flat[..n], linear, dy, d_linear, Some(d_flat));
        last.planes_to_pixels(d_flat, grown(d, n));
        Activation::Relu.chain(self.isa(), &[], &y[2][..n], &mut d[..n]);
        let layers = self.convs.iter().zip(&weights.convs).zip(self.conv_ranges());
        for (l, ((conv, weights), range)) in layers.enumerate().rev() {
            let (n, grad) = (images * conv.inputs(), &mut grad[range]);
            let dz = &d[..images * conv.outputs()];
            if l > 0 {
                let back = grown(d_next, n);
                conv.vjp_pixels(weights, &y[l - 1][..n], scratch, dz, grad, Some(back));
                std::mem::swap(d, d_next);
            } else {
                conv.vjp_pixels(weights, x, scratch, dz, grad, dx.take());
            }
        }
    }
}

impl<T: Real> NatureCnnTape<T> {
    /// An empty tape.
    pub fn new() -> Self {
        Self::default()
    }
}
