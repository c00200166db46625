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
use tch::nn::Path;
use tch::{Device, Kind, Tensor};
use torch_extras::{attention, function};

use crate::layers::{Linear, LinearInit};
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

impl MssaConfig {
    /// Whether there is a free output map.
    pub(crate) fn has_output_map(&self) -> bool {
        self.output_map == OutputMap::Free && !(self.heads == 1 && self.head_dim == self.d)
    }

    /// What the scores are multiplied by.
    pub(crate) fn scale(&self) -> f64 {
        match self.scaling {
            Scaling::InverseSqrtP => 1.0 / (self.head_dim as f64).sqrt(),
            Scaling::None => 1.0,
        }
    }
}

/// Multi-head subspace self-attention; parameters `qkv.weight` and, for a free output map, `to_out.0.{weight,bias}`.
#[derive(Debug)]
pub struct Mssa {
    /// `U_[K]^T`, `[K p, d]`, head by head.
    pub u: Tensor,
    /// What a folded LayerNorm has left of its shift, `[K p]`.
    pub(crate) shift: Option<Tensor>,
    /// The free output map, where there is one.
    pub output: Option<Linear>,
    pub(crate) config: MssaConfig,
}

impl Mssa {
    /// An attention layer under `path`.
    pub fn new(path: &Path<'_>, config: &MssaConfig) -> Self {
        Self::drawn(path, config, true, LinearInit::PyTorch)
    }

    /// An attention layer whose matrices are drawn as `init` says, with or without the bias of a free output map.
    pub fn drawn(path: &Path<'_>, config: &MssaConfig, bias: bool, init: LinearInit) -> Self {
        let inner = config.heads * config.head_dim;
        let qkv = Linear::new(&(path / "qkv"), config.d, inner, false, init);
        let output = config.has_output_map().then(|| {
            let path = path / "to_out" / "0";
            Linear::new(&path, inner, config.d, bias, init)
        });
        Mssa { u: qkv.weight, shift: None, output, config: config.clone() }
    }

    /// The same attention on the same parameters.
    pub fn share(&self) -> Self {
        let output = self.output.as_ref().map(Linear::share);
        let shift = self.shift.as_ref().map(Tensor::shallow_clone);
        Mssa { u: self.u.shallow_clone(), shift, output, config: self.config.clone() }
    }

    /// U and the output map's.
    pub fn parameters(&self) -> impl Iterator<Item = &Tensor> {
        std::iter::once(&self.u).chain(self.output.iter().flat_map(Linear::parameters))
    }

    /// What the layer adds to the tokens.
    ///
    /// The attention map is formed as a whole for a probe that asks for it. Otherwise it never exists: on the CPU each head's
    /// part lives in a thread's cache for a moment, elsewhere and for long sequences fused attention computes it in tiles.
    ///
    /// # Shapes
    /// `h`: `[B, n, d]` to `[B, n, d]`.
    pub fn forward(&self, h: &Tensor, layer: usize, probe: &mut dyn Probe) -> Tensor {
        let projected = h.linear(&self.u, self.shift.as_ref()); // b n (k p)
        show(probe, layer, Site::Uz, &projected);
        let o = if probe.wants(layer, Site::Attention) {
            let w = self.heads(&projected);
            let attention = (w.matmul(&w.transpose(-2, -1)) * self.scale()).softmax(-1, None::<Kind>);
            show(probe, layer, Site::Attention, &attention);
            self.joined(&attention.matmul(&w))
        } else if attention_fits(&projected) {
            subspace_attention(&projected.contiguous(), self.config.heads, self.scale())
        } else {
            let w = self.heads(&projected);
            let scale = self.scale();
            self.joined(&Tensor::scaled_dot_product_attention(&w, &w, &w, None::<&Tensor>, 0.0, false, scale, false))
        };
        let out = self.output(&o);
        show(probe, layer, Site::MssaOut, &out);
        out
    }

