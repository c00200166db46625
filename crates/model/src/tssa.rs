//! Token statistics self-attention: attention without a map of tokens by tokens (ToST, arXiv 2412.17810).
//!
//! A gradient step on a variational bound of the coding rate `R^c` asks of the other tokens nothing but second moments of their projections. Rows are
//! tokens, `w_k = h U_k`:
//!
//! ```text
//! wn     = w / ||w||                                 the norm along the tokens, for each channel
//! Pi_jk  = softmax over k of temp_k ||wn_jk||^2      how far token j belongs to subspace k
//! m_k    = sum_j Pi_jk w_jk^2 / (sum_j Pi_jk + 1e-8) second moments, one for each channel
//! TSSA   = W [-Pi_k w_k / (1 + m_k)]_k + b
//! ```
//!
//! Time and memory are linear in the number of tokens. Departures of the released code from the derivation, kept here: one projection with a bias where
//! it is asked for, a free output map with bias, `temp` learned in the place of `1 / (2 eta)`, the normalisation along tokens, no division by their number,
//! and `d / eps^2 = 1` in `1 / (1 + m)`. Sums along tokens are float32 also where tokens are bf16.

use tch::nn::{Init, Path};
use tch::{Kind, Tensor};

use crate::layers::{Linear, LinearInit};
use crate::probe::{Probe, Site, show};

/// Token statistics self-attention; parameters `qkv.*`, `temp` (`[K, 1]`, ones) and `to_out.0.*`.
#[derive(Debug)]
pub struct Tssa {
    /// The projection on the K subspaces, head by head.
    pub projection: Linear,
    /// A temperature for each subspace, `[K, 1]`.
    pub temperature: Tensor,
    /// The output map.
    pub output: Linear,
}

impl Tssa {
    /// An attention layer under `path` with `heads` subspaces of dimension `d / heads`.
    pub fn new(path: &Path<'_>, d: i64, heads: i64, bias: bool) -> Self {
        Tssa {
            projection: Linear::new(&(path / "qkv"), d, d, bias, LinearInit::Timm),
            temperature: path.var("temp", &[heads, 1], Init::Const(1.0)),
            output: Linear::new(&(path / "to_out" / "0"), d, d, true, LinearInit::Timm),
        }
    }

    /// What attention adds to the tokens.
    ///
    /// # Shapes
    /// `h`: `[B, n, d]` to `[B, n, d]`.
    pub fn forward(&self, h: &Tensor, layer: usize, probe: &mut dyn Probe) -> Tensor {
        let projected = self.projection.forward(h);
        show(probe, layer, Site::Uz, &projected);
        let (size, heads) = (projected.size(), self.temperature.size()[0]);
        let w = projected.view([size[0], size[1], heads, size[2] / heads]); // b n k p
        let w = if matches!(w.kind(), Kind::BFloat16 | Kind::Half) { w.to_kind(Kind::Float) } else { w };
        let squares = w.square();
        let over_tokens = |t: &Tensor| t.sum_dim_intlist(1, true, None::<Kind>);

        // The squared norm's floor is that of PyTorch's `normalize`, 1e-12, squared.
        let share = &squares / over_tokens(&squares).clamp_min(1e-24);
        let scores = share.sum_dim_intlist(-1, false, None::<Kind>) * self.temperature.view([-1]); // b n k
        let pi = scores.softmax(2, None::<Kind>);
        if probe.wants(layer, Site::Memberships) {
            probe.see(layer, Site::Memberships, &pi.transpose(1, 2));
        }
        let weights = (&pi / (over_tokens(&pi) + 1e-8)).unsqueeze(-1);
        let moments = over_tokens(&(weights * squares)); // b 1 k p
        let o = -(w * pi.unsqueeze(-1)) / (moments + 1.0);
        let out = self.output.forward(&o.reshape(&size[..]).to_kind(projected.kind()));
        show(probe, layer, Site::MssaOut, &out);
        out
    }

    /// The same attention on the same parameters.
    pub(crate) fn share(&self) -> Self {
        Tssa {
            projection: self.projection.share(),
            temperature: self.temperature.shallow_clone(),
            output: self.output.share(),
        }
    }

    pub(crate) fn parameters(&self) -> impl Iterator<Item = &Tensor> {
        self.projection.parameters().chain([&self.temperature]).chain(self.output.parameters())
    }
}
