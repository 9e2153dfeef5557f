//! Natural policy gradient, and trust region policy optimization: steps that are measured by how
//! far the policy moves, not by how far its parameters do.
//!
//! # Source
//!
//! Kakade 2001, "A natural policy gradient", NIPS 14; Schulman et al. 2015, "Trust region policy
//! optimization", arXiv:1502.05477.
//!
//! # Algorithm
//!
//! ```text
//! 1  repeat
//! 2      run π_old in N environments for T steps
//! 3      Â_t by GAE; normalized over the iteration
//! 4      g = ∇ mean( π_θ(a | s) / π_old(a | s) Â ) at θ_old
//! 5      x ≈ (F + c I)⁻¹ g by conjugate gradient
//! 6      β = √(2 δ / xᵀ (F + c I) x)
//! 7      NPG: θ = θ_old + β x
//!        TRPO: θ = θ_old + sⁱ β x for the first i = 0, 1, … at which
//!              mean KL(π_old ‖ π_θ) < δ and the surrogate is better; θ_old if there is none
//! 8      K epochs of minibatches on the values' squared error
//! ```
//!
//! | formula | here |
//! |---|---|
//! | Â | [`gae`](crate::estimate::gae) |
//! | eq. (14), the surrogate | [`surrogate`](crate::objective::surrogate) |
//! | F v of appendix C.1 | [`Region::fisher_product`] |
//! | x | [`ConjugateGradient`] |
//! | β of appendix C | [`step_size`] |
//! | line search of appendix C | [`Backtracking`] |
//!
//! # Differences from the paper
//!
//! - The divergence is the mean over the states, as in the paper's practical form, computed from
//!   the distributions and not estimated from the actions.
//! - Advantages are GAE's (Schulman et al. 2016) and normalized; the critic learns by Adam.
//! - Actor and critic have no layer in common, for the actor moves by itself: no trunk, no
//!   convolutions, no memory.
//! - NPG takes the step of length β rather than one of fixed step size, as most programs do.
//!
//! # Defaults
//!
//! Those of sb3-contrib's `TRPO`, but for 1 environment of 2048 steps and a limit on the norm of
//! the critic's gradient.

mod region;

use cordada_env::{Persist, StateError, StateReader, StateWriter, Stream, role};
use cordada_nn::{Optimizer, Schedule};

use super::a2c::Weighted;
use super::on_policy::{
    self, Loss, OnPolicy, OnPolicyMethod, Order, PolicyObjective, Sample, Shape, Stats, Work,
    load_optimizer, save_optimizer,
};
use super::{ANY_OBS, AlgoSpec, Report, Resume, Setup};
use crate::config::{Checks, Config, Field};
use crate::error::Error;
use crate::estimate::Standardizer;
use crate::objective::{self, Surrogate};
use crate::settings::{Memory, NetworkConfig, ScalingConfig, SegmentConfig, StepConfig};
use crate::trust_region::{Backtracking, ConjugateGradient, LineSearch, step_size};

pub use region::{At, Region};

/// TRPO in the list of algorithms.
pub const TRPO: AlgoSpec = AlgoSpec {
    name: "trpo",
    title: "Trust region policy optimization",
    paper: "Schulman et al. 2015, arXiv:1502.05477",
    on_policy: true,
    accepts: on_policy::ACCEPTS,
    takes: on_policy::takes,
    observes: ANY_OBS,
    sees: |_| true,
    recurrent: false,
    masks: true,
    resume: Resume::Exact,
    fields: TrpoConfig::FIELDS,
    complete: |table| Ok(TrpoConfig::default().with_table("trpo", table)?.to_table()),
    make: |setup| Ok(Box::new(Trpo::new(&TRPO, &TrpoConfig::default(), setup)?)),
};

/// The natural policy gradient in the list of algorithms.
pub const NPG: AlgoSpec = AlgoSpec {
    name: "npg",
    title: "Natural policy gradient",
    paper: "Kakade 2001, NIPS 14; as in Schulman et al. 2015, arXiv:1502.05477, section 7",
    complete: |table| Ok(TrpoConfig::npg().with_table("npg", table)?.to_table()),
    make: |setup| Ok(Box::new(Trpo::new(&NPG, &TrpoConfig::npg(), setup)?)),
    ..TRPO
};

