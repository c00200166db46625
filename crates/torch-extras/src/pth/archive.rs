//! The zip archive around a checkpoint: what kind of file this is, and bytes of its entries, never more than the file holds.
//!
//! torch stores entries uncompressed, so an entry is as long as its share of the file. Compressed entries are refused: what they
//! unfold to has no bound that the file's length would give.

use std::fs::File;
use std::io::{BufReader, Read, Seek};

use zip::{CompressionMethod, ZipArchive};

use super::error::Problem;

/// The magic number 0x1950a86a20f9469cfc6c with which torch before 1.6 began, as a pickled long.
const LEGACY_MAGIC: &[u8] = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.";

/// A checkpoint's archive, open for reading.
#[derive(Debug)]
pub(super) struct Archive {
    zip: ZipArchive<BufReader<File>>,
    /// The folder that all entries lie in, with its slash.
    prefix: String,
    file_len: u64,
}

impl Archive {
    pub fn open(file: File, file_len: u64) -> Result<Self, Problem> {
        let mut reader = BufReader::new(file);
        if let Some(what) = foreign_format(&mut reader, file_len)? {
            return Err(Problem::Format(what));
        }
        let zip = ZipArchive::new(reader)?;
        if zip.has_duplicate_names() {
            return Err(Problem::Format("two entries of the archive bear the same name".into()));
        }
        let mut archive = Self { prefix: prefix(&zip)?, zip, file_len };
        if let Some(order) = archive.read_if_there("byteorder")?
            && order.trim_ascii() != b"little"
        {
            let order = String::from_utf8_lossy(&order).into_owned();
            return Err(Problem::Format(format!(
                "its byte order is {order:?}, and only little-endian files are read: save it again on a little-endian machine"
            )));
        }
        Ok(archive)
    }

    pub fn file_len(&self) -> u64 {
        self.file_len
    }

    /// The bytes of `<prefix><name>`, checked against the entry's checksum.
    pub fn read(&mut self, name: &str) -> Result<Vec<u8>, Problem> {
        let entry = format!("{}{name}", self.prefix);
        self.read_if_there(name)?.ok_or(Problem::Entry { entry, found: "is missing from the archive".into() })
    }

    fn read_if_there(&mut self, name: &str) -> Result<Option<Vec<u8>>, Problem> {
        let entry = format!("{}{name}", self.prefix);
        let bad = |found: String| Problem::Entry { entry: entry.clone(), found };
        let file = match self.zip.by_name(&entry) {
            Ok(file) => file,
            Err(zip::result::ZipError::FileNotFound) => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        if file.compression() != CompressionMethod::Stored || file.encrypted() {
            return Err(bad("is compressed or encrypted; torch stores plainly: save the checkpoint again".into()));
        }
        let size = file.size();
        if size > self.file_len || size != file.compressed_size() {
            return Err(bad(format!("claims {size} bytes in a file of {}", self.file_len)));
        }
        let mut data = Vec::with_capacity(usize::try_from(size).map_err(|_| bad(format!("claims {size} bytes")))?);
        // One byte past the end is asked for, because the checksum is compared at the end of the entry.
        file.take(size.saturating_add(1))
            .read_to_end(&mut data)
            .map_err(|e| bad(format!("cannot be read ({e}): the file is damaged, fetch it again")))?;
        if data.len() as u64 != size {
            return Err(bad(format!(
                "holds {} of its {size} bytes: the file is truncated, fetch it again",
                data.len()
            )));
        }
        Ok(Some(data))
    }
}

/// The folder of the only `data.pkl`.
fn prefix(zip: &ZipArchive<BufReader<File>>) -> Result<String, Problem> {
    let names: Vec<String> = zip.file_names_raw().map(|n| String::from_utf8_lossy(n).into_owned()).collect();
    let mut found =
        names.iter().filter_map(|n| n.strip_suffix("data.pkl")).filter(|p| p.is_empty() || p.ends_with('/'));
    match (found.next(), found.next()) {
        (Some(prefix), None) => {
            let inside =
                |name: &str| names.iter().any(|n| n.strip_prefix(prefix).is_some_and(|rest| rest.starts_with(name)));
            if inside("constants.pkl") || inside("code/") {
                return Err(Problem::Format(
                    "it is a TorchScript archive, a program: load it with `torch.jit.load` and save `.state_dict()` with \
                     `torch.save`"
                        .into(),
                ));
            }
            Ok(prefix.to_owned())
        }
        (Some(_), Some(_)) => Err(Problem::Format("the archive holds several `data.pkl`".into())),
        (None, _) => {
            let first = names.first().map_or("nothing".into(), |n| format!("{n:?}"));
            Err(Problem::Format(format!(
                "it is a zip archive without `data.pkl` (it holds {first}...): if the checkpoint lies inside, unzip it"
            )))
        }
    }
}

/// What the file is, where it is no zip archive; leaves the reader at the start.
fn foreign_format(reader: &mut (impl Read + Seek), file_len: u64) -> Result<Option<String>, Problem> {
    let fail = |e| Problem::Zip(zip::result::ZipError::Io(e));
    let mut head = Vec::new();
    reader.take(512).read_to_end(&mut head).map_err(fail)?;
    reader.rewind().map_err(fail)?;
    let text = head.trim_ascii_start();
    let header_len = head.first_chunk::<8>().map_or(0, |n| u64::from_le_bytes(*n));
    let what = if head.starts_with(b"PK\x03\x04") {
        return Ok(None);
    } else if head.is_empty() {
        "it is empty: fetch it again".into()
    } else if head.windows(LEGACY_MAGIC.len()).any(|w| w == LEGACY_MAGIC) {
        "it is in the format of torch before 1.6: in Python, `torch.save(torch.load(file, weights_only=True), new_file)` with \
         a newer torch converts it"
            .into()
    } else if head.get(257..262) == Some(b"ustar") {
        "it is a tar archive (a download, or a checkpoint of torch before 0.1.10): unpack it first".into()
    } else if head.starts_with(b"\x1f\x8b") {
        "it is compressed with gzip: unpack it first".into()
    } else if head.get(8) == Some(&b'{') && header_len < file_len {
        "it is a safetensors file: give it the ending `.safetensors`".into()
    } else if text.starts_with(b"<") {
        "it is a web page (a download that led to a login or an error): fetch the file itself".into()
    } else if text.starts_with(b"version https://git-lfs") {
        "it is a Git LFS pointer: run `git lfs pull` to fetch the file itself".into()
    } else if head.starts_with(b"\x80") {
        "it is a bare pickle, written by `pickle.dump` and not by `torch.save`: save it again with `torch.save`".into()
    } else {
        format!("it begins with the bytes {:02x?}, a zip archive with 50 4b 03 04", head.get(..4).unwrap_or(&head))
    };
    Ok(Some(what))
}
