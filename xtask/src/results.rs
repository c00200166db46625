//! `cargo xtask results`: the tables of docs/results.md, rebuilt from the runs that are kept in docs/runs.
//!
//! ```text
//! docs/runs/TABLE/.../RUN/{config.toml, run.json, result.json} as a run folder has them; a sweep's runs lie in a folder of their own
//! <!-- results TABLE --> ... <!-- end -->                       what is written between these lines of docs/results.md
//! ```
//!
//! A row is what the runs share but for their seeds: values that differ within a table become its first columns, measures are means with the least and
//! the greatest. Where models of several kinds, or several sets, share a table, the
//! name stands for the rest of its section. Nothing is typed by hand.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::document;
use crate::places::Places;

/// The key that tells runs of one row apart.
const SEED: &str = "train.seed";
/// Keys whose values stand for those of all others of their section, where they differ.
const NAMES: [&str; 2] = ["model.kind", "data.set"];
/// Keys that name the run which another one begins with.
const ORIGINS: [&str; 2] = ["init.checkpoint", "probe.checkpoint"];
/// What is kept of a run.
const KEPT: [&str; 3] = ["config.toml", "run.json", "result.json"];

/// The measures that a table shows where all its runs have them; the first of these with its spread.
const MEASURES: [&str; 8] =
    ["accuracy", "test_accuracy", "matthews", "masked_mse", "visible_mean_mse", "ratio", "loss", "bits_per_byte"];

/// One kept run.
#[derive(Clone, Debug)]
struct Run {
    /// Every value of its recipe by its dotted key.
    values: BTreeMap<String, String>,
    info: Value,
    result: Value,
}

/// Takes the finished runs of `from` into the table `table`, where that is asked for, and rebuilds all tables.
///
/// # Errors
/// A folder without finished runs, a run that cannot be read, a document without room.
pub fn run(from: Option<&Path>, table: Option<&str>) -> Result<ExitCode> {
    let root = Places::find()?.root;
    let runs = root.join("docs/runs");
    if let (Some(from), Some(table)) = (from, table) {
        let count = take(from, &runs.join(table))?;
        eprintln!("{count} runs of {} are kept in {}", from.display(), runs.join(table).display());
    }
    let document = root.join("docs/results.md");
    for folder in folders(&runs)? {
        let name = name_of(&folder);
        let block = table_of(&read(&folder)?).with_context(|| folder.display().to_string())?;
        document::write(&document, &format!("results {name}"), &block)?;
        eprintln!("{}: table {name}", document.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// Copies what is kept of every finished run below `from`.
fn take(from: &Path, to: &Path) -> Result<usize> {
    let finished = runs_below(from)?;
    if finished.is_empty() {
        bail!("{} holds no finished run: expected folders with result.json, as a sweep makes them", from.display());
    }
    for run in &finished {
        let kept = to.join(run.strip_prefix(from).unwrap_or(run));
        fs::create_dir_all(&kept).with_context(|| format!("making {}", kept.display()))?;
        for file in KEPT {
            let (from, to) = (run.join(file), kept.join(file));
            fs::copy(&from, &to).with_context(|| format!("copying {} to {}", from.display(), to.display()))?;
        }
    }
    Ok(finished.len())
}

fn name_of(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The folders in a folder, in order; none where there is none.
fn folders(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(Vec::new());
    }
    let entries = fs::read_dir(path).with_context(|| format!("reading {}", path.display()))?;
    let mut found: Vec<_> = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    found.sort();
    Ok(found)
}

/// Every finished run below a folder, in order.
fn runs_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for below in folders(folder)? {
        match below.join("result.json").is_file() {
            true => found.push(below),
            // A run's own folders hold no runs.
            false if below.join("config.toml").is_file() => {}
            false => found.extend(runs_below(&below)?),
        }
    }
    Ok(found)
}

fn read(folder: &Path) -> Result<Vec<Run>> {
    runs_below(folder)?.iter().map(|run| one(run).with_context(|| run.display().to_string())).collect()
}

fn one(run: &Path) -> Result<Run> {
    let text = |name: &str| fs::read_to_string(run.join(name)).with_context(|| format!("reading {name}"));
    let config: Value = toml::from_str(&text("config.toml")?).context("config.toml is not valid TOML")?;
    let mut values = BTreeMap::new();
    flatten("", &config, &mut values);
    // Where the data lay and how many threads read it changes no number.
    values.retain(|key, _| !matches!(key.as_str(), "data.path" | "data.workers" | "text.path"));
    for key in ORIGINS {
        if let Some(path) = values.get_mut(key) {
            *path = without_seed(path);
        }
    }
    let json = |name: &str| serde_json::from_str(&text(name)?).with_context(|| format!("{name} is not valid JSON"));
    Ok(Run { values, info: json("run.json")?, result: json("result.json")? })
}

/// `runs/x/seed=0` to `runs/x`, `runs/x/lr=0.1,seed=0` to `runs/x/lr=0.1`: a sweep's runs that a row is the mean over.
fn without_seed(path: &str) -> String {
    let parts = path.split('/').map(|part| {
        let kept: Vec<_> = part.split(',').filter(|value| !value.starts_with("seed=")).collect();
        kept.join(",")
    });
    parts.filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/")
}

fn flatten(at: &str, value: &Value, values: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                flatten(&if at.is_empty() { key.clone() } else { format!("{at}.{key}") }, value, values);
            }
        }
        Value::String(text) => drop(values.insert(at.to_owned(), text.clone())),
        other => drop(values.insert(at.to_owned(), other.to_string())),
    }
}

