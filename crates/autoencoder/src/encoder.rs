//! An autoencoder's encoder as a classifier without a head: for probes, nearest neighbours and fine-tuning.
//!
//! It sees whole images. CRATE-MAE's becomes a CRATE that embeds by a convolution, ViT-MAE's a ViT; both read the class token after the encoder's LayerNorm.
//! Positions, fixed until then, may learn from there on.

use std::collections::BTreeMap;

use whitebox_model::crate_vision::Embedding;
use whitebox_model::weights::Weights;
use whitebox_model::{CrateConfig, Error, ModelConfig, Result, VitConfig};

use crate::config::AutoencoderConfig;

/// The tensors of a classifier, without those of its head, and its config (of one class, for there is none yet). Load them with
/// `LoadOptions { replace_head: true, .. }`.
///
/// # Errors
/// A file that lacks a part of the encoder.
pub fn encoder(weights: Weights, config: &AutoencoderConfig) -> Result<(Weights, ModelConfig)> {
    let (model, positions) = match config {
        AutoencoderConfig::CrateMae(c) => (
            ModelConfig::Crate(CrateConfig {
                image: c.image,
                patch: c.patch,
                channels: c.channels,
                classes: 1,
                d: c.d,
                depth: c.depth,
                heads: c.heads,
                eta: c.eta,
                lambda: c.lambda,
                residual_base: c.residual_base,
                embedding: Embedding::Convolution,
                ..CrateConfig::default()
            }),
            // What the encoder was trained with.
            if c.drop_masked { "pos_embed" } else { "decoder_pos_embed" },
        ),
        AutoencoderConfig::VitMae(c) => (
            ModelConfig::Vit(VitConfig {
                image: c.image,
                patch: c.patch,
                channels: c.channels,
                classes: 1,
                d: c.d,
                depth: c.depth,
                heads: c.heads,
                hidden: c.hidden,
                ..VitConfig::default()
            }),
            "pos_embed",
        ),
    };
    let is_crate = matches!(model, ModelConfig::Crate(_));
    let Weights { path, tensors: all, card, mut notes } = weights;
    let mut tensors = BTreeMap::new();
    for (name, tensor) in all {
        let renamed = match name.as_str() {
            name if name == positions => Some(if is_crate { "pos_embedding" } else { "pos_embed" }.to_owned()),
            "cls_token" | "patch_embed.proj.weight" | "patch_embed.proj.bias" => Some(name.clone()),
            name if is_crate => crate_name(name),
            name if name.starts_with("blocks.") || name.starts_with("norm.") => Some(name.to_owned()),
            _ => None,
        };
        if let Some(renamed) = renamed {
            tensors.insert(renamed, tensor);
        }
    }
    if !tensors.contains_key("cls_token") {
        return Err(Error::File {
            path: path.display().to_string(),
            problem: "it holds no encoder of an autoencoder: `cls_token` is missing".into(),
        });
    }
    notes.push("the encoder of an autoencoder; there is no head".into());
    let card = card.map(|card| serde_json::to_value(&model).map(|value| card.of(value)));
    let card = card.transpose().map_err(|e| Error::Config(e.to_string()))?;
    Ok((Weights { path, tensors, card, notes }, model))
}

/// `blocks.3.layers.0.0.norm.weight` is `transformer.layers.3.0.norm.weight` in a CRATE; `norm.*` is the head's LayerNorm.
fn crate_name(name: &str) -> Option<String> {
    if let Some(rest) = name.strip_prefix("norm.") {
        return Some(format!("mlp_head.0.{rest}"));
    }
    let (layer, rest) = name.strip_prefix("blocks.")?.split_once(".layers.0.")?;
    Some(format!("transformer.layers.{layer}.{rest}"))
}
