//! A shard of a batch: its samples are gathered, run through the networks, scored and run back in
//! chunks that stay in the cache. What a shard adds up depends on its samples alone.

use cordada_env::{Persist, StateError, StateReader, StateWriter, Stream};
use cordada_nn::kernel::{Isa, Task};

use crate::distribution::Distribution;
use crate::estimate::Standardizer;
use crate::estimate::kl::k3;
use crate::objective::{Surrogate, ValueClip, clipped_value_loss};
use crate::policy::{ActorCritic, BLOCK_ROWS, PolicyTape, PolicyWeights, Sequences};
use crate::rollout::Trajectory;

/// The policy's objective of one sample: the one thing that on-policy methods differ in here.
pub trait PolicyObjective: Copy + Send + Sync {
    /// Objective and ψ of a sample. Must be `#[inline(always)]`, like all of [`Task`]'s loops.
    fn term(self, log_prob: f32, old_log_prob: f32, advantage: f32) -> Surrogate<f32>;
}

/// What is ascended: `mean( objective − c₁ value loss + c₂ entropy − β KL(π_old ‖ π) )`.
#[derive(Clone, Copy, Debug)]
pub struct Loss<P> {
    /// The policy's objective; none leaves the policy alone.
    pub policy: Option<P>,
    /// c₁; none leaves the critic alone.
    pub value_coef: Option<f32>,
    /// How the value loss is clipped.
    pub value_clip: ValueClip<f32>,
    /// c₂.
    pub entropy_coef: f32,
    /// β; 0 for no penalty.
    pub kl_coef: f32,
}

impl<P> Loss<P> {
    /// The policy's objective alone.
    pub fn policy(objective: P) -> Self {
        let (value_coef, value_clip) = (None, ValueClip::Off);
        Self { policy: Some(objective), value_coef, value_clip, entropy_coef: 0.0, kl_coef: 0.0 }
    }

    /// The value loss alone.
    pub fn value() -> Self {
        let (value_coef, value_clip) = (Some(1.0), ValueClip::Off);
        Self { policy: None, value_coef, value_clip, entropy_coef: 0.0, kl_coef: 0.0 }
    }
}

/// Where a sample is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Its trajectory.
    pub env: u32,
    /// Its step there.
    pub step: u32,
}

/// Samples to learn from together.
#[derive(Clone, Copy, Debug)]
pub enum Work<'a> {
    /// Steps in any order.
    Steps(&'a [Sample]),
    /// Whole trajectories, for policies with memory.
    Sequences(&'a [u32]),
}

/// A minibatch: where its samples are, and what their advantages are normalized by.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    trajectories: &'a [Trajectory],
    /// M.
    len: usize,
    /// 1 / M.
    weight: f32,
    advantages: Standardizer,
}

impl<'a> Batch<'a> {
    /// A batch of all samples of `work`.
    pub fn new(trajectories: &'a [Trajectory], work: Work<'_>, normalize: bool) -> Self {
        let advantage =
            |env: u32, t: usize| f64::from(trajectories[env as usize].targets[t].advantage);
        let (count, advantages) = match work {
            Work::Steps(samples) => {
                let all = samples.iter().map(|sample| advantage(sample.env, sample.step as usize));
                (samples.len(), normalize.then(|| Standardizer::of(all)))
            }
            Work::Sequences(envs) => {
                let steps = |env: u32| 0..trajectories[env as usize].num_steps();
                let all = || envs.iter().flat_map(|&env| steps(env).map(move |t| (env, t)));
                let values: Vec<f64> = all().map(|(env, t)| advantage(env, t)).collect();
                (values.len(), normalize.then(|| Standardizer::of(values.into_iter())))
            }
        };
        let advantages = advantages.unwrap_or(Standardizer::NONE);
        Self { trajectories, len: count, weight: 1.0 / count as f32, advantages }
    }
}

impl Batch<'_> {
    /// M.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no samples.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// Sums over samples.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stats {
    samples: f64,
    policy_objective: f64,
    value_loss: f64,
    entropy: f64,
    approx_kl: f64,
    clipped: f64,
}

/// The same, divided by the number of samples.
#[derive(Clone, Copy, Debug)]
pub struct Means {
    /// The policy's objective.
    pub policy_objective: f64,
    /// Half the squared error of the values.
    pub value_loss: f64,
    /// Entropy of the policy, in nats.
    pub entropy: f64,
    /// The estimate k3 of KL(π_old ‖ π).
    pub approx_kl: f64,
    /// Share of samples whose ratio the objective clips.
    pub clip_fraction: f64,
}

