//! MSSA as the released code computes it, forward and backward, in column form:
//!
//! ```text
//! V_k = U_k^T Z     A_k = softmax(s V_k^T V_k)     O_k = V_k A_k     Y = W [O_1; ...; O_K] + b
//! ```
//!
//! It departs from the derivation in three ways: W is a free matrix instead of `gamma [U_1 ... U_K]`, there is a bias, and `s = p^{-1/2}`
//! instead of 1. Queries, keys and values are one and the same `V_k`, so its gradient has three paths:
//!
//! ```text
//! dA = V^T G      dS = A o (dA - 1 colsum(dA o A))      dV = G A^T + s V (dS + dS^T)      dU = Z dV^T      dZ = sum_k U_k dV_k
//! ```
//!
//! The backward formulas are here for tensor layers to be tested against; `W = gamma [U_1 ... U_K]` and `s = 1` give the paper's form.

use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis, concatenate, s};
use rayon::prelude::*;

use crate::{Codebook, Real, Result, attention_map, check, ssa};

/// The parameters of one layer's attention, borrowed from wherever they live.
#[derive(Debug, Clone, Copy)]
pub struct MultiHead<'a, A> {
    codebook: &'a Codebook<A>,
    weight: ArrayView2<'a, A>,
    bias: Option<ArrayView1<'a, A>>,
    scale: f64,
}

/// The gradients of a scalar loss with respect to the input and every parameter.
#[derive(Debug, Clone, PartialEq)]
pub struct MultiHeadGradient<A> {
    /// `d x N`.
    pub z: Array2<A>,
    /// K matrices `d x p`.
    pub bases: Vec<Array2<A>>,
    /// `m x Kp`.
    pub weight: Array2<A>,
    /// m entries, whether or not the layer has a bias.
    pub bias: Array1<A>,
}

impl<'a, A: Real> MultiHead<'a, A> {
    /// With the released scaling of the logits, `p^{-1/2}`.
    ///
    /// # Shapes
    /// `weight` is `m x Kp`, as PyTorch stores it; `bias` has m entries. m is d in every released model.
    ///
    /// # Errors
    /// The shapes must fit the codebook, and the entries must be finite.
    pub fn new(codebook: &'a Codebook<A>, weight: ArrayView2<'a, A>, bias: Option<ArrayView1<'a, A>>) -> Result<Self> {
        check::matrix("the output weight", weight)?;
        check::shape(
            "the output weight",
            weight.shape(),
            &[weight.nrows(), codebook.heads() * codebook.subspace_dim()],
        )?;
        if let Some(bias) = bias {
            check::matrix("the output bias", bias.insert_axis(Axis(0)))?;
            check::shape("the output bias", bias.shape(), &[weight.nrows()])?;
        }
        let scale = (codebook.subspace_dim() as f64).sqrt().recip();
        Ok(Self { codebook, weight, bias, scale })
    }

    /// With another scaling of the logits; the paper's is 1.
    ///
    /// # Errors
    /// `scale` must be finite and not negative.
    pub fn with_scale(self, scale: f64) -> Result<Self> {
        Ok(Self { scale: check::non_negative("the attention scale", scale)?, ..self })
    }

    /// `Y`, to be added to the residual stream.
    ///
    /// # Shapes
    /// `z` is `d x N`, the result `m x N`.
    ///
    /// # Errors
    /// `z` must be finite, not empty, and have the codebook's d.
    pub fn forward(&self, z: ArrayView2<'_, A>) -> Result<Array2<A>> {
        let heads = self.codebook.project(z)?;
        let heads: Vec<_> = heads.par_iter().map(|v| ssa(v.view(), self.scale)).collect::<Result<_>>()?;
        let mut y = self.weight.dot(&stacked(&heads));
        if let Some(bias) = self.bias {
            y += &bias.insert_axis(Axis(1));
        }
        check::computed("the attention output", y)
    }

    /// The gradients of `L(Y)`, given `dL/dY`.
    ///
    /// # Shapes
    /// `z` is `d x N`, `upstream` is `m x N`.
    ///
    /// # Errors
    /// Both must be finite, not empty, and fit the layer.
    pub fn backward(&self, z: ArrayView2<'_, A>, upstream: ArrayView2<'_, A>) -> Result<MultiHeadGradient<A>> {
        let heads = self.codebook.project(z)?;
        check::matrix("the upstream gradient", upstream)?;
        check::shape("the upstream gradient", upstream.shape(), &[self.weight.nrows(), z.ncols()])?;
        let (p, into_heads) = (self.codebook.subspace_dim(), self.weight.t().dot(&upstream));
        let parts: Vec<(Array2<A>, Array2<A>)> = heads
            .par_iter()
            .enumerate()
            .map(|(k, v)| ssa_backward(v.view(), into_heads.slice(s![k * p..(k + 1) * p, ..]), self.scale))
            .collect::<Result<_>>()?;
        let (outputs, inner): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
        let dz =
            self.codebook.bases().iter().zip(&inner).fold(Array2::zeros(z.raw_dim()), |sum, (u, dv)| sum + u.dot(dv));
        let bases = inner.iter().map(|dv| check::computed("dU", z.dot(&dv.t()))).collect::<Result<_>>()?;
        Ok(MultiHeadGradient {
            z: check::computed("dZ", dz)?,
            bases,
            weight: check::computed("dW", upstream.dot(&stacked(&outputs).t()))?,
            bias: check::computed("db", upstream.sum_axis(Axis(1)))?,
        })
    }
}

/// One head, forward and backward: `SSA(V)` and `dL/dV` given `G = dL/dSSA(V)`.
///
/// # Shapes
/// All are `p x N`.
///
/// # Errors
/// As for [`attention_map`], and `upstream` must be finite and of `v`'s shape.
pub fn ssa_backward<A: Real>(
    v: ArrayView2<'_, A>,
    upstream: ArrayView2<'_, A>,
    scale: f64,
) -> Result<(Array2<A>, Array2<A>)> {
    let a = attention_map(v, scale)?;
    check::matrix("the upstream gradient", upstream)?;
    check::shape("the upstream gradient", upstream.shape(), v.shape())?;
    let da = v.t().dot(&upstream);
    let along = (&da * &a).sum_axis(Axis(0));
    let ds = (da - &along) * &a;
    let dv = upstream.dot(&a.t()) + v.dot(&(&ds + &ds.t())) * A::of(scale);
    Ok((v.dot(&a), check::computed("dV", dv)?))
}

/// `[O_1; ...; O_K]`.
fn stacked<A: Real>(heads: &[Array2<A>]) -> Array2<A> {
    let views: Vec<_> = heads.iter().map(|m| m.view()).collect();
    concatenate(Axis(0), &views).expect("every head is p x N")
}
