//! Batches: any function of one sample's tokens, over many samples in parallel.
//!
//! The result does not depend on the number of threads: each sample is computed by itself, and results keep the samples' order.

use ndarray::{ArrayView2, ArrayView3, Axis};
use rayon::prelude::*;

use crate::{Codebook, Error, Precision, Real, Result, coding_rate, compression_rate, rate_reduction};

/// `f` of every sample, in rayon's current thread pool.
///
/// # Shapes
/// `z` is `B x d x N`; the result has B entries.
///
/// # Errors
/// The first sample (by index) that fails is named, with its error.
pub fn per_sample<A, T, F>(z: ArrayView3<'_, A>, f: F) -> Result<Vec<T>>
where
    A: Real,
    T: Send,
    F: Fn(ArrayView2<'_, A>) -> Result<T> + Sync,
{
    let all: Vec<Result<T>> = z.axis_iter(Axis(0)).into_par_iter().map(&f).collect();
    all.into_iter()
        .enumerate()
        .map(|(index, one)| one.map_err(|source| Error::Sample { index, source: Box::new(source) }))
        .collect()
}

/// `R` of every sample; see [`coding_rate`].
///
/// # Shapes
/// `z` is `B x d x N`.
///
/// # Errors
/// As for [`per_sample`].
pub fn coding_rates<A: Real>(z: ArrayView3<'_, A>, precision: Precision) -> Result<Vec<A>> {
    per_sample(z, |z| coding_rate(z, precision))
}

/// `R^c` of every sample; see [`compression_rate`].
///
/// # Shapes
/// `z` is `B x d x N`; the codebook's bases are `d x p`.
///
/// # Errors
/// As for [`per_sample`].
pub fn compression_rates<A: Real>(
    z: ArrayView3<'_, A>,
    codebook: &Codebook<A>,
    precision: Precision,
) -> Result<Vec<A>> {
    per_sample(z, |z| compression_rate(z, codebook, precision))
}

/// `Delta R` of every sample; see [`rate_reduction`].
///
/// # Shapes
/// As for [`compression_rates`].
///
/// # Errors
/// As for [`per_sample`].
pub fn rate_reductions<A: Real>(z: ArrayView3<'_, A>, codebook: &Codebook<A>, precision: Precision) -> Result<Vec<A>> {
    per_sample(z, |z| rate_reduction(z, codebook, precision))
}
