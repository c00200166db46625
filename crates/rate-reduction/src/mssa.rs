//! Multi-head subspace self-attention as derived (NIPS eqs 10-12):
//!
//! ```text
//! SSA(Z | U_k)     = (U_k^T Z) softmax((U_k^T Z)^T (U_k^T Z))                       p x N
//! MSSA(Z | U_[K])  = gamma [U_1 ... U_K] [SSA(Z | U_1); ...; SSA(Z | U_K)]          d x N
//! Z^{l+1/2}        = (1 - kappa gamma) Z + kappa gamma MSSA(Z | U_[K])
//! ```
//!
//! The softmax runs down each column: column j holds the weights of the keys for query j. The form of the released code, with a free
//! output map and scaled logits, is [`MultiHead`](crate::MultiHead).

use ndarray::{Array2, ArrayView2, Axis};

use crate::gradient::gamma;
use crate::{Codebook, Precision, Real, Result, check};

/// The softmax of every column, stable for entries of any size.
///
/// # Shapes
/// `logits` and the result have one shape.
///
/// # Errors
/// Entries must be finite, and there must be some.
pub fn column_softmax<A: Real>(logits: ArrayView2<'_, A>) -> Result<Array2<A>> {
    check::matrix("the logits", logits)?;
    let mut weights = logits.to_owned();
    for mut column in weights.axis_iter_mut(Axis(1)) {
        let top = column.iter().copied().fold(column[0], |top, v| if v > top { v } else { top });
        column.mapv_inplace(|v| A::of((v.wide() - top.wide()).exp()));
        let sum = column.sum();
        column.mapv_inplace(|v| v / sum);
    }
    Ok(weights)
}

/// The attention map `softmax(scale V^T V)` of one head; column j sums to 1. The paper's scale is 1, the released code's `p^{-1/2}`.
///
/// # Shapes
/// `v` is `p x N` (`U_k^T Z`); the result is `N x N`.
///
/// # Errors
/// `v` must be finite and not empty, `scale` finite and not negative, and so must their product.
pub fn attention_map<A: Real>(v: ArrayView2<'_, A>, scale: f64) -> Result<Array2<A>> {
    check::matrix("U_k^T Z", v)?;
    let scale: A = check::rounded("the attention scale", check::non_negative("the attention scale", scale)?)?;
    column_softmax(check::computed("the attention logits", v.t().dot(&v) * scale)?.view())
}

/// `SSA`: the projected tokens `V`, each replaced by an average over the tokens like it.
///
/// # Shapes
/// `v` and the result are `p x N`.
///
/// # Errors
/// As for [`attention_map`].
pub fn ssa<A: Real>(v: ArrayView2<'_, A>, scale: f64) -> Result<Array2<A>> {
    Ok(v.dot(&attention_map(v, scale)?))
}

/// `MSSA(Z | U_[K])` with the paper's scaling: logits as they are, output map `gamma [U_1 ... U_K]`.
///
/// # Shapes
/// `z` and the result are `d x N`; the codebook's bases are `d x p`.
///
/// # Errors
/// `z` must be finite, not empty, and have the codebook's d.
pub fn mssa<A: Real>(z: ArrayView2<'_, A>, codebook: &Codebook<A>, precision: Precision) -> Result<Array2<A>> {
    let gamma = gamma(z, codebook, precision)?;
    let sum = codebook.sum(z, |u| Ok(u.dot(&ssa(check::computed("U_k^T Z", u.t().dot(&z))?.view(), 1.0)?)))?;
    check::computed("MSSA", sum * gamma)
}

/// The compression step that the derivation ends in: `(1 - kappa gamma) Z + kappa gamma MSSA(Z | U_[K])`.
///
/// # Shapes
/// As for [`mssa`].
///
/// # Errors
/// As for [`mssa`]; `kappa` must be finite and not negative.
pub fn mssa_step<A: Real>(
    z: ArrayView2<'_, A>,
    codebook: &Codebook<A>,
    precision: Precision,
    kappa: f64,
) -> Result<Array2<A>> {
    let kappa = check::non_negative("kappa", kappa)?;
    let attended = mssa(z, codebook, precision)?;
    let step: A = check::rounded("kappa gamma", kappa * precision.gamma(codebook.subspace_dim(), z.ncols())?)?;
    check::computed("the compression step", &z + (attended - z) * step)
}
