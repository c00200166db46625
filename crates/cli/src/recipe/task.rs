//! The task section of a recipe: what is learned, and its own settings.

use anyhow::{Result, anyhow, bail};
use serde::{Deserialize, Serialize};
use whitebox_autoencoder::{Masking, ReconstructionLoss};
use whitebox_datasets::text::MaskingConfig;
use whitebox_language::{ClassifierConfig, MaskedConfig, TextPool};
use whitebox_train::MixConfig;

use crate::evaluate;
use crate::likelihood;
use crate::reconstruction;
use crate::sentences::measures;

/// The task of a recipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum TaskConfig {
    /// Supervised classification by cross-entropy.
    Classify(ClassifyConfig),
    /// Masked autoencoding: an image is reconstructed from a part of its patches.
    Reconstruct(ReconstructConfig),
    /// Causal language modelling: the next token of a text.
    Language(LanguageTask),
    /// Masked language modelling: tokens of a text that are hidden.
    MaskedLanguage(MaskingConfig),
    /// Classes or scores of sentences, or of pairs of them.
    ClassifyText(ClassifyTextConfig),
}

/// Classification of sentences.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClassifyTextConfig {
    /// What a sentence's vector is made of: `pooler` (of the first token) or `mean` (of all). Default: pooler.
    pub pool: TextPool,
    /// Dropout of that vector; the encoder's own is `model.dropout`. Default: 0.1.
    pub dropout: f64,
}

impl Default for ClassifyTextConfig {
    fn default() -> Self {
        ClassifyTextConfig { pool: TextPool::default(), dropout: 0.1 }
    }
}

impl ClassifyTextConfig {
    /// The classifier on an encoder.
    pub fn model(&self, encoder: MaskedConfig, outputs: i64) -> ClassifierConfig {
        let encoder = encoder.with_mlm_head(false);
        ClassifierConfig { pool: self.pool, dropout: self.dropout, ..ClassifierConfig::new(encoder, outputs) }
    }
}

/// A section of a recipe that says what data there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataSection {
    /// `[data]`.
    Images,
    /// `[text]`.
    Text,
    /// `[sentences]`.
    Sentences,
}

impl DataSection {
    /// All of them.
    pub const ALL: [Self; 3] = [DataSection::Images, DataSection::Text, DataSection::Sentences];

    /// Its name, what it is of, what a task does that reads it, and what it is to say.
    pub fn words(self) -> [&'static str; 4] {
        match self {
            DataSection::Images => ["data", "images", "looks at images", "where the images come from"],
            DataSection::Text => ["text", "text", "reads text", "where the text comes from"],
            DataSection::Sentences => {
                ["sentences", "labelled sentences", "reads labelled sentences", "where the sentences come from"]
            }
        }
    }
}

/// Causal language modelling.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LanguageTask {
    /// What the sample in the report begins with. Default: the first tokens of the validation text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// Tokens of the sample; 0 leaves it out. Default: 300.
    pub sample_tokens: usize,
}

impl Default for LanguageTask {
    fn default() -> Self {
        LanguageTask { prompt: None, sample_tokens: 300 }
    }
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

/// Masked autoencoding.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReconstructConfig {
    /// Which patches are hidden. Default: 75 % of them, at random.
    pub masking: Masking,
    /// What is compared. Default: the pixels of the hidden patches.
    pub loss: ReconstructionLoss,
}

impl TaskConfig {
    /// Refuses values that cannot be meant.
    pub fn check(&self) -> Result<()> {
        match self {
            TaskConfig::Classify(config) => config.check(),
            TaskConfig::Reconstruct(config) => config.masking.check().map_err(|e| anyhow!("task.masking: {e}")),
            TaskConfig::Language(_) => Ok(()),
            // The shares are looked at with the tokenizer at hand.
            TaskConfig::MaskedLanguage(_) => Ok(()),
            // The dropout is looked at with the model.
            TaskConfig::ClassifyText(_) => Ok(()),
        }
    }

    /// What an evaluation of it may measure.
    pub fn measures(&self) -> &'static [&'static str] {
        match self {
            TaskConfig::Classify(_) => &evaluate::MEASURES,
            TaskConfig::Reconstruct(_) => &reconstruction::MEASURES,
            TaskConfig::Language(_) => &likelihood::MEASURES,
            TaskConfig::MaskedLanguage(_) => &likelihood::MASKED_MEASURES,
            TaskConfig::ClassifyText(_) => &measures::MEASURES,
        }
    }

    /// The section that says what it reads.
    pub fn section(&self) -> DataSection {
        match self {
            TaskConfig::Classify(_) | TaskConfig::Reconstruct(_) => DataSection::Images,
            TaskConfig::Language(_) | TaskConfig::MaskedLanguage(_) => DataSection::Text,
            TaskConfig::ClassifyText(_) => DataSection::Sentences,
        }
    }
}

impl ClassifyConfig {
    fn check(&self) -> Result<()> {
        if !(0.0..=1.0).contains(&self.label_smoothing) {
            bail!("task.label_smoothing = {}: expected a number from 0 to 1", self.label_smoothing);
        }
        self.mix.check().map_err(|e| anyhow!("task.{e}"))?;
        if let Some(ClassWeights::Each(weights)) = &self.class_weights
            && let Some(weight) = weights.iter().find(|weight| !(0.0..=1e6).contains(*weight))
        {
            bail!("task.class_weights holds {weight}: expected numbers from 0 to 1e6");
        }
        Ok(())
    }
}
