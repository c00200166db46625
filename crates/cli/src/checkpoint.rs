//! Which file a command means by a checkpoint: a weight file, a run folder, a checkpoint folder, or the demo's where none is named.

pub mod sentences;
pub mod text;
mod usage;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tch::{Device, nn};
use whitebox_autoencoder::AutoencoderConfig;
use whitebox_autoencoder::import::is_autoencoder;
use whitebox_model::ModelConfig;
use whitebox_model::import::infer;
use whitebox_model::weights::{LoadOptions, Weights};

use crate::data::{DataConfig, embedded_folder};
use crate::memory;
use crate::recipe::{self, AnyModel, Fields, ReconstructConfig, TaskConfig, with_overrides};

pub use usage::ModelUse;

/// The trained model that lies in `data/`.
pub const DEMO: &str = "crate-demo.safetensors";

/// An opened weight file with the model it belongs to.
pub struct Opened<M = ModelConfig> {
    /// The tensors, with their card where there is one.
    pub weights: Weights,
    /// The model.
    pub config: M,
    /// Whether the file has no head, because it is the encoder of an autoencoder.
    pub headless: bool,
    /// What was found out or assumed, for the user to see.
    pub notes: Vec<String>,
}

/// An opened weight file of either kind of model.
pub enum Found {
    /// From an image to a class.
    Classifier(Opened),
    /// From a part of an image to the whole.
    Autoencoder(Opened<AutoencoderConfig>),
}

