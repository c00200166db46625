//! Damaged image files, and the kinds of pixel that are converted.

use image::{DynamicImage, GrayAlphaImage, ImageBuffer, ImageFormat, Luma, LumaA, Rgb, Rgba, RgbaImage};
use proptest::prelude::*;
use whitebox_datasets::decode;

use crate::support::{encoded, jpeg, says, smooth};

#[test]
fn a_file_cut_anywhere_is_corrupt() {
    for format in [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::WebP] {
        let whole = encoded(smooth(40, 30), format);
        assert!(decode(&whole, "whole").is_ok());
        // A PNG's last chunk (12 bytes) holds no pixels.
        let lost = if format == ImageFormat::Png { 13 } else { 1 };
        for cut in (0..=whole.len() - lost).rev().step_by(7) {
            let error = says(decode(&whole[..cut], "cat/x"), &["cat/x: not a readable image"]);
            assert!(error.is_corrupt());
        }
    }
}

#[test]
fn a_jpeg_that_breaks_off_is_said_to() {
    let whole = jpeg(64, 64);
    says(decode(&whole[..whole.len() - 20], "x"), &["break off before the end"]);
    says(decode(&whole[..30], "x"), &["break off"]);
    says(decode(&[], "x"), &["the file is empty"]);
    says(decode(b"hello, world", "x"), &["neither JPEG, PNG nor WebP"]);
}

#[test]
fn a_thumbnails_end_marker_does_not_hide_a_cut() {
    let whole = jpeg(64, 64);
    let mut with_thumbnail = vec![0xff, 0xd8, 0xff, 0xe1, 0, 6, 0xff, 0xd8, 0xff, 0xd9];
    with_thumbnail.extend(&whole[2..]);
    assert_eq!(decode(&with_thumbnail, "x").unwrap(), decode(&whole, "x").unwrap());
    says(decode(&with_thumbnail[..with_thumbnail.len() - 9], "x"), &["break off"]);
}

#[test]
fn fill_bytes_before_a_marker_and_bytes_after_the_end_do_no_harm() {
    let whole = jpeg(64, 64);
    let mut padded = vec![0xff, 0xd8, 0xff, 0xff];
    padded.extend(&whole[2..]);
    padded.extend(b"trailing bytes");
    assert_eq!(decode(&padded, "x").unwrap(), decode(&whole, "x").unwrap());
}

#[test]
fn absurd_sizes_are_refused() {
    // The size of a JPEG stands in its SOF0 segment: marker, length, precision, height, width.
    let mut large = jpeg(8, 8);
    let sof = large.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
    large[sof + 5..sof + 9].fill(0xff);
    says(decode(&large, "x"), &["not a readable image"]);
    large[sof + 5..sof + 9].fill(0);
    says(decode(&large, "x"), &["not a readable image"]);
    // A PNG's stands in its first chunk, after signature, length and type.
    let mut large = encoded(smooth(8, 8), ImageFormat::Png);
    large[16..24].copy_from_slice(&[0x7f, 0xff, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff]);
    says(decode(&large, "x"), &["not a readable image"]);
}

#[test]
fn alpha_is_composited_over_black() {
    let rgba = RgbaImage::from_fn(3, 1, |x, _| Rgba([200, 100, 50, [0, 128, 255][x as usize]]));
    let image = decode(&encoded(rgba, ImageFormat::Png), "x").unwrap();
    assert_eq!((image.channels, &*image.pixels), (3, &[0, 0, 0, 100, 50, 25, 200, 100, 50][..]));
    let grey = GrayAlphaImage::from_fn(2, 1, |x, _| LumaA([200, [255, 64][x as usize]]));
    let image = decode(&encoded(grey, ImageFormat::Png), "x").unwrap();
    assert_eq!((image.channels, &*image.pixels), (1, &[200, 50][..]));
}

#[test]
fn sixteen_bits_become_eight() {
    let grey = DynamicImage::from(ImageBuffer::<Luma<u16>, _>::from_fn(2, 1, |x, _| Luma([[0, 65_535][x as usize]])));
    let image = decode(&encoded(grey, ImageFormat::Png), "x").unwrap();
    assert_eq!((image.channels, &*image.pixels), (1, &[0, 255][..]));
    let rgb = DynamicImage::from(ImageBuffer::<Rgb<u16>, _>::from_pixel(1, 1, Rgb([257, 25_700, 65_535])));
    let image = decode(&encoded(rgb, ImageFormat::Png), "x").unwrap();
    assert_eq!((image.channels, &*image.pixels), (3, &[1, 100, 255][..]));
}

/// A PNG of 2 x 1 pixels with a palette of red and a half transparent green, written by hand since the encoder makes
/// none.
#[test]
fn palettes_are_looked_up() {
    fn chunk(name: &[u8; 4], data: &[u8]) -> Vec<u8> {
        let body = [&name[..], data].concat();
        let mut crc = flate2::Crc::new();
        crc.update(&body);
        [&(data.len() as u32).to_be_bytes()[..], &body, &crc.sum().to_be_bytes()].concat()
    }
    let mut pixels = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut pixels, &[0, 0, 1]).unwrap();
    let png = [
        b"\x89PNG\r\n\x1a\n".to_vec(),
        chunk(b"IHDR", &[0, 0, 0, 2, 0, 0, 0, 1, 8, 3, 0, 0, 0]),
        chunk(b"PLTE", &[250, 0, 0, 0, 100, 0]),
        chunk(b"tRNS", &[255, 128]),
        chunk(b"IDAT", &pixels.finish().unwrap()),
        chunk(b"IEND", &[]),
    ];
    let image = decode(&png.concat(), "x").unwrap();
    assert_eq!((image.channels, &*image.pixels), (3, &[250, 0, 0, 0, 50, 0][..]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is overwritten, decoding ends in an image that fits its buffer or in an error, never in a panic.
    #[test]
    fn damage_never_panics(
        kind in 0..3usize,
        holes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
    ) {
        let format = [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::WebP][kind];
        let mut bytes = encoded(smooth(24, 17), format);
        for (place, value) in holes {
            let at = place.index(bytes.len());
            bytes[at] = value;
        }
        match decode(&bytes, "x") {
            Ok(image) => prop_assert_eq!(image.pixels.len(), image.width * image.height * image.channels),
            Err(error) => prop_assert!(error.is_corrupt(), "{}", error),
        }
    }
}
