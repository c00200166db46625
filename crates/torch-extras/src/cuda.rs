//! One executable for CPU and GPU machines: libtorch_cuda is loaded at run time when it lies beside the libtorch_cpu in use.
//!
//! libtorch's CUDA kernels and hooks register themselves when their library is loaded. It must be before the first question about
//! CUDA, whose answer libtorch remembers.

use std::ffi::{CStr, CString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use tch::{Cuda, Device};

use crate::error::{Error, Result, check};
use crate::ffi;

/// Loads `libtorch_cuda.so` from beside the `libtorch_cpu.so` of this process, once; later calls return the first answer. Call it
/// before anything asks libtorch about CUDA. `Ok` names the library; it does not yet say that there is a GPU.
///
/// # Errors
/// `NoCuda` with the reason: a libtorch without CUDA, or the loader's own message.
pub fn load_backend() -> Result<&'static Path> {
    static BACKEND: OnceLock<std::result::Result<PathBuf, String>> = OnceLock::new();
    match BACKEND.get_or_init(find_and_open) {
        Ok(path) => Ok(path),
        Err(reason) => Err(Error::NoCuda(reason.clone())),
    }
}

fn find_and_open() -> std::result::Result<PathBuf, String> {
    let maps = fs::read_to_string("/proc/self/maps").map_err(|e| format!("/proc/self/maps cannot be read: {e}"))?;
    let library = mapped(&maps, "libtorch_cpu.so")
        .ok_or("this executable runs without libtorch_cpu.so, beside which libtorch_cuda.so is looked for")?
        .with_file_name("libtorch_cuda.so");
    if !library.is_file() {
        return Err(format!(
            "{} does not exist: this libtorch is for the CPU alone (`cargo xtask setup --cuda` gets the other one)",
            library.display()
        ));
    }
    let name = CString::new(library.as_os_str().as_bytes()).map_err(|e| format!("{}: {e}", library.display()))?;
    // SAFETY: a NUL-terminated path; the library's initialisers are libtorch's own, made to run at load, and it is never unloaded.
    let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
    if handle.is_null() {
        // SAFETY: after a failed dlopen, dlerror gives a string that lives until this thread's next call of the dl functions.
        let reason = unsafe { CStr::from_ptr(libc::dlerror()) }.to_string_lossy().into_owned();
        return Err(format!("{} does not load: {reason}", library.display()));
    }
    Ok(library)
}

/// The path of the mapped file called `name`, from the text of /proc/self/maps.
fn mapped(maps: &str, name: &str) -> Option<PathBuf> {
    let path = |line: &str| line.find('/').and_then(|at| line.get(at..)).map(PathBuf::from);
    maps.lines().filter_map(path).find(|path| path.file_name().is_some_and(|file| file == name))
}

/// A device by its name: `cpu`, `cuda` (the first one), `cuda:1`, or `auto` (CUDA where there is one, else the CPU). Loads the CUDA
/// backend where it may be needed.
///
/// # Errors
/// An unknown name; CUDA asked for where it is missing, with the reason; a device number past the last.
///
/// ```
/// use tch::Device;
/// assert_eq!(torch_extras::cuda::device_from_str("cpu")?, Device::Cpu);
/// # Ok::<(), torch_extras::Error>(())
/// ```
pub fn device_from_str(name: &str) -> Result<Device> {
    match name {
        "cpu" => Ok(Device::Cpu),
        "auto" => {
            // Without the backend libtorch itself answers "no CUDA", which is all that matters here.
            let _ = load_backend();
            Ok(Device::cuda_if_available())
        }
        "cuda" => cuda_device(0),
        _ => {
            let index = name.strip_prefix("cuda:").and_then(|index| index.parse().ok());
            cuda_device(index.ok_or_else(|| {
                Error::Argument(format!("device {name:?} is unknown: expected auto, cpu, cuda or cuda:NUMBER"))
            })?)
        }
    }
}

