//! C51: Q-learning of the whole distribution of returns, on fixed atoms.
//!
//! # Source
//!
//! Bellemare, Dabney and Munos 2017, "A Distributional Perspective on Reinforcement Learning",
//! arXiv:1707.06887. With its options it goes most of the way to Rainbow (Hessel et al. 2018,
//! arXiv:1710.02298).
//!
//! # Algorithm
//!
//! ```text
//! 1  for each round do
//! 2      act ε-greedily in Q(s, a) = Σ_i z_i p_i(s, a), store the transitions
//! 3      draw a batch of transitions (s, a, r, s')
//! 4      a* = argmax_a' Σ_i z_i p⁻_i(s', a')                      double: by p, judged by p⁻
//! 5      m = the distribution of r + γ z under p⁻(s', a*), projected onto the atoms
//! 6      step down the mean of −w Σ_i m_i log p_i(s, a)
//! 7      every C steps, p⁻ ← p
//! ```
//!
//! | formula | here |
//! |---|---|
//! | Σ z p, m | [`Support`] |
//! | −Σ m log p | [`categorical_cross_entropy`] |
//! | w, priorities | [`Priorities`](crate::replay::Priorities) of the cross-entropy, as in Rainbow |
//!
//! # Differences from the paper
//!
//! - Where r + γ z is an atom, it keeps all of its probability (the paper's algorithm, read
//!   literally, loses it).
//! - A truncated episode bootstraps from its true last observation; forbidden actions count neither
//!   in the maximum nor when acting.
//!
//! # Defaults
//!
//! The paper's 51 atoms from −10 to 10, which the returns of the task must lie in; the rest is
//! [`dqn`](super::dqn)'s, but for the learning rate 2.5e-4 of the paper's section 5.

use cordada_env::Space;
use cordada_nn::Schedule;
use cordada_nn::kernel::Isa;
use cordada_nn::softmax::softmax;

use super::off_policy::{
    OffPolicy, Prioritized, QLearner, QMethod, QNetworkConfig, ReplayConfig, Sampled,
};
use super::{ANY_OBS, AlgoSpec, Resume};
use crate::config::{Checks, Config, Field};
use crate::error::Error;
use crate::estimate::Support;
use crate::estimate::td_target::greedy_action;
use crate::objective::categorical_cross_entropy;
use crate::policy::{QNetwork, SupportSpec};
use crate::settings::StepConfig;

/// C51 in the list of algorithms.
pub const SPEC: AlgoSpec = AlgoSpec {
    name: "c51",
    title: "Categorical deep Q-network",
    paper: "Bellemare et al. 2017, arXiv:1707.06887",
    on_policy: false,
    accepts: "Discrete action spaces",
    takes: |space| matches!(space, Space::Discrete { .. }),
    observes: ANY_OBS,
    sees: |_| true,
    recurrent: false,
    masks: true,
    resume: Resume::Exact,
    fields: C51Config::FIELDS,
    complete: |table| Ok(C51Config::from_table("c51", table)?.to_table()),
    make: |setup| Ok(Box::new(make(setup)?)),
};

crate::config! {
    /// Settings of C51.
    pub struct C51Config {
        /// Atoms of a distribution of returns; at least 2.
        atoms: usize = 51, alias ["n_atoms"];
        /// The lowest discounted return that a distribution can hold.
        v_min: f64 = -10.0;
        /// The highest one.
        v_max: f64 = 10.0;
        /// Whether the network chooses the next action and its target judges it (Double DQN).
        double: bool = false;
        /// Whether transitions are replayed by priority.
        prioritized: bool = false;
        /// How much priority matters: the exponent of the cross-entropy.
        priority_alpha: f64 = 0.5;
        /// How far it is made up for by weights: a schedule over the run.
        #[serde(with = "crate::config::schedule")]
        priority_beta: Schedule = Schedule::Linear { from: 0.4, to: 1.0 };
    }
    groups {
        /// Replay.
        replay: ReplayConfig = ReplayConfig {
            buffer_size: 100_000,
            train_freq: 4,
            batch_size: 32,
            ..ReplayConfig::default()
        };
        /// Steps along the gradient.
        step: StepConfig = StepConfig {
            learning_rate: Schedule::Constant(2.5e-4),
            optimizer_eps: 1e-8,
            max_grad_norm: 10.0,
            ..StepConfig::default()
        };
        /// Network.
        network: QNetworkConfig = QNetworkConfig::default();
    }
}

impl C51Config {
    fn prioritized(&self) -> Option<Prioritized> {
        let (alpha, beta) = (self.priority_alpha, self.priority_beta.clone());
        self.prioritized.then_some(Prioritized { alpha, beta })
    }

    fn support(&self) -> SupportSpec {
        SupportSpec { atoms: self.atoms, v_min: self.v_min, v_max: self.v_max }
    }
}

