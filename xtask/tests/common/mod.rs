//! A clone, a cache and tiny wheels for the tests: the shape of the real ones, a few hundred bytes each.
#![allow(dead_code)] // each test file uses its part

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use indicatif::ProgressBar;
use tempfile::TempDir;
use xtask::files::sha256;
use xtask::libtorch::VERSION;
use xtask::pins::Lock;
use xtask::places::Places;
use xtask::setup::Setup;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

/// The headers that a libtorch must have.
pub const HEADERS: [&str; 3] = ["ATen/ATen.h", "c10/core/Device.h", "torch/csrc/api/include/torch/torch.h"];

/// A machine of its own in a temporary folder.
pub struct Machine {
    pub folder: TempDir,
    pub setup: Setup,
}

impl Machine {
    /// A clone without libtorch, an empty cache, whole wheels in `wheels`, a Python whose pip copies them.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["clone/xtask", "clone/data", "wheels"] {
            fs::create_dir_all(at(name)).unwrap();
        }
        fs::write(at("clone/data/README.md"), "sets").unwrap();
        let cpu = wheels(&at("wheels"), &[]);
        let cuda = Lock::parse(&cpu.text.replace("torch==", "torch-of-another-kind==")).unwrap();
        let cache = at("cache/whitebox");
        let places = Places { root: at("clone"), data: cache.join("data"), cache };
        let python = at("python3");
        script(&python, &pip(&format!("cp {}/*.whl \"$d\"", at("wheels").display()), folder.path()));
        let reference = cpu.clone();
        Self { setup: Setup { places, cpu, cuda, reference, python, user_libtorch: None }, folder }
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What pip does from now on: a line of shell, with the download folder in `$d`.
    pub fn pip(&self, does: &str) {
        script(&self.setup.python, &pip(does, self.folder.path()));
    }

    /// How often pip was asked for a download.
    pub fn downloads(&self) -> usize {
        fs::read_to_string(self.at("pip.log")).unwrap_or_default().lines().count()
    }

    /// The names in the cache that would count as a libtorch.
    pub fn cached(&self) -> Vec<String> {
        self.cached_as("libtorch")
    }

    /// The names in the cache that begin so.
    pub fn cached_as(&self, beginning: &str) -> Vec<String> {
        let entries = fs::read_dir(&self.setup.places.cache).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.filter(|name| name.starts_with(beginning)).collect()
    }
}

fn pip(does: &str, folder: &Path) -> String {
    format!(
        "#!/bin/sh\ncase \"$1 $2\" in *version_info*) echo 3.11; exit 0;; esac\n\
         if [ \"$1\" = -c ]; then cat {0}/python-torch 2>/dev/null; exit 0; fi\n\
         if [ \"$1\" = -s ]; then echo \"$PYTHONPATH\" >> {0}/imports; cat {0}/broken >&2 2>/dev/null && exit 1; exit 0; fi\n\
         if [ \"$3\" = --version ]; then exit 0; fi\n\
         while [ $# -gt 1 ]; do [ \"$1\" = -d ] && d=\"$2\"; shift; done\necho download >> {0}/pip.log\n{does}\n",
        folder.display()
    )
}

/// Writes an executable script. Another process writes it: a file that this one has open for writing, even for a
/// moment, may be "busy" when another thread has just forked.
pub fn script(path: &Path, text: &str) {
    let write = "printf %s \"$1\" > \"$2\" && chmod 755 \"$2\"";
    assert!(Command::new("sh").args(["-c", write, "sh", text]).arg(path).status().unwrap().success());
}

/// The smallest file that passes for an x86-64 ELF library.
pub fn library() -> Vec<u8> {
    let mut header = vec![0; 64];
    header[..6].copy_from_slice(b"\x7fELF\x02\x01");
    header[18] = 62;
    header
}

/// Writes a torch and an NVIDIA wheel into `folder`, the torch wheel with `extra` entries, and gives their pins.
pub fn wheels(folder: &Path, extra: &[&str]) -> Lock {
    let elf = library();
    let mut torch: Vec<(String, &[u8])> =
        HEADERS.iter().map(|header| (format!("torch/include/{header}"), &b"// header\n"[..])).collect();
    for name in ["libtorch_cpu.so", "libc10.so", "libtorch.so", "libtorch_python.so", "libtorch_cuda.so"] {
        torch.push((format!("torch/lib/{name}"), &elf));
    }
    torch.push(("torch/__init__.py".to_owned(), b"pass\n"));
    torch.extend(extra.iter().map(|name| ((*name).to_owned(), &b"evil\n"[..])));
    let runtime = [("nvidia/cu13/lib/libcudart.so.13".to_owned(), &elf[..])];
    let mut text = "# download 2000 bytes, unpacked 1000 bytes\n".to_owned();
    for (name, version, file, entries) in [
        ("torch", VERSION, "cp311-cp311-manylinux_2_28_x86_64", &torch[..]),
        ("nvidia-cuda-runtime", "13.0.96", "py3-none-manylinux2014_x86_64", &runtime[..]),
    ] {
        let path = folder.join(format!("{}-{version}-{file}.whl", name.replace('-', "_")));
        zip_of(&path, entries);
        let hash = sha256(File::open(&path).unwrap(), &ProgressBar::hidden()).unwrap();
        text += &format!("{name}=={version} --hash=sha256:{hash}\n");
    }
    Lock::parse(&text).unwrap()
}

/// Writes a zip file with these entries.
pub fn zip_of(path: &Path, entries: &[(String, &[u8])]) {
    let mut zip = ZipWriter::new(File::create(path).unwrap());
    for (name, content) in entries {
        zip.start_file(name.as_str(), SimpleFileOptions::default()).unwrap();
        zip.write_all(content).unwrap();
    }
    zip.finish().unwrap();
}

/// A Python package's torch folder of some version.
pub fn python_package(folder: &Path, version: &str) -> PathBuf {
    let torch = folder.join("site-packages/torch");
    for header in HEADERS {
        let path = torch.join("include").join(header);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "// header\n").unwrap();
    }
    fs::create_dir_all(torch.join("lib")).unwrap();
    for name in ["libtorch_cpu.so", "libc10.so"] {
        fs::write(torch.join("lib").join(name), library()).unwrap();
    }
    fs::write(torch.join("version.py"), format!("__version__ = '{version}'\n")).unwrap();
    torch
}
