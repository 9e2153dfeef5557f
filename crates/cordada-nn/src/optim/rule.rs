//! The inner loops of the optimizers: one pass over θ, the gradient and the state. Everything that
//! is the same for all elements is computed before, in `f64`.

use crate::Real;
use crate::kernel::{Isa, kernel};

/// `x`, or 0 in place of a number too small for the full precision of `f32`.
///
/// State of parameters whose gradient is 0 (a dead unit, an unused token) decays to such numbers
/// and then stays there for ever, where every product costs a hundred times as much.
#[inline(always)]
fn flushed<T: Real>(x: T) -> T {
    let tiny = T::of(f64::from(f32::MIN_POSITIVE));
    if x.abs() < tiny { T::ZERO } else { x }
}

/// Constants of one SGD update.
#[derive(Clone, Copy)]
pub(super) struct Sgd<T> {
    /// 1 to descend, −1 to ascend.
    sign: T,
    l2: T,
    momentum: T,
    step: T,
}

impl<T: Real> Sgd<T> {
    pub(super) fn new(momentum: f64, weight_decay: f64, learning_rate: f64, sign: T) -> Self {
        Self {
            sign,
            l2: T::of(weight_decay),
            momentum: T::of(momentum),
            step: T::of(learning_rate),
        }
    }
}

/// SGD with the loop that its options ask for; `state` is the momentum's buffer, if there is any.
pub(super) fn sgd_any<T: Real>(
    isa: Isa,
    c: Sgd<T>,
    theta: &mut [T],
    grad: &[T],
    [momentum, ..]: [&mut [T]; 3],
    nesterov: bool,
) {
    match (c.momentum > T::ZERO, nesterov) {
        (false, _) => sgd(isa, c, theta, grad),
        (true, false) => sgd_momentum::<T, false>(isa, c, theta, grad, momentum),
        (true, true) => sgd_momentum::<T, true>(isa, c, theta, grad, momentum),
    }
}

kernel! {
    fn sgd<T: Real>(c: Sgd<T>, theta: &mut [T], grad: &[T]) {
        for (theta, &g) in theta.iter_mut().zip(grad) {
            let g = c.l2.mul_add(*theta, c.sign * g);
            *theta = (-c.step).mul_add(g, *theta);
        }
    }
}

kernel! {
    /// The buffer starts at 0, so the first update leaves g in it, as in `PyTorch`.
    fn sgd_momentum<T: Real, const NESTEROV: bool>(
        c: Sgd<T>,
        theta: &mut [T],
        grad: &[T],
        momentum: &mut [T],
    ) {
        for ((theta, &g), b) in theta.iter_mut().zip(grad).zip(momentum) {
            let g = c.l2.mul_add(*theta, c.sign * g);
            *b = flushed(c.momentum.mul_add(*b, g));
            let direction = if NESTEROV { c.momentum.mul_add(*b, g) } else { *b };
            *theta = (-c.step).mul_add(direction, *theta);
        }
    }
}

/// Constants of one Adam update.
#[derive(Clone, Copy)]
pub(super) struct Adam<T> {
    /// 1 to descend, −1 to ascend.
    sign: T,
    /// Weight decay added to the gradient.
    pub(super) l2: T,
    /// What decoupled weight decay leaves of θ.
    pub(super) keep: T,
    beta2: T,
    rest1: T,
    rest2: T,
    /// 1 / √(1 − β₂ᵗ).
    correction2: T,
    eps: T,
    /// lr / (1 − β₁ᵗ).
    step: T,
}

impl<T: Real> Adam<T> {
    /// Constants of update number `t`, counted from 1, without weight decay.
    pub(super) fn new(beta: [f64; 2], eps: f64, learning_rate: f64, t: u64, sign: T) -> Self {
        let correction = beta.map(|beta| 1.0 - libm::pow(beta, t as f64));
        Self {
            sign,
            l2: T::ZERO,
            keep: T::ONE,
            beta2: T::of(beta[1]),
            rest1: T::of(1.0 - beta[0]),
            rest2: T::of(1.0 - beta[1]),
            correction2: T::of(1.0 / correction[1].sqrt()),
            eps: T::of(eps),
            step: T::of(learning_rate / correction[0]),
        }
    }

    /// Moves the moments of one parameter along.
    #[inline(always)]
    fn moments(&self, theta: T, g: T, mean: &mut T, square: &mut T) {
        let g = self.l2.mul_add(theta, self.sign * g);
        *mean = flushed(self.rest1.mul_add(g - *mean, *mean));
        *square = flushed((self.rest2 * g).mul_add(g, self.beta2 * *square));
    }

    #[inline(always)]
    fn moved(&self, theta: T, mean: T, square: T) -> T {
        let root = self.correction2.mul_add(square.sqrt(), self.eps);
        (-self.step).mul_add(mean * root.reciprocal(), theta * self.keep)
    }
}

/// Adam with or without the largest square.
pub(super) fn adam_any<T: Real>(
    isa: Isa,
    c: Adam<T>,
    theta: &mut [T],
    grad: &[T],
    [mean, square, largest]: [&mut [T]; 3],
    amsgrad: bool,
) {
    if amsgrad {
        adam_largest(isa, c, theta, grad, mean, square, largest);
    } else {
        adam(isa, c, theta, grad, mean, square);
    }
}

kernel! {
    fn adam<T: Real>(c: Adam<T>, theta: &mut [T], grad: &[T], mean: &mut [T], square: &mut [T]) {
        for (((theta, &g), mean), square) in theta.iter_mut().zip(grad).zip(mean).zip(square) {
            c.moments(*theta, g, mean, square);
            *theta = c.moved(*theta, *mean, *square);
        }
    }
}

