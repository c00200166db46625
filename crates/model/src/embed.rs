//! From an image to tokens: patches, their embedding, the class token and learned positions.
//!
//! CRATE's embedding is `LN -> Linear -> LN` on flattened patches whose pixels are ordered (row, column, channel). The
//! position table has one row for the class token and one for each patch, row by row. For an image of another size the
//! patches' part of the table is interpolated bicubically to the new grid (half-pixel centres, no antialiasing), as DINO
//! and the CRATE notebooks do it, but to the exact grid instead of by a factor with 0.1 added.
//!
//! The other models, and a CRATE that begins as the encoder of a CRATE-MAE, embed by a convolution whose stride is its size
//! ([`ConvolutionEmbedding`]).

use tch::nn::{Init, Path};
use tch::{Kind, Tensor};

use crate::block::LAYER_NORM_EPS;
use crate::layers::{LayerNorm, Linear, LinearInit, uniform, without_autocast};
use crate::patch_tokens::Parts;
use crate::{Error, Result};

/// The grid of patches on an image: sizes are `[height, width]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// Image size in pixels.
    pub image: [i64; 2],
    /// Patch size in pixels.
    pub patch: [i64; 2],
    /// Channels of the image.
    pub channels: i64,
}

impl Grid {
    /// Rows and columns of patches.
    pub fn shape(&self) -> [i64; 2] {
        [self.image[0] / self.patch[0], self.image[1] / self.patch[1]]
    }

    /// Number of patches N.
    pub fn patches(&self) -> i64 {
        self.shape().iter().product()
    }

    /// Numbers in a flattened patch.
    pub fn patch_dim(&self) -> i64 {
        self.patch[0] * self.patch[1] * self.channels
    }

    /// Refuses sizes that are not positive or do not divide.
    pub fn check(&self) -> Result<()> {
        let Grid { image, patch, channels } = *self;
        let reasonable = |x: i64| (1..=1 << 20).contains(&x);
        if !image.iter().chain(&patch).chain([&channels]).all(|&x| reasonable(x)) {
            return Err(Error::Config(format!(
                "image {image:?}, patch {patch:?} and channels {channels} must be positive (and below a million)"
            )));
        }
        if image[0] % patch[0] != 0 || image[1] % patch[1] != 0 {
            return Err(Error::Config(format!(
                "the image of {}x{} pixels cannot be cut into patches of {}x{}; choose a patch that divides both sides",
                image[0], image[1], patch[0], patch[1]
            )));
        }
        Ok(())
    }

    /// The same patches on images `[B, C, H, W]` of possibly another size; refuses what cannot be cut.
    pub fn of_images(&self, images: &Tensor) -> Result<Grid> {
        let size = images.size();
        let fits = matches!(size[..], [b, c, h, w]
            if b > 0 && c == self.channels && h > 0 && w > 0 && h % self.patch[0] == 0 && w % self.patch[1] == 0);
        let floating = matches!(images.kind(), Kind::Float | Kind::Double | Kind::Half | Kind::BFloat16);
        if !(fits && floating) {
            return Err(Error::Input {
                found: format!("a {:?} tensor of shape {size:?}", images.kind()),
                expected: format!(
                    "floating-point images [batch, {}, height, width] with height a multiple of {} and width of {}",
                    self.channels, self.patch[0], self.patch[1]
                ),
            });
        }
        Ok(Grid { image: [size[2], size[3]], ..*self })
    }
}

/// Cuts images into flattened patches, row by row, each patch in the order (channel, row, column): whole rows of pixels are
/// moved, where the order (row, column, channel) of CRATE's parameters would take single ones.
///
/// # Shapes
/// `images`: `[B, C, H, W]` to `[B, N, C P1 P2]`.
pub fn patchify(images: &Tensor, grid: &Grid) -> Tensor {
    let ([rows, columns], [p1, p2]) = (grid.shape(), grid.patch);
    images
        .reshape([-1, grid.channels, rows, p1, columns, p2]) // b c h p1 w p2
        .permute([0, 2, 4, 1, 3, 5]) // b h w c p1 p2
        .reshape([-1, rows * columns, grid.patch_dim()])
}

