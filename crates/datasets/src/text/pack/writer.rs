//! One side of a pack, train or validation: tokens in, whole shards out, and the place from which it goes on after an
//! interruption.

use std::fs::{self, File};
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::text::manifest::{self, PartInfo, ShardInfo};
use crate::text::tokenizer::Identity;
use crate::text::{hash, shard};
use crate::{Error, Result};

/// A shard while it is being written.
const BESIDE: &str = "tokens.tmp";

/// What a side has on the disk, and the place in the text behind its last token there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Saved {
    /// Whole shards; text bytes and documents are those before the place, which the chunk itself is not part of.
    pub(super) part: PartInfo,
    pub(super) place: Place,
}

/// A place in the stream of tokens: a chunk, and how many of its tokens lie before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Place {
    pub(super) file: usize,
    pub(super) chunk: u64,
    tokens: u64,
    /// Whether at the beginning of the chunk a document has begun whose first token is still to come.
    begun: bool,
}

impl Place {
    /// Whether all of a chunk lies before it.
    pub(super) fn is_after(&self, file: usize, chunk: u64) -> bool {
        (self.file, self.chunk) > (file, chunk)
    }

    fn is_in(&self, file: usize, chunk: u64) -> bool {
        (self.file, self.chunk) == (file, chunk)
    }
}

/// A chunk's tokens for one side.
#[derive(Debug, Default)]
pub(super) struct Encoded {
    pub(super) ids: Vec<u32>,
    /// Where in `ids` documents begin; one at the end begins with the next token, whichever chunk that is in.
    pub(super) begins: Vec<usize>,
    pub(super) text_bytes: u64,
}

/// Writes one side.
pub(super) struct Writer {
    folder: PathBuf,
    identity: Identity,
    width: usize,
    shard_tokens: u64,
    saved: Saved,
    /// What the saved counts become with the chunks taken since.
    text_bytes: u64,
    open: Option<BufWriter<File>>,
    in_shard: u64,
    documents: Vec<u64>,
    begun: bool,
}

impl Writer {
    pub(super) fn new(folder: PathBuf, identity: Identity, shard_tokens: u64, saved: Saved) -> Result<Self> {
        fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
        let unfinished = folder.join(BESIDE);
        if unfinished.exists() {
            fs::remove_file(&unfinished).map_err(Error::io(&unfinished))?;
        }
        Ok(Self {
            folder,
            width: shard::width(identity.vocabulary),
            identity,
            shard_tokens,
            text_bytes: saved.part.text_bytes,
            begun: saved.place.begun,
            saved,
            open: None,
            in_shard: 0,
            documents: Vec::new(),
        })
    }

    pub(super) fn saved(&self) -> &Saved {
        &self.saved
    }

    /// Tokens so far.
    pub(super) fn tokens(&self) -> u64 {
        self.saved.part.tokens.saturating_add(self.in_shard)
    }

    /// Takes a chunk; the chunks before the place it goes on from are passed over. True if a shard became whole.
    pub(super) fn take(&mut self, file: usize, chunk: u64, encoded: &Encoded) -> Result<bool> {
        if self.saved.place.is_after(file, chunk) {
            return Ok(false);
        }
        // Tokens of this chunk that a shard on the disk holds already. Both of what is about the chunk as a whole, its
        // bytes and whether a document had begun before it, stand in the place as they were before the chunk.
        let mut done = if self.saved.place.is_in(file, chunk) { self.saved.place.tokens as usize } else { 0 };
        if done > encoded.ids.len() {
            return Err(Error::Packed {
                path: self.folder.clone(),
                found: format!("of chunk {chunk} of file {file} {done} tokens are said to be packed"),
                expected: format!("it has {}", encoded.ids.len()),
                advice: "the state of an interrupted pack is damaged: remove the folder and pack anew",
            });
        }
        let (before, begun) = (self.text_bytes, self.begun);
        let mut begins: Vec<usize> = begun.then_some(0).into_iter().chain(encoded.begins.iter().copied()).collect();
        begins.dedup();
        self.begun = begins.pop_if(|begin| *begin == encoded.ids.len()).is_some();
        let mut shards = 0;
        loop {
            let room = (self.shard_tokens - self.in_shard) as usize;
            let end = encoded.ids.len().min(done.saturating_add(room));
            let new = begins.iter().filter(|begin| (done..end).contains(begin));
            let first = self.tokens();
            self.documents.extend(new.map(|begin| first + (begin - done) as u64));
            self.write(&encoded.ids[done..end])?;
            done = end;
            if self.in_shard < self.shard_tokens {
                break;
            }
            self.saved.part.text_bytes = before;
            self.saved.place = Place { file, chunk, tokens: done as u64, begun };
            self.close()?;
            shards += 1;
        }
        self.text_bytes = before.saturating_add(encoded.text_bytes);
        if self.in_shard == 0 {
            // All there is of this side so far is on the disk: it need not come back to this chunk.
            self.saved.part.text_bytes = self.text_bytes;
            self.saved.place = Place { file, chunk: chunk + 1, tokens: 0, begun: self.begun };
        }
        Ok(shards > 0)
    }

