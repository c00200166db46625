//! The steps from a decoded image to one of the model's size, with the meaning they have in torchvision.
//!
//! A [`Transform`] is data: it is written in a recipe as a table whose `op` names the step, and it is applied by a
//! [`Pipeline`](crate::Pipeline). Random ones draw from the sample's own [`SampleRng`], one after the other; the size of
//! the image is all that they need to know, so that a [`Step`] is settled before the image is decoded.

use serde::{Deserialize, Serialize};

use crate::augment::{self, Adjust, AugmentList, Blur};
use crate::raster::Part;
use crate::step::{Step, centred, random_hole, random_part, shorter_side_to};
use crate::{Error, Result, SampleRng};

/// The longest side that can be asked for, and the most pixels that a step may make (8192 x 8192), so that neither a
/// slip in a recipe nor an image of one by sixty thousand pixels takes all memory.
const LONGEST: usize = 1 << 13;
const MOST_PIXELS: usize = 1 << 26;
/// The most operations on one image, and the most bins of their magnitude.
const MOST_OPERATIONS: usize = 64;
const MOST_BINS: usize = 1000;
/// The longest side of a blur's kernel.
const MOST_KERNEL: usize = 255;

/// How pixels are weighted when a size changes; shrinking widens the filter (antialiasing), as PIL does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Filter {
    /// Linear interpolation, torchvision's default.
    #[default]
    Bilinear,
    /// Cubic with `a = -0.5`, as PIL's.
    Bicubic,
}

/// A size in pixels: one number, or `[height, width]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "a size is one number of pixels or [height, width]")]
pub enum Size {
    /// A square; for [`Transform::Resize`] the length of the shorter side.
    Side(usize),
    /// Height, then width.
    Exact([usize; 2]),
}

impl Size {
    fn height_width(self) -> [usize; 2] {
        match self {
            Size::Side(side) => [side, side],
            Size::Exact(size) => size,
        }
    }
}

impl From<usize> for Size {
    fn from(side: usize) -> Self {
        Size::Side(side)
    }
}

impl From<[usize; 2]> for Size {
    fn from(size: [usize; 2]) -> Self {
        Size::Exact(size)
    }
}

/// What stands where random erasing has erased.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Erased {
    /// The pipeline's mean, exactly 0 once normalised: torchvision's default.
    #[default]
    Mean,
    /// Black.
    Black,
}

