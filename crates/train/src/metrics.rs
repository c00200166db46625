//! What a run tells while it goes: events, handed to any number of sinks (a terminal, a file, TensorBoard).

use std::path::Path;

use crate::error::BoxError;
use crate::trainer::Outcome;

/// Something that happened. Steps are optimiser steps done so far.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// The run begins, or goes on from a checkpoint.
    Start {
        /// Steps already done; what an earlier process reported after this step is void.
        step: u64,
        /// Epoch of the next step, from 0.
        epoch: u64,
        /// Whether a checkpoint was loaded.
        resumed: bool,
        /// Steps of the whole run.
        total_steps: u64,
        /// Steps of an epoch.
        steps_per_epoch: u64,
        /// Epochs of the whole run.
        epochs: u64,
        /// Numbers in all trainable variables.
        parameters: u64,
    },
    /// One more step is done; for progress bars. Nothing has been read from the device.
    Tick {
        /// Steps done.
        step: u64,
        /// Samples seen in the whole run.
        samples: u64,
    },
    /// The means since the last such event.
    Step {
        /// Steps done.
        step: u64,
        /// Epochs done, with the fraction of the present one.
        epoch: f64,
        /// Samples seen in the whole run.
        samples: u64,
        /// Mean loss over the samples.
        loss: f64,
        /// The task's other scalars, means over the samples.
        scalars: &'a [(String, f64)],
        /// Learning rate of the last step.
        lr: f64,
        /// Mean Euclidean norm of the gradients, before clipping.
        grad_norm: f64,
        /// Training speed; evaluation and checkpoints do not count.
        samples_per_second: f64,
        /// Peak memory of the run's device in bytes, where it is known.
        peak_memory: Option<u64>,
    },
    /// An evaluation goes on.
    EvalProgress {
        /// Parts done.
        done: u64,
        /// Parts in all.
        total: u64,
    },
    /// An evaluation is done.
    Eval {
        /// Steps done.
        step: u64,
        /// Epochs done.
        epoch: u64,
        /// The task's measures.
        metrics: &'a [(String, f64)],
        /// Whether they are the best so far, by the configured measure.
        best: bool,
        /// How long it took.
        seconds: f64,
    },
    /// A checkpoint is safe on disk.
    Checkpoint {
        /// Steps done.
        step: u64,
        /// Its folder.
        path: &'a Path,
    },
    /// Something to know that does not stop the run.
    Warning {
        /// Steps done.
        step: u64,
        /// A sentence.
        message: &'a str,
    },
    /// The run ends.
    End {
        /// Steps done.
        step: u64,
        /// How it ends.
        outcome: &'a Outcome,
    },
}

/// Takes events. An error stops the run.
pub trait Sink {
    /// Takes one event; what it writes should survive the process being killed right after.
    ///
    /// # Errors
    /// What keeps the sink from writing, as a sentence that names the file.
    fn emit(&mut self, event: &Event<'_>) -> Result<(), BoxError>;
}
