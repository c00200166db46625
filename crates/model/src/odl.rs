//! The sparsifying step of CRATE-alpha: a few proximal gradient steps of non-negative sparse coding over an overcomplete dictionary, and the way back
//! from the code to the tokens (arXiv 2405.20299).
//!
//! Tokens as columns, with `D` and `D_hat` of size `d x C d`:
//!
//! ```text
//! A_0 = 0        A_{t+1} = ReLU(A_t - eta D^T (D A_t - h) - eta lambda 1)        t = 0, 1, ...
//! ODL(h) = D_hat A_T
//! ```
//!
//! What it changes in CRATE's step ([`ista`](crate::ista)): the dictionary has `C` times as many atoms as dimensions; the code starts at zero and not at
//! `h`, so that two steps are the least that is more than a threshold; and because the code no longer has the tokens' size, a dictionary leads back. The
//! released layer has a second one for that ([`OdlConfig::decoupled`]); without it `D` itself leads back, the first stage of the paper's ablation.
//!
//! `A_1` is one product, every further step two and the way back one: `2 T` products of size `d x C d` a token.

use serde::{Deserialize, Serialize};
use tch::Tensor;
use tch::nn::Path;

use crate::layers::uniform;
use crate::probe::{Probe, Site, show};

/// The shape and the steps of the layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OdlConfig {
    /// Token dimension. Default: 192.
    pub d: i64,
    /// Atoms for each dimension, C. Default: 4.
    pub overcomplete: i64,
    /// Whether a dictionary of its own leads back from the code. Default: true.
    pub decoupled: bool,
    /// Proximal steps T. Default: 2.
    pub steps: i64,
    /// Step size eta. Default: 0.1.
    pub eta: f64,
    /// Weight lambda of the l1 norm. Default: 0.1.
    pub lambda: f64,
}

impl Default for OdlConfig {
    fn default() -> Self {
        OdlConfig { d: 192, overcomplete: 4, decoupled: true, steps: 2, eta: 0.1, lambda: 0.1 }
    }
}

/// Sparse coding over an overcomplete dictionary; parameters `D` and, where decoupled, `D1`.
#[derive(Debug)]
pub struct Odl {
    /// The dictionary D, `[d, C d]`; its columns are the atoms.
    pub dictionary: Tensor,
    /// The dictionary that leads back, `[d, C d]`.
    pub back: Option<Tensor>,
    config: OdlConfig,
}

impl Odl {
    /// A layer under `path`. Both dictionaries are drawn as the training code (JAX) draws them, Kaiming uniform with bound `sqrt(6/d)`; the PyTorch file
    /// for inference would take `C d` for `d`.
    pub fn new(path: &Path<'_>, config: &OdlConfig) -> Self {
        let (shape, bound) = ([config.d, config.overcomplete * config.d], (6.0 / config.d as f64).sqrt());
        let draw = |name: &str| path.var(name, &shape, uniform(bound));
        let dictionary = draw("D");
        Odl { dictionary, back: config.decoupled.then(|| draw("D1")), config: config.clone() }
    }

    /// What the layer makes of the tokens; a residual connection, where there is one, is the caller's.
    ///
    /// # Shapes
    /// `h`: `[B, n, d]` to `[B, n, d]`.
    pub fn forward(&self, h: &Tensor, layer: usize, probe: &mut dyn Probe) -> Tensor {
        let code = self.code(h);
        show(probe, layer, Site::Code, &code);
        let out = code.linear(self.back.as_ref().unwrap_or(&self.dictionary), None::<&Tensor>);
        show(probe, layer, Site::IstaOut, &out);
        out
    }

    /// The code `A_T`.
    ///
    /// # Shapes
    /// `h`: `[B, n, d]` to `[B, n, C d]`, non-negative.
    pub fn code(&self, h: &Tensor) -> Tensor {
        let OdlConfig { eta, lambda, steps, .. } = self.config;
        let first = (h.matmul(&self.dictionary) * eta - eta * lambda).relu();
        (1..steps).fold(first, |code, _| {
            let residual = h - code.linear(&self.dictionary, None::<&Tensor>);
            (code + residual.matmul(&self.dictionary) * eta - eta * lambda).relu()
        })
    }

    /// The same layer on the same parameters.
    pub fn share(&self) -> Self {
        self.map(Tensor::shallow_clone)
    }

    /// The same layer with other tensors for its parameters.
    pub(crate) fn map(&self, f: impl Fn(&Tensor) -> Tensor) -> Self {
        Odl { dictionary: f(&self.dictionary), back: self.back.as_ref().map(&f), config: self.config.clone() }
    }

    /// The dictionary, and the one that leads back where there is one.
    pub fn parameters(&self) -> impl Iterator<Item = &Tensor> {
        std::iter::once(&self.dictionary).chain(&self.back)
    }
}
