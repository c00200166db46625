//! ToST for images: a transformer whose attention is linear in the number of tokens (arXiv 2412.17810), in the frame of XCiT.
//!
//! ```text
//! layer             Z' = Z + gamma_1 o TSSA(LN(Z))            Z+ = Z' + gamma_2 o MLP(LN(Z'))
//! class attention   [c, Z] of layer L; h = LN([c, Z])         [c', Z'] = [c, Z] + gamma_1 o [MHSA(h)_c, h_Z]
//!                   h' = LN([c', Z'])                         [c+, Z+] = h' + [gamma_2 o MLP(h'_c), h'_Z]
//! ```
//!
//! Images become tokens by a stem (`stem.rs`); the class token joins after the last layer and reads the others in two layers of its own. There, as in the
//! released code, the patches' tokens go along: their own normalised values are added to them, and the second sum starts from normalised tokens, so that
//! they leave it doubled.
//!
//! Parameter names are the released code's. Stochastic depth rises from layer to layer as in the other models here; class attention has none.

use serde::{Deserialize, Serialize};
use tch::Tensor;
use tch::nn::{Init, Path};

use crate::config::{ModelConfig, VisionModel, check_sizes};
use crate::drop::{DropPath, check_rates, dropout};
use crate::embed::{Grid, with_class_token};
use crate::layers::{LayerNorm, Linear, LinearInit};
use crate::mhsa::Mhsa;
use crate::mlp::Mlp;
use crate::probe::{NoProbe, Probe, Site, show};
use crate::recompute::{Layer, through};
use crate::stem::{self, FEATURES, Stem, fourier_features};
use crate::tssa::Tssa;
use crate::{Error, Result};

const LAYER_NORM_EPS: f64 = 1e-6;

/// How images become tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StemKind {
    /// Convolutions of stride 2 with BatchNorm, log2(patch) of them, as released.
    #[default]
    Conv,
    /// One linear map of patches of any size, as in ViT.
    Patch,
}

/// Shape of a ToST. The defaults are ToST-T on 224-pixel images, as released.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TostConfig {
    /// Image size `[height, width]`. Default: 224 x 224.
    pub image: [i64; 2],
    /// Patch size `[height, width]`; for a stem of convolutions square and a power of two. Default: 16 x 16.
    pub patch: [i64; 2],
    /// Image channels. Default: 3.
    pub channels: i64,
    /// Number of classes. Default: 1000.
    pub classes: i64,
    /// Token dimension. Default: 192.
    pub d: i64,
    /// Layers of token statistics attention. Default: 12.
    pub depth: i64,
    /// Subspaces K, and heads of the class attention. Default: 4.
    pub heads: i64,
    /// Hidden dimension of the MLPs. Default: 4 d.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hidden: Option<i64>,
    /// How images become tokens. Default: conv.
    pub stem: StemKind,
    /// Whether projections have a bias. Default: true.
    pub qkv_bias: bool,
    /// Layers of class attention. Default: 2.
    pub class_layers: i64,
    /// What LayerScale's gammas start from: 1 for 12 layers, 1e-5 for 24. Default: 1.
    pub layer_scale: f64,
    /// Stochastic depth in training: how often the last layer leaves out each of its steps; earlier layers do it less, the first never. Published: 0 for T,
    /// 0.05 for S, 0.15 for M. Default: 0.
    pub drop_path: f64,
    /// Dropout of the embedding in training. Default: 0.
    pub dropout: f64,
}

impl Default for TostConfig {
    fn default() -> Self {
        TostConfig {
            image: [224, 224],
            patch: [16, 16],
            channels: 3,
            classes: 1000,
            d: 192,
            depth: 12,
            heads: 4,
            hidden: None,
            stem: StemKind::Conv,
            qkv_bias: true,
            class_layers: 2,
            layer_scale: 1.0,
            drop_path: 0.0,
            dropout: 0.0,
        }
    }
}

impl TostConfig {
    /// ToST-T: L 12, d 192, K 4.
    pub fn tiny() -> Self {
        Self::default()
    }

    /// ToST-S: L 12, d 384, K 8.
    pub fn small() -> Self {
        TostConfig { d: 384, heads: 8, ..Self::default() }
    }

    /// ToST-M: L 24, d 512, K 8, LayerScale from 1e-5. It has 71.5 million parameters; the paper's table says 68.1.
    pub fn medium() -> Self {
        TostConfig { d: 512, heads: 8, depth: 24, layer_scale: 1e-5, ..Self::default() }
    }

    /// The grid of patches.
    pub fn grid(&self) -> Grid {
        Grid { image: self.image, patch: self.patch, channels: self.channels }
    }

    /// Hidden dimension of the MLPs.
    pub fn hidden(&self) -> i64 {
        self.hidden.unwrap_or(4 * self.d)
    }

