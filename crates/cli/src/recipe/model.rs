//! The model section of a recipe: a classifier, an autoencoder, a model of text, by its kind or by a published size.

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value};
use whitebox_autoencoder::AutoencoderConfig;
use whitebox_language::{LanguageConfig, MaskedConfig};
use whitebox_model::ModelConfig;

use super::{did_you_mean, kind_of, typed};

/// The fields of a model, which `preset = "crate-tiny"` may stand for.
pub type Fields = Map<String, Value>;

/// What `kind` may be.
const KINDS: [(&str, Family); 11] = [
    ("crate", Family::Classifier),
    ("crate_alpha", Family::Classifier),
    ("tost", Family::Classifier),
    ("vit", Family::Classifier),
    ("crate_mae", Family::Autoencoder),
    ("vit_mae", Family::Autoencoder),
    ("crate_gpt", Family::Text),
    ("gpt2", Family::Text),
    ("tost_gpt", Family::Text),
    ("crate_bert", Family::Text),
    ("bert", Family::Text),
];

/// What a model is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Names classes of images.
    Classifier,
    /// Makes a whole image of a part.
    Autoencoder,
    /// Reads text.
    Text,
}

/// Any kind of model.
#[derive(Clone, Debug, PartialEq)]
pub enum AnyModel {
    /// From an image to a class.
    Classifier(ModelConfig),
    /// From a part of an image to the whole.
    Autoencoder(AutoencoderConfig),
    /// From words to the next.
    Language(LanguageConfig),
    /// From words to those that are hidden.
    Masked(MaskedConfig),
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
            Some("crate_gpt") => typed(untagged()).map(LanguageConfig::CrateGpt).map(AnyModel::Language),
            Some("gpt2") => typed(untagged()).map(LanguageConfig::Gpt2).map(AnyModel::Language),
            Some("tost_gpt") => typed(untagged()).map(LanguageConfig::TostGpt).map(AnyModel::Language),
            Some("crate_bert") => typed(untagged()).map(MaskedConfig::CrateBert).map(AnyModel::Masked),
            Some("bert") => typed(untagged()).map(MaskedConfig::Bert).map(AnyModel::Masked),
            Some(other) => bail!(
                "model.kind = {other:?} is unknown: expected one of {}{}",
                KINDS.map(|(kind, _)| kind).join(", "),
                did_you_mean(other, KINDS.into_iter().map(|(kind, _)| kind))
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
            AnyModel::Language(config) => config.check()?,
            AnyModel::Masked(config) => config.check()?,
        }
        Ok(())
    }

    /// Its kind, as a recipe writes it.
    pub fn kind(&self) -> String {
        match self {
            AnyModel::Classifier(config) => kind_of(config),
            AnyModel::Autoencoder(config) => kind_of(config),
            AnyModel::Language(config) => kind_of(config),
            AnyModel::Masked(config) => kind_of(config),
        }
    }
}

/// What a model with these fields is for; a classifier where nothing tells.
pub fn family(fields: &Fields) -> Family {
    let text = |key: &str| fields.get(key).and_then(Value::as_str);
    let kind = match (text("kind"), text("preset")) {
        (Some(kind), _) => Some(kind.to_owned()),
        (None, Some(name)) => {
            preset_fields(name).ok().and_then(|fields| Some(fields.get("kind")?.as_str()?.to_owned()))
        }
        (None, None) => None,
    };
    let known = kind.and_then(|kind| KINDS.into_iter().find(|(known, _)| *known == kind));
    known.map_or(Family::Classifier, |(_, family)| family)
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
    let images = ModelConfig::presets().chain(AutoencoderConfig::presets());
    images.chain(LanguageConfig::presets()).chain(MaskedConfig::presets())
}

/// The fields of a published size.
fn preset_fields(name: &str) -> Result<Fields> {
    let known = |mut presets: Box<dyn Iterator<Item = &'static str>>| presets.any(|p| p == name);
    let whole = if known(Box::new(AutoencoderConfig::presets())) {
        serde_json::to_value(AutoencoderConfig::preset(name)?)?
    } else if known(Box::new(ModelConfig::presets())) {
        serde_json::to_value(ModelConfig::preset(name)?)?
    } else if known(Box::new(LanguageConfig::presets())) {
        serde_json::to_value(LanguageConfig::preset(name)?)?
    } else if known(Box::new(MaskedConfig::presets())) {
        serde_json::to_value(MaskedConfig::preset(name)?)?
    } else {
        bail!(
            "there is no model of the name {name}{}; there are {}",
            did_you_mean(name, presets()),
            presets().collect::<Vec<_>>().join(", ")
        )
    };
    Ok(whole.as_object().cloned().unwrap_or_default())
}
