//! What a representation has to be like to be an optimum, and how near a given one is (NIPS section 2.1; JMLR figures 3
//! and 5; book on MCR^2).
//!
//! *Compressed*: the tokens of a class lie in a subspace of low dimension. *Linearised* and far apart: the subspaces of
//! different classes are orthogonal ([`coherence`](crate::coherence) 0). *Sparse*: they lie along the axes. The rate
//! reduction does not change when everything is rotated, so it settles the first two; the l1 term settles the third.
//!
//! For MCR^2 with `- lambda/2 ||Z||_F^2` the maxima are known: `Z_k = sqrt(x_k) U_k V_k^T` with mutually orthogonal
//! U_k, where x_k is the larger root of `alpha/(1 + alpha x) - alpha/(1 + alpha_k x) = lambda`:
//!
//! ```text
//! x_k    = (eta_k + sqrt(eta_k^2 - 4 lambda^2 N/N_k)) / (2 lambda alpha_k)
//! eta_k  = (alpha_k - alpha) - lambda (N/N_k + 1)              alpha = d / (N eps^2),  alpha_k = d / (N_k eps^2)
//! lambda <= alpha (s - 1)/(s + 1)                              s = sqrt(N / max N_k)
//! ```
//!
//! How many directions each class fills is not settled by being a local maximum: 0 is one for every direction, so a
//! small start dies out.

use ndarray::{Array2, ArrayView2, Axis, s};
use ndarray_linalg::SVDDC;

use super::denoising::own_and_rest;
use super::energy;
use crate::nearest::admit_labels;
use crate::resolvent::{dense, lapack};
use crate::{Codebook, Error, NearestSubspace, Precision, Real, Result, Width, nearest_subspace};

/// The squared singular values of every class at a maximum of the regularised MCR^2, for classes of these sizes.
///
/// # Errors
/// There must be a class, each with tokens; lambda must be positive and at most `alpha (s - 1)/(s + 1)`, which leaves
/// none for a single class.
pub fn mcr2_spectrum(sizes: &[usize], d: usize, precision: Precision, lambda: f64) -> Result<Vec<f64>> {
    let n: usize = sizes.iter().sum();
    let largest = sizes.iter().copied().max().unwrap_or(0);
    if sizes.contains(&0) || n == 0 {
        return Err(Error::Empty { what: "a class", rows: d, columns: 0 });
    }
    let alpha = precision.alpha(d, n)?;
    let s = (n as f64 / largest as f64).sqrt();
    if !(lambda > 0.0 && lambda <= alpha * (s - 1.0) / (s + 1.0)) {
        let expected = "positive and at most alpha (s - 1)/(s + 1), s = sqrt(N / max N_k)";
        return Err(Error::Parameter { name: "lambda", value: lambda, expected });
    }
    let of_class = |size: &usize| {
        let share = n as f64 / *size as f64;
        let alpha_k = precision.alpha(d, *size)?;
        let eta = alpha_k - alpha - lambda * (share + 1.0);
        // 0 at the largest lambda for the largest class, where rounding may make it negative.
        let root = (eta * eta - 4.0 * lambda * lambda * share).max(0.0).sqrt();
        Ok((eta + root) / (2.0 * lambda * alpha_k))
    };
    sizes.iter().map(of_class).collect()
}

/// The singular values of every class's tokens, falling; class k has as many as the smaller of d and its number of
/// tokens.
///
/// # Shapes
/// `z` is `d x N`, with a label below `classes` for each token.
///
/// # Errors
/// `z` must be finite and not empty, the labels fit, and each class have a token.
pub fn class_spectra<A: Real>(z: ArrayView2<'_, A>, labels: &[usize], classes: usize) -> Result<Vec<Vec<f64>>> {
    let of_class = |k| Ok(decomposed(z, labels, classes, k)?.1);
    (0..classes).map(of_class).collect()
}

/// For every class the p directions that hold most of its tokens' energy: the subspaces that a representation has made.
///
/// # Shapes
/// `z` is `d x N`; the bases are `d x p`.
///
/// # Errors
/// As for [`class_spectra`], and each class must span p directions.
pub fn class_codebook<A: Real>(
    z: ArrayView2<'_, A>,
    labels: &[usize],
    classes: usize,
    p: usize,
) -> Result<Codebook<A>> {
    let of_class = |k| {
        let (u, sigma) = decomposed(z, labels, classes, k)?;
        let filled = sigma.iter().filter(|s| **s > sigma[0] * A::ULP * z.len() as f64).count();
        if p == 0 || filled < p {
            return Err(Error::RankDeficient { what: "a class of tokens", column: filled });
        }
        Ok(u.slice(s![.., ..p]).to_owned())
    };
    Codebook::new((0..classes).map(of_class).collect::<Result<_>>()?)
}

