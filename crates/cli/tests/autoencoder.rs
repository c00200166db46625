//! Masked autoencoders from the command line: trained, resumed to the bit, drawn, probed, fine-tuned, converted; and what is refused.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use common::{BINARY, ENVIRONMENT, fails, records, refused, said, sets, stderr, whitebox};
use image::{GrayImage, Luma};
use serde_json::Value;
use whitebox_model::weights::Weights;

/// A CRATE-MAE of the digits, 8 x 8 pixels in 16 patches.
const RECIPE: &str = r#"
[task]
kind = "reconstruct"

[model]
kind = "crate_mae"
image = [8, 8]
patch = [2, 2]
channels = 1
d = 16
depth = 2
heads = 2

[data]
set = "digits"
channels = 1
mean = [0.3]
std = [0.37]
train = [{ op = "random_crop", size = 8, padding = 1 }]
batch_size = 32

[train]
max_steps = 60
log_every = 1

[train.optimizer]
lr = 5e-3
betas = [0.9, 0.95]

[train.checkpoint]
every_steps = 2
best = { metric = "masked_mse", direction = "min" }
"#;

fn fresh(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("mae.toml"), RECIPE).unwrap();
    folder
}

#[track_caller]
fn train(folder: &Path, recipe: &str, out: &str, values: &[&str]) -> String {
    let mut command = whitebox(folder);
    command.args(["train", recipe, "--out", out]).args(sets(values));
    stderr(command.assert().success())
}

/// A folder with a finished `run`, made once, and one of a ViT-MAE; tests write nothing into those.
fn trained() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = fresh("autoencoder");
        train(&folder, "mae.toml", "run", &[]);
        let model = "model={kind=\"vit_mae\", image=[8,8], patch=[2,2], channels=1, d=16, depth=1, heads=2, decoder_d=8, decoder_depth=1, \
                     decoder_heads=2}";
        train(&folder, "mae.toml", "vit", &[model, "train.max_steps=8", "task.loss.norm_pix=true"]);
        folder
    })
}

fn json(folder: &Path, args: &[&str]) -> Value {
    serde_json::from_str(&said(folder, args)).unwrap()
}

fn size(path: &Path) -> [u32; 2] {
    let picture = image::open(path).unwrap();
    [picture.width(), picture.height()]
}

#[test]
fn a_run_of_reconstruction_tells_the_whole_story() {
    let run = trained().join("run");
    let config: toml::Value = toml::from_str(&fs::read_to_string(run.join("config.toml")).unwrap()).unwrap();
    assert_eq!(config["task"]["kind"].as_str(), Some("reconstruct"));
    assert_eq!(config["task"]["masking"]["ratio"].as_float(), Some(0.75));
    let evaluations = records(&run, "eval");
    let last = &evaluations.last().unwrap()["metrics"];
    let metric = |name: &str| last[name].as_f64().unwrap_or_else(|| panic!("{name} in {last}"));
    assert!(
        (metric("loss") - metric("masked_mse")).abs() < 1e-6 * metric("loss"),
        "the loss counts hidden pixels: {last}"
    );
    assert!((metric("ratio") - metric("masked_mse") / metric("visible_mean_mse")).abs() < 1e-9);
    assert!(metric("ratio") < 1.0, "it learned less than the mean of the visible pixels: {last}");
    assert!(evaluations[0]["metrics"]["visible_mean_mse"] == last["visible_mean_mse"], "masks are the same each time");

    let result: Value = serde_json::from_slice(&fs::read(run.join("result.json")).unwrap()).unwrap();
    assert_eq!((&result["images"], &result["steps"]), (&355.into(), &60.into()));
    assert_eq!(result["metrics"]["masked_mse"].as_f64(), Some(metric("masked_mse")));
    assert!(run.join("checkpoints/best/model.safetensors").is_file());
    // Small images are enlarged to about a hundred pixels: 14 times; gaps of two pixels between four columns and eight rows.
    assert_eq!(size(&run.join("reconstructions.png")), [14 * (4 * 10 - 2), 14 * (8 * 10 - 2)]);
    let report = fs::read_to_string(run.join("report.html")).unwrap();
    for words in [
        "data:image/png;base64",
        "layers on the same validation images, whole",
        "4 of 16 patches seen",
        "Error on hidden patches",
        "the mean of the visible pixels makes",
    ] {
        assert!(report.contains(words), "{words}");
    }
}

