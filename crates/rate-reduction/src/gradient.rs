//! The exact gradients of the rates (NIPS eq 9):
//!
//! ```text
//! grad R      = alpha Z (I + alpha Z^T Z)^{-1}
//! grad R^c    = gamma sum_k U_k (U_k^T Z) (I + gamma (U_k^T Z)^T (U_k^T Z))^{-1}
//! grad Delta R = grad R - grad R^c
//! ```
//!
//! In each term the inverse is that of the smaller form. A rate and its gradient come from the same factorisation, so the functions
//! that give both cost what the gradient alone does.

use ndarray::{Array2, ArrayView2};

use crate::resolvent::Resolvent;
use crate::{Codebook, Precision, Real, Result, check, product};

/// `grad R(Z)`.
///
/// # Shapes
/// `z` and the result are `d x N`, a token a column.
///
/// # Errors
/// `z` must be finite and not empty.
pub fn coding_rate_gradient<A: Real>(z: ArrayView2<'_, A>, precision: Precision) -> Result<Array2<A>> {
    Ok(coding_rate_and_gradient(z, precision)?.1)
}

/// `R(Z)`, in nats, and `grad R(Z)` (NIPS eqs 1 and 9) from one factorisation.
///
/// # Shapes
/// `z` and the gradient are `d x N`, a token a column.
///
/// # Errors
/// `z` must be finite and not empty.
pub fn coding_rate_and_gradient<A: Real>(z: ArrayView2<'_, A>, precision: Precision) -> Result<(A, Array2<A>)> {
    check::matrix("Z", z)?;
    let resolvent = Resolvent::new(z, alpha(z, precision)?)?;
    Ok((resolvent.rate()?, resolvent.into_gradient()?))
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
    Ok(compression_rate_and_gradient(z, codebook, precision)?.1)
}

/// `R^c(Z; U_[K])`, in nats, and `grad R^c(Z; U_[K])` (NIPS eqs 7 and 9) from one factorisation in each subspace.
///
/// # Shapes
/// `z` and the gradient are `d x N`; the codebook's bases are `d x p`.
///
/// # Errors
/// `z` must be finite, not empty, and have the codebook's d.
pub fn compression_rate_and_gradient<A: Real>(
    z: ArrayView2<'_, A>,
    codebook: &Codebook<A>,
    precision: Precision,
) -> Result<(A, Array2<A>)> {
    let gamma = gamma(z, codebook, precision)?;
    let mut heads = codebook.coordinates(z)?;
    let rates = product::per_block(&mut heads, codebook.subspace_dim(), |mut v| {
        let resolvent = Resolvent::new(v.view(), gamma)?;
        let rate = resolvent.rate()?;
        v.assign(&resolvent.into_gradient()?);
        Ok(rate)
    })?;
    let rate = check::computed_scalar("R^c", rates.into_iter().sum())?;
    Ok((rate, check::computed("grad R^c", codebook.spread(heads.view()))?))
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
    Ok(rate_reduction_and_gradient(z, codebook, precision)?.1)
}

/// `Delta R(Z; U_[K])`, in nats, and `grad Delta R(Z; U_[K])` (NIPS eqs 1, 7 and 9).
///
/// # Shapes
/// As for [`compression_rate_and_gradient`].
///
/// # Errors
/// As for [`compression_rate_and_gradient`].
pub fn rate_reduction_and_gradient<A: Real>(
    z: ArrayView2<'_, A>,
    codebook: &Codebook<A>,
    precision: Precision,
) -> Result<(A, Array2<A>)> {
    let (r, grad_r) = coding_rate_and_gradient(z, precision)?;
    let (rc, grad_rc) = compression_rate_and_gradient(z, codebook, precision)?;
    Ok((r - rc, grad_r - grad_rc))
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
