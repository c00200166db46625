//! The exact gradients of the rates (NIPS eq 9):
//!
//! ```text
//! grad R      = alpha Z (I + alpha Z^T Z)^{-1}
//! grad R^c    = gamma sum_k U_k (U_k^T Z) (I + gamma (U_k^T Z)^T (U_k^T Z))^{-1}
//! grad Delta R = grad R - grad R^c
//! ```
//!
//! In each term the inverse is that of the smaller form.

use ndarray::{Array2, ArrayView2};

use crate::resolvent::Resolvent;
use crate::{Codebook, Precision, Real, Result, check};

/// `grad R(Z)`.
///
/// # Shapes
/// `z` and the result are `d x N`, a token a column.
///
/// # Errors
/// `z` must be finite and not empty.
pub fn coding_rate_gradient<A: Real>(z: ArrayView2<'_, A>, precision: Precision) -> Result<Array2<A>> {
    check::matrix("Z", z)?;
    Resolvent::new(z, alpha(z, precision)?)?.gradient()
}

/// `grad R^c(Z; U_[K])`.
///
/// # Shapes
/// `z` and the result are `d x N`; the codebook's bases are `d x p`.
///
/// # Errors
/// `z` must be finite, not empty, and have the codebook's d.
pub fn compression_rate_gradient<A: Real>(
    z: ArrayView2<'_, A>,
    codebook: &Codebook<A>,
    precision: Precision,
) -> Result<Array2<A>> {
    let gamma = gamma(z, codebook, precision)?;
    let sum = codebook.sum(z, |u| {
        let v = check::computed("U_k^T Z", u.t().dot(&z))?;
        Ok(u.dot(&Resolvent::new(v.view(), gamma)?.gradient()?))
    })?;
    check::computed("grad R^c", sum)
}

/// `grad Delta R(Z; U_[K])`.
///
/// # Shapes
/// As for [`compression_rate_gradient`].
///
/// # Errors
/// As for [`compression_rate_gradient`].
pub fn rate_reduction_gradient<A: Real>(
    z: ArrayView2<'_, A>,
    codebook: &Codebook<A>,
    precision: Precision,
) -> Result<Array2<A>> {
    Ok(coding_rate_gradient(z, precision)? - compression_rate_gradient(z, codebook, precision)?)
}

/// alpha of these tokens, in their own number type.
pub(crate) fn alpha<A: Real>(z: ArrayView2<'_, A>, precision: Precision) -> Result<A> {
    check::rounded("alpha", precision.alpha(z.nrows(), z.ncols())?)
}

/// gamma of these tokens in this codebook, in their own number type, after admitting them.
pub(crate) fn gamma<A: Real>(z: ArrayView2<'_, A>, codebook: &Codebook<A>, precision: Precision) -> Result<A> {
    codebook.admit(z)?;
    check::rounded("gamma", precision.gamma(codebook.subspace_dim(), z.ncols())?)
}
