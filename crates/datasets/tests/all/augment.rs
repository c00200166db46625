//! Augmentations as a pipeline applies them: what they draw is a matter of the sample, sizes stay, files decode to the
//! same. What single operations do to pixels is tested beside them, in `src/augment`.

use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;
use tempfile::TempDir;
use whitebox_datasets::{
    AugmentList, Erased, Image, ImageFolder, InMemory, Loader, LoaderConfig, Pipeline, SampleRng, Transform, decode,
};

use crate::support::{jpeg, pattern, plain, put};

fn apply(pipeline: &Pipeline, image: Image, seed: u64) -> Vec<f32> {
    let mut out = vec![0.0; pipeline.output_shape([image.height, image.width]).iter().product()];
    pipeline.apply(image, &mut SampleRng::new(seed, 0, 0), &mut out).unwrap();
    out
}

fn every() -> Vec<Transform> {
    vec![
        Transform::rand_augment(2, 14),
        Transform::RandAugment { n: 3, m: 14, bins: 31, list: AugmentList::Sixteen, fill: 128 },
        Transform::TrivialAugment { bins: 31, fill: 0 },
        Transform::ColorJitter { brightness: 0.4, contrast: 0.4, saturation: 0.4, hue: 0.1 },
        Transform::Grayscale { probability: 0.5 },
        Transform::GaussianBlur { kernel: 5, sigma: [0.1, 2.0], probability: 0.9 },
        Transform::random_erasing(0.9),
    ]
}

#[test]
fn a_seed_gives_one_result_and_seeds_give_many() {
    for transform in every() {
        let pipeline = plain(vec![transform.clone()], 3);
        let results: Vec<_> = (0..60).map(|seed| apply(&pipeline, pattern(20, 15, 3), seed)).collect();
        assert!((0..60).all(|seed| apply(&pipeline, pattern(20, 15, 3), seed) == results[seed as usize]));
        let different: BTreeSet<Vec<u32>> =
            results.iter().map(|result| result.iter().map(|value| value.to_bits()).collect()).collect();
        let least = if matches!(transform, Transform::Grayscale { .. }) { 2 } else { 25 };
        assert!(different.len() >= least, "{}: {}", transform.name(), different.len());
    }
}

#[test]
fn grayscale_has_equal_channels_as_often_as_asked() {
    let grey = |probability| {
        let pipeline = plain(vec![Transform::Grayscale { probability }], 3);
        (0..400)
            .filter(|&seed| {
                let out = apply(&pipeline, pattern(6, 4, 3), seed);
                out[..24] == out[24..48] && out[..24] == out[48..]
            })
            .count()
    };
    assert_eq!((grey(0.0), grey(1.0)), (0, 400));
    assert!((90..150).contains(&grey(0.3)));
    let (one, three) = (plain(vec![], 1), plain(vec![Transform::Grayscale { probability: 1.0 }], 3));
    assert_eq!(apply(&one, pattern(6, 4, 3), 0), apply(&three, pattern(6, 4, 3), 0)[..24]);
}