fn cuda_device(index: usize) -> Result<Device> {
    let backend = load_backend();
    let count = usize::try_from(Cuda::device_count()).unwrap_or(0);
    match (count, backend) {
        (0, Err(reason)) => Err(reason),
        (0, Ok(library)) => Err(Error::NoCuda(format!(
            "{} is loaded, but finds no device: is there an NVIDIA GPU with a driver for CUDA 13 (see `nvidia-smi`)?",
            library.display()
        ))),
        _ if index < count => Ok(Device::Cuda(index)),
        _ => Err(Error::NoCuda(format!("cuda:{index} is past the last of {count} devices (they count from 0)"))),
    }
}

/// The most memory used so far, in bytes: on the CPU the process's peak resident set, on CUDA the peak that libtorch's allocator
/// reserved on that device. `None` where it is not known.
pub fn peak_memory(device: Device) -> Option<u64> {
    match device {
        Device::Cpu => peak_resident(&fs::read_to_string("/proc/self/status").ok()?),
        Device::Cuda(_) => {
            let mut bytes = 0;
            // SAFETY: the pointer is to a live local; the shim checks that CUDA's allocator is there.
            check(unsafe { ffi::te_cuda_peak_memory(ffi::device_number(device).ok()?, &mut bytes) }).ok()?;
            Some(bytes)
        }
        _ => None,
    }
}

/// VmHWM of a /proc/self/status text, in bytes.
fn peak_resident(status: &str) -> Option<u64> {
    let kib = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    kib.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Waits until the device has done all that was asked of it (on the CPU there is nothing to wait for): call it before reading a clock.
pub fn synchronize(device: Device) {
    if let Device::Cuda(index) = device
        && let Ok(index) = i64::try_from(index)
    {
        Cuda::synchronize(index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_devices() {
        assert!(matches!(device_from_str("cpu"), Ok(Device::Cpu)));
        assert!(device_from_str("auto").is_ok());
        for name in ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "cuda0", "CPU"] {
            let message = device_from_str(name).unwrap_err().to_string();
            assert!(message.contains("expected auto, cpu, cuda"), "{message}");
        }
    }

    #[test]
    fn cuda_is_there_or_the_reason_is_given() {
        match device_from_str("cuda") {
            Ok(device) => assert_eq!(device, Device::Cuda(0)),
            Err(error) => {
                assert!(error.to_string().starts_with("no CUDA: "), "{error}");
                assert!(error.to_string().contains("libtorch_cuda.so"), "{error}");
                assert_eq!(device_from_str("auto").unwrap(), Device::Cpu);
                assert_eq!(peak_memory(Device::Cuda(0)), None);
            }
        }
        assert!(device_from_str("cuda:1000").is_err());
    }

    #[test]
    fn the_backend_is_looked_for_beside_the_libtorch_in_use() {
        let maps = "7f00-7f01 r--p 00000000 08:01 42   /opt/a b/libtorch_cpu.so\n7f02-7f03 rw-p 00000000 00:00 0\n";
        assert_eq!(mapped(maps, "libtorch_cpu.so"), Some(PathBuf::from("/opt/a b/libtorch_cpu.so")));
        assert_eq!(mapped(maps, "libtorch_cuda.so"), None);
        let own = fs::read_to_string("/proc/self/maps").unwrap();
        Cuda::device_count(); // keeps libtorch linked
        assert!(mapped(&own, "libtorch_cpu.so").is_some());
    }

    #[test]
    fn peak_memory_of_the_process() {
        assert_eq!(peak_resident("Name:\tx\nVmHWM:\t  2048 kB\nVmRSS: 1 kB\n"), Some(2048 * 1024));
        assert_eq!(peak_resident("Name:\tx\n"), None);
        assert_eq!(peak_resident("VmHWM:\t lots kB\n"), None);
        assert!(peak_memory(Device::Cpu).is_some_and(|bytes| bytes > 1 << 20));
        synchronize(Device::Cpu);
    }
}
