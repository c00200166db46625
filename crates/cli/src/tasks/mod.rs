//! What the engine can be given to train. Each task joins a model, a loss and its measures; [`RecipeTask`] is what a run wants of it
//! beside the steps: how it is opened from a recipe, what is measured before and after, what the closing table and the report say.

pub mod classify;
pub mod classify_text;
pub mod language;
pub mod reconstruct;

use std::path::PathBuf;

use anyhow::Result;
use tch::{Device, Tensor, nn};
use whitebox_analysis::Report;
use whitebox_analysis::metrics::Metrics;
use whitebox_model::count::Cost;
use whitebox_train::{Rule, Source, Task};

use crate::data::Sets;
use crate::recipe::{InitConfig, Named};
use crate::run_folder::{RunFolder, RunInfo};

/// A task that a recipe names.
pub trait RecipeTask: Task + Sized {
    /// Its section of a recipe.
    type Config;
    /// What its speed is counted in.
    const UNIT: &'static str = "images";
    /// Its data, as the engine reads them.
    type Source: Source<Batch = Self::Batch>;

    /// What a dry run tells, with nothing drawn or written.
    fn outline(named: &Named, config: &Self::Config) -> Result<Outline>;

    /// Opens the data and draws the model; the checkpoints tell the `command` that started the run.
    fn open(named: &Named, config: &Self::Config, device: Device, command: &str) -> Result<(Self, Self::Source)>;

    /// Trainable numbers.
    fn parameters(&self) -> u64;

    /// The data in a few words: `6,000 training and 1,000 validation images, 10 classes`.
    fn data(&self) -> String;

    /// Takes the weights of another run's model; says in a sentence what was taken.
    fn begin_from(&mut self, init: &InitConfig) -> Result<String>;

    /// Measures what the report compares with, and keeps it in the folder; called before the first step, and again by a resumed run.
    fn measure_before(&self, _named: &Named, _folder: &RunFolder) -> Result<()> {
        Ok(())
    }

    /// Measures the trained model; may write files of its own into the run's folder.
    fn conclude(&self, run: &Run<'_>) -> Result<Conclusion>;
}

/// What a run of a recipe would take.
#[derive(Clone, Debug)]
pub struct Outline {
    /// What the model is shown: `image`, `sequence`.
    pub unit: &'static str,
    /// Trainable numbers.
    pub parameters: u64,
    /// Units to learn from.
    pub training: u64,
    /// Units to measure on.
    pub validation: u64,
    /// Batches in an epoch, and units in a batch.
    pub batches: [u64; 2],
    /// Multiply-adds of a forward pass of one.
    pub forward: u64,
    /// Multiply-adds of a training step.
    pub step: u64,
    /// Bytes of tensors while training, about.
    pub bytes: u64,
}

impl Outline {
    /// Of a model of images.
    pub fn of_images(named: &Named, cost: &Cost, sets: &Sets) -> Result<Self> {
        let (training, validation) = (sets.train.len() as u64, sets.validation.len() as u64);
        let batch = named.recipe.images()?.batch_size as u64;
        Ok(Outline {
            unit: "image",
            parameters: cost.parameters,
            training,
            validation,
            batches: [training.div_ceil(batch), batch],
            forward: cost.forward_per_image,
            step: cost.training_step(batch.saturating_mul(named.recipe.train.accumulate)),
            bytes: cost.training_bytes(batch, moments(named)),
        })
    }
}

/// Numbers that the optimiser keeps for each parameter.
pub fn moments(named: &Named) -> u64 {
    if named.recipe.train.optimizer.rule == Rule::Lion { 1 } else { 2 }
}

/// A run whose last step is done.
pub struct Run<'a> {
    /// Its recipe.
    pub named: &'a Named,
    /// Its folder.
    pub folder: &'a RunFolder,
    /// What `run.json` says.
    pub info: &'a RunInfo,
    /// What it has recorded.
    pub metrics: &'a Metrics,
    /// Seconds of training, evaluations included, of this and earlier sittings.
    pub seconds: f64,
    /// What its speed is counted in.
    pub unit: &'static str,
}

/// What came of a run.
#[derive(Default)]
pub struct Conclusion {
    /// The last evaluation, by measure.
    pub metrics: Vec<(String, f64)>,
    /// Validation images (of a model of text: tokens; of labelled sentences: those) behind it.
    pub images: u64,
    /// More rows of the closing table.
    pub rows: Vec<(String, String)>,
    /// Images that could not be decoded and were left out, of training and validation, with the reason.
    pub skipped: Vec<String>,
    /// Files beside the report, with what they are.
    pub files: Vec<(&'static str, PathBuf)>,
    /// The task's own sections of the report; what all runs tell is added.
    pub report: Report,
}

/// The variables that learn, by name and in its order; fixed tables of positions are in the files, too, and do not.
fn trainable(store: &nn::VarStore) -> Vec<(String, Tensor)> {
    let mut named: Vec<_> = store.variables().into_iter().filter(|(_, v)| v.requires_grad()).collect();
    named.sort_by(|a, b| a.0.cmp(&b.0));
    named
}
