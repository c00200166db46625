//! The pixel work under the transforms: resizing, cutting out with black beyond the edges, mirroring, grey.

use fast_image_resize::images::{Image as Target, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};

use crate::transform::Filter;
use crate::{Error, Image, Result};

/// To `[height, width]` by PIL's antialiased convolution; the image itself where it has that size already.
pub(crate) fn resize(image: Image, [height, width]: [usize; 2], filter: Filter) -> Result<Image> {
    if [image.height, image.width] == [height, width] {
        return Ok(image);
    }
    let fault = |reason: String| Error::Unfit { transform: "resize", width: image.width, height: image.height, reason };
    let side = |pixels: usize| u32::try_from(pixels).map_err(|_| fault(format!("{pixels} pixels a side are too many")));
    let kind = if image.channels == 1 { PixelType::U8 } else { PixelType::U8x3 };
    let filter = match filter {
        Filter::Bilinear => FilterType::Bilinear,
        Filter::Bicubic => FilterType::CatmullRom,
    };
    let source = ImageRef::new(side(image.width)?, side(image.height)?, &image.pixels, kind);
    let source = source.map_err(|error| fault(error.to_string()))?;
    let mut target = Target::new(side(width)?, side(height)?, kind);
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(filter));
    Resizer::new().resize(&source, &mut target, &options).map_err(|error| fault(error.to_string()))?;
    Ok(Image { width, height, channels: image.channels, pixels: target.into_vec() })
}

/// The piece of size `[height, width]` whose corner lies at (`top`, `left`), which may be outside; black there.
pub(crate) fn window(image: &Image, top: isize, left: isize, [height, width]: [usize; 2]) -> Image {
    let channels = image.channels;
    let mut pixels = vec![0; height * width * channels];
    // The columns that both have, in the piece's and in the image's count.
    let (skipped, from) = (left.min(0).unsigned_abs(), left.max(0).unsigned_abs());
    let common = width.saturating_sub(skipped).min(image.width.saturating_sub(from)) * channels;
    for (y, row) in pixels.chunks_exact_mut(width * channels).enumerate() {
        let Some(y) = usize::try_from(top + y as isize).ok().filter(|&y| y < image.height) else { continue };
        if common > 0 {
            let start = (y * image.width + from) * channels;
            row[skipped * channels..][..common].copy_from_slice(&image.pixels[start..start + common]);
        }
    }
    Image { width, height, channels, pixels }
}

/// Mirrors left and right in place.
pub(crate) fn flip(image: &mut Image) {
    let Image { width, channels, ref mut pixels, .. } = *image;
    for row in pixels.chunks_exact_mut(width * channels) {
        row.reverse();
        // Reversing the bytes has reversed the channels too.
        row.chunks_exact_mut(channels).for_each(<[u8]>::reverse);
    }
}

/// RGB to grey by the weights of ITU-R 601, 0.299, 0.587 and 0.114, in 16-bit fixed point as PIL does.
pub(crate) fn grey(image: Image) -> Image {
    if image.channels == 1 {
        return image;
    }
    let luma = |&[r, g, b]: &[u8; 3]| {
        ((19_595 * u32::from(r) + 38_470 * u32::from(g) + 7_471 * u32::from(b) + 0x8000) >> 16) as u8
    };
    let pixels = image.pixels.as_chunks::<3>().0.iter().map(luma).collect();
    Image { channels: 1, pixels, ..image }
}
