//! Log-probabilities of chosen tokens from rows of logits, and their vjp. The same row function
//! serves sampling and training, so both have the same bits.

use crate::kernel::kernel;
use crate::{Real, lanes};

/// Multiplies a row of logits by `scale` and returns ln Σ e^z.
#[inline(always)]
fn scaled_log_sum_exp<T: Real>(z: &mut [T], scale: T) -> T {
    for z in z.iter_mut() {
        *z *= scale;
    }
    let max = lanes::max(z, T::NEG_INFINITY, |z| z);
    max + lanes::sum(z, |acc, z| acc + (z - max).exp()).ln()
}

kernel! {
    /// Multiplies every row by `scale` (1 / temperature) and writes its ln Σ e^z: then
    /// `z[a] − lse` is token a's log-probability.
    ///
    /// # Shapes
    ///
    /// `z`: `[R, V]`; `lse`: `[R]`.
    ///
    /// # Panics
    ///
    /// If the lengths do not agree.
    pub fn token_log_sum_exp<T: Real>(z: &mut [T], scale: T, lse: &mut [T]) {
        if lse.is_empty() {
            return;
        }
        let v = z.len() / lse.len();
        assert_eq!(z.len(), v * lse.len(), "whole rows");
        for (z, lse) in z.chunks_exact_mut(v).zip(lse) {
            *lse = scaled_log_sum_exp(z, scale);
        }
    }
}

kernel! {
    /// `p_j = e^(z_j − lse)` of one row that [`token_log_sum_exp`] has seen.
    ///
    /// # Shapes
    ///
    /// `z`, `p`: `[V]`.
    ///
    /// # Panics
    ///
    /// If the lengths differ.
    pub fn token_probabilities<T: Real>(z: &[T], lse: T, p: &mut [T]) {
        assert_eq!(z.len(), p.len(), "one probability per logit");
        for (p, &z) in p.iter_mut().zip(z) {
            *p = (z - lse).exp();
        }
    }
}

kernel! {
    /// Entropy of every row that [`token_log_sum_exp`] has seen.
    ///
    /// ```text
    /// H = −Σ_j p_j ln p_j = lse − Σ_j p_j z_j,   p_j = e^(z_j − lse)
    /// ```
    ///
    /// # Shapes
    ///
    /// `z`: `[R, V]`; `lse`, `entropy`: `[R]`.
    ///
    /// # Panics
    ///
    /// If the lengths do not agree.
    pub fn token_entropy<T: Real>(z: &[T], lse: &[T], entropy: &mut [T]) {
        if lse.is_empty() {
            return;
        }
        let v = z.len() / lse.len();
        assert!(z.len() == v * lse.len() && entropy.len() == lse.len(), "whole rows");
        for ((z, &lse), entropy) in z.chunks_exact(v).zip(lse).zip(entropy) {
            *entropy = lanes::sum(z, |acc, z| {
                let l = z - lse;
                (-l).mul_add(l.exp(), acc)
            });
        }
    }
}

kernel! {
    /// What a row's objective `ψ ln p_a + c H` has as its derivative with respect to the logits
    /// before scaling; overwrites the scaled logits.
    ///
    /// ```text
    /// d/dz_j = scale · ( ψ (1[j = a] − p_j) − c p_j (ln p_j + H) )
    /// ```
    ///
    /// # Shapes
    ///
    /// `z`: `[R, V]`, as [`token_log_sum_exp`] leaves it; the others: `[R]`.
    ///
    /// # Panics
    ///
    /// If the lengths do not agree or a token is not below V.
    pub fn token_vjp<T: Real>(
        z: &mut [T],
        scale: T,
        lse: &[T],
        entropy: &[T],
        tokens: &[u32],
        psi: &[T],
        d_entropy: &[T],
    ) {
        if lse.is_empty() {
            return;
        }
        let v = z.len() / lse.len();
        assert!(z.len() == v * lse.len() && tokens.len() == lse.len(), "whole rows");
        let rows = z.chunks_exact_mut(v).zip(lse).zip(tokens);
        let weights = psi.iter().zip(d_entropy).zip(entropy);
        for (((z, &lse), &token), ((&psi, &c), &h)) in rows.zip(weights) {
            let (by_psi, by_entropy) = (-psi * scale, -c * scale);
            if c == T::ZERO {
                for z in z.iter_mut() {
                    *z = (*z - lse).exp() * by_psi;
                }
            } else {
                for z in z.iter_mut() {
                    let l = *z - lse;
                    *z = l.exp() * (by_entropy.mul_add(l + h, by_psi));
                }
            }
            z[token as usize] += psi * scale;
        }
    }
}

