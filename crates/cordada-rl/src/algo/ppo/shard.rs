//! A shard of a PPO minibatch: its samples are gathered, run through both networks, scored and
//! run back in chunks that stay in the cache. What a shard adds up depends on its samples alone.

use cordada_nn::kernel::{Isa, Task};

use super::{Objective, PpoConfig, ValueClipping};
use crate::distribution::Distribution;
use crate::estimate::Standardizer;
use crate::estimate::kl::k3;
use crate::objective::{
    Surrogate, ValueClip, clipped_surrogate, clipped_value_loss, dual_clipped_surrogate, surrogate,
};
use crate::policy::{ActorCritic, BLOCK_ROWS, PolicyTape, PolicyWeights};
use crate::rollout::Trajectory;

/// Numbers of an update that are the same for all samples.
#[derive(Clone, Copy, Debug)]
pub(super) struct Coefficients {
    objective: Objective,
    pub(super) clip_eps: f32,
    dual_clip: Option<f32>,
    value_clip: ValueClip<f32>,
    value_coef: f32,
    entropy_coef: f32,
    kl_coef: f32,
}

impl Coefficients {
    pub(super) fn new(config: &PpoConfig, progress: f64, kl_coef: f32) -> Self {
        let eps = config.value_clip_eps as f32;
        Self {
            objective: config.objective,
            clip_eps: config.clip_eps.at(progress) as f32,
            dual_clip: config.dual_clip.map(|c| c as f32),
            value_clip: match config.value_clip {
                ValueClipping::Off => ValueClip::Off,
                ValueClipping::Hold => ValueClip::Hold(eps),
                ValueClipping::Max => ValueClip::Max(eps),
            },
            value_coef: config.value_coef as f32,
            entropy_coef: config.entropy_coef as f32,
            kl_coef,
        }
    }
}

/// A minibatch: where its samples are, and what their advantages are normalized by.
pub(super) struct Batch<'a> {
    trajectories: &'a [Trajectory],
    num_steps: usize,
    /// 1 / M.
    weight: f32,
    advantages: Standardizer,
}

impl<'a> Batch<'a> {
    pub(super) fn new(trajectories: &'a [Trajectory], indices: &[u32], normalize: bool) -> Self {
        let num_steps = trajectories[0].advantages.len();
        let advantages = indices
            .iter()
            .map(|&i| {
                trajectories[i as usize / num_steps].targets[i as usize % num_steps].advantage
            })
            .map(f64::from);
        Self {
            trajectories,
            num_steps,
            weight: 1.0 / indices.len() as f32,
            advantages: if normalize { Standardizer::of(advantages) } else { Standardizer::NONE },
        }
    }
}

/// Sums over samples.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Stats {
    samples: f64,
    policy_objective: f64,
    value_loss: f64,
    entropy: f64,
    approx_kl: f64,
    clipped: f64,
}

/// The same, divided by the number of samples.
#[derive(Clone, Copy, Debug)]
pub(super) struct Means {
    pub(super) policy_objective: f64,
    pub(super) value_loss: f64,
    pub(super) entropy: f64,
    /// The estimate k3 of KL(π_old ‖ π).
    pub(super) approx_kl: f64,
    pub(super) clip_fraction: f64,
}

impl Stats {
    pub(super) fn add(&mut self, other: &Self) {
        self.samples += other.samples;
        self.policy_objective += other.policy_objective;
        self.value_loss += other.value_loss;
        self.entropy += other.entropy;
        self.approx_kl += other.approx_kl;
        self.clipped += other.clipped;
    }

