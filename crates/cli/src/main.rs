//! The `whitebox` command.

fn main() {}
