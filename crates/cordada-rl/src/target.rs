//! Target networks: a copy of θ that follows it slowly, or is renewed from time to time.

use cordada_nn::Real;
use cordada_nn::kernel::{Isa, Task};

/// Moves a target network's parameters towards the online ones.
///
/// ```text
/// θ' ← (1 − τ) θ' + τ θ
/// ```
///
/// computed as θ' + τ (θ − θ'), so that parameters which agree stay as they are, bit for bit.
/// τ = 1 is a copy, exactly: the hard update of DQN.
///
/// # Shapes
///
/// `online` (θ), `target` (θ'): of the same length.
///
/// # Panics
///
/// If the lengths differ.
///
/// # Source
///
/// Lillicrap et al. 2016, arXiv:1509.02971, algorithm 1, τ = 0.001; SAC and TD3 use 0.005.
pub fn blend<F: Real>(isa: Isa, tau: F, online: &[F], target: &mut [F]) {
    assert_eq!(online.len(), target.len(), "online and target parameters of different lengths");
    if tau == F::ONE {
        target.copy_from_slice(online);
    } else {
        isa.run(Blend(tau, online, target));
    }
}

/// The blend as a task: τ, θ, θ'.
struct Blend<'a, F>(F, &'a [F], &'a mut [F]);

impl<F: Real> Task for Blend<'_, F> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        let Self(tau, online, target) = self;
        for (target, &online) in target.iter_mut().zip(online) {
            *target = tau.mul_add(online - *target, *target);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_follows_and_agreement_stays() {
        for isa in Isa::available() {
            // ¾ · 2 + ¼ · 6 and so on; 19 numbers are a vector and a rest.
            let online: Vec<f32> = (0..19).map(|i| 6.0 + i as f32).collect();
            let mut target: Vec<f32> = (0..19).map(|i| 2.0 - i as f32).collect();
            blend(isa, 0.25, &online, &mut target);
            for (i, &got) in target.iter().enumerate() {
                assert_eq!(got, 3.0 - 0.5 * i as f32, "{i}");
            }
            let thirds: Vec<f32> = (0..19).map(|i| i as f32 / 3.0).collect();
            let mut target = thirds.clone();
            blend(isa, 0.005, &thirds, &mut target);
            assert_eq!(target, thirds);
            let mut target = vec![1e30_f32; 19];
            blend(isa, 1.0, &thirds, &mut target);
            assert_eq!(target, thirds, "a copy is exact");
        }
    }
}
