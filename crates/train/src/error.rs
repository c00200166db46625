//! The crate's error type: each message says what was found, what was expected and what to do.

use std::path::{Path, PathBuf};

/// Any error of a task, a source or a sink.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What can stop a training run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting that cannot be meant.
    #[error("{0}")]
    Config(String),
    /// The loss, the gradient or the parameters stopped being numbers.
    #[error(
        "{what} is not finite at step {step} (learning rate {lr:e}); {}; a lower learning rate, a longer warm-up or clipping may help",
        last_good(.checkpoint.as_deref())
    )]
    NonFinite {
        /// Which quantity: the loss, a gradient norm, a parameter norm.
        what: String,
        /// The step, counted from 1, in which it was first seen.
        step: u64,
        /// The learning rate of that step.
        lr: f64,
        /// The last checkpoint whose numbers were finite.
        checkpoint: Option<PathBuf>,
    },
    /// A fresh run was pointed at a folder that holds one.
    #[error("{} already holds checkpoints up to step {step}: resume that run, or choose another folder", .dir.display())]
    Occupied {
        /// The checkpoint folder.
        dir: PathBuf,
        /// Its last step.
        step: u64,
    },
    /// A resume with other settings than the run was started with.
    #[error("{} was made with other settings: {}; resume with the old ones, or start a new run", .checkpoint.display(), .differences.join(", "))]
    Different {
        /// The checkpoint that was to be resumed.
        checkpoint: PathBuf,
        /// What differs, one line each.
        differences: Vec<String>,
    },
    /// A checkpoint that is damaged or does not fit.
    #[error("checkpoint {}: {problem}", .path.display())]
    Checkpoint {
        /// The folder or file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The file system refused.
    #[error("{what} {}: {source}", .path.display())]
    Io {
        /// What was tried: `writing`, `reading`, ...
        what: &'static str,
        /// On which path.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The task or its source failed.
    #[error("{what}: {source}")]
    Task {
        /// What was being done.
        what: String,
        /// The task's own error.
        source: BoxError,
    },
    /// libtorch refused an operation.
    #[error(transparent)]
    Torch(#[from] tch::TchError),
    /// A kernel of torch-extras refused.
    #[error(transparent)]
    Extras(#[from] torch_extras::Error),
}

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

fn last_good(checkpoint: Option<&Path>) -> String {
    match checkpoint {
        Some(path) => format!("the last good checkpoint is {}", path.display()),
        None => "no checkpoint had been written".to_owned(),
    }
}

impl Error {
    /// For `map_err` on an io::Result.
    pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }

    /// For `map_err` on what a task or source returns.
    pub(crate) fn task(what: impl Into<String>) -> impl FnOnce(BoxError) -> Self {
        let what = what.into();
        move |source| Self::Task { what, source }
    }

    pub(crate) fn checkpoint(path: &Path, problem: impl Into<String>) -> Self {
        Self::Checkpoint { path: path.to_owned(), problem: problem.into() }
    }
}
