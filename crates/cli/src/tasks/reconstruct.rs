//! Masked autoencoding: a part of an image's patches is hidden, and the model is trained to say what they show. Labels are not used.
//!
//! Masks of training come from libtorch's generator, whose state is in every checkpoint: a resumed run hides the same patches as one
//! left alone. Masks of an evaluation come from the images' positions in their set: every evaluation measures the same.

mod run;

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Result;
use tch::{Device, Kind, Tensor, nn};
use whitebox_autoencoder::{Autoencoder, AutoencoderConfig, Masking};
use whitebox_datasets::{Batch, Loader};
use whitebox_model::embed::Grid;
use whitebox_model::probe::NoProbe;
use whitebox_model::weights::{self, Card, LoadOptions, Weights};
use whitebox_train::{BoxError, Loss, Task, TrainConfig};

use crate::checkpoint::{Opened, load};
use crate::data::Sets;
use crate::images::{check_fit, images_of};
use crate::memory;
use crate::recipe::ReconstructConfig;
use crate::reconstruction::evaluate;
use crate::tasks::trainable;

pub use run::ROWS;

/// An autoencoder on a device, and what it takes to train and measure it.
pub struct Reconstruct {
    store: nn::VarStore,
    model: Box<dyn Autoencoder>,
    grid: Grid,
    /// What its checkpoints say of themselves.
    card: Card<AutoencoderConfig>,
    config: ReconstructConfig,
    sets: Sets,
    validation: Loader,
    /// Training images that could not be decoded and were left out, as far as this process has met them.
    skipped: BTreeSet<String>,
}

impl Reconstruct {
    /// Draws a model from the seed of `train` on `device`.
    fn new(
        card: Card<AutoencoderConfig>,
        device: Device,
        train: &TrainConfig,
        config: &ReconstructConfig,
        sets: Sets,
        validation: Loader,
    ) -> Result<Self> {
        let grid = card.model.grid();
        check_fit(&validation, &grid)?;
        memory::check(card.model.cost(&config.masking).training_bytes(1, 2), device)?;
        tch::manual_seed(train.seed as i64);
        let store = nn::VarStore::new(device);
        let mut model = card.model.build(&store.root())?;
        model.recompute_layers(train.recompute);
        Ok(Self { store, model, grid, card, config: config.clone(), sets, validation, skipped: BTreeSet::new() })
    }
}

/// An autoencoder read from a file, ready to be used.
pub fn load_autoencoder(opened: &Opened<AutoencoderConfig>, device: Device) -> Result<Box<dyn Autoencoder>> {
    let Opened { weights, config, .. } = opened;
    let parameters = config.cost(&Masking::default()).parameters;
    Ok(load(weights, parameters, LoadOptions::default(), device, |root| config.build(root))?.1)
}

impl Task for Reconstruct {
    type Batch = Batch;

    fn variables(&self) -> Vec<(String, Tensor)> {
        trainable(&self.store)
    }

    fn device(&self) -> Device {
        self.store.device()
    }

    fn loss(&mut self, batch: &Batch) -> Result<Option<Loss>, BoxError> {
        self.skipped.extend(batch.skipped.iter().cloned());
        if batch.labels.is_empty() {
            return Ok(None);
        }
        self.model.set_training(true);
        let images = images_of(batch, self.device());
        let mask = self.config.masking.draw(images.size()[0], self.grid.shape(), self.device())?;
        let prediction = self.model.forward(&images, &mask, &mut NoProbe)?.to_kind(Kind::Float);
        let loss = self.config.loss.forward(&images, &prediction, &mask, &self.grid)?;
        Ok(Some(Loss { loss, samples: batch.labels.len() as u64, scalars: Vec::new() }))
    }

    fn evaluate(&mut self, progress: &mut dyn FnMut(u64, u64)) -> Result<Vec<(String, f64)>, BoxError> {
        self.model.set_training(false);
        let found = evaluate(self.model.as_ref(), &self.config, &self.validation, self.device(), progress)?;
        Ok(found.metrics())
    }

    fn save_model(&self, path: &Path) -> Result<(), BoxError> {
        Ok(weights::save(path, &self.store.variables(), &self.card)?)
    }

    fn load_model(&mut self, path: &Path) -> Result<(), BoxError> {
        Ok(Weights::open(path)?.load_into(&self.store.variables(), LoadOptions::default())?)
    }
}
