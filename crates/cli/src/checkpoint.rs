//! Which file a command means by a checkpoint: a weight file, a run folder, a checkpoint folder, or the demo's where none is named.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value};
use whitebox_model::ModelConfig;
use whitebox_model::import::infer;
use whitebox_model::weights::Weights;

use crate::data::{DataConfig, embedded_folder};
use crate::recipe::{self, with_overrides};

/// The trained model that lies in `data/`.
pub const DEMO: &str = "crate-demo.safetensors";

/// An opened weight file with the model it belongs to.
pub struct Opened {
    /// The tensors, with their card where there is one.
    pub weights: Weights,
    /// The model.
    pub config: ModelConfig,
    /// What was found out or assumed, for the user to see.
    pub notes: Vec<String>,
}

impl Opened {
    /// How images are prepared: by the named recipe, or by the one that the file tells, with `data.key=value` overrides.
    pub fn data(&self, recipe: Option<&str>, sets: &[String]) -> Result<DataConfig> {
        if let Some(name) = recipe {
            return Ok(recipe::load(name, sets)?.recipe.data);
        }
        let path = self.weights.path.display();
        let told = self.weights.card.as_ref().and_then(|card| card.data.clone());
        let told = told.with_context(|| {
            format!(
                "{path} does not tell how its images are prepared: name a recipe, built-in or a file, with --recipe"
            )
        })?;
        let tree = with_overrides(serde_json::json!({ "data": told }), sets)?;
        let data: DataConfig = serde_json::from_value(tree["data"].clone())
            .with_context(|| format!("the data section of {path} cannot be read"))?;
        data.check().with_context(|| format!("the data section of {path}"))?;
        Ok(data)
    }

    /// Class names; numbers where the file knows none.
    pub fn classes(&self) -> Vec<String> {
        let named = self.weights.card.as_ref().map(|card| card.classes.clone()).unwrap_or_default();
        if named.len() as i64 == self.config.classes() {
            return named;
        }
        (0..self.config.classes()).map(|i| format!("class {i}")).collect()
    }
}

/// How a trained model is to be used: the options that `eval` and `predict` share.
#[derive(clap::Args, Debug)]
pub struct ModelUse {
    /// The recipe whose data section prepares the images, for files that don't tell [default: the model's own].
    #[arg(long)]
    recipe: Option<String>,
    /// The model of a file that does not say it: a preset or a recipe file.
    #[arg(long, value_name = "PRESET|FILE")]
    model: Option<String>,
    /// A field of the model or of its data, as --set model.heads=6 or --set data.path=DIR; repeatable.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// Where to compute: auto, cpu, cuda, cuda:1.
    #[arg(long, default_value = "auto")]
    device: String,
}

impl ModelUse {
    /// The model, how its images are prepared, and where it is to run. What was found out or assumed is told on stderr.
    pub fn open(&self, checkpoint: Option<&Path>) -> Result<(Opened, DataConfig, tch::Device)> {
        let device = torch_extras::cuda::device_from_str(&self.device)?;
        let (of_data, of_model): (Vec<_>, Vec<_>) = self.sets.iter().cloned().partition(|set| set.starts_with("data."));
        let opened = open(checkpoint, self.model.as_deref(), &of_model)?;
        for note in &opened.notes {
            eprintln!("{note}");
        }
        let data = opened.data(self.recipe.as_deref(), &of_data)?;
        Ok((opened, data, device))
    }
}

/// Opens a checkpoint. `model` is a preset or a recipe file, `sets` are `model.key=value` overrides: they say what a foreign
/// file's shapes leave open.
pub fn open(path: Option<&Path>, model: Option<&str>, sets: &[String]) -> Result<Opened> {
    let weights = Weights::open(&locate(path)?)?;
    let mut notes = weights.notes.clone();
    let given = model_overrides(model, sets)?;
    let config = match weights.card_of::<ModelConfig>()? {
        Some(card) if given.is_empty() => {
            card.model.check().with_context(|| weights.path.display().to_string())?;
            card.model
        }
        Some(card) => {
            let mut fields = serde_json::to_value(&card.model)?.as_object().cloned().unwrap_or_default();
            fields.extend(given);
            recipe::model_from_fields(fields)?
        }
        None => {
            let inferred = infer(&weights, &given)?;
            notes.extend(inferred.notes);
            inferred.config
        }
    };
    Ok(Opened { weights, config, notes })
}

/// The model that a preset or a file names, with `model.key=value` overrides.
pub fn model(name: &str, sets: &[String]) -> Result<ModelConfig> {
    recipe::model_from_fields(model_overrides(Some(name), sets)?)
}

/// `--model` and `--set model.*` as fields of a model.
fn model_overrides(model: Option<&str>, sets: &[String]) -> Result<Map<String, Value>> {
    let mut fields = match model {
        None => Map::new(),
        Some(name) if ModelConfig::presets().any(|p| p == name) => preset_fields(name)?,
        Some(file) if Path::new(file).is_file() => {
            let text = std::fs::read_to_string(file).with_context(|| format!("--model {file} cannot be read"))?;
            let mut tree: Map<String, Value> =
                toml::from_str(&text).with_context(|| format!("--model {file} is not valid TOML"))?;
            let mut section = match tree.remove("model") {
                Some(Value::Object(section)) => section,
                _ => tree,
            };
            match section.remove("preset") {
                Some(Value::String(name)) => {
                    let mut whole = preset_fields(&name)?;
                    whole.extend(section);
                    whole
                }
                _ => section,
            }
        }
        Some(other) => {
            let known = ModelConfig::presets().collect::<Vec<_>>().join(", ");
            bail!("--model {other} is neither a preset ({known}) nor a file")
        }
    };
    for set in sets {
        if !set.starts_with("model.") {
            bail!("--set {set}: only model.* can be set here, as --set model.heads=6");
        }
    }
    let tree = with_overrides(serde_json::json!({ "model": {} }), sets)?;
    if let Some(Value::Object(section)) = tree.get("model") {
        fields.extend(section.clone());
    }
    Ok(fields)
}

fn preset_fields(name: &str) -> Result<Map<String, Value>> {
    Ok(serde_json::to_value(ModelConfig::preset(name)?)?.as_object().cloned().unwrap_or_default())
}

fn locate(path: Option<&Path>) -> Result<PathBuf> {
    match path {
        None => {
            let file = embedded_folder()?.join(DEMO);
            if !file.is_file() {
                bail!(
                    "no checkpoint is named, and the demo's ({}) is missing: run `cargo xtask demo` and name its run folder",
                    file.display()
                );
            }
            Ok(file)
        }
        Some(path) if path.is_dir() => {
            let direct = path.join("model.safetensors");
            if direct.is_file() { Ok(direct) } else { in_run(path) }
        }
        Some(path) if path.exists() => Ok(path.to_owned()),
        Some(path) => bail!("{}: there is no such file or run folder", path.display()),
    }
}

/// The model file of a run folder: the best checkpoint where one was kept, or the last.
pub fn in_run(run: &Path) -> Result<PathBuf> {
    let checkpoints = run.join("checkpoints");
    let best = checkpoints.join("best/model.safetensors");
    if best.is_file() {
        return Ok(best);
    }
    let entries = std::fs::read_dir(&checkpoints)
        .with_context(|| format!("{} is neither a weight file nor a run folder with checkpoints/", run.display()))?;
    let files = entries.flatten().map(|e| e.path().join("model.safetensors"));
    let last = files.filter(|p| p.is_file() && p.to_string_lossy().contains("step-")).max();
    last.with_context(|| format!("{} holds no checkpoint yet", checkpoints.display()))
}
