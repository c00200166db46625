//! From `grad R^c` to MSSA, a step at a time (NIPS Appendix A.2, "Approximation 4"), with `V_k = U_k^T Z` and `G_k = V_k^T V_k`:
//!
//! ```text
//! exact      gamma sum_k U_k V_k (I + gamma G_k)^{-1}                      compression_rate_gradient
//! Neumann    gamma sum_k U_k V_k (I - gamma G_k)                           neumann_gradient
//! softmax    gamma sum_k U_k V_k (I - gamma softmax(G_k))                  softmax_gradient
//! spanning   gamma Z - gamma MSSA(Z | U_[K])                               spanning_gradient
//! ```
//!
//! The Neumann step needs `gamma ||G_k|| < 1` to be close; at the precision of trained models it is not, and only the direction after
//! the softmax is of use. The softmax replaces the correlations by soft memberships; the last step lets `sum_k U_k U_k^T` act as I, which is
//! exact when the bases together are an orthonormal basis of the whole space. [`chain_errors`] measures each step.

use ndarray::{Array2, ArrayView2};

use crate::gradient::gamma;
use crate::{Codebook, Error, Precision, Real, Result, check, column_softmax, compression_rate_gradient, mssa};

/// `I - gamma G`, the first-order Neumann approximation of `(I + gamma G)^{-1}`; off by at most `(gamma ||G||)^2` for a Gram matrix G.
///
/// # Shapes
/// `gram` and the result are `N x N`.
///
/// # Errors
/// `gram` must be square, finite and not empty; `gamma` finite and not negative.
pub fn neumann_inverse<A: Real>(gram: ArrayView2<'_, A>, gamma: f64) -> Result<Array2<A>> {
    check::matrix("the Gram matrix", gram)?;
    check::shape("the Gram matrix", gram.shape(), &[gram.nrows(), gram.nrows()])?;
    let gamma: A = check::rounded("gamma", check::non_negative("gamma", gamma)?)?;
    check::computed("the Neumann approximation", Array2::eye(gram.nrows()) - &gram * gamma)
}

/// Step 1: `gamma sum_k U_k V_k (I - gamma G_k)`, the inverse replaced by its first-order Neumann series.
///
/// # Shapes
/// `z` and the result are `d x N`; the codebook's bases are `d x p`.
///
/// # Errors
/// `z` must be finite, not empty, and have the codebook's d.
pub fn neumann_gradient<A: Real>(
    z: ArrayView2<'_, A>,
    codebook: &Codebook<A>,
    precision: Precision,
) -> Result<Array2<A>> {
    attended(z, codebook, precision, Ok)
}

/// Step 2: `gamma sum_k U_k V_k (I - gamma softmax(G_k))`, the auto-correlation replaced by a soft membership, column by column.
///
/// # Shapes
/// As for [`neumann_gradient`].
///
/// # Errors
/// As for [`neumann_gradient`].
pub fn softmax_gradient<A: Real>(
    z: ArrayView2<'_, A>,
    codebook: &Codebook<A>,
    precision: Precision,
) -> Result<Array2<A>> {
    attended(z, codebook, precision, |gram| column_softmax(gram.view()))
}

/// Step 3: `gamma Z - gamma MSSA(Z | U_[K])`, with `sum_k U_k U_k^T` taken for the identity.
///
/// # Shapes
/// As for [`neumann_gradient`].
///
/// # Errors
/// As for [`neumann_gradient`].
pub fn spanning_gradient<A: Real>(
    z: ArrayView2<'_, A>,
    codebook: &Codebook<A>,
    precision: Precision,
) -> Result<Array2<A>> {
    let gamma = gamma(z, codebook, precision)?;
    check::computed("the spanning approximation", (&z - mssa(z, codebook, precision)?) * gamma)
}

/// How far something lies from what it should be: an approximation of `grad R^c` from the exact gradient.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Deviation {
    /// `||approximation - exact||_F / ||exact||_F`.
    pub relative: f64,
    /// The cosine between the two as vectors: 1 where they point the same way, whatever their lengths; 0 for an approximation that is 0.
    pub cosine: f64,
}

/// The deviation after each step of the derivation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ChainErrors {
    /// Of [`neumann_gradient`].
    pub neumann: Deviation,
    /// Of [`softmax_gradient`].
    pub softmax: Deviation,
    /// Of [`spanning_gradient`].
    pub spanning: Deviation,
}

/// Follows the derivation on given tokens and measures what every step costs.
///
/// # Shapes
/// As for [`neumann_gradient`].
///
/// # Errors
/// As for [`neumann_gradient`]; the tokens must not be orthogonal to every subspace, where the exact gradient is 0.
pub fn chain_errors<A: Real>(
    z: ArrayView2<'_, A>,
    codebook: &Codebook<A>,
    precision: Precision,
) -> Result<ChainErrors> {
    let exact = compression_rate_gradient(z, codebook, precision)?;
    let deviation = |step: Array2<A>| deviation(step.view(), exact.view());
    Ok(ChainErrors {
        neumann: deviation(neumann_gradient(z, codebook, precision)?)?,
        softmax: deviation(softmax_gradient(z, codebook, precision)?)?,
        spanning: deviation(spanning_gradient(z, codebook, precision)?)?,
    })
}

/// `gamma sum_k U_k V_k (I - gamma f(G_k))`.
fn attended<A: Real, F>(z: ArrayView2<'_, A>, codebook: &Codebook<A>, precision: Precision, f: F) -> Result<Array2<A>>
where
    F: Fn(Array2<A>) -> Result<Array2<A>> + Sync,
{
    let scale = gamma(z, codebook, precision)?;
    let sum = codebook.sum(z, |u| {
        let v = u.t().dot(&z);
        let gram = check::computed("G_k", v.t().dot(&v))?;
        Ok(u.dot(&(&v - v.dot(&f(gram)?) * scale)))
    })?;
    check::computed("the approximate gradient", sum * scale)
}

/// How far `step` lies from `exact`.
///
/// # Shapes
/// Both are of one shape.
///
/// # Errors
/// [`Error::ZeroGradient`] where `exact` is 0; shapes must fit and entries be finite.
pub fn deviation<A: Real>(step: ArrayView2<'_, A>, exact: ArrayView2<'_, A>) -> Result<Deviation> {
    check::shape("the approximation", step.shape(), exact.shape())?;
    let inner = |a: ArrayView2<'_, A>, b: ArrayView2<'_, A>| -> f64 {
        a.iter().zip(&b).map(|(x, y)| x.wide() * y.wide()).sum()
    };
    let (of_step, of_exact) = (inner(step, step).sqrt(), inner(exact, exact).sqrt());
    if of_exact == 0.0 {
        return Err(Error::ZeroGradient);
    }
    let error = &step - &exact;
    let relative = inner(error.view(), error.view()).sqrt() / of_exact;
    let cosine = if of_step == 0.0 { 0.0 } else { inner(step, exact) / (of_step * of_exact) };
    Ok(Deviation {
        relative: check::computed_scalar("the relative error", relative)?,
        cosine: check::computed_scalar("the cosine", cosine)?,
    })
}
