//! What a checkpoint holds beside tensors: `state.json`, written last, with the length and checksum of the files beside it, so that a folder
//! damaged later is found out.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::config::TrainConfig;
use crate::error::{Error, Result};

/// The task's file in a checkpoint folder.
pub const MODEL_FILE: &str = "model.safetensors";
/// The engine's tensors in a checkpoint folder: moments and random states.
pub const OPTIMIZER_FILE: &str = "optimizer.safetensors";
pub(crate) const STATE_FILE: &str = "state.json";
const FORMAT: u32 = 1;

/// Where a run stands: everything of a checkpoint that is not a tensor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Version of this layout.
    pub format: u32,
    /// Version of the program that wrote it.
    pub version: String,
    /// Optimiser steps done.
    pub step: u64,
    /// The epoch of the next batch.
    pub epoch: u64,
    /// The number of the next batch in its epoch.
    pub batch: u64,
    /// Samples seen.
    pub samples: u64,
    /// Updates that the optimiser made (steps without samples are none).
    pub updates: u64,
    /// Whether the run is at its end.
    pub finished: bool,
    /// Threads of libtorch: with another number sums may round differently.
    pub threads: i32,
    /// The evaluation made at this step, if one was.
    pub evaluation: Vec<(String, f64)>,
    /// The best evaluation so far.
    pub best: Option<Best>,
    /// Evaluations since the best one.
    #[serde(default)]
    pub stale: u64,
    /// The settings of the run.
    pub config: TrainConfig,
    /// Lengths and checksums of the files beside.
    pub files: BTreeMap<String, FileRecord>,
}

/// The best evaluation so far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// Name of the measure.
    pub metric: String,
    /// Its value.
    pub value: f64,
    /// The step after which it was measured.
    pub step: u64,
}

/// What a file must be like to be the one that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    /// Length in bytes.
    pub bytes: u64,
    /// CRC-32C of the content.
    pub crc32c: u32,
}

impl State {
    /// The state of a run that has not begun.
    pub fn new(config: &TrainConfig) -> Self {
        Self {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            step: 0,
            epoch: 0,
            batch: 0,
            samples: 0,
            updates: 0,
            finished: false,
            threads: tch::get_num_threads(),
            evaluation: Vec::new(),
            best: None,
            stale: 0,
            config: config.clone(),
            files: BTreeMap::new(),
        }
    }

    /// Reads the state of a checkpoint folder and holds the files beside it against their records.
    ///
    /// # Errors
    /// A folder that is not whole, or of another format; the message says what is wrong.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(STATE_FILE);
        let text = fs::read(&path).map_err(Error::io("reading", &path))?;
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let unreadable = |e| Error::checkpoint(&path, format!("is no checkpoint state: {e}"));
        let Format { format } = serde_json::from_slice(&text).map_err(unreadable)?;
        if format != FORMAT {
            return Err(Error::checkpoint(&path, format!("has format {format}, this program reads format {FORMAT}")));
        }
        let state: Self = serde_json::from_slice(&text).map_err(unreadable)?;
        for name in [MODEL_FILE, OPTIMIZER_FILE] {
            let path = folder.join(name);
            let expected =
                state.files.get(name).ok_or_else(|| Error::checkpoint(&path, "has no record in state.json"))?;
            let found = FileRecord::of(&path)?;
            if found != *expected {
                let problem = format!(
                    "is damaged: {} bytes with checksum {:08x}, expected {} with {:08x}",
                    found.bytes, found.crc32c, expected.bytes, expected.crc32c
                );
                return Err(Error::checkpoint(&path, problem));
            }
        }
        Ok(state)
    }
}

impl FileRecord {
    /// The record of a file as it is now.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn of(path: &Path) -> Result<Self> {
        let content = fs::read(path).map_err(Error::io("reading", path))?;
        Ok(Self { bytes: content.len() as u64, crc32c: crc32c::crc32c(&content) })
    }
}
