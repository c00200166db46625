//! A run that was killed or stopped, at whatever moment, and resumed ends in the same bits as one left alone.

mod common;

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use common::{BINARY, ENVIRONMENT, TINY, files, records, refused, sets, train, whitebox};
use serde_json::Value;

/// Enough steps and checkpoints that a kill meets every kind of moment.
const STEPS: u64 = 60;
const LONG: [&str; 3] = ["train.max_steps=60", "train.log_every=1", "train.checkpoint.every_steps=2"];

fn spawn(folder: &Path, args: &[String]) -> Child {
    let mut command = Command::new(BINARY);
    command.current_dir(folder).envs(ENVIRONMENT).env_remove("WHITEBOX_INVOKED_AS").args(args);
    command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

fn fresh() -> Vec<String> {
    let mut args: Vec<String> = ["train", "digits", "--out", "run"].map(String::from).into();
    args.extend(sets(&TINY));
    args.extend(sets(&LONG));
    args
}

fn resume() -> Vec<String> {
    ["train", "--resume", "run"].map(String::from).into()
}

/// Waits until the run's log holds so many lines (0: until the run is known), or the process has ended.
fn wait_for(child: &mut Child, run: &Path, lines: usize) {
    let there = || match lines {
        0 => run.join("config.toml").exists(),
        _ => fs::read_to_string(run.join("metrics.jsonl")).is_ok_and(|text| text.lines().count() >= lines),
    };
    while !there() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn finish(child: Child) -> (ExitStatus, String) {
    let output = child.wait_with_output().unwrap();
    (output.status, String::from_utf8(output.stderr).unwrap())
}

/// The bytes of the last model and optimiser, and each step's loss.
fn outcome(run: &Path) -> (Vec<u8>, Vec<u8>, Vec<(u64, Value)>) {
    let read = |name: &str| fs::read(run.join("checkpoints/step-00000060").join(name)).unwrap();
    let steps = records(run, "step").into_iter().map(|r| (r["step"].as_u64().unwrap(), r["loss"].clone()));
    (read("model.safetensors"), read("optimizer.safetensors"), steps.collect())
}

fn uninterrupted(folder: &Path) -> (Vec<u8>, Vec<u8>, Vec<(u64, Value)>) {
    train(folder, "digits", "run", &LONG);
    let outcome = outcome(&folder.join("run"));
    assert_eq!(outcome.2.iter().map(|s| s.0).collect::<Vec<_>>(), (1..=STEPS).collect::<Vec<_>>());
    outcome
}

#[test]
fn killed_again_and_again_it_ends_in_the_same_bits() {
    let (whole, broken) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let expected = uninterrupted(whole.path());
    let run = broken.path().join("run");
    let mut killed = 0;
    for (attempt, lines) in [0, 1, 14, 33, 52].into_iter().enumerate() {
        let mut child = spawn(broken.path(), &if attempt == 0 { fresh() } else { resume() });
        wait_for(&mut child, &run, lines);
        child.kill().unwrap();
        killed += i32::from(finish(child).0.signal() == Some(9));
    }
    assert!(killed >= 3, "the runs ended before they were killed");
    let (status, message) = finish(spawn(broken.path(), &resume()));
    assert!(status.success(), "{message}");
    assert!(outcome(&run) == expected, "another outcome; {message}");
}

#[test]
fn an_interrupted_run_says_how_to_go_on_and_ends_in_the_same_bits() {
    let (whole, broken) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let expected = uninterrupted(whole.path());
    let run = broken.path().join("run");
    let mut child = spawn(broken.path(), &fresh());
    wait_for(&mut child, &run, 4);
    let kill = format!("kill -INT {}", child.id());
    assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    let (status, message) = finish(child);
    assert_eq!(status.code(), Some(130), "{message}");
    assert!(message.contains("stopped after step") && message.contains("whitebox train --resume run"), "{message}");
    let (status, message) = finish(spawn(broken.path(), &resume()));
    assert!(status.success() && message.contains("going on after step"), "{message}");
    assert!(outcome(&run) == expected, "another outcome; {message}");
}

#[test]
fn a_resume_is_of_the_same_recipe_and_of_a_run_that_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let short = ["train.max_steps=2"];
    train(path, "digits", "runs/digits-20200101-000000", &short);
    let mut same: Vec<String> = ["train", "digits"].map(String::from).into();
    same.extend(sets(&TINY));
    same.extend(sets(&short));
    whitebox(path).args(&same).assert().success();

    // Without a folder it is the newest one, and a finished run is no error.
    let mut newest = same.clone();
    newest.push("--resume".into());
    let message = common::stderr(whitebox(path).args(&newest).assert().success());
    assert!(message.contains("this run is finished (2 steps)"), "{message}");
    assert!(message.contains("run folder: runs/digits-2") && !message.contains("20200101"), "{message}");

    let old = "runs/digits-20200101-000000";
    let mut other = newest.clone();
    other.push(old.into());
    other.extend(sets(&["train.optimizer.lr=0.5", "model.eta=0.3"]));
    let words = ["train.optimizer.lr: 0.002 before, 0.5 now", "model.eta", "whitebox train --resume runs/digits-2020"];
    refused(path, &other, &words);
    refused(path, &["train", "--resume", old, "--set", "train.epochs=31"], &["train.epochs: 100 before, 31 now"]);
    refused(path, &["train", "--resume", "nowhere"], &["nowhere holds no run"]);
    refused(path, &["train", "--resume"], &["--resume DIR"]);
    refused(path, &["train", "demo", "--resume"], &["no run of `demo` under runs/", "--resume DIR"]);
    refused(path, &["train", "--resume", old, "--out", "x"], &["leave out --out"]);

    // A new run is never written over an old one.
    let mut over = same.clone();
    over.extend(["--out".into(), old.into()]);
    refused(path, &over, &[old, "already holds a run", "--resume"]);
    fs::remove_file(path.join(old).join("config.toml")).unwrap();
    refused(path, &over, &["already holds a run"]);
}

#[test]
fn damaged_checkpoints_are_passed_over_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    train(path, "digits", "run", &["train.max_steps=9", "train.checkpoint.every_steps=3", "train.log_every=1"]);
    let model = |step: u64| path.join(format!("run/checkpoints/step-{step:08}/model.safetensors"));
    let expected = fs::read(model(9)).unwrap();
    fs::write(model(9), &expected[..expected.len() / 2]).unwrap();
    let assert = whitebox(path).args(["train", "--resume", "run"]).assert().success();
    let message = common::stderr(assert);
    assert!(message.contains("warning: ") && message.contains("going on after step 6"), "{message}");
    assert!(fs::read(model(9)).unwrap() == expected);

    for step in [6, 9] {
        fs::write(model(step), b"").unwrap();
    }
    let before = files(&path.join("run/checkpoints"));
    common::fails(path, &["train", "--resume", "run"], &["none of the checkpoints is whole"]);
    assert!(before == files(&path.join("run/checkpoints")));
}