crate::config! {
    /// Settings of TRPO and of the natural policy gradient.
    pub struct TrpoConfig {
        /// δ, mean KL(π_old ‖ π) of an iteration's step, in nats; above 0 (paper: 0.01).
        target_kl: f64 = 0.01, alias ["max_kl"];
        /// c, added to the Fisher matrix's diagonal.
        cg_damping: f64 = 0.1;
        /// Steps of conjugate gradient at most; at least 1 (paper: 10).
        cg_max_steps: usize = 15;
        /// Squared length of what is left over at which conjugate gradient stops.
        cg_residual_tol: f64 = 1e-10;
        /// The Fisher matrix is the mean over every how-many-th sample; at least 1.
        fisher_subsample: usize = 1, alias ["sub_sampling_factor"];
        /// Whether the step is shrunk until it is good (TRPO) or taken as it is (NPG).
        line_search: bool = true;
        /// s, by which a step that is not good is shrunk; between 0 and 1.
        line_search_shrink: f64 = 0.8, alias ["line_search_shrinking_factor"];
        /// Steps that are tried at most; at least 1.
        line_search_max_tries: usize = 10, alias ["line_search_max_iter"];
        /// K, passes of the critic over the samples of an iteration; at least 1.
        critic_epochs: usize = 10, alias ["n_critic_updates"];
        /// Samples of one of the critic's steps; at least 1.
        critic_batch_size: usize = 128, alias ["batch_size"];
        /// Whether advantages are normalized over the iteration.
        normalize_advantages: bool = true, alias ["normalize_advantage"];
    }
    groups {
        /// Segments.
        segment: SegmentConfig =
            SegmentConfig { num_envs: 1, num_steps: 2048, ..SegmentConfig::default() };
        /// Steps of the critic.
        step: StepConfig = StepConfig {
            learning_rate: Schedule::Constant(1e-3),
            ..StepConfig::default()
        };
        /// Networks.
        network: NetworkConfig = NetworkConfig::default();
        /// Scaling.
        scaling: ScalingConfig = ScalingConfig::default();
    }
}

impl TrpoConfig {
    /// The natural policy gradient's.
    pub fn npg() -> Self {
        Self { line_search: false, ..Self::default() }
    }
}

impl Config for TrpoConfig {
    const FIELDS: &'static [Field] = TrpoConfig::FIELDS;

    fn check(&self, section: &str) -> Result<(), Error> {
        let check = Checks { section };
        self.segment.check(check)?;
        self.step.check(check)?;
        self.network.check(check)?;
        self.scaling.check(check)?;
        check.counts(&[
            ("cg_max_steps", self.cg_max_steps),
            ("fisher_subsample", self.fisher_subsample),
            ("line_search_max_tries", self.line_search_max_tries),
            ("critic_epochs", self.critic_epochs),
            ("critic_batch_size", self.critic_batch_size),
        ])?;
        // As f32, which θ is.
        let fits = |x: f64| x as f32 > 0.0 && x.is_finite();
        check.number("target_kl", self.target_kl, fits, "a number above 0")?;
        check.weights(&[
            ("cg_damping", self.cg_damping),
            ("cg_residual_tol", self.cg_residual_tol),
        ])?;
        let inside = |x: f64| x as f32 > 0.0 && (x as f32) < 1.0;
        let expected = "a number between 0 and 1";
        check.number("line_search_shrink", self.line_search_shrink, inside, expected)?;
        let apart = "for the actor moves without the critic";
        if self.network.memory != Memory::None {
            return Err(check.refuse("memory", "set", &format!("\"none\", {apart}")));
        }
        if !self.network.trunk.is_empty() {
            let trunk = format!("{:?}", self.network.trunk);
            return Err(check.refuse("trunk", trunk, &format!("[], {apart}")));
        }
        Ok(())
    }
}

/// π_θ / π_old Â.
#[derive(Clone, Copy, Debug)]
struct Ratio;

impl PolicyObjective for Ratio {
    #[inline(always)]
    fn term(self, log_prob: f32, old: f32, advantage: f32) -> Surrogate<f32> {
        objective::surrogate(log_prob, old, advantage)
    }
}

/// The learner.
#[derive(Debug)]
pub struct Trpo {
    config: TrpoConfig,
    common: OnPolicy,
    region: Region,
    solver: ConjugateGradient<f32>,
    search: Backtracking<f32>,
    /// x, and θ of the actor: as the actor's part of θ.
    x: Vec<f32>,
    actor: Vec<f32>,
    samples: Vec<Sample>,
    optimizer: Optimizer<f32>,
    order: Order,
    shuffle: Stream,
}

