//! Each transform against PIL's values or torchvision's rules.

use proptest::prelude::*;
use whitebox_datasets::{Filter, Image, SampleRng, Size, Transform};

use crate::support::{pattern, plain, says};

/// The bytes after some transforms, channels interleaved as in an [`Image`].
fn apply(transforms: Vec<Transform>, image: Image, rng: &mut SampleRng) -> Image {
    let channels = image.channels;
    let pipeline = plain(transforms, channels);
    let [_, height, width] = pipeline.output_shape([image.height, image.width]);
    let mut out = vec![0.0; channels * height * width];
    pipeline.apply(image, rng, &mut out).unwrap();
    let plane = height * width;
    let value = |i: usize| (out[i % channels * plane + i / channels] * 255.0).round() as u8;
    Image::new(width, height, channels, (0..out.len()).map(value).collect()).unwrap()
}

fn once(transform: Transform, image: Image) -> Image {
    apply(vec![transform], image, &mut SampleRng::new(0, 0, 0))
}

fn resize(size: impl Into<Size>, filter: Filter) -> Transform {
    Transform::Resize { size: size.into(), filter }
}

/// Made with Pillow 13.0: `Image.resize((width, height), filter)` of the same pattern.
#[test]
fn resizing_gives_pils_values() {
    #[rustfmt::skip]
    let cases: [(usize, [usize; 2], Filter, &[u8]); 5] = [
        (3, [3, 4], Filter::Bilinear, &[92, 130, 147, 124, 129, 149, 127, 138, 130, 103, 127, 139, 125, 131, 128, 135, 138, 137, 139, 136, 126, 132, 124, 124, 121, 152, 117, 140, 131, 113, 141, 132, 126, 120, 138, 128]),
        (3, [3, 4], Filter::Bicubic, &[89, 130, 148, 123, 131, 150, 128, 135, 132, 100, 128, 140, 128, 130, 126, 135, 140, 141, 142, 135, 127, 134, 122, 121, 118, 157, 115, 142, 126, 111, 145, 131, 126, 116, 140, 129]),
        (1, [7, 11], Filter::Bicubic, &[0, 22, 54, 83, 115, 152, 182, 232, 125, 0, 36, 67, 96, 143, 196, 190, 28, 60, 99, 119, 137, 169, 166, 215, 136, 81, 118, 77, 132, 189, 135, 62, 111, 98, 147, 103, 78, 150, 206, 126, 154, 139, 105, 153, 28, 79, 152, 173, 156, 208, 101, 124, 142, 150, 208, 129, 141, 200, 167, 57, 125, 153, 219, 161, 63, 90, 209, 53, 34, 111, 180, 235, 65, 77, 166, 153, 0]),
        (1, [7, 11], Filter::Bilinear, &[0, 27, 57, 87, 118, 148, 178, 209, 122, 13, 40, 72, 102, 137, 172, 170, 40, 75, 110, 120, 125, 156, 149, 185, 135, 100, 122, 87, 127, 167, 132, 82, 117, 100, 139, 114, 101, 145, 190, 130, 151, 137, 112, 152, 50, 93, 143, 159, 151, 200, 115, 134, 142, 142, 186, 127, 136, 175, 157, 83, 137, 147, 191, 154, 84, 93, 199, 65, 54, 113, 172, 231, 80, 93, 152, 141, 7]),
        (3, [2, 12], Filter::Bilinear, &[82, 135, 124, 111, 124, 153, 121, 134, 151, 115, 156, 121, 149, 118, 131, 124, 121, 162, 110, 143, 148, 125, 162, 103, 158, 99, 136, 113, 118, 151, 99, 140, 137, 128, 149, 106, 117, 170, 127, 117, 150, 107, 129, 126, 119, 144, 113, 150, 119, 160, 101, 154, 127, 132, 154, 127, 132, 122, 159, 100, 169, 110, 147, 136, 141, 114, 112, 141, 114, 111, 100, 153]),
    ];
    for (channels, size, filter, expected) in cases {
        let image = once(resize(size, filter), pattern(9, 6, channels));
        assert_eq!([image.height, image.width], size);
        for (i, (value, expected)) in image.pixels.iter().zip(expected).enumerate() {
            // The rounding of the two fixed-point kernels may differ by one.
            assert!(value.abs_diff(*expected) <= 1, "{size:?} {filter:?} at {i}: {value}, PIL {expected}");
        }
    }
}

