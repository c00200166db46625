//! Bytes as tokens: no vocabulary to build, any text, four times as long as with subwords.

use super::{Definition, Identity, Tokenizer, begins_within_word};
use crate::text::hash;
use crate::{Error, Result};

/// The token after a text.
const END: u32 = 256;

/// Ids 0 to 255 are bytes, 256 ends a text.
#[derive(Clone, Debug)]
pub struct Bytes(Identity);

impl Bytes {
    /// The tokenizer; there is only one.
    pub fn new() -> Self {
        let definition = "ids 0 to 255 are the bytes of UTF-8, 256 ends a text";
        Self(Identity { name: "bytes".into(), sha256: hash::of_bytes(definition.as_bytes()), vocabulary: 257 })
    }
}

impl Default for Bytes {
    fn default() -> Self {
        Self::new()
    }
}

impl Tokenizer for Bytes {
    fn identity(&self) -> &Identity {
        &self.0
    }

    fn encode(&self, text: &str) -> Result<Vec<u32>> {
        Ok(text.bytes().map(u32::from).collect())
    }

    fn decode_bytes(&self, ids: &[u32]) -> Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(ids.len());
        for (position, &id) in ids.iter().enumerate() {
            match u8::try_from(id) {
                Ok(byte) => bytes.push(byte),
                Err(_) if id == END => {}
                Err(_) => return Err(unknown(&self.0, id, position)),
            }
        }
        Ok(bytes)
    }

    fn token(&self, id: u32) -> Result<String> {
        if id == END { Ok("<end>".into()) } else { self.decode(&[id]) }
    }

    fn continues_word(&self, id: u32) -> bool {
        u8::try_from(id).is_ok_and(|byte| begins_within_word(&[byte]))
    }

    fn keeps_text(&self) -> bool {
        true
    }

    fn definition(&self) -> Option<Definition> {
        Some(Definition::Bytes)
    }

    fn end_of_text(&self) -> Option<u32> {
        Some(END)
    }
}

pub(super) fn unknown(identity: &Identity, id: u32, position: usize) -> Error {
    Error::UnknownToken { id, position, tokenizer: identity.name.clone(), vocabulary: identity.vocabulary }
}
