#![doc = include_str!("../README.md")]
//!
//! # Where to read
//!
//! | module | what it holds |
//! |---|---|
//! | [`layerwise`] | a probe that measures R^c and sparsity in every layer, streaming over batches |
//! | [`stats`] | mean and spread of a stream; the numbers of one layer |
//! | [`metrics`] | a run's `metrics.jsonl` as series and charts |
//! | [`plots`] | figures as SVG: line chart, confusion matrix, bars, magnitudes of a matrix, points; several in one file |
//! | [`report`] | one self-contained HTML page |
//!
//! Only [`layerwise`] and the formula behind it touch tensors; what they find is plain data, which the rest reads.

mod error;
pub mod layerwise;
pub mod metrics;
pub mod plots;
mod rate;
pub mod report;
pub mod stats;
mod text;

pub use error::{Error, Result};
pub use layerwise::LayerwiseProbe;
pub use plots::{Chart, Series};
pub use report::{Baseline, Classification, LayerComparison, Picture, Report, Sample};
pub use stats::{LayerStats, Stat};
pub use text::count;

#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct RepositoryReadme;
