//! Channels, normalisation, recipes.

use serde_json::json;
use whitebox_datasets::{AugmentList, Erased, Filter, Image, Pipeline, SampleRng, Transform};

use crate::support::{pattern, plain, says};

fn apply(pipeline: &Pipeline, image: Image) -> Vec<f32> {
    let mut out = vec![0.0; pipeline.output_shape([image.height, image.width]).iter().product()];
    pipeline.apply(image, &mut SampleRng::new(0, 0, 0), &mut out).unwrap();
    out
}

#[test]
fn values_are_normalised_and_channels_come_first() {
    let image = Image::new(2, 1, 3, vec![0, 51, 102, 255, 204, 153]).unwrap();
    let pipeline = Pipeline::new(vec![], 3, vec![0.0, 0.2, 0.4], vec![1.0, 0.5, 0.1]).unwrap();
    let expected = [0.0, 1.0, 0.0, 1.2, 0.0, 2.0];
    for (value, expected) in apply(&pipeline, image).iter().zip(expected) {
        assert!((value - expected).abs() < 1e-6, "{value} {expected}");
    }
}

/// Made with Pillow 13.0: `convert("L")` of the same pattern.
#[test]
fn grey_has_pils_values() {
    let expected = [
        43, 80, 117, 154, 191, 199, 86, 46, 83, 134, 178, 193, 87, 54, 98, 142, 186, 201, 196, 97, 71, 122, 173, 195,
        96, 70, 121, 60, 118, 176, 205, 113, 94, 152, 181, 89, 151, 187, 102, 90, 155, 191, 106, 94, 159, 213, 58, 130,
        173, 95, 90, 162, 205, 50,
    ];
    let grey: Vec<_> = apply(&plain(vec![], 1), pattern(9, 6, 3)).iter().map(|v| (v * 255.0).round() as i32).collect();
    assert_eq!(grey, expected);
}

#[test]
fn grey_is_repeated_for_rgb() {
    let out = apply(&plain(vec![], 3), pattern(4, 3, 1));
    assert_eq!(out[..12], apply(&plain(vec![], 1), pattern(4, 3, 1)));
    assert_eq!((&out[..12], &out[..12]), (&out[12..24], &out[24..]));
}

#[test]
fn settings_are_checked() {
    let make = |transforms, channels, mean: &[f32], std: &[f32]| {
        Pipeline::new(transforms, channels, mean.to_vec(), std.to_vec())
    };
    says(make(vec![], 2, &[0.0; 2], &[1.0; 2]), &["channels = 2", "1 (grey) or 3 (RGB)"]);
    says(make(vec![], 3, &[0.0], &[1.0; 3]), &["mean = [0.0]", "3 channels"]);
    says(make(vec![], 1, &[0.0], &[1.0; 3]), &["std"]);
    says(make(vec![], 1, &[f32::NAN], &[1.0]), &["mean = NaN"]);
    for std in [0.0, -1.0, f32::INFINITY, 1e-40] {
        says(make(vec![], 1, &[0.0], &[std]), &["std = ", "positive"]);
    }
    let one = |transform| make(vec![transform], 1, &[0.0], &[1.0]);
    says(one(Transform::CenterCrop { size: 0.into() }), &["center_crop.size = 0", "from 1 to 8192"]);
    says(one(Transform::Resize { size: [3, 9000].into(), filter: Filter::Bilinear }), &["resize.size = 9000"]);
    says(one(Transform::RandomCrop { size: 8.into(), padding: usize::MAX }), &["random_crop.padding"]);
    says(one(Transform::HorizontalFlip { probability: 1.5 }), &["horizontal_flip.probability = 1.5", "from 0 to 1"]);
    says(one(Transform::HorizontalFlip { probability: f64::NAN }), &["NaN"]);
    let crop = |scale, ratio| Transform::RandomResizedCrop { size: 8.into(), scale, ratio, filter: Filter::Bilinear };
    says(one(crop([0.5, 0.2], [1.0, 1.0])), &["random_resized_crop.scale = [0.5, 0.2]", "low <= high"]);
    says(one(crop([0.5, 1.5], [1.0, 1.0])), &["random_resized_crop.scale"]);
    says(one(crop([0.5, 1.0], [0.0, 1.0])), &["random_resized_crop.ratio"]);
    says(one(Transform::rand_augment(0, 9)), &["rand_augment.n = 0", "from 1 to 64"]);
    says(one(Transform::rand_augment(2, 31)), &["rand_augment.m = 31", "from 0 to 30"]);
    says(one(Transform::TrivialAugment { bins: 1, fill: 0 }), &["trivial_augment.bins = 1", "from 2 to 1000"]);
    let jitter = |brightness, hue| Transform::ColorJitter { brightness, contrast: 0.0, saturation: 0.0, hue };
    says(one(jitter(-0.1, 0.0)), &["color_jitter.brightness = -0.1"]);
    says(one(jitter(0.1, 0.6)), &["color_jitter.hue = 0.6", "from 0 to 0.5"]);
    says(one(Transform::Grayscale { probability: 2.0 }), &["grayscale.probability = 2"]);
    let blur = |kernel, sigma| Transform::GaussianBlur { kernel, sigma, probability: 1.0 };
    says(one(blur(4, [1.0; 2])), &["gaussian_blur.kernel = 4", "odd"]);
    says(one(blur(257, [1.0; 2])), &["gaussian_blur.kernel = 257", "up to 255"]);
    says(one(blur(5, [0.0, 1.0])), &["gaussian_blur.sigma = [0, 1]"]);
    says(one(Transform::random_erasing(-1.0)), &["random_erasing.probability = -1"]);
    let early = vec![Transform::random_erasing(0.5), Transform::HorizontalFlip { probability: 0.5 }];
    says(make(early, 1, &[0.0], &[1.0]), &["random_erasing = step 1 of 2", "move it to the end"]);
}

