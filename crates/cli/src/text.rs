//! The text section of a recipe: which text, by which tokenizer, and how it is cut into what a model reads.
//!
//! Text is packed once, into token shards in the user's cache (or wherever `tokenize` was told), and read from there by position: a set may be larger than
//! memory, and a run that goes on reads the same tokens.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use whitebox_analysis::count;
use whitebox_datasets::text::{
    Definition, Holdout, Manifest, PackOptions, Packed, Part, Sources, TokenSet, Tokenizer, TokenizerSpec, pack,
};

use crate::data::{data_home, embedded_folder};
use crate::progress::bar;

/// The texts that a recipe can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TextName {
    /// Three books that lie in `data/`, 1.4 MB of plain English.
    Books,
    /// The usual small benchmark for characters, 1.1 MB.
    Tinyshakespeare,
    /// 18 books, 11.8 MB.
    Gutenberg,
    /// The speeches on the State of the Union, 12.2 MB.
    Sotu,
    /// Both.
    GutenbergSotu,
}

/// Where text comes from and how it is prepared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextConfig {
    /// Which text; or `path`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set: Option<TextName>,
    /// Text files (.txt, .txt.gz, .jsonl), folders of them, or one folder that `tokenize` has made.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "one_or_many")]
    pub path: Vec<PathBuf>,
    /// `bytes`, `characters`, `gpt2`, or a tokenizer.json or vocab.txt. Default: bytes; of a packed folder its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<TokenizerSpec>,
    /// The share of the text that validates, its end. Default: 0.1.
    #[serde(default = "tenth")]
    pub validation: f64,
    /// Whether that is the end of the whole text or of each document. Default: text.
    #[serde(default = "whole_text")]
    pub holdout: Holdout,
    /// Read files that are no UTF-8 as latin-1. Default: false.
    #[serde(default)]
    pub latin1: bool,
    /// Sequences in a (micro-)batch.
    pub batch_size: usize,
    /// Windows anywhere in the text, or side by side in a new order each epoch. Default: random.
    #[serde(default)]
    pub windows: Windows,
    /// Batches that count as an epoch. Default: as many as hold every token once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch_batches: Option<u64>,
    /// Sequences in a batch of an evaluation. Default: 32.
    #[serde(default = "default_eval_batch")]
    pub eval_batch_size: usize,
    /// Tokens between the windows of an evaluation: fewer give each more to go by and cost more. Default: half the context.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stride: Option<usize>,
    /// Tokens of the validation part that evaluations read at most, from its beginning. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eval_tokens: Option<u64>,
}

/// How training windows lie in a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Windows {
    /// Each begins anywhere.
    #[default]
    Random,
    /// Side by side, each once an epoch.
    Shuffled,
}

fn tenth() -> f64 {
    0.1
}

fn whole_text() -> Holdout {
    Holdout::Text
}

fn default_eval_batch() -> usize {
    32
}

fn one_or_many<'de, D: serde::Deserializer<'de>>(input: D) -> Result<Vec<PathBuf>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a path, or a list of paths")]
    enum Paths {
        One(PathBuf),
        Many(Vec<PathBuf>),
    }
    Ok(match Paths::deserialize(input)? {
        Paths::One(path) => vec![path],
        Paths::Many(paths) => paths,
    })
}

/// Both parts of a text, and whose ids they are.
pub struct TextSets {
    /// What is learned from.
    pub train: Arc<TokenSet>,
    /// What is measured on.
    pub validation: Arc<TokenSet>,
    /// Their tokenizer.
    pub tokenizer: Arc<dyn Tokenizer>,
    /// A hash over both parts' tokens.
    pub fingerprint: String,
}

impl TextConfig {
    /// Refuses values that cannot be meant, before anything is opened.
    pub fn check(&self) -> Result<()> {
        match (&self.set, self.path.is_empty()) {
            (None, true) => bail!("text.set and text.path are missing: expected one of them"),
            (Some(_), false) => bail!("text.set and text.path are both there: expected one of them"),
            _ => {}
        }
        if !(self.validation > 0.0 && self.validation < 1.0) {
            bail!("text.validation = {}: expected a share between 0 and 1", self.validation);
        }
        let sizes = [
            ("batch_size", self.batch_size as u64),
            ("eval_batch_size", self.eval_batch_size as u64),
            ("stride", self.stride.unwrap_or(1) as u64),
            ("epoch_batches", self.epoch_batches.unwrap_or(1)),
        ];
        if let Some((name, _)) = sizes.iter().find(|(_, value)| *value == 0) {
            bail!("text.{name} = 0: expected at least 1");
        }
        match self.eval_tokens {
            Some(tokens @ 0..2) => bail!("text.eval_tokens = {tokens}: expected at least 2"),
            _ => Ok(()),
        }
    }

