//! CRATE for images: embedding, L white-box layers, pooling, linear head.
//!
//! As released: no LayerNorm between the last layer and the pooling, the head is `LN -> Linear`, mean pooling includes
//! the class token. Parameter names are those of the official code, so that its checkpoints load name by name.
//!
//! Images become tokens as in the classifiers' released code or as in the MAE's ([`Embedding`]).
//!
//! For the paper's ablations either step of a layer can be exchanged ([`Attend`], [`Sparsify`]). A multi-head attention's parameters are then
//! `0.fn.qkv.*` of three times the size and `0.fn.to_out.0.*`, an MLP's `1.fn.fc1.*` and `1.fn.fc2.*`.

use serde::{Deserialize, Serialize};
use tch::Tensor;
use tch::nn::{Init, Path};

use crate::block::{Attention, Block, LAYER_NORM_EPS, ResidualBase, Sparsifier};
use crate::config::{ModelConfig, Pool, VisionModel, check_heads, check_sizes};
use crate::drop::{DropPath, check_rates, dropout};
use crate::embed::{ConvolutionEmbedding, Grid, PatchConvolution, PatchEmbedding, sin_cos_positions};
use crate::ista::{Ista, IstaConfig, IstaForm, Step};
use crate::layers::{LayerNorm, Linear, LinearInit};
use crate::mhsa::Mhsa;
use crate::mlp::Mlp;
use crate::mssa::{Mssa, MssaConfig, OutputMap, Scaling};
use crate::probe::{Probe, Site, show, wants_any};
use crate::recompute::through;
use crate::{Error, Result};

/// How images become tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Embedding {
    /// A linear map of patches between two LayerNorms, as in the released classifier.
    #[default]
    Norms,
    /// A convolution with a bias and no LayerNorm, as in the encoder of the released CRATE-MAE, whose LayerNorm after the last layer has epsilon 1e-6; this is
    /// the head's here. Positions begin as MAE's sines and cosines.
    Convolution,
}

/// The compression step of a layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Attend {
    /// Subspace attention, the paper's: one projection.
    #[default]
    Mssa,
    /// A transformer's, in the paper's ablation: projections of its own for queries, keys and values, with biases as in ViT. It has an output map always.
    Mhsa,
}

/// The sparsifying step of a layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sparsify {
    /// ISTA, NeurIPS eq. 17.
    #[default]
    Ista,
    /// MM-prox, NeurIPS eq. 92.
    MmProx,
    /// A transformer's GELU MLP with a residual connection, as in ViT.
    Mlp,
}

/// Epsilon of the LayerNorm after the last layer of a CRATE-MAE's encoder.
const ENCODER_NORM_EPS: f64 = 1e-6;

/// Hidden activations of an MLP in ISTA's place, for each dimension of a token.
pub(crate) const MLP_RATIO: i64 = 4;

/// Shape and choices of a CRATE. The defaults are CRATE-T on 224-pixel images, as released.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CrateConfig {
    /// Image size `[height, width]`. Default: 224 x 224.
    pub image: [i64; 2],
    /// Patch size `[height, width]`. Default: 16 x 16.
    pub patch: [i64; 2],
    /// Image channels. Default: 3.
    pub channels: i64,
    /// Number of classes. Default: 1000.
    pub classes: i64,
    /// Token dimension d. Default: 384.
    pub d: i64,
    /// Layers L. Default: 12.
    pub depth: i64,
    /// Subspaces K. Default: 6.
    pub heads: i64,
    /// Dimension p of each subspace. Default: d / K.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head_dim: Option<i64>,
    /// What the head reads. Default: the class token.
    pub pool: Pool,
    /// How images become tokens. Default: norms.
    pub embedding: Embedding,
    /// Step size of ISTA. Default: 0.1.
    pub eta: f64,
    /// Sparsity weight of ISTA. Default: 0.1.
    pub lambda: f64,
    /// What the attention step is added to. Default: raw (variant B).
    pub residual_base: ResidualBase,
    /// Output map of the attention. Default: free.
    pub output_map: OutputMap,
    /// Scaling of the attention scores. Default: inverse_sqrt_p.
    pub scaling: Scaling,
    /// Factor of a tied output map. Default: 1.
    pub gamma: f64,
    /// How ISTA is computed; changes no value. Default: auto.
    pub ista_form: IstaForm,
    /// The compression step. Default: mssa.
    pub attention: Attend,
    /// The sparsifying step. Default: ista.
    pub sparsify: Sparsify,
    /// `alpha = d / (N eps^2)` of MM-prox, which the paper gives no value of; without effect on another step. Default: 1.
    pub mm_alpha: f64,
    /// Stochastic depth in training: how often the last layer leaves out its attention step (an MLP too, but neither ISTA nor MM-prox, which are added to
    /// nothing); earlier layers do it less, the first never. Default: 0.
    pub drop_path: f64,
    /// Dropout of the embedding in training. Default: 0.
    pub dropout: f64,
}

