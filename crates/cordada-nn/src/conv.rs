//! Two-dimensional convolution as a function of a flat θ, with `forward` and `vjp`.
//!
//! A block of images is unfolded into patches and multiplied with the weights; the way back folds
//! the patches' derivatives up again. Unfolded memory is as large as the second-level cache, not as
//! the batch. θ and images have PyTorch's layout; inside a network, images may also lie pixel by
//! pixel, which is how the product writes them.

mod unfold;

use crate::kernel::{Isa, Panels, Start, column_sums, matmul, matmul_tn, transpose};
use crate::mlp::ParamInfo;
use crate::mlp::grown;
use crate::{Activation, Error, Real};
use unfold::{Geometry, fold, unfold};

/// Numbers of unfolded patches that are computed at a time: 512 KiB in `f32`.
const BLOCK: usize = 1 << 17;

/// The shape of a convolution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conv2dSpec {
    /// Channels of the input.
    pub in_channels: usize,
    /// Channels of the output.
    pub out_channels: usize,
    /// Height and width of the kernel.
    pub kernel: [usize; 2],
    /// Pixels from one output position to the next, in both directions.
    pub stride: usize,
    /// Lines of zeros around the image; fewer than the kernel is long in each direction.
    pub padding: usize,
    /// Height of the input.
    pub height: usize,
    /// Width of the input.
    pub width: usize,
}

/// A convolution: shapes only, no numbers.
///
/// ```text
/// y[b, o, i, j] = bias[o] + Σ_{c, u, v} weight[o, c, u, v] x[b, c, i s + u − p, j s + v − p]
/// ```
///
/// with stride s and padding p; x is 0 outside the image. θ is the weight
/// `[out_channels, in_channels, kernel height, kernel width]`, then the bias `[out_channels]`.
#[derive(Clone, Debug)]
pub struct Conv2d {
    isa: Isa,
    channels: usize,
    out_channels: usize,
    geometry: Geometry,
    /// What made the input, if not the identity: derivatives are passed back through it.
    before: Activation,
    /// What is applied to the output.
    after: Activation,
}

/// θ of one [`Conv2d`], packed for the products: made by [`Conv2d::pack`] once per optimizer step.
#[derive(Clone, Debug)]
pub struct Conv2dWeights<T> {
    /// Wᵀ `[patch, out_channels]`, for the way forward.
    forward: Panels<T>,
    /// W `[out_channels, patch]`, for the way back.
    backward: Panels<T>,
    bias: Vec<T>,
    /// W in the order of the patches.
    ordered: Vec<T>,
}

/// The working memory of [`Conv2d`]. It grows to the largest batch seen and is reused after that.
#[derive(Clone, Debug, Default)]
pub struct Conv2dTape<T> {
    y: Vec<T>,
    /// The output, then its derivative, pixel by pixel.
    pixels: Vec<T>,
    scratch: Scratch<T>,
}

/// Memory that convolutions of one network share.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scratch<T> {
    patches: Vec<T>,
    /// Gradient of the weight in the order of the patches.
    d_weight: Vec<T>,
}

impl Conv2d {
    /// Checks the shape, for the fastest instruction set of this processor.
    ///
    /// # Errors
    ///
    /// [`Error::Option`] if there are no channels, no kernel, no stride, or as much padding as
    /// kernel; [`Error::ImageSize`] if the kernel is larger than the padded image.
    pub fn new(spec: &Conv2dSpec) -> Result<Self, Error> {
        Self::with_isa(spec, Isa::detect())
    }

    /// As [`Conv2d::new`], for a given instruction set.
    ///
    /// # Errors
    ///
    /// As [`Conv2d::new`].
    pub fn with_isa(spec: &Conv2dSpec, isa: Isa) -> Result<Self, Error> {
        let Conv2dSpec { kernel: [kh, kw], stride, padding, height, width, .. } = *spec;
        let at_least_one = [
            ("in_channels", spec.in_channels),
            ("out_channels", spec.out_channels),
            ("kernel height", kh),
            ("kernel width", kw),
            ("stride", stride),
        ];
        let option = |option, value: usize, range| {
            Err(Error::Option { owner: "conv2d", option, value: value as f64, range })
        };
        for (name, value) in at_least_one {
            if value == 0 {
                return option(name, value, "at least 1");
            }
        }
        if padding >= kh.min(kw) {
            return option("padding", padding, "less than the kernel's height and width");
        }
        let least = [kh, kw].map(|taps| taps.saturating_sub(2 * padding).max(1));
        if height < least[0] || width < least[1] {
            return Err(Error::ImageSize { owner: "conv2d", height, width, least });
        }
        let out = [height + 2 * padding - kh, width + 2 * padding - kw].map(|n| n / stride + 1);
        let (kernel, planes) = (spec.kernel, spec.in_channels);
        Ok(Self {
            isa,
            channels: spec.in_channels,
            out_channels: spec.out_channels,
            geometry: Geometry { planes, height, width, pixel: 1, kernel, stride, padding, out },
            before: Activation::Identity,
            after: Activation::Identity,
        })
    }

