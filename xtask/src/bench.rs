//! `cargo xtask bench`: the criterion benches of the whole workspace, in the release profile.

use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::lapack;
use crate::setup::{Setup, Source};
use crate::whitebox::{cargo, find_libtorch};

/// Runs the benches whose names contain `filter`.
///
/// # Errors
/// libtorch or LAPACK is missing, or cargo can't be started.
pub fn run(filter: Option<&str>) -> Result<ExitCode> {
    let setup = Setup::new()?;
    setup.libtorch(&Source::Any, false)?;
    lapack::ensure()?;
    let mut benches = cargo();
    benches.args(["bench", "--workspace"]).current_dir(&setup.places.root);
    if let Some(filter) = filter {
        benches.args(["--", filter]);
    }
    let status = find_libtorch(&mut benches, &setup.places.root)?.status().context("starting cargo")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