#[test]
fn shapes_follow_the_steps() {
    let resize = Transform::Resize { size: 256.into(), filter: Filter::Bicubic };
    let open = plain(vec![resize.clone()], 3);
    assert_eq!((open.output_shape([375, 500]), open.fixed_shape()), ([3, 256, 341], None));
    let closed = plain(vec![resize.clone(), Transform::CenterCrop { size: [224, 192].into() }], 1);
    assert_eq!((closed.output_shape([375, 500]), closed.fixed_shape()), ([1, 224, 192], Some([1, 224, 192])));
    let after = plain(vec![Transform::CenterCrop { size: [20, 10].into() }, resize], 1);
    assert_eq!(after.fixed_shape(), Some([1, 512, 256]));
}

#[test]
fn wrong_buffers_and_images_are_errors() {
    let mut out = [0.0; 5];
    let rng = &mut SampleRng::new(0, 0, 0);
    says(plain(vec![], 1).apply(pattern(2, 2, 1), rng, &mut out), &["give 4 values but 5 are expected"]);
    for image in [
        Image { width: 2, height: 2, channels: 1, pixels: vec![0; 5] },
        Image { width: 0, height: 2, channels: 1, pixels: vec![] },
        Image { width: 1, height: 2, channels: 2, pixels: vec![0; 4] },
        Image { width: usize::MAX, height: 2, channels: 1, pixels: vec![0; 4] },
    ] {
        says(plain(vec![], 1).apply(image, rng, &mut out), &["do not fit a buffer"]);
    }
}

#[test]
fn recipes_read_and_write() {
    let text = json!({
        "channels": 1, "mean": [0.5], "std": [0.25],
        "transforms": [
            { "op": "resize", "size": 32 },
            { "op": "resize", "size": [32, 48], "filter": "bicubic" },
            { "op": "random_resized_crop", "size": 28 },
            { "op": "random_crop", "size": 28, "padding": 2 },
            { "op": "center_crop", "size": 28 },
            { "op": "horizontal_flip" },
            { "op": "rand_augment" },
            { "op": "rand_augment", "n": 2, "m": 14, "bins": 31, "list": "sixteen", "fill": 128 },
            { "op": "trivial_augment" },
            { "op": "color_jitter", "brightness": 0.4, "hue": 0.1 },
            { "op": "grayscale", "probability": 0.2 },
            { "op": "gaussian_blur", "kernel": 5 },
            { "op": "random_erasing" },
        ],
    });
    let pipeline: Pipeline = serde_json::from_value(text).unwrap();
    assert_eq!(
        pipeline.transforms(),
        [
            Transform::Resize { size: 32.into(), filter: Filter::Bilinear },
            Transform::Resize { size: [32, 48].into(), filter: Filter::Bicubic },
            Transform::random_resized_crop(28),
            Transform::RandomCrop { size: 28.into(), padding: 2 },
            Transform::CenterCrop { size: 28.into() },
            Transform::HorizontalFlip { probability: 0.5 },
            Transform::rand_augment(2, 9),
            Transform::RandAugment { n: 2, m: 14, bins: 31, list: AugmentList::Sixteen, fill: 128 },
            Transform::TrivialAugment { bins: 31, fill: 0 },
            Transform::ColorJitter { brightness: 0.4, contrast: 0.0, saturation: 0.0, hue: 0.1 },
            Transform::Grayscale { probability: 0.2 },
            Transform::GaussianBlur { kernel: 5, sigma: [0.1, 2.0], probability: 0.5 },
            Transform::RandomErasing { probability: 0.5, scale: [0.02, 0.33], ratio: [0.3, 3.3], value: Erased::Mean },
        ]
    );
    let again: Pipeline = serde_json::from_str(&serde_json::to_string(&pipeline).unwrap()).unwrap();
    assert_eq!(again, pipeline);
}

#[test]
fn recipes_are_checked_while_they_are_read() {
    let fails = |transform: serde_json::Value, part: &str| {
        let text = json!({ "channels": 1, "mean": [0.5], "std": [0.25], "transforms": [transform] });
        let error = serde_json::from_value::<Pipeline>(text).unwrap_err().to_string();
        assert!(error.contains(part), "{part:?} is not in {error:?}");
    };
    fails(json!({ "op": "resise", "size": 32 }), "resise");
    fails(json!({ "op": "resize", "sise": 32 }), "sise");
    fails(json!({ "op": "resize", "size": "big" }), "one number of pixels or [height, width]");
    fails(json!({ "op": "center_crop", "size": 0 }), "center_crop.size = 0");
    fails(json!({ "op": "rand_augment", "fill": 256 }), "256");
    fails(json!({ "op": "rand_augment", "list": "fifteen" }), "fifteen");
    fails(json!({ "op": "random_erasing", "value": "white" }), "white");
    let unknown = json!({ "channels": 1, "mean": [0.5], "std": [0.25], "deviation": 1 });
    assert!(serde_json::from_value::<Pipeline>(unknown).unwrap_err().to_string().contains("deviation"));
}
