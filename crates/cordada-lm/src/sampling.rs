//! From a row of logits to a token: temperature, filters, and the draw.

use cordada_env::Stream;
use cordada_nn::kernel::Isa;
use cordada_nn::{Real, token_probabilities};
use cordada_rl::distribution::{FilterScratch, LogitFilter};

use crate::Error;

/// How tokens are drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// Logits are divided by it; 0 takes the likeliest token.
    pub temperature: f64,
    /// Only the k likeliest tokens; 0 for all.
    pub top_k: usize,
    /// Only the likeliest tokens that together reach this probability; 1 for all.
    pub top_p: f64,
    /// Only tokens at least this many times as likely as the likeliest; 0 for all.
    pub min_p: f64,
    /// Logits of tokens that have occurred are divided (negative ones: multiplied) by it; 1 for
    /// none.
    pub repetition_penalty: f64,
    /// Most tokens of a completion.
    pub max_new_tokens: usize,
    /// Least tokens of a completion: until then the tokens that would end it are excluded.
    pub min_new_tokens: usize,
    /// Tokens that end a completion.
    pub stop_tokens: Vec<u32>,
}

impl Default for Sampling {
    /// The model's own distribution, up to 64 tokens.
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            max_new_tokens: 64,
            min_new_tokens: 0,
            stop_tokens: Vec::new(),
        }
    }
}

/// Working memory of a draw.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sampler<T> {
    probabilities: Vec<T>,
    previous: Vec<u32>,
    scratch: FilterScratch,
}

impl Sampling {
    /// Whether tokens come from the model's own distribution at some temperature: then training can
    /// compute the log-probabilities that were recorded.
    pub fn is_plain(&self) -> bool {
        self.temperature > 0.0
            && self.top_k == 0
            && self.top_p >= 1.0
            && self.min_p <= 0.0
            && self.repetition_penalty == 1.0
            && self.min_new_tokens == 0
    }

    /// Checks ranges.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] that names the setting, its value and its range.
    pub fn check(&self) -> Result<(), Error> {
        let bad = |name: &str, value: f64, range: &str| {
            Err(Error::Setting(format!("{name} = {value}: must be {range}")))
        };
        if !(self.temperature >= 0.0 && self.temperature.is_finite()) {
            return bad("temperature", self.temperature, "0 (greedy) or a positive number");
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return bad("top_p", self.top_p, "above 0 and at most 1");
        }
        if !(0.0..=1.0).contains(&self.min_p) {
            return bad("min_p", self.min_p, "from 0 to 1");
        }
        if !(self.repetition_penalty > 0.0 && self.repetition_penalty.is_finite()) {
            return bad("repetition_penalty", self.repetition_penalty, "a positive number");
        }
        if self.max_new_tokens == 0 {
            return bad("max_new_tokens", 0.0, "1 or more");
        }
        Ok(())
    }

    /// Applies the filters, which set the logits of excluded tokens to −∞; returns what the logits
    /// are yet to be multiplied by. Without filters that is 1 / temperature, as in training.
    pub(crate) fn shape<T: Real>(
        &self,
        logits: &mut [T],
        prompt: &[u32],
        tokens: &[u32],
        sampler: &mut Sampler<T>,
    ) -> T {
        let temperature = if self.temperature > 0.0 { self.temperature } else { 1.0 };
        if tokens.len() < self.min_new_tokens {
            for &token in &self.stop_tokens {
                logits[token as usize] = T::NEG_INFINITY;
            }
        }
        let filter = LogitFilter {
            temperature: 1.0,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
        };
        if filter == LogitFilter::NONE {
            return T::of(1.0 / temperature);
        }
        sampler.previous.clear();
        sampler.previous.extend_from_slice(prompt);
        sampler.previous.extend_from_slice(tokens);
        let filter = LogitFilter { temperature, ..filter };
        filter.apply(logits, &sampler.previous, &mut sampler.scratch);
        T::ONE
    }

    /// Draws a token: the likeliest one at temperature 0, else by inversion of the distribution
    /// function with one uniform number.
    pub(crate) fn pick<T: Real>(
        &self,
        isa: Isa,
        logits: &[T],
        lse: T,
        stream: &mut Stream,
        sampler: &mut Sampler<T>,
    ) -> usize {
        if self.temperature <= 0.0 {
            return likeliest(logits);
        }
        let p = &mut sampler.probabilities;
        p.resize(logits.len(), T::ZERO);
        token_probabilities(isa, logits, lse, p);
        let mut left = stream.uniform();
        let mut last = 0;
        for (token, p) in p.iter().enumerate() {
            let p = p.f64();
            if p > 0.0 {
                last = token;
                left -= p;
                if left < 0.0 {
                    break;
                }
            }
        }
        // Where rounding leaves the sum below 1, the last token gets the rest.
        last
    }
}

/// The first of the largest logits.
fn likeliest<T: Real>(logits: &[T]) -> usize {
    let mut best = 0;
    for (token, &z) in logits.iter().enumerate() {
        if z > logits[best] {
            best = token;
        }
    }
    best
}
