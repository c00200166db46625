//! What a vision researcher does with a run: a sweep, fine-tuning, features, neighbours, a linear probe; and the training features that a recipe
//! turns on.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use common::{TINY, fails, files, images_by_class, records, refused, said, sets, stderr, train, whitebox};
use serde_json::Value;

fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// A folder with a `run` of the digits that has learned something.
fn trained() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = folder("vision");
        let size = ["model.d=32", "model.depth=2", "model.heads=4", "report.layer_images=0"];
        train(&folder, "digits", "run", &[&size[..], &["train.max_steps=150", "train.optimizer.lr=5e-3"]].concat());
        folder
    })
}

fn json(folder: &Path, args: &[&str]) -> Value {
    serde_json::from_str(&said(folder, args)).unwrap()
}

#[test]
fn a_sweep_trains_each_combination_once_and_goes_on_where_it_was_stopped() {
    let folder = folder("sweep");
    let mut values: Vec<&str> = TINY.to_vec();
    values.extend([
        "train.max_steps=4",
        "report.layer_images=0",
        "train.optimizer.lr=[1e-3, 1e-2]",
        "train.seed=[0, 1]",
    ]);
    let line = [vec!["sweep".to_owned(), "digits".into(), "--out".into(), "grid".into()], sets(&values)].concat();
    let output = whitebox(&folder).args(&line).assert().success();
    let table = String::from_utf8(output.get_output().stdout.clone()).unwrap();
    assert!(table.starts_with("| train.optimizer.lr | train.seed | parameters | accuracy |"), "{table}");
    assert_eq!(table.lines().filter(|l| l.contains('%')).count(), 4, "{table}");
    assert_eq!(fs::read_to_string(folder.join("grid/table.md")).unwrap().trim(), table.trim());
    let runs = ["lr=0.001,seed=0", "lr=0.001,seed=1", "lr=0.01,seed=0", "lr=0.01,seed=1"];
    let result = |run: &str| fs::read(folder.join("grid").join(run).join("result.json"));
    for run in runs {
        let found: Value = serde_json::from_slice(&result(run).unwrap()).unwrap();
        assert_eq!(found["steps"], 4, "{run}");
        assert!(found["metrics"]["accuracy"].as_f64().unwrap() >= 0.0);
    }

    // One run is taken back to its first checkpoint, one is gone: only these two are trained.
    let before = files(&folder.join("grid").join(runs[0]));
    fs::remove_file(folder.join("grid").join(runs[1]).join("result.json")).unwrap();
    fs::remove_dir_all(folder.join("grid").join(runs[2])).unwrap();
    let said = stderr(whitebox(&folder).args(&line).assert().success());
    assert_eq!(said.matches("finished already").count(), 2, "{said}");
    assert_eq!(before, files(&folder.join("grid").join(runs[0])));
    assert!(runs.iter().all(|run| result(run).is_ok()));

    // Another recipe in the same folder is refused before anything is trained.
    let mut other = line.clone();
    other.extend(sets(&["model.eta=0.2"]));
    refused(&folder, &other, &["holds a run of another recipe", "model.eta"]);
    refused(&folder, &["sweep", "digits", "--set", "train.epocs=[1, 2]"], &["did you mean `epochs`"]);
}