impl Default for CrateConfig {
    fn default() -> Self {
        CrateConfig {
            image: [224, 224],
            patch: [16, 16],
            channels: 3,
            classes: 1000,
            d: 384,
            depth: 12,
            heads: 6,
            head_dim: None,
            pool: Pool::Token,
            embedding: Embedding::Norms,
            eta: 0.1,
            lambda: 0.1,
            residual_base: ResidualBase::Raw,
            output_map: OutputMap::Free,
            scaling: Scaling::InverseSqrtP,
            gamma: 1.0,
            ista_form: IstaForm::Auto,
            attention: Attend::Mssa,
            sparsify: Sparsify::Ista,
            mm_alpha: 1.0,
            drop_path: 0.0,
            dropout: 0.0,
        }
    }
}

impl CrateConfig {
    /// CRATE-T: L 12, d 384, K 6.
    pub fn tiny() -> Self {
        Self::default()
    }

    /// CRATE-S: L 12, d 576, K 12.
    pub fn small() -> Self {
        CrateConfig { d: 576, heads: 12, ..Self::default() }
    }

    /// CRATE-B: L 12, d 768, K 12.
    pub fn base() -> Self {
        CrateConfig { d: 768, heads: 12, ..Self::default() }
    }

    /// CRATE-L: L 24, d 1024, K 16.
    pub fn large() -> Self {
        CrateConfig { d: 1024, heads: 16, depth: 24, ..Self::default() }
    }

    /// The grid of patches.
    pub fn grid(&self) -> Grid {
        Grid { image: self.image, patch: self.patch, channels: self.channels }
    }

    /// The dimension p of each subspace.
    pub fn p(&self) -> i64 {
        self.head_dim.unwrap_or(self.d / self.heads.max(1))
    }

    /// Refuses values that describe no model.
    pub fn check(&self) -> Result<()> {
        self.grid().check()?;
        check_sizes(self.d, self.depth, self.heads, self.classes)?;
        check_heads(self.d, self.heads, self.head_dim)?;
        check_rates(self.drop_path, self.dropout)?;
        if ![self.eta, self.lambda, self.gamma].iter().all(|x| x.abs() <= 1e6) {
            return Err(Error::Config(format!(
                "eta = {}, lambda = {} and gamma = {} must be numbers between -1e6 and 1e6",
                self.eta, self.lambda, self.gamma
            )));
        }
        if !(1e-6..=1e6).contains(&self.mm_alpha) {
            return Err(Error::Config(format!("mm_alpha = {} must be between 1e-6 and 1e6", self.mm_alpha)));
        }
        if self.embedding == Embedding::Convolution {
            sin_cos_positions([1, 1], self.d).map(drop)?;
        }
        if self.attention == Attend::Mhsa && self.output_map == OutputMap::Tied {
            let problem =
                "attention = \"mhsa\" has no single U for output_map = \"tied\" to take: leave output_map at \"free\"";
            return Err(Error::Config(problem.into()));
        }
        Ok(())
    }

    pub(crate) fn mssa(&self) -> MssaConfig {
        MssaConfig {
            d: self.d,
            heads: self.heads,
            head_dim: self.p(),
            output_map: self.output_map,
            scaling: self.scaling,
            gamma: self.gamma,
        }
    }

    fn ista(&self) -> IstaConfig {
        let step = if self.sparsify == Sparsify::MmProx { Step::MmProx } else { Step::Ista };
        let CrateConfig { d, eta, lambda, mm_alpha, ista_form: form, .. } = *self;
        IstaConfig { d, step, eta, lambda, mm_alpha, form }
    }

    /// Layer `layer` under `path`.
    fn block(&self, path: &Path<'_>, layer: i64) -> Block {
        let mssa = self.mssa();
        let (d, init, fn0, fn1) = (self.d, LinearInit::PyTorch, path / "0" / "fn", path / "1" / "fn");
        let attention = match self.attention {
            Attend::Mssa => Attention::Mssa(Mssa::new(&fn0, &mssa)),
            Attend::Mhsa => {
                let inner = mssa.heads * mssa.head_dim;
                let qkv = Linear::new(&(&fn0 / "qkv"), d, 3 * inner, true, init);
                let output = Linear::new(&(&fn0 / "to_out" / "0"), inner, d, true, init);
                Attention::Mhsa(Mhsa::new(qkv, output, mssa.heads, mssa.scale()))
            }
        };
        let sparsifier = match self.sparsify {
            Sparsify::Ista | Sparsify::MmProx => Sparsifier::Ista(Ista::new(&fn1, &self.ista())),
            Sparsify::Mlp => Sparsifier::Mlp(Mlp::new(&fn1, d, MLP_RATIO * d, init)),
        };
        let drop = DropPath::new(self.drop_path, layer, self.depth);
        let block = Block::of_steps(path, d, attention, sparsifier, self.residual_base, LAYER_NORM_EPS);
        Block { drop, ..block }
    }
}

