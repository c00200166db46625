//! Images as rows of pixels, a row for each patch, and back; and what a prediction of them is measured by.
//!
//! The pixels of a patch are in the order (row, column, channel), that of the released codes.
//!
//! ```text
//! pix        mean over pixels of (prediction - target)^2, then over the patches that count
//! norm_pix   the same, each patch of the target brought to mean 0 and deviation 1 first (unbiased variance + 1e-6)
//! ```
//!
//! MAE counts hidden patches alone, and so do the released CRATE-MAE's defaults; the book writes the error of the whole image ([`Over::Whole`]).

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};
use whitebox_model::embed::Grid;
use whitebox_model::{Error, Result};

use crate::masking::Mask;

/// Added to the variance of a patch's pixels.
const PATCH_EPS: f64 = 1e-6;

/// Cuts images into patches.
///
/// # Shapes
/// `images`: `[B, C, H, W]` to `[B, N, P1 P2 C]`.
///
/// # Errors
/// Images that the patches don't divide.
pub fn to_patches(images: &Tensor, grid: &Grid) -> Result<Tensor> {
    let grid = grid.of_images(images)?;
    let ([rows, columns], [p1, p2]) = (grid.shape(), grid.patch);
    Ok(images
        .reshape([-1, grid.channels, rows, p1, columns, p2]) // b c h p1 w p2
        .permute([0, 2, 4, 3, 5, 1]) // b h w p1 p2 c
        .reshape([-1, rows * columns, grid.patch_dim()]))
}

/// Puts patches together to images of the grid's size.
///
/// # Shapes
/// `patches`: `[B, N, P1 P2 C]` to `[B, C, H, W]`.
///
/// # Errors
/// Patches of another number or size.
pub fn from_patches(patches: &Tensor, grid: &Grid) -> Result<Tensor> {
    let ([rows, columns], [p1, p2], c) = (grid.shape(), grid.patch, grid.channels);
    check_patches(patches, grid)?;
    Ok(patches
        .reshape([-1, rows, columns, p1, p2, c]) // b h w p1 p2 c
        .permute([0, 5, 1, 3, 2, 4]) // b c h p1 w p2
        .reshape([-1, c, rows * p1, columns * p2]))
}

fn check_patches(patches: &Tensor, grid: &Grid) -> Result<()> {
    let size = patches.size();
    if matches!(size[..], [b, n, pixels] if b > 0 && n == grid.patches() && pixels == grid.patch_dim()) {
        return Ok(());
    }
    let expected = format!("patches [batch, {}, {}]", grid.patches(), grid.patch_dim());
    Err(Error::Input { found: format!("a tensor of shape {size:?}"), expected })
}

/// Which patches count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Over {
    /// Hidden ones alone.
    #[default]
    Masked,
    /// All.
    Whole,
}

/// The squared error of a reconstruction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReconstructionLoss {
    /// Which patches count. Default: masked.
    pub over: Over,
    /// Whether each patch of the target is normalised first. Default: false.
    pub norm_pix: bool,
}

impl ReconstructionLoss {
    /// The loss, a scalar in float32.
    ///
    /// # Shapes
    /// `images`: `[B, C, H, W]`; `prediction`: `[B, N, P1 P2 C]`.
    ///
    /// # Errors
    /// Shapes that don't belong together; a mask that hides nothing where hidden patches alone count.
    pub fn forward(&self, images: &Tensor, prediction: &Tensor, mask: &Mask, grid: &Grid) -> Result<Tensor> {
        let by_patch = self.by_patch(images, prediction, grid)?;
        match self.over {
            Over::Whole => Ok(by_patch.mean(Kind::Float)),
            Over::Masked if mask.keep.size()[1] == mask.restore.size()[1] => Err(Error::Config(
                "no patch is hidden, so there is no error on hidden ones: over = \"whole\" counts all patches".into(),
            )),
            Over::Masked => Ok((by_patch * &mask.masked).sum(Kind::Float) / mask.masked.sum(Kind::Float)),
        }
    }

    /// The error of every patch, `[B, N]` in float32.
    ///
    /// # Errors
    /// As [`ReconstructionLoss::forward`].
    pub fn by_patch(&self, images: &Tensor, prediction: &Tensor, grid: &Grid) -> Result<Tensor> {
        let grid = grid.of_images(images)?;
        check_patches(prediction, &grid)?;
        let target = to_patches(images, &grid)?.to_kind(Kind::Float);
        let target = if self.norm_pix { normalised(&target) } else { target };
        let error = prediction.to_kind(Kind::Float) - target;
        Ok(error.square().mean_dim(-1, false, Kind::Float))
    }
}

fn normalised(target: &Tensor) -> Tensor {
    let mean = target.mean_dim(-1, true, Kind::Float);
    let variance = target.var_dim([-1].as_slice(), true, true);
    (target - mean) / (variance + PATCH_EPS).sqrt()
}

/// A prediction of normalised patches in the images' own units, by each target patch's mean and deviation, which the network does not know: for pictures.
///
/// # Shapes
/// As [`ReconstructionLoss::forward`]; the result has `prediction`'s.
///
/// # Errors
/// Shapes that don't belong together.
pub fn denormalised(prediction: &Tensor, images: &Tensor, grid: &Grid) -> Result<Tensor> {
    let grid = grid.of_images(images)?;
    check_patches(prediction, &grid)?;
    let target = to_patches(images, &grid)?.to_kind(Kind::Float);
    let deviation = (target.var_dim([-1].as_slice(), true, true) + PATCH_EPS).sqrt();
    Ok(prediction.to_kind(Kind::Float) * deviation + target.mean_dim(-1, true, Kind::Float))
}

/// The prediction of a network that knows nothing: every pixel is the mean over the pixels of its channel that are seen.
///
/// # Shapes
/// `images`: `[B, C, H, W]` to `[B, N, P1 P2 C]`.
///
/// # Errors
/// Images that the patches don't divide.
pub fn mean_of_visible(images: &Tensor, mask: &Mask, grid: &Grid) -> Result<Tensor> {
    let grid = grid.of_images(images)?;
    let (b, n, c) = (images.size()[0], grid.patches(), grid.channels);
    let patches = to_patches(images, &grid)?.to_kind(Kind::Float).reshape([b, n, -1, c]);
    let seen: Tensor = 1.0 - &mask.masked;
    let seen = seen.reshape([b, n, 1, 1]);
    let pixels = seen.sum_dim_intlist([1].as_slice(), true, Kind::Float) * patches.size()[2];
    let sum = (&patches * seen).sum_dim_intlist([1, 2].as_slice(), true, Kind::Float);
    Ok((sum / pixels).expand_as(&patches).reshape([b, n, -1]))
}