/// Interpolates a table of positions `[1, 1 + N, d]` from one grid of patches to another; row 0, the class token's, stays.
pub fn interpolate_positions(table: &Tensor, from: [i64; 2], to: [i64; 2]) -> Tensor {
    if from == to {
        return table.shallow_clone();
    }
    let d = table.size()[2];
    let class = table.narrow(1, 0, 1);
    let patches = table
        .narrow(1, 1, from[0] * from[1])
        .reshape([1, from[0], from[1], d])
        .permute([0, 3, 1, 2])
        .upsample_bicubic2d(to, false, None, None)
        .permute([0, 2, 3, 1])
        .reshape([1, to[0] * to[1], d]);
    Tensor::cat(&[class, patches], 1)
}

/// Puts the class token `[1, 1, d]` before each image's tokens `[B, N, d]`.
pub fn with_class_token(class: &Tensor, tokens: &Tensor) -> Tensor {
    let (b, d) = (tokens.size()[0], tokens.size()[2]);
    Tensor::cat(&[class.expand([b, 1, d], false).to_kind(tokens.kind()), tokens.shallow_clone()], 1)
}

/// Fixed positions of a grid of patches, `[1, 1 + N, d]` in float32: sines and cosines of the column in the first half of the dimensions, of the row in the
/// second, as MAE has them; the class token's row is zero.
///
/// # Errors
/// A `d` that is no multiple of 4.
pub fn sin_cos_positions([rows, columns]: [i64; 2], d: i64) -> Result<Tensor> {
    if d % 4 != 0 {
        return Err(Error::Config(format!(
            "positions of sines and cosines need a d that is a multiple of 4; found {d}"
        )));
    }
    let options = (Kind::Double, tch::Device::Cpu);
    let frequencies = (Tensor::arange(d / 4, options) * (-(10000f64.ln()) / (d / 4) as f64)).exp();
    let wave = |at: Tensor| {
        let angles = at.reshape([-1, 1]) * &frequencies;
        Tensor::cat(&[angles.sin(), angles.cos()], 1)
    };
    let number = Tensor::arange(rows * columns, options);
    let row = (&number / columns).floor();
    let column = number - &row * columns;
    let table = Tensor::cat(&[wave(column), wave(row)], 1);
    Ok(Tensor::cat(&[Tensor::zeros([1, d], options), table], 0).to_kind(Kind::Float).unsqueeze(0))
}

/// The linear map of patches written as the convolution that it is; parameters `weight`, `[d, C, P1, P2]`, and `bias`.
#[derive(Debug)]
pub struct PatchConvolution {
    weight: Tensor,
    bias: Tensor,
}

impl PatchConvolution {
    /// A convolution under `path`, its weight and bias drawn as said.
    pub fn new(path: &Path<'_>, grid: &Grid, d: i64, weight: Init, bias: Init) -> Self {
        let Grid { patch: [p1, p2], channels, .. } = *grid;
        PatchConvolution {
            weight: path.var("weight", &[d, channels, p1, p2], weight),
            bias: path.var("bias", &[d], bias),
        }
    }

    /// A convolution under `path` as MAE draws it: its weight as a linear map's from Xavier's uniform, its bias zero.
    pub fn xavier(path: &Path<'_>, grid: &Grid, d: i64) -> Self {
        let bound = uniform((6.0 / (grid.patch_dim() + d) as f64).sqrt());
        Self::new(path, grid, d, bound, Init::Const(0.0))
    }

    /// Computed as the one matrix product on patches that it is.
    ///
    /// # Shapes
    /// `images`: `[B, C, H, W]` on `grid`, to `[B, N, d]`.
    pub fn forward(&self, images: &Tensor, grid: &Grid) -> Tensor {
        let weight = self.weight.reshape([-1, grid.patch_dim()]);
        patchify(images, grid).to_kind(weight.kind()).linear(&weight, Some(&self.bias))
    }

