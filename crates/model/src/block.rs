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
//!
//! Either step can be another one. The attention: [`Mhsa`], a transformer's. The second step: MM-prox in ISTA's place
//! ([`Step::MmProx`](crate::ista::Step)); a transformer's [`Mlp`], with `Z+ = Z' + MLP(LN(Z'))`; CRATE-alpha's dictionary [`Odl`], with `Z+ = Z' + ODL(LN(Z'))`
//! or, in its ablation, without `Z' +`.
//!
//! Stochastic depth (`drop.rs`) leaves out steps that are added to something. ISTA and MM-prox are not: of such a layer the attention alone
//! can be dropped.

use serde::{Deserialize, Serialize};
use tch::Tensor;
use tch::nn::Path;

use crate::drop::DropPath;
use crate::first_token::attend_first;
use crate::ista::{Ista, IstaConfig};
use crate::layers::{LayerNorm, without_autocast};
use crate::mhsa::Mhsa;
use crate::mlp::Mlp;
use crate::mssa::{Mssa, MssaConfig};
use crate::odl::Odl;
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

/// The first step of a layer.
#[derive(Debug)]
pub enum Attention {
    /// Subspace attention, the paper's.
    Mssa(Mssa),
    /// Attention with three projections.
    Mhsa(Mhsa),
}

/// The second step of a layer.
#[derive(Debug)]
pub enum Sparsifier {
    /// One proximal step over a complete dictionary, the paper's. It is not added to the tokens: its result are the tokens.
    Ista(Ista),
    /// A GELU MLP, added to the tokens.
    Mlp(Mlp),
    /// Sparse coding over an overcomplete dictionary and back, added to the tokens where there is a residual connection.
    Odl {
        /// The step.
        odl: Odl,
        /// Whether it is added to the tokens.
        residual: bool,
    },
}

/// One layer; as released its parameters are `0.norm.*`, `0.fn.*` (attention), `1.norm.*`, `1.fn.weight` (dictionary).
#[derive(Debug)]
pub struct Block {
    pub(crate) norm1: Option<LayerNorm>,
    /// The compression step.
    pub attention: Attention,
    pub(crate) norm2: Option<LayerNorm>,
    /// The sparsifying step.
    pub sparsifier: Sparsifier,
    pub(crate) base: ResidualBase,
    pub(crate) drop: DropPath,
}

impl Block {
    /// A layer of the paper's two steps under `path`.
    pub fn new(path: &Path<'_>, mssa: &MssaConfig, ista: &IstaConfig, base: ResidualBase) -> Self {
        let attention = Attention::Mssa(Mssa::new(&(path / "0" / "fn"), mssa));
        let sparsifier = Sparsifier::Ista(Ista::new(&(path / "1" / "fn"), ista));
        Self::of_steps(path, mssa.d, attention, sparsifier, base, LAYER_NORM_EPS)
    }

    /// A layer under `path` of two steps that were drawn there, at `0.fn` and `1.fn`, on tokens of dimension `d`.
    pub fn of_steps(
        path: &Path<'_>,
        d: i64,
        attention: Attention,
        sparsifier: Sparsifier,
        base: ResidualBase,
        eps: f64,
    ) -> Self {
        let norm = |step: &str| {
            let path = path / step / "norm";
            (base != ResidualBase::Plain).then(|| LayerNorm::new(&path, d, eps))
        };
        let (norm1, norm2) = (norm("0"), norm("1"));
        Block { norm1, attention, norm2, sparsifier, base, drop: DropPath::default() }
    }

    /// `Z^l` to `Z^{l+1}`.
    ///
    /// The released layer on the CPU is computed as one operation (`whole_layer.rs`), unless steps are dropped or `probe` wants to see what does not come to be in
    /// it, attention maps and residuals, anything of it that hangs in autograd's graph, or, under autocast, tokens of another kind.
    ///
    /// # Shapes
    /// `z`: `[B, n, d]` to `[B, n, d]`.
    pub fn forward(&self, z: &Tensor, layer: usize, probe: &mut dyn Probe) -> Tensor {
        let can_show = |parts: &Parts<'_>| !wants_inside(probe, layer) || parts.can_show(z, layer, probe);
        if let Some(whole) = self.parts().filter(|parts| parts.fit(z) && can_show(parts)) {
            let out = whole.forward(z, layer, probe);
            show(probe, layer, Site::ZOut, &out);
            return out;
        }
        let h = normalised(&self.norm1, z);
        show_whole(probe, layer, Site::AttentionInput, &h, &self.norm1);
        let step = self.drop.apply(match &self.attention {
            Attention::Mssa(mssa) => mssa.forward(&h, layer, probe),
            Attention::Mhsa(mhsa) => mhsa.forward(&h, layer, probe),
        });
        let half = match self.base {
            ResidualBase::Normalised => h + step,
            ResidualBase::Raw | ResidualBase::Plain => z + step,
        };
        show(probe, layer, Site::ZHalf, &half);
        self.sparsify(&half, layer, probe)
    }

