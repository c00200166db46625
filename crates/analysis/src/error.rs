//! What can go wrong in this crate.

use std::path::PathBuf;

/// An analysis that could not be made, and why.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A tensor whose shape or kind does not fit the measure.
    #[error("{what} has shape {found:?}, expected {expected}")]
    Shape {
        /// Which tensor it is.
        what: String,
        /// Its shape.
        found: Vec<i64>,
        /// What would have fitted, and what to change.
        expected: String,
    },
    /// An option outside its range.
    #[error("{0}")]
    Config(String),
    /// libtorch refused an operation.
    #[error("libtorch: {0}")]
    Torch(#[from] tch::TchError),
    /// An operation of one's own refused its tensors.
    #[error(transparent)]
    Extras(#[from] torch_extras::Error),
    /// A file that cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A metrics file without a single record.
    #[error("{0}")]
    Metrics(String),
    /// Data that contradict each other, so that no honest figure can be drawn.
    #[error("{0}")]
    Data(String),
    /// The plotting library failed.
    #[error("cannot draw the figure {title:?}: {message}")]
    Plot {
        /// Title of the figure.
        title: String,
        /// What the library said.
        message: String,
    },
    /// A sample could not be encoded as PNG.
    #[error("cannot encode a sample as PNG: {0}")]
    Image(#[from] image::ImageError),
}

/// The crate's result.
pub type Result<T> = std::result::Result<T, Error>;
