//! The errors of this crate.

use std::path::PathBuf;

use crate::space::{Space, SpaceError};
use crate::state::StateError;

/// What can go wrong with environments and their recordings.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No environment has this name.
    #[error(
        "unknown environment \"{name}\"{}; run `cordada list envs` for all names",
        nearest.map_or(String::new(), |nearest| format!(" (did you mean \"{nearest}\"?)"))
    )]
    UnknownEnv {
        /// The name given.
        name: String,
        /// The nearest name there is, if one is near.
        nearest: Option<&'static str>,
    },
    /// The environment does not allow its state to be set.
    #[error("this environment's state cannot be set")]
    NoState,
    /// A state of the wrong length.
    #[error("this environment's state has {expected} numbers, not {found}")]
    StateLength {
        /// Length of the environment's state.
        expected: usize,
        /// Length given.
        found: usize,
    },
    /// A wrapper around an environment that it does not fit.
    #[error("{wrapper} needs {needs}, the environment has {space}")]
    Wrapper {
        /// The wrapper's name.
        wrapper: &'static str,
        /// The space it needs.
        needs: &'static str,
        /// The space there is.
        space: Box<Space>,
    },
    /// An option outside its range.
    #[error("{option} is {value}, it has to be {range}")]
    Option {
        /// The option.
        option: &'static str,
        /// Its value.
        value: f64,
        /// What is allowed.
        range: &'static str,
    },
    /// A row outside its space, or an impossible space.
    #[error(transparent)]
    Space(#[from] SpaceError),
    /// A saved state that cannot be read.
    #[error(transparent)]
    State(#[from] StateError),
    /// A recording that cannot be opened.
    #[error("cannot read the recording {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// A recording that is not a safetensors file.
    #[error("the recording {} is not a safetensors file: {source}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: safetensors::SafeTensorError,
    },
    /// A recording without a metadata entry, or with a damaged one.
    #[error("the recording {} lacks valid metadata \"{key}\": record it again", path.display())]
    Metadata {
        /// The file.
        path: PathBuf,
        /// The entry.
        key: &'static str,
    },
    /// A recording made with options that the environment here does not have.
    #[error(
        "the recording {} was made with the options {kwargs}, which {env} does not have here",
        path.display()
    )]
    Kwargs {
        /// The file.
        path: PathBuf,
        /// The environment.
        env: &'static str,
        /// The options, as recorded (JSON).
        kwargs: String,
    },
    /// A recording that lacks a tensor.
    #[error("the recording {} lacks the tensor \"{tensor}\"", path.display())]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor's name.
        tensor: String,
    },
    /// A tensor of a recording that does not fit the others or the environment.
    #[error(
        "tensor \"{tensor}\" of the recording {} has {found} numbers, not {expected}",
        path.display()
    )]
    TensorLength {
        /// The file.
        path: PathBuf,
        /// The tensor's name.
        tensor: String,
        /// Number of elements that would fit.
        expected: usize,
        /// Number of elements there are.
        found: usize,
    },
    /// A tensor of a type that recordings do not use.
    #[error(
        "tensor \"{tensor}\" of the recording {} is of the type {dtype}, which is not used there",
        path.display()
    )]
    TensorType {
        /// The file.
        path: PathBuf,
        /// The tensor's name.
        tensor: String,
        /// Its type.
        dtype: String,
    },
}
