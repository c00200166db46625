//! Text streamed in bounded memory: plain files in pieces of about a MiB that end where a tokenizer would part words
//! anyway, files of JSON lines as their documents, about a MiB of them at once.

use std::path::{Path, PathBuf};

use memchr::{memchr, memrchr_iter};
use serde_json::Value;

use super::source::{Encoding, SourceFile};
use crate::file::Source;
use crate::{Error, Result};

/// Where a chunk ends if it can.
const CHUNK: usize = 1 << 20;
/// How far before that it may end.
const BACK: usize = 1 << 18;
/// No line of JSON is longer.
const LONGEST_LINE: usize = 1 << 28;

const JSON_LINE: &str = r#"a line is an object with the document under "text", as in {"text": "..."}"#;

/// A document, or a part of a long one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Its text.
    pub text: String,
    /// The bytes of its document before it.
    pub offset: u64,
    /// The bytes of its document, where they are known: in what [`Sources::chunks`](super::Sources::chunks) gives,
    /// always.
    pub document_bytes: u64,
}

/// What is read, and encoded, at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// The number of its file.
    pub file: usize,
    /// Its number in the file.
    pub number: u64,
    /// The bytes of all text before it.
    pub start: u64,
    /// Its documents, or the part of one.
    pub pieces: Vec<Piece>,
}

/// The chunks of all files, in order; it ends after the first error.
pub struct Chunks<'a> {
    files: &'a [SourceFile],
    file: usize,
    number: u64,
    start: u64,
    skip: u64,
    open: Option<FileChunks>,
    failed: bool,
}

impl<'a> Chunks<'a> {
    pub(super) fn new(files: &'a [SourceFile], file: usize, skip: u64) -> Self {
        let start = files.iter().take(file).map(|file| file.text_bytes).sum();
        Self { files, file, number: 0, start, skip, open: None, failed: false }
    }

    fn advance(&mut self) -> Result<Option<Chunk>> {
        while let Some(file) = self.files.get(self.file) {
            if self.open.is_none() {
                self.open = Some(FileChunks::open(&file.path, file.encoding)?);
            }
            let Some(pieces) = self.open.as_mut().and_then(Iterator::next) else {
                (self.open, self.number, self.skip) = (None, 0, 0);
                self.file += 1;
                continue;
            };
            let mut pieces = pieces?;
            if !SourceFile::is_json_lines(&file.path) {
                pieces.iter_mut().for_each(|piece| piece.document_bytes = file.text_bytes);
            }
            let chunk = Chunk { file: self.file, number: self.number, start: self.start, pieces };
            self.number += 1;
            self.start += chunk.pieces.iter().map(|piece| piece.text.len() as u64).sum::<u64>();
            if chunk.number >= self.skip {
                return Ok(Some(chunk));
            }
        }
        Ok(None)
    }
}

impl Iterator for Chunks<'_> {
    type Item = Result<Chunk>;

    fn next(&mut self) -> Option<Result<Chunk>> {
        if self.failed {
            return None;
        }
        let next = self.advance().transpose();
        self.failed = matches!(next, Some(Err(_)));
        next
    }
}

/// The chunks of one file.
pub(super) struct FileChunks {
    path: PathBuf,
    source: Source,
    encoding: Encoding,
    json: bool,
    buffer: Vec<u8>,
    /// How much of the buffer has been taken.
    taken: usize,
    ended: bool,
    /// Bytes of the file taken.
    passed: u64,
    /// Bytes of text taken.
    text: u64,
    lines: usize,
}

impl FileChunks {
    pub(super) fn open(path: &Path, encoding: Encoding) -> Result<Self> {
        let mut chunks = Self {
            path: path.to_owned(),
            source: Source::open(path)?,
            encoding,
            json: SourceFile::is_json_lines(path),
            buffer: Vec::new(),
            taken: 0,
            ended: false,
            passed: 0,
            text: 0,
            lines: 0,
        };
        chunks.fill(2 * CHUNK)?;
        if encoding == Encoding::Utf8 && chunks.waiting().starts_with("\u{feff}".as_bytes()) {
            chunks.hand_out(3);
        }
        Ok(chunks)
    }

    /// Reads until so many bytes are waiting or the file ends.
    fn fill(&mut self, bytes: usize) -> Result<()> {
        let missing = bytes.saturating_sub(self.waiting().len());
        if missing > 0 && !self.ended {
            self.buffer.drain(..self.taken);
            self.taken = 0;
            self.ended = self.source.append(missing, &mut self.buffer)? < missing;
        }
        Ok(())
    }

    fn waiting(&self) -> &[u8] {
        &self.buffer[self.taken..]
    }

    fn hand_out(&mut self, bytes: usize) -> Vec<u8> {
        let begin = self.taken;
        self.taken += bytes;
        self.passed += bytes as u64;
        self.buffer[begin..self.taken].to_vec()
    }

