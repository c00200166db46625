//! The loader: the same batches for any number of workers and from any start, corrupt samples, bounds, endings.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use image::ImageFormat;
use tempfile::TempDir;
use whitebox_datasets::{
    Batch, Dataset, Error, Filter, Image, ImageFolder, InMemory, Loader, LoaderConfig, OnCorrupt, Pipeline, Result,
    Split, Subset, Transform, idx,
};

use crate::support::{data, encoded, jpeg, plain, put, says, smooth};

fn random_steps() -> Arc<Pipeline> {
    let steps = vec![
        Transform::random_resized_crop(20),
        Transform::RandomCrop { size: 20.into(), padding: 2 },
        Transform::HorizontalFlip { probability: 0.5 },
    ];
    Arc::new(plain(steps, 1))
}

/// 230 images of the real set.
fn clothes() -> Arc<dyn Dataset> {
    let set = Arc::new(idx::fashion_mnist(&data(), Split::Test).unwrap());
    Arc::new(Subset::first_per_class(set, 23).unwrap())
}

fn config(workers: usize) -> LoaderConfig {
    LoaderConfig { batch_size: 32, workers, seed: 7, ..Default::default() }
}

fn batches(loader: &Loader, epoch: u64, start: usize) -> Vec<Batch> {
    loader.epoch(epoch, start).map(|batch| batch.unwrap()).collect()
}

#[test]
fn workers_and_prefetch_change_nothing() {
    let load = |workers, prefetch| {
        let loader = Loader::new(clothes(), random_steps(), LoaderConfig { prefetch, ..config(workers) }).unwrap();
        [0, 1].map(|epoch| batches(&loader, epoch, 0))
    };
    let expected = load(1, 2);
    for (workers, prefetch) in [(0, 1), (2, 1), (2, 3), (5, 2)] {
        assert!(load(workers, prefetch) == expected, "{workers} workers, prefetch {prefetch}");
    }
    let [first, second] = expected;
    assert_eq!(first.iter().map(|batch| batch.shape).collect::<Vec<_>>()[6..], [[32, 1, 20, 20], [6, 1, 20, 20]]);
    let order = |epoch: &[Batch]| epoch.iter().flat_map(|batch| batch.indices.clone()).collect::<Vec<_>>();
    assert_ne!(order(&first), order(&second));
    let mut all = order(&first);
    all.sort_unstable();
    assert_eq!(all, (0..230).collect::<Vec<_>>());
    let set = clothes();
    for batch in first {
        assert!(batch.indices.iter().zip(&batch.labels).all(|(&index, &label)| set.label(index) as i64 == label));
    }
}

#[test]
fn resuming_gives_the_rest_of_the_epoch() {
    let loader = Loader::new(clothes(), random_steps(), config(2)).unwrap();
    assert_eq!(loader.batches_per_epoch(), 8);
    let whole = batches(&loader, 3, 0);
    for start in [1, 5, 7, 8, 100] {
        assert_eq!(batches(&loader, 3, start), whole[start.min(8)..], "from {start}");
    }
}

#[test]
fn a_samples_random_numbers_do_not_depend_on_its_batch() {
    let load = |batch_size, shuffle| {
        let config = LoaderConfig { batch_size, shuffle, ..config(2) };
        let loader = Loader::new(clothes(), random_steps(), config).unwrap();
        let mut samples: Vec<_> = batches(&loader, 0, 0)
            .into_iter()
            .flat_map(|batch| {
                batch.indices.into_iter().zip(batch.images.chunks(400).map(<[f32]>::to_vec).collect::<Vec<_>>())
            })
            .collect();
        samples.sort_by_key(|(index, _)| *index);
        samples
    };
    let expected = load(32, true);
    assert!(load(7, true) == expected && load(230, false) == expected);
    let other = Loader::new(clothes(), random_steps(), LoaderConfig { seed: 8, ..config(0) }).unwrap();
    let batch = &batches(&other, 0, 0)[0];
    assert_ne!(batch.images[..400], expected[batch.indices[0]].1);
}

