//! The notions everything else speaks of: an [`Image`], a [`Dataset`] of labelled images, and [`InMemory`], the data
//! set that small collections (IDX, CIFAR, digits) are read into.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// An 8-bit image, rows first, channels interleaved (HWC): value `(y, x, c)` lies at `(y * width + x) * channels + c`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Pixels across.
    pub width: usize,
    /// Pixels down.
    pub height: usize,
    /// 1 (grey) or 3 (RGB).
    pub channels: usize,
    /// `height * width * channels` values.
    pub pixels: Vec<u8>,
}

impl Image {
    /// Puts a buffer and its size together.
    ///
    /// # Errors
    /// [`Error::Layout`] where a side is 0, `channels` is neither 1 nor 3, or the buffer has another length.
    pub fn new(width: usize, height: usize, channels: usize, pixels: Vec<u8>) -> Result<Self> {
        let image = Self { width, height, channels, pixels };
        image.check()?;
        Ok(image)
    }

    /// Checks what [`Image::new`] checks; the fields are public, so that a dataset of one's own may break it.
    pub(crate) fn check(&self) -> Result<()> {
        let Self { width, height, channels, ref pixels } = *self;
        let bytes = width.checked_mul(height).and_then(|n| n.checked_mul(channels));
        if width == 0 || height == 0 || !matches!(channels, 1 | 3) || bytes != Some(pixels.len()) {
            return Err(Error::Layout { origin: "image".into(), width, height, channels, bytes: pixels.len() });
        }
        Ok(())
    }
}

/// The part of a set that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// What a model is trained on.
    Train,
    /// What it is measured on: the official test set, or the validation part of a set that has none.
    Test,
}

impl std::fmt::Display for Split {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Split::Train => "train",
            Split::Test => "test",
        })
    }
}

/// Labelled images that can be fetched in any order, from any thread.
pub trait Dataset: Send + Sync {
    /// The number of samples.
    fn len(&self) -> usize;

    /// Whether there is no sample. The data sets of this crate are never empty: opening such a one is an error.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The names of the classes; the position is the label.
    fn classes(&self) -> &[String];

    /// The label of a sample, found without decoding. `index` must be below [`Dataset::len`].
    fn label(&self, index: usize) -> usize;

    /// The image of a sample, decoded on each call.
    ///
    /// # Errors
    /// [`Error::Index`] past the end; [`Error::Decode`] or [`Error::Io`] where it cannot be read.
    fn image(&self, index: usize) -> Result<Image>;

    /// Reads the sample's file into `bytes` (whose content is replaced), for a loader that decodes only the part of it
    /// that its transforms need; `false` where there is no file, which is what this does unless it is overridden.
    /// [`decode`](crate::decode) of the bytes must be what [`Dataset::image`] gives.
    ///
    /// # Errors
    /// [`Error::Index`] past the end; [`Error::Io`] where the file cannot be read.
    fn encoded(&self, index: usize, bytes: &mut Vec<u8>) -> Result<bool> {
        let _ = (index, bytes);
        Ok(false)
    }

    /// What to call a sample in an error or a report.
    fn source(&self, index: usize) -> String;

    /// `[height, width]` where all images have the same, which spares a pipeline the resizing.
    fn image_size(&self) -> Option<[usize; 2]> {
        None
    }
}

/// A data set whose images, all of one size, lie in memory.
#[derive(Clone, Debug)]
pub struct InMemory {
    pixels: Vec<u8>,
    shape: [usize; 3],
    labels: Vec<usize>,
    classes: Vec<String>,
    origins: Vec<(usize, String)>,
}

impl InMemory {
    /// Puts images and labels together.
    ///
    /// # Shapes
    /// `pixels` is `labels.len()` images of `shape` = `[height, width, channels]`, one after the other. `name` is what
    /// [`Dataset::source`] calls the set.
    ///
    /// # Errors
    /// Sizes that contradict each other, no image, or a label that is no index into `classes`.
    pub fn new(
        name: impl Into<String>,
        pixels: Vec<u8>,
        shape: [usize; 3],
        labels: Vec<usize>,
        classes: &[impl AsRef<str>],
    ) -> Result<Self> {
        let name = name.into();
        let [height, width, channels] = shape;
        if labels.is_empty() {
            return Err(Error::Empty { origin: name, what: "holds 0 images".into() });
        }
        if width == 0 || height == 0 {
            return Err(Error::Empty { origin: name, what: format!("images of {width} x {height} have no pixels") });
        }
        let bytes = width.checked_mul(height).and_then(|n| n.checked_mul(channels));
        if !matches!(channels, 1 | 3) || bytes.and_then(|n| n.checked_mul(labels.len())) != Some(pixels.len()) {
            return Err(Error::Layout { origin: name, width, height, channels, bytes: pixels.len() });
        }
        if let Some((index, &label)) = labels.iter().enumerate().find(|&(_, &label)| label >= classes.len()) {
            return Err(Error::Label { origin: name, index, label, classes: classes.len() });
        }
        let classes = classes.iter().map(|class| class.as_ref().to_owned()).collect();
        Ok(Self { pixels, shape, labels, classes, origins: vec![(0, name)] })
    }

    /// Adds the samples of `other` after one's own; both must have the same shape and classes.
    pub(crate) fn extend(&mut self, other: InMemory) {
        debug_assert!(self.shape == other.shape && self.classes == other.classes);
        let first = self.labels.len();
        self.origins.extend(other.origins.into_iter().map(|(start, name)| (first + start, name)));
        self.pixels.extend(other.pixels);
        self.labels.extend(other.labels);
    }
}

impl Dataset for InMemory {
    fn len(&self) -> usize {
        self.labels.len()
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn label(&self, index: usize) -> usize {
        self.labels[index]
    }

    fn image(&self, index: usize) -> Result<Image> {
        let [height, width, channels] = self.shape;
        let size = height * width * channels;
        let pixels = index.checked_mul(size).and_then(|start| self.pixels.get(start..start + size));
        let pixels = pixels.ok_or(Error::Index { index, len: self.len() })?.to_vec();
        Ok(Image { width, height, channels, pixels })
    }

    fn source(&self, index: usize) -> String {
        let origin = self.origins.iter().rev().find(|(start, _)| *start <= index);
        origin.map_or_else(|| format!("sample {index}"), |(start, name)| format!("{name}, image {}", index - start))
    }

    fn image_size(&self) -> Option<[usize; 2]> {
        Some([self.shape[0], self.shape[1]])
    }
}
