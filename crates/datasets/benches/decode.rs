//! What a sample costs: decoding, transforms, the loader as a whole, and one core of it on the files on which
//! `xtask/reference/torchvision_loader.py` measures torchvision.
//!
//! Where `WHITEBOX_BENCH_FILES` names a folder, `versus_torchvision` writes its JPEG files there, so that both read the
//! same bytes. Figures stand in `docs/benchmarks.md`. Of what a file of 500 x 375 costs there, decoding is
//! about 53 %, the change of size 23 %, normalising 10 %, copying and clearing memory 9 % (`perf`, samples of one run).

use std::hint::black_box;
use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use image::{DynamicImage, ImageFormat, RgbImage, codecs::jpeg::JpegEncoder, imageops::FilterType};
use jpeg_encoder::{ColorType, Encoder, SamplingFactor};
use whitebox_datasets::{
    Dataset, Filter, ImageFolder, Loader, LoaderConfig, Pipeline, SampleRng, Split, Transform, decode, idx,
};

/// A picture with edges and grain of about a photograph's size in bytes: 500 x 375, the commonest of ImageNet.
fn picture() -> RgbImage {
    RgbImage::from_fn(500, 375, |x, y| {
        let grain = (x * 7919 + y * 104_729 + x * y * 31) % 24;
        let edge = if (x / 40 + y / 30) % 2 == 0 { 60 } else { 0 };
        image::Rgb([(x / 4 + grain + edge) as u8, (y / 3 + grain) as u8, ((x + y) / 8 + edge + grain) as u8])
    })
}

fn jpeg() -> Vec<u8> {
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, 90).encode_image(&picture()).expect("an RGB image encodes as JPEG");
    bytes
}

fn other(format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    DynamicImage::from(picture()).write_to(&mut bytes, format).expect("an RGB image encodes");
    bytes.into_inner()
}

fn imagenet(transforms: Vec<Transform>) -> Pipeline {
    let (mean, std) = (Pipeline::IMAGENET_MEAN.to_vec(), Pipeline::IMAGENET_STD.to_vec());
    Pipeline::new(transforms, 3, mean, std).expect("the settings are valid")
}

fn evaluation() -> Vec<Transform> {
    let resize = Transform::Resize { size: 256.into(), filter: Filter::Bilinear };
    vec![resize, Transform::CenterCrop { size: 224.into() }]
}

fn training() -> Vec<Transform> {
    vec![Transform::random_resized_crop(224), Transform::HorizontalFlip { probability: 0.5 }]
}

fn decoding(c: &mut Criterion) {
    let mut group = c.benchmark_group("decode");
    let files = [("jpeg", jpeg()), ("png", other(ImageFormat::Png)), ("webp", other(ImageFormat::WebP))];
    for (name, bytes) in files {
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(name, |b| b.iter(|| decode(black_box(&bytes), name).expect("the file is whole")));
    }
    group.finish();
}

fn transforms(c: &mut Criterion) {
    let mut group = c.benchmark_group("transform");
    let image = decode(&jpeg(), "picture").expect("the file is whole");
    for (name, steps) in [("resize256_crop224", evaluation()), ("random_resized_crop224_flip", training())] {
        let pipeline = imagenet(steps);
        let mut out = vec![0.0; 3 * 224 * 224];
        let mut index = 0;
        group.bench_function(name, |b| {
            b.iter_batched(
                || image.clone(),
                |image| {
                    index += 1;
                    pipeline.apply(image, &mut SampleRng::new(0, 0, index), &mut out).expect("the image fits")
                },
                BatchSize::SmallInput,
            )
        });
    }
    group.finish();
}