kernel! {
    /// KL divergence from every row's distribution to a reference.
    ///
    /// ```text
    /// KL = Σ_j p_j (ln p_j − ln r_j),   ln p_j = z_j − lse
    /// ```
    ///
    /// # Shapes
    ///
    /// `z`: `[R, V]`, as [`token_log_sum_exp`] leaves it; `reference`, the logarithms ln r:
    /// `[R, V]`; `lse`, `kl`: `[R]`.
    ///
    /// # Panics
    ///
    /// If the lengths do not agree.
    pub fn token_kl<T: Real>(z: &[T], lse: &[T], reference: &[T], kl: &mut [T]) {
        if lse.is_empty() {
            return;
        }
        let v = z.len() / lse.len();
        assert!(z.len() == v * lse.len() && reference.len() == z.len(), "whole rows");
        assert_eq!(kl.len(), lse.len(), "one divergence per row");
        let rows = z.chunks_exact(v).zip(reference.chunks_exact(v)).zip(lse);
        for (kl, ((z, reference), &lse)) in kl.iter_mut().zip(rows) {
            *kl = T::ZERO;
            for (&z, &r) in z.iter().zip(reference) {
                let l = z - lse;
                *kl = l.exp().mul_add(l - r, *kl);
            }
        }
    }
}

