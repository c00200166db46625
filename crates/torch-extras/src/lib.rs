//! What tch lacks: autocast, fused optimiser kernels, CUDA loading, RNG state, PyTorch checkpoint files.
//!
//! The only crate of the project with `unsafe` code: a thin C++ shim (`cpp/`) and the calls into it. Everything public is safe.
#![doc = include_str!("../README.md")]
// The foreign calls of the whole project are gathered here; each block says why it is sound.
#![allow(unsafe_code)]

pub mod attention;
pub mod autocast;
pub mod counts;
pub mod cuda;
pub mod embedding;
mod error;
mod ffi;
pub mod function;
pub mod fused;
pub mod heap;
pub mod matrices;
pub mod pooling;
pub mod pth;
pub mod rates;
pub mod rng;
pub mod rows;
pub mod steps;
#[cfg(test)]
mod testing;

pub use error::{Error, Result};