/// One step. In a recipe: `{ op = "random_crop", size = 28, padding = 2 }`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum Transform {
    /// To exactly `[height, width]`, or the shorter side to `size` and the longer one to `floor(size * long / short)`.
    Resize {
        /// The new size.
        size: Size,
        /// The filter.
        #[serde(default)]
        filter: Filter,
    },
    /// The middle of the image. Its corner is `round((side - crop) / 2)`, halves to even; an image too small is first
    /// padded with black, the smaller half before.
    CenterCrop {
        /// The size to cut out.
        size: Size,
    },
    /// A rectangle of random area and shape, resized. Ten tries draw the area (uniform within `scale` times the
    /// image's), the shape (width / height, log-uniform within `ratio`) and, once it fits, the corner; then the largest
    /// centred rectangle with a shape within `ratio` is taken.
    RandomResizedCrop {
        /// The size afterwards.
        size: Size,
        /// Least and largest part of the area.
        #[serde(default = "full_scale")]
        scale: [f64; 2],
        /// Least and largest width / height.
        #[serde(default = "usual_ratio")]
        ratio: [f64; 2],
        /// The filter.
        #[serde(default)]
        filter: Filter,
    },
    /// A random place in the image after `padding` black pixels were put on each side.
    RandomCrop {
        /// The size to cut out.
        size: Size,
        /// Pixels on each side.
        #[serde(default)]
        padding: usize,
    },
    /// Mirrors left and right.
    HorizontalFlip {
        /// How often.
        #[serde(default = "half")]
        probability: f64,
    },
    /// `n` operations one after the other, each any of a list (also the same one again), each of magnitude `m`. Whatever
    /// moves pixels takes the nearest one, shears keep the upper left corner.
    RandAugment {
        /// How many operations.
        #[serde(default = "usual_operations")]
        n: usize,
        /// The bin of their magnitude, from 0 (least) to `bins - 1`.
        #[serde(default = "usual_magnitude")]
        m: usize,
        /// How many bins a range is divided into, both ends counted.
        #[serde(default = "usual_bins")]
        bins: usize,
        /// The operations.
        #[serde(default)]
        list: AugmentList,
        /// The value of what comes from outside of the image, in each channel.
        #[serde(default)]
        fill: u8,
    },
    /// One operation of torchvision's list whose magnitude is any bin of a wide range: TrivialAugment Wide.
    TrivialAugment {
        /// How many bins a range is divided into.
        #[serde(default = "usual_bins")]
        bins: usize,
        /// The value of what comes from outside of the image, in each channel.
        #[serde(default)]
        fill: u8,
    },
    /// Brightness, contrast and saturation by factors uniform in `[max(0, 1 - x), 1 + x]` and the hue turned by a part of
    /// the circle uniform in `[-x, x]`, in random order. What is 0 stays as it is.
    ColorJitter {
        /// How far from 1.
        #[serde(default)]
        brightness: f64,
        /// How far from 1.
        #[serde(default)]
        contrast: f64,
        /// How far from 1.
        #[serde(default)]
        saturation: f64,
        /// How far from 0, at most half of the circle.
        #[serde(default)]
        hue: f64,
    },
    /// Takes the colour away; the channels stay.
    Grayscale {
        /// How often.
        #[serde(default = "tenth")]
        probability: f64,
    },
    /// Blurs by a Gaussian whose deviation is uniform within `sigma`.
    GaussianBlur {
        /// The side of the kernel in pixels, odd.
        kernel: usize,
        /// Least and largest standard deviation in pixels.
        #[serde(default = "usual_sigma")]
        sigma: [f64; 2],
        /// How often.
        #[serde(default = "half")]
        probability: f64,
    },
    /// Erases a rectangle of random area and shape. Ten tries draw the area (uniform within `scale` times the image's),
    /// the shape (height / width, log-uniform within `ratio`) and, once it is smaller than the image on both sides, the
    /// corner; then nothing is erased. Normalised values are what is replaced, as in torchvision, so that it can only
    /// be a pipeline's last step.
    RandomErasing {
        /// How often.
        #[serde(default = "half")]
        probability: f64,
        /// Least and largest part of the area.
        #[serde(default = "erased_scale")]
        scale: [f64; 2],
        /// Least and largest height / width.
        #[serde(default = "erased_ratio")]
        ratio: [f64; 2],
        /// What stands there then.
        #[serde(default)]
        value: Erased,
    },
}

fn full_scale() -> [f64; 2] {
    [0.08, 1.0]
}

fn usual_ratio() -> [f64; 2] {
    [3.0 / 4.0, 4.0 / 3.0]
}

fn half() -> f64 {
    0.5
}

fn tenth() -> f64 {
    0.1
}

fn usual_operations() -> usize {
    2
}

fn usual_magnitude() -> usize {
    9
}

fn usual_bins() -> usize {
    31
}

fn usual_sigma() -> [f64; 2] {
    [0.1, 2.0]
}

fn erased_scale() -> [f64; 2] {
    [0.02, 0.33]
}

fn erased_ratio() -> [f64; 2] {
    [0.3, 3.3]
}

impl Transform {
    /// [`Transform::RandomResizedCrop`] with area 0.08 to 1, shape 3/4 to 4/3, bilinear.
    pub fn random_resized_crop(size: impl Into<Size>) -> Self {
        Transform::RandomResizedCrop {
            size: size.into(),
            scale: full_scale(),
            ratio: usual_ratio(),
            filter: Filter::default(),
        }
    }

    /// [`Transform::RandAugment`] of torchvision's list in 31 bins, filled with black.
    pub fn rand_augment(n: usize, m: usize) -> Self {
        Transform::RandAugment { n, m, bins: usual_bins(), list: AugmentList::default(), fill: 0 }
    }

    /// [`Transform::RandomErasing`] of area 0.02 to 0.33, shape 0.3 to 3.3, with the mean.
    pub fn random_erasing(probability: f64) -> Self {
        Transform::RandomErasing { probability, scale: erased_scale(), ratio: erased_ratio(), value: Erased::default() }
    }

