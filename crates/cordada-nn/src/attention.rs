//! Causal attention with grouped queries over ragged sequences: forward, vjp, and one step of
//! decoding from a cache.
//!
//! Scores are never stored: the forward pass leaves one log-sum-exp for each row and head, and the
//! backward pass computes scores again, 48 rows at a time. What a row computes depends only
//! on its own query and on the keys and values up to its position, in the order of positions; so
//! a token that is decoded from the cache has the same bits as in a pass over the whole sequence.

use std::ops::Range;

use crate::kernel::{Isa, LANES, Panels, Size, Start, View, kernel, matmul_tn_view, matmul_view};
use crate::mlp::grown;
use crate::{Real, lanes};

/// Queries whose scores are held at a time.
const ROWS: usize = 48;
/// A cache grows in steps of this many positions: whole panels on every processor.
const CACHE_STEP: usize = 64;

/// Attention of `heads` query heads, of which `heads / kv_heads` share a key and value head.
///
/// ```text
/// o_i = Σ_{j ≤ i} p_ij v_j,   p_i = softmax_j( q_i · k_j / √D )
/// ```
///
/// A row holds queries, keys and values of all heads behind each other: `[H·D | K·D | K·D]`.
///
/// # Source
///
/// Vaswani et al. 2017, arXiv:1706.03762, eq. (1); grouped queries: Ainslie et al. 2023,
/// arXiv:2305.13245; recomputation from the log-sum-exp: Dao et al. 2022, arXiv:2205.14135.
#[derive(Clone, Copy, Debug)]
pub struct Attention {
    isa: Isa,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
}

/// The rows of one segment of a batch: a sequence, or a continuation of an earlier segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its rows.
    pub rows: Range<usize>,
    /// Rows of the segment that it continues, and whose keys and values it sees.
    pub prefix: Range<usize>,
}

impl Span {
    fn positions(&self) -> usize {
        self.prefix.len() + self.rows.len()
    }
}

/// Working memory of [`Attention`]. It grows to the longest sequence seen.
#[derive(Clone, Debug)]
pub struct AttentionScratch<T> {
    /// Kᵀ `[D, N]`.
    keys: Panels<T>,
    /// V `[N, D]`.
    values: Panels<T>,
    /// K `[N, D]` and Vᵀ `[D, N]`, for the way back.
    keys_back: Panels<T>,
    values_back: Panels<T>,
    /// Rows of one head, gathered.
    gathered: Vec<T>,
    /// Scores, then probabilities: `[ROWS, N]`.
    scores: Vec<T>,
    /// Derivatives of the scores: `[ROWS, N]`.
    d_scores: Vec<T>,
    /// Derivatives of one head's keys and values: `[N, D]`.
    d_keys: Vec<T>,
    d_values: Vec<T>,
    /// 1 / Σ of each row of a block.
    inverse: Vec<T>,
}

/// Keys and values of one sequence in one layer.
#[derive(Clone, Debug)]
pub struct KvCache<T> {
    /// Of each head: Kᵀ `[D, capacity]` and V `[capacity, D]`.
    heads: Vec<(Panels<T>, Panels<T>)>,
    len: usize,
}

impl<T: Real> KvCache<T> {
    /// Positions that it holds.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Forgets all positions; the memory stays.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Becomes what another cache of the same shape and at most the same capacity holds.
    ///
    /// # Panics
    ///
    /// If the other one is larger or has other heads.
    pub fn copy_from(&mut self, other: &Self) {
        assert!(other.capacity() <= self.capacity(), "room for the other cache");
        for ((keys, values), (from_keys, from_values)) in self.heads.iter_mut().zip(&other.heads) {
            keys.copy_columns(from_keys, other.len);
            values.copy_rows(from_values, other.len);
        }
        self.len = other.len;
    }

    /// Positions that it has room for.
    pub fn capacity(&self) -> usize {
        self.heads.first().map_or(0, |(keys, _)| keys.shape().1)
    }
}

impl Attention {
    /// Attention for the fastest instruction set of this processor.
    ///
    /// # Panics
    ///
    /// If a size is 0 or the query heads are not a multiple of the others.
    pub fn new(heads: usize, kv_heads: usize, head_dim: usize) -> Self {
        assert!(heads > 0 && kv_heads > 0 && head_dim > 0, "attention is not empty");
        assert!(heads.is_multiple_of(kv_heads), "{heads} heads over {kv_heads} key heads");
        Self { isa: Isa::detect(), heads, kv_heads, head_dim }
    }

    /// Numbers of a row: queries, keys, values.
    pub fn row_width(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }

