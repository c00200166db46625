//! The loop's promises: accumulation, losses that are not numbers, what is kept, precision, and a file system that refuses.

mod common;

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use common::{Data, Recorder, Regression, config};
use tch::{Kind, Tensor};
use whitebox_train::{
    BoxError, EmaConfig, Error, Jsonl, Outcome, Precision, Shape, Sink, Source, State, Task, TensorBoard, TrainConfig,
    run,
};

fn temp() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn quiet(task: &mut Regression, data: &Data, config: &TrainConfig, dir: &Path) -> Result<Outcome, Error> {
    run(task, data, config, dir, false, &mut [], &AtomicBool::new(false))
}

/// A deterministic task: no dropout, so that runs in parallel tests cannot disturb each other.
fn plain() -> Regression {
    Regression { dropout: 0.0, ..Regression::default() }
}

fn folders(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir.join("checkpoints")).unwrap().flatten();
    let mut names: Vec<_> = entries.map(|e| e.file_name().into_string().unwrap()).filter(|n| n != ".lock").collect();
    names.sort();
    names
}

#[test]
fn accumulated_batches_are_one_large_batch() {
    // 5 batches of 8, 8, 8, 8 and 3 in groups of two; the same numbers as batches of 16, 16 and 3.
    struct Large(Data);
    impl Source for Large {
        type Batch = Vec<f32>;
        fn batch_size(&self) -> u64 {
            16
        }
        fn batches_per_epoch(&self) -> u64 {
            self.0.batches.div_ceil(2)
        }
        fn epoch(&self, epoch: u64, start: u64) -> Box<dyn Iterator<Item = Result<Vec<f32>, BoxError>> + Send + '_> {
            let small: Vec<Vec<f32>> = self.0.epoch(epoch, start * 2).map(Result::unwrap).collect();
            Box::new(small.chunks(2).map(|pair| Ok(pair.concat())).collect::<Vec<_>>().into_iter())
        }
    }
    let config = config();
    let (mut small, mut large) = (plain(), plain());
    quiet(&mut small, &Data::default(), &config, temp().path()).unwrap();
    let single = TrainConfig { accumulate: 1, ..config };
    run(&mut large, &Large(Data::default()), &single, temp().path(), false, &mut [], &AtomicBool::new(false)).unwrap();
    for ((name, a), (_, b)) in small.variables.iter().zip(&large.variables) {
        let difference = f64::try_from((a - b).abs().max()).unwrap();
        assert!(difference < 1e-5, "{name} differs by {difference}");
    }
}

