//! Packed tokens, read by position: what windows are cut from.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::manifest::{Manifest, PartInfo};
use super::tokenizer::{Identity, Tokenizer};
use super::{Part, hash, shard};
use crate::{Error, Result};

/// The tokens of a part of a text, on the disk or in memory. Reading is by position, from any thread.
#[derive(Debug)]
pub struct TokenSet {
    identity: Identity,
    tokens: u64,
    text_bytes: u64,
    store: Store,
}

#[derive(Debug)]
enum Store {
    Memory { ids: Vec<u32>, documents: Vec<u64> },
    Disk { folder: PathBuf, part: Part, info: PartInfo, shards: Vec<Shard> },
}

#[derive(Debug)]
struct Shard {
    file: File,
    path: PathBuf,
    start: u64,
    tokens: u64,
}

impl TokenSet {
    /// Opens a part of a folder that [`pack`](super::pack()) made, and checks that its files are there, whole and of one
    /// tokenizer; [`TokenSet::verify`] reads them as well.
    ///
    /// # Errors
    /// [`Error::Missing`] for a folder without manifest or a part that it does not have; [`Error::Packed`] for a file that
    /// is damaged, cut short, or of something else.
    pub fn open(folder: &Path, part: Part) -> Result<Self> {
        let manifest = Manifest::read(folder)?;
        let Some(info) = manifest.part(part).cloned() else {
            return Err(Error::Missing {
                set: format!("the {part} part of packed tokens"),
                dir: folder.to_owned(),
                looked_for: part.name().into(),
                how: "pack the text with a validation share above 0; there is never a test part".into(),
            });
        };
        let identity = manifest.tokenizer;
        let mut shards = Vec::with_capacity(info.shards.len());
        let mut start = 0;
        for (number, shard) in info.shards.iter().enumerate() {
            let path = folder.join(part.name()).join(shard::tokens_name(number));
            let file = shard::open(&path, shard.tokens, &identity)?;
            shards.push(Shard { file, path, start, tokens: shard.tokens });
            start += shard.tokens;
        }
        let (tokens, text_bytes) = (info.tokens, info.text_bytes);
        Ok(Self { identity, tokens, text_bytes, store: Store::Disk { folder: folder.to_owned(), part, info, shards } })
    }

    /// A set in memory. `documents` are the positions at which documents begin.
    ///
    /// # Errors
    /// [`Error::UnknownToken`] for an id that is not below the tokenizer's vocabulary; [`Error::Config`] for documents
    /// that do not begin one after the other within the tokens.
    pub fn from_ids(ids: Vec<u32>, documents: Vec<u64>, text_bytes: u64, identity: Identity) -> Result<Self> {
        check_ids(&ids, &identity)?;
        let ordered = documents.windows(2).all(|pair| pair[0] < pair[1]);
        if !ordered || documents.last().is_some_and(|last| *last >= ids.len() as u64) {
            let expected = format!("growing positions below the {} tokens are expected", ids.len());
            return Err(Error::config("documents", format!("{documents:?}"), expected));
        }
        Ok(Self { identity, tokens: ids.len() as u64, text_bytes, store: Store::Memory { ids, documents } })
    }

    /// A text in memory, as one document and without an end of text.
    ///
    /// # Errors
    /// What the tokenizer says.
    pub fn from_text(text: &str, tokenizer: &dyn Tokenizer) -> Result<Self> {
        let ids = tokenizer.encode(text)?;
        let documents = if ids.is_empty() { vec![] } else { vec![0] };
        Self::from_ids(ids, documents, text.len() as u64, tokenizer.identity().clone())
    }

    /// How many tokens there are.
    pub fn len(&self) -> u64 {
        self.tokens
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.tokens == 0
    }

    /// The bytes, in UTF-8, of the text that the tokens stand for.
    pub fn bytes_of_text(&self) -> u64 {
        self.text_bytes
    }

    /// Whose ids they are.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The tokens from position `start` on, as many as `out` has room for, across files.
    ///
    /// # Errors
    /// [`Error::Index`] where the set ends before; [`Error::Io`] where reading fails.
    pub fn read(&self, start: u64, out: &mut [u32]) -> Result<()> {
        let end = start.checked_add(out.len() as u64).filter(|end| *end <= self.tokens);
        let Some(end) = end else {
            let index = start.saturating_add(out.len() as u64).saturating_sub(1);
            return Err(Error::Index { index: index as usize, len: self.tokens as usize });
        };
        match &self.store {
            Store::Memory { ids, .. } => out.copy_from_slice(&ids[start as usize..end as usize]),
            Store::Disk { shards, .. } => {
                let width = shard::width(self.identity.vocabulary);
                let mut buffer = vec![0; out.len() * width];
                let (mut at, mut rest) = (start, &mut buffer[..]);
                let first = shards.partition_point(|shard| shard.start + shard.tokens <= start);
                for shard in &shards[first..] {
                    let here = (end.min(shard.start + shard.tokens) - at) as usize * width;
                    let (now, later) = rest.split_at_mut(here);
                    let offset = shard::HEADER as u64 + (at - shard.start) * width as u64;
                    shard.file.read_exact_at(now, offset).map_err(Error::io(&shard.path))?;
                    (at, rest) = (shard.start + shard.tokens, later);
                    if at >= end {
                        break;
                    }
                }
                for (id, bytes) in out.iter_mut().zip(buffer.chunks_exact(width)) {
                    *id = bytes.iter().rev().fold(0, |id, byte| id << 8 | u32::from(*byte));
                }
            }
        }
        Ok(())
    }

