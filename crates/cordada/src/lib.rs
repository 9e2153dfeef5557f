//! Policy gradients in Rust: fast, exact, resumable.
pub use cordada_env as env;
pub use cordada_log as log;
pub use cordada_nn as nn;
pub use cordada_rl as rl;
