//! Checkpoints on disk: `checkpoints/step-00000123/{model.safetensors, optimizer.safetensors, state.json}`, and `checkpoints/best`, a
//! link to one of them.
//!
//! A folder is written under a hidden name, every file is brought to the disk, and only then is it renamed: at any moment there is the
//! old checkpoint or the new one, never half. A folder that was damaged later (see [`State`]) is passed over.

use std::fs::{self, File, TryLockError};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use tch::Tensor;
use torch_extras::rng::RngState;

use crate::ema::Ema;
use crate::error::{Error, Result};
use crate::optimizer::Optimizer;
use crate::state::{FileRecord, MODEL_FILE, OPTIMIZER_FILE, STATE_FILE, State};
use crate::tensors;

/// The last whole checkpoint.
#[derive(Clone, Debug)]
pub struct Latest {
    /// Its folder and state; `None` where no checkpoint was ever written.
    pub found: Option<(PathBuf, State)>,
    /// A sentence on each later one that is not whole.
    pub warnings: Vec<String>,
}

/// Looks for the last whole checkpoint of a run, without writing anything: a run may be training there.
///
/// # Errors
/// There are checkpoints, but none is whole; a folder that cannot be read.
pub fn latest(run: &Path) -> Result<Latest> {
    let dir = run.join("checkpoints");
    let mut warnings = Vec::new();
    for step in steps(&dir)?.into_iter().rev() {
        let folder = folder(&dir, step);
        match State::read(&folder) {
            Ok(state) => return Ok(Latest { found: Some((folder, state)), warnings }),
            Err(error) => warnings.push(format!("{error}; going back to the checkpoint before it")),
        }
    }
    match warnings.first() {
        None => Ok(Latest { found: None, warnings }),
        Some(first) => Err(Error::checkpoint(&dir, format!("none of the checkpoints is whole, first: {first}"))),
    }
}

fn folder(dir: &Path, step: u64) -> PathBuf {
    dir.join(format!("step-{step:08}"))
}

fn steps(dir: &Path) -> Result<Vec<u64>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("reading", dir)(error)),
    };
    let step = |entry: fs::DirEntry| entry.file_name().to_str()?.strip_prefix("step-")?.parse().ok();
    let mut steps: Vec<u64> = entries.flatten().filter_map(step).collect();
    steps.sort_unstable();
    Ok(steps)
}

/// The checkpoints of a run. While this value lives no other process can open them for writing.
#[derive(Debug)]
pub struct Checkpoints {
    dir: PathBuf,
    _lock: File,
}

