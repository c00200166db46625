//! Tells a whole shared library from a truncated one without running it: every part that the ELF header, the section
//! table and the program headers speak of has to lie inside the file.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use anyhow::{Context, Result, bail};

const X86_64: u16 = 62;
const SECTION_WITHOUT_BYTES: u32 = 8;

/// Checks that `path` is a whole 64-bit x86-64 ELF file.
///
/// # Errors
/// A sentence that says what the file is instead: missing, not an ELF file, for another machine, truncated.
pub fn check_whole(path: &Path) -> Result<()> {
    let mut file = File::open(path).with_context(|| format!("{} is missing", path.display()))?;
    let length = file.metadata()?.len();
    let mut header = [0_u8; 64];
    if file.read_exact(&mut header).is_err() || !header.starts_with(b"\x7fELF\x02\x01") {
        bail!("{} ({length} bytes) is not a 64-bit ELF library", path.display());
    }
    let machine = half(&header, 18);
    if machine != X86_64 {
        bail!("{} is for another processor (ELF machine {machine}, expected {X86_64}, x86-64)", path.display());
    }
    let needed = bytes_spoken_of(&mut file, &header).unwrap_or(u64::MAX);
    if needed > length {
        bail!("{} is truncated: it has {length} bytes and its own tables speak of more", path.display());
    }
    Ok(())
}

/// The end of the furthest part that the tables name, or `None` where a table itself can't be read.
fn bytes_spoken_of(file: &mut File, header: &[u8]) -> Option<u64> {
    let programs = table(file, word(header, 32), half(header, 54), half(header, 56))?;
    let sections = table(file, word(header, 40), half(header, 58), half(header, 60))?;
    let mut end = 64;
    for entry in programs.iter().filter(|entry| entry.len() >= 56) {
        end = end.max(word(entry, 8).checked_add(word(entry, 32))?);
    }
    for entry in sections.iter().filter(|entry| entry.len() >= 64) {
        if int(entry, 4) != SECTION_WITHOUT_BYTES {
            end = end.max(word(entry, 24).checked_add(word(entry, 32))?);
        }
    }
    Some(end)
}

fn table(file: &mut File, offset: u64, entry: u16, count: u16) -> Option<Vec<Vec<u8>>> {
    if entry == 0 || count == 0 {
        return Some(Vec::new());
    }
    let mut bytes = vec![0; usize::from(entry) * usize::from(count)];
    file.seek(SeekFrom::Start(offset)).ok()?;
    file.read_exact(&mut bytes).ok()?;
    Some(bytes.chunks(usize::from(entry)).map(<[u8]>::to_vec).collect())
}

fn little_endian<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    if let Some(part) = bytes.get(at..at + N) {
        out.copy_from_slice(part);
    }
    out
}

fn half(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(little_endian(bytes, at))
}

fn int(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(little_endian(bytes, at))
}

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(little_endian(bytes, at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_cut_library_is_noticed_at_any_place() {
        let whole = fs::read(std::env::current_exe().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lib.so");
        fs::write(&path, &whole).unwrap();
        check_whole(&path).unwrap();
        for (keep, complaint) in [(0, "not a 64-bit ELF"), (40, "not a 64-bit ELF"), (64, "truncated")] {
            fs::write(&path, &whole[..keep]).unwrap();
            let error = check_whole(&path).unwrap_err().to_string();
            assert!(error.contains(complaint), "{keep}: {error}");
        }
        fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        assert!(check_whole(&path).unwrap_err().to_string().contains("truncated"));
        fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        assert!(check_whole(&path).unwrap_err().to_string().contains("truncated"));
    }

    #[test]
    fn other_machines_and_missing_files_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lib.so");
        assert!(check_whole(&path).unwrap_err().to_string().contains("missing"));
        let mut header = vec![0_u8; 64];
        header[..6].copy_from_slice(b"\x7fELF\x02\x01");
        header[18] = 183;
        fs::write(&path, header).unwrap();
        assert!(check_whole(&path).unwrap_err().to_string().contains("another processor"));
    }
}
