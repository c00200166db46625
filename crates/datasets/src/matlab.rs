//! Vectors of whole numbers out of MATLAB files of version 5, which is what some data sets keep labels and splits in.
//!
//! A file is 128 bytes of head, whose last four are the version and `IM` (numbers little endian) or `MI` (big endian),
//! then elements. An element is a type and a size, 4 bytes each, then so many bytes, filled up to a multiple of 8; one of
//! up to 4 bytes may have type and size in 2 bytes each and its bytes right behind them. A compressed element is a zlib
//! stream of one element and is not filled up. A matrix is an element made of elements: flags (the class of its values,
//! whether they are complex), dimensions, a name, and values, which are stored in the smallest type that holds them.
//!
//! Every length is checked against the bytes that are there before anything is made of it.

use std::io::Read;
use std::path::Path;

use flate2::bufread::ZlibDecoder;

use crate::file::Source;
use crate::{Error, Result};

const HEAD: usize = 128;
/// The most that an element may grow to when it is decompressed; the labels of a million samples take 8 MiB.
const MOST: u64 = 64 << 20;

const MATRIX: u32 = 14;
const COMPRESSED: u32 = 15;
/// The classes of matrices of numbers; before them are cells, structures, objects, text and sparse ones.
const NUMBERS: std::ops::RangeInclusive<u32> = 6..=15;
const COMPLEX: u32 = 1 << 11;

/// A result whose error is a reason; the file's name comes to it at the door.
type Found<T> = std::result::Result<T, String>;

/// Reads the row (or column) called `name`.
///
/// # Errors
/// [`Error::Io`]; [`Error::Matlab`] for a file that is damaged or of another kind, that has no such variable, or in which
/// it is no vector of whole numbers from 0 to 2^32 - 1.
pub(crate) fn vector(path: &Path, name: &str) -> Result<Vec<usize>> {
    let bytes = Source::open(path)?.rest()?;
    find(&bytes, name).map_err(|reason| {
        let expected = format!("expected is a MATLAB file of version 5 with a row of whole numbers called {name}");
        Error::Matlab { path: path.to_owned(), reason, expected }
    })
}

fn find(file: &[u8], name: &str) -> Found<Vec<usize>> {
    let Some((head, bytes)) = file.split_at_checked(HEAD) else {
        return Err(format!("it holds {} bytes, less than the {HEAD} of its head", file.len()));
    };
    let big = match head[HEAD - 4..] {
        [0, 1, b'I', b'M'] => false,
        [1, 0, b'M', b'I'] => true,
        _ => return Err("it does not open with the head of such a file".into()),
    };
    let mut elements = Elements { bytes, big };
    let mut others = 0;
    while let Some((mut kind, mut data)) = elements.next()? {
        let inflated;
        if kind == COMPRESSED {
            inflated = inflate(data)?;
            let inner = Elements { bytes: &inflated, big }.next()?;
            (kind, data) = inner.ok_or("a compressed element is empty")?;
        }
        if kind == MATRIX {
            let matrix = Matrix::read(data, big)?;
            if matrix.name == name.as_bytes() {
                return matrix.values();
            }
            others += 1;
        }
    }
    Err(format!("it has no variable {name} ({others} others)"))
}

fn inflate(data: &[u8]) -> Found<Vec<u8>> {
    let mut out = Vec::new();
    let read = ZlibDecoder::new(data).take(MOST + 1).read_to_end(&mut out);
    read.map_err(|error| format!("its compressed data are damaged ({error})"))?;
    if out.len() as u64 > MOST { Err(format!("an element grows past {MOST} bytes")) } else { Ok(out) }
}

/// A number of up to 8 bytes.
fn number(bytes: &[u8], big: bool) -> u64 {
    let add = |sum, &byte| sum << 8 | u64::from(byte);
    if big { bytes.iter().fold(0, add) } else { bytes.iter().rev().fold(0, add) }
}

