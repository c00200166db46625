//! Files and images made for the tests.

use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use image::{DynamicImage, ImageFormat, RgbImage};
use whitebox_datasets::{Image, Pipeline, Transform};

pub use crate::common::{gz, put, says};

/// The project's `data/` folder.
pub fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data")
}

/// An IDX file: magic, dimensions, values.
pub fn idx(magic: u32, shape: &[u32], values: &[u8]) -> Vec<u8> {
    let header = std::iter::once(&magic).chain(shape).flat_map(|number| number.to_be_bytes());
    header.chain(values.iter().copied()).collect()
}

/// An element of a MATLAB file, little endian and filled up.
pub fn matlab_element(kind: u32, bytes: &[u8]) -> Vec<u8> {
    let head = [kind, bytes.len() as u32].into_iter().flat_map(u32::to_le_bytes);
    let mut element: Vec<u8> = head.chain(bytes.iter().copied()).collect();
    element.resize(element.len().next_multiple_of(8), 0);
    element
}

/// A row of a MATLAB file, of class double, whose values are stored as type `kind`.
pub fn matlab_row(name: &str, kind: u32, count: i32, values: &[u8]) -> Vec<u8> {
    let dimensions: Vec<u8> = [1, count].into_iter().flat_map(i32::to_le_bytes).collect();
    let parts = [
        matlab_element(6, &[6, 0, 0, 0, 0, 0, 0, 0]),
        matlab_element(5, &dimensions),
        matlab_element(1, name.as_bytes()),
        matlab_element(kind, values),
    ];
    matlab_element(14, &parts.concat())
}

/// An element as a compressed one.
pub fn matlab_packed(element: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(element).unwrap();
    let bytes = encoder.finish().unwrap();
    [15, bytes.len() as u32].into_iter().flat_map(u32::to_le_bytes).chain(bytes.iter().copied()).collect()
}

/// A MATLAB file of these elements.
pub fn matlab(elements: &[Vec<u8>]) -> Vec<u8> {
    let mut head = b"MATLAB 5.0 MAT-file, made for a test".to_vec();
    head.resize(124, b' ');
    [head, vec![0, 1, b'I', b'M'], elements.concat()].concat()
}

/// Values that vary in every direction.
pub fn pattern(width: usize, height: usize, channels: usize) -> Image {
    let value = |i: usize| {
        let (k, x, y) = (i % channels, i / channels % width, i / channels / width);
        ((x * 37 + y * 91 + k * 53 + x * y * 7) % 256) as u8
    };
    Image::new(width, height, channels, (0..width * height * channels).map(value).collect()).unwrap()
}

/// A smooth picture, which JPEG keeps to within a few values.
pub fn smooth(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| image::Rgb([(x * 200 / width) as u8, (y * 200 / height) as u8, 90]))
}

pub fn encoded(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.into().write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

pub fn jpeg(width: u32, height: u32) -> Vec<u8> {
    encoded(smooth(width, height), ImageFormat::Jpeg)
}

/// A pipeline whose output is `value / 255`.
pub fn plain(transforms: Vec<Transform>, channels: usize) -> Pipeline {
    Pipeline::new(transforms, channels, vec![0.0; channels], vec![1.0; channels]).unwrap()
}
