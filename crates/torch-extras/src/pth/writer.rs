//! Checkpoint files as `torch.save` writes them, so that `torch.load(..., weights_only=True)` reads them.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::error::{Error, Problem, Result};
use super::tensor::RawTensor;

/// torch aligns storages so that they can be mapped into memory.
const ALIGNMENT: u16 = 64;

/// Where an entry needs the archive's 64-bit fields.
const LARGE: usize = u32::MAX as usize;

/// Writes tensors as an ordered dictionary, alone or as the value of the key `nested` in an outer dictionary.
///
/// The file is written beside its place and renamed: a crash leaves the old file or the new one.
///
/// # Errors
/// [`Error::File`] where a name is there twice or a tensor's bytes do not fit its shape, [`Error::Io`] where the disk refuses.
pub fn write(path: &Path, tensors: &[(String, RawTensor)], nested: Option<&str>) -> Result<()> {
    let io = |source| Error::Io { action: "write", path: path.to_owned(), source };
    let file = |problem| Error::File { path: path.to_owned(), problem };
    check(tensors).map_err(file)?;
    let pickle = pickle(tensors, nested).map_err(file)?;
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    builder.prefix(".pth-").suffix(".tmp");
    // What a plain file gets, so that others may read it where the user's umask lets them.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut beside = builder.tempfile_in(folder).map_err(io)?;
    write_archive(beside.as_file_mut(), &pickle, tensors).map_err(|e| match e {
        zip::result::ZipError::Io(source) => io(source),
        other => file(Problem::Zip(other)),
    })?;
    beside.as_file().sync_all().map_err(io)?;
    beside.persist(path).map_err(|e| io(e.error))?;
    Ok(())
}

fn check(tensors: &[(String, RawTensor)]) -> std::result::Result<(), Problem> {
    let mut seen = HashSet::new();
    for (name, tensor) in tensors {
        let twice = || Err("the name is there twice".to_owned());
        let checked = if seen.insert(name) { tensor.check() } else { twice() };
        checked.map_err(|found| Problem::Tensor { tensor: format!("tensor `{name}`"), found })?;
    }
    Ok(())
}

fn write_archive(file: &mut File, pickle: &[u8], tensors: &[(String, RawTensor)]) -> zip::result::ZipResult<()> {
    let mut zip = ZipWriter::new(BufWriter::new(file));
    let mut entry = |name: &str, data: &[u8]| {
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Stored)
            .with_alignment(ALIGNMENT)
            .large_file(data.len() >= LARGE);
        zip.start_file(format!("archive/{name}"), options)?;
        zip.write_all(data)?;
        Ok::<_, zip::result::ZipError>(())
    };
    entry("data.pkl", pickle)?;
    entry("byteorder", b"little")?;
    for (key, (_, tensor)) in tensors.iter().enumerate() {
        entry(&format!("data/{key}"), &tensor.data)?;
    }
    entry("version", b"3\n")?;
    zip.finish()?.flush()?;
    Ok(())
}

/// `{nested: OrderedDict(tensors)}`, or the inner dictionary alone, in protocol 2.
fn pickle(tensors: &[(String, RawTensor)], nested: Option<&str>) -> std::result::Result<Vec<u8>, Problem> {
    const EMPTY_ORDERED_DICT: &[u8] = b"ccollections\nOrderedDict\n)R";
    let mut out = vec![0x80, 2];
    if let Some(key) = nested {
        out.push(b'}');
        text(&mut out, key)?;
    }
    out.extend_from_slice(EMPTY_ORDERED_DICT);
    out.push(b'(');
    for (key, (name, tensor)) in tensors.iter().enumerate() {
        let size = tensor.dtype.size();
        text(&mut out, name)?;
        out.extend_from_slice(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        text(&mut out, "storage")?;
        out.extend_from_slice(format!("ctorch\n{}\n", tensor.dtype.storage_name()).as_bytes());
        text(&mut out, &key.to_string())?;
        text(&mut out, "cpu")?;
        int(&mut out, tensor.data.len() / size);
        out.extend_from_slice(b"tQK\0");
        tuple(&mut out, tensor.shape.iter().copied());
        let mut strides: Vec<usize> = Vec::with_capacity(tensor.shape.len());
        let mut stride: usize = 1;
        for &n in tensor.shape.iter().rev() {
            strides.push(stride);
            stride = stride.saturating_mul(n.max(1));
        }
        tuple(&mut out, strides.into_iter().rev());
        // requires_grad False, no hooks
        out.push(0x89);
        out.extend_from_slice(EMPTY_ORDERED_DICT);
        out.extend_from_slice(b"tR");
    }
    out.push(b'u');
    if nested.is_some() {
        out.push(b's');
    }
    out.push(b'.');
    Ok(out)
}

fn text(out: &mut Vec<u8>, text: &str) -> std::result::Result<(), Problem> {
    let len = u32::try_from(text.len())
        .map_err(|_| Problem::Tensor { tensor: "a tensor".into(), found: "its name is longer than 4 GiB".into() })?;
    out.push(b'X');
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(text.as_bytes());
    Ok(())
}

/// An integer of up to nine bytes, the ninth keeping it positive.
fn int(out: &mut Vec<u8>, n: usize) {
    match i32::try_from(n) {
        Ok(n) => {
            out.push(b'J');
            out.extend_from_slice(&n.to_le_bytes());
        }
        Err(_) => {
            out.extend_from_slice(&[0x8a, 9]);
            out.extend_from_slice(&(n as u64).to_le_bytes());
            out.push(0);
        }
    }
}

fn tuple(out: &mut Vec<u8>, items: impl Iterator<Item = usize>) {
    out.push(b'(');
    items.for_each(|n| int(out, n));
    out.push(b't');
}