#[test]
fn an_interrupted_run_ends_in_the_same_bits() {
    let folder = fresh("autoencoder-resumed");
    let run = folder.join("run");
    let values = ["--set", "model.drop_masked=true", "--set", "task.masking.shape=block"];
    let mut args = vec!["train", "mae.toml", "--out", "run"];
    args.extend(values);
    let mut child = Command::new(BINARY)
        .current_dir(&folder)
        .envs(ENVIRONMENT)
        .args(&args)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = || fs::read_to_string(run.join("metrics.jsonl")).map_or(0, |text| text.lines().count());
    while lines() < 12 && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!run.join("result.json").exists(), "the run ended before it was killed");
    let message = stderr(whitebox(&folder).args(["train", "--resume", "run"]).assert().success());
    assert!(message.contains("going on after step") || message.contains("starting from the beginning"), "{message}");
    whitebox(&folder).args(["train", "mae.toml", "--out", "whole"]).args(values).assert().success();
    let outcome = |run: &str| {
        let read = |name: &str| fs::read(folder.join(run).join("checkpoints/step-00000060").join(name)).unwrap();
        let losses: Vec<Value> = records(&folder.join(run), "step").into_iter().map(|r| r["loss"].clone()).collect();
        let model = read("model.safetensors");
        (model[model.len() - 4000..].to_vec(), read("optimizer.safetensors"), losses) // the card tells the command
    };
    assert!(outcome("run") == outcome("whole"), "another outcome; {message}");
}

#[test]
fn reconstructions_are_drawn_and_measured() {
    let folder = trained();
    let out = tempfile::tempdir().unwrap();
    let to = |name: &str| out.path().join(name).to_str().unwrap().to_owned();
    // The first eight validation images; an evaluation hides the same of them.
    let all = json(folder, &["reconstruct", "run", "--out", &to("a.png"), "--scale", "1", "--json"]);
    assert_eq!(size(&out.path().join("a.png")), [4 * 10 - 2, 8 * 10 - 2]);
    assert_eq!((&all["patches"], &all["seen"], &all["norm_pix"]), (&16.into(), &4.into(), &false.into()));
    assert_eq!(all["images"].as_array().unwrap().len(), 8);
    assert!(all["images"].as_array().unwrap().iter().all(|i| i["masked_mse"].as_f64().unwrap() > 0.0));
    let kept = fs::read(folder.join("run/reconstructions.png")).unwrap();
    said(folder, &["reconstruct", "run/checkpoints/step-00000060", "--out", &to("b.png")]);
    assert!(fs::read(out.path().join("b.png")).unwrap() == kept, "the picture of the run again");

    GrayImage::from_fn(8, 8, |x, y| Luma([(x * 30 + y) as u8])).save(out.path().join("x.png")).unwrap();
    common::picture([200, 30, 90], 40, 31, 1).save(out.path().join("y.jpg")).unwrap();
    let (x, y) = (to("x.png"), to("y.jpg"));
    let args =
        ["reconstruct", "run", &x, &y, "--mask-ratio", "0.5", "--mask", "block", "--out", &to("c.png"), "--scale", "3"];
    let text = said(folder, &args);
    assert!(
        text.contains("8 of 16 patches seen") && text.contains("x.png") && text.contains("mean of visible"),
        "{text}"
    );
    assert_eq!(size(&out.path().join("c.png")), [3 * 38, 3 * 18]);
    let first = fs::read(out.path().join("c.png")).unwrap();
    said(folder, &[&args[..], &["--seed", "7"]].concat());
    assert!(fs::read(out.path().join("c.png")).unwrap() != first, "another seed hides other patches");

    let normalised = said(folder, &["reconstruct", "vit", "--out", &to("d.png")]);
    assert!(normalised.contains("the mean and the deviation of the true patch"), "{normalised}");
}

#[test]
fn the_encoder_is_probed_and_fine_tuned() {
    let folder = trained();
    for run in ["run", "vit"] {
        let knn = json(folder, &["knn", run, "--k", "5", "--json"]);
        assert!(knn["knn"][0]["accuracy"].as_f64().unwrap() > 0.15, "{run}: {knn}");
        let probe = json(folder, &["probe", run, "--decay", "1e-3", "--json"]);
        assert!(probe["accuracy"].as_f64().unwrap() > 0.2, "{run}: {probe}");
    }
    let out = tempfile::tempdir().unwrap();
    let file = out.path().join("f.npy");
    let text = said(folder, &["features", "run", "--out", file.to_str().unwrap()]);
    assert!(text.contains("355 features of 16 numbers"), "{text}");

    // The model of a fine-tuning run is that of the file where the recipe says none.
    for (run, kind) in [("run", "crate"), ("vit", "vit")] {
        let begin = format!("init.checkpoint={}", folder.join(run).display());
        let values =
            ["model={}", &begin, "train.max_steps=3", "train.schedule.warmup_epochs=0", "report.layer_images=0"];
        let message = train(out.path(), "digits", run, &values);
        assert!(message.contains("beginning with the encoder of") && message.contains("with a new head"), "{message}");
        let text = fs::read_to_string(out.path().join(run).join("config.toml")).unwrap();
        let config: toml::Value = toml::from_str(&text).unwrap();
        assert_eq!((config["model"]["kind"].as_str(), config["model"]["d"].as_integer()), (Some(kind), Some(16)));
        let args = ["train", "digits", "--resume", run].map(String::from);
        whitebox(out.path()).args(args).args(sets(&values)).assert().success();
        assert_eq!(json(out.path(), &["eval", run, "--json"])["images"], 355);
    }
}

