//! A recipe: everything that decides an experiment, in one typed TOML file.
//!
//! A recipe is read as a tree, changed by `--set key=value`, and only then parsed into [`Recipe`], so that an override is
//! checked as a line of the file would be. An unknown key is refused with the nearest known one.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use whitebox_model::ModelConfig;
use whitebox_train::{MixConfig, TrainConfig};

use crate::data::DataConfig;
use crate::evaluate::MEASURES;

/// The recipes that travel in the binary.
pub const BUILT_IN: &[(&str, &str)] = &[
    ("demo", include_str!("../recipes/demo.toml")),
    ("digits", include_str!("../recipes/digits.toml")),
    ("fashion-mnist", include_str!("../recipes/fashion-mnist.toml")),
    ("fashion-mnist-vit", include_str!("../recipes/fashion-mnist-vit.toml")),
    ("fashion-mnist-alpha", include_str!("../recipes/fashion-mnist-alpha.toml")),
    ("fashion-mnist-tost", include_str!("../recipes/fashion-mnist-tost.toml")),
    ("image-folder", include_str!("../recipes/image-folder.toml")),
    ("cifar10", include_str!("../recipes/cifar10.toml")),
    ("cifar10-vit", include_str!("../recipes/cifar10-vit.toml")),
    ("cifar10-alpha", include_str!("../recipes/cifar10-alpha.toml")),
    ("cifar10-tost", include_str!("../recipes/cifar10-tost.toml")),
    ("imagenet-crate-tiny", include_str!("../recipes/imagenet-crate-tiny.toml")),
    ("imagenet-crate-small", include_str!("../recipes/imagenet-crate-small.toml")),
    ("imagenet-crate-base", include_str!("../recipes/imagenet-crate-base.toml")),
    ("imagenet-crate-large", include_str!("../recipes/imagenet-crate-large.toml")),
    ("imagenet21k-crate-base", include_str!("../recipes/imagenet21k-crate-base.toml")),
    ("finetune-cifar10", include_str!("../recipes/finetune-cifar10.toml")),
    ("finetune-cifar100", include_str!("../recipes/finetune-cifar100.toml")),
    ("finetune-flowers102", include_str!("../recipes/finetune-flowers102.toml")),
    ("finetune-pets", include_str!("../recipes/finetune-pets.toml")),
];

/// One experiment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Which task, and its own settings.
    #[serde(default)]
    pub task: TaskConfig,
    /// The fields of a [`ModelConfig`]; `preset = "crate-tiny"` stands for the fields of a published size, and a missing
    /// `classes` for those of the data.
    pub model: Map<String, Value>,
    /// What the weights begin as, where they are not drawn: fine-tuning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<InitConfig>,
    /// Where images come from and how they are prepared.
    pub data: DataConfig,
    /// Optimiser, schedule, precision, checkpoints.
    #[serde(default)]
    pub train: TrainConfig,
    /// What the report holds beside the curves.
    #[serde(default)]
    pub report: ReportConfig,
}

/// The task of a recipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum TaskConfig {
    /// Supervised classification by cross-entropy.
    Classify(ClassifyConfig),
}

impl Default for TaskConfig {
    fn default() -> Self {
        TaskConfig::Classify(ClassifyConfig::default())
    }
}

/// Classification.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClassifyConfig {
    /// Probability mass spread over all classes. Default: 0.
    pub label_smoothing: f64,
    /// What the classes weigh in the loss. Default: all the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class_weights: Option<ClassWeights>,
    /// Mixup and CutMix. Default: neither.
    pub mix: MixConfig,
}

/// What classes weigh in the loss.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "class weights are \"balanced\" or a number for each class")]
pub enum ClassWeights {
    /// By a rule.
    Rule(WeightRule),
    /// One each, in the classes' order.
    Each(Vec<f64>),
}

/// A rule for class weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WeightRule {
    /// Images / (classes x images of the class): rare classes weigh as much as common ones.
    Balanced,
}

/// What the weights begin as.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InitConfig {
    /// A weight file (own, official, timm), a run folder or a checkpoint folder. Positions are interpolated where the grid of patches is
    /// another; the head is drawn anew where the number of classes is.
    pub checkpoint: PathBuf,
    /// Draw the head anew even where it would fit. Default: false.
    #[serde(default)]
    pub new_head: bool,
}

/// What the report of a run holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReportConfig {
    /// Train a linear model on the same pixels, for comparison. Default: false.
    pub linear_baseline: bool,
    /// Validation images on which the layers are measured before and after training; 0 leaves it out. Default: 256.
    pub layer_images: usize,
    /// Sample predictions shown. Default: 40.
    pub samples: usize,
}

impl Default for ReportConfig {
    fn default() -> Self {
        ReportConfig { linear_baseline: false, layer_images: 256, samples: 40 }
    }
}

