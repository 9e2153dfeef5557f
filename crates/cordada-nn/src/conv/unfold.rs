//! Patches of images as the rows of a matrix (im2col), and the way back (col2im): what turns a
//! convolution into a matrix product. No arithmetic but the sums of [`fold`].

use std::ops::Range;

use crate::Real;
use crate::kernel::kernel;

/// How a convolution walks over its image.
///
/// An image is `[planes, height, width, pixel]`: with C channels it is C planes of pixels of one
/// number (PyTorch's order) or one plane of pixels of C numbers. A patch is
/// `[planes, kernel height, kernel width, pixel]`, so a line of the kernel is one run of numbers.
#[derive(Clone, Debug)]
pub(super) struct Geometry {
    pub(super) planes: usize,
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) pixel: usize,
    pub(super) kernel: [usize; 2],
    pub(super) stride: usize,
    /// Zeros around the image; fewer than the kernel is long in each direction.
    pub(super) padding: usize,
    /// Height and width of the output.
    pub(super) out: [usize; 2],
}

/// The part of a kernel that lies on the image at one output position.
struct Window {
    /// Lines and columns of the kernel.
    lines: Range<usize>,
    columns: Range<usize>,
    /// The pixel under the first of them, counted within a plane.
    first: usize,
}

impl Geometry {
    /// Numbers of an image.
    pub(super) fn image(&self) -> usize {
        self.planes * self.height * self.width * self.pixel
    }

    /// Numbers of a patch: the depth of the product.
    pub(super) fn patch(&self) -> usize {
        self.planes * self.kernel[0] * self.kernel[1] * self.pixel
    }

    /// Output positions of an image.
    pub(super) fn positions(&self) -> usize {
        self.out[0] * self.out[1]
    }

    #[inline(always)]
    fn window(&self, y: usize, x: usize) -> Window {
        let (top, left) = (y * self.stride, x * self.stride);
        // Both ranges hold at least one tap, because the padding is less than the kernel.
        let clip = |from: usize, taps: usize, len: usize| {
            self.padding.saturating_sub(from)..taps.min(len + self.padding - from)
        };
        let lines = clip(top, self.kernel[0], self.height);
        let columns = clip(left, self.kernel[1], self.width);
        let line = top + lines.start - self.padding;
        let first = line * self.width + left + columns.start - self.padding;
        Window { lines, columns, first }
    }

    /// Calls `f(from, to)` with the place in the image and the place in the patch of every run of
    /// a window.
    #[inline(always)]
    fn runs(&self, window: &Window, mut f: impl FnMut(usize, usize)) {
        let [height, width] = self.kernel;
        for plane in 0..self.planes {
            let mut from = (plane * self.height * self.width + window.first) * self.pixel;
            let line = plane * height + window.lines.start;
            let mut to = (line * width + window.columns.start) * self.pixel;
            for _ in window.lines.clone() {
                f(from, to);
                from += self.width * self.pixel;
                to += width * self.pixel;
            }
        }
    }
}

kernel! {
    /// The patches of all images, in the order of the output: `x`: `[B, image]`; `patches`:
    /// `[B, positions, patch]`. What lies outside an image is 0.
    pub(super) fn unfold<T: Real>(g: &Geometry, x: &[T], patches: &mut [T]) {
        match g.kernel[1] * g.pixel {
            3 => unfold_runs::<T, 3>(g, x, patches),
            4 => unfold_runs::<T, 4>(g, x, patches),
            5 => unfold_runs::<T, 5>(g, x, patches),
            8 => unfold_runs::<T, 8>(g, x, patches),
            _ => unfold_runs::<T, 0>(g, x, patches),
        }
    }
}

