//! One description for every model of this crate, and the trait behind which they stand.

use serde::{Deserialize, Serialize};
use tch::nn::Path;
use tch::{Kind, Tensor};

use crate::probe::Probe;
use crate::{Crate, CrateAlpha, CrateAlphaConfig, CrateConfig, Error, Result, Tost, TostConfig, Vit, VitConfig};

/// What the head reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pool {
    /// The class token.
    #[default]
    #[serde(alias = "cls")]
    Token,
    /// The mean of the tokens (CRATE and CRATE-alpha: with the class token; ViT: without).
    #[serde(alias = "avg")]
    Mean,
}

/// An image classifier that can be looked into.
pub trait VisionModel {
    /// The description from which this model can be built again.
    fn config(&self) -> ModelConfig;

    /// Tokens after the last layer, before any pooling.
    ///
    /// # Shapes
    /// `images`: `[B, C, H, W]` to `[B, n, d]`. H and W may differ from the config's where the patches divide them:
    /// positions are interpolated.
    ///
    /// # Errors
    /// Images of another rank, kind or channel count, or that the patches don't divide.
    fn tokens(&self, images: &Tensor, probe: &mut dyn Probe) -> Result<Tensor>;

    /// What the linear head reads: pooled and normalised.
    ///
    /// # Shapes
    /// `images`: `[B, C, H, W]` to `[B, d]`.
    fn features(&self, images: &Tensor, probe: &mut dyn Probe) -> Result<Tensor>;

    /// Class logits.
    ///
    /// # Shapes
    /// `images`: `[B, C, H, W]` to `[B, classes]`.
    fn forward(&self, images: &Tensor, probe: &mut dyn Probe) -> Result<Tensor>;

    /// Whether a backward pass computes each layer again instead of keeping what it needs of it (activation checkpointing): the same
    /// gradients in less memory, for a forward pass more.
    fn recompute_layers(&mut self, on: bool);

    /// Switches on what a model does in training alone: stochastic depth, dropout, and BatchNorm by the batch's statistics, which moves the running ones. A
    /// model is built with it off. Whoever trains calls it: with true before a training step's forward pass, with false before evaluating; where it is not
    /// called, a model with BatchNorm trains on running statistics that never move.
    fn set_training(&mut self, _on: bool) {}

    /// The same model for inference alone, with what does not change from batch to batch worked into its matrices, which are then of
    /// `kind` (`Float`, `Double` or `BFloat16`); `None` where there is nothing to gain. Later changes of the parameters do not reach it.
    fn fold(&self, _kind: Kind) -> Option<Box<dyn VisionModel>> {
        None
    }
}

/// Any model of this crate, as it stands in recipes and checkpoints: `kind = "crate"`, `"crate_alpha"`, `"tost"` or `"vit"`, and its fields.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ModelConfig {
    /// CRATE.
    Crate(CrateConfig),
    /// CRATE-alpha.
    CrateAlpha(CrateAlphaConfig),
    /// ToST.
    Tost(TostConfig),
    /// ViT.
    Vit(VitConfig),
}

/// A published size: its name, and its config.
pub type Preset<C> = (&'static str, fn() -> C);

/// The preset of a name, out of some.
///
/// # Errors
/// A name that none has, with those that there are.
pub fn preset<C>(presets: &[Preset<C>], name: &str) -> Result<C> {
    let found = presets.iter().find(|(n, _)| *n == name).map(|(_, build)| build());
    found.ok_or_else(|| Error::UnknownPreset {
        name: name.to_owned(),
        known: presets.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", "),
    })
}

/// The presets by name.
const PRESETS: [Preset<ModelConfig>; 15] = [
    ("crate-tiny", || ModelConfig::Crate(CrateConfig::tiny())),
    ("crate-small", || ModelConfig::Crate(CrateConfig::small())),
    ("crate-base", || ModelConfig::Crate(CrateConfig::base())),
    ("crate-large", || ModelConfig::Crate(CrateConfig::large())),
    ("crate-alpha-tiny", || ModelConfig::CrateAlpha(CrateAlphaConfig::tiny())),
    ("crate-alpha-small", || ModelConfig::CrateAlpha(CrateAlphaConfig::small())),
    ("crate-alpha-base", || ModelConfig::CrateAlpha(CrateAlphaConfig::base())),
    ("crate-alpha-large", || ModelConfig::CrateAlpha(CrateAlphaConfig::large())),
    ("crate-alpha-huge", || ModelConfig::CrateAlpha(CrateAlphaConfig::huge())),
    ("tost-tiny", || ModelConfig::Tost(TostConfig::tiny())),
    ("tost-small", || ModelConfig::Tost(TostConfig::small())),
    ("tost-medium", || ModelConfig::Tost(TostConfig::medium())),
    ("vit-tiny", || ModelConfig::Vit(VitConfig::tiny())),
    ("vit-small", || ModelConfig::Vit(VitConfig::small())),
    ("vit-base", || ModelConfig::Vit(VitConfig::base())),
];

