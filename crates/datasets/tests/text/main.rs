//! The text half of the crate from outside: tokenizers against ids known from their originals, packing over threads,
//! shards and interruptions, windows and masking as properties, tables and bad input of every kind.
#![allow(missing_docs)]

#[path = "../common/mod.rs"]
mod common;
mod masking;
mod packing;
mod sources;
mod support;
mod tables;
mod tokenizers;
mod tokens;
mod windows;
