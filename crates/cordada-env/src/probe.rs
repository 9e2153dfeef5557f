//! Test environments with known answers, for the tests of learners. They are in no list, and are
//! no benchmark.

mod dense;
pub mod linear_quadratic;
pub mod masked_corridor;

pub use linear_quadratic::{LinearQuadratic, LinearQuadraticOptions};
pub use masked_corridor::MaskedCorridor;