/// The table of some runs, in Markdown, with the commands behind it.
fn table_of(runs: &[Run]) -> Result<String> {
    let keys: BTreeSet<&str> = runs.iter().flat_map(|run| run.values.keys()).map(String::as_str).collect();
    let value = |run: &Run, key: &str| run.values.get(key).cloned().unwrap_or_else(|| "-".into());
    let differs = |key: &str| runs.iter().any(|run| value(run, key) != value(&runs[0], key));
    let named: Vec<&str> = NAMES.into_iter().filter(|name| differs(name)).collect();
    let section = |key: &str| key.split('.').next().unwrap_or_default().to_owned();
    // A name stands for what all its runs share, and not for what tells them apart.
    let told_by = |name: &str, key: &str| {
        let mut of_name: BTreeMap<String, String> = BTreeMap::new();
        runs.iter().all(|run| *of_name.entry(value(run, name)).or_insert_with(|| value(run, key)) == value(run, key))
    };
    let stood_for =
        |key: &str| named.iter().any(|name| *name != key && section(name) == section(key) && told_by(name, key));
    let varied: Vec<&str> = keys.into_iter().filter(|key| *key != SEED && differs(key) && !stood_for(key)).collect();
    let mut rows: BTreeMap<Vec<String>, Vec<&Run>> = BTreeMap::new();
    for run in runs {
        rows.entry(varied.iter().map(|key| value(run, key)).collect()).or_default().push(run);
    }
    let measures: Vec<&str> =
        MEASURES.into_iter().filter(|name| runs.iter().all(|run| run.result["metrics"][name].is_number())).collect();
    let Some((first, further)) = measures.split_first() else {
        bail!("the runs share no measure: result.json holds one of {} under metrics", MEASURES.join(", "));
    };
    let mut head = varied.clone();
    head.extend(["parameters", "seeds", first, "least - most"]);
    head.extend(further);
    head.extend(["minutes a run", "commit"]);
    let mut text = format!("| {} |\n|{}\n", head.join(" | "), "---|".repeat(head.len()));
    for (values, runs) in &rows {
        let all = |of: &dyn Fn(&Run) -> &Value| -> Vec<f64> { runs.iter().filter_map(|r| of(r).as_f64()).collect() };
        let measured = |name: &str| all(&|run| &run.result["metrics"][name]);
        let mean = |numbers: &[f64]| numbers.iter().sum::<f64>() / numbers.len() as f64;
        let main = measured(first);
        let least = main.iter().copied().fold(f64::INFINITY, f64::min);
        let most = main.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let mut seeds: Vec<_> = runs.iter().map(|run| value(run, SEED)).collect();
        seeds.sort();
        let commits: BTreeSet<_> = runs.iter().filter_map(|run| run.info["commit"].as_str()).collect();
        let mut cells = vec![
            runs[0].result["parameters"].as_u64().map_or("-".into(), grouped),
            seeds.join(", "),
            shown(first, mean(&main)),
            format!("{} - {}", shown(first, least), shown(first, most)),
        ];
        cells.extend(further.iter().map(|name| shown(name, mean(&measured(name)))));
        cells.push(format!("{:.1}", mean(&all(&|run| &run.result["seconds"])) / 60.0));
        cells.push(commits.into_iter().collect::<Vec<_>>().join(", "));
        text += &format!("| {} |\n", values.iter().cloned().chain(cells).collect::<Vec<_>>().join(" | "));
    }
    let commands: BTreeSet<_> = runs.iter().filter_map(|run| run.info["command"].as_str()).collect();
    text += "\n";
    for command in commands {
        text += &format!("    {command}\n");
    }
    Ok(text)
}

