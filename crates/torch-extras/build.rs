//! Compiles the C++ shim against libtorch's headers, and lets doc-tests find libtorch when they run.

use std::path::{Path, PathBuf};
use std::{env, fs, io, process};

fn main() {
    println!("cargo::rerun-if-changed=src/cpp");
    println!("cargo::rerun-if-env-changed=LIBTORCH");
    if let Err(message) = build() {
        println!("cargo::error={message}");
        process::exit(1);
    }
}

fn build() -> Result<(), String> {
    let libtorch = libtorch()?;
    let include = libtorch.join("include");
    cc::Build::new()
        .cpp(true)
        .files(
            [
                "shim",
                "function",
                "attention",
                "embedding",
                "pooling",
                "matrices",
                "rows",
                "rates",
                "steps",
                "counts",
                "kernels",
                "tiles",
            ]
            .map(|name| format!("src/cpp/{name}.cpp")),
        )
        // The kernels' loops are worth it in every profile; the three flags let the compiler vectorise what has no other meaning for it.
        .opt_level(3)
        // Without -fopenmp libtorch's headers would have at::parallel_for run on one thread.
        .flags(["-fopenmp", "-fno-math-errno", "-fno-trapping-math", "-mprefer-vector-width=512"])
        // How vectors would be passed to functions that are always inlined does not matter.
        .flag("-Wno-psabi")
        .flag("-std=c++17")
        .flag("-D_GLIBCXX_USE_CXX11_ABI=1")
        // As system headers, so that warnings speak of the shim alone.
        .flag("-isystem")
        .flag(include.as_os_str())
        .flag("-isystem")
        .flag(include.join("torch/csrc/api/include").as_os_str())
        .debug(false)
        .try_compile("torch_extras_shim")
        .map_err(|e| format!("the C++ shim of torch-extras does not compile against {}: {e}", libtorch.display()))?;
    let lib = link_into_out_dir(&libtorch.join("lib")).map_err(|e| format!("no link to libtorch in OUT_DIR: {e}"))?;
    println!("cargo::rustc-link-search=native={}", lib.display());
    println!("cargo::rustc-link-lib=dylib:+verbatim={}", openmp(&lib)?);
    Ok(())
}

fn libtorch() -> Result<PathBuf, String> {
    let fix = "run `cargo xtask setup`, or set LIBTORCH to a libtorch 2.11";
    let dir = env::var_os("LIBTORCH").map(PathBuf::from).ok_or(format!("LIBTORCH is not set: {fix}"))?;
    if !dir.join("include/ATen/ATen.h").is_file() {
        return Err(format!("LIBTORCH={} holds no include/ATen/ATen.h: {fix}", dir.display()));
    }
    Ok(dir)
}

/// The file name of the OpenMP library that libtorch brings along: another one beside it would have threads of its own. Where it brings none, the
/// system's.
fn openmp(lib: &Path) -> Result<String, String> {
    let entries = fs::read_dir(lib).map_err(|e| format!("{} cannot be read: {e}", lib.display()))?;
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let brought = names.filter(|name| name.starts_with("libgomp") && name.contains(".so")).min();
    Ok(brought.unwrap_or_else(|| "libgomp.so.1".into()))
}

/// Cargo puts link-search folders below the target folder, and only those, on the library path of what it runs. Doc-tests have no other
/// way to libtorch: they are built in a temporary folder, where an rpath relative to the executable leads nowhere.
fn link_into_out_dir(lib: &Path) -> io::Result<PathBuf> {
    let out_dir = env::var_os("OUT_DIR").map(PathBuf::from).ok_or(io::Error::other("OUT_DIR is not set"))?;
    let link = out_dir.join("libtorch");
    if fs::symlink_metadata(&link).is_ok() {
        fs::remove_file(&link)?;
    }
    std::os::unix::fs::symlink(lib, &link)?;
    Ok(link)
}
