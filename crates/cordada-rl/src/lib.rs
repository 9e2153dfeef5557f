//! Estimators, objectives, distributions and algorithms that learn policies by policy gradients,
//! with the training loop, evaluation and checkpoints around them.
//!
//! Every method here is the policy gradient theorem with another weight ψ:
//!
//! ```text
//! ∇J(θ) = E[ Σ_t ψ_t ∇_θ log π_θ(a_t | s_t) ]
//! ```
//!
//! - [`estimate`] makes ψ's ingredients from rewards, values and episode ends;
//! - [`objective`] turns log-probabilities and advantages into an objective and ψ;
//! - [`distribution`] turns ψ into the gradient of a network's output;
//! - [`algo`] holds one file per algorithm, which reads like its paper.
//!
//! Algorithms neither print, read files, nor look at the clock: they return values.

pub mod algo;
pub mod checkpoint;
pub mod config;
pub mod distribution;
pub mod dueling;
mod error;
pub mod estimate;
pub mod evaluate;
pub mod explore;
pub mod input;
pub mod objective;
pub mod policy;
pub mod policy_file;
pub mod presets;
pub mod replay;
pub mod rollout;
pub mod settings;
pub mod target;
pub mod train;
pub mod trust_region;

pub use error::Error;
