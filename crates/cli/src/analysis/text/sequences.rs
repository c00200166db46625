//! Which text a model is looked at with: sequences evenly out of the validation part of its own, or of a user's files.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use whitebox_analysis::count;
use whitebox_datasets::text::{Sources, TokenSet, Tokenizer};

use super::subject::Opened;

/// Tokens in a text in memory.
pub struct Sequences {
    /// Where each begins in the text, in tokens.
    pub starts: Vec<u64>,
    /// Their tokens, all of one length.
    pub rows: Vec<Vec<u32>>,
    /// Which part of which text: `validation`, `given`.
    pub part: &'static str,
    /// The text in a few words.
    pub text: String,
    /// Its tokens.
    pub tokens: u64,
}

/// A text by its ids.
pub struct Text {
    set: TokenSet,
    part: &'static str,
    name: String,
}

impl Text {
    /// The validation part of the text that a model was trained on.
    pub fn of_model(opened: &Opened) -> Result<Self> {
        let path = opened.weights.path.display();
        let Some(text) = &opened.text else {
            bail!("{path} does not tell the text it was trained on: name text files with --data")
        };
        let sets = text
            .open()
            .with_context(|| format!("the text that {path} was trained on; --data names other text files"))?;
        let set = std::sync::Arc::into_inner(sets.validation).context("the text is in use")?;
        if set.identity().sha256 != opened.tokenizer.identity().sha256 {
            bail!(
                "--tokenizer says {}, and the text of {path} is tokenized by {}: leave it out, or name text files with --data",
                opened.tokenizer.identity(),
                set.identity()
            );
        }
        let name = format!("the validation part of its own text, {} tokens", count(set.len()));
        Ok(Text { set, part: "validation", name })
    }

    /// Files, all of them.
    pub fn of_files(files: &[PathBuf], tokenizer: &dyn Tokenizer) -> Result<Self> {
        let named = || files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(" ");
        let sources = Sources::open(files, false).with_context(|| format!("--data {}", named()))?;
        let mut ids = Vec::new();
        for chunk in sources.chunks() {
            for piece in chunk?.pieces {
                if piece.offset == 0 && !ids.is_empty() {
                    ids.extend(tokenizer.end_of_text());
                }
                ids.extend(tokenizer.encode(&piece.text).with_context(|| format!("--data {}", named()))?);
            }
        }
        let name = format!("{}, {} tokens", named(), count(ids.len() as u64));
        let set = TokenSet::from_ids(ids, Vec::new(), sources.text_bytes(), tokenizer.identity().clone())?;
        Ok(Text { set, part: "given", name })
    }

    /// At most `wanted` sequences of `length` tokens, side by side and evenly out of the text; one shorter one of a text that is shorter.
    pub fn sequences(&self, wanted: u64, length: usize) -> Result<Sequences> {
        if self.set.len() < 2 {
            bail!("the text ({}) holds {} tokens: expected 2 at least", self.name, self.set.len());
        }
        let length = self.set.len().min(length as u64);
        let whole = self.set.len() / length;
        let taken = wanted.min(whole);
        // In 128 bits: samples may be asked for by the billion.
        let starts: Vec<u64> =
            (0..taken).map(|i| (u128::from(i) * u128::from(whole) / u128::from(taken)) as u64 * length).collect();
        let rows = starts.iter().map(|start| {
            let mut ids = vec![0; length as usize];
            self.set.read(*start, &mut ids)?;
            Ok(ids)
        });
        let rows = rows.collect::<Result<_>>()?;
        Ok(Sequences { starts, rows, part: self.part, text: self.name.clone(), tokens: self.set.len() })
    }
}
