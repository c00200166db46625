//! A run that is stopped anywhere and resumed ends in the same bits as one that is not.
//!
//! One test function holds all runs of a kind: libtorch's generator belongs to the process, so runs must not overlap.

mod common;

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard};

use common::{Data, Recorder, Regression, config};
use whitebox_train::{Error, Outcome, Rule, Sink, State, TrainConfig, run};

static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    tch::set_num_threads(1);
    ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Trains in `dir`, stopping after step `stop`; what was told is returned with the outcome.
fn go(
    task: &mut Regression,
    config: &TrainConfig,
    dir: &Path,
    resume: bool,
    stop: Option<u64>,
) -> (Result<Outcome, Error>, Vec<String>) {
    let flag = Arc::new(AtomicBool::new(false));
    let recorder = Recorder { stop: stop.map(|step| (step, flag.clone())), ..Recorder::default() };
    let told = recorder.told.clone();
    let mut sinks: Vec<Box<dyn Sink>> = vec![Box::new(recorder)];
    let outcome = run(task, &Data::default(), config, dir, resume, &mut sinks, &flag);
    drop(sinks);
    (outcome, told.take())
}

fn temp() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn stopped_at_any_step_and_resumed_is_the_same_run() {
    let _alone = alone();
    for rule in [Rule::AdamW, Rule::Lion] {
        let mut config = config();
        config.optimizer.rule = rule;
        let (whole_dir, mut whole) = (temp(), Regression::default());
        let before = whole.bits();
        let expected = go(&mut whole, &config, whole_dir.path(), false, None).0.unwrap();
        assert_ne!(before, whole.bits());
        let Outcome::Finished { step: 12, best: Some(best), metrics, .. } = &expected else { panic!("{expected:?}") };

        for stop in 1..=12 {
            let dir = temp();
            let (outcome, _) = go(&mut Regression::default(), &config, dir.path(), false, Some(stop));
            let Outcome::Interrupted { step, checkpoint } = outcome.unwrap() else {
                panic!("not interrupted at {stop}")
            };
            assert_eq!((step, State::read(&checkpoint).unwrap().step), (stop, stop));

            tch::manual_seed(999); // a new process starts elsewhere
            let mut second = Regression::default();
            let (outcome, told) = go(&mut second, &config, dir.path(), true, None);
            assert_eq!(told.first().unwrap(), &format!("start {stop}"));
            assert_eq!(second.bits(), whole.bits(), "stopped after step {stop}");
            let Outcome::Finished { best: best2, metrics: metrics2, .. } = outcome.unwrap() else { panic!() };
            assert_eq!((best2.as_ref(), &metrics2), (Some(best), metrics));
        }
        // A seed that is not restored shows: the comparison above can fail.
        let mut other = Regression::default();
        let config = TrainConfig { seed: 12, ..config };
        go(&mut other, &config, temp().path(), false, None).0.unwrap();
        assert_ne!(other.bits(), whole.bits());
    }
}