/// A recipe with the name it was asked for.
#[derive(Clone, Debug)]
pub struct Named {
    /// The built-in name, or the file's stem.
    pub name: String,
    /// The recipe, overrides applied.
    pub recipe: Recipe,
}

/// Reads a built-in recipe or a file, and applies `key=value` overrides.
pub fn load(asked: &str, sets: &[String]) -> Result<Named> {
    let (name, text) = match BUILT_IN.iter().find(|(n, _)| *n == asked) {
        Some((n, text)) => ((*n).to_owned(), (*text).to_owned()),
        None if Path::new(asked).extension().is_some_and(|e| e == "toml") || asked.contains('/') => {
            let path = Path::new(asked);
            let text =
                std::fs::read_to_string(path).with_context(|| format!("the recipe file {asked} cannot be read"))?;
            (path.file_stem().map_or("recipe".into(), |s| s.to_string_lossy().into_owned()), text)
        }
        None => bail!(
            "there is no recipe `{asked}`{} (there are: {}; a recipe file ends in .toml)",
            did_you_mean(asked, BUILT_IN.iter().map(|(n, _)| *n)),
            BUILT_IN.iter().map(|(n, _)| *n).collect::<Vec<_>>().join(", ")
        ),
    };
    let tree: Value = toml::from_str(&text).with_context(|| format!("the recipe `{asked}` is not valid TOML"))?;
    let recipe = parse(with_overrides(tree, sets)?).with_context(|| format!("recipe `{asked}`"))?;
    Ok(Named { name, recipe })
}

/// Parses a whole recipe; unknown keys are refused with the nearest known one.
pub fn parse(mut tree: Value) -> Result<Recipe> {
    // `--set task.label_smoothing=0.1` needs no task.kind beside it: there is one default.
    if let Some(Value::Object(task)) = tree.get_mut("task") {
        task.entry("kind").or_insert("classify".into());
    }
    let recipe: Recipe = typed(tree)?;
    recipe.check().map(|()| recipe)
}

impl Recipe {
    /// Refuses values that cannot be meant, before anything is opened or written.
    fn check(&self) -> Result<()> {
        self.model_config(Some(2))?;
        self.train.check().map_err(|e| anyhow!("train.{e}"))?;
        self.data.check()?;
        let TaskConfig::Classify(ClassifyConfig { label_smoothing, mix, class_weights }) = &self.task;
        if !(0.0..=1.0).contains(label_smoothing) {
            bail!("task.label_smoothing = {label_smoothing}: expected a number from 0 to 1");
        }
        mix.check().map_err(|e| anyhow!("task.{e}"))?;
        if let Some(ClassWeights::Each(weights)) = class_weights
            && let Some(weight) = weights.iter().find(|weight| !(0.0..=1e6).contains(*weight))
        {
            bail!("task.class_weights holds {weight}: expected numbers from 0 to 1e6");
        }
        match &self.train.checkpoint.best {
            Some(best) if !MEASURES.contains(&best.metric.as_str()) => bail!(
                "train.checkpoint.best.metric = {:?}: an evaluation measures {}{}",
                best.metric,
                MEASURES.join(", "),
                did_you_mean(&best.metric, MEASURES.into_iter())
            ),
            _ => Ok(()),
        }
    }

    /// The model, with `classes` filled in from the data where the recipe leaves it open.
    pub fn model_config(&self, classes: Option<usize>) -> Result<ModelConfig> {
        let mut fields = self.model.clone();
        if let Some(classes) = classes {
            fields.entry("classes").or_insert(Value::from(classes));
        }
        model_from_fields(fields)
    }
}

/// A [`ModelConfig`] from its fields, where `preset` stands for those of a published size.
pub fn model_from_fields(mut fields: Map<String, Value>) -> Result<ModelConfig> {
    if let Some(preset) = fields.remove("preset") {
        let name = preset.as_str().context("model.preset must be the name of a size in quotes")?;
        let whole = serde_json::to_value(ModelConfig::preset(name)?)?;
        for (key, value) in whole.as_object().cloned().unwrap_or_default() {
            fields.entry(key).or_insert(value);
        }
    }
    // Parsed by kind, because serde tells no path inside a tagged enum.
    let kind = fields.get("kind").and_then(Value::as_str).map(str::to_owned);
    let config = match kind.as_deref() {
        Some("crate") => typed(untagged(fields)).map(ModelConfig::Crate),
        Some("crate_alpha") => typed(untagged(fields)).map(ModelConfig::CrateAlpha),
        Some("tost") => typed(untagged(fields)).map(ModelConfig::Tost),
        Some("vit") => typed(untagged(fields)).map(ModelConfig::Vit),
        _ => typed(Value::Object(fields)),
    };
    let config = config.context("model")?;
    config.check()?;
    Ok(config)
}