    /// The same map with other tensors for its parameters.
    fn map(&self, f: impl Fn(&Tensor) -> Tensor) -> Self {
        PatchConvolution { weight: f(&self.weight), bias: f(&self.bias) }
    }
}

/// Patches by a convolution, the class token before them, learned positions added.
#[derive(Debug)]
pub struct ConvolutionEmbedding {
    pub(crate) patches: PatchConvolution,
    pub(crate) class_token: Tensor,
    pub(crate) positions: Tensor,
    pub(crate) grid: Grid,
}

impl ConvolutionEmbedding {
    /// # Shapes
    /// `images`: `[B, C, H, W]` to tokens `[B, 1 + N, d]`, the class token first.
    pub fn forward(&self, images: &Tensor) -> Result<Tensor> {
        let grid = self.grid.of_images(images)?;
        let tokens = with_class_token(&self.class_token, &self.patches.forward(images, &grid));
        Ok(tokens + interpolate_positions(&self.positions, self.grid.shape(), grid.shape()))
    }

    /// The same embedding with other tensors for its parameters.
    pub(crate) fn map(&self, f: impl Fn(&Tensor) -> Tensor) -> Self {
        let (class_token, positions) = (f(&self.class_token), f(&self.positions));
        ConvolutionEmbedding { patches: self.patches.map(f), class_token, positions, grid: self.grid }
    }
}

/// CRATE's embedding; parameters `to_patch_embedding.{1,2,3}.*`, `cls_token`, `pos_embedding`.
#[derive(Debug)]
pub struct PatchEmbedding {
    norm_patch: LayerNorm,
    linear: Linear,
    norm_token: LayerNorm,
    pub(crate) class_token: Tensor,
    pub(crate) positions: Tensor,
    grid: Grid,
    /// The linear map in the order of [`patchify`], with the scale and shift before it, once it is kept for inference.
    pub(crate) kept: Option<Linear>,
}

impl PatchEmbedding {
    /// The embedding into `d` dimensions; class token and positions are drawn from `N(0, 1)`.
    pub fn new(root: &Path<'_>, grid: Grid, d: i64) -> Self {
        let path = root / "to_patch_embedding";
        let standard_normal = Init::Randn { mean: 0.0, stdev: 1.0 };
        PatchEmbedding {
            norm_patch: LayerNorm::new(&(&path / "1"), grid.patch_dim(), LAYER_NORM_EPS),
            linear: Linear::new(&(&path / "2"), grid.patch_dim(), d, true, LinearInit::PyTorch),
            norm_token: LayerNorm::new(&(&path / "3"), d, LAYER_NORM_EPS),
            class_token: root.var("cls_token", &[1, 1, d], standard_normal),
            positions: root.var("pos_embedding", &[1, grid.patches() + 1, d], standard_normal),
            grid,
            kept: None,
        }
    }

    /// # Shapes
    /// `images`: `[B, C, H, W]` to tokens `[B, 1 + N, d]`, the class token first.
    pub fn forward(&self, images: &Tensor) -> Result<Tensor> {
        let grid = self.grid.of_images(images)?;
        let positions = interpolate_positions(&self.positions, self.grid.shape(), grid.shape());
        let joint;
        let map = match &self.kept {
            Some(kept) => kept,
            None => {
                joint = self.joint();
                &joint
            }
        };
        let (norm, class) = (&self.norm_token, &self.class_token);
        let parts = Parts { eps: self.norm_patch.eps, map, norm, class, positions: &positions };
        if parts.fit(images) {
            return Ok(parts.tokens(images, &grid));
        }
        let patches = self.norm_patch.bare().forward(&patchify(images, &grid));
        let embedded = map.forward(&patches.to_kind(map.weight.kind()));
        Ok(with_class_token(class, &norm.forward(&embedded)) + positions)
    }