kernel! {
    /// What `c KL` has as its derivative with respect to the logits before scaling.
    ///
    /// ```text
    /// d/dz_j = scale · c p_j (ln p_j − ln r_j − KL)
    /// ```
    ///
    /// # Shapes
    ///
    /// `z`, `reference`: as for [`token_kl`]; `dz`: `[R, V]`, which is overwritten; the others:
    /// `[R]`.
    ///
    /// # Panics
    ///
    /// If the lengths do not agree.
    pub fn token_kl_vjp<T: Real>(
        z: &[T],
        scale: T,
        lse: &[T],
        reference: &[T],
        kl: &[T],
        d_kl: &[T],
        dz: &mut [T],
    ) {
        if lse.is_empty() {
            return;
        }
        let v = z.len() / lse.len();
        assert!(z.len() == v * lse.len() && reference.len() == z.len(), "whole rows");
        assert!(dz.len() == z.len() && kl.len() == lse.len() && d_kl.len() == lse.len());
        let rows = z.chunks_exact(v).zip(reference.chunks_exact(v)).zip(dz.chunks_exact_mut(v));
        for (((z, reference), dz), ((&lse, &kl), &c)) in rows.zip(lse.iter().zip(kl).zip(d_kl)) {
            for ((dz, &z), &r) in dz.iter_mut().zip(z).zip(reference) {
                let l = z - lse;
                *dz = c * scale * l.exp() * (l - r - kl);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use cordada_testkit::gradient::assert_gradient;

    use super::*;
    use crate::kernel::Isa;

    /// ln p of the tokens and entropies at a scale.
    fn forward(isa: Isa, z: &[f64], scale: f64, tokens: &[u32]) -> (Vec<f64>, Vec<f64>) {
        let (mut z, rows) = (z.to_vec(), tokens.len());
        let v = z.len() / rows;
        let (mut lse, mut entropy) = (vec![0.0; rows], vec![0.0; rows]);
        token_log_sum_exp(isa, &mut z, scale, &mut lse);
        token_entropy(isa, &z, &lse, &mut entropy);
        let chosen = tokens.iter().enumerate().map(|(r, &t)| z[r * v + t as usize] - lse[r]);
        (chosen.collect(), entropy)
    }

    #[test]
    fn probabilities_by_hand() {
        // Logits ln 1 and ln 3 at scale 1: ¼ and ¾; at scale 2: 1/10 and 9/10.
        let z = [0.0, 3.0_f64.ln()];
        let (chosen, entropy) = forward(Isa::detect(), &z, 1.0, &[1]);
        assert!((chosen[0] - 0.75_f64.ln()).abs() < 1e-15);
        let want = -(0.25 * 0.25_f64.ln() + 0.75 * 0.75_f64.ln());
        assert!((entropy[0] - want).abs() < 1e-15);
        let (chosen, _) = forward(Isa::detect(), &z, 2.0, &[0]);
        assert!((chosen[0] - 0.1_f64.ln()).abs() < 1e-15);
    }

    #[test]
    fn vjp_is_the_gradient() {
        let z: Vec<f64> = (0..63).map(|i| 2.0 * libm::sin(1.7 * f64::from(i))).collect();
        let (tokens, psi, c) = ([3, 20, 0], [0.7, -1.3, 0.4], [0.0, 0.5, -0.3]);
        for isa in Isa::available() {
            let (_, entropy) = forward(isa, &z, 0.7, &tokens);
            let (mut d, mut lse) = (z.clone(), [0.0; 3]);
            token_log_sum_exp(isa, &mut d, 0.7, &mut lse);
            token_vjp(isa, &mut d, 0.7, &lse, &entropy, &tokens, &psi, &c);
            assert_gradient("tokens", &z, &d, 1e-8, |z| {
                let (chosen, entropy) = forward(isa, z, 0.7, &tokens);
                (0..3).map(|r| psi[r] * chosen[r] + c[r] * entropy[r]).sum()
            });
        }
    }

    #[test]
    fn kl_by_hand_and_its_gradient() {
        // ¼ and ¾ against ½ and ½: ¼ ln ½ + ¾ ln 1½.
        let (mut z, mut lse, mut kl) = ([0.0, 3.0_f64.ln()], [0.0], [0.0]);
        token_log_sum_exp(Isa::detect(), &mut z, 1.0, &mut lse);
        token_kl(Isa::detect(), &z, &lse, &[0.5_f64.ln(); 2], &mut kl);
        assert!((kl[0] - (0.25 * 0.5_f64.ln() + 0.75 * 1.5_f64.ln())).abs() < 1e-15);

        let logits: Vec<f64> = (0..63).map(|i| 2.0 * libm::sin(1.7 * f64::from(i))).collect();
        let mut reference: Vec<f64> = (0..63).map(|i| libm::sin(0.3 * f64::from(i))).collect();
        for row in reference.chunks_exact_mut(21) {
            let mut lse = [0.0];
            token_log_sum_exp(Isa::detect(), row, 1.0, &mut lse);
            for r in row {
                *r -= lse[0];
            }
        }
        let c = [0.7, -1.3, 0.0];
        for isa in Isa::available() {
            let divergences = |z: &[f64]| {
                let (mut z, mut lse, mut kl) = (z.to_vec(), [0.0; 3], [0.0; 3]);
                token_log_sum_exp(isa, &mut z, 0.7, &mut lse);
                token_kl(isa, &z, &lse, &reference, &mut kl);
                (z, lse, kl)
            };
            let (z, lse, kl) = divergences(&logits);
            assert!(kl.iter().all(|&kl| kl > 0.0));
            let mut d = vec![0.0; 63];
            token_kl_vjp(isa, &z, 0.7, &lse, &reference, &kl, &c, &mut d);
            assert_gradient("KL", &logits, &d, 1e-8, |z| {
                divergences(z).2.iter().zip(c).map(|(kl, c)| c * kl).sum()
            });
        }
    }

    #[test]
    fn a_row_alone_has_the_same_bits() {
        let z: Vec<f32> = (0..4 * 77).map(|i| libm::sinf(1.7 * i as f32) * 5.0).collect();
        for isa in Isa::available() {
            let (mut all, mut lse) = (z.clone(), [0.0; 4]);
            token_log_sum_exp(isa, &mut all, 1.0 / 0.7, &mut lse);
            for r in 0..4 {
                let (mut row, mut alone) = (z[r * 77..(r + 1) * 77].to_vec(), [0.0]);
                token_log_sum_exp(isa, &mut row, 1.0 / 0.7, &mut alone);
                assert_eq!(alone[0].to_bits(), lse[r].to_bits());
                assert_eq!(row, all[r * 77..(r + 1) * 77]);
            }
        }
    }
}
