//! The sparsification step: one unrolled iteration of ISTA for the non-negative LASSO (NIPS eqs 13-17).
//!
//! ```text
//! min_{Z >= 0}  lambda ||Z||_1 + 1/2 ||Z^{l+1/2} - D Z||_F^2            (NIPS prints no 1/2; its step is this objective's)
//! ISTA(Z | D) = ReLU(Z + eta D^T (Z - D Z) - eta lambda)
//!             = ReLU(M Z - eta lambda),   M = I + eta D^T (I - D)       (one product, for when D serves many tokens)
//! ```
//!
//! `D` is complete (`d x d`) and taken for nearly orthogonal, so that `R(Z^{l+1})` is about `R(D Z^{l+1}) = R(Z^{l+1/2})` and the expansion
//! term needs no work. One book chapter prints `+ beta lambda`; the sign here is that of the derivation and of the released code.
//!
//! Backward, with `g = 1[pre > 0] o G` and `r = x - D x`: `dx = g + eta (D g - D^T D g)`, `dD = eta (r g^T - (D g) x^T)`.

use ndarray::{Array2, ArrayView2};

use crate::objective::l1_norm;
use crate::{Real, Result, check};

/// `ISTA(Z | D)` in its plain form: two products with D, none of which needs preparing.
///
/// # Shapes
/// `z` and the result are `d x N`, `d` (the dictionary) is `d x d`.
///
/// # Errors
/// The matrices must be finite, not empty, and fit; `eta` and `lambda` finite and not negative.
pub fn ista<A: Real>(z: ArrayView2<'_, A>, d: ArrayView2<'_, A>, eta: f64, lambda: f64) -> Result<Array2<A>> {
    admit(z, d)?;
    proximal_step(z, z, d, eta, lambda)
}

/// `M = I + eta D^T (I - D)`.
///
/// # Shapes
/// `d` and the result are `d x d`.
///
/// # Errors
/// `d` must be square, finite and not empty; `eta` finite and not negative.
pub fn ista_operator<A: Real>(d: ArrayView2<'_, A>, eta: f64) -> Result<Array2<A>> {
    check::matrix("D", d)?;
    check::shape("D", d.shape(), &[d.nrows(), d.nrows()])?;
    let eta: A = check::rounded("eta", check::non_negative("eta", eta)?)?;
    let identity = Array2::<A>::eye(d.nrows());
    check::computed("the ISTA operator", &identity + d.t().dot(&(&identity - &d)) * eta)
}

/// `ReLU(M Z - eta lambda)`: [`ista`] in its one-product form.
///
/// # Shapes
/// `z` and the result are `d x N`, `operator` is [`ista_operator`]'s `d x d`.
///
/// # Errors
/// As for [`ista`].
pub fn ista_one_product<A: Real>(
    z: ArrayView2<'_, A>,
    operator: ArrayView2<'_, A>,
    eta: f64,
    lambda: f64,
) -> Result<Array2<A>> {
    admit(z, operator)?;
    rectified(operator.dot(&z), threshold(eta, lambda)?)
}

/// One proximal gradient step on the non-negative LASSO from any code, `ReLU(C + eta D^T (X - D C) - eta lambda)`; it does not raise
/// [`lasso`] as long as `eta <= 1 / ||D||_2^2`. [`ista`] is the step for X that starts at `C = X`.
///
/// # Shapes
/// `code` is `q x N`, `target` is `m x N`, `d` is `m x q`: the dictionary may be overcomplete here.
///
/// # Errors
/// As for [`ista`].
pub fn proximal_step<A: Real>(
    code: ArrayView2<'_, A>,
    target: ArrayView2<'_, A>,
    d: ArrayView2<'_, A>,
    eta: f64,
    lambda: f64,
) -> Result<Array2<A>> {
    let residual = residual(code, target, d)?;
    let threshold = threshold(eta, lambda)?;
    rectified(&code + d.t().dot(&residual) * A::of(eta), threshold)
}