    /// The linear map with the scale and shift before it, for patches in the order of [`patchify`]; within autograd's graph.
    fn joint(&self) -> Linear {
        let _plain = without_autocast(self.linear.weight.device());
        let (norm, linear) = self.channels_first();
        linear.joined_to(Some(&norm))
    }

    /// Norm and linear map for patches in the order of [`patchify`].
    pub(crate) fn channels_first(&self) -> (LayerNorm, Linear) {
        let Grid { patch: [p1, p2], channels, .. } = self.grid;
        let turn = |parameter: &Tensor| {
            parameter.reshape([-1, p1, p2, channels]).permute([0, 3, 1, 2]).reshape(parameter.size())
        };
        let norm = self.norm_patch.map(turn);
        (norm, Linear { weight: turn(&self.linear.weight), bias: self.linear.bias.as_ref().map(Tensor::shallow_clone) })
    }

    /// The same embedding with other tensors for its parameters.
    pub(crate) fn map(&self, f: impl Fn(&Tensor) -> Tensor) -> Self {
        PatchEmbedding {
            norm_patch: self.norm_patch.map(&f),
            linear: Linear { weight: f(&self.linear.weight), bias: self.linear.bias.as_ref().map(&f) },
            norm_token: self.norm_token.map(&f),
            class_token: f(&self.class_token),
            positions: f(&self.positions),
            grid: self.grid,
            kept: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use tch::Device;
    use tch::nn::VarStore;

    use super::*;

    /// Values and every gradient of CRATE's embedding against its layers one after the other, on its own grid and on another.
    #[test]
    fn one_operation_is_the_embedding_layer_by_layer() {
        for (kind, tolerance) in [(Kind::Double, 1e-11), (Kind::Float, 1e-4)] {
            let mut vs = VarStore::new(Device::Cpu);
            let grid = Grid { image: [12, 15], patch: [4, 5], channels: 2 };
            let embedding = PatchEmbedding::new(&vs.root(), grid, 24);
            if kind == Kind::Double {
                vs.double();
            }
            let norms = [&embedding.norm_patch, &embedding.norm_token];
            let affine = norms.into_iter().flat_map(LayerNorm::parameters);
            tch::no_grad(|| affine.for_each(|t| drop(t.shallow_clone().uniform_(0.5, 1.5))));
            for size in [[12, 15], [8, 20]] {
                let images = Tensor::randn([3, 2, size[0], size[1]], (kind, Device::Cpu));
                let on = grid.of_images(&images).unwrap();
                let found = embedding.forward(&images).unwrap();
                let (norm, linear) = embedding.channels_first();
                let embedded = linear.forward(&norm.forward(&patchify(&images, &on)));
                let tokens = with_class_token(&embedding.class_token, &embedding.norm_token.forward(&embedded));
                let expected = tokens + interpolate_positions(&embedding.positions, grid.shape(), on.shape());
                let mut variables: Vec<_> = vs.variables().into_iter().collect();
                variables.sort_by(|a, b| a.0.cmp(&b.0));
                let inputs: Vec<Tensor> = variables.iter().map(|(_, t)| t.shallow_clone()).collect();
                let loss = |z: &Tensor| ((z * 1.7).sin() * z).sum(kind);
                let [own, plain] = [&found, &expected].map(|z| Tensor::run_backward(&[loss(z)], &inputs, false, false));
                let near = |a: &Tensor, b: &Tensor, what: &str| {
                    let error = f64::try_from((a - b).norm() / b.norm()).unwrap();
                    assert!(error < tolerance, "{what} in {kind:?} at {size:?}: {error}");
                };
                near(&found, &expected, "the tokens");
                own.iter().zip(&plain).zip(&variables).for_each(|((a, b), (name, _))| near(a, b, name));
                // Gradients by the images come from the layers.
                let wanted = images.set_requires_grad(true);
                near(&embedding.forward(&wanted).unwrap(), &expected, "the tokens of images with gradients");
            }
        }
    }
}
