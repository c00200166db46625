//! Folders of images by class.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;

use image::{DynamicImage, ImageFormat};
use tempfile::TempDir;
use whitebox_datasets::{Dataset, Error, ImageFolder};

use crate::support::{encoded, jpeg, put, says, smooth};

#[test]
fn classes_are_folders_and_files_are_sorted() {
    let dir = TempDir::new().unwrap();
    let root = dir.path();
    put(root.join("zebra/b.JPEG"), jpeg(20, 10));
    put(root.join("zebra/a.png"), encoded(smooth(20, 10), ImageFormat::Png));
    put(root.join("zebra/deeper/c.webp"), encoded(smooth(20, 10), ImageFormat::WebP));
    put(root.join("ant/x.jpg"), jpeg(8, 9));
    put(root.join("ant/notes.txt"), "not an image");
    put(root.join("ant/.hidden.jpg"), "not an image");
    put(root.join(".cache/x.jpg"), "not an image");
    put(root.join("readme.txt"), "no class");

    let set = ImageFolder::open(root).unwrap();
    assert_eq!(set.classes(), ["ant", "zebra"]);
    let names: Vec<_> = (0..set.len()).map(|i| set.path(i).unwrap().strip_prefix(root).unwrap().to_owned()).collect();
    assert_eq!(
        names.iter().map(|p| p.to_str().unwrap()).collect::<Vec<_>>(),
        ["ant/x.jpg", "zebra/a.png", "zebra/b.JPEG", "zebra/deeper/c.webp"]
    );
    assert_eq!((0..4).map(|i| set.label(i)).collect::<Vec<_>>(), [0, 1, 1, 1]);
    for index in 1..4 {
        let image = set.image(index).unwrap();
        assert_eq!((image.width, image.height, image.channels), (20, 10, 3), "{}", set.source(index));
        for (value, expected) in image.pixels.iter().zip(smooth(20, 10).as_raw()) {
            assert!(value.abs_diff(*expected) <= 12, "{}: {value} {expected}", set.source(index));
        }
    }
    says(set.image(4), &["sample 4"]);
}

#[test]
fn a_set_without_classes_or_images_is_an_error() {
    let dir = TempDir::new().unwrap();
    says(ImageFolder::open(dir.path()), &["no class folder (0 images", "DIR/CLASS/IMAGE.jpg"]);
    put(dir.path().join("x.jpg"), jpeg(8, 8));
    says(ImageFolder::open(dir.path()), &["no class folder (1 images"]);
    put(dir.path().join("cat/x.jpg"), jpeg(8, 8));
    fs::create_dir(dir.path().join("dog")).unwrap();
    says(ImageFolder::open(dir.path()), &["dog: this class folder holds no image", "remove it"]);
    let absent = ImageFolder::open(&dir.path().join("absent"));
    assert!(matches!(says(absent, &["absent: cannot be read"]), Error::Io { .. }));
    says(ImageFolder::open(&dir.path().join("x.jpg")), &["x.jpg: cannot be read"]);
}

#[test]
fn splits_are_not_taken_for_classes() {
    let dir = TempDir::new().unwrap();
    put(dir.path().join("train/cat/x.jpg"), jpeg(8, 8));
    put(dir.path().join("val/cat/x.jpg"), jpeg(8, 8));
    says(ImageFolder::open(dir.path()), &["train, val, not classes", "name one of these"]);
    assert_eq!(ImageFolder::open(&dir.path().join("train")).unwrap().len(), 1);
}

#[test]
fn given_classes_fix_the_labels() {
    let dir = TempDir::new().unwrap();
    put(dir.path().join("dog/x.jpg"), jpeg(8, 8));
    let set = ImageFolder::open_with_classes(dir.path(), &["cat", "dog", "eel"]).unwrap();
    assert_eq!((set.label(0), set.classes().len()), (1, 3));
    says(ImageFolder::open_with_classes(dir.path(), &["cat"]), &["\"dog\" is none of the 1 classes"]);
}

#[test]
fn names_that_are_no_utf8_are_opened_and_shown() {
    let dir = TempDir::new().unwrap();
    let class = dir.path().join(OsStr::from_bytes(b"caf\xe9"));
    put(class.join(OsStr::from_bytes(b"\xff.jpg")), jpeg(8, 8));
    put(class.join("y.jpg"), "damaged");
    let set = ImageFolder::open(dir.path()).unwrap();
    assert_eq!(set.classes(), ["caf\u{fffd}"]);
    assert!(set.source(1).ends_with("caf\u{fffd}/\u{fffd}.jpg"));
    assert_eq!(set.image(1).unwrap().width, 8);
    says(set.image(0), &["caf\u{fffd}/y.jpg"]);
    put(dir.path().join(OsStr::from_bytes(b"caf\xe8")).join("x.jpg"), jpeg(8, 8));
    says(ImageFolder::open(dir.path()), &["two class folders are called", "rename"]);
}

#[test]
fn links_are_followed_and_may_lead_back() {
    let dir = TempDir::new().unwrap();
    let elsewhere = TempDir::new().unwrap();
    put(elsewhere.path().join("cats/x.jpg"), jpeg(8, 8));
    symlink(elsewhere.path().join("cats"), dir.path().join("cat")).unwrap();
    symlink(elsewhere.path().join("cats"), elsewhere.path().join("cats/again")).unwrap();
    assert_eq!(ImageFolder::open(dir.path()).unwrap().len(), 1);
}

#[test]
fn a_file_that_has_gone_is_named_and_is_not_corrupt() {
    let dir = TempDir::new().unwrap();
    let file = put(dir.path().join("cat/x.jpg"), jpeg(8, 8));
    symlink("nowhere", dir.path().join("cat/z.jpg")).unwrap();
    let set = ImageFolder::open(dir.path()).unwrap();
    fs::remove_file(&file).unwrap();
    for (index, name) in [(0, "cat/x.jpg: cannot be read"), (1, "cat/z.jpg: cannot be read")] {
        assert!(!says(set.image(index), &[name]).is_corrupt());
    }
}

#[test]
fn the_content_tells_the_format() {
    let dir = TempDir::new().unwrap();
    put(dir.path().join("cat/png.jpg"), encoded(DynamicImage::from(smooth(8, 8)).to_luma8(), ImageFormat::Png));
    let image = ImageFolder::open(dir.path()).unwrap().image(0).unwrap();
    assert_eq!(image.channels, 1);
}
