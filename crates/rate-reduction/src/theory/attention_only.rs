//! A transformer of nothing but attention, and how it raises the signal-to-noise ratio (book, attention-only
//! transformer):
//!
//! ```text
//! Z^+      = Z + eta sum_k U_k U_k^T Z phi(Z^T U_k U_k^T Z)
//! z_i      = U_k a_i + sum_{j != k} U_j e_ij,  i in C_k    a ~ N(0, I_p),  e ~ N(0, delta^2 I_p),  U^T U = I
//! SNR(Z_k) = ||U_k U_k^T Z_k||_F / ||(I - U_k U_k^T) Z_k||_F
//! phi      = h(softmax), h(x) = tau 1[x > tau], down each column          SNR^{l+1} = (1 + eta tau) SNR^l
//! ```
//!
//! The theorem asks for `p >~ log N`, `delta <~ sqrt(log N / p)` and a tau above 1/2. Then in the token's own head the
//! softmax of its logits is all but 1 on itself (`||a||^2` is about p, far above the products with other tokens) and
//! nothing above tau in a foreign head, where only noise is seen. The map is tau times the identity on its own subspace
//! and 0 elsewhere, so signal grows by `1 + eta tau` and noise stays.
//!
//! There is no normalisation: tokens grow in every layer, and with them the logits of noise in foreign heads, `e^T a`.
//! Once one of these passes tau the token takes on a foreign token's signal, a *cross term*, and the growth ends;
//! [`Selection`] counts them. A plain softmax has no threshold, mixes from the first layer, and ends the same way.

use ndarray::{Array2, ArrayView2};
use rand::Rng;
use rand_distr::{Distribution, StandardNormal};

use super::denoising::own_and_rest;
use super::energy;
use super::mixture::GaussianMixture;
use super::sampling::NoisyTokens;
use crate::{Error, Real, Result, attention_map, check};

/// The attention's phi.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Attention {
    /// tau where the softmax is above tau, 0 elsewhere.
    Thresholded {
        /// The threshold, between 0 and 1.
        tau: f64,
    },
    /// The softmax as it is.
    Softmax,
}

/// Which weights of the attention maps the threshold let through, or exceed 1/2 in a plain softmax.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Selection {
    /// Tokens that attend to themselves in their own head: all N, where the theorem's mechanism works.
    pub own: usize,
    /// Weights on another token of the same subspace, in the own head.
    pub neighbours: usize,
    /// Weights in foreign heads, where there is only noise: cross terms. None, where the mechanism works.
    pub cross: usize,
}

/// The theorem's tokens, N/K in every subspace, in turn: token i belongs to subspace `i % K`. What is called noisy
/// holds the foreign parts too.
///
/// # Errors
/// `n` must be a positive multiple of K; `delta` finite and not negative.
pub fn attention_only_tokens<A: Real>(
    mixture: &GaussianMixture<A>,
    n: usize,
    delta: f64,
    rng: &mut (impl Rng + ?Sized),
) -> Result<NoisyTokens<A>> {
    let codebook = mixture.codebook();
    let (heads, p) = (codebook.heads(), codebook.subspace_dim());
    let delta = check::non_negative("delta", delta)?;
    if n == 0 || !n.is_multiple_of(heads) {
        let expected = "a positive multiple of the number of subspaces";
        return Err(Error::Parameter { name: "the number of tokens", value: n as f64, expected });
    }
    let own = |row: usize, i: usize| row / p == i % heads;
    let all: Array2<f64> = Array2::from_shape_simple_fn((heads * p, n), || StandardNormal.sample(rng));
    let signal = Array2::from_shape_fn(all.raw_dim(), |at| A::of(if own(at.0, at.1) { all[at] } else { 0.0 }));
    let noise = Array2::from_shape_fn(all.raw_dim(), |at| A::of(if own(at.0, at.1) { 0.0 } else { delta * all[at] }));
    let clean = codebook.spread(signal.view());
    let noisy = &clean + codebook.spread(noise.view());
    Ok(NoisyTokens { clean, noisy, subspace: (0..n).map(|i| i % heads).collect() })
}

