//! CRATE as a masked encoder of texts: RoBERTa's embeddings, white-box layers, BERT's pooler and head (Hugging Face's pull request 27759, not merged).
//!
//! ```text
//! Z' = Z + MSSA(LN(Z))        Z+ = ISTA(LN(Z'))
//! ```
//!
//! The same layer as CRATE's for images, but for the attention's output map, which has no bias here, and padding, which attention passes over. Dictionaries are
//! drawn from the Kaiming uniform distribution as everywhere in CRATE, all else from `N(0, 0.02^2)`.
//!
//! Departures: positions count from 0 where RoBERTa's begin at 2 (`position_offset`); the names of the pull request's parameters were not at hand, so those
//! here are ours: `crate.embeddings.*`, `crate.encoder.layer.N.{norm_1,attention.qkv,attention.dense,norm_2,ista}.*`, `crate.pooler.dense.*`,
//! `cls.predictions.*`.

use serde::{Deserialize, Serialize};
use tch::Tensor;
use tch::nn::Path;
use whitebox_model::Result;
use whitebox_model::ista::{Ista, IstaConfig};
use whitebox_model::layers::{LayerNorm, Linear};
use whitebox_model::probe::{Probe, Site, show};

use crate::attention::Keys;
use crate::config::MaskedConfig;
use crate::decoder::{MATRIX, check_steps};
use crate::encoder::{Body, Encoder, EncoderLayer};
use crate::subspace::SubspaceAttention;

/// Shape and choices of a CRATE-BERT. The defaults are the base size, 60.3 million parameters without pooler and head.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CrateBertConfig {
    /// Token dimension d. Default: 768.
    pub d: i64,
    /// Layers L. Default: 12.
    pub depth: i64,
    /// Subspaces K, which divide d. Default: 12.
    pub heads: i64,
    /// The most tokens read at once. Default: 512.
    pub context: i64,
    /// Words known. Default: 50265, RoBERTa's.
    pub vocabulary: i64,
    /// Kinds of tokens. Default: 2.
    pub token_types: i64,
    /// The row of the table of positions that the first token has. Default: 0.
    pub position_offset: i64,
    /// Step size of ISTA. Default: 0.1.
    pub eta: f64,
    /// Sparsity weight of ISTA. Default: 0.1.
    pub lambda: f64,
    /// LayerNorms' epsilon. Default: 1e-12.
    pub norm_eps: f64,
    /// Whether there is a pooler. Default: true.
    pub pooler: bool,
    /// Whether there is a head for masked words. Default: true.
    pub mlm_head: bool,
    /// Dropout of the embedding, the attention maps and what attention adds, in training. Default: 0.1.
    pub dropout: f64,
}

impl Default for CrateBertConfig {
    fn default() -> Self {
        CrateBertConfig {
            d: 768,
            depth: 12,
            heads: 12,
            context: 512,
            vocabulary: 50265,
            token_types: 2,
            position_offset: 0,
            eta: 0.1,
            lambda: 0.1,
            norm_eps: 1e-12,
            pooler: true,
            mlm_head: true,
            dropout: 0.1,
        }
    }
}

impl CrateBertConfig {
    /// Refuses values that describe no model.
    pub fn check(&self) -> Result<()> {
        self.body().check()?;
        check_steps(self.eta, self.lambda)
    }

    pub(crate) fn body(&self) -> Body {
        Body {
            prefix: "crate",
            d: self.d,
            depth: self.depth,
            heads: self.heads,
            context: self.context,
            vocabulary: self.vocabulary,
            types: self.token_types,
            position_offset: self.position_offset,
            dropout: self.dropout,
            norm_eps: self.norm_eps,
            pooler: self.pooler,
            mlm_head: self.mlm_head,
        }
    }
}

/// One layer.
#[derive(Debug)]
pub struct CrateBertLayer {
    norm1: LayerNorm,
    /// The compression step.
    pub attention: SubspaceAttention,
    norm2: LayerNorm,
    /// The sparsifying step.
    pub ista: Ista,
    dropout: f64,
}

/// CRATE as a masked encoder.
pub type CrateBert = Encoder<CrateBertLayer>;

impl CrateBert {
    /// A model under `root`, with freshly drawn parameters (seed them with `tch::manual_seed`).
    pub fn new(root: &Path<'_>, config: &CrateBertConfig) -> Result<Self> {
        let CrateBertConfig { d, heads, eta, lambda, norm_eps, dropout, .. } = *config;
        Encoder::framed(root, MaskedConfig::CrateBert(config.clone()), |path| CrateBertLayer {
            norm1: LayerNorm::new(&(path / "norm_1"), d, norm_eps),
            attention: SubspaceAttention {
                u: Linear::new(&(path / "attention" / "qkv"), d, d, false, MATRIX),
                output: Linear::new(&(path / "attention" / "dense"), d, d, false, MATRIX),
                heads,
                dropout,
            },
            norm2: LayerNorm::new(&(path / "norm_2"), d, norm_eps),
            ista: Ista::new(&(path / "ista"), &IstaConfig { d, eta, lambda, ..IstaConfig::default() }),
            dropout,
        })
    }
}

impl EncoderLayer for CrateBertLayer {
    fn share(&self) -> Self {
        CrateBertLayer {
            norm1: self.norm1.map(Tensor::shallow_clone),
            attention: self.attention.share(),
            norm2: self.norm2.map(Tensor::shallow_clone),
            ista: self.ista.share(),
            dropout: self.dropout,
        }
    }

    fn parameters(&self) -> Vec<&Tensor> {
        let norms = self.norm1.parameters().chain(self.norm2.parameters());
        norms.chain(self.attention.parameters()).chain([&self.ista.dictionary]).collect()
    }

    fn forward(
        &self,
        z: &Tensor,
        padding: Option<&Tensor>,
        train: bool,
        layer: usize,
        probe: &mut dyn Probe,
    ) -> Tensor {
        let h = self.norm1.forward(z);
        show(probe, layer, Site::AttentionInput, &h);
        let step = self.attention.forward(&h, &Keys::All(padding), None, train, layer, probe);
        let half = z + step.dropout(self.dropout, train);
        show(probe, layer, Site::ZHalf, &half);
        let h = self.norm2.forward(&half);
        show(probe, layer, Site::IstaInput, &h);
        self.ista.forward(&h, layer, probe)
    }
}
