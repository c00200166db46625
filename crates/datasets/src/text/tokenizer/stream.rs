//! Text as it is generated: ids go in one by one, characters come out as soon as they are whole.

use super::Tokenizer;
use crate::Result;

/// So many ids in a row without new text (special ones, or a model that writes no characters) and what is held back is
/// handed out as it is, so that a stream that never says anything does not grow.
const MOST: usize = 64;

/// Decodes a growing sequence of ids. Tokens of a byte-level tokenizer may end within a character, and with others a
/// token's text depends on the one before it (spaces, `##`), so that decoding ids one by one would be wrong.
///
/// The text that comes out, put together with [`Utf8Stream::finish`], is what [`Tokenizer::decode`] gives of all ids.
pub struct Utf8Stream<'a> {
    tokenizer: &'a dyn Tokenizer,
    /// The last ids that gave text and those since: what the next id is decoded after.
    ids: Vec<u32>,
    /// Where in `ids` those since begin.
    fresh: usize,
    /// How many bytes of the text of `ids` have been handed out.
    given: usize,
    /// Ids in a row that gave no text.
    silent: usize,
}

impl<'a> Utf8Stream<'a> {
    /// A stream that has seen nothing.
    pub fn new(tokenizer: &'a dyn Tokenizer) -> Self {
        Self { tokenizer, ids: Vec::new(), fresh: 0, given: 0, silent: 0 }
    }

    /// Takes an id and gives the text that is now certain, which may be empty.
    ///
    /// # Errors
    /// As [`Tokenizer::decode_bytes`]; the id is then not taken.
    pub fn push(&mut self, id: u32) -> Result<String> {
        self.ids.push(id);
        let bytes = match self.tokenizer.decode_bytes(&self.ids) {
            Ok(bytes) => bytes,
            Err(error) => {
                self.ids.pop();
                return Err(error);
            }
        };
        let rest = bytes.get(self.given..).unwrap_or_default();
        let overdue = self.silent >= MOST;
        let certain = if overdue { rest.len() } else { certain(rest) };
        let text = String::from_utf8_lossy(&rest[..certain]).into_owned();
        self.given += certain;
        self.silent = if text.is_empty() && !overdue { self.silent + 1 } else { 0 };
        if overdue || (!text.is_empty() && certain == rest.len()) {
            // The ids before those that gave this text do not bear on what comes.
            self.ids.drain(..self.fresh);
            self.fresh = self.ids.len();
            self.given = self.tokenizer.decode_bytes(&self.ids)?.len();
        }
        Ok(text)
    }

    /// What was held back because it is no whole character.
    ///
    /// # Errors
    /// As [`Tokenizer::decode_bytes`].
    pub fn finish(self) -> Result<String> {
        let bytes = self.tokenizer.decode_bytes(&self.ids)?;
        Ok(String::from_utf8_lossy(bytes.get(self.given..).unwrap_or_default()).into_owned())
    }
}

/// How many bytes can be handed out: not the beginning of a character at the end, nor a U+FFFD there, which is what
/// some tokenizers write as long as bytes are missing.
fn certain(bytes: &[u8]) -> usize {
    const REPLACEMENT: &[u8] = "\u{fffd}".as_bytes();
    let mut end = bytes.len();
    // A character is of four bytes at most: an unfinished one is among the last three.
    for back in 1..=3.min(bytes.len()) {
        let tail = &bytes[bytes.len() - back..];
        if std::str::from_utf8(tail).is_err_and(|error| error.valid_up_to() == 0 && error.error_len().is_none()) {
            end = bytes.len() - back;
            break;
        }
    }
    while bytes[..end].ends_with(REPLACEMENT) {
        end -= REPLACEMENT.len();
    }
    end
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::text::Bytes;

    #[test]
    fn characters_come_whole() {
        let bytes = Bytes::new();
        let mut stream = Utf8Stream::new(&bytes);
        let given: Vec<String> = "aé€😀".bytes().map(|byte| stream.push(byte.into()).unwrap()).collect();
        assert_eq!(given, ["a", "", "é", "", "", "€", "", "", "", "😀"]);
        assert_eq!(stream.push(256).unwrap(), "");
        assert!(stream.push(257).is_err());
        assert_eq!(stream.push(0xf0).unwrap(), "");
        assert_eq!(stream.finish().unwrap(), "\u{fffd}");
    }

    proptest! {
        #[test]
        fn what_comes_out_is_what_decoding_all_gives(ids in proptest::collection::vec(0u32..257, 0..200)) {
            let bytes = Bytes::new();
            let mut stream = Utf8Stream::new(&bytes);
            let mut text = String::new();
            for id in &ids {
                text += &stream.push(*id).unwrap();
            }
            text += &stream.finish().unwrap();
            prop_assert_eq!(text, bytes.decode(&ids).unwrap());
        }
    }
}
