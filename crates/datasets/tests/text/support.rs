//! Texts and packed sets made for the tests.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use flate2::read::GzDecoder;
use whitebox_datasets::text::{Manifest, PackOptions, Packed, Sources, TokenSet, Tokenizer, TokenizerSpec, pack};

pub use crate::common::{gz, put, says};

/// A file of the project's `data/` folder.
pub fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data").join(name)
}

/// The text of a compressed file of `data/`.
pub fn book(name: &str) -> String {
    let mut text = String::new();
    GzDecoder::new(fs::File::open(data(name)).unwrap()).read_to_string(&mut text).unwrap();
    text
}

pub fn bert() -> Arc<dyn Tokenizer> {
    TokenizerSpec::File(data("bert-base-uncased-vocab.txt.gz")).open().unwrap()
}

/// Packs without stopping.
pub fn packed(sources: &Sources, tokenizer: &dyn Tokenizer, folder: &Path, options: &PackOptions) -> Manifest {
    match pack(sources, tokenizer, folder, options, |_| {}, &AtomicBool::new(false)).unwrap() {
        Packed::Finished(manifest) => *manifest,
        Packed::Stopped => panic!("nobody stopped it"),
    }
}

pub fn all(set: &TokenSet) -> Vec<u32> {
    let mut ids = vec![0; set.len() as usize];
    set.read(0, &mut ids).unwrap();
    ids
}

/// Every file of a folder, by its path within.
pub fn contents(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().display().to_string();
                found.push((name, fs::read(&path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

/// Text of many lines, of about so many bytes, with accents and blank lines.
pub fn prose(bytes: usize) -> String {
    let mut text = String::new();
    let mut number = 0u64;
    while text.len() < bytes {
        number = number.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let words = ["alpha", "déjà", "vu", "night", "€uro", "rain,", "it's", "2026", "😀"];
        text += words[(number >> 40) as usize % words.len()];
        text += match (number >> 50) % 23 {
            0 => "\n\n",
            1..4 => "\n",
            4 => "  ",
            _ => " ",
        };
    }
    text
}
