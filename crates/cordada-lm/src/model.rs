//! A language model that computes on the processor: parameters, gradients, optimizer.

use std::ops::Range;

use cordada_nn::kernel::{Start, add_assign, matmul};
use cordada_nn::{Optimizer, OptimizerConfig, Real, clip_global_norm};

use crate::Error;
use crate::batch::{Group, split};
use crate::generate::{Completion, Decoder, Job, Request, StopCheck};
use crate::head::{Head, HeadBack, HeadTape, Targets, ValueHead};
use crate::parallel::Threads;
use crate::sampling::Sampling;
use crate::transformer::{Adapter, Chunk, Keep, LayerTape, Trained, Transformer, Weights};

/// Rows of a forward and backward pass on one thread, so that activations stay in its cache.
pub const MICRO_BATCH_ROWS: usize = 256;

/// Bytes of activations that all threads together keep for the way back, unless told otherwise.
pub const ACTIVATION_LIMIT: usize = 2 << 30;

/// Log-probabilities, entropies and values of all scored tokens of a batch, in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TokenScores<T> {
    /// `ln π(token | state)` at the temperature asked for.
    pub log_prob: Vec<T>,
    /// Entropy of each state's distribution, in nats.
    pub entropy: Vec<T>,
    /// Value of each state; empty without a value head.
    pub value: Vec<T>,
    /// KL divergence of each state's distribution to the reference's; empty without one.
    pub kl: Vec<T>,
    /// Each completion's place in these.
    pub completions: Vec<Range<usize>>,
}

/// One completion's scores.
#[derive(Clone, Copy, Debug)]
pub struct CompletionScores<'a, T> {
    /// As in [`TokenScores`].
    pub log_prob: &'a [T],
    /// As in [`TokenScores`].
    pub entropy: &'a [T],
    /// As in [`TokenScores`].
    pub value: &'a [T],
    /// As in [`TokenScores`].
    pub kl: &'a [T],
}

/// Where an objective writes its derivatives, one for each scored token of a completion; all 0
/// before.
#[derive(Debug)]
pub struct Derivatives<'a, T> {
    /// ψ: with respect to log π.
    pub log_prob: &'a mut [T],
    /// With respect to the entropy.
    pub entropy: &'a mut [T],
    /// With respect to the value; empty without a value head.
    pub value: &'a mut [T],
    /// With respect to the KL divergence; empty without a reference.
    pub kl: &'a mut [T],
}

/// An objective to be ascended: from the scores of one completion (given by its number in the
/// batch) its derivatives.
pub type Objective<'a, T> = dyn FnMut(usize, CompletionScores<'_, T>, Derivatives<'_, T>) + 'a;

/// Sums of gradients since the last step.
#[derive(Clone, Debug)]
struct Gradient<T> {
    /// As θ, or as the adapter's parameters.
    theta: Vec<T>,
    value: Vec<T>,
    /// Derivatives of token embeddings, row by row. They are added last: where the head shares the
    /// embedding's matrix, the sum would else depend on how the batch was cut.
    lookups: Vec<T>,
    tokens: Vec<u32>,
    positions: Vec<u32>,
}

/// A transformer with its parameters, and what trains them.
#[derive(Debug)]
pub struct Model<T> {
    transformer: Transformer<T>,
    weights: Weights<T>,
    adapter: Option<Adapter<T>>,
    value_head: Option<ValueHead<T>>,
    training: Option<Training<T>>,
    threads: Threads,
    chunks: Vec<Chunk<T>>,
    decoders: Vec<Decoder<T>>,
    tape: HeadTape<T>,
    back: HeadBack<T>,
    /// Hidden states of all predicting rows of the chunks.
    hidden: Vec<T>,
    d_hidden: Vec<T>,
    /// The tokens that they predict.
    targets: Vec<u32>,
    /// Rows of a chunk.
    micro_batch_rows: usize,
    /// Bytes of activations of all threads.
    activation_limit: usize,
}

#[derive(Debug)]
struct Training<T> {
    gradient: Gradient<T>,
    optimizer: Optimizer<T>,
    value_optimizer: Option<Optimizer<T>>,
}

/// How [`Model::step`] moves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepSettings {
    /// Learning rate.
    pub learning_rate: f64,
    /// Learning rate of the value head.
    pub value_learning_rate: f64,
    /// The gradient is scaled down to this global norm; infinite for no limit.
    pub max_grad_norm: f64,
}