    /// The name it has in a recipe.
    pub fn name(&self) -> &'static str {
        match self {
            Transform::Resize { .. } => "resize",
            Transform::CenterCrop { .. } => "center_crop",
            Transform::RandomResizedCrop { .. } => "random_resized_crop",
            Transform::RandomCrop { .. } => "random_crop",
            Transform::HorizontalFlip { .. } => "horizontal_flip",
            Transform::RandAugment { .. } => "rand_augment",
            Transform::TrivialAugment { .. } => "trivial_augment",
            Transform::ColorJitter { .. } => "color_jitter",
            Transform::Grayscale { .. } => "grayscale",
            Transform::GaussianBlur { .. } => "gaussian_blur",
            Transform::RandomErasing { .. } => "random_erasing",
        }
    }

    /// Checks the values that do not depend on an image.
    pub(crate) fn validate(&self) -> Result<()> {
        let name = |field: &str| format!("{}.{field}", self.name());
        let side = |field: &str, value: usize, least: usize| {
            let expected = format!("a number of pixels from {least} to {LONGEST} is expected");
            if (least..=LONGEST).contains(&value) { Ok(()) } else { Err(Error::config(name(field), value, expected)) }
        };
        let range = |field: &str, [low, high]: [f64; 2], most: f64| {
            let expected = format!("two numbers are expected, 0 < low <= high <= {most}");
            if 0.0 < low && low <= high && high <= most {
                Ok(())
            } else {
                Err(Error::config(name(field), format!("[{low}, {high}]"), expected))
            }
        };
        let whole = |field: &str, value: usize, [least, most]: [usize; 2]| {
            let expected = format!("a whole number from {least} to {most} is expected");
            if (least..=most).contains(&value) { Ok(()) } else { Err(Error::config(name(field), value, expected)) }
        };
        let real = |field: &str, value: f64, most: f64| {
            let expected = format!("a number from 0 to {most} is expected");
            if (0.0..=most).contains(&value) { Ok(()) } else { Err(Error::config(name(field), value, expected)) }
        };
        match *self {
            Transform::Resize { size, .. } | Transform::CenterCrop { size } => {
                size.height_width().into_iter().try_for_each(|value| side("size", value, 1))
            }
            Transform::RandomResizedCrop { size, scale, ratio, .. } => {
                size.height_width().into_iter().try_for_each(|value| side("size", value, 1))?;
                range("scale", scale, 1.0)?;
                range("ratio", ratio, 1000.0)
            }
            Transform::RandomCrop { size, padding } => {
                size.height_width().into_iter().try_for_each(|value| side("size", value, 1))?;
                side("padding", padding, 0)
            }
            Transform::HorizontalFlip { probability } | Transform::Grayscale { probability } => {
                real("probability", probability, 1.0)
            }
            Transform::RandAugment { n, m, bins, .. } => {
                whole("n", n, [1, MOST_OPERATIONS])?;
                whole("bins", bins, [2, MOST_BINS])?;
                whole("m", m, [0, bins - 1])
            }
            Transform::TrivialAugment { bins, .. } => whole("bins", bins, [2, MOST_BINS]),
            Transform::ColorJitter { brightness, contrast, saturation, hue } => {
                [("brightness", brightness), ("contrast", contrast), ("saturation", saturation)]
                    .into_iter()
                    .try_for_each(|(field, value)| real(field, value, 1000.0))?;
                real("hue", hue, 0.5)
            }
            Transform::GaussianBlur { kernel, sigma, probability } => {
                if kernel % 2 == 0 || kernel > MOST_KERNEL {
                    let expected = format!("an odd number of pixels up to {MOST_KERNEL} is expected");
                    return Err(Error::config(name("kernel"), kernel, expected));
                }
                range("sigma", sigma, 1000.0)?;
                real("probability", probability, 1.0)
            }
            Transform::RandomErasing { probability, scale, ratio, .. } => {
                real("probability", probability, 1.0)?;
                range("scale", scale, 1.0)?;
                range("ratio", ratio, 1000.0)
            }
        }
    }

    /// `[height, width]` afterwards, where it does not depend on the image.
    pub(crate) fn fixed_size(&self) -> Option<[usize; 2]> {
        match *self {
            Transform::Resize { size: Size::Exact(size), .. } => Some(size),
            Transform::CenterCrop { size }
            | Transform::RandomResizedCrop { size, .. }
            | Transform::RandomCrop { size, .. } => Some(size.height_width()),
            _ => None,
        }
    }

    /// `[height, width]` of an image of `[height, width]` afterwards.
    pub(crate) fn size_after(&self, before: [usize; 2]) -> [usize; 2] {
        match *self {
            Transform::Resize { size: Size::Side(side), .. } => shorter_side_to(side, before),
            _ => self.fixed_size().unwrap_or(before),
        }
    }

    /// Adds to `steps` what is to be done to an image of `[height, width]`: everything that is left to chance is drawn
    /// here, so that it is known before an image is decoded.
    pub(crate) fn draw(&self, before: [usize; 2], rng: &mut SampleRng, steps: &mut Vec<Step>) -> Result<()> {
        match *self {
            Transform::Resize { filter, .. } => {
                let size = self.resized(before)?;
                steps.push(Step::Resize { part: Part::whole(before), size, filter });
            }
            Transform::CenterCrop { size } => {
                let size = size.height_width();
                steps.push(Step::Cut { top: centred(before[0], size[0]), left: centred(before[1], size[1]), size });
            }
            Transform::RandomResizedCrop { size, scale, ratio, filter } => {
                let part = random_part(before, scale, ratio, rng);
                steps.push(Step::Resize { part, size: size.height_width(), filter });
            }
            Transform::RandomCrop { size, padding } => {
                let size @ [height, width] = size.height_width();
                let rooms =
                    (before[0] + 2 * padding).checked_sub(height).zip((before[1] + 2 * padding).checked_sub(width));
                let (down, across) = rooms.ok_or_else(|| {
                    let crop = format!("the crop of {width} x {height}; put a resize before it");
                    self.unfit(before, format!("with {padding} pixels of padding it is smaller than {crop}"))
                })?;
                let top = rng.below(down + 1) as isize - padding as isize;
                let left = rng.below(across + 1) as isize - padding as isize;
                steps.push(Step::Cut { top, left, size });
            }
            Transform::HorizontalFlip { probability } => steps.extend(rng.chance(probability).then_some(Step::Flip)),
            Transform::RandAugment { n, m, bins, list, fill } => {
                augment::rand_augment(n, (m, bins), list, fill, before, rng, steps);
            }
            Transform::TrivialAugment { bins, fill } => augment::trivial_augment(bins, fill, before, rng, steps),
            Transform::ColorJitter { brightness, contrast, saturation, hue } => {
                augment::color_jitter([brightness, contrast, saturation, hue], rng, steps);
            }
            Transform::Grayscale { probability } => {
                steps.extend(rng.chance(probability).then_some(Step::Adjust(Adjust::Grey)));
            }
            Transform::GaussianBlur { kernel, sigma: [low, high], probability } => {
                let sigma = rng.chance(probability).then(|| rng.uniform(low, high));
                steps.extend(sigma.map(|sigma| Step::Blur(Blur { kernel, sigma })));
            }
            Transform::RandomErasing { probability, scale, ratio, value } => {
                let part = rng.chance(probability).then(|| random_hole(before, scale, ratio, rng)).flatten();
                steps.extend(part.map(|part| Step::Erase { part, value }));
            }
        }
        Ok(())
    }

    /// [`Transform::size_after`] where it is not too large.
    fn resized(&self, before: [usize; 2]) -> Result<[usize; 2]> {
        let [height, width] = self.size_after(before);
        if height.checked_mul(width).is_none_or(|pixels| pixels > MOST_PIXELS) {
            let advice = "remove the image or resize to [height, width]";
            let found = format!("it would become {width} x {height}, more than {MOST_PIXELS} pixels; {advice}");
            return Err(self.unfit(before, found));
        }
        Ok([height, width])
    }

    fn unfit(&self, [height, width]: [usize; 2], reason: String) -> Error {
        Error::Unfit { transform: self.name(), width, height, reason }
    }
}
