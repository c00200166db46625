//! Hessian-vector products of the rates (NIPS Lemma 5), with `M = (I + alpha Z^T Z)^{-1}`:
//!
//! ```text
//! Hess R(Z)[D]   = alpha D M - alpha^2 Z M (Z^T D + D^T Z) M
//! Hess R^c(Z)[D] = sum_k U_k Hess R_gamma(U_k^T Z)[U_k^T D]
//! ```
//!
//! NIPS Lemma 6 bounds the operator norm of `Hess R` by `9 alpha / 4`. Written as `alpha M' D M - (alpha Z M) D^T (alpha Z M)`, where
//! `M, M' <= I` and `||alpha Z M|| <= sqrt(alpha) / 2`, the same operator is seen to be bounded by `5 alpha / 4` already.

use ndarray::{Array2, ArrayView2};

use crate::gradient::{alpha, gamma};
use crate::resolvent::Resolvent;
use crate::{Codebook, Precision, Real, Result, check};

/// `Hess R(Z)[D]`.
///
/// # Shapes
/// `z`, `direction` and the result are `d x N`.
///
/// # Errors
/// Both must be finite, not empty and of one shape.
pub fn coding_rate_hvp<A: Real>(
    z: ArrayView2<'_, A>,
    direction: ArrayView2<'_, A>,
    precision: Precision,
) -> Result<Array2<A>> {
    admit(z, direction)?;
    Resolvent::new(z, alpha(z, precision)?)?.hessian(z, direction)
}

/// `Hess R^c(Z; U_[K])[D]`.
///
/// # Shapes
/// `z`, `direction` and the result are `d x N`; the codebook's bases are `d x p`.
///
/// # Errors
/// As for [`coding_rate_hvp`], and d must be the codebook's.
pub fn compression_rate_hvp<A: Real>(
    z: ArrayView2<'_, A>,
    direction: ArrayView2<'_, A>,
    codebook: &Codebook<A>,
    precision: Precision,
) -> Result<Array2<A>> {
    admit(z, direction)?;
    let gamma = gamma(z, codebook, precision)?;
    let sum = codebook.sum(z, |u| {
        let v = check::computed("U_k^T Z", u.t().dot(&z))?;
        let along = check::computed("U_k^T D", u.t().dot(&direction))?;
        Ok(u.dot(&Resolvent::new(v.view(), gamma)?.hessian(v.view(), along.view())?))
    })?;
    check::computed("Hess R^c", sum)
}

/// `Hess Delta R(Z; U_[K])[D]`.
///
/// # Shapes
/// As for [`compression_rate_hvp`].
///
/// # Errors
/// As for [`compression_rate_hvp`].
pub fn rate_reduction_hvp<A: Real>(
    z: ArrayView2<'_, A>,
    direction: ArrayView2<'_, A>,
    codebook: &Codebook<A>,
    precision: Precision,
) -> Result<Array2<A>> {
    Ok(coding_rate_hvp(z, direction, precision)? - compression_rate_hvp(z, direction, codebook, precision)?)
}

fn admit<A: Real>(z: ArrayView2<'_, A>, direction: ArrayView2<'_, A>) -> Result<()> {
    check::matrix("Z", z)?;
    check::matrix("the direction", direction)?;
    check::shape("the direction", direction.shape(), z.shape())
}
