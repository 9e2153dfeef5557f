//! The inner loops: one body each in plain Rust, compiled once per instruction set and chosen at
//! run time.
//!
//! # Why results do not depend on the machine, the batch or the threads
//!
//! - Every output element of a product has **one accumulator** that starts from the output's old
//!   value (from 0, and is added at the end, where a gradient is computed transposed) and runs over k in ascending order with fused multiply-add. Tiling, blocking and vector
//!   width only choose which elements are computed together.
//! - Every other reduction, and a product with at most 4 columns, runs in [`LANES`] fixed lanes,
//!   folded by a fixed tree.
//! - `exp`, `tanh` and division are arithmetic that IEEE 754 rounds the same everywhere; there are
//!   no approximate reciprocals.
//!
//! # Speed
//!
//! `[T; 16]` loops inside `#[target_feature]` functions compile to the same vector instructions as
//! intrinsics. On a processor without fused multiply-add the portable instance is correct and slow
//! (each `mul_add` is a library call).

mod elementwise;
mod matmul;
mod peak;
mod reduce;
mod transpose;

pub use elementwise::{exp_f32, ln_f32, reciprocal_f32, tanh_f32};
pub use matmul::{Panels, Size, Start, View, matmul, matmul_tn, matmul_tn_view, matmul_view};
pub use peak::{CHAINS, multiply_add_chains};
pub use reduce::{add_assign, column_sums, dot, sum_squares};
pub use transpose::transpose;

/// Number of virtual lanes of every vector loop and reduction, on every machine.
pub const LANES: usize = 16;

/// An instruction set that this processor has.
///
/// Values come only from [`Isa::detect`] and [`Isa::available`], which ask the processor: that is
/// what makes calling a `#[target_feature]` instance sound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Isa(pub(crate) Level);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    Portable,
}

impl Isa {
    /// The fastest instruction set of this processor.
    #[inline]
    pub fn detect() -> Self {
        Self::available().next().unwrap_or(Self(Level::Portable))
    }

    /// Every instruction set of this processor that the kernels have an instance for, fastest
    /// first; the portable one is always among them.
    pub fn available() -> impl Iterator<Item = Self> {
        [
            #[cfg(target_arch = "x86_64")]
            (std::arch::is_x86_feature_detected!("avx512f")
                && std::arch::is_x86_feature_detected!("avx512vl")
                && std::arch::is_x86_feature_detected!("avx512dq")
                && std::arch::is_x86_feature_detected!("avx512bw")
                && has_avx2())
            .then_some(Self(Level::Avx512)),
            #[cfg(target_arch = "x86_64")]
            has_avx2().then_some(Self(Level::Avx2)),
            Some(Self(Level::Portable)),
        ]
        .into_iter()
        .flatten()
    }

    /// Whether there are 32 vector registers of [`LANES`] `f32`.
    #[inline(always)]
    pub(crate) fn is_wide(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        return self.0 == Level::Avx512;
        #[cfg(not(target_arch = "x86_64"))]
        false
    }

    /// Name for reports: `avx512`, `avx2` or `portable`.
    pub fn name(self) -> &'static str {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => "avx512",
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => "avx2",
            Level::Portable => "portable",
        }
    }
}

/// Everything that the AVX2 instances are compiled with.
#[cfg(target_arch = "x86_64")]
fn has_avx2() -> bool {
    std::arch::is_x86_feature_detected!("avx2")
        && std::arch::is_x86_feature_detected!("fma")
        && std::arch::is_x86_feature_detected!("bmi1")
        && std::arch::is_x86_feature_detected!("bmi2")
}

/// Work from outside this crate that is compiled once per instruction set, see [`Isa::run`].
pub trait Task {
    /// What it returns.
    type Output;

    /// Does the work. Must be `#[inline(always)]`, and so must all that it calls in its inner
    /// loops, or they are compiled for the portable instruction set: with the same bits, but each
    /// `mul_add`, hence each `exp`, is a library call.
    fn run(self) -> Self::Output;
}

impl Isa {
    /// Runs the instance of a task that was compiled for this instruction set.
    #[inline]
    #[allow(unsafe_code, reason = "an Isa proves that the processor has the features")]
    pub fn run<W: Task>(self, task: W) -> W::Output {
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma,bmi1,bmi2")]
        fn avx512<W: Task>(task: W) -> W::Output {
            task.run()
        }

        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma,bmi1,bmi2")]
        fn avx2<W: Task>(task: W) -> W::Output {
            task.run()
        }

        match self.0 {
            // SAFETY: an `Isa` of this level exists only if the processor has the features.
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => unsafe { avx512(task) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => unsafe { avx2(task) },
            Level::Portable => task.run(),
        }
    }
}

/// Defines a function whose body is compiled once per instruction set; callers pass the [`Isa`]
/// first. Everything the body calls must be `#[inline(always)]` to be compiled with it. The body
/// may read the constant `WIDE`: whether there are 32 vector registers of 16 lanes.
macro_rules! kernel {
    ($(#[$meta:meta])* $vis:vis fn $name:ident<T: Real $(, const $c:ident: $ct:ty)*>(
        $($arg:ident: $ty:ty),* $(,)?
    ) $(-> $ret:ty)? $body:block) => {
        $(#[$meta])*
        #[allow(unsafe_code, reason = "an Isa proves that the processor has the features")]
        #[allow(clippy::too_many_arguments, reason = "sizes and slices of one inner loop")]
        $vis fn $name<T: Real $(, const $c: $ct)*>(isa: $crate::kernel::Isa, $($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            fn body<T: Real, const WIDE: bool $(, const $c: $ct)*>($($arg: $ty),*) $(-> $ret)? $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma,bmi1,bmi2")]
            fn avx512<T: Real $(, const $c: $ct)*>($($arg: $ty),*) $(-> $ret)? {
                body::<T, true $(, $c)*>($($arg),*)
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,bmi1,bmi2")]
            fn avx2<T: Real $(, const $c: $ct)*>($($arg: $ty),*) $(-> $ret)? {
                body::<T, false $(, $c)*>($($arg),*)
            }

            match isa.0 {
                // SAFETY: an `Isa` of this level exists only if the processor has the features.
                #[cfg(target_arch = "x86_64")]
                $crate::kernel::Level::Avx512 => unsafe { avx512::<T $(, $c)*>($($arg),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                $crate::kernel::Level::Avx2 => unsafe { avx2::<T $(, $c)*>($($arg),*) },
                $crate::kernel::Level::Portable => body::<T, false $(, $c)*>($($arg),*),
            }
        }
    };
}
pub(crate) use kernel;
