//! Operations against what torchvision and Pillow made of the same images (`tests/data/augment.py`), and by hand; draws
//! by their counts.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::*;
use crate::raster::{Raster, Studio};

#[derive(Deserialize)]
struct Golden {
    readable: Vec<Case>,
    whole: Vec<Case>,
    cutout: String,
    bins: Vec<usize>,
    rand_augment_200_by_224: BTreeMap<String, Vec<f64>>,
    trivial_augment: BTreeMap<String, Vec<f64>>,
}

#[derive(Deserialize)]
struct Case {
    image: [usize; 3],
    op: String,
    value: f64,
    #[serde(default)]
    pixels: String,
    #[serde(default)]
    sha256: String,
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("../../tests/data/augment.json")).unwrap()
}

/// `picture` of the script.
fn picture([width, height, planes]: [usize; 3]) -> Raster {
    let value = |i: usize| {
        let (k, y, x) = (i / (width * height), i / width % height, i % width);
        (30 + (x * 37 + y * 91 + k * 53 + x * y * 7) % 256 * 3 / 4) as u8
    };
    Raster { width, height, planes, pixels: (0..width * height * planes).map(value).collect() }
}

fn every() -> impl Iterator<Item = Operation> {
    TORCHVISION.into_iter().chain(SIXTEEN).filter(|operation| *operation != Identity)
}

fn done(step: Step, image: Raster) -> Raster {
    let (mut image, mut studio) = (image, Studio::default());
    match step {
        Step::Adjust(adjust) => studio.adjust(image, adjust),
        Step::Warp(warp) => warp.apply(image, &mut studio),
        Step::Blur(blur) => {
            blur.apply(&mut image);
            image
        }
        Step::Fill { part, colour } => {
            image.fill(&part, colour);
            image
        }
        other => panic!("{other:?} is no operation of a policy"),
    }
}

fn operate(operation: Operation, magnitude: f64, image: Raster) -> Raster {
    let size = [image.height, image.width];
    let step = operation.step(magnitude, size, 37, &mut SampleRng::new(0, 0, 0));
    step.map_or_else(|| image.copy(), |step| done(step, image.copy()))
}

impl Raster {
    fn copy(&self) -> Self {
        let Raster { width, height, planes, ref pixels } = *self;
        Raster { width, height, planes, pixels: pixels.clone() }
    }
}

fn result(case: &Case) -> Vec<u8> {
    let image = picture(case.image);
    let result = match case.op.as_str() {
        "Hue" => done(Step::Adjust(Adjust::Hue((case.value * 255.0) as i32 as u8)), image),
        "Blur" => done(Step::Blur(Blur { kernel: 5, sigma: case.value }), image),
        name => {
            let operation = every().find(|operation| format!("{operation:?}") == name).unwrap();
            operate(operation, case.value, image)
        }
    };
    result.interleaved().pixels
}

#[test]
fn small_results_are_torchvisions() {
    for case in golden().readable {
        let hex: String = result(&case).iter().map(|value| format!("{value:02x}")).collect();
        assert_eq!(hex, case.pixels, "{} {}", case.op, case.value);
    }
}

