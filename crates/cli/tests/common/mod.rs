//! The binary, run in folders of its own with tiny models, and what its runs leave behind.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use image::{Rgb, RgbImage};
use serde_json::Value;

/// A CRATE of about 1,500 parameters.
pub const TINY: [&str; 5] =
    ["model.d=16", "model.depth=1", "model.heads=2", "train.schedule.warmup_epochs=0", "report.linear_baseline=false"];

pub const BINARY: &str = env!("CARGO_BIN_EXE_whitebox");

/// The variables under which every run here is made: one thread, no set outside the clone; texts are packed there.
pub const ENVIRONMENT: [(&str, &str); 2] =
    [("OMP_NUM_THREADS", "1"), ("WHITEBOX_DATA", concat!(env!("CARGO_TARGET_TMPDIR"), "/no-sets"))];

/// The binary in a folder.
pub fn whitebox(folder: &Path) -> Command {
    let mut command = Command::new(BINARY);
    command.current_dir(folder).envs(ENVIRONMENT).env_remove("WHITEBOX_INVOKED_AS");
    command
}

/// `--set a --set b` ...
pub fn sets(values: &[&str]) -> Vec<String> {
    values.iter().flat_map(|value| ["--set".to_owned(), (*value).to_owned()]).collect()
}

/// A tiny model trained in `folder/out`; gives what was said on stderr.
#[track_caller]
pub fn train(folder: &Path, recipe: &str, out: &str, values: &[&str]) -> String {
    let mut command = whitebox(folder);
    command.args(["train", recipe, "--out", out]).args(sets(&TINY)).args(sets(values));
    stderr(command.assert().success())
}

/// What a command wrote on stdout, which must have succeeded.
#[track_caller]
pub fn said(folder: &Path, args: &[&str]) -> String {
    let output = whitebox(folder).args(args).assert().success().get_output().clone();
    String::from_utf8(output.stdout).unwrap()
}

pub fn stderr(assert: assert_cmd::assert::Assert) -> String {
    String::from_utf8(assert.get_output().stderr.clone()).unwrap()
}

/// A command must fail with one sentence that holds all these words, and leave every file as it was.
#[track_caller]
pub fn refused(folder: &Path, args: &[impl AsRef<std::ffi::OsStr>], words: &[&str]) -> String {
    let before = files(folder);
    let message = fails(folder, args, words);
    assert!(before == files(folder), "files were written or changed; {message}");
    message
}

/// A command must fail with one sentence that holds all these words.
#[track_caller]
pub fn fails(folder: &Path, args: &[impl AsRef<std::ffi::OsStr>], words: &[&str]) -> String {
    let message = stderr(whitebox(folder).args(args).assert().failure());
    assert!(!message.contains("panicked"), "{message}");
    let errors: Vec<_> = message.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(errors.len(), 1, "one error is expected: {message}");
    for word in words {
        assert!(message.contains(word), "{word:?} is missing in: {message}");
    }
    message
}

/// Every file under a folder with its content.
pub fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
            found.insert(path, Vec::new());
        } else {
            found.insert(path.clone(), fs::read(path).unwrap());
        }
    }
    found
}

/// The records of a run of one kind.
pub fn records(run: &Path, event: &str) -> Vec<Value> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| line["event"] == event).collect()
}

/// An image of one colour with a slight pattern.
pub fn picture(colour: [u8; 3], width: u32, height: u32, salt: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let shade = ((x * 7 + y * 13 + salt * 29) % 32) as u8;
        Rgb(colour.map(|c| c.saturating_sub(shade)))
    })
}

pub const COLOURS: [(&str, [u8; 3]); 3] = [("leaf", [40, 220, 40]), ("rose", [220, 40, 40]), ("sea", [40, 40, 220])];

/// `folder/CLASS/N.png` for each colour, of sizes that differ.
pub fn images_by_class(folder: &Path, each: u32) {
    for (class, colour) in COLOURS {
        fs::create_dir_all(folder.join(class)).unwrap();
        for i in 0..each {
            picture(colour, 20 + i, 26 - i % 5, i).save(folder.join(class).join(format!("{i}.png"))).unwrap();
        }
    }
}

/// Settings for `image-folder` with images of 16x16.
pub const SMALL_IMAGES: [&str; 5] = [
    "model.image=[16,16]",
    "data.train=[{op=\"resize\",size=[16,16]}]",
    "data.eval=[{op=\"resize\",size=[16,16]}]",
    "data.batch_size=12",
    "train.optimizer.lr=1e-2",
];