/// The weights lie beside their averages, which are the model, and the count of evaluations without improvement beside the best.
#[test]
fn averages_and_patience_survive_a_resume() {
    let _alone = alone();
    let config = TrainConfig {
        ema: Some(serde_json::from_str(r#"{"decay": 0.9}"#).unwrap()),
        early_stop: Some(serde_json::from_str(r#"{"patience": 2}"#).unwrap()),
        ..config()
    };
    let (whole_dir, mut whole) = (temp(), Regression::default());
    let expected = go(&mut whole, &config, whole_dir.path(), false, None).0.unwrap();
    for stop in [1, 3, 7, 12] {
        let dir = temp();
        go(&mut Regression::default(), &config, dir.path(), false, Some(stop)).0.unwrap();
        tch::manual_seed(999);
        let mut second = Regression::default();
        let outcome = go(&mut second, &config, dir.path(), true, None).0.unwrap();
        assert_eq!(second.bits(), whole.bits(), "stopped after step {stop}");
        let (Outcome::Finished { step: a, .. }, Outcome::Finished { step: b, .. }) = (&outcome, &expected) else {
            panic!("{outcome:?}")
        };
        assert_eq!(a, b);
    }
}

#[test]
fn a_finished_run_resumes_to_its_own_end() {
    let _alone = alone();
    let (dir, config) = (temp(), config());
    let first = go(&mut Regression::default(), &config, dir.path(), false, None).0.unwrap();
    let mut task = Regression::default();
    let (second, told) = go(&mut task, &config, dir.path(), true, None);
    assert_eq!(second.unwrap(), first);
    assert_eq!(told, ["start 12", "end 12"]);
}

#[test]
fn a_damaged_checkpoint_is_passed_over_and_made_again() {
    let _alone = alone();
    let config = TrainConfig { checkpoint: serde_json::from_str(r#"{"keep_last": 9}"#).unwrap(), ..config() };
    let (whole_dir, mut whole) = (temp(), Regression::default());
    go(&mut whole, &config, whole_dir.path(), false, None).0.unwrap();

    type Damage = fn(&Path);
    let damages: [Damage; 5] = [
        |folder| std::fs::write(folder.join("state.json"), "{").unwrap(),
        |folder| std::fs::remove_file(folder.join("state.json")).unwrap(),
        |folder| std::fs::remove_file(folder.join("optimizer.safetensors")).unwrap(),
        |folder| {
            let path = folder.join("model.safetensors");
            let content = std::fs::read(&path).unwrap();
            std::fs::write(path, &content[..content.len() / 2]).unwrap();
        },
        |folder| {
            let path = folder.join("model.safetensors");
            let mut content = std::fs::read(&path).unwrap();
            *content.last_mut().unwrap() ^= 1;
            std::fs::write(path, content).unwrap();
        },
    ];
    for damage in damages {
        let dir = temp();
        go(&mut Regression::default(), &config, dir.path(), false, Some(8)).0.unwrap();
        let checkpoints = dir.path().join("checkpoints");
        damage(&checkpoints.join("step-00000008"));
        let mut task = Regression::default();
        let (outcome, told) = go(&mut task, &config, dir.path(), true, None);
        outcome.unwrap();
        assert_eq!(told[0], "start 6");
        assert!(told[1].contains("step-00000008") && told[1].contains("going back"), "{}", told[1]);
        assert_eq!(task.bits(), whole.bits());

        // With none whole there is nothing to go on from, and nothing is overwritten.
        for step in [3, 6, 9, 12] {
            damage(&checkpoints.join(format!("step-{step:08}")));
        }
        std::fs::remove_dir_all(checkpoints.join("step-00000008")).unwrap();
        let message = go(&mut task, &config, dir.path(), true, None).0.unwrap_err().to_string();
        assert!(message.contains("none of the checkpoints is whole"), "{message}");
        assert_eq!(std::fs::read_dir(&checkpoints).unwrap().flatten().filter(|e| e.path().is_dir()).count(), 4);
    }
}

#[test]
fn other_settings_and_used_folders_are_refused() {
    let _alone = alone();
    let (dir, config) = (temp(), config());
    go(&mut Regression::default(), &config, dir.path(), false, Some(5)).0.unwrap();

    let message = go(&mut Regression::default(), &config, dir.path(), false, None).0.unwrap_err().to_string();
    assert!(message.contains("already holds checkpoints up to step 5"), "{message}");

    let mut other = config.clone();
    other.optimizer.lr = 0.02;
    other.epochs = 9;
    let message = go(&mut Regression::default(), &other, dir.path(), true, None).0.unwrap_err().to_string();
    assert!(message.contains("epochs: 4 before, 9 now, optimizer.lr: 0.01 before, 0.02 now"), "{message}");
}

#[test]
fn other_threads_are_told() {
    let _alone = alone();
    let (dir, config) = (temp(), config());
    go(&mut Regression::default(), &config, dir.path(), false, Some(5)).0.unwrap();
    tch::set_num_threads(2);
    let (outcome, told) = go(&mut Regression::default(), &config, dir.path(), true, None);
    tch::set_num_threads(1);
    outcome.unwrap();
    assert!(told[1].contains("had 1 threads so far and has 2 now"), "{}", told[1]);
}

#[test]
fn a_resume_with_nothing_to_resume_starts_at_the_beginning() {
    let _alone = alone();
    let (dir, config) = (temp(), config());
    let (mut fresh, mut resumed) = (Regression::default(), Regression::default());
    go(&mut fresh, &config, temp().path(), false, None).0.unwrap();
    let (outcome, told) = go(&mut resumed, &config, dir.path(), true, None);
    outcome.unwrap();
    assert!(told[1].contains("starting from the beginning"), "{}", told[1]);
    assert_eq!(fresh.bits(), resumed.bits());
}
