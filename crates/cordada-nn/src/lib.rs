//! Networks over one flat parameter vector θ, with analytic gradients.
//!
//! A network here is a function of a slice θ: `forward`, `vjp` (backward) and `jvp`. There is no
//! autodiff graph and no tensor type. [`Rnn`] is such a function of a sequence, without `jvp`.
//! Matrix products and reductions give the same bits for a row whatever the number of rows,
//! threads or the instruction set; see [`kernel`].
//!
//! This crate uses no other crate of the workspace and is the only one with `unsafe`, all of it in
//! [`kernel`].

mod activation;
pub mod attention;
mod cnn;
mod conv;
mod error;
mod gated;
pub mod init;
pub mod kernel;
mod lanes;
mod mlp;
pub mod norm;
mod optim;
mod real;
mod rnn;
mod rotary;
mod schedule;
pub mod softmax;
mod tokens;

pub use activation::Activation;
pub use cnn::{NatureCnn, NatureCnnTape, NatureCnnWeights};
pub use conv::{Conv2d, Conv2dSpec, Conv2dTape, Conv2dWeights};
pub use error::Error;
pub use gated::{gated, gated_vjp};
pub use init::{Draw, Init};
pub use mlp::{Mlp, MlpSpec, ParamInfo, Tape, Weights};
pub use optim::{EpsPlacement, Optimizer, OptimizerConfig, clip_global_norm, clip_infinity_norm};
pub use real::Real;
pub use rnn::{Cell, Rnn, RnnTape, RnnWeights};
pub use rotary::Rotary;
pub use schedule::Schedule;
pub use tokens::{
    token_entropy, token_kl, token_kl_vjp, token_log_sum_exp, token_probabilities, token_vjp,
};