/// `lambda ||C||_1 + 1/2 ||X - D C||_F^2`.
///
/// # Shapes
/// As for [`proximal_step`].
///
/// # Errors
/// As for [`ista`].
pub fn lasso<A: Real>(
    code: ArrayView2<'_, A>,
    target: ArrayView2<'_, A>,
    d: ArrayView2<'_, A>,
    lambda: f64,
) -> Result<A> {
    let lambda = check::non_negative("lambda", lambda)?;
    let squares: f64 = residual(code, target, d)?.iter().map(|r| r.wide() * r.wide()).sum();
    check::rounded("the LASSO objective", lambda * l1_norm(code) + 0.5 * squares)
}

/// The gradients of a scalar loss with respect to ISTA's input and dictionary.
#[derive(Debug, Clone, PartialEq)]
pub struct IstaGradient<A> {
    /// `d x N`.
    pub z: Array2<A>,
    /// `d x d`, summed over the tokens.
    pub d: Array2<A>,
}

/// The gradients of `L(ISTA(Z | D))`, given `dL/dISTA`; where the ReLU's argument is exactly 0 its derivative is taken as 0.
///
/// # Shapes
/// `z` and `upstream` are `d x N`, `d` is `d x d`.
///
/// # Errors
/// As for [`ista`].
pub fn ista_backward<A: Real>(
    z: ArrayView2<'_, A>,
    d: ArrayView2<'_, A>,
    eta: f64,
    lambda: f64,
    upstream: ArrayView2<'_, A>,
) -> Result<IstaGradient<A>> {
    let y = ista(z, d, eta, lambda)?;
    check::matrix("the upstream gradient", upstream)?;
    check::shape("the upstream gradient", upstream.shape(), z.shape())?;
    let zero = A::of(0.0);
    let mut g = upstream.to_owned();
    g.zip_mut_with(&y, |g, &y| {
        if y <= zero {
            *g = zero
        }
    });
    let (eta, residual, dg) = (A::of(eta), &z - d.dot(&z), d.dot(&g));
    Ok(IstaGradient {
        z: check::computed("dZ", &g + (&dg - d.t().dot(&dg)) * eta)?,
        d: check::computed("dD", (residual.dot(&g.t()) - dg.dot(&z.t())) * eta)?,
    })
}

/// `max(x - threshold, 0)`: the proximal operator of `threshold ||.||_1` on the non-negative orthant.
pub(crate) fn rectified<A: Real>(x: Array2<A>, threshold: A) -> Result<Array2<A>> {
    let zero = A::of(0.0);
    let shifted = check::computed("the argument of the ReLU", x.mapv_into(|v| v - threshold))?;
    Ok(shifted.mapv_into(|v| if v > zero { v } else { zero }))
}

fn threshold<A: Real>(eta: f64, lambda: f64) -> Result<A> {
    check::rounded("eta lambda", check::non_negative("eta", eta)? * check::non_negative("lambda", lambda)?)
}

/// `X - D C`, after checking all three.
fn residual<A: Real>(code: ArrayView2<'_, A>, target: ArrayView2<'_, A>, d: ArrayView2<'_, A>) -> Result<Array2<A>> {
    check::matrix("D", d)?;
    check::matrix("the code", code)?;
    check::matrix("the target", target)?;
    check::shape("the code", code.shape(), &[d.ncols(), code.ncols()])?;
    check::shape("the target", target.shape(), &[d.nrows(), code.ncols()])?;
    check::computed("the ISTA residual", &target - d.dot(&code))
}

fn admit<A: Real>(z: ArrayView2<'_, A>, d: ArrayView2<'_, A>) -> Result<()> {
    check::matrix("D", d)?;
    check::shape("D", d.shape(), &[d.nrows(), d.nrows()])?;
    check::matrix("Z", z)?;
    check::shape("Z", z.shape(), &[d.nrows(), z.ncols()])
}
