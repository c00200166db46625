//! The commands, one a file.

pub mod analyze;
pub mod convert;
pub mod demo;
pub mod dry_run;
pub mod eval;
// Called by `eval`, once that looks at what a checkpoint holds.
#[expect(dead_code)]
pub mod eval_sentences;
pub mod experiment;
pub mod features;
pub mod predict;
pub mod recipes;
pub mod reconstruct;
pub mod sweep;
pub mod throughput;
pub mod train;
