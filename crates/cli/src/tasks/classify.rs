//! Supervised image classification: cross-entropy on logits, accuracy on validation images.

mod run;

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Result, bail};
use tch::{Device, Kind, Tensor, nn};
use whitebox_datasets::{Batch, Dataset, Loader};
use whitebox_model::probe::NoProbe;
use whitebox_model::weights::{self, Card, LoadOptions, Weights};
use whitebox_model::{ModelConfig, VisionModel};
use whitebox_train::{BoxError, Loss, Mix, Task, TrainConfig, cross_entropy, soft_cross_entropy, soft_targets};

use crate::checkpoint::{Opened, load};
use crate::data::Sets;
use crate::evaluate::evaluate;
use crate::images::{check_fit, images_of};
use crate::memory;
use crate::recipe::{ClassWeights, ClassifyConfig, WeightRule};

/// A model on a device, and what it takes to train and measure it.
pub struct Classify {
    store: nn::VarStore,
    model: Box<dyn VisionModel>,
    /// What its checkpoints say of themselves.
    card: Card,
    classify: ClassifyConfig,
    class_weights: Option<Tensor>,
    sets: Sets,
    validation: Loader,
    /// Training images that could not be decoded and were left out, as far as this process has met them.
    skipped: BTreeSet<String>,
}

impl Classify {
    /// Draws a model from the seed of `train` on `device`.
    fn new(
        card: Card,
        device: Device,
        train: &TrainConfig,
        classify: &ClassifyConfig,
        sets: Sets,
        validation: Loader,
    ) -> Result<Self> {
        check_fit(&validation, &card.model.grid())?;
        let classes = sets.validation.classes().len() as i64;
        if classes != card.model.classes() {
            bail!("the data has {classes} classes, the model {}: set model.classes={classes}", card.model.classes());
        }
        // Weights, gradients and two moments of each, and what one image leaves behind.
        memory::check(card.model.cost().training_bytes(1, 2), device)?;
        tch::manual_seed(train.seed as i64);
        let store = nn::VarStore::new(device);
        let mut model = card.model.build(&store.root())?;
        model.recompute_layers(train.recompute);
        let class_weights = class_weights(classify.class_weights.as_ref(), sets.train.as_ref())?;
        let class_weights = class_weights.map(|w| w.to_device(device));
        let classify = classify.clone();
        Ok(Classify { store, model, card, classify, class_weights, sets, validation, skipped: BTreeSet::new() })
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

/// A model read from a file, ready to be used; where the file has no head, that is drawn and says nothing.
pub fn load_model(opened: &Opened, device: Device) -> Result<Box<dyn VisionModel>> {
    Ok(load_into_store(&opened.config, &opened.weights, opened.headless, device)?.1)
}

/// The same of weights that are at hand, with the parameters by name.
pub fn load_into_store(
    config: &ModelConfig,
    weights: &Weights,
    headless: bool,
    device: Device,
) -> Result<(nn::VarStore, Box<dyn VisionModel>)> {
    let options = LoadOptions { replace_head: headless, ..LoadOptions::default() };
    load(weights, config.cost().parameters, options, device, |root| config.build(root))
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
