//! Every command as a person runs it: what it prints, what it writes, and that the files say what the screen said.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use common::{COLOURS, SMALL_IMAGES, files, images_by_class, picture, records, refused, said, sets, train, whitebox};
use image::{DynamicImage, GrayImage, Luma};
use serde_json::Value;

/// A folder with a finished `run` of the digits in it, made once.
fn trained() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("commands");
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        train(&folder, "digits", "run", &["train.max_steps=12", "train.log_every=4", "report.linear_baseline=true"]);
        folder
    })
}

#[test]
fn every_help_ends_in_examples() {
    for word in [
        "demo",
        "train",
        "eval",
        "predict",
        "reconstruct",
        "convert",
        "recipes",
        "sweep",
        "features",
        "knn",
        "probe",
        "throughput",
        "experiment",
        "analyze",
        "tokenize",
        "generate",
    ] {
        let help = said(Path::new("."), &[word, "--help"]);
        let (_, examples) = help.split_once("Examples:\n").unwrap_or_else(|| panic!("{word}: {help}"));
        assert!(examples.lines().count() > 0 && examples.lines().all(|l| l.starts_with("  cargo xtask ")), "{help}");
    }
    assert!(said(Path::new("."), &["--help"]).contains("Examples:"));
    assert!(said(Path::new("."), &["--version"]).contains(env!("CARGO_PKG_VERSION")));
}

#[test]
fn recipes_are_listed_and_one_printed_is_a_start_for_ones_own() {
    let list = said(Path::new("."), &["recipes"]);
    for name in ["demo", "digits", "fashion-mnist", "fashion-mnist-vit", "image-folder"] {
        assert!(list.lines().any(|line| line.starts_with(name)), "{name} in {list}");
    }
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("mine.toml"), said(Path::new("."), &["recipes", "digits"])).unwrap();
    train(folder.path(), "mine.toml", "run", &["train.max_steps=2"]);
    let info: Value = serde_json::from_slice(&fs::read(folder.path().join("run/run.json")).unwrap()).unwrap();
    assert_eq!(info["recipe"], "mine");
}

#[test]
fn a_run_folder_tells_the_whole_story() {
    let run = trained().join("run");
    let config: toml::Value = toml::from_str(&fs::read_to_string(run.join("config.toml")).unwrap()).unwrap();
    assert_eq!(config["model"]["d"].as_integer(), Some(16));
    assert_eq!(config["train"]["max_steps"].as_integer(), Some(12));
    let info: Value = serde_json::from_slice(&fs::read(run.join("run.json")).unwrap()).unwrap();
    assert_eq!((&info["recipe"], &info["device"], &info["threads"]), (&"digits".into(), &"cpu".into(), &1.into()));
    assert!(info["command"].as_str().unwrap().starts_with("whitebox train digits --out run --set model.d=16"));

    assert_eq!(records(&run, "step").iter().map(|r| r["step"].as_u64().unwrap()).collect::<Vec<_>>(), [4, 8, 12]);
    let layers: Value = serde_json::from_slice(&fs::read(run.join("layers-before.json")).unwrap()).unwrap();
    assert_eq!(layers.as_array().unwrap().len(), 1);
    for file in ["model.safetensors", "optimizer.safetensors", "state.json"] {
        assert!(run.join("checkpoints/step-00000012").join(file).is_file(), "{file}");
    }
    let names = fs::read_dir(&run).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    assert!(names.into_iter().any(|name| name.starts_with("events.out.tfevents.")));

    let report = fs::read_to_string(run.join("report.html")).unwrap().to_lowercase();
    for word in ["accuracy", "12 steps", "a linear model on pixels", "coding rate", "whitebox train digits"] {
        assert!(report.contains(word), "{word}");
    }
    for foreign in ["src=\"http", "href=\"http", "url(http", "@import", "<script"] {
        assert!(!report.contains(foreign), "{foreign}");
    }
}

#[test]
fn a_dry_run_counts_and_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = whitebox(folder.path());
    let output = command.args(["train", "digits", "--dry-run"]).args(sets(&common::TINY)).assert().success();
    let text = String::from_utf8(output.get_output().stdout.clone()).unwrap();
    let row = |name: &str| text.lines().find(|l| l.starts_with(name)).unwrap_or_else(|| panic!("{name}: {text}"));
    let info: Value = serde_json::from_slice(&fs::read(trained().join("run/run.json")).unwrap()).unwrap();
    let parameters = info["parameters"].as_u64().unwrap();
    assert!(row("parameters").replace(',', "").ends_with(&parameters.to_string()), "{text}");
    assert!(row("steps").contains("4,600 of 32 images"), "{text}");
    row("memory");
    row("time");
    assert!(files(folder.path()).is_empty());
}