    /// What the layer adds to the first token alone. With one query nothing but that is projected: with `q_k = U_k^T h_1`
    ///
    /// ```text
    /// (U_k^T h_j) . q_k = h_j . (U_k q_k)          sum_j a_kj U_k^T h_j = U_k^T (sum_j a_kj h_j)
    /// ```
    ///
    /// so that each token meets K vectors in the place of `K p`, twice. (A shift of the projection moves all scores of a query alike.)
    ///
    /// # Shapes
    /// `h`: `[B, n, d]` to `[B, 1, d]`.
    pub(crate) fn forward_first(&self, h: &Tensor) -> Tensor {
        let MssaConfig { d, heads, head_dim, .. } = self.config;
        let b = h.size()[0];
        let u = self.u.view([heads, head_dim, d]); // k p d
        let first = h.select(1, 0).expand([heads, b, d], false); // k b d
        let shift = self.shift.as_ref().map(|shift| shift.view([heads, 1, head_dim]));
        let shifted = |w: Tensor| shift.iter().fold(w, |w, shift| w + shift);
        let query = shifted(first.bmm(&u.transpose(1, 2))); // k b p
        let back = query.bmm(&u).permute([1, 2, 0]); // b d k
        // In this order the gradients by h are laid out as h is.
        let scores = h.bmm(&back) * self.scale(); // b n k
        let mean = scores.softmax(1, None::<Kind>).to_kind(h.kind()).transpose(1, 2).bmm(h); // b k d
        let o = shifted(mean.transpose(0, 1).bmm(&u.transpose(1, 2))); // k b p
        self.output(&o.transpose(0, 1).reshape([b, 1, heads * head_dim]))
    }

    /// `[B, n, K p]` to `[B, K, n, p]`.
    fn heads(&self, projected: &Tensor) -> Tensor {
        let size = projected.size();
        projected.view([size[0], size[1], self.config.heads, self.config.head_dim]).transpose(1, 2)
    }

    /// `[B, K, n, p]` to `[B, n, K p]`.
    fn joined(&self, heads: &Tensor) -> Tensor {
        let size = heads.size();
        heads.transpose(1, 2).reshape([size[0], size[2], size[1] * size[3]])
    }

    /// What the scores are multiplied by.
    pub(crate) fn scale(&self) -> f64 {
        self.config.scale()
    }

    /// Number of heads K.
    pub(crate) fn head_count(&self) -> i64 {
        self.config.heads
    }

    /// The free output map, where there is one.
    pub(crate) fn output_map(&self) -> Option<&Linear> {
        self.output.as_ref()
    }

    /// Heads' outputs to what is added to the tokens.
    pub(crate) fn output(&self, o: &Tensor) -> Tensor {
        match (&self.output, self.config.output_map) {
            (Some(map), _) => map.forward(o),
            (None, OutputMap::Free) => o.shallow_clone(),
            (None, OutputMap::Tied) => o.matmul(&self.u) * self.config.gamma,
        }
    }
}

/// Whether this is a projection whose attention [`subspace_attention`] computes best.
pub(crate) fn attention_fits(projected: &Tensor) -> bool {
    projected.device() == Device::Cpu
        && matches!(projected.kind(), Kind::Float | Kind::Double | Kind::BFloat16)
        && (1..=attention::MOST_TOKENS).contains(&projected.size()[1])
}

/// `softmax(s w w^T) w` of every head on the CPU, with its own backward pass.
///
/// # Shapes
/// `w`: `[B, n, K p]`, contiguous, [fitting](attention_fits), to `[B, n, K p]`.
fn subspace_attention(w: &Tensor, heads: i64, scale: f64) -> Tensor {
    let fits = "the projection was found to fit";
    let (out, logarithms) = attention::subspace_attention(w, heads, scale).expect(fits);
    let backward = move |saved: &[Tensor], grads: &[Option<Tensor>]| {
        let [w, out, logarithms] = saved else { return Err("three tensors were saved".into()) };
        let Some(grad) = &grads[0] else { return Ok(vec![None]) };
        let grad = grad.contiguous();
        Ok(vec![Some(attention::subspace_attention_backward(&grad, w, out, logarithms, heads, scale)?)])
    };
    function::attach("subspace attention", &[&out], &[w], &[w, &out, &logarithms], backward).expect(fits);
    out
}
