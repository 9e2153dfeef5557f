//! What Cordada's own tests share: golden data made by other implementations, and finite
//! differences. It depends on no other crate of the workspace, so every crate can test with it.

pub mod golden;
pub mod gradient;
