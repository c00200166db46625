//! ViT-MAE, the comparator (arXiv 2111.06377): the encoder sees the patches that are left, a narrower decoder of its own fills in the others.
//!
//! ```text
//! patches + positions -> hide 75 % -> class token -> L layers -> LN -> Linear d -> d' -> mask tokens, positions -> L' layers -> LN -> pixels
//! ```
//!
//! Parameter names are those of the authors' PyTorch code, which are timm's; the layout of other libraries is translated on reading
//! ([`import`](crate::import)). Positions are fixed sines and cosines in both parts.

use serde::{Deserialize, Serialize};
use tch::Tensor;
use tch::nn::{Init, Path};
use whitebox_model::embed::{Grid, PatchConvolution, with_class_token};
use whitebox_model::layers::{LayerNorm, Linear, LinearInit};
use whitebox_model::probe::{Probe, Site, show};
use whitebox_model::recompute::through;
use whitebox_model::vit::VitBlock;
use whitebox_model::{Error, Result};

use crate::config::{Autoencoder, AutoencoderConfig, Later, check_shape};
use crate::masking::Mask;
use crate::tokens::{check_images, fixed_positions};

/// Shape of a ViT-MAE. The defaults are ViT-MAE-B on 224-pixel images, as published.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VitMaeConfig {
    /// Image size `[height, width]`. Default: 224 x 224.
    pub image: [i64; 2],
    /// Patch size `[height, width]`. Default: 16 x 16.
    pub patch: [i64; 2],
    /// Image channels. Default: 3.
    pub channels: i64,
    /// The encoder's token dimension, a multiple of 4. Default: 768.
    pub d: i64,
    /// Layers of the encoder. Default: 12.
    pub depth: i64,
    /// Attention heads of the encoder. Default: 12.
    pub heads: i64,
    /// Hidden dimension of the encoder's MLPs. Default: 4 d.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hidden: Option<i64>,
    /// The decoder's token dimension, a multiple of 4. Default: 512.
    pub decoder_d: i64,
    /// Layers of the decoder. Default: 8.
    pub decoder_depth: i64,
    /// Attention heads of the decoder. Default: 16.
    pub decoder_heads: i64,
    /// Hidden dimension of the decoder's MLPs. Default: 4 decoder_d.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decoder_hidden: Option<i64>,
    /// Epsilon of all LayerNorms; some libraries take 1e-12. Default: 1e-6.
    pub norm_eps: f64,
}

impl Default for VitMaeConfig {
    fn default() -> Self {
        VitMaeConfig {
            image: [224, 224],
            patch: [16, 16],
            channels: 3,
            d: 768,
            depth: 12,
            heads: 12,
            hidden: None,
            decoder_d: 512,
            decoder_depth: 8,
            decoder_heads: 16,
            decoder_hidden: None,
            norm_eps: 1e-6,
        }
    }
}

impl VitMaeConfig {
    /// d 384, 6 heads, with the decoder of the others; no size of this name was published with the method.
    pub fn small() -> Self {
        VitMaeConfig { d: 384, heads: 6, ..Self::default() }
    }

    /// ViT-MAE-B.
    pub fn base() -> Self {
        Self::default()
    }

    /// ViT-MAE-L: L 24, d 1024, 16 heads.
    pub fn large() -> Self {
        VitMaeConfig { d: 1024, depth: 24, heads: 16, ..Self::default() }
    }

    /// The grid of patches.
    pub fn grid(&self) -> Grid {
        Grid { image: self.image, patch: self.patch, channels: self.channels }
    }

    /// Hidden dimension of the encoder's MLPs.
    pub fn hidden(&self) -> i64 {
        self.hidden.unwrap_or(4 * self.d)
    }

    /// Hidden dimension of the decoder's MLPs.
    pub fn decoder_hidden(&self) -> i64 {
        self.decoder_hidden.unwrap_or(4 * self.decoder_d)
    }

