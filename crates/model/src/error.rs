//! What can go wrong in this crate, each as a sentence that says what was found, what was expected and what to do.

/// The result of everything fallible here.
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong while a model is described, built, fed or loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A config whose values contradict one another.
    #[error("model config: {0}")]
    Config(String),

    /// A preset that does not exist.
    #[error("there is no model preset `{name}`; there are: {known}")]
    UnknownPreset {
        /// What was asked for.
        name: String,
        /// The names that exist, separated by commas.
        known: String,
    },

    /// A tensor of the wrong shape or kind at the door of a model.
    #[error("the model was given {found}, but expects {expected}")]
    Input {
        /// Shape and kind as found.
        found: String,
        /// Shape and kind as expected.
        expected: String,
    },

    /// A file that is not what it should be.
    #[error("{path}: {problem}")]
    File {
        /// The file.
        path: String,
        /// What is wrong with it, and what to do.
        problem: String,
    },

    /// A checkpoint whose tensors are not those of the model.
    #[error("{path} does not fit the model:{report}")]
    Mismatch {
        /// The file.
        path: String,
        /// Missing, unused and mis-shaped names, one a line.
        report: String,
    },

    /// What a checkpoint's shapes leave open, and nobody said.
    #[error("{0}")]
    Undetermined(String),

    /// An error of libtorch.
    #[error("libtorch: {0}")]
    Torch(#[from] tch::TchError),

    /// An error of a PyTorch checkpoint file.
    #[error(transparent)]
    Pth(#[from] torch_extras::pth::Error),
}
