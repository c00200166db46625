#![doc = include_str!("../README.md")]
//!
//! # Where to read
//!
//! | file | what it holds |
//! |---|---|
//! | [`decoder`] | one decoder layer: the encoder's with time reversed |
//! | [`masking`] | which patches an encoder does not see |
//! | [`patches`] | images as rows of pixels and back; the losses |
//! | [`crate_mae`] | the whole CRATE-MAE, as released and as MAE would have it |
//! | [`vit_mae`] | ViT-MAE, the comparator |
//! | [`config`] | one config for both, presets by name, the trait behind which they stand |
//! | `tokens` | images at the door, fixed positions |
//! | `count` | parameters, operations and memory without building a model |
//! | [`encoder`](mod@encoder) | an autoencoder's encoder as a classifier without a head |
//! | [`import`] | what foreign files' names and shapes tell |
//! | [`inversion`] | how far a decoder layer undoes its partner in the encoder |
//!
//! Errors are those of `whitebox-model`.

pub mod config;
mod count;
pub mod crate_mae;
pub mod decoder;
pub mod encoder;
pub mod import;
pub mod inversion;
pub mod masking;
pub mod patches;
mod tokens;
pub mod vit_mae;

pub use config::{Autoencoder, AutoencoderConfig};
pub use crate_mae::{CrateMae, CrateMaeConfig};
pub use decoder::{DecoderBlock, DecoderInit};
pub use encoder::encoder;
pub use masking::{Mask, MaskShape, Masking};
pub use patches::{Over, ReconstructionLoss, denormalised, from_patches, mean_of_visible, to_patches};
pub use vit_mae::{VitMae, VitMaeConfig};
pub use whitebox_model::{Error, Result};