    fn write(&mut self, ids: &[u32]) -> Result<()> {
        if ids.is_empty() {
            return Ok(());
        }
        let path = self.beside();
        if let Some(position) = ids.iter().position(|id| *id as usize >= self.identity.vocabulary) {
            return Err(Error::UnknownToken {
                id: ids[position],
                position,
                tokenizer: self.identity.name.clone(),
                vocabulary: self.identity.vocabulary,
            });
        }
        let mut bytes = Vec::with_capacity(ids.len() * self.width);
        match self.width {
            2 => ids.iter().for_each(|id| bytes.extend((*id as u16).to_le_bytes())),
            _ => ids.iter().for_each(|id| bytes.extend(id.to_le_bytes())),
        }
        let mut write = || {
            let file = match &mut self.open {
                Some(file) => file,
                None => {
                    let mut file = BufWriter::with_capacity(1 << 20, File::create(&path)?);
                    // The count is put in when the shard is whole.
                    file.write_all(&shard::header(0, &self.identity))?;
                    self.open.insert(file)
                }
            };
            file.write_all(&bytes)
        };
        write().map_err(Error::io(&path))?;
        self.in_shard += ids.len() as u64;
        Ok(())
    }

    fn beside(&self) -> PathBuf {
        self.folder.join(BESIDE)
    }

    /// Makes the open shard whole.
    fn close(&mut self) -> Result<()> {
        let Some(file) = self.open.take() else { return Ok(()) };
        let number = self.saved.part.shards.len();
        let (beside, path) = (self.beside(), self.folder.join(shard::tokens_name(number)));
        let finish = |file: BufWriter<File>| {
            let mut file = file.into_inner().map_err(std::io::IntoInnerError::into_error)?;
            file.seek(SeekFrom::Start(0))?;
            file.write_all(&shard::header(self.in_shard, &self.identity))?;
            file.sync_all()?;
            fs::rename(&beside, &path)
        };
        finish(file).map_err(Error::io(&path))?;
        let positions: Vec<u8> = self.documents.iter().flat_map(|position| position.to_le_bytes()).collect();
        let documents_sha256 = manifest::write(&self.folder.join(shard::documents_name(number)), &positions)?;
        let info = ShardInfo {
            tokens: self.in_shard,
            sha256: hash::of_file(&path)?,
            documents: self.documents.len() as u64,
            documents_sha256,
        };
        self.saved.part.tokens = self.saved.part.tokens.saturating_add(info.tokens);
        self.saved.part.documents = self.saved.part.documents.saturating_add(info.documents);
        self.saved.part.shards.push(info);
        (self.in_shard, self.documents) = (0, Vec::new());
        Ok(())
    }

    /// Closes the last shard, which may be short; there is no more text.
    pub(super) fn finish(mut self) -> Result<PartInfo> {
        self.close()?;
        self.saved.part.text_bytes = self.text_bytes;
        remove_later(&self.folder, self.saved.part.shards.len())?;
        Ok(self.saved.part)
    }
}

/// Removes shards past the last one, which an earlier, interrupted pack of something longer may have left.
fn remove_later(folder: &Path, first: usize) -> Result<()> {
    for number in first.. {
        let both = [shard::tokens_name(number), shard::documents_name(number)].map(|name| folder.join(name));
        let there: Vec<&PathBuf> = both.iter().filter(|path| path.exists()).collect();
        if there.is_empty() {
            break;
        }
        for path in there {
            fs::remove_file(path).map_err(Error::io(path))?;
        }
    }
    Ok(())
}
