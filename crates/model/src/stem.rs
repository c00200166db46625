//! How ToST comes from an image to tokens: a stem of convolutions, as XCiT has it, and positions as Fourier features.
//!
//! ```text
//! conv    3x3 convolution of stride 2, BatchNorm, GELU, ... 3x3 convolution of stride 2, BatchNorm      a convolution halves the image: log2(patch) of them
//! patch   the one linear map of patches that ViT has
//! ```
//!
//! BatchNorm normalises by the batch's statistics in training, and moves its running ones towards them by a tenth; in evaluation it normalises by the
//! running ones, so that images do not depend on their neighbours. The count of batches that PyTorch keeps beside them is read by nothing and left out.
//!
//! Positions are made for whatever grid an image has, so nothing is interpolated: for row y of H, `2 pi y / (H + 1e-6)` (counted from 1), divided by
//! 32 wavelengths from 1 to 10000, sines and cosines in turn; the same for columns; rows first. A linear map brings these 64 numbers to dimension d.

use tch::nn::{Init, Path};
use tch::{Device, Kind, Tensor};

use crate::embed::{Grid, PatchConvolution};
use crate::layers::uniform;
use crate::{Error, Result};

/// The most convolutions that a stem has: patches of 64 pixels.
const MOST_HALVINGS: u32 = 6;

/// Features of a row and of a column.
pub(crate) const FEATURES: i64 = 32;

/// How often a stem of convolutions halves the image for patches of this size, so how many there are.
pub(crate) fn halvings(patch: [i64; 2]) -> Option<u32> {
    let count = (1..=MOST_HALVINGS).find(|&count| patch[0] == 1 << count)?;
    (patch[0] == patch[1]).then_some(count)
}

/// What goes in and comes out of each convolution of a stem: channels double until they are d.
pub(crate) fn channels(grid: &Grid, d: i64, halvings: u32) -> Vec<[i64; 2]> {
    let wide = |i: u32| d >> (halvings - i);
    (0..halvings).map(|i| [if i == 0 { grid.channels } else { wide(i) }, wide(i + 1)]).collect()
}

/// Refuses what a stem of convolutions cannot do.
pub(crate) fn check(grid: &Grid, d: i64) -> Result<()> {
    let Some(count) = halvings(grid.patch) else {
        return Err(Error::Config(format!(
            "stem = \"conv\" halves the image at every convolution, so patch = {:?} must be square and a power of two \
             from 2 to 64: choose one, for instance [8, 8], or stem = \"patch\", which takes any",
            grid.patch
        )));
    };
    if d % (1 << (count - 1)) != 0 {
        return Err(Error::Config(format!(
            "d = {d} must be a multiple of {}: stem = \"conv\" doubles its channels from convolution to convolution, \
             {count} of them for patch = {:?}",
            1 << (count - 1),
            grid.patch
        )));
    }
    Ok(())
}

/// Batch normalisation of channels; parameters `weight` (ones) and `bias` (zeros), and the running statistics `running_mean` and `running_var`, which no
/// gradient moves.
#[derive(Debug)]
struct BatchNorm {
    scale: Tensor,
    shift: Tensor,
    mean: Tensor,
    variance: Tensor,
}

impl BatchNorm {
    fn new(path: &Path<'_>, channels: i64) -> Self {
        BatchNorm {
            scale: path.var("weight", &[channels], Init::Const(1.0)),
            shift: path.var("bias", &[channels], Init::Const(0.0)),
            mean: path.zeros_no_train("running_mean", &[channels]),
            variance: path.ones_no_train("running_var", &[channels]),
        }
    }

    fn forward(&self, x: &Tensor, training: bool) -> Tensor {
        let (momentum, eps) = (0.1, 1e-5);
        let [scale, shift, mean, variance] = [&self.scale, &self.shift, &self.mean, &self.variance].map(Some);
        x.batch_norm(scale, shift, mean, variance, training, momentum, eps, true)
    }
}

