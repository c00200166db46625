//! Oxford-IIIT Pets: photographs of 37 breeds of cats and dogs, about 3,700 for training and as many for testing.
//!
//! The official archives make `images/NAME.jpg` and `annotations/{trainval,test}.txt`, whose lines are
//! `NAME CLASS SPECIES BREED`: the class from 1, the species (1 cat, 2 dog) and the breed within it. A name is the breed
//! and a number, `Abyssinian_100`.

use std::path::Path;

use crate::file::Source;
use crate::{Error, ImageFolder, Result, Split};

/// The breeds, in the order of their labels.
#[rustfmt::skip]
pub const PETS_CLASSES: [&str; 37] = [
    "Abyssinian", "american_bulldog", "american_pit_bull_terrier", "basset_hound", "beagle", "Bengal", "Birman",
    "Bombay", "boxer", "British_Shorthair", "chihuahua", "Egyptian_Mau", "english_cocker_spaniel", "english_setter",
    "german_shorthaired", "great_pyrenees", "havanese", "japanese_chin", "keeshond", "leonberger", "Maine_Coon",
    "miniature_pinscher", "newfoundland", "Persian", "pomeranian", "pug", "Ragdoll", "Russian_Blue", "saint_bernard",
    "samoyed", "scottish_terrier", "shiba_inu", "Siamese", "Sphynx", "staffordshire_bull_terrier", "wheaten_terrier",
    "yorkshire_terrier",
];

const EXPECTED: &str = "a line is NAME_NUMBER CLASS SPECIES BREED, with the class from 1 to 37 that the name says";

/// Opens the set in `dir` or in `oxford-iiit-pet` below it: the images that `trainval.txt` lists for training, those of
/// `test.txt` for testing, in the order of the list.
///
/// # Errors
/// [`Error::Missing`] where the list or an image that it names is not there; [`Error::Line`] for a line that is none of a
/// list, names a file elsewhere, or has another class than its name; [`Error::Empty`] for a list without a line.
pub fn pets(dir: &Path, split: Split) -> Result<ImageFolder> {
    let list = match split {
        Split::Train => "trainval.txt",
        Split::Test => "test.txt",
    };
    let missing = |looked_for: String| Error::Missing {
        set: format!("Oxford-IIIT Pets ({split})"),
        dir: dir.to_owned(),
        looked_for,
        how: "unpack images.tar.gz and annotations.tar.gz of https://www.robots.ox.ac.uk/~vgg/data/pets there".into(),
    };
    let folders = [dir.to_owned(), dir.join("oxford-iiit-pet")];
    let folder = folders.into_iter().find(|folder| folder.join("annotations").join(list).is_file());
    let folder = folder.ok_or_else(|| missing(format!("annotations/{list}, also in oxford-iiit-pet/")))?;
    let path = folder.join("annotations").join(list);

    let text = Source::open(&path)?.rest()?;
    let mut files = Vec::new();
    for (line, text) in String::from_utf8_lossy(&text).lines().enumerate() {
        let text = text.trim();
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        let fault = |reason| Error::Line { path: path.clone(), line: line + 1, reason, expected: EXPECTED };
        let (name, label) = entry(text).map_err(fault)?;
        let file = format!("images/{name}.jpg");
        if !folder.join(&file).is_file() {
            return Err(missing(format!("{file}, which line {} of annotations/{list} names", line + 1)));
        }
        files.push((folder.join(file), label));
    }
    if files.is_empty() {
        return Err(Error::Empty { origin: path.display().to_string(), what: "lists 0 images".into() });
    }
    Ok(ImageFolder::of_list(files, &PETS_CLASSES))
}

/// The name and the label of a line, or what is wrong with it.
fn entry(text: &str) -> std::result::Result<(&str, usize), String> {
    let fields: Vec<&str> = text.split_whitespace().collect();
    let [name, class, species, breed] = fields[..] else { return Err(format!("{} fields were found", fields.len())) };
    // What it is not to be is a way out of the folder of images.
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    let known = |class: &usize| (1..=PETS_CLASSES.len()).contains(class);
    let number = |text: &str| text.parse().ok().filter(|value: &usize| *value > 0);
    let [Some(class), Some(_), Some(_)] = [number(class).filter(known), number(species), number(breed)] else {
        return Err(format!("{class:?}, {species:?} and {breed:?} are no class, species and breed"));
    };
    match name.rsplit_once('_') {
        Some((prefix, _)) if !name.chars().all(plain) || !prefix.eq_ignore_ascii_case(PETS_CLASSES[class - 1]) => {
            Err(format!("{name:?} is no name of class {class}, {}", PETS_CLASSES[class - 1]))
        }
        Some(_) => Ok((name, class - 1)),
        None => Err(format!("{name:?} has no number")),
    }
}