/// Elements one after the other.
struct Elements<'a> {
    bytes: &'a [u8],
    big: bool,
}

impl<'a> Elements<'a> {
    /// The type and the bytes of the next element; `None` at the end.
    fn next(&mut self) -> Found<Option<(u32, &'a [u8])>> {
        if self.bytes.is_empty() {
            return Ok(None);
        }
        let (tag, rest) = self.bytes.split_at_checked(8).ok_or("it breaks off within the head of an element")?;
        let (first, second) = tag.split_at(4);
        let (kind, size) = (number(first, self.big) as u32, number(second, self.big) as usize);
        if kind >> 16 != 0 {
            let size = (kind >> 16) as usize;
            let data =
                second.get(..size).ok_or_else(|| format!("a short element declares {size} bytes of at most 4"))?;
            self.bytes = rest;
            return Ok(Some((kind & 0xffff, data)));
        }
        let data = rest.get(..size);
        let data = data.ok_or_else(|| format!("an element declares {size} bytes where {} are left", rest.len()))?;
        let filled = if kind == COMPRESSED { size } else { size.next_multiple_of(8) };
        self.bytes = rest.get(filled..).unwrap_or_default();
        Ok(Some((kind, data)))
    }
}

/// A matrix before its values are looked at.
struct Matrix<'a> {
    flags: u32,
    dimensions: &'a [u8],
    name: &'a [u8],
    rest: Elements<'a>,
}

impl<'a> Matrix<'a> {
    fn read(bytes: &'a [u8], big: bool) -> Found<Self> {
        let mut rest = Elements { bytes, big };
        let mut part = |what: &str| -> Found<&'a [u8]> {
            let (_, data) = rest.next()?.ok_or_else(|| format!("a matrix ends before its {what}"))?;
            Ok(data)
        };
        let flags = part("flags")?;
        let flags = flags.get(..4).ok_or("a matrix has flags of less than 4 bytes")?;
        let (dimensions, name) = (part("dimensions")?, part("name")?);
        let flags = number(flags, big) as u32;
        Ok(Self { flags, dimensions, name, rest })
    }

    fn values(mut self) -> Found<Vec<usize>> {
        let big = self.rest.big;
        if !NUMBERS.contains(&(self.flags & 0xff)) || self.flags & COMPLEX != 0 {
            return Err("the variable is no matrix of real numbers".into());
        }
        let sides: Vec<u64> = self.dimensions.chunks(4).map(|side| number(side, big)).collect();
        let count = match sides[..] {
            [1, count] | [count, 1] => count as usize,
            _ => return Err(format!("the variable is no vector ({} dimensions)", sides.len())),
        };
        let (kind, data) = self.rest.next()?.ok_or("the variable has no values")?;
        // The place of a type in the table of types; all are 1, 2, 4 or 8 bytes.
        let (width, value): (usize, fn(u64) -> f64) = match kind {
            1 => (1, |bits| f64::from(bits as u8 as i8)),
            2 => (1, |bits| bits as f64),
            3 => (2, |bits| f64::from(bits as u16 as i16)),
            4 => (2, |bits| bits as f64),
            5 => (4, |bits| f64::from(bits as u32 as i32)),
            6 => (4, |bits| bits as f64),
            7 => (4, |bits| f64::from(f32::from_bits(bits as u32))),
            9 => (8, f64::from_bits),
            _ => return Err(format!("the values are of type {kind}, which holds no usual numbers")),
        };
        if count.checked_mul(width) != Some(data.len()) {
            return Err(format!("{count} values of {width} bytes are declared and {} bytes are there", data.len()));
        }
        let whole = |bytes: &[u8]| {
            let value = value(number(bytes, big));
            let whole = value.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&value);
            if whole { Ok(value as usize) } else { Err(format!("its values have {value} among them")) }
        };
        data.chunks_exact(width).map(whole).collect()
    }
}