/// The way from images to the grid of tokens; parameters of convolution i and its BatchNorm `proj.{2i}.0.weight` and `proj.{2i}.1.*`, or `proj.*` of the
/// one linear map.
#[derive(Debug)]
pub(crate) enum Stem {
    Convolutions(Vec<Convolution>),
    Patches(PatchConvolution),
}

/// A convolution of 3x3 pixels and stride 2, and the norm behind it.
#[derive(Debug)]
pub(crate) struct Convolution {
    weight: Tensor,
    norm: BatchNorm,
}

impl Stem {
    /// A stem of convolutions under `path`; the patch has been [checked](check).
    pub fn convolutions(path: &Path<'_>, grid: &Grid, d: i64) -> Self {
        let sizes = channels(grid, d, halvings(grid.patch).unwrap_or(1));
        let convolution = |(i, [from, to]): (usize, [i64; 2])| {
            let path = path / "proj" / (2 * i as i64);
            let weight = (&path / 0).var("weight", &[to, from, 3, 3], uniform(1.0 / ((9 * from) as f64).sqrt()));
            Convolution { weight, norm: BatchNorm::new(&(&path / 1), to) }
        };
        Stem::Convolutions(sizes.into_iter().enumerate().map(convolution).collect())
    }

    /// The one linear map under `path`.
    pub fn patches(path: &Path<'_>, grid: &Grid, d: i64) -> Self {
        let bound = uniform(1.0 / (grid.patch_dim() as f64).sqrt());
        Stem::Patches(PatchConvolution::new(&(path / "proj"), grid, d, bound, bound))
    }

    /// # Shapes
    /// `images`: `[B, C, H, W]` on `grid`, to `[B, N, d]`.
    ///
    /// # Errors
    /// A batch in training that leaves BatchNorm a single number of each channel.
    pub fn forward(&self, images: &Tensor, grid: &Grid, training: bool) -> Result<Tensor> {
        let convolutions = match self {
            Stem::Patches(patches) => return Ok(patches.forward(images, grid)),
            Stem::Convolutions(convolutions) => convolutions,
        };
        if training && images.size()[0] * grid.patches() < 2 {
            return Err(Error::Input {
                found: "a single image of a single patch in training".into(),
                expected: "at least two patches or images, of which BatchNorm takes mean and variance".into(),
            });
        }
        let mut x = images.shallow_clone();
        for (i, Convolution { weight, norm }) in convolutions.iter().enumerate() {
            let read = if i == 0 { x } else { x.gelu("none") };
            x = norm.forward(&read.conv2d(weight, None::<&Tensor>, [2, 2], [1, 1], [1, 1], 1), training);
        }
        Ok(x.flatten(2, 3).transpose(1, 2))
    }
}

/// Fourier features of every place of a grid, before their linear map.
///
/// # Shapes
/// `[H W, 64]`, in float32: row by row; the features of a row, then those of a column.
pub(crate) fn fourier_features([rows, columns]: [i64; 2], device: Device) -> Tensor {
    let options = (Kind::Float, device);
    let pairs = Tensor::arange(FEATURES / 2, options);
    let wavelengths = (pairs * (2.0 / FEATURES as f64 * 10_000f64.ln())).exp(); // 16
    let along = |length: i64| {
        let places = (Tensor::arange(length, options) + 1.0) / (length as f64 + 1e-6) * std::f64::consts::TAU;
        let angles = places.unsqueeze(-1) / &wavelengths;
        Tensor::stack(&[angles.sin(), angles.cos()], 2).reshape([length, FEATURES]) // sine, cosine, sine, ...
    };
    let (y, x) = (along(rows), along(columns));
    let whole = [rows, columns, FEATURES];
    Tensor::cat(&[y.unsqueeze(1).expand(whole, true), x.unsqueeze(0).expand(whole, true)], 2)
        .reshape([rows * columns, 2 * FEATURES])
}
