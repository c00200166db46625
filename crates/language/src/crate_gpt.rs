//! CRATE as a language model: nanoGPT's frame around white-box layers (the book's CRATE-GPT2, pull request 13 of the official code; CRATE-LM,
//! arXiv 2410.16443).
//!
//! ```text
//! Z' = Z + CMSSA(LN(Z))
//! Z+ = ISTA(LN(Z'))              ista            a complete dictionary; the code are the tokens
//! Z+ = D A_2(LN(Z'))             odl             CRATE-LM: four times as many atoms, two steps, D itself leads back, no residual connection
//! Z+ = Z' + D_hat A_2(LN(Z'))    odl_decoupled   CRATE-alpha: a dictionary of its own leads back, with a residual connection
//! ```
//!
//! with [causal subspace attention](crate::subspace), [`Ista`](whitebox_model::ista), [`Odl`](whitebox_model::odl). Dictionaries are drawn from the Kaiming
//! uniform distribution as everywhere in CRATE, all other matrices as in nanoGPT.
//!
//! Departures: the pull request has no LayerNorm before the head (`final_norm = false` is its form), CRATE-LM and this default have. The released head
//! predicts words that only pad the vocabulary from 50,257 to 50,304, this one never does.

use serde::{Deserialize, Serialize};
use tch::Tensor;
use tch::nn::Path;
use whitebox_model::Result;
use whitebox_model::block::LAYER_NORM_EPS;
use whitebox_model::config::check_between;
use whitebox_model::ista::{Ista, IstaConfig};
use whitebox_model::layers::{LayerNorm, Linear};
use whitebox_model::odl::{Odl, OdlConfig};
use whitebox_model::probe::{Probe, Site, show};

use crate::attention::Keys;
use crate::cache::LayerCache;
use crate::config::LanguageConfig;
use crate::decoder::{CausalLayer, Decoder, Frame, MATRIX, check_steps};
use crate::subspace::SubspaceAttention;

/// The second step of a layer; see the module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sparsify {
    /// One proximal step over a complete dictionary.
    #[default]
    Ista,
    /// Steps over an overcomplete dictionary, which leads back as well.
    Odl,
    /// The same with a dictionary of its own to lead back.
    OdlDecoupled,
}

/// Shape and choices of a CRATE-GPT. The defaults are the base size.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CrateGptConfig {
    /// Token dimension d. Default: 768.
    pub d: i64,
    /// Layers L. Default: 12.
    pub depth: i64,
    /// Subspaces K, which divide d. Default: 12.
    pub heads: i64,
    /// The most tokens read at once. Default: 1024.
    pub context: i64,
    /// Words known. Default: 50257, GPT-2's.
    pub vocabulary: i64,
    /// The table of words is padded to a multiple of this; what pads it is never predicted. Default: 64.
    pub pad_vocabulary_to: i64,
    /// Step size of the sparse coding. Default: 0.1.
    pub eta: f64,
    /// Sparsity weight of the sparse coding. Default: 0.1.
    pub lambda: f64,
    /// The second step. Default: ista.
    pub sparsify: Sparsify,
    /// Atoms for each dimension of an overcomplete dictionary. Default: 4.
    pub overcomplete: i64,
    /// Proximal steps over an overcomplete dictionary, from code zero. Default: 2.
    pub steps: i64,
    /// Whether an overcomplete second step is added to the tokens. Default: as released, with `odl_decoupled` alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub residual: Option<bool>,
    /// Whether there is a LayerNorm before the head. Default: true.
    pub final_norm: bool,
    /// Whether the head is the table of words. Default: true.
    pub tied_head: bool,
    /// Dropout of the embedding, the attention maps and what attention adds, in training. Default: 0.
    pub dropout: f64,
}

impl Default for CrateGptConfig {
    fn default() -> Self {
        CrateGptConfig {
            d: 768,
            depth: 12,
            heads: 12,
            context: 1024,
            vocabulary: 50257,
            pad_vocabulary_to: 64,
            eta: 0.1,
            lambda: 0.1,
            sparsify: Sparsify::Ista,
            overcomplete: 4,
            steps: 2,
            residual: None,
            final_norm: true,
            tied_head: true,
            dropout: 0.0,
        }
    }
}

impl CrateGptConfig {
    /// A size of the released form.
    pub fn of_size(depth: i64, heads: i64, d: i64) -> Self {
        CrateGptConfig { d, depth, heads, ..Self::default() }
    }

    /// A size of CRATE-LM.
    pub fn lm(depth: i64, heads: i64, d: i64) -> Self {
        CrateGptConfig { sparsify: Sparsify::Odl, ..Self::of_size(depth, heads, d) }
    }

    /// Whether the second step is added to the tokens.
    pub fn adds_second_step(&self) -> bool {
        match self.sparsify {
            Sparsify::Ista => false,
            Sparsify::Odl => self.residual.unwrap_or(false),
            Sparsify::OdlDecoupled => self.residual.unwrap_or(true),
        }
    }

