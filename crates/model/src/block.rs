//! One CRATE layer: compress against the subspaces, then sparsify over the dictionary.
//!
//! Three variants are in circulation, which differ in what the attention step is added to and in what is normalised
//! (`docs/paper-to-code.md`):
//!
//! ```text
//! raw         Z' = Z + MSSA(LN(Z))            Z+ = ISTA(LN(Z'))     released code, NeurIPS Alg. 2; the default
//! normalised  Z' = LN(Z) + MSSA(LN(Z))        Z+ = ISTA(LN(Z'))     figures of the JMLR paper
//! plain       Z' = Z + MSSA(Z)                Z+ = ISTA(Z')         NeurIPS eq. 18, no LayerNorm
//! ```

use serde::{Deserialize, Serialize};
use tch::Tensor;
use tch::nn::Path;

use crate::ista::{Ista, IstaConfig};
use crate::layers::LayerNorm;
use crate::mssa::{Mssa, MssaConfig};
use crate::probe::{NoProbe, Probe, Site, show};
use crate::recompute::Layer;
use crate::whole_layer::Parts;

/// What the attention step is added to, and what is normalised; see the module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResidualBase {
    /// Variant B: the tokens as they came.
    #[default]
    Raw,
    /// Variant A: the tokens after LayerNorm.
    Normalised,
    /// Variant C: no LayerNorm anywhere in the layer.
    Plain,
}

/// LayerNorm's epsilon in CRATE, added to the variance.
pub const LAYER_NORM_EPS: f64 = 1e-5;

/// One layer; parameters `0.norm.*`, `0.fn.*` (attention), `1.norm.*`, `1.fn.weight` (dictionary).
#[derive(Debug)]
pub struct Block {
    pub(crate) norm1: Option<LayerNorm>,
    /// The compression step.
    pub mssa: Mssa,
    pub(crate) norm2: Option<LayerNorm>,
    /// The sparsifying step.
    pub ista: Ista,
    pub(crate) base: ResidualBase,
}

impl Block {
    /// A layer under `path`.
    pub fn new(path: &Path<'_>, mssa: &MssaConfig, ista: &IstaConfig, base: ResidualBase) -> Self {
        let (attention, sparsify) = (path / "0", path / "1");
        let norm =
            |p: &Path<'_>| (base != ResidualBase::Plain).then(|| LayerNorm::new(&(p / "norm"), mssa.d, LAYER_NORM_EPS));
        Block {
            norm1: norm(&attention),
            mssa: Mssa::new(&(&attention / "fn"), mssa),
            norm2: norm(&sparsify),
            ista: Ista::new(&(&sparsify / "fn"), ista),
            base,
        }
    }

    /// `Z^l` to `Z^{l+1}`.
    ///
    /// The released layer on the CPU is computed as one operation (`whole_layer.rs`), unless `probe` wants to see into it.
    ///
    /// # Shapes
    /// `z`: `[B, n, d]` to `[B, n, d]`.
    pub fn forward(&self, z: &Tensor, layer: usize, probe: &mut dyn Probe) -> Tensor {
        if let Some(whole) = self.parts().filter(|parts| parts.fit(z) && !wants_inside(probe, layer)) {
            let out = whole.forward(z);
            show(probe, layer, Site::ZOut, &out);
            return out;
        }
        let h = normalised(&self.norm1, z);
        show_whole(probe, layer, Site::AttentionInput, &h, &self.norm1);
        let step = self.mssa.forward(&h, layer, probe);
        let half = match self.base {
            ResidualBase::Normalised => h + step,
            ResidualBase::Raw | ResidualBase::Plain => z + step,
        };
        show(probe, layer, Site::ZHalf, &half);
        let h = normalised(&self.norm2, &half);
        show_whole(probe, layer, Site::IstaInput, &h, &self.norm2);
        self.ista.forward(&h, layer, probe)
    }

    /// `Z^{l+1}` of the first token alone. What follows the last layer reads only this one where it pools by the class token, and three quarters
    /// of the layer's work are on the others.
    ///
    /// # Shapes
    /// `z`: `[B, n, d]` to `[B, 1, d]`.
    pub(crate) fn forward_first(&self, z: &Tensor) -> Tensor {
        let h = normalised(&self.norm1, z);
        let step = self.mssa.forward_first(&h);
        let base = if self.base == ResidualBase::Normalised { &h } else { z };
        let half = base.narrow(1, 0, 1) + step;
        self.ista.forward(&normalised(&self.norm2, &half), 0, &mut NoProbe)
    }

    fn parts(&self) -> Option<Parts<'_>> {
        let (norm1, norm2, output) = (self.norm1.as_ref()?, self.norm2.as_ref()?, self.mssa.output_map()?);
        let parts = Parts { norm1, mssa: &self.mssa, output, norm2, ista: &self.ista };
        (self.base == ResidualBase::Raw).then_some(parts)
    }
}

impl Layer for Block {
    fn share(&self) -> Self {
        let norm = |norm: &Option<LayerNorm>| norm.as_ref().map(|n| n.map(Tensor::shallow_clone));
        let (norm1, norm2) = (norm(&self.norm1), norm(&self.norm2));
        Block { norm1, mssa: self.mssa.share(), norm2, ista: self.ista.share(), base: self.base }
    }

    fn parameters(&self) -> Vec<&Tensor> {
        let norms = [&self.norm1, &self.norm2].into_iter().flatten().flat_map(LayerNorm::parameters);
        norms.chain(self.mssa.parameters()).chain([&self.ista.dictionary]).collect()
    }

    fn compute(&self, z: &Tensor) -> Tensor {
        self.forward(z, 0, &mut NoProbe)
    }
}

/// Whether `probe` wants anything of a layer other than what comes out of it.
fn wants_inside(probe: &dyn Probe, layer: usize) -> bool {
    Site::ALL.iter().any(|&site| site != Site::ZOut && probe.wants(layer, site))
}

/// Shows what has gone through `norm`, unless its scale and shift come later: that is not what the site names.
fn show_whole(probe: &mut dyn Probe, layer: usize, site: Site, value: &Tensor, norm: &Option<LayerNorm>) {
    if norm.as_ref().is_none_or(|norm| norm.affine.is_some()) {
        show(probe, layer, site, value);
    }
}

fn normalised(norm: &Option<LayerNorm>, z: &Tensor) -> Tensor {
    match norm {
        Some(norm) => norm.forward(z),
        None => z.shallow_clone(),
    }
}
