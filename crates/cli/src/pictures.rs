//! Reconstructions as a picture: a row an image, in four columns.
//!
//! ```text
//! the image | what the model sees | what it predicts, everywhere | what it sees, and its prediction where it sees nothing
//! ```
//!
//! Pixels are taken out of the model's units by the data's mean and deviation and cut to 0..1. Grey squares are hidden patches.

use std::io::Cursor;

use anyhow::{Result, bail};
use image::{ImageFormat, Rgb, RgbImage};
use tch::{Device, Kind, Tensor};
use whitebox_autoencoder::{from_patches, to_patches};
use whitebox_model::embed::Grid;

use crate::data::DataConfig;
use crate::reconstruction::Reconstructed;

/// What a picture's columns show, from left to right.
pub const COLUMNS: &str =
    "the image, what the model sees of it, its prediction, and the prediction in the place of what it does not see";
/// Most pixels of a picture's side.
pub const LARGEST: u32 = 1 << 14;
/// Pixels between images, before they are enlarged.
const GAP: u32 = 2;
/// The shade of what is hidden.
const HIDDEN: f64 = 0.5;

/// The rows of a picture, as they come.
pub struct Pictures {
    grid: Grid,
    mean: Tensor,
    deviation: Tensor,
    /// `[4, C, H, W]` in 0..1, one a row.
    rows: Vec<Tensor>,
}

impl Pictures {
    /// No row yet. `data` tells the units of the images.
    pub fn new(grid: Grid, data: &DataConfig) -> Self {
        let column = |values: &[f64]| Tensor::from_slice(values).to_kind(Kind::Float).view([1, -1, 1, 1]);
        Pictures { grid, mean: column(&data.mean), deviation: column(&data.std), rows: Vec::new() }
    }

    /// Adds a row for each image of a batch.
    pub fn add(&mut self, found: &Reconstructed) -> Result<()> {
        let cpu = |tensor: &Tensor| tensor.to_kind(Kind::Float).to_device(Device::Cpu);
        let plain = |patches: &Tensor| -> Result<Tensor> {
            let images = from_patches(patches, &self.grid)?;
            Ok((images * &self.deviation + &self.mean).clamp(0.0, 1.0))
        };
        let masked = cpu(&found.mask.masked).unsqueeze(-1);
        let seen = 1f64 - &masked;
        let [truth, predicted] = [&to_patches(&found.images, &self.grid)?, &found.pixels].map(cpu);
        // Hidden patches are grey in the picture, whatever the data's mean is: they are laid over at the end.
        let hidden = from_patches(&masked.expand_as(&truth).contiguous(), &self.grid)?;
        let image = plain(&truth)?;
        let visible = &image * (1f64 - &hidden) + &hidden * HIDDEN;
        let composite = plain(&(&truth * &seen + &predicted * &masked))?;
        let columns = Tensor::stack(&[image, visible, plain(&predicted)?, composite], 1);
        self.rows.extend((0..columns.size()[0]).map(|row| columns.get(row)));
        Ok(())
    }

    /// How much images of this grid are enlarged where nobody says: small ones to about a hundred pixels.
    pub fn scale(grid: &Grid) -> u32 {
        let side = grid.image[0].max(grid.image[1]).max(1);
        (112 / side).max(1) as u32
    }

    /// The picture as a PNG, each pixel drawn as `scale` x `scale`.
    pub fn png(&self, scale: u32) -> Result<Vec<u8>> {
        let [height, width] = self.grid.image.map(|side| side as u64);
        let (rows, gap, scale64) = (self.rows.len() as u64, u64::from(GAP), u64::from(scale));
        let whole = [4 * (width + gap) - gap, (rows * (height + gap)).saturating_sub(gap)].map(|side| side * scale64);
        if whole.iter().any(|&side| side == 0 || side > u64::from(LARGEST)) {
            bail!(
                "{rows} rows of images of {width}x{height} pixels, enlarged {scale} times, make a picture of {}x{}: expected sides from 1 \
                 to {LARGEST}; take fewer images or a smaller --scale",
                whole[0],
                whole[1]
            );
        }
        let mut picture = RgbImage::from_pixel(whole[0] as u32, whole[1] as u32, Rgb([255; 3]));
        let (height, width) = (height as u32, width as u32);
        for (at, row) in self.rows.iter().enumerate() {
            // [4, C, H, W] to [4, H, W, C]
            let row = (row * 255.0).round().to_kind(Kind::Uint8).permute([0, 2, 3, 1]).contiguous();
            let channels = row.size()[3] as usize;
            let pixels = Vec::<u8>::try_from(row.view([-1]))?;
            for (place, pixel) in pixels.chunks_exact(channels).enumerate() {
                let place = place as u32;
                let (column, inside) = (place / (height * width), place % (height * width));
                let x = (column * (width + GAP) + inside % width) * scale;
                let y = (at as u32 * (height + GAP) + inside / width) * scale;
                let colour = Rgb(std::array::from_fn(|c| pixel[c.min(channels - 1)]));
                for (dx, dy) in (0..scale).flat_map(|dx| (0..scale).map(move |dy| (dx, dy))) {
                    picture.put_pixel(x + dx, y + dy, colour);
                }
            }
        }
        let mut png = Cursor::new(Vec::new());
        picture.write_to(&mut png, ImageFormat::Png)?;
        Ok(png.into_inner())
    }
}
