//! Supervised image classification: cross-entropy on logits, accuracy on validation images.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, bail};
use tch::{Device, Kind, Tensor, nn};
use whitebox_datasets::{Batch, Loader};
use whitebox_model::probe::NoProbe;
use whitebox_model::weights::{self, Card, LoadOptions, Weights};
use whitebox_model::{ModelConfig, VisionModel};
use whitebox_train::{BoxError, Loss, Task, TrainConfig, cross_entropy};

use crate::evaluate::evaluate;
use crate::memory;

/// A model on a device, and what it takes to train and measure it.
pub struct Classify {
    store: nn::VarStore,
    /// The model.
    pub model: Box<dyn VisionModel>,
    /// What its checkpoints say of themselves.
    pub card: Card,
    label_smoothing: f64,
    validation: Loader,
    /// Training images that could not be decoded and were left out, as far as this process has met them.
    pub skipped: BTreeSet<String>,
}

impl Classify {
    /// Draws a model from the seed of `train` on `device`.
    pub fn new(
        card: Card,
        device: Device,
        train: &TrainConfig,
        label_smoothing: f64,
        validation: Loader,
    ) -> Result<Self> {
        check_fit(&validation, &card.model)?;
        let classes = validation.dataset().classes().len() as i64;
        if classes != card.model.classes() {
            bail!("the data has {classes} classes, the model {}: set model.classes={classes}", card.model.classes());
        }
        // Weights, gradients and two moments of each, and what one image leaves behind.
        memory::check(card.model.cost().training_bytes(1, 2), device)?;
        tch::manual_seed(train.seed as i64);
        let store = nn::VarStore::new(device);
        let mut model = card.model.build(&store.root())?;
        model.recompute_layers(train.recompute);
        Ok(Classify { store, model, card, label_smoothing, validation, skipped: BTreeSet::new() })
    }

    /// The loader of validation images.
    pub fn validation(&self) -> &Loader {
        &self.validation
    }
}

/// Whether the images of a loader are those that a model takes.
pub fn check_fit(loader: &Loader, model: &ModelConfig) -> Result<()> {
    let [channels, height, width] = loader.image_shape().map(|x| x as i64);
    let grid = model.grid();
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

/// A model read from a file, ready to be used.
pub fn load_model(weights: &Weights, config: &ModelConfig, device: Device) -> Result<Box<dyn VisionModel>> {
    memory::check(config.cost().parameters.saturating_mul(4), device)
        .with_context(|| weights.path.display().to_string())?;
    let store = nn::VarStore::new(device);
    let model = config.build(&store.root())?;
    weights.load_into(&store.variables(), config, LoadOptions::default())?;
    Ok(model)
}

impl Task for Classify {
    type Batch = Batch;

    fn variables(&self) -> Vec<(String, Tensor)> {
        let mut named: Vec<_> = self.store.variables().into_iter().collect();
        named.sort_by(|a, b| a.0.cmp(&b.0));
        named
    }

    fn device(&self) -> Device {
        self.store.device()
    }

    fn loss(&mut self, batch: &Batch) -> Result<Option<Loss>, BoxError> {
        self.skipped.extend(batch.skipped.iter().cloned());
        if batch.labels.is_empty() {
            return Ok(None);
        }
        let logits = self.model.forward(&images_of(batch, self.device()), &mut NoProbe)?;
        let labels = Tensor::from_slice(&batch.labels).to_device(self.device());
        let loss = cross_entropy(&logits.to_kind(Kind::Float), &labels, self.label_smoothing)?;
        let accuracy = logits.detach().argmax(-1, false).eq_tensor(&labels).to_kind(Kind::Float).mean(Kind::Float);
        Ok(Some(Loss { loss, samples: batch.labels.len() as u64, scalars: vec![("accuracy", accuracy)] }))
    }

    fn evaluate(&mut self, progress: &mut dyn FnMut(u64, u64)) -> Result<Vec<(String, f64)>, BoxError> {
        let found = evaluate(self.model.as_ref(), &self.validation, self.device(), progress)?;
        Ok(found.metrics())
    }

    fn save_model(&self, path: &Path) -> Result<(), BoxError> {
        Ok(weights::save(path, &self.store.variables(), &self.card)?)
    }

    fn load_model(&mut self, path: &Path) -> Result<(), BoxError> {
        Ok(Weights::open(path)?.load_into(&self.store.variables(), &self.card.model, LoadOptions::default())?)
    }
}
