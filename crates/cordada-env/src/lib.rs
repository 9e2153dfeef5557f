//! Spaces, environments, vectorised environments and wrappers for Cordada. No networks, no
//! policies, no learning: this crate uses no other one of Cordada.
//!
//! | family | environments |
//! |---|---|
//! | [`classic`] | cart-pole, mountain car, acrobot, pendulum; two of them without velocities |
//! | [`toy_text`] | frozen lake, taxi, cliff walking, blackjack; their exact transition tables |
//! | [`probe`] | test environments with known answers, in no list |
//!
//! # Examples
//!
//! ```
//! use cordada_env::{Env, Stream, make, role};
//!
//! let mut env = make("Pendulum-v1")?;
//! let mut stream = Stream::new(0, role::ENV, 0);
//! let (mut obs, mut action) = (vec![0.0; 3], vec![0.0; 1]);
//! env.reset(&mut stream, &mut obs);
//! env.action_space().sample(&mut stream, &mut action);
//! let step = env.step(&action, &mut stream, &mut obs);
//! assert!(step.reward <= 0.0 && !step.outcome.ended());
//! # Ok::<(), cordada_env::Error>(())
//! ```

pub mod check;
pub mod classic;
mod draws;
pub mod env;
pub mod error;
pub mod moments;
pub mod probe;
pub mod registry;
pub mod replay;
pub mod space;
pub mod state;
pub mod stream;
pub mod toy_text;
pub mod vec_env;
pub mod wrapper;

pub use check::{CheckOptions, check};
pub use env::{Env, Outcome, Step};
pub use error::Error;
pub use moments::RunningMoments;
pub use registry::{ENVIRONMENTS, EnvSpec, MakeWith, find, make};
pub use replay::{ReplayReport, replay};
pub use space::{BoxSpace, Space, SpaceError};
pub use state::{Persist, StateError, StateReader, StateWriter};
pub use stream::{Stream, role};
pub use toy_text::table::{Transition, TransitionTable};
pub use vec_env::{Episode, Slot, SlotStep, StepBuffers, VecEnv};
