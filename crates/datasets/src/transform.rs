//! The steps from a decoded image to one of the model's size, with the meaning they have in torchvision.
//!
//! A [`Transform`] is data: it is written in a recipe as a table whose `op` names the step, and it is applied by a
//! [`Pipeline`](crate::Pipeline). Random ones draw from the sample's own [`SampleRng`], one after the other; the size of
//! the image is all that they need to know, so that a [`Step`] is settled before the image is decoded.

use serde::{Deserialize, Serialize};

use crate::raster::Part;
use crate::{Error, Result, SampleRng};

/// The longest side that can be asked for, and the most pixels that a step may make (8192 x 8192), so that neither a
/// slip in a recipe nor an image of one by sixty thousand pixels takes all memory.
const LONGEST: usize = 1 << 13;
const MOST_PIXELS: usize = 1 << 26;

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

    /// The name it has in a recipe.
    pub fn name(&self) -> &'static str {
        match self {
            Transform::Resize { .. } => "resize",
            Transform::CenterCrop { .. } => "center_crop",
            Transform::RandomResizedCrop { .. } => "random_resized_crop",
            Transform::RandomCrop { .. } => "random_crop",
            Transform::HorizontalFlip { .. } => "horizontal_flip",
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
            Transform::HorizontalFlip { probability } => match probability {
                0.0..=1.0 => Ok(()),
                _ => Err(Error::config(name("probability"), probability, "a number from 0 to 1 is expected")),
            },
        }
    }

    /// `[height, width]` afterwards, where it does not depend on the image.
    pub(crate) fn fixed_size(&self) -> Option<[usize; 2]> {
        match *self {
            Transform::Resize { size: Size::Exact(size), .. } => Some(size),
            Transform::CenterCrop { size }
            | Transform::RandomResizedCrop { size, .. }
            | Transform::RandomCrop { size, .. } => Some(size.height_width()),
            Transform::Resize { size: Size::Side(_), .. } | Transform::HorizontalFlip { .. } => None,
        }
    }

    /// `[height, width]` of an image of `[height, width]` afterwards.
    pub(crate) fn size_after(&self, before: [usize; 2]) -> [usize; 2] {
        match *self {
            Transform::Resize { size: Size::Side(side), .. } => shorter_side_to(side, before),
            _ => self.fixed_size().unwrap_or(before),
        }
    }

    /// What is to be done to an image of `[height, width]`: everything that is left to chance is drawn here, so that it
    /// is known before an image is decoded. `None` for nothing.
    pub(crate) fn step(&self, before: [usize; 2], rng: &mut SampleRng) -> Result<Option<Step>> {
        let unfit =
            |reason: String| Error::Unfit { transform: self.name(), width: before[1], height: before[0], reason };
        let step = match *self {
            Transform::Resize { filter, .. } => {
                let [height, width] = self.size_after(before);
                if height.checked_mul(width).is_none_or(|pixels| pixels > MOST_PIXELS) {
                    let advice = "remove the image or resize to [height, width]";
                    return Err(unfit(format!(
                        "it would become {width} x {height}, more than {MOST_PIXELS} pixels; {advice}"
                    )));
                }
                Step::Resize { part: Part::whole(before), size: [height, width], filter }
            }
            Transform::CenterCrop { size } => {
                let size = size.height_width();
                Step::Cut { top: centred(before[0], size[0]), left: centred(before[1], size[1]), size }
            }
            Transform::RandomResizedCrop { size, scale, ratio, filter } => {
                let ([top, left], [height, width]) = random_part(before, scale, ratio, rng);
                Step::Resize { part: Part { top, left, height, width }, size: size.height_width(), filter }
            }
            Transform::RandomCrop { size, padding } => {
                let size @ [height, width] = size.height_width();
                let rooms =
                    (before[0] + 2 * padding).checked_sub(height).zip((before[1] + 2 * padding).checked_sub(width));
                let Some((down, across)) = rooms else {
                    return Err(unfit(format!(
                        "with {padding} pixels of padding it is smaller than the crop of {width} x {height}; put a resize before it"
                    )));
                };
                let top = rng.below(down + 1) as isize - padding as isize;
                let left = rng.below(across + 1) as isize - padding as isize;
                Step::Cut { top, left, size }
            }
            Transform::HorizontalFlip { probability } => {
                return Ok(rng.chance(probability).then_some(Step::Flip));
            }
        };
        Ok(Some(step))
    }
}