#[test]
fn erasing_leaves_exact_zeros_in_a_rectangle_of_the_asked_area_and_shape() {
    let (width, height) = (40, 30);
    let image = || Image::new(width, height, 3, vec![200; width * height * 3]).unwrap();
    let pipeline = |value| {
        let flip = Transform::HorizontalFlip { probability: 0.5 };
        let erasing = Transform::RandomErasing { probability: 0.75, scale: [0.05, 0.3], ratio: [0.5, 2.0], value };
        Pipeline::new(vec![flip, erasing], 3, vec![0.4, 0.5, 0.6], vec![0.2; 3]).unwrap()
    };
    let (mean, black) = (pipeline(Erased::Mean), pipeline(Erased::Black));
    let (mut erased, mut areas, mut shapes) = (0, [f64::MAX, 0.0_f64], [f64::MAX, 0.0_f64]);
    for seed in 0..800 {
        let (out, dark) = (apply(&mean, image(), seed), apply(&black, image(), seed));
        let plane = &out[..width * height];
        let holes: Vec<usize> = (0..plane.len()).filter(|&i| plane[i] == 0.0).collect();
        let Some((first, last)) = holes.first().zip(holes.last()) else { continue };
        erased += 1;
        let (w, h) = (last % width - first % width + 1, last / width - first / width + 1);
        assert_eq!(holes.len(), w * h, "a whole rectangle");
        assert!(w < width && h < height);
        for (channel, mean) in [0.4_f32, 0.5, 0.6].into_iter().enumerate() {
            for i in 0..plane.len() {
                let at = channel * plane.len() + i;
                assert_eq!((out[at] == 0.0, (dark[at] + mean / 0.2).abs() < 1e-6), (plane[i] == 0.0, plane[i] == 0.0));
            }
        }
        let (area, shape) = ((w * h) as f64 / (width * height) as f64, h as f64 / w as f64);
        areas = [areas[0].min(area), areas[1].max(area)];
        shapes = [shapes[0].min(shape), shapes[1].max(shape)];
    }
    assert!((550..650).contains(&erased), "{erased}");
    // To within the rounding of sides.
    assert!((0.04..0.06).contains(&areas[0]) && (0.27..0.32).contains(&areas[1]), "{areas:?}");
    assert!((0.45..0.6).contains(&shapes[0]) && (1.7..2.25).contains(&shapes[1]), "{shapes:?}");
}

#[test]
fn what_never_fits_erases_nothing() {
    let erasing = Transform::RandomErasing { probability: 1.0, scale: [1.0; 2], ratio: [1.0; 2], value: Erased::Black };
    let pipeline = plain(vec![erasing], 1);
    for image in [pattern(9, 9, 1), pattern(1, 1, 1), pattern(1, 30, 1)] {
        assert_eq!(apply(&pipeline, image.clone(), 3), apply(&plain(vec![], 1), image, 0));
    }
}

#[test]
fn a_file_gives_what_its_image_gives() {
    let dir = TempDir::new().unwrap();
    let file = jpeg(48, 36);
    put(dir.path().join("a/x.jpg"), &file);
    let image = decode(&file, "x").unwrap();
    let mut steps = every();
    steps.insert(0, Transform::random_resized_crop(24));
    let pipeline = Arc::new(plain(steps, 3));
    let folder = Arc::new(ImageFolder::open(dir.path()).unwrap());
    let memory = Arc::new(InMemory::new("x", image.pixels, [36, 48, 3], vec![0], &["a"]).unwrap());
    let config = LoaderConfig { workers: 0, ..Default::default() };
    let encoded = Loader::new(folder, pipeline.clone(), config.clone()).unwrap();
    let decoded = Loader::new(memory, pipeline, config).unwrap();
    for epoch in 0..20 {
        let image = |loader: &Loader| loader.epoch(epoch, 0).next().unwrap().unwrap().images;
        assert_eq!(image(&encoded), image(&decoded), "epoch {epoch}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Any augmentations on any image: the promised shape, finite values, the same from the same seed.
    #[test]
    fn shapes_are_as_promised(
        (width, height) in prop_oneof![(1..3usize, 1..3usize), (1..2usize, 1..30usize), (1..30usize, 1..30usize)],
        channels in prop::sample::select(vec![(1usize, 3usize), (3, 1), (1, 1), (3, 3)]),
        picks in prop::collection::vec(0..6usize, 0..4),
        erasing in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let (from, to) = channels;
        let mut steps: Vec<_> = picks.into_iter().map(|pick| every()[pick].clone()).collect();
        steps.extend(erasing.then(|| Transform::random_erasing(1.0)));
        let pipeline = plain(steps, to);
        prop_assert_eq!(pipeline.output_shape([height, width]), [to, height, width]);
        let result = apply(&pipeline, pattern(width, height, from), seed);
        prop_assert!(result.iter().all(|value| (0.0..=1.0).contains(value)));
        prop_assert_eq!(&result, &apply(&pipeline, pattern(width, height, from), seed));
    }
}
