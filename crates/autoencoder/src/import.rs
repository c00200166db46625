//! Files of autoencoders: our own by their card, those of the official CRATE-MAE and of ViT-MAE by names and shapes.
//!
//! ViT-MAE is known in its authors' layout, which is ours, and in the one where an encoder lies under `vit.` and a decoder under `decoder.`, with queries,
//! keys and values apart; the latter is brought to the former. What no shape tells (heads, CRATE-MAE's eta and lambda) is as in
//! [`whitebox_model::import`]: named by the user, or assumed as released and said.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use whitebox_model::import::{Inferred, count_layers, dim, heads, image, note_assumed, with_given};
use whitebox_model::weights::Weights;
use whitebox_model::{Error, Result};

use crate::config::AutoencoderConfig;

/// What a file of an autoencoder holds.
#[derive(Debug)]
pub struct Opened {
    /// The tensors, by the names of our models.
    pub weights: Weights,
    /// The model, and how it was told.
    pub inferred: Inferred<AutoencoderConfig>,
}

/// Reads an autoencoder's file; `None` where it holds another model. `given` are fields that the user named.
///
/// # Errors
/// A damaged card; fields that nothing determines, with the flag that says them.
pub fn open(weights: &Weights, given: &Map<String, Value>) -> Result<Option<Opened>> {
    if let Some(card) = &weights.card {
        let kind = card.model.get("kind").and_then(Value::as_str).unwrap_or_default();
        if !matches!(kind, "crate_mae" | "vit_mae") {
            return Ok(None);
        }
        let fields = card.model.as_object().cloned().unwrap_or_default();
        let config: AutoencoderConfig = with_given(fields, given)?;
        config.check()?;
        return Ok(Some(Opened { weights: copy(weights), inferred: Inferred { config, notes: Vec::new() } }));
    }
    let has = |name: &str| weights.tensors.contains_key(name);
    let (weights, (fields, notes)) = if has("decoder_blocks.0.layers.0.0.fn.weight") {
        (copy(weights), crate_mae(weights, given)?)
    } else if has("decoder_blocks.0.attn.qkv.weight") {
        (copy(weights), vit_mae(weights, given)?)
    } else if has("decoder.decoder_layers.0.attention.attention.query.weight") {
        let weights = from_split(weights)?;
        let found = vit_mae(&weights, given)?;
        (weights, found)
    } else {
        return Ok(None);
    };
    let config: AutoencoderConfig = with_given(fields, given)?;
    config.check()?;
    Ok(Some(Opened { weights, inferred: Inferred { config, notes } }))
}

type Fields = (Map<String, Value>, Vec<String>);

fn copy(weights: &Weights) -> Weights {
    let Weights { path, tensors, card, notes } = weights;
    Weights { path: path.clone(), tensors: tensors.clone(), card: card.clone(), notes: notes.clone() }
}

/// Channels and patch, from the convolution.
fn patch(weights: &Weights) -> Result<(i64, [i64; 2])> {
    let conv = "patch_embed.proj.weight";
    Ok((dim(weights, conv, 1)?, [dim(weights, conv, 2)?, dim(weights, conv, 3)?]))
}

fn crate_mae(weights: &Weights, given: &Map<String, Value>) -> Result<Fields> {
    let (d, depth) = (dim(weights, "cls_token", 2)?, count_layers(weights, "blocks."));
    let (channels, patch) = patch(weights)?;
    let heads = heads(weights, given)?;
    let mut notes = vec![format!(
        "from shapes: CRATE-MAE, d = {d}, depth = {depth} + {depth}, patches of {}x{} with {channels} channels",
        patch[0], patch[1]
    )];
    let image = image(weights, given, "decoder_pos_embed", patch, &mut notes)?;
    let assumed = [("eta", "0.1"), ("lambda", "0.5"), ("residual_base", "raw"), ("drop_masked", "false")];
    note_assumed(&assumed, given, &mut notes);
    let fields = object(json!({
        "kind": "crate_mae", "d": d, "depth": depth, "heads": heads, "channels": channels, "patch": patch, "image": image,
    }));
    Ok((fields, notes))
}

