//! Transforms of which nothing is left to chance any more, and the geometry by which they are drawn.

use crate::SampleRng;
use crate::augment::{Adjust, Blur, Warp};
use crate::raster::Part;
use crate::transform::{Erased, Filter};

/// A transform of which nothing is left to chance.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Step {
    /// The piece of this size whose corner lies there, black outside of the image.
    Cut { top: isize, left: isize, size: [usize; 2] },
    /// This part of the image, brought to a size.
    Resize { part: Part, size: [usize; 2], filter: Filter },
    /// Left for right.
    Flip,
    /// Other colours.
    Adjust(Adjust),
    /// Pixels moved.
    Warp(Warp),
    /// Pixels blurred.
    Blur(Blur),
    /// A part in one colour.
    Fill { part: Part, colour: [u8; 3] },
    /// A part erased once values are normalised, hence always the last step.
    Erase { part: Part, value: Erased },
}

impl Step {
    /// `[height, width]` afterwards.
    pub(crate) fn size_after(&self, before: [usize; 2]) -> [usize; 2] {
        match *self {
            Step::Cut { size, .. } | Step::Resize { size, .. } => size,
            _ => before,
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
            _ => (Part::whole(before), self),
        }
    }
}

pub(crate) fn shorter_side_to(side: usize, [height, width]: [usize; 2]) -> [usize; 2] {
    // In 128 bits, since the product of two sides may pass 64; an image without pixels is refused before.
    let longer = |long: usize, short: usize| {
        usize::try_from(side as u128 * long as u128 / short.max(1) as u128).unwrap_or(usize::MAX)
    };
    if width <= height { [longer(height, width), side] } else { [side, longer(width, height)] }
}

/// Where a centred piece of length `part` begins in `whole`: negative where padding comes first. Python's `round`,
/// halves to even, as torchvision has it; its padding is `floor` before.
pub(crate) fn centred(whole: usize, part: usize) -> isize {
    if part > whole {
        -(((part - whole) / 2) as isize)
    } else {
        ((whole - part) as f64 / 2.0).round_ties_even() as isize
    }
}

/// What a random resized crop keeps of an image of `[height, width]`.
pub(crate) fn random_part([height, width]: [usize; 2], scale: [f64; 2], ratio: [f64; 2], rng: &mut SampleRng) -> Part {
    let area = height as f64 * width as f64;
    for _ in 0..10 {
        let target = area * rng.uniform(scale[0], scale[1]);
        let shape = rng.uniform(ratio[0].ln(), ratio[1].ln()).exp();
        let w = (target * shape).sqrt().round_ties_even() as usize;
        let h = (target / shape).sqrt().round_ties_even() as usize;
        if (1..=width).contains(&w) && (1..=height).contains(&h) {
            let top = rng.below(height - h + 1);
            let left = rng.below(width - w + 1);
            return Part { top, left, height: h, width: w };
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
    Part { top: (height - h) / 2, left: (width - w) / 2, height: h, width: w }
}

/// What random erasing takes away from an image of `[height, width]`: of ten tries the first that is smaller than the
/// image on both sides. A try draws the area, the shape (height / width) and, once it fits, the corner.
pub(crate) fn random_hole(
    [height, width]: [usize; 2],
    scale: [f64; 2],
    ratio: [f64; 2],
    rng: &mut SampleRng,
) -> Option<Part> {
    let area = height as f64 * width as f64;
    (0..10).find_map(|_| {
        let target = area * rng.uniform(scale[0], scale[1]);
        let shape = rng.uniform(ratio[0].ln(), ratio[1].ln()).exp();
        let h = (target * shape).sqrt().round_ties_even() as usize;
        let w = (target / shape).sqrt().round_ties_even() as usize;
        (h < height && w < width).then(|| {
            let top = rng.below(height - h + 1);
            let left = rng.below(width - w + 1);
            Part { top, left, height: h, width: w }
        })
    })
}