#[test]
fn eval_measures_what_training_measured() {
    let last = records(&trained().join("run"), "eval").pop().unwrap();
    let json: Value = serde_json::from_str(&said(trained(), &["eval", "run", "--json"])).unwrap();
    assert_eq!((json["loss"].as_f64(), json["accuracy"].as_f64()), {
        (last["metrics"]["loss"].as_f64(), last["metrics"]["accuracy"].as_f64())
    });
    let confusion: Vec<Vec<u64>> = serde_json::from_value(json["confusion"].clone()).unwrap();
    assert_eq!(confusion.iter().flatten().sum::<u64>(), json["images"].as_u64().unwrap());
    let right = (0..10).map(|i| confusion[i][i]).sum::<u64>() as f64;
    assert!((right / json["images"].as_f64().unwrap() - json["accuracy"].as_f64().unwrap()).abs() < 1e-12);
    assert_eq!(json["classes"].as_array().unwrap().len(), 10);

    let text = said(trained(), &["eval", "run/checkpoints/step-00000012"]);
    assert!(text.contains("355 images") && text.contains("accuracy"), "{text}");
}

#[test]
fn predict_takes_png_and_jpeg_of_any_size_and_colour() {
    let folder = trained();
    let grey = GrayImage::from_fn(8, 8, |x, y| Luma([(x * 30 + y) as u8]));
    grey.save(folder.join("grey.png")).unwrap();
    DynamicImage::ImageLuma8(grey).to_rgb8().save(folder.join("same.png")).unwrap();
    picture([200, 30, 90], 40, 31, 1).save(folder.join("photo.jpg")).unwrap();
    let args = ["predict", "grey.png", "same.png", "photo.jpg", "--checkpoint", "run", "--top", "10", "--json"];
    let text = said(folder, &args);
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let probabilities = |value: &Value| -> Vec<f64> {
        let list = value["predictions"].as_array().unwrap();
        list.iter().map(|p| p["probability"].as_f64().unwrap()).collect()
    };
    assert_eq!(lines.iter().map(|l| l["resized"].as_bool().unwrap()).collect::<Vec<_>>(), [false, false, true]);
    for line in &lines {
        let p = probabilities(line);
        assert!(p.len() == 10 && p.is_sorted_by(|a, b| a >= b) && (p.iter().sum::<f64>() - 1.0).abs() < 1e-5, "{p:?}");
    }
    let pairs = probabilities(&lines[0]).into_iter().zip(probabilities(&lines[1]));
    assert!(pairs.into_iter().all(|(a, b)| (a - b).abs() < 1e-2), "grey is grey in three channels too");

    let text = said(folder, &["predict", "photo.jpg", "--checkpoint", "run"]);
    assert!(text.starts_with("photo.jpg (resized") && text.lines().count() == 6, "{text}");
}

#[test]
fn overrides_are_recorded_and_other_values_kept() {
    let folder = tempfile::tempdir().unwrap();
    let values = ["train.max_steps=2", "model.eta=0.25", "task.label_smoothing=0.1", "data.train=[]"];
    train(folder.path(), "digits", "run", &values);
    let text = fs::read_to_string(folder.path().join("run/config.toml")).unwrap();
    let config: toml::Value = toml::from_str(&text).unwrap();
    assert_eq!(config["model"]["eta"].as_float(), Some(0.25));
    assert_eq!(config["task"]["label_smoothing"].as_float(), Some(0.1));
    assert_eq!(config["data"]["train"].as_array().map(Vec::len), Some(0));
    assert_eq!(config["train"]["optimizer"]["lr"].as_float(), Some(2e-3));
    // What is written can be trained again as it is.
    whitebox(folder.path()).args(["train", "run/config.toml", "--out", "again"]).assert().success();
    let model = |run: &str| {
        let path = folder.path().join(run).join("checkpoints/step-00000002/model.safetensors");
        let bytes = fs::read(path).unwrap();
        bytes[bytes.len() - 4000..].to_vec() // the tensors; the card before them names the command
    };
    assert!(model("run") == model("again"));
}

