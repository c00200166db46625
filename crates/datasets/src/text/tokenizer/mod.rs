//! From text to token ids and back: what all tokenizers can do, and how a sentence is framed for a classifier.

mod bytes;
mod characters;
mod gpt2;
mod hugging_face;
mod spec;
mod stream;
mod word_piece;

use serde::{Deserialize, Serialize};

pub use bytes::Bytes;
pub use characters::Characters;
pub use gpt2::Gpt2;
pub use hugging_face::HuggingFace;
pub use spec::{Definition, TokenizerSpec};
pub use stream::Utf8Stream;

use crate::{Error, Result};

/// What tells a tokenizer from all others: token files and checkpoints keep it and refuse another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// What it is called.
    pub name: String,
    /// The hash of what defines it (its vocabulary or its file, uncompressed), in hexadecimal.
    pub sha256: String,
    /// How many ids there are: each is below this.
    pub vocabulary: usize,
}

impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let start = self.sha256.get(..12).unwrap_or(&self.sha256);
        write!(f, "{} ({} tokens, sha256 {start}...)", self.name, self.vocabulary)
    }
}

/// The ids with a meaning of their own, where the tokenizer has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Specials {
    /// Stands in the place of a hidden token.
    pub mask: Option<u32>,
    /// Opens a sentence; a classifier reads it.
    pub cls: Option<u32>,
    /// Closes a sentence.
    pub sep: Option<u32>,
    /// Fills rows up.
    pub pad: Option<u32>,
    /// Stands for what the vocabulary cannot express.
    pub unk: Option<u32>,
}

impl Specials {
    /// Those that are there.
    pub fn ids(&self) -> impl Iterator<Item = u32> {
        [self.mask, self.cls, self.sep, self.pad, self.unk].into_iter().flatten()
    }
}

/// A framed sentence or pair of sentences.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sentence {
    /// CLS, first text, SEP, and where there is a second text: second text, SEP.
    pub ids: Vec<u32>,
    /// 0 for the first text and its frame, 1 for the second.
    pub segments: Vec<u32>,
}

/// From text to ids and back.
pub trait Tokenizer: Send + Sync {
    /// What tells it from all others.
    fn identity(&self) -> &Identity;

    /// The ids of a text, nothing added.
    ///
    /// # Errors
    /// [`Error::UnknownCharacter`] for a text it cannot express; [`Error::Tokenizer`] where it fails otherwise.
    fn encode(&self, text: &str) -> Result<Vec<u32>>;

    /// The bytes that ids stand for; tokens of a byte-level tokenizer may end within a character. Special tokens stand
    /// for none.
    ///
    /// # Errors
    /// [`Error::UnknownToken`] for an id past the vocabulary.
    fn decode_bytes(&self, ids: &[u32]) -> Result<Vec<u8>>;

    /// How a token is written for people: a special one by its name, bytes that are no character as U+FFFD.
    ///
    /// # Errors
    /// [`Error::UnknownToken`] for an id past the vocabulary.
    fn token(&self, id: u32) -> Result<String>;

    /// Whether a token goes on with the word of the token before it, for masking whole words: in WordPiece those with
    /// `##`, elsewhere those that begin with a letter or digit, or within a character (a word there begins at its space).
    fn continues_word(&self, id: u32) -> bool;

    /// Whether decoding surely gives back the text that was encoded, every byte of it: WordPiece keeps no line ends.
    fn keeps_text(&self) -> bool {
        false
    }

    /// What it can be made from again; `None` for a tokenizer of one's own, which then has to be provided on reading.
    fn definition(&self) -> Option<Definition>;

    /// The token put after each document.
    fn end_of_text(&self) -> Option<u32> {
        None
    }

    /// The special ids for masked language models and classifiers.
    fn specials(&self) -> Specials {
        Specials::default()
    }

    /// Whether an id is special: one of [`Tokenizer::specials`], the end of a text, or another that stands for no text.
    fn is_special(&self, id: u32) -> bool {
        self.end_of_text() == Some(id) || self.specials().ids().any(|special| special == id)
    }

    /// The number of ids.
    fn vocabulary(&self) -> usize {
        self.identity().vocabulary
    }

    /// The text that ids stand for, with U+FFFD for bytes that are no character.
    ///
    /// # Errors
    /// As [`Tokenizer::decode_bytes`].
    fn decode(&self, ids: &[u32]) -> Result<String> {
        Ok(String::from_utf8_lossy(&self.decode_bytes(ids)?).into_owned())
    }