impl<T: Real> Model<T> {
    /// A model with these parameters that only reads and samples.
    pub fn new(transformer: Transformer<T>, theta: Vec<T>, threads: Threads) -> Self {
        let weights = transformer.weights(theta, false);
        Self::assemble(transformer, weights, threads)
    }

    /// A model that trains all its parameters, or those of an adapter alone.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] if the optimizer's options are outside their range.
    pub fn trainable(
        transformer: Transformer<T>,
        theta: Vec<T>,
        adapter: Option<Adapter<T>>,
        value_head: Option<ValueHead<T>>,
        optimizer: OptimizerConfig,
        threads: Threads,
    ) -> Result<Self, Error> {
        let weights = transformer.weights(theta, true);
        let mut model = Self::assemble(transformer, weights, threads);
        let trained = adapter.as_ref().map_or(model.weights.theta.len(), |a| a.theta.len());
        let values = value_head.as_ref().map_or(0, |v| v.theta.len());
        let make = |n| Optimizer::new(optimizer, n).map_err(|e| Error::Setting(e.to_string()));
        model.training = Some(Training {
            gradient: Gradient {
                theta: vec![T::ZERO; trained],
                value: vec![T::ZERO; values],
                lookups: Vec::new(),
                tokens: Vec::new(),
                positions: Vec::new(),
            },
            optimizer: make(trained)?,
            value_optimizer: (values > 0).then(|| make(values)).transpose()?,
        });
        model.adapter = adapter;
        model.value_head = value_head;
        Ok(model)
    }

    fn assemble(transformer: Transformer<T>, weights: Weights<T>, threads: Threads) -> Self {
        let layers = transformer.config.num_layers;
        let chunks = (0..threads.count())
            .map(|_| Chunk::new(layers, transformer.attention.scratch()))
            .collect();
        Self {
            transformer,
            weights,
            adapter: None,
            value_head: None,
            training: None,
            threads,
            chunks,
            decoders: Vec::new(),
            tape: HeadTape::default(),
            back: HeadBack::default(),
            hidden: Vec::new(),
            d_hidden: Vec::new(),
            targets: Vec::new(),
            micro_batch_rows: MICRO_BATCH_ROWS,
            activation_limit: ACTIVATION_LIMIT,
        }
    }

    /// Sets how many rows one thread takes through the model at a time. Results do not depend on
    /// it.
    pub fn set_micro_batch_rows(&mut self, rows: usize) {
        self.micro_batch_rows = rows.max(1);
    }

    /// Sets how many bytes of activations all threads together keep for the way back. Above it only
    /// every block's input is kept and the rest computed again, for a third more time. Results do
    /// not depend on it.
    pub fn set_activation_limit(&mut self, bytes: usize) {
        self.activation_limit = bytes;
    }

    /// Bytes of one row's activations in all blocks.
    fn activations_of_row(&self) -> usize {
        let c = &self.transformer.config;
        let ranks = self.adapter.as_ref().map_or(0, Adapter::ranks);
        c.num_layers * LayerTape::<T>::row_len(c, ranks) * size_of::<T>()
    }

    /// The shape.
    pub fn transformer(&self) -> &Transformer<T> {
        &self.transformer
    }

    /// The parameters.
    pub fn weights(&self) -> &Weights<T> {
        &self.weights
    }

    /// The adapter, if the model has one.
    pub fn adapter(&self) -> Option<&Adapter<T>> {
        self.adapter.as_ref()
    }

    /// The value head, if the model has one.
    pub fn value_head(&self) -> Option<&ValueHead<T>> {
        self.value_head.as_ref()
    }

    /// The threads that it computes with.
    pub fn threads(&self) -> &Threads {
        &self.threads
    }

    /// The optimizer of what is trained, and that of the value head.
    pub fn optimizers(&self) -> impl Iterator<Item = &Optimizer<T>> {
        self.training
            .iter()
            .flat_map(|t| [Some(&t.optimizer), t.value_optimizer.as_ref()])
            .flatten()
    }

    /// Everything that training changes, for restoring it: parameters that are trained, those of
    /// the value head, and the optimizers. Call [`Model::pack`] after it.
    pub fn state_mut(&mut self) -> (&mut [T], Option<&mut [T]>, Vec<&mut Optimizer<T>>) {
        let theta = match &mut self.adapter {
            Some(adapter) => &mut adapter.theta[..],
            None => &mut self.weights.theta[..],
        };
        let value = self.value_head.as_mut().map(|v| &mut v.theta[..]);
        let optimizers = self
            .training
            .iter_mut()
            .flat_map(|t| [Some(&mut t.optimizer), t.value_optimizer.as_mut()])
            .flatten();
        (theta, value, optimizers.collect())
    }

