//! Sampling: prompts in, completions out, with the log-probability of every token under the
//! distribution that it was drawn from.
//!
//! Every sample has its own random stream and its own cache, and a row's numbers do not depend on
//! the rows beside it: the same seed gives the same text for any number of threads and any
//! grouping. A prompt is read once for all its samples. Sequences run to completion in small
//! groups, and a finished one makes room for the next.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Mutex;

use cordada_env::{Stream, role};
use cordada_nn::attention::{AttentionScratch, KvCache};
use cordada_nn::kernel::{Start, matmul};
use cordada_nn::{Real, token_log_sum_exp};

use crate::Error;
use crate::batch::Rows;
use crate::parallel::Threads;
use crate::sampling::{Sampler, Sampling};
use crate::transformer::{Adapter, Chunk, Keep, LayerTape, Transformer, Weights};

/// Sequences that one thread decodes side by side: enough rows to keep the multipliers busy, few
/// enough for their caches to stay near.
pub(crate) const SLOTS: usize = 32;
/// Rows of prompts that are read in one pass.
pub(crate) const PREFILL_ROWS: usize = 512;

/// A prompt, and how many completions are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// At least one token.
    pub prompt: Vec<u32>,
    /// Number of completions.
    pub samples: usize,
    /// Random stream of the first one; the next has the next.
    pub stream: u32,
}

/// Why a completion ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The model gave one of the tokens that end a text, which is the last one of the completion.
    StopToken,
    /// The text contains one of the strings that end it.
    StopString,
    /// As many tokens as were allowed.
    Length,
    /// No position is left in the model.
    Context,
}

/// A sampled response.
#[derive(Clone, Debug, PartialEq)]
pub struct Completion<T> {
    /// Its tokens, a final stop token included.
    pub tokens: Vec<u32>,
    /// `ln π` of each, under the distribution that it was drawn from; for greedy decoding, under
    /// the model's at temperature 1.
    pub log_prob: Vec<T>,
    /// Why it ended.
    pub finish: Finish,
}

/// Whether a text is over; sees all its tokens after each new one.
pub type StopCheck<'a> = dyn Fn(&[u32]) -> bool + Sync + 'a;

/// What all samples of a call have in common.
pub(crate) struct Job<'a, T> {
    pub(crate) transformer: &'a Transformer<T>,
    pub(crate) weights: &'a Weights<T>,
    pub(crate) adapter: Option<&'a Adapter<T>>,
    pub(crate) requests: &'a [Request],
    pub(crate) sampling: &'a Sampling,
    pub(crate) seed: u64,
    pub(crate) stop: Option<&'a StopCheck<'a>>,
}

/// A sequence that is being decoded.
#[derive(Debug)]
struct Slot<T> {
    request: usize,
    sample: usize,
    stream: Stream,
    tokens: Vec<u32>,
    log_prob: Vec<T>,
    /// One cache for each layer.
    caches: Vec<KvCache<T>>,
}

/// One thread's working memory.
#[derive(Debug)]
pub(crate) struct Decoder<T> {
    chunk: Chunk<T>,
    tape: LayerTape<T>,
    x: Vec<T>,
    next: Vec<T>,
    hidden: Vec<T>,
    mean: Vec<T>,
    rstd: Vec<T>,
    logits: Vec<T>,
    sampler: Sampler<T>,
    /// Caches of finished sequences, for the next ones.
    free: Vec<Vec<KvCache<T>>>,
}

/// Samples that wait: a request, and which of its samples.
type Queue = Mutex<VecDeque<(usize, Range<usize>)>>;

/// A completion with its place: request and sample.
type Placed<T> = (usize, usize, Completion<T>);

