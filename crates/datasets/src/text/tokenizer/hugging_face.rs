//! Any tokenizer that comes as Hugging Face's `tokenizer.json`, through the crate `tokenizers`.
//!
//! Special tokens are found by the names that are in use, and their names within a text become their ids, as in the
//! reference (so `the [MASK] sat` can be filled in). Truncation and padding that the file asks for are left out: batches
//! see to both.

use std::collections::HashMap;

use tokenizers::{DecoderWrapper, ModelWrapper};

use super::bytes::unknown;
use super::{Definition, Identity, Specials, Tokenizer, begins_within_word};
use crate::text::hash;
use crate::{Error, Result};

/// A tokenizer of the crate `tokenizers`.
pub struct HuggingFace {
    inner: tokenizers::Tokenizer,
    identity: Identity,
    definition: Definition,
    specials: Specials,
    end: Option<u32>,
    /// For each id whether it stands for no text.
    special: Vec<bool>,
    continues: Vec<bool>,
    /// Where tokens are bytes written as characters: which byte a character is.
    bytes: Option<HashMap<char, u8>>,
}

impl HuggingFace {
    /// From the text of a `tokenizer.json`; `name` is used in messages.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] for a text that is no such file.
    pub fn from_json(json: &str, name: &str) -> Result<Self> {
        let mut inner =
            tokenizers::Tokenizer::from_bytes(json.as_bytes()).map_err(|error| failed(name, error.to_string()))?;
        inner.with_truncation(None).map_err(|error| failed(name, error.to_string()))?;
        inner.with_padding(None);
        Self::wrap(inner, name, hash::of_bytes(json.as_bytes()), Definition::TokenizerJson { json: json.into() })
    }

    pub(super) fn wrap(
        inner: tokenizers::Tokenizer,
        name: &str,
        sha256: String,
        definition: Definition,
    ) -> Result<Self> {
        let all = inner.get_vocab(true);
        let Some(last) = all.values().max() else {
            return Err(failed(name, "its vocabulary is empty"));
        };
        let vocabulary = *last as usize + 1;
        if vocabulary > 1 << 24 {
            return Err(failed(name, format!("its largest id is {last}, more than any vocabulary has")));
        }
        let find = |names: &[&str]| names.iter().find_map(|name| all.get(*name).copied());
        let specials = Specials {
            mask: find(&["[MASK]", "<mask>"]),
            cls: find(&["[CLS]", "<s>"]),
            sep: find(&["[SEP]", "</s>"]),
            pad: find(&["[PAD]", "<pad>"]),
            unk: find(&["[UNK]", "<unk>"]),
        };
        let end = find(&["<|endoftext|>", "<|end_of_text|>", "<eos>", "[EOS]", "</s>", "[SEP]"]);
        let mut special = vec![false; vocabulary];
        let added = inner.get_added_tokens_decoder();
        let named = added.iter().filter(|(_, token)| token.special).map(|(id, _)| *id);
        named.chain(specials.ids()).chain(end).for_each(|id| special[id as usize] = true);

        let bytes = uses_bytes(&inner).then(byte_of_character);
        let prefix = match inner.get_model() {
            ModelWrapper::WordPiece(model) => Some(model.continuing_subword_prefix.clone()),
            _ => None,
        };
        let mut continues = vec![false; vocabulary];
        for (token, &id) in &all {
            continues[id as usize] = !special[id as usize]
                && match (&prefix, &bytes) {
                    (Some(prefix), _) => token.starts_with(prefix.as_str()),
                    (None, Some(table)) => begins_within_word(&in_bytes(token, table)),
                    (None, None) => begins_within_word(token.as_bytes()),
                };
        }
        let identity = Identity { name: name.into(), sha256, vocabulary };
        Ok(Self { inner, identity, definition, specials, end, special, continues, bytes })
    }

    fn check(&self, ids: &[u32]) -> Result<()> {
        match ids.iter().position(|id| *id as usize >= self.identity.vocabulary) {
            Some(position) => Err(unknown(&self.identity, ids[position], position)),
            None => Ok(()),
        }
    }
}

impl Tokenizer for HuggingFace {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self.inner.encode_fast(text, false);
        let encoding = encoding.map_err(|error| Error::Tokenizer {
            tokenizer: self.identity.name.clone(),
            reason: format!("a text of {} bytes is not encoded ({error})", text.len()),
            advice: "see whether its vocabulary holds the unknown token that it names".into(),
        })?;
        Ok(encoding.get_ids().to_vec())
    }

    fn decode_bytes(&self, ids: &[u32]) -> Result<Vec<u8>> {
        self.check(ids)?;
        if let Some(table) = &self.bytes {
            let ids = ids.iter().filter(|id| !self.special[**id as usize]);
            return Ok(ids.filter_map(|id| self.inner.id_to_token(*id)).flat_map(|t| in_bytes(&t, table)).collect());
        }
        let ids: Vec<u32> = ids.iter().copied().filter(|id| !self.special[*id as usize]).collect();
        let text = self.inner.decode(&ids, false).map_err(|error| failed(&self.identity.name, error.to_string()))?;
        Ok(text.into_bytes())
    }

    fn token(&self, id: u32) -> Result<String> {
        self.check(&[id])?;
        let token = self.inner.id_to_token(id).unwrap_or_default();
        Ok(match &self.bytes {
            Some(table) if !self.special[id as usize] => String::from_utf8_lossy(&in_bytes(&token, table)).into(),
            _ => token,
        })
    }

    fn continues_word(&self, id: u32) -> bool {
        self.continues.get(id as usize).copied().unwrap_or(false)
    }

    fn definition(&self) -> Option<Definition> {
        Some(self.definition.clone())
    }

    fn end_of_text(&self) -> Option<u32> {
        self.end
    }

    fn specials(&self) -> Specials {
        self.specials
    }

    fn is_special(&self, id: u32) -> bool {
        self.special.get(id as usize).copied().unwrap_or(false)
    }
}

/// Whether the tokens are bytes, written as GPT-2 writes them.
fn uses_bytes(inner: &tokenizers::Tokenizer) -> bool {
    matches!(inner.get_decoder(), Some(DecoderWrapper::ByteLevel(_)))
}

/// GPT-2's alphabet: bytes that can be seen are themselves, the others follow from U+0100.
fn byte_of_character() -> HashMap<char, u8> {
    let seen = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let themselves = (0..=255).filter(seen).map(|byte| (char::from(byte), byte));
    let others = (0..=255).filter(|byte| !seen(byte)).zip('\u{100}'..).map(|(byte, character)| (character, byte));
    themselves.chain(others).collect()
}

/// The bytes of a token; of an added one, whose characters are not of that alphabet, its text.
fn in_bytes(token: &str, table: &HashMap<char, u8>) -> Vec<u8> {
    let bytes: Option<Vec<u8>> = token.chars().map(|character| table.get(&character).copied()).collect();
    bytes.unwrap_or_else(|| token.as_bytes().to_vec())
}

pub(super) fn failed(name: &str, reason: impl Into<String>) -> Error {
    Error::Tokenizer {
        tokenizer: name.into(),
        reason: reason.into(),
        advice: "expected is a tokenizer.json of Hugging Face or a vocab.txt with a token in each line".into(),
    }
}