impl ModelConfig {
    /// The names that [`ModelConfig::preset`] knows.
    pub fn presets() -> impl Iterator<Item = &'static str> {
        PRESETS.iter().map(|(name, _)| *name)
    }

    /// A published size by name: `crate-tiny`, `crate-small`, `crate-base`, `crate-large`, `crate-alpha-tiny`, `tost-tiny`, `vit-tiny`, ...
    pub fn preset(name: &str) -> Result<Self> {
        preset(&PRESETS, name)
    }

    /// Refuses values that describe no model.
    pub fn check(&self) -> Result<()> {
        match self {
            ModelConfig::Crate(c) => c.check(),
            ModelConfig::CrateAlpha(c) => c.check(),
            ModelConfig::Tost(c) => c.check(),
            ModelConfig::Vit(c) => c.check(),
        }
    }

    /// Draws a model under `root`; the same as naming its type.
    pub fn build(&self, root: &Path<'_>) -> Result<Box<dyn VisionModel>> {
        Ok(match self {
            ModelConfig::Crate(c) => Box::new(Crate::new(root, c)?),
            ModelConfig::CrateAlpha(c) => Box::new(CrateAlpha::new(root, c)?),
            ModelConfig::Tost(c) => Box::new(Tost::new(root, c)?),
            ModelConfig::Vit(c) => Box::new(Vit::new(root, c)?),
        })
    }

    /// The grid of patches.
    pub fn grid(&self) -> crate::embed::Grid {
        match self {
            ModelConfig::Crate(c) => c.grid(),
            ModelConfig::CrateAlpha(c) => c.grid(),
            ModelConfig::Tost(c) => c.grid(),
            ModelConfig::Vit(c) => c.grid(),
        }
    }

    /// Number of classes.
    pub fn classes(&self) -> i64 {
        match self {
            ModelConfig::Crate(c) => c.classes,
            ModelConfig::CrateAlpha(c) => c.classes,
            ModelConfig::Tost(c) => c.classes,
            ModelConfig::Vit(c) => c.classes,
        }
    }

    /// The same model with another number of classes.
    pub fn with_classes(mut self, classes: i64) -> Self {
        match &mut self {
            ModelConfig::Crate(c) => c.classes = classes,
            ModelConfig::CrateAlpha(c) => c.classes = classes,
            ModelConfig::Tost(c) => c.classes = classes,
            ModelConfig::Vit(c) => c.classes = classes,
        }
        self
    }

    /// Number of attention heads K.
    pub fn heads(&self) -> i64 {
        match self {
            ModelConfig::Crate(c) => c.heads,
            ModelConfig::CrateAlpha(c) => c.heads,
            ModelConfig::Tost(c) => c.heads,
            ModelConfig::Vit(c) => c.heads,
        }
    }

    /// Number of layers L.
    pub fn depth(&self) -> i64 {
        match self {
            ModelConfig::Crate(c) => c.depth,
            ModelConfig::CrateAlpha(c) => c.depth,
            ModelConfig::Tost(c) => c.depth,
            ModelConfig::Vit(c) => c.depth,
        }
    }
}

/// The checks that all classifiers share.
pub(crate) fn check_sizes(d: i64, depth: i64, heads: i64, classes: i64) -> Result<()> {
    check_layers(d, depth, heads)?;
    check_between("classes", classes, 1 << 24)
}

/// The checks that all models share.
///
/// # Errors
/// Sizes that are not positive, or beyond all reason.
pub fn check_layers(d: i64, depth: i64, heads: i64) -> Result<()> {
    check_between("d", d, 1 << 16)?;
    check_between("depth", depth, 1 << 12)?;
    check_between("heads", heads, 1 << 12)
}

/// Refuses a size that is not positive, or larger than `most`.
///
/// # Errors
/// The value, by its `name`.
pub fn check_between(name: &str, value: i64, most: i64) -> Result<()> {
    if (1..=most).contains(&value) {
        return Ok(());
    }
    Err(Error::Config(format!("{name} = {value} must be between 1 and {most}")))
}

/// The checks of subspaces whose dimension may be other than `d / heads`.
pub(crate) fn check_heads(d: i64, heads: i64, head_dim: Option<i64>) -> Result<()> {
    match head_dim {
        None if d % heads != 0 => {
            Err(Error::Config(format!("d = {d} is not a multiple of heads = {heads}; choose another, or set head_dim")))
        }
        Some(p) if !(1..=1 << 20).contains(&p) => {
            Err(Error::Config(format!("head_dim = {p} must be between 1 and a million")))
        }
        _ => Ok(()),
    }
}