impl Stats {
    /// Adds other samples.
    pub fn add(&mut self, other: &Self) {
        self.samples += other.samples;
        self.policy_objective += other.policy_objective;
        self.value_loss += other.value_loss;
        self.entropy += other.entropy;
        self.approx_kl += other.approx_kl;
        self.clipped += other.clipped;
    }

    /// Means over the samples.
    pub fn means(&self) -> Means {
        let n = self.samples.max(1.0);
        Means {
            policy_objective: self.policy_objective / n,
            value_loss: self.value_loss / n,
            entropy: self.entropy / n,
            approx_kl: self.approx_kl / n,
            clip_fraction: self.clipped / n,
        }
    }
}

/// Gradient, sums and working memory of one shard.
#[derive(Debug)]
pub struct Shard {
    /// Gradient of its samples, to be ascended: as θ.
    pub grad: Vec<f32>,
    /// Sums over its samples.
    pub stats: Stats,
    tape: PolicyTape<f32>,
    samples: Samples,
    order: Vec<Sample>,
    log_prob: Vec<f32>,
    entropy: Vec<f32>,
    /// ∂L / ∂ log π of each sample, times 1 / M.
    psi: Vec<f32>,
    d_params: Vec<f32>,
    d_values: Vec<f32>,
}

/// Samples gathered from the trajectories, side by side.
#[derive(Debug, Default)]
struct Samples {
    x: Vec<f32>,
    actions: Vec<f32>,
    masks: Vec<bool>,
    /// Parameters of π_old, gathered only for the penalty.
    params: Vec<f32>,
    log_prob: Vec<f32>,
    advantages: Vec<f32>,
    values: Vec<f32>,
    returns: Vec<f32>,
    /// For sequences.
    starts: Vec<bool>,
    state: Vec<f32>,
}

/// Row t of a `[T, …]` array.
pub(in crate::algo) fn row<T>(all: &[T], t: usize, num_steps: usize) -> &[T] {
    let width = all.len() / num_steps;
    &all[t * width..(t + 1) * width]
}

/// Appends a row in blocks of 4: rows are short, and a call to copy one costs more than copying.
#[inline(always)]
pub(in crate::algo) fn append<T: Copy>(to: &mut Vec<T>, row: &[T]) {
    let (blocks, rest) = row.as_chunks::<4>();
    for block in blocks {
        to.extend_from_slice(block);
    }
    for x in rest {
        to.push(*x);
    }
}

impl Samples {
    fn gather(&mut self, batch: &Batch<'_>, order: &[Sample], with_params: bool) {
        let Self { x, actions, masks, params, log_prob, advantages, values, returns, .. } = self;
        for list in [&mut *x, actions, params, log_prob, advantages, values, returns] {
            list.clear();
        }
        masks.clear();
        for sample in order {
            let (from, t) = (&batch.trajectories[sample.env as usize], sample.step as usize);
            let steps = from.num_steps();
            append(x, row(&from.inputs, t, steps));
            append(actions, row(&from.actions, t, steps));
            append(masks, row(&from.masks, t, steps));
            if with_params {
                append(params, row(&from.params, t, steps));
            }
            let target = from.targets[t];
            log_prob.push(target.log_prob);
            advantages.push(batch.advantages.apply(target.advantage));
            values.push(target.value);
            returns.push(target.returns);
        }
    }

    /// Where episodes begin in sequences side by side, time first, and what was remembered.
    fn gather_memory(&mut self, batch: &Batch<'_>, envs: &[u32], order: &[Sample]) {
        self.starts.clear();
        self.state.clear();
        let starts = |s: &Sample| batch.trajectories[s.env as usize].starts(s.step as usize);
        self.starts.extend(order.iter().map(starts));
        for &env in envs {
            self.state.extend_from_slice(&batch.trajectories[env as usize].memory);
        }
    }

    fn masks(&self) -> Option<&[bool]> {
        (!self.masks.is_empty()).then_some(&self.masks[..])
    }
}

/// The policy's objective of each sample, as a task of the processor's own instruction set.
struct PolicyTerms<'a, P> {
    objective: P,
    weight: f32,
    log_prob: &'a [f32],
    old: &'a [f32],
    advantages: &'a [f32],
    psi: &'a mut [f32],
}

