//! Activation functions, elementwise, with their derivatives.

use crate::Real;
use crate::kernel::{Isa, kernel};

/// An elementwise function between layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activation {
    /// x.
    Identity,
    /// tanh x.
    #[default]
    Tanh,
    /// max(x, 0).
    Relu,
    /// max(x, 0) + 0.01 min(x, 0).
    LeakyRelu,
    /// x where x > 0, else eˣ − 1 (Clevert et al. 2015).
    Elu,
    /// x σ(x), also called swish.
    Silu,
    /// x Φ(x) with the normal distribution function Φ (Hendrycks and Gimpel 2016).
    Gelu,
    /// The same by the approximation ½ x (1 + tanh(√(2/π) (x + 0.044715 x³))).
    GeluTanh,
}

impl Activation {
    /// Every activation.
    pub const ALL: [Self; 8] = [
        Self::Identity,
        Self::Tanh,
        Self::Relu,
        Self::LeakyRelu,
        Self::Elu,
        Self::Silu,
        Self::Gelu,
        Self::GeluTanh,
    ];

    /// Name in configs: `tanh`, `relu`, ….
    pub fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Tanh => "tanh",
            Self::Relu => "relu",
            Self::LeakyRelu => "leaky_relu",
            Self::Elu => "elu",
            Self::Silu => "silu",
            Self::Gelu => "gelu",
            Self::GeluTanh => "gelu_tanh",
        }
    }

    /// The activation of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|a| a.name() == name)
    }

    /// Whether the derivative needs x; the others get by with y = f(x).
    pub fn needs_input(self) -> bool {
        matches!(self, Self::Silu | Self::Gelu | Self::GeluTanh)
    }

    /// f(x) of one number.
    #[inline(always)]
    pub fn value<T: Real>(self, x: T) -> T {
        match self {
            Self::Identity => x,
            Self::Tanh => x.tanh(),
            Self::Relu => x.max(T::ZERO),
            Self::LeakyRelu => x.max(T::of(0.01) * x),
            Self::Elu => {
                let below = x.min(T::ZERO).exp() - T::ONE;
                if x > T::ZERO { x } else { below }
            }
            Self::Silu => x * x.sigmoid(),
            Self::Gelu => x * normal_cdf(x),
            Self::GeluTanh => T::of(0.5) * x * (T::ONE + gelu_inner(x).0.tanh()),
        }
    }

    /// f′(x), given x (read only if [`Activation::needs_input`]) and y = f(x).
    #[inline(always)]
    pub fn derivative<T: Real>(self, x: T, y: T) -> T {
        match self {
            Self::Identity => T::ONE,
            Self::Tanh => (-y).mul_add(y, T::ONE),
            Self::Relu => pick(y > T::ZERO, T::ONE, T::ZERO),
            Self::LeakyRelu => pick(y > T::ZERO, T::ONE, T::of(0.01)),
            Self::Elu => pick(y > T::ZERO, T::ONE, y + T::ONE),
            Self::Silu => {
                let s = x.sigmoid();
                s * (T::ONE + x * (T::ONE - s))
            }
            Self::Gelu => {
                let density = (T::of(-0.5) * x * x).exp() * T::of(0.398_942_280_401_432_7);
                normal_cdf(x) + x * density
            }
            Self::GeluTanh => {
                let (inner, slope) = gelu_inner(x);
                let t = inner.tanh();
                T::of(0.5) * (T::ONE + t + x * (T::ONE - t * t) * slope)
            }
        }
    }

    /// `y = f(y)` for all elements.
    pub fn apply<T: Real>(self, isa: Isa, y: &mut [T]) {
        if self != Self::Identity {
            apply(isa, self, y);
        }
    }

    /// `d *= f′(x)` for all elements: the chain rule going back.
    ///
    /// `x` may be empty unless [`Activation::needs_input`].
    pub fn chain<T: Real>(self, isa: Isa, x: &[T], y: &[T], d: &mut [T]) {
        match self {
            Self::Identity => {}
            _ if self.needs_input() => chain(isa, self, x, y, d),
            _ => chain(isa, self, y, y, d),
        }
    }
}

