//! What a folder of packed tokens holds (`manifest.json`), and files that appear whole or not at all.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::pack::PackOptions;
use super::source::SourceFile;
use super::tokenizer::{Definition, Identity};
use super::{Part, hash};
use crate::{Error, Result};

pub(super) const MANIFEST: &str = "manifest.json";
pub(super) const DEFINITION: &str = "tokenizer-definition.json";
pub(super) const FORMAT: u32 = 1;

/// What `manifest.json` says; that it is there means that the folder is whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The version of the format, 1.
    pub format: u32,
    /// Whose ids they are; `tokenizer-definition.json` beside holds the tokenizer itself.
    pub tokenizer: Identity,
    /// How it was packed.
    pub options: PackOptions,
    /// The text it was packed from.
    pub sources: Vec<SourceFile>,
    /// The folder `train/`.
    pub train: PartInfo,
    /// The folder `validation/`, where a share was held out.
    pub validation: Option<PartInfo>,
}

/// One part of the text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartInfo {
    /// Its tokens.
    pub tokens: u64,
    /// The bytes of its text in UTF-8: with them a loss per token becomes one per byte, which tokenizers share.
    pub text_bytes: u64,
    /// Its documents, those without a token left out.
    pub documents: u64,
    /// Its files.
    pub shards: Vec<ShardInfo>,
}

/// A file of tokens and the file of its documents' positions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardInfo {
    /// Tokens in it.
    pub tokens: u64,
    /// The hash of the file.
    pub sha256: String,
    /// Documents that begin in it.
    pub documents: u64,
    /// The hash of the file of their positions.
    pub documents_sha256: String,
}

impl Manifest {
    /// Reads the manifest of a folder.
    ///
    /// # Errors
    /// [`Error::Missing`] where there is none, [`Error::Packed`] where it is damaged.
    pub fn read(folder: &Path) -> Result<Self> {
        if !folder.join(MANIFEST).is_file() {
            return Err(Error::Missing {
                set: "packed tokens".into(),
                dir: folder.to_owned(),
                looked_for: MANIFEST.into(),
                how: "pack a text into this folder; where packing was interrupted, start it again and it goes on"
                    .into(),
            });
        }
        let manifest: Self = read_json(&folder.join(MANIFEST))?;
        if manifest.format != FORMAT {
            return Err(Error::Packed {
                path: folder.join(MANIFEST),
                found: format!("the folder has format {}", manifest.format),
                expected: format!("format {FORMAT} is read here"),
                advice: "pack the text anew with this version of the program",
            });
        }
        let parts = [Some(&manifest.train), manifest.validation.as_ref()];
        for part in parts.into_iter().flatten() {
            let tokens = part.shards.iter().try_fold(0u64, |sum, shard| sum.checked_add(shard.tokens));
            if tokens != Some(part.tokens) {
                return Err(Error::Packed {
                    path: folder.join(MANIFEST),
                    found: format!("the shards of a part do not add up to its {} tokens", part.tokens),
                    expected: "they should".into(),
                    advice: "the file is damaged: pack the text anew, or copy the folder again",
                });
            }
        }
        Ok(manifest)
    }

    /// A part, where there is one.
    pub fn part(&self, part: Part) -> Option<&PartInfo> {
        match part {
            Part::Train => Some(&self.train),
            Part::Validation => self.validation.as_ref(),
            Part::Test => None,
        }
    }

    /// The tokenizer's definition, where it has one.
    pub(super) fn definition(folder: &Path) -> Result<Option<Definition>> {
        let path = folder.join(DEFINITION);
        if path.is_file() { read_json(&path).map(Some) } else { Ok(None) }
    }
}

pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = fs::read_to_string(path).map_err(Error::io(path))?;
    serde_json::from_str(&text).map_err(|error| Error::Packed {
        path: path.to_owned(),
        found: format!("it does not parse ({error})"),
        expected: "a file written by packing is expected".into(),
        advice: "the file is damaged or of another version: pack the text anew, or copy the folder again",
    })
}

/// Writes beside, brings to the disk, renames.
pub(super) fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_vec_pretty(value).map_err(|error| Error::io(path)(error.into()))?;
    write(path, &text).map(|_| ())
}

/// The same with bytes; gives their hash.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<String> {
    let beside = path.with_extension("tmp");
    let write = || {
        let mut file = File::create(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    write().map_err(Error::io(path))?;
    Ok(hash::of_bytes(bytes))
}