/// What the policy's step tells.
#[derive(Clone, Copy, Debug, Default)]
struct Moved {
    before: Stats,
    grad_norm: f64,
    residual: f64,
    cg_steps: usize,
    /// How often the step was shrunk; −1 if none was good.
    shrunk: f64,
    surrogate: f64,
    kl: f64,
}

impl Trpo {
    /// A learner at its start, with `defaults` for what is not set.
    ///
    /// # Errors
    ///
    /// [`Error::BadValue`] or [`Error::UnknownKey`] for the settings, [`Error::Space`] if it
    /// cannot act in the environment.
    pub fn new(algo: &AlgoSpec, defaults: &TrpoConfig, setup: &Setup<'_>) -> Result<Self, Error> {
        let config = defaults.with_table(algo.name, setup.settings)?;
        let SegmentConfig { num_envs, num_steps, gamma, .. } = config.segment;
        let shape = Shape {
            network: &config.network,
            critic: true,
            scaling: &config.scaling,
            num_envs,
            num_steps,
            gamma,
            batch_rows: config.segment.batch_size(),
        };
        let common = OnPolicy::new(algo, setup, shape)?;
        if !common.network.is_separate() {
            let expected = "\"flat\", for the actor moves without the critic";
            return Err(Checks { section: algo.name }.refuse("encoder", "\"auto\"", expected));
        }
        let (tol, damping) = (config.cg_residual_tol as f32, config.cg_damping as f32);
        let (target, shrink) = (config.target_kl as f32, config.line_search_shrink as f32);
        let len = common.network.actor_range().len();
        Ok(Self {
            region: Region::new(&common.network),
            solver: ConjugateGradient::new(config.cg_max_steps, tol, damping),
            search: Backtracking::new(target, shrink, config.line_search_max_tries),
            x: vec![0.0; len],
            actor: vec![0.0; len],
            samples: common.samples().collect(),
            optimizer: Optimizer::new(
                config.step.optimizer(),
                common.network.critic_range().len(),
            )?,
            order: Order::new(num_envs, num_steps, false),
            shuffle: Stream::new(setup.seed, role::SHUFFLE, 0),
            config,
            common,
        })
    }

    /// The second half of line 3.
    fn normalize_advantages(&mut self) {
        let Self { common, samples, .. } = self;
        let of = |s: &Sample| common.trajectories[s.env as usize].targets[s.step as usize];
        let all = samples.iter().map(|sample| f64::from(of(sample).advantage));
        let normal = Standardizer::of(all);
        for target in common.trajectories.iter_mut().flat_map(|from| &mut from.targets) {
            target.advantage = normal.apply(target.advantage);
        }
    }

    /// Lines 4 to 7.
    fn step_policy(&mut self) -> Result<Moved, Error> {
        let before = self.common.gradient(Work::Steps(&self.samples), false, Loss::policy(Ratio)); // line 4
        let surrogate = before.means().policy_objective;
        self.common.finite("objective", surrogate)?;
        let mut moved = Moved { before, surrogate, ..self.solve()? }; // line 5
        let step = step_size(self.config.target_kl as f32, &self.x, self.solver.product()); // line 6
        moved.shrunk = -1.0;
        // None where the gradient is 0: then there is nothing to do.
        let Some(step) = step else { return Ok(moved) };
        if self.config.line_search {
            self.search(step, &mut moved); // line 7
        } else {
            let actor = &mut self.common.theta[self.common.network.actor_range()];
            actor.iter_mut().zip(&self.x).for_each(|(theta, &x)| *theta += step * x);
            moved.shrunk = 0.0;
        }
        let OnPolicy { network, weights, theta, pool, .. } = &mut self.common;
        network.pack_actor(theta, weights);
        if !self.config.line_search {
            (moved.surrogate, moved.kl) =
                self.region.surrogate_and_kl((network, weights, pool.as_deref()));
            self.common.finite("surrogate", moved.surrogate)?;
        }
        Ok(moved)
    }

