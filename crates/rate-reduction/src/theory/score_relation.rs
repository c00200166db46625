//! The gradient of R^c as a score: at what rates it takes away the noise of a token and its signal (JMLR Theorem 6,
//! stated informally there).
//!
//! ```text
//! x_i = z_i + noise, z_i in span U_s      S_i = U_s U_s^T x_i,  W_i = x_i - S_i,   G = grad R^c(X)
//! rate on signal = <G, S> / (gamma ||S||^2)          rate on noise = <G, W> / (gamma ||W||^2)
//! ```
//!
//! A step `X - kappa G` shrinks the signal by `kappa gamma` times the first and the noise by `kappa gamma` times the
//! second, so it denoises where their ratio is far above 1. In direction `U_k` the gradient's rate is `1 / (1 + gamma
//! lambda)`, lambda the energy that all tokens have there. Tokens of one subspace fill at most N/K of its p directions
//! with signal. So where N/K is below p, noise of the other tokens finds about `1 - N/(K p)` of each foreign subspace
//! empty and leaves at rate 1 there, while signal is held back by `1 + gamma lambda`, which a small eps makes large.
//! Where N/K is far above p every direction is full, both rates are the same small number, and the step is a plain
//! shrinkage of everything: the theorem's claim needs the first regime, which is that of vision transformers.

use super::denoising::own_and_rest;
use super::mixture::GaussianMixture;
use super::sampling::NoisyTokens;
use super::{energy, inner};
use crate::{Error, Precision, Real, Result, compression_rate_gradient};

/// What one step down R^c takes of a token, in units of `kappa gamma`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DenoisingRates {
    /// Share of the part inside the token's own subspace.
    pub signal: f64,
    /// Share of the part outside of it.
    pub noise: f64,
    /// Mean cosine between a token's step and the way to its own subspace; 1 where the step is the projection's.
    pub cosine: f64,
}

impl DenoisingRates {
    /// Rate on noise over rate on signal.
    pub fn ratio(&self) -> f64 {
        self.noise / self.signal
    }
}

/// The rates of `-grad R^c` at noisy tokens.
///
/// # Errors
/// The tokens must be finite and of the mixture's shape; signal, noise and gradient must not vanish.
pub fn denoising_rates<A: Real>(
    tokens: &NoisyTokens<A>,
    mixture: &GaussianMixture<A>,
    precision: Precision,
) -> Result<DenoisingRates> {
    let x = tokens.noisy.view();
    let codebook = mixture.codebook();
    let (signal, noise) = own_and_rest(x, codebook, &tokens.subspace)?;
    let gradient = compression_rate_gradient(x, codebook, precision)?;
    let gamma = precision.gamma(codebook.subspace_dim(), x.ncols())?;
    let (of_signal, of_noise) = (energy(signal.view()), energy(noise.view()));
    if energy(gradient.view()) == 0.0 {
        return Err(Error::ZeroGradient);
    }
    if of_signal == 0.0 || of_noise == 0.0 {
        let value = of_signal.min(of_noise);
        return Err(Error::Parameter { name: "the energy of signal or noise", value, expected: "above 0" });
    }
    let mut cosine = 0.0;
    for (g, w) in gradient.columns().into_iter().zip(noise.columns()) {
        let dot: f64 = g.iter().zip(w).map(|(g, w)| g.wide() * w.wide()).sum();
        let length = |v: ndarray::ArrayView1<'_, A>| v.iter().map(|v| v.wide().powi(2)).sum::<f64>().sqrt();
        let lengths = length(g) * length(w);
        cosine += if lengths > 0.0 { dot / lengths } else { 0.0 };
    }
    Ok(DenoisingRates {
        signal: inner(gradient.view(), signal.view()) / (gamma * of_signal),
        noise: inner(gradient.view(), noise.view()) / (gamma * of_noise),
        cosine: cosine / x.ncols() as f64,
    })
}