/// The embedding of a CRATE.
#[derive(Debug)]
pub(crate) enum Tokens {
    Norms(PatchEmbedding),
    Convolution(ConvolutionEmbedding),
}

impl Tokens {
    fn new(root: &Path<'_>, config: &CrateConfig) -> Result<Self> {
        let (grid, d) = (config.grid(), config.d);
        if config.embedding == Embedding::Norms {
            return Ok(Tokens::Norms(PatchEmbedding::new(root, grid, d)));
        }
        let patches = PatchConvolution::xavier(&(root / "patch_embed" / "proj"), &grid, d);
        let class_token = root.var("cls_token", &[1, 1, d], Init::Randn { mean: 0.0, stdev: 0.02 });
        let positions = root.var_copy("pos_embedding", &sin_cos_positions(grid.shape(), d)?);
        Ok(Tokens::Convolution(ConvolutionEmbedding { patches, class_token, positions, grid }))
    }

    fn forward(&self, images: &Tensor) -> Result<Tensor> {
        match self {
            Tokens::Norms(embedding) => embedding.forward(images),
            Tokens::Convolution(embedding) => embedding.forward(images),
        }
    }
}

/// CRATE for image classification.
#[derive(Debug)]
pub struct Crate {
    pub(crate) embedding: Tokens,
    /// The white-box layers, first to last.
    pub layers: Vec<Block>,
    pub(crate) norm: LayerNorm,
    pub(crate) head: Linear,
    pub(crate) config: CrateConfig,
    pub(crate) recompute: bool,
    pub(crate) training: bool,
}

impl Crate {
    /// A model under `root`, with freshly drawn parameters (seed them with `tch::manual_seed`).
    pub fn new(root: &Path<'_>, config: &CrateConfig) -> Result<Self> {
        config.check()?;
        let path = root / "transformer" / "layers";
        let eps = if config.embedding == Embedding::Norms { LAYER_NORM_EPS } else { ENCODER_NORM_EPS };
        Ok(Crate {
            embedding: Tokens::new(root, config)?,
            layers: (0..config.depth).map(|l| config.block(&(&path / l), l)).collect(),
            norm: LayerNorm::new(&(root / "mlp_head" / "0"), config.d, eps),
            head: Linear::new(&(root / "mlp_head" / "1"), config.d, config.classes, true, LinearInit::PyTorch),
            config: config.clone(),
            recompute: false,
            training: false,
        })
    }
}

impl Crate {
    /// Tokens that layer `end` reads.
    fn tokens_before(&self, end: usize, images: &Tensor, probe: &mut dyn Probe) -> Result<Tensor> {
        let z = dropout(self.embedding.forward(images)?, self.config.dropout, self.training);
        show(probe, 0, Site::Embed, &z);
        Ok(through(&self.layers[..end], z, self.recompute, probe))
    }
}

impl VisionModel for Crate {
    fn config(&self) -> ModelConfig {
        ModelConfig::Crate(self.config.clone())
    }

    fn tokens(&self, images: &Tensor, probe: &mut dyn Probe) -> Result<Tensor> {
        self.tokens_before(self.layers.len(), images, probe)
    }

    fn features(&self, images: &Tensor, probe: &mut dyn Probe) -> Result<Tensor> {
        let last = self.layers.len() - 1;
        let pooled = match self.config.pool {
            Pool::Token if !wants_any(probe, last) => {
                self.layers[last].forward_first(&self.tokens_before(last, images, probe)?).squeeze_dim(1)
            }
            Pool::Token => self.tokens(images, probe)?.select(1, 0),
            Pool::Mean => self.tokens(images, probe)?.mean_dim(1, false, None::<tch::Kind>),
        };
        Ok(self.norm.forward(&pooled))
    }

    fn forward(&self, images: &Tensor, probe: &mut dyn Probe) -> Result<Tensor> {
        Ok(self.head.forward(&self.features(images, probe)?))
    }

    fn recompute_layers(&mut self, on: bool) {
        self.recompute = on;
    }

    fn set_training(&mut self, on: bool) {
        self.training = on;
        self.layers.iter_mut().for_each(|layer| layer.drop.training = on);
    }

    fn fold(&self, kind: tch::Kind) -> Option<Box<dyn VisionModel>> {
        Some(Box::new(self.folded(kind)))
    }
}
