//! Every recipe trains: two steps with the model and the steps on images that it names, on a generated set in the layout that it reads.

mod common;

use std::fs;
use std::path::Path;

use common::{images_by_class, records, said, sets, stderr, whitebox};

/// What keeps two steps of the largest model short: one image at a time, and nothing measured beside.
const SHORT: [&str; 9] = [
    "train.max_steps=2",
    "train.accumulate=1",
    "data.batch_size=1",
    "data.eval_batch_size=1",
    "data.workers=1",
    "report.layer_images=0",
    "report.samples=0",
    "report.linear_baseline=false",
    "train.schedule={}",
];

fn two_steps(folder: &Path, recipe: &str, data: &str, values: &[&str]) {
    let path = format!("data.path={data}");
    let mut command = whitebox(folder);
    command.args(["train", recipe, "--out", recipe]).args(sets(&SHORT)).args(sets(&[&path])).args(sets(values));
    stderr(command.assert().success());
    let last = records(&folder.join(recipe), "eval").pop().unwrap();
    assert_eq!(last["step"], 2, "{recipe}");
    assert!(last["metrics"]["loss"].as_f64().unwrap().is_finite(), "{recipe}: {last}");
}

/// An empty recipe's folder of images: `train/` and `val/` with three classes.
fn imagenet(folder: &Path) {
    images_by_class(&folder.join("imagenet/train"), 2);
    images_by_class(&folder.join("imagenet/val"), 1);
}

#[test]
fn imagenet_recipes_train() {
    let folder = tempfile::tempdir().unwrap();
    imagenet(folder.path());
    for recipe in ["imagenet-crate-tiny", "imagenet-crate-small", "imagenet-crate-base", "imagenet21k-crate-base"] {
        two_steps(folder.path(), recipe, "imagenet", &[]);
    }
    for recipe in ["imagenet-crate-mae-small", "imagenet-crate-mae-base"] {
        two_steps(folder.path(), recipe, "imagenet", &[]);
    }
}

#[test]
fn the_largest_recipe_trains() {
    let folder = tempfile::tempdir().unwrap();
    imagenet(folder.path());
    two_steps(folder.path(), "imagenet-crate-large", "imagenet", &[]);
}

/// The official binary layout: records of labels and 3,072 bytes.
fn cifar(folder: &Path, names: &[&str], labels: usize, classes: u8) {
    fs::create_dir_all(folder).unwrap();
    for name in names {
        let records: Vec<u8> = (0..6u8)
            .flat_map(|i| {
                let label = (0..labels).map(move |_| i % classes);
                label.chain((0..3072u32).map(move |at| (at.wrapping_mul(7 + u32::from(i)) % 251) as u8))
            })
            .collect();
        fs::write(folder.join(name), records).unwrap();
    }
}

#[test]
fn cifar_recipes_train_on_files_and_on_folders() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let batches = ["data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"];
    cifar(&path.join("ten"), &[&batches[..], &["test_batch.bin"]].concat(), 1, 10);
    cifar(&path.join("hundred"), &["train.bin", "test.bin"], 2, 100);
    images_by_class(&path.join("folder"), 12);
    for recipe in ["cifar10", "cifar10-vit", "cifar10-alpha", "cifar10-tost", "cifar10-mae", "cifar10-vit-mae"] {
        two_steps(path, recipe, "ten", &[]);
    }
    fs::rename(path.join("cifar10"), path.join("by-files")).unwrap();
    two_steps(path, "cifar10", "folder", &[]);
    // Fine-tuning with the steps of the recipe, from a model of its kind and half its depth.
    let small = ["model.depth=2", "model.d=96", "model.heads=6"];
    two_steps(path, "finetune-cifar10", "ten", &small);
    let begun = [&small[..], &["init.checkpoint=finetune-cifar10"]].concat();
    two_steps(path, "finetune-cifar100", "hundred", &begun);
}

#[test]
fn recipes_of_flowers_and_pets_train() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let small = ["model.depth=2", "model.d=96", "model.heads=6"];
    let images = path.join("pets/images");
    fs::create_dir_all(&images).unwrap();
    fs::create_dir_all(path.join("pets/annotations")).unwrap();
    for name in ["Abyssinian_1", "beagle_2", "beagle_3"] {
        common::picture([90, 120, 60], 40, 30, 3).save(images.join(format!("{name}.jpg"))).unwrap();
    }
    let lists = path.join("pets/annotations");
    fs::write(lists.join("trainval.txt"), "Abyssinian_1 1 1 1\nbeagle_2 5 2 4\n").unwrap();
    fs::write(lists.join("test.txt"), "beagle_3 5 2 4\n").unwrap();
    two_steps(path, "finetune-pets", "pets", &small);

    fs::create_dir_all(path.join("flowers/jpg")).unwrap();
    let made = Path::new(env!("CARGO_MANIFEST_DIR")).join("../datasets/tests/data");
    for file in ["imagelabels.mat", "setid.mat"] {
        fs::copy(made.join(file), path.join("flowers").join(file)).unwrap();
    }
    for number in 1..=5 {
        let file = path.join(format!("flowers/jpg/image_{number:05}.jpg"));
        common::picture([200, 60, 120], 30, 40, number).save(file).unwrap();
    }
    two_steps(path, "finetune-flowers102", "flowers", &small);
}

#[test]
fn small_recipes_train_on_the_sets_in_the_repository() {
    let folder = tempfile::tempdir().unwrap();
    for recipe in ["demo", "digits"] {
        let mut command = whitebox(folder.path());
        command.args(["train", recipe, "--out", recipe]).args(sets(&SHORT)).args(sets(&["data.eval_batch_size=256"]));
        stderr(command.assert().success());
    }
    images_by_class(&folder.path().join("images"), 11);
    two_steps(folder.path(), "image-folder", "images", &[]);
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data");
    let data = data.to_str().unwrap();
    two_steps(folder.path(), "transfer", data, &["data.set=digits", "model.depth=1"]);
    let subset = ["data.set=fashion-mnist-subset", "data.eval_batch_size=256"];
    for recipe in ["mae-demo", "fashion-mnist-mae", "fashion-mnist-vit-mae"] {
        two_steps(folder.path(), recipe, data, &subset);
    }
    let begun = [&subset[..], &["init.checkpoint=fashion-mnist-mae"]].concat();
    two_steps(folder.path(), "finetune-fashion-mnist-mae", data, &begun);
    assert!(said(folder.path(), &["recipes"]).contains("imagenet-crate-base"));
}
