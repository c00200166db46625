//! A run that is killed, again and again, at whatever it is doing, and resumed each time ends in the same bits as one left alone.
//!
//! This binary starts itself as the process to be killed, so it brings its own `main`.

mod common;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use common::{Data, Regression, config};
use whitebox_train::{Jsonl, Outcome, Sink, State, TrainConfig, run};

const CHILD: &str = "WHITEBOX_TRAIN_KILL_DIR";
const ABORT_AT: &str = "WHITEBOX_TRAIN_KILL_ABORT_AT";

fn main() {
    match std::env::var(CHILD) {
        Ok(dir) => child(Path::new(&dir)),
        Err(_) => {
            let whole = tempfile::tempdir().unwrap();
            spawn(whole.path(), None).wait().unwrap();
            let expected = final_state(whole.path());
            killed_at_any_moment(&expected);
            killed_while_saving(&expected);
        }
    }
}

/// 60 steps with a checkpoint after every second one, so that a kill at random often meets one being written.
fn settings() -> TrainConfig {
    let mut config = TrainConfig { epochs: 20, ..config() };
    config.checkpoint.every_steps = Some(2);
    config
}

fn child(dir: &Path) {
    tch::set_num_threads(1);
    let mut task = Regression::default();
    let abort_at = std::env::var(ABORT_AT).ok().map(|step| format!(".half-{step}"));
    task.on_save = Box::new(move |path| {
        let folder = path.parent().and_then(Path::file_name).unwrap_or_default();
        if abort_at.as_deref().is_some_and(|at| folder == at) {
            // Half a file, and gone: no destructor runs.
            std::fs::OpenOptions::new().write(true).open(path)?.set_len(100)?;
            std::process::abort();
        }
        std::thread::sleep(Duration::from_millis(2)); // long enough to be hit
        Ok(())
    });
    let mut sinks: Vec<Box<dyn Sink>> = vec![Box::new(Jsonl::new(dir.join("metrics.jsonl")))];
    let outcome = run(&mut task, &Data::default(), &settings(), dir, true, &mut sinks, &AtomicBool::new(false));
    assert!(matches!(outcome, Ok(Outcome::Finished { step: 60, .. })), "{outcome:?}");
}

fn spawn(dir: &Path, abort_at: Option<u64>) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.env(CHILD, dir).stdout(Stdio::null());
    if let Some(step) = abort_at {
        command.env(ABORT_AT, step.to_string());
    }
    command.spawn().unwrap()
}

/// The bytes of the last model and optimiser (moments and random state), and the loss lines without their clocks.
fn final_state(dir: &Path) -> (Vec<u8>, Vec<u8>, Vec<(u64, String)>) {
    let folder = dir.join("checkpoints/step-00000060");
    assert!(State::read(&folder).unwrap().finished);
    let text = std::fs::read_to_string(dir.join("metrics.jsonl")).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let evaluations = lines
        .filter(|line| line["event"] == "eval")
        .map(|line| (line["step"].as_u64().unwrap(), line["metrics"].to_string()))
        .collect();
    let read = |name: &str| std::fs::read(folder.join(name)).unwrap();
    (read("model.safetensors"), read("optimizer.safetensors"), evaluations)
}

fn killed_at_any_moment(expected: &(Vec<u8>, Vec<u8>, Vec<(u64, String)>)) {
    let dir = tempfile::tempdir().unwrap();
    let newest = || {
        let entries = std::fs::read_dir(dir.path().join("checkpoints")).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name()).filter(|name| name.to_string_lossy().starts_with("step-")).max()
    };
    let mut kills = 0;
    // Delays that no rhythm of the run follows. A kill counts from the first new checkpoint, so that each life gets somewhere.
    for delay in [0u64, 7, 3, 11, 1, 17, 5, 23] {
        let before = newest();
        let mut process = spawn(dir.path(), None);
        while newest() <= before && process.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_micros(300));
        }
        std::thread::sleep(Duration::from_millis(delay));
        process.kill().unwrap(); // SIGKILL
        let status = process.wait().unwrap();
        kills += usize::from(!status.success());
    }
    assert!(kills >= 3, "only {kills} kills met a running process");
    assert!(spawn(dir.path(), None).wait().unwrap().success());
    assert!(final_state(dir.path()) == *expected, "{kills} kills changed the run");
}

fn killed_while_saving(expected: &(Vec<u8>, Vec<u8>, Vec<(u64, String)>)) {
    let dir = tempfile::tempdir().unwrap();
    for step in [2, 9, 24] {
        assert!(!spawn(dir.path(), Some(step)).wait().unwrap().success());
        let half = dir.path().join(format!("checkpoints/.half-{step}"));
        assert!(half.is_dir(), "the process was to die with {} half written", half.display());
    }
    assert!(spawn(dir.path(), None).wait().unwrap().success());
    assert!(final_state(dir.path()) == *expected, "dying while saving changed the run");
}
