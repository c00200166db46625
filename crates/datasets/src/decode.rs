//! From the bytes of a JPEG, PNG or WebP file to an 8-bit grey or RGB [`Image`].
//!
//! What a file may hold and what becomes of it:
//!
//! * grey stays grey (one channel), everything else becomes RGB; palettes are looked up, CMYK is converted;
//! * 16-bit values are rounded to 8;
//! * an alpha channel is composited over black. (PIL's `convert("RGB")` drops it, which shows colours that were never
//!   meant to be seen where a pixel is transparent.)
//! * EXIF orientation and colour profiles are ignored, as the usual training pipelines do;
//! * the format is told by content, not by the file's extension;
//! * the first frame of an animation is taken.
//!
//! The usual kind of JPEG is decoded by [`Decoder`]; what that leaves goes to the general decoders of `image`. Their
//! JPEG decoder fills up a file that breaks off with grey and reports nothing, so that truncation is looked for here:
//! after the start of the first scan there must be an end-of-image marker.

use std::io::Cursor;

use image::{DynamicImage, ImageReader, Limits};

use crate::jpeg::Decoder;
use crate::raster::Part;
use crate::{Error, Image, Result};

/// Bytes that decoding one image may take; an honest photograph of 100 megapixels fits.
pub(crate) const MOST_BYTES: u64 = 512 << 20;

/// Decodes a whole file held in memory; `origin` is what an error calls it.
///
/// # Errors
/// [`Error::Decode`] where the bytes are no whole JPEG, PNG or WebP image, or one too large to decode.
pub fn decode(bytes: &[u8], origin: &str) -> Result<Image> {
    let whole = Decoder::default().part(bytes, Vec::new(), |size| Some(Part::whole(size)));
    whole.map_or_else(|| decode_any(bytes, origin), |raster| Ok(raster.interleaved()))
}

/// [`decode`] by the general decoders.
pub(crate) fn decode_any(bytes: &[u8], origin: &str) -> Result<Image> {
    let fault = |reason: String| Error::Decode { origin: origin.to_owned(), reason };
    if bytes.is_empty() {
        return Err(fault("the file is empty".into()));
    }
    if breaks_off(bytes) {
        return Err(fault("the JPEG data break off before the end of the image".into()));
    }
    let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format();
    let mut reader = reader.map_err(|error| fault(error.to_string()))?;
    if reader.format().is_none() {
        return Err(fault("neither JPEG, PNG nor WebP".into()));
    }
    let mut limits = Limits::default();
    limits.max_alloc = Some(MOST_BYTES);
    reader.limits(limits);
    let image = reader.decode().map_err(|error| fault(error.to_string()))?;
    flatten(image).map_err(|_| fault("it has no pixels".into()))
}

/// To 8 bits, one or three channels, alpha over black.
fn flatten(image: DynamicImage) -> Result<Image> {
    let (width, height) = (image.width() as usize, image.height() as usize);
    let color = image.color();
    let (channels, pixels) = match (color.has_color(), color.has_alpha()) {
        (false, false) => (1, image.into_luma8().into_raw()),
        (true, false) => (3, image.into_rgb8().into_raw()),
        (false, true) => (1, over_black::<1, 2>(&image.into_luma_alpha8().into_raw())),
        (true, true) => (3, over_black::<3, 4>(&image.into_rgba8().into_raw())),
    };
    Image::new(width, height, channels, pixels)
}

/// Drops the last of `A = C + 1` channels after scaling the others by it.
fn over_black<const C: usize, const A: usize>(pixels: &[u8]) -> Vec<u8> {
    let scaled = |pixel: &[u8; A]| -> [u8; C] {
        std::array::from_fn(|c| ((u32::from(pixel[c]) * u32::from(pixel[C]) + 127) / 255) as u8)
    };
    pixels.as_chunks::<A>().0.iter().flat_map(scaled).collect()
}

/// Whether these bytes are a JPEG without an end-of-image marker after its first scan begins. Segments before the scan
/// are stepped over, since the thumbnail in one of them has an end marker of its own; inside a scan the byte `0xff` is
/// always followed by `0x00` or a restart marker, so that `0xff 0xd9` can only be the end.
fn breaks_off(bytes: &[u8]) -> bool {
    if !bytes.starts_with(&[0xff, 0xd8]) {
        return false;
    }
    let mut at = 2;
    loop {
        match bytes.get(at..at + 4) {
            Some(&[0xff, 0xff, ..]) => at += 1,
            Some(&[0xff, 0xda, ..]) => return !bytes[at..].windows(2).any(|pair| pair == [0xff, 0xd9]),
            Some(&[0xff, _, high, low]) => at += 2 + usize::from(u16::from_be_bytes([high, low])),
            // Not at a marker: damage that the decoder has its own words for.
            Some(_) => return false,
            None => return true,
        }
    }
}