/// What is evaluated, saved and handed back is the average over the steps.
#[test]
fn averaged_weights_are_the_model() {
    let mut config: TrainConfig = serde_json::from_str(r#"{"epochs": 2, "optimizer": {"lr": 0.1}}"#).unwrap();
    config.schedule.shape = Shape::Constant;
    let mut averaged = plain();
    // Weights after each step, by runs of one step more each; then the average by its formula.
    let mut expected: Vec<Tensor> = plain().variables.iter().map(|(_, v)| v.detach().copy()).collect();
    for step in 1..=10u64 {
        let mut task = plain();
        let shorter = TrainConfig { max_steps: Some(step), ..config.clone() };
        quiet(&mut task, &Data::default(), &shorter, temp().path()).unwrap();
        let decay = 0.9f64.min((1.0 + step as f64) / (10.0 + step as f64));
        for (average, (_, weight)) in expected.iter_mut().zip(&task.variables) {
            *average = &*average * decay + weight.detach() * (1.0 - decay);
        }
    }
    config.ema = Some(EmaConfig { decay: 0.9 });
    let dir = temp();
    quiet(&mut averaged, &Data::default(), &config, dir.path()).unwrap();
    for (average, (name, weight)) in expected.iter().zip(&averaged.variables) {
        let difference = f64::try_from((average - weight).abs().max()).unwrap();
        assert!(difference < 1e-6, "{name} differs by {difference}");
    }
    let mut read = plain();
    read.load_model(&dir.path().join("checkpoints/step-00000010/model.safetensors")).unwrap();
    for ((name, a), (_, b)) in read.variables.iter().zip(&averaged.variables) {
        assert_eq!(a, b, "{name}");
    }
}

#[test]
fn a_run_that_no_longer_improves_stops_early() {
    let config: TrainConfig = serde_json::from_str(
        r#"{"epochs": 9, "early_stop": {"patience": 2}, "checkpoint": {"best": {"metric": "loss", "direction": "min"}}}"#,
    )
    .unwrap();
    let mut task = plain();
    task.measures = RefCell::new(vec![3.0, 2.0, 2.5, 2.0, 1.0]);
    let outcome = quiet(&mut task, &Data::default(), &config, temp().path()).unwrap();
    let Outcome::Finished { step, best: Some(best), .. } = outcome else { panic!("{outcome:?}") };
    assert_eq!((step, best.step), (20, 10), "after four of nine epochs");
}

#[test]
fn a_rate_that_is_meant_for_a_batch_scales() {
    let config: TrainConfig =
        serde_json::from_str(r#"{"accumulate": 4, "optimizer": {"lr": 0.1, "lr_for_batch": 256}}"#).unwrap();
    assert!((config.course(8, 128).unwrap().lr(0) - 0.2).abs() < 1e-12);
}

#[test]
fn a_nan_loss_stops_with_step_rate_and_last_good_checkpoint() {
    let config: TrainConfig = serde_json::from_str(
        r#"{"epochs": 3, "log_every": 100, "optimizer": {"lr": 0.25}, "schedule": {"shape": "constant"}}"#,
    )
    .unwrap();
    let dir = temp();
    // Call 8 is the third step of the second epoch; the log interval alone would never look.
    let mut task = Regression { nan_at: Some(8), ..plain() };
    let error = quiet(&mut task, &Data::default(), &config, dir.path()).unwrap_err();
    let message = error.to_string();
    assert!(matches!(error, Error::NonFinite { step: 8, .. }), "{message}");
    for part in ["the loss (NaN)", "step 8", "learning rate 2.5e-1", "step-00000005"] {
        assert!(message.contains(part), "{part} is missing in: {message}");
    }
    assert_eq!(folders(dir.path()), ["step-00000005"]);
    let good = State::read(&dir.path().join("checkpoints/step-00000005")).unwrap();
    assert_eq!((good.step, good.epoch, good.finished), (5, 1, false));

    let dir = temp();
    let mut task = Regression { nan_at: Some(1), ..plain() };
    let message = quiet(&mut task, &Data::default(), &config, dir.path()).unwrap_err().to_string();
    assert!(message.contains("no checkpoint had been written"), "{message}");
    assert!(folders(dir.path()).is_empty());
}

#[test]
fn broken_parameters_are_never_saved() {
    let config: TrainConfig = serde_json::from_str(r#"{"epochs": 1, "max_steps": 1}"#).unwrap();
    let mut task = plain();
    // No gradient reaches this one, so neither loss nor gradient shows that it is broken.
    task.variables.push(("unused".into(), tch::Tensor::from_slice(&[f32::NAN]).set_requires_grad(true)));
    let dir = temp();
    let message = quiet(&mut task, &Data::default(), &config, dir.path()).unwrap_err().to_string();
    assert!(message.contains("the norm of the parameters (NaN)"), "{message}");
    assert!(folders(dir.path()).is_empty());
}

#[test]
fn the_last_ones_and_the_best_stay() {
    let dir = temp();
    let config = TrainConfig { epochs: 5, ..config() };
    let task = &mut plain();
    *task.measures.borrow_mut() = vec![3.0, 1.0, f64::NAN, 2.0, 1.5];
    let recorder = Recorder::default();
    let told = recorder.told.clone();
    let mut sinks: Vec<Box<dyn Sink>> = vec![Box::new(recorder)];
    let outcome = run(task, &Data::default(), &config, dir.path(), false, &mut sinks, &AtomicBool::new(false)).unwrap();
    let Outcome::Finished { best: Some(best), step: 15, .. } = outcome else { panic!("{outcome:?}") };
    assert_eq!((best.step, best.value, best.metric.as_str()), (6, 1.0, "loss"));
    assert_eq!(folders(dir.path()), ["best", "step-00000006", "step-00000012", "step-00000015"]);
    assert_eq!(State::read(&dir.path().join("checkpoints/best")).unwrap().step, 6);
    let expected = ["start 0", "step 2", "step 3", "eval 3 best", "checkpoint 3", "step 4", "step 6", "eval 6 best"];
    assert_eq!(told.borrow()[..8], expected);

    let mut other = config.clone();
    other.checkpoint.best.as_mut().unwrap().metric = "f1".into();
    let message = quiet(&mut plain(), &Data::default(), &other, temp().path()).unwrap_err().to_string();
    assert!(message.contains(r#""f1""#) && message.contains(r#"["loss", "true_loss"]"#), "{message}");
}

#[test]
fn step_checkpoints_and_max_steps() {
    let dir = temp();
    let config: TrainConfig = serde_json::from_str(
        r#"{"epochs": 9, "max_steps": 13, "checkpoint": {"every_steps": 4, "every_epochs": null, "keep_last": 3}}"#,
    )
    .unwrap();
    let outcome = quiet(&mut plain(), &Data::default(), &config, dir.path()).unwrap();
    assert!(matches!(outcome, Outcome::Finished { step: 13, .. }));
    assert_eq!(folders(dir.path()), ["step-00000008", "step-00000012", "step-00000013"]);
    let state = State::read(&dir.path().join("checkpoints/step-00000008")).unwrap();
    assert_eq!((state.epoch, state.batch, state.samples), (1, 3, 35 + 24));
}

#[test]
fn bfloat16_trains_float32_parameters_to_nearly_the_same_loss() {
    let losses = |precision: Precision| {
        let config = TrainConfig { precision, epochs: 30, ..config() };
        let (mut task, recorder) = (plain(), Recorder::default());
        let (kinds, losses) = (task.kinds.clone(), recorder.losses.clone());
        let mut sinks: Vec<Box<dyn Sink>> = vec![Box::new(recorder)];
        run(&mut task, &Data::default(), &config, temp().path(), false, &mut sinks, &AtomicBool::new(false)).unwrap();
        assert!(task.variables.iter().all(|(_, v)| v.kind() == Kind::Float));
        let during = kinds.get();
        whitebox_train::Task::evaluate(&mut task, &mut |_, _| {}).unwrap();
        assert_eq!(kinds.get(), Some(Kind::Float), "autocast ends with the run");
        (during, losses.take())
    };
    let (kind, full) = losses(Precision::Float32);
    assert_eq!(kind, Some(Kind::Float));
    let (kind, half) = losses(Precision::BFloat16);
    assert_eq!(kind, Some(Kind::BFloat16));
    assert_ne!(full, half);
    for ((step, a), (_, b)) in full.iter().zip(&half) {
        assert!((a - b).abs() < 0.05 * a, "step {step}: {a} in float32, {b} in bfloat16");
    }
    assert!(full.last().unwrap().1 < 0.5 * full[0].1, "{full:?}");
}

#[test]
fn empty_batches_and_short_epochs_are_passed_over() {
    let config = config();
    // Every batch is empty but the last: 3 steps an epoch, of which one moves.
    let dir = temp();
    let outcome = quiet(&mut plain(), &Data { batches: 5, size: 0, last: 3 }, &config, dir.path()).unwrap();
    let Outcome::Finished { step: 12, checkpoint, .. } = outcome else { panic!("{outcome:?}") };
    let state = State::read(&checkpoint).unwrap();
    assert_eq!((state.updates, state.samples), (4, 12));

    let message = |data: &Data| quiet(&mut plain(), data, &config, temp().path()).unwrap_err().to_string();
    assert!(message(&Data { batches: 0, size: 1, last: 1 }).contains("no batches"));
    struct Short;
    impl Source for Short {
        type Batch = Vec<f32>;
        fn batch_size(&self) -> u64 {
            8
        }
        fn batches_per_epoch(&self) -> u64 {
            5
        }
        fn epoch(&self, epoch: u64, start: u64) -> Box<dyn Iterator<Item = Result<Vec<f32>, BoxError>> + Send + '_> {
            match epoch {
                0 => Box::new((start..2).map(|_| Ok(vec![0.5; 8]))),
                1 => Box::new(std::iter::once(Err("cat.jpg is no picture".into()))),
                _ => Box::new(std::iter::empty()),
            }
        }
    }
    let dir = temp();
    let error = run(&mut plain(), &Short, &config, dir.path(), false, &mut [], &AtomicBool::new(false)).unwrap_err();
    assert_eq!(error.to_string(), "reading the data of epoch 1, batch 0: cat.jpg is no picture");
    assert_eq!(State::read(&dir.path().join("checkpoints/step-00000001")).unwrap().epoch, 1);
}

#[test]
fn a_full_disk_or_a_file_in_the_way_leaves_the_old_checkpoint_whole() {
    let dir = temp();
    let mut task = plain();
    let full: PathBuf = dir.path().join("checkpoints/.half-10/model.safetensors");
    task.on_save = Box::new(move |path| match path == full {
        // What a full disk answers.
        true => Ok(fs::write("/dev/full", "bytes")?),
        false => Ok(()),
    });
    let config: TrainConfig = serde_json::from_str(r#"{"epochs": 3}"#).unwrap();
    let message = quiet(&mut task, &Data::default(), &config, dir.path()).unwrap_err().to_string();
    assert!(message.contains("writing ") && message.contains("No space left on device"), "{message}");
    assert_eq!(folders(dir.path()), ["step-00000005"]);
    assert_eq!(State::read(&dir.path().join("checkpoints/step-00000005")).unwrap().step, 5);

    let dir = temp();
    fs::write(dir.path().join("checkpoints"), "a file").unwrap();
    let message = quiet(&mut plain(), &Data::default(), &config, dir.path()).unwrap_err().to_string();
    assert!(message.contains("making the folder") && message.contains("checkpoints"), "{message}");
    assert_eq!(fs::read_to_string(dir.path().join("checkpoints")).unwrap(), "a file");
}

#[test]
fn two_processes_cannot_share_a_run() {
    let dir = temp();
    let _held = whitebox_train::Checkpoints::open(dir.path()).unwrap();
    assert!(whitebox_train::checkpoint::latest(dir.path()).unwrap().found.is_none(), "reading needs no lock");
    let message = quiet(&mut plain(), &Data::default(), &config(), dir.path()).unwrap_err().to_string();
    assert!(message.contains("another process is training"), "{message}");
}

#[test]
fn a_run_tells_its_story_in_files() {
    let dir = temp();
    let (jsonl, board) = (dir.path().join("metrics.jsonl"), dir.path().join("tensorboard"));
    let mut sinks: Vec<Box<dyn Sink>> = vec![Box::new(Jsonl::new(&jsonl)), Box::new(TensorBoard::new(&board))];
    let stop = AtomicBool::new(false);
    run(&mut plain(), &Data::default(), &config(), dir.path(), false, &mut sinks, &stop).unwrap();
    let lines: Vec<serde_json::Value> =
        fs::read_to_string(jsonl).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |event: &str| lines.iter().filter(|line| line["event"] == event).cloned().collect::<Vec<_>>();
    assert_eq!((of("start").len(), of("eval").len(), of("end").len()), (1, 4, 1));
    let steps = of("step");
    assert_eq!(steps.iter().map(|s| s["step"].as_u64().unwrap()).collect::<Vec<_>>(), [2, 3, 4, 6, 8, 9, 10, 12]);
    for key in ["loss", "lr", "grad_norm", "samples_per_second", "peak_memory", "epoch", "samples"] {
        assert!(steps.iter().all(|s| s[key].as_f64().is_some_and(|x| x >= 0.0)), "{key}");
    }
    assert!(steps.iter().all(|s| s["scalars"]["rmse"].as_f64().unwrap() > 0.0));
    assert_eq!(steps[1]["samples"], 35);
    assert_eq!(fs::read_dir(board).unwrap().count(), 1);
}
