//! `features`, `knn` and `probe`: what a frozen model's features hold.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use tch::{Device, Tensor};
use whitebox_analysis::count;
use whitebox_datasets::Dataset;
use whitebox_model::{ModelConfig, VisionModel};

use crate::checkpoint::{ModelUse, read};
use crate::data::{DataConfig, Sets};
use crate::frozen::{self, Features, Linear};
use crate::images::check_fit;
use crate::progress::meter;
use crate::run_folder::{RunFolder, RunInfo, RunResult, command_line, whole};
use crate::tasks::classify::load_model;

/// A part of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// The images that are learned from.
    Train,
    /// The images that are measured on.
    Validation,
}

/// Write a frozen model's features of images to a file.
///
/// A .safetensors file holds `features`, N x d, and `labels`, N; beside x.npy the labels are written to x.labels.npy.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  cargo xtask features runs/mine --out features.safetensors
  cargo xtask features runs/mine --part train --out train.npy
  cargo xtask features runs/mine --recipe digits --out digits.safetensors")]
pub struct FeaturesArgs {
    /// A weight file, a run folder or a checkpoint folder [default: the demo's model].
    checkpoint: Option<PathBuf>,
    /// Where to write: a file in .safetensors or .npy.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Which images.
    #[arg(long, value_enum, default_value = "validation")]
    part: Part,
    #[command(flatten)]
    usage: ModelUse,
}

/// Classify by the nearest neighbours among a frozen model's features.
///
/// Neighbours vote with exp(cosine similarity / 0.07).
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  cargo xtask knn runs/mine
  cargo xtask knn runs/mine --k 1,10,20,200
  cargo xtask knn runs/mine --recipe digits --set data.hold_out=5")]
pub struct KnnArgs {
    /// A weight file, a run folder or a checkpoint folder [default: the demo's model].
    checkpoint: Option<PathBuf>,
    /// How many neighbours vote; several numbers are tried each.
    #[arg(long, value_delimiter = ',', default_value = "10,20")]
    k: Vec<i64>,
    #[command(flatten)]
    usage: ModelUse,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Train a linear classifier on a frozen model's features.
///
/// The penalty on its weights is chosen on every tenth training image where none is given.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  cargo xtask probe runs/mine
  cargo xtask probe runs/mine --recipe digits
  cargo xtask probe runs/mine --decay 1e-3
  cargo xtask probe runs/mine --recipe digits --out runs/mine-on-digits")]
pub struct ProbeArgs {
    /// A weight file, a run folder or a checkpoint folder [default: the demo's model].
    checkpoint: Option<PathBuf>,
    /// The penalty on the squared weights [default: the best of 1e-5 to 1 on held-out training images].
    #[arg(long)]
    decay: Option<f64>,
    /// Keep what was found in a new folder, with what it came from: config.toml, run.json, result.json.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[command(flatten)]
    usage: ModelUse,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// A model with the images that it is tried on.
struct Frozen {
    name: String,
    config: ModelConfig,
    model: Box<dyn VisionModel>,
    data: DataConfig,
    sets: Sets,
    device: Device,
}

impl Frozen {
    fn open(checkpoint: Option<&Path>, usage: &ModelUse) -> Result<Self> {
        let (opened, data, device) = usage.open_features(read(checkpoint)?)?;
        let sets = data.open()?;
        check_fit(&data.eval_loader(sets.validation.clone())?, &opened.config.grid())?;
        let model = load_model(&opened, device)?;
        let name = opened.weights.path.display().to_string();
        Ok(Frozen { name, config: opened.config, model, data, sets, device })
    }

    fn set(&self, part: Part) -> Arc<dyn Dataset> {
        match part {
            Part::Train => self.sets.train.clone(),
            Part::Validation => self.sets.validation.clone(),
        }
    }

    fn features(&self, part: Part) -> Result<Features> {
        let what = match part {
            Part::Train => "features of the training images",
            Part::Validation => "features of the validation images",
        };
        let loader = self.data.eval_loader(self.set(part))?;
        let found = frozen::features(self.model.as_ref(), &loader, self.device, &mut meter(what, "batches"))?;
        if let Some(first) = found.skipped.first() {
            eprintln!("{} images could not be decoded and were left out, the first: {first}", found.skipped.len());
        }
        Ok(found)
    }