    /// Packs the parameters anew after they have been changed from outside.
    pub fn pack(&mut self) {
        match &mut self.adapter {
            Some(adapter) => adapter.pack(),
            None => self.transformer.pack(&mut self.weights),
        }
    }

    /// Scores of the completions' tokens under the policy.
    ///
    /// # Panics
    ///
    /// If a token is not below the vocabulary's size or a sequence longer than the model's
    /// positions.
    pub fn log_prob(&mut self, groups: &[Group], temperature: f64) -> TokenScores<T> {
        self.run(groups, temperature, true, &[], None)
    }

    /// The same under the reference policy of an adapter: the model without it.
    ///
    /// # Panics
    ///
    /// As [`Model::log_prob`].
    pub fn base_log_prob(&mut self, groups: &[Group], temperature: f64) -> TokenScores<T> {
        self.run(groups, temperature, false, &[], None)
    }

    /// `ln π` of every token of the vocabulary where the completions' tokens were chosen,
    /// `[tokens, V]`; with `base`, without the adapter. For small vocabularies.
    ///
    /// # Panics
    ///
    /// As [`Model::log_prob`].
    pub fn distributions(&mut self, groups: &[Group], temperature: f64, base: bool) -> Vec<T> {
        let scale = T::of(1.0 / temperature);
        let mut log_probs = Vec::new();
        for parts in split(groups, self.micro_batch_rows).chunks(self.threads.count()) {
            self.read_parts(groups, parts, !base, false);
            let targets =
                Targets { hidden: &self.hidden, tokens: &self.targets, scale, reference: &[] };
            let head = head(&self.transformer, &self.weights);
            log_probs.extend(head.distributions(targets, &self.threads));
        }
        log_probs
    }

    /// Scores the completions' tokens, asks `objective` for its derivatives, and adds its gradient
    /// to the sum that [`Model::step`] follows.
    ///
    /// # Panics
    ///
    /// As [`Model::log_prob`], or if the model does not train.
    pub fn score(
        &mut self,
        groups: &[Group],
        temperature: f64,
        objective: &mut Objective<'_, T>,
    ) -> TokenScores<T> {
        self.score_near(groups, temperature, &[], objective)
    }

    /// The same with the exact KL divergence to a reference's
    /// [`distributions`](Model::distributions) among the scores and derivatives.
    ///
    /// # Panics
    ///
    /// As [`Model::score`], or if the reference is not of these groups.
    pub fn score_near(
        &mut self,
        groups: &[Group],
        temperature: f64,
        reference: &[T],
        objective: &mut Objective<'_, T>,
    ) -> TokenScores<T> {
        assert!(self.training.is_some(), "this model does not train");
        self.run(groups, temperature, true, reference, Some(objective))
    }

    /// Hidden states after the last norm, `[tokens, d]`, and logits, `[tokens, V]`, of one sequence:
    /// for looking at, and for heads of one's own. Training and sampling never hold all of them.
    ///
    /// # Panics
    ///
    /// As [`Model::log_prob`].
    pub fn read(&mut self, tokens: &[u32]) -> (Vec<T>, Vec<T>) {
        let Self { transformer, weights, adapter, chunks, .. } = self;
        let chunk = &mut chunks[0];
        chunk.rows.clear();
        chunk.rows.segment(tokens, 0..0);
        chunk.rows.target_rows.extend(0..tokens.len() as u32);
        transformer.forward(weights, adapter.as_ref(), chunk, Keep::Nothing);
        transformer.predict(weights, chunk);
        let mut logits = vec![T::ZERO; tokens.len() * transformer.config.vocab_size];
        matmul(&chunk.hidden, &weights.head.forward, Start::Zero, &mut logits);
        (chunk.hidden.clone(), logits)
    }

    /// Samples completions. `stop` may end a text besides the stop tokens of `sampling`.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] for a prompt that the model cannot read or a setting outside its range.
    pub fn generate(
        &mut self,
        requests: &[Request],
        sampling: &Sampling,
        seed: u64,
        stop: Option<&StopCheck<'_>>,
    ) -> Result<Vec<Vec<Completion<T>>>, Error> {
        let job = Job {
            transformer: &self.transformer,
            weights: &self.weights,
            adapter: self.adapter.as_ref(),
            requests,
            sampling,
            seed,
            stop,
        };
        job.check()?;
        Ok(job.run(&mut self.decoders, &self.threads))
    }

