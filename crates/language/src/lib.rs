#![doc = include_str!("../README.md")]
//!
//! # Where to read
//!
//! | file | what it holds |
//! |---|---|
//! | [`subspace`] | subspace attention of sequences: causal, or with padding |
//! | `attention` | attention of given queries, keys and values: masks, fused or with its map |
//! | [`decoder`] | the frame of all language models: words, positions, layers, head |
//! | [`crate_gpt`] | CRATE-GPT and CRATE-LM |
//! | [`gpt2`] | GPT-2, the comparator |
//! | [`tost_gpt`] | ToST's causal form |
//! | [`language_model`] | the trait behind which they stand |
//! | [`cache`] | what is kept of tokens that were read |
//! | [`loss`](mod@loss) | cross-entropy without the logits of a whole batch |
//! | [`sampler`], [`generate`](mod@generate) | the next token; texts |
//! | [`encoder`] | the frame of both masked encoders |
//! | [`crate_bert`], [`bert`] | CRATE-BERT; BERT and MiniLM, the comparator |
//! | [`masked`] | the trait behind which they stand; sentence embeddings |
//! | [`classifier`] | classes of texts, and regression |
//! | [`config`] | one config for all of each, presets by name |
//! | `count` | parameters, operations and cache without building a model |
//! | [`import`] | what foreign files' names and shapes tell |
//! | `ids` | token ids at the door |
//!
//! Errors are those of `whitebox-model`.

mod attention;
pub mod bert;
pub mod cache;
pub mod classifier;
pub mod config;
mod count;
pub mod crate_bert;
pub mod crate_gpt;
pub mod decoder;
pub mod encoder;
pub mod generate;
pub mod gpt2;
mod ids;
pub mod import;
pub mod language_model;
pub mod loss;
pub mod masked;
pub mod sampler;
pub mod subspace;
pub mod tost_gpt;

pub use bert::{Bert, BertConfig};
pub use cache::Cache;
pub use classifier::{ClassifierConfig, SequenceClassifier, TextPool};
pub use config::{LanguageConfig, MaskedConfig};
pub use count::LanguageCost;
pub use crate_bert::{CrateBert, CrateBertConfig};
pub use crate_gpt::{CrateGpt, CrateGptConfig, Sparsify};
pub use generate::{Ended, GenerationConfig, Generator, Overflow, generate};
pub use gpt2::{Gpt2, Gpt2Config};
pub use ids::IGNORED;
pub use language_model::LanguageModel;
pub use masked::{MaskedModel, mean_of_real, sentence_embedding};
pub use sampler::Sampler;
pub use tost_gpt::{TostGpt, TostGptConfig};
pub use whitebox_model::{Error, Result};