kernel! {
    fn adam_largest<T: Real>(
        c: Adam<T>,
        theta: &mut [T],
        grad: &[T],
        mean: &mut [T],
        square: &mut [T],
        largest: &mut [T],
    ) {
        let state = mean.iter_mut().zip(square).zip(largest);
        for ((theta, &g), ((mean, square), largest)) in theta.iter_mut().zip(grad).zip(state) {
            c.moments(*theta, g, mean, square);
            *largest = crate::lanes::larger(*largest, *square);
            *theta = c.moved(*theta, *mean, *largest);
        }
    }
}

/// Constants of one `RMSprop` update.
#[derive(Clone, Copy)]
pub(super) struct RmsProp<T> {
    /// 1 to descend, −1 to ascend.
    sign: T,
    alpha: T,
    /// 1 − α.
    rest: T,
    /// ε or 0.
    eps_inside: T,
    /// 0 or ε.
    eps_outside: T,
    momentum: T,
    step: T,
}

impl<T: Real> RmsProp<T> {
    /// Constants with ε split into what is inside and what is outside the root.
    pub(super) fn new(
        alpha: f64,
        (eps_inside, eps_outside): (f64, f64),
        momentum: f64,
        learning_rate: f64,
        sign: T,
    ) -> Self {
        Self {
            sign,
            alpha: T::of(alpha),
            rest: T::of(1.0 - alpha),
            eps_inside: T::of(eps_inside),
            eps_outside: T::of(eps_outside),
            momentum: T::of(momentum),
            step: T::of(learning_rate),
        }
    }

    #[inline(always)]
    fn square(&self, g: T, square: T) -> T {
        flushed((self.rest * g).mul_add(g, self.alpha * square))
    }

    #[inline(always)]
    fn mean(&self, g: T, mean: T) -> T {
        flushed(self.rest.mul_add(g - mean, mean))
    }

    /// s − a², which is not negative but for rounding; NaN stays.
    #[inline(always)]
    fn centered(square: T, mean: T) -> T {
        let variance = (-mean).mul_add(mean, square);
        if variance < T::ZERO { T::ZERO } else { variance }
    }

    #[inline(always)]
    fn direction(&self, g: T, square: T) -> T {
        g / ((square + self.eps_inside).sqrt() + self.eps_outside)
    }
}

/// `RMSprop` with the loop that its options ask for; buffers that are not there leave no gap in
/// `state`.
pub(super) fn rms_prop_any<T: Real>(
    isa: Isa,
    c: RmsProp<T>,
    theta: &mut [T],
    grad: &[T],
    [square, second, third]: [&mut [T]; 3],
    centered: bool,
) {
    match (centered, c.momentum > T::ZERO) {
        (false, false) => rms_prop(isa, c, theta, grad, square),
        (false, true) => rms_prop_momentum(isa, c, theta, grad, square, second),
        (true, false) => rms_prop_centered(isa, c, theta, grad, square, second),
        (true, true) => rms_prop_centered_momentum(isa, c, theta, grad, square, second, third),
    }
}

kernel! {
    fn rms_prop<T: Real>(
        c: RmsProp<T>,
        theta: &mut [T],
        grad: &[T],
        square: &mut [T],
    ) {
        for ((theta, &g), s) in theta.iter_mut().zip(grad).zip(square) {
            let g = c.sign * g;
            *s = c.square(g, *s);
            *theta = (-c.step).mul_add(c.direction(g, *s), *theta);
        }
    }
}

kernel! {
    fn rms_prop_momentum<T: Real>(
        c: RmsProp<T>,
        theta: &mut [T],
        grad: &[T],
        square: &mut [T],
        momentum: &mut [T],
    ) {
        for (((theta, &g), s), b) in theta.iter_mut().zip(grad).zip(square).zip(momentum) {
            let g = c.sign * g;
            *s = c.square(g, *s);
            *b = flushed(c.momentum.mul_add(*b, c.direction(g, *s)));
            *theta = (-c.step).mul_add(*b, *theta);
        }
    }
}

kernel! {
    fn rms_prop_centered<T: Real>(
        c: RmsProp<T>,
        theta: &mut [T],
        grad: &[T],
        square: &mut [T],
        mean: &mut [T],
    ) {
        for (((theta, &g), s), a) in theta.iter_mut().zip(grad).zip(square).zip(mean) {
            let g = c.sign * g;
            *s = c.square(g, *s);
            *a = c.mean(g, *a);
            let direction = c.direction(g, RmsProp::centered(*s, *a));
            *theta = (-c.step).mul_add(direction, *theta);
        }
    }
}

kernel! {
    fn rms_prop_centered_momentum<T: Real>(
        c: RmsProp<T>,
        theta: &mut [T],
        grad: &[T],
        square: &mut [T],
        mean: &mut [T],
        momentum: &mut [T],
    ) {
        let state = square.iter_mut().zip(mean).zip(momentum);
        for ((theta, &g), ((s, a), b)) in theta.iter_mut().zip(grad).zip(state) {
            let g = c.sign * g;
            *s = c.square(g, *s);
            *a = c.mean(g, *a);
            let direction = c.direction(g, RmsProp::centered(*s, *a));
            *b = flushed(c.momentum.mul_add(*b, direction));
            *theta = (-c.step).mul_add(*b, *theta);
        }
    }
}
