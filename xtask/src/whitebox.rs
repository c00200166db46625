//! Hands a command to the `whitebox` binary: builds it, then becomes it, so that Ctrl-C, standard input and output and
//! the exit status are the binary's own.

use std::env;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use crate::lapack;
use crate::quiet;
use crate::setup::{Setup, Source};

/// The cargo that runs this task, or the one on the path.
#[must_use]
pub fn cargo() -> Command {
    Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Builds `whitebox` and replaces this process by it, with `words` as its arguments.
///
/// # Errors
/// libtorch can't be set up, the build fails (cargo has said why), the binary can't be started.
pub fn become_whitebox(words: &[OsString]) -> Result<ExitCode> {
    let setup = Setup::new()?;
    setup.libtorch(&Source::Any, false)?;
    if let Err(error) = lapack::ensure() {
        eprintln!("note: {error:#}");
    }
    let root = &setup.places.root;
    let status = quiet::run(cargo().args(["build", "--package", "whitebox"]).current_dir(root))?;
    if !status.success() {
        bail!("whitebox could not be built; `cargo xtask doctor` says whether something is missing");
    }
    let mut whitebox = Command::new(profile_folder("debug")?.join("whitebox"));
    whitebox.args(words).env("WHITEBOX_INVOKED_AS", "cargo xtask");
    let error = find_libtorch(&mut whitebox, root)?.exec();
    Err(error).context("starting whitebox")
}

/// Executables find libtorch by a path relative to where they lie, which holds for the clone's own `target` folder.
/// Where the build was sent elsewhere (`CARGO_TARGET_DIR`), `command` is told by the environment.
///
/// # Errors
/// When this executable does not know where it lies.
pub fn find_libtorch<'a>(command: &'a mut Command, root: &Path) -> Result<&'a mut Command> {
    if !profile_folder("debug")?.join("../../.libtorch").exists() {
        let mut folders = vec![root.join(".libtorch/torch/lib")];
        folders.extend(env::split_paths(&env::var_os("LD_LIBRARY_PATH").unwrap_or_default()));
        command.env("LD_LIBRARY_PATH", env::join_paths(folders).context("a folder name with a colon")?);
    }
    Ok(command)
}

/// The folder of a profile's executables (`debug` is the dev profile's), seen from this one, which is built with the same
/// settings.
pub(crate) fn profile_folder(profile: &str) -> Result<PathBuf> {
    let this = env::current_exe().context("asking where this executable lies")?;
    let target = this.parent().and_then(Path::parent).context("this executable lies in no target folder")?;
    Ok(target.join(profile))
}
