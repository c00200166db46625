//! Named tensors to and from a safetensors file: the optimiser's half of a checkpoint. Tasks may use it for theirs.

use std::collections::BTreeMap;
use std::path::Path;

use tch::{Device, Tensor};

use crate::error::{Error, Result};

/// Writes the tensors, whatever their device and layout, to `path`.
///
/// # Errors
/// Those of the file system; kinds that safetensors does not know.
pub fn write(path: &Path, tensors: &[(String, Tensor)]) -> Result<()> {
    let plain = tensors
        .iter()
        .map(|(name, tensor)| Ok((name.as_str(), tensor.f_detach()?.f_to_device(Device::Cpu)?.f_contiguous()?)))
        .collect::<Result<Vec<_>>>()?;
    Ok(Tensor::write_safetensors(&plain, path)?)
}

/// Reads all tensors of a file, on the CPU.
///
/// # Errors
/// A file that cannot be read or is no safetensors file.
pub fn read(path: &Path) -> Result<BTreeMap<String, Tensor>> {
    Ok(Tensor::read_safetensors(path)?.into_iter().collect())
}

/// Copies `from[prefix + name]` into each of `into`; kinds and shapes must agree, so that nothing is rounded or broadcast.
///
/// # Errors
/// A missing tensor; another kind or shape.
pub fn copy_into(into: &[(String, Tensor)], from: &BTreeMap<String, Tensor>, prefix: &str, path: &Path) -> Result<()> {
    for (name, target) in into {
        let key = format!("{prefix}{name}");
        let found = from.get(&key).ok_or_else(|| Error::checkpoint(path, format!("holds no tensor {key:?}")))?;
        if (found.size(), found.kind()) != (target.size(), target.kind()) {
            let problem = format!(
                "{key:?} is {:?} {:?}, expected {:?} {:?}",
                found.kind(),
                found.size(),
                target.kind(),
                target.size()
            );
            return Err(Error::checkpoint(path, problem));
        }
        tch::no_grad(|| target.shallow_clone().f_copy_(found))?;
    }
    Ok(())
}
