//! The commands, one a file.

pub mod analyze;
mod analyze_text;
pub mod convert;
pub mod demo;
pub mod dry_run;
pub mod eval;
mod eval_sentences;
mod eval_text;
pub mod experiment;
pub mod features;
pub mod generate;
pub mod predict;
pub mod recipes;
pub mod reconstruct;
pub mod sweep;
pub mod throughput;
pub mod tokenize;
pub mod train;