#[test]
fn files_go_to_pytorch_and_back() {
    let folder = trained();
    let out = tempfile::tempdir().unwrap();
    let to = |name: &str| out.path().join(name).to_str().unwrap().to_owned();
    let tensors = |path: &str| Weights::open(Path::new(path)).unwrap().tensors;
    said(folder, &["convert", "run", &to("a.pth")]);
    let heads = ["--set", "model.heads=2"];
    refused(out.path(), &["convert", "a.pth", "b.safetensors"], &["heads"]);
    said(out.path(), &[&["convert", "a.pth", "b.safetensors"], &heads[..]].concat());
    assert!(tensors(&to("b.safetensors")) == tensors(&to("a.pth")));
    let run = folder.join("run/checkpoints/best/model.safetensors");
    assert!(tensors(&to("b.safetensors")) == tensors(run.to_str().unwrap()));
    // A file without a card draws the same picture with the recipe of its run, and none without.
    let recipe = folder.join("mae.toml");
    let args = ["reconstruct", "b.safetensors", "--recipe", recipe.to_str().unwrap(), "--out", "b.png"];
    said(out.path(), &args);
    assert!(fs::read(out.path().join("b.png")).is_ok());
    refused(out.path(), &["reconstruct", "b.safetensors"], &["--recipe"]);
}

#[test]
fn what_does_not_fit_is_refused_in_a_sentence() {
    let folder = trained();
    refused(folder, &["eval", "run"], &["no head", "reconstruct", "probe", "init.checkpoint"]);
    fs::write(folder.join("no.png"), "no image").unwrap();
    refused(folder, &["predict", "no.png", "--checkpoint", "run"], &["no head", "reconstruct"]);
    refused(folder, &["reconstruct"], &["which autoencoder", "mae-demo"]);
    refused(folder, &["reconstruct", "no.png"], &["no.png is an image", "before it"]);
    refused(folder, &["reconstruct", "nowhere"], &["nowhere", "no such file"]);
    refused(folder, &["reconstruct", "run", "no.png"], &["no.png", "not a readable image"]);
    refused(folder, &["reconstruct", "run", "--out", "x.jpg"], &["x.jpg", ".png"]);
    refused(folder, &["reconstruct", "run", "--out", "nowhere/x.png"], &["nowhere/x.png cannot be written"]);
    refused(folder, &["reconstruct", "run", "--mask-ratio", "1.5"], &["--mask-ratio", "1.5"]);
    refused(folder, &["reconstruct", "run", "--mask-ratio", "0"], &["nothing is hidden"]);
    fails(folder, &["reconstruct", "run", "--mask", "stripes"], &["random", "block"]);
    fails(folder, &["reconstruct", "run", "--scale", "0"], &["--scale"]);
    refused(folder, &["reconstruct", "run", "--recipe", "demo"], &["28x28", "takes 1 and 8x8"]);
    let classifier = tempfile::tempdir().unwrap();
    common::train(classifier.path(), "digits", "run", &["train.max_steps=2", "report.layer_images=0"]);
    refused(classifier.path(), &["reconstruct", "run"], &["classifier's", "mae-demo"]);

    let setting = |values: &[&str], words: &[&str]| {
        let args = [vec!["train".to_owned(), "mae.toml".into()], sets(values)].concat();
        refused(folder, &args, words);
    };
    setting(&["task.masking.ratio=1.0"], &["task.masking", "ratio"]);
    setting(&["task.masking.ratio=0"], &["task.masking.ratio = 0", "hides none", "whole"]);
    setting(&["task.masking.shape=stripes"], &["stripes", "block"]);
    setting(&["task.loss.norm_pixels=true"], &["norm_pixels"]);
    setting(&["task.kind=classify"], &["\"crate_mae\"", "reconstruct"]);
    setting(&["task={kind=\"reconstrct\"}"], &["reconstrct", "did you mean `reconstruct`"]);
    setting(&["model={kind=\"crate\"}"], &["\"crate\"", "crate_mae", "classify"]);
    setting(&["model.kind=crate_mea"], &["crate_mea", "did you mean `crate_mae`"]);
    setting(&["model={}"], &["model.kind", "preset", "init.checkpoint"]);
    setting(&["model.d=19"], &["d = 19"]);
    setting(&["model.dd=18"], &["dd", "did you mean"]);
    setting(&["train.checkpoint.best.metric=accuracy"], &["accuracy", "masked_mse"]);
    setting(&["model={preset=\"crate-mae-bse\"}"], &["crate-mae-bse", "did you mean `crate-mae-base`"]);
    setting(&["model.image=[16,16]"], &["8x8", "takes 1 and 16x16"]);
    let digits = ["train", "digits", "--set", "train.checkpoint.best={metric=\"ratio\", direction=\"min\"}"];
    refused(folder, &digits, &["ratio", "accuracy"]);
    // Fine-tuning with a recipe of another model lists what does not fit.
    let other =
        [vec!["train".to_owned(), "digits".into()], sets(&["init.checkpoint=run", "train.max_steps=1"])].concat();
    fails(folder, &other, &["missing: "]);
}