/// The largest cosine between directions of two classes' subspaces, where a class's subspace is spanned by its
/// strongest directions, as many as hold `share` of its energy: 0 when all are orthogonal, 1 when two share a
/// direction. Classes may differ in dimension.
///
/// # Shapes
/// `z` is `d x N`.
///
/// # Errors
/// As for [`class_spectra`]; `share` must be above 0 and at most 1.
pub fn class_coherence<A: Real>(z: ArrayView2<'_, A>, labels: &[usize], classes: usize, share: f64) -> Result<A> {
    Ok(A::of(NearestSubspace::fit(z, labels, classes, Width::Energy(share))?.coherence()?))
}

/// The share of the tokens' energy outside the subspace that is nearest to each: what a fixed codebook fails to explain
/// token by token.
///
/// # Shapes
/// `z` is `d x N`; the codebook's bases are orthonormal.
///
/// # Errors
/// As for [`nearest_subspace`].
pub fn outside_nearest<A: Real>(z: ArrayView2<'_, A>, codebook: &Codebook<A>) -> Result<f64> {
    let nearest = nearest_subspace(z, codebook)?;
    let (_, rest) = own_and_rest(z, codebook, &nearest)?;
    Ok(energy(rest.view()) / energy(z))
}

/// The share of energy on axes that are another class's, where an axis is the class's that has most energy there: 0 for
/// axis-aligned subspaces, about `1 - 1/K` for subspaces in general position.
///
/// # Shapes
/// `z` is `d x N`.
///
/// # Errors
/// As for [`class_spectra`]; not all tokens may be zero.
pub fn off_axis_energy<A: Real>(z: ArrayView2<'_, A>, labels: &[usize], classes: usize) -> Result<f64> {
    admit_labels(z, labels, classes)?;
    let mut held = Array2::<f64>::zeros((z.nrows(), classes));
    for ((axis, token), v) in z.indexed_iter() {
        held[(axis, labels[token])] += v.wide().powi(2);
    }
    let all = held.sum();
    if all == 0.0 {
        return Err(Error::ZeroToken { what: "the token matrix", column: 0 });
    }
    let owned: f64 = held.rows().into_iter().map(|row| row.iter().copied().fold(0.0, f64::max)).sum();
    Ok((all - owned).max(0.0) / all)
}

/// The share of the tokens' energy in their class's p strongest directions: 1 where classes are compressed into p
/// dimensions.
///
/// # Shapes
/// `z` is `d x N`.
///
/// # Errors
/// As for [`class_spectra`]; not all tokens may be zero.
pub fn compressed_energy<A: Real>(z: ArrayView2<'_, A>, labels: &[usize], classes: usize, p: usize) -> Result<f64> {
    let spectra = class_spectra(z, labels, classes)?;
    let sum = |take: usize| -> f64 { spectra.iter().flat_map(|s| s.iter().take(take)).map(|s| s * s).sum() };
    let all = sum(usize::MAX);
    if all == 0.0 {
        return Err(Error::ZeroToken { what: "the token matrix", column: 0 });
    }
    Ok(sum(p) / all)
}

/// Left singular vectors and singular values of one class's tokens.
fn decomposed<A: Real>(
    z: ArrayView2<'_, A>,
    labels: &[usize],
    classes: usize,
    k: usize,
) -> Result<(Array2<A>, Vec<f64>)> {
    admit_labels(z, labels, classes)?;
    let mine: Vec<usize> = labels.iter().enumerate().filter(|(_, l)| **l == k).map(|(i, _)| i).collect();
    if mine.is_empty() {
        return Err(Error::Empty { what: "a class", rows: z.nrows(), columns: 0 });
    }
    let missing = Error::Overflow { what: "the singular vectors of a class" };
    let tokens = dense(z.select(Axis(1), &mine).view());
    let (u, sigma, _) = tokens.svddc(ndarray_linalg::JobSvd::Some).map_err(|e| lapack("a class of tokens", e))?;
    Ok((u.ok_or(missing)?, sigma.iter().map(|s| s.wide()).collect()))
}
