//! Files of classifiers of sentences, and what a run on sentences may begin with: an encoder that was pre-trained, or such a classifier.

use std::sync::Arc;

use anyhow::{Context, Result};
use serde_json::Map;
use whitebox_datasets::text::{Tokenizer, TokenizerSpec};
use whitebox_language::import::{self, is_classifier};
use whitebox_language::{ClassifierConfig, MaskedConfig, TextPool};
use whitebox_model::import::Inferred;
use whitebox_model::weights::Weights;

use super::text::{OpenedText, open_masked, tokenizer_of};
use crate::sentences::{SentencesCard, SentencesConfig};

/// An opened classifier of sentences.
pub struct OpenedClassifier {
    /// The tensors, by our names.
    pub weights: Weights,
    /// The model.
    pub config: ClassifierConfig,
    /// Whose ids it reads.
    pub tokenizer: Arc<dyn Tokenizer>,
    /// The sentences it was trained on, where the file tells.
    pub sentences: Option<SentencesConfig>,
    /// What was found out or assumed, for the user to see.
    pub notes: Vec<String>,
}

/// A classifier of sentences in a file; `tokenizer` says whose ids it reads where the file does not tell.
pub fn open_classifier(weights: Weights, tokenizer: Option<&TokenizerSpec>) -> Result<OpenedClassifier> {
    let card = match weights.card.as_ref().and_then(|card| card.data.clone()) {
        Some(told) => {
            let card: SentencesCard = serde_json::from_value(told)
                .with_context(|| format!("the sentences section of {} cannot be read", weights.path.display()))?;
            Some(card)
        }
        None => None,
    };
    let import::Opened { weights, inferred } = import::open_classifier(weights, &Map::new())?;
    let mut notes = [weights.notes.clone(), inferred.notes].concat();
    let vocabulary = inferred.config.encoder.vocabulary();
    let told = card.as_ref().map(|card| &card.tokenizer);
    let tokenizer = tokenizer_of(&weights.path, vocabulary, tokenizer, told, &mut notes)?;
    let sentences = card.map(|card| card.sentences);
    Ok(OpenedClassifier { weights, config: inferred.config, tokenizer, sentences, notes })
}

impl OpenedClassifier {
    /// Class names; numbers where the file knows none.
    pub fn classes(&self) -> Vec<String> {
        let named = self.weights.card.as_ref().map(|card| card.classes.clone()).unwrap_or_default();
        match self.config.outputs {
            1 => Vec::new(),
            outputs if named.len() as i64 == outputs => named,
            outputs => (0..outputs).map(|class| class.to_string()).collect(),
        }
    }
}

/// What a run on sentences may begin with.
pub struct Pretrained {
    /// An encoder; with a head where it is that of a classifier.
    pub opened: OpenedText<MaskedConfig>,
    /// The outputs of its head, where there is one.
    pub outputs: Option<i64>,
}

/// A masked encoder in a file, or the encoder of a classifier of sentences.
pub fn open_encoder(weights: Weights) -> Result<Pretrained> {
    if !is_classifier(&weights) {
        return Ok(Pretrained { opened: open_masked(weights, None, &[], None)?, outputs: None });
    }
    let OpenedClassifier { weights, config, tokenizer, notes, .. } = open_classifier(weights, None)?;
    let opened = OpenedText { weights, config: config.encoder(), tokenizer, text: None, packed: None, notes };
    Ok(Pretrained { opened, outputs: Some(config.outputs) })
}

/// An encoder without what a classifier does not read.
pub struct Underneath {
    /// The tensors.
    pub weights: Weights,
    /// The encoder as a classifier builds it.
    pub config: MaskedConfig,
}

impl OpenedText<MaskedConfig> {
    /// The encoder as it lies under a classifier by this pooling.
    pub fn under_classifier(self, pool: TextPool) -> Underneath {
        let inferred = Inferred { config: self.config, notes: self.notes };
        let import::Opened { weights, inferred } =
            import::Opened { weights: self.weights, inferred }.under_classifier(pool);
        Underneath { weights, config: inferred.config }
    }
}
