//! The real files of `data/`: whole, as listed, and with the counts that the README gives.

use std::fs;

use sha2::{Digest, Sha256};
use whitebox_datasets::{Dataset, Split, digits, idx};

use crate::support::data;

fn per_class(set: &dyn Dataset) -> Vec<usize> {
    let mut counts = vec![0; set.classes().len()];
    (0..set.len()).for_each(|i| counts[set.label(i)] += 1);
    counts
}

#[test]
fn fashion_mnist_subset_is_balanced() {
    let train = idx::fashion_mnist(&data(), Split::Train).unwrap();
    assert_eq!((train.len(), per_class(&train)), (6000, vec![600; 10]));
    let val = idx::fashion_mnist(&data(), Split::Test).unwrap();
    assert_eq!((val.len(), per_class(&val)), (1000, vec![100; 10]));
    assert_eq!(val.image_size(), Some([28, 28]));
    // Mean and deviation that everyone normalises Fashion-MNIST by.
    let pixels: Vec<f64> =
        (0..6000).flat_map(|i| train.image(i).unwrap().pixels).map(|v| f64::from(v) / 255.0).collect();
    let mean = pixels.iter().sum::<f64>() / pixels.len() as f64;
    let variance = pixels.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / pixels.len() as f64;
    assert!((mean - 0.286).abs() < 0.002 && (variance.sqrt() - 0.353).abs() < 0.002, "{mean} {}", variance.sqrt());
}

#[test]
fn the_digits_are_1797() {
    let set = digits::open(&data()).unwrap();
    assert_eq!(set.len(), 1797);
    assert_eq!(per_class(&set), [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]);
    assert_eq!(set.image(0).unwrap().pixels[..8], [0, 0, 80, 207, 143, 16, 0, 0]);
    assert_eq!(set.label(0), 0);
}

#[test]
fn every_file_has_the_hash_that_the_readme_lists() {
    let readme = fs::read_to_string(data().join("README.md")).unwrap();
    let mut hashed = 0;
    let mut folders = vec![data()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(data()).unwrap().to_str().unwrap();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            if name == "README.md" {
                continue;
            }
            let hash: String =
                Sha256::digest(fs::read(&path).unwrap()).iter().map(|byte| format!("{byte:02x}")).collect();
            let listed = readme.lines().any(|line| line.contains(&format!("`{name}`")) && line.contains(&hash));
            assert!(listed, "data/README.md does not list {name} with sha256 {hash}");
            hashed += 1;
        }
    }
    assert!(hashed >= 16, "{hashed} files");
}
