//! The alternative to ISTA that keeps the expansion term: majorisation-minimisation with a proximal step (NIPS Appendix A.3).
//!
//! ```text
//! phi(Z) = lambda ||Z||_1 + chi_{Z >= 0} - R(Z)
//! Z^+    = ReLU(Z + (1/L) grad R(Z) - lambda / L),        L = 9 alpha / 4, a bound on ||Hess R||
//! ```
//!
//! L majorises the curvature of R, so a step from a non-negative Z never raises phi. For orthogonal unit tokens (`d >= N`)
//! `grad R = alpha / (1 + alpha) Z`, and with a rotation D by which the tokens enter this becomes NIPS eq 92:
//!
//! ```text
//! Z^{l+1} = ReLU((1 + 4 / (9 (1 + alpha))) D^T Z^{l+1/2} - 4 lambda / (9 alpha))
//! ```
//!
//! It has no skip connection, and costs accuracy in the paper's ablation.

use ndarray::{Array2, ArrayView2};

use crate::ista::rectified;
use crate::objective::l1_norm;
use crate::{Error, Precision, Real, Result, check, coding_rate, coding_rate_gradient};

/// `phi(Z)` for non-negative tokens.
///
/// # Shapes
/// `z` is `d x N`.
///
/// # Errors
/// `z` must be finite, not empty and nowhere negative (phi is infinite there); `lambda` finite and not negative.
pub fn mm_prox_objective<A: Real>(z: ArrayView2<'_, A>, precision: Precision, lambda: f64) -> Result<A> {
    let lambda = check::non_negative("lambda", lambda)?;
    let rate: A = coding_rate(z, precision)?;
    if let Some(v) = z.iter().find(|v| v.wide() < 0.0) {
        return Err(Error::Parameter {
            name: "an entry of Z",
            value: v.wide(),
            expected: "not negative, or phi is infinite",
        });
    }
    check::rounded("phi", lambda * l1_norm(z) - rate.wide())
}

/// One exact MM-prox step with `L = 9 alpha / 4`.
///
/// # Shapes
/// `z` and the result are `d x N`.
///
/// # Errors
/// `z` must be finite and not empty; `lambda` finite and not negative.
pub fn mm_prox<A: Real>(z: ArrayView2<'_, A>, precision: Precision, lambda: f64) -> Result<Array2<A>> {
    let lambda = check::non_negative("lambda", lambda)?;
    let gradient = coding_rate_gradient(z, precision)?;
    let step = 4.0 / (9.0 * precision.alpha(z.nrows(), z.ncols())?);
    let (step, threshold): (A, A) = (check::rounded("1 / L", step)?, check::rounded("lambda / L", step * lambda)?);
    rectified(&z + gradient * step, threshold)
}

/// The closed form for orthogonal unit tokens seen through a dictionary, NIPS eq 92.
///
/// # Shapes
/// `z` and the result are `d x N`, `d` is `d x d`.
///
/// # Errors
/// The matrices must be finite, not empty, and fit; `lambda` finite and not negative.
pub fn mm_prox_closed<A: Real>(
    z: ArrayView2<'_, A>,
    d: ArrayView2<'_, A>,
    precision: Precision,
    lambda: f64,
) -> Result<Array2<A>> {
    let lambda = check::non_negative("lambda", lambda)?;
    check::matrix("Z", z)?;
    check::matrix("D", d)?;
    check::shape("D", d.shape(), &[z.nrows(), z.nrows()])?;
    let alpha = precision.alpha(z.nrows(), z.ncols())?;
    let growth = A::of(1.0 + 4.0 / (9.0 * (1.0 + alpha)));
    rectified(d.t().dot(&z) * growth, check::rounded("lambda / L", 4.0 * lambda / (9.0 * alpha))?)
}
