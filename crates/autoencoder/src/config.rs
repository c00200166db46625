//! One description for every autoencoder of this crate, and the trait behind which they stand.

use serde::{Deserialize, Serialize};
use tch::Tensor;
use tch::nn::Path;
use whitebox_model::config::{Preset, check_layers, preset};
use whitebox_model::count::Cost;
use whitebox_model::embed::{Grid, sin_cos_positions};
use whitebox_model::probe::{Probe, Site};
use whitebox_model::{Error, Result};

use crate::count;
use crate::crate_mae::{CrateMae, CrateMaeConfig};
use crate::masking::{Mask, Masking};
use crate::vit_mae::{VitMae, VitMaeConfig};

/// A masked autoencoder that can be looked into.
pub trait Autoencoder {
    /// The description from which this model can be built again.
    fn config(&self) -> AutoencoderConfig;

    /// Tokens after the encoder and its LayerNorm, the class token first. `probe` is shown the encoder's layers.
    ///
    /// # Shapes
    /// `images`: `[B, C, H, W]` to `[B, 1 + N, d]`, or `[B, 1 + kept, d]` where the encoder leaves hidden patches out.
    ///
    /// # Errors
    /// Images of another shape than the config's; a mask of another batch or grid.
    fn latent(&self, images: &Tensor, mask: &Mask, probe: &mut dyn Probe) -> Result<Tensor>;

    /// The pixels of every patch from what the encoder made. `probe` is shown the decoder's layers, counted on from the encoder's.
    ///
    /// # Shapes
    /// `latent`: as [`Autoencoder::latent`] gives it, to `[B, N, P1 P2 C]`, pixels in the order (row, column, channel).
    ///
    /// # Errors
    /// Those of libtorch.
    fn decode(&self, latent: &Tensor, mask: &Mask, probe: &mut dyn Probe) -> Result<Tensor>;

    /// Encoder and decoder, one after the other.
    ///
    /// # Errors
    /// Those of [`Autoencoder::latent`].
    fn forward(&self, images: &Tensor, mask: &Mask, probe: &mut dyn Probe) -> Result<Tensor> {
        let latent = self.latent(images, mask, probe)?;
        self.decode(&latent, mask, probe)
    }

    /// Whether a backward pass computes each layer again instead of keeping what it needs of it (activation checkpointing).
    fn recompute_layers(&mut self, on: bool);

    /// Told whether it trains, as [`whitebox_model::VisionModel::set_training`]; no model here does anything in training alone.
    fn set_training(&mut self, _on: bool) {}
}

/// Any model of this crate, as it stands in recipes and checkpoints: `kind = "crate_mae"` or `"vit_mae"`, and its fields.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum AutoencoderConfig {
    /// CRATE-MAE.
    CrateMae(CrateMaeConfig),
    /// ViT-MAE.
    VitMae(VitMaeConfig),
}

/// The presets by name.
const PRESETS: [Preset<AutoencoderConfig>; 7] = [
    ("crate-mae-tiny", || AutoencoderConfig::CrateMae(CrateMaeConfig::tiny())),
    ("crate-mae-small", || AutoencoderConfig::CrateMae(CrateMaeConfig::small())),
    ("crate-mae-base", || AutoencoderConfig::CrateMae(CrateMaeConfig::base())),
    ("crate-mae-large", || AutoencoderConfig::CrateMae(CrateMaeConfig::large())),
    ("vit-mae-small", || AutoencoderConfig::VitMae(VitMaeConfig::small())),
    ("vit-mae-base", || AutoencoderConfig::VitMae(VitMaeConfig::base())),
    ("vit-mae-large", || AutoencoderConfig::VitMae(VitMaeConfig::large())),
];

impl AutoencoderConfig {
    /// The names that [`AutoencoderConfig::preset`] knows.
    pub fn presets() -> impl Iterator<Item = &'static str> {
        PRESETS.iter().map(|(name, _)| *name)
    }

    /// A published size by name: `crate-mae-base`, `vit-mae-base`, ...
    pub fn preset(name: &str) -> Result<Self> {
        preset(&PRESETS, name)
    }

    /// Refuses values that describe no model.
    pub fn check(&self) -> Result<()> {
        match self {
            AutoencoderConfig::CrateMae(c) => c.check(),
            AutoencoderConfig::VitMae(c) => c.check(),
        }
    }

    /// Draws a model under `root`; the same as naming its type.
    pub fn build(&self, root: &Path<'_>) -> Result<Box<dyn Autoencoder>> {
        Ok(match self {
            AutoencoderConfig::CrateMae(c) => Box::new(CrateMae::new(root, c)?),
            AutoencoderConfig::VitMae(c) => Box::new(VitMae::new(root, c)?),
        })
    }

    /// What the model costs, counted from this alone.
    pub fn cost(&self, masking: &Masking) -> Cost {
        match self {
            AutoencoderConfig::CrateMae(c) => count::crate_mae(c, masking),
            AutoencoderConfig::VitMae(c) => count::vit_mae(c, masking),
        }
    }

    /// The grid of patches.
    pub fn grid(&self) -> Grid {
        match self {
            AutoencoderConfig::CrateMae(c) => c.grid(),
            AutoencoderConfig::VitMae(c) => c.grid(),
        }
    }

    /// Attention heads K of the encoder.
    pub fn heads(&self) -> i64 {
        match self {
            AutoencoderConfig::CrateMae(c) => c.heads,
            AutoencoderConfig::VitMae(c) => c.heads,
        }
    }

    /// Layers of the encoder.
    pub fn depth(&self) -> i64 {
        match self {
            AutoencoderConfig::CrateMae(c) => c.depth,
            AutoencoderConfig::VitMae(c) => c.depth,
        }
    }
}

/// The checks that both models share.
pub(crate) fn check_shape(grid: &Grid, d: i64, depth: i64, heads: i64) -> Result<()> {
    grid.check()?;
    check_layers(d, depth, heads)?;
    if d % heads != 0 {
        return Err(Error::Config(format!("d = {d} is not a multiple of heads = {heads}")));
    }
    sin_cos_positions([1, 1], d).map(drop)
}

/// A probe that is shown layers as later ones: a decoder's after an encoder's.
pub(crate) struct Later<'a> {
    pub first: usize,
    pub probe: &'a mut dyn Probe,
}

impl Probe for Later<'_> {
    fn wants(&self, layer: usize, site: Site) -> bool {
        self.probe.wants(layer + self.first, site)
    }

    fn see(&mut self, layer: usize, site: Site, value: &Tensor) {
        self.probe.see(layer + self.first, site, value);
    }
}