#[test]
fn features_are_written_and_classes_read_off_them() {
    let folder = trained();
    assert!(said(folder, &["features", "run", "--out", "f.safetensors"]).contains("355 features of 32 numbers"));
    said(folder, &["features", "run", "--part", "train", "--out", "f.npy"]);
    let tensors = tch::Tensor::read_safetensors(folder.join("f.safetensors")).unwrap();
    let sizes: Vec<_> = tensors.iter().map(|(name, t)| (name.as_str(), t.size())).collect();
    assert!(sizes.contains(&("features", vec![355, 32])) && sizes.contains(&("labels", vec![355])), "{sizes:?}");
    assert_eq!(tch::Tensor::read_npy(folder.join("f.npy")).unwrap().size(), [1442, 32]);
    assert_eq!(tch::Tensor::read_npy(folder.join("f.labels.npy")).unwrap().size(), [1442]);

    let knn = json(folder, &["knn", "run", "--k", "1,5", "--json"]);
    let accuracy = knn["knn"][1]["accuracy"].as_f64().unwrap();
    assert!(knn["knn"][1]["k"] == 5 && accuracy > 0.5, "{knn}");
    let probe = json(folder, &["probe", "run", "--json"]);
    assert!(probe["accuracy"].as_f64().unwrap() > 0.6, "{probe}");
    let kept = ["probe", "run", "--decay", "1e-3", "--out", "probed"];
    assert!(said(folder, &kept).contains("on training images"));
    let found: Value = serde_json::from_slice(&fs::read(folder.join("probed/result.json")).unwrap()).unwrap();
    assert!(found["metrics"]["accuracy"].as_f64().unwrap() > 0.6 && found["images"] == 355, "{found}");
    let config: toml::Table = fs::read_to_string(folder.join("probed/config.toml")).unwrap().parse().unwrap();
    assert_eq!(config["probe"]["checkpoint"].as_str(), Some("run"));
    assert_eq!(config["data"]["set"].as_str(), Some("digits"));
    refused(folder, &kept, &["probed already holds a run"]);

    refused(folder, &["features", "run", "--out", "f.txt"], &["f.txt", ".safetensors or .npy"]);
    refused(folder, &["knn", "run", "--k", "5000"], &["--k", "1442"]);
    refused(folder, &["probe", "run", "--decay=-1"], &["--decay"]);
    refused(folder, &["features", "run", "--out", "nowhere/f.npy"], &["nowhere/f.npy", "cannot be written"]);
}

/// Another number of classes, another size of image, and the same classes again.
#[test]
fn fine_tuning_takes_weights_and_fits_head_and_positions() {
    let folder = trained();
    images_by_class(&folder.join("images"), 12);
    let begin = "init.checkpoint=run";
    let values = ["data.path=images", "train.max_steps=2", "data.batch_size=4", "report.layer_images=0", begin];
    let size = ["model.d=32", "model.depth=2", "model.heads=4"];
    let shape = [
        "model.image=[16, 16]",
        "model.patch=[2, 2]",
        "model.channels=1",
        "data.channels=1",
        "data.mean=[0.5]",
        "data.std=[0.5]",
    ];
    let steps = ["data.train=[{op=\"resize\", size=[16, 16]}]", "data.eval=[{op=\"resize\", size=[16, 16]}]"];
    let all: Vec<_> = values.iter().chain(&size).chain(&shape).chain(&steps).copied().collect();
    let said = train(folder, "image-folder", "tuned", &all);
    assert!(said.contains("with a new head, positions interpolated from [4, 4] to [8, 8] patches"), "{said}");

    let said = train(
        folder,
        "digits",
        "again",
        &[&size[..], &[begin, "train.max_steps=1", "train.optimizer.lr=0", "report.layer_images=0"]].concat(),
    );
    assert!(said.contains("beginning with the weights of") && !said.contains("new head"), "{said}");
    let accuracy = |run: &str| records(&folder.join(run), "eval").last().unwrap()["metrics"]["accuracy"].as_f64();
    assert_eq!(accuracy("again"), accuracy("run"), "nothing was learned, so nothing may have changed");

    let line = |value: &str| [vec!["train".to_owned(), "digits".into()], sets(&TINY), sets(&[value])].concat();
    fails(folder, &line("init.checkpoint=nowhere"), &["init.checkpoint", "nowhere"]);
}

#[test]
fn averages_mixes_and_weights_are_trained_with() {
    let folder = folder("features-of-training");
    let values = [
        "train.epochs=2",
        "train.ema={decay=0.99}",
        "train.recompute=true",
        "train.optimizer.layer_decay=0.7",
        "train.optimizer.lr_for_batch=64",
        "train.schedule.shape=step",
        "train.schedule.step_epochs=1",
        "task.mix={mixup=0.8, cutmix=1.0}",
        "task.label_smoothing=0.1",
        "task.class_weights=balanced",
        "report.layer_images=0",
    ];
    train(&folder, "digits", "run", &values);
    assert!(records(&folder.join("run"), "eval").last().unwrap()["metrics"]["loss"].as_f64().unwrap().is_finite());
    let line = |value: &str| [vec!["train".to_owned(), "digits".into()], sets(&TINY), sets(&[value])].concat();
    refused(&folder, &line("task.mix={mixup=-1}"), &["task.mix.mixup"]);
    refused(&folder, &line("task.class_weights=[1.0, -2.0]"), &["task.class_weights", "-2"]);
    refused(&folder, &line("train.ema={decay=2.0}"), &["train.ema.decay"]);
    refused(&folder, &line("train.early_stop={patience=2}"), &["checkpoint.best"]);
}
