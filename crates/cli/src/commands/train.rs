//! `train`: one recipe, one run folder.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};

use anyhow::{Context, Result, bail};
use clap::Args;
use tch::Device;
use whitebox_analysis::count;
use whitebox_analysis::metrics::Metrics;
use whitebox_train::{Jsonl, Outcome, Sink, Source, TensorBoard, diff};

use crate::commands::dry_run;
use crate::progress::{Terminal, duration};
use crate::recipe::{self, Named, TaskConfig};
use crate::report;
use crate::run_folder::{RunFolder, RunInfo, RunResult, command_line};
use crate::tasks::classify::Classify;
use crate::tasks::classify_text::OnSentences;
use crate::tasks::language::OnText;
use crate::tasks::reconstruct::Reconstruct;
use crate::tasks::{RecipeTask, Run};

/// Train a recipe: a built-in name or a TOML file.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  cargo xtask train fashion-mnist
  cargo xtask train fashion-mnist --set train.epochs=3 --set model.depth=6 --out runs/deeper
  cargo xtask train image-folder --set data.path=photos      # photos/CLASS/*.jpg
  cargo xtask train fashion-mnist --dry-run                  # what it would cost
  cargo xtask train fashion-mnist --resume                   # go on with the newest run of it
  cargo xtask train --resume runs/deeper")]
pub struct TrainArgs {
    /// A recipe's name (see `recipes`) or a TOML file; may be left out with --resume DIR.
    recipe: Option<String>,
    /// Override a value of the recipe, as --set train.epochs=3; repeatable.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// The run folder [default: runs/RECIPE-DATE].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Go on with a run: the folder named, or the newest one of this recipe.
    #[arg(long, value_name = "DIR", num_args = 0..=1)]
    resume: Option<Option<PathBuf>>,
    /// Where to compute: auto, cpu, cuda, cuda:1.
    #[arg(long, default_value = "auto")]
    device: String,
    /// Say what the run would cost, and stop.
    #[arg(long)]
    dry_run: bool,
}

/// Runs the command.
pub fn run(args: &TrainArgs) -> Result<()> {
    let device = torch_extras::cuda::device_from_str(&args.device)?;
    let (named, resumed) = match &args.resume {
        None => {
            let name = args.recipe.as_deref().context("which recipe? `cargo xtask recipes` lists them")?;
            (recipe::load(name, &args.sets)?, None)
        }
        Some(folder) => {
            let (named, folder) = resumed(args, folder.as_deref())?;
            (named, Some(folder))
        }
    };
    if args.dry_run {
        return dry_run::run(&named, device);
    }
    let finished = train(&named, args.out.as_deref(), resumed, device)?;
    crate::say(&finished)
}

/// The run to be resumed, whose recipe must be the one asked for.
fn resumed(args: &TrainArgs, folder: Option<&Path>) -> Result<(Named, RunFolder)> {
    if args.out.is_some() {
        bail!("--resume goes on in the run's own folder: leave out --out");
    }
    let asked = args.recipe.as_deref().map(|name| recipe::load(name, &args.sets)).transpose()?;
    let folder = match (&asked, folder) {
        (None, None) => bail!("what is to be resumed? Name the recipe, or the folder: --resume DIR"),
        (asked, folder) => RunFolder::existing(folder, asked.as_ref().map_or("", |n| n.name.as_str()))?,
    };
    let named = folder.recipe()?;
    let wanted = match asked {
        Some(asked) => serde_json::to_value(&asked.recipe)?,
        None => {
            let tree = recipe::with_overrides(serde_json::to_value(&named.recipe)?, &args.sets)?;
            serde_json::to_value(recipe::parse(tree)?)?
        }
    };
    let differences = diff(&serde_json::to_value(&named.recipe)?, &wanted);
    if !differences.is_empty() {
        bail!(
            "{} was started with another recipe, and a resumed run must be the same:\n  {}\ngo on as it was with `{} train --resume \
             {}`, or start a new run without --resume",
            folder.path.display(),
            differences.join("\n  "),
            crate::invoked_as(),
            folder.path.display()
        );
    }
    Ok((named, folder))
}

/// Trains, evaluates, measures, reports; gives the closing lines. `resumed` is the folder of a run to go on with.
pub fn train(named: &Named, out: Option<&Path>, resumed: Option<RunFolder>, device: Device) -> Result<String> {
    match &named.recipe.task {
        TaskConfig::Classify(config) => train_task::<Classify>(named, config, out, resumed, device),
        TaskConfig::Reconstruct(config) => train_task::<Reconstruct>(named, config, out, resumed, device),
        TaskConfig::ClassifyText(config) => train_task::<OnSentences>(named, config, out, resumed, device),
        task @ (TaskConfig::Language(_) | TaskConfig::MaskedLanguage(_)) => {
            train_task::<OnText>(named, task, out, resumed, device)
        }
    }
}

