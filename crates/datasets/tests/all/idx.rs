//! IDX files whole, damaged, swapped and hostile.

use std::path::Path;

use tempfile::TempDir;
use whitebox_datasets::{Dataset, Error, InMemory, Split, idx};

use crate::support::{gz, idx as file, put, says};

const IMAGES: u32 = 0x0803;
const LABELS: u32 = 0x0801;

fn images() -> Vec<u8> {
    file(IMAGES, &[3, 2, 4], &(0..24).collect::<Vec<u8>>())
}

fn labels() -> Vec<u8> {
    file(LABELS, &[3], &[1, 0, 1])
}

/// Opens these bytes as a set of two classes.
fn open(images: &[u8], labels: &[u8]) -> whitebox_datasets::Result<InMemory> {
    let dir = TempDir::new().unwrap();
    idx::open(&put(dir.path().join("images"), images), &put(dir.path().join("labels"), labels), &["a", "b"])
}

#[test]
fn raw_and_gzip_give_the_same_images() {
    for (images, labels) in [(images(), labels()), (gz(&images()), gz(&labels())), (gz(&images()), labels())] {
        let set = open(&images, &labels).unwrap();
        assert_eq!((set.len(), set.image_size()), (3, Some([2, 4])));
        assert_eq!((0..3).map(|i| set.label(i)).collect::<Vec<_>>(), [1, 0, 1]);
        let image = set.image(1).unwrap();
        assert_eq!((image.width, image.height, image.channels), (4, 2, 1));
        assert_eq!(image.pixels, (8..16).collect::<Vec<u8>>());
        assert!(set.source(2).ends_with("images, image 2"));
        says(set.image(3), &["sample 3", "holds 3"]);
    }
}

#[test]
fn swapped_files_are_recognised() {
    says(open(&labels(), &images()), &["images: it is an IDX file of labels", "of images is expected", "swapped"]);
    says(open(&images(), &images()), &["labels: it is an IDX file of images", "of labels is expected", "swapped"]);
}

#[test]
fn wrong_magic_is_named() {
    let mut bytes = images();
    bytes[2] = 0x0d;
    says(open(&bytes, &labels()), &["0x00000d03", "check that this is the right file"]);
    says(open(b"not an idx file", &labels()), &["0x6e6f7420"]);
    says(open(&[], &labels()), &["holds 0 bytes", "4 are expected"]);
}

#[test]
fn a_truncated_file_says_how_much_is_there() {
    for cut in 0..images().len() {
        let error = says(open(&images()[..cut], &labels()), &["images: ", "bytes"]);
        assert!(matches!(error, Error::Length { .. }), "{error}");
    }
    says(open(&images()[..20], &labels()), &["3 x 2 x 4", "holds 4 bytes", "24 are expected"]);
    says(open(&images(), &labels()[..10]), &["labels: ", "holds 2 bytes", "3 are expected"]);
}

#[test]
fn a_truncated_or_damaged_gzip_is_an_error_at_every_cut() {
    let whole = gz(&images());
    for cut in 2..whole.len() {
        says(open(&whole[..cut], &labels()), &["images: the gzip stream is damaged"]);
    }
    let mut wrong_checksum = whole.clone();
    let checksum = whole.len() - 8;
    wrong_checksum[checksum] ^= 1;
    says(open(&wrong_checksum, &labels()), &["the gzip stream is damaged"]);
}

#[test]
fn more_bytes_than_declared_are_an_error() {
    let mut bytes = images();
    bytes.push(0);
    says(open(&bytes, &labels()), &["goes on past the 3 x 2 x 4 values"]);
}

#[test]
fn counts_must_match() {
    let parts = ["images holds 3 images", "labels holds 2 labels"];
    says(open(&images(), &file(LABELS, &[2], &[1, 0])), &parts);
}

#[test]
fn labels_must_be_classes() {
    let parts = ["labels: sample 1 has label 2", "2 classes", "0 to 1"];
    says(open(&images(), &file(LABELS, &[3], &[1, 2, 1])), &parts);
}

#[test]
fn empty_sets_and_images_are_errors() {
    says(open(&file(IMAGES, &[0, 2, 4], &[]), &file(LABELS, &[0], &[])), &["holds 0 images"]);
    says(open(&file(IMAGES, &[3, 0, 4], &[]), &labels()), &["images of 4 x 0 have no pixels"]);
}

#[test]
fn a_header_that_declares_absurd_sizes_allocates_nothing() {
    for wrapped in [Vec::clone, |bytes: &Vec<u8>| gz(bytes)] {
        let most = u32::MAX;
        let huge = wrapped(&file(IMAGES, &[most, most, most], &[0; 9]));
        says(open(&huge, &labels()), &["declares 18446744073709551615 bytes", "nothing was allocated"]);
        // 4 GiB less a little: within the limit, so that only the data that are there are read.
        let large = wrapped(&file(IMAGES, &[1, 65_535, 65_535], &[0; 9]));
        says(open(&large, &labels()), &["holds 9 bytes", "4294836225 are expected"]);
    }
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let dir = TempDir::new().unwrap();
    let labels = put(dir.path().join("labels"), labels());
    let absent = idx::open(&dir.path().join("absent"), &labels, &["a", "b"]);
    assert!(matches!(says(absent, &["absent: cannot be read"]), Error::Io { .. }));
    says(idx::open(dir.path(), &labels, &["a", "b"]), &["cannot be read"]);
}

fn full_set(dir: &Path, names: [&str; 2], count: u32) {
    put(dir.join(names[0]), file(IMAGES, &[count, 28, 28], &vec![7; count as usize * 784]));
    put(dir.join(names[1]), file(LABELS, &[count], &vec![9; count as usize]));
}

#[test]
fn official_names_come_before_the_subset_and_also_in_raw() {
    let dir = TempDir::new().unwrap();
    full_set(dir.path(), ["fmnist-val1k-images-idx3-ubyte", "fmnist-val1k-labels-idx1-ubyte"], 1);
    assert_eq!(idx::fashion_mnist(dir.path(), Split::Test).unwrap().len(), 1);
    full_set(&dir.path().join("raw"), ["t10k-images.idx3-ubyte", "t10k-labels.idx1-ubyte"], 2);
    assert_eq!(idx::mnist(dir.path(), Split::Test).unwrap().len(), 2);
    full_set(dir.path(), ["t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"], 3);
    assert_eq!(idx::fashion_mnist(dir.path(), Split::Test).unwrap().len(), 3);
    let set = idx::mnist(dir.path(), Split::Test).unwrap();
    assert_eq!((set.len(), set.classes()[set.label(0)].as_str()), (3, "9"));
}

#[test]
fn a_missing_set_says_how_to_get_it() {
    let dir = TempDir::new().unwrap();
    let here = dir.path().display().to_string();
    let parts =
        ["Fashion-MNIST (train) not found in", &here, "train-images-idx3-ubyte", "cargo xtask data fashion-mnist"];
    says(idx::fashion_mnist(dir.path(), Split::Train), &parts);
    says(idx::mnist(&dir.path().join("absent"), Split::Test), &["MNIST (test) not found", "t10k-labels-idx1-ubyte"]);
}

#[test]
fn another_size_under_the_official_name_is_another_set() {
    let dir = TempDir::new().unwrap();
    put(dir.path().join("train-images-idx3-ubyte"), file(IMAGES, &[1, 2, 3], &[0; 6]));
    put(dir.path().join("train-labels-idx1-ubyte"), file(LABELS, &[1], &[0]));
    says(idx::mnist(dir.path(), Split::Train), &["its images are 2 x 3", "28 x 28"]);
}
