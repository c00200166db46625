//! `cargo xtask data` on small fake sets: what is taken, what is refused, and that nothing half is left.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use flate2::Compression;
use flate2::write::GzEncoder;
use xtask::data::{get, present};

const CLASSES: [&str; 10] = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];

fn images(folder: &Path) -> PathBuf {
    for class in CLASSES {
        let place = folder.join("cifar/train").join(class);
        fs::create_dir_all(&place).unwrap();
        fs::write(place.join("0000.jpg"), b"\xff\xd8\xff\xe0 and so on").unwrap();
    }
    folder.join("cifar")
}

#[test]
fn images_by_class_are_taken_from_folder_and_archive() {
    let folder = tempfile::tempdir().unwrap();
    let source = images(folder.path());
    let archive = folder.path().join("cifar.tar.gz");
    let tar = Command::new("tar").arg("-czf").arg(&archive).arg("-C").arg(folder.path()).arg("cifar").status();
    assert!(tar.unwrap().success());
    for (name, from) in [("one", &source), ("two", &archive)] {
        let data = folder.path().join(name);
        let place = get("cifar10", Some(from), &data).unwrap();
        assert_eq!(place, data.join("cifar10"));
        assert!(place.join("train/frog/0000.jpg").is_file() && source.join("train/frog/0000.jpg").is_file());
        assert_eq!(present(&data), ["cifar10"]);
        // a set that was damaged later is taken again
        fs::remove_file(place.join("train/cat/0000.jpg")).unwrap();
        assert!(present(&data).is_empty());
        get("cifar10", Some(from), &data).unwrap();
        assert!(place.join("train/cat/0000.jpg").is_file());
        // a second time nothing is looked at
        assert_eq!(get("cifar10", Some(Path::new("/no/such/path")), &data).unwrap(), place);
    }
}

#[test]
fn what_is_not_the_set_is_refused_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let refused = |name: &str, from: &Path| format!("{:#}", get(name, Some(from), &data).unwrap_err());
    let source = images(folder.path());

    fs::write(source.join("train/cat/0001.jpg"), b"no image").unwrap();
    assert!(refused("cifar10", &source).contains("cat/0001.jpg is no JPEG, PNG or WebP image"));
    fs::remove_dir_all(source.join("train/cat")).unwrap();
    assert!(refused("cifar10", &source).contains("the class cat has no training image"));
    fs::create_dir(source.join("train/lion")).unwrap();
    fs::write(source.join("train/lion/0.jpg"), b"\xff\xd8\xff").unwrap();
    assert!(refused("cifar10", &source).contains("\"lion\" is no class of CIFAR-10"));
    fs::write(source.join("test_batch.bin"), b"short").unwrap();
    assert!(refused("cifar10", &source).contains("data_batch_1.bin is missing"));
    fs::write(source.join("data_batch_1.bin"), b"short").unwrap();
    assert!(refused("cifar10", &source).contains("has 5 bytes, expected 30730000"));

    let idx = folder.path().join("idx");
    fs::create_dir(&idx).unwrap();
    assert!(refused("mnist", &idx).contains("train-images-idx3-ubyte and train-images-idx3-ubyte.gz are missing"));
    fs::write(idx.join("train-images.idx3-ubyte"), b"another content").unwrap();
    assert!(refused("mnist", &idx).contains("train-images.idx3-ubyte has another content"));
    fs::remove_file(idx.join("train-images.idx3-ubyte")).unwrap();
    fs::write(idx.join("train-images-idx3-ubyte.gz"), b"\x1f\x8b\x08cut").unwrap();
    assert!(refused("fashion-mnist", &idx).contains("train-images-idx3-ubyte.gz is damaged"));
    let mut zipped = GzEncoder::new(File::create(idx.join("train-images-idx3-ubyte.gz")).unwrap(), Compression::fast());
    std::io::Write::write_all(&mut zipped, b"another content").unwrap();
    zipped.finish().unwrap();
    assert!(refused("fashion-mnist", &idx).contains("has another content"));

    assert!(refused("mnist", Path::new("/no/such/path")).contains("/no/such/path does not exist"));
    fs::write(folder.path().join("x.tar.gz"), b"no archive").unwrap();
    assert!(refused("mnist", &folder.path().join("x.tar.gz")).contains("cannot be unpacked"));

    let left: Vec<_> = fs::read_dir(&data).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(left, [".lock"]);
}

#[test]
fn an_unknown_or_missing_set_says_how_to_get_it() {
    let data = tempfile::tempdir().unwrap();
    let error = get("fashionmnist", None, data.path()).unwrap_err().to_string();
    assert!(error.contains("did you mean fashion-mnist?") && error.contains("cifar10"), "{error}");
    let error = get("cifar10", None, data.path()).unwrap_err().to_string();
    assert!(error.contains("cifar-10-binary.tar.gz") && error.contains("--from PATH"), "{error}");
    assert!(present(data.path()).is_empty());
}

#[test]
fn a_folder_of_the_users_own_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let source = images(folder.path());
    let own = folder.path().join("data/cifar10");
    fs::create_dir_all(&own).unwrap();
    fs::write(own.join("mine"), b"x").unwrap();
    let error = get("cifar10", Some(&source), &folder.path().join("data")).unwrap_err().to_string();
    assert!(error.contains("is left alone"), "{error}");
    assert!(own.join("mine").is_file());
}
