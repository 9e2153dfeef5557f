//! Distributions of returns on fixed, evenly spaced atoms, and the projection of a shifted and
//! shrunk one back onto them (C51).

use cordada_nn::Real;

/// N atoms z_0 < … < z_{N−1}, evenly spaced.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Support<F> {
    low: F,
    high: F,
    len: usize,
}

impl<F: Real> Support<F> {
    /// `len` atoms from `low` to `high`. The paper has 51 from −10 to 10.
    ///
    /// # Panics
    ///
    /// If there are fewer than two, or the bounds are not finite and in this order.
    pub fn new(low: F, high: F, len: usize) -> Self {
        assert!(len > 1, "a support needs two atoms, not {len}");
        let ordered = low.is_finite() && high.is_finite() && low < high;
        assert!(ordered, "a support cannot go from {low} to {high}");
        Self { low, high, len }
    }

    /// Number of atoms N.
    #[expect(clippy::len_without_is_empty, reason = "there are always two atoms")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Distance of two atoms.
    #[inline(always)]
    fn spacing(&self) -> F {
        (self.high - self.low) / F::of((self.len - 1) as f64)
    }

    /// z_i; the first and the last one are the bounds, exactly.
    #[inline(always)]
    pub fn atom(&self, i: usize) -> F {
        if i + 1 == self.len { self.high } else { self.low + F::of(i as f64) * self.spacing() }
    }

    /// The mean return Σ z_i p_i: the value that actions are compared by.
    ///
    /// # Shapes
    ///
    /// `probs`: `[N]`.
    ///
    /// # Panics
    ///
    /// If the length is not N.
    pub fn mean(&self, probs: &[F]) -> F {
        assert_eq!(probs.len(), self.len, "probabilities are not [N]");
        probs.iter().enumerate().map(|(i, &p)| self.atom(i) * p).sum()
    }

    /// Projects the distribution of r + γ z onto the atoms: the target of C51.
    ///
    /// ```text
    /// Tz_j = clip(r + γ z_j, z_0, z_{N−1}),   b_j = (Tz_j − z_0) / Δz
    /// m_l += p_j (1 − (b_j − l)),   m_{l+1} += p_j (b_j − l),   l = ⌊b_j⌋
    /// ```
    ///
    /// `discount` is γ, γⁿ after n steps, and 0 after a termination: then all is at r. Where Tz_j is an
    /// atom, that atom gets all of p_j. (The paper's algorithm, read literally, gives it to none.)
    ///
    /// # Shapes
    ///
    /// `probs` (p), `projected` (m): `[N]`.
    ///
    /// # Panics
    ///
    /// If a length is not N.
    ///
    /// # Source
    ///
    /// Bellemare et al. 2017, arXiv:1707.06887, eq. (7) and algorithm 1.
    pub fn project(&self, probs: &[F], reward: F, discount: F, projected: &mut [F]) {
        assert_eq!(probs.len(), self.len, "probabilities are not [N]");
        assert_eq!(projected.len(), self.len, "projected probabilities are not [N]");
        projected.fill(F::ZERO);
        let spacing = self.spacing();
        for (j, &p) in probs.iter().enumerate() {
            let moved = (reward + discount * self.atom(j)).clamp(self.low, self.high);
            let place = (moved - self.low) / spacing;
            // Rounding may leave the last atom a little short of N − 1 or beyond it.
            let below = (place.f64() as usize).min(self.len - 2);
            let share = (place - F::of(below as f64)).min(F::ONE);
            projected[below] += p * (F::ONE - share);
            projected[below + 1] += p * share;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_projection_by_hand() {
        // Atoms −1, 0, 1, 2. r = ½, γ = ½: they move to 0, ½, 1, 1½.
        let support = Support::new(-1.0, 2.0, 4);
        let mut m = [9.0; 4];
        support.project(&[0.1, 0.2, 0.3, 0.4], 0.5, 0.5, &mut m);
        let want: [f64; 4] = [0.0, 0.1 + 0.1, 0.1 + 0.3 + 0.2, 0.2];
        for (got, want) in m.iter().zip(want) {
            assert!((got - want).abs() < 1e-15, "{m:?}");
        }
        assert!((support.mean(&[0.1, 0.2, 0.3, 0.4]) - 1.0).abs() < 1e-15);
        assert_eq!((0..4).map(|i| support.atom(i)).collect::<Vec<_>>(), [-1.0, 0.0, 1.0, 2.0]);
    }

    #[test]
    fn the_edges_keep_all_of_the_probability() {
        let support = Support::new(-1.0, 2.0, 4);
        let p = [0.25; 4];
        let mut m = [9.0; 4];
        for (reward, discount, want) in [
            (9.0, 1.0, [0.0, 0.0, 0.0, 1.0]),
            (-9.0, 1.0, [1.0, 0.0, 0.0, 0.0]),
            // Terminated: all at the reward, on an atom and between two.
            (1.0, 0.0, [0.0, 0.0, 1.0, 0.0]),
            (1.75, 0.0, [0.0, 0.0, 0.25, 0.75]),
            (0.0, 1.0, p),
        ] {
            support.project(&p, reward, discount, &mut m);
            assert_eq!(m, want, "r = {reward}, γ = {discount}");
        }
    }

    #[test]
    fn probability_and_mean_are_kept_in_single_precision() {
        // Spacings that no binary number holds, and rewards that keep all atoms within the bounds.
        for (low, high, len) in [(-10.0_f32, 10.0, 51), (0.0, 0.3, 4), (-7.1, 3.3, 1001)] {
            let support = Support::new(low, high, len);
            let probs: Vec<f32> = (0..len).map(|i| (1 + i % 3) as f32).collect();
            let total: f32 = probs.iter().sum();
            let probs: Vec<f32> = probs.iter().map(|p| p / total).collect();
            let mut m = vec![0.0; len];
            let reward = 0.05 * (low + high);
            support.project(&probs, reward, 0.9, &mut m);
            assert!((m.iter().sum::<f32>() - 1.0).abs() < 1e-5);
            assert!(m.iter().all(|&m| m >= 0.0), "a negative probability");
            let want = reward + 0.9 * support.mean(&probs);
            let width = high - low;
            assert!((support.mean(&m) - want).abs() < 1e-5 * width, "{low}, {high}, {len}");
        }
    }
}