#[test]
fn one_number_is_the_shorter_side() {
    for (before, side, after) in
        [([6, 9], 4, [4, 6]), ([9, 6], 4, [6, 4]), ([500, 375], 256, [341, 256]), ([7, 7], 3, [3, 3])]
    {
        let image = once(resize(side, Filter::Bilinear), pattern(before[1], before[0], 1));
        assert_eq!([image.height, image.width], after);
    }
    let same = pattern(9, 6, 3);
    assert_eq!(once(resize(6, Filter::Bicubic), same.clone()), same);
}

#[test]
fn the_centre_is_torchvisions() {
    // (9 - 4) / 2 = 2.5 rounds to 2, (7 - 4) / 2 = 1.5 to 2.
    let image = pattern(9, 7, 1);
    let centre = once(Transform::CenterCrop { size: 4.into() }, image.clone());
    assert_eq!(centre.pixels[..4], image.pixels[2 * 9 + 2..2 * 9 + 6]);
    // Too small: one pixel before and two after, rows as columns.
    let padded = once(Transform::CenterCrop { size: [5, 6].into() }, pattern(3, 2, 1));
    let original = pattern(3, 2, 1).pixels;
    let mut expected = vec![0; 30];
    for y in 0..2 {
        expected[(1 + y) * 6 + 1..][..3].copy_from_slice(&original[y * 3..][..3]);
    }
    assert_eq!(padded.pixels, expected);
}

#[test]
fn a_flip_mirrors_pixels_and_keeps_channels() {
    let image = Image::new(3, 2, 3, (0..18).collect()).unwrap();
    let flipped = once(Transform::HorizontalFlip { probability: 1.0 }, image.clone());
    assert_eq!(flipped.pixels, [6, 7, 8, 3, 4, 5, 0, 1, 2, 15, 16, 17, 12, 13, 14, 9, 10, 11]);
    assert_eq!(once(Transform::HorizontalFlip { probability: 0.0 }, image.clone()), image);
    let rng = &mut SampleRng::new(3, 1, 4);
    let half = Transform::HorizontalFlip { probability: 0.5 };
    let count = (0..400).filter(|_| apply(vec![half.clone()], image.clone(), rng) != image).count();
    assert!((160..240).contains(&count), "{count}");
}

#[test]
fn a_random_crop_reaches_every_place_and_no_other() {
    let image = Image::new(3, 3, 1, (1..=9).collect()).unwrap();
    let rng = &mut SampleRng::new(0, 0, 0);
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..2000 {
        seen.insert(apply(vec![Transform::RandomCrop { size: 3.into(), padding: 1 }], image.clone(), rng).pixels);
    }
    let padded =
        |y: isize, x: isize| if (0..3).contains(&y) && (0..3).contains(&x) { (1 + y * 3 + x) as u8 } else { 0 };
    let places = (-1..=1).flat_map(|top| (-1..=1).map(move |left| (top, left)));
    let all = places.map(|(top, left)| (0..9).map(|i| padded(top + i / 3, left + i % 3)).collect::<Vec<_>>()).collect();
    assert_eq!(seen, all);
}

