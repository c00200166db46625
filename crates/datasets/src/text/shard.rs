//! The file of packed tokens: 40 bytes of header, then the ids, all little endian.
//!
//! | bytes | what |
//! |---|---|
//! | 0..8 | `wbtokens` |
//! | 8..12 | version of the format, 1 |
//! | 12..16 | bytes of a token: 2 where the vocabulary has at most 65536 ids, else 4 |
//! | 16..24 | number of tokens |
//! | 24..40 | the first half of the tokenizer's sha256 |
//!
//! `documents-NNNNN.bin` beside it holds the positions, in its whole part, at which the documents begin that begin in
//! this shard: 64 bits each, without header.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::tokenizer::Identity;
use crate::{Error, Result};

pub(super) const HEADER: usize = 40;
const MAGIC: &[u8; 8] = b"wbtokens";
const VERSION: u32 = 1;

pub(super) fn tokens_name(number: usize) -> String {
    format!("tokens-{number:05}.bin")
}

pub(super) fn documents_name(number: usize) -> String {
    format!("documents-{number:05}.bin")
}

/// The bytes of a token.
pub(super) fn width(vocabulary: usize) -> usize {
    if vocabulary <= 1 << 16 { 2 } else { 4 }
}

/// The header of a shard. The hash of an identity made by hand may be anything: what is no hexadecimal digit counts 0.
pub(super) fn header(tokens: u64, identity: &Identity) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..8].copy_from_slice(MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    header[12..16].copy_from_slice(&(width(identity.vocabulary) as u32).to_le_bytes());
    header[16..24].copy_from_slice(&tokens.to_le_bytes());
    let digit = |byte: u8| char::from(byte).to_digit(16).unwrap_or(0) as u8;
    for (slot, pair) in header[24..].iter_mut().zip(identity.sha256.as_bytes().chunks_exact(2)) {
        *slot = digit(pair[0]) << 4 | digit(pair[1]);
    }
    header
}

/// Opens a shard that should hold so many tokens of this tokenizer.
pub(super) fn open(path: &Path, tokens: u64, identity: &Identity) -> Result<File> {
    let problem =
        |found: String, expected: String, advice| Err(Error::Packed { path: path.to_owned(), found, expected, advice });
    let again = "the file is damaged or only partly there: pack the text anew, or copy the folder again";
    let file = File::open(path).map_err(Error::io(path))?;
    let size = file.metadata().map_err(Error::io(path))?.len();
    if size < HEADER as u64 {
        return problem(format!("it holds {size} bytes"), format!("its header alone has {HEADER}"), again);
    }
    let mut found = [0; HEADER];
    file.read_exact_at(&mut found, 0).map_err(Error::io(path))?;
    let expected = header(tokens, identity);
    if found[..8] != *MAGIC {
        let bytes = found[..8].escape_ascii();
        let advice = "name a folder that packing made";
        return problem(format!("it begins with {bytes}"), "packed tokens begin with wbtokens".into(), advice);
    }
    let number = |range: std::ops::Range<usize>| {
        found[range].iter().rev().fold(0u64, |number, byte| number << 8 | u64::from(*byte))
    };
    if number(8..12) != u64::from(VERSION) {
        let advice = "pack the text anew with this version of the program";
        return problem(format!("it has format {}", number(8..12)), format!("format {VERSION} is read here"), advice);
    }
    if found[24..] != expected[24..] {
        let advice = "the shard comes from another folder: pack the text anew, or copy the folder again";
        let hash = |bytes: &[u8]| super::hash::hex(&bytes[24..28]);
        let belongs = format!("its tokens are of the tokenizer with sha256 {}...", hash(&found));
        return problem(belongs, format!("the manifest says {identity}, {}...", hash(&expected)), advice);
    }
    if found[12..16] != expected[12..16] {
        let expected = format!("{} are expected for {identity}", width(identity.vocabulary));
        return problem(format!("a token has {} bytes", number(12..16)), expected, again);
    }
    if number(16..24) != tokens {
        let found = format!("its header says {} tokens", number(16..24));
        return problem(found, format!("the manifest says {tokens}"), again);
    }
    let whole =
        tokens.checked_mul(width(identity.vocabulary) as u64).and_then(|bytes| bytes.checked_add(HEADER as u64));
    if whole != Some(size) {
        let expected = format!("{tokens} tokens make {}", whole.unwrap_or(u64::MAX));
        return problem(format!("it holds {size} bytes"), expected, again);
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_as_documented() {
        let sha256 = "00ff10".to_owned() + &"ab".repeat(29);
        let identity = Identity { name: "x".into(), sha256, vocabulary: 65537 };
        let header = header(258, &identity);
        assert_eq!(&header[..16], b"wbtokens\x01\0\0\0\x04\0\0\0");
        assert_eq!(header[16..28], [2, 1, 0, 0, 0, 0, 0, 0, 0, 0xff, 0x10, 0xab]);
        assert_eq!((width(65536), width(65537)), (2, 4));
    }
}
