//! Shears, shifts and turns that take the nearest pixel, in the fixed point of PIL's `Image.transform`: the middle of a
//! pixel of the result is mapped back in units of 2^-16 of a pixel, and what comes from outside is filled.
//!
//! PIL goes over to floating point for images of more than 32,768 pixels a side and for maps that only stretch; here the
//! same integers, of 64 bits, serve all.

use crate::raster::{Raster, Studio};

/// An affine map of an image onto its own size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Warp {
    /// `x' = a x + b y + c`, `y' = d x + e y + f`: from where in the image a point of the result comes.
    pub(crate) matrix: [f64; 6],
    /// What is outside, in all channels.
    pub(crate) fill: u8,
}

impl Warp {
    /// Row `y` moves left by `amount * y`. As in torchvision's policies the corner stays, not the centre.
    pub(crate) fn shear_x(amount: f64, fill: u8) -> Self {
        Self { matrix: [1.0, amount, 0.0, 0.0, 1.0, 0.0], fill }
    }

    /// Column `x` moves up by `amount * x`.
    pub(crate) fn shear_y(amount: f64, fill: u8) -> Self {
        Self { matrix: [1.0, 0.0, 0.0, amount, 1.0, 0.0], fill }
    }

    /// To the right and down by so many pixels.
    pub(crate) fn shift([right, down]: [f64; 2], fill: u8) -> Self {
        Self { matrix: [1.0, 0.0, -right, 0.0, 1.0, -down], fill }
    }

    /// About the centre of an image of `[height, width]`, against the clock.
    pub(crate) fn rotation(degrees: f64, [height, width]: [usize; 2], fill: u8) -> Self {
        let (sin, cos) = (-degrees.to_radians()).sin_cos();
        let (x, y) = (width as f64 / 2.0, height as f64 / 2.0);
        Self { matrix: [cos, sin, x - cos * x - sin * y, -sin, cos, y + sin * x - cos * y], fill }
    }

    /// The image mapped.
    pub(crate) fn apply(&self, from: Raster, studio: &mut Studio) -> Raster {
        let Raster { width, height, planes, .. } = from;
        let fixed = |value: f64| (value * 65_536.0 + 0.5).floor() as i64;
        let [a, b, c, d, e, f] = self.matrix;
        let along = [fixed(a), fixed(d)];
        let down = [fixed(b), fixed(e)];
        let start = [fixed(c + a * 0.5 + b * 0.5), fixed(f + d * 0.5 + e * 0.5)];
        let at = |y: usize, i: usize| start[i].saturating_add(down[i].saturating_mul(y as i64));
        let inside = |place: i64, side: usize| usize::try_from(place >> 16).ok().filter(|&place| place < side);

        let mut pixels = studio.memory();
        pixels.clear();
        pixels.resize(planes * height * width, self.fill);
        let planes_of = from.pixels.chunks_exact(width * height).zip(pixels.chunks_exact_mut(width * height));
        for (source, target) in planes_of {
            for (y, row) in target.chunks_exact_mut(width).enumerate() {
                let [mut across, mut downward] = [at(y, 0), at(y, 1)];
                for slot in row {
                    if let Some((x, y)) = inside(across, width).zip(inside(downward, height)) {
                        *slot = source[y * width + x];
                    }
                    across = across.saturating_add(along[0]);
                    downward = downward.saturating_add(along[1]);
                }
            }
        }
        studio.recycle(from.pixels);
        Raster { width, height, planes, pixels }
    }
}
