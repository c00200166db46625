//! Weight files: safetensors with a model card inside, and PyTorch's `.pth` to read.
//!
//! A file of ours holds, under the one metadata key `whitebox`, a [`Card`]: the config from which the model can be built
//! again, the class names and how images are prepared. So a checkpoint explains itself. Loading is strict: every
//! parameter of the model must be in the file and every tensor of the file in the model, with the same shape.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tch::{Kind, Tensor};
use torch_extras::pth::{self, DType, RawTensor};

use crate::embed::interpolate_positions;
use crate::{Error, ModelConfig, Result};

const METADATA_KEY: &str = "whitebox";
const CARD_FORMAT: u32 = 1;

/// What a weight file says of itself; `M` describes the model, here a [`ModelConfig`], in other crates one of theirs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Card<M = ModelConfig> {
    /// Version of this card. Now: 1.
    pub format: u32,
    /// The model.
    pub model: M,
    /// Class names by index; empty where unknown.
    #[serde(default)]
    pub classes: Vec<String>,
    /// Where its images come from and how they are prepared: the data section of its recipe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<serde_json::Value>,
    /// What it was trained to do: the task section of its recipe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<Value>,
    /// The command that made the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
}

impl<M> Card<M> {
    /// A card of a model, nothing else known.
    pub fn new(model: M) -> Self {
        Card { format: CARD_FORMAT, model, classes: Vec::new(), data: None, task: None, command: None }
    }

    /// The same card of another model.
    pub fn of<N>(self, model: N) -> Card<N> {
        let Card { format, classes, data, task, command, .. } = self;
        Card { format, model, classes, data, task, command }
    }
}

/// The tensors of a file, with its card where it has one.
#[derive(Debug)]
pub struct Weights {
    /// Where they come from.
    pub path: PathBuf,
    /// By name.
    pub tensors: BTreeMap<String, RawTensor>,
    /// The card of a file of ours; [`Weights::card_of`] reads what model it describes.
    pub card: Option<Card<Value>>,
    /// What was done to reach the tensors (nested dictionary, stripped prefix), for the user to see.
    pub notes: Vec<String>,
}

/// Leniency that must be asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoadOptions {
    /// Leave the classification head as drawn, because the number of classes changes.
    pub replace_head: bool,
    /// Interpolate the table of positions where the grid of patches changes.
    pub positions: Option<Regrid>,
}

/// A change of the grid of patches, each given as rows and columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Regrid {
    /// The grid of the file.
    pub from: [i64; 2],
    /// The grid of the model.
    pub to: [i64; 2],
}

impl Weights {
    /// Opens safetensors or a PyTorch checkpoint; the content decides, not the name.
    pub fn open(path: &Path) -> Result<Self> {
        let mut head = [0u8; 9];
        let read = std::fs::File::open(path).and_then(|f| std::io::Read::read(&mut { f }, &mut head));
        let read = read.map_err(|e| file_error(path, format!("cannot be read: {e}")))?;
        if read == head.len() && head[8] == b'{' { Self::open_safetensors(path) } else { Self::open_pth(path) }
    }

    fn open_pth(path: &Path) -> Result<Self> {
        let checkpoint = pth::read(path)?;
        let state = checkpoint.locate()?;
        let mut notes = Vec::new();
        if !state.path.is_empty() {
            notes.push(format!("the weights lie under `{}` in the file", state.path.join(".")));
        }
        if !state.stripped.is_empty() {
            notes.push(format!("`{}` was taken off the front of every name", state.stripped));
        }
        let tensors = checkpoint.load(state.tensors)?.into_iter().collect();
        Ok(Weights { path: path.to_owned(), tensors, card: None, notes })
    }

