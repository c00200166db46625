//! The loop. One thread owns the tensors; batches come from the source, numbers go to the sinks, and nothing waits for the device
//! between two log lines.
//!
//! ```text
//! for each epoch, for each group of `accumulate` batches:
//!     lr = schedule(step);  gradient of the group's mean loss;  clip;  optimiser step
//!     every log_every steps: read the losses, report       every_steps: checkpoint       stop asked for: checkpoint, leave
//! at the end of an epoch: read, report;  evaluate;  checkpoint
//! ```
//!
//! A checkpoint is written only after the losses since the last one, and the norm of the parameters, have been read and are finite:
//! a checkpoint that exists is a good one.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use tch::Kind;
use torch_extras::autocast::Autocast;
use torch_extras::{cuda, fused};

use crate::checkpoint::{self, Checkpoints, Latest};
use crate::config::{EarlyStop, Precision, TrainConfig};
use crate::diff::diff;
use crate::ema::Ema;
use crate::error::{BoxError, Error, Result};
use crate::metrics::{Event, Sink};
use crate::optimizer::Optimizer;
use crate::schedule::Schedule;
use crate::state::{Best, MODEL_FILE, OPTIMIZER_FILE, State};
use crate::task::{Loss, Source, Task};
use crate::window::{Broken, Clock, Window};

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// All epochs or steps are done.
    Finished {
        /// Optimiser steps of the whole run.
        step: u64,
        /// The last evaluation.
        metrics: Vec<(String, f64)>,
        /// The best evaluation, where one was to be kept.
        best: Option<Best>,
        /// The last checkpoint.
        checkpoint: PathBuf,
    },
    /// The stop flag was raised; the run can be resumed.
    Interrupted {
        /// Optimiser steps so far.
        step: u64,
        /// The checkpoint that was written on leaving.
        checkpoint: PathBuf,
    },
}

/// Trains `task` on `source` and keeps checkpoints in `dir/checkpoints`.
///
/// With `resume` the run goes on from its last whole checkpoint (from the beginning if it was killed before the first one; the task must
/// then be as it was at the first start). `stop` may be raised at any time, by a signal handler say: the step in hand is finished, a
/// checkpoint is written, and the run returns.
///
/// # Errors
/// Settings that cannot be meant; a fresh run in a folder that holds one, a resume with other settings; a loss that is not finite;
/// whatever the task, the source, a sink or the file system reports. The checkpoints on disk stay whole in every case.
pub fn run<T: Task, S: Source<Batch = T::Batch>>(
    task: &mut T,
    source: &S,
    config: &TrainConfig,
    dir: &Path,
    resume: bool,
    sinks: &mut [Box<dyn Sink>],
    stop: &AtomicBool,
) -> Result<Outcome> {
    config.check()?;
    let batches = source.batches_per_epoch();
    if batches == 0 {
        return Err(Error::Config("the source has no batches: expected at least one an epoch".into()));
    }
    let (steps_per_epoch, total_steps) = config.steps(batches);
    let mut engine = Engine {
        schedule: config.course(batches, source.batch_size())?,
        optimizer: Optimizer::new(&task.variables(), &config.optimizer)?,
        ema: config.ema.as_ref().map(|ema| Ema::new(task.variables(), ema.decay)).transpose()?,
        checkpoints: Checkpoints::open(dir)?,
        state: State::new(config),
        last_good: None,
        window: Window::default(),
        clock: Clock::new(),
        task,
        source,
        config,
        sinks,
        stop,
        batches,
        total_steps,
    };
    let warnings = engine.prepare(dir, resume)?;
    let parameters = engine.optimizer.params().iter().map(|p| p.numel() as u64).sum();
    engine.emit(&Event::Start {
        step: engine.state.step,
        epoch: engine.state.epoch,
        resumed: engine.last_good.is_some(),
        total_steps,
        steps_per_epoch,
        epochs: config.epochs,
        parameters,
    })?;
    for message in &warnings {
        engine.emit(&Event::Warning { step: engine.state.step, message })?;
    }
    let outcome = engine.go()?;
    engine.emit(&Event::End { step: engine.state.step, outcome: &outcome })?;
    Ok(outcome)
}