/// A branch-free choice, so that loops vectorize.
#[inline(always)]
fn pick<T>(condition: bool, yes: T, no: T) -> T {
    if condition { yes } else { no }
}

/// Φ(x) = ½ (1 + erf(x / √2)).
#[inline(always)]
fn normal_cdf<T: Real>(x: T) -> T {
    T::of(0.5) * (T::ONE + (x * T::of(std::f64::consts::FRAC_1_SQRT_2)).erf())
}

/// √(2/π) (x + 0.044715 x³) and its derivative.
#[inline(always)]
fn gelu_inner<T: Real>(x: T) -> (T, T) {
    let scale = T::of(0.797_884_560_802_865_4);
    let cubic = T::of(0.044_715) * x * x;
    (scale * x * (T::ONE + cubic), scale * (T::ONE + T::of(3.0) * cubic))
}

/// Runs `$body` with `$f` bound to each activation as a constant, so that every inner loop is
/// compiled for one of them.
macro_rules! specialize {
    ($activation:expr, $f:ident => $body:expr) => {
        match $activation {
            Activation::Identity => {}
            Activation::Tanh => {
                const $f: Activation = Activation::Tanh;
                $body
            }
            Activation::Relu => {
                const $f: Activation = Activation::Relu;
                $body
            }
            Activation::LeakyRelu => {
                const $f: Activation = Activation::LeakyRelu;
                $body
            }
            Activation::Elu => {
                const $f: Activation = Activation::Elu;
                $body
            }
            Activation::Silu => {
                const $f: Activation = Activation::Silu;
                $body
            }
            Activation::Gelu => {
                const $f: Activation = Activation::Gelu;
                $body
            }
            Activation::GeluTanh => {
                const $f: Activation = Activation::GeluTanh;
                $body
            }
        }
    };
}

kernel! {
    fn apply<T: Real>(activation: Activation, y: &mut [T]) {
        specialize!(activation, F => for y in y.iter_mut() { *y = F.value(*y) });
    }
}

kernel! {
    fn chain<T: Real>(activation: Activation, x: &[T], y: &[T], d: &mut [T]) {
        specialize!(activation, F => {
            for ((d, &x), &y) in d.iter_mut().zip(x).zip(y) {
                *d *= F.derivative(x, y);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cordada_testkit::gradient::assert_gradient;

    #[test]
    fn derivatives_agree_with_finite_differences() {
        for activation in Activation::ALL {
            for x in [-3.0, -0.7, -0.1, 0.2, 1.3, 4.0_f64] {
                let analytic = activation.derivative(x, activation.value(x));
                let f = |x: &[f64]| activation.value(x[0]);
                assert_gradient(activation.name(), &[x], &[analytic], 1e-8, f);
            }
        }
    }

    #[test]
    fn slices_equal_single_numbers_on_every_instruction_set() {
        let x: Vec<f32> = (0..37).map(|i| i as f32 * 0.3 - 5.0).collect();
        for activation in Activation::ALL {
            for isa in Isa::available() {
                let mut y = x.clone();
                activation.apply(isa, &mut y);
                let mut d = vec![2.0_f32; x.len()];
                activation.chain(isa, &x, &y, &mut d);
                for i in 0..x.len() {
                    assert_eq!(y[i], activation.value(x[i]), "{activation:?} {isa:?}");
                    assert_eq!(
                        d[i],
                        2.0 * activation.derivative(x[i], y[i]),
                        "{activation:?} {isa:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn names_round_trip() {
        for activation in Activation::ALL {
            assert_eq!(Activation::from_name(activation.name()), Some(activation));
        }
        assert_eq!(Activation::from_name("swish"), None);
    }
}