#[test]
fn ones_own_images_are_learned_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    images_by_class(&path.join("split/train"), 12);
    images_by_class(&path.join("split/val"), 3);
    images_by_class(&path.join("flat"), 20);
    for (layout, validation) in [("split", 9), ("flat", 6)] {
        let data = format!("data.path={layout}");
        let mut values = vec![&*data, "train.max_steps=30", "train.eval_every=0"];
        values.extend(SMALL_IMAGES);
        let out = format!("run-{layout}");
        let said_there = train(path, "image-folder", &out, &values);
        assert!(said_there.contains(&format!("{validation} validation images, 3 classes")), "{said_there}");
        for (class, colour) in COLOURS {
            picture(colour, 50, 33, 99).save(path.join("new.jpg")).unwrap();
            let text = said(path, &["predict", "new.jpg", "--checkpoint", &out, "--json"]);
            let json: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(json["predictions"][0]["class"], class, "{layout}: {text}");
        }
    }
    // A folder in another order of classes, measured by the names in the checkpoint.
    let json: Value =
        serde_json::from_str(&said(path, &["eval", "run-flat", "--data", "split/val", "--json"])).unwrap();
    assert_eq!((json["images"].as_u64(), json["accuracy"].as_f64()), (Some(9), Some(1.0)));
    refused(path, &["eval", "run-flat", "--data", "split"], &["split"]);
}

#[test]
fn the_model_in_the_repository_is_used_where_none_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let found: Value = serde_json::from_str(&said(folder.path(), &["eval", "--json"])).unwrap();
    assert_eq!(found["images"], 1000);
    assert!(found["accuracy"].as_f64().unwrap() >= 0.85, "{found}");
    GrayImage::new(28, 28).save(folder.path().join("black.png")).unwrap();
    let text = said(folder.path(), &["predict", "black.png"]);
    assert_eq!(text.lines().count(), 6, "{text}");
    let known = whitebox_datasets::idx::FASHION_MNIST_CLASSES;
    assert!(text.lines().skip(1).all(|line| known.iter().any(|class| line.ends_with(class))), "{text}");
}

/// A CRATE that takes no time to speak of.
const SMALLEST: [&str; 6] = ["--set", "model.image=[32,32]", "--set", "model.depth=2", "--batch", "2"];

#[test]
fn throughput_measures_either_pass_and_memory() {
    let here = Path::new(".");
    for (pass, precision) in [("training", "float32"), ("training", "bfloat16"), ("inference", "bfloat16")] {
        let args =
            ["throughput", "crate-tiny", "--pass", pass, "--precision", precision, "--seconds", "0.01", "--json"];
        let found: Value = serde_json::from_str(&said(here, &[&args[..], &SMALLEST].concat())).unwrap();
        assert_eq!((&found["batch"], &found["threads"]), (&2.into(), &1.into()));
        let number = |key: &str| found[key].as_f64().unwrap();
        assert!((number("ms_per_image") * number("images_per_second") - 1000.0).abs() < 1e-6);
        assert!(number("gflops") > 0.0 && found["repeats"].as_u64().unwrap() >= 3);
    }
    let memory = said(here, &[&["throughput", "vit-tiny", "--memory", "--json"][..], &SMALLEST].concat());
    let memory: Value = serde_json::from_str(&memory).unwrap();
    // Gradients and two moments of a model of more than a million numbers, at least.
    assert!(memory["peak_bytes"].as_u64().unwrap() > 12_000_000, "{memory}");
    assert!(said(here, &["throughput", "matmul", "--seconds", "0.01"]).contains("GFLOP/s"));
}

#[test]
fn throughput_takes_turns() {
    let mut command = whitebox(Path::new("."));
    command.args(["throughput", "crate-tiny", "--seconds", "0.01", "--turns"]).args(SMALLEST).write_stdin("1\n2\n");
    let output = command.assert().success().get_output().stdout.clone();
    let lines: Vec<Value> =
        String::from_utf8(output).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 3);
    assert!(lines[0]["ready"] == true && lines[0]["gflop_per_image"].as_f64().unwrap() > 0.0);
    assert!(lines[1..].iter().all(|line| line["ms"].as_f64().unwrap() > 0.0));
}

#[test]
fn throughput_refuses_what_it_cannot_measure() {
    for (args, words) in [
        (&["crate-tinny"][..], &["crate-tinny", "crate-tiny"][..]),
        (&["crate-tiny", "--seconds", "0"], &["--seconds 0", "above 0"]),
        (&["crate-tiny", "--batch", "0"], &["0", "batch"]),
        (&["crate-tiny", "--batch", "1000000"], &["GiB"]),
        (&["crate-tiny", "--set", "model.heads=5"], &["heads"]),
    ] {
        refused(tempfile::tempdir().unwrap().path(), &[&["throughput"], args].concat(), words);
    }
}
