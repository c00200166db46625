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
use crate::embed::{Grid, interpolate_positions, patchify};
use crate::layers::{LayerNorm, Linear, LinearInit, map_is_faster, uniform};
use crate::probe::{NoProbe, Probe, Site, show, wants_any};
use crate::recompute::{Layer, recomputed};
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
        Ok(())
    }
}

#[derive(Debug)]
struct VitBlock {
    norm1: LayerNorm,
    qkv: Linear,
    proj: Linear,
    norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    heads: i64,
}

impl VitBlock {
    fn new(path: &Path<'_>, config: &VitConfig) -> Self {
        let (d, hidden, init) = (config.d, config.hidden(), LinearInit::Timm);
        VitBlock {
            norm1: LayerNorm::new(&(path / "norm1"), d, LAYER_NORM_EPS),
            qkv: Linear::new(&(path / "attn" / "qkv"), d, 3 * d, true, init),
            proj: Linear::new(&(path / "attn" / "proj"), d, d, true, init),
            norm2: LayerNorm::new(&(path / "norm2"), d, LAYER_NORM_EPS),
            fc1: Linear::new(&(path / "mlp" / "fc1"), d, hidden, true, init),
            fc2: Linear::new(&(path / "mlp" / "fc2"), hidden, d, true, init),
            heads: config.heads,
        }
    }

    fn attention(&self, h: &Tensor, layer: usize, probe: &mut dyn Probe) -> Tensor {
        let (b, n, d) = (h.size()[0], h.size()[1], h.size()[2]);
        let p = d / self.heads;
        let qkv = self.qkv.forward(h);
        if probe.wants(layer, Site::Uz) {
            probe.see(layer, Site::Uz, &qkv.narrow(2, d, d));
        }
        let qkv = qkv.view([b, n, 3, self.heads, p]).permute([2, 0, 3, 1, 4]); // 3 b k n p
        let (q, k, v) = (qkv.get(0), qkv.get(1), qkv.get(2));
        let scale = 1.0 / (p as f64).sqrt();
        let o = if probe.wants(layer, Site::Attention) || map_is_faster(&q) {
            let attention = (q.matmul(&k.transpose(-2, -1)) * scale).softmax(-1, None::<tch::Kind>);
            show(probe, layer, Site::Attention, &attention);
            attention.matmul(&v)
        } else {
            Tensor::scaled_dot_product_attention(&q, &k, &v, None::<&Tensor>, 0.0, false, scale, false)
        };
        self.proj.forward(&o.transpose(1, 2).reshape([b, n, d]))
    }

    fn forward(&self, z: &Tensor, layer: usize, probe: &mut dyn Probe) -> Tensor {
        let h = self.norm1.forward(z);
        show(probe, layer, Site::AttentionInput, &h);
        let step = self.attention(&h, layer, probe);
        show(probe, layer, Site::MssaOut, &step);
        let half = z + step;
        show(probe, layer, Site::ZHalf, &half);
        let h = self.norm2.forward(&half);
        show(probe, layer, Site::IstaInput, &h);
        let hidden = self.fc1.forward(&h).gelu("none");
        show(probe, layer, Site::MlpHidden, &hidden);
        let out = half + self.fc2.forward(&hidden);
        show(probe, layer, Site::ZOut, &out);
        out
    }
}

impl Layer for VitBlock {
    fn share(&self) -> Self {
        let [norm1, norm2] = [&self.norm1, &self.norm2].map(|n| n.map(Tensor::shallow_clone));
        let [qkv, proj, fc1, fc2] = [&self.qkv, &self.proj, &self.fc1, &self.fc2].map(Linear::share);
        VitBlock { norm1, qkv, proj, norm2, fc1, fc2, heads: self.heads }
    }

    fn parameters(&self) -> Vec<&Tensor> {
        let norms = [&self.norm1, &self.norm2].into_iter().flat_map(LayerNorm::parameters);
        norms.chain([&self.qkv, &self.proj, &self.fc1, &self.fc2].into_iter().flat_map(Linear::parameters)).collect()
    }

    fn compute(&self, z: &Tensor) -> Tensor {
        self.forward(z, 0, &mut NoProbe)
    }
}

/// ViT for image classification.
#[derive(Debug)]
pub struct Vit {
    patch_weight: Tensor,
    patch_bias: Tensor,
    class_token: Tensor,
    positions: Tensor,
    blocks: Vec<VitBlock>,
    norm: LayerNorm,
    head: Linear,
    config: VitConfig,
    recompute: bool,
}

impl Vit {
    /// A model under `root`, with freshly drawn parameters (seed them with `tch::manual_seed`).
    pub fn new(root: &Path<'_>, config: &VitConfig) -> Result<Self> {
        config.check()?;
        let (d, grid) = (config.d, config.grid());
        let patch = root / "patch_embed" / "proj";
        let bound = 1.0 / (grid.patch_dim() as f64).sqrt();
        let normal = |stdev| Init::Randn { mean: 0.0, stdev };
        let norm = match config.pool {
            Pool::Token => "norm",
            Pool::Mean => "fc_norm",
        };
        Ok(Vit {
            patch_weight: patch.var("weight", &[d, grid.channels, grid.patch[0], grid.patch[1]], uniform(bound)),
            patch_bias: patch.var("bias", &[d], uniform(bound)),
            class_token: root.var("cls_token", &[1, 1, d], normal(1e-6)),
            positions: root.var("pos_embed", &[1, grid.patches() + 1, d], normal(0.02)),
            blocks: (0..config.depth).map(|l| VitBlock::new(&(root / "blocks" / l), config)).collect(),
            norm: LayerNorm::new(&(root / norm), d, LAYER_NORM_EPS),
            head: Linear::new(&(root / "head"), d, config.classes, true, LinearInit::Timm),
            config: config.clone(),
            recompute: false,
        })
    }

    /// Patches through the strided convolution, computed as the one matrix product that it is.
    fn embed(&self, images: &Tensor) -> Result<Tensor> {
        let grid = self.config.grid().of_images(images)?;
        let d = self.config.d;
        let weight = self.patch_weight.reshape([d, grid.patch_dim()]);
        let tokens = patchify(images, &grid).linear(&weight, Some(&self.patch_bias));
        let class = self.class_token.expand([tokens.size()[0], 1, d], false).to_kind(tokens.kind());
        let positions = interpolate_positions(&self.positions, self.config.grid().shape(), grid.shape());
        Ok(Tensor::cat(&[class, tokens], 1) + positions)
    }
}

impl VisionModel for Vit {
    fn config(&self) -> ModelConfig {
        ModelConfig::Vit(self.config.clone())
    }

    fn tokens(&self, images: &Tensor, probe: &mut dyn Probe) -> Result<Tensor> {
        let mut z = self.embed(images)?;
        show(probe, 0, Site::Embed, &z);
        for (l, block) in self.blocks.iter().enumerate() {
            z = match self.recompute && z.requires_grad() && !wants_any(probe, l) {
                true => recomputed(block, &z),
                false => block.forward(&z, l, probe),
            };
        }
        Ok(z)
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
}
