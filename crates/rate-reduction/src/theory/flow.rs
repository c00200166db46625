//! From pure noise to the mixture in many small steps, and back (NIPS figure 2; JMLR on encoder and decoder).
//!
//! Adding noise spreads `q_sigma` outwards; its reverse without randomness is the probability flow, whose speed is the
//! score:
//!
//! ```text
//! dx / d sigma = -sigma grad log q_sigma(x) = (x - E_sigma[z | x]) / sigma
//! x'           = E[z | x] + (sigma' / sigma) (x - E[z | x])      a step to sigma', exact where E[z | x] stands still
//! ```
//!
//! With sigma' below sigma this denoises by a convex combination, as a layer of the encoder does; with sigma' above
//! sigma the same formula runs back, as the decoder does, and misses the start by the error of the discretisation only.
//! With `-grad R^c` in the place of the score the same to-and-fro is
//!
//! ```text
//! Z <- Z - kappa grad R^c(Z)                Y <- Y + kappa grad R^c(Y)
//! ```
//!
//! The paper draws the flow as a diffusion; the deterministic one has the same marginals and can be run backwards,
//! which is what is compared here.

use ndarray::{Array2, ArrayView2};

use super::mixture::GaussianMixture;
use crate::{Codebook, Error, Precision, Real, Result, check, compression_rate_gradient};

/// `steps + 1` noise levels from one to another, each the same multiple of the one before.
///
/// # Errors
/// Both must be positive and finite, and there must be a step.
pub fn noise_levels(from: f64, to: f64, steps: usize) -> Result<Vec<f64>> {
    for value in [from, to] {
        if !(value > 0.0 && value.is_finite()) {
            return Err(Error::Parameter { name: "sigma", value, expected: "positive and finite" });
        }
    }
    if steps == 0 {
        return Err(Error::Parameter { name: "the number of steps", value: 0.0, expected: "at least 1" });
    }
    let level = |i: usize| from * (to / from).powf(i as f64 / steps as f64);
    Ok((0..=steps).map(|i| if i == steps { to } else { level(i) }).collect())
}

/// Carries tokens along the probability flow through the noise levels; falling levels denoise, rising ones run back.
/// `seen` is shown every level with the tokens there, the first and the last included.
///
/// # Shapes
/// `x` and the result are `d x N`.
///
/// # Errors
/// `x` must be finite, not empty and of the mixture's d; levels positive, with squares that are finite and not 0.
pub fn flow<A: Real>(
    x: ArrayView2<'_, A>,
    mixture: &GaussianMixture<A>,
    levels: &[f64],
    mut seen: impl FnMut(f64, ArrayView2<'_, A>),
) -> Result<Array2<A>> {
    mixture.codebook().admit(x)?;
    let mut x = x.to_owned();
    if let Some(&first) = levels.first() {
        seen(first, x.view());
    }
    for pair in levels.windows(2) {
        let denoised = mixture.denoise(x.view(), pair[0])?;
        let kept: A = check::rounded("sigma' / sigma", check::non_negative("sigma' / sigma", pair[1] / pair[0])?)?;
        x = check::computed("the flow", &denoised + (&x - &denoised) * kept)?;
        seen(pair[1], x.view());
    }
    Ok(x)
}

/// `steps` steps of `Z - kappa grad R^c(Z)` with `kappa gamma = size`; a negative size runs back. `seen` is shown the
/// tokens before the first step and after each.
///
/// # Shapes
/// `z` and the result are `d x N`.
///
/// # Errors
/// `z` must be finite, not empty and of the codebook's d; `size` finite.
pub fn compression_flow<A: Real>(
    z: ArrayView2<'_, A>,
    codebook: &Codebook<A>,
    precision: Precision,
    size: f64,
    steps: usize,
    mut seen: impl FnMut(ArrayView2<'_, A>),
) -> Result<Array2<A>> {
    codebook.admit(z)?;
    let kappa: A = check::rounded("kappa", size / precision.gamma(codebook.subspace_dim(), z.ncols())?)?;
    let mut z = z.to_owned();
    seen(z.view());
    for _ in 0..steps {
        z = check::computed("the flow", &z - compression_rate_gradient(z.view(), codebook, precision)? * kappa)?;
        seen(z.view());
    }
    Ok(z)
}
