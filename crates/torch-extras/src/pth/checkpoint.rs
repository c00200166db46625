//! A checkpoint's structure, and the weights in it: wherever the training script has put them, under the names of the bare model.

use std::collections::HashSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::archive::Archive;
use super::error::{Error, Problem, Result};
use super::pickle;
use super::tensor::{RawTensor, TENSOR_GROWTH, TensorRef};
use super::value::{Value, unfold};

/// Keys under which training scripts keep the weights, the likeliest first.
const USUAL_KEYS: [&str; 9] =
    ["state_dict", "model_state_dict", "model_state", "model", "module", "net", "teacher", "student", "params"];

/// What `nn.DataParallel` and `torch.compile` put before every name.
const WRAPPERS: [&str; 2] = ["module.", "_orig_mod."];

/// How many dictionaries may lie around the weights.
const MAX_NESTING: usize = 3;

/// An open checkpoint file: the structure in memory, the tensors on disk.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    root: Value,
    archive: Mutex<Archive>,
}

/// Where the weights were found and what they are called, before they are read.
#[derive(Clone, Debug, PartialEq)]
pub struct StateDict<'a> {
    /// Keys from the root to the dictionary; empty where the root is it.
    pub path: Vec<String>,
    /// What was taken off the front of every name, as `module.`; empty where nothing was.
    pub stripped: String,
    /// Names (stripped) and tensors, in the file's order.
    pub tensors: Vec<(String, &'a TensorRef)>,
}

/// Opens a checkpoint and reads its structure; nothing in the file is executed.
///
/// # Errors
/// [`Error::Io`] where the file cannot be read, [`Error::File`] where it is no checkpoint, is damaged, or wants to run code.
pub fn read(path: &Path) -> Result<Checkpoint> {
    let io = |source| Error::Io { action: "open", path: path.to_owned(), source };
    let metadata = std::fs::metadata(path).map_err(io)?;
    if !metadata.is_file() {
        return Err(io(std::io::Error::other("not a regular file")));
    }
    let file = File::open(path).map_err(io)?;
    let parse = || {
        let mut archive = Archive::open(file, metadata.len())?;
        let pickle = archive.read("data.pkl")?;
        let root = unfold(&pickle::parse(&pickle)?, pickle.len())?;
        Ok((root, archive))
    };
    let (root, archive) = parse().map_err(|problem| Error::File { path: path.to_owned(), problem })?;
    Ok(Checkpoint { path: path.to_owned(), root, archive: Mutex::new(archive) })
}

impl Checkpoint {
    /// The whole structure.
    pub fn root(&self) -> &Value {
        &self.root
    }

    /// Reads one tensor.
    ///
    /// # Errors
    /// [`Error::File`] where its storage is missing, damaged or shorter than the tensor needs, or where it is expanded to more
    /// than [`TENSOR_GROWTH`] times the file.
    pub fn tensor(&self, tensor: &TensorRef) -> Result<RawTensor> {
        let mut tensors = self.load(vec![(String::new(), tensor)])?;
        tensors.pop().map(|(_, t)| t).ok_or_else(|| self.fault(Problem::NoStateDict("no tensor was read".into())))
    }

    /// The weights, read: [`Checkpoint::locate`] followed by [`Checkpoint::load`].
    ///
    /// # Errors
    /// Those of the two.
    pub fn state_dict(&self) -> Result<Vec<(String, RawTensor)>> {
        self.load(self.locate()?.tensors)
    }

    /// Finds the dictionary of tensors: the root itself, or what lies under one of the usual keys (`state_dict`, `model`, ...),
    /// at most three deep.
    ///
    /// # Errors
    /// [`Problem::NoStateDict`] where there is none; the message lists the keys there are.
    pub fn locate(&self) -> Result<StateDict<'_>> {
        let (path, tensors) = find(&self.root, MAX_NESTING).ok_or_else(|| self.fault(no_state_dict(&self.root)))?;
        self.strip(path, tensors)
    }

    /// As [`Checkpoint::locate`], for the dictionary under the given keys, as `["teacher"]`.
    ///
    /// # Errors
    /// [`Problem::NoStateDict`] where there is no dictionary of tensors.
    pub fn locate_at(&self, path: &[&str]) -> Result<StateDict<'_>> {
        let value = path.iter().try_fold(&self.root, |value, key| value.get(key));
        let tensors = value.and_then(tensors).ok_or_else(|| {
            let path = path.join(".");
            self.fault(Problem::NoStateDict(format!(
                "there is no dictionary of tensors at `{path}`: {}",
                outline(&self.root)
            )))
        })?;
        self.strip(path.iter().map(|&key| key.to_owned()).collect(), tensors)
    }

    /// Reads tensors, each storage once.
    ///
    /// # Errors
    /// Those of [`Checkpoint::tensor`], the limit counting all tensors together.
    pub fn load(&self, tensors: Vec<(String, &TensorRef)>) -> Result<Vec<(String, RawTensor)>> {
        let mut archive = self.archive.lock().unwrap_or_else(PoisonError::into_inner);
        load(&mut archive, tensors).map_err(|problem| self.fault(problem))
    }

    fn fault(&self, problem: Problem) -> Error {
        Error::File { path: self.path.clone(), problem }
    }

    fn strip<'a>(&'a self, path: Vec<String>, tensors: Vec<(&'a str, &'a TensorRef)>) -> Result<StateDict<'a>> {
        let (tensors, stripped) = strip(tensors);
        let mut seen = HashSet::new();
        if let Some((name, _)) = tensors.iter().find(|(name, _)| !seen.insert(*name)) {
            let found = "the name is there twice once its wrapper's prefix is off".into();
            return Err(self.fault(Problem::Tensor { tensor: format!("`{name}`"), found }));
        }
        let tensors = tensors.into_iter().map(|(name, t)| (name.to_owned(), t)).collect();
        Ok(StateDict { path, stripped, tensors })
    }
}

