//! The codebook `U_[K] = (U_1, ..., U_K)`: K bases of p-dimensional subspaces of R^d (NIPS section 2.1).
//!
//! The theory assumes orthonormal bases; learned ones are not, and the formulas do not need it, so it is not required here.
//! [`subspace`](crate::subspace) measures how far from it a codebook is.

use ndarray::{Array2, ArrayView2, Axis, concatenate, s};
use rayon::prelude::*;

use crate::product::product;
use crate::{Error, Real, Result, check};

/// K bases, each `d x p`, checked once for shape and finiteness.
#[derive(Debug, Clone, PartialEq)]
pub struct Codebook<A> {
    bases: Vec<Array2<A>>,
    /// The same numbers side by side, `[U_1 ... U_K]`: all subspaces in one product cost less than K products and a sum.
    all: Array2<A>,
    d: usize,
    p: usize,
}

impl<A: Real> Codebook<A> {
    /// From the bases, each `d x p`.
    ///
    /// # Errors
    /// There must be at least one basis, all of one shape, with finite entries.
    pub fn new(bases: Vec<Array2<A>>) -> Result<Self> {
        let Some(first) = bases.first() else {
            return Err(Error::Heads { columns: 0, heads: 0 });
        };
        let (d, p) = first.dim();
        for u in &bases {
            check::matrix("a basis of the codebook", u.view())?;
            check::shape("a basis of the codebook", u.shape(), &[d, p])?;
        }
        let views: Vec<_> = bases.iter().map(|m| m.view()).collect();
        let all = concatenate(Axis(1), &views).expect("every basis is d x p");
        Ok(Self { bases, all, d, p })
    }

    /// From `[U_1 ... U_K]`, `d x Kp`: the transpose of a `qkv` weight as PyTorch stores it.
    ///
    /// # Errors
    /// The columns must divide evenly into `heads` bases.
    pub fn from_matrix(u: ArrayView2<'_, A>, heads: usize) -> Result<Self> {
        let columns = u.ncols();
        if heads == 0 || columns == 0 || !columns.is_multiple_of(heads) {
            return Err(Error::Heads { columns, heads });
        }
        let p = columns / heads;
        Self::new((0..heads).map(|k| u.slice(s![.., k * p..(k + 1) * p]).to_owned()).collect())
    }

    /// `[U_1 ... U_K]`, `d x Kp`.
    pub fn to_matrix(&self) -> Array2<A> {
        self.all.clone()
    }

    /// The bases `U_k`, each `d x p`.
    pub fn bases(&self) -> &[Array2<A>] {
        &self.bases
    }

    /// d, the dimension of the tokens.
    pub fn dim(&self) -> usize {
        self.d
    }

    /// p, the dimension of each subspace.
    pub fn subspace_dim(&self) -> usize {
        self.p
    }

    /// K, the number of subspaces.
    pub fn heads(&self) -> usize {
        self.bases.len()
    }

    /// The coordinates `U_k^T Z` in each subspace.
    ///
    /// # Shapes
    /// `z` is `d x N`; the result holds K matrices `p x N`.
    ///
    /// # Errors
    /// `z` must be finite, non-empty and have d rows.
    pub fn project(&self, z: ArrayView2<'_, A>) -> Result<Vec<Array2<A>>> {
        self.admit(z)?;
        Ok(self.coordinates(z)?.axis_chunks_iter(Axis(0), self.p).map(|v| v.to_owned()).collect())
    }

    /// `[U_1^T Z; ...; U_K^T Z]`, `Kp x N`, for a `z` that was admitted.
    pub(crate) fn coordinates(&self, z: ArrayView2<'_, A>) -> Result<Array2<A>> {
        check::computed("U_k^T Z", product(A::of(1.0), self.all.t(), z))
    }

    /// `sum_k U_k V_k` of `[V_1; ...; V_K]`, `Kp x N`.
    pub(crate) fn spread(&self, heads: ArrayView2<'_, A>) -> Array2<A> {
        product(A::of(1.0), self.all.view(), heads)
    }

    /// `sum_k f(U_k)` for a `z` that was admitted, the terms computed in parallel and added in order, so that the sum does not depend on the number of threads.
    pub(crate) fn sum<F>(&self, z: ArrayView2<'_, A>, term: F) -> Result<Array2<A>>
    where
        F: Fn(&Array2<A>) -> Result<Array2<A>> + Sync,
    {
        let terms: Vec<_> = self.bases.par_iter().map(&term).collect::<Result<_>>()?;
        Ok(terms.iter().fold(Array2::zeros(z.raw_dim()), |sum, t| sum + t))
    }

    /// Whether `z` is a finite matrix of the codebook's d.
    pub(crate) fn admit(&self, z: ArrayView2<'_, A>) -> Result<()> {
        check::matrix("Z", z)?;
        check::shape("Z", z.shape(), &[self.d, z.ncols()])
    }
}
