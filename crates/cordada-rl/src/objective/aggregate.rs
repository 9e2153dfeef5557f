//! How the terms of many tokens become one number: the weight of each token.

use cordada_nn::Real;

/// Counts over the *whole* batch of one gradient step, of which a micro-batch is a part.
///
/// With the counts of a micro-batch instead, the sum over micro-batches would depend on how the
/// batch was divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchCounts {
    /// Responses, those without tokens among them.
    pub num_responses: usize,
    /// Tokens of responses; neither prompts nor padding.
    pub num_tokens: usize,
}

impl BatchCounts {
    /// Of responses with these numbers of tokens.
    pub fn of(lengths: impl IntoIterator<Item = usize>) -> Self {
        let zero = Self { num_responses: 0, num_tokens: 0 };
        lengths.into_iter().fold(zero, |counts, length| Self {
            num_responses: counts.num_responses + 1,
            num_tokens: counts.num_tokens + length,
        })
    }
}

/// How an objective of single tokens is averaged.
///
/// Within one response all tokens weigh the same. The weight multiplies both the objective and ψ of
/// a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aggregation {
    /// Mean over all tokens of the batch: PPO, DAPO, supervised fine-tuning. Every token counts
    /// alike, so a long response counts more.
    TokenMean,
    /// Mean over responses of the mean over tokens: GRPO. The tokens of a long response count
    /// less, so a long wrong one costs little.
    SequenceMean,
    /// Mean over responses of the sum over tokens: REINFORCE and RLOO, whose log-probability is
    /// that of the whole response.
    SequenceSum,
    /// Sum over tokens / (responses · `max_length`): Dr. GRPO. As [`Self::SequenceSum`] with
    /// another learning rate.
    Constant {
        /// Longest length of a response that is allowed.
        max_length: usize,
    },
}

impl Aggregation {
    /// Weight of each token of a response of `length` tokens.
    ///
    /// ```text
    /// 1 / num_tokens                       TokenMean
    /// 1 / (num_responses · length)         SequenceMean
    /// 1 / num_responses                    SequenceSum
    /// 1 / (num_responses · max_length)     Constant
    /// ```
    ///
    /// 0 where that would divide by 0: nothing is there to be weighted. A response without tokens
    /// adds nothing and yet counts in `num_responses`.
    ///
    /// # Source
    ///
    /// Shao et al. 2024, arXiv:2402.03300, eq. (3) (SequenceMean); Yu et al. 2025,
    /// arXiv:2503.14476, section 3.3 (TokenMean); Liu et al. 2025, arXiv:2503.20783 (Constant).
    pub fn token_weight<F: Real>(self, counts: BatchCounts, length: usize) -> F {
        let total = match self {
            Self::TokenMean => counts.num_tokens,
            Self::SequenceMean => counts.num_responses * length,
            Self::SequenceSum => counts.num_responses,
            Self::Constant { max_length } => counts.num_responses * max_length,
        };
        if total == 0 { F::ZERO } else { F::of(1.0 / total as f64) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_by_hand() {
        let lengths = [2, 6, 0];
        let counts = BatchCounts::of(lengths);
        assert_eq!(counts, BatchCounts { num_responses: 3, num_tokens: 8 });
        let of = |aggregation: Aggregation| -> [f64; 3] {
            lengths.map(|length| aggregation.token_weight(counts, length))
        };
        assert_eq!(of(Aggregation::TokenMean), [0.125; 3]);
        assert_eq!(of(Aggregation::SequenceMean), [1.0 / 6.0, 1.0 / 18.0, 0.0]);
        assert_eq!(of(Aggregation::SequenceSum), [1.0 / 3.0; 3]);
        assert_eq!(of(Aggregation::Constant { max_length: 8 }), [1.0 / 24.0; 3]);
        let none = BatchCounts::of([]);
        assert_eq!(Aggregation::TokenMean.token_weight::<f64>(none, 0), 0.0);
    }

    #[test]
    fn micro_batches_add_up_to_the_batch() {
        // Terms 1, 2, 3, …; the second micro-batch holds the responses of one and of four tokens.
        let lengths = [3, 1, 4];
        let counts = BatchCounts::of(lengths);
        let sum = |lengths: &[usize], mut term: f64, aggregation: Aggregation| {
            let mut sum = 0.0;
            for &length in lengths {
                for _ in 0..length {
                    sum += aggregation.token_weight::<f64>(counts, length) * term;
                    term += 1.0;
                }
            }
            sum
        };
        // 36 / 8; (2 + 4 + 6½) / 3; 36 / 3; 36 / 30.
        let cases = [
            (Aggregation::TokenMean, 4.5),
            (Aggregation::SequenceMean, 12.5 / 3.0),
            (Aggregation::SequenceSum, 12.0),
            (Aggregation::Constant { max_length: 10 }, 1.2),
        ];
        for (aggregation, want) in cases {
            let got = sum(&lengths[..1], 1.0, aggregation) + sum(&lengths[1..], 4.0, aggregation);
            assert!((got - want).abs() < 1e-14, "{aggregation:?}: {got}, expected {want}");
        }
    }
}