impl<T: Real> Job<'_, T> {
    /// Checks what would else fail in the middle.
    pub(crate) fn check(&self) -> Result<(), Error> {
        self.sampling.check()?;
        let c = &self.transformer.config;
        for (i, request) in self.requests.iter().enumerate() {
            let n = request.prompt.len();
            let problem = if n == 0 {
                "is empty; begin it with the model's first token".to_string()
            } else if n >= c.max_positions {
                format!("has {n} tokens; the model has {} positions: shorten it", c.max_positions)
            } else if let Some(t) = request.prompt.iter().find(|&&t| t as usize >= c.vocab_size) {
                format!("holds token {t}; the vocabulary has {}", c.vocab_size)
            } else {
                continue;
            };
            return Err(Error::Setting(format!("prompt {i} {problem}")));
        }
        Ok(())
    }

    /// Completions of all requests, in their order.
    pub(crate) fn run(
        &self,
        decoders: &mut Vec<Decoder<T>>,
        threads: &Threads,
    ) -> Vec<Vec<Completion<T>>> {
        let total: usize = self.requests.iter().map(|r| r.samples).sum();
        let slots = total.div_ceil(threads.count()).clamp(1, SLOTS);
        let waiting = self.requests.iter().enumerate().map(|(i, r)| (i, 0..r.samples));
        let queue: Queue = Mutex::new(waiting.filter(|(_, r)| r.end > 0).collect());
        let done: Mutex<Vec<Placed<T>>> = Mutex::new(Vec::with_capacity(total));
        while decoders.len() < threads.count() {
            decoders.push(Decoder::new(self.transformer));
        }
        threads.for_each(&mut decoders[..threads.count()], |decoder| {
            let finished = decoder.work(self, &queue, slots);
            done.lock().expect("no thread fails while it holds the lock").extend(finished);
        });
        let mut done = done.into_inner().expect("all threads are done");
        done.sort_by_key(|(request, sample, _)| (*request, *sample));
        let mut results: Vec<Vec<Completion<T>>> =
            self.requests.iter().map(|_| Vec::new()).collect();
        for (request, _, completion) in done {
            results[request].push(completion);
        }
        results
    }

    /// Tokens that a sequence may have in all.
    fn capacity(&self, request: usize) -> usize {
        let prompt = self.requests[request].prompt.len();
        (prompt + self.sampling.max_new_tokens).min(self.transformer.config.max_positions)
    }

    fn finish(&self, slot: &Slot<T>) -> Option<Finish> {
        let (tokens, s) = (&slot.tokens, self.sampling);
        let last = tokens.last()?;
        let length = self.requests[slot.request].prompt.len() + tokens.len();
        if s.stop_tokens.contains(last) {
            Some(Finish::StopToken)
        } else if self.stop.is_some_and(|stop| stop(tokens)) {
            Some(Finish::StopString)
        } else if tokens.len() >= s.max_new_tokens {
            Some(Finish::Length)
        } else if length >= self.transformer.config.max_positions {
            Some(Finish::Context)
        } else {
            None
        }
    }
}

impl<T: Real> Decoder<T> {
    pub(crate) fn new(transformer: &Transformer<T>) -> Self {
        let layers = transformer.config.num_layers;
        Self {
            chunk: Chunk::new(layers, transformer.attention.scratch()),
            tape: LayerTape::default(),
            x: Vec::new(),
            next: Vec::new(),
            hidden: Vec::new(),
            mean: Vec::new(),
            rstd: Vec::new(),
            logits: Vec::new(),
            sampler: Sampler::default(),
            free: Vec::new(),
        }
    }

    /// Decodes until the queue is empty.
    fn work(&mut self, job: &Job<'_, T>, queue: &Queue, slots: usize) -> Vec<Placed<T>> {
        let mut active: Vec<Slot<T>> = Vec::with_capacity(slots);
        let mut done = Vec::new();
        loop {
            while active.len() < slots && self.admit(job, queue, slots, &mut active) {
                self.retire(job, &mut active, &mut done);
            }
            if active.is_empty() {
                return done;
            }
            self.advance(job, &mut active);
            self.retire(job, &mut active, &mut done);
        }
    }

    /// Takes waiting samples, reads their prompts in one pass, and draws their first tokens. False
    /// if none wait.
    fn admit(
        &mut self,
        job: &Job<'_, T>,
        queue: &Queue,
        slots: usize,
        active: &mut Vec<Slot<T>>,
    ) -> bool {
        let taken = {
            let mut queue = queue.lock().expect("no thread fails while it holds the lock");
            take(job.requests, &mut queue, slots - active.len())
        };
        if taken.is_empty() {
            return false;
        }
        let rows = &mut self.chunk.rows;
        rows.clear();
        for (request, _) in &taken {
            let at = rows.segment(&job.requests[*request].prompt, 0..0);
            rows.target_rows.push(at.end as u32 - 1);
        }
        job.transformer.forward(job.weights, job.adapter, &mut self.chunk, Keep::Tapes);
        job.transformer.predict(job.weights, &mut self.chunk);
        let vocabulary = job.transformer.config.vocab_size;
        self.logits.resize(taken.len() * vocabulary, T::ZERO);
        matmul(&self.chunk.hidden, &job.weights.head.forward, Start::Zero, &mut self.logits);
        for (i, (request, samples)) in taken.into_iter().enumerate() {
            let first = active.len();
            for sample in samples {
                let stream = job.requests[request].stream.wrapping_add(sample as u32);
                let caches = self.caches(job, request);
                active.push(Slot {
                    request,
                    sample,
                    stream: Stream::new(job.seed, role::POLICY, stream),
                    tokens: Vec::new(),
                    log_prob: Vec::new(),
                    caches,
                });
            }
            let (origin, copies) = active[first..].split_first_mut().expect("one sample at least");
            self.remember(job.transformer, i, &mut origin.caches);
            for copy in copies {
                for (to, from) in copy.caches.iter_mut().zip(&origin.caches) {
                    to.copy_from(from);
                }
            }
            let row = &self.logits[i * vocabulary..(i + 1) * vocabulary];
            for slot in &mut active[first..] {
                slot.draw(job, &mut self.sampler, &mut row.to_vec());
            }
        }
        true
    }