    /// A text framed as BERT frames it, of at most `limit` tokens with CLS and SEP: what is too long loses its end. A
    /// tokenizer without CLS or SEP leaves them out.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`]; [`Error::Config`] where the frame alone exceeds `limit`.
    fn encode_sentence(&self, text: &str, limit: usize) -> Result<Sentence> {
        frame(self.specials(), limit, self.encode(text)?, None)
    }

    /// A pair of texts framed as BERT frames it, of at most `limit` tokens: the longer of the two loses tokens at its
    /// end until both fit.
    ///
    /// # Errors
    /// As [`Tokenizer::encode_sentence`].
    fn encode_pair(&self, first: &str, second: &str, limit: usize) -> Result<Sentence> {
        frame(self.specials(), limit, self.encode(first)?, Some(self.encode(second)?))
    }
}

fn frame(specials: Specials, limit: usize, mut first: Vec<u32>, second: Option<Vec<u32>>) -> Result<Sentence> {
    let separators = if second.is_some() { 2 } else { 1 } * usize::from(specials.sep.is_some());
    let around = usize::from(specials.cls.is_some()) + separators;
    let Some(room) = limit.checked_sub(around).filter(|room| *room > 0) else {
        let expected = format!("more than the {around} tokens around a text are expected");
        return Err(Error::config("length", limit, expected));
    };
    let mut second = second;
    let mut other = second.as_ref().map_or(0, Vec::len);
    let mut length = first.len();
    if length + other > room {
        // what taking one token at a time off the longer (the second, where both are equally long) comes to
        let (shorter, half) = (length.min(other), room / 2);
        (length, other) = match (shorter <= half, length <= other) {
            (true, true) => (length, room - length),
            (true, false) => (room - other, other),
            (false, _) => (room - half, half),
        };
    }
    first.truncate(length);
    let mut ids: Vec<u32> = specials.cls.into_iter().chain(first).chain(specials.sep).collect();
    let mut segments = vec![0; ids.len()];
    if let Some(second) = &mut second {
        second.truncate(other);
        ids.extend(second.iter().copied().chain(specials.sep));
        segments.resize(ids.len(), 1);
    }
    Ok(Sentence { ids, segments })
}

/// The rule of [`Tokenizer::continues_word`] for a token given by its bytes.
fn begins_within_word(bytes: &[u8]) -> bool {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.starts_with(char::is_alphanumeric),
        Err(error) if error.valid_up_to() > 0 => {
            String::from_utf8_lossy(&bytes[..error.valid_up_to()]).starts_with(char::is_alphanumeric)
        }
        Err(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SPECIALS: Specials = Specials { mask: None, cls: Some(101), sep: Some(102), pad: None, unk: None };

    #[test]
    fn a_pair_is_framed_and_cut_like_bert() {
        let pair = frame(SPECIALS, 8, vec![1, 2, 3, 4, 5], Some(vec![6, 7])).unwrap();
        assert_eq!(pair.ids, [101, 1, 2, 3, 102, 6, 7, 102]);
        assert_eq!(pair.segments, [0, 0, 0, 0, 0, 1, 1, 1]);
        let one = frame(SPECIALS, 4, vec![1, 2, 3], None).unwrap();
        assert_eq!((one.ids, one.segments), (vec![101, 1, 2, 102], vec![0; 4]));
        let plain = frame(Specials::default(), 9, vec![1], Some(vec![2])).unwrap();
        assert_eq!((plain.ids, plain.segments), (vec![1, 2], vec![0, 1]));
        assert!(frame(SPECIALS, 3, vec![1], Some(vec![2])).is_err());
    }

    proptest! {
        #[test]
        fn cutting_is_the_same_as_taking_tokens_off_the_longer(a in 0usize..20, b in 0usize..20, room in 1usize..30) {
            let (mut first, mut second) = (a, b);
            while first + second > room {
                if first > second { first -= 1 } else { second -= 1 }
            }
            let pair = frame(SPECIALS, room + 3, vec![0; a], Some(vec![0; b])).unwrap();
            let ones = pair.segments.iter().filter(|segment| **segment == 1).count();
            prop_assert_eq!((pair.ids.len() - ones - 2, ones - 1), (first, second));
        }
    }
}
