//! On what a result was measured: the machine, the versions, the state of the clone.

use std::fs;
use std::thread::available_parallelism;

use super::options::{Device, Options};
use super::stage::{Stage, word};
use crate::pins::Lock;
use crate::{libtorch, shell};

/// One paragraph that stands above the tables.
#[must_use]
pub fn facts(options: &Options, stage: &Stage, lock: &Lock) -> String {
    let date = shell::answer("date", &["+%Y-%m-%d"]).unwrap_or_else(|| "unknown date".to_owned());
    let cores = available_parallelism().map_or(1, usize::from);
    let mut parts = vec![date, format!("{} ({cores} cores)", processor()), format!("{} threads each", stage.threads)];
    if options.device == Device::Cuda {
        let card = shell::answer("nvidia-smi", &["--query-gpu=name,driver_version", "--format=csv,noheader"]);
        parts.insert(1, card.filter(|card| !card.is_empty()).unwrap_or_else(|| "unknown GPU".to_owned()));
    }
    parts.push(format!("{}; {}; {}", rust(), torch(stage), python(lock)));
    format!("{}. whitebox {}.", parts.join(", "), commit(stage))
}

/// How busy the machine is: the mean number of processes that want to run, over the last minute.
#[must_use]
pub fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().unwrap_or("unknown").to_owned()
}

fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    model_name(&text).unwrap_or("unknown processor").to_owned()
}

fn model_name(cpuinfo: &str) -> Option<&str> {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim())
}

fn rust() -> String {
    let version = shell::answer("rustc", &["--version"]).unwrap_or_default();
    format!("rustc {}", version.split_whitespace().nth(1).unwrap_or("unknown"))
}

fn torch(stage: &Stage) -> String {
    let found = libtorch::inspect(&stage.root.join(".libtorch/torch"));
    format!("libtorch {}", found.map_or("unknown".to_owned(), |found| found.version))
}

/// The versions of the packages that are measured, as they are pinned.
fn python(lock: &Lock) -> String {
    let names = [("torch", "PyTorch"), ("torchvision", "torchvision"), ("numpy", "NumPy"), ("scipy", "SciPy")];
    let version = |(name, shown): (&str, &str)| {
        let pin = lock.pins.iter().find(|pin| pin.name == name)?;
        Some(format!("{shown} {}", pin.version))
    };
    names.into_iter().filter_map(version).collect::<Vec<_>>().join(", ")
}

/// The commit, and whether the tree differs from it.
fn commit(stage: &Stage) -> String {
    let root = word(&stage.root);
    let git = |words: &[&str]| shell::answer("git", &[&["-C", root.as_str()], words].concat());
    let Some(commit) = git(&["rev-parse", "--short", "HEAD"]) else { return "of an unknown commit".to_owned() };
    match git(&["status", "--porcelain"]) {
        Some(changes) if changes.is_empty() => format!("at {commit}"),
        _ => format!("at {commit} with uncommitted changes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_named() {
        let text = "processor\t: 0\nmodel name\t: AMD EPYC 9654 96-Core Processor\nstepping\t: 1\n";
        assert_eq!(model_name(text), Some("AMD EPYC 9654 96-Core Processor"));
        assert_eq!(model_name(""), None);
        let pinned = python(&Lock::python_reference().unwrap());
        assert!(pinned.starts_with("PyTorch 2.11.0, torchvision 0.26.0, NumPy "), "{pinned}");
        assert!(load().parse::<f64>().is_ok());
    }
}