/// One layer, and what its attention selected.
///
/// # Shapes
/// `z` and the result are `d x N`; `subspace` holds each token's own.
///
/// # Errors
/// `z` must be finite, not empty and of the mixture's d; `subspace` fit; `eta` be finite and not negative; tau lie
/// between 0 and 1.
pub fn attention_only_step<A: Real>(
    z: ArrayView2<'_, A>,
    subspace: &[usize],
    mixture: &GaussianMixture<A>,
    eta: f64,
    attention: Attention,
) -> Result<(Array2<A>, Selection)> {
    let codebook = mixture.codebook();
    codebook.admit(z)?;
    check::shape("the subspaces' indices", &[subspace.len()], &[z.ncols()])?;
    let eta: A = check::rounded("eta", check::non_negative("eta", eta)?)?;
    let bar = match attention {
        Attention::Softmax => 0.5,
        Attention::Thresholded { tau } if tau > 0.0 && tau < 1.0 => tau,
        Attention::Thresholded { tau } => {
            return Err(Error::Parameter { name: "tau", value: tau, expected: "between 0 and 1" });
        }
    };
    let mut selection = Selection::default();
    let mut heads = codebook.coordinates(z)?;
    for (k, mut v) in heads.axis_chunks_iter_mut(ndarray::Axis(0), codebook.subspace_dim()).enumerate() {
        let mut map = attention_map(v.view(), 1.0)?;
        for ((key, query), weight) in map.indexed_iter_mut() {
            let through = weight.wide() > bar;
            match (through, subspace[query] == k, key == query) {
                (false, ..) => {}
                (true, false, _) => selection.cross += 1,
                (true, true, true) => selection.own += 1,
                (true, true, false) => selection.neighbours += 1,
            }
            if let Attention::Thresholded { tau } = attention {
                *weight = A::of(if through { tau } else { 0.0 });
            }
        }
        let attended = v.dot(&map);
        v.assign(&attended);
    }
    Ok((check::computed("the layer", &z + codebook.spread(heads.view()) * eta)?, selection))
}

/// `SNR(Z_k)` of every subspace that has tokens.
///
/// # Errors
/// The tokens must be finite and of the mixture's d; `subspace` must fit; no class of tokens may be without noise.
pub fn signal_to_noise<A: Real>(
    z: ArrayView2<'_, A>,
    subspace: &[usize],
    mixture: &GaussianMixture<A>,
) -> Result<Vec<f64>> {
    let (signal, noise) = own_and_rest(z, mixture.codebook(), subspace)?;
    let of = |parts: &Array2<A>, k: usize| -> f64 {
        let mine = subspace.iter().enumerate().filter(|(_, s)| **s == k);
        mine.map(|(i, _)| energy(parts.column(i).insert_axis(ndarray::Axis(1)))).sum()
    };
    let mut ratios = Vec::new();
    for k in (0..mixture.codebook().heads()).filter(|k| subspace.contains(k)) {
        let (signal, noise) = (of(&signal, k), of(&noise, k));
        if noise == 0.0 {
            return Err(Error::Parameter { name: "the noise's energy", value: 0.0, expected: "above 0" });
        }
        ratios.push((signal / noise).sqrt());
    }
    Ok(ratios)
}

/// The signal-to-noise ratio at one depth.
#[derive(Debug, Clone, PartialEq)]
pub struct SnrLayer {
    /// `SNR(Z_k)` of each subspace, before the layer.
    pub snr: Vec<f64>,
    /// What the attention of the layer selects; none after the last.
    pub selection: Option<Selection>,
}

impl SnrLayer {
    /// The geometric mean over the subspaces.
    pub fn mean(&self) -> f64 {
        (self.snr.iter().map(|s| s.ln()).sum::<f64>() / self.snr.len().max(1) as f64).exp()
    }
}

/// The tokens' signal-to-noise ratio before each of `layers` layers and after the last: `layers + 1` entries.
///
/// # Errors
/// As for [`attention_only_step`] and [`signal_to_noise`].
pub fn snr_by_layer<A: Real>(
    tokens: &NoisyTokens<A>,
    mixture: &GaussianMixture<A>,
    eta: f64,
    attention: Attention,
    layers: usize,
) -> Result<Vec<SnrLayer>> {
    let mut z = tokens.noisy.clone();
    let mut trace = Vec::with_capacity(layers + 1);
    for _ in 0..layers {
        let snr = signal_to_noise(z.view(), &tokens.subspace, mixture)?;
        let (next, selection) = attention_only_step(z.view(), &tokens.subspace, mixture, eta, attention)?;
        trace.push(SnrLayer { snr, selection: Some(selection) });
        z = next;
    }
    trace.push(SnrLayer { snr: signal_to_noise(z.view(), &tokens.subspace, mixture)?, selection: None });
    Ok(trace)
}
