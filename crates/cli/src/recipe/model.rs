//! The model section of a recipe: a classifier or an autoencoder, by its kind or by a published size.

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value};
use whitebox_autoencoder::AutoencoderConfig;
use whitebox_model::ModelConfig;

use super::{did_you_mean, typed};

/// The fields of a model, which `preset = "crate-tiny"` may stand for.
pub type Fields = Map<String, Value>;

/// What `kind` may be.
const KINDS: [&str; 6] = ["crate", "crate_alpha", "tost", "vit", "crate_mae", "vit_mae"];

/// Either kind of model.
#[derive(Clone, Debug, PartialEq)]
pub enum AnyModel {
    /// From an image to a class.
    Classifier(ModelConfig),
    /// From a part of an image to the whole.
    Autoencoder(AutoencoderConfig),
}

impl AnyModel {
    /// A model from its fields. Those that stand beside a preset win.
    pub fn from_fields(fields: Fields) -> Result<Self> {
        let mut fields = with_preset(fields)?;
        // Parsed by kind, because serde tells no path inside a tagged enum.
        let kind = fields.get("kind").and_then(Value::as_str).map(str::to_owned);
        let mut untagged = || {
            fields.remove("kind");
            Value::Object(std::mem::take(&mut fields))
        };
        let model = match kind.as_deref() {
            Some("crate") => typed(untagged()).map(ModelConfig::Crate).map(AnyModel::Classifier),
            Some("crate_alpha") => typed(untagged()).map(ModelConfig::CrateAlpha).map(AnyModel::Classifier),
            Some("tost") => typed(untagged()).map(ModelConfig::Tost).map(AnyModel::Classifier),
            Some("vit") => typed(untagged()).map(ModelConfig::Vit).map(AnyModel::Classifier),
            Some("crate_mae") => typed(untagged()).map(AutoencoderConfig::CrateMae).map(AnyModel::Autoencoder),
            Some("vit_mae") => typed(untagged()).map(AutoencoderConfig::VitMae).map(AnyModel::Autoencoder),
            Some(other) => bail!(
                "model.kind = {other:?} is unknown: expected one of {}{}",
                KINDS.join(", "),
                did_you_mean(other, KINDS.into_iter())
            ),
            // What serde says of a kind that is missing or no text.
            None => typed(Value::Object(fields)).map(AnyModel::Classifier),
        };
        let model = model.context("model")?;
        model.check()?;
        Ok(model)
    }

    fn check(&self) -> Result<()> {
        match self {
            AnyModel::Classifier(config) => config.check()?,
            AnyModel::Autoencoder(config) => config.check()?,
        }
        Ok(())
    }
}

/// Whether fields describe an autoencoder.
pub fn is_autoencoder(fields: &Fields) -> bool {
    let text = |key: &str| fields.get(key).and_then(Value::as_str);
    match text("kind") {
        Some(kind) => matches!(kind, "crate_mae" | "vit_mae"),
        None => text("preset").is_some_and(|name| AutoencoderConfig::presets().any(|p| p == name)),
    }
}

/// Fields with a preset's own in its place.
pub fn with_preset(mut fields: Fields) -> Result<Fields> {
    if let Some(preset) = fields.remove("preset") {
        let name = preset.as_str().context("model.preset must be the name of a size in quotes")?;
        for (key, value) in preset_fields(name)? {
            fields.entry(key).or_insert(value);
        }
    }
    Ok(fields)
}

/// The names of all published sizes.
pub fn presets() -> impl Iterator<Item = &'static str> {
    ModelConfig::presets().chain(AutoencoderConfig::presets())
}

/// The fields of a published size.
fn preset_fields(name: &str) -> Result<Fields> {
    let whole = match AutoencoderConfig::presets().any(|p| p == name) {
        true => serde_json::to_value(AutoencoderConfig::preset(name)?)?,
        false if ModelConfig::presets().any(|p| p == name) => serde_json::to_value(ModelConfig::preset(name)?)?,
        false => bail!(
            "there is no model of the name {name}{}; there are {}",
            did_you_mean(name, presets()),
            presets().collect::<Vec<_>>().join(", ")
        ),
    };
    Ok(whole.as_object().cloned().unwrap_or_default())
}
