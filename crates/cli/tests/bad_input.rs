//! Whatever is wrong with a file, a flag or a folder ends in one sentence and a non-zero exit, and nothing is overwritten.

mod common;

use std::ffi::OsStr;
use std::fs;
use std::io::{Cursor, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use common::{SMALL_IMAGES, TINY, fails, files, images_by_class, picture, refused, said, sets, train, whitebox};

/// A folder with a finished `run` of the digits and an image `x.png` in it, made once; tests do not write there.
fn trained() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bad-input");
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        train(&folder, "digits", "run", &["train.max_steps=2"]);
        picture([200, 30, 90], 12, 9, 1).save(folder.join("x.png")).unwrap();
        folder
    })
}

/// `train digits` with these settings must be refused and write nothing.
#[track_caller]
fn refused_setting(values: &[&str], words: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let mut args: Vec<String> = ["train", "digits"].map(String::from).into();
    args.extend(sets(&TINY));
    args.extend(sets(values));
    refused(folder.path(), &args, words);
}

#[test]
fn unknown_names_are_answered_with_the_nearest_one() {
    refused(Path::new("."), &["train", "digts"], &["no recipe `digts`", "did you mean `digits`?", "image-folder"]);
    refused(Path::new("."), &["train", "zzz"], &["no recipe `zzz`", "fashion-mnist-vit", ".toml"]);
    refused(Path::new("."), &["recipes", "demoo"], &["did you mean `demo`"]);
    refused_setting(&["train.epocs=3"], &["train.epocs: unknown field `epocs`", "did you mean `epochs`"]);
    refused_setting(&["train.optimizer.weight-decay=3"], &["train.optimizer", "did you mean `weight_decay`"]);
    refused_setting(&["model.dept=3"], &["model", "did you mean `depth`"]);
    refused_setting(&["model.kind=crates"], &["did you mean `crate`"]);
    refused_setting(&["data.set=digit"], &["data.set", "did you mean `digits`"]);
    refused_setting(&["data.train=[{op=\"random_corp\",size=8}]"], &["data.train[0]", "did you mean `random_crop`"]);
    refused_setting(&["train.checkpoint.best={metric=\"acuracy\",direction=\"max\"}"], &["did you mean `accuracy`"]);
    refused_setting(&["rain.epochs=3"], &["unknown field `rain`", "did you mean `train`"]);

    let folder = tempfile::tempdir().unwrap();
    let mine = folder.path().join("mine.toml");
    fs::write(&mine, said(Path::new("."), &["recipes", "digits"]).replace("eval_every", "evl_every")).unwrap();
    refused(
        folder.path(),
        &["train", "mine.toml"],
        &["recipe `mine.toml`", "`evl_every`", "did you mean `eval_every`"],
    );
    fs::write(&mine, "[model\nkind = 3").unwrap();
    refused(folder.path(), &["train", "mine.toml"], &["mine.toml", "not valid TOML"]);
    fs::write(&mine, [0xff, 0xfe]).unwrap();
    refused(folder.path(), &["train", "mine.toml"], &["mine.toml cannot be read"]);
    refused(folder.path(), &["train", "other.toml"], &["other.toml cannot be read", "No such file"]);
    refused(folder.path(), &["train"], &["which recipe?"]);
    fails(folder.path(), &["tran", "digits"], &["unrecognized subcommand 'tran'", "train"]);
}

