//! The `complete` file that turns a folder into a whole one: written last, after everything else is on the disk, it
//! says where the content came from and lists every file with its size. A folder without it is never used.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// The marker's file name.
pub const MARKER: &str = "complete";

/// What a whole folder holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// Free lines on where it came from: wheels with their hashes, a linked folder.
    pub source: Vec<String>,
    /// Size in bytes and path relative to the folder, of every file.
    pub files: Vec<(u64, String)>,
}

impl Manifest {
    /// Writes the marker into `folder` after flushing everything that lies on the same file system.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let directory = File::open(folder)?;
        rustix::fs::syncfs(&directory).context("flushing the disk")?;
        let mut text = String::new();
        for line in &self.source {
            text.push_str(&format!("# {line}\n"));
        }
        for (size, path) in &self.files {
            text.push_str(&format!("{size} {path}\n"));
        }
        let mut file = File::create(folder.join(MARKER))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        directory.sync_all()?;
        Ok(())
    }

    /// Reads the marker of `folder` and checks that every file it lists is there with its size.
    ///
    /// # Errors
    /// A sentence: no marker (an interrupted unpacking), an unreadable line, a file that is missing or has changed.
    pub fn check(folder: &Path) -> Result<Self> {
        let text = fs::read_to_string(folder.join(MARKER))
            .with_context(|| format!("{} was never completed (it has no `{MARKER}` file)", folder.display()))?;
        let mut manifest = Self::default();
        for line in text.lines() {
            if let Some(source) = line.strip_prefix("# ") {
                manifest.source.push(source.to_owned());
                continue;
            }
            let (size, path) = line
                .split_once(' ')
                .and_then(|(size, path)| Some((size.parse::<u64>().ok()?, path)))
                .with_context(|| format!("{}: cannot read {line:?}", folder.join(MARKER).display()))?;
            let found = fs::metadata(folder.join(path))
                .with_context(|| format!("{} is missing", folder.join(path).display()))?
                .len();
            if found != size {
                bail!("{} has {found} bytes, expected {size}", folder.join(path).display());
            }
            manifest.files.push((size, path.to_owned()));
        }
        Ok(manifest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_whole_only_with_marker_and_sizes() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a b.so"), b"12345").unwrap();
        assert!(Manifest::check(folder.path()).unwrap_err().to_string().contains("never completed"));
        let manifest = Manifest { source: vec!["wheel x".into()], files: vec![(5, "a b.so".into())] };
        manifest.write(folder.path()).unwrap();
        assert_eq!(Manifest::check(folder.path()).unwrap(), manifest);
        fs::write(folder.path().join("a b.so"), b"1234").unwrap();
        assert!(Manifest::check(folder.path()).unwrap_err().to_string().contains("has 4 bytes, expected 5"));
        fs::remove_file(folder.path().join("a b.so")).unwrap();
        assert!(Manifest::check(folder.path()).unwrap_err().to_string().contains("missing"));
        fs::write(folder.path().join(MARKER), b"garbage\n").unwrap();
        assert!(Manifest::check(folder.path()).unwrap_err().to_string().contains("cannot read"));
    }
}
