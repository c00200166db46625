//! Policies that draw operations on 8-bit images: RandAugment (Cubuk et al. 2020) with two lists of operations, and
//! TrivialAugment Wide (Mueller and Hutter 2021).
//!
//! Draws of one operation, in order: which it is; with TrivialAugment its bin, where it has a magnitude; the sign, where
//! it has one; the corner of a cutout. What they draw are [`Step`]s, so that nothing is left open when an image is
//! decoded.

mod adjust;
mod blur;
#[cfg(test)]
mod tests;
mod warp;

use serde::{Deserialize, Serialize};

pub(crate) use adjust::Adjust;
pub(crate) use blur::Blur;
pub(crate) use warp::Warp;

use crate::SampleRng;
use crate::raster::Part;
use crate::step::Step;

/// The operations that `rand_augment` draws from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AugmentList {
    /// The 14 of torchvision's `RandAugment`.
    #[default]
    Torchvision,
    /// The 16 of the fine-tuning code that CRATE was released with (its `data/randomaug.py`), after EfficientNet's: with
    /// inversion, cutout and solarisation of the brightened image, without the identity.
    Sixteen,
}

/// What is done to an image; how much is a magnitude.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Identity,
    ShearX,
    ShearY,
    TranslateX,
    TranslateY,
    Rotate,
    Brightness,
    Colour,
    Contrast,
    Sharpness,
    Posterize,
    Solarize,
    SolarizeAdd,
    AutoContrast,
    Equalize,
    Invert,
    Cutout,
}

use Operation::*;

const TORCHVISION: [Operation; 14] = [
    Identity,
    ShearX,
    ShearY,
    TranslateX,
    TranslateY,
    Rotate,
    Brightness,
    Colour,
    Contrast,
    Sharpness,
    Posterize,
    Solarize,
    AutoContrast,
    Equalize,
];

const SIXTEEN: [Operation; 16] = [
    AutoContrast,
    Equalize,
    Invert,
    Rotate,
    Posterize,
    Solarize,
    SolarizeAdd,
    Colour,
    Contrast,
    Brightness,
    Sharpness,
    ShearX,
    ShearY,
    Cutout,
    TranslateX,
    TranslateY,
];

/// The colour of a cutout: a mean of ImageNet's pixels.
const CUTOUT: [u8; 3] = [125, 123, 114];

/// How much of an operation: `base + reach`, or where `signed` in half of the cases `base - reach`.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Magnitude {
    base: f64,
    reach: f64,
    signed: bool,
}

impl Magnitude {
    fn fixed(base: f64) -> Self {
        Self { base, reach: 0.0, signed: false }
    }

    fn either(base: f64, reach: f64) -> Self {
        Self { base, reach, signed: true }
    }

    fn draw(self, rng: &mut SampleRng) -> f64 {
        if self.signed && rng.chance(0.5) { self.base - self.reach } else { self.base + self.reach }
    }
}

/// The largest magnitudes of a policy of torchvision.
#[derive(Clone, Copy)]
struct Ranges {
    shear: f64,
    /// Across and down, in pixels.
    translate: [f64; 2],
    rotate: f64,
    /// Of brightness, colour, contrast and sharpness: how far from 1.
    enhance: f64,
    /// Bits taken away.
    posterize: f32,
}

impl Ranges {
    fn rand_augment([height, width]: [usize; 2]) -> Self {
        let part = |side: usize| 150.0 / 331.0 * side as f64;
        Self { shear: 0.3, translate: [part(width), part(height)], rotate: 30.0, enhance: 0.9, posterize: 4.0 }
    }

    const WIDE: Self = Self { shear: 0.99, translate: [32.0; 2], rotate: 135.0, enhance: 0.99, posterize: 6.0 };

