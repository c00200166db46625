//! CRATE-MAE: a masked autoencoder whose encoder and decoder are white-box layers, as many of the one as of the other.
//!
//! ```text
//! released      patches -> hide 75 % -> mask tokens in their places, class token, positions -> L encoder layers -> LN -> L decoder layers -> LN -> pixels
//! drop_masked   patches + positions -> hide 75 % -> class token -> L encoder layers -> LN -> mask tokens, positions -> L decoder layers -> LN -> pixels
//! ```
//!
//! In the released code the encoder sees mask tokens: all `N + 1` places pass through it. MAE leaves the hidden ones out of the encoder
//! (`drop_masked = true`), which sees a quarter of the tokens then. Without hidden patches both are one plain autoencoder.
//!
//! As released: ISTA's lambda is 0.5 in the encoder (the book says 0.1), the decoder has no sparsity, positions are fixed sines and cosines, patches are
//! embedded by a convolution, LayerNorms after the encoder and after the decoder have epsilon 1e-6. Parameter names are the released code's. So are three
//! tensors that nothing reads, kept that its files load and can be written: `pos_embed` (read by `drop_masked`), `decoder_embed.*`. They do not learn.

use serde::{Deserialize, Serialize};
use tch::Tensor;
use tch::nn::{Init, Path};
use whitebox_model::block::{Attention, Block, LAYER_NORM_EPS, ResidualBase, Sparsifier};
use whitebox_model::embed::{Grid, PatchConvolution, with_class_token};
use whitebox_model::ista::{Ista, IstaConfig};
use whitebox_model::layers::{LayerNorm, Linear, LinearInit};
use whitebox_model::mssa::{Mssa, MssaConfig};
use whitebox_model::probe::{Probe, Site, show};
use whitebox_model::recompute::through;
use whitebox_model::{Error, Result};

use crate::config::{Autoencoder, AutoencoderConfig, check_shape};
use crate::decoder::{DecoderBlock, DecoderInit};
use crate::masking::Mask;
use crate::tokens::{check_images, fixed_positions};

/// Epsilon of the LayerNorms after encoder and decoder.
pub(crate) const NORM_EPS: f64 = 1e-6;

/// Shape and choices of a CRATE-MAE. The defaults are CRATE-MAE-B on 224-pixel images, as released.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CrateMaeConfig {
    /// Image size `[height, width]`. Default: 224 x 224.
    pub image: [i64; 2],
    /// Patch size `[height, width]`. Default: 16 x 16.
    pub patch: [i64; 2],
    /// Image channels. Default: 3.
    pub channels: i64,
    /// Token dimension d, a multiple of 4. Default: 768.
    pub d: i64,
    /// Layers L of the encoder, and as many of the decoder. Default: 12.
    pub depth: i64,
    /// Subspaces K. Default: 12.
    pub heads: i64,
    /// Step size of the encoder's ISTA. Default: 0.1.
    pub eta: f64,
    /// Sparsity weight of the encoder's ISTA. Default: 0.5.
    pub lambda: f64,
    /// What attention steps are added to, and taken from in the decoder. Default: raw.
    pub residual_base: ResidualBase,
    /// Whether hidden patches are left out of the encoder, as in MAE. Default: false.
    pub drop_masked: bool,
    /// What the decoder's matrices begin as, or are. Default: independent.
    pub decoder_init: DecoderInit,
}

impl Default for CrateMaeConfig {
    fn default() -> Self {
        CrateMaeConfig {
            image: [224, 224],
            patch: [16, 16],
            channels: 3,
            d: 768,
            depth: 12,
            heads: 12,
            eta: 0.1,
            lambda: 0.5,
            residual_base: ResidualBase::Raw,
            drop_masked: false,
            decoder_init: DecoderInit::Independent,
        }
    }
}