fn untagged(mut fields: Map<String, Value>) -> Value {
    fields.remove("kind");
    Value::Object(fields)
}

/// Sets `a.b.c=value` in a tree; the value is read as TOML, and as a plain string where it is none.
pub fn with_overrides(mut tree: Value, sets: &[String]) -> Result<Value> {
    for set in sets {
        let (key, text) = set
            .split_once('=')
            .with_context(|| format!("--set {set}: expected key=value, for instance --set train.epochs=3"))?;
        let mut place = &mut tree;
        let parts: Vec<_> = key.trim().split('.').collect();
        if parts.iter().any(|p| p.is_empty()) {
            bail!("--set {set}: the key `{key}` has an empty part");
        }
        for part in parts {
            if !place.is_object() {
                if !place.is_null() {
                    bail!("--set {set}: what stands before `{part}` is a single value and has no parts");
                }
                *place = Value::Object(Map::new());
            }
            place = &mut place[part];
        }
        *place = value_of(text.trim()).with_context(|| format!("--set {set}"))?;
    }
    Ok(tree)
}

fn value_of(text: &str) -> Result<Value> {
    let parsed: Result<Map<String, Value>, _> = toml::from_str(&format!("x = {text}"));
    match parsed.ok().and_then(|mut table| table.remove("x")) {
        Some(Value::Null) => bail!("{text} is not a finite number"),
        Some(value) => Ok(value),
        None => Ok(Value::String(text.to_owned())),
    }
}

/// Deserializes with the path of what is wrong, and the nearest known name of what is unknown.
fn typed<T: DeserializeOwned>(tree: Value) -> Result<T> {
    serde_path_to_error::deserialize(tree).map_err(|error| {
        let path = error.path().to_string();
        let message = error.into_inner().to_string();
        let mut names = message.split('`').skip(1).step_by(2);
        let suggestion = match (message.starts_with("unknown"), names.next()) {
            (true, Some(unknown)) => did_you_mean(unknown, names),
            _ => String::new(),
        };
        if path == "." { anyhow!("{message}{suggestion}") } else { anyhow!("{path}: {message}{suggestion}") }
    })
}

/// `; did you mean ...?` where a known name is near.
pub fn did_you_mean<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    let near = known.map(|k| (strsim::jaro_winkler(name, k), k)).filter(|(s, _)| *s > 0.75);
    match near.max_by(|a, b| a.0.total_cmp(&b.0)) {
        Some((_, k)) => format!("; did you mean `{k}`?"),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(sets: &[&str]) -> String {
        let sets: Vec<_> = sets.iter().map(|s| s.to_string()).collect();
        format!("{:#}", load("demo", &sets).unwrap_err())
    }

    #[test]
    fn every_built_in_recipe_parses_and_says_how_it_is_run() {
        for (name, text) in BUILT_IN {
            let named = load(name, &[]).unwrap_or_else(|e| panic!("{name}: {e:#}"));
            assert!(text.starts_with(&format!("# cargo xtask train {name}")) || *name == "demo", "{name}: first line");
            for word in ["# Expected:", "# Hardware:", "# Time:"] {
                assert!(text.contains(word), "{name} lacks `{word}` in its header");
            }
            let again = toml::to_string(&named.recipe).unwrap();
            assert_eq!(parse(toml::from_str(&again).unwrap()).unwrap(), named.recipe, "{name} survives writing");
        }
    }

    #[test]
    fn overrides_reach_their_place() {
        let sets = ["train.epochs=3", "model.eta=0.2", "data.path=/some where/else", "model.patch=[14, 14]"];
        let named = load("demo", &sets.map(String::from)).unwrap();
        assert_eq!(named.recipe.train.epochs, 3);
        assert_eq!(named.recipe.model["eta"], 0.2);
        assert_eq!(named.recipe.data.path.as_deref(), Some(Path::new("/some where/else")));
    }

    #[test]
    fn unknown_keys_are_refused_with_the_nearest_known_one() {
        assert!(error(&["train.epocs=3"]).contains("did you mean `epochs`"), "{}", error(&["train.epocs=3"]));
        assert!(error(&["model.lamda=3"]).contains("did you mean `lambda`"), "{}", error(&["model.lamda=3"]));
        assert!(error(&["dat.path=x"]).contains("did you mean `data`"), "{}", error(&["dat.path=x"]));
        assert!(format!("{:#}", load("dmeo", &[]).unwrap_err()).contains("did you mean `demo`"));
        assert!(error(&["train.epochs"]).contains("expected key=value"));
        assert!(error(&["train.epochs=many"]).contains("train.epochs"), "{}", error(&["train.epochs=many"]));
        assert!(error(&["train.epochs.more=1"]).contains("single value"));
        assert!(error(&["model.preset=crate-huge"]).contains("crate-tiny"));
    }
}
