//! A recipe: everything that decides an experiment, in one typed TOML file.
//!
//! A recipe is read as a tree, changed by `--set key=value`, and only then parsed into [`Recipe`], so that an override is
//! checked as a line of the file would be. An unknown key is refused with the nearest known one.

mod model;
mod task;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use whitebox_autoencoder::{AutoencoderConfig, Over};
use whitebox_language::{LanguageConfig, MaskedConfig};
use whitebox_model::ModelConfig;
use whitebox_train::TrainConfig;

use crate::checkpoint;
use crate::data::DataConfig;
use crate::sentences::SentencesConfig;
use crate::text::TextConfig;

use model::Family;
pub use model::{AnyModel, Fields, presets, with_preset};
use task::DataSection;
pub use task::{
    ClassWeights, ClassifyConfig, ClassifyTextConfig, LanguageTask, ReconstructConfig, TaskConfig, WeightRule,
};

/// The recipes that travel in the binary.
pub const BUILT_IN: &[(&str, &str)] = &[
    ("demo", include_str!("../recipes/demo.toml")),
    ("digits", include_str!("../recipes/digits.toml")),
    ("fashion-mnist", include_str!("../recipes/fashion-mnist.toml")),
    ("fashion-mnist-vit", include_str!("../recipes/fashion-mnist-vit.toml")),
    ("fashion-mnist-alpha", include_str!("../recipes/fashion-mnist-alpha.toml")),
    ("fashion-mnist-tost", include_str!("../recipes/fashion-mnist-tost.toml")),
    ("image-folder", include_str!("../recipes/image-folder.toml")),
    ("mae-demo", include_str!("../recipes/mae-demo.toml")),
    ("fashion-mnist-mae", include_str!("../recipes/fashion-mnist-mae.toml")),
    ("fashion-mnist-vit-mae", include_str!("../recipes/fashion-mnist-vit-mae.toml")),
    ("finetune-fashion-mnist-mae", include_str!("../recipes/finetune-fashion-mnist-mae.toml")),
    ("cifar10", include_str!("../recipes/cifar10.toml")),
    ("cifar10-vit", include_str!("../recipes/cifar10-vit.toml")),
    ("cifar10-alpha", include_str!("../recipes/cifar10-alpha.toml")),
    ("cifar10-tost", include_str!("../recipes/cifar10-tost.toml")),
    ("transfer", include_str!("../recipes/transfer.toml")),
    ("cifar10-mae", include_str!("../recipes/cifar10-mae.toml")),
    ("cifar10-vit-mae", include_str!("../recipes/cifar10-vit-mae.toml")),
    ("imagenet-crate-tiny", include_str!("../recipes/imagenet-crate-tiny.toml")),
    ("imagenet-crate-small", include_str!("../recipes/imagenet-crate-small.toml")),
    ("imagenet-crate-base", include_str!("../recipes/imagenet-crate-base.toml")),
    ("imagenet-crate-large", include_str!("../recipes/imagenet-crate-large.toml")),
    ("imagenet21k-crate-base", include_str!("../recipes/imagenet21k-crate-base.toml")),
    ("imagenet-crate-mae-small", include_str!("../recipes/imagenet-crate-mae-small.toml")),
    ("imagenet-crate-mae-base", include_str!("../recipes/imagenet-crate-mae-base.toml")),
    ("finetune-cifar10", include_str!("../recipes/finetune-cifar10.toml")),
    ("finetune-cifar100", include_str!("../recipes/finetune-cifar100.toml")),
    ("finetune-flowers102", include_str!("../recipes/finetune-flowers102.toml")),
    ("finetune-pets", include_str!("../recipes/finetune-pets.toml")),
    ("language-demo", include_str!("../recipes/language-demo.toml")),
    ("tinyshakespeare", include_str!("../recipes/tinyshakespeare.toml")),
    ("tinyshakespeare-gpt2", include_str!("../recipes/tinyshakespeare-gpt2.toml")),
    ("gutenberg", include_str!("../recipes/gutenberg.toml")),
    ("gutenberg-alpha", include_str!("../recipes/gutenberg-alpha.toml")),
    ("gutenberg-gpt2", include_str!("../recipes/gutenberg-gpt2.toml")),
    ("gutenberg-tost", include_str!("../recipes/gutenberg-tost.toml")),
    ("gutenberg-bert", include_str!("../recipes/gutenberg-bert.toml")),
    ("gutenberg-bert-bert", include_str!("../recipes/gutenberg-bert-bert.toml")),
    ("movie-reviews-crate", include_str!("../recipes/movie-reviews-crate.toml")),
    ("movie-reviews-bert", include_str!("../recipes/movie-reviews-bert.toml")),
    ("openwebtext-crate-gpt-base", include_str!("../recipes/openwebtext-crate-gpt-base.toml")),
    ("wikipedia-crate-bert-base", include_str!("../recipes/wikipedia-crate-bert-base.toml")),
];

