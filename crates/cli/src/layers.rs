//! Layer measures of a model on the first images of a set: coding rate and sparsity, before or after training.

use anyhow::Result;
use tch::Device;
use whitebox_analysis::{LayerStats, LayerwiseProbe};
use whitebox_datasets::Loader;
use whitebox_model::VisionModel;

use crate::images::images_of;

/// Measures every layer on at least the first `images` images of the loader's set (whole batches are taken).
pub fn measure(
    model: &dyn VisionModel,
    loader: &Loader,
    device: Device,
    images: usize,
) -> Result<(Vec<LayerStats>, u64)> {
    let heads = model.config().heads() as usize;
    let mut probe = LayerwiseProbe::new(heads);
    for batch in loader.epoch(0, 0) {
        let batch = batch?;
        if !batch.labels.is_empty() {
            let _ = tch::no_grad(|| model.tokens(&images_of(&batch, device), &mut probe))?;
        }
        if probe.images() >= images as u64 {
            break;
        }
    }
    let seen = probe.images();
    Ok((probe.finish()?, seen))
}
