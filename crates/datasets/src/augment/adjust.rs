//! Colours changed in place with PIL's arithmetic: `ImageEnhance`, which blends with a plainer image in float32 and cuts
//! off what is behind the point; `ImageOps`, which looks values up; the way to HSV and back.
//!
//! A raster of one plane has the values that PIL gives for the same image in mode `L`, which are also those of its three
//! equal channels in mode `RGB`.

use crate::raster::{Raster, luma};

/// A change of colours.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Adjust {
    /// Towards black (0), as it is (1), or away from it.
    Brightness(f32),
    /// Towards the mean grey value, or away from it.
    Contrast(f32),
    /// Towards the grey image, or away from it.
    Saturation(f32),
    /// Towards the image smoothed by `[1 1 1; 1 5 1; 1 1 1] / 13`, or away from it; the outermost pixels stay.
    Sharpness(f32),
    /// The hue, a circle of 256 steps, turned by so many.
    Hue(u8),
    /// Only this many upper bits of each value.
    Posterize(u32),
    /// Values from here on inverted.
    Solarize(f64),
    /// This added, then values from 128 on inverted.
    SolarizeAdd(f64),
    /// Each channel stretched to reach from 0 to 255.
    AutoContrast,
    /// Each channel's values spread so that all are about equally frequent.
    Equalize,
    /// Bright for dark.
    Invert,
    /// Without colour.
    Grey,
}

impl Adjust {
    /// Changes an image; `spare` is memory with any content.
    pub(crate) fn apply(self, raster: &mut Raster, spare: &mut Vec<u8>) {
        match self {
            Adjust::Brightness(factor) => look_up(&mut raster.pixels, |value| blend(0, value, factor)),
            Adjust::Contrast(factor) => {
                let mean = mean(raster);
                look_up(&mut raster.pixels, |value| blend(mean, value, factor));
            }
            Adjust::Saturation(factor) => each_colour(raster, |colour @ [r, g, b]| {
                let grey = luma(r, g, b);
                colour.map(|value| blend(grey, value, factor))
            }),
            Adjust::Sharpness(factor) => sharpen(raster, factor, spare),
            Adjust::Hue(steps) => each_colour(raster, |colour| turned(colour, steps)),
            Adjust::Posterize(bits) => {
                let mask = (0xff_u32 << 8_u32.saturating_sub(bits)) as u8;
                look_up(&mut raster.pixels, |value| value & mask);
            }
            Adjust::Solarize(threshold) => look_up(&mut raster.pixels, |value| solarized(value, threshold)),
            Adjust::SolarizeAdd(more) => {
                look_up(&mut raster.pixels, |value| solarized((f64::from(value) + more) as u8, 128.0));
            }
            Adjust::AutoContrast => each_plane(raster, |plane| {
                let counts = histogram(plane);
                let used = |&value: &u8| counts[usize::from(value)] > 0;
                let (low, high) = ((0..=255).find(used).unwrap_or(0), (0..=255).rfind(used).unwrap_or(0));
                if low < high {
                    let scale = 255.0 / f64::from(high - low);
                    let offset = -f64::from(low) * scale;
                    look_up(plane, |value| (f64::from(value) * scale + offset) as u8);
                }
            }),
            Adjust::Equalize => each_plane(raster, equalize),
            Adjust::Invert => look_up(&mut raster.pixels, |value| 255 - value),
            Adjust::Grey => raster.grey(),
        }
    }
}

/// Between two values (`factor` 0 to 1) or past the second. Cut off behind the point and limited to 0 to 255, which is
/// what `as` does.
fn blend(plain: u8, value: u8, factor: f32) -> u8 {
    (f32::from(plain) + factor * (f32::from(value) - f32::from(plain))) as u8
}

fn solarized(value: u8, threshold: f64) -> u8 {
    if f64::from(value) < threshold { value } else { 255 - value }
}

fn look_up(values: &mut [u8], becomes: impl Fn(u8) -> u8) {
    let table: [u8; 256] = std::array::from_fn(|value| becomes(value as u8));
    values.iter_mut().for_each(|value| *value = table[usize::from(*value)]);
}

fn each_plane(raster: &mut Raster, change: impl FnMut(&mut [u8])) {
    raster.pixels.chunks_exact_mut(raster.width * raster.height).for_each(change);
}