    /// Numbers of a row of the output.
    pub fn output_width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Working memory.
    pub fn scratch<T: Real>(&self) -> AttentionScratch<T> {
        let panels = || Panels::for_views(self.isa, 1, 1);
        AttentionScratch {
            keys: panels(),
            values: panels(),
            keys_back: panels(),
            values_back: panels(),
            gathered: Vec::new(),
            scores: Vec::new(),
            d_scores: Vec::new(),
            d_keys: Vec::new(),
            d_values: Vec::new(),
            inverse: Vec::new(),
        }
    }

    /// An empty cache with room for `capacity` positions.
    pub fn cache<T: Real>(&self, capacity: usize) -> KvCache<T> {
        let capacity = capacity.next_multiple_of(CACHE_STEP);
        let head = || {
            (
                Panels::for_views(self.isa, self.head_dim, capacity),
                Panels::for_views(self.isa, capacity, self.head_dim),
            )
        };
        KvCache { heads: (0..self.kv_heads).map(|_| head()).collect(), len: 0 }
    }

    /// Outputs of all rows, and the log-sum-exp of each row's scores, head by head.
    ///
    /// # Shapes
    ///
    /// `qkv`: `[rows, (H + 2 K) D]`; `out`: `[rows, H·D]`; `lse`: `[rows, H]`.
    ///
    /// # Panics
    ///
    /// If the lengths do not agree or a span lies outside.
    pub fn forward<T: Real>(
        &self,
        qkv: &[T],
        spans: &[Span],
        out: &mut [T],
        lse: &mut [T],
        scratch: &mut AttentionScratch<T>,
    ) {
        let (width, d) = (self.row_width(), self.head_dim);
        let s = scratch;
        for span in spans {
            let n = span.positions().next_multiple_of(LANES);
            for g in 0..self.kv_heads {
                let rows = self.gather(qkv, span, self.heads + g, n, &mut s.gathered);
                s.keys.resize(d, n);
                s.keys.pack_transposed(rows);
                let rows =
                    self.gather(qkv, span, self.heads + self.kv_heads + g, n, &mut s.gathered);
                s.values.resize(n, d);
                s.values.pack(rows);
                for h in self.queries_of(g) {
                    for block in blocks(span) {
                        let scores = grown(&mut s.scores, block.len() * n);
                        let inverse = grown(&mut s.inverse, block.len());
                        let first = span.prefix.len() + block.start - span.rows.start + 1;
                        let depth = first + block.len() - 1;
                        let q = &qkv[block.start * width + h * d..];
                        let size = Size { rows: block.len(), depth: d, columns: depth };
                        matmul_view(q, width, &s.keys, size, Start::Zero, scores, n);
                        let lse = &mut lse[block.start * self.heads + h..];
                        let size = Size { rows: block.len(), depth, columns: d };
                        let scale = self.scale();
                        softmax_block(
                            self.isa, scores, n, first, depth, scale, inverse, lse, self.heads,
                        );
                        let stride = self.output_width();
                        let out = &mut out[block.start * stride + h * d..];
                        matmul_view(scores, n, &s.values, size, Start::Zero, out, stride);
                        scale_rows(self.isa, out, stride, d, inverse);
                    }
                }
            }
        }
    }

    /// Gradients of the queries, keys and values: adds to `d_qkv`.
    ///
    /// # Shapes
    ///
    /// As [`Attention::forward`]; `d_out` as `out`, `d_qkv` as `qkv`.
    ///
    /// # Panics
    ///
    /// As [`Attention::forward`].
    #[allow(clippy::too_many_arguments, reason = "what forward got and left, and the gradients")]
    pub fn vjp<T: Real>(
        &self,
        qkv: &[T],
        spans: &[Span],
        (out, lse): (&[T], &[T]),
        d_out: &[T],
        d_qkv: &mut [T],
        scratch: &mut AttentionScratch<T>,
    ) {
        let d = self.head_dim;
        let s = scratch;
        for span in spans {
            let n = span.positions().next_multiple_of(LANES);
            for g in 0..self.kv_heads {
                let rows = self.gather(qkv, span, self.heads + g, n, &mut s.gathered);
                s.keys.resize(d, n);
                s.keys.pack_transposed(rows);
                s.keys_back.resize(n, d);
                s.keys_back.pack(rows);
                let rows =
                    self.gather(qkv, span, self.heads + self.kv_heads + g, n, &mut s.gathered);
                s.values_back.resize(d, n);
                s.values_back.pack_transposed(rows);
                for gradient in [&mut s.d_keys, &mut s.d_values] {
                    grown(gradient, n * d).fill(T::ZERO);
                }
                for h in self.queries_of(g) {
                    for block in blocks(span) {
                        self.block_vjp(qkv, span, h, block, (out, lse), d_out, d_qkv, s, n);
                    }
                }
                for (at, gradient) in
                    [(self.heads + g, &s.d_keys), (self.heads + self.kv_heads + g, &s.d_values)]
                {
                    let rows = span.prefix.clone().chain(span.rows.clone());
                    for (row, from) in rows.zip(gradient.chunks_exact(d)) {
                        let to = &mut d_qkv[row * self.row_width() + at * d..][..d];
                        for (to, &from) in to.iter_mut().zip(from) {
                            *to += from;
                        }
                    }
                }
            }
        }
    }