#[test]
fn values_that_cannot_be_meant_are_refused_by_their_full_key() {
    refused_setting(&["data.batch_size=0"], &["data.batch_size = 0"]);
    refused_setting(&["data.batch_size=-3"], &["data.batch_size", "-3"]);
    refused_setting(&["data.eval_batch_size=0"], &["data.eval_batch_size = 0"]);
    refused_setting(&["train.epochs=0"], &["train.epochs = 0"]);
    refused_setting(&["train.epochs=1.5"], &["train.epochs", "1.5"]);
    refused_setting(&["train.max_steps=0"], &["train.max_steps = 0"]);
    refused_setting(&["train.log_every=0"], &["train.log_every = 0"]);
    refused_setting(&["train.optimizer.lr=-1"], &["train.optimizer.lr = -1"]);
    refused_setting(&["train.optimizer.lr=inf"], &["--set train.optimizer.lr=inf", "not a finite number"]);
    refused_setting(&["train.optimizer.lr=fast"], &["train.optimizer.lr", "\"fast\""]);
    refused_setting(&["train.schedule.warmup_epochs=101"], &["warm-up", "warmup_epochs"]);
    refused_setting(&["task.label_smoothing=1.5"], &["task.label_smoothing = 1.5"]);
    refused_setting(&["model.d=-16"], &["d = -16"]);
    refused_setting(&["model.d=1000000000000"], &["d = 1000000000000"]);
    refused_setting(&["model.heads=3"], &["d = 16 is not a multiple of heads = 3"]);
    refused_setting(&["model.eta=much"], &["model: eta", "\"much\""]);
    refused_setting(&["model.patch=[3,3]"], &["8x8", "3x3"]);
    refused_setting(&["model.d=65536", "model.depth=4096"], &["GiB", "model.d"]);
    refused_setting(&["data.std=[0.0]"], &["std = 0"]);
    refused_setting(&["data.channels=3"], &["3 channels"]);
    refused_setting(&["train.precision=float8"], &["train.precision", "bfloat16"]);
    refused_setting(&["model.image.width.of.it=8"], &["single value"]);
    refused_setting(&["a.b.c.d.e.f=8"], &["unknown field `a`"]);
    refused_setting(&["train..epochs=8"], &["empty part"]);
    refused_setting(&["train.epochs"], &["expected key=value"]);
    refused_setting(&["model.image=[16,16]"], &["1 channels and 8x8 pixels", "takes 1 and 16x16"]);
    refused_setting(&["model.channels=3"], &["takes 3 and 8x8"]);
    let dry = ["train", "digits", "--dry-run", "--set", "train.max_steps=2"];
    fails(Path::new("."), &dry, &["warm-up of 92 steps", "run of 2"]);
    fails(Path::new("."), &["train", "digits", "--device", "nonsense"], &["nonsense", "cuda:NUMBER"]);
    fails(Path::new("."), &["train", "digits", "--device", "cuda:99"], &["CUDA"]);
    if !tch::Cuda::is_available() {
        fails(Path::new("."), &["eval", "--device", "cuda"], &["no CUDA"]);
    }
}

#[test]
fn a_loss_that_is_no_number_ends_the_run_and_keeps_the_last_good_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let mut args: Vec<String> = ["train", "digits", "--out", "run"].map(String::from).into();
    args.extend(sets(&TINY));
    let values = ["train.optimizer.lr=1e17", "train.log_every=1", "train.checkpoint.every_steps=1"];
    args.extend(sets(&values));
    let words = ["not finite at step ", "(learning rate 9.99", "last good checkpoint is run/checkpoints/step-0000000"];
    let message = fails(folder.path(), &args, &words);
    let good = message.split("checkpoint is ").nth(1).unwrap().split(';').next().unwrap();
    said(folder.path(), &["eval", good]);

    let mut args: Vec<String> = ["train", "digits", "--out", "other"].map(String::from).into();
    args.extend(sets(&TINY));
    args.extend(sets(&["train.optimizer.lr=1e20"]));
    fails(folder.path(), &args, &["not finite at step 2", "no checkpoint had been written", "lower learning rate"]);
}

#[test]
fn run_folders_that_cannot_be_written_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    fs::write(path.join("file"), "mine").unwrap();
    for out in ["file", "file/run", "/dev/full", "/proc/run", "/proc"] {
        let mut args: Vec<String> = ["train", "digits", "--out", out].map(String::from).into();
        args.extend(sets(&TINY));
        args.extend(sets(&["train.max_steps=2"]));
        refused(path, &args, &[out, "cannot be"]);
    }
    // A folder where a file of the run should be: the run ends, and the folder stays.
    fs::create_dir_all(path.join("run/metrics.jsonl/mine")).unwrap();
    let mut args: Vec<String> = ["train", "digits", "--out", "run"].map(String::from).into();
    args.extend(sets(&TINY));
    fails(path, &args, &["metrics.jsonl"]);
    assert!(path.join("run/metrics.jsonl/mine").is_dir());
}

