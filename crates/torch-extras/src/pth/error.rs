//! What can be wrong with a checkpoint file, each in a sentence that says what to do.

use std::path::PathBuf;

/// The result of this module's functions.
pub type Result<T> = std::result::Result<T, Error>;

/// A failure, with the file it concerns.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused to read or write the file.
    #[error("cannot {action} `{}`: {source}", path.display())]
    Io {
        /// What was tried: `open`, `read`, `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The file (or what was to be written into it) is not as it should be.
    #[error("`{}`: {problem}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: Problem,
    },
}

/// What is wrong with a file's content.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// Another kind of file under a checkpoint's name.
    #[error("not a checkpoint in PyTorch's zip format: {0}")]
    Format(String),
    /// The zip archive cannot be read or written.
    #[error("the zip archive is damaged ({0}): fetch or write the file again")]
    Zip(#[from] zip::result::ZipError),
    /// An entry of the archive is missing, too short or fails its checksum.
    #[error("entry `{entry}` {found}")]
    Entry {
        /// The entry's name in the archive.
        entry: String,
        /// What is the matter with it.
        found: String,
    },
    /// The pickle breaks the rules of its format.
    #[error("the pickle is damaged at byte {at}: {found}")]
    Pickle {
        /// Offset in `data.pkl`.
        at: usize,
        /// What was found there.
        found: String,
    },
    /// The pickle asks for a function call that is not mere data.
    #[error(
        "the file asks to call `{function}`: it wants to run code, and was not executed; where you trust its origin, load it in \
         Python and save the weights alone with `torch.save(model.state_dict(), ...)`"
    )]
    WantsCode {
        /// `module.name` of the function.
        function: String,
    },
    /// A tensor whose kind, shape or bytes do not fit together.
    #[error("{tensor}: {found}")]
    Tensor {
        /// Which tensor.
        tensor: String,
        /// What is the matter with it.
        found: String,
    },
    /// More memory is asked for than a file of this size warrants.
    #[error(
        "{what} would take {wanted} bytes, more than the {limit} that a file of this size warrants; the file is not read further"
    )]
    TooLarge {
        /// What asks for it.
        what: String,
        /// How much it asks for.
        wanted: u128,
        /// How much is allowed.
        limit: u128,
    },
    /// No dictionary of tensors where one is looked for.
    #[error("no weights found: {0}")]
    NoStateDict(String),
}
