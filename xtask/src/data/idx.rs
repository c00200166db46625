//! MNIST and its kin: four IDX files, gzipped or not, known by the hash of what is inside.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use flate2::read::MultiGzDecoder;
use indicatif::ProgressBar;

use super::gather::Gathered;
use super::take;
use crate::files::{listing, sha256};

/// Finds the files that `pins` name below the source, checks them and puts them into `into` under their usual names.
///
/// # Errors
/// A sentence naming the file that is missing, damaged or another one.
pub fn place(pins: &[(&str, &str)], source: &Gathered, into: &Path) -> Result<()> {
    let files = listing(&source.folder)?;
    for (name, expected) in pins {
        let (path, zipped) = find(&source.folder, &files, name)
            .with_context(|| format!("{name} and {name}.gz are missing in {}", source.folder.display()))?;
        let file = BufReader::new(File::open(&path).with_context(|| format!("opening {}", path.display()))?);
        let content: Box<dyn Read> = if zipped { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
        let found =
            sha256(content, &ProgressBar::hidden()).with_context(|| format!("{} is damaged", path.display()))?;
        if found != *expected {
            bail!("{} has another content: SHA-256 (unzipped) {found}, expected {expected}", path.display());
        }
        take(source, &path, &into.join(format!("{name}{}", if zipped { ".gz" } else { "" })))?;
    }
    Ok(())
}

/// The file called `name`, or `name.gz`; some copies write `train-images.idx3-ubyte`.
fn find(folder: &Path, files: &[(u64, String)], name: &str) -> Option<(PathBuf, bool)> {
    files.iter().find_map(|(_, path)| {
        let file = path.rsplit('/').next()?.replace(".idx", "-idx");
        let zipped = file.ends_with(".gz");
        (file.strip_suffix(".gz").unwrap_or(&file) == name).then(|| (folder.join(path), zipped))
    })
}
