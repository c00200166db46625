//! Which images a network is looked at with: both parts of a set, or a user's own.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use tch::{Device, Tensor};
use whitebox_datasets::{Dataset, ImageFolder, Loader, Size, Subset, Transform};
use whitebox_model::embed::Grid;

use crate::data::DataConfig;
use crate::images::images_of;
use crate::recipe;

/// What `--data` names.
pub enum Named<'a> {
    /// A recipe, whose set is meant.
    Recipe(&'a str),
    /// Files and folders of images.
    Files(&'a [PathBuf]),
}

/// Tells the two apart.
pub fn named(values: &[PathBuf]) -> Result<Option<Named<'_>>> {
    let [one] = values else { return Ok((!values.is_empty()).then_some(Named::Files(values))) };
    let is_recipe = !one.exists() || one.extension().is_some_and(|end| end == "toml");
    match one.to_str().filter(|_| is_recipe) {
        Some(name) => {
            recipe::load(name, &[]).with_context(|| format!("--data {name} is no file or folder of images here"))?;
            Ok(Some(Named::Recipe(name)))
        }
        None => Ok(Some(Named::Files(values))),
    }
}

/// Images with their names in figures; the first are those that single images are taken from.
pub struct Images {
    parts: Vec<(&'static str, Arc<dyn Dataset>)>,
    data: DataConfig,
    /// What was done to a user's own images so that they fit.
    pub note: Option<String>,
}

impl Images {
    /// Both parts of a recipe's set.
    pub fn of_set(data: &DataConfig) -> Result<Self> {
        let sets = data.open()?;
        let parts = vec![("validation", sets.validation), ("training", sets.train)];
        Ok(Images { parts, data: data.clone(), note: None })
    }

    /// A user's own, as a model with this grid of patches takes them.
    pub fn of_files(files: &[PathBuf], data: &DataConfig, grid: &Grid) -> Result<Self> {
        let set = Arc::new(ImageFolder::unlabelled(files)?);
        if data.channels as i64 != grid.channels {
            bail!("the model takes {} channels, its recipe prepares {}", grid.channels, data.channels);
        }
        let data = resized(data, grid.image);
        let [height, width] = grid.image;
        let kind = if data.channels == 1 { "grey" } else { "red, green and blue, grey being repeated" };
        let note = format!(
            "The images are {} files of the user's own, whatever their size brought to {height} x {width} pixels by the model's own steps and a resize, and to {kind}.",
            whitebox_analysis::count(set.len() as u64)
        );
        Ok(Images { parts: vec![("given", set)], data, note: Some(note) })
    }

    /// A loader of at most about `wanted` images of each part, evenly out of it (its first images may all be of one class).
    pub fn loaders(&self, wanted: u64) -> Result<Vec<(&'static str, Loader)>> {
        self.parts.iter().map(|(name, set)| Ok((*name, self.data.eval_loader(evenly(set, wanted)?)?))).collect()
    }

    /// The first part's images, evenly out of it, `[N, C, H, W]`; of another size than the model's where one is named.
    pub fn shown(&self, wanted: u64, size: Option<[i64; 2]>) -> Result<Tensor> {
        let Some((_, set)) = self.parts.first() else { bail!("there are no images") };
        let data = size.map_or_else(|| self.data.clone(), |size| resized(&self.data, size));
        first_images(&data.eval_loader(evenly(set, wanted)?)?, wanted)
    }
}

/// The same preparation with a size at its end.
fn resized(data: &DataConfig, size: [i64; 2]) -> DataConfig {
    let mut data = data.clone();
    let exact = Size::Exact(size.map(|x| x.max(1) as usize));
    data.eval.push(Transform::Resize { size: exact, filter: Default::default() });
    data
}

fn evenly(set: &Arc<dyn Dataset>, wanted: u64) -> Result<Arc<dyn Dataset>> {
    let step = (set.len() as u64 / wanted).max(1) as usize;
    Ok(Arc::new(Subset::every_nth(set.clone(), step, 0)?))
}

fn first_images(loader: &Loader, wanted: u64) -> Result<Tensor> {
    for batch in loader.epoch(0, 0) {
        let batch = batch?;
        if !batch.labels.is_empty() {
            let images = images_of(&batch, Device::Cpu);
            return Ok(images.narrow(0, 0, (wanted as i64).min(images.size()[0])));
        }
    }
    bail!("not one of the images could be read")
}