/// A limit on the size of files stands for a full disk: the write fails half way.
#[test]
fn a_full_disk_ends_the_run_and_the_run_can_go_on_later() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let mut train = format!("trap '' XFSZ; ulimit -f 12; exec {} train digits --out run", common::BINARY);
    for set in TINY.iter().chain(&["train.max_steps=4", "train.checkpoint.every_steps=2"]) {
        train += &format!(" --set {set}");
    }
    let output = std::process::Command::new("sh")
        .args(["-c", &train])
        .current_dir(path)
        .envs(common::ENVIRONMENT)
        .output()
        .unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains("error: writing run/checkpoints/") && message.contains("too large"), "{message}");
    assert!(!message.contains("panicked"), "{message}");
    assert!(!path.join("run/checkpoints/step-00000002").exists());
    whitebox(path).args(["train", "--resume", "run"]).assert().success();
    assert!(path.join("run/checkpoints/step-00000004/model.safetensors").is_file());
}

#[test]
fn checkpoints_that_are_none_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let put = |name: &str, bytes: &[u8]| fs::write(path.join(name), bytes).unwrap();
    let model = fs::read(trained().join("run/checkpoints/step-00000002/model.safetensors")).unwrap();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/golden/crate_micro.pth.tar");
    let official = fs::read(golden).unwrap();
    put("cut.safetensors", &model[..model.len() - 100]);
    put("head.safetensors", &model[..50]);
    put("cut.pth", &official[..official.len() / 2]);
    put("empty.pth", b"");
    put("text.pth", b"these are no weights, and there is nothing to see here");
    put("run.json", b"{}");
    let mut huge = u64::MAX.to_le_bytes().to_vec();
    huge.extend(b"{\"a\":1}");
    put("huge.safetensors", &huge);
    // A card that asks for a model of terabytes, and one that is no card.
    let card = |text: &str| {
        let metadata = std::collections::HashMap::from([("whitebox".to_owned(), text.to_owned())]);
        let header = serde_json::json!({ "__metadata__": metadata }).to_string();
        [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat()
    };
    let giant = r#"{"format":1,"model":{"kind":"crate","image":[8,8],"patch":[2,2],"channels":1,"classes":2,"d":65536,"depth":4096,"heads":2}}"#;
    put("giant.safetensors", &card(giant));
    put("card.safetensors", &card("{\"format\":\"x\"}"));
    // Pickles that call a command: nothing in them may run.
    let call = |module: &str, name: &str| {
        let command = format!("touch {}", path.join("owned").display());
        let mut pickle = format!("\u{80}\u{2}c{module}\n{name}\n(X").replace('\u{80}', "").into_bytes();
        pickle.insert(0, 0x80);
        pickle.extend((command.len() as u32).to_le_bytes());
        pickle.extend(command.as_bytes());
        pickle.extend(b"tR.");
        pickle
    };
    for (name, pickle) in [("os.pth", call("os", "system")), ("eval.pth", call("builtins", "eval"))] {
        let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
        let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
        for (entry, content) in [("m/data.pkl", &*pickle), ("m/byteorder", b"little"), ("m/version", b"3\n")] {
            zip.start_file(entry, options).unwrap();
            zip.write_all(content).unwrap();
        }
        put(name, &zip.finish().unwrap().into_inner());
        put(&format!("raw-{name}"), &pickle);
    }
    let names: Vec<_> =
        files(path).into_keys().map(|p| p.file_name().unwrap().to_string_lossy().into_owned()).collect();
    assert_eq!(names.len(), 13);
    for name in &names {
        refused(path, &["eval", name], &[name]);
        refused(path, &["convert", name, "out.safetensors", "--set", "model.heads=4"], &[name]);
    }
    assert!(!path.join("owned").exists());
    refused(path, &["convert", "giant.safetensors", "out.pth"], &["GiB"]);
    refused(path, &["eval", "."], &["neither a weight file nor a run folder"]);
    refused(path, &["eval", "nowhere"], &["nowhere", "no such file or run folder"]);
    let run = trained().join("run");
    let run = run.to_str().unwrap();
    refused(path, &["eval", run, "--set", "model.depth=2"], &["missing: transformer.layers.1"]);
    refused(path, &["eval", run, "--data", "nowhere"], &["--data nowhere: there is nothing there"]);
    fs::create_dir_all(path.join("photos/10")).unwrap();
    picture([9, 9, 200], 8, 8, 0).save(path.join("photos/10/x.png")).unwrap();
    refused(path, &["eval", run, "--data", "photos"], &["neither images by class", "10", "own files"]);
    refused(path, &["eval", run, "--recipe", "demo"], &["28x28", "takes 1 and 8x8"]);
}

