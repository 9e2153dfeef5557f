//! Changes to the logits of one choice before it is sampled, as language models are sampled with:
//! repetition penalty, temperature, top-k, top-p and min-p, in this order.
//!
//! A removed entry becomes −∞: [`Categorical`](super::Categorical) then never samples it, gives the
//! rest the probabilities of a softmax over the rest, and a gradient of 0 to it. Training on the
//! same support with the same temperature has the log-probabilities that sampling had.
//!
//! The order is that of the `transformers` library. Its ties differ: there, entries equal to the
//! k-th are all kept by top-k, and top-p leaves open which of equals goes. Here, of equal entries
//! the one of the lower index is the larger one, everywhere: the result depends on the logits
//! alone, and top-k with k = 1 is the mode.

use std::cmp::Ordering;

use cordada_nn::Real;

/// Memory that [`LogitFilter::apply`] uses; it grows to the vocabulary's size once.
#[derive(Clone, Debug, Default)]
pub struct FilterScratch {
    order: Vec<u32>,
}

/// Which filters are applied, and how strongly. The default, [`LogitFilter::NONE`], changes nothing.
///
/// # Examples
///
/// ```
/// use cordada_rl::distribution::{FilterScratch, LogitFilter};
///
/// let filter = LogitFilter { temperature: 0.5, top_k: 2, ..LogitFilter::NONE };
/// let mut logits = [1.0_f32, 3.0, 2.0];
/// filter.apply(&mut logits, &[], &mut FilterScratch::default());
/// assert_eq!(logits, [f32::NEG_INFINITY, 6.0, 4.0]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LogitFilter {
    /// Logits are divided by it; > 0, 1 changes nothing. Reinforcement learning needs the same one
    /// in sampling, in training and for the reference model.
    pub temperature: f64,
    /// Only the k largest logits stay; 0 keeps all.
    pub top_k: usize,
    /// Only the smallest set of the most probable entries stays whose probability reaches p, one at
    /// least; in (0, 1], 1 keeps all.
    pub top_p: f64,
    /// Only entries stay that are at least p times as probable as the most probable one; in [0, 1],
    /// 0 keeps all.
    pub min_p: f64,
    /// Logits of tokens that were there before are divided by it if positive, multiplied if
    /// negative; > 0, 1 changes nothing.
    pub repetition_penalty: f64,
}

impl Default for LogitFilter {
    fn default() -> Self {
        Self::NONE
    }
}

impl LogitFilter {
    /// Changes nothing.
    pub const NONE: Self =
        Self { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, repetition_penalty: 1.0 };

    /// Applies repetition penalty, temperature, top-k, top-p and min-p, in this order. Each later
    /// one sees what the earlier ones left.
    ///
    /// A filter that is off does no arithmetic: [`LogitFilter::NONE`] keeps every bit.
    ///
    /// # Shapes
    ///
    /// `logits`: `[V]`; `previous`: tokens of prompt and response so far, in any order and number.
    ///
    /// # Panics
    ///
    /// If a setting is outside its range, a previous token is no index of `logits`, or there are
    /// no logits.
    ///
    /// # Source
    ///
    /// Repetition penalty: Keskar et al. 2019, arXiv:1909.05858, section 4.1, with the treatment of
    /// negative logits that is usual now; top-k: Fan et al. 2018, arXiv:1805.04833, section 5.4;
    /// top-p: Holtzman et al. 2019, arXiv:1904.09751, section 3.1; min-p: Nguyen et al. 2024,
    /// arXiv:2407.01082.
    pub fn apply<F: Real>(&self, logits: &mut [F], previous: &[u32], scratch: &mut FilterScratch) {
        self.check();
        assert!(!logits.is_empty(), "a choice needs an entry");
        if self.repetition_penalty != 1.0 {
            penalize(logits, previous, F::of(self.repetition_penalty), &mut scratch.order);
        }
        if self.temperature != 1.0 {
            let temperature = F::of(self.temperature);
            for logit in &mut *logits {
                *logit /= temperature;
            }
        }
        if self.top_k != 0 && self.top_k < logits.len() {
            keep_top_k(logits, self.top_k, &mut scratch.order);
        }
        if self.top_p < 1.0 {
            keep_top_p(logits, self.top_p, &mut scratch.order);
        }
        if self.min_p > 0.0 {
            keep_min_p(logits, self.min_p);
        }
    }