    /// Opens both parts; text that is not packed yet is packed first.
    pub fn open(&self) -> Result<TextSets> {
        let folder = match self.packed() {
            Some(folder) => folder.to_owned(),
            None => self.pack()?,
        };
        let [train, validation] = [Part::Train, Part::Validation].map(|part| TokenSet::open(&folder, part));
        let (train, validation) = (train?, validation?);
        let tokenizer = train.tokenizer()?;
        let manifest = Manifest::read(&folder)?;
        if self.packed().is_some() && manifest.options.validation != self.validation {
            eprintln!(
                "{} was packed with a validation share of {}, which counts, and not text.validation = {}",
                folder.display(),
                manifest.options.validation,
                self.validation
            );
        }
        if self.tokenizer == Some(TokenizerSpec::Characters) && train.identity().name != "characters" {
            bail!(
                "{} was packed by the tokenizer {}, and text.tokenizer says characters: leave it out, or name the text itself in text.path",
                folder.display(),
                train.identity()
            );
        }
        if let Some(spec) = self.spec()?.filter(|spec| *spec != TokenizerSpec::Characters) {
            let wanted = spec.open().context("text.tokenizer")?;
            if wanted.identity().sha256 != train.identity().sha256 {
                bail!(
                    "{} was packed by the tokenizer {}, and text.tokenizer says {}: leave it out, or name the text itself in text.path",
                    folder.display(),
                    train.identity(),
                    wanted.identity()
                );
            }
        }
        let parts = [Some(&manifest.train), manifest.validation.as_ref()];
        let hashes = parts.into_iter().flatten().flat_map(|part| &part.shards).map(|shard| shard.sha256.as_str());
        let fingerprint = hex(&hashes.fold(Sha256::new(), |hash, next| hash.chain_update(next)).finalize()[..16]);
        Ok(TextSets { train: Arc::new(train), validation: Arc::new(validation), tokenizer, fingerprint })
    }

    /// The tokenizer, where one is named.
    fn spec(&self) -> Result<Option<TokenizerSpec>> {
        self.tokenizer.as_ref().map(found).transpose()
    }

    /// The folder of shards, where that is what is named.
    fn packed(&self) -> Option<&Path> {
        match &self.path[..] {
            [one] if one.join("manifest.json").is_file() => Some(one),
            _ => None,
        }
    }

    /// Packs the text into the cache, in a folder whose name stands for text, tokenizer and options.
    fn pack(&self) -> Result<PathBuf> {
        let sources = Sources::open(self.files()?, self.latin1)?;
        let tokenizer = self.spec()?.unwrap_or(TokenizerSpec::Bytes).open_for(&sources).context("text.tokenizer")?;
        let options = PackOptions { validation: self.validation, holdout: self.holdout, ..PackOptions::default() };
        let mut hash = Sha256::new();
        hash.update(&tokenizer.identity().sha256);
        hash.update(serde_json::to_vec(&options)?);
        for file in sources.files() {
            hash.update(file.path.to_string_lossy().as_bytes());
            hash.update(&file.sha256);
        }
        let name = hex(&hash.finalize()[..8]);
        let folder = data_home()?.join("tokens").join(name);
        pack_into(&sources, tokenizer.as_ref(), &folder, &options, &AtomicBool::new(false))?;
        Ok(folder)
    }

    /// The files of the text.
    fn files(&self) -> Result<Vec<PathBuf>> {
        let Some(set) = self.set else { return Ok(self.path.clone()) };
        let fetched = |name: &str, get: &str| -> Result<PathBuf> {
            let folder = data_home()?.join(name);
            if !folder.exists() {
                bail!(
                    "{name} is not at {}: get it with `{get}`, or name text files with --set text.path=FILE",
                    folder.display()
                );
            }
            Ok(folder)
        };
        Ok(match set {
            TextName::Books => {
                let folder = embedded_folder()?;
                ["alice", "emma", "shakespeare3"].map(|name| folder.join(format!("{name}.txt.gz"))).to_vec()
            }
            TextName::Tinyshakespeare => {
                vec![fetched("tinyshakespeare", "cargo xtask data tinyshakespeare --from FILE")?]
            }
            TextName::Gutenberg => vec![fetched("gutenberg", "cargo xtask data gutenberg")?],
            TextName::Sotu => vec![fetched("sotu", "cargo xtask data sotu")?],
            TextName::GutenbergSotu => {
                vec![fetched("gutenberg", "cargo xtask data gutenberg")?, fetched("sotu", "cargo xtask data sotu")?]
            }
        })
    }
}

/// A tokenizer whose file, where it is one of those in `data/`, is found from everywhere.
pub fn found(spec: &TokenizerSpec) -> Result<TokenizerSpec> {
    match spec {
        TokenizerSpec::File(path) if !path.exists() => match path.strip_prefix("data") {
            Ok(name) => Ok(TokenizerSpec::File(embedded_folder()?.join(name))),
            Err(_) => Ok(spec.clone()),
        },
        other => Ok(other.clone()),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Packs with a bar, if it takes long enough for one; says what came of it where something was done.
pub fn pack_into(
    sources: &Sources,
    tokenizer: &dyn Tokenizer,
    folder: &Path,
    options: &PackOptions,
    stop: &AtomicBool,
) -> Result<bool> {
    if folder.join("manifest.json").is_file() {
        // Packed before: this only holds it against what is asked for now.
        return Ok(matches!(pack(sources, tokenizer, folder, options, |_| {}, stop)?, Packed::Finished(_)));
    }
    let bar = bar(sources.text_bytes(), "bytes").with_message("tokenizing");
    let packed = pack(sources, tokenizer, folder, options, |at| bar.set_position(at.text_bytes), stop)?;
    bar.finish_and_clear();
    let Packed::Finished(manifest) = packed else { return Ok(false) };
    eprintln!(
        "{} bytes of text became {} tokens of {}, in {}",
        count(sources.text_bytes()),
        count(manifest.train.tokens + manifest.validation.as_ref().map_or(0, |part| part.tokens)),
        manifest.tokenizer,
        folder.display()
    );
    Ok(true)
}

/// What a checkpoint keeps of its text: enough to read and write text without the text it was trained on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TextCard {
    /// The text section of its recipe.
    pub text: TextConfig,
    /// The whole tokenizer.
    pub tokenizer: Definition,
    /// A hash over the tokens it was trained and measured on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packed: Option<String>,
}
