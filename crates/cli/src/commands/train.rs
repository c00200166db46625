//! `train`: one recipe, one run folder.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};

use anyhow::{Context, Result, bail};
use clap::Args;
use tch::Device;
use whitebox_analysis::count;
use whitebox_analysis::metrics::Metrics;
use whitebox_model::weights::Card;
use whitebox_train::{Jsonl, Outcome, Sink, Source, TensorBoard, diff};

use crate::commands::dry_run;
use crate::data::{ImageSource, Sets};
use crate::evaluate::evaluate;
use crate::progress::{Terminal, duration, meter};
use crate::recipe::{self, Named, TaskConfig};
use crate::report::{self, Finished, LAYERS_BEFORE};
use crate::run_folder::{RunFolder, RunInfo, RunResult, command_line, commit};
use crate::tasks::classify::Classify;
use crate::{baseline, layers};

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
    let recipe = &named.recipe;
    let sets = recipe.data.open()?;
    let started = resumed.as_ref().and_then(RunFolder::info);
    let command = started.as_ref().map_or_else(command_line, |info| info.command.clone());
    let mut task = task(named, &sets, device, &command)?;
    let source = ImageSource(recipe.data.train_loader(sets.train.clone(), recipe.train.seed)?);
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
        None => begin(&folder, named, command, &task, device)?,
    };
    eprintln!(
        "{}: {} parameters, {} training and {} validation images, {} classes, on {}\nrun folder: {}",
        named.name,
        count(info.parameters),
        count(sets.train.len() as u64),
        count(sets.validation.len() as u64),
        sets.train.classes().len(),
        info.device,
        folder.path.display()
    );
    if recipe.report.layer_images > 0 && !folder.path.join(LAYERS_BEFORE).exists() {
        let (before, _) = layers::measure(task.model.as_ref(), task.validation(), device, recipe.report.layer_images)?;
        folder.write(LAYERS_BEFORE, serde_json::to_string(&before)?.as_bytes())?;
    }
    let mut sinks: Vec<Box<dyn Sink>> = vec![
        Box::new(Terminal::new()),
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
        Outcome::Finished { step, .. } => conclude(named, &folder, &info, &task, &sets, device, step),
    }
}

/// The task of a recipe on opened data; its checkpoints tell the `command` that started the run.
pub fn task(named: &Named, sets: &Sets, device: Device, command: &str) -> Result<Classify> {
    let recipe = &named.recipe;
    let classes = sets.train.classes();
    let mut card = Card::new(recipe.model_config(Some(classes.len()))?);
    card.classes = classes.to_vec();
    card.data = Some(serde_json::to_value(&recipe.data)?);
    card.command = Some(command.to_owned());
    let TaskConfig::Classify(classify) = &recipe.task;
    let validation = recipe.data.eval_loader(sets.validation.clone())?;
    Classify::new(card, device, &recipe.train, classify, sets.train.as_ref(), validation)
}

fn begin(folder: &RunFolder, named: &Named, command: String, task: &Classify, device: Device) -> Result<RunInfo> {
    let info = RunInfo {
        recipe: named.name.clone(),
        command,
        version: env!("CARGO_PKG_VERSION").into(),
        commit: commit(),
        device: device_name(device),
        threads: tch::get_num_threads(),
        started: jiff::Zoned::now().strftime("%Y-%m-%d %H:%M:%S %z").to_string(),
        parameters: task.card.model.cost().parameters,
    };
    folder.begin(named, &info)?;
    Ok(info)
}

/// After the last step: evaluation, layers, baseline, report, the closing table.
fn conclude(
    named: &Named,
    folder: &RunFolder,
    info: &RunInfo,
    task: &Classify,
    sets: &Sets,
    device: Device,
    steps: u64,
) -> Result<String> {
    let recipe = &named.recipe;
    let evaluation = evaluate(task.model.as_ref(), task.validation(), device, &mut meter("evaluating", "batches"))?;
    let layers = match recipe.report.layer_images {
        0 => (Vec::new(), 0),
        images => layers::measure(task.model.as_ref(), task.validation(), device, images)?,
    };
    let baseline = match recipe.report.linear_baseline {
        false => None,
        true => {
            let plain = recipe.data.plain_loader(sets.train.clone(), recipe.train.seed)?;
            let mut progress = meter("training a linear model on pixels, for comparison", "steps");
            Some(baseline::linear_accuracy(&plain, task.validation(), device, &mut progress)?)
        }
    };
    let metrics = Metrics::read(&folder.path.join("metrics.jsonl"))?;
    let seconds = training_seconds(&metrics);
    let run = Finished {
        folder,
        named,
        info,
        evaluation: &evaluation,
        validation: sets.validation.as_ref(),
        baseline,
        layers,
        seconds,
        skipped: task.skipped.iter().chain(&evaluation.skipped).cloned().collect(),
    };
    let report = report::write(&run)?;
    let result = RunResult {
        metrics: evaluation.metrics().into_iter().map(|(name, value)| (name, value.into())).collect(),
        images: evaluation.predictions.len() as u64,
        parameters: info.parameters,
        steps,
        seconds,
    };
    folder.write("result.json", serde_json::to_string_pretty(&result)?.as_bytes())?;
    let mut table = format!("\n{:<28}{:>10}\n", "validation", "value");
    for (name, value) in evaluation.metrics() {
        table += &format!("{name:<28}{value:>10.4}\n");
    }
    if let Some(accuracy) = baseline {
        table += &format!("{:<28}{accuracy:>10.4}\n", "accuracy, linear on pixels");
    }
    table += &format!("{:<28}{:>10}\n", "training time", duration(seconds));
    if let Some(first) = run.skipped.first() {
        table += &format!("{:<28}{:>10}  (could not be decoded; {first})\n", "images left out", run.skipped.len());
    }
    Ok(format!("{table}\nmodel:  {}\nreport: {}", last_model(folder)?.display(), report.display()))
}

/// The model file of the run's last checkpoint.
fn last_model(folder: &RunFolder) -> Result<PathBuf> {
    crate::checkpoint::in_run(&folder.path)
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
fn stop_on_signal() -> Result<Arc<AtomicBool>> {
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

/// `cpu`, `cuda:0`.
pub fn device_name(device: Device) -> String {
    match device {
        Device::Cpu => "cpu".into(),
        Device::Cuda(i) => format!("cuda:{i}"),
        other => format!("{other:?}"),
    }
}
