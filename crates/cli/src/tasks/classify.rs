//! Supervised image classification: cross-entropy on logits, accuracy on validation images.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, bail};
use tch::{Device, Kind, Tensor, nn};
use whitebox_datasets::{Batch, Dataset, Loader};
use whitebox_model::probe::NoProbe;
use whitebox_model::weights::{self, Card, LoadOptions, Regrid, Weights};
use whitebox_model::{ModelConfig, VisionModel};
use whitebox_train::{BoxError, Loss, Mix, Task, TrainConfig, cross_entropy, soft_cross_entropy, soft_targets};

use crate::checkpoint;
use crate::evaluate::evaluate;
use crate::memory;
use crate::recipe::{ClassWeights, ClassifyConfig, InitConfig, WeightRule};

/// A model on a device, and what it takes to train and measure it.
pub struct Classify {
    store: nn::VarStore,
    /// The model.
    pub model: Box<dyn VisionModel>,
    /// What its checkpoints say of themselves.
    pub card: Card,
    classify: ClassifyConfig,
    class_weights: Option<Tensor>,
    validation: Loader,
    /// Training images that could not be decoded and were left out, as far as this process has met them.
    pub skipped: BTreeSet<String>,
}

impl Classify {
    /// Draws a model from the seed of `train` on `device`. `images` are those that it will learn from.
    pub fn new(
        card: Card,
        device: Device,
        train: &TrainConfig,
        classify: &ClassifyConfig,
        images: &dyn Dataset,
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
        let class_weights = class_weights(classify.class_weights.as_ref(), images)?.map(|w| w.to_device(device));
        let classify = classify.clone();
        Ok(Classify { store, model, card, classify, class_weights, validation, skipped: BTreeSet::new() })
    }

    /// Takes the weights of another run's model; says in a sentence what was taken.
    pub fn begin_from(&mut self, init: &InitConfig) -> Result<String> {
        let (path, model) = (init.checkpoint.as_path(), &self.card.model);
        let opened = checkpoint::open(Some(path), None, &[]).context("init.checkpoint")?;
        let [theirs, ours] = [&opened.config, model].map(|config| config.grid().shape());
        let replace_head = init.new_head || opened.config.classes() != model.classes();
        let options =
            LoadOptions { replace_head, positions: (theirs != ours).then_some(Regrid { from: theirs, to: ours }) };
        opened.weights.load_into(&self.store.variables(), options)?;
        let head = if replace_head { ", with a new head" } else { "" };
        let positions = match theirs == ours {
            true => String::new(),
            false => format!(", positions interpolated from {theirs:?} to {ours:?} patches"),
        };
        Ok(format!("beginning with the weights of {}{head}{positions}", opened.weights.path.display()))
    }

    /// The loader of validation images.
    pub fn validation(&self) -> &Loader {
        &self.validation
    }
}

/// `[classes]`, where classes do not all weigh the same.
fn class_weights(wanted: Option<&ClassWeights>, images: &dyn Dataset) -> Result<Option<Tensor>> {
    let classes = images.classes().len();
    let weights: Vec<f32> = match wanted {
        None => return Ok(None),
        Some(ClassWeights::Each(weights)) if weights.len() == classes => weights.iter().map(|&w| w as f32).collect(),
        Some(ClassWeights::Each(weights)) => {
            bail!("task.class_weights holds {} numbers, the data has {classes} classes", weights.len())
        }
        Some(ClassWeights::Rule(WeightRule::Balanced)) => {
            let mut counts = vec![0u64; classes];
            (0..images.len()).for_each(|i| counts[images.label(i)] += 1);
            if let Some(class) = counts.iter().position(|&count| count == 0) {
                let name = &images.classes()[class];
                bail!("task.class_weights = \"balanced\": there is no training image of the class {name:?}");
            }
            counts.iter().map(|&count| images.len() as f32 / (classes as f32 * count as f32)).collect()
        }
    };
    Ok(Some(Tensor::from_slice(&weights)))
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
    weights.load_into(&store.variables(), LoadOptions::default())?;
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
        self.model.set_training(true);
        let ClassifyConfig { label_smoothing, mix, .. } = &self.classify;
        let images = images_of(batch, self.device());
        let labels = Tensor::from_slice(&batch.labels).to_device(self.device());
        let [_, _, height, width] = batch.shape.map(|x| x as i64);
        let weights = self.class_weights.as_ref();
        // The accuracy is that on the labels of the images that were asked for, even where a part of another lies over them.
        let (logits, loss) = match mix.draw([height, width])? {
            Mix::None => {
                let logits = self.model.forward(&images, &mut NoProbe)?;
                let loss = cross_entropy(&logits.to_kind(Kind::Float), &labels, *label_smoothing, weights)?;
                (logits, loss)
            }
            mix => {
                let targets = soft_targets(&labels, self.card.model.classes(), *label_smoothing)?;
                let (images, targets) = mix.apply(&images, &targets)?;
                let logits = self.model.forward(&images, &mut NoProbe)?;
                let loss = soft_cross_entropy(&logits.to_kind(Kind::Float), &targets, weights)?;
                (logits, loss)
            }
        };
        let accuracy = logits.detach().argmax(-1, false).eq_tensor(&labels).to_kind(Kind::Float).mean(Kind::Float);
        Ok(Some(Loss { loss, samples: batch.labels.len() as u64, scalars: vec![("accuracy", accuracy)] }))
    }

    fn evaluate(&mut self, progress: &mut dyn FnMut(u64, u64)) -> Result<Vec<(String, f64)>, BoxError> {
        self.model.set_training(false);
        let found = evaluate(self.model.as_ref(), &self.validation, self.device(), progress)?;
        Ok(found.metrics())
    }

    fn save_model(&self, path: &Path) -> Result<(), BoxError> {
        Ok(weights::save(path, &self.store.variables(), &self.card)?)
    }

    fn load_model(&mut self, path: &Path) -> Result<(), BoxError> {
        Ok(Weights::open(path)?.load_into(&self.store.variables(), LoadOptions::default())?)
    }
}
