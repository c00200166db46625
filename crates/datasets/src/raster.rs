//! Pixels on their way through a pipeline: one plane after the other, as the JPEG decoder gives them and the model takes
//! them; and the work under the transforms, with memory that is used again.

use crate::Image;
use crate::augment::Adjust;
use crate::resize::Resizer;
use crate::transform::Filter;

/// A rectangle inside an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) top: usize,
    pub(crate) left: usize,
    pub(crate) height: usize,
    pub(crate) width: usize,
}

impl Part {
    /// All of an image of `[height, width]`.
    pub(crate) fn whole([height, width]: [usize; 2]) -> Self {
        Self { top: 0, left: 0, height, width }
    }
}

/// Grey by the weights of ITU-R 601, 0.299, 0.587 and 0.114, in 16-bit fixed point as PIL has it.
#[inline(always)]
pub(crate) fn luma(red: u8, green: u8, blue: u8) -> u8 {
    let sum = 19_595 * u32::from(red) + 38_470 * u32::from(green) + 7_471 * u32::from(blue);
    ((sum + 0x8000) >> 16) as u8
}

/// `planes` planes (1: grey, 3: red, green, blue), each `height` rows of `width` bytes.
#[derive(Debug)]
pub(crate) struct Raster {
    pub(crate) width: usize,
    pub(crate) height: usize,
    pub(crate) planes: usize,
    pub(crate) pixels: Vec<u8>,
}

impl Raster {
    /// Red, green, blue, red, ...: as an [`Image`] has them.
    pub(crate) fn interleaved(self) -> Image {
        let Self { width, height, planes, pixels } = self;
        if planes == 1 {
            return Image { width, height, channels: 1, pixels };
        }
        let (red, rest) = pixels.split_at(width * height);
        let (green, blue) = rest.split_at(width * height);
        let mut out = vec![0; pixels.len()];
        for (pixel, ((&r, &g), &b)) in out.as_chunks_mut().0.iter_mut().zip(red.iter().zip(green).zip(blue)) {
            *pixel = [r, g, b];
        }
        Image { width, height, channels: planes, pixels: out }
    }

    /// Red, green, blue; `None` of a grey image.
    pub(crate) fn colours(&self) -> Option<[&[u8]; 3]> {
        if self.planes != 3 {
            return None;
        }
        let size = self.width * self.height;
        let (red, rest) = self.pixels.split_at(size);
        let (green, blue) = rest.split_at(size);
        Some([red, green, blue])
    }

    /// Red, green, blue, to be changed; `None` of a grey image.
    pub(crate) fn colours_mut(&mut self) -> Option<[&mut [u8]; 3]> {
        if self.planes != 3 {
            return None;
        }
        let size = self.width * self.height;
        let (red, rest) = self.pixels.split_at_mut(size);
        let (green, blue) = rest.split_at_mut(size);
        Some([red, green, blue])
    }

    /// RGB to grey ([`luma`]).
    pub(crate) fn grey(&mut self) {
        if self.planes == 1 {
            return;
        }
        let size = self.width * self.height;
        let (red, rest) = self.pixels.split_at_mut(size);
        let (green, blue) = rest.split_at(size);
        for (value, (&g, &b)) in red.iter_mut().zip(green.iter().zip(blue)) {
            *value = luma(*value, g, b);
        }
        self.pixels.truncate(size);
        self.planes = 1;
    }

    /// Fills a part with a colour, of a grey image with its grey.
    pub(crate) fn fill(&mut self, part: &Part, colour: [u8; 3]) {
        let [red, green, blue] = colour;
        let values = if self.planes == 1 { [luma(red, green, blue); 3] } else { colour };
        for (plane, value) in self.pixels.chunks_exact_mut(self.width * self.height).zip(values) {
            for row in plane.chunks_exact_mut(self.width).skip(part.top).take(part.height) {
                row[part.left..][..part.width].fill(value);
            }
        }
    }

    /// Mirrors left and right in place.
    pub(crate) fn flip(&mut self) {
        self.pixels.chunks_exact_mut(self.width).for_each(<[u8]>::reverse);
    }
}

/// What makes rasters of others, with the memory of those used up.
#[derive(Default)]
pub(crate) struct Studio {
    resizer: Resizer,
    spare: Vec<u8>,
}

impl Studio {
    /// Memory for a raster, with any content.
    pub(crate) fn memory(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.spare)
    }

    /// Takes back what [`Studio::memory`] gave.
    pub(crate) fn recycle(&mut self, memory: Vec<u8>) {
        if memory.capacity() > self.spare.capacity() {
            self.spare = memory;
        }
    }

    /// The planes of an image.
    pub(crate) fn planes(&mut self, image: Image) -> Raster {
        let Image { width, height, channels, pixels } = image;
        if channels == 1 {
            return Raster { width, height, planes: 1, pixels };
        }
        let mut out = self.memory();
        out.resize(pixels.len(), 0);
        let (red, rest) = out.split_at_mut(width * height);
        let (green, blue) = rest.split_at_mut(width * height);
        for (((r, g), b), pixel) in red.iter_mut().zip(green).zip(blue).zip(pixels.as_chunks::<3>().0) {
            [*r, *g, *b] = *pixel;
        }
        Raster { width, height, planes: channels, pixels: out }
    }

    /// The image with other colours.
    pub(crate) fn adjust(&mut self, mut raster: Raster, adjust: Adjust) -> Raster {
        let mut spare = self.memory();
        adjust.apply(&mut raster, &mut spare);
        self.recycle(spare);
        raster
    }

    /// The part `part` to `[height, width]`; nothing outside the part counts.
    pub(crate) fn resize(&mut self, from: Raster, part: &Part, size: [usize; 2], filter: Filter) -> Raster {
        if [part.height, part.width] == size {
            return self.cut(from, part.top as isize, part.left as isize, size);
        }
        let [height, width] = size;
        let mut pixels = self.memory();
        pixels.resize(from.planes * width * height, 0);
        let planes = from.pixels.chunks_exact(from.width * from.height).zip(pixels.chunks_exact_mut(width * height));
        self.resizer.resize(planes, from.width, part, size, filter);
        self.recycle(from.pixels);
        Raster { width, height, planes: from.planes, pixels }
    }

    /// The piece of size `[height, width]` whose corner lies at (`top`, `left`), which may be outside; black there.
    pub(crate) fn cut(&mut self, from: Raster, top: isize, left: isize, [height, width]: [usize; 2]) -> Raster {
        if [top, left] == [0, 0] && [from.height, from.width] == [height, width] {
            return from;
        }
        let mut pixels = self.memory();
        pixels.clear();
        pixels.resize(from.planes * height * width, 0);
        // The columns that both have, in the piece's and in the image's count.
        let (skipped, first) = (left.min(0).unsigned_abs(), left.max(0).unsigned_abs());
        let common = width.saturating_sub(skipped).min(from.width.saturating_sub(first));
        let planes = from.pixels.chunks_exact(from.width * from.height).zip(pixels.chunks_exact_mut(width * height));
        for (source, target) in planes {
            for (y, row) in target.chunks_exact_mut(width).enumerate() {
                let Some(y) = usize::try_from(top + y as isize).ok().filter(|&y| y < from.height) else { continue };
                if common > 0 {
                    row[skipped..][..common].copy_from_slice(&source[y * from.width + first..][..common]);
                }
            }
        }
        self.recycle(from.pixels);
        Raster { width, height, planes: from.planes, pixels }
    }
}