#[test]
fn every_operation_is_torchvisions_bit_for_bit() {
    let cases = golden().whole;
    assert!(cases.len() > 80);
    let wrong: Vec<_> = cases
        .iter()
        .filter(|case| format!("{:x}", Sha256::digest(result(case))) != case.sha256)
        .map(|case| format!("{} {} of {:?}", case.op, case.value, case.image))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_cutout_is_pillows_rectangle() {
    let (side, size) = (40.0 * 14.0 / 30.0, [53, 61]);
    let part = cutout(side, [20.4 + side / 2.0, 30.9 + side / 2.0], size);
    assert_eq!(part, Part { top: 30, left: 20, height: 19, width: 19 });
    let result = done(Step::Fill { part, colour: CUTOUT }, picture([61, 53, 3])).interleaved();
    assert_eq!(format!("{:x}", Sha256::digest(&result.pixels)), golden().cutout);
    // At the corners of the image it is cut off.
    assert_eq!(cutout(10.0, [0.0, 52.9], [53, 61]), Part { top: 47, left: 0, height: 6, width: 11 });
    assert_eq!(cutout(40.0, [0.5, 0.5], [1, 1]), Part { top: 0, left: 0, height: 1, width: 1 });
}

#[test]
fn magnitudes_are_torchvisions() {
    let golden = golden();
    let policies =
        [(Ranges::rand_augment([224, 200]), golden.rand_augment_200_by_224), (Ranges::WIDE, golden.trivial_augment)];
    for (ranges, table) in policies {
        assert_eq!(table.len(), 11);
        for (name, values) in table {
            let operation = every().find(|operation| format!("{operation:?}") == name).unwrap();
            for (&bin, &value) in golden.bins.iter().zip(&values) {
                let found = ranges.magnitude(operation, bin, 31);
                let translates = matches!(operation, TranslateX | TranslateY);
                let expected = if translates { value.trunc() } else { value };
                // What has a sign is counted from its base, what has none is the base.
                let found = if found.signed { found.reach } else { found.base };
                // As the float32 that torchvision has them in: reading the file may lose a float64's last bit.
                assert_eq!(found as f32, expected as f32, "{name} in bin {bin}");
            }
        }
    }
}

#[test]
fn the_sixteen_have_their_ranges() {
    let at = |operation, level| {
        let Magnitude { base, reach, .. } = sixteen(operation, level);
        base + reach
    };
    let ends = |operation| [at(operation, 0.0), at(operation, 1.0)];
    assert_eq!(ends(Rotate), [0.0, 30.0]);
    assert_eq!((ends(Posterize), at(Posterize, 14.0 / 30.0)), ([1.0, 4.0], 1.0));
    assert_eq!((ends(Solarize), ends(SolarizeAdd)), ([0.0, 256.0], [0.0, 110.0]));
    assert_eq!((ends(Cutout), ends(TranslateX)), ([0.0, 40.0], [0.0, 100.0]));
    for operation in [Colour, Contrast, Brightness, Sharpness] {
        assert!((at(operation, 14.0 / 30.0) - 0.94).abs() < 1e-12 && !sixteen(operation, 0.5).signed);
    }
    let signed: Vec<_> = SIXTEEN.into_iter().filter(|&operation| sixteen(operation, 0.5).signed).collect();
    assert_eq!(signed, [Rotate, ShearX, ShearY, TranslateX, TranslateY]);
}

#[test]
fn a_magnitude_of_nothing_changes_nothing() {
    let image = picture([11, 8, 3]);
    let still = [
        (Identity, 0.0),
        (ShearX, 0.0),
        (ShearY, 0.0),
        (TranslateX, 0.0),
        (TranslateY, 0.0),
        (Rotate, 0.0),
        (Brightness, 1.0),
        (Colour, 1.0),
        (Contrast, 1.0),
        (Sharpness, 1.0),
        (Posterize, 8.0),
        (Solarize, 256.0),
    ];
    for (operation, magnitude) in still {
        assert_eq!(operate(operation, magnitude, image.copy()).pixels, image.pixels, "{operation:?}");
    }
    assert_eq!(operate(Invert, 0.0, operate(Invert, 0.0, image.copy())).pixels, image.pixels);
}

fn grey(width: usize, pixels: &[u8]) -> Raster {
    Raster { width, height: pixels.len() / width, planes: 1, pixels: pixels.to_vec() }
}

#[test]
fn shifts_shears_and_turns_by_hand() {
    let image = grey(3, &[1, 2, 3, 4, 5, 6, 7, 8, 9]);
    let moved = |operation, magnitude| operate(operation, magnitude, image.copy()).pixels;
    assert_eq!(moved(TranslateX, 1.0), [37, 1, 2, 37, 4, 5, 37, 7, 8]);
    assert_eq!(moved(TranslateY, -2.0), [7, 8, 9, 37, 37, 37, 37, 37, 37]);
    // Against the clock.
    assert_eq!(moved(Rotate, 90.0), [3, 6, 9, 2, 5, 8, 1, 4, 7]);
    assert_eq!(moved(Rotate, 180.0), [9, 8, 7, 6, 5, 4, 3, 2, 1]);
    // The middle of row y comes from y + 1/2 further right.
    assert_eq!(moved(ShearX, 1.0), [2, 3, 37, 6, 37, 37, 37, 37, 37]);
    assert_eq!(moved(ShearY, -1.0), [1, 37, 37, 4, 2, 37, 7, 5, 3]);
}

#[test]
fn colours_by_hand() {
    let changed = |adjust, image: &Raster| done(Step::Adjust(adjust), image.copy()).pixels;
    let image = grey(4, &[0, 100, 150, 201]);
    // Cut off behind the point: 100 * 1.25 = 125, 150 * 1.25 = 187.5.
    assert_eq!(changed(Adjust::Brightness(1.25), &image), [0, 125, 187, 251]);
    assert_eq!(changed(Adjust::Brightness(2.0), &image), [0, 200, 255, 255]);
    // The mean, 112.75, is rounded to 113.
    assert_eq!(changed(Adjust::Contrast(0.0), &image), [113; 4]);
    assert_eq!(changed(Adjust::Contrast(2.0), &image), [0, 87, 187, 255]);
    assert_eq!(changed(Adjust::Posterize(1), &image), [0, 0, 128, 128]);
    assert_eq!(changed(Adjust::Posterize(0), &image), [0; 4]);
    assert_eq!(changed(Adjust::Solarize(150.0), &image), [0, 100, 105, 54]);
    assert_eq!(changed(Adjust::SolarizeAdd(27.5), &image), [27, 127, 78, 27]);
    assert_eq!(changed(Adjust::AutoContrast, &grey(3, &[50, 100, 150])), [0, 127, 255]);
    assert_eq!(changed(Adjust::AutoContrast, &grey(2, &[9, 9])), [9, 9]);
    let red = Raster { width: 1, height: 1, planes: 3, pixels: vec![200, 0, 0] };
    assert_eq!(changed(Adjust::Saturation(0.0), &red), [60; 3]);
    assert_eq!(changed(Adjust::Grey, &red), [60]);
    // A third of the circle further is green.
    assert_eq!(changed(Adjust::Hue(85), &red), [0, 200, 0]);
    // Only the middle has eight neighbours: (8 * 13 + 5 * 26) / 13 = 18.
    let dot = grey(3, &[13, 13, 13, 13, 26, 13, 13, 13, 13]);
    assert_eq!(changed(Adjust::Sharpness(0.0), &dot)[4], 18);
    assert_eq!(changed(Adjust::Sharpness(2.0), &dot)[4], 34);
    assert_eq!(changed(Adjust::Sharpness(0.0), &image), image.pixels);
}

#[test]
fn equalizing_spreads_and_leaves_what_is_even() {
    let even = grey(256, &(0..=255).flat_map(|value| [value; 4]).collect::<Vec<_>>());
    assert_eq!(operate(Equalize, 0.0, even.copy()).pixels, even.pixels);
    // 255 of value 10, 255 of 20 and one of 30: a unit is (511 - 1) / 255 = 2 pixels, of which half comes first.
    let image = grey(1, &[[10; 255].as_slice(), &[20; 255], &[30]].concat());
    let result = operate(Equalize, 0.0, image).pixels;
    assert_eq!((result[0], result[255], result[510]), (0, 128, 255));
    let few = grey(2, &[1, 2]);
    assert_eq!(operate(Equalize, 0.0, few.copy()).pixels, few.pixels);
}

#[test]
fn a_blur_by_hand() {
    let blurred = |kernel, sigma, image: &Raster| done(Step::Blur(Blur { kernel, sigma }), image.copy()).pixels;
    // exp(-1 / (2 s^2)) is 1/2: weights 1/4, 1/2, 1/4; the borders see their neighbour twice.
    let half = (0.5 / std::f64::consts::LN_2).sqrt();
    assert_eq!(blurred(3, half, &grey(4, &[0, 100, 40, 200])), [50, 60, 95, 120]);
    assert_eq!(blurred(3, half, &grey(1, &[0, 100, 40, 200])), [50, 60, 95, 120]);
    // Nearly all even: 2 x 3 pixels reflected again and again.
    assert_eq!(blurred(255, 1000.0, &grey(1, &[0, 200])), [100, 100]);
    let even = grey(5, &[77; 35]);
    assert_eq!(blurred(9, 1.7, &even), even.pixels);
    assert_eq!(blurred(1, 1.0, &picture([7, 5, 3])), picture([7, 5, 3]).pixels);
}

#[test]
fn grey_channels_change_as_a_grey_image_does() {
    let image = picture([17, 13, 1]);
    let colour = Raster { planes: 3, pixels: image.pixels.repeat(3), ..image.copy() };
    for operation in every().filter(|operation| *operation != Cutout) {
        let magnitude = sixteen(operation, 0.6).draw(&mut SampleRng::new(0, 0, 0));
        let (one, three) = (operate(operation, magnitude, image.copy()), operate(operation, magnitude, colour.copy()));
        assert_eq!(one.pixels.repeat(3), three.pixels, "{operation:?}");
    }
}

/// How many steps were which operation, and how many of those that turn turned against the clock.
fn drawn(draw: impl Fn(&mut SampleRng, &mut Vec<Step>), count: usize) -> (BTreeMap<String, usize>, usize) {
    let (mut counts, mut steps) = (BTreeMap::new(), Vec::new());
    let rng = &mut SampleRng::new(5, 0, 0);
    (0..count).for_each(|_| draw(rng, &mut steps));
    let mut left = 0;
    for step in steps {
        let name = match step {
            Step::Warp(Warp { matrix: [a, b, c, d, e, f], .. }) => match (b != 0.0, d != 0.0, c != 0.0, f != 0.0) {
                (true, true, ..) => {
                    left += usize::from(d > 0.0);
                    assert!((a * e - b * d - 1.0).abs() < 1e-12);
                    "rotate".into()
                }
                (true, ..) => "shear x".into(),
                (_, true, ..) => "shear y".into(),
                (_, _, true, _) => "translate x".into(),
                (.., true) => "translate y".into(),
                _ => "none".into(),
            },
            Step::Fill { .. } => "cutout".into(),
            Step::Adjust(adjust) => format!("{adjust:?}").split('(').next().unwrap().to_owned(),
            other => panic!("{other:?}"),
        };
        *counts.entry(name).or_default() += 1;
    }
    (counts, left)
}

#[test]
fn operations_are_drawn_equally_often_with_either_sign() {
    for (list, kinds, steps) in [(AugmentList::Torchvision, 14, 13_000), (AugmentList::Sixteen, 16, 16_000)] {
        let draw = |rng: &mut SampleRng, steps: &mut Vec<Step>| {
            rand_augment(2, (14, 31), list, 0, [32, 32], rng, steps);
        };
        let (counts, left) = drawn(draw, 500 * kinds);
        // The identity is no step.
        assert_eq!(counts.len(), steps / 1000, "{counts:?}");
        assert!(counts.values().all(|count| (880..1120).contains(count)), "{counts:?}");
        assert!((420..580).contains(&left), "{left}");
    }
    let (mut counts, _) = drawn(|rng, steps| trivial_augment(31, 0, [32, 32], rng, steps), 14_000);
    // The first of 31 bins of the five that move pixels.
    assert!((110..220).contains(&counts.remove("none").unwrap()));
    assert!(counts.len() == 13 && counts.values().all(|count| (850..1150).contains(count)), "{counts:?}");
}

#[test]
fn trivial_magnitudes_reach_both_ends_of_their_ranges() {
    let (rng, mut steps) = (&mut SampleRng::new(1, 0, 0), Vec::new());
    (0..20_000).for_each(|_| trivial_augment(31, 0, [500, 500], rng, &mut steps));
    let bits = |step: &Step| if let Step::Adjust(Adjust::Posterize(bits)) = *step { Some(bits) } else { None };
    let factors = |step: &Step| if let Step::Adjust(Adjust::Contrast(x)) = *step { Some(x) } else { None };
    let shifts = |step: &Step| match *step {
        Step::Warp(Warp { matrix: [1.0, 0.0, shift, 0.0, 1.0, _], .. }) => Some(shift),
        _ => None,
    };
    let kinds: std::collections::BTreeSet<u32> = steps.iter().filter_map(bits).collect();
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), [2, 3, 4, 5, 6, 7, 8]);
    let ends = |values: Vec<f64>| values.iter().fold([f64::MAX, f64::MIN], |[a, b], &x| [a.min(x), b.max(x)]);
    assert_eq!(ends(steps.iter().filter_map(shifts).collect()), [-32.0, 32.0]);
    let [least, most] = ends(steps.iter().filter_map(factors).map(f64::from).collect());
    assert!((least - 0.01).abs() < 1e-6 && (most - 1.99).abs() < 1e-6, "{least} {most}");
}