/// One experiment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Which task, and its own settings.
    #[serde(default)]
    pub task: TaskConfig,
    /// The fields of a [`ModelConfig`] or, where the task is reconstruction, of an [`AutoencoderConfig`]; `preset = "crate-tiny"` stands for
    /// the fields of a published size, a missing `classes` for those of the data, and neither kind nor preset for the model of `init.checkpoint`.
    #[serde(default)]
    pub model: Fields,
    /// What the weights begin as, where they are not drawn: fine-tuning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<InitConfig>,
    /// Where images come from and how they are prepared, of a task on images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<DataConfig>,
    /// Where text comes from and how it is prepared, of a task on text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<TextConfig>,
    /// Where labelled sentences come from and how they are prepared, of a task on those.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sentences: Option<SentencesConfig>,
    /// Optimiser, schedule, precision, checkpoints.
    #[serde(default)]
    pub train: TrainConfig,
    /// What the report holds beside the curves.
    #[serde(default)]
    pub report: ReportConfig,
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
    /// Sample predictions shown, or reconstructions (at most 8). Default: 40.
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
    let mut recipe: Recipe = typed(tree)?;
    recipe.complete()?;
    recipe.check().map(|()| recipe)
}

impl Recipe {
    /// Fills in the model of the file that the weights begin as, where the recipe says none.
    fn complete(&mut self) -> Result<()> {
        if ["kind", "preset"].iter().any(|key| self.model.contains_key(*key)) {
            return Ok(());
        }
        let Some(init) = &self.init else {
            bail!(
                "model.kind and model.preset are missing: expected one of them, or init.checkpoint whose model it is to be"
            )
        };
        let mut fields = checkpoint::fields_of(&init.checkpoint, &self.task).context("init.checkpoint")?;
        fields.append(&mut self.model);
        self.model = fields;
        Ok(())
    }

    /// Refuses values that cannot be meant, before anything is opened or written.
    fn check(&self) -> Result<()> {
        self.task.check()?;
        match (&self.task, self.any_model(Some(2))?) {
            (TaskConfig::Classify(_), AnyModel::Classifier(_)) => {}
            (TaskConfig::Reconstruct(task), AnyModel::Autoencoder(model)) => {
                let patches = model.grid().patches();
                if task.loss.over == Over::Masked && task.masking.kept(patches) == patches {
                    bail!(
                        "task.masking.ratio = {} hides none of {patches} patches, and task.loss.over = \"masked\" counts hidden ones alone: \
                         raise the ratio, or set task.loss.over = \"whole\"",
                        task.masking.ratio
                    );
                }
            }
            (TaskConfig::Language(_), AnyModel::Language(_)) | (TaskConfig::MaskedLanguage(_), AnyModel::Masked(_)) => {
            }
            (TaskConfig::ClassifyText(task), AnyModel::Masked(encoder)) => {
                task.model(encoder, 2).check().context("model and task")?
            }
            (TaskConfig::Classify(_), AnyModel::Autoencoder(model)) => bail!(
                "task.kind = \"classify\" trains a classifier, and model.kind = \"{}\" is an autoencoder: set task.kind = \"reconstruct\", or \
                 a model that classifies (crate, crate_alpha, tost, vit); to fine-tune an autoencoder's encoder, leave [model] empty and name \
                 the file in init.checkpoint",
                kind_of(&model)
            ),
            (TaskConfig::Reconstruct(_), AnyModel::Classifier(model)) => bail!(
                "task.kind = \"reconstruct\" trains an autoencoder, and model.kind = \"{}\" is a classifier: set model.kind = \"crate_mae\" or \
                 \"vit_mae\" (or a preset of theirs), or task.kind = \"classify\"",
                kind_of(&model)
            ),
            (task, model) => bail!(
                "task.kind = {:?} and model.kind = {:?} do not go together: classify takes crate, crate_alpha, tost, vit; reconstruct takes \
                 crate_mae, vit_mae; language takes crate_gpt, gpt2, tost_gpt; masked_language and classify_text take \
                 crate_bert, bert",
                kind_of(task),
                model.kind()
            ),
        }
        self.train.check().map_err(|e| anyhow!("train.{e}"))?;
        self.check_data()?;
        let measures = self.task.measures();
        match &self.train.checkpoint.best {
            Some(best) if !measures.contains(&best.metric.as_str()) => bail!(
                "train.checkpoint.best.metric = {:?}: an evaluation measures {}{}",
                best.metric,
                measures.join(", "),
                did_you_mean(&best.metric, measures.iter().copied())
            ),
            _ => Ok(()),
        }
    }

