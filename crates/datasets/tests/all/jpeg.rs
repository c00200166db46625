//! The decoder of JPEG files: the same pixels as libjpeg, whatever the part, and the general decoder's answer for what
//! is not its own.

use std::sync::Arc;

use image::imageops::FilterType;
use image::{ImageReader, RgbImage};
use jpeg_encoder::{ColorType, Encoder, SamplingFactor};
use proptest::prelude::*;
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use whitebox_datasets::{
    Dataset, Filter, Image, ImageFolder, Loader, LoaderConfig, Pipeline, SampleRng, Subset, Transform, decode,
};

use crate::support::{data, put};

/// What the encoder varies: chroma, restart markers, tables of its own, grey.
#[derive(Clone, Copy, Debug)]
struct Kind {
    chroma: SamplingFactor,
    restart: u16,
    optimised: bool,
    grey: bool,
    progressive: bool,
    quality: u8,
}

const PLAIN: Kind =
    Kind { chroma: SamplingFactor::F_2_2, restart: 0, optimised: false, grey: false, progressive: false, quality: 90 };

fn kinds() -> impl Strategy<Value = Kind> {
    use SamplingFactor::{F_1_1, F_1_2, F_2_1, F_2_2, F_4_1};
    let chroma = prop::sample::select(vec![F_1_1, F_1_2, F_2_1, F_2_2, F_4_1]);
    let flags =
        prop::sample::select(vec![[false; 3], [true, false, false], [false, true, false], [false, false, true]]);
    (chroma, 0..9u16, flags, 20..=100u8).prop_map(|(chroma, restart, [optimised, grey, progressive], quality)| Kind {
        chroma,
        // This encoder's own tables leave out codes that restarts need.
        restart: if optimised || progressive { 0 } else { restart },
        optimised,
        grey,
        progressive,
        quality,
    })
}

fn photo(name: &str, width: u32, height: u32) -> RgbImage {
    let photo = image::open(data().join("photos").join(name)).unwrap().to_rgb8();
    image::imageops::resize(&photo, width, height, FilterType::CatmullRom)
}

fn encode(image: &RgbImage, kind: Kind) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, kind.quality);
    encoder.set_sampling_factor(kind.chroma);
    encoder.set_restart_interval(kind.restart);
    encoder.set_optimized_huffman_tables(kind.optimised);
    encoder.set_progressive(kind.progressive);
    let (width, height) = (image.width() as u16, image.height() as u16);
    if kind.grey {
        let luma = image::DynamicImage::from(image.clone()).to_luma8();
        encoder.encode(&luma, width, height, ColorType::Luma).unwrap();
    } else {
        encoder.encode(image, width, height, ColorType::Rgb).unwrap();
    }
    bytes
}

/// Made with Pillow 13.0 (libjpeg-turbo 3.2): sha256 of `Image.open(file).tobytes()` of these files, which lie in
/// `golden`. Sizes that are no whole number of blocks, each chroma factor, grey, restart markers.
#[test]
fn pixels_are_libjpegs() {
    let golden = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let list = std::fs::read_to_string(golden.join("pixels.sha256")).unwrap();
    let mut files = 0;
    for line in list.lines() {
        let (hash, name) = line.split_once("  ").unwrap();
        let image = decode(&std::fs::read(golden.join(name)).unwrap(), name).unwrap();
        let found: String = Sha256::digest(&image.pixels).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(found, hash, "{name}: {} x {}", image.width, image.height);
        files += 1;
    }
    assert_eq!(files, std::fs::read_dir(&golden).unwrap().count() - 1);
}

/// A batch of one image of a folder, as the loader gives it.
fn loaded(folder: &TempDir, pipeline: &Arc<Pipeline>, seed: u64) -> Vec<f32> {
    let set = Arc::new(ImageFolder::open(folder.path()).unwrap());
    let whole = Arc::new(Subset::new(set, vec![0]).unwrap());
    let config = LoaderConfig { batch_size: 1, workers: 0, seed, ..Default::default() };
    Loader::new(whole, pipeline.clone(), config).unwrap().epoch(5, 0).next().unwrap().unwrap().images
}

/// The same by the plain way: all of the image decoded, then the transforms one after the other.
fn plainly(image: Image, pipeline: &Pipeline, seed: u64) -> Vec<f32> {
    let mut out = vec![0.0; pipeline.fixed_shape().unwrap().iter().product()];
    pipeline.apply(image, &mut SampleRng::new(seed, 5, 0), &mut out).unwrap();
    out
}

