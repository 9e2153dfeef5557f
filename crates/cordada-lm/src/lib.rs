//! Language models as policies: a response is an episode, a token an action.
//!
//! The model is a decoder-only [transformer](Transformer) with an analytic backward pass on the
//! kernels of `cordada-nn`. One engine samples and trains, so the log-probability that was recorded
//! when a token was sampled equals, bit for bit, the one that training computes.

pub mod adapter;
pub mod answer;
mod batch;
pub mod chat;
pub mod config;
pub mod data;
pub mod demo;
mod error;
pub mod folder;
mod generate;
mod head;
pub mod init;
mod language_model;
pub mod layout;
pub mod load;
mod model;
mod parallel;
pub mod plan;
pub mod reward;
mod sampling;
pub mod shape;
pub mod tasks;
pub mod tokenizer;
pub mod train;
mod transformer;

pub use batch::Group;
pub use config::{Architecture, ModelConfig, Positions, RopeScaling};
pub use error::Error;
pub use generate::{Completion, Finish, Request, StopCheck};
pub use head::ValueHead;
pub use language_model::LanguageModel;
pub use layout::{Layout, TensorInfo};
pub use model::{
    ACTIVATION_LIMIT, CompletionScores, Derivatives, MICRO_BATCH_ROWS, Model, Objective,
    StepSettings, TokenScores,
};
pub use parallel::Threads;
pub use sampling::Sampling;
pub use transformer::{Adapter, Place, Site, Transformer, Weights};
