//! Ragged batches: prompts with their completions, and how they become rows of a forward pass.
//!
//! Nothing is padded. A prompt that several completions share is computed once: each completion is
//! a continuation that sees the prompt's keys and values.

use std::ops::Range;

use cordada_nn::attention::Span;

/// A prompt and what followed it, once or several times.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// The state that the first action was taken in: at least one token.
    pub prompt: Vec<u32>,
    /// The actions of each completion.
    pub completions: Vec<Vec<u32>>,
    /// Which tokens of each completion are scored; empty: all of all. Others are only read.
    pub scored: Vec<Vec<bool>>,
}

impl Group {
    /// A prompt with completions of which every token is scored.
    pub fn new(prompt: Vec<u32>, completions: Vec<Vec<u32>>) -> Self {
        Self { prompt, completions, scored: Vec::new() }
    }

    /// Rows of a forward pass over it.
    pub fn num_rows(&self) -> usize {
        self.prompt.len() + (0..self.completions.len()).map(|i| self.inputs(i)).sum::<usize>()
    }

    /// Number of tokens that are scored.
    pub fn num_targets(&self) -> usize {
        (0..self.completions.len()).map(|i| self.targets(i).count()).sum()
    }

    /// Places of completion i's scored tokens.
    fn targets(&self, i: usize) -> impl Iterator<Item = usize> {
        let mask = self.scored.get(i);
        (0..self.completions[i].len()).filter(move |&t| mask.is_none_or(|m| m[t]))
    }

    /// Tokens of completion i that are read: those before its last scored one.
    fn inputs(&self, i: usize) -> usize {
        self.targets(i).last().unwrap_or(0)
    }
}

/// The rows of a part of a batch.
#[derive(Clone, Debug, Default)]
#[allow(clippy::struct_field_names, reason = "rows of targets are not rows of this")]
pub(crate) struct Rows {
    /// Token of each row.
    pub(crate) tokens: Vec<u32>,
    /// Position of each row in its sequence.
    pub(crate) positions: Vec<u32>,
    /// Which rows belong together.
    pub(crate) spans: Vec<Span>,
    /// Row that predicts each target.
    pub(crate) target_rows: Vec<u32>,
    /// Targets.
    pub(crate) target_tokens: Vec<u32>,
    /// Targets of each completion.
    pub(crate) completions: Vec<Range<usize>>,
}

impl Rows {
    pub(crate) fn clear(&mut self) {
        self.tokens.clear();
        self.positions.clear();
        self.spans.clear();
        self.target_rows.clear();
        self.target_tokens.clear();
        self.completions.clear();
    }

    pub(crate) fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Appends a segment; returns its rows.
    pub(crate) fn segment(&mut self, tokens: &[u32], prefix: Range<usize>) -> Range<usize> {
        let rows = self.len()..self.len() + tokens.len();
        let first = prefix.len() as u32;
        self.tokens.extend_from_slice(tokens);
        self.positions.extend(first..first + tokens.len() as u32);
        self.spans.push(Span { rows: rows.clone(), prefix });
        rows
    }

    /// Appends a group.
    ///
    /// # Panics
    ///
    /// If its prompt is empty or a mask is shorter than its completion.
    pub(crate) fn group(&mut self, group: &Group) {
        assert!(!group.prompt.is_empty(), "a prompt has at least one token");
        let single = group.completions.len() == 1;
        // A single completion continues the prompt's own segment.
        let prompt = if single {
            let inputs = group.inputs(0);
            let mut tokens = group.prompt.clone();
            tokens.extend_from_slice(&group.completions[0][..inputs]);
            let rows = self.segment(&tokens, 0..0);
            rows.start..rows.start + group.prompt.len()
        } else {
            self.segment(&group.prompt, 0..0)
        };
        for (i, completion) in group.completions.iter().enumerate() {
            let first = if single {
                prompt.end
            } else {
                match group.inputs(i) {
                    0 => self.len(),
                    inputs => self.segment(&completion[..inputs], prompt.clone()).start,
                }
            };
            let start = self.target_tokens.len();
            for t in group.targets(i) {
                // The row before: the prompt's last one predicts the first token.
                let row = if t == 0 { prompt.end - 1 } else { first + t - 1 };
                self.target_rows.push(row as u32);
                self.target_tokens.push(completion[t]);
            }
            self.completions.push(start..self.target_tokens.len());
        }
    }
}

/// Splits groups into parts of about `rows` rows, in order; a group is never split.
pub(crate) fn split(groups: &[Group], rows: usize) -> Vec<Range<usize>> {
    let mut parts: Vec<Range<usize>> = Vec::new();
    let mut filled = rows;
    for (i, group) in groups.iter().enumerate() {
        let n = group.num_rows();
        match parts.last_mut() {
            Some(part) if filled + n <= rows => {
                part.end = i + 1;
                filled += n;
            }
            _ => {
                parts.push(i..i + 1);
                filled = n;
            }
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_prompt_is_there_once() {
        let mut rows = Rows::default();
        rows.group(&Group::new(vec![5, 6], vec![vec![7, 8, 9], vec![1], vec![2, 3]]));
        assert_eq!(rows.tokens, [5, 6, 7, 8, 2]);
        assert_eq!(rows.positions, [0, 1, 2, 3, 2]);
        assert_eq!(
            rows.spans,
            [
                Span { rows: 0..2, prefix: 0..0 },
                Span { rows: 2..4, prefix: 0..2 },
                Span { rows: 4..5, prefix: 0..2 }
            ]
        );
        assert_eq!(rows.target_tokens, [7, 8, 9, 1, 2, 3]);
        assert_eq!(rows.target_rows, [1, 2, 3, 1, 1, 4]);
        assert_eq!(rows.completions, [0..3, 3..4, 4..6]);
    }

    #[test]
    fn a_mask_cuts_what_nobody_needs() {
        let mut rows = Rows::default();
        let group = Group {
            prompt: vec![5],
            completions: vec![vec![6, 7, 8, 9]],
            scored: vec![vec![false, true, true, false]],
        };
        assert_eq!((group.num_rows(), group.num_targets()), (3, 2));
        rows.group(&group);
        assert_eq!(rows.tokens, [5, 6, 7]);
        assert_eq!(rows.spans, [Span { rows: 0..3, prefix: 0..0 }]);
        assert_eq!((&rows.target_tokens[..], &rows.target_rows[..]), (&[7, 8][..], &[1, 2][..]));
    }

    #[test]
    fn parts_hold_whole_groups() {
        let group = |n: usize| Group::new(vec![0; n], vec![vec![1]]);
        let groups = [group(3), group(4), group(4), group(9), group(1)];
        assert_eq!(split(&groups, 8), [0..2, 2..3, 3..4, 4..5]);
        assert_eq!(split(&groups, 100), vec![Range { start: 0, end: 5 }]);
        assert!(split(&[], 8).is_empty());
    }
}
