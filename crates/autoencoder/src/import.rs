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

/// The layouts that are known, with a tensor that tells each.
const CRATE_MAE: &str = "decoder_blocks.0.layers.0.0.fn.weight";
const VIT_MAE: &str = "decoder_blocks.0.attn.qkv.weight";
const VIT_MAE_SPLIT: &str = "decoder.decoder_layers.0.attention.attention.query.weight";

/// Whether a file holds an autoencoder: by its card where it has one, or by its names.
pub fn is_autoencoder(weights: &Weights) -> bool {
    match &weights.card {
        Some(card) => matches!(card.model.get("kind").and_then(Value::as_str), Some("crate_mae" | "vit_mae")),
        None => [CRATE_MAE, VIT_MAE, VIT_MAE_SPLIT].iter().any(|name| weights.tensors.contains_key(*name)),
    }
}

/// Reads an autoencoder's file, as [`is_autoencoder`] knows it. `given` are fields that the user named.
///
/// # Errors
/// A file of another model; a damaged card; fields that nothing determines, with the flag that says them.
pub fn open(weights: Weights, given: &Map<String, Value>) -> Result<Opened> {
    if !is_autoencoder(&weights) {
        let problem = "it holds neither a CRATE-MAE nor a ViT-MAE".to_owned();
        return Err(Error::File { path: weights.path.display().to_string(), problem });
    }
    let split = weights.card.is_none() && weights.tensors.contains_key(VIT_MAE_SPLIT);
    let weights = if split { from_split(weights)? } else { weights };
    let (fields, notes) = match &weights.card {
        Some(card) => (card.model.as_object().cloned().unwrap_or_default(), Vec::new()),
        None if weights.tensors.contains_key(CRATE_MAE) => crate_mae(&weights, given)?,
        None => vit_mae(&weights, given)?,
    };
    let config: AutoencoderConfig = with_given(fields, given)?;
    config.check()?;
    Ok(Opened { weights, inferred: Inferred { config, notes } })
}

type Fields = (Map<String, Value>, Vec<String>);

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
fn from_split(weights: Weights) -> Result<Weights> {
    let Weights { path, tensors: mut found, mut notes, .. } = weights;
    let mut tensors = BTreeMap::new();
    for name in found.keys().cloned().collect::<Vec<_>>() {
        // Keys and values go with their queries.
        let gone = name.contains(".attention.attention.") && !name.contains(".query.");
        let Some(mut tensor) = (if gone { None } else { found.remove(&name) }) else { continue };
        if name.contains(".attention.attention.query.") {
            let (dtype, shape) = (tensor.dtype, tensor.shape.clone());
            for other in ["key", "value"] {
                let name = name.replace(".query.", &format!(".{other}."));
                // A number alone has no rows to be joined.
                let part = found.remove(&name).filter(|t| t.dtype == dtype && t.shape == shape && !shape.is_empty());
                let part = part.ok_or_else(|| Error::File {
                    path: path.display().to_string(),
                    problem: format!("the tensor `{name}` is missing, or not of its query's shape {shape:?}"),
                })?;
                tensor.data.extend(&part.data);
                tensor.shape[0] += part.shape[0];
            }
        }
        tensors.insert(split_name(&name).unwrap_or(name), tensor);
    }
    notes.push("queries, keys and values were joined, names brought to those of the method's authors".into());
    Ok(Weights { path, tensors, card: None, notes })
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
