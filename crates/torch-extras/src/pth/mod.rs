//! PyTorch checkpoint files (`torch.save`, the zip format of torch 1.6 and later) read without running a pickle, and written.
//!
//! A checkpoint is a zip archive: `<name>/data.pkl` is a pickle of the saved structure, in which every tensor refers to one of the
//! raw storages `<name>/data/<key>`. A pickle is a program for a small stack machine, and Python's machine may be told to call any
//! function there is. The machine here knows data only: it builds numbers, strings, containers and tensors, keeps an object of any
//! other class as a placeholder ([`Value::Opaque`]), and refuses a file that asks for a call it does not know
//! ([`Problem::WantsCode`]).
//!
//! | file | notion |
//! |---|---|
//! | `archive` | the zip archive: what kind of file this is, its entries and their sizes |
//! | `pickle` | the stack machine: opcodes to a graph of nodes |
//! | `calls` | the few calls it understands |
//! | `value` | the graph unfolded into a tree of [`Value`]s |
//! | `tensor` | storages, strides, contiguous bytes |
//! | `checkpoint` | finding the weights in whatever structure surrounds them |
//! | `writer` | the way back |
//!
//! A file is not trusted: every size is checked against what the file holds before memory is asked for, so that what is allocated
//! stays within a small multiple of the file's length (see [`TENSOR_GROWTH`]), nesting is bounded ([`MAX_DEPTH`]), and nothing in
//! a file leads to a panic.
//!
//! ```no_run
//! use torch_extras::pth;
//!
//! let checkpoint = pth::read("crate_tiny.pth.tar".as_ref())?;
//! let weights = checkpoint.state_dict()?;
//! pth::write("weights.pth".as_ref(), &weights, Some("state_dict"))?;
//! # Ok::<(), pth::Error>(())
//! ```

mod archive;
mod calls;
mod checkpoint;
mod error;
mod pickle;
mod tensor;
mod value;
mod writer;

pub use checkpoint::{Checkpoint, StateDict, read};
pub use error::{Error, Problem, Result};
pub use tensor::{DType, RawTensor, TENSOR_GROWTH, TensorRef};
pub use value::{MAX_DEPTH, Value};
pub use writer::write;