impl<M> Opened<M> {
    /// How images are prepared: by the named recipe, or by the one that the file tells, with `data.key=value` overrides.
    pub fn data(&self, recipe: Option<&str>, sets: &[String]) -> Result<DataConfig> {
        if let Some(name) = recipe {
            return recipe::load(name, sets)?.recipe.images().cloned();
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
}

impl Opened {
    /// Class names; numbers where the file knows none.
    pub fn classes(&self) -> Vec<String> {
        let named = self.weights.card.as_ref().map(|card| card.classes.clone()).unwrap_or_default();
        if named.len() as i64 == self.config.classes() {
            return named;
        }
        (0..self.config.classes()).map(|i| format!("class {i}")).collect()
    }
}

impl Opened<AutoencoderConfig> {
    /// What it was trained to do: by the named recipe, or as the file tells; the usual where neither says.
    pub fn task(&self, recipe: Option<&str>) -> Result<ReconstructConfig> {
        let path = self.weights.path.display();
        let told = match (recipe, self.weights.card.as_ref().and_then(|card| card.task.clone())) {
            (Some(name), _) => Some(recipe::load(name, &[])?.recipe.task),
            (None, Some(task)) => Some(
                serde_json::from_value(task).with_context(|| format!("the task section of {path} cannot be read"))?,
            ),
            (None, None) => None,
        };
        match told {
            Some(TaskConfig::Reconstruct(task)) => Ok(task),
            // A recipe that classifies tells how images are prepared, and no more.
            Some(_) | None => Ok(ReconstructConfig::default()),
        }
    }
}

/// Reads the file of a checkpoint, or the demo's where none is named. What it holds is then asked of the tensors, so that no file is read twice.
pub fn read(path: Option<&Path>) -> Result<Weights> {
    Ok(Weights::open(&locate(path)?)?)
}

/// The weights of a file in a model drawn on `device`, with the parameters by name; refused before it is drawn where it does not fit into memory.
pub fn load<M>(
    weights: &Weights,
    parameters: u64,
    options: LoadOptions,
    device: Device,
    build: impl FnOnce(&nn::Path<'_>) -> whitebox_model::Result<M>,
) -> Result<(nn::VarStore, M)> {
    memory::check(parameters.saturating_mul(4), device).with_context(|| weights.path.display().to_string())?;
    let store = nn::VarStore::new(device);
    let model = build(&store.root())?;
    weights.load_into(&store.variables(), options)?;
    Ok((store, model))
}

/// A classifier in a file. `model` is a preset or a recipe file, `sets` are `model.key=value` overrides: they say what a foreign
/// file's shapes leave open.
pub fn open(weights: Weights, model: Option<&str>, sets: &[String]) -> Result<Opened> {
    match open_any(weights, model, sets)? {
        Found::Classifier(opened) => Ok(opened),
        Found::Autoencoder(opened) => bail!(
            "{} is an autoencoder's and has no head that names classes: `reconstruct` shows what it makes of images, `probe` and `knn` what \
             its features hold, and `train` with --set init.checkpoint fine-tunes it into a classifier",
            opened.weights.path.display()
        ),
    }
}

/// The same; of an autoencoder it is the encoder, which has no head.
pub fn open_features(weights: Weights, model: Option<&str>, sets: &[String]) -> Result<Opened> {
    match open_any(weights, model, sets)? {
        Found::Classifier(opened) => Ok(opened),
        Found::Autoencoder(opened) => {
            let (weights, config) = whitebox_autoencoder::encoder(opened.weights, &opened.config)?;
            let mut notes = opened.notes;
            notes.push("of the autoencoder it is the encoder, which sees whole images".into());
            Ok(Opened { weights, config, headless: true, notes })
        }
    }
}

/// An autoencoder in a file.
pub fn open_autoencoder(weights: Weights, model: Option<&str>, sets: &[String]) -> Result<Opened<AutoencoderConfig>> {
    match open_any(weights, model, sets)? {
        Found::Autoencoder(opened) => Ok(opened),
        Found::Classifier(opened) => bail!(
            "{} is a classifier's, expected an autoencoder's (CRATE-MAE or ViT-MAE): `predict` says what it makes of images; \
             `cargo xtask train mae-demo` trains a small autoencoder",
            opened.weights.path.display()
        ),
    }
}

/// The fields of the model that a file holds, as a recipe with this task takes them; the number of classes is left to the data.
pub fn fields_of(path: &Path, task: &TaskConfig) -> Result<Fields> {
    let weights = read(Some(path))?;
    let value = match task {
        TaskConfig::Classify(_) => serde_json::to_value(open_features(weights, None, &[])?.config)?,
        TaskConfig::Reconstruct(_) => serde_json::to_value(open_autoencoder(weights, None, &[])?.config)?,
        TaskConfig::Language(_) => serde_json::to_value(text::open_language(weights, None, &[], None)?.config)?,
        TaskConfig::ClassifyText(_) => serde_json::to_value(sentences::open_encoder(weights)?.opened.config)?,
        TaskConfig::MaskedLanguage(_) => serde_json::to_value(text::open_masked(weights, None, &[], None)?.config)?,
    };
    let mut fields = value.as_object().cloned().unwrap_or_default();
    fields.remove("classes");
    Ok(fields)
}

/// Either kind.
pub fn open_any(weights: Weights, model: Option<&str>, sets: &[String]) -> Result<Found> {
    if text::is_of_text(&weights) || whitebox_language::import::is_classifier(&weights) {
        bail!(
            "{} is a model of text, and this looks at images: `generate` writes with it, `eval` measures it, `analyze` looks inside",
            weights.path.display()
        );
    }
    let given = model_overrides(model, sets)?;
    if is_autoencoder(&weights) {
        let found = whitebox_autoencoder::import::open(weights, &given)?;
        let (config, weights) = (found.inferred.config, found.weights);
        let notes = [weights.notes.clone(), found.inferred.notes].concat();
        return Ok(Found::Autoencoder(Opened { weights, config, headless: false, notes }));
    }
    let mut notes = weights.notes.clone();
    let config = match weights.card_of::<ModelConfig>()? {
        Some(card) if given.is_empty() => {
            card.model.check().with_context(|| weights.path.display().to_string())?;
            card.model
        }
        Some(card) => {
            let mut fields = serde_json::to_value(&card.model)?.as_object().cloned().unwrap_or_default();
            fields.extend(given);
            classifier(fields)?
        }
        None => {
            let inferred = infer(&weights, &given)?;
            notes.extend(inferred.notes);
            inferred.config
        }
    };
    Ok(Found::Classifier(Opened { weights, config, headless: false, notes }))
}

fn classifier(fields: Fields) -> Result<ModelConfig> {
    match AnyModel::from_fields(fields)? {
        AnyModel::Classifier(config) => Ok(config),
        other => bail!("the model is a {}, expected a classifier of images", other.kind()),
    }
}

/// The classifier that a preset or a file names, with `model.key=value` overrides.
pub fn model(name: &str, sets: &[String]) -> Result<ModelConfig> {
    classifier(model_overrides(Some(name), sets)?)
}

/// `--model` and `--set model.*` as fields of a model.
fn model_overrides(model: Option<&str>, sets: &[String]) -> Result<Fields> {
    let mut fields = match model {
        None => Fields::new(),
        Some(name) if recipe::presets().any(|p| p == name) => {
            recipe::with_preset(Fields::from_iter([("preset".to_owned(), name.into())]))?
        }
        Some(file) if Path::new(file).is_file() => {
            let text = std::fs::read_to_string(file).with_context(|| format!("--model {file} cannot be read"))?;
            let mut tree: Fields =
                toml::from_str(&text).with_context(|| format!("--model {file} is not valid TOML"))?;
            recipe::with_preset(match tree.remove("model") {
                Some(Value::Object(section)) => section,
                _ => tree,
            })?
        }
        Some(other) => {
            let known = recipe::presets().collect::<Vec<_>>().join(", ");
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
