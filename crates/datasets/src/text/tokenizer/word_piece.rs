//! BERT's WordPiece from its `vocab.txt`: control characters out, accents and case off where the vocabulary has none,
//! split at spaces and punctuation, then the longest pieces from the left, `##` before those within a word.

use std::collections::HashMap;

use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::{AddedToken, decoders};

use super::hugging_face::failed;
use super::{Definition, HuggingFace};
use crate::Result;
use crate::text::hash;

impl HuggingFace {
    /// From the text of a `vocab.txt`, a token a line, the line's number its id. Text is brought to lower case, and its
    /// accents are taken off, if `lowercase` says so; where it says nothing, if no token changes by it.
    ///
    /// # Errors
    /// [`Error::Tokenizer`](crate::Error::Tokenizer) for a vocabulary with repeated or empty lines, or without `[UNK]`.
    pub fn from_vocabulary(vocabulary: &str, lowercase: Option<bool>, name: &str) -> Result<Self> {
        let lines: Vec<&str> = vocabulary.trim_end().lines().map(str::trim_end).collect();
        let mut ids = HashMap::with_capacity(lines.len());
        for (line, id) in lines.iter().zip(0u32..) {
            if line.is_empty() {
                return Err(failed(name, format!("line {} is empty", id + 1)));
            }
            if let Some(before) = ids.insert((*line).to_owned(), id) {
                return Err(failed(name, format!("lines {} and {} are both {line:?}", before + 1, id + 1)));
            }
        }
        if !ids.contains_key("[UNK]") {
            return Err(failed(name, format!("none of its {} lines is [UNK]", lines.len())));
        }
        let marked = |line: &str| line.starts_with('[') && line.ends_with(']');
        let lowercase = lowercase.unwrap_or_else(|| lines.iter().all(|l| marked(l) || l.to_lowercase() == **l));

        let names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].into_iter().filter(|name| ids.contains_key(*name));
        let special: Vec<AddedToken> = names.map(|name| AddedToken::from(name, true)).collect();
        let problem = |error: tokenizers::Error| failed(name, error.to_string());
        let canonical = lines.join("\n");
        let ids = WordPiece::read_bytes(canonical.as_bytes()).map_err(problem)?;
        let model = WordPiece::builder().vocab(ids).unk_token("[UNK]".into()).build().map_err(problem)?;
        let mut inner = tokenizers::Tokenizer::new(model);
        inner.with_normalizer(Some(BertNormalizer::new(true, true, None, lowercase))).map_err(problem)?;
        inner.with_pre_tokenizer(Some(BertPreTokenizer));
        inner.with_decoder(Some(decoders::wordpiece::WordPiece::default()));
        inner.add_special_tokens(special).map_err(problem)?;

        let sha256 = hash::of_bytes(format!("lowercase={lowercase}\n{canonical}").as_bytes());
        let definition = Definition::WordPiece { vocabulary: canonical, lowercase };
        Self::wrap(inner, name, sha256, definition)
    }
}