    /// The same, applying `activation` to its output.
    pub(crate) fn then(self, activation: Activation) -> Self {
        Self { after: activation, ..self }
    }

    /// The same for images `[B, H, W, C]` that are the output of `activation`: `vjp_pixels` then
    /// passes derivatives back through it.
    pub(crate) fn after_pixels(mut self, activation: Activation) -> Self {
        self.geometry.pixel = self.channels;
        self.geometry.planes = 1;
        self.before = activation;
        self
    }

    /// Length of θ.
    pub fn num_params(&self) -> usize {
        self.out_channels * (self.geometry.patch() + 1)
    }

    /// Numbers of an input image.
    pub fn inputs(&self) -> usize {
        self.geometry.image()
    }

    /// Numbers of an output image.
    pub fn outputs(&self) -> usize {
        self.geometry.positions() * self.out_channels
    }

    /// Channels, height and width of an output image.
    pub fn output_shape(&self) -> [usize; 3] {
        [self.out_channels, self.geometry.out[0], self.geometry.out[1]]
    }

    /// The instruction set that its products use.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Floating-point operations of the matrix product of one image's forward pass.
    pub fn forward_flops(&self) -> usize {
        2 * self.outputs() * self.geometry.patch()
    }

    /// Name, shape and place of the weight and the bias, in θ's order.
    pub fn params(&self) -> Vec<ParamInfo> {
        let [kh, kw] = self.geometry.kernel;
        let len = self.weight_len();
        let shape = vec![self.out_channels, self.channels, kh, kw];
        vec![
            ParamInfo { name: "weight".to_string(), shape, range: 0..len },
            ParamInfo {
                name: "bias".to_string(),
                shape: vec![self.out_channels],
                range: len..self.num_params(),
            },
        ]
    }

    fn weight_len(&self) -> usize {
        self.out_channels * self.geometry.patch()
    }

    /// Room for packed weights of this shape.
    pub fn weights<T: Real>(&self) -> Conv2dWeights<T> {
        let (patch, out) = (self.geometry.patch(), self.out_channels);
        Conv2dWeights {
            forward: Panels::new(self.isa, patch, out),
            backward: Panels::new(self.isa, out, patch),
            bias: vec![T::ZERO; out],
            ordered: vec![T::ZERO; patch * out],
        }
    }

    /// Packs θ. What the other functions compute with is the packed copy.
    ///
    /// # Panics
    ///
    /// If θ has another length or `weights` another shape.
    pub fn pack<T: Real>(&self, theta: &[T], weights: &mut Conv2dWeights<T>) {
        assert_eq!(theta.len(), self.num_params(), "length of θ");
        let (weight, bias) = theta.split_at(self.weight_len());
        let Conv2dWeights { forward, backward, bias: to_bias, ordered } = weights;
        self.to_patch_order(weight, ordered);
        forward.pack_transposed(ordered);
        backward.pack(ordered);
        to_bias.copy_from_slice(bias);
    }

