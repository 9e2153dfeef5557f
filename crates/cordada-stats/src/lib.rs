//! Aggregate statistics over training runs, and plots of them. A few runs of a stochastic learner
//! say little by their mean alone, so everything here comes with an interval: interquartile mean,
//! optimality gap, performance profiles and probability of improvement with stratified bootstrap
//! intervals (Agarwal et al. 2021, arXiv:2108.13264), learning curves with bands, time to a
//! threshold, share of failed runs; as SVG and as Markdown.
//!
//! This crate uses no other one of Cordada. It neither reads files nor draws random numbers of its
//! own: scores come in as numbers, randomness as a closure, texts go out as strings.
//!
//! # Examples
//!
//! ```
//! use cordada_stats::{Bootstrap, Scores, table};
//!
//! // Final returns of six runs on one task.
//! let scores = Scores::one_task(&[500.0, 498.0, 471.0, 500.0, 133.0, 489.0])?;
//! // Any source of indices below n will do; with Cordada's own it is `|n| stream.below(n)`.
//! let mut state = 7_u64;
//! let mut below = |n: usize| {
//!     state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
//!     ((state >> 33) as usize) % n
//! };
//! let iqm = Bootstrap::default().interval(&scores, Scores::iqm, &mut below)?;
//! assert_eq!(iqm.point, 489.5); // the mean of 471, 489, 498 and 500
//! assert!(iqm.low < iqm.point && iqm.point < iqm.high);
//! println!("{}", table::interval(&iqm));
//! # Ok::<(), cordada_stats::Error>(())
//! ```

pub mod aggregate;
pub mod band;
pub mod bootstrap;
pub mod curve;
pub mod error;
pub mod plot;
pub mod sample;
pub mod table;

#[cfg(test)]
mod golden;
#[cfg(test)]
mod testing;

pub use aggregate::{Scores, probability_of_improvement};
pub use band::{Aligned, Band, common_grid};
pub use bootstrap::{Bootstrap, Interval};
pub use curve::{Curve, TimeToThreshold, failure_share, time_to_threshold};
pub use error::Error;
pub use plot::{Panel, PlotOptions, Series, learning_curves};
pub use sample::{Center, percentile_range, quantile};
pub use table::{Align, Table};
