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
    /// Options, as JSON, that an environment cannot be made with.
    #[error("{env} cannot be made with the options {options}: {source}")]
    EnvOptions {
        /// The environment.
        env: &'static str,
        /// The options (JSON).
        options: String,
        /// The reason.
        source: serde_json::Error,
    },
    /// A list of numbers of the wrong length.
    #[error("{what} has {found} entries, it has to have {expected}")]
    Entries {
        /// The list.
        what: &'static str,
        /// Number of entries that would fit.
        expected: usize,
        /// Number of entries there are.
        found: usize,
    },
    /// A row of a map that does not fit.
    #[error("row {row} of the map is \"{text}\", it has to be {range}")]
    Map {
        /// The row, from 0.
        row: usize,
        /// Its text.
        text: String,
        /// What is allowed.
        range: &'static str,
    },
    /// An impossible entry of a transition table or a policy.
    #[error("{what} {value} in state {state}{}", action.map_or(String::new(), |a| format!(", action {a}")))]
    Table {
        /// What is wrong.
        what: &'static str,
        /// The wrong value.
        value: f64,
        /// The state.
        state: usize,
        /// The action, where one matters.
        action: Option<usize>,
    },
    /// An iteration that did not come to rest.
    #[error(
        "{what} has not converged after {iterations} iterations: it still changes by {change:e}; \
         a gamma below 1 converges unless the system itself runs away"
    )]
    NoConvergence {
        /// What was computed.
        what: &'static str,
        /// Number of iterations.
        iterations: usize,
        /// Largest change of the last one.
        change: f64,
    },
    /// The environment cannot be driven by recorded draws.
    #[error("this environment takes no recorded draws")]
    NoDraws,
    /// Another number of recorded draws than an environment uses.
    #[error("the environment uses {used} draws here, {found} are recorded")]
    DrawCount {
        /// Number of draws used, or needed so far.
        used: usize,
        /// Number of draws there are.
        found: usize,
    },
    /// A recorded draw that the environment never makes.
    #[error("recorded draw {position} is {value}, it has to be {range}")]
    Draw {
        /// Its position within the step, from 0.
        position: usize,
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
        "the recording {} was made with the options {kwargs}, which {env} does not have here: \
         {source}",
        path.display()
    )]
    Kwargs {
        /// The file.
        path: PathBuf,
        /// The environment.
        env: &'static str,
        /// The options, as recorded (JSON).
        kwargs: String,
        /// The reason.
        source: Box<Error>,
    },
    /// A recorded step that the environment cannot repeat.
    #[error("the recording {}, trajectory {trajectory}, step {step}: {source}", path.display())]
    Step {
        /// The file.
        path: PathBuf,
        /// The trajectory.
        trajectory: String,
        /// The step, from 1; 0 is the reset.
        step: usize,
        /// The reason.
        source: Box<Error>,
    },
    /// A recording with a transition table of an environment that has none here.
    #[error("the recording {} holds a transition table, {env} has none here", path.display())]
    NoTable {
        /// The file.
        path: PathBuf,
        /// The environment.
        env: &'static str,
    },
    /// A recorded transition table that is not the environment's.
    #[error(
        "tensor \"{tensor}\" of the recording {} is {recorded} at {index:?}, the environment has \
         {here}",
        path.display()
    )]
    TableDiffers {
        /// The file.
        path: PathBuf,
        /// The tensor's name.
        tensor: &'static str,
        /// State, action and outcome, as far as the tensor has them.
        index: Vec<usize>,
        /// The recorded value.
        recorded: f64,
        /// The environment's.
        here: f64,
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
