//! Deep Q-learning, and its double form.
//!
//! # Source
//!
//! Mnih et al. 2015, "Human-level control through deep reinforcement learning",
//! doi:10.1038/nature14236; van Hasselt, Guez and Silver 2016, arXiv:1509.06461 (double); Wang et
//! al. 2016, arXiv:1511.06581 (dueling); Schaul et al. 2016, arXiv:1511.05952 (prioritized).
//!
//! # Algorithm
//!
//! ```text
//! 1  for each round do
//! 2      act ε-greedily, store the transitions
//! 3      draw a batch of transitions (s, a, r, s')
//! 4      y = r + γ max_a' Q⁻(s', a')                          DQN
//!        y = r + γ Q⁻(s', argmax_a' Q(s', a'))                Double DQN
//! 5      step down the mean of w · huber(Q(s, a) − y)
//! 6      every C steps, Q⁻ ← Q
//! ```
//!
//! | formula | here |
//! |---|---|
//! | max, argmax, y | [`td_target`](crate::estimate::td_target) |
//! | Huber's loss | [`huber`](crate::objective::huber) |
//! | Q = V + A − mean A | [`dueling`](crate::dueling::dueling) |
//! | w, priorities | [`Priorities`](crate::replay::Priorities) |
//!
//! # Differences from the paper
//!
//! - A truncated episode bootstraps from its true last observation; forbidden actions count neither
//!   in the maximum nor when acting.
//! - Adam and a limit on the gradient's norm, as everybody has it.
//!
//! # Defaults
//!
//! Those of stable-baselines3's `DQN`, but for a smaller replay memory and a shorter warm-up.

use cordada_env::Space;
use cordada_nn::Schedule;

use super::off_policy::{
    OffPolicy, Prioritized, QLearner, QMethod, QNetworkConfig, ReplayConfig, Sampled,
};
use super::{ANY_OBS, AlgoSpec, Resume};
use crate::config::{Checks, Config, Field};
use crate::error::Error;
use crate::estimate::td_target::{double_q_value, max_value, td_target};
use crate::objective::TdLoss;
use crate::settings::StepConfig;

/// DQN in the list of algorithms.
pub const DQN: AlgoSpec = AlgoSpec {
    name: "dqn",
    title: "Deep Q-network",
    paper: "Mnih et al. 2015, doi:10.1038/nature14236",
    on_policy: false,
    accepts: "Discrete action spaces",
    takes: |space| matches!(space, Space::Discrete { .. }),
    observes: ANY_OBS,
    sees: |_| true,
    recurrent: false,
    masks: true,
    resume: Resume::Exact,
    fields: DqnConfig::FIELDS,
    complete: |table| Ok(DqnConfig::default().with_table("dqn", table)?.to_table()),
    make: |setup| Ok(Box::new(make(&DQN, &DqnConfig::default(), setup)?)),
};

/// Double DQN in the list of algorithms.
pub const DOUBLE_DQN: AlgoSpec = AlgoSpec {
    name: "double_dqn",
    title: "Double deep Q-network",
    paper: "van Hasselt et al. 2016, arXiv:1509.06461",
    complete: |table| Ok(DqnConfig::double().with_table("double_dqn", table)?.to_table()),
    make: |setup| Ok(Box::new(make(&DOUBLE_DQN, &DqnConfig::double(), setup)?)),
    ..DQN
};

crate::config! {
    /// Settings of DQN and Double DQN.
    pub struct DqnConfig {
        /// Whether the network chooses the next action and its target judges it (Double DQN).
        double: bool = false;
        /// δ beyond which the loss is linear (Huber), or "off" for the squared error.
        #[serde(with = "crate::config::optional")]
        huber: Option<f64> = Some(1.0);
        /// Whether transitions are replayed by priority.
        prioritized: bool = false;
        /// α, how much priority matters.
        priority_alpha: f64 = 0.6;
        /// β, how far it is made up for by weights: a schedule over the run.
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
            learning_rate: Schedule::Constant(1e-4),
            optimizer_eps: 1e-8,
            max_grad_norm: 10.0,
            ..StepConfig::default()
        };
        /// Network.
        network: QNetworkConfig = QNetworkConfig::default();
    }
}

impl DqnConfig {
    /// Double DQN's.
    pub fn double() -> Self {
        Self { double: true, ..Self::default() }
    }

    fn prioritized(&self) -> Option<Prioritized> {
        let (alpha, beta) = (self.priority_alpha, self.priority_beta.clone());
        self.prioritized.then_some(Prioritized { alpha, beta })
    }
}

