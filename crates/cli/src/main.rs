//! The `whitebox` command: train, evaluate, predict, reconstruct, convert. `cargo xtask WORD` builds it and hands every word on.

// Of libtorch and OpenBLAS, which export the same BLAS names, the one that is linked first serves both, and libtorch has to be: its
// products are the slower on OpenBLAS. The crate that is named first is linked last. A test looks at the outcome.
#[cfg(feature = "experiments")]
extern crate rate_reduction as _;

mod analysis;
mod baseline;
mod checkpoint;
mod commands;
mod data;
mod evaluate;
mod experiments;
mod frozen;
mod images;
mod layers;
mod likelihood;
mod machine;
mod memory;
mod pictures;
mod progress;
mod recipe;
mod reconstruction;
mod report;
mod run_folder;
mod sentences;
mod tasks;
mod text;

use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use anyhow::Result;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

/// CRATE, the white-box transformer: train, evaluate, measure and explain.
#[derive(Parser, Debug)]
#[command(
    version,
    after_help = "Examples:
  cargo xtask demo
  cargo xtask train fashion-mnist --set train.epochs=3
  cargo xtask eval runs/mine
  cargo xtask predict shoe.png
`cargo xtask WORD --help` ends in examples for each."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    Demo(commands::demo::DemoArgs),
    Train(commands::train::TrainArgs),
    Eval(commands::eval::EvalArgs),
    Predict(commands::predict::PredictArgs),
    Reconstruct(commands::reconstruct::ReconstructArgs),
    Convert(commands::convert::ConvertArgs),
    Recipes(commands::recipes::RecipesArgs),
    Sweep(commands::sweep::SweepArgs),
    Features(commands::features::FeaturesArgs),
    Knn(commands::features::KnnArgs),
    Probe(commands::features::ProbeArgs),
    Throughput(commands::throughput::ThroughputArgs),
    Experiment(commands::experiment::ExperimentArgs),
    Analyze(commands::analyze::AnalyzeArgs),
    Tokenize(commands::tokenize::TokenizeArgs),
    Generate(commands::generate::GenerateArgs),
}

fn main() -> ExitCode {
    torch_extras::heap::keep_freed_blocks();
    torch_extras::heap::ask_for_large_pages();
    // The CUDA backend registers itself when it is loaded, which must come before the first question about CUDA.
    let _ = torch_extras::cuda::load_backend();
    let matches = Cli::command().bin_name(invoked_as()).get_matches();
    let cli = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    let result = match &cli.command {
        Command::Demo(args) => commands::demo::run(args),
        Command::Train(args) => commands::train::run(args),
        Command::Eval(args) => commands::eval::run(args),
        Command::Predict(args) => commands::predict::run(args),
        Command::Reconstruct(args) => commands::reconstruct::run(args),
        Command::Convert(args) => commands::convert::run(args),
        Command::Recipes(args) => commands::recipes::run(args),
        Command::Sweep(args) => commands::sweep::run(args),
        Command::Features(args) => commands::features::features(args),
        Command::Knn(args) => commands::features::knn(args),
        Command::Probe(args) => commands::features::probe(args),
        Command::Throughput(args) => commands::throughput::run(args),
        Command::Experiment(args) => commands::experiment::run(args),
        Command::Analyze(args) => commands::analyze::run(args),
        Command::Tokenize(args) => commands::tokenize::run(args),
        Command::Generate(args) => commands::generate::run(args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", chain(&error));
            ExitCode::FAILURE
        }
    }
}

/// The error and its causes in one sentence; a cause that the message before it already holds is not said twice.
fn chain(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text += &format!(": {cause}");
        }
    }
    text
}

/// How a person calls this program: `cargo xtask` where xtask started it.
pub fn invoked_as() -> String {
    std::env::var("WHITEBOX_INVOKED_AS").unwrap_or("whitebox".into())
}

/// Prints a result to standard output; a reader that has left (as `head`) is no error.
pub fn say(text: &str) -> Result<()> {
    match writeln!(std::io::stdout(), "{text}") {
        Err(e) if e.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
        other => Ok(other?),
    }
}