#[test]
fn repeats_are_side_by_side_with_other_numbers_in_an_epoch_as_long_as_before() {
    let load = |repeats, workers, batch_size| {
        let config = LoaderConfig { repeats, batch_size, ..config(workers) };
        let loader = Loader::new(clothes(), random_steps(), config).unwrap();
        assert_eq!(loader.batches_per_epoch(), 230_usize.div_ceil(batch_size));
        batches(&loader, 2, 0)
    };
    let flat = |batches: &[Batch]| {
        let indices: Vec<_> = batches.iter().flat_map(|batch| batch.indices.clone()).collect();
        let images: Vec<_> = batches.iter().flat_map(|batch| batch.images.chunks(400).map(<[f32]>::to_vec)).collect();
        (indices, images)
    };
    let (once, alone) = flat(&load(1, 2, 32));
    let three = load(3, 0, 32);
    let (indices, images) = flat(&three);
    // 230 / 3 = 76.7 samples: 76 whole ones and two repetitions of the next.
    assert_eq!(indices, (0..230).map(|place| once[place / 3]).collect::<Vec<_>>());
    for (place, image) in images.iter().enumerate() {
        // The first repetition is what comes without repeats.
        assert_eq!(*image == alone[place / 3], place % 3 == 0, "place {place}");
        assert!(place % 3 < 2 || *image != images[place - 1]);
    }
    assert!(load(3, 3, 32) == three);
    // Batches that cut through a sample's repetitions.
    assert!(flat(&load(3, 2, 7)) == (indices, images));
}

#[test]
fn repeats_resume_within_a_sample() {
    let config = LoaderConfig { repeats: 4, batch_size: 30, drop_last: true, ..config(2) };
    let loader = Loader::new(clothes(), random_steps(), config).unwrap();
    assert_eq!(loader.batches_per_epoch(), 7);
    let whole = batches(&loader, 1, 0);
    for start in [1, 3, 6] {
        assert_eq!(batches(&loader, 1, start), whole[start..], "from {start}");
    }
    assert_ne!(whole[0], batches(&loader, 2, 0)[0]);
}

#[test]
fn without_shuffling_the_order_is_the_sets_and_drop_last_drops() {
    let config = LoaderConfig { shuffle: false, drop_last: true, ..config(2) };
    let loader = Loader::new(clothes(), random_steps(), config).unwrap();
    assert_eq!(loader.batches_per_epoch(), 7);
    let indices: Vec<_> = batches(&loader, 0, 0).into_iter().flat_map(|batch| batch.indices).collect();
    assert_eq!(indices, (0..224).collect::<Vec<_>>());
}

/// Six images in two classes; files 1, 2 and 3 are damaged in different ways.
fn damaged_folder(dir: &TempDir) -> Arc<dyn Dataset> {
    let whole = jpeg(32, 24);
    put(dir.path().join("a/0.jpg"), &whole);
    put(dir.path().join("a/1.jpg"), &whole[..whole.len() / 2]);
    put(dir.path().join("a/2.png"), "no image");
    put(dir.path().join("b/3.webp"), &encoded(smooth(32, 24), ImageFormat::WebP)[..60]);
    put(dir.path().join("b/4.png"), encoded(smooth(20, 40), ImageFormat::Png));
    put(dir.path().join("b/5.jpg"), &whole);
    Arc::new(ImageFolder::open(dir.path()).unwrap())
}

fn folder_steps() -> Arc<Pipeline> {
    let resize = Transform::Resize { size: 16.into(), filter: Filter::Bilinear };
    Arc::new(plain(vec![resize, Transform::CenterCrop { size: 16.into() }], 3))
}

fn damaged(dir: &TempDir, batch_size: usize, workers: usize, on_corrupt: OnCorrupt) -> Loader {
    let config = LoaderConfig { batch_size, workers, shuffle: false, on_corrupt, ..Default::default() };
    Loader::new(damaged_folder(dir), folder_steps(), config).unwrap()
}