impl Checkpoints {
    /// Opens `run/checkpoints`, making it where it is missing, and clears away what a killed process left half done.
    ///
    /// # Errors
    /// A folder that cannot be written; another process that trains there.
    pub fn open(run: &Path) -> Result<Self> {
        let dir = run.join("checkpoints");
        fs::create_dir_all(&dir).map_err(Error::io("making the folder", &dir))?;
        let path = dir.join(".lock");
        let lock = File::create(&path).map_err(Error::io("writing", &path))?;
        if matches!(lock.try_lock(), Err(TryLockError::WouldBlock)) {
            return Err(Error::checkpoint(&dir, "another process is training in this folder: wait for it or stop it"));
        }
        for entry in fs::read_dir(&dir).map_err(Error::io("reading", &dir))?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(".half-") {
                remove(&entry.path())?;
            }
        }
        Ok(Self { dir, _lock: lock })
    }

    /// The folder that holds them.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The folder of the checkpoint after `step` steps.
    pub fn path(&self, step: u64) -> PathBuf {
        folder(&self.dir, step)
    }

    /// The steps of all checkpoints, whole or not, in order.
    ///
    /// # Errors
    /// A folder that cannot be read.
    pub fn steps(&self) -> Result<Vec<u64>> {
        steps(&self.dir)
    }

    /// Writes a checkpoint: `write` fills the folder that it is given with the two tensor files. Where a whole checkpoint of the same
    /// step exists its tensors are kept, since a step has one outcome, and only its state is replaced.
    ///
    /// # Errors
    /// Those of `write` and of the file system. The checkpoints that were there stay as they were.
    pub fn save(&self, state: &mut State, write: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        let folder = self.path(state.step);
        if let Ok(old) = State::read(&folder) {
            state.files = old.files;
            write_state(&folder, state)?;
            return Ok(folder);
        }
        let half = self.dir.join(format!(".half-{}", state.step));
        let result = self.fill(&half, state, write).and_then(|()| {
            remove(&folder)?; // damaged, or not there
            fs::rename(&half, &folder).map_err(Error::io("renaming a new checkpoint to", &folder))?;
            sync(&self.dir)
        });
        if result.is_err() {
            // The first error is the one to report; what is left here is cleared at the next start.
            let _ = remove(&half);
        }
        result.map(|()| folder)
    }

    fn fill(&self, half: &Path, state: &mut State, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        fs::create_dir(half).map_err(Error::io("making the folder", half))?;
        write(half)?;
        for name in [MODEL_FILE, OPTIMIZER_FILE] {
            let path = half.join(name);
            sync(&path)?;
            state.files.insert(name.to_owned(), FileRecord::of(&path)?);
        }
        write_state(half, state)
    }

    /// Points `best` at the checkpoint of `step`, where that exists.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn set_best(&self, step: u64) -> Result<()> {
        let (link, next, target) = (self.dir.join("best"), self.dir.join(".half-best"), self.path(step));
        let Some(name) = target.file_name().filter(|_| target.is_dir()) else { return Ok(()) };
        if fs::read_link(&link).is_ok_and(|now| now.as_os_str() == name) {
            return Ok(());
        }
        if link.is_dir() && !link.is_symlink() {
            remove(&link)?; // a copy that followed the link made a folder of it
        }
        remove(&next)?;
        std::os::unix::fs::symlink(name, &next).map_err(Error::io("writing the link", &next))?;
        fs::rename(&next, &link).map_err(Error::io("writing the link", &link))?;
        sync(&self.dir)
    }

    /// Removes all checkpoints up to `state.step` but the last `keep` and the best. Later ones, of which a resume found that they are
    /// damaged, are replaced when their step comes.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn prune(&self, state: &State, keep: u64) -> Result<()> {
        let best = state.best.as_ref().map(|best| best.step);
        let keep = usize::try_from(keep).unwrap_or(usize::MAX);
        for step in self.steps()?.into_iter().rev().filter(|step| *step <= state.step).skip(keep) {
            if Some(step) != best {
                // Renamed first, so that a kill in the middle leaves no half checkpoint behind.
                let half = self.dir.join(format!(".half-{step}"));
                fs::rename(self.path(step), &half).map_err(Error::io("removing", &self.path(step)))?;
                remove(&half)?;
            }
        }
        Ok(())
    }
}

/// Writes the engine's half of a checkpoint: the moments, the random states, and the weights where the model is their average.
pub(crate) fn store(optimizer: &Optimizer, ema: Option<&Ema>, path: &Path) -> Result<()> {
    let rng = RngState::capture()?;
    let mut all = optimizer.state();
    all.extend(ema.map(Ema::kept).unwrap_or_default());
    all.push(("rng.cpu".into(), Tensor::f_from_slice(&rng.cpu)?));
    for (i, device) in rng.cuda.iter().enumerate() {
        all.push((format!("rng.cuda{i}"), Tensor::f_from_slice(device)?));
    }
    tensors::write(path, &all)
}

/// Puts back what `store` wrote.
pub(crate) fn load(optimizer: &mut Optimizer, ema: Option<&mut Ema>, updates: u64, path: &Path) -> Result<()> {
    let tensors = tensors::read(path)?;
    let bytes = |name: &str| match tensors.get(name) {
        Some(tensor) => Ok(Some(Vec::<u8>::try_from(tensor)?)),
        None => Result::Ok(None),
    };
    let cpu = bytes("rng.cpu")?.ok_or_else(|| Error::checkpoint(path, "holds no tensor \"rng.cpu\""))?;
    let mut rng = RngState { cpu, cuda: Vec::new() };
    while let Some(device) = bytes(&format!("rng.cuda{}", rng.cuda.len()))? {
        rng.cuda.push(device);
    }
    optimizer.load_state(&tensors, updates, path)?;
    if let Some(ema) = ema {
        ema.restore(&tensors, path)?;
    }
    Ok(rng.restore()?)
}

/// Replaces `state.json` in one stroke.
fn write_state(folder: &Path, state: &State) -> Result<()> {
    let (path, next) = (folder.join(STATE_FILE), folder.join(".state.json"));
    let text = serde_json::to_vec_pretty(state).map_err(|e| Error::checkpoint(&path, e.to_string()))?;
    let write = || {
        let mut file = File::create(&next)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&next, &path)
    };
    write().map_err(Error::io("writing", &path))?;
    sync(folder)
}

/// Brings a file, or the names in a folder, to the disk.
fn sync(path: &Path) -> Result<()> {
    File::open(path).and_then(|file| file.sync_all()).map_err(Error::io("syncing", path))
}

/// Removes a file, a link or a folder; nothing there is fine.
fn remove(path: &Path) -> Result<()> {
    let result = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    };
    result.map_err(Error::io("removing", path))
}