#[test]
fn images_that_are_none_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let run = trained().join("run");
    let run = run.to_str().unwrap();
    let png = fs::read(trained().join("x.png")).unwrap();
    fs::write(path.join("cut.png"), &png[..png.len() / 2]).unwrap();
    fs::write(path.join("text.jpg"), "no image").unwrap();
    fs::write(path.join("empty.png"), "").unwrap();
    picture([9, 9, 200], 64, 64, 0).save(path.join("whole.jpg")).unwrap();
    let jpeg = fs::read(path.join("whole.jpg")).unwrap();
    fs::write(path.join("cut.jpg"), &jpeg[..jpeg.len() / 3]).unwrap();
    for name in ["cut.png", "text.jpg", "empty.png", "cut.jpg"] {
        refused(path, &["predict", name, "--checkpoint", run], &[name, "not a readable image"]);
    }
    refused(path, &["predict", "missing.png", "--checkpoint", run], &["missing.png cannot be read"]);
    refused(path, &["predict", ".", "--checkpoint", run], &["cannot be read"]);
    fails(path, &["predict"], &["<IMAGE>"]);

    // A name that is no UTF-8 is a name like any other.
    let odd = OsStr::from_bytes(b"\xff\xfe.jpg");
    fs::copy(path.join("whole.jpg"), path.join(odd)).unwrap();
    for more in [&["--json"][..], &[]] {
        whitebox(path).arg("predict").arg(odd).args(["--checkpoint", run]).args(more).assert().success();
    }
    let odd = OsStr::from_bytes(b"out\xff");
    let mut command = whitebox(path);
    command.args(["train", "digits"]).args(sets(&TINY)).args(sets(&["train.max_steps=2"])).arg("--out").arg(odd);
    command.assert().success();
    assert!(path.join(odd).join("report.html").is_file());
    whitebox(path).arg("eval").arg(odd).arg("--json").assert().success();
    fails(path, &[OsStr::new("train"), OsStr::from_bytes(b"\xff")], &[]);
}

/// An IDX file: magic, sizes, values.
fn idx(path: &Path, magic: u32, sizes: &[u32], values: &[u8]) {
    let header = std::iter::once(&magic).chain(sizes).flat_map(|n| n.to_be_bytes());
    fs::write(path, header.chain(values.iter().copied()).collect::<Vec<u8>>()).unwrap();
}