    /// `Z^{l+1}` of the first token alone. What follows the last layer reads only this one where it pools by the class token, and three quarters
    /// of the layer's work are on the others.
    ///
    /// # Shapes
    /// `z`: `[B, n, d]` to `[B, 1, d]`.
    pub(crate) fn forward_first(&self, z: &Tensor) -> Tensor {
        if let (Attention::Mssa(mssa), Some(norm), ResidualBase::Raw) = (&self.attention, &self.norm1, self.base)
            && let Some((first, o)) = attend_first(norm, mssa, z)
        {
            // Of so few tokens autocast would cast parameters that are larger than they.
            let _plain = without_autocast(z.device());
            let [first, o] = [first, o].map(|t| t.to_kind(mssa.u.kind()).unsqueeze(1));
            return self.sparsify(&(first + self.drop.apply(mssa.output(&o))), 0, &mut NoProbe);
        }
        let h = normalised(&self.norm1, z);
        let step = self.drop.apply(match &self.attention {
            Attention::Mssa(mssa) => mssa.forward_first(&h),
            Attention::Mhsa(mhsa) => mhsa.forward_first(&h),
        });
        let base = if self.base == ResidualBase::Normalised { &h } else { z };
        self.sparsify(&(base.narrow(1, 0, 1) + step), 0, &mut NoProbe)
    }

    /// `Z^{l+1/2}` to `Z^{l+1}`.
    fn sparsify(&self, half: &Tensor, layer: usize, probe: &mut dyn Probe) -> Tensor {
        let h = normalised(&self.norm2, half);
        show_whole(probe, layer, Site::IstaInput, &h, &self.norm2);
        let out = match &self.sparsifier {
            Sparsifier::Ista(ista) => return ista.forward(&h, layer, probe),
            Sparsifier::Odl { odl, residual: false } => odl.forward(&h, layer, probe),
            Sparsifier::Odl { odl, residual: true } => half + self.drop.apply(odl.forward(&h, layer, probe)),
            Sparsifier::Mlp(mlp) => half + self.drop.apply(mlp.forward(&h, layer, probe)),
        };
        show(probe, layer, Site::ZOut, &out);
        out
    }

    fn parts(&self) -> Option<Parts<'_>> {
        let (Attention::Mssa(mssa), Sparsifier::Ista(ista)) = (&self.attention, &self.sparsifier) else { return None };
        let (norm1, norm2, output) = (self.norm1.as_ref()?, self.norm2.as_ref()?, mssa.output_map()?);
        let parts = Parts { norm1, mssa, output, norm2, ista };
        (self.base == ResidualBase::Raw && !self.drop.active()).then_some(parts)
    }
}

impl Layer for Block {
    fn share(&self) -> Self {
        let norm = |norm: &Option<LayerNorm>| norm.as_ref().map(|n| n.map(Tensor::shallow_clone));
        Block {
            norm1: norm(&self.norm1),
            attention: match &self.attention {
                Attention::Mssa(mssa) => Attention::Mssa(mssa.share()),
                Attention::Mhsa(mhsa) => Attention::Mhsa(mhsa.share()),
            },
            norm2: norm(&self.norm2),
            sparsifier: match &self.sparsifier {
                Sparsifier::Ista(ista) => Sparsifier::Ista(ista.share()),
                Sparsifier::Mlp(mlp) => Sparsifier::Mlp(mlp.share()),
                Sparsifier::Odl { odl, residual } => Sparsifier::Odl { odl: odl.share(), residual: *residual },
            },
            base: self.base,
            drop: self.drop,
        }
    }

    fn parameters(&self) -> Vec<&Tensor> {
        let norms = [&self.norm1, &self.norm2].into_iter().flatten().flat_map(LayerNorm::parameters);
        let attention: Vec<&Tensor> = match &self.attention {
            Attention::Mssa(mssa) => mssa.parameters().collect(),
            Attention::Mhsa(mhsa) => mhsa.parameters().collect(),
        };
        let sparsifier: Vec<&Tensor> = match &self.sparsifier {
            Sparsifier::Ista(ista) => vec![&ista.dictionary],
            Sparsifier::Mlp(mlp) => mlp.parameters().collect(),
            Sparsifier::Odl { odl, .. } => odl.parameters().collect(),
        };
        norms.chain(attention).chain(sparsifier).collect()
    }

    fn compute(&self, z: &Tensor, layer: usize, probe: &mut dyn Probe) -> Tensor {
        self.forward(z, layer, probe)
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
