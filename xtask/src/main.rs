//! Prepares the machine and opens the door.

fn main() {}
