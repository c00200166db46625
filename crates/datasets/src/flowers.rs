//! Oxford Flowers-102: 8,189 photographs of 102 kinds of flowers.
//!
//! The official files are `jpg/image_00001.jpg` and so on, `imagelabels.mat` with a row `labels` of each image's class
//! from 1, and `setid.mat` with the rows `trnid`, `valid` and `tstid` of the numbers of the images for training (1,020),
//! validation (1,020) and testing (6,149).

use std::path::Path;

use crate::{Error, ImageFolder, Result, Split, matlab};

/// The names of the classes in the order of their labels, which the official files do not hold: those of torchvision.
#[rustfmt::skip]
pub const FLOWERS102_CLASSES: [&str; 102] = [
    "pink primrose", "hard-leaved pocket orchid", "canterbury bells", "sweet pea", "english marigold", "tiger lily",
    "moon orchid", "bird of paradise", "monkshood", "globe thistle", "snapdragon", "colt's foot", "king protea",
    "spear thistle", "yellow iris", "globe-flower", "purple coneflower", "peruvian lily", "balloon flower",
    "giant white arum lily", "fire lily", "pincushion flower", "fritillary", "red ginger", "grape hyacinth",
    "corn poppy", "prince of wales feathers", "stemless gentian", "artichoke", "sweet william", "carnation",
    "garden phlox", "love in the mist", "mexican aster", "alpine sea holly", "ruby-lipped cattleya", "cape flower",
    "great masterwort", "siam tulip", "lenten rose", "barbeton daisy", "daffodil", "sword lily", "poinsettia",
    "bolero deep blue", "wallflower", "marigold", "buttercup", "oxeye daisy", "common dandelion", "petunia",
    "wild pansy", "primula", "sunflower", "pelargonium", "bishop of llandaff", "gaura", "geranium", "orange dahlia",
    "pink-yellow dahlia?", "cautleya spicata", "japanese anemone", "black-eyed susan", "silverbush",
    "californian poppy", "osteospermum", "spring crocus", "bearded iris", "windflower", "tree poppy", "gazania",
    "azalea", "water lily", "rose", "thorn apple", "morning glory", "passion flower", "lotus", "toad lily",
    "anthurium", "frangipani", "clematis", "hibiscus", "columbine", "desert-rose", "tree mallow", "magnolia",
    "cyclamen", "watercress", "canna lily", "hippeastrum", "bee balm", "ball moss", "foxglove", "bougainvillea",
    "camellia", "mallow", "mexican petunia", "bromelia", "blanket flower", "trumpet creeper", "blackberry lily",
];

/// One of the three official parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// 10 images of each class.
    Train,
    /// 10 others of each class.
    Validation,
    /// The rest.
    Test,
}

impl Part {
    fn row(self) -> &'static str {
        match self {
            Part::Train => "trnid",
            Part::Validation => "valid",
            Part::Test => "tstid",
        }
    }
}

/// Opens the set in `dir` or in `flowers-102` below it: [`Part::Train`] for training and [`Part::Test`] for testing, as
/// torchvision has it and the fine-tuning of CRATE takes it.
///
/// # Errors
/// As [`parts`].
pub fn flowers102(dir: &Path, split: Split) -> Result<ImageFolder> {
    match split {
        Split::Train => parts(dir, &[Part::Train]),
        Split::Test => parts(dir, &[Part::Test]),
    }
}

/// Opens several parts as one set, one after the other, each in the order of its row.
///
/// # Errors
/// [`Error::Missing`] where a file of the layout, or an image that a row names, is not there; [`Error::Matlab`] for a
/// file that is damaged, holds no such row, or has numbers past the images or the classes; [`Error::Empty`] without any
/// image.
pub fn parts(dir: &Path, parts: &[Part]) -> Result<ImageFolder> {
    let missing = |looked_for: String| Error::Missing {
        set: "Oxford Flowers-102".into(),
        dir: dir.to_owned(),
        looked_for,
        how:
            "unpack 102flowers.tgz of https://www.robots.ox.ac.uk/~vgg/data/flowers/102 there (it makes jpg/) and put \
              imagelabels.mat and setid.mat beside it"
                .into(),
    };
    let whole = |folder: &Path| {
        ["imagelabels.mat", "setid.mat"].iter().all(|name| folder.join(name).is_file()) && folder.join("jpg").is_dir()
    };
    let folders = [dir.to_owned(), dir.join("flowers-102")];
    let folder = folders.into_iter().find(|folder| whole(folder));
    let folder = folder.ok_or_else(|| missing("jpg/, imagelabels.mat and setid.mat, also in flowers-102/".into()))?;

    let (labels_file, parts_file) = (folder.join("imagelabels.mat"), folder.join("setid.mat"));
    let labels = matlab::vector(&labels_file, "labels")?;
    let mut files = Vec::new();
    for part in parts {
        for number in matlab::vector(&parts_file, part.row())? {
            let label = number.checked_sub(1).and_then(|index| labels.get(index)).copied();
            let label = label.ok_or_else(|| Error::Matlab {
                path: parts_file.clone(),
                reason: format!("{} names image {number}", part.row()),
                expected: format!(
                    "expected are images from 1 to {}, of which imagelabels.mat has labels",
                    labels.len()
                ),
            })?;
            let label = label.checked_sub(1).filter(|&label| label < FLOWERS102_CLASSES.len());
            let label = label.ok_or_else(|| Error::Matlab {
                path: labels_file.clone(),
                reason: format!("image {number} is of class {}", labels[number - 1]),
                expected: format!("expected are classes from 1 to {}", FLOWERS102_CLASSES.len()),
            })?;
            let file = format!("jpg/image_{number:05}.jpg");
            if !folder.join(&file).is_file() {
                return Err(missing(format!("{file}, which {} of setid.mat names", part.row())));
            }
            files.push((folder.join(file), label));
        }
    }
    if files.is_empty() {
        return Err(Error::Empty { origin: parts_file.display().to_string(), what: "lists 0 images".into() });
    }
    Ok(ImageFolder::of_list(files, &FLOWERS102_CLASSES))
}
