//! Counter-based random streams: every random number in Cordada comes from a [`Stream`]. Sampling
//! from particular policies or spaces is left to the code that owns them.

use crate::state::{Persist, StateError, StateReader, StateWriter};

/// What a stream is for. Streams of different roles are independent under one seed.
pub mod role {
    /// Environments that a policy is trained on.
    pub const ENV: u32 = 1;
    /// Sampling of actions during training.
    pub const POLICY: u32 = 2;
    /// Order of minibatches.
    pub const SHUFFLE: u32 = 3;
    /// Initial parameters.
    pub const INIT: u32 = 4;
    /// Environments of an evaluation.
    pub const EVAL_ENV: u32 = 5;
    /// Sampling of actions during an evaluation.
    pub const EVAL_POLICY: u32 = 6;
    /// Which stored transitions an update learns from, and the noise of that update.
    pub const REPLAY: u32 = 7;
}

/// A random stream whose n-th number is a function of (seed, role, index, n) alone.
///
/// Counter-based, so that numbers depend on neither threads nor order: every environment and every
/// sampler owns the stream of its own (seed, role, index), no stream is shared, and creating or
/// using one never moves another. The same triple gives the same numbers whichever thread draws
/// them and however many others exist. The whole state is 24 bytes, which makes exact resuming
/// cheap; there is no cache of half-used blocks.
///
/// The generator is Philox4x32-10: key = seed, counter words = (counter low, counter high, index,
/// role), one block of 128 bits per draw, of which the low 64 are used.
///
/// # Source
///
/// Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", SC '11,
/// doi:10.1145/2063384.2063405. The tests hold the known answers of its library Random123.
///
/// # Examples
///
/// ```
/// use cordada_env::{Stream, role};
///
/// let mut a = Stream::new(7, role::ENV, 0);
/// let mut b = Stream::new(7, role::ENV, 1);
/// assert_ne!(a.next_u64(), b.next_u64());
/// assert!((0.0..1.0).contains(&a.uniform()));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    seed: u64,
    role: u32,
    index: u32,
    counter: u64,
}

impl Stream {
    /// The stream of (seed, role, index), at its beginning.
    pub fn new(seed: u64, role: u32, index: u32) -> Self {
        Self { seed, role, index, counter: 0 }
    }

    /// How many blocks have been drawn.
    pub fn counter(&self) -> u64 {
        self.counter
    }

    /// The next 64 random bits.
    #[inline]
    pub fn next_u64(&mut self) -> u64 {
        let counter = [self.counter as u32, (self.counter >> 32) as u32, self.index, self.role];
        self.counter = self.counter.wrapping_add(1);
        let block = philox4x32_10(counter, [self.seed as u32, (self.seed >> 32) as u32]);
        u64::from(block[0]) | (u64::from(block[1]) << 32)
    }

    /// A number in [0, 1), a multiple of 2⁻⁵³.
    #[inline]
    pub fn uniform(&mut self) -> f64 {
        const UNIT: f64 = 1.0 / (1u64 << 53) as f64;
        (self.next_u64() >> 11) as f64 * UNIT
    }

    /// A number in [low, high), as `NumPy` computes it: `low + (high − low) · u`.
    #[inline]
    pub fn uniform_in(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.uniform()
    }

    /// A standard normal number; always two draws, so that a stream's position does not depend on
    /// the values drawn.
    ///
    /// ```text
    /// z = √(−2 ln u₁) · cos(2π u₂),   u₁ in (0, 1]
    /// ```
    ///
    /// `ln` and `cos` are those of the crate `libm` and not the platform's, so that every machine
    /// gets the same bits.
    ///
    /// # Source
    ///
    /// Box and Muller 1958, doi:10.1214/aoms/1177706645.
    pub fn normal(&mut self) -> f64 {
        let u1 = 1.0 - self.uniform();
        let u2 = self.uniform();
        (-2.0 * libm::log(u1)).sqrt() * libm::cos(std::f64::consts::TAU * u2)
    }

    /// An exponential number of mean 1, by inversion: `−ln(1 − u)`.
    pub fn exponential(&mut self) -> f64 {
        -libm::log(1.0 - self.uniform())
    }

    /// An index in 0 … n − 1, every one with exactly the same probability.
    ///
    /// # Panics
    ///
    /// If `n` is 0.
    ///
    /// # Source
    ///
    /// Lemire 2019, arXiv:1805.10941, algorithm 5 (multiplication with rejection).
    pub fn below(&mut self, n: usize) -> usize {
        assert!(n > 0, "there is no index below 0");
        let n = n as u64;
        let mut product = u128::from(self.next_u64()) * u128::from(n);
        if (product as u64) < n {
            // 2⁶⁴ mod n low words would be too many for a fair share.
            let threshold = n.wrapping_neg() % n;
            while (product as u64) < threshold {
                product = u128::from(self.next_u64()) * u128::from(n);
            }
        }
        (product >> 64) as usize
    }

    /// Puts the values into a random order (Fisher and Yates), every order equally likely.
    pub fn shuffle<T>(&mut self, values: &mut [T]) {
        for last in (1..values.len()).rev() {
            values.swap(last, self.below(last + 1));
        }
    }
}

impl Persist for Stream {
    fn save(&self, w: &mut StateWriter) {
        w.u64(self.seed);
        w.u32(self.role);
        w.u32(self.index);
        w.u64(self.counter);
    }

