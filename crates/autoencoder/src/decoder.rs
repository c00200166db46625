//! One layer of CRATE's decoder: the encoder's layer with time reversed (JMLR section 3; structured denoising and diffusion).
//!
//! ```text
//! Y'  = E LN(Y)                      in the place of ISTA's inverse: for D^T D ~ I a dictionary leads back from its code
//! Y+  = Y' - MSSA(LN(Y'))            one step up the coding rate of [V_1 ... V_K], where the encoder goes one down
//! ```
//!
//! The paper's figure 9 draws `LN(Y') - MSSA(LN(Y'))` ([`ResidualBase::Normalised`]); the released code and this default take `Y'` as it is.
//! E is `D~^T` in the theory. E and V are the layer's own: the paper does not tie them to the encoder's. [`DecoderInit`] says what they begin as.
//!
//! A probe is shown what stands in the same places as in the encoder: the step's input at [`Site::IstaInput`], Y' at [`Site::ZHalf`], Y+ at
//! [`Site::ZOut`], the attention's sites as there.

use serde::{Deserialize, Serialize};
use tch::Tensor;
use tch::nn::Path;
use whitebox_model::block::{LAYER_NORM_EPS, ResidualBase};
use whitebox_model::layers::{LayerNorm, LinearInit, uniform};
use whitebox_model::mssa::{Mssa, MssaConfig};
use whitebox_model::probe::{Probe, Site, show};
use whitebox_model::recompute::Layer;

/// What a decoder's matrices begin as, or are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DecoderInit {
    /// Drawn for themselves, as released.
    #[default]
    Independent,
    /// Copies of the encoder's, last layer first: `E = D`, `V = U` and the attention's output map, so that a decoder layer begins by undoing its partner,
    /// in part. They learn apart.
    Inverted,
    /// The encoder's own, last layer first; there are no others to learn. LayerNorms stay apart.
    Tied,
}

/// One layer; parameters `0.norm.*`, `0.fn.weight` (E), `1.norm.*`, `1.fn.*` (attention), as released.
#[derive(Debug)]
pub struct DecoderBlock {
    norm1: LayerNorm,
    /// E, `[d, d]`.
    pub dictionary: Tensor,
    norm2: LayerNorm,
    /// The attention with V for its subspaces.
    pub attention: Mssa,
    base: ResidualBase,
}

impl DecoderBlock {
    /// A layer under `path` with matrices of its own: E drawn as Kaiming uniform, the attention's as Xavier uniform.
    pub fn new(path: &Path<'_>, mssa: &MssaConfig, base: ResidualBase) -> Self {
        let d = mssa.d;
        let dictionary = (path / "0" / "fn").var("weight", &[d, d], uniform((6.0 / d as f64).sqrt()));
        let attention = Mssa::drawn(&(path / "1" / "fn"), mssa, true, LinearInit::Xavier);
        Self::of_matrices(path, d, dictionary, attention, base)
    }

    /// A layer under `path` with these matrices, and LayerNorms of its own.
    pub fn of_matrices(path: &Path<'_>, d: i64, dictionary: Tensor, attention: Mssa, base: ResidualBase) -> Self {
        let norm = |step: &str| LayerNorm::new(&(path / step / "norm"), d, LAYER_NORM_EPS);
        DecoderBlock { norm1: norm("0"), dictionary, norm2: norm("1"), attention, base }
    }

    /// `Y^l` to `Y^{l+1}`.
    ///
    /// # Shapes
    /// `y`: `[B, n, d]` to `[B, n, d]`.
    pub fn forward(&self, y: &Tensor, layer: usize, probe: &mut dyn Probe) -> Tensor {
        let h = self.norm1.forward(y);
        show(probe, layer, Site::IstaInput, &h);
        let half = h.linear(&self.dictionary, None::<&Tensor>);
        show(probe, layer, Site::ZHalf, &half);
        let h = self.norm2.forward(&half);
        show(probe, layer, Site::AttentionInput, &h);
        let step = self.attention.forward(&h, layer, probe);
        let out = match self.base {
            ResidualBase::Normalised => h - step,
            ResidualBase::Raw | ResidualBase::Plain => half - step,
        };
        show(probe, layer, Site::ZOut, &out);
        out
    }
}

impl Layer for DecoderBlock {
    fn share(&self) -> Self {
        let [norm1, norm2] = [&self.norm1, &self.norm2].map(|norm| norm.map(Tensor::shallow_clone));
        let (dictionary, attention) = (self.dictionary.shallow_clone(), self.attention.share());
        DecoderBlock { norm1, dictionary, norm2, attention, base: self.base }
    }

    fn parameters(&self) -> Vec<&Tensor> {
        let norms = self.norm1.parameters().chain(self.norm2.parameters());
        norms.chain([&self.dictionary]).chain(self.attention.parameters()).collect()
    }

    fn compute(&self, y: &Tensor, layer: usize, probe: &mut dyn Probe) -> Tensor {
        self.forward(y, layer, probe)
    }
}