    fn check(&self) {
        let Self { temperature, top_p, min_p, repetition_penalty, .. } = *self;
        assert!(temperature > 0.0, "temperature = {temperature} is not positive");
        assert!(top_p > 0.0 && top_p <= 1.0, "top_p = {top_p} is not in (0, 1]");
        assert!((0.0..=1.0).contains(&min_p), "min_p = {min_p} is not in [0, 1]");
        assert!(
            repetition_penalty > 0.0,
            "repetition_penalty = {repetition_penalty} is not positive"
        );
    }
}

fn penalize<F: Real>(logits: &mut [F], previous: &[u32], penalty: F, order: &mut Vec<u32>) {
    // Once for each token, however often it occurred.
    order.clear();
    order.extend_from_slice(previous);
    order.sort_unstable();
    order.dedup();
    for &token in &*order {
        let logit = &mut logits[token as usize];
        *logit = if *logit < F::ZERO { *logit * penalty } else { *logit / penalty };
    }
}

/// Larger logits first, of equal ones the lower index. A NaN counts as the largest, so that it is
/// kept and seen.
#[inline(always)]
fn larger_first<F: Real>(logits: &[F]) -> impl Fn(&u32, &u32) -> Ordering + Copy + '_ {
    // Adding 0 makes −0 equal to 0, which the total order tells apart.
    let key = |i: u32| logits[i as usize].f64() + 0.0;
    move |&a, &b| key(b).total_cmp(&key(a)).then(a.cmp(&b))
}

fn all_indices(len: usize, order: &mut Vec<u32>) {
    order.clear();
    order.extend(0..len as u32);
}

fn keep_top_k<F: Real>(logits: &mut [F], k: usize, order: &mut Vec<u32>) {
    all_indices(logits.len(), order);
    order.select_nth_unstable_by(k - 1, larger_first(logits));
    for &removed in &order[k..] {
        logits[removed as usize] = F::NEG_INFINITY;
    }
}

/// How many of the largest are sorted at first; more are only where these do not reach p.
const FIRST_BLOCK: usize = 64;

fn keep_top_p<F: Real>(logits: &mut [F], p: f64, order: &mut Vec<u32>) {
    let max = largest(logits);
    let weight = |logit: F| (logit - max).exp().f64();
    let threshold = p * logits.iter().map(|&logit| weight(logit)).sum::<f64>();
    all_indices(logits.len(), order);
    let compare = larger_first(logits);
    let (mut kept, mut sorted, mut sum) = (0, 0, 0.0);
    // Sorting a whole vocabulary would cost more than all the rest: blocks of growing size, the
    // next one only if needed. The order within them is total, so blocks change no result.
    while kept < order.len() && (kept == 0 || sum < threshold) {
        if kept == sorted {
            let size = sorted.max(FIRST_BLOCK).min(order.len() - sorted);
            let rest = &mut order[sorted..];
            if size < rest.len() {
                rest.select_nth_unstable_by(size - 1, compare);
            }
            rest[..size].sort_unstable_by(compare);
            sorted += size;
        }
        sum += weight(logits[order[kept] as usize]);
        kept += 1;
    }
    for &removed in &order[kept..] {
        logits[removed as usize] = F::NEG_INFINITY;
    }
}

fn keep_min_p<F: Real>(logits: &mut [F], min_p: f64) {
    let max = largest(logits);
    let min_p = F::of(min_p);
    for logit in logits {
        if (*logit - max).exp() < min_p {
            *logit = F::NEG_INFINITY;
        }
    }
}

