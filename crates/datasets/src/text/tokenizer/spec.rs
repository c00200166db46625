//! Which tokenizer: as one string in a recipe ([`TokenizerSpec`]), and whole, as token sets and checkpoints keep it
//! ([`Definition`]).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Bytes, Characters, Gpt2, HuggingFace, Tokenizer};
use crate::file::Source;
use crate::text::Sources;
use crate::{Error, Result};

const NAMES: [&str; 3] = ["bytes", "characters", "gpt2"];

/// A tokenizer by name or file: `bytes`, `characters`, `gpt2`, or the path of a `tokenizer.json` or a `vocab.txt`
/// (either may be compressed, `.gz`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum TokenizerSpec {
    /// [`Bytes`].
    Bytes,
    /// [`Characters`] of the text at hand.
    Characters,
    /// [`Gpt2`].
    Gpt2,
    /// [`HuggingFace`], from a file.
    File(PathBuf),
}

impl std::str::FromStr for TokenizerSpec {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "bytes" => return Ok(Self::Bytes),
            "characters" => return Ok(Self::Characters),
            "gpt2" => return Ok(Self::Gpt2),
            _ => {}
        }
        let stem = text.strip_suffix(".gz").unwrap_or(text);
        if stem.ends_with(".json") || stem.ends_with(".txt") {
            return Ok(Self::File(text.into()));
        }
        let near = |name: &&&str| strsim::damerau_levenshtein(name, &text.to_lowercase());
        let nearest = NAMES.iter().min_by_key(near).filter(|name| near(name) <= 3);
        let hint = nearest.map(|name| format!("; did you mean {name:?}?")).unwrap_or_default();
        let expected = format!(
            "known are {}, and the path of a tokenizer.json or vocab.txt (also .gz){hint}",
            NAMES.map(|name| format!("{name:?}")).join(", ")
        );
        Err(Error::config("tokenizer", format!("{text:?}"), expected))
    }
}

impl TryFrom<String> for TokenizerSpec {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<TokenizerSpec> for String {
    fn from(spec: TokenizerSpec) -> Self {
        spec.to_string()
    }
}

impl std::fmt::Display for TokenizerSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bytes => f.write_str("bytes"),
            Self::Characters => f.write_str("characters"),
            Self::Gpt2 => f.write_str("gpt2"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

impl TokenizerSpec {
    /// The tokenizer, where no text is needed to make it.
    ///
    /// # Errors
    /// [`Error::Config`] for `characters`; what [`Definition::open`] says of a file.
    pub fn open(&self) -> Result<Arc<dyn Tokenizer>> {
        match self {
            Self::Bytes => Definition::Bytes.open(),
            Self::Gpt2 => Definition::Gpt2.open(),
            Self::File(path) => from_file(path),
            Self::Characters => Err(Error::config(
                "tokenizer",
                "\"characters\"",
                "its vocabulary comes from a text: pack one with it, and the folder will keep it",
            )),
        }
    }

    /// The tokenizer for these sources, of whose characters `characters` makes its vocabulary.
    ///
    /// # Errors
    /// As [`TokenizerSpec::open`], and what reading the sources says.
    pub fn open_for(&self, sources: &Sources) -> Result<Arc<dyn Tokenizer>> {
        match self {
            Self::Characters => Ok(Arc::new(Characters::of_sources(sources)?)),
            _ => self.open(),
        }
    }
}

fn from_file(path: &Path) -> Result<Arc<dyn Tokenizer>> {
    let bytes = Source::open(path)?.rest()?;
    let text = String::from_utf8(bytes).map_err(|error| Error::Tokenizer {
        tokenizer: path.display().to_string(),
        reason: format!("byte {} is not valid UTF-8", error.utf8_error().valid_up_to()),
        advice: "expected is a tokenizer.json of Hugging Face or a vocab.txt with a token in each line".into(),
    })?;
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let stem = name.strip_suffix(".gz").unwrap_or(&name);
    let in_its_place = |error| match error {
        Error::Tokenizer { reason, advice, .. } => {
            Error::Tokenizer { tokenizer: path.display().to_string(), reason, advice }
        }
        other => other,
    };
    let opened = if stem.ends_with(".json") {
        HuggingFace::from_json(&text, "tokenizer.json")
    } else {
        HuggingFace::from_vocabulary(&text, None, "wordpiece")
    };
    Ok(Arc::new(opened.map_err(in_its_place)?))
}

/// All that a tokenizer is made of, so that what was trained or packed with it does not depend on a file elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Definition {
    /// [`Bytes`].
    Bytes,
    /// [`Characters`].
    Characters {
        /// The characters, in the order of their ids.
        vocabulary: String,
    },
    /// [`Gpt2`].
    Gpt2,
    /// [`HuggingFace::from_vocabulary`].
    WordPiece {
        /// The tokens, one a line.
        vocabulary: String,
        /// Whether text is brought to lower case and loses its accents.
        lowercase: bool,
    },
    /// [`HuggingFace::from_json`].
    TokenizerJson {
        /// The text of the file.
        json: String,
    },
}

impl Definition {
    /// The tokenizer.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] for a damaged definition, [`Error::Empty`] for one without characters.
    pub fn open(&self) -> Result<Arc<dyn Tokenizer>> {
        Ok(match self {
            Self::Bytes => Arc::new(Bytes::new()),
            Self::Characters { vocabulary } => Arc::new(Characters::of(vocabulary)?),
            Self::Gpt2 => Arc::new(Gpt2::new()?),
            Self::WordPiece { vocabulary, lowercase } => {
                Arc::new(HuggingFace::from_vocabulary(vocabulary, Some(*lowercase), "wordpiece")?)
            }
            Self::TokenizerJson { json } => Arc::new(HuggingFace::from_json(json, "tokenizer.json")?),
        })
    }
}
