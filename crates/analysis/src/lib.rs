#![doc = include_str!("../README.md")]
//!
//! # Where to read
//!
//! | module | what it holds |
//! |---|---|
//! | [`layerwise`] | a probe that measures R^c and sparsity in every layer, streaming over batches |
//! | [`steps`] | a probe that asks of each half of a layer whether it does its job: the objective before and behind it, its direction against the gradient's |
//! | [`activity`] | a probe that counts which atoms are active, and how large |
//! | [`atoms`] | a probe that keeps for every atom the tokens that activate it most, and tells which atoms are selective |
//! | [`positions`] | a probe for R^c and activity by position in a sequence |
//! | [`operators`] | learned bases, dictionaries and output maps against what the theory takes them for |
//! | [`tokens`] | a probe for the effective rank of each head's tokens and for which head claims which |
//! | [`attention`], [`pca`], [`segmentation`] | maps of attention over an image and where it goes in a sequence, principal components of tokens, and masks of objects that nobody labelled |
//! | [`stats`] | mean and spread of a stream; the numbers of one layer |
//! | [`metrics`] | a run's `metrics.jsonl` as series and charts |
//! | [`plots`] | figures as SVG: line chart, confusion matrix, bars, magnitudes of a matrix, a map over tokens, points; several in one file |
//! | [`report`] | one self-contained HTML page |
//!
//! Only the probes and [`operators`] touch tensors; what they find is plain data, which the rest reads.

pub mod activity;
pub mod atoms;
pub mod attention;
mod error;
pub mod layerwise;
pub mod metrics;
pub mod operators;
pub mod pca;
pub mod plots;
pub mod positions;
mod rate;
pub mod report;
pub mod segmentation;
pub mod stats;
pub mod steps;
mod text;
mod together;
pub mod tokens;

pub use error::{Error, Result};
pub use layerwise::LayerwiseProbe;
pub use plots::{Chart, Series};
pub use report::{Baseline, Classification, LayerComparison, Picture, Report, Sample, Section};
pub use stats::{LayerStats, Stat};
pub use text::count;
pub use together::Together;

#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct RepositoryReadme;