    /// Empty caches with room for a request.
    fn caches(&mut self, job: &Job<'_, T>, request: usize) -> Vec<KvCache<T>> {
        let capacity = job.capacity(request);
        let fits = |caches: &Vec<KvCache<T>>| caches[0].capacity() >= capacity;
        if let Some(i) = self.free.iter().position(fits) {
            let mut caches = self.free.swap_remove(i);
            caches.iter_mut().for_each(KvCache::clear);
            return caches;
        }
        self.free.pop();
        let layers = 0..job.transformer.config.num_layers;
        layers.map(|_| job.transformer.attention.cache(capacity)).collect()
    }

    /// Copies a prompt's keys and values from the last pass.
    fn remember(&self, t: &Transformer<T>, segment: usize, caches: &mut [KvCache<T>]) {
        let (rows, width) = (self.chunk.rows.spans[segment].rows.clone(), t.attention.row_width());
        for (cache, layer) in caches.iter_mut().zip(&self.chunk.layers) {
            for row in layer.qkv[rows.start * width..rows.end * width].chunks_exact(width) {
                t.attention.remember(row, cache);
            }
        }
    }

    /// Reads the last token of every sequence and draws the next.
    fn advance(&mut self, job: &Job<'_, T>, active: &mut [Slot<T>]) {
        let t = job.transformer;
        let Self { chunk, tape, x, next, .. } = self;
        let Rows { tokens, positions, .. } = &mut chunk.rows;
        tokens.clear();
        positions.clear();
        for slot in active.iter() {
            tokens.push(*slot.tokens.last().expect("the first token comes with the prompt"));
            positions.push(slot.caches[0].len() as u32);
        }
        x.resize(active.len() * t.config.hidden_size, T::ZERO);
        t.embed(job.weights, &chunk.rows, x);
        for l in 0..t.config.num_layers {
            std::mem::swap(&mut tape.x, x);
            let lora = job.adapter.map(|a| &a.blocks[l]);
            let scratch = &mut chunk.scratch;
            t.block(job.weights, lora, l, &chunk.rows.positions, tape, next, |qkv, out, _| {
                attend(t, l, qkv, out, active, scratch);
            });
            std::mem::swap(next, x);
        }
        let Self { x, hidden, mean, rstd, logits, sampler, .. } = self;
        t.last_norm(job.weights, x, hidden, mean, rstd);
        let vocabulary = t.config.vocab_size;
        logits.resize(active.len() * vocabulary, T::ZERO);
        matmul(hidden, &job.weights.head.forward, Start::Zero, logits);
        for (slot, row) in active.iter_mut().zip(logits.chunks_exact_mut(vocabulary)) {
            slot.draw(job, sampler, row);
        }
    }

    /// Moves finished sequences out.
    fn retire(&mut self, job: &Job<'_, T>, active: &mut Vec<Slot<T>>, done: &mut Vec<Placed<T>>) {
        let mut i = 0;
        while i < active.len() {
            let Some(finish) = job.finish(&active[i]) else {
                i += 1;
                continue;
            };
            let Slot { request, sample, tokens, log_prob, caches, .. } = active.swap_remove(i);
            done.push((request, sample, Completion { tokens, log_prob, finish }));
            self.free.push(caches);
        }
    }
}

/// The attention of one new row of every sequence.
fn attend<T: Real>(
    t: &Transformer<T>,
    layer: usize,
    qkv: &[T],
    out: &mut [T],
    active: &mut [Slot<T>],
    scratch: &mut AttentionScratch<T>,
) {
    let rows = qkv
        .chunks_exact(t.attention.row_width())
        .zip(out.chunks_exact_mut(t.attention.output_width()));
    for (slot, (row, out)) in active.iter_mut().zip(rows) {
        let cache = &mut slot.caches[layer];
        t.attention.remember(row, cache);
        t.attention.decode(row, cache, out, scratch);
    }
}

impl<T: Real> Slot<T> {
    /// Draws the next token from a row of logits, which it overwrites.
    fn draw(&mut self, job: &Job<'_, T>, sampler: &mut Sampler<T>, logits: &mut [T]) {
        let prompt = &job.requests[self.request].prompt;
        let isa = job.transformer.isa;
        let scale = job.sampling.shape(logits, prompt, &self.tokens, sampler);
        let mut lse = [T::ZERO];
        token_log_sum_exp(isa, logits, scale, &mut lse);
        let token = job.sampling.pick(isa, logits, lse[0], &mut self.stream, sampler);
        self.tokens.push(token as u32);
        self.log_prob.push(logits[token] - lse[0]);
    }
}

/// Takes up to `slots` samples whose prompts fit into one pass.
fn take(
    requests: &[Request],
    queue: &mut VecDeque<(usize, Range<usize>)>,
    mut slots: usize,
) -> Vec<(usize, Range<usize>)> {
    let mut taken: Vec<(usize, Range<usize>)> = Vec::new();
    let mut rows = 0;
    while slots > 0
        && let Some((request, samples)) = queue.front_mut()
    {
        let n = requests[*request].prompt.len();
        if !taken.is_empty() && rows + n > PREFILL_ROWS {
            break;
        }
        rows += n;
        let count = samples.len().min(slots);
        taken.push((*request, samples.start..samples.start + count));
        slots -= count;
        samples.start += count;
        if samples.start == samples.end {
            queue.pop_front();
        }
    }
    taken
}
