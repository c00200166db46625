//! Images with the true mask of their object, to score masks that were found without labels.
//!
//! ```text
//! data/noto-emoji-32.{png,csv}     drawings of 32 x 32 on one transparent sheet; what is opaque is the object
//! DIR/images/NAME.*  DIR/masks/NAME.png      one's own: a mask of the image's size, the object brighter than half
//! ```
//!
//! A drawing is laid on mid grey, so that the ground says nothing of the object; images whose object fills less than [`LEAST`] or more than [`MOST`] of them are left out,
//! for there is nothing to be found in them. Skin tones of one drawing count once.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use image::{ImageReader, Limits, RgbaImage};

use crate::decode::MOST_BYTES;
use crate::file::Source;
use crate::{Error, Image, Result, decode};

/// The least share of an image that an object has to fill.
pub const LEAST: f64 = 0.05;
/// The most.
pub const MOST: f64 = 0.9;
/// The grey under a drawing.
const GROUND: u32 = 128;
/// Side of a drawing.
const SIDE: u32 = 32;

/// An image and its object.
#[derive(Clone, Debug)]
pub struct Masked {
    /// What it is called.
    pub name: String,
    /// The image.
    pub image: Image,
    /// Whether each pixel belongs to the object, row by row.
    pub mask: Vec<bool>,
}

impl Masked {
    fn has_an_object(&self) -> bool {
        let share = self.mask.iter().filter(|inside| **inside).count() as f64 / self.mask.len() as f64;
        (LEAST..=MOST).contains(&share)
    }
}

/// The drawings of `noto-emoji-32.png` and `.csv` in a folder, in their order.
///
/// # Errors
/// Files that are missing, damaged, or do not belong together.
pub fn emoji(folder: &Path) -> Result<Vec<Masked>> {
    let (sheet, list) = (folder.join("noto-emoji-32.png"), folder.join("noto-emoji-32.csv"));
    if !sheet.is_file() || !list.is_file() {
        return Err(Error::Missing {
            set: "the emoji".into(),
            dir: folder.to_owned(),
            looked_for: "noto-emoji-32.png and noto-emoji-32.csv".into(),
            how: "both lie in this project's data/ folder".into(),
        });
    }
    let pixels = with_alpha(&sheet)?;
    let text = Source::open(&list)?.rest()?;
    let fault = |line: usize, reason: String| Error::Line {
        path: list.clone(),
        line,
        reason,
        expected: "a line is x_px, y_px, category, subcategory, short_name, skin",
    };
    let (mut found, mut known) = (Vec::new(), BTreeSet::new());
    for (i, record) in csv::ReaderBuilder::new().flexible(true).from_reader(&*text).records().enumerate() {
        let line = i + 2;
        let record = record.map_err(|error| fault(line, error.to_string()))?;
        let at = |column: usize| record.get(column).and_then(|field| field.trim().parse::<u32>().ok());
        let (Some(x), Some(y), Some(name)) = (at(0), at(1), record.get(4)) else {
            return Err(fault(line, format!("found {:?}", record.iter().collect::<Vec<_>>().join(","))));
        };
        let fits = |from: u32, size: u32| from.checked_add(SIDE).is_some_and(|end| end <= size);
        if !fits(x, pixels.width()) || !fits(y, pixels.height()) {
            let (width, height) = pixels.dimensions();
            return Err(fault(line, format!("a drawing at {x}, {y} lies outside the sheet of {width} x {height}")));
        }
        if known.insert(name.to_owned()) {
            let drawing = cut(&pixels, x, y, name)?;
            found.extend(drawing.has_an_object().then_some(drawing));
        }
    }
    Ok(found)
}

fn cut(sheet: &RgbaImage, left: u32, top: u32, name: &str) -> Result<Masked> {
    let places = || (0..SIDE).flat_map(move |y| (0..SIDE).map(move |x| (left + x, top + y)));
    let over = |value: u8, alpha: u8| {
        let alpha = u32::from(alpha);
        ((u32::from(value) * alpha + GROUND * (255 - alpha) + 127) / 255) as u8
    };
    let pixels = places().flat_map(|(x, y)| {
        let [r, g, b, a] = sheet.get_pixel(x, y).0;
        [r, g, b].map(|value| over(value, a))
    });
    let side = SIDE as usize;
    Ok(Masked {
        name: name.to_owned(),
        image: Image::new(side, side, 3, pixels.collect())?,
        mask: places().map(|(x, y)| sheet.get_pixel(x, y).0[3] > 127).collect(),
    })
}

/// A PNG with its alpha channel, palettes looked up.
fn with_alpha(path: &Path) -> Result<RgbaImage> {
    let fault = |reason: String| Error::Decode { origin: path.display().to_string(), reason };
    let reader = ImageReader::open(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
    let mut reader = reader.with_guessed_format().map_err(|error| fault(error.to_string()))?;
    let mut limits = Limits::default();
    limits.max_alloc = Some(MOST_BYTES);
    reader.limits(limits);
    Ok(reader.decode().map_err(|error| fault(error.to_string()))?.into_rgba8())
}

/// Images of `DIR/images` with the masks of `DIR/masks`, in the order of their names.
///
/// # Errors
/// Folders that are missing, an image without a mask, a mask of another size, files that are no images.
pub fn folder(folder: &Path) -> Result<Vec<Masked>> {
    let (images, masks) = (folder.join("images"), folder.join("masks"));
    if !images.is_dir() || !masks.is_dir() {
        return Err(Error::Missing {
            set: "images with masks".into(),
            dir: folder.to_owned(),
            looked_for: "images/ and masks/".into(),
            how: "put NAME.jpg, .png or .webp into the one and NAME.png, the object brighter than half, into the other"
                .into(),
        });
    }
    let entries = std::fs::read_dir(&images).map_err(|source| Error::Io { path: images.clone(), source })?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    files.sort();
    let mut found = Vec::new();
    for file in files {
        let name = file.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let image = read(&file)?;
        let path = masks.join(format!("{name}.png"));
        let mask = read(&path)?;
        if [mask.width, mask.height] != [image.width, image.height] {
            return Err(Error::Decode {
                origin: path.display().to_string(),
                reason: format!(
                    "a mask of {} x {} for an image of {} x {}: they must be of one size",
                    mask.width, mask.height, image.width, image.height
                ),
            });
        }
        let mask = mask.pixels.chunks_exact(mask.channels).map(|pixel| pixel[0] > 127).collect();
        let masked = Masked { name, image, mask };
        found.extend(masked.has_an_object().then_some(masked));
    }
    if found.is_empty() {
        return Err(Error::Missing {
            set: "images with masks".into(),
            dir: folder.to_owned(),
            looked_for: format!("objects that fill {} to {} of an image", LEAST, MOST),
            how: "check that masks are white where the object is".into(),
        });
    }
    Ok(found)
}

fn read(path: &Path) -> Result<Image> {
    let bytes = std::fs::read(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
    decode(&bytes, &path.display().to_string())
}
