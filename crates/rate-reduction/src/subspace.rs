//! Subspaces: making orthonormal and incoherent bases, measuring how far given ones are from that, and finding a token's own.

use ndarray::{Array2, ArrayView2, Axis};
use ndarray_linalg::{QR, SVD};
use rand::Rng;
use rand_distr::{Distribution, StandardNormal};

use crate::resolvent::{dense, lapack};
use crate::{Codebook, Error, Real, Result, check};

/// A column counts as dependent on those before it when what it adds to their span is this many roundings of its length or less, times
/// the square root of the dimension (roundings add up like a random walk).
const DEPENDENT_ULPS: f64 = 8.0;

/// Every token scaled to unit length.
///
/// # Shapes
/// `z` and the result are `d x N`, a token a column.
///
/// # Errors
/// `z` must be finite and not empty; a zero token has no direction.
pub fn unit_norm<A: Real>(z: ArrayView2<'_, A>) -> Result<Array2<A>> {
    check::matrix("the tokens", z)?;
    let mut unit = z.to_owned();
    for (column, mut token) in unit.axis_iter_mut(Axis(1)).enumerate() {
        // Divided by the largest entry first: the square of a tiny or a huge token would leave the number range.
        let largest = token.iter().fold(0.0, |top: f64, v| top.max(v.wide().abs()));
        if largest == 0.0 {
            return Err(Error::ZeroToken { what: "the token matrix", column });
        }
        let length = token.iter().map(|v| (v.wide() / largest).powi(2)).sum::<f64>().sqrt();
        token.mapv_inplace(|v| A::of(v.wide() / largest / length));
    }
    Ok(unit)
}

/// The Gram-Schmidt basis of the columns' span: the Q of a QR factorisation whose R has a positive diagonal.
///
/// # Shapes
/// `a` and the result are `d x p`, `p <= d`.
///
/// # Errors
/// `a` must be finite and not empty, and its columns linearly independent.
pub fn orthonormalize<A: Real>(a: ArrayView2<'_, A>) -> Result<Array2<A>> {
    let what = "the basis to orthonormalise";
    check::matrix(what, a)?;
    if a.ncols() > a.nrows() {
        return Err(Error::RankDeficient { what, column: a.nrows() });
    }
    let (mut q, r) = dense(a).qr().map_err(|e| lapack(what, e))?;
    check::computed(what, r.view())?;
    for (column, mut direction) in q.axis_iter_mut(Axis(1)).enumerate() {
        let pivot = r[(column, column)].wide();
        let length = r.column(column).iter().map(|v| v.wide().powi(2)).sum::<f64>().sqrt();
        if pivot.abs() <= DEPENDENT_ULPS * A::ULP * (a.nrows() as f64).sqrt() * length {
            return Err(Error::RankDeficient { what, column });
        }
        if pivot < 0.0 {
            direction.mapv_inplace(|v| -v);
        }
    }
    Ok(q)
}

/// Random orthonormal bases, as incoherent as the dimensions allow: mutually orthogonal while `K p <= d`, drawn independently otherwise.
///
/// # Errors
/// `heads`, `d` and `p` must be positive, and p at most d.
pub fn random_codebook<A: Real>(
    d: usize,
    heads: usize,
    p: usize,
    rng: &mut (impl Rng + ?Sized),
) -> Result<Codebook<A>> {
    // In f64 whatever A is: the last columns of a square Gaussian matrix are too nearly dependent to be told apart in f32.
    let mut bases = |columns| {
        let draw = Array2::from_shape_simple_fn((d, columns), || -> f64 { StandardNormal.sample(rng) });
        Ok(orthonormalize(draw.view())?.mapv(A::of))
    };
    match heads.checked_mul(p) {
        Some(columns) if columns <= d => Codebook::from_matrix(bases(columns)?.view(), heads),
        _ => Codebook::new((0..heads).map(|_| bases(p)).collect::<Result<_>>()?),
    }
}

/// `||A^T A - I||_F`: 0 for orthonormal columns. For a basis U or a dictionary D.
///
/// # Shapes
/// `a` is `d x p`.
///
/// # Errors
/// `a` must be finite and not empty.
pub fn orthonormality_error<A: Real>(a: ArrayView2<'_, A>) -> Result<A> {
    check::matrix("the basis", a)?;
    let error = a.t().dot(&a) - Array2::<A>::eye(a.ncols());
    check::rounded("||A^T A - I||", error.iter().map(|v| v.wide().powi(2)).sum::<f64>().sqrt())
}

/// The largest cosine between directions of two different subspaces, `max_{k != l} ||Q_k^T Q_l||_2` for orthonormal bases Q of the spans:
/// 0 when all are mutually orthogonal, 1 when two share a direction. It is 0 for a single subspace.
///
/// # Errors
/// Each basis must have full rank.
pub fn coherence<A: Real>(codebook: &Codebook<A>) -> Result<A> {
    largest_cosine(&orthonormal_bases(codebook)?)
}

/// As [`coherence`], of orthonormal bases that may differ in width.
fn largest_cosine<A: Real>(bases: &[Array2<A>]) -> Result<A> {
    let mut largest = A::of(0.0);
    for (k, a) in bases.iter().enumerate() {
        for b in &bases[..k] {
            largest = cosines(a, b)?.into_iter().fold(largest, |top, s| if s > top { s } else { top });
        }
    }
    Ok(largest)
}

/// The cosines of the principal angles between the spans of two orthonormal bases, falling.
pub(crate) fn cosines<A: Real>(a: &Array2<A>, b: &Array2<A>) -> Result<Vec<A>> {
    let (_, sigma, _) = dense(a.t().dot(b).view()).svd(false, false).map_err(|e| lapack("U_k^T U_l", e))?;
    Ok(sigma.to_vec())
}

/// The largest cosine between two different columns of a dictionary, `max_{i != j} |<d_i, d_j>| / (||d_i|| ||d_j||)`.
///
/// # Shapes
/// `d` is `m x q`.
///
/// # Errors
/// `d` must be finite and not empty, without a zero column.
pub fn mutual_coherence<A: Real>(d: ArrayView2<'_, A>) -> Result<A> {
    let unit = unit_norm(d)?;
    let gram = unit.t().dot(&unit);
    let off = gram.indexed_iter().filter(|((i, j), _)| i != j).map(|(_, v)| v.wide().abs());
    Ok(A::of(off.fold(0.0, f64::max)))
}

/// For every token the index of the subspace that holds most of it: the largest `||Q_k^T z||`; the first of equals.
///
/// # Shapes
/// `z` is `d x N`; the result has N entries below K.
///
/// # Errors
/// `z` must be finite, not empty, have the codebook's d and no zero token; each basis must have full rank.
pub fn nearest_subspace<A: Real>(z: ArrayView2<'_, A>, codebook: &Codebook<A>) -> Result<Vec<usize>> {
    let bases = Codebook::new(orthonormal_bases(codebook)?)?;
    let heads = bases.project(unit_norm(z)?.view())?;
    let energy = |v: &Array2<A>, i: usize| v.column(i).iter().map(|c| c.wide().powi(2)).sum::<f64>();
    let nearest = |i| {
        let mut best = (0, f64::NEG_INFINITY);
        for (k, v) in heads.iter().enumerate() {
            let held = energy(v, i);
            if held > best.1 {
                best = (k, held);
            }
        }
        best.0
    };
    Ok((0..z.ncols()).map(nearest).collect())
}

fn orthonormal_bases<A: Real>(codebook: &Codebook<A>) -> Result<Vec<Array2<A>>> {
    codebook.bases().iter().map(|u| orthonormalize(u.view())).collect()
}
