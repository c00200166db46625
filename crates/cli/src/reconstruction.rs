//! Measuring an autoencoder: what it makes of the patches that it did not see, beside what a guess would be.
//!
//! The guess knows the visible pixels alone: every hidden pixel is their mean, channel by channel. Both errors are mean squared errors
//! over the pixels of hidden patches, in the units of the model's input (normalised pixels). A model that was trained on patches of
//! mean 0 and deviation 1 (`norm_pix`) predicts no more than the pattern of a patch; its prediction is brought back with the mean and
//! the deviation of the true patch, so that its error is not to be compared with that of others.

use anyhow::{Result, bail};
use tch::{Device, Kind, Tensor};
use whitebox_autoencoder::{Autoencoder, Mask, ReconstructionLoss};
use whitebox_autoencoder::{denormalised, mean_of_visible};
use whitebox_datasets::Loader;
use whitebox_model::embed::Grid;
use whitebox_model::probe::NoProbe;

use crate::images::{first_of, images_of};
use crate::recipe::ReconstructConfig;

/// The names that [`Evaluation::metrics`] may give.
pub const MEASURES: [&str; 4] = ["loss", "masked_mse", "visible_mean_mse", "ratio"];

/// A batch of images, what was hidden of them and what the model makes of it.
pub struct Reconstructed {
    /// `[B, C, H, W]`.
    pub images: Tensor,
    /// What was hidden.
    pub mask: Mask,
    /// What the loss compares, `[B, N, pixels of a patch]`.
    pub prediction: Tensor,
    /// The same in the units of `images`.
    pub pixels: Tensor,
}

/// Runs a model on images of which `mask` hides a part.
pub fn reconstruct(
    model: &dyn Autoencoder,
    images: Tensor,
    mask: Mask,
    loss: &ReconstructionLoss,
    grid: &Grid,
) -> Result<Reconstructed> {
    let prediction = tch::no_grad(|| model.forward(&images, &mask, &mut NoProbe))?.to_kind(Kind::Float);
    let pixels = match loss.norm_pix {
        true => denormalised(&prediction, &images, grid)?,
        false => prediction.shallow_clone(),
    };
    Ok(Reconstructed { images, mask, prediction, pixels })
}

/// The errors of single images on their hidden patches.
#[derive(Clone, Debug, Default)]
pub struct Errors {
    /// The model's.
    pub masked: Vec<f64>,
    /// Those of the mean over the visible pixels.
    pub visible_mean: Vec<f64>,
}

impl Reconstructed {
    /// One number for each image; not a number where nothing was hidden.
    pub fn errors(&self, grid: &Grid) -> Result<Errors> {
        let plain = ReconstructionLoss { norm_pix: false, ..ReconstructionLoss::default() };
        let hidden = self.mask.masked.sum_dim_intlist([1i64].as_slice(), false, Kind::Float);
        let mean = |prediction: &Tensor| -> Result<Vec<f64>> {
            let by_patch = plain.by_patch(&self.images, prediction, grid)? * &self.mask.masked;
            let by_image = by_patch.sum_dim_intlist([1i64].as_slice(), false, Kind::Float) / &hidden;
            Ok(Vec::<f64>::try_from(by_image.to_kind(Kind::Double).to_device(Device::Cpu))?)
        };
        Ok(Errors {
            masked: mean(&self.pixels)?,
            visible_mean: mean(&mean_of_visible(&self.images, &self.mask, grid)?)?,
        })
    }
}

/// A whole set's measures.
#[derive(Clone, Debug)]
pub struct Evaluation {
    /// The recipe's own loss, the mean over images.
    pub loss: f64,
    /// Mean squared error on hidden patches; none where nothing is hidden.
    pub masked_mse: Option<f64>,
    /// That of the mean over the visible pixels.
    pub visible_mean_mse: Option<f64>,
    /// Images measured.
    pub images: u64,
    /// Images left out because they could not be decoded.
    pub skipped: Vec<String>,
}

impl Evaluation {
    /// The measures by name.
    pub fn metrics(&self) -> Vec<(String, f64)> {
        let mut metrics = vec![("loss".to_owned(), self.loss)];
        if let (Some(model), Some(guess)) = (self.masked_mse, self.visible_mean_mse) {
            metrics.extend([("masked_mse".to_owned(), model), ("visible_mean_mse".to_owned(), guess)]);
            metrics.push(("ratio".to_owned(), model / guess));
        }
        metrics
    }
}

/// Runs the model over a loader's whole set. The mask of an image is drawn from its position in the set, and so is the same at every
/// evaluation. `progress` takes (batches done, batches in all).
pub fn evaluate(
    model: &dyn Autoencoder,
    config: &ReconstructConfig,
    loader: &Loader,
    device: Device,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Evaluation> {
    let grid = model.config().grid();
    let hides = config.masking.kept(grid.patches()) < grid.patches();
    let (mut loss, mut masked, mut guess) = (0.0, 0.0, 0.0);
    let (mut images, mut skipped) = (0u64, Vec::new());
    let total = loader.batches_per_epoch() as u64;
    for (done, batch) in loader.epoch(0, 0).enumerate() {
        let batch = batch?;
        skipped.extend(batch.skipped.iter().cloned());
        if !batch.labels.is_empty() {
            let seeds: Vec<u64> = batch.indices.iter().map(|&index| index as u64).collect();
            let mask = config.masking.seeded(&seeds, grid.shape(), device)?;
            let found = reconstruct(model, images_of(&batch, device), mask, &config.loss, &grid)?;
            let mean = config.loss.forward(&found.images, &found.prediction, &found.mask, &grid)?;
            loss += f64::try_from(mean)? * seeds.len() as f64;
            if hides {
                let errors = found.errors(&grid)?;
                masked += errors.masked.iter().sum::<f64>();
                guess += errors.visible_mean.iter().sum::<f64>();
            }
            images += seeds.len() as u64;
        }
        progress(done as u64 + 1, total);
    }
    if images == 0 {
        bail!("not one of the {} images could be evaluated{}", loader.dataset().len(), first_of(&skipped));
    }
    let mean = |sum: f64| sum / images as f64;
    Ok(Evaluation {
        loss: mean(loss),
        masked_mse: hides.then(|| mean(masked)),
        visible_mean_mse: hides.then(|| mean(guess)),
        images,
        skipped,
    })
}
