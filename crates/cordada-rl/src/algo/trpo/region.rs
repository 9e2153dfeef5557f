//! The samples of an iteration as a trust region sees them: products of their Fisher matrix with
//! vectors, and the surrogate and the divergence of a policy that has moved. Which way to go, and
//! how far, is not decided here.

use cordada_nn::kernel::{Isa, Task, add_assign};

use super::super::on_policy::{MAX_SHARDS, SHARD_ROWS, Sample, append, each, row};
use crate::error::Error;
use crate::objective::surrogate;
use crate::policy::{ActorCritic, BLOCK_ROWS, PolicyTape, PolicyWeights};
use crate::rollout::Trajectory;

/// All samples of an iteration, in parts that threads work on side by side. Into which parts they
/// fall depends on their number alone.
#[derive(Debug)]
pub struct Region {
    parts: Vec<Part>,
    /// Samples, and those of them that the Fisher matrix is the mean over.
    len: usize,
    in_fisher: usize,
    /// The direction of a product: as θ, and packed.
    direction: Vec<f32>,
    packed: PolicyWeights<f32>,
}

/// A part of the samples, with what it adds up to.
#[derive(Debug)]
struct Part {
    blocks: Vec<Block>,
    /// Blocks in use, and those of them that the Fisher matrix is made of, which come first.
    len: usize,
    in_fisher: usize,
    /// As θ.
    grad: Vec<f32>,
    surrogate: f64,
    kl: f64,
    /// A row of the distribution's parameters.
    row: Vec<f32>,
}

/// As many rows as stay in the cache.
#[derive(Debug, Default)]
struct Block {
    x: Vec<f32>,
    masks: Vec<bool>,
    actions: Vec<f32>,
    /// π_old of the actions.
    old: Vec<f32>,
    old_params: Vec<f32>,
    advantages: Vec<f32>,
    /// The last forward pass, which products are taken at.
    tape: PolicyTape<f32>,
    params: Vec<f32>,
    /// Derivatives of the parameters.
    d_params: Vec<f32>,
    log_prob: Vec<f32>,
    entropy: Vec<f32>,
}

/// Actor and weights, and threads.
pub type At<'a> = (&'a ActorCritic, &'a PolicyWeights<f32>, Option<&'a rayon::ThreadPool>);

/// Σ r A of a block, as a task of the processor's own instruction set.
struct SurrogateSum<'a>(&'a [f32], &'a [f32], &'a [f32]);

impl Task for SurrogateSum<'_> {
    type Output = f64;

    #[inline(always)]
    fn run(self) -> f64 {
        let Self(log_prob, old, advantages) = self;
        let rows = log_prob.iter().zip(old).zip(advantages);
        rows.map(|((&new, &old), &advantage)| f64::from(surrogate(new, old, advantage).objective))
            .sum()
    }
}

impl Block {
    fn gather(&mut self, trajectories: &[Trajectory], samples: impl Iterator<Item = Sample>) {
        let Self { x, masks, actions, old, old_params, advantages, .. } = self;
        for list in [&mut *x, actions, old, old_params, advantages] {
            list.clear();
        }
        masks.clear();
        for sample in samples {
            let (from, t) = (&trajectories[sample.env as usize], sample.step as usize);
            let steps = from.num_steps();
            append(x, row(&from.inputs, t, steps));
            append(masks, row(&from.masks, t, steps));
            append(actions, row(&from.actions, t, steps));
            append(old_params, row(&from.params, t, steps));
            old.push(from.targets[t].log_prob);
            advantages.push(from.targets[t].advantage);
        }
    }

    fn masks(&self) -> Option<&[bool]> {
        (!self.masks.is_empty()).then_some(&self.masks[..])
    }

    /// The parameters of π_θ in each row; products are taken here from now on.
    fn forward(&mut self, network: &ActorCritic, weights: &PolicyWeights<f32>) {
        let params = network.act(weights, &self.x, &mut [], &mut self.tape);
        self.params.clear();
        self.params.extend_from_slice(params);
    }

    /// `grad` += weight Jᵀ F_rows J v.
    fn add_product(
        &mut self,
        (network, weights): (&ActorCritic, &PolicyWeights<f32>),
        v: &PolicyWeights<f32>,
        weight: f32,
        (row, grad): (&mut [f32], &mut [f32]),
    ) {
        let mut d_params = std::mem::take(&mut self.d_params);
        d_params.resize(self.params.len(), 0.0);
        network.actor_jvp(weights, v, &self.x, &mut self.tape, &mut d_params); // J v
        let pi = network.distribution();
        pi.fisher_product_batch(&self.params, self.masks(), &mut d_params, row);
        for d in &mut d_params {
            *d *= weight;
        }
        network.backward(weights, &self.x, &mut self.tape, (Some(&d_params), None), grad); // Jᵀ
        self.d_params = d_params;
    }

