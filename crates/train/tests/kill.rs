//! Placeholder for the moment.
fn main() {}