    pub(super) fn means(&self) -> Means {
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
pub(super) struct Shard {
    pub(super) grad: Vec<f32>,
    pub(super) stats: Stats,
    tape: PolicyTape<f32>,
    samples: Samples,
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
}

/// Row t of a `[T, …]` array.
fn row<T>(all: &[T], t: usize, num_steps: usize) -> &[T] {
    let width = all.len() / num_steps;
    &all[t * width..(t + 1) * width]
}

/// Appends a row in blocks of 4: rows are short, and a call to copy one costs more than copying.
#[inline(always)]
fn append<T: Copy>(to: &mut Vec<T>, row: &[T]) {
    let (blocks, rest) = row.as_chunks::<4>();
    for block in blocks {
        to.extend_from_slice(block);
    }
    for x in rest {
        to.push(*x);
    }
}

impl Samples {
    fn gather(&mut self, batch: &Batch<'_>, indices: &[u32], with_params: bool) {
        let Self { x, actions, masks, params, log_prob, advantages, values, returns } = self;
        for list in [&mut *x, actions, params, log_prob, advantages, values, returns] {
            list.clear();
        }
        masks.clear();
        let steps = batch.num_steps;
        for &i in indices {
            let (from, t) = (&batch.trajectories[i as usize / steps], i as usize % steps);
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

    fn masks(&self) -> Option<&[bool]> {
        (!self.masks.is_empty()).then_some(&self.masks[..])
    }
}

/// The policy's objective of each sample, as a task of the processor's own instruction set.
struct PolicyTerms<'a> {
    c: Coefficients,
    weight: f32,
    log_prob: &'a [f32],
    old: &'a [f32],
    advantages: &'a [f32],
    psi: &'a mut [f32],
}

impl Task for PolicyTerms<'_> {
    type Output = Stats;

    /// Writes ψ / M and returns the sums.
    #[inline(always)]
    fn run(self) -> Stats {
        let Self { c, weight, log_prob, old, advantages, psi } = self;
        let mut sums = Stats::default();
        for (((&new, &old), &advantage), psi) in log_prob.iter().zip(old).zip(advantages).zip(psi) {
            let term: Surrogate<f32> = match (c.objective, c.dual_clip) {
                (Objective::Clip, None) => clipped_surrogate(new, old, advantage, c.clip_eps), // eq. (7)
                (Objective::Clip, Some(dual)) => {
                    dual_clipped_surrogate(new, old, advantage, c.clip_eps, dual)
                }
                (Objective::KlPenalty, _) => surrogate(new, old, advantage), // eq. (8)
            };
            *psi = term.psi * weight;
            sums.policy_objective += f64::from(term.objective);
            sums.approx_kl += f64::from(k3(new - old));
            sums.clipped += f64::from(u8::from(term.clipped));
        }
        sums
    }
}

impl Shard {
    pub(super) fn new(network: &ActorCritic) -> Self {
        Self {
            grad: vec![0.0; network.num_params()],
            stats: Stats::default(),
            tape: PolicyTape::default(),
            samples: Samples::default(),
            log_prob: Vec::new(),
            entropy: Vec::new(),
            psi: Vec::new(),
            d_params: Vec::new(),
            d_values: Vec::new(),
        }
    }

    /// Gradient and sums of the samples `indices`.
    pub(super) fn run(
        &mut self,
        network: &ActorCritic,
        weights: &PolicyWeights<f32>,
        batch: &Batch<'_>,
        indices: &[u32],
        c: Coefficients,
    ) {
        self.grad.fill(0.0);
        self.stats = Stats::default();
        let mut tape = std::mem::take(&mut self.tape);
        for chunk in indices.chunks(BLOCK_ROWS) {
            self.samples.gather(batch, chunk, c.objective == Objective::KlPenalty);
            let (params, values) = network.forward(weights, &self.samples.x, &mut tape); // π_θ(· | s), V_θ(s)
            self.score(network.distribution(), params, batch.weight, c);
            self.regress(values, batch.weight, c);
            let d = (&self.d_params[..], &self.d_values[..]);
            network.backward(weights, &self.samples.x, &mut tape, d, &mut self.grad);
        }
        self.tape = tape;
    }

    /// The actor's part of eq. (9), or eq. (8): ψ = ∂L / ∂ log π of each sample, then
    /// Σ ψ ∇ log π + c₂ ∇S in the distribution's parameters.
    fn score(&mut self, pi: &Distribution, params: &[f32], weight: f32, c: Coefficients) {
        let Self { samples, log_prob, entropy, psi, d_params, stats, .. } = self;
        let n = samples.log_prob.len();
        log_prob.resize(n, 0.0);
        entropy.resize(n, 0.0);
        pi.log_prob_entropy_batch(params, samples.masks(), &samples.actions, log_prob, entropy);
        psi.resize(n, 0.0);
        let (old, advantages) = (&samples.log_prob[..], &samples.advantages[..]);
        let sums = Isa::detect().run(PolicyTerms { c, weight, log_prob, old, advantages, psi });
        stats.add(&Stats { entropy: entropy.iter().map(|&h| f64::from(h)).sum(), ..sums });
        stats.samples += n as f64;
        d_params.clear();
        d_params.resize(params.len(), 0.0);
        let (masks, actions) = (samples.masks(), &samples.actions);
        pi.add_score_entropy_batch(params, masks, actions, psi, c.entropy_coef * weight, d_params);
        if c.objective == Objective::KlPenalty {
            self.penalize(pi, params, c.kl_coef * weight);
        }
    }

    /// − β KL(π_old ‖ π_θ) of eq. (8).
    fn penalize(&mut self, pi: &Distribution, params: &[f32], coef: f32) {
        let (p, m) = (pi.num_params(), pi.mask_len());
        let rows = self.samples.params.chunks_exact(p).zip(params.chunks_exact(p));
        for (i, ((old, new), d)) in rows.zip(self.d_params.chunks_exact_mut(p)).enumerate() {
            let mask = self.samples.masks().map(|masks| &masks[i * m..(i + 1) * m]);
            pi.add_kl_gradient_q(old, new, mask, -coef, d);
        }
    }

    /// The critic's part of eq. (9): − c₁ L^VF.
    fn regress(&mut self, values: &[f32], weight: f32, c: Coefficients) {
        self.d_values.clear();
        let old_and_target = self.samples.values.iter().zip(&self.samples.returns);
        for (&value, (&old, &target)) in values.iter().zip(old_and_target) {
            let term = clipped_value_loss(value, old, target, c.value_clip);
            self.stats.value_loss += f64::from(term.loss);
            self.d_values.push(-c.value_coef * weight * term.d_value);
        }
    }
}
