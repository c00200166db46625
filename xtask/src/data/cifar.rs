//! CIFAR-10, in either of its forms: the official binary files, or `train/CLASS/` folders of images (and `test/`).

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::gather::Gathered;
use super::take;
use crate::files::listing;

/// A record is a label and three 32 x 32 planes; a file holds 10,000 of them.
const RECORD: usize = 1 + 3 * 32 * 32;
const RECORDS: u64 = 10_000;
const NAMES: &str = "batches.meta.txt";
const TEST: &str = "test_batch.bin";
const CLASSES: [&str; 10] = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];

/// Checks what lies below the source and puts it into `into`: the six binary files at the top, or the folders `train`
/// and `test`.
///
/// # Errors
/// A sentence naming what is missing or damaged.
pub fn place(source: &Gathered, into: &Path) -> Result<()> {
    let files = listing(&source.folder)?;
    let batch = |name: &str| files.iter().map(|(_, path)| path).find(|path| path.rsplit('/').next() == Some(name));
    if batch(TEST).is_none() {
        return images(source, &files, into);
    }
    let names = (1..=5).map(|number| format!("data_batch_{number}.bin")).chain([TEST.to_owned()]);
    let mut counts = [[0_u32; 10]; 2];
    for name in names {
        let path = source.folder.join(batch(&name).with_context(|| format!("{name} is missing"))?);
        let [train, test] = &mut counts;
        count_labels(&path, if name == TEST { test } else { train })?;
        take(source, &path, &into.join(&name))?;
    }
    if counts != [[5000; 10], [1000; 10]] {
        bail!("its classes are not 5,000 training and 1,000 test images each, but {counts:?}");
    }
    match batch(NAMES) {
        Some(path) => take(source, &source.folder.join(path), &into.join(NAMES)),
        None => fs::write(into.join(NAMES), CLASSES.join("\n") + "\n").context("writing the class names"),
    }
}

fn count_labels(path: &Path, counts: &mut [u32; 10]) -> Result<()> {
    let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let (found, expected) = (file.metadata()?.len(), RECORDS * RECORD as u64);
    if found != expected {
        bail!("{} has {found} bytes, expected {expected}", path.display());
    }
    let mut reader = BufReader::with_capacity(1 << 20, file);
    let mut record = [0; RECORD];
    for number in 0..RECORDS {
        reader.read_exact(&mut record)?;
        let label = record.first().copied().unwrap_or_default();
        match counts.get_mut(usize::from(label)) {
            Some(count) => *count += 1,
            None => bail!("{}: image {number} has the label {label}, expected 0 to 9", path.display()),
        }
    }
    Ok(())
}

fn images(source: &Gathered, files: &[(u64, String)], into: &Path) -> Result<()> {
    let mut train = BTreeMap::<&str, usize>::new();
    for (_, path) in files {
        let parts: Vec<&str> = path.split('/').collect();
        // an archive may have one folder around everything
        let Some([split @ ("train" | "test"), class, file]) = parts.get(parts.len().saturating_sub(3)..) else {
            continue;
        };
        if !CLASSES.contains(class) {
            bail!("{path}: {class:?} is no class of CIFAR-10 (those are {})", CLASSES.join(", "));
        }
        check_image(&source.folder.join(path))?;
        let place = into.join(split).join(class);
        fs::create_dir_all(&place)?;
        take(source, &source.folder.join(path), &place.join(file))?;
        if *split == "train" {
            *train.entry(class).or_default() += 1;
        }
    }
    if train.is_empty() {
        bail!("it has neither the binary files ({TEST} and others) nor images as train/CLASS/NAME.jpg");
    }
    match CLASSES.iter().find(|class| !train.contains_key(**class)) {
        Some(class) => bail!("the class {class} has no training image"),
        None => Ok(()),
    }
}

fn check_image(path: &Path) -> Result<()> {
    let mut start = [0; 8];
    let known = File::open(path)?.read_exact(&mut start).is_ok()
        && [&b"\xff\xd8\xff"[..], b"\x89PNG\r\n\x1a\n", b"RIFF"].iter().any(|magic| start.starts_with(magic));
    if !known {
        bail!("{} is no JPEG, PNG or WebP image", path.display());
    }
    Ok(())
}
