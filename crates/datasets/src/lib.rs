//! Images and text as plain buffers: readers, transforms, tokenizers, and deterministic batches of both.
//!
//! Nothing here knows a tensor library. A [`Dataset`] hands out 8-bit images, a [`Pipeline`] turns each into
//! normalised floats, and a [`Loader`] does both in worker threads and stacks the results into [`Batch`]es.
//! What comes at which step is a pure function of seed, epoch and index (see [`SampleRng`]). Text has a module of its
//! own, `text`, by the feature of that name, which is on by default.
#![cfg_attr(feature = "text", doc = include_str!("../README.md"))]

mod augment;
pub mod cifar;
mod dataset;
mod decode;
pub mod digits;
mod epoch;
mod error;
mod file;
pub mod flowers;
pub mod folder;
pub mod idx;
mod jpeg;
mod loader;
pub mod masks;
mod matlab;
pub mod pets;
mod pipeline;
mod raster;
mod resize;
mod rng;
mod step;
mod subset;
#[cfg(feature = "text")]
pub mod text;
mod transform;

pub use augment::AugmentList;
pub use dataset::{Dataset, Image, InMemory, Split};
pub use decode::decode;
pub use epoch::Epoch;
pub use error::{Error, Result};
pub use folder::ImageFolder;
pub use loader::{Batch, Loader, LoaderConfig, OnCorrupt};
pub use pipeline::Pipeline;
pub use rng::{SampleRng, permutation};
pub use subset::Subset;
pub use transform::{Erased, Filter, Size, Transform};