impl CrateMaeConfig {
    /// CRATE-MAE-T: L 12 + 12, d 384, K 6.
    pub fn tiny() -> Self {
        CrateMaeConfig { d: 384, heads: 6, ..Self::default() }
    }

    /// CRATE-MAE-S: L 12 + 12, d 576, K 12.
    pub fn small() -> Self {
        CrateMaeConfig { d: 576, ..Self::default() }
    }

    /// CRATE-MAE-B: L 12 + 12, d 768, K 12.
    pub fn base() -> Self {
        Self::default()
    }

    /// CRATE-MAE-L: L 24 + 24, d 1024, K 16.
    pub fn large() -> Self {
        CrateMaeConfig { d: 1024, depth: 24, heads: 16, ..Self::default() }
    }

    /// The grid of patches.
    pub fn grid(&self) -> Grid {
        Grid { image: self.image, patch: self.patch, channels: self.channels }
    }

    /// Refuses values that describe no model.
    pub fn check(&self) -> Result<()> {
        check_shape(&self.grid(), self.d, self.depth, self.heads)?;
        if ![self.eta, self.lambda].iter().all(|x| x.abs() <= 1e6) {
            let (eta, lambda) = (self.eta, self.lambda);
            return Err(Error::Config(format!(
                "eta = {eta} and lambda = {lambda} must be numbers between -1e6 and 1e6"
            )));
        }
        Ok(())
    }

    pub(crate) fn mssa(&self) -> MssaConfig {
        let CrateMaeConfig { d, heads, .. } = *self;
        MssaConfig { d, heads, head_dim: d / heads, ..MssaConfig::default() }
    }

    fn encoder_block(&self, path: &Path<'_>) -> Block {
        let CrateMaeConfig { d, eta, lambda, residual_base, .. } = *self;
        let mssa = Mssa::drawn(&(path / "0" / "fn"), &self.mssa(), true, LinearInit::Xavier);
        let ista = Ista::new(&(path / "1" / "fn"), &IstaConfig { d, eta, lambda, ..IstaConfig::default() });
        let (attention, sparsifier) = (Attention::Mssa(mssa), Sparsifier::Ista(ista));
        Block::of_steps(path, d, attention, sparsifier, residual_base, LAYER_NORM_EPS)
    }

    /// The decoder's layers, the first of which undoes the encoder's last.
    fn decoder(&self, root: &Path<'_>, encoder: &[Block]) -> Vec<DecoderBlock> {
        let (mssa, base) = (self.mssa(), self.residual_base);
        let partners = encoder.iter().rev().map(|block| match (&block.attention, &block.sparsifier) {
            (Attention::Mssa(mssa), Sparsifier::Ista(ista)) => (mssa, &ista.dictionary),
            _ => unreachable!("the encoder is made of these two steps"),
        });
        partners
            .enumerate()
            .map(|(layer, (partner, d))| {
                let path = root / "decoder_blocks" / layer / "layers" / 0;
                if self.decoder_init == DecoderInit::Tied {
                    return DecoderBlock::of_matrices(&path, self.d, d.shallow_clone(), partner.share(), base);
                }
                let block = DecoderBlock::new(&path, &mssa, base);
                if self.decoder_init == DecoderInit::Inverted {
                    let ours = block.attention.parameters().chain([&block.dictionary]);
                    tch::no_grad(|| {
                        ours.zip(partner.parameters().chain([d])).for_each(|(to, from)| to.shallow_clone().copy_(from))
                    });
                }
                block
            })
            .collect()
    }
}

/// A CRATE-MAE.
#[derive(Debug)]
pub struct CrateMae {
    patches: PatchConvolution,
    class_token: Tensor,
    mask_token: Tensor,
    /// Of the tokens that a decoder reads, and of those that the released encoder reads: fixed.
    positions: Tensor,
    /// Of what the encoder reads where hidden patches are left out of it: fixed.
    encoder_positions: Tensor,
    /// The encoder's layers, first to last.
    pub encoder: Vec<Block>,
    norm: LayerNorm,
    /// The decoder's layers, first to last; layer l undoes the encoder's `L - 1 - l`.
    pub decoder: Vec<DecoderBlock>,
    decoder_norm: LayerNorm,
    prediction: Linear,
    config: CrateMaeConfig,
    recompute: bool,
}