    /// Refuses values that describe no model.
    pub fn check(&self) -> Result<()> {
        self.frame().check()?;
        check_between("overcomplete", self.overcomplete, 64)?;
        check_between("steps", self.steps, 64)?;
        if self.sparsify == Sparsify::Ista && self.residual == Some(true) {
            return Err(whitebox_model::Error::Config(
                "residual = true has no meaning with sparsify = \"ista\", whose code are the tokens; choose odl or odl_decoupled"
                    .into(),
            ));
        }
        check_steps(self.eta, self.lambda)
    }

    pub(crate) fn frame(&self) -> Frame {
        Frame {
            d: self.d,
            depth: self.depth,
            heads: self.heads,
            context: self.context,
            vocabulary: self.vocabulary,
            pad_vocabulary_to: self.pad_vocabulary_to,
            tied_head: self.tied_head,
            dropout: self.dropout,
            final_norm: self.final_norm.then_some(LAYER_NORM_EPS),
        }
    }
}

#[derive(Debug)]
enum Second {
    Ista(Ista),
    Odl { odl: Odl, residual: bool },
}

/// One layer; parameters `prenorm_1.*`, `attn.c_attn.weight`, `attn.c_proj.*`, `prenorm_2.*`, and `ista.weight` or `ista.{D,D1}`.
#[derive(Debug)]
pub struct CrateGptLayer {
    norm1: LayerNorm,
    /// The compression step.
    pub attention: SubspaceAttention,
    norm2: LayerNorm,
    second: Second,
    dropout: f64,
}

/// CRATE as a language model.
pub type CrateGpt = Decoder<CrateGptLayer>;

impl CrateGpt {
    /// A model under `root`, with freshly drawn parameters (seed them with `tch::manual_seed`).
    pub fn new(root: &Path<'_>, config: &CrateGptConfig) -> Result<Self> {
        Decoder::framed(root, LanguageConfig::CrateGpt(config.clone()), "ln_f", |path| CrateGptLayer::new(path, config))
    }
}

impl CrateGptLayer {
    fn new(path: &Path<'_>, config: &CrateGptConfig) -> Self {
        let CrateGptConfig { d, heads, eta, lambda, overcomplete, steps, dropout, .. } = *config;
        let attention = path / "attn";
        let ista = path / "ista";
        let second = match config.sparsify {
            Sparsify::Ista => Second::Ista(Ista::new(&ista, &IstaConfig { d, eta, lambda, ..IstaConfig::default() })),
            Sparsify::Odl | Sparsify::OdlDecoupled => {
                let decoupled = config.sparsify == Sparsify::OdlDecoupled;
                let odl = Odl::new(&ista, &OdlConfig { d, overcomplete, decoupled, steps, eta, lambda });
                Second::Odl { odl, residual: config.adds_second_step() }
            }
        };
        CrateGptLayer {
            norm1: LayerNorm::new(&(path / "prenorm_1"), d, LAYER_NORM_EPS),
            attention: SubspaceAttention {
                u: Linear::new(&(&attention / "c_attn"), d, d, false, MATRIX),
                output: Linear::new(&(&attention / "c_proj"), d, d, true, config.frame().output_init()),
                heads,
                dropout,
            },
            norm2: LayerNorm::new(&(path / "prenorm_2"), d, LAYER_NORM_EPS),
            second,
            dropout,
        }
    }
}

impl CausalLayer for CrateGptLayer {
    fn share(&self) -> Self {
        CrateGptLayer {
            norm1: self.norm1.map(Tensor::shallow_clone),
            attention: self.attention.share(),
            norm2: self.norm2.map(Tensor::shallow_clone),
            second: match &self.second {
                Second::Ista(ista) => Second::Ista(ista.share()),
                Second::Odl { odl, residual } => Second::Odl { odl: odl.share(), residual: *residual },
            },
            dropout: self.dropout,
        }
    }

    fn parameters(&self) -> Vec<&Tensor> {
        let second: Vec<&Tensor> = match &self.second {
            Second::Ista(ista) => vec![&ista.dictionary],
            Second::Odl { odl, .. } => odl.parameters().collect(),
        };
        let norms = self.norm1.parameters().chain(self.norm2.parameters());
        norms.chain(self.attention.parameters()).chain(second).collect()
    }

    fn forward(
        &self,
        z: &Tensor,
        past: Option<&mut LayerCache>,
        train: bool,
        layer: usize,
        probe: &mut dyn Probe,
    ) -> Tensor {
        let h = self.norm1.forward(z);
        show(probe, layer, Site::AttentionInput, &h);
        let step = self.attention.forward(&h, &Keys::Causal, past, train, layer, probe);
        let half = z + step.dropout(self.dropout, train);
        show(probe, layer, Site::ZHalf, &half);
        let h = self.norm2.forward(&half);
        show(probe, layer, Site::IstaInput, &h);
        let out = match &self.second {
            Second::Ista(ista) => return ista.forward(&h, layer, probe),
            Second::Odl { odl, residual: false } => odl.forward(&h, layer, probe),
            Second::Odl { odl, residual: true } => half + odl.forward(&h, layer, probe),
        };
        show(probe, layer, Site::ZOut, &out);
        out
    }
}
