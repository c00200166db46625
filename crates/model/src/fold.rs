//! A CRATE folded for inference: whatever does not change from batch to batch is worked into the matrices once.
//!
//! ```text
//! U (x o s + t)       = (U diag(s)) x + U t              LayerNorm's scale s and shift t go into the matrix that reads it
//! ISTA(h)             = ReLU(M h - eta lambda)           M is kept, and takes LayerNorm's part in likewise
//! ```
//!
//! It is done in the parameters' kind and rounded to the wanted one at the end. A folded model is a [`Crate`] like any other and shows a probe all that it
//! still forms; `LN(Z)` and the residual of the sparse code it does not ([`Site::AttentionInput`](crate::Site), `IstaInput`, `IstaResidual`).

use tch::{Kind, Tensor};

use crate::block::{Attention, Block, ResidualBase, Sparsifier};
use crate::crate_vision::{Crate, Tokens};
use crate::drop::DropPath;
use crate::embed::PatchEmbedding;
use crate::layers::{LayerNorm, Linear};
use crate::mssa::{Mssa, OutputMap};

impl Crate {
    /// This model for inference alone, its matrices in `kind`; later changes of the parameters do not reach it. Logits differ by rounding.
    pub fn folded(&self, kind: Kind) -> Crate {
        tch::no_grad(|| Crate {
            embedding: match &self.embedding {
                Tokens::Norms(embedding) => Tokens::Norms(embedding.folded(kind)),
                Tokens::Convolution(embedding) => {
                    Tokens::Convolution(embedding.map(|parameter| frozen(parameter, kind)))
                }
            },
            layers: self.layers.iter().map(|layer| layer.folded(kind)).collect(),
            norm: self.norm.map(|parameter| parameter.detach().copy()),
            head: self.head.after(None, kind),
            config: self.config.clone(),
            recompute: false,
            training: false,
        })
    }
}

impl Linear {
    /// The map of `norm` and then this one, for inputs that `norm` has normalised without scaling and shifting them; within autograd's graph.
    pub(crate) fn joined_to(&self, norm: Option<&LayerNorm>) -> Linear {
        let affine = norm.and_then(|norm| norm.affine.as_ref());
        let weight = affine.map_or_else(|| self.weight.shallow_clone(), |(scale, _)| &self.weight * scale);
        let shift = affine.map(|(_, shift)| self.weight.mv(shift));
        let bias = match (shift, &self.bias) {
            (Some(shift), Some(bias)) => Some(shift + bias),
            (shift, bias) => shift.or_else(|| bias.as_ref().map(Tensor::shallow_clone)),
        };
        Linear { weight, bias }
    }

    /// The same as copies in `kind`.
    pub(crate) fn after(&self, norm: Option<&LayerNorm>, kind: Kind) -> Linear {
        let Linear { weight, bias } = self.joined_to(norm);
        Linear { weight: frozen(&weight, kind), bias: bias.map(|bias| frozen(&bias, kind)) }
    }
}

impl Block {
    fn folded(&self, kind: Kind) -> Block {
        // What the attention step is added to, and what is met by a dictionary more than once, are wanted whole after LayerNorm.
        let keeps1 = self.base == ResidualBase::Normalised;
        let keeps2 = matches!(self.sparsifier, Sparsifier::Odl { .. });
        let rest = |norm: &Option<LayerNorm>, keeps: bool| {
            norm.as_ref().map(|norm| if keeps { norm.map(|parameter| parameter.detach().copy()) } else { norm.bare() })
        };
        let norm = self.norm1.as_ref().filter(|_| !keeps1);
        Block {
            norm1: rest(&self.norm1, keeps1),
            attention: match &self.attention {
                Attention::Mssa(mssa) => Attention::Mssa(mssa.folded(norm, kind)),
                Attention::Mhsa(mhsa) => Attention::Mhsa(mhsa.fold(norm, kind)),
            },
            norm2: rest(&self.norm2, keeps2),
            sparsifier: match &self.sparsifier {
                Sparsifier::Ista(ista) => Sparsifier::Ista(ista.fold(self.norm2.as_ref(), kind)),
                Sparsifier::Mlp(mlp) => Sparsifier::Mlp(mlp.fold(self.norm2.as_ref(), kind)),
                Sparsifier::Odl { odl, residual } => {
                    Sparsifier::Odl { odl: odl.map(|parameter| frozen(parameter, kind)), residual: *residual }
                }
            },
            base: self.base,
            drop: DropPath::default(),
        }
    }
}

impl Mssa {
    fn folded(&self, norm: Option<&LayerNorm>, kind: Kind) -> Mssa {
        let projection = Linear { weight: self.u.shallow_clone(), bias: None }.after(norm, kind);
        let output = match (&self.output, self.config.output_map) {
            (Some(map), _) => Some(map.after(None, kind)),
            (None, OutputMap::Free) => None,
            (None, OutputMap::Tied) => {
                Some(Linear { weight: self.u.tr() * self.config.gamma, bias: None }.after(None, kind))
            }
        };
        Mssa { u: projection.weight, shift: projection.bias, output, config: self.config.clone() }
    }
}

impl PatchEmbedding {
    fn folded(&self, kind: Kind) -> PatchEmbedding {
        let (norm, linear) = self.channels_first();
        let mut folded = self.map(|parameter| parameter.detach().copy());
        folded.kept = Some(linear.after(Some(&norm), kind));
        folded.class_token = frozen(&self.class_token, kind);
        folded.positions = frozen(&self.positions, kind);
        folded
    }
}

/// A copy that no later change of the parameter reaches, in `kind`.
fn frozen(parameter: &Tensor, kind: Kind) -> Tensor {
    parameter.detach().to_kind(kind).contiguous().copy()
}
