//! Multi-head subspace self-attention: one approximate gradient step on the coding rate `R^c`.
//!
//! Paper (columns are tokens, NeurIPS eqs. 10-12):
//!
//! ```text
//! SSA(Z | U_k)    = (U_k^T Z) softmax((U_k^T Z)^T (U_k^T Z))
//! MSSA(Z | U_[K]) = gamma [U_1 ... U_K] [SSA(Z | U_1); ...; SSA(Z | U_K)]
//! ```
//!
//! Query, key and value are one and the same projection `U_k^T z`: the parameter `qkv.weight` is `U_[K]^T`.
//!
//! The released code departs from this in three places, and so does the default here: the scores are divided by
//! `sqrt(p)`; the output map is a free linear layer with bias in the place of `gamma [U_1 ... U_K]`
//! ([`OutputMap::Tied`] is the paper's); there is no `gamma`. It leaves the output map out where there is one head with
//! `p = d`, and so does [`OutputMap::Free`].

use serde::{Deserialize, Serialize};
use tch::Tensor;
use tch::nn::Path;

use crate::layers::{Linear, LinearInit, map_is_faster};
use crate::probe::{Probe, Site, show};

/// How the heads' outputs return to the space of the tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputMap {
    /// A free linear map with bias, as the released code.
    #[default]
    Free,
    /// `gamma [U_1 ... U_K]`, the transpose of the projection, as derived (7.5 points lower on ImageNet in the paper).
    Tied,
}

/// What the scores `w_i . w_j` are multiplied by before the softmax.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scaling {
    /// `1/sqrt(p)`, as the released code.
    #[default]
    InverseSqrtP,
    /// 1, as the paper.
    None,
}

/// The shape and the choices of an attention layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MssaConfig {
    /// Token dimension. Default: 384.
    pub d: i64,
    /// Number of subspaces K. Default: 6.
    pub heads: i64,
    /// Dimension p of each subspace. Default: 64.
    pub head_dim: i64,
    /// Default: free.
    pub output_map: OutputMap,
    /// Default: inverse_sqrt_p.
    pub scaling: Scaling,
    /// The factor gamma in front of a tied output map; without effect on a free one. Default: 1.
    pub gamma: f64,
}

impl Default for MssaConfig {
    fn default() -> Self {
        MssaConfig {
            d: 384,
            heads: 6,
            head_dim: 64,
            output_map: OutputMap::Free,
            scaling: Scaling::InverseSqrtP,
            gamma: 1.0,
        }
    }
}

/// Multi-head subspace self-attention; parameters `qkv.weight` and, for a free output map, `to_out.0.{weight,bias}`.
#[derive(Debug)]
pub struct Mssa {
    /// `U_[K]^T`, `[K p, d]`, head by head.
    pub u: Tensor,
    output: Option<Linear>,
    config: MssaConfig,
}

impl Mssa {
    /// An attention layer under `path`.
    pub fn new(path: &Path<'_>, config: &MssaConfig) -> Self {
        let inner = config.heads * config.head_dim;
        let qkv = Linear::new(&(path / "qkv"), config.d, inner, false, LinearInit::PyTorch);
        let free = config.output_map == OutputMap::Free && !(config.heads == 1 && inner == config.d);
        let output = free.then(|| Linear::new(&(path / "to_out" / "0"), inner, config.d, true, LinearInit::PyTorch));
        Mssa { u: qkv.weight, output, config: config.clone() }
    }

    /// What the layer adds to the tokens.
    ///
    /// The attention map is formed for a probe that asks for it, and where that is faster (short sequences in bf16 on
    /// the CPU); otherwise fused attention works in memory linear in the number of tokens.
    ///
    /// # Shapes
    /// `h`: `[B, n, d]` to `[B, n, d]`.
    pub fn forward(&self, h: &Tensor, layer: usize, probe: &mut dyn Probe) -> Tensor {
        let MssaConfig { heads, head_dim, .. } = self.config;
        let (b, n) = (h.size()[0], h.size()[1]);
        let projected = h.linear(&self.u, None::<&Tensor>); // b n (k p)
        show(probe, layer, Site::Uz, &projected);
        let w = projected.view([b, n, heads, head_dim]).transpose(1, 2); // b k n p
        let scale = match self.config.scaling {
            Scaling::InverseSqrtP => 1.0 / (head_dim as f64).sqrt(),
            Scaling::None => 1.0,
        };
        let o = if probe.wants(layer, Site::Attention) || map_is_faster(&w) {
            let attention = (w.matmul(&w.transpose(-2, -1)) * scale).softmax(-1, None::<tch::Kind>);
            show(probe, layer, Site::Attention, &attention);
            attention.matmul(&w)
        } else {
            Tensor::scaled_dot_product_attention(&w, &w, &w, None::<&Tensor>, 0.0, false, scale, false)
        };
        let o = o.transpose(1, 2).reshape([b, n, heads * head_dim]);
        let out = match (&self.output, self.config.output_map) {
            (Some(map), _) => map.forward(&o),
            (None, OutputMap::Free) => o,
            (None, OutputMap::Tied) => o.matmul(&self.u) * self.config.gamma,
        };
        show(probe, layer, Site::MssaOut, &out);
        out
    }
}