    /// Σ r A and Σ KL(π_old ‖ π_θ).
    fn sums(&mut self, network: &ActorCritic, weights: &PolicyWeights<f32>) -> (f64, f64) {
        self.forward(network, weights);
        let pi = network.distribution();
        let n = self.old.len();
        let (mut log_prob, mut entropy) =
            (std::mem::take(&mut self.log_prob), std::mem::take(&mut self.entropy));
        log_prob.resize(n, 0.0);
        entropy.resize(n, 0.0);
        let masks = self.masks();
        pi.log_prob_entropy_batch(&self.params, masks, &self.actions, &mut log_prob, &mut entropy);
        let kl = pi.kl_sum(&self.old_params, &self.params, masks);
        let sum = Isa::detect().run(SurrogateSum(&log_prob, &self.old, &self.advantages));
        (self.log_prob, self.entropy) = (log_prob, entropy);
        (sum, kl)
    }
}

impl Region {
    /// Room for the products of `network`, whose actor is apart.
    pub fn new(network: &ActorCritic) -> Self {
        let direction = vec![0.0; network.num_params()];
        Self { parts: Vec::new(), len: 0, in_fisher: 0, direction, packed: network.weights() }
    }

    /// Takes up samples; the Fisher matrix is the mean over every `every`-th of them.
    pub fn gather(
        &mut self,
        network: &ActorCritic,
        trajectories: &[Trajectory],
        samples: &[Sample],
        every: usize,
    ) {
        let num_parts = (samples.len() / SHARD_ROWS).clamp(1, MAX_SHARDS);
        let part = || Part {
            blocks: Vec::new(),
            len: 0,
            in_fisher: 0,
            grad: vec![0.0; network.num_params()],
            surrogate: 0.0,
            kl: 0.0,
            row: vec![0.0; network.distribution().num_params()],
        };
        self.parts.resize_with(num_parts, part);
        (self.len, self.in_fisher) = (samples.len(), 0);
        let per_part = samples.len().div_ceil(num_parts);
        for (part, samples) in self.parts.iter_mut().zip(samples.chunks(per_part)) {
            // Those of the Fisher matrix come first, in blocks of their own.
            let chosen = samples.iter().copied().step_by(every);
            let others = samples.iter().copied().enumerate();
            let others = others.filter(|(i, _)| !i.is_multiple_of(every)).map(|(_, sample)| sample);
            self.in_fisher += chosen.len();
            part.len = 0;
            part.fill(trajectories, chosen);
            part.in_fisher = part.len;
            part.fill(trajectories, others);
        }
    }

    /// Takes the Fisher matrix at this θ.
    pub fn forward(&mut self, (network, weights, pool): At<'_>) {
        run(pool, &mut self.parts, |part| {
            part.blocks[..part.in_fisher].iter_mut().for_each(|b| b.forward(network, weights));
        });
    }

    /// F v: the mean of Jᵀ F_row J v, where J is the derivative of a row's parameters in θ and
    /// `F_row` the Fisher matrix in them; at the θ of the last `forward`.
    ///
    /// # Shapes
    ///
    /// `v`, `out`: the actor's part of θ.
    pub fn fisher_product(&mut self, at: At<'_>, v: &[f32], out: &mut [f32]) {
        let (network, weights, pool) = at;
        let Self { parts, direction, packed, in_fisher, .. } = self;
        let actor = network.actor_range();
        direction[actor.clone()].copy_from_slice(v);
        network.pack_actor(direction, packed);
        let weight = 1.0 / *in_fisher as f32;
        run(pool, parts, |part| {
            let Part { blocks, in_fisher, grad, row, .. } = part;
            grad[actor.clone()].fill(0.0);
            for block in &mut blocks[..*in_fisher] {
                block.add_product((network, weights), packed, weight, (row, grad));
            }
        });
        out.fill(0.0);
        for part in parts {
            add_assign(Isa::detect(), out, &part.grad[actor.clone()]);
        }
    }

    /// The surrogate, mean of r A, and the mean of KL(π_old ‖ π_θ) over all samples.
    ///
    /// # Units
    ///
    /// KL: nats.
    pub fn surrogate_and_kl(&mut self, (network, weights, pool): At<'_>) -> (f64, f64) {
        run(pool, &mut self.parts, |part| {
            (part.surrogate, part.kl) = (0.0, 0.0);
            for block in &mut part.blocks[..part.len] {
                let (sum, kl) = block.sums(network, weights);
                part.surrogate += sum;
                part.kl += kl;
            }
        });
        let sums = self.parts.iter().fold((0.0, 0.0), |(a, b), p| (a + p.surrogate, b + p.kl));
        (sums.0 / self.len as f64, sums.1 / self.len as f64)
    }

    /// Samples that the Fisher matrix is the mean over.
    pub fn in_fisher(&self) -> usize {
        self.in_fisher
    }
}

impl Part {
    /// Adds blocks of these samples.
    fn fill(&mut self, trajectories: &[Trajectory], samples: impl Iterator<Item = Sample>) {
        let mut samples = samples.peekable();
        while samples.peek().is_some() {
            if self.blocks.len() == self.len {
                self.blocks.push(Block::default());
            }
            self.blocks[self.len].gather(trajectories, samples.by_ref().take(BLOCK_ROWS));
            self.len += 1;
        }
    }
}

/// Runs what cannot fail on every part.
fn run(pool: Option<&rayon::ThreadPool>, parts: &mut [Part], f: impl Fn(&mut Part) + Sync) {
    let done = each(pool, parts.iter_mut(), |part| -> Result<(), Error> {
        f(part);
        Ok(())
    });
    debug_assert!(done.is_ok(), "parts do not fail");
}