fn vit_mae(weights: &Weights, given: &Map<String, Value>) -> Result<Fields> {
    let (d, narrow) = (dim(weights, "cls_token", 2)?, dim(weights, "mask_token", 2)?);
    let (depth, decoder_depth) = (count_layers(weights, "blocks."), count_layers(weights, "decoder_blocks."));
    let (hidden, decoder_hidden) =
        (dim(weights, "blocks.0.mlp.fc1.weight", 0)?, dim(weights, "decoder_blocks.0.mlp.fc1.weight", 0)?);
    let (channels, patch) = patch(weights)?;
    let heads = heads(weights, given)?;
    let mut notes = vec![format!(
        "from shapes: ViT-MAE, d = {d} and {narrow}, depth = {depth} + {decoder_depth}, hidden = {hidden} and \
         {decoder_hidden}, patches of {}x{} with {channels} channels",
        patch[0], patch[1]
    )];
    let image = image(weights, given, "pos_embed", patch, &mut notes)?;
    note_assumed(&[("decoder_heads", "16"), ("norm_eps", "1e-6")], given, &mut notes);
    let fields = object(json!({
        "kind": "vit_mae", "d": d, "depth": depth, "heads": heads, "hidden": hidden, "decoder_d": narrow,
        "decoder_depth": decoder_depth, "decoder_hidden": decoder_hidden, "channels": channels, "patch": patch,
        "image": image,
    }));
    Ok((fields, notes))
}

/// A file with queries, keys and values apart, by the names of our model.
fn from_split(weights: &Weights) -> Result<Weights> {
    let mut tensors = BTreeMap::new();
    for (name, tensor) in &weights.tensors {
        let Some(renamed) = split_name(name) else {
            // Keys and values go with their queries.
            if !name.contains(".attention.attention.") {
                tensors.insert(name.clone(), tensor.clone());
            }
            continue;
        };
        let mut joined = tensor.clone();
        if name.contains(".attention.attention.query.") {
            for other in ["key", "value"] {
                let name = name.replace(".query.", &format!(".{other}."));
                let part = weights.tensors.get(&name).filter(|t| t.dtype == tensor.dtype && t.shape == tensor.shape);
                let part = part.ok_or_else(|| Error::File {
                    path: weights.path.display().to_string(),
                    problem: format!("the tensor `{name}` is missing, or not of its query's shape {:?}", tensor.shape),
                })?;
                joined.data.extend(&part.data);
                joined.shape[0] += part.shape[0];
            }
        }
        tensors.insert(renamed, joined);
    }
    let mut notes = weights.notes.clone();
    notes.push("queries, keys and values were joined, names brought to those of the method's authors".into());
    Ok(Weights { path: weights.path.clone(), tensors, card: None, notes })
}

/// Our name of a tensor; `None` for keys and values, and for what is not known.
fn split_name(name: &str) -> Option<String> {
    const WHOLE: [(&str, &str); 8] = [
        ("vit.embeddings.cls_token", "cls_token"),
        ("vit.embeddings.position_embeddings", "pos_embed"),
        ("vit.embeddings.patch_embeddings.projection.", "patch_embed.proj."),
        ("vit.layernorm.", "norm."),
        ("decoder.decoder_embed.", "decoder_embed."),
        ("decoder.decoder_pos_embed", "decoder_pos_embed"),
        ("decoder.decoder_norm.", "decoder_norm."),
        ("decoder.decoder_pred.", "decoder_pred."),
    ];
    const INNER: [(&str, &str); 6] = [
        ("layernorm_before.", "norm1."),
        ("layernorm_after.", "norm2."),
        ("attention.attention.query.", "attn.qkv."),
        ("attention.output.dense.", "attn.proj."),
        ("intermediate.dense.", "mlp.fc1."),
        ("output.dense.", "mlp.fc2."),
    ];
    if name == "decoder.mask_token" {
        return Some("mask_token".into());
    }
    let replaced = |(from, to): &(&str, &str)| Some(format!("{to}{}", name.strip_prefix(from)?));
    if let Some(found) = WHOLE.iter().find_map(replaced) {
        return Some(found);
    }
    let blocks = [("vit.encoder.layer.", "blocks."), ("decoder.decoder_layers.", "decoder_blocks.")];
    let (prefix, rest) = blocks.iter().find_map(|(from, to)| Some((to, name.strip_prefix(from)?)))?;
    let (layer, rest) = rest.split_once('.')?;
    INNER.iter().find_map(|(from, to)| Some(format!("{prefix}{layer}.{to}{}", rest.strip_prefix(from)?)))
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}
