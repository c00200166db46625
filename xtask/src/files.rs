//! Small things on files: hashes, room on the disk, one worker at a time, and putting a finished folder or link in its
//! place in one step.

use std::fs::{self, File, TryLockError};
use std::io::Read;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// Beginning of the names of unfinished folders; what is left of a killed run is swept at the next one.
const UNFINISHED: &str = ".unfinished-";

/// A progress bar in bytes, invisible where standard error is no terminal.
#[must_use]
pub fn byte_bar(total: u64, what: &str) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg:12} [{bar:32}] {bytes}/{total_bytes} {bytes_per_sec} {eta}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(total).with_style(style).with_message(what.to_owned())
}

/// The SHA-256 of what `reader` gives, as lower-case hexadecimal digits.
///
/// # Errors
/// When reading fails.
pub fn sha256(mut reader: impl Read, bar: &ProgressBar) -> Result<String> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let count = reader.read(&mut buffer)?;
        let Some(part) = buffer.get(..count).filter(|part| !part.is_empty()) else { break };
        hasher.update(part);
        bar.inc(count as u64);
    }
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Bytes in words: 83.5 MB, 645 MB.
#[must_use]
pub fn human(bytes: u64) -> String {
    match bytes {
        0..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..100_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        100_000_000..1_000_000_000 => format!("{} MB", bytes / 1_000_000),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

/// Bytes that may still be written below `path`, which need not exist yet.
///
/// # Errors
/// When no parent of the path can be asked.
pub fn free_space(path: &Path) -> Result<u64> {
    let there = path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let stat = rustix::fs::statvfs(there).with_context(|| format!("asking for free space at {}", there.display()))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Creates `folder` and waits until no other process of this user works in it; the lock ends with the returned file.
///
/// # Errors
/// When the folder can't be written.
pub fn lock(folder: &Path) -> Result<File> {
    fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    let path = folder.join(".lock");
    let file = File::create(&path).with_context(|| format!("{} cannot be written", folder.display()))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            eprintln!("another setup is at work in {}, waiting for it", folder.display());
            file.lock()?;
        }
        Err(TryLockError::Error(error)) => return Err(error).context(format!("locking {}", path.display())),
    }
    Ok(file)
}

/// An unfinished folder inside `parent`, removed when dropped. The caller holds the lock of `parent`, so what other
/// unfinished folders lie there belong to killed runs: they are removed.
///
/// # Errors
/// When `parent` can't be written.
pub fn unfinished(parent: &Path) -> Result<TempDir> {
    for entry in fs::read_dir(parent)?.flatten() {
        if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
            fs::remove_dir_all(entry.path()).with_context(|| format!("removing {}", entry.path().display()))?;
        }
    }
    tempfile::Builder::new()
        .prefix(UNFINISHED)
        .tempdir_in(parent)
        .with_context(|| format!("{} cannot be written", parent.display()))
}

/// Puts the folder `finished` at `place` in one step; what lay there (an incomplete folder) goes away.
///
/// # Errors
/// When the file system refuses; then the old state is still there.
pub fn put(finished: &Path, place: &Path) -> Result<()> {
    let parent = place.parent().context("a folder without a parent")?;
    let old = parent.join(format!("{UNFINISHED}old-{}", std::process::id()));
    let replaced = place.symlink_metadata().is_ok();
    if replaced {
        fs::rename(place, &old).with_context(|| format!("moving {} away", place.display()))?;
    }
    fs::rename(finished, place).with_context(|| format!("moving the finished folder to {}", place.display()))?;
    File::open(parent)?.sync_all()?;
    if replaced {
        fs::remove_dir_all(&old).with_context(|| format!("removing {}", old.display()))?;
    }
    Ok(())
}

/// Every file below `folder` with its size, by path; links are not followed.
///
/// # Errors
/// When a folder can't be read, or a path is no UTF-8.
pub fn listing(folder: &Path) -> Result<Vec<(u64, String)>> {
    let mut files = Vec::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(&next).with_context(|| format!("reading {}", next.display()))? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                open.push(entry.path());
            } else if kind.is_file() {
                let path = entry.path();
                let relative = path.strip_prefix(folder)?.to_str().context("a file name that is not UTF-8")?;
                files.push((entry.metadata()?.len(), relative.to_owned()));
            }
        }
    }
    files.sort_by(|a, b| a.1.cmp(&b.1));
    Ok(files)
}

/// Makes `link` point at `target`, in one step where it pointed elsewhere before.
///
/// # Errors
/// When something that is no link lies there.
pub fn point(link: &Path, target: &Path) -> Result<()> {
    if fs::read_link(link).is_ok_and(|old| old == target) {
        return Ok(());
    }
    if link.symlink_metadata().is_ok_and(|meta| !meta.is_symlink()) {
        bail!("{} is in the way: it is no link; move it away and run `cargo xtask setup` again", link.display());
    }
    let mut beside = link.as_os_str().to_owned();
    beside.push(format!("-{}.tmp", std::process::id()));
    let beside = PathBuf::from(beside);
    symlink(target, &beside).with_context(|| format!("creating a link in {}", link.display()))?;
    fs::rename(&beside, link).with_context(|| format!("replacing {}", link.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_the_standard_ones() {
        let empty = sha256(&b""[..], &ProgressBar::hidden()).unwrap();
        assert_eq!(empty, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        let abc = sha256(&b"abc"[..], &ProgressBar::hidden()).unwrap();
        assert_eq!(abc, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn folders_and_links_are_replaced_in_one_step() {
        let parent = tempfile::tempdir().unwrap();
        let _lock = lock(parent.path()).unwrap();
        let place = parent.path().join("set");
        fs::create_dir(&place).unwrap();
        fs::write(place.join("half"), b"x").unwrap();
        fs::create_dir(parent.path().join(".unfinished-killed")).unwrap();
        let fresh = unfinished(parent.path()).unwrap();
        assert!(!parent.path().join(".unfinished-killed").exists());
        fs::create_dir(fresh.path().join("new")).unwrap();
        put(&fresh.path().join("new"), &place).unwrap();
        assert!(place.is_dir() && !place.join("half").exists());

        let link = parent.path().join("link");
        point(&link, &place).unwrap();
        point(&link, parent.path()).unwrap();
        assert_eq!(fs::read_link(&link).unwrap(), parent.path());
        assert!(point(&place, &link).unwrap_err().to_string().contains("in the way"));
    }

    #[test]
    fn sizes_read_well() {
        assert_eq!(human(1_500), "1.5 kB");
        assert_eq!(human(83_506_384), "83.5 MB");
        assert_eq!(human(645_123_456), "645 MB");
        assert_eq!(human(74_200_000_000), "74.2 GB");
        assert!(free_space(Path::new("/no/such/folder")).unwrap() > 0);
    }
}