/// A transform of which nothing is left to chance.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Step {
    /// The piece of this size whose corner lies there, black outside of the image.
    Cut { top: isize, left: isize, size: [usize; 2] },
    /// This part of the image, brought to a size.
    Resize { part: Part, size: [usize; 2], filter: Filter },
    /// Left for right.
    Flip,
}

impl Step {
    /// `[height, width]` afterwards.
    pub(crate) fn size_after(&self, before: [usize; 2]) -> [usize; 2] {
        match *self {
            Step::Cut { size, .. } | Step::Resize { size, .. } => size,
            Step::Flip => before,
        }
    }

    /// The part of an image of `[height, width]` that alone is needed, if this is the first step; and the step that is
    /// to be done to that part.
    pub(crate) fn split(self, before: [usize; 2]) -> (Part, Self) {
        match self {
            Step::Resize { part, size, filter } => {
                (part, Step::Resize { part: Part::whole([part.height, part.width]), size, filter })
            }
            Step::Cut { top, left, size: [height, width] } => {
                let inside = |at: isize, part: usize, whole: usize| {
                    usize::try_from(at).ok().filter(|at| at.checked_add(part).is_some_and(|end| end <= whole))
                };
                match inside(top, height, before[0]).zip(inside(left, width, before[1])) {
                    Some((top, left)) => {
                        (Part { top, left, height, width }, Step::Cut { top: 0, left: 0, size: [height, width] })
                    }
                    None => (Part::whole(before), self),
                }
            }
            Step::Flip => (Part::whole(before), self),
        }
    }
}

fn shorter_side_to(side: usize, [height, width]: [usize; 2]) -> [usize; 2] {
    // In 128 bits, since the product of two sides may pass 64; an image without pixels is refused before.
    let longer = |long: usize, short: usize| {
        usize::try_from(side as u128 * long as u128 / short.max(1) as u128).unwrap_or(usize::MAX)
    };
    if width <= height { [longer(height, width), side] } else { [side, longer(width, height)] }
}

/// Where a centred piece of length `part` begins in `whole`: negative where padding comes first. Python's `round`,
/// halves to even, as torchvision has it; its padding is `floor` before.
fn centred(whole: usize, part: usize) -> isize {
    if part > whole {
        -(((part - whole) / 2) as isize)
    } else {
        ((whole - part) as f64 / 2.0).round_ties_even() as isize
    }
}

/// The corner `[top, left]` and the size `[height, width]` of a random part.
fn random_part(
    [height, width]: [usize; 2],
    scale: [f64; 2],
    ratio: [f64; 2],
    rng: &mut SampleRng,
) -> ([usize; 2], [usize; 2]) {
    let area = height as f64 * width as f64;
    for _ in 0..10 {
        let target = area * rng.uniform(scale[0], scale[1]);
        let shape = rng.uniform(ratio[0].ln(), ratio[1].ln()).exp();
        let w = (target * shape).sqrt().round_ties_even() as usize;
        let h = (target / shape).sqrt().round_ties_even() as usize;
        if (1..=width).contains(&w) && (1..=height).contains(&h) {
            let top = rng.below(height - h + 1);
            let left = rng.below(width - w + 1);
            return ([top, left], [h, w]);
        }
    }
    let shape = width as f64 / height as f64;
    let (h, w) = if shape < ratio[0] {
        ((width as f64 / ratio[0]).round_ties_even() as usize, width)
    } else if shape > ratio[1] {
        (height, (height as f64 * ratio[1]).round_ties_even() as usize)
    } else {
        (height, width)
    };
    let (h, w) = (h.clamp(1, height), w.clamp(1, width));
    ([(height - h) / 2, (width - w) / 2], [h, w])
}
