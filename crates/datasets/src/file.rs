//! Reading files that may be compressed, damaged or hostile: gzip is told by its first two bytes, and memory grows
//! with the data that is really there, never with what a header declares.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;

use crate::{Error, Result};

/// The most that is read into memory from one file: 4 GiB, five times the largest set of the MNIST family.
const MOST: u64 = 4 << 30;

/// A file being read front to back.
pub(crate) struct Source {
    path: PathBuf,
    reader: Box<dyn Read>,
    compressed: bool,
}

impl Source {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let mut file = BufReader::with_capacity(1 << 16, File::open(path).map_err(Error::io(path))?);
        let compressed = file.fill_buf().map_err(Error::io(path))?.starts_with(&[0x1f, 0x8b]);
        let reader: Box<dyn Read> = if compressed { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
        Ok(Self { path: path.to_owned(), reader, compressed })
    }

    /// The next `bytes` bytes; `None` stands for a number past 64 bits. `whose` names them in an error.
    pub(crate) fn exact(&mut self, bytes: Option<u64>, whose: &str) -> Result<Vec<u8>> {
        let wanted = bytes.unwrap_or(u64::MAX);
        if wanted > MOST {
            let (path, reason) = (self.path.clone(), "the most that is held in memory");
            return Err(Error::TooLarge { path, declared: wanted, limit: MOST, reason });
        }
        let mut data = Vec::new();
        let read = (&mut self.reader).take(wanted).read_to_end(&mut data);
        read.map_err(|source| self.failed(source))?;
        if (data.len() as u64) < wanted {
            let found = format!("{whose} holds {} bytes", data.len());
            return Err(Error::Length { path: self.path.clone(), found, expected: format!("{wanted} are expected") });
        }
        Ok(data)
    }

    /// Appends up to `bytes` bytes; fewer come at the end alone, where the checksum of a gzip stream is checked.
    #[cfg(feature = "text")]
    pub(crate) fn append(&mut self, bytes: usize, data: &mut Vec<u8>) -> Result<usize> {
        let read = (&mut self.reader).take(bytes as u64).read_to_end(data);
        read.map_err(|source| self.failed(source))
    }

    /// Everything up to the end, which also checks the checksum of a gzip stream.
    pub(crate) fn rest(&mut self) -> Result<Vec<u8>> {
        let mut data = Vec::new();
        let read = (&mut self.reader).take(MOST + 1).read_to_end(&mut data);
        read.map_err(|source| self.failed(source))?;
        if data.len() as u64 > MOST {
            let (path, reason) = (self.path.clone(), "the most that is held in memory");
            return Err(Error::TooLarge { path, declared: MOST + 1, limit: MOST, reason });
        }
        Ok(data)
    }

    /// Checks that the file ends here.
    pub(crate) fn end(mut self, declared: &str) -> Result<()> {
        let mut byte = Vec::new();
        let read = (&mut self.reader).take(1).read_to_end(&mut byte);
        read.map_err(|source| self.failed(source))?;
        if byte.is_empty() {
            return Ok(());
        }
        let found = format!("it goes on past the {declared} that its header declares");
        Err(Error::Length { path: self.path, found, expected: "it should end there".into() })
    }

    fn failed(&self, source: std::io::Error) -> Error {
        let path = self.path.clone();
        if self.compressed { Error::Gzip { path, source } } else { Error::Io { path, source } }
    }
}
