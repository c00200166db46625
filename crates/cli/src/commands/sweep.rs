//! `sweep`: one recipe over a grid of values, a run folder for each combination, one table.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::Args;
use serde_json::Value;
use whitebox_analysis::count;
use whitebox_train::diff;

use crate::commands::train::train;
use crate::progress::duration;
use crate::recipe::{self, Named};
use crate::run_folder::{RunFolder, RunResult};

/// Train a recipe for every combination of some values.
///
/// A list where the recipe has a single value is swept over. The same command again passes over finished runs and goes on with interrupted ones.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  cargo xtask sweep fashion-mnist --set train.optimizer.lr=[3e-4,1e-3,3e-3]
  cargo xtask sweep digits --set model.eta=[0.02,0.1] --set train.seed=[0,1]")]
pub struct SweepArgs {
    /// A recipe's name (see `recipes`) or a TOML file.
    recipe: String,
    /// Override a value of the recipe, or give a list of values to be tried; repeatable.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// The folder of the runs [default: runs/RECIPE-sweep].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Where to compute: auto, cpu, cuda, cuda:1.
    #[arg(long, default_value = "auto")]
    device: String,
    /// Print the table of the runs that are finished, and train nothing.
    #[arg(long)]
    table: bool,
}

/// Most runs that a sweep may mean; more are a slip.
const MOST_RUNS: usize = 1000;

/// One of the runs: its folder's name, what is set for it, and the recipe that comes of it.
struct Member {
    name: String,
    values: Vec<String>,
    named: Named,
}

/// Runs the command.
pub fn run(args: &SweepArgs) -> Result<()> {
    let device = torch_extras::cuda::device_from_str(&args.device)?;
    let (keys, members) = members(&args.recipe, &args.sets)?;
    let recipe_name = members.first().map_or("sweep", |m| m.named.name.as_str()).to_owned();
    let out = args.out.clone().unwrap_or_else(|| Path::new("runs").join(format!("{recipe_name}-sweep")));
    if !args.table {
        // Better said before hours of work than after: every folder that is there must be of this sweep.
        let open = members
            .iter()
            .map(|member| existing(&out.join(&member.name), &member.named))
            .collect::<Result<Vec<_>>>()?;
        for (number, (member, folder)) in members.iter().zip(open).enumerate() {
            let path = out.join(&member.name);
            let at = format!("{} of {}: {}", number + 1, members.len(), member.name);
            if folder.as_ref().is_some_and(|folder| folder.result().is_some()) {
                eprintln!("{at}: finished already");
                continue;
            }
            eprintln!("{at}");
            train(&member.named, Some(&path), folder, device)?;
        }
    }
    let table = table(&keys, &members, &out);
    if out.is_dir() {
        RunFolder { path: out }.write("table.md", table.as_bytes())?;
    }
    crate::say(&table)
}

/// A recipe's run in this very folder: begun, gone on with, or finished already.
pub fn finished(named: &Named, path: &Path, device: tch::Device) -> Result<RunFolder> {
    let folder = existing(path, named)?;
    if folder.as_ref().and_then(RunFolder::result).is_none() {
        train(named, Some(path), folder, device)?;
    }
    Ok(RunFolder { path: path.to_owned() })
}

/// The run in a folder, where there is one.
fn existing(path: &Path, wanted: &Named) -> Result<Option<RunFolder>> {
    if !path.join("config.toml").is_file() {
        return Ok(None);
    }
    let folder = RunFolder::existing(Some(path), "")?;
    let value = |named: &Named| serde_json::to_value(&named.recipe);
    let differences = diff(&value(&folder.recipe()?)?, &value(wanted)?);
    if !differences.is_empty() {
        bail!(
            "{} holds a run of another recipe:\n  {}\nname another folder with --out, or remove this one",
            path.display(),
            differences.join("\n  ")
        );
    }
    Ok(Some(folder))
}

/// The swept keys, and every combination of their values; the last key changes first.
fn members(asked: &str, sets: &[String]) -> Result<(Vec<String>, Vec<Member>)> {
    let mut keys = Vec::new();
    let mut combinations: Vec<(Vec<String>, Vec<String>)> = vec![(Vec::new(), Vec::new())];
    let mut before: Vec<String> = Vec::new();
    for set in sets {
        let choices = choices(asked, &before, set)?;
        let swept = choices.len() > 1;
        if swept {
            keys.push(set.split('=').next().unwrap_or_default().trim().to_owned());
        }
        before.extend(choices.first().map(|(set, _)| set.clone()));
        if combinations.len().saturating_mul(choices.len()) > MOST_RUNS {
            bail!("this sweep means more than {MOST_RUNS} runs");
        }
        combinations = combinations
            .iter()
            .flat_map(|(sets, values)| {
                choices.iter().map(move |(set, value)| {
                    let sets = sets.iter().chain([set]).cloned().collect();
                    (sets, values.iter().chain(swept.then_some(value)).cloned().collect())
                })
            })
            .collect();
    }
    let members = combinations.into_iter().map(|(sets, values)| {
        let parts =
            keys.iter().zip(&values).map(|(key, value)| format!("{}={value}", key.rsplit('.').next().unwrap_or(key)));
        let name: String = parts.collect::<Vec<_>>().join(",").chars().map(plain).collect();
        let named = recipe::load(asked, &sets)?;
        Ok(Member { name: if name.is_empty() { "run".into() } else { name }, values, named })
    });
    let members = members.collect::<Result<Vec<_>>>()?;
    let mut names: Vec<_> = members.iter().map(|m| &m.name).collect();
    names.sort();
    if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        bail!("two runs of this sweep would lie in the folder {}: give each value once", pair[0]);
    }
    Ok((keys, members))
}

