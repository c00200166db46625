//! A run's folder: it tells its whole story.
//!
//! ```text
//! config.toml        the resolved recipe, with the command that started it
//! run.json           version, command, device, threads, start, data
//! metrics.jsonl      every logged step and evaluation;  events.out.tfevents.*  the same for TensorBoard
//! checkpoints/       step-00000123/, best
//! layers-before.json layer measures before the first step;  reconstructions.png  of an autoencoder
//! result.json        the final measures; its presence says that the run is finished
//! report.html        the report
//! ```

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tch::Device;

use crate::recipe::{self, Named};

/// What `run.json` holds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunInfo {
    /// The recipe's name.
    pub recipe: String,
    /// The command line.
    pub command: String,
    /// Version of this program.
    pub version: String,
    /// The commit of the clone it was started in, where there is one.
    pub commit: Option<String>,
    /// `cpu`, `cuda:0`.
    pub device: String,
    /// Threads of libtorch.
    pub threads: i32,
    /// When it was started.
    pub started: String,
    /// Trainable numbers.
    pub parameters: u64,
}

impl RunInfo {
    /// Of a run that starts here and now.
    pub fn now(recipe: &str, command: String, parameters: u64, device: Device) -> Self {
        RunInfo {
            recipe: recipe.into(),
            command,
            version: env!("CARGO_PKG_VERSION").into(),
            commit: commit(),
            device: device_name(device),
            threads: tch::get_num_threads(),
            started: jiff::Zoned::now().strftime("%Y-%m-%d %H:%M:%S %z").to_string(),
            parameters,
        }
    }
}

/// What `result.json` holds: the outcome of a finished run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunResult {
    /// The final evaluation, by measure.
    pub metrics: serde_json::Map<String, Value>,
    /// Validation images behind it, or whatever `unit` says.
    pub images: u64,
    /// What was counted, where it was not images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// Trainable numbers.
    pub parameters: u64,
    /// Optimiser steps.
    pub steps: u64,
    /// Seconds of training and evaluating.
    pub seconds: f64,
}

/// The folder of one run.
#[derive(Clone, Debug)]
pub struct RunFolder {
    /// Where it is.
    pub path: PathBuf,
}

impl RunFolder {
    /// A new folder, which must not hold a run yet.
    pub fn create(out: Option<&Path>, recipe: &str) -> Result<Self> {
        let path = match out {
            Some(path) => path.to_owned(),
            None => {
                let now = jiff::Zoned::now().strftime("%Y%m%d-%H%M%S").to_string();
                let name = |n: u32| if n == 1 { String::new() } else { format!("-{n}") };
                let paths = (1..).map(|n| Path::new("runs").join(format!("{recipe}-{now}{}", name(n))));
                paths.into_iter().find(|path| !path.exists()).unwrap_or_default()
            }
        };
        if path.join("config.toml").exists() || path.join("checkpoints").exists() {
            bail!(
                "{} already holds a run, which is not overwritten: go on with it by --resume {}, or name another folder",
                path.display(),
                path.display()
            );
        }
        std::fs::create_dir_all(&path).with_context(|| format!("the run folder {} cannot be made", path.display()))?;
        Ok(RunFolder { path })
    }

    /// The folder to be resumed: the one named, or the newest under `runs/` with the recipe's name.
    pub fn existing(named: Option<&Path>, recipe: &str) -> Result<Self> {
        let path = match named {
            Some(path) => path.to_owned(),
            None => newest(Path::new("runs"), recipe).with_context(|| {
                format!("there is no run of `{recipe}` under runs/ to resume; name its folder: --resume DIR")
            })?,
        };
        if !path.join("config.toml").is_file() {
            bail!("{} holds no run (there is no config.toml in it)", path.display());
        }
        Ok(RunFolder { path })
    }