    fn classes(&self) -> i64 {
        self.sets.train.classes().len() as i64
    }
}

/// Runs `features`.
pub fn features(args: &FeaturesArgs) -> Result<()> {
    let extension = args.out.extension().and_then(|e| e.to_str()).unwrap_or_default();
    if !matches!(extension, "safetensors" | "npy") {
        bail!("--out {}: expected a file that ends in .safetensors or .npy", args.out.display());
    }
    let frozen = Frozen::open(args.checkpoint.as_deref(), &args.usage)?;
    let found = frozen.features(args.part)?;
    let written = match extension {
        "npy" => {
            let labels = args.out.with_extension("labels.npy");
            whole(&args.out, |path| Ok(found.values.write_npy(path)?))?;
            whole(&labels, |path| Ok(found.labels.write_npy(path)?))?;
            format!("{} and {}", args.out.display(), labels.display())
        }
        _ => {
            let tensors: [(&str, &Tensor); 2] = [("features", &found.values), ("labels", &found.labels)];
            whole(&args.out, |path| Ok(Tensor::write_safetensors(&tensors, path)?))?;
            args.out.display().to_string()
        }
    };
    let [n, d] = [found.values.size()[0], found.values.size()[1]];
    crate::say(&format!("{}: {} features of {d} numbers, written to {written}", frozen.name, count(n as u64)))
}

/// Runs `knn`.
pub fn knn(args: &KnnArgs) -> Result<()> {
    let frozen = Frozen::open(args.checkpoint.as_deref(), &args.usage)?;
    let (known, asked) = (frozen.features(Part::Train)?, frozen.features(Part::Validation)?);
    let found = frozen::knn(&known, &asked, frozen.classes(), &args.k, &mut meter("comparing", "images"))?;
    if args.json {
        let by_k: Vec<_> = args.k.iter().zip(&found).map(|(k, a)| json!({"k": k, "accuracy": a})).collect();
        return crate::say(&json!({"checkpoint": frozen.name, "knn": by_k}).to_string());
    }
    let [n, m] = [&known, &asked].map(|f| count(f.labels.size()[0] as u64));
    let rows: String = args.k.iter().zip(&found).map(|(k, a)| format!("\nk = {k:<16}{a:>9.4}")).collect();
    crate::say(&format!("{}: {m} images by their neighbours among {n}{rows}", frozen.name))
}

/// Runs `probe`.
pub fn probe(args: &ProbeArgs) -> Result<()> {
    if let Some(decay) = args.decay
        && !(0.0..=1e6).contains(&decay)
    {
        bail!("--decay {decay}: expected a number from 0 to 1e6");
    }
    let frozen = Frozen::open(args.checkpoint.as_deref(), &args.usage)?;
    // Better refused before the work than after it.
    let folder = args.out.as_deref().map(|out| RunFolder::create(Some(out), "")).transpose()?;
    let start = Instant::now();
    let (known, asked) = (frozen.features(Part::Train)?, frozen.features(Part::Validation)?);
    let classes = frozen.classes();
    let decay = match args.decay {
        Some(decay) => decay,
        None => best_decay(&known, classes)?,
    };
    let linear = Linear::fit(&known, classes, decay, &mut meter("training a linear classifier", "steps"))?;
    let (train, validation) = (linear.accuracy(&known), linear.accuracy(&asked));
    let found = json!({"decay": decay, "accuracy": validation, "train_accuracy": train});
    if let Some(folder) = &folder {
        let images = asked.labels.size()[0] as u64;
        keep_probe(folder, args.checkpoint.as_deref(), &frozen, &found, images, start.elapsed().as_secs_f64())?;
    }
    if args.json {
        let mut found = found;
        found["checkpoint"] = frozen.name.into();
        return crate::say(&found.to_string());
    }
    crate::say(&format!(
        "{}: a linear classifier on frozen features, penalty {decay:e}\n{:<20}{validation:>9.4}\n{:<20}{train:>9.4}",
        frozen.name, "accuracy", "on training images"
    ))
}

/// Writes what a probe found as a run folder, with the seed of the run that it looked at.
fn keep_probe(
    folder: &RunFolder,
    checkpoint: Option<&Path>,
    frozen: &Frozen,
    found: &Value,
    images: u64,
    seconds: f64,
) -> Result<()> {
    let of_run = checkpoint.and_then(|path| RunFolder { path: path.to_owned() }.recipe().ok());
    let info = RunInfo::now("probe", command_line(), frozen.config.cost().parameters, frozen.device);
    let config = json!({
        "probe": {"checkpoint": checkpoint.map_or(&*frozen.name, |path| path.to_str().unwrap_or_default())},
        "model": frozen.config,
        "data": frozen.data,
        "train": {"seed": of_run.map_or(0, |named| named.recipe.train.seed)},
    });
    folder.begin(&config, &info)?;
    let metrics = found.as_object().cloned().unwrap_or_default();
    folder.finish(&RunResult { metrics, images, unit: None, parameters: info.parameters, steps: 0, seconds })
}

/// The penalty that does best on every tenth of the training images, learned on the others.
fn best_decay(known: &Features, classes: i64) -> Result<f64> {
    let (held, rest) = known.hold_out(10);
    let mut best = (f64::NEG_INFINITY, 0.0);
    let choices = [1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0];
    let mut progress = meter("choosing the penalty", "penalties");
    for (i, &decay) in choices.iter().enumerate() {
        let accuracy = Linear::fit(&rest, classes, decay, &mut |_, _| ())?.accuracy(&held);
        if accuracy > best.0 {
            best = (accuracy, decay);
        }
        progress(i as u64 + 1, choices.len() as u64);
    }
    Ok(best.1)
}