    /// The sum of gradients since the last step, complete: of what is trained, and of the value
    /// head.
    ///
    /// # Panics
    ///
    /// If the model does not train.
    pub fn gradient(&mut self) -> (&mut [T], &mut [T]) {
        let training = self.training.as_mut().expect("this model does not train");
        let g = &mut training.gradient;
        let d = self.transformer.config.hidden_size;
        let layout = &self.transformer.layout;
        let rows = g.lookups.chunks_exact(d).zip(g.tokens.iter().zip(&g.positions));
        for (row, (&token, &position)) in rows {
            let isa = self.transformer.isa;
            let at = layout.embedding.start + token as usize * d;
            add_assign(isa, &mut g.theta[at..at + d], row);
            if let Some(positions) = &layout.positions {
                let at = positions.start + position as usize * d;
                add_assign(isa, &mut g.theta[at..at + d], row);
            }
        }
        g.lookups.clear();
        g.tokens.clear();
        g.positions.clear();
        (&mut g.theta, &mut g.value)
    }

    /// Moves the parameters along the summed gradient and clears it; returns its global norm (of
    /// model and value head together) before clipping. A gradient that is not finite is dropped and
    /// nothing moves.
    ///
    /// # Panics
    ///
    /// If the model does not train.
    pub fn step(&mut self, settings: StepSettings) -> f64 {
        self.gradient();
        let isa = self.transformer.isa;
        let training = self.training.as_mut().expect("this model does not train");
        let Gradient { theta: grad, value, .. } = &mut training.gradient;
        // Both parts are clipped by their common norm.
        let split = grad.len();
        grad.append(value);
        let norm = clip_global_norm(isa, grad, settings.max_grad_norm);
        *value = grad.split_off(split);
        if norm.is_finite() {
            let theta = match &mut self.adapter {
                Some(adapter) => &mut adapter.theta,
                None => &mut self.weights.theta,
            };
            training.optimizer.ascend(theta, grad, settings.learning_rate);
            if let (Some(head), Some(optimizer)) =
                (&mut self.value_head, &mut training.value_optimizer)
            {
                optimizer.ascend(&mut head.theta, value, settings.value_learning_rate);
            }
        }
        grad.fill(T::ZERO);
        value.fill(T::ZERO);
        if norm.is_finite() {
            self.pack();
        }
        norm
    }

    fn run(
        &mut self,
        groups: &[Group],
        temperature: f64,
        adapted: bool,
        reference: &[T],
        mut objective: Option<&mut Objective<'_, T>>,
    ) -> TokenScores<T> {
        let mut scores = TokenScores::default();
        let scale = T::of(1.0 / temperature);
        let v = self.transformer.config.vocab_size;
        let parts = split(groups, self.micro_batch_rows);
        for parts in parts.chunks(self.threads.count()) {
            self.read_parts(groups, parts, adapted, objective.is_some());
            let first = scores.completions.len();
            let offset = scores.log_prob.len();
            let reference = match reference {
                [] => reference,
                reference => &reference[offset * v..][..self.targets.len() * v],
            };
            self.predict(scale, reference);
            let mut at = offset;
            for chunk in &self.chunks[..parts.len()] {
                let end = chunk.rows.completions.last().map_or(0, |r| r.end);
                let ranges = chunk.rows.completions.iter();
                scores.completions.extend(ranges.map(|r| r.start + at..r.end + at));
                at += end;
            }
            if let Some(objective) = &mut objective {
                self.ask(&scores.completions[first..], first, offset, &mut **objective);
                self.backward(parts.len(), scale, reference);
            }
            scores.log_prob.extend_from_slice(&self.tape.log_prob);
            scores.entropy.extend_from_slice(&self.tape.entropy);
            scores.value.extend_from_slice(&self.tape.value);
            scores.kl.extend_from_slice(&self.tape.kl);
        }
        scores
    }