#[test]
fn a_random_resized_crop_stays_within_area_and_shape() {
    // The image's values are its coordinates, so that a crop resized to its corners' size shows what was cut out.
    let (width, height) = (200, 100);
    let image = Image::new(
        width,
        height,
        3,
        (0..width * height).flat_map(|i| [(i % width) as u8, (i / width) as u8, 0]).collect(),
    )
    .unwrap();
    let rng = &mut SampleRng::new(1, 2, 3);
    let (mut smallest, mut largest, mut flattest, mut tallest) = (1f64, 0f64, 0f64, 9f64);
    for _ in 0..300 {
        let crop = apply(vec![Transform::random_resized_crop([64, 64])], image.clone(), rng);
        let pixel = |y: usize, x: usize| &crop.pixels[(y * 64 + x) * 3..][..2];
        let span = |channel: usize, last: &[u8]| f64::from(last[channel] - pixel(0, 0)[channel]) * 64.0 / 63.0;
        let (w, h) = (span(0, pixel(0, 63)), span(1, pixel(63, 0)));
        let (area, shape) = (w * h / (width * height) as f64, w / h);
        (smallest, largest) = (smallest.min(area), largest.max(area));
        (tallest, flattest) = (tallest.min(shape), flattest.max(shape));
    }
    // Read off pixel values, hence to within a few hundredths. An area of 1 does not fit a shape of 4/3 at most.
    assert!((0.06..0.12).contains(&smallest) && (0.55..0.70).contains(&largest), "{smallest} {largest}");
    assert!((0.68..0.85).contains(&tallest) && (1.2..1.45).contains(&flattest), "{tallest} {flattest}");
}

#[test]
fn ten_misses_fall_back_to_the_centre() {
    // The whole area in a shape that the image does not have never fits.
    let crop = |width, height, size: [usize; 2]| {
        let transform = Transform::RandomResizedCrop {
            size: size.into(),
            scale: [1.0, 1.0],
            ratio: [0.75, 4.0 / 3.0],
            filter: Filter::Bilinear,
        };
        once(transform, pattern(width, height, 1))
    };
    let centre = |width: usize, height: usize, size: [usize; 2]| {
        once(Transform::CenterCrop { size: size.into() }, pattern(width, height, 1))
    };
    assert_eq!(crop(40, 6, [6, 8]), centre(40, 6, [6, 8]));
    assert_eq!(crop(6, 40, [8, 6]), centre(6, 40, [8, 6]));
    assert_eq!(crop(1, 1, [1, 1]), pattern(1, 1, 1));
}

#[test]
fn a_step_that_does_not_fit_says_so() {
    let fails = |transform: Transform, width, height| {
        let mut out = [0.0; 1];
        plain(vec![transform], 1).apply(pattern(width, height, 1), &mut SampleRng::new(0, 0, 0), &mut out)
    };
    let crop = Transform::RandomCrop { size: 8.into(), padding: 1 };
    says(fails(crop, 9, 5), &["random_crop", "9 x 5", "1 pixels of padding", "8 x 8", "resize before"]);
    says(fails(resize(8192, Filter::Bilinear), 2, 9), &["resize", "8192 x 36864", "remove the image"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// The shape promised is the shape made, for any steps on any image; the same numbers give the same result.
    #[test]
    fn shapes_are_as_promised(
        (width, height) in (1..40usize, 1..40usize),
        channels in prop::sample::select(vec![1usize, 3]),
        sides in prop::collection::vec((0..5usize, 1..24usize, 1..24usize), 0..4),
        seed in any::<u64>(),
    ) {
        let steps: Vec<_> = sides.into_iter().map(|(kind, a, b)| match kind {
            0 => resize(a, Filter::Bicubic),
            1 => resize([a, b], Filter::Bilinear),
            2 => Transform::CenterCrop { size: [a, b].into() },
            3 => Transform::random_resized_crop([a, b]),
            _ => Transform::HorizontalFlip { probability: 0.5 },
        }).collect();
        let run = || apply(steps.clone(), pattern(width, height, channels), &mut SampleRng::new(seed, 0, 0));
        prop_assert_eq!(run(), run());
        let pipeline = plain(steps.clone(), channels);
        if let Some(fixed) = pipeline.fixed_shape() {
            prop_assert_eq!(fixed, pipeline.output_shape([height, width]));
        }
    }
}