    /// y = f_θ(x), image by image.
    ///
    /// # Shapes
    ///
    /// `x`: `[B, in_channels, height, width]`; result: `[B, out_channels, height, width]` of the
    /// output, in the tape.
    ///
    /// # Panics
    ///
    /// If `x` is not a whole number of images.
    pub fn forward<'t, T: Real>(
        &self,
        weights: &Conv2dWeights<T>,
        x: &[T],
        tape: &'t mut Conv2dTape<T>,
    ) -> &'t [T] {
        let n = images(x, self.inputs()) * self.outputs();
        let pixels = grown(&mut tape.pixels, n);
        self.forward_pixels(weights, x, &mut tape.scratch, pixels);
        let y = grown(&mut tape.y, n);
        self.pixels_to_planes(pixels, y);
        y
    }

    /// Backward: `grad += (∂y/∂θ)ᵀ dy`, and `dx = (∂y/∂x)ᵀ dy` where asked for. Both are linear in
    /// what they read, so no `forward` needs to come before.
    ///
    /// # Shapes
    ///
    /// `x` as in `forward`; `dy`: as its result; `grad`: as θ; `dx`: as `x`.
    ///
    /// # Panics
    ///
    /// If the lengths do not agree.
    #[allow(clippy::too_many_arguments, reason = "the same as those of the perceptron")]
    pub fn vjp<T: Real>(
        &self,
        weights: &Conv2dWeights<T>,
        x: &[T],
        tape: &mut Conv2dTape<T>,
        dy: &[T],
        grad: &mut [T],
        dx: Option<&mut [T]>,
    ) {
        let pixels = grown(&mut tape.pixels, dy.len());
        self.planes_to_pixels(dy, pixels);
        self.vjp_pixels(weights, x, &mut tape.scratch, pixels, grad, dx);
    }

    /// As [`Conv2d::forward`] with a result `[B, height, width, out_channels]`, and the activation.
    pub(crate) fn forward_pixels<T: Real>(
        &self,
        weights: &Conv2dWeights<T>,
        x: &[T],
        scratch: &mut Scratch<T>,
        y: &mut [T],
    ) {
        let images = self.block();
        let blocks = x.chunks(images * self.inputs()).zip(y.chunks_mut(images * self.outputs()));
        for (x, y) in blocks {
            let patches = self.unfolded(x, &mut scratch.patches);
            matmul(patches, &weights.forward, Start::Row(&weights.bias), y);
            self.after.apply(self.isa, y);
        }
    }

    /// As [`Conv2d::vjp`] with `dz`, the derivative by the input of the activation:
    /// `[B, height, width, out_channels]`.
    #[allow(clippy::too_many_arguments, reason = "the same as those of `vjp`")]
    pub(crate) fn vjp_pixels<T: Real>(
        &self,
        weights: &Conv2dWeights<T>,
        x: &[T],
        scratch: &mut Scratch<T>,
        dz: &[T],
        grad: &mut [T],
        mut dx: Option<&mut [T]>,
    ) {
        assert_eq!(dz.len(), images(x, self.inputs()) * self.outputs(), "length of dy");
        assert_eq!(grad.len(), self.num_params(), "length of the gradient");
        assert!(dx.as_ref().is_none_or(|dx| dx.len() == x.len()), "length of dx");
        let (sizes, images) = ((self.out_channels, self.geometry.patch()), self.block());
        let (d_weight, d_bias) = grad.split_at_mut(self.weight_len());
        let Scratch { patches, d_weight: ordered } = scratch;
        // Sums start from the old gradient, so that they do not depend on where a batch is cut.
        let ordered = grown(ordered, d_weight.len());
        self.to_patch_order(d_weight, ordered);
        let blocks = x.chunks(images * self.inputs()).zip(dz.chunks(images * self.outputs()));
        for (i, (x, dz)) in blocks.enumerate() {
            let patches = self.unfolded(x, patches);
            matmul_tn(self.isa, dz, patches, sizes, ordered);
            column_sums(self.isa, dz, d_bias);
            if let Some(dx) = &mut dx {
                let dx = &mut dx[i * images * self.inputs()..][..x.len()];
                matmul(dz, &weights.backward, Start::Zero, patches);
                fold(self.isa, &self.geometry, patches, dx);
                self.before.chain(self.isa, &[], x, dx);
            }
        }
        self.to_torch_order(ordered, d_weight);
    }

    /// Images of a block: a function of the shape alone.
    fn block(&self) -> usize {
        (BLOCK / (self.geometry.positions() * self.geometry.patch())).max(1)
    }

    fn unfolded<'p, T: Real>(&self, x: &[T], patches: &'p mut Vec<T>) -> &'p mut [T] {
        let rows = x.len() / self.inputs() * self.geometry.positions();
        let patches = grown(patches, rows * self.geometry.patch());
        unfold(self.isa, &self.geometry, x, patches);
        patches
    }

    /// A weight `[out, planes · pixel, taps]` as `[out, planes, taps, pixel]`.
    fn to_patch_order<T: Real>(&self, weight: &[T], ordered: &mut [T]) {
        let (pixel, taps) = (self.geometry.pixel, self.taps());
        if pixel == 1 {
            return ordered.copy_from_slice(weight);
        }
        for (from, to) in
            weight.chunks_exact(pixel * taps).zip(ordered.chunks_exact_mut(pixel * taps))
        {
            transpose(self.isa, from, taps, to, pixel);
        }
    }

    /// The inverse of `to_patch_order`.
    fn to_torch_order<T: Real>(&self, ordered: &[T], weight: &mut [T]) {
        let (pixel, taps) = (self.geometry.pixel, self.taps());
        if pixel == 1 {
            return weight.copy_from_slice(ordered);
        }
        for (from, to) in
            ordered.chunks_exact(pixel * taps).zip(weight.chunks_exact_mut(pixel * taps))
        {
            transpose(self.isa, from, pixel, to, taps);
        }
    }

    fn taps(&self) -> usize {
        self.geometry.kernel[0] * self.geometry.kernel[1]
    }

    /// Output images `[B, positions, out_channels]` as `[B, out_channels, positions]`.
    pub(crate) fn pixels_to_planes<T: Real>(&self, from: &[T], to: &mut [T]) {
        let n = self.outputs();
        for (from, to) in from.chunks_exact(n).zip(to.chunks_exact_mut(n)) {
            transpose(self.isa, from, self.out_channels, to, self.geometry.positions());
        }
    }

    /// The inverse of `pixels_to_planes`.
    pub(crate) fn planes_to_pixels<T: Real>(&self, from: &[T], to: &mut [T]) {
        let n = self.outputs();
        for (from, to) in from.chunks_exact(n).zip(to.chunks_exact_mut(n)) {
            transpose(self.isa, from, self.geometry.positions(), to, self.out_channels);
        }
    }
}

impl<T: Real> Conv2dTape<T> {
    /// An empty tape.
    pub fn new() -> Self {
        Self::default()
    }
}

/// The number of images of `len` numbers in `x`.
///
/// # Panics
///
/// If it is not whole.
pub(crate) fn images<T>(x: &[T], len: usize) -> usize {
    assert!(x.len().is_multiple_of(len), "{} numbers are no images of {len}", x.len());
    x.len() / len
}
