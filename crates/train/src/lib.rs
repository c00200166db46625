//! The training engine. It knows a [`Task`] (variables, a loss, an evaluation) and a [`Source`] of batches, and neither models nor images.
//!
//! What the engine promises: a run that was stopped, or killed at any moment, and resumed ends in the same bits as one that was not
//! (on the CPU, in float32, with the same number of threads). Everything that depends on time is a pure function of the step, so what a
//! checkpoint holds is small: parameters, optimiser moments, random state and the position in the data.
#![doc = include_str!("../README.md")]

pub mod checkpoint;
pub mod config;
pub mod diff;
mod ema;
mod error;
pub mod jsonl;
pub mod loss;
pub mod metrics;
pub mod mix;
pub mod optimizer;
pub mod schedule;
pub mod state;
mod task;
pub mod tensorboard;
pub mod tensors;
pub mod trainer;
mod window;

pub use checkpoint::Checkpoints;
pub use config::{
    BestConfig, CheckpointConfig, Decay, Direction, EarlyStop, EmaConfig, OptimizerConfig, Precision, Rule, TrainConfig,
};
pub use diff::diff;
pub use error::{BoxError, Error, Result};
pub use jsonl::Jsonl;
pub use loss::{cross_entropy, soft_cross_entropy, soft_targets};
pub use metrics::{Event, Sink};
pub use mix::{Mix, MixConfig};
pub use optimizer::Optimizer;
pub use schedule::{Schedule, ScheduleConfig, Shape};
pub use state::{Best, MODEL_FILE, OPTIMIZER_FILE, State};
pub use task::{Loss, Source, Task};
pub use tensorboard::TensorBoard;
pub use trainer::{Outcome, run};
