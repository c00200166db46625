//! Coding rates, their derivatives, and the white-box layers that follow from them.
//!
#![doc = include_str!("../README.md")]

mod approximation;
mod batch;
mod check;
mod cholesky;
mod codebook;
mod coding_rate;
mod error;
mod gradient;
mod hessian;
mod ista;
mod mcr2;
mod mm_prox;
mod mssa;
mod multi_head;
mod nearest;
mod objective;
mod precision;
mod product;
mod real;
pub mod redunet;
mod resolvent;
mod subspace;
pub mod theory;

pub use approximation::{
    ChainErrors, Deviation, chain_errors, deviation, neumann_gradient, neumann_inverse, softmax_gradient,
    spanning_gradient,
};
pub use batch::{coding_rates, compression_rates, per_sample, rate_reductions};
pub use codebook::Codebook;
pub use coding_rate::{
    coding_rate, coding_rate_in_form, compression_rate, rate_reduction, released_compression_measure,
};
pub use error::{Error, Result};
pub use gradient::{
    coding_rate_and_gradient, coding_rate_gradient, compression_rate_and_gradient, compression_rate_gradient,
    rate_reduction_and_gradient, rate_reduction_gradient,
};
pub use hessian::{coding_rate_hvp, compression_rate_hvp, rate_reduction_hvp};
pub use ista::{IstaGradient, ista, ista_backward, ista_one_product, ista_operator, lasso, proximal_step};
pub use mcr2::{Mcr2, Memberships, mcr2, mcr2_gradient};
pub use mm_prox::{mm_prox, mm_prox_closed, mm_prox_objective};
pub use mssa::{attention_map, column_softmax, mssa, mssa_step, ssa};
pub use multi_head::{MultiHead, MultiHeadGradient, ssa_backward};
pub use nearest::{NearestSubspace, Width};
pub use objective::{SparseRateReduction, Sparsity, nonzero_fraction, sparse_rate_reduction};
pub use precision::Precision;
pub use real::Real;
pub use redunet::{ReduNet, ReduNetConfig, ShiftReduNet, Shifts};
pub use resolvent::Form;
pub use subspace::{
    coherence, mutual_coherence, nearest_subspace, orthonormality_error, orthonormalize, random_codebook, unit_norm,
};