    /// Refuses values that describe no model.
    pub fn check(&self) -> Result<()> {
        self.grid().check()?;
        check_sizes(self.d, self.depth, self.heads, self.classes)?;
        check_rates(self.drop_path, self.dropout)?;
        if self.stem == StemKind::Conv {
            stem::check(&self.grid(), self.d)?;
        }
        if self.d % self.heads != 0 {
            return Err(Error::Config(format!("d = {} is not a multiple of heads = {}", self.d, self.heads)));
        }
        if !(1..=1 << 20).contains(&self.hidden()) {
            return Err(Error::Config(format!("hidden = {} must be between 1 and a million", self.hidden())));
        }
        if !(1..=64).contains(&self.class_layers) {
            return Err(Error::Config(format!("class_layers = {} must be between 1 and 64", self.class_layers)));
        }
        if self.layer_scale.abs() > 1e6 || self.layer_scale.is_nan() {
            return Err(Error::Config(format!("layer_scale = {} must be between -1e6 and 1e6", self.layer_scale)));
        }
        Ok(())
    }
}

/// Norms, MLP and LayerScale, which layers of both kinds have; parameters `norm1.*`, `norm2.*`, `mlp.*`, `gamma1`, `gamma2`.
#[derive(Debug)]
struct Frame {
    norm1: LayerNorm,
    norm2: LayerNorm,
    mlp: Mlp,
    gamma1: Tensor,
    gamma2: Tensor,
}

impl Frame {
    fn new(path: &Path<'_>, config: &TostConfig) -> Self {
        let gamma = |name: &str| path.var(name, &[config.d], Init::Const(config.layer_scale));
        Frame {
            norm1: LayerNorm::new(&(path / "norm1"), config.d, LAYER_NORM_EPS),
            norm2: LayerNorm::new(&(path / "norm2"), config.d, LAYER_NORM_EPS),
            mlp: Mlp::new(&(path / "mlp"), config.d, config.hidden(), LinearInit::Timm),
            gamma1: gamma("gamma1"),
            gamma2: gamma("gamma2"),
        }
    }
}

/// One layer; parameters those of its frame and `attn.*`.
#[derive(Debug)]
struct TostBlock {
    frame: Frame,
    attention: Tssa,
    drop: DropPath,
}

impl TostBlock {
    fn new(path: &Path<'_>, config: &TostConfig, layer: i64) -> Self {
        TostBlock {
            frame: Frame::new(path, config),
            attention: Tssa::new(&(path / "attn"), config.d, config.heads, config.qkv_bias),
            drop: DropPath::new(config.drop_path, layer, config.depth),
        }
    }

    /// # Shapes
    /// `z`: `[B, N, d]` to `[B, N, d]`.
    fn forward(&self, z: &Tensor, layer: usize, probe: &mut dyn Probe) -> Tensor {
        let Frame { norm1, norm2, mlp, gamma1, gamma2 } = &self.frame;
        let h = norm1.forward(z);
        show(probe, layer, Site::AttentionInput, &h);
        let half = z + self.drop.apply(self.attention.forward(&h, layer, probe) * gamma1);
        show(probe, layer, Site::ZHalf, &half);
        let h = norm2.forward(&half);
        show(probe, layer, Site::IstaInput, &h);
        let out = half + self.drop.apply(mlp.forward(&h, layer, probe) * gamma2);
        show(probe, layer, Site::ZOut, &out);
        out
    }
}

impl Layer for TostBlock {
    fn share(&self) -> Self {
        let Frame { norm1, norm2, mlp, gamma1, gamma2 } = &self.frame;
        let [norm1, norm2] = [norm1, norm2].map(|n| n.map(Tensor::shallow_clone));
        let [gamma1, gamma2] = [gamma1, gamma2].map(Tensor::shallow_clone);
        let frame = Frame { norm1, norm2, mlp: mlp.share(), gamma1, gamma2 };
        TostBlock { frame, attention: self.attention.share(), drop: self.drop }
    }

    fn parameters(&self) -> Vec<&Tensor> {
        let Frame { norm1, norm2, mlp, gamma1, gamma2 } = &self.frame;
        let frame = norm1.parameters().chain(norm2.parameters()).chain(mlp.parameters()).chain([gamma1, gamma2]);
        frame.chain(self.attention.parameters()).collect()
    }

    fn compute(&self, z: &Tensor, layer: usize, probe: &mut dyn Probe) -> Tensor {
        self.forward(z, layer, probe)
    }
}

/// One layer of class attention; parameters those of its frame, `attn.qkv.*` and `attn.proj.*`.
#[derive(Debug)]
struct ClassBlock {
    frame: Frame,
    attention: Mhsa,
}