    /// Refuses values that describe no model.
    pub fn check(&self) -> Result<()> {
        let grid = self.grid();
        check_shape(&grid, self.d, self.depth, self.heads)?;
        check_shape(&grid, self.decoder_d, self.decoder_depth, self.decoder_heads)
            .map_err(|e| Error::Config(format!("of the decoder (decoder_d, decoder_depth, decoder_heads): {e}")))?;
        for (name, hidden) in [("hidden", self.hidden()), ("decoder_hidden", self.decoder_hidden())] {
            if !(1..=1 << 20).contains(&hidden) {
                return Err(Error::Config(format!("{name} = {hidden} must be between 1 and a million")));
            }
        }
        if !(0.0..=1.0).contains(&self.norm_eps) {
            return Err(Error::Config(format!("norm_eps = {} must be between 0 and 1", self.norm_eps)));
        }
        Ok(())
    }
}

/// A ViT-MAE.
#[derive(Debug)]
pub struct VitMae {
    patches: PatchConvolution,
    class_token: Tensor,
    positions: Tensor,
    encoder: Vec<VitBlock>,
    norm: LayerNorm,
    narrow: Linear,
    mask_token: Tensor,
    decoder_positions: Tensor,
    decoder: Vec<VitBlock>,
    decoder_norm: LayerNorm,
    prediction: Linear,
    config: VitMaeConfig,
    recompute: bool,
}

impl VitMae {
    /// A model under `root`, with freshly drawn parameters (seed them with `tch::manual_seed`).
    pub fn new(root: &Path<'_>, config: &VitMaeConfig) -> Result<Self> {
        config.check()?;
        let (d, narrow, grid, eps, init) =
            (config.d, config.decoder_d, config.grid(), config.norm_eps, LinearInit::Xavier);
        let token = Init::Randn { mean: 0.0, stdev: 0.02 };
        let blocks = |name: &str, depth: i64, d: i64, heads: i64, hidden: i64| {
            (0..depth).map(|l| VitBlock::new(&(root / name / l), d, heads, hidden, eps, init)).collect::<Vec<_>>()
        };
        Ok(VitMae {
            patches: PatchConvolution::xavier(&(root / "patch_embed" / "proj"), &grid, d),
            class_token: root.var("cls_token", &[1, 1, d], token),
            positions: fixed_positions(root, "pos_embed", &grid, d)?,
            encoder: blocks("blocks", config.depth, d, config.heads, config.hidden()),
            norm: LayerNorm::new(&(root / "norm"), d, eps),
            narrow: Linear::new(&(root / "decoder_embed"), d, narrow, true, init),
            mask_token: root.var("mask_token", &[1, 1, narrow], token),
            decoder_positions: fixed_positions(root, "decoder_pos_embed", &grid, narrow)?,
            decoder: blocks(
                "decoder_blocks",
                config.decoder_depth,
                narrow,
                config.decoder_heads,
                config.decoder_hidden(),
            ),
            decoder_norm: LayerNorm::new(&(root / "decoder_norm"), narrow, eps),
            prediction: Linear::new(&(root / "decoder_pred"), narrow, grid.patch_dim(), true, init),
            config: config.clone(),
            recompute: false,
        })
    }
}

impl Autoencoder for VitMae {
    fn config(&self) -> AutoencoderConfig {
        AutoencoderConfig::VitMae(self.config.clone())
    }

    fn latent(&self, images: &Tensor, mask: &Mask, probe: &mut dyn Probe) -> Result<Tensor> {
        let grid = self.config.grid();
        check_images(images, &grid, mask)?;
        let patches = self.patches.forward(images, &grid) + self.positions.narrow(1, 1, grid.patches());
        let class = &self.class_token + self.positions.narrow(1, 0, 1);
        let z = with_class_token(&class, &mask.seen(&patches));
        show(probe, 0, Site::Embed, &z);
        Ok(self.norm.forward(&through(&self.encoder, z, self.recompute, probe)))
    }

    fn decode(&self, latent: &Tensor, mask: &Mask, probe: &mut dyn Probe) -> Result<Tensor> {
        let tokens = self.narrow.forward(latent);
        let patches = tokens.narrow(1, 1, tokens.size()[1] - 1);
        let y = with_class_token(&tokens.narrow(1, 0, 1), &mask.filled(&patches, &self.mask_token))
            + &self.decoder_positions;
        let mut probe = Later { first: self.encoder.len(), probe };
        let y = self.decoder_norm.forward(&through(&self.decoder, y, self.recompute, &mut probe));
        Ok(self.prediction.forward(&y.narrow(1, 1, y.size()[1] - 1)))
    }

    fn recompute_layers(&mut self, on: bool) {
        self.recompute = on;
    }
}