    /// Refuses a section on data that is missing, that the task does not read, or whose values cannot be meant.
    fn check_data(&self) -> Result<()> {
        let wanted = self.task.section();
        let [_, _, does, _] = wanted.words();
        for section in DataSection::ALL {
            let there = match section {
                DataSection::Images => self.data.as_ref().map(DataConfig::check),
                DataSection::Text => self.text.as_ref().map(TextConfig::check),
                DataSection::Sentences => self.sentences.as_ref().map(SentencesConfig::check),
            };
            let [name, of, _, says] = section.words();
            match there {
                Some(checked) if section == wanted => checked?,
                Some(_) => bail!("the section [{name}] is of {of}, and the task {does}: remove it"),
                None if section == wanted => bail!("the section [{name}] is missing: expected {says}"),
                None => {}
            }
        }
        Ok(())
    }

    /// The model, with what the data tell (classes, of a model of text the vocabulary) filled in where the recipe leaves it open.
    fn any_model(&self, told: Option<usize>) -> Result<AnyModel> {
        let mut fields = self.model.clone();
        let open = match model::family(&fields) {
            Family::Classifier => Some("classes"),
            Family::Autoencoder => None,
            Family::Text => Some("vocabulary"),
        };
        if let (Some(told), Some(field)) = (told, open) {
            fields.entry(field).or_insert(Value::from(told));
        }
        AnyModel::from_fields(fields)
    }

    /// The section on images.
    pub fn images(&self) -> Result<&DataConfig> {
        self.data.as_ref().context("the recipe is one of text, and has no section [data] on images")
    }

    /// The section on text.
    pub fn of_text(&self) -> Result<&TextConfig> {
        self.text.as_ref().context("the recipe is one of images, and has no section [text]")
    }

    /// The section on labelled sentences.
    pub fn of_sentences(&self) -> Result<&SentencesConfig> {
        self.sentences.as_ref().context("the recipe has no section [sentences]")
    }

    /// The language model that the recipe describes, for a vocabulary.
    pub fn language_config(&self, vocabulary: usize) -> Result<LanguageConfig> {
        match self.any_model(Some(vocabulary))? {
            AnyModel::Language(config) => knows(config.vocabulary(), vocabulary).map(|()| config),
            _ => bail!("the recipe's model is no language model"),
        }
    }

    /// The masked encoder that the recipe describes, for a vocabulary.
    pub fn masked_config(&self, vocabulary: usize) -> Result<MaskedConfig> {
        match self.any_model(Some(vocabulary))? {
            AnyModel::Masked(config) => knows(config.vocabulary(), vocabulary).map(|()| config),
            _ => bail!("the recipe's model is no masked encoder"),
        }
    }

    /// The classifier that the recipe describes.
    pub fn model_config(&self, classes: Option<usize>) -> Result<ModelConfig> {
        match self.any_model(classes)? {
            AnyModel::Classifier(config) => Ok(config),
            other => bail!("the recipe's model is a {}, expected a classifier", other.kind()),
        }
    }

    /// The autoencoder that the recipe describes.
    pub fn autoencoder_config(&self) -> Result<AutoencoderConfig> {
        match self.any_model(None)? {
            AnyModel::Autoencoder(config) => Ok(config),
            other => bail!("the recipe's model is a {}, expected an autoencoder", other.kind()),
        }
    }
}

/// Refuses a model that does not know all words of a tokenizer.
fn knows(model: i64, tokenizer: usize) -> Result<()> {
    if model < tokenizer as i64 {
        bail!(
            "model.vocabulary = {model}, and the tokenizer has {tokenizer} ids: leave it out, or set at least as many"
        );
    }
    Ok(())
}

/// The kind of a model, as a recipe writes it.
fn kind_of(model: &impl Serialize) -> String {
    let value = serde_json::to_value(model).unwrap_or_default();
    value["kind"].as_str().unwrap_or_default().to_owned()
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
    fn models_that_are_compared_have_the_same_parameters() {
        for pair in [["fashion-mnist-mae", "fashion-mnist-vit-mae"], ["cifar10-mae", "cifar10-vit-mae"]] {
            let [ours, theirs] = pair.map(|name| {
                let config = load(name, &[]).unwrap().recipe.autoencoder_config().unwrap();
                config.cost(&Default::default()).parameters as f64
            });
            assert!((ours / theirs - 1.0).abs() < 0.02, "{pair:?}: {ours} and {theirs}");
        }
    }

    #[test]
    fn overrides_reach_their_place() {
        let sets = ["train.epochs=3", "model.eta=0.2", "data.path=/some where/else", "model.patch=[14, 14]"];
        let named = load("demo", &sets.map(String::from)).unwrap();
        assert_eq!(named.recipe.train.epochs, 3);
        assert_eq!(named.recipe.model["eta"], 0.2);
        assert_eq!(named.recipe.images().unwrap().path.as_deref(), Some(Path::new("/some where/else")));
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
