//! `analyze` from the command line: what it writes, that its page stands alone in a browser, and what is refused.

mod common;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use common::{refused, said, train};
use serde_json::Value;

/// A folder with runs of two kinds of model on the digits, and the first one's analysis beside the second.
fn analyzed() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("analyze");
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        objects(&folder.join("masked"));
        let size = ["model.d=32", "model.depth=3", "model.heads=4", "report.layer_images=0"];
        let steps = ["train.max_steps=60", "train.checkpoint.every_steps=20", "train.checkpoint.keep_last=10"];
        train(&folder, "digits", "run", &[&size[..], &steps].concat());
        let vit = "model={kind=\"vit\", image=[8,8], patch=[2,2], channels=1, d=16, depth=2, heads=2}";
        train(&folder, "digits", "vit", &[vit, "train.max_steps=10", "report.layer_images=0"]);
        said(
            &folder,
            &["analyze", "run", "--compare", "vit", "--samples", "100", "--masks", "masked", "--out", "inside"],
        );
        folder
    })
}

/// A bright square on a dark ground, in two places, with its mask.
fn objects(folder: &Path) {
    for part in ["images", "masks"] {
        fs::create_dir_all(folder.join(part)).unwrap();
        for (name, left) in [("a", 2u32), ("b", 8)] {
            let inside = |x: u32, y: u32| (left..left + 6).contains(&x) && (4..10).contains(&y);
            let picture = image::GrayImage::from_fn(16, 16, |x, y| image::Luma([if inside(x, y) { 255 } else { 0 }]));
            picture.save(folder.join(part).join(format!("{name}.png"))).unwrap();
        }
    }
}

fn numbers() -> Value {
    serde_json::from_slice(&fs::read(analyzed().join("inside/analysis.json")).unwrap()).unwrap()
}

#[test]
fn every_layer_of_every_network_is_measured() {
    let found = numbers();
    let networks = found["networks"].as_array().unwrap();
    let subjects: Vec<_> = networks.iter().map(|n| n["subject"].as_str().unwrap()).collect();
    assert_eq!(subjects.len(), 5, "{subjects:?}");
    for wanted in [
        "trained, validation",
        "trained, training",
        "at initialisation, validation",
        "after 20 steps",
        "vit, validation",
    ] {
        assert!(subjects.iter().any(|s| s.starts_with(wanted)), "{wanted} in {subjects:?}");
    }
    for network in &networks[..4] {
        assert!(network["images"].as_u64().unwrap() >= 100);
        for part in ["layers", "steps", "activity", "tokens", "operators"] {
            assert_eq!(network[part].as_array().unwrap().len(), 3, "{part} of {}", network["subject"]);
        }
        let step = &network["steps"][1];
        for number in ["/attention/alignment/mean", "/sparsity/change/mean", "/after/objective/mean"] {
            assert!(step.pointer(number).and_then(Value::as_f64).is_some(), "{number}: {step}");
        }
    }
    // Training has changed what was drawn.
    let rate = |n: usize| networks[n]["layers"][2]["coding_rate"]["mean"].as_f64().unwrap();
    assert!((rate(0) - rate(2)).abs() > 1e-3);
    // What a ViT has not is not made up.
    let vit = &networks[4];
    assert!(vit["steps"][0]["attention"].is_null() && vit["operators"][0]["subspaces"].is_null(), "{vit}");
    assert!(vit["activity"][0]["place"].as_str().unwrap().contains("MLP"));
}

#[test]
fn masks_found_without_labels_are_scored() {
    let found = numbers();
    let scores = found["masks"].as_array().unwrap();
    assert_eq!(scores.len(), 4, "{scores:?}");
    for score in scores {
        assert_eq!(score["images"], 2);
        for measure in ["best_head", "one_head", "best_cut", "first_cut"] {
            let iou = score[measure]["mean"].as_f64().unwrap();
            assert!((0.0..=1.0).contains(&iou), "{measure}: {score}");
        }
        assert!(score["best_head"]["mean"].as_f64() >= score["one_head"]["mean"].as_f64());
        assert!((score["everything"]["mean"].as_f64().unwrap() - 36.0 / 256.0).abs() < 1e-9);
    }
}