impl ClassBlock {
    fn new(path: &Path<'_>, config: &TostConfig) -> Self {
        let TostConfig { d, heads, .. } = *config;
        let frame = Frame::new(path, config);
        let linear = |name: &str, outputs: i64, bias: bool| {
            Linear::new(&(path / "attn" / name), d, outputs, bias, LinearInit::Timm)
        };
        let (qkv, proj) = (linear("qkv", 3 * d, config.qkv_bias), linear("proj", d, true));
        ClassBlock { frame, attention: Mhsa::new(qkv, proj, heads, 1.0 / ((d / heads) as f64).sqrt()) }
    }

    /// # Shapes
    /// `z`: `[B, 1 + N, d]`, the class token first, to the same.
    fn forward(&self, z: &Tensor) -> Tensor {
        let Frame { norm1, norm2, mlp, gamma1, gamma2 } = &self.frame;
        let patches = |t: &Tensor| t.narrow(1, 1, t.size()[1] - 1);
        let h = norm1.forward(z);
        let step = self.attention.forward_first(&h);
        let half = z + Tensor::cat(&[step.to_kind(h.kind()), patches(&h)], 1) * gamma1;
        let h = norm2.forward(&half);
        let step = mlp.forward(&h.narrow(1, 0, 1), 0, &mut NoProbe) * gamma2;
        &h + Tensor::cat(&[step.to_kind(h.kind()), patches(&h)], 1)
    }
}

/// ToST for image classification.
#[derive(Debug)]
pub struct Tost {
    stem: Stem,
    positions: Linear,
    class_token: Tensor,
    blocks: Vec<TostBlock>,
    class_blocks: Vec<ClassBlock>,
    norm: LayerNorm,
    head: Linear,
    config: TostConfig,
    recompute: bool,
    training: bool,
}

impl Tost {
    /// A model under `root`, with freshly drawn parameters (seed them with `tch::manual_seed`).
    pub fn new(root: &Path<'_>, config: &TostConfig) -> Result<Self> {
        config.check()?;
        let (d, grid, patch_embed) = (config.d, config.grid(), root / "patch_embed");
        let stem = match config.stem {
            StemKind::Conv => Stem::convolutions(&patch_embed, &grid, d),
            StemKind::Patch => Stem::patches(&patch_embed, &grid, d),
        };
        Ok(Tost {
            stem,
            positions: position_map(&(root / "pos_embeder" / "token_projection"), d),
            class_token: root.var("cls_token", &[1, 1, d], Init::Randn { mean: 0.0, stdev: 0.02 }),
            blocks: (0..config.depth).map(|l| TostBlock::new(&(root / "blocks" / l), config, l)).collect(),
            class_blocks: (0..config.class_layers)
                .map(|l| ClassBlock::new(&(root / "cls_attn_blocks" / l), config))
                .collect(),
            norm: LayerNorm::new(&(root / "norm"), d, LAYER_NORM_EPS),
            head: Linear::new(&(root / "head"), d, config.classes, true, LinearInit::Timm),
            config: config.clone(),
            recompute: false,
            training: false,
        })
    }

    /// Patches with their positions; there is no class token yet.
    ///
    /// # Shapes
    /// `images`: `[B, C, H, W]` to `[B, N, d]`.
    fn embed(&self, images: &Tensor) -> Result<Tensor> {
        let grid = self.config.grid().of_images(images)?;
        let patches = self.stem.forward(images, &grid, self.training)?;
        let features = fourier_features(grid.shape(), images.device()).to_kind(self.positions.weight.kind());
        let weight = self.positions.weight.reshape([self.config.d, 2 * FEATURES]);
        let positions = features.linear(&weight, self.positions.bias.as_ref());
        Ok(dropout(patches + positions, self.config.dropout, self.training))
    }
}

/// The linear map of positions, in files a 1x1 convolution.
fn position_map(path: &Path<'_>, d: i64) -> Linear {
    let bound = crate::layers::uniform(1.0 / ((2 * FEATURES) as f64).sqrt());
    Linear { weight: path.var("weight", &[d, 2 * FEATURES, 1, 1], bound), bias: Some(path.var("bias", &[d], bound)) }
}

impl VisionModel for Tost {
    fn config(&self) -> ModelConfig {
        ModelConfig::Tost(self.config.clone())
    }

    fn tokens(&self, images: &Tensor, probe: &mut dyn Probe) -> Result<Tensor> {
        let z = self.embed(images)?;
        show(probe, 0, Site::Embed, &z);
        let z = through(&self.blocks, z, self.recompute, probe);
        let z = with_class_token(&self.class_token, &z);
        Ok(self.class_blocks.iter().fold(z, |z, block| block.forward(&z)))
    }

    fn features(&self, images: &Tensor, probe: &mut dyn Probe) -> Result<Tensor> {
        Ok(self.norm.forward(&self.tokens(images, probe)?.select(1, 0)))
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