    fn open_safetensors(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|e| file_error(path, format!("cannot be read: {e}")))?;
        let broken = |e: safetensors::SafeTensorError| {
            file_error(path, format!("is not a whole safetensors file ({e}); copy or make it again"))
        };
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(broken)?;
        let card = match header.metadata().as_ref().and_then(|m| m.get(METADATA_KEY)) {
            Some(text) => Some(serde_json::from_str::<Card<Value>>(text).map_err(|e| unreadable(path, &e))?),
            None => None,
        };
        if let Some(Card { format, .. }) = card.as_ref().filter(|card| card.format != CARD_FORMAT) {
            let problem = format!(
                "its model card is of format {format}, this version reads {CARD_FORMAT}: it was made by a newer one"
            );
            return Err(file_error(path, problem));
        }
        let mut tensors = BTreeMap::new();
        for (name, view) in SafeTensors::deserialize(&bytes).map_err(broken)?.iter() {
            let dtype = from_safetensors(view.dtype()).ok_or_else(|| {
                file_error(path, format!("tensor `{name}` is of type {:?}, which libtorch cannot hold", view.dtype()))
            })?;
            tensors
                .insert(name.to_owned(), RawTensor { dtype, shape: view.shape().to_vec(), data: view.data().to_vec() });
        }
        Ok(Weights { path: path.to_owned(), tensors, card, notes: Vec::new() })
    }

    /// The card of a file of ours, for a model that an `M` describes.
    ///
    /// # Errors
    /// A card of another kind of model, or of another version.
    pub fn card_of<M: DeserializeOwned>(&self) -> Result<Option<Card<M>>> {
        let Some(card) = self.card.clone() else { return Ok(None) };
        let model = serde_json::from_value(card.model.clone()).map_err(|e| unreadable(&self.path, &e))?;
        Ok(Some(card.of(model)))
    }

    /// Copies the tensors into the variables of a model; all or nothing.
    ///
    /// # Errors
    /// One [`Error::Mismatch`] that lists everything missing, unused and mis-shaped.
    pub fn load_into(&self, variables: &HashMap<String, Tensor>, options: LoadOptions) -> Result<()> {
        let mut report = String::new();
        let mut copies = Vec::new();
        let mut names: Vec<_> = variables.keys().collect();
        names.sort();
        for name in names {
            let variable = &variables[name];
            if options.replace_head && is_head(name) {
                continue;
            }
            let Some(raw) = self.tensors.get(name) else {
                report += &format!("\n  missing: {name} {:?}", variable.size());
                continue;
            };
            let value = fitted(name, to_tensor(raw)?, options);
            if value.size() == variable.size() {
                copies.push((variable, value));
            } else {
                let (found, expected) = (value.size(), variable.size());
                report += &format!("\n  mis-shaped: {name} is {found:?} in the file, {expected:?} in the model");
            }
        }
        for name in self.tensors.keys().filter(|name| !variables.contains_key(*name) && !is_batch_count(name)) {
            report += &format!("\n  unused: {name} {:?}", self.tensors[name].shape);
        }
        if !report.is_empty() && report.lines().skip(1).all(|line| line.contains("head")) {
            report +=
                "\n(the head alone differs: another number of classes; LoadOptions::replace_head leaves it as drawn)";
        }
        if !report.is_empty() {
            return Err(Error::Mismatch { path: self.path.display().to_string(), report });
        }
        tch::no_grad(|| {
            for (variable, value) in copies {
                variable.shallow_clone().f_copy_(&value)?;
            }
            Ok(())
        })
    }
}

/// A table of positions brought to the model's grid, where that was asked for; anything else as it is.
fn fitted(name: &str, value: Tensor, options: LoadOptions) -> Tensor {
    match options.positions {
        Some(Regrid { from: from @ [rows, columns], to })
            if is_positions(name) && value.size().get(1) == Some(&(rows * columns + 1)) =>
        {
            interpolate_positions(&value.to_kind(Kind::Float), from, to)
        }
        _ => value,
    }
}

/// Whether a parameter belongs to the classification head, which a new number of classes replaces.
pub fn is_head(name: &str) -> bool {
    matches!(name, "mlp_head.1.weight" | "mlp_head.1.bias" | "head.weight" | "head.bias")
}

/// PyTorch's BatchNorm counts batches in a tensor that nothing reads, so no model here has it.
fn is_batch_count(name: &str) -> bool {
    name.ends_with(".num_batches_tracked")
}

fn is_positions(name: &str) -> bool {
    matches!(name, "pos_embedding" | "pos_embed")
}

/// Writes the variables with their card; the file appears whole or not at all.
pub fn save<M: Serialize>(path: &Path, variables: &HashMap<String, Tensor>, card: &Card<M>) -> Result<()> {
    let tensors = variables
        .iter()
        .map(|(name, tensor)| Ok((name.clone(), from_tensor(tensor)?)))
        .collect::<Result<BTreeMap<_, _>>>()?;
    save_raw(path, &tensors, Some(card))
}