fn pipelines(channels: usize) -> Vec<Arc<Pipeline>> {
    let resized = || Transform::random_resized_crop([24, 20]);
    let flip = || Transform::HorizontalFlip { probability: 0.5 };
    let resize = |filter| Transform::Resize { size: [40, 36].into(), filter };
    let steps = [
        vec![resized(), flip()],
        vec![flip(), resized()],
        vec![Transform::RandomCrop { size: 16.into(), padding: 0 }, flip()],
        vec![Transform::RandomCrop { size: 16.into(), padding: 9 }, flip()],
        vec![Transform::CenterCrop { size: [5, 30].into() }, resize(Filter::Bicubic)],
        vec![resize(Filter::Bilinear), Transform::CenterCrop { size: 16.into() }],
    ];
    let pipeline = |steps| Pipeline::new(steps, channels, vec![0.4; channels], vec![0.2; channels]).unwrap();
    steps.into_iter().map(|steps| Arc::new(pipeline(steps))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Bit for bit: the loader, which decodes a part, and decoding all of it before the same transforms.
    #[test]
    fn a_part_is_cut_out_of_the_whole(
        (width, height) in (16..90u32, 16..90u32),
        kind in kinds(),
        seed in any::<u64>(),
        grey in any::<bool>(),
    ) {
        let file = encode(&photo("chelsea.png", width, height), kind);
        let folder = TempDir::new().unwrap();
        put(folder.path().join("cat/a.jpg"), &file);
        for pipeline in pipelines(if grey { 1 } else { 3 }) {
            let image = decode(&file, "x").unwrap();
            prop_assert_eq!(loaded(&folder, &pipeline, seed), plainly(image, &pipeline, seed), "{:?}", pipeline.transforms());
        }
    }

    /// Against another decoder, whose rounding differs: a few values, on average less than one.
    #[test]
    fn it_agrees_with_another_decoder((width, height) in (1..90u32, 1..90u32), kind in kinds()) {
        let file = encode(&photo("coffee.png", width, height), kind);
        let image = decode(&file, "x").unwrap();
        let other = ImageReader::new(std::io::Cursor::new(&file)).with_guessed_format().unwrap().decode().unwrap();
        prop_assert_eq!((image.width as u32, image.height as u32), (width, height));
        prop_assert_eq!(image.channels, if kind.grey { 1 } else { 3 });
        let differences = image.pixels.iter().zip(other.as_bytes()).map(|(a, b)| f64::from(a.abs_diff(*b)));
        let mean = differences.sum::<f64>() / image.pixels.len() as f64;
        prop_assert!(mean < 1.0, "{mean}");
    }

    /// A file with holes is an image or an error for the loader too, whatever part it asks for.
    #[test]
    fn damage_never_panics(
        kind in kinds(),
        holes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        seed in any::<u64>(),
    ) {
        let mut file = encode(&photo("rocket.png", 70, 45), kind);
        for (place, value) in holes {
            let at = place.index(file.len());
            file[at] = value;
        }
        let folder = TempDir::new().unwrap();
        put(folder.path().join("cat/a.jpg"), &file);
        let set: Arc<dyn Dataset> = Arc::new(ImageFolder::open(folder.path()).unwrap());
        for pipeline in pipelines(3) {
            let config = LoaderConfig { batch_size: 1, workers: 0, seed, ..Default::default() };
            let loader = Loader::new(set.clone(), pipeline, config).unwrap();
            if let Some(Err(error)) = loader.epoch(0, 0).next() {
                let text = error.to_string();
                prop_assert!(text.contains("cat/a.jpg") && !text.contains("failed unexpectedly"), "{}", text);
            }
        }
    }
}

/// Where a code is damaged before the wanted part, the general decoder has the word; a file that breaks off is an error
/// for every part, also for one that lies before the break.
#[test]
fn a_broken_file_is_an_error_for_every_part() {
    let file = encode(&photo("astronaut.png", 200, 150), PLAIN);
    let folder = TempDir::new().unwrap();
    put(folder.path().join("cat/a.jpg"), &file[..file.len() - 40]);
    let set: Arc<dyn Dataset> = Arc::new(ImageFolder::open(folder.path()).unwrap());
    let pipeline =
        Arc::new(Pipeline::new(vec![Transform::random_resized_crop(16)], 3, vec![0.0; 3], vec![1.0; 3]).unwrap());
    for seed in 0..20 {
        let config = LoaderConfig { workers: 0, seed, ..Default::default() };
        let error =
            Loader::new(set.clone(), pipeline.clone(), config).unwrap().epoch(0, 0).next().unwrap().unwrap_err();
        assert!(error.to_string().contains("break off before the end"), "{error}");
    }
}
