//! ViT in timm's layout, the comparator: pre-norm multi-head attention and a GELU MLP, parameters named as timm's
//! `VisionTransformer`.
//!
//! What CRATE changes is visible by comparison: three projections and not one, an MLP and not a sparse-coding step, a
//! residual connection around both. It shows a probe the places that have a counterpart in CRATE: its keys at
//! [`Site::Uz`], the MLP's hidden activations at [`Site::MlpHidden`].

use serde::{Deserialize, Serialize};
use tch::Tensor;
use tch::nn::{Init, Path};

use crate::config::{ModelConfig, Pool, VisionModel, check_sizes};
use crate::drop::{DropPath, check_rates, dropout};
use crate::embed::{ConvolutionEmbedding, Grid, PatchConvolution};
use crate::layers::{LayerNorm, Linear, LinearInit, uniform};
use crate::mhsa::Mhsa;
use crate::mlp::Mlp;
use crate::probe::{Probe, Site, show};
use crate::recompute::{Layer, through};
use crate::{Error, Result};

const LAYER_NORM_EPS: f64 = 1e-6;

/// Shape of a ViT. The defaults are ViT-T on 224-pixel images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VitConfig {
    /// Image size `[height, width]`. Default: 224 x 224.
    pub image: [i64; 2],
    /// Patch size `[height, width]`. Default: 16 x 16.
    pub patch: [i64; 2],
    /// Image channels. Default: 3.
    pub channels: i64,
    /// Number of classes. Default: 1000.
    pub classes: i64,
    /// Token dimension. Default: 192.
    pub d: i64,
    /// Layers. Default: 12.
    pub depth: i64,
    /// Attention heads. Default: 3.
    pub heads: i64,
    /// Hidden dimension of the MLP. Default: 4 d.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hidden: Option<i64>,
    /// What the head reads; the mean is over the patches alone, normalised after pooling (timm's `avg`). Default: token.
    pub pool: Pool,
    /// Stochastic depth in training: how often the last layer leaves out each of its steps; earlier layers do it less, the first never. Default: 0.
    pub drop_path: f64,
    /// Dropout of the embedding in training. Default: 0.
    pub dropout: f64,
}

impl Default for VitConfig {
    fn default() -> Self {
        VitConfig {
            image: [224, 224],
            patch: [16, 16],
            channels: 3,
            classes: 1000,
            d: 192,
            depth: 12,
            heads: 3,
            hidden: None,
            pool: Pool::Token,
            drop_path: 0.0,
            dropout: 0.0,
        }
    }
}

impl VitConfig {
    /// ViT-T: d 192, 3 heads.
    pub fn tiny() -> Self {
        Self::default()
    }

    /// ViT-S: d 384, 6 heads.
    pub fn small() -> Self {
        VitConfig { d: 384, heads: 6, ..Self::default() }
    }

    /// ViT-B: d 768, 12 heads.
    pub fn base() -> Self {
        VitConfig { d: 768, heads: 12, ..Self::default() }
    }

    /// The grid of patches.
    pub fn grid(&self) -> Grid {
        Grid { image: self.image, patch: self.patch, channels: self.channels }
    }

    /// Hidden dimension of the MLP.
    pub fn hidden(&self) -> i64 {
        self.hidden.unwrap_or(4 * self.d)
    }

    /// Layer `layer` under `path`.
    fn block(&self, path: &Path<'_>, layer: i64) -> VitBlock {
        let block = VitBlock::new(path, self.d, self.heads, self.hidden(), LAYER_NORM_EPS, LinearInit::Timm);
        VitBlock { drop: DropPath::new(self.drop_path, layer, self.depth), ..block }
    }

    /// Refuses values that describe no model.
    pub fn check(&self) -> Result<()> {
        self.grid().check()?;
        check_sizes(self.d, self.depth, self.heads, self.classes)?;
        if self.d % self.heads != 0 {
            return Err(Error::Config(format!("d = {} is not a multiple of heads = {}", self.d, self.heads)));
        }
        if !(1..=1 << 20).contains(&self.hidden()) {
            return Err(Error::Config(format!("hidden = {} must be between 1 and a million", self.hidden())));
        }
        check_rates(self.drop_path, self.dropout)
    }
}

/// One layer; parameters `norm1.*`, `attn.qkv.*`, `attn.proj.*`, `norm2.*`, `mlp.*`.
#[derive(Debug)]
pub struct VitBlock {
    norm1: LayerNorm,
    attention: Mhsa,
    norm2: LayerNorm,
    mlp: Mlp,
    drop: DropPath,
}

