//! Policy gradients in Rust: fast, exact, resumable.
//!
//! Cordada represents a policy π_θ(a|s) directly, samples trajectories, estimates the gradient of
//! the expected return and ascends it. This crate is the front door; the parts are
//!
//! - [`env`](mod@env): spaces, environments, wrappers, random streams;
//! - [`nn`]: networks over one flat θ with analytic gradients, optimizers, schedules;
//! - [`rl`]: estimators, objectives, distributions, algorithms, training, checkpoints;
//! - [`lm`]: language models as policies: reading, sampling, fine-tuning, alignment;
//! - [`log`]: events, metrics, sinks and the run directory.
//!
//! # Examples
//!
//! A thousand steps of PPO on CartPole, by hand:
//!
//! ```
//! use cordada::prelude::*;
//!
//! let mut config = RunConfig::new("ppo", "CartPole-v1", &[])?;
//! config.run.total_steps = 1_000;
//! let mut algorithm = config.make(1)?;
//! while algorithm.steps() < config.run.total_steps {
//!     let report = algorithm.iterate()?;
//!     assert!(report.metrics.iter().any(|(name, _)| *name == "train/approx_kl"));
//! }
//! # Ok::<(), cordada::rl::Error>(())
//! ```
//!
//! The same in a run directory, with checkpoints, metrics and an evaluation at the end:
//! [`Run::create`](rl::train::Run::create) and [`Run::train`](rl::train::Run::train).

pub use cordada_env as env;
pub use cordada_lm as lm;
pub use cordada_log as log;
pub use cordada_nn as nn;
pub use cordada_rl as rl;

/// What most programs need.
pub mod prelude {
    pub use cordada_env::{Env, Outcome, Space, Step, Stream, make};
    pub use cordada_log::{Event, NullSink, RunDir, Sink};
    pub use cordada_rl::algo::{Algorithm, Report};
    pub use cordada_rl::evaluate::{EvalOptions, Evaluation, evaluate};
    pub use cordada_rl::policy_file::{Policy, PolicyRunner};
    pub use cordada_rl::train::{Run, RunConfig};
}
