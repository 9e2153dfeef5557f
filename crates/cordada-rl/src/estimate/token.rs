//! Responses of a language model as episodes of tokens: where one ends, and arrays over the tokens
//! of several.
//!
//! Such arrays are ragged: the tokens of all responses one after another, no padding, and a list of
//! lengths.

use cordada_env::Outcome;

/// How a response ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// Number of its tokens, the end token among them.
    pub length: usize,
    /// Whether it was cut: it has no end token.
    pub truncated: bool,
}

/// The part of sampled tokens up to and including the first end token, or all of them if there is
/// none.
///
/// # Shapes
///
/// `tokens`: `[L]`; `eos_ids`: the tokens that end a response, in any number.
pub fn completion(tokens: &[u32], eos_ids: &[u32]) -> Completion {
    match tokens.iter().position(|token| eos_ids.contains(token)) {
        Some(end) => Completion { length: end + 1, truncated: false },
        None => Completion { length: tokens.len(), truncated: true },
    }
}

/// As [`completion`], for padded rows: also writes which tokens belong to the response.
///
/// # Shapes
///
/// `tokens`, `mask`: `[L]`.
///
/// # Panics
///
/// If the lengths differ.
pub fn completion_mask(tokens: &[u32], eos_ids: &[u32], mask: &mut [bool]) -> Completion {
    assert_eq!(mask.len(), tokens.len(), "the mask has another length than the tokens");
    let completion = completion(tokens, eos_ids);
    for (t, keep) in mask.iter_mut().enumerate() {
        *keep = t < completion.length;
    }
    completion
}

fn check_lengths(lengths: &[usize], tokens: usize) {
    let total: usize = lengths.iter().sum();
    assert_eq!(total, tokens, "responses have {total} tokens, the array {tokens}");
}

/// Gives each token the value of its response: a reward that every token is credited with.
///
/// # Shapes
///
/// `values`, `lengths`: `[B]`; `out`: ragged `[Σ lengths]`.
///
/// # Panics
///
/// If the lengths do not agree.
pub fn per_token<T: Copy>(values: &[T], lengths: &[usize], out: &mut [T]) {
    assert_eq!(values.len(), lengths.len(), "as many values as responses are needed");
    check_lengths(lengths, out.len());
    let mut rest = out;
    for (&value, &length) in values.iter().zip(lengths) {
        let (response, after) = rest.split_at_mut(length);
        response.fill(value);
        rest = after;
    }
}

/// Outcomes that make ragged responses a [`Segment`](super::Segment) of one environment: every
/// response's last token is `Terminated`, so that its value is followed by 0.
///
/// A response cut at the longest length allowed terminates as well: it was scored as it stands, and
/// nothing follows.
///
/// # Shapes
///
/// `lengths`: `[B]`; `outcomes`: ragged `[Σ lengths]`.
///
/// # Panics
///
/// If the lengths do not agree.
///
/// # Examples
///
/// ```
/// use cordada_env::Outcome;
/// use cordada_rl::estimate::{Segment, gae, response_outcomes};
///
/// // Two responses, of two tokens and one.
/// let (rewards, values) = ([0.0, 1.0, 5.0], [0.5, 0.25, 4.0]);
/// let mut outcomes = [Outcome::Continue; 3];
/// response_outcomes(&[2, 1], &mut outcomes);
/// // No token is truncated, so `final_values` is never read.
/// let segment = Segment {
///     num_envs: 1,
///     rewards: &rewards,
///     values: &values,
///     outcomes: &outcomes,
///     final_values: &values,
///     last_values: &[0.0],
/// };
/// let (mut advantages, mut returns) = ([0.0; 3], [0.0; 3]);
/// gae(&segment, 1.0, 1.0, &mut advantages, &mut returns);
/// assert_eq!(advantages, [0.5, 0.75, 1.0]);
/// assert_eq!(returns, [1.0, 1.0, 5.0]);
/// ```
pub fn response_outcomes(lengths: &[usize], outcomes: &mut [Outcome]) {
    check_lengths(lengths, outcomes.len());
    outcomes.fill(Outcome::Continue);
    let mut end = 0;
    for &length in lengths {
        end += length;
        if length > 0 {
            outcomes[end - 1] = Outcome::Terminated;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_ends_with_its_end_token() {
        let cut = |length| Completion { length, truncated: true };
        let whole = |length| Completion { length, truncated: false };
        assert_eq!(completion(&[5, 1, 7, 1], &[1]), whole(2));
        assert_eq!(completion(&[5, 2, 7], &[1, 2]), whole(2));
        assert_eq!(completion(&[5, 6, 1], &[1]), whole(3));
        assert_eq!(completion(&[5, 6], &[1]), cut(2));
        assert_eq!(completion(&[], &[1]), cut(0));
        let mut mask = [false, true, true];
        assert_eq!(completion_mask(&[1, 5, 5], &[1], &mut mask), whole(1));
        assert_eq!(mask, [true, false, false]);
    }

    #[test]
    fn ragged_arrays_by_hand() {
        use Outcome::{Continue, Terminated};
        let lengths = [2, 0, 1];
        let mut values = [0.0; 3];
        per_token(&[7.0, 8.0, 9.0], &lengths, &mut values);
        assert_eq!(values, [7.0, 7.0, 9.0]);
        let mut outcomes = [Terminated; 3];
        response_outcomes(&lengths, &mut outcomes);
        assert_eq!(outcomes, [Continue, Terminated, Terminated]);
    }

    #[test]
    #[should_panic(expected = "responses have 3 tokens, the array 4")]
    fn refuses_lengths_that_do_not_agree() {
        per_token(&[1.0, 2.0], &[2, 1], &mut [0.0; 4]);
    }
}