    #[allow(clippy::too_many_arguments, reason = "the inside of vjp's innermost loop")]
    fn block_vjp<T: Real>(
        &self,
        qkv: &[T],
        span: &Span,
        h: usize,
        block: Range<usize>,
        (out, lse): (&[T], &[T]),
        d_out: &[T],
        d_qkv: &mut [T],
        s: &mut AttentionScratch<T>,
        n: usize,
    ) {
        let (width, d, stride) = (self.row_width(), self.head_dim, self.output_width());
        let first = span.prefix.len() + block.start - span.rows.start + 1;
        let depth = first + block.len() - 1;
        let rows = block.len();
        let scores = grown(&mut s.scores, rows * n);
        let d_scores = grown(&mut s.d_scores, rows * n);
        let size = Size { rows, depth: d, columns: depth };
        let q = &qkv[block.start * width + h * d..(block.end - 1) * width + (h + 1) * d];
        matmul_view(q, width, &s.keys, size, Start::Zero, scores, n);
        let range = block.start * stride + h * d..(block.end - 1) * stride + (h + 1) * d;
        let (out, d_out) = (&out[range.clone()], &d_out[range]);
        matmul_view(d_out, stride, &s.values_back, size, Start::Zero, d_scores, n);
        let lse = &lse[block.start * self.heads + h..];
        scores_vjp(
            self.isa,
            (scores, d_scores),
            n,
            (first, depth),
            self.scale(),
            (lse, self.heads),
            (out, d_out, stride, d),
        );
        let size = Size { rows, depth, columns: d };
        let to = &mut d_qkv[block.start * width + h * d..];
        matmul_view(d_scores, n, &s.keys_back, size, Start::Old, to, width);
        let q = View { data: q, stride: width, width: d };
        let a = View { data: &d_scores[..rows * n], stride: n, width: depth };
        matmul_tn_view(self.isa, a, q, 0..depth, &mut s.d_keys[..depth * d]);
        let d_out = View { data: d_out, stride, width: d };
        let a = View { data: &scores[..rows * n], stride: n, width: depth };
        matmul_tn_view(self.isa, a, d_out, 0..depth, &mut s.d_values[..depth * d]);
    }

    /// Appends a row's keys and values to a cache.
    ///
    /// # Shapes
    ///
    /// `row`: `[(H + 2 K) D]`.
    ///
    /// # Panics
    ///
    /// If the cache is full.
    pub fn remember<T: Real>(&self, row: &[T], cache: &mut KvCache<T>) {
        let d = self.head_dim;
        let (keys, values) = row[self.heads * d..].split_at(self.kv_heads * d);
        for (g, (k, v)) in cache.heads.iter_mut().enumerate() {
            k.set_column(cache.len, &keys[g * d..][..d]);
            v.set_row(cache.len, &values[g * d..][..d]);
        }
        cache.len += 1;
    }

    /// Output of one row whose key and value are the last ones of the cache.
    ///
    /// # Shapes
    ///
    /// `row`: `[(H + 2 K) D]`; `out`: `[H·D]`.
    ///
    /// # Panics
    ///
    /// If the cache is empty or the lengths do not agree.
    pub fn decode<T: Real>(
        &self,
        row: &[T],
        cache: &KvCache<T>,
        out: &mut [T],
        scratch: &mut AttentionScratch<T>,
    ) {
        assert!(!cache.is_empty(), "the cache holds the row itself");
        let d = self.head_dim;
        let group = self.heads / self.kv_heads;
        let n = cache.capacity();
        let scores = grown(&mut scratch.scores, group * n);
        let inverse = grown(&mut scratch.inverse, group);
        let lse = grown(&mut scratch.d_scores, group);
        for (g, (keys, values)) in cache.heads.iter().enumerate() {
            let size = Size { rows: group, depth: d, columns: cache.len };
            matmul_view(&row[g * group * d..], d, keys, size, Start::Zero, scores, n);
            softmax_rows(self.isa, scores, n, cache.len, self.scale(), inverse, lse);
            let size = Size { rows: group, depth: cache.len, columns: d };
            let out = &mut out[g * group * d..(g + 1) * group * d];
            matmul_view(scores, n, values, size, Start::Zero, out, d);
            scale_rows(self.isa, out, d, d, inverse);
        }
    }

    /// 1 / √D.
    fn scale<T: Real>(&self) -> T {
        T::ONE / T::of(self.head_dim as f64).sqrt()
    }