    /// The positions at which documents begin.
    ///
    /// # Errors
    /// [`Error::Io`], and [`Error::Packed`] for a file of another size than the manifest says.
    pub fn documents(&self) -> Result<Vec<u64>> {
        let (folder, part, info) = match &self.store {
            Store::Memory { documents, .. } => return Ok(documents.clone()),
            Store::Disk { folder, part, info, .. } => (folder, part, info),
        };
        let mut all = Vec::new();
        for (number, shard) in info.shards.iter().enumerate() {
            let path = folder.join(part.name()).join(shard::documents_name(number));
            let bytes = fs::read(&path).map_err(Error::io(&path))?;
            if Some(bytes.len() as u64) != shard.documents.checked_mul(8) {
                let found = format!("it holds {} bytes", bytes.len());
                return Err(damaged(
                    path,
                    found,
                    format!("the positions of {} documents have 8 each", shard.documents),
                ));
            }
            let (positions, _) = bytes.as_chunks::<8>();
            all.extend(positions.iter().map(|position| u64::from_le_bytes(*position)));
        }
        Ok(all)
    }

    /// The tokenizer that the tokens were packed with, made from the definition in the folder.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] for a set in memory and for a tokenizer of one's own, neither of which has a definition;
    /// [`Error::Packed`] where the definition is not that of the tokens.
    pub fn tokenizer(&self) -> Result<Arc<dyn Tokenizer>> {
        let folder = match &self.store {
            Store::Memory { .. } => None,
            Store::Disk { folder, .. } => Some(folder),
        };
        let definition = folder.map(|folder| Manifest::definition(folder)).transpose()?.flatten();
        let (Some(folder), Some(definition)) = (folder, definition) else {
            return Err(Error::Tokenizer {
                tokenizer: self.identity.to_string(),
                reason: "no definition of it is kept beside the tokens".into(),
                advice: "use the one that made them".into(),
            });
        };
        let tokenizer = definition.open()?;
        let found = tokenizer.identity();
        if (&found.sha256, found.vocabulary) != (&self.identity.sha256, self.identity.vocabulary) {
            let path = folder.join(super::manifest::DEFINITION);
            return Err(damaged(path, format!("it makes {found}"), format!("the tokens are of {}", self.identity)));
        }
        Ok(tokenizer)
    }

    /// Reads all files and compares their hashes with the manifest's, and each id with the vocabulary.
    ///
    /// # Errors
    /// [`Error::Packed`] for a file of another hash.
    pub fn verify(&self) -> Result<()> {
        let (folder, part, info) = match &self.store {
            Store::Memory { .. } => return Ok(()),
            Store::Disk { folder, part, info, .. } => (folder.join(part.name()), part, info),
        };
        for (number, shard) in info.shards.iter().enumerate() {
            let both =
                [(shard::tokens_name(number), &shard.sha256), (shard::documents_name(number), &shard.documents_sha256)];
            for (name, expected) in both {
                let path = folder.join(name);
                let found = hash::of_file(&path)?;
                if found != *expected {
                    let expected = format!("the manifest says {expected} for this file of the {part} part");
                    return Err(damaged(path, format!("its sha256 is {found}"), expected));
                }
            }
        }
        let mut ids = vec![0; 1 << 16];
        let mut at = 0;
        while at < self.tokens {
            let count = (self.tokens - at).min(ids.len() as u64) as usize;
            self.read(at, &mut ids[..count])?;
            check_ids(&ids[..count], &self.identity)?;
            at += count as u64;
        }
        Ok(())
    }
}

fn check_ids(ids: &[u32], identity: &Identity) -> Result<()> {
    match ids.iter().position(|id| *id as usize >= identity.vocabulary) {
        None => Ok(()),
        Some(position) => Err(Error::UnknownToken {
            id: ids[position],
            position,
            tokenizer: identity.name.clone(),
            vocabulary: identity.vocabulary,
        }),
    }
}

fn damaged(path: PathBuf, found: String, expected: String) -> Error {
    let advice = "the file is damaged or comes from another folder: pack the text anew, or copy the folder again";
    Error::Packed { path, found, expected, advice }
}