#[test]
fn a_corrupt_image_fails_by_name_and_ends_the_epoch() {
    let dir = TempDir::new().unwrap();
    for workers in [0, 1, 3] {
        let mut epoch = damaged(&dir, 1, workers, OnCorrupt::Fail).epoch(0, 0);
        assert_eq!(epoch.next().unwrap().unwrap().indices, [0]);
        says(epoch.next().unwrap(), &["a/1.jpg: not a readable image", "break off"]);
        assert!(epoch.next().is_none() && epoch.next().is_none());
    }
}

#[test]
fn corrupt_images_can_be_skipped_and_are_named() {
    let dir = TempDir::new().unwrap();
    for workers in [0, 1, 3] {
        let all = batches(&damaged(&dir, 2, workers, OnCorrupt::Skip), 0, 0);
        let indices: Vec<_> = all.iter().map(|batch| batch.indices.clone()).collect();
        assert_eq!(indices, [vec![0], vec![], vec![4, 5]]);
        assert_eq!(all.iter().map(|batch| batch.skipped.len()).collect::<Vec<_>>(), [1, 2, 0]);
        assert_eq!((all[1].shape, all[1].images.len(), all[1].labels.len()), ([0, 3, 16, 16], 0, 0));
        assert_eq!((all[0].shape, all[0].images.len()), ([1, 3, 16, 16], 768));
        assert!(
            all[1].skipped[0].contains("a/2.png") && all[1].skipped[1].contains("b/3.webp"),
            "{:?}",
            all[1].skipped
        );
        assert_eq!(all[2].labels, [1, 1]);
    }
}

#[test]
fn a_file_that_has_gone_is_never_skipped() {
    let dir = TempDir::new().unwrap();
    let loader = damaged(&dir, 6, 1, OnCorrupt::Skip);
    std::fs::remove_file(dir.path().join("a/0.jpg")).unwrap();
    says(loader.epoch(0, 0).next().unwrap(), &["a/0.jpg: cannot be read"]);
}

#[test]
fn settings_are_checked() {
    let make = |config| Loader::new(clothes(), random_steps(), config);
    says(make(LoaderConfig { batch_size: 0, ..config(1) }), &["batch_size = 0"]);
    says(make(LoaderConfig { prefetch: 0, ..config(1) }), &["prefetch = 0"]);
    says(make(LoaderConfig { workers: 5000, ..config(1) }), &["workers = 5000"]);
    says(make(LoaderConfig { repeats: 0, ..config(1) }), &["repeats = 0", "from 1 to 1024"]);
    says(make(LoaderConfig { repeats: 3, shuffle: false, ..config(1) }), &["repeats = 3", "set shuffle = true"]);
    says(make(LoaderConfig { batch_size: 231, drop_last: true, ..config(1) }), &["batch_size = 231", "230 samples"]);
    let large = Arc::new(plain(vec![Transform::CenterCrop { size: 8192.into() }], 1));
    says(
        Loader::new(clothes(), large, LoaderConfig { batch_size: 1000, ..config(1) }),
        &["batch_size = 1000", "smaller"],
    );
    let dir = TempDir::new().unwrap();
    let open = Arc::new(plain(vec![Transform::Resize { size: 16.into(), filter: Filter::Bilinear }], 3));
    says(Loader::new(damaged_folder(&dir), open.clone(), config(1)), &["transforms = [\"resize\"]", "fixed"]);
    assert_eq!(Loader::new(clothes(), open, config(1)).unwrap().image_shape(), [3, 16, 16]);
}

/// A data set that counts what is asked of it and fails on demand.
struct Probe {
    inner: InMemory,
    asked: AtomicUsize,
    fault: fn(usize) -> Option<Image>,
}

