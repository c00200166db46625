//! Which text there is: files found, opened and surveyed once (size, hash, encoding, length), before anything is made
//! of them. The text itself is streamed by [`Chunks`].

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::chunks::{Chunks, FileChunks};
use super::hash;
use crate::{Error, Result};

/// How a file's bytes become text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    /// UTF-8; a byte order mark at the beginning is left out.
    Utf8,
    /// Each byte is the character of that code point, so that nothing is lost.
    Latin1,
}

/// One file of text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceFile {
    /// Where it lies.
    pub path: PathBuf,
    /// Its size on the disk.
    pub bytes: u64,
    /// Its hash as it lies on the disk.
    pub sha256: String,
    /// How it is decoded.
    pub encoding: Encoding,
    /// The bytes of its text in UTF-8.
    pub text_bytes: u64,
    /// The documents in it: the lines of a `.jsonl`, else one.
    pub documents: u64,
}

impl SourceFile {
    /// Whether its lines are JSON objects.
    pub(super) fn is_json_lines(path: &Path) -> bool {
        ending(path) == Some("jsonl")
    }

    /// Whether this is the same text, wherever it lies.
    pub(super) fn same_text(&self, other: &Self) -> bool {
        (self.path.file_name(), self.bytes, &self.sha256, self.encoding)
            == (other.path.file_name(), other.bytes, &other.sha256, other.encoding)
    }
}

/// Text files in order: `.txt` and `.jsonl` (one object with the text under `text` a line), each also as `.gz`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sources(Vec<SourceFile>);

impl Sources {
    /// Finds and surveys the files: a path that is a folder stands for the text files in it, by name. With `latin1`,
    /// plain files that are not UTF-8 are decoded as Latin-1.
    ///
    /// Each file is read twice, by and by, for its hash and its length; nothing is kept of it.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::Gzip`] for what cannot be read, [`Error::Missing`] for a folder without text files,
    /// [`Error::Empty`] for a file without text, [`Error::NotUtf8`] for one in another encoding, [`Error::Line`] for a
    /// line of a `.jsonl` that is no object with a `text`.
    pub fn open<P: AsRef<Path>>(paths: impl IntoIterator<Item = P>, latin1: bool) -> Result<Self> {
        let mut files = Vec::new();
        for path in paths {
            let path = path.as_ref();
            if fs::metadata(path).map_err(Error::io(path))?.is_dir() {
                files.extend(in_folder(path)?);
            } else {
                files.push(path.to_owned());
            }
        }
        if files.is_empty() {
            return Err(Error::Empty { origin: "the list of texts".into(), what: "names 0 files".into() });
        }
        files.iter().map(|path| survey(path, latin1)).collect::<Result<_>>().map(Self)
    }

    /// The files, in order.
    pub fn files(&self) -> &[SourceFile] {
        &self.0
    }

    /// The bytes of all text in UTF-8.
    pub fn text_bytes(&self) -> u64 {
        self.0.iter().map(|file| file.text_bytes).sum()
    }

    /// The documents in all files.
    pub fn documents(&self) -> u64 {
        self.0.iter().map(|file| file.documents).sum()
    }

    /// All text, front to back, in pieces of about a MiB.
    pub fn chunks(&self) -> Chunks<'_> {
        self.chunks_from(0, 0)
    }

    /// The text from a chunk of a file on. Files before it are not read.
    pub(super) fn chunks_from(&self, file: usize, chunk: u64) -> Chunks<'_> {
        Chunks::new(&self.0, file, chunk)
    }
}

fn ending(path: &Path) -> Option<&str> {
    let name = path.file_name()?.to_str()?;
    name.strip_suffix(".gz").unwrap_or(name).rsplit_once('.').map(|(_, ending)| ending)
}

fn in_folder(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(Error::io(folder))? {
        let path = entry.map_err(Error::io(folder))?.path();
        if matches!(ending(&path), Some("txt" | "jsonl")) && path.is_file() {
            files.push(path);
        }
    }
    if files.is_empty() {
        return Err(Error::Missing {
            set: "text".into(),
            dir: folder.to_owned(),
            looked_for: "*.txt, *.txt.gz, *.jsonl, *.jsonl.gz".into(),
            how: "put text files there, or name them one by one".into(),
        });
    }
    files.sort();
    Ok(files)
}

fn survey(path: &Path, latin1: bool) -> Result<SourceFile> {
    let bytes = fs::metadata(path).map_err(Error::io(path))?.len();
    let sha256 = hash::of_file(path)?;
    let mut encoding = Encoding::Utf8;
    let mut measured = measure(path, encoding);
    if latin1 && matches!(measured, Err(Error::NotUtf8 { .. })) && !SourceFile::is_json_lines(path) {
        encoding = Encoding::Latin1;
        measured = measure(path, encoding);
    }
    let (text_bytes, documents) = measured?;
    if text_bytes == 0 {
        return Err(Error::Empty { origin: path.display().to_string(), what: "holds 0 characters of text".into() });
    }
    Ok(SourceFile { path: path.to_owned(), bytes, sha256, encoding, text_bytes, documents })
}

fn measure(path: &Path, encoding: Encoding) -> Result<(u64, u64)> {
    let (mut text_bytes, mut documents) = (0, 0);
    for pieces in FileChunks::open(path, encoding)? {
        for piece in pieces? {
            text_bytes += piece.text.len() as u64;
            documents += u64::from(piece.offset == 0);
        }
    }
    Ok((text_bytes, documents))
}
