//! The sparse rate reduction (NIPS eq 8), the quantity that a white-box transformer raises layer by layer:
//!
//! ```text
//! R(Z) - R^c(Z; U_[K]) - lambda ||Z||_0          or, relaxed, with ||Z||_1
//! ```
//!
//! Delta R does not change when Z and the bases are rotated together; the sparsity term breaks that symmetry and aligns the subspaces
//! with the axes.

use ndarray::ArrayView2;

use crate::{Codebook, Precision, Real, Result, check, coding_rate, compression_rate};

/// How the sparsity of the tokens is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sparsity {
    /// `||Z||_0`, the number of entries that are not exactly 0.
    L0,
    /// `||Z||_1`, the sum of magnitudes: its convex relaxation.
    L1,
}

/// The objective, term by term.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SparseRateReduction<A> {
    /// `R(Z)`: how much the tokens spread, in nats.
    pub expansion: A,
    /// `R^c(Z; U_[K])`: how much they cost once the subspaces are known, in nats.
    pub compression: A,
    /// `lambda ||Z||`, in the chosen count.
    pub penalty: A,
}

impl<A: Real> SparseRateReduction<A> {
    /// `R - R^c - lambda ||Z||`; larger is better.
    pub fn value(&self) -> A {
        self.expansion - self.compression - self.penalty
    }
}

/// The sparse rate reduction of the tokens, term by term.
///
/// # Shapes
/// `z` is `d x N`; the codebook's bases are `d x p`.
///
/// # Errors
/// `z` must be finite, not empty, and have the codebook's d; `lambda` must be finite and not negative.
pub fn sparse_rate_reduction<A: Real>(
    z: ArrayView2<'_, A>,
    codebook: &Codebook<A>,
    precision: Precision,
    lambda: f64,
    sparsity: Sparsity,
) -> Result<SparseRateReduction<A>> {
    let lambda = check::non_negative("lambda", lambda)?;
    let expansion = coding_rate(z, precision)?;
    let compression = compression_rate(z, codebook, precision)?;
    let norm = match sparsity {
        Sparsity::L0 => nonzeros(z) as f64,
        Sparsity::L1 => l1_norm(z),
    };
    Ok(SparseRateReduction { expansion, compression, penalty: check::rounded("lambda ||Z||", lambda * norm)? })
}

/// The share of entries that are not exactly 0, `||Z||_0 / (d N)`: lower is sparser.
///
/// # Shapes
/// `z` is `d x N`.
///
/// # Errors
/// `z` must be finite and not empty.
pub fn nonzero_fraction<A: Real>(z: ArrayView2<'_, A>) -> Result<f64> {
    check::matrix("Z", z)?;
    Ok(nonzeros(z) as f64 / z.len() as f64)
}

fn nonzeros<A: Real>(z: ArrayView2<'_, A>) -> usize {
    z.iter().filter(|v| v.wide() != 0.0).count()
}

pub(crate) fn l1_norm<A: Real>(z: ArrayView2<'_, A>) -> f64 {
    z.iter().map(|v| v.wide().abs()).sum()
}
