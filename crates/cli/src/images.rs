//! Images as the models take them: batches of a loader and single files, as tensors.

use std::path::Path;

use anyhow::{Context, Result, bail};
use tch::{Device, Tensor};
use whitebox_datasets::{Batch, Loader, SampleRng, Size, Transform, decode};
use whitebox_model::embed::Grid;

use crate::data::DataConfig;

/// Whether the images of a loader are those that a model with this grid of patches takes.
pub fn check_fit(loader: &Loader, grid: &Grid) -> Result<()> {
    let [channels, height, width] = loader.image_shape().map(|x| x as i64);
    let [rows, columns] = grid.image;
    if [channels, height, width] != [grid.channels, rows, columns] {
        bail!(
            "the data gives images of {channels} channels and {height}x{width} pixels, the model takes {} and {rows}x{columns}: change \
             data.channels or data.train/data.eval, or model.channels and model.image",
            grid.channels,
        );
    }
    Ok(())
}

/// A batch's images on a device, `[B, C, H, W]`.
pub fn images_of(batch: &Batch, device: Device) -> Tensor {
    Tensor::from_slice(&batch.images).view(batch.shape.map(|x| x as i64)).to_device(device)
}

/// Hands the first images of a loader's set to `show`, batch by batch, until at least `wanted` were seen; gives how many. `progress` takes
/// (images done, images in all).
pub fn show_first(
    loader: &Loader,
    device: Device,
    wanted: u64,
    progress: &mut dyn FnMut(u64, u64),
    mut show: impl FnMut(&Tensor) -> Result<()>,
) -> Result<u64> {
    let total = wanted.min(loader.dataset().len() as u64);
    let mut seen = 0;
    for batch in loader.epoch(0, 0) {
        let batch = batch?;
        if !batch.labels.is_empty() {
            tch::no_grad(|| show(&images_of(&batch, device)))?;
            seen += batch.labels.len() as u64;
        }
        progress(seen.min(total), total);
        if seen >= wanted {
            break;
        }
    }
    Ok(seen)
}

/// `; the first: ...` of images that were left out.
pub fn first_of(skipped: &[String]) -> String {
    skipped.first().map_or(String::new(), |s| format!("; the first: {s}"))
}

/// An image file as a model with this grid takes it, `[1, C, H, W]`, and whether it had to be resized beyond the recipe's own steps.
pub fn prepared(path: &Path, data: &DataConfig, grid: &Grid) -> Result<(Tensor, bool)> {
    let bytes = std::fs::read(path).with_context(|| format!("{} cannot be read", path.display()))?;
    let image = decode(&bytes, &path.display().to_string())?;
    let [height, width] = grid.image.map(|x| x as usize);
    let wanted = [grid.channels as usize, height, width];
    let mut pipeline = data.eval_pipeline()?;
    let resized = pipeline.output_shape([image.height, image.width]) != wanted;
    if resized {
        let mut steps = data.eval.clone();
        steps.push(Transform::Resize { size: Size::Exact([height, width]), filter: Default::default() });
        pipeline = data.pipeline(steps)?;
        if pipeline.output_shape([image.height, image.width]) != wanted {
            bail!("the model takes {} channels, its recipe prepares {}", grid.channels, data.channels);
        }
    }
    let mut buffer = vec![0f32; wanted.iter().product()];
    pipeline.apply(image, &mut SampleRng::new(0, 0, 0), &mut buffer).with_context(|| path.display().to_string())?;
    Ok((Tensor::from_slice(&buffer).view([1, wanted[0] as i64, height as i64, width as i64]), resized))
}
