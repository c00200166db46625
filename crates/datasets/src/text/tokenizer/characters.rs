//! Characters as tokens, with a vocabulary of those that occur in a text: small models on small texts.

use std::collections::{BTreeSet, HashMap};

use super::bytes::unknown;
use super::{Definition, Identity, Tokenizer};
use crate::text::{Sources, hash};
use crate::{Error, Result};

/// One id for each character of a text, in the order of their code points; there is no special token.
#[derive(Clone, Debug)]
pub struct Characters {
    identity: Identity,
    vocabulary: Vec<char>,
    ids: HashMap<char, u32>,
}

impl Characters {
    /// The characters of a text.
    ///
    /// # Errors
    /// [`Error::Empty`] where there are none.
    pub fn of(text: &str) -> Result<Self> {
        Self::from_set(text.chars().collect(), "the text")
    }

    /// The characters of all sources, which are read chunk by chunk.
    ///
    /// # Errors
    /// What reading them says.
    pub fn of_sources(sources: &Sources) -> Result<Self> {
        let mut set = BTreeSet::new();
        for chunk in sources.chunks() {
            chunk?.pieces.iter().for_each(|piece| set.extend(piece.text.chars()));
        }
        Self::from_set(set, "the text")
    }

    fn from_set(set: BTreeSet<char>, origin: &str) -> Result<Self> {
        if set.is_empty() {
            return Err(Error::Empty { origin: origin.into(), what: "holds 0 characters".into() });
        }
        let vocabulary: Vec<char> = set.into_iter().collect();
        let text: String = vocabulary.iter().collect();
        let identity = Identity {
            name: "characters".into(),
            sha256: hash::of_bytes(text.as_bytes()),
            vocabulary: vocabulary.len(),
        };
        // a char is below 2^21, so the number of them fits
        let ids = vocabulary.iter().zip(0u32..).map(|(character, id)| (*character, id)).collect();
        Ok(Self { identity, vocabulary, ids })
    }

    /// The vocabulary in the order of its ids.
    pub fn characters(&self) -> &[char] {
        &self.vocabulary
    }

    fn character(&self, id: u32, position: usize) -> Result<char> {
        self.vocabulary.get(id as usize).copied().ok_or_else(|| unknown(&self.identity, id, position))
    }
}

impl Tokenizer for Characters {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let id = |(offset, character)| {
            let vocabulary = self.vocabulary.len();
            let unknown = || Error::UnknownCharacter { character, offset: offset as u64, vocabulary };
            self.ids.get(&character).copied().ok_or_else(unknown)
        };
        text.char_indices().map(id).collect()
    }

    fn decode_bytes(&self, ids: &[u32]) -> Result<Vec<u8>> {
        let text: Result<String> = ids.iter().enumerate().map(|(at, &id)| self.character(id, at)).collect();
        text.map(String::into_bytes)
    }

    fn token(&self, id: u32) -> Result<String> {
        self.character(id, 0).map(String::from)
    }

    fn continues_word(&self, id: u32) -> bool {
        self.vocabulary.get(id as usize).is_some_and(|character| character.is_alphanumeric())
    }

    fn keeps_text(&self) -> bool {
        true
    }

    fn definition(&self) -> Option<Definition> {
        Some(Definition::Characters { vocabulary: self.vocabulary.iter().collect() })
    }
}
