//! What `cargo xtask` is made of: it prepares the machine (setup, doctor, data), runs the checks (test, bench) and
//! hands every other word to the `whitebox` binary that it builds.
//!
//! Nothing here links libtorch, directly or through another crate of the workspace: `cargo xtask doctor` has to work
//! exactly where libtorch is missing or broken. The library half exists so that the tests can put small fake wheels,
//! caches and clones in place of the real ones.

pub mod bench;
pub mod cli;
pub mod data;
pub mod doctor;
pub mod document;
pub mod elf;
pub mod files;
pub mod lapack;
pub mod libtorch;
pub mod manifest;
pub mod pins;
pub mod places;
pub mod quiet;
pub mod reference;
pub mod results;
pub mod setup;
pub mod shell;
pub mod suite;
pub mod unpack;
pub mod versus;
pub mod wheels;
pub mod whitebox;