    /// The magnitude in bin `bin` of `bins`; the float32 is torchvision's.
    fn magnitude(&self, operation: Operation, bin: usize, bins: usize) -> Magnitude {
        let last = bins.saturating_sub(1).max(1);
        let between = |low: f32, high: f32| {
            let step = (high - low) / last as f32;
            // Counted from the nearer end, product and sum rounded once, as `torch.linspace` does with vectors.
            let value =
                if bin < bins / 2 { step.mul_add(bin as f32, low) } else { step.mul_add(-((last - bin) as f32), high) };
            f64::from(value)
        };
        let up_to = |most: f64| between(0.0, most as f32);
        match operation {
            ShearX | ShearY => Magnitude::either(0.0, up_to(self.shear)),
            TranslateX => Magnitude::either(0.0, up_to(self.translate[0]).trunc()),
            TranslateY => Magnitude::either(0.0, up_to(self.translate[1]).trunc()),
            Rotate => Magnitude::either(0.0, up_to(self.rotate)),
            Brightness | Colour | Contrast | Sharpness => Magnitude::either(1.0, up_to(self.enhance)),
            Posterize => {
                let fewer = (bin as f32 / (last as f32 / self.posterize)).round_ties_even();
                Magnitude::fixed(f64::from(8.0 - fewer))
            }
            Solarize => Magnitude::fixed(between(255.0, 0.0)),
            Identity | AutoContrast | Equalize | Invert | SolarizeAdd | Cutout => Magnitude::fixed(0.0),
        }
    }
}

/// The magnitude at `level`, from 0 to 1, in the list of sixteen.
fn sixteen(operation: Operation, level: f64) -> Magnitude {
    let between = |low: f64, high: f64| level * (high - low) + low;
    match operation {
        Rotate => Magnitude::either(0.0, between(0.0, 30.0)),
        Posterize => Magnitude::fixed(between(0.0, 4.0).trunc().max(1.0)),
        Solarize => Magnitude::fixed(between(0.0, 256.0)),
        SolarizeAdd => Magnitude::fixed(between(0.0, 110.0)),
        Colour | Contrast | Brightness | Sharpness => Magnitude::fixed(between(0.1, 1.9)),
        ShearX | ShearY => Magnitude::either(0.0, between(0.0, 0.3)),
        Cutout => Magnitude::fixed(between(0.0, 40.0)),
        TranslateX | TranslateY => Magnitude::either(0.0, between(0.0, 100.0)),
        Identity | AutoContrast | Equalize | Invert => Magnitude::fixed(0.0),
    }
}

impl Operation {
    fn draw<const N: usize>(list: [Operation; N], rng: &mut SampleRng) -> Self {
        list[rng.below(N)]
    }

    /// Whether bins make a difference.
    fn has_magnitude(self) -> bool {
        !matches!(self, Identity | AutoContrast | Equalize | Invert)
    }

    /// The step that it is on an image of `[height, width]`. A magnitude is a slope (shear), a number of pixels to the
    /// right or down (translate), degrees against the clock (rotate), a factor (brightness, colour, contrast,
    /// sharpness), a number of bits (posterize), a value (solarize), a side in pixels (cutout).
    fn step(self, magnitude: f64, size: [usize; 2], fill: u8, rng: &mut SampleRng) -> Option<Step> {
        let factor = magnitude as f32;
        Some(match self {
            Identity => return None,
            ShearX => Step::Warp(Warp::shear_x(magnitude, fill)),
            ShearY => Step::Warp(Warp::shear_y(magnitude, fill)),
            TranslateX => Step::Warp(Warp::shift([magnitude, 0.0], fill)),
            TranslateY => Step::Warp(Warp::shift([0.0, magnitude], fill)),
            Rotate => Step::Warp(Warp::rotation(magnitude, size, fill)),
            Brightness => Step::Adjust(Adjust::Brightness(factor)),
            Colour => Step::Adjust(Adjust::Saturation(factor)),
            Contrast => Step::Adjust(Adjust::Contrast(factor)),
            Sharpness => Step::Adjust(Adjust::Sharpness(factor)),
            Posterize => Step::Adjust(Adjust::Posterize(magnitude as u32)),
            Solarize => Step::Adjust(Adjust::Solarize(magnitude)),
            SolarizeAdd => Step::Adjust(Adjust::SolarizeAdd(magnitude)),
            AutoContrast => Step::Adjust(Adjust::AutoContrast),
            Equalize => Step::Adjust(Adjust::Equalize),
            Invert => Step::Adjust(Adjust::Invert),
            Cutout => {
                let corner = [size[1], size[0]].map(|side| rng.uniform(0.0, side as f64));
                Step::Fill { part: cutout(magnitude, corner, size), colour: CUTOUT }
            }
        })
    }
}