    /// The query heads that share a key head.
    fn queries_of(&self, kv_head: usize) -> Range<usize> {
        let group = self.heads / self.kv_heads;
        kv_head * group..(kv_head + 1) * group
    }

    /// One head's numbers of all rows that a span sees, in the order of positions, filled up with
    /// zeros to `n` rows.
    fn gather<'g, T: Real>(
        &self,
        qkv: &[T],
        span: &Span,
        head: usize,
        n: usize,
        gathered: &'g mut Vec<T>,
    ) -> &'g [T] {
        let d = self.head_dim;
        let gathered = grown(gathered, n * d);
        let rows = span.prefix.clone().chain(span.rows.clone());
        for (to, row) in gathered.chunks_exact_mut(d).zip(rows) {
            to.copy_from_slice(&qkv[row * self.row_width() + head * d..][..d]);
        }
        gathered[span.positions() * d..].fill(T::ZERO);
        gathered
    }
}

/// The rows of a span, [`ROWS`] at a time.
fn blocks(span: &Span) -> impl Iterator<Item = Range<usize>> {
    let end = span.rows.end;
    span.rows.clone().step_by(ROWS).map(move |from| from..(from + ROWS).min(end))
}

/// e^(scale (z − max z)) in place; returns the maximum and the sum.
#[inline(always)]
fn exponentials<T: Real>(z: &mut [T], scale: T) -> (T, T) {
    let max = lanes::max(z, T::NEG_INFINITY, |z| z);
    for z in z.iter_mut() {
        *z = ((*z - max) * scale).exp();
    }
    (max, lanes::sum(z, |acc, p| acc + p))
}

kernel! {
    /// Softmax without its denominator of rows that see one position more each: row i sees
    /// `first + i`, and holds 0 from there to `depth`.
    fn softmax_block<T: Real>(
        scores: &mut [T],
        stride: usize,
        first: usize,
        depth: usize,
        scale: T,
        inverse: &mut [T],
        lse: &mut [T],
        lse_stride: usize,
    ) {
        for (i, (row, inverse)) in scores.chunks_exact_mut(stride).zip(inverse).enumerate() {
            let (seen, unseen) = row[..depth].split_at_mut(first + i);
            let (max, sum) = exponentials(seen, scale);
            unseen.fill(T::ZERO);
            *inverse = T::ONE / sum;
            lse[i * lse_stride] = scale.mul_add(max, sum.ln());
        }
    }
}

kernel! {
    /// As `softmax_block` for rows that all see the same.
    fn softmax_rows<T: Real>(
        scores: &mut [T],
        stride: usize,
        seen: usize,
        scale: T,
        inverse: &mut [T],
        lse: &mut [T],
    ) {
        let outputs = inverse.iter_mut().zip(lse);
        for (row, (inverse, lse)) in scores.chunks_exact_mut(stride).zip(outputs) {
            let (max, sum) = exponentials(&mut row[..seen], scale);
            *inverse = T::ONE / sum;
            *lse = scale.mul_add(max, sum.ln());
        }
    }
}

kernel! {
    /// Multiplies each row by its factor.
    fn scale_rows<T: Real>(x: &mut [T], stride: usize, width: usize, factors: &[T]) {
        for (row, &factor) in x.chunks_mut(stride).zip(factors) {
            for x in &mut row[..width] {
                *x *= factor;
            }
        }
    }
}

kernel! {
    /// From scores z and dp = dO Vᵀ to probabilities p = e^(z / √D − lse) and
    /// dz = p (dp − Σ o dO) / √D, both 0 where nothing is seen.
    fn scores_vjp<T: Real>(
        scores: (&mut [T], &mut [T]),
        stride: usize,
        seen: (usize, usize),
        scale: T,
        lse: (&[T], usize),
        outputs: (&[T], &[T], usize, usize),
    ) {
        let ((scores, d_scores), (first, depth)) = (scores, seen);
        let ((lse, lse_stride), (out, d_out, out_stride, d)) = (lse, outputs);
        let rows = scores.chunks_exact_mut(stride).zip(d_scores.chunks_exact_mut(stride));
        let outs = out.chunks(out_stride).zip(d_out.chunks(out_stride));
        for (i, ((p, dz), (o, d_o))) in rows.zip(outs).enumerate() {
            let lse = lse[i * lse_stride];
            let delta = lanes::sum2(&o[..d], &d_o[..d], |acc, o, g| o.mul_add(g, acc));
            let (p, p_unseen) = p[..depth].split_at_mut(first + i);
            let (dz, dz_unseen) = dz[..depth].split_at_mut(first + i);
            for (p, dz) in p.iter_mut().zip(dz) {
                *p = p.mul_add(scale, -lse).exp();
                *dz = *p * (*dz - delta) * scale;
            }
            p_unseen.fill(T::ZERO);
            dz_unseen.fill(T::ZERO);
        }
    }
}

#[cfg(test)]
mod tests;
