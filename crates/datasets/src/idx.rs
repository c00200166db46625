//! The IDX format of MNIST and its relatives, raw or gzip.
//!
//! A file opens with two zero bytes, the type of its values (`0x08`: unsigned bytes) and the number of dimensions;
//! then come the dimensions as big-endian 32-bit numbers, then the values, the last dimension fastest. Images have
//! three dimensions (count, rows, columns), labels one.

use std::path::{Path, PathBuf};

use crate::file::Source;
use crate::{Dataset, Error, InMemory, Result, Split};

const IMAGES: u32 = 0x0803;
const LABELS: u32 = 0x0801;

/// The classes of Fashion-MNIST, in the order of their labels.
pub const FASHION_MNIST_CLASSES: [&str; 10] =
    ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"];

/// The classes of MNIST.
pub const MNIST_CLASSES: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];

/// Reads a file of images and the file of their labels. Label `i` is the class `classes[i]`.
///
/// # Shapes
/// Grey images of the size that the file of images declares.
///
/// # Errors
/// A file that is missing, damaged, of another kind, swapped with the other one or of another count; labels that are
/// no index into `classes`; images without pixels. Nothing is allocated for data that a header only declares.
pub fn open(images: &Path, labels: &Path, classes: &[&str]) -> Result<InMemory> {
    let ([count, height, width], pixels) = read::<3>(images, IMAGES, "images")?;
    let ([label_count], label_bytes) = read::<1>(labels, LABELS, "labels")?;
    if count != label_count {
        let (images, labels) = (images.to_owned(), labels.to_owned());
        return Err(Error::CountMismatch { images, image_count: count, labels, label_count });
    }
    let label_values: Vec<usize> = label_bytes.into_iter().map(usize::from).collect();
    let set = InMemory::new(images.display().to_string(), pixels, [height, width, 1], label_values, classes);
    set.map_err(|error| match error {
        Error::Label { index, label, classes, .. } => {
            Error::Label { origin: labels.display().to_string(), index, label, classes }
        }
        other => other,
    })
}

/// Reads MNIST from `dir` (or `dir/raw`) under its official names, raw or `.gz`.
///
/// # Errors
/// As [`open`]; [`Error::Missing`] says how to get the set.
pub fn mnist(dir: &Path, split: Split) -> Result<InMemory> {
    let how = "`cargo xtask data mnist` gets it; or put the four files there as they are, raw or .gz \
               (http://yann.lecun.com/exdb/mnist and its mirrors)";
    let [images, labels] = find("MNIST", dir, split, &[official(split)], how)?;
    ten_classes(open(&images, &labels, &MNIST_CLASSES)?, &images)
}

/// Reads Fashion-MNIST from `dir` (or `dir/raw`): the full set under its official names, raw or `.gz`, or else the
/// subset of this project's `data/` folder (`fmnist-train6k-*`, `fmnist-val1k-*`), which is cut from the official
/// training file.
///
/// # Errors
/// As [`open`]; [`Error::Missing`] says how to get the set.
pub fn fashion_mnist(dir: &Path, split: Split) -> Result<InMemory> {
    let how = "`cargo xtask data fashion-mnist` gets it; or put the four files there as they are, raw or .gz \
               (https://github.com/zalandoresearch/fashion-mnist)";
    let subset = match split {
        Split::Train => "fmnist-train6k",
        Split::Test => "fmnist-val1k",
    };
    let [images, labels] = find("Fashion-MNIST", dir, split, &[official(split), subset], how)?;
    ten_classes(open(&images, &labels, &FASHION_MNIST_CLASSES)?, &images)
}

fn official(split: Split) -> &'static str {
    match split {
        Split::Train => "train",
        Split::Test => "t10k",
    }
}

/// Both sets are of 28 x 28 pixels: anything else under their names is another set.
fn ten_classes(set: InMemory, images: &Path) -> Result<InMemory> {
    match set.image_size() {
        Some([28, 28]) => Ok(set),
        size => {
            let [height, width] = size.unwrap_or_default();
            let found = format!("its images are {height} x {width}");
            let expected = "28 x 28 are expected of this set (read others with idx::open)".into();
            Err(Error::Length { path: images.to_owned(), found, expected })
        }
    }
}

/// The files of images and labels under the first prefix that has both.
fn find(set: &str, dir: &Path, split: Split, prefixes: &[&str], how: &str) -> Result<[PathBuf; 2]> {
    for folder in [dir.to_owned(), dir.join("raw")] {
        for prefix in prefixes {
            let existing = |kind: &str| {
                let names = ["-idx", ".idx"].map(|idx| format!("{prefix}-{}", kind.replacen("-idx", idx, 1)));
                let names = names.into_iter().flat_map(|name| [format!("{name}.gz"), name]);
                names.map(|name| folder.join(name)).find(|path| path.is_file())
            };
            if let (Some(images), Some(labels)) = (existing("images-idx3-ubyte"), existing("labels-idx1-ubyte")) {
                return Ok([images, labels]);
            }
        }
    }
    let pairs: Vec<_> = prefixes
        .iter()
        .map(|prefix| format!("{prefix}-images-idx3-ubyte[.gz] with {prefix}-labels-idx1-ubyte[.gz]"))
        .collect();
    Err(Error::Missing {
        set: format!("{set} ({split})"),
        dir: dir.to_owned(),
        looked_for: pairs.join(" or "),
        how: how.into(),
    })
}

/// The dimensions and the values of one file.
fn read<const D: usize>(path: &Path, magic: u32, kind: &'static str) -> Result<([usize; D], Vec<u8>)> {
    let mut source = Source::open(path)?;
    let mut number = || -> Result<u32> {
        let bytes = source.exact(Some(4), "its header")?;
        Ok(bytes.iter().fold(0, |number, &byte| number << 8 | u32::from(byte)))
    };
    match number()? {
        found if found == magic => {}
        found => return Err(wrong_magic(path, found, kind)),
    }
    let mut shape = [0; D];
    for size in &mut shape {
        *size = number()? as usize;
    }
    let bytes = shape.iter().try_fold(1u64, |product, &size| product.checked_mul(size as u64));
    let declared = shape.map(|size| size.to_string()).join(" x ");
    let values = source.exact(bytes, &format!("its data, declared as {declared},"))?;
    source.end(&format!("{declared} values"))?;
    Ok((shape, values))
}

fn wrong_magic(path: &Path, found: u32, expected: &'static str) -> Error {
    let swapped = "are the two paths swapped?";
    let (found, advice) = match found {
        IMAGES => ("it is an IDX file of images".into(), swapped),
        LABELS => ("it is an IDX file of labels".into(), swapped),
        _ => (format!("it opens with {found:#010x}"), "check that this is the right file, whole and in IDX form"),
    };
    Error::Magic { path: path.to_owned(), found, expected, advice }
}
