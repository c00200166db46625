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

/// Runs of white space of so many bytes are encoded apart.
const LONG: usize = 1 << 14;

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
        // The regular expression behind it gives up on hostile texts by a panic; what was seen to lead there are long
        // runs of spaces, so these are taken apart before, and the rest is caught.
        let encode = || {
            let mut ids = Vec::new();
            let mut rest = text;
            while let Some((before, run, after)) = long_run(rest) {
                ids.extend(self.encoding.encode_ordinary(before));
                ids.extend(self.encoding.encode_ordinary(run));
                rest = after;
            }
            ids.extend(self.encoding.encode_ordinary(rest));
            ids
        };
        catch_unwind(AssertUnwindSafe(encode)).map_err(|_| Error::Tokenizer {
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

    fn keeps_text(&self) -> bool {
        true
    }

    fn definition(&self) -> Option<Definition> {
        Some(Definition::Gpt2)
    }

    fn end_of_text(&self) -> Option<u32> {
        Some(END)
    }
}

/// Splits a text at its first long run of white space: before it, the run, after it. As in GPT-2's rule the last space
/// of a run goes with what follows, so that the ids are those of the undivided text.
fn long_run(text: &str) -> Option<(&str, &str, &str)> {
    if text.len() < LONG {
        return None;
    }
    let mut begin = None;
    let mut last = 0;
    for (at, character) in text.char_indices() {
        if character.is_whitespace() {
            begin.get_or_insert(at);
            last = at;
        } else if let Some(begin) = begin.take().filter(|begin| last - begin >= LONG) {
            return Some((&text[..begin], &text[begin..last], &text[last..]));
        }
    }
    begin.filter(|begin| *begin > 0 && last - begin >= LONG).map(|begin| (&text[..begin], &text[begin..], ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_runs_of_spaces_are_taken_apart_without_a_trace() {
        let gpt2 = Gpt2::new().unwrap();
        for run in ["\n", " ", " \n", "\u{3000}"].map(|part| part.repeat(LONG)) {
            for (before, after) in [("", "b"), ("a", "b"), ("a", ""), ("", ""), ("a ", "\n.")] {
                let text = format!("{before}{run}{after}");
                assert_eq!(gpt2.encode(&text).unwrap(), gpt2.encoding.encode_ordinary(&text));
            }
        }
        assert!(long_run(&" ".repeat(2 * LONG)).is_none() && long_run(&"a".repeat(2 * LONG)).is_none());
    }
}