fn train_task<T: RecipeTask>(
    named: &Named,
    config: &T::Config,
    out: Option<&Path>,
    resumed: Option<RunFolder>,
    device: Device,
) -> Result<String> {
    let recipe = &named.recipe;
    let started = resumed.as_ref().and_then(RunFolder::info);
    let command = started.as_ref().map_or_else(command_line, |info| info.command.clone());
    let (mut task, source) = T::open(named, config, device, &command)?;
    let resume = resumed.is_some();
    if let Some(init) = &recipe.init {
        // A resumed run has left what it began with behind.
        if !resume {
            eprintln!("{}", task.begin_from(init)?);
        }
    }
    recipe.train.course(source.batches_per_epoch(), source.batch_size())?; // better refused before a folder is made
    let folder = match resumed {
        Some(folder) => folder,
        None => RunFolder::create(out, &named.name)?,
    };
    let info = match started {
        Some(info) => info,
        None => begin(&folder, named, command, task.parameters(), device)?,
    };
    eprintln!(
        "{}: {} parameters, {}, on {}\nrun folder: {}",
        named.name,
        count(info.parameters),
        task.data(),
        info.device,
        folder.path.display()
    );
    task.measure_before(named, &folder)?;
    let mut sinks: Vec<Box<dyn Sink>> = vec![
        Box::new(Terminal::new(T::UNIT)),
        Box::new(Jsonl::new(folder.path.join("metrics.jsonl"))),
        Box::new(TensorBoard::new(folder.path.clone())),
    ];
    let stop = stop_on_signal()?;
    let outcome = whitebox_train::run(&mut task, &source, &recipe.train, &folder.path, resume, &mut sinks, &stop)?;
    match outcome {
        Outcome::Interrupted { step, .. } => {
            eprintln!(
                "stopped after step {step}, nothing is lost; go on with: {} train --resume {}",
                crate::invoked_as(),
                folder.path.display()
            );
            std::process::exit(130);
        }
        Outcome::Finished { step, .. } => {
            let metrics = Metrics::read(&folder.path.join("metrics.jsonl"))?;
            let seconds = training_seconds(&metrics);
            conclude(
                &task,
                &Run { named, folder: &folder, info: &info, metrics: &metrics, seconds, unit: T::UNIT },
                step,
            )
        }
    }
}

fn begin(folder: &RunFolder, named: &Named, command: String, parameters: u64, device: Device) -> Result<RunInfo> {
    let info = RunInfo::now(&named.name, command, parameters, device);
    folder.begin(&named.recipe, &info)?;
    Ok(info)
}

/// After the last step: the task's measures, the report, the closing table.
fn conclude<T: RecipeTask>(task: &T, run: &Run<'_>, steps: u64) -> Result<String> {
    let mut found = task.conclude(run)?;
    let report = report::write(run, &mut found)?;
    let result = RunResult {
        metrics: found.metrics.iter().map(|(name, value)| (name.clone(), (*value).into())).collect(),
        images: found.images,
        unit: (run.unit != "images").then(|| run.unit.to_owned()),
        parameters: run.info.parameters,
        steps,
        seconds: run.seconds,
    };
    run.folder.finish(&result)?;
    let mut table = format!("\n{:<28}{:>10}\n", "validation", "value");
    for (name, value) in &found.metrics {
        table += &format!("{name:<28}{value:>10.4}\n");
    }
    for (name, value) in &found.rows {
        table += &format!("{name:<28}{value:>10}\n");
    }
    table += &format!("{:<28}{:>10}\n", "training time", duration(run.seconds));
    if let Some(first) = found.skipped.first() {
        table += &format!("{:<28}{:>10}  (could not be decoded; {first})\n", "images left out", found.skipped.len());
    }
    let mut files = vec![("model", crate::checkpoint::in_run(&run.folder.path)?)];
    files.append(&mut found.files);
    files.push(("report", report));
    let width = files.iter().map(|(what, _)| what.len() + 2).max().unwrap_or(0);
    for (what, path) in files {
        table += &format!("\n{:<width$}{}", format!("{what}:"), path.display());
    }
    Ok(table)
}

/// Seconds between the records of a run; the pause before a start is none of them.
fn training_seconds(metrics: &Metrics) -> f64 {
    let mut times: Vec<(f64, bool)> = ["start", "step", "eval", "checkpoint", "end"]
        .iter()
        .flat_map(|kind| metrics.records(kind).iter().map(|r| (r.values.get("time").copied(), *kind == "start")))
        .filter_map(|(time, start)| Some((time?, start)))
        .collect();
    times.sort_by(|a, b| a.0.total_cmp(&b.0));
    times.windows(2).filter(|pair| !pair[1].1).map(|pair| pair[1].0 - pair[0].0).sum()
}

/// A flag that Ctrl-C (or a polite kill) raises; a second Ctrl-C ends the process at once.
pub fn stop_on_signal() -> Result<Arc<AtomicBool>> {
    // One for the process: a sweep trains many times, and a handler can be set once.
    static STOP: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);
    let stop = STOP.clone();
    let flag = stop.clone();
    let handler = move || {
        if flag.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        eprintln!("\nstopping after this step; once more to stop at once");
    };
    match ctrlc::set_handler(handler) {
        Ok(()) | Err(ctrlc::Error::MultipleHandlers) => Ok(stop),
        Err(e) => Err(e).context("no handler for Ctrl-C can be set"),
    }
}