impl Probe {
    fn new(fault: fn(usize) -> Option<Image>) -> Arc<Self> {
        let inner = InMemory::new("set", vec![9; 400], [2, 2, 1], vec![0; 100], &["a"]).unwrap();
        Arc::new(Self { inner, asked: AtomicUsize::new(0), fault })
    }
}

impl Dataset for Probe {
    fn len(&self) -> usize {
        self.inner.len()
    }
    fn classes(&self) -> &[String] {
        self.inner.classes()
    }
    fn label(&self, index: usize) -> usize {
        self.inner.label(index)
    }
    fn image(&self, index: usize) -> Result<Image> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        (self.fault)(index).map_or_else(|| self.inner.image(index), Ok)
    }
    fn source(&self, index: usize) -> String {
        self.inner.source(index)
    }
    fn image_size(&self) -> Option<[usize; 2]> {
        self.inner.image_size()
    }
}

fn probed(probe: Arc<Probe>, workers: usize, on_corrupt: OnCorrupt) -> Loader {
    let config = LoaderConfig { batch_size: 5, workers, prefetch: 2, shuffle: false, on_corrupt, ..Default::default() };
    Loader::new(probe, Arc::new(plain(vec![], 1)), config).unwrap()
}

#[test]
fn prefetch_is_bounded() {
    let probe = Probe::new(|_| None);
    let mut epoch = probed(probe.clone(), 2, OnCorrupt::Fail).epoch(0, 0);
    for taken in 0..4 {
        // Workers may go on for as long as they like: what they are given is 2 x 2 batches ahead.
        std::thread::sleep(Duration::from_millis(30));
        assert!(probe.asked.load(Ordering::SeqCst) <= (taken + 4) * 5);
        epoch.next().unwrap().unwrap();
    }
    drop(epoch);
    let asked = probe.asked.load(Ordering::SeqCst);
    std::thread::sleep(Duration::from_millis(30));
    assert_eq!((probe.asked.load(Ordering::SeqCst), Arc::strong_count(&probe)), (asked, 1), "the threads are joined");
}

#[test]
fn a_panic_is_contained_and_names_its_sample() {
    for workers in [0, 1, 2] {
        let probe = Probe::new(|index| if index == 7 { panic!("no such {index}") } else { None });
        let mut epoch = probed(probe, workers, OnCorrupt::Skip).epoch(0, 0);
        assert!(epoch.next().unwrap().is_ok());
        says(epoch.next().unwrap(), &["set, image 7", "no such 7"]);
        assert!(epoch.next().is_none());
    }
}

#[test]
fn an_image_of_no_size_is_corrupt_and_one_of_another_size_is_not() {
    let empty = |index| (index == 3).then(|| Image { width: 0, height: 0, channels: 1, pixels: vec![] });
    says(probed(Probe::new(empty), 1, OnCorrupt::Fail).epoch(0, 0).next().unwrap(), &["set, image 3", "do not fit"]);
    let batch = probed(Probe::new(empty), 1, OnCorrupt::Skip).epoch(0, 0).next().unwrap().unwrap();
    assert_eq!((batch.indices, batch.skipped.len()), (vec![0, 1, 2, 4], 1));
    let other = |index| (index == 3).then(|| Image { width: 3, height: 1, channels: 1, pixels: vec![0; 3] });
    let error = probed(Probe::new(other), 1, OnCorrupt::Skip).epoch(0, 0).next().unwrap();
    let error = says(error, &["set, image 3", "give 3 values but 4 are expected"]);
    assert!(matches!(error, Error::Sample { .. }));
}

#[test]
fn an_epoch_can_be_handed_to_another_thread() {
    let loader = Loader::new(clothes(), random_steps(), config(2)).unwrap();
    let expected = batches(&loader, 0, 0);
    let epoch = loader.epoch(0, 0);
    let elsewhere = std::thread::spawn(move || epoch.map(|batch| batch.unwrap()).collect::<Vec<_>>());
    assert_eq!(elsewhere.join().unwrap(), expected);
}