impl<P: PolicyObjective> Task for PolicyTerms<'_, P> {
    type Output = Stats;

    /// Writes ψ / M and returns the sums.
    #[inline(always)]
    fn run(self) -> Stats {
        let Self { objective, weight, log_prob, old, advantages, psi } = self;
        let mut sums = Stats::default();
        for (((&new, &old), &advantage), psi) in log_prob.iter().zip(old).zip(advantages).zip(psi) {
            let term = objective.term(new, old, advantage);
            *psi = term.psi * weight;
            sums.policy_objective += f64::from(term.objective);
            sums.approx_kl += f64::from(k3(new - old));
            sums.clipped += f64::from(u8::from(term.clipped));
        }
        sums
    }
}

impl Shard {
    /// Room for the gradient of `network`.
    pub fn new(network: &ActorCritic) -> Self {
        Self {
            grad: vec![0.0; network.num_params()],
            stats: Stats::default(),
            tape: PolicyTape::default(),
            samples: Samples::default(),
            order: Vec::new(),
            log_prob: Vec::new(),
            entropy: Vec::new(),
            psi: Vec::new(),
            d_params: Vec::new(),
            d_values: Vec::new(),
        }
    }

    /// Gradient and sums of the samples of `work`.
    pub fn run<P: PolicyObjective>(
        &mut self,
        network: &ActorCritic,
        weights: &PolicyWeights<f32>,
        batch: &Batch<'_>,
        work: Work<'_>,
        loss: Loss<P>,
    ) {
        self.grad.fill(0.0);
        self.stats = Stats::default();
        match work {
            Work::Steps(samples) => {
                for chunk in samples.chunks(BLOCK_ROWS) {
                    self.samples.gather(batch, chunk, loss.kl_coef != 0.0);
                    self.chunk(network, weights, batch.weight, None, loss);
                }
            }
            Work::Sequences(envs) => {
                let steps = |env: u32| batch.trajectories[env as usize].num_steps() as u32;
                // Side by side as far as they are of one length.
                for envs in envs.chunk_by(|a, b| steps(*a) == steps(*b)) {
                    self.order.clear();
                    for step in 0..steps(envs[0]) {
                        self.order.extend(envs.iter().map(|&env| Sample { env, step }));
                    }
                    self.samples.gather(batch, &self.order, loss.kl_coef != 0.0);
                    self.samples.gather_memory(batch, envs, &self.order);
                    let starts = std::mem::take(&mut self.samples.starts);
                    let state = std::mem::take(&mut self.samples.state);
                    let sequences = Sequences { starts: &starts, state: &state };
                    self.chunk(network, weights, batch.weight, Some(sequences), loss);
                    (self.samples.starts, self.samples.state) = (starts, state);
                }
            }
        }
    }

    /// The gathered samples, forward and back.
    fn chunk<P: PolicyObjective>(
        &mut self,
        network: &ActorCritic,
        weights: &PolicyWeights<f32>,
        weight: f32,
        sequences: Option<Sequences<'_, f32>>,
        loss: Loss<P>,
    ) {
        let mut tape = std::mem::take(&mut self.tape);
        let x = std::mem::take(&mut self.samples.x);
        let (params, values) = match (loss.policy, loss.value_coef) {
            (None, _) => (&[][..], network.value(weights, &x, &mut [], &mut tape)),
            (_, None) if network.is_separate() => {
                (network.act(weights, &x, &mut [], &mut tape), &[][..])
            }
            _ => network.forward(weights, &x, sequences, &mut tape), // π_θ(· | s), V_θ(s)
        };
        if let Some(objective) = loss.policy {
            self.score(network.distribution(), params, weight, (objective, &loss));
        }
        if let Some(coef) = loss.value_coef {
            self.regress(values, coef * weight, loss.value_clip);
        }
        self.stats.samples += self.samples.log_prob.len() as f64;
        let d_params = loss.policy.map(|_| &self.d_params[..]);
        let d_values = loss.value_coef.map(|_| &self.d_values[..]);
        network.backward(weights, &x, &mut tape, (d_params, d_values), &mut self.grad);
        (self.tape, self.samples.x) = (tape, x);
    }

    /// The actor's part: ψ = ∂L / ∂ log π of each sample, then Σ ψ ∇ log π + c₂ ∇S in the
    /// distribution's parameters.
    fn score<P: PolicyObjective>(
        &mut self,
        pi: &Distribution,
        params: &[f32],
        weight: f32,
        (objective, loss): (P, &Loss<P>),
    ) {
        let Self { samples, log_prob, entropy, psi, d_params, stats, .. } = self;
        let n = samples.log_prob.len();
        log_prob.resize(n, 0.0);
        entropy.resize(n, 0.0);
        pi.log_prob_entropy_batch(params, samples.masks(), &samples.actions, log_prob, entropy);
        psi.resize(n, 0.0);
        let (old, advantages) = (&samples.log_prob[..], &samples.advantages[..]);
        let terms = PolicyTerms { objective, weight, log_prob, old, advantages, psi };
        let sums = Isa::detect().run(terms);
        stats.add(&Stats { entropy: entropy.iter().map(|&h| f64::from(h)).sum(), ..sums });
        d_params.clear();
        d_params.resize(params.len(), 0.0);
        let (masks, actions) = (samples.masks(), &samples.actions);
        let entropy_coef = loss.entropy_coef * weight;
        pi.add_score_entropy_batch(params, masks, actions, psi, entropy_coef, d_params);
        if loss.kl_coef != 0.0 {
            self.penalize(pi, params, loss.kl_coef * weight);
        }
    }

