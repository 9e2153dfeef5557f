//! cordada
fn main() {}