/// A measure as a table shows it.
fn shown(name: &str, value: f64) -> String {
    if name.ends_with("accuracy") { format!("{:.2} %", 100.0 * value) } else { format!("{value:.4}") }
}

/// `1,234,567`.
fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(folder: &Path, kind: &str, seed: u64, accuracy: f64) {
        fs::create_dir_all(folder).unwrap();
        let d = kind.len();
        let config =
            format!("[model]\nkind = \"{kind}\"\nd = {d}\n[data]\npath = \"at/{seed}\"\n[train]\nseed = {seed}\n");
        fs::write(folder.join("config.toml"), config).unwrap();
        fs::write(folder.join("run.json"), r#"{"command": "whitebox sweep x", "commit": "abc"}"#).unwrap();
        let result =
            format!(r#"{{"metrics": {{"accuracy": {accuracy}, "loss": 0.5}}, "seconds": 90, "parameters": 1234567}}"#);
        fs::write(folder.join("result.json"), result).unwrap();
    }

    #[test]
    fn seeds_share_a_row_and_what_differs_becomes_a_column() {
        let folder = tempfile::tempdir().unwrap();
        let runs = [("x/a", "crate", 0, 0.5), ("x/b", "crate", 1, 0.75), ("y/a", "vit", 0, 0.25)];
        for (name, kind, seed, accuracy) in runs {
            kept(&folder.path().join(name), kind, seed, accuracy);
        }
        let table = table_of(&read(folder.path()).unwrap()).unwrap();
        let lines: Vec<_> = table.lines().collect();
        assert!(lines[0].starts_with("| model.kind | parameters | seeds |"), "{table}");
        assert_eq!(lines[2], "| crate | 1,234,567 | 0, 1 | 62.50 % | 50.00 % - 75.00 % | 0.5000 | 1.5 | abc |");
        assert!(lines[3].starts_with("| vit | 1,234,567 | 0 | 25.00 % |"), "{table}");
        assert_eq!(lines[5], "    whitebox sweep x");
    }

    #[test]
    fn two_models_of_one_kind_are_two_rows_beside_another_kind() {
        let folder = tempfile::tempdir().unwrap();
        for (name, kind, loss) in [("a", "crate_gpt", 0.5), ("b", "crate_gpt", 0.75), ("c", "gpt2", 0.25)] {
            kept(&folder.path().join(name), kind, 0, loss);
        }
        let config = folder.path().join("b/config.toml");
        let text = fs::read_to_string(&config).unwrap().replace("[data]", "sparsify = \"odl\"\n[data]");
        fs::write(config, text).unwrap();
        let table = table_of(&read(folder.path()).unwrap()).unwrap();
        let lines: Vec<_> = table.lines().collect();
        assert!(lines[0].starts_with("| model.kind | model.sparsify | parameters |"), "{table}");
        assert!(lines[3].starts_with("| crate_gpt | odl | 1,234,567 | 0 | 75.00 % |"), "{table}");
        assert_eq!(lines.len(), 7, "{table}");
    }

    #[test]
    fn runs_that_differ_by_a_seed_begin_with_one_and_the_same() {
        assert_eq!(without_seed("runs/x/seed=0"), "runs/x");
        assert_eq!(without_seed("runs/x/lr=0.1,seed=0/checkpoints/best"), "runs/x/lr=0.1/checkpoints/best");
        assert_eq!(without_seed("model.safetensors"), "model.safetensors");
    }

    #[test]
    fn finished_runs_are_taken_and_others_left() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        assert!(take(from.path(), to.path()).unwrap_err().to_string().contains("no finished run"));
        kept(&from.path().join("deep/done"), "crate", 0, 0.5);
        fs::create_dir(from.path().join("half")).unwrap();
        assert_eq!(take(from.path(), to.path()).unwrap(), 1);
        assert_eq!(runs_below(to.path()).unwrap().len(), 1);
        assert!(to.path().join("deep/done/config.toml").is_file());
    }
}
