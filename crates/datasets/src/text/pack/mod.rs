//! Packing: text through a tokenizer into a folder of token shards, in parallel, and the same bytes whatever the number
//! of threads and however often it was interrupted.
//!
//! ```text
//! FOLDER/manifest.json                 counts, hashes, sources, options; written last
//! FOLDER/tokenizer-definition.json     the tokenizer
//! FOLDER/train/tokens-00000.bin ...    ids, with documents-00000.bin beside each
//! FOLDER/validation/...                the share held out
//! FOLDER/pack-state.json               while it is being made: the place behind the last whole shard
//! ```

mod divide;
mod writer;

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use self::divide::{Division, Share};
use self::writer::{Encoded, Place, Saved, Writer};
use super::manifest::{self, DEFINITION, FORMAT, MANIFEST, Manifest};
use super::tokenizer::{Identity, Tokenizer};
use super::{Chunk, Part, SourceFile, Sources};
use crate::{Error, Result};

pub use divide::Holdout;

const STATE: &str = "pack-state.json";

/// How to pack.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PackOptions {
    /// The share of the text that is held out for validation, below 1; 0 for none.
    pub validation: f64,
    /// Where it is taken.
    pub holdout: Holdout,
    /// Whether each document is followed by the tokenizer's end of text, where it has one.
    pub end_of_text: bool,
    /// The most tokens in a file.
    pub shard_tokens: u64,
}

impl Default for PackOptions {
    fn default() -> Self {
        Self { validation: 0.1, holdout: Holdout::Text, end_of_text: true, shard_tokens: 100_000_000 }
    }
}

/// How far packing has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of text done, in UTF-8.
    pub text_bytes: u64,
    /// Bytes of text in all.
    pub total: u64,
    /// Tokens made.
    pub tokens: u64,
}

/// How packing ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Packed {
    /// The folder is whole.
    Finished(Box<Manifest>),
    /// It was stopped; called again it goes on behind the last whole shard.
    Stopped,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    tokenizer: Identity,
    options: PackOptions,
    sources: Vec<SourceFile>,
    train: Saved,
    validation: Saved,
}

/// Encodes the sources and writes `folder`, which is made where it is not there. Threads are those of the current
/// `rayon` pool; some MiB of text for each are in memory at once. `progress` is called now and then, and `stop` is looked
/// at as often. A folder that is whole already, of the same text, tokenizer and options, is left as it is.
///
/// # Errors
/// [`Error::Config`] for options out of range; [`Error::PackedOtherwise`] for a folder of other text, another tokenizer
/// or other options; what reading, encoding ([`Error::Sample`] with the file's name) and writing say.
pub fn pack(
    sources: &Sources,
    tokenizer: &dyn Tokenizer,
    folder: &Path,
    options: &PackOptions,
    mut progress: impl FnMut(Progress),
    stop: &AtomicBool,
) -> Result<Packed> {
    if !(0.0..1.0).contains(&options.validation) {
        return Err(Error::config("validation", options.validation, "a share from 0 to below 1 is expected"));
    }
    if options.shard_tokens == 0 || usize::try_from(options.shard_tokens).is_err() {
        return Err(Error::config("shard_tokens", options.shard_tokens, "at least 1 token a file is expected"));
    }
    let identity = tokenizer.identity();
    if folder.join(MANIFEST).exists() {
        let manifest = Manifest::read(folder)?;
        same(folder, (&manifest.tokenizer, &manifest.sources, &manifest.options), identity, sources, options)?;
        return Ok(Packed::Finished(Box::new(manifest)));
    }
    fs::create_dir_all(folder).map_err(Error::io(folder))?;
    let mut state = if folder.join(STATE).exists() {
        let state: State = manifest::read_json(&folder.join(STATE))?;
        same(folder, (&state.tokenizer, &state.sources, &state.options), identity, sources, options)?;
        state
    } else {
        State {
            tokenizer: identity.clone(),
            options: options.clone(),
            sources: sources.files().to_vec(),
            train: Saved::default(),
            validation: Saved::default(),
        }
    };
    manifest::write_json(&folder.join(STATE), &state)?;
    if let Some(definition) = tokenizer.definition() {
        manifest::write_json(&folder.join(DEFINITION), &definition)?;
    }

    // The sides may have come to different places; what a side has already is read again but not encoded.
    let places = [state.train.place, state.validation.place];
    let first = places[..sides(options)].iter().map(|place| (place.file, place.chunk)).min();
    let (file, chunk) = first.unwrap_or_default();
    let saved = [&state.train, &state.validation].into_iter().zip([Part::Train, Part::Validation]);
    let writer = |(saved, part): (&Saved, Part)| {
        Writer::new(folder.join(part.name()), identity.clone(), options.shard_tokens, saved.clone())
    };
    let mut writers = saved.take(sides(options)).map(writer).collect::<Result<Vec<_>>>()?;

    let division =
        Division { validation: options.validation, holdout: options.holdout, text_bytes: sources.text_bytes() };
    let end = tokenizer.end_of_text().filter(|_| options.end_of_text);
    let mut chunks = sources.chunks_from(file, chunk);
    loop {
        if stop.load(Ordering::Relaxed) {
            return Ok(Packed::Stopped);
        }
        let batch = chunks.by_ref().take(2 * rayon::current_num_threads()).collect::<Result<Vec<Chunk>>>()?;
        let Some(last) = batch.last() else { break };
        let encoded: Vec<[Encoded; 2]> = batch
            .par_iter()
            .map(|chunk| {
                let path = &sources.files()[chunk.file].path;
                let encode = |place: &Place, shares: &[Share<'_>]| {
                    if place.is_after(chunk.file, chunk.number) {
                        return Ok(Encoded::default());
                    }
                    encode(tokenizer, shares, end)
                };
                let shares = division.divide(chunk);
                let both =
                    encode(&places[0], &shares[0]).and_then(|train| Ok([train, encode(&places[1], &shares[1])?]));
                both.map_err(|source| Error::Sample { origin: path.display().to_string(), source: Box::new(source) })
            })
            .collect::<Result<_>>()?;
        let mut grown = false;
        for (chunk, encoded) in batch.iter().zip(&encoded) {
            for (writer, encoded) in writers.iter_mut().zip(encoded) {
                grown |= writer.take(chunk.file, chunk.number, encoded)?;
            }
        }
        if grown {
            let saved = [&mut state.train, &mut state.validation];
            saved.into_iter().zip(&writers).for_each(|(saved, writer)| *saved = writer.saved().clone());
            manifest::write_json(&folder.join(STATE), &state)?;
        }
        let done = last.start + last.pieces.iter().map(|piece| piece.text.len() as u64).sum::<u64>();
        let tokens = writers.iter().map(Writer::tokens).sum();
        progress(Progress { text_bytes: done, total: sources.text_bytes(), tokens });
    }
    finish(folder, state, writers, sources).map(|manifest| Packed::Finished(Box::new(manifest)))
}