fn largest<F: Real>(logits: &[F]) -> F {
    logits.iter().fold(F::NEG_INFINITY, |max, &logit| max.max(logit))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: f64 = f64::NEG_INFINITY;

    fn filtered(filter: LogitFilter, logits: &[f64], previous: &[u32]) -> Vec<f64> {
        let mut logits = logits.to_vec();
        filter.apply(&mut logits, previous, &mut FilterScratch::default());
        logits
    }

    fn top_k(top_k: usize, logits: &[f64]) -> Vec<f64> {
        filtered(LogitFilter { top_k, ..LogitFilter::NONE }, logits, &[])
    }

    fn top_p(top_p: f64, logits: &[f64]) -> Vec<f64> {
        filtered(LogitFilter { top_p, ..LogitFilter::NONE }, logits, &[])
    }

    #[test]
    fn filters_by_hand() {
        let logits = [1.0, -2.0, 4.0];
        assert_eq!(filtered(LogitFilter::NONE, &logits, &[0, 1, 2]), logits);
        let cold = LogitFilter { temperature: 0.5, ..LogitFilter::NONE };
        assert_eq!(filtered(cold, &logits, &[]), [2.0, -4.0, 8.0]);
        let fresh = LogitFilter { repetition_penalty: 2.0, ..LogitFilter::NONE };
        assert_eq!(filtered(fresh, &logits, &[2, 1, 2, 2]), [1.0, -4.0, 2.0]);
        assert_eq!(top_k(2, &logits), [1.0, NONE, 4.0]);
        assert_eq!(top_k(9, &logits), logits);
    }

    #[test]
    fn probable_sets_by_hand() {
        // Probabilities 0.1, 0.5, 0.15, 0.25.
        let logits = [1.0, 5.0, 1.5, 2.5].map(f64::ln);
        let kept = |logits: &[f64]| logits.iter().map(|&l| l != NONE).collect::<Vec<_>>();
        assert_eq!(kept(&top_p(0.49, &logits)), [false, true, false, false]);
        assert_eq!(kept(&top_p(0.51, &logits)), [false, true, false, true]);
        assert_eq!(kept(&top_p(0.74, &logits)), [false, true, false, true]);
        assert_eq!(kept(&top_p(0.76, &logits)), [false, true, true, true]);
        assert_eq!(kept(&top_p(1e-9, &logits)), [false, true, false, false]);
        let relative = |min_p| filtered(LogitFilter { min_p, ..LogitFilter::NONE }, &logits, &[]);
        assert_eq!(kept(&relative(0.21)), [false, true, true, true]);
        assert_eq!(kept(&relative(0.31)), [false, true, false, true]);
        assert_eq!(kept(&relative(1.0)), [false, true, false, false]);
    }

    #[test]
    fn of_equals_the_first_stays() {
        assert_eq!(top_k(2, &[1.0; 4]), [1.0, 1.0, NONE, NONE]);
        assert_eq!(top_k(1, &[0.0, 1.0, 1.0]), [NONE, 1.0, NONE]);
        assert_eq!(top_k(1, &[-0.0, 0.0]), [0.0, NONE]);
        assert_eq!(top_p(0.5, &[1.0; 4]), [1.0, 1.0, NONE, NONE]);
        assert_eq!(top_p(0.1, &[1.0; 4]), [1.0, NONE, NONE, NONE]);
        // Equal to the most probable one means as probable: none goes.
        let all = LogitFilter { min_p: 1.0, ..LogitFilter::NONE };
        assert_eq!(filtered(all, &[1.0; 4], &[]), [1.0; 4]);
    }

    #[test]
    fn each_filter_sees_what_the_earlier_left() {
        // Probabilities 0.4, 0.3, 0.2, 0.1. After top-k 2 they are 4/7, 3/7: top-p 0.5 keeps one,
        // where it alone would keep two.
        let logits = [4.0, 3.0, 2.0, 1.0].map(f64::ln);
        let both = LogitFilter { top_k: 2, top_p: 0.5, ..LogitFilter::NONE };
        assert_eq!(filtered(both, &logits, &[]), [logits[0], NONE, NONE, NONE]);
        assert_eq!(top_p(0.5, &logits), [logits[0], logits[1], NONE, NONE]);
        // The penalty comes before the temperature, which comes before top-p: 4, 3 become 2, 3 and
        // then 2², 3² of 18 with the others' 2², 1.
        let halved = LogitFilter {
            repetition_penalty: 2.0,
            temperature: 0.5,
            top_p: 0.45,
            ..LogitFilter::NONE
        };
        let got = filtered(halved, &logits, &[0]);
        assert_eq!(got, [NONE, 2.0 * logits[1], NONE, NONE]);
    }

    #[test]
    fn blocks_change_no_result() {
        // 3000 entries in a scrambled order, some equal; the smallest set found by a whole sort.
        let logits: Vec<f64> = (0..3000_u32).map(|i| f64::from(i * 7919 % 1500) / 400.0).collect();
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
        let total: f64 = logits.iter().map(|l| l.exp()).sum();
        for p in [0.001, 0.05, 0.3, 0.9, 0.9999] {
            let mut want = vec![NONE; logits.len()];
            let mut sum = 0.0;
            for &i in &order {
                if sum >= p * total {
                    break;
                }
                want[i] = logits[i];
                sum += logits[i].exp();
            }
            assert!(top_p(p, &logits) == want, "p = {p}");
        }
    }

    #[test]
    #[should_panic(expected = "temperature = 0 is not positive")]
    fn refuses_a_temperature_of_zero() {
        filtered(LogitFilter { temperature: 0.0, ..LogitFilter::NONE }, &[1.0], &[]);
    }
}