    /// − β KL(π_old ‖ π_θ).
    fn penalize(&mut self, pi: &Distribution, params: &[f32], coef: f32) {
        let (p, m) = (pi.num_params(), pi.mask_len());
        let rows = self.samples.params.chunks_exact(p).zip(params.chunks_exact(p));
        for (i, ((old, new), d)) in rows.zip(self.d_params.chunks_exact_mut(p)).enumerate() {
            let mask = self.samples.masks().map(|masks| &masks[i * m..(i + 1) * m]);
            pi.add_kl_gradient_q(old, new, mask, -coef, d);
        }
    }

    /// The critic's part: − c₁ times the value loss.
    fn regress(&mut self, values: &[f32], coef: f32, clip: ValueClip<f32>) {
        self.d_values.clear();
        let old_and_target = self.samples.values.iter().zip(&self.samples.returns);
        for (&value, (&old, &target)) in values.iter().zip(old_and_target) {
            let term = clipped_value_loss(value, old, target, clip);
            self.stats.value_loss += f64::from(term.loss);
            self.d_values.push(-coef * term.d_value);
        }
    }
}

/// The order in which an epoch goes through the samples of an iteration.
#[derive(Clone, Debug)]
pub enum Order {
    /// Steps.
    Steps(Vec<Sample>),
    /// Whole trajectories, for policies with memory.
    Sequences(Vec<u32>),
}

impl Order {
    /// All samples of N trajectories of T steps, one after the other; whole trajectories if
    /// `memory` is set.
    pub fn new(num_envs: usize, num_steps: usize, memory: bool) -> Self {
        let envs = 0..num_envs as u32;
        if memory {
            return Self::Sequences(envs.collect());
        }
        let steps = |env| (0..num_steps as u32).map(move |step| Sample { env, step });
        Self::Steps(envs.flat_map(steps).collect())
    }

    /// Another order.
    pub fn shuffle(&mut self, stream: &mut Stream) {
        match self {
            Self::Steps(samples) => stream.shuffle(samples),
            Self::Sequences(envs) => stream.shuffle(envs),
        }
    }

    /// Part `i` of `n` equal ones (the last may be smaller).
    pub fn part(&self, i: usize, n: usize) -> Work<'_> {
        let range = |len: usize| {
            let size = len.div_ceil(n);
            (i * size).min(len)..((i + 1) * size).min(len)
        };
        match self {
            Self::Steps(samples) => Work::Steps(&samples[range(samples.len())]),
            Self::Sequences(envs) => Work::Sequences(&envs[range(envs.len())]),
        }
    }

    /// Everything.
    pub fn all(&self) -> Work<'_> {
        self.part(0, 1)
    }
}

impl Persist for Order {
    fn save(&self, w: &mut StateWriter) {
        let numbers: Vec<u64> = match self {
            Self::Steps(samples) => {
                samples.iter().map(|s| u64::from(s.env) << 32 | u64::from(s.step)).collect()
            }
            Self::Sequences(envs) => envs.iter().map(|&env| u64::from(env)).collect(),
        };
        w.u64s(&numbers);
    }

    fn load(&mut self, r: &mut StateReader<'_>) -> Result<(), StateError> {
        let numbers = r.u64s()?;
        let len = match self {
            Self::Steps(samples) => samples.len(),
            Self::Sequences(envs) => envs.len(),
        };
        if numbers.len() != len {
            let (what, expected, found) =
                ("order of samples", len.to_string(), numbers.len().to_string());
            return Err(StateError::Mismatch { what, expected, found });
        }
        match self {
            Self::Steps(samples) => {
                for (to, from) in samples.iter_mut().zip(numbers) {
                    *to = Sample { env: (from >> 32) as u32, step: from as u32 };
                }
            }
            Self::Sequences(envs) => {
                envs.iter_mut().zip(numbers).for_each(|(to, from)| *to = from as u32);
            }
        }
        Ok(())
    }
}