struct Engine<'a, T, S> {
    task: &'a mut T,
    source: &'a S,
    config: &'a TrainConfig,
    sinks: &'a mut [Box<dyn Sink>],
    stop: &'a AtomicBool,
    schedule: Schedule,
    optimizer: Optimizer,
    ema: Option<Ema>,
    checkpoints: Checkpoints,
    state: State,
    last_good: Option<PathBuf>,
    window: Window,
    clock: Clock,
    batches: u64,
    total_steps: u64,
}

impl<T: Task, S: Source<Batch = T::Batch>> Engine<'_, T, S> {
    /// Brings everything to where the run stands; returns what should be said about it.
    fn prepare(&mut self, dir: &Path, resume: bool) -> Result<Vec<String>> {
        if !resume && let Some(&step) = self.checkpoints.steps()?.last() {
            return Err(Error::Occupied { dir: self.checkpoints.dir().to_owned(), step });
        }
        let Latest { found, mut warnings } = checkpoint::latest(dir)?;
        let Some((path, state)) = found else {
            if resume {
                warnings.push("there is no checkpoint to resume from: starting from the beginning".into());
            }
            tch::manual_seed(self.config.seed as i64);
            return Ok(warnings);
        };
        let value = |config: &TrainConfig| serde_json::to_value(config).unwrap_or_default();
        let differences = diff(&value(&state.config), &value(self.config));
        if !differences.is_empty() {
            return Err(Error::Different { checkpoint: path, differences });
        }
        if state.threads != self.state.threads {
            warnings.push(format!(
                "the run had {} threads so far and has {} now: it goes on, but not in the same bits",
                state.threads, self.state.threads
            ));
        }
        let model = path.join(MODEL_FILE);
        self.task.load_model(&model).map_err(Error::task(format!("loading {}", model.display())))?;
        checkpoint::load(&mut self.optimizer, self.ema.as_mut(), state.updates, &path.join(OPTIMIZER_FILE))?;
        if let Some(best) = &state.best {
            self.checkpoints.set_best(best.step)?; // a kill may have come between the checkpoint and its link
        }
        self.state = State { threads: self.state.threads, version: self.state.version.clone(), ..state };
        self.last_good = Some(path);
        Ok(warnings)
    }

    fn go(&mut self) -> Result<Outcome> {
        while !self.state.finished {
            if let Some(interrupted) = self.epoch()? {
                return Ok(interrupted);
            }
        }
        self.exchange()?; // what is handed back is the model that was saved
        let State { step, evaluation, best, .. } = self.state.clone();
        Ok(Outcome::Finished { step, metrics: evaluation, best, checkpoint: self.checkpoints.path(step) })
    }

    /// The rest of an epoch and the work at its end, or the interruption.
    fn epoch(&mut self) -> Result<Option<Outcome>> {
        let left = self.batches.saturating_sub(self.state.batch);
        let source = self.source;
        // After an interruption between the last batch and the epoch's end nothing is left to ask for.
        let mut batches = (left > 0).then(|| source.epoch(self.state.epoch, self.state.batch)).into_iter().flatten();
        self.clock.restart();
        while self.state.step < self.total_steps && self.state.batch < self.batches {
            if !self.step(&mut batches)? {
                break;
            }
            let State { step, samples, .. } = self.state;
            self.emit(&Event::Tick { step, samples })?;
            if step.is_multiple_of(self.config.log_every) {
                self.log()?;
            }
            if self.stop.load(Ordering::Relaxed) {
                self.log()?;
                return Ok(Some(Outcome::Interrupted { step, checkpoint: self.save()? }));
            }
            let at_end = step == self.total_steps || self.state.batch >= self.batches;
            if !at_end && self.config.checkpoint.every_steps.is_some_and(|every| step.is_multiple_of(every)) {
                self.save()?;
            }
        }
        drop(batches);
        if self.state.batch == 0 {
            let text = format!("epoch {} gave no batch: expected up to {}", self.state.epoch, self.batches);
            return Err(Error::Config(text));
        }
        self.log()?;
        self.end_epoch()?;
        Ok(None)
    }

    /// Makes one optimiser step of up to `accumulate` batches; false when there are no more.
    fn step(&mut self, batches: &mut dyn Iterator<Item = std::result::Result<T::Batch, BoxError>>) -> Result<bool> {
        let (step, lr) = (self.state.step + 1, self.schedule.lr(self.state.step));
        let at = format!("epoch {}, batch {}", self.state.epoch, self.state.batch);
        let accumulate = self.config.accumulate;
        self.optimizer.clear_grads()?;
        let (mut taken, mut samples) = (0, 0);
        while taken < accumulate && self.state.batch + taken < self.batches {
            let Some(batch) = batches.next() else { break };
            let batch = batch.map_err(Error::task(format!("reading the data of {at}")))?;
            taken += 1;
            let Some(report) = self.forward(&batch, &at)? else { continue };
            self.window.add(step, lr, &report)?;
            // A group's mean weighs every sample alike, so its parts are summed and divided by the whole below.
            let loss = match accumulate {
                1 => report.loss,
                _ => report.loss.f_mul_scalar(report.samples as f64)?,
            };
            loss.f_backward()?;
            samples += report.samples;
        }
        if samples > 0 {
            let grads = self.optimizer.grads();
            if accumulate > 1 {
                fused::scale_(&grads, 1.0 / samples as f64)?;
            }
            let norm = fused::global_norm(&grads)?;
            if let Some(max) = self.config.clip {
                fused::clip_by_norm_(&grads, &norm, max)?;
            }
            self.optimizer.step(lr)?;
            if let Some(ema) = &mut self.ema {
                ema.update(step)?;
            }
            self.window.add_norm(step, lr, norm);
        }
        if taken > 0 {
            self.state.step = step;
            self.state.batch += taken;
            self.state.samples += samples;
            self.state.evaluation.clear();
        }
        Ok(taken > 0)
    }

    fn forward(&mut self, batch: &T::Batch, at: &str) -> Result<Option<Loss>> {
        let _autocast = self.autocast()?;
        let report = self.task.loss(batch).map_err(Error::task(format!("computing the loss of {at}")))?;
        Ok(report.filter(|report| report.samples > 0))
    }

    fn autocast(&self) -> Result<Option<Autocast>> {
        Ok(match self.config.precision {
            Precision::Float32 => None,
            Precision::BFloat16 => Some(Autocast::new(self.task.device(), Kind::BFloat16, true)?),
        })
    }

    /// Reports the means since the last report.
    fn log(&mut self) -> Result<()> {
        self.check_losses()?;
        let Some(means) = self.window.close() else { return Ok(()) };
        let State { step, samples, .. } = self.state;
        let samples_per_second = means.samples as f64 / self.clock.restart().as_secs_f64();
        self.emit(&Event::Step {
            step,
            epoch: self.state.epoch as f64 + self.state.batch as f64 / self.batches as f64,
            samples,
            loss: means.loss,
            scalars: &means.scalars,
            lr: self.schedule.lr(step.saturating_sub(1)),
            grad_norm: means.grad_norm,
            samples_per_second,
            peak_memory: cuda::peak_memory(self.task.device()),
        })
    }

    fn check_losses(&mut self) -> Result<()> {
        match self.window.read()? {
            None => Ok(()),
            Some(broken) => Err(self.not_finite(broken)),
        }
    }

    fn not_finite(&self, Broken { what, step, lr }: Broken) -> Error {
        Error::NonFinite { what, step, lr, checkpoint: self.last_good.clone() }
    }

    fn end_epoch(&mut self) -> Result<()> {
        self.state.epoch += 1;
        self.state.batch = 0;
        let State { step, epoch, .. } = self.state;
        self.state.finished = step >= self.total_steps || epoch >= self.config.epochs;
        let every = self.config.eval_every;
        let better = (self.state.finished || (every > 0 && epoch.is_multiple_of(every))) && self.evaluate()?;
        let due = |every: Option<u64>, count: u64| every.is_some_and(|every| count.is_multiple_of(every));
        let saving = &self.config.checkpoint;
        if self.state.finished || better || due(saving.every_epochs, epoch) || due(saving.every_steps, step) {
            self.save()?;
        }
        Ok(())
    }

    /// Evaluates; whether it is the best so far.
    fn evaluate(&mut self) -> Result<bool> {
        let began = Instant::now();
        self.exchange()?;
        let metrics = {
            let _no_grad = tch::no_grad_guard();
            let _autocast = self.autocast()?;
            let mut failed = Ok(());
            let sinks = &mut *self.sinks;
            let mut progress = |done, total| {
                if failed.is_ok() {
                    failed = emit(sinks, &Event::EvalProgress { done, total });
                }
            };
            let metrics = self.task.evaluate(&mut progress).map_err(Error::task("evaluating"))?;
            failed?;
            metrics
        };
        self.exchange()?;
        let State { step, epoch, .. } = self.state;
        let mut better = false;
        if let Some(wanted) = &self.config.checkpoint.best {
            let value = metrics.iter().find(|(name, _)| *name == wanted.metric).map(|(_, value)| *value);
            let value = value.ok_or_else(|| {
                let names: Vec<_> = metrics.iter().map(|(name, _)| name).collect();
                Error::Config(format!("checkpoint.best.metric = {:?}: the evaluation gives {names:?}", wanted.metric))
            })?;
            let old = self.state.best.as_ref().map(|best| best.value);
            better = value.is_finite() && old.is_none_or(|old| wanted.direction.improves(value, old));
            if better {
                self.state.best = Some(Best { metric: wanted.metric.clone(), value, step });
            }
            self.state.stale = if better { 0 } else { self.state.stale + 1 };
        }
        self.emit(&Event::Eval {
            step,
            epoch,
            metrics: &metrics,
            best: better,
            seconds: began.elapsed().as_secs_f64(),
        })?;
        // JSON has no NaN; a measure that is none is told above and not kept.
        self.state.evaluation = metrics.into_iter().filter(|(_, value)| value.is_finite()).collect();
        if let Some(EarlyStop { patience }) = self.config.early_stop
            && self.state.stale >= patience
            && !self.state.finished
        {
            let message = format!("no improvement in {patience} evaluations: stopping early");
            self.emit(&Event::Warning { step, message: &message })?;
            self.state.finished = true;
        }
        self.clock.pause(began);
        Ok(better)
    }

    /// Writes a checkpoint, if all that led to it is finite.
    fn save(&mut self) -> Result<PathBuf> {
        let began = Instant::now();
        self.check_losses()?;
        let step = self.state.step;
        let norm = f64::try_from(fused::global_norm(self.optimizer.params())?)?;
        if !norm.is_finite() {
            let what = format!("the norm of the parameters ({norm})");
            return Err(self.not_finite(Broken { what, step, lr: self.schedule.lr(step.saturating_sub(1)) }));
        }
        self.state.updates = self.optimizer.updates();
        self.exchange()?;
        let (task, optimizer, ema) = (&*self.task, &self.optimizer, self.ema.as_ref());
        let saved = self.checkpoints.save(&mut self.state, |folder| {
            let model = folder.join(MODEL_FILE);
            task.save_model(&model).map_err(Error::task(format!("writing {}", model.display())))?;
            checkpoint::store(optimizer, ema, &folder.join(OPTIMIZER_FILE))
        });
        self.exchange()?;
        let path = saved?;
        if let Some(best) = &self.state.best {
            self.checkpoints.set_best(best.step)?;
        }
        self.checkpoints.prune(&self.state, self.config.checkpoint.keep_last)?;
        self.last_good = Some(path.clone());
        self.emit(&Event::Checkpoint { step, path: &path })?;
        self.clock.pause(began);
        Ok(path)
    }

    /// Puts averaged weights in the place of the weights, or back, where there are any.
    fn exchange(&mut self) -> Result<()> {
        self.ema.as_mut().map_or(Ok(()), Ema::exchange)
    }

    fn emit(&mut self, event: &Event<'_>) -> Result<()> {
        emit(self.sinks, event)
    }
}

fn emit(sinks: &mut [Box<dyn Sink>], event: &Event<'_>) -> Result<()> {
    sinks.iter_mut().try_for_each(|sink| sink.emit(event)).map_err(Error::task("reporting"))
}