    fn load(&mut self, r: &mut StateReader<'_>) -> Result<(), StateError> {
        *self = Self { seed: r.u64()?, role: r.u32()?, index: r.u32()?, counter: r.u64()? };
        Ok(())
    }
}

/// One block of Philox4x32 with ten rounds.
#[inline]
fn philox4x32_10(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let a = u64::from(counter[0]) * 0xD251_1F53;
        let b = u64::from(counter[2]) * 0xCD9E_8D57;
        counter = [
            (b >> 32) as u32 ^ counter[1] ^ key[0],
            b as u32,
            (a >> 32) as u32 ^ counter[3] ^ key[1],
            a as u32,
        ];
        key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
    }
    counter
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn philox_gives_the_known_answers_of_random123() {
        let cases = [
            ([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
            ([u32::MAX; 4], [u32::MAX; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
            (
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ];
        for (counter, key, want) in cases {
            assert_eq!(philox4x32_10(counter, key), want);
        }
    }

    #[test]
    fn words_are_laid_out_as_documented() {
        // The third known answer, reached through the stream's own state.
        let mut stream = Stream {
            seed: 0x299f_31d0_a409_3822,
            role: 0x0370_7344,
            index: 0x1319_8a2e,
            counter: 0x85a3_08d3_243f_6a88,
        };
        assert_eq!(stream.next_u64(), 0x94fd_cceb_d16c_fe09);
        assert_eq!(stream.counter(), 0x85a3_08d3_243f_6a89);
    }

    #[test]
    fn every_part_of_the_name_matters() {
        let first = |seed, role, index| Stream::new(seed, role, index).next_u64();
        let base = first(1, role::ENV, 0);
        for other in [
            first(2, role::ENV, 0),
            first(1 << 32, role::ENV, 0),
            first(1, role::POLICY, 0),
            first(1, role::ENV, 1),
        ] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn uniform_covers_its_interval_evenly() {
        let mut stream = Stream::new(3, role::ENV, 0);
        let mut bins = [0u32; 8];
        for _ in 0..8000 {
            bins[(stream.uniform() * 8.0) as usize] += 1;
        }
        // Each bin is binomial with mean 1000 and deviation 29.6; 5 deviations are 148.
        assert!(bins.iter().all(|&n| n.abs_diff(1000) < 148), "{bins:?}");
        let x = stream.uniform_in(-0.05, 0.05);
        assert!((-0.05..0.05).contains(&x));
    }

    #[test]
    fn normal_has_the_right_moments_and_takes_two_draws() {
        let mut stream = Stream::new(3, role::POLICY, 0);
        let n = 80_000;
        let draws: Vec<f64> = (0..n).map(|_| stream.normal()).collect();
        assert_eq!(stream.counter(), 2 * n);
        let moment = |p: i32| draws.iter().map(|x| x.powi(p)).sum::<f64>() / n as f64;
        // Deviations of the estimates: 1/√n, √(2/n), √(15/n), √(96/n); 5 of each.
        assert!(moment(1).abs() < 0.018, "mean {}", moment(1));
        assert!((moment(2) - 1.0).abs() < 0.025, "variance {}", moment(2));
        assert!(moment(3).abs() < 0.068, "skew {}", moment(3));
        assert!((moment(4) - 3.0).abs() < 0.173, "kurtosis {}", moment(4));
    }

    #[test]
    fn below_is_unbiased_where_a_plain_multiplication_is_not() {
        // n = 3 · 2⁶²: without rejection, a third of the indices would be twice as likely: those
        // that are multiples of 3 (shares 1/2, 1/4, 1/4 instead of 1/3 each).
        let mut stream = Stream::new(11, role::SHUFFLE, 0);
        let mut shares = [0u32; 3];
        for _ in 0..3000 {
            let k = stream.below(3 << 62);
            assert!(k < 3 << 62);
            shares[k % 3] += 1;
        }
        // Binomial with mean 1000 and deviation 25.8.
        assert!(shares.iter().all(|&n| n.abs_diff(1000) < 130), "{shares:?}");
        assert_eq!((0..50).map(|_| stream.below(1)).sum::<usize>(), 0);
    }

    #[test]
    fn shuffle_makes_every_order_equally_likely() {
        let mut stream = Stream::new(5, role::SHUFFLE, 0);
        let mut counts = std::collections::BTreeMap::new();
        for _ in 0..6000 {
            let mut values = [0, 1, 2];
            stream.shuffle(&mut values);
            *counts.entry(values).or_insert(0u32) += 1;
        }
        assert_eq!(counts.len(), 6);
        // Mean 1000, deviation 28.9.
        assert!(counts.values().all(|&n| n.abs_diff(1000) < 145), "{counts:?}");
    }

    #[test]
    fn a_saved_stream_continues() {
        let mut stream = Stream::new(u64::MAX - 3, role::INIT, 9);
        stream.next_u64();
        let mut w = StateWriter::new();
        stream.save(&mut w);
        let bytes = w.into_bytes();
        let mut other = Stream::new(0, 0, 0);
        let mut r = StateReader::new(&bytes);
        other.load(&mut r).unwrap();
        r.finish().unwrap();
        assert_eq!(stream, other);
        assert_eq!(stream.next_u64(), other.next_u64());
    }
}