    /// Line 5: x, from the gradient in `common.grad`.
    fn solve(&mut self) -> Result<Moved, Error> {
        let Self { common, region, solver, x, .. } = self;
        let OnPolicy { network, weights, grad, trajectories, pool, .. } = common;
        let g = &grad[network.actor_range()];
        region.gather(network, trajectories, &self.samples, self.config.fisher_subsample);
        let at = (&*network, &*weights, pool.as_deref());
        region.forward(at);
        x.fill(0.0);
        let solved = solver.solve(g, x, |v, out| region.fisher_product(at, v, out));
        let grad_norm = g.iter().map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt();
        let (residual, cg_steps) = (f64::from(solved.residual), solved.steps);
        common.finite("conjugate gradient's residual", residual)?;
        // Forward once, and twice forward and back per product; actor and critic count alike.
        common.count_flops(region.in_fisher() / 2, 1 + 4 * cg_steps);
        Ok(Moved { grad_norm, residual, cg_steps, ..Moved::default() })
    }

    /// Line 7 of TRPO. θ is as it was if no step was good; the weights are to be packed again.
    fn search(&mut self, step: f32, moved: &mut Moved) {
        let Self { common, region, search, x, actor, .. } = self;
        let OnPolicy { network, weights, theta, pool, .. } = common;
        let range = network.actor_range();
        actor.copy_from_slice(&theta[range.clone()]);
        let found = search.line_search(actor, (x, step), moved.surrogate as f32, |actor| {
            theta[range.clone()].copy_from_slice(actor);
            network.pack_actor(theta, weights);
            let (surrogate, kl) = region.surrogate_and_kl((network, weights, pool.as_deref()));
            (surrogate as f32, kl as f32)
        });
        theta[range.clone()].copy_from_slice(actor);
        if let LineSearch::Accepted { index, surrogate, kl } = found {
            moved.shrunk = index as f64;
            (moved.surrogate, moved.kl) = (f64::from(surrogate), f64::from(kl));
        }
    }

    /// Line 8.
    fn fit_critic(&mut self, learning_rate: f64) -> Result<Stats, Error> {
        let Self { config, common, optimizer, order, .. } = self;
        let num_batches = config.segment.batch_size().div_ceil(config.critic_batch_size);
        let mut stats = Stats::default();
        for _ in 0..config.critic_epochs {
            order.shuffle(&mut self.shuffle);
            for i in 0..num_batches {
                let work = order.part(i, num_batches);
                let of_batch = common.gradient(work, false, Loss::<Weighted>::value());
                common.finite("objective", of_batch.means().value_loss)?;
                common.ascend_critic(optimizer, learning_rate, config.step.max_grad_norm)?;
                stats.add(&of_batch);
            }
        }
        Ok(stats)
    }

    fn report(&self, moved: &Moved, critic: &Stats, learning_rate: f64) -> Report {
        let mut metrics = Vec::with_capacity(20);
        self.common.rollout_metrics(&mut metrics);
        metrics.extend([
            ("train/policy_loss", -moved.surrogate),
            ("train/value_loss", critic.means().value_loss),
            ("train/entropy", moved.before.means().entropy),
            ("train/approx_kl", moved.kl),
            ("train/grad_norm", moved.grad_norm),
            ("train/line_search", moved.shrunk),
            ("train/cg_residual", moved.residual),
            ("train/cg_steps", moved.cg_steps as f64),
            ("train/learning_rate", learning_rate),
        ]);
        self.common.policy_metrics(&mut metrics);
        Report { metrics }
    }
}

impl OnPolicyMethod for Trpo {
    fn common(&self) -> &OnPolicy {
        &self.common
    }

    fn common_mut(&mut self) -> &mut OnPolicy {
        &mut self.common
    }

    fn iteration(&mut self) -> Result<Report, Error> {
        let SegmentConfig { gamma, gae_lambda, .. } = self.config.segment;
        let learning_rate = self.config.step.learning_rate.at(self.common.progress());
        self.common.collect()?; // line 2
        self.common.estimate(gamma, gae_lambda); // line 3
        if self.config.normalize_advantages {
            self.normalize_advantages();
        }
        let moved = self.step_policy()?; // lines 4 to 7
        let critic = self.fit_critic(learning_rate)?; // line 8
        let report = self.report(&moved, &critic, learning_rate);
        self.common.finish()?;
        Ok(report)
    }

    fn save_own(&self, w: &mut StateWriter) {
        save_optimizer(&self.optimizer, w);
        self.shuffle.save(w);
        self.order.save(w);
    }

    fn load_own(&mut self, r: &mut StateReader<'_>) -> Result<(), StateError> {
        load_optimizer(&mut self.optimizer, r)?;
        self.shuffle.load(r)?;
        self.order.load(r)
    }
}
