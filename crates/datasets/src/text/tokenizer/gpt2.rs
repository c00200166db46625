//! GPT-2's byte-pair encoding (Radford et al. 2019), as `tiktoken-rs` embeds it: 50,256 byte strings and one token that
//! ends a text. A special token's name within a text is encoded as the text that it is.

use std::panic::{AssertUnwindSafe, catch_unwind};

use sha2::{Digest, Sha256};
use tiktoken_rs::CoreBPE;

use super::bytes::unknown;
use super::{Definition, Identity, Tokenizer, begins_within_word};
use crate::text::hash;
use crate::{Error, Result};

/// `<|endoftext|>`.
const END: u32 = 50256;

/// GPT-2's tokenizer.
pub struct Gpt2 {
    encoding: CoreBPE,
    identity: Identity,
    continues: Vec<bool>,
}

impl Gpt2 {
    /// The tokenizer; its tables are part of the program.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] where the tables do not load.
    pub fn new() -> Result<Self> {
        let failed = |error: String| Error::Tokenizer {
            tokenizer: "gpt2".into(),
            reason: format!("its built-in tables do not load ({error})"),
            advice: "report this".into(),
        };
        let encoding = tiktoken_rs::r50k_base().map_err(|error| failed(error.to_string()))?;
        let mut hasher = Sha256::new();
        let mut continues = Vec::with_capacity(END as usize + 1);
        for id in 0..END {
            let bytes = encoding.decode_bytes(&[id]).map_err(|error| failed(error.to_string()))?;
            hasher.update((bytes.len() as u32).to_le_bytes());
            hasher.update(&bytes);
            continues.push(begins_within_word(&bytes));
        }
        continues.push(false);
        let identity =
            Identity { name: "gpt2".into(), sha256: hash::hex(&hasher.finalize()), vocabulary: END as usize + 1 };
        Ok(Self { encoding, identity, continues })
    }
}

impl Tokenizer for Gpt2 {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn encode(&self, text: &str) -> Result<Vec<u32>> {
        // The regular expression behind it gives up on hostile texts by a panic.
        catch_unwind(AssertUnwindSafe(|| self.encoding.encode_ordinary(text))).map_err(|_| Error::Tokenizer {
            tokenizer: "gpt2".into(),
            reason: format!("a text of {} bytes cannot be split into words", text.len()),
            advice: "look for very long runs of one kind of character in it".into(),
        })
    }

    fn decode_bytes(&self, ids: &[u32]) -> Result<Vec<u8>> {
        if let Some(position) = ids.iter().position(|id| *id > END) {
            return Err(unknown(&self.identity, ids[position], position));
        }
        let plain: Vec<u32> = ids.iter().copied().filter(|id| *id != END).collect();
        self.encoding.decode_bytes(&plain).map_err(|error| Error::Tokenizer {
            tokenizer: "gpt2".into(),
            reason: error.to_string(),
            advice: "report this".into(),
        })
    }

    fn token(&self, id: u32) -> Result<String> {
        if id == END { Ok("<|endoftext|>".into()) } else { self.decode(&[id]) }
    }

    fn continues_word(&self, id: u32) -> bool {
        self.continues.get(id as usize).copied().unwrap_or(false)
    }

    fn definition(&self) -> Option<Definition> {
        Some(Definition::Gpt2)
    }

    fn end_of_text(&self) -> Option<u32> {
        Some(END)
    }
}