#[test]
fn idx_files_that_are_damaged_or_swapped_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let images = path.join("set/train-images-idx3-ubyte");
    let labels = path.join("set/train-labels-idx1-ubyte");
    let whole = || {
        let _ = fs::remove_dir_all(path.join("set"));
        fs::create_dir(path.join("set")).unwrap();
        for part in ["train", "t10k"] {
            let pixels: Vec<u8> = (0..20 * 784).map(|i| (i % 251) as u8).collect();
            idx(&path.join(format!("set/{part}-images-idx3-ubyte")), 0x803, &[20, 28, 28], &pixels);
            let labels: Vec<u8> = (0..20).map(|i| i % 10).collect();
            idx(&path.join(format!("set/{part}-labels-idx1-ubyte")), 0x801, &[20], &labels);
        }
    };
    let mut args: Vec<String> = ["train", "demo", "--set", "data.path=set"].map(String::from).into();
    args.extend(sets(&["data.set=fashion-mnist", "train.max_steps=1"]));
    args.extend(sets(&TINY));
    whole();
    whitebox(path).args(&args).args(["--out", "whole"]).assert().success();

    let pixels = fs::read(&images).unwrap();
    fs::write(&images, &pixels[..5000]).unwrap();
    refused(path, &args, &["train-images-idx3-ubyte", "damaged or only partly there"]);
    fs::write(&images, &pixels[..10]).unwrap();
    refused(path, &args, &["train-images-idx3-ubyte", "damaged or only partly there"]);
    fs::write(&images, [&pixels[..], b"more"].concat()).unwrap();
    refused(path, &args, &["train-images-idx3-ubyte"]);
    fs::write(&images, b"<html>not found</html>").unwrap();
    refused(path, &args, &["train-images-idx3-ubyte", "0x3c68746d"]);
    idx(&images, 0x803, &[u32::MAX, u32::MAX, u32::MAX], &[0; 100]);
    refused(path, &args, &["train-images-idx3-ubyte"]);
    idx(&images, 0x803, &[20, 14, 56], &pixels[16..]);
    refused(path, &args, &["14 x 56", "28 x 28"]);

    whole();
    fs::rename(&images, path.join("aside")).unwrap();
    fs::rename(&labels, &images).unwrap();
    fs::rename(path.join("aside"), &labels).unwrap();
    refused(path, &args, &["IDX file of labels", "swapped"]);

    whole();
    idx(&labels, 0x801, &[20], &[[3u8; 19].as_slice(), &[10]].concat());
    refused(path, &args, &["train-labels-idx1-ubyte", "sample 19 has label 10", "10 classes"]);
    idx(&labels, 0x801, &[19], &[3u8; 19]);
    refused(path, &args, &["20 images", "19 labels"]);
    fs::remove_file(&labels).unwrap();
    refused(path, &args, &["train-labels-idx1-ubyte", "cargo xtask data fashion-mnist"]);

    let missing = ["train", "demo", "--set", "data.set=mnist"];
    refused(path, &missing, &["mnist is not at", "cargo xtask data mnist", "data.path=DIR"]);
    refused(path, &[&missing[..3], &["data.path=nowhere"]].concat(), &["data.path = nowhere"]);
    fs::create_dir(path.join("void")).unwrap();
    refused(path, &[&missing[..], &["--set", "data.path=void"]].concat(), &["void", "cargo xtask data mnist"]);
}

#[test]
fn corrupt_images_of_ones_own_are_named_and_can_be_skipped() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    images_by_class(&path.join("mine"), 12);
    let mut values = vec!["data.path=mine", "train.max_steps=4", "train.eval_every=0"];
    values.extend(SMALL_IMAGES);
    let mut args: Vec<String> = ["train", "image-folder", "--out", "run"].map(String::from).into();
    args.extend(sets(&TINY));
    args.extend(sets(&values));

    picture([9, 9, 200], 64, 64, 0).save(path.join("mine/rose/broken.jpg")).unwrap();
    let jpeg = fs::read(path.join("mine/rose/broken.jpg")).unwrap();
    fs::write(path.join("mine/rose/broken.jpg"), &jpeg[..jpeg.len() / 3]).unwrap();
    fails(path, &args, &["rose/broken.jpg", "not a readable image", "data.skip_corrupt=true"]);

    fs::remove_dir_all(path.join("run")).unwrap();
    args.extend(sets(&["data.skip_corrupt=true"]));
    let output = whitebox(path).args(&args).assert().success().get_output().clone();
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.lines().any(|l| l.starts_with("images left out") && l.contains(" 1 ") && l.contains("broken.jpg")));
    let report = fs::read_to_string(path.join("run/report.html")).unwrap();
    assert!(report.contains("1 could not be decoded") && report.contains("broken.jpg"));

    fs::create_dir(path.join("mine/empty")).unwrap();
    refused(path, &["train", "image-folder", "--set", "data.path=mine"], &["empty", "no image"]);
    fs::remove_dir_all(path.join("mine")).unwrap();
    fs::create_dir(path.join("mine")).unwrap();
    refused(path, &["train", "image-folder", "--set", "data.path=mine"], &["no class folder"]);
    refused(path, &["train", "image-folder"], &["--set data.path=DIR"]);
    fs::create_dir_all(path.join("mine/train/a")).unwrap();
    picture([9, 9, 200], 8, 8, 0).save(path.join("mine/train/a/1.png")).unwrap();
    refused(path, &["train", "image-folder", "--set", "data.path=mine"], &["no val/", "data.hold_out=10"]);
}

#[cfg(not(feature = "experiments"))]
#[test]
fn a_program_without_a_lapack_says_so() {
    let folder = tempfile::tempdir().unwrap();
    refused(folder.path(), &["experiment", "snr"], &["needs OpenBLAS", "default features"]);
}
