//! The sentences section of a recipe: which labelled sentences, or pairs of them, and how they are cut into what an encoder reads.
//!
//! Everything is encoded when it is opened, so that what a tokenizer cannot express is said before the first step. The classes are those of the training part, and
//! the other parts are held against them.

mod batch;
mod evaluate;
pub mod measures;
mod parts;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use whitebox_datasets::text::{Definition, TableOptions, Tokenizer, TokenizerSpec};

pub use batch::{Encoded, SentenceBatch, SentenceSource};
pub use evaluate::{Found, Predictions, evaluate, outputs};
pub use parts::{Parts, Target, open_table};

/// The labelled sentences that a recipe can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SentencesName {
    /// Sentences of film reviews, positive or negative, about 10,000.
    MovieReviews,
}

/// Where labelled sentences come from and how they are prepared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SentencesConfig {
    /// Which sentences, with their own parts; or `train`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set: Option<SentencesName>,
    /// A CSV or TSV file (also .gz) to learn from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train: Option<PathBuf>,
    /// The file to measure on; or `hold_out`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<PathBuf>,
    /// A file that is measured once, at the end. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<PathBuf>,
    /// Of the rows of `train` every one whose number is a multiple of this validates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_out: Option<usize>,
    /// `bytes`, `gpt2`, or a tokenizer.json or vocab.txt. Default: that of `init.checkpoint`, which then is read again by a resumed run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<TokenizerSpec>,
    /// Tokens of a sentence or pair at most, its frame included. Default: 128, or the model's context where that is less.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length: Option<usize>,
    /// Sentences in a (micro-)batch.
    pub batch_size: usize,
    /// Sentences in a batch of an evaluation. Default: 64.
    #[serde(default = "default_eval_batch")]
    pub eval_batch_size: usize,
    /// Columns, classes and layout of the files. Default: found out, as GLUE has them.
    #[serde(default, skip_serializing_if = "is_default")]
    pub table: TableOptions,
}

fn default_eval_batch() -> usize {
    64
}

fn is_default(options: &TableOptions) -> bool {
    *options == TableOptions::default()
}

/// Tokens of a sentence at most, where a recipe says nothing.
const LENGTH: usize = 128;

impl SentencesConfig {
    /// Refuses values that cannot be meant, before anything is opened.
    pub fn check(&self) -> Result<()> {
        let own = [
            ("train", self.train.is_some()),
            ("validation", self.validation.is_some()),
            ("test", self.test.is_some()),
            ("hold_out", self.hold_out.is_some()),
            ("table", !is_default(&self.table)),
        ];
        match (self.set, own.iter().find(|(_, there)| *there)) {
            (Some(_), Some((name, _))) => {
                bail!("sentences.set and sentences.{name} are both there, and a set has its own parts: leave out one")
            }
            (None, _) if self.train.is_none() => {
                bail!("sentences.set and sentences.train are missing: expected one of them")
            }
            (None, _) if self.validation.is_some() == self.hold_out.is_some() => bail!(
                "sentences.validation and sentences.hold_out are {}: expected a file to measure on, or every how many rows of sentences.train \
                 are kept for that (as hold_out = 10)",
                if self.hold_out.is_some() { "both there" } else { "missing" }
            ),
            _ => {}
        }
        if let Some(every @ 0..2) = self.hold_out {
            bail!("sentences.hold_out = {every}: expected at least 2, or nothing is left to learn from");
        }
        let sizes = [
            ("batch_size", self.batch_size),
            ("eval_batch_size", self.eval_batch_size),
            ("length", self.length.unwrap_or(1)),
        ];
        match sizes.iter().find(|(_, value)| *value == 0) {
            Some((name, _)) => bail!("sentences.{name} = 0: expected at least 1"),
            None => Ok(()),
        }
    }

    /// Tokens of a sentence at most, for a model that reads `context`.
    pub fn length(&self, context: i64) -> Result<usize> {
        let context = usize::try_from(context)?;
        match self.length {
            Some(length) if length > context => bail!(
                "sentences.length = {length}, and the model reads {context} tokens at most: set sentences.length={context}, or a larger \
                 model.context"
            ),
            Some(length) => Ok(length),
            None => Ok(LENGTH.min(context)),
        }
    }
}

/// What a checkpoint keeps of its sentences: enough to read new ones as those it was trained on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SentencesCard {
    /// The sentences section of its recipe.
    pub sentences: SentencesConfig,
    /// The whole tokenizer.
    pub tokenizer: Definition,
}

/// All parts as a model reads them.
pub struct SentenceSets {
    /// What is learned from.
    pub train: Arc<Encoded>,
    /// What is measured on.
    pub validation: Encoded,
    /// What is measured at the end.
    pub test: Option<Encoded>,
    /// What is predicted.
    pub target: Target,
}

impl SentenceSets {
    /// Encodes all parts.
    pub fn new(parts: Parts, tokenizer: &dyn Tokenizer, length: usize) -> Result<Self> {
        let target = Target::of(&parts.train).context("the training sentences have no labels")?;
        let encode = |table, name| Encoded::new(table, tokenizer, length).with_context(|| format!("the {name} part"));
        Ok(SentenceSets {
            train: Arc::new(encode(parts.train, "training")?),
            validation: encode(parts.validation, "validation")?,
            test: parts.test.map(|table| encode(table, "test")).transpose()?,
            target,
        })
    }
}
