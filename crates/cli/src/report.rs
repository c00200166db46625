//! From a finished run to `report.html`: the last evaluation, the layers before and after, the curves, the facts.

use std::path::PathBuf;

use anyhow::{Context, Result};
use whitebox_analysis::metrics::Metrics;
use whitebox_analysis::{Baseline, Classification, LayerComparison, LayerStats, Report, Sample, count};
use whitebox_datasets::Dataset;
use whitebox_train::TrainConfig;

use crate::evaluate::Evaluation;
use crate::progress::duration;
use crate::recipe::Named;
use crate::run_folder::{RunFolder, RunInfo};

/// Where the layer measures of the untrained model lie in a run.
pub const LAYERS_BEFORE: &str = "layers-before.json";

/// Everything that the report is made of.
pub struct Finished<'a> {
    /// The run.
    pub folder: &'a RunFolder,
    /// Its recipe.
    pub named: &'a Named,
    /// What `run.json` says.
    pub info: &'a RunInfo,
    /// The last evaluation.
    pub evaluation: &'a Evaluation,
    /// The images behind it.
    pub validation: &'a dyn Dataset,
    /// Accuracy of the linear model on pixels, where one was trained.
    pub baseline: Option<f64>,
    /// Layer measures of the trained model and the number of images; empty where they were not taken.
    pub layers: (Vec<LayerStats>, u64),
    /// Seconds of training, evaluations included, of this and earlier sittings.
    pub seconds: f64,
    /// Images that could not be decoded and were left out, of training and validation, with the reason.
    pub skipped: Vec<String>,
}

/// Writes `report.html` and gives its path.
pub fn write(run: &Finished<'_>) -> Result<PathBuf> {
    let metrics = Metrics::read(&run.folder.path.join("metrics.jsonl"))?;
    let layers = comparison(run)?;
    let images_per_second = metrics.last("step", "samples_per_second");
    let mut facts = vec![
        ("Recipe", run.named.name.clone()),
        ("Command", run.info.command.clone()),
        ("Version", format!("whitebox {}", run.info.version)),
        ("Commit", run.info.commit.clone().unwrap_or("not in a clone".into())),
        ("Started", run.info.started.clone()),
        ("Device", format!("{}, {} threads", run.info.device, run.info.threads)),
        ("Parameters", count(run.info.parameters)),
        ("Time", duration(run.seconds)),
    ];
    facts.extend(images_per_second.map(|rate| ("Training speed", format!("{rate:.0} images/s at the end"))));
    let peak = metrics.last("step", "peak_memory");
    facts.extend(peak.map(|bytes| ("Peak memory", format!("{:.0} MiB", bytes / f64::from(1 << 20)))));
    if let Some(first) = run.skipped.first() {
        facts.push(("Images left out", format!("{} could not be decoded; {first}", run.skipped.len())));
    }
    let report = Report {
        title: format!("Training run: {}", run.named.name),
        summary: vec![format!(
            "A model of {} parameters was trained for {} in {}; it was then measured on {} validation images.",
            count(run.info.parameters),
            length(&run.named.recipe.train),
            duration(run.seconds),
            count(run.evaluation.predictions.len() as u64),
        )],
        facts: facts.into_iter().map(|(k, v)| (k.to_owned(), v)).collect(),
        curves: metrics.charts(),
        classification: Some(classification(run)?),
        layers,
        config: toml::to_string(&run.named.recipe)?,
    };
    run.folder.write("report.html", report.render()?.as_bytes())?;
    Ok(run.folder.path.join("report.html"))
}

fn comparison(run: &Finished<'_>) -> Result<Option<LayerComparison>> {
    let path = run.folder.path.join(LAYERS_BEFORE);
    if run.layers.0.is_empty() || !path.exists() {
        return Ok(None);
    }
    let text = std::fs::read_to_string(&path).with_context(|| format!("{} cannot be read", path.display()))?;
    let before = serde_json::from_str(&text).with_context(|| format!("{} is damaged", path.display()))?;
    let note = "The same validation images, without augmentation, before the first step and after the last.".into();
    Ok(Some(LayerComparison { before, after: run.layers.0.clone(), images: run.layers.1, note }))
}

fn classification(run: &Finished<'_>) -> Result<Classification> {
    let classes = run.validation.classes().to_vec();
    let predictions = &run.evaluation.predictions;
    // The first images as they come, then the mistakes that the model was surest of.
    let half = run.named.recipe.report.samples / 2;
    let mut chosen: Vec<_> = predictions.iter().take(half).collect();
    let mut wrong: Vec<_> = predictions.iter().skip(half).filter(|p| p.truth != p.predicted).collect();
    wrong.sort_by(|a, b| b.probability.total_cmp(&a.probability));
    chosen.extend(wrong.into_iter().take(half));
    let samples = chosen.into_iter().map(|p| {
        let image = run.validation.image(p.index)?;
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
        confusion: run.evaluation.confusion.clone(),
        accuracy: run.evaluation.accuracy,
        baseline: run.baseline.map(|accuracy| Baseline { name: "a linear model on pixels".into(), accuracy }),
        classes,
    })
}

/// How long the recipe trains, in its own unit.
fn length(train: &TrainConfig) -> String {
    match train.max_steps {
        Some(steps) => format!("{} steps (at most {} epochs)", count(steps), train.epochs),
        None => format!("{} epochs", train.epochs),
    }
}
