//! Layer measures of a model on the first images of a set, coding rate and sparsity, before the first step and after the last.

use anyhow::{Context, Result};
use tch::{Device, Tensor};
use whitebox_analysis::{LayerComparison, LayerStats, LayerwiseProbe};
use whitebox_datasets::Loader;
use whitebox_model::Probe;

use crate::images::show_first;
use crate::recipe::Named;
use crate::run_folder::RunFolder;
use crate::tasks::Run;

/// Where the measures of the untrained model lie in a run.
const BEFORE: &str = "layers-before.json";

/// Layers as they were measured, and on how many images.
pub type Measured = (Vec<LayerStats>, u64);

/// Measures every layer on at least the first `images` images of the loader's set (whole batches are taken). `show` runs a model with `heads`
/// subspaces on images and shows its layers to a probe.
pub fn measure(
    heads: i64,
    loader: &Loader,
    device: Device,
    images: usize,
    mut show: impl FnMut(&Tensor, &mut dyn Probe) -> whitebox_model::Result<Tensor>,
) -> Result<Measured> {
    let mut probe = LayerwiseProbe::new(heads as usize);
    let seen = show_first(loader, device, images as u64, &mut |_, _| (), |images| {
        let _ = show(images, &mut probe)?;
        Ok(())
    })?;
    Ok((probe.finish()?, seen))
}

/// Keeps what `measure` finds on as many images as the recipe asks for in a run's folder, where no earlier sitting did.
pub fn keep_before(named: &Named, folder: &RunFolder, measure: impl FnOnce(usize) -> Result<Measured>) -> Result<()> {
    let images = named.recipe.report.layer_images;
    if images == 0 || folder.path.join(BEFORE).exists() {
        return Ok(());
    }
    folder.write(BEFORE, serde_json::to_string(&measure(images)?.0)?.as_bytes())
}

/// The layers before the first step beside those that `measure` finds now, where the former were kept. `note` says what was seen.
pub fn comparison(
    run: &Run<'_>,
    note: &str,
    measure: impl FnOnce(usize) -> Result<Measured>,
) -> Result<Option<LayerComparison>> {
    let images = run.named.recipe.report.layer_images;
    let path = run.folder.path.join(BEFORE);
    if images == 0 || !path.exists() {
        return Ok(None);
    }
    let (after, images) = measure(images)?;
    let text = std::fs::read_to_string(&path).with_context(|| format!("{} cannot be read", path.display()))?;
    let before = serde_json::from_str(&text).with_context(|| format!("{} is damaged", path.display()))?;
    Ok(Some(LayerComparison { before, after, images, note: note.into() }))
}
