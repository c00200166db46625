//! What all contestants of a run share: where their programs lie, how many threads they get, how long a turn is.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::criterion::Bench;
use crate::reference::Reference;
use crate::whitebox::{cargo, find_libtorch};

/// Variables that say how many threads: of libtorch and PyTorch, of OpenBLAS, of rayon.
const THREADS: [&str; 3] = ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"];

/// Where and how contestants run.
#[derive(Clone, Debug)]
pub struct Stage {
    /// The root of the clone.
    pub root: PathBuf,
    /// The `whitebox` program in the release profile.
    pub whitebox: PathBuf,
    /// The Python that PyTorch runs in.
    pub reference: Reference,
    /// A folder of this run, for criterion's figures and the files that both sides of a bench read.
    pub scratch: PathBuf,
    /// Threads of every contestant.
    pub threads: usize,
    /// Seconds of a turn.
    pub seconds: f64,
}

impl Stage {
    /// The `whitebox` program with `words`.
    ///
    /// # Errors
    /// When this executable does not know where it lies.
    pub fn ours(&self, words: &[String]) -> Result<Command> {
        let mut command = Command::new(&self.whitebox);
        find_libtorch(&mut command, &self.root)?;
        command.args(words);
        Ok(self.alike(command))
    }

    /// A script of `xtask/reference` with `words`. What makes our own OpenBLAS faster is not what a user of Python has.
    #[must_use]
    pub fn python(&self, script: &str, words: &[String]) -> Command {
        let mut command = self.reference.command(&[]);
        command.arg(self.root.join("xtask/reference").join(script)).args(words);
        command.env_remove("OPENBLAS_CORETYPE").env_remove("OPENBLAS_L2_SIZE").env_remove("LD_LIBRARY_PATH");
        self.alike(command)
    }

    /// `cargo bench` of one bench, with what stands after `--`.
    ///
    /// # Errors
    /// When this executable does not know where it lies.
    pub fn bench(&self, bench: &Bench, words: &[&str]) -> Result<Command> {
        let mut command = cargo();
        command.args(["bench", "--package", bench.package, "--bench", bench.target, "--"]).args(words);
        command.current_dir(&self.root);
        command.env("CRITERION_HOME", self.criterion()).env("WHITEBOX_BENCH_FILES", self.files());
        find_libtorch(&mut command, &self.root)?;
        Ok(self.alike(command))
    }

    /// Criterion's folder of this run: figures of an earlier one can't be taken for its own.
    #[must_use]
    pub fn criterion(&self) -> PathBuf {
        self.scratch.join("criterion")
    }

    /// Where a bench writes the files that both sides read.
    #[must_use]
    pub fn files(&self) -> PathBuf {
        self.scratch.join("files")
    }

    fn alike(&self, mut command: Command) -> Command {
        for variable in THREADS {
            command.env(variable, self.threads.to_string());
        }
        command
    }
}

/// The path in words, for a command line.
#[must_use]
pub fn word(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
