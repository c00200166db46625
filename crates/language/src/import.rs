//! Files of language models and encoders: our own by their card, foreign ones by names and shapes.
//!
//! | layout | how it is known |
//! |---|---|
//! | GPT-2, Hugging Face's or nanoGPT's | `h.0.mlp.c_fc.weight`, with `transformer.` before it or not |
//! | CRATE-GPT (pull request 13), CRATE-LM | `h.0.ista.weight` |
//! | ToST's causal form | `h.0.attn.temp` |
//! | BERT, with `bert.` before it or not | `embeddings.word_embeddings.weight` |
//!
//! Names are brought to those of our models: prefixes are added, old names of LayerNorm's parameters (`gamma`, `beta`) changed, masks and other buffers and a
//! second copy of tied tensors left out. Matrices that stand `[in, out]` are turned. What no shape tells (heads but for ToST's, eta and lambda) the
//! user names, or it is assumed as released and said. Loading is strict: [`Weights::load_into`] names what is missing or too much.

use serde_json::{Map, Value};
use whitebox_model::import::{Inferred, with_given};
use whitebox_model::weights::{Weights, from_tensor, to_tensor};
use whitebox_model::{Error, Result};

use crate::classifier::{ClassifierConfig, TextPool};
use crate::config::{LanguageConfig, MaskedConfig};

mod encoder;
mod gpt;

/// What a file holds; `C` describes the model.
#[derive(Debug)]
pub struct Opened<C> {
    /// The tensors, by the names of our models.
    pub weights: Weights,
    /// The model, and how it was told.
    pub inferred: Inferred<C>,
}

type Fields = (Map<String, Value>, Vec<String>);

/// Whether a file holds a language model: by its card where it has one, or by its names.
pub fn is_language_model(weights: &Weights) -> bool {
    match kind_on_card(weights) {
        Some(kind) => matches!(kind, "crate_gpt" | "gpt2" | "tost_gpt"),
        None => gpt::layout(weights).is_some(),
    }
}

/// Whether a file holds a masked encoder, with heads or without.
pub fn is_masked_model(weights: &Weights) -> bool {
    match kind_on_card(weights) {
        Some(kind) => matches!(kind, "crate_bert" | "bert"),
        None => encoder::layout(weights).is_some(),
    }
}

/// Whether a file holds a classifier of texts.
pub fn is_classifier(weights: &Weights) -> bool {
    match &weights.card {
        Some(card) => card.model.get("encoder").is_some(),
        None => {
            is_masked_model(weights)
                && ["classifier.weight", "head.weight"].iter().any(|n| weights.tensors.contains_key(*n))
        }
    }
}

/// Reads a language model's file. `given` are fields that the user named: they win over every inference.
///
/// # Errors
/// A file of another model; a damaged card; fields that nothing determines, with the flag that says them.
pub fn open_language(weights: Weights, given: &Map<String, Value>) -> Result<Opened<LanguageConfig>> {
    if !is_language_model(&weights) {
        return Err(file_error(
            &weights,
            "it holds none of the language models known here (CRATE-GPT, GPT-2, causal ToST)",
        ));
    }
    let (weights, (fields, notes)) = match card_fields(&weights) {
        Some(fields) => (weights, (fields, Vec::new())),
        None => gpt::read(weights, given)?,
    };
    let config: LanguageConfig = with_given(fields, given)?;
    config.check()?;
    Ok(Opened { weights, inferred: Inferred { config, notes } })
}

/// Reads a masked encoder's file. `given` are fields that the user named.
///
/// # Errors
/// Those of [`open_language`].
pub fn open_masked(weights: Weights, given: &Map<String, Value>) -> Result<Opened<MaskedConfig>> {
    if !is_masked_model(&weights) {
        return Err(file_error(&weights, "it holds neither a CRATE-BERT nor a BERT"));
    }
    let (weights, (fields, notes)) = match card_fields(&weights) {
        Some(fields) => (weights, (fields, Vec::new())),
        None => encoder::read(weights, given)?,
    };
    let config: MaskedConfig = with_given(fields, given)?;
    config.check()?;
    Ok(Opened { weights, inferred: Inferred { config, notes } })
}

