//! CIFAR-10 and CIFAR-100: 32 x 32 colour images in the official binary files, or as a folder of images by class.
//!
//! A binary file is a row of records: one byte of label (CIFAR-100: coarse, then fine; the fine one is used), then
//! 1,024 bytes each of red, green and blue, rows first. CIFAR-100's names of the classes may lie beside it, one a line.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::file::Source;
use crate::{Dataset, Error, ImageFolder, InMemory, Result, Split};

const SIDE: usize = 32;
const PLANE: usize = SIDE * SIDE;

/// The classes of CIFAR-10, in the order of their labels.
pub const CIFAR10_CLASSES: [&str; 10] =
    ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];

/// The (fine) classes of CIFAR-100, in the order of their labels.
#[rustfmt::skip]
pub const CIFAR100_CLASSES: [&str; 100] = [
    "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle", "bottle",
    "bowl", "boy", "bridge", "bus", "butterfly", "camel", "can", "castle", "caterpillar", "cattle",
    "chair", "chimpanzee", "clock", "cloud", "cockroach", "couch", "crab", "crocodile", "cup", "dinosaur",
    "dolphin", "elephant", "flatfish", "forest", "fox", "girl", "hamster", "house", "kangaroo", "keyboard",
    "lamp", "lawn_mower", "leopard", "lion", "lizard", "lobster", "man", "maple_tree", "motorcycle", "mountain",
    "mouse", "mushroom", "oak_tree", "orange", "orchid", "otter", "palm_tree", "pear", "pickup_truck", "pine_tree",
    "plain", "plate", "poppy", "porcupine", "possum", "rabbit", "raccoon", "ray", "road", "rocket",
    "rose", "sea", "seal", "shark", "shrew", "skunk", "skyscraper", "snail", "snake", "spider",
    "squirrel", "streetcar", "sunflower", "sweet_pepper", "table", "tank", "telephone", "television", "tiger", "tractor",
    "train", "trout", "tulip", "turtle", "wardrobe", "whale", "willow_tree", "wolf", "woman", "worm",
];

/// What tells the two sets apart.
struct Kind {
    name: &'static str,
    folder: &'static str,
    train: &'static [&'static str],
    test: &'static [&'static str],
    /// Bytes before the pixels; the last of them is the label.
    header: usize,
    classes: &'static [&'static str],
    /// The file of names beside the others, whose order goes before that of `classes`.
    names: Option<&'static str>,
}

const CIFAR10: Kind = Kind {
    name: "CIFAR-10",
    folder: "cifar-10-batches-bin",
    train: &["data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"],
    test: &["test_batch.bin"],
    header: 1,
    classes: &CIFAR10_CLASSES,
    names: None,
};

const CIFAR100: Kind = Kind {
    name: "CIFAR-100",
    folder: "cifar-100-binary",
    train: &["train.bin"],
    test: &["test.bin"],
    header: 2,
    classes: &CIFAR100_CLASSES,
    names: Some("fine_label_names.txt"),
};

/// Opens CIFAR-10 in `dir`: the official binary files, also one folder down in `cifar-10-batches-bin`, or else
/// images by class in `train/CLASS/` and `test/CLASS/`, whose classes must be those of [`CIFAR10_CLASSES`].
///
/// # Errors
/// [`Error::Missing`] with how to get the set; a file that is no whole number of records or has a label past 9.
pub fn cifar10(dir: &Path, split: Split) -> Result<Arc<dyn Dataset>> {
    open(&CIFAR10, dir, split)
}

/// Opens CIFAR-100 with its fine labels: `train.bin` and `test.bin` in `dir` or in `cifar-100-binary` below it, or
/// images by class as [`cifar10`]. Where `fine_label_names.txt` lies beside the binary files it names the classes,
/// otherwise [`CIFAR100_CLASSES`] does.
///
/// # Errors
/// As [`cifar10`], with labels up to 99; a file of names that are not 100 or not all different.
pub fn cifar100(dir: &Path, split: Split) -> Result<Arc<dyn Dataset>> {
    open(&CIFAR100, dir, split)
}

