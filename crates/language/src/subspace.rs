//! Subspace attention for sequences: CRATE's MSSA, causal for language models, with padding for encoders.
//!
//! With columns as tokens and `W_k = U_k^T Z`, the causal form (the book's, and that of pull request 13 of the official code) is
//!
//! ```text
//! CSSA(Z | U_k)_i = sum_{j <= i} w_j softmax_{j <= i}(w_j . w_i / sqrt(p))
//! CMSSA           = W [CSSA_1; ...; CSSA_K] + b
//! ```
//!
//! The book prints the mask's inequality the wrong way round relative to its own expansion; keys at or before the query are kept here.
//! Query, key and value are one projection, so a cache holds one tensor ([`cache`](crate::cache)). As `w_i . w_i` is among the scores, a token's
//! weight on itself is large by construction.
//!
//! As released: scores divided by `sqrt(p)`, a free output map in the place of `gamma [U_1 ... U_K]`, with a bias in CRATE-GPT and without in CRATE-BERT.

use tch::Tensor;
use whitebox_model::layers::Linear;
use whitebox_model::probe::{Probe, Site, show};

use crate::attention::{Keys, attend, split_heads};
use crate::cache::LayerCache;

/// Attention with one projection for query, key and value.
#[derive(Debug)]
pub struct SubspaceAttention {
    /// `U_[K]^T`, `[K p, d]`, head by head; no bias.
    pub u: Linear,
    /// The output map, `[d, K p]`.
    pub output: Linear,
    /// Subspaces K.
    pub heads: i64,
    /// Rate at which entries of the map are left out in training.
    pub dropout: f64,
}

impl SubspaceAttention {
    /// What attention adds to the tokens.
    ///
    /// # Shapes
    /// `h`: `[B, n, d]` to `[B, n, d]`.
    pub(crate) fn forward(
        &self,
        h: &Tensor,
        keys: &Keys<'_>,
        past: Option<&mut LayerCache>,
        train: bool,
        layer: usize,
        probe: &mut dyn Probe,
    ) -> Tensor {
        let projected = self.u.forward(h);
        show(probe, layer, Site::Uz, &projected);
        let w = split_heads(&projected, self.heads);
        let all = past.map(|past| past.extend(0, &w));
        let all = all.as_ref().unwrap_or(&w);
        let scale = 1.0 / (w.size()[3] as f64).sqrt();
        let dropout = if train { self.dropout } else { 0.0 };
        let out = self.output.forward(&attend([&w, all, all], keys, scale, dropout, layer, probe));
        show(probe, layer, Site::MssaOut, &out);
        out
    }

    pub(crate) fn share(&self) -> Self {
        SubspaceAttention { u: self.u.share(), output: self.output.share(), ..*self }
    }

    pub(crate) fn parameters(&self) -> impl Iterator<Item = &Tensor> {
        self.u.parameters().chain(self.output.parameters())
    }
}
