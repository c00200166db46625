//! Denoising by compression: one step of each kind on the same noisy tokens, and how far it leads (NIPS section 2.2,
//! Appendix A).
//!
//! ```text
//! posterior    X + s (E[z | x] - X)                   the best that can be done, knowing mixture and noise
//! projector    X + s (eq 6 - X)
//! gradient     X - kappa grad R^c(X),   kappa = s / gamma
//! Neumann      X - kappa gamma sum_k U_k V_k (I - gamma G_k)
//! attention    (1 - s) X + s MSSA(X)                  MSSA with its factor gamma as printed
//! averaging    (1 - s) X + s sum_k U_k SSA(X | U_k)   the factor gamma absorbed, as trained layers do
//! sharpened    the same with logits p V_k^T V_k       as for tokens with variance 1 in each of p directions
//! ```
//!
//! The size s is `kappa gamma`, the share that a step takes away of what lies in no other token's way; at 1 it takes
//! all. Where `eps = sqrt(p / N)`, gamma is 1 and the two attentions are one: that is the paper's choice for a single
//! token.

use ndarray::{Array2, ArrayView2};

use super::energy;
use super::mixture::GaussianMixture;
use super::sampling::NoisyTokens;
use crate::{
    Codebook, Error, MultiHead, Precision, Real, Result, check, compression_rate, compression_rate_gradient, mssa_step,
    neumann_gradient, unit_norm,
};

/// A kind of step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DenoisingStep {
    /// Towards `E[z | x]`, by the exact score.
    Posterior,
    /// Towards the softmax-weighted projections, eq 6.
    Projector,
    /// Down the exact gradient of R^c.
    Gradient,
    /// Down its first-order Neumann approximation.
    Neumann,
    /// The attention that the derivation ends in.
    Attention,
    /// Attention without the factor gamma.
    Averaging,
    /// Attention without the factor gamma, with its logits times p.
    Sharpened,
}

impl DenoisingStep {
    /// Every kind, in the order of the derivation.
    pub const ALL: [Self; 7] = [
        Self::Posterior,
        Self::Projector,
        Self::Gradient,
        Self::Neumann,
        Self::Attention,
        Self::Averaging,
        Self::Sharpened,
    ];

    /// A name for a table's row.
    pub fn name(self) -> &'static str {
        match self {
            Self::Posterior => "exact score",
            Self::Projector => "projector, eq 6",
            Self::Gradient => "gradient of R^c",
            Self::Neumann => "Neumann",
            Self::Attention => "attention, gamma MSSA",
            Self::Averaging => "attention, gamma absorbed",
            Self::Sharpened => "attention, logits times p",
        }
    }
}

/// One step of a kind on noisy tokens.
///
/// # Shapes
/// `x` and the result are `d x N`.
///
/// # Errors
/// `x` must be finite, not empty and of the mixture's d; `sigma`, the noise in every entry, positive; `size` finite and
/// not negative.
pub fn denoising_step<A: Real>(
    step: DenoisingStep,
    x: ArrayView2<'_, A>,
    mixture: &GaussianMixture<A>,
    sigma: f64,
    precision: Precision,
    size: f64,
) -> Result<Array2<A>> {
    let codebook = mixture.codebook();
    codebook.admit(x)?;
    let kappa = check::non_negative("the step's size", size)? / precision.gamma(codebook.subspace_dim(), x.ncols())?;
    let (size, along): (A, A) = (check::rounded("the step's size", size)?, check::rounded("kappa", kappa)?);
    let towards = |target: Array2<A>| &x + (target - x) * size;
    let attended = |scale| {
        let basis = codebook.to_matrix();
        MultiHead::new(codebook, basis.view(), None)?.with_scale(scale)?.forward(x)
    };
    let moved = match step {
        DenoisingStep::Posterior => towards(mixture.denoise(x, sigma)?),
        DenoisingStep::Projector => towards(mixture.project(x, sigma)?),
        DenoisingStep::Gradient => &x - compression_rate_gradient(x, codebook, precision)? * along,
        DenoisingStep::Neumann => &x - neumann_gradient(x, codebook, precision)? * along,
        DenoisingStep::Attention => mssa_step(x, codebook, precision, kappa)?,
        DenoisingStep::Averaging => towards(attended(1.0)?),
        DenoisingStep::Sharpened => towards(attended(codebook.subspace_dim() as f64)?),
    };
    check::computed("the denoised tokens", moved)
}

/// How near tokens are to where they came from. Distances are root mean squares over tokens, in units of the clean
/// tokens' length.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Closeness {
    /// Distance to the token's own subspace.
    pub to_subspace: f64,
    /// Distance to the clean token.
    pub to_clean: f64,
    /// Length outside the own subspace over the whole length: unlike the distance it does not fall when tokens merely
    /// shrink.
    pub outside: f64,
    /// R^c, in nats.
    pub compression: f64,
    /// R^c of the tokens at unit length, in nats, which does not fall when tokens merely shrink.
    pub unit_compression: f64,
}

/// Measures tokens against the clean ones that they were made of.
///
/// # Shapes
/// `x` is `d x N`, as `tokens.clean`.
///
/// # Errors
/// Shapes must fit, entries be finite, no token of `x` be zero, and not all clean ones.
pub fn closeness<A: Real>(
    x: ArrayView2<'_, A>,
    tokens: &NoisyTokens<A>,
    mixture: &GaussianMixture<A>,
    precision: Precision,
) -> Result<Closeness> {
    check::shape("the tokens", x.shape(), tokens.clean.shape())?;
    let codebook = mixture.codebook();
    let scale = energy(tokens.clean.view());
    if scale == 0.0 {
        return Err(Error::ZeroToken { what: "the clean tokens' matrix", column: 0 });
    }
    let compression = compression_rate(x, codebook, precision)?.wide();
    let unit_compression = compression_rate(unit_norm(x)?.view(), codebook, precision)?.wide();
    let off = energy(own_and_rest(x, codebook, &tokens.subspace)?.1.view());
    Ok(Closeness {
        to_subspace: (off / scale).sqrt(),
        to_clean: (energy((&x - &tokens.clean).view()) / scale).sqrt(),
        outside: (off / energy(x)).sqrt(),
        compression,
        unit_compression,
    })
}

/// Every token's part in its own subspace, and the rest of it, for orthonormal bases.
pub(crate) fn own_and_rest<A: Real>(
    x: ArrayView2<'_, A>,
    codebook: &Codebook<A>,
    subspace: &[usize],
) -> Result<(Array2<A>, Array2<A>)> {
    codebook.admit(x)?;
    check::shape("the subspaces' indices", &[subspace.len()], &[x.ncols()])?;
    let (heads, p) = (codebook.heads(), codebook.subspace_dim());
    if let Some(token) = subspace.iter().position(|k| *k >= heads) {
        return Err(Error::Label { token, label: subspace[token], classes: heads });
    }
    let mut coordinates = codebook.coordinates(x)?;
    for ((row, token), v) in coordinates.indexed_iter_mut() {
        if row / p != subspace[token] {
            *v = A::of(0.0);
        }
    }
    let own = codebook.spread(coordinates.view());
    let rest = &x - &own;
    Ok((own, rest))
}
