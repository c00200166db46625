//! A run of classification: opened from a recipe, measured before and after, with the sections of its report.

use anyhow::{Context, Result};
use tch::Device;
use whitebox_analysis::{Baseline, Classification, Report, Sample, count};
use whitebox_model::ModelConfig;
use whitebox_model::weights::{Card, LoadOptions, Regrid};

use super::Classify;
use crate::data::ImageSource;
use crate::evaluate::{Evaluation, evaluate};
use crate::layers::{self, Measured};
use crate::progress::meter;
use crate::recipe::{ClassifyConfig, InitConfig, Named};
use crate::run_folder::RunFolder;
use crate::tasks::{Conclusion, Outline, RecipeTask, Run};
use crate::{baseline, checkpoint};

/// The images on which layers are measured.
const SEEN: &str = "The same validation images, without augmentation, before the first step and after the last.";

impl RecipeTask for Classify {
    type Config = ClassifyConfig;
    type Source = ImageSource;

    fn outline(named: &Named, _config: &ClassifyConfig) -> Result<Outline> {
        let sets = named.recipe.images()?.open()?;
        let cost = named.recipe.model_config(Some(sets.train.classes().len()))?.cost();
        Outline::of_images(named, &cost, &sets)
    }

    fn open(named: &Named, config: &ClassifyConfig, device: Device, command: &str) -> Result<(Self, ImageSource)> {
        let recipe = &named.recipe;
        let sets = recipe.images()?.open()?;
        let classes = sets.train.classes();
        let mut card = Card::new(recipe.model_config(Some(classes.len()))?);
        card.classes = classes.to_vec();
        card.data = Some(serde_json::to_value(recipe.images()?)?);
        card.command = Some(command.to_owned());
        let source = ImageSource(recipe.images()?.train_loader(sets.train.clone(), recipe.train.seed)?);
        let validation = recipe.images()?.eval_loader(sets.validation.clone())?;
        Ok((Classify::new(card, device, &recipe.train, config, sets, validation)?, source))
    }

    fn parameters(&self) -> u64 {
        self.card.model.cost().parameters
    }

    fn data(&self) -> String {
        format!(
            "{} training and {} validation images, {} classes",
            count(self.sets.train.len() as u64),
            count(self.sets.validation.len() as u64),
            self.sets.train.classes().len()
        )
    }

    fn begin_from(&mut self, init: &InitConfig) -> Result<String> {
        let model = &self.card.model;
        let opened = checkpoint::read(Some(&init.checkpoint))
            .and_then(|weights| checkpoint::open_features(weights, None, &[]))
            .context("init.checkpoint")?;
        let [theirs, ours] = [&opened.config, model].map(|config: &ModelConfig| config.grid().shape());
        let replace_head = init.new_head || opened.headless || opened.config.classes() != model.classes();
        let positions = (theirs != ours).then_some(Regrid { from: theirs, to: ours });
        opened.weights.load_into(&self.store.variables(), LoadOptions { replace_head, positions })?;
        let head = if replace_head { ", with a new head" } else { "" };
        let positions = match theirs == ours {
            true => String::new(),
            false => format!(", positions interpolated from {theirs:?} to {ours:?} patches"),
        };
        let part = if opened.headless { "the encoder of" } else { "the weights of" };
        Ok(format!("beginning with {part} {}{head}{positions}", opened.weights.path.display()))
    }

    fn measure_before(&self, named: &Named, folder: &RunFolder) -> Result<()> {
        layers::keep_before(named, folder, |images| self.measure_layers(images))
    }

    fn conclude(&self, run: &Run<'_>) -> Result<Conclusion> {
        let recipe = &run.named.recipe;
        let (model, device) = (self.model.as_ref(), self.store.device());
        let evaluation = evaluate(model, &self.validation, device, &mut meter("evaluating", "batches"))?;
        let layers = layers::comparison(run, SEEN, |images| self.measure_layers(images))?;
        let baseline = match recipe.report.linear_baseline {
            false => None,
            true => {
                let plain = recipe.images()?.plain_loader(self.sets.train.clone(), recipe.train.seed)?;
                let mut progress = meter("training a linear model on pixels, for comparison", "steps");
                Some(baseline::linear_accuracy(&plain, &self.validation, device, &mut progress)?)
            }
        };
        let row = |accuracy: f64| ("accuracy, linear on pixels".to_owned(), format!("{accuracy:.4}"));
        Ok(Conclusion {
            metrics: evaluation.metrics(),
            images: evaluation.predictions.len() as u64,
            rows: baseline.map(row).into_iter().collect(),
            skipped: self.skipped.iter().chain(&evaluation.skipped).cloned().collect(),
            files: Vec::new(),
            report: Report {
                classification: Some(self.classification(&evaluation, baseline, recipe.report.samples)?),
                layers,
                ..Report::default()
            },
        })
    }
}

impl Classify {
    fn measure_layers(&self, images: usize) -> Result<Measured> {
        let heads = self.card.model.heads();
        layers::measure(heads, &self.validation, self.store.device(), images, |images, probe| {
            self.model.tokens(images, probe)
        })
    }

    /// What the report shows of the predictions.
    fn classification(&self, found: &Evaluation, baseline: Option<f64>, samples: usize) -> Result<Classification> {
        let validation = self.sets.validation.as_ref();
        let classes = validation.classes().to_vec();
        let predictions = &found.predictions;
        // The first images as they come, then the mistakes that the model was surest of.
        let half = samples / 2;
        let mut chosen: Vec<_> = predictions.iter().take(half).collect();
        let mut wrong: Vec<_> = predictions.iter().skip(half).filter(|p| p.truth != p.predicted).collect();
        wrong.sort_by(|a, b| b.probability.total_cmp(&a.probability));
        chosen.extend(wrong.into_iter().take(half));
        let samples = chosen.into_iter().map(|p| {
            let image = validation.image(p.index)?;
            Ok(Sample {
                width: image.width as u32,
                height: image.height as u32,
                channels: image.channels as u8,
                pixels: image.pixels,
                truth: classes[p.truth].clone(),
                predicted: classes[p.predicted].clone(),
                probability: p.probability,
            })
        });
        Ok(Classification {
            samples: samples.collect::<Result<_>>()?,
            confusion: found.confusion.clone(),
            accuracy: found.accuracy,
            baseline: baseline.map(|accuracy| Baseline { name: "a linear model on pixels".into(), accuracy }),
            classes,
        })
    }
}
