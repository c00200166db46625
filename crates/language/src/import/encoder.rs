//! Masked encoders in the layout of Hugging Face's BERT, and our CRATE-BERT's without its card.

use serde_json::{Map, Value, json};
use whitebox_model::Result;
use whitebox_model::import::{count_layers, dim, note_assumed};
use whitebox_model::weights::Weights;

use super::{Fields, file_error, heads, object, rename, same};

/// What a file of this family holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Layout {
    Bert,
    CrateBert,
}

pub(super) fn layout(weights: &Weights) -> Option<Layout> {
    let has = |name: &str| weights.tensors.contains_key(name);
    if has("crate.embeddings.word_embeddings.weight") {
        return Some(Layout::CrateBert);
    }
    let bert = ["bert.embeddings.word_embeddings.weight", "embeddings.word_embeddings.weight"];
    bert.into_iter().any(has).then_some(Layout::Bert)
}

/// Our name of a tensor.
fn our_name(name: &str) -> Option<String> {
    // Numbers from 0 on, and the head that tells whether two sentences follow one another: nothing here reads them.
    if name.ends_with("embeddings.position_ids") || name.starts_with("cls.seq_relationship.") {
        return None;
    }
    let bare = ["embeddings.", "encoder.", "pooler."].iter().any(|start| name.starts_with(start));
    let name = if bare { format!("bert.{name}") } else { name.to_owned() };
    let name = match name.strip_prefix("classifier.") {
        Some(rest) => format!("head.{rest}"),
        None => name,
    };
    Some(name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias"))
}

/// The file by our names, and the fields of its config.
pub(super) fn read(mut weights: Weights, given: &Map<String, Value>) -> Result<(Weights, Fields)> {
    let layout = layout(&weights).ok_or_else(|| file_error(&weights, "it holds no masked encoder"))?;
    let (kind, base) = match layout {
        Layout::Bert => ("bert", "bert"),
        Layout::CrateBert => ("crate_bert", "crate"),
    };
    let mut notes = Vec::new();
    if weights.tensors.keys().any(|name| name.starts_with("cls.seq_relationship.")) {
        notes.push("left out: the head that tells whether two sentences follow one another".into());
    }
    rename(&mut weights, our_name)?;
    let words = format!("{base}.embeddings.word_embeddings.weight");
    untie(&mut weights, "cls.predictions.decoder.weight", &words)?;
    if weights.tensors.contains_key("cls.predictions.bias") {
        untie(&mut weights, "cls.predictions.decoder.bias", "cls.predictions.bias")?;
    } else if let Some(bias) = weights.tensors.remove("cls.predictions.decoder.bias") {
        weights.tensors.insert("cls.predictions.bias".into(), bias);
    }
    let (vocabulary, d) = (dim(&weights, &words, 0)?, dim(&weights, &words, 1)?);
    let places = dim(&weights, &format!("{base}.embeddings.position_embeddings.weight"), 0)?;
    let offset = given.get("position_offset").and_then(Value::as_i64).unwrap_or(0);
    let depth = count_layers(&weights, &format!("{base}.encoder.layer."));
    let pooler = weights.tensors.contains_key(&format!("{base}.pooler.dense.weight"));
    let mlm_head = weights.tensors.contains_key("cls.predictions.transform.dense.weight");
    let present = |what: bool| if what { "with" } else { "without" };
    notes.push(format!(
        "from shapes: {layout:?}, d = {d}, depth = {depth}, {vocabulary} words, {places} places, {} pooler, {} head for masked words",
        present(pooler),
        present(mlm_head)
    ));
    // MiniLM's dimension, with heads of 32.
    let narrow = (layout == Layout::Bert && d == 384).then_some(12);
    let mut fields = object(json!({
        "kind": kind, "d": d, "depth": depth, "vocabulary": vocabulary, "context": places.saturating_sub(offset),
        "token_types": dim(&weights, &format!("{base}.embeddings.token_type_embeddings.weight"), 0)?,
        "pooler": pooler, "mlm_head": mlm_head, "heads": heads(&weights, given, d, narrow, &mut notes)?,
    }));
    let mut assumed = vec![("position_offset", "0"), ("norm_eps", "1e-12"), ("dropout", "0.1")];
    if layout == Layout::Bert {
        fields.insert("hidden".into(), json!(dim(&weights, "bert.encoder.layer.0.intermediate.dense.weight", 0)?));
    } else {
        assumed.extend([("eta", "0.1"), ("lambda", "0.1")]);
    }
    note_assumed(&assumed, given, &mut notes);
    Ok((weights, (fields, notes)))
}

/// Leaves out a second copy of a tensor.
fn untie(weights: &mut Weights, copy: &str, of: &str) -> Result<()> {
    if weights.tensors.contains_key(copy) {
        if !same(weights, copy, of) {
            let problem = format!("its `{copy}` is not `{of}`, with which it is one here");
            return Err(file_error(weights, &problem));
        }
        weights.tensors.remove(copy);
    }
    Ok(())
}
