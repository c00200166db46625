//! A run of masked autoencoding: opened from a recipe, and what it says at its end, with a picture of reconstructions.

use anyhow::{Context, Result, bail};
use tch::Device;
use whitebox_analysis::{Chart, Picture, Report, count};
use whitebox_autoencoder::Masking;
use whitebox_model::weights::{Card, LoadOptions};

use super::Reconstruct;
use crate::checkpoint;
use crate::data::{DataConfig, ImageSource};
use crate::images::images_of;
use crate::layers::{self, Measured};
use crate::pictures::{COLUMNS, Pictures};
use crate::progress::meter;
use crate::recipe::{InitConfig, Named, ReconstructConfig, TaskConfig};
use crate::reconstruction::{Evaluation, evaluate, reconstruct};
use crate::run_folder::RunFolder;
use crate::tasks::{Conclusion, Outline, RecipeTask, Run};

/// The images on which layers are measured.
const SEEN: &str = "The encoder's layers on the same validation images, whole and without augmentation, before the first step and after the last.";

/// Rows of the picture of a run, at most.
pub const ROWS: usize = 8;

impl RecipeTask for Reconstruct {
    type Config = ReconstructConfig;
    type Source = ImageSource;

    fn outline(named: &Named, config: &ReconstructConfig) -> Result<Outline> {
        let sets = named.recipe.images()?.open()?;
        let cost = named.recipe.autoencoder_config()?.cost(&config.masking);
        Outline::of_images(named, &cost, &sets)
    }

    fn open(named: &Named, config: &ReconstructConfig, device: Device, command: &str) -> Result<(Self, ImageSource)> {
        let recipe = &named.recipe;
        let sets = recipe.images()?.open()?;
        let mut card = Card::new(recipe.autoencoder_config()?);
        card.classes = sets.train.classes().to_vec();
        card.data = Some(serde_json::to_value(recipe.images()?)?);
        card.task = Some(serde_json::to_value(TaskConfig::Reconstruct(config.clone()))?);
        card.command = Some(command.to_owned());
        let source = ImageSource(recipe.images()?.train_loader(sets.train.clone(), recipe.train.seed)?);
        let validation = recipe.images()?.eval_loader(sets.validation.clone())?;
        Ok((Reconstruct::new(card, device, &recipe.train, config, sets, validation)?, source))
    }

    fn parameters(&self) -> u64 {
        self.store.trainable_variables().iter().map(|variable| variable.numel() as u64).sum()
    }

    fn data(&self) -> String {
        let [train, validation] = [&self.sets.train, &self.sets.validation].map(|set| count(set.len() as u64));
        let (kept, patches) = (self.config.masking.kept(self.grid.patches()), self.grid.patches());
        format!("{train} training and {validation} validation images, {kept} of {patches} patches seen")
    }

    fn begin_from(&mut self, init: &InitConfig) -> Result<String> {
        let opened = checkpoint::read(Some(&init.checkpoint))
            .and_then(|weights| checkpoint::open_autoencoder(weights, None, &[]))
            .context("init.checkpoint")?;
        if init.new_head {
            bail!("init.new_head is for classifiers: an autoencoder has no head");
        }
        opened.weights.load_into(&self.store.variables(), LoadOptions::default())?;
        Ok(format!("beginning with the weights of {}", opened.weights.path.display()))
    }

    fn measure_before(&self, named: &Named, folder: &RunFolder) -> Result<()> {
        layers::keep_before(named, folder, |images| self.measure_layers(images))
    }

    fn conclude(&self, run: &Run<'_>) -> Result<Conclusion> {
        let device = self.store.device();
        let mut progress = meter("evaluating", "batches");
        let found = evaluate(self.model.as_ref(), &self.config, &self.validation, device, &mut progress)?;
        let layers = layers::comparison(run, SEEN, |images| self.measure_layers(images))?;
        let mut files = Vec::new();
        let mut pictures = Vec::new();
        let rows = run.named.recipe.report.samples.min(ROWS);
        if rows > 0 {
            let png = self.picture(run.named.recipe.images()?, rows)?;
            run.folder.write("reconstructions.png", &png)?;
            files.push(("pictures", run.folder.path.join("reconstructions.png")));
            pictures.push(Picture { title: "Reconstructions".into(), caption: self.caption(), png });
        }
        let chart = Chart {
            title: "Error on hidden patches".into(),
            caption: "Mean squared error over the pixels of hidden patches, in normalised pixels, at each evaluation: the model's, and that \
                      of the mean over the pixels that are seen."
                .into(),
            x_label: "step".into(),
            y_label: "mean squared error".into(),
            series: vec![
                run.metrics.series("eval", "masked_mse", "the model"),
                run.metrics.series("eval", "visible_mean_mse", "the mean of what is seen"),
            ],
        };
        Ok(Conclusion {
            metrics: found.metrics(),
            images: found.images,
            rows: Vec::new(),
            skipped: self.skipped.iter().chain(&found.skipped).cloned().collect(),
            files,
            report: Report {
                summary: sentence(&found, self.config.loss.norm_pix).into_iter().collect(),
                curves: if found.masked_mse.is_some() { vec![chart] } else { Vec::new() },
                pictures,
                layers,
                ..Report::default()
            },
        })
    }
}

/// What the report says of the errors.
fn sentence(found: &Evaluation, norm_pix: bool) -> Option<String> {
    let (model, guess) = (found.masked_mse?, found.visible_mean_mse?);
    let note = match norm_pix {
        true => ", given the mean and the deviation of each hidden patch",
        false => "",
    };
    Some(format!(
        "On the patches that it does not see its mean squared error is {model:.4}{note}; predicting the mean of the visible pixels makes \
         {guess:.4}, so that the ratio is {:.2}.",
        model / guess
    ))
}

impl Reconstruct {
    /// The encoder's layers.
    fn measure_layers(&self, images: usize) -> Result<Measured> {
        let (heads, device) = (self.card.model.heads(), self.store.device());
        layers::measure(heads, &self.validation, device, images, |images, probe| {
            // By seeds, because libtorch's generator is the training's.
            let mask = Masking::NONE.seeded(&vec![0; images.size()[0] as usize], self.grid.shape(), device)?;
            self.model.latent(images, &mask, probe)
        })
    }

    /// The first validation images, as [`evaluate`] hides them.
    fn picture(&self, data: &DataConfig, rows: usize) -> Result<Vec<u8>> {
        let mut pictures = Pictures::new(self.grid, data);
        let mut left = rows;
        for batch in self.validation.epoch(0, 0) {
            let batch = batch?;
            let take = left.min(batch.labels.len());
            if take > 0 {
                let seeds: Vec<u64> = batch.indices[..take].iter().map(|&index| index as u64).collect();
                let mask = self.config.masking.seeded(&seeds, self.grid.shape(), self.store.device())?;
                let images = images_of(&batch, self.store.device()).narrow(0, 0, take as i64);
                let found = reconstruct(self.model.as_ref(), images, mask, &self.config.loss, &self.grid)?;
                pictures.add(&found)?;
                left -= take;
            }
            if left == 0 {
                break;
            }
        }
        pictures.png(Pictures::scale(&self.grid))
    }

    fn caption(&self) -> String {
        let (kept, patches) = (self.config.masking.kept(self.grid.patches()), self.grid.patches());
        let note = match self.config.loss.norm_pix {
            true => {
                " The model predicts normalised patches; they are brought back with the mean and the deviation of the true patch."
            }
            false => "",
        };
        format!("The first validation images, {kept} of {patches} patches seen. From left to right: {COLUMNS}.{note}")
    }
}