#[test]
fn jitter_stays_in_range_in_any_order() {
    let (rng, mut orders) = (&mut SampleRng::new(2, 0, 0), BTreeMap::<String, usize>::new());
    let mut hues = std::collections::BTreeSet::new();
    for _ in 0..4_800 {
        let mut steps = Vec::new();
        color_jitter([0.4, 1.5, 0.2, 0.1], rng, &mut steps);
        let mut order = String::new();
        for step in steps {
            let Step::Adjust(adjust) = step else { panic!("{step:?}") };
            let (letter, fits) = match adjust {
                Adjust::Brightness(x) => ('b', (0.6..=1.4).contains(&x)),
                Adjust::Contrast(x) => ('c', (0.0..=2.5).contains(&x)),
                Adjust::Saturation(x) => ('s', (0.8..=1.2).contains(&x)),
                Adjust::Hue(steps) => {
                    hues.insert(steps as i8);
                    ('h', true)
                }
                other => panic!("{other:?}"),
            };
            assert!(fits, "{adjust:?}");
            order.push(letter);
        }
        *orders.entry(order).or_default() += 1;
    }
    assert!(orders.len() == 24 && orders.values().all(|count| (140..260).contains(count)), "{orders:?}");
    assert_eq!((hues.first(), hues.last()), (Some(&-25), Some(&25)));
    let mut steps = Vec::new();
    color_jitter([0.0; 4], rng, &mut steps);
    assert!(steps.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Any operation, of any magnitude, on an image of any size: no panic, the same size, and of one value stays so
    /// where nothing comes from outside.
    #[test]
    fn sizes_stay(
        (width, height) in prop_oneof![(1..3usize, 1..3usize), (1..2usize, 1..40usize), (1..40usize, 1..40usize)],
        planes in prop::sample::select(vec![1usize, 3]),
        level in 0.0..=1.0,
        seed in any::<u64>(),
    ) {
        let image = picture([width, height, planes]);
        for operation in every() {
            let rng = &mut SampleRng::new(seed, 0, 0);
            let magnitudes = [
                sixteen(operation, level).draw(rng),
                Ranges::WIDE.magnitude(operation, (level * 30.0) as usize, 31).draw(rng),
            ];
            for magnitude in magnitudes {
                if let Some(step) = operation.step(magnitude, [height, width], 0, rng) {
                    let result = done(step, image.copy());
                    prop_assert_eq!((result.width, result.height, result.planes), (width, height, planes));
                    prop_assert_eq!(result.pixels.len(), image.pixels.len());
                }
            }
        }
        let kernel = 1 + 2 * (level * 20.0) as usize;
        let blurred = done(Step::Blur(Blur { kernel, sigma: 0.1 + level }), image.copy());
        prop_assert_eq!(blurred.pixels.len(), image.pixels.len());
        for hue in [0, 1, 128, 255] {
            prop_assert_eq!(done(Step::Adjust(Adjust::Hue(hue)), image.copy()).pixels.len(), image.pixels.len());
        }
    }
}