/// Reads a classifier's file: its card, or an encoder with a `classifier` on it, whose fields `given` may name.
///
/// # Errors
/// Those of [`open_language`].
pub fn open_classifier(weights: Weights, given: &Map<String, Value>) -> Result<Opened<ClassifierConfig>> {
    if !is_classifier(&weights) {
        return Err(file_error(&weights, "it holds no classifier of texts"));
    }
    if let Some(fields) = card_fields(&weights) {
        let config: ClassifierConfig = serde_json::from_value(Value::Object(fields))
            .map_err(|e| file_error(&weights, &format!("its card: {e}")))?;
        config.check()?;
        return Ok(Opened { weights, inferred: Inferred { config, notes: Vec::new() } });
    }
    let Opened { weights, inferred: Inferred { config, mut notes } } = open_masked(weights, given)?;
    let outputs = whitebox_model::import::dim(&weights, "head.weight", 0)?;
    let pool = if config.body().pooler { TextPool::Pooler } else { TextPool::Mean };
    notes.push(format!(
        "from shapes: a classifier of {outputs} outputs on it; assumed: its text's vector is of {pool:?}"
    ));
    let opened = Opened { weights, inferred: Inferred { config, notes } }.under_classifier(pool);
    let Inferred { config, notes } = opened.inferred;
    let config = ClassifierConfig { pool, ..ClassifierConfig::new(config, outputs) };
    config.check()?;
    Ok(Opened { weights: opened.weights, inferred: Inferred { config, notes } })
}

impl Opened<MaskedConfig> {
    /// The same file without what a [classifier](crate::SequenceClassifier) by this pooling does not read, so that it loads into one with
    /// [`replace_head`](whitebox_model::weights::LoadOptions).
    pub fn under_classifier(mut self, pool: TextPool) -> Self {
        let unread =
            |name: &str| name.starts_with("cls.predictions.") || (pool == TextPool::Mean && name.contains(".pooler."));
        self.weights.tensors.retain(|name, _| !unread(name));
        self.inferred.config = ClassifierConfig { pool, ..ClassifierConfig::new(self.inferred.config, 1) }.encoder();
        self
    }
}

fn kind_on_card(weights: &Weights) -> Option<&str> {
    let card = weights.card.as_ref()?;
    Some(card.model.get("kind").and_then(Value::as_str).unwrap_or_default())
}

fn card_fields(weights: &Weights) -> Option<Map<String, Value>> {
    weights.card.as_ref().map(|card| card.model.as_object().cloned().unwrap_or_default())
}

fn file_error(weights: &Weights, problem: &str) -> Error {
    Error::File { path: weights.path.display().to_string(), problem: problem.to_owned() }
}

/// Turns a matrix, `[a, b]` to `[b, a]`; what is none stays, for the loading to name.
fn turn(weights: &mut Weights, name: &str) -> Result<()> {
    if let Some(raw) = weights.tensors.get_mut(name).filter(|raw| raw.shape.len() == 2) {
        *raw = from_tensor(&to_tensor(raw)?.tr())?;
    }
    Ok(())
}

/// Gives every tensor the name that `name` makes of its own; `None` leaves it out.
///
/// Two tensors of one name would be one by chance, so they are refused.
fn rename(weights: &mut Weights, name: impl Fn(&str) -> Option<String>) -> Result<()> {
    let mut renamed = std::collections::BTreeMap::new();
    for (old, tensor) in std::mem::take(&mut weights.tensors) {
        let Some(new) = name(&old) else { continue };
        if renamed.insert(new.clone(), tensor).is_some() {
            return Err(file_error(
                weights,
                &format!("two of its tensors are what we call `{new}`, one of them `{old}`"),
            ));
        }
    }
    weights.tensors = renamed;
    Ok(())
}

/// Whether two tensors of a file hold the same.
fn same(weights: &Weights, one: &str, other: &str) -> bool {
    match (weights.tensors.get(one), weights.tensors.get(other)) {
        (Some(a), Some(b)) => a.dtype == b.dtype && a.shape == b.shape && a.data == b.data,
        _ => false,
    }
}

/// Heads, where the user has not named them: of dimension 64 as released sizes have them (of dimension 32 where d is 128: CRATE-LM's one to three layers), or as `otherwise` says.
fn heads(
    weights: &Weights,
    given: &Map<String, Value>,
    d: i64,
    otherwise: Option<i64>,
    notes: &mut Vec<String>,
) -> Result<i64> {
    if let Some(heads) = given.get("heads").and_then(Value::as_i64) {
        return Ok(heads);
    }
    let assumed = otherwise.or((d == 128).then_some(4)).or((d > 0 && d % 64 == 0).then_some(d / 64));
    if let Some(heads) = assumed {
        notes.push(format!("assumed, as released for d = {d}: heads = {heads} (`--set model.heads=K` says otherwise)"));
        return Ok(heads);
    }
    whitebox_model::import::heads(weights, given)
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}