/// Writes tensors as safetensors, with a card where there is one; the file appears whole or not at all.
pub fn save_raw<M: Serialize>(
    path: &Path,
    tensors: &BTreeMap<String, RawTensor>,
    card: Option<&Card<M>>,
) -> Result<()> {
    let failed = |what: String| file_error(path, format!("cannot be written: {what}"));
    let mut views = Vec::with_capacity(tensors.len());
    for (name, raw) in tensors {
        let view = TensorView::new(to_safetensors(raw.dtype), raw.shape.clone(), &raw.data);
        views.push((name.as_str(), view.map_err(|e| failed(format!("tensor `{name}`: {e}")))?));
    }
    let metadata = match card {
        Some(card) => {
            let text = serde_json::to_string(card).map_err(|e| failed(e.to_string()))?;
            Some(HashMap::from([(METADATA_KEY.to_owned(), text)]))
        }
        None => None,
    };
    let bytes = safetensors::serialize(views, metadata).map_err(|e| failed(e.to_string()))?;
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let write = || -> std::io::Result<()> {
        let mut file =
            tempfile::Builder::new().prefix(".weights-").suffix(".tmp").permissions(readable()).tempfile_in(folder)?;
        file.write_all(&bytes)?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|e| e.error)?;
        Ok(())
    };
    write().map_err(|e| failed(format!("{e}; nothing was overwritten")))
}

/// A libtorch tensor on the CPU, from plain bytes.
pub fn to_tensor(raw: &RawTensor) -> Result<Tensor> {
    let kind = match raw.dtype {
        DType::F64 => Kind::Double,
        DType::F32 => Kind::Float,
        DType::F16 => Kind::Half,
        DType::BF16 => Kind::BFloat16,
        DType::I64 => Kind::Int64,
        DType::I32 => Kind::Int,
        DType::I16 => Kind::Int16,
        DType::I8 => Kind::Int8,
        DType::U8 => Kind::Uint8,
        DType::Bool => Kind::Bool,
    };
    let size: Vec<i64> = raw.shape.iter().map(|&x| x as i64).collect();
    Ok(Tensor::f_from_data_size(&raw.data, &size, kind)?)
}

/// Plain bytes of a libtorch tensor of any device.
pub fn from_tensor(tensor: &Tensor) -> Result<RawTensor> {
    let dtype = match tensor.kind() {
        Kind::Double => DType::F64,
        Kind::Float => DType::F32,
        Kind::Half => DType::F16,
        Kind::BFloat16 => DType::BF16,
        Kind::Int64 => DType::I64,
        Kind::Int => DType::I32,
        Kind::Int16 => DType::I16,
        Kind::Int8 => DType::I8,
        Kind::Uint8 => DType::U8,
        Kind::Bool => DType::Bool,
        other => return Err(Error::Config(format!("a tensor of kind {other:?} cannot be written to a file"))),
    };
    let tensor = tensor.detach().to_device(tch::Device::Cpu).contiguous();
    let mut data = vec![0u8; tensor.numel() * dtype.size()];
    tensor.f_copy_data_u8(&mut data, tensor.numel())?;
    Ok(RawTensor { dtype, shape: tensor.size().iter().map(|&x| x as usize).collect(), data })
}

fn from_safetensors(dtype: Dtype) -> Option<DType> {
    Some(match dtype {
        Dtype::F64 => DType::F64,
        Dtype::F32 => DType::F32,
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::BF16,
        Dtype::I64 => DType::I64,
        Dtype::I32 => DType::I32,
        Dtype::I16 => DType::I16,
        Dtype::I8 => DType::I8,
        Dtype::U8 => DType::U8,
        Dtype::BOOL => DType::Bool,
        _ => return None,
    })
}

fn to_safetensors(dtype: DType) -> Dtype {
    match dtype {
        DType::F64 => Dtype::F64,
        DType::F32 => Dtype::F32,
        DType::F16 => Dtype::F16,
        DType::BF16 => Dtype::BF16,
        DType::I64 => Dtype::I64,
        DType::I32 => Dtype::I32,
        DType::I16 => Dtype::I16,
        DType::I8 => Dtype::I8,
        DType::U8 => Dtype::U8,
        DType::Bool => Dtype::BOOL,
    }
}

fn unreadable(path: &Path, error: &serde_json::Error) -> Error {
    file_error(path, format!("its model card cannot be read ({error}); it was made by another version"))
}

fn file_error(path: &Path, problem: String) -> Error {
    Error::File { path: path.display().to_string(), problem }
}

/// The permissions of an ordinary new file (the umask is taken off): a temporary file would keep its content to its owner.
fn readable() -> std::fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(0o666)
}