/// The square of a cutout about the point `[x, y]`, which is drawn with both of its ends, hence a pixel larger.
fn cutout(side: f64, centre: [f64; 2], [height, width]: [usize; 2]) -> Part {
    let span = |centre: f64, whole: usize| {
        let first = (centre - side / 2.0).max(0.0) as usize;
        let last = (first as f64 + side).min(whole as f64) as usize;
        (first, (last + 1).min(whole).saturating_sub(first))
    };
    let ((left, width), (top, height)) = (span(centre[0], width), span(centre[1], height));
    Part { top, left, height, width }
}

/// `n` operations of magnitude `m` of `bins`, each any of the list.
pub(crate) fn rand_augment(
    n: usize,
    (m, bins): (usize, usize),
    list: AugmentList,
    fill: u8,
    size: [usize; 2],
    rng: &mut SampleRng,
    steps: &mut Vec<Step>,
) {
    for _ in 0..n {
        let (operation, magnitude) = match list {
            AugmentList::Torchvision => {
                let operation = Operation::draw(TORCHVISION, rng);
                (operation, Ranges::rand_augment(size).magnitude(operation, m, bins))
            }
            AugmentList::Sixteen => {
                let operation = Operation::draw(SIXTEEN, rng);
                (operation, sixteen(operation, m as f64 / bins.saturating_sub(1).max(1) as f64))
            }
        };
        let magnitude = magnitude.draw(rng);
        steps.extend(operation.step(magnitude, size, fill, rng));
    }
}

/// One operation of any magnitude.
pub(crate) fn trivial_augment(bins: usize, fill: u8, size: [usize; 2], rng: &mut SampleRng, steps: &mut Vec<Step>) {
    let operation = Operation::draw(TORCHVISION, rng);
    let bin = if operation.has_magnitude() { rng.below(bins) } else { 0 };
    let magnitude = Ranges::WIDE.magnitude(operation, bin, bins).draw(rng);
    steps.extend(operation.step(magnitude, size, fill, rng));
}

/// Brightness, contrast, saturation and hue by factors within `1 - x` to `1 + x` (hue: a turn within `-x` to `x`), in
/// random order. The order is drawn first, then a factor for each that is not 0.
pub(crate) fn color_jitter(amounts: [f64; 4], rng: &mut SampleRng, steps: &mut Vec<Step>) {
    let mut order = [0, 1, 2, 3];
    for last in (1..4).rev() {
        order.swap(last, rng.below(last + 1));
    }
    let drawn = [0, 1, 2, 3].map(|which| {
        let amount = amounts[which];
        let [low, high] = if which == 3 { [-amount, amount] } else { [(1.0 - amount).max(0.0), 1.0 + amount] };
        (amount > 0.0).then(|| rng.uniform(low, high)).map(|value| match which {
            0 => Adjust::Brightness(value as f32),
            1 => Adjust::Contrast(value as f32),
            2 => Adjust::Saturation(value as f32),
            // Cut off behind the point, then modulo 256.
            _ => Adjust::Hue((value * 255.0) as i32 as u8),
        })
    });
    steps.extend(order.into_iter().filter_map(|which| drawn[which]).map(Step::Adjust));
}
