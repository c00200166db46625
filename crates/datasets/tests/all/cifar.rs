//! CIFAR in binary files and as folders.

use std::path::Path;

use tempfile::TempDir;
use whitebox_datasets::{Split, cifar};

use crate::support::{jpeg, put, says};

/// A record whose red, green and blue planes count up from 0, 1 and 2.
fn record(header: &[u8]) -> Vec<u8> {
    let plane = |k: usize| (0..1024).map(move |i| ((i + k) % 256) as u8);
    header.iter().copied().chain(plane(0)).chain(plane(1)).chain(plane(2)).collect()
}

fn train10(dir: &Path) {
    for batch in 1..=5 {
        put(dir.join(format!("data_batch_{batch}.bin")), [record(&[batch]), record(&[0])].concat());
    }
}

#[test]
fn five_files_make_one_set() {
    let dir = TempDir::new().unwrap();
    train10(&dir.path().join("cifar-10-batches-bin"));
    let set = cifar::cifar10(dir.path(), Split::Train).unwrap();
    assert_eq!((set.len(), set.image_size()), (10, Some([32, 32])));
    assert_eq!((0..10).map(|i| set.label(i)).collect::<Vec<_>>(), [1, 0, 2, 0, 3, 0, 4, 0, 5, 0]);
    let image = set.image(9).unwrap();
    assert_eq!((image.width, image.height, image.channels), (32, 32, 3));
    assert_eq!(image.pixels[..6], [0, 1, 2, 1, 2, 3]);
    assert_eq!(image.pixels[33 * 3..34 * 3], [33, 34, 35]);
    assert!(set.source(7).ends_with("data_batch_4.bin, image 1"), "{}", set.source(7));
    assert_eq!(set.classes()[9], "truck");
}

#[test]
fn cifar100_has_the_fine_label() {
    let dir = TempDir::new().unwrap();
    put(dir.path().join("test.bin"), record(&[19, 99]));
    let set = cifar::cifar100(dir.path(), Split::Test).unwrap();
    assert_eq!((set.label(0), set.classes()[99].as_str(), set.classes().len()), (99, "worm", 100));
    assert!(set.classes().is_sorted());
}

#[test]
fn a_list_of_names_beside_the_files_goes_first() {
    let dir = TempDir::new().unwrap();
    let folder = dir.path().join("cifar-100-binary");
    put(folder.join("train.bin"), record(&[0, 3]));
    let names: Vec<_> = (0..100).map(|i| format!("class {i}")).collect();
    put(folder.join("fine_label_names.txt"), names.join("\r\n") + "\n\n");
    let set = cifar::cifar100(dir.path(), Split::Train).unwrap();
    assert_eq!((set.label(0), set.classes()), (3, &names[..]));
    put(folder.join("fine_label_names.txt"), names[..99].join("\n"));
    says(cifar::cifar100(dir.path(), Split::Train), &["fine_label_names.txt", "99 names", "100 classes"]);
    put(folder.join("fine_label_names.txt"), ["apple\n"; 100].concat());
    says(cifar::cifar100(dir.path(), Split::Train), &["100 names, 1 of them different"]);
}

#[test]
fn damaged_files_are_errors() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("test_batch.bin");
    put(&file, &record(&[0])[..3000]);
    says(cifar::cifar10(dir.path(), Split::Test), &["test_batch.bin", "3000 bytes", "records of 3073 bytes"]);
    put(&file, []);
    says(cifar::cifar10(dir.path(), Split::Test), &["0 bytes"]);
    // A file of the other set.
    put(&file, record(&[0, 0]));
    says(cifar::cifar10(dir.path(), Split::Test), &["3074 bytes", "3073"]);
    put(&file, [record(&[9]), record(&[10])].concat());
    says(cifar::cifar10(dir.path(), Split::Test), &["sample 1 has label 10", "10 classes"]);
    put(dir.path().join("test.bin"), record(&[0, 100]));
    says(cifar::cifar100(dir.path(), Split::Test), &["label 100", "100 classes"]);
}

#[test]
fn an_incomplete_set_is_missing() {
    let dir = TempDir::new().unwrap();
    says(
        cifar::cifar10(dir.path(), Split::Train),
        &["CIFAR-10 (train) not found", "data_batch_3.bin", "binary version"],
    );
    train10(dir.path());
    std::fs::remove_file(dir.path().join("data_batch_2.bin")).unwrap();
    says(cifar::cifar10(dir.path(), Split::Train), &["4 of them are there"]);
    says(cifar::cifar100(dir.path(), Split::Train), &["CIFAR-100 (train)", "train.bin"]);
}

#[test]
fn folders_by_class_open_with_the_official_labels() {
    let dir = TempDir::new().unwrap();
    put(dir.path().join("train/truck/0001.jpg"), jpeg(32, 32));
    put(dir.path().join("train/bird/0001.jpg"), jpeg(32, 32));
    let set = cifar::cifar10(dir.path(), Split::Train).unwrap();
    assert_eq!((set.len(), set.label(0), set.label(1)), (2, 2, 9));
    says(cifar::cifar10(dir.path(), Split::Test), &["folder test/ of images by class", "held out"]);
    put(dir.path().join("train/unicorn/0001.jpg"), jpeg(32, 32));
    says(cifar::cifar10(dir.path(), Split::Train), &["\"unicorn\" is none of the 10 classes"]);
}