impl CrateMae {
    /// A model under `root`, with freshly drawn parameters (seed them with `tch::manual_seed`).
    pub fn new(root: &Path<'_>, config: &CrateMaeConfig) -> Result<Self> {
        config.check()?;
        let (d, grid) = (config.d, config.grid());
        let token = Init::Randn { mean: 0.0, stdev: 0.02 };
        let unread = root / "decoder_embed";
        for (name, size) in [("weight", &[d, d][..]), ("bias", &[d])] {
            drop(unread.zeros_no_train(name, size));
        }
        let encoder: Vec<_> =
            (0..config.depth).map(|l| config.encoder_block(&(root / "blocks" / l / "layers" / 0))).collect();
        Ok(CrateMae {
            patches: PatchConvolution::xavier(&(root / "patch_embed" / "proj"), &grid, d),
            class_token: root.var("cls_token", &[1, 1, d], token),
            mask_token: root.var("mask_token", &[1, 1, d], token),
            positions: fixed_positions(root, "decoder_pos_embed", &grid, d)?,
            encoder_positions: fixed_positions(root, "pos_embed", &grid, d)?,
            norm: LayerNorm::new(&(root / "norm"), d, NORM_EPS),
            decoder: config.decoder(root, &encoder),
            encoder,
            decoder_norm: LayerNorm::new(&(root / "decoder_norm"), d, NORM_EPS),
            prediction: Linear::new(&(root / "decoder_pred"), d, grid.patch_dim(), true, LinearInit::Xavier),
            config: config.clone(),
            recompute: false,
        })
    }

    /// What the encoder reads.
    fn embed(&self, images: &Tensor, mask: &Mask) -> Result<Tensor> {
        let grid = self.config.grid();
        check_images(images, &grid, mask)?;
        let patches = self.patches.forward(images, &grid);
        let tokens = if self.config.drop_masked {
            let positions = &self.encoder_positions;
            let patches = mask.seen(&(patches + positions.narrow(1, 1, grid.patches())));
            with_class_token(&(&self.class_token + positions.narrow(1, 0, 1)), &patches)
        } else {
            let patches = mask.filled(&mask.seen(&patches), &self.mask_token);
            with_class_token(&self.class_token, &patches) + &self.positions
        };
        Ok(tokens)
    }
}

impl Autoencoder for CrateMae {
    fn config(&self) -> AutoencoderConfig {
        AutoencoderConfig::CrateMae(self.config.clone())
    }

    fn latent(&self, images: &Tensor, mask: &Mask, probe: &mut dyn Probe) -> Result<Tensor> {
        let z = self.embed(images, mask)?;
        show(probe, 0, Site::Embed, &z);
        Ok(self.norm.forward(&through(&self.encoder, z, self.recompute, probe)))
    }

    fn decode(&self, latent: &Tensor, mask: &Mask, probe: &mut dyn Probe) -> Result<Tensor> {
        let y = if self.config.drop_masked {
            let patches = latent.narrow(1, 1, latent.size()[1] - 1);
            with_class_token(&latent.narrow(1, 0, 1), &mask.filled(&patches, &self.mask_token)) + &self.positions
        } else {
            latent.shallow_clone()
        };
        let mut probe = crate::config::Later { first: self.encoder.len(), probe };
        let y = self.decoder_norm.forward(&through(&self.decoder, y, self.recompute, &mut probe));
        Ok(self.prediction.forward(&y.narrow(1, 1, y.size()[1] - 1)))
    }

    fn recompute_layers(&mut self, on: bool) {
        self.recompute = on;
    }
}
