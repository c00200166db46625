//! The crate's error type and the way errors come out of the C++ shim.

use std::ffi::CStr;

use libc::c_char;

/// What can go wrong in this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// libtorch refused an operation; the text is libtorch's own.
    #[error("libtorch: {0}")]
    Torch(String),
    /// tch refused an operation.
    #[error(transparent)]
    Tch(#[from] tch::TchError),
    /// An argument does not fit; the text says which, what was found and what is expected.
    #[error("{0}")]
    Argument(String),
    /// CUDA was asked for, and why it cannot be had.
    #[error("no CUDA: {0}")]
    NoCuda(String),
}

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Turns what a shim function returns (null, or a message to free) into a `Result`.
pub(crate) fn check(message: *mut c_char) -> Result<()> {
    if message.is_null() {
        return Ok(());
    }
    // SAFETY: the shim returns null or a NUL-terminated string made by strdup, handed over to us.
    let text = unsafe {
        let text = CStr::from_ptr(message).to_string_lossy().trim_end().to_owned();
        libc::free(message.cast());
        text
    };
    Err(Error::Torch(text))
}
