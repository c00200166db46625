//! Runs other programs. What they print goes to standard error, so that standard output carries results alone.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// A command whose output goes to standard error.
#[must_use]
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).stdout(Stdio::from(io::stderr()));
    command
}

/// Runs `command` to its end; `remedy` says what to do where the program itself is missing.
///
/// # Errors
/// The program is missing (with `remedy`), or it ended with a status other than 0.
pub fn run(command: &mut Command, remedy: &str) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = match command.status() {
        Ok(status) => status,
        Err(error) if error.kind() == ErrorKind::NotFound => bail!("`{name}` is not installed: {remedy}"),
        Err(error) => return Err(error).with_context(|| format!("starting `{name}`")),
    };
    if !status.success() {
        bail!("`{}` failed ({status})", spelled(command));
    }
    Ok(())
}

/// Runs `apt-get` with `arguments` in `folder`; root refreshes the package lists, which a fresh system lacks, and tries
/// again where that fails.
///
/// # Errors
/// It failed, or this is no Debian.
pub fn apt_get(arguments: &[&str], folder: &Path) -> Result<()> {
    let apt = |arguments: &[&str]| {
        let mut apt = command("apt-get");
        // what root downloads need not be readable for apt's own user
        apt.args(["-qq", "-o", "Dpkg::Use-Pty=0", "-o", "APT::Sandbox::User=root"]).args(arguments);
        run(apt.current_dir(folder).env("DEBIAN_FRONTEND", "noninteractive"), "this works on Debian and its kin only")
    };
    match apt(arguments) {
        Err(_) if is_root() => apt(&["update"]).and_then(|()| apt(arguments)),
        done => done,
    }
}

/// The trimmed standard output of a command that ends well; `None` where it is missing or fails.
#[must_use]
pub fn answer(program: impl AsRef<OsStr>, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).current_dir("/").stdin(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The command as one would type it, cut after a line's length.
#[must_use]
pub fn spelled(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let line = words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
    if line.chars().count() > 100 { line.chars().take(97).chain("...".chars()).collect() } else { line }
}

/// Whether this process may install system packages: its effective user is root.
#[must_use]
pub fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_name_the_program_and_the_remedy() {
        let missing = run(&mut command("no-such-program"), "install it").unwrap_err().to_string();
        assert_eq!(missing, "`no-such-program` is not installed: install it");
        let failed = run(command("sh").args(["-c", "exit 3"]), "").unwrap_err().to_string();
        assert!(failed.contains("`sh -c exit 3` failed") && failed.contains('3'), "{failed}");
        assert_eq!(answer("echo", &["hello"]).as_deref(), Some("hello"));
        assert_eq!(answer("false", &[]), None);
    }
}
