//! `cargo xtask setup --python-reference`: the Python environment that `bench versus-pytorch` measures against, from
//! pinned wheels, in the cache folder. It is used as `PYTHONPATH=FOLDER python3 -s`; nothing is installed anywhere.
//!
//! The folder's name changes with the pins. As everything in the cache it is made under an unfinished name, gets its
//! marker last and is then renamed; before that, it has to be importable.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use indicatif::ProgressBar;

use crate::files;
use crate::manifest::Manifest;
use crate::pins::Lock;
use crate::places::Places;
use crate::setup::{Setup, Source, other_platform};
use crate::{shell, unpack, wheels};

/// The one Python that the torch wheel is built for.
pub const PYTHON: &str = "3.11";

/// How the folders' names begin.
const NAME: &str = "python-reference-";

/// A Python that finds what it is compared with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// The interpreter.
    pub python: PathBuf,
    /// The folder for `PYTHONPATH`.
    pub folder: PathBuf,
}

impl Reference {
    /// The interpreter with `arguments`, seeing the reference and nothing that the user has installed.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.python);
        command.arg("-s").args(arguments).env("PYTHONPATH", &self.folder).env_remove("PYTHONHOME");
        command
    }
}

/// The folder of the reference that `lock` pins; whether it is there says [`found`].
///
/// # Errors
/// None in practice: hashing text can't fail.
pub fn place(lock: &Lock, places: &Places) -> Result<PathBuf> {
    let pins = files::sha256(lock.origin().join("\n").as_bytes(), &ProgressBar::hidden())?;
    Ok(places.cache.join(format!("{NAME}{}", pins.get(..12).unwrap_or(&pins))))
}

/// The folder of the reference, or `None` where none was made.
///
/// # Errors
/// A sentence: it was never completed, or a file is missing or has changed.
pub fn found(lock: &Lock, places: &Places) -> Result<Option<PathBuf>> {
    let folder = place(lock, places)?;
    if !folder.exists() {
        return Ok(None);
    }
    Manifest::check(&folder)?;
    Ok(Some(folder))
}

impl Setup {
    /// The reference that an earlier setup made.
    ///
    /// # Errors
    /// It is not there or no longer whole, or there is no fitting Python: a sentence that says what to do.
    pub fn reference_ready(&self) -> Result<Reference> {
        const REMEDY: &str = "run `cargo xtask setup --python-reference`";
        match found(&self.reference, &self.places) {
            Ok(Some(folder)) => Ok(Reference { python: self.python_of_the_reference()?, folder }),
            Ok(None) => bail!("there is no PyTorch to compare with: {REMEDY}"),
            Err(error) => bail!("the PyTorch to compare with is not whole: {error:#}; {REMEDY}"),
        }
    }

    /// Makes the Python reference. Does nothing where it is there.
    ///
    /// # Errors
    /// A sentence that says what is missing and what to do; nothing half is left.
    pub fn python_reference(&self, source: &Source) -> Result<Reference> {
        if let Some(other) = other_platform() {
            bail!("the pinned wheels of the Python reference are for x86-64 Linux, this is {other}");
        }
        let python = self.python_of_the_reference()?;
        if let Ok(Some(folder)) = found(&self.reference, &self.places) {
            return Ok(Reference { python, folder });
        }
        let _lock = files::lock(&self.places.cache)?;
        let lock = &self.reference;
        let install = |wheels: &[PathBuf]| self.install_reference(wheels, &python);
        let folder = match source {
            // another setup may have made it while this one waited for the lock
            Source::Any => match found(lock, &self.places) {
                Ok(Some(folder)) => folder,
                _ => self.fetched(lock, &python, "Python reference", install)?,
            },
            Source::Wheels(folder) => install(&wheels::verified(lock, folder)?)?,
            Source::Folder(_) => bail!("the Python reference is made from the pinned wheels, not from a folder"),
        };
        Ok(Reference { python, folder })
    }

    /// Unpacks verified wheels and imports what is in them before the folder counts.
    fn install_reference(&self, wheels: &[PathBuf], python: &Path) -> Result<PathBuf> {
        let place = place(&self.reference, &self.places)?;
        let needed = self.reference.unpacked;
        let free = self.room(needed)?;
        eprintln!("unpacking the Python reference: {} of {} free", files::human(needed), files::human(free));
        let scratch = files::unfinished(&self.places.cache)?;
        let fresh = scratch.path().join("python");
        fs::create_dir(&fresh)?;
        unpack::for_python(wheels, &fresh)?;
        check_imports(&Reference { python: python.to_path_buf(), folder: fresh.clone() })?;
        Manifest { source: self.reference.origin(), files: files::listing(&fresh)? }.write(&fresh)?;
        files::put(&fresh, &place)?;
        self.name_older(&place);
        Ok(place)
    }

    /// Older pins' folders take gigabytes, but another clone may use them: they are named, not removed.
    fn name_older(&self, place: &Path) {
        for entry in fs::read_dir(&self.places.cache).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(NAME) && entry.path() != place {
                eprintln!("note: {} is of other pins; remove it where no clone uses it", entry.path().display());
            }
        }
    }

    /// The user's Python 3, or a `python3.11` beside it.
    fn python_of_the_reference(&self) -> Result<PathBuf> {
        const VERSION: &str = "import sys; print('%d.%d' % sys.version_info[:2])";
        let version = |python: &Path| shell::answer(python, &["-c", VERSION]);
        let found = version(&self.python);
        if found.as_deref() == Some(PYTHON) {
            return Ok(self.python.clone());
        }
        let named = self.python.with_file_name(format!("python{PYTHON}"));
        if version(&named).as_deref() == Some(PYTHON) {
            return Ok(named);
        }
        let found = found.map_or("no Python 3".to_owned(), |version| format!("Python {version}"));
        bail!(
            "the reference's wheels are for Python {PYTHON}, found {found}: install python{PYTHON} with its pip \
             (on Debian 12 `sudo apt-get install -y python3 python3-pip python3-dev`)"
        )
    }
}

/// Imports everything once, without leaving byte code behind, and looks for what torch.compile needs of the system.
fn check_imports(reference: &Reference) -> Result<()> {
    const IMPORT: &str = "import torch, torchvision, triton, numpy, scipy, PIL";
    let output = reference
        .command(&["-B", "-c", IMPORT])
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("starting {}", reference.python.display()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said.trim().lines().last().unwrap_or("it said nothing");
        bail!("the unpacked reference cannot be imported by {}: {last}", reference.python.display());
    }
    const HEADERS: &str = "import os, sysconfig; print(os.path.isfile(sysconfig.get_path('include') + '/Python.h'))";
    if shell::answer(&reference.python, &["-c", HEADERS]).as_deref() == Some("False") {
        eprintln!("note: torch.compile needs Python's headers: `sudo apt-get install -y python3-dev`");
    }
    Ok(())
}
