//! `cargo xtask bench versus-pytorch`: this project beside PyTorch, torchvision and NumPy, in turn on the same machine.
//!
//! For every case all contestants are started and warmed, then asked one after the other, for some rounds; what is
//! reported are medians over the rounds, and ratios taken within a round. The Python side is in `xtask/reference`.

pub mod cases;
pub mod contestant;
pub mod criterion;
pub mod interrupt;
pub mod machine;
pub mod options;
pub mod protocol;
pub mod rounds;
pub mod stage;
pub mod statistics;
pub mod table;
pub mod worker;

use std::env;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::document;
use crate::lapack;
use crate::quiet;
use crate::setup::{Setup, Source};
use crate::whitebox::{cargo, find_libtorch, profile_folder};
use cases::{Case, cases};
use options::{Device, Options};
use rounds::Outcome;
use stage::Stage;
use statistics::median;

/// Measures, prints the tables and, after a whole run, writes them into the documents.
///
/// # Errors
/// Something is missing or doesn't build, a contestant fails, or the user stops it: the documents are then untouched.
pub fn run(options: &Options) -> Result<ExitCode> {
    options.check()?;
    let setup = Setup::new()?;
    let document = setup.places.root.join("docs/benchmarks.md");
    let mark = format!("versus-pytorch {}", options.device.word());
    if options.writes() {
        document::check(&document, &mark).context("with --no-write nothing is written")?;
    }
    let reference = setup.reference_ready()?;
    let scratch = tempfile::tempdir().context("making a temporary folder")?;
    let stage = Stage {
        root: setup.places.root.clone(),
        whitebox: profile_folder("release")?.join("whitebox"),
        reference,
        scratch: scratch.path().to_path_buf(),
        threads: options.threads()?,
        seconds: options.seconds(),
    };
    let cases = cases(options, &stage);
    if cases.is_empty() {
        bail!("no case's name contains {:?}; names are like {}", options.only.as_deref().unwrap_or_default(), NAMES);
    }
    let found = setup.libtorch(&Source::Any, false)?;
    if options.device == Device::Cuda && !found.cuda {
        bail!("libtorch is the one for the CPU: run `cargo xtask setup --cuda` first");
    }
    lapack::ensure()?;
    build(&cases, &stage)?;

    interrupt::watch()?;
    let before = machine::load();
    let bar = rounds::bar(&cases, options.rounds());
    let mut outcomes = Vec::new();
    for case in &cases {
        let outcome = rounds::run(case, options.rounds(), &stage, &bar);
        if let Ok(outcome) = &outcome {
            bar.suspend(|| eprintln!("{}", brief(outcome)));
        }
        outcomes.push(outcome.inspect_err(|_| bar.finish_and_clear())?);
    }
    bar.finish_and_clear();

    let facts = machine::facts(options, &stage, &setup.reference);
    let block = block(options, &stage, &facts, &before, &outcomes);
    print!("{block}");
    if options.writes() {
        document::write(&document, &mark, &block)?;
        eprintln!("written into {}", document.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// What a filter may be part of.
const NAMES: &str = "models/crate-tiny/training/float32, memory/crate-tiny/bfloat16, loader/photos_32x32, rates/Rc";

/// Builds what will be measured, before anything is.
fn build(cases: &[Case], stage: &Stage) -> Result<()> {
    let mut builds = Vec::new();
    if cases.iter().any(|case| case.bench().is_none()) {
        builds.push(vec!["build", "--release", "--package", "whitebox"]);
    }
    for bench in cases.iter().filter_map(Case::bench) {
        let build = vec!["bench", "--no-run", "--package", bench.package, "--bench", bench.target];
        if !builds.contains(&build) {
            builds.push(build);
        }
    }
    for words in builds {
        let mut command = cargo();
        command.args(&words).current_dir(&stage.root);
        if !quiet::run(find_libtorch(&mut command, &stage.root)?)?.success() {
            bail!("`cargo {}` failed; `cargo xtask doctor` says whether something is missing", words.join(" "));
        }
    }
    Ok(())
}

/// One line while the run goes on.
fn brief(outcome: &Outcome) -> String {
    let figures = outcome.case.entries.iter().zip(&outcome.values);
    let figures: Vec<_> = figures.map(|(entry, values)| format!("{} {:.4}", entry.name, median(values))).collect();
    format!("{}: {}", outcome.case.name(), figures.join(", "))
}

fn block(options: &Options, stage: &Stage, facts: &str, before: &str, outcomes: &[Outcome]) -> String {
    let command = env::args().skip(1).map(|word| format!(" {word}")).collect::<String>();
    let tables = table::tables(outcomes, options.batch(), options.memory_batch());
    format!(
        "{facts} Load of the machine {before} before, {} at the end.\n\n    cargo xtask{command}\n\n\
         Medians of {} rounds; a turn is {} s. A ratio is the median of the rounds' ratios (least-most); above 1 this project \
         is the better one.\n\n{tables}",
        machine::load(),
        options.rounds(),
        stage.seconds,
    )
}
