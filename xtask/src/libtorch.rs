//! Looks at a libtorch without loading it: the version, the headers, whole libraries, nothing missing beside them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::elf;
use crate::manifest::Manifest;
use crate::places::Places;

/// The one version that the pinned tch release is made for.
pub const VERSION: &str = "2.11.0";

/// In a manifest: the folder that a linked libtorch really lies in.
pub(crate) const LINKED: &str = "linked ";

/// Headers that tch and the C++ shim cannot do without.
const HEADERS: [&str; 3] = ["ATen/ATen.h", "c10/core/Device.h", "torch/csrc/api/include/torch/torch.h"];

/// A libtorch that passed every check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Libtorch {
    /// The folder with `include` and `lib` in it.
    pub folder: PathBuf,
    /// Its version with the build's tag, if it has one: `2.11.0+cpu`.
    pub version: String,
    /// Whether the CUDA libraries lie beside.
    pub cuda: bool,
}

/// Checks the libtorch in `folder`, the one with `include` and `lib` in it.
///
/// # Errors
/// A sentence naming the first thing that is wrong.
pub fn inspect(folder: &Path) -> Result<Libtorch> {
    let lib = folder.join("lib");
    if !lib.is_dir() {
        bail!("{} holds no libtorch: it has no `lib` folder", folder.display());
    }
    let version = version(folder)?;
    if version.split('+').next() != Some(VERSION) {
        bail!("{} is libtorch {version}, expected {VERSION}", folder.display());
    }
    for header in HEADERS {
        if !folder.join("include").join(header).is_file() {
            bail!("{} lacks its headers: include/{header} is missing", folder.display());
        }
    }
    let cuda = lib.join("libtorch_cuda.so").exists();
    elf::check_whole(&lib.join("libc10.so"))?;
    for library in ["libtorch_cpu.so", "libtorch_cuda.so"].iter().take(1 + usize::from(cuda)) {
        elf::check_whole(&lib.join(library))?;
        let missing = missing_beside(&lib.join(library));
        if !missing.is_empty() {
            bail!("{} does not find {}", lib.join(library).display(), missing.join(", "));
        }
    }
    Ok(Libtorch { folder: folder.to_path_buf(), version, cuda })
}

/// The libtorch that `.libtorch` in the clone points at.
///
/// # Errors
/// A sentence: no link, a link to nowhere, an unfinished folder, or what [`inspect`] found wrong.
pub fn linked(places: &Places) -> Result<Libtorch> {
    let link = places.link();
    let Ok(target) = link.canonicalize() else {
        match fs::read_link(&link) {
            Ok(gone) => bail!("{} points at {}, which is gone", link.display(), gone.display()),
            Err(_) => bail!("not set up yet: {} does not exist", link.display()),
        }
    };
    let ours = places.cache.canonicalize().is_ok_and(|cache| target.starts_with(cache));
    if ours {
        let manifest = Manifest::check(&target)?;
        if let Some(real) = manifest.source.iter().find_map(|line| line.strip_prefix(LINKED)) {
            // The link's own build-version is what it was when it was made: ask the folder itself.
            inspect(Path::new(real)).context("the linked libtorch has changed")?;
        }
    }
    inspect(&link.join("torch"))
}

/// The version as the folder tells it: libtorch's `build-version`, or the Python package's `version.py`.
fn version(folder: &Path) -> Result<String> {
    if let Ok(text) = fs::read_to_string(folder.join("build-version")) {
        return Ok(text.trim().to_owned());
    }
    fs::read_to_string(folder.join("version.py"))
        .ok()
        .and_then(|text| {
            let line = text.lines().find(|line| line.starts_with("__version__"))?;
            Some(line.split(['\'', '"']).nth(1)?.to_owned())
        })
        .with_context(|| format!("{} does not say its version (no build-version, no version.py)", folder.display()))
}

/// The names of the libraries that the loader would not find for `library`; empty where it can't be asked.
/// The NVIDIA driver's own library is no part of libtorch.
fn missing_beside(library: &Path) -> Vec<String> {
    let Ok(output) = Command::new("ldd").arg(library).stdin(Stdio::null()).output() else { return Vec::new() };
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| Some(line.split_once("=> not found")?.0.trim().to_owned()))
        .filter(|name| !name.starts_with("libcuda.so"))
        .collect()
}