type Named<'a> = Vec<(&'a str, &'a TensorRef)>;

/// The tensors of a dictionary that holds nothing else (apart from a module's `_extra_state`).
fn tensors(value: &Value) -> Option<Named<'_>> {
    let Value::Dict(items) = value else { return None };
    let mut tensors = Vec::with_capacity(items.len());
    for item in items {
        match item {
            (Value::Str(name), Value::Tensor(tensor)) => tensors.push((name.as_str(), tensor)),
            (Value::Str(name), _) if name.ends_with("_extra_state") => {}
            _ => return None,
        }
    }
    Some(tensors)
}

fn find(value: &Value, depth: usize) -> Option<(Vec<String>, Named<'_>)> {
    if let Some(tensors) = tensors(value) {
        return Some((Vec::new(), tensors));
    }
    if depth == 0 {
        return None;
    }
    USUAL_KEYS.iter().find_map(|&key| {
        let (mut path, tensors) = find(value.get(key)?, depth - 1)?;
        path.insert(0, key.to_owned());
        Some((path, tensors))
    })
}

/// Takes off the prefixes that all names share with a wrapper.
fn strip(mut tensors: Named<'_>) -> (Named<'_>, String) {
    let mut stripped = String::new();
    if tensors.is_empty() {
        return (tensors, stripped);
    }
    while let Some(wrapper) = WRAPPERS.iter().find(|w| tensors.iter().all(|(name, _)| name.starts_with(**w))) {
        tensors.iter_mut().for_each(|(name, _)| *name = &name[wrapper.len()..]);
        stripped.push_str(wrapper);
    }
    (tensors, stripped)
}

fn no_state_dict(root: &Value) -> Problem {
    Problem::NoStateDict(match root {
        Value::Opaque { module, name } => format!(
            "the file holds a whole object of class `{module}.{name}`, which takes its Python code to rebuild: in Python, save \
             its weights alone with `torch.save(model.state_dict(), ...)`"
        ),
        _ => format!("{}, and none of {USUAL_KEYS:?} leads to a dictionary of tensors", outline(root)),
    })
}

/// What the root is, in a few words.
fn outline(root: &Value) -> String {
    match root {
        Value::Dict(items) => {
            let short = |text: String| text.chars().take(40).collect::<String>();
            let keys: Vec<_> = items
                .iter()
                .take(8)
                .map(|(key, _)| match key {
                    Value::Str(key) => short(format!("{key:?}")),
                    other => short(format!("{other:?}")),
                })
                .collect();
            let more = if items.len() > keys.len() { ", ..." } else { "" };
            format!("the root is a dictionary with the keys [{}{more}]", keys.join(", "))
        }
        Value::List(_) | Value::Tuple(_) => "the root is a list".into(),
        Value::Tensor(_) => "the root is a single tensor".into(),
        Value::Opaque { module, name } => format!("the root is an object of class `{module}.{name}`"),
        _ => "the root is a plain value".into(),
    }
}

fn load(
    archive: &mut Archive,
    tensors: Vec<(String, &TensorRef)>,
) -> std::result::Result<Vec<(String, RawTensor)>, Problem> {
    let wanted = tensors.iter().map(|(_, t)| t.byte_len() as u128).sum();
    let limit = u128::from(archive.file_len()) * u128::from(TENSOR_GROWTH) + (1 << 20);
    if wanted > limit {
        return Err(Problem::TooLarge { what: "the tensors".into(), wanted, limit });
    }
    // In the storages' order, so that one shared by many tensors is read once and let go.
    let mut order: Vec<_> = tensors.into_iter().enumerate().collect();
    order.sort_by(|(_, (_, a)), (_, (_, b))| a.storage().key.cmp(&b.storage().key));
    let mut loaded = Vec::with_capacity(order.len());
    let mut current: Option<(&str, Vec<u8>)> = None;
    for (position, (name, tensor)) in order {
        let key = tensor.storage().key.as_str();
        let bytes = match &mut current {
            Some((held, bytes)) if *held == key => bytes,
            _ => {
                current = None;
                &mut current.insert((key, archive.read(&format!("data/{key}"))?)).1
            }
        };
        let described =
            || if name.is_empty() { format!("the tensor on storage `{key}`") } else { format!("tensor `{name}`") };
        let raw = tensor.gather(bytes).ok_or_else(|| Problem::Tensor {
            tensor: described(),
            found: format!(
                "its storage has {} bytes, {} announced: the file is damaged",
                bytes.len(),
                tensor.storage().len
            ),
        })?;
        raw.check().map_err(|found| Problem::Tensor { tensor: described(), found })?;
        loaded.push((position, (name, raw)));
    }
    loaded.sort_by_key(|(position, _)| *position);
    Ok(loaded.into_iter().map(|(_, tensor)| tensor).collect())
}
