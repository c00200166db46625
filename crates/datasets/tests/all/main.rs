//! The crate seen from outside: every reader against files made here and against the real data in `data/`, the
//! transforms against PIL's values, the loader over worker counts, and bad input of every kind.
#![allow(missing_docs)]

mod augment;
mod bad_images;
mod cifar;
#[path = "../common/mod.rs"]
mod common;
mod data;
mod digits;
mod flowers;
mod folder;
mod idx;
mod jpeg;
mod loader;
mod pets;
mod pipeline;
mod subset;
mod support;
mod transform;