fn sides(options: &PackOptions) -> usize {
    if options.validation > 0.0 { 2 } else { 1 }
}

fn finish(folder: &Path, state: State, writers: Vec<Writer>, sources: &Sources) -> Result<Manifest> {
    let mut parts = writers.into_iter().map(Writer::finish);
    let train = parts.next().transpose()?.unwrap_or_default();
    let validation = parts.next().transpose()?;
    let text_bytes = train.text_bytes.saturating_add(validation.as_ref().map_or(0, |part| part.text_bytes));
    if text_bytes != sources.text_bytes() {
        return Err(Error::Packed {
            path: folder.to_owned(),
            found: format!("{text_bytes} bytes of text were read"),
            expected: format!("{} were there when the files were looked at", sources.text_bytes()),
            advice: "the files changed meanwhile: remove the folder and pack anew",
        });
    }
    let State { tokenizer, options, sources, .. } = state;
    let manifest = Manifest { format: FORMAT, tokenizer, options, sources, train, validation };
    manifest::write_json(&folder.join(MANIFEST), &manifest)?;
    let state = folder.join(STATE);
    fs::remove_file(&state).map_err(Error::io(&state))?;
    Ok(manifest)
}

fn encode(tokenizer: &dyn Tokenizer, shares: &[Share<'_>], end: Option<u32>) -> Result<Encoded> {
    let mut encoded = Encoded::default();
    for share in shares {
        if share.begins {
            encoded.begins.push(encoded.ids.len());
        }
        let ids = tokenizer.encode(share.text).map_err(|error| match error {
            Error::UnknownCharacter { character, offset, vocabulary } => {
                Error::UnknownCharacter { character, offset: offset + share.offset, vocabulary }
            }
            other => other,
        })?;
        encoded.ids.extend(ids);
        encoded.ids.extend(end.filter(|_| share.ends));
        encoded.text_bytes += share.text.len() as u64;
    }
    Ok(encoded)
}

/// Refuses a folder of something else.
fn same(
    folder: &Path,
    there: (&Identity, &Vec<SourceFile>, &PackOptions),
    tokenizer: &Identity,
    sources: &Sources,
    options: &PackOptions,
) -> Result<()> {
    let refuse = |what, found: String, expected: String| {
        Err(Error::PackedOtherwise { folder: folder.to_owned(), what, found, expected })
    };
    let (old, files, before) = there;
    if (&old.sha256, old.vocabulary) != (&tokenizer.sha256, tokenizer.vocabulary) {
        return refuse("another tokenizer", old.to_string(), tokenizer.to_string());
    }
    let name = |file: Option<&SourceFile>| match file {
        Some(file) => {
            format!(
                "{} of {} bytes, sha256 {}...",
                file.path.display(),
                file.bytes,
                file.sha256.get(..12).unwrap_or_default()
            )
        }
        None => "nothing".into(),
    };
    for place in 0..files.len().max(sources.files().len()) {
        let (old, new) = (files.get(place), sources.files().get(place));
        if !old.zip(new).is_some_and(|(old, new)| old.same_text(new)) {
            return refuse("other text", format!("file {} is {}", place + 1, name(old)), name(new));
        }
    }
    if before != options {
        return refuse("the same text otherwise", format!("{before:?}"), format!("{options:?}"));
    }
    Ok(())
}