    /// Takes some parts of a batch through the model, one on each thread. `learn`: keeps what the
    /// way back needs.
    fn read_parts(&mut self, groups: &[Group], parts: &[Range<usize>], adapted: bool, learn: bool) {
        let row = self.activations_of_row();
        let limit = self.activation_limit / self.threads.count();
        let Self { transformer, weights, adapter, chunks, threads, .. } = self;
        let adapter = adapter.as_ref().filter(|_| adapted);
        let chunks = &mut chunks[..parts.len()];
        for (chunk, part) in chunks.iter_mut().zip(parts) {
            chunk.rows.clear();
            groups[part.clone()].iter().for_each(|group| chunk.rows.group(group));
        }
        let keep = |rows: usize| match learn {
            false => Keep::Nothing,
            true if rows * row <= limit => Keep::Tapes,
            true => Keep::Inputs,
        };
        threads.for_each(chunks, |chunk| {
            transformer.forward(weights, adapter, chunk, keep(chunk.rows.len()));
            transformer.predict(weights, chunk);
        });
        self.hidden.clear();
        self.targets.clear();
        for chunk in chunks.iter() {
            self.hidden.extend_from_slice(&chunk.hidden);
            self.targets.extend_from_slice(&chunk.rows.target_tokens);
        }
    }

    /// Takes what [`Model::read_parts`] left through the head.
    fn predict(&mut self, scale: T, reference: &[T]) {
        let Self { transformer, weights, threads, .. } = self;
        let targets = Targets { hidden: &self.hidden, tokens: &self.targets, scale, reference };
        let head = head(transformer, weights);
        head.forward(targets, self.value_head.as_ref(), &mut self.tape, threads);
    }

    /// Asks the objective for the derivatives of some completions.
    fn ask(
        &mut self,
        completions: &[Range<usize>],
        first: usize,
        offset: usize,
        objective: &mut Objective<'_, T>,
    ) {
        let Self { tape, back, .. } = self;
        back.clear(tape);
        for (i, range) in completions.iter().enumerate() {
            let r = range.start - offset..range.end - offset;
            let if_any = |x: &[T]| if x.is_empty() { 0..0 } else { r.clone() };
            let (v, k) = (if_any(&tape.value), if_any(&tape.kl));
            let scores = CompletionScores {
                log_prob: &tape.log_prob[r.clone()],
                entropy: &tape.entropy[r.clone()],
                value: &tape.value[v.clone()],
                kl: &tape.kl[k.clone()],
            };
            let derivatives = Derivatives {
                log_prob: &mut back.log_prob[r.clone()],
                entropy: &mut back.entropy[r],
                value: &mut back.value[v],
                kl: &mut back.kl[k],
            };
            objective(first + i, scores, derivatives);
        }
    }

    /// The way back of what [`Model::read_parts`] and [`Model::predict`] took through the model.
    fn backward(&mut self, parts: usize, scale: T, reference: &[T]) {
        let Self { transformer, weights, adapter, chunks, threads, training, .. } = self;
        let (chunks, adapter) = (&mut chunks[..parts], adapter.as_ref());
        let gradient = &mut training.as_mut().expect("a model that trains").gradient;
        let targets = Targets { hidden: &self.hidden, tokens: &self.targets, scale, reference };
        self.d_hidden.resize(self.hidden.len(), T::ZERO);
        let head_grad = match adapter {
            Some(_) => None,
            None => Some(&mut gradient.theta[transformer.layout.head.clone()]),
        };
        let head = head(transformer, weights);
        head.backward(targets, &mut self.tape, &self.back, head_grad, &mut self.d_hidden, threads);
        if let Some(value_head) = &self.value_head {
            let (values, d_hidden) = (&mut gradient.value, &mut self.d_hidden);
            value_head.backward(transformer.isa, &self.hidden, &self.back.value, values, d_hidden);
        }
        let mut rest = &self.d_hidden[..];
        for chunk in chunks.iter_mut() {
            let d_hidden;
            (d_hidden, rest) = rest.split_at(chunk.hidden.len());
            chunk.d_hidden.clear();
            chunk.d_hidden.extend_from_slice(d_hidden);
        }
        let mut trained = match adapter {
            Some(adapter) => Trained::Adapter(adapter, &mut gradient.theta),
            None => Trained::Model(&mut gradient.theta),
        };
        transformer.backward(weights, adapter, chunks, &mut trained, threads);
        if adapter.is_none() {
            for chunk in chunks.iter() {
                gradient.lookups.extend_from_slice(&chunk.dx);
                gradient.tokens.extend_from_slice(&chunk.rows.tokens);
                gradient.positions.extend_from_slice(&chunk.rows.positions);
            }
        }
    }
}

fn head<'a, T: Real>(transformer: &'a Transformer<T>, weights: &'a Weights<T>) -> Head<'a, T> {
    Head {
        isa: transformer.isa,
        packed: &weights.head,
        hidden_size: transformer.config.hidden_size,
        vocab_size: transformer.config.vocab_size,
    }
}
