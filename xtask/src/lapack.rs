//! LAPACK comes from the system: OpenBLAS with its development files, found through pkg-config.

use std::path::Path;

use anyhow::{Result, bail};

use crate::shell;

const PACKAGES: [&str; 2] = ["libopenblas-dev", "pkg-config"];

/// The one command that installs LAPACK on Debian and its kin.
#[must_use]
pub fn fix() -> String {
    format!("sudo apt-get update && sudo apt-get install -y {}", PACKAGES.join(" "))
}

/// The version of the OpenBLAS that a build would find.
///
/// # Errors
/// A sentence: pkg-config is missing, or OpenBLAS is.
pub fn found() -> Result<String> {
    if shell::answer("pkg-config", &["--version"]).is_none() {
        bail!("pkg-config is not installed");
    }
    match shell::answer("pkg-config", &["--modversion", "openblas"]) {
        Some(version) => Ok(format!("OpenBLAS {version}")),
        None => bail!("OpenBLAS's development files are not installed"),
    }
}

/// Installs LAPACK where it is missing and this is root; otherwise says the command.
///
/// # Errors
/// It is still missing; the message ends in the command to run.
pub fn ensure() -> Result<String> {
    let Err(missing) = found() else { return found() };
    if !shell::is_root() {
        bail!("{missing}, and only root may install it. Run: {}", fix());
    }
    eprintln!("LAPACK: {missing}; installing {} by apt-get", PACKAGES.join(" and "));
    let arguments: Vec<&str> = ["install", "-y", "--no-install-recommends"].into_iter().chain(PACKAGES).collect();
    let installed = shell::apt_get(&arguments, Path::new("/"));
    match installed.and_then(|()| found()) {
        Ok(version) => Ok(version),
        Err(error) => bail!("LAPACK could not be installed: {error:#}. Install it by hand, on Debian: {}", fix()),
    }
}
