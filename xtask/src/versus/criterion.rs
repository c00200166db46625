//! A criterion bench as a contestant: a short run of the one bench each turn, whose median is read from criterion's files.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::contestant::Contestant;
use super::stage::{Stage, word};
use super::worker::Worker;

/// One bench of the workspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bench {
    /// The package that it lies in.
    pub package: &'static str,
    /// The bench target.
    pub target: &'static str,
    /// `group/function`.
    pub name: &'static str,
}

/// The part of `estimates.json` that is read; nanoseconds an iteration.
#[derive(Deserialize)]
struct Estimates {
    median: Estimate,
}

#[derive(Deserialize)]
struct Estimate {
    point_estimate: f64,
}

/// The part of `benchmark.json` that is read.
#[derive(Deserialize)]
struct Description {
    throughput: Option<Throughput>,
}

#[derive(Deserialize)]
struct Throughput {
    #[serde(rename = "Elements")]
    elements: Option<u64>,
}

/// A bench that is built and runs.
struct Running {
    name: String,
    command: Command,
    folder: PathBuf,
}

/// Runs the bench once without measuring, so that it is warm and has written the files that the other side reads.
///
/// # Errors
/// It doesn't run; the message holds what it said last.
pub fn start(name: &str, bench: &Bench, stage: &Stage) -> Result<Box<dyn Contestant>> {
    let mut once = stage.bench(bench, &["--exact", bench.name, "--test"])?;
    Worker::start(name, &mut once)?.finish()?;
    // criterion refuses a time of zero, and warns where ten samples do not fit
    let seconds = format!("{:.2}", stage.seconds.max(0.1));
    let warm = format!("{:.2}", (stage.seconds / 4.0).max(0.1));
    let words = ["--exact", bench.name, "--noplot", "--sample-size", "10", "--measurement-time", &seconds];
    let command = stage.bench(bench, &[&words[..], &["--warm-up-time", &warm]].concat())?;
    Ok(Box::new(Running { name: name.to_owned(), command, folder: stage.criterion().join(bench.name).join("new") }))
}

impl Contestant for Running {
    fn turn(&mut self) -> Result<f64> {
        if self.folder.exists() {
            fs::remove_dir_all(&self.folder).with_context(|| format!("removing {}", word(&self.folder)))?;
        }
        Worker::start(&self.name, &mut self.command)?.finish()?;
        milliseconds(&self.folder)
    }
}

/// Median milliseconds an iteration, or an element where the bench says how many an iteration has.
fn milliseconds(folder: &Path) -> Result<f64> {
    let estimates: Estimates = read(&folder.join("estimates.json"))?;
    let description: Description = read(&folder.join("benchmark.json"))?;
    let elements = description.throughput.and_then(|throughput| throughput.elements).unwrap_or(1).max(1);
    Ok(estimates.median.point_estimate / 1e6 / elements as f64)
}

fn read<T: DeserializeOwned>(file: &Path) -> Result<T> {
    let text = fs::read_to_string(file).with_context(|| {
        format!("the bench ran and wrote no {}: is there no bench of this name any more?", file.display())
    })?;
    serde_json::from_str(&text).with_context(|| format!("{} is not as criterion writes it", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_read_by_iteration_and_by_element() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        assert!(format!("{:#}", milliseconds(folder.path()).unwrap_err()).contains("no bench of this name"));
        write("estimates.json", r#"{"mean":{"point_estimate":9.0},"median":{"point_estimate":36000000.0}}"#);
        write("benchmark.json", r#"{"group_id":"a","throughput":null}"#);
        assert_eq!(milliseconds(folder.path()).unwrap(), 36.0);
        write("benchmark.json", r#"{"group_id":"a","throughput":{"Elements":18}}"#);
        assert_eq!(milliseconds(folder.path()).unwrap(), 2.0);
        write("benchmark.json", r#"{"group_id":"a","throughput":{"Bytes":18}}"#);
        assert_eq!(milliseconds(folder.path()).unwrap(), 36.0);
        write("estimates.json", "{}");
        assert!(format!("{:#}", milliseconds(folder.path()).unwrap_err()).contains("as criterion writes it"));
    }
}
