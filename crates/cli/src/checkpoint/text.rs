//! Files of models of text: language models and masked encoders, with the tokenizer whose ids they read.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use whitebox_datasets::text::{Definition, Tokenizer, TokenizerSpec};
use whitebox_language::import::{self, is_language_model, is_masked_model};
use whitebox_language::{LanguageConfig, MaskedConfig};
use whitebox_model::weights::Weights;

use super::{model_overrides, read};
use crate::data::embedded_folder;
use crate::text::{TextCard, TextConfig, found as found_tokenizer};

/// An opened file with the model and the tokenizer that belong to it.
pub struct OpenedText<C> {
    /// The tensors, by our names.
    pub weights: Weights,
    /// The model.
    pub config: C,
    /// Whose ids it reads.
    pub tokenizer: Arc<dyn Tokenizer>,
    /// The text it was trained on, where the file tells.
    pub text: Option<TextConfig>,
    /// The hash over that text's tokens.
    pub packed: Option<String>,
    /// What was found out or assumed, for the user to see.
    pub notes: Vec<String>,
}

/// Whether a file holds a model of text.
pub fn is_of_text(weights: &Weights) -> bool {
    is_language_model(weights) || is_masked_model(weights)
}

/// A language model in a file. `model` and `sets` say what a foreign file's shapes leave open, `tokenizer` whose ids it reads where it does not tell.
pub fn open_language(
    weights: Weights,
    model: Option<&str>,
    sets: &[String],
    tokenizer: Option<&TokenizerSpec>,
) -> Result<OpenedText<LanguageConfig>> {
    if !is_language_model(&weights) {
        bail!(
            "{} is no language model: expected one that foretells the next token (CRATE-GPT, GPT-2, causal ToST)",
            weights.path.display()
        );
    }
    let found = import::open_language(weights, &model_overrides(model, sets)?)?;
    let vocabulary = found.inferred.config.vocabulary();
    with_tokenizer(found, vocabulary, tokenizer)
}

/// A masked encoder in a file.
pub fn open_masked(
    weights: Weights,
    model: Option<&str>,
    sets: &[String],
    tokenizer: Option<&TokenizerSpec>,
) -> Result<OpenedText<MaskedConfig>> {
    if !is_masked_model(&weights) {
        bail!("{} is no masked encoder: expected CRATE-BERT or BERT", weights.path.display());
    }
    let found = import::open_masked(weights, &model_overrides(model, sets)?)?;
    let vocabulary = found.inferred.config.vocabulary();
    with_tokenizer(found, vocabulary, tokenizer)
}

/// Reads the file of a checkpoint, or the language demo's where none is named.
pub fn read_or_demo(path: Option<&Path>) -> Result<Weights> {
    if path.is_some() {
        return read(path);
    }
    let file = embedded_folder()?.join(DEMO);
    if !file.is_file() {
        bail!(
            "no checkpoint is named, and the demo's ({}) is missing: name a run folder or a weight file",
            file.display()
        );
    }
    Ok(Weights::open(&file)?)
}

/// The trained language model that lies in `data/`.
pub const DEMO: &str = "crate-gpt-demo.safetensors";

fn with_tokenizer<C>(
    found: import::Opened<C>,
    vocabulary: i64,
    asked: Option<&TokenizerSpec>,
) -> Result<OpenedText<C>> {
    let import::Opened { weights, inferred } = found;
    let mut notes = [weights.notes.clone(), inferred.notes].concat();
    let path = weights.path.display().to_string();
    let card = weights.card.as_ref().and_then(|card| card.data.clone());
    let card: Option<TextCard> = match card {
        Some(told) => {
            Some(serde_json::from_value(told).with_context(|| format!("the text section of {path} cannot be read"))?)
        }
        None => None,
    };
    let told = card.as_ref().map(|card| &card.tokenizer);
    let tokenizer = tokenizer_of(&weights.path, vocabulary, asked, told, &mut notes)?;
    let (text, packed) = card.map(|card| (card.text, card.packed)).unzip();
    Ok(OpenedText { weights, config: inferred.config, tokenizer, text, packed: packed.flatten(), notes })
}

/// Whose ids a model reads: the tokenizer that is asked for, the one that its file tells, one that lies beside it, or GPT-2's by the size of the vocabulary.
pub(super) fn tokenizer_of(
    file: &Path,
    vocabulary: i64,
    asked: Option<&TokenizerSpec>,
    told: Option<&Definition>,
    notes: &mut Vec<String>,
) -> Result<Arc<dyn Tokenizer>> {
    let path = file.display();
    let beside = file.with_file_name("tokenizer.json");
    let tokenizer = match (asked, told) {
        (Some(spec), _) => found_tokenizer(spec)?.open().with_context(|| format!("--tokenizer {spec}"))?,
        (None, Some(definition)) => definition.open().with_context(|| format!("the tokenizer in {path}"))?,
        (None, None) if beside.is_file() => {
            notes.push(format!("the tokenizer is {}", beside.display()));
            TokenizerSpec::File(beside).open()?
        }
        (None, None) if vocabulary == 50257 => {
            notes.push("assumed, for a vocabulary of 50,257: GPT-2's tokenizer (`--tokenizer` says otherwise)".into());
            TokenizerSpec::Gpt2.open()?
        }
        (None, None) => bail!(
            "{path} does not tell whose ids it reads: name bytes, gpt2, a tokenizer.json or a vocab.txt with --tokenizer"
        ),
    };
    if tokenizer.vocabulary() as i64 > vocabulary {
        bail!(
            "the tokenizer {} has {} ids, the model in {path} knows {vocabulary}: it was trained with another tokenizer",
            tokenizer.identity().name,
            tokenizer.vocabulary()
        );
    }
    Ok(tokenizer)
}
