//! What a run tells the world: events, the list of metrics, the sinks that show and store them, and
//! the run directory they are stored in.
//!
//! Training code emits [`Event`]s into a [`Sink`] and knows nothing else: [`TerminalSink`] draws
//! progress, [`JsonlSink`] writes `metrics.jsonl`, [`TensorBoardSink`] writes event files, and
//! [`Fanout`] feeds several at once. [`METRICS`] says what every number means. [`RunDir`] lays out
//! and locks the folder of a run. Checkpoints are written elsewhere; this crate only names their
//! folder and lends them [`write_atomic`].
//!
//! ```
//! use cordada_log::{Event, MemorySink, Sink};
//!
//! let mut sink = MemorySink::new();
//! sink.record(&Event::Metrics {
//!     step: 2048,
//!     iteration: 1,
//!     values: vec![("rollout/episode_return", 21.5), ("time/steps_per_s", 50_000.0)],
//! })?;
//! assert_eq!(
//!     serde_json::to_string(&sink.events()[0]).unwrap(),
//!     r#"{"event":"metrics","step":2048,"iteration":1,"rollout/episode_return":21.5,"time/steps_per_s":50000.0}"#
//! );
//! # Ok::<(), cordada_log::Error>(())
//! ```

mod append;
mod error;
mod event;
mod jsonl;
mod metric;
mod report;
mod run_dir;
mod sink;
mod tensorboard;
mod terminal;

pub use error::Error;
pub use event::Event;
pub use jsonl::{JsonlSink, Position, read_deterministic};
pub use metric::{METRICS, MetricSpec, find_metric, is_deterministic};
pub use report::write_report;
pub use run_dir::{RunDir, next_free, write_atomic};
pub use sink::{Fanout, MemorySink, NullSink, Sink};
pub use tensorboard::TensorBoardSink;
pub use terminal::{TerminalMode, TerminalOptions, TerminalSink};