impl VitBlock {
    /// A layer under `path` on tokens of dimension `d`, its LayerNorms with `eps`.
    pub fn new(path: &Path<'_>, d: i64, heads: i64, hidden: i64, eps: f64, init: LinearInit) -> Self {
        let qkv = Linear::new(&(path / "attn" / "qkv"), d, 3 * d, true, init);
        let proj = Linear::new(&(path / "attn" / "proj"), d, d, true, init);
        VitBlock {
            norm1: LayerNorm::new(&(path / "norm1"), d, eps),
            attention: Mhsa::new(qkv, proj, heads, 1.0 / ((d / heads) as f64).sqrt()),
            norm2: LayerNorm::new(&(path / "norm2"), d, eps),
            mlp: Mlp::new(&(path / "mlp"), d, hidden, init),
            drop: DropPath::default(),
        }
    }

    fn forward(&self, z: &Tensor, layer: usize, probe: &mut dyn Probe) -> Tensor {
        let h = self.norm1.forward(z);
        show(probe, layer, Site::AttentionInput, &h);
        let half = z + self.drop.apply(self.attention.forward(&h, layer, probe));
        show(probe, layer, Site::ZHalf, &half);
        let h = self.norm2.forward(&half);
        show(probe, layer, Site::IstaInput, &h);
        let out = half + self.drop.apply(self.mlp.forward(&h, layer, probe));
        show(probe, layer, Site::ZOut, &out);
        out
    }
}

impl Layer for VitBlock {
    fn share(&self) -> Self {
        let [norm1, norm2] = [&self.norm1, &self.norm2].map(|n| n.map(Tensor::shallow_clone));
        VitBlock { norm1, attention: self.attention.share(), norm2, mlp: self.mlp.share(), drop: self.drop }
    }

    fn parameters(&self) -> Vec<&Tensor> {
        let norms = [&self.norm1, &self.norm2].into_iter().flat_map(LayerNorm::parameters);
        norms.chain(self.attention.parameters()).chain(self.mlp.parameters()).collect()
    }

    fn compute(&self, z: &Tensor, layer: usize, probe: &mut dyn Probe) -> Tensor {
        self.forward(z, layer, probe)
    }
}

/// ViT for image classification.
#[derive(Debug)]
pub struct Vit {
    embedding: ConvolutionEmbedding,
    blocks: Vec<VitBlock>,
    norm: LayerNorm,
    head: Linear,
    config: VitConfig,
    recompute: bool,
    training: bool,
}

impl Vit {
    /// A model under `root`, with freshly drawn parameters (seed them with `tch::manual_seed`).
    pub fn new(root: &Path<'_>, config: &VitConfig) -> Result<Self> {
        config.check()?;
        let (d, grid) = (config.d, config.grid());
        let bound = uniform(1.0 / (grid.patch_dim() as f64).sqrt());
        let normal = |stdev| Init::Randn { mean: 0.0, stdev };
        let norm = match config.pool {
            Pool::Token => "norm",
            Pool::Mean => "fc_norm",
        };
        Ok(Vit {
            embedding: ConvolutionEmbedding {
                patches: PatchConvolution::new(&(root / "patch_embed" / "proj"), &grid, d, bound, bound),
                class_token: root.var("cls_token", &[1, 1, d], normal(1e-6)),
                positions: root.var("pos_embed", &[1, grid.patches() + 1, d], normal(0.02)),
                grid,
            },
            blocks: (0..config.depth).map(|l| config.block(&(root / "blocks" / l), l)).collect(),
            norm: LayerNorm::new(&(root / norm), d, LAYER_NORM_EPS),
            head: Linear::new(&(root / "head"), d, config.classes, true, LinearInit::Timm),
            config: config.clone(),
            recompute: false,
            training: false,
        })
    }

    fn embed(&self, images: &Tensor) -> Result<Tensor> {
        Ok(dropout(self.embedding.forward(images)?, self.config.dropout, self.training))
    }
}

impl VisionModel for Vit {
    fn config(&self) -> ModelConfig {
        ModelConfig::Vit(self.config.clone())
    }

    fn tokens(&self, images: &Tensor, probe: &mut dyn Probe) -> Result<Tensor> {
        let z = self.embed(images)?;
        show(probe, 0, Site::Embed, &z);
        Ok(through(&self.blocks, z, self.recompute, probe))
    }

    fn features(&self, images: &Tensor, probe: &mut dyn Probe) -> Result<Tensor> {
        let z = self.tokens(images, probe)?;
        let pooled = match self.config.pool {
            Pool::Token => z.select(1, 0),
            Pool::Mean => z.narrow(1, 1, z.size()[1] - 1).mean_dim(1, false, None::<tch::Kind>),
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
        self.blocks.iter_mut().for_each(|block| block.drop.training = on);
    }
}
