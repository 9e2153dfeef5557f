//! What the golden tests of token losses share: the data is padded, our arrays are ragged.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use cordada_rl::estimate::kl::KlEstimator;
use cordada_rl::estimate::{per_token, token_rewards};
use cordada_rl::objective::{Aggregation, BatchCounts, kl_loss};
use cordada_testkit::golden::Case;

/// The tokens of a padded array that belong to responses; each row's come first.
pub(crate) struct Rows {
    /// Tokens of a row, padding among them.
    pub(crate) width: usize,
    /// Tokens of each response.
    pub(crate) lengths: Vec<usize>,
    /// Padded: whether a token belongs to a response.
    pub(crate) mask: Vec<bool>,
}

impl Rows {
    pub(crate) fn of(case: &Case) -> Self {
        let tensor = case.tensor("input/mask");
        let (width, mask) = (tensor.shape[1], tensor.flags());
        let lengths = mask.chunks_exact(width).map(|row| {
            let length = row.iter().filter(|&&keep| keep).count();
            assert!(row[..length].iter().all(|&keep| keep), "{}: a gap in a mask", case.name);
            length
        });
        Self { width, lengths: lengths.collect(), mask: mask.clone() }
    }

    pub(crate) fn counts(&self) -> BatchCounts {
        BatchCounts::of(self.lengths.iter().copied())
    }

    /// Ragged, from the padded tensor `input/<name>`.
    pub(crate) fn pack(&self, case: &Case, name: &str) -> Vec<f64> {
        let padded = &case.tensor(&format!("input/{name}")).data;
        padded.iter().zip(&self.mask).filter(|&(_, &keep)| keep).map(|(&x, _)| x).collect()
    }

    /// Padded with 0, from ragged.
    pub(crate) fn pad(&self, ragged: &[f64]) -> Vec<f64> {
        let mut rest = ragged.iter();
        let padded: Vec<f64> = self
            .mask
            .iter()
            .map(|&keep| if keep { *rest.next().expect("as many as tokens") } else { 0.0 })
            .collect();
        assert!(rest.next().is_none(), "more values than tokens");
        padded
    }

    pub(crate) fn check(&self, case: &Case, key: &str, ragged: &[f64]) {
        case.check(key, &self.pad(ragged));
    }

    /// The range of each response in a ragged array.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = std::ops::Range<usize>> + '_ {
        self.lengths.iter().scan(0, |end, &length| {
            *end += length;
            Some(*end - length..*end)
        })
    }

    pub(crate) fn spread(&self, per_response: &[f64]) -> Vec<f64> {
        let mut tokens = vec![0.0; self.counts().num_tokens];
        per_token(per_response, &self.lengths, &mut tokens);
        tokens
    }

    /// The weight of each token.
    pub(crate) fn weights(&self, aggregation: Aggregation) -> Vec<f64> {
        let counts = self.counts();
        let weights: Vec<f64> =
            self.lengths.iter().map(|&length| aggregation.token_weight(counts, length)).collect();
        self.spread(&weights)
    }

    /// Rewards of all tokens from estimates of the KL divergence and a score a response.
    pub(crate) fn rewards(&self, kl: &[f64], beta: f64, scores: &[f64]) -> Vec<f64> {
        let mut rewards = vec![0.0; kl.len()];
        for (range, &score) in self.ranges().zip(scores) {
            token_rewards(&kl[range.clone()], beta, score, &mut rewards[range]);
        }
        rewards
    }
}

/// Estimates of KL(π ‖ π_ref) at each token.
pub(crate) fn estimates(kind: KlEstimator, log_prob: &[f64], ref_log_prob: &[f64]) -> Vec<f64> {
    log_prob.iter().zip(ref_log_prob).map(|(&p, &r)| kl_loss(kind, p, r).kl).collect()
}

/// The arithmetic mean.
pub(crate) fn mean(xs: impl ExactSizeIterator<Item = f64>) -> f64 {
    let len = xs.len() as f64;
    xs.sum::<f64>() / len
}