fn loading(c: &mut Criterion) {
    let mut group = c.benchmark_group("loader");
    group.sample_size(10).measurement_time(Duration::from_secs(3));
    let dir = tempfile::tempdir().expect("a temporary folder");
    let class = dir.path().join("class");
    std::fs::create_dir(&class).expect("a folder can be made");
    (0..64).for_each(|i| std::fs::write(class.join(format!("{i:02}.jpg")), jpeg()).expect("a file can be written"));
    let folder: Arc<dyn Dataset> = Arc::new(ImageFolder::open(dir.path()).expect("the folder is whole"));

    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data");
    let clothes: Arc<dyn Dataset> = Arc::new(idx::fashion_mnist(&data, Split::Test).expect("data/ is whole"));
    let shift =
        vec![Transform::RandomCrop { size: 28.into(), padding: 2 }, Transform::HorizontalFlip { probability: 0.5 }];
    let small = Pipeline::new(shift, 1, vec![0.286], vec![0.353]).expect("the settings are valid");

    let sets = [("jpeg_500x375", folder, Arc::new(imagenet(training()))), ("fashion_mnist", clothes, Arc::new(small))];
    for (name, set, pipeline) in sets {
        group.throughput(Throughput::Elements(set.len() as u64));
        for workers in [0, 1, 2] {
            let config = LoaderConfig { batch_size: 16, workers, ..Default::default() };
            let loader = Loader::new(set.clone(), pipeline.clone(), config).expect("the settings are valid");
            let epoch =
                || loader.epoch(0, 0).map(|batch| batch.expect("the files are whole").labels.len()).sum::<usize>();
            group.bench_function(format!("{name}/{workers}_workers"), |b| b.iter(epoch));
        }
    }
    group.finish();
}

/// Writes the photographs of `data/` as JPEG files of quality 90 to `folder/photos/`, which makes an image folder.
fn write_photos(folder: &Path, [width, height]: [u32; 2], chroma: SamplingFactor) {
    let class = folder.join("photos");
    std::fs::create_dir_all(&class).expect("a folder can be made");
    let photos = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/photos");
    for entry in std::fs::read_dir(photos).expect("data/ is whole") {
        let photo = entry.expect("data/ is whole").path();
        let image = image::open(&photo).expect("a photograph decodes").to_rgb8();
        let image = image::imageops::resize(&image, width, height, FilterType::CatmullRom);
        let name = class.join(photo.file_name().expect("a file has a name")).with_extension("jpg");
        let mut encoder = Encoder::new_file(name, 90).expect("a file can be written");
        encoder.set_sampling_factor(chroma);
        encoder.encode(&image, width as u16, height as u16, ColorType::Rgb).expect("an RGB image encodes as JPEG");
    }
}

/// One core's images a second, from file to normalised floats, on the files that torchvision is measured on.
/// Each pass is another epoch, so that crops differ as they do in training.
fn versus_torchvision(c: &mut Criterion) {
    let mut group = c.benchmark_group("versus_torchvision");
    let temporary = tempfile::tempdir().expect("a temporary folder");
    let files = std::env::var_os("WHITEBOX_BENCH_FILES").map_or(temporary.path().to_owned(), Into::into);
    let cases = [
        ("photos_500x375", [500, 375], 224, SamplingFactor::F_2_2),
        ("photos_32x32", [32, 32], 32, SamplingFactor::F_2_2),
        ("photos_500x375_444", [500, 375], 224, SamplingFactor::F_1_1),
    ];
    for (name, size, side, chroma) in cases {
        let folder = files.join(name);
        write_photos(&folder, size, chroma);
        let set = Arc::new(ImageFolder::open(&folder).expect("the folder is whole"));
        group.throughput(Throughput::Elements(set.len() as u64));
        let steps = vec![Transform::random_resized_crop(side), Transform::HorizontalFlip { probability: 0.5 }];
        let config = LoaderConfig { batch_size: set.len(), workers: 0, ..Default::default() };
        let loader = Loader::new(set, Arc::new(imagenet(steps)), config).expect("the settings are valid");
        let mut epoch = 0;
        group.bench_function(name, |b| {
            b.iter(|| {
                epoch += 1;
                loader.epoch(epoch, 0).map(|batch| batch.expect("the files are whole").labels.len()).sum::<usize>()
            })
        });
    }
    group.finish();
}

criterion_group!(benches, decoding, transforms, loading, versus_torchvision);
criterion_main!(benches);