/// `RUN`: length of a whole line of the kernel if it is so short that a call to copy it costs
/// more than the copy, else 0.
#[inline(always)]
fn unfold_runs<T: Real, const RUN: usize>(g: &Geometry, x: &[T], patches: &mut [T]) {
    let images = x.chunks_exact(g.image());
    for (x, patches) in images.zip(patches.chunks_exact_mut(g.positions() * g.patch())) {
        let mut patches = patches.chunks_exact_mut(g.patch());
        for oy in 0..g.out[0] {
            for (ox, patch) in (0..g.out[1]).zip(&mut patches) {
                let window = g.window(oy, ox);
                let run = window.columns.len() * g.pixel;
                if window.lines.len() * run < g.kernel[0] * g.kernel[1] * g.pixel {
                    patch.fill(T::ZERO);
                }
                if RUN > 0 && run == RUN {
                    g.runs(&window, |from, to| {
                        let from: &[T; RUN] = x[from..].first_chunk().expect("inside the image");
                        *patch[to..].first_chunk_mut().expect("inside the patch") = *from;
                    });
                } else {
                    g.runs(&window, |from, to| {
                        patch[to..to + run].copy_from_slice(&x[from..from + run]);
                    });
                }
            }
        }
    }
}

kernel! {
    /// The transpose of [`unfold`]: every number of a patch is added to the place that it came
    /// from, position after position. Overwrites `dx`: `[B, image]`.
    pub(super) fn fold<T: Real>(g: &Geometry, d_patches: &[T], dx: &mut [T]) {
        let images = dx.chunks_exact_mut(g.image());
        for (dx, patches) in images.zip(d_patches.chunks_exact(g.positions() * g.patch())) {
            dx.fill(T::ZERO);
            let mut patches = patches.chunks_exact(g.patch());
            for oy in 0..g.out[0] {
                for (ox, patch) in (0..g.out[1]).zip(&mut patches) {
                    let window = g.window(oy, ox);
                    let run = window.columns.len() * g.pixel;
                    g.runs(&window, |from, to| {
                        for (dx, &d) in dx[from..from + run].iter_mut().zip(&patch[to..to + run]) {
                            *dx += d;
                        }
                    });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Isa;

    #[test]
    fn patches_of_a_padded_image_by_hand() {
        // 1 2 3    kernel 2 × 2, stride 2, padding 1: the corners at (−1, −1), (−1, 1), (1, −1),
        // 4 5 6    (1, 1); each number is in one patch, so folding gives the image back.
        // 7 8 9
        let g = Geometry {
            planes: 1,
            height: 3,
            width: 3,
            pixel: 1,
            kernel: [2, 2],
            stride: 2,
            padding: 1,
            out: [2, 2],
        };
        let x: Vec<f32> = (1..=9_u8).map(f32::from).collect();
        for isa in Isa::available() {
            let mut patches = vec![f32::NAN; 16];
            unfold(isa, &g, &x, &mut patches);
            let want = [0., 0., 0., 1., 0., 0., 2., 3., 0., 4., 0., 7., 5., 6., 8., 9.];
            assert_eq!(patches, want);
            let mut back = vec![f32::NAN; 9];
            fold(isa, &g, &patches, &mut back);
            assert_eq!(back, x);
        }
    }

    #[test]
    fn two_planes_and_two_channels_a_pixel_have_the_same_patches_in_another_order() {
        // 2 channels of 1 × 3; kernel 1 × 2, stride 1: patches at 0 and 1.
        let planes = Geometry {
            planes: 2,
            height: 1,
            width: 3,
            pixel: 1,
            kernel: [1, 2],
            stride: 1,
            padding: 0,
            out: [1, 2],
        };
        let pixels = Geometry { planes: 1, pixel: 2, ..planes.clone() };
        let isa = Isa::detect();
        let mut patches = vec![f64::NAN; 8];
        unfold(isa, &planes, &[1., 2., 3., 10., 20., 30.], &mut patches);
        assert_eq!(patches, [1., 2., 10., 20., 2., 3., 20., 30.]);
        unfold(isa, &pixels, &[1., 10., 2., 20., 3., 30.], &mut patches);
        assert_eq!(patches, [1., 10., 2., 20., 2., 20., 3., 30.]);
        // The middle pixel is in both patches and gets both sums.
        let mut dx = vec![f64::NAN; 6];
        fold(isa, &pixels, &patches, &mut dx);
        assert_eq!(dx, [1., 10., 4., 40., 3., 30.]);
    }
}
