//! CRATE for images: embedding, L white-box layers, pooling, linear head.
//!
//! As released: no LayerNorm between the last layer and the pooling, the head is `LN -> Linear`, mean pooling includes
//! the class token. Parameter names are those of the official code, so that its checkpoints load name by name.

use serde::{Deserialize, Serialize};
use tch::Tensor;
use tch::nn::Path;

use crate::block::{Block, LAYER_NORM_EPS, ResidualBase};
use crate::config::{ModelConfig, Pool, VisionModel, check_sizes};
use crate::embed::{Grid, PatchEmbedding};
use crate::ista::{IstaConfig, IstaForm};
use crate::layers::{LayerNorm, Linear, LinearInit};
use crate::mssa::{MssaConfig, OutputMap, Scaling};
use crate::probe::{Probe, Site, show, wants_any};
use crate::recompute::recomputed;
use crate::{Error, Result};

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
            eta: 0.1,
            lambda: 0.1,
            residual_base: ResidualBase::Raw,
            output_map: OutputMap::Free,
            scaling: Scaling::InverseSqrtP,
            gamma: 1.0,
            ista_form: IstaForm::Auto,
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
        match self.head_dim {
            None if self.d % self.heads != 0 => Err(Error::Config(format!(
                "d = {} is not a multiple of heads = {}; choose another, or set head_dim",
                self.d, self.heads
            ))),
            Some(p) if !(1..=1 << 20).contains(&p) => {
                Err(Error::Config(format!("head_dim = {p} must be between 1 and a million")))
            }
            _ if ![self.eta, self.lambda, self.gamma].iter().all(|x| x.abs() <= 1e6) => Err(Error::Config(format!(
                "eta = {}, lambda = {} and gamma = {} must be numbers between -1e6 and 1e6",
                self.eta, self.lambda, self.gamma
            ))),
            _ => Ok(()),
        }
    }

    fn mssa(&self) -> MssaConfig {
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
        IstaConfig { d: self.d, eta: self.eta, lambda: self.lambda, form: self.ista_form }
    }
}

/// CRATE for image classification.
#[derive(Debug)]
pub struct Crate {
    pub(crate) embedding: PatchEmbedding,
    /// The white-box layers, first to last.
    pub layers: Vec<Block>,
    pub(crate) norm: LayerNorm,
    pub(crate) head: Linear,
    pub(crate) config: CrateConfig,
    pub(crate) recompute: bool,
}

impl Crate {
    /// A model under `root`, with freshly drawn parameters (seed them with `tch::manual_seed`).
    pub fn new(root: &Path<'_>, config: &CrateConfig) -> Result<Self> {
        config.check()?;
        let (mssa, ista) = (config.mssa(), config.ista());
        let path = root / "transformer" / "layers";
        Ok(Crate {
            embedding: PatchEmbedding::new(root, config.grid(), config.d),
            layers: (0..config.depth).map(|l| Block::new(&(&path / l), &mssa, &ista, config.residual_base)).collect(),
            norm: LayerNorm::new(&(root / "mlp_head" / "0"), config.d, LAYER_NORM_EPS),
            head: Linear::new(&(root / "mlp_head" / "1"), config.d, config.classes, true, LinearInit::PyTorch),
            config: config.clone(),
            recompute: false,
        })
    }
}

impl Crate {
    /// Tokens that layer `end` reads.
    fn tokens_before(&self, end: usize, images: &Tensor, probe: &mut dyn Probe) -> Result<Tensor> {
        let mut z = self.embedding.forward(images)?;
        show(probe, 0, Site::Embed, &z);
        for (l, layer) in self.layers[..end].iter().enumerate() {
            z = match self.recompute && z.requires_grad() && !wants_any(probe, l) {
                true => recomputed(layer, &z),
                false => layer.forward(&z, l, probe),
            };
        }
        Ok(z)
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

    fn fold(&self, kind: tch::Kind) -> Option<Box<dyn VisionModel>> {
        Some(Box::new(self.folded(kind)))
    }
}