/// Changes pixels of three channels; grey ones have no colour to change.
fn each_colour(raster: &mut Raster, change: impl Fn([u8; 3]) -> [u8; 3]) {
    if let Some([red, green, blue]) = raster.colours_mut() {
        for ((r, g), b) in red.iter_mut().zip(green).zip(blue) {
            [*r, *g, *b] = change([*r, *g, *b]);
        }
    }
}

/// The mean of the grey image, halves up.
fn mean(raster: &Raster) -> u8 {
    let count = raster.width * raster.height;
    let sum: u64 = match raster.colours() {
        Some([red, green, blue]) => {
            red.iter().zip(green).zip(blue).map(|((&r, &g), &b)| u64::from(luma(r, g, b))).sum()
        }
        None => raster.pixels.iter().copied().map(u64::from).sum(),
    };
    (sum as f64 / count as f64 + 0.5) as u8
}

fn histogram(plane: &[u8]) -> [usize; 256] {
    let mut counts = [0; 256];
    plane.iter().for_each(|&value| counts[usize::from(value)] += 1);
    counts
}

/// A value becomes the number of pixels below it in units of a 255th of all but the highest value's. Nothing is done to
/// a channel of one value or of fewer pixels than such a unit takes.
fn equalize(plane: &mut [u8]) {
    let counts = histogram(plane);
    let highest = counts.iter().rev().find(|&&count| count > 0).copied().unwrap_or(0);
    let step = (plane.len() - highest) / 255;
    if step == 0 {
        return;
    }
    let mut below = step / 2;
    let table = counts.map(|count| {
        let value = (below / step).min(255) as u8;
        below += count;
        value
    });
    look_up(plane, |value| table[usize::from(value)]);
}

fn sharpen(raster: &mut Raster, factor: f32, spare: &mut Vec<u8>) {
    let Raster { width, height, .. } = *raster;
    if width < 3 || height < 3 {
        return;
    }
    each_plane(raster, |plane| {
        spare.clear();
        spare.extend_from_slice(plane);
        let row = |y: usize| &spare[y * width..][..width];
        for (y, out) in plane.chunks_exact_mut(width).enumerate().take(height - 1).skip(1) {
            let columns = row(y - 1).windows(3).zip(row(y).windows(3)).zip(row(y + 1).windows(3));
            for (slot, ((above, beside), below)) in out[1..].iter_mut().zip(columns) {
                let sum: u32 = above.iter().chain(beside).chain(below).copied().map(u32::from).sum();
                // Rounded; 13 is odd, so that there are no halves.
                let smooth = (2 * (sum + 4 * u32::from(*slot)) + 13) / 26;
                *slot = blend(smooth as u8, *slot, factor);
            }
        }
    });
}

/// A colour of another hue, by way of hue, saturation and value of 8 bits each. The mixture of float32 and float64 is
/// PIL's, and so are its roundings.
fn turned([r, g, b]: [u8; 3], steps: u8) -> [u8; 3] {
    let (most, least) = (r.max(g).max(b), r.min(g).min(b));
    if most == least {
        return [r, g, b];
    }
    let range = f32::from(most - least);
    let [from_red, from_green, from_blue] = [r, g, b].map(|value| f32::from(most - value) / range);
    let hue = if r == most {
        from_blue - from_green
    } else if g == most {
        (2.0 + f64::from(from_red) - f64::from(from_blue)) as f32
    } else {
        (4.0 + f64::from(from_green) - f64::from(from_red)) as f32
    };
    let hue = ((f64::from(hue) / 6.0 + 1.0) % 1.0) as f32;
    let hue = ((f64::from(hue) * 255.0) as u8).wrapping_add(steps);
    let saturation = (f64::from(range / f32::from(most)) * 255.0) as u8;
    if saturation == 0 {
        return [most; 3];
    }
    let place = f64::from(hue) * 6.0 / 255.0;
    let sector = place.floor();
    let rest = (place - sector) as f32;
    let saturation = (f64::from(saturation) / 255.0) as f32;
    let scaled = |part: f64| (f64::from(most) * (1.0 - part)).round() as u8;
    let low = scaled(f64::from(saturation));
    let falling = scaled(f64::from(saturation * rest));
    let rising = scaled(f64::from(saturation) * (1.0 - f64::from(rest)));
    match sector as u8 % 6 {
        0 => [most, rising, low],
        1 => [falling, most, low],
        2 => [low, most, rising],
        3 => [low, falling, most],
        4 => [rising, low, most],
        _ => [most, low, falling],
    }
}