impl Config for C51Config {
    const FIELDS: &'static [Field] = C51Config::FIELDS;

    fn check(&self, section: &str) -> Result<(), Error> {
        let check = Checks { section };
        if self.atoms < 2 {
            return Err(check.refuse("atoms", self.atoms, "at least 2"));
        }
        check.at_most("atoms", self.atoms, 10_000)?;
        check.number("v_min", self.v_min, f64::is_finite, "a finite number")?;
        check.number("v_max", self.v_max, f64::is_finite, "a finite number")?;
        // As f32, in which the atoms are.
        if self.v_min as f32 >= self.v_max as f32 {
            return Err(check.refuse("v_max", self.v_max, "a number above v_min"));
        }
        self.replay.check(check)?;
        self.step.check(check)?;
        self.network.check(check)?;
        check.unit(&[("priority_alpha", self.priority_alpha)])?;
        check.schedules(&[("priority_beta", &self.priority_beta)])
    }
}

/// The learner.
#[derive(Debug)]
pub struct C51 {
    double: bool,
    support: Support<f32>,
    q: QLearner,
    /// Shape of its network.
    network: QNetwork,
    /// Q(s', ·) of the network that chooses: `[B, n]`.
    values: Vec<f32>,
    probs: Vec<f32>,
    /// m: `[B, atoms]`.
    targets: Vec<f32>,
    losses: Vec<f32>,
    d_outputs: Vec<f32>,
}

fn make(setup: &super::Setup<'_>) -> Result<OffPolicy<C51>, Error> {
    let config = C51Config::from_table(SPEC.name, setup.settings)?;
    OffPolicy::new(&SPEC, setup, &config.replay, config.prioritized(), |spaces, stream| {
        let check = Checks { section: SPEC.name };
        let parts = (&config.network, &config.step);
        let support = config.support();
        let q = QLearner::new(check, parts, Some(support), &spaces, stream)?;
        Ok(C51 {
            double: config.double,
            support: support.support(),
            network: q.network.clone(),
            q,
            values: Vec::new(),
            probs: vec![0.0; config.atoms],
            targets: Vec::new(),
            losses: Vec::new(),
            d_outputs: Vec::new(),
        })
    })
}

impl C51 {
    /// Lines 4 and 5: m of every transition.
    fn targets(&mut self, sampled: &Sampled<'_>) {
        let Self { q, network, values, probs, targets, support, double, .. } = self;
        let (n, atoms) = (network.num_actions(), support.len());
        let judging = if *double {
            let (judging, choosing) = q.next_outputs_of_both(sampled);
            network.values(choosing, values);
            judging
        } else {
            let judging = q.next_outputs(sampled);
            network.values(judging, values);
            judging
        };
        targets.resize(sampled.len() * atoms, 0.0);
        for (i, m) in targets.chunks_exact_mut(atoms).enumerate() {
            let action = greedy_action(&values[i * n..(i + 1) * n], sampled.next_mask(i));
            let logits = &judging[(i * n + action) * atoms..][..atoms];
            softmax(Isa::detect(), logits, atoms, probs);
            support.project(probs, sampled.batch.rewards[i], sampled.batch.discounts[i], m);
        }
    }
}

impl QMethod for C51 {
    fn q(&self) -> &QLearner {
        &self.q
    }

    fn q_mut(&mut self) -> &mut QLearner {
        &mut self.q
    }

    /// All but line 7: the target's renewal is the same for all learners of action values.
    fn learn(&mut self, sampled: &Sampled<'_>) -> Result<(), (&'static str, f64)> {
        self.targets(sampled); // lines 4 and 5
        let Self { q, targets, losses, d_outputs, support, .. } = self;
        let (n, atoms) = (q.network.num_actions(), support.len());
        let weight = 1.0 / sampled.len() as f32;
        let outputs = q.outputs(sampled);
        d_outputs.clear();
        d_outputs.resize(outputs.len(), 0.0);
        losses.clear();
        let (mut loss_sum, mut value_sum) = (0.0, 0.0);
        for (i, m) in targets.chunks_exact(atoms).enumerate() {
            let at = (i * n + sampled.batch.actions[i] as usize) * atoms;
            let (logits, d) = (&outputs[at..at + atoms], &mut d_outputs[at..at + atoms]);
            let coef = weight * sampled.weights[i];
            let loss = categorical_cross_entropy(logits, m, coef, d);
            losses.push(loss);
            loss_sum += f64::from(coef * loss);
            value_sum += f64::from(weight * support.mean(m));
        }
        if !loss_sum.is_finite() {
            return Err(("value loss", loss_sum));
        }
        let norm = q.descend(sampled, d_outputs); // line 6
        q.tell([loss_sum, value_sum, norm]);
        Ok(())
    }

    fn errors(&self) -> &[f32] {
        &self.losses
    }
}