    /// The recipe that the run was started with.
    pub fn recipe(&self) -> Result<Named> {
        let path = self.path.join("config.toml");
        let text = std::fs::read_to_string(&path).with_context(|| format!("{} cannot be read", path.display()))?;
        let tree: Value = toml::from_str(&text).with_context(|| format!("{} is not valid TOML", path.display()))?;
        let recipe = recipe::parse(tree).with_context(|| path.display().to_string())?;
        let name = self.info().map_or("run".into(), |info| info.recipe);
        Ok(Named { name, recipe })
    }

    /// Writes `run.json` and then `config.toml`, by which a run is known.
    pub fn begin(&self, config: &impl Serialize, info: &RunInfo) -> Result<()> {
        let text = format!("# {}\n{}", info.command.replace('\n', " "), toml::to_string(config)?);
        self.write("run.json", serde_json::to_string_pretty(info)?.as_bytes())?;
        self.write("config.toml", text.as_bytes())
    }

    /// Writes `result.json`, by which a run is known to be finished.
    pub fn finish(&self, result: &RunResult) -> Result<()> {
        self.write("result.json", serde_json::to_string_pretty(result)?.as_bytes())
    }

    /// `result.json`, where the run is finished.
    pub fn result(&self) -> Option<RunResult> {
        serde_json::from_str(&std::fs::read_to_string(self.path.join("result.json")).ok()?).ok()
    }

    /// `run.json`, where it can be read.
    pub fn info(&self) -> Option<RunInfo> {
        serde_json::from_str(&std::fs::read_to_string(self.path.join("run.json")).ok()?).ok()
    }

    /// Writes a file of the folder whole or not at all.
    pub fn write(&self, name: &str, content: &[u8]) -> Result<()> {
        let write = || -> std::io::Result<()> {
            let mut file = tempfile::Builder::new()
                .prefix(".whitebox-")
                .suffix(".tmp")
                .permissions(readable())
                .tempfile_in(&self.path)?;
            file.write_all(content)?;
            file.as_file().sync_all()?;
            file.persist(self.path.join(name)).map_err(|e| e.error)?;
            Ok(())
        };
        write().with_context(|| format!("{} cannot be written", self.path.join(name).display()))
    }
}

/// The newest folder `recipe-*` that holds a run.
fn newest(runs: &Path, recipe: &str) -> Option<PathBuf> {
    let prefix = format!("{recipe}-2");
    let is_run = |p: &PathBuf| {
        let name = p.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        name.starts_with(&prefix) && p.join("config.toml").is_file()
    };
    let folders = std::fs::read_dir(runs).ok()?.flatten().map(|e| e.path());
    folders.filter(is_run).max_by_key(|p| std::fs::metadata(p.join("config.toml")).and_then(|m| m.modified()).ok())
}

/// `cpu`, `cuda:0`.
pub fn device_name(device: Device) -> String {
    match device {
        Device::Cpu => "cpu".into(),
        Device::Cuda(i) => format!("cuda:{i}"),
        other => format!("{other:?}"),
    }
}

/// The commit of the clone in the current folder.
pub fn commit() -> Option<String> {
    let output = std::process::Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned()).filter(|t| !t.is_empty())
}

/// The command line as a person would type it.
pub fn command_line() -> String {
    let program = crate::invoked_as();
    let quoted = |word: String| {
        let plain = word.chars().all(|c| c.is_ascii_alphanumeric() || "-_./=,:[]".contains(c)) && !word.is_empty();
        if plain { word } else { format!("'{}'", word.replace('\'', "'\\''")) }
    };
    std::iter::once(program)
        .chain(std::env::args_os().skip(1).map(|word| quoted(word.to_string_lossy().into_owned())))
        .collect::<Vec<_>>()
        .join(" ")
}

/// The permissions of an ordinary new file (the umask is taken off): a temporary file would keep its content to its owner.
pub(crate) fn readable() -> std::fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(0o666)
}

/// Writes a file by its path whole or not at all.
pub fn whole(path: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let failed = || format!("{} cannot be written", path.display());
    let named = tempfile::Builder::new().prefix(".whitebox-").permissions(readable()).tempfile_in(folder);
    let half = named.with_context(failed)?;
    write(half.path()).with_context(failed)?;
    half.persist(path).with_context(failed)?;
    Ok(())
}