impl Config for DqnConfig {
    const FIELDS: &'static [Field] = DqnConfig::FIELDS;
    const RENAMED: &'static [(&'static str, &'static str)] = &[
        ("exploration_fraction", "epsilon = \"piecewise(0: 1, FRACTION: FINAL)\""),
        ("exploration_final_eps", "epsilon = \"piecewise(0: 1, FRACTION: FINAL)\""),
    ];

    fn check(&self, section: &str) -> Result<(), Error> {
        let check = Checks { section };
        self.replay.check(check)?;
        self.step.check(check)?;
        self.network.check(check)?;
        if let Some(huber) = self.huber {
            check.positive(&[("huber", huber)])?;
        }
        check.unit(&[("priority_alpha", self.priority_alpha)])?;
        check.schedules(&[("priority_beta", &self.priority_beta)])
    }
}

/// The learner.
#[derive(Debug)]
pub struct Dqn {
    double: bool,
    loss: TdLoss<f32>,
    q: QLearner,
    td_errors: Vec<f32>,
    targets: Vec<f32>,
    d_outputs: Vec<f32>,
}

fn make(
    algo: &AlgoSpec,
    defaults: &DqnConfig,
    setup: &super::Setup<'_>,
) -> Result<OffPolicy<Dqn>, Error> {
    let config = defaults.with_table(algo.name, setup.settings)?;
    let prioritized = config.prioritized();
    OffPolicy::new(algo, setup, &config.replay, prioritized, |spaces, stream| {
        let check = Checks { section: algo.name };
        let q = QLearner::new(check, (&config.network, &config.step), None, &spaces, stream)?;
        Ok(Dqn {
            double: config.double,
            loss: config.huber.map_or(TdLoss::Squared, |kappa| TdLoss::Huber(kappa as f32)),
            q,
            td_errors: Vec::new(),
            targets: Vec::new(),
            d_outputs: Vec::new(),
        })
    })
}

impl Dqn {
    /// Line 4: y of every transition.
    fn targets(&mut self, sampled: &Sampled<'_>) {
        let Self { q, targets, double, .. } = self;
        let n = q.network.num_actions();
        let batch = sampled.batch;
        targets.clear();
        let target = |i: usize, value: f32| td_target(batch.rewards[i], batch.discounts[i], value);
        if *double {
            let (judging, choosing) = q.next_outputs_of_both(sampled);
            let rows = choosing.chunks_exact(n).zip(judging.chunks_exact(n)).enumerate();
            targets.extend(rows.map(|(i, (choosing, judging))| {
                target(i, double_q_value(choosing, judging, sampled.next_mask(i)))
            }));
        } else {
            let rows = q.next_outputs(sampled).chunks_exact(n).enumerate();
            targets
                .extend(rows.map(|(i, values)| target(i, max_value(values, sampled.next_mask(i)))));
        }
    }
}

impl QMethod for Dqn {
    fn q(&self) -> &QLearner {
        &self.q
    }

    fn q_mut(&mut self) -> &mut QLearner {
        &mut self.q
    }

    /// All but line 6: the target's renewal is the same for all learners of action values.
    fn learn(&mut self, sampled: &Sampled<'_>) -> Result<(), (&'static str, f64)> {
        self.targets(sampled); // line 4
        let Self { q, td_errors, targets, d_outputs, loss, .. } = self;
        let n = q.network.num_actions();
        let weight = 1.0 / sampled.len() as f32;
        let outputs = q.outputs(sampled);
        d_outputs.clear();
        d_outputs.resize(outputs.len(), 0.0);
        td_errors.clear();
        let (mut loss_sum, mut value_sum) = (0.0, 0.0);
        for (i, &target) in targets.iter().enumerate() {
            let at = i * n + sampled.batch.actions[i] as usize;
            let term = loss.of(outputs[at], target);
            d_outputs[at] = weight * sampled.weights[i] * term.d_value;
            td_errors.push((outputs[at] - target).abs());
            loss_sum += f64::from(sampled.weights[i] * term.loss);
            value_sum += f64::from(outputs[at]);
        }
        let mean_loss = loss_sum * f64::from(weight);
        if !mean_loss.is_finite() {
            return Err(("value loss", mean_loss));
        }
        let norm = q.descend(sampled, d_outputs); // line 5
        q.tell([mean_loss, value_sum * f64::from(weight), norm]);
        Ok(())
    }

    fn errors(&self) -> &[f32] {
        &self.td_errors
    }
}
