//! Multi-head self-attention as transformers have it, with three projections where subspace attention has one:
//!
//! ```text
//! MHSA(h) = W [softmax(s q_1 k_1^T) v_1, ..., softmax(s q_K k_K^T) v_K] + b        q, k, v = h W_q^T + b_q, ...
//! ```
//!
//! It is ViT's, the class attention of ToST, and in CRATE the paper's ablation (`attention = "mhsa"`). A probe is shown the keys at [`Site::Uz`].

use tch::{Kind, Tensor};

use crate::layers::{LayerNorm, Linear, map_is_faster};
use crate::probe::{Probe, Site, show};

/// Attention of `heads` heads.
#[derive(Debug)]
pub struct Mhsa {
    /// Queries, keys and values one after the other, `[3 K p, d]`; head by head in each.
    pub qkv: Linear,
    /// The output map, `[d, K p]`.
    pub output: Linear,
    heads: i64,
    scale: f64,
}

impl Mhsa {
    /// The attention with these maps, its scores multiplied by `scale`.
    pub fn new(qkv: Linear, output: Linear, heads: i64, scale: f64) -> Self {
        Mhsa { qkv, output, heads, scale }
    }

    /// What attention adds to the tokens. The map is formed for a probe that asks for it, and where forming it is faster than fused attention.
    ///
    /// # Shapes
    /// `h`: `[B, n, d]` to `[B, n, d]`.
    pub fn forward(&self, h: &Tensor, layer: usize, probe: &mut dyn Probe) -> Tensor {
        let (b, n, inner) = (h.size()[0], h.size()[1], self.inner());
        let qkv = self.qkv.forward(h);
        if probe.wants(layer, Site::Uz) {
            probe.see(layer, Site::Uz, &qkv.narrow(2, inner, inner));
        }
        let qkv = qkv.view([b, n, 3, self.heads, inner / self.heads]).permute([2, 0, 3, 1, 4]); // 3 b k n p
        let (q, k, v) = (qkv.get(0), qkv.get(1), qkv.get(2));
        let o = if probe.wants(layer, Site::Attention) || map_is_faster(&q) {
            let attention = self.map(&q, &k);
            show(probe, layer, Site::Attention, &attention);
            attention.matmul(&v)
        } else {
            Tensor::scaled_dot_product_attention(&q, &k, &v, None::<&Tensor>, 0.0, false, self.scale, false)
        };
        let out = self.output.forward(&o.transpose(1, 2).reshape([b, n, inner]));
        show(probe, layer, Site::MssaOut, &out);
        out
    }

    /// What attention adds to the first token alone: one query meets all keys, and the others are not projected.
    ///
    /// # Shapes
    /// `h`: `[B, n, d]` to `[B, 1, d]`.
    pub(crate) fn forward_first(&self, h: &Tensor) -> Tensor {
        let (b, inner) = (h.size()[0], self.inner());
        // Rows `from..from + parts K p` of the projection, as [B, parts, K, n, p].
        let project = |h: &Tensor, from: i64, parts: i64| {
            let rows = |t: &Tensor| t.narrow(0, from, parts * inner);
            let projected = h.linear(&rows(&self.qkv.weight), self.qkv.bias.as_ref().map(rows).as_ref());
            projected.reshape([b, h.size()[1], parts, self.heads, inner / self.heads]).permute([0, 2, 3, 1, 4])
        };
        let q = project(&h.narrow(1, 0, 1), 0, 1).select(1, 0);
        let kv = project(h, inner, 2);
        let o = self.map(&q, &kv.select(1, 0)).matmul(&kv.select(1, 1)); // b k 1 p
        self.output.forward(&o.reshape([b, 1, inner]))
    }

    /// `softmax(s q k^T)`.
    fn map(&self, q: &Tensor, k: &Tensor) -> Tensor {
        (q.matmul(&k.transpose(-2, -1)) * self.scale).softmax(-1, None::<Kind>)
    }

    /// `K p`.
    fn inner(&self) -> i64 {
        self.output.weight.size()[1]
    }

    /// The same attention on the same parameters.
    pub(crate) fn share(&self) -> Self {
        Mhsa { qkv: self.qkv.share(), output: self.output.share(), ..*self }
    }

    pub(crate) fn parameters(&self) -> impl Iterator<Item = &Tensor> {
        self.qkv.parameters().chain(self.output.parameters())
    }

    /// The same attention for inference, for inputs whose scale and shift `norm` has left to it.
    pub(crate) fn fold(&self, norm: Option<&LayerNorm>, kind: Kind) -> Self {
        Mhsa { qkv: self.qkv.after(norm, kind), output: self.output.after(None, kind), ..*self }
    }
}