fn open(kind: &Kind, dir: &Path, split: Split) -> Result<Arc<dyn Dataset>> {
    let names = match split {
        Split::Train => kind.train,
        Split::Test => kind.test,
    };
    for folder in [dir.to_owned(), dir.join(kind.folder)] {
        let files: Vec<_> = names.iter().map(|name| folder.join(name)).collect();
        match files.iter().filter(|file| file.is_file()).count() {
            0 => {}
            found if found == files.len() => return Ok(Arc::new(binary(kind, &files, &class_names(kind, &folder)?)?)),
            found => {
                return Err(missing(kind, dir, split, format!("{} ({found} of them are there)", names.join(", "))));
            }
        }
    }
    let folder = dir.join(split.to_string());
    if folder.is_dir() {
        return Ok(Arc::new(ImageFolder::open_with_classes(&folder, kind.classes)?));
    }
    Err(missing(kind, dir, split, format!("{}, or a folder {split}/ of images by class", names.join(", "))))
}

fn missing(kind: &Kind, dir: &Path, split: Split, looked_for: String) -> Error {
    let Kind { name, folder, .. } = kind;
    let how = format!(
        "unpack the \"{name} binary version\" of https://www.cs.toronto.edu/~kriz/cifar.html there (it makes {folder}/); \
         images by class in other folders open as an image folder, with a part of them held out for testing"
    );
    Error::Missing { set: format!("{name} ({split})"), dir: dir.to_owned(), looked_for, how }
}

/// The names of the classes, from the folder's own list where it has one.
fn class_names(kind: &Kind, folder: &Path) -> Result<Vec<String>> {
    let usual = || kind.classes.iter().map(|&class| class.to_owned()).collect();
    let Some(path) = kind.names.map(|name| folder.join(name)).filter(|path| path.is_file()) else { return Ok(usual()) };
    let text = Source::open(&path)?.rest()?;
    let text = String::from_utf8_lossy(&text);
    let names: Vec<_> = text.lines().map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect();
    let different = names.iter().collect::<HashSet<_>>().len();
    if names.len() != kind.classes.len() || different != names.len() {
        let found = format!("it has {} names, {different} of them different", names.len());
        let expected = format!("the {} classes are expected, one a line", kind.classes.len());
        return Err(Error::Length { path, found, expected });
    }
    Ok(names)
}

/// Reads several binary files as one set.
fn binary(kind: &Kind, files: &[PathBuf], classes: &[String]) -> Result<InMemory> {
    let mut sets = files.iter().map(|file| records(kind, file, classes));
    let first =
        sets.next().unwrap_or_else(|| Err(Error::Empty { origin: kind.name.into(), what: "no file".into() }))?;
    sets.try_fold(first, |mut all, set| {
        all.extend(set?);
        Ok(all)
    })
}

fn records(kind: &Kind, path: &Path, classes: &[String]) -> Result<InMemory> {
    let bytes = Source::open(path)?.rest()?;
    let size = kind.header + 3 * PLANE;
    if bytes.is_empty() || bytes.len() % size != 0 {
        let found = format!("it holds {} bytes", bytes.len());
        let expected = format!("a {} file is a whole number of records of {size} bytes", kind.name);
        return Err(Error::Length { path: path.to_owned(), found, expected });
    }
    let mut pixels = Vec::with_capacity(bytes.len() / size * 3 * PLANE);
    let mut labels = Vec::with_capacity(bytes.len() / size);
    for record in bytes.chunks_exact(size) {
        let (header, planes) = record.split_at(kind.header);
        labels.extend(header.last().map(|&label| usize::from(label)));
        let (red, rest) = planes.split_at(PLANE);
        let (green, blue) = rest.split_at(PLANE);
        pixels.extend(red.iter().zip(green).zip(blue).flat_map(|((&r, &g), &b)| [r, g, b]));
    }
    InMemory::new(path.display().to_string(), pixels, [SIDE, SIDE, 3], labels, classes)
}
