#![doc = include_str!("../README.md")]
//!
//! # Where to read
//!
//! | file | what it holds |
//! |---|---|
//! | [`probe`] | how a forward pass shows its intermediates |
//! | [`mssa`] | multi-head subspace self-attention, the compression step |
//! | [`ista`] | one proximal step of sparse coding, the sparsifying step |
//! | [`odl`] | CRATE-alpha's sparsifying step: a code over an overcomplete dictionary, and back |
//! | [`tssa`] | ToST's attention, linear in the number of tokens |
//! | [`mhsa`], [`mlp`] | what a transformer has in the place of either step: for ViT, ToST and the paper's ablations |
//! | [`block`] | one CRATE layer: compress, then sparsify |
//! | `whole_layer` | the same layer as one operation with its own backward pass, for the CPU |
//! | [`recompute`] | activation checkpointing |
//! | `drop` | stochastic depth and dropout |
//! | [`embed`] | patches, class token, positions and their interpolation |
//! | [`crate_vision`] | the whole CRATE, its sizes |
//! | [`fold`] | the whole CRATE with all that is constant in inference worked into its matrices |
//! | [`crate_alpha`] | the whole CRATE-alpha |
//! | [`tost`], `stem` | the whole ToST; its convolutions and positions |
//! | [`vit`] | ViT as timm writes it, the comparator |
//! | [`config`] | one config for all of them, presets by name |
//! | [`mcr2`] | maximal coding rate reduction as a loss |
//! | [`count`] | parameters, operations and memory without building a model |
//! | [`weights`], [`import`] | files: own safetensors, PyTorch's `.pth`, what shapes tell and what they don't |

pub mod block;
pub mod config;
pub mod count;
pub mod crate_alpha;
pub mod crate_vision;
mod drop;
pub mod embed;
mod error;
mod first_token;
pub mod fold;
pub mod import;
pub mod ista;
pub mod layers;
pub mod mcr2;
pub mod mhsa;
pub mod mlp;
pub mod mssa;
pub mod odl;
mod patch_tokens;
pub mod probe;
pub mod recompute;
mod stem;
pub mod tost;
pub mod tssa;
pub mod vit;
pub mod weights;
mod whole_layer;

pub use config::{ModelConfig, Pool, VisionModel};
pub use crate_alpha::{CrateAlpha, CrateAlphaConfig};
pub use crate_vision::{Crate, CrateConfig};
pub use error::{Error, Result};
pub use probe::{NoProbe, Probe, Site};
pub use tost::{Tost, TostConfig};
pub use vit::{Vit, VitConfig};
