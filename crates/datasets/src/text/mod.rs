//! Text as plain buffers: tokenizers, token sets packed on the disk, and batches of them for language models.
//!
//! [`Sources`] are text files; [`pack`] encodes them with a [`Tokenizer`] into a folder of shards; a [`TokenSet`] reads
//! that folder; [`RandomWindows`], [`ShuffledWindows`] and [`SlidingWindows`] cut it for training and evaluation;
//! [`Masking`] hides tokens for a masked language model. [`TextTable`] reads labelled sentences. What comes at which
//! step is a pure function of seed and step, so that an interrupted run goes on exactly.

mod chunks;
mod hash;
mod manifest;
mod mlm;
mod movies;
mod pack;
mod padding;
mod shard;
mod sliding;
mod source;
mod table;
mod tokenizer;
mod tokens;
mod windows;

use serde::{Deserialize, Serialize};

pub use chunks::{Chunk, Chunks, Piece};
pub use manifest::{Manifest, PartInfo, ShardInfo};
pub use mlm::{MaskedBatch, Masking, MaskingConfig};
pub use movies::movie_reviews;
pub use pack::{Holdout, PackOptions, Packed, Progress, pack};
pub use padding::{Padded, padded};
pub use sliding::{EvaluationWindow, SlidingWindows};
pub use source::{Encoding, SourceFile, Sources};
pub use table::{Labels, TableOptions, TextTable};
pub use tokenizer::{
    Bytes, Characters, Definition, Gpt2, HuggingFace, Identity, Sentence, Specials, Tokenizer, TokenizerSpec,
    Utf8Stream,
};
pub use tokens::TokenSet;
pub use windows::{RandomWindows, ShuffledWindows, WindowBatch};

/// The part of a text that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// What a model is trained on.
    Train,
    /// What decisions are made by.
    Validation,
    /// What the final figure is measured on; packed token sets have none.
    Test,
}

impl Part {
    /// Its name, which is also that of its folder.
    pub fn name(self) -> &'static str {
        match self {
            Part::Train => "train",
            Part::Validation => "validation",
            Part::Test => "test",
        }
    }
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