    fn decode(&self, bytes: Vec<u8>) -> Result<String> {
        if self.encoding == Encoding::Latin1 {
            return Ok(bytes.into_iter().map(char::from).collect());
        }
        String::from_utf8(bytes).map_err(|error| {
            let begin = self.passed - error.as_bytes().len() as u64;
            Error::NotUtf8 { path: self.path.clone(), offset: begin + error.utf8_error().valid_up_to() as u64 }
        })
    }

    fn plain(&mut self) -> Result<Option<Vec<Piece>>> {
        self.fill(2 * CHUNK)?;
        let waiting = self.waiting();
        if waiting.is_empty() {
            return Ok(None);
        }
        let end = if waiting.len() <= CHUNK { waiting.len() } else { cut(waiting) };
        let bytes = self.hand_out(end);
        let text = self.decode(bytes)?;
        let offset = self.text;
        self.text += text.len() as u64;
        Ok(Some(vec![Piece { text, offset, document_bytes: 0 }]))
    }

    fn documents(&mut self) -> Result<Option<Vec<Piece>>> {
        let (mut pieces, mut bytes) = (Vec::new(), 0);
        while bytes < CHUNK {
            let Some(line) = self.line()? else { break };
            self.lines += 1;
            if line.trim_ascii().is_empty() {
                continue;
            }
            let line = self.decode(line)?;
            let problem =
                |reason: String| Error::Line { path: self.path.clone(), line: self.lines, reason, expected: JSON_LINE };
            let value: Value = serde_json::from_str(&line).map_err(|error| problem(format!("no JSON ({error})")))?;
            let text = match value {
                Value::Object(mut fields) => match fields.remove("text") {
                    Some(Value::String(text)) => text,
                    Some(_) => return Err(problem("\"text\" is no string".into())),
                    None => return Err(problem("there is no \"text\"".into())),
                },
                _ => return Err(problem("it is no object".into())),
            };
            bytes += text.len();
            pieces.push(Piece { document_bytes: text.len() as u64, text, offset: 0 });
        }
        Ok(if pieces.is_empty() { None } else { Some(pieces) })
    }

    /// The next line with its end; `None` after the last.
    fn line(&mut self) -> Result<Option<Vec<u8>>> {
        let mut searched = 0;
        loop {
            if let Some(end) = memchr(b'\n', &self.waiting()[searched..]) {
                return Ok(Some(self.hand_out(searched + end + 1)));
            }
            searched = self.waiting().len();
            if self.ended {
                return Ok(if searched == 0 { None } else { Some(self.hand_out(searched)) });
            }
            if searched > LONGEST_LINE {
                let reason = format!("it goes on past {LONGEST_LINE} bytes");
                return Err(Error::Line { path: self.path.clone(), line: self.lines + 1, reason, expected: JSON_LINE });
            }
            self.fill(searched + CHUNK)?;
        }
    }
}

impl Iterator for FileChunks {
    type Item = Result<Vec<Piece>>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = if self.json { self.documents() } else { self.plain() };
        next.transpose()
    }
}

/// Where to end a chunk of a buffer longer than one: after the last line end between two characters that are no
/// spaces, since runs of spaces may be one token; failing that after the last line end, the last space, or the last
/// whole character.
fn cut(buffer: &[u8]) -> usize {
    let area = &buffer[CHUNK - BACK..CHUNK];
    let ends = |byte: u8| memrchr_iter(byte, area).map(|at| CHUNK - BACK + at + 1);
    let alone =
        |end: &usize| *end >= 2 && !buffer[end - 2].is_ascii_whitespace() && !buffer[*end].is_ascii_whitespace();
    if let Some(end) = ends(b'\n').find(alone).or_else(|| ends(b'\n').next()) {
        return end;
    }
    // a space belongs to the word after it
    if let Some(end) = ends(b' ').next() {
        return end - 1;
    }
    let begins = |at: &usize| buffer[*at] & 0xc0 != 0x80;
    (CHUNK - 3..=CHUNK).rev().find(begins).unwrap_or(CHUNK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_end_where_words_part() {
        let mut buffer = vec![b'a'; 2 * CHUNK];
        assert_eq!(cut(&buffer), CHUNK);
        buffer[CHUNK - 1..CHUNK + 3].copy_from_slice("😀".as_bytes());
        assert_eq!(cut(&buffer), CHUNK - 1);
        buffer[CHUNK - 100] = b' ';
        assert_eq!(cut(&buffer), CHUNK - 100);
        buffer[CHUNK - 200..CHUNK - 198].copy_from_slice(b"\n\n");
        assert_eq!(cut(&buffer), CHUNK - 198);
        buffer[CHUNK - 300] = b'\n';
        assert_eq!(cut(&buffer), CHUNK - 299);
    }
}