#[test]
fn the_page_and_its_figures_are_whole() {
    let folder = analyzed().join("inside");
    let page = fs::read_to_string(folder.join("report.html")).unwrap();
    for words in [
        "Coding rate and the objective",
        "Sparsity",
        "Does each half",
        "learned operators",
        "Single images",
        "falls in",
    ] {
        assert!(page.contains(words), "{words}");
    }
    assert!(!page.contains("src=\"http") && !page.contains("href=\"http"), "the page needs no network");
    let figures: Vec<_> = fs::read_dir(folder.join("figures")).unwrap().flatten().map(|e| e.path()).collect();
    let of = |end: &str| figures.iter().filter(|p| p.extension().is_some_and(|e| e == end)).count();
    // A figure is there in both forms; pictures are pixels alone.
    assert!(of("svg") > 20 && of("png") >= of("svg") + 5, "{} and {}", of("svg"), of("png"));
    for picture in figures.iter().filter(|p| p.extension().is_some_and(|e| e == "png")) {
        image::open(picture).unwrap();
    }
}

/// In a browser: the scripts of the console say nothing, and every figure has a size. Both at a phone's width and at a desk's.
#[test]
fn the_page_opens_in_chromium() {
    let Some(chromium) = ["chromium", "chromium-browser", "google-chrome"]
        .iter()
        .find(|name| Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success()))
    else {
        // Past libtest's capture, so that `cargo xtask test` can say it.
        let _ = writeln!(std::io::stdout(), "skipped: analyze::the_page_opens_in_chromium (there is no Chromium)");
        return;
    };
    let page = format!("file://{}", analyzed().join("inside/report.html").display());
    for width in [390, 1280] {
        let profile = tempfile::tempdir().unwrap();
        let shot = profile.path().join("page.png");
        let output = Command::new(chromium)
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
            .args([
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--hide-scrollbars",
            ])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .args(["--enable-logging=stderr", "--v=0", &format!("--window-size={width},2000")])
            .arg(format!("--screenshot={}", shot.display()))
            .arg(&page)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        assert!(!said.contains("CONSOLE"), "{said}");
        let shot = image::open(&shot).unwrap().to_rgb8();
        assert_eq!(shot.width(), width);
        // Text and lines: more than a few colours.
        let colours: std::collections::BTreeSet<_> = shot.pixels().map(|p| p.0).collect();
        assert!(colours.len() > 50, "{} colours at width {width}", colours.len());
    }
}

/// Pictures of any size and kind, shown at twice the model's resolution.
#[test]
fn own_images_are_brought_to_the_model() {
    let folder = analyzed();
    let out = tempfile::tempdir().unwrap(); // not in the folder that other tests hold still
    let out = out.path().join("inside");
    let to = out.to_str().unwrap();
    said(folder, &["analyze", "run", "--data", "masked/images", "--resolution", "16", "--out", to]);
    let found: Value = serde_json::from_slice(&fs::read(out.join("analysis.json")).unwrap()).unwrap();
    assert_eq!(found["networks"][0]["subject"], "trained, given");
    assert_eq!(found["networks"][0]["images"], 2);
    let page = fs::read_to_string(out.join("report.html")).unwrap();
    for words in ["2 files of the user's own", "8 x 8 pixels", "8 x 8 of them: the images are shown at 16 x 16 pixels"]
    {
        assert!(page.replace("&#39;", "'").contains(words), "{words}");
    }
    refused(folder, &["analyze", "run", "--data", "digit", "--out", "x"], &["--data digit", "digits"]);
    refused(folder, &["analyze", "run", "--data", "run", "--out", "x"], &["run", "no image"]);
}

#[test]
fn slips_are_refused() {
    let folder = analyzed();
    refused(folder, &["analyze", "run", "--out", "inside"], &["inside", "already"]);
    refused(folder, &["analyze", "nothing"], &["nothing"]);
    refused(folder, &["analyze", "run", "--samples", "0"], &["--samples"]);
    refused(folder, &["analyze", "run", "--compare", "nothing", "--out", "x"], &["nothing"]);
    refused(folder, &["analyze", "run", "--masks", "run", "--out", "x"], &["images/ and masks/"]);
    refused(folder, &["analyze", "run", "--recipe", "demo", "--out", "x"], &["28x28", "8x8"]);
}
