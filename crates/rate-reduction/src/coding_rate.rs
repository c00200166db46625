//! The rates of NIPS eqs 1 and 7: what the tokens cost alone, what they cost given the subspaces, and the difference.
//!
//! ```text
//! R(Z)         = 1/2 logdet(I_N + alpha Z^T Z)                    alpha = d / (N eps^2)
//! R^c(Z; U)    = 1/2 sum_k logdet(I_N + gamma (U_k^T Z)^T (U_k^T Z))   gamma = p / (N eps^2)
//! Delta R      = R - R^c
//! ```
//!
//! Natural logarithms: the unit is nats. Each determinant is taken of the smaller of its two equal forms.

use ndarray::{ArrayView2, ArrayView3, Axis};
use rayon::prelude::*;

use crate::{Codebook, Form, Precision, Real, Result, check, product, resolvent, unit_norm};

/// What stands in the place of eps^2 in CRATE's released measurements.
const RELEASED_EPS_SQUARED: f64 = 0.01;

/// `R(Z)`, in nats.
///
/// # Shapes
/// `z` is `d x N`, a token a column.
///
/// # Errors
/// `z` must be finite and not empty.
pub fn coding_rate<A: Real>(z: ArrayView2<'_, A>, precision: Precision) -> Result<A> {
    coding_rate_in_form(z, precision, Form::smaller(z.nrows(), z.ncols()))
}

/// `R(Z)` by the form of one's choice: the two agree by Sylvester's identity and differ in cost.
///
/// # Shapes
/// `z` is `d x N`.
///
/// # Errors
/// As for [`coding_rate`].
pub fn coding_rate_in_form<A: Real>(z: ArrayView2<'_, A>, precision: Precision, form: Form) -> Result<A> {
    check::matrix("Z", z)?;
    half_log_det(z, precision.alpha(z.nrows(), z.ncols())?, form)
}

/// `R^c(Z; U_[K])`, in nats: the rate left once each subspace codes its own projection.
///
/// # Shapes
/// `z` is `d x N`; the codebook's bases are `d x p`.
///
/// # Errors
/// `z` must be finite, not empty, and have the codebook's d.
pub fn compression_rate<A: Real>(z: ArrayView2<'_, A>, codebook: &Codebook<A>, precision: Precision) -> Result<A> {
    codebook.admit(z)?;
    let mut heads = codebook.coordinates(z)?;
    let p = codebook.subspace_dim();
    let (gamma, form) = (precision.gamma(p, z.ncols())?, Form::smaller(p, z.ncols()));
    let terms = product::per_block(&mut heads, p, |v| half_log_det(v.view(), gamma, form))?;
    check::computed_scalar("R^c", terms.into_iter().sum())
}

/// `Delta R(Z; U_[K]) = R - R^c`, in nats: the information gained by knowing the subspaces.
///
/// # Shapes
/// As for [`compression_rate`].
///
/// # Errors
/// As for [`compression_rate`].
pub fn rate_reduction<A: Real>(z: ArrayView2<'_, A>, codebook: &Codebook<A>, precision: Precision) -> Result<A> {
    Ok(coding_rate(z, precision)? - compression_rate(z, codebook, precision)?)
}

/// The compression as CRATE's released code plots it: every projected token is scaled to unit length first, and 0.01 stands in the place
/// of eps^2 (so eps is 0.1). It is not [`compression_rate`]: the normalisation removes all differences of length.
///
/// # Shapes
/// `heads` is `K x p x N`: `U_k^T LN(Z)` for each head, tokens in columns, class token included.
///
/// # Errors
/// Entries must be finite, and no projected token may be zero: the released code answers NaN there.
pub fn released_compression_measure<A: Real>(heads: ArrayView3<'_, A>) -> Result<A> {
    let (k, p, n) = heads.dim();
    if k == 0 {
        return Err(crate::Error::Heads { columns: 0, heads: 0 });
    }
    let gamma = Precision::from_eps_squared(RELEASED_EPS_SQUARED)?.gamma(p, n)?;
    let terms: Vec<A> = (0..k)
        .into_par_iter()
        .map(|k| half_log_det(unit_norm(heads.index_axis(Axis(0), k))?.view(), gamma, Form::smaller(p, n)))
        .collect::<Result<_>>()?;
    check::computed_scalar("the measured compression", terms.into_iter().sum())
}

/// `1/2 logdet(I + c X^T X)` for a checked X.
pub(crate) fn half_log_det<A: Real>(x: ArrayView2<'_, A>, c: f64, form: Form) -> Result<A> {
    let c = check::rounded("the scale of the coding rate", c)?;
    Ok(resolvent::log_det(x, c, form)? * A::of(0.5))
}