fn plain(c: char) -> char {
    if c.is_ascii_alphanumeric() || "-_.=,+".contains(c) { c } else { '_' }
}

/// `key=value` for each value of a list, with the value as it is shown; one for what the recipe takes as it stands.
fn choices(asked: &str, before: &[String], set: &str) -> Result<Vec<(String, String)>> {
    let with = |set: &str| {
        recipe::load(asked, &before.iter().map(String::as_str).chain([set]).map(String::from).collect::<Vec<_>>())
    };
    let whole = with(set);
    let (key, text) = set.split_once('=').unwrap_or((set, ""));
    let list = match toml::from_str::<toml::Table>(&format!("x = {}", text.trim())) {
        Ok(table) => table.get("x").and_then(|x| x.as_array().cloned()),
        Err(_) => None,
    };
    match (whole, list) {
        (Ok(_), _) => Ok(vec![(set.to_owned(), text.to_owned())]),
        (Err(_), Some(list)) if !list.is_empty() => list
            .iter()
            .map(|value| {
                let set = format!("{}={value}", key.trim());
                with(&set)?;
                let shown = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                Ok((set, shown))
            })
            .collect(),
        (Err(error), _) => Err(error),
    }
}

/// A table in Markdown: what was set, and what came of it. The best accuracy, or the least error of a reconstruction or of a text, stands in bold.
fn table(keys: &[String], members: &[Member], out: &Path) -> String {
    let results: Vec<Option<RunResult>> =
        members.iter().map(|m| RunFolder { path: out.join(&m.name) }.result()).collect();
    let number = |result: &RunResult, name: &str| result.metrics.get(name).and_then(Value::as_f64);
    let found = |name: &str| results.iter().flatten().filter_map(|r| number(r, name)).collect::<Vec<_>>();
    let least = |errors: Vec<f64>| errors.into_iter().fold(f64::INFINITY, f64::min);
    let (measure, best) = match (found("masked_mse"), found("bits_per_byte")) {
        (errors, _) if !errors.is_empty() => ("masked_mse", least(errors)),
        (_, bits) if !bits.is_empty() => ("bits_per_byte", least(bits)),
        _ => ("accuracy", found("accuracy").into_iter().fold(f64::NEG_INFINITY, f64::max)),
    };
    let head: Vec<_> = keys.iter().map(String::as_str).chain(["parameters", measure, "loss", "training"]).collect();
    let mut text = format!("| {} |\n|{}\n", head.join(" | "), "---|".repeat(head.len()));
    for (member, result) in members.iter().zip(&results) {
        let mut cells = member.values.clone();
        match result {
            None => cells.extend(["", "not finished", "", ""].map(String::from)),
            Some(result) => {
                let shown = match number(result, measure) {
                    Some(accuracy) if measure == "accuracy" => format!("{:.2} %", 100.0 * accuracy),
                    Some(error) => format!("{error:.4}"),
                    None => "-".into(),
                };
                cells.extend([
                    count(result.parameters),
                    if number(result, measure) == Some(best) { format!("**{shown}**") } else { shown },
                    number(result, "loss").map_or("-".into(), |l| format!("{l:.4}")),
                    duration(result.seconds),
                ]);
            }
        }
        text += &format!("| {} |\n", cells.join(" | "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(sets: &[&str]) -> Result<(Vec<String>, Vec<String>)> {
        let sets: Vec<_> = sets.iter().map(|s| s.to_string()).collect();
        members("digits", &sets).map(|(keys, members)| (keys, members.into_iter().map(|m| m.name).collect()))
    }

    #[test]
    fn lists_are_swept_and_values_are_set() {
        let (keys, names) =
            named(&["train.optimizer.lr=[1e-3, 3e-3]", "train.epochs=2", "train.seed=[0, 1, 2]"]).unwrap();
        assert_eq!(keys, ["train.optimizer.lr", "train.seed"]);
        assert_eq!(names.len(), 6);
        assert_eq!((names[0].as_str(), names[5].as_str()), ("lr=0.001,seed=0", "lr=0.003,seed=2"));
        // A key whose value is a list takes it as it stands; a list of lists is swept.
        assert_eq!(named(&["train.optimizer.betas=[0.9, 0.95]"]).unwrap().1, ["run"]);
        let (_, pairs) = named(&["train.optimizer.betas=[[0.9, 0.95], [0.9, 0.99]]"]).unwrap();
        assert_eq!(pairs.len(), 2);
    }

    #[test]
    fn slips_are_refused() {
        let error = |sets: &[&str]| format!("{:#}", named(sets).err().unwrap());
        assert!(error(&["train.epocs=[1, 2]"]).contains("did you mean `epochs`"), "{}", error(&["train.epocs=[1, 2]"]));
        assert!(error(&["train.seed=[1, 1]"]).contains("two runs"));
        assert!(error(&["train.seed=[0,1,2,3,4,5,6,7,8,9]"; 4]).contains("more than"));
    }
}
